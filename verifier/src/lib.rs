//! How a proof is checked: the native verifier; and [`light`], the light client of outer proofs, a crate of its own that builds for browsers.
//!
//! Nothing here trusts the proof: no unsafe code, no panics on its data, no allocation from a length it supplies.
#![forbid(unsafe_code)]

pub mod fraction;
pub mod interpolate;
pub mod merkle;
pub mod pcs;
pub mod pin;
pub mod plan;
pub mod profile;
pub mod proof;
pub mod recorded;
pub mod registration;
pub mod settled;
pub mod soundness;
#[cfg(test)]
mod test_support;
pub mod transcript;
pub mod verify;
pub mod whir;

pub use light_client as light;

// The light client depends on nothing of the workspace, so it states the bound itself.
const _: () = assert!(light::settlement::WEIGHT_BOUND == circuits::statement::WEIGHT_BOUND);

pub use proof::Proof;
pub use verify::{Verified, VerifyError, verify, verify_benchmark, verify_bytes, verify_given};
