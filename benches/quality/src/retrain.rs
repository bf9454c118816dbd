//! What retraining says: adapters trained on parts of a bank, by the runtime's own trainer.

use crate::Failure;
use crate::bank::Bank;
use crate::stage::Stage;
use model_runtime::train::{SplitMix64, train_lora};
use rayon::prelude::*;

/// Adapters trained on random halves.
#[derive(Clone, Debug)]
pub struct Halves {
    /// The samples of each half.
    pub samples: Vec<Vec<usize>>,
    /// `log p` of every query's answer after training on it.
    pub log_p: Vec<Vec<f64>>,
}

/// `log p` of every query's answer after training on some samples, as long and with the same seed as the stage's adapter.
fn retrained(stage: &Stage, kept: &[usize]) -> Result<Vec<f64>, Failure> {
    let samples: Vec<Vec<u32>> = kept.iter().map(|&i| stage.samples[i].clone()).collect();
    let adapter = train_lora(&stage.model, &samples, &stage.config, |_| true)?;
    stage.log_probabilities(&adapter)
}

/// Trains on `count` random halves.
pub fn halves(stage: &Stage, count: usize) -> Result<Halves, Failure> {
    let mut rng = SplitMix64::new(stage.config.schedule.seed ^ 0x4a1f);
    let half = |_| {
        let mut order: Vec<usize> = (0..stage.samples.len()).collect();
        rng.shuffle(&mut order);
        order.truncate(stage.samples.len() / 2);
        order.sort_unstable();
        order
    };
    let samples: Vec<Vec<usize>> = (0..count).map(half).collect();
    let log_p = samples.par_iter().map(|kept| retrained(stage, kept)).collect::<Result<_, _>>()?;
    Ok(Halves { samples, log_p })
}

/// By how many nats every query's answer loses when one contributor's samples are left out, contributor by contributor.
pub fn removals(stage: &Stage) -> Result<Vec<Vec<f64>>, Failure> {
    let (names, contributors) = stage.contributors();
    let whole = stage.log_probabilities(&stage.adapter)?;
    let without = |c: usize| {
        let kept: Vec<usize> = (0..contributors.len()).filter(|&i| contributors[i] != c).collect();
        let after = retrained(stage, &kept)?;
        Ok(whole.iter().zip(after).map(|(before, after)| before - after).collect())
    };
    (0..names.len()).into_par_iter().map(without).collect()
}

/// The bank with a tenth of the samples that state a fact given another fact's answer, and which those are.
pub fn mislabelled(bank: &Bank, seed: u64) -> (Bank, Vec<bool>) {
    let (mut rng, mut bank) = (SplitMix64::new(seed ^ 0x3151), bank.clone());
    let mut stating: Vec<(usize, usize)> =
        bank.questions.iter().enumerate().flat_map(|(q, question)| question.samples.iter().map(move |&i| (q, i))).collect();
    rng.shuffle(&mut stating);
    stating.truncate(stating.len().div_ceil(10));
    let mut marked = vec![false; bank.datanet.samples.len()];
    for (q, i) in stating {
        let answer = bank.questions[q].answer.clone();
        let others: Vec<&String> = bank.questions.iter().map(|q| &q.answer).filter(|a| **a != answer).collect();
        let wrong = others[rng.below(others.len())].clone();
        let sample = &mut bank.datanet.samples[i].text;
        *sample = sample.replace(&answer, &wrong);
        marked[i] = true;
    }
    (bank, marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_mislabelled() {
        let bank = Bank::named("demo", 0).unwrap();
        let (wrong, marked) = mislabelled(&bank, 1);
        assert_eq!(marked.iter().filter(|m| **m).count(), 24);
        for ((before, after), marked) in bank.datanet.samples.iter().zip(&wrong.datanet.samples).zip(&marked) {
            assert_eq!(before != after, *marked);
        }
    }
}
