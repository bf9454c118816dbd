//! `poa audit`: replay everything, bit for bit, and name the first difference.

use crate::meter::{Terminal, say};
use circuits::statement::{Digest, Statement, Tokens};
use serde_json::json;
use std::path::{Path, PathBuf};
use steps::audit::{Audit, Indexed, opening};
use steps::error::Failure;
use steps::store::{AdapterDir, ModelDir, RunInfo, read_json};

/// Replay a run and its attribution from model, adapter and datanet, and compare with what is stored and stated.
///
/// Exit status: 0 everything agrees, 1 something differs (the first difference is named), 2 unusable input.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  poa audit run/ --model m/ --adapter a/ --index i/ \\\n    --datanet prompts.jsonl --statement statement.json")]
pub struct Args {
    /// The run.
    run: PathBuf,
    /// Imported model.
    #[arg(long)]
    model: PathBuf,
    /// Adapter; needed where the statement names one.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Index; needed where the statement claims attribution.
    #[arg(long, requires = "datanet")]
    index: Option<PathBuf>,
    /// The datanet the index claims to be of.
    #[arg(long)]
    datanet: Option<PathBuf>,
    /// The noise floor that the index should have, if not what the projection's chance gives.
    #[arg(long)]
    noise_floor: Option<u16>,
    /// The beacon that the index' projection should be drawn with (default: none).
    #[arg(long)]
    beacon: Option<Digest>,
    /// The statement.
    #[arg(long)]
    statement: PathBuf,
    /// Which of the statement's requests this run is, from 0 (default: the one with the run's request id).
    #[arg(long)]
    request: Option<usize>,
    /// The proof; it opens hidden tokens' digests.
    #[arg(long)]
    proof: Option<PathBuf>,
}

/// What the statement needs is given; what it doesn't speak of is left out.
fn needed<'a>(stated: bool, given: &'a Option<PathBuf>, what: &str) -> Result<Option<&'a Path>, Failure> {
    match (stated, given) {
        (true, None) => Err(Failure::input(format!("the statement names an {what}")).hint(format!("give it with --{what}"))),
        (true, Some(path)) => Ok(Some(path)),
        (false, Some(_)) => {
            say(format!("the statement names no {what}; --{what} is left out"));
            Ok(None)
        }
        (false, None) => Ok(None),
    }
}

fn prepare(args: &Args) -> Result<Audit, Failure> {
    let statement: Statement = read_json(&args.statement)?;
    let run = RunInfo::load(&args.run)?;
    let model = ModelDir::load(&args.model)?;
    let adapter = needed(statement.adapter.is_some(), &args.adapter, "adapter")?.map(|dir| AdapterDir::load(dir, &model)).transpose()?;
    let indexed = match (needed(statement.index.is_some(), &args.index, "index")?, &args.datanet) {
        (Some(index), Some(datanet)) => {
            let expected = (args.noise_floor.map(i64::from), args.beacon);
            Some(Indexed::load(index, datanet, &model, expected, &Terminal::new())?)
        }
        _ => None,
    };
    let found = || statement.requests.iter().position(|r| r.id == run.request_id).unwrap_or(0);
    let request = args.request.unwrap_or_else(found);
    let Some(stated) = statement.requests.get(request) else {
        return Err(Failure::input(format!("the statement has {} requests, there is no request {request}", statement.requests.len())));
    };
    let hidden = matches!(stated.tokens, Tokens::Digests(_));
    let opening = match &args.proof {
        Some(path) if hidden => opening(path, statement.profile, request)?,
        _ => None,
    };
    if hidden && opening.is_none() {
        say("the statement hides its tokens; without --proof nothing shows that they are the run's");
    }
    let stored = RunInfo::trace(&args.run)?;
    Ok(Audit { model, adapter, indexed, run, stored, statement, request, opening })
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let audit = prepare(&args)?;
    let difference = audit.replay(&Terminal::new())?;
    if json {
        println!(
            "{}",
            json!({
                "agrees": difference.is_none(), "step": difference.as_ref().map(|d| d.0), "difference": difference.as_ref().map(|d| &d.1),
                "choices": audit.indexed.as_ref().map(Indexed::choices),
            })
        );
    } else {
        match &difference {
            None if audit.indexed.is_some() => {
                println!("everything agrees: statement, commitments, trace, weights, index");
                println!("  under its maker's choices: {}", audit.indexed.as_ref().map(Indexed::choices).unwrap_or_default());
            }
            None => println!("everything agrees: statement, commitments, trace"),
            Some((step, what)) => println!("DIFFERS ({step}): {what}"),
        }
    }
    Ok(u8::from(difference.is_some()))
}
