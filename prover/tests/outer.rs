//! Outer proofs of small programs: made, verified, tampered with.

use circuits::outer::program::{Op, Program, Small, Values, Wide};
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use prover::outer::{Keys, OuterProofError, Srs, protocol, prove, solidity, verify};
use rand_core::OsRng;

const K: u32 = 11;

fn program() -> Program {
    let mut ops = vec![Op::Input; 10];
    let (a, b): ([Small; 5], [Small; 5]) = (std::array::from_fn(|i| Small(i as u32)), std::array::from_fn(|i| Small(i as u32 + 5)));
    ops.extend([Op::ExtMul(a, b), Op::WideInput, Op::Pack((10..15).map(Small).collect(), true), Op::Permute([Wide(0), Wide(1), Wide(0)])]);
    ops.extend([Op::Bits(Small(12), 6), Op::Select(Small(15), Wide(2), Wide(3)), Op::Split(Wide(4)), Op::Public(Wide(5)), Op::Public(Wide(1))]);
    Program { ops, parts: vec![(0, "all")] }
}

fn values(seed: u32) -> (Values, Vec<Bn254>) {
    let small: Vec<_> = (0..10).map(|i| circuits::ir::F::from_u32(seed * 77 + i * i)).collect();
    program().evaluate(&small, &[Bn254::from_u32(seed)]).unwrap()
}

#[test]
fn a_proof_verifies_and_its_mutants_do_not() {
    let srs = Srs::setup(K, OsRng);
    let program = program();
    let directory = std::env::temp_dir().join(format!("poa-outer-{}", std::process::id()));
    let (keys, cached) = Keys::cached(&srs, &program, &directory).unwrap();
    assert!(!cached);
    let (keys_again, cached) = Keys::cached(&srs, &program, &directory).unwrap();
    assert!(cached);
    std::fs::remove_dir_all(directory).unwrap();

    let (values, public) = values(3);
    let proof = prove(&srs, &keys_again, &program, &values, &public).unwrap();
    verify(&srs, &keys, &proof, &public).unwrap();
    println!("{} bytes; Solidity {} bytes", proof.len(), solidity(&srs, &keys).unwrap().len());
    assert!(proof.len() < 5_000);
    for i in 0..public.len() {
        let mut changed = public.clone();
        changed[i] += Bn254::ONE;
        assert!(verify(&srs, &keys, &proof, &changed).is_err());
        assert!(matches!(prove(&srs, &keys, &program, &values, &changed), Err(OuterProofError::Public { at, .. }) if at == i));
    }
    for word in 0..proof.len() / 32 {
        let mut changed = proof.clone();
        changed[word * 32 + 31] ^= 1;
        assert!(verify(&srs, &keys, &changed, &public).is_err(), "word {word}");
    }
    assert!(verify(&srs, &keys, &proof[..proof.len() - 1], &public).is_err());
    // A statement's witnesses don't show in the proof's length.
    let (other, other_public) = crate::values(4);
    assert_eq!(prove(&srs, &keys, &program, &other, &other_public).unwrap().len(), proof.len());
}

#[test]
fn the_protocol_is_complete() {
    let srs = Srs::setup(K, OsRng);
    let keys = Keys::generate(&srs, &program()).unwrap();
    let protocol = protocol(&srs, &keys);
    println!(
        "{} preprocessed, witness {:?}, {} evaluations, {} queries",
        protocol.preprocessed.len(),
        protocol.num_witness,
        protocol.evaluations.len(),
        protocol.queries.len()
    );
    assert_eq!(protocol.num_instance, [2]);
    assert!(!serde_json::to_string(&protocol).unwrap().is_empty());
    assert!(solidity(&srs, &keys).unwrap().contains("pragma solidity"));
}
