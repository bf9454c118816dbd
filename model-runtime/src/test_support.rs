//! Small random models and the shared assets, for tests.

use crate::shape::{FloatAdapter, FloatLayer, FloatModel, LoraShape, ModelShape, Site};
use crate::train::SplitMix64;
use std::path::PathBuf;

/// A tiny architecture with grouped heads.
pub fn tiny_shape() -> ModelShape {
    ModelShape { layers: 2, width: 12, heads: 4, kv_heads: 2, head_dim: 6, ff: 20, vocab: 17, rope_theta: 10000.0, norm_eps: 1e-5, context: 16 }
}

/// Random weights.
pub fn random_model(shape: &ModelShape, tied: bool, seed: u64) -> FloatModel {
    let mut rng = SplitMix64::new(seed);
    let mut values = |len: usize, mean: f32, std: f32| (0..len).map(|_| mean + std * rng.normal()).collect::<Vec<f32>>();
    let layers = (0..shape.layers).map(|_| FloatLayer {
        attn_norm: values(shape.width, 1.0, 0.2),
        ffn_norm: values(shape.width, 1.0, 0.2),
        linear: Site::ALL.map(|site| values(shape.site_dims(site).0 * shape.site_dims(site).1, 0.0, 0.3)),
    });
    let layers = layers.collect();
    FloatModel {
        layers,
        embed: values(shape.vocab * shape.width, 0.0, 0.5),
        final_norm: values(shape.width, 1.0, 0.2),
        head: (!tied).then(|| values(shape.vocab * shape.width, 0.0, 0.5)),
        shape: shape.clone(),
    }
}

/// A random adapter, B not zero.
pub fn random_adapter(shape: &ModelShape, rank: usize, sites: &[Site], seed: u64) -> FloatAdapter {
    let mut rng = SplitMix64::new(seed);
    let mut values = |len: usize| (0..len).map(|_| 0.3 * rng.normal()).collect::<Vec<f32>>();
    let keys = (0..shape.layers).flat_map(|l| sites.iter().map(move |&s| (l, s)));
    let pairs = keys.map(|(l, s)| ((l, s), (values(rank * shape.site_dims(s).1), values(rank * shape.site_dims(s).0)))).collect();
    FloatAdapter { shape: LoraShape { rank, sites: sites.to_vec() }, scale: 1.5, pairs }
}

/// A path below the assets directory (`POA_ASSETS`, else `../shared/assets` beside the workspace); says so loudly when it isn't there.
pub fn asset(path: &str) -> Option<PathBuf> {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/assets");
    let found = std::env::var_os("POA_ASSETS").map_or_else(default, PathBuf::from).join(path);
    if !found.exists() {
        eprintln!("SKIPPED: no asset {path} (looked for {}; set POA_ASSETS)", found.display());
        return None;
    }
    Some(found)
}

/// A file below `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

/// Decodes base64 (standard alphabet, padded).
pub fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text.bytes().filter_map(|c| DIGITS.iter().position(|d| *d == c)).map(|d| d as u32).collect();
    digits
        .chunks(4)
        .flat_map(|chunk| {
            let value = chunk.iter().fold(0, |v, d| v << 6 | d) << (6 * (4 - chunk.len()));
            value.to_be_bytes()[1..chunk.len()].to_vec()
        })
        .collect()
}
