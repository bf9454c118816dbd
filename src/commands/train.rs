//! `poa train`: a LoRA adapter from a datanet.

use crate::error::{Failure, While};
use crate::kept::Shelves;
use crate::meter::{self, Meter, say};
use crate::store::{AdapterDir, ModelDir};
use crate::texts::{self, Window, WindowArgs};
use crate::{show, work};
use circuits::ir::Group;
use model_runtime::import::load_peft;
use model_runtime::int::{QuantiseError, quantise_adapter};
use model_runtime::shape::{FloatAdapter, FloatModel, Site};
use model_runtime::train::{EpochLoss, HoldOut, LoraConfig, Progress, Schedule, best_epoch, train_lora, train_lora_chosen};
use serde_json::{Value, json};
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
    /// Passes over the datanet (default: as many as don't raise the loss of held-out samples; then all samples are trained on).
    #[arg(long)]
    epochs: Option<usize>,
    /// Most passes that held-out samples may choose.
    #[arg(long, default_value_t = 30, conflicts_with = "epochs")]
    max_epochs: usize,
    /// Share of the samples held out to choose the number of passes.
    #[arg(long, default_value_t = HoldOut::default().share, conflicts_with = "epochs")]
    hold_out: f64,
    /// Samples in a batch.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = 1e-2)]
    learning_rate: f64,
    #[command(flatten)]
    window: WindowArgs,
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

/// A trained adapter and how it was trained.
pub struct Trained {
    pub adapter: FloatAdapter,
    /// The last run's losses, step by step.
    losses: Vec<f32>,
    /// What chose the number of epochs; empty if it was given.
    epochs: Vec<EpochLoss>,
}

/// Trains with a progress bar; with `hold_out` the number of epochs is chosen, else it is the schedule's.
pub fn trained(model: &ModelDir, tokens: &[Vec<u32>], config: &LoraConfig, hold_out: Option<HoldOut>) -> Result<Trained, Failure> {
    let bar = meter::bar(1, "training");
    let mut losses = Vec::new();
    let progress = |p: Progress| {
        bar.set_length(p.steps as u64);
        bar.set_position(p.step as u64);
        bar.set_prefix(format!("loss {:.3}", p.loss));
        // Choosing the number of epochs is a run of its own.
        if p.step == 1 {
            losses.clear();
        }
        losses.push(p.loss);
    };
    let trained = match hold_out {
        Some(hold_out) => train_lora_chosen(&model.float, tokens, config, &hold_out, progress),
        None => train_lora(&model.float, tokens, config, progress).map(|adapter| (adapter, vec![])),
    };
    let (adapter, epochs) = trained.during("training")?;
    bar.finish_and_clear();
    Ok(Trained { adapter, losses, epochs })
}

/// The loss curve as up to 16 means.
pub fn curve(losses: &[f32]) -> Vec<f32> {
    let chunk = losses.len().div_ceil(16).max(1);
    losses.chunks(chunk).map(|c| c.iter().sum::<f32>() / c.len() as f32).collect()
}

fn epochs_json(epochs: &[EpochLoss]) -> Value {
    let losses: Vec<Value> = epochs.iter().map(|e| json!({ "loss": e.trained, "held_out": e.held_out })).collect();
    json!({ "chosen": (!epochs.is_empty()).then(|| best_epoch(epochs)), "losses": losses })
}

/// Share of greedy tokens below which an adapted integer model isn't the float one's stand-in.
const LEAST_AGREEMENT: f64 = 0.9;

/// What to do about an adapter that can't be made exact, where its error doesn't say.
fn refused(error: &QuantiseError, model: &FloatModel, adapter: &FloatAdapter) -> Failure {
    let failure = Failure::input(format!("quantising the adapter: {error}"));
    if !matches!(error, QuantiseError::TooNarrow { .. } | QuantiseError::Bound { .. } | QuantiseError::Undecided) {
        return failure;
    }
    let share = adapter_share(model, adapter);
    let advice = if share > 1.0 { "train less or lower --learning-rate" } else { "train longer or raise --learning-rate" };
    failure.hint(format!("the adapter's branches have up to {share:.2} times the size of the weights beside them: {advice}"))
}

/// Largest ratio, over the adapted matrices, of the branch's Frobenius norm to the matrix's.
fn adapter_share(model: &FloatModel, adapter: &FloatAdapter) -> f64 {
    let rank = adapter.shape.rank;
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let mut largest = 0f64;
    for (&(layer, site), (a, b)) in &adapter.pairs {
        let columns = a.len() / rank;
        let row = |i: usize| &a[i * columns..(i + 1) * columns];
        // ‖BA‖² = Σ (BᵀB)[i,j]·(AAᵀ)[i,j].
        let gram = |i: usize, j: usize| b.chunks_exact(rank).map(|b| f64::from(b[i]) * f64::from(b[j])).sum::<f64>();
        let pairs = (0..rank).flat_map(|i| (0..rank).map(move |j| (i, j)));
        let branch: f64 = pairs.map(|(i, j)| gram(i, j) * dot(row(i), row(j))).sum();
        let weights = &model.layers[layer].linear[site as usize];
        largest = largest.max((branch.max(0.0) / dot(weights, weights).max(1e-30)).sqrt());
    }
    largest * f64::from(adapter.scale).abs()
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let meter = Meter::start();
    let model = ModelDir::load(&args.model)?;
    let window = Window::new(&args.window, None, model.float.shape.context)?;
    let prepared = texts::prepare(texts::read(&args.datanet, args.limit)?, &model.tokenizer, window)?;
    let tokens = prepared.tokens;
    let Trained { adapter: float, losses, epochs } = match &args.peft {
        Some(dir) => Trained { adapter: load_peft(dir, &model.float.shape).during_path("importing", dir)?, losses: vec![], epochs: vec![] },
        None => {
            let ordinary = LoraConfig::ordinary(window.max_tokens, args.seed);
            let (batch, learning_rate) = (args.batch, args.learning_rate);
            let schedule = Schedule { epochs: args.epochs.unwrap_or(args.max_epochs), batch, learning_rate, ..ordinary.schedule };
            let alpha = args.alpha.unwrap_or(2.0 * args.rank as f32);
            let config = LoraConfig { rank: args.rank, alpha, sites: sites(&args.sites)?, schedule, ..ordinary };
            let hold_out = args.epochs.is_none().then(|| HoldOut { share: args.hold_out, ..HoldOut::default() });
            trained(&model, &tokens, &config, hold_out).map_err(|f| f.hint("--epochs trains for a fixed number of passes"))?
        }
    };
    say("quantising the adapter …");
    let int = quantise_adapter(&model.int, &model.float, &float, &tokens).map_err(|e| refused(&e, &model.float, &float))?;
    let adapter = AdapterDir { int, float };
    let fidelity = work::adapted_fidelity(&model, &adapter, &tokens)?;
    if fidelity.greedy_agreement < LEAST_AGREEMENT {
        say("warning: the integers answer differently from the floats; import the base with another --headroom or --calibration, or train less");
    }
    adapter.save(&args.out, &model.float, &args.model.display().to_string())?;
    if args.peft.is_none() {
        window.save(&args.out)?;
    }
    let shelves = Shelves { adapter: Some(&args.out), ..Shelves::default() };
    let commitment = work::commit(Group::Adapter, &adapter.int.semantics, None, &adapter.int.tensors, shelves)?;
    let (seconds, cpu_seconds) = meter.read();
    if json {
        println!(
            "{}",
            json!({ "rank": adapter.float.shape.rank, "sites": adapter.float.shape.sites, "samples": tokens.len(), "cut_samples": prepared.cut.samples, "cut_share": prepared.cut.share(), "loss": curve(&losses), "epochs": epochs_json(&epochs), "commitment": commitment, "fidelity": show::fidelity_json(&fidelity), "seconds": seconds, "cpu_seconds": cpu_seconds })
        );
    } else {
        println!("Adapter of rank {} in {}, {} samples, {seconds:.1} s", adapter.float.shape.rank, args.out.display(), tokens.len());
        println!("  commitment {commitment} (native profile)");
        for (epoch, loss) in (1..).zip(&epochs) {
            let mark = if epoch == best_epoch(&epochs) { "  ← chosen; all samples are trained on for as many" } else { "" };
            println!("  epoch {epoch:>3}   loss {:.3}   held out {:.3}{mark}", loss.trained, loss.held_out);
        }
        let curve = curve(&losses);
        if let (Some(first), Some(last)) = (curve.first(), curve.last()) {
            println!("  loss {first:.3} → {last:.3}   {}", curve.iter().map(|l| format!("{l:.2}")).collect::<Vec<_>>().join(" "));
        }
        show::print_fidelity(&fidelity);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model_runtime::int::synthetic::{Generator, random_adapter, random_model};
    use model_runtime::shape::LoraShape;
    use model_runtime::shape::ModelShape;

    /// An adapter that outweighs its base isn't answered with "raise --learning-rate".
    #[test]
    fn the_hint_follows_the_size_of_the_adapter() {
        let shape =
            ModelShape { layers: 2, width: 16, heads: 2, kv_heads: 1, head_dim: 8, ff: 24, vocab: 20, rope_theta: 1e4, norm_eps: 1e-5, context: 8 };
        let mut rng = Generator::new(1);
        let model = random_model(&shape, &mut rng);
        let mut adapter = random_adapter(&shape, &LoraShape { rank: 2, sites: vec![Site::Q, Site::Down] }, &mut rng);
        let error = QuantiseError::TooNarrow { tensor: "bq".into(), bits: 3, least: 4 };
        let hint = |adapter: &FloatAdapter| refused(&error, &model, adapter).hint.unwrap_or_default();
        assert!(adapter_share(&model, &adapter) < 1.0 && hint(&adapter).contains("raise"), "{}", hint(&adapter));
        adapter.scale = 1000.0;
        assert!(hint(&adapter).contains("lower --learning-rate"), "{}", hint(&adapter));
    }
}
