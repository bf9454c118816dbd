//! Verification of one proof: shape, transcript, constraints, openings, pairing.

use crate::constraints::{Challenges, LookupValues, Product, Values, quotient};
use crate::error::ProofError;
use crate::key::{KeyParts, OuterKey, Query};
use crate::lagrange::Rows;
use crate::open::{Opening, Pair, open};
use crate::transcript::Transcript;
use crate::word::{Word, scalar};
use ark_bn254::{Bn254, Fr, G1Affine};
use ark_ec::CurveGroup;
use ark_ec::pairing::Pairing;
use ark_ff::Zero;

/// Checks a proof against the circuit's key and the public inputs, all instance columns one after the other.
///
/// Accepts exactly what halo2's own verifier accepts, less anything that isn't canonical: inputs and scalars are below the field's order,
/// points finite, and the proof has no byte more than it needs.
pub fn verify(key: &OuterKey, inputs: &[Word], proof: &[u8]) -> Result<(), ProofError> {
    let columns = read_inputs(key, inputs)?;
    if proof.len() != key.proof_bytes() {
        return Err(ProofError::Length { got: proof.len(), expected: key.proof_bytes() });
    }
    let mut transcript = Transcript::new(proof);
    transcript.absorb(key.parts().transcript_start);
    columns.iter().flatten().for_each(|input| transcript.absorb(*input));
    let (commitments, challenges) = read_commitments(key.parts(), &mut transcript)?;
    let rows = Rows::new(key.omega(), key.parts().rows())?;
    let instance = evaluate_inputs(key.parts(), &rows, &columns, challenges.x)?;
    let values = read_values(key.parts(), &mut transcript, instance)?;
    let quotient = quotient(key, &rows, &challenges, &values)?;
    let openings = openings(key.parts(), &rows, &commitments, &values, challenges.x, quotient)?;
    let pair = open(&mut transcript, &openings, &rows, challenges.x, key.parts().g1)?;
    if transcript.read() != proof.len() {
        return Err(ProofError::Length { got: proof.len(), expected: transcript.read() });
    }
    check_pairing(key, pair)
}

/// The public inputs of each column.
fn read_inputs(key: &OuterKey, inputs: &[Word]) -> Result<Vec<Vec<Fr>>, ProofError> {
    if inputs.len() != key.inputs() {
        return Err(ProofError::Inputs { got: inputs.len(), expected: key.inputs() });
    }
    let mut values = inputs.iter().enumerate().map(|(index, word)| scalar(word).ok_or(ProofError::Input { index }));
    key.parts().inputs.iter().map(|count| values.by_ref().take(*count as usize).collect()).collect()
}

/// The prover's commitments.
struct Commitments {
    advice: Vec<G1Affine>,
    /// Permuted input, permuted table.
    lookups: Vec<(G1Affine, G1Affine)>,
    products: Vec<G1Affine>,
    lookup_products: Vec<G1Affine>,
    random: G1Affine,
    quotient: Vec<G1Affine>,
}

/// Advice and challenges, phase by phase.
fn read_phases(parts: &KeyParts, transcript: &mut Transcript<'_>) -> Result<(Vec<G1Affine>, Vec<Fr>), ProofError> {
    let mut advice = vec![G1Affine::default(); parts.advice_phases.len()];
    let mut challenges = vec![Fr::zero(); parts.challenge_phases.len()];
    let last = parts.advice_phases.iter().copied().max().unwrap_or(0);
    for phase in 0..=last {
        for (commitment, _) in advice.iter_mut().zip(&parts.advice_phases).filter(|(_, own)| **own == phase) {
            *commitment = transcript.point()?;
        }
        for (challenge, _) in challenges.iter_mut().zip(&parts.challenge_phases).filter(|(_, own)| **own == phase) {
            *challenge = transcript.challenge();
        }
    }
    Ok((advice, challenges))
}

fn read_commitments(parts: &KeyParts, transcript: &mut Transcript<'_>) -> Result<(Commitments, Challenges), ProofError> {
    let (advice, phases) = read_phases(parts, transcript)?;
    let theta = transcript.challenge();
    let lookups = parts.lookups.iter().map(|_| Ok((transcript.point()?, transcript.point()?))).collect::<Result<_, ProofError>>()?;
    let (beta, gamma) = (transcript.challenge(), transcript.challenge());
    let products = transcript.points(parts.products())?;
    let lookup_products = transcript.points(parts.lookups.len())?;
    let random = transcript.point()?;
    let y = transcript.challenge();
    let quotient = transcript.points(parts.pieces())?;
    let x = transcript.challenge();
    Ok((Commitments { advice, lookups, products, lookup_products, random, quotient }, Challenges { phases, theta, beta, gamma, y, x }))
}

/// The instance queries' values: the verifier knows the columns.
fn evaluate_inputs(parts: &KeyParts, rows: &Rows, columns: &[Vec<Fr>], x: Fr) -> Result<Vec<Fr>, ProofError> {
    let value = |query: &Query| {
        let column = columns.get(query.column as usize).ok_or(ProofError::Key)?;
        // p(ω^r x) = Σ p_i L_i(ω^r x) = Σ p_i L_{i-r}(x).
        let lagrange = rows.lagrange(x, -i64::from(query.rotation), column.len())?;
        Ok(column.iter().zip(lagrange).map(|(value, l)| *value * l).sum())
    };
    parts.instance_queries.iter().map(value).collect()
}

fn read_values(parts: &KeyParts, transcript: &mut Transcript<'_>, instance: Vec<Fr>) -> Result<Values, ProofError> {
    let advice = transcript.scalars(parts.advice_queries.len())?;
    let fixed = transcript.scalars(parts.fixed_queries.len())?;
    let random = transcript.scalar()?;
    let permutation = transcript.scalars(parts.permutation.len())?;
    let count = parts.products();
    let mut product = |i: usize| {
        let (here, next) = (transcript.scalar()?, transcript.scalar()?);
        let last = if i + 1 < count { Some(transcript.scalar()?) } else { None };
        Ok(Product { here, next, last })
    };
    let products = (0..count).map(&mut product).collect::<Result<_, ProofError>>()?;
    let mut lookup = |_| {
        Ok(LookupValues {
            product: transcript.scalar()?,
            product_next: transcript.scalar()?,
            input: transcript.scalar()?,
            input_previous: transcript.scalar()?,
            table: transcript.scalar()?,
        })
    };
    let lookups = parts.lookups.iter().map(&mut lookup).collect::<Result<_, ProofError>>()?;
    Ok(Values { instance, advice, fixed, random, permutation, products, lookups })
}

/// Openings of queried columns, in the order of their first query.
fn queried(commitments: &[G1Affine], queries: &[Query], values: &[Fr], to: &mut Vec<Opening>) -> Result<(), ProofError> {
    let mut columns: Vec<(u32, Vec<(i32, Fr)>)> = Vec::new();
    for (query, value) in queries.iter().zip(values) {
        match columns.iter_mut().find(|(column, _)| *column == query.column) {
            Some((_, list)) => list.push((query.rotation, *value)),
            None => columns.push((query.column, vec![(query.rotation, *value)])),
        }
    }
    for (column, list) in columns {
        to.push(Opening::new(*commitments.get(column as usize).ok_or(ProofError::Key)?, list));
    }
    Ok(())
}

/// Every polynomial with its claimed values, in the order in which halo2 queries them.
fn openings(parts: &KeyParts, rows: &Rows, commitments: &Commitments, values: &Values, x: Fr, quotient: Fr) -> Result<Vec<Opening>, ProofError> {
    let mut list = Vec::new();
    queried(&commitments.advice, &parts.advice_queries, &values.advice, &mut list)?;
    for (commitment, product) in commitments.products.iter().zip(&values.products) {
        let last = product.last.map(|last| (parts.last_rotation(), last));
        list.push(Opening::new(*commitment, [(0, product.here), (1, product.next)].into_iter().chain(last).collect()));
    }
    for ((product, (input, table)), v) in commitments.lookup_products.iter().zip(&commitments.lookups).zip(&values.lookups) {
        list.push(Opening::new(*product, vec![(0, v.product), (1, v.product_next)]));
        list.push(Opening::new(*input, vec![(0, v.input), (-1, v.input_previous)]));
        list.push(Opening::new(*table, vec![(0, v.table)]));
    }
    queried(&parts.fixed, &parts.fixed_queries, &values.fixed, &mut list)?;
    for ((_, commitment), value) in parts.permutation.iter().zip(&values.permutation) {
        list.push(Opening::new(*commitment, vec![(0, *value)]));
    }
    // The quotient's pieces: h(x) = Σ x^(n·i) h_i(x).
    let step = rows.vanishing(x) + Fr::from(1);
    let powers = std::iter::successors(Some(Fr::from(1)), |power| Some(*power * step));
    list.push(Opening { commitment: powers.zip(commitments.quotient.iter().copied()).collect(), values: vec![(0, quotient)] });
    list.push(Opening::new(commitments.random, vec![(0, values.random)]));
    Ok(list)
}

fn check_pairing(key: &OuterKey, pair: Pair) -> Result<(), ProofError> {
    let product = Bn254::multi_pairing([pair.left, pair.right.into_affine()], key.pairing().iter().cloned());
    if product.is_zero() { Ok(()) } else { Err(ProofError::Pairing) }
}
