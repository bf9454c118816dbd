//! The verifiers for a page, as WebAssembly without generated code: bytes are put in, a verdict in JSON is read.
//!
//! ```text
//!  input(0, n) ──► where the statement's n bytes go      verify() ──► length of the verdict
//!  input(1, n) ──► where the proof's n bytes go          verdict() ──► where it is
//!  input(2, n) ──► where what was accepted before goes, as `poa registration verify --accept` writes it; none needs be put in
//!  input(3, n) ──► where an outer proof's verifying key goes; then the proof is one as `poa wrap` writes it, and the light client reads it
//! ```
//!
//! Built by `verifier-wasm/build` into `service/assets/verifier.wasm`, which `poa serve` hands to browsers. Nothing is imported from the page, so
//! nothing but those bytes decides. A trap (no memory left, say) is no verdict: the page says so.

use circuits::registration::Known;
use circuits::statement::{Digest, Statement};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use verifier::light::OuterKey;
use verifier::settled;

/// Format of outer proofs that is read.
const FORMAT: &str = "poa-evm-proof/2";

/// Most bytes of a statement or a proof.
pub const MOST: usize = 64 << 20;

/// Statement, proof, registrations that are taken as accepted, and an outer proof's key.
static INPUTS: [Mutex<Vec<u8>>; 4] = [const { Mutex::new(Vec::new()) }; 4];
static VERDICT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn lock(of: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes room for the statement (0), the proof (1), accepted registrations (2) or a key (3), and says where; nowhere (0) for another number, or more than
/// [`MOST`] bytes.
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
    let [statement, proof, accepted, key] = INPUTS.each_ref().map(|input| std::mem::take(&mut *lock(input)));
    let verdict = if key.is_empty() { check(&statement, &proof, &accepted) } else { check_outer(&statement, &proof, &key) };
    let text = verdict.to_string().into_bytes();
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

fn refused(problem: String) -> Value {
    json!({ "valid": false, "problem": problem })
}

/// The verdict: `valid`, and what is proven or what is wrong. Of a statement that relies on a registration it is given that one, which isn't
/// verified here.
pub fn check(statement: &[u8], proof: &[u8], accepted: &[u8]) -> Value {
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

/// An outer proof as `poa wrap` writes it. What it says of its statement, the statement says, too: that is what is verified.
#[derive(Deserialize)]
struct OuterProof {
    format: String,
    key_digest: Digest,
    weights: Vec<u64>,
    proof: String,
}

/// The verdict of the light client: no inner proof, no witness.
pub fn check_outer(statement: &[u8], proof: &[u8], key: &[u8]) -> Value {
    let statement: Statement = match serde_json::from_slice(statement) {
        Ok(statement) => statement,
        Err(error) => return refused(format!("the statement can't be read: {error}")),
    };
    let outer: OuterProof = match serde_json::from_slice(proof) {
        Ok(outer) => outer,
        Err(error) => return refused(format!("the outer proof can't be read: {error}")),
    };
    let key = match OuterKey::decode(key) {
        Ok(key) => key,
        Err(error) => return refused(format!("the key can't be read: {error}")),
    };
    let (digest, Some(bytes)) = (Digest(key.digest()), bytes(&outer.proof)) else {
        return refused("the outer proof can't be read: `proof` isn't hexadecimal".into());
    };
    if outer.format != FORMAT {
        return refused(format!("the outer proof has format {}, expected {FORMAT}", outer.format));
    }
    if outer.key_digest != digest {
        return refused(format!("the key is {digest}, the proof is one under {}", outer.key_digest));
    }
    if settled::only_request(&statement).is_ok_and(|request| request.weights != outer.weights) {
        return refused("the proof is of other weights than the statement's".into());
    }
    match settled::verify(&key, &statement, &bytes) {
        Ok(()) => json!({ "valid": true, "key": digest, "insecure_srs": key.insecure(), "states": states(&statement) }),
        Err(error) => refused(error.to_string()),
    }
}

/// Bytes from hexadecimal digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
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

    /// What the demo's contract took (contracts/tools/remake-demo.js) is accepted, and nothing else.
    #[test]
    fn outer_proofs_are_judged_by_the_light_client() {
        let statement = include_str!("../../browser/test/outer/statement.json");
        let proof = include_str!("../../browser/test/outer/proof.json");
        let key = include_bytes!("../../assets/demo/outer.vk");
        let found = check_outer(statement.as_bytes(), proof.as_bytes(), key);
        assert!(found["valid"] == true && found["insecure_srs"] == true && found["states"]["requests"].as_array().unwrap().len() == 1, "{found}");
        let edited = |edit: &dyn Fn(&mut Value)| {
            let mut value: Value = serde_json::from_str(proof).unwrap();
            edit(&mut value);
            value.to_string()
        };
        let hex = serde_json::from_str::<Value>(proof).unwrap()["proof"].as_str().unwrap().to_owned();
        let flipped = |at: usize| {
            let other = if hex.as_bytes()[at] == b'0' { "1" } else { "0" };
            format!("{}{other}{}", &hex[..at], &hex[at + 1..])
        };
        let refused = |statement: &str, proof: &str, key: &[u8]| assert_eq!(check_outer(statement.as_bytes(), proof.as_bytes(), key)["valid"], false);
        for at in [0, hex.len() / 2, hex.len() - 1] {
            refused(statement, &edited(&|p| p["proof"] = json!(flipped(at))), key);
        }
        refused(statement, &edited(&|p| p["proof"] = json!(hex.clone() + "00")), key);
        refused(statement, &edited(&|p| p["weights"][0] = json!(p["weights"][0].as_u64().unwrap() + 1)), key);
        refused(statement, &edited(&|p| p["format"] = json!("poa-evm-proof/1")), key);
        refused(statement, &edited(&|p| p["key_digest"] = json!("00".repeat(32))), key);
        refused(statement, proof, &key[1..]);
        let other: Statement = serde_json::from_str(statement).unwrap();
        // Others' weights, said in both: then it's another statement.
        let (mut moved, mut claimed) = (other.clone(), serde_json::from_str::<Value>(proof).unwrap());
        moved.requests[0].weights.reverse();
        claimed["weights"] = json!(moved.requests[0].weights);
        assert_ne!(moved.requests[0].weights, other.requests[0].weights);
        refused(&json!(moved).to_string(), &claimed.to_string(), key);
        refused(&json!(Statement { base: Digest([1; 32]), ..other }).to_string(), proof, key);
    }

    /// What isn't a statement or a proof is refused with a reason, and inputs are used once.
    #[test]
    fn nothing_is_valid_by_itself() {
        for statement in ["", "{}", "[1]", "\u{0}"] {
            let found = check(statement.as_bytes(), b"", b"");
            assert!(found["valid"] == false && found["problem"].as_str().unwrap().contains("can't be read"), "{found}");
        }
        let found = check_outer(b"{}", b"{}", b"key");
        assert!(found["valid"] == false && found["problem"].as_str().unwrap().contains("the statement can't be read"), "{found}");
        assert_eq!((bytes("0aFf"), bytes("0a0"), bytes("0g")), (Some(vec![10, 255]), None, None));
        assert!(input(4, 1).is_null() && input(0, MOST + 1).is_null());
        assert!(!input(0, 3).is_null() && !input(1, 0).is_null());
        let length = verify();
        assert_eq!(length, lock(&VERDICT).len());
        assert!(lock(&INPUTS[0]).is_empty() && !verdict().is_null());
    }
}
