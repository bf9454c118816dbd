//! Hugging Face Llama directories: `config.json` and `model.safetensors`, whole or in shards.
//!
//! Fields mean what they mean in transformers. q and k rows are already in the rotate-half convention. Anything that would change the forward
//! pass and isn't executed here (biases, rotary scaling, quantised weights, other activations, unknown tensors) is refused by name.

use super::files::read_json;
use super::weights::WeightFiles;
use super::{ImportError, ImportOptions, check_shape, generation, hf_module};
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
    generation::check_greedy(dir)?;
    let shape = config.shape(options)?;
    let files = WeightFiles::open_model(dir)?;
    check_names(&files, &shape)?;
    let (embed, head) = load_tables(&files, &shape, config.flag("tie_word_embeddings")?)?;
    Ok(FloatModel {
        embed,
        layers: (0..shape.layers).map(|l| load_layer(&files, &shape, l)).collect::<Result<_, _>>()?,
        final_norm: files.tensor(NORM, &[shape.width])?,
        head,
        shape,
    })
}

/// Embedding and head. With tied weights either name may be the one stored; where both are and they differ, the file counts, not the flag.
fn load_tables(files: &WeightFiles, shape: &ModelShape, tied: bool) -> Result<(Vec<f32>, Option<Vec<f32>>), ImportError> {
    let table = [shape.vocab, shape.width];
    if tied && !files.has(EMBED) && files.has(HEAD) {
        return Ok((files.tensor(HEAD, &table)?, None));
    }
    let embed = files.tensor(EMBED, &table)?;
    if tied && !files.has(HEAD) {
        return Ok((embed, None));
    }
    let head = files.tensor(HEAD, &table)?;
    let same = tied && head == embed;
    Ok((embed, (!same).then_some(head)))
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
        config.require("hidden_act", &["silu", "swish"], Some("silu"))?;
        config.check_architectures()?;
        for feature in ["attention_bias", "mlp_bias"] {
            if config.flag(feature)? {
                return Err(unsupported(feature, "false", "true"));
            }
        }
        for feature in ["quantization_config", "compression_config", "per_layer_config"] {
            if let Some(value) = config.get(feature) {
                return Err(unsupported(feature, "null: float weights, the same sizes in every layer", &value.to_string()));
            }
        }
        config.rope_theta()?;
        Ok(config)
    }

    fn shape(&self, options: &ImportOptions) -> Result<ModelShape, ImportError> {
        let (width, heads) = (self.size("hidden_size", None)?, self.size("num_attention_heads", None)?);
        let head_dim = match self.get("head_dim") {
            None if heads > 0 && width % heads == 0 => width / heads,
            None => return Err(wrong("num_attention_heads", &format!("a divisor of {width}"), heads)),
            Some(_) => self.size("head_dim", None)?,
        };
        let shape = ModelShape {
            layers: self.size("num_hidden_layers", None)?,
            width,
            heads,
            kv_heads: self.size("num_key_value_heads", Some(heads))?,
            head_dim,
            ff: self.size("intermediate_size", None)?,
            vocab: self.size("vocab_size", None)?,
            rope_theta: self.rope_theta()?,
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

    /// `LlamaForCausalLM`, where the file names its architectures at all.
    fn check_architectures(&self) -> Result<(), ImportError> {
        let causal = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(|a| a == "LlamaForCausalLM"));
        match self.get("architectures") {
            Some(list) if !causal(list) => Err(unsupported("architectures", "LlamaForCausalLM", &list.to_string())),
            _ => Ok(()),
        }
    }

    /// The base of the rotary frequencies. Only plain rotary embeddings over the whole head are executed; `rope_parameters` (or `rope_scaling`,
    /// its older name) may say so with a type or without one, and its `rope_theta` stands over the outer one.
    fn rope_theta(&self) -> Result<f64, ImportError> {
        let mut theta = None;
        for field in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.get(field) else { continue };
            let parameters = value.as_object().ok_or_else(|| wrong(field, "an object or null", value))?;
            let kind = parameters.get("rope_type").or(parameters.get("type")).filter(|kind| !kind.is_null() && *kind != "default");
            if let Some(kind) = kind {
                return Err(unsupported(&format!("{field}.rope_type"), "\"default\"", &kind.to_string()));
            }
            for (name, value) in parameters.iter().filter(|(_, v)| !v.is_null()) {
                let field = format!("{field}.{name}");
                match name.as_str() {
                    "rope_type" | "type" => {}
                    "rope_theta" => theta = Some(agree(theta, number(&field, Some(value), 0.0)?, &field)?),
                    "partial_rotary_factor" if value.as_f64() == Some(1.0) => {}
                    _ => return Err(unsupported(&field, "no setting but rope_type and rope_theta", &value.to_string())),
                }
            }
        }
        match self.get("partial_rotary_factor") {
            Some(v) if v.as_f64() != Some(1.0) => Err(unsupported("partial_rotary_factor", "1", &v.to_string())),
            _ => theta.map_or_else(|| number("rope_theta", self.get("rope_theta"), 10000.0), Ok),
        }
    }
}

/// One value said twice must be the same.
fn agree(earlier: Option<f64>, value: f64, field: &str) -> Result<f64, ImportError> {
    match earlier {
        Some(earlier) if earlier != value => Err(wrong(field, &format!("{earlier}, as said before"), value)),
        _ => Ok(value),
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
