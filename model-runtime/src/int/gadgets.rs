//! The nonlinear building blocks: requantisation, RMS norm and its gradient's factor, softmax rows.

use crate::semantics::{Op, Rounding};
use std::sync::Arc;

/// A requantisation whose value left its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The value before saturation.
    pub value: i32,
    /// Smallest value allowed.
    pub low: i32,
    /// Largest value allowed.
    pub high: i32,
}

/// `y = RQ(acc)`; `acc` is replaced by the remainders. `unsigned`: the exact range is `[0, 2^bits)`.
///
/// `z = (acc + 2^(s-1)) >> s`, `r = acc + 2^(s-1) - z·2^s`.
pub fn requantise(acc: &mut [i32], op: &Op, unsigned: bool) -> Result<Vec<i32>, OutOfRange> {
    let (shift, half) = (op.shift, 1i32 << (op.shift - 1));
    let (low, high) = match op.rounding {
        Rounding::Clamp => (-(1 << 15), (1 << 15) - 1),
        Rounding::Exact if unsigned => (0, (1 << op.bits) - 1),
        Rounding::Exact => (-(1 << (op.bits - 1)), (1 << (op.bits - 1)) - 1),
    };
    let clamp = match op.rounding {
        Rounding::Clamp => (-(1 << (op.bits - 1)), (1 << (op.bits - 1)) - 1),
        Rounding::Exact => (low, high),
    };
    let (mut least, mut most) = (0i32, 0i32);
    let mut out = vec![0i32; acc.len()];
    for (y, a) in out.iter_mut().zip(acc.iter_mut()) {
        let sum = a.wrapping_add(half);
        let z = sum >> shift;
        *a = sum - (z << shift);
        least = least.min(z);
        most = most.max(z);
        *y = z.clamp(clamp.0, clamp.1);
    }
    match (least < low, most > high) {
        (true, _) => Err(OutOfRange { value: least, low, high }),
        (_, true) => Err(OutOfRange { value: most, low, high }),
        _ => Ok(out),
    }
}

/// Constants of one norm.
#[derive(Clone, Debug)]
pub struct NormParams {
    /// `⌈log2 width⌉`.
    pub sq_shift: u32,
    /// Added to the mean square; at least 1.
    pub eps: i32,
    /// Truncation of the factor used by the gradient.
    pub fb_shift: u32,
    /// `man -> round(2^(U+sn)·sqrt(width / (2^A·man)))`.
    pub table: Arc<Vec<i32>>,
}

/// The per-row witnesses of a norm, in the order of `docs/semantics.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NormRow {
    /// Exponent of the block float.
    pub e: i32,
    /// Mantissa, below `2^16`.
    pub man: i32,
    /// `V - man·4^e`.
    pub rem: i32,
    /// `f = g >> e`.
    pub f: i32,
    /// Table value.
    pub g: i32,
    /// `g - f·2^e`.
    pub frem: i32,
    /// `min(f >> F, 2^15 - 1)`.
    pub fb: i32,
    /// `f mod 2^F` unless saturated.
    pub fr: i32,
    /// What saturation cut off.
    pub over: i32,
}

impl NormParams {
    /// `(h² + 2^(A-1)) >> A`.
    pub fn square(&self, h: i32) -> i32 {
        match self.sq_shift {
            0 => h * h,
            a => (h * h + (1 << (a - 1))) >> a,
        }
    }

    /// Witnesses of a row whose squares sum to `sum`.
    pub fn row(&self, sum: i64) -> NormRow {
        let v = sum + i64::from(self.eps);
        let e = (0..).find(|e| v >> (2 * e) < 1 << 16).unwrap_or(0);
        let man = (v >> (2 * e)) as i32;
        let g = self.table[man as usize];
        let f = g >> e;
        let (fb, fr, over) = match f >> self.fb_shift {
            fb if fb < 1 << 15 => (fb, f - (fb << self.fb_shift), 0),
            _ => ((1 << 15) - 1, 0, f - (((1 << 15) - 1) << self.fb_shift)),
        };
        let rem = (v - (i64::from(man) << (2 * e))) as i32;
        NormRow { e, man, rem, f, g, frem: g - (f << e), fb, fr, over }
    }
}

/// The per-row witnesses of a softmax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftmaxRow {
    /// Exponent of the block float.
    pub e: i32,
    /// Mantissa, below `2^16`.
    pub man: i32,
    /// `S - man·2^e`.
    pub rem: i32,
    /// `round(2^28 / man)`.
    pub g: i32,
    /// `f = g >> e`.
    pub f: i32,
    /// `g - f·2^e`.
    pub frem: i32,
}

/// Witnesses of a row whose weights sum to `sum`.
pub fn softmax_row(sum: i64, recip: &[i32]) -> SoftmaxRow {
    let e = (0..).find(|e| sum >> e < 1 << 16).unwrap_or(0);
    let man = (sum >> e) as i32;
    let g = recip[man as usize];
    let f = g >> e;
    SoftmaxRow { e, man, rem: (sum - (i64::from(man) << e)) as i32, g, f, frem: g - (f << e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requantisation_identity_and_range() {
        let op = Op { shift: 4, bits: 5, rounding: Rounding::Clamp, coefs: vec![1] };
        let acc = [0, 7, 8, -8, -9, 1000, -1000];
        let mut rest = acc.to_vec();
        let y = requantise(&mut rest, &op, false).unwrap();
        assert_eq!(y, [0, 0, 1, 0, -1, 15, -16]);
        for (a, r) in acc.iter().zip(&rest) {
            assert_eq!((a + 8 - r) % 16, 0);
            assert!((0..16).contains(r));
        }
        let op = Op { rounding: Rounding::Exact, ..op };
        assert!(requantise(&mut acc.to_vec(), &op, false).is_err());
        assert_eq!(requantise(&mut [-9], &op, true).unwrap_err().value, -1);
    }

    #[test]
    fn saturated_factor_is_recomposed() {
        let params = NormParams { sq_shift: 3, eps: 1, fb_shift: 2, table: Arc::new(crate::tables::rsqrt_table(20, 8, 3)) };
        for sum in [0, 1, 77, 1 << 16, 1 << 27] {
            let row = params.row(sum);
            assert_eq!(row.fb * 4 + row.fr + row.over, row.f);
            assert!(row.man >= 1 << 14 || row.e == 0);
        }
    }
}
