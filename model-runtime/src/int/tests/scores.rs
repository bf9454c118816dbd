//! Integer against float scores where they are used: trained adapters, true datanets.

use super::quality::attribution_quality;
use super::*;
use crate::demo;
use crate::import::{ImportOptions, load_model};
use crate::text::{Datanet, Tokenizer};
use crate::train::{LoraConfig, Penalties, Schedule, train_lora};
use std::path::Path;

/// The target of integer against float scores, averaged over queries.
const TARGET: f64 = 0.99;
/// What the demo keeps (measured 0.737): its residual stream grows 300-fold from the first layer to the last, which leaves the first one six
/// bits of one static unit (`docs/protocol.md`, open points).
const DEMO_FLOOR: f64 = 0.7;

/// A model, an adapter trained on the first `samples` of `sequences`, and the rest as queries.
fn trained(directory: &Path, context: usize, sequences: Vec<Vec<u32>>, samples: usize, config: &LoraConfig) -> Case {
    let float = load_model(directory, &ImportOptions { context: Some(context) }).unwrap();
    let float_adapter = train_lora(&float, &sequences[..samples], config, |_| {}).unwrap();
    let calibration: Vec<Vec<u32>> = sequences[..samples].iter().step_by(samples.div_ceil(64)).cloned().collect();
    let model = quantise_base(&float, &calibration).unwrap();
    let adapter = quantise_adapter(&model, &float, &float_adapter, &sequences[..samples]).unwrap();
    let runtime = Runtime::new(adapter.semantics.clone(), &model.tensors, Some(&adapter.tensors)).unwrap();
    Case { float, float_adapter, model, adapter, runtime, sequences }
}

fn check_scores(what: &str, case: &Case, samples: usize, least: f64) {
    let (q, _) = attribution_quality(case, samples, 8, 0.1);
    eprintln!("{what}: sketch {:.4} score {:.4}", q.sketch, q.score);
    assert!(q.score >= least, "{what}: {}", q.score);
}

#[test]
fn scores_of_the_demo_match_float() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo");
    let base = assets.join(demo::BASE_DIR);
    let tokenizer = Tokenizer::load(&base).unwrap();
    let datanet = Datanet::load(&assets.join(demo::DATANET_FILE)).unwrap();
    let queries = demo::load_queries(&assets.join(demo::QUERIES_FILE)).unwrap();
    let asked: Vec<String> = queries.iter().step_by(5).map(|q| format!("{} {}.", q.prompt, q.answer)).collect();
    let texts = datanet.samples.iter().map(|s| &s.text).chain(&asked);
    let sequences = texts.map(|t| tokenizer.encode_sample(t, demo::CONTEXT).unwrap()).collect();
    let case = trained(&base, demo::CONTEXT, sequences, datanet.samples.len(), &demo::lora_config());
    check_scores("demo", &case, datanet.samples.len(), DEMO_FLOOR);
}

/// Relative error of every tensor, averaged over queries.
fn errors(case: &Case, samples: usize) {
    use crate::int::trace::{Keep, Mode};
    use crate::semantics::Dims;
    let folded = Folded::new(&case.float, Some(&case.float_adapter));
    let shape = &folded.shape;
    let mut table: std::collections::BTreeMap<(usize, String), (f64, f64)> = Default::default();
    let (mut small, mut slots) = (0, 0);
    for tokens in case.sequences[samples..].iter().take(8) {
        let d = Dims::new(&case.adapter.semantics, tokens.len(), tokens.len());
        let ours = case.runtime.run(tokens, 1, d, Mode::Sample, Keep::All, true).unwrap();
        let theirs = reference::run(&folded, tokens, Some(1));
        for name in ["hin", "n1", "m", "n2", "hout", "nf", "gout", "gm", "gin", "nf.v"] {
            let Some(int) = ours.tensors.get(name) else { continue };
            let Some(&exp) = case.adapter.semantics.exps.get(name).or_else(|| case.adapter.semantics.exps.get("G")) else { continue };
            let unit = f64::from(-exp).exp2();
            let per = int.data.len() / if name.starts_with("nf") { 1 } else { d.l };
            let Some(float) = theirs.tensors.get(name) else { continue };
            for (l, float) in float.iter().enumerate().filter(|(_, f)| !f.is_empty()) {
                let e = table.entry((l, name.to_owned())).or_default();
                for (i, f) in float.iter().enumerate() {
                    let (t, c) = (i / shape.width, i % shape.width);
                    if t == 0 { continue }
                    let g = f64::from(int.data[l * per + t * d.d + c]) * unit;
                    e.0 += (g - f64::from(*f)).powi(2);
                    e.1 += f64::from(*f).powi(2);
                }
            }
        }
        let vocab = shape.vocab;
        for s in 0..tokens.len() - 1 {
            let z = &theirs.logits[s * vocab..(s + 1) * vocab];
            let max = z.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = z.iter().map(|z| (z - max).exp()).sum();
            let gap = 1.0 - (z[tokens[s + 1] as usize] - max).exp() / sum;
            small += usize::from(gap < 1.0 / 256.0);
            slots += 1;
        }
    }
    for ((l, name), (e, f)) in &table {
        eprintln!("layer {l} {name:6} relative error {:.5} rms {:.4}", (e / f).sqrt(), f.sqrt());
    }
    eprintln!("slots with gap below 2^-8: {small} of {slots}; exps {:?}", case.adapter.semantics.exps.iter().filter(|(k, _)| ["hin", "G", "n1", "nf", "out"].contains(&&k[..])).collect::<Vec<_>>());
}

#[test]
#[ignore]
fn experiment() {
    let assets = std::env::var("EXP").map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo"), Into::into);
    let base = assets.join(demo::BASE_DIR);
    let tokenizer = Tokenizer::load(&base).unwrap();
    let datanet = Datanet::load(&assets.join(demo::DATANET_FILE)).unwrap();
    let queries = demo::load_queries(&assets.join(demo::QUERIES_FILE)).unwrap();
    let asked: Vec<String> = queries.iter().step_by(5).map(|q| format!("{} {}.", q.prompt, q.answer)).collect();
    let texts = datanet.samples.iter().map(|s| &s.text).chain(&asked);
    let sequences = texts.map(|t| tokenizer.encode_sample(t, demo::CONTEXT).unwrap()).collect();
    let case = trained(&base, demo::CONTEXT, sequences, datanet.samples.len(), &demo::lora_config());
    errors(&case, datanet.samples.len());
    let right = demo::answered(&case.float, Some(&case.float_adapter), &tokenizer, &queries).unwrap();
    eprintln!("answered {} of {}", right.iter().filter(|r| **r).count(), right.len());
    check_scores("demo", &case, datanet.samples.len(), 0.0);
}

#[test]
fn scores_of_a_real_model_and_datanet_match_float() {
    let (model, datanet) = (assets().join("models/tinystories-656k"), assets().join("datanets/awesome-prompts/samples.jsonl"));
    if !model.exists() || !datanet.exists() {
        eprintln!("\n!!! SKIPPED: {} or {} is missing; set POA_ASSETS !!!\n", model.display(), datanet.display());
        return;
    }
    let tokenizer = Tokenizer::load(&model).unwrap();
    let datanet = Datanet::load(&datanet).unwrap();
    let (samples, queries) = (256, 16);
    let texts = datanet.samples.iter().take(samples + queries);
    let sequences = texts.map(|s| tokenizer.encode_sample(&s.text, 64).unwrap()).collect();
    let schedule = Schedule { epochs: 1, batch: 8, learning_rate: 3e-3, warmup: 0.1, weight_decay: 0.0, seed: 1, penalties: Penalties::default() };
    let config = LoraConfig { rank: 8, alpha: 16.0, sites: Site::ALL.to_vec(), context: 64, schedule };
    check_scores("tinystories-656k, awesome-prompts", &trained(&model, 128, sequences, samples, &config), samples, TARGET);
}
