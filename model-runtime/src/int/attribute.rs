//! Scores of the index rows for one request, their relevance, and the contributors' shares.

use super::engine::{RunError, constant};
use super::gemm::{dot, narrow};
use super::index::Index;
use super::sketch::requantised;
use crate::tensor::{Tensor, TensorMap};
use std::collections::BTreeMap;

/// Basis points of the whole.
pub const BPS: u128 = 10_000;

/// What one request owes to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// `score`, `score.r`, `rel` of every padded row, and `best.*`.
    pub tensors: TensorMap,
    /// Score of every (padded) index row.
    pub scores: Vec<i32>,
    /// `m = max(2·θ, max score)`: relevance begins above its half.
    pub best: i64,
    /// `max(0, score - ⌊m/2⌋)` of every true row.
    pub rel: Vec<i64>,
    /// Sum of `rel` over each contributor's rows.
    pub weights: BTreeMap<u32, u64>,
    /// Share of each contributor in basis points, rounded down.
    pub bps: BTreeMap<u32, u32>,
    /// What rounding down leaves.
    pub dust: u32,
}

/// `m`, and which rows (or the floor) attain it: one of them is marked.
fn best_of(scores: &[i32], theta: i64) -> (i64, TensorMap) {
    let largest = scores.iter().copied().max().map_or(0, i64::from);
    let best = largest.max(2 * theta);
    let mut top = vec![0; scores.len()];
    let attained = scores.iter().position(|&s| i64::from(s) == best);
    attained.into_iter().for_each(|i| top[i] = 1);
    let single = |x: i64| Tensor { dims: vec![], data: vec![x as i32] };
    let map = TensorMap::from([
        ("best".to_owned(), single(best)),
        ("best.half".to_owned(), single(best / 2)),
        ("best.odd".to_owned(), single(best % 2)),
        ("best.floor".to_owned(), single(i64::from(attained.is_none()))),
        ("best.top".to_owned(), Tensor { dims: vec![scores.len()], data: top }),
    ]);
    (best, map)
}

/// Attributes a request with the sketch `qsS` to the index rows; `contributors[i]` made row `i`.
///
/// `theta` defaults to the index's own noise floor.
///
/// # Errors
///
/// When the sketch or the index don't fit the index's semantics.
pub fn attribute(index: &Index, sketch: &TensorMap, contributors: &[u32], theta: Option<i64>) -> Result<Attribution, RunError> {
    let sem = &index.semantics;
    if contributors.len() != index.rows {
        let expected = format!("{} (one a row)", index.rows);
        return Err(RunError::BadLength { what: "contributors", expected, found: contributors.len() });
    }
    let theta = theta.map_or_else(|| constant(sem, "theta"), Ok)?;
    let padded = index.rows.next_power_of_two();
    let mut acc = vec![0i32; padded];
    for site in sem.sketched() {
        let get = |map: &'_ TensorMap, name: String| map.get(&name).map(|t| narrow(&t.data)).ok_or(RunError::MissingTensor { name });
        let (query, rows) = (get(sketch, format!("qs{}", site.name()))?, get(&index.tensors, format!("G{}", site.name()))?);
        if query.is_empty() || rows.len() != padded * query.len() {
            let name = format!("G{}", site.name());
            return Err(RunError::WrongShape { name, expected: vec![padded, query.len()], found: vec![rows.len()] });
        }
        acc.iter_mut().zip(rows.chunks_exact(query.len())).for_each(|(acc, row)| *acc = acc.wrapping_add(dot(row, &query)));
    }
    let (scores, rest) = requantised(sem, "score", &[padded], acc)?;
    let (best, mut tensors) = best_of(&scores.data, theta);
    let rel: Vec<i64> = scores.data.iter().map(|&s| (i64::from(s) - best / 2).max(0)).collect();
    tensors.insert("rel".to_owned(), Tensor { dims: vec![padded], data: rel.iter().map(|&x| x as i32).collect() });
    tensors.insert("score".to_owned(), scores.clone());
    tensors.insert("score.r".to_owned(), rest);
    let mut weights = BTreeMap::new();
    for (&c, &rel) in contributors.iter().zip(&rel) {
        *weights.entry(c).or_insert(0u64) += rel as u64;
    }
    let total = weights.values().map(|&w| u128::from(w)).sum::<u128>().max(1);
    let bps: BTreeMap<u32, u32> = weights.iter().map(|(&c, &w)| (c, (BPS * u128::from(w) / total) as u32)).collect();
    let dust = BPS as u32 - bps.values().sum::<u32>();
    Ok(Attribution { tensors, scores: scores.data, best, rel: rel[..index.rows].to_vec(), weights, bps, dust })
}
