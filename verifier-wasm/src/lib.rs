//! The native verifier for a page, as WebAssembly without generated code: bytes are put in, a verdict in JSON is read.
//!
//! ```text
//!  input(0, n) ──► where the statement's n bytes go      verify() ──► length of the verdict
//!  input(1, n) ──► where the proof's n bytes go          verdict() ──► where it is
//!  input(2, n) ──► where what was accepted before goes, as `poa registration verify --accept` writes it; none needs be put in
//! ```
//!
//! Built by `verifier-wasm/build` into `service/assets/verifier.wasm`, which `poa serve` hands to browsers. Nothing is imported from the page, so
//! nothing but those bytes decides. A trap (no memory left, say) is no verdict: the page says so.

use circuits::registration::Known;
use circuits::statement::Statement;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes of a statement or a proof.
pub const MOST: usize = 64 << 20;

/// Statement, proof, and registrations that are taken as accepted.
static INPUTS: [Mutex<Vec<u8>>; 3] = [const { Mutex::new(Vec::new()) }; 3];
static VERDICT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn lock(of: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes room for the statement (0), the proof (1) or accepted registrations (2), and says where; nowhere (0) for another number, or more than [`MOST`] bytes.
#[unsafe(no_mangle)]
pub extern "C" fn input(which: usize, length: usize) -> *mut u8 {
    let Some(input) = INPUTS.get(which).filter(|_| length <= MOST) else { return std::ptr::null_mut() };
    let mut input = lock(input);
    *input = vec![0; length];
    input.as_mut_ptr()
}

/// Verifies the proof that was put in against the statement; returns the length of the verdict.
#[unsafe(no_mangle)]
pub extern "C" fn verify() -> usize {
    let [statement, proof, accepted] = INPUTS.each_ref().map(|input| std::mem::take(&mut *lock(input)));
    let text = check(&statement, &proof, &accepted).to_string().into_bytes();
    let length = text.len();
    *lock(&VERDICT) = text;
    length
}

/// Where the verdict is: JSON in UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn verdict() -> *const u8 {
    lock(&VERDICT).as_ptr()
}

/// Registrations that somebody has verified before.
fn known(accepted: &[u8]) -> Result<Vec<Known>, serde_json::Error> {
    if accepted.is_empty() {
        return Ok(vec![]);
    }
    let mut file: BTreeMap<String, Vec<Known>> = serde_json::from_slice(accepted)?;
    Ok(file.remove("accepted").unwrap_or_default())
}

/// The verdict: `valid`, and what is proven or what is wrong. Of a statement that relies on a registration it is given that one, which isn't
/// verified here.
pub fn check(statement: &[u8], proof: &[u8], accepted: &[u8]) -> Value {
    let refused = |problem: String| json!({ "valid": false, "problem": problem });
    let statement: Statement = match serde_json::from_slice(statement) {
        Ok(statement) => statement,
        Err(error) => return refused(format!("the statement can't be read: {error}")),
    };
    let known = match known(accepted) {
        Ok(known) => known,
        Err(error) => return refused(format!("the accepted registrations can't be read: {error}")),
    };
    match verifier::verify_given(&statement, proof, &known) {
        Ok(verified) => json!({ "valid": true, "security_bits": verified.security_bits, "states": states(&statement) }),
        Err(error) => refused(error.to_string()),
    }
}

/// What a statement says, for reading.
fn states(statement: &Statement) -> Value {
    let index = statement.index.as_ref();
    let contributors = index.map(|index| index.contributors.as_slice()).unwrap_or_default();
    let requests = statement.requests.iter().map(|request| {
        let shares = contributors.iter().zip(&request.weights).zip(request.basis_points());
        let share = |((contributor, weight), bps): ((&String, &u64), u32)| json!({ "contributor": contributor, "weight": weight, "bps": bps });
        json!({ "id": request.id, "total": request.total, "shares": shares.filter(|((_, weight), _)| **weight > 0).map(share).collect::<Value>() })
    });
    json!({
        "digest": statement.digest(),
        "relation": statement.relation.digest(),
        "protocol": statement.version,
        "profile": statement.profile,
        "base": statement.base,
        "adapter": statement.adapter,
        "index": index.map(|index| index.commitment),
        "registration": statement.registration,
        "datanet_root": index.map(|index| index.datanet_root),
        "requests": requests.collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What isn't a statement or a proof is refused with a reason, and inputs are used once.
    #[test]
    fn nothing_is_valid_by_itself() {
        for statement in ["", "{}", "[1]", "\u{0}"] {
            let found = check(statement.as_bytes(), b"", b"");
            assert!(found["valid"] == false && found["problem"].as_str().unwrap().contains("can't be read"), "{found}");
        }
        assert!(input(3, 1).is_null() && input(0, MOST + 1).is_null());
        assert!(!input(0, 3).is_null() && !input(1, 0).is_null());
        let length = verify();
        assert_eq!(length, lock(&VERDICT).len());
        assert!(lock(&INPUTS[0]).is_empty() && !verdict().is_null());
    }
}
