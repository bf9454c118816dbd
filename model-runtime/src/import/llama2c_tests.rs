//! llama2.c files: both rotary conventions agree; wrong files are refused.

use super::*;
use crate::test_support::{asset, random_model, tiny_shape};
use crate::train::float_logits;
use proptest::prelude::*;

const DEFAULTS: ImportOptions = ImportOptions { context: None };

/// The inverse of `to_rotate_half`.
fn to_interleaved(matrix: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(matrix.len());
    for head in matrix.chunks(head_dim * columns) {
        for p in 0..head_dim / 2 {
            for z in 0..2 {
                let row = p + z * head_dim / 2;
                out.extend_from_slice(&head[row * columns..(row + 1) * columns]);
            }
        }
    }
    out
}

/// Writes the format (the model's `head_dim` must be `width / heads`).
fn encode(model: &FloatModel) -> Vec<u8> {
    let s = &model.shape;
    let vocab = if model.head.is_none() { s.vocab as i32 } else { -(s.vocab as i32) };
    let header = [s.width, s.ff, s.layers, s.heads, s.kv_heads].map(|n| n as i32);
    let mut bytes: Vec<u8> = header.into_iter().chain([vocab, s.context as i32]).flat_map(i32::to_le_bytes).collect();
    let mut push = |values: &[f32]| bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    push(&model.embed);
    model.layers.iter().for_each(|l| push(&l.attn_norm));
    for site in [Site::Q, Site::K] {
        model.layers.iter().for_each(|l| push(&to_interleaved(&l.linear[site as usize], s.head_dim, s.width)));
    }
    for site in [Site::V, Site::O] {
        model.layers.iter().for_each(|l| push(&l.linear[site as usize]));
    }
    model.layers.iter().for_each(|l| push(&l.ffn_norm));
    for site in [Site::Gate, Site::Down, Site::Up] {
        model.layers.iter().for_each(|l| push(&l.linear[site as usize]));
    }
    push(&model.final_norm);
    push(&vec![0.0; s.context * s.head_dim]);
    model.head.iter().for_each(|h| push(h));
    bytes
}

fn shape() -> ModelShape {
    ModelShape { width: 24, ..tiny_shape() }
}

#[test]
fn round_trip_permutes_back() {
    for tied in [false, true] {
        let model = random_model(&shape(), tied, 3);
        let back = parse_llama2c("test", &encode(&model), &DEFAULTS).unwrap();
        assert_eq!(format!("{model:?}"), format!("{back:?}"));
    }
}

/// Rotates neighbours `(2p, 2p+1)` of one head's channels, as llama2.c does.
fn rotate_neighbours(x: &[f64], t: usize) -> Vec<f64> {
    let half = x.len() / 2;
    let angle = |p: usize| t as f64 * THETA.powf(-(p as f64) / half as f64);
    let pair = |p: usize| (x[2 * p], x[2 * p + 1], angle(p).cos(), angle(p).sin());
    (0..half)
        .flat_map(|p| {
            let (a, b, c, s) = pair(p);
            [a * c - b * s, a * s + b * c]
        })
        .collect()
}

/// Rotates the pairs `(p, p + half)`, as this project does.
fn rotate_halves(x: &[f64], t: usize) -> Vec<f64> {
    let half = x.len() / 2;
    let neighbours: Vec<f64> = (0..half).flat_map(|p| [x[p], x[p + half]]).collect();
    let rotated = rotate_neighbours(&neighbours, t);
    (0..2).flat_map(|z| rotated.iter().skip(z).step_by(2).copied().collect::<Vec<_>>()).collect()
}

proptest! {
    /// Permuting rows of q and k leaves every attention score as it is.
    #[test]
    fn scores_survive_the_permutation(q in prop::collection::vec(-1f32..1.0, 8), k in prop::collection::vec(-1f32..1.0, 8), t in 0usize..50, u in 0usize..50) {
        let wide = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let dot = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(x, y)| x * y).sum::<f64>();
        let theirs = dot(rotate_neighbours(&wide(&q), t), rotate_neighbours(&wide(&k), u));
        let (pq, pk) = (to_rotate_half(&q, 8, 1), to_rotate_half(&k, 8, 1));
        prop_assert!((theirs - dot(rotate_halves(&wide(&pq), t), rotate_halves(&wide(&pk), u))).abs() < 1e-9);
        prop_assert_eq!(to_interleaved(&pq, 8, 1), q);
    }

    /// Any bytes give a model or an error.
    #[test]
    fn random_bytes_never_panic(header in prop::array::uniform7(-3i32..40), tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes: Vec<u8> = header.into_iter().flat_map(i32::to_le_bytes).chain(tail).collect();
        let _ = parse_llama2c("random", &bytes, &DEFAULTS);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let mut bytes = encode(&random_model(&shape(), true, 3));
    bytes.push(0);
    assert!(matches!(parse_llama2c("t", &bytes, &DEFAULTS), Err(ImportError::Length { expected, found, .. }) if expected + 1 == found));
    assert!(matches!(parse_llama2c("t", &bytes[..bytes.len() - 2], &DEFAULTS), Err(ImportError::Length { .. })));
    assert!(matches!(parse_llama2c("t", &bytes[..20], &DEFAULTS), Err(ImportError::Length { what, .. }) if what == "the header"));
    bytes[12..16].copy_from_slice(&5i32.to_le_bytes());
    assert!(matches!(parse_llama2c("t", &bytes, &DEFAULTS), Err(ImportError::Config { field, .. }) if field == "n_heads"));
    bytes[..4].copy_from_slice(&i32::MIN.to_le_bytes());
    assert!(matches!(parse_llama2c("t", &bytes, &DEFAULTS), Err(ImportError::Config { field, .. }) if field == "dim"));
}

#[test]
fn a_nan_is_refused() {
    let mut bytes = encode(&random_model(&shape(), true, 3));
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&f32::NAN.to_le_bytes());
    match parse_llama2c("t", &bytes, &DEFAULTS) {
        Err(ImportError::NotFinite { name, index, .. }) => assert_eq!((name.as_str(), index), ("token embedding", 1)),
        other => panic!("{other:?}"),
    }
}

/// "Once upon a time" in the 105-symbol vocabulary; a model read with the wrong convention does far worse.
#[test]
fn babyllama_predicts_english() {
    let Some(path) = asset("models/babyllama-105/model5000.bin") else { return };
    let model = load_llama2c(&path, &DEFAULTS).unwrap();
    assert_eq!((model.shape.layers, model.shape.kv_heads, model.shape.context), (5, 4, 256));
    let tokens = [1, 3, 40, 9, 18, 4, 3, 18, 20, 7, 9, 3, 5, 3, 6, 10, 16, 4];
    let logits = float_logits(&model, None, &tokens).unwrap();
    let best = |t: usize| (0..105).max_by(|&a, &b| logits[t * 105 + a].total_cmp(&logits[t * 105 + b])).unwrap_or(0);
    let right = (8..17).filter(|&t| best(t) == tokens[t + 1] as usize).count();
    assert!(right >= 7, "only {right} of 9");
}
