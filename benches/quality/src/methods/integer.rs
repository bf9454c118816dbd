//! The score that is proven, by the integer runtime: quantised model and adapter, index, trace, attribution.

use super::Method;
use crate::Failure;
use crate::stage::{Answers, Query, Stage};
use model_runtime::int::index::IndexOptions;
use model_runtime::int::trace::{Keep, Mode, Span};
use model_runtime::int::{Attribution, Index, Runtime, Sketcher, attribute, build_index, quantise_adapter, quantise_base};
use model_runtime::semantics::{Dims, Seed};

/// Model, adapter and index in integers.
pub struct Integer<'a> {
    stage: &'a Stage,
    runtime: Runtime,
    sketcher: Sketcher,
    index: Index,
    contributors: Vec<u32>,
}

impl<'a> Integer<'a> {
    /// Quantises and indexes as `poa import`, `train` and `index` do, copies as zero rows.
    pub fn new(stage: &'a Stage) -> Result<Self, Failure> {
        Self::under(stage, Seed::of(&stage.bank.datanet.root(), None))
    }

    /// The same under a given projection.
    pub fn under(stage: &'a Stage, seed: Seed) -> Result<Self, Failure> {
        let model = quantise_base(&stage.model, &stage.samples)?;
        let adapter = quantise_adapter(&model, &stage.model, &stage.adapter, &stage.samples)?;
        let mut samples = stage.samples.clone();
        samples.iter_mut().for_each(|tokens| stage.tokenizer.without_end(tokens, 2));
        let options = IndexOptions { seed, ..IndexOptions::default() };
        let index = build_index(&model, &adapter, &samples, &stage.earns, &options, &|_, _| true)?;
        let runtime = Runtime::new(index.semantics.clone(), &model.tensors, Some(&adapter.tensors))?;
        let contributors = stage.contributors().1.into_iter().map(|c| c as u32).collect();
        let sketcher = Sketcher::new(&index.semantics)?;
        Ok(Self { stage, runtime, sketcher, index, contributors })
    }

    /// An index row, in the order of layers, then sites.
    #[cfg(test)]
    pub fn row(&self, row: usize) -> Vec<f64> {
        let sites = self.index.semantics.sketched();
        let of_layer = |l: usize| sites.iter().flat_map(move |site| self.part(row, l, site.name()));
        (0..self.stage.model.shape.layers).flat_map(of_layer).collect()
    }

    #[cfg(test)]
    fn part(&self, row: usize, layer: usize, site: &str) -> Vec<f64> {
        let tensor = &self.index.tensors[&format!("G{site}")];
        let len: usize = tensor.dims[2..].iter().product();
        let start = (row * tensor.dims[1] + layer) * len;
        tensor.data[start..start + len].iter().map(|&x| f64::from(x)).collect()
    }

    fn attribution(&self, query: &Query) -> Result<Attribution, Failure> {
        let (semantics, tokens) = (&self.index.semantics, self.tokens(query)?);
        let mode = if self.stage.answers == Answers::Expected { Mode::Teacher } else { Mode::Greedy };
        let dims = Dims::new(semantics, tokens.len(), tokens.len() - 1);
        let trace = self.runtime.run(&tokens, query.prompt_len, dims, mode, Keep::Sketch, Span::Exchange)?;
        Ok(attribute(&self.index, &self.sketcher.sketch(semantics, &trace)?, &self.contributors, None)?)
    }
}

impl Method for Integer<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        Ok(self.attribution(query)?.scores.iter().take(self.index.rows).map(|&s| f64::from(s)).collect())
    }

    /// The runtime's `max(0, score − ⌊m/2⌋)`, `m` the best score or twice the noise floor.
    fn relevance(&self, scores: &[f64]) -> Vec<f64> {
        let theta = self.index.semantics.consts.get("theta").map_or(0.0, |&theta| theta as f64);
        let floor = (scores.iter().copied().fold(2.0 * theta, f64::max) / 2.0).floor();
        scores.iter().map(|s| (s - floor).max(0.0)).collect()
    }

    /// The integer model's own answer, as long as the float model's; or the answer expected.
    fn tokens(&self, query: &Query) -> Result<Vec<u32>, Failure> {
        if self.stage.answers == Answers::Expected {
            return Ok(query.tokens.clone());
        }
        let prompt = &query.tokens[..query.prompt_len];
        let answer = self.runtime.generate(prompt, query.tokens.len() - query.prompt_len, Some(self.stage.tokenizer.eos()))?;
        Ok(prompt.iter().copied().chain(answer).collect())
    }
}
