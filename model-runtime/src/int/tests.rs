//! Integer against float, cache against whole sequence, threads against one thread, padding against none.

use super::reference::{self, Folded};
use super::trace::{Keep, Mode};
use super::{IntModel, Runtime, quantise_base};
use crate::semantics::Dims;
use crate::shape::{FloatLayer, FloatModel, ModelShape, Site};
use std::path::PathBuf;

fn assets() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/assets");
    std::env::var_os("POA_ASSETS").map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// A tiny private reader of the TinyStories checkpoint.
pub(super) fn tinystories(context: usize) -> Option<FloatModel> {
    let path = assets().join("models/tinystories-656k/model.safetensors");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("\n!!! SKIPPED: {} is missing; set POA_ASSETS !!!\n", path.display());
        return None;
    };
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let get = |name: &str| -> Vec<f32> {
        file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let shape = ModelShape {
        layers: 2, width: 128, heads: 8, kv_heads: 4, head_dim: 16, ff: 384, vocab: 2048,
        rope_theta: 10000.0, norm_eps: 1e-6, context,
    };
    let names = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"];
    let layers = (0..2).map(|l| FloatLayer {
        attn_norm: get(&format!("model.layers.{l}.input_layernorm.weight")),
        ffn_norm: get(&format!("model.layers.{l}.post_attention_layernorm.weight")),
        linear: Site::ALL.map(|s| get(&format!("model.layers.{l}.{}_proj.weight", names[s as usize]))),
    });
    Some(FloatModel { embed: get("lm_head.weight"), layers: layers.collect(), final_norm: get("model.norm.weight"), head: None, shape })
}

/// Greedy decoding of the float model from BOS and one more token: plausible text without a tokenizer.
pub(super) fn float_stories(model: &Folded, count: usize, len: usize, sample: bool) -> Vec<Vec<u32>> {
    let vocab = model.shape.vocab;
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count).map(|_| {
        let mut tokens = vec![1u32];
        while tokens.len() < len {
            let logits = reference::run(model, &tokens, None).logits;
            let z = &logits[logits.len() - vocab..];
            let max = z.iter().copied().fold(f32::MIN, f32::max);
            let weights: Vec<f64> = z.iter().map(|z| f64::from(z - max).exp()).collect();
            let mut left = next() * weights.iter().sum::<f64>();
            let mut pick = 0;
            if sample {
                while pick + 1 < vocab && left > weights[pick] {
                    left -= weights[pick];
                    pick += 1;
                }
            } else {
                pick = z.iter().position(|&z| z == max).unwrap();
            }
            tokens.push(pick as u32);
        }
        tokens
    }).collect()
}

fn runtime(model: &IntModel) -> Runtime {
    Runtime::new(model.semantics.clone(), &model.tensors, None).unwrap()
}

#[test]
fn real_model_matches_float() {
    let Some(float) = tinystories(256) else { return };
    let folded = Folded::new(&float, None);
    let stories = float_stories(&folded, 12, 64, true);
    let model = quantise_base(&float, &stories[..6]).unwrap();
    for (name, op) in &model.semantics.ops {
        eprintln!("{name:8} exp {:3} shift {:2} bits {:2} {:?} {:?}", model.semantics.exps.get(name).copied().unwrap_or(-99), op.shift, op.bits, op.rounding, op.coefs);
    }
    eprintln!("{:?}\n{:?}\n{:?}\nunproven {:?}", model.semantics.exps, model.semantics.consts, model.semantics.weight_bits, model.calibrated);
    let rt = runtime(&model);
    let d = Dims::new(&model.semantics, 64, 64);
    for _ in 0..3 {
        let start = std::time::Instant::now();
        rt.run(&stories[7], 1, d, Mode::Sample, Keep::Sketch, true).unwrap();
        eprintln!("lean {:?}", start.elapsed());
    }
    let trace = rt.run(&stories[7], 1, d, Mode::Sample, Keep::All, true).unwrap();
    let reference = reference::run(&folded, &stories[7], Some(1));
    for (name, layers) in &reference.tensors {
        for (l, x) in layers.iter().enumerate() {
            let key = if ["n1", "n2", "nf"].contains(&name.as_str()) { format!("{name}.n") } else { name.clone() };
            let (Some(t), Some(e)) = (trace.tensors.get(&key), model.semantics.exps.get(name)) else { continue };
            let per = t.data.len() / layers.len();
            let y = &t.data[l * per..(l + 1) * per];
            if per != x.len() { continue; }
            let unit = f64::from(-e).exp2();
            let (mut xy, mut xx, mut yy, mut dd) = (0.0, 0.0, 0.0, 0.0);
            for (a, b) in x.iter().zip(y) {
                let (a, b) = (f64::from(*a), f64::from(*b) * unit);
                xy += a * b; xx += a * a; yy += b * b; dd += (a - b) * (a - b);
            }
            let peak = y.iter().map(|y| y.abs()).max().unwrap();
            eprintln!("{name:6} {l} cos {:.5} relative error {:.4} peak {peak} rms {:.1}", xy / (xx * yy).sqrt(), (dd / xx).sqrt(), (yy/per as f64).sqrt()/unit);
        }
    }
}

#[test]
fn explore() {
    let Some(float) = tinystories(256) else { return };
    let folded = Folded::new(&float, None);
    let stories = float_stories(&folded, 40, 64, true);
    let r = super::calibrate::Ranges::measure(&folded, &stories);
    for n in ["hin","m","hout","att","gin"] { eprintln!("R {n} {} {}", r.max(n), r.high(n)); }
    let model = quantise_base(&float, &stories[..8]).unwrap();
    let f = super::fidelity::fidelity(&runtime(&model), &stories[8..], |t| reference::run(&folded, t, None).logits).unwrap();
    eprintln!("R {} {f:?} {}", model.semantics.exps["hin"], f.perplexity_ratio());
    let rt = runtime(&model);
    let greedy: Vec<Vec<u32>> = stories[8..].iter().map(|s| {
        let mut t = s[..8].to_vec();
        t.extend(rt.generate(&s[..8], 100, None).unwrap());
        t
    }).collect();
    let f = super::fidelity::fidelity(&rt, &greedy, |t| reference::run(&folded, t, None).logits).unwrap();
    eprintln!("R {} {f:?} {}", model.semantics.exps["hin"], f.perplexity_ratio());
}
