//! One thread a base that decodes all answers of its models together: whoever waits joins at the next token, adapters taking turns.

use crate::answers::Telling;
use crate::catalog::{Generation, Served};
use model_runtime::int::batch::{Prefix, Sequence, turn};
use model_runtime::int::{RunError, Runtime};
use rayon::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use steps::error::{Failure, While};
use tokio::sync::oneshot;

/// Answers decoded together, at most.
pub const TOGETHER: usize = 64;

/// A model whose answers are decoded.
struct Of(Arc<Served>);

impl AsRef<Runtime> for Of {
    fn as_ref(&self) -> &Runtime {
        self.0.runtime()
    }
}

/// An answer that is asked for.
pub struct Order {
    /// Of which model.
    pub served: Arc<Served>,
    /// By whose key: prefixes are shared among a key's own prompts, so that no time tells of others'.
    pub asker: i64,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Most tokens of the answer.
    pub room: usize,
    /// Who hears of every token, and says whether to go on.
    pub telling: Telling,
}

/// How an answer ended.
pub struct Ended {
    /// Who heard of it.
    pub telling: Telling,
    /// Its tokens, or why there are none.
    pub tokens: Result<Vec<u32>, RunError>,
    /// Tokens of the prompt that needn't be read again.
    pub spared: usize,
}

struct Waiting {
    order: Order,
    done: oneshot::Sender<Ended>,
}

/// Who waits, by model.
struct Queue<T> {
    models: BTreeMap<String, VecDeque<T>>,
    /// The model whose turn it was last.
    last: String,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { models: BTreeMap::new(), last: String::new() }
    }

    fn push(&mut self, model: &str, waiting: T) {
        self.models.entry(model.to_owned()).or_default().push_back(waiting);
    }

    /// The first of the model after the one whose turn it was last: who asks one model often doesn't keep others waiting.
    fn next(&mut self) -> Option<T> {
        let after = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let name = self.models.range::<str, _>(after).next().or_else(|| self.models.iter().next())?.0.clone();
        let waiting = self.models.get_mut(&name)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.models.remove(&name);
        }
        self.last = name;
        next
    }
}

/// Prompts and answers that were read, while there is room for them.
struct Prefixes {
    room: usize,
    bytes: usize,
    clock: u64,
    kept: Vec<Kept>,
}

struct Kept {
    of: (Generation, i64),
    prefix: Prefix,
    used: u64,
}

impl Prefixes {
    fn new(room: usize) -> Self {
        Self { room, bytes: 0, clock: 0, kept: vec![] }
    }

    /// The one that spares most of a prompt.
    fn find(&mut self, of: &(Generation, i64), prompt: &[u32]) -> Option<&Prefix> {
        self.clock += 1;
        let kept = self.kept.iter_mut().filter(|kept| kept.of == *of).max_by_key(|kept| kept.prefix.spares(prompt))?;
        kept.used = self.clock;
        Some(&kept.prefix).filter(|prefix| prefix.spares(prompt) > 0)
    }

    /// Keeps one in place of those that it begins with, and instead of those that were used longest ago.
    fn keep(&mut self, of: (Generation, i64), prefix: Prefix) {
        if prefix.bytes() > self.room || self.kept.iter().any(|kept| kept.of == of && kept.prefix.tokens().starts_with(prefix.tokens())) {
            return;
        }
        self.kept.retain(|kept| kept.of != of || !prefix.tokens().starts_with(kept.prefix.tokens()));
        self.bytes = self.kept.iter().map(|kept| kept.prefix.bytes()).sum::<usize>() + prefix.bytes();
        while self.bytes > self.room {
            let Some(oldest) = (0..self.kept.len()).min_by_key(|&i| self.kept[i].used) else { break };
            self.bytes -= self.kept.swap_remove(oldest).prefix.bytes();
        }
        self.clock += 1;
        self.kept.push(Kept { of, prefix, used: self.clock });
    }
}

/// An answer under way.
struct Active {
    sequence: Sequence<Of>,
    asker: i64,
    room: usize,
    spared: usize,
    telling: Telling,
    done: oneshot::Sender<Ended>,
}

impl Active {
    fn end(self, tokens: Result<(), RunError>, prefixes: &mut Prefixes) {
        let Self { sequence, asker, spared, telling, done, .. } = self;
        let tokens = tokens.map(|()| sequence.answer().to_vec());
        if tokens.is_ok() {
            let of = (sequence.model().0.generation.clone(), asker);
            prefixes.keep(of, sequence.into_prefix());
        }
        // Whoever asked may be gone.
        let _ = done.send(Ended { telling, tokens, spared });
    }
}

/// What a decoder did since it was started.
#[derive(Debug, Default)]
pub struct Figures {
    /// Tokens decoded.
    pub tokens: AtomicU64,
    /// Turns, each a token of every answer under way.
    pub turns: AtomicU64,
    /// Tokens of prompts that needn't be read again.
    pub spared: AtomicU64,
    /// Answers under way.
    pub active: AtomicU64,
}

/// Decodes the answers of a base's models.
pub struct Decoder {
    send: Sender<Waiting>,
    figures: Arc<Figures>,
}

impl Decoder {
    /// Starts one, which keeps read prompts in as many bytes; it ends when it's dropped.
    ///
    /// # Errors
    ///
    /// When the system has no threads left.
    pub fn start(prefix_bytes: usize) -> Result<Self, Failure> {
        let (send, receive) = channel();
        let figures = Arc::new(Figures::default());
        let work = {
            let figures = figures.clone();
            move || decode(&receive, &figures, Prefixes::new(prefix_bytes))
        };
        std::thread::Builder::new().name("decode".into()).spawn(work).during("starting a decoder")?;
        Ok(Self { send, figures })
    }

    /// What it did.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Decodes an answer, with others.
    ///
    /// # Errors
    ///
    /// When the decoder broke off.
    pub async fn decode(&self, order: Order) -> Result<Ended, Failure> {
        let (done, ended) = oneshot::channel();
        let broken = || Failure::input("decoding broke off; this is a defect of poa");
        self.send.send(Waiting { order, done }).map_err(|_| broken())?;
        ended.await.map_err(|_| broken())
    }
}

/// Decodes until nobody can ask any more.
fn decode(receive: &Receiver<Waiting>, figures: &Figures, mut prefixes: Prefixes) {
    let (mut queue, mut active) = (Queue::new(), Vec::new());
    let wait = |queue: &mut Queue<Waiting>, waiting: Waiting| queue.push(&waiting.order.served.id.clone(), waiting);
    loop {
        if active.is_empty() {
            let Ok(waiting) = receive.recv() else { return };
            wait(&mut queue, waiting);
        }
        receive.try_iter().for_each(|waiting| wait(&mut queue, waiting));
        while active.len() < TOGETHER
            && let Some(waiting) = queue.next()
        {
            // A defect ends the answer that it met, not the thread that others wait for.
            active.extend(catch_unwind(AssertUnwindSafe(|| begin(waiting, &mut prefixes, figures))).unwrap_or_default());
        }
        figures.active.store(active.len() as u64, Ordering::Relaxed);
        active = go_on(active, &mut prefixes, figures);
        figures.active.store(active.len() as u64, Ordering::Relaxed);
    }
}

/// Begins an answer, unless whoever asked is gone, or it can't be.
fn begin(waiting: Waiting, prefixes: &mut Prefixes, figures: &Figures) -> Option<Active> {
    let Waiting { order: Order { served, asker, prompt, room, telling }, done } = waiting;
    if done.is_closed() {
        return None;
    }
    let prefix = prefixes.find(&(served.generation.clone(), asker), &prompt);
    let spared = prefix.map_or(0, |prefix| prefix.spares(&prompt));
    figures.spared.fetch_add(spared as u64, Ordering::Relaxed);
    match Sequence::new(Of(served), &prompt, prefix) {
        Ok(sequence) => Some(Active { sequence, asker, room, spared, telling, done }),
        Err(error) => {
            let _ = done.send(Ended { telling, tokens: Err(error), spared });
            None
        }
    }
}

/// What came of an answer's turn.
enum Turned {
    GoesOn,
    Over(Result<(), RunError>),
    /// A defect of ours ended it.
    Broken,
}

/// A token more for each, on all cores: each core takes some, whose products it makes together; those that go on.
fn go_on(mut active: Vec<Active>, prefixes: &mut Prefixes, figures: &Figures) -> Vec<Active> {
    let each = active.len().div_ceil(rayon::current_num_threads());
    // A defect ends the answers that were decoded beside it, and no others.
    let turned =
        |some: &mut [Active]| catch_unwind(AssertUnwindSafe(|| turn_some(some))).unwrap_or_else(|_| some.iter().map(|_| Turned::Broken).collect());
    let turned: Vec<Turned> = active.par_chunks_mut(each).flat_map_iter(turned).collect();
    figures.turns.fetch_add(1, Ordering::Relaxed);
    figures.tokens.fetch_add(active.len() as u64, Ordering::Relaxed);
    let mut going = Vec::with_capacity(active.len());
    for (one, turned) in active.into_iter().zip(turned) {
        match turned {
            Turned::GoesOn => going.push(one),
            Turned::Over(result) => one.end(result, prefixes),
            Turned::Broken => {}
        }
    }
    going
}

fn turn_some(some: &mut [Active]) -> Vec<Turned> {
    let results = turn(&mut some.iter_mut().map(|one| &mut one.sequence).collect::<Vec<_>>());
    let told = |(one, result): (&mut Active, Result<u32, RunError>)| match result {
        Err(error) => Turned::Over(Err(error)),
        Ok(_) => {
            let answer = one.sequence.answer();
            let goes_on = one.telling.hears(answer) && !one.done.is_closed();
            if goes_on && answer.len() < one.room && one.sequence.has_room() { Turned::GoesOn } else { Turned::Over(Ok(())) }
        }
    };
    some.iter_mut().zip(results).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuits::statement::Digest;
    use model_runtime::int::synthetic::synthetic_model;
    use model_runtime::shape::{LoraShape, ModelShape, Site};

    fn runtime() -> Arc<Runtime> {
        let shape =
            ModelShape { layers: 1, width: 16, heads: 2, kv_heads: 1, head_dim: 8, ff: 24, vocab: 20, rope_theta: 1e4, norm_eps: 1e-5, context: 32 };
        let (model, adapter) = synthetic_model(&shape, &LoraShape { rank: 2, sites: Site::ALL.to_vec() }, 5).unwrap();
        Arc::new(Runtime::new(adapter.semantics, &model.tensors, Some(&adapter.tensors)).unwrap())
    }

    fn read(runtime: &Arc<Runtime>, prompt: &[u32]) -> Prefix {
        let mut sequence = Sequence::new(runtime.clone(), prompt, None).unwrap();
        turn(&mut [&mut sequence]).remove(0).unwrap();
        sequence.into_prefix()
    }

    #[test]
    fn models_take_turns_however_many_wait_for_one() {
        let mut queue = Queue::new();
        (0..4).for_each(|i| queue.push("busy", i));
        assert_eq!(queue.next(), Some(0));
        queue.push("another", 10);
        queue.push("quiet", 20);
        queue.push("quiet", 21);
        let order: Vec<i32> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(order, [20, 10, 1, 21, 2, 3], "each model's own in the order they came");
    }

    #[test]
    fn prefixes_are_a_models_and_a_keys_and_go_when_there_is_no_room() {
        let runtime = runtime();
        let one = read(&runtime, &[1, 2, 3, 4]);
        let mut prefixes = Prefixes::new(2 * one.bytes());
        let generation = |n| Generation { base: Digest([n; 32]), adapter: None, index: None };
        let own = (generation(1), 7);
        prefixes.keep(own.clone(), one.clone());
        let spares = |prefixes: &mut Prefixes, of: &(Generation, i64), prompt: &[u32]| prefixes.find(of, prompt).map_or(0, |p| p.spares(prompt));
        assert_eq!(spares(&mut prefixes, &own, &[1, 2, 3, 9]), 3);
        assert_eq!(spares(&mut prefixes, &own, &[5, 2]), 0);
        assert_eq!(spares(&mut prefixes, &(generation(1), 8), &[1, 2, 3, 9]), 0, "another key's");
        assert_eq!(spares(&mut prefixes, &(generation(2), 7), &[1, 2, 3, 9]), 0, "another model's");
        prefixes.keep(own.clone(), read(&runtime, &[1, 2]));
        assert_eq!(prefixes.kept.len(), 1, "what begins another adds nothing");
        prefixes.keep(own.clone(), read(&runtime, &[6, 6, 6, 6]));
        assert_eq!(spares(&mut prefixes, &own, &[1, 2, 3, 9]), 3);
        prefixes.keep(own.clone(), read(&runtime, &[7, 7, 7, 7]));
        assert_eq!(spares(&mut prefixes, &own, &[6, 6, 6, 6]), 0, "it was used longest ago");
        assert_eq!((spares(&mut prefixes, &own, &[1, 2, 3, 9]), prefixes.bytes), (3, 2 * one.bytes()));
        prefixes.keep(own.clone(), read(&runtime, &[8; 20]));
        assert_eq!(prefixes.kept.len(), 2, "one that has no room leaves the others");
    }
}
