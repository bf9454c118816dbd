//! The verifier that comes with the source: of the demo's relation, over the reference string whose secret is published.

use crate::deploy::{RawVerifier, VERIFIER_GAS};
use alloy::primitives::Bytes;
use circuits::statement::Digest;
use light_client::OuterKey;
use serde::Deserialize;
use steps::error::{Failure, While};

/// The verifying key, and the contract compiled from it.
const KEY: &[u8] = include_bytes!("../../assets/demo/outer.vk");
const CONTRACT: &str = include_str!("../../contracts/artifacts/raw/DemoVerifier.json");

#[derive(Deserialize)]
struct Artifact {
    bytecode: Bytes,
}

/// The bundled key's digest; zero if the file isn't a key.
pub fn key_digest() -> Digest {
    OuterKey::decode(KEY).map(|key| Digest(key.digest())).unwrap_or_default()
}

/// The bundled verifier, if it is a key's.
pub fn verifier(key: &OuterKey) -> Result<Option<RawVerifier>, Failure> {
    if key_digest() != Digest(key.digest()) {
        return Ok(None);
    }
    let artifact: Artifact = serde_json::from_str(CONTRACT).during("the bundled verifier contract")?;
    Ok(Some(RawVerifier {
        code: artifact.bytecode,
        key_digest: Digest(key.digest()),
        proof_bytes: key.proof_bytes(),
        insecure_srs: key.insecure(),
        gas_limit: VERIFIER_GAS,
    }))
}
