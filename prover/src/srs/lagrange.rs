//! From powers to the Lagrange basis: an inverse Fourier transform over the group.
//!
//! `[L_i(s)] = 1/n Σ_j ω^(-ij) [s^j]`. Twiddle factors are split once by the curve's endomorphism into two halves of 128 bits, and a butterfly
//! multiplies by both at once with signed windows: about a fifth of the time of halo2's transform, which multiplies bit by bit.

use super::insecure::{lagrange, omega, powers_of};
use super::{Powers, Trust, count};
use crate::outer_key::word_of;
use ark_bn254::{Fq as ArkFq, G1Affine as ArkAffine, G1Projective, g1::Config};
use ark_ec::scalar_mul::glv::GLVConfig;
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{AdditiveGroup, PrimeField as _};
use halo2_axiom::arithmetic::Field;
use halo2_axiom::halo2curves::bn256::{Fq, Fr, G1Affine};
use halo2_axiom::halo2curves::ff::PrimeField;
use rayon::prelude::*;

/// Bits of a window; its table holds the odd multiples below `2^(WINDOW - 1)`.
const WINDOW: u32 = 5;
const TABLE: usize = 1 << (WINDOW - 2);
/// Digits of half a scalar, with the last carry.
const DIGITS: usize = 130;

/// Signed odd digits, at least `WINDOW` places apart; least significant first.
type Digits = [i8; DIGITS];

/// A scalar as `a + λ·b`, both in digits.
#[derive(Clone, Copy)]
struct Twiddle(Digits, Digits);

fn digits(negative: bool, magnitude: u128) -> Digits {
    let mut digits = [0; DIGITS];
    // A carry can leave 128 bits: halves have at most 127.
    let mut rest = magnitude;
    let mut place = 0;
    while rest != 0 {
        let zeros = rest.trailing_zeros();
        rest >>= zeros;
        place += zeros as usize;
        let low = (rest & ((1 << WINDOW) - 1)) as i8;
        let digit = if low >= 1 << (WINDOW - 1) { low - (1 << WINDOW) } else { low };
        digits[place] = if negative { -digit } else { digit };
        rest = if digit < 0 { rest + digit.unsigned_abs() as u128 } else { rest - digit as u128 };
    }
    digits
}

impl Twiddle {
    fn new(scalar: &Fr) -> Self {
        let scalar = ark_bn254::Fr::from_be_bytes_mod_order(&word_of(scalar));
        let ((a_positive, a), (b_positive, b)) = Config::scalar_decomposition(scalar);
        let half = |value: ark_bn254::Fr| {
            let [low, high, zero, none] = value.into_bigint().0;
            assert!(zero == 0 && none == 0 && high >> 63 == 0, "the endomorphism's halves have at most 127 bits");
            u128::from(high) << 64 | u128::from(low)
        };
        Self(digits(!a_positive, half(a)), digits(!b_positive, half(b)))
    }

    fn times(&self, point: &G1Projective) -> G1Projective {
        let double = point.double();
        let mut own = [*point; TABLE];
        for i in 1..TABLE {
            own[i] = own[i - 1] + double;
        }
        let turned = own.map(|multiple| Config::endomorphism(&multiple));
        let mut sum = G1Projective::ZERO;
        for (a, b) in self.0.iter().zip(&self.1).rev() {
            sum.double_in_place();
            for (digit, table) in [(a, &own), (b, &turned)] {
                match digit {
                    0 => {}
                    1.. => sum += table[*digit as usize / 2],
                    _ => sum -= table[digit.unsigned_abs() as usize / 2],
                }
            }
        }
        sum
    }
}

fn to_ark(point: &G1Affine) -> G1Projective {
    let coordinate = |value: &Fq| ArkFq::from_be_bytes_mod_order(&word_of(value));
    ArkAffine::new_unchecked(coordinate(&point.x), coordinate(&point.y)).into_group()
}

fn from_ark(point: &ArkAffine) -> G1Affine {
    let coordinate = |value: ArkFq| Fq::from_raw(value.into_bigint().0);
    point.xy().map_or_else(G1Affine::default, |(x, y)| G1Affine { x: coordinate(x), y: coordinate(y) })
}

/// Order of a bit-reversed index.
fn reverse(values: &mut [G1Projective], k: u32) {
    for i in 0..values.len() {
        let j = i.reverse_bits() >> (usize::BITS - k);
        if i < j {
            values.swap(i, j);
        }
    }
}

/// One layer of butterflies between values `half` apart. `scale` multiplies everything and is folded into the twiddles.
fn layer(values: &mut [G1Projective], half: usize, twiddles: &[Twiddle], stride: usize, scale: Option<&Twiddle>) {
    values.par_chunks_exact_mut(2 * half).for_each(|block| {
        let (low, high) = block.split_at_mut(half);
        low.par_iter_mut().zip(high).with_min_len(16).enumerate().for_each(|(i, (a, b))| {
            let left = scale.map_or(*a, |scale| scale.times(a));
            let right = if i == 0 && scale.is_none() { *b } else { twiddles[i * stride].times(b) };
            (*a, *b) = (left + right, left - right);
        });
    });
}

/// The Lagrange basis of any powers.
pub(super) fn transform(powers: &[G1Affine], k: u32) -> Vec<G1Affine> {
    let n = count(k);
    let inverse_root = omega(k).invert().expect("roots of unity aren't zero");
    let roots = powers_of(inverse_root, n / 2);
    let mut values: Vec<G1Projective> = powers.par_iter().map(to_ark).collect();
    reverse(&mut values, k);
    let twiddles: Vec<Twiddle> = roots.par_iter().map(Twiddle::new).collect();
    for step in 0..k - 1 {
        let half = 1 << step;
        layer(&mut values, half, &twiddles, n / (2 * half), None);
    }
    // The last layer divides by n as well.
    let share = Fr::TWO_INV.pow_vartime([u64::from(k)]);
    let last: Vec<Twiddle> = roots.par_iter().map(|root| Twiddle::new(&(share * root))).collect();
    layer(&mut values, n / 2, &last, 1, Some(&Twiddle::new(&share)));
    values.par_chunks(1 << 10).flat_map_iter(|chunk| G1Projective::normalize_batch(chunk)).map(|point| from_ark(&point)).collect()
}

/// The Lagrange basis, the fast way where the secret is known.
pub(super) fn basis_for(powers: &Powers) -> Vec<G1Affine> {
    match powers.trust {
        Trust::Insecure if powers.s_g2 == super::insecure_point() => lagrange(powers.k),
        Trust::Insecure | Trust::Imported => transform(&powers.g1, powers.k),
    }
}

#[cfg(test)]
mod tests {
    use super::super::insecure;
    use super::*;
    use ark_ec::PrimeGroup;

    #[test]
    fn digits_sum_to_the_number() {
        for value in [0, 1, 2, 15, 16, 31, 33, u128::MAX >> 1, 0x1234_5678_9abc_def0_fedc_ba98_7654_3210] {
            let sum = digits(false, value).iter().rev().fold(0i128, |sum, digit| sum.wrapping_mul(2).wrapping_add(i128::from(*digit)));
            assert_eq!(sum as u128, value);
        }
    }

    #[test]
    fn twiddles_multiply() {
        let point = G1Projective::generator().double();
        for scalar in powers_of(omega(20) * Fr::from(3), 20).into_iter().chain([Fr::ZERO, Fr::ONE, -Fr::ONE]) {
            let expected = point * ark_bn254::Fr::from_be_bytes_mod_order(&word_of(&scalar));
            assert_eq!(Twiddle::new(&scalar).times(&point), expected);
        }
    }

    #[test]
    fn agrees_with_the_known_secret() {
        for k in 1..=7 {
            let (powers, lagrange) = insecure::make(k).unwrap();
            assert_eq!(transform(&powers.g1, k), lagrange, "k = {k}");
        }
    }

    /// Printed for the record; halo2's own transform is the comparison.
    #[test]
    #[ignore = "a measurement"]
    fn faster_than_halo2() {
        let k = 13;
        let (powers, _) = insecure::make(k).unwrap();
        let start = std::time::Instant::now();
        let ours = transform(&powers.g1, k);
        let own = start.elapsed();
        let start = std::time::Instant::now();
        let projective = powers.g1.iter().map(|point| (*point).into()).collect();
        let theirs: Vec<G1Affine> = halo2_axiom::arithmetic::g_to_lagrange(projective, k);
        println!("k = {k}: {own:?}, halo2 {:?}", start.elapsed());
        assert_eq!(ours, theirs);
    }
}
