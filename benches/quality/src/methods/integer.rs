//! The score that is proven, by the integer runtime: quantised model and adapter, index, trace, attribution.

use super::Method;
use crate::Failure;
use crate::stage::{Query, Stage};
use model_runtime::int::index::IndexOptions;
use model_runtime::int::trace::{Keep, Mode};
use model_runtime::int::{Index, Runtime, Sketcher, attribute, build_index, quantise_adapter, quantise_base};
use model_runtime::semantics::Dims;

/// Model, adapter and index in integers.
pub(super) struct Integer<'a> {
    stage: &'a Stage,
    runtime: Runtime,
    sketcher: Sketcher,
    index: Index,
    contributors: Vec<u32>,
}

impl<'a> Integer<'a> {
    /// Quantises as `poa import` and `poa train` do and builds the index with so many sketch rows.
    pub(super) fn new(stage: &'a Stage, rows: usize) -> Result<Self, Failure> {
        let model = quantise_base(&stage.model, &stage.samples)?;
        let adapter = quantise_adapter(&model, &stage.model, &stage.adapter, &stage.samples)?;
        let index = build_index(&model, &adapter, &stage.samples, IndexOptions { rows, damping: 0.1 }, &|_, _| {})?;
        let runtime = Runtime::new(index.semantics.clone(), &model.tensors, Some(&adapter.tensors))?;
        let contributors = stage.contributors().1.into_iter().map(|c| c as u32).collect();
        Ok(Self { stage, runtime, sketcher: Sketcher::new(&index.semantics, rows), index, contributors })
    }

    /// The integer model's own answer, as long as the float model's.
    fn tokens(&self, query: &Query) -> Result<Vec<u32>, Failure> {
        let prompt = &query.tokens[..query.prompt_len];
        let answer = self.runtime.generate(prompt, query.tokens.len() - query.prompt_len, Some(self.stage.tokenizer.eos()))?;
        Ok(prompt.iter().copied().chain(answer).collect())
    }
}

impl Method for Integer<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let (semantics, tokens) = (&self.index.semantics, self.tokens(query)?);
        let dims = Dims { t: tokens.len(), s: tokens.len() - 1, ..Dims::new(semantics, 1, 1) };
        let trace = self.runtime.run(&tokens, query.prompt_len, dims, Mode::Greedy, Keep::Sketch, true)?;
        let attribution = attribute(&self.index, &self.sketcher.sketch(semantics, &trace)?, &self.contributors, None)?;
        Ok(attribution.scores.iter().take(self.index.rows).map(|&s| f64::from(s)).collect())
    }

    fn answers(&self, query: &Query, _: usize) -> bool {
        self.tokens(query).is_ok_and(|tokens| tokens.get(query.prompt_len) == query.tokens.get(query.prompt_len))
    }
}
