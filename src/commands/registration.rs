//! `poa registration`: an index' rows, proven once.

use crate::meter::{Terminal, say};
use crate::show;
use circuits::registration::{Absent, Member, Registration};
use circuits::statement::Digest;
use clap::Subcommand;
use model_runtime::int::index::noise_floor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use steps::cost::{Meter, peak_rss_mb};
use steps::error::Failure;
use steps::kept::Shelves;
use steps::registration::{AcceptedBefore, CHUNK_LOG, Registered, RegistrationDir, Source, differs_from_datanet, register, rows_of_text};
use steps::store::{AdapterDir, IndexDir, ModelDir, create_parent, read_json, write_json};
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
    Check(Check),
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
struct Check {
    /// The proof.
    proof: PathBuf,
    /// The registration that it should be of: its directory, which is taken as it is (`verify` says whether it is proven), or one of its two roots.
    #[arg(long)]
    registration: String,
    /// The text that it should be about, as the registration's directory says that samples are read.
    #[arg(long, requires = "model")]
    text: Option<String>,
    /// The model, whose tokenizer reads the text.
    #[arg(long, requires = "text")]
    model: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Verify {
    /// The registration.
    dir: PathBuf,
    /// Compare its samples with a datanet's texts.
    #[arg(long, requires = "model")]
    datanet: Option<PathBuf>,
    /// Compare with the datanet's first samples only.
    #[arg(long, requires = "datanet")]
    limit: Option<NonZeroUsize>,
    /// The beacon that the projection should be drawn with (default: none).
    #[arg(long)]
    beacon: Option<Digest>,
    /// The model, whose tokenizer reads the datanet.
    #[arg(long, requires = "datanet")]
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
    /// One for each row that the text would have.
    Absent(Vec<Absent>),
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
            let registered = RegistrationDir::new(dir).load()?;
            let rows = rows_of_text(&registered, &ModelDir::load(&model)?.tokenizer, &text, &Terminal::new())?;
            let (leaves, samples) = (registered.registration.leaves(), &registered.registration.samples);
            let present = samples.iter().enumerate().find_map(|(row, sample)| Some((row, rows.iter().position(|t| *t == sample.tokens)?)));
            if let Some((row, window)) = present {
                let what = if rows.len() == 1 { "the text".to_owned() } else { format!("window {} of the text", window + 1) };
                return show::not_valid(Failure::invalid(format!("{what} is in the datanet, in row {row}")), json);
            }
            wrote(&out, &Shown::Absent(rows.iter().filter_map(|tokens| leaves.absent(tokens)).collect()), json)
        }
        Command::Check(args) => check(&args, json),
    }
}

fn wrote(out: &Path, shown: &Shown, json: bool) -> Result<u8, Failure> {
    create_parent(out)?;
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

/// A registration's directory, or one of its roots.
fn named(registration: &str) -> Result<(Option<Registered>, [Digest; 2]), Failure> {
    if Path::new(registration).is_dir() {
        let registered = RegistrationDir::new(registration).load()?;
        let roots = roots(&registered);
        return Ok((Some(registered), roots));
    }
    let root: Result<Digest, _> = registration.parse();
    let failure = || Failure::input(format!("--registration is {registration:?}, neither a directory nor 64 hexadecimal digits"));
    root.map(|root| (None, [root; 2]))
        .map_err(|_| failure().hint("give the registration's directory, or a root that `poa registration verify` shows"))
}

fn check(args: &Check, json: bool) -> Result<u8, Failure> {
    let shown: Shown = read_json(&args.proof)?;
    let (registered, [by_row, by_tokens]) = named(&args.registration)?;
    let (own, root) = match &shown {
        Shown::Member(member) => (member.is_of(&by_row), by_row),
        Shown::Absent(list) => (!list.is_empty() && list.iter().all(|absent| absent.is_of(&by_tokens)), by_tokens),
    };
    if !own {
        let failure = Failure::invalid(format!("it doesn't lead to the root {root}"));
        return show::not_valid(failure.hint("it is of another version of the datanet, or another model's, or was changed"), json);
    }
    let about: Vec<&[u32]> = match &shown {
        Shown::Member(member) => vec![&member.sample.tokens],
        Shown::Absent(list) => list.iter().map(|absent| absent.tokens.as_slice()).collect(),
    };
    let mut windows = 1;
    if let Some((text, model)) = args.text.as_ref().zip(args.model.as_ref()) {
        let registered = registered
            .as_ref()
            .ok_or_else(|| Failure::input("--text needs to know how samples are read").hint("give the registration's directory instead of a root"))?;
        let rows = rows_of_text(registered, &ModelDir::load(model)?.tokenizer, text, &Terminal::new())?;
        windows = rows.len();
        let is_about = match &shown {
            Shown::Member(member) => rows.contains(&member.sample.tokens),
            Shown::Absent(_) => rows.iter().eq(&about),
        };
        if !is_about {
            return show::not_valid(Failure::invalid("it is about another text"), json);
        }
    }
    let compared = args.text.is_some();
    let what = match (compared, &shown) {
        (true, Shown::Member(_)) if windows > 1 => "a window of the text".to_owned(),
        (true, _) => "the text".to_owned(),
        (false, Shown::Absent(list)) if list.len() > 1 => format!("any of {} windows of a text", list.len()),
        (false, _) => format!("a text of {} tokens", about.first().map_or(0, |t| t.len())),
    };
    let mut value = json!({ "valid": true, "text_compared": compared });
    let says = match &shown {
        Shown::Member(member) => {
            let (row, contributor, earns) = (member.row(), member.sample.contributor, member.sample.earns);
            value["row"] = json!(row);
            value["contributor"] = json!(contributor);
            value["earns"] = json!(earns);
            format!("row {row} holds {what}, of contributor number {contributor}, and {}", if earns { "earns" } else { "doesn't earn" })
        }
        Shown::Absent(_) => format!("no row holds {what}"),
    };
    if json {
        println!("{value}");
        return Ok(0);
    }
    println!("valid: {says}");
    if !compared {
        println!("Which text that is, --text and --model compare.");
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

/// The projection is the one that is expected; seen without a proof.
fn check_beacon(found: Option<Digest>, expected: Option<Digest>) -> Result<(), Failure> {
    let named = |beacon: Option<Digest>| beacon.map_or_else(|| "no beacon".to_owned(), |beacon| format!("the beacon {beacon}"));
    let message = || format!("the projection is drawn with {}, not with {}", named(found), named(expected));
    if found == expected { Ok(()) } else { Err(Failure::invalid(message()).hint("give the one that you know it should be with --beacon")) }
}

fn verify(args: Verify, json: bool) -> Result<u8, Failure> {
    let terminal = Terminal::new();
    args.accept.iter().try_for_each(|file| create_parent(file))?;
    let start = Instant::now();
    let dir = RegistrationDir::new(&args.dir);
    let result = dir.load().and_then(|registered| {
        check_beacon(registered.registration.beacon, args.beacon)?;
        let accepted = dir.verify_proofs(&registered, &terminal)?;
        Ok((registered, accepted))
    });
    let seconds = start.elapsed().as_secs_f64();
    drop(terminal);
    let (registered, mut accepted) = match result {
        Ok(found) => found,
        Err(failure) => return show::not_valid(failure, json),
    };
    let given = args.datanet.as_ref().zip(args.model.as_ref());
    let compared = given.map(|(datanet, model)| compare(&registered, (datanet, args.limit), model)).transpose()?;
    if let Some(Some(difference)) = &compared {
        return show::not_valid(Failure::invalid(difference), json);
    }
    accepted.known.datanet_compared = compared.is_some();
    if let Some(file) = &args.accept {
        AcceptedBefore::add(file, accepted.known.clone())?;
    }
    let registration = &registered.registration;
    let earning = registration.samples.iter().filter(|s| s.earns).count();
    let [by_row, by_tokens] = roots(&registered);
    if json {
        let value = json!({
            "valid": true,
            "registration": accepted.known.registration,
            "index": registration.index,
            "base": registration.base,
            "adapter": registration.adapter,
            "datanet_root": registration.datanet_root,
            "rows": registration.samples.len(),
            "earning": earning,
            "root_by_row": by_row,
            "root_by_tokens": by_tokens,
            "max_tokens": registration.max_tokens,
            "split": registration.split,
            "beacon": registration.beacon,
            "noise_floor": registration.semantics.consts.get("theta"),
            "usual_noise_floor": usual_floor(registration),
            "security_bits": accepted.security_bits,
            "seconds": seconds,
            "datanet_compared": compared.is_some(),
        });
        println!("{value}");
        return Ok(0);
    }
    println!(
        "valid: {earning} rows are the sketches of their samples ({:.1} bits of proven security, checked in {seconds:.1} s)",
        accepted.security_bits
    );
    println!("  {} rows in all; those that don't earn are zero", registration.samples.len());
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
    let windows = if registration.split { "split into windows of" } else { "cut after" };
    println!("  samples      {windows} {} tokens", registration.max_tokens);
    println!("  root by row    {by_row}");
    println!("  root by tokens {by_tokens}");
    match compared {
        Some(_) => println!("The samples are those of the datanet that you gave."),
        None => println!("NOT COMPARED with a datanet: give --datanet and --model to see that its samples, and which of them earn, are right."),
    }
    Ok(0)
}

/// The noise floor of an index whose maker chose none.
fn usual_floor(registration: &Registration) -> i64 {
    noise_floor(registration.semantics.sketch_len(), registration.samples.len())
}

/// The first difference between registered samples and a datanet's.
fn compare(registered: &Registered, (datanet, limit): (&Path, Option<NonZeroUsize>), model: &Path) -> Result<Option<String>, Failure> {
    say("comparing with the datanet's texts …");
    let model = ModelDir::load(model)?;
    let terminal = Terminal::new();
    differs_from_datanet(registered, texts::read(datanet, limit, &terminal)?, &model.tokenizer, &terminal)
}
