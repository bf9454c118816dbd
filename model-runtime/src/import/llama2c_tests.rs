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

/// What each part of a file is.
enum Part<'a> {
    Norm(&'a [f32]),
    Matrix(Vec<f32>),
}

fn linear(model: &FloatModel, sites: &[Site]) -> Vec<Part<'static>> {
    let s = &model.shape;
    let matrix = |site: Site, l: &FloatLayer| match site {
        Site::Q | Site::K => to_interleaved(&l.linear[site as usize], s.head_dim, s.width),
        _ => l.linear[site as usize].clone(),
    };
    sites.iter().flat_map(|&site| model.layers.iter().map(move |l| Part::Matrix(matrix(site, l)))).collect()
}

/// Writes the format (the model's `head_dim` must be `width / heads`).
fn encode_as(model: &FloatModel, format: Format) -> Vec<u8> {
    let (s, tied) = (&model.shape, model.head.is_none());
    let vocab = if tied || format != Format::Legacy { s.vocab as i32 } else { -(s.vocab as i32) };
    let fields = [s.width, s.ff, s.layers, s.heads, s.kv_heads].map(|n| n as i32).into_iter().chain([vocab, s.context as i32]);
    let fields: Vec<u8> = fields.flat_map(i32::to_le_bytes).collect();
    let (attention, feed_forward) = (linear(model, &[Site::Q, Site::K, Site::V, Site::O]), linear(model, &[Site::Gate, Site::Down, Site::Up]));
    let embed = || Part::Matrix(model.embed.clone());
    let norms = |pick: fn(&FloatLayer) -> &[f32]| model.layers.iter().map(move |l| Part::Norm(pick(l)));
    let (first, second) = (norms(|l| &l.attn_norm), norms(|l| &l.ffn_norm));
    let (mut bytes, mut parts) = (Vec::new(), Vec::new());
    let rotary = vec![0.0; s.context * s.head_dim];
    if format == Format::Legacy {
        bytes.extend(fields);
        parts.extend([embed()].into_iter().chain(first).chain(attention).chain(second).chain(feed_forward));
        parts.extend([Part::Norm(&model.final_norm), Part::Norm(&rotary)]);
    } else {
        bytes.extend([MAGIC.to_le_bytes(), format.version().to_le_bytes()].concat());
        bytes.extend(fields);
        bytes.push(u8::from(tied));
        if let Format::Groups { size } = format {
            bytes.extend((size as i32).to_le_bytes());
        }
        bytes.resize(256, 0);
        parts.extend(first.chain(second).chain([Part::Norm(&model.final_norm), embed()]).chain(attention).chain(feed_forward));
    }
    parts.extend(model.head.iter().map(|h| Part::Matrix(h.clone())));
    parts.iter().for_each(|part| write_part(&mut bytes, part, format));
    bytes
}

fn write_part(bytes: &mut Vec<u8>, part: &Part, format: Format) {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    match (part, format) {
        (Part::Matrix(values), Format::Groups { size }) => {
            let (integers, scales) = groups(values, size);
            bytes.extend(integers.iter().map(|&q| q as u8));
            bytes.extend(floats(&scales));
        }
        (Part::Matrix(values), _) => bytes.extend(floats(values)),
        (Part::Norm(values), _) => bytes.extend(floats(values)),
    }
}

/// `quantize_q80`: integers within 127, one scale a group.
fn groups(values: &[f32], size: usize) -> (Vec<i8>, Vec<f32>) {
    let scales: Vec<f32> = values.chunks(size).map(|g| g.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0).collect();
    let integers = values.chunks(size).zip(&scales).flat_map(|(g, s)| g.iter().map(move |v| (v / s).round() as i8)).collect();
    (integers, scales)
}

fn encode(model: &FloatModel) -> Vec<u8> {
    encode_as(model, Format::Legacy)
}

fn shape() -> ModelShape {
    ModelShape { width: 24, ..tiny_shape() }
}

#[test]
fn round_trip_permutes_back() {
    for tied in [false, true] {
        let model = random_model(&shape(), tied, 3);
        for format in [Format::Legacy, Format::Float] {
            let back = parse_llama2c("test", &encode_as(&model, format), &DEFAULTS).unwrap();
            assert_eq!(format!("{model:?}"), format!("{back:?}"));
        }
    }
}

#[test]
fn version_2_is_read_as_its_products() {
    for tied in [false, true] {
        let model = random_model(&shape(), tied, 3);
        let back = parse_llama2c("test", &encode_as(&model, Format::Groups { size: 8 }), &DEFAULTS).unwrap();
        assert_eq!((back.final_norm, back.head.is_none()), (model.final_norm, tied));
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.02);
        assert!(near(&model.embed, &back.embed) && model.embed != back.embed);
        for (ours, theirs) in model.layers.iter().zip(&back.layers) {
            assert!(ours.linear.iter().zip(&theirs.linear).all(|(a, b)| a.len() == b.len() && near(a, b)));
        }
    }
}

#[test]
fn wrong_headers_of_later_versions_are_named() {
    let refused = |at: usize, value: i32| {
        let mut bytes = encode_as(&random_model(&shape(), true, 3), Format::Groups { size: 8 });
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        match parse_llama2c("t", &bytes, &DEFAULTS) {
            Err(ImportError::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(4, 3), "version");
    assert_eq!(refused(37, 0), "group_size");
    assert_eq!(refused(37, 7), "group_size");
    assert_eq!(refused(36, 2 + (8 << 8)), "shared_classifier");
    assert_eq!(refused(28, -16), "vocab_size");
    let short = encode_as(&random_model(&shape(), true, 3), Format::Float);
    assert!(matches!(parse_llama2c("t", &short[..100], &DEFAULTS), Err(ImportError::Length { expected: 256, .. })));
}

#[test]
fn a_pointer_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
    assert!(matches!(load_llama2c(file.path(), &DEFAULTS), Err(ImportError::LfsPointer { .. })));
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
    bytes[32..36].copy_from_slice(&f32::NAN.to_le_bytes());
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
