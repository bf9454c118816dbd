//! Floats: the reference forward pass and its gradients (candle, CPU), training of base models with it, and of adapters by passes written out,
//! several times as fast.
//!
//! Nothing that is proven depends on this module.

mod adam;
mod base;
mod float;
pub mod gemm;
mod held_out;
mod lora;
mod loss;
mod optimise;
pub mod pass;
mod rng;
mod training;

pub use base::{BaseConfig, train_base};
pub use float::{Net, float_greedy, float_logits, float_lora_gradients};
pub use held_out::{EpochLoss, HoldOut, best_epoch, held_out_curve, train_lora_chosen};
pub use lora::{LoraConfig, pack, train_lora};
pub use optimise::{Penalties, Progress, Schedule};
pub use rng::SplitMix64;
pub use training::{Epoch, Phase, Training};

/// Why training or the float reference failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The tensor library's error.
    #[error("tensor operation: {0}")]
    Candle(#[from] candle_core::Error),
    /// A parameter out of its range.
    #[error("`{name}`: expected {expected}, found {found}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its range.
        expected: String,
        /// Its value.
        found: String,
    },
    /// A token id beyond the vocabulary.
    #[error("token {position}: expected an id below {vocab}, found {id}")]
    Token {
        /// Position in the sequence.
        position: usize,
        /// The vocabulary's size.
        vocab: usize,
        /// The id.
        id: u32,
    },
    /// A checkpoint that can't be gone on from.
    #[error("the checkpoint {0}")]
    Checkpoint(String),
    /// Told to stop by whoever watches progress.
    #[error("stopped")]
    Stopped,
    /// The loss became infinite or not a number.
    #[error("the loss is {loss} at step {step}: try a smaller learning rate")]
    Diverged {
        /// Step, from 0.
        step: usize,
        /// The loss.
        loss: f32,
    },
}

/// A parameter error.
pub(crate) fn parameter(name: &'static str, expected: impl ToString, found: impl ToString) -> TrainError {
    TrainError::Parameter { name, expected: expected.to_string(), found: found.to_string() }
}
