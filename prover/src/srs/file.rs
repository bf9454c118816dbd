//! Our two files: `k19.srs` with the powers, `k19.lagrange` with the Lagrange basis.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `poa-srs` and the version, 1 |
//! | 4 | kind: 1 powers, 2 Lagrange basis |
//! | 4 | k |
//! | 4 | trust: 1 imported, 2 insecure |
//! | 4 | zero |
//! | 32 | BLAKE3 of the 24 bytes above and everything after this field |
//! | powers: 64·2^k + 256 | points of G1, the generator of G2, the secret times it |
//! | Lagrange basis: 32 + 64·2^k | digest of the powers' file, points of G1 |
//!
//! Integers are little-endian; points are raw ([`super::raw`]). The digest tells damage, not forgery: whoever can write the file can
//! write its digest. What a forger can't do is pass off the published secret: its point is recognised.

use super::insecure::insecure_point;
use super::raw::{G1_BYTES, G2_BYTES};
use super::{Powers, SrsError, Trust, check, check_k, count, raw};
use halo2_axiom::halo2curves::bn256::G1Affine;
use model_runtime::import::write_atomic;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The first bytes of both files; the last is the version.
pub(super) const MAGIC: [u8; 8] = *b"poa-srs\x01";
const HEAD: usize = 24;
const DIGEST: usize = 32;

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Powers = 1,
    Lagrange = 2,
}

impl Kind {
    fn body_bytes(self, k: u32) -> usize {
        let points = G1_BYTES * count(k);
        match self {
            Kind::Powers => points + 2 * G2_BYTES,
            Kind::Lagrange => DIGEST + points,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Powers => "powers",
            Kind::Lagrange => "a Lagrange basis",
        }
    }
}

/// Where a directory keeps the powers.
pub fn powers_path(directory: &Path, k: u32) -> PathBuf {
    directory.join(format!("k{k}.srs"))
}

/// Where a directory keeps the Lagrange basis.
pub fn lagrange_path(directory: &Path, k: u32) -> PathBuf {
    directory.join(format!("k{k}.lagrange"))
}

fn head(kind: Kind, k: u32, trust: Trust) -> [u8; HEAD] {
    let trust: u32 = match trust {
        Trust::Imported => 1,
        Trust::Insecure => 2,
    };
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    for (field, value) in head[8..].chunks_exact_mut(4).zip([kind as u32, k, trust, 0]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    head
}

fn digest(head: &[u8], body: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(body);
    hasher.finalize().into()
}

fn powers_body(powers: &Powers) -> Vec<u8> {
    let mut body = Vec::with_capacity(Kind::Powers.body_bytes(powers.k));
    raw::write_g1(&powers.g1, &mut body);
    raw::write_g2(&powers.g2, &mut body);
    raw::write_g2(&powers.s_g2, &mut body);
    body
}

/// The digest of the powers' file: names the reference string.
pub(super) fn powers_digest(powers: &Powers) -> [u8; DIGEST] {
    digest(&head(Kind::Powers, powers.k, powers.trust), &powers_body(powers))
}

fn write(path: &Path, head: [u8; HEAD], body: &[u8]) -> Result<(), SrsError> {
    let bytes = [&head, &digest(&head, body)[..], body].concat();
    write_atomic(path, &bytes).map_err(|e| SrsError::io(path, std::io::Error::other(e.to_string())))
}

pub(super) fn write_powers(directory: &Path, powers: &Powers) -> Result<(), SrsError> {
    write(&powers_path(directory, powers.k), head(Kind::Powers, powers.k, powers.trust), &powers_body(powers))
}

pub(super) fn write_lagrange(directory: &Path, powers: &Powers, lagrange: &[G1Affine]) -> Result<(), SrsError> {
    let mut body = powers_digest(powers).to_vec();
    raw::write_g1(lagrange, &mut body);
    write(&lagrange_path(directory, powers.k), head(Kind::Lagrange, powers.k, powers.trust), &body)
}

/// Reads a file whose header must be as expected; nothing is allocated before the length is right. Returns the trust and the body.
fn read(path: &Path, kind: Kind, k: u32) -> Result<(Trust, Vec<u8>), SrsError> {
    let failed = |source| SrsError::io(path, source);
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut front = [0; HEAD + DIGEST];
    if length < front.len() as u64 {
        return Err(SrsError::NotOurs { path: path.to_owned() });
    }
    file.read_exact(&mut front).map_err(failed)?;
    let (own, stored) = front.split_at(HEAD);
    let trust = check_head(path, own, kind, k)?;
    let expected = (front.len() + kind.body_bytes(k)) as u64;
    if length != expected {
        return Err(SrsError::Length { path: path.to_owned(), got: length, expected });
    }
    let mut body = vec![0; kind.body_bytes(k)];
    file.read_exact(&mut body).map_err(failed)?;
    if digest(own, &body) != *stored { Err(SrsError::Digest { path: path.to_owned() }) } else { Ok((trust, body)) }
}

fn check_head(path: &Path, own: &[u8], kind: Kind, k: u32) -> Result<Trust, SrsError> {
    if own[..8] != MAGIC {
        return Err(SrsError::NotOurs { path: path.to_owned() });
    }
    if let Some(trust) = [Trust::Imported, Trust::Insecure].into_iter().find(|trust| own == head(kind, k, *trust)) {
        return Ok(trust);
    }
    let field = |i: usize| own[8 + 4 * i..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let got = [Kind::Powers, Kind::Lagrange].into_iter().find(|kind| *kind as u32 == field(0)).map(Kind::name);
    match got {
        Some(name) if matches!(field(2), 1 | 2) && field(3) == 0 => Err(SrsError::Unexpected {
            path: path.to_owned(),
            got: format!("{name} of size 2^{}", field(1)),
            expected: format!("{} of size 2^{k}", kind.name()),
        }),
        _ => Err(SrsError::NotOurs { path: path.to_owned() }),
    }
}

/// The digest that a directory's powers of size `2^k` claim to have; `None` where there are none.
pub fn stored_digest(directory: &Path, k: u32) -> Option<[u8; DIGEST]> {
    let mut front = [0; HEAD + DIGEST];
    File::open(powers_path(directory, k)).ok()?.read_exact(&mut front).ok()?;
    front.starts_with(&MAGIC).then(|| front.last_chunk().copied()).flatten()
}

pub(super) fn read_powers(directory: &Path, k: u32) -> Result<Powers, SrsError> {
    check_k(k)?;
    let path = powers_path(directory, k);
    if !path.exists() {
        return Err(SrsError::Missing { path, directory: directory.to_owned(), k });
    }
    let (trust, body) = read(&path, Kind::Powers, k)?;
    let (points, rest) = body.split_at(G1_BYTES * count(k));
    let (g2, s_g2) = rest.split_at(G2_BYTES);
    let g1 = check::named(&path, "G1", raw::g1_list(points))?;
    let g2 = check::single(&path, "the generator of G2", raw::g2(g2))?;
    let s_g2 = check::single(&path, "the secret's point", raw::g2(s_g2))?;
    let powers = Powers { k, trust, g1, g2, s_g2 };
    if trust == Trust::Imported && powers.s_g2 == insecure_point() {
        return Err(SrsError::Disguised { path });
    }
    check::quick(&path, &powers)?;
    Ok(powers)
}

/// The Lagrange basis of these powers, if the directory has it; one of other powers counts as none.
pub(super) fn read_lagrange(directory: &Path, powers: &Powers) -> Result<Option<Vec<G1Affine>>, SrsError> {
    let path = lagrange_path(directory, powers.k);
    if !path.exists() {
        return Ok(None);
    }
    let (_, body) = read(&path, Kind::Lagrange, powers.k)?;
    let (belongs_to, points) = body.split_at(DIGEST);
    if belongs_to != powers_digest(powers) {
        return Ok(None);
    }
    check::named(&path, "the Lagrange basis", raw::g1_list(points)).map(Some)
}
