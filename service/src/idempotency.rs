//! Calls that may be sent again: one with an `idempotency-key` is done once, and answered alike however often it comes.
//!
//! ```text
//!  begun ──► what it makes, and where it is (one transaction) ──► answered ──► the same answer, for a day
//!    └─ killed: done again     └─ killed: told where it is
//! ```
//!
//! A call goes on when its caller is gone, so that the answer is there when they come back. One that was refused leaves nothing.

use crate::api::object;
use crate::database::now;
use crate::datanet_api::UPLOAD;
use crate::error::ApiError;
use crate::keys::Caller;
use crate::server::{BODY, Service};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use std::sync::Arc;

/// The header.
pub const HEADER: &str = "idempotency-key";
/// What an answer that was given before says.
const REPLAYED: &str = "idempotency-replayed";
/// Seconds that an answer is kept.
const KEPT: i64 = 24 * 3600;
/// Most bytes of a name.
const NAME: usize = 255;
/// Most calls of a key that are kept at once.
const CALLS: i64 = 10_000;
/// Most bytes of an answer that is kept; of a longer one, where what it made is.
const ANSWER: usize = 4 << 20;
/// Calls whose answers hold a secret, which isn't kept.
const SECRET: [&str; 2] = ["/v1/keys", "/v1/webhooks"];
/// Calls that may ask for a stream.
const STREAMS: [&str; 2] = ["/v1/completions", "/v1/chat/completions"];

/// The number of a call that is kept, as handlers find it in the request.
#[derive(Clone, Copy, Debug)]
pub struct Call(pub i64);

/// Notes where a call's work is, in the transaction that makes it: the call isn't done again after that.
pub fn made(connection: &Connection, caller: Caller, place: &str) -> rusqlite::Result<()> {
    match caller.call {
        Some(call) => connection.execute("UPDATE calls SET made = ?2 WHERE id = ?1", params![call, place]).map(|_| ()),
        None => Ok(()),
    }
}

/// What is known of a call.
enum Known {
    /// Nothing: it's begun, under this number.
    Begun(i64),
    /// It's being answered.
    UnderWay,
    /// Another call has this name.
    Another,
    /// It was broken off after it made what is there.
    Made(String),
    Answered {
        status: u16,
        content_type: Option<String>,
        body: Vec<u8>,
    },
    /// There are too many.
    Many,
}

/// A call by its name, begun if it's new.
fn begin(service: &Service, key: i64, name: &str, fingerprint: [u8; 32]) -> rusqlite::Result<Known> {
    let process = &service.process;
    service.database.write(|t| {
        t.execute("DELETE FROM calls WHERE created < ?1", [now() - KEPT])?;
        let found = t.query_row("SELECT * FROM calls WHERE key = ?1 AND name = ?2", params![key, name], |r| {
            let (id, of): (i64, [u8; 32]) = (r.get("id")?, r.get("fingerprint")?);
            let (by, made): (Option<String>, Option<String>) = (r.get("process")?, r.get("made")?);
            let status: Option<u16> = r.get("status")?;
            Ok(match (status, made) {
                _ if of != fingerprint => Known::Another,
                (Some(status), _) => {
                    Known::Answered { status, content_type: r.get("content_type")?, body: r.get::<_, Option<Vec<u8>>>("body")?.unwrap_or_default() }
                }
                _ if by.as_ref() == Some(process) => Known::UnderWay,
                (None, Some(made)) => Known::Made(made),
                (None, None) => Known::Begun(id),
            })
        });
        match found.optional()? {
            Some(Known::Begun(id)) => {
                t.execute("UPDATE calls SET process = ?2 WHERE id = ?1", params![id, process])?;
                return Ok(Known::Begun(id));
            }
            Some(known) => return Ok(known),
            None => {}
        }
        let kept: i64 = t.query_row("SELECT count(*) FROM calls WHERE key = ?1", [key], |r| r.get(0))?;
        if kept >= CALLS {
            return Ok(Known::Many);
        }
        let insert = "INSERT INTO calls (key, name, fingerprint, created, process) VALUES (?1, ?2, ?3, ?4, ?5)";
        t.execute(insert, params![key, name, fingerprint, now(), process])?;
        Ok(Known::Begun(t.last_insert_rowid()))
    })
}

/// A call that is being answered; forgotten when it ends without an answer to keep, unless it made something.
struct Begun {
    service: Arc<Service>,
    id: i64,
    kept: bool,
}

impl Begun {
    fn keep(&mut self, status: StatusCode, content_type: Option<&str>, body: &[u8]) -> rusqlite::Result<()> {
        let update = "UPDATE calls SET process = NULL, status = ?2, content_type = ?3, body = ?4 WHERE id = ?1";
        self.service.database.write(|t| t.execute(update, params![self.id, status.as_u16(), content_type, body]))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let forgotten = self.service.database.write(|t| {
            t.execute("DELETE FROM calls WHERE id = ?1 AND made IS NULL", [self.id])?;
            t.execute("UPDATE calls SET process = NULL WHERE id = ?1", [self.id])
        });
        if let Err(error) = forgotten {
            self.service.on.note(format!("the database: {error}"));
        }
    }
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::parameter(HEADER, message)
}

fn name(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()));
    match text {
        Some(text) if values.next().is_none() => Ok(Some(text.to_owned())),
        _ => Err(wrong(format!("{HEADER}: expected one text of 1 to {NAME} visible ASCII characters"))),
    }
}

/// Reads a body to its end.
async fn whole(body: Body, most: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, most).await.map_err(|e| {
        let long = std::error::Error::source(&e).is_some_and(|e| e.to_string().contains("length limit"));
        if long { ApiError::too_large(most) } else { ApiError::invalid(format!("the body broke off: {e}")) }
    })
}

fn conflict(code: &'static str, message: &str, hint: String) -> ApiError {
    ApiError { code, param: Some(HEADER.into()), hint: Some(hint), ..ApiError::conflict(message) }
}

/// Answers a call that has an idempotency key once; others as they come.
pub async fn once(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.uri().path().starts_with("/v1/") || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    answered(service, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answered(service: Arc<Service>, request: Request, next: Next) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let Some(name) = name(&parts.headers)? else { return Err(wrong(format!("{HEADER} is missing"))) };
    let path = parts.uri.path();
    if SECRET.contains(&path) {
        return Err(wrong(format!("{HEADER} isn't supported here: the answer holds a secret, which isn't kept")));
    }
    let caller = Caller::from_request_parts(&mut parts, &service).await?;
    let path = parts.uri.path();
    let uploads = path.ends_with("/submissions") && caller.contributes() || path == "/v1/adapters" && caller.owns();
    let body = whole(body, if uploads { UPLOAD } else { BODY }).await?;
    if STREAMS.contains(&path) && object(&body)?.get("stream") == Some(&Value::Bool(true)) {
        return Err(wrong(format!("{HEADER} isn't supported with stream: a stream isn't kept; ask for the whole answer")));
    }
    let mut hasher = blake3::Hasher::new_derive_key("poa idempotent call");
    for part in [parts.uri.to_string().as_bytes(), &body] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let id = match begin(&service, caller.key, &name, *hasher.finalize().as_bytes())? {
        Known::Begun(id) => id,
        Known::UnderWay => {
            let error = conflict("idempotency_under_way", "the call of that key is being answered", "ask again in a second".into());
            let mut response = error.into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return Ok(response);
        }
        Known::Another => {
            let error = conflict("idempotency_key_reused", "the key was sent with another call before", "use a new key for every call".into());
            return Err(ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, ..error });
        }
        Known::Made(place) => return Ok(seen_elsewhere(&place)),
        Known::Answered { status, content_type, body } => return Ok(again(status, content_type, body)),
        Known::Many => return Err(ApiError::too_many(format!("more than {CALLS} calls with an {HEADER} within a day"))),
    };
    parts.extensions.insert(Call(id));
    let begun = Begun { service, id, kept: false };
    // Of its own: it ends, and is kept, when the caller doesn't wait for it.
    tokio::spawn(finished(begun, next, Request::from_parts(parts, Body::from(body)))).await?
}

async fn finished(mut begun: Begun, next: Next, request: Request) -> Result<Response, ApiError> {
    let response = next.run(request).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let known_size = http_body_size(&body);
    if known_size.is_none_or(|size| size > ANSWER as u64) {
        return Ok(Response::from_parts(parts, body));
    }
    let body = whole(body, ANSWER).await?;
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    begun.keep(parts.status, content_type, &body)?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// A body's bytes, where that is known before it's read.
fn http_body_size(body: &Body) -> Option<u64> {
    axum::body::HttpBody::size_hint(body).exact()
}

/// The answer that was given before.
fn again(status: u16, content_type: Option<String>, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(REPLAYED, "true")], body).into_response();
    match content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
        Some(value) => response.headers_mut().insert(header::CONTENT_TYPE, value),
        None => response.headers_mut().remove(header::CONTENT_TYPE),
    };
    response
}

/// Where the work of a call lies that was broken off before its answer was kept.
fn seen_elsewhere(place: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION.as_str(), place), (REPLAYED, "true")]).into_response()
}
