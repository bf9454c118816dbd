//! PEFT adapters: round trips and refusals.

use super::*;
use crate::test_support::{asset, random_adapter, tiny_shape};

const SITES: [Site; 3] = [Site::Q, Site::V, Site::Down];

fn written() -> (tempfile::TempDir, FloatAdapter) {
    let dir = tempfile::tempdir().unwrap();
    let adapter = random_adapter(&tiny_shape(), 3, &SITES, 11);
    write_peft(dir.path(), &adapter, &tiny_shape(), "tiny").unwrap();
    (dir, adapter)
}

/// Loads the adapter after overwriting one field of its configuration.
fn load_with(field: &str, value: Value) -> Result<FloatAdapter, ImportError> {
    let (dir, _) = written();
    let path = dir.path().join(CONFIG);
    let mut config = read_json(&path).unwrap();
    config[field] = value;
    fs::write(&path, config.to_string()).unwrap();
    load_peft(dir.path(), &tiny_shape())
}

#[test]
fn round_trip() {
    let (dir, adapter) = written();
    let back = load_peft(dir.path(), &tiny_shape()).unwrap();
    assert_eq!((&back.shape, back.scale, &back.pairs), (&adapter.shape, adapter.scale, &adapter.pairs));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "temporary files left: {left:?}");
}

#[test]
fn scales() {
    assert_eq!(load_with("lora_alpha", json!(12)).unwrap().scale, 4.0);
    let (dir, _) = written();
    fs::write(
        dir.path().join(CONFIG),
        json!({ "peft_type": "LORA", "r": 3, "lora_alpha": 12, "use_rslora": true, "target_modules": ".*_proj" }).to_string(),
    )
    .unwrap();
    let adapter = load_peft(dir.path(), &tiny_shape()).unwrap();
    assert_eq!((adapter.scale, adapter.shape.sites), ((12.0 / 3f64.sqrt()) as f32, SITES.to_vec()));
}

#[test]
fn variants_are_refused_by_name() {
    let cases = [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({ "q_proj": 2 })),
        ("alpha_pattern", json!({ "q_proj": 2 })),
        ("fan_in_fan_out", json!(true)),
    ];
    for (field, value) in cases {
        match load_with(field, value) {
            Err(ImportError::Unsupported { feature, .. }) => assert_eq!(feature, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    for (name, value) in [("r", json!(0)), ("lora_alpha", json!("x")), ("target_modules", json!(3)), ("use_rslora", json!(1))] {
        assert!(matches!(load_with(name, value), Err(ImportError::Config { field, .. }) if field == name));
    }
}

#[test]
fn tensors_are_refused_by_name() {
    assert!(matches!(load_with("r", json!(4)), Err(ImportError::Shape { expected, .. }) if expected[0] == 4));
    let listed = load_with("target_modules", json!(["q_proj", "k_proj"]));
    assert!(matches!(listed, Err(ImportError::MissingTensor { name }) if name.contains("k_proj")));
    let (dir, _) = written();
    let deeper = ModelShape { layers: 3, ..tiny_shape() };
    match load_peft(dir.path(), &deeper) {
        Err(ImportError::PartialSite { module, layer, .. }) => assert_eq!((module.as_str(), layer), ("self_attn.q_proj", 2)),
        other => panic!("{other:?}"),
    }
    let shallower = ModelShape { layers: 1, ..tiny_shape() };
    assert!(matches!(load_peft(dir.path(), &shallower), Err(ImportError::Config { .. })));
}

#[test]
fn writing_a_wrong_adapter_fails() {
    let dir = tempfile::tempdir().unwrap();
    let mut adapter = random_adapter(&tiny_shape(), 3, &SITES, 11);
    let write = |adapter: &FloatAdapter| write_peft(dir.path(), adapter, &tiny_shape(), "tiny");
    adapter.shape.sites.push(Site::Up);
    assert!(matches!(write(&adapter), Err(ImportError::MissingTensor { .. })));
    adapter.shape.sites.pop();
    adapter.shape.rank = 4;
    assert!(matches!(write(&adapter), Err(ImportError::Values { .. })));
}

#[test]
fn gpt_neox_is_refused_by_its_module() {
    let Some(dir) = asset("adapters/opencalm-1b-lora-r1") else { return };
    match load_peft(&dir, &tiny_shape()) {
        Err(error @ ImportError::Unsupported { .. }) => assert!(error.to_string().contains("query_key_value"), "{error}"),
        other => panic!("{other:?}"),
    }
}
