//! The float forward and backward pass of a model with a LoRA adapter over packed sequences, written out.
//!
//! Training of adapters, retraining many times over and every float method of attribution use it: the gradient that enters the residual stream
//! is the caller's, and what is done with each site's gradient too. [`super::Net`] is the same function in candle; a test compares the two.

use super::gemm::{add_times, add_times_transposed, times_transposed};
use super::{TrainError, float::check_tokens};
use crate::shape::{FloatAdapter, FloatModel, ModelShape, Site};

/// Sequences one after another, without padding.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    ids: Vec<u32>,
    /// Where each sequence starts, and the end.
    starts: Vec<usize>,
}

impl Batch {
    /// Packs sequences.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self { ids: Vec::new(), starts: vec![0] };
        for sequence in sequences {
            batch.ids.extend_from_slice(sequence);
            batch.starts.push(batch.ids.len());
        }
        batch
    }

    /// Tokens in all.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Where each sequence's tokens lie.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.starts.windows(2).map(|w| w[0]..w[1])
    }
}

/// A model ready to run.
pub struct Pass<'a> {
    /// The model.
    pub model: &'a FloatModel,
    /// Cosines and sines `[context, head_dim / 2]`.
    rotary: Vec<(f32, f32)>,
}

/// A normalised stream: `normal = h / rms`, and the factor.
#[derive(Clone, Debug, Default)]
pub struct Normalised {
    /// `h · factor`, `[rows, width]`.
    pub normal: Vec<f32>,
    /// `1 / rms`, `[rows]`.
    pub factor: Vec<f32>,
}

/// What one layer leaves for its backward pass.
#[derive(Clone, Debug, Default)]
struct Layer {
    norms: [Normalised; 2],
    /// Inputs of q, k, v; o; gate, up; down.
    inputs: [Vec<f32>; 4],
    /// `x·Aᵀ` by site; empty without a branch.
    branches: [Vec<f32>; 7],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Attention's probabilities, sequence by sequence, `[heads, tokens, tokens]`.
    p: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

/// A forward run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    layers: Vec<Layer>,
    /// The residual stream after the last layer, `[rows, width]`.
    pub stream: Vec<f32>,
    /// The same, normalised.
    pub last: Normalised,
}

/// The gradient at one site.
#[derive(Clone, Copy, Debug)]
pub struct SiteGradient<'a> {
    /// Layer.
    pub layer: usize,
    /// Site.
    pub site: Site,
    /// The site's input, `[rows, in]`.
    pub x: &'a [f32],
    /// `x·Aᵀ`, `[rows, rank]`.
    pub u: &'a [f32],
    /// Gradient at the site's output, `[rows, out]`.
    pub dy: &'a [f32],
    /// `scale · dy·B`, `[rows, rank]`.
    pub e: &'a [f32],
}

fn input_of(site: Site) -> usize {
    match site {
        Site::Q | Site::K | Site::V => 0,
        Site::O => 1,
        Site::Gate | Site::Up => 2,
        Site::Down => 3,
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (mut x, mut y) = (a.chunks_exact(16), b.chunks_exact(16));
    for (x, y) in (&mut x).zip(&mut y) {
        lanes.iter_mut().zip(x.iter().zip(y)).for_each(|(lane, (x, y))| *lane += x * y);
    }
    lanes.iter().sum::<f32>() + x.remainder().iter().zip(y.remainder()).map(|(a, b)| a * b).sum::<f32>()
}

fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

/// The row's softmax in place; returns `log Σ exp`.
pub fn softmax(row: &mut [f32]) -> f32 {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    row.iter_mut().for_each(|z| *z = (*z - max).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|z| *z /= sum);
    max + sum.ln()
}

fn normalise(h: &[f32], shape: &ModelShape) -> Normalised {
    let (width, eps) = (shape.width, shape.norm_eps as f32);
    let factor: Vec<f32> = h.chunks_exact(width).map(|h| 1.0 / (dot(h, h) / width as f32 + eps).sqrt()).collect();
    let normal = h.chunks_exact(width).zip(&factor).flat_map(|(h, f)| h.iter().map(move |h| h * f)).collect();
    Normalised { normal, factor }
}

fn times_gain(normal: &[f32], gain: &[f32]) -> Vec<f32> {
    normal.chunks_exact(gain.len()).flat_map(|n| n.iter().zip(gain).map(|(n, g)| n * g)).collect()
}

impl Normalised {
    /// `dn − normal · mean(dn · normal)` where `dn = dx · gain`: the gradient at the stream before the factor.
    fn before_factor(&self, dx: &[f32], gain: &[f32]) -> Vec<f32> {
        let width = gain.len();
        let mut v = times_gain(dx, gain);
        for (v, n) in v.chunks_exact_mut(width).zip(self.normal.chunks_exact(width)) {
            let mean = dot(v, n) / width as f32;
            add_scaled(v, -mean, n);
        }
        v
    }

    fn backward(&self, dx: &[f32], gain: &[f32], g: &mut [f32]) {
        let width = gain.len();
        let v = self.before_factor(dx, gain);
        for ((g, v), f) in g.chunks_exact_mut(width).zip(v.chunks_exact(width)).zip(&self.factor) {
            add_scaled(g, *f, v);
        }
    }
}

impl<'a> Pass<'a> {
    /// Prepares a model.
    pub fn new(model: &'a FloatModel) -> Self {
        let half = model.shape.head_dim / 2;
        let angle = |i: usize| (i / half) as f64 * libm::pow(model.shape.rope_theta, -2.0 * (i % half) as f64 / model.shape.head_dim as f64);
        let rotary = (0..model.shape.context * half).map(|i| (libm::cos(angle(i)) as f32, libm::sin(angle(i)) as f32)).collect();
        Self { model, rotary }
    }

    fn site(&self, adapter: Option<&FloatAdapter>, layer: &mut Layer, l: usize, site: Site) -> Vec<f32> {
        let inner = self.model.shape.site_dims(site).1;
        let x = &layer.inputs[input_of(site)];
        let mut y = times_transposed(x, &self.model.layers[l].linear[site as usize], inner);
        if let Some((adapter, (a, b))) = adapter.and_then(|ad| Some((ad, ad.pairs.get(&(l, site))?))) {
            let u = times_transposed(x, a, inner);
            add_times_transposed(&mut y, &u, b, adapter.shape.rank, adapter.scale);
            layer.branches[site as usize] = u;
        }
        y
    }

    /// Rotates `[rows, heads · head_dim]`, or back.
    fn rotate(&self, batch: &Batch, x: &mut [f32], back: bool) {
        let (dim, half) = (self.model.shape.head_dim, self.model.shape.head_dim / 2);
        let row = x.len() / batch.rows().max(1);
        for range in batch.ranges() {
            for (t, x) in x[range.start * row..range.end * row].chunks_exact_mut(row).enumerate() {
                let table = &self.rotary[t * half..(t + 1) * half];
                for head in x.chunks_exact_mut(dim) {
                    let (a, b) = head.split_at_mut(half);
                    for ((a, b), &(cos, sin)) in a.iter_mut().zip(b).zip(table) {
                        let sin = if back { -sin } else { sin };
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        }
    }

    /// Calls `visit` with each query position: the ranges of its query, of the keys' column, its sequence's start, and its row of `p`.
    fn each_query(&self, batch: &Batch, mut visit: impl FnMut(Query)) {
        let s = &self.model.shape;
        let (dim, q_row, k_row) = (s.head_dim, s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let mut p = 0;
        for range in batch.ranges() {
            for h in 0..s.heads {
                for t in 0..range.len() {
                    let q = (range.start + t) * q_row + h * dim;
                    let key = range.start * k_row + h * s.kv_heads / s.heads * dim;
                    visit(Query { q: q..q + dim, key, k_row, dim, seen: t + 1, p });
                    p += t + 1;
                }
            }
        }
    }

    fn attention(&self, batch: &Batch, layer: &mut Layer) -> Vec<f32> {
        let mut o = vec![0.0; layer.q.len()];
        let scale = 1.0 / (self.model.shape.head_dim as f32).sqrt();
        let mut p = std::mem::take(&mut layer.p);
        self.each_query(batch, |at| {
            let q = &layer.q[at.q.clone()];
            p.extend((0..at.seen).map(|u| scale * dot(q, &layer.k[at.key(u)])));
            softmax(&mut p[at.p..]);
            for u in 0..at.seen {
                add_scaled(&mut o[at.q.clone()], p[at.p + u], &layer.v[at.key(u)]);
            }
        });
        layer.p = p;
        o
    }

    fn layer(&self, adapter: Option<&FloatAdapter>, batch: &Batch, l: usize, h: &mut [f32]) -> Layer {
        let (weights, mut layer) = (&self.model.layers[l], Layer::default());
        layer.norms[0] = normalise(h, &self.model.shape);
        layer.inputs[0] = times_gain(&layer.norms[0].normal, &weights.attn_norm);
        layer.q = self.site(adapter, &mut layer, l, Site::Q);
        layer.k = self.site(adapter, &mut layer, l, Site::K);
        layer.v = self.site(adapter, &mut layer, l, Site::V);
        self.rotate(batch, &mut layer.q, false);
        self.rotate(batch, &mut layer.k, false);
        layer.inputs[1] = self.attention(batch, &mut layer);
        add(h, &self.site(adapter, &mut layer, l, Site::O));
        layer.norms[1] = normalise(h, &self.model.shape);
        layer.inputs[2] = times_gain(&layer.norms[1].normal, &weights.ffn_norm);
        layer.gate = self.site(adapter, &mut layer, l, Site::Gate);
        layer.up = self.site(adapter, &mut layer, l, Site::Up);
        layer.inputs[3] = layer.gate.iter().zip(&layer.up).map(|(g, u)| g * sigmoid(*g) * u).collect();
        add(h, &self.site(adapter, &mut layer, l, Site::Down));
        layer
    }

    /// Runs forward. Every token must be in the vocabulary and every sequence within the context.
    pub fn forward(&self, adapter: Option<&FloatAdapter>, batch: &Batch) -> Result<Run, TrainError> {
        let width = self.model.shape.width;
        batch.ranges().try_for_each(|r| check_tokens(&self.model.shape, &batch.ids[r]))?;
        let mut h: Vec<f32> = batch.ids.iter().flat_map(|&id| &self.model.embed[id as usize * width..(id as usize + 1) * width]).copied().collect();
        let layers = (0..self.model.layers.len()).map(|l| self.layer(adapter, batch, l, &mut h)).collect();
        let last = normalise(&h, &self.model.shape);
        Ok(Run { layers, stream: h, last })
    }

    fn head(&self) -> &[f32] {
        self.model.head.as_ref().unwrap_or(&self.model.embed)
    }

    /// Logits `[rows, vocab]`.
    pub fn logits(&self, run: &Run) -> Vec<f32> {
        times_transposed(&times_gain(&run.last.normal, &self.model.final_norm), self.head(), self.model.shape.width)
    }

    /// The gradient at the residual stream, before the final norm's factor, from that of the logits.
    pub fn before_factor(&self, run: &Run, dz: &[f32]) -> Vec<f32> {
        let mut dx = vec![0.0; run.stream.len()];
        add_times(&mut dx, dz, self.head(), self.model.shape.vocab, 1.0);
        run.last.before_factor(&dx, &self.model.final_norm)
    }

    /// Runs backward from `g`, the gradient at the residual stream after the last layer; `visit` sees every site with a branch, last layer first.
    pub fn backward(&self, adapter: &FloatAdapter, batch: &Batch, run: &Run, mut g: Vec<f32>, visit: &mut dyn FnMut(SiteGradient)) {
        for (l, layer) in run.layers.iter().enumerate().rev() {
            let mut back = Backward { pass: self, adapter, layer, l, visit };
            back.feed_forward(&mut g);
            back.attention(batch, &mut g);
        }
    }
}

/// Where one query position's values lie.
struct Query {
    q: std::ops::Range<usize>,
    key: usize,
    k_row: usize,
    dim: usize,
    /// Keys that it sees.
    seen: usize,
    /// Start of its probabilities.
    p: usize,
}

impl Query {
    fn key(&self, u: usize) -> std::ops::Range<usize> {
        self.key + u * self.k_row..self.key + u * self.k_row + self.dim
    }
}

/// One layer's backward pass.
struct Backward<'a, 'b> {
    pass: &'a Pass<'a>,
    adapter: &'a FloatAdapter,
    layer: &'a Layer,
    l: usize,
    visit: &'b mut dyn FnMut(SiteGradient),
}

impl Backward<'_, '_> {
    /// Adds the gradient at a site's input to `dx`.
    fn site(&mut self, site: Site, dy: &[f32], dx: &mut [f32]) {
        let outs = self.pass.model.shape.site_dims(site).0;
        add_times(dx, dy, &self.pass.model.layers[self.l].linear[site as usize], outs, 1.0);
        let Some((a, b)) = self.adapter.pairs.get(&(self.l, site)) else { return };
        let rank = self.adapter.shape.rank;
        let mut e = vec![0.0; dy.len() / outs * rank];
        add_times(&mut e, dy, b, outs, self.adapter.scale);
        add_times(dx, &e, a, rank, 1.0);
        let (x, u) = (&self.layer.inputs[input_of(site)], &self.layer.branches[site as usize]);
        (self.visit)(SiteGradient { layer: self.l, site, x, u, dy, e: &e });
    }

    fn feed_forward(&mut self, g: &mut [f32]) {
        let layer = self.layer;
        let mut dact = vec![0.0; layer.gate.len()];
        self.site(Site::Down, g, &mut dact);
        let (mut dgate, mut dup) = (dact.clone(), dact);
        for ((dgate, dup), (&z, &up)) in dgate.iter_mut().zip(&mut dup).zip(layer.gate.iter().zip(&layer.up)) {
            let y = sigmoid(z);
            *dgate *= up * y * (1.0 + z * (1.0 - y));
            *dup *= z * y;
        }
        let mut dx = vec![0.0; g.len()];
        self.site(Site::Gate, &dgate, &mut dx);
        self.site(Site::Up, &dup, &mut dx);
        layer.norms[1].backward(&dx, &self.pass.model.layers[self.l].ffn_norm, g);
    }

    fn attention(&mut self, batch: &Batch, g: &mut [f32]) {
        let layer = self.layer;
        let mut d_o = vec![0.0; layer.q.len()];
        self.site(Site::O, g, &mut d_o);
        let (mut dq, mut dk, mut dv) = (vec![0.0; layer.q.len()], vec![0.0; layer.k.len()], vec![0.0; layer.v.len()]);
        let scale = 1.0 / (self.pass.model.shape.head_dim as f32).sqrt();
        let mut dp = Vec::new();
        self.pass.each_query(batch, |at| {
            let (p, go) = (&layer.p[at.p..at.p + at.seen], &d_o[at.q.clone()]);
            dp.clear();
            dp.extend((0..at.seen).map(|u| dot(go, &layer.v[at.key(u)])));
            let mean = dot(p, &dp);
            for u in 0..at.seen {
                let (ds, key) = (scale * p[u] * (dp[u] - mean), at.key(u));
                add_scaled(&mut dq[at.q.clone()], ds, &layer.k[key.clone()]);
                add_scaled(&mut dk[key.clone()], ds, &layer.q[at.q.clone()]);
                add_scaled(&mut dv[key], p[u], go);
            }
        });
        self.pass.rotate(batch, &mut dq, true);
        self.pass.rotate(batch, &mut dk, true);
        let mut dx = vec![0.0; g.len()];
        self.site(Site::Q, &dq, &mut dx);
        self.site(Site::K, &dk, &mut dx);
        self.site(Site::V, &dv, &mut dx);
        layer.norms[0].backward(&dx, &self.pass.model.layers[self.l].attn_norm, g);
    }
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
