//! LoRA fine-tuning: A from a seeded normal, B zero, everything else constant; AdamW over [`super::pass`].

use super::adam::{Adam, AdamRates};
use super::gemm::add_transposed_times;
use super::loss::{loss_gradient, mean_loss};
use super::optimise::check_samples;
use super::pass::{Batch, Pass, SiteGradient};
use super::{Penalties, Progress, Schedule, SplitMix64, TrainError, Training, parameter};
use crate::shape::{FloatAdapter, FloatModel, LoraShape, ModelShape, Site};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An adapter to be trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoraConfig {
    /// Rank.
    pub rank: usize,
    /// `alpha`: the branch is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Sites to cover, in every layer.
    pub sites: Vec<Site>,
    /// Samples are cut after this many tokens (the model's context holds too).
    pub context: usize,
    /// How long and how fast.
    pub schedule: Schedule,
}

impl LoraConfig {
    /// What `poa train` does unless told otherwise; the number of epochs is the most that held-out samples may choose.
    ///
    /// Small batches and a high rate: slower training memorises whole sentences and answers fewer questions in other words.
    pub fn ordinary(context: usize, seed: u64) -> Self {
        let penalties = Penalties::default();
        let schedule = Schedule { epochs: 30, batch: 8, learning_rate: 1e-2, warmup: 0.1, weight_decay: 0.1, seed, penalties };
        Self { rank: 8, alpha: 16.0, sites: Site::ALL.to_vec(), context, schedule }
    }
}

/// Trains an adapter on token sequences (each with its BOS and, if wanted, EOS). `progress` says after every step whether to go on.
pub fn train_lora(
    model: &FloatModel,
    samples: &[Vec<u32>],
    config: &LoraConfig,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<FloatAdapter, TrainError> {
    let mut training = Training::new(model, samples, config.clone(), None)?;
    while training.epoch(&mut progress)?.is_some() {}
    Ok(training.into_adapter())
}

/// What an epoch leaves to the next: weights, moments, where the generator and the schedule are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// A and B of each site.
    pairs: BTreeMap<(usize, Site), (Vec<f32>, Vec<f32>)>,
    /// Moments of A and B.
    moments: BTreeMap<(usize, Site), [Adam; 2]>,
    rng: SplitMix64,
    order: Vec<usize>,
    step: usize,
}

/// A training run, epoch by epoch.
pub(super) struct Trainer<'a> {
    pass: Pass<'a>,
    samples: Vec<Vec<u32>>,
    schedule: Schedule,
    pub(super) adapter: FloatAdapter,
    /// Moments of A and B.
    moments: BTreeMap<(usize, Site), [Adam; 2]>,
    rng: SplitMix64,
    order: Vec<usize>,
    step: usize,
    steps: usize,
}

impl<'a> Trainer<'a> {
    /// What is left to the next epoch.
    pub(super) fn state(&self) -> State {
        let (pairs, moments) = (self.adapter.pairs.clone(), self.moments.clone());
        State { pairs, moments, rng: self.rng.clone(), order: self.order.clone(), step: self.step }
    }

    /// Goes on from a state of the same run; whether it can be one, by its sizes.
    pub(super) fn restore(&mut self, state: State) -> bool {
        let State { pairs, moments, rng, order, step } = state;
        let own = &self.adapter.pairs;
        let fits = pairs.len() == own.len()
            && moments.len() == own.len()
            && own.iter().all(|(key, (a, b))| {
                pairs.get(key).is_some_and(|(x, y)| (x.len(), y.len()) == (a.len(), b.len()))
                    && moments.get(key).is_some_and(|[x, y]| x.fits(a.len()) && y.fits(b.len()))
            })
            && step <= self.steps;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !fits || !sorted.into_iter().eq(0..self.samples.len()) {
            return false;
        }
        (self.adapter.pairs, self.moments, self.rng, self.order, self.step) = (pairs, moments, rng, order, step);
        true
    }

    /// Steps of an epoch.
    pub(super) fn steps_an_epoch(&self) -> usize {
        self.samples.len().div_ceil(self.schedule.batch)
    }

    pub(super) fn new(model: &'a FloatModel, samples: &[Vec<u32>], config: &LoraConfig) -> Result<Self, TrainError> {
        let adapter = fresh_adapter(&model.shape, config)?;
        let (samples, schedule) = (cut(samples, config.context.min(model.shape.context)), config.schedule.clone());
        schedule.check()?;
        check_samples(&model.shape, &samples)?;
        Ok(Self {
            pass: Pass::new(model),
            moments: adapter.pairs.iter().map(|(&key, (a, b))| (key, [Adam::new(a.len()), Adam::new(b.len())])).collect(),
            adapter,
            rng: SplitMix64::new(schedule.seed ^ 0x5eed_0fba_7c4e_5000),
            order: (0..samples.len()).collect(),
            step: 0,
            steps: schedule.epochs * samples.len().div_ceil(schedule.batch),
            samples,
            schedule,
        })
    }

    /// One pass over the samples; returns the mean of its batches' losses.
    pub(super) fn epoch(&mut self, progress: &mut dyn FnMut(Progress) -> bool) -> Result<f32, TrainError> {
        self.rng.shuffle(&mut self.order);
        let (order, mut sum) = (self.order.clone(), 0.0);
        for chosen in order.chunks(self.schedule.batch) {
            let loss = self.batch(chosen)?;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { step: self.step, loss });
            }
            sum += loss;
            self.step += 1;
            if !progress(Progress { step: self.step, steps: self.steps, loss }) {
                return Err(TrainError::Stopped);
            }
        }
        Ok(sum / order.len().div_ceil(self.schedule.batch) as f32)
    }

    fn batch(&mut self, chosen: &[usize]) -> Result<f32, TrainError> {
        let (batch, targets) = pack(chosen.iter().map(|&i| &self.samples[i][..]));
        let run = self.pass.forward(Some(&self.adapter), &batch)?;
        let (loss, gradient) = loss_gradient(&self.pass, &run, &targets, &self.schedule.penalties);
        let (scale, rank) = (self.adapter.scale, self.adapter.shape.rank);
        let mut gradients = BTreeMap::new();
        self.pass.backward(&self.adapter, &batch, &run, gradient, &mut |at: SiteGradient| {
            let (n, shape) = (batch.rows(), &self.pass.model.shape);
            let (outs, inner) = shape.site_dims(at.site);
            let (mut a, mut b) = (vec![0.0; rank * inner], vec![0.0; outs * rank]);
            add_transposed_times(&mut a, at.e, at.x, n, 1.0);
            add_transposed_times(&mut b, at.dy, at.u, n, scale);
            gradients.insert((at.layer, at.site), [a, b]);
        });
        let rates = AdamRates { rate: self.schedule.rate(self.step, self.steps), decay: self.schedule.weight_decay, step: self.step + 1 };
        for (key, [a, b]) in gradients {
            if let (Some((weight_a, weight_b)), Some([moment_a, moment_b])) = (self.adapter.pairs.get_mut(&key), self.moments.get_mut(&key)) {
                moment_a.step(weight_a, &a, &rates);
                moment_b.step(weight_b, &b, &rates);
            }
        }
        Ok(loss)
    }

    /// Mean loss per token of other samples, without penalties.
    pub(super) fn loss(&self, samples: &[Vec<u32>]) -> Result<f32, TrainError> {
        let (mut sum, mut tokens) = (0.0, 0);
        for part in samples.chunks(self.schedule.batch) {
            let (batch, targets) = pack(part.iter().map(|s| &s[..s.len().min(self.pass.model.shape.context)]));
            let run = self.pass.forward(Some(&self.adapter), &batch)?;
            sum += mean_loss(&self.pass, &run, &targets) * targets.len() as f32;
            tokens += targets.len();
        }
        Ok(sum / tokens.max(1) as f32)
    }
}

/// Inputs (all tokens but the last) and targets (all but the first) of sequences of at least two tokens.
pub fn pack<'s>(samples: impl IntoIterator<Item = &'s [u32]> + Clone) -> (Batch, Vec<u32>) {
    let targets = samples.clone().into_iter().flat_map(|s| &s[1..]).copied().collect();
    (Batch::new(samples.into_iter().map(|s| &s[..s.len() - 1])), targets)
}

/// The first `context` tokens of each sample.
pub(super) fn cut(samples: &[Vec<u32>], context: usize) -> Vec<Vec<u32>> {
    samples.iter().map(|s| s[..s.len().min(context)].to_vec()).collect()
}

fn fresh_adapter(shape: &ModelShape, config: &LoraConfig) -> Result<FloatAdapter, TrainError> {
    let most = shape.width.min(shape.ff);
    if !(1..=most).contains(&config.rank) {
        return Err(parameter("rank", format!("1 to {most}"), config.rank));
    }
    if !(config.alpha.is_finite() && config.alpha > 0.0) {
        return Err(parameter("alpha", "a positive number", config.alpha));
    }
    let sites: BTreeSet<Site> = config.sites.iter().copied().collect();
    if sites.is_empty() {
        return Err(parameter("sites", "at least one", 0));
    }
    let mut rng = SplitMix64::new(config.schedule.seed);
    let mut pairs = BTreeMap::new();
    for layer in 0..shape.layers {
        for &site in &sites {
            let (rows, columns) = shape.site_dims(site);
            let std = 1.0 / (columns as f32).sqrt();
            let a = (0..config.rank * columns).map(|_| std * rng.normal()).collect();
            pairs.insert((layer, site), (a, vec![0.0; rows * config.rank]));
        }
    }
    let scale = config.alpha / config.rank as f32;
    Ok(FloatAdapter { shape: LoraShape { rank: config.rank, sites: sites.into_iter().collect() }, scale, pairs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{random_model, tiny_shape};

    fn config() -> LoraConfig {
        let schedule =
            Schedule { epochs: 60, batch: 2, learning_rate: 2e-2, warmup: 0.1, weight_decay: 0.0, seed: 4, penalties: Penalties::default() };
        LoraConfig { rank: 4, alpha: 8.0, sites: Site::ALL.to_vec(), context: 16, schedule }
    }

    #[test]
    fn learns_and_repeats() {
        let model = random_model(&tiny_shape(), true, 9);
        let samples = vec![vec![1, 5, 6, 7, 2], vec![1, 8, 3, 2], vec![1, 4, 9, 9, 10, 2]];
        let mut losses = Vec::new();
        let adapter = train_lora(&model, &samples, &config(), |p| {
            losses.push(p.loss);
            true
        })
        .unwrap();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.3 * first, "{first} to {last}");
        let again = train_lora(&model, &samples, &config(), |_| true).unwrap();
        assert_eq!(adapter.pairs, again.pairs);
    }

    #[test]
    fn bad_parameters_are_named() {
        let model = random_model(&tiny_shape(), true, 9);
        let refused = |change: fn(&mut LoraConfig), samples: &[Vec<u32>]| {
            let mut config = config();
            change(&mut config);
            match train_lora(&model, samples, &config, |_| true) {
                Err(TrainError::Parameter { name, .. }) => name,
                Err(TrainError::Token { .. }) => "token",
                other => panic!("{:?}", other.map(|_| ())),
            }
        };
        let good = [vec![1, 2]];
        assert_eq!(refused(|c| c.rank = 0, &good), "rank");
        assert_eq!(refused(|c| c.alpha = f32::NAN, &good), "alpha");
        assert_eq!(refused(|c| c.sites.clear(), &good), "sites");
        assert_eq!(refused(|c| c.schedule.batch = 0, &good), "batch");
        assert_eq!(refused(|c| c.schedule.learning_rate = -1.0, &good), "learning_rate");
        assert_eq!(refused(|_| {}, &[]), "samples");
        assert_eq!(refused(|_| {}, &[vec![1]]), "samples");
        assert_eq!(refused(|_| {}, &[vec![1, 17]]), "token");
    }
}
