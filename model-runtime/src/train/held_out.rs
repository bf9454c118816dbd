//! How long to train: epochs are chosen by the loss of samples that are held out, then all samples are trained on.

use super::{LoraConfig, Phase, Progress, SplitMix64, TrainError, Training, parameter};
use crate::shape::{FloatAdapter, FloatModel};
use serde::{Deserialize, Serialize};

/// A held-out loss within this factor of the lowest is as good: while it does no harm, an adapter that is trained longer knows its samples better.
const SLACK: f32 = 1.02;

/// What is held out, and when to stop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HoldOut {
    /// Share of the samples held out, rounded up.
    pub share: f64,
    /// Stop after this many epochs whose held-out loss is above the lowest.
    pub patience: usize,
}

impl Default for HoldOut {
    /// A tenth of the samples, five epochs.
    fn default() -> Self {
        Self { share: 0.1, patience: 5 }
    }
}

/// Losses after one epoch, in nats per token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochLoss {
    /// Mean over the epoch's batches.
    pub trained: f32,
    /// Of the held-out samples after the epoch.
    pub held_out: f32,
}

/// Chooses the number of epochs (at most `schedule.epochs`) by held-out samples, then trains on all samples for as many. Returns the adapter and
/// the losses that chose.
pub fn train_lora_chosen(
    model: &FloatModel,
    samples: &[Vec<u32>],
    config: &LoraConfig,
    hold_out: &HoldOut,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<(FloatAdapter, Vec<EpochLoss>), TrainError> {
    let mut training = Training::new(model, samples, config.clone(), Some(*hold_out))?;
    while training.epoch(&mut progress)?.is_some() {}
    let curve = training.curve().to_vec();
    Ok((training.into_adapter(), curve))
}

/// Trains on all but a seeded share of the samples, at most `schedule.epochs` epochs of the same schedule, and stops when the held-out loss no
/// longer falls. Returns the losses epoch by epoch; [`best_epoch`] is what to train all samples for.
pub fn held_out_curve(
    model: &FloatModel,
    samples: &[Vec<u32>],
    config: &LoraConfig,
    hold_out: &HoldOut,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<Vec<EpochLoss>, TrainError> {
    let mut training = Training::new(model, samples, config.clone(), Some(*hold_out))?;
    while training.phase() == Phase::Choosing {
        training.epoch(&mut progress)?;
    }
    Ok(training.curve().to_vec())
}

/// The samples held out, and those kept.
pub(super) fn divided(samples: &[Vec<u32>], hold_out: &HoldOut, seed: u64) -> Result<[Vec<Vec<u32>>; 2], TrainError> {
    if !(hold_out.share > 0.0 && hold_out.share < 1.0) {
        return Err(parameter("held-out share", "above 0, below 1", hold_out.share));
    }
    let held = (hold_out.share * samples.len() as f64).ceil() as usize;
    if held >= samples.len() {
        return Err(parameter("samples", format!("at least {} to hold {held} out", held + 1), samples.len()));
    }
    let mut order: Vec<usize> = (0..samples.len()).collect();
    SplitMix64::new(seed ^ 0x4e1d_0077_5a3b_1e00).shuffle(&mut order);
    let take = |chosen: &[usize]| chosen.iter().map(|&i| samples[i].clone()).collect::<Vec<_>>();
    Ok([take(&order[..held]), take(&order[held..])])
}

/// The last epoch, from 1, after which the held-out loss was the lowest or within two percent of it.
pub fn best_epoch(curve: &[EpochLoss]) -> usize {
    let lowest = curve.iter().map(|e| e.held_out).fold(f32::INFINITY, f32::min);
    curve.iter().rposition(|e| e.held_out <= lowest * SLACK).map_or(1, |epoch| epoch + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Site;
    use crate::test_support::{random_model, tiny_shape};
    use crate::train::{Penalties, Schedule, train_lora};

    fn config(epochs: usize) -> LoraConfig {
        let schedule = Schedule { epochs, batch: 4, learning_rate: 2e-2, warmup: 0.1, weight_decay: 0.0, seed: 4, penalties: Penalties::default() };
        LoraConfig { rank: 4, alpha: 8.0, sites: Site::ALL.to_vec(), context: 16, schedule }
    }

    /// Sequences of one pattern generalise, random ones don't: the first are trained on for longer.
    #[test]
    fn stops_when_nothing_more_generalises() {
        let model = random_model(&tiny_shape(), true, 9);
        let mut rng = SplitMix64::new(2);
        let mut noise = || (0..8).map(|_| rng.below(17) as u32).collect::<Vec<_>>();
        let random: Vec<Vec<u32>> = (0..20).map(|_| noise()).collect();
        let pattern: Vec<Vec<u32>> = (0..20).map(|i| vec![1, 3 + i % 5, 9, 4, 9, 4, 9, 2]).collect();
        let run = |samples: &[Vec<u32>]| held_out_curve(&model, samples, &config(40), &HoldOut { share: 0.2, patience: 3 }, |_| true).unwrap();
        let (noise, pattern) = (run(&random), run(&pattern));
        assert!(noise.len() == best_epoch(&noise) + 3 && best_epoch(&noise) < best_epoch(&pattern), "{noise:?} {pattern:?}");
        assert!(pattern[best_epoch(&pattern) - 1].held_out < 0.2 * pattern[0].held_out);
        assert_eq!(run(&random), noise);
    }

    #[test]
    fn bad_shares_are_named() {
        let model = random_model(&tiny_shape(), true, 9);
        for (share, samples) in [(0.0, 9), (1.0, 9), (f64::NAN, 9), (0.1, 1)] {
            let samples = vec![vec![1, 2]; samples];
            let refused = held_out_curve(&model, &samples, &config(1), &HoldOut { share, patience: 1 }, |_| true);
            assert!(matches!(refused, Err(TrainError::Parameter { .. })), "{share}");
        }
        assert!(train_lora(&model, &[vec![1, 2]], &config(1), |_| true).is_ok());
    }
}
