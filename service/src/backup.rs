//! A copy of everything, taken while the service runs or doesn't: the database as of one moment, then the files that it names.
//!
//! Files are written before the database names them, and never changed: whatever a copied database names is there to be copied.

use crate::files::Files;
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::path::{Path, PathBuf};
use steps::error::{Failure, While};
use steps::progress::Observer;

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Files that the database names, each checked.
    pub files: usize,
    /// Bases and adapters.
    pub models: usize,
    /// Trainings that aren't done.
    pub trainings: usize,
}

/// Files that a database names: uploads, versions, proofs, statements, keys.
fn named(database: &Path) -> rusqlite::Result<Vec<String>> {
    let query = "SELECT file FROM submissions UNION SELECT file FROM versions UNION SELECT file FROM adapters \
                 UNION SELECT result ->> 'proof' FROM jobs WHERE kind = 'prove' AND state = 'done' \
                 UNION SELECT result ->> 'statement' FROM jobs WHERE kind = 'prove' AND state = 'done' \
                 UNION SELECT outcome ->> 'statement' FROM settlement_steps WHERE step = 'proven' \
                 UNION SELECT outcome ->> 'inner_proof' FROM settlement_steps WHERE step = 'proven' \
                 UNION SELECT outcome ->> 'outer_proof' FROM settlement_steps WHERE step = 'wrapped' \
                 UNION SELECT outcome ->> 'key' FROM settlement_steps WHERE step = 'wrapped' \
                 UNION SELECT statement FROM outer_keys UNION SELECT key FROM outer_keys UNION SELECT trial FROM outer_keys WHERE trial IS NOT NULL";
    Connection::open(database)?.prepare(query)?.query_map([], |r| r.get(0))?.collect()
}

/// What isn't half made.
fn is_whole(path: &Path) -> bool {
    path.file_name().is_none_or(|name| !name.to_string_lossy().contains(".tmp"))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !directory.is_dir() {
        return Ok(vec![]);
    }
    let read = fs::read_dir(directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).during_path("reading", directory)?;
    Ok(read.into_iter().map(|entry| entry.path()).filter(|path| is_whole(path)).collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    if !from.is_dir() {
        return fs::copy(from, to).map(|_| ()).during_path("copying", from);
    }
    fs::create_dir_all(to).during_path("creating", to)?;
    entries(from)?.iter().try_for_each(|path| copy(path, &to.join(path.file_name().unwrap_or_default())))
}

/// Copies a data directory to a new one; `poa serve --data` takes it as it took the first.
///
/// # Errors
///
/// When something can't be read or written, the target is there, or a file isn't what the database says; then there is no copy.
pub fn backup(data: &Path, out: &Path, on: &dyn Observer) -> Result<Copied, Failure> {
    let database = data.join("poa.db");
    if !database.is_file() {
        let failure = Failure::input(format!("{} is no directory that `poa serve` keeps: it has no poa.db", data.display()));
        return Err(failure.hint("give the --data of `poa serve`"));
    }
    if out.exists() {
        return Err(Failure::input(format!("{} exists", out.display())).hint("choose another --out: a backup replaces nothing"));
    }
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let making = out.with_file_name(name);
    if making.exists() {
        let failure = Failure::input(format!("{} exists: an earlier backup that was broken off, or one under way", making.display()));
        return Err(failure.hint("remove it yourself, or choose another --out"));
    }
    steps::store::create_parent(&making)?;
    crate::server::create_private(&making).during_path("creating", &making)?;
    let done = fill(data, &making, &database, on);
    if done.is_err() {
        let _ = fs::remove_dir_all(&making);
    }
    let copied = done?;
    fs::rename(&making, out).during(format!("renaming {} to {}", making.display(), out.display()))?;
    Ok(copied)
}

fn fill(data: &Path, making: &Path, database: &Path, on: &dyn Observer) -> Result<Copied, Failure> {
    on.note("copying the database …");
    let copied = making.join("poa.db");
    let of_a_moment = || -> rusqlite::Result<usize> {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(std::time::Duration::from_secs(30))?;
        connection.execute("VACUUM INTO ?1", [copied.to_string_lossy()])
    };
    of_a_moment().during_path("copying", database)?;
    let (from, to) = (Files::new(data.join("files")), Files::new(making.join("files")));
    let names = named(&copied).during_path("reading", &copied)?;
    for (i, name) in names.iter().enumerate() {
        to.put(&from.get(name)?)?;
        on.steps("copying files", i + 1, names.len());
    }
    let (mut models, mut trainings) = (0, 0);
    // Before models: a training that ends meanwhile is copied as one of the two.
    for training in entries(&data.join("trainings"))? {
        let (checkpoint, to) = (training.join("checkpoint"), making.join("trainings").join(training.file_name().unwrap_or_default()));
        if checkpoint.is_file() {
            fs::create_dir_all(&to).during_path("creating", &to)?;
            copy(&checkpoint, &to.join("checkpoint"))?;
            trainings += 1;
        }
    }
    for base in entries(&data.join("models"))? {
        on.note(format!("copying {} …", base.display()));
        copy(&base, &making.join("models").join(base.file_name().unwrap_or_default()))?;
        models += 1 + entries(&base.join("adapters"))?.len();
    }
    Ok(Copied { files: names.len(), models, trainings })
}
