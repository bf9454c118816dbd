//! Scores of the index rows for one request, and the contributors' shares.

use super::engine::{RunError, constant};
use super::gemm::{dot, narrow};
use super::index::Index;
use super::sketch::requantised;
use crate::semantics::Dims;
use crate::tensor::TensorMap;
use std::collections::BTreeMap;

/// Basis points of the whole.
pub const BPS: u128 = 10_000;

/// What one request owes to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// `mqS`, `mqS.r`, `score.r`.
    pub tensors: TensorMap,
    /// Score of every (padded) index row.
    pub scores: Vec<i32>,
    /// `max(0, score - θ)` of every true row.
    pub rel: Vec<i64>,
    /// Sum of `rel` over each contributor's rows.
    pub weights: BTreeMap<u32, u64>,
    /// Share of each contributor in basis points, rounded down.
    pub bps: BTreeMap<u32, u32>,
    /// What rounding down leaves.
    pub dust: u32,
}

fn rank_rows(contributors: &[u32], scores: &[i32], theta: i64) -> (Vec<i64>, BTreeMap<u32, u64>) {
    let rel: Vec<i64> = contributors.iter().zip(scores).map(|(_, &s)| (i64::from(s) - theta).max(0)).collect();
    let mut weights = BTreeMap::new();
    for (&c, &rel) in contributors.iter().zip(&rel) {
        *weights.entry(c).or_insert(0u64) += rel as u64;
    }
    (rel, weights)
}

/// Attributes a request with sketch tensors `skS` to the index rows; `contributors[i]` made row `i`.
///
/// `theta` defaults to the index's own noise floor.
pub fn attribute(index: &Index, sketch: &TensorMap, contributors: &[u32], theta: Option<i64>) -> Result<Attribution, RunError> {
    let sem = &index.semantics;
    if contributors.len() != index.rows {
        let expected = format!("{} (one a row)", index.rows);
        return Err(RunError::BadLength { what: "contributors", expected, found: contributors.len() });
    }
    let theta = theta.map_or_else(|| constant(sem, "theta"), Ok)?;
    let d = Dims::new(sem, 1, 1);
    let get = |map: &TensorMap, name: &str| map.get(name).cloned().ok_or_else(|| RunError::MissingTensor { name: name.to_owned() });
    let (n, per_row) = (d.a * d.r, d.l * d.a * d.r);
    let padded = index.rows.next_power_of_two();
    let (mut tensors, mut acc) = (TensorMap::new(), vec![0i32; padded]);
    for (i, site) in sem.sites().iter().enumerate() {
        let name = site.name();
        let sk = get(sketch, &format!("sk{name}"))?;
        let (m, g) = (get(&index.tensors, &format!("M{name}"))?, get(&index.tensors, &format!("G{name}"))?);
        if sk.data.len() != per_row || g.data.len() != padded * per_row || m.data.len() != per_row * n {
            return Err(RunError::WrongShape { name: format!("sk{name}"), expected: vec![d.l, d.a, d.r], found: sk.dims });
        }
        let (m, sk, g) = (narrow(&m.data), narrow(&sk.data), narrow(&g.data));
        let sums = m.chunks_exact(n).enumerate().map(|(x, row)| dot(row, &sk[x / n * n..(x / n + 1) * n])).collect();
        let op = format!("mq{name}");
        let (mq, rest) = requantised(sem, &op, &[d.l, d.a, d.r], sums)?;
        let (wide, coef) = (narrow(&mq.data), super::engine::operation(sem, "score")?.coefs[i] as i32);
        for (acc, g) in acc.iter_mut().zip(g.chunks_exact(per_row)) {
            *acc = acc.wrapping_add(dot(g, &wide).wrapping_mul(coef));
        }
        tensors.insert(format!("{op}.r"), rest);
        tensors.insert(op, mq);
    }
    let (scores, rest) = requantised(sem, "score", &[padded], acc)?;
    tensors.insert("score.r".to_owned(), rest);
    let (rel, weights) = rank_rows(contributors, &scores.data, theta);
    let total = weights.values().map(|&w| u128::from(w)).sum::<u128>().max(1);
    let bps: BTreeMap<u32, u32> = weights.iter().map(|(&c, &w)| (c, (BPS * u128::from(w) / total) as u32)).collect();
    let dust = BPS as u32 - bps.values().sum::<u32>();
    Ok(Attribution { tensors, scores: scores.data, rel, weights, bps, dust })
}
