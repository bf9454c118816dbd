//! Threads that work: each takes jobs of one kind from the table, one at a time or those that are done together, with a second thread that keeps the
//! leases alive.

use crate::adapters::{self, ADOPT};
use crate::database::Database;
use crate::deliveries::{self, DELIVER, SENDERS};
use crate::jobs::{self, Claim, LEASE, Together};
use crate::proofs::{self, PROVE};
use crate::registrations::{self, REGISTER};
use crate::server::Service;
use crate::settlements::{self, SETTLE};
use crate::trainings::{self, TRAIN};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use steps::error::{Failure, Kind, While};
use steps::progress::{Event, Observer};

/// Between two looks at an empty table.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two words about the same phase.
const TELLING: Duration = Duration::from_secs(1);

/// Tells the table what is being done, and stops when a job is no longer ours or the service ends.
struct Told<'a> {
    database: &'a Database,
    claims: &'a [Claim],
    lost: &'a AtomicBool,
    ending: &'a AtomicBool,
    told: Mutex<Option<Instant>>,
}

impl Told<'_> {
    fn say(&self, phase: &str) {
        self.of_each(|claim| jobs::tell(self.database, claim, phase));
    }

    /// Says something of each job.
    fn of_each(&self, say: impl Fn(&Claim) -> rusqlite::Result<bool>) {
        if self.claims.iter().any(|claim| !say(claim).unwrap_or(true)) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer for Told<'_> {
    fn tell(&self, event: Event) {
        match event {
            Event::Begun(phase) => self.say(phase),
            Event::Steps { what, done, total, .. } => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.is_none_or(|told| told.elapsed() >= TELLING) {
                    *told = Some(Instant::now());
                    self.say(&format!("{what}: {done} of {total}"));
                }
            }
            Event::Epoch(_) => self.of_each(|claim| jobs::progressed(self.database, claim)),
            Event::Note(_) | Event::Ended(_) => {}
        }
    }

    fn goes_on(&self) -> bool {
        !self.lost.load(Ordering::Relaxed) && !self.ending.load(Ordering::Relaxed)
    }
}

/// Starts a worker for each kind of job: neither waits for the other.
///
/// # Errors
///
/// When the system has no threads left.
pub fn start(service: &Arc<Service>) -> Result<Vec<JoinHandle<()>>, Failure> {
    let worker = |kind: &'static str| {
        let service = service.clone();
        std::thread::Builder::new().name(kind.into()).spawn(move || work(&service, kind)).during("starting a worker")
    };
    [PROVE, REGISTER, SETTLE, TRAIN, ADOPT].into_iter().chain([DELIVER; SENDERS]).map(worker).collect()
}

/// Works until the service ends.
fn work(service: &Service, kind: &str) {
    let together = if kind == PROVE { service.batches.into() } else { Together::ALONE };
    while service.goes_on() {
        match jobs::claim_together(&service.database, kind, together) {
            Ok(claims) if claims.is_empty() => std::thread::sleep(PAUSE),
            Ok(claims) => attempt(service, &claims),
            Err(error) => {
                service.on.note(format!("the database: {error}"));
                std::thread::sleep(PAUSE * 10);
            }
        }
    }
}

/// What went wrong, and what to do.
fn problem(failure: &Failure) -> String {
    failure.hint.as_ref().map_or_else(|| failure.message.clone(), |hint| format!("{}; {hint}", failure.message))
}

/// Does jobs of one kind; only proofs' can be several.
fn attempt(service: &Service, claims: &[Claim]) {
    let Some(claim) = claims.first() else { return };
    let (lost, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut waited = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
                if waited.as_secs() as i64 >= LEASE / 3 {
                    waited = Duration::ZERO;
                    if claims.iter().any(|claim| !jobs::extend(&service.database, claim).unwrap_or(true)) {
                        lost.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
        let told = Told { database: &service.database, claims, lost: &lost, ending: &service.ending, told: Mutex::new(None) };
        // A defect in a job must not end the worker.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match claim.kind.as_str() {
            TRAIN => trainings::work(service, claim, &told).map(Some),
            REGISTER => registrations::work(service, &claim.subject, &told).map(Some),
            SETTLE => settlements::work(service, claim, &told).map(Some),
            ADOPT => adapters::work(service, claim, &told).map(Some),
            DELIVER => deliveries::work(service, claim, &told).map(|()| None),
            _ => proofs::work(service, &claims.iter().map(|claim| claim.subject.as_str()).collect::<Vec<_>>(), &told).map(Some),
        }));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|_| Err(Failure::input("the work broke off; this is a defect of poa")))
    });
    for claim in claims {
        if let Err(error) = keep(service, claim, &done) {
            service.on.note(format!("the database: {error}"));
        }
    }
}

/// Keeps what came of a job, if it's still ours.
fn keep(service: &Service, claim: &Claim, done: &Result<Option<Value>, Failure>) -> rusqlite::Result<bool> {
    match done {
        // It said itself what came of it.
        Ok(None) => Ok(true),
        Ok(Some(result)) => jobs::finish(&service.database, claim, result),
        Err(failure) if failure.kind == Kind::Stopped => jobs::release(&service.database, claim),
        // What doesn't fit now won't fit later; whoever mends what was in the way has it resumed.
        Err(failure) if [TRAIN, ADOPT].contains(&claim.kind.as_str()) => jobs::fail_for_good(&service.database, claim, &problem(failure)),
        Err(failure) => jobs::fail(&service.database, claim, &problem(failure)),
    }
}
