//! `poa datanet check`: what a datanet holds, before it is published.

use circuits::statement::Digest;
use model_runtime::text::duplicates::words;
use model_runtime::text::{Cut, Datanet, Notes, Tokenizer, lookalikes};
use serde_json::{Value, json};
use std::path::PathBuf;
use steps::error::{Failure, While};
use steps::texts::{self, Copies};

/// Show what a datanet holds before it is published: skipped files, names that look alike, lengths, copies.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa datanet check prompts.jsonl\n  poa datanet check prompts.jsonl --model m/ --max-tokens 64")]
pub struct Args {
    /// Datanet: JSON lines or CSV with `contributor` and `text`, or a folder of text files (subfolder = contributor).
    path: PathBuf,
    /// Imported model (or tokenizer) whose tokens count, as they do for `poa index`; without it words count.
    #[arg(long)]
    model: Option<PathBuf>,
    /// With --model: samples are cut after this many tokens.
    #[arg(long, default_value_t = 64, requires = "model")]
    max_tokens: usize,
}

/// What there is to say of a datanet.
struct Report {
    datanet: Datanet,
    notes: Notes,
    unit: &'static str,
    lengths: Vec<usize>,
    cut: Option<Cut>,
    copies: Copies,
}

fn report(args: &Args) -> Result<Report, Failure> {
    let (datanet, notes) = Datanet::read(&args.path).during_path("reading", &args.path)?;
    let Some(model) = &args.model else {
        let lengths = sorted(words(datanet.samples.iter().map(|s| s.text.as_str())).iter().map(|w| w.len() - 2).collect());
        return Ok(Report { copies: Copies::of(&datanet, None), datanet, notes, unit: "words", lengths, cut: None });
    };
    let tokenizer = Tokenizer::load(model).during_path("loading the tokenizer of", model)?;
    let mut tokens = texts::encoded(&datanet, &tokenizer)?;
    let lengths = sorted(tokens.iter().map(Vec::len).collect());
    let cut = Cut::of(&lengths, args.max_tokens);
    tokens.iter_mut().for_each(|t| t.truncate(args.max_tokens));
    Ok(Report { copies: Copies::of(&datanet, Some(&tokens)), datanet, notes, unit: "tokens", lengths, cut: Some(cut) })
}

fn sorted(mut lengths: Vec<usize>) -> Vec<usize> {
    lengths.sort_unstable();
    lengths
}

impl Report {
    /// Shortest, median, longest of nineteen in twenty, longest.
    fn quantiles(&self) -> [usize; 4] {
        let last = self.lengths.len().saturating_sub(1);
        [0, last / 2, last * 19 / 20, last].map(|at| self.lengths.get(at).copied().unwrap_or(0))
    }

    fn json(&self) -> Value {
        let [shortest, median, p95, longest] = self.quantiles();
        let skipped = |s: &model_runtime::text::Skipped| json!({ "path": s.path, "why": s.why.to_string(), "files": s.files });
        json!({
            "samples": self.datanet.samples.len(),
            "contributors": self.datanet.contributors().len(),
            "root": Digest(self.datanet.root()),
            "files": self.notes.files,
            "skipped": self.notes.skipped.iter().map(skipped).collect::<Value>(),
            "empty_folders": self.notes.empty,
            "marks_removed": self.notes.marks,
            "renamed": self.notes.renamed,
            "lookalikes": lookalikes(&self.datanet.contributors()),
            "unit": self.unit,
            "lengths": { "shortest": shortest, "median": median, "p95": p95, "longest": longest },
            "cut": self.cut.map(|c| json!({ "samples": c.samples, "share": c.share() })),
            "copies": self.copies.json(&self.datanet),
        })
    }

    fn print(&self, args: &Args) {
        let (samples, contributors) = (self.datanet.samples.len(), self.datanet.contributors().len());
        let [shortest, median, p95, longest] = self.quantiles();
        println!("{}: {samples} samples by {contributors} contributors, from {} files", args.path.display(), self.notes.files);
        println!("  root {}", Digest(self.datanet.root()));
        println!("  {}: {shortest} to {longest}, half up to {median}, 19 of 20 up to {p95}", self.unit);
        let mut remarks = texts::remarks(&self.notes, &self.datanet);
        remarks.extend(self.cut.and_then(|cut| texts::cut_line(&cut, args.max_tokens)));
        remarks.extend(self.copies.lines(&self.datanet, true));
        if remarks.is_empty() {
            println!("  nothing skipped, no names that look alike, no copies");
        }
        remarks.iter().for_each(|line| println!("  {line}"));
    }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let report = report(&args)?;
    if json {
        println!("{}", report.json());
    } else {
        report.print(&args);
    }
    Ok(0)
}
