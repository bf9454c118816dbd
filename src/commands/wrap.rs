//! `poa wrap`: from an inner proof to the one that is published.

use super::keys_directory;
use crate::meter::{Terminal, say};
use circuits::statement::Statement;
use prover::srs::Srs;
use serde_json::json;
use std::path::PathBuf;
use steps::error::{Failure, While};
use steps::outer;
use steps::store::{read_json, write_file, write_json};

/// Wrap an inner proof of the evm profile into a zero-knowledge proof that contracts and light clients verify.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  poa wrap proof.bin --statement statement.json --srs srs/ --out evm-proof.json")]
pub struct Args {
    /// The inner proof (poa prove --profile evm).
    proof: PathBuf,
    /// Its statement.
    #[arg(long)]
    statement: PathBuf,
    /// Directory of the reference string (poa srs).
    #[arg(long)]
    srs: PathBuf,
    /// The circuit's size: 2^k rows.
    #[arg(long, default_value_t = DEFAULT_K)]
    k: u32,
    /// Where keys are kept (default: $POA_KEYS, else the cache directory).
    #[arg(long)]
    keys: Option<PathBuf>,
    /// Where the outer proof goes.
    #[arg(long)]
    out: PathBuf,
    /// Also write the verifier contract's source.
    #[arg(long)]
    solidity: Option<PathBuf>,
}

/// Rows of the demo's circuit, and of relations of its size.
pub const DEFAULT_K: u32 = 19;

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let statement: Statement = read_json(&args.statement)?;
    let bytes = std::fs::read(&args.proof).during_path("reading", &args.proof)?;
    let srs = Srs::load(&args.srs, args.k, &mut |what| say(what)).during("the reference string")?;
    let keys = args.keys.unwrap_or_else(keys_directory);
    let wrapped = outer::wrap(&statement, &bytes, &srs, &keys, &Terminal::new())?;
    write_json(&args.out, &wrapped.proof)?;
    if let Some(path) = &args.solidity {
        write_file(path, wrapped.solidity.as_bytes())?;
    }
    let figures = &wrapped.figures;
    if json {
        println!("{}", json!(figures));
    } else {
        println!("Outer proof in {}: {} bytes, key {}", args.out.display(), figures.proof_bytes, wrapped.proof.key_digest);
        println!("  2^{} rows ({} used), {} advice columns", figures.k, figures.rows, figures.advice_columns);
        println!(
            "  {:.0} s ({:.0} s of it keys), {:.0} CPU s, {:.0} MB",
            figures.seconds, figures.keygen_seconds, figures.cpu_seconds, figures.peak_rss_mb
        );
        if wrapped.proof.srs.insecure {
            println!("  INSECURE reference string: anyone can forge proofs over it; for trials only");
        }
    }
    Ok(0)
}
