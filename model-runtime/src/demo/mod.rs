//! The demo: a small base model, a datanet with planted facts, and held-out queries, all made by this code from its own text patterns.
//!
//! [`remake`] writes everything; `cargo run --release -p model-runtime --example remake_demo` calls it.

mod corpus;
mod facts;

pub use corpus::base_corpus;

use crate::import::{ImportError, StoredType, export_hf, write_atomic};
use crate::shape::{FloatAdapter, FloatModel, ModelShape, Site};
use crate::text::{Datanet, Sample, TextError, Tokenizer};
use crate::train::{BaseConfig, LoraConfig, Net, Penalties, Progress, Schedule, TrainError, train_base};
use facts::TOPICS;
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
}

/// Calls `visit` with contributor, phrasing, entity, answer and whether the phrasing is held out for this fact.
fn each_statement(mut visit: impl FnMut(&str, &str, &str, &str, bool)) {
    for topic in &TOPICS {
        for (r, relation) in topic.relations.iter().enumerate() {
            for (f, (entity, answer)) in topic.entities.iter().zip(&relation.answers).enumerate() {
                for (p, phrasing) in relation.phrasings.iter().enumerate() {
                    visit(topic.contributor, phrasing, entity, answer, p == (f + r) % 4);
                }
            }
        }
    }
}

/// The datanet: 240 samples of 10 contributors; each fact is stated three times, by one contributor.
pub fn datanet() -> Datanet {
    let mut samples = Vec::new();
    each_statement(|contributor, phrasing, entity, answer, held_out| {
        if !held_out {
            let text = phrasing.replace("{e}", entity).replace("{a}", answer);
            samples.push(Sample { contributor: contributor.into(), text });
        }
    });
    Datanet { samples }
}

/// The held-out queries: one a fact, in the phrasing its samples leave out.
pub fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    each_statement(|contributor, phrasing, entity, answer, held_out| {
        if held_out {
            let prompt = phrasing.split("{a}").next().unwrap_or("").trim_end().replace("{e}", entity);
            queries.push(Query { contributor: contributor.into(), prompt, answer: answer.into() });
        }
    });
    queries
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
    let line = |q: &Query| json!({ "contributor": q.contributor, "prompt": q.prompt, "answer": q.answer }).to_string() + "\n";
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

/// How the demo's adapter is trained: rank 8 on every site. The high rate matters: slower training memorises whole sentences
/// and answers fewer held-out phrasings. The penalties keep the integer scores in the order of the float ones.
pub fn lora_config() -> LoraConfig {
    let penalties = Penalties { floor: 0.2, stream: 0.03, ..Penalties::default() };
    let schedule = Schedule { epochs: 60, batch: 32, learning_rate: 1.5e-2, warmup: 0.1, weight_decay: 0.1, seed: SEED, penalties };
    LoraConfig { rank: 8, alpha: 16.0, sites: Site::ALL.to_vec(), context: CONTEXT, schedule }
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

/// Writes the demo: base model (trained here, a few minutes), tokenizer, datanet, queries and a README.
pub fn remake(dir: &Path, progress: impl FnMut(Progress)) -> Result<(), DemoError> {
    let (corpus, datanet) = (base_corpus(SEED), datanet());
    let json = tokenizer_json(corpus.iter().map(String::as_str).chain(datanet.samples.iter().map(|s| s.text.as_str())));
    let base = dir.join(BASE_DIR);
    fs::create_dir_all(&base).map_err(|e| ImportError::io(&base, e))?;
    write_atomic(&base.join("tokenizer.json"), json.as_bytes())?;
    let special = json!({ "bos_token": SPECIALS[1], "eos_token": SPECIALS[2], "unk_token": SPECIALS[0] });
    write_atomic(&base.join("tokenizer_config.json"), format!("{special:#}\n").as_bytes())?;
    write_atomic(&dir.join(DATANET_FILE), datanet.to_jsonl().as_bytes())?;
    write_atomic(&dir.join(QUERIES_FILE), queries_jsonl(&queries()).as_bytes())?;
    write_atomic(&dir.join("README.md"), README.as_bytes())?;
    let tokenizer = Tokenizer::load(&base)?;
    let texts = tokens(&tokenizer, corpus.iter().map(String::as_str))?;
    let model = train_base(&texts, &base_config(tokenizer.vocab_size()), progress)?;
    Ok(export_hf(&base, &model, StoredType::Bf16, tokenizer.bos(), tokenizer.eos())?)
}

const README: &str = include_str!("README.md");

#[cfg(test)]
mod tests;
