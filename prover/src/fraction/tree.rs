//! Layers that are computed from the leaves.

use super::tables::{Halves, Piece, Tables, piece_quadratic};
use super::{Leaves, Weights};
use crate::packed::{CHUNK_LOG, PackedEF, PackedF, WIDTH, add, sum_lanes};
use circuits::ir::EF;
use circuits::public::eq_table;
use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

/// Any layer, computed from the leaves.
pub(super) struct Tree<'a> {
    pub(super) leaves: &'a dyn Leaves,
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
    pub(super) fn top(&self, last: usize) -> Vec<Tables> {
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
    pub(super) fn bound(&self, layer: usize, lambda: EF, bound: &[EF]) -> Bound<'_> {
        Bound { tree: self, layer, shift: lambda.halve(), weights: eq_table(bound) }
    }
}

/// A layer's tables, shifted, with their first variables bound: computed where they are read.
pub(super) struct Bound<'a> {
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
    pub(super) fn quadratic(&self, weights: &Weights) -> [EF; 2] {
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
    pub(super) fn tables(&self) -> Tables {
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
