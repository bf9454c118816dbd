//! Ranges of the float tensors over calibration sequences.

use super::reference::{Folded, run};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Largest magnitude of every tensor, and the 99.99 % quantile of the magnitudes.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    stats: BTreeMap<String, Histogram>,
}

const BINS_PER_OCTAVE: f32 = 8.0;
const BINS: usize = 1024;
const LOWEST_OCTAVE: f32 = -96.0;

#[derive(Clone, Debug)]
struct Histogram {
    max: f32,
    min_positive: f32,
    bins: Vec<u64>,
}

impl Histogram {
    fn add(&mut self, values: &[f32]) {
        for x in values.iter().map(|x| x.abs()).filter(|x| x.is_finite() && *x > 0.0) {
            self.max = self.max.max(x);
            self.min_positive = self.min_positive.min(x);
            let bin = ((x.log2() - LOWEST_OCTAVE) * BINS_PER_OCTAVE).clamp(0.0, BINS as f32 - 1.0);
            self.bins[bin as usize] += 1;
        }
    }

    fn quantile(&self, q: f64) -> f32 {
        let total: u64 = self.bins.iter().sum();
        let mut left = ((1.0 - q) * total as f64) as u64;
        for (i, &count) in self.bins.iter().enumerate().rev() {
            if count > left {
                return ((i + 1) as f32 / BINS_PER_OCTAVE + LOWEST_OCTAVE).exp2().min(self.max);
            }
            left -= count;
        }
        self.max
    }
}

impl Ranges {
    /// Runs the float model forward and backward on every sequence (at least two tokens each; shorter ones are skipped).
    pub fn measure(model: &Folded, sequences: &[Vec<u32>]) -> Self {
        let add = |mut ranges: Self, tokens: &Vec<u32>| {
            let trace = run(model, tokens, Some(1));
            ranges.add("out", &trace.logits);
            trace.tensors.iter().for_each(|(name, layers)| layers.iter().for_each(|x| ranges.add(name, x)));
            ranges
        };
        // Largest values and counts don't depend on the order of the sequences.
        sequences.par_iter().filter(|t| t.len() >= 2).fold(Self::default, add).reduce(Self::default, Self::join)
    }

    fn join(mut self, other: Self) -> Self {
        for (name, theirs) in other.stats {
            let Some(ours) = self.stats.get_mut(&name) else {
                self.stats.insert(name, theirs);
                continue;
            };
            ours.max = ours.max.max(theirs.max);
            ours.min_positive = ours.min_positive.min(theirs.min_positive);
            ours.bins.iter_mut().zip(&theirs.bins).for_each(|(a, b)| *a += b);
        }
        self
    }

    /// Adds further values of a tensor.
    pub fn include(&mut self, name: &str, values: &[f32]) {
        self.add(name, values);
    }

    fn add(&mut self, name: &str, values: &[f32]) {
        let empty = || Histogram { max: 0.0, min_positive: f32::MAX, bins: vec![0; BINS] };
        self.stats.entry(name.to_owned()).or_insert_with(empty).add(values);
    }

    /// Largest magnitude; a tiny positive number for a tensor that was always zero or never seen.
    pub fn max(&self, name: &str) -> f64 {
        self.stats.get(name).map_or(1e-9, |h| f64::from(h.max).max(1e-9))
    }

    /// Largest magnitude of the residual stream.
    pub fn stream(&self) -> f64 {
        ["hin", "m", "hout"].iter().map(|name| self.max(name)).fold(0.0, f64::max)
    }

    /// Smallest nonzero magnitude (1 if there was none).
    pub fn min(&self, name: &str) -> f64 {
        self.stats.get(name).filter(|h| h.max > 0.0).map_or(1.0, |h| f64::from(h.min_positive))
    }

    /// The 99.99 % quantile of the nonzero magnitudes.
    pub fn high(&self, name: &str) -> f64 {
        self.stats.get(name).map_or(1e-9, |h| f64::from(h.quantile(0.9999)).max(1e-9))
    }

    /// The 99.999 % quantile of the nonzero magnitudes.
    pub fn extreme(&self, name: &str) -> f64 {
        self.stats.get(name).map_or(1e-9, |h| f64::from(h.quantile(0.99999)).max(1e-9))
    }
}
