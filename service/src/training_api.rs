//! The API's routes about training.

use crate::api::object;
use crate::error::ApiError;
use crate::keys::Caller;
use crate::server::Service;
use crate::shapes::{Estimated, List, NewTraining, OrderedTraining, WholeTraining};
use crate::trainings::{self, Order, Settings, Training, epoch_json};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use steps::train::Estimate;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

type Shared = State<Arc<Service>>;
type Answered = Result<Response, ApiError>;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(one, cancel)).routes(routes!(resume))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    base: String,
    name: String,
    datanet: String,
    version: i64,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    dry_run: bool,
}

fn training_json(service: &Service, training: &Training) -> Result<Value, ApiError> {
    let mut value = json!(training);
    value["model"] = json!(training.model());
    value["epochs"] = trainings::epochs(&service.database, &training.id)?.iter().map(epoch_json).collect();
    Ok(value)
}

fn estimate_json(estimate: &Estimate) -> Value {
    let (least, most) = estimate.seconds;
    json!({ "seconds": { "least": least, "most": most }, "memory_bytes": estimate.memory })
}

/// What an order would take, or why it can't be; a few steps are made to see.
pub async fn estimated(service: &Arc<Service>, caller: Caller, order: Order) -> Result<Estimate, ApiError> {
    let permit = service.permit().await?;
    let service = service.clone();
    let work = move || {
        let _permit = permit;
        trainings::estimated(&service, caller, &order)
    };
    tokio::task::spawn_blocking(work).await?
}

/// The caller's trainings.
#[utoipa::path(
    get,
    path = "/v1/training-jobs",
    tag = "training",
    operation_id = "list_trainings",
    responses((status = 200, description = "newest first", body = List<WholeTraining>))
)]
async fn list(State(service): Shared, caller: Caller) -> Answered {
    let list = trainings::list(&service.database, caller)?;
    let list = list.iter().map(|t| training_json(&service, t)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}

/// Orders a training, or says what it would take.
#[utoipa::path(
    post,
    path = "/v1/training-jobs",
    tag = "training",
    operation_id = "order_training",
    params(("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    request_body(content = NewTraining),
    responses((status = 200, description = "with `dry_run`: the estimate", body = Estimated), (status = 202, description = "it will be made", body = OrderedTraining))
)]
async fn create(State(service): Shared, caller: Caller, body: Bytes) -> Answered {
    let ordered: Ordered =
        serde_json::from_value(Value::Object(object(&body)?)).map_err(|e| ApiError::invalid(format!("the body isn't an order: {e}")))?;
    let Ordered { base, name, datanet, version, settings, dry_run } = ordered;
    let order = Order { base, name, datanet, version, settings };
    let estimate = estimated(&service, caller, order.clone()).await?;
    if dry_run {
        return Ok(Json(json!({ "estimate": estimate_json(&estimate) })).into_response());
    }
    let training = trainings::start(&service, caller, &order)?;
    let mut value = training_json(&service, &training)?;
    value["estimate"] = estimate_json(&estimate);
    Ok((StatusCode::ACCEPTED, Json(value)).into_response())
}

/// How far a training is.
#[utoipa::path(
    get,
    path = "/v1/training-jobs/{id}",
    tag = "training",
    operation_id = "training",
    params(("id" = String, Path, description = "a training")),
    responses((status = 200, description = "the training", body = WholeTraining))
)]
async fn one(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(training_json(&service, &trainings::find(&service.database, caller, &id)?)?).into_response())
}

/// Cancels a training; what it has learnt is kept.
#[utoipa::path(
    delete,
    path = "/v1/training-jobs/{id}",
    tag = "training",
    operation_id = "cancel_training",
    params(("id" = String, Path, description = "a training")),
    responses((status = 200, description = "the training", body = WholeTraining))
)]
async fn cancel(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(training_json(&service, &trainings::cancel(&service, caller, &id)?)?).into_response())
}

/// Goes on with a training.
#[utoipa::path(
    post,
    path = "/v1/training-jobs/{id}/resume",
    tag = "training",
    operation_id = "resume_training",
    params(("id" = String, Path, description = "a training"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    responses((status = 202, description = "the training", body = WholeTraining))
)]
async fn resume(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    Ok((StatusCode::ACCEPTED, Json(training_json(&service, &trainings::resume(&service, caller, &id)?)?)).into_response())
}
