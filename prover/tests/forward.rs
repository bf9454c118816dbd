//! The forward pass of a small random model, proven and verified under both profiles.

mod common;

use circuits::ir::Group;
use prover::commit::Committed;
use prover::prove::{Inputs, Silent, Stages, prove};
use verifier::profile::{Native, NativeProfile};

fn round_trip<C: NativeProfile>(layers: usize, requests: usize) -> usize {
    let forward = common::forward(layers, requests);
    let witness = forward.witness();
    witness.check(&forward.relation).unwrap();
    let base = Committed::<C>::of_witness(&forward.relation, Group::Base, &witness).unwrap();
    let statement = forward.statement(base.digest(), C::PROFILE);
    let inputs = Inputs { statement: &statement, relation: &forward.relation, tokens: vec![None; requests], fixed: vec![&base] };
    let mut silent = Silent;
    let mut stages = Stages::new(&mut silent);
    let proof = prove(inputs, witness, &mut stages).unwrap();
    let bytes = proof.to_bytes();
    let verified = verifier::verify_bytes(&statement, &bytes).unwrap();
    assert!(verified.security_bits >= 100.0, "{verified:?}");
    eprintln!("{layers} layers, {requests} requests: {} bytes, {:.1} bits, {:?}", bytes.len(), verified.security_bits, stages.list);
    bytes.len()
}

#[test]
fn native_proof_verifies() {
    round_trip::<Native>(2, 1);
}

#[test]
fn padded_layers_and_requests_verify() {
    round_trip::<Native>(3, 3);
}
