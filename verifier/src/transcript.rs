//! The transcript schedule's steps that prover and verifier share.
//!
//! Order: statement digest, commitments (base, adapter, index, trace) · α, β · fraction table · γ · batched sumcheck · evaluations · δ · claim
//! reduction · finals · openings. The statement's digest covers the relation, the parameters, the long-lived commitments and every public value.

use crate::pcs::Commitment;
use crate::plan::{LookupChallenges, digest_elements};
use crate::profile::HashProfile;
use circuits::ir::{EF, F};
use circuits::statement::Statement;
use p3_challenger::{CanObserve, FieldChallenger};
use p3_field::PrimeCharacteristicRing;
use p3_sumcheck::layout::observe_commitment;

/// Absorbs the statement and the commitments.
pub fn start<C: HashProfile>(statement: &Statement, commitments: &[Commitment<C>]) -> C::Challenger {
    let mut challenger = C::challenger();
    absorb(&mut challenger, &digest_elements(&statement.digest().0));
    absorb(&mut challenger, &[F::from_usize(commitments.len())]);
    for commitment in commitments {
        observe_commitment::<F, _, _>(&mut challenger, commitment.clone());
    }
    challenger
}

fn absorb<Ch: CanObserve<F>>(challenger: &mut Ch, elements: &[F]) {
    challenger.observe_slice(elements);
}

/// α and β.
pub fn lookup_challenges<Ch: FieldChallenger<F>>(challenger: &mut Ch) -> LookupChallenges {
    LookupChallenges { alpha: challenger.sample_algebra_element(), beta: challenger.sample_algebra_element() }
}

/// Absorbs one round and draws its challenge; soundness error degree/|EF|.
pub fn round<Ch: FieldChallenger<F>>(challenger: &mut Ch, message: &[EF]) -> EF {
    challenger.observe_algebra_slice(message);
    challenger.sample_algebra_element()
}
