//! The integer semantics' parameters: exponents, shifts, widths and constants of every named operation (`docs/semantics.md`).
//!
//! Importing a model, an adapter and an index each add their entries; the relation in `circuits` reads nothing else.

use crate::shape::{LoraShape, ModelShape, Site};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bits of activations.
pub const ACT_BITS: u32 = 12;
/// Bits of the residual stream.
pub const RESIDUAL_BITS: u32 = 15;
/// Fixed point of attention probabilities.
pub const PROB_BITS: u32 = 12;
/// Fixed point of output probabilities.
pub const OUT_PROB_BITS: u32 = 14;
/// Fixed point of the rotary table.
pub const ROPE_BITS: u32 = 13;
/// Fixed point of the reciprocal table.
pub const RECIP_BITS: u32 = 28;
/// The proof field's order (KoalaBear).
pub const FIELD: i64 = (1 << 31) - (1 << 24) + 1;

/// How a requantisation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// `RQc`: saturate to `bits`.
    Clamp,
    /// `RQe`: the bound guarantees that it fits.
    Exact,
}

/// One requantisation: `y = RQ(Σ coefs[i]·term_i, shift)`; terms in the order of `docs/semantics.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Right shift, 1 to 16.
    pub shift: u32,
    /// Output width in bits, sign included (for `Exact`: of the range check).
    pub bits: u32,
    /// Saturating or not.
    pub rounding: Rounding,
    /// Integer multiplier of each term.
    pub coefs: Vec<i64>,
}

/// What the signs of a sketch's projections are drawn from.
///
/// Samples can be built against projections that are known before a datanet closes, so the seed is of the closed datanet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// `BLAKE3("poa projection seed", datanet root, beacon)`. A beacon is a value that nobody knew when the datanet closed, a later block's hash;
    /// without one, whoever adds the last sample may try samples until the root suits them, but can't build one against it.
    pub fn of(datanet_root: &[u8; 32], beacon: Option<&[u8; 32]>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("poa projection seed");
        hasher.update(datanet_root);
        beacon.into_iter().for_each(|beacon| _ = hasher.update(beacon));
        Self(*hasher.finalize().as_bytes())
    }
}

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        blake3::Hash::from_bytes(seed.0).to_hex().to_string()
    }
}

impl TryFrom<String> for Seed {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hash = blake3::Hash::from_hex(&text).map_err(|_| format!("expected a seed of 64 hexadecimal digits, found {text:?}"))?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// Which gradients a sketch reads and how far it shrinks them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchShape {
    /// Sites, in the order of [`Site::ALL`]; the adapter covers all of them.
    pub sites: Vec<Site>,
    /// Rows of the projection of a site's output side, a power of two.
    pub rows: usize,
    /// Rows of the projection of the rank side, a power of two; absent where ranks are kept as they are.
    pub ranks: Option<usize>,
    /// What the projections' signs are drawn from.
    pub seed: Seed,
}

/// Every parameter of the integer semantics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Semantics {
    /// Architecture.
    pub shape: ModelShape,
    /// Adapter's shape, once there is one.
    pub lora: Option<LoraShape>,
    /// What is sketched, once there is an index.
    pub sketch: Option<SketchShape>,
    /// Exponent of each tensor: `real = int · 2^-k`.
    pub exps: BTreeMap<String, i32>,
    /// Width in bits, sign included, of each committed weight tensor (base, adapter, index).
    pub weight_bits: BTreeMap<String, u32>,
    /// Requantisations by output tensor.
    pub ops: BTreeMap<String, Op>,
    /// Other constants: `X.sq_shift`, `X.eps`, `X.fb_shift` for X in n1, n2, nf; `ghf.length`, `ghf.lift`; `theta`.
    pub consts: BTreeMap<String, i64>,
}

/// Padded sizes of all axes for one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dims {
    /// Layers.
    pub l: usize,
    /// Tokens.
    pub t: usize,
    /// Width.
    pub d: usize,
    /// Key/value heads.
    pub g: usize,
    /// Query heads per key/value head.
    pub j: usize,
    /// Head channels (`2 · p`).
    pub c: usize,
    /// Rotary pairs.
    pub p: usize,
    /// Feed-forward width.
    pub f: usize,
    /// LoRA rank (1 without an adapter).
    pub r: usize,
    /// Vocabulary.
    pub v: usize,
    /// Answer slots.
    pub s: usize,
    /// Sketch rows (1 without an index).
    pub a: usize,
    /// The sketch's rank side (the rank where it isn't projected).
    pub k: usize,
}

impl Dims {
    /// Pads the semantics' true sizes; `tokens` and `slots` are the trace's own (at least 1).
    pub fn new(sem: &Semantics, tokens: usize, slots: usize) -> Self {
        let s = &sem.shape;
        let p = (s.head_dim / 2).next_power_of_two();
        let r = sem.lora.as_ref().map_or(1, |l| l.rank.next_power_of_two());
        Self {
            l: s.layers.next_power_of_two(),
            t: tokens.next_power_of_two(),
            d: s.width.next_power_of_two(),
            g: s.kv_heads.next_power_of_two(),
            j: (s.heads / s.kv_heads).next_power_of_two(),
            c: 2 * p,
            p,
            f: s.ff.next_power_of_two(),
            r,
            v: s.vocab.next_power_of_two(),
            s: slots.next_power_of_two(),
            a: sem.sketch.as_ref().map_or(1, |x| x.rows),
            k: sem.sketch.as_ref().and_then(|x| x.ranks).unwrap_or(r),
        }
    }
}

impl Semantics {
    /// The sites an adapter covers (none without an adapter).
    pub fn sites(&self) -> &[Site] {
        self.lora.as_ref().map_or(&[], |l| &l.sites)
    }

    /// The sites that are sketched (none without an index).
    pub fn sketched(&self) -> &[Site] {
        self.sketch.as_ref().map_or(&[], |x| &x.sites)
    }

    /// What the projections' signs are drawn from (zeros without an index).
    pub fn projection_seed(&self) -> Seed {
        self.sketch.as_ref().map_or(Seed::default(), |x| x.seed)
    }

    /// Entries of a sketch, without padding.
    pub fn sketch_len(&self) -> usize {
        let rank = self.lora.as_ref().map_or(1, |l| l.rank);
        self.sketch.as_ref().map_or(0, |x| x.sites.len() * self.shape.layers * x.rows * x.ranks.unwrap_or(rank))
    }
}
