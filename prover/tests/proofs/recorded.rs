//! The recorded verifier: it accepts what the native one accepts, and its program is the same for every proof of a relation.

use crate::common;
use circuits::outer::halo2::lower::Cost;
use circuits::outer::halo2::{OuterCircuit, inputs, to_fr};
use circuits::outer::program::Op;
use circuits::statement::{Profile, Statement, TokenOpening, Tokens};
use common::mutate::Random;
use common::{Full, full};
use model_runtime::shape::Site;
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use prover::prove::{Inputs, Silent, Stages, prove};
use std::sync::OnceLock;
use verifier::Proof;
use verifier::profile::Evm;
use verifier::recorded::{Constants, RecordError, Recording, record, replay};
use verifier::{VerifyError, verify};

const MUTANTS: usize = 240;

struct Proven {
    statement: Statement,
    bytes: Vec<u8>,
}

fn proven(full: &Full, private: bool) -> Proven {
    let witness = full.witness();
    let fixed = full.commit::<Evm>(&witness);
    let mut statement = full.statement(&witness, &fixed);
    let request = &witness.ctx.requests[0];
    let opening = TokenOpening { prompt_salt: [6; 32], salt: [7; 32], ..TokenOpening::public(&request.tokens, request.prompt_len) };
    if private {
        statement.requests[0].tokens = Tokens::Digests(opening.digests(full.relation.params.tokens));
    }
    let tokens = vec![private.then_some(opening)];
    let inputs = Inputs { claim: (&statement).into(), relation: &full.relation, tokens, fixed: fixed.iter().collect() };
    let bytes = prove(inputs, witness, &mut Stages::new(&mut Silent)).unwrap().to_bytes();
    Proven { statement, bytes }
}

fn fixture() -> &'static Proven {
    static FIXTURE: OnceLock<Proven> = OnceLock::new();
    FIXTURE.get_or_init(|| proven(&full(2, 1, &[Site::Q, Site::Down]).under(Profile::Evm), false))
}

fn constants() -> &'static Constants {
    static CONSTANTS: OnceLock<Constants> = OnceLock::new();
    CONSTANTS.get_or_init(|| Constants::new(&fixture().statement.relation).unwrap())
}

fn z() -> Bn254 {
    Bn254::from_u64(0x1234_5678_9abc)
}

fn print_parts(recording: &Recording) {
    let mut parts = recording.program.parts.clone();
    parts.push((recording.program.ops.len(), "end"));
    for pair in parts.windows(2) {
        let ops = &recording.program.ops[pair[0].0..pair[1].0];
        let count = |f: fn(&Op) -> bool| ops.iter().filter(|op| f(op)).count();
        println!(
            "{:>16}: {} operations; {} permutations, {} extension products, {} scalings, {} products, {} inputs",
            pair[0].1,
            ops.len(),
            count(|op| matches!(op, Op::Permute(_))),
            count(|op| matches!(op, Op::ExtMul(..))),
            count(|op| matches!(op, Op::ExtScale(..))),
            count(|op| matches!(op, Op::Mul(..))),
            count(|op| matches!(op, Op::Input | Op::WideInput)),
        );
    }
}

/// Other tokens, another length, tokens behind a digest: the same program.
#[test]
fn the_program_depends_on_the_relation_only() {
    let first = record(&fixture().statement, &fixture().bytes, z()).unwrap();
    print_parts(&first);
    assert_eq!(first.public.len(), 10);
    let mut other = full(2, 1, &[Site::Q, Site::Down]).under(Profile::Evm);
    let runtime = other.runtime(&other.model.tensors);
    let mut tokens = vec![1, 8, 3, 4];
    tokens.extend(runtime.generate(&tokens, 3, None).unwrap());
    assert_ne!(tokens.len(), other.traces[0].tokens.len());
    other.traces = vec![other.trace(&runtime, &tokens, 4)];
    let other = proven(&other, true);
    let second = record(&other.statement, &other.bytes, z()).unwrap();
    assert_ne!(first.public, second.public);
    assert_eq!(first.program, second.program);
}

/// Whether the values satisfy the program.
fn satisfied(recording: &Recording) -> bool {
    let (small, wide) = inputs(&recording.program, &recording.values).unwrap();
    let small: Vec<_> = small.into_iter().map(circuits::ir::F::from_u32).collect();
    recording.program.evaluate(&small, &wide).is_ok()
}

/// Mutants of proofs of public and of hidden tokens: both hosts refuse them, for the same reason where it isn't about the opening. That the
/// circuit opens its own secret tokens, and so refuses another opening by what follows from it.
#[test]
fn both_hosts_refuse_the_same_proofs() {
    static HIDDEN: OnceLock<Proven> = OnceLock::new();
    let hidden = HIDDEN.get_or_init(|| proven(&full(2, 1, &[Site::Q, Site::Down]).under(Profile::Evm), true));
    let mut random = Random(77);
    let (mut compared, mut openings) = (0, 0);
    let mut reasons = std::collections::BTreeMap::<String, usize>::new();
    while compared < MUTANTS {
        // Of hidden tokens' proofs, every second mutant is one of the opening, which comes first.
        let Proven { statement, bytes } = if compared % 3 == 0 { hidden } else { fixture() };
        let within = if compared % 6 == 0 { 80 } else { bytes.len() - 5 };
        let mut mutant = bytes.clone();
        let at = 5 + random.below(within);
        mutant[at] ^= 1 << random.below(7);
        let Ok(proof) = Proof::<Evm>::from_bytes(&mutant) else { continue };
        let native = verify(statement, &proof).expect_err("a mutant verifies");
        let recorded = match replay(constants(), statement, &proof, &mutant, z()) {
            Err(RecordError::Verify(e)) => Some(e),
            Err(RecordError::Unsupported { .. }) => None,
            Ok(recording) => {
                assert!(!satisfied(&recording), "byte {at}: the recorded verifier accepts what the native one refuses: {native}");
                None
            }
        };
        match &native {
            VerifyError::Statement(_) => openings += 1,
            _ => assert_eq!(recorded.as_ref(), Some(&native), "byte {at}"),
        }
        *reasons.entry(native.to_string()).or_default() += 1;
        compared += 1;
    }
    println!("{reasons:#?}");
    assert!(reasons.len() >= 5 && openings >= 10, "the mutants reach too few of the checks: {openings} openings");
}

#[test]
fn another_statement_is_refused() {
    let Proven { statement, bytes } = fixture();
    let proof = Proof::<Evm>::from_bytes(bytes).unwrap();
    let changes: [fn(&mut Statement); 5] = [
        |s| s.base.0[31] ^= 1,
        |s| s.requests[0].id.0[31] ^= 1,
        |s| s.requests[0].weights.swap(0, 1),
        |s| s.index.as_mut().unwrap().datanet_version += 1,
        |s| s.tables.as_mut().unwrap().0[31] ^= 1,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut other = statement.clone();
        change(&mut other);
        assert_ne!(&other, statement, "change {i}");
        assert!(verify(&other, &proof).is_err(), "change {i}");
        // Of other tables nothing is recorded: they aren't the statement's to choose, and what is recorded is the true statement.
        let recorded = replay(constants(), &other, &proof, bytes, z());
        assert!(recorded.is_err() || recorded.is_ok_and(|r| r.public[0] != other.digest().word()), "change {i}");
    }
}

/// The recorded values satisfy the outer circuit, and it yields the same public inputs. Its size by part and by kind of operation is kept.
#[test]
fn the_outer_circuit_takes_the_recording() {
    let recording = record(&fixture().statement, &fixture().bytes, z()).unwrap();
    let circuit = OuterCircuit::new(&recording.program, &recording.values, 20).unwrap();
    let line = |name: &str, cost: Cost| format!("{name}: {} rows, {} limbs\n", cost.rows, cost.limbs);
    let mut found = line("all", circuit.size());
    found.extend(circuit.by_part(&recording.program).into_iter().map(|(part, cost)| line(part, cost)));
    found.extend(circuit.by_kind(&recording.program).iter().map(|(kind, (count, cost))| line(&format!("{count} {kind}"), *cost)));
    common::golden::check("outer_rows.txt", &found);
    let public: Vec<_> = recording.public.iter().map(|&x| to_fr(x)).collect();
    assert_eq!(circuit.public(), public);
}
