//! `generation_config.json`: which tokens end an answer, and settings that change greedy decoding.
//!
//! Ids of `generation_config.json` stand over those of `config.json`, as in transformers. Answers are greedy; a setting that changes which token
//! is the greedy one (penalties, suppressed tokens, beams …) is refused by name.

use super::ImportError;
use super::files::read_optional_json;
use serde_json::Value;
use std::path::Path;

const FILE: &str = "generation_config.json";

/// Token ids that a model's directory names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndIds {
    /// The first token of a sequence.
    pub bos: Option<u32>,
    /// Each of these ends an answer; empty when no file names one.
    pub eos: Vec<u32>,
}

/// Reads the ids of a model's directory.
pub fn end_ids(dir: &Path) -> Result<EndIds, ImportError> {
    let mut ids = EndIds::default();
    for name in [FILE, "config.json"] {
        let Some(json) = read_optional_json(&dir.join(name))? else { continue };
        ids.bos = ids.bos.or(read_ids(&json, "bos_token_id")?.first().copied());
        if ids.eos.is_empty() {
            ids.eos = read_ids(&json, "eos_token_id")?;
        }
    }
    Ok(ids)
}

/// One id, a list of ids, or nothing.
fn read_ids(json: &Value, field: &str) -> Result<Vec<u32>, ImportError> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let ids = match json.get(field) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(one) => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| ImportError::Config { field: field.into(), expected: "a token id or a list of them".into(), found: json[field].to_string() })
}

/// Settings under which the greedy token isn't the one with the largest logit, each with the number that switches it off.
const NOT_GREEDY: [(&str, f64); 23] = [
    ("repetition_penalty", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("diversity_penalty", 0.0),
    ("guidance_scale", 1.0),
    ("penalty_alpha", 0.0),
    ("bad_words_ids", 0.0),
    ("force_words_ids", 0.0),
    ("constraints", 0.0),
    ("sequence_bias", 0.0),
    ("suppress_tokens", 0.0),
    ("begin_suppress_tokens", 0.0),
    ("forced_bos_token_id", -1.0),
    ("forced_eos_token_id", -1.0),
    ("exponential_decay_length_penalty", 0.0),
    ("watermarking_config", 0.0),
    ("stop_strings", 0.0),
    ("dola_layers", 0.0),
];

/// Refuses a `generation_config.json` whose greedy answers aren't the plain ones.
pub(super) fn check_greedy(dir: &Path) -> Result<(), ImportError> {
    let Some(json) = read_optional_json(&dir.join(FILE))? else { return Ok(()) };
    let off = |value: &Value, off: f64| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(off),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match NOT_GREEDY.iter().find(|(field, neutral)| json.get(field).is_some_and(|v| !off(v, *neutral))) {
        Some((field, _)) => Err(ImportError::Unsupported {
            feature: format!("`{field}` in {FILE}"),
            expected: "nothing that changes greedy answers (remove the field if plain greedy answers are wanted)".into(),
            found: json[*field].to_string(),
        }),
        None => Ok(()),
    }
}

/// Whether the model's directory asks for sampling, which greedy answers stand in for.
pub fn samples(dir: &Path) -> bool {
    read_optional_json(&dir.join(FILE)).ok().flatten().is_some_and(|json| json.get("do_sample") == Some(&Value::Bool(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn directory(config: Value, generation: Option<Value>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        if let Some(generation) = generation {
            fs::write(dir.path().join(FILE), generation.to_string()).unwrap();
        }
        dir
    }

    #[test]
    fn every_end_of_an_answer_is_read() {
        let config = json!({ "bos_token_id": 1, "eos_token_id": [2, 7] });
        let ids = |generation| end_ids(directory(config.clone(), generation).path()).unwrap();
        assert_eq!(ids(None), EndIds { bos: Some(1), eos: vec![2, 7] });
        assert_eq!(ids(Some(json!({ "eos_token_id": [5, 6] }))), EndIds { bos: Some(1), eos: vec![5, 6] });
        assert_eq!(ids(Some(json!({ "eos_token_id": null, "bos_token_id": 3 }))), EndIds { bos: Some(3), eos: vec![2, 7] });
        let wrong = end_ids(directory(json!({ "eos_token_id": "</s>" }), None).path());
        assert!(matches!(wrong, Err(ImportError::Config { field, .. }) if field == "eos_token_id"));
    }

    #[test]
    fn settings_that_change_greedy_answers_are_refused_by_name() {
        let check = |generation| check_greedy(directory(json!({}), Some(generation)).path());
        for (field, value) in
            [("repetition_penalty", json!(1.1)), ("num_beams", json!(4)), ("suppress_tokens", json!([3])), ("stop_strings", json!("."))]
        {
            match check(json!({ field: value })) {
                Err(ImportError::Unsupported { feature, .. }) => assert!(feature.contains(field), "{feature}"),
                other => panic!("{field}: {other:?}"),
            }
        }
        let plain = json!({ "repetition_penalty": 1.0, "num_beams": 1, "suppress_tokens": null, "do_sample": true, "temperature": 0.6 });
        assert!(check(plain.clone()).is_ok());
        assert!(samples(directory(json!({}), Some(plain)).path()));
    }
}
