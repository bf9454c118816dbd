//! The API's routes about datanets.

use crate::api::object;
use crate::contributors::{self, Account};
use crate::datanets::{self, Datanet};
use crate::error::ApiError;
use crate::keys::{self, Caller};
use crate::server::Service;
use crate::trainings;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use model_runtime::text::Sample;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Most bytes of an upload.
pub const UPLOAD: usize = 64 << 20;

type Shared = State<Arc<Service>>;
type Answered = Result<Response, ApiError>;

/// The routes.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v1/datanets", get(list).post(create))
        .route("/v1/datanets/{name}", get(one))
        .route("/v1/datanets/{name}/submissions", post(submit).layer(DefaultBodyLimit::max(UPLOAD)))
        .route("/v1/datanets/{name}/submissions/{id}", post(decide))
        .route("/v1/datanets/{name}/versions", post(publish))
        .route("/v1/datanets/{name}/versions/{version}", get(samples))
        .route("/v1/datanets/{name}/versions/{version}/withdrawals", post(withdraw))
        .route("/v1/contributors/{name}", get(contributor))
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

async fn list(State(service): Shared, _: Caller) -> Answered {
    Ok(Json(json!({ "object": "list", "data": datanets::list(&service.database)? })).into_response())
}

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
pub async fn published(service: &Arc<Service>, caller: Caller, name: String) -> Result<datanets::Version, ApiError> {
    let work = move |service: &Service| {
        let of = datanets::find(&service.database, &name)?;
        datanets::publish(&service.database, &service.files, caller, &of)
    };
    service.reading(work).await
}

async fn publish(State(service): Shared, caller: Caller, Path(name): Path<String>) -> Answered {
    Ok((StatusCode::CREATED, Json(published(&service, caller, name).await?)).into_response())
}

async fn samples(State(service): Shared, caller: Caller, Path((name, version)): Path<(String, i64)>) -> Answered {
    let of = datanets::find(&service.database, &name)?;
    if !of.is_read_by(caller) {
        return Err(ApiError::forbidden(format!("the texts of {name} aren't public")));
    }
    let version = datanets::find_version(&service.database, &of, version)?;
    let text = service.reading(move |service| Ok(datanets::samples(&service.files, &version)?.to_jsonl())).await?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], text).into_response())
}

async fn withdraw(State(service): Shared, caller: Caller, Path((name, version)): Path<(String, i64)>, body: Bytes) -> Answered {
    let body = object(&body)?;
    known(&body, &["sample"])?;
    let sample = body.get("sample").and_then(Value::as_u64).ok_or_else(|| ApiError::parameter("sample", "sample: expected a sample's number"))?;
    Ok(Json(json!(taken_back(&service, caller, name, version, sample as usize).await?)).into_response())
}

/// Takes a sample back.
pub async fn taken_back(service: &Arc<Service>, caller: Caller, name: String, version: i64, sample: usize) -> Result<Sample, ApiError> {
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

async fn contributor(State(service): Shared, caller: Caller, Path(name): Path<String>) -> Answered {
    Ok(Json(account(&service, caller, name).await?).into_response())
}
