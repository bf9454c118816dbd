//! What long work tells while it goes on, and how it is told to stop.

use model_runtime::train::Epoch;
use prover::prove::{Progress, Stage};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something to read: what is being done, what was left out, what may go wrong. Names in it come from others.
    Note(String),
    /// So many steps of something are done.
    Steps {
        /// Of what.
        what: &'static str,
        /// Steps done.
        done: u64,
        /// Steps in all.
        total: u64,
        /// The loss of a step of training.
        loss: Option<f32>,
    },
    /// An epoch of training was made, and kept where it is to be kept.
    Epoch(Epoch),
    /// A phase begins.
    Begun(&'static str),
    /// A phase has ended.
    Ended(Stage),
}

/// Sees events, on any thread.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn tell(&self, event: Event);

    /// Whether to go on; asked between steps.
    fn goes_on(&self) -> bool {
        true
    }
}

impl dyn Observer + '_ {
    /// Tells something to read.
    pub fn note(&self, what: impl std::fmt::Display) {
        self.tell(Event::Note(what.to_string()));
    }

    /// Tells how many steps are done.
    pub fn steps(&self, what: &'static str, done: usize, total: usize) {
        self.tell(Event::Steps { what, done: done as u64, total: total as u64, loss: None });
    }
}

/// Nobody watches, nobody stops.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Observer for Unwatched {
    fn tell(&self, _: Event) {}
}

/// The prover's phases.
pub(crate) struct Phases<'a>(pub &'a dyn Observer);

impl Progress for Phases<'_> {
    fn begin(&mut self, name: &'static str) {
        self.0.tell(Event::Begun(name));
    }

    fn end(&mut self, stage: &Stage) {
        self.0.tell(Event::Ended(stage.clone()));
    }

    fn goes_on(&self) -> bool {
        self.0.goes_on()
    }
}
