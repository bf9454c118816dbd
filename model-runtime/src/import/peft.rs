//! PEFT LoRA adapters: `adapter_config.json` and `adapter_model.safetensors`, read and written.
//!
//! `y = W x + scale · B (A x)`, `scale = alpha / r`, or `alpha / √r` with `use_rslora`. Ranks and alphas may differ between modules, and a site
//! may be adapted in some layers only: such an adapter becomes one of the largest rank on its sites in every layer, with zeros in A and B where
//! there was nothing and the modules' scales in B.

use super::export::{NamedTensor, encode_safetensors};
use super::files::read_json;
use super::peft_config::{Branch, Branches, branches, leaf, unknown_module};
use super::weights::WeightFiles;
use super::{ImportError, StoredType, hf_module, write_atomic};
use crate::shape::{FloatAdapter, LoraShape, ModelShape, Site};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Loads a PEFT adapter directory for a base model of the given shape.
pub fn load_peft(dir: &Path, base: &ModelShape) -> Result<FloatAdapter, ImportError> {
    let branches = branches(&read_json(&dir.join(CONFIG))?, base)?;
    let files = WeightFiles::open_adapter(dir, WEIGHTS)?;
    check_names(&files, base)?;
    let pairs = read_pairs(&files, base, &branches)?;
    check_covered(&files, &branches)?;
    Ok(unify(pairs, base, &branches))
}

type Pairs = BTreeMap<(usize, Site), (Vec<f32>, Vec<f32>)>;

fn read_pairs(files: &WeightFiles, base: &ModelShape, branches: &Branches) -> Result<Pairs, ImportError> {
    let mut pairs = BTreeMap::new();
    for (&(layer, site), branch) in branches {
        let (rows, columns) = base.site_dims(site);
        let read = |half, shape: &[usize]| {
            let tensor = tensor_name(layer, site, half);
            if files.has(&tensor) {
                return files.tensor(&tensor, shape);
            }
            let anywhere = (0..base.layers).any(|l| files.has(&tensor_name(l, site, half)));
            let module = hf_module(site).into();
            Err(if anywhere { ImportError::PartialSite { module, layer, tensor } } else { ImportError::MissingTensor { name: tensor } })
        };
        pairs.insert((layer, site), (read('A', &[branch.rank, columns])?, read('B', &[rows, branch.rank])?));
    }
    Ok(pairs)
}

/// One rank and one scale on the same sites in every layer.
fn unify(mut pairs: Pairs, base: &ModelShape, branches: &Branches) -> FloatAdapter {
    let rank = branches.values().map(|b| b.rank).max().unwrap_or(1);
    let sites: BTreeSet<Site> = branches.keys().map(|&(_, site)| site).collect();
    let scales: Vec<f32> = branches.values().map(|b| b.scale).collect();
    let one_scale = scales.windows(2).all(|w| w[0] == w[1]);
    let scale = scales.first().copied().filter(|_| one_scale).unwrap_or(1.0);
    for layer in 0..base.layers {
        for &site in &sites {
            let (rows, columns) = base.site_dims(site);
            let absent = Branch { rank: 0, scale };
            let branch = branches.get(&(layer, site)).unwrap_or(&absent);
            let (a, b) = pairs.entry((layer, site)).or_default();
            a.resize(rank * columns, 0.0);
            *b = widened(b, rows, branch.rank, rank);
            if branch.scale != scale {
                b.iter_mut().for_each(|x| *x = (f64::from(*x) * f64::from(branch.scale)) as f32);
            }
        }
    }
    FloatAdapter { shape: LoraShape { rank, sites: sites.into_iter().collect() }, scale, pairs }
}

/// Rows of `from` values, each filled up with zeros to `to`.
fn widened(b: &[f32], rows: usize, from: usize, to: usize) -> Vec<f32> {
    let row = |r: usize| (0..to).map(move |c| if c < from { b[r * from + c] } else { 0.0 });
    (0..rows).flat_map(row).collect()
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

/// Refuses tensors that aren't LoRA halves of the model's linear layers.
fn check_names(files: &WeightFiles, base: &ModelShape) -> Result<(), ImportError> {
    for name in files.names() {
        let (layer, module) = split_name(name).ok_or_else(|| ImportError::UnexpectedTensor { name: name.clone() })?;
        if !Site::ALL.iter().any(|&site| hf_module(site) == module) {
            return Err(unknown_module(module));
        }
        if layer >= base.layers {
            let expected = format!("layers below {}", base.layers);
            return Err(ImportError::Config { field: name.clone(), expected, found: format!("layer {layer}") });
        }
    }
    Ok(())
}

/// Refuses tensors of modules that the configuration leaves out.
fn check_covered(files: &WeightFiles, branches: &Branches) -> Result<(), ImportError> {
    let covered: BTreeSet<String> = branches.keys().flat_map(|&(l, site)| ['A', 'B'].map(|half| tensor_name(l, site, half))).collect();
    match files.names().find(|name| !covered.contains(*name)) {
        Some(name) => Err(ImportError::NotCovered { name: name.clone() }),
        None => Ok(()),
    }
}

/// Layer and module path of an adapter tensor's name.
fn split_name(name: &str) -> Option<(usize, &str)> {
    let rest = name.strip_prefix("base_model.model.model.layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let module = rest.strip_suffix(".lora_A.weight").or(rest.strip_suffix(".lora_B.weight"))?;
    // Only the canonical spelling of a number names the tensor that is read later.
    layer.parse().ok().filter(|n: &usize| n.to_string() == layer).map(|n| (n, module))
}

#[cfg(test)]
#[path = "peft_tests.rs"]
mod tests;
