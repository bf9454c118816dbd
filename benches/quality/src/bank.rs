//! Banks: texts with contributors, and questions whose answers are known to rest on certain of them.
//!
//! Most are made from the demo's own words, which its base model reads; two are real texts, for a model that others trained. A seed gives a bank,
//! so that reported ones can be drawn at the end.

use crate::Failure;
use model_runtime::demo::{self, Wording};
use model_runtime::text::{Datanet, Sample, Tokenizer};
use model_runtime::train::SplitMix64;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Contributors of generated banks.
const CONTRIBUTORS: usize = 10;
/// Facts of a hard bank.
const FACTS: usize = 60;
/// Names that the vocabulary has.
const NAMES: [&str; 4] = ["Deda", "Gomo", "Baben", "Fira"];

/// A question, the answer expected and what it rests on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Question {
    /// The text to continue, in a phrasing that no sample has.
    pub prompt: String,
    /// The word expected next.
    pub answer: String,
    /// Who stated the fact.
    pub contributor: String,
    /// The samples that state it, by number from 0.
    pub samples: Vec<usize>,
}

/// The model that reads a bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Where it is.
    pub directory: PathBuf,
    /// Its context; samples are cut to it.
    pub context: usize,
}

impl Base {
    /// The demo's.
    pub fn demo() -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo").join(demo::BASE_DIR);
        Self { directory, context: demo::CONTEXT }
    }

    /// A model of short stories that others trained.
    fn tinystories() -> Self {
        Self { directory: assets().join("models/tinystories-656k"), context: REAL_TOKENS }
    }
}

/// Models and datanets that others made.
fn assets() -> PathBuf {
    std::env::var_os("POA_ASSETS").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets"), PathBuf::from)
}

/// A bank.
#[derive(Clone, Debug)]
pub struct Bank {
    /// What it's called in tables.
    pub name: String,
    /// What it was drawn from.
    pub seed: u64,
    /// What reads it.
    pub base: Base,
    /// Passes over it in training; chosen by held-out samples without.
    pub epochs: Option<usize>,
    /// Tokens of an answer, at most: the word and its full stop, not the end of text, which every sample shares; a few words of real text.
    pub answer_tokens: usize,
    /// The samples.
    pub datanet: Datanet,
    /// The questions.
    pub questions: Vec<Question>,
}

impl Bank {
    /// A bank as it's written, `NAME` or `NAME:SEED`: `demo`, `shuffled`, `hard`, `inside`, `shakespeare`, `prompts`, or a directory with
    /// `datanet.jsonl` and `queries.jsonl`.
    pub fn written(text: &str) -> Result<Self, Failure> {
        match text.rsplit_once(':').and_then(|(name, seed)| Some((name, seed.parse().ok()?))) {
            Some((name, seed)) => Self::named(name, seed),
            None => Self::named(text, 1),
        }
    }

    /// A bank by name.
    pub fn named(name: &str, seed: u64) -> Result<Self, Failure> {
        match name {
            "demo" => Ok(demo_bank()),
            "shuffled" => Ok(shuffled(seed)),
            "hard" => Ok(hard(seed)),
            "inside" => Ok(inside(seed)),
            "shakespeare" => real(name, "tinyshakespeare", seed),
            "prompts" => real(name, "awesome-prompts", seed),
            directory => Self::load(Path::new(directory)),
        }
    }

    fn load(directory: &Path) -> Result<Self, Failure> {
        let datanet = Datanet::load(&directory.join(demo::DATANET_FILE))?;
        let path = directory.join(demo::QUERIES_FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("reading {}: {e}", path.display()))?;
        let questions = text.lines().map(serde_json::from_str).collect::<Result<Vec<Question>, _>>();
        let questions = questions.map_err(|e| format!("{}: expected one question a line, found {e}", path.display()))?;
        let last = questions.iter().flat_map(|q| &q.samples).max().copied().unwrap_or(0);
        if last >= datanet.samples.len() {
            return Err(format!("{}: expected samples below {}, found {last}", path.display(), datanet.samples.len()).into());
        }
        let name = directory.file_name().map_or("bank".into(), |n| n.to_string_lossy().into_owned());
        Ok(Self { name: format!("{name} (given)"), seed: 0, base: Base::demo(), epochs: None, answer_tokens: 2, datanet, questions })
    }
}

fn question(q: demo::Query) -> Question {
    Question { prompt: q.prompt, answer: q.answer, contributor: q.contributor, samples: q.samples }
}

/// The demo as it's shipped.
fn demo_bank() -> Bank {
    let questions = demo::queries().into_iter().map(question).collect();
    Bank { name: "demo".into(), seed: 0, base: Base::demo(), epochs: None, answer_tokens: 2, datanet: demo::datanet(), questions }
}

/// The demo's texts, each fact given to a random contributor.
fn shuffled(seed: u64) -> Bank {
    let (mut rng, mut bank) = (SplitMix64::new(seed ^ 0x5ffe), demo_bank());
    for question in &mut bank.questions {
        question.contributor = format!("c{}", rng.below(CONTRIBUTORS));
        question.samples.iter().for_each(|&i| bank.datanet.samples[i].contributor.clone_from(&question.contributor));
    }
    Bank { name: "shuffled".into(), seed, ..bank }
}

/// The demo's facts told so that the answer isn't the last word.
fn inside(seed: u64) -> Bank {
    let (mut rng, mut bank) = (SplitMix64::new(seed ^ 0x125d), shuffled(seed));
    const TAILS: [&str; 4] = [", said {n}.", " and {n} wrote it in the book.", ", they say.", " and {n} saw it yesterday."];
    for sample in &mut bank.datanet.samples {
        let tail = TAILS[rng.below(TAILS.len())].replace("{n}", NAMES[rng.below(NAMES.len())]);
        sample.text = format!("{}{tail}", sample.text.trim_end_matches('.'));
    }
    Bank { name: "inside".into(), seed, ..bank }
}

/// A fact of a hard bank.
struct Fact {
    wording: Wording,
    entity: &'static str,
    answer: &'static str,
    contributor: usize,
    /// The phrasing that is asked.
    asked: usize,
}

impl Fact {
    fn state(&self, phrasing: usize, answer: &str) -> String {
        self.wording.phrasings[phrasing].replace("{e}", self.entity).replace("{a}", answer)
    }

    fn prompt(&self) -> String {
        self.wording.phrasings[self.asked].split("{a}").next().unwrap_or("").trim_end().replace("{e}", self.entity)
    }

    /// The phrasings that are stated, in random order.
    fn stated(&self, rng: &mut SplitMix64) -> Vec<usize> {
        let mut stated: Vec<usize> = (0..4).filter(|&p| p != self.asked).collect();
        rng.shuffle(&mut stated);
        stated
    }
}

/// Sixty facts asked in one phrasing and stated in three others, every answer word in two of them, among decoys of five kinds.
fn hard(seed: u64) -> Bank {
    let mut rng = SplitMix64::new(seed ^ 0x4a2d);
    let facts = facts(&mut rng);
    let mut samples: Vec<Sample> = Vec::new();
    let mut questions = Vec::new();
    let mut add = |contributor: usize, text: String| {
        samples.push(Sample { contributor: format!("c{contributor}"), text });
        samples.len() - 1
    };
    for (i, fact) in facts.iter().enumerate() {
        let stated = fact.stated(&mut rng);
        let mut stating: Vec<usize> = stated.iter().map(|&p| add(fact.contributor, fact.state(p, fact.answer))).collect();
        let other = |rng: &mut SplitMix64| (fact.contributor + 1 + rng.below(CONTRIBUTORS - 1)) % CONTRIBUTORS;
        // A near-duplicate in another contributor's name states the fact too.
        if i % 3 == 0 {
            stating.push(add(other(&mut rng), format!("They say: {}", fact.state(stated[0], fact.answer))));
        }
        // The query's words with nothing to answer it, a contradiction, the answer's word alone, entity and answer in a list.
        let prompt = fact.prompt();
        let words = prompt.trim_start_matches("Question: ").replace("? Answer:", "").replace("  ", " ");
        let wrong = facts[(i + 1 + rng.below(facts.len() - 1)) % facts.len()].answer;
        let name = NAMES[rng.below(NAMES.len())];
        let decoys = [
            format!("Nobody in the market spoke of {words} yesterday."),
            fact.state(stated[1], wrong),
            format!("The letter said {0}. Question: what did the letter say? Answer: {0}.", fact.answer),
            format!("List: {}, {}, {}.", fact.entity, fact.answer, fact.wording.entities[rng.below(4)]),
            format!("After {} comes {}, said {name}.", fact.entity, fact.answer),
        ];
        let first = rng.below(decoys.len());
        for text in decoys.into_iter().cycle().skip(first).take(2 + i % 2) {
            if text != fact.state(stated[1], fact.answer) {
                add(other(&mut rng), text);
            }
        }
        let (answer, contributor) = (fact.answer.to_string(), format!("c{}", fact.contributor));
        questions.push(Question { prompt, answer, contributor, samples: stating });
    }
    // Held-out samples choose two epochs for some seeds: contradictions make their loss rise at once.
    Bank { name: "hard".into(), seed, base: Base::demo(), epochs: Some(30), answer_tokens: 2, datanet: Datanet { samples }, questions }
}

/// Three of four entities of every relation; each answer word goes to two facts of different relations.
fn facts(rng: &mut SplitMix64) -> Vec<Fact> {
    let wordings = demo::wordings();
    let mut words: Vec<&'static str> = wordings.iter().flat_map(|w| w.answers).collect();
    rng.shuffle(&mut words);
    words.truncate(FACTS / 2);
    // The first half of the facts takes each word once, the second half again: they are of different relations.
    let mut second = words.clone();
    rng.shuffle(&mut second);
    let answers = words.into_iter().chain(second);
    let mut entities = Vec::new();
    for wording in wordings {
        let mut chosen = wording.entities;
        rng.shuffle(&mut chosen);
        entities.extend(chosen[..FACTS / 20].iter().map(|&entity| (wording, entity)));
    }
    let fact = |((wording, entity), answer)| Fact { wording, entity, answer, contributor: rng.below(CONTRIBUTORS), asked: rng.below(4) };
    entities.into_iter().zip(answers).map(fact).collect()
}

/// Tokens of a real sample, at most.
const REAL_TOKENS: usize = 40;
/// Samples of a real bank.
const REAL_SAMPLES: usize = 160;
/// Questions of a real bank.
const REAL_QUESTIONS: usize = 60;
/// Tokens of a real question.
const REAL_PROMPT: std::ops::Range<usize> = 12..20;

/// Real texts of the contributors who wrote most of them. A question is the beginning of a sample, and its answer the word that goes on: what the
/// trained model has learnt by heart, it has from there.
fn real(name: &str, datanet: &str, seed: u64) -> Result<Bank, Failure> {
    let base = Base::tinystories();
    let tokenizer = Tokenizer::load(&base.directory)?;
    let mut all = Datanet::load(&assets().join("datanets").join(datanet).join("samples.jsonl"))?;
    let (mut rng, mut read) = (SplitMix64::new(seed ^ 0x7ea1), Vec::new());
    for sample in all.samples.drain(..) {
        let tokens = tokenizer.encode_sample(&sample.text, usize::MAX)?;
        // Longer than a question, and without a word that the vocabulary lacks.
        if tokens.len() > REAL_PROMPT.end + 4 && !tokens.contains(&0) {
            read.push((sample, tokens));
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    read.iter().for_each(|(sample, _)| *counts.entry(&sample.contributor).or_default() += 1);
    let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
    names.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    let chosen: Vec<String> = names.iter().take(CONTRIBUTORS).map(|(name, _)| (*name).to_owned()).collect();
    read.retain(|(sample, _)| chosen.contains(&sample.contributor));
    rng.shuffle(&mut read);
    read.truncate(REAL_SAMPLES);
    let question = |(i, (sample, tokens)): (usize, &(Sample, Vec<u32>))| {
        let begins = |end: usize| tokenizer.encode(&sample.text[..end]).is_ok_and(|p| REAL_PROMPT.contains(&p.len()) && tokens.starts_with(&p));
        let end = sample.text.match_indices(' ').map(|(end, _)| end).find(|&end| begins(end))?;
        let (prompt, rest) = sample.text.split_at(end);
        let answer = rest.split_whitespace().next()?.to_owned();
        Some(Question { prompt: prompt.to_owned(), answer, contributor: sample.contributor.clone(), samples: vec![i] })
    };
    let questions: Vec<Question> = read.iter().enumerate().filter_map(question).take(REAL_QUESTIONS).collect();
    let samples = read.into_iter().map(|(sample, _)| sample).collect();
    Ok(Bank { name: name.into(), seed, base, epochs: Some(20), answer_tokens: 8, datanet: Datanet { samples }, questions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banks_are_read_by_the_base_model() {
        let tokenizer = Tokenizer::load(&Base::demo().directory).unwrap();
        for (name, seed) in [("demo", 0), ("shuffled", 3), ("hard", 1), ("hard", 2), ("inside", 5)] {
            let bank = Bank::named(name, seed).unwrap();
            for text in
                bank.datanet.samples.iter().map(|s| s.text.clone()).chain(bank.questions.iter().map(|q| format!("{} {}.", q.prompt, q.answer)))
            {
                let ids = tokenizer.encode_sample(&text, usize::MAX).unwrap();
                assert!(ids.len() <= demo::CONTEXT && !ids.contains(&0), "{name}: {text}");
            }
            assert!(bank.questions.iter().all(|q| bank.datanet.samples.iter().all(|s| !s.text.starts_with(&q.prompt))), "{name}");
        }
    }

    #[test]
    fn hard_banks_are_hard() {
        for seed in 0..4 {
            let bank = hard(seed);
            assert_eq!(bank.questions.len(), FACTS);
            assert!((300..=400).contains(&bank.datanet.samples.len()), "{}", bank.datanet.samples.len());
            let mut answers = BTreeMap::new();
            for question in &bank.questions {
                *answers.entry(&question.answer).or_insert(0) += 1;
                let owned = question.samples.iter().filter(|&&i| bank.datanet.samples[i].contributor == question.contributor);
                assert!(owned.count() >= 3);
            }
            assert!(answers.values().all(|&n| n == 2));
        }
        assert_ne!(hard(1).datanet, hard(2).datanet);
    }
}
