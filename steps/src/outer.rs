//! Wrapping an inner proof: record its verification, find or make the keys, prove the recording.

use crate::cost::{Meter, peak_rss_mb};
use crate::error::{Failure, While};
use crate::evm_proof::{EvmProof, INPUTS, SrsMark, public_inputs};
use crate::progress::Observer;
use circuits::outer::halo2::OuterCircuit;
use circuits::outer::halo2::gates::ADVICE;
use circuits::statement::{Digest, Statement};
use light_client::{OuterKey, Word};
use prover::outer::{self, Keys};
use prover::outer_key::outer_key;
use prover::srs::{Srs, Trust};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use verifier::recorded::{Recording, record};
use verifier::settled;

/// What a wrap cost.
#[derive(Clone, Debug, Serialize)]
pub struct WrapFigures {
    /// Wall seconds, keys included.
    pub seconds: f64,
    /// CPU seconds, keys included.
    pub cpu_seconds: f64,
    /// Peak resident memory of the process so far.
    pub peak_rss_mb: f64,
    /// Size of the outer proof.
    pub proof_bytes: usize,
    /// The circuit has `2^k` rows.
    pub k: u32,
    /// Rows used.
    pub rows: usize,
    /// Advice columns.
    pub advice_columns: usize,
    /// Seconds to make the keys; 0 if they were there.
    pub keygen_seconds: f64,
}

/// An outer proof, its key and its cost.
pub struct Wrapped {
    /// The proof with its public inputs.
    pub proof: EvmProof,
    /// What verifies it.
    pub key: OuterKey,
    /// The same as a contract's source.
    pub solidity: String,
    /// What it cost.
    pub figures: WrapFigures,
}

/// The file of a verifying key in a directory of keys.
pub fn key_path(directory: &Path, digest: &Word) -> PathBuf {
    directory.join(format!("{}.vk", Digest(*digest)))
}

/// Records the verification of a proof of one request.
pub fn recording(statement: &Statement, bytes: &[u8]) -> Result<(Recording, [Digest; INPUTS]), Failure> {
    let public = public_inputs(statement)?;
    let recording = record(statement, bytes, public[8].word()).during("verifying the inner proof")?;
    let own: Vec<Digest> = recording.public.iter().map(|&w| Digest::of_word(w)).collect();
    if own != public {
        return Err(Failure::input("the recorded verification yields other public inputs than the statement; this is a defect of poa"));
    }
    Ok((recording, public))
}

/// Sizes of circuits that are tried, as logarithms of their rows.
const SIZES: std::ops::RangeInclusive<u32> = 19..=23;

/// The smallest circuit with room for the verification of a proof of one request, as the logarithm of its rows.
pub fn smallest(statement: &Statement, bytes: &[u8]) -> Result<u32, Failure> {
    let (recording, _) = recording(statement, bytes)?;
    let fits = |k: &u32| OuterCircuit::without_values(&recording.program, *k).is_ok();
    let none = || Failure::input(format!("verifying this proof takes a circuit of more than 2^{} rows", SIZES.end()));
    SIZES.into_iter().find(fits).ok_or_else(none)
}

/// The key that a proof of one request is wrapped with, and its verifier's source; makes keys that aren't there yet.
pub fn key(statement: &Statement, bytes: &[u8], srs: &Srs, keys: &Path, on: &dyn Observer) -> Result<(OuterKey, String), Failure> {
    let (recording, public) = recording(statement, bytes)?;
    on.note("keys: reading, or making them once (minutes) …");
    let (keys_found, _) = Keys::cached(srs.params(), &recording.program, keys).during("making the outer keys")?;
    let key = outer_key(srs.params(), keys_found.verifying(), &[public.len()]).during("describing the key")?;
    crate::store::write_file(&key_path(keys, &key.digest()), key.encoding())?;
    let solidity = outer::solidity(srs.params(), &keys_found).during("writing the verifier's contract")?;
    Ok((key, solidity))
}

/// Wraps an inner proof.
pub fn wrap(statement: &Statement, bytes: &[u8], srs: &Srs, keys: &Path, on: &dyn Observer) -> Result<Wrapped, Failure> {
    let meter = Meter::start();
    on.note("recording the verification …");
    let (recording, public) = recording(statement, bytes)?;
    let start = Instant::now();
    on.note("keys: reading, or making them once (minutes) …");
    let (keys_found, cached) = Keys::cached(srs.params(), &recording.program, keys).during("making the outer keys")?;
    let keygen_seconds = if cached { 0.0 } else { start.elapsed().as_secs_f64() };
    let key = outer_key(srs.params(), keys_found.verifying(), &[public.len()]).during("describing the key")?;
    crate::store::write_file(&key_path(keys, &key.digest()), key.encoding())?;
    on.note("proving (minutes) …");
    let circuit = OuterCircuit::without_values(&recording.program, srs.k()).during("laying out the circuit")?;
    let proof = outer::prove(srs.params(), &keys_found, &recording.program, &recording.values, &recording.public).during("proving")?;
    let (seconds, cpu_seconds) = meter.read();
    let size = circuit.size();
    let figures = WrapFigures {
        seconds,
        cpu_seconds,
        peak_rss_mb: peak_rss_mb(),
        proof_bytes: proof.len(),
        k: srs.k(),
        rows: size.rows.max(size.limbs),
        advice_columns: ADVICE,
        keygen_seconds,
    };
    let mark = SrsMark { digest: Digest(srs.digest()), insecure: srs.trust() == Trust::Insecure };
    let proof = EvmProof::new(statement, Digest(key.digest()), mark, proof)?;
    verify(&key, &proof, statement)?;
    let solidity = outer::solidity(srs.params(), &keys_found).during("writing the verifier's contract")?;
    Ok(Wrapped { solidity, proof, key, figures })
}

/// Verifies an outer proof of a statement the way a contract and the light client do.
///
/// # Errors
///
/// Says what of the proof's file is another statement's, or why the proof is refused.
pub fn verify(key: &OuterKey, proof: &EvmProof, statement: &Statement) -> Result<(), Failure> {
    proof.check(statement)?;
    settled::verify(key, statement, &proof.proof.0).during("verifying the outer proof")
}
