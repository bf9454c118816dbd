//! `poa attribute`: who influenced an answer.

use crate::error::Failure;
use crate::store::{AdapterDir, IndexDir, ModelDir, RunInfo, write_json};
use crate::words::Because;
use crate::{show, work};
use model_runtime::int::{Attribution, Trace};
use serde_json::json;
use std::path::{Path, PathBuf};

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

/// A run with everything it was made with.
pub struct Loaded {
    /// The run.
    pub info: RunInfo,
    /// Its trace, as stored.
    pub trace: Trace,
    /// Its model.
    pub model: ModelDir,
    /// Its adapter.
    pub adapter: Option<AdapterDir>,
}

/// Loads a run, its model and its adapter.
pub fn load(dir: &Path) -> Result<Loaded, Failure> {
    let info = RunInfo::load(dir)?;
    let moved = |f: Failure| f.hint("the run remembers where its model and adapter were; put them back or run `poa infer` again");
    let model = ModelDir::load(&info.model).map_err(moved)?;
    let adapter = info.adapter.as_ref().map(|a| AdapterDir::load(a, &model)).transpose().map_err(moved)?;
    if work::fingerprint(&model, adapter.as_ref()) != info.made_with {
        let message = format!("the model or adapter of {} has changed since the run was made", dir.display());
        return Err(Failure::input(message).hint("run `poa infer` again"));
    }
    let semantics = work::semantics(&model, adapter.as_ref());
    let dims = work::common_dims(semantics, work::span_of(semantics), std::slice::from_ref(&info));
    let trace = Trace { dims, tensors: RunInfo::trace(dir)?, tokens: info.tokens.clone(), prompt_len: info.prompt_len };
    Ok(Loaded { info, trace, model, adapter })
}

/// Refuses an index that was made with another model or adapter than the run.
pub fn check_index(run: &Loaded, index: &IndexDir) -> Result<(), Failure> {
    if run.info.adapter.is_none() {
        return Err(Failure::input("the run was made without an adapter, so nothing can be attributed")
            .hint("answer the prompt again with `poa infer --adapter DIR`"));
    }
    if index.info.made_with != run.info.made_with {
        let (model, adapter) = (index.info.model.display(), index.info.adapter.display());
        let message = format!("the index was made with another model or adapter than the run: with {model} and {adapter}, as they were then");
        return Err(
            Failure::input(message).hint("make the index again with `poa index`, or the run with `poa infer`, for the same model and adapter")
        );
    }
    Ok(())
}

/// The words behind the scores of the `most` best samples.
fn because(run: &Loaded, index: &IndexDir, attribution: &Attribution, most: usize) -> Result<Because, Failure> {
    if most == 0 {
        return Ok(Because::default());
    }
    let runtime = work::runtime(&index.index.semantics, &run.model, run.adapter.as_ref())?;
    Because::of(&runtime, &run.model.tokenizer, index, &run.trace, attribution, most)
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let mut run = load(&args.run)?;
    let index = IndexDir::load(&args.index)?;
    check_index(&run, &index)?;
    let attribution = work::attribute(&index, &mut run.trace)?;
    let because = because(&run, &index, &attribution, args.words.min(args.top))?;
    let shares = show::attribution_shares(&attribution, &index);
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
