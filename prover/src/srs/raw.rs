//! Points as the 64 or 128 bytes of their coordinates, little-endian, in Montgomery form: what halo2 and snarkjs both write.

use halo2_axiom::SerdeFormat;
use halo2_axiom::halo2curves::bn256::{Bn256, Fq, Fq2, G1Affine, G2Affine};
use halo2_axiom::halo2curves::serde::SerdeObject;
use halo2_axiom::halo2curves::{CurveAffine, group::prime::PrimeCurveAffine};
use halo2_axiom::poly::kzg::commitment::ParamsKZG;
use rayon::prelude::*;

/// Bytes of a point of G1.
pub(super) const G1_BYTES: usize = 64;
/// Bytes of a point of G2.
pub(super) const G2_BYTES: usize = 128;

/// What's wrong with a point.
pub(super) type Flaw = &'static str;

/// A finite point of G1, which is the whole curve.
pub(super) fn g1(bytes: &[u8]) -> Result<G1Affine, Flaw> {
    let (x, y) = bytes.split_at(bytes.len() / 2);
    let (Some(x), Some(y)) = (Fq::from_raw_bytes(x), Fq::from_raw_bytes(y)) else {
        return Err("has a coordinate that isn't below the field's order");
    };
    let point = G1Affine { x, y };
    match () {
        () if bool::from(point.is_identity()) => Err("is at infinity"),
        () if !bool::from(point.is_on_curve()) => Err("isn't on the curve"),
        () => Ok(point),
    }
}

/// A finite point of G2: on the curve and of the group's order.
pub(super) fn g2(bytes: &[u8]) -> Result<G2Affine, Flaw> {
    use halo2_axiom::halo2curves::group::cofactor::CofactorGroup;
    let (x, y) = bytes.split_at(bytes.len() / 2);
    let (Some(x), Some(y)) = (Fq2::from_raw_bytes(x), Fq2::from_raw_bytes(y)) else {
        return Err("has a coordinate that isn't below the field's order");
    };
    let point = G2Affine { x, y };
    match () {
        () if bool::from(point.is_identity()) => Err("is at infinity"),
        () if !bool::from(point.is_on_curve()) => Err("isn't on the curve"),
        () if !bool::from(point.to_curve().is_torsion_free()) => Err("isn't in the group of prime order"),
        () => Ok(point),
    }
}

/// Points of G1; on failure which one and why.
pub(super) fn g1_list(bytes: &[u8]) -> Result<Vec<G1Affine>, (usize, Flaw)> {
    bytes.par_chunks_exact(G1_BYTES).enumerate().map(|(i, chunk)| g1(chunk).map_err(|flaw| (i, flaw))).collect()
}

/// Writes points of G1.
pub(super) fn write_g1(points: &[G1Affine], to: &mut Vec<u8>) {
    let start = to.len();
    to.resize(start + G1_BYTES * points.len(), 0);
    to[start..].par_chunks_exact_mut(G1_BYTES).zip(points).for_each(|(chunk, point)| {
        let (x, y) = chunk.split_at_mut(G1_BYTES / 2);
        x.copy_from_slice(&point.x.to_raw_bytes());
        y.copy_from_slice(&point.y.to_raw_bytes());
    });
}

/// Writes a point of G2.
pub(super) fn write_g2(point: &G2Affine, to: &mut Vec<u8>) {
    to.extend(point.x.to_raw_bytes());
    to.extend(point.y.to_raw_bytes());
}

/// The Lagrange basis that halo2's parameters hold but don't hand out: read from their serialisation.
pub(super) fn lagrange_of(params: &ParamsKZG<Bn256>, k: u32) -> Vec<G1Affine> {
    let mut bytes = Vec::with_capacity(4 + 2 * G1_BYTES * super::count(k) + 2 * G2_BYTES);
    params.write_custom(&mut bytes, SerdeFormat::RawBytesUnchecked).expect("writing to memory doesn't fail");
    let start = 4 + G1_BYTES * super::count(k);
    let basis = &bytes[start..start + G1_BYTES * super::count(k)];
    basis.par_chunks_exact(G1_BYTES).map(G1Affine::from_raw_bytes_unchecked).collect()
}
