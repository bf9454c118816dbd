//! What the files beside a `tokenizer.json` say about it: which tokens are special, and what stands before a text.

use super::{TextError, TokenizerKind};
use crate::import::EndIds;
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer};

const CONFIG: &str = "tokenizer_config.json";

/// `tokenizer_config.json` and `special_tokens_map.json`.
#[derive(Default)]
pub(super) struct Settings {
    /// The files, the one that counts more first.
    files: Vec<Map<String, Value>>,
    /// `add_bos_token`, where it is said.
    pub(super) add_bos: Option<bool>,
    /// `split_special_tokens`.
    pub(super) split_special: bool,
}

fn read(path: &Path) -> Result<Option<Map<String, Value>>, TextError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|e| TextError::io(path, e))?;
    if crate::import::is_lfs_pointer(&bytes) {
        return Err(TextError::LfsPointer { path: path.display().to_string() });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| TextError::io(path, e.into()))
}

fn refuse(field: &str, expected: &str, found: &Value) -> TextError {
    TextError::Setting { file: CONFIG, field: field.into(), expected: expected.into(), found: found.to_string() }
}

impl Settings {
    /// Reads the files of a directory; missing ones say nothing.
    pub(super) fn read(dir: &Path) -> Result<Self, TextError> {
        let config = read(&dir.join(CONFIG))?;
        let flag = |field: &str| match config.as_ref().and_then(|c| c.get(field)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(refuse(field, "true or false", other)),
        };
        if flag("add_eos_token")? == Some(true) {
            let expected = "false: a prompt that ends with EOS has no continuation; samples get their EOS anyway";
            return Err(refuse("add_eos_token", expected, &Value::Bool(true)));
        }
        let (add_bos, split_special) = (flag("add_bos_token")?, flag("split_special_tokens")?.unwrap_or(false));
        let map = read(&dir.join("special_tokens_map.json"))?;
        Ok(Self { files: config.into_iter().chain(map).collect(), add_bos, split_special })
    }

    /// The spelling of a special token; `"<s>"` or `{ "content": "<s>" }`.
    fn name(&self, key: &str) -> Option<&str> {
        self.files.iter().filter_map(|file| file.get(key)).find_map(spelling)
    }

    fn find(&self, tokenizer: &Tokenizer, key: &str, id: Option<u32>, usual: &[&str]) -> Option<u32> {
        let named = self.name(key).and_then(|name| tokenizer.token_to_id(name));
        named.or(id).or_else(|| usual.iter().find_map(|name| tokenizer.token_to_id(name)))
    }

    /// BOS by name in the files, by id in the model's configuration, or by usual names.
    pub(super) fn bos(&self, tokenizer: &Tokenizer, ids: &EndIds) -> Option<u32> {
        self.find(tokenizer, "bos_token", ids.bos, &["<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"])
    }

    /// EOS, found likewise.
    pub(super) fn eos(&self, tokenizer: &Tokenizer, ids: &EndIds) -> Result<u32, TextError> {
        let id = ids.eos.first().copied();
        let looked_in = "tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json, usual names";
        let found = self.find(tokenizer, "eos_token", id, &["</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"]);
        found.ok_or(TextError::NoSpecial { which: "EOS", looked_in: looked_in.into() })
    }

    /// What stands before a text: BOS or nothing where `add_bos_token` says so, else what the post-processor puts there.
    pub(super) fn prefix(&self, tokenizer: &Tokenizer, bos: Option<u32>) -> Result<Vec<u32>, TextError> {
        let looked_in = "tokenizer_config.json, which says add_bos_token";
        let added = post_processed(tokenizer)?;
        Ok(match self.add_bos {
            Some(true) => vec![bos.ok_or(TextError::NoSpecial { which: "BOS", looked_in: looked_in.into() })?],
            Some(false) => Vec::new(),
            None => added,
        })
    }
}

/// What a post-processor puts before a text; one that puts something behind is refused.
fn post_processed(tokenizer: &Tokenizer) -> Result<Vec<u32>, TextError> {
    let failed = |e: tokenizers::Error| TextError::Encode { reason: e.to_string() };
    let encoding = tokenizer.encode_fast("a", true).map_err(failed)?;
    let (ids, mask) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let before = mask.iter().take_while(|&&m| m == 1).count();
    match mask.iter().zip(ids).skip(before).find(|(m, _)| **m == 1) {
        Some((_, id)) => Err(TextError::Tokenizer {
            kind: TokenizerKind::HuggingFace,
            reason: format!(
                "its post_processor puts `{}` behind a text, which leaves a prompt without a continuation; expected special tokens before it only",
                tokenizer.id_to_token(*id).unwrap_or_default()
            ),
        }),
        None => Ok(ids[..before].to_vec()),
    }
}

fn spelling(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// Adds the special tokens that the files name and `tokenizer.json` lacks, as transformers does; whether there were any.
pub(super) fn apply_settings(tokenizer: &mut Tokenizer, settings: &Settings) -> Result<bool, TextError> {
    check_prefix_space(tokenizer, settings)?;
    let mut changed = false;
    for (id, token) in settings.declared() {
        let known = |(known, added): (&u32, &AddedToken)| added.content == token.content && id.is_none_or(|id| id == *known);
        if tokenizer.get_added_tokens_decoder().iter().any(known) {
            continue;
        }
        let next = tokenizer.get_vocab(true).values().max().map_or(0, |&id| id + 1);
        let found = tokenizer.token_to_id(&token.content).unwrap_or(next);
        if let Some(id) = id.filter(|&id| id != found) {
            let field = format!("added_tokens_decoder.{id}");
            return Err(refuse(&field, &format!("`{}` as token {found} of tokenizer.json has it", token.content), &Value::from(id)));
        }
        tokenizer.add_tokens([token]).map_err(|e| TextError::Encode { reason: e.to_string() })?;
        changed = true;
    }
    Ok(changed)
}

impl Settings {
    /// Tokens that the files declare, those with an id first, by id.
    fn declared(&self) -> Vec<(Option<u32>, AddedToken)> {
        const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
        let config = self.files.first();
        let mut tokens = Vec::new();
        let decoder = config.and_then(|c| c.get("added_tokens_decoder")).and_then(Value::as_object);
        for (id, value) in decoder.into_iter().flatten() {
            if let (Ok(id), Some(token)) = (id.parse::<u32>(), added_token(value)) {
                tokens.push((Some(id), token));
            }
        }
        tokens.sort_by_key(|(id, _)| *id);
        tokens.extend(NAMED.iter().filter_map(|key| Some((None, AddedToken::from(self.name(key)?, true)))));
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let listed = self.files.iter().filter_map(|file| file.get(key)).find(|v| !v.is_null());
            let values: Vec<&Value> = match listed {
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(map)) => map.values().collect(),
                _ => Vec::new(),
            };
            tokens.extend(values.into_iter().filter_map(|v| Some((None, AddedToken::from(spelling(v)?, true)))));
        }
        tokens
    }
}

/// An entry of `added_tokens_decoder`.
fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let token = AddedToken::from(spelling(value)?, flag("special").unwrap_or(false));
    let token = token.single_word(flag("single_word").unwrap_or(false)).lstrip(flag("lstrip").unwrap_or(false));
    let normalized = flag("normalized").unwrap_or(!token.special);
    Some(token.rstrip(flag("rstrip").unwrap_or(false)).normalized(normalized))
}

/// `add_prefix_space` is said twice, here and in `tokenizer.json`; the two must agree.
fn check_prefix_space(tokenizer: &Tokenizer, settings: &Settings) -> Result<(), TextError> {
    const FIELD: &str = "add_prefix_space";
    let Some(said) = settings.files.first().and_then(|c| c.get(FIELD)).filter(|v| v.is_boolean()) else { return Ok(()) };
    let json = tokenizer.get_pre_tokenizer().and_then(|p| serde_json::to_value(p).ok()).unwrap_or_default();
    match find_key(&json, FIELD).filter(|v| *v != said) {
        Some(other) => Err(refuse(FIELD, &format!("{other}, as tokenizer.json has it"), said)),
        None => Ok(()),
    }
}

/// The first value under a key, anywhere inside.
fn find_key<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find_key(v, key))),
        Value::Array(list) => list.iter().find_map(|v| find_key(v, key)),
        _ => None,
    }
}
