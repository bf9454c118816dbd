//! Forward, backward and attribution of a small random model with an adapter, proven and verified.

mod common;

use model_runtime::shape::Site;
use prover::prove::{Inputs, Silent, Stages, prove};
use verifier::profile::Native;

fn round_trip(layers: usize, requests: usize, sites: &[Site]) -> usize {
    let full = common::full(layers, requests, sites);
    let witness = full.witness();
    witness.check(&full.relation).unwrap();
    let fixed = full.commit::<Native>(&witness);
    let statement = full.statement(&witness, &fixed);
    assert!(statement.requests.iter().all(|r| r.total > 0), "the scores should not all be below the noise floor");
    let inputs = Inputs { statement: &statement, relation: &full.relation, tokens: vec![None; requests], fixed: fixed.iter().collect() };
    let mut silent = Silent;
    let mut stages = Stages::new(&mut silent);
    let bytes = prove(inputs, witness, &mut stages).unwrap().to_bytes();
    let verified = verifier::verify_bytes(&statement, &bytes).unwrap();
    assert!(verified.security_bits >= 100.0, "{verified:?}");
    eprintln!("{layers} layers, {requests} requests: {} bytes, {:.1} bits, {:?}", bytes.len(), verified.security_bits, stages.list);
    bytes.len()
}

#[test]
fn all_sites() {
    round_trip(2, 1, &Site::ALL);
}

#[test]
fn some_sites_padded_layers_and_several_requests() {
    round_trip(3, 3, &[Site::Q, Site::V, Site::Down]);
}
