//! The recorded verifier in the outer circuit: it fits, and the recorded values satisfy it.

mod common;

use circuits::outer::halo2::{OuterCircuit, to_fr};
use circuits::statement::Profile;
use common::full;
use model_runtime::shape::Site;
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use prover::prove::{Inputs, Silent, Stages, prove};
use verifier::profile::Evm;
use verifier::recorded::record;

const K: u32 = 19;

#[test]
fn a_recorded_proof_satisfies_the_circuit() {
    let full = full(2, 1, &[Site::Q, Site::Down]).under(Profile::Evm);
    let witness = full.witness();
    let fixed = full.commit::<Evm>(&witness);
    let statement = full.statement(&witness, &fixed);
    let inputs = Inputs { statement: &statement, relation: &full.relation, tokens: vec![None], fixed: fixed.iter().collect() };
    let proof = prove(inputs, witness, &mut Stages::new(&mut Silent)).unwrap();
    let recording = record(&statement, &proof.to_bytes(), Bn254::from_u64(12345)).unwrap();
    let start = std::time::Instant::now();
    let circuit = OuterCircuit::new(&recording.program, &recording.values, K).unwrap();
    println!("{:?} in {:?}", circuit.size(), start.elapsed());
    circuit
        .by_kind(&recording.program)
        .iter()
        .for_each(|(kind, (count, cost))| println!("{kind}: {count}, {} rows, {} limbs", cost.rows, cost.limbs));
    circuit.by_part(&recording.program).iter().for_each(|(part, cost)| println!("{part}: {} rows, {} limbs", cost.rows, cost.limbs));
    assert_eq!(circuit.public(), recording.public.iter().map(|&x| to_fr(x)).collect::<Vec<_>>());
}
