//! A request's tokens: in the clear, or behind two salted digests.
//!
//! One digest is the prompt's, one the whole exchange's. Each has a salt of its own, so that whoever asks can make the prompt's before there is
//! an answer, and show either without the other. Both are Poseidon2 hashes over words that the outer circuit computes again from its secret tokens.

use super::Digest;
use crate::poseidon2;
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use serde::{Deserialize, Serialize};

/// Digests of a request's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDigests {
    /// [`prompt_digest`].
    pub prompt: Digest,
    /// [`exchange_digest`].
    pub exchange: Digest,
}

/// Tokens in the clear, or digests of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// Prompt and answer.
    Public {
        /// Token ids, prompt first.
        tokens: Vec<u32>,
        /// Tokens of the prompt.
        prompt_len: usize,
    },
    /// [`TokenOpening::digests`]; the inner proof carries the opening.
    Digests(TokenDigests),
}

/// The opening of both digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOpening {
    /// Salt of the prompt's digest: the payer's, where there is one.
    pub prompt_salt: [u8; 32],
    /// Salt of the exchange's digest.
    pub salt: [u8; 32],
    /// Token ids, prompt first.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
}

impl TokenOpening {
    /// Of public tokens: both salts are zero.
    pub fn public(tokens: &[u32], prompt_len: usize) -> Self {
        Self { prompt_salt: [0; 32], salt: [0; 32], tokens: tokens.to_vec(), prompt_len }
    }

    /// The digests it opens. The work grows with the number of tokens: whoever has the opening from elsewhere checks its lengths first.
    pub fn digests(&self, capacity: usize) -> TokenDigests {
        let prompt = self.tokens.get(..self.prompt_len).unwrap_or(&self.tokens);
        let exchange = exchange_digest(self.salt, &self.tokens, self.prompt_len, capacity);
        TokenDigests { prompt: prompt_digest(self.prompt_salt, prompt, capacity), exchange }
    }
}

/// Eight token ids to a scalar, padded with zeros to `capacity`.
fn packed(tokens: &[u32], capacity: usize) -> impl Iterator<Item = Bn254> {
    let mut padded: Vec<u64> = tokens.iter().map(|&t| t.into()).collect();
    padded.resize(capacity.max(tokens.len()), 0);
    padded.chunks(8).map(poseidon2::pack).collect::<Vec<_>>().into_iter()
}

/// A prompt's digest: the Poseidon2 hash of the salt (modulo the order), the prompt's length and its token ids, eight to a scalar, padded with zeros
/// to `capacity`, the relation's tokens.
pub fn prompt_digest(salt: [u8; 32], prompt: &[u32], capacity: usize) -> Digest {
    let mut words = vec![Digest(salt).word(), Bn254::from_usize(prompt.len())];
    words.extend(packed(prompt, capacity));
    Digest::of_word(poseidon2::hash(&words))
}

/// An exchange's digest: the Poseidon2 hash of the salt (modulo the order), the lengths of exchange and prompt, and the token ids, eight to a scalar,
/// padded with zeros to `capacity`.
pub fn exchange_digest(salt: [u8; 32], tokens: &[u32], prompt_len: usize, capacity: usize) -> Digest {
    let mut words = vec![Digest(salt).word(), Bn254::from_usize(tokens.len()), Bn254::from_usize(prompt_len)];
    words.extend(packed(tokens, capacity));
    Digest::of_word(poseidon2::hash(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: ([u8; 32], [u8; 32]) = ([3; 32], [4; 32]);

    fn opening() -> TokenOpening {
        let (prompt_salt, salt) = OPENING;
        TokenOpening { prompt_salt, salt, tokens: vec![5, 0, 7, 9, 0], prompt_len: 2 }
    }

    #[test]
    fn a_prompts_digest_knows_nothing_of_the_answer() {
        let digests = opening().digests(8);
        assert_eq!(digests.prompt, prompt_digest(OPENING.0, &[5, 0], 8));
        let others: [fn(&mut TokenOpening); 3] = [|o| o.tokens[3] += 1, |o| o.tokens.truncate(3), |o| o.salt[0] ^= 1];
        for change in others {
            let mut other = opening();
            change(&mut other);
            let found = other.digests(8);
            assert_eq!(found.prompt, digests.prompt);
            assert_ne!(found.exchange, digests.exchange);
        }
        let mut other = opening();
        other.prompt_salt[0] ^= 1;
        assert_eq!(other.digests(8).exchange, digests.exchange);
        assert_ne!(other.digests(8).prompt, digests.prompt);
    }

    /// Zeros that are tokens aren't padding, and no length stands for another.
    #[test]
    fn lengths_are_part_of_the_digests() {
        let salt = [1; 32];
        let prompts: Vec<Digest> = [&[5][..], &[5, 0], &[5, 0, 0], &[0, 5]].iter().map(|p| prompt_digest(salt, p, 8)).collect();
        let distinct: std::collections::BTreeSet<_> = prompts.iter().collect();
        assert_eq!(distinct.len(), prompts.len());
        let mut other = opening();
        other.prompt_len = 3;
        let (a, b) = (opening().digests(8), other.digests(8));
        assert!(a.prompt != b.prompt && a.exchange != b.exchange);
    }
}
