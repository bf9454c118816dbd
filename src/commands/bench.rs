//! `poa bench prove`: synthetic weights of any shape.

use crate::commands::prove::{ProfileArg, with_profile};
use crate::meter::say;
use crate::show;
use circuits::relation::WeightRanges;
use circuits::statement::{Digest, keccak};
use model_runtime::int::adapter::IntAdapter;
use model_runtime::int::index::{IndexOptions, build_index};
use model_runtime::int::synthetic::synthetic_model;
use model_runtime::int::trace::Span;
use model_runtime::int::{IntModel, Runtime, Trace};
use model_runtime::semantics::Dims;
use model_runtime::shape::{LoraShape, ModelShape, Site};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use steps::error::{Failure, While};
use steps::kept::Shelves;
use steps::prove::{Job, Proven};
use steps::run;
use steps::store::{IndexDir, IndexInfo, Row};

/// Benchmarks on synthetic weights.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa bench prove --shape layers=4,width=64,heads=4,kv-heads=4,ff=256,vocab=128 \\\n    --tokens 64\n  poa bench prove --shape layers=12,width=768,heads=12,kv-heads=12,ff=3072,vocab=50257 \\\n    --tokens 64 --forward-only"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Prove(ProveArgs),
}

/// Prove and verify a synthetic model of any shape.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa bench prove --shape layers=4,width=64,heads=4,kv-heads=4,ff=256,vocab=128 \\\n    --tokens 64\n  poa bench prove --shape layers=12,width=768,heads=12,kv-heads=12,ff=3072,vocab=50257 \\\n    --tokens 64 --forward-only"
)]
struct ProveArgs {
    /// layers=,width=,heads=,kv-heads=,ff=,vocab=
    #[arg(long, default_value = "layers=4,width=64,heads=4,kv-heads=4,ff=256,vocab=128")]
    shape: String,
    /// Prompt and answer together.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// How many of them are the answer (default: half).
    #[arg(long)]
    answer_tokens: Option<usize>,
    /// Leave out backward pass and attribution.
    #[arg(long)]
    forward_only: bool,
    /// LoRA rank.
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Rows of the synthetic index.
    #[arg(long, default_value_t = 64)]
    rows: usize,
    /// Exchanges in the one proof.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    requests: u64,
    /// Prove so many times; figures are of the run with the median CPU time, `runs` has all.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeat: u64,
    /// Hash profile.
    #[arg(long, value_enum, default_value = "native")]
    profile: ProfileArg,
    /// Don't prove the ranges of weights, adapter and index. NOT A FULL PROOF: for measuring very large shapes only.
    #[arg(long)]
    assume_weight_ranges: bool,
    /// Keep the commitments of model, adapter and index in this directory, as `prove` does beside them: the first proof makes them, later ones
    /// take them.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn parse_shape(text: &str, tokens: usize) -> Result<ModelShape, Failure> {
    let mut shape = ModelShape {
        layers: 4,
        width: 64,
        heads: 4,
        kv_heads: 4,
        head_dim: 0,
        ff: 256,
        vocab: 128,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        context: tokens,
    };
    for part in text.split(',') {
        let wrong =
            || Failure::input(format!("--shape: `{part}` isn't one of layers=, width=, heads=, kv-heads=, ff=, vocab= with a positive number"));
        let (name, value) = part.split_once('=').ok_or_else(wrong)?;
        let value: usize = value.trim().parse().map_err(|_| wrong())?;
        if value == 0 {
            return Err(wrong());
        }
        match name.trim() {
            "layers" => shape.layers = value,
            "width" => shape.width = value,
            "heads" => shape.heads = value,
            "kv-heads" => shape.kv_heads = value,
            "ff" => shape.ff = value,
            "vocab" => shape.vocab = value,
            _ => return Err(wrong()),
        }
    }
    if !shape.width.is_multiple_of(2 * shape.heads) || !shape.heads.is_multiple_of(shape.kv_heads) {
        return Err(Failure::input("--shape: width must be a multiple of twice the heads, heads a multiple of kv-heads"));
    }
    shape.head_dim = shape.width / shape.heads;
    Ok(shape)
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let What::Prove(args) = args.what;
    let shape = parse_shape(&args.shape, args.tokens)?;
    let answer = args.answer_tokens.unwrap_or(args.tokens / 2);
    if args.tokens < 2 || answer == 0 || answer >= args.tokens {
        return Err(Failure::input("--tokens must be at least 2 and leave room for a prompt and an answer"));
    }
    say("making weights …");
    let lora = LoraShape { rank: args.rank, sites: Site::ALL.to_vec() };
    let (model, adapter) = synthetic_model(&shape, &lora, 1).during("making a synthetic model")?;
    let adapter = Some(adapter).filter(|_| !args.forward_only);
    say("executing …");
    let index = adapter.as_ref().map(|a| synthetic_index(&model, a, &args)).transpose()?;
    let semantics = index.as_ref().map_or(&model.semantics, |i| &i.index.semantics);
    let runtime = Runtime::new(semantics.clone(), &model.tensors, adapter.as_ref().map(|a| &a.tensors)).during("loading the model")?;
    let span = if args.forward_only { Span::Answer } else { Span::Exchange };
    let prompt_len = args.tokens - answer;
    let dims = Dims::new(semantics, args.tokens, args.tokens - span.first(prompt_len));
    let request = |number: u64| -> Result<(Trace, Digest), Failure> {
        let prompt: Vec<u32> = (0..prompt_len).map(|i| ((i * 7919 + 13 * number as usize + 1) % shape.vocab) as u32).collect();
        let tokens = [prompt.clone(), runtime.generate(&prompt, answer, None).during("answering")?].concat();
        let mut trace = run::trace(&runtime, &tokens, prompt_len, span, dims)?;
        index.as_ref().map(|i| run::attribute(i, &mut trace)).transpose()?;
        Ok((trace, keccak(format!("bench {number}").as_bytes()).truncated()))
    };
    let requests = (0..args.requests).map(request).collect::<Result<Vec<_>, _>>()?;
    drop(runtime);
    if let Some(dir) = &args.keep {
        std::fs::create_dir_all(dir).map_err(|e| Failure::input(format!("--keep: {}: {e}", dir.display())))?;
    }
    let keep = args.keep.as_deref();
    let weight_ranges = if args.assume_weight_ranges { WeightRanges::AssumedInsecure } else { WeightRanges::Proven };
    let job = Job {
        model: &model.tensors,
        adapter: adapter.as_ref().map(|a| &a.tensors),
        index: index.as_ref(),
        semantics,
        weight_ranges,
        registration: None,
        requests,
        private_tokens: false,
        prompt_salts: vec![],
        shelves: Shelves { model: keep, adapter: keep, index: keep },
    };
    let mut runs = (0..args.repeat).map(|_| measured(with_profile(args.profile, job.clone())?)).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<Value> = runs.iter().map(|run| json!({ "seconds": run.proven.figures.seconds, "cpu_seconds": run.proven.figures.cpu_seconds, "verify_seconds": run.verify_seconds })).collect();
    runs.sort_by(|a, b| a.proven.figures.cpu_seconds.total_cmp(&b.proven.figures.cpu_seconds));
    let Measured { proven, verify_seconds, bits } = runs.swap_remove(runs.len() / 2);
    if json {
        let mut value = json!(proven.figures);
        value["verify_seconds"] = json!(verify_seconds);
        value["requests"] = json!(args.requests);
        value["tokens"] = json!(args.tokens);
        value["forward_only"] = json!(args.forward_only);
        value["machine"] = machine();
        if args.repeat > 1 {
            value["runs"] = json!(all);
        }
        value["shape"] = json!(shape);
        value["weight_ranges"] = json!(weight_ranges);
        value["kept"] = json!(args.keep.is_some());
        println!("{value}");
    } else {
        let many = if args.requests > 1 { format!("{} requests of ", args.requests) } else { String::new() };
        let part = if args.forward_only { ", forward only" } else { "" };
        println!("{} layers of width {}, {many}{} tokens{part}", shape.layers, shape.width, args.tokens);
        show::print_proof(&proven.figures, &proven.statement);
        println!("  {:<24} {:.0} ms, {:.1} bits", "verified in", 1000.0 * verify_seconds, bits);
    }
    Ok(0)
}

/// A proof that was made and verified.
struct Measured {
    proven: Proven,
    verify_seconds: f64,
    bits: f64,
}

fn measured(proven: Proven) -> Result<Measured, Failure> {
    let start = Instant::now();
    let verified = verifier::verify_benchmark(&proven.statement, &proven.bytes).map_err(Failure::invalid)?;
    Ok(Measured { verify_seconds: start.elapsed().as_secs_f64(), bits: verified.security_bits, proven })
}

/// What figures depend on beside the work: processor, cores, the vector instructions this was compiled for.
fn machine() -> Value {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim().to_owned());
    let compiled = [("avx512f", cfg!(target_feature = "avx512f")), ("avx2", cfg!(target_feature = "avx2")), ("neon", cfg!(target_feature = "neon"))];
    let features: Vec<&str> = compiled.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    json!({ "processor": processor, "cores": cores, "features": features, "version": env!("CARGO_PKG_VERSION") })
}

fn synthetic_index(model: &IntModel, adapter: &IntAdapter, args: &ProveArgs) -> Result<IndexDir, Failure> {
    let vocab = model.semantics.shape.vocab;
    let samples: Vec<Vec<u32>> =
        (0..args.rows).map(|i| (0..args.tokens.min(16)).map(|t| ((i * 31 + t * t * 17 + 3) % vocab) as u32).collect()).collect();
    let options = IndexOptions::default();
    let index = build_index(model, adapter, &samples, &vec![true; args.rows], &options, &|_, _| true).during("making a synthetic index")?;
    let rows = (0..args.rows).map(|i| Row { contributor: format!("contributor-{}", i % 8), text: String::new() }).collect();
    let info = IndexInfo {
        rows,
        contributors: (0..8.min(args.rows)).map(|i| format!("contributor-{i}")).collect(),
        datanet_root: Digest::default(),
        datanet_version: 1,
        beacon: None,
        max_tokens: args.tokens,
        options,
        sample_of_row: vec![],
        model: PathBuf::new(),
        adapter: PathBuf::new(),
        made_with: Digest::default(),
    };
    Ok(IndexDir { index, info })
}
