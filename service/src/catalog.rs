//! The models that answer, named `base` or `base+adapter`: bases in memory, adapters read when they are asked for and kept while there is room.
//!
//! Beneath the data directory: `models/BASE/model`, and for every adapter `models/BASE/adapters/NAME/adapter` with its `index` beside it, as
//! `poa import`, `train` and `index` write them. All are read and committed once before they are listed; one that has become another since then is
//! refused, not served under its old name.

use crate::chats::Chat;
use crate::decoder::Decoder;
use crate::error::ApiError;
use crate::templates::ChatTemplate;
use circuits::ir::Group;
use circuits::statement::Digest;
use model_runtime::int::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use steps::error::{Failure, While};
use steps::kept::Shelves;
use steps::progress::{Observer, Unwatched};
use steps::store::{AdapterDir, IndexDir, ModelDir};
use steps::{prove, run};
use utoipa::ToSchema;

/// Where a base's parts are.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    /// A base of a data directory.
    pub fn new(data: &Path, base: &str) -> Self {
        Self(data.join("models").join(base))
    }

    /// The base model.
    pub fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// Adapters of it.
    fn adapters(&self) -> PathBuf {
        self.0.join("adapters")
    }

    /// An adapter's directory, with its index.
    pub fn adapted(&self, name: &str) -> PathBuf {
        self.adapters().join(name)
    }

    /// An adapter of it.
    pub fn adapter(&self, name: &str) -> PathBuf {
        self.adapted(name).join("adapter")
    }

    /// An adapter's index.
    pub fn index(&self, name: &str) -> PathBuf {
        self.adapted(name).join("index")
    }
}

/// Which commitments answered: a model's identity, whatever it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Generation {
    /// The base model's pin (native profile).
    #[schema(value_type = String)]
    pub base: Digest,
    /// The adapter's.
    #[schema(value_type = Option<String>)]
    pub adapter: Option<Digest>,
    /// The index'.
    #[schema(value_type = Option<String>)]
    pub index: Option<Digest>,
}

/// A base, in memory as long as the service runs.
pub struct Base {
    name: String,
    model: ModelDir,
    template: Option<ChatTemplate>,
    dir: PathBuf,
    pin: Digest,
    runtime: Runtime,
    fingerprint: run::BaseFingerprint,
    decoder: Decoder,
}

impl Base {
    fn load(data: &Path, name: &str, prefix_bytes: usize, on: &dyn Observer) -> Result<Self, Failure> {
        let dir = Place::new(data, name).model();
        let model = ModelDir::load(&dir)?;
        let template = Chat::load(&dir)?.map(|chat| ChatTemplate::new(&chat, &model.tokenizer)).transpose();
        let template = template.map_err(|problem| Failure::input(format!("the chat template of {}: {problem}", dir.display())))?;
        let shelves = Shelves { model: Some(&dir), ..Shelves::default() };
        let pin = prove::commit(Group::Base, &model.int.semantics, None, &model.int.tensors, shelves, on)?;
        let runtime = run::runtime(&model.int.semantics, &model, None)?;
        let fingerprint = run::BaseFingerprint::of(&model);
        Ok(Self { name: name.to_owned(), model, template, dir, pin, runtime, fingerprint, decoder: Decoder::start(prefix_bytes)? })
    }

    /// Its model.
    pub fn model(&self) -> &ModelDir {
        &self.model
    }

    /// What decodes its answers and its adapters'.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

/// An adapter with its index.
struct Adapted {
    adapter: AdapterDir,
    adapter_dir: PathBuf,
    index: Option<(IndexDir, PathBuf)>,
}

impl Adapted {
    fn load(place: &Place, name: &str, base: &Base) -> Result<Self, Failure> {
        let (adapter_dir, index_dir) = (place.adapter(name), place.index(name));
        let adapter = AdapterDir::load(&adapter_dir, &base.model)?;
        let index = if index_dir.exists() { Some((IndexDir::load(&index_dir)?, index_dir)) } else { None };
        Ok(Self { adapter, adapter_dir, index })
    }
}

/// A model ready to answer.
pub struct Served {
    /// What it's called.
    pub id: String,
    /// What it is.
    pub generation: Generation,
    base: Arc<Base>,
    adapted: Option<Adapted>,
    /// Under the index' semantics where there is one: answers are the same.
    runtime: Runtime,
    fingerprint: Digest,
    /// What it takes in memory beside its base.
    bytes: u64,
}

impl Served {
    fn bare(base: &Arc<Base>) -> Self {
        Self {
            id: base.name.clone(),
            generation: Generation { base: base.pin, adapter: None, index: None },
            runtime: base.runtime.clone(),
            fingerprint: base.fingerprint.with(&base.model, None),
            base: base.clone(),
            adapted: None,
            bytes: 0,
        }
    }

    fn adapted(base: &Arc<Base>, name: &str, adapted: Adapted, on: &dyn Observer) -> Result<Self, Failure> {
        let id = format!("{}+{name}", base.name);
        let Adapted { adapter, adapter_dir, index } = &adapted;
        let mut shelves = Shelves { adapter: Some(adapter_dir), ..Shelves::default() };
        let pin = prove::commit(Group::Adapter, &adapter.int.semantics, None, &adapter.int.tensors, shelves, on)?;
        let mut generation = Generation { base: base.pin, adapter: Some(pin), index: None };
        if let Some((index, dir)) = index {
            shelves.index = Some(dir);
            generation.index = Some(prove::commit(Group::Index, &index.index.semantics, Some(index), &index.committed(), shelves, on)?);
        }
        let index = index.as_ref().map(|(index, _)| index);
        let semantics = index.map_or(&adapter.int.semantics, |index| &index.index.semantics);
        let runtime = base.runtime.adapted(semantics.clone(), &adapter.int.tensors).during(format!("loading {id}"))?;
        let fingerprint = base.fingerprint.with(&base.model, Some(adapter));
        if let Some(index) = index.filter(|index| index.info.made_with != fingerprint) {
            let message =
                format!("the index of {id} was made with another model or adapter: {}, {}", index.info.model.display(), index.info.adapter.display());
            return Err(Failure::input(message).hint("make it again with `poa index`"));
        }
        let bytes = bytes(adapter, index);
        Ok(Self { id, generation, base: base.clone(), adapted: Some(adapted), runtime, fingerprint, bytes })
    }

    /// The base.
    pub fn model(&self) -> &ModelDir {
        &self.base.model
    }

    /// How it reads a chat, where it says so.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.base.template.as_ref()
    }

    /// The adapter.
    pub fn adapter(&self) -> Option<&AdapterDir> {
        self.adapted.as_ref().map(|a| &a.adapter)
    }

    /// The index.
    pub fn index(&self) -> Option<&IndexDir> {
        self.adapted.as_ref()?.index.as_ref().map(|(index, _)| index)
    }

    /// Tells it apart from other models, as stored runs have it.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// What executes it.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What decodes its answers, with those of the base's other models.
    pub fn decoder(&self) -> &Decoder {
        &self.base.decoder
    }

    /// Where commitments are kept.
    pub fn shelves(&self) -> Shelves<'_> {
        let index = self.adapted.as_ref().and_then(|a| a.index.as_ref());
        Shelves {
            model: Some(&self.base.dir),
            adapter: self.adapted.as_ref().map(|a| a.adapter_dir.as_path()),
            index: index.map(|(_, dir)| dir.as_path()),
        }
    }

    /// Where model and adapter are.
    pub fn paths(&self) -> (&Path, Option<&Path>) {
        (&self.base.dir, self.adapted.as_ref().map(|a| a.adapter_dir.as_path()))
    }

    /// Most tokens of prompt and answer.
    pub fn context(&self) -> usize {
        self.base.model.int.semantics.shape.context
    }
}

/// What an adapter takes in memory: its integers, in 32 bits and twice in 16, its floats, its index with the texts. Tables are shared, but for few.
fn bytes(adapter: &AdapterDir, index: Option<&IndexDir>) -> u64 {
    let integers: usize = adapter.int.tensors.values().map(|t| t.data.len()).sum();
    let floats: usize = adapter.float.pairs.values().map(|(a, b)| a.len() + b.len()).sum();
    let of_index = |index: &IndexDir| {
        let texts: usize = index.info.rows.iter().map(|row| row.text.len() + row.contributor.len()).sum();
        4 * index.index.tensors.values().map(|t| t.data.len()).sum::<usize>() + texts
    };
    (8 * integers + 4 * floats + index.map_or(0, of_index)) as u64
}

/// The names of a directory's directories, in order; none where there is none.
fn directories(path: &Path) -> Result<Vec<String>, Failure> {
    if !path.is_dir() {
        return Ok(vec![]);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).during_path("reading", path)? {
        let entry = entry.during_path("reading", path)?;
        if entry.path().is_dir() {
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| Failure::input(format!("{} has a name that isn't text", Path::new(&name).display())))?;
            if name.contains('+') {
                let message = format!("{}: `+` joins the names of a base and an adapter, and can't be in one", entry.path().display());
                return Err(Failure::input(message).hint("rename the directory"));
            }
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A model as it's listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// What it's called.
    pub id: String,
    /// What it is.
    pub generation: Generation,
    /// Most tokens of prompt and answer.
    pub context: usize,
    /// What it takes in memory beside its base, when it's read.
    pub bytes: u64,
}

#[derive(Clone)]
struct Entry {
    listed: Listed,
    base: Arc<Base>,
    which: Which,
}

/// A base alone, or an adapter by name.
#[derive(Clone)]
enum Which {
    Base(Arc<Served>),
    Adapter(String),
}

/// Adapters that are in memory.
#[derive(Default)]
struct InMemory {
    /// By name: when it was asked for last, and what it is.
    adapters: BTreeMap<String, (u64, Arc<Served>)>,
    bytes: u64,
    clock: u64,
}

impl InMemory {
    fn take(&mut self, id: &str) -> Option<Arc<Served>> {
        self.clock += 1;
        let (asked, served) = self.adapters.get_mut(id)?;
        *asked = self.clock;
        Some(served.clone())
    }

    fn remove(&mut self, id: &str) {
        if let Some((_, served)) = self.adapters.remove(id) {
            self.bytes -= served.bytes;
        }
    }

    /// Puts one in, and out those that were asked for longest ago, until all have room. Whoever answers with one keeps it until they have.
    fn put(&mut self, served: Arc<Served>, room: u64) {
        self.remove(&served.id);
        while self.bytes + served.bytes > room {
            let Some(oldest) = self.adapters.iter().min_by_key(|(_, (asked, _))| *asked).map(|(id, _)| id.clone()) else { break };
            self.remove(&oldest);
        }
        self.clock += 1;
        self.bytes += served.bytes;
        self.adapters.insert(served.id.clone(), (self.clock, served));
    }
}

/// All models by name.
pub struct Catalog {
    data: PathBuf,
    /// Bytes that adapters in memory may take; one may always be there.
    room: u64,
    entries: RwLock<BTreeMap<String, Entry>>,
    in_memory: Mutex<InMemory>,
    reads: AtomicU64,
    /// One adapter is read at a time: who asks for the same one meanwhile finds it there.
    reading: Mutex<()>,
}

impl Catalog {
    /// Reads every model beneath a data directory, and commits what has no commitment yet.
    ///
    /// # Errors
    ///
    /// When one can't be read: a model that is there and doesn't answer isn't passed over.
    pub fn load(data: &Path, room: u64, prefix_bytes: usize, on: &dyn Observer) -> Result<Self, Failure> {
        let catalog = Self {
            data: data.to_owned(),
            room,
            entries: RwLock::default(),
            in_memory: Mutex::default(),
            reads: AtomicU64::new(0),
            reading: Mutex::default(),
        };
        for name in directories(&data.join("models"))? {
            let base = Arc::new(Base::load(data, &name, prefix_bytes, on)?);
            on.note(format!("serving {name}"));
            let bare = Arc::new(Served::bare(&base));
            catalog.list(bare.clone(), Which::Base(bare));
            for adapter in directories(&Place::new(data, &name).adapters())? {
                on.note(format!("serving {name}+{adapter}"));
                catalog.add(&name, &adapter, on)?;
            }
        }
        Ok(catalog)
    }

    /// Lists a model in place of one of that name.
    fn list(&self, served: Arc<Served>, which: Which) {
        let (id, generation, context, bytes) = (served.id.clone(), served.generation.clone(), served.context(), served.bytes);
        let entry = Entry { listed: Listed { id: id.clone(), generation, context, bytes }, base: served.base.clone(), which };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(entry.which, Which::Adapter(_)) {
            self.in_memory().put(served, self.room);
        }
        entries.insert(id, entry);
    }

    fn in_memory(&self) -> MutexGuard<'_, InMemory> {
        self.in_memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an adapter beneath a base's directory and lists it, in place of one of that name; requests under way keep theirs.
    ///
    /// # Errors
    ///
    /// When it can't be read, and then nothing has changed.
    pub fn add(&self, base: &str, adapter: &str, on: &dyn Observer) -> Result<Generation, Failure> {
        let base = self.base(base).ok_or_else(|| Failure::input(format!("no base {base} is served")))?;
        let adapted = Adapted::load(&Place::new(&self.data, &base.name), adapter, &base)?;
        let served = Arc::new(Served::adapted(&base, adapter, adapted, on)?);
        let generation = served.generation.clone();
        self.list(served, Which::Adapter(adapter.to_owned()));
        Ok(generation)
    }

    /// Serves an adapter no longer; whether it was. Its files stay.
    pub fn remove(&self, id: &str) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let removed = entries.get(id).is_some_and(|entry| matches!(entry.which, Which::Adapter(_))) && entries.remove(id).is_some();
        self.in_memory().remove(id);
        removed
    }

    /// What decodes the answers of each base, by its name.
    pub fn decoders(&self) -> Vec<(String, Arc<Base>)> {
        self.bases().into_iter().filter_map(|name| self.base(&name).map(|base| (name, base))).collect()
    }

    /// A base by name.
    pub fn base(&self, name: &str) -> Option<Arc<Base>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).filter(|entry| matches!(entry.which, Which::Base(_))).map(|entry| entry.base.clone())
    }

    /// A model by name, read if it isn't in memory.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or it's no longer what was listed.
    pub fn get(&self, id: &str) -> Result<Arc<Served>, ApiError> {
        let entry = self.entry(id)?;
        let adapter = match &entry.which {
            Which::Base(served) => return Ok(served.clone()),
            Which::Adapter(adapter) => adapter,
        };
        let kept = || self.in_memory().take(id).filter(|served| served.generation == entry.listed.generation);
        if let Some(served) = kept() {
            return Ok(served);
        }
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = kept() {
            return Ok(served);
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let adapted = Adapted::load(&Place::new(&self.data, &entry.base.name), adapter, &entry.base)?;
        let served = Arc::new(Served::adapted(&entry.base, adapter, adapted, &Unwatched)?);
        // It may have been replaced meanwhile: what is listed now counts.
        if served.generation != self.entry(id)?.listed.generation {
            return Err(ApiError::conflict(format!("the files of {id} are of another model than the one that is served; load it anew")));
        }
        self.in_memory().put(served.clone(), self.room);
        Ok(served)
    }

    fn entry(&self, id: &str) -> Result<Entry, ApiError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).cloned().ok_or_else(|| {
            let names: Vec<&str> = entries.keys().map(String::as_str).collect();
            let hint = Some(format!("served are: {}", names.join(", ")));
            ApiError { param: Some("model".into()), code: "model_not_found", hint, ..ApiError::not_found("model") }
        })
    }

    /// A model as it's listed.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn listed(&self, id: &str) -> Result<Listed, ApiError> {
        Ok(self.entry(id)?.listed)
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Listed> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().map(|entry| entry.listed.clone()).collect()
    }

    /// Bases, by name.
    pub fn bases(&self) -> Vec<String> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|(_, entry)| matches!(entry.which, Which::Base(_))).map(|(id, _)| id.clone()).collect()
    }

    /// Times that an adapter was read because it wasn't in memory.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Adapters in memory, and the bytes they take.
    pub fn memory(&self) -> (usize, u64) {
        let in_memory = self.in_memory();
        (in_memory.adapters.len(), in_memory.bytes)
    }
}
