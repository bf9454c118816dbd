//! `poa prove`: one proof for one or several runs.

use crate::meter::{Terminal, say};
use crate::show;
use circuits::statement::{Digest, Profile};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use steps::error::Failure;
use steps::prove::{Job, Proven, prove};
use steps::registration::RegistrationDir;
use steps::run::Loaded;
use steps::store::{IndexDir, create_parent, write_file, write_json};

/// Hash profile of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProfileArg {
    /// Fast; for light clients and auditors.
    Native,
    /// Poseidon2 over BN254; for the outer proof.
    Evm,
}

/// Prove runs of one model and adapter: answer, scores, contributors' weights. Without an index, the answer only.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa prove run/ --index i/ --out proof.bin\n  poa prove run1/ run2/ --index i/ --out proof.bin --private-tokens")]
pub struct Args {
    /// Runs of one model and adapter.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The index; without it only the forward pass is proven.
    #[arg(long)]
    index: Option<PathBuf>,
    /// Leave the ranges of base, adapter and index to the index' registration, as `poa registration prove` made it: a native proof is made faster, and
    /// whoever verifies it needs the registration.
    #[arg(long, requires = "index")]
    registration: Option<PathBuf>,
    /// Where the proof goes.
    #[arg(long)]
    out: PathBuf,
    /// Where the statement goes (default: statement.json beside the proof).
    #[arg(long)]
    statement: Option<PathBuf>,
    /// Hash profile.
    #[arg(long, value_enum, default_value = "native")]
    profile: ProfileArg,
    /// Put salted digests of the tokens into the statement instead of the tokens.
    #[arg(long)]
    private_tokens: bool,
    /// Request id to prove with instead of the run's, 64 hexadecimal digits; as `poa escrow` prints it. For one run.
    #[arg(long)]
    request_id: Option<Digest>,
    /// The payer's salt of the prompt's digest instead of the run's, as `poa escrow` writes it, 64 hexadecimal digits. For one run with --private-tokens.
    #[arg(long)]
    prompt_salt: Option<Digest>,
}

/// Proves under a profile.
pub fn with_profile(profile: ProfileArg, job: Job<'_>) -> Result<Proven, Failure> {
    let profile = match profile {
        ProfileArg::Native => Profile::Native,
        ProfileArg::Evm => Profile::Evm,
    };
    prove(profile, job, &Terminal::new())
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let mut runs = args.runs.iter().map(|dir| Loaded::load(dir)).collect::<Result<Vec<_>, _>>()?;
    if let Some(id) = args.request_id {
        let [run] = runs.as_mut_slice() else { return Err(Failure::input("--request-id is for one run").hint("prove the runs separately")) };
        run.info.request_id = id;
    }
    if let Some(salt) = args.prompt_salt {
        let [run] = runs.as_mut_slice() else { return Err(Failure::input("--prompt-salt is for one run").hint("prove the runs separately")) };
        run.info.prompt_salt = Some(salt);
    }
    if !args.private_tokens && runs.iter().any(|run| run.info.prompt_salt.is_some()) {
        let message = "the prompt is bound by a salted digest, which public tokens don't have";
        return Err(Failure::input(message).hint("add --private-tokens, or answer again without --prompt-salt"));
    }
    let index = args.index.as_ref().map(|dir| IndexDir::load(dir)).transpose()?;
    let distinct: BTreeSet<_> = runs.iter().map(|run| run.info.request_id).collect();
    if distinct.len() < runs.len() {
        return Err(Failure::input("two runs have the same request id").hint("give each run once; `poa infer --request-id` sets ids"));
    }
    let statement_path = args.statement.clone().unwrap_or_else(|| args.out.with_file_name("statement.json"));
    create_parent(&args.out)?;
    create_parent(&statement_path)?;
    say("executing …");
    let mut job = Job::of_runs(&runs, index.as_ref().zip(args.index.as_deref()), args.private_tokens)?;
    if let Some(dir) = &args.registration {
        if args.profile == ProfileArg::Evm {
            let failure = Failure::input("an evm proof shows ranges itself: its pins aren't those of a registration");
            return Err(failure.hint("leave out --registration, or prove with --profile native"));
        }
        job = job.relying_on(RegistrationDir::new(dir).verify(&Terminal::new())?.1.known);
    }
    let proven = with_profile(args.profile, job)?;
    write_file(&args.out, &proven.bytes)?;
    write_json(&statement_path, &proven.statement)?;
    if json {
        let mut value = json!(proven.figures);
        value["requests"] = show::digests_json(&proven.statement);
        println!("{value}");
    } else {
        println!("Proof in {}, statement in {}", args.out.display(), statement_path.display());
        show::print_digests(&proven.statement);
        show::print_proof(&proven.figures, &proven.statement);
    }
    Ok(0)
}
