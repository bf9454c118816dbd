//! A float model becomes exact integers.

use crate::error::{Failure, While};
use crate::progress::Observer;
use crate::store::ModelDir;
use model_runtime::int::fidelity::{Fidelity, fidelity};
use model_runtime::int::{Headroom, Runtime, quantise_base_with};
use model_runtime::shape::FloatModel;
use model_runtime::text::Tokenizer;
use model_runtime::train::{SplitMix64, float_logits};

/// Sequences the float model writes for calibration, and as many again to measure fidelity on.
const SELF_WRITTEN: usize = 12;

/// Lets the float model write text (temperature 1, seeded): what it is likely to see.
pub fn self_written(model: &FloatModel, tokenizer: &Tokenizer, count: usize, length: usize, on: &dyn Observer) -> Result<Vec<Vec<u32>>, Failure> {
    let mut rng = SplitMix64::new(0x706f_6131);
    let vocab = model.shape.vocab;
    let write_one = |number: usize| -> Result<Vec<u32>, Failure> {
        if !on.goes_on() {
            return Err(Failure::stopped());
        }
        let mut tokens = vec![tokenizer.bos()];
        while tokens.len() < length {
            let logits = float_logits(model, None, &tokens).during("running the float model")?;
            let last = &logits[logits.len() - vocab..];
            tokens.push(draw(last, rng.unit()));
        }
        on.steps("calibration text", number + 1, count);
        Ok(tokens)
    };
    (0..count).map(write_one).collect()
}

/// The token at `at` of the softmax distribution's cumulative sum.
fn draw(logits: &[f32], at: f64) -> u32 {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> = logits.iter().map(|z| f64::from(z - max).exp()).collect();
    let mut left = at * weights.iter().sum::<f64>();
    let found = weights.iter().position(|w| {
        left -= w;
        left <= 0.0
    });
    found.unwrap_or(logits.len() - 1) as u32
}

/// An imported model and how faithful its integers are.
pub struct Imported {
    /// The model.
    pub model: ModelDir,
    /// Measured on text that wasn't used for calibration.
    pub fidelity: Fidelity,
}

/// Quantises a float model. `texts` calibrate it and measure fidelity (alternately); without them it writes its own.
///
/// # Errors
///
/// Names the tensor or setting that doesn't fit.
pub fn import(
    float: FloatModel,
    tokenizer: Tokenizer,
    texts: Option<Vec<Vec<u32>>>,
    headroom: Headroom,
    on: &dyn Observer,
) -> Result<Imported, Failure> {
    let tokenizer = tokenizer.for_vocabulary(float.shape.vocab).during("the tokenizer")?;
    let length = float.shape.context.min(64);
    let texts = match texts {
        Some(texts) => texts,
        None => self_written(&float, &tokenizer, 2 * SELF_WRITTEN, length, on)?,
    };
    let pick = |parity: usize| texts.iter().skip(parity).step_by(2).filter(|t| t.len() > 1).take(64).cloned().collect::<Vec<_>>();
    let (calibration, held_out) = (pick(0), pick(1));
    let held_out = if held_out.is_empty() { calibration.clone() } else { held_out };
    let int = quantise_base_with(&float, &calibration, headroom).during("quantising")?;
    let runtime = Runtime::new(int.semantics.clone(), &int.tensors, None).during("loading the integer model")?;
    let reference = |tokens: &[u32]| float_logits(&float, None, tokens).unwrap_or_default();
    let fidelity = fidelity(&runtime, &held_out[..held_out.len().min(SELF_WRITTEN)], reference).during("measuring fidelity")?;
    Ok(Imported { model: ModelDir { int, float, tokenizer }, fidelity })
}
