//! Schedules, and the training loop of base models: AdamW, warm-up and cosine decay, batches drawn by a seeded shuffle. Two runs on one machine
//! give the same bits.

use super::float::{Net, check_tokens};
use super::{SplitMix64, TrainError, parameter};
use crate::shape::ModelShape;
use candle_core::{D, Device, Result as CandleResult, Tensor, Var};
use candle_nn::ops::log_softmax;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use serde::Serialize;

/// How long and how fast to train.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Passes over the samples.
    pub epochs: usize,
    /// Samples in a batch.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps spent warming up, 0 to 1.
    pub warmup: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Seed of initialisation and shuffles.
    pub seed: u64,
    /// What is added to the loss.
    pub penalties: Penalties,
}

/// What changes the mean cross-entropy so that a model stays exact in integers; all are 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Penalties {
    /// Label smoothing: this share of the target is spread over the vocabulary. It bounds the logits, which amplify every rounding error.
    pub smoothing: f64,
    /// A token whose loss is below this counts as this much and is learnt no further. Certain answers leave the other tokens, which make up the
    /// gradient, less probability than a unit of the softmax's table.
    pub floor: f64,
    /// Weight of the mean square of the residual stream after the last layer. One unit serves the stream of all layers, so one that grows leaves
    /// the embedding few bits.
    pub stream: f64,
}

/// Where a training run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Mean loss per token of the last batch, in nats.
    pub loss: f32,
}

impl Schedule {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        for (name, value) in [("epochs", self.epochs), ("batch", self.batch)] {
            if value == 0 {
                return Err(parameter(name, "at least 1", value));
            }
        }
        let rates = [
            ("learning_rate", self.learning_rate, 10.0),
            ("warmup", self.warmup, 1.0),
            ("weight_decay", self.weight_decay, 10.0),
            ("smoothing", self.penalties.smoothing, 1.0),
            ("floor", self.penalties.floor, 10.0),
            ("stream", self.penalties.stream, 10.0),
        ];
        for (name, value, most) in rates {
            if !(0.0..=most).contains(&value) {
                return Err(parameter(name, format!("0 to {most}"), value));
            }
        }
        Ok(())
    }

    /// Linear warm-up, then half a cosine down to a twentieth of the peak.
    pub(super) fn rate(&self, step: usize, steps: usize) -> f64 {
        let warm = (self.warmup * steps as f64).ceil();
        let step = step as f64;
        if step < warm {
            return self.learning_rate * (step + 1.0) / warm;
        }
        let done = (step - warm) / (steps as f64 - warm).max(1.0);
        self.learning_rate * (0.05 + 0.95 * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * done)))
    }
}

/// Minimises the mean loss per token of `samples` over `variables` of `net`.
pub(crate) fn optimise(
    net: &Net,
    variables: Vec<Var>,
    samples: &[Vec<u32>],
    schedule: &Schedule,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), TrainError> {
    schedule.check()?;
    check_samples(&net.shape, samples)?;
    let params = ParamsAdamW { lr: schedule.learning_rate, beta2: 0.99, weight_decay: schedule.weight_decay, ..Default::default() };
    let mut optimiser = AdamW::new(variables, params)?;
    let mut rng = SplitMix64::new(schedule.seed ^ 0x5eed_0fba_7c4e_5000);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    let steps = schedule.epochs * samples.len().div_ceil(schedule.batch);
    let mut step = 0;
    for _ in 0..schedule.epochs {
        rng.shuffle(&mut order);
        for chosen in order.chunks(schedule.batch) {
            let batch: Vec<&[u32]> = chosen.iter().map(|&i| &samples[i][..]).collect();
            let (loss, penalty) = batch_loss(net, &batch, &schedule.penalties)?;
            optimiser.set_learning_rate(schedule.rate(step, steps));
            optimiser.backward_step(&(&loss + penalty)?)?;
            let loss = loss.to_scalar::<f32>()?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { step, loss });
            }
            step += 1;
            progress(Progress { step, steps, loss });
        }
    }
    Ok(())
}

pub(super) fn check_samples(shape: &ModelShape, samples: &[Vec<u32>]) -> Result<(), TrainError> {
    if samples.is_empty() {
        return Err(parameter("samples", "at least one", 0));
    }
    for sample in samples {
        check_tokens(shape, sample)?;
        if sample.len() < 2 {
            return Err(parameter("samples", "at least two tokens each", sample.len()));
        }
    }
    Ok(())
}

/// Mean of `-log p` over every token but each sample's first, and what the penalties add to it. Shorter samples are padded at the end; causality
/// hides the padding.
fn batch_loss(net: &Net, batch: &[&[u32]], penalties: &Penalties) -> CandleResult<(Tensor, Tensor)> {
    let longest = batch.iter().map(|s| s.len() - 1).max().unwrap_or(0);
    let (mut ids, mut reads, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (row, sample) in batch.iter().enumerate() {
        let inputs = &sample[..sample.len() - 1];
        ids.extend_from_slice(inputs);
        ids.resize((row + 1) * longest, 0);
        reads.extend((0..inputs.len()).map(|t| (row * longest + t) as u32));
        targets.extend_from_slice(&sample[1..]);
    }
    let ids = Tensor::from_vec(ids, (batch.len(), longest), &Device::Cpu)?;
    let stream = net.stream(&ids)?.flatten(0, 1)?;
    let stream = stream.index_select(&Tensor::new(reads, &Device::Cpu)?, 0)?;
    let log_p = log_softmax(&net.logits(&net.final_norm(&stream)?)?, D::Minus1)?;
    let targets = Tensor::new(targets, &Device::Cpu)?;
    let losses = log_p.gather(&targets.unsqueeze(1)?, 1)?.neg()?;
    let loss = losses.mean_all()?;
    let floor = ((losses - penalties.floor)?.relu()?.mean_all()? - &loss)?;
    // The smoothed target's loss, `(1 - s)·loss + s·mean(-log p)`, less the loss itself.
    let smoothing = ((log_p.mean_all()? + &loss)? * -penalties.smoothing)?;
    let stream = (stream.sqr()?.mean_all()? * penalties.stream)?;
    let penalty = ((floor + smoothing)? + stream)?;
    Ok((loss, penalty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_decays() {
        let schedule = Schedule { epochs: 1, batch: 1, learning_rate: 1.0, warmup: 0.1, weight_decay: 0.0, seed: 0, penalties: Penalties::default() };
        let rates: Vec<f64> = (0..100).map(|step| schedule.rate(step, 100)).collect();
        assert!(rates[0] < 0.11 && (rates[9] - 1.0).abs() < 1e-12);
        assert!(rates[10..].windows(2).all(|w| w[1] < w[0]) && rates[99] < 0.06);
    }
}
