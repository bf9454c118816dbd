//! A request's proof: made by a worker, kept by its content.

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

/// The kind of job that proves a request's answer.
pub const PROVE: &str = "prove";

/// Proves a request's answer, with attribution where the model has an index; files first, then what names them.
pub fn work(service: &Service, request: &str, on: &dyn Observer) -> Result<Value, Failure> {
    let request = requests::any(&service.database, request).during("reading the request")?;
    let request = request.ok_or_else(|| Failure::input("there is no such request"))?;
    let served = service.catalog.get(&request.model).map_err(|e| Failure::input(format!("{}: {}", request.model, e.message)))?;
    let info = request.run(&served).map_err(|e| Failure::input(e.message))?;
    let mut trace = run::trace_alone(served.runtime(), &info)?;
    if let Some(index) = served.index() {
        run::attribute(index, &mut trace)?;
    }
    let known = registrations::known(&service.database, &served).during("reading the registration")?;
    let job = Job {
        model: &served.model().int.tensors,
        adapter: served.adapter().map(|a| &a.int.tensors),
        index: served.index(),
        semantics: served.runtime().semantics(),
        weight_ranges: WeightRanges::Proven,
        registration: None,
        requests: vec![(trace, info.request_id)],
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
    }))
}
