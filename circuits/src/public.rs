//! Public structure: polynomials that nobody commits and the verifier evaluates itself.
//!
//! Each has a dense form (for the prover) and a multilinear evaluation (for the verifier); a test shows that they agree.

use crate::ir::{F, int};
use crate::relation::{RelationParams, Scope};
use model_runtime::semantics::Seed;
use model_runtime::shape::Site;
use model_runtime::tables::{Projection, Side, rope_tables};
use p3_field::{Field, PrimeCharacteristicRing};

/// A public polynomial; axes in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Public {
    /// `[b,t,v]`: token at position t is v.
    Token,
    /// `[b,s,v]`: slot s is live (predicts a token of the answer) and v is that token.
    Target,
    /// `[b,s,v]`: slot s is live and v is in the vocabulary.
    Live,
    /// `[b,s,v]`: slot s is live and v is below its token (ties go to the lowest id).
    BelowTarget,
    /// `[b,s]`: slot s is live.
    LiveSlot,
    /// `[b,s,t]`: slot s is live and reads position t.
    Select,
    /// `[t,u]`: u ≤ t.
    Causal,
    /// `[t,p]`: rotary cosine.
    Cos,
    /// `[t,z,p]`: rotary sine, negated for z = 0.
    SinForward,
    /// `[t,z,p]`: rotary sine, negated for z = 1.
    SinInverse,
    /// `[a,x]`: sketch projection of one side of a site.
    Projection(Site, Side),
    /// `[x…]`: where an entry rounds, of `2^bits`: its number with the bits reversed.
    Offset(u32),
    /// `[x]`: x is below a bound.
    Below(usize),
    /// `[b]`: the request's number.
    RequestNumber,
    /// `[b,i]`: row i is the request's ([`Registered::row_of_request`]).
    Row,
    /// `[i]`: row i earns.
    Earns,
    /// `[i]`: number of row i's contributor.
    Contributor,
}

/// What a registration says of an index' rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Which row each request is the sample of; none where rows aren't proven.
    pub row_of_request: Vec<usize>,
    /// Whether each row earns.
    pub earns: Vec<bool>,
    /// Number of each row's contributor.
    pub contributors: Vec<u32>,
}

/// One request's public part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicRequest {
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
}

/// A live slot: it reads a position and predicts the next token, which is the answer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot's number.
    pub number: usize,
    /// The position it reads.
    pub position: usize,
    /// The token it predicts.
    pub target: usize,
}

/// What the public polynomials depend on.
#[derive(Clone, Debug)]
pub struct PublicContext {
    /// Requests, without padding.
    pub requests: Vec<PublicRequest>,
    /// Whether slots cover the whole exchange (for the gradient), or the answer only.
    pub whole: bool,
    /// True vocabulary.
    pub vocab: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// True head size.
    pub head_dim: usize,
    /// What the projections' signs are drawn from.
    pub seed: Seed,
    /// What is registered; nothing of requests.
    pub registered: Registered,
}

impl PublicContext {
    /// The context of `requests` under a relation's parameters.
    pub fn new(params: &RelationParams, requests: Vec<PublicRequest>) -> Self {
        let sem = &params.semantics;
        Self {
            requests,
            whole: params.scope == Scope::Attribution,
            vocab: sem.shape.vocab,
            rope_theta: sem.shape.rope_theta,
            head_dim: sem.shape.head_dim,
            seed: sem.projection_seed(),
            registered: Registered::default(),
        }
    }

    /// With what is registered.
    pub fn registering(self, registered: Registered) -> Self {
        Self { registered, ..self }
    }

    /// A request's live slots.
    pub fn slots<'a>(&self, request: &'a PublicRequest) -> impl Iterator<Item = Slot> + use<'a> {
        let first = if self.whole { 1 } else { request.prompt_len };
        let slot = move |(i, &target): (usize, &u32)| Slot { number: i - first, position: i.saturating_sub(1), target: target as usize };
        request.tokens.iter().enumerate().skip(first.max(request.prompt_len)).map(slot)
    }

    /// The request at a padded position: positions past the end repeat the first request.
    pub fn request(&self, b: usize) -> Option<&PublicRequest> {
        self.requests.get(b).or_else(|| self.requests.first())
    }
}

/// A bit that a [`PublicView`] holds: known, or an element that is zero or one.
#[derive(Clone, Copy, Debug)]
pub enum Bit<E> {
    /// Known.
    Known(bool),
    /// Zero or one.
    Value(E),
}

impl<E: Field> Bit<E> {
    /// `c` if the bit is one, `1 - c` if it is zero.
    fn agree(self, c: E) -> E {
        match self {
            Bit::Known(true) => c,
            Bit::Known(false) => E::ONE - c,
            Bit::Value(b) => E::ONE - c + b * (c.double() - E::ONE),
        }
    }

    /// `x` if the bit is one, else zero.
    fn times(self, x: E) -> E {
        match self {
            Bit::Known(true) => x,
            Bit::Known(false) => E::ZERO,
            Bit::Value(b) => x * b,
        }
    }
}

/// A position of a request, as evaluations see it.
#[derive(Clone, Debug)]
pub struct Position<E> {
    /// Its token's bits, most significant first; zeros past the end.
    pub token: Vec<Bit<E>>,
    /// Whether there is a token.
    pub present: Bit<E>,
    /// Whether the token is the answer's.
    pub answer: Bit<E>,
}

/// One request, as evaluations see it.
#[derive(Clone, Debug)]
pub struct RequestView<E> {
    /// Its positions; those beyond the last hold no token.
    pub positions: Vec<Position<E>>,
    /// The position that the first slot predicts.
    pub first: usize,
}

/// What evaluations depend on: [`PublicContext`], with requests that may be values of an extension field or of a recorded run.
#[derive(Clone, Debug)]
pub struct PublicView<E> {
    /// Requests, without padding.
    pub requests: Vec<RequestView<E>>,
    vocab: usize,
    rope_theta: f64,
    head_dim: usize,
    seed: Seed,
    registered: Registered,
}

impl<E: Field> PublicView<E> {
    /// The view of given requests under a relation's parameters.
    pub fn new(params: &RelationParams, requests: Vec<RequestView<E>>) -> Self {
        let (shape, seed) = (&params.semantics.shape, params.semantics.projection_seed());
        let registered = Registered::default();
        Self { requests, vocab: shape.vocab, rope_theta: shape.rope_theta, head_dim: shape.head_dim, seed, registered }
    }
}

impl PublicContext {
    /// The same, for evaluations.
    pub fn view<E: Field>(&self) -> PublicView<E> {
        let bits = usize::BITS - self.vocab.saturating_sub(1).leading_zeros();
        let request = |r: &PublicRequest| {
            let token = |t: u32| (0..bits).rev().map(|i| Bit::Known((t >> i) & 1 == 1)).collect();
            let position = |(i, &t): (usize, &u32)| Position { token: token(t), present: Bit::Known(true), answer: Bit::Known(i >= r.prompt_len) };
            RequestView { positions: r.tokens.iter().enumerate().map(position).collect(), first: if self.whole { 1 } else { r.prompt_len } }
        };
        let requests = self.requests.iter().map(request).collect();
        let registered = self.registered.clone();
        PublicView { requests, vocab: self.vocab, rope_theta: self.rope_theta, head_dim: self.head_dim, seed: self.seed, registered }
    }
}

/// `eq(point, x)` for every `x` of the cube, first coordinate most significant.
pub fn eq_table<E: Field>(point: &[E]) -> Vec<E> {
    let mut table = Vec::with_capacity(1 << point.len());
    table.push(E::ONE);
    for &c in point {
        let len = table.len();
        table.resize(2 * len, E::ZERO);
        for i in (0..len).rev() {
            let high = table[i] * c;
            table[2 * i] = table[i] - high;
            table[2 * i + 1] = high;
        }
    }
    table
}

/// `eq(point, x)` for one `x`.
pub fn eq_at<E: Field>(point: &[E], x: usize) -> E {
    let n = point.len();
    point.iter().enumerate().map(|(i, &c)| if (x >> (n - 1 - i)) & 1 == 1 { c } else { E::ONE - c }).product()
}

/// `eq(point, x)` for an `x` given by as many bits; missing high bits are zeros.
fn eq_bits<E: Field>(point: &[E], bits: &[Bit<E>]) -> E {
    let (high, low) = point.split_at(point.len().saturating_sub(bits.len()));
    eq_at(high, 0) * low.iter().zip(bits).map(|(&c, bit)| bit.agree(c)).product::<E>()
}

/// `eq(a, b)` of two points.
pub fn eq_points<E: Field>(a: &[E], b: &[E]) -> E {
    a.iter().zip(b).map(|(&x, &y)| (x * y).double() - x - y + E::ONE).product()
}

/// Multilinear extension of `[x < bound]`, for `bound ≤ 2^n`.
pub fn less_than<E: Field>(point: &[E], bound: usize) -> E {
    let n = point.len();
    if bound >> n != 0 {
        return E::ONE;
    }
    let bits: Vec<Bit<E>> = (0..n).rev().map(|i| Bit::Known((bound >> i) & 1 == 1)).collect();
    less_than_bits(point, &bits)
}

/// Multilinear extension of `[x < bound]`, for a bound given by bits; missing high bits are zeros.
fn less_than_bits<E: Field>(point: &[E], bound: &[Bit<E>]) -> E {
    let (high, low) = point.split_at(point.len().saturating_sub(bound.len()));
    let (mut equal, mut below) = (eq_at(high, 0), E::ZERO);
    for (&c, bit) in low.iter().zip(bound) {
        below += bit.times(equal * (E::ONE - c));
        equal *= bit.agree(c);
    }
    below
}

/// Multilinear extension of `x·[x < bound]`, for `bound ≤ 2^n`.
pub fn iota_below<E: Field>(point: &[E], bound: usize) -> E {
    let n = point.len();
    if bound >> n != 0 {
        return iota(point);
    }
    let (mut equal, mut prefix) = (E::ONE, 0usize);
    let (mut below, mut sum) = (E::ZERO, E::ZERO);
    for (i, &c) in point.iter().enumerate() {
        // `sum` holds the values of the bits so far, at their own weights.
        let place = 1usize << (n - 1 - i);
        sum += below * c * E::from_usize(place);
        if bound & place != 0 {
            sum += equal * (E::ONE - c) * E::from_usize(prefix);
            below += equal * (E::ONE - c);
            equal *= c;
            prefix += place;
        } else {
            equal *= E::ONE - c;
        }
    }
    sum
}

/// Multilinear extension of `[u ≤ t]` over two axes of equal size.
fn causal<E: Field>(t: &[E], u: &[E]) -> E {
    let (mut equal, mut below) = (E::ONE, E::ZERO);
    for (&t, &u) in t.iter().zip(u) {
        below += equal * t * (E::ONE - u);
        equal *= (t * u).double() - t - u + E::ONE;
    }
    below + equal
}

/// Multilinear extension of the integer an axis counts.
pub fn iota<E: Field>(point: &[E]) -> E {
    point.iter().fold(E::ZERO, |acc, &c| acc.double() + c)
}

impl Public {
    /// Evaluates at one point, given as a slice per axis. `None` if the number of axes is wrong.
    pub fn evaluate<E: Field>(self, view: &PublicView<E>, at: &[&[E]]) -> Option<E> {
        match (self, at) {
            (Public::Token, [b, t, v]) => Some(over_requests(view, b, |r| token_sum(r, t, v))),
            (Public::Target, [b, s, v]) => Some(over_slots(view, b, s, |x| x.answer.times(eq_bits(v, &x.token)))),
            (Public::LiveSlot, [b, s]) => Some(over_slots(view, b, s, |x| x.answer.times(E::ONE))),
            (Public::Live, [b, s, v]) => Some(over_slots(view, b, s, |x| x.answer.times(E::ONE)) * less_than(v, view.vocab)),
            (Public::BelowTarget, [b, s, v]) => Some(over_slots(view, b, s, |x| x.answer.times(less_than_bits(v, &x.token)))),
            (Public::Select, [b, s, t]) => Some(over_requests(view, b, |r| selected(r, s, t))),
            (Public::Causal, [t, u]) => Some(causal(t, u)),
            (Public::Cos, [t, p]) => Some(self.rope(view, t, p)),
            (Public::SinForward, [t, z, p]) => Some(self.rope(view, t, p) * (iota(z).double() - E::ONE)),
            (Public::SinInverse, [t, z, p]) => Some(self.rope(view, t, p) * (E::ONE - iota(z).double())),
            (Public::Projection(site, side), [a, x @ ..]) => Some(projection(view.seed, (site, side), a, &x.concat())),
            (Public::Offset(bits), axes) => Some(offset(bits, &axes.concat())),
            (Public::Below(bound), [x]) => Some(less_than(x, bound)),
            (Public::RequestNumber, [b]) => Some(iota(b)),
            (Public::Row, [b, i]) => Some(rows_of_requests(&view.registered.row_of_request, b, i)),
            (Public::Earns, [i]) => Some(over_rows(i, view.registered.earns.iter().map(|&x| u32::from(x)))),
            (Public::Contributor, [i]) => Some(over_rows(i, view.registered.contributors.iter().copied())),
            _ => None,
        }
    }

    /// The rotary table this polynomial reads, evaluated: `Σ_{t,p} eq·table`.
    fn rope<E: Field>(self, view: &PublicView<E>, t: &[E], p: &[E]) -> E {
        let (cos, sin) = rope_tables(view.rope_theta, view.head_dim, 1 << t.len(), 1 << p.len());
        let table = if self == Public::Cos { cos } else { sin };
        let (et, ep) = (eq_table(t), eq_table(p));
        let row = |row: &[i32]| -> E { ep.iter().zip(row).map(|(&e, &x)| e * E::from_i32(x)).sum() };
        et.iter().zip(table.chunks(ep.len())).map(|(&e, r)| e * row(r)).sum()
    }

    /// All values over axes of the given log sizes, row-major. `None` if the number of axes is wrong.
    pub fn dense(self, ctx: &PublicContext, logs: &[usize]) -> Option<Vec<F>> {
        let size = |i: usize| 1usize << logs[i];
        let mut out = vec![F::ZERO; 1 << logs.iter().sum::<usize>()];
        match (self, logs.len()) {
            (Public::Token | Public::Target | Public::Live | Public::BelowTarget | Public::Select, 3) => {
                for b in 0..size(0) {
                    let block = &mut out[b * size(1) * size(2)..][..size(1) * size(2)];
                    self.fill_request(ctx, ctx.request(b)?, block, size(2));
                }
            }
            (Public::LiveSlot, 2) => {
                for b in 0..size(0) {
                    let live = ctx.slots(ctx.request(b)?).filter(|x| x.number < size(1));
                    live.for_each(|x| out[b * size(1) + x.number] = F::ONE);
                }
            }
            (Public::Causal, 2) => {
                (0..size(0)).for_each(|t| out[t * size(1)..][..=t.min(size(1) - 1)].fill(F::ONE));
            }
            (Public::Cos, 2) => {
                let (cos, _) = rope_tables(ctx.rope_theta, ctx.head_dim, size(0), size(1));
                out = cos.iter().map(|&x| int(i64::from(x))).collect();
            }
            (Public::SinForward | Public::SinInverse, 3) => {
                let (_, sin) = rope_tables(ctx.rope_theta, ctx.head_dim, size(0), size(2));
                let negated = usize::from(self == Public::SinInverse);
                for (i, x) in out.iter_mut().enumerate() {
                    let (t, z, p) = (i / (2 * size(2)), (i / size(2)) % 2, i % size(2));
                    let value = i64::from(sin[t * size(2) + p]);
                    *x = int(if z == negated { -value } else { value });
                }
            }
            (Public::Projection(site, side), 2..) => {
                let out_log = logs[1..].iter().sum();
                let signs = Projection::new(ctx.seed, site, side, size(0), out_log);
                out.iter_mut().enumerate().for_each(|(i, x)| *x = int(signs.at(i >> out_log, i & ((1 << out_log) - 1)).into()));
            }
            (Public::Offset(bits), _) => {
                let log: usize = logs.iter().sum();
                let reversed = |k: usize| (0..log).filter(|i| (k >> i) & 1 == 1).map(|i| offset_weight(bits, i)).sum();
                out.iter_mut().enumerate().for_each(|(k, x)| *x = int(reversed(k)));
            }
            (Public::Below(bound), 1) => out.iter_mut().take(bound).for_each(|x| *x = F::ONE),
            (Public::RequestNumber, 1) => out.iter_mut().enumerate().for_each(|(i, x)| *x = int(i as i64)),
            (Public::Row, 2) => {
                let rows = &ctx.registered.row_of_request;
                let row = |b: usize| rows.get(b).or(rows.first()).copied().filter(|&row| row < size(1));
                (0..size(0)).for_each(|b| row(b).into_iter().for_each(|row| out[b * size(1) + row] = F::ONE));
            }
            (Public::Earns, 1) => out.iter_mut().zip(&ctx.registered.earns).for_each(|(x, &earns)| *x = F::from_bool(earns)),
            (Public::Contributor, 1) => out.iter_mut().zip(&ctx.registered.contributors).for_each(|(x, &c)| *x = F::from_u32(c)),
            _ => return None,
        }
        Some(out)
    }

    fn fill_request(self, ctx: &PublicContext, request: &PublicRequest, out: &mut [F], width: usize) {
        let rows = out.len() / width;
        if self == Public::Token {
            for t in 0..rows {
                out[t * width + request.tokens.get(t).map_or(0, |&x| x as usize)] = F::ONE;
            }
            return;
        }
        for x in ctx.slots(request).filter(|x| x.number < rows) {
            let row = &mut out[x.number * width..][..width];
            match self {
                Public::Live => row[..ctx.vocab].fill(F::ONE),
                Public::Select => row[x.position] = F::ONE,
                Public::Target => row[x.target] = F::ONE,
                Public::BelowTarget => row[..x.target].fill(F::ONE),
                _ => {}
            }
        }
    }
}

/// `Σ_b eq(point, b)·f(request b)`; padded positions repeat the first request.
fn over_requests<E: Field>(view: &PublicView<E>, point: &[E], f: impl Fn(&RequestView<E>) -> E) -> E {
    let n = view.requests.len();
    let first = view.requests.first().map_or(E::ZERO, &f);
    let rest: E = view.requests.iter().enumerate().skip(1).map(|(b, r)| eq_at(point, b) * f(r)).sum();
    let first_weight = eq_at(point, 0) + E::ONE - less_than(point, n);
    first * first_weight + rest
}

/// `Σ_b eq(point, b)·eq(i, row of b)`; padded positions repeat the first.
fn rows_of_requests<E: Field>(rows: &[usize], point: &[E], i: &[E]) -> E {
    let Some(&first) = rows.first() else { return E::ZERO };
    let rest: E = rows.iter().enumerate().skip(1).map(|(b, &row)| eq_at(point, b) * eq_at(i, row)).sum();
    (eq_at(point, 0) + E::ONE - less_than(point, rows.len())) * eq_at(i, first) + rest
}

/// `Σ_i eq(point, i)·value of row i`.
fn over_rows<E: Field>(point: &[E], values: impl Iterator<Item = u32>) -> E {
    let mut values: Vec<E> = values.take(1 << point.len()).map(E::from_u32).collect();
    for &c in point.iter().rev() {
        values = values.chunks(2).map(|pair| pair[0] + c * (pair.get(1).copied().unwrap_or(E::ZERO) - pair[0])).collect();
    }
    values.first().copied().unwrap_or(E::ZERO)
}

/// `Σ_b Σ_slots eq(b)·eq(s, slot)·f(predicted position)`.
fn over_slots<E: Field>(view: &PublicView<E>, b: &[E], s: &[E], f: impl Fn(&Position<E>) -> E) -> E {
    let eq = eq_table(s);
    over_requests(view, b, |r| r.positions.iter().skip(r.first).zip(&eq).map(|(x, &e)| e * f(x)).sum())
}

/// `Σ_slots eq(s, slot)·eq(t, position read)`.
fn selected<E: Field>(request: &RequestView<E>, s: &[E], t: &[E]) -> E {
    let read = eq_table(t).into_iter().skip(request.first.saturating_sub(1));
    let live = request.positions.iter().skip(request.first);
    live.zip(eq_table(s)).zip(read).map(|((x, es), et)| x.answer.times(es * et)).sum()
}

/// `Σ_t eq(t)·eq(v, token_t)`, positions past the end holding token 0.
fn token_sum<E: Field>(request: &RequestView<E>, t: &[E], v: &[E]) -> E {
    let real: E = request.positions.iter().zip(eq_table(t)).map(|(x, e)| e * eq_bits(v, &x.token)).sum();
    real + (E::ONE - less_than(t, request.positions.len())) * eq_at(v, 0)
}

/// What bit `i` of an entry's number, the lowest being 0, adds to where it rounds.
fn offset_weight(bits: u32, i: usize) -> i64 {
    (1i64 << bits) >> (i + 1).min(63)
}

/// Linear in the coordinates, the last of which is the lowest bit.
fn offset<E: Field>(bits: u32, x: &[E]) -> E {
    x.iter().rev().enumerate().map(|(i, &c)| c * E::from_i64(offset_weight(bits, i))).sum()
}

fn projection<E: Field>(seed: Seed, (site, side): (Site, Side), a: &[E], out: &[E]) -> E {
    let signs = Projection::new(seed, site, side, 1 << a.len(), out.len());
    let (high, low) = out.split_at(out.len() - signs.low_log);
    let (eh, el) = (eq_table(high), eq_table(low));
    let row = |signs: &[i32], eq: &[E]| -> E { signs.iter().zip(eq).fold(E::ZERO, |acc, (&s, &e)| if s > 0 { acc + e } else { acc - e }) };
    eq_table(a)
        .iter()
        .enumerate()
        .map(|(i, &e)| e * row(&signs.high[i * eh.len()..][..eh.len()], &eh) * row(&signs.low[i * el.len()..][..el.len()], &el))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::EF;

    fn point(n: usize, seed: u64) -> Vec<EF> {
        let coordinate = |i: u64| EF::from_u64(seed.wrapping_mul(0x9E37_79B9).wrapping_add(i * 7919) % 1_000_003).square();
        (0..n as u64).map(coordinate).collect()
    }

    #[test]
    fn evaluation_agrees_with_the_dense_form() {
        let request = |tokens: &[u32], prompt_len| PublicRequest { tokens: tokens.to_vec(), prompt_len };
        for whole in [false, true] {
            let ctx = PublicContext {
                whole,
                requests: vec![request(&[1, 5, 9, 2, 7], 2), request(&[3, 3, 8], 1), request(&[1, 2, 3, 4], 3)],
                vocab: 11,
                rope_theta: 10_000.0,
                head_dim: 6,
                seed: Seed([3; 32]),
                registered: Registered {
                    row_of_request: vec![6, 0, 3],
                    earns: vec![true, false, true, true, false],
                    contributors: vec![4, 0, 2, 1, 1, 9],
                },
            };
            let cases: [(Public, &[usize]); 19] = [
                (Public::Token, &[2, 3, 4]),
                (Public::Target, &[2, 2, 4]),
                (Public::Live, &[2, 2, 4]),
                (Public::BelowTarget, &[2, 2, 4]),
                (Public::LiveSlot, &[2, 2]),
                (Public::Select, &[2, 2, 3]),
                (Public::Causal, &[3, 3]),
                (Public::Cos, &[3, 2]),
                (Public::SinForward, &[3, 1, 2]),
                (Public::SinInverse, &[3, 1, 2]),
                (Public::Projection(Site::Up, Side::Output), &[2, 5]),
                (Public::Projection(Site::Q, Side::Output), &[2, 1, 1, 1, 2]),
                (Public::Projection(Site::Up, Side::Rank), &[1, 3]),
                (Public::Offset(19), &[1, 2, 2]),
                (Public::Below(5), &[3]),
                (Public::RequestNumber, &[2]),
                (Public::Row, &[2, 3]),
                (Public::Earns, &[3]),
                (Public::Contributor, &[3]),
            ];
            for (i, (public, logs)) in cases.into_iter().enumerate() {
                let points: Vec<Vec<EF>> = logs.iter().enumerate().map(|(k, &n)| point(n, (i * 10 + k) as u64)).collect();
                let slices: Vec<&[EF]> = points.iter().map(Vec::as_slice).collect();
                let dense = public.dense(&ctx, logs).unwrap();
                let expected: EF = eq_table(&points.concat()).iter().zip(&dense).map(|(&e, &x)| e * x).sum();
                assert_eq!(public.evaluate(&ctx.view(), &slices), Some(expected), "{public:?}");
            }
        }
    }
}
