//! Integer against float scores where they are used: trained adapters, true datanets.

use super::quality::attribution_quality;
use super::*;
use crate::demo;
use crate::import::{ImportOptions, load_model};
use crate::int::index::IndexOptions;
use crate::text::{Datanet, Tokenizer};
use crate::train::{LoraConfig, Penalties, Schedule, train_lora};
use std::path::Path;

/// The target of integer against float scores, averaged over queries.
const TARGET: f64 = 0.99;

/// A model, an adapter trained on the first `samples` of `sequences`, and the rest as queries.
fn trained(directory: &Path, context: usize, sequences: Vec<Vec<u32>>, samples: usize, config: &LoraConfig) -> Case {
    let float = load_model(directory, &ImportOptions { context: Some(context) }).unwrap();
    let float_adapter = train_lora(&float, &sequences[..samples], config, |_| true).unwrap();
    let calibration: Vec<Vec<u32>> = sequences[..samples].iter().step_by(samples.div_ceil(64)).cloned().collect();
    let model = quantise_base(&float, &calibration).unwrap();
    let adapter = quantise_adapter(&model, &float, &float_adapter, &sequences[..samples]).unwrap();
    let runtime = Runtime::new(adapter.semantics.clone(), &model.tensors, Some(&adapter.tensors)).unwrap();
    Case { float, float_adapter, model, adapter, runtime, sequences }
}

fn check_scores(what: &str, case: &Case, samples: usize, prompt: usize) {
    let (q, _) = attribution_quality(case, samples, prompt, &IndexOptions::default());
    eprintln!("{what}: sketch {:.4} score {:.4}", q.sketch, q.score);
    assert!(q.score >= TARGET, "{what}: {}", q.score);
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
    check_scores("demo", &case, datanet.samples.len(), 6);
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
    check_scores("tinystories-656k, awesome-prompts", &trained(&model, 128, sequences, samples, &config), samples, 16);
}
