//! Work in the background, as a table: nothing is lost or done twice, whenever the process ends.
//!
//! A worker that claims a job has it until its lease ends, and extends the lease while it works. Every claim has a fence, a number that only grows:
//! what an old claim still says is ignored. A job that fails is tried again, later each time, and a few times in all. Jobs that have something in
//! common can be claimed together: one piece of work does them all.

use crate::database::{Database, now};
use crate::webhooks;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Seconds that a claim holds without being extended.
pub const LEASE: i64 = 30;
/// Times that a job is begun, at most.
const ATTEMPTS: i64 = 5;
/// Seconds before the second attempt; twice as many before each further one.
const PAUSE: i64 = 5;

/// A job as it's told.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What is to be done.
    pub kind: String,
    /// To what.
    pub subject: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// What a running one is doing.
    pub phase: Option<String>,
    /// Times it was begun.
    pub attempts: i64,
    /// What went wrong last.
    pub problem: Option<String>,
    /// What came of it.
    pub result: Option<Value>,
    /// Seconds since 1970.
    pub created: i64,
    /// How often it changed.
    #[serde(skip)]
    pub change: i64,
}

impl Job {
    /// Whether nothing more will happen by itself.
    pub fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "queued" | "running")
    }
}

/// A job that a worker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The job's number.
    pub id: i64,
    /// What is to be done.
    pub kind: String,
    /// To what.
    pub subject: String,
    fence: i64,
}

/// Which jobs are claimed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// How many, at most.
    pub most: usize,
    /// Seconds that the oldest of fewer waits for others.
    pub seconds: i64,
    /// What they have in common: an SQL expression of a row of `jobs`.
    pub common: &'static str,
}

impl Together {
    /// Each by itself, at once.
    pub const ALONE: Self = Self { most: 1, seconds: 0, common: "id" };
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let result: Option<String> = row.get("result")?;
    Ok(Job {
        id: row.get("id")?,
        kind: row.get("kind")?,
        subject: row.get("subject")?,
        state: row.get("state")?,
        phase: row.get("phase")?,
        attempts: row.get("attempts")?,
        problem: row.get("problem")?,
        result: result.and_then(|text| serde_json::from_str(&text).ok()),
        created: row.get("created")?,
        change: row.get("change")?,
    })
}

/// [`find`] as a part of something larger.
pub fn find_in(connection: &Connection, kind: &str, subject: &str) -> rusqlite::Result<Option<Job>> {
    connection.query_row("SELECT * FROM jobs WHERE kind = ?1 AND subject = ?2", [kind, subject], job).optional()
}

/// The job of a kind for a subject.
pub fn find(database: &Database, kind: &str, subject: &str) -> rusqlite::Result<Option<Job>> {
    database.read(|c| find_in(c, kind, subject))
}

/// A job by its number.
pub fn by_id(database: &Database, id: i64) -> rusqlite::Result<Option<Job>> {
    database.read(|c| c.query_row("SELECT * FROM jobs WHERE id = ?1", [id], job).optional())
}

/// Queues a job; one that is there stays as it is, unless it failed or was cancelled: then it begins anew.
pub fn enqueue(database: &Database, kind: &str, subject: &str) -> rusqlite::Result<Job> {
    database.write(|t| enqueue_in(t, kind, subject))
}

/// [`enqueue`] as a part of something larger.
pub fn enqueue_in(connection: &Connection, kind: &str, subject: &str) -> rusqlite::Result<Job> {
    let insert = "INSERT INTO jobs (kind, subject, created, state) VALUES (?1, ?2, ?3, 'queued') \
                  ON CONFLICT (kind, subject) DO UPDATE SET state = 'queued', attempts = 0, not_before = 0, problem = NULL, phase = NULL \
                  WHERE state IN ('failed', 'cancelled')";
    connection.execute(insert, params![kind, subject, now()])?;
    find_in(connection, kind, subject)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Does something that can't be undone, if a job is still the claim's; nobody takes or cancels it meanwhile. Nothing when it isn't.
pub fn while_owned<T>(database: &Database, claim: &Claim, f: impl FnOnce() -> T) -> rusqlite::Result<Option<T>> {
    database.write(|t| Ok(is_owned(t, claim)?.then(f)))
}

/// Whether a job is still the claim's; what is written in the same write, an old claim doesn't write.
pub fn is_owned(connection: &Connection, claim: &Claim) -> rusqlite::Result<bool> {
    let query = "SELECT 1 FROM jobs WHERE id = ?1 AND fence = ?2 AND state = 'running'";
    let owned: Option<i64> = connection.query_row(query, params![claim.id, claim.fence], |r| r.get(0)).optional()?;
    Ok(owned.is_some())
}

/// Takes the oldest job of a kind that waits, or whose worker has gone silent.
#[cfg(test)]
pub fn claim(database: &Database, kind: &str) -> rusqlite::Result<Option<Claim>> {
    Ok(claim_together(database, kind, Together::ALONE)?.pop())
}

/// Takes the oldest job that has waited long enough for others, and those others. What failed before is done by itself.
pub fn claim_together(database: &Database, kind: &str, together: Together) -> rusqlite::Result<Vec<Claim>> {
    claim_at(database, kind, together, now())
}

fn claim_at(database: &Database, kind: &str, together: Together, now: i64) -> rusqlite::Result<Vec<Claim>> {
    let Together { most, seconds, common } = together;
    database.write(|t| {
        // Whoever died of a job again and again won't be given it for ever.
        let gone = "UPDATE jobs SET state = 'failed', problem = 'its worker ended again and again' \
                    WHERE kind = ?3 AND state = 'running' AND lease < ?1 AND attempts >= ?2 RETURNING *";
        let gone: Vec<Job> = t.prepare(gone)?.query_map(params![now, ATTEMPTS, kind], job)?.collect::<Result<_, _>>()?;
        gone.iter().try_for_each(|job| webhooks::ended(t, job))?;
        // What one waits with: what has it in common and was never begun, or nobody.
        let waiting = format!(
            "WITH waiting AS (SELECT id, created, CASE WHEN attempts > 0 THEN 'job ' || id ELSE 'all ' || ({common}) END AS mates, attempts FROM jobs \
             WHERE kind = ?2 AND ((state = 'queued' AND not_before <= ?1) OR (state = 'running' AND lease < ?1)))"
        );
        let ripe = format!(
            "{waiting} SELECT mates FROM waiting GROUP BY mates HAVING count(*) >= ?3 OR max(attempts) > 0 OR min(created) + ?4 <= ?1 \
             ORDER BY min(id) LIMIT 1"
        );
        let Some(mates) = t.query_row(&ripe, params![now, kind, most as i64, seconds], |r| r.get::<_, Option<String>>(0)).optional()? else {
            return Ok(vec![]);
        };
        let take = format!(
            "{waiting} UPDATE jobs SET state = 'running', phase = NULL, attempts = attempts + 1, fence = fence + 1, lease = ?1 + ?3 \
             WHERE id IN (SELECT id FROM waiting WHERE mates IS ?4 ORDER BY id LIMIT ?5) RETURNING id, kind, subject, fence"
        );
        let row = |r: &Row<'_>| Ok(Claim { id: r.get(0)?, kind: r.get(1)?, subject: r.get(2)?, fence: r.get(3)? });
        let mut claims: Vec<Claim> =
            t.prepare(&take)?.query_map(params![now, kind, LEASE, mates, most as i64], row)?.collect::<Result<_, _>>()?;
        claims.sort_by_key(|claim| claim.id);
        Ok(claims)
    })
}

/// Changes a job as far as it is still the claim's; whether it was.
fn as_owner(database: &Database, claim: &Claim, change: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<bool> {
    let update = format!("UPDATE jobs SET {change} WHERE id = ?1 AND fence = ?2 AND state = 'running' RETURNING *");
    let mut all: Vec<&dyn rusqlite::ToSql> = vec![&claim.id, &claim.fence];
    all.extend(values);
    database.write(|t| {
        let changed = t.query_row(&update, all.as_slice(), job).optional()?;
        changed.iter().try_for_each(|job| webhooks::ended(t, job))?;
        Ok(changed.is_some())
    })
}

/// Keeps a claim for another lease; false once it's lost or cancelled.
pub fn extend(database: &Database, claim: &Claim) -> rusqlite::Result<bool> {
    as_owner(database, claim, "lease = ?3", &[&(now() + LEASE)])
}

/// Says what is being done.
pub fn tell(database: &Database, claim: &Claim, phase: &str) -> rusqlite::Result<bool> {
    as_owner(database, claim, "phase = ?3", &[&phase])
}

/// Says that something was done which a later attempt won't do again: it isn't the job that ends its workers.
pub fn progressed(database: &Database, claim: &Claim) -> rusqlite::Result<bool> {
    as_owner(database, claim, "attempts = 1", &[])
}

/// Ends a job with what came of it.
pub fn finish(database: &Database, claim: &Claim, result: &Value) -> rusqlite::Result<bool> {
    as_owner(database, claim, "state = 'done', phase = NULL, problem = NULL, result = ?3", &[&result.to_string()])
}

/// Gives a job back for another attempt, or for good after the last.
pub fn fail(database: &Database, claim: &Claim, problem: &str) -> rusqlite::Result<bool> {
    fail_at(database, claim, problem, now())
}

/// Ends a job that would fail again.
pub fn fail_for_good(database: &Database, claim: &Claim, problem: &str) -> rusqlite::Result<bool> {
    as_owner(database, claim, "state = 'failed', phase = NULL, problem = ?3", &[&problem])
}

fn fail_at(database: &Database, claim: &Claim, problem: &str, now: i64) -> rusqlite::Result<bool> {
    let change = "state = CASE WHEN attempts >= ?3 THEN 'failed' ELSE 'queued' END, phase = NULL, problem = ?4, \
                  not_before = ?5 + ?6 * (1 << (attempts - 1))";
    as_owner(database, claim, change, &[&ATTEMPTS, &problem, &now, &PAUSE])
}

/// Gives a job back for another attempt some seconds from now; how often is up to its kind.
pub fn put_off(database: &Database, claim: &Claim, problem: &str, seconds: i64) -> rusqlite::Result<bool> {
    as_owner(database, claim, "state = 'queued', phase = NULL, attempts = 0, problem = ?3, not_before = ?4", &[&problem, &(now() + seconds)])
}

/// Hands a job back untouched, as when the service ends.
pub fn release(database: &Database, claim: &Claim) -> rusqlite::Result<bool> {
    as_owner(database, claim, "state = 'queued', phase = NULL, attempts = attempts - 1", &[])
}

/// Cancels a job that isn't over; whether it was so.
pub fn cancel(database: &Database, kind: &str, subject: &str) -> rusqlite::Result<bool> {
    let update = "UPDATE jobs SET state = 'cancelled', phase = NULL WHERE kind = ?1 AND subject = ?2 \
                  AND state IN ('queued', 'running') RETURNING *";
    database.write(|t| {
        let cancelled = t.query_row(update, [kind, subject], job).optional()?;
        cancelled.iter().try_for_each(|job| webhooks::ended(t, job))?;
        Ok(cancelled.is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn database() -> (tempfile::TempDir, Database) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("poa.db")).unwrap();
        (directory, database)
    }

    fn claim_alone(database: &Database, now: i64) -> rusqlite::Result<Option<Claim>> {
        Ok(claim_at(database, "prove", Together::ALONE, now)?.pop())
    }

    #[test]
    fn a_job_is_done_once() {
        let (_directory, database) = database();
        let first = enqueue(&database, "prove", "a").unwrap();
        assert_eq!(enqueue(&database, "prove", "a").unwrap(), first, "asking twice is asking once");
        let claimed = claim(&database, "prove").unwrap().unwrap();
        assert_eq!((claimed.id, claim(&database, "prove").unwrap()), (first.id, None), "nobody else gets it");
        assert_eq!(claim(&database, "train").unwrap(), None, "nor anybody who does other work");
        assert!(tell(&database, &claimed, "lookups").unwrap());
        assert_eq!(find(&database, "prove", "a").unwrap().unwrap().phase.as_deref(), Some("lookups"));
        assert!(finish(&database, &claimed, &json!({ "bytes": 3 })).unwrap());
        assert!(!finish(&database, &claimed, &json!({ "bytes": 4 })).unwrap());
        assert_eq!(while_owned(&database, &claimed, || 1).unwrap(), None, "it's over");
        let done = enqueue(&database, "prove", "a").unwrap();
        assert_eq!((done.state.as_str(), done.result.clone(), done.is_over()), ("done", Some(json!({ "bytes": 3 })), true));
    }

    /// A worker that comes back after its lease finds that the job is another's.
    #[test]
    fn old_claims_are_ignored() {
        let (_directory, database) = database();
        enqueue(&database, "prove", "a").unwrap();
        let old = claim(&database, "prove").unwrap().unwrap();
        assert_eq!(claim_alone(&database, now() + LEASE).unwrap(), None);
        let new = claim_alone(&database, now() + LEASE + 1).unwrap().unwrap();
        assert_ne!(old, new);
        let refused = [extend(&database, &old), tell(&database, &old, "x"), fail(&database, &old, "x"), release(&database, &old)];
        assert!(refused.into_iter().all(|r| !r.unwrap()) && !finish(&database, &old, &json!(1)).unwrap());
        assert!(extend(&database, &new).unwrap() && finish(&database, &new, &json!(2)).unwrap());
    }

    #[test]
    fn failures_are_tried_again_later_and_not_for_ever() {
        let (_directory, database) = database();
        enqueue(&database, "prove", "a").unwrap();
        let mut at = now();
        for attempt in 1..=ATTEMPTS {
            let claimed = claim_alone(&database, at).unwrap().unwrap();
            assert!(fail_at(&database, &claimed, "no memory", at).unwrap());
            assert_eq!(claim_alone(&database, at).unwrap(), None, "not at once");
            at += PAUSE * (1 << attempt);
        }
        let failed = find(&database, "prove", "a").unwrap().unwrap();
        assert_eq!((failed.state.as_str(), failed.attempts, failed.problem.as_deref()), ("failed", ATTEMPTS, Some("no memory")));
        assert_eq!(claim_alone(&database, at + 10_000).unwrap(), None);
        assert_eq!(enqueue(&database, "prove", "a").unwrap().state, "queued", "asked again, it begins anew");
    }

    #[test]
    fn what_ends_its_worker_ends() {
        let (_directory, database) = database();
        enqueue(&database, "prove", "a").unwrap();
        let times = (0..ATTEMPTS + 2).filter(|i| claim_alone(&database, now() + i * (LEASE + 1)).unwrap().is_some()).count();
        assert_eq!(times as i64, ATTEMPTS);
        assert_eq!(find(&database, "prove", "a").unwrap().unwrap().state, "failed");
    }

    #[test]
    fn cancelled_and_released_jobs() {
        let (_directory, database) = database();
        enqueue(&database, "prove", "a").unwrap();
        let claimed = claim(&database, "prove").unwrap().unwrap();
        assert!(release(&database, &claimed).unwrap());
        let again = claim(&database, "prove").unwrap().unwrap();
        assert_eq!(find(&database, "prove", "a").unwrap().unwrap().attempts, 1, "a release is no attempt");
        assert!(cancel(&database, "prove", "a").unwrap() && !cancel(&database, "prove", "a").unwrap());
        assert!(!extend(&database, &again).unwrap() && !finish(&database, &again, &json!(1)).unwrap());
        assert_eq!(claim(&database, "prove").unwrap(), None);
    }

    /// Jobs with something in common wait for each other, so long and so many; what failed before is done by itself.
    #[test]
    fn jobs_are_claimed_together() {
        let (_directory, database) = database();
        let together = Together { most: 3, seconds: 10, common: "substr(subject, 1, 1)" };
        let subjects = |claims: &[Claim]| claims.iter().map(|claim| claim.subject.clone()).collect::<Vec<_>>();
        for subject in ["a1", "b1", "a2"] {
            enqueue(&database, "prove", subject).unwrap();
        }
        let start = now();
        assert_eq!(claim_at(&database, "prove", together, start).unwrap(), [], "neither so many nor so old");
        for subject in ["a3", "a4"] {
            enqueue(&database, "prove", subject).unwrap();
        }
        let full = claim_at(&database, "prove", together, start).unwrap();
        assert_eq!(subjects(&full), ["a1", "a2", "a3"], "no more than so many");
        assert_eq!(claim_at(&database, "prove", together, start).unwrap(), []);
        let old = claim_at(&database, "prove", together, start + 11).unwrap();
        assert_eq!(subjects(&old), ["b1"], "the oldest has waited");
        assert_eq!(subjects(&claim_at(&database, "prove", together, start + 11).unwrap()), ["a4"]);
        // Together they failed; by themselves they are tried again.
        full.iter().for_each(|claim| assert!(fail_at(&database, claim, "no memory", start).unwrap()));
        assert!(finish(&database, &old[0], &json!(1)).unwrap());
        let mut alone: Vec<Vec<Claim>> = (0..3).map(|_| claim_at(&database, "prove", together, start + 2 * PAUSE).unwrap()).collect();
        alone.sort_by_key(|claims| claims[0].id);
        assert_eq!(alone.iter().map(|claims| subjects(claims)).collect::<Vec<_>>(), [["a1"], ["a2"], ["a3"]]);
        // Handed back untouched, others are still waited for.
        alone.concat().iter().for_each(|claim| assert!(cancel(&database, "prove", &claim.subject).unwrap()));
        assert!(cancel(&database, "prove", "a4").unwrap());
        for subject in ["c1", "c2", "c3"] {
            enqueue(&database, "prove", subject).unwrap();
        }
        let released = claim_at(&database, "prove", together, start).unwrap();
        released.iter().for_each(|claim| assert!(release(&database, claim).unwrap()));
        assert_eq!(subjects(&claim_at(&database, "prove", together, start).unwrap()), subjects(&released));
    }
}
