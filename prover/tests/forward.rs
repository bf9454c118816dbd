//! The forward pass of a small random model, proven and verified under both profiles.

mod common;

use circuits::ir::Group;
use prover::ProveError;
use prover::commit::Committed;
use prover::prove::{Inputs, Progress, Silent, Stage, Stages, Stopped, prove};
use verifier::profile::{HashProfile, Native, NativeProfile};

fn round_trip<C: NativeProfile>(layers: usize, requests: usize) -> usize {
    let forward = common::forward(layers, requests);
    let witness = forward.witness();
    witness.check(&forward.relation).unwrap();
    let base = Committed::<C>::of_witness(&forward.relation, Group::Base, &witness).unwrap();
    let statement = forward.statement(base.digest(), C::PROFILE);
    let inputs = Inputs { claim: (&statement).into(), relation: &forward.relation, tokens: vec![None; requests], fixed: vec![&base] };
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

/// Lets so many phases through.
struct Few(usize);

impl Progress for Few {
    fn begin(&mut self, _: &'static str) {}

    fn end(&mut self, _: &Stage) {
        self.0 -= 1;
    }

    fn goes_on(&self) -> bool {
        self.0 > 0
    }
}

#[test]
fn proving_stops_between_phases() {
    let forward = common::forward(1, 1);
    let witness = forward.witness();
    let base = Committed::<Native>::of_witness(&forward.relation, Group::Base, &witness).unwrap();
    let statement = forward.statement(base.digest(), Native::PROFILE);
    for phases in 0..4 {
        let inputs = Inputs { claim: (&statement).into(), relation: &forward.relation, tokens: vec![None], fixed: vec![&base] };
        let mut few = Few(phases);
        let mut stages = Stages::new(&mut few);
        let stopped = prove(inputs, witness.clone(), &mut stages).map(|_| ()).unwrap_err();
        assert_eq!((stopped, stages.list.len()), (ProveError::Stopped(Stopped), phases));
    }
}
