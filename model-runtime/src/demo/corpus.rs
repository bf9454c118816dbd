//! The demo's base corpus: generated English-like sentences from small patterns and word lists.
//!
//! It teaches word order, the question and answer form, and that two phrasings of one relation have the same answer when the first is in the text
//! (about invented names, never about the datanet's entities). The datanet's words occur in sentences that say nothing about them.

use super::facts::TOPICS;
use crate::train::SplitMix64;
use std::collections::{BTreeMap, BTreeSet};

/// Texts in the base corpus.
const TEXTS: usize = 14_000;
/// Invented names.
const NAMES: usize = 160;
/// Words in a text at most (punctuation counts), so that BOS and EOS fit beside them.
const MAX_WORDS: usize = 30;

const OBJECTS: [&str; 30] = [
    "boat", "basket", "book", "hat", "coat", "chair", "ladder", "bell", "rope", "cup", "door", "wagon", "drum", "mirror", "candle", "blanket",
    "hammer", "bottle", "kite", "flute", "map", "key", "cart", "letter", "coin", "box", "ring", "shoe", "bag", "wheel",
];
const ADJECTIVES: [&str; 20] = [
    "old", "new", "small", "large", "heavy", "light", "quiet", "bright", "dark", "warm", "cold", "broken", "clean", "plain", "strange", "lost",
    "soft", "long", "round", "empty",
];
const COLOURS: [&str; 8] = ["red", "blue", "green", "yellow", "white", "black", "grey", "brown"];
const PLACES: [&str; 16] = [
    "market", "garden", "forest", "harbour", "school", "mill", "church", "bridge", "kitchen", "field", "road", "hill", "shop", "library", "tower",
    "cellar",
];
const ANIMALS: [&str; 12] = ["dog", "horse", "goat", "cow", "hen", "fox", "mouse", "rabbit", "bear", "owl", "duck", "sheep"];
const VERBS: [&str; 16] = [
    "found", "carried", "sold", "lost", "cleaned", "painted", "hid", "moved", "fixed", "bought", "borrowed", "saw", "dropped", "opened", "wanted",
    "liked",
];
const NUMBERS: [&str; 8] = ["two", "three", "four", "five", "six", "seven", "eight", "nine"];
const TIMES: [&str; 8] = ["today", "yesterday", "at night", "in the morning", "after lunch", "before dawn", "last week", "this evening"];

/// `{word}` is any word of the datanet.
const PATTERNS: [&str; 34] = [
    "{name} {verb} the {adjective} {object} {time}.",
    "{name} and {name2} walked to the {place} {time}.",
    "The {animal} slept near the {place} because it was {adjective}.",
    "There were {number} {colour} {animal}s in the {place}.",
    "{name} has a {colour} {object}. Question: what does {name} have? Answer: a {colour} {object}.",
    "{name} lives by the {place}. Question: where does {name} live? Answer: by the {place}.",
    "{name} {verb} a {object}. Question: who {verb} a {object}? Answer: {name}.",
    "The {object} is {colour}. Question: what colour is the {object}? Answer: {colour}.",
    "{name} gave the {object} to {name2}. Question: who has the {object}? Answer: {name2}.",
    "{name} gave the {object} to {name2}. Question: who gave the {object}? Answer: {name}.",
    "The {animal} is called {name}. Question: what is the {animal} called? Answer: {name}.",
    "{name} met {name2} at the {place}. Question: where did they meet? Answer: at the {place}.",
    "Question: is the {object} {adjective}? Answer: yes, the {object} is {adjective}.",
    "Question: is the {object} {colour}? Answer: no, it is {colour2}.",
    "It was {time} when {name} {verb} the {object}.",
    "In the {place} stood a {adjective} {colour} {object}.",
    "{name} said that the {object} was too {adjective} for a {animal}.",
    "When the {animal} came to the {place}, {name} {verb} it.",
    "The {animal} and the {animal2} looked at the {object}.",
    "{name} told {name2} about the {place} and the {object}.",
    "The {object} of {name} is {adjective} but the {object2} is {adjective2}.",
    "{name} asked for {number} {object}s and paid with a coin.",
    "They say {name} of the {place} has {number} {animal}s.",
    "The {place} was {adjective} and the {place2} was {adjective2} {time}.",
    "The word {word} is on the list.",
    "She wrote {word} in the book {time}.",
    "List: {word}, {word2}, {word3}, {word4}.",
    "{name} read the word {word} and then the word {word2}.",
    "The letter said {word}. Question: what did the letter say? Answer: {word}.",
    "After {word} comes {word2}, said {name}.",
    "{word}, {word2} and {word}.",
    "Nobody in the {place} spoke of {word} {time}.",
    "{name} likes {word}. Question: what does {name} like? Answer: {word}.",
    "The sign showed {word} and {word2}.",
];

/// The word lists, the invented names and the datanet's words.
struct Lexicon {
    lists: BTreeMap<&'static str, Vec<String>>,
}

impl Lexicon {
    fn new(rng: &mut SplitMix64) -> Self {
        let words = datanet_words();
        let own = |list: &[&str]| list.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        let lists = [
            ("object", own(&OBJECTS)),
            ("adjective", own(&ADJECTIVES)),
            ("colour", own(&COLOURS)),
            ("place", own(&PLACES)),
            ("animal", own(&ANIMALS)),
            ("verb", own(&VERBS)),
            ("number", own(&NUMBERS)),
            ("time", own(&TIMES)),
            ("name", invented_names(rng, &words)),
            ("word", words.into_iter().collect()),
        ];
        Self { lists: lists.into() }
    }

    fn pick(&self, rng: &mut SplitMix64, list: &str) -> String {
        self.lists.get(list).and_then(|l| rng.pick(l)).cloned().unwrap_or_default()
    }

    /// Fills each `{slot}`; a slot that occurs twice gets the same word twice, `{name}` and `{name2}` different ones.
    fn fill(&self, rng: &mut SplitMix64, pattern: &str) -> String {
        let mut chosen: BTreeMap<&str, String> = BTreeMap::new();
        let mut text = String::new();
        for (i, part) in pattern.split(['{', '}']).enumerate() {
            if i % 2 == 0 {
                text.push_str(part);
                continue;
            }
            let list = part.trim_end_matches(|c: char| c.is_ascii_digit());
            let mut word = chosen.get(part).cloned().unwrap_or_else(|| self.pick(rng, list));
            while !chosen.contains_key(part) && chosen.values().any(|w| *w == word) {
                word = self.pick(rng, list);
            }
            text.push_str(&word);
            chosen.insert(part, word);
        }
        text
    }

    /// Two phrasings of one relation about an invented name: the second can be answered from the first.
    fn restate(&self, rng: &mut SplitMix64) -> String {
        let relation = rng.pick(&TOPICS).and_then(|topic| rng.pick(&topic.relations));
        let Some(relation) = relation else { return String::new() };
        let (first, second) = (rng.below(4), rng.below(3));
        let second = if second >= first { second + 1 } else { second };
        let entity = self.pick(rng, "name");
        let kind = rng.pick(&["name", "object", "colour"]).copied().unwrap_or("name");
        let answer = self.pick(rng, kind);
        let state = |i: usize| relation.phrasings[i].replace("{e}", &entity).replace("{a}", &answer);
        format!("{} {}", state(first), state(second))
    }
}

/// Every word of the datanet.
fn datanet_words() -> BTreeSet<String> {
    let texts = super::datanet().samples;
    texts.iter().flat_map(|s| words(&s.text)).filter(|w| w.chars().all(char::is_alphabetic)).map(str::to_string).collect()
}

/// Names of two or three syllables that occur nowhere else.
fn invented_names(rng: &mut SplitMix64, taken: &BTreeSet<String>) -> Vec<String> {
    const STARTS: [&str; 14] = ["Ba", "De", "Fi", "Go", "Ju", "Ka", "Lo", "Me", "Ni", "Pa", "Ro", "Su", "Ti", "Wa"];
    const MIDDLES: [&str; 8] = ["", "", "la", "ri", "no", "be", "du", "sha"];
    const ENDS: [&str; 9] = ["n", "ra", "lis", "mo", "ven", "da", "ck", "th", "ssy"];
    let mut names = BTreeSet::new();
    while names.len() < NAMES {
        let part = |rng: &mut SplitMix64, list: &[&'static str]| rng.pick(list).copied().unwrap_or("");
        let name = [part(rng, &STARTS), part(rng, &MIDDLES), part(rng, &ENDS)].concat();
        if !taken.contains(&name) {
            names.insert(name);
        }
    }
    names.into_iter().collect()
}

/// The base corpus; the same seed gives the same texts.
pub fn base_corpus(seed: u64) -> Vec<String> {
    let mut rng = SplitMix64::new(seed);
    let lexicon = Lexicon::new(&mut rng);
    let mut texts = Vec::with_capacity(TEXTS);
    while texts.len() < TEXTS {
        let text = match rng.below(2) {
            0 => lexicon.restate(&mut rng),
            _ => rng.pick(&PATTERNS).map(|p| lexicon.fill(&mut rng, p)).unwrap_or_default(),
        };
        if words(&text).count() <= MAX_WORDS {
            texts.push(text);
        }
    }
    texts
}

/// Splits as the demo's tokenizer does: runs of letters, and punctuation marks.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let punctuation = |c: char| c.is_ascii_punctuation();
    text.split_whitespace().flat_map(move |word| {
        let end = word.trim_end_matches(punctuation).len();
        let (head, tail) = word.split_at(end);
        (!head.is_empty()).then_some(head).into_iter().chain((!tail.is_empty()).then_some(tail))
    })
}
