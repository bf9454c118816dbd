//! WHIR for one commitment: parameters, and the opening of one polynomial at one point, of a pinned one at its pin's too.
//!
//! Source: "WHIR: Reed-Solomon Proximity Testing with Super-Fast Verification" (ePrint 2024/1586), Plonky3's implementation, Johnson bound.

use crate::profile::{HashProfile, NativeProfile};
use crate::whir::{self, WhirError};
use circuits::ir::{EF, F, Group};
use circuits::statement::Profile;
use p3_commit::{Encoder, Mmcs};
use p3_field::PrimeCharacteristicRing;
use p3_matrix::dense::{DenseMatrix, RowMajorMatrix};
use p3_sumcheck::layout::{Layout as _, PrefixProver, Table, Witness};
use p3_sumcheck::{OpeningBatch, OpeningProtocol, PrescribedPointPcs, TableShape, TableSpec};
use p3_whir::PcsProof;
use p3_whir::parameters::{FoldingFactor, ProtocolParameters, SecurityAssumption, WhirConfig};
use p3_whir::pcs::prover::WhirProver;
use thiserror::Error;

/// Bits asked of every error term of an opening; the composed figure is [`crate::soundness`]'s. Very large polynomials have more terms.
pub fn term_security(log: usize) -> usize {
    if log < 24 { 105 } else { 107 }
}

/// The field's two-adicity: the largest folded domain.
const MAX_DOMAIN_LOG: usize = 24;
/// The largest domain of a round after the first, whose codewords are over the extension field.
const MAX_ROUND_DOMAIN_LOG: usize = 26;

/// The opening scheme of a profile.
pub type Pcs<C> = WhirProver<
    <C as HashProfile>::Ext,
    <C as HashProfile>::Base,
    <C as HashProfile>::Domain,
    <C as HashProfile>::Mmcs,
    <C as HashProfile>::Challenger,
    PrefixProver<<C as HashProfile>::Base, <C as HashProfile>::Ext>,
>;
/// A commitment under a profile.
pub type Commitment<C> = <<C as HashProfile>::Mmcs as Mmcs<<C as HashProfile>::Base>>::Commitment;
/// An opening under a profile.
pub type Opening<C> = PcsProof<<C as HashProfile>::Base, <C as HashProfile>::Ext, <C as HashProfile>::Mmcs>;

/// A commitment in the transcript.
pub struct Root<C: HashProfile> {
    /// The root.
    pub commitment: Commitment<C>,
    /// Its pin's point and the value there; of pinned groups.
    pub pinned: Option<(Vec<C::Ext>, C::Ext)>,
}

/// No parameters exist for a polynomial of this size.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no opening parameters for 2^{log} elements: {reason}")]
pub struct ParameterError {
    /// Variables of the polynomial.
    pub log: usize,
    /// The opening scheme's complaint.
    pub reason: String,
}

/// Log inverse rate and first folding factor of a commitment.
///
/// `native`: long-lived commitments are encoded once and opened often, at rate 1/8; a trace is encoded for one proof, at rate 1/4; very large
/// ones at 1/2. Wide rows mean fewer rounds, whose codewords are over the extension field. `evm`: every query costs the outer circuit a Merkle path,
/// so rates are lower, too.
pub fn rate_and_fold(profile: Profile, group: Group, log: usize) -> (usize, usize) {
    let (rate, fold) = match (profile, group, log) {
        (Profile::Native, _, 24..) => (1, 6),
        (Profile::Native, Group::Trace, _) | (Profile::Native, _, 22..) => (2, 6),
        (Profile::Native, _, _) => (3, 6),
        (Profile::Evm, _, 24..) => (1, 4),
        (Profile::Evm, _, 22..) => (2, 4),
        // Wider domains would cost more security than the lower rate saves queries.
        (Profile::Evm, _, _) => ((23 - log).clamp(2, 4), 6),
    };
    (rate, fold.max((log + rate).saturating_sub(MAX_DOMAIN_LOG)))
}

fn parameters(profile: Profile, group: Group, log: usize, pow_bits: usize) -> Result<ProtocolParameters, ParameterError> {
    let (rate, first) = rate_and_fold(profile, group, log);
    let folding_factor = if first == 4 { FoldingFactor::Constant(4) } else { FoldingFactor::ConstantFromSecondRound(first, 4) };
    let schedule = folding_factor.compute_folding_schedule(log).map_err(|e| ParameterError { log, reason: e.to_string() })?;
    // A round folds the domain's points so many times less than its polynomial's variables. Fewer save queries, and make later rounds' codewords,
    // over the extension field, as large as the first: `docs/performance.md`. For `evm`, later queries are what costs.
    let kept = if profile == Profile::Evm { 2 } else { 3 };
    let (mut current, mut left) = (rate, log);
    let folds = schedule.iter().take(schedule.len().saturating_sub(1));
    let round_log_inv_rates = folds
        .map(|fold| {
            left -= fold;
            current = (current + fold - kept).min(MAX_ROUND_DOMAIN_LOG - left);
            current
        })
        .collect();
    Ok(ProtocolParameters {
        security_level: term_security(log),
        pow_bits,
        folding_factor,
        soundness_type: SecurityAssumption::JohnsonBound,
        starting_log_inv_rate: rate,
        round_log_inv_rates,
    })
}

/// The evaluation domain that a group's polynomial of `2^log` elements is encoded over.
pub fn domain<C: HashProfile>(group: Group, log: usize) -> C::Domain {
    let (rate, fold) = rate_and_fold(C::PROFILE, group, log);
    C::domain((log + rate).saturating_sub(fold).max(log).min(MAX_DOMAIN_LOG))
}

/// Values as the opening scheme holds them, and their codeword, a leaf a row.
pub fn encode<C: NativeProfile>(group: Group, table: &Table<F>) -> (PrefixProver<F, EF>, DenseMatrix<F>) {
    let log = table.num_variables();
    let (rate, fold) = rate_and_fold(C::PROFILE, group, log);
    let witness = stacked::<C>(group, table);
    let mut values = F::zero_vec(1 << (log + rate));
    PrefixProver::<F, EF>::write_message(&witness, fold, &mut values[..1 << log]);
    let codeword = domain::<C>(group, log).encode_batch_padded(RowMajorMatrix::new(values, 1 << fold), rate);
    (PrefixProver::from_witness(witness), codeword)
}

/// Values in the opening scheme's order.
pub fn stacked<C: HashProfile>(group: Group, table: &Table<F>) -> Witness<F> {
    let (_, fold) = rate_and_fold(C::PROFILE, group, table.num_variables());
    PrefixProver::<F, EF>::new_witness(vec![table.clone()], fold)
}

/// The opening scheme for a group's polynomial of `2^log` elements.
///
/// # Errors
///
/// When there are no sound parameters for that size.
pub fn scheme<C: HashProfile>(group: Group, log: usize) -> Result<Pcs<C>, ParameterError> {
    let refuse = |reason: String| ParameterError { log, reason };
    // Its roots of unity are computed when something is encoded; verifying needs none.
    let domain = C::domain(0);
    let parameters = parameters(C::PROFILE, group, log, C::GRINDING_BITS)?;
    let config = WhirConfig::<C::Ext, C::Base, C::Challenger>::new_with_domain(log, parameters, &domain).map_err(|e| refuse(e.to_string()))?;
    if !config.check_pow_bits() {
        return Err(refuse(format!("{} bits of grinding needed, {} allowed", config.max_pow_bits(), C::GRINDING_BITS)));
    }
    config.validate_initial_claims(claims(group) + config.commitment_ood_samples()).map_err(|e| refuse(e.to_string()))?;
    Ok(Pcs::<C>::new(config, domain, C::mmcs()))
}

/// Values that an opening of a group's polynomial proves: at the claim reduction's point, and at the pin's.
pub fn claims(group: Group) -> usize {
    1 + usize::from(group.is_pinned())
}

/// One polynomial, some points.
pub fn protocol(log: usize, claims: usize) -> OpeningProtocol {
    let schedule = vec![OpeningBatch::new(vec![0], vec![]); claims];
    OpeningProtocol::new(vec![TableSpec::new(TableShape::new(log, 1), schedule)])
}

/// Composed security of one opening and the log number of polynomials its commitment may stand for.
pub fn security<C: HashProfile>(group: Group, log: usize) -> Result<(f64, f64), ParameterError> {
    let evidence = scheme::<C>(group, log)?.prescribed_security(&protocol(log, claims(group)));
    let evidence = evidence.ok_or_else(|| ParameterError { log, reason: "no security evidence".into() })?;
    Ok((evidence.error().bits(), evidence.log2_max_candidates))
}

/// Verifies that the committed polynomial takes each value at its point. The commitment is already in the transcript, and so are the points, or
/// what they are derived from.
///
/// # Errors
///
/// Says why the opening is refused.
pub fn verify<C: HashProfile>(
    pcs: &Pcs<C>,
    commitment: &Commitment<C>,
    opening: &Opening<C>,
    claims: &[(&[C::Ext], C::Ext)],
    challenger: &mut C::Challenger,
) -> Result<(), WhirError> {
    let domain = C::domain(0);
    let points: Vec<&[C::Ext]> = claims.iter().map(|(point, _)| *point).collect();
    let protocol = protocol(points.first().map_or(0, |point| point.len()), points.len());
    whir::verify::<C>(pcs, &domain, commitment, opening, &protocol, &points, challenger)?;
    let opened = opening.evals.iter().zip(claims);
    let agree = opening.evals.len() == claims.len() && opened.into_iter().all(|(batch, (_, value))| batch.current() == [*value]);
    if agree { Ok(()) } else { Err(WhirError::Value) }
}
