//! Scores divided among tokens.

use super::*;
use crate::int::index::IndexOptions;
use crate::int::trace::{Keep, Mode, Span};
use crate::int::words::{Divider, Division};
use crate::int::{Index, attribute, build_index, sketch};
use crate::semantics::Dims;
use crate::tensor::TensorMap;

/// How far a division's sum may be from the score, of at most `2^14`: `2^-7` of it.
const ROUNDING: f64 = 128.0;

struct Scored {
    case: Case,
    index: Index,
    samples: Vec<Vec<u32>>,
    query: Vec<u32>,
    prompt_len: usize,
    sketch: TensorMap,
    scores: Vec<i32>,
}

/// Samples of 20 tokens, then one that doesn't earn, then one of a single token.
fn scored() -> Scored {
    let case = odd_case();
    let mut samples = case.sequences[..8].to_vec();
    samples[7].truncate(2);
    let mut earns = vec![true; samples.len()];
    earns[6] = false;
    let index = build_index(&case.model, &case.adapter, &samples, &earns, &IndexOptions::default(), &|_, _| true).unwrap();
    // The exchange is a sample's, so that one score is large.
    let (query, prompt_len) = (samples[1].clone(), 9);
    let dims = Dims::new(&case.adapter.semantics, query.len(), query.len());
    let trace = case.runtime.run(&query, prompt_len, dims, Mode::Teacher, Keep::All, Span::Exchange).unwrap();
    let sketch = sketch(&index.semantics, &trace).unwrap();
    let scores = attribute(&index, &sketch, &vec![0; samples.len()], None).unwrap().scores;
    Scored { case, index, samples, query, prompt_len, sketch, scores }
}

fn check_sum(what: &str, division: &Division, score: f64) {
    let off = (division.total() - score).abs();
    eprintln!("{what}: score {score:.1}, divided {:.1}", division.total());
    assert!(off <= ROUNDING, "{what}: the parts of {division:?} are {off} from {score}");
}

#[test]
fn parts_sum_to_the_score() {
    let s = scored();
    let divider = Divider::new(&s.case.runtime, &s.index).unwrap();
    assert!(s.scores[1] > 4000, "{:?}", s.scores);
    for (row, tokens) in s.samples.iter().enumerate() {
        let score = f64::from(s.scores[row]);
        let sample = divider.sample(row, tokens, &s.sketch).unwrap();
        check_sum(&format!("sample {row}"), &sample, score);
        assert_eq!((sample.predicted.len(), sample.read.len()), (tokens.len(), tokens.len()));
        // BOS is predicted by nothing, and nothing has read the last token.
        assert_eq!(sample.predicted[0], 0.0);
        assert!(sample.read.last().unwrap().abs() < 1e-9, "{sample:?}");
        let mut weights = vec![0; s.samples.len()];
        weights[row] = 3;
        let exchange = divider.exchange(&s.query, s.prompt_len, &weights).unwrap();
        check_sum(&format!("exchange {row}"), &exchange, score);
        assert!(exchange.predicted[..s.prompt_len].iter().all(|&x| x == 0.0), "a prompt isn't predicted: {exchange:?}");
    }
    let weights: Vec<i64> = (0..s.samples.len() as i64).collect();
    let mean = weights.iter().zip(&s.scores).map(|(&w, &score)| w as f64 * f64::from(score)).sum::<f64>() / weights.iter().sum::<i64>() as f64;
    check_sum("mean", &divider.exchange(&s.query, s.prompt_len, &weights).unwrap(), mean);
}

#[test]
fn a_row_that_does_not_earn_has_nothing_to_divide() {
    let s = scored();
    let divider = Divider::new(&s.case.runtime, &s.index).unwrap();
    let sample = divider.sample(6, &s.samples[6], &s.sketch).unwrap();
    assert_eq!((s.scores[6], sample), (0, Division { predicted: vec![0.0; 20], read: vec![0.0; 20] }));
    let exchange = divider.exchange(&s.query, s.prompt_len, &vec![0; s.samples.len()]).unwrap();
    assert!(exchange.of_tokens().iter().all(|&x| x == 0.0));
}

#[test]
fn one_token_and_the_beginning_carry_the_whole_score() {
    let s = scored();
    let divider = Divider::new(&s.case.runtime, &s.index).unwrap();
    let sample = divider.sample(7, &s.samples[7], &s.sketch).unwrap();
    let half = sample.predicted[1];
    assert!((2.0 * half - f64::from(s.scores[7])).abs() <= ROUNDING && half != 0.0, "{sample:?}");
    assert_eq!((sample.predicted, sample.read), (vec![0.0, half], vec![half, 0.0]));
}

/// A position that predicts is shared by the token that it reads and the one that it predicts; others are the read token's.
#[test]
fn a_position_is_shared_by_what_it_reads_and_what_it_predicts() {
    let s = scored();
    let divider = Divider::new(&s.case.runtime, &s.index).unwrap();
    let sample = divider.sample(2, &s.samples[2], &s.sketch).unwrap();
    assert_eq!(sample.predicted[1..], sample.read[..19]);
    let exchange = divider.exchange(&s.query, s.prompt_len, &[1; 8]).unwrap();
    assert_eq!(exchange.predicted[s.prompt_len..], exchange.read[s.prompt_len - 1..19]);
    let prompt = &exchange.read[..s.prompt_len - 1];
    assert!(prompt.iter().any(|&x| x != 0.0), "attention leads gradients back into the prompt: {exchange:?}");
}

#[test]
fn what_does_not_fit_the_index_is_a_typed_error() {
    let s = scored();
    let divider = Divider::new(&s.case.runtime, &s.index).unwrap();
    assert!(divider.sample(0, &s.samples[0], &TensorMap::new()).is_err());
    assert!(divider.sample(0, &[], &s.sketch).is_err());
    assert!(divider.exchange(&s.query, s.prompt_len, &[1]).is_err());
    assert_eq!(divider.sample(99, &s.samples[0], &s.sketch).unwrap().total(), 0.0);
    assert!(Divider::new(&s.case.runtime, &Index { semantics: s.case.adapter.semantics.clone(), ..s.index.clone() }).is_err());
}
