//! SHPLONK: all claimed values, of all polynomials at all points, by one pairing equation.
//!
//! Polynomials that are opened at the same set of points share a set. With `r` the interpolation of the claimed values, `Z_S` the vanishing
//! polynomial of a set and `Z` that of all points, the proof shows `Σ v^i (Z/Z_{S_i})(u) (Σ y^j (f_j - r_j(u)))` to be
//! `Z_{S_0}`-normalised and divisible by `X - u`. Source: Boneh, Drake, Fisch, Gabizon, ePrint 2020/081, section 4.

use crate::error::ProofError;
use crate::lagrange::Rows;
use crate::transcript::Transcript;
use ark_bn254::{Fr, G1Affine, G1Projective};
use ark_ec::VariableBaseMSM;
use ark_ff::{Field, One, Zero};

/// A polynomial's commitment, as a combination of points, and its claimed values a number of rows further.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) commitment: Vec<(Fr, G1Affine)>,
    pub(crate) values: Vec<(i32, Fr)>,
}

impl Opening {
    /// Of one point.
    pub(crate) fn new(commitment: G1Affine, values: Vec<(i32, Fr)>) -> Self {
        Self { commitment: vec![(Fr::one(), commitment)], values }
    }

    /// The claimed values in the order of a set's rotations, if the rotations are the same.
    fn ordered(&self, rotations: &[i32]) -> Option<Vec<Fr>> {
        let find = |rotation: &i32| self.values.iter().find(|(r, _)| r == rotation).map(|(_, value)| *value);
        if self.values.len() == rotations.len() { rotations.iter().map(find).collect() } else { None }
    }
}

/// Polynomials that are opened at the same points.
struct Set<'a> {
    rotations: Vec<i32>,
    members: Vec<(&'a Opening, Vec<Fr>)>,
}

/// Groups by sets of points, in the order of their first appearance.
fn group(openings: &[Opening]) -> Vec<Set<'_>> {
    let mut sets: Vec<Set<'_>> = Vec::new();
    for opening in openings.iter().filter(|opening| !opening.values.is_empty()) {
        let home = sets.iter_mut().find_map(|set| opening.ordered(&set.rotations).map(|values| (set, values)));
        match home {
            Some((set, values)) => set.members.push((opening, values)),
            None => {
                let (rotations, values) = opening.values.iter().copied().unzip();
                sets.push(Set { rotations, members: vec![(opening, values)] });
            }
        }
    }
    sets
}

/// The two points that the pairing compares: `e(left, [s]₂) = e(right, [1]₂)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) left: G1Affine,
    pub(crate) right: G1Projective,
}

/// The interpolation's weights at `u`: `Π_{j≠i} (u - p_j)/(p_i - p_j)`.
fn weights(points: &[Fr], u: Fr) -> Result<Vec<Fr>, ProofError> {
    let weight = |i: usize, own: &Fr| {
        let others = || points.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, point)| point);
        let below: Fr = others().map(|point| *own - point).product();
        let above: Fr = others().map(|point| u - point).product();
        below.inverse().map(|inverse| above * inverse).ok_or(ProofError::UnluckyChallenge)
    };
    points.iter().enumerate().map(|(i, point)| weight(i, point)).collect()
}

/// Reads the opening's two points and derives the pairing's.
pub(crate) fn open(transcript: &mut Transcript<'_>, openings: &[Opening], rows: &Rows, x: Fr, g1: G1Affine) -> Result<Pair, ProofError> {
    // Combines the polynomials of a set; then the sets; then the point where all is checked. Soundness errors: the numbers of
    // polynomials, of sets, and the degree, each over the field's order.
    let (y, v) = (transcript.challenge(), transcript.challenge());
    let quotient = transcript.point()?;
    let u = transcript.challenge();
    let witness = transcript.point()?;

    let sets = group(openings);
    let mut all: Vec<i32> = sets.iter().flat_map(|set| set.rotations.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    let point = |rotation: &i32| x * rows.power((*rotation).into());
    let outside = |set: &Set<'_>| all.iter().filter(|r| !set.rotations.contains(r)).map(|r| u - point(r)).product::<Fr>();
    let first = sets.first().ok_or(ProofError::Key)?;
    let normal = outside(first).inverse().ok_or(ProofError::UnluckyChallenge)?;
    let within: Fr = first.rotations.iter().map(|r| u - point(r)).product();

    let (mut bases, mut scalars) = (vec![quotient, witness], vec![-within, u]);
    let mut constant = Fr::zero();
    let mut set_power = Fr::one();
    for set in &sets {
        let weights = weights(&set.rotations.iter().map(point).collect::<Vec<_>>(), u)?;
        let mut power = set_power * outside(set) * normal;
        for (opening, values) in &set.members {
            constant += power * values.iter().zip(&weights).map(|(value, weight)| *value * weight).sum::<Fr>();
            for (scalar, base) in &opening.commitment {
                bases.push(*base);
                scalars.push(power * scalar);
            }
            power *= y;
        }
        set_power *= v;
    }
    bases.push(g1);
    scalars.push(-constant);
    let right = G1Projective::msm(&bases, &scalars).map_err(|_| ProofError::Key)?;
    Ok(Pair { left: witness, right })
}
