//! Reads a proof and draws the challenges: snark-verifier's Keccak transcript.
//!
//! Everything absorbed since the last challenge follows that challenge's hash in one buffer; the next hash is the buffer's Keccak-256 and
//! the challenge is the hash modulo the field's order. A buffer that holds nothing but the previous hash gets a byte 1 appended.

use crate::error::ProofError;
use crate::points::g1;
use crate::word::{Word, keccak, reduced, scalar, scalar_word};
use ark_bn254::{Fr, G1Affine};

/// A proof being read.
#[derive(Debug)]
pub(crate) struct Transcript<'a> {
    proof: &'a [u8],
    at: usize,
    buffer: Vec<u8>,
}

impl<'a> Transcript<'a> {
    /// Starts on a proof.
    pub(crate) fn new(proof: &'a [u8]) -> Self {
        Self { proof, at: 0, buffer: Vec::new() }
    }

    /// Absorbs something that both sides know.
    pub(crate) fn absorb(&mut self, value: Fr) {
        self.buffer.extend(scalar_word(value));
    }

    fn word(&mut self) -> Result<Word, ProofError> {
        let rest = self.proof.get(self.at..).unwrap_or_default();
        // The proof's length has been checked; this is for the reader's own sake.
        let word = *rest.first_chunk().ok_or(ProofError::Length { got: self.proof.len(), expected: self.at.saturating_add(32) })?;
        self.at = self.at.saturating_add(32);
        self.buffer.extend(word);
        Ok(word)
    }

    /// A scalar of the proof.
    pub(crate) fn scalar(&mut self) -> Result<Fr, ProofError> {
        let at = self.at;
        scalar(&self.word()?).ok_or(ProofError::Scalar { at })
    }

    /// A point of the proof; never at infinity.
    pub(crate) fn point(&mut self) -> Result<G1Affine, ProofError> {
        let at = self.at;
        let (x, y) = (self.word()?, self.word()?);
        g1(&x, &y).ok_or(ProofError::Point { at })
    }

    /// Some scalars of the proof.
    pub(crate) fn scalars(&mut self, count: usize) -> Result<Vec<Fr>, ProofError> {
        (0..count).map(|_| self.scalar()).collect()
    }

    /// Some points of the proof.
    pub(crate) fn points(&mut self, count: usize) -> Result<Vec<G1Affine>, ProofError> {
        (0..count).map(|_| self.point()).collect()
    }

    /// A challenge.
    pub(crate) fn challenge(&mut self) -> Fr {
        if self.buffer.len() == 32 {
            self.buffer.push(1);
        }
        let hash = keccak(&self.buffer);
        self.buffer = hash.to_vec();
        reduced(&hash)
    }

    /// Bytes read.
    pub(crate) fn read(&self) -> usize {
        self.at
    }
}
