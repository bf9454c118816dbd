//! Random models of any shape, for benchmarks: random float weights, quantised on a short random sequence.

use super::adapter::{IntAdapter, quantise_adapter};
use super::quantise::{IntModel, QuantiseError, quantise_plain};
use crate::shape::{FloatAdapter, FloatLayer, FloatModel, LoraShape, ModelShape, Site};
use std::collections::BTreeMap;

/// Tokens of the calibration sequence.
const CALIBRATION_TOKENS: usize = 16;

/// A small deterministic generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Generator(u64);

impl Generator {
    /// Seeds the generator.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A nearly normal number (sum of four uniforms) of variance 1.
    pub fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: f32 = (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as f32).sum();
        (sum / 65536.0 - 2.0) * 3f32.sqrt()
    }

    /// `count` nearly normal numbers of standard deviation `scale`.
    pub fn normals(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.normal() * scale).collect()
    }

    /// `count` tokens below `vocab`.
    pub fn tokens(&mut self, count: usize, vocab: usize) -> Vec<u32> {
        (0..count).map(|_| (self.bits() % vocab as u64) as u32).collect()
    }
}

/// A random float model with matrices of standard deviation `0.8/√in`.
pub fn random_model(shape: &ModelShape, rng: &mut Generator) -> FloatModel {
    let layers = (0..shape.layers).map(|_| FloatLayer {
        attn_norm: rng.normals(shape.width, 0.1).iter().map(|x| 1.0 + x).collect(),
        ffn_norm: rng.normals(shape.width, 0.1).iter().map(|x| 1.0 + x).collect(),
        linear: Site::ALL.map(|site| {
            let (out, ins) = shape.site_dims(site);
            rng.normals(out * ins, 0.8 / (ins as f32).sqrt())
        }),
    });
    FloatModel {
        shape: shape.clone(),
        layers: layers.collect(),
        embed: rng.normals(shape.vocab * shape.width, 0.7),
        final_norm: vec![1.0; shape.width],
        head: Some(rng.normals(shape.vocab * shape.width, 1.5 / (shape.width as f32).sqrt())),
    }
}

/// A random float adapter whose branch is a few per cent of its site.
pub fn random_adapter(shape: &ModelShape, lora: &LoraShape, rng: &mut Generator) -> FloatAdapter {
    let mut pairs = BTreeMap::new();
    for l in 0..shape.layers {
        for &site in &lora.sites {
            let (out, ins) = shape.site_dims(site);
            let a = rng.normals(lora.rank * ins, 1.0 / (ins as f32).sqrt());
            pairs.insert((l, site), (a, rng.normals(out * lora.rank, 0.05)));
        }
    }
    FloatAdapter { shape: lora.clone(), scale: 1.0, pairs }
}

/// A quantised random model and adapter of the given shapes.
pub fn synthetic_model(shape: &ModelShape, lora: &LoraShape, seed: u64) -> Result<(IntModel, IntAdapter), QuantiseError> {
    let mut rng = Generator::new(seed);
    let float = random_model(shape, &mut rng);
    let adapter = random_adapter(shape, lora, &mut rng);
    let calibration = vec![rng.tokens(CALIBRATION_TOKENS.min(shape.context), shape.vocab)];
    let model = quantise_plain(&float, &calibration)?;
    let adapter = quantise_adapter(&model, &float, &adapter, &calibration)?;
    Ok((model, adapter))
}
