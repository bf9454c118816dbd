//! Hugging Face directories: round trips and refusals.

use super::*;
use crate::import::{StoredType, export_hf};
use crate::test_support::{asset, random_model, tiny_shape};
use serde_json::json;
use std::fs;

const DEFAULTS: ImportOptions = ImportOptions { context: None };

fn exported(tied: bool) -> (tempfile::TempDir, FloatModel) {
    let dir = tempfile::tempdir().unwrap();
    let model = random_model(&tiny_shape(), tied, 7);
    export_hf(dir.path(), &model, StoredType::F32, 1, 2).unwrap();
    (dir, model)
}

/// Loads the directory after overwriting one field of its configuration.
fn load_with(field: &str, value: Value) -> Result<FloatModel, ImportError> {
    let (dir, _) = exported(true);
    let path = dir.path().join("config.json");
    let mut config = read_json(&path).unwrap();
    config[field] = value;
    fs::write(&path, config.to_string()).unwrap();
    load_hf(dir.path(), &DEFAULTS)
}

#[test]
fn round_trip() {
    for tied in [false, true] {
        let (dir, model) = exported(tied);
        let back = load_hf(dir.path(), &DEFAULTS).unwrap();
        assert_eq!(format!("{model:?}"), format!("{back:?}"));
    }
}

#[test]
fn bf16_is_close() {
    let dir = tempfile::tempdir().unwrap();
    let model = random_model(&tiny_shape(), true, 8);
    export_hf(dir.path(), &model, StoredType::Bf16, 1, 2).unwrap();
    let back = load_hf(dir.path(), &DEFAULTS).unwrap();
    assert!(model.embed.iter().zip(&back.embed).all(|(a, b)| (a - b).abs() <= a.abs() / 256.0));
}

#[test]
fn shards_are_read_and_checked() {
    let (dir, model) = exported(true);
    let whole = dir.path().join("model.safetensors");
    let shard = dir.path().join("model-00001-of-00001.safetensors");
    let names: Vec<String> = WeightFiles::open(&whole).unwrap().names().cloned().collect();
    fs::rename(whole, &shard).unwrap();
    let write_index = |file: &str, extra: Option<&str>| {
        let map: Map<String, Value> = names.iter().map(String::as_str).chain(extra).map(|n| (n.to_string(), json!(file))).collect();
        fs::write(dir.path().join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    };
    write_index("model-00001-of-00001.safetensors", None);
    assert_eq!(load_hf(dir.path(), &DEFAULTS).unwrap().embed, model.embed);
    write_index("model-00001-of-00001.safetensors", Some("nowhere"));
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::MissingTensor { name }) if name == "nowhere"));
    write_index("../model-00001-of-00001.safetensors", None);
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::Config { .. })));
}

#[test]
fn features_are_refused_by_name() {
    let cases = [
        ("model_type", json!("gpt_neox")),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("rope_scaling", json!({ "type": "linear", "factor": 2.0 })),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({ "quant_method": "gptq" })),
        ("architectures", json!(["LlamaForSequenceClassification"])),
    ];
    for (field, value) in cases {
        match load_with(field, value) {
            Err(ImportError::Unsupported { feature, .. }) => assert!(feature.starts_with(field), "{feature}"),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn plain_rotary_parameters_are_read_however_they_are_spelled() {
    let theta = |field: &str, value: Value| load_with(field, value).unwrap().shape.rope_theta;
    assert_eq!(theta("rope_parameters", json!({ "rope_theta": 50000.0 })), 50000.0);
    assert_eq!(theta("rope_parameters", json!({ "rope_type": "default", "rope_theta": 500 })), 500.0);
    assert_eq!(theta("rope_parameters", json!({})), 10000.0);
    assert_eq!(theta("rope_scaling", json!({ "type": "default", "rope_theta": 7.0, "partial_rotary_factor": 1.0 })), 7.0);
    for value in [json!({ "factor": 2.0 }), json!({ "full_attention": { "rope_theta": 1.0 } }), json!({ "partial_rotary_factor": 0.5 })] {
        assert!(
            matches!(load_with("rope_parameters", value), Err(ImportError::Unsupported { feature, .. }) if feature.starts_with("rope_parameters."))
        );
    }
}

#[test]
fn a_head_of_its_own_counts_whatever_the_flag_says() {
    let (dir, model) = exported(false);
    let path = dir.path().join("config.json");
    let mut config = read_json(&path).unwrap();
    config["tie_word_embeddings"] = json!(true);
    fs::write(&path, config.to_string()).unwrap();
    assert_eq!(load_hf(dir.path(), &DEFAULTS).unwrap().head, model.head);
    // A stored copy of the embedding is no head of its own.
    let copied = FloatModel { head: Some(model.embed.clone()), ..model };
    export_hf(dir.path(), &copied, StoredType::F32, 1, 2).unwrap();
    fs::write(&path, config.to_string()).unwrap();
    assert_eq!(load_hf(dir.path(), &DEFAULTS).unwrap().head, None);
}

#[test]
fn shards_that_disagree_are_refused_by_tensor() {
    let (dir, model) = exported(true);
    let whole = dir.path().join("model.safetensors");
    let names: Vec<String> = WeightFiles::open(&whole).unwrap().names().cloned().collect();
    let write_shards = |second: &[u8], embed_in: &str| {
        fs::write(dir.path().join("a.safetensors"), fs::read(dir.path().join("first")).unwrap()).unwrap();
        fs::write(dir.path().join("b.safetensors"), second).unwrap();
        let file = |name: &str| if name == EMBED { embed_in } else { "a.safetensors" };
        let map: Map<String, Value> = names.iter().map(|n| (n.clone(), json!(file(n)))).collect();
        fs::write(dir.path().join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
        load_hf(dir.path(), &DEFAULTS)
    };
    fs::rename(&whole, dir.path().join("first")).unwrap();
    let shard = |name: &str, values: &[f32]| {
        let tensors = [(name.to_string(), vec![model.shape.vocab, model.shape.width], values)];
        crate::import::export::encode_safetensors(&tensors, StoredType::F32).unwrap()
    };
    let mut other = model.embed.clone();
    assert_eq!(write_shards(&shard(EMBED, &other), "b.safetensors").unwrap().embed, model.embed);
    assert!(matches!(write_shards(&shard("x", &other), "b.safetensors"), Err(ImportError::MissingTensor { name }) if name == EMBED));
    other[0] += 1.0;
    match write_shards(&shard(EMBED, &other), "b.safetensors") {
        Err(ImportError::ShardsDisagree { name, first, second }) => {
            assert_eq!((&name[..], &first[..], &second[..]), (EMBED, "a.safetensors", "b.safetensors"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_stand_for_others_are_named() {
    let (dir, _) = exported(true);
    let weights = dir.path().join("model.safetensors");
    for path in [weights.clone(), dir.path().join("config.json")] {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
        assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::LfsPointer { .. })));
        fs::write(&path, bytes).unwrap();
    }
    fs::rename(weights, dir.path().join("pytorch_model.bin")).unwrap();
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::OtherWeights { found, .. }) if found == "pytorch_model.bin"));
}

#[test]
fn greedy_answers_are_the_plain_ones() {
    let (dir, _) = exported(true);
    fs::write(dir.path().join("generation_config.json"), json!({ "repetition_penalty": 1.2 }).to_string()).unwrap();
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::Unsupported { feature, .. }) if feature.contains("repetition_penalty")));
}

#[test]
fn bad_sizes_are_refused_by_name() {
    let cases = [
        ("hidden_size", json!(-3)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(5)),
        ("num_hidden_layers", json!(0)),
        ("vocab_size", json!(1u64 << 60)),
        ("rms_norm_eps", json!("small")),
        ("rope_theta", json!(0)),
    ];
    for (name, value) in cases {
        match load_with(name, value) {
            Err(ImportError::Config { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn tensors_are_refused_by_name() {
    let gate = "model.layers.0.mlp.gate_proj.weight";
    match load_with("intermediate_size", json!(21)) {
        Err(ImportError::Shape { name, expected, found }) => {
            assert_eq!((name.as_str(), expected, found), (gate, vec![21, 12], vec![20, 12]))
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(load_with("num_hidden_layers", json!(3)), Err(ImportError::MissingTensor { name }) if name.contains("layers.2")));
    assert!(matches!(load_with("num_hidden_layers", json!(1)), Err(ImportError::UnexpectedTensor { name }) if name.contains("layers.1")));
    assert!(matches!(load_with("tie_word_embeddings", json!(false)), Err(ImportError::MissingTensor { name }) if name == HEAD));
}

#[test]
fn values_that_are_not_finite_or_not_floats_are_refused() {
    let (dir, _) = exported(true);
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::NotFinite { .. })));
    let text = bytes.windows(5).position(|w| w == b"\"F32\"").unwrap();
    bytes[text..text + 5].copy_from_slice(b"\"I32\"");
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::Dtype { found, .. }) if found == "I32"));
    fs::write(&path, &bytes[..end / 2]).unwrap();
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::Safetensors { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(load_hf(dir.path(), &DEFAULTS), Err(ImportError::Io { .. })));
}

#[test]
fn context_is_the_smaller_limit() {
    let (dir, _) = exported(true);
    let context = |context| load_hf(dir.path(), &ImportOptions { context }).unwrap().shape.context;
    assert_eq!([context(None), context(Some(4)), context(Some(99))], [16, 4, 16]);
}

#[test]
fn tinystories_loads() {
    let Some(dir) = asset("models/tinystories-656k") else { return };
    let model = load_hf(&dir, &DEFAULTS).unwrap();
    assert_eq!((model.shape.layers, model.shape.width, model.shape.kv_heads, model.shape.context), (2, 128, 4, 512));
    assert!(model.head.is_none());
}
