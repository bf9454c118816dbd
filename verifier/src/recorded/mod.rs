//! The verifier, recorded: the very code that verifies natively, run over values that write down what is done with them.
//!
//! A run yields a [`Program`](circuits::outer::program::Program) whose operations the outer circuit constrains, and its values. Two things
//! could make a program accept what the verifier refuses, and neither goes unnoticed: a comparison (its outcome becomes an assertion), and a
//! value that leaves the recorded types (there is no way out of [`base::Base`] but [`base::Base::value`], used here only to compute values).

pub mod base;
pub mod domain;
pub mod ext;
pub mod hash;
pub mod recorder;
pub mod run;

pub use run::{Constants, RecordError, Recording, record, replay};
