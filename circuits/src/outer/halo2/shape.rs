//! Numbers that the circuit's size fixes: limb widths and what follows from them.
//!
//! A circuit of `2^k` rows has one range table: numbers below `2^b`, `b = k - 1`, numbers below `2^t`, `t = 31 mod b`, and the [`Shape::middle`]
//! limbs. Thirty-one bits are exactly `⌊31/b⌋` limbs of `b` bits and one of `t`.
//!
//! A canonical representative is a sum that reaches every number below `p` and no other: `⌊31/b⌋` limbs of `b` bits, which are the numbers up to
//! `2^(31-t) - 1`; one of the middle limbs, steps of `2^(31-t)` up to the greatest, `μ`; and `2^(30-t)` times a limb of `t` bits. No limb alone spans
//! a gap that those before it leave, and all at their greatest add up to `p - 1`, which defines `μ`. Many numbers have two such sums; that does no harm.

use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::{Field, PrimeField};
use num_bigint::BigUint;

/// KoalaBear's order.
pub const P: u64 = (1 << 31) - (1 << 24) + 1;

/// Limb widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shape {
    /// Base-two logarithm of the number of rows.
    pub k: u32,
}

impl Shape {
    /// Bits of a limb.
    pub fn limb(self) -> usize {
        self.k as usize - 1
    }

    /// Bits of a chain's last limb.
    pub fn top(self) -> usize {
        31 % self.limb()
    }

    /// Limbs of a 31-bit number.
    pub fn word_limbs(self) -> usize {
        31 / self.limb() + 1
    }

    /// `2^(31-t)`: what the middle limbs count.
    fn step(self) -> u64 {
        1 << (31 - self.top())
    }

    /// By how much a canonical number's last limb counts.
    pub fn last_weight(self) -> u64 {
        self.step() / 2
    }

    /// The greatest middle limb, times [`Self::step`]: what all other limbs at their greatest lack of `p - 1`.
    fn greatest_middle(self) -> u64 {
        P - 1 - (self.step() - 1) - self.last_weight() * ((1 << self.top()) - 1)
    }

    /// How many middle limbs there are.
    pub fn middles(self) -> usize {
        self.greatest_middle().div_ceil(self.step()) as usize + 1
    }

    /// The middle limb of this number: what it counts, and the limb itself.
    pub fn middle(self, i: usize) -> (u64, Fr) {
        let counted = (i as u64 * self.step()).min(self.greatest_middle());
        (counted, Fr::from(counted) * Fr::from(self.step()).invert().unwrap_or(Fr::ZERO))
    }

    /// Last limb, number of the middle limb, and what is left for the others, of a canonical number. Of any other, more is left than fits.
    pub fn canonical_parts(self, x: &BigUint) -> (u64, usize, BigUint) {
        let most = |x: &BigUint, limit: u64| x.to_u64_digits().first().copied().filter(|_| x.bits() < 64).unwrap_or(0).min(limit);
        let last = most(&(x / self.last_weight()), (1 << self.top()) - 1);
        let rest = x - self.last_weight() * last;
        let middle = most(&(&rest / self.step()), self.middles() as u64 - 1) as usize;
        (last, middle, rest - self.middle(middle).0)
    }

    /// Limbs of a range check that admits every number up to `max`: the last has [`Self::top`] bits.
    pub fn range_limbs(self, max: &BigUint) -> usize {
        (max.bits() as usize).saturating_sub(self.top()).div_ceil(self.limb()) + 1
    }

    /// Limbs of the quotient by [`P`] of every number up to `max`.
    pub fn quotient_limbs(self, max: &BigUint) -> usize {
        let mut n = 1;
        while *max >= BigUint::from(P) << (self.limb() * n) {
            n += 1;
        }
        n
    }

    /// Above every number that can be reduced: `p·2^(b·n)` for the largest `n` for which `p·2^(b·n) + 2^31` stays below `2^253`.
    pub fn limit(self) -> BigUint {
        BigUint::from(P) << (self.limb() * (221 / self.limb()))
    }

    /// Quotient limbs, as of a range check, and digit width of an inner product whose coefficients are at most `max`: `p·q + r` is below
    /// `2^width` for every quotient in range and every 31-bit `r`.
    pub fn digit(self, max: &BigUint) -> (usize, usize) {
        let limbs = self.range_limbs(&(max / P));
        (limbs, 32 + self.limb() * (limbs - 1) + self.top())
    }

    /// `2^b`.
    pub fn radix(self) -> Fr {
        power(self.limb())
    }

    /// By how much a cell that holds a number of up to `max`, about to be reduced, is divided: `p·2^(b·(n-1))`.
    pub fn reduction_factor(self, max: &BigUint) -> Fr {
        Fr::from(P) * power(self.limb() * (self.quotient_limbs(max) - 1))
    }
}

/// `2^n` for `n < 254`.
pub fn power(n: usize) -> Fr {
    Fr::from(2).pow_vartime([n as u64])
}

/// A scalar as an integer.
pub fn integer(x: &Fr) -> BigUint {
    BigUint::from_bytes_le(x.to_repr().as_ref())
}

/// An integer modulo the scalar field's order.
pub fn field(x: &BigUint) -> Fr {
    let radix = Fr::from(1 << 32).square();
    x.to_u64_digits().iter().rev().fold(Fr::ZERO, |acc, &d| acc * radix + Fr::from(d))
}
