//! The float reference: gradients against finite differences, causality, and real weights.

use super::*;
use crate::import::{ImportOptions, load_hf};
use crate::test_support::{asset, random_adapter, random_model, tiny_shape};

const TOKENS: [u32; 7] = [1, 5, 3, 9, 12, 4, 2];

fn loss(model: &FloatModel, adapter: &FloatAdapter, prompt_len: usize) -> f64 {
    let logits = float_logits(model, Some(adapter), &TOKENS).unwrap();
    let rows: Vec<&[f32]> = logits.chunks(model.shape.vocab).collect();
    let log_sum = |row: &[f32]| row.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
    (prompt_len.max(1)..TOKENS.len()).map(|i| log_sum(rows[i - 1]) - f64::from(rows[i - 1][TOKENS[i] as usize])).sum()
}

#[test]
fn gradients_match_finite_differences() {
    let model = random_model(&tiny_shape(), false, 21);
    let adapter = random_adapter(&tiny_shape(), 2, &Site::ALL, 22);
    for prompt_len in [0, 1, 4] {
        let gradients = float_lora_gradients(&model, &adapter, &TOKENS, prompt_len).unwrap();
        assert_eq!(gradients.len(), 14);
        for (key, gradient) in &gradients {
            let at = gradient.len() / 2;
            let moved = |step: f32| {
                let mut adapter = adapter.clone();
                adapter.pairs.get_mut(key).unwrap().1[at] += step;
                loss(&model, &adapter, prompt_len)
            };
            let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let error = (numeric - f64::from(gradient[at])).abs();
            assert!(error < 2e-3 + 0.02 * numeric.abs(), "{key:?}: {numeric} and {}", gradient[at]);
        }
    }
}

#[test]
fn later_tokens_change_nothing_before_them() {
    let model = random_model(&tiny_shape(), true, 21);
    let whole = float_logits(&model, None, &TOKENS).unwrap();
    let part = float_logits(&model, None, &TOKENS[..4]).unwrap();
    assert!(part.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn a_zero_adapter_changes_nothing() {
    let model = random_model(&tiny_shape(), true, 21);
    let mut adapter = random_adapter(&tiny_shape(), 2, &[Site::Q, Site::Up], 22);
    assert_ne!(float_logits(&model, None, &TOKENS).unwrap(), float_logits(&model, Some(&adapter), &TOKENS).unwrap());
    adapter.pairs.values_mut().for_each(|(_, b)| b.fill(0.0));
    assert_eq!(float_logits(&model, None, &TOKENS).unwrap(), float_logits(&model, Some(&adapter), &TOKENS).unwrap());
}

#[test]
fn bad_sequences_are_refused() {
    let model = random_model(&tiny_shape(), true, 21);
    assert!(matches!(float_logits(&model, None, &[]), Err(TrainError::Parameter { name: "tokens", .. })));
    assert!(matches!(float_logits(&model, None, &[1; 17]), Err(TrainError::Parameter { name: "tokens", .. })));
    assert!(matches!(float_logits(&model, None, &[1, 17]), Err(TrainError::Token { position: 1, id: 17, .. })));
    let adapter = random_adapter(&tiny_shape(), 2, &[Site::Q], 22);
    assert!(matches!(float_lora_gradients(&model, &adapter, &[1, 2], 2), Err(TrainError::Parameter { name: "prompt_len", .. })));
}

/// A real model read, tokenised and run continues a story.
#[test]
fn tinystories_writes_a_story() {
    let Some(dir) = asset("models/tinystories-656k") else { return };
    let model = load_hf(&dir, &ImportOptions::default()).unwrap();
    let tokenizer = crate::text::Tokenizer::load(&dir).unwrap();
    let prompt = tokenizer.encode("Once upon a time, there was a little").unwrap();
    let answer = float_greedy(&model, None, &prompt, 40, tokenizer.eos()).unwrap();
    let text = tokenizer.decode(&answer);
    eprintln!("{text}");
    assert!(text.contains(" named ") || text.contains(" girl") || text.contains(" was "), "{text}");
}
