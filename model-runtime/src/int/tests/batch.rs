//! Answers decoded together are the answers decoded alone.

use super::*;
use crate::int::RunError;
use crate::int::batch::{Prefix, Sequence, turn};
use crate::semantics::Rounding;
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};

/// A base alone, and with each of three adapters.
fn runtimes() -> &'static [Arc<Runtime>] {
    static RUNTIMES: OnceLock<Vec<Arc<Runtime>>> = OnceLock::new();
    RUNTIMES.get_or_init(|| {
        let case = odd_case();
        let base = Runtime::new(case.model.semantics.clone(), &case.model.tensors, None).unwrap();
        let mut rng = Generator::new(21);
        let mut adapted = || {
            let float = random_adapter(&case.float.shape, &lora(3), &mut rng);
            let adapter = quantise_adapter(&case.model, &case.float, &float, &case.sequences[..6]).unwrap();
            Arc::new(base.adapted(adapter.semantics.clone(), &adapter.tensors).unwrap())
        };
        let adapters = [adapted(), adapted(), adapted()];
        std::iter::once(Arc::new(base)).chain(adapters).collect()
    })
}

/// Who asks what, when, and where among the others it's put.
#[derive(Clone, Debug)]
struct Asked {
    model: usize,
    prompt: Vec<u32>,
    room: usize,
    arrives: usize,
    place: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    // Few first tokens, so that prompts have beginnings in common.
    let prompt = (prop::collection::vec(0u32..2, 1..6), prop::collection::vec(0u32..50, 0..5)).prop_map(|(a, b)| [a, b].concat());
    (0usize..4, prompt, 1usize..12, 0usize..8, 0usize..16).prop_map(|(model, prompt, room, arrives, place)| Asked {
        model,
        prompt,
        room,
        arrives,
        place,
    })
}

/// Answers all together, each from when it arrives, with what earlier ones of its model have read.
fn together(all: &[Asked]) -> Vec<Result<Vec<u32>, RunError>> {
    let mut answers: Vec<Option<Result<Vec<u32>, RunError>>> = vec![None; all.len()];
    let mut active: Vec<(usize, Sequence<Arc<Runtime>>)> = Vec::new();
    let mut read: Vec<(usize, Prefix)> = Vec::new();
    for time in 0.. {
        for (i, one) in all.iter().enumerate().filter(|(_, one)| one.arrives == time) {
            let of = read.iter().filter(|(model, _)| *model == one.model).map(|(_, prefix)| prefix);
            let prefix = of.max_by_key(|prefix| prefix.spares(&one.prompt));
            let sequence = Sequence::new(runtimes()[one.model].clone(), &one.prompt, prefix).unwrap();
            active.insert(one.place.min(active.len()), (i, sequence));
        }
        let results = turn(&mut active.iter_mut().map(|(_, sequence)| sequence).collect::<Vec<_>>());
        let mut going = Vec::new();
        for ((i, sequence), result) in std::mem::take(&mut active).into_iter().zip(results) {
            match result {
                Err(error) => answers[i] = Some(Err(error)),
                Ok(_) if sequence.answer().len() < all[i].room => going.push((i, sequence)),
                Ok(_) => {
                    answers[i] = Some(Ok(sequence.answer().to_vec()));
                    read.push((all[i].model, sequence.into_prefix()));
                }
            }
        }
        active = going;
        if answers.iter().all(Option::is_some) {
            break;
        }
    }
    answers.into_iter().flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whoever_joins_and_leaves_each_gets_its_own_answer(all in prop::collection::vec(asked(), 1..12)) {
        let alone: Vec<_> = all.iter().map(|one| runtimes()[one.model].generate(&one.prompt, one.room, None)).collect();
        prop_assert_eq!(together(&all), alone);
    }
}

#[test]
fn a_sequence_that_fails_leaves_the_others_alone() {
    let [base, adapted, ..] = runtimes() else { panic!("there are four") };
    // A residual stream with no room for what calibration saw.
    let mut broken = (**adapted).clone();
    let op = broken.sem.ops.get_mut("hout").unwrap();
    (op.rounding, op.bits) = (Rounding::Exact, 2);
    let broken = Arc::new(broken);
    let alone: Vec<_> = [base, &broken, adapted].map(|rt| rt.generate(&[1, 2, 3], 1, None)).into();
    assert!(alone[0].is_ok() && alone[1].is_err() && alone[2].is_ok(), "{alone:?}");
    let mut sequences: Vec<_> = [base, &broken, adapted].map(|rt| Sequence::new(rt.clone(), &[1, 2, 3], None).unwrap()).into();
    let together = turn(&mut sequences.iter_mut().collect::<Vec<_>>());
    assert_eq!(together.into_iter().map(|token| token.map(|t| vec![t])).collect::<Vec<_>>(), alone);
}

#[test]
fn a_prefix_spares_what_is_common_but_for_the_last_token() {
    let model = &runtimes()[1];
    let mut first = Sequence::new(model.clone(), &[1, 2, 3, 4], None).unwrap();
    turn(&mut [&mut first])[0].clone().unwrap();
    turn(&mut [&mut first])[0].clone().unwrap();
    let prefix = first.into_prefix();
    assert_eq!(prefix.tokens().len(), 5, "the answer's last token wasn't read");
    assert_eq!([&[1, 2, 3, 4, 9][..], &[1, 2, 3], &[2, 1], &[1]].map(|prompt| prefix.spares(prompt)), [4, 2, 0, 0]);
    assert!(prefix.bytes() > 0);
}

#[test]
fn adapters_share_tables_with_their_base() {
    let [base, adapted, ..] = runtimes() else { panic!("there are four") };
    assert!(Arc::ptr_eq(&base.recip, &adapted.recip) && Arc::ptr_eq(&base.cos, &adapted.cos) && !Arc::ptr_eq(&base.cos, &base.sin));
}
