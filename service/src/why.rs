//! Why a contributor did or didn't earn in one answer: every sample of theirs, with what was decided about it.
//!
//! ```text
//!  score ──► relevance = max(0, score − floor) ──► share = relevance ÷ everyone's
//!            floor = half of the best score, the noise floor at least
//! ```
//!
//! Where the answer is proven, the contributor's weight and everyone's are read from the statement, and the samples must add up to them; what a
//! single sample adds isn't published by a proof. Nothing of what was asked or answered is told.

use crate::catalog::Served;
use crate::database::Database;
use crate::datanets::{self, Datanet, Version};
use crate::error::ApiError;
use crate::files::Files;
use crate::jobs;
use crate::keys::{self, Caller, Scope};
use crate::proofs::PROVE;
use crate::requests::{self, Request};
use crate::server::Service;
use crate::trainings;
use circuits::statement::{Digest, Statement};
use model_runtime::int::attribute::{Attribution, BPS};
use model_runtime::text::duplicates::{Canonical, canonical_rows};
use model_runtime::text::{Datanet as Samples, Sample as Text};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use steps::error::{Failure, While};
use steps::run;
use steps::shares::{contributor_weights, ranked};
use steps::store::IndexDir;
use steps::texts::sample_tokens;

/// Why somebody did or didn't earn in an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    /// Which request.
    pub request: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Which model answered.
    pub model: String,
    /// Which datanet's version the model was made with, where it's one of this service's.
    pub datanet: Option<OfDatanet>,
    /// Whose samples.
    pub contributor: String,
    /// Where weight and total are from.
    pub basis: Basis,
    /// The statement that publishes them, where the answer is proven.
    pub statement_digest: Option<Digest>,
    /// Sum of the contributor's relevances.
    pub weight: u64,
    /// Sum of everyone's.
    pub total: u64,
    /// The contributor's share in basis points, rounded down.
    pub bps: u32,
    /// What a score had to exceed.
    pub floor: Floor,
    /// The contributor's samples, the best first.
    pub samples: Vec<Told>,
}

/// Where numbers are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Of a statement that is proven.
    Proven,
    /// Computed, not proven yet.
    Computed,
}

/// A datanet's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfDatanet {
    /// The datanet.
    pub name: String,
    /// Which version of it.
    pub version: i64,
}

/// What a score had to exceed to be relevant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Floor {
    /// Half of the best score.
    pub score: i64,
    /// The best score, or twice the noise floor where no score reaches it.
    pub best: i64,
    /// The sample with the best score; none where the noise floor stands for it.
    pub set_by: Option<SetBy>,
}

/// The sample that set the floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetBy {
    /// Its number in the datanet's version.
    pub sample: usize,
    /// Whose it is.
    pub contributor: String,
}

/// What was decided about a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its score exceeds the floor.
    Relevant,
    /// Its score doesn't exceed the floor.
    BelowFloor,
    /// It copies an earlier sample: it has no score.
    Copy,
    /// Nothing of it can be scored.
    Empty,
    /// The version that the model was made with doesn't have it.
    NotInVersion,
}

/// A sample of the contributor's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// Its number, in the version that the model was made with, or else in the last one that has it.
    pub sample: usize,
    /// That version, where it isn't the one that the model was made with.
    pub version: Option<i64>,
    /// Which window of the sample this is, from 1, and of how many, where it was split.
    pub window: Option<(usize, usize)>,
    /// Its text, for its contributor and for those who may read the datanet.
    pub text: Option<String>,
    /// What was decided.
    pub verdict: Verdict,
    /// Its score, where it has one.
    pub score: Option<i32>,
    /// What of the score exceeds the floor.
    pub relevance: i64,
    /// Its part of everyone's relevance, in basis points, rounded down.
    pub bps: u32,
    /// What it copies.
    pub copy_of: Option<SetBy>,
    /// Whether it was taken back since.
    pub withdrawn: bool,
}

/// What a caller may ask about.
struct Allowed {
    /// The datanet's version that the model was made with.
    version: Option<(Datanet, Version)>,
    texts: bool,
}

/// The datanet and version that an index was made of, where it's one of this service's: the training's, or the one of that root.
fn version_of(database: &Database, model: &str, index: &IndexDir) -> Result<Option<(Datanet, Version)>, ApiError> {
    if let Some(training) = trainings::of_model(database, model)? {
        let of = datanets::by_id(database, training.datanet_id)?;
        let version = datanets::find_version(database, &of, training.version)?;
        return Ok(Some((of, version)));
    }
    let root = index.info.datanet_root.to_string();
    for of in datanets::list(database)? {
        if let Some(version) = datanets::versions(database, &of)?.into_iter().rfind(|v| v.root == root) {
            return Ok(Some((of, version)));
        }
    }
    Ok(None)
}

/// A contributor's samples by text, in every version of a datanet: the number in the last version that has each, and that version.
fn everywhere(database: &Database, files: &Files, of: &Datanet, name: &str) -> Result<BTreeMap<String, (i64, usize)>, ApiError> {
    let mut found = BTreeMap::new();
    for version in datanets::versions(database, of)?.iter().rev() {
        let own = datanets::samples(files, version)?.samples.into_iter().enumerate().filter(|(_, s)| s.contributor == name);
        found.extend(own.map(|(i, s)| (s.text, (version.version, i))));
    }
    Ok(found)
}

/// Whether a caller may ask why a contributor earned in a request; who may not is told that there is no such request.
fn allowed(service: &Service, caller: Caller, request: &Request, index: Option<&IndexDir>, name: &str) -> Result<Allowed, ApiError> {
    let database = &service.database;
    let missing = || ApiError::not_found("request");
    let Some(index) = index else {
        let sees = caller.sees(request.key);
        return Err(if sees { ApiError::conflict(format!("{} has no index: nothing can be attributed", request.model)) } else { missing() });
    };
    let version = version_of(database, &request.model, index)?;
    let reads = version.as_ref().is_some_and(|(of, _)| of.is_read_by(caller));
    let own = caller.scope == Scope::Contributor && keys::name(database, caller.key)? == name;
    let holds = || -> Result<bool, ApiError> {
        if index.info.rows.iter().any(|row| row.contributor == name) {
            return Ok(true);
        }
        let Some((of, _)) = &version else { return Ok(false) };
        Ok(!everywhere(database, &service.files, of, name)?.is_empty())
    };
    let may = caller.sees(request.key) || (caller.owns() && reads) || (own && holds()?);
    if !may {
        return Err(missing());
    }
    Ok(Allowed { texts: own || reads || service.show_samples || caller.scope == Scope::Admin, version })
}

/// What a statement says of a contributor in a request: its digest, their weight and everyone's.
fn stated(service: &Service, request: &Request, name: &str) -> Result<Option<(Digest, u64, u64)>, ApiError> {
    let Some(result) = jobs::find(&service.database, PROVE, &request.id)?.and_then(|job| job.result) else { return Ok(None) };
    let Some(file) = result["statement"].as_str() else { return Ok(None) };
    let read = || serde_json::from_slice::<Statement>(&service.files.get(file)?).during("reading the statement");
    let statement = read()?;
    let of = statement.requests.iter().find(|r| r.id.to_string() == request.id);
    let of = of.ok_or_else(|| Failure::input("the statement is of another request"))?;
    let contributors = statement.index.as_ref().map(|index| index.contributors.as_slice()).unwrap_or_default();
    let weight = contributors.iter().position(|c| c == name).and_then(|i| of.weights.get(i)).copied().unwrap_or(0);
    Ok(Some((statement.digest(), weight, of.total)))
}

/// Rows that copy an earlier one, by row; slow, so only where there is a row without a score.
fn copies(served: &Served, index: &IndexDir) -> Result<Vec<Canonical>, Failure> {
    let samples: Vec<Text> = index.info.rows.iter().map(|row| Text { contributor: row.contributor.clone(), text: row.text.clone() }).collect();
    let samples = Samples { samples };
    let tokens = sample_tokens(&served.model().tokenizer, &samples, index.info.max_tokens)?;
    Ok(canonical_rows(samples.canonical(), &tokens))
}

fn sample_of(index: &IndexDir, row: usize) -> usize {
    index.info.sample_of_row.get(row).copied().unwrap_or(row)
}

fn named(index: &IndexDir, row: usize) -> SetBy {
    SetBy { sample: sample_of(index, row), contributor: index.info.rows[row].contributor.clone() }
}

fn bps(part: i64, total: u64) -> u32 {
    (u128::from(part.unsigned_abs()) * BPS / u128::from(total.max(1))) as u32
}

/// What was decided about every row of a contributor's.
fn told(served: &Served, index: &IndexDir, attribution: &Attribution, name: &str) -> Result<Vec<Told>, Failure> {
    let live = index.index.tensors.get("G.live").map(|t| t.data.as_slice()).unwrap_or_default();
    let own: Vec<usize> = (0..index.info.rows.len()).filter(|&i| index.info.rows[i].contributor == name).collect();
    let scored = |row: usize| live.get(row).is_none_or(|&live| live != 0);
    let copies = if own.iter().all(|&row| scored(row)) { vec![] } else { copies(served, index)? };
    let total: u64 = attribution.weights.values().sum();
    let windows = |row: usize| {
        let sample = sample_of(index, row);
        let rows: Vec<usize> = own.iter().copied().filter(|&other| sample_of(index, other) == sample).collect();
        (rows.len() > 1).then(|| (rows.iter().take_while(|&&other| other <= row).count(), rows.len()))
    };
    let one = |&row: &usize| {
        let relevance = attribution.rel[row];
        let copy_of = copies.get(row).and_then(|verdict| match verdict {
            Canonical::Copy { of, .. } if !scored(row) => Some(named(index, *of)),
            _ => None,
        });
        let verdict = match (scored(row), &copy_of) {
            (true, _) if relevance > 0 => Verdict::Relevant,
            (true, _) => Verdict::BelowFloor,
            (false, Some(_)) => Verdict::Copy,
            (false, None) => Verdict::Empty,
        };
        Told {
            sample: sample_of(index, row),
            version: None,
            window: windows(row),
            text: Some(index.info.rows[row].text.clone()),
            verdict,
            score: scored(row).then(|| attribution.scores[row]),
            relevance,
            bps: bps(relevance, total),
            copy_of,
            withdrawn: false,
        }
    };
    Ok(own.iter().map(one).collect())
}

fn floor(index: &IndexDir, attribution: &Attribution) -> Floor {
    let first = ranked(&attribution.scores, &index.info.rows).into_iter().next();
    let set_by = first.filter(|(_, score)| i64::from(*score) == attribution.best).map(|(row, _)| named(index, row));
    Floor { score: attribution.best / 2, best: attribution.best, set_by }
}

/// Marks what was taken back since, and adds what the model's version doesn't have.
fn with_versions(service: &Service, of: &Datanet, version: &Version, name: &str, told: &mut Vec<Told>) -> Result<(), ApiError> {
    let (database, files) = (&service.database, &service.files);
    let taken_back = datanets::taken_back(database, of)?;
    let gone = |text: &str| taken_back.contains(&datanets::digest(&Text { contributor: name.to_owned(), text: text.to_owned() }));
    let here: BTreeMap<usize, String> =
        datanets::samples(files, version)?.samples.into_iter().enumerate().filter(|(_, s)| s.contributor == name).map(|(i, s)| (i, s.text)).collect();
    for one in told.iter_mut() {
        one.withdrawn = here.get(&one.sample).is_some_and(|text| gone(text));
    }
    let present: HashSet<&String> = here.values().collect();
    let elsewhere = everywhere(database, files, of, name)?.into_iter().filter(|(text, _)| !present.contains(text));
    told.extend(elsewhere.map(|(text, (version, sample))| Told {
        sample,
        version: Some(version),
        window: None,
        withdrawn: gone(&text),
        text: Some(text),
        verdict: Verdict::NotInVersion,
        score: None,
        relevance: 0,
        bps: 0,
        copy_of: None,
    }));
    Ok(())
}

fn explained(service: &Service, caller: Caller, served: &Served, request: &Request, name: &str) -> Result<Why, ApiError> {
    let Allowed { version, texts } = allowed(service, caller, request, served.index(), name)?;
    let index = served.index().ok_or_else(|| ApiError::not_found("request"))?;
    let info = request.run(served)?;
    let mut trace = run::trace_alone(served.runtime(), &info)?;
    let attribution = run::attribute(index, &mut trace)?;
    let (weights, number) = (contributor_weights(&attribution, index), index.info.contributors.iter().position(|c| c == name));
    let computed: (u64, u64) = (number.map_or(0, |i| weights[i]), weights.iter().sum());
    let mut samples = told(served, index, &attribution, name)?;
    // Who may read neither the datanet nor these samples learns nothing of its other versions.
    if let Some((of, version)) = version.as_ref().filter(|_| texts) {
        with_versions(service, of, version, name, &mut samples)?;
    }
    if samples.is_empty() {
        return Err(ApiError::not_found("contributor to this model or its datanet"));
    }
    samples.sort_by_key(|s| (s.verdict == Verdict::NotInVersion, std::cmp::Reverse(s.score), s.sample, s.window));
    if !texts {
        samples.iter_mut().for_each(|s| s.text = None);
    }
    let stated = stated(service, request, name)?;
    if let Some((_, weight, total)) = stated
        && (weight, total) != computed
    {
        let message = format!("the statement says {weight} of {total} for {name}, their samples add up to {} of {}", computed.0, computed.1);
        return Err(Failure::input(message).into());
    }
    let (weight, total) = computed;
    Ok(Why {
        request: request.id.clone(),
        created: request.created,
        model: request.model.clone(),
        datanet: version.map(|(of, version)| OfDatanet { name: of.name, version: version.version }),
        contributor: name.to_owned(),
        basis: if stated.is_some() { Basis::Proven } else { Basis::Computed },
        statement_digest: stated.map(|(digest, ..)| digest),
        weight,
        total,
        bps: bps(weight as i64, total),
        floor: floor(index, &attribution),
        samples,
    })
}

/// Why a contributor did or didn't earn in an answer: for who asked and admins, for the contributor where the model's datanet has samples of
/// theirs, and for owners where they may read it.
///
/// # Errors
///
/// When the caller may not ask, nobody of that name has samples there, or the model is another by now.
pub async fn why(service: &Arc<Service>, caller: Caller, id: &str, name: &str) -> Result<Why, ApiError> {
    let missing = || ApiError::not_found("request");
    let request = requests::any(&service.database, id)?.ok_or_else(missing)?;
    let sees = caller.sees(request.key);
    if !sees && !caller.contributes() {
        return Err(missing());
    }
    let served = match crate::openai::model(service, &request.model).await {
        Ok(served) => served,
        Err(error) if sees => return Err(error),
        Err(_) => return Err(missing()),
    };
    let permit = service.permit().await?;
    let (of, name) = (service.clone(), name.to_owned());
    let work = move || {
        let _permit = permit;
        explained(&of, caller, &served, &request, &name)
    };
    tokio::task::spawn_blocking(work).await?
}
