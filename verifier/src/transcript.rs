//! The transcript schedule's steps that prover and verifier share.
//!
//! Order: statement digest, commitments (base, adapter, index, tables, trace: roots and, behind pins, values) · α, β · fraction table · γ ·
//! batched sumcheck · evaluations · δ · claim reduction · finals · openings. The statement's digest covers the relation, the parameters, the pins and every public value.

use crate::pcs::Commitment;
use crate::plan::LookupChallenges;
use crate::profile::HashProfile;
use p3_challenger::{CanObserve, FieldChallenger};
use p3_field::{ExtensionField, Field, PrimeCharacteristicRing};
use p3_sumcheck::layout::observe_commitment;

/// Absorbs the statement and the commitments, with the values behind pins.
pub fn start<C: HashProfile>(seed: &C::Seed, commitments: &[(&Commitment<C>, Option<C::Ext>)]) -> C::Challenger {
    let mut challenger = C::challenger(seed);
    challenger.observe(C::Base::from_usize(commitments.len()));
    for (commitment, value) in commitments {
        observe_commitment::<C::Base, _, _>(&mut challenger, (*commitment).clone());
        value.iter().for_each(|&value| challenger.observe_algebra_element(value));
    }
    challenger
}

/// α and β.
pub fn lookup_challenges<B: Field, E: ExtensionField<B>>(challenger: &mut impl FieldChallenger<B>) -> LookupChallenges<E> {
    LookupChallenges { alpha: challenger.sample_algebra_element(), beta: challenger.sample_algebra_element() }
}

/// Absorbs one round and draws its challenge; soundness error degree/|EF|.
pub fn round<B: Field, E: ExtensionField<B>>(challenger: &mut impl FieldChallenger<B>, message: &[E]) -> E {
    challenger.observe_algebra_slice(message);
    challenger.sample_algebra_element()
}
