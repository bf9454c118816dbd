//! What mutation tests share: a real proof, randomness, and the assertion that nothing is accepted and nothing panics.

use super::full;
use circuits::statement::Statement;
use model_runtime::shape::Site;
use prover::prove::{Inputs, Silent, Stages, prove};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use verifier::profile::Native;
use verifier::verify_bytes;

/// A statement and its proof.
pub struct Proven {
    pub statement: Statement,
    pub bytes: Vec<u8>,
}

/// Attribution of one answer of a one-layer model.
pub fn fixture() -> &'static Proven {
    static FIXTURE: OnceLock<Proven> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let full = full(1, 1, &[Site::Q, Site::Down]);
        let witness = full.witness();
        let fixed = full.commit::<Native>(&witness);
        let statement = full.statement(&witness, &fixed);
        let inputs = Inputs { claim: (&statement).into(), relation: &full.relation, tokens: vec![None], fixed: fixed.iter().collect() };
        let bytes = prove(inputs, witness, &mut Stages::new(&mut Silent)).unwrap().to_bytes();
        verify_bytes(&statement, &bytes).unwrap();
        Proven { statement, bytes }
    })
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Asserts that a check neither accepts nor panics.
pub fn refused(what: &str, accepts: impl FnOnce() -> bool) {
    match catch_unwind(AssertUnwindSafe(accepts)) {
        Ok(false) => {}
        Ok(true) => panic!("accepted: {what}"),
        Err(_) => panic!("panicked: {what}"),
    }
}
