//! The API's routes about datanets.

use crate::api::object;
use crate::contributors::{self, Account};
use crate::datanets::{self, Datanet, Version};
use crate::error::ApiError;
use crate::keys::{self, Caller};
use crate::server::Service;
use crate::shapes::{Decision, List, NewDatanet, Sample, SampleNumber, Submitted, WholeDatanet};
use crate::trainings;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model_runtime::text::Sample as Taken;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Most bytes of an upload.
pub const UPLOAD: usize = 64 << 20;

type Shared = State<Arc<Service>>;
type Answered = Result<Response, ApiError>;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one))
        .merge(OpenApiRouter::new().routes(routes!(submit)).layer(DefaultBodyLimit::max(UPLOAD)))
        .routes(routes!(decide))
        .routes(routes!(publish))
        .routes(routes!(samples))
        .routes(routes!(withdraw))
        .routes(routes!(contributor))
}

/// Refuses what a call says that isn't understood.
fn known(body: &Map<String, Value>, names: &[&str]) -> Result<(), ApiError> {
    match body.keys().find(|key| !names.contains(&key.as_str())) {
        Some(other) => Err(ApiError::parameter(other, format!("{other} isn't supported"))),
        None => Ok(()),
    }
}

fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Result<&'a str, ApiError> {
    body.get(name).and_then(Value::as_str).ok_or_else(|| ApiError::parameter(name, format!("{name}: expected a text")))
}

fn datanet_json(service: &Service, caller: Caller, of: &Datanet) -> Result<Value, ApiError> {
    let mut value = json!(of);
    value["owner"] = json!(keys::name(&service.database, of.owner)?);
    value["versions"] = json!(datanets::versions(&service.database, of)?);
    value["submissions"] = json!(datanets::submissions(&service.database, caller, of)?);
    let models = trainings::models_of(&service.database, of.id)?;
    value["models"] = models.into_iter().map(|(model, version)| json!({ "model": model, "version": version })).collect();
    Ok(value)
}

/// All datanets.
#[utoipa::path(
    get,
    path = "/v1/datanets",
    tag = "datanets",
    operation_id = "list_datanets",
    responses((status = 200, description = "by name", body = List<Datanet>))
)]
async fn list(State(service): Shared, _: Caller) -> Answered {
    Ok(Json(json!({ "object": "list", "data": datanets::list(&service.database)? })).into_response())
}

/// Begins a datanet.
#[utoipa::path(
    post,
    path = "/v1/datanets",
    tag = "datanets",
    operation_id = "make_datanet",
    params(("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = NewDatanet),
    responses((status = 201, description = "the datanet", body = WholeDatanet))
)]
async fn create(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    let body = object(&body)?;
    known(&body, &["name", "licence", "public"])?;
    let public = match body.get("public") {
        None => false,
        Some(public) => public.as_bool().ok_or_else(|| ApiError::parameter("public", "public: expected true or false"))?,
    };
    let made = datanets::create(&service.database, caller, text(&body, "name")?, text(&body, "licence")?, public)?;
    Ok((StatusCode::CREATED, Json(datanet_json(&service, caller, &made)?)).into_response())
}

/// A datanet with its versions, submissions and models.
#[utoipa::path(
    get,
    path = "/v1/datanets/{name}",
    tag = "datanets",
    operation_id = "datanet",
    params(("name" = String, Path, description = "a datanet")),
    responses((status = 200, description = "the datanet", body = WholeDatanet))
)]
async fn one(State(service): Shared, caller: Caller, Path(name): Path<String>) -> Answered {
    Ok(Json(datanet_json(&service, caller, &datanets::find(&service.database, &name)?)?).into_response())
}

/// Who may submit: known before a body is read.
struct Contributing(Caller);

impl FromRequestParts<Arc<Service>> for Contributing {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, service).await?;
        if caller.contributes() { Ok(Self(caller)) } else { Err(ApiError::forbidden("this needs a contributor's, an owner's or an admin's key")) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Uploaded {
    filename: String,
    #[serde(default)]
    preview: bool,
}

/// What was uploaded as a body: read on a thread of its own, kept unless it is a preview.
pub async fn uploaded(service: &Arc<Service>, caller: Caller, name: String, filename: String, bytes: Bytes, keep: bool) -> Result<Value, ApiError> {
    let work = move |service: &Service| {
        let of = datanets::find(&service.database, &name)?;
        if !keep {
            return Ok(json!(datanets::preview(&service.database, &service.files, caller, &of, &filename, &bytes)?.report));
        }
        Ok(json!(datanets::submit(&service.database, &service.files, caller, &of, &filename, &bytes)?))
    };
    service.reading(work).await
}

/// Submits samples; the body is the file.
#[utoipa::path(
    post,
    path = "/v1/datanets/{name}/submissions",
    tag = "datanets",
    operation_id = "submit",
    params(("name" = String, Path, description = "a datanet"), ("filename" = String, Query, description = "What it is called: its extension says how it is read"), ("preview" = Option<bool>, Query, description = "Whether nothing is kept"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "with `preview`: what there is to say of it", body = Submitted), (status = 201, description = "kept, for the owner to decide on", body = Submitted))
)]
async fn submit(
    State(service): Shared,
    Contributing(caller): Contributing,
    Path(name): Path<String>,
    query: Query<Uploaded>,
    bytes: Bytes,
) -> Answered {
    let Query(Uploaded { filename, preview }) = query;
    let value = uploaded(&service, caller, name, filename, bytes, !preview).await?;
    let status = if preview { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(value)).into_response())
}

/// Takes a submission in, or rejects it.
#[utoipa::path(
    post,
    path = "/v1/datanets/{name}/submissions/{id}",
    tag = "datanets",
    operation_id = "decide",
    params(("name" = String, Path, description = "a datanet"), ("id" = i64, Path, description = "a submission's number"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = Decision),
    responses((status = 200, description = "the datanet", body = WholeDatanet))
)]
async fn decide(State(service): Shared, caller: Caller, Path((name, id)): Path<(String, i64)>, body: Bytes) -> Answered {
    let body = object(&body)?;
    known(&body, &["decision", "reason"])?;
    let rejected = match text(&body, "decision")? {
        "approve" if body.contains_key("reason") => return Err(ApiError::parameter("reason", "reason: only what is rejected has one")),
        "approve" => None,
        "reject" => Some(text(&body, "reason")?),
        _ => return Err(ApiError::parameter("decision", "decision: expected approve or reject")),
    };
    let of = datanets::find(&service.database, &name)?;
    datanets::decide(&service.database, caller, &of, id, rejected)?;
    Ok(Json(datanet_json(&service, caller, &of)?).into_response())
}

/// Publishes a version on a thread of its own.
pub async fn published(service: &Arc<Service>, caller: Caller, name: String) -> Result<Version, ApiError> {
    let work = move |service: &Service| {
        let of = datanets::find(&service.database, &name)?;
        datanets::publish(&service.database, &service.files, caller, &of)
    };
    service.reading(work).await
}

/// Publishes a version of what was taken in.
#[utoipa::path(
    post,
    path = "/v1/datanets/{name}/versions",
    tag = "datanets",
    operation_id = "publish",
    params(("name" = String, Path, description = "a datanet"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    responses((status = 201, description = "the version", body = Version))
)]
async fn publish(State(service): Shared, caller: Caller, Path(name): Path<String>) -> Answered {
    Ok((StatusCode::CREATED, Json(published(&service, caller, name).await?)).into_response())
}

/// A version's samples.
#[utoipa::path(
    get,
    path = "/v1/datanets/{name}/versions/{version}",
    tag = "datanets",
    operation_id = "samples",
    params(("name" = String, Path, description = "a datanet"), ("version" = i64, Path, description = "a version's number")),
    responses((status = 200, description = "JSON lines with contributor and text", body = String, content_type = "application/jsonl"))
)]
async fn samples(State(service): Shared, caller: Caller, Path((name, version)): Path<(String, i64)>) -> Answered {
    let of = datanets::find(&service.database, &name)?;
    if !of.is_read_by(caller) {
        return Err(ApiError::forbidden(format!("the texts of {name} aren't public")));
    }
    let version = datanets::find_version(&service.database, &of, version)?;
    let text = service.reading(move |service| Ok(datanets::samples(&service.files, &version)?.to_jsonl())).await?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], text).into_response())
}

/// Takes a sample back: no later version has it.
#[utoipa::path(
    post,
    path = "/v1/datanets/{name}/versions/{version}/withdrawals",
    tag = "datanets",
    operation_id = "withdraw",
    params(("name" = String, Path, description = "a datanet"), ("version" = i64, Path, description = "a version's number"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = SampleNumber),
    responses((status = 200, description = "the sample", body = Sample))
)]
async fn withdraw(State(service): Shared, caller: Caller, Path((name, version)): Path<(String, i64)>, body: Bytes) -> Answered {
    let body = object(&body)?;
    known(&body, &["sample"])?;
    let sample = body.get("sample").and_then(Value::as_u64).ok_or_else(|| ApiError::parameter("sample", "sample: expected a sample's number"))?;
    Ok(Json(json!(taken_back(&service, caller, name, version, sample as usize).await?)).into_response())
}

/// Takes a sample back.
pub async fn taken_back(service: &Arc<Service>, caller: Caller, name: String, version: i64, sample: usize) -> Result<Taken, ApiError> {
    let work = move |service: &Service| {
        let of = datanets::find(&service.database, &name)?;
        datanets::withdraw(&service.database, &service.files, caller, &of, version, sample)
    };
    service.reading(work).await
}

/// What became of a contributor's samples.
pub async fn account(service: &Arc<Service>, caller: Caller, name: String) -> Result<Account, ApiError> {
    service.reading(move |service| contributors::account(&service.database, &service.files, caller, &name)).await
}

/// What became of a contributor's samples.
#[utoipa::path(
    get,
    path = "/v1/contributors/{name}",
    tag = "datanets",
    operation_id = "contributor",
    params(("name" = String, Path, description = "a contributor")),
    responses((status = 200, description = "the account", body = Account))
)]
async fn contributor(State(service): Shared, caller: Caller, Path(name): Path<String>) -> Answered {
    Ok(Json(account(&service, caller, name).await?).into_response())
}
