//! The API's routes beside OpenAI's: models, requests with their attribution and proof, keys.

use crate::attributions::{self, Attributed};
use crate::catalog::Listed;
use crate::datanets;
use crate::error::ApiError;
use crate::jobs::{self, Job};
use crate::keys::{self, Caller, Scope};
use crate::metrics::metrics;
use crate::openai::{Shape, complete, model};
use crate::proofs::PROVE;
use crate::requests::{self, Request};
use crate::server::Service;
use crate::settlement_api;
use crate::trainings;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use std::path::Component;
use std::sync::Arc;
use std::time::Duration;

/// How long a wrong key waits for its answer.
const SLOWED: Duration = Duration::from_millis(500);
/// Most characters of a key's name.
const NAME: usize = 100;

type Shared = State<Arc<Service>>;
type Answered = Result<Response, ApiError>;

/// A caller with a key.
impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ApiError> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, key)) = key else { return Err(ApiError::unauthorized()) };
        match keys::find(&service.database, key.trim())? {
            Some(caller) => Ok(caller),
            None => {
                tokio::time::sleep(SLOWED).await;
                Err(ApiError::unauthorized())
            }
        }
    }
}

impl Caller {
    /// Refuses everyone else.
    pub fn admin(self) -> Result<(), ApiError> {
        if self.scope == Scope::Admin { Ok(()) } else { Err(ApiError::forbidden("this needs an admin's key")) }
    }
}

/// The routes.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(one_model))
        .route("/v1/completions", post(|s: Shared, caller, body| completions(s, caller, Shape::Text, body)))
        .route("/v1/chat/completions", post(|s: Shared, caller, body| completions(s, caller, Shape::Chat, body)))
        .route("/v1/requests", get(newest))
        .route("/v1/requests/{id}", get(request))
        .route("/v1/requests/{id}/attribution", get(attribution))
        .route("/v1/requests/{id}/proof", get(proof).post(prove).delete(cancel))
        .route("/v1/requests/{id}/proof.bin", get(proof_file))
        .route("/v1/requests/{id}/statement.json", get(statement_file))
        .route("/v1/keys", get(list_keys).post(make_key))
        .route("/v1/keys/{id}", delete(revoke_key))
        .route("/v1/load_lora_adapter", post(load_adapter))
        .route("/v1/unload_lora_adapter", post(unload_adapter))
        .route("/v1/{*rest}", axum::routing::any(|| async { ApiError::not_found("route") }))
}

/// A JSON object, whatever the content type says.
pub fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body isn't a JSON object: {e}")))
}

async fn completions(State(service): Shared, caller: Caller, shape: Shape, body: Bytes) -> Answered {
    complete(service, caller, shape, object(&body)?).await
}

/// A model as the API says it.
pub fn model_json(listed: &Listed) -> Value {
    json!({ "id": listed.id, "object": "model", "created": 0, "owned_by": "poa", "generation": listed.generation, "context": listed.context, "bytes": listed.bytes })
}

async fn models(State(service): Shared, _: Caller) -> Answered {
    let list: Vec<Value> = service.catalog.all().iter().map(model_json).collect();
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}

async fn one_model(State(service): Shared, _: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(model_json(&service.catalog.listed(&id)?)).into_response())
}

fn request_json(service: &Service, request: &Request) -> Result<Value, ApiError> {
    let mut value = json!(request);
    value["proof"] = json!(jobs::find(&service.database, PROVE, &request.id)?);
    for (name, state) in settlement_api::states(service, &request.id)? {
        value[name] = state;
    }
    Ok(value)
}

async fn newest(State(service): Shared, caller: Caller) -> Answered {
    let list = requests::newest(&service.database, caller, 100)?;
    let list = list.iter().map(|r| request_json(&service, r)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}

async fn request(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(request_json(&service, &requests::find(&service.database, caller, &id)?)?).into_response())
}

/// Whether a caller may read the samples that a model was trained on.
fn reads(service: &Service, caller: Caller, model: &str) -> Result<bool, ApiError> {
    if service.show_samples || caller.scope == Scope::Admin {
        return Ok(true);
    }
    let training = trainings::of_model(&service.database, model)?;
    Ok(training.map(|t| datanets::by_id(&service.database, t.datanet_id)).transpose()?.is_some_and(|of| of.is_read_by(caller)))
}

/// What bears on a request's answer, as far as the caller may read samples.
pub async fn attributed(service: &Arc<Service>, caller: Caller, request: Request) -> Result<Attributed, ApiError> {
    let model_name = request.model.clone();
    let served = model(service, &request.model).await?;
    let permit = service.permit().await?;
    let of = service.clone();
    let work = move || {
        let _permit = permit;
        attributions::of(&of.database, &served, &request)
    };
    let attributed = tokio::task::spawn_blocking(work).await??;
    let reads = reads(service, caller, &model_name)?;
    Ok(if reads { attributed } else { attributed.without_texts() })
}

async fn attribution(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    let request = requests::find(&service.database, caller, &id)?;
    Ok(Json(attributed(&service, caller, request).await?).into_response())
}

fn job_json(id: &str, job: &Job) -> Value {
    let mut value = json!(job);
    if job.state == "done" {
        value["files"] = json!([format!("/v1/requests/{id}/proof.bin"), format!("/v1/requests/{id}/statement.json")]);
    }
    value
}

/// Queues the proof of a request that a caller may see.
pub async fn enqueue_proof(service: &Arc<Service>, caller: Caller, id: &str) -> Result<Job, ApiError> {
    let request = requests::find(&service.database, caller, id)?;
    request.run(&*model(service, &request.model).await?)?;
    Ok(jobs::enqueue(&service.database, PROVE, id)?)
}

async fn prove(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    let job = enqueue_proof(&service, caller, &id).await?;
    let status = if job.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(job_json(&id, &job))).into_response())
}

fn found_job(service: &Service, caller: Caller, id: &str) -> Result<Job, ApiError> {
    requests::find(&service.database, caller, id)?;
    jobs::find(&service.database, PROVE, id)?.ok_or_else(|| ApiError::not_found("proof"))
}

async fn proof(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(job_json(&id, &found_job(&service, caller, &id)?)).into_response())
}

async fn cancel(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    found_job(&service, caller, &id)?;
    if !jobs::cancel(&service.database, PROVE, &id)? {
        return Err(ApiError::conflict("the proof is neither waiting nor being made"));
    }
    Ok(Json(job_json(&id, &found_job(&service, caller, &id)?)).into_response())
}

/// A file of a finished proof.
pub fn file(service: &Service, caller: Caller, id: &str, which: &str) -> Result<Vec<u8>, ApiError> {
    let job = found_job(service, caller, id)?;
    let name = job.result.as_ref().and_then(|result| result[which].as_str()).ok_or_else(|| ApiError::conflict("the proof isn't made yet"))?;
    Ok(service.files.get(name)?)
}

async fn proof_file(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], file(&service, caller, &id, "proof")?).into_response())
}

async fn statement_file(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(([(header::CONTENT_TYPE, "application/json")], file(&service, caller, &id, "statement")?).into_response())
}

async fn list_keys(State(service): Shared, caller: Caller) -> Answered {
    caller.admin()?;
    Ok(Json(json!({ "object": "list", "data": keys::list(&service.database)? })).into_response())
}

async fn make_key(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    caller.admin()?;
    let body = object(&body)?;
    if let Some(other) = body.keys().find(|key| !["name", "scope"].contains(&key.as_str())) {
        return Err(ApiError::parameter(other, format!("{other} isn't supported")));
    }
    let name = body.get("name").and_then(Value::as_str).filter(|name| (1..=NAME).contains(&name.chars().count()));
    let name = name.ok_or_else(|| ApiError::parameter("name", format!("name: expected a text of 1 to {NAME} characters")))?;
    let scope = body.get("scope").map_or(Some(Scope::User), |scope| scope.as_str().and_then(Scope::named));
    let scope = scope.ok_or_else(|| ApiError::parameter("scope", "scope: expected admin, owner, contributor or user"))?;
    Ok((StatusCode::CREATED, Json(json!({ "key": keys::make(&service.database, name, scope)?, "name": name, "scope": scope }))).into_response())
}

async fn revoke_key(State(service): Shared, caller: Caller, Path(id): Path<i64>) -> Answered {
    caller.admin()?;
    if id == caller.key {
        return Err(ApiError::conflict("a key can't revoke itself"));
    }
    if !keys::revoke(&service.database, id)? {
        return Err(ApiError::not_found("key"));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A base's and an adapter's name of a call that names a model as vLLM does.
fn adapter_named(body: &Map<String, Value>) -> Result<(String, String), ApiError> {
    if let Some(other) = body.keys().find(|key| *key != "lora_name") {
        let error = ApiError::parameter(other, format!("{other} isn't supported"));
        return Err(ApiError { hint: Some("adapters are read from models/BASE/adapters/NAME beneath the data directory".into()), ..error });
    }
    let name = body.get("lora_name").and_then(Value::as_str).and_then(|name| name.split_once('+'));
    let (base, adapter) = name.ok_or_else(|| ApiError::parameter("lora_name", "lora_name: expected base+adapter"))?;
    // One name of a directory, as they may have been made by hand.
    if !matches!(std::path::Path::new(adapter).components().collect::<Vec<_>>()[..], [Component::Normal(only)] if only == adapter) {
        return Err(ApiError::parameter("lora_name", "lora_name: the adapter's name is no name of a directory"));
    }
    Ok((base.to_owned(), adapter.to_owned()))
}

async fn load_adapter(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    caller.admin()?;
    let (base, adapter) = adapter_named(&object(&body)?)?;
    if service.catalog.base(&base).is_none() {
        return Err(ApiError::parameter("lora_name", format!("lora_name: no base {base:?} is served")));
    }
    let id = format!("{base}+{adapter}");
    let of = service.clone();
    let load = move || of.catalog.add(&base, &adapter, &*of.on).map_err(|f| ApiError { hint: f.hint, ..ApiError::parameter("lora_name", f.message) });
    tokio::task::spawn_blocking(load).await??;
    Ok(Json(model_json(&service.catalog.listed(&id)?)).into_response())
}

async fn unload_adapter(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    caller.admin()?;
    let (base, adapter) = adapter_named(&object(&body)?)?;
    if !service.catalog.remove(&format!("{base}+{adapter}")) {
        return Err(ApiError::not_found("model"));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}
