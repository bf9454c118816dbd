//! What the service remembers: SQLite with one writer, in one file.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steps::error::{Failure, While};

/// The schema, step by step; a database says how many it has seen.
const MIGRATIONS: [&str; 4] = [
    include_str!("../migrations/1.sql"),
    include_str!("../migrations/2.sql"),
    include_str!("../migrations/3.sql"),
    include_str!("../migrations/4.sql"),
];
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
            // A migration may replace a table that others refer to; what they refer to is checked when it has.
            connection.pragma_update(None, "foreign_keys", false)?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let seen: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            for migration in MIGRATIONS.iter().skip(usize::try_from(seen).unwrap_or(0)) {
                transaction.execute_batch(migration)?;
            }
            transaction.pragma_update(None, "user_version", MIGRATIONS.len().max(usize::try_from(seen).unwrap_or(0)) as i64)?;
            let dangling: Option<String> =
                transaction.query_row("SELECT \"table\" FROM pragma_foreign_key_check", [], |row| row.get(0)).optional()?;
            if let Some(table) = dangling {
                return Err(rusqlite::Error::InvalidColumnName(format!("{table} refers to what isn't there")));
            }
            transaction.commit()?;
            connection.pragma_update(None, "foreign_keys", true)?;
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
        Database::open(&path).unwrap().write(|t| t.pragma_update(None, "user_version", 99)).unwrap();
        let refused = Database::open(&path).err().unwrap();
        assert!(refused.message.contains("version 99"), "{refused:?}");
    }

    /// Keys made before there were other scopes stay, with what refers to them.
    #[test]
    fn an_older_database_is_brought_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("poa.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute_batch(
            "INSERT INTO keys (id, hash, name, scope, created) VALUES (7, x'01', 'old', 'user', 0); \
             INSERT INTO sessions (hash, key, form_token, expires) VALUES (x'02', 7, 't', 0);",
        )
        .unwrap();
        drop(old);
        let database = Database::open(&path).unwrap();
        let name = "SELECT keys.name FROM sessions JOIN keys ON keys.id = sessions.key";
        assert_eq!(database.read(|c| c.query_row(name, [], |r| r.get::<_, String>(0))).unwrap(), "old");
        assert!(database.write(|t| t.execute("UPDATE keys SET scope = 'owner'", [])).is_ok());
        assert!(database.write(|t| t.execute("DELETE FROM keys", [])).is_err(), "a session refers to it");
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
