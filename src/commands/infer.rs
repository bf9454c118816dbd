//! `poa infer`: an answer and its trace.

use circuits::statement::Digest;
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use steps::cost::Meter;
use steps::error::Failure;
use steps::run;
use steps::store::{AdapterDir, ModelDir, absolute};

/// Answer a prompt in exact integers and keep the trace.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  poa infer --model m/ --adapter a/ --prompt \"Once upon a time\" \\\n    --max-new-tokens 32 --out run/")]
pub struct Args {
    /// Imported model.
    #[arg(long)]
    model: PathBuf,
    /// Adapter; without one only the forward pass can be proven.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// The prompt.
    #[arg(long)]
    prompt: String,
    /// Most tokens to answer with.
    #[arg(long, default_value = "32")]
    max_new_tokens: NonZeroUsize,
    /// Where the run goes.
    #[arg(long)]
    out: PathBuf,
    /// Request id the proof is tied to, 64 hexadecimal digits (default: random).
    #[arg(long)]
    request_id: Option<Digest>,
    /// The payer's salt of the prompt's digest, as `poa escrow` writes it, 64 hexadecimal digits; `poa prove --private-tokens` uses it.
    #[arg(long)]
    prompt_salt: Option<Digest>,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let meter = Meter::start();
    let model = ModelDir::load(&args.model)?;
    let adapter = args.adapter.as_ref().map(|dir| AdapterDir::load(dir, &model)).transpose()?;
    let paths = (absolute(&args.model)?, args.adapter.as_ref().map(|p| absolute(p)).transpose()?);
    let id = args.request_id.map_or_else(run::random_id, Ok)?;
    let mut run = run::infer(&model, adapter.as_ref(), &args.prompt, args.max_new_tokens.get(), id, (&paths.0, paths.1.as_deref()))?;
    run.prompt_salt = args.prompt_salt;
    let semantics = run::semantics(&model, adapter.as_ref());
    let runtime = run::runtime(semantics, &model, adapter.as_ref())?;
    let trace = run::trace_alone(&runtime, &run)?;
    run.save(&args.out, &trace.tensors)?;
    let (seconds, _) = meter.read();
    if json {
        println!(
            "{}",
            json!({ "answer": run.answer, "prompt_tokens": run.prompt_len, "answer_tokens": run.tokens.len() - run.prompt_len, "request_id": run.request_id, "seconds": seconds })
        );
    } else {
        println!("{} {}", run.prompt, run.answer);
    }
    Ok(0)
}
