//! A datanet becomes a LoRA adapter, and the adapter integers.

use crate::error::{Failure, While};
use crate::progress::{Event, Observer};
use crate::run::runtime;
use crate::store::{AdapterDir, ModelDir, write_file};
use model_runtime::int::fidelity::{Fidelity, fidelity};
use model_runtime::int::{QuantiseError, quantise_adapter};
use model_runtime::shape::{FloatAdapter, FloatModel};
use model_runtime::train::{EpochLoss, HoldOut, LoraConfig, Progress, TrainError, Training, float_logits};
use std::path::Path;
use std::time::Instant;

/// A trained adapter and how it was trained.
pub struct Trained {
    /// The adapter.
    pub adapter: FloatAdapter,
    /// The last run's losses, step by step as far as it was made now; epoch by epoch where all of it was kept.
    pub losses: Vec<f32>,
    /// What chose the number of epochs; empty if it was given.
    pub epochs: Vec<EpochLoss>,
}

fn failed(error: TrainError) -> Failure {
    match error {
        TrainError::Stopped => Failure::stopped(),
        error => Failure::input(format!("training: {error}")),
    }
}

/// Trains; with `hold_out` the number of epochs is chosen, else it is the schedule's. With a `checkpoint`, every epoch is kept in that file, and a
/// run that it is of goes on where it was left.
///
/// # Errors
///
/// When the configuration doesn't fit the model, the checkpoint is another run's, or it was told to stop.
pub fn trained(
    model: &FloatModel,
    tokens: &[Vec<u32>],
    config: &LoraConfig,
    hold_out: Option<HoldOut>,
    checkpoint: Option<&Path>,
    on: &dyn Observer,
) -> Result<Trained, Failure> {
    let mut training = match checkpoint.filter(|path| path.exists()) {
        Some(path) => {
            let bytes = std::fs::read(path).during_path("reading", path)?;
            let resumed = Training::resume(model, tokens, config.clone(), hold_out, &bytes).map_err(failed);
            let training = resumed.map_err(|f| f.hint(format!("remove {} to train from the beginning", path.display())))?;
            on.note(format!("going on after epoch {} of {}", training.curve().len() + training.last().len(), path.display()));
            training
        }
        None => Training::new(model, tokens, config.clone(), hold_out).map_err(failed)?,
    };
    // What a run that was broken off has kept may not have been told.
    for epoch in training.epochs_made() {
        on.tell(Event::Epoch(epoch));
    }
    let mut losses = Vec::new();
    let mut progress = |p: Progress| {
        // Choosing the number of epochs is a run of its own.
        if p.step == 1 {
            losses.clear();
        }
        losses.push(p.loss);
        on.tell(Event::Steps { what: "training", done: p.step as u64, total: p.steps as u64, loss: Some(p.loss) });
        on.goes_on()
    };
    while let Some(epoch) = training.epoch(&mut progress).map_err(failed)? {
        if let Some(path) = checkpoint {
            write_file(path, &training.checkpoint())?;
        }
        on.tell(Event::Epoch(epoch));
    }
    if losses.is_empty() {
        losses = training.last().to_vec();
    }
    let epochs = training.curve().to_vec();
    Ok(Trained { adapter: training.into_adapter(), losses, epochs })
}

/// What a training run will take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Fewest and most seconds, on this machine as it is now.
    pub seconds: (f64, f64),
    /// Bytes of weights, moments and a batch's activations.
    pub memory: u64,
}

/// Steps that are made to see how long one takes, at most.
const TIMED: usize = 4;

/// Makes a few steps and says how long all would take. What a run would be refused for is refused here.
///
/// # Errors
///
/// When the configuration doesn't fit the model, or it would take more than `most_memory` bytes: no step is made then.
pub fn estimate(
    model: &FloatModel,
    tokens: &[Vec<u32>],
    config: &LoraConfig,
    hold_out: Option<HoldOut>,
    most_memory: u64,
) -> Result<Estimate, Failure> {
    let mut training = Training::new(model, tokens, config.clone(), hold_out).map_err(failed)?;
    let memory = memory(model, tokens, config);
    if memory > most_memory {
        let failure = Failure::input(format!("it would take about {} MiB, at most {} are allowed", memory >> 20, most_memory >> 20));
        return Err(failure.hint("smaller batches, fewer tokens a sample or a lower rank take less"));
    }
    let (least, most) = training.steps();
    let (started, mut made) = (Instant::now(), 0);
    let stopped = training.epoch(&mut |p| {
        made = p.step;
        p.step < TIMED
    });
    match stopped {
        Ok(_) | Err(TrainError::Stopped) => {}
        Err(error) => return Err(failed(error)),
    }
    let step = started.elapsed().as_secs_f64() / made.max(1) as f64;
    Ok(Estimate { seconds: (step * least as f64, step * most as f64), memory })
}

fn memory(model: &FloatModel, tokens: &[Vec<u32>], config: &LoraConfig) -> u64 {
    let shape = &model.shape;
    let linear: usize = config.sites.iter().map(|&site| shape.site_dims(site)).map(|(out, inner)| out + inner).sum();
    let base: usize = model.embed.len() + model.layers.iter().flat_map(|l| &l.linear).map(Vec::len).sum::<usize>();
    let longest = tokens.iter().map(Vec::len).max().unwrap_or(0).min(config.context);
    // Weights, gradient and two moments of A and B.
    let adapter = 4 * shape.layers * config.rank * linear;
    // A token's vectors in a layer: the stream, norms, attention's and the feed-forward's, and its row of attention; then its logits twice.
    let token = shape.layers * (12 * shape.width + 4 * shape.ff + shape.heads * longest) + 2 * shape.vocab;
    4 * (base + adapter + config.schedule.batch * longest * token) as u64
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
    use crate::progress::Unwatched;
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
            let run = |on: &dyn Observer| trained(&model, &samples, &config, hold_out, None, on);
            assert_eq!(run(&Until(0)).map(|_| ()).unwrap_err().kind, Kind::Stopped);
            assert!(!run(&Until(1)).unwrap().losses.is_empty());
        }
    }

    /// A run that was stopped goes on with the last whole epoch, and ends with the very adapter of one that wasn't stopped.
    #[test]
    fn training_goes_on_where_it_was_left() {
        struct For(std::sync::atomic::AtomicUsize);
        impl Observer for For {
            fn tell(&self, _: Event) {}
            fn goes_on(&self) -> bool {
                self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 1
            }
        }
        let shape =
            ModelShape { layers: 1, width: 8, heads: 1, kv_heads: 1, head_dim: 8, ff: 8, vocab: 16, rope_theta: 1e4, norm_eps: 1e-5, context: 8 };
        let model = random_model(&shape, &mut Generator::new(2));
        let mut config = LoraConfig::ordinary(8, 1);
        config.schedule.epochs = 4;
        let samples: Vec<Vec<u32>> = (0..20).map(|i| vec![1, 2 + i % 8, 3]).collect();
        let whole = trained(&model, &samples, &config, Some(HoldOut::default()), None, &Unwatched).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        let mut stops = 0;
        let resumed = loop {
            match trained(&model, &samples, &config, Some(HoldOut::default()), Some(&path), &For(5.into())) {
                Ok(done) => break done,
                Err(failure) => assert_eq!(failure.kind, Kind::Stopped),
            }
            stops += 1;
        };
        assert!(stops > 3 && resumed.adapter.pairs == whole.adapter.pairs && resumed.epochs == whole.epochs, "{stops}");
        config.rank = 4;
        let refused = trained(&model, &samples, &config, Some(HoldOut::default()), Some(&path), &Unwatched).err().unwrap();
        assert!(refused.message.contains("another model, other samples or other settings") && refused.hint.is_some(), "{refused:?}");
    }

    #[test]
    fn an_estimate_is_of_the_steps_that_are_left_to_make() {
        let shape =
            ModelShape { layers: 1, width: 8, heads: 1, kv_heads: 1, head_dim: 8, ff: 8, vocab: 16, rope_theta: 1e4, norm_eps: 1e-5, context: 8 };
        let model = random_model(&shape, &mut Generator::new(2));
        let samples: Vec<Vec<u32>> = (0..40).map(|i| vec![1, 2 + i % 8, 3]).collect();
        let of = |epochs: usize| {
            let mut config = LoraConfig::ordinary(8, 1);
            config.schedule.epochs = epochs;
            estimate(&model, &samples, &config, Some(HoldOut::default()), 1 << 30).unwrap()
        };
        let few = of(10);
        assert!(few.seconds.0 > 0.0 && few.seconds.0 < few.seconds.1 && few.memory > 0, "{few:?}");
        let mut config = LoraConfig::ordinary(8, 1);
        config.rank = 99;
        assert!(estimate(&model, &samples, &config, None, 1 << 30).unwrap_err().message.contains("rank"));
        config.rank = 4;
        assert!(estimate(&model, &samples, &config, None, 10).unwrap_err().message.contains("at most 0"));
    }
}
