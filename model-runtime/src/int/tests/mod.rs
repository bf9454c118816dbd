//! Integer against float, cache against whole sequence, threads against one thread, padding against none.

mod batch;
mod exactness;
mod headroom;
mod quality;
mod scores;
mod sizes;
mod words;

use super::reference::{self, Folded};
use super::synthetic::{Generator, random_adapter, random_model};
use super::{IntAdapter, IntModel, Runtime, quantise_adapter, quantise_base};
use crate::shape::{FloatAdapter, FloatLayer, FloatModel, LoraShape, ModelShape, Site};
use std::path::PathBuf;

fn assets() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/assets");
    std::env::var_os("POA_ASSETS").map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// A tiny private reader of the TinyStories checkpoint.
fn tinystories(context: usize) -> Option<FloatModel> {
    let path = assets().join("models/tinystories-656k/model.safetensors");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("\n!!! SKIPPED: {} is missing; set POA_ASSETS !!!\n", path.display());
        return None;
    };
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let get =
        |name: &str| -> Vec<f32> { file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect() };
    let shape =
        ModelShape { layers: 2, width: 128, heads: 8, kv_heads: 4, head_dim: 16, ff: 384, vocab: 2048, rope_theta: 10000.0, norm_eps: 1e-6, context };
    let names = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"];
    let layers = (0..2).map(|l| FloatLayer {
        attn_norm: get(&format!("model.layers.{l}.input_layernorm.weight")),
        ffn_norm: get(&format!("model.layers.{l}.post_attention_layernorm.weight")),
        linear: Site::ALL.map(|s| get(&format!("model.layers.{l}.{}_proj.weight", names[s as usize]))),
    });
    let layers = layers.collect();
    Some(FloatModel { embed: get("lm_head.weight"), layers, final_norm: get("model.norm.weight"), head: None, shape })
}

/// Sequences sampled from the float model at temperature 1.
fn float_stories(model: &Folded, count: usize, len: usize) -> Vec<Vec<u32>> {
    let (vocab, mut rng) = (model.shape.vocab, Generator::new(7));
    let mut story = || {
        let mut tokens = vec![1u32];
        while tokens.len() < len {
            let logits = reference::run(model, &tokens, None).logits;
            let z = &logits[logits.len() - vocab..];
            let max = z.iter().copied().fold(f32::MIN, f32::max);
            let weights: Vec<f64> = z.iter().map(|z| f64::from(z - max).exp()).collect();
            let mut left = (rng.bits() >> 11) as f64 / (1u64 << 53) as f64 * weights.iter().sum::<f64>();
            let pick = weights.iter().position(|w| {
                left -= w;
                left <= 0.0
            });
            tokens.push(pick.unwrap_or(0) as u32);
        }
        tokens
    };
    (0..count).map(|_| story()).collect()
}

fn lora(rank: usize) -> LoraShape {
    LoraShape { rank, sites: Site::ALL.to_vec() }
}

/// Sizes that are not powers of two anywhere.
fn odd_shape() -> ModelShape {
    ModelShape { layers: 3, width: 24, heads: 6, kv_heads: 2, head_dim: 6, ff: 40, vocab: 50, rope_theta: 10000.0, norm_eps: 1e-5, context: 64 }
}

struct Case {
    float: FloatModel,
    float_adapter: FloatAdapter,
    model: IntModel,
    adapter: IntAdapter,
    runtime: Runtime,
    sequences: Vec<Vec<u32>>,
}

fn case(float: FloatModel, sequences: Vec<Vec<u32>>, rank: usize, calibration: usize) -> Case {
    let mut rng = Generator::new(3);
    let float_adapter = random_adapter(&float.shape, &lora(rank), &mut rng);
    let model = quantise_base(&float, &sequences[..calibration]).unwrap();
    let adapter = quantise_adapter(&model, &float, &float_adapter, &sequences[..calibration]).unwrap();
    let runtime = Runtime::new(adapter.semantics.clone(), &model.tensors, Some(&adapter.tensors)).unwrap();
    Case { float, float_adapter, model, adapter, runtime, sequences }
}

fn odd_case() -> Case {
    let mut rng = Generator::new(11);
    let float = random_model(&odd_shape(), &mut rng);
    let sequences = (0..12).map(|_| rng.tokens(20, 50)).collect();
    case(float, sequences, 3, 6)
}
