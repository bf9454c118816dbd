//! The thread that proves: takes jobs from the table, one at a time, with a second thread that keeps the lease alive.

use crate::database::Database;
use crate::jobs::{self, Claim, LEASE};
use crate::requests;
use crate::server::Service;
use circuits::relation::WeightRanges;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use steps::error::{Failure, Kind, While};
use steps::progress::{Event, Observer};
use steps::prove::{Job, prove};
use steps::run;
use verifier::profile::Native;

/// The kind of job that proves a request's answer.
pub const PROVE: &str = "prove";
/// Between two looks at an empty table.
const PAUSE: Duration = Duration::from_millis(300);

/// Tells the table what is being done, and stops when the job is no longer ours or the service ends.
struct Told<'a> {
    database: &'a Database,
    claim: &'a Claim,
    lost: &'a AtomicBool,
    ending: &'a AtomicBool,
}

impl Observer for Told<'_> {
    fn tell(&self, event: Event) {
        if let Event::Begun(phase) = event
            && !jobs::tell(self.database, self.claim, phase).unwrap_or(true)
        {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    fn goes_on(&self) -> bool {
        !self.lost.load(Ordering::Relaxed) && !self.ending.load(Ordering::Relaxed)
    }
}

/// Works until the service ends.
pub fn work(service: &Arc<Service>) {
    while !service.ending.load(Ordering::Relaxed) {
        match jobs::claim(&service.database) {
            Ok(Some(claim)) => attempt(service, &claim),
            Ok(None) => std::thread::sleep(PAUSE),
            Err(error) => {
                service.on.note(format!("the database: {error}"));
                std::thread::sleep(PAUSE * 10);
            }
        }
    }
}

fn attempt(service: &Service, claim: &Claim) {
    let (lost, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut waited = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
                if waited.as_secs() as i64 >= LEASE / 3 {
                    waited = Duration::ZERO;
                    if !jobs::extend(&service.database, claim).unwrap_or(true) {
                        lost.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
        let told = Told { database: &service.database, claim, lost: &lost, ending: &service.ending };
        // A defect in a job must not end the worker.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| proof(service, &claim.subject, &told)));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|_| Err(Failure::input("the work broke off; this is a defect of poa")))
    });
    let kept = match done {
        Ok(result) => jobs::finish(&service.database, claim, &result),
        Err(failure) if failure.kind == Kind::Stopped => jobs::release(&service.database, claim),
        Err(failure) => jobs::fail(&service.database, claim, &failure.message),
    };
    if let Err(error) = kept {
        service.on.note(format!("the database: {error}"));
    }
}

/// Proves a request's answer, with attribution where the model has an index; files first, then what names them.
fn proof(service: &Service, request: &str, on: &dyn Observer) -> Result<Value, Failure> {
    let request = requests::any(&service.database, request).during("reading the request")?;
    let request = request.ok_or_else(|| Failure::input("there is no such request"))?;
    let served = service.catalog.get(&request.model).ok_or_else(|| Failure::input(format!("{} isn't served any more", request.model)))?;
    let info = request.run(served).map_err(|e| Failure::input(e.message))?;
    let mut trace = run::trace_alone(served.runtime(), &info)?;
    if let Some(index) = served.index() {
        run::attribute(index, &mut trace)?;
    }
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
    let proven = prove::<Native>(job, on)?;
    verifier::verify_bytes(&proven.statement, &proven.bytes).during("verifying the proof that was made")?;
    let statement = serde_json::to_vec_pretty(&proven.statement).during("writing the statement")?;
    Ok(json!({
        "proof": service.files.put(&proven.bytes)?,
        "statement": service.files.put(&statement)?,
        "statement_digest": proven.statement.digest(),
        "proof_bytes": proven.bytes.len(),
        "security_bits": proven.figures.security_bits,
        "seconds": proven.figures.seconds,
    }))
}
