//! Vectors brought to one length: `y = ⌊(x·f + o)/2^s⌋` with a scale `f` that the prover chooses and a length that is checked on the output.
//!
//! `Σ y²` must lie within `T ± δ`, or `x` is zero. The scale is `f·2^e`: `2^e` lifts `x` into 16 bits, `f` has 15 bits and the product loses
//! `s = 29 - λ` bits, so that no product leaves 30 bits whatever `x` is. Entries round at different places (`o` is the entry's number with its
//! bits reversed): equal ones don't jump together, so a scale is found for every vector. `docs/semantics.md` ("Lengths") has the equations,
//! `docs/protocol.md` the bounds.
//! Used for token gradients (`ghf`), index rows (`GS`) and the query's sketch (`qsS`).

/// Bits that lifting fills: `|x·2^e| ≤ 2^15`.
const LIFTED_BITS: u32 = 15;
/// `λ + s`: a full product of lifted value and scale stays below `2^30`.
const PRODUCT_BITS: u32 = 29;
/// The longest length, as a power of two.
pub const MAX_LENGTH_LOG: u32 = 12;
/// The shortest: below it, rounding would drown the entries of small vectors.
pub const MIN_LENGTH_LOG: u32 = 6;
/// Low bits of a remainder; the rest is its second limb.
pub const REMAINDER_LIMB: u32 = 16;

/// The length that vectors of some number of entries are brought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitLength {
    log: u32,
    entries: usize,
}

/// A vector brought to its length, with what a proof of that needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRow {
    /// The lift's exponent, 0 to 14.
    pub e: i32,
    /// The scale.
    pub f: i32,
    /// Whether the vector isn't zero.
    pub live: bool,
    /// Outputs.
    pub y: Vec<i32>,
    /// Remainders, `s` bits.
    pub r: Vec<i32>,
}

/// Why a vector can't be brought to its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLength {
    /// The nearest sum of squares.
    pub nearest: i64,
}

impl UnitLength {
    /// The largest length whose squares add up inside the field: `entries·2^(2λ) ≤ 2^30`, at most [`MAX_LENGTH_LOG`].
    pub fn of(entries: usize) -> Self {
        Self { log: Self::largest(entries), entries }
    }

    /// A shorter one; `None` outside what the entries allow.
    pub fn with_log(entries: usize, log: u32) -> Option<Self> {
        (MIN_LENGTH_LOG..=Self::largest(entries)).contains(&log).then_some(Self { log, entries })
    }

    fn largest(entries: usize) -> u32 {
        let log = entries.max(1).next_power_of_two().trailing_zeros();
        (30u32.saturating_sub(log) / 2).min(MAX_LENGTH_LOG)
    }

    /// `λ`: entries lie in `[-2^λ, 2^λ)`.
    pub fn log(self) -> u32 {
        self.log
    }

    /// `s`, the bits that the product loses.
    pub fn shift(self) -> u32 {
        PRODUCT_BITS - self.log
    }

    /// `L = 15/16·2^λ`: a vector with one entry still fits.
    pub fn length(self) -> i64 {
        15 << (self.log - 4)
    }

    /// `T = L²`.
    pub fn target(self) -> i64 {
        self.length() * self.length()
    }

    /// Base-two logarithm of `2δ`; `Σ y² - (T - δ)` has so many bits.
    ///
    /// `δ` is about four lengths: two for the step of the scale (`f ≥ L·2^s/(√n·2^15)`, `√n·2^λ ≤ 2^15`) and the rest for single entries' roundings.
    pub fn slack_log(self) -> u32 {
        self.log + 3
    }

    /// `δ`.
    pub fn slack(self) -> i64 {
        1 << (self.slack_log() - 1)
    }

    /// What entry `k` of a part of `len` entries (a power of two) adds before rounding down: the bits of `k`, the lowest one highest.
    pub fn offset(self, k: usize, len: usize) -> i64 {
        let bits = len.trailing_zeros();
        if bits == 0 { 0 } else { ((k as u64).reverse_bits() >> (64 - bits) << (self.shift() - bits)) as i64 }
    }

    /// Scales `x`, entries of 16 bits, to the length; a zero vector stays zero. Offsets start anew every `part` entries (a power of two).
    ///
    /// # Errors
    ///
    /// When no scale brings `Σ y²` within `T ± δ`.
    pub fn scale(self, x: &[i32], part: usize) -> Result<UnitRow, NoLength> {
        let largest = x.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
        if largest == 0 {
            return Ok(UnitRow { y: vec![0; x.len()], r: self.offsets(part).map(|o| o as i32).take(x.len()).collect(), ..UnitRow::default() });
        }
        let e = (LIFTED_BITS - 1).saturating_sub(31 - largest.leading_zeros());
        // Σ y² grows with f: the first scale that reaches the target, or the one before it.
        let reaches = |f: i64| self.squares(x, part, e, f) >= self.target();
        let (mut low, mut high) = (0i64, (1 << LIFTED_BITS) - 1);
        while low < high {
            let middle = (low + high) / 2;
            if reaches(middle) { high = middle } else { low = middle + 1 }
        }
        let miss = |f: &i64| (self.squares(x, part, e, *f) - self.target()).abs();
        let f = [high, high - 1].into_iter().filter(|f| *f > 0).min_by_key(miss).unwrap_or(high);
        let nearest = self.squares(x, part, e, f);
        // The proof's range is half-open.
        if nearest - self.target() < -self.slack() || nearest - self.target() >= self.slack() {
            return Err(NoLength { nearest });
        }
        let sums: Vec<i64> = x.iter().zip(self.offsets(part)).map(|(&v, o)| (i64::from(v) << e) * f + o).collect();
        let shift = self.shift();
        let y = sums.iter().map(|sum| (sum >> shift) as i32).collect();
        let r = sums.iter().map(|sum| (sum & ((1 << shift) - 1)) as i32).collect();
        Ok(UnitRow { e: e as i32, f: f as i32, live: true, y, r })
    }

    fn offsets(self, part: usize) -> impl Iterator<Item = i64> {
        (0..part).cycle().map(move |k| self.offset(k, part))
    }

    fn squares(self, x: &[i32], part: usize, e: u32, f: i64) -> i64 {
        x.iter().zip(self.offsets(part)).map(|(&v, o)| (((i64::from(v) << e) * f + o) >> self.shift()).pow(2)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::SplitMix64;

    #[test]
    fn every_size_keeps_the_fields_bounds() {
        for entries in [1, 2, 12, 64, 768, 3072, 4096, 9216, 1 << 14] {
            let unit = UnitLength::of(entries);
            assert!(entries as i64 * (1 << (2 * unit.log())) <= 1 << 30, "{entries}");
            assert!(unit.slack_log() <= 16 && unit.slack() * 45 < unit.target(), "{entries}: {unit:?}");
            assert!((unit.target() + unit.slack()) < 1 << (2 * unit.log()), "{entries}: one entry alone would leave its range");
        }
    }

    #[test]
    fn vectors_of_any_size_reach_the_length() {
        let mut rng = SplitMix64::new(3);
        for entries in [1usize, 2, 12, 64, 768, 3072, 1 << 14] {
            let unit = UnitLength::of(entries);
            for size in [1.0f32, 3.0, 40.0, 900.0, 8000.0] {
                let x: Vec<i32> = (0..entries).map(|_| ((size * rng.normal()).round() as i32).clamp(-32768, 32767)).collect();
                let row = unit.scale(&x, entries.next_power_of_two()).unwrap();
                assert_eq!(row.live, x.iter().any(|&v| v != 0));
                let sum: i64 = row.y.iter().map(|&y| i64::from(y).pow(2)).sum();
                assert!(!row.live || (sum - unit.target()).abs() <= unit.slack(), "{entries} entries of size {size}: {sum}");
                assert!(row.y.iter().all(|y| (-(1 << unit.log())..1 << unit.log()).contains(y)));
                let whole = |k: usize| {
                    let sum = (i64::from(x[k]) << row.e) * i64::from(row.f) + unit.offset(k, entries.next_power_of_two());
                    sum == (i64::from(row.y[k]) << unit.shift()) + i64::from(row.r[k]) && (0..1 << unit.shift()).contains(&row.r[k])
                };
                assert!((0..entries).all(whole));
            }
        }
    }

    #[test]
    fn a_single_entry_and_extremes_reach_it_too() {
        for entries in [1usize, 64, 3072] {
            let unit = UnitLength::of(entries);
            for value in [1, -1, 2, -32768, 32767, 17] {
                let mut x = vec![0; entries];
                x[entries / 2] = value;
                assert!(unit.scale(&x, entries.next_power_of_two()).unwrap().live, "{entries}: {value}");
            }
        }
    }

    #[test]
    fn equal_entries_reach_it() {
        for entries in [2usize, 32, 64, 768, 3072, 1 << 14] {
            let unit = UnitLength::of(entries);
            for value in [1, 3, 100, 20_000] {
                assert!(unit.scale(&vec![value; entries], entries.next_power_of_two()).is_ok(), "{entries}: {value}");
            }
        }
    }
}
