//! The models that answer: read once, kept in memory, named `base` or `base+adapter`.
//!
//! Beneath the data directory: `models/BASE/model`, and for every adapter `models/BASE/adapters/NAME/adapter` with its `index` beside it, as
//! `poa import`, `train` and `index` write them.

use circuits::ir::Group;
use circuits::statement::Digest;
use model_runtime::int::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steps::error::{Failure, While};
use steps::kept::Shelves;
use steps::progress::Observer;
use steps::store::{AdapterDir, IndexDir, ModelDir};
use steps::{prove, run};

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

    /// An adapter of it.
    pub fn adapter(&self, name: &str) -> PathBuf {
        self.adapters().join(name).join("adapter")
    }

    /// An adapter's index.
    pub fn index(&self, name: &str) -> PathBuf {
        self.adapters().join(name).join("index")
    }
}

/// Which commitments answered: a model's identity, whatever it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The base model's pin (native profile).
    pub base: Digest,
    /// The adapter's.
    pub adapter: Option<Digest>,
    /// The index'.
    pub index: Option<Digest>,
}

/// An adapter with its index.
struct Adapted {
    adapter: AdapterDir,
    adapter_dir: PathBuf,
    index: Option<(IndexDir, PathBuf)>,
}

/// A model ready to answer.
pub struct Served {
    /// What it's called.
    pub id: String,
    /// What it is.
    pub generation: Generation,
    model: Arc<ModelDir>,
    model_dir: PathBuf,
    adapted: Option<Adapted>,
    /// Under the index' semantics where there is one: answers are the same.
    runtime: Runtime,
    fingerprint: Digest,
}

impl Served {
    fn new(
        id: String,
        (model, model_dir, base): (Arc<ModelDir>, PathBuf, Digest),
        adapted: Option<Adapted>,
        on: &dyn Observer,
    ) -> Result<Self, Failure> {
        let (mut generation, mut shelves) = (Generation { base, adapter: None, index: None }, Shelves::default());
        if let Some(Adapted { adapter, adapter_dir, index }) = &adapted {
            shelves.adapter = Some(adapter_dir);
            let semantics = &adapter.int.semantics;
            generation.adapter = Some(prove::commit(Group::Adapter, semantics, None, &adapter.int.tensors, shelves, on)?);
            if let Some((index, dir)) = index {
                shelves.index = Some(dir);
                generation.index = Some(prove::commit(Group::Index, &index.index.semantics, Some(index), &index.committed(), shelves, on)?);
            }
        }
        let index = adapted.as_ref().and_then(|a| a.index.as_ref()).map(|(index, _)| index);
        let adapter = adapted.as_ref().map(|a| &a.adapter);
        let semantics = index.map_or_else(|| run::semantics(&model, adapter), |index| &index.index.semantics);
        let runtime = run::runtime(semantics, &model, adapter)?;
        let fingerprint = run::fingerprint(&model, adapter);
        if let Some(index) = index.filter(|index| index.info.made_with != fingerprint) {
            let message =
                format!("the index of {id} was made with another model or adapter: {}, {}", index.info.model.display(), index.info.adapter.display());
            return Err(Failure::input(message).hint("make it again with `poa index`"));
        }
        Ok(Self { id, generation, model, model_dir, adapted, runtime, fingerprint })
    }

    /// The base.
    pub fn model(&self) -> &ModelDir {
        &self.model
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

    /// Where commitments are kept.
    pub fn shelves(&self) -> Shelves<'_> {
        let index = self.adapted.as_ref().and_then(|a| a.index.as_ref());
        Shelves {
            model: Some(&self.model_dir),
            adapter: self.adapted.as_ref().map(|a| a.adapter_dir.as_path()),
            index: index.map(|(_, dir)| dir.as_path()),
        }
    }

    /// Where model and adapter are.
    pub fn paths(&self) -> (&Path, Option<&Path>) {
        (&self.model_dir, self.adapted.as_ref().map(|a| a.adapter_dir.as_path()))
    }

    /// Most tokens of prompt and answer.
    pub fn context(&self) -> usize {
        self.model.int.semantics.shape.context
    }
}

/// All models by name.
#[derive(Clone, Default)]
pub struct Catalog(BTreeMap<String, Arc<Served>>);

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

impl Catalog {
    /// Reads every model beneath a data directory, and commits what has no commitment yet.
    ///
    /// # Errors
    ///
    /// When one can't be read: a model that is there and doesn't answer isn't passed over.
    pub fn load(data: &Path, on: &dyn Observer) -> Result<Self, Failure> {
        let mut models = BTreeMap::new();
        for base in directories(&data.join("models"))? {
            let place = Place::new(data, &base);
            let model_dir = place.model();
            let model = Arc::new(ModelDir::load(&model_dir)?);
            let shelves = Shelves { model: Some(&model_dir), ..Shelves::default() };
            let pin = prove::commit(Group::Base, &model.int.semantics, None, &model.int.tensors, shelves, on)?;
            let named = |id: String, adapted: Option<Adapted>| {
                on.note(format!("serving {id}"));
                Served::new(id, (model.clone(), model_dir.clone(), pin), adapted, on).map(Arc::new)
            };
            for name in directories(&place.adapters())? {
                let (adapter_dir, index_dir) = (place.adapter(&name), place.index(&name));
                let adapter = AdapterDir::load(&adapter_dir, &model)?;
                let index = if index_dir.exists() { Some((IndexDir::load(&index_dir)?, index_dir)) } else { None };
                let id = format!("{base}+{name}");
                models.insert(id.clone(), named(id, Some(Adapted { adapter, adapter_dir, index }))?);
            }
            models.insert(base.clone(), named(base, None)?);
        }
        Ok(Self(models))
    }

    /// A model by name.
    pub fn get(&self, id: &str) -> Option<&Arc<Served>> {
        self.0.get(id)
    }

    /// All, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.0.values()
    }
}
