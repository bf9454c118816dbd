//! Datanets: what was submitted, what the owner took in, and the versions that were published.
//!
//! ```text
//!  upload ──► submission (pending) ──► approved ──┐
//!                                └──► rejected    ├──► version n (never changed) ──► training
//!                     withdrawals ────────────────┘
//! ```
//!
//! A version begins with what its predecessor holds, in its order, so that a sample that came later never changes whose an earlier one is.

use crate::database::{Database, now};
use crate::error::ApiError;
use crate::files::Files;
use crate::idempotency::made;
use crate::keys::{self, Caller, Scope};
use crate::uploads::{self, Report, Upload};
use circuits::statement::Digest;
use model_runtime::text::{Datanet as Samples, Sample};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use std::collections::HashSet;
use steps::error::While;
use utoipa::ToSchema;

/// Most characters of a datanet's or an adapter's name.
const NAME: usize = 64;
/// Most characters of a reason.
const REASON: usize = 500;

/// A datanet.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Datanet {
    /// Its number.
    #[serde(skip)]
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Whose it is.
    #[serde(skip)]
    pub owner: i64,
    /// SPDX's identifier of its samples' licence.
    pub licence: String,
    /// Whether everyone with a key may read its texts.
    pub public: bool,
    /// Seconds since 1970.
    pub created: i64,
}

/// What was submitted at once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Submission {
    /// Its number.
    pub id: i64,
    /// Who submitted it.
    #[serde(skip)]
    pub key: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// What the file was called.
    pub name: String,
    /// How many samples.
    pub samples: usize,
    /// What there was to say of them.
    pub report: Option<Report>,
    /// `pending`, `approved` or `rejected`.
    pub state: String,
    /// Why it was rejected.
    pub reason: Option<String>,
}

/// A published version.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Version {
    /// Its number, from 1.
    pub version: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// The datanet's root.
    pub root: String,
    /// Its samples, as JSON lines.
    #[serde(skip)]
    pub file: String,
    /// SPDX's identifier of their licence.
    pub licence: String,
    /// How many.
    pub samples: usize,
    /// By how many contributors.
    pub contributors: usize,
}

fn datanet(row: &Row<'_>) -> rusqlite::Result<Datanet> {
    Ok(Datanet {
        id: row.get("id")?,
        name: row.get("name")?,
        owner: row.get("owner")?,
        licence: row.get("licence")?,
        public: row.get("public")?,
        created: row.get("created")?,
    })
}

fn submission(row: &Row<'_>) -> rusqlite::Result<Submission> {
    Ok(Submission {
        id: row.get("id")?,
        key: row.get("key")?,
        created: row.get("created")?,
        name: row.get("name")?,
        samples: row.get::<_, i64>("samples")? as usize,
        report: serde_json::from_str(&row.get::<_, String>("report")?).ok(),
        state: row.get("state")?,
        reason: row.get("reason")?,
    })
}

fn version(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        version: row.get("version")?,
        created: row.get("created")?,
        root: row.get("root")?,
        file: row.get("file")?,
        licence: row.get("licence")?,
        samples: row.get::<_, i64>("samples")? as usize,
        contributors: row.get::<_, i64>("contributors")? as usize,
    })
}

/// A name that is a part of addresses and paths: lower-case letters, digits, and `-`, `_` and `.` between them.
///
/// # Errors
///
/// When it's none.
pub fn check_name(parameter: &str, name: &str) -> Result<(), ApiError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    // What is being written ends so.
    let half_made = name.ends_with(".tmp");
    if !half_made && name.len() <= NAME && name.chars().all(inner) && ends(name.chars().next()) && ends(name.chars().last()) {
        return Ok(());
    }
    let message = format!("{parameter}: expected up to {NAME} lower-case letters, digits, and `-`, `_` or `.` between them");
    Err(ApiError::parameter(parameter, message))
}

impl Datanet {
    /// Whether a caller decides what is in it.
    pub fn is_kept_by(&self, caller: Caller) -> bool {
        caller.owns() && caller.sees(self.owner)
    }

    /// Whether a caller may read its texts.
    pub fn is_read_by(&self, caller: Caller) -> bool {
        self.public || caller.sees(self.owner)
    }

    fn check_keeper(&self, caller: Caller) -> Result<(), ApiError> {
        if self.is_kept_by(caller) { Ok(()) } else { Err(ApiError::forbidden(format!("{} has another owner", self.name))) }
    }
}

/// Begins a datanet.
///
/// # Errors
///
/// When the caller may not, the name is taken, or the licence isn't SPDX's.
pub fn create(database: &Database, caller: Caller, name: &str, licence: &str, public: bool) -> Result<Datanet, ApiError> {
    if !caller.owns() {
        return Err(ApiError::forbidden("this needs an owner's or an admin's key"));
    }
    check_name("name", name)?;
    if spdx::Expression::parse(licence).is_err() {
        let error = ApiError::parameter("licence", "licence: expected an SPDX expression");
        return Err(ApiError { hint: Some("such as CC-BY-4.0, CC0-1.0 or MIT".into()), ..error });
    }
    let insert = "INSERT INTO datanets (name, owner, licence, public, created) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO NOTHING";
    let begun = database.write(|t| {
        let begun = t.execute(insert, params![name, caller.key, licence, public, now()])? > 0;
        if begun { made(t, caller, &place(name)).map(|()| true) } else { Ok(false) }
    })?;
    if !begun {
        return Err(ApiError::conflict(format!("there is a datanet {name} already")));
    }
    find(database, name)
}

/// Where a datanet is seen.
fn place(name: &str) -> String {
    format!("/v1/datanets/{name}")
}

/// A datanet by name.
pub fn find(database: &Database, name: &str) -> Result<Datanet, ApiError> {
    let found = database.read(|c| c.query_row("SELECT * FROM datanets WHERE name = ?1", [name], datanet).optional())?;
    found.ok_or_else(|| ApiError::not_found("datanet"))
}

/// A datanet by its number.
pub fn by_id(database: &Database, id: i64) -> rusqlite::Result<Datanet> {
    database.read(|c| c.query_row("SELECT * FROM datanets WHERE id = ?1", [id], datanet))
}

/// All datanets, by name.
pub fn list(database: &Database) -> rusqlite::Result<Vec<Datanet>> {
    database.read(|c| c.prepare("SELECT * FROM datanets ORDER BY name")?.query_map([], datanet)?.collect())
}

/// What was submitted to a datanet, as far as a caller may see it, newest first.
pub fn submissions(database: &Database, caller: Caller, of: &Datanet) -> rusqlite::Result<Vec<Submission>> {
    let all: Vec<Submission> = database.read(|c| {
        c.prepare("SELECT * FROM submissions WHERE datanet = ?1 ORDER BY id DESC")?.query_map([of.id], submission)?.collect::<Result<_, _>>()
    })?;
    Ok(all.into_iter().filter(|s| of.is_kept_by(caller) || caller.sees(s.key)).collect())
}

/// A datanet's versions, newest first.
pub fn versions(database: &Database, of: &Datanet) -> rusqlite::Result<Vec<Version>> {
    database.read(|c| versions_of(c, of.id))
}

fn versions_of(connection: &Connection, id: i64) -> rusqlite::Result<Vec<Version>> {
    connection.prepare("SELECT * FROM versions WHERE datanet = ?1 ORDER BY version DESC")?.query_map([id], version)?.collect()
}

/// A version by number.
pub fn find_version(database: &Database, of: &Datanet, number: i64) -> Result<Version, ApiError> {
    let found = versions(database, of)?.into_iter().find(|v| v.version == number);
    found.ok_or_else(|| ApiError::not_found("version"))
}

/// A version's samples.
///
/// # Errors
///
/// When they can't be read, or aren't those that were published.
pub fn samples(files: &Files, version: &Version) -> Result<Samples, steps::error::Failure> {
    let samples = read(files, &version.file)?;
    if Digest(samples.root()).to_string() != version.root {
        return Err(steps::error::Failure::input(format!("version {} isn't what was published", version.version)));
    }
    Ok(samples)
}

fn read(files: &Files, name: &str) -> Result<Samples, steps::error::Failure> {
    Samples::from_jsonl("a submission", &files.get(name)?).during("reading what was submitted")
}

/// Tells samples apart where they were taken back.
pub fn digest(sample: &Sample) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("poa withdrawn sample");
    for part in [&sample.contributor, &sample.text] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn withdrawn(c: &Connection, id: i64) -> rusqlite::Result<HashSet<[u8; 32]>> {
    c.prepare("SELECT sample FROM withdrawals WHERE datanet = ?1")?.query_map([id], |r| r.get(0))?.collect()
}

/// [Digests](digest) of the samples of a datanet that were taken back.
pub fn taken_back(database: &Database, of: &Datanet) -> rusqlite::Result<HashSet<[u8; 32]>> {
    database.read(|c| withdrawn(c, of.id))
}

/// What a version is composed of.
#[derive(PartialEq)]
struct Parts {
    last: Option<Version>,
    /// Submissions that were approved: their numbers and files.
    approved: Vec<(i64, String)>,
    withdrawn: HashSet<[u8; 32]>,
}

impl Parts {
    fn of(c: &Connection, id: i64) -> rusqlite::Result<Self> {
        let last = versions_of(c, id)?.into_iter().next();
        let query = "SELECT id, file FROM submissions WHERE datanet = ?1 AND state = 'approved' ORDER BY id";
        let approved = c.prepare(query)?.query_map([id], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?;
        Ok(Self { last, approved, withdrawn: withdrawn(c, id)? })
    }
}

/// What a new version would hold: the last one's samples, then those approved since in the order of their submission, without what was taken back.
fn composed(files: &Files, parts: &Parts) -> Result<Samples, ApiError> {
    let mut samples = parts.last.as_ref().map(|last| self::samples(files, last)).transpose()?.unwrap_or_default().samples;
    let mut present: HashSet<[u8; 32]> = samples.iter().map(digest).collect();
    for (_, file) in &parts.approved {
        let new = read(files, file)?.samples.into_iter();
        samples.extend(new.filter(|sample| present.insert(digest(sample))));
    }
    samples.retain(|sample| !parts.withdrawn.contains(&digest(sample)));
    Ok(Samples { samples })
}

/// Everything that was submitted and not rejected, in the order of submission: what a copy copies.
fn submitted(database: &Database, files: &Files, of: &Datanet) -> Result<Samples, ApiError> {
    let query = "SELECT file FROM submissions WHERE datanet = ?1 AND state != 'rejected' ORDER BY id";
    let names: Vec<String> = database.read(|c| c.prepare(query)?.query_map([of.id], |r| r.get(0))?.collect())?;
    let mut samples = Vec::new();
    for name in names {
        samples.extend(read(files, &name)?.samples);
    }
    Ok(Samples { samples })
}

/// Reads an upload for a datanet without keeping it.
///
/// # Errors
///
/// When the caller may not submit, or the file can't be read.
pub fn preview(database: &Database, files: &Files, caller: Caller, of: &Datanet, name: &str, bytes: &[u8]) -> Result<Upload, ApiError> {
    if !caller.contributes() {
        return Err(ApiError::forbidden("this needs a contributor's, an owner's or an admin's key"));
    }
    let own = (caller.scope == Scope::Contributor).then(|| keys::name(database, caller.key)).transpose()?;
    uploads::upload(name, bytes, own.as_deref(), &submitted(database, files, of)?)
}

/// Keeps an upload for its owner to decide on.
///
/// # Errors
///
/// As [`preview`].
pub fn submit(database: &Database, files: &Files, caller: Caller, of: &Datanet, name: &str, bytes: &[u8]) -> Result<Submission, ApiError> {
    let Upload { datanet, report } = preview(database, files, caller, of, name, bytes)?;
    let query = "SELECT coalesce(sum(samples), 0) FROM submissions WHERE key = ?1 AND state = 'pending'";
    let waiting: i64 = database.read(|c| c.query_row(query, [caller.key], |r| r.get(0)))?;
    if waiting as usize + datanet.samples.len() > uploads::SAMPLES {
        let message = format!("{waiting} samples of this key wait to be decided on, at most {} may", uploads::SAMPLES);
        return Err(ApiError::conflict(message));
    }
    let file = files.put(datanet.to_jsonl().as_bytes())?;
    let report = serde_json::to_string(&report).map_err(|e| ApiError::invalid(format!("the report can't be written: {e}")))?;
    let insert = "INSERT INTO submissions (datanet, key, created, name, file, samples, report, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending')";
    let values = params![of.id, caller.key, now(), name, file, datanet.samples.len() as i64, report];
    let kept = database.write(|t| {
        t.execute(insert, values)?;
        made(t, caller, &place(&of.name))?;
        t.query_row("SELECT * FROM submissions WHERE id = ?1", [t.last_insert_rowid()], submission)
    })?;
    Ok(kept)
}

/// Takes a submission in, or rejects it with a reason.
///
/// # Errors
///
/// When the caller isn't the datanet's keeper, or it was decided on before.
pub fn decide(database: &Database, caller: Caller, of: &Datanet, id: i64, rejected: Option<&str>) -> Result<(), ApiError> {
    of.check_keeper(caller)?;
    if rejected.is_some_and(|reason| reason.trim().is_empty() || reason.chars().count() > REASON) {
        return Err(ApiError::parameter("reason", format!("reason: expected a text of 1 to {REASON} characters")));
    }
    let state = if rejected.is_some() { "rejected" } else { "approved" };
    let update = "UPDATE submissions SET state = ?3, reason = ?4 WHERE datanet = ?1 AND id = ?2 AND state = 'pending'";
    let decided = database.write(|t| {
        let decided = t.execute(update, params![of.id, id, state, rejected.map(str::trim)])? > 0;
        if decided { made(t, caller, &place(&of.name)).map(|()| true) } else { Ok(false) }
    })?;
    if decided {
        return Ok(());
    }
    let there = database.read(|c| {
        c.query_row("SELECT state FROM submissions WHERE datanet = ?1 AND id = ?2", params![of.id, id], |r| r.get::<_, String>(0)).optional()
    })?;
    Err(there.map_or_else(|| ApiError::not_found("submission"), |state| ApiError::conflict(format!("the submission is {state} already"))))
}

/// Takes back a sample of a version: no later version has it.
///
/// # Errors
///
/// When it is neither the caller's nor in a datanet that they keep.
pub fn withdraw(database: &Database, files: &Files, caller: Caller, of: &Datanet, number: i64, sample: usize) -> Result<Sample, ApiError> {
    let version = find_version(database, of, number)?;
    if caller.scope != Scope::Contributor && !of.is_kept_by(caller) {
        return Err(ApiError::forbidden("the sample is another contributor's"));
    }
    let found = samples(files, &version)?.samples.into_iter().nth(sample).ok_or_else(|| ApiError::not_found("sample"))?;
    let own = caller.scope == Scope::Contributor && keys::name(database, caller.key)? == found.contributor;
    if !own && !of.is_kept_by(caller) {
        return Err(ApiError::forbidden("the sample is another contributor's"));
    }
    let insert = "INSERT INTO withdrawals (datanet, sample, key, created) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    database.write(|t| {
        t.execute(insert, params![of.id, digest(&found), caller.key, now()])?;
        made(t, caller, &place(&of.name))
    })?;
    Ok(found)
}

/// Publishes a version.
///
/// # Errors
///
/// When the caller isn't the datanet's keeper, it would be empty, or it would be the last one again.
pub fn publish(database: &Database, files: &Files, caller: Caller, of: &Datanet) -> Result<Version, ApiError> {
    of.check_keeper(caller)?;
    let parts = database.read(|c| Parts::of(c, of.id))?;
    let samples = composed(files, &parts)?;
    if samples.samples.is_empty() {
        return Err(ApiError::conflict("no sample is approved: the version would be empty"));
    }
    let (root, file) = (Digest(samples.root()).to_string(), files.put(samples.to_jsonl().as_bytes())?);
    let contributors = samples.contributors().len() as i64;
    let insert =
        "INSERT INTO versions (datanet, version, created, root, file, licence, samples, contributors) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let published = database.write(|t| {
        // What was approved, taken back or published meanwhile isn't in it.
        if Parts::of(t, of.id)? != parts {
            return Ok(Err("something was approved, taken back or published meanwhile: publish again"));
        }
        if parts.last.as_ref().is_some_and(|last| last.root == root) {
            return Ok(Err("nothing was approved or taken back since the last version"));
        }
        let number = parts.last.as_ref().map_or(1, |last| last.version + 1);
        t.execute(insert, params![of.id, number, now(), root, file, of.licence, samples.samples.len() as i64, contributors])?;
        made(t, caller, &place(&of.name))?;
        versions_of(t, of.id)?.into_iter().next().map(Ok).ok_or(rusqlite::Error::QueryReturnedNoRows)
    })?;
    published.map_err(ApiError::conflict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::make;

    struct Bench {
        _directory: tempfile::TempDir,
        database: Database,
        files: Files,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let database = Database::open(&directory.path().join("poa.db")).unwrap();
            let files = Files::new(directory.path().join("files"));
            Self { _directory: directory, database, files }
        }

        fn caller(&self, name: &str, scope: Scope) -> Caller {
            keys::find(&self.database, &make(&self.database, name, scope).unwrap()).unwrap().unwrap()
        }

        fn submit(&self, caller: Caller, of: &Datanet, lines: &str) -> i64 {
            submit(&self.database, &self.files, caller, of, "mine.txt", lines.as_bytes()).unwrap().id
        }

        fn publish(&self, caller: Caller, of: &Datanet) -> Result<Vec<String>, ApiError> {
            let version = publish(&self.database, &self.files, caller, of)?;
            Ok(samples(&self.files, &version).unwrap().samples.into_iter().map(|s| s.text).collect())
        }
    }

    #[test]
    fn a_version_holds_what_was_approved_and_only_grows() {
        let bench = Bench::new();
        let (owner, ann, zoe) = (bench.caller("o", Scope::Owner), bench.caller("ann", Scope::Contributor), bench.caller("zoe", Scope::Contributor));
        let of = create(&bench.database, owner, "facts", "CC0-1.0", false).unwrap();
        assert!(bench.publish(owner, &of).unwrap_err().message.contains("empty"));
        let (first, second) = (bench.submit(ann, &of, "first"), bench.submit(zoe, &of, "second\nthird"));
        decide(&bench.database, owner, &of, second, None).unwrap();
        assert_eq!(bench.publish(owner, &of).unwrap(), ["second", "third"]);
        assert!(bench.publish(owner, &of).unwrap_err().message.contains("nothing was approved"));
        decide(&bench.database, owner, &of, first, None).unwrap();
        assert_eq!(bench.publish(owner, &of).unwrap(), ["second", "third", "first"], "what was there keeps its place");
        assert!(withdraw(&bench.database, &bench.files, ann, &of, 2, 0).unwrap_err().message.contains("another contributor's"));
        assert_eq!(withdraw(&bench.database, &bench.files, zoe, &of, 2, 0).unwrap().text, "second");
        assert_eq!(bench.publish(owner, &of).unwrap(), ["third", "first"]);
        let versions = versions(&bench.database, &of).unwrap();
        assert_eq!(versions.iter().map(|v| (v.version, v.samples, v.contributors)).collect::<Vec<_>>(), [(3, 2, 2), (2, 3, 2), (1, 2, 1)]);
        assert_eq!(samples(&bench.files, &versions[1]).unwrap().samples.len(), 3, "what was published stays");
        let third = bench.submit(zoe, &of, "second");
        decide(&bench.database, owner, &of, third, None).unwrap();
        assert!(bench.publish(owner, &of).is_err(), "what was taken back stays away");
    }

    #[test]
    fn everyone_does_what_they_may() {
        let bench = Bench::new();
        let (owner, other) = (bench.caller("o", Scope::Owner), bench.caller("p", Scope::Owner));
        let (ann, user) = (bench.caller("ann", Scope::Contributor), bench.caller("u", Scope::User));
        let make = |caller, name: &str, licence: &str| create(&bench.database, caller, name, licence, false);
        assert!(make(ann, "facts", "MIT").is_err() && make(owner, "../facts", "MIT").is_err() && make(owner, "facts", "mine").is_err());
        let of = make(owner, "facts", "MIT").unwrap();
        assert!(make(other, "facts", "MIT").unwrap_err().message.contains("already"));
        let submitted = |caller, text: &str| submit(&bench.database, &bench.files, caller, &of, "a.txt", text.as_bytes());
        assert!(submitted(user, "a").unwrap_err().message.contains("contributor's"));
        let id = submitted(ann, "a").unwrap().id;
        let json = b"{\"contributor\":\"zoe\",\"text\":\"b\"}\n";
        assert!(submit(&bench.database, &bench.files, ann, &of, "a.jsonl", json).unwrap_err().message.contains("\"ann\"'s"));
        assert!(submit(&bench.database, &bench.files, owner, &of, "a.jsonl", json).is_ok());
        let decided = |caller, reason| decide(&bench.database, caller, &of, id, reason);
        assert!(decided(other, None).is_err() && decided(ann, None).is_err() && decided(owner, Some(" ")).is_err());
        decided(owner, Some("not a fact")).unwrap();
        assert!(decided(owner, None).unwrap_err().message.contains("rejected already"));
        assert!(decide(&bench.database, owner, &of, 99, None).is_err());
        let seen = |caller| submissions(&bench.database, caller, &of).unwrap().len();
        assert_eq!((seen(owner), seen(ann), seen(other)), (2, 1, 0));
        assert!(of.is_read_by(owner) && !of.is_read_by(ann));
    }
}
