//! Float tensors out of safetensors files (F32, F16, BF16), checked for shape and finiteness.

use super::ImportError;
use super::files::{read, read_json};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// The bytes of one or more safetensors files and where each tensor is.
pub(super) struct WeightFiles {
    files: Vec<(PathBuf, Vec<u8>)>,
    index: BTreeMap<String, usize>,
}

impl WeightFiles {
    /// Reads `<dir>/model.safetensors`, or the shards named by `<dir>/model.safetensors.index.json`.
    pub(super) fn open_model(dir: &Path) -> Result<Self, ImportError> {
        let (single, index) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
        match (single.exists(), index.exists()) {
            (false, true) => Self::open_shards(dir, &index),
            (false, false) => Err(other_weights(dir).unwrap_or_else(|| ImportError::io(&single, std::io::ErrorKind::NotFound.into()))),
            _ => Self::open(&single),
        }
    }

    /// Reads an adapter's weights.
    pub(super) fn open_adapter(dir: &Path, file: &str) -> Result<Self, ImportError> {
        let path = dir.join(file);
        let other = if path.exists() { None } else { other_weights(dir) };
        other.map_or_else(|| Self::open(&path), Err)
    }

    /// Reads one file.
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let mut files = Self { files: Vec::new(), index: BTreeMap::new() };
        files.add(path)?;
        Ok(files)
    }

    fn open_shards(dir: &Path, index: &Path) -> Result<Self, ImportError> {
        let json = read_json(index)?;
        let map = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| ImportError::Config {
            field: "weight_map".into(),
            expected: "an object of tensor names and file names".into(),
            found: json.get("weight_map").map_or("nothing".into(), Value::to_string),
        })?;
        let mut shards: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (tensor, file) in map {
            shards.entry(shard_name(tensor, file)?).or_default().insert(tensor);
        }
        let mut files = Self { files: Vec::new(), index: BTreeMap::new() };
        for (shard, tensors) in shards {
            let names = files.add(&dir.join(shard))?;
            if let Some(name) = tensors.into_iter().find(|name| !names.contains(*name)) {
                return Err(ImportError::MissingTensor { name: name.into() });
            }
        }
        Ok(files)
    }

    /// Adds a file; returns the names of its tensors.
    fn add(&mut self, path: &Path) -> Result<BTreeSet<String>, ImportError> {
        let bytes = read(path)?;
        let tensors = parse(path, &bytes)?;
        let number = self.files.len();
        for name in tensors.names() {
            if let Some((first, earlier)) = self.index.get(name).and_then(|&i| self.files.get(i))
                && !same_tensor(name, &tensors, &parse(first, earlier)?)
            {
                let file = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(ImportError::ShardsDisagree { name: name.into(), first: file(first), second: file(path) });
            }
            self.index.insert(name.to_string(), number);
        }
        let names = tensors.names().into_iter().map(str::to_string).collect();
        self.files.push((path.to_path_buf(), bytes));
        Ok(names)
    }

    /// All tensor names, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.index.keys()
    }

    /// Whether there is such a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// A tensor as row-major floats.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        let missing = || ImportError::MissingTensor { name: name.into() };
        let (path, bytes) = self.index.get(name).and_then(|&i| self.files.get(i)).ok_or_else(missing)?;
        let view = parse(path, bytes)?.tensor(name).map_err(|_| missing())?;
        if view.shape() != shape {
            return Err(ImportError::Shape { name: name.into(), expected: shape.to_vec(), found: view.shape().to_vec() });
        }
        let values = to_floats(name, &view)?;
        check_finite(name, &values)?;
        Ok(values)
    }
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, ImportError> {
    SafeTensors::deserialize(bytes).map_err(|e| ImportError::Safetensors { path: path.display().to_string(), reason: e.to_string() })
}

fn to_floats(name: &str, view: &TensorView) -> Result<Vec<f32>, ImportError> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => return Err(ImportError::Dtype { name: name.into(), found: format!("{other:?}") }),
    };
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
        .and_then(|t| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1())
        .map_err(|e| ImportError::Safetensors { path: name.into(), reason: e.to_string() })
}

/// Refuses NaNs and infinities.
pub(super) fn check_finite(name: &str, values: &[f32]) -> Result<(), ImportError> {
    match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        Some((index, &value)) => Err(ImportError::NotFinite { name: name.into(), index, value }),
        None => Ok(()),
    }
}

/// A shard must be a plain file name: an index can't point outside its directory.
fn shard_name(tensor: &str, file: &Value) -> Result<String, ImportError> {
    let plain = |f: &&str| matches!(Path::new(f).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    file.as_str().filter(plain).map(str::to_string).ok_or_else(|| ImportError::Config {
        field: format!("weight_map.{tensor}"),
        expected: "a file name in the model's directory".into(),
        found: file.to_string(),
    })
}

/// Whether two files hold the same type, shape and bytes under a name.
fn same_tensor(name: &str, a: &SafeTensors, b: &SafeTensors) -> bool {
    let same = |a: TensorView, b: TensorView| a.dtype() == b.dtype() && a.shape() == b.shape() && a.data() == b.data();
    a.tensor(name).ok().zip(b.tensor(name).ok()).is_some_and(|(a, b)| same(a, b))
}

/// Names weights that are there in a format that isn't read.
fn other_weights(dir: &Path) -> Option<ImportError> {
    let others = ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth", "adapter_model.bin"];
    let found = others.into_iter().find(|name| dir.join(name).exists())?;
    Some(ImportError::OtherWeights { path: dir.display().to_string(), found: found.into() })
}
