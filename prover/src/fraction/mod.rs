//! Fractional GKR whose widest layers are never held: they are computed from the leaves, piece by piece, whenever a round needs them.
//!
//! Layer `k` has `2^k` nodes; node `i` is the sum of nodes `i` and `i + 2^k` of layer `k + 1`. The last layer is the leaves. Its sumcheck runs
//! over `k - 1` variables and reads a layer as four tables: numerators and denominators of the halves.
//!
//! Source: "Improving logarithmic derivative lookups using GKR" (ePrint 2023/1284); transcript and proof are Plonky3's. The equality factor of a
//! round is restored from a quadratic, as in "Some Improvements for the PIOP for ZeroCheck" (ePrint 2024/108).

mod tables;
mod tree;

use crate::ProveError;
use crate::packed::{CHUNK_LOG, PackedEF, PackedF, WIDTH};
use circuits::ir::{EF, F};
use circuits::public::eq_table;
use p3_challenger::FieldChallenger;
use p3_field::{Field, PackedFieldExtension, PrimeCharacteristicRing};
use p3_multi_stark::fractional_gkr::transcript::FractionGkrProverTranscript;
use p3_multi_stark::fractional_gkr::{FractionGkrLayerProof, FractionGkrOutput, FractionGkrProof, FractionGkrShape};
use p3_multilinear_util::point::Point;
use tree::Tree;

/// The fractions to be added up.
pub trait Leaves: Sync {
    /// Log number of them.
    fn log(&self) -> usize;

    /// Reads leaves from number `start` on, a multiple of [`WIDTH`].
    fn read(&self, start: usize, numerators: &mut [PackedF], denominators: &mut [PackedEF]);
}

/// How much is held at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Layers of up to two to this many nodes are held from the start.
    pub stored_log: usize,
    /// Tables of the layer being proven are held once variables are bound down to two to this many values.
    pub bound_log: usize,
}

impl Default for Limits {
    /// About 2 GB.
    fn default() -> Self {
        Self { stored_log: 24, bound_log: 23 }
    }
}

/// Proves that the leaves add up to zero.
///
/// # Errors
///
/// When they don't, or when a denominator is zero (probability about leaves/|EF|).
///
/// # Panics
///
/// With fewer than four packed elements of leaves, or limits below two of them.
pub fn prove<Ch: FieldChallenger<F>>(
    leaves: &dyn Leaves,
    limits: Limits,
    challenger: &mut Ch,
) -> Result<(FractionGkrProof<EF>, FractionGkrOutput<EF>), ProveError> {
    let num_variables = leaves.log();
    let least = limits.stored_log.min(limits.bound_log);
    assert!(1 << num_variables >= 4 * WIDTH && 1 << least >= 2 * WIDTH, "2^{num_variables} leaves within {limits:?}");
    let tree = Tree { leaves };
    let mut stored = tree.top(limits.stored_log.min(num_variables - 1));
    let mut node = stored[0].total();
    if node.d == EF::ZERO {
        return Err(ProveError::UnluckyChallenge);
    }
    if node.n != EF::ZERO {
        return Err(ProveError::Unbalanced);
    }
    let root_denominator = node.d;
    let mut transcript = FractionGkrProverTranscript::<_, F, EF>::new(challenger, FractionGkrShape { num_variables }, root_denominator);
    let (mut point, mut layers) = (vec![], Vec::with_capacity(num_variables));
    stored.reverse();
    for layer in 1..=num_variables {
        let lambda = transcript.begin_layer();
        let mut rounds = Rounds::new(&point, node.n + lambda * node.d);
        let mut tables = stored.pop().map(|t| t.shifted(lambda));
        let mut round_polys = Vec::with_capacity(layer - 1);
        while let Some(weights) = rounds.weights() {
            // The leaves' first round costs less memory than holding them.
            let is_wide = rounds.left() > limits.bound_log || (layer == num_variables && rounds.bound.is_empty() && rounds.left() > 1);
            if tables.is_none() && !is_wide {
                tables = Some(tree.bound(layer, lambda, &rounds.bound).tables());
            }
            let quadratic = match &tables {
                Some(tables) => tables.quadratic(&weights),
                None => tree.bound(layer, lambda, &rounds.bound).quadratic(&weights),
            };
            let message = rounds.message(quadratic);
            let challenge = transcript.round(&message);
            round_polys.push(message);
            rounds.bind(quadratic, challenge);
            tables = tables.map(|t| t.bind(challenge));
        }
        let claims = tables.and_then(|t| t.claims(lambda)).expect("every variable is bound");
        let branch = transcript.end_layer(&claims);
        node = Node { n: claims.n0 + branch * (claims.n1 - claims.n0), d: claims.d0 + branch * (claims.d1 - claims.d0) };
        point = [vec![branch], rounds.bound].concat();
        layers.push(FractionGkrLayerProof { round_polys, claims });
    }
    transcript.finish();
    let output = FractionGkrOutput { point: Point::new(point), numerator: node.n, denominator: node.d };
    Ok((FractionGkrProof { root_denominator, layers }, output))
}

/// A fraction.
#[derive(Clone, Copy)]
struct Node {
    n: EF,
    d: EF,
}

/// One layer's sumcheck, without its tables.
struct Rounds<'a> {
    /// The point of the layer above.
    point: &'a [EF],
    /// Challenges so far.
    bound: Vec<EF>,
    /// `eq` of the bound variables.
    prefix: EF,
    /// The claim, without `prefix`.
    sum: EF,
}

/// `eq` at the variables that a round sums over: `high[chunk]·low[position]`.
struct Weights {
    high: Vec<EF>,
    low: Vec<EF>,
}

impl<'a> Rounds<'a> {
    fn new(point: &'a [EF], sum: EF) -> Self {
        Self { point, bound: vec![], prefix: EF::ONE, sum }
    }

    /// Variables not yet bound.
    fn left(&self) -> usize {
        self.point.len() - self.bound.len()
    }

    /// Weights of this round; `None` after the last.
    fn weights(&self) -> Option<Weights> {
        let suffix = self.point.get(self.bound.len() + 1..)?;
        let chunk = CHUNK_LOG + WIDTH.trailing_zeros() as usize;
        let (high, low) = suffix.split_at(suffix.len().saturating_sub(chunk));
        Some(Weights { high: eq_table(high), low: eq_table(low) })
    }

    /// The round's cubic at 0, 2 and 3 from its quadratic part at 0 and 2.
    fn message(&self, [q0, q2]: [EF; 2]) -> [EF; 3] {
        let c = self.point[self.bound.len()];
        let (q1, two) = (self.at_one(q0), EF::TWO);
        let q3 = q0 + (q2 - q1) * (two + EF::ONE);
        let step = c + c - EF::ONE;
        let eq0 = EF::ONE - c;
        [(eq0, q0), (eq0 + two * step, q2), (eq0 + (two + EF::ONE) * step, q3)].map(|(eq, q)| self.prefix * eq * q)
    }

    /// The quadratic part at 1: the claim is `(1 - c)·q(0) + c·q(1)`. Coordinates are drawn without zero.
    fn at_one(&self, q0: EF) -> EF {
        let c = self.point[self.bound.len()];
        (self.sum - (EF::ONE - c) * q0) * c.inverse()
    }

    fn bind(&mut self, [q0, q2]: [EF; 2], r: EF) {
        let c = self.point[self.bound.len()];
        let q1 = self.at_one(q0);
        // Newton's form at 0, 1, 2.
        self.sum = q0 + r * (q1 - q0) + r * (r - EF::ONE) * (q2 - q1 - q1 + q0).halve();
        self.prefix *= (EF::ONE - c) + r * (c + c - EF::ONE);
        self.bound.push(r);
    }
}

impl Weights {
    fn packed(&self) -> Vec<PackedEF> {
        self.low.chunks_exact(WIDTH).map(PackedEF::from_ext_slice).collect()
    }
}

#[cfg(test)]
mod tests;
