//! The recorded verifier: the program it leaves behind.

mod common;

use circuits::statement::Profile;
use common::{Full, full};
use model_runtime::shape::Site;
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use prover::prove::{Inputs, Silent, Stages, prove};
use verifier::profile::Evm;
use verifier::recorded::{Recording, record};

fn recording(full: &Full) -> Recording {
    for (name, bits) in verifier::soundness::terms::<Evm>(&verifier::plan::Plan::new(&full.relation)).unwrap() {
        println!("{name}: {bits:.1} bits");
    }
    println!("{:?}", verifier::plan::Plan::new(&full.relation).layouts.iter().map(|(g, l)| (g.name(), l.log, l.used())).collect::<Vec<_>>());
    println!("{:?}", full.relation.tables.iter().map(|(k, _)| (k, k.dense_columns().len())).collect::<Vec<_>>());
    verifier::verify::check_parameters::<Evm>(&verifier::plan::Plan::new(&full.relation)).unwrap();
    let witness = full.witness();
    let fixed = full.commit::<Evm>(&witness);
    let statement = full.statement(&witness, &fixed);
    let inputs = Inputs { statement: &statement, relation: &full.relation, tokens: vec![None], fixed: fixed.iter().collect() };
    let proof = prove(inputs, witness, &mut Stages::new(&mut Silent)).unwrap();
    record(&statement, &proof.to_bytes(), Bn254::from_u64(12345)).unwrap()
}

#[test]
fn a_proof_is_recorded() {
    let full = full(2, 1, &[Site::Q, Site::Down]).under(Profile::Evm);
    let start = std::time::Instant::now();
    let recording = recording(&full);
    let mut kinds = std::collections::BTreeMap::new();
    for op in &recording.program.ops {
        let name = format!("{op:?}");
        *kinds.entry(name.split(['(', ' ']).next().unwrap_or_default().to_owned()).or_insert(0usize) += 1;
    }
    println!("{kinds:#?} in {:?}, {} parts, {} smalls", start.elapsed(), recording.program.parts.len(), recording.values.small.len());
    let mut parts = recording.program.parts.clone();
    parts.push((recording.program.ops.len(), "end"));
    for pair in parts.windows(2) {
        let ops = &recording.program.ops[pair[0].0..pair[1].0];
        let count = |f: &dyn Fn(&circuits::outer::program::Op) -> bool| ops.iter().filter(|o| f(o)).count();
        use circuits::outer::program::Op;
        println!(
            "{}: {} operations, {} permutations, {} products, {} scalings, {} sums, {} bits",
            pair[0].1,
            ops.len(),
            count(&|o| matches!(o, Op::Permute(_))),
            count(&|o| matches!(o, Op::ExtMul(..))),
            count(&|o| matches!(o, Op::ExtScale(..) | Op::Mul(..))),
            count(&|o| matches!(o, Op::Add(..) | Op::Sub(..) | Op::Scale(..))),
            count(&|o| matches!(o, Op::Bits(..))),
        );
    }
    assert_eq!(recording.public.len(), 9);
}
