//! Methods that divide by second moments: DataInf, TrackStar's recipe, EK-FAC.

use super::sketched::Projection;
use super::{Method, Shared};
use crate::Failure;
use crate::gradient::{Gradient, Groups, Seed, dot, factors, of_query, to_unit};
use crate::stage::{Query, Stage};
use model_runtime::train::gemm::{add_times, add_transposed_times, times_transposed};
use nalgebra::{DMatrix, SymmetricEigen};

/// Damping as a share of the mean eigenvalue.
const DAMPING: f64 = 0.1;

/// DataInf (Kwon, Wu, Wu, Zou 2024): the Hessian's inverse swapped with the mean, matrix by matrix, over A and B.
pub(super) struct DataInf<'a> {
    stage: &'a Stage,
    groups: &'a Groups,
    parts: Vec<Part>,
}

/// One matrix of the adapter.
struct Part {
    /// Gradients `[samples, entries]`.
    gradients: Vec<f32>,
    entries: usize,
    /// `g_i · g_k`.
    gram: Vec<f32>,
    lambda: f64,
}

fn matrices(gradient: &Gradient) -> impl Iterator<Item = &Vec<f32>> {
    gradient.a.iter().chain(&gradient.b)
}

impl<'a> DataInf<'a> {
    pub(super) fn new(stage: &'a Stage, shared: &'a Shared) -> Self {
        let n = shared.loss.len();
        let count = shared.loss.first().map_or(0, |g| matrices(g).count());
        let part = |m: usize| {
            let gradients: Vec<f32> = shared.loss.iter().filter_map(|g| matrices(g).nth(m)).flatten().copied().collect();
            let entries = gradients.len() / n;
            let gram = times_transposed(&gradients, &gradients, entries);
            let trace: f64 = (0..n).map(|i| f64::from(gram[i * n + i])).sum();
            Part { gradients, entries, gram, lambda: (DAMPING * trace / (n * entries) as f64).max(1e-20) }
        };
        Self { stage, groups: &shared.groups, parts: (0..count).map(part).collect() }
    }
}

impl Method for DataInf<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = of_query(self.stage, self.groups, query, Seed::Loss)?;
        let n = self.stage.samples.len();
        let mut scores = vec![0.0; n];
        for (part, v) in self.parts.iter().zip(matrices(&query)) {
            let products: Vec<f64> = part.gradients.chunks_exact(part.entries).map(|g| dot(g, v)).collect();
            let ratio = |i: usize| products[i] / (part.lambda + f64::from(part.gram[i * n + i])) / n as f64;
            let ratios: Vec<f32> = (0..n).map(|i| ratio(i) as f32).collect();
            for (k, score) in scores.iter_mut().enumerate() {
                *score += (products[k] - dot(&ratios, &part.gram[k * n..(k + 1) * n])) / part.lambda;
            }
        }
        Ok(scores)
    }
}

fn eigen(matrix: &[f32], n: usize) -> SymmetricEigen<f64, nalgebra::Dyn> {
    DMatrix::from_fn(n, n, |i, j| f64::from(matrix[i * n + j] + matrix[j * n + i]) / 2.0).symmetric_eigen()
}

/// TrackStar's recipe (Chang and others 2024) without an optimizer's moments: projected B-gradients of every site, divided by the root of their
/// second moment, brought to length one.
pub(super) struct TrackStar<'a> {
    stage: &'a Stage,
    groups: &'a Groups,
    projection: Projection,
    /// Inverse roots of the second moments, group by group.
    roots: Vec<Vec<f32>>,
    rows: Vec<Vec<f32>>,
}

impl<'a> TrackStar<'a> {
    pub(super) fn new(stage: &'a Stage, shared: &'a Shared) -> Self {
        let groups = &shared.groups;
        let projection = Projection::drawn(groups, 16, 0);
        let n = 16 * groups.rank();
        let root = |group: usize| {
            let mut moment = vec![0.0; n * n];
            for gradient in &shared.loss {
                let g = projection.apply(group, &gradient.b[group], groups.rank());
                add_transposed_times(&mut moment, &g, &g, 1, 1.0);
            }
            let eigen = eigen(&moment, n);
            let damping = DAMPING * eigen.eigenvalues.mean().max(1e-20);
            let scaled = DMatrix::from_fn(n, n, |i, j| eigen.eigenvectors[(i, j)] / (eigen.eigenvalues[j].max(0.0) + damping).sqrt());
            (scaled * eigen.eigenvectors.transpose()).iter().map(|&x| x as f32).collect()
        };
        let roots = (0..groups.parts.len()).map(root).collect();
        let mut method = Self { stage, groups, projection, roots, rows: Vec::new() };
        method.rows = shared.loss.iter().map(|g| method.row(g)).collect();
        method
    }

    fn row(&self, gradient: &Gradient) -> Vec<f32> {
        let part = |(group, root): (usize, &Vec<f32>)| {
            let g = self.projection.apply(group, &gradient.b[group], self.groups.rank());
            times_transposed(&g, root, g.len())
        };
        let mut row: Vec<f32> = self.roots.iter().enumerate().flat_map(part).collect();
        to_unit(&mut row);
        row
    }
}

impl Method for TrackStar<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = self.row(&of_query(self.stage, self.groups, query, Seed::Loss)?);
        Ok(self.rows.iter().map(|row| dot(row, &query)).collect())
    }
}

/// EK-FAC (George and others 2018; Grosse and others 2023) over the B-gradients, with the empirical Fisher; from [`Seed::Unit`] the unprojected
/// score R with Kronecker inverses.
pub(super) struct EkFac<'a> {
    stage: &'a Stage,
    groups: &'a Groups,
    seed: Seed,
    bases: Vec<Basis>,
    rows: Vec<Vec<f32>>,
}

/// One group's eigenbasis: of the gradients at its outputs and of its branch's inputs, transposed, and damped second moments in it.
struct Basis {
    outs: Vec<f32>,
    ranks: Vec<f32>,
    moments: Vec<f32>,
}

impl Basis {
    /// `Uᵀ G V`.
    fn rotate(&self, g: &[f32], rank: usize) -> Vec<f32> {
        let outs = g.len() / rank;
        let mut left = vec![0.0; g.len()];
        add_times(&mut left, &self.outs, g, outs, 1.0);
        times_transposed(&left, &self.ranks, rank)
    }
}

impl<'a> EkFac<'a> {
    pub(super) fn new(stage: &'a Stage, shared: &'a Shared, seed: Seed) -> Result<Self, Failure> {
        let groups = &shared.groups;
        let rank = groups.rank();
        let mut moments: Vec<(Vec<f32>, Vec<f32>)> = groups.parts.iter().map(|p| (vec![0.0; p.2 * p.2], vec![0.0; rank * rank])).collect();
        for tokens in &stage.samples {
            factors(stage, groups, tokens, 1, seed, &mut |f| {
                let (outs, ranks) = &mut moments[f.group];
                add_transposed_times(outs, f.at.dy, f.at.dy, f.rows, 1.0);
                add_transposed_times(ranks, f.at.u, f.at.u, f.rows, 1.0);
            })?;
        }
        let vectors = |moment: &[f32], n: usize| -> Vec<f32> {
            // Column-major eigenvectors are their transpose row by row.
            eigen(moment, n).eigenvectors.iter().map(|&x| x as f32).collect()
        };
        let gradients = if seed == Seed::Unit { &shared.unit } else { &shared.loss };
        let basis = |(group, (outs, ranks)): (usize, &(Vec<f32>, Vec<f32>))| {
            let (_, _, n, _) = groups.parts[group];
            let mut basis = Basis { outs: vectors(outs, n), ranks: vectors(ranks, rank), moments: vec![0.0; n * rank] };
            for gradient in gradients {
                let rotated = basis.rotate(&gradient.b[group], rank);
                basis.moments.iter_mut().zip(rotated).for_each(|(m, g)| *m += g * g / gradients.len() as f32);
            }
            let damping = DAMPING as f32 * basis.moments.iter().sum::<f32>() / basis.moments.len() as f32;
            basis.moments.iter_mut().for_each(|m| *m += damping.max(1e-20));
            basis
        };
        let bases = moments.iter().enumerate().map(basis).collect();
        let mut method = Self { stage, groups, seed, bases, rows: Vec::new() };
        method.rows = gradients.iter().map(|g| method.row(g)).collect();
        Ok(method)
    }

    /// The gradient in the eigenbasis, divided by the root of its second moment; score R's rows have length one.
    fn row(&self, gradient: &Gradient) -> Vec<f32> {
        let part = |(basis, b): (&Basis, &Vec<f32>)| {
            let rotated = basis.rotate(b, self.groups.rank());
            rotated.into_iter().zip(&basis.moments).map(|(g, m)| g / m.sqrt()).collect::<Vec<_>>()
        };
        let mut row: Vec<f32> = self.bases.iter().zip(&gradient.b).flat_map(part).collect();
        if self.seed == Seed::Unit {
            to_unit(&mut row);
        }
        row
    }
}

impl Method for EkFac<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = self.row(&of_query(self.stage, self.groups, query, self.seed)?);
        Ok(self.rows.iter().map(|row| dot(row, &query)).collect())
    }
}
