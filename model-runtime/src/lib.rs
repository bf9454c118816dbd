//! What is executed: import, quantisation, training, integer forward and backward passes, sketches and the index.
//!
//! The integer semantics is written down in `docs/semantics.md`; what runs here is what `circuits` claims and `prover` proves.

pub mod demo;
pub mod import;
pub mod int;
pub mod semantics;
pub mod shape;
pub mod tables;
pub mod tensor;
pub mod text;
pub mod train;

#[cfg(test)]
mod test_support;
