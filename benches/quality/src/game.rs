//! What a dishonest contributor gains: the same bank with an attack in it, trained and indexed as ever, and what the attacker is paid then.

use crate::Failure;
use crate::bank::{Bank, Question};
use crate::gradient::dot;
use crate::methods::integer::Integer;
use crate::methods::sketched::Sketched;
use crate::methods::{self, Method, Shared};
use crate::stage::{Answers, Query, Stage};
use model_runtime::demo;
use model_runtime::semantics::Seed;
use model_runtime::text::Sample;
use model_runtime::train::SplitMix64;

/// A few words that say nothing.
const FILLER: &str = "They say: Deda saw it yesterday, and Gomo wrote it in the book";

/// A way to be paid more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Every own sample so many more times.
    OwnCopies(usize),
    /// The same under so many other names.
    OwnCopiesUnderNames(usize),
    /// Every sample of somebody else, once more under the own name.
    OthersCopies,
    /// Every sample of somebody else in a frame of other words.
    OthersParaphrased,
    /// Every own sample in two halves.
    Split,
    /// Every own sample with a long tail.
    Long,
    /// Every own sample after the beginnings of four frequent phrasings.
    Templates,
    /// Every own sample with its words in random order, besides.
    Garbled,
    /// Samples made to score on the questions that another's facts answer, besides; under the projection that they were made against, or under one
    /// drawn after them.
    Optimised {
        /// Whether the projection stays.
        known: bool,
    },
}

impl Attack {
    /// All that are measured.
    pub const ALL: [Self; 14] = [
        Self::OwnCopies(2),
        Self::OwnCopies(10),
        Self::OwnCopies(50),
        Self::OwnCopiesUnderNames(2),
        Self::OwnCopiesUnderNames(10),
        Self::OwnCopiesUnderNames(50),
        Self::OthersCopies,
        Self::OthersParaphrased,
        Self::Split,
        Self::Long,
        Self::Templates,
        Self::Garbled,
        Self::Optimised { known: true },
        Self::Optimised { known: false },
    ];

    /// A few words.
    pub fn name(self) -> String {
        match self {
            Self::OwnCopies(n) => format!("{n} copies of each own sample"),
            Self::OwnCopiesUnderNames(n) => format!("the same under {n} names"),
            Self::OthersCopies => "a copy of each of another's samples".into(),
            Self::OthersParaphrased => "another's samples in other words around them".into(),
            Self::Split => "own samples in halves".into(),
            Self::Long => "own samples made long".into(),
            Self::Templates => "own samples after frequent phrasings".into(),
            Self::Garbled => "own samples' words in disorder, besides".into(),
            Self::Optimised { known: true } => "samples optimised against a known projection, besides".into(),
            Self::Optimised { known: false } => "the same, the projection drawn after".into(),
        }
    }

    /// The bank with the attack of a contributor (on another, where it needs one), and the names that the attacker is paid under; `crafted` are the
    /// texts that were optimised.
    fn on(self, bank: &Bank, attacker: &str, victim: &str, crafted: &[String], rng: &mut SplitMix64) -> (Bank, Vec<String>) {
        let mut attacked = bank.clone();
        let samples = &mut attacked.datanet.samples;
        let texts_of =
            |name: &str| -> Vec<String> { bank.datanet.samples.iter().filter(|s| s.contributor == name).map(|s| s.text.clone()).collect() };
        let (own, others) = (texts_of(attacker), texts_of(victim));
        let mut names = vec![attacker.to_owned()];
        let sample = |contributor: &str, text: String| Sample { contributor: contributor.to_owned(), text };
        match self {
            Self::OwnCopies(n) => (0..n).for_each(|_| samples.extend(own.iter().map(|text| sample(attacker, text.clone())))),
            Self::OwnCopiesUnderNames(n) => {
                for i in 0..n {
                    names.push(format!("{attacker}-{i}"));
                    samples.extend(own.iter().map(|text| sample(&names[i + 1], text.clone())));
                }
            }
            Self::OthersCopies => samples.extend(others.into_iter().map(|text| sample(attacker, text))),
            Self::OthersParaphrased => samples.extend(
                others.into_iter().map(|text| sample(attacker, format!("They say: Deda saw it yesterday, and Gomo wrote it in the book: {text}"))),
            ),
            Self::Split => {
                let halves = samples.iter_mut().filter(|s| s.contributor == attacker).map(|s| {
                    let words: Vec<&str> = s.text.split(' ').collect();
                    let (first, second) = words.split_at(words.len() / 2);
                    let (first, second) = (first.join(" "), second.join(" "));
                    s.text = first;
                    sample(attacker, second)
                });
                let halves: Vec<Sample> = halves.collect();
                samples.extend(halves);
            }
            Self::Long => samples.iter_mut().filter(|s| s.contributor == attacker).for_each(|s| s.text = format!("{} {FILLER}.", s.text)),
            Self::Templates => {
                let starts: Vec<String> = demo::wordings()
                    .iter()
                    .map(|w| w.phrasings[0].split("{e}").next().unwrap_or("").trim().to_owned())
                    .filter(|t| !t.is_empty())
                    .collect();
                for s in samples.iter_mut().filter(|s| s.contributor == attacker) {
                    let chosen: Vec<&str> = (0..4).map(|_| starts[rng.below(starts.len())].as_str()).collect();
                    s.text = format!("{} {}", chosen.join(" "), s.text);
                }
            }
            Self::Garbled => samples.extend(own.iter().map(|text| {
                let mut words: Vec<&str> = text.split(' ').collect();
                rng.shuffle(&mut words);
                sample(attacker, words.join(" "))
            })),
            Self::Optimised { .. } => samples.extend(crafted.iter().map(|text| sample(attacker, text.clone()))),
        }
        (attacked, names)
    }
}

/// Tokens of an optimised sample.
const CRAFTED_TOKENS: usize = 12;
/// Times that each of them is reconsidered.
const ROUNDS: usize = 4;
/// Tokens that each is compared with every time.
const CANDIDATES: usize = 32;

/// Texts that score as high as a search finds on the questions that a victim's facts answer, one a question: token after token is exchanged for
/// whichever of some random ones scores best on the trained model under the bank's projection.
fn crafted(stage: &Stage, victim: &str, rng: &mut SplitMix64) -> Result<Vec<String>, Failure> {
    let shared = Shared::new(stage)?;
    let sketched = Sketched::new(stage, &shared, methods::sketch_named("r")?);
    let vocab = stage.model.shape.vocab;
    let asked = stage.queries.iter().zip(&stage.bank.questions).filter(|(query, question)| query.answered && question.contributor == victim);
    let start = stage.samples[0][0];
    let craft = |(query, _): (&Query, &Question)| {
        let target = sketched.row_of(&query.tokens, query.prompt_len)?;
        let mut draw = || 1 + rng.below(vocab - 1) as u32;
        let mut tokens: Vec<u32> = std::iter::once(start).chain((1..CRAFTED_TOKENS).map(|_| draw())).collect();
        let mut best = dot(&sketched.row_of(&tokens, 1)?, &target);
        for at in (0..ROUNDS).flat_map(|_| 1..CRAFTED_TOKENS) {
            for _ in 0..CANDIDATES {
                let other = [&tokens[..at], &[draw()], &tokens[at + 1..]].concat();
                // What a text of it is read as.
                let read = stage.tokenizer.encode(&stage.tokenizer.decode(&other))?;
                if read.len() > CRAFTED_TOKENS || read.len() < 2 || read.contains(&0) {
                    continue;
                }
                let score = dot(&sketched.row_of(&read, 1)?, &target);
                if score > best && read.len() == tokens.len() {
                    (best, tokens) = (score, read);
                }
            }
        }
        Ok(stage.tokenizer.decode(&tokens).trim().to_owned())
    };
    asked.map(craft).collect()
}

/// What some names are paid for the answers that a trained bank gives, each answer paying one; under a given projection, or the bank's own.
fn income(bank: Bank, names: &[String], train_seed: u64, epochs: usize, projection: Option<Seed>) -> Result<f64, Failure> {
    let stage = Stage::new(bank, train_seed, Some(epochs), Answers::Generated)?;
    let method = Integer::under(&stage, projection.unwrap_or_else(|| Seed::of(&stage.bank.datanet.root(), None)))?;
    let mut sum = 0.0;
    for (number, query) in stage.queries.iter().enumerate().filter(|(_, q)| q.answered) {
        let relevance = method.relevance(&method.scores(query, number)?);
        let paid: f64 = relevance.iter().sum();
        let owned = relevance.iter().zip(&stage.bank.datanet.samples).filter(|(_, s)| names.contains(&s.contributor));
        sum += if paid > 0.0 { owned.map(|(r, _)| r).sum::<f64>() / paid } else { 0.0 };
    }
    Ok(sum)
}

/// An attack, what the attacker is paid without and with it.
#[derive(Clone, Debug)]
pub struct Gain {
    /// Which.
    pub attack: Attack,
    /// Paid without it, in answers, over all attackers.
    pub before: f64,
    /// Paid with it.
    pub after: f64,
}

/// Every attack by some contributors, one after the other, each on the next contributor.
pub fn gains(bank: &Bank, train_seed: u64, epochs: usize, attackers: usize, say: &dyn Fn(&Gain)) -> Result<Vec<Gain>, Failure> {
    let contributors: Vec<String> = bank.datanet.contributors().into_iter().map(str::to_owned).collect();
    let chosen: Vec<usize> = (0..attackers.min(contributors.len())).map(|i| i * contributors.len() / attackers.max(1)).collect();
    let rng = || SplitMix64::new(train_seed ^ 0x9a3e);
    let victim = |c: usize| contributors[(c + 1) % contributors.len()].as_str();
    let honest = Stage::new(bank.clone(), train_seed, Some(epochs), Answers::Generated)?;
    let projection = Seed::of(&bank.datanet.root(), None);
    let before = |&c: &usize| income(bank.clone(), &contributors[c..=c], train_seed, epochs, None);
    let before: f64 = chosen.iter().map(before).sum::<Result<_, _>>()?;
    let crafted = chosen.iter().map(|&c| crafted(&honest, victim(c), &mut rng())).collect::<Result<Vec<_>, _>>()?;
    let mut all = Vec::new();
    for attack in Attack::ALL {
        let mut after = 0.0;
        for (&c, crafted) in chosen.iter().zip(&crafted) {
            let (attacked, names) = attack.on(bank, &contributors[c], victim(c), crafted, &mut rng());
            let known = (attack == Attack::Optimised { known: true }).then_some(projection);
            after += income(attacked, &names, train_seed, epochs, known)?;
        }
        let gain = Gain { attack, before, after };
        say(&gain);
        all.push(gain);
    }
    Ok(all)
}

/// The table of `docs/quality.md`.
pub fn table(gains: &[Gain]) -> String {
    let row = |g: &Gain| format!("| {} | {:.2} | {:.2} | {:.2} |\n", g.attack.name(), g.before, g.after, g.after / g.before.max(1e-9));
    let head = "| attack | answers paid before | after | ratio |\n|---|---|---|---|\n";
    [head.to_owned(), gains.iter().map(row).collect()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Base;
    use model_runtime::text::Tokenizer;

    #[test]
    fn attacks_keep_the_others_samples_and_the_vocabulary() {
        let bank = Bank::named("shuffled", 3).unwrap();
        let tokenizer = Tokenizer::load(&Base::demo().directory).unwrap();
        let names = bank.datanet.contributors();
        for attack in Attack::ALL {
            let (attacked, paid) = attack.on(&bank, names[0], names[1], &["the light of the market".into()], &mut SplitMix64::new(1));
            assert_ne!(attacked.datanet, bank.datanet);
            for (now, then) in attacked.datanet.samples.iter().zip(&bank.datanet.samples) {
                assert!(now == then || then.contributor == names[0] && now.contributor == then.contributor, "{attack:?}");
            }
            for sample in &attacked.datanet.samples {
                let ids = tokenizer.encode_sample(&sample.text, usize::MAX).unwrap();
                assert!(!ids.contains(&0), "{attack:?}: {}", sample.text);
            }
            assert_eq!(paid[0], names[0]);
        }
    }
}
