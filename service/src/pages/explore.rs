//! The explorer: models, proofs, and looking for anything by a hash, an id or a name; why somebody earned or didn't.

use super::{PageError, Shared, Token, moment, page};
use crate::api::{model_json, reads};
use crate::error::ApiError;
use crate::explore::{self, Find, Overview};
use crate::jobs::Job;
use crate::keys::{Caller, Session};
use crate::registrations;
use crate::server::Service;
use crate::shapes::List;
use crate::why::{Basis, Told, Verdict, Why, why};
use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use circuits::statement::Statement;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The pages.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/explore", get(explore_page))
        .route("/models/{id}", get(model_page))
        .route("/models/{id}/registration", post(register))
        .route("/models/{id}/registration.zip", get(registration_files))
        .route("/proofs/{id}", get(proof_page))
        .route("/requests/{id}/why", get(why_page))
}

/// The API's routes.
pub fn api_routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(search)).routes(routes!(proofs)).routes(routes!(why_route))
}

#[derive(Deserialize)]
struct Asked {
    q: Option<String>,
}

#[derive(Template)]
#[template(path = "explore.html")]
struct ExplorePage {
    session: Session,
    query: String,
    found: Option<Vec<Find>>,
    overview: Overview,
}

/// One find is gone to at once.
async fn explore_page(State(service): Shared, session: Session, Query(asked): Query<Asked>) -> Result<Response, PageError> {
    let query = asked.q.unwrap_or_default().trim().to_owned();
    let found = if query.is_empty() { None } else { Some(explore::search(&service, session.caller, &query)?) };
    if let Some([only]) = found.as_deref() {
        return Ok(Redirect::to(&only.page).into_response());
    }
    let overview = explore::overview(&service, &session)?;
    Ok(page(&ExplorePage { session, query, found, overview }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Searched {
    q: String,
}

/// What has a hash, an id or a name, as far as the caller may see it.
#[utoipa::path(
    get,
    path = "/v1/search",
    tag = "explorer",
    operation_id = "search",
    params(("q" = String, Query, description = "eight digits of a hash at least, an id, or a part of a name")),
    responses((status = 200, description = "what was found", body = List<Find>))
)]
async fn search(
    State(service): Shared,
    caller: Caller,
    query: Result<Query<Searched>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(Searched { q }) = query.map_err(|e| ApiError::parameter("q", e.body_text()))?;
    Ok(Json(json!({ "object": "list", "data": explore::search(&service, caller, &q)? })).into_response())
}

/// Finished proofs that the caller may see.
#[utoipa::path(
    get,
    path = "/v1/proofs",
    tag = "explorer",
    operation_id = "list_proofs",
    responses((status = 200, description = "newest first, at most a hundred", body = List<explore::Proven>))
)]
async fn proofs(State(service): Shared, caller: Caller) -> Result<Response, ApiError> {
    Ok(Json(json!({ "object": "list", "data": explore::proofs(&service.database, caller, 100)? })).into_response())
}

#[derive(Template)]
#[template(path = "model.html")]
struct ModelPage {
    session: Session,
    model: explore::Model,
    /// Its index: samples, contributors, the datanet's root.
    index: Option<(usize, usize, String)>,
    registration: Registration,
    problem: Option<String>,
    everyone: bool,
    json: String,
}

/// How far the registration of a model's index is.
struct Registration {
    job: Option<Job>,
    /// Whether the reader may have it made, now.
    may: bool,
    /// Whether the reader may read its files.
    reads: bool,
}

impl Registration {
    fn of(service: &Service, caller: Caller, model: &explore::Model) -> Result<Self, ApiError> {
        let (database, id) = (&service.database, &model.listed.id);
        let job = model.listed.generation.index.map(|index| registrations::find(database, index)).transpose()?.flatten();
        let again = job.as_ref().is_none_or(|job| job.is_over() && job.state != "done");
        let may = again && registrations::check_owner(service, caller, id).is_ok();
        Ok(Self { job, may, reads: reads(service, caller, id)? })
    }

    fn waits(&self) -> bool {
        self.job.as_ref().is_some_and(|job| !job.is_over())
    }
}

async fn register(State(service): Shared, session: Session, Path(id): Path<String>, Form(form): Form<Token>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    registrations::enqueue(&service, session.caller, &id)?;
    Ok(Redirect::to(&explore::model_page(&id)).into_response())
}

async fn registration_files(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    Ok(registrations::files(&service, session.caller, &id).await?)
}

async fn model_page(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    let model = explore::model(&service, session.caller, &id)?;
    let (index, problem) = match crate::openai::model(&service, &id).await {
        Ok(served) => {
            let index = served.index().map(|index| &index.info);
            (index.map(|info| (info.rows.len(), info.contributors.len(), info.datanet_root.to_string())), None)
        }
        Err(error) => (None, Some(error.message)),
    };
    let json = serde_json::to_string_pretty(&model_json(&model.listed)).unwrap_or_default();
    let registration = Registration::of(&service, session.caller, &model)?;
    let everyone = session.caller.scope == crate::keys::Scope::Admin;
    Ok(page(&ModelPage { session, model, index, registration, problem, everyone, json }))
}

/// A contributor's part of what is proven.
struct Slice {
    contributor: String,
    weight: u64,
    percent: String,
}

#[derive(Template)]
#[template(path = "proof.html")]
struct ProofPage {
    session: Session,
    id: String,
    model: String,
    statement: Statement,
    digest: String,
    relation: String,
    profile: &'static str,
    pins: Vec<(&'static str, String)>,
    shares: Vec<Slice>,
    figures: Option<String>,
    raw: String,
}

async fn proof_page(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    let (request, statement, raw) = explore::proof(&service, session.caller, &id)?;
    let job = crate::jobs::find(&service.database, crate::proofs::PROVE, &id)?;
    let contributors = statement.index.as_ref().map(|index| index.contributors.as_slice()).unwrap_or_default();
    let of = statement.requests.iter().find(|of| of.id.to_string() == id);
    let mut shares: Vec<Slice> = of.map_or_else(Vec::new, |of| {
        let slice =
            |((contributor, weight), bps): ((&String, &u64), u32)| Slice { contributor: contributor.clone(), weight: *weight, percent: percent(bps) };
        contributors.iter().zip(&of.weights).zip(of.basis_points()).map(slice).collect()
    });
    shares.retain(|share| share.weight > 0);
    shares.sort_by_key(|share| std::cmp::Reverse(share.weight));
    Ok(page(&ProofPage {
        session,
        id,
        model: request.model,
        digest: statement.digest().to_string(),
        relation: statement.relation.digest().to_string(),
        profile: match statement.profile {
            circuits::statement::Profile::Native => "native",
            circuits::statement::Profile::Evm => "evm",
        },
        pins: explore::pins(&statement).into_iter().map(|(name, pin)| (name, pin.to_string())).collect(),
        shares,
        figures: job.as_ref().and_then(super::figures),
        statement,
        raw,
    }))
}

/// Basis points as a percentage.
fn percent(bps: u32) -> String {
    format!("{:.2}", f64::from(bps) / 100.0)
}

/// A sample with what is said of it.
struct Line {
    told: Told,
    said: String,
}

/// What was decided about a sample, in words.
fn said(told: &Told, why: &Why) -> String {
    let floor = why.floor.score;
    match (told.verdict, told.score, &told.copy_of) {
        (Verdict::Relevant, Some(score), _) => {
            format!(
                "Earned: its score {score} exceeds the floor of {floor} by {}, {} % of what everyone's samples add up to.",
                told.relevance,
                percent(told.bps)
            )
        }
        (Verdict::BelowFloor, Some(score), _) => format!("Didn't earn: its score {score} doesn't exceed the floor of {floor}."),
        (Verdict::Copy, _, Some(of)) => {
            format!(
                "Can't earn: it copies, or nearly so, sample {} of {}, which came earlier; its row in the model's index is zero.",
                of.sample, of.contributor
            )
        }
        (Verdict::NotInVersion, ..) => {
            let version = why.datanet.as_ref().map_or_else(String::new, |of| format!(", version {} of {},", of.version, of.name));
            format!("Couldn't earn: what the model was made with{version} doesn't have it.")
        }
        _ => "Can't earn: nothing of it could be scored; its row in the model's index is zero.".to_owned(),
    }
}

#[derive(Template)]
#[template(path = "why.html")]
struct WhyPage {
    session: Session,
    /// Whether the request's page is the reader's to see.
    sees: bool,
    when: String,
    proven: bool,
    percent: String,
    lines: Vec<Line>,
    why: Why,
}

#[derive(Deserialize)]
struct Whose {
    contributor: String,
}

async fn why_page(State(service): Shared, session: Session, Path(id): Path<String>, Query(whose): Query<Whose>) -> Result<Response, PageError> {
    let why = why(&service, session.caller, &id, whose.contributor.trim()).await?;
    let sees = crate::requests::find(&service.database, session.caller, &id).is_ok();
    let lines = why.samples.iter().map(|told| Line { said: said(told, &why), told: told.clone() }).collect();
    let (when, percent, proven) = (moment(why.created), percent(why.bps), why.basis == Basis::Proven);
    Ok(page(&WhyPage { session, sees, when, proven, percent, lines, why }))
}

/// Why a contributor did or didn't earn in an answer.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}/attribution/{contributor}",
    tag = "requests",
    operation_id = "why",
    params(("id" = String, Path, description = "a request"), ("contributor" = String, Path, description = "a contributor's name")),
    responses((status = 200, description = "sample by sample, what was decided", body = serde_json::Value))
)]
async fn why_route(State(service): Shared, caller: Caller, Path((id, contributor)): Path<(String, String)>) -> Result<Response, ApiError> {
    Ok(Json(why(&service, caller, &id, &contributor).await?).into_response())
}
