//! One interface to three tokenizers: Hugging Face `tokenizer.json`, SentencePiece `.model`, llama2.c `tok*.bin`.
//!
//! Sequences are always BOS followed by the text; what a file's own post-processor would add is ignored, and special tokens spelled
//! in a text are plain text. The original bytes are kept, so that a tokenizer can be stored beside whatever was made with it.

use super::pieces::Pieces;
use super::{TextError, llama2c, sentencepiece};
use crate::import::write_atomic;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Which format a tokenizer came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// `tokenizer.json`.
    HuggingFace,
    /// SentencePiece's `.model`.
    SentencePiece,
    /// llama2.c's `tok*.bin`.
    Llama2c,
}

impl TokenizerKind {
    /// The file name under which [`Tokenizer::save`] stores it.
    fn file_name(self) -> &'static str {
        match self {
            Self::HuggingFace => "tokenizer.json",
            Self::SentencePiece => "tokenizer.model",
            Self::Llama2c => "tokenizer.bin",
        }
    }

    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::HuggingFace),
            "model" => Some(Self::SentencePiece),
            "bin" => Some(Self::Llama2c),
            _ => None,
        }
    }
}

impl fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFace => "Hugging Face",
            Self::SentencePiece => "SentencePiece",
            Self::Llama2c => "llama2.c",
        })
    }
}

/// The kind and special tokens, stored beside the original bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tag {
    kind: TokenizerKind,
    bos: u32,
    eos: u32,
}

const TAG_FILE: &str = "tokenizer_kind.json";

enum Engine {
    HuggingFace(Box<tokenizers::Tokenizer>, BTreeMap<u32, String>),
    SentencePiece(sentencepiece::Model),
    Llama2c(Pieces),
}

/// A tokenizer with its BOS and EOS.
pub struct Tokenizer {
    engine: Engine,
    tag: Tag,
    source: Vec<u8>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Tokenizer({:?}, {} tokens)", self.tag, self.vocab_size())
    }
}

impl Tokenizer {
    /// Loads a tokenizer file, or the one in a directory (of a Hugging Face model, or made by [`Tokenizer::save`]).
    pub fn load(path: &Path) -> Result<Self, TextError> {
        if path.is_dir() && path.join(TAG_FILE).exists() {
            let tag = read_tag(&path.join(TAG_FILE))?;
            return Self::build(read(&path.join(tag.kind.file_name()))?, tag);
        }
        let file = if path.is_dir() { find_in(path)? } else { path.to_path_buf() };
        let kind = TokenizerKind::of(&file).ok_or_else(|| TextError::NoTokenizer { path: path.display().to_string() })?;
        let source = read(&file)?;
        let (bos, eos) = match kind {
            TokenizerKind::HuggingFace => special_ids(&parse_hf(&source)?, file.parent().unwrap_or(Path::new(".")))?,
            TokenizerKind::SentencePiece => parse_sentencepiece(&source).map(|m| (m.bos, m.eos))?,
            TokenizerKind::Llama2c => (1, 2),
        };
        Self::build(source, Tag { kind, bos, eos })
    }

    fn build(source: Vec<u8>, tag: Tag) -> Result<Self, TextError> {
        let engine = match tag.kind {
            TokenizerKind::HuggingFace => {
                let tokenizer = parse_hf(&source)?;
                let special = special_tokens(&tokenizer);
                Engine::HuggingFace(Box::new(tokenizer), special)
            }
            TokenizerKind::SentencePiece => Engine::SentencePiece(parse_sentencepiece(&source)?),
            TokenizerKind::Llama2c => Engine::Llama2c(llama2c::parse(&source).map_err(|reason| invalid(tag.kind, reason))?),
        };
        let tokenizer = Self { engine, tag, source };
        let size = tokenizer.vocab_size();
        match [tag.bos, tag.eos].into_iter().find(|&id| id as usize >= size) {
            Some(id) => Err(invalid(tag.kind, format!("expected BOS and EOS below {size}, found {id}"))),
            None => Ok(tokenizer),
        }
    }

    /// Stores the original file and its tag in a directory; [`Tokenizer::load`] reads it back.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        let written = |e: crate::import::ImportError| TextError::Io { path: dir.display().to_string(), source: std::io::Error::other(e) };
        let tag = serde_json::to_vec(&self.tag).map_err(|e| TextError::io(dir, e.into()))?;
        fs::create_dir_all(dir).map_err(|e| TextError::io(dir, e))?;
        write_atomic(&dir.join(self.tag.kind.file_name()), &self.source).map_err(written)?;
        write_atomic(&dir.join(TAG_FILE), &tag).map_err(written)
    }

    /// The tag as one line of JSON, then the original file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Tag { kind, bos, eos } = self.tag;
        // Serialising an enum without fields and two integers doesn't fail.
        let mut bytes = serde_json::json!({ "kind": kind, "bos": bos, "eos": eos }).to_string().into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.source);
        bytes
    }

    /// The inverse of [`Tokenizer::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        let no_tag = || TextError::NoTokenizer { path: "stored tokenizer".into() };
        let end = bytes.iter().take(256).position(|&b| b == b'\n').ok_or_else(no_tag)?;
        let tag = serde_json::from_slice(&bytes[..end]).map_err(|_| no_tag())?;
        Self::build(bytes[end + 1..].to_vec(), tag)
    }

    /// BOS, then the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = vec![self.tag.bos];
        match &self.engine {
            Engine::HuggingFace(t, _) => {
                let encoding = t.encode_fast(text, false).map_err(|e| TextError::Encode { reason: e.to_string() })?;
                ids.extend_from_slice(encoding.get_ids());
            }
            Engine::SentencePiece(model) => ids.extend(model.encode(text)),
            Engine::Llama2c(pieces) if text.is_empty() => ids.extend(pieces.encode("")),
            Engine::Llama2c(pieces) => ids.extend(pieces.encode(&format!(" {text}"))),
        }
        Ok(ids)
    }

    /// A training sample: BOS, the text, EOS, cut after `context` tokens.
    pub fn encode_sample(&self, text: &str, context: usize) -> Result<Vec<u32>, TextError> {
        let mut ids = self.encode(text)?;
        ids.push(self.tag.eos);
        ids.truncate(context);
        Ok(ids)
    }

    /// The text of tokens; special tokens give nothing, invalid UTF-8 gives replacement characters.
    pub fn decode(&self, ids: &[u32]) -> String {
        let text = |bytes: Vec<u8>, strip: bool| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            // Only the start of a whole sequence has a space that encoding put in.
            if strip && ids.first() == Some(&self.tag.bos) { text.strip_prefix(' ').map(str::to_string).unwrap_or(text) } else { text }
        };
        match &self.engine {
            Engine::HuggingFace(t, special) => {
                let plain: Vec<u32> = ids.iter().copied().filter(|id| !special.contains_key(id)).collect();
                t.decode(&plain, false).unwrap_or_default()
            }
            Engine::SentencePiece(model) => text(model.pieces.decode(ids), model.strips_prefix()),
            Engine::Llama2c(pieces) => text(pieces.decode(ids), true),
        }
    }

    /// An answer to be shown: [`Self::decode`] without surrounding space and without special tokens' names, which a model that learnt them as
    /// text spells in ordinary pieces.
    pub fn answer(&self, ids: &[u32]) -> String {
        let mut text = self.decode(ids);
        if let Engine::HuggingFace(_, special) = &self.engine {
            for name in special.values().filter(|name| !name.is_empty()) {
                text = text.replace(name, "");
            }
        }
        text.trim().to_owned()
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        match &self.engine {
            Engine::HuggingFace(t, _) => t.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1),
            Engine::SentencePiece(model) => model.pieces.decoded.len(),
            Engine::Llama2c(pieces) => pieces.decoded.len(),
        }
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> u32 {
        self.tag.bos
    }

    /// The end-of-sequence token.
    pub fn eos(&self) -> u32 {
        self.tag.eos
    }

    /// The format it came in.
    pub fn kind(&self) -> TokenizerKind {
        self.tag.kind
    }
}

fn invalid(kind: TokenizerKind, reason: impl ToString) -> TextError {
    TextError::Tokenizer { kind, reason: reason.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    fs::read(path).map_err(|e| TextError::io(path, e))
}

fn read_tag(path: &Path) -> Result<Tag, TextError> {
    serde_json::from_slice(&read(path)?).map_err(|e| TextError::io(path, e.into()))
}

fn parse_sentencepiece(bytes: &[u8]) -> Result<sentencepiece::Model, TextError> {
    sentencepiece::Model::parse(bytes).map_err(|reason| invalid(TokenizerKind::SentencePiece, reason))
}

fn parse_hf(bytes: &[u8]) -> Result<tokenizers::Tokenizer, TextError> {
    let failed = |e: tokenizers::Error| invalid(TokenizerKind::HuggingFace, e);
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(failed)?;
    tokenizer.with_truncation(None).map_err(failed)?;
    tokenizer.with_padding(None);
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

/// Special tokens by id. (The library's own filter compares spellings after normalisation and misses some.)
fn special_tokens(tokenizer: &tokenizers::Tokenizer) -> BTreeMap<u32, String> {
    tokenizer.get_added_tokens_decoder().iter().filter(|(_, token)| token.special).map(|(&id, token)| (id, token.content.clone())).collect()
}

/// The first tokenizer file of a directory: `tokenizer.json`, else the first `.model`, else the first `tok*.bin`, by name.
fn find_in(dir: &Path) -> Result<PathBuf, TextError> {
    let entries = fs::read_dir(dir).map_err(|e| TextError::io(dir, e))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    files.sort();
    let named = |f: &Path, test: fn(&str) -> bool| f.file_name().and_then(|n| n.to_str()).is_some_and(test);
    let wanted: [fn(&str) -> bool; 3] = [|n| n == "tokenizer.json", |n| n.ends_with(".model"), |n| n.starts_with("tok") && n.ends_with(".bin")];
    wanted
        .iter()
        .find_map(|test| files.iter().find(|f| named(f, *test)).cloned())
        .ok_or_else(|| TextError::NoTokenizer { path: dir.display().to_string() })
}

/// BOS and EOS of a Hugging Face tokenizer: by name in the files beside it, by id in the model's configuration, or by usual names.
fn special_ids(tokenizer: &tokenizers::Tokenizer, dir: &Path) -> Result<(u32, u32), TextError> {
    let json = |name: &str| fs::read(dir.join(name)).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
    let named = ["tokenizer_config.json", "special_tokens_map.json"].map(json);
    let numbered = ["generation_config.json", "config.json"].map(json);
    let find = |which: &'static str, key: &str, usual: &[&str]| {
        let by_name = named.iter().flatten().find_map(|file| token_name(file.get(key)?).and_then(|n| tokenizer.token_to_id(n)));
        let by_id = || numbered.iter().flatten().find_map(|file| token_id(file.get(format!("{key}_id"))?));
        let by_usual = || usual.iter().find_map(|name| tokenizer.token_to_id(name));
        let looked_in = "tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json, usual names";
        by_name.or_else(by_id).or_else(by_usual).ok_or(TextError::NoSpecial { which, looked_in: looked_in.into() })
    };
    let bos = find("BOS", "bos_token", &["<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"])?;
    Ok((bos, find("EOS", "eos_token", &["</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"])?))
}

/// `"<s>"` or `{ "content": "<s>" }`.
fn token_name(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// `2` or `[2, 3]`.
fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().or_else(|| value.get(0)?.as_u64()).and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
