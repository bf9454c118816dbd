//! `poa index`: sketches of every sample.

use super::window_args::WindowArgs;
use crate::meter::{Terminal, say};
use circuits::ir::Group;
use circuits::statement::Digest;
use model_runtime::int::index::IndexOptions;
use model_runtime::shape::Site;
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use steps::cost::Meter;
use steps::error::Failure;
use steps::index::{Indexing, index};
use steps::kept::Shelves;
use steps::prove::commit;
use steps::store::{AdapterDir, ModelDir, absolute};
use steps::texts::{self, Copies, Window};

/// Sketch every sample of a datanet and make the attribution index.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  poa index --model m/ --adapter a/ --datanet prompts.jsonl --out i/")]
pub struct Args {
    /// Imported model.
    #[arg(long)]
    model: PathBuf,
    /// Adapter.
    #[arg(long)]
    adapter: PathBuf,
    /// Datanet.
    #[arg(long)]
    datanet: PathBuf,
    /// Where the index goes.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    sketch: SketchArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// A value that nobody knew when the datanet closed, such as the hash of a later block (64 hexadecimal digits): the projection is drawn from it
    /// and the datanet's root, so that no sample can be built against it. Without it, from the root alone.
    #[arg(long)]
    beacon: Option<Digest>,
    /// Scores up to this count as noise (0 to 16383; a sample scores about 14,400 on itself; default: what the projection's chance gives).
    #[arg(long, value_parser = clap::value_parser!(u16).range(..=16383))]
    noise_floor: Option<u16>,
    /// Use only the first samples.
    #[arg(long)]
    limit: Option<NonZeroUsize>,
    /// Version of the datanet.
    #[arg(long, default_value_t = 1)]
    datanet_version: u64,
}

/// What is sketched.
#[derive(clap::Args)]
pub struct SketchArgs {
    /// Rows of the projection of gradients; a power of two.
    #[arg(long, default_value_t = 32)]
    sketch_rows: usize,
    /// Most entries of a sketch (up to 16384): where all ranks would exceed it, ranks are projected too.
    #[arg(long, default_value_t = 4096)]
    sketch_size: usize,
    /// Sites to sketch, comma-separated (default: o, gate and up, as far as the adapter covers them; all it covers where that is neither gate nor up).
    #[arg(long, value_delimiter = ',', value_parser = site)]
    sketch_sites: Option<Vec<Site>>,
}

impl SketchArgs {
    /// As the index takes them.
    pub fn options(self) -> IndexOptions {
        IndexOptions { rows: self.sketch_rows, cap: self.sketch_size, sites: self.sketch_sites, ..IndexOptions::default() }
    }
}

fn site(name: &str) -> Result<Site, String> {
    let found = Site::ALL.into_iter().find(|s| s.name() == name);
    found.ok_or_else(|| format!("expected one of {}", Site::ALL.map(|s| s.name()).join(", ")))
}

/// Says which rows copy earlier ones, and who was first.
fn warn_of_copies(prepared: &texts::Prepared) -> Copies {
    let copies = Copies::of(&prepared.datanet, Some(&prepared.tokens));
    let mut lines = copies.lines(&prepared.datanet, false).into_iter();
    lines.next().iter().for_each(|total| say(format!("warning: {total}")));
    lines.for_each(say);
    copies
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let (meter, terminal) = (Meter::start(), Terminal::new());
    let model = ModelDir::load(&args.model)?;
    let adapter = AdapterDir::load(&args.adapter, &model)?;
    let trained = Window::of_adapter(&args.adapter)?;
    let window = args.window.window(trained, model.float.shape.context)?;
    window.compare(trained, &terminal);
    let prepared = texts::prepare(texts::read(&args.datanet, args.limit, &terminal)?, &model.tokenizer, window, &terminal)?;
    let copies = warn_of_copies(&prepared);
    let datanet = &prepared.datanet;
    let paths = (absolute(&args.model)?, absolute(&args.adapter)?);
    let how = Indexing {
        options: args.sketch.options(),
        max_tokens: window.max_tokens,
        noise_floor: args.noise_floor.map(i64::from),
        beacon: args.beacon,
        paths: (&paths.0, &paths.1),
    };
    let mut index = index(&model, &adapter, datanet, how, &terminal)?;
    index.info.datanet_version = args.datanet_version;
    index.info.sample_of_row = prepared.sample_of_row;
    index.save(&args.out)?;
    let shelves = Shelves { index: Some(&args.out), ..Shelves::default() };
    let commitment = commit(Group::Index, &index.index.semantics, Some(&index), &index.committed(), shelves, &terminal)?;
    let (seconds, cpu_seconds) = meter.read();
    let elements: usize = index.index.tensors.values().map(|t| t.data.len()).sum();
    let root = index.info.datanet_root;
    let (identical, near) = copies.counts();
    if json {
        println!(
            "{}",
            json!({ "samples": index.index.rows, "contributors": index.info.contributors.len(), "elements": elements, "datanet_root": root, "commitment": commitment, "cut_samples": prepared.cut.samples, "cut_share": prepared.cut.share(), "identical_copies": identical, "near_copies": near, "seconds": seconds, "cpu_seconds": cpu_seconds })
        );
    } else {
        println!(
            "Index of {} samples by {} contributors in {}, {elements} elements, {seconds:.1} s",
            index.index.rows,
            index.info.contributors.len(),
            args.out.display()
        );
        println!("  datanet root {root}");
        println!("  commitment {commitment} (native profile)");
    }
    Ok(0)
}
