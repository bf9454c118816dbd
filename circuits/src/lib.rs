//! What is claimed: tensors and their layout, constraints, lookup tables, the public statement.
//!
//! [`relation::Relation`] is written once; prover, verifier, cost counter and debug checker interpret it.

pub mod evaluate;
pub mod ir;
pub mod layout;
pub mod outer;
pub mod poseidon2;
pub mod public;
pub mod registration;
pub mod relation;
pub mod statement;
pub mod table;
pub mod witness;
