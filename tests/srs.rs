//! `poa srs` from the command line.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn poa(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_poa")).current_dir(directory).args(args).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn insecure_is_marked_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let made = poa(directory.path(), &["srs", "insecure", "--k", "6", "--out", "srs", "--json"]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(json(&made)["insecure"], true);
    assert_eq!(json(&made)["trust"], "insecure");
    assert!(String::from_utf8_lossy(&made.stderr).contains("INSECURE"));
    assert!(directory.path().join("srs/k6.srs").exists() && directory.path().join("srs/k6.lagrange").exists());
    let again = poa(directory.path(), &["srs", "insecure", "--k", "6", "--out", "srs"]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("INSECURE"));
}

#[test]
fn bad_input_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("text"), "not powers of tau").unwrap();
    for (file, expected) in [("text", "neither a snarkjs"), ("none", "none")] {
        let refused = poa(directory.path(), &["srs", "import", file, "--k", "6", "--out", "srs", "--json"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(json(&refused)["error"].as_str().unwrap().contains(expected), "{refused:?}");
        assert!(!directory.path().join("srs").exists());
    }
    let refused = poa(directory.path(), &["srs", "insecure", "--k", "40", "--out", "srs"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn another_reference_string_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let place = ["--k", "4", "--out", "srs"];
    assert!(poa(directory.path(), &[&["srs", "insecure"][..], &place].concat()).status.success());
    let path = directory.path().join("srs/k4.srs");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[24] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let refused = poa(directory.path(), &[&["srs", "insecure"][..], &place].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
