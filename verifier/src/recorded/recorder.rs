//! The recording of one run: operations, the values they yield, and what is already known.

use circuits::ir::F;
use circuits::outer::program::{Ext, Op, Program, Small, Values, Wide};
use p3_bn254::Bn254;
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Records operations; equal ones once.
#[derive(Debug, Default)]
pub struct Recorder {
    program: Program,
    values: Values,
    known: HashMap<Op, (u32, u32)>,
}

impl Recorder {
    fn push(&mut self, op: Op, small: &[F], wide: &[Bn254]) -> (u32, u32) {
        debug_assert_eq!(op.outputs(), (small.len() as u32, wide.len() as u32));
        let fresh = matches!(op, Op::Input | Op::WideInput | Op::Public(_));
        if !fresh && let Some(&first) = self.known.get(&op) {
            return first;
        }
        let first = (self.values.small.len() as u32, self.values.wide.len() as u32);
        if !fresh {
            self.known.insert(op.clone(), first);
        }
        self.program.ops.push(op);
        self.values.small.extend_from_slice(small);
        self.values.wide.extend_from_slice(wide);
        first
    }
}

/// Runs `run` while its arithmetic on this thread is recorded.
pub fn record<T>(run: impl FnOnce() -> T) -> (T, Program, Values) {
    RECORDER.with_borrow_mut(|r| *r = Some(Recorder::default()));
    let out = run();
    let recorder = RECORDER.with_borrow_mut(Option::take).unwrap_or_default();
    (out, recorder.program, recorder.values)
}

fn push(op: Op, small: &[F], wide: &[Bn254]) -> (u32, u32) {
    // Recorded types exist only inside `record`; a value outside it is a mistake in this crate, not in a proof.
    RECORDER
        .with_borrow_mut(|r| r.as_mut().map(|r| r.push(op, small, wide)))
        .unwrap_or_else(|| unreachable!("nothing is being recorded on this thread"))
}

/// Names the part that begins here.
pub fn part(name: &'static str) {
    RECORDER.with_borrow_mut(|r| {
        if let Some(r) = r.as_mut() {
            r.program.parts.push((r.program.ops.len(), name));
        }
    });
}

/// Records an operation that fills one small.
pub fn small(op: Op, value: F) -> Small {
    Small(push(op, &[value], &[]).0)
}

/// Records an operation that fills several smalls.
pub fn smalls(op: Op, values: &[F]) -> impl Iterator<Item = Small> + use<> {
    let first = push(op, values, &[]).0;
    (first..).take(values.len()).map(Small)
}

/// Records an operation that fills an extension element.
pub fn ext(op: Op, values: [F; 5]) -> Ext {
    let first = push(op, &values, &[]).0;
    [0, 1, 2, 3, 4].map(|i| Small(first + i))
}

/// Records an operation that fills one wide.
pub fn wide(op: Op, value: Bn254) -> Wide {
    Wide(push(op, &[], &[value]).1)
}

/// Records a permutation.
pub fn permutation(inputs: [Wide; 3], outputs: [Bn254; 3]) -> [Wide; 3] {
    let first = push(Op::Permute(inputs), &[], &outputs).1;
    [Wide(first), Wide(first + 1), Wide(first + 2)]
}

/// Records an operation that fills nothing.
pub fn assert(op: Op) {
    push(op, &[], &[]);
}
