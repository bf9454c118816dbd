//! Pins over a host's values: `pin = H(parameters, root, y)`, `y` the polynomial's value at a point hashed from parameters and root.
//!
//! At that point two polynomials of a list of `L` agree with probability at most `L²/2·m/|EF|`, `m` their variables, so a pin that isn't made by
//! grinding about as many roots names one polynomial. Every proof opens `y` in the run of the opening scheme that opens its other claims on the
//! group; what the parameters are is [`circuits::statement::pin`].

use crate::pcs::{self, Commitment, Root};
use crate::plan::Plan;
use crate::profile::HashProfile;
use crate::proof::Proof;
use crate::verify::VerifyError;
use circuits::ir::Group;
use circuits::layout::Layout;
use circuits::relation::Relation;
use circuits::statement::pin::{Encoding, parameters as digest};
use circuits::statement::{Digest, Profile};
use p3_challenger::{CanObserve, FieldChallenger};

/// Digest of a group's parameters under a profile.
pub fn parameters(profile: Profile, relation: &Relation, group: Group, layout: &Layout) -> Digest {
    let variables = layout.log;
    let (log_inv_rate, fold) = pcs::rate_and_fold(profile, group, variables);
    digest(relation, group, layout, Encoding { profile, variables, log_inv_rate, fold, domain: variables + log_inv_rate })
}

/// The point of a root: as many uniform elements of the extension field as the polynomial has variables.
pub fn point<C: HashProfile>(parameters: &C::Seed, root: &Commitment<C>, variables: usize) -> Vec<C::Ext> {
    let mut challenger = C::challenger(parameters);
    challenger.observe(root.clone());
    (0..variables).map(|_| challenger.sample_algebra_element()).collect()
}

/// Checks that a statement's pins are of the roots and values in a proof; returns all commitments in the schedule's order, with what is
/// claimed of the pinned ones.
///
/// # Errors
///
/// Names the group whose pin is another.
pub fn check<C: HashProfile>(
    plan: &Plan<'_>,
    pins: &[C::Seed],
    tables: Option<&Commitment<C>>,
    proof: &Proof<C>,
) -> Result<Vec<Root<C>>, VerifyError> {
    let mut behind = pins.iter().zip(&proof.pinned);
    let root = |(group, layout): &(Group, Layout)| match group {
        Group::Trace => Ok(Root { commitment: proof.trace.clone(), pinned: None }),
        Group::Tables => tables.cloned().map(|commitment| Root { commitment, pinned: None }).ok_or(VerifyError::Root { group: *group }),
        _ => {
            let (pin, pinned) = behind.next().ok_or(VerifyError::Pin { group: *group })?;
            let parameters = C::constant(parameters(C::PROFILE, plan.relation, *group, layout));
            match C::same(&C::pin(&parameters, &pinned.root, pinned.value), pin) {
                true => Ok(Root { commitment: pinned.root.clone(), pinned: Some((point::<C>(&parameters, &pinned.root, layout.log), pinned.value)) }),
                false => Err(VerifyError::Pin { group: *group }),
            }
        }
    };
    plan.layouts.iter().map(root).collect()
}
