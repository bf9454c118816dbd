//! Remakes the demo's files (see `model_runtime::demo`), trains its adapter and prints how many held-out queries are answered.
//!
//! `cargo run --release -p model-runtime --example remake_demo [-- texts | check]`; with `texts` the base model stays as it is, with `check`
//! every file.

use model_runtime::demo::{self, BASE_DIR, DATANET_FILE, DemoError, QUERIES_FILE};
use model_runtime::import::{ImportOptions, load_model};
use model_runtime::text::{Datanet, Tokenizer};
use model_runtime::train::{HoldOut, Progress, train_lora_chosen};
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), DemoError> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../assets/demo");
    let start = Instant::now();
    match std::env::args().nth(1).as_deref() {
        Some("check") => {}
        Some("texts") => demo::remake_texts(&dir)?,
        _ => {
            demo::remake(&dir, report)?;
            println!("base model: {:.0} s", start.elapsed().as_secs_f64());
        }
    }
    measure(&dir)
}

fn measure(dir: &std::path::Path) -> Result<(), DemoError> {
    let base = dir.join(BASE_DIR);
    let (model, tokenizer) = (load_model(&base, &ImportOptions::default())?, Tokenizer::load(&base)?);
    let datanet = Datanet::load(&dir.join(DATANET_FILE))?;
    let queries = demo::load_queries(&dir.join(QUERIES_FILE))?;
    let samples = demo::tokens(&tokenizer, datanet.samples.iter().map(|s| s.text.as_str()))?;
    let start = Instant::now();
    let (adapter, curve) = train_lora_chosen(&model, &samples, &demo::lora_config(), &HoldOut::default(), |progress| {
        report(progress);
        true
    })?;
    println!("adapter: {:.0} s", start.elapsed().as_secs_f64());
    println!("held-out loss: {}", curve.iter().map(|e| format!("{:.2}", e.held_out)).collect::<Vec<_>>().join(" "));
    for (name, adapter) in [("base model", None), ("with adapter", Some(&adapter))] {
        let right = demo::answered(&model, adapter, &tokenizer, &queries)?;
        println!("{name}: {} of {} held-out queries", right.iter().filter(|r| **r).count(), right.len());
    }
    Ok(())
}

fn report(progress: Progress) {
    if progress.step.is_multiple_of(100) || progress.step == progress.steps {
        println!("step {} of {}: loss {:.3}", progress.step, progress.steps, progress.loss);
    }
}
