//! A datanet becomes a LoRA adapter, and the adapter integers.

use crate::error::{Failure, While};
use crate::progress::{Event, Observer};
use crate::run::runtime;
use crate::store::{AdapterDir, ModelDir};
use model_runtime::int::fidelity::{Fidelity, fidelity};
use model_runtime::int::{QuantiseError, quantise_adapter};
use model_runtime::shape::{FloatAdapter, FloatModel};
use model_runtime::train::{EpochLoss, HoldOut, LoraConfig, Progress, TrainError, float_logits, train_lora, train_lora_chosen};

/// A trained adapter and how it was trained.
pub struct Trained {
    /// The adapter.
    pub adapter: FloatAdapter,
    /// The last run's losses, step by step.
    pub losses: Vec<f32>,
    /// What chose the number of epochs; empty if it was given.
    pub epochs: Vec<EpochLoss>,
}

/// Trains; with `hold_out` the number of epochs is chosen, else it is the schedule's.
///
/// # Errors
///
/// When the configuration doesn't fit the model, or it was told to stop.
pub fn trained(
    model: &FloatModel,
    tokens: &[Vec<u32>],
    config: &LoraConfig,
    hold_out: Option<HoldOut>,
    on: &dyn Observer,
) -> Result<Trained, Failure> {
    let mut losses = Vec::new();
    let progress = |p: Progress| {
        on.tell(Event::Steps { what: "training", done: p.step as u64, total: p.steps as u64, loss: Some(p.loss) });
        // Choosing the number of epochs is a run of its own.
        if p.step == 1 {
            losses.clear();
        }
        losses.push(p.loss);
        on.goes_on()
    };
    let trained = match hold_out {
        Some(hold_out) => train_lora_chosen(model, tokens, config, &hold_out, progress),
        None => train_lora(model, tokens, config, progress).map(|adapter| (adapter, vec![])),
    };
    let (adapter, epochs) = trained.map_err(|error| match error {
        TrainError::Stopped => Failure::stopped(),
        error => Failure::input(format!("training: {error}")),
    })?;
    Ok(Trained { adapter, losses, epochs })
}

/// The loss curve as up to 16 means.
pub fn curve(losses: &[f32]) -> Vec<f32> {
    let chunk = losses.len().div_ceil(16).max(1);
    losses.chunks(chunk).map(|c| c.iter().sum::<f32>() / c.len() as f32).collect()
}

/// Share of greedy tokens below which an adapted integer model isn't the float one's stand-in.
const LEAST_AGREEMENT: f64 = 0.9;

/// Samples that fidelity is measured on, at most.
const FEW: usize = 24;

/// An adapter in integers beside its floats, and how faithful they are.
pub struct Quantised {
    /// Both.
    pub adapter: AdapterDir,
    /// Measured on some of the samples.
    pub fidelity: Fidelity,
}

/// Quantises a trained or imported adapter, calibrated on the samples it is for.
///
/// # Errors
///
/// When it doesn't fit the base's integers, with what to do.
pub fn quantised(model: &ModelDir, float: FloatAdapter, samples: &[Vec<u32>], on: &dyn Observer) -> Result<Quantised, Failure> {
    let int = quantise_adapter(&model.int, &model.float, &float, samples).map_err(|e| refused(&e, &model.float, &float))?;
    let adapter = AdapterDir { int, float };
    let fidelity = adapted_fidelity(model, &adapter, samples)?;
    if fidelity.greedy_agreement < LEAST_AGREEMENT {
        on.note("warning: the integers answer differently from the floats; import the base with another --headroom or --calibration, or train less");
    }
    Ok(Quantised { adapter, fidelity })
}

/// How faithful a model with its adapter is, on some of the samples it is for.
fn adapted_fidelity(model: &ModelDir, adapter: &AdapterDir, samples: &[Vec<u32>]) -> Result<Fidelity, Failure> {
    let runtime = runtime(&adapter.int.semantics, model, Some(adapter))?;
    let few: Vec<Vec<u32>> = samples.iter().step_by(samples.len().div_ceil(FEW).max(1)).cloned().collect();
    let reference = |tokens: &[u32]| float_logits(&model.float, Some(&adapter.float), tokens).unwrap_or_default();
    fidelity(&runtime, &few, reference).during("measuring fidelity")
}

/// What to do about an adapter that can't be made exact, where its error doesn't say.
fn refused(error: &QuantiseError, model: &FloatModel, adapter: &FloatAdapter) -> Failure {
    let failure = Failure::input(format!("quantising the adapter: {error}"));
    if !matches!(error, QuantiseError::TooNarrow { .. } | QuantiseError::Bound { .. } | QuantiseError::Undecided) {
        return failure;
    }
    let share = adapter_share(model, adapter);
    let advice = if share > 1.0 { "train less or lower --learning-rate" } else { "train longer or raise --learning-rate" };
    failure.hint(format!("the adapter's branches have up to {share:.2} times the size of the weights beside them: {advice}"))
}

/// Largest ratio, over the adapted matrices, of the branch's Frobenius norm to the matrix's.
fn adapter_share(model: &FloatModel, adapter: &FloatAdapter) -> f64 {
    let rank = adapter.shape.rank;
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let mut largest = 0f64;
    for (&(layer, site), (a, b)) in &adapter.pairs {
        let columns = a.len() / rank;
        let row = |i: usize| &a[i * columns..(i + 1) * columns];
        // ‖BA‖² = Σ (BᵀB)[i,j]·(AAᵀ)[i,j].
        let gram = |i: usize, j: usize| b.chunks_exact(rank).map(|b| f64::from(b[i]) * f64::from(b[j])).sum::<f64>();
        let pairs = (0..rank).flat_map(|i| (0..rank).map(move |j| (i, j)));
        let branch: f64 = pairs.map(|(i, j)| gram(i, j) * dot(row(i), row(j))).sum();
        let weights = &model.layers[layer].linear[site as usize];
        largest = largest.max((branch.max(0.0) / dot(weights, weights).max(1e-30)).sqrt());
    }
    largest * f64::from(adapter.scale).abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use model_runtime::int::synthetic::{Generator, random_adapter, random_model};
    use model_runtime::shape::{LoraShape, ModelShape, Site};

    /// An adapter that outweighs its base isn't answered with "raise --learning-rate".
    #[test]
    fn the_hint_follows_the_size_of_the_adapter() {
        let shape =
            ModelShape { layers: 2, width: 16, heads: 2, kv_heads: 1, head_dim: 8, ff: 24, vocab: 20, rope_theta: 1e4, norm_eps: 1e-5, context: 8 };
        let mut rng = Generator::new(1);
        let model = random_model(&shape, &mut rng);
        let mut adapter = random_adapter(&shape, &LoraShape { rank: 2, sites: vec![Site::Q, Site::Down] }, &mut rng);
        let error = QuantiseError::TooNarrow { tensor: "bq".into(), bits: 3, least: 4 };
        let hint = |adapter: &FloatAdapter| refused(&error, &model, adapter).hint.unwrap_or_default();
        assert!(adapter_share(&model, &adapter) < 1.0 && hint(&adapter).contains("raise"), "{}", hint(&adapter));
        adapter.scale = 1000.0;
        assert!(hint(&adapter).contains("lower --learning-rate"), "{}", hint(&adapter));
    }

    /// Stops at an event of training, of one epoch's choice and of the last run alike.
    #[test]
    fn training_stops_when_told() {
        struct Until(u64);
        impl Observer for Until {
            fn tell(&self, _: Event) {}
            fn goes_on(&self) -> bool {
                self.0 > 0
            }
        }
        let shape =
            ModelShape { layers: 1, width: 8, heads: 1, kv_heads: 1, head_dim: 8, ff: 8, vocab: 16, rope_theta: 1e4, norm_eps: 1e-5, context: 8 };
        let model = random_model(&shape, &mut Generator::new(2));
        let mut config = LoraConfig::ordinary(8, 1);
        config.schedule.epochs = 2;
        let samples: Vec<Vec<u32>> = (0..12).map(|i| vec![1, 2 + i % 8, 3]).collect();
        for hold_out in [None, Some(HoldOut::default())] {
            let run = |on: &dyn Observer| trained(&model, &samples, &config, hold_out, on);
            assert_eq!(run(&Until(0)).map(|_| ()).unwrap_err().kind, Kind::Stopped);
            assert!(!run(&Until(1)).unwrap().losses.is_empty());
        }
    }
}
