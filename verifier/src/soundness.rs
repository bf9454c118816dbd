//! The soundness calculator: a union bound over every way to cheat, under the Johnson bound (proven; no conjectured proximity gaps).
//!
//! Errors of the interactive argument are multiplied by the number of polynomials that the trace's commitment may stand for, its list; a pin
//! stands for one polynomial of a list, whichever proof opens it, but for the error of its own row.
//! Fiat-Shamir and the Merkle trees add the hash's collision bound. `docs/protocol.md` derives each term.

use crate::pcs::{self, ParameterError};
use crate::plan::{Plan, SUM_DEGREE};
use crate::profile::HashProfile;
use circuits::ir::{EF, Group};
use p3_field::Field;
use p3_security::ErrorBits;

/// Least composed security that the verifier accepts.
pub const MIN_SECURITY_BITS: f64 = 100.0;
/// Collision resistance of the digests: 8 KoalaBear elements or one BN254 element, half their size.
const HASH_BITS: f64 = 123.0;

/// Composed security of a proof of `plan`, in bits.
///
/// # Errors
///
/// When a commitment has no sound parameters.
pub fn bits<C: HashProfile>(plan: &Plan<'_>) -> Result<f64, ParameterError> {
    let errors: Vec<ErrorBits> = terms::<C>(plan)?.into_iter().map(|(_, bits)| ErrorBits::from_log2(bits)).collect();
    Ok(ErrorBits::sum(&errors).bits())
}

/// Every way to cheat and its error, in bits.
///
/// # Errors
///
/// When a commitment has no sound parameters.
pub fn terms<C: HashProfile>(plan: &Plan<'_>) -> Result<Vec<(String, f64)>, ParameterError> {
    let field_bits = (EF::bits() - 1) as f64;
    // The tables' commitment is known to be of the tables, a codeword: no other codeword is within the Johnson radius of it.
    let mut list = 0.0;
    let mut terms = vec![("hash collisions".to_owned(), HASH_BITS)];
    for (group, layout) in &plan.layouts {
        let (opening, candidates) = pcs::security::<C>(*group, layout.log)?;
        terms.push((format!("opening of the {group:?} commitment"), opening));
        if group.is_pinned() {
            terms.push((format!("pin of the {group:?} commitment"), field_bits - pin_numerator(candidates, layout.log).log2()));
        } else if *group == Group::Trace {
            list = candidates;
        }
    }
    let argument = numerators(plan).into_iter().map(|(name, numerator)| (name.to_owned(), field_bits - list - numerator.log2()));
    terms.extend(argument);
    Ok(terms)
}

/// Two of a list's polynomials agree at the pin's point: `L²/2` pairs, each a nonzero multilinear polynomial of `m` variables.
fn pin_numerator(log_list: f64, variables: usize) -> f64 {
    (2.0 * log_list - 1.0).exp2() * variables as f64
}

/// Numerators of the interactive argument's errors; the denominator is the challenge field's order.
fn numerators(plan: &Plan<'_>) -> Vec<(&'static str, f64)> {
    let leaves = plan.leaves_log as f64;
    let claims = plan.most_claims() as f64;
    let reduction = plan.layouts.iter().map(|(_, l)| l.log).max().unwrap_or(0) as f64;
    vec![
        // α, β: the fraction table's sum as a polynomial in both.
        ("lookup challenges", plan.lookup_degree() as f64),
        // Fraction table: layer k has k rounds of degree 3, a batching and a joining challenge.
        ("fraction table", (0..plan.leaves_log).map(|k| 3.0 * k as f64 + 2.0).sum()),
        // Constraints at a random point, and γ.
        ("constraints at a random point, batching", leaves + plan.sum_count() as f64 + 2.0),
        // Batched sumcheck.
        ("batched sumcheck", (SUM_DEGREE * plan.sum_rounds) as f64),
        // δ and the claim reduction.
        ("claim reduction", claims + 2.0 * reduction),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Evm, Native};
    use crate::test_support::relation;

    fn print_and_check<C: HashProfile>() {
        let relation = relation();
        let plan = Plan::new(&relation);
        for (name, bits) in terms::<C>(&plan).unwrap() {
            eprintln!("{:?}: {name}: {bits:.1} bits", C::PROFILE);
            assert!(bits >= MIN_SECURITY_BITS, "{name}: {bits}");
        }
        let bits = bits::<C>(&plan).unwrap();
        eprintln!("{:?}: {bits:.1} bits", C::PROFILE);
        assert!(bits >= MIN_SECURITY_BITS, "{bits}");
    }

    #[test]
    fn both_profiles_give_a_hundred_bits() {
        print_and_check::<Native>();
        print_and_check::<Evm>();
    }
}
