//! Poseidon2 over BN254's scalar field, `t = 3`: 8 full and 56 partial rounds, S-box `x⁵` ("Poseidon2: A Faster Version of the Poseidon
//! Hash Function", ePrint 2023/323). The permutation of the `evm` profile's Merkle trees and transcript, of statements and of token digests.

use p3_bn254::{BN254_POSEIDON2_HALF_FULL_ROUNDS, BN254_POSEIDON2_PARTIAL_ROUNDS_3, Bn254, Poseidon2Bn254};
use p3_field::PrimeCharacteristicRing;
use p3_symmetric::Permutation as _;
use std::sync::OnceLock;

/// The permutation's type.
pub type Permutation = Poseidon2Bn254<3>;

/// Round constants.
#[derive(Clone, Debug)]
pub struct Constants {
    /// Of the first four full rounds.
    pub initial: Vec<[Bn254; 3]>,
    /// Of the partial rounds, added to the first element.
    pub partial: Vec<Bn254>,
    /// Of the last four full rounds.
    pub terminal: Vec<[Bn254; 3]>,
}

/// The round constants: BLAKE3's output on a fixed label, 64 bytes each, big-endian, modulo the order.
pub fn constants() -> Constants {
    let mut stream = blake3::Hasher::new().update(b"poa/poseidon2/bn254/t=3/v1").finalize_xof();
    let mut next = || {
        let mut bytes = [0u8; 64];
        stream.fill(&mut bytes);
        let byte = Bn254::from_u64(256);
        bytes.iter().fold(Bn254::ZERO, |acc, &b| acc * byte + Bn254::from_u8(b))
    };
    let mut full = || (0..BN254_POSEIDON2_HALF_FULL_ROUNDS).map(|_| [next(), next(), next()]).collect::<Vec<_>>();
    let (initial, terminal) = (full(), full());
    Constants { initial, partial: (0..BN254_POSEIDON2_PARTIAL_ROUNDS_3).map(|_| next()).collect(), terminal }
}

/// The permutation.
pub fn permutation() -> Permutation {
    static PERMUTATION: OnceLock<Permutation> = OnceLock::new();
    PERMUTATION
        .get_or_init(|| {
            let c = constants();
            Permutation::new(p3_poseidon2::ExternalLayerConstants::new(c.initial, c.terminal), c.partial)
        })
        .clone()
}

/// The hash of a list of scalars: two at a time are added to the state, whose last lane begins with their number.
pub fn hash(words: &[Bn254]) -> Bn254 {
    let mut state = [Bn254::ZERO, Bn254::ZERO, Bn254::from_usize(words.len())];
    for chunk in words.chunks(2) {
        state.iter_mut().zip(chunk).for_each(|(s, &w)| *s += w);
        state = permutation().permute(state);
    }
    state[0]
}

/// `Σ x_i·2^(31·i)` of at most eight numbers below `2^31`.
pub fn pack(numbers: &[u64]) -> Bn254 {
    let radix = Bn254::from_u64(1 << 31);
    numbers.iter().rev().fold(Bn254::ZERO, |acc, &x| acc * radix + Bn254::from_u64(x))
}
