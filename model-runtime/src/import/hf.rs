//! Hugging Face Llama directories: `config.json` and `model.safetensors`, whole or in shards.
//!
//! Their q and k rows are already in the rotate-half convention. Anything that would change the forward pass and isn't executed here
//! (biases, rotary scaling, other activations, unknown tensors) is refused by name.

use super::weights::{WeightFiles, read_json};
use super::{ImportError, ImportOptions, check_shape, hf_module};
use crate::shape::{FloatLayer, FloatModel, ModelShape, Site};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

/// Loads a Hugging Face Llama directory.
pub fn load_hf(dir: &Path, options: &ImportOptions) -> Result<FloatModel, ImportError> {
    let path = dir.join("config.json");
    let config = Config::read(read_json(&path)?)?;
    let shape = config.shape(options)?;
    let tied = config.flag("tie_word_embeddings")?;
    let files = WeightFiles::open_model(dir)?;
    check_names(&files, &shape)?;
    let table = [shape.vocab, shape.width];
    // With tied weights either name may be the one stored.
    let stored = if tied && !files.has(EMBED) && files.has(HEAD) { HEAD } else { EMBED };
    Ok(FloatModel {
        embed: files.tensor(stored, &table)?,
        layers: (0..shape.layers).map(|l| load_layer(&files, &shape, l)).collect::<Result<_, _>>()?,
        final_norm: files.tensor(NORM, &[shape.width])?,
        head: if tied { None } else { Some(files.tensor(HEAD, &table)?) },
        shape,
    })
}

fn load_layer(files: &WeightFiles, shape: &ModelShape, layer: usize) -> Result<FloatLayer, ImportError> {
    let mut linear: [Vec<f32>; 7] = Default::default();
    for site in Site::ALL {
        let (rows, columns) = shape.site_dims(site);
        linear[site as usize] = files.tensor(&linear_name(layer, site), &[rows, columns])?;
    }
    let norm = |name: &str| files.tensor(&format!("model.layers.{layer}.{name}.weight"), &[shape.width]);
    Ok(FloatLayer { attn_norm: norm("input_layernorm")?, ffn_norm: norm("post_attention_layernorm")?, linear })
}

/// The name of a linear layer's weight.
pub(super) fn linear_name(layer: usize, site: Site) -> String {
    format!("model.layers.{layer}.{}.weight", hf_module(site))
}

/// Refuses tensors the architecture doesn't have, such as biases or layers beyond `num_hidden_layers`.
fn check_names(files: &WeightFiles, shape: &ModelShape) -> Result<(), ImportError> {
    let mut known: BTreeSet<String> = [EMBED, HEAD, NORM].map(String::from).into();
    // A file can't have more layers than tensors, whatever its configuration says.
    for layer in 0..shape.layers.min(files.names().count()) {
        known.extend(Site::ALL.map(|site| linear_name(layer, site)));
        known.extend(["input_layernorm", "post_attention_layernorm"].map(|n| format!("model.layers.{layer}.{n}.weight")));
    }
    match files.names().find(|name| !known.contains(*name) && !name.ends_with("rotary_emb.inv_freq")) {
        Some(name) => Err(ImportError::UnexpectedTensor { name: name.clone() }),
        None => Ok(()),
    }
}

/// `config.json`.
struct Config(Map<String, Value>);

impl Config {
    /// Checks that the architecture is the supported one.
    fn read(json: Value) -> Result<Self, ImportError> {
        let Value::Object(map) = json else {
            return Err(ImportError::Config { field: "config.json".into(), expected: "an object".into(), found: json.to_string() });
        };
        let config = Self(map);
        config.require("model_type", &["llama"], None)?;
        config.require("hidden_act", &["silu"], Some("silu"))?;
        for feature in ["attention_bias", "mlp_bias"] {
            if config.flag(feature)? {
                return Err(unsupported(feature, "false", "true"));
            }
        }
        config.check_rotary()?;
        Ok(config)
    }

    fn shape(&self, options: &ImportOptions) -> Result<ModelShape, ImportError> {
        let (width, heads) = (self.size("hidden_size", None)?, self.size("num_attention_heads", None)?);
        let head_dim = match self.get("head_dim") {
            None if heads > 0 && width % heads == 0 => width / heads,
            None => return Err(wrong("num_attention_heads", &format!("a divisor of {width}"), heads)),
            Some(_) => self.size("head_dim", None)?,
        };
        let theta = self.get("rope_parameters").and_then(|p| p.get("rope_theta")).or(self.get("rope_theta"));
        let shape = ModelShape {
            layers: self.size("num_hidden_layers", None)?,
            width,
            heads,
            kv_heads: self.size("num_key_value_heads", Some(heads))?,
            head_dim,
            ff: self.size("intermediate_size", None)?,
            vocab: self.size("vocab_size", None)?,
            rope_theta: number("rope_theta", theta, 10000.0)?,
            norm_eps: number("rms_norm_eps", self.get("rms_norm_eps"), 1e-6)?,
            context: options.context(self.size("max_position_embeddings", Some(2048))?),
        };
        check_shape(&shape)?;
        Ok(shape)
    }

    /// A field; `null` counts as absent.
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    fn size(&self, field: &str, default: Option<usize>) -> Result<usize, ImportError> {
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(wrong(field, "a positive integer", "nothing")),
            (Some(v), _) => v.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| wrong(field, "a positive integer", v)),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, ImportError> {
        self.get(field).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| wrong(field, "true or false", v)))
    }

    fn require(&self, field: &str, allowed: &[&str], default: Option<&str>) -> Result<(), ImportError> {
        let found = match self.get(field) {
            None => default.unwrap_or("nothing").to_string(),
            Some(v) => v.as_str().map_or_else(|| v.to_string(), str::to_string),
        };
        if allowed.contains(&found.as_str()) { Ok(()) } else { Err(unsupported(field, &allowed.join(" or "), &found)) }
    }

    /// Only plain rotary embeddings over the whole head are executed.
    fn check_rotary(&self) -> Result<(), ImportError> {
        for field in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.get(field) else { continue };
            let kind = value.get("rope_type").or(value.get("type")).and_then(Value::as_str);
            if kind != Some("default") {
                return Err(unsupported(field, "null", &value.to_string()));
            }
        }
        match self.get("partial_rotary_factor") {
            Some(v) if v.as_f64() != Some(1.0) => Err(unsupported("partial_rotary_factor", "1", &v.to_string())),
            _ => Ok(()),
        }
    }
}

fn number(field: &str, value: Option<&Value>, default: f64) -> Result<f64, ImportError> {
    value.map_or(Ok(default), |v| v.as_f64().ok_or_else(|| wrong(field, "a number", v)))
}

fn wrong(field: &str, expected: &str, found: impl ToString) -> ImportError {
    ImportError::Config { field: field.into(), expected: expected.into(), found: found.to_string() }
}

fn unsupported(feature: &str, expected: &str, found: &str) -> ImportError {
    ImportError::Unsupported { feature: feature.into(), expected: expected.into(), found: found.into() }
}

#[cfg(test)]
#[path = "hf_tests.rs"]
mod tests;
