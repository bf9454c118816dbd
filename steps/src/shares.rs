//! Who and what comes first in an attribution: rows by score, contributors by weight.

use crate::store::{IndexDir, Row};
use model_runtime::int::attribute::Attribution;

/// Rows by falling score.
pub fn ranked(scores: &[i32], rows: &[Row]) -> Vec<(usize, i32)> {
    let mut order: Vec<(usize, i32)> = scores.iter().copied().take(rows.len()).enumerate().collect();
    order.sort_by_key(|&(i, s)| (std::cmp::Reverse(s), i));
    order
}

/// The best rows that earn, `most` of them.
pub fn earning(attribution: &Attribution, index: &IndexDir, most: usize) -> Vec<usize> {
    let best = ranked(&attribution.scores, &index.info.rows).into_iter().map(|(i, _)| i);
    best.take_while(|&i| attribution.rel[i] > 0).take(most).collect()
}

/// Contributors' shares in basis points, largest first.
pub fn shares(weights: &[u64], contributors: &[String]) -> Vec<(String, u32)> {
    let total = weights.iter().map(|&w| u128::from(w)).sum::<u128>().max(1);
    let mut list: Vec<(String, u32)> = contributors.iter().zip(weights).map(|(c, &w)| (c.clone(), (u128::from(w) * 10_000 / total) as u32)).collect();
    list.sort_by_key(|(c, bps)| (std::cmp::Reverse(*bps), c.clone()));
    list
}

/// Contributors' shares of an attribution.
pub fn attribution_shares(attribution: &Attribution, index: &IndexDir) -> Vec<(String, u32)> {
    shares(&contributor_weights(attribution, index), &index.info.contributors)
}

/// Contributors' weights in the order of their numbers.
pub fn contributor_weights(attribution: &Attribution, index: &IndexDir) -> Vec<u64> {
    let weight = |i: usize| attribution.weights.get(&(i as u32)).copied().unwrap_or(0);
    (0..index.info.contributors.len()).map(weight).collect()
}
