//! Verifying keys of the light client.

use crate::watch::Judge;
use alloy::primitives::U256;
use circuits::statement::Digest;
use light_client::settlement::NamedInputs;
use light_client::{OuterKey, Settlement, verify_settlement};
use std::path::{Path, PathBuf};
use steps::error::{Failure, While};
use steps::evm_proof::INPUTS;

/// Reads a verifying key.
///
/// # Errors
///
/// When the file can't be read or isn't one.
pub fn read(path: &Path) -> Result<OuterKey, Failure> {
    let bytes = std::fs::read(path).during_path("reading", path)?;
    OuterKey::decode(&bytes).during_path("reading", path).map_err(|f| f.hint("give an outer verifying key"))
}

/// Reads keys to verify settlements with.
///
/// # Errors
///
/// When one can't be read.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Box<dyn Judge>>, Failure> {
    paths.iter().map(|path| Ok(Box::new(LightClient(read(path)?)) as Box<dyn Judge>)).collect()
}

/// The light client with one key.
struct LightClient(OuterKey);

impl Judge for LightClient {
    fn key_digest(&self) -> Digest {
        Digest(self.0.digest())
    }

    fn judge(&self, inputs: &[U256; INPUTS], weights: &[U256], proof: &[u8]) -> Result<(), String> {
        let [statement, base, adapter, index, index_statement, request, prompt, tokens, ..] = inputs.map(|input| input.to_be_bytes::<32>());
        let named = NamedInputs { statement, base, adapter, index, index_statement, request, prompt, tokens };
        let weights: Vec<[u8; 32]> = weights.iter().map(|w| w.to_be_bytes::<32>()).collect();
        // `examine` has compared their number with the registry's.
        let settlement = Settlement { named, contributors: weights.len(), weights: &weights };
        verify_settlement(&self.0, &settlement, proof).map_err(|e| e.to_string())
    }
}
