//! Before money is spent on a generated verifier: does it accept a good proof and refuse tampered ones? On the EVM in this process.
//!
//! A verifier that accepts everything would give escrowed fees to anyone; one that refuses everything, or takes more gas than it gets, would
//! never release any. Neither shows until it is too late.

use crate::abi::AttributionVerifier;
use crate::deploy::RawVerifier;
use crate::evm::Evm;
use crate::{Call, Chain, ChainError, devnet, read};
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::sol_types::SolConstructor;
use steps::error::Failure;
use steps::evm_proof::EvmProof;

/// Bytes of a word.
const WORD: usize = 32;

/// Deploys the verifier with its front, in this process.
fn front(chain: &mut Evm, raw: &RawVerifier) -> Result<Address, ChainError> {
    let from = devnet::deployer().address();
    let mut create = |data: Bytes| {
        let created = chain.send(Call { from, data, ..Call::default() })?.created;
        created.ok_or(ChainError::Answer { what: "a contract's creation", problem: "it has no address".into() })
    };
    let raw_ = create(raw.code.clone())?;
    let arguments = AttributionVerifier::constructorCall {
        raw_,
        keyDigest_: B256::from(raw.key_digest.0),
        proofLength_: U256::from(raw.proof_bytes),
        gasLimit_: U256::from(raw.gas_limit),
    };
    create([AttributionVerifier::BYTECODE.as_ref(), &arguments.abi_encode()].concat().into())
}

/// A proof with one word in its middle, an evaluation, greater by one: only the last equation can tell.
fn tampered(proof: &[u8]) -> Vec<u8> {
    let mut bytes = proof.to_vec();
    let at = bytes.len() / 2 / WORD * WORD;
    if let Some(word) = bytes.get_mut(at..at + WORD) {
        let next = U256::from_be_slice(word).wrapping_add(U256::from(1));
        word.copy_from_slice(&next.to_be_bytes::<WORD>());
    }
    bytes
}

/// Whether the verifier can be trusted with money, as far as one proof of its key shows.
///
/// # Errors
///
/// Says which proof it decides wrongly.
pub fn rehearse(raw: &RawVerifier, proof: &EvmProof) -> Result<(), Failure> {
    let again = "generate and compile the verifier again (`poa wrap`, `npm run verifier`), and give a proof made with its key";
    let wrong = |what: &str| Failure::invalid(format!("the generated verifier {what} (tried on the EVM in this process)")).hint(again);
    if proof.key_digest != raw.key_digest {
        return Err(Failure::input(format!("the proof is of key {}, the verifier's is {}", proof.key_digest, raw.key_digest)).hint(again));
    }
    let mut chain = Evm::new(devnet::CHAIN_ID, devnet::START);
    let front = front(&mut chain, raw)?;
    let inputs = proof.inputs();
    let mut accepts =
        |inputs, proof: &[u8]| read(&mut chain, front, &AttributionVerifier::verifyCall { publicInputs: inputs, proof: proof.to_vec().into() });
    if !accepts(inputs, &proof.proof.0)? {
        return Err(wrong("refuses a good proof, or needs more than --verifier-gas"));
    }
    if accepts(inputs, &tampered(&proof.proof.0))? {
        return Err(wrong("accepts a tampered proof: anyone could take escrowed fees"));
    }
    let mut others = inputs;
    others[0] = others[0].wrapping_add(U256::from(1));
    if accepts(others, &proof.proof.0)? {
        return Err(wrong("accepts a proof of another statement: anyone could take escrowed fees"));
    }
    Ok(())
}
