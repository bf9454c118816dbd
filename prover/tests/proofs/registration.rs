//! Registrations: an honest one is accepted; an index that somebody made up isn't, whatever their prover does.

use crate::common;
use circuits::evaluate::centred;
use circuits::ir::{F, Group};
use circuits::layout::Layout;
use circuits::registration::{Known, RULES, Registration, RegistrationError, Sample};
use circuits::relation::{Part, Relation, RelationParams, WeightRanges};
use circuits::statement::{Clause, Digest, PROTOCOL_VERSION, Profile, Statement, StatementError};
use circuits::table::TableKind;
use circuits::witness::Witness;
use common::cheat::violated;
use common::registrar::{ROOT, Registrar};
use common::{CONTRIBUTORS, Noise, UNEARNED, golden, samples};
use model_runtime::tensor::TensorMap;
use p3_field::PrimeCharacteristicRing;
use prover::ProveError;
use prover::commit::Committed;
use prover::prove::{Claim, Inputs, Silent, Stages, prove_counted};
use std::sync::OnceLock;
use verifier::VerifyError;
use verifier::profile::Native;
use verifier::registration::{Piece, RefusedRegistration, verify, verify_form, verify_rows};

/// Rows in two chunks, one of which is padded; the row that doesn't earn is in neither.
fn chunks() -> Vec<Vec<usize>> {
    let rows = |parity: usize| (0..samples().len()).filter(|&row| row != UNEARNED && row % 2 == parity).collect();
    vec![rows(0), rows(1)]
}

/// An honest registration with its proofs.
struct Made {
    registrar: Registrar,
    forms: Vec<Vec<u8>>,
    chunks: Vec<Vec<u8>>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let registrar = Registrar::honest();
        let forms = Part::ALL.map(|part| registrar.form(part, &registrar)).to_vec();
        let chunks = chunks().iter().map(|rows| registrar.chunk(rows, &registrar.honest_traces(rows), &registrar)).collect();
        Made { registrar, forms, chunks }
    })
}

impl Made {
    fn proof(&self, piece: Piece) -> Vec<u8> {
        match piece {
            Piece::Form(part) => self.forms[part as usize].clone(),
            Piece::Rows(chunk) => self.chunks[chunk].clone(),
        }
    }

    /// Why it is refused in other chunks, or with another proof for one.
    fn refused(&self, chunks: &[Vec<usize>], wrong: Option<(Piece, &[u8])>) -> RefusedRegistration {
        let mut proof = |piece| wrong.filter(|(at, _)| *at == piece).map_or_else(|| self.proof(piece), |(_, bytes)| bytes.to_vec());
        verify(&self.registrar.registration, chunks, &mut proof, &mut |_, _| ()).unwrap_err()
    }
}

#[test]
fn an_honest_registration_is_accepted() {
    let made = made();
    let mut seen = vec![];
    let accepted =
        verify(&made.registrar.registration, &chunks(), &mut |piece| made.proof(piece), &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(accepted.known.registration, made.registrar.registration.digest());
    assert!(accepted.security_bits >= 100.0);
    assert_eq!(seen, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    // The witnesses violate nothing, on the integers.
    let r = &made.registrar;
    for rows in chunks() {
        let relation = r.registration.rows(&rows).unwrap();
        assert_eq!(violated(&relation, &r.witness(&relation, &r.honest_traces(&rows), &rows)), None);
    }
}

/// What is missing is named, before anything is verified where that can be.
#[test]
fn every_row_that_earns_is_proven_and_every_part_is_well_formed() {
    let made = made();
    let [even, odd] = [0, 1].map(|i| chunks()[i].clone());
    let refused = |chunks: &[Vec<usize>]| match made.refused(chunks, None) {
        RefusedRegistration::Registration(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(refused(std::slice::from_ref(&even)), RegistrationError::Unproven { row: 1 });
    assert!(matches!(refused(&[even.clone(), odd.clone(), vec![2]]), RegistrationError::Chunk { first: Some(2), .. }));
    // A chunk with another's proof; other rows, a row that doesn't earn, out of order, twice, none, beyond the last.
    let found = made.refused(&chunks(), Some((Piece::Rows(1), &made.chunks[0])));
    assert!(matches!(found, RefusedRegistration::Rows { rows, .. } if rows == odd));
    let (registration, digest) = (&made.registrar.registration, made.registrar.registration.digest());
    for rows in [vec![0, 1], vec![0, UNEARNED], vec![2, 0], vec![0, 0], vec![], vec![samples().len()]] {
        match verify_rows(registration, &digest, &rows, &made.chunks[0]).unwrap_err() {
            RefusedRegistration::Rows { .. } => assert_eq!(rows, [0, 1]),
            RefusedRegistration::Registration(RegistrationError::Chunk { .. }) => assert_ne!(rows, [0, 1]),
            other => panic!("{other}"),
        }
    }
    for (i, expected) in Part::ALL.into_iter().enumerate() {
        for other in [&[][..], &made.forms[(i + 1) % 3], &made.chunks[0]] {
            let found = made.refused(&chunks(), Some((Piece::Form(expected), other)));
            assert!(matches!(found, RefusedRegistration::Form { part, .. } if part == expected));
        }
    }
}

/// Proofs of one registration are no proofs of another, whatever it has changed.
#[test]
fn proofs_are_of_one_registration() {
    let made = made();
    let changes: [fn(&mut Registration); 16] = [
        |r| r.adapter.0[9] ^= 1,
        |r| r.beacon = Some(ROOT),
        |r| r.max_tokens -= 1,
        |r| r.split = true,
        |r| r.profile = Profile::Evm,
        |r| r.samples[0].tokens[1] ^= 1,
        |r| r.samples[0].contributor = (r.samples[0].contributor + 1) % CONTRIBUTORS as u32,
        |r| r.samples[UNEARNED].tokens.push(1),
        |r| r.samples[UNEARNED].earns = true,
        |r| r.samples.swap(0, 2),
        |r| r.contributors[1].push('x'),
        |r| r.datanet_root.0[5] ^= 1,
        |r| r.datanet_version += 1,
        |r| r.index.0[9] ^= 1,
        |r| r.base.0[9] ^= 1,
        |r| *r.semantics.consts.get_mut("theta").unwrap() += 1,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut other = made.registrar.registration.clone();
        change(&mut other);
        assert_ne!(other.digest(), made.registrar.registration.digest(), "{i}");
        assert!(verify_rows(&other, &other.digest(), &chunks()[0], &made.chunks[0]).is_err(), "{i}");
        assert!(verify_form(&other, &other.digest(), Part::Index, &made.forms[2]).is_err(), "{i}");
    }
    let version = Registration { version: PROTOCOL_VERSION + 1, ..made.registrar.registration.clone() };
    assert!(matches!(version.check(), Err(RegistrationError::Version { .. })));
    let evm = Registration { profile: Profile::Evm, ..made.registrar.registration.clone() };
    assert_eq!(evm.check(), Err(RegistrationError::Profile));
    // Of base and adapter, proofs of form are anybody's.
    let other = Registration { datanet_version: 9, ..made.registrar.registration.clone() };
    assert!(verify_form(&other, &other.digest(), Part::Base, &made.forms[0]).is_ok());
    assert!(verify_form(&other, &other.digest(), Part::Adapter, &made.forms[1]).is_ok());
}

/// A row that is another sample's sketch in one site, nothing, or off by one.
#[test]
fn a_row_that_isnt_its_samples_sketch_is_refused() {
    type Lie = fn(&mut [i32], &[i32]);
    let lies: [Lie; 3] = [|own, other| own.copy_from_slice(other), |own, _| own.fill(0), |own, _| own[0] += 1];
    let rows = &chunks()[0];
    for (i, lie) in lies.into_iter().enumerate() {
        let liar = Registrar::with(|index, _| {
            let other = row(index, "Gup", 2).to_vec();
            lie(row(index, "Gup", 0), &other);
        });
        let relation = liar.registration.rows(rows).unwrap();
        let traces = liar.honest_traces(rows);
        assert_eq!(violated(&relation, &liar.witness(&relation, &traces, rows)).as_deref(), Some("Gup is the samples' sketch"), "{i}");
        let bytes = liar.chunk(rows, &traces, &made().registrar);
        assert_eq!(liar.check_rows(rows, &bytes), Err(VerifyError::Constraints), "{i}");
    }
    // The whole row of another sample, with that sample's run: the tokens aren't the leaf's.
    let liar = Registrar::with(|index, _| {
        for site in ["Ggate", "Gup"] {
            let other = row(index, site, 2).to_vec();
            row(index, site, 0).copy_from_slice(&other);
        }
    });
    let traces = liar.traces(rows, |row| if row == 0 { 2 } else { row }, &liar.full.model.tensors);
    let bytes = liar.chunk(rows, &traces, &made().registrar);
    assert_eq!(liar.check_rows(rows, &bytes), Err(VerifyError::Constraints));
}

/// Rows of another base, with runs of that base.
#[test]
fn rows_of_another_model_are_refused() {
    let r = &made().registrar;
    let mut base = r.full.model.tensors.clone();
    base.get_mut("wup").unwrap().data[3] += 1;
    let rows = &chunks()[1];
    let traces = r.traces(rows, |row| row, &base);
    let bytes = r.chunk(rows, &traces, r);
    assert_eq!(r.check_rows(rows, &bytes), Err(VerifyError::Constraints));
}

/// Whether a witness breaks the lookup of that name, or this constraint before any other.
fn breaks(relation: &Relation, witness: &Witness, name: &str) -> bool {
    match relation.lookups.iter().find(|l| l.name == name) {
        Some(lookup) => witness.check_lookup(relation, lookup).is_err(),
        None => violated(relation, witness).as_deref() == Some(name),
    }
}

fn row<'a>(index: &'a mut TensorMap, site: &str, row: usize) -> &'a mut [i32] {
    let tensor = index.get_mut(site).unwrap();
    let len = tensor.data.len() / tensor.dims[0];
    &mut tensor.data[row * len..(row + 1) * len]
}

/// The index by itself: whose a row is, which rows are zero, how long they are, what an entry can be.
#[test]
fn an_index_that_isnt_well_formed_is_refused() {
    type Lie = fn(&mut TensorMap, &mut Vec<Sample>);
    let lies: [(&str, Lie); 6] = [
        ("contributors are the stated ones", |index, _| index.get_mut("contributor").unwrap().data[4] += 1),
        // In a row past the last, where nobody looks.
        ("contributors are the stated ones", |index, _| index.get_mut("contributor").unwrap().data[12] = 1),
        // A row that no chunk proves, with everything else as it should be.
        ("Ggate is zero in rows that nobody proves", |_, samples| samples[3].earns = false),
        ("Ggate is zero in rows that don't earn", |index, _| index.get_mut("G.live").unwrap().data[3] = 0),
        ("index rows have their length", |index, _| row(index, "Gup", 2).iter_mut().for_each(|x| *x /= 2)),
        ("Gup in range", |index, _| row(index, "Gup", 2)[1] = 1 << 14),
    ];
    for (expected, lie) in lies {
        let liar = Registrar::with(lie);
        let relation = liar.registration.form(Part::Index).unwrap();
        let witness = liar.witness(&relation, &[], &[]);
        assert!(breaks(&relation, &witness, expected), "{expected}");
        let bytes = liar.form(Part::Index, &made().registrar);
        assert_eq!(liar.check_form(Part::Index, &bytes), Err(VerifyError::Constraints), "{expected}");
    }
}

/// Base and adapter: an entry beyond its range, one in the padding.
#[test]
fn weights_out_of_range_are_refused() {
    let lies = [
        (Part::Base, "wup", 5, 1 << 15, "wup in range"),
        (Part::Base, "wup", 15, 1, "wup is zero in the padding of d"),
        (Part::Adapter, "agate", 0, 1 << 15, "agate in range"),
    ];
    for (part, name, at, value, expected) in lies {
        let mut r = Registrar::honest();
        let tensors = if part == Part::Base { &mut r.full.model.tensors } else { &mut r.full.adapter.tensors };
        tensors.get_mut(name).unwrap().data[at] = value;
        let liar = Registrar::new(r.full, r.index, r.registration.samples);
        let relation = liar.registration.form(part).unwrap();
        let witness = liar.witness(&relation, &[], &[]);
        assert!(breaks(&relation, &witness, expected), "{expected}");
        let bytes = liar.form(part, &made().registrar);
        assert_eq!(liar.check_form(part, &bytes), Err(VerifyError::Constraints), "{name} {at}");
    }
}

/// Where a sample needn't be greedy, its gradient is still that of its own tokens: the best of the others is attained, and the target has no weight.
#[test]
fn a_samples_gradient_is_its_own() {
    let r = &made().registrar;
    let rows = &chunks()[0];
    let relation = r.registration.rows(rows).unwrap();
    assert!(relation.tensor("out.margin").is_none() && relation.tensor("out.tie").is_none());
    let honest = r.witness(&relation, &r.honest_traces(rows), rows);
    let target = r.registration.samples[rows[0]].tokens[1] as usize;
    let tensor = |name: &str| relation.tensor(name).unwrap().0;
    let (max, weight, flag) = (tensor("out.max"), tensor("out.w"), tensor("out.flag"));
    type Cheat<'a> = (&'a str, Box<dyn Fn(&mut Witness)>);
    // The maximum of the first slot, one too large and nowhere attained: weights and flags as the table has them for gaps that are larger by one.
    let one_too_large = |flag_at_target: bool| {
        let (relation, kind) = (relation.clone(), output_table(&relation));
        move |w: &mut Witness| {
            w.tensors[max][0] += 1;
            let lookup = relation.lookups.iter().find(|l| l.name == "output weights").unwrap();
            let columns = kind.columns();
            let read = w.lookup_values(&relation, lookup);
            let numerator = read.numerator.unwrap();
            let width = 1usize << relation.axes[lookup.free[2].0].log;
            for (v, &counted) in numerator.iter().enumerate().take(width) {
                let row = kind.row(centred(read.tuple[0][v])).filter(|_| counted != F::ZERO);
                w.tensors[weight][v] = row.map_or(0, |row| columns[0][row] as i32);
                w.tensors[flag][v] = row.map_or(0, |row| columns[1][row] as i32);
            }
            w.tensors[flag][target] = i32::from(flag_at_target);
        }
    };
    let cheats: [Cheat<'_>; 6] = [
        ("output maximum is attained", Box::new(one_too_large(false))),
        ("output maximum is attained", Box::new(one_too_large(true))),
        ("dead outputs and the target have no weight", Box::new(move |w| w.tensors[weight][target] = 5)),
        ("output weights", Box::new(move |w| w.tensors[max][0] += 1)),
        ("output weights", Box::new(move |w| w.tensors[max][0] -= 1)),
        // A flag at the target attains nothing.
        (
            "output weights",
            Box::new(move |w| {
                let attained = w.tensors[flag].iter().position(|&x| x == 1).unwrap();
                w.tensors[flag].swap(target, attained);
            }),
        ),
    ];
    for (expected, cheat) in cheats {
        let mut witness = honest.clone();
        cheat(&mut witness);
        assert!(breaks(&relation, &witness, expected), "{expected}");
        let seed = r.registration.rows_seed(&r.registration.digest(), rows);
        let bytes = r.prove(&relation, &witness, &honest, seed);
        assert_eq!(r.check_rows(rows, &bytes), Err(VerifyError::Constraints), "{expected}");
    }
}

fn output_table(relation: &Relation) -> TableKind {
    let lookup = relation.lookups.iter().find(|l| l.name == "output weights").unwrap();
    relation.tables[lookup.table.0].0.clone()
}

/// Who relies on a registration names one that the verifier has accepted, by these rules, of the same index; keys and benchmarks don't.
#[test]
fn a_statement_relies_on_an_accepted_registration_only() {
    let r = &made().registrar;
    let registered = RelationParams { weight_ranges: WeightRanges::Registered, ..r.full.relation.params.clone() };
    let witness = r.full.witness();
    let mut statement = r.full.statement(&witness, &r.full.commit::<Native>(&witness));
    statement.relation = registered;
    let digest = r.registration.digest();
    statement.registration = Some(digest);
    let index = statement.index.clone().unwrap();
    let known = Known { rules: RULES, registration: digest, index, beacon: None, datanet_compared: false };
    statement.check_given(std::slice::from_ref(&known)).unwrap();
    let mut other_index = known.index.clone();
    other_index.contributors.swap(0, 1);
    let wrong = [
        Known { rules: RULES - 1, ..known.clone() },
        Known { registration: Digest([1; 32]), ..known.clone() },
        Known { index: other_index, ..known.clone() },
    ];
    let clause = |result: Result<Relation, StatementError>| match result {
        Err(StatementError::Clause { clause, .. }) => Some(clause),
        _ => None,
    };
    for wrong in &wrong {
        assert_eq!(clause(statement.check_given(std::slice::from_ref(wrong))), Some(Clause::Registration));
    }
    // What else a verifier has accepted doesn't matter.
    statement.check_given(&[&wrong[..], std::slice::from_ref(&known)].concat()).unwrap();
    assert_eq!(clause(statement.check()), Some(Clause::Registration));
    assert_eq!(clause(statement.check_benchmark()), Some(Clause::Registration));
    let unnamed = Statement { registration: None, ..statement.clone() };
    assert_eq!(clause(unnamed.check_given(std::slice::from_ref(&known))), Some(Clause::Registration));
    let evm = Statement { profile: Profile::Evm, ..statement };
    assert_eq!(clause(evm.check_given(&[known])), Some(Clause::Ranges));
}

/// Commitments of another relation's sizes, or none, are refused by name before anything is proven of them.
#[test]
fn commitments_must_be_the_relations() {
    let r = &made().registrar;
    let relation = r.registration.form(Part::Adapter).unwrap();
    let log = Layout::of(&relation, Group::Adapter).unwrap().log;
    let elsewhere = Committed::<Native>::new(Group::Adapter, Layout { slots: vec![], log }, vec![F::ZERO; 1 << log]).unwrap();
    let missing = || ProveError::NotCommitted(Group::Adapter);
    for (fixed, expected) in [(vec![&r.fixed[0]], missing()), (vec![], missing()), (vec![&elsewhere], ProveError::Layout(Group::Adapter))] {
        let mut witness = r.witness(&relation, &[], &[]);
        let values = witness.count_leniently(&relation);
        let inputs = Inputs { claim: Claim { seed: ROOT, weights: vec![] }, relation: &relation, tokens: vec![], fixed };
        let error = prove_counted(inputs, witness, values, &mut Stages::new(&mut Silent)).map(|_| ()).unwrap_err();
        assert_eq!(error, expected);
    }
}

/// A registration is refused for what can be seen without a proof.
#[test]
fn samples_that_cant_be_are_refused() {
    let honest = &made().registrar.registration;
    type Change = fn(&mut Registration);
    let changes: [(Change, usize); 5] = [
        (|r| r.samples[3].tokens.truncate(1), 3),
        (|r| r.samples[3].tokens.resize(17, 1), 3),
        (|r| r.samples[3].tokens[0] = 30, 3),
        (|r| r.samples[3].contributor = CONTRIBUTORS as u32, 3),
        // One text that would earn twice.
        (|r| r.samples[5].tokens = r.samples[3].tokens.clone(), 5),
    ];
    for (change, row) in changes {
        let mut other = honest.clone();
        change(&mut other);
        assert!(matches!(other.check(), Err(RegistrationError::Sample { row: found, .. }) if found == row));
    }
    let mut other = honest.clone();
    other.contributors[0] = other.contributors[1].clone();
    assert_eq!(other.check(), Err(RegistrationError::Names));
    // A projection of somebody's choice.
    let other = Registration { beacon: Some(Digest([4; 32])), ..honest.clone() };
    assert_eq!(other.check(), Err(RegistrationError::Seed { beacon: true }));
    let other = Registration { datanet_root: Digest([4; 32]), ..honest.clone() };
    assert_eq!(other.check(), Err(RegistrationError::Seed { beacon: false }));
}

/// Bytes of every kind of proof with a bit flipped, cut, longer, or gone: refused with a reason, never a panic.
#[test]
fn damaged_proofs_are_refused() {
    let made = made();
    let registration = &made.registrar.registration;
    let digest = registration.digest();
    let mut noise = Noise(11);
    let mut mutants = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let mut at = |len: usize| ((noise.next() + 1.0) / 2.0 * len as f32) as usize % len;
        let mut out = vec![vec![], bytes[..bytes.len() / 2].to_vec(), [bytes, &[0]].concat()];
        for _ in 0..40 {
            let mut mutant = bytes.to_vec();
            let byte = at(mutant.len());
            mutant[byte] ^= 1 << at(8);
            out.push(mutant);
        }
        out
    };
    for mutant in mutants(&made.chunks[0]) {
        assert!(verify_rows(registration, &digest, &chunks()[0], &mutant).is_err());
    }
    for (part, bytes) in Part::ALL.into_iter().zip(&made.forms) {
        for mutant in mutants(bytes) {
            assert!(verify_form(registration, &digest, part, &mutant).is_err());
        }
    }
}

/// A registration's commitments are those that requests open: one pin for all.
#[test]
fn pins_are_those_of_requests() {
    let r = &made().registrar;
    let witness = r.full.witness();
    let pins: Vec<Digest> = r.full.commit::<Native>(&witness).iter().map(Committed::digest).collect();
    assert_eq!(pins, [r.registration.base, r.registration.adapter, r.registration.index]);
}

#[test]
fn golden_values() {
    let registration = &made().registrar.registration;
    let form = |part: Part| format!("{part:?}\n{}", golden::counts(&registration.form(part).unwrap()));
    let rows = format!("Rows\n{}", golden::counts(&registration.rows(&chunks()[0]).unwrap()));
    golden::check("registration.txt", &[Part::ALL.map(form).concat(), rows].concat());
}
