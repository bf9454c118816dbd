//! OpenAI's shapes: completions and chat completions, whole or as a stream of events.
//!
//! What a call says is honoured or refused by name. Answers are greedy, since only those can be proven.

use crate::answers::{Answer, Finish, Question, answer, chat_prompt, check};
use crate::catalog::Served;
use crate::database::now;
use crate::error::ApiError;
use crate::keys::Caller;
use crate::requests;
use crate::server::Service;
use crate::templates::Message;
use axum::Json;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Which of the two shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `/v1/completions`.
    Text,
    /// `/v1/chat/completions`.
    Chat,
}

/// Most texts that may end an answer, as OpenAI has it.
const STOPS: usize = 4;
/// Events of a stream beside the answer's pieces.
const OTHER_EVENTS: usize = 4;
/// Characters of a refused value that are said back.
const QUOTED: usize = 100;

/// What a model is asked with.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A text to go on with.
    Text(String),
    /// A chat.
    Chat(Vec<Message>),
}

/// A call as it was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The model's name.
    pub model: String,
    /// The prompt.
    pub prompt: Asked,
    /// Most tokens of the answer.
    pub max_tokens: Option<usize>,
    /// Whether that number gives way where there is less room: OpenAI's default does, what was asked for doesn't.
    pub cut_to_room: bool,
    /// What ends it.
    pub stop: Vec<String>,
    /// Whether it comes as a stream.
    pub stream: bool,
    /// Whether the stream ends with counts.
    pub include_usage: bool,
}

/// A value, as far as it's short.
fn quoted(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= QUOTED { text } else { text.chars().take(QUOTED).chain(['…']).collect() }
}

fn text(value: &Value, name: &str) -> Result<String, ApiError> {
    value.as_str().map(str::to_owned).ok_or_else(|| ApiError::parameter(name, format!("{name}: expected a text, found {}", quoted(value))))
}

/// A chat's messages.
fn chat(messages: &Value) -> Result<Vec<Message>, ApiError> {
    let wrong = |what: String| ApiError::parameter("messages", what);
    let list = messages.as_array().filter(|list| !list.is_empty()).ok_or_else(|| wrong("messages: expected at least one".into()))?;
    let content = |(i, message): (usize, &Value)| {
        let message = message.as_object().ok_or_else(|| wrong(format!("messages[{i}]: expected an object")))?;
        if let Some(other) = message.keys().find(|key| !["role", "content"].contains(&key.as_str())) {
            return Err(wrong(format!("messages[{i}].{other} isn't supported")));
        }
        let role = message.get("role").and_then(Value::as_str).filter(|role| ["system", "developer", "user", "assistant"].contains(role));
        let role = role.ok_or_else(|| wrong(format!("messages[{i}].role: expected system, developer, user or assistant")))?;
        let content = match message.get("content") {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Array(parts)) => {
                parts.iter().map(|part| part_text(part).ok_or_else(|| wrong(format!("messages[{i}].content: expected parts of type text")))).collect()
            }
            _ => Err(wrong(format!("messages[{i}].content: expected a text"))),
        }?;
        Ok(Message { role: role.to_owned(), content })
    };
    list.iter().enumerate().map(content).collect()
}

fn part_text(part: &Value) -> Option<String> {
    (part.get("type")?.as_str()? == "text").then(|| part.get("text")?.as_str().map(str::to_owned))?
}

impl Call {
    /// Reads a call.
    ///
    /// # Errors
    ///
    /// Names what isn't understood, or can't be honoured.
    pub fn read(shape: Shape, body: &Map<String, Value>) -> Result<Self, ApiError> {
        let (model, prompt, stop) = (String::new(), Asked::Text(String::new()), vec![]);
        let mut call = Self { model, prompt, max_tokens: None, cut_to_room: false, stop, stream: false, include_usage: false };
        let (mut has_model, mut has_prompt) = (false, false);
        for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
            let refused = |why: &str| Err(ApiError::parameter(name, format!("{name} {why}, found {}", quoted(value))));
            let neutral = |value: &Value, than: f64| value.as_f64() == Some(than);
            match (name.as_str(), shape) {
                ("model", _) => (call.model, has_model) = (text(value, name)?, true),
                ("prompt", Shape::Text) => (call.prompt, has_prompt) = (Asked::Text(text(value, name)?), true),
                ("messages", Shape::Chat) => (call.prompt, has_prompt) = (Asked::Chat(chat(value)?), true),
                ("max_tokens", _) | ("max_completion_tokens", Shape::Chat) => match value.as_u64() {
                    Some(most) => call.max_tokens = Some(usize::try_from(most).unwrap_or(usize::MAX)),
                    None => return refused("must be a whole number"),
                },
                ("stop", _) => {
                    let list = value.as_array().map_or_else(|| vec![value.clone()], Clone::clone);
                    call.stop = list.iter().map(|stop| text(stop, name)).collect::<Result<_, _>>()?;
                    if call.stop.len() > STOPS || call.stop.iter().any(String::is_empty) {
                        return refused("must be up to 4 texts that aren't empty");
                    }
                }
                ("stream", _) => match value.as_bool() {
                    Some(stream) => call.stream = stream,
                    None => return refused("must be true or false"),
                },
                ("stream_options", _) => {
                    let options = value.as_object().filter(|options| options.keys().all(|key| key == "include_usage"));
                    match options.map(|options| options.get("include_usage").and_then(Value::as_bool).unwrap_or(false)) {
                        Some(include) => call.include_usage = include,
                        None => return refused("has include_usage and nothing else"),
                    }
                }
                ("temperature", _) if neutral(value, 0.0) => {}
                ("temperature", _) => return refused("must be 0: answers are greedy, so that they can be proven"),
                ("top_p" | "n" | "best_of", _) if neutral(value, 1.0) => {}
                ("presence_penalty" | "frequency_penalty", _) if neutral(value, 0.0) => {}
                // The same answer comes whatever the seed, which is what a seed is for.
                ("seed", _) => {}
                ("echo" | "logprobs", _) if *value == json!(false) => {}
                _ => return refused("isn't supported"),
            }
        }
        let missing = |name: &str| ApiError::parameter(name, format!("{name} is missing"));
        if !has_model {
            return Err(missing("model"));
        }
        if !has_prompt {
            return Err(missing(if shape == Shape::Text { "prompt" } else { "messages" }));
        }
        if shape == Shape::Text && call.max_tokens.is_none() {
            // OpenAI's default.
            (call.max_tokens, call.cut_to_room) = (Some(16), true);
        }
        Ok(call)
    }
}

/// What every answer of one call says of itself.
#[derive(Clone)]
struct Head {
    shape: Shape,
    id: String,
    created: i64,
    served: Arc<Served>,
}

impl Head {
    fn object(&self, stream: bool) -> &'static str {
        match (self.shape, stream) {
            (Shape::Text, _) => "text_completion",
            (Shape::Chat, false) => "chat.completion",
            (Shape::Chat, true) => "chat.completion.chunk",
        }
    }

    fn whole(&self, request: &str, answer: &Answer) -> Value {
        let reason = answer.finish.name();
        let choice = match self.shape {
            Shape::Text => json!({ "index": 0, "text": answer.text, "logprobs": null, "finish_reason": reason }),
            Shape::Chat => {
                json!({ "index": 0, "message": { "role": "assistant", "content": answer.text, "refusal": null }, "logprobs": null, "finish_reason": reason })
            }
        };
        let mut value = self.head(false);
        value["choices"] = json!([choice]);
        value["usage"] = usage(answer);
        value["poa"] = self.ours(request);
        value
    }

    fn head(&self, stream: bool) -> Value {
        json!({ "id": self.id, "object": self.object(stream), "created": self.created, "model": self.served.id })
    }

    /// Which commitments answered, and what to ask for attribution and proof.
    fn ours(&self, request: &str) -> Value {
        json!({ "request": request, "generation": self.served.generation })
    }

    fn piece(&self, text: Option<&str>, first: bool, finish: Option<Finish>) -> Value {
        let reason = finish.map(Finish::name);
        let choice = match self.shape {
            Shape::Text => json!({ "index": 0, "text": text.unwrap_or(""), "logprobs": null, "finish_reason": reason }),
            Shape::Chat => {
                let mut delta = Map::new();
                if first {
                    delta.insert("role".into(), json!("assistant"));
                }
                text.into_iter().for_each(|text| {
                    delta.insert("content".into(), json!(text));
                });
                json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason })
            }
        };
        let mut value = self.head(true);
        value["choices"] = json!([choice]);
        value
    }
}

fn usage(answer: &Answer) -> Value {
    let (prompt, all) = (answer.prompt_len, answer.tokens.len());
    json!({ "prompt_tokens": prompt, "completion_tokens": all - prompt, "total_tokens": all,
            "prompt_tokens_details": { "cached_tokens": answer.spared } })
}

/// The model of that name, read if it isn't in memory.
pub async fn model(service: &Arc<Service>, name: &str) -> Result<Arc<Served>, ApiError> {
    let (service, name) = (service.clone(), name.to_owned());
    tokio::task::spawn_blocking(move || service.catalog.get(&name)).await?
}

/// Reads a question's prompt; returns its tokens and the room for an answer.
async fn checked(service: &Service, served: &Arc<Served>, question: &Question) -> Result<(Vec<u32>, usize), ApiError> {
    // Long prompts take a while to be read.
    let permit = service.prompt_permit().await?;
    let (served, question) = (served.clone(), question.clone());
    let work = move || {
        let _permit = permit;
        check(&served, &question)
    };
    tokio::task::spawn_blocking(work).await?
}

/// Keeps an answer; returns the request's id with it.
async fn kept(service: Arc<Service>, caller: Caller, served: Arc<Served>, prompt: String, answer: Answer) -> Result<(String, Answer), ApiError> {
    let keep = move || Ok((requests::keep(&service.database, caller, &served, &prompt, &answer)?, answer));
    tokio::task::spawn_blocking(keep).await?
}

/// Answers a question and keeps it; returns the request's id with the answer.
pub async fn ask(service: &Arc<Service>, caller: Caller, served: &Arc<Served>, question: Question) -> Result<(String, Answer), ApiError> {
    let _place = service.place()?;
    let read = checked(service, served, &question).await?;
    let of = service.clone();
    let answer = answer(served, caller.key, question.stop, read, move |_| of.goes_on()).await?;
    kept(service.clone(), caller, served.clone(), question.prompt, answer).await
}

/// What a model reads: a text and, where that says not all of it, its tokens.
pub async fn prompt(service: &Service, served: &Arc<Served>, asked: Asked) -> Result<(String, Option<Vec<u32>>), ApiError> {
    match asked {
        Asked::Text(text) => Ok((text, None)),
        Asked::Chat(messages) => {
            // A template may take a while, and who wrote the messages has a say in how long.
            let (permit, served) = (service.prompt_permit().await?, served.clone());
            let work = move || {
                let _permit = permit;
                chat_prompt(&served, &messages)
            };
            tokio::task::spawn_blocking(work).await?
        }
    }
}

/// Answers a call.
pub async fn complete(service: Arc<Service>, caller: Caller, shape: Shape, body: Map<String, Value>) -> Result<Response, ApiError> {
    let call = Call::read(shape, &body)?;
    let served = model(&service, &call.model).await?;
    let (prompt, tokens) = prompt(&service, &served, call.prompt).await?;
    let question = Question { prompt, tokens, max_tokens: call.max_tokens, cut_to_room: call.cut_to_room, stop: call.stop };
    let prefix = if shape == Shape::Text { "cmpl" } else { "chatcmpl" };
    let id = format!("{prefix}-{}", &crate::database::hex(&crate::database::random()?)[..24]);
    let head = Head { shape, id, created: now(), served: served.clone() };
    if !call.stream {
        let (request, answer) = ask(&service, caller, &served, question).await?;
        return Ok(Json(head.whole(&request, &answer)).into_response());
    }
    let place = service.place()?;
    // What is refused is refused before the stream begins.
    let read = checked(&service, &served, &question).await?;
    // Room for all of it: a reader who doesn't read holds nobody up.
    let (send, receive) = mpsc::channel::<Result<Event, Infallible>>(read.1 + OTHER_EVENTS);
    let include_usage = call.include_usage;
    tokio::spawn(async move {
        let _place = place;
        // A reader who is gone ends the answer.
        let say = {
            let send = send.clone();
            move |value: &Value| send.try_send(Ok(Event::default().data(value.to_string()))).is_ok()
        };
        let first = Arc::new(AtomicBool::new(true));
        let tell = {
            let (say, head, first, service) = (say.clone(), head.clone(), first.clone(), service.clone());
            move |piece: &str| say(&head.piece(Some(piece), first.swap(false, Ordering::Relaxed), None)) && service.goes_on()
        };
        let answered = async {
            let answer = answer(&served, caller.key, question.stop, read, tell).await?;
            kept(service.clone(), caller, served.clone(), question.prompt, answer).await
        };
        match answered.await {
            Ok((request, answer)) => {
                let mut last = head.piece(None, first.load(Ordering::Relaxed), Some(answer.finish));
                last["poa"] = head.ours(&request);
                say(&last);
                if include_usage {
                    let mut counts = head.head(true);
                    counts["choices"] = json!([]);
                    counts["usage"] = usage(&answer);
                    say(&counts);
                }
            }
            Err(error) => {
                say(&json!({ "error": { "message": error.message, "type": "server_error", "code": error.code } }));
            }
        }
        let _ = send.try_send(Ok(Event::default().data("[DONE]")));
    });
    Ok(Sse::new(ReceiverStream::new(receive)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(shape: Shape, body: Value) -> Result<Call, ApiError> {
        Call::read(shape, body.as_object().unwrap())
    }

    #[test]
    fn calls_are_honoured_or_refused_by_name() {
        let call = read(Shape::Chat, json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }, { "role": "user", "content": [{ "type": "text", "text": "b" }] }],
            "stop": "x", "max_completion_tokens": 5, "temperature": 0, "top_p": 1, "n": 1, "stream": true, "stream_options": { "include_usage": true }, "tools": null }))
        .unwrap();
        let said = |content: &str| Message { role: "user".into(), content: content.into() };
        let (model, prompt, stop) = ("m".into(), Asked::Chat(vec![said("a"), said("b")]), vec!["x".into()]);
        let expected = Call { model, prompt, max_tokens: Some(5), cut_to_room: false, stop, stream: true, include_usage: true };
        assert_eq!(call, expected);
        let room = |call: Call| (call.max_tokens, call.cut_to_room);
        assert_eq!(room(read(Shape::Text, json!({ "model": "m", "prompt": "p", "max_tokens": null })).unwrap()), (Some(16), true));
        assert_eq!(room(read(Shape::Text, json!({ "model": "m", "prompt": "p", "max_tokens": 16 })).unwrap()), (Some(16), false));
        let long = read(Shape::Text, json!({ "model": "m", "prompt": "p", "tools": "x".repeat(1 << 20) })).unwrap_err();
        assert!(long.message.len() < 200, "{}", long.message.len());
        let wrong = [
            ("temperature", json!(0.7)),
            ("n", json!(2)),
            ("logprobs", json!(3)),
            ("stop", json!(["a", "b", "c", "d", "e"])),
            ("stop", json!("")),
            ("max_tokens", json!("many")),
            ("stream", json!("yes")),
            ("stream_options", json!({ "other": 1 })),
            ("tools", json!([])),
            ("prompt", json!(["two", "prompts"])),
            ("messages", json!([])),
        ];
        for (name, value) in wrong {
            let mut body = json!({ "model": "m", "prompt": "p" });
            body[name] = value;
            assert_eq!(read(Shape::Text, body).unwrap_err().param.as_deref(), Some(name));
        }
        assert_eq!(read(Shape::Text, json!({ "model": "m" })).unwrap_err().param.as_deref(), Some("prompt"));
        assert_eq!(read(Shape::Chat, json!({ "messages": [{ "role": "user", "content": "a" }] })).unwrap_err().param.as_deref(), Some("model"));
        for message in [
            json!("text"),
            json!({ "role": "tool", "content": "a" }),
            json!({ "role": "user" }),
            json!({ "role": "user", "content": "a", "tool_calls": [] }),
            json!({ "role": "user", "content": "a", "name": "ada" }),
            json!({ "role": "user", "content": [{ "type": "image_url" }] }),
        ] {
            assert!(read(Shape::Chat, json!({ "model": "m", "messages": [message] })).is_err());
        }
    }
}
