//! Closeness to the float model.

use super::*;
use crate::int::fidelity::fidelity;
use crate::int::index::IndexOptions;
use crate::int::trace::{Keep, Mode, Span};
use crate::int::{Index, attribute, build_index, sketch};
use crate::semantics::Dims;
use crate::tables::{Projection, Side};

fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    let mut i = 0;
    while i < x.len() {
        let mut j = i;
        while j + 1 < x.len() && x[order[j + 1]] == x[order[i]] {
            j += 1;
        }
        order[i..=j].iter().for_each(|&k| ranks[k] = (i + j) as f64 / 2.0);
        i = j + 1;
    }
    ranks
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx).powi(2);
        yy += (b - my).powi(2);
    }
    xy / (xx * yy).sqrt().max(1e-30)
}

fn spearman(x: &[f64], y: &[f64]) -> f64 {
    correlation(&ranks(x), &ranks(y))
}

/// Float sketches `[site][l, a, r]` of one sequence.
fn float_sketch(folded: &Folded, tokens: &[u32], prompt_len: usize, sem: &crate::semantics::Semantics) -> Vec<Vec<f64>> {
    let rows = sem.sketch.as_ref().unwrap().rows;
    let trace = reference::run(folded, tokens, Some(prompt_len));
    let (shape, d, t) = (&folded.shape, Dims::new(sem, 1, 1), tokens.len());
    let site_sketch = |site: Site| {
        let (outs, _) = shape.site_dims(site);
        let padded = crate::int::engine::site_lens(&d, site).0;
        let projection = Projection::new(sem.projection_seed(), site, Side::Output, rows, padded.trailing_zeros() as usize);
        let heads = |i: usize| {
            let (head, c) = (i / shape.head_dim, i % shape.head_dim);
            let c = c / (shape.head_dim / 2) * d.p + c % (shape.head_dim / 2);
            let group = shape.heads / shape.kv_heads;
            match site {
                Site::Q => (head / group * d.j + head % group) * d.c + c,
                Site::K | Site::V => head * d.c + c,
                _ => i,
            }
        };
        let signs: Vec<f64> = (0..rows * outs).map(|i| f64::from(projection.at(i / outs, heads(i % outs)))).collect();
        let mut out = vec![0.0; shape.layers * rows * folded.rank];
        for l in 0..shape.layers {
            let (g, u) = (&trace.tensors[crate::int::sketch::site_gradient(site)][l], &trace.tensors[&format!("u{}", site.name())][l]);
            for x in 0..t {
                for a in 0..rows {
                    let pd: f64 = (0..outs).map(|o| signs[a * outs + o] * f64::from(g[x * outs + o])).sum();
                    for r in 0..folded.rank {
                        out[(l * rows + a) * folded.rank + r] += pd * f64::from(u[x * folded.rank + r]);
                    }
                }
            }
        }
        out
    };
    sem.sketched().iter().map(|&s| site_sketch(s)).collect()
}

/// Cosines of the query's sketch with every row's.
fn float_scores(rows: &[Vec<Vec<f64>>], query: &[Vec<f64>]) -> Vec<f64> {
    let dot = |a: &[Vec<f64>], b: &[Vec<f64>]| a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| x * y).sum::<f64>();
    rows.iter().map(|row| dot(row, query) / (dot(row, row) * dot(query, query)).sqrt().max(1e-30)).collect()
}

pub(super) struct Quality {
    pub sketch: f64,
    pub score: f64,
}

/// Integer against float sketches and scores; sequences past `samples` ask, their first `prompt` tokens being the prompt.
pub(super) fn attribution_quality(case: &Case, samples: usize, prompt: usize, options: &IndexOptions) -> (Quality, Index) {
    let earns = vec![true; samples];
    let index = build_index(&case.model, &case.adapter, &case.sequences[..samples], &earns, options, &|_, _| true).unwrap();
    let runtime = Runtime::new(index.semantics.clone(), &case.model.tensors, Some(&case.adapter.tensors)).unwrap();
    let folded = Folded::new(&case.float, Some(&case.float_adapter));
    let float_rows: Vec<_> = case.sequences[..samples].iter().map(|t| float_sketch(&folded, t, 1, &index.semantics)).collect();
    let (mut sketches, mut scores, mut queries) = (0.0, 0.0, 0.0);
    for tokens in &case.sequences[samples..] {
        let d = Dims::new(&index.semantics, tokens.len(), tokens.len());
        let trace = runtime.run(tokens, prompt, d, Mode::Teacher, Keep::All, Span::Exchange).unwrap();
        let ours = sketch(&index.semantics, &trace).unwrap();
        let contributors: Vec<u32> = (0..samples as u32).map(|i| i % 5).collect();
        let result = attribute(&index, &ours, &contributors, None).unwrap();
        assert_eq!(result.bps.values().sum::<u32>() + result.dust, 10_000);
        let query = float_sketch(&folded, tokens, prompt, &index.semantics);
        let int: Vec<f64> = result.scores[..samples].iter().map(|&x| f64::from(x)).collect();
        scores += spearman(&int, &float_scores(&float_rows, &query));
        let mut pairs = (Vec::new(), Vec::new());
        for (i, site) in index.semantics.sketched().iter().enumerate() {
            let sk = &ours[&format!("qs{}", site.name())];
            for (k, &x) in query[i].iter().enumerate() {
                let (at, r) = (k / folded.rank, k % folded.rank);
                pairs.0.push(f64::from(sk.data[at * sk.dims[2] + r]));
                pairs.1.push(x);
            }
        }
        sketches += correlation(&pairs.0, &pairs.1);
        queries += 1.0;
    }
    (Quality { sketch: sketches / queries, score: scores / queries }, index)
}

#[test]
fn random_model_matches_float() {
    let case = odd_case();
    let folded = Folded::new(&case.float, Some(&case.float_adapter));
    let f = fidelity(&case.runtime, &case.sequences[6..], |t| reference::run(&folded, t, None).logits).unwrap();
    eprintln!("random model: {f:?}");
    assert!(f.greedy_agreement > 0.9 && (f.perplexity_ratio() - 1.0).abs() < 0.02);
    let (q, _) = attribution_quality(&case, 9, 4, &IndexOptions::default());
    eprintln!("random model: sketch {:.4} score {:.4}", q.sketch, q.score);
    assert!(q.sketch > 0.99 && q.score > 0.95);
}

#[test]
fn real_model_matches_float() {
    let Some(float) = tinystories(256) else { return };
    let folded = Folded::new(&float, None);
    let stories = float_stories(&folded, 72, 64);
    let model = quantise_base(&float, &stories[..8]).unwrap();
    let runtime = Runtime::new(model.semantics.clone(), &model.tensors, None).unwrap();
    let reference = |t: &[u32]| reference::run(&folded, t, None).logits;
    let sampled = fidelity(&runtime, &stories[8..40], reference).unwrap();
    let decode = |s: &Vec<u32>| -> Vec<u32> { s[..8].iter().copied().chain(runtime.generate(&s[..8], 100, None).unwrap()).collect() };
    let greedy: Vec<Vec<u32>> = stories[8..40].iter().map(decode).collect();
    let decoded = fidelity(&runtime, &greedy, reference).unwrap();
    eprintln!("sampled text: {sampled:?} ratio {:.4}", sampled.perplexity_ratio());
    eprintln!("greedy answers: {decoded:?} ratio {:.4}", decoded.perplexity_ratio());
    assert!((sampled.perplexity_ratio() - 1.0).abs() < 0.01 && (decoded.perplexity_ratio() - 1.0).abs() < 0.01);
    assert!(sampled.greedy_agreement >= 0.98 && decoded.greedy_agreement >= 0.98);
    let case = case(float, stories, 8, 8);
    let start = std::time::Instant::now();
    let (q, index) = attribution_quality(&case, 64, 32, &IndexOptions::default());
    eprintln!("real model: sketch {:.4} score {:.4} ({:?})", q.sketch, q.score, start.elapsed());
    eprintln!("calibrated only: {:?}", case.adapter.calibrated);
    let runtime = Runtime::new(index.semantics.clone(), &case.model.tensors, Some(&case.adapter.tensors)).unwrap();
    let d = Dims { t: 64, s: 63, ..Dims::new(&index.semantics, 1, 1) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let elapsed = pool.install(|| {
        let start = std::time::Instant::now();
        for _ in 0..20 {
            let trace = runtime.run(&case.sequences[0], 1, d, Mode::Sample, Keep::Sketch, Span::Exchange).unwrap();
            sketch(&index.semantics, &trace).unwrap();
        }
        start.elapsed() / 20
    });
    eprintln!("one sample of 64 tokens, forward + backward + sketch, one thread: {elapsed:?}");
    assert!(q.sketch > 0.99 && q.score > 0.99);
}

#[test]
fn synthetic_models_run_at_their_shapes() {
    let shape = ModelShape { layers: 4, width: 64, heads: 4, kv_heads: 4, head_dim: 16, ff: 256, vocab: 128, context: 64, ..odd_shape() };
    let (model, adapter) = crate::int::synthetic::synthetic_model(&shape, &lora(8), 1).unwrap();
    let runtime = Runtime::new(adapter.semantics.clone(), &model.tensors, Some(&adapter.tensors)).unwrap();
    let tokens = Generator::new(5).tokens(32, 128);
    let d = Dims::new(&adapter.semantics, 32, 31);
    runtime.run(&tokens, 1, d, Mode::Sample, Keep::All, Span::Exchange).unwrap();
}

/// `cargo test --release -p model-runtime int:: -- --ignored --nocapture gpt2`
#[test]
#[ignore = "takes a quarter minute and 3 GiB"]
fn synthetic_gpt2_size() {
    let shape = ModelShape {
        layers: 12,
        width: 768,
        heads: 12,
        kv_heads: 12,
        head_dim: 64,
        ff: 3072,
        vocab: 50257,
        rope_theta: 10000.0,
        norm_eps: 1e-5,
        context: 128,
    };
    let start = std::time::Instant::now();
    let (model, adapter) = crate::int::synthetic::synthetic_model(&shape, &lora(8), 1).unwrap();
    eprintln!("quantised in {:?}; widths {:?}", start.elapsed(), adapter.semantics.weight_bits);
    let runtime = Runtime::new(adapter.semantics.clone(), &model.tensors, Some(&adapter.tensors)).unwrap();
    let tokens = Generator::new(5).tokens(32, 50257);
    let d = Dims { t: 32, s: 31, ..Dims::new(&adapter.semantics, 1, 1) };
    let start = std::time::Instant::now();
    runtime.run(&tokens, 1, d, Mode::Sample, Keep::Sketch, Span::Exchange).unwrap();
    eprintln!("32 tokens forward and backward in {:?}", start.elapsed());
}
