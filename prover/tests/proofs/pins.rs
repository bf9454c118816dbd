//! Pins: what they depend on, that no proof opens another root or value than the pinned one's, and the attack that they end.

use crate::common;
use circuits::ir::{EF, F, Group};
use circuits::layout::Layout;
use circuits::outer::halo2::{OuterCircuit, OuterError, inputs};
use circuits::outer::program::Op;
use circuits::relation::{Relation, RelationParams, Scope};
use circuits::statement::{Digest, Profile, Statement};
use circuits::witness::Witness;
use common::{Full, full};
use model_runtime::semantics::Semantics;
use model_runtime::shape::Site;
use p3_bn254::Bn254;
use p3_challenger::CanObserve;
use p3_commit::Mmcs;
use p3_field::{Field, PrimeCharacteristicRing, PrimeField32};
use p3_matrix::Matrix;
use p3_matrix::dense::RowMajorMatrix;
use p3_multilinear_util::point::Point;
use p3_multilinear_util::poly::Poly;
use p3_sumcheck::OpeningBatch;
use p3_sumcheck::layout::{Layout as _, PrefixProver, Table};
use p3_whir::PcsProof;
use p3_whir::parameters::{FoldingFactor, ProtocolParameters, SecurityAssumption, WhirConfig};
use prover::commit::{Committed, digest_of};
use prover::prove::{Inputs, Silent, Stages, prove};
use std::sync::OnceLock;
use verifier::pcs::{self, Opening, Pcs};
use verifier::pin;
use verifier::profile::{Evm, HashProfile, Native, NativeProfile};
use verifier::proof::DecodeError;
use verifier::recorded::{Constants, RecordError, record, replay};
use verifier::whir::WhirError;
use verifier::{Proof, VerifyError, verify};

const SITES: [Site; 2] = [Site::Q, Site::Down];
const PINNED: [Group; 3] = [Group::Base, Group::Adapter, Group::Index];

struct Fixture<C: NativeProfile> {
    full: Full,
    witness: Witness,
    fixed: Vec<Committed<C>>,
    statement: Statement,
}

impl<C: NativeProfile> Fixture<C> {
    fn new() -> Self {
        let full = full(1, 1, &SITES).under(C::PROFILE);
        let witness = full.witness();
        let fixed = full.commit::<C>(&witness);
        let statement = full.statement(&witness, &fixed);
        Self { full, witness, fixed, statement }
    }

    /// Proves whatever the statement says.
    fn proof(&self, relation: &Relation, statement: &Statement, fixed: &[Committed<C>]) -> Proof<C> {
        let inputs = Inputs { claim: statement.into(), relation, tokens: vec![None], fixed: fixed.iter().collect() };
        prove(inputs, self.witness.clone(), &mut Stages::new(&mut Silent)).unwrap()
    }
}

fn native() -> &'static (Fixture<Native>, Proof<Native>) {
    static FIXTURE: OnceLock<(Fixture<Native>, Proof<Native>)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let f = Fixture::new();
        let proof = f.proof(&f.full.relation, &f.statement, &f.fixed);
        (f, proof)
    })
}

fn evm() -> &'static (Fixture<Evm>, Proof<Evm>) {
    static FIXTURE: OnceLock<(Fixture<Evm>, Proof<Evm>)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let f = Fixture::new();
        let proof = f.proof(&f.full.relation, &f.statement, &f.fixed);
        (f, proof)
    })
}

fn z() -> Bn254 {
    Bn254::from_u64(77)
}

fn parameters(relation: &Relation, group: Group) -> Digest {
    pin::parameters(Profile::Native, relation, group, &Layout::of(relation, group).unwrap())
}

/// Which pins' parameters a change of the relation's changes.
fn changed(change: impl Fn(&mut RelationParams)) -> Vec<Group> {
    let relation = &native().0.full.relation;
    let mut params = relation.params.clone();
    change(&mut params);
    let other = Relation::new(&params).unwrap();
    PINNED.into_iter().filter(|&g| parameters(&other, g) != parameters(relation, g)).collect()
}

/// A model's pin is the same with any adapter, an adapter's with any index, all of them for requests of any size.
#[test]
fn pins_are_of_what_is_committed_alone() {
    let f = &native().0;
    let [base, adapter] = [f.statement.base, f.statement.adapter.unwrap()];
    let forward = |semantics: &Semantics| {
        let params =
            RelationParams { semantics: semantics.clone(), scope: Scope::Forward, rows: 0, contributors: 0, ..f.full.relation.params.clone() };
        Relation::new(&RelationParams { tokens: 16, requests: 2, ..params }).unwrap()
    };
    let [alone, adapted] = [forward(&f.full.model.semantics), forward(&f.full.adapter.semantics)];
    for relation in [&alone, &adapted] {
        assert_eq!(digest_of::<Native>(relation, Group::Base, &f.full.model.tensors).unwrap(), base);
    }
    assert_eq!(digest_of::<Native>(&adapted, Group::Adapter, &f.full.adapter.tensors).unwrap(), adapter);
    assert!(changed(|p| (p.tokens, p.slots) = (16, 16)).is_empty());
    // Under the two profiles they have nothing in common.
    assert!(evm().0.statement.base != base && evm().0.statement.adapter != Some(adapter));
    assert_eq!(Digest::of_word(evm().0.statement.base.word()), evm().0.statement.base);
}

/// Whatever gives committed values their meaning changes the pin.
#[test]
fn pins_cover_what_the_values_mean() {
    type Change = fn(&mut Semantics);
    let cases: [(Change, &[Group]); 8] = [
        (|s| *s.exps.get_mut("wq").unwrap() += 1, &[Group::Base]),
        (|s| *s.weight_bits.get_mut("head").unwrap() -= 1, &[Group::Base]),
        (|s| s.shape.rope_theta *= 2.0, &PINNED),
        (|s| *s.exps.get_mut("adown").unwrap() -= 1, &[Group::Adapter]),
        (|s| s.ops.get_mut("q").unwrap().shift -= 1, &[Group::Adapter]),
        (|s| *s.consts.get_mut("nf.eps").unwrap() += 1, &[Group::Adapter]),
        (|s| s.ops.get_mut("pdq").unwrap().bits -= 1, &[Group::Index]),
        (|s| *s.consts.get_mut("theta").unwrap() += 1, &[Group::Index]),
    ];
    for (i, (change, groups)) in cases.into_iter().enumerate() {
        assert_eq!(changed(|p| change(&mut p.semantics)), groups, "case {i}");
    }
    assert_eq!(changed(|p| p.rows -= 1), [Group::Index]);
    assert_eq!(changed(|p| p.contributors += 1), [Group::Index]);
}

/// Another value, or the root of another polynomial, under the pin: refused before any challenge, natively and where it is recorded.
#[test]
fn a_pin_is_of_one_root_and_one_value() {
    let changes: [fn(&mut Proof<Evm>, usize); 3] = [
        |p, g| p.pinned[g].value += EF::ONE,
        |p, g| p.pinned[g].value = p.pinned[(g + 1) % 3].value,
        |p, g| p.pinned[g].root = p.pinned[(g + 1) % 3].root.clone(),
    ];
    let (f, proof) = evm();
    let constants = Constants::new(&f.statement.relation).unwrap();
    for change in changes {
        for (g, group) in PINNED.into_iter().enumerate() {
            let mut other = Proof::<Evm>::from_bytes(&proof.to_bytes()).unwrap();
            change(&mut other, g);
            assert_eq!(verify(&f.statement, &other), Err(VerifyError::Pin { group }));
            let recorded = replay(&constants, &f.statement, &other, &other.to_bytes(), z()).map(|_| ());
            assert!(matches!(recorded, Err(RecordError::Verify(VerifyError::Pin { group: g })) if g == group), "{recorded:?}");
        }
    }
    let (f, proof) = native();
    for (g, group) in PINNED.into_iter().enumerate() {
        let mut other = Proof::<Native>::from_bytes(&proof.to_bytes()).unwrap();
        other.pinned[g].value += EF::ONE;
        assert_eq!(verify(&f.statement, &other), Err(VerifyError::Pin { group }));
        other.pinned[g].value -= EF::ONE;
        assert!(verify(&f.statement, &other).is_ok());
        other.pinned[g].root = other.pinned[(g + 1) % 3].root.clone();
        assert_eq!(verify(&f.statement, &other), Err(VerifyError::Pin { group }));
    }
}

/// Pins of values that the polynomials don't take: the openings refuse them.
fn pins_of_false_values<C: NativeProfile>(f: &Fixture<C>, groups: &[usize], refused: impl Fn(&Statement, &Proof<C>, Group)) {
    for &g in groups {
        let group = PINNED[g];
        let mut fixed = f.full.commit::<C>(&f.witness);
        let parameters = pin::parameters(C::PROFILE, &f.full.relation, group, &fixed[g].layout);
        let root = fixed[g].root.clone();
        if let Some(pin) = fixed[g].pin.as_mut() {
            pin.value += EF::ONE;
            pin.digest = C::pin(&parameters, &root, pin.value);
        }
        let statement = f.full.statement(&f.witness, &fixed);
        let mut proof = f.proof(&f.full.relation, &statement, &fixed);
        let error = verify(&statement, &proof).unwrap_err();
        assert_eq!(error, VerifyError::Opening { group, reason: WhirError::Value });
        refused(&statement, &proof, group);
        // As if the opening were of the false value.
        proof.openings[g].evals[1] = OpeningBatch::new(vec![proof.pinned[g].value], vec![]);
        let error = verify(&statement, &proof).unwrap_err();
        assert!(matches!(error, VerifyError::Opening { group: g, .. } if g == group), "{error}");
        refused(&statement, &proof, group);
    }
}

#[test]
fn a_pinned_value_is_opened() {
    pins_of_false_values(&native().0, &[0, 2], |_, _, _| {});
    let constants = Constants::new(&evm().0.statement.relation).unwrap();
    pins_of_false_values(&evm().0, &[1], |statement, proof, group| {
        let recorded = replay(&constants, statement, proof, &proof.to_bytes(), z()).map(|_| ());
        assert!(matches!(recorded, Err(RecordError::Verify(VerifyError::Opening { group: g, .. })) if g == group), "{recorded:?}");
    });
}

/// A weight's unit is in no constraint: a proof under another is as valid, but for the pins, which are of the unit that it was committed with.
#[test]
fn pins_of_other_parameters() {
    fn other(relation: &Relation, name: &str) -> Relation {
        let mut params = relation.params.clone();
        *params.semantics.exps.get_mut(name).unwrap() += 1;
        Relation::new(&params).unwrap()
    }
    for (name, group) in [("wq", Group::Base), ("aq", Group::Adapter), ("Gq", Group::Index)] {
        let (f, _) = native();
        let relation = other(&f.full.relation, name);
        let statement = Statement { relation: relation.params.clone(), ..f.statement.clone() };
        let proof = f.proof(&relation, &statement, &f.fixed);
        assert_eq!(verify(&statement, &proof), Err(VerifyError::Pin { group }));
        if group != Group::Base {
            continue;
        }
        let (f, _) = evm();
        let relation = other(&f.full.relation, name);
        let statement = Statement { relation: relation.params.clone(), ..f.statement.clone() };
        let proof = f.proof(&relation, &statement, &f.fixed);
        assert_eq!(verify(&statement, &proof), Err(VerifyError::Pin { group }));
        let recorded = replay(&Constants::new(&relation.params).unwrap(), &statement, &proof, &proof.to_bytes(), z()).map(|_| ());
        assert!(matches!(recorded, Err(RecordError::Verify(VerifyError::Pin { group: g })) if g == group), "{recorded:?}");
    }
}

/// A value has one encoding: its coefficients plus the field's order don't decode, and no circuit takes them.
#[test]
fn values_behind_pins_are_canonical() {
    let (f, proof) = evm();
    let bytes = proof.to_bytes();
    for pinned in &proof.pinned {
        let value = postcard::to_allocvec(&pinned.value).unwrap();
        assert_eq!(value.len(), 20);
        let at = bytes.windows(value.len()).position(|w| w == value).unwrap();
        let own = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut other = bytes.clone();
        other[at..at + 4].copy_from_slice(&(own + F::ORDER_U32).to_le_bytes());
        assert!(matches!(Proof::<Evm>::from_bytes(&other).map(|_| ()), Err(DecodeError::Malformed(_))));
    }
    let recording = record(&f.statement, &bytes, z()).unwrap();
    let (small, wide) = inputs(&recording.program, &recording.values).unwrap();
    let places: Vec<usize> = recording.program.ops.iter().enumerate().filter(|(_, op)| **op == Op::Input).map(|(at, _)| at).collect();
    let first = places.iter().filter(|&&at| at < recording.program.parts[1].0).count();
    let coefficients: Vec<u32> = proof.pinned.iter().flat_map(|p| coefficients(p.value)).collect();
    assert_eq!(small[first..first + 15], coefficients);
    // What is below `2^31 - p`, as zero is, has a second number of 31 bits.
    for i in [first, first + 7, first + 14] {
        let mut forged = small.clone();
        forged[i] = F::ORDER_U32;
        let result = OuterCircuit::of_inputs(&recording.program, &forged, &wide, 20).map(|_| ());
        assert_eq!(result, Err(OuterError::Unsatisfied { at: places[i], op: "Input".into() }));
    }
}

fn coefficients(x: EF) -> Vec<u32> {
    use p3_field::BasedVectorSpace;
    x.as_basis_coefficients_slice().iter().map(|c: &F| c.as_canonical_u32()).collect()
}

/// The attack: a word between two codewords, at parameters whose few queries a prover can grind through.
mod attack {
    use super::*;

    type Tree = <<Native as HashProfile>::Mmcs as Mmcs<F>>::ProverData<RowMajorMatrix<F>>;

    const LOG: usize = 9;
    const RATE: usize = 3;
    const FOLD: usize = 4;
    /// Openings that a prover tries; about one in two to the number of queries succeeds.
    const TRIES: u64 = 2_000;

    fn toy() -> Pcs<Native> {
        let folding_factor = FoldingFactor::Constant(FOLD);
        let rounds = folding_factor.compute_folding_schedule(LOG).unwrap().len() - 1;
        let parameters = ProtocolParameters {
            security_level: 8,
            pow_bits: 0,
            folding_factor,
            soundness_type: SecurityAssumption::JohnsonBound,
            starting_log_inv_rate: RATE,
            round_log_inv_rates: (1..=rounds).map(|round| RATE + round * (FOLD - 1)).collect(),
        };
        let domain = Native::domain(0);
        let config = WhirConfig::<EF, F, <Native as HashProfile>::Challenger>::new_with_domain(LOG, parameters, &domain).unwrap();
        Pcs::<Native>::new(config, domain, Native::mmcs())
    }

    fn polynomial(seed: u32) -> Table<F> {
        let values = (0..1u32 << LOG).map(|i| F::from_u32(i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 4)).collect();
        Table::new(RowMajorMatrix::new(values, 1 << LOG))
    }

    /// Root and tree of a word whose leaves are by turns those of two polynomials' codewords.
    fn between(polynomials: &[Table<F>; 2]) -> (pcs::Commitment<Native>, Tree) {
        let codeword = |table: &Table<F>| {
            let witness = PrefixProver::<F, EF>::new_witness(vec![table.clone()], FOLD);
            let (_, _, tree) = PrefixProver::<F, EF>::commit(&Native::domain(LOG + RATE), &Native::mmcs(), witness, FOLD, RATE);
            let mmcs = Native::mmcs();
            let matrix = mmcs.get_matrices(&tree)[0];
            (matrix.values.clone(), matrix.width())
        };
        let [(even, width), (odd, _)] = [codeword(&polynomials[0]), codeword(&polynomials[1])];
        let rows = even.chunks(width).zip(odd.chunks(width)).enumerate();
        let word = rows.flat_map(|(i, (even, odd))| if i % 2 == 0 { even } else { odd }.to_vec()).collect();
        Native::mmcs().commit_matrix(RowMajorMatrix::new(word, width))
    }

    fn transcript(root: &pcs::Commitment<Native>, nonce: u64) -> <Native as HashProfile>::Challenger {
        let mut challenger = Native::challenger(&circuits::statement::keccak(&nonce.to_be_bytes()));
        challenger.observe(root.clone());
        challenger
    }

    /// The word, opened as if it were a polynomial's codeword.
    fn open(
        pcs: &Pcs<Native>,
        table: &Table<F>,
        tree: &Tree,
        points: &[Vec<EF>],
        mut challenger: <Native as HashProfile>::Challenger,
    ) -> Opening<Native> {
        let mut layout = PrefixProver::<F, EF>::from_witness(PrefixProver::<F, EF>::new_witness(vec![table.clone()], FOLD));
        let protocol = pcs::protocol(LOG, points.len());
        let outside = (0..pcs.commitment_ood_samples()).map(|_| layout.add_virtual_eval(&mut challenger)).collect();
        let openings = protocol.iter_openings().zip(points);
        let evals = openings.map(|((table, batch), point)| layout.eval_at(table, batch, &Point::new(point.clone()), &mut challenger)).collect();
        let whir = pcs.prove(outside, &mut challenger, layout, tree.clone(), points.len()).unwrap();
        PcsProof { whir, evals }
    }

    fn at(table: &Table<F>, point: &[EF]) -> EF {
        Poly::new(table.poly(0).into_slice()).eval_base(&Point::new(point.to_vec()))
    }

    /// Without pins the root opens to one polynomial in this proof and to another in the next. A pin's value is one polynomial's: only that one
    /// is opened, however often a prover tries.
    #[test]
    fn a_root_that_opens_to_two_polynomials() {
        let pcs = toy();
        let tables = [polynomial(1), polynomial(7)];
        let (root, tree) = between(&tables);
        let z: Vec<EF> = (0..LOG as u32).map(|i| EF::from_u32(i * i + 5).inverse()).collect();
        let accepted = |opening: &Opening<Native>, claims: &[(&[EF], EF)], nonce: u64| {
            pcs::verify::<Native>(&pcs, &root, opening, claims, &mut transcript(&root, nonce)).is_ok()
        };
        let first = |table: &Table<F>, points: &[Vec<EF>], claims: &[(&[EF], EF)], edit: &dyn Fn(&mut Opening<Native>)| {
            (0..TRIES).position(|nonce| {
                let mut opening = open(&pcs, table, &tree, points, transcript(&root, nonce));
                edit(&mut opening);
                accepted(&opening, claims, nonce)
            })
        };
        let keep = |_: &mut Opening<Native>| {};
        let values = [at(&tables[0], &z), at(&tables[1], &z)];
        assert_ne!(values[0], values[1]);
        let unpinned: Vec<_> = (0..2).map(|b| first(&tables[b], std::slice::from_ref(&z), &[(&z, values[b])], &keep)).collect();
        assert!(unpinned.iter().all(Option::is_some), "{unpinned:?}");

        let x = pin::point::<Native>(&circuits::statement::keccak(b"parameters"), &root, LOG);
        let (points, y) = ([z.clone(), x.clone()], at(&tables[0], &x));
        let pinned = first(&tables[0], &points, &[(&z, values[0]), (&x, y)], &keep);
        assert!(pinned.is_some());
        // The other polynomial has another value at the pin's point, and so another pin; under this one it isn't opened, said or shown.
        assert_ne!(at(&tables[1], &x), y);
        let lie = |opening: &mut Opening<Native>| opening.evals[1] = OpeningBatch::new(vec![y], vec![]);
        let other = [(z.as_slice(), values[1]), (x.as_slice(), y)];
        assert_eq!(first(&tables[1], &points, &other, &keep), None);
        assert_eq!(first(&tables[1], &points, &other, &lie), None);
        eprintln!("openings tried before one was accepted: {unpinned:?} without the pin, {pinned:?} with it");
    }
}
