//! Jobs as they go on: one of them, and a stream of what changes in it, as server-sent events.
//!
//! An event is a state, not a step: who comes back late, with `last-event-id`, is told how it stands now, and every epoch that they missed.
//! A stream ends when its job is over; who then asks again with the last id gets a 204, which tells a browser to stop asking.

use crate::api::{Answered, Shared};
use crate::database::Database;
use crate::error::ApiError;
use crate::jobs::{self, Job};
use crate::keys::{self, Caller};
use crate::orders::order;
use crate::proofs::PROVE;
use crate::requests;
use crate::server::Service;
use crate::trainings::{self, TRAIN, epoch_json};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;

/// Streams at once, and of one key.
const STREAMS: usize = 256;
const STREAMS_OF_KEY: usize = 16;
/// Between two looks at the job.
const LOOK: Duration = Duration::from_millis(300);
/// Between two comments that keep a silent stream open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A longer stream ends; its reader comes back.
const LONGEST: Duration = Duration::from_secs(3600);
/// Events that a slow reader may be behind.
const BEHIND: usize = 16;

/// How many streams each key reads.
#[derive(Default)]
pub struct Readers(Mutex<BTreeMap<i64, usize>>);

/// A stream's place among them, given up when dropped.
struct Reader {
    service: Arc<Service>,
    key: i64,
}

impl Reader {
    fn enter(service: &Arc<Service>, key: i64) -> Result<Self, ApiError> {
        let mut readers = service.readers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.values().sum::<usize>() >= STREAMS || readers.get(&key).is_some_and(|own| *own >= STREAMS_OF_KEY) {
            return Err(ApiError::too_many(format!("too many streams of events are read: at most {STREAMS_OF_KEY} by a key, {STREAMS} in all")));
        }
        *readers.entry(key).or_default() += 1;
        Ok(Self { service: service.clone(), key })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.service.readers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = readers.get_mut(&self.key) {
            *own -= 1;
        }
        readers.retain(|_, own| *own > 0);
    }
}

/// How far a reader has come: the job's changes and its epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    change: Option<i64>,
    epochs: usize,
}

impl Seen {
    /// As `last-event-id` has it.
    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(Self::default()) };
        let parts = value.to_str().ok().and_then(|text| text.split_once('.'));
        let read = parts.and_then(|(change, epochs)| Some(Self { change: Some(change.parse().ok()?), epochs: epochs.parse().ok()? }));
        read.ok_or_else(|| ApiError::parameter("last-event-id", "last-event-id: expected the id of an event of this stream"))
    }

    fn id(self) -> String {
        format!("{}.{}", self.change.unwrap_or(0), self.epochs)
    }

    /// What is new, and how far a reader of it has come.
    fn news(self, database: &Database, job: &Job) -> Result<(Vec<Event>, Self), ApiError> {
        let (mut seen, mut events) = (self, Vec::new());
        if job.kind == TRAIN {
            // The job was read first: once it's over, all its epochs are there.
            for epoch in trainings::epochs(database, &job.subject)?.iter().skip(self.epochs) {
                seen.epochs += 1;
                events.push(Event::default().event("epoch").id(seen.id()).data(epoch_json(epoch).to_string()));
            }
        }
        if seen.change != Some(job.change) {
            seen.change = Some(job.change);
            events.push(Event::default().event("job").id(seen.id()).data(json!(job).to_string()));
        }
        Ok((events, seen))
    }
}

/// A stream of a job that the caller may see.
fn stream(service: &Arc<Service>, caller: Caller, headers: &HeaderMap, job: Job) -> Answered {
    let seen = Seen::read(headers)?;
    if job.is_over() && seen.news(&service.database, &job)?.0.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = Reader::enter(service, caller.key)?;
    let (send, receive) = mpsc::channel(BEHIND);
    tokio::spawn(async move {
        if let Err(error) = follow(&reader, &job, seen, &send).await {
            let _ = send.send(Ok(Event::default().event("error").data(json!({ "message": error.message }).to_string()))).await;
        }
    });
    let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("still here");
    Ok(Sse::new(ReceiverStream::new(receive)).keep_alive(heartbeat).into_response())
}

/// Tells what is new until the job is over, the reader is gone or no longer may, or the service ends.
async fn follow(reader: &Reader, job: &Job, mut seen: Seen, send: &Sender<Result<Event, Infallible>>) -> Result<(), ApiError> {
    let (service, began) = (&reader.service, Instant::now());
    while service.goes_on() && began.elapsed() < LONGEST && keys::is_valid(&service.database, reader.key)? {
        let Some(job) = jobs::find(&service.database, &job.kind, &job.subject)? else { break };
        let events;
        (events, seen) = seen.news(&service.database, &job)?;
        for event in events {
            if send.send(Ok(event)).await.is_err() {
                return Ok(());
            }
        }
        if job.is_over() {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = send.closed() => break,
        }
    }
    Ok(())
}

/// The events of a request's proof.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}/events",
    tag = "requests",
    operation_id = "proof_events",
    params(("id" = String, Path, description = "a request"), ("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "states as they change: events `job` and `epoch` with ids, and comments in between", body = serde_json::Value, content_type = "text/event-stream"), (status = 204, description = "over, and nothing new since the last event"))
)]
pub async fn of_request(State(service): Shared, caller: Caller, Path(id): Path<String>, headers: HeaderMap) -> Answered {
    requests::find(&service.database, caller, &id)?;
    let job = jobs::find(&service.database, PROVE, &id)?.ok_or_else(|| ApiError::not_found("proof"))?;
    stream(&service, caller, &headers, job)
}

/// The events of a training.
#[utoipa::path(
    get,
    path = "/v1/training-jobs/{id}/events",
    tag = "training",
    operation_id = "training_events",
    params(("id" = String, Path, description = "a training"), ("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "states as they change: events `job` and `epoch` with ids, and comments in between", body = serde_json::Value, content_type = "text/event-stream"), (status = 204, description = "over, and nothing new since the last event"))
)]
pub async fn of_training(State(service): Shared, caller: Caller, Path(id): Path<String>, headers: HeaderMap) -> Answered {
    let job = trainings::find(&service.database, caller, &id)?.job.ok_or_else(|| ApiError::not_found("training"))?;
    stream(&service, caller, &headers, job)
}

/// A job by its number, for whoever ordered it.
fn ordered(service: &Service, caller: Caller, id: i64) -> Result<Job, ApiError> {
    let job = jobs::by_id(&service.database, id)?;
    let seen = |job: &Job| service.database.read(|c| order(c, &job.kind, &job.subject));
    match job {
        Some(job) if seen(&job)?.is_some_and(|(_, key)| caller.sees(key)) => Ok(job),
        _ => Err(ApiError::not_found("job")),
    }
}

/// One job.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    operation_id = "job",
    params(("id" = i64, Path, description = "a job's number")),
    responses((status = 200, description = "the job", body = Job))
)]
pub async fn job(State(service): Shared, caller: Caller, Path(id): Path<i64>) -> Answered {
    Ok(Json(ordered(&service, caller, id)?).into_response())
}

/// Its events.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    tag = "jobs",
    operation_id = "job_events",
    params(("id" = i64, Path, description = "a job's number"), ("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "states as they change: events `job` and `epoch` with ids, and comments in between", body = serde_json::Value, content_type = "text/event-stream"), (status = 204, description = "over, and nothing new since the last event"))
)]
pub async fn of_job(State(service): Shared, caller: Caller, Path(id): Path<i64>, headers: HeaderMap) -> Answered {
    stream(&service, caller, &headers, ordered(&service, caller, id)?)
}
