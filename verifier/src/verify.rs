//! The native verifier.
//!
//! The statement's clauses are checked first, then shapes, then the steps of `transcript` in order. Any bytes give `Ok` or a typed `Err`. What the
//! other hosts do about each condition is [`circuits::statement::Clause`].

use crate::fraction;
use crate::interpolate::{cubic, quadratic};
use crate::pcs::{self, Commitment, ParameterError, Root};
use crate::pin;
use crate::plan::{Claims, Plan, Points};
use crate::profile::{Evm, HashProfile, Native, NativeProfile};
use crate::proof::{DecodeError, Proof, profile_of};
use crate::recorded::recorder::part;
use crate::soundness::{self, MIN_SECURITY_BITS};
use crate::transcript;
use crate::whir::WhirError;
use circuits::ir::{EF, Group};
use circuits::public::{PublicContext, PublicView, eq_table};
use circuits::registration::Known;
use circuits::relation::Relation;
use circuits::statement::{Digest, Profile, Statement, StatementError};
use circuits::witness::table_column;
use p3_challenger::FieldChallenger;
use p3_field::PrimeCharacteristicRing;
use p3_multi_stark::fractional_gkr::{FractionGkrError, FractionGkrOutput};
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
    #[error("the proof's hash profile isn't the one stated")]
    Profile,
    /// A commitment isn't canonical.
    #[error("the {group:?} commitment isn't a canonical root")]
    Root {
        /// Which commitment.
        group: Group,
    },
    /// A pin isn't that of the root and the value that the proof gives.
    #[error("the proof opens another {} than the pinned one", group.name())]
    Pin {
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
    /// Committed lookup tables are others.
    #[error("the committed lookup tables aren't the relation's")]
    Tables,
    /// The evaluation claims don't reduce to the openings.
    #[error("the claimed evaluations aren't the committed tensors'")]
    Reduction,
    /// An opening fails.
    #[error("the opening of the {group:?} commitment fails: {reason}")]
    Opening {
        /// Which commitment.
        group: Group,
        /// What is wrong with it.
        reason: WhirError,
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
    verify_given(statement, bytes, &[])
}

/// [`verify_bytes`] for a verifier that has accepted some registrations ([`crate::registration`]).
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify_given(statement: &Statement, bytes: &[u8], known: &[Known]) -> Result<Verified, VerifyError> {
    match profile_of(bytes)? {
        Profile::Native => verify_checked::<Native>(statement, statement.check_given(known)?, &Proof::from_bytes(bytes)?),
        Profile::Evm => verify_checked::<Evm>(statement, statement.check_given(known)?, &Proof::from_bytes(bytes)?),
    }
}

/// [`verify_bytes`], also for relations that assume the weights' ranges: for benchmarks only.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify_benchmark(statement: &Statement, bytes: &[u8]) -> Result<Verified, VerifyError> {
    match profile_of(bytes)? {
        Profile::Native => verify_checked::<Native>(statement, statement.check_benchmark()?, &Proof::from_bytes(bytes)?),
        Profile::Evm => verify_checked::<Evm>(statement, statement.check_benchmark()?, &Proof::from_bytes(bytes)?),
    }
}

/// Verifies a decoded proof.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify<C: NativeProfile>(statement: &Statement, proof: &Proof<C>) -> Result<Verified, VerifyError> {
    verify_checked(statement, statement.check()?, proof)
}

/// What is left once the statement's own clauses hold and have given its relation.
fn verify_checked<C: NativeProfile>(statement: &Statement, relation: Relation, proof: &Proof<C>) -> Result<Verified, VerifyError> {
    if statement.profile != C::PROFILE {
        return Err(VerifyError::Profile);
    }
    let requests = statement.public_requests(&proof.tokens)?;
    let plan = Plan::new(&relation);
    verify_claimed(&plan, proof, || {
        Ok(Claimed {
            seed: statement.digest(),
            pins: pins(&plan, |group| statement.commitment(group))?,
            tables: statement.tables.map(|root| C::root(&root).ok_or(VerifyError::Root { group: Group::Tables })).transpose()?,
            view: PublicContext::new(&statement.relation, requests).view(),
            weights: statement.requests.iter().map(|r| r.weights.iter().map(|&w| EF::from_u64(w)).collect()).collect(),
        })
    })
}

/// What every proof is checked for in this host. What it claims is made after the parameters are known to be sound: it grows with them.
pub(crate) fn verify_claimed<C: NativeProfile>(
    plan: &Plan<'_>,
    proof: &Proof<C>,
    claimed: impl FnOnce() -> Result<Claimed<C>, VerifyError>,
) -> Result<Verified, VerifyError> {
    let security_bits = check_parameters::<C>(plan)?;
    check_roots(plan, proof)?;
    let claims = check(plan, &claimed()?, proof)?;
    check_tables(plan.relation, &claims, &proof.evaluations)?;
    Ok(Verified { security_bits })
}

/// What a proof is checked against, over a host's values.
pub struct Claimed<C: HashProfile> {
    /// The statement's digest.
    pub seed: C::Seed,
    /// Pins of long-lived commitments, in the order of [`Group::ALL`].
    pub pins: Vec<C::Seed>,
    /// Root of committed lookup tables.
    pub tables: Option<Commitment<C>>,
    /// Requests.
    pub view: PublicView<C::Ext>,
    /// Published weights, request by request.
    pub weights: Vec<Vec<C::Ext>>,
}

/// Checks that a plan has sound parameters; returns its composed security in bits.
///
/// # Errors
///
/// When it has none, or less than [`MIN_SECURITY_BITS`].
pub fn check_parameters<C: HashProfile>(plan: &Plan<'_>) -> Result<f64, VerifyError> {
    if plan.leaves_log > MAX_LEAVES_LOG {
        return Err(VerifyError::TooManyLookups { log: plan.leaves_log });
    }
    let found = soundness::bits::<C>(plan)?;
    if found < MIN_SECURITY_BITS {
        return Err(VerifyError::Security { found });
    }
    Ok(found)
}

/// The checks that every host runs, in the transcript's order; returns the evaluation claims, which the openings prove.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn check<C: HashProfile>(plan: &Plan<'_>, claimed: &Claimed<C>, proof: &Proof<C>) -> Result<Claims<C::Ext>, VerifyError> {
    check_shape(plan, proof)?;
    part("pins");
    let roots = pin::check(plan, &claimed.pins, claimed.tables.as_ref(), proof)?;
    let commitments: Vec<_> = roots.iter().map(|root| (&root.commitment, root.pinned.as_ref().map(|(_, value)| *value))).collect();
    let mut challenger = transcript::start::<C>(&claimed.seed, &commitments);
    let claims = check_sums(plan, claimed, proof, &mut challenger)?;
    part("claim reduction");
    let point = check_reduction(plan, &claims, proof, &mut challenger)?;
    check_openings::<C>(plan, &roots, proof, &point, &mut challenger)?;
    Ok(claims)
}

/// Compares the claims about committed lookup tables with the tables.
fn check_tables(relation: &Relation, claims: &Claims<EF>, evaluations: &[EF]) -> Result<(), VerifyError> {
    for (claim, &value) in claims.list.iter().zip(evaluations) {
        if let Some(column) = table_column(relation, claim.tensor) {
            let found: EF = eq_table(&claim.point).iter().zip(column).map(|(&e, x)| e * EF::from_i32(x)).sum();
            if found != value {
                return Err(VerifyError::Tables);
            }
        }
    }
    Ok(())
}

fn check_shape<C: HashProfile>(plan: &Plan<'_>, proof: &Proof<C>) -> Result<(), VerifyError> {
    let groups = plan.layouts.len();
    let pinned = plan.layouts.iter().filter(|(group, _)| group.is_pinned()).count();
    let lengths = [
        ("pinned commitments", proof.pinned.len(), pinned),
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

/// The pins that a plan's proofs open.
pub(crate) fn pins(plan: &Plan<'_>, of: impl Fn(Group) -> Option<Digest>) -> Result<Vec<Digest>, VerifyError> {
    let groups = plan.layouts.iter().map(|(group, _)| *group).filter(|group| group.is_pinned());
    groups.map(|group| of(group).ok_or(VerifyError::Pin { group })).collect()
}

/// A root is one digest, whatever else its type can hold.
fn check_roots<C: NativeProfile>(plan: &Plan<'_>, proof: &Proof<C>) -> Result<(), VerifyError> {
    let groups = plan.layouts.iter().map(|(group, _)| *group).filter(|group| group.is_pinned());
    let roots = groups.zip(proof.pinned.iter().map(|pinned| &pinned.root)).chain([(Group::Trace, &proof.trace)]);
    let is_one = |root: &Commitment<C>| C::root(&C::digest(root)).is_some_and(|own| own == *root);
    roots.into_iter().find(|(_, root)| !is_one(root)).map_or(Ok(()), |(group, _)| Err(VerifyError::Root { group }))
}

/// The lookups' fraction table and the batched sumcheck; returns the evaluation claims.
fn check_sums<C: HashProfile>(
    plan: &Plan<'_>,
    claimed: &Claimed<C>,
    proof: &Proof<C>,
    challenger: &mut C::Challenger,
) -> Result<Claims<C::Ext>, VerifyError> {
    part("fraction table");
    let challenges = transcript::lookup_challenges::<C::Base, C::Ext>(challenger);
    let FractionGkrOutput { point, numerator, denominator } =
        fraction::verify(&proof.lookups, plan.leaves_log, challenger).map_err(VerifyError::Lookups)?;
    let rho = point.as_slice();
    part("batched sumcheck");
    let gamma: C::Ext = challenger.sample_algebra_element();
    let weighted = plan.weigh(&claimed.weights, rho, challenges, gamma);
    let mut claim = denominator + gamma * numerator - weighted.known;
    let mut sigma = Vec::with_capacity(plan.sum_rounds);
    for message in &proof.sum_rounds {
        let r = transcript::round::<C::Base, C::Ext>(challenger, message);
        claim = cubic(message, claim, r);
        sigma.push(r);
    }
    part("constraints");
    let points = Points { rho, sigma: &sigma };
    let claims = plan.claims(&weighted.items, points);
    let (expected, found) = (claims.list.len(), proof.evaluations.len());
    if found != expected {
        return Err(VerifyError::Shape { what: "evaluations", expected, found });
    }
    let end = plan.final_value(&claimed.view, &weighted.items, points, &claims, &proof.evaluations);
    if end != Some(claim) {
        return Err(VerifyError::Constraints);
    }
    challenger.observe_algebra_slice(&proof.evaluations);
    Ok(claims)
}

/// Reduces all evaluation claims to one value of each committed polynomial; returns the point.
fn check_reduction<C: HashProfile>(
    plan: &Plan<'_>,
    claims: &Claims<C::Ext>,
    proof: &Proof<C>,
    challenger: &mut C::Challenger,
) -> Result<Vec<C::Ext>, VerifyError> {
    let delta: C::Ext = challenger.sample_algebra_element();
    let mut claim = proof.evaluations.iter().rev().fold(C::Ext::ZERO, |acc, &v| acc * delta + v);
    let mut point = Vec::with_capacity(proof.reduction_rounds.len());
    for message in &proof.reduction_rounds {
        let r = transcript::round::<C::Base, C::Ext>(challenger, message);
        claim = quadratic(message, claim, r);
        point.push(r);
    }
    let half = crate::plan::half::<C::Ext>();
    let end: C::Ext = plan
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
    roots: &[Root<C>],
    proof: &Proof<C>,
    point: &[C::Ext],
    challenger: &mut C::Challenger,
) -> Result<(), VerifyError> {
    for (((group, layout), root), (opening, &value)) in plan.layouts.iter().zip(roots).zip(proof.openings.iter().zip(&proof.finals)) {
        part(group.name());
        let pcs = pcs::scheme::<C>(*group, layout.log)?;
        let mut claims = vec![(&point[point.len() - layout.log..], value)];
        claims.extend(root.pinned.iter().map(|(point, value)| (point.as_slice(), *value)));
        pcs::verify::<C>(&pcs, &root.commitment, opening, &claims, challenger).map_err(|reason| VerifyError::Opening { group: *group, reason })?;
    }
    Ok(())
}
