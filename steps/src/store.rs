//! What commands leave on disk and read again: models, adapters, indexes, runs.
//!
//! A directory is written beside its place and renamed, so that nothing is half-written.

use crate::error::{Failure, While};
use circuits::statement::Digest;
use model_runtime::import::{ImportOptions, StoredType, export_hf, load_hf, load_peft, write_atomic, write_peft};
use model_runtime::int::IntModel;
use model_runtime::int::adapter::IntAdapter;
use model_runtime::int::index::{Index, IndexOptions};
use model_runtime::semantics::Semantics;
use model_runtime::shape::{FloatAdapter, FloatModel};
use model_runtime::tensor::{Tensor, TensorMap};
use model_runtime::text::Tokenizer;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs;
use std::path::{Path, PathBuf};

/// Version of these directories' formats.
const FORMAT: u32 = 1;

/// What every directory says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    kind: String,
}

/// An imported model.
pub struct ModelDir {
    /// Its integer form.
    pub int: IntModel,
    /// Its float form.
    pub float: FloatModel,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// A quantised adapter.
pub struct AdapterDir {
    /// Its integer form.
    pub int: IntAdapter,
    /// Its float form.
    pub float: FloatAdapter,
}

/// One row of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its contributor.
    pub contributor: String,
    /// Its text.
    pub text: String,
}

/// Where an index comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexInfo {
    /// Its rows, in order.
    pub rows: Vec<Row>,
    /// Contributors in the order of their numbers.
    pub contributors: Vec<String>,
    /// Root of the datanet.
    pub datanet_root: Digest,
    /// Version of the datanet.
    pub datanet_version: u64,
    /// What the projection's seed was drawn from besides the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Digest>,
    /// Samples were cut after this many tokens.
    pub max_tokens: usize,
    /// Which sample each row is a window of; empty where rows are samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sample_of_row: Vec<usize>,
    /// What was sketched.
    pub options: IndexOptions,
    /// Model directory it was made with.
    pub model: PathBuf,
    /// Adapter directory it was made with.
    pub adapter: PathBuf,
    /// Fingerprint of that model and adapter.
    pub made_with: Digest,
}

/// An attribution index.
pub struct IndexDir {
    /// Tensors and semantics.
    pub index: Index,
    /// Provenance.
    pub info: IndexInfo,
}

/// An answered prompt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunInfo {
    /// The prompt.
    pub prompt: String,
    /// The answer.
    pub answer: String,
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Ties a proof of it to one payment.
    pub request_id: Digest,
    /// The payer's salt of the prompt's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_salt: Option<Digest>,
    /// Model directory.
    pub model: PathBuf,
    /// Adapter directory.
    pub adapter: Option<PathBuf>,
    /// Fingerprint of model and adapter.
    pub made_with: Digest,
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).during_path("reading", path)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_atomic(path, bytes).during_path("writing", path)
}

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_slice(&read(path)?).during_path("reading", path)
}

/// Writes a JSON file.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let mut bytes = serde_json::to_vec_pretty(value).during_path("writing", path)?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Creates a file's directory.
pub fn create_parent(path: &Path) -> Result<(), Failure> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).during_path("creating", parent)?;
    }
    Ok(())
}

/// Writes bytes, creating the parent directory.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    create_parent(path)?;
    write(path, bytes)
}

/// Writes integer tensors as safetensors.
pub fn write_tensors(path: &Path, tensors: &TensorMap) -> Result<(), Failure> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> =
        tensors.iter().map(|(name, t)| (name.clone(), t.dims.clone(), t.data.iter().flat_map(|x| x.to_le_bytes()).collect())).collect();
    let views = bytes
        .iter()
        .map(|(name, dims, data)| Ok((name.as_str(), TensorView::new(Dtype::I32, dims.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .during_path("writing", path)?;
    let encoded = safetensors::serialize(views, None).during_path("writing", path)?;
    write(path, &encoded)
}

/// Reads integer tensors.
pub fn read_tensors(path: &Path) -> Result<TensorMap, Failure> {
    let bytes = read(path)?;
    let what = || format!("reading {}", path.display());
    let file = safetensors::SafeTensors::deserialize(&bytes).during(what())?;
    let mut tensors = TensorMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::I32 {
            return Err(Failure::input(format!("{}: tensor `{name}` is {:?}, expected I32", what(), view.dtype())));
        }
        let data = view.data().chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let tensor = Tensor::new(view.shape(), data).ok_or_else(|| Failure::input(format!("{}: tensor `{name}` has a wrong length", what())))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Builds a directory beside its place, then renames it; an existing directory of the same kind is replaced.
fn write_dir(dir: &Path, kind: &str, fill: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::input(format!("{} exists and isn't a directory", dir.display())).hint("choose another --out"));
    }
    if dir.exists() && check_header(dir, kind).is_err() && fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        let failure = Failure::input(format!("{} exists and isn't a poa {kind} directory", dir.display()));
        return Err(failure.hint("choose another --out, or remove it yourself"));
    }
    let registration = dir.join("registration");
    if kind == "index" && registration.exists() {
        let failure = Failure::input(format!("{} has a registration, which replacing the index would delete", dir.display()));
        return Err(failure.hint(format!("choose another --out, or remove {} yourself", registration.display())));
    }
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = dir.with_file_name(name);
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir_all(&temporary).during_path("creating", &temporary)?;
    fill(&temporary)?;
    write_json(&temporary.join("poa.json"), &Header { format: FORMAT, kind: kind.into() })?;
    let _ = fs::remove_dir_all(dir);
    fs::rename(&temporary, dir).during(format!("renaming {} to {}", temporary.display(), dir.display()))
}

/// Begins a directory that is filled file by file; one that is there is gone on with if it's of the kind.
pub fn begin_dir(dir: &Path, kind: &str) -> Result<(), Failure> {
    if dir.exists() && fs::read_dir(dir).during_path("reading", dir)?.next().is_some() {
        return check_header(dir, kind).map_err(|f| f.hint("choose another --out, or remove it yourself"));
    }
    fs::create_dir_all(dir).during_path("creating", dir)?;
    write_json(&dir.join("poa.json"), &Header { format: FORMAT, kind: kind.into() })
}

/// The command that makes such directories.
fn maker(kind: &str) -> &str {
    match kind {
        "model" => "import",
        "adapter" => "train",
        "run" => "infer",
        "registration" => "registration prove",
        other => other,
    }
}

pub(crate) fn check_header(dir: &Path, kind: &str) -> Result<(), Failure> {
    let path = dir.join("poa.json");
    let wrong = |what: String| Failure::input(what).hint(format!("give a directory that `poa {}` made", maker(kind)));
    let header: Header = read_json(&path).map_err(|e| wrong(format!("{} is no poa {kind} directory: {}", dir.display(), e.message)))?;
    if header.kind != kind || header.format != FORMAT {
        return Err(wrong(format!("{} holds a {} (format {}), expected a {kind} (format {FORMAT})", dir.display(), header.kind, header.format)));
    }
    Ok(())
}

/// An existing path, absolute.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).during(path.display())
}

#[derive(Serialize, Deserialize)]
struct Plan {
    semantics: Semantics,
    calibrated: Vec<String>,
}

impl ModelDir {
    /// Writes it.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        write_dir(dir, "model", |dir| {
            write_json(&dir.join("semantics.json"), &Plan { semantics: self.int.semantics.clone(), calibrated: self.int.calibrated.clone() })?;
            write_tensors(&dir.join("tensors.safetensors"), &self.int.tensors)?;
            self.tokenizer.save(dir).during("storing the tokenizer")?;
            let (bos, eos) = (self.tokenizer.bos(), self.tokenizer.eos());
            export_hf(&dir.join("float"), &self.float, StoredType::F32, bos, eos).during("storing the float model")
        })
    }

    /// Reads it.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        check_header(dir, "model")?;
        let plan: Plan = read_json(&dir.join("semantics.json"))?;
        let tensors = read_tensors(&dir.join("tensors.safetensors"))?;
        let options = ImportOptions { context: Some(plan.semantics.shape.context) };
        let float = load_hf(&dir.join("float"), &options).during_path("reading", dir)?;
        let tokenizer = Tokenizer::load(dir).during_path("reading", dir)?;
        Ok(Self { int: IntModel { semantics: plan.semantics, tensors, calibrated: plan.calibrated }, float, tokenizer })
    }
}

impl AdapterDir {
    /// Writes it, as a PEFT adapter with its integer form beside.
    pub fn save(&self, dir: &Path, model: &FloatModel, base_name: &str) -> Result<(), Failure> {
        write_dir(dir, "adapter", |dir| {
            write_json(&dir.join("semantics.json"), &Plan { semantics: self.int.semantics.clone(), calibrated: self.int.calibrated.clone() })?;
            write_tensors(&dir.join("tensors.safetensors"), &self.int.tensors)?;
            write_peft(dir, &self.float, &model.shape, base_name).during("storing the PEFT adapter")
        })
    }

    /// Reads it, for a model.
    pub fn load(dir: &Path, model: &ModelDir) -> Result<Self, Failure> {
        check_header(dir, "adapter").map_err(|f| f.hint("import a PEFT adapter with `poa train --peft DIR`"))?;
        let plan: Plan = read_json(&dir.join("semantics.json"))?;
        if plan.semantics.shape != model.int.semantics.shape {
            return Err(Failure::input(format!("the adapter {} belongs to another model", dir.display())).hint("train it again for this model"));
        }
        let tensors = read_tensors(&dir.join("tensors.safetensors"))?;
        let float = load_peft(dir, &model.float.shape).during_path("reading", dir)?;
        Ok(Self { int: IntAdapter { semantics: plan.semantics, tensors, calibrated: plan.calibrated }, float })
    }
}

impl IndexDir {
    /// Writes it.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        write_dir(dir, "index", |dir| {
            write_json(&dir.join("semantics.json"), &self.index.semantics)?;
            write_json(&dir.join("index.json"), &self.info)?;
            write_tensors(&dir.join("tensors.safetensors"), &self.index.tensors)
        })
    }

    /// Reads it.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        check_header(dir, "index")?;
        let older = |failure: Failure| failure.hint("an index that another version made is made again with `poa index`");
        let semantics = read_json(&dir.join("semantics.json")).map_err(older)?;
        let info: IndexInfo = read_json(&dir.join("index.json")).map_err(older)?;
        let tensors = read_tensors(&dir.join("tensors.safetensors"))?;
        let rows = info.rows.len();
        Ok(Self { index: Index { semantics, tensors, rows }, info })
    }

    /// Contributor number of each row.
    pub fn contributor_of_rows(&self) -> Vec<u32> {
        let number = |row: &Row| self.info.contributors.iter().position(|c| *c == row.contributor).unwrap_or(0) as u32;
        self.info.rows.iter().map(number).collect()
    }

    /// The committed tensors: the index's and each row's contributor.
    pub fn committed(&self) -> TensorMap {
        let mut tensors = self.index.tensors.clone();
        let mut data: Vec<i32> = self.contributor_of_rows().into_iter().map(|c| c as i32).collect();
        data.resize(self.index.rows.next_power_of_two(), 0);
        tensors.insert("contributor".into(), Tensor { dims: vec![data.len()], data });
        tensors
    }
}

impl RunInfo {
    /// Writes it with its trace.
    pub fn save(&self, dir: &Path, trace: &TensorMap) -> Result<(), Failure> {
        write_dir(dir, "run", |dir| {
            write_json(&dir.join("run.json"), self)?;
            write_tensors(&dir.join("trace.safetensors"), trace)
        })
    }

    /// Reads it without the trace.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        check_header(dir, "run")?;
        read_json(&dir.join("run.json"))
    }

    /// Reads the stored trace.
    pub fn trace(dir: &Path) -> Result<TensorMap, Failure> {
        read_tensors(&dir.join("trace.safetensors"))
    }
}
