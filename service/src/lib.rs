//! Answers, attributions and proofs over HTTP.
//!
//! ```text
//!  request ──► api, pages ──► catalog (models by name) ──► answers ──► database
//!                │    │                ▲                                  ▲
//!                │    │                └─────── trainings ◄──┐            │
//!                │    └──► jobs (a table) ──► worker ────────┴► proofs ───┴──► files (by content)
//!                │                              └► settlements ──► ledger (the chain: a table, and the EVM that it makes)
//!                └──► uploads ──► datanets (submissions, versions)
//! ```
//!
//! [`serve`] starts it. What is answered, attributed and proven is done by [`steps`]; here are who may ask, what is kept, and what is told.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod answers;
mod api;
mod attributions;
pub mod backup;
mod catalog;
mod contributors;
mod database;
mod datanet_api;
mod datanets;
mod error;
mod explore;
mod files;
mod jobs;
mod keys;
mod ledger;
mod making;
mod metrics;
mod openai;
mod pages;
mod policies;
mod proofs;
mod requests;
mod server;
mod settlement_api;
mod settlements;
mod training_api;
mod trainings;
mod uploads;
mod why;
mod worker;

pub use catalog::Place;
pub use server::{Settings, Started, serve};
pub use settlements::Fee;
