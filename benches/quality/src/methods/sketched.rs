//! Score R in floats: unit token gradients, ±1 sketches of the B-gradients at some sites, unit rows, dot products.

use super::{Method, Shared};
use crate::Failure;
use crate::gradient::{Gradient, Groups, Seed, dot, of_query, to_unit};
use crate::stage::{Query, Stage};
use model_runtime::shape::Site;
use model_runtime::train::SplitMix64;
use model_runtime::train::gemm::add_times;

const PROJECTION_SEED: u64 = 0x51_67a5;

/// Signs `[rows, out]` of every group; all ones of none.
pub(super) struct Projection {
    rows: usize,
    signs: Vec<Vec<f32>>,
}

impl Projection {
    pub(super) fn new(groups: &Groups, rows: usize) -> Self {
        let mut rng = SplitMix64::new(PROJECTION_SEED);
        let mut sign = || if rng.next_u64() >> 63 == 0 { 1.0 } else { -1.0 };
        Self { rows, signs: groups.parts.iter().map(|&(_, _, outs, _)| (0..rows * outs).map(|_| sign()).collect()).collect() }
    }

    /// `P·G`, `[rows, rank]`, of one group's B-gradient `[out, rank]`.
    pub(super) fn apply(&self, group: usize, b: &[f32], rank: usize) -> Vec<f32> {
        let mut sketch = vec![0.0; self.rows * rank];
        add_times(&mut sketch, &self.signs[group], b, b.len() / rank, 1.0);
        sketch
    }
}

/// What is sketched.
#[derive(Clone, Copy)]
pub(super) struct Sketch {
    /// Sites.
    pub sites: &'static [Site],
    /// Rows of the projection; the whole B-gradient without.
    pub rows: Option<usize>,
}

/// What an index sketches by default.
pub(super) const DEFAULT: &[Site] = &[Site::O, Site::Gate, Site::Up];
/// All of the feed-forward layer's sites.
pub(super) const MLP: &[Site] = &[Site::Gate, Site::Up, Site::Down];

/// Score R.
pub(super) struct Sketched<'a> {
    stage: &'a Stage,
    groups: &'a Groups,
    sites: &'static [Site],
    projection: Option<Projection>,
    rows: Vec<Vec<f32>>,
}

impl<'a> Sketched<'a> {
    pub(super) fn new(stage: &'a Stage, shared: &'a Shared, sketch: Sketch) -> Self {
        let projection = sketch.rows.map(|rows| Projection::new(&shared.groups, rows));
        let mut method = Self { stage, groups: &shared.groups, sites: sketch.sites, projection, rows: Vec::new() };
        method.rows = shared.unit.iter().map(|g| method.row(g)).collect();
        method
    }

    fn row(&self, gradient: &Gradient) -> Vec<f32> {
        let sketched = self.groups.parts.iter().zip(&gradient.b).enumerate().filter(|(_, (part, _))| self.sites.contains(&part.1));
        let sketch = |(group, (_, b)): (usize, (_, &Vec<f32>))| match &self.projection {
            Some(projection) => projection.apply(group, b, self.groups.rank()),
            None => b.clone(),
        };
        let mut row: Vec<f32> = sketched.flat_map(sketch).collect();
        to_unit(&mut row);
        row
    }
}

impl Method for Sketched<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = self.row(&of_query(self.stage, self.groups, query, Seed::Unit)?);
        Ok(self.rows.iter().map(|row| dot(row, &query)).collect())
    }
}
