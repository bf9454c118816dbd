//! Training: settings and what they will take, a job that goes on where it was left, the curve, and the model that comes of it.

use crate::adapters::{self, ADOPT};
use crate::catalog::{Base, Place};
use crate::database::{Database, hex, now, random};
use crate::datanets::{self, Datanet, Version};
use crate::error::ApiError;
use crate::idempotency::made;
use crate::jobs::{self, Claim, Job};
use crate::keys::{Caller, Scope};
use crate::server::Service;
use model_runtime::int::index::IndexOptions;
use model_runtime::shape::FloatAdapter;
use model_runtime::text::Datanet as Samples;
use model_runtime::train::{Epoch, HoldOut, LoraConfig, Phase, Schedule};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use steps::error::{Failure, While};
use steps::index::{Indexing, index};
use steps::progress::{Event, Observer};
use steps::store::{absolute, create_parent, read_json, write_json};
use steps::texts::{Prepared, Window, Windows, prepare};
use steps::train::{Estimate, Quantised, Trained, estimate, quantised, trained};
use utoipa::ToSchema;

/// The kind of job that trains an adapter.
pub const TRAIN: &str = "train";
/// Most bytes that a training may take.
const MEMORY: u64 = 8 << 30;
/// Most samples of a batch.
const BATCH: usize = 1024;
/// Most passes over the samples.
const EPOCHS: usize = 1000;

/// How an adapter is trained; what isn't said is as `poa train` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// LoRA rank.
    pub rank: usize,
    /// LoRA alpha; twice the rank if not said.
    pub alpha: Option<f32>,
    /// Passes over the samples; chosen by held-out samples if not said.
    pub epochs: Option<usize>,
    /// Most passes that may be chosen.
    pub max_epochs: usize,
    /// Share of the samples held out to choose.
    pub hold_out: f64,
    /// Samples in a batch.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Most tokens of a sample.
    pub max_tokens: Option<usize>,
    /// What becomes of longer ones.
    #[schema(value_type = String)]
    pub windows: Windows,
    /// Seed of initialisation and shuffles.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let ordinary = LoraConfig::ordinary(0, 1);
        let Schedule { epochs, batch, learning_rate, seed, .. } = ordinary.schedule;
        Self {
            rank: ordinary.rank,
            alpha: None,
            epochs: None,
            max_epochs: epochs,
            hold_out: HoldOut::default().share,
            batch,
            learning_rate,
            max_tokens: None,
            windows: Windows::default(),
            seed,
        }
    }
}

impl Settings {
    fn config(&self, window: Window) -> (LoraConfig, Option<HoldOut>) {
        let ordinary = LoraConfig::ordinary(window.max_tokens, self.seed);
        let (batch, learning_rate) = (self.batch, self.learning_rate);
        let schedule = Schedule { epochs: self.epochs.unwrap_or(self.max_epochs), batch, learning_rate, ..ordinary.schedule };
        let config = LoraConfig { rank: self.rank, alpha: self.alpha.unwrap_or(2.0 * self.rank as f32), schedule, ..ordinary };
        (config, self.epochs.is_none().then(|| HoldOut { share: self.hold_out, ..HoldOut::default() }))
    }

    fn window(&self, base: &Base) -> Result<Window, Failure> {
        Window::new(self.max_tokens, Some(self.windows), None, base.model().float.shape.context)
    }
}

/// What is to be trained.
#[derive(Clone, Debug)]
pub struct Order {
    /// On which base.
    pub base: String,
    /// What the adapter will be called.
    pub name: String,
    /// Of which datanet.
    pub datanet: String,
    /// Which version of it.
    pub version: i64,
    /// How.
    pub settings: Settings,
}

/// A training.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Training {
    /// Its id.
    pub id: String,
    /// Whose it is.
    #[serde(skip)]
    pub key: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// On which base.
    pub base: String,
    /// What the adapter is called.
    pub name: String,
    /// The datanet's number.
    #[serde(skip)]
    pub datanet_id: i64,
    /// Of which datanet.
    pub datanet: String,
    /// Which version of it.
    pub version: i64,
    /// How.
    pub settings: Settings,
    /// What it does, or came to.
    pub job: Option<Job>,
}

impl Training {
    /// What its model is called.
    pub fn model(&self) -> String {
        format!("{}+{}", self.base, self.name)
    }
}

const SELECT: &str = "SELECT trainings.*, datanets.name AS datanet_name FROM trainings JOIN datanets ON datanets.id = trainings.datanet";

fn training(row: &Row<'_>) -> rusqlite::Result<Training> {
    Ok(Training {
        id: row.get("id")?,
        key: row.get("key")?,
        created: row.get("created")?,
        base: row.get("base")?,
        name: row.get("name")?,
        datanet_id: row.get("datanet")?,
        datanet: row.get("datanet_name")?,
        version: row.get("version")?,
        settings: serde_json::from_str(&row.get::<_, String>("settings")?).unwrap_or_default(),
        job: None,
    })
}

fn with_job(database: &Database, mut training: Training) -> rusqlite::Result<Training> {
    training.job = jobs::find(database, TRAIN, &training.id)?;
    Ok(training)
}

/// All trainings, newest first, as far as a caller may see them.
pub fn list(database: &Database, caller: Caller) -> rusqlite::Result<Vec<Training>> {
    let query = format!("{SELECT} ORDER BY trainings.created DESC, trainings.rowid DESC");
    let all: Vec<Training> = database.read(|c| c.prepare(&query)?.query_map([], training)?.collect::<Result<_, _>>())?;
    all.into_iter().filter(|t| caller.sees(t.key)).map(|t| with_job(database, t)).collect()
}

fn any(database: &Database, id: &str) -> rusqlite::Result<Option<Training>> {
    database.read(|c| c.query_row(&format!("{SELECT} WHERE trainings.id = ?1"), [id], training).optional())
}

/// A training that a caller may see.
pub fn find(database: &Database, caller: Caller, id: &str) -> Result<Training, ApiError> {
    let found = any(database, id)?.filter(|t| caller.sees(t.key)).ok_or_else(|| ApiError::not_found("training"))?;
    Ok(with_job(database, found)?)
}

/// The training that a model came of, if it did.
pub fn of_model(database: &Database, model: &str) -> rusqlite::Result<Option<Training>> {
    let named = by_name(database, model)?.map(|t| with_job(database, t)).transpose()?;
    Ok(named.filter(|t| t.job.as_ref().is_some_and(|job| job.state == "done")))
}

/// The number of the datanet that a model was trained on, or is indexed with.
pub fn datanet_of(database: &Database, model: &str) -> rusqlite::Result<Option<i64>> {
    let trained = of_model(database, model)?.map(|training| training.datanet_id);
    Ok(trained.or(adapters::of_model(database, model)?.and_then(|adapter| adapter.indexed())))
}

/// The training of that name, whatever came of it.
fn by_name(database: &Database, model: &str) -> rusqlite::Result<Option<Training>> {
    database.read(|c| c.query_row(&format!("{SELECT} WHERE trainings.base || '+' || trainings.name = ?1"), [model], training).optional())
}

/// Models trained on a datanet, with the version each was trained on.
pub fn models_of(database: &Database, datanet: i64) -> rusqlite::Result<Vec<(String, i64)>> {
    let query = "SELECT base || '+' || trainings.name, version FROM trainings JOIN jobs ON jobs.kind = 'train' AND jobs.subject = trainings.id \
                 WHERE datanet = ?1 AND jobs.state = 'done' \
                 UNION ALL SELECT base || '+' || adapters.name, version FROM adapters JOIN jobs ON jobs.kind = ?2 AND jobs.subject = adapters.id \
                 WHERE datanet = ?1 AND jobs.state = 'done' ORDER BY 1";
    database.read(|c| c.prepare(query)?.query_map(params![datanet, ADOPT], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
}

/// A training's epochs so far, in order.
pub fn epochs(database: &Database, id: &str) -> rusqlite::Result<Vec<Epoch>> {
    let query = "SELECT phase, epoch, trained, held_out FROM epochs WHERE training = ?1 ORDER BY phase, epoch";
    let epoch = |r: &Row<'_>| {
        let phase = if r.get::<_, String>(0)? == "choosing" { Phase::Choosing } else { Phase::Last };
        let (trained, held_out) = (r.get::<_, f64>(2)? as f32, r.get::<_, Option<f64>>(3)?.map(|x| x as f32));
        Ok(Epoch { phase, epoch: r.get::<_, i64>(1)? as usize, trained, held_out })
    };
    database.read(|c| c.prepare(query)?.query_map([id], epoch)?.collect())
}

/// An epoch as JSON.
pub fn epoch_json(epoch: &Epoch) -> Value {
    json!({ "phase": epoch.phase, "epoch": epoch.epoch, "trained": epoch.trained, "held_out": epoch.held_out })
}

fn keep_epoch(database: &Database, id: &str, epoch: &Epoch) -> rusqlite::Result<()> {
    let phase = if epoch.phase == Phase::Choosing { "choosing" } else { "last" };
    let insert = "INSERT OR REPLACE INTO epochs (training, phase, epoch, trained, held_out) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![id, phase, epoch.epoch as i64, f64::from(epoch.trained), epoch.held_out.map(f64::from)];
    database.write(|t| t.execute(insert, values)).map(|_| ())
}

/// A checked order: everything that it would fail for later, as far as that can be known.
struct Checked {
    datanet: Datanet,
    version: Version,
}

/// Refuses a name that a model has, or one that is being made.
pub fn check_free(service: &Service, base: &str, name: &str) -> Result<(), ApiError> {
    datanets::check_name("name", name)?;
    let model = format!("{base}+{name}");
    let place = Place::new(&service.data, base).adapted(name);
    let trains = |t: &Training| t.job.as_ref().is_none_or(|job| job.state != "failed" && job.state != "cancelled");
    let training = by_name(&service.database, &model)?.map(|t| with_job(&service.database, t)).transpose()?;
    let uploaded = adapters::of_model(&service.database, &model)?;
    if place.exists() || training.as_ref().is_some_and(trains) || uploaded.is_some_and(|adapter| !adapter.is_given_up()) {
        let error = ApiError::parameter("name", format!("name: there is a model {model} already, or one is being made"));
        return Err(ApiError { hint: Some("choose another name".into()), ..error });
    }
    Ok(())
}

fn check(service: &Service, caller: Caller, order: &Order) -> Result<Checked, ApiError> {
    if !caller.owns() {
        return Err(ApiError::forbidden("this needs an owner's or an admin's key"));
    }
    let base = service.catalog.base(&order.base).ok_or_else(|| ApiError::parameter("base", format!("base: no base {:?} is served", order.base)))?;
    let datanet = datanets::find(&service.database, &order.datanet)?;
    if !datanet.is_read_by(caller) {
        return Err(ApiError::forbidden(format!("the texts of {} aren't public", datanet.name)));
    }
    let version = datanets::find_version(&service.database, &datanet, order.version)?;
    check_free(service, &order.base, &order.name)?;
    for (name, value, most) in
        [("batch", order.settings.batch, BATCH), ("max_epochs", order.settings.max_epochs.max(order.settings.epochs.unwrap_or(0)), EPOCHS)]
    {
        if value > most {
            return Err(ApiError::parameter(name, format!("{name}: at most {most}, found {value}")));
        }
    }
    let Settings { alpha, hold_out, learning_rate, .. } = order.settings;
    if ![f64::from(alpha.unwrap_or(1.0)), hold_out, learning_rate].into_iter().all(f64::is_finite) {
        return Err(ApiError::parameter("settings", "settings: expected finite numbers"));
    }
    order.settings.window(&base).map_err(|f| ApiError::parameter("max_tokens", f.message))?;
    Ok(Checked { datanet, version })
}

fn prepared(base: &Base, samples: Samples, settings: &Settings, on: &dyn Observer) -> Result<(Window, Prepared), Failure> {
    let window = settings.window(base)?;
    Ok((window, prepare(samples, &base.model().tokenizer, window, on)?))
}

/// What an order would take, after a few steps of it. Slow.
///
/// # Errors
///
/// What [`start`] would refuse, or the training would fail for at once.
pub fn estimated(service: &Service, caller: Caller, order: &Order) -> Result<Estimate, ApiError> {
    let Checked { version, .. } = check(service, caller, order)?;
    let base = service.catalog.base(&order.base).ok_or_else(|| ApiError::not_found("base"))?;
    let samples = datanets::samples(&service.files, &version)?;
    let (window, Prepared { tokens, .. }) = prepared(&base, samples, &order.settings, &*service.on)?;
    let (config, hold_out) = order.settings.config(window);
    estimate(&base.model().float, &tokens, &config, hold_out, MEMORY)
        .map_err(|f| ApiError { hint: f.hint, ..ApiError::parameter("settings", f.message) })
}

/// Queues a training that was [`estimated`], and so checked.
///
/// # Errors
///
/// When the caller may not, or it can't be trained.
pub fn start(service: &Service, caller: Caller, order: &Order) -> Result<Training, ApiError> {
    let Checked { datanet, version } = check(service, caller, order)?;
    let id = hex(&random()?[..16]);
    let settings = serde_json::to_string(&order.settings).map_err(|e| ApiError::invalid(format!("the settings can't be written: {e}")))?;
    let insert = "INSERT INTO trainings (id, key, created, base, name, datanet, version, settings) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                  ON CONFLICT (base, name) DO NOTHING";
    let values = params![id, caller.key, now(), order.base, order.name, datanet.id, version.version, settings];
    // One that failed or was cancelled gives its name up; whoever else was faster keeps it.
    let gone = "SELECT trainings.id FROM trainings JOIN jobs ON jobs.kind = 'train' AND jobs.subject = trainings.id \
                WHERE base = ?1 AND name = ?2 AND jobs.state IN ('failed', 'cancelled') AND (?3 OR trainings.key = ?4)";
    let started = service.database.write(|t| {
        let own = params![order.base, order.name, caller.scope == Scope::Admin, caller.key];
        let old: Option<String> = t.query_row(gone, own, |r| r.get(0)).optional()?;
        if let Some(old) = &old {
            t.execute("DELETE FROM epochs WHERE training = ?1", [old])?;
            t.execute("DELETE FROM trainings WHERE id = ?1", [old])?;
        }
        if t.execute(insert, values)? == 0 {
            return Ok(None);
        }
        jobs::enqueue_in(t, TRAIN, &id)?;
        made(t, caller, &format!("/v1/training-jobs/{id}"))?;
        Ok(Some(old))
    })?;
    let old = started
        .ok_or_else(|| ApiError::conflict(format!("{}+{} is being trained already, or is another owner's to go on with", order.base, order.name)))?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(place(service, &old));
    }
    find(&service.database, caller, &id)
}

/// Goes on with a training that was cancelled or failed, after the last epoch that was kept.
///
/// # Errors
///
/// When it's neither, or isn't the caller's.
pub fn resume(service: &Service, caller: Caller, id: &str) -> Result<Training, ApiError> {
    let training = find(&service.database, caller, id)?;
    if training.job.as_ref().is_some_and(|job| !job.is_over() || job.state == "done") {
        return Err(ApiError::conflict("the training neither failed nor was cancelled"));
    }
    service.database.write(|t| {
        jobs::enqueue_in(t, TRAIN, id)?;
        made(t, caller, &format!("/v1/training-jobs/{id}"))
    })?;
    find(&service.database, caller, id)
}

/// Cancels a training; what it has learnt is kept.
///
/// # Errors
///
/// When it is over, or isn't the caller's.
pub fn cancel(service: &Service, caller: Caller, id: &str) -> Result<Training, ApiError> {
    find(&service.database, caller, id)?;
    if !jobs::cancel(&service.database, TRAIN, id)? {
        return Err(ApiError::conflict("the training is over"));
    }
    find(&service.database, caller, id)
}

/// What lies beside an adapter that was trained here.
#[derive(Serialize, Deserialize)]
struct Made {
    /// By which training.
    training: String,
    /// How faithful its integers are.
    fidelity: Value,
}

impl Made {
    const FILE: &str = "trained.json";
}

/// Where a training keeps what isn't done.
fn place(service: &Service, id: &str) -> PathBuf {
    service.data.join("trainings").join(id)
}

/// Keeps epochs, and tells the rest on.
struct Kept<'a> {
    database: &'a Database,
    id: &'a str,
    on: &'a dyn Observer,
}

impl Observer for Kept<'_> {
    fn tell(&self, event: Event) {
        if let Event::Epoch(epoch) = &event
            && let Err(error) = keep_epoch(self.database, self.id, epoch)
        {
            self.on.note(format!("the database: {error}"));
        }
        self.on.tell(event);
    }

    fn goes_on(&self) -> bool {
        self.on.goes_on()
    }
}

/// Which job makes which model.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The training's or the upload's id.
    pub id: &'a str,
    /// On which base.
    pub base: &'a str,
    /// What the adapter is called.
    pub name: &'a str,
}

/// What a model is assembled from.
pub struct Parts<'a> {
    /// The adapter.
    pub float: FloatAdapter,
    /// What it's quantised with.
    pub tokens: &'a [Vec<u32>],
    /// How samples were cut.
    pub window: Window,
    /// What it's indexed with: the samples, which of them each row is of, the datanet's version.
    pub index: Option<(Samples, Vec<usize>, u64)>,
}

/// Trains, indexes and serves: what a job does. Begun again after it was broken off, it makes what isn't there yet.
pub fn work(service: &Service, claim: &Claim, on: &dyn Observer) -> Result<Value, Failure> {
    let id = claim.subject.as_str();
    let training = any(&service.database, id).during("reading the training")?.ok_or_else(|| Failure::input("there is no such training"))?;
    let base = service.catalog.base(&training.base).ok_or_else(|| Failure::input(format!("no base {} is served", training.base)))?;
    let origin = Origin { id, base: &training.base, name: &training.name };
    served(service, claim, origin, on, |at| make(service, &training, &base, at, &Kept { database: &service.database, id, on }))
}

/// Serves what `make` leaves in a directory, unless it's there already.
pub fn served(
    service: &Service,
    claim: &Claim,
    origin: Origin<'_>,
    on: &dyn Observer,
    make: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let (at, to) = (place(service, origin.id), Place::new(&service.data, origin.base).adapted(origin.name));
    if !to.exists() {
        fs::create_dir_all(&at).during_path("creating", &at)?;
        make(&at)?;
        create_parent(&to)?;
        let moved = jobs::while_owned(&service.database, claim, || fs::rename(at.join(ADAPTED), &to)).during("reading the job")?;
        moved.ok_or_else(Failure::stopped)?.during_path("moving the adapter to", &to)?;
    }
    // Whatever lies there is served under this job's name only if it is this job's.
    let made: Made = read_json(&to.join(Made::FILE)).map_err(|f| f.hint("another adapter has this name"))?;
    if made.training != origin.id {
        return Err(Failure::input(format!("{} is another training's", to.display())).hint("choose another name"));
    }
    on.tell(Event::Begun("committing"));
    let generation = service.catalog.add(origin.base, origin.name, on)?;
    let _ = fs::remove_dir_all(&at);
    Ok(json!({ "model": format!("{}+{}", origin.base, origin.name), "generation": generation, "fidelity": made.fidelity }))
}

/// The directory that a model is assembled in, within a job's.
const ADAPTED: &str = "adapted";

/// Makes the adapter and its index in a directory of its own.
fn make(service: &Service, training: &Training, base: &Base, at: &Path, on: &dyn Observer) -> Result<(), Failure> {
    let datanet = datanets::by_id(&service.database, training.datanet_id).during("reading the datanet")?;
    let version = datanets::find_version(&service.database, &datanet, training.version).map_err(|e| Failure::input(e.message))?;
    let samples = datanets::samples(&service.files, &version)?;
    let (window, Prepared { datanet: samples, sample_of_row, tokens, .. }) = prepared(base, samples, &training.settings, on)?;
    let (config, hold_out) = training.settings.config(window);
    let Trained { adapter: float, .. } = trained(&base.model().float, &tokens, &config, hold_out, Some(&at.join("checkpoint")), on)?;
    on.tell(Event::Begun("quantising"));
    let origin = Origin { id: &training.id, base: &training.base, name: &training.name };
    let index = Some((samples, sample_of_row, training.version as u64));
    assemble(service, base, origin, Parts { float, tokens: &tokens, window, index }, at, on)
}

/// Quantises an adapter and indexes it, in a job's directory.
pub fn assemble(service: &Service, base: &Base, origin: Origin<'_>, parts: Parts<'_>, at: &Path, on: &dyn Observer) -> Result<(), Failure> {
    let Parts { float, tokens, window, index } = parts;
    let (model, staged) = (base.model(), at.join(ADAPTED));
    let Quantised { adapter, fidelity } = quantised(model, float, tokens, on)?;
    fs::create_dir_all(&staged).during_path("creating", &staged)?;
    adapter.save(&staged.join("adapter"), &model.float, origin.base)?;
    window.save(&staged.join("adapter"))?;
    if let Some((samples, sample_of_row, version)) = index {
        on.tell(Event::Begun("indexing"));
        let place = Place::new(&service.data, origin.base);
        // Where the adapter will be, once it's whole.
        let paths =
            (absolute(&place.model())?, absolute(&service.data)?.join("models").join(origin.base).join("adapters").join(origin.name).join("adapter"));
        let max_tokens = window.max_tokens;
        let how = Indexing { options: IndexOptions::default(), max_tokens, noise_floor: None, beacon: None, paths: (&paths.0, &paths.1) };
        let mut index = self::index(model, &adapter, &samples, how, on)?;
        (index.info.datanet_version, index.info.sample_of_row) = (version, sample_of_row);
        index.save(&staged.join("index"))?;
    }
    let told = json!({ "greedy_agreement": fidelity.greedy_agreement, "perplexity_ratio": fidelity.perplexity_ratio() });
    write_json(&staged.join(Made::FILE), &Made { training: origin.id.to_owned(), fidelity: told })
}
