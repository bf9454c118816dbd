//! Why there is no usable reference string: what, where, what to do.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a reference string isn't made, imported or read.
#[derive(Debug, Error)]
pub enum SrsError {
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No such size.
    #[error("k is {got}, expected 1 to {most}")]
    Size {
        /// What was asked for.
        got: u32,
        /// The largest.
        most: u32,
    },
    /// A directory lacks the size.
    #[error(
        "{path} doesn't exist; make it with `poa srs import FILE --k {k} --out {directory}`, or for trials with `poa srs insecure --k {k} --out {directory}`"
    )]
    Missing {
        /// The powers' file.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
        /// The size.
        k: u32,
    },
    /// Not one of ours.
    #[error("{path} is no file that `poa srs` has written (or one of another version); make it again with `poa srs`")]
    NotOurs {
        /// Which file.
        path: PathBuf,
    },
    /// The header says something else than the file's name or place.
    #[error("{path} holds {got}, expected {expected}")]
    Unexpected {
        /// Which file.
        path: PathBuf,
        /// What it is.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// The length is wrong.
    #[error("{path} has {got} bytes, expected {expected}: it is cut or padded; make it again with `poa srs`")]
    Length {
        /// Which file.
        path: PathBuf,
        /// Its length.
        got: u64,
        /// What the header demands.
        expected: u64,
    },
    /// The digest is wrong.
    #[error("{path} is damaged: its content doesn't match its digest; make it again with `poa srs` (a `.lagrange` file can just be deleted)")]
    Digest {
        /// Which file.
        path: PathBuf,
    },
    /// A file calls itself imported and its secret is the published one.
    #[error("{path} calls itself imported, but its secret is the one of `poa srs insecure`: proofs over it can be forged; import a ceremony's file")]
    Disguised {
        /// Which file.
        path: PathBuf,
    },
    /// Neither format.
    #[error("{path} is neither a snarkjs .ptau file nor halo2 raw parameters: {why}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The file is for another curve.
    #[error("{path} isn't for BN254 (bn128): its base field is another")]
    Curve {
        /// Which file.
        path: PathBuf,
    },
    /// Fewer powers than asked for.
    #[error("{path} has 2^{has} powers, 2^{wanted} are asked for; take a larger file or a smaller --k")]
    TooSmall {
        /// Which file.
        path: PathBuf,
        /// Its size.
        has: u32,
        /// The wanted one.
        wanted: u32,
    },
    /// A point isn't what it should be.
    #[error("{path}: {point} {why}")]
    Point {
        /// Which file.
        path: PathBuf,
        /// Which point.
        point: String,
        /// What's wrong with it.
        why: &'static str,
    },
    /// The points aren't the powers of one secret.
    #[error("{path}: the points aren't the powers of one secret (the pairing check fails); the file is damaged or forged")]
    Inconsistent {
        /// Which file.
        path: PathBuf,
    },
    /// The Lagrange basis doesn't belong to the powers.
    #[error("{path}: the Lagrange basis doesn't belong to the powers; the file is damaged or forged")]
    Basis {
        /// Which file.
        path: PathBuf,
    },
    /// No randomness for the checks.
    #[error("the system gives no randomness: {0}")]
    Randomness(String),
}

impl SrsError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
