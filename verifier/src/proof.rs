//! The proof's wire format: a header, then one canonical encoding.

use crate::pcs::{Commitment, Opening};
use crate::profile::HashProfile;
use circuits::statement::{Profile, TokenOpening};
use p3_multi_stark::fractional_gkr::FractionGkrProof;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// First bytes of a proof file.
pub const MAGIC: [u8; 4] = *b"poa\x03";
/// Largest proof that is read.
pub const MAX_PROOF_BYTES: usize = 16 << 20;

/// A proof under a profile.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "", deserialize = ""))]
pub struct Proof<C: HashProfile> {
    /// Openings of token digests, one per request.
    pub tokens: Vec<Option<TokenOpening>>,
    /// What the pins of base, adapter and index are of, as far as there are any.
    pub pinned: Vec<Pinned<C>>,
    /// Commitment to the trace.
    pub trace: Commitment<C>,
    /// The fraction table's reduction.
    pub lookups: FractionGkrProof<C::Ext>,
    /// Round polynomials of the batched sumcheck at 0, 2 and 3.
    pub sum_rounds: Vec<[C::Ext; 3]>,
    /// Claimed evaluations of tensors.
    pub evaluations: Vec<C::Ext>,
    /// Round polynomials of the claim reduction at 0 and 2.
    pub reduction_rounds: Vec<[C::Ext; 2]>,
    /// Value of each committed polynomial at the reduction's point.
    pub finals: Vec<C::Ext>,
    /// Their openings.
    pub openings: Vec<Opening<C>>,
}

/// Root and value behind a pin ([`crate::pin`]).
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "", deserialize = ""))]
pub struct Pinned<C: HashProfile> {
    /// Commitment to the polynomial.
    pub root: Commitment<C>,
    /// The polynomial's value at the pin's point.
    pub value: C::Ext,
}

/// Why bytes are no proof.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Too long.
    #[error("the proof has {found} bytes, at most {MAX_PROOF_BYTES} are read")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Not a proof file.
    #[error("this isn't a proof of this version: it should begin with `poa`, version 3 and a hash profile")]
    Header,
    /// Not decodable.
    #[error("the proof is malformed: {0}")]
    Malformed(String),
    /// Decodable, but not the canonical encoding.
    #[error("the proof isn't canonically encoded")]
    NotCanonical,
}

fn profile_byte(profile: Profile) -> u8 {
    match profile {
        Profile::Native => 0,
        Profile::Evm => 1,
    }
}

/// The profile a proof file names.
///
/// # Errors
///
/// When the header isn't one of this version.
pub fn profile_of(bytes: &[u8]) -> Result<Profile, DecodeError> {
    match bytes.split_first_chunk::<4>() {
        Some((&MAGIC, [0, ..])) => Ok(Profile::Native),
        Some((&MAGIC, [1, ..])) => Ok(Profile::Evm),
        _ => Err(DecodeError::Header),
    }
}

impl<C: HashProfile> Proof<C> {
    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(profile_byte(C::PROFILE));
        out.extend(postcard::to_allocvec(self).unwrap_or_default());
        out
    }

    /// Decodes the canonical encoding and nothing else.
    ///
    /// # Errors
    ///
    /// When the bytes are too long, malformed, or another encoding of the same proof.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_PROOF_BYTES {
            return Err(DecodeError::TooLong { found: bytes.len() });
        }
        if profile_of(bytes)? != C::PROFILE {
            return Err(DecodeError::Header);
        }
        let proof = Self::decode(bytes)?;
        if proof.to_bytes() != bytes {
            return Err(DecodeError::NotCanonical);
        }
        Ok(proof)
    }

    /// Decodes bytes whose encoding was checked before.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body = bytes.get(5..).ok_or(DecodeError::Header)?;
        postcard::from_bytes(body).map_err(|e| DecodeError::Malformed(e.to_string()))
    }
}
