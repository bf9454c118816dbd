//! Forward, backward and attribution of a small random model with an adapter, proven and verified.

use crate::common;
use common::Full;
use model_runtime::int::index::IndexOptions;
use model_runtime::shape::Site;
use prover::prove::{Inputs, Silent, Stages, prove};
use verifier::profile::Native;

fn round_trip(layers: usize, requests: usize, sites: &[Site]) -> usize {
    proven(&common::full(layers, requests, sites), layers, requests)
}

fn proven(full: &Full, layers: usize, requests: usize) -> usize {
    let witness = full.witness();
    witness.check(&full.relation).unwrap();
    let fixed = full.commit::<Native>(&witness);
    let statement = full.statement(&witness, &fixed);
    assert!(statement.requests.iter().all(|r| r.total > 0), "the scores should not all be below the noise floor");
    let inputs = Inputs { claim: (&statement).into(), relation: &full.relation, tokens: vec![None; requests], fixed: fixed.iter().collect() };
    let mut silent = Silent;
    let mut stages = Stages::new(&mut silent);
    let bytes = prove(inputs, witness, &mut stages).unwrap().to_bytes();
    let verified = verifier::verify_bytes(&statement, &bytes).unwrap();
    assert!(verified.security_bits >= 100.0, "{verified:?}");
    eprintln!("{layers} layers, {requests} requests: {} bytes, {:.1} bits, {:?}", bytes.len(), verified.security_bits, stages.list);
    bytes.len()
}

/// Ranks are projected where a sketch would be too long, and the rank isn't a power of two.
#[test]
fn projected_ranks() {
    let sites = [Site::Q, Site::Down];
    let options = IndexOptions { rows: 2, cap: 16, sites: Some(sites.to_vec()), ..IndexOptions::default() };
    let full = common::full_sketched(2, 1, &sites, options, |_| {});
    assert_eq!(full.index.semantics.sketch.as_ref().unwrap().ranks, Some(2));
    proven(&full, 2, 1);
}

#[test]
fn all_sites() {
    round_trip(2, 1, &Site::ALL);
}

#[test]
fn some_sites_padded_layers_and_several_requests() {
    round_trip(3, 3, &[Site::Q, Site::V, Site::Down]);
}
