//! Gradient sketches: `pdS = RQ(P_S·dS)`, `skS = RQ(Σ_t pdS·uS)`.
//!
//! A site's LoRA gradient is `Σ_t dS ⊗ uS`; the public random signs `P_S` shrink its output side to a few rows.

use super::engine::{RunError, operation, site_lens};
use super::gadgets::requantise;
use super::gemm::{Mat16, gemm, gemm_slices, narrow, transpose16};
use super::trace::Trace;
use crate::semantics::{Dims, Semantics};
use crate::shape::Site;
use crate::tables::Projection;
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

/// The public projections of every covered site, made once.
#[derive(Clone, Debug)]
pub struct Sketcher {
    /// `[rows, out]` signs by site.
    signs: Vec<(Site, Mat16)>,
    rows: usize,
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

impl Sketcher {
    /// Derives the projections with `rows` sketch rows (a power of two).
    pub fn new(sem: &Semantics, rows: usize) -> Self {
        let d = Dims::new(sem, 1, 1);
        let signs = |site: Site| {
            let outs = site_lens(&d, site).0;
            let projection = Projection::new(site, rows, outs.trailing_zeros() as usize);
            let data: Vec<i32> = (0..rows * outs).map(|i| projection.at(i / outs, i % outs)).collect();
            (site, Mat16::new(rows, outs, &data))
        };
        Self { signs: sem.sites().iter().map(|&site| signs(site)).collect(), rows }
    }

    /// Sums `Σ_out P_S·dS`, `[l, t, a]`, before requantisation, by site.
    pub(crate) fn projected(&self, trace: &Trace) -> Result<Vec<(Site, Vec<i32>)>, RunError> {
        let rows = trace.dims.l * trace.dims.t;
        let project = |(site, signs): &(Site, Mat16)| {
            let mut acc = vec![0; rows * self.rows];
            gemm(&mut acc, 1, &narrow(&tensor(trace, site_gradient(*site))?.data), signs);
            Ok((*site, acc))
        };
        self.signs.iter().map(project).collect()
    }

    /// Sums `Σ_t pdS·uS`, `[l, a, r]`, before requantisation.
    pub(crate) fn contracted(&self, trace: &Trace, site: Site, pd: &[i32]) -> Result<Vec<i32>, RunError> {
        let (d, a) = (trace.dims, self.rows);
        let (pd, u) = (narrow(pd), narrow(&tensor(trace, &format!("u{}", site.name()))?.data));
        let mut acc = vec![0; d.l * a * d.r];
        for (l, acc) in acc.chunks_exact_mut(a * d.r).enumerate() {
            let pd = transpose16(&pd[l * d.t * a..(l + 1) * d.t * a], d.t, a);
            let u = transpose16(&u[l * d.t * d.r..(l + 1) * d.t * d.r], d.t, d.r);
            gemm_slices(acc, 1, &pd, &u, d.r, d.t);
        }
        Ok(acc)
    }

    /// `pdS`, `pdS.r`, `skS`, `skS.r` of a trace that ran backward.
    pub fn sketch(&self, sem: &Semantics, trace: &Trace) -> Result<TensorMap, RunError> {
        let d = trace.dims;
        let mut map = TensorMap::new();
        for (site, acc) in self.projected(trace)? {
            let (pd_name, sk_name) = (format!("pd{}", site.name()), format!("sk{}", site.name()));
            let (pd, pd_rest) = requantised(sem, &pd_name, &[d.l, d.t, self.rows], acc)?;
            let acc = self.contracted(trace, site, &pd.data)?;
            let (sk, sk_rest) = requantised(sem, &sk_name, &[d.l, self.rows, d.r], acc)?;
            map.insert(format!("{pd_name}.r"), pd_rest);
            map.insert(format!("{sk_name}.r"), sk_rest);
            map.insert(pd_name, pd);
            map.insert(sk_name, sk);
        }
        Ok(map)
    }
}

/// `pdS`, `pdS.r`, `skS`, `skS.r` of a trace that ran backward, under an index's semantics.
pub fn sketch(sem: &Semantics, trace: &Trace) -> Result<TensorMap, RunError> {
    let rows = sem.sketch_rows.ok_or_else(|| RunError::MissingEntry { name: "sketch_rows".to_owned() })?;
    Sketcher::new(sem, rows).sketch(sem, trace)
}
