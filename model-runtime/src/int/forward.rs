//! The forward pass, whole-sequence or with a key-value cache (one code path, hence bit-for-bit equal).

use super::batch::{alone, base_product};
use super::engine::{Run, RunError, Runtime};
use super::gadgets::{NormRow, SoftmaxRow, softmax_row};
use super::gemm::{gemm, gemm_slices, narrow, transpose16};
use super::trace::{Keep, Mode, Span, Store, Trace};
use super::{backward, gadgets};
use crate::semantics::Dims;
use crate::shape::Site;

/// Output of a norm and the factor its gradient uses.
#[derive(Debug, Default)]
pub(crate) struct Normed {
    pub n: Vec<i16>,
    pub fb: Vec<i32>,
}

/// Rotated keys and values of the positions seen so far, `[u, g, c]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct KvCache {
    pub kr: Vec<i16>,
    pub v: Vec<i16>,
}

/// What the backward pass needs of a layer.
#[derive(Debug, Default)]
pub(crate) struct LayerState {
    pub n1: Normed,
    pub n2: Normed,
    pub qr: Vec<i16>,
    pub kv: KvCache,
    pub p: Vec<i16>,
    pub silu: Vec<i32>,
    pub dsilu: Vec<i32>,
    pub up: Vec<i32>,
}

/// The state between forward and backward passes.
#[derive(Debug, Default)]
pub(crate) struct ForwardState {
    pub layers: Vec<LayerState>,
    pub nf: Normed,
    /// Output probabilities `[s, v]`.
    pub pr: Vec<i32>,
}

/// Rows `[rows, width]` of column block `[start, start + len)`.
pub(crate) fn columns(data: &[i16], width: usize, start: usize, len: usize) -> Vec<i16> {
    data.chunks_exact(width).flat_map(|row| &row[start..start + len]).copied().collect()
}

/// A witness's name and where it is found in a row.
pub(crate) type Field<Row> = (&'static str, fn(&Row) -> i32);

fn norm_witnesses(run: &mut Run, name: &str, l: Option<usize>, lead: &[usize], rows: &[NormRow]) {
    if run.store.keep != Keep::All {
        return;
    }
    let fields: [Field<NormRow>; 10] = [
        ("e", |x| x.e),
        ("man", |x| x.man),
        ("rem", |x| x.rem),
        ("big", |x| i32::from(x.man >= 1 << 14)),
        ("p4", |x| 1 << (2 * x.e)),
        ("p2", |x| 1 << x.e),
        ("g", |x| x.g),
        ("frem", |x| x.frem),
        ("f1", |x| x.f >> 12),
        ("f0", |x| x.f & 4095),
    ];
    // The gradient before the final norm's factor is brought to one length: no factor is read.
    let coarse: [Field<NormRow>; 4] = [("fb", |x| x.fb), ("fr", |x| x.fr), ("o1", |x| x.over >> 12), ("o0", |x| x.over & 4095)];
    let backward = if name == "nf" { &[][..] } else { &coarse };
    for (field, get) in fields.iter().chain(backward) {
        let data: Vec<i32> = rows.iter().map(get).collect();
        run.keep(&format!("{name}.{field}"), l, lead, &data);
    }
}

pub(crate) fn softmax_witnesses(run: &mut Run, name: &str, l: Option<usize>, lead: &[usize], rows: &[SoftmaxRow]) {
    if run.store.keep != Keep::All {
        return;
    }
    let fields: [Field<SoftmaxRow>; 9] = [
        ("e", |x| x.e),
        ("man", |x| x.man),
        ("rem", |x| x.rem),
        ("big", |x| i32::from(x.man >= 1 << 15)),
        ("p2", |x| 1 << x.e),
        ("g", |x| x.g),
        ("frem", |x| x.frem),
        ("f1", |x| x.f >> 12),
        ("f0", |x| x.f & 4095),
    ];
    for (field, get) in fields {
        let data: Vec<i32> = rows.iter().map(get).collect();
        run.keep(&format!("{name}.{field}"), l, lead, &data);
    }
}

/// The norm gadget on rows of `h`; `which` is 0, 1, 2 for n1, n2, nf.
fn norm(run: &mut Run, which: usize, l: Option<usize>, lead: usize, h: &[i32]) -> Result<Normed, RunError> {
    let name = ["n1", "n2", "nf"][which];
    let (params, width) = (&run.rt.norms[which], run.d.d);
    let squares: Vec<i32> = h.iter().map(|&x| params.square(x)).collect();
    let rows: Vec<NormRow> = squares.chunks_exact(width).map(|row| params.row(row.iter().map(|&x| i64::from(x)).sum())).collect();
    let mut acc = vec![0; h.len()];
    for ((acc, h), row) in acc.chunks_exact_mut(width).zip(h.chunks_exact(width)).zip(&rows) {
        acc.iter_mut().zip(h).for_each(|(a, &h)| *a = h.wrapping_mul(row.f));
    }
    let dims = [lead, width];
    run.keep(&format!("{name}.sq"), l, &dims, &squares);
    norm_witnesses(run, name, l, &dims[..1], &rows);
    let n = run.rq_hidden(name, name, l, &dims, acc)?;
    run.keep(&format!("{name}.n"), l, &dims, &n);
    Ok(Normed { n: narrow(&n), fb: rows.iter().map(|r| r.fb).collect() })
}

/// `acc += coefs[first]·W x + coefs[first+1]·B u`, with `u = RQ(A x)` kept as `uS`.
async fn project(run: &mut Run<'_>, (l, site): (usize, Site), (op, first): (&str, usize), x: &[i16], acc: &mut [i32]) -> Result<(), RunError> {
    let linear = run.rt.layers.get(l).map(|layer| &layer[site as usize]);
    if let Some(linear) = linear {
        base_product(run, acc, run.coef(op, first)?, x, &linear.w).await;
    }
    if run.rt.sem.sites().contains(&site) {
        let name = format!("u{}", site.name());
        let mut low = vec![0; run.d.t * run.d.r];
        let lora = linear.and_then(|linear| linear.lora.as_ref());
        if let Some(lora) = lora {
            gemm(&mut low, run.coef(&name, 0)?, x, &lora.a);
        }
        let u = run.rq(&name, Some(l), &[run.d.t, run.d.r], low)?;
        if let Some(lora) = lora {
            gemm(acc, run.coef(op, first + 1)?, &narrow(&u), &lora.b);
        }
    }
    Ok(())
}

/// A projection without a residual branch, requantised and kept.
async fn linear(run: &mut Run<'_>, l: usize, site: Site, axes: &[usize], x: &[i16]) -> Result<Vec<i32>, RunError> {
    let mut acc = vec![0; run.d.t * axes.iter().product::<usize>()];
    let dims: Vec<usize> = std::iter::once(run.d.t).chain(axes.iter().copied()).collect();
    project(run, (l, site), (site.name(), 0), x, &mut acc).await?;
    match site {
        Site::Gate => run.rq_hidden("gate", "gate", Some(l), &dims, acc),
        _ => run.rq(site.name(), Some(l), &dims, acc),
    }
}

/// `x·cos ± rot(x)·sin` for rows of heads `[t, heads, c]` whose first row is at position `offset`.
pub(crate) fn rotate(run: &Run, x: &[i32], offset: usize, inverse: bool) -> Vec<i32> {
    let (pairs, rt) = (run.d.p, run.rt);
    let row = x.len() / run.d.t;
    let sign = if inverse { -1 } else { 1 };
    let mut acc = vec![0; x.len()];
    for (t, (acc, x)) in acc.chunks_exact_mut(row).zip(x.chunks_exact(row)).enumerate() {
        let at = (offset + t) * pairs;
        let (cos, sin) = (&rt.cos[at..at + pairs], &rt.sin[at..at + pairs]);
        for (acc, x) in acc.chunks_exact_mut(2 * pairs).zip(x.chunks_exact(2 * pairs)) {
            for p in 0..pairs {
                let (x0, x1, s) = (x[p], x[pairs + p], sign * sin[p]);
                acc[p] = x0 * cos[p] - x1 * s;
                acc[pairs + p] = x1 * cos[p] + x0 * s;
            }
        }
    }
    acc
}

/// Softmax over `u ≤ offset + t` of every row of `z[g, j, t, u]`; keeps the witnesses and returns `p`.
fn attention_weights(run: &mut Run, l: usize, offset: usize, z: &[i32]) -> Result<Vec<i32>, RunError> {
    let d = run.d;
    let (keys, count) = (offset + d.t, d.g * d.j * d.t);
    let (mut weights, mut flags) = (vec![0; z.len()], vec![0; z.len()]);
    let (mut maxima, mut rows) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut acc = vec![0; z.len()];
    for i in 0..count {
        let (at, live) = (i * keys, offset + i % d.t + 1);
        let z = &z[at..at + live];
        let max = z.iter().copied().max().unwrap_or(0);
        let w = &mut weights[at..at + live];
        for ((w, flag), &z) in w.iter_mut().zip(&mut flags[at..at + live]).zip(z) {
            *w = run.rt.exp_att[(max - z) as usize];
            *flag = i32::from(z == max);
        }
        let row = softmax_row(w.iter().map(|&x| i64::from(x)).sum(), &run.rt.recip);
        acc[at..at + live].iter_mut().zip(w.iter()).for_each(|(a, &w)| *a = w.wrapping_mul(row.f));
        maxima.push(max);
        rows.push(row);
    }
    let (lead, dims) = ([d.g, d.j, d.t], [d.g, d.j, d.t, keys]);
    run.keep("att.max", Some(l), &lead, &maxima);
    run.keep("att.w", Some(l), &dims, &weights);
    run.keep("att.flag", Some(l), &dims, &flags);
    softmax_witnesses(run, "att", Some(l), &lead, &rows);
    run.rq("p", Some(l), &dims, acc)
}

/// Attention of one layer: `n1` to `o`.
async fn attention(run: &mut Run<'_>, l: usize, offset: usize, state: &mut LayerState) -> Result<Vec<i32>, RunError> {
    let d = run.d;
    let n1 = std::mem::take(&mut state.n1.n);
    let q = linear(run, l, Site::Q, &[d.g, d.j, d.c], &n1).await?;
    let k = linear(run, l, Site::K, &[d.g, d.c], &n1).await?;
    let v = linear(run, l, Site::V, &[d.g, d.c], &n1).await?;
    state.n1.n = n1;
    let (q, k) = (rotate(run, &q, offset, false), rotate(run, &k, offset, false));
    state.qr = narrow(&run.rq("qr", Some(l), &[d.t, d.g, d.j, d.c], q)?);
    state.kv.kr.extend(narrow(&run.rq("kr", Some(l), &[d.t, d.g, d.c], k)?));
    state.kv.v.extend(narrow(&v));
    let (keys, heads) = (offset + d.t, d.g * d.j);
    let mut acc = vec![0; heads * d.t * keys];
    for (h, acc) in acc.chunks_exact_mut(d.t * keys).enumerate() {
        let q = columns(&state.qr, heads * d.c, h * d.c, d.c);
        let k = columns(&state.kv.kr, d.g * d.c, h / d.j * d.c, d.c);
        gemm_slices(acc, run.coef("att", 0)?, &q, &k, keys, d.c);
    }
    let z = run.rq_hidden("att", "att", Some(l), &[d.g, d.j, d.t, keys], acc)?;
    state.p = narrow(&attention_weights(run, l, offset, &z)?);
    let mut acc = vec![0; d.t * heads * d.c];
    for h in 0..heads {
        let v = transpose16(&columns(&state.kv.v, d.g * d.c, h / d.j * d.c, d.c), keys, d.c);
        let mut out = vec![0; d.t * d.c];
        gemm_slices(&mut out, run.coef("o", 0)?, &state.p[h * d.t * keys..(h + 1) * d.t * keys], &v, d.c, keys);
        for (acc, out) in acc.chunks_exact_mut(heads * d.c).zip(out.chunks_exact(d.c)) {
            acc[h * d.c..(h + 1) * d.c].copy_from_slice(out);
        }
    }
    run.rq("o", Some(l), &[d.t, d.g, d.j, d.c], acc)
}

/// A projection added to the residual stream: `RQ(coef·h + W x + …)`.
async fn residual(run: &mut Run<'_>, l: usize, site: Site, op: &str, h: &[i32], x: &[i32]) -> Result<Vec<i32>, RunError> {
    let coef = run.coef(op, 0)? as i32;
    let mut acc: Vec<i32> = h.iter().map(|&h| h.wrapping_mul(coef)).collect();
    project(run, (l, site), (op, 1), &narrow(x), &mut acc).await?;
    run.rq(op, Some(l), &[run.d.t, run.d.d], acc)
}

/// One layer: residual stream in, residual stream out. `cache` holds the positions before `offset`.
pub(crate) async fn layer(run: &mut Run<'_>, l: usize, hin: &[i32], offset: usize, cache: KvCache) -> Result<(Vec<i32>, LayerState), RunError> {
    let d = run.d;
    run.keep("hin", Some(l), &[d.t, d.d], hin);
    let mut state = LayerState { n1: norm(run, 0, Some(l), d.t, hin)?, kv: cache, ..LayerState::default() };
    let o = attention(run, l, offset, &mut state).await?;
    let m = residual(run, l, Site::O, "m", hin, &o).await?;
    state.n2 = norm(run, 1, Some(l), d.t, &m)?;
    let n2 = std::mem::take(&mut state.n2.n);
    let z = linear(run, l, Site::Gate, &[d.f], &n2).await?;
    let lookup = |table: &[i32]| z.iter().map(|&z| table[(z + (1 << 15)) as usize]).collect::<Vec<_>>();
    (state.silu, state.dsilu) = (lookup(&run.rt.silu), lookup(&run.rt.dsilu));
    run.keep("silu", Some(l), &[d.t, d.f], &state.silu);
    run.keep("dsilu", Some(l), &[d.t, d.f], &state.dsilu);
    state.up = linear(run, l, Site::Up, &[d.f], &n2).await?;
    state.n2.n = n2;
    let coef = run.coef("act", 0)? as i32;
    let acc = state.silu.iter().zip(&state.up).map(|(&a, &b)| (a * b).wrapping_mul(coef)).collect();
    let act = run.rq("act", Some(l), &[d.t, d.f], acc)?;
    let hout = residual(run, l, Site::Down, "hout", &m, &act).await?;
    Ok((hout, state))
}

/// Embeds tokens, padded with id 0 to `run.d.t` rows.
pub(crate) fn embed(run: &Run, tokens: &[u32]) -> Vec<i32> {
    let (width, table) = (run.d.d, &run.rt.embed);
    let padded = tokens.iter().copied().chain(std::iter::repeat(0)).take(run.d.t);
    padded.flat_map(|id| &table[id as usize * width..(id as usize + 1) * width]).copied().collect()
}

/// Final norm and logits `z[s, v]` of the rows `hf` (`[slots, d]`).
pub(crate) async fn logits(run: &mut Run<'_>, slots: usize, hf: &[i32]) -> Result<(Normed, Vec<i32>), RunError> {
    let nf = norm(run, 2, None, slots, hf)?;
    let mut acc = vec![0; slots * run.d.v];
    base_product(run, &mut acc, run.coef("out", 0)?, &nf.n, &run.rt.head).await;
    let z = run.rq_hidden("out", "out", None, &[slots, run.d.v], acc)?;
    Ok((nf, z))
}

/// The lowest id among the largest logits.
pub(crate) fn argmax(row: &[i32]) -> usize {
    row.iter().enumerate().fold(0, |best, (v, &z)| if z > row[best] { v } else { best })
}

/// One live slot: it reads a position and predicts the next token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveSlot {
    /// Its number.
    pub slot: usize,
    /// The position it reads.
    pub position: usize,
    /// The token it predicts.
    pub target: usize,
}

/// The live slots of an exchange: those that predict the answer. Slot 0 reads position `first`.
fn live_slots(tokens: &[u32], prompt_len: usize, first: usize) -> Vec<LiveSlot> {
    let answer = tokens.iter().enumerate().skip(prompt_len);
    answer.map(|(i, &target)| LiveSlot { slot: i - 1 - first, position: i - 1, target: target as usize }).collect()
}

/// What a row of logits says about its target: the best of the others, and how far the target is above it.
struct Choice {
    max: i32,
    margin: i32,
    tied_below: bool,
}

fn choose(z: &[i32], target: usize) -> Choice {
    let others = || z.iter().enumerate().filter(|(v, _)| *v != target);
    let max = others().map(|(_, &z)| z).max().unwrap_or(0);
    let tied_below = others().any(|(v, &z)| v < target && z == max);
    Choice { max, margin: z[target] - max, tied_below }
}

/// Softmax over every token but the target on live slots; returns `pr[s, v]`, zero at the target.
///
/// `q - e_t` is the direction of the loss' gradient however sure the model is of the target.
fn output_probabilities(run: &mut Run, slots: &[LiveSlot], mode: Mode, z: &[i32]) -> Result<Vec<i32>, RunError> {
    let (d, vocab) = (run.d, run.rt.sem.shape.vocab);
    let (mut weights, mut acc) = (vec![0; z.len()], vec![0; z.len()]);
    let (mut maxima, mut margins, mut ties) = (vec![0; d.s], vec![0; d.s], vec![0; d.s]);
    let mut rows = vec![gadgets::SoftmaxRow::default(); d.s];
    for (number, &LiveSlot { slot, target, .. }) in slots.iter().enumerate() {
        let live = slot * d.v..slot * d.v + vocab;
        let z = &z[live.clone()];
        if mode == Mode::Greedy && argmax(z) != target {
            return Err(RunError::NotGreedy { slot: number, expected: argmax(z) as u32, found: target as u32 });
        }
        let choice = choose(z, target);
        (maxima[slot], margins[slot], ties[slot]) = (choice.max, choice.margin, i32::from(choice.tied_below));
        let w = &mut weights[live.clone()];
        let others = w.iter_mut().zip(z).enumerate().filter(|(v, _)| *v != target);
        others.for_each(|(_, (w, &z))| *w = run.rt.exp_out[(choice.max - z) as usize]);
        rows[slot] = softmax_row(w.iter().map(|&x| i64::from(x)).sum(), &run.rt.recip);
        acc[live].iter_mut().zip(w.iter()).for_each(|(a, &w)| *a = w.wrapping_mul(rows[slot].f));
    }
    for (name, values) in [("out.max", &maxima), ("out.margin", &margins), ("out.tie", &ties)] {
        run.keep(name, None, &[d.s], values);
    }
    run.keep("out.w", None, &[d.s, d.v], &weights);
    softmax_witnesses(run, "out", None, &[d.s], &rows);
    run.rq("pr", None, &[d.s, d.v], acc)
}

fn check_lengths(rt: &Runtime, tokens: &[u32], prompt_len: usize, d: &Dims, (mode, span): (Mode, Span)) -> Result<(), RunError> {
    let bad = |what, expected: String, found| Err(RunError::BadLength { what, expected, found });
    if prompt_len == 0 || prompt_len >= tokens.len() || (mode == Mode::Sample && prompt_len != 1) {
        return bad("prompt length", format!("1 to {} (1 for a sample)", tokens.len().saturating_sub(1)), prompt_len);
    }
    let limit = d.t.min(rt.sem.shape.context);
    if tokens.len() > limit {
        return bad("number of tokens", format!("at most {limit}"), tokens.len());
    }
    let slots = tokens.len() - 1 - span.first(prompt_len);
    if slots > d.s {
        return bad("predicted tokens", format!("at most {}", d.s), slots);
    }
    let own = Dims { t: d.t, s: d.s, a: d.a, k: d.k, ..Dims::new(&rt.sem, 1, 1) };
    if own != *d || d.t > rt.positions {
        return bad("padded sizes", format!("{own:?} with at most {} tokens", rt.positions), d.t);
    }
    check_tokens(rt, tokens)
}

pub(crate) fn check_tokens(rt: &Runtime, tokens: &[u32]) -> Result<(), RunError> {
    let vocab = rt.sem.shape.vocab;
    match tokens.iter().enumerate().find(|&(_, &id)| id as usize >= vocab) {
        Some((index, &id)) => Err(RunError::BadToken { index, id, vocab }),
        None => Ok(()),
    }
}

impl Runtime {
    /// Runs the whole sequence and, where slots span the exchange, the gradient of its answer's loss.
    ///
    /// `dims` are the padded sizes (`Dims::new(semantics, tokens, slots)`); more tokens or slots only add padding.
    pub fn run(&self, tokens: &[u32], prompt_len: usize, dims: Dims, mode: Mode, keep: Keep, span: Span) -> Result<Trace, RunError> {
        check_lengths(self, tokens, prompt_len, &dims, (mode, span))?;
        let mut run = Run { rt: self, d: dims, store: Store::new(keep, dims.l), desk: None };
        // A padded layer is the identity and its sketch is zero, so only full traces execute it.
        let executed = if keep == Keep::All { dims.l } else { self.sem.shape.layers };
        let mut state = ForwardState::default();
        let mut h = embed(&run, tokens);
        for l in 0..executed {
            let (hout, layer) = alone(layer(&mut run, l, &h, 0, KvCache::default()))?;
            run.keep("hout", Some(l), &[dims.t, dims.d], &hout);
            state.layers.push(layer);
            h = hout;
        }
        let slots = live_slots(tokens, prompt_len, span.first(prompt_len));
        let mut hf = vec![0; dims.s * dims.d];
        for x in &slots {
            hf[x.slot * dims.d..][..dims.d].copy_from_slice(&h[x.position * dims.d..][..dims.d]);
        }
        run.keep("hf", None, &[dims.s, dims.d], &hf);
        let (nf, z) = alone(logits(&mut run, dims.s, &hf))?;
        state.nf = nf;
        state.pr = output_probabilities(&mut run, &slots, mode, &z)?;
        if span == Span::Exchange {
            backward::backward(&mut run, &state, &slots)?;
        }
        Ok(Trace { dims, tensors: run.store.tensors, tokens: tokens.to_vec(), prompt_len })
    }

    /// Integer logits `[tokens, vocab]` at every position (exponent `out.exp_bits`).
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<i32>, RunError> {
        check_tokens(self, tokens)?;
        if tokens.is_empty() || tokens.len() > self.sem.shape.context {
            let expected = format!("1 to {}", self.sem.shape.context);
            return Err(RunError::BadLength { what: "number of tokens", expected, found: tokens.len() });
        }
        let d = Dims { t: tokens.len(), s: tokens.len(), ..Dims::new(&self.sem, 1, 1) };
        let mut run = Run { rt: self, d, store: Store::new(Keep::Nothing, d.l), desk: None };
        let mut h = embed(&run, tokens);
        for l in 0..self.sem.shape.layers {
            h = alone(layer(&mut run, l, &h, 0, KvCache::default()))?.0;
        }
        let (_, z) = alone(logits(&mut run, d.s, &h))?;
        Ok(z.chunks_exact(d.v).flat_map(|row| &row[..self.sem.shape.vocab]).copied().collect())
    }
}
