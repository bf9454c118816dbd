//! Fractional GKR whose widest layers are never held: they are computed from the leaves, piece by piece, whenever a round needs them.
//!
//! Layer `k` has `2^k` nodes; node `i` is the sum of nodes `i` and `i + 2^k` of layer `k + 1`. The last layer is the leaves. Its sumcheck runs
//! over `k - 1` variables and reads a layer as four tables: numerators and denominators of the halves.
//!
//! Source: "Improving logarithmic derivative lookups using GKR" (ePrint 2023/1284); transcript and proof are Plonky3's. The equality factor of a
//! round is restored from a quadratic, as in "Some Improvements for the PIOP for ZeroCheck" (ePrint 2024/108).

use circuits::ir::{EF, F};
use circuits::public::eq_table;
use p3_challenger::FieldChallenger;
use p3_field::{ExtensionField, Field, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use p3_multi_stark::fractional_gkr::transcript::FractionGkrProverTranscript;
use p3_multi_stark::fractional_gkr::{FractionGkrLayerProof, FractionGkrOutput, FractionGkrProof, FractionGkrShape, SplitFraction};
use p3_multilinear_util::point::Point;
use rayon::prelude::*;

use crate::ProveError;

/// Base field elements side by side.
pub type PackedF = <F as Field>::Packing;
/// Extension field elements side by side.
pub type PackedEF = <EF as ExtensionField<F>>::ExtensionPacking;

/// Elements side by side.
pub const WIDTH: usize = PackedF::WIDTH;
/// Log number of packed elements that a task handles.
pub const CHUNK_LOG: usize = 6;

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
            let is_wide = rounds.left() > limits.bound_log || (layer == num_variables && rounds.bound.is_empty());
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

/// Numerators and denominators of a layer's halves. Inside a layer's sumcheck numerators are shifted by `λ/2` denominators, so that
/// `n0·d1 + n1·d0` is the gate `n0·d1 + n1·d0 + λ·d0·d1`.
struct Halves<A> {
    n: [Vec<A>; 2],
    d: [Vec<A>; 2],
}

/// Halves, packed unless they are short.
enum Tables {
    Packed(Halves<PackedEF>),
    Scalar(Halves<EF>),
}

/// One half's values that a piece of a round reads, at 0 and 1 of the round's variable.
#[derive(Clone, Copy)]
struct Piece<'a, A> {
    n: [&'a [A]; 2],
    d: [&'a [A]; 2],
}

/// `Σ eq·(n0·d1 + n1·d0)` at 0 and 2 of the round's variable.
fn piece_quadratic<A: PrimeCharacteristicRing + Copy>(eq: &[A], [a, b]: [Piece<A>; 2]) -> [A; 2] {
    let mut out = [A::ZERO; 2];
    let gate = |n0: A, n1: A, d0: A, d1: A| A::dot_product::<2>(&[n0, n1], &[d1, d0]);
    for (j, &eq) in eq.iter().enumerate() {
        let low = [a.n[0][j], b.n[0][j], a.d[0][j], b.d[0][j]];
        let high = [a.n[1][j], b.n[1][j], a.d[1][j], b.d[1][j]];
        let [n0, n1, d0, d1] = std::array::from_fn(|i| high[i] + high[i] - low[i]);
        out[0] += eq * gate(low[0], low[1], low[2], low[3]);
        out[1] += eq * gate(n0, n1, d0, d1);
    }
    out
}

fn add(a: [EF; 2], b: [EF; 2]) -> [EF; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// The elements side by side, one by one.
pub fn lanes(packed: impl IntoIterator<Item = PackedEF>) -> impl Iterator<Item = EF> {
    <PackedEF as PackedFieldExtension<F, EF>>::to_ext_iter(packed)
}

fn sum_lanes(x: PackedEF) -> EF {
    lanes([x]).sum()
}

impl<A: PrimeCharacteristicRing + Copy + Send + Sync> Halves<A> {
    fn new(n: Vec<A>, d: Vec<A>) -> Self {
        let split = |mut x: Vec<A>| {
            let high = x.split_off(x.len() / 2);
            [x, high]
        };
        Self { n: split(n), d: split(d) }
    }

    /// Values of a half.
    fn len(&self) -> usize {
        self.n[0].len()
    }

    /// The layer above.
    fn add_up(&self) -> (Vec<A>, Vec<A>) {
        let ([n0, n1], [d0, d1]) = (&self.n, &self.d);
        let sum = |i: usize| (A::dot_product::<2>(&[n0[i], n1[i]], &[d1[i], d0[i]]), d0[i] * d1[i]);
        (0..self.len()).into_par_iter().with_min_len(1 << CHUNK_LOG).map(sum).unzip()
    }

    fn shift(&mut self, by: A) {
        for (n, d) in self.n.iter_mut().zip(&self.d) {
            n.par_iter_mut().zip(d).with_min_len(1 << CHUNK_LOG).for_each(|(n, &d)| *n += by * d);
        }
    }

    /// Chunk `c` of a half's two sides.
    fn piece<'a>(&'a self, half: usize, c: usize, len: usize) -> Piece<'a, A> {
        let starts = [c * len, self.len() / 2 + c * len];
        let sides = |x: &'a [A]| starts.map(|start| &x[start..start + len]);
        Piece { n: sides(&self.n[half]), d: sides(&self.d[half]) }
    }

    fn bind(&mut self, r: A) {
        let tables = self.n.iter_mut().chain(&mut self.d);
        for table in tables {
            let half = table.len() / 2;
            let (low, high) = table.split_at_mut(half);
            low.par_iter_mut().zip(high).with_min_len(1 << CHUNK_LOG).for_each(|(a, b)| *a += r * (*b - *a));
            table.truncate(half);
        }
    }
}

impl Weights {
    fn packed(&self) -> Vec<PackedEF> {
        self.low.chunks_exact(WIDTH).map(PackedEF::from_ext_slice).collect()
    }
}

impl Tables {
    /// Unpacks tables that are one packed element long.
    fn of(halves: Halves<PackedEF>) -> Self {
        if halves.len() > 1 {
            return Self::Packed(halves);
        }
        let unpack = |x: &Vec<PackedEF>| lanes(x.iter().copied()).collect::<Vec<EF>>();
        Self::Scalar(Halves { n: halves.n.each_ref().map(unpack), d: halves.d.each_ref().map(unpack) })
    }

    /// The layer above; `None` above the first.
    fn add_up(&self) -> Option<Self> {
        match self {
            Self::Packed(halves) => {
                let (n, d) = halves.add_up();
                Some(Self::of(Halves::new(n, d)))
            }
            Self::Scalar(halves) if halves.len() > 1 => {
                let (n, d) = halves.add_up();
                Some(Self::Scalar(Halves::new(n, d)))
            }
            Self::Scalar(_) => None,
        }
    }

    /// The first layer's sum.
    fn total(&self) -> Node {
        let [(n0, d0), (n1, d1)] = match self {
            Self::Scalar(h) => [0, 1].map(|i| (h.n[i][0], h.d[i][0])),
            Self::Packed(h) => [0, 1].map(|i| (h.n[i][0].extract(0), h.d[i][0].extract(0))),
        };
        Node { n: n0 * d1 + n1 * d0, d: d0 * d1 }
    }

    /// With numerators shifted by `λ/2` denominators.
    fn shifted(mut self, lambda: EF) -> Self {
        match &mut self {
            Self::Packed(halves) => halves.shift(lambda.halve().into()),
            Self::Scalar(halves) => halves.shift(lambda.halve()),
        }
        self
    }

    fn quadratic(&self, weights: &Weights) -> [EF; 2] {
        match self {
            Self::Packed(halves) => {
                let eq = weights.packed();
                let chunk = |c: usize| {
                    let pieces = [0, 1].map(|half| halves.piece(half, c, eq.len()));
                    piece_quadratic(&eq, pieces).map(|x| weights.high[c] * sum_lanes(x))
                };
                (0..weights.high.len()).into_par_iter().map(chunk).reduce(|| [EF::ZERO; 2], add)
            }
            Self::Scalar(halves) => piece_quadratic(&weights.low, [0, 1].map(|half| halves.piece(half, 0, weights.low.len()))),
        }
    }

    fn bind(self, r: EF) -> Self {
        match self {
            Self::Packed(mut halves) => {
                halves.bind(r.into());
                Self::of(halves)
            }
            Self::Scalar(mut halves) => {
                halves.bind(r);
                Self::Scalar(halves)
            }
        }
    }

    /// The values left when every variable is bound, numerators shifted back.
    fn claims(&self, lambda: EF) -> Option<SplitFraction<EF>> {
        let Self::Scalar(Halves { n, d }) = self else { return None };
        let ([[n0], [n1]], [[d0], [d1]]) = (n.each_ref().map(Vec::as_slice), d.each_ref().map(Vec::as_slice)) else { return None };
        let back = |n: EF, d: EF| n - lambda.halve() * d;
        Some(SplitFraction { n0: back(*n0, *d0), d0: *d0, n1: back(*n1, *d1), d1: *d1 })
    }
}

/// Any layer, computed from the leaves.
struct Tree<'a> {
    leaves: &'a dyn Leaves,
}

/// Numerators and denominators of consecutive nodes.
struct Nodes {
    n: Vec<PackedEF>,
    d: Vec<PackedEF>,
}

impl Nodes {
    fn zero(len: usize) -> Self {
        Self { n: vec![PackedEF::ZERO; len], d: vec![PackedEF::ZERO; len] }
    }
}

impl Tree<'_> {
    /// Nodes of a layer from number `start` on.
    fn read(&self, layer: usize, start: usize, n: &mut [PackedEF], d: &mut [PackedEF]) {
        let other = start + (1 << layer);
        if layer == self.leaves.log() {
            let mut base = vec![PackedF::ZERO; n.len()];
            self.leaves.read(start, &mut base, d);
            n.iter_mut().zip(base).for_each(|(n, base)| *n = base.into());
        } else if layer + 1 == self.leaves.log() {
            let mut n0 = vec![PackedF::ZERO; n.len()];
            let (mut n1, mut d1) = (n0.clone(), vec![PackedEF::ZERO; n.len()]);
            self.leaves.read(start, &mut n0, d);
            self.leaves.read(other, &mut n1, &mut d1);
            for (j, (n, d)) in n.iter_mut().zip(d).enumerate() {
                *n = d1[j] * n0[j] + *d * n1[j];
                *d *= d1[j];
            }
        } else {
            let mut second = Nodes::zero(n.len());
            self.read(layer + 1, start, n, d);
            self.read(layer + 1, other, &mut second.n, &mut second.d);
            for (j, (n, d)) in n.iter_mut().zip(d).enumerate() {
                *n = PackedEF::dot_product::<2>(&[*n, second.n[j]], &[second.d[j], *d]);
                *d *= second.d[j];
            }
        }
    }

    /// The layers from the first down to `last`.
    fn top(&self, last: usize) -> Vec<Tables> {
        let len = (1 << last) / WIDTH;
        let mut nodes = Nodes::zero(len);
        let chunks = nodes.n.par_chunks_mut(1 << CHUNK_LOG).zip(nodes.d.par_chunks_mut(1 << CHUNK_LOG)).enumerate();
        chunks.for_each(|(c, (n, d))| self.read(last, (c << CHUNK_LOG) * WIDTH, n, d));
        let mut layers = vec![Tables::of(Halves::new(nodes.n, nodes.d))];
        while let Some(above) = layers.last().and_then(Tables::add_up) {
            layers.push(above);
        }
        layers.reverse();
        layers
    }

    /// A layer's tables with their first variables bound.
    fn bound(&self, layer: usize, lambda: EF, bound: &[EF]) -> Bound<'_> {
        Bound { tree: self, layer, shift: lambda.halve(), weights: eq_table(bound) }
    }
}

/// A layer's tables, shifted, with their first variables bound: computed where they are read.
struct Bound<'a> {
    tree: &'a Tree<'a>,
    layer: usize,
    shift: EF,
    /// `eq` of the bound variables.
    weights: Vec<EF>,
}

impl Bound<'_> {
    /// Values of a half's tables.
    fn len(&self) -> usize {
        (1 << (self.layer - 1)) / self.weights.len()
    }

    /// Reads a half's tables from position `start` on.
    fn read(&self, half: usize, start: usize, n: &mut [PackedEF], d: &mut [PackedEF]) {
        let first = (half << (self.layer - 1)) + start;
        if self.weights.len() == 1 {
            self.tree.read(self.layer, first, n, d);
        } else {
            let mut part = Nodes::zero(n.len());
            n.fill(PackedEF::ZERO);
            d.fill(PackedEF::ZERO);
            for (m, &weight) in self.weights.iter().enumerate() {
                self.tree.read(self.layer, first + m * self.len(), &mut part.n, &mut part.d);
                let weight = PackedEF::from(weight);
                n.iter_mut().zip(&part.n).for_each(|(n, &x)| *n += weight * x);
                d.iter_mut().zip(&part.d).for_each(|(d, &x)| *d += weight * x);
            }
        }
        let shift = PackedEF::from(self.shift);
        n.iter_mut().zip(d).for_each(|(n, d)| *n += shift * *d);
    }

    /// A round's quadratic part.
    fn quadratic(&self, weights: &Weights) -> [EF; 2] {
        let eq = weights.packed();
        let chunk = |c: usize| {
            let start = c * eq.len() * WIDTH;
            let sides = [0, 1].map(|half| {
                [start, self.len() / 2 + start].map(|start| {
                    let mut nodes = Nodes::zero(eq.len());
                    self.read(half, start, &mut nodes.n, &mut nodes.d);
                    nodes
                })
            });
            let piece = |half: usize| Piece { n: sides[half].each_ref().map(|s| s.n.as_slice()), d: sides[half].each_ref().map(|s| s.d.as_slice()) };
            piece_quadratic(&eq, [0, 1].map(piece)).map(|x| weights.high[c] * sum_lanes(x))
        };
        (0..weights.high.len()).into_par_iter().map(chunk).reduce(|| [EF::ZERO; 2], add)
    }

    /// The tables.
    fn tables(&self) -> Tables {
        let half = |half: usize| {
            let mut nodes = Nodes::zero(self.len() / WIDTH);
            let chunks = nodes.n.par_chunks_mut(1 << CHUNK_LOG).zip(nodes.d.par_chunks_mut(1 << CHUNK_LOG)).enumerate();
            chunks.for_each(|(c, (n, d))| self.read(half, (c << CHUNK_LOG) * WIDTH, n, d));
            nodes
        };
        let [a, b] = [0, 1].map(half);
        Tables::of(Halves { n: [a.n, b.n], d: [a.d, b.d] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p3_field::BasedVectorSpace;
    use p3_multi_stark::fractional_gkr::{Fraction, LeafNumerator, prove_fractional_gkr};
    use p3_multilinear_util::poly::{Poly, PolyMaybePacked};
    use verifier::profile::{HashProfile, Native};

    /// Leaves that add up to zero.
    struct Fixed {
        n: Vec<F>,
        d: Vec<EF>,
    }

    impl Fixed {
        /// Each fraction occurs twice, once with either sign.
        fn balanced(log: usize) -> Self {
            let mut state = 1u64;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                F::from_u64(state >> 33)
            };
            let half: Vec<(F, EF)> = (0..1 << (log - 1)).map(|_| (next(), EF::from_basis_coefficients_fn(|_| next()))).collect();
            let other = half.iter().rev().map(|&(n, d)| (-n, d));
            let (n, d) = half.iter().copied().chain(other).unzip();
            Self { n, d }
        }
    }

    impl Leaves for Fixed {
        fn log(&self) -> usize {
            self.n.len().trailing_zeros() as usize
        }

        fn read(&self, start: usize, numerators: &mut [PackedF], denominators: &mut [PackedEF]) {
            for (k, (n, d)) in numerators.iter_mut().zip(denominators).enumerate() {
                let at = start + k * WIDTH;
                *n = *PackedF::from_slice(&self.n[at..at + WIDTH]);
                *d = PackedEF::from_ext_slice(&self.d[at..at + WIDTH]);
            }
        }
    }

    #[test]
    fn proofs_are_plonky3s_whatever_is_held() {
        let least = WIDTH.trailing_zeros() as usize + 1;
        for log in [least + 1, least + 2, 12, 15] {
            let leaves = Fixed::balanced(log);
            let (numerators, denominators) = (Poly::new(leaves.n.clone()), PolyMaybePacked::Scalar(Poly::new(leaves.d.clone())));
            let seed = Default::default();
            let fraction = Fraction { n: LeafNumerator::Base(&numerators), d: &denominators };
            let expected = prove_fractional_gkr(fraction, &mut Native::challenger(&seed));
            let tight = Limits { stored_log: least, bound_log: least };
            let some = Limits { stored_log: log.saturating_sub(3).max(least), bound_log: log.saturating_sub(4).max(least) };
            for limits in [tight, some, Limits::default()] {
                let found = prove(&leaves, limits, &mut Native::challenger(&seed)).unwrap();
                assert_eq!(found, expected, "2^{log} leaves within {limits:?}");
            }
        }
    }

    #[test]
    fn unbalanced_and_undefined_sums_are_refused() {
        let mut leaves = Fixed::balanced(10);
        leaves.n[3] += F::ONE;
        let attempt = |leaves: &Fixed| prove(leaves, Limits::default(), &mut Native::challenger(&Default::default())).map(|_| ());
        assert_eq!(attempt(&leaves), Err(ProveError::Unbalanced));
        leaves.d[3] = EF::ZERO;
        assert_eq!(attempt(&leaves), Err(ProveError::UnluckyChallenge));
    }
}
