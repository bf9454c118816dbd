//! Jobs that somebody ordered: what they are called outside, and whose they are.

use crate::adapters::ADOPT;
use crate::proofs::PROVE;
use crate::settlements::SETTLE;
use crate::trainings::TRAIN;
use rusqlite::{Connection, OptionalExtension};

/// A kind of job that is ordered by a key.
struct Ordered {
    kind: &'static str,
    /// What it's called in events.
    word: &'static str,
    /// The key of a subject.
    owner: &'static str,
}

const ORDERED: [Ordered; 4] = [
    Ordered { kind: PROVE, word: "proof", owner: "SELECT key FROM requests WHERE id = ?1" },
    Ordered { kind: TRAIN, word: "training", owner: "SELECT key FROM trainings WHERE id = ?1" },
    Ordered { kind: SETTLE, word: "settlement", owner: "SELECT key FROM requests WHERE id = ?1" },
    Ordered { kind: ADOPT, word: "adapter", owner: "SELECT key FROM adapters WHERE id = ?1" },
];

/// What a kind of job is called outside, and which key ordered the one of a subject; nothing where none did.
pub fn order(connection: &Connection, kind: &str, subject: &str) -> rusqlite::Result<Option<(&'static str, i64)>> {
    let Some(ordered) = ORDERED.iter().find(|o| o.kind == kind) else { return Ok(None) };
    let key = connection.query_row(ordered.owner, [subject], |r| r.get(0)).optional()?;
    Ok(key.map(|key| (ordered.word, key)))
}

/// What all kinds are called.
pub fn words() -> impl Iterator<Item = &'static str> {
    ORDERED.iter().map(|o| o.word)
}
