//! Gradient sketches: `pdS = RQ(P_S·dS)`, `ruS = RQ(R_S·uS)` where ranks are projected too, `skS = RQ(Σ_t pdS·ruS)`, and the sketch of a whole
//! exchange brought to one length, `qsS`.
//!
//! A site's LoRA gradient is `Σ_t dS ⊗ uS`; the public random signs `P_S` and `R_S` shrink its two sides (LoGra, arXiv 2405.13954, section 3).

use super::backward::{remainder_limbs, unit_witnesses};
use super::engine::{RunError, operation, site_lens};
use super::gadgets::requantise;
use super::gemm::{Mat16, gemm, gemm_slices, narrow, transpose16};
use super::trace::Trace;
use super::unit::{UnitLength, UnitRow};
use crate::semantics::{Dims, Seed, Semantics};
use crate::shape::Site;
use crate::tables::{Projection, Side};
use crate::tensor::{Tensor, TensorMap};

/// The tensor that holds the gradient at a site's output.
pub fn site_gradient(site: Site) -> &'static str {
    match site {
        Site::Q => "dq",
        Site::K => "dk",
        Site::V => "dv",
        Site::O => "gm",
        Site::Gate => "dgate",
        Site::Up => "dup",
        Site::Down => "gout",
    }
}

/// The activation side of a site's sketch: `ruS` where ranks are projected, else `uS` itself.
pub fn site_activation(sem: &Semantics, site: Site) -> String {
    let projected = sem.sketch.as_ref().is_some_and(|x| x.ranks.is_some());
    format!("{}{}", if projected { "ru" } else { "u" }, site.name())
}

/// The public projections of every sketched site, made once.
#[derive(Clone, Debug)]
pub struct Sketcher {
    sites: Vec<SiteSigns>,
    rows: usize,
    ranks: Option<usize>,
}

#[derive(Clone, Debug)]
struct SiteSigns {
    site: Site,
    /// `[rows, out]`.
    output: Mat16,
    /// `[ranks, rank]`.
    rank: Option<Mat16>,
}

/// One site's sums before requantisation.
pub(crate) struct Projected {
    pub site: Site,
    /// `Σ_out P_S·dS`, `[l, t, a]`.
    pub gradient: Vec<i32>,
    /// `Σ_r R_S·uS`, `[l, t, k]`.
    pub activation: Option<Vec<i32>>,
}

/// One site's requantised projections.
pub(crate) struct Sides {
    pub site: Site,
    /// `pdS` and its remainder.
    pub gradient: (Tensor, Tensor),
    /// `ruS` and its remainder.
    pub activation: Option<(Tensor, Tensor)>,
}

pub(crate) fn requantised(sem: &Semantics, name: &str, dims: &[usize], mut acc: Vec<i32>) -> Result<(Tensor, Tensor), RunError> {
    let data = requantise(&mut acc, operation(sem, name)?, false).map_err(|bad| RunError::Range {
        op: name.to_owned(),
        layer: None,
        value: bad.value,
        low: bad.low,
        high: bad.high,
    })?;
    Ok((Tensor { dims: dims.to_vec(), data }, Tensor { dims: dims.to_vec(), data: acc }))
}

fn tensor<'a>(trace: &'a Trace, name: &str) -> Result<&'a Tensor, RunError> {
    trace.tensors.get(name).ok_or_else(|| RunError::MissingTensor { name: name.to_owned() })
}

/// `ruS`, or `uS` where ranks aren't projected.
fn activation_of<'a>(trace: &'a Trace, sides: &'a Sides) -> Result<&'a Tensor, RunError> {
    match &sides.activation {
        Some((ru, _)) => Ok(ru),
        None => tensor(trace, &format!("u{}", sides.site.name())),
    }
}

fn signs(seed: Seed, site: Site, side: Side, rows: usize, len: usize) -> Mat16 {
    let projection = Projection::new(seed, site, side, rows, len.trailing_zeros() as usize);
    let data: Vec<i32> = (0..rows * len).map(|i| projection.at(i / len, i % len)).collect();
    Mat16::new(rows, len, &data)
}

impl Sketcher {
    /// Derives the projections of a sketch.
    ///
    /// # Errors
    ///
    /// When the semantics say nothing of a sketch.
    pub fn new(sem: &Semantics) -> Result<Self, RunError> {
        let shape = sem.sketch.as_ref().ok_or_else(|| RunError::MissingEntry { name: "sketch".to_owned() })?;
        let d = Dims::new(sem, 1, 1);
        let site = |&site: &Site| SiteSigns {
            site,
            output: signs(shape.seed, site, Side::Output, shape.rows, site_lens(&d, site).0),
            rank: shape.ranks.map(|ranks| signs(shape.seed, site, Side::Rank, ranks, d.r)),
        };
        Ok(Self { sites: shape.sites.iter().map(site).collect(), rows: shape.rows, ranks: shape.ranks })
    }

    /// Both sides of every site, projected, before requantisation.
    pub(crate) fn projected(&self, trace: &Trace) -> Result<Vec<Projected>, RunError> {
        let tokens = trace.dims.l * trace.dims.t;
        let times = |name: &str, signs: &Mat16, rows: usize| -> Result<Vec<i32>, RunError> {
            let mut acc = vec![0; tokens * rows];
            gemm(&mut acc, 1, &narrow(&tensor(trace, name)?.data), signs);
            Ok(acc)
        };
        let project = |x: &SiteSigns| {
            let gradient = times(site_gradient(x.site), &x.output, self.rows)?;
            let rank = |signs: &Mat16| times(&format!("u{}", x.site.name()), signs, self.ranks.unwrap_or(1));
            Ok(Projected { site: x.site, gradient, activation: x.rank.as_ref().map(rank).transpose()? })
        };
        self.sites.iter().map(project).collect()
    }

    /// `pdS`, `ruS` of every site.
    pub(crate) fn sides(&self, sem: &Semantics, trace: &Trace) -> Result<Vec<Sides>, RunError> {
        let d = trace.dims;
        let round = |x: Projected| {
            let name = x.site.name();
            let gradient = requantised(sem, &format!("pd{name}"), &[d.l, d.t, self.rows], x.gradient)?;
            let activation = |acc| requantised(sem, &format!("ru{name}"), &[d.l, d.t, self.ranks.unwrap_or(1)], acc);
            Ok(Sides { site: x.site, gradient, activation: x.activation.map(activation).transpose()? })
        };
        self.projected(trace)?.into_iter().map(round).collect()
    }

    /// `coef·Σ_t pdS·ruS`, `[l, a, k]`, before requantisation.
    pub(crate) fn contracted(&self, trace: &Trace, sides: &Sides, coef: i64) -> Result<Vec<i32>, RunError> {
        let (d, a) = (trace.dims, self.rows);
        let k = self.ranks.unwrap_or(d.r);
        let (pd, u) = (narrow(&sides.gradient.0.data), narrow(&activation_of(trace, sides)?.data));
        let mut acc = vec![0; d.l * a * k];
        for (l, acc) in acc.chunks_exact_mut(a * k).enumerate() {
            let pd = transpose16(&pd[l * d.t * a..(l + 1) * d.t * a], d.t, a);
            let u = transpose16(&u[l * d.t * k..(l + 1) * d.t * k], d.t, k);
            gemm_slices(acc, coef, &pd, &u, k, d.t);
        }
        Ok(acc)
    }

    /// The inner product of every position's part of the sketch, before its length is set, with a vector of the sketch's entries (sites outermost).
    ///
    /// Without `skS`'s rounding: the sum over positions is the sketch's own inner product but for that.
    pub(crate) fn along(&self, sem: &Semantics, trace: &Trace, direction: &[f64]) -> Result<Vec<f64>, RunError> {
        let (d, a) = (trace.dims, self.rows);
        let k = self.ranks.unwrap_or(d.r);
        if direction.len() != self.sites.len() * d.l * a * k {
            let expected = format!("{} entries", self.sites.len() * d.l * a * k);
            return Err(RunError::BadLength { what: "sketch", expected, found: direction.len() });
        }
        let mut parts = vec![0.0; d.t];
        for (sides, direction) in self.sides(sem, trace)?.iter().zip(direction.chunks_exact(d.l * a * k)) {
            let op = operation(sem, &format!("sk{}", sides.site.name()))?;
            let unit = sketch_coef(sem, &format!("sk{}", sides.site.name()))? as f64 * (-f64::from(op.shift)).exp2();
            let (pd, u) = (&sides.gradient.0.data, &activation_of(trace, sides)?.data);
            for (row, (pd, u)) in pd.chunks_exact(a).zip(u.chunks_exact(k)).enumerate() {
                let (l, t) = (row / d.t, row % d.t);
                let lines = direction[l * a * k..(l + 1) * a * k].chunks_exact(k);
                let products =
                    pd.iter().zip(lines).map(|(&pd, line)| f64::from(pd) * u.iter().zip(line).map(|(&u, x)| f64::from(u) * x).sum::<f64>());
                parts[t] += unit * products.sum::<f64>();
            }
        }
        Ok(parts)
    }

    /// Everything of a trace's sketch: `pdS`, `ruS`, `skS`, `qsS`, their remainders and the scale's witnesses.
    ///
    /// # Errors
    ///
    /// When a value leaves its range or no scale reaches the length.
    pub fn sketch(&self, sem: &Semantics, trace: &Trace) -> Result<TensorMap, RunError> {
        let d = trace.dims;
        let dims = [d.l, self.rows, self.ranks.unwrap_or(d.r)];
        let (mut map, mut all) = (TensorMap::new(), Vec::new());
        for sides in self.sides(sem, trace)? {
            let site = sides.site.name();
            let name = format!("sk{site}");
            let acc = self.contracted(trace, &sides, sketch_coef(sem, &name)?)?;
            let (sk, rest) = requantised(sem, &name, &dims, acc)?;
            all.extend_from_slice(&sk.data);
            map.extend([(format!("{name}.r"), rest), (name, sk)]);
            let mut put = |name: String, (value, rest): (Tensor, Tensor)| map.extend([(format!("{name}.r"), rest), (name, value)]);
            put(format!("pd{site}"), sides.gradient);
            sides.activation.into_iter().for_each(|pair| put(format!("ru{site}"), pair));
        }
        let row = unit_sketch(sem, &all)?;
        unit_witnesses("qs", std::slice::from_ref(&row), |name, data| {
            map.insert(name, Tensor { dims: vec![], data });
        });
        let per_site = dims.iter().product::<usize>();
        let limbs = remainder_limbs(&row.r);
        for (i, x) in self.sites.iter().enumerate() {
            let name = format!("qs{}", x.site.name());
            for (suffix, data) in [("", &row.y), (".r0", &limbs[0]), (".r1", &limbs[1])] {
                let data = data[i * per_site..(i + 1) * per_site].to_vec();
                map.insert(format!("{name}{suffix}"), Tensor { dims: dims.to_vec(), data });
            }
        }
        Ok(map)
    }

    /// A sample's sketch brought to its length: one index row, sites outermost.
    pub(crate) fn row(&self, sem: &Semantics, trace: &Trace) -> Result<UnitRow, RunError> {
        let mut all = Vec::new();
        for sides in self.sides(sem, trace)? {
            let name = format!("sk{}", sides.site.name());
            let mut acc = self.contracted(trace, &sides, sketch_coef(sem, &name)?)?;
            let len = acc.len();
            all.extend(requantised(sem, &name, &[len], std::mem::take(&mut acc))?.0.data);
        }
        unit_sketch(sem, &all)
    }
}

fn sketch_coef(sem: &Semantics, name: &str) -> Result<i64, RunError> {
    operation(sem, name)?.coefs.first().copied().ok_or_else(|| RunError::MissingEntry { name: format!("ops.{name}.coefs[0]") })
}

/// The length of sketches and index rows.
pub fn sketch_length(sem: &Semantics) -> UnitLength {
    UnitLength::of(sem.sketch_len())
}

fn unit_sketch(sem: &Semantics, sketch: &[i32]) -> Result<UnitRow, RunError> {
    let unit = sketch_length(sem);
    let d = Dims::new(sem, 1, 1);
    unit.scale(sketch, d.l * d.a * d.k).map_err(|bad| RunError::Length { what: "sketch".to_owned(), target: unit.target(), found: bad.nearest })
}

/// [`Sketcher::sketch`] under an index's semantics.
///
/// # Errors
///
/// As [`Sketcher::sketch`].
pub fn sketch(sem: &Semantics, trace: &Trace) -> Result<TensorMap, RunError> {
    Sketcher::new(sem)?.sketch(sem, trace)
}
