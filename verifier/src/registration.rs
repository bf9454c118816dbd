//! Registrations, checked: each proof by itself, then that together they prove every row that earns.

use crate::plan::Plan;
use crate::profile::Native;
use crate::proof::{Proof, profile_of};
use crate::verify::{Claimed, Verified, VerifyError, pins, verify_claimed};
use circuits::ir::Group;
use circuits::public::PublicContext;
use circuits::registration::{Known, RULES, Registration, RegistrationError};
use circuits::relation::{Part, Relation};
use circuits::statement::Digest;
use thiserror::Error;

/// Why a registration is refused.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum RefusedRegistration {
    /// It contradicts itself, or leaves rows unproven.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// A part isn't shown to be well-formed.
    #[error("the {} isn't shown to be well-formed: {reason}", part.group().name())]
    Form {
        /// Which.
        part: Part,
        /// Why.
        reason: VerifyError,
    },
    /// Rows aren't shown to be their samples' sketches.
    #[error("rows {} aren't shown to be the sketches of their samples: {reason}", listed(rows))]
    Rows {
        /// Which.
        rows: Vec<usize>,
        /// Why.
        reason: VerifyError,
    },
}

/// Rows that are named one by one.
const NAMED: usize = 8;

fn listed(rows: &[usize]) -> String {
    let named: Vec<String> = rows.iter().take(NAMED).map(usize::to_string).collect();
    match (rows.first(), rows.last()) {
        (Some(first), Some(last)) if rows.len() > NAMED => format!("{first} to {last} ({} of them)", rows.len()),
        _ => named.join(", "),
    }
}

/// A proof of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// That a part is well-formed.
    Form(Part),
    /// That a chunk's rows are their samples' sketches.
    Rows(usize),
}

/// A registration whose proofs hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// What statements may rely on.
    pub known: Known,
    /// The least composed security of its proofs, in bits.
    pub security_bits: f64,
}

/// Verifies a registration that is proven in `chunks`. `proof` gives the bytes of one proof at a time, none for one that is missing; `seen` is told
/// after each how many of how many are done.
///
/// # Errors
///
/// Says what isn't proven.
pub fn verify(
    registration: &Registration,
    chunks: &[Vec<usize>],
    proof: &mut dyn FnMut(Piece) -> Vec<u8>,
    seen: &mut dyn FnMut(usize, usize),
) -> Result<Accepted, RefusedRegistration> {
    registration.check()?;
    registration.check_cover(chunks)?;
    let (digest, total) = (registration.digest(), 3 + chunks.len());
    let mut security_bits = f64::INFINITY;
    let forms = Part::ALL.map(Piece::Form);
    for (done, piece) in forms.into_iter().chain((0..chunks.len()).map(Piece::Rows)).enumerate() {
        let bytes = proof(piece);
        let verified = match piece {
            Piece::Form(part) => verify_form(registration, &digest, part, &bytes)?,
            Piece::Rows(chunk) => verify_rows(registration, &digest, &chunks[chunk], &bytes)?,
        };
        security_bits = security_bits.min(verified.security_bits);
        seen(done + 1, total);
    }
    let (index, beacon) = (registration.index_statement(), registration.beacon);
    Ok(Accepted { known: Known { rules: RULES, registration: digest, index, beacon, datanet_compared: false }, security_bits })
}

/// Verifies that one part is well-formed; `digest` is the registration's.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify_form(registration: &Registration, digest: &Digest, part: Part, bytes: &[u8]) -> Result<Verified, RefusedRegistration> {
    let relation = registration.form(part)?;
    let ctx = registration.form_context(&relation);
    let seed = registration.form_seed(digest, part);
    verify_bytes(registration, &relation, seed, &ctx, bytes).map_err(|reason| RefusedRegistration::Form { part, reason })
}

/// Verifies one chunk of rows; `digest` is the registration's.
///
/// # Errors
///
/// Says why the proof is refused.
pub fn verify_rows(registration: &Registration, digest: &Digest, rows: &[usize], bytes: &[u8]) -> Result<Verified, RefusedRegistration> {
    let relation = registration.rows(rows)?;
    let ctx = registration.rows_context(&relation, rows);
    let seed = registration.rows_seed(digest, rows);
    verify_bytes(registration, &relation, seed, &ctx, bytes).map_err(|reason| RefusedRegistration::Rows { rows: rows.to_vec(), reason })
}

/// Verifies one of its proofs; [`Registration::check`] holds its profile to `native`.
fn verify_bytes(registration: &Registration, relation: &Relation, seed: Digest, ctx: &PublicContext, bytes: &[u8]) -> Result<Verified, VerifyError> {
    if profile_of(bytes)? != registration.profile {
        return Err(VerifyError::Profile);
    }
    let proof = Proof::<Native>::from_bytes(bytes)?;
    if !proof.tokens.is_empty() {
        return Err(VerifyError::Shape { what: "openings of tokens", expected: 0, found: proof.tokens.len() });
    }
    let plan = Plan::new(relation);
    let pin = |group: Group| Part::ALL.into_iter().find(|p| p.group() == group).map(|p| registration.pin(p));
    verify_claimed(&plan, &proof, || Ok(Claimed { seed, pins: pins(&plan, pin)?, tables: None, view: ctx.view(), weights: vec![] }))
}
