//! Answers, attributions and proofs over HTTP.
//!
//! ```text
//!  request ──► api ──► catalog (models in memory) ──► answers ──► database
//!               │                                                   ▲
//!               └──► jobs (a table) ──► worker ──► steps::prove ────┘──► files (by content)
//! ```
//!
//! [`serve`] starts it. What is answered, attributed and proven is done by [`steps`]; here are who may ask, what is kept, and what is told.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod answers;
mod api;
mod attributions;
mod catalog;
mod database;
mod error;
mod files;
mod jobs;
mod keys;
mod openai;
mod pages;
mod requests;
mod server;
mod worker;

pub use catalog::Place;
pub use server::{Settings, Started, serve};
