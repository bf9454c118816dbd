//! Runs the built binary the way a script would.

#![allow(dead_code)]

pub mod served;

use serde_json::Value;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    /// Exit status.
    pub status: i32,
    /// The one JSON object on standard output.
    pub json: Value,
    /// Progress and errors.
    pub stderr: String,
}

impl Ran {
    /// The object, after checking that the command succeeded.
    pub fn success(self) -> Value {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self.json
    }
}

/// Runs `poa --json ARGS`; standard output must be exactly one JSON object.
pub fn poa<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poa"));
    let output = command.arg("--json").args(args).output().expect("the built binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
    let json: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("standard output isn't one JSON value: {e}\n{stdout}\n{stderr}"));
    assert!(json.is_object(), "{json}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    Ran { status: output.status.code().expect("the command wasn't killed"), json, stderr }
}

/// An empty directory of this test file and source tree; left behind for a look at it, emptied by the next run.
pub fn scratch(name: &str) -> PathBuf {
    let tree = env!("CARGO_MANIFEST_DIR").replace(['/', '\\'], "-");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}{tree}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the build's scratch directory is writable");
    dir
}

/// A file or directory of the shared assets (`POA_ASSETS`, by default beside the source tree); says so where it is missing.
pub fn asset(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/assets");
    let root = std::env::var_os("POA_ASSETS").map_or_else(beside, PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        // Written past the test harness, which would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {} is missing; set POA_ASSETS to the directory with models/ and datanets/", path.display());
        return None;
    }
    Some(path)
}

/// A path as an argument.
pub fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// Copies a directory's files.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Writes a JSON file.
pub fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// Adds one to an entry of an integer tensor in a safetensors file.
pub fn flip(path: &Path, tensor: &str, index: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let start = header[tensor]["data_offsets"][0].as_u64().unwrap_or_else(|| panic!("there is no tensor {tensor}")) as usize;
    bytes[8 + header_len + start + 4 * index] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The keys of `prove`'s JSON that scripts rely on.
pub fn check_proof_figures(proof: &Value) {
    for key in ["seconds", "cpu_seconds", "peak_rss_mb", "committed_elements", "lookups", "proof_bytes"] {
        assert!(proof[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {proof}");
    }
    assert!(proof["security_bits"].as_f64().is_some_and(|bits| bits >= 100.0), "{proof}");
    let stages = proof["stages"].as_array().unwrap();
    assert!(!stages.is_empty() && stages.iter().all(|s| s["name"].is_string() && s["seconds"].is_f64()), "{proof}");
}

/// Weights are a list of contributors with basis points, largest first, that add up to at most all.
pub fn check_weights(weights: &Value) {
    let bps: Vec<u64> = weights.as_array().unwrap().iter().map(|w| w["bps"].as_u64().unwrap()).collect();
    assert!(weights.as_array().unwrap().iter().all(|w| w["contributor"].is_string()), "{weights}");
    assert!(bps.is_sorted_by(|a, b| a >= b) && (9_900..=10_000).contains(&bps.iter().sum::<u64>()), "{weights}");
}

/// A rejected proof: exit status 1, `valid: false`, and a reason.
pub fn check_invalid(ran: &Ran) {
    assert_eq!(ran.status, 1, "{ran:?}");
    assert_eq!(ran.json["valid"], false, "{ran:?}");
    assert!(ran.json["reason"].as_str().is_some_and(|r| !r.is_empty()), "{ran:?}");
}

/// Unusable input: exit status 2, and what is wrong, mentioning `what`.
pub fn check_unusable(ran: &Ran, what: &str) {
    assert_eq!(ran.status, 2, "{ran:?}");
    assert!(ran.json["error"].as_str().is_some_and(|e| e.contains(what)), "{ran:?}");
    assert!(ran.stderr.contains(what), "{ran:?}");
}
