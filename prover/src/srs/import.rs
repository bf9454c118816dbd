//! Import: a ceremony's file becomes a checked reference string.

use super::insecure::insecure_point;
use super::raw::{G1_BYTES, G2_BYTES};
use super::{Powers, Progress, Srs, SrsError, Trust, check, check_k, count, lagrange, ptau, raw};
use halo2_axiom::halo2curves::bn256::G1Affine;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A file being read, with its length.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    file: File,
    pub(super) length: u64,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, SrsError> {
        let failed = |source| SrsError::io(path, source);
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self { path, file, length })
    }

    pub(super) fn format(&self, why: impl Into<String>) -> SrsError {
        SrsError::Format { path: self.path.to_owned(), why: why.into() }
    }

    /// Bytes at a place; never more than the file has.
    pub(super) fn bytes(&mut self, at: u64, count: usize) -> Result<Vec<u8>, SrsError> {
        let end = at.checked_add(count as u64).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| self.format(format!("it ends at byte {}, in the middle of what its header announces", self.length)))?;
        let mut bytes = vec![0; (end - at) as usize];
        let failed = |source| SrsError::io(self.path, source);
        self.file.seek(SeekFrom::Start(at)).map_err(failed)?;
        self.file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// An integer at a place.
    pub(super) fn integer<const N: usize>(&mut self, at: u64) -> Result<u64, SrsError> {
        Ok(self.bytes(at, N)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

/// Points found in a file: the powers and, if it has one of the right size, the Lagrange basis.
pub(super) struct Found {
    pub(super) powers: Powers,
    pub(super) lagrange: Option<Vec<G1Affine>>,
}

/// Imports `2^k` powers from a snarkjs `.ptau` file or from halo2's raw parameters. Every point is checked, and that all are one secret's.
pub fn import(path: &Path, k: u32, progress: Progress<'_>) -> Result<Srs, SrsError> {
    check_k(k)?;
    let mut source = Source::open(path)?;
    progress("reading points");
    let start = source.bytes(0, 4.min(source.length as usize))?;
    let found = if start == *b"ptau" { ptau::read(&mut source, k)? } else { read_raw(&mut source, k)? };
    let mut powers = found.powers;
    progress("checking the powers");
    check::powers(path, &powers)?;
    if powers.s_g2 == insecure_point() {
        powers.trust = Trust::Insecure;
    }
    let basis = match found.lagrange {
        Some(basis) => {
            progress("checking the Lagrange basis");
            check::lagrange(path, &powers, &basis)?;
            basis
        }
        None => {
            progress("computing the Lagrange basis");
            lagrange::basis_for(&powers)
        }
    };
    Ok(Srs::assemble(powers, basis))
}

/// halo2's raw parameters: k, powers, Lagrange basis, two points of G2. A larger file gives its first powers.
fn read_raw(source: &mut Source<'_>, k: u32) -> Result<Found, SrsError> {
    let expected = |k: u32| 4 + 2 * (G1_BYTES << k) as u64 + 2 * G2_BYTES as u64;
    let size = source.integer::<4>(0).ok().and_then(|size| u32::try_from(size).ok()).filter(|size| (1..=28).contains(size));
    let Some(size) = size.filter(|size| expected(*size) == source.length) else {
        return Err(source.format(format!("no `ptau` at its start, and {} bytes are no length of raw parameters", source.length)));
    };
    if size < k {
        return Err(SrsError::TooSmall { path: source.path.to_owned(), has: size, wanted: k });
    }
    let points = source.bytes(4, G1_BYTES * count(k))?;
    let path = source.path;
    let g1 = check::named(path, "G1", raw::g1_list(&points))?;
    let lagrange = if size == k {
        let points = source.bytes(4 + points.len() as u64, points.len())?;
        Some(check::named(path, "the Lagrange basis", raw::g1_list(&points))?)
    } else {
        None
    };
    let last = source.bytes(source.length - 2 * G2_BYTES as u64, 2 * G2_BYTES)?;
    let (g2, s_g2) = last.split_at(G2_BYTES);
    let g2 = check::single(path, "the generator of G2", raw::g2(g2))?;
    let s_g2 = check::single(path, "the secret's point", raw::g2(s_g2))?;
    Ok(Found { powers: Powers { k, trust: Trust::Imported, g1, g2, s_g2 }, lagrange })
}
