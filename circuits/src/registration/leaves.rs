//! Leaves of samples: two Poseidon2 trees, one by row and one by tokens, so that a sample's being there, and a text's not being there, are each shown
//! by one path.
//!
//! A leaf by row is the hash of length, contributor, whether it earns, and tokens; a leaf by tokens is the hash of a key (the hash of the tokens) and
//! the next larger key: a text whose key lies strictly between the two is nowhere.

use super::Sample;
use crate::poseidon2;
use crate::statement::Digest;
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use serde::{Deserialize, Serialize};

/// First word of a leaf by row, of a key and of a pair of keys: what is hashed for one purpose is never what is hashed for another.
const ROW: u64 = 1;
const KEY: u64 = 2;
const PAIR: u64 = 3;
/// Of a root: it covers the number of leaves.
const ROOT: u64 = 4;

fn packed(tokens: &[u32]) -> Vec<Bn254> {
    tokens.chunks(8).map(|chunk| poseidon2::pack(&chunk.iter().map(|&t| t.into()).collect::<Vec<u64>>())).collect()
}

/// What is packed has one preimage: numbers of 31 bits, which the samples of a registration are, and a path's must be, too.
fn are_tokens(tokens: &[u32]) -> bool {
    tokens.iter().all(|&t| t < 1 << 31)
}

/// A sample's leaf.
pub fn leaf(sample: &Sample) -> Bn254 {
    let head = [ROW, sample.tokens.len() as u64, sample.contributor.into(), sample.earns.into()].map(Bn254::from_u64);
    poseidon2::hash(&[head.to_vec(), packed(&sample.tokens)].concat())
}

/// What a text's tokens are found by.
fn key(tokens: &[u32]) -> Digest {
    let head = [KEY, tokens.len() as u64].map(Bn254::from_u64);
    Digest::of_word(poseidon2::hash(&[head.to_vec(), packed(tokens)].concat()))
}

fn pair(low: &Digest, high: &Digest) -> Bn254 {
    poseidon2::hash(&[Bn254::from_u64(PAIR), low.word(), high.word()])
}

/// The largest key: no text's, but with negligible probability.
fn last() -> Digest {
    Digest::of_word(-Bn254::ONE)
}

/// One encoding of each scalar: a path with another would be compared as another number than it is hashed as.
fn is_canonical(digest: &Digest) -> bool {
    Digest::of_word(digest.word()) == *digest
}

/// A Merkle tree; leaves are padded with zeros to a power of two.
#[derive(Clone, Debug)]
struct Tree {
    /// Leaves first, the top last.
    levels: Vec<Vec<Bn254>>,
    len: usize,
}

fn node(left: Bn254, right: Bn254) -> Bn254 {
    poseidon2::hash(&[left, right])
}

fn root_of(top: Bn254, len: usize) -> Digest {
    Digest::of_word(poseidon2::hash(&[Bn254::from_u64(ROOT), Bn254::from_usize(len), top]))
}

impl Tree {
    fn new(mut leaves: Vec<Bn254>) -> Self {
        let len = leaves.len();
        leaves.resize(len.next_power_of_two(), Bn254::ZERO);
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            let next = last.chunks_exact(2).map(|pair| node(pair[0], pair[1])).collect();
            levels.push(next);
        }
        Self { levels, len }
    }

    fn root(&self) -> Digest {
        root_of(self.levels.last().map_or(Bn254::ZERO, |top| top[0]), self.len)
    }

    fn path(&self, at: usize) -> Path {
        let levels = &self.levels[..self.levels.len() - 1];
        let siblings = levels.iter().enumerate().map(|(height, level)| Digest::of_word(level[(at >> height) ^ 1])).collect();
        Path { at, len: self.len, siblings }
    }
}

/// Siblings from a leaf to the top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Path {
    at: usize,
    len: usize,
    siblings: Vec<Digest>,
}

impl Path {
    /// The root that a leaf leads to; `None` if the path is no leaf's of so many.
    fn root(&self, leaf: Bn254) -> Option<Digest> {
        let height = self.len.checked_next_power_of_two()?.trailing_zeros() as usize;
        if self.at >= self.len || self.siblings.len() != height || !self.siblings.iter().all(is_canonical) {
            return None;
        }
        let up = |(i, node_below): (usize, Bn254), sibling: &Digest| {
            let pair = if (self.at >> i) & 1 == 0 { [node_below, sibling.word()] } else { [sibling.word(), node_below] };
            (i + 1, node(pair[0], pair[1]))
        };
        Some(root_of(self.siblings.iter().fold((0, leaf), up).1, self.len))
    }
}

/// Both trees of a datanet's samples.
#[derive(Clone, Debug)]
pub struct Leaves {
    rows: Tree,
    sorted: Tree,
    keys: Vec<Digest>,
}

/// A sample is in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The sample.
    pub sample: Sample,
    path: Path,
}

/// A text is in no row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// The text's tokens.
    pub tokens: Vec<u32>,
    low: Digest,
    high: Digest,
    path: Path,
}

impl Leaves {
    /// The trees of samples in the order of their rows.
    pub fn new(samples: &[Sample]) -> Self {
        let mut keys: Vec<Digest> = samples.iter().map(|s| key(&s.tokens)).collect();
        keys.push(Digest::default());
        keys.sort_unstable();
        keys.dedup();
        let next = keys.iter().skip(1).copied().chain([last()]);
        let pairs = keys.iter().zip(next).map(|(low, high)| pair(low, &high)).collect();
        Self { rows: Tree::new(samples.iter().map(leaf).collect()), sorted: Tree::new(pairs), keys }
    }

    /// Root by row.
    pub fn root(&self) -> Digest {
        self.rows.root()
    }

    /// Root by tokens.
    pub fn sorted_root(&self) -> Digest {
        self.sorted.root()
    }

    /// Shows that a row holds a sample; `None` if there is no such row.
    pub fn member(&self, samples: &[Sample], row: usize) -> Option<Member> {
        Some(Member { sample: samples.get(row)?.clone(), path: self.rows.path(row) })
    }

    /// Shows that no row has these tokens; `None` if one has.
    pub fn absent(&self, tokens: &[u32]) -> Option<Absent> {
        let own = key(tokens);
        let at = self.keys.partition_point(|k| *k <= own).checked_sub(1)?;
        let high = self.keys.get(at + 1).copied().unwrap_or_else(last);
        (self.keys[at] != own).then(|| Absent { tokens: tokens.to_vec(), low: self.keys[at], high, path: self.sorted.path(at) })
    }
}

impl Member {
    /// Its row.
    pub fn row(&self) -> usize {
        self.path.at
    }

    /// Whether it belongs to a datanet with this root by row.
    pub fn is_of(&self, root: &Digest) -> bool {
        are_tokens(&self.sample.tokens) && self.path.root(leaf(&self.sample)) == Some(*root)
    }
}

impl Absent {
    /// Whether no row has the tokens, in a datanet with this root by tokens.
    pub fn is_of(&self, root: &Digest) -> bool {
        let own = key(&self.tokens);
        are_tokens(&self.tokens)
            && [self.low, self.high].iter().all(is_canonical)
            && self.low < own
            && own < self.high
            && self.path.root(pair(&self.low, &self.high)) == Some(*root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tokens: &[u32], contributor: u32, earns: bool) -> Sample {
        Sample { tokens: tokens.to_vec(), contributor, earns }
    }

    fn samples() -> Vec<Sample> {
        vec![sample(&[1, 5], 0, true), sample(&[1, 5, 0], 1, true), sample(&[1, 9, 9], 0, false), sample(&[1, 7], 2, true), sample(&[1, 5], 2, false)]
    }

    #[test]
    fn a_sample_is_in_its_row_and_in_no_other() {
        let samples = samples();
        let leaves = Leaves::new(&samples);
        for row in 0..samples.len() {
            let member = leaves.member(&samples, row).unwrap();
            assert!(member.row() == row && member.is_of(&leaves.root()));
            let changes: [fn(&mut Member); 8] = [
                // The same scalar, of other tokens.
                |m| (m.sample.tokens[0], m.sample.tokens[1]) = (m.sample.tokens[0] + (1 << 31), m.sample.tokens[1] - 1),
                |m| m.sample.tokens.push(0),
                |m| m.sample.contributor += 1,
                |m| m.sample.earns = !m.sample.earns,
                |m| m.path.at ^= 1,
                |m| m.path.at += 8,
                |m| m.path.len += 1,
                |m| m.path.siblings.truncate(2),
            ];
            for change in changes {
                let mut other = member.clone();
                change(&mut other);
                assert!(!other.is_of(&leaves.root()));
            }
        }
        assert!(leaves.member(&samples, samples.len()).is_none());
    }

    #[test]
    fn a_text_is_absent_or_present_and_never_both() {
        let samples = samples();
        let leaves = Leaves::new(&samples);
        assert!(samples.iter().all(|s| leaves.absent(&s.tokens).is_none()));
        for tokens in [&[1, 6][..], &[1, 5, 0, 0], &[2], &[1, 9], &[]] {
            assert!(leaves.absent(tokens).unwrap().is_of(&leaves.sorted_root()));
        }
        // A present text between keys that aren't neighbours, or are another tree's, or are the same numbers written otherwise.
        let foreign = Leaves::new(&samples[..1]).absent(&samples[3].tokens).unwrap();
        assert!(!foreign.is_of(&leaves.sorted_root()));
        for at in 0..leaves.keys.len() {
            let (low, high) = (leaves.keys[at], leaves.keys.get(at + 1).copied().unwrap_or_else(last));
            for s in &samples {
                let honest = Absent { tokens: s.tokens.clone(), low, high, path: leaves.sorted.path(at) };
                assert!(!honest.is_of(&leaves.sorted_root()));
                for wide in [plus_order(&honest.high), last()] {
                    assert!(!Absent { high: wide, ..honest.clone() }.is_of(&leaves.sorted_root()));
                }
            }
        }
    }

    #[test]
    fn tokens_beyond_a_scalars_digits_are_refused() {
        let leaves = Leaves::new(&samples());
        let absent = leaves.absent(&[1, 6]).unwrap();
        assert!(!Absent { tokens: vec![1 + (1 << 31), 5], ..absent }.is_of(&leaves.sorted_root()));
    }

    /// The same scalar, written as a larger number.
    fn plus_order(digest: &Digest) -> Digest {
        let (mut out, order_less_one) = (digest.0, last().0);
        let mut carry = 1u16;
        for (byte, add) in out.iter_mut().zip(order_less_one).rev() {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert_eq!(Digest(out).word(), digest.word());
        Digest(out)
    }
}
