//! `adapter_config.json`: what each field of PEFT's `LoraConfig` means for a Llama model (`peft/tuners/lora/config.py`, 0.21).
//!
//! A field is read, known to leave the result as it is, or refused by name; `null` is absence.

use super::{ImportError, hf_module};
use crate::shape::{ModelShape, Site};
use fancy_regex::Regex;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Largest rank that is read.
const MAX_RANK: u64 = 1 << 16;

/// Fields that are read here.
const READ: [&str; 12] = [
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "init_lora_weights",
];

/// Fields that say where an adapter comes from or how it was trained, or that only count beside a field that is refused.
const HARMLESS: [&str; 15] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Features that aren't executed; each must be off.
const OFF: [(&str, &str); 17] = [
    ("alora_invocation_tokens", "null: an adapter that is active at every token"),
    ("arrow_config", "null: one adapter, without routing"),
    ("bias", "\"none\""),
    ("enable_lora", "null"),
    ("fan_in_fan_out", "false: a Llama model's layers are stored [out, in]"),
    ("kasa_config", "null"),
    ("layer_replication", "null; save the model with its replicated layers as the base"),
    ("lora_bias", "false"),
    ("megatron_config", "null"),
    ("modules_to_save", "null; merge the saved modules into the base model first"),
    ("monteclora_config", "null"),
    ("target_parameters", "null; use target_modules"),
    ("trainable_token_indices", "null; merge the trained tokens into the base model first"),
    ("use_bdlora", "null"),
    ("use_dora", "false; merge a DoRA adapter into the base model"),
    ("use_qalora", "false"),
    ("velora_config", "null"),
];

/// Rank and scale of one module's pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Branch {
    pub rank: usize,
    pub scale: f32,
}

/// The branches that a configuration puts on a model, by layer and site.
pub(super) type Branches = BTreeMap<(usize, Site), Branch>;

/// Reads a configuration for a base model of the given shape.
pub(super) fn branches(json: &Value, base: &ModelShape) -> Result<Branches, ImportError> {
    let config = Config(json.as_object().ok_or_else(|| wrong("adapter_config.json", "an object", json))?);
    config.check_fields()?;
    config.check_initialisation()?;
    let selected = Selection::read(&config, base)?;
    let (ranks, alphas) = (Pattern::read(&config, "rank_pattern")?, Pattern::read(&config, "alpha_pattern")?);
    let mut branches = Branches::new();
    for layer in 0..base.layers {
        for site in Site::ALL {
            let module = module(layer, site);
            if selected.contains(layer, &module)? {
                let rank = config.rank(ranks.find(&module)?)?;
                branches.insert((layer, site), Branch { rank, scale: config.scale(alphas.find(&module)?, rank)? });
            }
        }
    }
    if branches.is_empty() {
        Err(wrong("target_modules", "at least one linear layer of the model", json.get("target_modules")))
    } else {
        Ok(branches)
    }
}

/// A module's name in the base model.
fn module(layer: usize, site: Site) -> String {
    format!("model.layers.{layer}.{}", hf_module(site))
}

/// The last component of a module path.
pub(super) fn leaf(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// Refuses a module that carries no branch here.
pub(super) fn unknown_module(module: &str) -> ImportError {
    let expected = Site::ALL.map(|site| leaf(hf_module(site))).join(", ");
    ImportError::Unsupported { feature: format!("adapter module `{module}`"), expected, found: format!("`{module}`") }
}

fn wrong<'a>(field: &str, expected: &str, found: impl Into<Option<&'a Value>>) -> ImportError {
    let found = found.into().map_or("nothing".into(), Value::to_string);
    ImportError::Config { field: field.into(), expected: expected.into(), found }
}

fn unsupported(field: &str, expected: &str, found: &Value) -> ImportError {
    ImportError::Unsupported { feature: field.into(), expected: expected.into(), found: found.to_string() }
}

/// `false`, `null`, `[]`, `{}`, `""`, `"none"`.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(_) => false,
        Value::String(s) => s.is_empty() || s == "none",
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// A pattern as Python's `re` reads it.
fn regex(field: &str, pattern: &str) -> Result<Regex, ImportError> {
    Regex::new(pattern).map_err(|e| ImportError::Config {
        field: field.into(),
        expected: "a regular expression that this program reads; list the modules instead".into(),
        found: format!("`{pattern}` ({e})"),
    })
}

fn matches(field: &str, regex: &Regex, text: &str) -> Result<bool, ImportError> {
    regex.is_match(text).map_err(|e| ImportError::Config { field: field.into(), expected: "a simpler pattern".into(), found: e.to_string() })
}

struct Config<'a>(&'a Map<String, Value>);

impl<'a> Config<'a> {
    /// A field; `null` counts as absent.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    fn check_fields(&self) -> Result<(), ImportError> {
        if self.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(unsupported("peft_type", "LORA", self.get("peft_type").unwrap_or(&Value::Null)));
        }
        if let Some(task) = self.get("task_type").filter(|task| *task != "CAUSAL_LM") {
            return Err(unsupported("task_type", "CAUSAL_LM", task));
        }
        for (field, value) in self.0.iter().filter(|(_, v)| !v.is_null()) {
            let known = |list: &[&str]| list.contains(&field.as_str());
            match OFF.iter().find(|(off, _)| off == field) {
                Some((_, expected)) if !is_off(value) => return Err(unsupported(field, expected, value)),
                None if !known(&READ) && !known(&HARMLESS) => {
                    return Err(unsupported(field, "a known field; remove it if it doesn't change what the adapter computes", value));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Some initialisations change the base weights, which the adapter's tensors then presume.
    fn check_initialisation(&self) -> Result<(), ImportError> {
        const FIELD: &str = "init_lora_weights";
        let plain = ["gaussian", "eva", "orthogonal", "mica"];
        match self.get(FIELD) {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(Value::String(name)) if plain.contains(&name.as_str()) => Ok(()),
            Some(value) => {
                let expected = "an initialisation that leaves the base weights as they are; convert the adapter with PEFT's \
                    save_pretrained(..., path_initial_model_for_weight_conversion=...)";
                Err(unsupported(FIELD, expected, value))
            }
        }
    }

    fn rank(&self, pattern: Option<&Value>) -> Result<usize, ImportError> {
        let (field, value) = pattern.map_or(("r", self.get("r")), |value| ("rank_pattern", Some(value)));
        match value.and_then(Value::as_u64) {
            Some(rank) if (1..=MAX_RANK).contains(&rank) => Ok(rank as usize),
            _ => Err(wrong(field, "a positive integer", value)),
        }
    }

    /// `alpha / r`, or `alpha / √r` with `use_rslora`.
    fn scale(&self, pattern: Option<&Value>, rank: usize) -> Result<f32, ImportError> {
        let rs = match self.get("use_rslora") {
            None => false,
            Some(Value::Bool(rs)) => *rs,
            Some(value) => return Err(wrong("use_rslora", "true or false", value)),
        };
        let divisor = if rs { (rank as f64).sqrt() } else { rank as f64 };
        let (field, value) = pattern.map_or(("lora_alpha", self.get("lora_alpha")), |value| ("alpha_pattern", Some(value)));
        match value.and_then(Value::as_f64).map(|alpha| (alpha / divisor) as f32) {
            Some(scale) if scale.is_finite() => Ok(scale),
            _ => Err(wrong(field, "a number", value)),
        }
    }

    /// A list of strings, or one string alone.
    fn names(&self, field: &str) -> Result<Option<Names>, ImportError> {
        let Some(value) = self.get(field).filter(|v| !is_off(v)) else { return Ok(None) };
        let name = |v: &Value| v.as_str().map(str::to_string).ok_or_else(|| wrong(field, "module names", v));
        match value {
            Value::String(pattern) => Ok(Some(Names::Pattern(pattern.clone()))),
            Value::Array(list) => list.iter().map(name).collect::<Result<_, _>>().map(|list| Some(Names::List(list))),
            _ => Err(wrong(field, "a list of module names or a pattern", value)),
        }
    }
}

/// What names modules: a list of them or of their suffixes, or a pattern that the whole name matches.
enum Names {
    List(Vec<String>),
    Pattern(String),
}

/// Names made ready to be compared with modules.
enum Matcher {
    List(Vec<String>),
    Whole(&'static str, Regex),
    Nothing,
}

impl Matcher {
    fn new(field: &'static str, names: Option<Names>) -> Result<Self, ImportError> {
        Ok(match names {
            None => Self::Nothing,
            Some(Names::List(list)) => Self::List(list),
            Some(Names::Pattern(pattern)) => Self::Whole(field, regex(field, &format!(r"\A(?:{pattern})\z"))?),
        })
    }

    fn contains(&self, module: &str) -> Result<bool, ImportError> {
        match self {
            Self::Nothing => Ok(false),
            Self::List(list) => Ok(list.iter().any(|name| names_module(name, module))),
            Self::Whole(field, regex) => matches(field, regex, module),
        }
    }
}

/// Whether `name` is a module's name or ends it at a dot.
fn names_module(name: &str, module: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Which modules carry a branch.
struct Selection {
    targets: Matcher,
    excluded: Matcher,
    layers: Option<BTreeSet<u64>>,
}

impl Selection {
    fn read(config: &Config, base: &ModelShape) -> Result<Self, ImportError> {
        let targets = match config.names("target_modules")? {
            // What PEFT chooses for a Llama model.
            None => Names::List(vec!["q_proj".into(), "v_proj".into()]),
            Some(Names::Pattern(all)) if all.eq_ignore_ascii_case("all-linear") => {
                Names::List(Site::ALL.map(|site| leaf(hf_module(site)).to_string()).into())
            }
            Some(names) => names,
        };
        check_targets(&targets, base)?;
        let layers = read_layers(config, matches!(targets, Names::Pattern(_)), base)?;
        let targets = Matcher::new("target_modules", Some(targets))?;
        for other in ["lm_head", "model.embed_tokens"] {
            if targets.contains(other)? {
                return Err(unknown_module(other));
            }
        }
        Ok(Self { targets, excluded: Matcher::new("exclude_modules", config.names("exclude_modules")?)?, layers })
    }

    fn contains(&self, layer: usize, module: &str) -> Result<bool, ImportError> {
        let in_layers = self.layers.as_ref().is_none_or(|layers| layers.contains(&(layer as u64)));
        Ok(in_layers && !self.excluded.contains(module)? && self.targets.contains(module)?)
    }
}

/// Every listed target must name a linear layer.
fn check_targets(targets: &Names, base: &ModelShape) -> Result<(), ImportError> {
    let Names::List(list) = targets else { return Ok(()) };
    let known = |name: &str| (0..base.layers).any(|layer| Site::ALL.iter().any(|&site| names_module(name, &module(layer, site))));
    list.iter().find(|name| !known(name)).map_or(Ok(()), |name| Err(unknown_module(name)))
}

/// The layers that `layers_to_transform` picks; none for all.
fn read_layers(config: &Config, pattern: bool, base: &ModelShape) -> Result<Option<BTreeSet<u64>>, ImportError> {
    const FIELD: &str = "layers_to_transform";
    let layers = config.get(FIELD).filter(|v| !is_off(v));
    if let Some(value) = config.get("layers_pattern").filter(|v| !is_off(v)) {
        let only = value == "layers" || value.as_array().is_some_and(|list| list.iter().all(|p| p == "layers"));
        if layers.is_none() || !only {
            return Err(unsupported("layers_pattern", "\"layers\", beside layers_to_transform", value));
        }
    }
    let Some(value) = layers else { return Ok(None) };
    if pattern {
        return Err(unsupported(FIELD, "null where target_modules is a pattern, as in PEFT", value));
    }
    let expected = format!("layers below {}", base.layers);
    let layer = |v: &Value| v.as_u64().filter(|&l| l < base.layers as u64).ok_or_else(|| wrong(FIELD, &expected, v));
    match value {
        Value::Array(list) => list.iter().map(layer).collect::<Result<_, _>>().map(Some),
        one => layer(one).map(|layer| Some([layer].into())),
    }
}

/// `rank_pattern` or `alpha_pattern`: values for modules whose name ends in a match.
struct Pattern<'a> {
    field: &'static str,
    entries: Vec<(Regex, &'a Value)>,
}

impl<'a> Pattern<'a> {
    fn read(config: &Config<'a>, field: &'static str) -> Result<Self, ImportError> {
        let entries = match config.get(field) {
            None => Vec::new(),
            Some(Value::Object(map)) => {
                let entry = |(key, value): (&String, &'a Value)| Ok((regex(field, &format!(r"\A(?:.*\.)?(?:{key})\z"))?, value));
                map.iter().map(entry).collect::<Result<_, ImportError>>()?
            }
            Some(value) => return Err(wrong(field, "an object of module names and numbers", value)),
        };
        Ok(Self { field, entries })
    }

    /// The value for a module. PEFT takes the first match in the file's order; two that differ are refused.
    fn find(&self, module: &str) -> Result<Option<&'a Value>, ImportError> {
        let mut found: Option<&Value> = None;
        for (regex, value) in &self.entries {
            if matches(self.field, regex, module)? {
                if found.is_some_and(|earlier| earlier != *value) {
                    return Err(wrong(self.field, &format!("one value for {module}"), *value));
                }
                found = Some(value);
            }
        }
        Ok(found)
    }
}
