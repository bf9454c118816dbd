//! How it is proven: commit, look up, sumcheck, open.
//!
//! The prover depends on the verifier and follows its schedule ([`verifier::plan`], [`verifier::transcript`]).

pub mod codeword;
pub mod commit;
pub mod fraction;
pub mod kept;
pub mod lookups;
pub mod outer;
pub mod outer_key;
pub mod packed;
pub mod prove;
pub mod reduction;
pub mod srs;
pub mod sumcheck;
pub mod terms;
pub mod trees;

use circuits::ir::Group;
use thiserror::Error;

/// Why no proof is made.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ProveError {
    /// The witness is incomplete or violates the relation.
    #[error(transparent)]
    Witness(#[from] circuits::witness::WitnessError),
    /// No opening parameters for a size.
    #[error(transparent)]
    Parameters(#[from] verifier::pcs::ParameterError),
    /// The opening scheme refuses.
    #[error("the opening scheme: {0}")]
    Opening(String),
    /// The relation commits nothing in a group.
    #[error("the relation has no {0:?} tensors")]
    NoGroup(Group),
    /// A commitment that the relation opens isn't given.
    #[error("the relation opens the {0:?} commitment, which isn't given")]
    NotCommitted(Group),
    /// A commitment's tensors lie elsewhere than the relation's.
    #[error("the {0:?} commitment was made for tensors of other sizes")]
    Layout(Group),
    /// A tensor is missing or of another size.
    #[error("tensor `{name}` is missing or hasn't {expected} values")]
    Tensor {
        /// Its name.
        name: String,
        /// Values expected.
        expected: usize,
    },
    /// The fraction table doesn't add up to zero: the lookups and multiplicities given aren't the witness'.
    #[error("the fraction table doesn't add up to zero")]
    Unbalanced,
    /// Told to stop between two phases.
    #[error(transparent)]
    Stopped(#[from] prove::Stopped),
    /// A challenge hit a root; try again with another salt or request id.
    #[error("a challenge made a denominator zero; change the request id and prove again")]
    UnluckyChallenge,
}
