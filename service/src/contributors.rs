//! What became of a contributor's samples: taken in, in which versions, in which models, attributed in how many answers.

use crate::attributions::Attributed;
use crate::database::Database;
use crate::datanets::{self, Datanet};
use crate::error::ApiError;
use crate::files::Files;
use crate::keys::{self, Caller, Scope};
use crate::{settlements, trainings};
use alloy::primitives::U256;
use rusqlite::Row;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A sample's way.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Contribution {
    /// In which datanet.
    pub datanet: String,
    /// Its text.
    pub text: String,
    /// The first version that has it.
    pub since: i64,
    /// The last one that has it, where later ones don't.
    pub until: Option<i64>,
    /// Its number in the last version that has it.
    pub sample: usize,
    /// Models trained on versions that have it.
    pub models: BTreeSet<String>,
    /// Answers in which it was relevant, among the samples that were told.
    pub answers: usize,
}

/// An answer that was attributed, and a contributor's share of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Credit {
    /// The request, to ask why.
    pub request: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Which model answered.
    pub model: String,
    /// The share, in basis points.
    pub bps: u32,
    /// What the share was credited with on the chain, in wei, once the answer was paid for.
    pub paid: Option<String>,
}

/// A contributor's account.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Account {
    /// Who.
    pub name: String,
    /// Samples, by datanet in their versions' order.
    pub contributions: Vec<Contribution>,
    /// Answers with a share, newest first.
    pub credits: Vec<Credit>,
    /// Answers without one, of models trained on datanets that have samples of theirs, newest first.
    pub without: Vec<Credit>,
    /// Answers that were attributed, with a share or without.
    pub attributed: usize,
}

impl Account {
    /// All that was credited on the chain, in wei.
    pub fn paid(&self) -> U256 {
        self.credits.iter().filter_map(|credit| credit.paid.as_ref()?.parse::<U256>().ok()).fold(U256::ZERO, U256::saturating_add)
    }

    /// All shares together, in answers.
    pub fn total(&self) -> f64 {
        self.credits.iter().map(|credit| f64::from(credit.bps)).sum::<f64>() / 10_000.0
    }
}

/// An attributed request.
struct Found {
    request: String,
    created: i64,
    model: String,
    attributed: Attributed,
}

/// Every attributed request, newest first.
fn attributed(database: &Database) -> rusqlite::Result<Vec<Found>> {
    let query = "SELECT id, created, model, attribution FROM requests WHERE attribution IS NOT NULL ORDER BY created DESC, rowid DESC";
    let found = |r: &Row<'_>| {
        let attributed = serde_json::from_str(&r.get::<_, String>("attribution")?).ok();
        let (request, created, model) = (r.get("id")?, r.get("created")?, r.get("model")?);
        Ok(attributed.map(|attributed| Found { request, created, model, attributed }))
    };
    let rows: Vec<Option<Found>> = database.read(|c| c.prepare(query)?.query_map([], found)?.collect::<Result<_, _>>())?;
    Ok(rows.into_iter().flatten().collect())
}

/// A contributor's samples of a datanet.
struct OfDatanet {
    /// By text.
    samples: BTreeMap<String, Contribution>,
    /// Texts by version and number.
    numbers: BTreeMap<(i64, usize), String>,
}

fn of_datanet(database: &Database, files: &Files, of: &Datanet, name: &str) -> Result<OfDatanet, ApiError> {
    let mut numbers = BTreeMap::new();
    let mut found: BTreeMap<String, Contribution> = BTreeMap::new();
    let (versions, models) = (datanets::versions(database, of)?, trainings::models_of(database, of.id)?);
    let newest = versions.first().map_or(0, |v| v.version);
    for version in versions.iter().rev() {
        for (sample, own) in datanets::samples(files, version)?.samples.into_iter().enumerate().filter(|(_, s)| s.contributor == name) {
            numbers.insert((version.version, sample), own.text.clone());
            let fresh = || Contribution {
                datanet: of.name.clone(),
                text: own.text.clone(),
                since: version.version,
                until: None,
                sample,
                models: BTreeSet::new(),
                answers: 0,
            };
            let contribution = found.entry(own.text.clone()).or_insert_with(fresh);
            (contribution.sample, contribution.until) = (sample, (version.version < newest).then_some(version.version));
            contribution.models.extend(models.iter().filter(|(_, trained)| *trained == version.version).map(|(model, _)| model.clone()));
        }
    }
    Ok(OfDatanet { samples: found, numbers })
}

/// What became of a contributor's samples.
///
/// # Errors
///
/// When the caller is neither they nor keeps datanets.
pub fn account(database: &Database, files: &Files, caller: Caller, name: &str) -> Result<Account, ApiError> {
    let own = caller.scope == Scope::Contributor && keys::name(database, caller.key)? == name;
    if !own && !caller.owns() {
        return Err(ApiError::forbidden("a contributor's account is shown to them, and to who keeps a datanet"));
    }
    let found = attributed(database)?;
    let (mut contributions, mut concerned) = (Vec::new(), BTreeSet::new());
    for of in datanets::list(database)? {
        // Others' datanets are others'.
        if own || of.is_read_by(caller) {
            let OfDatanet { mut samples, numbers } = of_datanet(database, files, &of, name)?;
            let models: BTreeMap<String, i64> = trainings::models_of(database, of.id)?.into_iter().collect();
            for (version, a) in found.iter().filter_map(|f| Some((models.get(&f.model)?, &f.attributed))) {
                // Several windows of a sample are one sample.
                let relevant = a.samples.iter().filter(|told| told.contributor == name && told.relevance > 0);
                let texts: BTreeSet<&String> = relevant.filter_map(|told| numbers.get(&(*version, told.sample))).collect();
                for text in texts {
                    samples.entry(text.clone()).and_modify(|c| c.answers += 1);
                }
            }
            if !samples.is_empty() {
                concerned.extend(models.into_keys());
            }
            contributions.extend(samples.into_values());
        }
    }
    contributions.sort_by_key(|c| (c.datanet.clone(), c.since, c.sample));
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    for Found { model, .. } in &found {
        if !seen.contains_key(model) {
            let of = trainings::datanet_of(database, model)?.map(|id| datanets::by_id(database, id)).transpose()?;
            seen.insert(model.clone(), own || of.map_or(caller.scope == Scope::Admin, |of| of.is_read_by(caller)));
        }
    }
    let found: Vec<Found> = found.into_iter().filter(|f| seen[&f.model]).collect();
    let attributed = found.len();
    let paid = settlements::credited(database, name)?;
    let credit = |f: Found| {
        let bps = f.attributed.weights.iter().find(|share| share.contributor == name).map_or(0, |share| share.bps);
        let paid = paid.get(&f.request).cloned();
        Credit { request: f.request, created: f.created, model: f.model, bps, paid }
    };
    let (credits, without): (Vec<Credit>, Vec<Credit>) = found.into_iter().map(credit).partition(|credit| credit.bps > 0);
    let without = without.into_iter().filter(|credit| concerned.contains(&credit.model)).collect();
    Ok(Account { name: name.to_owned(), contributions, credits, without, attributed })
}
