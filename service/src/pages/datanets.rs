//! Pages about datanets and contributors: submit, decide, publish, take back, see what became of samples.

use super::settlements::ether;
use super::{PageError, Shared, Token, moment, page};
use crate::contributors::{Account, Credit};
use crate::datanet_api::{UPLOAD, account, published, taken_back, uploaded};
use crate::datanets::{self, Datanet, Submission, Version};
use crate::error::ApiError;
use crate::keys::{self, Scope, Session};
use crate::server::Service;
use crate::trainings;
use crate::uploads::Report;
use askama::Template;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Form, Multipart, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use model_runtime::text::Sample;
use serde::Deserialize;
use std::sync::Arc;

/// Samples that a page shows.
const SHOWN: usize = 200;

/// The routes.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/datanets", get(list).post(create))
        .route("/datanets/{name}", get(one))
        .route("/datanets/{name}/submissions", post(submit).layer(DefaultBodyLimit::max(UPLOAD)))
        .route("/datanets/{name}/submissions/{id}", post(decide))
        .route("/datanets/{name}/versions", post(publish))
        .route("/datanets/{name}/versions/{version}", get(version))
        .route("/datanets/{name}/versions/{version}/withdrawals", post(withdraw))
        .route("/contributors/{name}", get(contributor))
}

#[derive(Template)]
#[template(path = "datanets.html")]
struct ListPage {
    session: Session,
    datanets: Vec<Datanet>,
}

async fn list(State(service): Shared, session: Session) -> Result<Response, PageError> {
    Ok(page(&ListPage { datanets: datanets::list(&service.database)?, session }))
}

#[derive(Deserialize)]
struct Created {
    form_token: String,
    name: String,
    licence: String,
    public: Option<String>,
}

async fn create(State(service): Shared, session: Session, Form(form): Form<Created>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    let made = datanets::create(&service.database, session.caller, form.name.trim(), form.licence.trim(), form.public.is_some())?;
    Ok(Redirect::to(&format!("/datanets/{}", made.name)).into_response())
}

struct Submitted {
    of: Submission,
    by: String,
    when: String,
}

#[derive(Template)]
#[template(path = "datanet.html")]
struct DatanetPage {
    session: Session,
    datanet: Datanet,
    owner: String,
    keeps: bool,
    reads: bool,
    /// Under whose name lines are taken in.
    own: Option<String>,
    submissions: Vec<Submitted>,
    versions: Vec<Version>,
    models: Vec<(String, i64)>,
}

async fn one(State(service): Shared, session: Session, Path(name): Path<String>) -> Result<Response, PageError> {
    let (database, caller) = (&service.database, session.caller);
    let datanet = datanets::find(database, &name)?;
    let by = |of: Submission| -> Result<Submitted, PageError> { Ok(Submitted { by: keys::name(database, of.key)?, when: moment(of.created), of }) };
    let submissions = datanets::submissions(database, caller, &datanet)?.into_iter().map(by).collect::<Result<_, _>>()?;
    let (versions, models) = (datanets::versions(database, &datanet)?, trainings::models_of(database, datanet.id)?);
    let own = (caller.scope == Scope::Contributor).then(|| keys::name(database, caller.key)).transpose()?;
    let (owner, keeps, reads) = (keys::name(database, datanet.owner)?, datanet.is_kept_by(caller), datanet.is_read_by(caller));
    Ok(page(&DatanetPage { session, datanet, owner, keeps, reads, own, submissions, versions, models }))
}

/// What a form with a file says.
#[derive(Default)]
struct Sent {
    form_token: String,
    filename: String,
    bytes: Bytes,
    lines: String,
    preview: bool,
}

async fn sent(mut form: Multipart) -> Result<Sent, PageError> {
    let mut sent = Sent::default();
    let broken = |e: axum::extract::multipart::MultipartError| ApiError::invalid(format!("the form can't be read: {}", e.body_text()));
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name().unwrap_or_default() {
            "form_token" => sent.form_token = field.text().await.map_err(broken)?,
            "file" => {
                sent.filename = field.file_name().unwrap_or_default().to_owned();
                sent.bytes = field.bytes().await.map_err(broken)?;
            }
            "lines" => sent.lines = field.text().await.map_err(broken)?,
            "preview" => sent.preview = true,
            "submit" => {}
            other => return Err(ApiError::parameter(other, format!("{other} isn't a field of this form")).into()),
        }
    }
    Ok(sent)
}

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage {
    session: Session,
    name: String,
    filename: String,
    report: Report,
}

async fn submit(State(service): Shared, session: Session, Path(name): Path<String>, form: Multipart) -> Result<Response, PageError> {
    if !session.caller.contributes() {
        return Err(ApiError::forbidden("this needs a contributor's, an owner's or an admin's key").into());
    }
    let Sent { form_token, mut filename, mut bytes, lines, preview } = sent(form).await?;
    session.check(&form_token)?;
    if filename.is_empty() {
        (filename, bytes) = ("lines.txt".into(), lines.into());
    }
    let value = uploaded(&service, session.caller, name.clone(), filename.clone(), bytes, !preview).await?;
    if !preview {
        return Ok(Redirect::to(&format!("/datanets/{name}")).into_response());
    }
    let report = serde_json::from_value(value).map_err(|e| ApiError::invalid(format!("the report can't be read: {e}")))?;
    Ok(page(&ReportPage { session, name, filename, report }))
}

#[derive(Deserialize)]
struct Decided {
    form_token: String,
    decision: String,
    #[serde(default)]
    reason: String,
}

async fn decide(
    State(service): Shared,
    session: Session,
    Path((name, id)): Path<(String, i64)>,
    Form(form): Form<Decided>,
) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    let of = datanets::find(&service.database, &name)?;
    let rejected = match form.decision.as_str() {
        "approve" => None,
        "reject" => Some(form.reason.as_str()),
        _ => return Err(ApiError::parameter("decision", "expected approve or reject").into()),
    };
    datanets::decide(&service.database, session.caller, &of, id, rejected)?;
    Ok(Redirect::to(&format!("/datanets/{name}")).into_response())
}

async fn publish(State(service): Shared, session: Session, Path(name): Path<String>, Form(form): Form<Token>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    published(&service, session.caller, name.clone()).await?;
    Ok(Redirect::to(&format!("/datanets/{name}")).into_response())
}

#[derive(Template)]
#[template(path = "version.html")]
struct VersionPage {
    session: Session,
    name: String,
    version: Version,
    /// With whether the caller may take each back.
    samples: Vec<(usize, Sample, bool)>,
    more: usize,
}

async fn version(State(service): Shared, session: Session, Path((name, number)): Path<(String, i64)>) -> Result<Response, PageError> {
    let caller = session.caller;
    let of = datanets::find(&service.database, &name)?;
    let version = datanets::find_version(&service.database, &of, number)?;
    let (reads, keeps) = (of.is_read_by(caller), of.is_kept_by(caller));
    let own = (caller.scope == Scope::Contributor).then(|| keys::name(&service.database, caller.key)).transpose()?;
    let all = match reads || own.is_some() {
        true => {
            let version = version.clone();
            service.reading(move |service| Ok(datanets::samples(&service.files, &version)?.samples)).await?
        }
        false => vec![],
    };
    // Who may not read all may read their own.
    let mut samples = all.into_iter().enumerate().filter(|(_, s)| reads || own.as_ref() == Some(&s.contributor));
    let shown = samples.by_ref().take(SHOWN).map(|(i, s)| {
        let takes_back = keeps || own.as_ref() == Some(&s.contributor);
        (i, s, takes_back)
    });
    let shown = shown.collect();
    let more = samples.count();
    Ok(page(&VersionPage { session, name, version, samples: shown, more }))
}

#[derive(Deserialize)]
struct TakenBack {
    form_token: String,
    sample: usize,
}

async fn withdraw(
    State(service): Shared,
    session: Session,
    Path((name, version)): Path<(String, i64)>,
    Form(form): Form<TakenBack>,
) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    taken_back(&service, session.caller, name.clone(), version, form.sample).await?;
    let title = "Taken back".to_owned();
    let message = format!("No later version of {name} will have this sample. Version {version} stays as it is.");
    Ok(page(&super::MessagePage { title, message, hint: None }))
}

#[derive(Template)]
#[template(path = "contributor.html")]
struct ContributorPage {
    session: Session,
    account: Account,
    total: String,
    credits: Vec<Line>,
    without: Vec<Line>,
    paid: String,
}

/// An attributed answer.
struct Line {
    request: String,
    when: String,
    model: String,
    percent: String,
    paid: Option<String>,
}

impl Line {
    fn of(credit: &Credit) -> Self {
        let percent = format!("{:.1}", f64::from(credit.bps) / 100.0);
        Self {
            request: credit.request.clone(),
            when: moment(credit.created),
            model: credit.model.clone(),
            percent,
            paid: credit.paid.as_deref().map(ether),
        }
    }
}

async fn contributor(State(service): Shared, session: Session, Path(name): Path<String>) -> Result<Response, PageError> {
    let account = account(&service, session.caller, name).await?;
    let lines = |of: &[Credit]| of.iter().take(SHOWN).map(Line::of).collect();
    let (credits, without) = (lines(&account.credits), lines(&account.without));
    Ok(page(&ContributorPage {
        total: format!("{:.2}", account.total()),
        credits,
        without,
        paid: ether(&account.paid().to_string()),
        account,
        session,
    }))
}
