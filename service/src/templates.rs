//! A chat becomes a prompt by the model's own template, as transformers renders it.
//!
//! Special tokens are the template's: they are marked in its source before it is rendered, so that what users write stays text, whatever it
//! spells. A template that puts special tokens together from parts can't be told from its users' words, and is refused.

use crate::chats::{Chat, Marked};
use crate::error::ApiError;
use jiff::fmt::strtime;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context, syntax::SyntaxConfig};
use minijinja_contrib::pycompat::unknown_method_callback;
use model_runtime::text::Tokenizer;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Steps that a rendering may take.
const FUEL: u64 = 2_000_000;
/// Most bytes of a prompt.
const PROMPT: usize = 4 << 20;
/// The template's name in messages.
const NAME: &str = "chat_template";

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// What it says.
    pub content: String,
}

/// A chat as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// As it's spelled.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// A model's chat template, ready to be rendered.
pub struct ChatTemplate {
    environment: Environment<'static>,
    marked: Marked,
    tokens: BTreeMap<String, String>,
}

/// Writes up to a number of bytes.
struct Capped {
    written: Vec<u8>,
    most: usize,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.len() + bytes.len() > self.most {
            return Err(io::Error::other(format!("the prompt is longer than {} bytes", self.most)));
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template calls to refuse a chat.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The date of today, in UTC.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    strtime::format(format, &now).map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}

/// `{% generation %}` marks the assistant's words for training, and changes nothing of a prompt.
fn without_generation(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + length + 2]);
        let inner = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        out += before;
        match inner {
            "generation" => out += &tag.replace("generation", "if true"),
            "endgeneration" => out += &tag.replace("endgeneration", "endif"),
            _ => out += tag,
        }
        rest = &rest[start + length + 2..];
    }
    out + rest
}

/// An error's own words, with the line.
fn told(error: &Error) -> String {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
    error.line().map_or(format!("{detail}{cause}"), |line| format!("{detail}{cause} (line {line} of the template)"))
}

impl ChatTemplate {
    /// Makes a template ready.
    ///
    /// # Errors
    ///
    /// Says why it can't be followed.
    pub fn new(chat: &Chat, tokenizer: &Tokenizer) -> Result<Self, String> {
        let marked = Marked::new(tokenizer)?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| e.to_string())?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        let source = marked.mark(&without_generation(&chat.template));
        environment.add_template_owned(NAME, source).map_err(|e| told(&e))?;
        let tokens = chat.tokens.iter().map(|(name, token)| (name.clone(), marked.mark(token))).collect();
        let template = Self { environment, marked, tokens };
        let first = [Message { role: "user".into(), content: "a".into() }];
        template.prompt(&first).map_err(|e| e.message)?;
        Ok(template)
    }

    fn rendered(&self, messages: &[Message]) -> Result<String, ApiError> {
        let mut capped = Capped { written: Vec::new(), most: PROMPT };
        let values = context! { messages => Serde(messages), add_generation_prompt => true, ..Serde(&self.tokens) };
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render_captured_to(values, &mut capped).map(|_| ()));
        rendered.map_err(|e| {
            let message = match e.kind() {
                ErrorKind::OutOfFuel => "the model's chat template takes too long with these messages".into(),
                _ => format!("the model's chat template refuses these messages: {}", told(&e)),
            };
            ApiError::parameter("messages", message)
        })?;
        String::from_utf8(capped.written).map_err(|_| ApiError::parameter("messages", "the model's chat template gives no text"))
    }

    /// A chat's prompt, ready for the assistant's answer.
    ///
    /// # Errors
    ///
    /// When the template refuses it, or takes too long.
    pub fn prompt(&self, messages: &[Message]) -> Result<Prompt, ApiError> {
        for (i, message) in messages.iter().enumerate() {
            if let Some(mark) = self.marked.find_mark(&message.content) {
                let message =
                    format!("messages[{i}].content has the private-use character U+{:X}, which stands for a special token here", mark as u32);
                return Err(ApiError::parameter("messages", message));
            }
        }
        // The template's own words: the same chat, with nothing said in it.
        let silent: Vec<Message> = messages.iter().map(|m| Message { role: m.role.clone(), content: "a".into() }).collect();
        if let Some(token) = self.marked.find_spelling(&self.rendered(&silent)?) {
            let message = format!("the model's chat template puts the special token {token} together from parts, which can't be followed safely");
            return Err(ApiError::parameter("messages", message));
        }
        let text = self.rendered(messages)?;
        let tokens = self.marked.encode(&text).map_err(|e| ApiError::parameter("messages", format!("the prompt can't be read: {e}")))?;
        Ok(Prompt { text: self.marked.spell(&text), tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_change_nothing() {
        let template = "{%- if a %}{%- generation -%}x{% endgeneration %}{% endif %}{{ generation }}";
        assert_eq!(without_generation(template), "{%- if a %}{%- if true -%}x{% endif %}{% endif %}{{ generation }}");
    }
}
