//! The way to a node: HTTP, with a cap on what an answer may be and patience for nodes that ask to slow down.
//!
//! A node is not trusted: it may send without end, redirect elsewhere, or say "too many requests" for ever. What it says is passed on without
//! the secrets that its URL may hold.

use alloy::rpc::json_rpc::{ErrorPayload, RequestPacket, ResponsePacket};
use alloy::transports::http::reqwest::{Client, Response, StatusCode, Url, header, redirect};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use steps::progress::Observer;
use thiserror::Error;

/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read.
pub const ANSWER_BYTES: usize = 16 << 20;
/// Most characters of a node's words that are passed on.
const WORDS: usize = 300;
/// First and longest pause before asking again, where the node doesn't say.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Parts of a URL that are shorter aren't taken for secrets.
const SECRET: usize = 8;

/// What goes wrong on the way.
#[derive(Clone, Debug, Error)]
pub enum WayError {
    /// No answer, or none in time.
    #[error("{0}")]
    Unanswered(String),
    /// An answer beyond [`ANSWER_BYTES`].
    #[error("its answer is longer than {ANSWER_BYTES} bytes")]
    TooLong,
    /// It asks to slow down for longer than anyone waits.
    #[error("asked to slow down ({problem}), and the next attempt would be {seconds} s from now")]
    Throttled {
        /// What it says.
        problem: String,
        /// The pause it wants, in seconds.
        seconds: u64,
    },
    /// A status that isn't success, without a JSON-RPC error.
    #[error("HTTP status {status}: {words}")]
    Status {
        /// The status.
        status: u16,
        /// The answer's first characters.
        words: String,
    },
    /// Something that isn't JSON-RPC.
    #[error("its answer isn't JSON-RPC: {0}")]
    NotJson(String),
}

/// A URL with what must not be shown of it.
#[derive(Clone, Debug)]
pub struct Place {
    url: Url,
    name: String,
    secrets: Vec<String>,
}

impl Place {
    /// Reads `--rpc-url`. A local address may leave out `http://`.
    ///
    /// # Errors
    ///
    /// Says what kind of URL is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let local = ["localhost", "127.", "[::1]"].iter().any(|host| text.starts_with(host));
        let url = match text.split_once("://") {
            None if local => format!("http://{text}"),
            None => return Err("--rpc-url names no protocol: it begins with https:// or http://".into()),
            Some((scheme, _)) => match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => text.to_owned(),
                "ws" | "wss" => return Err(format!("--rpc-url is a WebSocket ({scheme}://), which isn't spoken here: give the node's http URL")),
                _ => return Err("--rpc-url begins with a protocol that isn't spoken here: give one with https:// or http://".into()),
            },
        };
        let url: Url = url.parse().map_err(|e| format!("--rpc-url isn't a URL: {e}"))?;
        let host = url.host_str().unwrap_or("?");
        let name = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let credentials = [Some(url.username()), url.password()].into_iter().flatten().filter(|s| !s.is_empty());
        let parts = url.path().split('/').chain(url.query().unwrap_or("").split(['&', '='])).filter(|s| s.len() >= SECRET);
        let mut secrets: Vec<String> = credentials.chain(parts).map(str::to_owned).collect();
        secrets.extend([url.path(), url.query().unwrap_or("")].into_iter().filter(|s| s.len() >= SECRET).map(str::to_owned));
        // The longest first: one may hold another.
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        Ok(Self { url, name, secrets })
    }

    /// Its host and port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first words of a text from outside, without the URL's secrets.
    pub fn quoted(&self, text: &str) -> String {
        let hidden = self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"));
        let text = hidden.trim();
        if text.chars().count() <= WORDS { text.to_owned() } else { text.chars().take(WORDS).chain(['…']).collect() }
    }
}

/// Sends requests to one place.
#[derive(Clone)]
pub struct Transport {
    client: Client,
    place: Place,
    patience: Duration,
    on: Arc<dyn Observer>,
}

/// What came of one attempt.
enum Attempt {
    Answered(ResponsePacket),
    SlowDown { problem: String, after: Option<Duration> },
}

impl Transport {
    /// To a place; waits up to `patience` in all for a request that the node puts off, and tells so.
    ///
    /// # Errors
    ///
    /// When the system has no HTTP for us.
    pub fn new(place: Place, patience: Duration, on: Arc<dyn Observer>) -> Result<Self, String> {
        let client = Client::builder().redirect(redirect::Policy::none()).timeout(REQUEST).build();
        Ok(Self { client: client.map_err(|e| e.to_string())?, place, patience, on })
    }

    async fn attempt(&self, request: &RequestPacket) -> Result<Attempt, WayError> {
        let sent = self.client.post(self.place.url.clone()).json(request).send().await;
        let mut response = sent.map_err(|e| self.unanswered(e))?;
        let (status, after) = (response.status(), retry_after(&response));
        let body = self.body(&mut response).await?;
        let answer = serde_json::from_slice::<ResponsePacket>(&body);
        if let Some(error) = answer.as_ref().ok().and_then(|a| a.iter_errors().next())
            && asks_to_slow_down(error)
        {
            return Ok(Attempt::SlowDown { problem: self.place.quoted(&error.message), after });
        }
        let is_error = answer.as_ref().is_ok_and(ResponsePacket::is_error);
        match answer {
            Ok(answer) if status.is_success() || is_error => Ok(Attempt::Answered(answer)),
            _ if status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::SERVICE_UNAVAILABLE && after.is_some()) => {
                Ok(Attempt::SlowDown { problem: format!("HTTP status {status}"), after })
            }
            Err(e) if status.is_success() => Err(WayError::NotJson(e.to_string())),
            _ => Err(self.status(&response, &body)),
        }
    }

    /// An error's whole story, without the URL.
    fn unanswered(&self, error: alloy::transports::http::reqwest::Error) -> WayError {
        let error = error.without_url();
        let mut words = if error.is_timeout() { format!("no answer within {} s", REQUEST.as_secs()) } else { error.to_string() };
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            words = format!("{words}: {inner}");
            cause = inner.source();
        }
        WayError::Unanswered(self.place.quoted(&words))
    }

    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, WayError> {
        let mut body = vec![];
        while let Some(piece) = response.chunk().await.map_err(|e| self.unanswered(e))? {
            if body.len() + piece.len() > ANSWER_BYTES {
                return Err(WayError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn status(&self, response: &Response, body: &[u8]) -> WayError {
        let status = response.status();
        let words = if status.is_redirection() {
            "it redirects; give the URL that it redirects to".to_owned()
        } else {
            self.place.quoted(&String::from_utf8_lossy(body))
        };
        WayError::Status { status: status.as_u16(), words }
    }

    async fn patiently(self, request: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let (start, mut pause) = (Instant::now(), PAUSE);
        loop {
            let (problem, after) = match self.attempt(&request).await.map_err(TransportErrorKind::custom)? {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::SlowDown { problem, after } => (problem, after),
            };
            let wait = after.unwrap_or(pause);
            if start.elapsed().saturating_add(wait) > self.patience {
                return Err(TransportErrorKind::custom(WayError::Throttled { problem, seconds: wait.as_secs() }));
            }
            self.on.note(format!("the node at {} asks to slow down ({problem}); waiting {:.1} s", self.place.name(), wait.as_secs_f64()));
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The pause that an answer asks for, where it says so in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Whether an error means "too many requests". The code -32005 also stands for too many logs, which waiting doesn't help.
fn asks_to_slow_down<D>(error: &ErrorPayload<D>) -> bool {
    let words = error.message.to_lowercase();
    let says = |list: &[&str]| list.iter().any(|w| words.contains(w));
    let of_logs = says(&["block range", "blocks range", "range of blocks", "results", "logs", "response size"]);
    let by_words = says(&[
        "rate limit",
        "rate-limit",
        "ratelimit",
        "rate exceeded",
        "too many requests",
        "request limit",
        "credits limited",
        "capacity exceeded",
    ]);
    !of_logs && (by_words || matches!(error.code, 429 | -32005))
}

impl tower_service::Service<RequestPacket> for Transport {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        Box::pin(self.clone().patiently(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_by_name() {
        for (given, url) in
            [("localhost:8545", "http://localhost:8545/"), ("127.0.0.1:1/x", "http://127.0.0.1:1/x"), ("HTTPS://a.b/", "https://a.b/")]
        {
            assert_eq!(Place::parse(given).unwrap().url.as_str(), url);
        }
        for (given, words) in [
            ("ws://127.0.0.1:8546", "WebSocket (ws://)"),
            ("wss://node.example/key", "WebSocket (wss://)"),
            ("ftp://node.example", "isn't spoken"),
            ("node.example:8545", "names no protocol"),
            ("http://", "isn't a URL"),
        ] {
            let problem = Place::parse(given).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("key"), "{problem}");
        }
    }

    #[test]
    fn what_a_node_says_is_quoted_without_secrets() {
        let place = Place::parse("https://user:pa55@node.example/v3/0123456789abcdef?token=fedcba98").unwrap();
        let shown = place.quoted("POST https://user:pa55@node.example/v3/0123456789abcdef?token=fedcba98: bad key 0123456789abcdef");
        assert!(["pa55", "0123456789abcdef", "fedcba98"].iter().all(|s| !shown.contains(s)), "{shown}");
        assert_eq!(place.name(), "node.example");
        assert_eq!(place.quoted(&"x".repeat(1 << 20)).chars().count(), WORDS + 1);
    }

    #[test]
    fn slowing_down_is_told_from_asking_for_less() {
        let asks = |code, message: &'static str| asks_to_slow_down(&ErrorPayload::<()> { code, message: message.into(), data: None });
        assert!(asks(-32005, "daily request count exceeded"));
        assert!(asks(429, "slow down"));
        assert!(asks(-32000, "Too Many Requests"));
        assert!(!asks(-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."));
        assert!(!asks(-32000, "nonce too low"));
    }
}
