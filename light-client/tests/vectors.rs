//! A recorded key and proof of a small circuit: accepted as they are, refused with any byte changed; and no bytes at all cause a panic.
//!
//! `prover/tests/light_client.rs` makes the files and checks that they're current.

use light_client::expression::Node;
use light_client::key::{Column, ColumnKind, Query};
use light_client::settlement::{INPUTS, NamedInputs, public_inputs, weight_word};
use light_client::word::{scalar, scalar_word};
use light_client::{KeyError, KeyParts, OuterKey, ProofError, Settlement, Word, verify, verify_settlement};
use proptest::prelude::*;
use std::sync::LazyLock;

const KEY: &[u8] = include_bytes!("vectors/wide.key");
const PROOF: &[u8] = include_bytes!("vectors/wide.proof");

static DECODED: LazyLock<OuterKey> = LazyLock::new(|| OuterKey::decode(KEY).unwrap());

fn inputs() -> [Word; INPUTS] {
    public_inputs(&settlement(&weights())).unwrap()
}

fn settlement(weights: &[Word]) -> Settlement<'_> {
    Settlement { named: named(), contributors: weights.len(), weights }
}

fn named() -> NamedInputs {
    let negative = |i: u64| scalar_word(-scalar(&weight_word((i + 1) * 0x1234_5678_9abc)).unwrap());
    NamedInputs {
        statement: negative(0),
        base: negative(1),
        adapter: negative(2),
        index: negative(3),
        index_statement: negative(4),
        request: negative(5),
        prompt: negative(6),
        tokens: negative(7),
    }
}

fn weights() -> Vec<Word> {
    [5, 0, 1 << 29, 1 << 20, 17].map(weight_word).to_vec()
}

#[test]
fn the_recorded_proof_is_accepted() {
    assert_eq!(verify(&DECODED, &inputs(), PROOF), Ok(()));
    assert_eq!(verify_settlement(&DECODED, &settlement(&weights()), PROOF), Ok(()));
    assert_eq!(DECODED.encoding(), KEY);
}

#[test]
fn every_byte_of_a_proof_counts() {
    let inputs = inputs();
    for at in 0..PROOF.len() {
        let mut proof = PROOF.to_vec();
        proof[at] ^= 1 << (at % 8);
        assert!(verify(&DECODED, &inputs, &proof).is_err(), "byte {at}");
    }
}

#[test]
fn every_byte_of_an_input_counts() {
    for at in 0..INPUTS * 32 {
        let mut inputs = inputs();
        inputs[at / 32][at % 32] ^= 1 << (at % 8);
        assert!(verify(&DECODED, &inputs, PROOF).is_err(), "byte {at}");
    }
}

#[test]
fn every_byte_of_a_key_counts() {
    let inputs = inputs();
    for at in 0..KEY.len() {
        let mut bytes = KEY.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let Ok(key) = OuterKey::decode(&bytes) else { continue };
        assert_ne!(key.digest(), DECODED.digest());
        assert_eq!(key.encoding(), bytes);
        assert!(verify(&key, &inputs, PROOF).is_err(), "byte {at}");
    }
}

#[test]
fn keys_have_one_encoding() {
    for length in 0..KEY.len() {
        assert!(OuterKey::decode(&KEY[..length]).is_err(), "{length} bytes");
    }
    assert_eq!(OuterKey::decode(&[KEY, &[0]].concat()), Err(KeyError::Trailing { count: 1 }));
    let mut other = KEY.to_vec();
    other[7] = 2;
    assert_eq!(OuterKey::decode(&other), Err(KeyError::Magic));
}

/// Each kind of contradiction in a key is named.
#[test]
fn contradictory_keys_are_refused() {
    let refused = |change: &dyn Fn(&mut KeyParts)| {
        let mut parts = DECODED.parts().clone();
        change(&mut parts);
        OuterKey::new(parts).unwrap_err()
    };
    assert!(matches!(refused(&|p| p.k = 0), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.k = 29), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.k = 3), KeyError::Rows { .. }));
    assert!(matches!(refused(&|p| p.degree = 5), KeyError::Degree { what: "gate", index: 0, got: 6, most: 5 }));
    assert!(matches!(refused(&|p| p.degree = u32::MAX), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.blinding = u32::MAX), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.inputs = vec![u32::MAX; INPUTS]), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.inputs = vec![60]), KeyError::Rows { .. }));
    assert!(matches!(refused(&|p| p.advice_phases[0] = 3), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.challenge_phases.push(1)), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.gates.push(u32::MAX)), KeyError::Reference { .. }));
    assert!(matches!(refused(&|p| p.nodes.push(Node::Challenge(0))), KeyError::Reference { .. }));
    assert!(matches!(refused(&|p| p.nodes.insert(0, Node::Negated(0))), KeyError::Reference { .. }));
    assert!(matches!(refused(&|p| p.advice_queries.push(p.advice_queries[0])), KeyError::Duplicate { .. }));
    assert!(matches!(refused(&|p| p.advice_queries.push(Query { column: 9, rotation: 0 })), KeyError::Reference { .. }));
    assert!(matches!(refused(&|p| p.advice_queries.push(Query { column: 0, rotation: i32::MIN })), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.lookups[0].tables.clear()), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.lookups[0].inputs.push(0)), KeyError::Range { .. }));
    assert!(matches!(refused(&|p| p.lookups[0].inputs[0] = p.gates[0]), KeyError::Degree { what: "lookup", .. }));
    assert!(matches!(refused(&|p| p.permutation[0].0 = Column { kind: ColumnKind::Advice, index: 77 }), KeyError::NotQueried { index: 0 }));
    assert!(matches!(refused(&|p| p.fixed[0].x += DECODED.parts().fixed[1].x), KeyError::Point { .. }));
    assert!(matches!(refused(&|p| p.g1 = Default::default()), KeyError::Point { .. }));
    assert!(matches!(refused(&|p| p.s_g2 = Default::default()), KeyError::Point { .. }));
    assert!(matches!(refused(&|p| p.s_g2.x += DECODED.parts().g2.x), KeyError::Point { .. }));
}

/// Proofs made of the recorded one's words, most in their places, so that points and scalars stay well-formed more often than not.
fn rearranged() -> impl Strategy<Value = Vec<u8>> {
    let pairs = PROOF.len() / 64;
    prop::collection::vec((0..pairs, 0..pairs), 1..5).prop_map(|moves| {
        let mut proof = PROOF.to_vec();
        moves.iter().for_each(|(from, to)| proof.copy_within(64 * from..64 * (from + 1), 64 * to));
        proof
    })
}

proptest! {
    #[test]
    fn random_proofs_are_refused(proof in prop::collection::vec(any::<u8>(), PROOF.len())) {
        prop_assert!(verify(&DECODED, &inputs(), &proof).is_err());
    }

    #[test]
    fn rearranged_proofs_are_refused(proof in rearranged()) {
        prop_assert!(proof == PROOF || verify(&DECODED, &inputs(), &proof).is_err());
    }

    #[test]
    fn random_lengths_are_refused(proof in prop::collection::vec(any::<u8>(), 0..200)) {
        let refused = matches!(verify(&DECODED, &inputs(), &proof), Err(ProofError::Length { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn random_keys_are_refused(tail in prop::collection::vec(any::<u8>(), 0..400), start in 0..KEY.len()) {
        let bytes = [&KEY[..start], &tail].concat();
        prop_assert!(OuterKey::decode(&bytes).is_err() || bytes == KEY);
    }

    #[test]
    fn changed_keys_never_panic(changes in prop::collection::vec((0..KEY.len(), any::<u8>()), 1..4)) {
        let mut bytes = KEY.to_vec();
        changes.iter().for_each(|(at, value)| bytes[*at] = *value);
        if let Ok(key) = OuterKey::decode(&bytes) {
            prop_assert_eq!(key.encoding(), bytes.as_slice());
            prop_assert!(bytes == KEY || verify(&key, &inputs(), PROOF).is_err());
        }
    }
}
