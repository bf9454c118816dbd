//! A WHIR opening, checked: Plonky3's protocol and transcript (ePrint 2024/1586), with arithmetic that is cheap in the outer circuit.
//!
//! Differs from `p3_whir::WhirVerifier` only in how sums are formed: rows and final polynomials are inner products with tables made once
//! a round. A test shows that both accept and refuse the same openings.

use crate::pcs::{Commitment, Opening, Pcs};
use crate::profile::HashProfile;
use circuits::public::{eq_points, eq_table};
use p3_commit::{ExtensionMmcs, Mmcs};
use p3_field::{ExtensionField, Field, PrimeCharacteristicRing};
use p3_matrix::Dimensions;
use p3_multilinear_util::point::Point;
use p3_sumcheck::layout::{Layout as _, PrefixProver, Verifier as Layout};
use p3_sumcheck::strategy::{Basis, VariableOrder};
use p3_sumcheck::{OpeningProtocol, SumcheckData};
use p3_whir::parameters::RoundConfig;
use p3_whir::pcs::proof::QueryOpenings;
use p3_whir::transcript::WhirVerifierTranscript;
use p3_whir::{WhirDomain, WhirProof, WhirQueryPoint, WhirShape};
use thiserror::Error;

/// Why an opening is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WhirError {
    /// A list has the wrong length, or an optional part is missing or superfluous.
    #[error("its {0} has the wrong shape")]
    Shape(&'static str),
    /// A round's messages are refused by the transcript.
    #[error("{0}")]
    Transcript(String),
    /// A Merkle opening fails.
    #[error("a Merkle opening of round {round} fails")]
    Merkle {
        /// The round.
        round: usize,
    },
    /// The final polynomial isn't what the last queries say.
    #[error("the final polynomial contradicts a query")]
    FinalPolynomial,
    /// The opened value isn't the claimed one.
    #[error("the opened value is another")]
    Value,
    /// The sums don't add up.
    #[error("its sumcheck ends in another value")]
    Sumcheck,
}

type Transcript<'a, C> = WhirVerifierTranscript<'a, <C as HashProfile>::Challenger, <C as HashProfile>::Base, <C as HashProfile>::Ext>;

type Openings<C> =
    QueryOpenings<<C as HashProfile>::Base, <C as HashProfile>::Ext, <<C as HashProfile>::Mmcs as Mmcs<<C as HashProfile>::Base>>::MultiProof>;

/// Claims of one round: out-of-domain points and queries, weighted by successive powers of a challenge.
struct Round<B, E> {
    variables: usize,
    powers: Vec<E>,
    points: Vec<E>,
    queries: Vec<B>,
}

impl<B: Field, E: ExtensionField<B>> Round<B, E> {
    /// The weight polynomial at the end of a point.
    fn weight_at(&self, point: &[E]) -> E {
        let point = &point[point.len() - self.variables..];
        let squares = |z: E| Point::expand_from_univariate(z, point.len());
        let points = self.points.iter().map(|&z| eq_points(squares(z).as_slice(), point));
        let select = Select::new(point);
        let queries = self.queries.iter().map(|&z| select.at(z));
        self.powers.iter().zip(points.chain(queries)).map(|(&p, w)| p * w).sum()
    }
}

/// `z ↦ Π_i (1 - r_i + r_i·z^(2^i))`, `r` counted from the last coordinate, two factors at a time.
struct Select<E>(Vec<Vec<E>>);

impl<E: Field> Select<E> {
    fn new(point: &[E]) -> Self {
        Self(point.rchunks(2).map(eq_table).collect())
    }

    fn at<B: Field>(&self, z: B) -> E
    where
        E: ExtensionField<B>,
    {
        let mut z = z;
        let mut value = E::ONE;
        for table in &self.0 {
            let square = z * z;
            value *= match *table.as_slice() {
                [a, b, c, d] => a + b * z + c * square + d * (square * z),
                [a, b] => a + b * z,
                _ => E::ONE,
            };
            z = square * square;
        }
        value
    }
}

/// `Σ_x coefficients[x]·z^x`, by rows of about the square root of their number.
fn univariate<C: HashProfile>(coefficients: &[C::Ext], z: C::Base) -> C::Ext {
    let width = 1usize << (coefficients.len().ilog2() / 2);
    let mut powers = vec![C::Base::ONE];
    for _ in 0..width {
        powers.push(*powers.last().unwrap_or(&C::Base::ONE) * z);
    }
    let step = powers.pop().unwrap_or(C::Base::ONE);
    let mut shift = C::Base::ONE;
    let mut total = C::Ext::ZERO;
    for row in coefficients.chunks(width) {
        total += C::inner_product(row, &powers) * shift;
        shift *= step;
    }
    total
}

/// Verifies that the committed polynomial takes the opening's values at the points, one each. The commitment is already in the transcript.
///
/// # Errors
///
/// Says why the opening is refused.
pub fn verify<C: HashProfile>(
    pcs: &Pcs<C>,
    domain: &C::Domain,
    commitment: &Commitment<C>,
    opening: &Opening<C>,
    protocol: &OpeningProtocol,
    points: &[&[C::Ext]],
    challenger: &mut C::Challenger,
) -> Result<(), WhirError> {
    let proof = &opening.whir;
    check_shape::<C>(pcs, proof)?;
    let mut layout = Layout::<C::Base, C::Ext>::new(&protocol.table_shapes(), PrefixProver::<C::Base, C::Ext>::strategy());
    for &answer in &proof.initial_ood_answers {
        layout.add_virtual_eval(answer, challenger);
    }
    if opening.evals.len() != protocol.num_openings() || points.len() != protocol.num_openings() {
        return Err(WhirError::Shape("list of values"));
    }
    for (((table, batch), evals), point) in protocol.iter_openings().zip(&opening.evals).zip(points) {
        if !batch.has_same_shape(evals) {
            return Err(WhirError::Shape("list of values"));
        }
        layout.add_claim_at(table, batch, &Point::new(point.to_vec()), evals, challenger).map_err(|e| WhirError::Transcript(e.to_string()))?;
    }
    let shape = WhirShape::new(&**pcs, protocol.num_openings());
    let mut transcript = Transcript::<C>::new(challenger, shape);
    match replay::<C>(pcs, domain, commitment, proof, &layout, &mut transcript) {
        Ok(()) => {
            transcript.finish();
            Ok(())
        }
        Err(e) => {
            transcript.abort();
            Err(e)
        }
    }
}

fn check_shape<C: HashProfile>(pcs: &Pcs<C>, proof: &WhirProof<C::Base, C::Ext, C::Mmcs>) -> Result<(), WhirError> {
    let rounds = pcs.round_parameters();
    if proof.initial_ood_answers.len() != pcs.commitment_ood_samples() {
        return Err(WhirError::Shape("list of initial answers"));
    }
    if proof.rounds.len() != rounds.len() {
        return Err(WhirError::Shape("list of rounds"));
    }
    if proof.rounds.iter().zip(rounds).any(|(p, r)| p.ood_answers.len() != r.ood_samples) {
        return Err(WhirError::Shape("list of out-of-domain answers"));
    }
    // Without grinding nothing reads the witness, so it has one value.
    let witnesses = proof.rounds.iter().map(|r| r.pow_witness).chain([proof.final_pow_witness]);
    let bits = rounds.iter().map(|r| r.pow_bits).chain([pcs.final_round_config().pow_bits]);
    if witnesses.zip(bits).any(|(witness, bits)| bits == 0 && witness != C::Base::ZERO) {
        return Err(WhirError::Shape("unused grinding witness"));
    }
    if (pcs.final_sumcheck_rounds() > 0) != proof.final_sumcheck.is_some() {
        return Err(WhirError::Shape("final sumcheck"));
    }
    Ok(())
}

fn sumcheck<C: HashProfile>(
    data: &SumcheckData<C::Base, C::Ext>,
    challenger: &mut C::Challenger,
    claim: &mut C::Ext,
    rounds: usize,
    pow_bits: usize,
) -> Result<Vec<C::Ext>, WhirError> {
    let point = data.verify_rounds(challenger, claim, rounds, pow_bits, Basis::Evaluation);
    point.map(|p| p.as_slice().to_vec()).map_err(|e| WhirError::Transcript(e.to_string()))
}

fn replay<C: HashProfile>(
    pcs: &Pcs<C>,
    domain: &C::Domain,
    commitment: &Commitment<C>,
    proof: &WhirProof<C::Base, C::Ext, C::Mmcs>,
    layout: &Layout<C::Base, C::Ext>,
    transcript: &mut Transcript<'_, C>,
) -> Result<(), WhirError> {
    let mut claim = C::Ext::ZERO;
    let (first, folding) = transcript.delegate_initial_fold(|challenger| {
        let constraint = layout.constraint(layout.batching_challenge(challenger));
        constraint.combine_evals(&mut claim);
        let bits = pcs.starting_folding_pow_bits();
        (constraint, sumcheck::<C>(&proof.initial_sumcheck, challenger, &mut claim, pcs.round_folding_factor(0), bits))
    });
    let mut folding = folding?;
    let mut point = folding.clone();
    let mut rounds = vec![];
    let mut commitment = commitment.clone();

    for (index, (parameters, messages)) in pcs.round_parameters().iter().zip(&proof.rounds).enumerate() {
        let next = messages.commitment.clone().ok_or(WhirError::Shape("round's commitment"))?;
        transcript.commitment(next.clone());
        let mut points = vec![];
        for &answer in &messages.ood_answers {
            points.push(transcript.ood_point());
            transcript.ood_answer(answer);
        }
        transcript.query_pow(index, messages.pow_witness).map_err(|e| WhirError::Transcript(e.to_string()))?;
        let indices = transcript.query_indices(index);
        let folds = open::<C>(&commitment, parameters, index, &indices, &messages.openings, &folding)?;
        let queries = query_points::<C>(domain, parameters, &indices)?;
        let gamma = transcript.round_batching();
        // The carried claim keeps the constant coefficient.
        let powers: Vec<C::Ext> = gamma.powers().skip(1).take(points.len() + queries.len()).collect();
        claim += powers.iter().zip(messages.ood_answers.iter().chain(&folds)).map(|(&p, &v)| p * v).sum::<C::Ext>();
        rounds.push(Round { variables: parameters.num_variables, powers, points, queries });
        let (count, bits) = (pcs.round_folding_factor(index + 1), parameters.folding_pow_bits);
        folding = transcript.delegate_round_fold(|challenger| sumcheck::<C>(&messages.sumcheck, challenger, &mut claim, count, bits))?;
        point.extend(&folding);
        commitment = next;
    }

    let last = pcs.n_rounds();
    let polynomial = proof.final_poly.as_ref().ok_or(WhirError::Shape("final polynomial"))?;
    transcript.final_poly(polynomial.as_slice()).map_err(|e| WhirError::Transcript(e.to_string()))?;
    let parameters = pcs.final_round_config();
    transcript.query_pow(last, proof.final_pow_witness).map_err(|e| WhirError::Transcript(e.to_string()))?;
    let indices = transcript.query_indices(last);
    let folds = open::<C>(&commitment, &parameters, last, &indices, &proof.final_openings, &folding)?;
    for (z, fold) in query_points::<C>(domain, &parameters, &indices)?.into_iter().zip(folds) {
        if univariate::<C>(polynomial.as_slice(), z) != fold {
            return Err(WhirError::FinalPolynomial);
        }
    }
    let (count, bits) = (pcs.final_sumcheck_rounds(), pcs.final_folding_pow_bits());
    let closing = match &proof.final_sumcheck {
        Some(data) => transcript.delegate_final_fold(|challenger| sumcheck::<C>(data, challenger, &mut claim, count, bits)).transpose()?,
        None => None,
    }
    .unwrap_or_default();
    point.extend(&closing);

    let value: C::Ext = eq_table(&closing).into_iter().zip(polynomial.as_slice()).map(|(e, &c)| e * c).sum();
    let own = VariableOrder::Prefix.eval_constraints_poly(&[first], &Point::new(point.clone()));
    let later = rounds.iter().map(|round| round.weight_at(&point));
    if claim != (own + later.sum::<C::Ext>()) * value {
        return Err(WhirError::Sumcheck);
    }
    Ok(())
}

fn query_points<C: HashProfile>(domain: &C::Domain, parameters: &RoundConfig, indices: &[usize]) -> Result<Vec<C::Base>, WhirError> {
    let point = |&index: &usize| match domain.query_point(parameters.log_folded_domain_size, parameters.num_variables, index) {
        WhirQueryPoint::Univariate(z) => Ok(z),
        WhirQueryPoint::Multilinear(_) => Err(WhirError::Shape("query points")),
    };
    indices.iter().map(point).collect()
}

/// Opens the queried rows and folds them at the round's challenges.
fn open<C: HashProfile>(
    commitment: &Commitment<C>,
    parameters: &RoundConfig,
    round: usize,
    indices: &[usize],
    openings: &Openings<C>,
    folding: &[C::Ext],
) -> Result<Vec<C::Ext>, WhirError> {
    let width = 1 << parameters.folding_factor;
    let dimensions = [Dimensions { height: parameters.domain_size >> parameters.folding_factor, width }];
    let table = eq_table(folding);
    let failed = WhirError::Merkle { round };
    let mmcs = C::mmcs();
    match openings {
        QueryOpenings::Base(opening) if round == 0 => {
            check_rows(&opening.rows, indices.len(), width)?;
            let rows: Vec<Vec<&[C::Base]>> = opening.rows.iter().map(|row| vec![row.as_slice()]).collect();
            mmcs.verify_multi_batch(commitment, &dimensions, indices, &rows, &opening.proof).map_err(|_| failed)?;
            Ok(opening.rows.iter().map(|row| C::inner_product(&table, row)).collect())
        }
        QueryOpenings::Extension(opening) if round > 0 => {
            check_rows(&opening.rows, indices.len(), width)?;
            let rows: Vec<Vec<&[C::Ext]>> = opening.rows.iter().map(|row| vec![row.as_slice()]).collect();
            ExtensionMmcs::new(mmcs).verify_multi_batch(commitment, &dimensions, indices, &rows, &opening.proof).map_err(|_| failed)?;
            Ok(opening.rows.iter().map(|row| table.iter().zip(row).map(|(&e, &x)| e * x).sum()).collect())
        }
        _ => Err(WhirError::Shape("kind of opened rows")),
    }
}

fn check_rows<T>(rows: &[Vec<T>], count: usize, width: usize) -> Result<(), WhirError> {
    if rows.len() != count || rows.iter().any(|row| row.len() != width) {
        return Err(WhirError::Shape("list of opened rows"));
    }
    Ok(())
}
