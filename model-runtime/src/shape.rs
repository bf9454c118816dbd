//! Shapes of models and adapters, and the float form in which they are imported and trained.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A linear layer that can carry a LoRA branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// Query projection.
    Q,
    /// Key projection.
    K,
    /// Value projection.
    V,
    /// Attention output projection.
    O,
    /// Feed-forward gate.
    Gate,
    /// Feed-forward up projection.
    Up,
    /// Feed-forward down projection.
    Down,
}

impl Site {
    /// All sites in canonical order.
    pub const ALL: [Site; 7] = [Site::Q, Site::K, Site::V, Site::O, Site::Gate, Site::Up, Site::Down];

    /// The suffix used in tensor names: `uq`, `bdown`, ….
    pub fn name(self) -> &'static str {
        match self {
            Site::Q => "q",
            Site::K => "k",
            Site::V => "v",
            Site::O => "o",
            Site::Gate => "gate",
            Site::Up => "up",
            Site::Down => "down",
        }
    }
}

/// Architecture of a Llama-family model (true sizes, no padding).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels of a head; even.
    pub head_dim: usize,
    /// Feed-forward width.
    pub ff: usize,
    /// Vocabulary size.
    pub vocab: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Largest number of tokens (prompt and answer).
    pub context: usize,
}

/// Shape of a LoRA adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoraShape {
    /// LoRA rank.
    pub rank: usize,
    /// The sites it covers, in canonical order, the same in every layer.
    pub sites: Vec<Site>,
}

/// A model in floats. Matrices are row-major `[out, in]`; q and k rows are in the rotate-half convention (channel `c` pairs with `c + head_dim/2`).
#[derive(Clone, Debug)]
pub struct FloatModel {
    /// Architecture.
    pub shape: ModelShape,
    /// Token embedding `[vocab, width]`.
    pub embed: Vec<f32>,
    /// Layers, first to last.
    pub layers: Vec<FloatLayer>,
    /// Gain of the final norm `[width]`.
    pub final_norm: Vec<f32>,
    /// Output head `[vocab, width]`; `None` when tied to the embedding.
    pub head: Option<Vec<f32>>,
}

/// One layer in floats.
#[derive(Clone, Debug)]
pub struct FloatLayer {
    /// Gain of the attention norm `[width]`.
    pub attn_norm: Vec<f32>,
    /// Gain of the feed-forward norm `[width]`.
    pub ffn_norm: Vec<f32>,
    /// The seven linear layers, indexed by `Site as usize`, `[out, in]`.
    pub linear: [Vec<f32>; 7],
}

/// A LoRA adapter in floats: `y = W x + scale · B (A x)`.
#[derive(Clone, Debug)]
pub struct FloatAdapter {
    /// Rank and sites.
    pub shape: LoraShape,
    /// `alpha / rank` (or `alpha / √rank` for rsLoRA).
    pub scale: f32,
    /// `(layer, site)` to `(A [rank, in], B [out, rank])`; q and k rows of B in the rotate-half convention.
    pub pairs: BTreeMap<(usize, Site), (Vec<f32>, Vec<f32>)>,
}

impl ModelShape {
    /// True `(out, in)` sizes of a site's matrix.
    pub fn site_dims(&self, site: Site) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match site {
            Site::Q => (q, self.width),
            Site::K | Site::V => (kv, self.width),
            Site::O => (self.width, q),
            Site::Gate | Site::Up => (self.ff, self.width),
            Site::Down => (self.width, self.ff),
        }
    }
}
