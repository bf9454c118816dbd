//! Round polynomials from a few values.

use p3_field::{Field, PrimeCharacteristicRing};

/// A small rational constant `1/n`.
fn fraction<E: Field>(n: u32) -> E {
    E::from_prime_subfield(E::PrimeSubfield::from_u32(n).inverse())
}

/// The value at `x` of the polynomial of degree 3 with values `at = [p(0), p(2), p(3)]` and `p(0) + p(1) = claim` (Newton's form).
pub fn cubic<E: Field>(at: &[E; 3], claim: E, x: E) -> E {
    let [p0, p2, p3] = *at;
    let p1 = claim - p0;
    let first = p1 - p0;
    let second = p2 - p1.double() + p0;
    let third = p3 - p2 - p2.double() + p1.double() + p1 - p0;
    let tail = second * fraction::<E>(2) + (x - E::TWO) * (third * fraction::<E>(6));
    p0 + x * (first + (x - E::ONE) * tail)
}

/// The value at `x` of the polynomial of degree 2 with values `at = [p(0), p(2)]` and `p(0) + p(1) = claim`.
pub fn quadratic<E: Field>(at: &[E; 2], claim: E, x: E) -> E {
    let [p0, p2] = *at;
    let p1 = claim - p0;
    let second = p2 - p1.double() + p0;
    p0 + x * (p1 - p0 + (x - E::ONE) * (second * fraction::<E>(2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuits::ir::EF;

    #[test]
    fn interpolation_reproduces_polynomials() {
        let c = [3u64, 5, 7, 11].map(EF::from_u64);
        let p = |x: EF| c[0] + x * (c[1] + x * (c[2] + x * c[3]));
        let q = |x: EF| c[0] + x * (c[1] + x * c[2]);
        let at = [0u64, 1, 2, 3].map(EF::from_u64);
        let x = EF::from_u64(123_456_789).square();
        assert_eq!(cubic(&[p(at[0]), p(at[2]), p(at[3])], p(at[0]) + p(at[1]), x), p(x));
        assert_eq!(quadratic(&[q(at[0]), q(at[2])], q(at[0]) + q(at[1]), x), q(x));
    }
}
