//! The native verifier.
//!
//! Shapes are checked first; then the steps of `transcript` in order. Any bytes give `Ok` or a typed `Err`.

use crate::interpolate::{cubic, quadratic};
use crate::pcs::{self, Commitment, ParameterError};
use crate::plan::{Claims, Plan};
use crate::profile::{Evm, HashProfile, Native};
use crate::proof::{DecodeError, Proof, profile_of};
use crate::soundness::{self, MIN_SECURITY_BITS};
use crate::transcript;
use circuits::ir::{EF, Group};
use circuits::public::PublicContext;
use circuits::relation::WeightRanges;
use circuits::statement::{Digest, Profile, Statement, StatementError};
use p3_challenger::{CanObserve, FieldChallenger};
use p3_field::PrimeCharacteristicRing;
use p3_multi_stark::fractional_gkr::{FractionGkrError, FractionGkrOutput, verify_fractional_gkr};
use thiserror::Error;

/// Why a proof is refused.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum VerifyError {
    /// Undecodable.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The statement contradicts itself.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The proof uses another hash profile than the statement says.
    #[error("the proof's hash profile isn't the statement's")]
    Profile,
    /// A commitment isn't canonical.
    #[error("the {group:?} commitment isn't a canonical root")]
    Root {
        /// Which commitment.
        group: Group,
    },
    /// No parameters for a commitment's size.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The relation is too large for 100 bits.
    #[error("the composed security would be {found:.1} bits, at least {MIN_SECURITY_BITS} are required")]
    Security {
        /// What the calculator says.
        found: f64,
    },
    /// The relation assumes the weights' ranges.
    #[error("this is no full proof: it assumes the ranges of weights, adapter and index instead of proving them")]
    AssumedRanges,
    /// More lookups than the field can count.
    #[error("the lookups need 2^{log} leaves, at most 2^{MAX_LEAVES_LOG} keep multiplicities below the field's order")]
    TooManyLookups {
        /// Variables of the fraction table.
        log: usize,
    },
    /// A list in the proof has the wrong length.
    #[error("the proof has {found} {what}, expected {expected}")]
    Shape {
        /// Which list.
        what: &'static str,
        /// Length expected.
        expected: usize,
        /// Length found.
        found: usize,
    },
    /// The lookups' fraction table doesn't reduce.
    #[error("the lookup argument fails: {0}")]
    Lookups(FractionGkrError),
    /// The constraints don't add up.
    #[error("the constraints don't hold: the batched sumcheck ends in another value")]
    Constraints,
    /// The evaluation claims don't reduce to the openings.
    #[error("the claimed evaluations aren't the committed tensors'")]
    Reduction,
    /// An opening fails.
    #[error("the opening of the {group:?} commitment fails: {reason}")]
    Opening {
        /// Which commitment.
        group: Group,
        /// The opening scheme's complaint.
        reason: String,
    },
}

/// What a valid proof comes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verified {
    /// Composed security in bits.
    pub security_bits: f64,
}

/// Most leaves of the fraction table, so that no multiplicity wraps around.
const MAX_LEAVES_LOG: usize = 30;

/// Verifies encoded proof bytes of either profile against a statement.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify_bytes(statement: &Statement, bytes: &[u8]) -> Result<Verified, VerifyError> {
    if statement.relation.weight_ranges == WeightRanges::AssumedInsecure {
        return Err(VerifyError::AssumedRanges);
    }
    verify_benchmark(statement, bytes)
}

/// [`verify_bytes`], also for relations that assume the weights' ranges: for benchmarks only.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify_benchmark(statement: &Statement, bytes: &[u8]) -> Result<Verified, VerifyError> {
    match profile_of(bytes)? {
        Profile::Native => verify::<Native>(statement, &Proof::from_bytes(bytes)?),
        Profile::Evm => verify::<Evm>(statement, &Proof::from_bytes(bytes)?),
    }
}

/// Verifies a decoded proof.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify<C: HashProfile>(statement: &Statement, proof: &Proof<C>) -> Result<Verified, VerifyError> {
    if statement.profile != C::PROFILE {
        return Err(VerifyError::Profile);
    }
    let relation = statement.check()?;
    let requests = statement.public_requests(&proof.tokens)?;
    let ctx = PublicContext::new(&statement.relation, requests);
    let plan = Plan::new(&relation);
    if plan.leaves_log > MAX_LEAVES_LOG {
        return Err(VerifyError::TooManyLookups { log: plan.leaves_log });
    }
    check_shape(&plan, proof)?;
    let security_bits = soundness::bits::<C>(&plan)?;
    if security_bits < MIN_SECURITY_BITS {
        return Err(VerifyError::Security { found: security_bits });
    }
    let commitments = commitments::<C>(&plan, statement, proof)?;
    let mut challenger = transcript::start::<C>(statement, &commitments);
    let (claims, sums) = check_sums(&plan, statement, &ctx, proof, &mut challenger)?;
    debug_assert_eq!(claims.list.len(), sums);
    let point = check_reduction(&plan, &claims, proof, &mut challenger)?;
    check_openings::<C>(&plan, &commitments, proof, &point, &mut challenger)?;
    Ok(Verified { security_bits })
}

fn check_shape<C: HashProfile>(plan: &Plan<'_>, proof: &Proof<C>) -> Result<(), VerifyError> {
    let groups = plan.layouts.len();
    let lengths = [
        ("rounds of the batched sumcheck", proof.sum_rounds.len(), plan.sum_rounds),
        ("rounds of the claim reduction", proof.reduction_rounds.len(), reduction_rounds(plan)),
        ("final values", proof.finals.len(), groups),
        ("openings", proof.openings.len(), groups),
    ];
    for (what, found, expected) in lengths {
        if found != expected {
            return Err(VerifyError::Shape { what, expected, found });
        }
    }
    Ok(())
}

/// Rounds of the claim reduction.
pub fn reduction_rounds(plan: &Plan<'_>) -> usize {
    plan.layouts.iter().map(|(_, l)| l.log).max().unwrap_or(0)
}

fn commitments<C: HashProfile>(plan: &Plan<'_>, statement: &Statement, proof: &Proof<C>) -> Result<Vec<Commitment<C>>, VerifyError> {
    let digest = |group: Group| match group {
        Group::Base => Some(statement.base),
        Group::Adapter => statement.adapter,
        Group::Index => statement.index.as_ref().map(|i| i.commitment),
        Group::Trace => Some(proof.trace),
    };
    let root = |group: Group| digest(group).and_then(|d: Digest| C::root(&d)).ok_or(VerifyError::Root { group });
    plan.layouts.iter().map(|(group, _)| root(*group)).collect()
}

/// The lookups' fraction table and the batched sumcheck; returns the evaluation claims.
fn check_sums<C: HashProfile>(
    plan: &Plan<'_>,
    statement: &Statement,
    ctx: &PublicContext,
    proof: &Proof<C>,
    challenger: &mut C::Challenger,
) -> Result<(Claims, usize), VerifyError> {
    let challenges = transcript::lookup_challenges(challenger);
    let FractionGkrOutput { point, numerator, denominator } =
        verify_fractional_gkr(&proof.lookups, plan.leaves_log, challenger).map_err(VerifyError::Lookups)?;
    let rho = point.as_slice();
    let gamma: EF = challenger.sample_algebra_element();
    let weighted = plan.weigh(statement, rho, challenges, gamma);
    let mut claim = denominator + gamma * numerator - weighted.known;
    let mut sigma = Vec::with_capacity(plan.sum_rounds);
    for message in &proof.sum_rounds {
        let r = transcript::round(challenger, message);
        claim = cubic(message, claim, r);
        sigma.push(r);
    }
    let claims = plan.claims(&weighted.items, rho, &sigma);
    let (expected, found) = (claims.list.len(), proof.evaluations.len());
    if found != expected {
        return Err(VerifyError::Shape { what: "evaluations", expected, found });
    }
    let end = plan.final_value(ctx, &weighted.items, rho, &sigma, &claims, &proof.evaluations);
    if end != Some(claim) {
        return Err(VerifyError::Constraints);
    }
    challenger.observe_algebra_slice(&proof.evaluations);
    Ok((claims, expected))
}

/// Reduces all evaluation claims to one value of each committed polynomial; returns the point.
fn check_reduction<C: HashProfile>(
    plan: &Plan<'_>,
    claims: &Claims,
    proof: &Proof<C>,
    challenger: &mut C::Challenger,
) -> Result<Vec<EF>, VerifyError> {
    let delta: EF = challenger.sample_algebra_element();
    let mut claim = proof.evaluations.iter().rev().fold(EF::ZERO, |acc, &v| acc * delta + v);
    let mut point = Vec::with_capacity(proof.reduction_rounds.len());
    for message in &proof.reduction_rounds {
        let r = transcript::round(challenger, message);
        claim = quadratic(message, claim, r);
        point.push(r);
    }
    let half = crate::plan::half();
    let end: EF = plan
        .layouts
        .iter()
        .zip(&proof.finals)
        .map(|((_, layout), &value)| {
            let (idle, own) = point.split_at(point.len() - layout.log);
            half.exp_u64(idle.len() as u64) * value * claims.weight_at(layout, delta, own)
        })
        .sum();
    if end != claim {
        return Err(VerifyError::Reduction);
    }
    challenger.observe_algebra_slice(&proof.finals);
    Ok(point)
}

fn check_openings<C: HashProfile>(
    plan: &Plan<'_>,
    commitments: &[Commitment<C>],
    proof: &Proof<C>,
    point: &[EF],
    challenger: &mut C::Challenger,
) -> Result<(), VerifyError>
where
    C::Challenger: CanObserve<Commitment<C>>,
{
    for (((group, layout), commitment), (opening, &value)) in plan.layouts.iter().zip(commitments).zip(proof.openings.iter().zip(&proof.finals)) {
        let pcs = pcs::scheme::<C>(*group, layout.log)?;
        let own = &point[point.len() - layout.log..];
        pcs::verify::<C>(&pcs, commitment, opening, own, value, challenger).map_err(|reason| VerifyError::Opening { group: *group, reason })?;
    }
    Ok(())
}
