//! The structured reference string of KZG: powers of a secret in BN254's groups, and the same in the Lagrange basis.
//!
//! It is imported from a public ceremony's file ([`import`], every point checked) or made here from a published secret ([`Srs::insecure`]),
//! which is for trials: anyone can forge proofs over it. An insecure one is marked in its file and in everything derived from it, and is
//! recognised by its points whatever a file says.
//!
//! A directory holds two files for each size `2^k`: the powers and, derived from them, the Lagrange basis; `file.rs` has their format.

mod check;
mod error;
mod file;
mod import;
mod insecure;
mod lagrange;
mod ptau;
mod raw;

pub use error::SrsError;
pub use file::{lagrange_path, powers_path, stored_digest};
pub use import::import;
pub use insecure::insecure_point;

use halo2_axiom::halo2curves::bn256::{Bn256, G1Affine, G2Affine};
use halo2_axiom::poly::kzg::commitment::ParamsKZG;
use serde::Serialize;
use std::path::Path;

/// Sizes that are handled: `2^1` to `2^24` powers.
pub const MAX_K: u32 = 24;

/// May proofs over it be trusted?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// From a ceremony's file: as good as the ceremony.
    Imported,
    /// The secret is known: anyone can forge proofs.
    Insecure,
}

/// Called with what begins.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// The powers: `[1]₁, [s]₁, …, [s^(2^k - 1)]₁`, `[1]₂`, `[s]₂`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Powers {
    k: u32,
    trust: Trust,
    g1: Vec<G1Affine>,
    g2: G2Affine,
    s_g2: G2Affine,
}

/// A checked reference string, ready for halo2.
#[derive(Clone, Debug)]
pub struct Srs {
    params: ParamsKZG<Bn256>,
    k: u32,
    trust: Trust,
    digest: [u8; 32],
}

/// What a reference string is, for people and files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SrsInfo {
    /// `2^k` powers.
    pub k: u32,
    /// May it be trusted?
    pub trust: Trust,
    /// The same, for those who read no further.
    pub insecure: bool,
    /// BLAKE3 of the powers' file, hexadecimal.
    pub digest: String,
}

impl Srs {
    /// One from a published secret, for trials. Fast: both bases come straight from the secret.
    pub fn insecure(k: u32) -> Result<Self, SrsError> {
        let (powers, lagrange) = insecure::make(k)?;
        Ok(Self::assemble(powers, lagrange))
    }

    fn assemble(powers: Powers, lagrange: Vec<G1Affine>) -> Self {
        let digest = file::powers_digest(&powers);
        let Powers { k, trust, g1, g2, s_g2 } = powers;
        // `from_parts` is a method, but reads nothing of its receiver.
        let receiver = ParamsKZG::<Bn256>::setup(1, Zeros);
        let params = receiver.from_parts(k, g1, Some(lagrange), g2, s_g2);
        Self { params, k, trust, digest }
    }

    /// Reads the one of size `2^k` from a directory. A missing Lagrange basis is computed and stored.
    pub fn load(directory: &Path, k: u32, progress: Progress<'_>) -> Result<Self, SrsError> {
        let powers = file::read_powers(directory, k)?;
        let lagrange = match file::read_lagrange(directory, &powers)? {
            Some(lagrange) => lagrange,
            None => {
                progress("computing the Lagrange basis (once)");
                let lagrange = lagrange::basis_for(&powers);
                file::write_lagrange(directory, &powers, &lagrange)?;
                lagrange
            }
        };
        Ok(Self::assemble(powers, lagrange))
    }

    /// Writes both files into a directory, each beside its place and renamed.
    pub fn save(&self, directory: &Path) -> Result<(), SrsError> {
        std::fs::create_dir_all(directory).map_err(|source| SrsError::io(directory, source))?;
        let powers = self.powers();
        let lagrange = raw::lagrange_of(&self.params, self.k);
        file::write_lagrange(directory, &powers, &lagrange)?;
        file::write_powers(directory, &powers)
    }

    fn powers(&self) -> Powers {
        use halo2_axiom::poly::commitment::ParamsProver;
        let g1 = self.params.get_g().to_vec();
        Powers { k: self.k, trust: self.trust, g1, g2: self.params.g2(), s_g2: self.params.s_g2() }
    }

    /// halo2's parameters.
    pub fn params(&self) -> &ParamsKZG<Bn256> {
        &self.params
    }

    /// `2^k` powers.
    pub fn k(&self) -> u32 {
        self.k
    }

    /// May it be trusted?
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// BLAKE3 of the powers' file.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// What it is.
    pub fn info(&self) -> SrsInfo {
        let digest = self.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        SrsInfo { k: self.k, trust: self.trust, insecure: self.trust == Trust::Insecure, digest }
    }
}

/// A stand-in for randomness where the result is thrown away.
struct Zeros;

impl rand_core::RngCore for Zeros {
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn next_u64(&mut self) -> u64 {
        3
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(3);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

fn check_k(k: u32) -> Result<(), SrsError> {
    if (1..=MAX_K).contains(&k) { Ok(()) } else { Err(SrsError::Size { got: k, most: MAX_K }) }
}

/// Number of powers.
fn count(k: u32) -> usize {
    1 << k
}
