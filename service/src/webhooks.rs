//! Who wants to be told: endpoints of a key, and the messages for them, written in the transaction of what they tell of.
//!
//! Messages are signed as [Standard Webhooks](https://www.standardwebhooks.com) has it; [`crate::deliveries`] sends them.

use crate::api::{Answered, Shared, object};
use crate::database::{Database, now, random};
use crate::deliveries::{self, Address, DELIVER, Delivery};
use crate::error::ApiError;
use crate::jobs::{self, Job};
use crate::keys::Caller;
use crate::orders::{order, words};
use crate::shapes::{List, NewWebhook};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Most endpoints of a key.
const ENDPOINTS: i64 = 10;
/// Most bytes of an address.
const URL: usize = 2048;
/// What a secret begins with, as it is shown.
const SECRET: &str = "whsec_";
/// Bytes of a secret.
const SECRET_BYTES: usize = 24;
/// Seconds that messages are kept.
const KEPT: i64 = 30 * 24 * 3600;
/// Deliveries that are told.
const TOLD: i64 = 100;
/// How jobs end.
const ENDS: [&str; 3] = ["done", "failed", "cancelled"];

/// All events that there are.
pub fn events() -> Vec<String> {
    words().flat_map(|word| ENDS.map(|end| format!("{word}.{end}"))).collect()
}

/// An endpoint as it's listed; its secret is shown once.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Where messages go.
    pub url: String,
    /// What it is told of.
    pub events: Vec<String>,
}

/// An endpoint that was just made, with its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Made {
    /// The endpoint.
    #[serde(flatten)]
    pub webhook: Webhook,
    /// What messages are signed with.
    pub secret: String,
}

fn webhook(row: &Row<'_>) -> rusqlite::Result<Webhook> {
    let events: String = row.get("events")?;
    let events = serde_json::from_str(&events).unwrap_or_default();
    Ok(Webhook { id: row.get("id")?, created: row.get("created")?, url: row.get("url")?, events })
}

/// Writes a message for each endpoint of a key that wants to know; sent when the transaction is committed, and never lost after that.
pub fn emit(connection: &Connection, key: i64, event: &str, data: &Value) -> rusqlite::Result<()> {
    let query = "SELECT webhooks.* FROM webhooks JOIN keys ON keys.id = webhooks.key WHERE key = ?1 AND keys.revoked IS NULL";
    let endpoints: Vec<Webhook> = connection.prepare(query)?.query_map([key], webhook)?.collect::<Result<_, _>>()?;
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.events.iter().any(|wanted| wanted == event)) {
        forget(connection, "webhook = ?1 AND created < ?2", params![endpoint.id, now() - KEPT])?;
        let payload = json!({ "type": event, "timestamp": time(now()), "data": data }).to_string();
        let insert = "INSERT INTO deliveries (id, webhook, created, event, payload) VALUES ('msg_' || lower(hex(randomblob(12))), ?1, ?2, ?3, ?4) \
                      RETURNING id";
        let id: String = connection.query_row(insert, params![endpoint.id, now(), event, payload], |r| r.get(0))?;
        jobs::enqueue_in(connection, DELIVER, &id)?;
    }
    Ok(())
}

/// A time as ISO 8601 has it.
fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Tells of a job's end, in the transaction that ends it.
pub fn ended(connection: &Connection, job: &Job) -> rusqlite::Result<()> {
    match order(connection, &job.kind, &job.subject)? {
        Some((word, key)) if job.is_over() => emit(connection, key, &format!("{word}.{}", job.state), &json!({ "id": job.subject, "job": job })),
        _ => Ok(()),
    }
}

/// Removes messages with their jobs.
fn forget(connection: &Connection, which: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {
    connection.execute(&format!("DELETE FROM jobs WHERE kind = '{DELIVER}' AND subject IN (SELECT id FROM deliveries WHERE {which})"), values)?;
    connection.execute(&format!("DELETE FROM deliveries WHERE {which}"), values).map(|_| ())
}

fn wanted(events: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let all = events_or_all(events)?;
    let known = self::events();
    match all.iter().find(|event| !known.contains(event)) {
        Some(other) => {
            let error = ApiError::parameter("events", format!("events: there is no event {:?}", other.chars().take(64).collect::<String>()));
            Err(ApiError { hint: Some(format!("there are {}", known.join(", "))), ..error })
        }
        None => Ok(all),
    }
}

fn events_or_all(events: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let Some(value) = events else { return Ok(self::events()) };
    let list: Option<Vec<String>> = value.as_array().and_then(|list| list.iter().map(|event| event.as_str().map(str::to_owned)).collect());
    let mut list = list.filter(|list| !list.is_empty()).ok_or_else(|| ApiError::parameter("events", "events: expected a list of events' names"))?;
    list.sort();
    list.dedup();
    Ok(list)
}

/// Makes an endpoint.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    tag = "webhooks",
    operation_id = "make_webhook",
    request_body(content = NewWebhook),
    responses((status = 201, description = "the endpoint, with its secret this once", body = Made))
)]
pub async fn create(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    let body = object(&body)?;
    if let Some(other) = body.keys().find(|key| !["url", "events"].contains(&key.as_str())) {
        return Err(ApiError::parameter(other, format!("{other} isn't supported")));
    }
    let url = body.get("url").and_then(Value::as_str).filter(|url| (1..=URL).contains(&url.len()));
    let url = url.ok_or_else(|| ApiError::parameter("url", format!("url: expected an address of at most {URL} bytes")))?;
    let address = Address::read(url, service.private_webhooks).map_err(|problem| ApiError::parameter("url", format!("url: {problem}")))?;
    let events = wanted(body.get("events"))?;
    let (id, secret) = (format!("wh_{}", &crate::database::hex(&random()?)[..24]), random()?);
    let made = Webhook { id, created: now(), url: address.to_string(), events };
    let kept = service.database.write(|t| {
        let count: i64 = t.query_row("SELECT count(*) FROM webhooks WHERE key = ?1", [caller.key], |r| r.get(0))?;
        let insert = "INSERT INTO webhooks (id, key, created, url, events, secret) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = params![made.id, caller.key, made.created, made.url, json!(made.events).to_string(), &secret[..SECRET_BYTES]];
        if count < ENDPOINTS { t.execute(insert, values) } else { Ok(0) }
    })?;
    if kept == 0 {
        return Err(ApiError::conflict(format!("the key has {ENDPOINTS} webhooks already; remove one first")));
    }
    let made = Made { webhook: made, secret: format!("{SECRET}{}", STANDARD.encode(&secret[..SECRET_BYTES])) };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// A key's endpoints, oldest first.
fn of_key(database: &Database, caller: Caller) -> rusqlite::Result<Vec<Webhook>> {
    let query = "SELECT * FROM webhooks WHERE key = ?1 ORDER BY created, id";
    database.read(|c| c.prepare(query)?.query_map([caller.key], webhook)?.collect())
}

fn find(database: &Database, caller: Caller, id: &str) -> Result<Webhook, ApiError> {
    let query = "SELECT * FROM webhooks WHERE key = ?1 AND id = ?2";
    let found = database.read(|c| c.query_row(query, params![caller.key, id], webhook).optional())?;
    found.ok_or_else(|| ApiError::not_found("webhook"))
}

/// The caller's endpoints.
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    tag = "webhooks",
    operation_id = "list_webhooks",
    responses((status = 200, description = "oldest first", body = List<Webhook>))
)]
pub async fn list(State(service): Shared, caller: Caller) -> Answered {
    Ok(Json(json!({ "object": "list", "data": of_key(&service.database, caller)? })).into_response())
}

/// One of them.
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}",
    tag = "webhooks",
    operation_id = "webhook",
    params(("id" = String, Path, description = "an endpoint")),
    responses((status = 200, description = "the endpoint", body = Webhook))
)]
pub async fn one(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(find(&service.database, caller, &id)?).into_response())
}

/// Removes one, with what wasn't sent yet.
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{id}",
    tag = "webhooks",
    operation_id = "remove_webhook",
    params(("id" = String, Path, description = "an endpoint")),
    responses((status = 204, description = "done"))
)]
pub async fn remove(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    find(&service.database, caller, &id)?;
    service.database.write(|t| {
        forget(t, "webhook = ?1", params![id])?;
        t.execute("DELETE FROM webhooks WHERE id = ?1", [&id])
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What was sent to one, newest first, with every attempt.
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}/deliveries",
    tag = "webhooks",
    operation_id = "list_deliveries",
    params(("id" = String, Path, description = "an endpoint")),
    responses((status = 200, description = "newest first, at most a hundred", body = List<Delivery>))
)]
pub async fn log(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    find(&service.database, caller, &id)?;
    let list = deliveries::newest(&service.database, &id, TOLD)?;
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}
