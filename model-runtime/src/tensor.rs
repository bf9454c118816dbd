//! Dense integer tensors, the currency between the runtime and the prover.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A row-major integer tensor whose dimensions are powers of two (padding included).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Padded sizes of the axes, outermost first.
    pub dims: Vec<usize>,
    /// Values; `data.len()` is the product of `dims`.
    pub data: Vec<i32>,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(dims: &[usize]) -> Self {
        Self { dims: dims.to_vec(), data: vec![0; dims.iter().product()] }
    }

    /// Wraps `data`; `None` if its length isn't the product of `dims`.
    pub fn new(dims: &[usize], data: Vec<i32>) -> Option<Self> {
        (dims.iter().product::<usize>() == data.len()).then(|| Self { dims: dims.to_vec(), data })
    }
}

/// Tensors by name (the names of `docs/semantics.md`).
pub type TensorMap = BTreeMap<String, Tensor>;
