//! What is measured of a method's scores, each with a 95 % bootstrap interval.

use crate::stage::Stage;
use model_runtime::train::SplitMix64;

/// Bootstrap resamples.
const RESAMPLES: usize = 1000;

/// A mean with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
    /// Queries.
    pub count: usize,
}

/// One method's scores of the queries that it answers.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// Numbers of the queries.
    pub queries: Vec<usize>,
    /// Their prompts and answers.
    pub tokens: Vec<Vec<u32>>,
    /// Scores of all samples, query by query.
    pub scores: Vec<Vec<f64>>,
    /// What is paid for them.
    pub relevance: Vec<Vec<f64>>,
}

/// The 95 % interval of resampled values.
pub fn interval(mut resamples: Vec<f64>, value: f64, count: usize) -> Estimate {
    resamples.sort_by(f64::total_cmp);
    let at = |share: f64| resamples.get((share * (resamples.len().max(1) - 1) as f64).round() as usize).copied().unwrap_or(value);
    Estimate { value, low: at(0.025), high: at(0.975), count }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// The mean of one value a query, queries redrawn.
pub fn bootstrap(values: &[f64]) -> Estimate {
    let mut rng = SplitMix64::new(1);
    let resample = |_| mean((0..values.len()).map(|_| values[rng.below(values.len())]).collect::<Vec<_>>().into_iter());
    interval((0..RESAMPLES).map(resample).collect(), mean(values.iter().copied()), values.len())
}

/// Samples by falling score, ties in a seeded random order.
fn ranking(scores: &[f64], seed: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    SplitMix64::new(seed as u64 ^ 0x7135).shuffle(&mut order);
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// The contributor who is paid most, unless nobody is paid.
pub fn paid_most(relevance: &[f64], contributors: &[usize]) -> Option<usize> {
    let mut sums = vec![0.0; contributors.iter().max().map_or(0, |c| c + 1)];
    relevance.iter().zip(contributors).for_each(|(r, &c)| sums[c] += r);
    (0..sums.len()).filter(|&c| sums[c] > 0.0).max_by(|&a, &b| sums[a].total_cmp(&sums[b]).then(b.cmp(&a)))
}

/// top-1, MRR, recall@3, share and first.
pub fn finding(stage: &Stage, scored: &Scored) -> Vec<(&'static str, Estimate)> {
    let (names, contributors) = stage.contributors();
    let mut columns: [Vec<f64>; 5] = Default::default();
    for ((&number, scores), relevance) in scored.queries.iter().zip(&scored.scores).zip(&scored.relevance) {
        let question = &stage.bank.questions[number];
        let order = ranking(scores, number);
        let stating = |i: &usize| question.samples.contains(i);
        let rank = order.iter().position(&stating).map_or(usize::MAX, |r| r + 1);
        let found = order.iter().take(3).filter(|i| stating(i)).count();
        let paid: f64 = relevance.iter().sum();
        let owed: f64 = question.samples.iter().map(|&i| relevance[i]).sum();
        let first = paid_most(relevance, &contributors).is_some_and(|c| names[c] == question.contributor);
        let values = [
            f64::from(u8::from(rank == 1)),
            1.0 / rank as f64,
            found as f64 / question.samples.len().clamp(1, 3) as f64,
            if paid > 0.0 { owed / paid } else { 0.0 },
            f64::from(u8::from(first)),
        ];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    ["top-1", "MRR", "recall@3", "share", "first"].into_iter().zip(columns.iter().map(|c| bootstrap(c))).collect()
}

fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    for group in order.chunk_by(|&a, &b| x[a] == x[b]) {
        let start = order.iter().position(|i| i == &group[0]).unwrap_or(0);
        group.iter().for_each(|&i| ranks[i] = start as f64 + (group.len() - 1) as f64 / 2.0);
    }
    ranks
}

/// Spearman's rank correlation; 0 where either is constant.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    let (x, y) = (ranks(x), ranks(y));
    let centre = (x.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - centre) * (b - centre)).sum::<f64>();
    let lengths = (product(&x, &x) * product(&y, &y)).sqrt();
    if lengths > 0.0 { product(&x, &y) / lengths } else { 0.0 }
}

/// The linear datamodelling score: mean over queries of Spearman between the summed values of a retraining's samples and the answer's
/// log-probability after it. Queries and retrainings are redrawn for the interval.
pub fn datamodelling(halves: &[Vec<usize>], log_p: &[Vec<f64>], queries: &[usize], values: &[Vec<f64>]) -> Estimate {
    let predicted: Vec<Vec<f64>> = values.iter().map(|v| halves.iter().map(|half| half.iter().map(|&i| v[i]).sum()).collect()).collect();
    let truth: Vec<Vec<f64>> = queries.iter().map(|&q| log_p.iter().map(|row| row[q]).collect()).collect();
    let whole: Vec<f64> = predicted.iter().zip(&truth).map(|(p, t)| spearman(p, t)).collect();
    let mut rng = SplitMix64::new(2);
    let resample = |_| {
        let drawn: Vec<usize> = (0..halves.len()).map(|_| rng.below(halves.len())).collect();
        let pick = |x: &[f64]| drawn.iter().map(|&i| x[i]).collect::<Vec<_>>();
        let chosen: Vec<usize> = queries.iter().map(|_| rng.below(queries.len())).collect();
        mean(chosen.into_iter().map(|q| spearman(&pick(&predicted[q]), &pick(&truth[q]))))
    };
    interval((0..RESAMPLES / 5).map(resample).collect(), mean(whole.iter().copied()), queries.len())
}

/// Spearman between two methods' scores of the samples that earn, mean over the queries that both answer alike.
pub fn agreement(stage: &Stage, a: &Scored, b: &Scored) -> Estimate {
    let earning = |scores: &[f64]| -> Vec<f64> { scores.iter().zip(&stage.earns).filter(|(_, earns)| **earns).map(|(s, _)| *s).collect() };
    let of = |(tokens, scores): (&Vec<u32>, &Vec<f64>)| {
        let other = b.tokens.iter().position(|t| t == tokens)?;
        Some(spearman(&earning(scores), &earning(&b.scores[other])))
    };
    bootstrap(&a.tokens.iter().zip(&a.scores).filter_map(of).collect::<Vec<_>>())
}

/// The probability that a marked item has the larger value, ties counted half.
pub fn auroc(values: &[f64], marked: &[bool]) -> f64 {
    let ranks = ranks(values);
    let (positive, all) = (marked.iter().filter(|m| **m).count() as f64, marked.len() as f64);
    let sum: f64 = ranks.iter().zip(marked).filter(|(_, m)| **m).map(|(r, _)| r).sum();
    (sum - positive * (positive - 1.0) / 2.0) / (positive * (all - positive)).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_and_auroc_are_the_textbook_ones() {
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 25.0, 90.0]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]) - 0.820_782_681).abs() < 1e-6);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), 0.75);
        assert_eq!(auroc(&[1.0, 1.0], &[false, true]), 0.5);
    }

    #[test]
    fn intervals_hold_the_mean() {
        let values: Vec<f64> = (0..80).map(|i| f64::from(i % 4 / 3)).collect();
        let estimate = bootstrap(&values);
        assert!((estimate.value - 0.25).abs() < 1e-12 && estimate.low < 0.25 && estimate.high > 0.25 && estimate.count == 80);
        assert!(estimate.high - estimate.low < 0.25);
    }

    /// Values that are what retraining measures correlate wholly with it.
    #[test]
    fn true_values_have_a_datamodelling_score_of_one() {
        let mut rng = SplitMix64::new(7);
        let values: Vec<Vec<f64>> = (0..3).map(|_| (0..20).map(|_| rng.unit()).collect()).collect();
        let halves: Vec<Vec<usize>> = (0..16).map(|_| (0..20).filter(|_| rng.below(2) == 0).collect()).collect();
        let log_p: Vec<Vec<f64>> = halves.iter().map(|half| values.iter().map(|v| half.iter().map(|&i| v[i]).sum()).collect()).collect();
        assert!((datamodelling(&halves, &log_p, &[0, 1, 2], &values).value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_contributor_paid_most() {
        assert_eq!(paid_most(&[1.0, 2.0, 2.0], &[0, 1, 0]), Some(0));
        assert_eq!(paid_most(&[0.0, 0.0], &[0, 1]), None);
    }
}
