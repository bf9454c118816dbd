//! A layer's tables: the values that its sumcheck multiplies and binds.

use super::{Node, Weights};
use crate::packed::{CHUNK_LOG, PackedEF, add, fold, lanes, sum_lanes};
use circuits::ir::EF;
use p3_field::{PackedFieldExtension, PrimeCharacteristicRing};
use p3_multi_stark::fractional_gkr::SplitFraction;
use rayon::prelude::*;

/// Numerators and denominators of a layer's halves. Inside a layer's sumcheck numerators are shifted by `λ/2` denominators, so that
/// `n0·d1 + n1·d0` is the gate `n0·d1 + n1·d0 + λ·d0·d1`.
pub(super) struct Halves<A> {
    pub(super) n: [Vec<A>; 2],
    pub(super) d: [Vec<A>; 2],
}

/// Halves, packed unless they are short.
pub(super) enum Tables {
    Packed(Halves<PackedEF>),
    Scalar(Halves<EF>),
}

/// One half's values that a piece of a round reads, at 0 and 1 of the round's variable.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a, A> {
    pub(super) n: [&'a [A]; 2],
    pub(super) d: [&'a [A]; 2],
}

/// `Σ eq·(n0·d1 + n1·d0)` at 0 and 2 of the round's variable.
pub(super) fn piece_quadratic<A: PrimeCharacteristicRing + Copy>(eq: &[A], [a, b]: [Piece<A>; 2]) -> [A; 2] {
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

impl<A: PrimeCharacteristicRing + Copy + Send + Sync> Halves<A> {
    pub(super) fn new(n: Vec<A>, d: Vec<A>) -> Self {
        let split = |mut x: Vec<A>| {
            let high = x.split_off(x.len() / 2);
            // What was split off would stay allocated here, too.
            x.shrink_to_fit();
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
        self.n.iter_mut().chain(&mut self.d).for_each(|table| fold(table, r));
    }
}

impl Tables {
    /// Unpacks tables that are one packed element long.
    pub(super) fn of(halves: Halves<PackedEF>) -> Self {
        if halves.len() > 1 {
            return Self::Packed(halves);
        }
        let unpack = |x: &Vec<PackedEF>| lanes(x.iter().copied()).collect::<Vec<EF>>();
        Self::Scalar(Halves { n: halves.n.each_ref().map(unpack), d: halves.d.each_ref().map(unpack) })
    }

    /// The layer above; `None` above the first.
    pub(super) fn add_up(&self) -> Option<Self> {
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
    pub(super) fn total(&self) -> Node {
        let [(n0, d0), (n1, d1)] = match self {
            Self::Scalar(h) => [0, 1].map(|i| (h.n[i][0], h.d[i][0])),
            Self::Packed(h) => [0, 1].map(|i| (h.n[i][0].extract(0), h.d[i][0].extract(0))),
        };
        Node { n: n0 * d1 + n1 * d0, d: d0 * d1 }
    }

    /// With numerators shifted by `λ/2` denominators.
    pub(super) fn shifted(mut self, lambda: EF) -> Self {
        match &mut self {
            Self::Packed(halves) => halves.shift(lambda.halve().into()),
            Self::Scalar(halves) => halves.shift(lambda.halve()),
        }
        self
    }

    pub(super) fn quadratic(&self, weights: &Weights) -> [EF; 2] {
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

    pub(super) fn bind(self, r: EF) -> Self {
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
    pub(super) fn claims(&self, lambda: EF) -> Option<SplitFraction<EF>> {
        let Self::Scalar(Halves { n, d }) = self else { return None };
        let ([[n0], [n1]], [[d0], [d1]]) = (n.each_ref().map(Vec::as_slice), d.each_ref().map(Vec::as_slice)) else { return None };
        let back = |n: EF, d: EF| n - lambda.halve() * d;
        Some(SplitFraction { n0: back(*n0, *d0), d0: *d0, n1: back(*n1, *d1), d1: *d1 })
    }
}
