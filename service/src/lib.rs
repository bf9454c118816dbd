//! Answers, attributions and proofs over HTTP.
//!
//! ```text
//!  request ──► api, pages ──► catalog (models by name) ──► answers, decoder ──► database
//!                │    │                ▲                                  ▲
//!                │    │                └─────── trainings ◄──┐            │
//!                │    └──► jobs (a table) ──► worker ────────┴► proofs ───┴──► files (by content)
//!                │                              └► settlements ──► ledger (the chain: a table, and the EVM that it makes)
//!                └──► uploads ──► datanets (submissions, versions)
//! ```
//!
//! [`serve`] starts it. What is answered, attributed and proven is done by [`steps`]; here are who may ask, what is kept, and what is told.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod adapters;
mod answers;
mod api;
mod attributions;
pub mod backup;
mod catalog;
mod chats;
mod connections;
mod contributors;
mod database;
mod datanet_api;
mod datanets;
mod decoder;
mod deliveries;
mod error;
mod events;
mod explore;
mod files;
mod idempotency;
mod jobs;
mod keys;
mod ledger;
mod making;
mod metrics;
mod openai;
mod openapi;
mod orders;
mod pages;
mod policies;
mod proofs;
mod registrations;
mod requests;
mod server;
mod settlement_api;
mod settlements;
mod shapes;
mod templates;
mod training_api;
mod trainings;
mod uploads;
mod webhooks;
mod why;
mod worker;

pub use catalog::Place;
pub use chats::Chat;
pub use proofs::{Batches, MOST as MOST_TOGETHER};
pub use server::{Settings, Started, serve};
pub use settlements::Fee;
pub use templates::{ChatTemplate, Message, Prompt};
