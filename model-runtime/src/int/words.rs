//! Which tokens carry a score: its division among those of a sample and those of an exchange. For reading; nothing of it is proven.
//!
//! A score is `⟨G_i, Q⟩`, and a sketch is a sum over positions `t` of `pdS[t] ⊗ uS[t]`, scaled to its length: the score is a sum over positions of
//! either side, but for rounding. A position is no word yet, it lies between two: its activations `uS[t]` are of what was read up to token `t`,
//! its gradients `pdS[t]` of what was to be said next, token `t + 1`. Either factor alone gives nothing, so both tokens get half of the product
//! (its Shapley value):
//!
//! ```text
//! part[t]           = ⟨position t, other sketch⟩
//! read[t]           = part[t] / 2     of a position that predicts; else part[t]
//! predicted[t + 1]  = part[t] / 2     of a position that predicts; else 0
//! score             = Σ_t read[t] + predicted[t]
//! ```
//!
//! A prompt's positions predict nothing that counts: they hold what the answer's losses send back through attention, and all of it is the read
//! token's. (In a sample, every position predicts, and the little that later losses send there is shared with the rest.)
//!
//! The two coarser divisions of the same sum name other words than those that the score is about. By the token whose loss it is, most of
//! the demo's scores are the full stop's after the answer: its gradient is every sentence's, what is particular are the activations there, of a
//! text that has just named the answer. By the token that was read, a fact at the end of a text is the word's before it. The halves name the fact
//! in both cases. One forward and one backward pass.
//!
//! Used by `poa attribute` and the demo.

use super::engine::{RunError, Runtime, operation};
use super::index::Index;
use super::sketch::{Sketcher, sketch_length};
use super::trace::{Keep, Mode, Span};
use crate::semantics::Dims;
use crate::tensor::TensorMap;

/// A score, divided among the tokens of one side. In the score's units; parts may be negative.
#[derive(Clone, Debug, PartialEq)]
pub struct Division {
    /// What a token carries as the one that was to be predicted.
    pub predicted: Vec<f64>,
    /// What it carries as the one that was read.
    pub read: Vec<f64>,
}

impl Division {
    fn nothing(tokens: usize) -> Self {
        Self { predicted: vec![0.0; tokens], read: vec![0.0; tokens] }
    }

    /// What tokens carry in both ways.
    pub fn of_tokens(&self) -> Vec<f64> {
        self.predicted.iter().zip(&self.read).map(|(p, r)| p + r).collect()
    }

    /// The score, without its rounding: within `2^-7` of the largest possible one (`2^14`).
    pub fn total(&self) -> f64 {
        self.of_tokens().iter().sum()
    }
}

/// Divides the scores of one index.
#[derive(Debug)]
pub struct Divider<'a> {
    runtime: &'a Runtime,
    index: &'a Index,
    sketcher: Sketcher,
}

impl<'a> Divider<'a> {
    /// `runtime` is the model and adapter that the index was made with.
    ///
    /// # Errors
    ///
    /// When the index says nothing of a sketch.
    pub fn new(runtime: &'a Runtime, index: &'a Index) -> Result<Self, RunError> {
        Ok(Self { runtime, index, sketcher: Sketcher::new(&index.semantics)? })
    }

    /// Divides the score of a row among its sample's tokens (as the index was made from). `query` holds `qsS`.
    ///
    /// A row that doesn't earn has no score to divide: all zeros.
    ///
    /// # Errors
    ///
    /// When the sample can't be run, or the sketch doesn't fit the index.
    pub fn sample(&self, row: usize, tokens: &[u32], query: &TensorMap) -> Result<Division, RunError> {
        let live = tensor(&self.index.tensors, "G.live")?;
        if live.get(row) != Some(&1) {
            return Ok(Division::nothing(tokens.len()));
        }
        let mut direction = Vec::new();
        for site in self.index.semantics.sketched() {
            direction.extend(tensor(query, &format!("qs{}", site.name()))?.iter().map(|&x| f64::from(x)));
        }
        self.divide(tokens, 1, Mode::Sample, &direction)
    }

    /// Divides the mean score of the rows, weighted by `weights` (one a row, as relevance), among the tokens of an exchange.
    ///
    /// # Errors
    ///
    /// When the exchange can't be run, or the weights don't fit the index.
    pub fn exchange(&self, tokens: &[u32], prompt_len: usize, weights: &[i64]) -> Result<Division, RunError> {
        if weights.len() != self.index.rows {
            let expected = format!("{} (one a row)", self.index.rows);
            return Err(RunError::BadLength { what: "weights", expected, found: weights.len() });
        }
        let total: i64 = weights.iter().sum();
        if total == 0 {
            return Ok(Division::nothing(tokens.len()));
        }
        let mut direction = Vec::new();
        for site in self.index.semantics.sketched() {
            let rows = tensor(&self.index.tensors, &format!("G{}", site.name()))?;
            let per_row = rows.len() / self.index.rows.next_power_of_two();
            let mut mean = vec![0.0; per_row];
            for (row, &weight) in rows.chunks_exact(per_row.max(1)).zip(weights).filter(|(_, w)| **w != 0) {
                let weight = weight as f64 / total as f64;
                mean.iter_mut().zip(row).for_each(|(m, &x)| *m += weight * f64::from(x));
            }
            direction.extend(mean);
        }
        self.divide(tokens, prompt_len, Mode::Teacher, &direction)
    }

    fn divide(&self, tokens: &[u32], prompt_len: usize, mode: Mode, direction: &[f64]) -> Result<Division, RunError> {
        let sem = &self.index.semantics;
        let dims = Dims { t: tokens.len(), s: tokens.len().max(2) - 1, ..Dims::new(sem, 1, 1) };
        let trace = self.runtime.run(tokens, prompt_len, dims, mode, Keep::Sketch, Span::Exchange)?;
        let row = self.sketcher.row(sem, &trace)?;
        let length = f64::from(row.f) * f64::from(row.e).exp2() * (-f64::from(sketch_length(sem).shift())).exp2();
        let unit = length * (-f64::from(operation(sem, "score")?.shift)).exp2();
        let mut division = Division::nothing(tokens.len());
        for (t, part) in self.sketcher.along(sem, &trace, direction)?.into_iter().enumerate() {
            let predicts = (prompt_len..tokens.len()).contains(&(t + 1));
            division.read[t] = unit * part * if predicts { 0.5 } else { 1.0 };
            if predicts {
                division.predicted[t + 1] = division.read[t];
            }
        }
        Ok(division)
    }
}

fn tensor<'a>(map: &'a TensorMap, name: &str) -> Result<&'a [i32], RunError> {
    map.get(name).map(|t| t.data.as_slice()).ok_or_else(|| RunError::MissingTensor { name: name.to_owned() })
}
