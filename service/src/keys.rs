//! Who may ask: API keys, and browser sessions that stand for one.
//!
//! A key is 32 random bytes; only its hash is kept, so that the database lets nobody in. Guessing is hopeless at any speed; it is slowed all the same.

use crate::database::{Database, hex, now, random};
use crate::error::ApiError;
use model_runtime::text::Datanet;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use steps::error::{Failure, While};
use utoipa::ToSchema;

/// What a key begins with, so that it's recognised where it was pasted by mistake.
const PREFIX: &str = "poa_";
/// A browser session ends after a day.
const SESSION: i64 = 24 * 3600;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Ask, keep datanets, train.
    Owner,
    /// Ask, and submit samples under the key's own name.
    Contributor,
    /// Ask, and see what came of it.
    User,
}

impl Scope {
    /// By name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "admin" => Some(Self::Admin),
            "owner" => Some(Self::Owner),
            "contributor" => Some(Self::Contributor),
            "user" => Some(Self::User),
            _ => None,
        }
    }

    /// As it's written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Owner => "owner",
            Self::Contributor => "contributor",
            Self::User => "user",
        }
    }
}

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's number.
    pub key: i64,
    /// What it may do.
    pub scope: Scope,
    /// The number of this call, where it has an idempotency key.
    pub call: Option<i64>,
}

impl Caller {
    /// Whoever has a key.
    pub fn new(key: i64, scope: Scope) -> Self {
        Self { key, scope, call: None }
    }

    /// Whether what a key has made is theirs to see.
    pub fn sees(self, key: i64) -> bool {
        self.scope == Scope::Admin || self.key == key
    }

    /// Whether they may submit samples.
    pub fn contributes(self) -> bool {
        self.scope != Scope::User
    }

    /// Whether they may keep datanets and train.
    pub fn owns(self) -> bool {
        matches!(self.scope, Scope::Admin | Scope::Owner)
    }
}

/// A browser's session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose it is.
    pub caller: Caller,
    /// What the key was called.
    pub name: String,
    /// What every form of its pages sends along.
    pub form_token: String,
}

impl Session {
    /// Whose samples are submitted, where it's a contributor's.
    pub fn contributor(&self) -> Option<&str> {
        (self.caller.scope == Scope::Contributor).then_some(&self.name)
    }
}

/// A key as it's listed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct Listed {
    /// Its number.
    pub id: i64,
    /// What it was called.
    pub name: String,
    /// `admin`, `owner`, `contributor` or `user`.
    pub scope: String,
    /// Seconds since 1970.
    pub created: i64,
    /// When it stopped being one.
    pub revoked: Option<i64>,
}

fn hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// Makes a key; it is never shown again.
///
/// # Errors
///
/// When it is a contributor's, and the name isn't spelt as datanets spell it, or another contributor has it: samples are taken in under it.
pub fn make(database: &Database, name: &str, scope: Scope) -> Result<String, ApiError> {
    if scope == Scope::Contributor {
        let line = serde_json::json!({ "contributor": name, "text": "a text" }).to_string();
        let read = Datanet::from_jsonl("the name", line.as_bytes()).map(|d| d.samples[0].contributor.clone()).unwrap_or_default();
        if read != name {
            return Err(ApiError::parameter("name", format!("name: datanets would spell it {read:?}")));
        }
        let query = "SELECT id FROM keys WHERE scope = 'contributor' AND revoked IS NULL AND name = ?1";
        if database.read(|c| c.query_row(query, [name], |r| r.get::<_, i64>(0)).optional())?.is_some() {
            return Err(ApiError::conflict(format!("a contributor has the name {name} already")));
        }
    }
    let key = format!("{PREFIX}{}", hex(&random()?));
    let values = params![hash(&key), name, scope.name(), now()];
    database.write(|t| t.execute("INSERT INTO keys (hash, name, scope, created) VALUES (?1, ?2, ?3, ?4)", values))?;
    Ok(key)
}

/// Makes an admin's key where there is no key at all.
pub fn make_first(database: &Database) -> Result<Option<String>, Failure> {
    let count: i64 = database.read(|c| c.query_row("SELECT count(*) FROM keys", [], |r| r.get(0))).during("reading the database")?;
    if count > 0 {
        return Ok(None);
    }
    make(database, "first admin", Scope::Admin).map(Some).map_err(|e| Failure::input(e.message))
}

/// The oldest admin's key that isn't revoked.
pub fn first_admin(database: &Database) -> rusqlite::Result<Option<Caller>> {
    let query = "SELECT id FROM keys WHERE scope = 'admin' AND revoked IS NULL ORDER BY id LIMIT 1";
    let key = database.read(|c| c.query_row(query, [], |r| r.get(0)).optional())?;
    Ok(key.map(|key| Caller::new(key, Scope::Admin)))
}

/// Whose key it is; nobody's if it's unknown or revoked.
pub fn find(database: &Database, key: &str) -> rusqlite::Result<Option<Caller>> {
    let query = "SELECT id, scope FROM keys WHERE hash = ?1 AND revoked IS NULL";
    let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get::<_, String>(1)?));
    let found = database.read(|c| c.query_row(query, [hash(key)], row).optional())?;
    Ok(found.and_then(|(key, scope)| Some(Caller::new(key, Scope::named(&scope)?))))
}

/// Whether a key is one, and isn't revoked.
pub fn is_valid(database: &Database, id: i64) -> rusqlite::Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM keys WHERE id = ?1 AND revoked IS NULL)";
    database.read(|c| c.query_row(query, [id], |r| r.get(0)))
}

/// What a key was called; a contributor's samples are under that name.
pub fn name(database: &Database, id: i64) -> rusqlite::Result<String> {
    database.read(|c| c.query_row("SELECT name FROM keys WHERE id = ?1", [id], |r| r.get(0)))
}

/// All keys, by number.
pub fn list(database: &Database) -> rusqlite::Result<Vec<Listed>> {
    database.read(|c| {
        let mut query = c.prepare("SELECT id, name, scope, created, revoked FROM keys ORDER BY id")?;
        let row = |r: &rusqlite::Row<'_>| Ok(Listed { id: r.get(0)?, name: r.get(1)?, scope: r.get(2)?, created: r.get(3)?, revoked: r.get(4)? });
        query.query_map([], row)?.collect()
    })
}

/// Ends a key and its sessions; whether there was one.
pub fn revoke(database: &Database, id: i64) -> rusqlite::Result<bool> {
    database.write(|t| {
        t.execute("DELETE FROM sessions WHERE key = ?1", [id])?;
        Ok(t.execute("UPDATE keys SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL", params![id, now()])? > 0)
    })
}

/// Starts a session; what it returns is the cookie's value.
pub fn start_session(database: &Database, caller: Caller) -> Result<String, ApiError> {
    let (secret, form_token) = (hex(&random()?), hex(&random()?));
    database.write(|t| {
        t.execute("DELETE FROM sessions WHERE expires < ?1", [now()])?;
        let values = params![hash(&secret), caller.key, form_token, now() + SESSION];
        t.execute("INSERT INTO sessions (hash, key, form_token, expires) VALUES (?1, ?2, ?3, ?4)", values)
    })?;
    Ok(secret)
}

/// The session of a cookie's value.
pub fn session(database: &Database, secret: &str) -> rusqlite::Result<Option<Session>> {
    let query = "SELECT keys.id, keys.scope, keys.name, sessions.form_token FROM sessions JOIN keys ON keys.id = sessions.key \
                 WHERE sessions.hash = ?1 AND sessions.expires >= ?2 AND keys.revoked IS NULL";
    let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get::<_, String>(1)?, r.get(2)?, r.get(3)?));
    let found = database.read(|c| c.query_row(query, params![hash(secret), now()], row).optional())?;
    Ok(found.and_then(|(key, scope, name, form_token)| Some(Session { caller: Caller::new(key, Scope::named(&scope)?), name, form_token })))
}

/// Ends a session.
pub fn end_session(database: &Database, secret: &str) -> rusqlite::Result<()> {
    database.write(|t| t.execute("DELETE FROM sessions WHERE hash = ?1", [hash(secret)])).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_until_they_are_revoked_and_only_by_their_hash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("poa.db");
        let database = Database::open(&path).unwrap();
        let admin = make_first(&database).unwrap().unwrap();
        assert!(make_first(&database).unwrap().is_none());
        let user = make(&database, "a program", Scope::User).unwrap();
        let caller = find(&database, &user).unwrap().unwrap();
        assert_eq!((caller.scope, find(&database, &admin).unwrap().unwrap().scope), (Scope::User, Scope::Admin));
        let secret = start_session(&database, caller).unwrap();
        assert_eq!(session(&database, &secret).unwrap().unwrap().caller, caller);
        assert!(revoke(&database, caller.key).unwrap() && !revoke(&database, caller.key).unwrap());
        assert!(find(&database, &user).unwrap().is_none() && session(&database, &secret).unwrap().is_none());
        drop(database);
        let bytes = std::fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(holds("a program") && !holds(&admin) && !holds(&secret) && !holds(&user[PREFIX.len()..]));
    }

    /// A contributor's name is theirs, and is spelt as their samples' is.
    #[test]
    fn contributors_have_names_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("poa.db")).unwrap();
        let made = |name: &str, scope| make(&database, name, scope).map(|_| ());
        assert!(made("Zo\u{e9}", Scope::Contributor).is_ok() && made("Zo\u{e9}", Scope::User).is_ok());
        for wrong in ["Zo\u{e9}", "Zoe\u{301}", " mia", "\u{feff}"] {
            assert!(made(wrong, Scope::Contributor).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn others_requests_are_not_seen() {
        let user = Caller::new(2, Scope::User);
        assert!(user.sees(2) && !user.sees(1) && Caller::new(1, Scope::Admin).sees(2));
    }
}
