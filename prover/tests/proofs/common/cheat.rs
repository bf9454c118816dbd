//! Cheating provers: proofs of witnesses that violate the relation, or of other commitments than the statement's.

use super::Full;
use circuits::ir::Source;
use circuits::relation::Relation;
use circuits::statement::Statement;
use circuits::witness::{LookupValues, Witness, WitnessError};
use prover::ProveError;
use prover::commit::Committed;
use prover::prove::{Inputs, Silent, Stages, prove_counted};
use verifier::VerifyError;
use verifier::profile::Native;

/// How an attempt ends.
#[derive(Debug)]
pub enum Outcome {
    /// No proof: the fraction table doesn't sum to zero, on which fractional GKR's prover insists.
    NoProof,
    /// A proof that the verifier refuses.
    Refused(VerifyError),
    /// A proof that the verifier accepts: a bug.
    Accepted,
}

/// The name of the first violated constraint or lookup.
pub fn violated(relation: &Relation, witness: &Witness) -> Option<String> {
    match witness.check(relation) {
        Err(WitnessError::Violated { name, .. }) => Some(name),
        Err(other) => panic!("{other}"),
        Ok(()) => None,
    }
}

/// Proves and verifies, whatever the witness.
pub fn attempt(full: &Full, statement: &Statement, fixed: &[Committed<Native>], witness: Witness, values: Vec<LookupValues>) -> Outcome {
    let tokens = vec![None; statement.requests.len()];
    let inputs = Inputs { claim: statement.into(), relation: &full.relation, tokens, fixed: fixed.iter().collect() };
    match prove_counted(inputs, witness, values, &mut Stages::new(&mut Silent)) {
        Err(ProveError::Unbalanced) => Outcome::NoProof,
        Err(error) => panic!("{error}"),
        Ok(proof) => match verifier::verify(statement, &proof) {
            Ok(_) => Outcome::Accepted,
            Err(error) => Outcome::Refused(error),
        },
    }
}

/// Commits a cheating witness' long-lived groups, but shows the honest roots and the values behind their pins.
pub fn behind_honest_roots(full: &Full, honest: &[Committed<Native>], witness: &Witness) -> Vec<Committed<Native>> {
    let mut fixed = full.commit::<Native>(witness);
    fixed.iter_mut().zip(honest).for_each(|(f, h)| {
        f.root.clone_from(&h.root);
        f.pin.clone_from(&h.pin);
    });
    fixed
}

/// Tries every way to get a cheating witness accepted under a statement; returns what the verifier said.
///
/// First with the witness' own lookups. If they don't hold, with the honest witness' lookups and multiplicities: then the fraction table sums
/// to zero, but isn't the committed tensors'.
pub fn refused(full: &Full, honest: &Witness, cheat: &Witness, statement: &Statement, fixed: &[Committed<Native>]) -> VerifyError {
    let relation = &full.relation;
    let mut own = cheat.clone();
    let holds = own.clone().count(relation).is_ok();
    let values = own.count_leniently(relation);
    match (attempt(full, statement, fixed, own, values), holds) {
        (Outcome::Refused(error), true) => return error,
        (Outcome::NoProof | Outcome::Refused(_), false) => {}
        (outcome, _) => panic!("{outcome:?}"),
    }
    let mut counted = honest.clone();
    let values = counted.count(relation).unwrap();
    let mut stubborn = cheat.clone();
    relation.tables.iter().for_each(|(_, mult)| stubborn.tensors[mult.0].clone_from(&counted.tensors[mult.0]));
    match attempt(full, statement, fixed, stubborn, values) {
        Outcome::Refused(error) => error,
        outcome => panic!("{outcome:?}"),
    }
}

/// A cheat that overwrites the trace: the checker names `expected`, no proof of it verifies.
pub fn trace_cheat(full: &Full, honest: &Witness, fixed: &[Committed<Native>], cheat: &Witness, expected: &str) {
    assert_eq!(violated(&full.relation, cheat).as_deref(), Some(expected));
    let statement = full.statement(cheat, fixed);
    let error = refused(full, honest, cheat, &statement, fixed);
    assert_eq!(error, VerifyError::Constraints, "{expected}");
}

/// The committed tensors a list of sums reads.
pub fn tensors_of<'a>(sums: impl Iterator<Item = &'a circuits::ir::Sum>) -> Vec<usize> {
    let mut out: Vec<usize> = sums
        .flat_map(|s| &s.terms)
        .flat_map(|t| &t.factors)
        .filter_map(|f| if let Source::Tensor(id) = f.source { Some(id.0) } else { None })
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}
