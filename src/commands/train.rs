//! `poa train`: a LoRA adapter from a datanet.

use crate::error::{Failure, While};
use crate::kept::Shelves;
use crate::meter::{self, Meter, say};
use crate::store::{AdapterDir, ModelDir};
use crate::work;
use circuits::ir::Group;
use model_runtime::import::load_peft;
use model_runtime::int::adapter::quantise_adapter;
use model_runtime::shape::{FloatAdapter, Site};
use model_runtime::text::Datanet;
use model_runtime::train::{LoraConfig, Penalties, Progress, Schedule, train_lora};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Train a LoRA adapter (or import one from PEFT), quantise it, write it PEFT-compatible.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa train --model m/ --datanet prompts.jsonl --rank 8 --out a/\n  poa train --model m/ --datanet prompts.jsonl --peft my-peft-adapter/ --out a/"
)]
pub struct Args {
    /// Imported model.
    #[arg(long)]
    model: PathBuf,
    /// Datanet: JSON lines or CSV with `contributor` and `text`, or a folder of text files (subfolder = contributor).
    #[arg(long)]
    datanet: PathBuf,
    /// Where the adapter goes.
    #[arg(long)]
    out: PathBuf,
    /// LoRA rank.
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// LoRA alpha (default: twice the rank).
    #[arg(long)]
    alpha: Option<f32>,
    /// Linear layers to adapt: any of q,k,v,o,gate,up,down.
    #[arg(long, value_delimiter = ',', default_value = "q,k,v,o,gate,up,down")]
    sites: Vec<String>,
    /// Passes over the datanet.
    #[arg(long, default_value_t = 2)]
    epochs: usize,
    /// Samples in a batch.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Samples are cut after this many tokens.
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// Use only the first samples.
    #[arg(long)]
    limit: Option<NonZeroUsize>,
    /// Seed of initialisation and shuffling.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Import this PEFT adapter instead of training.
    #[arg(long)]
    peft: Option<PathBuf>,
}

fn sites(names: &[String]) -> Result<Vec<Site>, Failure> {
    let find = |name: &String| {
        let site = Site::ALL.into_iter().find(|s| s.name() == name.trim());
        site.ok_or_else(|| Failure::input(format!("--sites: `{name}` is none of q, k, v, o, gate, up, down")))
    };
    let mut sites = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    sites.sort_unstable();
    sites.dedup();
    Ok(sites)
}

/// Trains with a progress bar; returns the adapter and the loss every few steps.
pub fn trained(model: &ModelDir, tokens: &[Vec<u32>], config: &LoraConfig) -> Result<(FloatAdapter, Vec<f32>), Failure> {
    let bar = meter::bar(1, "training");
    let mut losses = Vec::new();
    let progress = |p: Progress| {
        bar.set_length(p.steps as u64);
        bar.set_position(p.step as u64);
        bar.set_prefix(format!("loss {:.3}", p.loss));
        losses.push(p.loss);
    };
    let adapter = train_lora(&model.float, tokens, config, progress).during("training")?;
    bar.finish_and_clear();
    Ok((adapter, losses))
}

/// The loss curve as up to 16 means.
pub fn curve(losses: &[f32]) -> Vec<f32> {
    let chunk = losses.len().div_ceil(16).max(1);
    losses.chunks(chunk).map(|c| c.iter().sum::<f32>() / c.len() as f32).collect()
}

/// What to do about an adapter that can't be quantised: one that training drove away is too large, one that it hardly moved too small.
fn quantise_hint(losses: &[f32]) -> &'static str {
    match curve(losses).as_slice() {
        [] => "the PEFT adapter is too large or too small beside the model: check that it was made for this one",
        [first, .., last] if *last > 1.1 * first => "the loss has risen: lower --learning-rate",
        [first, .., last] if *last > 0.98 * first => "the loss has hardly moved: train longer, or try another --learning-rate",
        _ => "where too few bits are left, the adapter is too small beside the model: train longer or raise --learning-rate",
    }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let meter = Meter::start();
    let model = ModelDir::load(&args.model)?;
    let mut datanet = Datanet::load(&args.datanet).during_path("reading", &args.datanet)?;
    datanet.samples.truncate(args.limit.map_or(usize::MAX, NonZeroUsize::get));
    let max_tokens = args.max_tokens.min(model.float.shape.context);
    work::check_max_tokens(max_tokens)?;
    let tokens = work::sample_tokens(&model.tokenizer, &datanet, max_tokens)?;
    let (float, losses) = match &args.peft {
        Some(dir) => (load_peft(dir, &model.float.shape).during_path("importing", dir)?, vec![]),
        None => {
            let schedule = Schedule {
                epochs: args.epochs,
                batch: args.batch,
                learning_rate: args.learning_rate,
                warmup: 0.1,
                weight_decay: 0.01,
                seed: args.seed,
                penalties: Penalties::default(),
            };
            let alpha = args.alpha.unwrap_or(2.0 * args.rank as f32);
            let config = LoraConfig { rank: args.rank, alpha, sites: sites(&args.sites)?, context: max_tokens, schedule };
            trained(&model, &tokens, &config)?
        }
    };
    say("quantising the adapter …");
    let calibration: Vec<Vec<u32>> = tokens.iter().step_by(tokens.len().div_ceil(24)).cloned().collect();
    let int = quantise_adapter(&model.int, &model.float, &float, &calibration).during("quantising the adapter");
    let int = int.map_err(|f| f.hint(quantise_hint(&losses)))?;
    let adapter = AdapterDir { int, float };
    adapter.save(&args.out, &model.float, &args.model.display().to_string())?;
    let shelves = Shelves { adapter: Some(&args.out), ..Shelves::default() };
    let commitment = work::commit(Group::Adapter, &adapter.int.semantics, None, &adapter.int.tensors, shelves)?;
    let (seconds, cpu_seconds) = meter.read();
    if json {
        println!(
            "{}",
            json!({ "rank": adapter.float.shape.rank, "sites": adapter.float.shape.sites, "samples": tokens.len(), "loss": curve(&losses), "commitment": commitment, "seconds": seconds, "cpu_seconds": cpu_seconds })
        );
    } else {
        println!("Adapter of rank {} in {}, {} samples, {seconds:.1} s", adapter.float.shape.rank, args.out.display(), tokens.len());
        println!("  commitment {commitment} (native profile)");
        let curve = curve(&losses);
        if let (Some(first), Some(last)) = (curve.first(), curve.last()) {
            println!("  loss {first:.3} → {last:.3}   {}", curve.iter().map(|l| format!("{l:.2}")).collect::<Vec<_>>().join(" "));
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_points_where_the_loss_says() {
        assert!(quantise_hint(&[2.0, 9.0, 30.0]).contains("lower --learning-rate"));
        assert!(quantise_hint(&[2.0, 1.9, 1.8]).contains("raise --learning-rate"));
        assert!(quantise_hint(&[2.0, 2.1, 2.01]).contains("hardly moved"));
        assert!(!quantise_hint(&[]).contains("--learning-rate"));
    }
}
