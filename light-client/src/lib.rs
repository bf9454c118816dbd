//! The light client: checks outer proofs with arkworks' BN254, on a host or in a browser.
//!
//! A proof is a halo2 PLONKish argument over KZG with the SHPLONK opening and a Keccak transcript, as snark-verifier's EVM verifier reads
//! it. [`OuterKey`] describes the circuit as data, so that this crate knows no circuit and shares no code with the prover's libraries.
//! [`settlement`] derives the public inputs of a settled request and checks its proof.
//!
//! Nothing here trusts a proof or an encoded key: no unsafe code, no panics on their data, no allocation from a length they supply
//! before it's compared with a cap. Any bytes give `Ok` or a typed error.
#![forbid(unsafe_code)]

mod constraints;
mod encoding;
pub mod error;
pub mod expression;
pub mod key;
mod lagrange;
mod open;
pub mod points;
pub mod settlement;
mod transcript;
mod verify;
pub mod word;

pub use error::{KeyError, ProofError};
pub use key::{KeyParts, OuterKey};
pub use settlement::{Settlement, SettlementError, verify_settlement};
pub use verify::verify;
pub use word::Word;
