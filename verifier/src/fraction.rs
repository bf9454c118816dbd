//! The fraction table's reduction, checked: Plonky3's fractional GKR ("Improving logarithmic derivative lookups using GKR", ePrint 2023/1284)
//! with its transcript, and arithmetic that is cheap in the outer circuit.

use crate::interpolate::cubic;
use circuits::public::eq_points;
use p3_challenger::FieldChallenger;
use p3_challenger::fs::TranscriptField;
use p3_field::ExtensionField;
use p3_multi_stark::fractional_gkr::transcript::FractionGkrVerifierTranscript;
use p3_multi_stark::fractional_gkr::{FractionGkrError, FractionGkrOutput, FractionGkrProof, FractionGkrShape};
use p3_multilinear_util::point::Point;

/// Reduces the claim that all fractions add up to zero to one numerator and one denominator at a point.
///
/// # Errors
///
/// When the proof has another shape, the total denominator is zero, or a layer's sumcheck doesn't close.
pub fn verify<B, E>(
    proof: &FractionGkrProof<E>,
    num_variables: usize,
    challenger: &mut impl FieldChallenger<B>,
) -> Result<FractionGkrOutput<E>, FractionGkrError>
where
    B: TranscriptField,
    E: ExtensionField<B>,
{
    check_shape(proof, num_variables)?;
    if proof.root_denominator == E::ZERO {
        return Err(FractionGkrError::ZeroRootDenominator);
    }
    let mut transcript = FractionGkrVerifierTranscript::<_, B, E>::new(challenger, FractionGkrShape { num_variables }, proof.root_denominator);
    let (mut point, mut numerator, mut denominator) = (vec![], E::ZERO, proof.root_denominator);
    // Every layer is replayed, so that the transcript reaches its end; the first that doesn't close is reported.
    let mut wrong = None;
    for (index, layer) in proof.layers.iter().enumerate() {
        let lambda = transcript.begin_layer();
        let mut claim = numerator + lambda * denominator;
        let mut round_point = Vec::with_capacity(index + 1);
        for message in &layer.round_polys {
            let r = transcript.round(message);
            claim = cubic(message, claim, r);
            round_point.push(r);
        }
        let c = &layer.claims;
        // Over a common denominator the halves' fractions add up to this numerator and denominator.
        let gate = c.d1 * c.n0 + c.d0 * (c.n1 + lambda * c.d1);
        if claim != eq_points(&point, &round_point) * gate {
            wrong.get_or_insert(index);
        }
        let branch = transcript.end_layer(c);
        numerator = c.n0 + branch * (c.n1 - c.n0);
        denominator = c.d0 + branch * (c.d1 - c.d0);
        round_point.insert(0, branch);
        point = round_point;
    }
    transcript.finish();
    match wrong {
        Some(layer) => Err(FractionGkrError::LayerConsistency { layer }),
        None => Ok(FractionGkrOutput { point: Point::new(point), numerator, denominator }),
    }
}

fn check_shape<E>(proof: &FractionGkrProof<E>, num_variables: usize) -> Result<(), FractionGkrError> {
    if num_variables < 1 {
        return Err(FractionGkrError::InvalidVariableCount);
    }
    if proof.layers.len() != num_variables {
        return Err(FractionGkrError::InvalidLayerCount { expected: num_variables, actual: proof.layers.len() });
    }
    match proof.layers.iter().enumerate().find(|(layer, messages)| messages.round_polys.len() != *layer) {
        Some((layer, messages)) => Err(FractionGkrError::InvalidRoundCount { layer, expected: layer, actual: messages.round_polys.len() }),
        None => Ok(()),
    }
}
