//! Sizes and snapshots: how proofs grow with depth, several requests, token digests, golden values under `tests/golden`.
//!
//! `POA_BLESS=1 cargo test --release --workspace --test proofs sizes` rewrites the golden values; explain the difference in the commit.

use crate::common;
use circuits::statement::{Statement, TokenOpening, Tokens};
use common::{Full, full};
use model_runtime::shape::Site;
use prover::prove::{Inputs, Silent, Stages, prove};
use verifier::profile::Native;
use verifier::{Proof, VerifyError, verify, verify_bytes};

const SITES: [Site; 2] = [Site::Q, Site::Down];

fn proven(full: &Full) -> (Statement, Vec<u8>) {
    let witness = full.witness();
    let fixed = full.commit::<Native>(&witness);
    let statement = full.statement(&witness, &fixed);
    let tokens = vec![None; statement.requests.len()];
    let inputs = Inputs { claim: (&statement).into(), relation: &full.relation, tokens, fixed: fixed.iter().collect() };
    let bytes = prove(inputs, witness, &mut Stages::new(&mut Silent)).unwrap().to_bytes();
    verify_bytes(&statement, &bytes).unwrap();
    (statement, bytes)
}

#[test]
fn a_proof_grows_slowly_with_depth() {
    let (shallow, deep) = (proven(&full(3, 1, &SITES)).1.len(), proven(&full(12, 1, &SITES)).1.len());
    eprintln!("3 layers: {shallow} bytes, 12 layers: {deep} bytes, {:.3}", deep as f64 / shallow as f64);
    assert!(deep * 100 <= shallow * 115, "{shallow} {deep}");
}

#[test]
fn five_requests_in_one_proof() {
    let full = full(1, 5, &SITES);
    let (statement, bytes) = proven(&full);
    assert_eq!(statement.requests.len(), 5);
    // Neither another order nor a missing request.
    let mut other = statement.clone();
    other.requests.swap(0, 4);
    assert!(verify_bytes(&other, &bytes).is_err());
    let mut other = statement.clone();
    other.requests.pop();
    assert!(verify_bytes(&other, &bytes).is_err());
    // A repeated identifier is refused before anything is verified.
    let mut other = statement;
    other.requests[1].id = other.requests[0].id;
    assert!(matches!(verify_bytes(&other, &bytes), Err(VerifyError::Statement(_))));
}

#[test]
fn token_digests_open() {
    let full = full(1, 1, &SITES);
    let witness = full.witness();
    let fixed = full.commit::<Native>(&witness);
    let mut statement = full.statement(&witness, &fixed);
    let request = &witness.ctx.requests[0];
    let opening = TokenOpening { prompt_salt: [8; 32], salt: [9; 32], ..TokenOpening::public(&request.tokens, request.prompt_len) };
    statement.requests[0].tokens = Tokens::Digests(opening.digests(full.relation.params.tokens));
    let inputs = Inputs { claim: (&statement).into(), relation: &full.relation, tokens: vec![Some(opening.clone())], fixed: fixed.iter().collect() };
    let proof = prove(inputs, witness, &mut Stages::new(&mut Silent)).unwrap();
    let bytes = proof.to_bytes();
    verify_bytes(&statement, &bytes).unwrap();
    let wrong: [fn(&mut TokenOpening); 6] = [
        |o| o.prompt_salt[0] ^= 1,
        |o| o.salt[0] ^= 1,
        |o| o.tokens[0] ^= 1,
        |o| o.prompt_len -= 1,
        |o| o.tokens.truncate(o.tokens.len() - 1),
        |o| o.tokens.push(0),
    ];
    let refuse = |opening: Option<TokenOpening>| {
        let mut proof = Proof::<Native>::from_bytes(&bytes).unwrap();
        proof.tokens = vec![opening];
        assert!(matches!(verify(&statement, &proof), Err(VerifyError::Statement(_))));
    };
    refuse(None);
    // A long opening is refused by its length, before it is hashed: this would take minutes.
    let start = std::time::Instant::now();
    refuse(Some(TokenOpening::public(&vec![0; 20_000_000], 3)));
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    for change in wrong {
        let mut other = opening.clone();
        change(&mut other);
        refuse(Some(other));
    }
    // An opening of another digest whose tokens are the same: another statement.
    let mut other = opening;
    other.salt[1] ^= 1;
    let mut proof = Proof::<Native>::from_bytes(&bytes).unwrap();
    let mut elsewhere = statement.clone();
    elsewhere.requests[0].tokens = Tokens::Digests(other.digests(full.relation.params.tokens));
    proof.tokens = vec![Some(other)];
    assert!(verify(&elsewhere, &proof).is_err());
}

#[test]
fn golden_values() {
    let full = full(2, 1, &Site::ALL);
    let (statement, bytes) = proven(&full);
    let index = statement.index.as_ref().unwrap();
    let pins = format!("base {}\nadapter {}\nindex {}\n", index.base, index.adapter, index.commitment);
    let digests = format!("statement {}\nrelation {}\n{pins}proof header {:?}\n", statement.digest(), statement.relation.digest(), &bytes[..5]);
    common::golden::check("digests.txt", &digests);
    common::golden::check("attribution.txt", &common::golden::counts(&full.relation));
    common::golden::check("forward.txt", &common::golden::counts(&common::forward(2, 1).relation));
    let names = |list: Vec<&str>| list.into_iter().map(|n| format!("{n}\n")).collect::<String>();
    common::golden::check("constraints.txt", &names(full.relation.constraints.iter().map(|c| c.name.as_str()).collect()));
    common::golden::check("lookups.txt", &names(full.relation.lookups.iter().map(|l| l.name.as_str()).collect()));
}
