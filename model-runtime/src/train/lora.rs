//! LoRA fine-tuning: A from a seeded normal, B zero, everything else constant.

use super::float::{Net, constant};
use super::optimise::optimise;
use super::{Progress, Schedule, SplitMix64, TrainError, parameter};
use crate::shape::{FloatAdapter, FloatModel, LoraShape, ModelShape, Site};
use candle_core::{Tensor, Var};
use std::collections::{BTreeMap, BTreeSet};

/// An adapter to be trained.
#[derive(Clone, Debug, PartialEq)]
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

/// Trains an adapter on token sequences (each with its BOS and, if wanted, EOS).
pub fn train_lora(
    model: &FloatModel,
    samples: &[Vec<u32>],
    config: &LoraConfig,
    mut progress: impl FnMut(Progress),
) -> Result<FloatAdapter, TrainError> {
    let mut adapter = fresh_adapter(&model.shape, config)?;
    let mut net = Net::new(model, None)?;
    let mut variables = Vec::new();
    net.attach(&adapter, |values, shape| {
        let variable = Var::from_tensor(&constant(values, shape)?)?;
        variables.push(variable.clone());
        Ok(variable.as_tensor().clone())
    })?;
    let samples = cut(samples, config.context.min(model.shape.context));
    optimise(&net, variables.clone(), &samples, &config.schedule, &mut progress)?;
    for (pair, variables) in adapter.pairs.values_mut().zip(variables.chunks(2)) {
        let values = |v: &Tensor| v.flatten_all()?.to_vec1();
        if let [a, b] = variables {
            *pair = (values(a)?, values(b)?);
        }
    }
    Ok(adapter)
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
    use crate::train::Penalties;

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
        let adapter = train_lora(&model, &samples, &config(), |p| losses.push(p.loss)).unwrap();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.3 * first, "{first} to {last}");
        let again = train_lora(&model, &samples, &config(), |_| {}).unwrap();
        assert_eq!(adapter.pairs, again.pairs);
    }

    #[test]
    fn bad_parameters_are_named() {
        let model = random_model(&tiny_shape(), true, 9);
        let refused = |change: fn(&mut LoraConfig), samples: &[Vec<u32>]| {
            let mut config = config();
            change(&mut config);
            match train_lora(&model, samples, &config, |_| {}) {
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
