//! The fraction table: every lookup, every table, the aggregation; proven to sum to zero by fractional GKR.
//!
//! Source: "Multivariate lookups based on logarithmic derivatives" (ePrint 2022/1530), "Improving logarithmic derivative lookups using GKR" (ePrint 2023/1284).

use circuits::evaluate::evaluate;
use circuits::ir::{EF, F};
use circuits::statement::Statement;
use circuits::witness::{LookupValues, Witness};
use p3_challenger::FieldChallenger;
use p3_field::{Field, PackedValue, PrimeCharacteristicRing};
use p3_multi_stark::fractional_gkr::{Fraction, FractionGkrOutput, FractionGkrProof, LeafNumerator, prove_fractional_gkr};
use p3_multilinear_util::poly::{Poly, PolyMaybePacked};
use rayon::prelude::*;
use verifier::plan::{BlockKind, LookupChallenges, Plan};

use crate::ProveError;

/// Numerators and denominators of all leaves.
struct Leaves {
    numerators: Vec<F>,
    denominators: Vec<EF>,
}

/// Proves that the fraction table sums to zero.
///
/// # Errors
///
/// When the table's total denominator is zero (probability about leaves/|EF|).
pub fn prove<Ch: FieldChallenger<F>>(
    plan: &Plan<'_>,
    statement: &Statement,
    witness: &Witness,
    values: &[LookupValues],
    challenges: LookupChallenges,
    challenger: &mut Ch,
) -> Result<(FractionGkrProof<EF>, FractionGkrOutput<EF>), ProveError> {
    let leaves = fill(plan, statement, witness, values, challenges);
    if leaves.denominators.par_iter().any(|d| *d == EF::ZERO) {
        return Err(ProveError::UnluckyChallenge);
    }
    let numerators = Poly::new(leaves.numerators);
    let scalar = Poly::new(leaves.denominators);
    let denominators = if plan.leaves_log >= <F as Field>::Packing::WIDTH.trailing_zeros() as usize {
        PolyMaybePacked::Packed(scalar.pack::<F, EF>())
    } else {
        PolyMaybePacked::Scalar(scalar)
    };
    let fraction = Fraction { n: LeafNumerator::Base(&numerators), d: &denominators };
    Ok(prove_fractional_gkr(fraction, challenger))
}

fn fill(plan: &Plan<'_>, statement: &Statement, witness: &Witness, values: &[LookupValues], challenges: LookupChallenges) -> Leaves {
    let mut leaves = Leaves { numerators: vec![F::ZERO; 1 << plan.leaves_log], denominators: vec![EF::ONE; 1 << plan.leaves_log] };
    for block in &plan.blocks {
        let base = challenges.alpha - EF::from_usize(plan.tag(block.kind));
        let numerators = &mut leaves.numerators[block.offset..][..1 << block.log];
        let denominators = &mut leaves.denominators[block.offset..][..1 << block.log];
        match block.kind {
            BlockKind::Lookup(i) => {
                match &values[i].numerator {
                    Some(n) => numerators.copy_from_slice(n),
                    None => numerators.fill(F::ONE),
                }
                combine(&values[i].tuple, base, challenges.beta, denominators);
            }
            BlockKind::Table(i) => {
                let (kind, mult) = &plan.relation.tables[i];
                numerators.par_iter_mut().zip(&witness.tensors[mult.0]).for_each(|(n, &m)| *n = -F::from_i32(m));
                let columns: Vec<Vec<F>> = kind.all_columns().into_iter().map(|c| c.into_iter().map(F::from_i64).collect()).collect();
                combine(&columns, base, challenges.beta, denominators);
            }
            BlockKind::Values => {
                if let Some(a) = &plan.relation.aggregation {
                    numerators.copy_from_slice(&evaluate(plan.relation, &witness.ctx, witness, &a.value));
                    let key: Vec<Vec<F>> = a.key.iter().map(|s| evaluate(plan.relation, &witness.ctx, witness, s)).collect();
                    combine(&key, base, challenges.beta, denominators);
                }
            }
            BlockKind::Published => published(plan, statement, base, challenges.beta, numerators, denominators),
        }
    }
    leaves
}

/// `base - Σ_k β^(k+1)·column_k`.
fn combine(columns: &[Vec<F>], base: EF, beta: EF, out: &mut [EF]) {
    let powers: Vec<EF> = beta.powers().skip(1).take(columns.len()).collect();
    out.par_iter_mut().enumerate().for_each(|(i, d)| {
        *d = base - columns.iter().zip(&powers).map(|(c, &p)| p * c[i]).sum::<EF>();
    });
}

fn published(plan: &Plan<'_>, statement: &Statement, base: EF, beta: EF, numerators: &mut [F], denominators: &mut [EF]) {
    let log = plan.relation.aggregation.as_ref().map_or(0, |a| plan.relation.axes[a.published[1].0].log);
    for (i, (n, d)) in numerators.iter_mut().zip(denominators).enumerate() {
        let (request, contributor) = (i >> log, i & ((1 << log) - 1));
        let weights = statement.requests.get(request).or(statement.requests.first()).map(|r| &r.weights);
        let weight = weights.and_then(|w| w.get(contributor)).copied().unwrap_or(0);
        *n = -F::from_u64(weight);
        *d = base - beta * F::from_usize(request) - beta.square() * F::from_usize(contributor);
    }
}
