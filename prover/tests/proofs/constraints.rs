//! Every constraint and every lookup fails on some witness: one entry of a tensor it reads is overwritten.

use crate::common;
use circuits::relation::Relation;
use circuits::witness::{Witness, WitnessError};
use common::cheat::tensors_of;
use common::{Full, full};
use model_runtime::shape::Site;
use rayon::prelude::*;
use std::sync::OnceLock;

fn fixture() -> &'static (Full, Witness) {
    static FIXTURE: OnceLock<(Full, Witness)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let full = full(3, 1, &Site::ALL);
        let witness = full.witness();
        (full, witness)
    })
}

/// The first overwritten entry that makes `check` fail.
fn breaks(
    relation: &Relation,
    honest: &Witness,
    tensors: &[usize],
    check: impl Fn(&Witness) -> Result<(), WitnessError>,
) -> Option<(Witness, WitnessError)> {
    let multiplicities: Vec<usize> = relation.tables.iter().map(|(_, m)| m.0).collect();
    let mut cheat = honest.clone();
    for &tensor in tensors.iter().filter(|t| !multiplicities.contains(t)) {
        let len = honest.tensors[tensor].len();
        let live = honest.tensors[tensor].iter().position(|&x| x != 0).unwrap_or(0);
        // Position 1 is the first that causality forbids, the last one is in the padding.
        // The largest entries are among what an answer's slots read of the output weights.
        let largest = honest.tensors[tensor].iter().max();
        let peaks = (0..len).filter(|&at| honest.tensors[tensor].get(at) == largest).take(16);
        for at in [live, 0, 1, len - 1, len / 2].into_iter().filter(|&at| at < len).chain(peaks) {
            for step in [1, 1 << 17] {
                cheat.tensors[tensor][at] = honest.tensors[tensor][at] + step;
                if let Err(error) = check(&cheat) {
                    return Some((cheat, error));
                }
                cheat.tensors[tensor][at] = honest.tensors[tensor][at];
            }
        }
    }
    None
}

fn named(error: &WitnessError) -> &str {
    match error {
        WitnessError::Violated { name, .. } => name,
        other => panic!("{other}"),
    }
}

#[test]
fn every_constraint_fails_somewhere() {
    let (full, honest) = fixture();
    let relation = &full.relation;
    honest.check(relation).unwrap();
    relation.constraints.par_iter().for_each(|constraint| {
        let tensors = tensors_of(std::iter::once(&constraint.sum));
        let found = breaks(relation, honest, &tensors, |w| w.check_constraint(relation, constraint));
        let (cheat, error) = found.unwrap_or_else(|| panic!("nothing breaks `{}`", constraint.name));
        assert_eq!(named(&error), constraint.name);
        assert!(cheat.check(relation).is_err());
    });
    eprintln!("{} constraints", relation.constraints.len());
}

#[test]
fn every_lookup_fails_somewhere() {
    let (full, honest) = fixture();
    let relation = &full.relation;
    relation.lookups.par_iter().enumerate().for_each(|(i, lookup)| {
        let tensors = tensors_of(lookup.tuple.iter());
        let found = breaks(relation, honest, &tensors, |w| w.check_lookup(relation, lookup));
        let (cheat, error) = found.unwrap_or_else(|| panic!("nothing breaks `{}`", lookup.name));
        assert_eq!(named(&error), lookup.name);
        // The whole checker runs the same checks; a tenth of them is enough to see that.
        assert!(i % 10 != 0 || cheat.check(relation).is_err());
    });
    eprintln!("{} lookups", relation.lookups.len());
}

/// Every column of every tuple matters, the outputs as much as what is looked up.
#[test]
fn every_column_of_every_lookup_matters() {
    let (full, honest) = fixture();
    let relation = &full.relation;
    relation.lookups.par_iter().filter(|l| l.tuple.len() > 1).for_each(|lookup| {
        for (k, column) in lookup.tuple.iter().enumerate() {
            let others: Vec<usize> = tensors_of(lookup.tuple.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, s)| s));
            let own: Vec<usize> = tensors_of(std::iter::once(column)).into_iter().filter(|t| !others.contains(t)).collect();
            if !own.is_empty() {
                let found = breaks(relation, honest, &own, |w| w.check_lookup(relation, lookup));
                assert!(found.is_some(), "column {k} of `{}`", lookup.name);
            }
        }
    });
}

/// With `e = 7`, `f + p/2^7` has 24 bits and the same `f·2^e + frem` modulo `p`: only the check against wrapping around tells them apart.
#[test]
fn a_factor_that_wraps_around_is_refused() {
    use circuits::evaluate::evaluate;
    use p3_field::PrimeCharacteristicRing;
    const FIELD: i64 = (1 << 31) - (1 << 24) + 1;
    let (full, honest) = fixture();
    let relation = &full.relation;
    let mut cheat = honest.clone();
    let (e, g) = (7, 5000i64);
    let (f, frem) = ((g + FIELD) >> e, (g + FIELD) & 127);
    for (part, value) in [("p2", 1 << e), ("g", g), ("frem", frem), ("f0", f & 0xfff), ("f1", f >> 12)] {
        cheat.tensors[relation.tensor(&format!("att.{part}")).unwrap().0][0] = value as i32;
    }
    let shifted = relation.constraints.iter().find(|c| c.name == "att factor is shifted").unwrap();
    assert_eq!(evaluate(relation, &cheat.ctx, &cheat, &shifted.sum)[0], circuits::ir::F::ZERO);
    let lookup = |name: &str| cheat.check_lookup(relation, relation.lookups.iter().find(|l| l.name == name).unwrap());
    for name in ["att.f0 in range", "att.f1 in range", "att.frem in range", "att.frem below att.p2"] {
        lookup(name).unwrap();
    }
    assert_eq!(named(&lookup("att factor doesn't wrap").unwrap_err()), "att factor doesn't wrap");
}
