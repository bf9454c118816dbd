//! Score R in floats: unit token gradients, ±1 sketches of the B-gradients at some sites, unit rows, dot products.

use super::{Method, Shared};
use crate::Failure;
use crate::gradient::{Gradient, Groups, Seed, dot, gradient, to_unit};
use crate::stage::{Query, Stage};
use model_runtime::int::rotation::Rotation;
use model_runtime::semantics::Seed as IndexSeed;
use model_runtime::shape::Site;
use model_runtime::tables::{self, Side};
use model_runtime::train::SplitMix64;
use model_runtime::train::gemm::add_times;

/// Signs `[rows, out]` of every group; all ones of none.
pub(super) struct Projection {
    rows: usize,
    signs: Vec<Vec<f32>>,
    /// What the integer model's residual stream is rotated by, and the groups whose outputs are in it.
    rotated: Option<(Rotation, Vec<bool>)>,
}

impl Projection {
    /// Independent signs.
    pub(super) fn drawn(groups: &Groups, rows: usize, seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed ^ 0x51_67a5);
        let mut sign = || if rng.next_u64() >> 63 == 0 { 1.0 } else { -1.0 };
        let signs = groups.parts.iter().map(|&(_, _, outs, _)| (0..rows * outs).map(|_| sign()).collect()).collect();
        Self { rows, signs, rotated: None }
    }

    /// Those of the datanet's index.
    fn of_index(stage: &Stage, groups: &Groups, rows: usize) -> Self {
        let seed = IndexSeed::of(&stage.bank.datanet.root(), None);
        let signs = |&(_, site, outs, _): &(usize, Site, usize, usize)| {
            let projection = tables::Projection::new(seed, site, Side::Output, rows, outs.next_power_of_two().trailing_zeros() as usize);
            (0..rows * outs).map(|i| projection.at(i / outs, i % outs) as f32).collect()
        };
        let in_stream = groups.parts.iter().map(|part| matches!(part.1, Site::O | Site::Down)).collect();
        let rotated = Some((Rotation::new(stage.model.shape.width), in_stream));
        Self { rows, signs: groups.parts.iter().map(signs).collect(), rotated }
    }

    /// `P·G`, `[rows, rank]`, of one group's B-gradient `[out, rank]`.
    pub(super) fn apply(&self, group: usize, b: &[f32], rank: usize) -> Vec<f32> {
        let mut sketch = vec![0.0; self.rows * rank];
        let mut b = b.to_vec();
        if let Some((rotation, in_stream)) = &self.rotated
            && in_stream[group]
        {
            rotation.columns(&mut b);
        }
        add_times(&mut sketch, &self.signs[group], &b, b.len() / rank, 1.0);
        sketch
    }
}

/// What is sketched, written `r:SITES:ROWS[:SEED][:unit]`, as in `r:o,gate,up:32:7`; whole gradients by 0 rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// Sites.
    pub sites: Vec<Site>,
    /// Rows of the projection; the whole B-gradient by none.
    pub rows: usize,
    /// What the projection is drawn from; it's the index' own without.
    pub seed: Option<u64>,
    /// Whether every site and layer is brought to one length, and not the row alone.
    pub unit: bool,
}

impl std::str::FromStr for Sketch {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || format!("`{text}`: expected r:SITES:ROWS[:SEED][:unit], as in r:o,gate,up:32:7");
        let mut parts = text.split(':');
        if parts.next() != Some("r") {
            return Err(wrong().into());
        }
        let site = |name: &str| Site::ALL.into_iter().find(|s| s.name() == name);
        let sites: Option<Vec<Site>> = parts.next().and_then(|names| names.split(',').map(site).collect());
        let rows = parts.next().and_then(|rows| rows.parse().ok());
        let mut rest: Vec<&str> = parts.collect();
        let unit = rest.pop_if(|last| *last == "unit").is_some();
        let seed = rest.pop().map(|seed| seed.parse().map_err(|_| wrong())).transpose()?;
        let (Some(sites), Some(rows), true) = (sites, rows, rest.is_empty()) else { return Err(wrong().into()) };
        Ok(Self { sites, rows, seed, unit })
    }
}

/// Score R.
pub struct Sketched<'a> {
    stage: &'a Stage,
    groups: &'a Groups,
    sketch: Sketch,
    projection: Option<Projection>,
    rows: Vec<Vec<f32>>,
}

impl<'a> Sketched<'a> {
    /// Sketches every sample.
    pub fn new(stage: &'a Stage, shared: &'a Shared, sketch: Sketch) -> Self {
        let projection = (sketch.rows > 0).then(|| match sketch.seed {
            Some(seed) => Projection::drawn(&shared.groups, sketch.rows, seed),
            None => Projection::of_index(stage, &shared.groups, sketch.rows),
        });
        let mut method = Self { stage, groups: &shared.groups, sketch, projection, rows: Vec::new() };
        // Copies are zero rows.
        let row = |(gradient, &earns): (&Gradient, &bool)| method.sketched(gradient).into_iter().map(|x| if earns { x } else { 0.0 }).collect();
        method.rows = shared.unit.iter().zip(&stage.earns).map(row).collect();
        method
    }

    /// A sample's row.
    #[cfg(test)]
    pub fn row(&self, sample: usize) -> &[f32] {
        &self.rows[sample]
    }

    /// The row of a sequence whose loss counts from `first`.
    pub fn row_of(&self, tokens: &[u32], first: usize) -> Result<Vec<f32>, Failure> {
        Ok(self.sketched(&gradient(self.stage, self.groups, tokens, first, Seed::Unit)?))
    }

    /// Entries of a row.
    pub fn entries(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    fn sketched(&self, gradient: &Gradient) -> Vec<f32> {
        let sketched = self.groups.parts.iter().zip(&gradient.b).enumerate().filter(|(_, (part, _))| self.sketch.sites.contains(&part.1));
        let sketch = |(group, (_, b)): (usize, (_, &Vec<f32>))| {
            let mut sketch = match &self.projection {
                Some(projection) => projection.apply(group, b, self.groups.rank()),
                None => b.clone(),
            };
            if self.sketch.unit {
                to_unit(&mut sketch);
            }
            sketch
        };
        let mut row: Vec<f32> = sketched.flat_map(sketch).collect();
        to_unit(&mut row);
        row
    }
}

impl Method for Sketched<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = self.row_of(&query.tokens, query.prompt_len)?;
        Ok(self.rows.iter().map(|row| dot(row, &query)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketches_are_written_out() {
        let of = |text: &str| text.parse::<Sketch>();
        let sketch = |seed, unit| Sketch { sites: vec![Site::O, Site::Gate], rows: 32, seed, unit };
        assert_eq!(of("r:o,gate:32").unwrap(), sketch(None, false));
        assert_eq!(of("r:o,gate:32:7").unwrap(), sketch(Some(7), false));
        assert_eq!(of("r:o,gate:32:7:unit").unwrap(), sketch(Some(7), true));
        assert_eq!(of("r:o,gate:32:unit").unwrap(), sketch(None, true));
        for wrong in ["r", "r:o,gat:32", "r:o:many", "r:o:3:x", "r:o:3:4:5", "s:o:3"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
