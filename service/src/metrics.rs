//! Figures for Prometheus, in its text format.

use crate::database::Database;
use crate::decoder::Figures;
use crate::error::ApiError;
use crate::keys::Caller;
use crate::server::Service;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Jobs of each kind and state.
fn jobs(database: &Database) -> rusqlite::Result<Vec<(String, String, i64)>> {
    let query = "SELECT kind, state, count(*) FROM jobs GROUP BY kind, state ORDER BY kind, state";
    database.read(|c| c.prepare(query)?.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect())
}

fn text(service: &Service) -> Result<String, ApiError> {
    let answers: i64 = service.database.read(|c| c.query_row("SELECT count(*) FROM requests", [], |r| r.get(0)))?;
    let (adapters, bytes) = service.catalog.memory();
    let (reads, models) = (service.catalog.reads(), service.catalog.all().len());
    let mut text = String::new();
    let mut say = |name: &str, kind: &str, help: &str, value: i64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    say("poa_answers_total", "counter", "Answers kept.", answers);
    say("poa_models", "gauge", "Models served.", models as i64);
    say("poa_adapters_in_memory", "gauge", "Adapters in memory.", adapters as i64);
    say("poa_adapter_bytes", "gauge", "Bytes that they take.", bytes as i64);
    say("poa_adapter_reads_total", "counter", "Times that an adapter was read because it wasn't in memory.", reads as i64);
    say("poa_answers_waiting", "gauge", "Calls that wait for a core.", service.waiting() as i64);
    let figures = [
        ("poa_decoding", "gauge", "Answers being decoded.", |f: &Figures| &f.active),
        ("poa_tokens_total", "counter", "Tokens decoded.", |f| &f.tokens),
        ("poa_turns_total", "counter", "Turns, each a token of every answer being decoded.", |f| &f.turns),
        ("poa_spared_tokens_total", "counter", "Tokens of prompts that needn't be read again.", |f| &f.spared),
    ] as [(&str, &str, &str, fn(&Figures) -> &AtomicU64); 4];
    for (name, kind, help, get) in figures {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (base, of) in service.catalog.decoders() {
            let _ = writeln!(text, "{name}{{base={base:?}}} {}", get(of.decoder().figures()).load(Ordering::Relaxed));
        }
    }
    text += "# HELP poa_jobs Jobs by kind and state.\n# TYPE poa_jobs gauge\n";
    for (kind, state, count) in jobs(&service.database)? {
        let _ = writeln!(text, "poa_jobs{{kind=\"{kind}\",state=\"{state}\"}} {count}");
    }
    Ok(text)
}

/// The figures; an admin's, since they tell of everyone.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "service",
    operation_id = "metrics",
    responses((status = 200, description = "Prometheus' text format", body = String))
)]
pub async fn metrics(State(service): State<Arc<Service>>, caller: Caller) -> Result<Response, ApiError> {
    caller.admin()?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text(&service)?).into_response())
}
