//! The exact-integer model: quantisation, whole-sequence and cached execution, gradients, sketches, the attribution index.
//!
//! Everything follows `docs/semantics.md` to the bit; the relation in `circuits` claims the same tensors under the same names.

pub mod adapter;
pub mod attribute;
pub mod backward;
pub mod batch;
pub mod bounds;
pub mod calibrate;
pub mod engine;
pub mod fidelity;
pub mod forward;
pub mod gadgets;
pub mod gemm;
pub mod generate;
pub mod index;
pub mod plan;
mod plan_backward;
pub mod quantise;
pub mod reference;
pub mod rotation;
pub mod sketch;
pub mod synthetic;
pub mod trace;
pub mod unit;
pub mod words;

#[cfg(test)]
mod tests;

pub use adapter::{IntAdapter, quantise_adapter};
pub use attribute::{Attribution, attribute};
pub use engine::{RunError, Runtime};

pub use index::{Index, IndexOptions, build_index};
pub use quantise::{Headroom, IntModel, QuantiseError, quantise_base, quantise_base_with};

pub use sketch::{Sketcher, sketch};
pub use trace::{Mode, Trace};
