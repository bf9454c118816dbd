//! The forward pass of a small random model, proven and verified under both profiles.

use crate::common;
use circuits::ir::{Group, TensorId};
use circuits::layout::{Layout, MIN_LOG};
use circuits::statement::Profile;
use common::Forward;
use model_runtime::shape::ModelShape;
use prover::ProveError;
use prover::commit::{Committed, stack};
use prover::prove::{Inputs, Progress, Silent, Stage, Stages, Stopped, prove, prove_counted};
use verifier::VerifyError;
use verifier::profile::{Evm, Native, NativeProfile};

fn round_trip<C: NativeProfile>(forward: &Forward) {
    let (layers, requests) = (forward.model.semantics.shape.layers, forward.traces.len());
    let witness = forward.witness();
    witness.check(&forward.relation).unwrap();
    let groups = [Group::Base, Group::Tables].into_iter().filter(|&group| Layout::of(&forward.relation, group).is_some());
    let fixed: Vec<Committed<C>> = groups.map(|group| Committed::of_witness(&forward.relation, group, &witness).unwrap()).collect();
    let statement = forward.statement(&fixed);
    let inputs = Inputs { claim: (&statement).into(), relation: &forward.relation, tokens: vec![None; requests], fixed: fixed.iter().collect() };
    let mut silent = Silent;
    let mut stages = Stages::new(&mut silent);
    let proof = prove(inputs, witness, &mut stages).unwrap();
    let bytes = proof.to_bytes();
    let verified = verifier::verify_bytes(&statement, &bytes).unwrap();
    assert!(verified.security_bits >= 100.0, "{verified:?}");
    eprintln!("{layers} layers, {requests} requests: {} bytes, {:.1} bits, {:?}", bytes.len(), verified.security_bits, stages.list);
}

#[test]
fn native_proof_verifies() {
    round_trip::<Native>(&common::forward(2, 1));
}

#[test]
fn padded_layers_and_requests_verify() {
    round_trip::<Native>(&common::forward(3, 3));
}

/// Of a vocabulary of 3,000 and a width of 192, both far from powers of two.
fn wide(profile: Profile) -> Forward {
    common::forward_of(&ModelShape { vocab: 3000, width: 192, ff: 40, ..common::small_shape(1) }, 1, profile)
}

/// Large tensors are committed without their padding, in slots of their own.
#[test]
fn large_tensors_are_committed_in_parts() {
    let forward = wide(Profile::Native);
    let (relation, layout) = (&forward.relation, Layout::of(&forward.relation, Group::Base).unwrap());
    let embed = relation.tensor("embed").unwrap();
    let used: usize = layout.slots(embed).map(|slot| 1 << slot.log).sum();
    assert!(layout.slots(embed).count() > 2 && used < 3000 * 192 * 21 / 20, "{used}");
    assert!(relation.log(&relation.tensors[embed.0].axes) == 20);
    round_trip::<Native>(&forward);
}

#[test]
#[ignore = "takes a minute; `cargo test --release --workspace --test proofs -- --ignored`"]
fn large_tensors_are_committed_in_parts_under_evm() {
    round_trip::<Evm>(&wide(Profile::Evm));
}

/// What isn't committed is zero: a prover whose sums take another value there isn't believed, and one who commits it is told by the constraint.
#[test]
fn what_has_no_slot_is_zero() {
    let forward = wide(Profile::Native);
    let (relation, honest) = (&forward.relation, forward.witness());
    let layout = Layout::of(relation, Group::Base).unwrap();
    let head = relation.tensor("head").unwrap();
    let mut covered = vec![false; 1 << 20];
    for slot in layout.slots(head) {
        let (starts, len) = slot.runs();
        starts.into_iter().for_each(|start| covered[start..start + len].fill(true));
    }
    let inside = |position: usize| position >> 8 < 3000 && position & 255 < 192;
    let outside = (0..1 << 20).rfind(|&x| !covered[x]).unwrap();
    let slack = (0..1 << 20).rfind(|&x| covered[x] && !inside(x)).unwrap();
    for position in [outside, slack] {
        let mut cheat = honest.clone();
        cheat.tensors[head.0][position] = 5;
        let base = [Committed::<Native>::of_witness(relation, Group::Base, &cheat).unwrap()];
        let statement = forward.statement(&base);
        let inputs = Inputs { claim: (&statement).into(), relation, tokens: vec![None], fixed: vec![&base[0]] };
        let values = cheat.count_leniently(relation);
        let proof = prove_counted(inputs, cheat, values, &mut Stages::new(&mut Silent)).unwrap();
        assert_eq!(verifier::verify(&statement, &proof).unwrap_err(), VerifyError::Constraints, "at {position}");
    }
    // The same values in a layout of the prover's own, whole tensors one after the other, are another commitment.
    let tensors = relation.tensors.iter().enumerate().filter(|(_, t)| t.group == Group::Base);
    let whole = Layout::stack(tensors.map(|(i, t)| (TensorId(i), vec![None; relation.log(&t.axes)])), MIN_LOG);
    let values = stack(&whole, |id| &honest.tensors[id.0]);
    let base = Committed::<Native>::new(Group::Base, whole, values).unwrap();
    let base = [base];
    let statement = forward.statement(&base);
    let inputs = Inputs { claim: (&statement).into(), relation, tokens: vec![None], fixed: vec![&base[0]] };
    assert_eq!(prove(inputs, honest, &mut Stages::new(&mut Silent)).map(|_| ()).unwrap_err(), ProveError::Layout(Group::Base));
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
    let base = [Committed::<Native>::of_witness(&forward.relation, Group::Base, &witness).unwrap()];
    let statement = forward.statement(&base);
    for phases in 0..4 {
        let inputs = Inputs { claim: (&statement).into(), relation: &forward.relation, tokens: vec![None], fixed: vec![&base[0]] };
        let mut few = Few(phases);
        let mut stages = Stages::new(&mut few);
        let stopped = prove(inputs, witness.clone(), &mut stages).map(|_| ()).unwrap_err();
        assert_eq!((stopped, stages.list.len()), (ProveError::Stopped(Stopped), phases));
    }
}
