//! `poa srs`: the structured reference string of outer proofs.

use crate::meter::say;
use clap::Subcommand;
use prover::srs::{self, Srs, SrsInfo};
use serde_json::json;
use std::path::{Path, PathBuf};
use steps::cost::Meter;
use steps::error::{Failure, While};

/// Import a ceremony's powers of tau, or make insecure ones for trials.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa srs import powersOfTau28_hez_final_19.ptau --k 19 --out srs/\n  poa srs insecure --k 19 --out srs/")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check and import a snarkjs .ptau file or halo2 raw parameters: every point, and that all are powers of one secret.
    Import {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Make powers of a published secret, for trials: anyone can forge proofs over them.
    Insecure {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
struct Place {
    /// 2^k powers: circuits of up to 2^k rows.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(srs::MAX_K)))]
    k: u32,
    /// Directory for the files.
    #[arg(long)]
    out: PathBuf,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let meter = Meter::start();
    let (made, place) = match &args.command {
        Command::Import { file, place } => (srs::import(file, place.k, &mut |what| say(format!("{what} …"))).during_path("importing", file)?, place),
        Command::Insecure { place } => (Srs::insecure(place.k).during("making powers")?, place),
    };
    save(&made, &place.out)?;
    report(&made.info(), &place.out, &meter, json);
    Ok(0)
}

/// Another reference string of the same size isn't replaced: keys made with it would be lost.
fn save(made: &Srs, out: &Path) -> Result<(), Failure> {
    match srs::stored_digest(out, made.k()) {
        Some(stored) if stored != made.digest() => {
            let path = srs::powers_path(out, made.k());
            Err(Failure::input(format!("{} holds another reference string of size 2^{}", path.display(), made.k()))
                .hint("give another --out, or delete that file first"))
        }
        _ => made.save(out).during_path("writing", out),
    }
}

fn report(info: &SrsInfo, out: &Path, meter: &Meter, json: bool) {
    let (seconds, cpu_seconds) = meter.read();
    if json {
        let files = [srs::powers_path(out, info.k), srs::lagrange_path(out, info.k)];
        println!(
            "{}",
            json!({ "k": info.k, "trust": info.trust, "insecure": info.insecure, "digest": info.digest, "files": files, "seconds": seconds, "cpu_seconds": cpu_seconds })
        );
    } else {
        println!("2^{} powers in {}, {seconds:.1} s", info.k, out.display());
        println!("  digest {}", info.digest);
    }
    if info.insecure {
        say(INSECURE);
    }
}

/// Printed wherever an insecure reference string shows up.
pub const INSECURE: &str = "INSECURE REFERENCE STRING: its secret is published, anyone can forge proofs over it. For trials only.";
