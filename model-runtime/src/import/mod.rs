//! Import and export of float models and adapters: Hugging Face Llama directories, llama2.c files and PEFT adapters.
//!
//! Everything read here is outside data: a wrong file gives a named [`ImportError`], never a panic.

mod error;
mod export;
mod files;
mod generation;
mod hf;
mod llama2c;
mod peft;
mod peft_config;
mod weights;

pub use error::ImportError;
pub use export::{StoredType, export_hf, write_atomic, write_atomic_with};
pub(crate) use files::is_lfs_pointer;
pub use generation::{EndIds, end_ids, samples};
pub use hf::load_hf;
pub use llama2c::{load_llama2c, parse_llama2c};
pub use peft::{load_peft, write_peft};

use crate::shape::{FloatModel, ModelShape, Site};
use std::path::Path;

/// The context used when neither the model nor the options ask for less.
pub const DEFAULT_CONTEXT: usize = 512;

/// What the caller may choose about an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Largest number of tokens; [`DEFAULT_CONTEXT`] when `None`. The model's own limit always holds too.
    pub context: Option<usize>,
}

impl ImportOptions {
    /// The context to use for a model that supports `limit` tokens.
    pub(crate) fn context(&self, limit: usize) -> usize {
        self.context.unwrap_or(DEFAULT_CONTEXT).min(limit)
    }
}

/// Loads a model: a Hugging Face directory, or a llama2.c file ending in `.bin`.
pub fn load_model(path: &Path, options: &ImportOptions) -> Result<FloatModel, ImportError> {
    if path.is_dir() {
        load_hf(path, options)
    } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin")) {
        load_llama2c(path, options)
    } else {
        Err(ImportError::UnknownFormat { path: path.display().to_string() })
    }
}

/// A site's module path inside a Hugging Face Llama layer.
pub fn hf_module(site: Site) -> &'static str {
    match site {
        Site::Q => "self_attn.q_proj",
        Site::K => "self_attn.k_proj",
        Site::V => "self_attn.v_proj",
        Site::O => "self_attn.o_proj",
        Site::Gate => "mlp.gate_proj",
        Site::Up => "mlp.up_proj",
        Site::Down => "mlp.down_proj",
    }
}

/// Refuses shapes that no Llama model has.
pub(crate) fn check_shape(s: &ModelShape) -> Result<(), ImportError> {
    let sizes = [
        ("hidden_size", s.width),
        ("intermediate_size", s.ff),
        ("num_attention_heads", s.heads),
        ("num_key_value_heads", s.kv_heads),
        ("num_hidden_layers", s.layers),
        ("vocab_size", s.vocab),
        ("context", s.context),
        ("head_dim", s.head_dim),
    ];
    for (field, size) in sizes {
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(invalid(field, format!("1 to {MAX_SIZE}"), size));
        }
    }
    if !s.heads.is_multiple_of(s.kv_heads) {
        return Err(invalid("num_key_value_heads", format!("a divisor of {}", s.heads), s.kv_heads));
    }
    if !s.head_dim.is_multiple_of(2) {
        return Err(invalid("head_dim", "an even number", s.head_dim));
    }
    for (field, value) in [("rope_theta", s.rope_theta), ("rms_norm_eps", s.norm_eps)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(invalid(field, "a positive number", value));
        }
    }
    Ok(())
}

/// Largest size of any axis that is read (keeps products of sizes inside 64 bits).
const MAX_SIZE: usize = 1 << 18;

fn invalid(field: &str, expected: impl ToString, found: impl ToString) -> ImportError {
    ImportError::Config { field: field.into(), expected: expected.to_string(), found: found.to_string() }
}

#[cfg(test)]
mod reference_tests;
