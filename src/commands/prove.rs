//! `poa prove`: one proof for one or several runs.

use super::attribute::{Loaded, check_index, load};
use crate::error::Failure;
use crate::kept::Shelves;
use crate::meter::say;
use crate::show;
use crate::store::{IndexDir, create_parent, write_file, write_json};
use crate::work::{self, Job, Proven};
use circuits::relation::WeightRanges;
use circuits::statement::Digest;
use model_runtime::int::trace::Span;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use verifier::profile::{Evm, Native};

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
    match profile {
        ProfileArg::Native => work::prove::<Native>(job),
        ProfileArg::Evm => work::prove::<Evm>(job),
    }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let mut runs = args.runs.iter().map(|dir| load(dir)).collect::<Result<Vec<_>, _>>()?;
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
    for run in &runs {
        index.as_ref().map_or(Ok(()), |index| check_index(run, index))?;
        if run.info.model != runs[0].info.model || run.info.adapter != runs[0].info.adapter {
            return Err(Failure::input("the runs are of different models or adapters").hint("prove them separately"));
        }
    }
    let distinct: BTreeSet<_> = runs.iter().map(|run| run.info.request_id).collect();
    if distinct.len() < runs.len() {
        return Err(Failure::input("two runs have the same request id").hint("give each run once; `poa infer --request-id` sets ids"));
    }
    let statement_path = args.statement.clone().unwrap_or_else(|| args.out.with_file_name("statement.json"));
    create_parent(&args.out)?;
    create_parent(&statement_path)?;
    let proven = prove_runs(&runs, index.as_ref(), &args)?;
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

fn prove_runs(runs: &[Loaded], index: Option<&IndexDir>, args: &Args) -> Result<Proven, Failure> {
    let first = &runs[0];
    let semantics = index.map_or_else(|| work::semantics(&first.model, first.adapter.as_ref()), |i| &i.index.semantics);
    let infos: Vec<_> = runs.iter().map(|r| r.info.clone()).collect();
    let span = if index.is_some() { Span::Exchange } else { Span::Answer };
    let dims = work::common_dims(semantics, span, &infos);
    let runtime = work::runtime(semantics, &first.model, first.adapter.as_ref())?;
    say("executing …");
    let request = |run: &Loaded| {
        let stored = dims == run.trace.dims && span == work::span_of(work::semantics(&run.model, run.adapter.as_ref()));
        let mut trace = match stored {
            true => run.trace.clone(),
            false => work::trace(&runtime, &run.info.tokens, run.info.prompt_len, span, dims)?,
        };
        index.map(|index| work::attribute(index, &mut trace)).transpose()?;
        Ok((trace, run.info.request_id))
    };
    let requests = runs.iter().map(request).collect::<Result<Vec<_>, Failure>>()?;
    let job = Job {
        model: &first.model.int.tensors,
        adapter: first.adapter.as_ref().map(|a| &a.int.tensors),
        index,
        semantics,
        weight_ranges: WeightRanges::Proven,
        requests,
        private_tokens: args.private_tokens,
        prompt_salts: runs.iter().map(|run| run.info.prompt_salt).collect(),
        shelves: Shelves { model: Some(&first.info.model), adapter: first.info.adapter.as_deref(), index: args.index.as_deref() },
    };
    with_profile(args.profile, job)
}
