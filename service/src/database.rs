//! What the service remembers: SQLite with one writer, in one file.

use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steps::error::{Failure, While};

/// The schema, step by step; a database says how many it has seen.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/1.sql")];
/// How long to wait for another process.
const PATIENCE: Duration = Duration::from_secs(5);

/// The database.
pub struct Database(Mutex<Connection>);

impl Database {
    /// Opens it, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// When it can't be read or written, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let mut connection = Connection::open(path).during_path("opening", path)?;
        let mut prepare = || -> rusqlite::Result<i64> {
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let seen: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            for migration in MIGRATIONS.iter().skip(usize::try_from(seen).unwrap_or(0)) {
                transaction.execute_batch(migration)?;
            }
            transaction.pragma_update(None, "user_version", MIGRATIONS.len().max(usize::try_from(seen).unwrap_or(0)) as i64)?;
            transaction.commit()?;
            Ok(seen)
        };
        let seen = prepare().during_path("opening", path)?;
        if seen > MIGRATIONS.len() as i64 {
            let message = format!("{} is of version {seen}, this program knows {}", path.display(), MIGRATIONS.len());
            return Err(Failure::input(message).hint("use the version of poa that wrote it, or another --data"));
        }
        Ok(Self(Mutex::new(connection)))
    }

    /// Reads.
    pub fn read<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        f(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes all of it or nothing.
    pub fn write<T>(&self, f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = f(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// A new random value.
///
/// # Errors
///
/// When the system has no randomness.
pub fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Failure::input(format!("no randomness: {e}")))?;
    Ok(bytes)
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_database_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("poa.db");
        Database::open(&path).unwrap();
        Database::open(&path).unwrap().write(|t| t.pragma_update(None, "user_version", 7)).unwrap();
        let refused = Database::open(&path).err().unwrap();
        assert!(refused.message.contains("version 7"), "{refused:?}");
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("poa.db")).unwrap();
        let insert = "INSERT INTO jobs (kind, subject, created, state) VALUES ('prove', 'a', 0, ?1)";
        let both = database.write(|t| {
            t.execute(insert, ["queued"])?;
            t.execute(insert, ["nonsense"])
        });
        assert!(both.is_err());
        assert_eq!(database.read(|c| c.query_row("SELECT count(*) FROM jobs", [], |r| r.get::<_, i64>(0))).unwrap(), 0);
    }
}
