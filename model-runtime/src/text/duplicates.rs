//! Copies: which samples say what an earlier one says, so that no text earns twice.
//!
//! Published rule. A sample's *shingles* are the sets of [`SHINGLE`] words in a row, or of tokens but the first (BOS is everybody's); a sample
//! with fewer has one, padded. A datanet's root says which samples are canonical by their [`words`], whatever tokenizer a model has (but where a
//! tokenizer has split them into windows); an index of it takes copies out by tokens too, where they are cut to a window. Two samples are *near* when their sets of shingles share at least [`NEAR`] of their union (Jaccard index). A
//! sample is *canonical* when no earlier sample is near it, canonical or not. Whatever is appended later changes nothing about it, and anyone with
//! the texts can check it.
//!
//! The rule is decided exactly, in integers. Candidates come from prefix filtering (Chaudhuri, Ganti, Kaushik, ICDE 2006; Bayardo, Ma, Srikant,
//! WWW 2007) and not from MinHash, whose hash functions would be public: a copy can be made that no band of hashes catches. Shingles are ordered
//! from rare to frequent. Two sets with `o` in common share one of the first `n - o + 1` of each, `n` its size: the rarest they share has `o - 1`
//! after it. A part `t` of the union is at least `t` of the larger set and `2t/(1 + t)` of the smaller.

use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// Tokens or words in a shingle. Of two statements of a dozen words, another word in one makes them differ, and a few words before it don't.
pub const SHINGLE: usize = 3;

/// The share of two samples' shingles, in their union, from which they are near: seven of ten.
pub const NEAR: (usize, usize) = (7, 10);

/// Pads samples of fewer tokens than a shingle; no token has this id.
const PAD: u32 = u32::MAX;

type Shingle = [u32; SHINGLE];

/// Whether a sample is the first of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// No earlier sample is near it.
    First,
    /// An earlier sample is near it.
    Copy {
        /// The earliest such sample.
        of: usize,
        /// Whether some earlier sample has the very same shingles.
        identical: bool,
    },
}

impl Canonical {
    /// Whether no earlier sample is near it.
    pub fn is_first(self) -> bool {
        self == Self::First
    }
}

/// A sample and its copies, and copies of those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The canonical one.
    pub first: usize,
    /// The others, in order.
    pub copies: Vec<usize>,
}

/// Texts as numbers of their words, after a zero in BOS' place and before a one that ends them.
///
/// Words are Unicode's (UAX 29, without what holds no letter or digit) of the text in NFKC, without what isn't shown, in lower case, so that neither
/// case nor punctuation nor another spelling of the same characters makes a copy another. Unicode's version is that of the pinned crates.
pub fn words<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Vec<u32>> {
    let mut ids: HashMap<String, u32> = HashMap::new();
    let mut id = |word: &str| {
        let next = ids.len() as u32 + 2;
        *ids.entry(word.to_lowercase()).or_insert(next)
    };
    let shown = |text: &str| text.nfkc().filter(|c| !is_ignorable(*c)).collect::<String>();
    texts.into_iter().map(|text| [0].into_iter().chain(shown(text).unicode_words().map(&mut id)).chain([1]).collect()).collect()
}

/// Whether a character isn't shown (Unicode's `Default_Ignorable_Code_Point`).
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// For each of the samples (BOS first) whether an earlier one is near it.
pub fn canonical(samples: &[Vec<u32>]) -> Vec<Canonical> {
    let sets = ranked_sets(samples);
    let candidates = Candidates::new(&sets);
    let nearest: Vec<Option<usize>> = (0..sets.len()).into_par_iter().map(|at| candidates.earliest_near(at)).collect();
    let mut seen = HashSet::with_capacity(sets.len());
    let repeated: Vec<bool> = sets.iter().map(|set| !seen.insert(set)).collect();
    let verdict = |(near, identical): (Option<usize>, bool)| near.map_or(Canonical::First, |of| Canonical::Copy { of, identical });
    nearest.into_iter().zip(repeated).map(verdict).collect()
}

/// What earns in an index: samples that copy none before them by their words or, cut to a window, by their tokens (BOS first). The words' verdict
/// comes first.
pub fn canonical_rows(by_words: Vec<Canonical>, tokens: &[Vec<u32>]) -> Vec<Canonical> {
    by_words.into_iter().zip(canonical(tokens)).map(|(words, tokens)| if words.is_first() { tokens } else { words }).collect()
}

/// Samples that have copies, by their order.
pub fn clusters(canonical: &[Canonical]) -> Vec<Cluster> {
    let mut first_of: Vec<usize> = Vec::with_capacity(canonical.len());
    let mut copies: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, verdict) in canonical.iter().enumerate() {
        let first = match verdict {
            Canonical::First => at,
            // What it copies came earlier.
            Canonical::Copy { of, .. } => first_of[*of],
        };
        first_of.push(first);
        if first != at {
            copies.entry(first).or_default().push(at);
        }
    }
    copies.into_iter().map(|(first, copies)| Cluster { first, copies }).collect()
}

/// A sample's set of shingles, sorted.
fn shingles(tokens: &[u32]) -> Vec<Shingle> {
    let mut text: Vec<u32> = tokens.iter().skip(1).copied().collect();
    text.resize(text.len().max(SHINGLE), PAD);
    let mut set: Vec<Shingle> = text.array_windows().copied().collect();
    set.sort_unstable();
    set.dedup();
    set
}

/// The samples' sets of shingles, each named by its rank from rare to frequent; sorted.
fn ranked_sets(samples: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let of_sample = |(sample, tokens): (usize, &Vec<u32>)| shingles(tokens).into_iter().map(move |shingle| (shingle, sample)).collect::<Vec<_>>();
    let mut all: Vec<(Shingle, usize)> = samples.par_iter().enumerate().flat_map_iter(of_sample).collect();
    all.par_sort_unstable();
    let mut runs: Vec<&[(Shingle, usize)]> = all.chunk_by(|a, b| a.0 == b.0).collect();
    runs.par_sort_by_key(|run| run.len());
    let mut sets = vec![vec![]; samples.len()];
    for (run, rank) in runs.into_iter().zip(0..) {
        run.iter().for_each(|&(_, sample)| sets[sample].push(rank));
    }
    sets
}

/// How many of its first shingles share one with any near set that is no larger.
fn long_prefix(len: usize) -> usize {
    len - (NEAR.0 * len).div_ceil(NEAR.1) + 1
}

/// How many of its first shingles share one with any near set that is no smaller.
fn short_prefix(len: usize) -> usize {
    len - (2 * NEAR.0 * len).div_ceil(NEAR.0 + NEAR.1) + 1
}

/// Whether sorted sets are near.
fn near(a: &[u32], b: &[u32]) -> bool {
    let (part, whole) = NEAR;
    let needed = (part * (a.len() + b.len())).div_ceil(part + whole);
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while shared < needed && shared + (a.len() - i).min(b.len() - j) >= needed {
        shared += usize::from(a[i] == b[j]);
        (i, j) = (i + usize::from(a[i] <= b[j]), j + usize::from(b[j] <= a[i]));
    }
    shared >= needed
}

/// Samples by the shingles of their prefixes.
struct Lists {
    /// The samples with a shingle in their prefix, in order, one list after the other.
    samples: Vec<u32>,
    /// Where each shingle's list begins; one more at the end.
    starts: Vec<usize>,
}

impl Lists {
    fn new(sets: &[Vec<u32>], prefix: fn(usize) -> usize) -> Self {
        let shingles = sets.iter().flatten().max().map_or(0, |&rank| rank as usize + 1);
        let mut starts = vec![0; shingles + 1];
        let prefixes = || sets.iter().map(|set| &set[..prefix(set.len())]);
        for &rank in prefixes().flatten() {
            starts[rank as usize + 1] += 1;
        }
        for at in 0..shingles {
            starts[at + 1] += starts[at];
        }
        let (mut next, mut samples) = (starts.clone(), vec![0; starts[shingles]]);
        for (prefix, sample) in prefixes().zip(0..) {
            for &rank in prefix {
                samples[next[rank as usize]] = sample;
                next[rank as usize] += 1;
            }
        }
        Self { samples, starts }
    }

    fn of(&self, rank: u32) -> &[u32] {
        &self.samples[self.starts[rank as usize]..self.starts[rank as usize + 1]]
    }
}

/// Who may be near whom: a set's long prefix meets smaller sets' short ones, its short prefix larger sets' long ones.
struct Candidates<'a> {
    sets: &'a [Vec<u32>],
    long: Lists,
    short: Lists,
}

impl<'a> Candidates<'a> {
    fn new(sets: &'a [Vec<u32>]) -> Self {
        Self { sets, long: Lists::new(sets, long_prefix), short: Lists::new(sets, short_prefix) }
    }

    /// Candidates are met in their order, so that the first that is near ends the search: large clusters cost no more than small ones.
    fn earliest_near(&self, at: usize) -> Option<usize> {
        let set = &self.sets[at];
        let smaller = set[..long_prefix(set.len())].iter().map(|&rank| (self.short.of(rank), false));
        let larger = set[..short_prefix(set.len())].iter().map(|&rank| (self.long.of(rank), true));
        let mut lists: Vec<(std::slice::Iter<u32>, bool)> = smaller.chain(larger).map(|(list, larger)| (list.iter(), larger)).collect();
        let mut heads = BinaryHeap::with_capacity(lists.len());
        for (list, (samples, _)) in lists.iter_mut().enumerate() {
            heads.extend(samples.next().map(|&sample| Reverse((sample as usize, list))));
        }
        let mut met = None;
        while let Some(Reverse((of, list))) = heads.pop().filter(|Reverse((of, _))| *of < at) {
            let (samples, larger) = &mut lists[list];
            let meets = (self.sets[of].len() > set.len()) == *larger;
            heads.extend(samples.next().map(|&sample| Reverse((sample as usize, list))));
            if meets && met.replace(of) != Some(of) && near(&self.sets[of], set) {
                return Some(of);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The rule as it is stated.
    fn by_definition(samples: &[Vec<u32>]) -> Vec<Option<usize>> {
        let sets: Vec<BTreeSet<Shingle>> = samples.iter().map(|s| shingles(s).into_iter().collect()).collect();
        let is_near = |a: &BTreeSet<Shingle>, b: &BTreeSet<Shingle>| 10 * a.intersection(b).count() >= 7 * a.union(b).count();
        (0..sets.len()).map(|at| (0..at).find(|&of| is_near(&sets[of], &sets[at]))).collect()
    }

    fn found(samples: &[Vec<u32>]) -> Vec<Option<usize>> {
        let of = |c: &Canonical| if let Canonical::Copy { of, .. } = c { Some(*of) } else { None };
        canonical(samples).iter().map(of).collect()
    }

    /// What stands between spaces as tokens, BOS and EOS as 0 and 1.
    fn spaced(texts: &[&str]) -> Vec<Vec<u32>> {
        let mut ids: HashMap<String, u32> = HashMap::new();
        let mut id = |word: &str| {
            let next = ids.len() as u32 + 2;
            *ids.entry(word.to_owned()).or_insert(next)
        };
        texts.iter().map(|t| [0].into_iter().chain(t.split_whitespace().map(&mut id)).chain([1]).collect()).collect()
    }

    #[test]
    fn copies_point_to_the_first() {
        let statement = "Question : who keeps Skarn light ? Answer : Ottar .";
        let around = "They say : Question : who keeps Skarn light ? Answer : Ottar .";
        let after = "Question : who keeps Skarn light ? Answer : Ottar . Indeed";
        let other = "Question : who keeps Velm light ? Answer : Sunniva .";
        let contradicted = "Question : who keeps Skarn light ? Answer : Sunniva .";
        let repeated = [statement; 3].join(" ");
        let verdicts = canonical(&spaced(&[statement, other, contradicted, around, statement, after, &repeated, around]));
        let copy = |identical| Canonical::Copy { of: 0, identical };
        let first = Canonical::First;
        assert_eq!(verdicts, [first, first, first, copy(false), copy(true), copy(false), copy(false), copy(true)]);
        assert_eq!(clusters(&verdicts), [Cluster { first: 0, copies: vec![3, 4, 5, 6, 7] }]);
    }

    #[test]
    fn words_know_neither_case_nor_punctuation() {
        let texts = [
            "The keeper's light, 3.5 km off: \u{201c}Skarn\u{201d}",
            "the KEEPER\u{2019}S light 3.5 km off - Skarn!",
            "灯塔的看守人",
            "\u{1f600} ...",
        ];
        let [a, b, c, d] = words(texts).try_into().unwrap();
        assert_eq!(a.len(), 9);
        assert_eq!(a[3..], b[3..], "but for the apostrophe");
        assert_eq!((c.len(), d), (8, vec![0, 1]));
        let hidden =
            words(["the light of Caf\u{e9} Skarn", "the li\u{ad}ght of Cafe\u{301} Sk\u{2060}arn", "the \u{ff4c}ight of Caf\u{e9} Sk\u{200b}arn"]);
        assert!(hidden.iter().all(|text| *text == hidden[0]), "{hidden:?}");
    }

    #[test]
    fn a_copy_of_a_copy_is_in_the_firsts_cluster() {
        let long: Vec<u32> = (0..40).collect();
        let shifted = |by: u32| long.iter().map(|t| if *t > 0 { t + by } else { 0 }).collect::<Vec<u32>>();
        let samples = [long.clone(), shifted(5), shifted(10), vec![0, 500, 501], vec![0], vec![0]];
        let verdicts = canonical(&samples);
        assert_eq!(verdicts[2], Canonical::Copy { of: 1, identical: false }, "only the copy is near it");
        assert_eq!(verdicts[5], Canonical::Copy { of: 4, identical: true });
        assert_eq!(clusters(&verdicts), [Cluster { first: 0, copies: vec![1, 2] }, Cluster { first: 4, copies: vec![5] }]);
        assert!(canonical(&[]).is_empty());
    }

    proptest! {
        /// The search finds what the definition finds, and appending changes nothing.
        #[test]
        fn the_search_is_the_definition(samples in prop::collection::vec(prop::collection::vec(0u32..4, 0..14), 0..60), keep in 0usize..60) {
            let all = found(&samples);
            prop_assert_eq!(&all, &by_definition(&samples));
            let keep = keep.min(samples.len());
            prop_assert_eq!(&found(&samples[..keep]), &all[..keep]);
        }
    }
}
