//! Sequences decoded together: each goes on by itself from one product with the base's matrices to the next, and those are made for all at once.
//!
//! Products are exact and a row's doesn't depend on the rows beside it, so every sequence gets the very tokens that it gets alone, whoever
//! joins or leaves at any token. Each has its own model: adapters of one base share the base's matrices, and so their products.

use super::engine::{Run, RunError, Runtime};
use super::forward::{KvCache, argmax, check_tokens, embed, layer, logits};
use super::gemm::{Mat16, gemm};
use super::trace::{Keep, Store};
use crate::semantics::Dims;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where a run says which product it waits for, and finds it.
#[derive(Debug, Default)]
pub(crate) struct Desk(Mutex<Order>);

#[derive(Debug, Default)]
enum Order {
    #[default]
    None,
    /// The product of the rows of `x` with the rows of `w`.
    Asked {
        w: Arc<Mat16>,
        x: Vec<i16>,
    },
    Made(Vec<i32>),
}

impl Desk {
    fn swap(&self, order: Order) -> Order {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), order)
    }

    /// `x·wᵀ`, once the turn has made it.
    async fn product(&self, w: &Arc<Mat16>, x: &[i16]) -> Vec<i32> {
        self.swap(Order::Asked { w: w.clone(), x: x.to_vec() });
        let found = |_: &mut Context<'_>| match self.swap(Order::None) {
            Order::Made(y) => Poll::Ready(y),
            waits => {
                self.swap(waits);
                Poll::Pending
            }
        };
        poll_fn(found).await
    }
}

/// `acc += coef·x·wᵀ` with a matrix of the base: at once in a run alone, with the others' in a turn.
pub(crate) async fn base_product(run: &Run<'_>, acc: &mut [i32], coef: i64, x: &[i16], w: &Arc<Mat16>) {
    match run.desk {
        None => gemm(acc, coef, x, w),
        Some(desk) => {
            let (coef, y) = (coef as i32, desk.product(w, x).await);
            acc.iter_mut().zip(y).for_each(|(a, y)| *a = a.wrapping_add(y.wrapping_mul(coef)));
        }
    }
}

/// What a run without a desk comes to: it waits for nobody.
pub(crate) fn alone<T>(run: impl Future<Output = T>) -> T {
    match pin!(run).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("without a desk every product is made at once"),
    }
}

/// Keys and values of tokens that a model has read: sequences that begin with them needn't read them again.
#[derive(Clone, Debug)]
pub struct Prefix {
    tokens: Vec<u32>,
    caches: Vec<KvCache>,
}

impl Prefix {
    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        4 * self.tokens.len() + self.caches.iter().map(|cache| 2 * (cache.kr.len() + cache.v.len())).sum::<usize>()
    }

    /// How many tokens of a prompt it spares: the last one of a prompt is always read.
    pub fn spares(&self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        common.min(prompt.len().saturating_sub(1))
    }

    fn caches_of(&self, count: usize) -> Vec<KvCache> {
        let cut = |data: &[i16]| data[..data.len() / self.tokens.len().max(1) * count].to_vec();
        self.caches.iter().map(|cache| KvCache { kr: cut(&cache.kr), v: cut(&cache.v) }).collect()
    }
}

/// A sequence that grows greedily, token by token. `M` is the model that it's of.
#[derive(Debug)]
pub struct Sequence<M> {
    model: M,
    /// Prompt and answer.
    tokens: Vec<u32>,
    prompt_len: usize,
    /// How many of them the model has read.
    read: usize,
    caches: Vec<KvCache>,
}

impl<M: AsRef<Runtime>> Sequence<M> {
    /// A prompt, not read yet but for what `prefix` spares, which must be of the same model.
    ///
    /// # Errors
    ///
    /// When the prompt is empty, longer than the context, or has tokens outside the vocabulary.
    pub fn new(model: M, prompt: &[u32], prefix: Option<&Prefix>) -> Result<Self, RunError> {
        let shape = &model.as_ref().sem.shape;
        check_tokens(model.as_ref(), prompt)?;
        if prompt.is_empty() || prompt.len() > shape.context {
            let expected = format!("1 to {}", shape.context);
            return Err(RunError::BadLength { what: "prompt length", expected, found: prompt.len() });
        }
        let (read, caches) = match prefix {
            Some(prefix) => (prefix.spares(prompt), prefix.caches_of(prefix.spares(prompt))),
            None => (0, vec![KvCache::default(); shape.layers]),
        };
        Ok(Self { model, tokens: prompt.to_vec(), prompt_len: prompt.len(), read, caches })
    }

    /// The model that it's of.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The tokens that followed the prompt so far.
    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// Whether the context has room for another token.
    pub fn has_room(&self) -> bool {
        self.tokens.len() < self.model.as_ref().sem.shape.context
    }

    /// What was read, for sequences to come.
    pub fn into_prefix(mut self) -> Prefix {
        self.tokens.truncate(self.read);
        Prefix { tokens: self.tokens, caches: self.caches }
    }

    /// Reads what wasn't read yet and adds the token predicted after it.
    async fn step(&mut self, desk: &Desk) -> Result<u32, RunError> {
        let (rt, unread) = (self.model.as_ref(), &self.tokens[self.read..]);
        let d = Dims { t: unread.len(), s: 1, ..Dims::new(&rt.sem, 1, 1) };
        let mut run = Run { rt, d, store: Store::new(Keep::Nothing, d.l), desk: Some(desk) };
        let mut h = embed(&run, unread);
        for (l, cache) in self.caches.iter_mut().enumerate() {
            let (hout, state) = layer(&mut run, l, &h, self.read, std::mem::take(cache)).await?;
            *cache = state.kv;
            h = hout;
        }
        let (_, z) = logits(&mut run, 1, &h[(unread.len() - 1) * d.d..]).await?;
        let next = argmax(&z[..rt.sem.shape.vocab]) as u32;
        self.read = self.tokens.len();
        self.tokens.push(next);
        Ok(next)
    }
}

/// A sequence on its way to its next token.
struct Step<'a> {
    desk: &'a Desk,
    run: Pin<Box<dyn Future<Output = Result<u32, RunError>> + Send + 'a>>,
    came_to: Option<Result<u32, RunError>>,
}

impl Step<'_> {
    /// Goes on to the next product, or to the token.
    fn go_on(&mut self) {
        if self.came_to.is_none()
            && let Poll::Ready(result) = self.run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            self.came_to = Some(result);
        }
    }
}

/// Products with one matrix: their rows one below the other, and how many are whose.
struct Group {
    w: Arc<Mat16>,
    x: Vec<i16>,
    members: Vec<(usize, usize)>,
}

/// What the sequences wait for, by matrix.
fn asked(steps: &[Step<'_>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let Order::Asked { w, x } = step.desk.swap(Order::None) else { continue };
        let group = match groups.iter().position(|group| Arc::ptr_eq(&group.w, &w)) {
            Some(at) => &mut groups[at],
            None => {
                groups.push(Group { w, x: vec![], members: vec![] });
                groups.last_mut().expect("it was just pushed")
            }
        };
        group.members.push((i, x.len()));
        group.x.extend(x);
    }
    groups
}

/// Lets each of the sequences grow by a token, together and on this thread, but for large products; what each got.
///
/// A sequence whose step failed is of no further use; the others don't notice.
pub fn turn<M: AsRef<Runtime> + Send + Sync>(sequences: &mut [&mut Sequence<M>]) -> Vec<Result<u32, RunError>> {
    let desks: Vec<Desk> = sequences.iter().map(|_| Desk::default()).collect();
    let step = |(sequence, desk)| Step { desk, run: Box::pin(Sequence::step(sequence, desk)), came_to: None };
    let mut steps: Vec<Step<'_>> = sequences.iter_mut().map(|s| &mut **s).zip(&desks).map(step).collect();
    loop {
        steps.iter_mut().for_each(Step::go_on);
        let groups = asked(&steps);
        if groups.is_empty() {
            return steps.into_iter().map(|step| step.came_to.expect("it waits for no product")).collect();
        }
        for Group { w, x, members } in groups {
            let mut y = vec![0; x.len() / w.cols * w.rows];
            gemm(&mut y, 1, &x, &w);
            let mut rest = y.as_slice();
            for (i, len) in members {
                let (of, others) = rest.split_at(len / w.cols * w.rows);
                steps[i].desk.swap(Order::Made(of.to_vec()));
                rest = others;
            }
        }
    }
}
