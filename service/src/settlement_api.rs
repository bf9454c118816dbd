//! Routes of settlements and of policies: what is paid for, how far it is, its files, and which answers are proven and paid without being asked for.

use crate::api::{Answered, Shared, object};
use crate::error::ApiError;
use crate::keys::Caller;
use crate::making::Making;
use crate::policies::{self, ALL, Policy};
use crate::proofs::PROVE;
use crate::requests::{self, Request};
use crate::server::Service;
use crate::settlements::{self, FILES, Settlement};
use crate::shapes::{List, NewPolicy};
use crate::{attributions, jobs};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Settlements that are listed.
const LISTED: usize = 100;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(of_request, settle, cancel))
        .routes(routes!(newest))
        .routes(routes!(settlement))
        .routes(routes!(download))
        .routes(routes!(list))
        .routes(routes!(policy, set_policy))
}

/// What became of a request, three times: whether it's answered, whether that is proven, whether it's paid for. None follows from another.
pub fn states(service: &Service, request: &str) -> rusqlite::Result<Map<String, Value>> {
    let (proof, settlement) = (jobs::find(&service.database, PROVE, request)?, settlements::find(&service.database, request)?);
    let (execution, phase) = execution(proof.as_ref(), settlement.as_ref());
    let states = json!({
        "fulfilment": { "state": "answered" },
        "execution": { "state": execution, "phase": phase },
        "settlement": { "state": settlement.as_ref().map_or("none", |s| s.state) },
    });
    Ok(states.as_object().cloned().unwrap_or_default())
}

/// How far proofs of a request are: its native one, and the one it's settled with.
fn execution(proof: Option<&jobs::Job>, settlement: Option<&Settlement>) -> (&'static str, Option<String>) {
    let made = |step: &str| settlement.is_some_and(|s| s.steps.contains_key(step));
    let native = proof.map(|job| job.state.as_str());
    let settling = settlement.and_then(|s| s.job.as_ref());
    let phase = |job: Option<&jobs::Job>| job.and_then(|job| job.phase.clone());
    match (native, settling.map(|job| job.state.as_str())) {
        _ if made("wrapped") => ("wrapped", None),
        (_, Some("running")) if made("proven") => ("wrapping", phase(settling)),
        (Some("done"), _) => ("proven", None),
        _ if made("proven") => ("proven", None),
        (Some("running"), _) => ("proving", phase(proof)),
        (_, Some("running")) => ("proving", phase(settling)),
        (Some("queued"), _) | (_, Some("queued")) => ("queued", None),
        (None, None) => ("none", None),
        _ => ("failed", None),
    }
}

/// Has a request settled that a caller may see; asking twice is asking once.
///
/// # Errors
///
/// When the model has no index, or is another by now.
pub async fn enqueue(service: &Arc<Service>, caller: Caller, id: &str) -> Result<Settlement, ApiError> {
    let request = requests::find(&service.database, caller, id)?;
    if let Some(settlement) = settlements::find(&service.database, id)?.filter(|s| ["paid", "refunded"].contains(&s.state)) {
        return Ok(settlement);
    }
    let permit = service.permit().await?;
    let of = service.clone();
    let check = move || {
        let _permit = permit;
        checked(&of, &request)
    };
    tokio::task::spawn_blocking(check).await??;
    service.database.write(|t| settlements::enqueue_in(t, id))?;
    found(service, caller, id)
}

/// Whether a request can be settled at all.
fn checked(service: &Service, request: &Request) -> Result<(), ApiError> {
    let served = service.catalog.get(&request.model)?;
    request.run(&served)?;
    if served.index().is_none() {
        return Err(ApiError::conflict(format!("{} has no index: there is nobody to pay", request.model)));
    }
    if attributions::of(&service.database, &served, request)?.weights.is_empty() {
        return Err(ApiError::conflict("no sample passed the noise floor: there is nobody to pay"));
    }
    Making::new(service, request).map_err(ApiError::from).map(|_| ())
}

/// A settlement that a caller may see.
pub fn found(service: &Service, caller: Caller, id: &str) -> Result<Settlement, ApiError> {
    requests::find(&service.database, caller, id)?;
    settlements::find(&service.database, id)?.ok_or_else(|| ApiError::not_found("settlement"))
}

/// Has an answer paid for; asking twice is asking once.
#[utoipa::path(
    post,
    path = "/v1/requests/{id}/settlement",
    tag = "settlements",
    operation_id = "settle",
    params(("id" = String, Path, description = "a request"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    responses((status = 200, description = "it is over already", body = Settlement), (status = 202, description = "it will be settled", body = Settlement))
)]
async fn settle(State(service): Shared, caller: Caller, Path(id): Path<String>, body: Bytes) -> Answered {
    if !body.is_empty()
        && let Some(other) = object(&body)?.keys().next()
    {
        return Err(ApiError::parameter(other, format!("{other} isn't supported")));
    }
    let settlement = enqueue(&service, caller, &id).await?;
    let over = settlement.job.as_ref().is_none_or(jobs::Job::is_over);
    Ok((if over { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(json!(settlement))).into_response())
}

/// How far a request's payment is.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}/settlement",
    tag = "settlements",
    operation_id = "settlement_of_request",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "the settlement", body = Settlement))
)]
async fn of_request(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(json!(found(&service, caller, &id)?)).into_response())
}

/// One settlement.
#[utoipa::path(
    get,
    path = "/v1/settlements/{id}",
    tag = "settlements",
    operation_id = "settlement",
    params(("id" = String, Path, description = "the request that it is of")),
    responses((status = 200, description = "the settlement", body = Settlement))
)]
async fn settlement(shared: Shared, caller: Caller, id: Path<String>) -> Answered {
    of_request(shared, caller, id).await
}

/// Cancels a settlement, as long as nothing is paid.
#[utoipa::path(
    delete,
    path = "/v1/requests/{id}/settlement",
    tag = "settlements",
    operation_id = "cancel_settlement",
    params(("id" = String, Path, description = "a request")),
    responses((status = 200, description = "the cancelled settlement", body = Settlement))
)]
async fn cancel(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    let settlement = found(&service, caller, &id)?;
    if !settlements::cancel(&service.database, &id)? {
        let message = if settlement.steps.is_empty() { "the settlement is over" } else { "the fee may be paid already" };
        let hint = "it is earned by a proof, or goes back to the payer once its deadline is over and the settlement is asked for again";
        return Err(ApiError { hint: Some(hint.into()), ..ApiError::conflict(message) });
    }
    Ok(Json(json!(found(&service, caller, &id)?)).into_response())
}

/// The caller's settlements.
#[utoipa::path(
    get,
    path = "/v1/settlements",
    tag = "settlements",
    operation_id = "list_settlements",
    responses((status = 200, description = "newest first, at most a hundred", body = List<Settlement>))
)]
async fn newest(State(service): Shared, caller: Caller) -> Answered {
    let list = settlements::newest(&service.database, caller, LISTED)?;
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}

/// A file of a settlement, by its name.
pub fn file(service: &Service, caller: Caller, id: &str, name: &str) -> Result<(Vec<u8>, &'static str), ApiError> {
    let settlement = found(service, caller, id)?;
    let (_, step, key, kind) = FILES.iter().find(|(own, ..)| *own == name).ok_or_else(|| ApiError::not_found("file"))?;
    let hash = settlement.steps.get(*step).and_then(|outcome| outcome[*key].as_str());
    let hash = hash.ok_or_else(|| ApiError::conflict(format!("{name} isn't made yet")))?;
    Ok((service.files.get(hash)?, kind))
}

/// A file of a settlement, by the name that it is listed under.
#[utoipa::path(
    get,
    path = "/v1/settlements/{id}/files/{name}",
    tag = "settlements",
    operation_id = "settlement_file",
    params(("id" = String, Path, description = "the request that it is of"), ("name" = String, Path, description = "`outer-proof.json`, `outer-statement.json`, `outer.vk` or `inner-proof.bin`")),
    responses((status = 200, description = "what `poa verify` takes", content((serde_json::Value = "application/json"), (Vec<u8> = "application/octet-stream"))))
)]
async fn download(State(service): Shared, caller: Caller, Path((id, name)): Path<(String, String)>) -> Answered {
    let (bytes, kind) = file(&service, caller, &id, &name)?;
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

/// Policies of all models that are served.
pub fn all_policies(service: &Service) -> rusqlite::Result<Vec<Policy>> {
    service.catalog.all().iter().map(|listed| policies::find(&service.database, &listed.id)).collect()
}

/// Policies of all models.
#[utoipa::path(
    get,
    path = "/v1/policies",
    tag = "settlements",
    operation_id = "list_policies",
    responses((status = 200, description = "by model", body = List<Policy>))
)]
async fn list(State(service): Shared, caller: Caller) -> Answered {
    caller.admin()?;
    Ok(Json(json!({ "object": "list", "data": all_policies(&service)? })).into_response())
}

/// Which answers of a model are proven and paid for unasked.
#[utoipa::path(
    get,
    path = "/v1/policies/{model}",
    tag = "settlements",
    operation_id = "policy",
    params(("model" = String, Path, description = "a model's name")),
    responses((status = 200, description = "the policy", body = Policy))
)]
async fn policy(State(service): Shared, caller: Caller, Path(model): Path<String>) -> Answered {
    caller.admin()?;
    service.catalog.listed(&model)?;
    Ok(Json(json!(policies::find(&service.database, &model)?)).into_response())
}

/// Sets a model's policy.
///
/// # Errors
///
/// When the model isn't served, a share is none, or nobody could be paid.
pub fn change_policy(service: &Service, policy: &Policy) -> Result<(), ApiError> {
    let listed = service.catalog.listed(&policy.model)?;
    for (name, bps) in [("proof_bps", policy.proof_bps), ("settlement_bps", policy.settlement_bps)] {
        if bps > ALL {
            return Err(ApiError::parameter(name, format!("{name} is {bps}, expected basis points from 0 to {ALL}")));
        }
    }
    if policy.settlement_bps > 0 && listed.generation.index.is_none() {
        return Err(ApiError::parameter("settlement_bps", format!("settlement_bps: {} has no index: there is nobody to pay", policy.model)));
    }
    Ok(policies::set(&service.database, policy)?)
}

/// Sets that, for answers from now on.
#[utoipa::path(
    put,
    path = "/v1/policies/{model}",
    tag = "settlements",
    operation_id = "set_policy",
    params(("model" = String, Path, description = "a model's name")),
    request_body(content = NewPolicy),
    responses((status = 200, description = "the policy", body = Policy))
)]
async fn set_policy(State(service): Shared, caller: Caller, Path(model): Path<String>, body: Bytes) -> Answered {
    caller.admin()?;
    let body = object(&body)?;
    let mut policy = policies::find(&service.database, &model)?;
    for (name, value) in &body {
        let bps = value.as_u64().and_then(|bps| u32::try_from(bps).ok());
        let bps = bps.ok_or_else(|| ApiError::parameter(name, format!("{name}: expected basis points from 0 to {ALL}")));
        match name.as_str() {
            "proof_bps" => policy.proof_bps = bps?,
            "settlement_bps" => policy.settlement_bps = bps?,
            other => return Err(ApiError::parameter(other, format!("{other} isn't supported"))),
        }
    }
    change_policy(&service, &policy)?;
    Ok(Json(json!(policy)).into_response())
}
