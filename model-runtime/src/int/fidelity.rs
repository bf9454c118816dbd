//! How close the integer model's logits are to a float model's.

use super::engine::{RunError, Runtime, exponent};
use super::forward::argmax;
use serde::{Deserialize, Serialize};

/// Agreement of two models over the same sequences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Positions compared.
    pub positions: usize,
    /// Share of positions at which both pick the same greedy token.
    pub greedy_agreement: f64,
    /// Float perplexity of the next tokens.
    pub float_perplexity: f64,
    /// Integer perplexity of the next tokens.
    pub int_perplexity: f64,
    /// Largest logit error relative to the largest float logit of its position.
    pub worst_relative_error: f64,
}

impl Fidelity {
    /// Integer perplexity over float perplexity.
    pub fn perplexity_ratio(&self) -> f64 {
        self.int_perplexity / self.float_perplexity
    }
}

fn float_argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (v, &z)| if z > row[best] { v } else { best })
}

fn surprise(row: impl Iterator<Item = f64> + Clone, target: f64) -> f64 {
    let max = row.clone().fold(f64::MIN, f64::max);
    max + row.map(|z| (z - max).exp()).sum::<f64>().ln() - target
}

/// Compares the runtime with `float_logits`, which maps tokens to logits `[tokens, vocab]`.
pub fn fidelity(runtime: &Runtime, sequences: &[Vec<u32>], mut float_logits: impl FnMut(&[u32]) -> Vec<f32>) -> Result<Fidelity, RunError> {
    let sem = runtime.semantics();
    let vocab = sem.shape.vocab;
    let unit = f64::from(-exponent(sem, "out.exp_bits")?).exp2();
    let (mut same, mut positions, mut predicted) = (0usize, 0usize, 0usize);
    let (mut float_loss, mut int_loss, mut worst) = (0.0, 0.0, 0f64);
    for tokens in sequences {
        let (ours, theirs) = (runtime.logits(tokens)?, float_logits(tokens));
        if theirs.len() != ours.len() {
            let expected = format!("{} ({} positions of {vocab})", ours.len(), tokens.len());
            return Err(RunError::BadLength { what: "float logits", expected, found: theirs.len() });
        }
        for (t, (y, x)) in ours.chunks_exact(vocab).zip(theirs.chunks_exact(vocab)).enumerate() {
            positions += 1;
            same += usize::from(argmax(y) == float_argmax(x));
            let peak = x.iter().fold(0f32, |m, x| m.max(x.abs())).max(1e-6);
            let error = y.iter().zip(x).map(|(&y, &x)| (f64::from(y) * unit - f64::from(x)).abs()).fold(0.0, f64::max);
            worst = worst.max(error / f64::from(peak));
            if let Some(&target) = tokens.get(t + 1) {
                predicted += 1;
                float_loss += surprise(x.iter().map(|&x| f64::from(x)), f64::from(x[target as usize]));
                int_loss += surprise(y.iter().map(|&y| f64::from(y) * unit), f64::from(y[target as usize]) * unit);
            }
        }
    }
    let mean = |loss: f64| (loss / predicted.max(1) as f64).exp();
    Ok(Fidelity {
        positions,
        greedy_agreement: same as f64 / positions.max(1) as f64,
        float_perplexity: mean(float_loss),
        int_perplexity: mean(int_loss),
        worst_relative_error: worst,
    })
}
