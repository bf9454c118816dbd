//! A vocabulary of scored pieces, and the two ways SentencePiece encodes with one.
//!
//! Merging (BPE): repeatedly join the neighbours whose joined piece has the highest score, leftmost first among equals.
//! Unigram: the segmentation with the highest sum of scores (Viterbi). Both fall back to bytes, or to the unknown token, for characters
//! that have no piece.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// Which segmentation a vocabulary asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Merging by score.
    Bpe,
    /// Best sum of scores.
    Unigram,
}

/// Scored pieces. Control, unknown and byte pieces aren't in `ids`: text never spells them.
pub(super) struct Pieces {
    /// Each id's bytes as decoded (spaces as spaces); empty for control pieces.
    pub(super) decoded: Vec<Vec<u8>>,
    /// Score of each id.
    pub(super) scores: Vec<f32>,
    /// The pieces that text can spell.
    pub(super) ids: HashMap<String, u32>,
    /// Ids of the 256 bytes, when the vocabulary has them all.
    pub(super) bytes: Option<Vec<u32>>,
    /// The unknown token.
    pub(super) unknown: u32,
    /// How to segment.
    pub(super) algorithm: Algorithm,
}

impl Pieces {
    /// Encodes a text that is already normalised.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let parts = match self.algorithm {
            Algorithm::Bpe => self.merge(text),
            Algorithm::Unigram => self.viterbi(text),
        };
        let mut ids = Vec::with_capacity(parts.len());
        for part in parts {
            match (self.ids.get(part), &self.bytes) {
                (Some(&id), _) => ids.push(id),
                (None, Some(bytes)) => ids.extend(part.bytes().filter_map(|b| bytes.get(usize::from(b)))),
                // SentencePiece joins neighbouring unknown characters.
                (None, None) if ids.last() == Some(&self.unknown) => {}
                (None, None) => ids.push(self.unknown),
            }
        }
        ids
    }

    /// The bytes of ids, one after the other.
    pub(super) fn decode(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().filter_map(|&id| self.decoded.get(id as usize)).flatten().copied().collect()
    }

    fn score(&self, piece: &str) -> Option<f32> {
        self.ids.get(piece).and_then(|&id| self.scores.get(id as usize)).copied()
    }

    fn merge<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut chain = Chain::new(text);
        let mut heap = BinaryHeap::new();
        for left in 0..chain.nodes.len() {
            heap.extend(self.candidate(&chain, left));
        }
        while let Some(best) = heap.pop() {
            if chain.joined(best.left).is_some_and(|piece| piece.len() == best.len && chain.nodes[best.left].len == best.left_len) {
                let previous = chain.join(best.left);
                heap.extend(self.candidate(&chain, best.left));
                heap.extend(previous.and_then(|p| self.candidate(&chain, p)));
            }
        }
        chain.parts()
    }

    fn candidate(&self, chain: &Chain, left: usize) -> Option<Merge> {
        let piece = chain.joined(left)?;
        Some(Merge { score: self.score(piece)?, left, len: piece.len(), left_len: chain.nodes[left].len })
    }

    fn viterbi<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let longest = self.ids.keys().map(String::len).max().unwrap_or(0);
        let unknown = self.scores.iter().copied().fold(0.0, f32::min) - 10.0;
        let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).skip(1).chain([text.len()]).collect();
        // Best score of text[..i] and where its last part starts.
        let mut best = vec![(f32::NEG_INFINITY, 0); text.len() + 1];
        best[0].0 = 0.0;
        for (start, c) in text.char_indices() {
            let single = start + c.len_utf8();
            for &end in ends.iter().skip(ends.partition_point(|&e| e <= start)).take_while(|&&e| e == single || e - start <= longest) {
                let fallback = (end == single).then_some(unknown);
                let Some(score) = self.score(&text[start..end]).or(fallback) else { continue };
                if best[start].0 + score > best[end].0 {
                    best[end] = (best[start].0 + score, start);
                }
            }
        }
        let mut parts = Vec::new();
        let mut end = text.len();
        while end > 0 {
            parts.push(&text[best[end].1..end]);
            end = best[end].1;
        }
        parts.reverse();
        parts
    }
}

/// A possible join of a node with its right neighbour; stale once either has changed length.
struct Merge {
    score: f32,
    left: usize,
    len: usize,
    left_len: usize,
}

impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left)).then(self.len.cmp(&other.len))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Merge {}

/// The parts of a text as a doubly linked list; `len` is 0 for parts already joined to their left.
struct Chain<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

struct Node {
    start: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

impl<'a> Chain<'a> {
    fn new(text: &'a str) -> Self {
        let count = text.chars().count();
        let node = |(i, (start, c)): (usize, (usize, char))| Node {
            start,
            len: c.len_utf8(),
            previous: i.checked_sub(1),
            next: (i + 1 < count).then_some(i + 1),
        };
        Self { text, nodes: text.char_indices().enumerate().map(node).collect() }
    }

    /// The text of a node and its right neighbour.
    fn joined(&self, left: usize) -> Option<&'a str> {
        let node = &self.nodes[left];
        let next = &self.nodes[node.next?];
        (node.len > 0).then(|| &self.text[node.start..next.start + next.len])
    }

    /// Joins a node with its right neighbour; returns its left neighbour.
    fn join(&mut self, left: usize) -> Option<usize> {
        if let Some(right) = self.nodes[left].next {
            self.nodes[left].len += std::mem::take(&mut self.nodes[right].len);
            let next = self.nodes[right].next;
            self.nodes[left].next = next;
            if let Some(next) = next {
                self.nodes[next].previous = Some(left);
            }
        }
        self.nodes[left].previous
    }

    fn parts(&self) -> Vec<&'a str> {
        self.nodes.iter().filter(|n| n.len > 0).map(|n| &self.text[n.start..n.start + n.len]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(algorithm: Algorithm, with: &[(&str, f32)]) -> Pieces {
        Pieces {
            decoded: with.iter().map(|(p, _)| p.as_bytes().to_vec()).collect(),
            scores: with.iter().map(|(_, s)| *s).collect(),
            ids: with.iter().enumerate().skip(1).map(|(i, (p, _))| (p.to_string(), i as u32)).collect(),
            bytes: None,
            unknown: 0,
            algorithm,
        }
    }

    const VOCABULARY: [(&str, f32); 9] =
        [("?", 0.0), ("a", -3.0), ("b", -4.0), ("c", -5.0), ("é", -5.5), ("ab", -1.0), ("bc", -0.5), ("abc", -2.0), ("aa", -1.5)];

    /// llama2.c's loop: the best pair of the whole list, again and again.
    fn merge_naively(pieces: &Pieces, text: &str) -> Vec<String> {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let score = |i: usize| pieces.score(&(parts[i].clone() + &parts[i + 1])).map(|s| (i, s));
            let scored = (0..parts.len().saturating_sub(1)).filter_map(score);
            let Some((i, _)) = scored.reduce(|best, x| if x.1 > best.1 { x } else { best }) else { return parts };
            let right = parts.remove(i + 1);
            parts[i] += &right;
        }
    }

    fn all_segmentations(text: &str) -> Vec<Vec<&str>> {
        if text.is_empty() {
            return vec![Vec::new()];
        }
        let ends = text.char_indices().map(|(i, c)| i + c.len_utf8());
        ends.flat_map(|end| all_segmentations(&text[end..]).into_iter().map(move |rest| [vec![&text[..end]], rest].concat())).collect()
    }

    proptest! {
        #[test]
        fn merging_is_the_naive_loop(text in "[abcéx]{0,12}") {
            let pieces = pieces(Algorithm::Bpe, &VOCABULARY);
            prop_assert_eq!(pieces.merge(&text), merge_naively(&pieces, &text));
        }

        #[test]
        fn viterbi_is_the_best_segmentation(text in "[abcé]{0,8}") {
            let pieces = pieces(Algorithm::Unigram, &VOCABULARY);
            let total = |parts: &[&str]| parts.iter().map(|p| pieces.score(p)).sum::<Option<f32>>();
            let best = all_segmentations(&text).iter().filter_map(|p| total(p)).fold(f32::NEG_INFINITY, f32::max);
            prop_assert!((total(&pieces.viterbi(&text)).unwrap() - best).abs() < 1e-4);
        }
    }

    #[test]
    fn unknown_characters_join() {
        let pieces = pieces(Algorithm::Bpe, &VOCABULARY);
        assert_eq!(pieces.encode("axxb"), [1, 0, 2]);
    }
}
