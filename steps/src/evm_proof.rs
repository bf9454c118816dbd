//! The published proof as a file, and the ten public inputs it is verified against.
//!
//! Order and meaning are those of `contracts/src/libraries/PublicInputs.sol`. Eight inputs name what is settled. The list of weights
//! `w` is bound by two more: `z = keccak256(abi.encode(input_0, …, input_7, w)) mod r` and `y = Σ_j w_j·z^j mod r`, `r` the order of
//! BN254's scalar field; two different lists of `n` weights agree at `z` with probability at most `(n - 1)/r`.
//! Made by `poa wrap`, read by `poa settle`, `poa verify` and the demo.

use crate::error::Failure;
use crate::store::{create_parent, read_json, write_json};
use alloy::primitives::{B256, U256, keccak256};
use alloy::sol_types::SolValue;
pub use circuits::statement::WEIGHT_BOUND;
use circuits::statement::{Digest, RequestStatement, Statement};
use serde::{Deserialize, Serialize};
use std::path::Path;
use verifier::settled::{self, SettledError};

/// Format of the file.
pub const FORMAT: &str = "poa-evm-proof/2";
/// Public inputs.
pub const INPUTS: usize = 10;
/// Order of BN254's scalar field.
pub const ORDER: U256 = U256::from_limbs([0x43e1_f593_f000_0001, 0x2833_e848_79b9_7091, 0xb850_45b6_8181_585d, 0x3064_4e72_e131_a029]);
/// Names of the public inputs, in their order.
pub const INPUT_NAMES: [&str; INPUTS] = [
    "statement digest",
    "base model",
    "adapter",
    "index",
    "index statement digest",
    "request id",
    "prompt digest",
    "token digest",
    "challenge",
    "evaluation of the weights",
];

/// The reference string a proof was made over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrsMark {
    /// Its digest.
    pub digest: Digest,
    /// Whether its secret is published: anyone can forge proofs over it.
    pub insecure: bool,
}

/// Bytes, hexadecimal in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&alloy::hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        alloy::hex::decode(String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}

/// An outer proof with everything a settlement needs beside the statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvmProof {
    /// [`FORMAT`].
    pub format: String,
    /// Digest of the verifying key.
    pub key_digest: Digest,
    /// Length of the proof.
    pub proof_bytes: usize,
    /// The reference string.
    pub srs: SrsMark,
    /// In the order of [`INPUT_NAMES`].
    pub public_inputs: [Digest; INPUTS],
    /// One per contributor, in the index's order.
    pub weights: Vec<u64>,
    /// The proof.
    pub proof: Hex,
}

/// A digest as an EVM word.
pub fn word(digest: &Digest) -> U256 {
    U256::from_be_bytes(digest.0)
}

/// An EVM word as a digest.
pub fn digest(word: U256) -> Digest {
    Digest(word.to_be_bytes())
}

/// The digest of a request's whole exchange: the salted one, or that of public tokens with a salt of zero.
pub fn token_digest(request: &RequestStatement, capacity: usize) -> Digest {
    request.token_digests(capacity).exchange
}

/// The digest of a request's prompt, likewise.
pub fn prompt_digest(request: &RequestStatement, capacity: usize) -> Digest {
    request.token_digests(capacity).prompt
}

/// Challenge and evaluation of a list of weights.
pub fn bind_weights(named: &[U256; INPUTS - 2], weights: &[u64]) -> (U256, U256) {
    let weights: Vec<U256> = weights.iter().map(|&w| U256::from(w)).collect();
    let [a, b, c, d, e, f, g, h] = *named;
    let encoded = (a, b, c, d, e, f, g, h, weights.clone()).abi_encode_params();
    let z = U256::from_be_bytes(keccak256(encoded).0) % ORDER;
    let y = weights.iter().rev().fold(U256::ZERO, |y, w| y.mul_mod(z, ORDER).add_mod(*w, ORDER));
    (z, y)
}

/// The public inputs of a statement of one request.
///
/// # Errors
///
/// When the statement isn't one that can be settled.
pub fn public_inputs(statement: &Statement) -> Result<[Digest; INPUTS], Failure> {
    let named = settled::named(statement).map_err(unsettled)?;
    let words = named.map(|d| word(&d));
    let (z, y) = bind_weights(&words, &only_request(statement)?.weights);
    let [a, b, c, d, e, f, g, h] = named;
    Ok([a, b, c, d, e, f, g, h, digest(z), digest(y)])
}

/// A settlement pays for one request.
///
/// # Errors
///
/// When the statement has another number of them.
pub fn only_request(statement: &Statement) -> Result<&RequestStatement, Failure> {
    settled::only_request(statement).map_err(unsettled)
}

fn unsettled(error: SettledError) -> Failure {
    let failure = Failure::input(error.to_string());
    match error {
        SettledError::NoAttribution => failure.hint("prove with an adapter and --index"),
        SettledError::Requests(_) => failure.hint("prove each run by itself"),
        SettledError::Statement(_) | SettledError::Settlement(_) => failure,
    }
}

impl EvmProof {
    /// Of a statement of one request.
    ///
    /// # Errors
    ///
    /// When the statement isn't one that can be settled.
    pub fn new(statement: &Statement, key_digest: Digest, srs: SrsMark, proof: Vec<u8>) -> Result<Self, Failure> {
        let public_inputs = public_inputs(statement)?;
        let weights = only_request(statement)?.weights.clone();
        Ok(Self { format: FORMAT.into(), key_digest, proof_bytes: proof.len(), srs, public_inputs, weights, proof: Hex(proof) })
    }

    /// Reads one, checking its shape.
    ///
    /// # Errors
    ///
    /// When the file can't be read or isn't one.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let value: serde_json::Value = read_json(path)?;
        let format = value.get("format").and_then(|f| f.as_str()).unwrap_or("none");
        let place = path.display();
        if format != FORMAT {
            return Err(Failure::input(format!("{place} has format {format}, expected {FORMAT}")).hint("make one with `poa wrap`"));
        }
        let read: Self = serde_json::from_value(value).map_err(|e| Failure::input(format!("reading {place}: {e}")))?;
        if read.proof.0.len() != read.proof_bytes {
            return Err(Failure::input(format!("{place}: the proof has {} bytes, the file says {}", read.proof.0.len(), read.proof_bytes)));
        }
        Ok(read)
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    ///
    /// When the file can't be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        create_parent(path)?;
        write_json(path, self)
    }

    /// Whether it is about this statement.
    ///
    /// # Errors
    ///
    /// Names the first public input that differs.
    pub fn check(&self, statement: &Statement) -> Result<(), Failure> {
        let expected = public_inputs(statement)?;
        if self.weights != only_request(statement)?.weights {
            return Err(Failure::invalid("the proof is of other weights than the statement's"));
        }
        let different = self.public_inputs.iter().zip(&expected).zip(INPUT_NAMES).find(|((found, expected), _)| found != expected);
        different.map_or(Ok(()), |((found, expected), name)| {
            Err(Failure::invalid(format!("the proof is of another statement: its {name} is {found}, the statement's {expected}")))
        })
    }

    /// The request it pays for.
    pub fn request_id(&self) -> B256 {
        B256::from(self.public_inputs[5].0)
    }

    /// The public inputs as EVM words.
    pub fn inputs(&self) -> [U256; INPUTS] {
        self.public_inputs.map(|d| word(&d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_agree_with_the_contract() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/test/vectors/public-inputs.json");
        let vector: serde_json::Value = read_json(&path).unwrap();
        let scalar = |v: &serde_json::Value| v.as_str().unwrap().parse::<U256>().unwrap();
        let named: Vec<U256> = vector["inputs"].as_array().unwrap().iter().map(scalar).collect();
        let weights: Vec<u64> = vector["weights"].as_array().unwrap().iter().map(|w| w.as_u64().unwrap()).collect();
        let (z, y) = bind_weights(&named.try_into().unwrap(), &weights);
        assert_eq!((z, y), (scalar(&vector["challenge"]), scalar(&vector["evaluation"])));
    }

    #[test]
    fn files_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/evm-proof.json");
        let srs = SrsMark { digest: Digest([7; 32]), insecure: true };
        let made = EvmProof {
            format: FORMAT.into(),
            key_digest: Digest([1; 32]),
            proof_bytes: 3,
            srs,
            public_inputs: [Digest([2; 32]); INPUTS],
            weights: vec![0, 5],
            proof: Hex(vec![1, 2, 255]),
        };
        made.save(&path).unwrap();
        assert_eq!(EvmProof::load(&path).unwrap(), made);
        EvmProof { proof_bytes: 4, ..made.clone() }.save(&path).unwrap();
        assert!(EvmProof::load(&path).unwrap_err().message.contains("3 bytes"));
        EvmProof { format: "other".into(), ..made }.save(&path).unwrap();
        assert!(EvmProof::load(&path).unwrap_err().message.contains("format other"));
    }
}
