//! `poa import`: a float model becomes exact integers.

use crate::meter::{Terminal, say};
use crate::show;
use circuits::ir::Group;
use model_runtime::import::{ImportOptions, load_model, samples};
use model_runtime::int::Headroom;
use model_runtime::text::Tokenizer;
use serde_json::{Value, json};
use service::{Chat, ChatTemplate};
use std::path::PathBuf;
use steps::error::{Failure, While};
use steps::import::{Imported, import};
use steps::kept::Shelves;
use steps::prove::commit;
use steps::store::ModelDir;
use steps::texts::{self, Window, Windows};

/// Quantise a model, check every bound, measure fidelity against float.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa import TinyStories-656K/ --out m/\n  poa import model5000.bin --tokenizer tok105.model --out m/")]
pub struct Args {
    /// Hugging Face Llama directory (config.json, safetensors, tokenizer.json) or llama2.c `.bin` file.
    model: PathBuf,
    /// Where the imported model goes.
    #[arg(long)]
    out: PathBuf,
    /// Tokenizer: tokenizer.json, llama2.c `tok*.bin` or SentencePiece `.model` (default: the model directory's own).
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Texts to calibrate on and measure with (a datanet file or folder); by default the model writes its own.
    #[arg(long, visible_alias = "datanet")]
    calibration: Option<PathBuf>,
    /// Largest number of tokens of prompt and answer together; smaller contexts leave gradients more bits.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Bits of the residual stream to leave free for adapters that make it grow (default: as many as cost no exactness, at most 2).
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=6))]
    headroom: Option<u32>,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let terminal = Terminal::new();
    if args.context < 2 {
        return Err(Failure::input(format!("--context is {}, expected at least 2", args.context)));
    }
    let options = ImportOptions { context: Some(args.context) };
    let float = load_model(&args.model, &options).during_path("importing", &args.model)?;
    let source = args.tokenizer.as_ref().unwrap_or(&args.model);
    let tokenizer = Tokenizer::load(source).during_path("loading the tokenizer of", source).map_err(|f| f.hint("name one with --tokenizer"))?;
    let tokenizer = tokenizer.for_model(&args.model, float.shape.vocab).during("the tokenizer")?;
    if samples(&args.model) {
        say("note: generation_config.json asks for sampling; answers are greedy, which is what is proven");
    }
    let texts = match &args.calibration {
        Some(path) => {
            let window = Window { max_tokens: float.shape.context.min(64), windows: Windows::Cut };
            Some(texts::prepare(texts::read(path, None, &terminal)?, &tokenizer, window, &terminal)?.tokens)
        }
        None => None,
    };
    say("quantising and measuring …");
    let imported = import(float, tokenizer, texts, args.headroom.map_or(Headroom::Auto, Headroom::Bits), &terminal)?;
    let chat = chat(&args, &imported.model.tokenizer)?;
    imported.model.save(&args.out)?;
    chat.iter().try_for_each(|chat| chat.save(&args.out))?;
    let int = &imported.model.int;
    let shelves = Shelves { model: Some(&args.out), ..Shelves::default() };
    let commitment = commit(Group::Base, &int.semantics, None, &int.tensors, shelves, &terminal)?;
    if json {
        let mut summary = summary(&imported);
        summary["chat_template"] = json!(chat.is_some());
        summary["commitment"] = json!(commitment);
        println!("{summary}");
    } else {
        print(&imported.model, &args.out.display().to_string());
        println!("\n  commitment {commitment} (native profile)");
        show::print_fidelity(&imported.fidelity);
    }
    Ok(0)
}

/// The model's chat template, if it has one that can be followed.
fn chat(args: &Args, tokenizer: &Tokenizer) -> Result<Option<Chat>, Failure> {
    let beside = args.tokenizer.as_ref().and_then(|path| if path.is_dir() { Some(path.as_path()) } else { path.parent() });
    let dir = if args.model.is_dir() { Some(args.model.as_path()) } else { beside };
    let found = dir.map(Chat::read).transpose()?.flatten();
    let problem = found.as_ref().and_then(|chat| ChatTemplate::new(chat, tokenizer).err());
    if let Some(problem) = problem {
        say(format!("note: its chat template can't be followed: {problem}; chats will be read line by line"));
        return Ok(None);
    }
    Ok(found)
}

fn summary(imported: &Imported) -> Value {
    let sem = &imported.model.int.semantics;
    let parameters: usize = imported.model.int.tensors.values().map(|t| t.data.len()).sum();
    json!({
        "shape": sem.shape,
        "padded_elements": parameters,
        "weight_bits": sem.weight_bits,
        "exponents": sem.exps,
        "calibrated_ranges": imported.model.int.calibrated,
        "fidelity": show::fidelity_json(&imported.fidelity),
    })
}

fn print(model: &ModelDir, out: &str) {
    let sem = &model.int.semantics;
    let s = &sem.shape;
    println!(
        "Imported to {out}: {} layers of width {}, {} heads ({} key/value), feed-forward {}, vocabulary {}, context {}",
        s.layers, s.width, s.heads, s.kv_heads, s.ff, s.vocab, s.context
    );
    println!("\n  {:<8} {:>5} {:>9}   unit", "tensor", "bits", "elements");
    for (name, tensor) in &model.int.tensors {
        let (bits, k) = (sem.weight_bits.get(name).copied().unwrap_or(0), sem.exps.get(name).copied().unwrap_or(0));
        println!("  {name:<8} {bits:>5} {:>9}   2^{}", tensor.data.len(), -k);
    }
}
