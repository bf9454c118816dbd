//! The verifier that comes with the source: one contract for all keys of a shape.
//!
//! A generated verifier is code that depends on the circuit's shape (rows, columns, queries, constraints), with what is a key's own, its
//! commitments, as literals. Circuits of as many rows have one shape. The bundled contract was compiled with placeholders for the literals
//! ([`template`]); filled with a key's own it is that key's verifier, without a compiler. Where fees are
//! more than trials it is tried before ([`crate::rehearsal`]).

use crate::deploy::{RawVerifier, VERIFIER_GAS};
use alloy::primitives::{Bytes, U256};
use circuits::statement::Digest;
use light_client::word::{Word, keccak, scalar_word};
use light_client::{KeyParts, OuterKey, points};
use serde::Deserialize;
use std::collections::BTreeMap;
use steps::error::{Failure, While};

/// The demo's verifying key, and the contract compiled from [`template`] of its source.
const KEY: &[u8] = include_bytes!("../../assets/demo/outer.vk");
const CONTRACT: &str = include_str!("../../contracts/artifacts/raw/VerifierTemplate.json");

/// `PUSH1` to `PUSH32` carry as many bytes.
const PUSH: std::ops::RangeInclusive<u8> = 0x60..=0x7f;

/// Literals of a key have more digits.
const LONG: usize = 32;

#[derive(Deserialize)]
struct Artifact {
    bytecode: Bytes,
}

/// The bundled key's digest; zero if the file isn't a key.
pub fn key_digest() -> Digest {
    OuterKey::decode(KEY).map(|key| Digest(key.digest())).unwrap_or_default()
}

/// The verifier of a key; none if its shape isn't the bundled one's.
///
/// # Errors
///
/// When what is bundled can't be read.
pub fn verifier(key: &OuterKey) -> Result<Option<RawVerifier>, Failure> {
    let ours = OuterKey::decode(KEY).during("the bundled verifying key")?;
    let artifact: Artifact = serde_json::from_str(CONTRACT).during("the bundled verifier contract")?;
    let code = if alike(ours.parts(), key.parts()) { filled(&artifact.bytecode, ours.parts(), key.parts()) } else { None };
    Ok(code.map(|code| RawVerifier {
        code,
        key_digest: Digest(key.digest()),
        proof_bytes: key.proof_bytes(),
        insecure_srs: key.insecure(),
        gas_limit: VERIFIER_GAS,
    }))
}

/// Whether two keys differ in nothing but commitments, the transcript's start and the reference string's secret.
fn alike(a: &KeyParts, b: &KeyParts) -> bool {
    let mut b = b.clone();
    if a.fixed.len() != b.fixed.len() {
        return false;
    }
    b.transcript_start = a.transcript_start;
    b.fixed.clone_from(&a.fixed);
    b.permutation.iter_mut().zip(&a.permutation).for_each(|((_, point), (_, of))| *point = *of);
    b.s_g2 = a.s_g2;
    *a == b
}

/// The literals that are a key's own; zeros where a commitment is at infinity.
fn literals(key: &KeyParts) -> Vec<Word> {
    let commitments = key.fixed.iter().chain(key.permutation.iter().map(|(_, point)| point));
    let commitments = commitments.flat_map(points::g1_words);
    // The pairing reads the secret's point with the other sign.
    let secret = points::g2_words(&-key.s_g2);
    std::iter::once(scalar_word(key.transcript_start)).chain(commitments).chain(secret).collect()
}

/// What stands for a key's `i`-th literal: 32 bytes, none of which a compiler leaves out.
fn placeholder(i: usize) -> Word {
    let mut word = keccak(format!("poa verifier literal {i}").as_bytes());
    word[0] |= 0x80;
    word
}

/// Each literal of the bundled key with its placeholder: that of the first equal one. Zeros stay.
fn placeholders(key: &KeyParts) -> Vec<(Word, Word)> {
    let literals = literals(key);
    let first = |literal: &Word| literals.iter().position(|other| other == literal).unwrap_or_default();
    literals.iter().map(|literal| (*literal, if *literal == [0; 32] { *literal } else { placeholder(first(literal)) })).collect()
}

/// A generated verifier's source with placeholders where the key's own literals are: what the bundled contract is compiled from.
pub fn template(solidity: &str, key: &OuterKey) -> String {
    let exchanged: BTreeMap<Word, Word> = placeholders(key.parts()).into_iter().collect();
    let mut out = String::with_capacity(solidity.len());
    for piece in solidity.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let token = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        // Hexadecimal or decimal; shorter ones are places in memory.
        let number = if token.len() > LONG { token.parse::<U256>().ok() } else { None };
        match number.and_then(|number| exchanged.get(&number.to_be_bytes::<32>())) {
            Some(placeholder) => out.extend([alloy::hex::encode_prefixed(placeholder).as_str(), &piece[token.len()..]]),
            None => out += piece,
        }
    }
    out
}

/// The bundled contract's code with the literals of `to`; `None` where these don't fit: two differ that are one in the bundled key's `from`, or
/// one is at infinity in one key only.
fn filled(code: &Bytes, from: &KeyParts, to: &KeyParts) -> Option<Bytes> {
    let mut exchanged: BTreeMap<Word, (Word, bool)> = BTreeMap::new();
    for ((_, placeholder), literal) in placeholders(from).into_iter().zip(literals(to)) {
        let known = exchanged.insert(placeholder, (literal, false));
        if known.is_some_and(|(other, _)| other != literal) || (placeholder == [0; 32]) != (literal == [0; 32]) {
            return None;
        }
    }
    exchanged.remove(&[0; 32]);
    let mut code = code.to_vec();
    let mut at = 0;
    while let Some(instruction) = code.get(at) {
        let operand = if PUSH.contains(instruction) { usize::from(instruction - PUSH.start()) + 1 } else { 0 };
        if let Some(word) = code.get_mut(at + 1..at + 1 + operand).and_then(|bytes| <&mut Word>::try_from(bytes).ok())
            && let Some((literal, found)) = exchanged.get_mut(word)
        {
            *found = true;
            *word = *literal;
        }
        at += 1 + operand;
    }
    exchanged.values().all(|(_, found)| *found).then(|| code.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::rehearse;
    use steps::evm_proof::EvmProof;

    /// Key and proof of the demo's base with another adapter.
    const OTHER: (&[u8], &str) = (include_bytes!("../fixtures/other.vk"), include_str!("../fixtures/other-proof.json"));

    fn other() -> (OuterKey, EvmProof) {
        (OuterKey::decode(OTHER.0).unwrap(), serde_json::from_str(OTHER.1).unwrap())
    }

    #[test]
    fn another_keys_verifier_needs_no_compiler() {
        let (key, proof) = other();
        assert_ne!(Digest(key.digest()), key_digest(), "it has to be another one");
        let raw = verifier(&key).unwrap().expect("its shape is the bundled key's");
        rehearse(&raw, &proof).unwrap();
        // The bundled key's own takes none of its proofs, whoever says that they were its.
        let ours = RawVerifier { key_digest: raw.key_digest, ..verifier(&OuterKey::decode(KEY).unwrap()).unwrap().unwrap() };
        assert!(rehearse(&ours, &proof).unwrap_err().message.contains("refuses a good proof"));
    }

    #[test]
    fn every_literal_is_filled_in_or_none() {
        let (code, ours, theirs) = {
            let artifact: Artifact = serde_json::from_str(CONTRACT).unwrap();
            (artifact.bytecode, OuterKey::decode(KEY).unwrap().parts().clone(), other().0.parts().clone())
        };
        let made = filled(&code, &ours, &theirs).unwrap();
        let has = |code: &Bytes, word: &Word| code.windows(32).any(|bytes| bytes == word);
        for ((_, placeholder), literal) in placeholders(&ours).iter().zip(literals(&theirs)).filter(|(_, literal)| *literal != [0; 32]) {
            assert!(has(&code, placeholder) && !has(&made, placeholder) && has(&made, &literal));
        }
        // A contract that lacks a literal isn't the template.
        assert_eq!(filled(&made, &ours, &theirs), None);
        let mut infinite = theirs.clone();
        infinite.fixed[0] = Default::default();
        assert_eq!(filled(&code, &ours, &infinite), None);
    }

    #[test]
    fn another_shape_has_another_contract() {
        let ours = OuterKey::decode(KEY).unwrap().parts().clone();
        assert!(alike(&ours, other().0.parts()));
        let longer = KeyParts { k: ours.k + 1, ..ours.clone() };
        let mut fewer = ours.clone();
        fewer.fixed.pop();
        let mut moved = ours.clone();
        moved.permutation.swap(0, 1);
        for other in [longer, fewer, moved] {
            assert!(!alike(&ours, &other));
        }
    }

    #[test]
    fn literals_of_a_source_become_placeholders() {
        let key = OuterKey::decode(KEY).unwrap();
        let literal = literals(key.parts())[1];
        let start = U256::from_be_bytes(literals(key.parts())[0]);
        let source = |start: &str, literal: Word| {
            format!("mstore(0x20, {})\nmstore(0x40, {start})let f := 0x30644e72e131a029b85045b68181585d", alloy::hex::encode_prefixed(literal))
        };
        let expected = source(&alloy::hex::encode_prefixed(placeholder(0)), placeholder(1));
        let source = source(&start.to_string(), literal);
        assert_eq!(template(&source, &key), expected);
    }
}
