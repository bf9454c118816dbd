//! The steps from a model to an answer that is paid for, and what each leaves on disk.
//!
//! | step | in | out |
//! |---|---|---|
//! | [`import`] | a float model | an integer base model |
//! | [`train`] | base, datanet | an adapter, in floats and integers |
//! | [`index`] | base, adapter, datanet | the attribution index |
//! | [`registration`] | base, adapter, index | proofs that its rows are sketches of its samples |
//! | [`run`] | base, adapter, prompt; index | an answer with its trace; scores and weights ([`shares`], [`words`]) |
//! | [`prove`] | runs, index | a statement and its proof |
//! | [`outer`] | an inner proof | a published proof ([`evm_proof`]) |
//! | [`audit`] | all of it | the first difference, if any |
//!
//! Nothing here prints, reads the environment or keeps state of the process: steps tell an [`progress::Observer`] what happens, ask it whether to go
//! on, and end with a [`error::Failure`] that says what to do.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod audit;
pub mod compare;
pub mod cost;
pub mod demo;
pub mod error;
pub mod evm_proof;
pub mod import;
pub mod index;
pub mod kept;
pub mod outer;
pub mod parquet;
pub mod progress;
pub mod prompt;
pub mod prove;
pub mod registration;
pub mod run;
pub mod shares;
pub mod store;
pub mod texts;
pub mod train;
pub mod words;
