//! `poa attribute`: who influenced an answer.

use crate::show;
use model_runtime::int::Attribution;
use serde_json::json;
use std::path::PathBuf;
use steps::error::Failure;
use steps::run::{self, Loaded};
use steps::shares::attribution_shares;
use steps::store::{IndexDir, write_json};
use steps::words::Because;

/// Score every sample of the index for an answer and weigh the contributors.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  poa attribute run/ --index i/ --top 10")]
pub struct Args {
    /// A run.
    run: PathBuf,
    /// The index.
    #[arg(long)]
    index: PathBuf,
    /// Samples to show.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Of how many of them to show the words that carry the score (only of those that earn). For reading: the score is proven, its division
    /// among words isn't.
    #[arg(long, default_value_t = DIVIDED)]
    words: usize,
}

/// Samples whose words are shown.
pub const DIVIDED: usize = 3;

/// The words behind the scores of the `most` best samples.
fn because(loaded: &Loaded, index: &IndexDir, attribution: &Attribution, most: usize) -> Result<Because, Failure> {
    if most == 0 {
        return Ok(Because::default());
    }
    let runtime = run::runtime(&index.index.semantics, &loaded.model, loaded.adapter.as_ref())?;
    Because::of(&runtime, &loaded.model.tokenizer, index, &loaded.trace, attribution, most)
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let mut run = Loaded::load(&args.run)?;
    let index = IndexDir::load(&args.index)?;
    run.check_index(&index)?;
    let attribution = run::attribute(&index, &mut run.trace)?;
    let because = because(&run, &index, &attribution, args.words.min(args.top))?;
    let shares = attribution_shares(&attribution, &index);
    let report = |top: usize| {
        json!({
            "answer": run.info.answer,
            "scores": show::scores_json(&attribution, &index, &because, top),
            "prompt_words": because.prompt,
            "answer_words": because.answer,
            "weights": show::shares_json(&shares),
            "nothing_relevant": attribution.weights.values().all(|&w| w == 0),
        })
    };
    write_json(&args.run.join("attribution.json"), &report(usize::MAX))?;
    if json {
        println!("{}", report(args.top));
    } else {
        println!("{} {}", run.info.prompt, run.info.answer);
        show::print_attribution(&attribution, &index, &because, args.top);
    }
    Ok(0)
}
