//! The API's routes beside OpenAI's: models, requests with their attribution and proof, keys.

use crate::attributions::{self, Attributed};
use crate::catalog::Listed;
use crate::datanets;
use crate::error::ApiError;
use crate::events;
use crate::idempotency::Call;
use crate::jobs::{self, Job};
use crate::keys::{self, Caller, Listed as ListedKey, Scope};
use crate::metrics;
use crate::openai::{Shape, complete, model};
use crate::proofs::PROVE;
use crate::requests::{self, Request};
use crate::server::Service;
use crate::settlement_api;
use crate::shapes::{ChatCall, ChatCompletion, Completion, CompletionCall, KeptRequest, List, LoraName, MadeKey, Model, NewKey, ProofJob};
use crate::trainings;
use crate::webhooks;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::path::Component;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a wrong key waits for its answer.
const SLOWED: Duration = Duration::from_millis(500);
/// Most characters of a key's name.
const NAME: usize = 100;

/// What every route has.
pub type Shared = State<Arc<Service>>;
/// What every route gives.
pub type Answered = Result<Response, ApiError>;

/// A caller with a key.
impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ApiError> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, key)) = key else { return Err(ApiError::unauthorized()) };
        match keys::find(&service.database, key.trim())? {
            Some(caller) => Ok(Self { call: parts.extensions.get::<Call>().map(|call| call.0), ..caller }),
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
pub fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(metrics::metrics))
        .routes(routes!(models))
        .routes(routes!(one_model))
        .routes(routes!(completions))
        .routes(routes!(chat_completions))
        .routes(routes!(newest))
        .routes(routes!(request))
        .routes(routes!(attribution))
        .routes(routes!(proof, prove, cancel))
        .routes(routes!(proof_file))
        .routes(routes!(statement_file))
        .routes(routes!(events::of_request))
        .routes(routes!(events::of_training))
        .routes(routes!(events::job))
        .routes(routes!(events::of_job))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::one, webhooks::remove))
        .routes(routes!(webhooks::log))
        .routes(routes!(list_keys, make_key))
        .routes(routes!(revoke_key))
        .routes(routes!(load_adapter))
        .routes(routes!(unload_adapter))
        .route("/v1/{*rest}", axum::routing::any(|| async { ApiError::not_found("route") }))
}

/// A JSON object, whatever the content type says.
pub fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body isn't a JSON object: {e}")))
}

/// Goes on with a prompt.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "answers",
    operation_id = "complete",
    params(("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = CompletionCall),
    responses((status = 200, description = "the completion, or with `stream` its pieces as events", content((Completion = "application/json"), (serde_json::Value = "text/event-stream"))))
)]
async fn completions(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    complete(service, caller, Shape::Text, object(&body)?).await
}

/// Answers a chat.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "answers",
    operation_id = "chat",
    params(("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = ChatCall),
    responses((status = 200, description = "the answer, or with `stream` its pieces as events", content((ChatCompletion = "application/json"), (serde_json::Value = "text/event-stream"))))
)]
async fn chat_completions(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    complete(service, caller, Shape::Chat, object(&body)?).await
}

/// Whether the service is there.
#[utoipa::path(get, path = "/healthz", tag = "service", operation_id = "health", security(()), responses((status = 200, description = "it is", body = String)))]
async fn health() -> &'static str {
    "ok\n"
}

/// A model as the API says it.
pub fn model_json(listed: &Listed) -> Value {
    json!({ "id": listed.id, "object": "model", "created": 0, "owned_by": "poa", "generation": listed.generation, "context": listed.context, "bytes": listed.bytes })
}

/// Models that answer.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "models",
    operation_id = "list_models",
    responses((status = 200, description = "models by name", body = List<Model>))
)]
async fn models(State(service): Shared, _: Caller) -> Answered {
    let list: Vec<Value> = service.catalog.all().iter().map(model_json).collect();
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}

/// A model by name.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "models",
    operation_id = "model",
    params(("id" = String, Path, description = "`base` or `base+adapter`")),
    responses((status = 200, description = "the model", body = Model))
)]
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

/// The caller's newest requests.
#[utoipa::path(
    get,
    path = "/v1/requests",
    tag = "requests",
    operation_id = "list_requests",
    responses((status = 200, description = "newest first, at most a hundred", body = List<KeptRequest>))
)]
async fn newest(State(service): Shared, caller: Caller) -> Answered {
    let list = requests::newest(&service.database, caller, 100)?;
    let list = list.iter().map(|r| request_json(&service, r)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}

/// An answered request.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}",
    tag = "requests",
    operation_id = "request",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "the request", body = KeptRequest))
)]
async fn request(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(request_json(&service, &requests::find(&service.database, caller, &id)?)?).into_response())
}

/// Whether a caller may read the samples that a model was trained on.
pub fn reads(service: &Service, caller: Caller, model: &str) -> Result<bool, ApiError> {
    if service.show_samples || caller.scope == Scope::Admin {
        return Ok(true);
    }
    let datanet = trainings::datanet_of(&service.database, model)?;
    Ok(datanet.map(|id| datanets::by_id(&service.database, id)).transpose()?.is_some_and(|of| of.is_read_by(caller)))
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

/// What an answer rests on.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}/attribution",
    tag = "requests",
    operation_id = "attribution",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "samples, contributors' shares, words", body = Attributed))
)]
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

/// Has an answer proven; asking twice is asking once.
#[utoipa::path(
    post,
    path = "/v1/requests/{id}/proof",
    tag = "requests",
    operation_id = "prove",
    params(("id" = String, Path, description = "a request"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    responses((status = 200, description = "it is over already", body = ProofJob), (status = 202, description = "it will be made", body = ProofJob))
)]
async fn prove(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    let job = enqueue_proof(&service, caller, &id).await?;
    let status = if job.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(job_json(&id, &job))).into_response())
}

/// A request's proof, however far it is.
pub fn found_job(service: &Service, caller: Caller, id: &str) -> Result<Job, ApiError> {
    requests::find(&service.database, caller, id)?;
    jobs::find(&service.database, PROVE, id)?.ok_or_else(|| ApiError::not_found("proof"))
}

/// How far a proof is.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}/proof",
    tag = "requests",
    operation_id = "proof",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "the proof's job", body = ProofJob))
)]
async fn proof(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(job_json(&id, &found_job(&service, caller, &id)?)).into_response())
}

/// Cancels a proof.
#[utoipa::path(
    delete,
    path = "/v1/requests/{id}/proof",
    tag = "requests",
    operation_id = "cancel_proof",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "the cancelled job", body = ProofJob))
)]
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

/// A finished proof.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}/proof.bin",
    tag = "requests",
    operation_id = "proof_file",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "what `poa verify` takes", body = Vec<u8>, content_type = "application/octet-stream"))
)]
async fn proof_file(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], file(&service, caller, &id, "proof")?).into_response())
}

/// What was proven.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}/statement.json",
    tag = "requests",
    operation_id = "statement",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "the statement", body = serde_json::Value))
)]
async fn statement_file(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(([(header::CONTENT_TYPE, "application/json")], file(&service, caller, &id, "statement")?).into_response())
}

/// All keys; for admins.
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "keys",
    operation_id = "list_keys",
    responses((status = 200, description = "keys by number", body = List<ListedKey>))
)]
async fn list_keys(State(service): Shared, caller: Caller) -> Answered {
    caller.admin()?;
    Ok(Json(json!({ "object": "list", "data": keys::list(&service.database)? })).into_response())
}

/// Makes a key; for admins.
#[utoipa::path(
    post,
    path = "/v1/keys",
    tag = "keys",
    operation_id = "make_key",
    request_body(content = NewKey),
    responses((status = 201, description = "the key, shown this once", body = MadeKey))
)]
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

/// Revokes a key; for admins.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "keys",
    operation_id = "revoke_key",
    params(("id" = i64, Path, description = "a key's number")),
    responses((status = 204, description = "done"))
)]
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

/// Serves an adapter that lies beneath the data directory; for admins.
#[utoipa::path(
    post,
    path = "/v1/load_lora_adapter",
    tag = "models",
    operation_id = "load_adapter",
    params(("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = LoraName),
    responses((status = 200, description = "the model", body = Model))
)]
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

/// Serves an adapter no longer; for admins. Its files stay.
#[utoipa::path(
    post,
    path = "/v1/unload_lora_adapter",
    tag = "models",
    operation_id = "unload_adapter",
    params(("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = LoraName),
    responses((status = 204, description = "done"))
)]
async fn unload_adapter(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    caller.admin()?;
    let (base, adapter) = adapter_named(&object(&body)?)?;
    if !service.catalog.remove(&format!("{base}+{adapter}")) {
        return Err(ApiError::not_found("model"));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}
