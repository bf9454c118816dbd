//! What a settlement's proof is about: the named public inputs of a statement of one request, and the light client's verdict on it.

use circuits::statement::{Clause, Digest, RequestStatement, Statement, StatementError};
use light_client::settlement::{NAMED_INPUTS, NamedInputs, SettlementError, weight_word};
use light_client::{OuterKey, Settlement, Word, verify_settlement};
use thiserror::Error;

/// Why a statement can't be settled, or a proof doesn't settle it.
#[derive(Clone, Debug, Error)]
pub enum SettledError {
    /// It claims no attribution.
    #[error("the statement claims no attribution: there is nobody to pay")]
    NoAttribution,
    /// It isn't of one request.
    #[error("the statement has {0} requests, a settlement has one")]
    Requests(usize),
    /// A clause of it doesn't hold.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The light client refuses.
    #[error(transparent)]
    Settlement(#[from] SettlementError),
}

/// A settlement pays for one request.
///
/// # Errors
///
/// When the statement has another number of them.
pub fn only_request(statement: &Statement) -> Result<&RequestStatement, SettledError> {
    match statement.requests.as_slice() {
        [request] => Ok(request),
        several => Err(SettledError::Requests(several.len())),
    }
}

/// The named public inputs of a statement of one request, in the circuit's order.
///
/// # Errors
///
/// When the statement isn't one that can be settled.
pub fn named(statement: &Statement) -> Result<[Digest; NAMED_INPUTS], SettledError> {
    let request = only_request(statement)?;
    let (Some(adapter), Some(index)) = (&statement.adapter, &statement.index) else { return Err(SettledError::NoAttribution) };
    // What the public inputs alone don't show.
    [Clause::Ranges, Clause::WeightBound, Clause::Total].iter().try_for_each(|&clause| statement.check_clause(clause))?;
    let tokens = request.token_digests(statement.relation.tokens);
    Ok([statement.digest(), statement.base, *adapter, index.commitment, index.digest().truncated(), request.id, tokens.prompt, tokens.exchange])
}

/// Verifies an outer proof of a statement under a key. Whose circuit the key is of, its digest tells: whoever relies on this compares that with what a
/// registry says.
///
/// # Errors
///
/// When the statement isn't acceptable, can't be settled, or the proof isn't one of it.
pub fn verify(key: &OuterKey, statement: &Statement, proof: &[u8]) -> Result<(), SettledError> {
    statement.check()?;
    let [digest, base, adapter, index, index_statement, request, prompt, tokens] = named(statement)?.map(|digest| digest.0);
    let named = NamedInputs { statement: digest, base, adapter, index, index_statement, request, prompt, tokens };
    let weights: Vec<Word> = only_request(statement)?.weights.iter().map(|&weight| weight_word(weight)).collect();
    let contributors = statement.index.as_ref().map_or(0, |index| index.contributors.len());
    Ok(verify_settlement(key, &Settlement { named, contributors, weights: &weights }, proof)?)
}
