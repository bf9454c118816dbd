//! Training a base model from scratch, with the machinery that trains adapters.

use super::float::{Net, constant};
use super::lora::cut;
use super::optimise::optimise;
use super::{Progress, Schedule, SplitMix64, TrainError};
use crate::shape::{FloatLayer, FloatModel, ModelShape, Site};
use candle_core::{Tensor, Var};

/// A base model to be trained. Embeddings and head are separate: the stream starts as large as it is after a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseConfig {
    /// Architecture.
    pub shape: ModelShape,
    /// How long and how fast.
    pub schedule: Schedule,
}

/// Trains a model on token sequences (each with its BOS and EOS).
pub fn train_base(samples: &[Vec<u32>], config: &BaseConfig, mut progress: impl FnMut(Progress)) -> Result<FloatModel, TrainError> {
    let mut model = fresh_model(&config.shape, config.schedule.seed);
    let mut variables = Vec::new();
    let net = Net::from_model(&model, |values, shape| {
        let variable = Var::from_tensor(&constant(values, shape)?)?;
        variables.push(variable.clone());
        Ok(variable.as_tensor().clone())
    })?;
    optimise(&net, variables, &cut(samples, config.shape.context), &config.schedule, &mut progress)?;
    read_back(&net, &mut model)?;
    Ok(model)
}

/// Embeddings of std 1, a head of GPT-2's std 0.02, the two projections into the residual stream smaller by `√(2·layers)`.
fn fresh_model(shape: &ModelShape, seed: u64) -> FloatModel {
    let mut rng = SplitMix64::new(seed);
    let mut values = |len: usize, std: f32| (0..len).map(|_| std * rng.normal()).collect::<Vec<f32>>();
    let deep = (2.0 * shape.layers as f32).sqrt();
    let mut table = |std| values(shape.vocab * shape.width, std);
    let (embed, head) = (table(1.0), table(0.02));
    let mut matrix = |site: Site| {
        let (rows, columns) = shape.site_dims(site);
        let std = 0.6 / (columns as f32).sqrt();
        values(rows * columns, if matches!(site, Site::O | Site::Down) { std / deep } else { std })
    };
    let ones = || vec![1.0; shape.width];
    let layers = (0..shape.layers).map(|_| FloatLayer { attn_norm: ones(), ffn_norm: ones(), linear: Site::ALL.map(&mut matrix) }).collect();
    FloatModel { shape: shape.clone(), embed, layers, final_norm: ones(), head: Some(head) }
}

fn read_back(net: &Net, model: &mut FloatModel) -> Result<(), TrainError> {
    let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    model.embed = values(&net.embed)?;
    model.head = net.head.as_ref().map(values).transpose()?;
    model.final_norm = values(&net.final_norm)?;
    for (layer, trained) in model.layers.iter_mut().zip(&net.layers) {
        layer.attn_norm = values(&trained.attn_norm)?;
        layer.ffn_norm = values(&trained.ffn_norm)?;
        for site in Site::ALL {
            layer.linear[site as usize] = values(&trained.linear[site as usize])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::tiny_shape;
    use crate::train::Penalties;

    #[test]
    fn learns_and_repeats() {
        let samples = vec![vec![1, 5, 6, 7, 2], vec![1, 8, 3, 2], vec![1, 4, 9, 9, 10, 2]];
        let schedule =
            Schedule { epochs: 150, batch: 3, learning_rate: 1e-2, warmup: 0.1, weight_decay: 0.01, seed: 4, penalties: Penalties::default() };
        let config = BaseConfig { shape: tiny_shape(), schedule };
        let mut losses = Vec::new();
        let model = train_base(&samples, &config, |p| losses.push(p.loss)).unwrap();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.3 * first, "{first} to {last}");
        let again = train_base(&samples, &config, |_| {}).unwrap();
        assert_eq!(format!("{model:?}"), format!("{again:?}"));
    }
}
