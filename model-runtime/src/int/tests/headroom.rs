//! Adapters that make the residual stream grow: they fit the base's headroom, or the error says what would.

use super::*;
use crate::demo;
use crate::import::{ImportOptions, load_model};
use crate::int::adapter::check_runs;
use crate::int::quantise::{Headroom, QuantiseError, quantise_base_with};
use crate::int::{IndexOptions, RunError, build_index};
use crate::text::{Datanet, Tokenizer};
use crate::train::{LoraConfig, Penalties, Schedule, train_lora};
use std::path::Path;

/// A base, sequences, and an adapter with its B on the way back to the stream `times` as large.
fn grown(times: f32) -> (FloatModel, Vec<Vec<u32>>, FloatAdapter) {
    let mut rng = Generator::new(11);
    let float = random_model(&odd_shape(), &mut rng);
    let sequences = (0..12).map(|_| rng.tokens(20, 50)).collect();
    let mut adapter = random_adapter(&float.shape, &lora(3), &mut rng);
    for ((_, site), (_, b)) in &mut adapter.pairs {
        if *site == Site::Down {
            b.iter_mut().for_each(|x| *x *= times);
        }
    }
    (float, sequences, adapter)
}

#[test]
fn a_stream_that_outgrows_the_base_is_refused_with_the_bits_that_help() {
    let (float, sequences, adapter) = grown(60.0);
    let base = |bits| quantise_base_with(&float, &sequences, Headroom::Bits(bits)).unwrap();
    let needed = match quantise_adapter(&base(0), &float, &adapter, &sequences) {
        Err(error @ QuantiseError::Stream { growth, bits }) => {
            assert!(growth >= 2.0 && bits >= 1 && error.to_string().contains("--headroom"), "{error}");
            bits
        }
        other => panic!("{:?}", other.map(|a| a.calibrated)),
    };
    // Every sequence is run when the adapter is made.
    let fitting = quantise_adapter(&base(needed), &float, &adapter, &sequences);
    assert!(fitting.is_ok(), "{:?}", fitting.err());
}

#[test]
fn a_sample_that_cannot_run_is_named_when_the_adapter_is_made() {
    let (float, mut sequences, adapter) = grown(1.0);
    let model = quantise_base(&float, &sequences).unwrap();
    let mut adapter = quantise_adapter(&model, &float, &adapter, &sequences).unwrap();
    assert_eq!(check_runs(&model, &adapter, &sequences), Ok(()));
    sequences[0].clear();
    adapter.semantics.ops.get_mut("q").unwrap().shift = 1;
    match check_runs(&model, &adapter, &sequences) {
        Err(QuantiseError::Sample { sample, source: RunError::Range { op, .. } }) => assert_eq!((sample, &op[..]), (1, "q")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn headroom_makes_the_stream_coarser_bit_by_bit() {
    let (float, sequences, _) = grown(1.0);
    let exponent = |headroom| quantise_base_with(&float, &sequences, headroom).unwrap().semantics.exps["hin"];
    let none = exponent(Headroom::Bits(0));
    assert_eq!((exponent(Headroom::Bits(1)), exponent(Headroom::Bits(3))), (none - 1, none - 3));
    assert!((none - 2..=none + 1).contains(&exponent(Headroom::Auto)));
}

#[test]
fn a_run_that_leaves_its_range_says_what_helps() {
    let error = RunError::Range { op: "hout".into(), layer: Some(3), value: 36235, low: -32768, high: 32767 };
    let text = error.to_string();
    assert!(text.contains("`hout` of layer 3") && text.contains("--headroom") && text.contains("--calibration"), "{text}");
}

/// `poa train --rank 8 --epochs 60 --batch 32 --learning-rate 0.015` on the hard datanet, then the index of that datanet.
#[test]
#[ignore = "trains for minutes"]
fn the_hard_datanet_can_be_indexed() {
    let datanet = assets().join("../quality/hard/datanet.jsonl");
    if !datanet.exists() {
        eprintln!("\n!!! SKIPPED: {} is missing; set POA_ASSETS !!!\n", datanet.display());
        return;
    }
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo").join(demo::BASE_DIR);
    let (tokenizer, datanet) = (Tokenizer::load(&base).unwrap(), Datanet::load(&datanet).unwrap());
    let float = load_model(&base, &ImportOptions { context: Some(128) }).unwrap();
    let context = float.shape.context;
    let samples: Vec<Vec<u32>> = datanet.samples.iter().map(|s| tokenizer.encode_sample(&s.text, context).unwrap()).collect();
    let penalties = Penalties::default();
    let schedule = Schedule { epochs: 60, batch: 32, learning_rate: 0.015, warmup: 0.1, weight_decay: 0.01, seed: 1, penalties };
    let config = LoraConfig { rank: 8, alpha: 16.0, sites: Site::ALL.to_vec(), context, schedule };
    let trained = train_lora(&float, &samples, &config, |_| true).unwrap();
    let calibration = float_stories(&Folded::new(&float, None), 12, context.min(64));
    let base = |headroom| quantise_base_with(&float, &calibration, headroom).unwrap();
    let tight = quantise_adapter(&base(Headroom::Bits(0)), &float, &trained, &samples);
    assert!(matches!(tight, Err(QuantiseError::Stream { bits: 2, .. })), "{:?}", tight.err());
    let model = base(Headroom::Auto);
    let adapter = quantise_adapter(&model, &float, &trained, &samples).unwrap();
    let runtime = Runtime::new(adapter.semantics.clone(), &model.tensors, Some(&adapter.tensors)).unwrap();
    let reference = |tokens: &[u32]| crate::train::float_logits(&float, Some(&trained), tokens).unwrap();
    let faithful = crate::int::fidelity::fidelity(&runtime, &samples, reference).unwrap();
    eprintln!("{faithful:?}");
    assert!(faithful.greedy_agreement >= 0.98, "{faithful:?}");
    let index = build_index(&model, &adapter, &samples, &vec![true; samples.len()], &IndexOptions::default(), &|_, _| true);
    assert_eq!(index.unwrap().rows, samples.len());
}
