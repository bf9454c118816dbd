//! `poa datanet convert`: a datanet that other tools wrote, in a form that is read here.

use model_runtime::import::write_atomic_with;
#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::io::BufWriter;
use std::path::PathBuf;
use steps::error::{Failure, While};
use steps::parquet::to_lines;

/// Write a Parquet file's columns `contributor` and `text` as JSON lines, which train, index and uploads take.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa datanet convert prompts.parquet --out prompts.jsonl")]
pub struct Args {
    /// The Parquet file.
    path: PathBuf,
    /// Where the lines go.
    #[arg(long)]
    out: PathBuf,
    /// For strangers' files: MiB of memory that this process may take; one that takes more is ended.
    #[arg(long, value_name = "MIB")]
    limit_memory: Option<u64>,
    /// Likewise MiB that are written.
    #[arg(long, value_name = "MIB")]
    limit_output: Option<u64>,
    /// Likewise seconds of a processor.
    #[arg(long, value_name = "SECONDS")]
    limit_seconds: Option<u64>,
}

/// What can be limited.
#[derive(Clone, Copy)]
enum Limited {
    Memory,
    Output,
    Seconds,
}

/// Limits this process.
#[cfg(unix)]
fn limit(what: Limited, most: u64) -> Result<(), Failure> {
    let resource = match what {
        Limited::Memory => Resource::As,
        Limited::Output => Resource::Fsize,
        Limited::Seconds => Resource::Cpu,
    };
    let unit = if matches!(what, Limited::Seconds) { 1 } else { 1 << 20 };
    let wanted = most.saturating_mul(unit);
    let limit = Some(getrlimit(resource).maximum.map_or(wanted, |hard| hard.min(wanted)));
    setrlimit(resource, Rlimit { current: limit, maximum: limit }).during("limiting the process")
}

#[cfg(not(unix))]
fn limit(what: Limited, _: u64) -> Result<(), Failure> {
    let option = match what {
        Limited::Memory => "--limit-memory",
        Limited::Output => "--limit-output",
        Limited::Seconds => "--limit-seconds",
    };
    Err(Failure::input(format!("{option}: this system has no such limits")))
}

pub fn run(args: &Args, json: bool) -> Result<u8, Failure> {
    args.limit_memory.map_or(Ok(()), |mebibytes| limit(Limited::Memory, mebibytes))?;
    args.limit_output.map_or(Ok(()), |mebibytes| limit(Limited::Output, mebibytes))?;
    args.limit_seconds.map_or(Ok(()), |seconds| limit(Limited::Seconds, seconds))?;
    let mut samples = Ok(0);
    let written = write_atomic_with(&args.out, |file| {
        samples = to_lines(&args.path, &mut BufWriter::new(file));
        // What went wrong is told below; a file that isn't whole isn't left.
        samples.as_ref().map(|_| ()).map_err(|failure| std::io::Error::other(failure.message.clone()))
    });
    let samples = samples?;
    written.during("writing the lines")?;
    if json {
        println!("{}", json!({ "samples": samples, "out": args.out }));
    } else {
        println!("{samples} samples in {}", args.out.display());
    }
    Ok(0)
}
