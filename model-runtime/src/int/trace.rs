//! What a run leaves behind: every tensor of `docs/semantics.md` by name.

use crate::semantics::Dims;
use crate::tensor::{Tensor, TensorMap};

/// What kind of sequence is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A prompt and its greedy answer; a token that isn't the largest logit is an error.
    Greedy,
    /// A datanet sample: every token but the first is predicted (`P = 1`).
    Sample,
    /// A prompt and any continuation of it.
    Teacher,
}

/// What slots span, and with it whether the run goes backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The answer: slot 0 predicts its first token. Forward only.
    Answer,
    /// The exchange: slot `s` reads position `s`; those of the prompt are dead. Forward and backward.
    Exchange,
}

impl Span {
    /// The position that slot 0 reads.
    pub fn first(self, prompt_len: usize) -> usize {
        match self {
            Span::Answer => prompt_len.saturating_sub(1),
            Span::Exchange => 0,
        }
    }
}

/// How much of a run is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every tensor, every remainder.
    All,
    /// Only what sketches read: `uS` and the gradients at the sites' outputs.
    Sketch,
    /// Nothing (decoding).
    Nothing,
}

/// A traced sequence.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Padded sizes.
    pub dims: Dims,
    /// Tensors by name, without a request axis.
    pub tensors: TensorMap,
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt_len: usize,
}

/// Names kept by [`Keep::Sketch`].
const SKETCH_NAMES: [&str; 14] = ["uq", "uk", "uv", "uo", "ugate", "uup", "udown", "dq", "dk", "dv", "gm", "dgate", "dup", "gout"];

/// Collects tensors layer by layer.
#[derive(Debug)]
pub struct Store {
    /// What is kept.
    pub keep: Keep,
    layers: usize,
    /// The tensors collected so far.
    pub tensors: TensorMap,
}

impl Store {
    /// A store for traces of `layers` padded layers.
    pub fn new(keep: Keep, layers: usize) -> Self {
        Self { keep, layers, tensors: TensorMap::new() }
    }

    fn wants(&self, name: &str) -> bool {
        match self.keep {
            Keep::All => true,
            Keep::Sketch => SKETCH_NAMES.contains(&name),
            Keep::Nothing => false,
        }
    }

    /// Keeps layer `l` of a tensor whose other axes are `dims`.
    pub fn layer(&mut self, name: &str, l: usize, dims: &[usize], data: &[i32]) {
        if !self.wants(name) {
            return;
        }
        debug_assert_eq!(dims.iter().product::<usize>(), data.len(), "{name}");
        let tensor = self.tensors.entry(name.to_owned()).or_insert_with(|| {
            let all: Vec<usize> = std::iter::once(self.layers).chain(dims.iter().copied()).collect();
            Tensor::zeros(&all)
        });
        tensor.data[l * data.len()..(l + 1) * data.len()].copy_from_slice(data);
    }

    /// Keeps a whole tensor.
    pub fn whole(&mut self, name: &str, dims: &[usize], data: &[i32]) {
        if self.wants(name) {
            debug_assert_eq!(dims.iter().product::<usize>(), data.len(), "{name}");
            self.tensors.insert(name.to_owned(), Tensor { dims: dims.to_vec(), data: data.to_vec() });
        }
    }
}
