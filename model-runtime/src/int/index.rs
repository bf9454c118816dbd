//! The attribution index: every sample's gradient sketch, brought to one length.
//!
//! `GS[i]` are the parts of row `i`, one a site. All rows have the same length, so no later query can overrun a score (Cauchy-Schwarz), and no
//! sample gains by a larger gradient. A row that doesn't earn (a copy of an earlier sample, a zero sketch) is zero.

use super::adapter::IntAdapter;
use super::bounds::{field_bound, least_shift};
use super::engine::{RunError, Runtime};
use super::quantise::IntModel;
use super::sketch::{Projected, Sketcher, site_activation, site_gradient, sketch_length};
use super::trace::{Keep, Mode, Span, Trace};
use super::unit::{MIN_LENGTH_LOG, UnitRow};
use crate::semantics::{ACT_BITS, Dims, Op, Rounding, Seed, Semantics, SketchShape};
use crate::shape::Site;
use crate::tensor::{Tensor, TensorMap};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use thiserror::Error;

/// Most rows of an index: relevances are below `2^13` and their sum stays below `2^30`.
pub const MAX_ROWS: usize = 1 << 17;
/// Most entries of a sketch.
pub const MAX_SKETCH: usize = 1 << 14;
/// Scores of a row with itself have so many bits.
pub const SCORE_BITS: u32 = 14;
/// What a row scores on itself: its length is 15/16 of a power of two.
pub const SELF_SCORE: f64 = 14_400.0;
/// Samples that the sketch's units are chosen by.
const PILOT: usize = 64;
/// The middle pilot sample's largest entry before its length is set, in bits; the rest of 15 is room for larger ones.
const SKETCH_BITS: i32 = 7;

/// Why an index can't be built.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum IndexError {
    /// Told to stop by whoever watches progress.
    #[error("stopped")]
    Stopped,
    /// A sample couldn't be run.
    #[error("sample {sample}: {source}")]
    Sample {
        /// Row.
        sample: usize,
        /// What happened.
        source: RunError,
    },
    /// The model or adapter couldn't be prepared.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Options that don't fit.
    #[error("{what}: expected {expected}, found {found}")]
    Options {
        /// Which option.
        what: &'static str,
        /// What is required.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A bound can't be met.
    #[error("operation `{op}`: bound {bound:.0} exceeds {limit:.0}")]
    Bound {
        /// Output tensor of the operation.
        op: String,
        /// Its bound.
        bound: f64,
        /// The limit.
        limit: f64,
    },
}

/// Choices made when an index is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexOptions {
    /// Rows of the projection of a site's output side, a power of two.
    pub rows: usize,
    /// Most entries of a sketch: where all ranks would exceed it, ranks are projected too, then rows are fewer.
    pub cap: usize,
    /// Sites to sketch; gate, up and o, as far as the adapter covers them, or all it covers where that is neither gate nor up.
    pub sites: Option<Vec<Site>>,
    /// What the projections' signs are drawn from.
    pub seed: Seed,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { rows: 32, cap: MAX_SKETCH / 4, sites: None, seed: Seed::default() }
    }
}

/// An attribution index.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Full parameters, sketch and attribution operations included.
    pub semantics: Semantics,
    /// `GS [i, l, a, k]` and `G.live [i]`, whether a row has its length or is zero.
    pub tensors: TensorMap,
    /// True number of rows.
    pub rows: usize,
}

fn refuse<T>(what: &'static str, expected: &str, found: impl ToString) -> Result<T, IndexError> {
    Err(IndexError::Options { what, expected: expected.to_owned(), found: found.to_string() })
}

/// What is sketched under the options.
fn sketch_shape(sem: &Semantics, options: &IndexOptions) -> Result<SketchShape, IndexError> {
    let Some(lora) = sem.lora.as_ref().filter(|l| !l.sites.is_empty()) else { return refuse("adapter", "at least one site", "none") };
    if !options.rows.is_power_of_two() || options.rows > 1 << 10 {
        return refuse("sketch rows", "a power of two up to 1024", options.rows);
    }
    if !(1..=MAX_SKETCH).contains(&options.cap) {
        return refuse("sketch size", &format!("1 to {MAX_SKETCH}"), options.cap);
    }
    let best: Vec<Site> = lora.sites.iter().copied().filter(|s| matches!(s, Site::O | Site::Gate | Site::Up)).collect();
    let default = if best.iter().all(|s| *s == Site::O) { lora.sites.clone() } else { best };
    let mut sites = options.sites.clone().unwrap_or(default);
    sites.sort_unstable();
    sites.dedup();
    if sites.is_empty() || sites.iter().any(|s| !lora.sites.contains(s)) {
        let names: Vec<&str> = lora.sites.iter().map(|s| s.name()).collect();
        return refuse("sketch sites", &format!("some of the adapter's ({})", names.join(", ")), format!("{sites:?}"));
    }
    let pairs = sites.len() * sem.shape.layers;
    if pairs > options.cap {
        return refuse("sketch size", &format!("at least {pairs}, one for each layer and site"), options.cap);
    }
    let whole = |rows: usize, ranks: usize| pairs * rows * ranks <= options.cap;
    if whole(options.rows, lora.rank) {
        return Ok(SketchShape { sites, rows: options.rows, ranks: None, seed: options.seed });
    }
    // Rows are worth more than ranks: ranks give way first, down to four.
    let rank = lora.rank.next_power_of_two();
    let (mut rows, mut ranks) = (options.rows, (rank / 2).max(1));
    while !whole(rows, ranks) {
        if ranks > 4 || rows == 1 { ranks /= 2 } else { rows /= 2 }
    }
    Ok(SketchShape { sites, rows, ranks: Some(ranks), seed: options.seed })
}

/// The noise floor of an index: what the best of unrelated gradients' sketches scores by the projection's chance alone.
///
/// The cosine of two independent random vectors of `entries` has variance `1/entries` (measured: a standard deviation 1.03 to 1.19 times as large,
/// `quality chance`), and the largest of `rows` such is about `√(2·ln(2·rows)/entries)`. Rows are taken as padded, so that a growing index keeps
/// its floor.
pub fn noise_floor(entries: usize, rows: usize) -> i64 {
    let chance = 2.0 * libm::log(2.0 * rows.next_power_of_two() as f64) / entries.max(1) as f64;
    (SELF_SCORE * libm::sqrt(chance)).ceil().min(SELF_SCORE) as i64
}

fn quantile(values: &mut [i32], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((values.len() - 1) as f64 * q) as usize;
    let (_, value, _) = values.select_nth_unstable(at);
    f64::from(*value)
}

/// The shift that brings `typical` into 90 % of `bits` and keeps `largest` four times below the quotient's limit.
fn calibrated_shift(typical: f64, largest: f64, bits: u32) -> u32 {
    least_shift(typical / 0.9, bits).max(least_shift(largest * 4.0, 16)).min(15)
}

fn record(sem: &mut Semantics, name: &str, op: Op, max_acc: f64, exp: i32) -> Result<(), IndexError> {
    let (bound, limit) = field_bound(&op, false, max_acc);
    if bound >= limit {
        return Err(IndexError::Bound { op: name.to_owned(), bound, limit });
    }
    sem.ops.insert(name.to_owned(), op);
    sem.exps.insert(name.to_owned(), exp);
    Ok(())
}

struct Builder<'a> {
    runtime: Runtime,
    sem: Semantics,
    sketcher: Sketcher,
    samples: &'a [Vec<u32>],
}

impl Builder<'_> {
    fn trace(&self, sample: usize) -> Result<Trace, IndexError> {
        let tokens = &self.samples[sample];
        let d = Dims { t: tokens.len(), s: tokens.len().max(2) - 1, ..Dims::new(&self.sem, 1, 1) };
        let trace = self.runtime.run(tokens, 1, d, Mode::Sample, Keep::Sketch, Span::Exchange);
        trace.map_err(|source| IndexError::Sample { sample, source })
    }

    fn exp(&self, name: &str) -> i32 {
        self.sem.exps.get(name).copied().unwrap_or(0)
    }

    /// Some samples, evenly spread.
    fn pilot(&self) -> Result<Vec<(usize, Trace)>, IndexError> {
        let count = self.samples.len().min(PILOT);
        (0..count).into_par_iter().map(|i| i * self.samples.len() / count).map(|i| Ok((i, self.trace(i)?))).collect()
    }

    /// Plans `pdS`, `ruS`, `skS` and `score`.
    fn plan(&mut self) -> Result<(), IndexError> {
        let pilot = self.pilot()?;
        let project = |(i, trace): &(usize, Trace)| self.sketcher.projected(trace).map_err(|source| IndexError::Sample { sample: *i, source });
        let sums: Vec<Vec<Projected>> = pilot.iter().map(project).collect::<Result<_, _>>()?;
        for at in 0..self.sem.sketched().len() {
            let parts: Vec<&Projected> = sums.iter().map(|s| &s[at]).collect();
            self.plan_sides(&parts)?;
        }
        // A site whose products are much finer than the others' is projected more coarsely, until one unit serves all.
        for _ in 0..8 {
            match self.plan_sketch(&pilot)? {
                Some((site, bits)) => self.coarsen(site, bits)?,
                None => return self.plan_score(),
            }
        }
        refuse("adapter", "sites whose gradients are within 2^40 of each other", "a wider spread")
    }

    /// Bits of `pdS`: a sum of as many products as there are tokens must stay below `2^30`.
    fn side_bits(&self) -> u32 {
        let context = self.sem.shape.context.next_power_of_two() as f64;
        (4..=ACT_BITS).rev().find(|&b| context * 2048.0 * f64::from(b - 1).exp2() <= 30f64.exp2() * 0.98).unwrap_or(4)
    }

    fn plan_sides(&mut self, parts: &[&Projected]) -> Result<(), IndexError> {
        let Some(site) = parts.first().map(|p| p.site) else { return Ok(()) };
        let gradient = site_gradient(site);
        let width = match gradient {
            "gout" => self.sem.ops.get("gin").map_or(16, |op| op.bits).max(self.stream_bits()),
            _ => self.sem.ops.get(gradient).map_or(16, |op| op.bits),
        };
        let max = self.sem.shape.site_dims(site).0 as f64 * f64::from(width - 1).exp2();
        let sums = parts.iter().map(|p| p.gradient.as_slice());
        self.plan_side(&format!("pd{}", site.name()), sums, self.side_bits(), max, self.exp(gradient))?;
        if parts.iter().any(|p| p.activation.is_some()) {
            let rank = self.sem.lora.as_ref().map_or(1, |l| l.rank) as f64;
            let sums = parts.iter().filter_map(|p| p.activation.as_deref());
            self.plan_side(&format!("ru{}", site.name()), sums, ACT_BITS, rank * 2048.0, self.exp(&format!("u{}", site.name())))?;
        }
        Ok(())
    }

    /// Width of the last layer's `gout`, which is `2^lift·ghf`.
    fn stream_bits(&self) -> u32 {
        let constant = |name| self.sem.consts.get(name).copied().unwrap_or(0);
        (constant("ghf.length") + constant("ghf.lift")) as u32 + 1
    }

    fn plan_side<'s>(&mut self, name: &str, sums: impl Iterator<Item = &'s [i32]>, bits: u32, max: f64, exp: i32) -> Result<(), IndexError> {
        let mut all: Vec<i32> = sums.flatten().map(|x| x.abs()).filter(|&x| x > 0).collect();
        let largest = f64::from(all.iter().copied().max().unwrap_or(1));
        // What can't exceed 16 bits needs no room for the unexpected.
        let calibrated = calibrated_shift(quantile(&mut all, 0.9995), largest, bits);
        let shift = calibrated.max(least_shift(max, 16).min(calibrated + 2)).min(15);
        let op = Op { shift, bits, rounding: Rounding::Clamp, coefs: vec![1] };
        record(&mut self.sem, name, op, max, exp - shift as i32)
    }

    /// Makes `pdS` coarser by some bits.
    fn coarsen(&mut self, site: Site, bits: u32) -> Result<(), IndexError> {
        let name = format!("pd{}", site.name());
        let op = self.sem.ops.get_mut(&name).map(|op| {
            let more = bits.min(15 - op.shift.min(15));
            op.shift += more;
            more
        });
        match op {
            Some(more) if more > 0 => {
                *self.sem.exps.entry(name).or_insert(0) -= more as i32;
                Ok(())
            }
            _ => refuse("adapter", "sites whose gradients can share one unit", format!("`{name}` finer by 2^{bits}")),
        }
    }

    /// Plans `skS` in one unit for all sites, by the middle pilot sample; names a site that is too fine for it.
    fn plan_sketch(&mut self, pilot: &[(usize, Trace)]) -> Result<Option<(Site, u32)>, IndexError> {
        let sites = self.sem.sketched().to_vec();
        let exps: Vec<i32> = sites.iter().map(|&s| self.exp(&format!("pd{}", s.name())) + self.exp(&site_activation(&self.sem, s))).collect();
        let largest = |(i, trace): &(usize, Trace)| -> Result<f64, IndexError> {
            let wrap = |source| IndexError::Sample { sample: *i, source };
            let sides = self.sketcher.sides(&self.sem, trace).map_err(wrap)?;
            let mut most = 0f64;
            for (sides, exp) in sides.iter().zip(&exps) {
                let sums = self.sketcher.contracted(trace, sides, 1).map_err(wrap)?;
                most = sums.iter().fold(most, |m, x| m.max(f64::from(x.abs()) * f64::from(-exp).exp2()));
            }
            Ok(most)
        };
        let mut sizes: Vec<f64> = pilot.par_iter().map(largest).collect::<Result<_, _>>()?;
        sizes.retain(|&x| x > 0.0);
        sizes.sort_by(f64::total_cmp);
        let middle = sizes.get(sizes.len() / 2).copied().unwrap_or(1.0);
        let peak = sizes.last().copied().unwrap_or(1.0);
        // The middle one gets its bits, the largest keeps four bits of room …
        let calibrated = (SKETCH_BITS - middle.log2().ceil() as i32).min(11 - peak.log2().ceil() as i32);
        let context = self.sem.shape.context.next_power_of_two() as f64;
        let bound = |site: Site| {
            let bits = self.sem.ops.get(&format!("pd{}", site.name())).map_or(ACT_BITS, |op| op.bits);
            context * f64::from(bits - 1).exp2() * 2048.0
        };
        // … and where it costs at most two bits, no sum whatever can leave its range.
        let certain = sites.iter().zip(&exps).map(|(&site, exp)| exp - least_shift(bound(site), 16) as i32).min().unwrap_or(0);
        let unit = if certain >= calibrated - 2 { calibrated.min(certain) } else { calibrated };
        let unit = unit.min(exps.iter().min().map_or(unit, |finest| finest - 1));
        let bounds: Vec<f64> = sites.iter().map(|&site| bound(site)).collect();
        for ((&site, exp), max) in sites.iter().zip(exps).zip(bounds) {
            let shift = (exp - unit) as u32;
            if shift > 15 {
                return Ok(Some((site, shift - 15)));
            }
            let op = Op { shift, bits: 16, rounding: Rounding::Exact, coefs: vec![1] };
            record(&mut self.sem, &format!("sk{}", site.name()), op, max, unit)?;
        }
        Ok(None)
    }

    fn plan_score(&mut self) -> Result<(), IndexError> {
        let unit = sketch_length(&self.sem);
        let shift = (2 * unit.log() - SCORE_BITS).max(1);
        let max = self.sem.sketch_len() as f64 * f64::from(2 * unit.log()).exp2();
        let op = Op { shift, bits: 16, rounding: Rounding::Exact, coefs: vec![1] };
        record(&mut self.sem, "score", op, max, (2 * unit.log() - shift) as i32)
    }

    /// Row `i`.
    fn row(&self, sample: usize) -> Result<UnitRow, IndexError> {
        let trace = self.trace(sample)?;
        self.sketcher.row(&self.sem, &trace).map_err(|source| IndexError::Sample { sample, source })
    }

    /// `GS` and `G.live` of all rows that earn.
    fn rows(&mut self, earns: &[bool], progress: &(dyn Fn(usize, usize) -> bool + Sync)) -> Result<TensorMap, IndexError> {
        let (done, total) = (AtomicUsize::new(0), self.samples.len());
        let one = |i: usize| -> Result<UnitRow, IndexError> {
            let row = if earns[i] { self.row(i)? } else { UnitRow::default() };
            let goes_on = progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            if goes_on { Ok(row) } else { Err(IndexError::Stopped) }
        };
        let rows: Vec<UnitRow> = (0..total).into_par_iter().map(one).collect::<Result<_, _>>()?;
        let (d, padded) = (Dims::new(&self.sem, 1, 1), total.next_power_of_two());
        let per_site = d.l * d.a * d.k;
        let bits = sketch_length(&self.sem).log() + 1;
        let mut map = TensorMap::new();
        for (at, site) in self.sem.sketched().to_vec().into_iter().enumerate() {
            let mut data = vec![0; padded * per_site];
            for (row, out) in rows.iter().zip(data.chunks_exact_mut(per_site)).filter(|(row, _)| row.live) {
                out.copy_from_slice(&row.y[at * per_site..(at + 1) * per_site]);
            }
            let name = format!("G{}", site.name());
            self.sem.weight_bits.insert(name.clone(), bits);
            self.sem.exps.insert(name.clone(), bits as i32 - 1);
            map.insert(name, Tensor { dims: vec![padded, d.l, d.a, d.k], data });
        }
        let mut live: Vec<i32> = rows.iter().map(|row| i32::from(row.live)).collect();
        live.resize(padded, 0);
        map.insert("G.live".to_owned(), Tensor { dims: vec![padded], data: live });
        Ok(map)
    }
}

/// Runs every sample, chooses the sketch's and the attribution's parameters and computes the index.
///
/// `samples[i]` becomes row `i` (BOS included, 2 to `context` tokens), a zero row where `earns[i]` is false; `progress(done, total)` says
/// after every sample whether to go on.
///
/// # Errors
///
/// When an option doesn't fit, a sample can't be run, or the sites' gradients can't share a unit.
pub fn build_index(
    model: &IntModel,
    adapter: &IntAdapter,
    samples: &[Vec<u32>],
    earns: &[bool],
    options: &IndexOptions,
    progress: &(dyn Fn(usize, usize) -> bool + Sync),
) -> Result<Index, IndexError> {
    if samples.is_empty() || samples.len() > MAX_ROWS {
        return refuse("samples", &format!("1 to {MAX_ROWS}"), samples.len());
    }
    if earns.len() != samples.len() {
        return refuse("earning rows", &format!("{}, one a sample", samples.len()), earns.len());
    }
    let mut sem = adapter.semantics.clone();
    let runtime = Runtime::new(sem.clone(), &model.tensors, Some(&adapter.tensors))?;
    sem.sketch = Some(sketch_shape(&sem, options)?);
    if sketch_length(&sem).log() < MIN_LENGTH_LOG + 2 {
        return refuse("sketch size", &format!("at most {MAX_SKETCH}"), sem.sketch_len());
    }
    sem.consts.insert("theta".to_owned(), noise_floor(sem.sketch_len(), samples.len()));
    let sketcher = Sketcher::new(&sem)?;
    let mut builder = Builder { runtime, sem, sketcher, samples };
    builder.plan()?;
    let tensors = builder.rows(earns, progress)?;
    Ok(Index { semantics: builder.sem, tensors, rows: samples.len() })
}
