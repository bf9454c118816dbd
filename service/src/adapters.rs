//! Adapters from elsewhere and for elsewhere: PEFT's, uploaded as a zip, checked against their base, quantised and served by a job; and the float
//! adapters of what is served, as PEFT reads them.

use crate::api::{Answered, Shared};
use crate::catalog::Base;
use crate::database::{Database, hex, now, random};
use crate::datanet_api::UPLOAD;
use crate::datanets;
use crate::error::ApiError;
use crate::idempotency::made;
use crate::jobs::{self, Claim, Job};
use crate::keys::{Caller, Scope};
use crate::openai::model;
use crate::server::Service;
use crate::shapes::List;
use crate::trainings::{self, Origin, Parts};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path as Named, Query, State};
use axum::http::request::Parts as Head;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use model_runtime::import::load_peft;
use model_runtime::shape::{FloatAdapter, ModelShape};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;
use steps::error::{Failure, While};
use steps::import::self_written;
use steps::progress::{Event, Observer};
use steps::texts::{Prepared, Window, Windows, prepare};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

/// The kind of job that takes an adapter in.
pub const ADOPT: &str = "adopt";
/// PEFT's two files.
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Files beside them that change nothing.
const BESIDE: [&str; 4] = ["README.md", "LICENSE", "LICENSE.txt", ".gitattributes"];
/// Endings of files that run code when they are read.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"];
/// Most bytes of the weights, unpacked, of their header, and of the configuration.
const UNPACKED: u64 = 256 << 20;
const HEADER: u64 = 1 << 20;
const CONFIGURATION: u64 = 1 << 18;
/// Most files of an archive.
const FILES: usize = 32;
/// Largest rank.
const RANK: u64 = 256;
/// Texts that the base writes to calibrate with, where no datanet is named.
const SELF_WRITTEN: usize = 24;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<Service>> {
    let upload = OpenApiRouter::new().routes(routes!(list, upload)).layer(DefaultBodyLimit::max(UPLOAD));
    OpenApiRouter::new().merge(upload).routes(routes!(one)).routes(routes!(export))
}

/// An uploaded adapter.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Adapter {
    /// Its id.
    pub id: String,
    /// Whose it is.
    #[serde(skip)]
    pub key: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// On which base.
    pub base: String,
    /// What it's called.
    pub name: String,
    /// `base+name`.
    pub model: String,
    #[serde(skip)]
    file: String,
    #[serde(skip)]
    datanet_id: Option<i64>,
    /// Of which datanet its index is.
    pub datanet: Option<String>,
    /// Which version of it.
    pub version: Option<i64>,
    /// What becomes of it.
    pub job: Option<Job>,
}

const SELECT: &str = "SELECT adapters.*, datanets.name AS datanet_name FROM adapters LEFT JOIN datanets ON datanets.id = adapters.datanet";

fn adapter(row: &Row<'_>) -> rusqlite::Result<Adapter> {
    let (base, name): (String, String) = (row.get("base")?, row.get("name")?);
    Ok(Adapter {
        id: row.get("id")?,
        key: row.get("key")?,
        created: row.get("created")?,
        model: format!("{base}+{name}"),
        base,
        name,
        file: row.get("file")?,
        datanet_id: row.get("datanet")?,
        datanet: row.get("datanet_name")?,
        version: row.get("version")?,
        job: None,
    })
}

fn with_job(database: &Database, mut adapter: Adapter) -> rusqlite::Result<Adapter> {
    adapter.job = jobs::find(database, ADOPT, &adapter.id)?;
    Ok(adapter)
}

fn any(database: &Database, id: &str) -> rusqlite::Result<Option<Adapter>> {
    let found = database.read(|c| c.query_row(&format!("{SELECT} WHERE adapters.id = ?1"), [id], adapter).optional())?;
    found.map(|adapter| with_job(database, adapter)).transpose()
}

fn find(database: &Database, caller: Caller, id: &str) -> Result<Adapter, ApiError> {
    any(database, id)?.filter(|adapter| caller.sees(adapter.key)).ok_or_else(|| ApiError::not_found("adapter"))
}

/// The uploaded adapter of a model's name, whatever became of it.
pub fn of_model(database: &Database, model: &str) -> rusqlite::Result<Option<Adapter>> {
    let query = format!("{SELECT} WHERE adapters.base || '+' || adapters.name = ?1");
    let found = database.read(|c| c.query_row(&query, [model], adapter).optional())?;
    found.map(|adapter| with_job(database, adapter)).transpose()
}

impl Adapter {
    /// The number of the datanet that its index is of, once it's served.
    pub fn indexed(&self) -> Option<i64> {
        self.datanet_id.filter(|_| self.job.as_ref().is_some_and(|job| job.state == "done"))
    }

    /// Whether nothing will come of it any more.
    pub fn is_given_up(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.state == "failed" || job.state == "cancelled")
    }
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::parameter("file", message)
}

/// PEFT's two files out of an archive, at its root or in one folder.
fn unpacked(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), ApiError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| wrong(format!("not a zip archive: {e}")))?;
    if archive.len() > FILES {
        return Err(wrong(format!("{} files, expected {CONFIG} and {WEIGHTS}", archive.len())));
    }
    let (mut config, mut weights) = (None, None);
    for i in 0..archive.len() {
        let file = archive.by_index(i).map_err(|e| wrong(format!("file {i}: {e}")))?;
        if file.is_dir() {
            continue;
        }
        let name: String = file.name().chars().take(200).collect();
        let leaf = name.rsplit('/').next().unwrap_or(&name).to_owned();
        if PICKLES.iter().any(|ending| leaf.to_ascii_lowercase().ends_with(ending)) {
            let error = wrong(format!("{name:?} is a pickle: reading one runs what is in it"));
            return Err(ApiError { hint: Some("save the adapter with safe_serialization=True, without the trainer's own files".into()), ..error });
        }
        let (place, most) = match leaf.as_str() {
            CONFIG => (&mut config, CONFIGURATION),
            WEIGHTS => (&mut weights, UNPACKED),
            other if BESIDE.contains(&other) => continue,
            _ => return Err(wrong(format!("{name:?} isn't read: expected {CONFIG} and {WEIGHTS}"))),
        };
        // What an archive says of its files' sizes isn't believed.
        let mut content = Vec::new();
        file.take(most + 1).read_to_end(&mut content).map_err(|e| wrong(format!("{name:?}: {e}")))?;
        if content.len() as u64 > most {
            return Err(wrong(format!("{name:?}: more than {most} bytes unpacked")));
        }
        if place.replace(content).is_some() {
            return Err(wrong(format!("{leaf} is in it twice")));
        }
    }
    let missing = |name: &str| wrong(format!("{name} is missing"));
    Ok((config.ok_or_else(|| missing(CONFIG))?, weights.ok_or_else(|| missing(WEIGHTS))?))
}

/// Refuses what would take too much to be read.
fn check_sizes(config: &[u8], weights: &[u8]) -> Result<(), ApiError> {
    let config: Value = serde_json::from_slice(config).map_err(|e| wrong(format!("{CONFIG}: not JSON: {e}")))?;
    let patterns = config.get("rank_pattern").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
    if let Some(rank) = config.get("r").into_iter().chain(patterns).find(|rank| rank.as_u64().is_some_and(|rank| rank > RANK)) {
        return Err(wrong(format!("{CONFIG}: a rank of {rank}, at most {RANK} is taken in")));
    }
    let header = weights.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    match header {
        Some(length) if length <= HEADER && length <= weights.len() as u64 - 8 => Ok(()),
        Some(length) if length > HEADER => Err(wrong(format!("{WEIGHTS}: a header of {length} bytes, at most {HEADER} are read"))),
        _ => Err(wrong(format!("{WEIGHTS}: it ends within its header"))),
    }
}

/// Reads an adapter for a base: safetensors of the right names, sizes and ranks, all numbers finite.
fn read(bytes: &[u8], base: &ModelShape) -> Result<FloatAdapter, ApiError> {
    let (config, weights) = unpacked(bytes)?;
    check_sizes(&config, &weights)?;
    let directory = tempfile::tempdir().map_err(|e| wrong(format!("no room to read it: {e}")))?;
    for (name, content) in [(CONFIG, &config), (WEIGHTS, &weights)] {
        fs::write(directory.path().join(name), content).map_err(|e| wrong(format!("no room to read it: {e}")))?;
    }
    let place = directory.path().display().to_string();
    let read = load_peft(directory.path(), base).map_err(|e| wrong(e.to_string().replace(&format!("{place}/"), "").replace(&place, "")))?;
    let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
    match read.pairs.iter().find(|(_, (a, b))| !finite(a) || !finite(b)) {
        Some(((layer, site), _)) => Err(wrong(format!("{WEIGHTS}: layer {layer}, {}: a number that isn't finite", site.name()))),
        None => Ok(read),
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uploaded {
    base: String,
    name: String,
    datanet: Option<String>,
    version: Option<i64>,
}

/// A datanet's number and a version of it.
type OfVersion = (i64, i64);

/// A checked upload: the numbers of its datanet and version.
fn check(service: &Service, caller: Caller, order: &Uploaded) -> Result<(Arc<Base>, Option<OfVersion>), ApiError> {
    let base = service.catalog.base(&order.base).ok_or_else(|| ApiError::parameter("base", format!("base: no base {:?} is served", order.base)))?;
    trainings::check_free(service, &order.base, &order.name)?;
    let of = match (&order.datanet, order.version) {
        (None, None) => None,
        (Some(name), Some(number)) => {
            let datanet = datanets::find(&service.database, name)?;
            if !datanet.is_read_by(caller) {
                return Err(ApiError::forbidden(format!("the texts of {name} aren't public")));
            }
            Some((datanet.id, datanets::find_version(&service.database, &datanet, number)?.version))
        }
        _ => return Err(ApiError::parameter("version", "version: a datanet and its version are named together")),
    };
    Ok((base, of))
}

fn take_in(service: &Service, caller: Caller, order: &Uploaded, bytes: &[u8]) -> Result<Adapter, ApiError> {
    let (base, of) = check(service, caller, order)?;
    read(bytes, &base.model().float.shape)?;
    let (id, file) = (hex(&random()?[..16]), service.files.put(bytes)?);
    let gone = "DELETE FROM adapters WHERE base = ?1 AND name = ?2 AND (?3 OR key = ?4) \
                AND id IN (SELECT subject FROM jobs WHERE kind = ?5 AND state IN ('failed', 'cancelled'))";
    let insert = "INSERT INTO adapters (id, key, created, base, name, file, datanet, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                  ON CONFLICT (base, name) DO NOTHING";
    let (datanet, version) = of.unzip();
    let taken = service.database.write(|t| {
        t.execute(gone, params![order.base, order.name, caller.scope == Scope::Admin, caller.key, ADOPT])?;
        if t.execute(insert, params![id, caller.key, now(), order.base, order.name, file, datanet, version])? == 0 {
            return Ok(false);
        }
        jobs::enqueue_in(t, ADOPT, &id)?;
        made(t, caller, &format!("/v1/adapters/{id}"))?;
        Ok(true)
    })?;
    if !taken {
        return Err(ApiError::conflict(format!("{}+{} is being taken in already, or is another owner's", order.base, order.name)));
    }
    find(&service.database, caller, &id)
}

/// Who may upload one: known before a body is read.
struct Owning(Caller);

impl FromRequestParts<Arc<Service>> for Owning {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Head, service: &Arc<Service>) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, service).await?;
        if caller.owns() { Ok(Self(caller)) } else { Err(ApiError::forbidden("this needs an owner's or an admin's key")) }
    }
}

/// Takes in a PEFT adapter; the body is a zip with `adapter_config.json` and `adapter_model.safetensors`.
#[utoipa::path(
    post,
    path = "/v1/adapters",
    tag = "models",
    operation_id = "upload_adapter",
    params(
        ("base" = String, Query, description = "On which base it was trained"),
        ("name" = String, Query, description = "What it will be called"),
        ("datanet" = Option<String>, Query, description = "What it was trained on, to be indexed with"),
        ("version" = Option<i64>, Query, description = "Which version of it"),
        ("idempotency-key" = Option<String>, Header, description = "A text of 1 to 255 visible ASCII characters: the call is done once, however often it is sent")
    ),
    request_body(content = Vec<u8>, content_type = "application/zip"),
    responses((status = 202, description = "it was checked, and will be quantised and served", body = Adapter))
)]
async fn upload(State(service): Shared, Owning(caller): Owning, Query(order): Query<Uploaded>, bytes: Bytes) -> Answered {
    let taken = service.reading(move |service| take_in(service, caller, &order, &bytes)).await?;
    Ok((StatusCode::ACCEPTED, Json(taken)).into_response())
}

/// Uploaded adapters, as far as the caller may see them.
#[utoipa::path(
    get,
    path = "/v1/adapters",
    tag = "models",
    operation_id = "list_adapters",
    responses((status = 200, description = "newest first", body = List<Adapter>))
)]
async fn list(State(service): Shared, caller: Caller) -> Answered {
    let query = format!("{SELECT} ORDER BY adapters.created DESC, adapters.rowid DESC");
    let all: Vec<Adapter> = service.database.read(|c| c.prepare(&query)?.query_map([], adapter)?.collect::<Result<_, _>>())?;
    let seen = all.into_iter().filter(|adapter| caller.sees(adapter.key));
    let list = seen.map(|adapter| with_job(&service.database, adapter)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "object": "list", "data": list })).into_response())
}

/// What became of an uploaded adapter.
#[utoipa::path(
    get,
    path = "/v1/adapters/{id}",
    tag = "models",
    operation_id = "adapter",
    params(("id" = String, Path, description = "an adapter")),
    responses((status = 200, description = "the adapter", body = Adapter))
)]
async fn one(State(service): Shared, caller: Caller, Named(id): Named<String>) -> Answered {
    Ok(Json(find(&service.database, caller, &id)?).into_response())
}

/// A served adapter as PEFT reads it; for whoever trained or uploaded it, and for admins.
#[utoipa::path(
    get,
    path = "/v1/models/{id}/adapter.zip",
    tag = "models",
    operation_id = "export_adapter",
    params(("id" = String, Path, description = "`base+adapter`")),
    responses((status = 200, description = "`adapter_config.json` and `adapter_model.safetensors`", body = Vec<u8>, content_type = "application/zip"))
)]
async fn export(State(service): Shared, caller: Caller, Named(id): Named<String>) -> Answered {
    service.catalog.listed(&id)?;
    let trained = trainings::of_model(&service.database, &id)?.map(|training| training.key);
    let owner = trained.or(of_model(&service.database, &id)?.map(|adapter| adapter.key));
    if !(caller.scope == Scope::Admin || owner == Some(caller.key)) {
        return Err(ApiError::forbidden("this is for whoever trained or uploaded the adapter, and for admins"));
    }
    let served = model(&service, &id).await?;
    let work = move |_: &Service| {
        let dir = served.paths().1.ok_or_else(|| ApiError::conflict("a base has no adapter"))?;
        Ok(zipped(dir)?)
    };
    let bytes = service.reading(work).await?;
    Ok(([(header::CONTENT_TYPE, "application/zip"), (header::CONTENT_DISPOSITION, "attachment; filename=\"adapter.zip\"")], bytes).into_response())
}

fn zipped(dir: &Path) -> Result<Vec<u8>, Failure> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for name in [CONFIG, WEIGHTS] {
        let path = dir.join(name);
        let content = fs::read(&path).during_path("reading", &path)?;
        writer.start_file(name, SimpleFileOptions::default()).during("packing the adapter")?;
        writer.write_all(&content).during("packing the adapter")?;
    }
    Ok(writer.finish().during("packing the adapter")?.into_inner())
}

/// Quantises, indexes and serves an uploaded adapter: what a job does.
pub fn work(service: &Service, claim: &Claim, on: &dyn Observer) -> Result<Value, Failure> {
    let id = claim.subject.as_str();
    let adapter = any(&service.database, id).during("reading the adapter")?.ok_or_else(|| Failure::input("there is no such adapter"))?;
    let base = service.catalog.base(&adapter.base).ok_or_else(|| Failure::input(format!("no base {} is served", adapter.base)))?;
    let origin = Origin { id, base: &adapter.base, name: &adapter.name };
    trainings::served(service, claim, origin, on, |at| {
        let model = base.model();
        let float = read(&service.files.get(&adapter.file)?, &model.float.shape).map_err(|e| Failure::input(e.message))?;
        let context = model.float.shape.context;
        let window = Window { max_tokens: context, windows: Windows::default() };
        let (tokens, index) = match adapter.datanet_id.zip(adapter.version) {
            Some((datanet, number)) => {
                let datanet = datanets::by_id(&service.database, datanet).during("reading the datanet")?;
                let version = datanets::find_version(&service.database, &datanet, number).map_err(|e| Failure::input(e.message))?;
                let Prepared { datanet, sample_of_row, tokens, .. } =
                    prepare(datanets::samples(&service.files, &version)?, &model.tokenizer, window, on)?;
                (tokens, Some((datanet, sample_of_row, number as u64)))
            }
            None => (self_written(&model.float, &model.tokenizer, SELF_WRITTEN, context.min(64), on)?, None),
        };
        on.tell(Event::Begun("quantising"));
        trainings::assemble(service, &base, origin, Parts { float, tokens: &tokens, window, index }, at, on)
    })
}
