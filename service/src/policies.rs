//! Which answers are proven, and settled, without anybody asking for it: of each model every one, a share, or none.
//!
//! Which of a share is decided by a hash of the request's id, which is drawn at random when the answer is finished: nobody picks.

use crate::database::Database;
use crate::jobs;
use crate::proofs::PROVE;
use crate::settlements;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use utoipa::ToSchema;

/// All of them, in basis points.
pub const ALL: u32 = 10_000;

/// A model's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Policy {
    /// The model's name.
    pub model: String,
    /// The share of its answers that is proven, in basis points.
    pub proof_bps: u32,
    /// The share that is settled.
    pub settlement_bps: u32,
}

fn policy(row: &Row<'_>) -> rusqlite::Result<Policy> {
    Ok(Policy { model: row.get("model")?, proof_bps: row.get("proof_bps")?, settlement_bps: row.get("settlement_bps")? })
}

fn find_in(connection: &Connection, model: &str) -> rusqlite::Result<Policy> {
    let found = connection.query_row("SELECT * FROM policies WHERE model = ?1", [model], policy).optional()?;
    Ok(found.unwrap_or(Policy { model: model.to_owned(), proof_bps: 0, settlement_bps: 0 }))
}

/// A model's policy; on demand unless said otherwise.
pub fn find(database: &Database, model: &str) -> rusqlite::Result<Policy> {
    database.read(|c| find_in(c, model))
}

/// Sets a model's policy, for answers from now on.
pub fn set(database: &Database, policy: &Policy) -> rusqlite::Result<()> {
    let insert = "INSERT INTO policies (model, proof_bps, settlement_bps) VALUES (?1, ?2, ?3) \
                  ON CONFLICT (model) DO UPDATE SET proof_bps = ?2, settlement_bps = ?3";
    database.write(|t| t.execute(insert, params![policy.model, policy.proof_bps, policy.settlement_bps])).map(|_| ())
}

/// Whether a request is of a share, for one purpose.
fn is_of_share(purpose: &str, request: &str, bps: u32) -> bool {
    let hash = blake3::hash(format!("poa/policy/{purpose}/{request}").as_bytes());
    let (head, _) = hash.as_bytes().split_at(8);
    let number = head.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    number % u64::from(ALL) < u64::from(bps)
}

/// Queues what the policy wants of an answer, in the write that keeps it. `earns` says whether the model has contributors to pay.
pub fn apply(t: &Transaction<'_>, request: &str, model: &str, earns: bool) -> rusqlite::Result<()> {
    let policy = find_in(t, model)?;
    if is_of_share("proof", request, policy.proof_bps) {
        jobs::enqueue_in(t, PROVE, request)?;
    }
    if earns && is_of_share("settlement", request, policy.settlement_bps) {
        settlements::enqueue_in(t, request)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_they_say() {
        let share = |bps| (0..20_000).filter(|i| is_of_share("proof", &format!("{i:064x}"), bps)).count();
        assert_eq!((share(0), share(ALL)), (0, 20_000));
        assert!((4_600..5_400).contains(&share(2_500)), "{}", share(2_500));
        let both =
            (0..20_000).filter(|i| is_of_share("proof", &format!("{i:064x}"), 5_000) && is_of_share("settlement", &format!("{i:064x}"), 5_000));
        assert!((4_600..5_400).contains(&both.count()), "the two purposes are independent");
    }
}
