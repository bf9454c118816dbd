//! Pages for people: ask, see what the answer rests on, have it proven. They work without a script; with one, answers are shown while they grow, and
//! what is under way is kept up to date.

use crate::answers::{Finish, Question, check};
use crate::api::{attributed, enqueue_proof, file};
use crate::attributions::{Attributed, Word};
use crate::catalog::Served;
use crate::error::ApiError;
use crate::jobs::{self, Job};
use crate::keys::{self, Session};
use crate::openai::{Asked, Shape, ask, complete, model, prompt as prompt_of};
use crate::proofs::PROVE;
use crate::requests::{self, Request};
use crate::server::Service;
use crate::templates::Message;
use askama::Template;
use axum::Router;
use axum::extract::{Form, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

mod datanets;
pub mod explore;
mod settlements;
mod trainings;
mod verify;

use settlements::Payment;

const COOKIE: &str = "poa_session";
/// How long a wrong key waits for its answer.
const SLOWED: Duration = Duration::from_millis(500);
/// Requests that are listed.
const LISTED: usize = 20;
/// Tokens of an answer unless said otherwise.
const TOKENS: usize = 32;

type Shared = State<Arc<Service>>;

/// The routes.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/", get(home))
        .route("/ask", post(ask_page))
        .route("/ask/stream", post(ask_stream))
        .route("/requests/{id}", get(request_page))
        .route("/requests/{id}/proof", post(prove_page))
        .route("/requests/{id}/proof.bin", get(|s: Shared, session, path| download(s, session, path, "proof", "proof.bin")))
        .route("/requests/{id}/statement.json", get(|s: Shared, session, path| download(s, session, path, "statement", "statement.json")))
        .route("/sign-in", get(sign_in).post(signed_in))
        .route("/sign-out", post(sign_out))
        .route("/style.css", get(style))
        .route("/live.js", get(|| async { verify::script(include_str!("../../assets/live.js")) }))
        .merge(datanets::routes())
        .merge(explore::routes())
        .merge(trainings::routes())
        .merge(verify::routes())
        .merge(settlements::routes())
        .fallback(|| async { PageError::from(ApiError::not_found("page")) })
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("../../assets/style.css")).into_response()
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage {
    title: String,
    message: String,
    hint: Option<String>,
}

/// What a page couldn't do.
pub enum PageError {
    /// Nobody is signed in.
    SignIn,
    /// Something else.
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("this page can't be shown: {error}")).into_response(),
    }
}

/// When something was, to the minute, in UTC.
fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "long ago".into(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn => Redirect::to("/sign-in").into_response(),
            Self::Failed(error) => {
                let title = error.status.canonical_reason().unwrap_or("Failed").to_owned();
                let mut response = page(&MessagePage { title, message: error.message, hint: error.hint });
                *response.status_mut() = error.status;
                response
            }
        }
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

impl FromRequestParts<Arc<Service>> for Session {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, PageError> {
        let secret = cookie(&parts.headers).ok_or(PageError::SignIn)?;
        keys::session(&service.database, secret)?.ok_or(PageError::SignIn)
    }
}

impl Session {
    /// Refuses forms that another site has sent.
    fn check(&self, form_token: &str) -> Result<(), ApiError> {
        if form_token == self.form_token {
            Ok(())
        } else {
            Err(ApiError::forbidden("this form isn't of this session; go back and load the page again"))
        }
    }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    wrong: bool,
}

async fn sign_in() -> Response {
    page(&SignInPage { wrong: false })
}

#[derive(Deserialize)]
struct SignIn {
    key: String,
}

async fn signed_in(State(service): Shared, Form(form): Form<SignIn>) -> Result<Response, PageError> {
    let Some(caller) = keys::find(&service.database, form.key.trim())? else {
        tokio::time::sleep(SLOWED).await;
        let mut response = page(&SignInPage { wrong: true });
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(response);
    };
    let secret = keys::start_session(&service.database, caller)?;
    let cookie = format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age=86400");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

#[derive(Deserialize)]
struct Token {
    form_token: String,
}

async fn sign_out(State(service): Shared, session: Session, headers: HeaderMap, Form(form): Form<Token>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    cookie(&headers).map_or(Ok(()), |secret| keys::end_session(&service.database, secret))?;
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/sign-in")).into_response())
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    session: Session,
    chosen: String,
    models: Vec<String>,
    requests: Vec<Request>,
    tokens: usize,
}

#[derive(Deserialize)]
struct Chosen {
    #[serde(default)]
    model: String,
}

async fn home(State(service): Shared, session: Session, Query(chosen): Query<Chosen>) -> Result<Response, PageError> {
    // Adapted models first: their answers rest on somebody's samples.
    let mut models: Vec<String> = service.catalog.all().into_iter().map(|listed| listed.id).collect();
    models.sort_by_key(|id| (!id.contains('+'), id.clone()));
    let requests = requests::newest(&service.database, session.caller, LISTED)?;
    Ok(page(&HomePage { session, chosen: chosen.model, models, requests, tokens: TOKENS }))
}

#[derive(Deserialize)]
struct Ask {
    form_token: String,
    model: String,
    prompt: String,
}

impl Ask {
    /// What is asked, of which model.
    async fn question(&self, service: &Arc<Service>, session: &Session) -> Result<(Arc<Served>, Question), ApiError> {
        session.check(&self.form_token)?;
        let served = model(service, &self.model).await?;
        let prompt = self.prompt.trim().to_owned();
        if prompt.is_empty() {
            return Err(ApiError::parameter("prompt", "the question is empty"));
        }
        let message = Message { role: "user".into(), content: prompt };
        let (prompt, tokens) = prompt_of(service, &served, Asked::Chat(vec![message])).await?;
        Ok((served, Question { prompt, tokens, max_tokens: Some(TOKENS), stop: vec![], cut_to_room: true }))
    }
}

/// The answer as the API streams it.
async fn ask_stream(State(service): Shared, session: Session, Form(form): Form<Ask>) -> Result<Response, ApiError> {
    let (served, question) = form.question(&service, &session).await?;
    let (_, room) = tokio::task::spawn_blocking(move || check(&served, &question)).await??;
    let messages = json!([{ "role": "user", "content": form.prompt.trim() }]);
    let call = json!({ "model": form.model, "messages": messages, "max_tokens": room, "stream": true });
    let call = call.as_object().cloned().unwrap_or_default();
    complete(service, session.caller, Shape::Chat, call).await
}

async fn ask_page(State(service): Shared, session: Session, Form(form): Form<Ask>) -> Result<Response, PageError> {
    let (served, question) = form.question(&service, &session).await?;
    let (id, _) = ask(&service, session.caller, &served, question).await?;
    Ok(Redirect::to(&format!("/requests/{id}")).into_response())
}

/// A word with how strongly it's marked, from 0 to 5.
struct Marked {
    text: String,
    strength: u8,
    /// Whether a space comes before it.
    apart: bool,
    /// Its share of the score, in percent.
    percent: String,
}

/// Words of a sample that are named with their share.
const NAMED: usize = 5;

/// The words with the largest shares, largest first.
fn strongest(words: &[Word]) -> Vec<Marked> {
    let mut words: Vec<Word> = words.iter().filter(|w| w.share >= 0.01).cloned().collect();
    words.sort_by(|a, b| b.share.total_cmp(&a.share));
    words.truncate(NAMED);
    marked(&words)
}

fn marked(words: &[Word]) -> Vec<Marked> {
    let strength = |share: f64| (share * 10.0).clamp(0.0, 5.0) as u8;
    let apart = |text: &str| text.starts_with(char::is_alphanumeric);
    let mark =
        |w: &Word| Marked { text: w.text.clone(), strength: strength(w.share), apart: apart(&w.text), percent: format!("{:.0}", 100.0 * w.share) };
    words.iter().filter(|w| !w.text.is_empty()).map(mark).collect()
}

/// A contributor's share with its percentage.
struct Slice {
    contributor: String,
    percent: String,
    bps: u32,
}

struct Shown {
    sample: usize,
    contributor: String,
    score: i32,
    relevance: i64,
    text: Option<String>,
    words: Vec<Marked>,
    strongest: Vec<Marked>,
}

#[derive(Template)]
#[template(path = "request.html")]
struct RequestPage {
    session: Session,
    request: Request,
    cut: bool,
    samples: Vec<Shown>,
    shares: Vec<Slice>,
    nothing: Option<String>,
    job: Option<Job>,
    waits: bool,
    figures: Option<String>,
    payment: Payment,
}

fn shown(attributed: Attributed) -> (Vec<Shown>, Vec<Slice>) {
    let samples = attributed.samples.into_iter().take(5).map(|s| Shown {
        words: marked(&s.words),
        strongest: strongest(&s.words),
        sample: s.sample,
        contributor: s.contributor,
        score: s.score,
        relevance: s.relevance,
        text: s.text,
    });
    let slice = |s: crate::attributions::Share| Slice { percent: format!("{:.1}", f64::from(s.bps) / 100.0), contributor: s.contributor, bps: s.bps };
    (samples.collect(), attributed.weights.into_iter().map(slice).collect())
}

fn figures(job: &Job) -> Option<String> {
    let result = job.result.as_ref()?;
    let (bytes, seconds, bits) = (result["proof_bytes"].as_u64()?, result["seconds"].as_f64()?, result["security_bits"].as_f64()?);
    let requests = result["requests"].as_array().map_or(1, Vec::len);
    let of = if requests > 1 { format!(", of {requests} requests together") } else { String::new() };
    Some(format!("{:.0} kB, made in {seconds:.1} s{of}, {bits:.1} bits of proven security", bytes as f64 / 1000.0))
}

async fn request_page(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    let request = requests::find(&service.database, session.caller, &id)?;
    let ((samples, shares), nothing) = match attributed(&service, session.caller, request.clone()).await {
        Ok(found) if found.weights.is_empty() => (shown(found), Some("No sample passed the noise floor: nobody is credited.".to_owned())),
        Ok(found) => (shown(found), None),
        Err(error) if error.status == StatusCode::CONFLICT => ((vec![], vec![]), Some(error.message)),
        Err(error) => return Err(error.into()),
    };
    let job = jobs::find(&service.database, PROVE, &id)?;
    let settlement = crate::settlements::find(&service.database, &id)?;
    let payment = Payment::of(settlement.as_ref(), !shares.is_empty());
    let waits = payment.waits || job.as_ref().is_some_and(|job| !job.is_over());
    let cut = request.finish_reason == Finish::Length.name();
    let figures = job.as_ref().and_then(figures);
    Ok(page(&RequestPage { session, request, cut, samples, shares, nothing, job, waits, figures, payment }))
}

async fn prove_page(State(service): Shared, session: Session, Path(id): Path<String>, Form(form): Form<Token>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    enqueue_proof(&service, session.caller, &id).await?;
    Ok(Redirect::to(&format!("/requests/{id}")).into_response())
}

async fn download(State(service): Shared, session: Session, Path(id): Path<String>, which: &str, name: &str) -> Result<Response, PageError> {
    let bytes = file(&service, session.caller, &id, which)?;
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_DISPOSITION, format!("attachment; filename={name}"))];
    Ok((headers, bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_others_is_text_on_a_page() {
        let evil = "<script>alert(1)</script>\" onload=\"x";
        let text = MessagePage { title: evil.into(), message: evil.into(), hint: Some(evil.into()) }.render().unwrap();
        assert!(!text.contains("<script>") && !text.contains("\" onload"), "{text}");
    }

    #[test]
    fn the_session_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        headers.insert(header::COOKIE, "a=b; poa_session=secret; poa_session_other=c".parse().unwrap());
        assert_eq!(cookie(&headers), Some("secret"));
    }
}
