//! Published lookup tables: the nonlinear functions as integers.
//!
//! Only IEEE-exact operations and `libm`'s pure-Rust functions are used, so every machine makes the same tables.

use crate::semantics::{RECIP_BITS, ROPE_BITS, Seed};
use crate::shape::Site;

/// Entries of a 16-bit table.
pub const TABLE_LEN: usize = 1 << 16;
/// `EXP(0)`. A vocabulary of `2^17` keeps a row's sum below the field's order.
pub const EXP_ONE: i32 = 1 << 13;
/// Largest factor a softmax row may have (two 12-bit limbs).
pub const MAX_FACTOR: i64 = (1 << 24) - 1;

/// `x -> round(2^13·exp(-x·2^-k))` for `x` in `[0, 2^16)`.
pub fn exp_table(k: i32) -> Vec<i32> {
    let unit = libm::ldexp(1.0, -k);
    (0..TABLE_LEN).map(|x| (f64::from(EXP_ONE) * libm::exp(-(x as f64) * unit)).round() as i32).collect()
}

/// `(SILU, DSILU)` over `z` in `[-2^15, 2^15)` (entry `z + 2^15`), input exponent `k_in`, output exponents `k_out` and `k_grad`, saturated to 12 bits.
pub fn silu_tables(k_in: i32, k_out: i32, k_grad: i32) -> (Vec<i32>, Vec<i32>) {
    let entry = |z: i64| {
        let x = libm::ldexp(z as f64, -k_in);
        let sigmoid = 1.0 / (1.0 + libm::exp(-x));
        let gradient = sigmoid * (1.0 + x * (1.0 - sigmoid));
        let fix = |y: f64, k| libm::ldexp(y, k).round().clamp(-2048.0, 2047.0) as i32;
        (fix(x * sigmoid, k_out), fix(gradient, k_grad))
    };
    (-(1i64 << 15)..1 << 15).map(entry).unzip()
}

/// `man -> round(2^shift·sqrt(width / (2^sq_shift·man)))` for `man` in `[0, 2^16)`, 0 for `man = 0`.
pub fn rsqrt_table(shift: u32, width: usize, sq_shift: u32) -> Vec<i32> {
    let entry = |man: usize| match man {
        0 => 0,
        _ => libm::ldexp((width as f64 / (man as f64 * libm::ldexp(1.0, sq_shift as i32))).sqrt(), shift as i32).round().min(i32::MAX as f64 / 2.0)
            as i32,
    };
    (0..TABLE_LEN).map(entry).collect()
}

/// `man -> min(2^24-1, round(2^28/man))` for `man` in `[0, 2^16)`, 0 for `man = 0`.
pub fn recip_table() -> Vec<i32> {
    let one = 1i64 << RECIP_BITS;
    (0..TABLE_LEN as i64).map(|man| if man == 0 { 0 } else { ((one + man / 2) / man).min(MAX_FACTOR) as i32 }).collect()
}

/// `(cos, sin)`, each `[tokens, pairs_padded]` row-major, `round(2^13·…)`; padded pairs have `cos = sin = 0`.
pub fn rope_tables(theta: f64, head_dim: usize, tokens: usize, pairs_padded: usize) -> (Vec<i32>, Vec<i32>) {
    let pairs = head_dim / 2;
    let one = f64::from(1 << ROPE_BITS);
    let mut tables = (vec![0; tokens * pairs_padded], vec![0; tokens * pairs_padded]);
    for p in 0..pairs {
        let frequency = libm::pow(theta, -2.0 * p as f64 / head_dim as f64);
        for t in 0..tokens {
            let angle = t as f64 * frequency;
            tables.0[t * pairs_padded + p] = (one * libm::cos(angle)).round() as i32;
            tables.1[t * pairs_padded + p] = (one * libm::sin(angle)).round() as i32;
        }
    }
    tables
}

/// Which factor of a site's LoRA gradient `Σ_t dS ⊗ uS` a projection shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `dS`, the gradient at the site's output.
    Output,
    /// `uS`, the activation between `A` and `B`.
    Rank,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Output => "output",
            Side::Rank => "rank",
        }
    }
}

/// Signs of the public projection `P[a, (x, y)] = s1[a, x]·s2[a, y]` of one site.
///
/// `out_log` bits of output index are split into `out_log / 2` low bits (`y`) and the rest (`x`).
/// Kronecker-structured Rademacher projection: the multilinear extension costs `O(rows·√out)`.
pub struct Projection {
    /// `[rows, 2^(out_log - out_log/2)]`, entries ±1.
    pub high: Vec<i32>,
    /// `[rows, 2^(out_log/2)]`, entries ±1.
    pub low: Vec<i32>,
    /// Number of sketch rows.
    pub rows: usize,
    /// Bits of `y`.
    pub low_log: usize,
}

impl Projection {
    /// Derives the signs from the seed, the site, the side and the sizes.
    pub fn new(seed: Seed, site: Site, side: Side, rows: usize, out_log: usize) -> Self {
        let low_log = out_log / 2;
        let (high_len, low_len) = (rows << (out_log - low_log), rows << low_log);
        let label = format!("poa/projection/v3/{}/{}/{rows}/{out_log}", site.name(), side.name());
        let mut bytes = vec![0u8; high_len + low_len];
        blake3::Hasher::new_keyed(&seed.0).update(label.as_bytes()).finalize_xof().fill(&mut bytes);
        let signs: Vec<i32> = bytes.iter().map(|b| if b & 1 == 0 { 1 } else { -1 }).collect();
        Self { high: signs[..high_len].to_vec(), low: signs[high_len..].to_vec(), rows, low_log }
    }

    /// Entry `P[a, out]`.
    pub fn at(&self, a: usize, out: usize) -> i32 {
        let low_len = 1 << self.low_log;
        let high_len = self.high.len() / self.rows;
        self.high[a * high_len + (out >> self.low_log)] * self.low[a * low_len + (out & (low_len - 1))]
    }
}
