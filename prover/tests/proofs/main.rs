//! Proofs, honest and not. One program, so that prover and verifier are compiled once for all of them.

mod attribution;
mod cheats;
mod clauses;
mod common;
mod constraints;
mod forward;
mod fuzz;
mod pins;
mod recorded;
mod registration;
mod sizes;
mod statements;
