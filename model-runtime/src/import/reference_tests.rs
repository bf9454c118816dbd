//! Imported models and adapters against float64 forward passes that share no code with this crate (`tests/fixtures/models/make.py`).

use super::{ImportOptions, load_model, load_peft};
use crate::test_support::{base64, fixture};
use crate::train::float_logits;
use std::collections::BTreeMap;
use std::fs;

#[derive(serde::Deserialize)]
struct Fixture {
    tokens: Vec<u32>,
    files: BTreeMap<String, String>,
    logits: Vec<Vec<f32>>,
}

fn check(name: &str) {
    let fixture: Fixture = serde_json::from_slice(&fs::read(fixture(&format!("models/{name}.json"))).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in &fixture.files {
        let bytes = if file.ends_with(".json") { content.clone().into_bytes() } else { base64(content) };
        fs::write(dir.path().join(file), bytes).unwrap();
    }
    let bin = dir.path().join("model.bin");
    let model = load_model(if bin.exists() { &bin } else { dir.path() }, &ImportOptions::default()).unwrap();
    let adapted = dir.path().join("adapter_config.json").exists();
    let adapter = adapted.then(|| load_peft(dir.path(), &model.shape).unwrap());
    let ours = float_logits(&model, adapter.as_ref(), &fixture.tokens).unwrap();
    let theirs = fixture.logits.concat();
    assert_eq!(ours.len(), theirs.len());
    let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{name}: logits differ by {worst}");
}

#[test]
fn hugging_face_directories_mean_what_they_mean_in_transformers() {
    check("tied");
    check("own_head");
}

#[test]
fn adapters_mean_what_they_mean_in_peft() {
    check("adapted");
}

#[test]
fn llama2c_files_mean_what_they_mean_in_run_c() {
    (0..3).for_each(|version| check(&format!("llama2c_{version}")));
}
