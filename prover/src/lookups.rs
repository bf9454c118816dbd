//! The fraction table: every lookup, every table, the aggregation; proven to sum to zero by fractional GKR.
//!
//! Source: "Multivariate lookups based on logarithmic derivatives" (ePrint 2022/1530), "Improving logarithmic derivative lookups using GKR" (ePrint 2023/1284).

use crate::ProveError;
use crate::fraction::{self, Leaves, Limits};
use crate::packed::{PackedEF, PackedF, WIDTH};
use circuits::evaluate::evaluate;
use circuits::ir::{EF, F, Sum};
use circuits::witness::{LookupValues, Witness};
use p3_challenger::FieldChallenger;
use p3_field::{PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use p3_multi_stark::fractional_gkr::{FractionGkrOutput, FractionGkrProof};
use rayon::prelude::*;
use std::borrow::Cow;
use verifier::plan::{Block, BlockKind, LookupChallenges, Plan};

/// Proves that the fraction table sums to zero.
///
/// # Errors
///
/// When it doesn't, or when the table's total denominator is zero (probability about leaves/|EF|).
pub fn prove<Ch: FieldChallenger<F>>(
    plan: &Plan<'_>,
    weights: &[Vec<u64>],
    witness: &Witness,
    values: &[LookupValues],
    challenges: LookupChallenges,
    challenger: &mut Ch,
) -> Result<(FractionGkrProof<EF>, FractionGkrOutput<EF>), ProveError> {
    let blocks = plan.blocks.iter().map(|block| BlockLeaves::new(plan, weights, witness, values, challenges, block)).collect();
    fraction::prove(&Table { blocks, log: plan.leaves_log }, Limits::default(), challenger)
}

/// The leaves of one block.
struct BlockLeaves<'a> {
    start: usize,
    len: usize,
    /// `None` where all are one.
    numerators: Option<Cow<'a, [F]>>,
    /// What columns are subtracted from.
    base: EF,
    /// Columns with their powers of `β`.
    columns: Vec<(EF, Cow<'a, [F]>)>,
}

impl<'a> BlockLeaves<'a> {
    fn new(
        plan: &Plan<'_>,
        weights: &[Vec<u64>],
        witness: &Witness,
        values: &'a [LookupValues],
        challenges: LookupChallenges,
        block: &Block,
    ) -> Self {
        let own = |sums: Vec<Vec<F>>| sums.into_iter().map(Cow::Owned).collect::<Vec<Cow<'a, [F]>>>();
        let evaluate = |sum: &Sum| evaluate(plan.relation, &witness.ctx, witness, sum);
        let (numerators, columns) = match block.kind {
            BlockKind::Lookup(i) => {
                let values = &values[i];
                (values.numerator.as_deref().map(Cow::Borrowed), values.tuple.iter().map(|t| Cow::Borrowed(t.as_slice())).collect())
            }
            BlockKind::Table(i) => {
                let (kind, mult) = &plan.relation.tables[i];
                let numerators: Vec<F> = witness.tensors[mult.0].par_iter().map(|&m| -F::from_i32(m)).collect();
                let columns = kind.all_columns().into_iter().map(|c| c.into_iter().map(F::from_i64).collect()).collect();
                (Some(Cow::Owned(numerators)), own(columns))
            }
            BlockKind::Values => {
                let of = |a: &circuits::relation::Aggregation| (evaluate(&a.value), a.key.iter().map(evaluate).collect::<Vec<_>>());
                let (numerators, key) = plan.relation.aggregation.as_ref().map(of).unwrap_or_default();
                (Some(Cow::Owned(numerators)), own(key))
            }
            BlockKind::Published => {
                let (numerators, key) = published(plan, weights, block);
                (Some(Cow::Owned(numerators)), own(key))
            }
        };
        let powers = challenges.beta.powers().skip(1);
        Self {
            start: block.offset,
            len: 1 << block.log,
            numerators,
            base: challenges.alpha - EF::from_usize(plan.tag(block.kind)),
            columns: powers.zip(columns).collect(),
        }
    }

    fn end(&self) -> usize {
        self.start + self.len
    }

    /// One leaf.
    fn leaf(&self, i: usize) -> (F, EF) {
        let numerator = self.numerators.as_ref().map_or(F::ONE, |n| n[i]);
        (numerator, self.base - self.columns.iter().map(|(power, column)| *power * column[i]).sum::<EF>())
    }

    /// Leaves side by side.
    fn packed(&self, i: usize) -> (PackedF, PackedEF) {
        let read = |column: &[F]| *PackedF::from_slice(&column[i..i + WIDTH]);
        let numerator = self.numerators.as_ref().map_or(PackedF::ONE, |n| read(n));
        let columns = self.columns.iter().map(|(power, column)| PackedEF::from(*power) * read(column));
        (numerator, columns.fold(PackedEF::from(self.base), |d, column| d - column))
    }
}

/// All blocks, by their places; past the last come fractions 0/1.
struct Table<'a> {
    blocks: Vec<BlockLeaves<'a>>,
    log: usize,
}

impl Leaves for Table<'_> {
    fn log(&self) -> usize {
        self.log
    }

    fn read(&self, start: usize, numerators: &mut [PackedF], denominators: &mut [PackedEF]) {
        let mut blocks = &self.blocks[self.blocks.partition_point(|b| b.end() <= start)..];
        for (k, (n, d)) in numerators.iter_mut().zip(denominators).enumerate() {
            let at = start + k * WIDTH;
            while let Some((_, rest)) = blocks.split_first().filter(|(b, _)| b.end() <= at) {
                blocks = rest;
            }
            (*n, *d) = match blocks.first() {
                Some(block) if block.end() >= at + WIDTH => block.packed(at - block.start),
                first => {
                    let leaf = |lane: usize| blocks.iter().find(|b| at + lane < b.end()).map_or((F::ZERO, EF::ONE), |b| b.leaf(at + lane - b.start));
                    if first.is_none() {
                        (PackedF::ZERO, PackedEF::ONE)
                    } else {
                        (PackedF::from_fn(|l| leaf(l).0), PackedEF::from_ext_fn(|l| leaf(l).1))
                    }
                }
            };
        }
    }
}

/// Numerators and keys of the published weights.
fn published(plan: &Plan<'_>, weights: &[Vec<u64>], block: &Block) -> (Vec<F>, Vec<Vec<F>>) {
    let log = plan.relation.aggregation.as_ref().map_or(0, |a| plan.relation.axes[a.published[1].0].log);
    let place = |i: usize| (i >> log, i & ((1 << log) - 1));
    let numerator = |i: usize| {
        let (request, contributor) = place(i);
        let weights = weights.get(request).or(weights.first());
        -F::from_u64(weights.and_then(|w| w.get(contributor)).copied().unwrap_or(0))
    };
    let range = 0..1usize << block.log;
    let key = [range.clone().map(|i| F::from_usize(place(i).0)).collect(), range.clone().map(|i| F::from_usize(place(i).1)).collect()];
    (range.map(numerator).collect(), key.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::{lanes, tests::elements};
    use p3_field::BasedVectorSpace;

    /// Packed reading agrees with leaf by leaf reading: inside blocks, across blocks shorter than a packed element, and past the last.
    #[test]
    fn leaves_are_read_across_blocks() {
        let mut next = elements(3);
        let mut blocks: Vec<BlockLeaves> = vec![];
        for (len, columns, has_numerators) in [(64, 2, true), (32, 1, false), (8, 3, true), (4, 1, true), (2, 2, false), (2, 0, true), (1, 1, true)] {
            let mut column = || (0..len).map(|_| next()).collect::<Vec<F>>();
            let numerators = has_numerators.then(|| Cow::Owned(column()));
            let columns = (0..columns).map(|k| (EF::from_basis_coefficients_fn(|i| F::from_usize(7 * k + i + 1)), Cow::Owned(column()))).collect();
            let start = blocks.last().map_or(0, BlockLeaves::end);
            blocks.push(BlockLeaves { start, len, numerators, base: EF::from_usize(1000 + len), columns });
        }
        let table = Table { blocks, log: 8 };
        let expected: Vec<(F, EF)> = (0..1 << table.log)
            .map(|i| table.blocks.iter().find(|b| (b.start..b.end()).contains(&i)).map_or((F::ZERO, EF::ONE), |b| b.leaf(i - b.start)))
            .collect();
        for first in 0..4 {
            let start = first * WIDTH;
            let len = (expected.len() - start) / WIDTH;
            let (mut n, mut d) = (vec![PackedF::ZERO; len], vec![PackedEF::ZERO; len]);
            table.read(start, &mut n, &mut d);
            let found: Vec<(F, EF)> = n.iter().flat_map(|n| n.as_slice().to_vec()).zip(lanes(d)).collect();
            assert!(found == expected[start..], "from leaf {start}");
        }
    }
}
