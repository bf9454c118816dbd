//! Points of BN254 as pairs of EVM words.

use crate::word::{Word, coordinate, coordinate_word};
use ark_bn254::{Fq2, G1Affine, G2Affine};
use ark_ec::AffineRepr;

/// A finite point of G1; `None` if a coordinate isn't canonical or the point isn't on the curve. G1 is the whole curve.
pub fn g1(x: &Word, y: &Word) -> Option<G1Affine> {
    let point = G1Affine::new_unchecked(coordinate(x)?, coordinate(y)?);
    // arkworks takes two zeros for infinity.
    (!point.is_zero() && point.is_on_curve()).then_some(point)
}

/// A point of G1 that may be at infinity, which is written as two zeros, as the EVM does.
pub fn g1_or_infinity(x: &Word, y: &Word) -> Option<G1Affine> {
    if *x == [0; 32] && *y == [0; 32] { Some(G1Affine::identity()) } else { g1(x, y) }
}

/// The words of a point of G1.
pub fn g1_words(point: &G1Affine) -> [Word; 2] {
    point.xy().map_or([[0; 32]; 2], |(x, y)| [coordinate_word(x), coordinate_word(y)])
}

/// A finite point of G2, coordinates' real parts first; `None` unless canonical, on the curve and in the group.
pub fn g2(words: &[Word; 4]) -> Option<G2Affine> {
    let [x0, x1, y0, y1] = words;
    let x = Fq2::new(coordinate(x0)?, coordinate(x1)?);
    let y = Fq2::new(coordinate(y0)?, coordinate(y1)?);
    let point = G2Affine::new_unchecked(x, y);
    (!point.is_zero() && point.is_on_curve() && point.is_in_correct_subgroup_assuming_on_curve()).then_some(point)
}

/// The words of a point of G2.
pub fn g2_words(point: &G2Affine) -> [Word; 4] {
    point.xy().map_or([[0; 32]; 4], |(x, y)| [x.c0, x.c1, y.c0, y.c1].map(coordinate_word))
}
