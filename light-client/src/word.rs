//! 32-byte big-endian words, as the EVM has them, and the field elements that they stand for.

use ark_bn254::{Fq, Fr};
use ark_ff::{BigInt, BigInteger, Field, PrimeField};
use sha3::{Digest, Keccak256};

/// An EVM word, big-endian.
pub type Word = [u8; 32];

/// Two-adicity of BN254's scalar field: circuits have at most `2^28` rows.
pub const TWO_ADICITY: u32 = 28;

/// The generator of the scalar field's multiplicative group that halo2's domains are built from (arkworks uses another).
const GENERATOR: u64 = 7;

fn limbs(word: &Word) -> BigInt<4> {
    let mut limbs = [0u64; 4];
    for (limb, bytes) in limbs.iter_mut().zip(word.rchunks_exact(8)) {
        *limb = bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
    }
    BigInt(limbs)
}

fn to_word(value: BigInt<4>) -> Word {
    let mut word = [0; 32];
    word.iter_mut().zip(value.to_bytes_be()).for_each(|(to, from)| *to = from);
    word
}

/// The scalar that a word stands for, if the word is below the field's order.
pub fn scalar(word: &Word) -> Option<Fr> {
    Fr::from_bigint(limbs(word))
}

/// The coordinate that a word stands for, if the word is below the field's order.
pub fn coordinate(word: &Word) -> Option<Fq> {
    Fq::from_bigint(limbs(word))
}

/// A word, modulo the order of the scalar field.
pub fn reduced(word: &Word) -> Fr {
    Fr::from_be_bytes_mod_order(word)
}

/// The word of a scalar.
pub fn scalar_word(value: Fr) -> Word {
    to_word(value.into_bigint())
}

/// The word of a coordinate.
pub fn coordinate_word(value: Fq) -> Word {
    to_word(value.into_bigint())
}

/// The word of an integer.
pub fn integer_word(value: u64) -> Word {
    to_word(BigInt([value, 0, 0, 0]))
}

/// Keccak-256.
pub fn keccak(bytes: &[u8]) -> Word {
    Keccak256::digest(bytes).into()
}

/// A primitive `2^k`-th root of unity, the one of halo2's domains; `None` beyond [`TWO_ADICITY`].
pub fn root_of_unity(k: u32) -> Option<Fr> {
    let squarings = TWO_ADICITY.checked_sub(k)?;
    let root = Fr::from(GENERATOR).pow(Fr::TRACE);
    Some((0..squarings).fold(root, |root, _| root.square()))
}

/// Separates the columns' cosets in the permutation argument: a generator of the subgroup of odd order.
pub fn coset_generator() -> Fr {
    Fr::from(GENERATOR).pow([1u64 << TWO_ADICITY])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_ff::FftField;

    #[test]
    fn words_are_canonical() {
        let order = to_word(Fr::MODULUS);
        assert_eq!(scalar(&order), None);
        assert_eq!(reduced(&order), Fr::from(0));
        assert_eq!(coordinate(&to_word(Fq::MODULUS)), None);
        let mut below = order;
        below[31] -= 1;
        assert_eq!(scalar(&below), Some(-Fr::from(1)));
        assert_eq!(scalar_word(-Fr::from(1)), below);
        assert_eq!(scalar(&integer_word(u64::MAX)), Some(Fr::from(u64::MAX)));
        assert_eq!(scalar(&[0xff; 32]), None);
    }

    #[test]
    fn roots_have_their_orders() {
        assert_eq!(TWO_ADICITY, Fr::TWO_ADICITY);
        assert_eq!(root_of_unity(0), Some(Fr::from(1)));
        assert_eq!(root_of_unity(1), Some(-Fr::from(1)));
        assert_ne!(root_of_unity(28).unwrap().pow([1 << 27]), Fr::from(1));
        assert_eq!(root_of_unity(29), None);
        assert_eq!(coset_generator().pow(Fr::TRACE), Fr::from(1));
        assert_ne!(coset_generator(), Fr::from(1));
    }
}
