//! The attribution index: sketches of every sample and the damped inverse of their second moment.
//!
//! `HS = RQ(Σ_i GS·GS)`, `MS ≈ c·(HS + λ)^-1`; the relation checks `(HS + λ)·MS = c·δ + residual` with a small residual.

use super::adapter::IntAdapter;
use super::bounds::{field_bound, least_shift};
use super::engine::{RunError, Runtime};
use super::gadgets::requantise;
use super::quantise::IntModel;
use super::sketch::Sketcher;
use super::trace::{Keep, Mode, Trace};
use crate::semantics::{ACT_BITS, Dims, FIELD, Op, Rounding, Semantics};
use crate::shape::Site;
use crate::tensor::{Tensor, TensorMap};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use thiserror::Error;

/// Bits of the second moment, sign included.
pub const MOMENT_BITS: u32 = 11;
/// Bits of the preconditioner, sign included.
pub const PRECONDITIONER_BITS: u32 = 13;

/// Why an index can't be built.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum IndexError {
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexOptions {
    /// Sketch rows, a power of two.
    pub rows: usize,
    /// Damping as a multiple of the mean diagonal of the second moment.
    pub damping: f64,
}

/// An attribution index.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Full parameters, sketch and attribution operations included.
    pub semantics: Semantics,
    /// `GS [i, l, a, r]`, `MS [l, a, r, a, r]`, `HS`, `HS.r`.
    pub tensors: TensorMap,
    /// True number of rows.
    pub rows: usize,
}

struct Builder<'a> {
    runtime: Runtime,
    sem: Semantics,
    sketcher: Sketcher,
    samples: &'a [Vec<u32>],
}

/// Sketch sums of one sample, by site.
type Sums = Vec<Vec<i32>>;

fn check_options(samples: &[Vec<u32>], options: &IndexOptions, sem: &Semantics) -> Result<(), IndexError> {
    let refuse = |what, expected: &str, found: String| Err(IndexError::Options { what, expected: expected.to_owned(), found });
    if !options.rows.is_power_of_two() {
        return refuse("sketch rows", "a power of two", options.rows.to_string());
    }
    if !(options.damping.is_finite() && options.damping > 0.0) {
        return refuse("damping", "a positive number", options.damping.to_string());
    }
    if sem.sites().is_empty() {
        return refuse("adapter", "at least one site", "none".to_owned());
    }
    if samples.is_empty() || samples.len() > 1 << 20 {
        return refuse("samples", "1 to 2^20", samples.len().to_string());
    }
    Ok(())
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

impl Builder<'_> {
    fn trace(&self, sample: usize) -> Result<Trace, IndexError> {
        let tokens = &self.samples[sample];
        let d = Dims { t: tokens.len(), s: tokens.len().max(2) - 1, ..Dims::new(&self.sem, 1, 1) };
        let trace = self.runtime.run(tokens, 1, d, Mode::Sample, Keep::Sketch, true);
        trace.map_err(|source| IndexError::Sample { sample, source })
    }

    /// Plans `pdS` from the projected gradients of some samples.
    fn plan_projection(&mut self) -> Result<(), IndexError> {
        let count = self.samples.len().min(32);
        let picks: Vec<usize> = (0..count).map(|i| i * self.samples.len() / count).collect();
        let sums: Vec<Vec<(Site, Vec<i32>)>> = picks
            .into_par_iter()
            .map(|i| self.sketcher.projected(&self.trace(i)?).map_err(|source| IndexError::Sample { sample: i, source }))
            .collect::<Result<_, _>>()?;
        let context = self.sem.shape.context as f64;
        let bits = (6..=ACT_BITS).rev().find(|&b| context * 2048.0 * f64::from(b - 1).exp2() <= 30f64.exp2()).unwrap_or(6);
        for (i, site) in self.sem.sites().to_vec().into_iter().enumerate() {
            let mut all: Vec<i32> = sums.iter().flat_map(|s| s[i].1.iter().map(|x| x.abs()).filter(|&x| x > 0)).collect();
            let largest = f64::from(all.iter().copied().max().unwrap_or(1));
            let shift = calibrated_shift(quantile(&mut all, 0.9995), largest, bits);
            let gradient = super::sketch::site_gradient(site);
            let width = self.sem.ops.get(gradient).or(self.sem.ops.get("ghf")).map_or(16, |op| op.bits);
            let max = self.sem.shape.site_dims(site).0 as f64 * f64::from(width - 1).exp2();
            let exp = self.sem.exps.get(gradient).copied().unwrap_or(0) - shift as i32;
            let op = Op { shift, bits, rounding: Rounding::Clamp, coefs: vec![1] };
            record(&mut self.sem, &format!("pd{}", site.name()), op, max, exp)?;
        }
        Ok(())
    }

    /// Sketch sums of every sample.
    fn sums(&self, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Vec<Sums>, IndexError> {
        let (done, total) = (AtomicUsize::new(0), self.samples.len());
        let one = |i: usize| -> Result<Sums, IndexError> {
            let trace = self.trace(i)?;
            let wrap = |source| IndexError::Sample { sample: i, source };
            let mut sums = Vec::new();
            for (site, mut acc) in self.sketcher.projected(&trace).map_err(wrap)? {
                let name = format!("pd{}", site.name());
                let pd = requantise(&mut acc, &self.sem.ops[&name], false)
                    .map_err(|bad| wrap(RunError::Range { op: name, layer: None, value: bad.value, low: bad.low, high: bad.high }))?;
                sums.push(self.sketcher.contracted(&trace, site, &pd).map_err(wrap)?);
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(sums)
        };
        (0..total).into_par_iter().map(one).collect()
    }

    /// Plans `skS` and rounds the rows of `GS`.
    fn rows(&mut self, i: usize, site: Site, sums: &[Sums], bits: u32, coarser: u32) -> Result<Tensor, IndexError> {
        let d = Dims::new(&self.sem, 1, 1);
        let name = format!("sk{}", site.name());
        let mut all: Vec<i32> = sums.iter().flat_map(|s| s[i].iter().map(|x| x.abs()).filter(|&x| x > 0)).collect();
        let largest = f64::from(all.iter().copied().max().unwrap_or(1));
        let shift = (calibrated_shift(quantile(&mut all, 0.999), largest, bits) + coarser).min(15);
        let pd = &self.sem.ops[&format!("pd{}", site.name())];
        let max = self.sem.shape.context as f64 * f64::from(pd.bits - 1).exp2() * 2048.0;
        let exp = |name: String| self.sem.exps.get(&name).copied().unwrap_or(0);
        let exp = exp(format!("pd{}", site.name())) + exp(format!("u{}", site.name())) - shift as i32;
        let op = Op { shift, bits, rounding: Rounding::Clamp, coefs: vec![1] };
        let mut data = Vec::with_capacity(sums.len().next_power_of_two() * d.l * d.a * d.r);
        for (sample, sums) in sums.iter().enumerate() {
            let row = requantise(&mut sums[i].clone(), &op, false).map_err(|bad| IndexError::Sample {
                sample,
                source: RunError::Range { op: name.clone(), layer: None, value: bad.value, low: bad.low, high: bad.high },
            })?;
            data.extend(row);
        }
        record(&mut self.sem, &name, op, max, exp)?;
        let padded = sums.len().next_power_of_two();
        data.resize(padded * d.l * d.a * d.r, 0);
        self.sem.weight_bits.insert(format!("G{}", site.name()), bits);
        self.sem.exps.insert(format!("G{}", site.name()), exp);
        Ok(Tensor { dims: vec![padded, d.l, d.a, d.r], data })
    }
}

/// `Σ_i G·G` of one site, `[l, x, y]`.
fn moment(g: &Tensor, layers: usize, n: usize) -> Vec<i64> {
    let mut acc = vec![0i64; layers * n * n];
    for row in g.data.chunks_exact(layers * n) {
        for (acc, g) in acc.chunks_exact_mut(n * n).zip(row.chunks_exact(n)) {
            for (acc, &x) in acc.chunks_exact_mut(n).zip(g).filter(|(_, x)| **x != 0) {
                acc.iter_mut().zip(g).for_each(|(a, &y)| *a += i64::from(x) * i64::from(y));
            }
        }
    }
    acc
}

/// Inverse of a symmetric positive definite matrix by Gauss-Jordan elimination; `None` if it's singular.
pub(crate) fn inverse(matrix: &[f64], n: usize) -> Option<Vec<f64>> {
    let width = 2 * n;
    let mut rows: Vec<f64> = vec![0.0; n * width];
    for x in 0..n {
        rows[x * width..x * width + n].copy_from_slice(&matrix[x * n..(x + 1) * n]);
        rows[x * width + n + x] = 1.0;
    }
    for pivot in 0..n {
        let scale = rows[pivot * width + pivot];
        if scale.abs() < 1e-9 {
            return None;
        }
        rows[pivot * width..(pivot + 1) * width].iter_mut().for_each(|x| *x /= scale);
        let pivot_row = rows[pivot * width..(pivot + 1) * width].to_vec();
        for (x, row) in rows.chunks_exact_mut(width).enumerate().filter(|(x, _)| *x != pivot) {
            debug_assert!(x < n);
            let factor = row[pivot];
            row.iter_mut().zip(&pivot_row).for_each(|(a, b)| *a -= factor * b);
        }
    }
    Some((0..n).flat_map(|x| rows[x * width + n..(x + 1) * width].to_vec()).collect())
}

/// A site's preconditioner: `MS`, `λ`, `c`.
struct Preconditioner {
    m: Tensor,
    lambda: i64,
    scale: i64,
}

/// Largest `|Σ_y (H + λδ)[x,y]·M[y,x'] - c·δ|` over a layer.
fn residual(h: &[i32], m: &[i32], n: usize, lambda: i64, scale: i64) -> i64 {
    let mut worst = 0;
    for x in 0..n {
        for y in 0..n {
            let sum: i64 = (0..n).map(|k| i64::from(h[x * n + k]) * i64::from(m[k * n + y])).sum();
            let target = if x == y { scale } else { 0 };
            worst = worst.max((sum + lambda * i64::from(m[x * n + y]) - target).abs());
        }
    }
    worst
}

/// Rounds `c·(H + λ)^-1` for the largest power of two `c` that fits; `None` if the residual is too large.
fn try_precondition(h: &[i32], layers: usize, n: usize, lambda: i64) -> Option<Preconditioner> {
    let damped = |l: usize| -> Vec<f64> {
        let layer = &h[l * n * n..(l + 1) * n * n];
        layer.iter().enumerate().map(|(i, &h)| f64::from(h) + if i / n == i % n { lambda as f64 } else { 0.0 }).collect()
    };
    let inverses: Vec<Vec<f64>> = (0..layers).map(|l| inverse(&damped(l), n)).collect::<Option<_>>()?;
    let largest = inverses.iter().flatten().fold(0f64, |m, x| m.max(x.abs()));
    let limit = f64::from(PRECONDITIONER_BITS - 1).exp2() - 1.0;
    let widest = (MOMENT_BITS + PRECONDITIONER_BITS - 2) as f64;
    let room = FIELD as f64 - (n as f64 * widest.exp2() + lambda as f64 * (limit + 1.0) + 65536.0);
    let scale = (0..30).rev().find(|&c: &i32| f64::from(c).exp2() * largest <= limit && f64::from(c).exp2() < room)?;
    let unit = f64::from(scale).exp2();
    let m: Vec<i32> = inverses.iter().flatten().map(|x| (x * unit).round() as i32).collect();
    let scale = 1i64 << scale;
    let fits = (0..layers).all(|l| {
        let at = l * n * n..(l + 1) * n * n;
        let worst = residual(&h[at.clone()], &m[at], n, lambda, scale);
        worst < 1 << 15 && worst * 4 < scale
    });
    fits.then(|| Preconditioner { m: Tensor { dims: Vec::new(), data: m }, lambda, scale })
}

fn precondition(h: &[i32], true_layers: usize, layers: usize, n: usize, damping: f64) -> Option<Preconditioner> {
    let trace: f64 = (0..true_layers * n).map(|i| f64::from(h[i * n + i % n])).sum();
    let mean = trace / (true_layers * n) as f64;
    let mut lambda = (damping * mean).round().max(1.0) as i64;
    for _ in 0..40 {
        if let Some(found) = try_precondition(h, layers, n, lambda) {
            return Some(found);
        }
        lambda += (lambda / 4).max(1);
    }
    None
}

/// Widths of `GS` and `mqS`: the second moment and the score must fit the field.
fn widths(rows: usize, total: usize, n: usize) -> (u32, u32) {
    let rows_log = rows.next_power_of_two().trailing_zeros();
    let total_log = (total as f64).log2();
    let g = (1 + (29 - rows_log.min(27)) / 2).clamp(3, ACT_BITS);
    let sum_limit = |g: u32| (n as f64).log2() + f64::from(PRECONDITIONER_BITS - 1 + g - 1) <= 29.5;
    let fits = |g: u32, m: u32| total_log + f64::from(g - 1 + m - 1) <= 29.5;
    let mut pair = (g, ACT_BITS);
    while !(fits(pair.0, pair.1) && sum_limit(pair.0)) && pair.0 > 3 {
        if pair.1 > pair.0 + 1 { pair.1 -= 1 } else { pair.0 -= 1 }
    }
    pair
}

impl Builder<'_> {
    /// `GS`, `HS`, `MS` of one site.
    fn site(&mut self, i: usize, site: Site, sums: &[Sums], bits: u32, damping: f64, out: &mut TensorMap) -> Result<(), IndexError> {
        let (d, name) = (Dims::new(&self.sem, 1, 1), site.name());
        let n = d.a * d.r;
        for coarser in 0..12 {
            let g = self.rows(i, site, sums, bits, coarser)?;
            let acc = moment(&g, d.l, n);
            let largest = acc.iter().map(|x| x.abs()).max().unwrap_or(0) as f64;
            let shift = least_shift(largest, MOMENT_BITS);
            if shift > 16 {
                continue;
            }
            let op = Op { shift, bits: MOMENT_BITS, rounding: Rounding::Exact, coefs: vec![1] };
            let max = sums.len().next_power_of_two() as f64 * f64::from(2 * (bits - 1)).exp2();
            let exp = 2 * self.sem.exps[&format!("G{name}")] - shift as i32;
            record(&mut self.sem, &format!("H{name}"), op.clone(), max, exp)?;
            let mut acc: Vec<i32> = acc.iter().map(|&x| x as i32).collect();
            let h = requantise(&mut acc, &op, false).map_err(|bad| RunError::Range {
                op: format!("H{name}"),
                layer: None,
                value: bad.value,
                low: bad.low,
                high: bad.high,
            })?;
            let bound = IndexError::Bound { op: format!("M{name}"), bound: n as f64, limit: f64::from(1 << 15) };
            let mut found = precondition(&h, self.sem.shape.layers, d.l, n, damping).ok_or(bound)?;
            let dims = vec![d.l, d.a, d.r, d.a, d.r];
            found.m.dims.clone_from(&dims);
            self.sem.consts.insert(format!("lambda.{name}"), found.lambda);
            self.sem.consts.insert(format!("m_scale.{name}"), found.scale);
            self.sem.weight_bits.insert(format!("M{name}"), PRECONDITIONER_BITS);
            self.sem.exps.insert(format!("M{name}"), found.scale.trailing_zeros() as i32 - exp);
            out.insert(format!("G{name}"), g);
            out.insert(format!("M{name}"), found.m);
            out.insert(format!("H{name}"), Tensor { dims: dims.clone(), data: h });
            out.insert(format!("H{name}.r"), Tensor { dims, data: acc });
            return Ok(());
        }
        Err(IndexError::Bound { op: format!("H{name}"), bound: f64::INFINITY, limit: FIELD as f64 })
    }

    /// Plans `mqS` on the index's own rows and `score` on the rows' scores of themselves.
    fn plan_scores(&mut self, map: &TensorMap, g_bits: u32, bits: u32) -> Result<(), IndexError> {
        let d = Dims::new(&self.sem, 1, 1);
        let (n, per_row, count) = (d.a * d.r, d.l * d.a * d.r, self.samples.len());
        let sites = self.sem.sites().to_vec();
        let multiply = |m: &[i32], g: &[i32]| -> Vec<i32> {
            let row = |x: usize| m[x * n..(x + 1) * n].iter().zip(&g[x / n * n..]).map(|(a, b)| a * b).sum();
            (0..per_row).map(row).collect()
        };
        let (mut products, mut common) = (Vec::new(), i32::MAX);
        for site in &sites {
            let (m, g) = (&map[&format!("M{}", site.name())].data, &map[&format!("G{}", site.name())].data);
            let all: Vec<Vec<i32>> = g.par_chunks_exact(per_row).take(count).map(|g| multiply(m, g)).collect();
            let mut sizes: Vec<i32> = all.iter().flatten().map(|x| x.abs()).filter(|&x| x > 0).collect();
            let largest = f64::from(sizes.iter().copied().max().unwrap_or(1));
            let shift = calibrated_shift(quantile(&mut sizes, 0.999), largest, bits);
            let (e_g, e_m) = (self.sem.exps[&format!("G{}", site.name())], self.sem.exps[&format!("M{}", site.name())]);
            common = common.min(2 * e_g + e_m - shift as i32);
            products.push((all, 2 * e_g + e_m, e_g));
        }
        let mut scores = vec![0i64; count];
        for (site, (all, e_product, e_g)) in sites.iter().zip(&products) {
            let shift = (*e_product - common).clamp(1, 15) as u32;
            let op = Op { shift, bits, rounding: Rounding::Clamp, coefs: vec![1] };
            let max = n as f64 * f64::from(PRECONDITIONER_BITS - 1 + g_bits - 1).exp2();
            let name = format!("mq{}", site.name());
            record(&mut self.sem, &name, op.clone(), max, e_product - e_g - shift as i32)?;
            let g = &map[&format!("G{}", site.name())].data;
            for ((score, sums), g) in scores.iter_mut().zip(all).zip(g.chunks_exact(per_row)) {
                let mq = requantise(&mut sums.clone(), &op, false).map_err(|bad| RunError::Range {
                    op: name.clone(),
                    layer: None,
                    value: bad.value,
                    low: bad.low,
                    high: bad.high,
                })?;
                *score += mq.iter().zip(g).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum::<i64>();
            }
        }
        let terms: Vec<i32> = sites.iter().map(|s| self.sem.exps[&format!("G{}", s.name())] + self.sem.exps[&format!("mq{}", s.name())]).collect();
        let (coefs, exp) = super::bounds::align(&terms, 0);
        let factor: f64 = coefs.iter().map(|&c| c as f64).sum::<f64>() / coefs.len() as f64;
        let max = (per_row * sites.len()) as f64 * f64::from(g_bits - 1 + bits - 1).exp2() * factor;
        let largest = scores.iter().map(|s| s.abs()).max().unwrap_or(1) as f64;
        let shift = least_shift(max, 16).min(least_shift(largest * 4.0, 16)).min(15);
        record(&mut self.sem, "score", Op { shift, bits: 16, rounding: Rounding::Exact, coefs }, max, exp - shift as i32)
    }
}

/// Runs every sample, chooses the sketch's and the attribution's parameters and computes the index.
///
/// `samples[i]` becomes row `i` (BOS included, 2 to `context` tokens); `progress(done, total)` is called after every sample.
pub fn build_index(
    model: &IntModel,
    adapter: &IntAdapter,
    samples: &[Vec<u32>],
    options: IndexOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Index, IndexError> {
    let mut sem = adapter.semantics.clone();
    check_options(samples, &options, &sem)?;
    let runtime = Runtime::new(sem.clone(), &model.tensors, Some(&adapter.tensors))?;
    sem.sketch_rows = Some(options.rows);
    sem.consts.insert("theta".to_owned(), 0);
    let sketcher = Sketcher::new(&sem, options.rows);
    let mut builder = Builder { runtime, sem, sketcher, samples };
    builder.plan_projection()?;
    let sums = builder.sums(progress)?;
    let d = Dims::new(&builder.sem, 1, 1);
    let sites = builder.sem.sites().to_vec();
    let (g_bits, mq_bits) = widths(samples.len(), sites.len() * d.l * d.a * d.r, d.a * d.r);
    let mut tensors = TensorMap::new();
    for (i, &site) in sites.iter().enumerate() {
        builder.site(i, site, &sums, g_bits, options.damping, &mut tensors)?;
    }
    builder.plan_scores(&tensors, g_bits, mq_bits)?;
    Ok(Index { semantics: builder.sem, tensors, rows: samples.len() })
}
