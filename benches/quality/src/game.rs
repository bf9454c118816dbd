//! What a dishonest contributor gains: the same bank with an attack in it, trained and indexed as ever, and what the attacker is paid then.

use crate::Failure;
use crate::bank::Bank;
use crate::methods::{Method, integer::Integer};
use crate::stage::{Answers, Stage};
use model_runtime::demo;
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
}

impl Attack {
    /// All that are measured.
    pub const ALL: [Self; 12] = [
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
        }
    }

    /// The bank with the attack of a contributor (on another, where it needs one), and the names that the attacker is paid under.
    fn on(self, bank: &Bank, attacker: &str, victim: &str, rng: &mut SplitMix64) -> (Bank, Vec<String>) {
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
        }
        (attacked, names)
    }
}

/// What some names are paid for the answers that a trained bank gives, each answer paying one.
fn income(bank: Bank, names: &[String], train_seed: u64, epochs: usize) -> Result<f64, Failure> {
    let stage = Stage::new(bank, train_seed, Some(epochs), Answers::Generated(2))?;
    let method = Integer::new(&stage)?;
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
    let before: Vec<f64> = chosen.iter().map(|&c| income(bank.clone(), &contributors[c..=c], train_seed, epochs)).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for attack in Attack::ALL {
        let mut after = 0.0;
        for &c in &chosen {
            let victim = &contributors[(c + 1) % contributors.len()];
            let (attacked, names) = attack.on(bank, &contributors[c], victim, &mut SplitMix64::new(train_seed ^ 0x9a3e));
            after += income(attacked, &names, train_seed, epochs)?;
        }
        let gain = Gain { attack, before: before.iter().sum(), after };
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
    use crate::stage::demo_base;

    #[test]
    fn attacks_keep_the_others_samples_and_the_vocabulary() {
        let bank = Bank::named("shuffled", 3).unwrap();
        let (_, tokenizer) = demo_base().unwrap();
        let names = bank.datanet.contributors();
        for attack in Attack::ALL {
            let (attacked, paid) = attack.on(&bank, names[0], names[1], &mut SplitMix64::new(1));
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
