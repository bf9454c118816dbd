//! Dependencies between the crates point one way.

use serde_json::Value;
use std::process::Command;

/// Each crate may depend only on those before it.
const LAYERS: [&str; 11] =
    ["light-client", "model-runtime", "quality", "circuits", "verifier", "verifier-wasm", "prover", "steps", "chain", "service", "poa"];

fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["metadata", "--format-version", "1", "--offline", "--no-deps"]);
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|l| *l == name)
}

/// Layers that a package depends on, development and build dependencies included.
fn dependencies(package: &Value) -> Vec<usize> {
    package["dependencies"].as_array().unwrap().iter().filter_map(|d| layer(d["name"].as_str()?)).collect()
}

#[test]
fn every_crate_has_a_layer() {
    let mut found: Vec<String> = packages().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect();
    found.sort_by_key(|name| layer(name));
    assert_eq!(found, LAYERS, "a new crate needs its place in this list and in ARCHITECTURE.md");
}

#[test]
fn dependencies_point_one_way() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let own = layer(name).unwrap();
        for other in dependencies(&package) {
            assert!(other < own, "{name} must not depend on {}", LAYERS[other]);
        }
    }
}

/// The light client must build for browsers and share no code with what it checks.
#[test]
fn the_light_client_stands_alone() {
    let light = packages().into_iter().find(|p| p["name"] == "light-client").unwrap();
    let names: Vec<&str> =
        light["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null()).filter_map(|d| d["name"].as_str()).collect();
    assert_eq!(names, ["ark-bn254", "ark-ec", "ark-ff", "sha3", "thiserror"]);
}

#[test]
fn the_prover_builds_on_the_verifier() {
    let prover = packages().into_iter().find(|p| p["name"] == "prover").unwrap();
    assert!(dependencies(&prover).contains(&layer("verifier").unwrap()));
}
