//! A LoRA training run, epoch by epoch: it can be put down after any of them and taken up again, with the result of one that never was.

use super::held_out::divided;
use super::lora::{State, Trainer};
use super::{EpochLoss, HoldOut, LoraConfig, Progress, TrainError, best_epoch};
use crate::shape::{FloatAdapter, FloatModel};
use serde::{Deserialize, Serialize};

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Some samples are held out to choose the number of epochs.
    Choosing,
    /// All samples are trained on.
    Last,
    /// Done.
    Done,
}

/// An epoch that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Of which phase.
    pub phase: Phase,
    /// Its number in the phase, from 1.
    pub epoch: usize,
    /// Mean loss of its batches, in nats per token.
    pub trained: f32,
    /// Of held-out samples after it, while choosing.
    pub held_out: Option<f32>,
}

/// What is kept of a run after an epoch.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    /// Of which run.
    of: [u8; 32],
    phase: Phase,
    curve: Vec<EpochLoss>,
    last: Vec<f32>,
    state: State,
}

/// A training run.
pub struct Training<'a> {
    model: &'a FloatModel,
    samples: &'a [Vec<u32>],
    config: LoraConfig,
    hold_out: Option<HoldOut>,
    held: Vec<Vec<u32>>,
    phase: Phase,
    curve: Vec<EpochLoss>,
    last: Vec<f32>,
    trainer: Trainer<'a>,
}

impl<'a> Training<'a> {
    /// A new run; with `hold_out` the number of epochs is chosen first, else it is the schedule's.
    ///
    /// # Errors
    ///
    /// When a parameter is out of its range or a sample doesn't fit the model: everything that can be known before the first step.
    pub fn new(model: &'a FloatModel, samples: &'a [Vec<u32>], config: LoraConfig, hold_out: Option<HoldOut>) -> Result<Self, TrainError> {
        let (phase, held, trainer) = match &hold_out {
            None => (Phase::Last, vec![], Trainer::new(model, samples, &config)?),
            Some(hold_out) => {
                let [held, kept] = divided(samples, hold_out, config.schedule.seed)?;
                // All samples are checked, also those that are trained on last only.
                Trainer::new(model, samples, &config)?;
                (Phase::Choosing, held, Trainer::new(model, &kept, &config)?)
            }
        };
        Ok(Self { model, samples, config, hold_out, held, phase, curve: vec![], last: vec![], trainer })
    }

    /// The same run, gone on with after the epoch that a checkpoint was taken after.
    ///
    /// # Errors
    ///
    /// When the bytes aren't a checkpoint, or one of another run.
    pub fn resume(
        model: &'a FloatModel,
        samples: &'a [Vec<u32>],
        config: LoraConfig,
        hold_out: Option<HoldOut>,
        checkpoint: &[u8],
    ) -> Result<Self, TrainError> {
        let mut run = Self::new(model, samples, config, hold_out)?;
        let checkpoint: Checkpoint = postcard::from_bytes(checkpoint).map_err(|_| TrainError::Checkpoint("can't be read".into()))?;
        if checkpoint.of != run.identity() {
            return Err(TrainError::Checkpoint("is of a run with another model, other samples or other settings".into()));
        }
        (run.curve, run.last) = (checkpoint.curve, checkpoint.last);
        if run.phase == Phase::Choosing && checkpoint.phase != Phase::Choosing {
            run.begin_last()?;
        }
        run.phase = checkpoint.phase;
        if !run.trainer.restore(checkpoint.state) {
            return Err(TrainError::Checkpoint("isn't of this run, by its sizes".into()));
        }
        Ok(run)
    }

    /// What is kept of it after an epoch.
    pub fn checkpoint(&self) -> Vec<u8> {
        let (curve, last) = (self.curve.clone(), self.last.clone());
        let checkpoint = Checkpoint { of: self.identity(), phase: self.phase, curve, last, state: self.trainer.state() };
        postcard::to_allocvec(&checkpoint).unwrap_or_default()
    }

    /// Tells runs apart: model, samples and settings.
    fn identity(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("poa training 1");
        let mut floats = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        };
        let model = self.model;
        [&model.embed, &model.final_norm].into_iter().chain(&model.head).for_each(|weights| floats(weights));
        for layer in &model.layers {
            [&layer.attn_norm, &layer.ffn_norm].into_iter().chain(&layer.linear).for_each(|weights| floats(weights));
        }
        let settings = postcard::to_allocvec(&(&model.shape, &self.config, &self.hold_out, self.samples)).unwrap_or_default();
        *hasher.update(&settings).finalize().as_bytes()
    }

    /// What it's doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Losses of the epochs that choose.
    pub fn curve(&self) -> &[EpochLoss] {
        &self.curve
    }

    /// Losses of the last phase's epochs.
    pub fn last(&self) -> &[f32] {
        &self.last
    }

    /// All epochs made so far, in order.
    pub fn epochs_made(&self) -> Vec<Epoch> {
        let chosen = |(i, e): (usize, &EpochLoss)| Epoch { phase: Phase::Choosing, epoch: i + 1, trained: e.trained, held_out: Some(e.held_out) };
        let last = |(i, &trained): (usize, &f32)| Epoch { phase: Phase::Last, epoch: i + 1, trained, held_out: None };
        self.curve.iter().enumerate().map(chosen).chain(self.last.iter().enumerate().map(last)).collect()
    }

    /// Fewest and most steps of a run that hasn't begun.
    pub fn steps(&self) -> (usize, usize) {
        let (most, a_full_epoch) = (self.config.schedule.epochs, self.samples.len().div_ceil(self.config.schedule.batch));
        match &self.hold_out {
            None => (most * a_full_epoch, most * a_full_epoch),
            Some(hold_out) => {
                let choosing = self.trainer.steps_an_epoch();
                ((1 + hold_out.patience).min(most) * choosing + a_full_epoch, most * (choosing + a_full_epoch))
            }
        }
    }

    fn begin_last(&mut self) -> Result<(), TrainError> {
        let mut config = self.config.clone();
        config.schedule.epochs = best_epoch(&self.curve);
        self.trainer = Trainer::new(self.model, self.samples, &config)?;
        self.phase = Phase::Last;
        Ok(())
    }

    fn epochs(&self) -> usize {
        if self.hold_out.is_some() { best_epoch(&self.curve) } else { self.config.schedule.epochs }
    }

    /// Makes one epoch; nothing when there is none left. `progress` says after every step whether to go on; a run that was stopped goes on from a
    /// checkpoint only.
    ///
    /// # Errors
    ///
    /// When the loss leaves the finite numbers, or it was told to stop.
    pub fn epoch(&mut self, progress: &mut dyn FnMut(Progress) -> bool) -> Result<Option<Epoch>, TrainError> {
        let phase = self.phase;
        let epoch = match phase {
            Phase::Done => return Ok(None),
            Phase::Choosing => {
                let trained = self.trainer.epoch(progress)?;
                let held_out = self.trainer.loss(&self.held)?;
                self.curve.push(EpochLoss { trained, held_out });
                let (done, patience) = (self.curve.len(), self.hold_out.map_or(0, |h| h.patience));
                if done == self.config.schedule.epochs || done >= best_epoch(&self.curve) + patience {
                    self.begin_last()?;
                }
                Epoch { phase, epoch: done, trained, held_out: Some(held_out) }
            }
            Phase::Last => {
                let trained = self.trainer.epoch(progress)?;
                self.last.push(trained);
                if self.last.len() == self.epochs() {
                    self.phase = Phase::Done;
                }
                Epoch { phase, epoch: self.last.len(), trained, held_out: None }
            }
        };
        Ok(Some(epoch))
    }

    /// The adapter as it is.
    pub fn into_adapter(self) -> FloatAdapter {
        self.trainer.adapter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Site;
    use crate::test_support::{random_model, tiny_shape};
    use crate::train::{Penalties, Schedule};

    fn config() -> LoraConfig {
        let schedule =
            Schedule { epochs: 6, batch: 4, learning_rate: 2e-2, warmup: 0.1, weight_decay: 0.0, seed: 4, penalties: Penalties::default() };
        LoraConfig { rank: 4, alpha: 8.0, sites: vec![Site::Q, Site::Down], context: 16, schedule }
    }

    /// Taken up again after every epoch, a run gives the very bits of one that wasn't.
    #[test]
    fn a_run_that_is_put_down_ends_like_one_that_is_not() {
        let model = random_model(&tiny_shape(), true, 9);
        let samples: Vec<Vec<u32>> = (0..13).map(|i| vec![1, 3 + i % 5, 9, 4, 9, 4, 9, 2]).collect();
        for hold_out in [None, Some(HoldOut { share: 0.2, patience: 2 })] {
            let mut whole = Training::new(&model, &samples, config(), hold_out).unwrap();
            let mut kept = whole.checkpoint();
            let mut epochs = 0;
            while let Some(epoch) = whole.epoch(&mut |_| true).unwrap() {
                let mut resumed = Training::resume(&model, &samples, config(), hold_out, &kept).unwrap();
                assert_eq!(resumed.epoch(&mut |_| true).unwrap(), Some(epoch));
                assert_eq!(resumed.checkpoint(), whole.checkpoint());
                kept = resumed.checkpoint();
                epochs += 1;
            }
            let resumed = Training::resume(&model, &samples, config(), hold_out, &kept).unwrap();
            assert_eq!((resumed.phase(), resumed.into_adapter().pairs), (Phase::Done, whole.into_adapter().pairs));
            assert!(epochs >= 6, "{epochs}");
        }
    }

    #[test]
    fn a_checkpoint_of_another_run_is_refused() {
        let model = random_model(&tiny_shape(), true, 9);
        let samples = vec![vec![1, 5, 6, 2]; 5];
        let kept = Training::new(&model, &samples, config(), None).unwrap().checkpoint();
        let other = random_model(&tiny_shape(), true, 10);
        let mut faster = config();
        faster.schedule.learning_rate = 3e-2;
        let resume =
            |model, samples, config, hold_out, kept: &[u8]| Training::resume(model, samples, config, hold_out, kept).map(|_| ()).unwrap_err();
        // Its name can be forged, its sizes are compared.
        let mut smaller = config();
        smaller.rank = 2;
        let run = Training::new(&model, &samples, config(), None).unwrap();
        let state = Trainer::new(&model, &samples, &smaller).unwrap().state();
        let forged = Checkpoint { of: run.identity(), phase: Phase::Last, curve: vec![], last: vec![], state };
        let forged = postcard::to_allocvec(&forged).unwrap();
        let refused = [
            resume(&model, &samples[..], config(), None, &forged),
            resume(&other, &samples[..], config(), None, &kept),
            resume(&model, &samples[1..], config(), None, &kept),
            resume(&model, &samples[..], faster, None, &kept),
            resume(&model, &samples[..], config(), Some(HoldOut::default()), &kept),
            resume(&model, &samples[..], config(), None, &kept[..kept.len() / 2]),
        ];
        assert!(refused.iter().all(|e| matches!(e, TrainError::Checkpoint(_))), "{refused:?}");
    }
}
