//! Lookup tables: columns that prover and verifier make themselves.

use crate::ir::{EF, int};
use crate::public::iota;
use model_runtime::tables::{EXP_ONE, boost, exp_table, recip_table, rsqrt_table, silu_tables};

/// A table's contents. The first column counts from [`TableKind::start`]; its position is the row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableKind {
    /// `x` in `[0, 2^bits)`.
    Range(u32),
    /// `(z, clamp_bits(z))`, `z` in `[-2^15, 2^15)`.
    Clamp(u32),
    /// `(h, (h² + half) >> shift)`, `h` in `[-2^14, 2^14)`.
    Square(u32),
    /// `(x, round(4096·exp(-x·2^-k)), x = 0)`, `x` in `[0, 2^16)`.
    Exp(i32),
    /// `(z, silu, silu')`, `z` in `[-2^15, 2^15)`; exponents of input, output, gradient.
    Silu(i32, i32, i32),
    /// `(man, g, man ≥ 2^14)`; shift, true width, square shift.
    Rsqrt(u32, usize, u32),
    /// `(man, g, man ≥ 2^15)`.
    Recip,
    /// `(e, 2^e, 4^e)`, `e` in `[0, 8)`.
    Power4,
    /// `(e, 2^e)`, `e` in `[0, 14)`, padded with `e = 0` rows.
    Power2,
    /// `(gap, coarse, fine, gap ≥ 2^15)`: the gradient's scale, up to `2^limit`, in two factors.
    Boost(u32),
    /// `(z, max(0, z - θ))`, `z` in `[-2^15, 2^15)`.
    Relu(i64),
}

impl TableKind {
    /// Base-two logarithm of the number of rows.
    pub fn log(&self) -> usize {
        match self {
            TableKind::Range(bits) => *bits as usize,
            TableKind::Square(_) => 15,
            TableKind::Power4 => 3,
            TableKind::Power2 => 4,
            _ => 16,
        }
    }

    /// First value of the first column.
    pub fn start(&self) -> i64 {
        match self {
            TableKind::Clamp(_) | TableKind::Silu(..) | TableKind::Relu(_) => -(1 << 15),
            TableKind::Square(_) => -(1 << 14),
            _ => 0,
        }
    }

    /// Columns after the first, row-major per column.
    pub fn columns(&self) -> Vec<Vec<i64>> {
        let rows = || (0..1i64 << self.log()).map(|i| i + self.start());
        let wide = |v: Vec<i32>| v.into_iter().map(i64::from).collect::<Vec<_>>();
        match *self {
            TableKind::Range(_) => vec![],
            TableKind::Clamp(bits) => {
                let limit = 1i64 << (bits - 1);
                vec![rows().map(|z| z.clamp(-limit, limit - 1)).collect()]
            }
            TableKind::Square(0) => vec![rows().map(|h| h * h).collect()],
            TableKind::Square(shift) => vec![rows().map(|h| (h * h + (1 << (shift - 1))) >> shift).collect()],
            TableKind::Exp(k) => {
                let values = wide(exp_table(k));
                let flag = (0..values.len()).map(|x| i64::from(x == 0)).collect();
                vec![values, flag]
            }
            TableKind::Silu(k_in, k_out, k_grad) => {
                let (value, gradient) = silu_tables(k_in, k_out, k_grad);
                vec![wide(value), wide(gradient)]
            }
            TableKind::Rsqrt(shift, width, sq_shift) => {
                vec![wide(rsqrt_table(shift, width, sq_shift)), rows().map(|m| i64::from(m >= 1 << 14)).collect()]
            }
            TableKind::Recip => vec![wide(recip_table()), rows().map(|m| i64::from(m >= 1 << 15)).collect()],
            TableKind::Power4 => vec![rows().map(|e| 1 << e).collect(), rows().map(|e| 1 << (2 * e)).collect()],
            TableKind::Power2 => vec![rows().map(|e| if e < 14 { 1 << e } else { 1 }).collect()],
            TableKind::Boost(limit) => {
                let (coarse, fine) = rows().map(|gap| boost(gap, limit)).unzip();
                vec![coarse, fine, rows().map(|gap| i64::from(gap >= 1 << 15)).collect()]
            }
            TableKind::Relu(theta) => vec![rows().map(|z| (z - theta).max(0)).collect()],
        }
    }

    /// Whether the first column is a plain count (see [`TableKind::first_at`]).
    fn first(&self, row: usize) -> i64 {
        match self {
            TableKind::Power2 if row >= 14 => 0,
            _ => row as i64 + self.start(),
        }
    }

    /// All columns, the first included.
    pub fn all_columns(&self) -> Vec<Vec<i64>> {
        let first = (0..1 << self.log()).map(|row| self.first(row)).collect();
        std::iter::once(first).chain(self.columns()).collect()
    }

    /// The first column's multilinear extension.
    fn first_at(&self, point: &[EF], eq: &[EF]) -> EF {
        match self {
            TableKind::Power2 => (0..14).map(|e| eq[e] * int(e as i64)).sum(),
            _ => iota(point) + int(self.start()),
        }
    }

    /// Multilinear extensions of all columns at `point`, whose `eq` table is given.
    pub fn evaluate(&self, point: &[EF], eq: &[EF]) -> Vec<EF> {
        let dense = |column: Vec<i64>| eq.iter().zip(column).map(|(&e, x)| e * int(x)).sum();
        std::iter::once(self.first_at(point, eq)).chain(self.columns().into_iter().map(dense)).collect()
    }

    /// Finds the row that starts with `tuple[0]` and compares the rest. `None` if there is no such row.
    pub fn row(&self, first: i64) -> Option<usize> {
        let row = usize::try_from(first - self.start()).ok()?;
        let limit = if *self == TableKind::Power2 { 14 } else { 1 << self.log() };
        (row < limit).then_some(row)
    }
}

/// The attention's and the output's exponent tables must tell 0 from 1, or the arg-max argument fails.
pub fn exp_is_strict(k: i32) -> bool {
    exp_table(k).get(1).is_some_and(|&x| x < EXP_ONE)
}
