//! One answer: decoded token by token, cut at what it should stop at, told as it grows.

use crate::catalog::Served;
use crate::decoder::{Ended, Order};
use crate::error::ApiError;
use crate::templates::{Message, Prompt};
use std::sync::Arc;
use steps::error::{Failure, While};

/// What is asked of a model.
#[derive(Clone, Debug)]
pub struct Question {
    /// The prompt.
    pub prompt: String,
    /// Its tokens, where they aren't just what the tokenizer reads in it.
    pub tokens: Option<Vec<u32>>,
    /// Most tokens of the answer; as many as there is room for without.
    pub max_tokens: Option<usize>,
    /// Whether fewer tokens will do where there is less room.
    pub cut_to_room: bool,
    /// Texts that end the answer and aren't part of it.
    pub stop: Vec<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a text did that should.
    Stop,
    /// There was no room for more.
    Length,
}

impl Finish {
    /// OpenAI's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Prompt and answer; an end-of-text token is no part of it.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// How many of those needn't be read, since an earlier prompt began with them.
    pub spared: usize,
    /// What is shown of it.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// Bytes that a token of a prompt has at most, on average: longer prompts aren't even read.
const TOKEN_BYTES: usize = 256;

/// The prompt of a chat: by the model's template, else its messages' texts line by line.
pub fn chat_prompt(served: &Served, messages: &[Message]) -> Result<(String, Option<Vec<u32>>), ApiError> {
    let bytes: usize = messages.iter().map(|m| m.content.len()).sum();
    match served.template() {
        // What is too long anyway isn't rendered.
        Some(template) if bytes <= TOKEN_BYTES * served.context() => template.prompt(messages).map(|Prompt { text, tokens }| (text, Some(tokens))),
        _ => Ok((messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n"), None)),
    }
}

/// Checks a question; returns the prompt's tokens and the room for an answer.
pub fn check(served: &Served, question: &Question) -> Result<(Vec<u32>, usize), ApiError> {
    let (tokenizer, bytes) = (&served.model().tokenizer, question.prompt.len());
    if bytes > TOKEN_BYTES * served.context() {
        let message =
            format!("the prompt has {bytes} bytes, more than {TOKEN_BYTES} for each of the {} tokens that the model reads", served.context());
        return Err(ApiError { code: "context_length_exceeded", ..ApiError::parameter("prompt", message) });
    }
    let tokens = match &question.tokens {
        Some(tokens) => tokens.clone(),
        None => tokenizer.encode(&question.prompt).map_err(|e| ApiError::parameter("prompt", format!("the prompt can't be read: {e}")))?,
    };
    let (context, len) = (served.context(), tokens.len());
    if len >= context {
        let message = format!("the prompt has {len} tokens, the model's context is {context} with the answer");
        return Err(ApiError { code: "context_length_exceeded", ..ApiError::parameter("prompt", message) });
    }
    let room = context - len;
    match question.max_tokens {
        Some(0) => Err(ApiError::parameter("max_tokens", "max_tokens is 0, expected at least 1")),
        Some(most) if most > room && !question.cut_to_room => {
            let message = format!("max_tokens is {most}, after a prompt of {len} tokens the context of {context} has room for {room}");
            Err(ApiError { code: "context_length_exceeded", ..ApiError::parameter("max_tokens", message) })
        }
        most => Ok((tokens, most.map_or(room, |most| most.min(room)))),
    }
}

/// How much of a growing text can be told: nothing that may become a stop, a broken character or space at the end.
fn tellable(text: &str, stop: &[String]) -> usize {
    let text = text.trim_end_matches('\u{fffd}').trim_end();
    let begun = |stop: &String| {
        (1..stop.len().min(text.len() + 1)).rev().filter(|&n| stop.is_char_boundary(n)).find(|&n| text.ends_with(&stop[..n])).unwrap_or(0)
    };
    let held = stop.iter().map(begun).max().unwrap_or(0);
    text.len() - held
}

/// An answer as it's told while it grows: cut at what it should stop at, its pieces told as soon as nothing can change them.
pub struct Telling {
    served: Arc<Served>,
    stop: Vec<String>,
    /// Gets every new piece of the text and says whether to go on.
    tell: Box<dyn FnMut(&str) -> bool + Send>,
    text: String,
    told: usize,
    stopped: bool,
    listens: bool,
}

impl Telling {
    /// Nothing said yet.
    pub fn new(served: &Arc<Served>, stop: Vec<String>, tell: impl FnMut(&str) -> bool + Send + 'static) -> Self {
        Self { served: served.clone(), stop, tell: Box::new(tell), text: String::new(), told: 0, stopped: false, listens: true }
    }

    /// Hears an answer's tokens so far; whether it goes on.
    pub fn hears(&mut self, answer: &[u32]) -> bool {
        let tokenizer = &self.served.model().tokenizer;
        if answer.last().is_some_and(|last| tokenizer.stops().contains(last)) {
            self.stopped = true;
            return false;
        }
        self.text = tokenizer.answer(answer);
        if let Some(end) = self.stop.iter().filter_map(|stop| self.text.find(stop.as_str())).min() {
            self.text.truncate(end);
            self.stopped = true;
        }
        let end = if self.stopped { self.text.len() } else { tellable(&self.text, &self.stop) };
        // Decoders may change what they said before; what was told stays.
        if let Some(piece) = self.text.get(self.told..end).filter(|piece| !piece.is_empty()) {
            self.listens = (self.tell)(piece);
            self.told = end;
        }
        self.listens && !self.stopped
    }

    /// Tells what was held back; the text and why it ended.
    fn end(mut self) -> Result<(String, Finish), Failure> {
        if !self.listens {
            return Err(Failure::stopped());
        }
        if let Some(rest) = self.text.get(self.told..).filter(|rest| !rest.is_empty()) {
            (self.tell)(rest);
        }
        Ok((self.text, if self.stopped { Finish::Stop } else { Finish::Length }))
    }
}

/// Answers a question that was checked, together with others; `tell` gets every new piece of the text and says whether to go on.
///
/// # Errors
///
/// When a value leaves the model's range, the answer is empty, or nobody listens any more.
pub async fn answer(
    served: &Arc<Served>,
    asker: i64,
    stop: Vec<String>,
    (prompt, room): (Vec<u32>, usize),
    tell: impl FnMut(&str) -> bool + Send + 'static,
) -> Result<Answer, Failure> {
    let telling = Telling::new(served, stop, tell);
    let order = Order { served: served.clone(), asker, prompt: prompt.clone(), room, telling };
    let Ended { telling, tokens, spared } = served.decoder().decode(order).await?;
    let mut new = tokens.during("answering")?;
    let (text, finish) = telling.end()?;
    served.model().tokenizer.without_end(&mut new, 1);
    if new.is_empty() {
        return Err(Failure::input("the model's answer is empty").hint("try another prompt"));
    }
    let prompt_len = prompt.len();
    Ok(Answer { tokens: [prompt, new].concat(), prompt_len, spared, text, finish })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_a_stop_is_held_back() {
        let stop = ["END".to_owned(), "\n\n".to_owned()];
        for (text, told) in [("a word ", 6), ("a word\u{fffd}", 6), ("the E", 4), ("the EN", 4), ("the ENTRY", 9), ("", 0)] {
            assert_eq!(tellable(text, &stop), told, "{text:?}");
        }
    }
}
