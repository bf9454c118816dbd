//! What is paid for an answer, on its page; and a page where admins say which answers are proven and paid without being asked for.

use super::{PageError, Shared, Token, page};
use crate::error::ApiError;
use crate::keys::Session;
use crate::policies::Policy;
use crate::server::Service;
use crate::settlement_api::{all_policies, change_policy, enqueue, file};
use crate::settlements::{FILES, Settlement};
use alloy::primitives::U256;
use alloy::primitives::utils::format_ether;
use askama::Template;
use axum::Router;
use axum::extract::{Form, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// The routes.
pub fn routes() -> Router<Arc<Service>> {
    let files = FILES.iter().fold(Router::new(), |router, (name, ..)| {
        let name: &'static str = name;
        router
            .route(&format!("/requests/{{id}}/{name}"), get(move |s: Shared, session: Session, path: Path<String>| download(s, session, path, name)))
    });
    files.route("/requests/{id}/settlement", post(settle)).route("/policies", get(policies).post(set_policy))
}

async fn settle(State(service): Shared, session: Session, Path(id): Path<String>, Form(form): Form<Token>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    enqueue(&service, session.caller, &id).await?;
    Ok(Redirect::to(&format!("/requests/{id}")).into_response())
}

async fn download(State(service): Shared, session: Session, Path(id): Path<String>, name: &str) -> Result<Response, PageError> {
    let (bytes, kind) = file(&service, session.caller, &id, name)?;
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, format!("attachment; filename={name}"))];
    Ok((headers, bytes).into_response())
}

/// An amount of wei as people read it.
pub fn ether(wei: &str) -> String {
    let text = wei.parse::<U256>().map_or_else(|_| wei.to_owned(), format_ether);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What a request's page says about its payment.
pub struct Payment {
    /// `none`, or the settlement's state.
    pub state: &'static str,
    /// What is being done.
    pub phase: Option<String>,
    /// What went wrong last.
    pub problem: Option<String>,
    /// The fee, in ether.
    pub amount: Option<String>,
    /// The chain's id of it.
    pub request_id: Option<String>,
    /// The transaction that settled it, and its gas.
    pub settled: Option<(String, String)>,
    /// Digest of the verifying key, and whether its secret is published.
    pub key: Option<(String, bool)>,
    /// Contributors with what they were credited with, in ether.
    pub payouts: Vec<(String, String)>,
    /// Whether the outer proof is made.
    pub wrapped: bool,
    /// Whether the page changes by itself.
    pub waits: bool,
    /// Whether it can be asked for.
    pub can_ask: bool,
}

impl Payment {
    /// Of a request's settlement, if it has one.
    pub fn of(settlement: Option<&Settlement>, earns: bool) -> Self {
        let text = |step: &str, name: &str| {
            let value = settlement?.steps.get(step)?.get(name)?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let job = settlement.and_then(|s| s.job.as_ref());
        let state = settlement.map_or("none", |s| s.state);
        let insecure = settlement.and_then(|s| s.steps.get("offered")).is_some_and(|offered| offered["insecure_srs"] == Value::Bool(true));
        Self {
            state,
            phase: job.and_then(|job| job.phase.clone()),
            problem: job.and_then(|job| job.problem.clone()),
            amount: text("offered", "amount").map(|wei| ether(&wei)),
            request_id: text("escrowed", "request_id"),
            settled: text("settled", "transaction").zip(text("settled", "gas_used")),
            key: text("offered", "key_digest").map(|key| (key, insecure)),
            payouts: settlement.map(|s| s.payouts.iter().map(|p| (p.contributor.clone(), ether(&p.amount))).collect()).unwrap_or_default(),
            wrapped: settlement.is_some_and(|s| s.steps.contains_key("wrapped")),
            waits: job.is_some_and(|job| !job.is_over()),
            can_ask: earns && matches!(state, "none" | "failed" | "cancelled"),
        }
    }
}

#[derive(Template)]
#[template(path = "policies.html")]
struct PoliciesPage {
    session: Session,
    /// With shares in percent.
    policies: Vec<(String, String, String)>,
}

fn percent(bps: u32) -> String {
    format!("{}", f64::from(bps) / 100.0)
}

async fn policies(State(service): Shared, session: Session) -> Result<Response, PageError> {
    session.caller.admin()?;
    let shown = |p: Policy| (p.model, percent(p.proof_bps), percent(p.settlement_bps));
    let policies = all_policies(&service)?.into_iter().map(shown).collect();
    Ok(page(&PoliciesPage { session, policies }))
}

#[derive(Deserialize)]
struct Wanted {
    form_token: String,
    model: String,
    proof: f64,
    settlement: f64,
}

fn bps(name: &str, percent: f64) -> Result<u32, ApiError> {
    if (0.0..=100.0).contains(&percent) {
        return Ok((percent * 100.0).round() as u32);
    }
    Err(ApiError::parameter(name, format!("{name}: expected a percentage from 0 to 100")))
}

async fn set_policy(State(service): Shared, session: Session, Form(form): Form<Wanted>) -> Result<Response, PageError> {
    session.check(&form.form_token)?;
    session.caller.admin()?;
    let policy = Policy { proof_bps: bps("proof", form.proof)?, settlement_bps: bps("settlement", form.settlement)?, model: form.model };
    change_policy(&service, &policy)?;
    Ok(Redirect::to("/policies").into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        assert_eq!(["1000000000000000", "2000000000000000000", "1", "0"].map(ether), ["0.001", "2", "0.000000000000000001", "0"]);
        assert_eq!(bps("proof", 12.5).unwrap(), 1250);
        assert!(bps("proof", f64::NAN).is_err() && bps("proof", 100.5).is_err());
    }
}
