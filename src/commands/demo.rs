//! `poa demo`: the whole story on bundled data.

use super::attribute::DIVIDED;
use crate::demo_settlement::{self, Paid, Settled};
use crate::meter::{Terminal, say};
use crate::show;
use circuits::registration::Known;
use circuits::relation::WeightRanges;
use circuits::statement::{Digest, Profile};
use model_runtime::demo;
use model_runtime::int::attribute::Attribution;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;
use steps::cost::Meter;
use steps::demo::{Demo, prepare};
use steps::error::{Failure, While};
use steps::kept::Shelves;
use steps::prove::{Job, prove};
use steps::registration::{CHUNK_LOG, RegistrationDir, Source, register};
use steps::run;
use steps::shares::attribution_shares;
use steps::store::{RunInfo, write_file, write_json};
use steps::words::Because;

/// The whole story: import a bundled model, train an adapter on a bundled datanet, answer, attribute, prove, verify, wrap, settle.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa demo\n  poa demo --prompt \"The keeper of Skarn light is\" --json")]
pub struct Args {
    /// A prompt about one of the datanet's facts.
    #[arg(long, default_value = "The keeper of Skarn light is")]
    prompt: String,
    /// Where models, index, run, proof and statement are kept; a second demo reuses what the first has made.
    #[arg(long, default_value = "runs/demo")]
    out: PathBuf,
    /// Bundled assets (default: assets/demo in the source tree).
    #[arg(long)]
    assets: Option<PathBuf>,
    /// Also measure all held-out queries: right answer, right contributor first.
    #[arg(long)]
    queries: bool,
    /// Don't prove the index: the answer's proof then shows ranges itself, and takes the index' rows as they are.
    #[arg(long)]
    no_registration: bool,
    /// Stop after the inner proof: no outer proof, no contracts, no payments.
    #[arg(long)]
    no_settlement: bool,
}

/// Answers of the demo are one fact and the end of the sentence.
const ANSWER_TOKENS: usize = 4;

fn assets(args: &Args) -> PathBuf {
    args.assets.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo"))
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let meter = Meter::start();
    let parts = ["model", "adapter", "index"].map(|part| args.out.join(part));
    let stage = prepare(&parts, &assets(&args), &Terminal::new())?;
    say("answering …");
    let paths = (stage.paths.0.as_path(), Some(stage.paths.1.as_path()));
    let mut info = run::infer(&stage.model, Some(&stage.adapter), &args.prompt, ANSWER_TOKENS, Digest::default(), paths)?;
    let semantics = &stage.index.index.semantics;
    let runtime = run::runtime(semantics, &stage.model, Some(&stage.adapter))?;
    let mut trace = run::trace_alone(&runtime, &info)?;
    let paid = Paid::new(info.tokens[..info.prompt_len].to_vec(), trace.dims.t, &info.prompt)?;
    info.request_id = paid.request_id;
    write_json(&args.out.join("prompt.json"), &paid.prompt)?;
    info.save(&args.out.join("run"), &trace.tensors)?;
    let attribution = run::attribute(&stage.index, &mut trace)?;
    let because = Because::of(&runtime, &stage.model.tokenizer, &stage.index, &trace, &attribution, DIVIDED)?;
    let index_dir = args.out.join("index");
    let shelves = Shelves { model: Some(&stage.paths.0), adapter: Some(&stage.paths.1), index: Some(&index_dir) };
    let registered = if args.no_registration { None } else { Some(Registered::new(&stage, &index_dir, shelves)?) };
    say("proving the answer …");
    let job = Job {
        model: &stage.model.int.tensors,
        adapter: Some(&stage.adapter.int.tensors),
        index: Some(&stage.index),
        semantics,
        weight_ranges: WeightRanges::Proven,
        registration: None,
        requests: vec![(trace, info.request_id)],
        private_tokens: false,
        prompt_salts: vec![],
        shelves,
    };
    let relying = registered.iter().fold(job.clone(), |job, registered| job.relying_on(registered.known.clone()));
    let proven = prove(Profile::Native, relying, &Terminal::new())?;
    write_file(&args.out.join("proof.bin"), &proven.bytes)?;
    write_json(&args.out.join("statement.json"), &proven.statement)?;
    say("verifying …");
    let start = Instant::now();
    let known: Vec<Known> = registered.iter().map(|registered| registered.known.clone()).collect();
    let verified = verifier::verify_given(&proven.statement, &proven.bytes, &known).map_err(Failure::invalid)?;
    let verify_seconds = start.elapsed().as_secs_f64();
    let settled = match args.no_settlement {
        true => None,
        false => Some(demo_settlement::settle(Job { private_tokens: true, prompt_salts: vec![Some(paid.prompt.salt)], ..job }, &paid, &args.out)?),
    };
    let quality = args.queries.then(|| measure_queries(&args, &stage)).transpose()?;
    let shares = attribution_shares(&attribution, &stage.index);
    if json {
        println!(
            "{}",
            json!({
                "prompt": info.prompt,
                "answer": info.answer,
                "scores": show::scores_json(&attribution, &stage.index, &because, 10),
                "prompt_words": because.prompt,
                "answer_words": because.answer,
                "weights": show::shares_json(&shares),
                "proof": proven.figures,
                "verified": true,
                "verify_seconds": verify_seconds,
                "registration": registered.as_ref().map(Registered::json),
                "security_bits": verified.security_bits,
                "wrap": settled.as_ref().map(|s| &s.wrap),
                "settlement": settled.as_ref().map(Settled::json),
                "queries": quality.as_ref().map(Quality::json),
                "seconds": meter.read().0,
            })
        );
        return Ok(0);
    }
    print_story(&info, &stage, &attribution, &because);
    show::print_proof(&proven.figures, &proven.statement);
    println!(
        "\nVerified in {:.0} ms: {:.1} bits of proven security. Everything is in {}:",
        1000.0 * verify_seconds,
        verified.security_bits,
        args.out.display()
    );
    match &registered {
        Some(registered) => registered.print(&args.out),
        None => println!("  poa verify {0}/proof.bin --statement {0}/statement.json", args.out.display()),
    }
    settled.iter().for_each(Settled::print);
    if let Some(q) = quality {
        println!("\nHeld-out queries: {} of {} answered; of these the right contributor is paid most in {},", q.answered, q.total, q.first);
        println!(
            "a sample that states the fact is first in {}, and {:.0} % of relevance is on such samples;",
            q.sample_first,
            100.0 * q.mean_share()
        );
        println!("in {} the word that carries most of the best sample's score is the fact's entity or answer", q.word_first);
    }
    Ok(0)
}

/// The demo's index, proven.
struct Registered {
    known: Known,
    samples: usize,
    rows: usize,
    security_bits: f64,
    prove_seconds: f64,
    verify_seconds: f64,
}

impl Registered {
    /// Proves what isn't proven yet, and verifies all of it.
    fn new(stage: &Demo, index_dir: &Path, shelves: Shelves<'_>) -> Result<Self, Failure> {
        say("proving that the index' rows are its samples' sketches (once for all answers) …");
        let (dir, terminal, start) = (RegistrationDir::of_index(index_dir), Terminal::new(), Instant::now());
        let source = Source { model: &stage.model, adapter: &stage.adapter, index: &stage.index, shelves };
        register(&source, &dir, CHUNK_LOG, &terminal)?;
        let (prove_seconds, start) = (start.elapsed().as_secs_f64(), Instant::now());
        let (registered, accepted) = dir.verify(&terminal)?;
        Ok(Self {
            known: accepted.known,
            samples: registered.registration.samples.len(),
            rows: registered.chunks.iter().map(Vec::len).sum(),
            security_bits: accepted.security_bits,
            prove_seconds,
            verify_seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "registration": self.known.registration,
            "rows": self.samples,
            "earning": self.rows,
            "security_bits": self.security_bits,
            "seconds": self.prove_seconds,
            "verify_seconds": self.verify_seconds,
        })
    }

    fn print(&self, out: &Path) {
        println!("  poa verify {0}/proof.bin --statement {0}/statement.json --registration {0}/index/registration", out.display());
        println!(
            "\nThe index is proven, too: {} of its {} rows are shown to be the sketches of their samples, the others to be zero.",
            self.rows, self.samples
        );
        println!(
            "That took {:.0} s (what an earlier demo proved is kept), once for all answers; whoever doubts it checks all of it in {:.1} s.",
            self.prove_seconds, self.verify_seconds
        );
    }
}

fn print_story(info: &RunInfo, stage: &Demo, attribution: &Attribution, because: &Because) {
    println!("\nPrompt   {}\nAnswer   {}", info.prompt, info.answer);
    show::print_attribution(attribution, &stage.index, because, 5);
}

/// How held-out queries are attributed; all but `total` over those that are answered with the word expected.
#[derive(Default)]
struct Quality {
    total: usize,
    answered: usize,
    /// The contributor who stated the fact is paid most.
    first: usize,
    /// A sample that states the fact has the highest score.
    sample_first: usize,
    /// Sum of the shares of relevance on samples that state the fact.
    share: f64,
    /// The word that carries most of the best sample's score is the fact's entity or answer.
    word_first: usize,
}

impl Quality {
    fn mean_share(&self) -> f64 {
        self.share / self.answered.max(1) as f64
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "total": self.total,
            "answered": self.answered,
            "contributor_first": self.first,
            "sample_first": self.sample_first,
            "relevance_share": self.mean_share(),
            "word_first": self.word_first,
        })
    }

    /// Counts an answered query.
    fn count(&mut self, query: &demo::Query, attribution: &Attribution, because: &Because, paid_most: bool) {
        self.answered += 1;
        self.first += usize::from(paid_most);
        let top = (0..attribution.rel.len()).max_by_key(|&i| (attribution.scores[i], std::cmp::Reverse(i)));
        self.sample_first += usize::from(top.is_some_and(|i| query.samples.contains(&i)));
        let total: i64 = attribution.rel.iter().sum();
        let stating: i64 = query.samples.iter().filter_map(|&i| attribution.rel.get(i)).sum();
        self.share += stating as f64 / total.max(1) as f64;
        let words = top.and_then(|i| because.samples.get(&i)).into_iter().flatten();
        let first = words.max_by(|a, b| a.share.total_cmp(&b.share));
        self.word_first += usize::from(first.is_some_and(|w| w.text == query.answer || entity(query).is_some_and(|e| e == w.text)));
    }
}

/// Whom or what a query is about.
fn entity(query: &demo::Query) -> Option<&'static str> {
    let mut entities = demo::wordings().into_iter().flat_map(|wording| wording.entities);
    entities.find(|entity| query.prompt.split(|c: char| !c.is_alphanumeric()).any(|word| word == *entity))
}

/// Answers and attributes every held-out query.
fn measure_queries(args: &Args, stage: &Demo) -> Result<Quality, Failure> {
    let path = assets(args).join(demo::QUERIES_FILE);
    let queries = demo::load_queries(&path).during_path("reading", &path)?;
    let semantics = &stage.index.index.semantics;
    let runtime = run::runtime(semantics, &stage.model, Some(&stage.adapter))?;
    let mut quality = Quality { total: queries.len(), ..Quality::default() };
    for query in queries {
        let info =
            run::infer(&stage.model, Some(&stage.adapter), &query.prompt, ANSWER_TOKENS, Default::default(), (&stage.paths.0, Some(&stage.paths.1)))?;
        let mut trace = run::trace_alone(&runtime, &info)?;
        let attribution = run::attribute(&stage.index, &mut trace)?;
        let shares = attribution_shares(&attribution, &stage.index);
        let first = shares.first().is_some_and(|(c, bps)| *c == query.contributor && *bps > 0);
        if info.answer.split_whitespace().next().is_some_and(|w| w.trim_end_matches('.') == query.answer) {
            let because = Because::of(&runtime, &stage.model.tokenizer, &stage.index, &trace, &attribution, 1)?;
            quality.count(&query, &attribution, &because, first);
        }
        say(format!("  {} {} — {} ({} bps, expected {})", query.prompt, info.answer, shares[0].0, shares[0].1, query.contributor));
    }
    Ok(quality)
}
