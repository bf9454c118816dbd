//! A model's chat template as its files have it, and texts in which special tokens are marked: a template writes them, whoever chats can't.
//!
//! In a marked text a special token is one character of a private-use plane. Everything else is plain text, whatever it spells.

use model_runtime::text::{Tokenizer, TokenizerKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use steps::error::{Failure, While};
use steps::store::{read_json, write_json};
use tokenizers::AddedToken;

/// A template beside the other files, which counts more than the one in [`CONFIG`].
const FILE: &str = "chat_template.jinja";
const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
/// What it is called in a model's directory.
const KEPT: &str = "chat.json";
/// Special tokens that templates call by name.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Most bytes of a template.
const MOST: usize = 1 << 18;
/// The first mark; as many follow as there are special tokens.
const MARKS: u32 = 0x10_0000;

/// A model's chat template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// In Jinja.
    pub template: String,
    /// Special tokens that it calls by name, such as `bos_token`.
    pub tokens: BTreeMap<String, String>,
}

impl Chat {
    /// Reads the one of a Hugging Face directory; nothing where there is none.
    ///
    /// # Errors
    ///
    /// When it's there and can't be read, or there are several and none is the default.
    pub fn read(dir: &Path) -> Result<Option<Self>, Failure> {
        let object = |name: &str| Some(dir.join(name)).filter(|path| path.exists()).map(|path| read_json::<Map<String, Value>>(&path)).transpose();
        let (config, map, file) = (object(CONFIG)?.unwrap_or_default(), object(MAP)?.unwrap_or_default(), dir.join(FILE));
        let template = if file.exists() {
            Some(fs::read_to_string(&file).during_path("reading", &file)?)
        } else {
            config.get("chat_template").filter(|value| !value.is_null()).map(default_template).transpose()?
        };
        let Some(template) = template else { return Ok(None) };
        if template.len() > MOST {
            return Err(refused(format!("at most {MOST} bytes"), format!("{} bytes", template.len())));
        }
        let spelling = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
        let token = |name: &&str| [&config, &map].into_iter().filter_map(|file| file.get(*name)).find_map(spelling);
        let tokens = NAMED.iter().filter_map(|name| Some(((*name).to_owned(), token(name)?))).collect();
        Ok(Some(Self { template, tokens }))
    }

    /// Reads the one that was kept in a model's directory.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn load(model: &Path) -> Result<Option<Self>, Failure> {
        Some(model.join(KEPT)).filter(|path| path.exists()).map(|path| read_json(&path)).transpose()
    }

    /// Keeps it in a model's directory; nothing that is proven depends on it.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn save(&self, model: &Path) -> Result<(), Failure> {
        write_json(&model.join(KEPT), self)
    }
}

fn refused(expected: String, found: String) -> Failure {
    Failure::input(format!("{CONFIG}: `chat_template`: expected {expected}, found {found}"))
}

/// The template, or the default one of several.
fn default_template(value: &Value) -> Result<String, Failure> {
    let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
    let one = match value {
        Value::Array(list) => list.iter().find(named).and_then(|entry| entry.get("template")),
        one => Some(one),
    };
    let text = one.and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| refused("a template, or a list in which one is called default".into(), value.to_string().chars().take(100).collect()))
}

/// A tokenizer of marked texts.
pub struct Marked {
    engine: tokenizers::Tokenizer,
    /// Spellings of special tokens, the longest first, with their marks.
    marks: Vec<(String, char)>,
    /// Which token a mark's is.
    tokens: BTreeMap<u32, u32>,
    vocabulary: usize,
}

/// What a stored tokenizer says of its model.
#[derive(Deserialize)]
struct Tag {
    vocabulary: Option<usize>,
}

impl Marked {
    /// A tokenizer of texts in which another one's special tokens are marked.
    ///
    /// # Errors
    ///
    /// When that isn't a Hugging Face tokenizer.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, String> {
        if tokenizer.kind() != TokenizerKind::HuggingFace {
            return Err(format!("chat templates are followed with a tokenizer.json, and this tokenizer is {}'s", tokenizer.kind()));
        }
        let stored = tokenizer.to_bytes();
        let end = stored.iter().position(|&b| b == b'\n').unwrap_or(stored.len());
        let (tag, source) = stored.split_at(end);
        let tag: Tag = serde_json::from_slice(tag).map_err(|e| e.to_string())?;
        let mut engine = tokenizers::Tokenizer::from_bytes(source).map_err(|e| e.to_string())?;
        engine.with_truncation(None).map_err(|e| e.to_string())?;
        engine.with_padding(None);
        engine.set_encode_special_tokens(true);
        let (mut marks, mut tokens) = (Vec::new(), BTreeMap::new());
        let added: BTreeMap<u32, AddedToken> = engine.get_added_tokens_decoder().into_iter().collect();
        let special = added.iter().filter(|(_, token)| token.special && !token.content.is_empty());
        for (mark, (&id, like)) in (MARKS..).filter_map(char::from_u32).zip(special) {
            let token = AddedToken { content: mark.into(), special: false, ..like.clone() };
            engine.add_tokens([token]).map_err(|e| e.to_string())?;
            let of_mark = engine.token_to_id(&mark.to_string()).ok_or_else(|| format!("the tokenizer takes no mark for {}", like.content))?;
            tokens.insert(of_mark, id);
            marks.push((like.content.clone(), mark));
        }
        marks.sort_by_key(|(spelling, _)| std::cmp::Reverse(spelling.len()));
        Ok(Self { engine, marks, tokens, vocabulary: tag.vocabulary.unwrap_or(usize::MAX) })
    }

    /// A text of our own, its special tokens marked.
    pub fn mark(&self, text: &str) -> String {
        self.marks.iter().fold(text.to_owned(), |text, (spelling, mark)| text.replace(spelling.as_str(), &mark.to_string()))
    }

    /// A marked text as it is spelled.
    pub fn spell(&self, text: &str) -> String {
        self.marks.iter().fold(text.to_owned(), |text, (spelling, mark)| text.replace(*mark, spelling))
    }

    /// A mark in a text.
    pub fn find_mark(&self, text: &str) -> Option<char> {
        text.chars().find(|c| self.marks.iter().any(|(_, mark)| mark == c))
    }

    /// A special token that a text spells.
    pub fn find_spelling(&self, text: &str) -> Option<&str> {
        self.marks.iter().map(|(spelling, _)| spelling.as_str()).find(|spelling| text.contains(spelling))
    }

    /// A marked text's tokens; nothing is put before them.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses it, or a token is beyond the model's vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.engine.encode_fast(text, false).map_err(|e| e.to_string())?;
        let ids: Vec<u32> = encoding.get_ids().iter().map(|id| *self.tokens.get(id).unwrap_or(id)).collect();
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(&id) => Err(format!("token {id} is beyond the model's vocabulary of {}", self.vocabulary)),
            None => Ok(ids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn templates_are_found_where_transformers_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Chat::read(dir.path()).unwrap(), None);
        let config = |template: Value| {
            let config = json!({ "bos_token": "<s>", "eos_token": { "content": "</s>" }, "chat_template": template });
            write(dir.path(), CONFIG, &config.to_string());
            Chat::read(dir.path())
        };
        let one = config(json!("{{ messages }}")).unwrap().unwrap();
        assert_eq!((one.template.as_str(), one.tokens["bos_token"].as_str(), one.tokens["eos_token"].as_str()), ("{{ messages }}", "<s>", "</s>"));
        let several = json!([{ "name": "rag", "template": "a" }, { "name": "default", "template": "b" }]);
        assert_eq!(config(several).unwrap().unwrap().template, "b");
        assert!(config(json!([{ "name": "rag", "template": "a" }])).is_err() && config(json!(3)).is_err());
        assert!(config(json!("x".repeat(MOST + 1))).is_err());
        write(dir.path(), FILE, "c");
        assert_eq!(config(json!("a")).unwrap().unwrap().template, "c");
    }
}
