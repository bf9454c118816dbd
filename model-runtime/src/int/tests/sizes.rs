//! Sizes that people have: any number of samples, any rank, adapters large and small; every later query is scored.

use super::*;
use crate::int::index::{IndexOptions, MAX_SKETCH};
use crate::int::trace::{Keep, Mode, Span};
use crate::int::{Attribution, Index, attribute, build_index, sketch};
use crate::semantics::Dims;
use proptest::prelude::*;

struct Sized {
    model: IntModel,
    adapter: IntAdapter,
    samples: Vec<Vec<u32>>,
}

/// An adapter of the given rank, its `B` scaled, and short random samples.
fn sized(rank: usize, scale: f32, samples: usize, seed: u64) -> Sized {
    let mut rng = Generator::new(seed);
    let float = random_model(&odd_shape(), &mut rng);
    let mut float_adapter = random_adapter(&float.shape, &lora(rank), &mut rng);
    float_adapter.scale *= scale / (rank as f32).sqrt();
    let samples: Vec<Vec<u32>> = (0..samples).map(|i| rng.tokens(2 + (i * 7) % 18, 50)).collect();
    let calibration: Vec<Vec<u32>> = (0..6).map(|_| rng.tokens(20, 50)).collect();
    let model = quantise_base(&float, &calibration).unwrap();
    let all = [samples.clone(), calibration].concat();
    let adapter = quantise_adapter(&model, &float, &float_adapter, &all).unwrap();
    Sized { model, adapter, samples }
}

fn index(x: &Sized, options: &IndexOptions) -> Index {
    build_index(&x.model, &x.adapter, &x.samples, &vec![true; x.samples.len()], options, &|_, _| true).unwrap()
}

fn asked(x: &Sized, index: &Index, tokens: &[u32], prompt: usize) -> Attribution {
    let runtime = Runtime::new(index.semantics.clone(), &x.model.tensors, Some(&x.adapter.tensors)).unwrap();
    let d = Dims::new(&index.semantics, tokens.len(), tokens.len());
    let trace = runtime.run(tokens, prompt, d, Mode::Teacher, Keep::Sketch, Span::Exchange).unwrap();
    let contributors: Vec<u32> = (0..index.rows as u32).map(|i| i % 3).collect();
    attribute(index, &sketch(&index.semantics, &trace).unwrap(), &contributors, None).unwrap()
}

/// Queries of every length, from one answered token to the whole context.
fn ask_everything(x: &Sized, index: &Index, seed: u64) {
    let mut rng = Generator::new(seed);
    for (length, prompt) in [(2, 1), (8, 7), (20, 3), (64, 1), (64, 63)] {
        let result = asked(x, index, &rng.tokens(length, 50), prompt);
        let most = result.scores.iter().map(|s| s.abs()).max().unwrap_or(0);
        assert!(most < 1 << 14, "{most}");
        assert_eq!(result.weights.values().sum::<u64>(), result.rel.iter().sum::<i64>() as u64);
        assert!(result.rel.iter().all(|&r| r < 1 << 13));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_datanet_is_indexed_and_every_query_scored(
        samples in prop_oneof![1usize..5, 5usize..40],
        rank in prop_oneof![Just(1usize), Just(3), Just(8), Just(32), Just(64), Just(128)],
        scale in prop_oneof![Just(0.05f32), Just(0.5), Just(1.0), Just(2.0)],
        seed in 0u64..1000,
    ) {
        let x = sized(rank, scale, samples, seed);
        let index = index(&x, &IndexOptions::default());
        prop_assert!(index.semantics.sketch_len() <= IndexOptions::default().cap);
        ask_everything(&x, &index, seed + 1);
    }
}

#[test]
fn two_thousand_samples_at_rank_eight() {
    let x = sized(8, 1.0, 2000, 5);
    let index = index(&x, &IndexOptions::default());
    assert_eq!(index.tensors["G.live"].data.iter().sum::<i32>(), 2000);
    ask_everything(&x, &index, 9);
    // A sample asks for itself: it is its own best match.
    let tokens = x.samples.iter().position(|s| s.len() >= 16).unwrap();
    let own = asked(&x, &index, &x.samples[tokens], 1);
    let best = own.scores.iter().max().copied().unwrap();
    assert_eq!(own.scores[tokens], best);
    assert!(own.rel[tokens] > 0);
}

#[test]
fn a_capped_sketch_projects_ranks_before_it_gives_up_rows() {
    let x = sized(64, 1.0, 4, 7);
    let shape = |cap| index(&x, &IndexOptions { cap, ..IndexOptions::default() }).semantics.sketch.unwrap();
    assert_eq!((shape(MAX_SKETCH).rows, shape(MAX_SKETCH).ranks), (32, Some(32)));
    assert_eq!((shape(4096).rows, shape(4096).ranks), (32, Some(8)));
    assert_eq!((shape(64).rows, shape(64).ranks), (1, Some(4)));
}
