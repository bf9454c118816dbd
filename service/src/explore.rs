//! Finding what somebody has a hash, an id or a name of: only what the caller may see is found.

use crate::catalog::{Generation, Listed};
use crate::database::Database;
use crate::datanets;
use crate::error::ApiError;
use crate::keys::{Caller, Scope, Session};
use crate::requests::{self, Request};
use crate::server::Service;
use crate::trainings;
use circuits::statement::{Digest, Statement};
use rusqlite::{Row, params};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use steps::error::{Failure, While};
use utoipa::ToSchema;

/// Most characters of what is looked for.
const QUERY: usize = 200;
/// Fewest digits of a hash that are looked for.
const DIGITS: usize = 8;
/// Most finds of a kind.
const FOUND: usize = 20;

/// Something that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Find {
    /// `model`, `datanet`, `version`, `request`, `proof`, `settlement`, `training` or `contributor`.
    pub kind: &'static str,
    /// What it's called.
    pub title: String,
    /// What about it was found.
    pub what: &'static str,
    /// Its page.
    pub page: String,
    /// Its route of the API, where it has one.
    pub api: Option<String>,
}

/// A part of an address.
pub fn part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The page of a model.
pub fn model_page(id: &str) -> String {
    format!("/models/{}", part(id))
}

fn of_model(id: &str, what: &'static str) -> Find {
    Find { kind: "model", title: id.to_owned(), what, page: model_page(id), api: Some(format!("/v1/models/{}", part(id))) }
}

fn of_version(datanet: &str, version: i64, what: &'static str) -> Find {
    let path = format!("/datanets/{datanet}/versions/{version}");
    Find { kind: "version", title: format!("{datanet}, version {version}"), what, api: Some(format!("/v1{path}")), page: path }
}

fn of_request(id: &str, model: &str, what: &'static str) -> Find {
    let title = format!("answer of {model}, {}", id.get(..12).unwrap_or(id));
    Find { kind: "request", title, what, page: format!("/requests/{id}"), api: Some(format!("/v1/requests/{id}")) }
}

fn of_proof(id: &str, model: &str, what: &'static str) -> Find {
    let title = format!("proof of an answer of {model}, {}", id.get(..12).unwrap_or(id));
    Find { kind: "proof", title, what, page: format!("/proofs/{id}"), api: Some(format!("/v1/requests/{id}/proof")) }
}

fn of_settlement(id: &str, model: &str) -> Find {
    let title = format!("payment for an answer of {model}, {}", id.get(..12).unwrap_or(id));
    Find { kind: "settlement", title, what: "part of its steps", page: format!("/requests/{id}"), api: Some(format!("/v1/requests/{id}/settlement")) }
}

/// Digits of a hash as they are kept, where it's enough of one.
fn digits(query: &str) -> Option<String> {
    let digits = query.strip_prefix("0x").unwrap_or(query).to_ascii_lowercase();
    ((DIGITS..=64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

/// Which of a model's pins begins so.
fn pin(generation: &Generation, digits: &str) -> Option<&'static str> {
    let is = |pin: Option<Digest>| pin.is_some_and(|pin| pin.to_string().starts_with(digits));
    let Generation { base, adapter, index } = generation;
    [(Some(*base), "pin of its base"), (*adapter, "pin of its adapter"), (*index, "pin of its index")]
        .into_iter()
        .find(|(of, _)| is(*of))
        .map(|(_, what)| what)
}

/// Requests that a caller may see, by a condition on the first parameter.
fn requests_where(database: &Database, caller: Caller, digits: &str, condition: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let query = format!(
        "SELECT requests.id, requests.model FROM requests LEFT JOIN jobs ON jobs.kind = 'prove' AND jobs.subject = requests.id AND jobs.state = 'done' \
         WHERE ({condition}) AND (?2 OR requests.key = ?3) ORDER BY requests.created DESC, requests.rowid DESC LIMIT ?4"
    );
    let values = params![format!("{digits}*"), caller.scope == Scope::Admin, caller.key, FOUND as i64];
    let row = |r: &Row<'_>| Ok((r.get(0)?, r.get(1)?));
    database.read(|c| c.prepare(&query)?.query_map(values, row)?.collect())
}

/// Settlements of requests that a caller may see, one of whose steps has something that begins so: the chain's request id, a key, a file.
pub fn settlements(database: &Database, caller: Caller, digits: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let query = "SELECT DISTINCT requests.id, requests.model FROM settlement_steps JOIN requests ON requests.id = settlement_steps.request, \
                 json_each(settlement_steps.outcome) AS part WHERE part.key IN ('key_digest', 'request_id', 'transaction', 'statement', 'statement_digest', \
                 'inner_proof', 'outer_proof', 'key') AND (part.value GLOB ?1 || '*' OR part.value GLOB '0x' || ?1 || '*') AND (?2 OR requests.key = ?3) \
                 ORDER BY requests.created DESC, requests.rowid DESC LIMIT ?4";
    let values = params![digits, caller.scope == Scope::Admin, caller.key, FOUND as i64];
    let row = |r: &Row<'_>| Ok((r.get(0)?, r.get(1)?));
    database.read(|c| c.prepare(query)?.query_map(values, row)?.collect())
}

/// What begins with the digits of a hash.
fn by_hash(service: &Service, caller: Caller, digits: &str) -> Result<Vec<Find>, ApiError> {
    let database = &service.database;
    let mut found: Vec<Find> =
        service.catalog.all().iter().filter_map(|listed| Some(of_model(&listed.id, pin(&listed.generation, digits)?))).collect();
    let requests = |condition: &str| requests_where(database, caller, digits, condition);
    if found.is_empty() {
        // Of a model that isn't served any more, its answers are left.
        let pins = ["base", "adapter", "index"].map(|of| format!("json_extract(requests.generation, '$.{of}') GLOB ?1")).join(" OR ");
        found.extend(requests(&pins)?.iter().map(|(id, model)| of_request(id, model, "pin of the model that answered")));
    }
    found.extend(requests("requests.id GLOB ?1")?.iter().map(|(id, model)| of_request(id, model, "request id")));
    for (field, what) in
        [("statement_digest", "digest of its statement"), ("proof", "hash of its file"), ("statement", "hash of its statement's file")]
    {
        let of = requests(&format!("json_extract(jobs.result, '$.{field}') GLOB ?1"))?;
        found.extend(of.iter().map(|(id, model)| of_proof(id, model, what)));
    }
    found.extend(settlements(database, caller, digits)?.iter().map(|(id, model)| of_settlement(id, model)));
    for of in datanets::list(database)? {
        for version in datanets::versions(database, &of)? {
            if version.root.starts_with(digits) {
                found.push(of_version(&of.name, version.version, "root"));
            } else if of.is_read_by(caller) && version.file.starts_with(digits) {
                found.push(of_version(&of.name, version.version, "hash of its file"));
            }
        }
    }
    for training in trainings::list(database, caller)?.into_iter().filter(|t| t.id.starts_with(digits)) {
        let (page, api) = (format!("/trainings/{}", training.id), Some(format!("/v1/training-jobs/{}", training.id)));
        found.push(Find { kind: "training", title: training.model(), what: "id of its training", page, api });
    }
    Ok(found)
}

/// What has a name with these characters in it.
fn by_name(service: &Service, caller: Caller, query: &str) -> Result<Vec<Find>, ApiError> {
    let lower = query.to_lowercase();
    let has = |name: &str| name.to_lowercase().contains(&lower);
    let mut found: Vec<Find> = service.catalog.all().iter().filter(|m| has(&m.id)).take(FOUND).map(|m| of_model(&m.id, "name")).collect();
    let datanets = datanets::list(&service.database)?.into_iter().filter(|of| has(&of.name)).take(FOUND);
    found.extend(datanets.map(|of| {
        let path = format!("/datanets/{}", of.name);
        Find { kind: "datanet", title: of.name, what: "name", api: Some(format!("/v1{path}")), page: path }
    }));
    if caller.scope == Scope::Contributor {
        let own = crate::keys::name(&service.database, caller.key)?;
        if has(&own) {
            let path = format!("/contributors/{}", part(&own));
            found.push(Find { kind: "contributor", title: own, what: "name", api: Some(format!("/v1{path}")), page: path });
        }
    }
    Ok(found)
}

/// What a caller may see of what is looked for: by a hash, an id or its first eight digits, or by a part of a name.
///
/// # Errors
///
/// When nothing is looked for, or it's too long.
pub fn search(service: &Service, caller: Caller, query: &str) -> Result<Vec<Find>, ApiError> {
    let query = query.trim();
    if query.is_empty() || query.chars().count() > QUERY {
        return Err(ApiError::parameter("q", format!("q: expected 1 to {QUERY} characters of a hash, an id or a name")));
    }
    let mut found = by_name(service, caller, query)?;
    if let Some(digits) = digits(query) {
        found.extend(by_hash(service, caller, &digits)?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// A model, and what it was made of.
pub struct Model {
    /// As it's listed.
    pub listed: Listed,
    /// Its base's name, where it isn't one.
    pub base: Option<String>,
    /// Models that are adapters of it.
    pub adapters: Vec<String>,
    /// The datanet's version that it was trained on, where that was here.
    pub trained_on: Option<(String, i64)>,
    /// Its training, where the caller may see it.
    pub training: Option<String>,
    /// Its answers: an admin's count is everyone's, others' their own.
    pub answers: i64,
}

/// A model by name.
///
/// # Errors
///
/// When there is none.
pub fn model(service: &Service, caller: Caller, id: &str) -> Result<Model, ApiError> {
    let listed = service.catalog.listed(id)?;
    let training = trainings::of_model(&service.database, id)?;
    let query = "SELECT count(*) FROM requests WHERE model = ?1 AND generation = ?2 AND (?3 OR key = ?4)";
    let values = params![id, json!(listed.generation).to_string(), caller.scope == Scope::Admin, caller.key];
    let answers = service.database.read(|c| c.query_row(query, values, |r| r.get(0)))?;
    let prefix = format!("{id}+");
    Ok(Model {
        base: id.split_once('+').map(|(base, _)| base.to_owned()),
        adapters: service.catalog.all().into_iter().map(|m| m.id).filter(|other| other.starts_with(&prefix)).collect(),
        trained_on: training.as_ref().map(|t| (t.datanet.clone(), t.version)),
        training: training.filter(|t| caller.sees(t.key)).map(|t| t.id),
        answers,
        listed,
    })
}

/// A finished proof in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Proven {
    /// Of which request.
    pub request: String,
    /// Which model answered.
    pub model: String,
    /// Seconds since 1970, when it was asked for.
    pub created: i64,
    /// What the proof says.
    pub statement_digest: String,
    /// Composed security in bits.
    pub security_bits: f64,
    /// Bytes of the proof.
    pub proof_bytes: i64,
}

/// Finished proofs of requests that a caller may see, newest first.
pub fn proofs(database: &Database, caller: Caller, most: usize) -> rusqlite::Result<Vec<Proven>> {
    let query = "SELECT requests.id AS request, requests.model AS model, jobs.created AS created, json_extract(jobs.result, '$.statement_digest') AS digest, \
                 json_extract(jobs.result, '$.security_bits') AS bits, json_extract(jobs.result, '$.proof_bytes') AS bytes \
                 FROM jobs JOIN requests ON requests.id = jobs.subject WHERE jobs.kind = 'prove' AND jobs.state = 'done' AND (?1 OR requests.key = ?2) \
                 ORDER BY jobs.id DESC LIMIT ?3";
    let proven = |r: &Row<'_>| {
        Ok(Proven {
            request: r.get("request")?,
            model: r.get("model")?,
            created: r.get("created")?,
            statement_digest: r.get("digest")?,
            security_bits: r.get("bits")?,
            proof_bytes: r.get("bytes")?,
        })
    };
    let values = params![caller.scope == Scope::Admin, caller.key, most as i64];
    database.read(|c| c.prepare(query)?.query_map(values, proven)?.collect())
}

/// A finished proof's request, statement, and the statement's file.
///
/// # Errors
///
/// When the caller may not see it, or it isn't made yet.
pub fn proof(service: &Service, caller: Caller, id: &str) -> Result<(Request, Statement, String), ApiError> {
    let request = requests::find(&service.database, caller, id)?;
    let bytes = crate::api::file(service, caller, id, "statement")?;
    let raw = String::from_utf8(bytes).map_err(|_| Failure::input("the statement's file isn't text"))?;
    let statement: Statement = serde_json::from_str(&raw).during("reading the statement")?;
    Ok((request, statement, raw))
}

/// What everyone may look at first: models, and datanets with their newest versions.
pub struct Overview {
    /// Models by name.
    pub models: Vec<Listed>,
    /// Datanets with the number of their newest version.
    pub datanets: Vec<(String, Option<i64>)>,
    /// Finished proofs.
    pub proofs: Vec<Proven>,
    /// The caller's newest requests.
    pub requests: Vec<Request>,
}

/// What a caller may look at, a few of each.
pub fn overview(service: &Service, session: &Session) -> Result<Overview, ApiError> {
    let database = &service.database;
    let newest =
        |of: datanets::Datanet| -> rusqlite::Result<_> { Ok((of.name.clone(), datanets::versions(database, &of)?.first().map(|v| v.version))) };
    Ok(Overview {
        models: service.catalog.all().into_iter().take(FOUND).collect(),
        datanets: datanets::list(database)?.into_iter().take(FOUND).map(newest).collect::<Result<_, _>>()?,
        proofs: proofs(database, session.caller, FOUND)?,
        requests: requests::newest(database, session.caller, FOUND)?,
    })
}

/// Names of a statement's parts with their pins, and what each is.
pub fn pins(statement: &Statement) -> BTreeMap<&'static str, Digest> {
    let mut pins = BTreeMap::from([("base", statement.base)]);
    pins.extend(statement.adapter.map(|pin| ("adapter", pin)));
    pins.extend(statement.tables.map(|root| ("lookup tables", root)));
    pins.extend(statement.registration.map(|digest| ("registration", digest)));
    if let Some(index) = &statement.index {
        pins.extend([("index", index.commitment), ("datanet", index.datanet_root)]);
    }
    pins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_hashes_are_told_from_names() {
        for (query, expected) in [("DEADBEEF", Some("deadbeef")), ("0xdeadbeef00", Some("deadbeef00")), ("deadbee", None), ("demo+facts", None)] {
            assert_eq!(digits(query).as_deref(), expected, "{query}");
        }
        assert_eq!(digits(&"0".repeat(65)), None);
    }

    #[test]
    fn parts_of_addresses_are_escaped() {
        assert_eq!(part("demo+facts/../\"é"), "demo%2Bfacts%2F..%2F%22%C3%A9");
    }
}
