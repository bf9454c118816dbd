//! Lookup tables: columns that prover and verifier make themselves.

use crate::ir::F;
use crate::public::{eq_at, iota, iota_below, less_than};
use model_runtime::tables::{EXP_ONE, exp_table, recip_table, rsqrt_table, silu_tables};
use p3_field::{Field, PrimeCharacteristicRing};

/// A table's contents. The first column counts from [`TableKind::start`]; its position is the row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableKind {
    /// `x` in `[0, 2^bits)`.
    Range(u32),
    /// `(z, clamp_bits(z))`, `z` in `[-2^15, 2^15)`.
    Clamp(u32),
    /// `(h, (h² + half) >> shift)`, `h` in `[-2^14, 2^14)`.
    Square(u32),
    /// `(x, round(2^13·exp(-x·2^-k)), x = 0)`, `x` in `[0, 2^16)`.
    Exp(i32),
    /// `(z, silu, silu')`, `z` in `[-2^15, 2^15)`; exponents of input, output, gradient.
    Silu(i32, i32, i32),
    /// `(man, g, man ≥ 2^14)`; shift, true width, square shift.
    Rsqrt(u32, usize, u32),
    /// `(man, g, man ≥ 2^15)`.
    Recip,
    /// `(e, 2^e, 4^e)`, `e` in `[0, 8)`.
    Power4,
    /// `(e, 2^e)`, `e` in `[0, 15)`, padded with a row `e = 0`.
    Power2,
    /// `(z, max(0, z))`, `z` in `[-2^15, 2^15)`.
    Relu,
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
            TableKind::Clamp(_) | TableKind::Silu(..) | TableKind::Relu => -(1 << 15),
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
            TableKind::Power2 => vec![rows().map(|e| if e < 15 { 1 << e } else { 1 }).collect()],
            TableKind::Relu => vec![rows().map(|z| z.max(0)).collect()],
        }
    }

    /// Whether the first column is a plain count (see [`TableKind::first_at`]).
    fn first(&self, row: usize) -> i64 {
        match self {
            TableKind::Power2 if row >= 15 => 0,
            _ => row as i64 + self.start(),
        }
    }

    /// All columns, the first included.
    pub fn all_columns(&self) -> Vec<Vec<i64>> {
        let first = (0..1 << self.log()).map(|row| self.first(row)).collect();
        std::iter::once(first).chain(self.columns()).collect()
    }

    /// The multilinear extension of a column in closed form, by the column's number; `None` if it has none.
    pub fn closed_form<E: Field>(&self, column: usize, point: &[E]) -> Option<E> {
        let at_least = |bound: usize| E::ONE - less_than(point, bound);
        Some(match (self, column) {
            (TableKind::Power2, 0) => few(point, 15, |e| e),
            (_, 0) => iota(point) + E::from_i64(self.start()),
            (TableKind::Clamp(bits), 1) => {
                // -limit below, z between, limit - 1 above.
                let (zero, limit) = (1usize << 15, 1usize << (bits - 1));
                let (low, high) = (zero - limit, zero + limit);
                let between =
                    iota_below(point, high) - iota_below(point, low) - E::from_usize(zero) * (less_than(point, high) - less_than(point, low));
                between - E::from_usize(limit) * less_than(point, low) + E::from_usize(limit - 1) * at_least(high)
            }
            (TableKind::Relu, 1) => {
                let zero = 1usize << 15;
                iota(point) - iota_below(point, zero) - E::from_usize(zero) * at_least(zero)
            }
            (TableKind::Exp(_), 2) => eq_at(point, 0),
            (TableKind::Rsqrt(..), 2) => at_least(1 << 14),
            (TableKind::Recip, 2) => at_least(1 << 15),
            (TableKind::Power2, 1) => few(point, 15, |e| 1 << e) + at_least(15),
            (TableKind::Power4, 1) => few(point, 8, |e| 1 << e),
            (TableKind::Power4, 2) => few(point, 8, |e| 1 << (2 * e)),
            _ => return None,
        })
    }

    /// The numbers of the columns that have no closed form.
    pub fn dense_columns(&self) -> Vec<usize> {
        let origin = vec![F::ZERO; self.log()];
        (1..=self.columns().len()).filter(|&k| self.closed_form(k, &origin).is_none()).collect()
    }

    /// Finds the row that starts with `tuple[0]` and compares the rest. `None` if there is no such row.
    pub fn row(&self, first: i64) -> Option<usize> {
        let row = usize::try_from(first - self.start()).ok()?;
        let limit = if *self == TableKind::Power2 { 15 } else { 1 << self.log() };
        (row < limit).then_some(row)
    }
}

/// `Σ_{e < count} eq(e)·value(e)`.
fn few<E: Field>(point: &[E], count: usize, value: impl Fn(usize) -> usize) -> E {
    (0..count).map(|e| eq_at(point, e) * E::from_usize(value(e))).sum()
}

/// The attention's and the output's exponent tables must tell 0 from 1, or the arg-max argument fails.
pub fn exp_is_strict(k: i32) -> bool {
    exp_table(k).get(1).is_some_and(|&x| x < EXP_ONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::EF;
    use crate::public::eq_table;

    #[test]
    fn closed_forms_are_the_columns() {
        let kinds = [
            TableKind::Range(7),
            TableKind::Clamp(15),
            TableKind::Clamp(9),
            TableKind::Square(3),
            TableKind::Exp(10),
            TableKind::Silu(10, 10, 12),
            TableKind::Recip,
            TableKind::Power4,
            TableKind::Power2,
            TableKind::Relu,
        ];
        for kind in kinds {
            let point: Vec<EF> = (0..kind.log() as u64).map(|i| EF::from_u64(i * 77_777 + 5).square()).collect();
            let eq = eq_table(&point);
            for (k, column) in kind.all_columns().into_iter().enumerate() {
                let dense: EF = eq.iter().zip(column).map(|(&e, x)| e * EF::from_i64(x)).sum();
                if let Some(value) = kind.closed_form(k, &point) {
                    assert_eq!(value, dense, "{kind:?}, column {k}");
                }
            }
        }
        assert_eq!(TableKind::Silu(10, 10, 12).dense_columns(), [1, 2]);
        assert_eq!(TableKind::Clamp(15).dense_columns(), [] as [usize; 0]);
    }
}
