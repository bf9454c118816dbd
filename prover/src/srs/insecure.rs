//! A reference string from a secret that anyone can compute, for trials.
//!
//! The secret is a hash of a sentence, so that every such string is recognised by its points, and so that keys made on different machines
//! agree. Knowing it, both bases are fixed-base multiples of the generator: `[s^i]` and `[ω^i (s^n - 1) / (n (s - ω^i))]`.

use super::{Powers, SrsError, Trust, check_k, count};
use halo2_axiom::arithmetic::Field;
use halo2_axiom::halo2curves::bn256::{Fr, G1, G1Affine, G2Affine};
use halo2_axiom::halo2curves::ff::{BatchInvert, FromUniformBytes, PrimeField};
use halo2_axiom::halo2curves::group::{Curve, Group, prime::PrimeCurveAffine};
use rayon::prelude::*;

/// The published secret.
fn secret() -> Fr {
    let mut bytes = [0; 64];
    blake3::Hasher::new_derive_key("poa: this reference string is insecure, anyone knows its secret").finalize_xof().fill(&mut bytes);
    Fr::from_uniform_bytes(&bytes)
}

/// The published secret's point in G2: tells every insecure reference string.
pub fn insecure_point() -> G2Affine {
    (G2Affine::generator() * secret()).into()
}

/// The primitive `2^k`-th root of unity of halo2's domains.
pub(super) fn omega(k: u32) -> Fr {
    (k..Fr::S).fold(Fr::ROOT_OF_UNITY, |root, _| root.square())
}

/// Powers of a scalar, in parallel.
pub(super) fn powers_of(base: Fr, count: usize) -> Vec<Fr> {
    const CHUNK: usize = 1 << 12;
    let mut powers = vec![Fr::ONE; count];
    powers.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        let mut power = base.pow_vartime([(i * CHUNK) as u64]);
        for value in chunk {
            *value = power;
            power *= base;
        }
    });
    powers
}

/// The Lagrange polynomials of all rows at the secret.
fn lagrange_at(s: Fr, k: u32) -> Vec<Fr> {
    let n = count(k);
    let common = (s.pow_vartime([n as u64]) - Fr::ONE) * Fr::from(n as u64).invert().expect("the rows are fewer than the field's order");
    let roots = powers_of(omega(k), n);
    let mut values: Vec<Fr> = roots.iter().map(|root| s - root).collect();
    values.par_chunks_mut(1 << 12).for_each(|chunk| {
        chunk.iter_mut().batch_invert();
    });
    values.par_iter_mut().zip(&roots).for_each(|(value, root)| *value *= common * root);
    values
}

/// Multiples of the generator by a table of its multiples: `[d·2^(w·i)]` for every digit `d` and window `i`.
struct FixedBase {
    window: usize,
    table: Vec<G1Affine>,
}

impl FixedBase {
    fn new(window: usize) -> Self {
        let digits = (1 << window) - 1;
        let mut bases = vec![G1::generator()];
        for _ in 1..(Fr::NUM_BITS as usize).div_ceil(window) {
            let last = bases[bases.len() - 1];
            bases.push((0..window).fold(last, |point, _| point.double()));
        }
        let multiples = |base: &G1| {
            let list: Vec<G1> = std::iter::successors(Some(*base), |point| Some(point + base)).take(digits).collect();
            affine(&list)
        };
        let table = bases.par_iter().flat_map_iter(multiples).collect();
        Self { window, table }
    }

    fn multiple(&self, scalar: &Fr) -> G1 {
        let bytes = scalar.to_repr();
        let bit = |i: usize| usize::from(bytes.get(i / 8).copied().unwrap_or(0) >> (i % 8) & 1);
        let digits = (1 << self.window) - 1;
        let mut sum = G1::identity();
        for (i, multiples) in self.table.chunks(digits).enumerate() {
            let digit = (0..self.window).map(|b| bit(i * self.window + b) << b).sum::<usize>();
            if digit > 0 {
                sum += multiples[digit - 1];
            }
        }
        sum
    }

    fn multiples(&self, scalars: &[Fr]) -> Vec<G1Affine> {
        scalars.par_chunks(1 << 10).flat_map_iter(|chunk| affine(&chunk.iter().map(|s| self.multiple(s)).collect::<Vec<_>>())).collect()
    }
}

fn affine(points: &[G1]) -> Vec<G1Affine> {
    let mut list = vec![G1Affine::identity(); points.len()];
    G1::batch_normalize(points, &mut list);
    list
}

/// The powers and the Lagrange basis.
pub(super) fn make(k: u32) -> Result<(Powers, Vec<G1Affine>), SrsError> {
    check_k(k)?;
    let s = secret();
    let base = FixedBase::new(if k < 12 { 8 } else { 13 });
    let g1 = base.multiples(&powers_of(s, count(k)));
    let lagrange = base.multiples(&lagrange_at(s, k));
    let powers = Powers { k, trust: Trust::Insecure, g1, g2: G2Affine::generator(), s_g2: insecure_point() };
    Ok((powers, lagrange))
}

/// The Lagrange basis alone.
pub(super) fn lagrange(k: u32) -> Vec<G1Affine> {
    FixedBase::new(if k < 12 { 8 } else { 13 }).multiples(&lagrange_at(secret(), k))
}
