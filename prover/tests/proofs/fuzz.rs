//! Robustness: mutants of real proofs never verify and never panic. A mutant equal to its original isn't counted.

use crate::common;
use circuits::ir::{EF, F};
use circuits::statement::TokenOpening;
use common::mutate::{Random, fixture, refused};
use p3_field::PrimeCharacteristicRing;
use p3_sumcheck::OpeningBatch;
use p3_whir::pcs::proof::{QueryOpenings, SumcheckData};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use verifier::pcs::{Commitment, Opening};
use verifier::profile::Native;
use verifier::{Proof, verify, verify_bytes};

/// Mutants that mostly fail to decode.
const SHALLOW: usize = 100_000;
/// Mutants that mostly decode.
const DEEP: usize = 3_000;

/// Changes lengths and structure.
fn break_structure(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = random.below(out.len());
    let len = 1 + random.below(64);
    let end = (at + len).min(out.len());
    match random.below(7) {
        0 => out.truncate(at),
        1 => out.insert(at, random.next() as u8),
        2 => drop(out.drain(at..end)),
        3 => {
            let chunk = out[at..end].to_vec();
            drop(out.splice(at..at, chunk));
        }
        4 => out.extend((0..len).map(|_| random.next() as u8)),
        5 => out[at..end].iter_mut().for_each(|b| *b |= 0x80),
        _ => {
            let header = random.below(64);
            out[header] = random.next() as u8;
            out.truncate(bytes.len() - random.below(3));
        }
    }
    out
}

/// Keeps most of the structure.
fn change_bytes(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = random.below(out.len());
    match random.below(4) {
        0 | 1 => out[at] ^= 1 << random.below(7),
        2 => out[at] = (random.next() & 0x7f) as u8,
        _ => {
            let other = random.below(out.len());
            out.swap(at, other);
        }
    }
    out
}

fn bulk(count: usize, seed: u64, mutate: fn(&[u8], &mut Random) -> Vec<u8>) {
    let (statement, bytes) = (&fixture().statement, &fixture().bytes);
    let decoded = AtomicUsize::new(0);
    (0..count as u64).into_par_iter().for_each(|i| {
        let mut random = Random((seed << 32) + i);
        let mut mutant = mutate(bytes, &mut random);
        while mutant == *bytes {
            mutant = mutate(bytes, &mut random);
        }
        refused(&format!("seed {seed}, mutant {i}"), || {
            let proof = Proof::<Native>::from_bytes(&mutant);
            proof.is_ok_and(|proof| {
                decoded.fetch_add(1, Ordering::Relaxed);
                verify(statement, &proof).is_ok()
            })
        });
    });
    eprintln!("{count} mutants refused, {} of them after decoding", decoded.into_inner());
}

#[test]
fn structural_mutants_of_the_bytes() {
    bulk(SHALLOW, 1, break_structure);
}

#[test]
fn value_mutants_of_the_bytes() {
    bulk(DEEP, 2, change_bytes);
}

#[test]
fn random_bytes() {
    let statement = &fixture().statement;
    (0..20_000u64).into_par_iter().for_each(|i| {
        let mut random = Random((3 << 40) | i);
        let mut bytes: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
        if random.below(2) == 0 {
            bytes.splice(0..0, [b'p', b'o', b'a', 1, random.below(2) as u8]);
        }
        refused("random bytes", || verify_bytes(statement, &bytes).is_ok());
    });
}

/// A change of a decoded proof, with a description.
type Change = (String, Box<dyn Fn(&mut Proof<Native>) + Send + Sync>);

fn change(out: &mut Vec<Change>, what: impl Into<String>, f: impl Fn(&mut Proof<Native>) + Send + Sync + 'static) {
    out.push((what.into(), Box::new(f)));
}

/// A change to a list.
type Edit<T> = fn(&mut Vec<T>);

/// Changes entries of a list, and its length and order.
fn list<T: Clone + 'static>(
    out: &mut Vec<Change>,
    what: &str,
    get: impl for<'a> Fn(&'a mut Proof<Native>) -> &'a mut Vec<T> + Clone + Send + Sync + 'static,
    one: fn(&mut T),
) {
    let len = get(&mut decoded()).len();
    for at in [0, 1, len / 2, len.saturating_sub(1)].into_iter().filter(|&at| at < len) {
        let get = get.clone();
        change(out, format!("{what}[{at}]"), move |p| one(&mut get(p)[at]));
    }
    let edits: [(&str, Edit<T>); 5] = [
        ("cleared", Vec::clear),
        ("popped", |v| drop(v.pop())),
        ("extended", |v| v.extend(v.last().cloned())),
        ("reversed", |v| v.reverse()),
        ("first removed", |v| drop(v.drain(..1.min(v.len())))),
    ];
    for (how, edit) in edits {
        let get = get.clone();
        change(out, format!("{what} {how}"), move |p| edit(get(p)));
    }
}

fn decoded() -> Proof<Native> {
    Proof::from_bytes(&fixture().bytes).unwrap()
}

fn bump(x: &mut EF) {
    *x += EF::ONE;
}

fn bump_base(x: &mut F) {
    *x += F::ONE;
}

fn with_roots(root: &Commitment<Native>, change: impl Fn(&mut Vec<[F; 8]>)) -> Commitment<Native> {
    let mut roots = root.roots().to_vec();
    change(&mut roots);
    Commitment::<Native>::new(roots)
}

fn argument_changes(out: &mut Vec<Change>) {
    change(out, "an opening of public tokens", |p| p.tokens[0] = Some(TokenOpening::public(&[1, 5, 9, 2], 3)));
    change(out, "trace root", |p| p.trace = with_roots(&p.trace, |r| r[0][5] += F::ONE));
    change(out, "trace root twice", |p| p.trace = with_roots(&p.trace, |r| r.push(r[0])));
    change(out, "pinned root twice", |p| p.pinned[1].root = with_roots(&p.pinned[1].root, |r| r.push(r[0])));
    change(out, "pinned roots exchanged", |p| {
        let base = p.pinned[0].root.clone();
        p.pinned[0].root = std::mem::replace(&mut p.pinned[1].root, base);
    });
    (0..3).for_each(|g| {
        change(out, format!("pinned root {g}"), move |p| p.pinned[g].root = with_roots(&p.pinned[g].root, |r| r[0][5] += F::ONE));
        change(out, format!("pinned value {g}"), move |p| bump(&mut p.pinned[g].value));
    });
    change(out, "a pinned commitment fewer", |p| drop(p.pinned.pop()));
    change(out, "pinned commitments reversed", |p| p.pinned.reverse());
    change(out, "root denominator", |p| bump(&mut p.lookups.root_denominator));
    change(out, "root denominator zero", |p| p.lookups.root_denominator = EF::ZERO);
    list(out, "tokens", |p| &mut p.tokens, |t| *t = Some(TokenOpening::public(&[], 0)));
    list(out, "layers", |p| &mut p.lookups.layers, |l| bump(&mut l.claims.n1));
    for layer in 1..decoded().lookups.layers.len() {
        list(out, "round_polys", move |p| &mut p.lookups.layers[layer].round_polys, |m| bump(&mut m[2]));
    }
    list(out, "sum_rounds", |p| &mut p.sum_rounds, |m| bump(&mut m[1]));
    list(out, "evaluations", |p| &mut p.evaluations, bump);
    list(out, "reduction_rounds", |p| &mut p.reduction_rounds, |m| bump(&mut m[1]));
    list(out, "finals", |p| &mut p.finals, bump);
    list(out, "openings", |p| &mut p.openings, |o| bump(&mut o.whir.initial_ood_answers[0]));
}

fn sumcheck(
    out: &mut Vec<Change>,
    what: &str,
    get: impl for<'a> Fn(&'a mut Proof<Native>) -> &'a mut SumcheckData<F, EF> + Clone + Send + Sync + 'static,
) {
    let inner = get.clone();
    list(out, &format!("{what} polynomials"), move |p| &mut inner(p).polynomial_evaluations, |m| bump(&mut m[0]));
    list(out, &format!("{what} grinding"), move |p| &mut get(p).pow_witnesses, bump_base);
}

fn query(
    out: &mut Vec<Change>,
    what: &str,
    get: impl for<'a> Fn(&'a mut Proof<Native>) -> &'a mut QueryOpenings<F, EF, Paths> + Clone + Send + Sync + 'static,
) {
    let is_base = matches!(get(&mut decoded()), QueryOpenings::Base(_));
    let paths = get.clone();
    list(
        out,
        &format!("{what} paths"),
        move |p| match paths(p) {
            QueryOpenings::Base(o) => &mut o.proof.sibling_hashes,
            QueryOpenings::Extension(o) => &mut o.proof.sibling_hashes,
        },
        |d| bump_base(&mut d[0]),
    );
    if is_base {
        let rows = get.clone();
        list(
            out,
            &format!("{what} rows"),
            move |p| match rows(p) {
                QueryOpenings::Base(o) => &mut o.rows,
                QueryOpenings::Extension(_) => unreachable!(),
            },
            |r| bump_base(&mut r[0]),
        );
        change(out, format!("{what} row extended"), move |p| {
            if let QueryOpenings::Base(o) = get(p) {
                o.rows[0].push(F::ZERO)
            }
        });
    } else {
        let rows = get.clone();
        list(
            out,
            &format!("{what} rows"),
            move |p| match rows(p) {
                QueryOpenings::Extension(o) => &mut o.rows,
                QueryOpenings::Base(_) => unreachable!(),
            },
            |r| bump(&mut r[0]),
        );
        change(out, format!("{what} row extended"), move |p| {
            if let QueryOpenings::Extension(o) = get(p) {
                o.rows[0].push(EF::ZERO)
            }
        });
    }
}

type Paths = p3_merkle_tree::PrunedMerklePaths<F, 8>;

fn opening_changes(out: &mut Vec<Change>, g: usize) {
    let proof: &Opening<Native> = &decoded().openings[g];
    let rounds = proof.whir.rounds.len();
    list(out, "initial OOD answers", move |p| &mut p.openings[g].whir.initial_ood_answers, bump);
    sumcheck(out, "initial sumcheck", move |p| &mut p.openings[g].whir.initial_sumcheck);
    list(out, "rounds", move |p| &mut p.openings[g].whir.rounds, |r| r.commitment = None);
    for round in 0..rounds {
        list(out, "OOD answers", move |p| &mut p.openings[g].whir.rounds[round].ood_answers, bump);
        change(out, format!("grinding of round {round}"), move |p| bump_base(&mut p.openings[g].whir.rounds[round].pow_witness));
        sumcheck(out, "round sumcheck", move |p| &mut p.openings[g].whir.rounds[round].sumcheck);
        query(out, "round", move |p| &mut p.openings[g].whir.rounds[round].openings);
    }
    query(out, "final", move |p| &mut p.openings[g].whir.final_openings);
    change(out, "final grinding", move |p| bump_base(&mut p.openings[g].whir.final_pow_witness));
    change(out, "no final polynomial", move |p| p.openings[g].whir.final_poly = None);
    change(out, "no final sumcheck", move |p| p.openings[g].whir.final_sumcheck = None);
    change(out, "a final sumcheck", move |p| p.openings[g].whir.final_sumcheck = Some(p.openings[g].whir.initial_sumcheck.clone()));
    for (n, what) in [(0, "empty"), (1, "short"), (3, "odd"), (1 << 12, "long")] {
        change(out, format!("{what} final polynomial"), move |p| {
            let json = serde_json::to_value((vec![EF::ONE; n], ())).unwrap();
            p.openings[g].whir.final_poly = serde_json::from_value(json).ok().or(p.openings[g].whir.final_poly.clone());
        });
    }
    list(out, "evals", move |p| &mut p.openings[g].evals, |b| *b = OpeningBatch::new(vec![EF::ONE], vec![]));
    change(out, "a next value", move |p| {
        let current = p.openings[g].evals[0].current().to_vec();
        p.openings[g].evals[0] = OpeningBatch::new(current, vec![EF::ONE]);
    });
    change(out, "no value", move |p| {
        let empty = serde_json::json!({ "current": [], "next": [] });
        p.openings[g].evals[0] = serde_json::from_value(empty).unwrap();
    });
}

#[test]
fn commitments_without_roots_dont_decode() {
    let commitment = serde_json::to_value(&decoded().trace).unwrap();
    assert!(serde_json::from_value::<Commitment<Native>>(commitment.clone()).is_ok());
    let mut empty = commitment;
    empty.as_object_mut().unwrap()["cap"] = serde_json::json!([]);
    assert!(serde_json::from_value::<Commitment<Native>>(empty).is_err());
}

#[test]
fn structured_mutants() {
    let mut changes = Vec::new();
    argument_changes(&mut changes);
    (0..decoded().openings.len()).for_each(|g| opening_changes(&mut changes, g));
    let counted: usize = changes
        .par_iter()
        .map(|(what, change)| {
            let mut proof = decoded();
            change(&mut proof);
            if proof.to_bytes() == fixture().bytes {
                return 0;
            }
            refused(what, || verify(&fixture().statement, &proof).is_ok());
            1
        })
        .sum();
    eprintln!("{counted} of {} structured mutants differ; all refused", changes.len());
    assert!(counted > 400, "{counted}");
}

#[test]
fn openings_of_other_groups_dont_fit() {
    let n = decoded().openings.len();
    for (a, b) in (0..n).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let mut proof = decoded();
        proof.openings.swap(a, b);
        refused("swapped openings", || verify(&fixture().statement, &proof).is_ok());
        let mut proof = decoded();
        proof.finals.swap(a, b);
        refused("swapped finals", || verify(&fixture().statement, &proof).is_ok());
    }
}
