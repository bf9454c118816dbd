//! PEFT LoRA adapters: `adapter_config.json` and `adapter_model.safetensors`, read and written.
//!
//! `y = W x + scale · B (A x)`, `scale = alpha / r`, or `alpha / √r` with `use_rslora`. One rank and one scale, the same sites in every layer;
//! PEFT's other variants (DoRA, biases, patterns, saved modules …) are refused by name.

use super::export::{NamedTensor, encode_safetensors};
use super::weights::{WeightFiles, read_json};
use super::{ImportError, StoredType, hf_module, write_atomic};
use crate::shape::{FloatAdapter, LoraShape, ModelShape, Site};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Largest rank that is read.
const MAX_RANK: u64 = 1 << 16;

/// Loads a PEFT adapter directory for a base model of the given shape.
pub fn load_peft(dir: &Path, base: &ModelShape) -> Result<FloatAdapter, ImportError> {
    let config = Config(read_json(&dir.join(CONFIG))?);
    config.refuse_variants()?;
    let rank = config.rank()?;
    let scale = config.scale(rank)?;
    let targets = config.targets()?;
    let files = WeightFiles::open(&dir.join(WEIGHTS))?;
    let sites = covered_sites(&files, base)?;
    if let Some(site) = targets.difference(&sites).next() {
        return Err(ImportError::MissingTensor { name: tensor_name(0, *site, 'A') });
    }
    let pairs = read_pairs(&files, base, rank, &sites)?;
    Ok(FloatAdapter { shape: LoraShape { rank, sites: sites.into_iter().collect() }, scale, pairs })
}

type Pairs = BTreeMap<(usize, Site), (Vec<f32>, Vec<f32>)>;

fn read_pairs(files: &WeightFiles, base: &ModelShape, rank: usize, sites: &BTreeSet<Site>) -> Result<Pairs, ImportError> {
    let mut pairs = BTreeMap::new();
    for layer in 0..base.layers {
        for &site in sites {
            let (rows, columns) = base.site_dims(site);
            let read = |half, shape: &[usize]| {
                let tensor = tensor_name(layer, site, half);
                if !files.has(&tensor) {
                    return Err(ImportError::PartialSite { module: hf_module(site).into(), layer, tensor });
                }
                files.tensor(&tensor, shape)
            };
            pairs.insert((layer, site), (read('A', &[rank, columns])?, read('B', &[rows, rank])?));
        }
    }
    Ok(pairs)
}

/// Writes an adapter as PEFT does; `base_name` is its `base_model_name_or_path`.
pub fn write_peft(dir: &Path, adapter: &FloatAdapter, base: &ModelShape, base_name: &str) -> Result<(), ImportError> {
    let rank = adapter.shape.rank;
    let mut tensors: Vec<NamedTensor> = Vec::with_capacity(2 * adapter.pairs.len());
    for layer in 0..base.layers {
        for &site in &adapter.shape.sites {
            let (rows, columns) = base.site_dims(site);
            let name = |half| tensor_name(layer, site, half);
            let (a, b) = adapter.pairs.get(&(layer, site)).ok_or_else(|| ImportError::MissingTensor { name: name('A') })?;
            tensors.push((name('A'), vec![rank, columns], a));
            tensors.push((name('B'), vec![rows, rank], b));
        }
    }
    let weights = encode_safetensors(&tensors, StoredType::F32)?;
    let config = config_json(adapter, base_name);
    fs::create_dir_all(dir).map_err(|e| ImportError::io(dir, e))?;
    write_atomic(&dir.join(WEIGHTS), &weights)?;
    write_atomic(&dir.join(CONFIG), format!("{config:#}\n").as_bytes())
}

fn config_json(adapter: &FloatAdapter, base_name: &str) -> Value {
    let modules = adapter.shape.sites.iter().map(|&site| leaf(hf_module(site))).collect::<Vec<_>>();
    // Exact: a 24-bit significand times a small integer.
    let alpha = f64::from(adapter.scale) * adapter.shape.rank as f64;
    let alpha = if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) };
    json!({
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": adapter.shape.rank,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    })
}

fn tensor_name(layer: usize, site: Site, half: char) -> String {
    format!("base_model.model.model.layers.{layer}.{}.lora_{half}.weight", hf_module(site))
}

/// The last component of a module path.
fn leaf(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

fn site_of(module: &str) -> Option<Site> {
    Site::ALL.into_iter().find(|&site| leaf(hf_module(site)) == leaf(module))
}

/// The sites that the tensors name; any other tensor is refused.
fn covered_sites(files: &WeightFiles, base: &ModelShape) -> Result<BTreeSet<Site>, ImportError> {
    let mut sites = BTreeSet::new();
    for name in files.names() {
        let (layer, module) = split_name(name).ok_or_else(|| ImportError::UnexpectedTensor { name: name.clone() })?;
        let site = Site::ALL.into_iter().find(|&site| hf_module(site) == module).ok_or_else(|| unknown_module(module))?;
        if layer >= base.layers {
            let expected = format!("layers below {}", base.layers);
            return Err(ImportError::Config { field: name.clone(), expected, found: format!("layer {layer}") });
        }
        sites.insert(site);
    }
    if sites.is_empty() { Err(ImportError::MissingTensor { name: tensor_name(0, Site::Q, 'A') }) } else { Ok(sites) }
}

/// Layer and module path of an adapter tensor's name.
fn split_name(name: &str) -> Option<(usize, &str)> {
    let rest = name.strip_prefix("base_model.model.model.layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let module = rest.strip_suffix(".lora_A.weight").or(rest.strip_suffix(".lora_B.weight"))?;
    // Only the canonical spelling of a number names the tensor that is read later.
    layer.parse().ok().filter(|n: &usize| n.to_string() == layer).map(|n| (n, module))
}

fn unknown_module(module: &str) -> ImportError {
    let expected = Site::ALL.map(|site| leaf(hf_module(site))).join(", ");
    ImportError::Unsupported { feature: format!("adapter module `{module}`"), expected, found: format!("`{module}`") }
}

/// `adapter_config.json`.
struct Config(Value);

impl Config {
    fn refuse_variants(&self) -> Result<(), ImportError> {
        let refuse = |field: &str, expected: &str, value: &Value| {
            Err(ImportError::Unsupported { feature: field.into(), expected: expected.into(), found: value.to_string() })
        };
        for (field, only) in [("peft_type", "LORA"), ("bias", "none")] {
            match self.get(field) {
                Some(v) if v.as_str() != Some(only) => return refuse(field, only, v),
                None if field == "peft_type" => return refuse(field, only, &Value::Null),
                _ => {}
            }
        }
        let absent = ["use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern"];
        let more = ["layer_replication", "trainable_token_indices", "target_parameters", "exclude_modules"];
        for field in absent.into_iter().chain(more) {
            match self.get(field) {
                Some(v) if !is_empty(v) => return refuse(field, "none", v),
                _ => {}
            }
        }
        Ok(())
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    fn wrong<T>(&self, field: &str, expected: &str) -> Result<T, ImportError> {
        let found = self.get(field).map_or("nothing".into(), Value::to_string);
        Err(ImportError::Config { field: field.into(), expected: expected.into(), found })
    }

    fn rank(&self) -> Result<usize, ImportError> {
        match self.get("r").and_then(Value::as_u64) {
            Some(rank) if (1..=MAX_RANK).contains(&rank) => Ok(rank as usize),
            _ => self.wrong("r", "a positive integer"),
        }
    }

    fn scale(&self, rank: usize) -> Result<f32, ImportError> {
        let rs = match self.get("use_rslora") {
            None => false,
            Some(Value::Bool(rs)) => *rs,
            Some(_) => return self.wrong("use_rslora", "true or false"),
        };
        let divisor = if rs { (rank as f64).sqrt() } else { rank as f64 };
        match self.get("lora_alpha").and_then(Value::as_f64).map(|alpha| (alpha / divisor) as f32) {
            Some(scale) if scale.is_finite() => Ok(scale),
            _ => self.wrong("lora_alpha", "a number"),
        }
    }

    /// The listed sites; none for a pattern (then the tensors alone say what is covered).
    fn targets(&self) -> Result<BTreeSet<Site>, ImportError> {
        match self.get("target_modules") {
            None | Some(Value::String(_)) => Ok(BTreeSet::new()),
            Some(Value::Array(modules)) => modules.iter().map(|m| self.target(m)).collect(),
            Some(_) => self.wrong("target_modules", "a list of module names or a pattern"),
        }
    }

    fn target(&self, module: &Value) -> Result<Site, ImportError> {
        match module.as_str() {
            None => self.wrong("target_modules", "module names"),
            Some(name) => site_of(name).ok_or_else(|| unknown_module(name)),
        }
    }
}

/// `false`, `null`, `[]`, `{}`, `""`.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(_) => false,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

#[cfg(test)]
#[path = "peft_tests.rs"]
mod tests;
