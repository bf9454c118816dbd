//! Sends messages to endpoints: jobs that are tried again, later each time, until they arrive or are given up.
//!
//! Where a message goes is an outsider's choice: only addresses of the public internet are connected to, and the very ones that were checked;
//! redirects aren't followed, answers aren't read.

use crate::database::{Database, now};
use crate::jobs::{self, Claim};
use crate::server::Service;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::{Client, Url, redirect};
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use steps::error::{Failure, While};
use steps::progress::Observer;
use utoipa::ToSchema;

/// The kind of job that sends a message.
pub const DELIVER: &str = "deliver";
/// Threads that send: an endpoint that answers slowly doesn't keep others waiting.
pub const SENDERS: usize = 4;
/// Seconds before each further attempt: eight in all, within a day and a half.
const PAUSES: [i64; 7] = [5, 30, 120, 600, 3600, 6 * 3600, 24 * 3600];
/// How long an endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether to go on.
const LOOK: Duration = Duration::from_millis(200);
/// Most characters of a problem that are kept.
const PROBLEM: usize = 200;

/// Where messages go: http or https, with nothing secret in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Address(Url);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Address {
    /// Reads an address; one that is plainly not of the public internet is refused unless `private` is.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    pub fn read(text: &str, private: bool) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|e| format!("expected an address such as https://example.org/hook ({e})"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err("expected http:// or https://".into());
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("expected no name, password or fragment in it".into());
        }
        let Some(host) = url.host_str() else { return Err("expected a host".into()) };
        let local = host == "localhost" || host.ends_with(".localhost");
        let literal = literal(host);
        if !private && (local || literal.is_some_and(|ip| !is_public(ip))) {
            return Err(REFUSED.into());
        }
        Ok(Self(url))
    }

    /// Its host, the addresses that it has now, each of them checked.
    async fn resolved(&self, private: bool) -> Result<(&str, Vec<SocketAddr>), String> {
        let host = self.0.host_str().unwrap_or_default();
        let port = self.0.port_or_known_default().unwrap_or(80);
        let addresses: Vec<SocketAddr> = match literal(host) {
            Some(ip) => vec![SocketAddr::new(ip, port)],
            None => tokio::net::lookup_host((host, port)).await.map_err(|e| format!("its host isn't found: {e}"))?.collect(),
        };
        if addresses.is_empty() {
            return Err("its host has no address".into());
        }
        // One private among public ones is enough to refuse: which is taken isn't ours to say.
        if !private && addresses.iter().any(|address| !is_public(address.ip())) {
            return Err(REFUSED.into());
        }
        Ok((host, addresses))
    }
}

const REFUSED: &str = "it is an address of this machine or of a private network, which messages aren't sent to";

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address is one of the public internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or_else(|| is_public_v6(ip), is_public_v4),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        // This network, shared by carriers, protocols, documentation, relays, benchmarks, multicast and reserved.
        [0, ..] | [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [192, 88, 99, _] | [224..=255, ..] => true,
        [100, second, ..] => (64..128).contains(&second),
        _ => false,
    };
    !(special || ip.is_loopback() || ip.is_private() || ip.is_link_local())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // Protocols (Teredo among them), documentation, tunnels to addresses of version 4.
        [0x2001, second, ..] => second >= 0x0200 && second != 0x0db8,
        [0x2002, ..] => false,
        [0x3fff, second, ..] => second >= 0x1000,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// `v1,` and the message's code: HMAC-SHA256 of `id.timestamp.payload`.
fn signature(secret: &[u8], id: &str, timestamp: i64, payload: &str) -> Result<String, Failure> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).during("signing a message")?;
    mac.update(format!("{id}.{timestamp}.{payload}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// A message that is to be sent.
struct Message {
    id: String,
    url: String,
    secret: Vec<u8>,
    payload: String,
    attempts: usize,
    arrived: bool,
}

fn message(database: &Database, id: &str) -> rusqlite::Result<Option<Message>> {
    let query = "SELECT deliveries.id, url, secret, payload, (SELECT count(*) FROM delivery_attempts WHERE delivery = deliveries.id), \
                        EXISTS (SELECT 1 FROM delivery_attempts WHERE delivery = deliveries.id AND status BETWEEN 200 AND 299) \
                 FROM deliveries JOIN webhooks ON webhooks.id = webhook JOIN keys ON keys.id = key WHERE deliveries.id = ?1 AND revoked IS NULL";
    let row = |r: &Row<'_>| {
        let attempts = r.get::<_, i64>(4)? as usize;
        Ok(Message { id: r.get(0)?, url: r.get(1)?, secret: r.get(2)?, payload: r.get(3)?, attempts, arrived: r.get(5)? })
    };
    database.read(|c| c.query_row(query, [id], row).optional())
}

/// What came of an attempt.
struct Attempt {
    at: i64,
    took: Duration,
    /// HTTP's status, or why there is none.
    answer: Result<u16, String>,
}

impl Attempt {
    fn problem(&self) -> Option<String> {
        match &self.answer {
            Ok(200..=299) => None,
            Ok(status @ 300..=399) => Some(format!("HTTP status {status}: redirects aren't followed")),
            Ok(status) => Some(format!("HTTP status {status}")),
            Err(problem) => Some(problem.chars().take(PROBLEM).collect()),
        }
    }

    /// Whether the endpoint wants no more of it.
    fn is_final(&self) -> bool {
        self.answer == Ok(410)
    }
}

/// An error's whole story, without the address.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = if error.is_timeout() { format!("no answer within {} s", PATIENCE.as_secs()) } else { error.to_string() };
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

async fn send(message: &Message, private: bool, timestamp: i64, signature: &str) -> Result<u16, String> {
    let address = Address::read(&message.url, private)?;
    let (host, addresses) = address.resolved(private).await?;
    let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().timeout(PATIENCE).resolve_to_addrs(host, &addresses);
    let request = client.build().map_err(told)?.post(address.0.clone());
    let request = request
        .header("content-type", "application/json")
        .header("user-agent", "poa")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", signature)
        .body(message.payload.clone());
    Ok(request.send().await.map_err(told)?.status().as_u16())
}

/// Makes one attempt; nothing if the service ends meanwhile.
fn attempt(message: &Message, private: bool, on: &dyn Observer) -> Result<Attempt, Failure> {
    let (at, began) = (now(), Instant::now());
    let signature = signature(&message.secret, &message.id, at, &message.payload)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().during("starting to send")?;
    let answer = runtime.block_on(async {
        let ending = async {
            while on.goes_on() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            answer = tokio::time::timeout(PATIENCE, send(message, private, at, &signature)) => {
                Some(answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))))
            }
            () = ending => None,
        }
    });
    // A lookup that hangs isn't waited for.
    runtime.shutdown_background();
    answer.map(|answer| Attempt { at, took: began.elapsed(), answer }).ok_or_else(Failure::stopped)
}

/// Sends a message once: what a job does. It is over when it arrived; else it is put off, or given up after the last attempt.
pub fn work(service: &Service, claim: &Claim, on: &dyn Observer) -> Result<(), Failure> {
    let database = &service.database;
    let Some(message) = message(database, &claim.subject).during("reading the message")? else {
        return jobs::fail_for_good(database, claim, "the webhook is no longer there").during("ending the delivery").map(|_| ());
    };
    // It may have been killed after it was told that the message arrived.
    if !message.arrived {
        let attempt = attempt(&message, service.private_webhooks, on)?;
        let problem = attempt.problem();
        keep(database, &message, &attempt).during("keeping the attempt")?;
        if let Some(problem) = problem {
            let pause = PAUSES.get(message.attempts).filter(|_| !attempt.is_final());
            let ended = match pause {
                Some(pause) => jobs::put_off(database, claim, &problem, *pause),
                None => jobs::fail_for_good(database, claim, &problem),
            };
            return ended.during("ending the attempt").map(|_| ());
        }
    }
    jobs::finish(database, claim, &Value::Null).during("ending the delivery").map(|_| ())
}

fn keep(database: &Database, message: &Message, attempt: &Attempt) -> rusqlite::Result<()> {
    let insert = "INSERT INTO delivery_attempts (delivery, attempt, at, milliseconds, status, problem) \
                  SELECT id, ?2, ?3, ?4, ?5, ?6 FROM deliveries WHERE id = ?1 ON CONFLICT DO NOTHING";
    let (status, took) = (attempt.answer.as_ref().ok(), attempt.took.as_millis() as i64);
    let values = params![message.id, message.attempts as i64 + 1, attempt.at, took, status, attempt.problem()];
    database.write(|t| t.execute(insert, values)).map(|_| ())
}

/// A message as it's listed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// The message's id.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// What it tells of.
    pub event: String,
    /// `queued`, `running`, `done` or `failed`.
    pub state: String,
    /// When it is tried again, in seconds since 1970.
    pub next: Option<i64>,
    /// Every attempt, in order.
    pub attempts: Vec<Value>,
}

/// The newest messages of an endpoint.
pub fn newest(database: &Database, webhook: &str, most: i64) -> rusqlite::Result<Vec<Delivery>> {
    let query = "SELECT deliveries.*, state, not_before FROM deliveries JOIN jobs ON jobs.kind = 'deliver' AND jobs.subject = deliveries.id \
                 WHERE webhook = ?1 ORDER BY deliveries.created DESC, deliveries.rowid DESC LIMIT ?2";
    let row = |r: &Row<'_>| {
        let (state, next): (String, i64) = (r.get("state")?, r.get("not_before")?);
        let next = (state == "queued").then_some(next);
        Ok(Delivery { id: r.get("id")?, created: r.get("created")?, event: r.get("event")?, state, next, attempts: vec![] })
    };
    let attempt = |r: &Row<'_>| {
        let (at, milliseconds): (i64, i64) = (r.get("at")?, r.get("milliseconds")?);
        let (status, problem): (Option<u16>, Option<String>) = (r.get("status")?, r.get("problem")?);
        Ok(json!({ "at": at, "milliseconds": milliseconds, "status": status, "problem": problem }))
    };
    database.read(|c| {
        let mut list: Vec<Delivery> = c.prepare(query)?.query_map(params![webhook, most], row)?.collect::<Result<_, _>>()?;
        for delivery in &mut list {
            let query = "SELECT * FROM delivery_attempts WHERE delivery = ?1 ORDER BY attempt";
            delivery.attempts = c.prepare(query)?.query_map([&delivery.id], attempt)?.collect::<Result<_, _>>()?;
        }
        Ok(list)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Standard Webhooks' own libraries.
    #[test]
    fn signatures_are_the_standards() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}").unwrap();
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn only_the_public_internet_is_sent_to() {
        for refused in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://10.1.2.3/",
            "http://172.31.0.1/",
            "http://192.168.0.1/",
            "http://169.254.169.254/latest",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[64:ff9b::a00:1]/",
            "http://[2002:a00:1::]/",
            "http://[2001:db8::1]/",
            "http://localhost/",
            "http://a.localhost/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://198.18.0.1/",
        ] {
            assert_eq!(Address::read(refused, false), Err(REFUSED.into()), "{refused}");
            assert!(Address::read(refused, true).is_ok(), "{refused}");
        }
        for taken in ["http://93.184.216.34/", "https://example.org/hook?a=b", "https://[2606:2800:220:1::1]:8443/x", "http://172.32.0.1/"] {
            assert!(Address::read(taken, false).is_ok(), "{taken}");
        }
        for wrong in ["ftp://example.org/", "example.org", "http://", "http://me:secret@example.org/", "https://example.org/#x", "file:///etc/passwd"]
        {
            assert!(Address::read(wrong, true).is_err(), "{wrong}");
        }
    }
}
