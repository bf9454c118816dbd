//! The mean loss per token of packed sequences and its gradient at the residual stream, penalties included.

use super::Penalties;
use super::pass::{Pass, Run, softmax};

/// Turns each row of logits into its softmax; returns `(−log p of the target, mean of −log p)` of every row.
fn losses(logits: &mut [f32], targets: &[u32]) -> Vec<(f32, f32)> {
    let vocab = logits.len() / targets.len().max(1);
    let row = |(z, &target): (&mut [f32], &u32)| {
        let (chosen, mean) = (z[target as usize], z.iter().sum::<f32>() / vocab as f32);
        let log_sum = softmax(z);
        (log_sum - chosen, log_sum - mean)
    };
    logits.chunks_exact_mut(vocab.max(1)).zip(targets).map(row).collect()
}

/// Mean of `−log p(target)`.
pub(super) fn mean_loss(pass: &Pass, run: &Run, targets: &[u32]) -> f32 {
    let losses = losses(&mut pass.logits(run), targets);
    losses.iter().map(|(loss, _)| loss).sum::<f32>() / targets.len().max(1) as f32
}

/// The mean loss, and the gradient of loss and penalties at the stream after the last layer.
///
/// Loss with penalties: `mean(max(loss, floor)) + smoothing·mean(mean(−log p) − loss) + stream·mean(stream²)`.
pub(super) fn loss_gradient(pass: &Pass, run: &Run, targets: &[u32], penalties: &Penalties) -> (f32, Vec<f32>) {
    let (n, width) = (targets.len() as f32, pass.model.shape.width);
    let mut dz = pass.logits(run);
    let (vocab, losses) = (pass.model.shape.vocab, losses(&mut dz, targets));
    let smoothing = penalties.smoothing as f32;
    for ((row, &target), (loss, _)) in dz.chunks_exact_mut(vocab).zip(targets).zip(&losses) {
        // −log p has gradient p − e_t, the mean over the vocabulary p − 1/vocab.
        let learns = if *loss > penalties.floor as f32 { 1.0 } else { 0.0 };
        row.iter_mut().for_each(|p| *p = (learns * *p - smoothing / vocab as f32) / n);
        row[target as usize] += (smoothing - learns) / n;
    }
    let mut gradient = pass.before_factor(run, &dz);
    gradient.chunks_exact_mut(width).zip(&run.last.factor).for_each(|(row, f)| row.iter_mut().for_each(|g| *g *= f));
    let stream = 2.0 * penalties.stream as f32 / run.stream.len().max(1) as f32;
    gradient.iter_mut().zip(&run.stream).for_each(|(g, h)| *g += stream * h);
    (losses.iter().map(|(loss, _)| loss).sum::<f32>() / n, gradient)
}
