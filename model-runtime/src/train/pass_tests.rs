//! The written-out pass against candle's, packed and alone.

use super::*;
use crate::test_support::{random_adapter, random_model, tiny_shape};
use crate::train::gemm::add_transposed_times;
use crate::train::{float_logits, float_lora_gradients, pack};
use std::collections::BTreeMap;

const SEQUENCES: [&[u32]; 3] = [&[1, 5, 3, 9, 12, 4, 2], &[1, 16, 2], &[7, 7, 0, 11, 3]];

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
    assert!(worst < 2e-4, "{worst}");
}

#[test]
fn logits_and_gradients_are_candles() {
    for tied in [true, false] {
        let (model, adapter) = (random_model(&tiny_shape(), tied, 5), random_adapter(&tiny_shape(), 3, &Site::ALL, 6));
        let (pass, (batch, targets)) = (Pass::new(&model), pack(SEQUENCES));
        let run = pass.forward(Some(&adapter), &batch).unwrap();
        let (vocab, mut dz) = (model.shape.vocab, pass.logits(&run));
        let each = SEQUENCES.iter().flat_map(|s| float_logits(&model, Some(&adapter), &s[..s.len() - 1]).unwrap());
        close(&dz, &each.collect::<Vec<_>>());
        dz.chunks_exact_mut(vocab).zip(&targets).for_each(|(z, &target)| {
            softmax(z);
            z[target as usize] -= 1.0;
        });
        let mut g = pass.before_factor(&run, &dz);
        g.chunks_exact_mut(model.shape.width).zip(&run.last.factor).for_each(|(g, f)| g.iter_mut().for_each(|g| *g *= f));
        let mut found = BTreeMap::new();
        pass.backward(&adapter, &batch, &run, g, &mut |at| {
            let mut b = vec![0.0; model.shape.site_dims(at.site).0 * 3];
            add_transposed_times(&mut b, at.dy, at.u, batch.rows(), adapter.scale);
            found.insert((at.layer, at.site), b);
        });
        let mut expected: BTreeMap<_, Vec<f32>> = BTreeMap::new();
        for sequence in SEQUENCES {
            for (key, part) in float_lora_gradients(&model, &adapter, sequence, 1).unwrap() {
                add(expected.entry(key).or_insert_with(|| vec![0.0; part.len()]), &part);
            }
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        found.iter().for_each(|(key, gradient)| close(gradient, &expected[key]));
    }
}

#[test]
fn bad_sequences_are_refused() {
    let model = random_model(&tiny_shape(), true, 5);
    let refused = |tokens: &[u32]| Pass::new(&model).forward(None, &Batch::new([&[1][..], tokens])).is_err();
    assert!(refused(&[]) && refused(&[17]) && refused(&[1; 17]) && !refused(&[1; 16]));
}
