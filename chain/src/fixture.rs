//! What tests of the chain share, here and from the command line: a statement, a verifier that isn't one, anvil.

use alloy::primitives::{hex, keccak256};
use circuits::relation::{RelationParams, Scope, TableMode, WeightRanges};
use circuits::statement::{Digest, IndexStatement, PROTOCOL_VERSION, Profile, RequestStatement, Statement, Tokens};
use model_runtime::semantics::Semantics;
use model_runtime::shape::ModelShape;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Time of anvil's first block.
pub const START: u64 = 1_800_000_000;
/// Padded tokens of the statement.
pub const TOKENS: usize = 8;
/// Takes proofs whose last word is the hash of all that it gets before, and burns all gas on others, as generated verifiers do.
pub const RAW: [u8; 32] = hex!("6014600c60003960146000f360203603805f5f37805f20903514601257fe5b00");
/// Length of a proof.
pub const PROOF_BYTES: usize = 3072;

/// A small number as a digest.
pub fn small(value: u8) -> Digest {
    let mut bytes = [0; 32];
    bytes[31] = value;
    Digest(bytes)
}

/// Makes a proof one that [`RAW`] takes.
pub fn seal(inputs: &[Digest], proof: &mut [u8]) {
    let (body, last) = proof.split_at_mut(proof.len() - 32);
    let before: Vec<u8> = inputs.iter().flat_map(|d| d.0).chain(body.iter().copied()).collect();
    last.copy_from_slice(keccak256(before).as_slice());
}

fn relation(contributors: usize) -> RelationParams {
    let shape =
        ModelShape { layers: 1, width: 8, heads: 1, kv_heads: 1, head_dim: 8, ff: 8, vocab: 16, rope_theta: 10_000.0, norm_eps: 1e-5, context: 8 };
    let semantics = Semantics {
        shape,
        lora: None,
        sketch: None,
        exps: BTreeMap::new(),
        weight_bits: BTreeMap::new(),
        ops: BTreeMap::new(),
        consts: BTreeMap::new(),
    };
    let (scope, weight_ranges, tables) = (Scope::Attribution, WeightRanges::Proven, TableMode::Committed);
    RelationParams { semantics, scope, weight_ranges, tables, tokens: TOKENS, slots: 8, requests: 1, rows: contributors, contributors }
}

/// A statement of one request; not one that any model has, which contracts can't tell.
pub fn statement(contributors: usize, id: Digest) -> Statement {
    let names = (0..contributors).map(|i| format!("contributor-{i}")).collect();
    let weights: Vec<u64> = (0..contributors as u64).map(|i| if i % 3 == 1 { 0 } else { 1_000_003 * (i + 1) }).collect();
    let [base, adapter, index] = [3, 5, 7].map(small);
    let index = IndexStatement { commitment: index, base, adapter, datanet_root: small(9), datanet_version: 1, contributors: names };
    let tokens = Tokens::Public { tokens: vec![1, 2, 3, 4], prompt_len: 2 };
    let request = RequestStatement { id, tokens, total: weights.iter().sum(), weights };
    let relation = relation(contributors);
    let (version, profile, tables) = (PROTOCOL_VERSION, Profile::Evm, Some(small(11)));
    let requests = vec![request];
    Statement { version, profile, relation, base, adapter: Some(adapter), index: Some(index), tables, registration: None, requests }
}

/// An anvil of this test.
pub struct Anvil {
    child: Child,
    /// Where it listens.
    pub url: String,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts anvil as npm installed it; says so where it isn't.
pub fn anvil(arguments: &[&str]) -> Option<Anvil> {
    let cpu = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    // The command line's tests include this file, too.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if root.join("contracts").is_dir() { root.to_owned() } else { root.join("..") };
    let binary: PathBuf = root.join(format!("contracts/node_modules/@foundry-rs/anvil-{system}-{cpu}/bin/anvil"));
    if !binary.exists() {
        // Written past the test harness, which would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no anvil; run `npm ci --ignore-scripts` in contracts/");
        return None;
    }
    let mut command = Command::new(binary);
    command.args(["--port", "0", "--hardfork", "osaka", "--timestamp", &START.to_string()]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("anvil starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.ok()?.strip_prefix("Listening on ").map(str::to_owned)).expect("anvil listens");
    // Anvil goes on writing: someone must read.
    std::thread::spawn(move || lines.for_each(drop));
    Some(Anvil { child, url: format!("http://{address}") })
}
