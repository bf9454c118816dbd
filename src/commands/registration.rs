//! `poa registration`: an index that nobody can make up.

use crate::meter::{Terminal, say};
use crate::show;
use circuits::registration::{Absent, Member, Registration};
use circuits::statement::Digest;
use clap::Subcommand;
use model_runtime::int::index::noise_floor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;
use steps::cost::{Meter, peak_rss_mb};
use steps::error::{Failure, While};
use steps::kept::Shelves;
use steps::registration::{AcceptedBefore, CHUNK_LOG, Registered, RegistrationDir, Source, differs_from_datanet, register};
use steps::store::{AdapterDir, IndexDir, ModelDir, read_json, write_json};
use steps::texts;

/// Prove once that an index' rows are the sketches of its datanet's samples; verify that; show that a sample is in it, or that a text isn't.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa registration prove i/\n  poa registration verify i/registration\n  \
                        poa registration member i/registration --row 17 --out mine.json\n  \
                        poa registration check mine.json --registration 0123…")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prove an index' registration. What an earlier call proved is kept: after a crash or an interruption, call it again.
    Prove(Prove),
    /// Verify a registration with all its proofs. Exit status: 0 valid, 1 not valid (with the rows that aren't proven), 2 unusable input.
    Verify(Verify),
    /// Show that a row holds a sample: a few kilobytes for whoever contributed it.
    Member {
        /// The registration.
        dir: PathBuf,
        /// The sample's row, from 0.
        #[arg(long)]
        row: usize,
        /// Where the proof goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Show that no row holds a text.
    Absent {
        /// The registration.
        dir: PathBuf,
        /// The text.
        #[arg(long)]
        text: String,
        /// The model, whose tokenizer reads the text.
        #[arg(long)]
        model: PathBuf,
        /// Where the proof goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Check what `member` or `absent` wrote.
    Check {
        /// The proof.
        proof: PathBuf,
        /// The registration that it should be of: its directory, or one of its two roots.
        #[arg(long)]
        registration: String,
    },
}

#[derive(clap::Args)]
struct Prove {
    /// The index.
    index: PathBuf,
    /// The model it was made with (default: where it was then).
    #[arg(long)]
    model: Option<PathBuf>,
    /// The adapter it was made with (default: where it was then).
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Where the registration goes (default: into the index' directory).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Largest trace of a chunk, as the logarithm of its elements: more takes a little less time and much more memory.
    #[arg(long, default_value_t = CHUNK_LOG, value_parser = chunk_log)]
    chunk_log: usize,
}

#[derive(clap::Args)]
struct Verify {
    /// The registration.
    dir: PathBuf,
    /// Compare its samples with a datanet's texts.
    #[arg(long, requires = "model")]
    datanet: Option<PathBuf>,
    /// The model, whose tokenizer reads the datanet.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Add its digest to this file of accepted registrations, which `poa verify --accepted` reads.
    #[arg(long)]
    accept: Option<PathBuf>,
}

fn chunk_log(given: &str) -> Result<usize, String> {
    given.parse().ok().filter(|log| (13..=28).contains(log)).ok_or_else(|| "expected 13 to 28".into())
}

/// What `member` and `absent` write.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shown {
    Member(Member),
    Absent(Absent),
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    match args.command {
        Command::Prove(args) => prove(args, json),
        Command::Verify(args) => verify(args, json),
        Command::Member { dir, row, out } => {
            let registration = RegistrationDir::new(dir).load()?.registration;
            let count = registration.samples.len();
            let member = registration.leaves().member(&registration.samples, row);
            let member = member.ok_or_else(|| Failure::input(format!("there is no row {row}: the index has {count}, numbered from 0")))?;
            wrote(&out, &Shown::Member(member), json)
        }
        Command::Absent { dir, text, model, out } => {
            let Registered { registration, max_tokens, .. } = RegistrationDir::new(dir).load()?;
            let tokenizer = ModelDir::load(&model)?.tokenizer;
            let mut tokens = tokenizer.encode_sample(&text, max_tokens).during("reading the text")?;
            tokenizer.without_end(&mut tokens, 2);
            match registration.leaves().absent(&tokens) {
                Some(absent) => wrote(&out, &Shown::Absent(absent), json),
                None => show::not_valid(Failure::invalid("the text is in the datanet").hint("`poa registration member` shows in which row"), json),
            }
        }
        Command::Check { proof, registration } => check(&read_json(&proof)?, &registration, json),
    }
}

fn wrote(out: &Path, shown: &Shown, json: bool) -> Result<u8, Failure> {
    write_json(out, shown)?;
    if json {
        println!("{}", json!({ "out": out }));
    } else {
        println!("{} written", out.display());
    }
    Ok(0)
}

/// Both roots of a registration: by row and by tokens.
fn roots(registered: &Registered) -> [Digest; 2] {
    let leaves = registered.registration.leaves();
    [leaves.root(), leaves.sorted_root()]
}

fn check(shown: &Shown, registration: &str, json: bool) -> Result<u8, Failure> {
    let given: Result<Digest, _> = registration.parse();
    let [by_row, by_tokens] = match given {
        Ok(root) => [root, root],
        Err(_) => roots(&RegistrationDir::new(registration).load()?),
    };
    let (valid, what) = match shown {
        Shown::Member(member) => {
            let earns = if member.sample.earns { "earns" } else { "doesn't earn" };
            (
                member.is_of(&by_row),
                format!("row {} holds this sample, of contributor number {}, and {earns}", member.row(), member.sample.contributor),
            )
        }
        Shown::Absent(absent) => (absent.is_of(&by_tokens), "no row holds this text".to_owned()),
    };
    if !valid {
        return show::not_valid(Failure::invalid("it leads to another root"), json);
    }
    if json {
        println!("{}", json!({ "valid": valid, "says": what }));
    } else {
        println!("valid: {what}");
    }
    Ok(0)
}

fn prove(args: Prove, json: bool) -> Result<u8, Failure> {
    let (meter, terminal) = (Meter::start(), Terminal::new());
    let index = IndexDir::load(&args.index)?;
    let (model_dir, adapter_dir) =
        (args.model.unwrap_or_else(|| index.info.model.clone()), args.adapter.unwrap_or_else(|| index.info.adapter.clone()));
    let moved = |f: Failure| f.hint("the index remembers where its model and adapter were; name them with --model and --adapter");
    let model = ModelDir::load(&model_dir).map_err(moved)?;
    let adapter = AdapterDir::load(&adapter_dir, &model).map_err(moved)?;
    let dir = args.out.map_or_else(|| RegistrationDir::of_index(&args.index), RegistrationDir::new);
    let shelves = Shelves { model: Some(&model_dir), adapter: Some(&adapter_dir), index: Some(&args.index) };
    let source = Source { model: &model, adapter: &adapter, index: &index, shelves };
    let (registered, digest) = register(&source, &dir, args.chunk_log, &terminal)?;
    drop(terminal);
    let (seconds, cpu_seconds) = meter.read();
    let rows: usize = registered.chunks.iter().map(Vec::len).sum();
    if json {
        let value = json!({
            "registration": digest, "index": registered.registration.index, "rows": registered.registration.samples.len(), "earning": rows,
            "proofs": registered.chunks.len() + 3, "out": dir.path(), "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_mb": peak_rss_mb(),
        });
        println!("{value}");
    } else {
        println!("registered: {rows} rows are proven, in {seconds:.0} s ({cpu_seconds:.0} CPU s, {:.0} MB)", peak_rss_mb());
        println!("  registration {digest}");
        println!("  {}", dir.path().display());
    }
    Ok(0)
}

fn verify(args: Verify, json: bool) -> Result<u8, Failure> {
    let terminal = Terminal::new();
    let start = Instant::now();
    let dir = RegistrationDir::new(&args.dir);
    let result = dir.verify(&terminal);
    let seconds = start.elapsed().as_secs_f64();
    drop(terminal);
    let (registered, accepted) = match result {
        Ok(found) => found,
        Err(failure) => {
            return show::not_valid(failure, json);
        }
    };
    let compared = args.datanet.as_ref().zip(args.model.as_ref()).map(|(datanet, model)| compare(&registered, datanet, model)).transpose()?;
    if let Some(Some(difference)) = &compared {
        return show::not_valid(Failure::invalid(difference), json);
    }
    if let Some(file) = &args.accept {
        AcceptedBefore::add(file, accepted.known.clone())?;
    }
    let registration = &registered.registration;
    let earning = registration.samples.iter().filter(|s| s.earns).count();
    let [by_row, by_tokens] = roots(&registered);
    if json {
        let value = json!({
            "valid": true, "registration": accepted.known.registration, "index": registration.index, "base": registration.base, "adapter": registration.adapter,
            "datanet_root": registration.datanet_root, "rows": registration.samples.len(), "earning": earning, "root_by_row": by_row,
            "root_by_tokens": by_tokens, "beacon": registration.beacon, "noise_floor": registration.semantics.consts.get("theta"),
            "usual_noise_floor": usual_floor(registration), "security_bits": accepted.security_bits, "seconds": seconds, "datanet_compared": compared.is_some(),
        });
        println!("{value}");
        return Ok(0);
    }
    println!(
        "valid: {earning} rows are the sketches of their samples ({:.1} bits of proven security, checked in {seconds:.1} s)",
        accepted.security_bits
    );
    println!("  {} rows in all; the others copy earlier ones and are zero", registration.samples.len());
    println!("  registration {}", accepted.known.registration);
    println!("  base         {}", registration.base);
    println!("  adapter      {}", registration.adapter);
    println!("  index        {}", registration.index);
    println!("  datanet      {} (version {})", registration.datanet_root, registration.datanet_version);
    let (floor, chance) = (registration.semantics.consts.get("theta").copied().unwrap_or(0), usual_floor(registration));
    let usual =
        if floor == chance { "what the projection's chance gives".to_owned() } else { format!("chance gives {chance}: its maker chose another") };
    println!("  noise floor  {floor} ({usual})");
    match registration.beacon {
        Some(beacon) => println!("  projection   drawn from the datanet's root and the beacon {beacon}"),
        None => println!("  projection   drawn from the datanet's root"),
    }
    println!("  root by row    {by_row}");
    println!("  root by tokens {by_tokens}");
    match compared {
        Some(_) => println!("The samples are those of the datanet that you gave."),
        None => println!("Its samples are those of the directory's tokens; give --datanet and --model to compare them with texts."),
    }
    Ok(0)
}

/// The noise floor of an index whose maker chose none.
fn usual_floor(registration: &Registration) -> i64 {
    noise_floor(registration.semantics.sketch_len(), registration.samples.len())
}

/// The first difference between registered samples and a datanet's.
fn compare(registered: &Registered, datanet: &Path, model: &Path) -> Result<Option<String>, Failure> {
    say("comparing with the datanet's texts …");
    let model = ModelDir::load(model)?;
    let terminal = Terminal::new();
    differs_from_datanet(registered, texts::read(datanet, None, &terminal)?, &model.tokenizer, &terminal)
}
