//! What a settlement contract checks: the outer proof's public inputs, with the contributors' weights bound by a random evaluation.
//!
//! The circuit has ten public inputs. Eight name what is settled. The weights, of which there can be many, aren't among them: the verifier
//! derives `z = keccak256(abi.encode(input_0, …, input_7, uint256[] weights)) mod r` and `y = Σ w_j z^j`, and the circuit shows that its own
//! weights evaluate to `y` at `z`. Two different lists agree there with probability below the list's length over `2^253`: `z` is drawn
//! after both are fixed, since `input_0` is the statement's digest and the weights are hashed.

use crate::error::ProofError;
use crate::key::OuterKey;
use crate::verify::verify;
use crate::word::{Word, integer_word, keccak, reduced, scalar_word};
use ark_bn254::Fr;
use ark_ff::{One, Zero};
use thiserror::Error;

/// Public inputs that name what is settled.
pub const NAMED_INPUTS: usize = 8;
/// Public inputs of the outer circuit: the named ones, the point and the value.
pub const INPUTS: usize = NAMED_INPUTS + 2;
/// Weights and their total are below this, in every host: the relation has no sum of relevances above `2^30`. It is less than the order of the field that the
/// inner proof computes in, so that an element has one weight; a weight plus that order is refused.
pub const WEIGHT_BOUND: u64 = (1 << 30) + 1;
/// Most weights of one settlement.
pub const MAX_WEIGHTS: usize = 1 << 16;

/// The outer circuit's named public inputs, each a word below the scalar field's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedInputs {
    /// Digest of the whole statement.
    pub statement: Word,
    /// Commitment of the base model.
    pub base: Word,
    /// Commitment of the adapter.
    pub adapter: Word,
    /// Commitment of the attribution index.
    pub index: Word,
    /// Digest of the index's statement: its Keccak-256, less the three highest bits.
    pub index_statement: Word,
    /// The request that is paid for.
    pub request: Word,
    /// Digest of the prompt.
    pub prompt: Word,
    /// Digest of the whole exchange.
    pub tokens: Word,
}

impl NamedInputs {
    /// In the circuit's order.
    pub fn words(&self) -> [Word; NAMED_INPUTS] {
        [self.statement, self.base, self.adapter, self.index, self.index_statement, self.request, self.prompt, self.tokens]
    }
}

/// A settlement's data: what is settled and the contributors' weights, as a contract receives them.
#[derive(Clone, Copy, Debug)]
pub struct Settlement<'a> {
    /// What is settled.
    pub named: NamedInputs,
    /// Contributors of the index, as its registry or its statement says. A list with zeros at its end has the value of the list without them.
    pub contributors: usize,
    /// The weights, in the order of the index's contributors.
    pub weights: &'a [Word],
}

/// Why a settlement isn't accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettlementError {
    /// The key is of another kind of circuit.
    #[error("the key is of a circuit with {got} public inputs, settlement needs {INPUTS}")]
    Key {
        /// Its public inputs.
        got: usize,
    },
    /// Too many weights.
    #[error("{got} weights, at most {MAX_WEIGHTS} are allowed")]
    Weights {
        /// How many came.
        got: usize,
    },
    /// Another number of weights than of contributors.
    #[error("{got} weights, the index has {expected} contributors")]
    Count {
        /// How many came.
        got: usize,
        /// How many contributors there are.
        expected: usize,
    },
    /// A weight is out of range.
    #[error("weight {index} isn't below {WEIGHT_BOUND}")]
    Weight {
        /// Which.
        index: usize,
    },
    /// The weights' total is out of range.
    #[error("the weights' total isn't below {WEIGHT_BOUND}")]
    Total,
    /// The proof doesn't verify.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// The word of a weight.
pub fn weight_word(weight: u64) -> Word {
    integer_word(weight)
}

fn in_range(weight: &Word) -> bool {
    *weight < integer_word(WEIGHT_BOUND)
}

/// The named inputs' and the weights' `abi.encode`: eight words, the offset of the list, its length, its items.
fn encoded(settlement: &Settlement<'_>) -> Vec<u8> {
    let head = settlement.named.words();
    let offset = 32 * (NAMED_INPUTS as u64 + 1);
    let lengths = [integer_word(offset), integer_word(settlement.weights.len() as u64)];
    head.iter().chain(&lengths).chain(settlement.weights).flatten().copied().collect()
}

/// The point of evaluation.
fn point(settlement: &Settlement<'_>) -> Fr {
    reduced(&keccak(&encoded(settlement)))
}

/// The weights' polynomial there.
fn evaluation(weights: &[Word], z: Fr) -> Fr {
    let mut power = Fr::one();
    let mut sum = Fr::zero();
    for weight in weights {
        sum += reduced(weight) * power;
        power *= z;
    }
    sum
}

/// All ten public inputs.
pub fn public_inputs(settlement: &Settlement<'_>) -> Result<[Word; INPUTS], SettlementError> {
    if settlement.weights.len() > MAX_WEIGHTS {
        return Err(SettlementError::Weights { got: settlement.weights.len() });
    }
    if settlement.weights.len() != settlement.contributors {
        return Err(SettlementError::Count { got: settlement.weights.len(), expected: settlement.contributors });
    }
    if let Some(index) = settlement.weights.iter().position(|weight| !in_range(weight)) {
        return Err(SettlementError::Weight { index });
    }
    // Fewer than 2^16 numbers below 2^31: the sum is one of 64-bit integers.
    let value = |weight: &Word| weight.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    if settlement.weights.iter().map(value).sum::<u64>() >= WEIGHT_BOUND {
        return Err(SettlementError::Total);
    }
    let z = point(settlement);
    let y = evaluation(settlement.weights, z);
    let [statement, base, adapter, index, index_statement, request, prompt, tokens] = settlement.named.words();
    Ok([statement, base, adapter, index, index_statement, request, prompt, tokens, scalar_word(z), scalar_word(y)])
}

/// Checks a settlement: derives the point and the value, and verifies the proof against them.
pub fn verify_settlement(key: &OuterKey, settlement: &Settlement<'_>, proof: &[u8]) -> Result<(), SettlementError> {
    if key.inputs() != INPUTS {
        return Err(SettlementError::Key { got: key.inputs() });
    }
    let inputs = public_inputs(settlement)?;
    Ok(verify(key, &inputs, proof)?)
}
