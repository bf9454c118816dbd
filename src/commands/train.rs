//! `poa train`: a LoRA adapter from a datanet.

use super::window_args::WindowArgs;
use crate::meter::{Terminal, say};
use crate::show;
use circuits::ir::Group;
use model_runtime::import::load_peft;
use model_runtime::shape::Site;
use model_runtime::train::{EpochLoss, HoldOut, LoraConfig, Schedule, best_epoch};
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use steps::cost::Meter;
use steps::error::{Failure, While};
use steps::kept::Shelves;
use steps::prove::commit;
use steps::store::ModelDir;
use steps::texts;
use steps::train::{Quantised, Trained, curve, quantised, trained};

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
    /// Keep every epoch in this file; a run that it is of goes on where it was left.
    #[arg(long, conflicts_with = "peft")]
    checkpoint: Option<PathBuf>,
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

fn epochs_json(epochs: &[EpochLoss]) -> Value {
    let losses: Vec<Value> = epochs.iter().map(|e| json!({ "loss": e.trained, "held_out": e.held_out })).collect();
    json!({ "chosen": (!epochs.is_empty()).then(|| best_epoch(epochs)), "losses": losses })
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let (meter, terminal) = (Meter::start(), Terminal::new());
    let model = ModelDir::load(&args.model)?;
    let window = args.window.window(None, model.float.shape.context)?;
    let prepared = texts::prepare(texts::read(&args.datanet, args.limit, &terminal)?, &model.tokenizer, window, &terminal)?;
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
            trained(&model.float, &tokens, &config, hold_out, args.checkpoint.as_deref(), &terminal).map_err(|f| match f.hint {
                None => f.hint("--epochs trains for a fixed number of passes"),
                Some(_) => f,
            })?
        }
    };
    say("quantising the adapter …");
    let Quantised { adapter, fidelity } = quantised(&model, float, &tokens, &terminal)?;
    adapter.save(&args.out, &model.float, &args.model.display().to_string())?;
    if args.peft.is_none() {
        window.save(&args.out)?;
    }
    let shelves = Shelves { adapter: Some(&args.out), ..Shelves::default() };
    let commitment = commit(Group::Adapter, &adapter.int.semantics, None, &adapter.int.tensors, shelves, &terminal)?;
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
