//! Checks of imported points: one secret's powers, and the Lagrange basis that belongs to them.
//!
//! Both are random linear combinations with coefficients of 128 bits, drawn from the system: a wrong point passes with probability `2^-128`.

use super::{Powers, SrsError};
use crate::srs::raw;
use halo2_axiom::arithmetic::best_multiexp;
use halo2_axiom::halo2curves::bn256::{Fr, G1, G1Affine, G2Affine, pairing};
use halo2_axiom::halo2curves::group::Curve;
use halo2_axiom::poly::EvaluationDomain;
use std::path::Path;

/// Random scalars below `2^128`.
fn coefficients(count: usize) -> Result<Vec<Fr>, SrsError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| SrsError::Randomness(e.to_string()))?;
    let mut bytes = vec![0; 16 * count];
    blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut bytes);
    let scalar = |chunk: &[u8]| {
        let (low, high) = chunk.split_at(8);
        let limb = |half: &[u8]| half.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Fr::from_raw([limb(low), limb(high), 0, 0])
    };
    Ok(bytes.chunks_exact(16).map(scalar).collect())
}

/// The generators are the standard ones, the secret isn't trivial, and `e([s^(i+1)], [1]₂) = e([s^i], [s]₂)` for all `i`.
pub(super) fn powers(path: &Path, powers: &Powers) -> Result<(), SrsError> {
    let flaw = |point: &str, why| Err(SrsError::Point { path: path.to_owned(), point: point.to_owned(), why });
    if powers.g1.first() != Some(&G1Affine::generator()) {
        return flaw("the first point of G1", "isn't the standard generator");
    }
    if powers.g2 != G2Affine::generator() {
        return flaw("the first point of G2", "isn't the standard generator");
    }
    if powers.s_g2 == powers.g2 {
        return flaw("the secret's point", "is the generator: the secret is 1");
    }
    let below = coefficients(powers.g1.len() - 1)?;
    let here: G1 = best_multiexp(&below, &powers.g1[..below.len()]);
    let next: G1 = best_multiexp(&below, &powers.g1[1..]);
    if pairing(&next.to_affine(), &powers.g2) == pairing(&here.to_affine(), &powers.s_g2) {
        Ok(())
    } else {
        Err(SrsError::Inconsistent { path: path.to_owned() })
    }
}

/// A random polynomial has the same commitment from its values and from its coefficients.
pub(super) fn lagrange(path: &Path, powers: &Powers, lagrange: &[G1Affine]) -> Result<(), SrsError> {
    let values = coefficients(lagrange.len())?;
    let domain = EvaluationDomain::<Fr>::new(1, powers.k);
    let from_values: G1 = best_multiexp(&values, lagrange);
    let polynomial = domain.lagrange_to_coeff(domain.lagrange_from_vec(values));
    let from_coefficients: G1 = best_multiexp(&polynomial, &powers.g1);
    if from_values == from_coefficients { Ok(()) } else { Err(SrsError::Basis { path: path.to_owned() }) }
}

/// The first two powers and the secret's point belong together: tells files that were mixed up.
pub(super) fn quick(path: &Path, powers: &Powers) -> Result<(), SrsError> {
    match powers.g1.as_slice() {
        [first, second, ..] if pairing(second, &powers.g2) == pairing(first, &powers.s_g2) => Ok(()),
        _ => Err(SrsError::Inconsistent { path: path.to_owned() }),
    }
}

/// Names a flawed point of a list.
pub(super) fn named<T>(path: &Path, list: &str, result: Result<T, (usize, raw::Flaw)>) -> Result<T, SrsError> {
    result.map_err(|(i, why)| SrsError::Point { path: path.to_owned(), point: format!("point {i} of {list}"), why })
}

/// Names a flawed point.
pub(super) fn single<T>(path: &Path, point: &str, result: Result<T, raw::Flaw>) -> Result<T, SrsError> {
    result.map_err(|why| SrsError::Point { path: path.to_owned(), point: point.to_owned(), why })
}
