//! The bounds every operation must keep: sums stay inside the field, quotients inside 16 bits.

use crate::semantics::{FIELD, Op, Rounding};

/// What an operation may add up to, and which operand to narrow when it's too much.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// Exponent of the products.
    pub exp: i32,
    /// Largest sum by bit widths and shape.
    pub field: f64,
    /// Largest sum for the actual weights and any input of the given widths.
    pub actual: f64,
    /// The operand whose width may be reduced.
    pub knob: Option<Knob>,
}

/// A width that planning may reduce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Knob {
    /// A weight tensor.
    Weight(String),
    /// A gradient tensor.
    Gradient(String),
}

/// Largest magnitude of the quotient that the range check admits.
fn quotient_limit(op: &Op, unsigned: bool) -> f64 {
    match op.rounding {
        Rounding::Clamp => 32768.0,
        Rounding::Exact if unsigned => f64::from(op.bits).exp2(),
        Rounding::Exact => f64::from(op.bits - 1).exp2(),
    }
}

/// The field bound's left-hand side and its limit `p`.
pub fn field_bound(op: &Op, unsigned: bool, max_acc: f64) -> (f64, f64) {
    let unit = f64::from(op.shift).exp2();
    (max_acc + unit / 2.0 + quotient_limit(op, unsigned) * unit + unit, FIELD as f64)
}

/// The least shift for which a sum of magnitude `max_acc` has a quotient below `2^(bits-1)`.
pub fn least_shift(max_acc: f64, bits: u32) -> u32 {
    (1..40).find(|&s| (max_acc + f64::from(s - 1).exp2()) / f64::from(s).exp2() < f64::from(bits - 1).exp2() - 1.0).unwrap_or(40)
}

/// The largest exponent at which `max` stays within `fill` of a signed `bits`-bit range.
pub fn fitting_exponent(max: f64, bits: u32, fill: f64) -> i32 {
    (fill * f64::from(bits - 1).exp2() / max.max(1e-30)).log2().floor() as i32
}

/// Coefficients that align terms of the given exponents, times `2^lift`, and the exponent of the sum.
pub fn align(exps: &[i32], lift: u32) -> (Vec<i64>, i32) {
    let most = exps.iter().copied().max().unwrap_or(0);
    let coefs = exps.iter().map(|e| 1i64 << ((most - e) as u32 + lift).min(40)).collect();
    (coefs, most + lift as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_and_exponents() {
        assert_eq!(least_shift(32000.0, 16), 1);
        assert_eq!(least_shift(65536.0 * 32768.0, 16), 17);
        assert_eq!(fitting_exponent(1.0, 12, 1.0), 11);
        assert_eq!(align(&[10, 12], 1), (vec![8, 2], 13));
    }
}
