//! Requests' proofs: made by a worker, several in one where the operator wants that, kept by their content.

use crate::jobs::Together;
use crate::registrations;
use crate::requests;
use crate::server::Service;
use circuits::relation::WeightRanges;
use circuits::statement::Profile;
use serde_json::{Value, json};
use steps::error::{Failure, While};
use steps::progress::Observer;
use steps::prove::{Job, prove};
use steps::run;
use steps::store::RunInfo;

/// The kind of job that proves a request's answer.
pub const PROVE: &str = "prove";

/// Which requests are proven together: one key's, of one model as it was then. A statement shows all of its requests to whoever reads it.
const MATES: &str = "(SELECT key || ' ' || model || ' ' || generation FROM requests WHERE id = subject)";

/// Most requests of one proof.
pub const MOST: usize = 64;

/// How many requests are proven together, and how long they wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Requests of one proof, at most.
    pub requests: usize,
    /// Seconds that the oldest of fewer waits.
    pub seconds: u32,
}

impl From<Batches> for Together {
    fn from(Batches { requests, seconds }: Batches) -> Self {
        Self { most: requests.clamp(1, MOST), seconds: if requests > 1 { seconds.into() } else { 0 }, common: MATES }
    }
}

/// Proves the answers of requests of one model, with attribution where it has an index; files first, then what names them.
pub fn work(service: &Service, requests: &[&str], on: &dyn Observer) -> Result<Value, Failure> {
    let found =
        |id: &&str| requests::any(&service.database, id).during("reading the request")?.ok_or_else(|| Failure::input("there is no such request"));
    let found: Vec<_> = requests.iter().map(found).collect::<Result<_, _>>()?;
    let model = &found.first().ok_or_else(|| Failure::input("no request to prove"))?.model;
    let served = service.catalog.get(model).map_err(|e| Failure::input(format!("{model}: {}", e.message)))?;
    let runs: Vec<_> = found.iter().map(|request| request.run(&served).map_err(|e| Failure::input(e.message))).collect::<Result<_, _>>()?;
    let semantics = served.runtime().semantics();
    let dims = run::common_dims(semantics, run::span_of(semantics), &runs);
    let trace = |info: &RunInfo| {
        let mut trace = run::trace_run(served.runtime(), info, dims)?;
        served.index().map(|index| run::attribute(index, &mut trace)).transpose()?;
        Ok((trace, info.request_id))
    };
    let known = registrations::known(&service.database, &served).during("reading the registration")?;
    let job = Job {
        model: &served.model().int.tensors,
        adapter: served.adapter().map(|a| &a.int.tensors),
        index: served.index(),
        semantics,
        weight_ranges: WeightRanges::Proven,
        registration: None,
        requests: runs.iter().map(trace).collect::<Result<_, Failure>>()?,
        private_tokens: false,
        prompt_salts: vec![],
        shelves: served.shelves(),
    };
    let job = match known.clone() {
        Some(known) => job.relying_on(known),
        None => job,
    };
    let proven = prove(Profile::Native, job, on)?;
    verifier::verify_given(&proven.statement, &proven.bytes, known.as_slice()).during("verifying the proof that was made")?;
    let statement = serde_json::to_vec_pretty(&proven.statement).during("writing the statement")?;
    Ok(json!({
        "proof": service.files.put(&proven.bytes)?,
        "statement": service.files.put(&statement)?,
        "statement_digest": proven.statement.digest(),
        "registration": proven.statement.registration,
        "relies_on": known.as_slice(),
        "proof_bytes": proven.bytes.len(),
        "security_bits": proven.figures.security_bits,
        "seconds": proven.figures.seconds,
        "requests": requests,
    }))
}
