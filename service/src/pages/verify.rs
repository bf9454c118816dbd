//! The page that checks a proof in the visitor's browser, and what it loads.

use super::{PageError, Shared, page};
use crate::api::{file, found_job};
use crate::error::ApiError;
use crate::keys::Session;
use crate::server::Service;
use crate::settlement_api::{file as settlement_file, found as settlement};
use askama::Template;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::sync::Arc;

/// The verifiers as WebAssembly, made by `verifier-wasm/build`.
const VERIFIER: &[u8] = include_bytes!("../../assets/verifier.wasm");
/// Its SHA-256, as that wrote it.
const HASH: &str = include_str!("../../assets/verifier.wasm.sha256");
/// The page and its worker may compile WebAssembly; no other page may.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; style-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The routes.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/verify", get(files_page))
        .route("/proofs/{id}/verify", get(proof_page))
        .route("/requests/{id}/settlement/verify", get(settlement_page))
        .route("/requests/{id}/accepted.json", get(accepted))
        .route("/verify.js", get(|| async { script(include_str!("../../assets/verify.js")) }))
        .route(
            "/verify-worker.js",
            get(|| async { ([(header::CONTENT_SECURITY_POLICY, POLICY)], script(include_str!("../../assets/verify-worker.js"))) }),
        )
        .route("/verifier.wasm", get(|| async { ([(header::CONTENT_TYPE, "application/wasm"), (header::CACHE_CONTROL, "no-cache")], VERIFIER) }))
}

/// A script of this service's.
pub fn script(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

#[derive(Template)]
#[template(path = "verify.html")]
struct VerifyPage {
    session: Session,
    /// Whose proof it is; without, files are chosen.
    id: Option<String>,
    /// The chain's request that the outer proof is of, if that is what is checked.
    outer: Option<String>,
    hash: &'static str,
}

fn verify_page(session: Session, id: Option<String>, outer: Option<String>) -> Response {
    let hash = HASH.split(' ').next().unwrap_or_default();
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], page(&VerifyPage { session, id, outer, hash })).into_response()
}

/// The registration that a proof relies on, as the service accepted it.
async fn accepted(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    let job = found_job(&service, session.caller, &id)?;
    let accepted = job.result.map(|mut result| result["relies_on"].take()).filter(|list| !list.is_null());
    Ok(Json(json!({ "accepted": accepted.unwrap_or_else(|| json!([])) })).into_response())
}

async fn files_page(session: Session) -> Response {
    verify_page(session, None, None)
}

async fn proof_page(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    // One that isn't made, or isn't the caller's to see, has no such page.
    file(&service, session.caller, &id, "statement")?;
    Ok(verify_page(session, Some(id), None))
}

async fn settlement_page(State(service): Shared, session: Session, Path(id): Path<String>) -> Result<Response, PageError> {
    // Likewise.
    settlement_file(&service, session.caller, &id, "outer-proof.json")?;
    let escrowed = settlement(&service, session.caller, &id)?.steps.get("escrowed").and_then(|step| step["request_id"].as_str().map(str::to_owned));
    let outer = escrowed.ok_or_else(|| ApiError::conflict("nothing is escrowed yet"))?;
    Ok(verify_page(session, Some(id), Some(outer)))
}
