//! The demo: a small base model, a datanet with planted facts, and held-out queries, all made by this code from its own text patterns.
//!
//! [`remake`] writes everything; `cargo run --release -p model-runtime --example remake_demo` calls it.

mod corpus;
mod facts;

pub use corpus::base_corpus;

use crate::import::{ImportError, StoredType, export_hf, write_atomic};
use crate::shape::{FloatAdapter, FloatModel, ModelShape};
use crate::text::{Datanet, Sample, TextError, Tokenizer};
use crate::train::{BaseConfig, LoraConfig, Net, Penalties, Progress, Schedule, TrainError, train_base};
use facts::{CONTRIBUTORS, TOPICS};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Tokens of any training text, and of a prompt with its answer, at most.
pub const CONTEXT: usize = 32;
const SEED: u64 = 20_240_601;
const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// The demo's directory of the base model.
pub const BASE_DIR: &str = "base";
/// The demo's datanet.
pub const DATANET_FILE: &str = "datanet.jsonl";
/// The demo's held-out queries.
pub const QUERIES_FILE: &str = "queries.jsonl";

/// Why the demo couldn't be made, read or measured.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A model or file.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A tokenizer or datanet.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Training or running.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A line of the queries' file.
    #[error("{path}, line {line}: expected a query, found {reason}")]
    Query {
        /// The file.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// A held-out question about a planted fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Who contributed the fact.
    pub contributor: String,
    /// The text to continue; it occurs nowhere in the datanet.
    pub prompt: String,
    /// The word expected next.
    pub answer: String,
    /// The samples that state the fact, by number from 0.
    pub samples: Vec<usize>,
}

/// One relation of the demo in its own words, for other banks over the same vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Wording {
    /// Whom or what it is about.
    pub entities: [&'static str; 4],
    /// The demo's answers, by entity.
    pub answers: [&'static str; 4],
    /// Phrasings with `{e}` and, last, `{a}`.
    pub phrasings: [&'static str; 4],
}

/// All relations.
pub fn wordings() -> Vec<Wording> {
    let of = |topic: &facts::Topic, r: usize| {
        let relation = &topic.relations[r];
        Wording { entities: topic.entities, answers: relation.answers, phrasings: relation.phrasings }
    };
    TOPICS.iter().flat_map(|topic| [of(topic, 0), of(topic, 1)]).collect()
}

/// A fact in one of its phrasings.
struct Statement {
    /// Number of the fact.
    fact: usize,
    contributor: &'static str,
    /// The text up to the answer, without the space before it.
    prompt: String,
    answer: &'static str,
    text: String,
    /// Whether the phrasing is held out for this fact.
    held_out: bool,
}

/// Every fact in every phrasing, fact by fact.
fn statements() -> Vec<Statement> {
    let owners = facts::owners(SEED);
    let mut statements = Vec::new();
    for (topic, owners) in TOPICS.iter().zip(owners) {
        for (r, (relation, owners)) in topic.relations.iter().zip(owners).enumerate() {
            for (f, (entity, answer)) in topic.entities.iter().zip(relation.answers).enumerate() {
                let fact = statements.len() / relation.phrasings.len();
                statements.extend(relation.phrasings.iter().enumerate().map(|(p, phrasing)| Statement {
                    fact,
                    contributor: CONTRIBUTORS[owners[f]],
                    prompt: phrasing.split("{a}").next().unwrap_or("").trim_end().replace("{e}", entity),
                    answer,
                    text: phrasing.replace("{e}", entity).replace("{a}", answer),
                    held_out: p == (f + r) % 4,
                }));
            }
        }
    }
    statements
}

/// The datanet: 240 samples of 10 contributors; each fact is stated three times, by one contributor.
pub fn datanet() -> Datanet {
    let stated = statements().into_iter().filter(|s| !s.held_out);
    Datanet { samples: stated.map(|s| Sample { contributor: s.contributor.into(), text: s.text }).collect() }
}

/// The held-out queries: one a fact, in the phrasing its samples leave out.
pub fn queries() -> Vec<Query> {
    let (held_out, stated): (Vec<_>, Vec<_>) = statements().into_iter().partition(|s| s.held_out);
    let stating = |fact| (0..stated.len()).filter(|&i| stated[i].fact == fact).collect();
    let query = |s: Statement| Query { contributor: s.contributor.into(), prompt: s.prompt, answer: s.answer.into(), samples: stating(s.fact) };
    held_out.into_iter().map(query).collect()
}

/// Reads a queries' file (JSON lines).
pub fn load_queries(path: &Path) -> Result<Vec<Query>, DemoError> {
    let text = fs::read_to_string(path).map_err(|e| ImportError::io(path, e))?;
    let parse = |(i, line)| {
        let failed = |e: serde_json::Error| DemoError::Query { path: path.display().to_string(), line: i + 1, reason: e.to_string() };
        serde_json::from_str(line).map_err(failed)
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

fn queries_jsonl(queries: &[Query]) -> String {
    let line = |q: &Query| json!({ "contributor": q.contributor, "prompt": q.prompt, "answer": q.answer, "samples": q.samples }).to_string() + "\n";
    queries.iter().map(line).collect()
}

/// A word-level `tokenizer.json` over the words of all texts.
pub fn tokenizer_json<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let words: BTreeSet<&str> = texts.into_iter().flat_map(corpus::words).collect();
    let vocabulary: Map<String, Value> = SPECIALS.into_iter().chain(words).zip(0..).map(|(w, id)| (w.to_string(), json!(id))).collect();
    let special = |(id, content): (usize, &&str)| json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let mark = |mark: &str| json!({ "type": "Replace", "pattern": { "String": format!(" {mark}") }, "content": mark });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": SPECIALS.iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": SPECIALS[1], "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { SPECIALS[1]: { "id": SPECIALS[1], "ids": [1], "tokens": [SPECIALS[1]] } },
        },
        "decoder": { "type": "Sequence", "decoders": [{ "type": "WordPiece", "prefix": "##", "cleanup": true }, mark(":")] },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": SPECIALS[0] },
    });
    format!("{tokenizer:#}\n")
}

/// The base model's architecture for a vocabulary.
pub fn base_shape(vocab: usize) -> ModelShape {
    ModelShape { layers: 4, width: 128, heads: 8, kv_heads: 4, head_dim: 16, ff: 256, vocab, rope_theta: 10000.0, norm_eps: 1e-5, context: CONTEXT }
}

/// How the base model is trained.
pub fn base_config(vocab: usize) -> BaseConfig {
    let penalties = Penalties { smoothing: 0.05, stream: 0.01, ..Penalties::default() };
    let schedule = Schedule { epochs: 6, batch: 32, learning_rate: 3e-3, warmup: 0.05, weight_decay: 0.05, seed: SEED, penalties };
    BaseConfig { shape: base_shape(vocab), schedule }
}

/// How the demo's adapter is trained: as `poa train` does by itself.
pub fn lora_config() -> LoraConfig {
    LoraConfig::ordinary(CONTEXT, 1)
}

/// The samples' tokens, each with BOS and EOS.
pub fn tokens<'a>(tokenizer: &Tokenizer, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Vec<u32>>, TextError> {
    texts.into_iter().map(|text| tokenizer.encode_sample(text, CONTEXT)).collect()
}

/// Which queries are answered with exactly the expected word.
pub fn answered(model: &FloatModel, adapter: Option<&FloatAdapter>, tokenizer: &Tokenizer, queries: &[Query]) -> Result<Vec<bool>, DemoError> {
    let net = Net::new(model, adapter).map_err(TrainError::from)?;
    let mut right = Vec::with_capacity(queries.len());
    for query in queries {
        let answer = net.greedy(&tokenizer.encode(&query.prompt)?, 1, tokenizer.eos())?;
        right.push(tokenizer.decode(&answer).trim() == query.answer);
    }
    Ok(right)
}

/// Writes datanet, queries and README; the base model stays.
pub fn remake_texts(dir: &Path) -> Result<(), DemoError> {
    fs::create_dir_all(dir).map_err(|e| ImportError::io(dir, e))?;
    write_atomic(&dir.join(DATANET_FILE), datanet().to_jsonl().as_bytes())?;
    write_atomic(&dir.join(QUERIES_FILE), queries_jsonl(&queries()).as_bytes())?;
    Ok(write_atomic(&dir.join("README.md"), README.as_bytes())?)
}

/// Writes the demo: base model (trained here, a few minutes), tokenizer, datanet, queries and a README.
pub fn remake(dir: &Path, progress: impl FnMut(Progress)) -> Result<(), DemoError> {
    remake_texts(dir)?;
    let (corpus, datanet) = (base_corpus(SEED), datanet());
    let json = tokenizer_json(corpus.iter().map(String::as_str).chain(datanet.samples.iter().map(|s| s.text.as_str())));
    let base = dir.join(BASE_DIR);
    fs::create_dir_all(&base).map_err(|e| ImportError::io(&base, e))?;
    write_atomic(&base.join("tokenizer.json"), json.as_bytes())?;
    let special = json!({ "bos_token": SPECIALS[1], "eos_token": SPECIALS[2], "unk_token": SPECIALS[0] });
    write_atomic(&base.join("tokenizer_config.json"), format!("{special:#}\n").as_bytes())?;
    let tokenizer = Tokenizer::load(&base)?;
    let texts = tokens(&tokenizer, corpus.iter().map(String::as_str))?;
    let model = train_base(&texts, &base_config(tokenizer.vocab_size()), progress)?;
    Ok(export_hf(&base, &model, StoredType::Bf16, tokenizer.bos(), tokenizer.eos())?)
}

const README: &str = include_str!("README.md");

#[cfg(test)]
mod tests;
