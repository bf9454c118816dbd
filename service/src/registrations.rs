//! A model's index, registered: each of its rows proven to be its sample's sketch, once, for all proofs of answers to rely on.
//!
//! A registration is of an index, by its pin: whatever is called like the model later has none until its own index is registered.

use crate::api::{Answered, Shared, reads};
use crate::catalog::Served;
use crate::database::Database;
use crate::datanets;
use crate::error::ApiError;
use crate::jobs::{self, Job};
use crate::keys::{Caller, Scope};
use crate::openai::model;
use crate::server::Service;
use crate::trainings;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use circuits::registration::Known;
use circuits::statement::Digest;
use serde_json::{Value, json};
use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::sync::Arc;
use steps::error::{Failure, While};
use steps::progress::Observer;
use steps::registration::{CHUNK_LOG, Registered, RegistrationDir, Source, differs_from_datanet, register};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// The kind of job that registers an index.
pub const REGISTER: &str = "register";

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(one, begin, cancel)).routes(routes!(archive))
}

/// The index' pin: what a registration is of.
fn index_of(service: &Service, id: &str) -> Result<Digest, ApiError> {
    let listed = service.catalog.listed(id)?;
    listed.generation.index.ok_or_else(|| ApiError::conflict(format!("{id} has no index, so there is nothing to register")))
}

/// The registration of a model's index, however far it is.
pub fn find(database: &Database, index: Digest) -> rusqlite::Result<Option<Job>> {
    jobs::find(database, REGISTER, &index.to_string())
}

/// What proofs of a model's answers may rely on: its index' registration, once it's proven and verified.
///
/// # Errors
///
/// When the database can't be read.
pub fn known(database: &Database, served: &Served) -> rusqlite::Result<Option<Known>> {
    let Some(index) = served.generation.index else { return Ok(None) };
    let done = find(database, index)?.filter(|job| job.state == "done");
    Ok(done.and_then(|job| serde_json::from_value(job.result?["known"].take()).ok()))
}

/// Queues the registration of a model's index.
///
/// # Errors
///
/// When the caller isn't an admin or the one who trained it, or it has no index.
pub fn enqueue(service: &Service, caller: Caller, id: &str) -> Result<Job, ApiError> {
    let index = index_of(service, id)?;
    check_owner(service, caller, id)?;
    Ok(jobs::enqueue(&service.database, REGISTER, &index.to_string())?)
}

/// Refuses everyone but admins and who trained a model.
pub fn check_owner(service: &Service, caller: Caller, id: &str) -> Result<(), ApiError> {
    let trained = trainings::of_model(&service.database, id)?.is_some_and(|training| training.key == caller.key);
    match caller.scope == Scope::Admin || trained {
        true => Ok(()),
        false => Err(ApiError::forbidden("this needs an admin's key, or that of whoever trained the model")),
    }
}

/// Registers an index and verifies what was proven; proofs that an earlier attempt made are kept.
pub fn work(service: &Service, index: &str, on: &dyn Observer) -> Result<Value, Failure> {
    let listed = service.catalog.all().into_iter().find(|listed| listed.generation.index.is_some_and(|pin| pin.to_string() == index));
    let listed = listed.ok_or_else(|| Failure::input("no model with that index is served any more"))?;
    let served = service.catalog.get(&listed.id).map_err(|e| Failure::input(e.message))?;
    let (Some(adapter), Some(of)) = (served.adapter(), served.index()) else { return Err(Failure::input("the model has no index")) };
    let shelves = served.shelves();
    let dir = directory(&served).ok_or_else(|| Failure::input("the model has no index"))?;
    let source = Source { model: served.model(), adapter, index: of, shelves };
    let (registered, digest) = register(&source, &dir, CHUNK_LOG, on)?;
    let accepted = dir.verify_proofs(&registered, on)?;
    let (mut known, rows) = (accepted.known, registered.registration.samples.len());
    known.datanet_compared = compared(service, &served, &registered, on)?;
    let earning = registered.registration.samples.iter().filter(|sample| sample.earns).count();
    Ok(json!({
        "registration": digest, "model": served.id, "generation": served.generation, "rows": rows, "earning": earning,
        "proofs": registered.chunks.len() + 3, "security_bits": accepted.security_bits, "known": known,
    }))
}

/// Where a model's registration is.
fn directory(served: &Served) -> Option<RegistrationDir> {
    served.shelves().index.map(RegistrationDir::of_index)
}

/// Whether what is registered was compared with the version that the model was trained on.
fn compared(service: &Service, served: &Served, registered: &Registered, on: &dyn Observer) -> Result<bool, Failure> {
    let Some(training) = trainings::of_model(&service.database, &served.id).during("reading the training")? else { return Ok(false) };
    let datanet = datanets::by_id(&service.database, training.datanet_id).during("reading the datanet")?;
    let version = datanets::find_version(&service.database, &datanet, training.version).map_err(|e| Failure::input(e.message))?;
    let samples = datanets::samples(&service.files, &version)?;
    match differs_from_datanet(registered, samples, &served.model().tokenizer, on)? {
        None => Ok(true),
        Some(difference) => Err(Failure::invalid(difference)),
    }
}

/// A registration as it's told.
fn told(job: &Job) -> Value {
    let mut value = json!(job);
    if let Some(result) = value["result"].as_object_mut() {
        result.remove("known");
    }
    value
}

fn found(service: &Service, id: &str) -> Result<Job, ApiError> {
    find(&service.database, index_of(service, id)?)?.ok_or_else(|| ApiError::not_found("registration"))
}

/// How far the registration of a model's index is.
#[utoipa::path(
    get,
    path = "/v1/models/{id}/registration",
    tag = "models",
    operation_id = "registration",
    params(("id" = String, Path, description = "`base+adapter`")),
    responses((status = 200, description = "the registration's job", body = Job))
)]
async fn one(State(service): Shared, _: Caller, Path(id): Path<String>) -> Answered {
    Ok(Json(told(&found(&service, &id)?)).into_response())
}

/// Has every row of a model's index proven; asking twice is asking once.
#[utoipa::path(
    post,
    path = "/v1/models/{id}/registration",
    tag = "models",
    operation_id = "register",
    params(("id" = String, Path, description = "`base+adapter`"), ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")),
    responses((status = 200, description = "it is over already", body = Job), (status = 202, description = "it will be made", body = Job))
)]
async fn begin(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    let job = enqueue(&service, caller, &id)?;
    let status = if job.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(told(&job))).into_response())
}

/// Cancels a registration; proofs that were made are kept.
#[utoipa::path(
    delete,
    path = "/v1/models/{id}/registration",
    tag = "models",
    operation_id = "cancel_registration",
    params(("id" = String, Path, description = "`base+adapter`")),
    responses((status = 200, description = "the cancelled job", body = Job))
)]
async fn cancel(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    check_owner(&service, caller, &id)?;
    if !jobs::cancel(&service.database, REGISTER, &index_of(&service, &id)?.to_string())? {
        return Err(ApiError::conflict("the registration is neither waiting nor being made"));
    }
    Ok(Json(told(&found(&service, &id)?)).into_response())
}

/// A model's registration, as an archive.
#[utoipa::path(
    get,
    path = "/v1/models/{id}/registration.zip",
    tag = "models",
    operation_id = "registration_files",
    params(("id" = String, Path, description = "`base+adapter`")),
    responses((status = 200, description = "what `poa verify --registration` reads, unpacked", body = Vec<u8>, content_type = "application/zip"))
)]
async fn archive(State(service): Shared, caller: Caller, Path(id): Path<String>) -> Answered {
    files(&service, caller, &id).await
}

/// What `poa verify --registration` reads, for those who may read the samples: their tokens are in it.
pub async fn files(service: &Arc<Service>, caller: Caller, id: &str) -> Answered {
    let job = found(service, id)?;
    let Some(result) = job.result.filter(|_| job.state == "done") else { return Err(ApiError::conflict("the registration isn't proven yet")) };
    if !reads(service, caller, id)? {
        return Err(ApiError::forbidden("the registration has the samples' tokens, and the texts of this model's datanet aren't public"));
    }
    // Models with one index have one registration, which lies with the one that it was made for.
    let served = model(service, result["model"].as_str().unwrap_or(id)).await?;
    let dir = directory(&served).ok_or_else(|| ApiError::not_found("registration"))?;
    let zip = service.reading(move |_| Ok(zipped(dir.path().to_owned())?)).await?;
    Ok(([(header::CONTENT_TYPE, "application/zip"), (header::CONTENT_DISPOSITION, "attachment; filename=\"registration.zip\"")], zip).into_response())
}

fn zipped(dir: PathBuf) -> Result<Vec<u8>, Failure> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let entries = std::fs::read_dir(&dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).during_path("reading", &dir)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file(name, options).during("writing the archive")?;
        zip.write_all(&std::fs::read(&path).during_path("reading", &path)?).during("writing the archive")?;
    }
    Ok(zip.finish().during("writing the archive")?.into_inner())
}
