//! Dot products and cosines of whole adapter gradients (TracIn at the last checkpoint).

use super::{Method, Shared};
use crate::Failure;
use crate::gradient::{Gradient, Groups, Seed, dot, of_query};
use crate::stage::{Query, Stage};

/// `g_i · g_q` over A and B, or its cosine.
pub(super) struct Plain<'a> {
    stage: &'a Stage,
    groups: &'a Groups,
    samples: &'a [Gradient],
    cosine: bool,
    lengths: Vec<f64>,
}

fn product(a: &Gradient, b: &Gradient) -> f64 {
    a.a.iter().zip(&b.a).chain(a.b.iter().zip(&b.b)).map(|(a, b)| dot(a, b)).sum()
}

impl<'a> Plain<'a> {
    pub(super) fn new(stage: &'a Stage, shared: &'a Shared, cosine: bool) -> Self {
        let lengths = shared.loss.iter().map(|g| product(g, g).sqrt().max(1e-20)).collect();
        Self { stage, groups: &shared.groups, samples: &shared.loss, cosine, lengths }
    }
}

impl Method for Plain<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = of_query(self.stage, self.groups, query, Seed::Loss)?;
        let products = self.samples.iter().map(|g| product(g, &query));
        // The query's own length is the same for all samples.
        Ok(products.zip(&self.lengths).map(|(p, length)| if self.cosine { p / length } else { p }).collect())
    }
}
