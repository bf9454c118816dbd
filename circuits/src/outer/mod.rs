//! The outer circuit: the inner verifier, run once over recording values, as a straight-line program that halo2 proves.
//!
//! [`program`] is the language between the two: the verifier's run is recorded in it, and the halo2 circuit interprets it.

pub mod evaluate;
#[cfg(feature = "halo2")]
pub mod halo2;
pub mod program;
