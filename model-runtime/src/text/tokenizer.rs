//! One interface to three tokenizers: Hugging Face `tokenizer.json`, SentencePiece `.model`, llama2.c `tok*.bin`.
//!
//! A text's ids are the reference library's. What stands before them is what the files say: a Hugging Face tokenizer's post-processor, unless
//! `tokenizer_config.json` has `add_bos_token`; BOS for the other two. Special tokens spelled in a text are those tokens in a Hugging Face
//! tokenizer (unless it has `split_special_tokens`), and plain text in the other two, as in their libraries. The original bytes are kept, so that a
//! tokenizer can be stored beside whatever was made with it.

use super::pieces::Pieces;
use super::special::{Settings, apply_settings};
use super::{TextError, llama2c, sentencepiece};
use crate::import::{EndIds, end_ids, is_lfs_pointer, write_atomic};
use serde::{Deserialize, Serialize};
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
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tag {
    kind: TokenizerKind,
    /// What a text that is written from nothing begins with.
    bos: u32,
    /// What a sample ends with.
    eos: u32,
    /// What ends an answer; `eos` alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stops: Option<Vec<u32>>,
    /// What stands before a text; `bos` alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<Vec<u32>>,
    /// Size of the model's vocabulary, where the tokenizer's is larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vocabulary: Option<usize>,
    /// Special tokens spelled in a text are plain text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    split_special: bool,
}

impl Tag {
    fn new(kind: TokenizerKind, bos: u32, eos: u32) -> Self {
        Self { kind, bos, eos, stops: None, prefix: None, vocabulary: None, split_special: false }
    }

    fn stops(&self) -> &[u32] {
        self.stops.as_deref().unwrap_or(std::slice::from_ref(&self.eos))
    }

    fn prefix(&self) -> &[u32] {
        self.prefix.as_deref().unwrap_or(std::slice::from_ref(&self.bos))
    }

    /// Lets the model's own ids end answers; samples end with the tokenizer's EOS where that is one of them.
    fn end_with(&mut self, stops: Vec<u32>) {
        if let Some(&first) = stops.first() {
            self.eos = if stops.contains(&self.eos) { self.eos } else { first };
            self.stops = Some(stops);
        }
    }
}

const TAG_FILE: &str = "tokenizer_kind.json";
/// Longest tag in bytes.
const MAX_TAG: usize = 1 << 16;

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
        let beside = file.parent().unwrap_or(Path::new("."));
        match kind {
            TokenizerKind::HuggingFace => Self::load_hf(source, beside),
            TokenizerKind::SentencePiece => {
                let (bos, eos) = parse_sentencepiece(&source).map(|m| (m.bos, m.eos))?;
                let mut tag = Tag::new(kind, bos, eos);
                let settings = Settings::read(beside)?;
                if settings.add_bos == Some(false) {
                    tag.prefix = Some(Vec::new());
                }
                tag.end_with(end_ids(beside)?.eos);
                Self::build(source, tag)
            }
            TokenizerKind::Llama2c => Self::build(source, Tag::new(kind, 1, 2)),
        }
    }

    fn load_hf(source: Vec<u8>, beside: &Path) -> Result<Self, TextError> {
        let (settings, ids) = (Settings::read(beside)?, end_ids(beside)?);
        let mut tokenizer = parse_hf(&source)?;
        let changed = apply_settings(&mut tokenizer, &settings)?;
        let source = if changed { tokenizer.to_string(false).map_err(|e| invalid(TokenizerKind::HuggingFace, e))?.into_bytes() } else { source };
        let bos = settings.bos(&tokenizer, &ids);
        let eos = settings.eos(&tokenizer, &ids)?;
        let prefix = settings.prefix(&tokenizer, bos)?;
        let mut tag = Tag::new(TokenizerKind::HuggingFace, bos.unwrap_or(eos), eos);
        tag.prefix = (prefix != [tag.bos]).then_some(prefix);
        tag.split_special = settings.split_special;
        tag.end_with(ids.eos);
        Self::build(source, tag)
    }

    /// Takes what the model's own files say: the ids that end its answers, and how large its vocabulary is. `model` is its directory or file.
    ///
    /// Tokens beyond the vocabulary that were added to the tokenizer (padding, for instance) are allowed; a text that spells one is refused.
    pub fn for_model(mut self, model: &Path, vocabulary: usize) -> Result<Self, TextError> {
        let EndIds { eos, .. } = if model.is_dir() { end_ids(model)? } else { EndIds::default() };
        self.tag.end_with(eos);
        if !model.is_dir() {
            // llama2.c separates texts by BOS, and its programs stop there.
            let (bos, eos) = (self.tag.bos, self.tag.eos);
            self.tag.end_with(vec![eos, bos]);
        }
        self.for_vocabulary(vocabulary)
    }

    /// The part of [`Tokenizer::for_model`] about the vocabulary.
    pub fn for_vocabulary(mut self, vocabulary: usize) -> Result<Self, TextError> {
        if self.vocab_size() > vocabulary {
            let size = self.vocab_size();
            if let Some((id, token)) = self.beyond(vocabulary) {
                return Err(TextError::Vocabulary { size, vocabulary, id, token });
            }
            self.tag.vocabulary = Some(vocabulary);
        }
        self.check_ids()?;
        Ok(self)
    }

    /// A token beyond a vocabulary that ordinary text may need.
    fn beyond(&self, vocabulary: usize) -> Option<(u32, String)> {
        match &self.engine {
            Engine::HuggingFace(t, _) => {
                let added = t.get_added_tokens_decoder();
                let ordinary = t.get_vocab(true).into_iter().filter(|(_, id)| *id as usize >= vocabulary && !added.contains_key(id));
                ordinary.map(|(token, id)| (id, token)).min()
            }
            _ => Some((vocabulary as u32, self.token(vocabulary as u32))),
        }
    }

    fn check_ids(&self) -> Result<(), TextError> {
        let size = self.tag.vocabulary.unwrap_or_else(|| self.vocab_size());
        let ids = [self.tag.bos, self.tag.eos].into_iter().chain(self.tag.prefix().iter().copied());
        match ids.chain(self.tag.stops().iter().copied()).find(|&id| id as usize >= size) {
            Some(id) => Err(invalid(self.tag.kind, format!("expected BOS and EOS below {size}, found {id}"))),
            None => Ok(()),
        }
    }

    fn build(source: Vec<u8>, tag: Tag) -> Result<Self, TextError> {
        let engine = match tag.kind {
            TokenizerKind::HuggingFace => {
                let mut tokenizer = parse_hf(&source)?;
                tokenizer.set_encode_special_tokens(tag.split_special);
                let special = special_tokens(&tokenizer);
                Engine::HuggingFace(Box::new(tokenizer), special)
            }
            TokenizerKind::SentencePiece => Engine::SentencePiece(parse_sentencepiece(&source)?),
            TokenizerKind::Llama2c => Engine::Llama2c(llama2c::parse(&source).map_err(|reason| invalid(tag.kind, reason))?),
        };
        let tokenizer = Self { engine, tag, source };
        tokenizer.check_ids()?;
        Ok(tokenizer)
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
        // Serialising numbers, lists of them and an enum without fields doesn't fail.
        let mut bytes = serde_json::to_vec(&self.tag).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.source);
        bytes
    }

    /// The inverse of [`Tokenizer::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        let no_tag = || TextError::NoTokenizer { path: "stored tokenizer".into() };
        let end = bytes.iter().take(MAX_TAG).position(|&b| b == b'\n').ok_or_else(no_tag)?;
        let tag = serde_json::from_slice(&bytes[..end]).map_err(|_| no_tag())?;
        Self::build(bytes[end + 1..].to_vec(), tag)
    }

    /// What the tokenizer puts before a text (BOS, as a rule), then the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = self.tag.prefix().to_vec();
        match &self.engine {
            Engine::HuggingFace(t, _) => {
                let encoding = t.encode_fast(text, false).map_err(|e| TextError::Encode { reason: e.to_string() })?;
                ids.extend_from_slice(encoding.get_ids());
            }
            Engine::SentencePiece(model) => ids.extend(model.encode(text)),
            Engine::Llama2c(pieces) if text.is_empty() => ids.extend(pieces.encode("")),
            Engine::Llama2c(pieces) => ids.extend(pieces.encode(&format!(" {text}"))),
        }
        match self.tag.vocabulary.and_then(|size| Some((size, *ids.iter().find(|&&id| id as usize >= size)?))) {
            Some((vocabulary, id)) => Err(TextError::Beyond { token: self.token(id), id, vocabulary }),
            None => Ok(ids),
        }
    }

    /// How a token is spelled.
    fn token(&self, id: u32) -> String {
        match &self.engine {
            Engine::HuggingFace(t, _) => t.id_to_token(id).unwrap_or_default(),
            _ => self.decode(&[id]),
        }
    }

    /// A training sample: [`Self::encode`], then EOS, cut after `context` tokens.
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

    /// What a text that is written from nothing begins with: the beginning-of-sequence token, else EOS, which separates texts.
    pub fn bos(&self) -> u32 {
        self.tag.bos
    }

    /// The end-of-sequence token: what a sample ends with.
    pub fn eos(&self) -> u32 {
        self.tag.eos
    }

    /// The tokens that end an answer.
    pub fn stops(&self) -> &[u32] {
        self.tag.stops()
    }

    /// Takes the tokens that end a text off its end, as long as `least` remain.
    ///
    /// Every text ends with the same one: as a predicted token it would weigh as much as a word, and say nothing of what the text says.
    pub fn without_end(&self, tokens: &mut Vec<u32>, least: usize) {
        while tokens.len() > least && tokens.last().is_some_and(|last| self.stops().contains(last)) {
            tokens.pop();
        }
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
    let bytes = fs::read(path).map_err(|e| TextError::io(path, e))?;
    if is_lfs_pointer(&bytes) { Err(TextError::LfsPointer { path: path.display().to_string() }) } else { Ok(bytes) }
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
    let named = |f: &Path, test: fn(&str) -> bool| f.file_name().and_then(|n| n.to_str()).is_some_and(|n| test(&n.to_ascii_lowercase()));
    let wanted: [fn(&str) -> bool; 3] = [|n| n == "tokenizer.json", |n| n.ends_with(".model"), |n| n.starts_with("tok") && n.ends_with(".bin")];
    wanted
        .iter()
        .find_map(|test| files.iter().find(|f| named(f, *test)).cloned())
        .ok_or_else(|| TextError::NoTokenizer { path: dir.display().to_string() })
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
