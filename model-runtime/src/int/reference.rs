//! A plain float model with the same tensors: calibrates exponents and is what the integer model is compared with.
//!
//! Gains, LoRA scales and `1/√head_dim` are folded into the matrices and the residual stream is rotated (`super::rotation`) exactly as in the
//! integer model, so a float tensor and an integer one of the same name differ only by quantisation. Axes are unpadded.

use super::rotation::Rotation;
use crate::shape::{FloatAdapter, FloatModel, ModelShape, Site};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Length of every token's gradient: `UnitLength::length`, in units of `2^-ghf.length`.
const GRADIENT_LENGTH: f32 = 15.0 / 16.0;

/// A LoRA pair with gain and scale folded in: `A [rank, in]`, `B [out, rank]`.
pub type FoldedPair = (Vec<f32>, Vec<f32>);

/// A model whose gains, scales and `1/√head_dim` are folded into its matrices, its residual stream rotated.
#[derive(Clone, Debug)]
pub struct Folded {
    /// Architecture.
    pub shape: ModelShape,
    /// `[vocab, width]`.
    pub embed: Vec<f32>,
    /// `[vocab, width]`, final gain folded in.
    pub head: Vec<f32>,
    /// Matrices by layer and site, `[out, in]`.
    pub layers: Vec<[Vec<f32>; 7]>,
    /// LoRA pairs.
    pub lora: BTreeMap<(usize, Site), FoldedPair>,
    /// LoRA rank, 0 without an adapter.
    pub rank: usize,
}

fn scale_columns(matrix: &mut [f32], gain: &[f32]) {
    for row in matrix.chunks_exact_mut(gain.len()) {
        row.iter_mut().zip(gain).for_each(|(w, g)| *w *= g);
    }
}

impl Folded {
    /// Folds a model and, optionally, an adapter.
    pub fn new(model: &FloatModel, adapter: Option<&FloatAdapter>) -> Self {
        let shape = model.shape.clone();
        let scale_q = 1.0 / (shape.head_dim as f32).sqrt();
        let mut head = model.head.clone().unwrap_or_else(|| model.embed.clone());
        scale_columns(&mut head, &model.final_norm);
        let gain = |l: usize, site: Site| match site {
            Site::Q | Site::K | Site::V => Some(&model.layers[l].attn_norm),
            Site::Gate | Site::Up => Some(&model.layers[l].ffn_norm),
            Site::O | Site::Down => None,
        };
        let out_scale = |site| if site == Site::Q { scale_q } else { 1.0 };
        let fold = |l: usize, site: Site| {
            let mut w = model.layers[l].linear[site as usize].clone();
            if let Some(gain) = gain(l, site) {
                scale_columns(&mut w, gain);
            }
            w.iter_mut().for_each(|w| *w *= out_scale(site));
            w
        };
        let layers = (0..model.layers.len()).map(|l| Site::ALL.map(|site| fold(l, site))).collect();
        let mut lora = BTreeMap::new();
        for (&(l, site), (a, b)) in adapter.iter().flat_map(|a| &a.pairs) {
            let mut a = a.clone();
            if let Some(gain) = gain(l, site) {
                scale_columns(&mut a, gain);
            }
            let scale = out_scale(site) * adapter.map_or(1.0, |a| a.scale);
            lora.insert((l, site), (a, b.iter().map(|b| b * scale).collect()));
        }
        let mut folded = Self { shape, embed: model.embed.clone(), head, layers, lora, rank: adapter.map_or(0, |a| a.shape.rank) };
        folded.rotate_stream();
        folded
    }

    /// Rotates everything that reads or writes the residual stream.
    fn rotate_stream(&mut self) {
        let rotation = Rotation::new(self.shape.width);
        rotation.rows(&mut self.embed);
        rotation.rows(&mut self.head);
        let writes = |site| matches!(site, Site::O | Site::Down);
        for layer in &mut self.layers {
            for site in Site::ALL {
                let matrix = &mut layer[site as usize];
                if writes(site) { rotation.columns(matrix) } else { rotation.rows(matrix) }
            }
        }
        for ((_, site), (a, b)) in &mut self.lora {
            if writes(*site) { rotation.columns(b) } else { rotation.rows(a) }
        }
    }
}

/// Float tensors of one sequence.
#[derive(Clone, Debug, Default)]
pub struct FloatTrace {
    /// Logits `[tokens, vocab]`.
    pub logits: Vec<f32>,
    /// Tensors by integer name, layers outermost (backward tensors in layer order too).
    pub tensors: BTreeMap<String, Vec<Vec<f32>>>,
}

impl FloatTrace {
    fn put(&mut self, name: &str, layers: usize, l: usize, data: Vec<f32>) {
        let entry = self.tensors.entry(name.to_owned()).or_insert_with(|| vec![Vec::new(); layers]);
        entry[l] = data;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (mut x, mut y) = (a.chunks_exact(16), b.chunks_exact(16));
    for (x, y) in (&mut x).zip(&mut y) {
        for i in 0..16 {
            lanes[i] += x[i] * y[i];
        }
    }
    let tail: f32 = x.remainder().iter().zip(y.remainder()).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + tail
}

/// `y[t, o] = Σ_i x[t, i]·w[o, i]`.
fn apply(x: &[f32], w: &[f32], inner: usize) -> Vec<f32> {
    let outs = w.len() / inner;
    let mut y = vec![0.0; x.len() / inner * outs];
    y.par_chunks_exact_mut(outs).zip(x.par_chunks_exact(inner)).for_each(|(y, x)| {
        y.iter_mut().zip(w.chunks_exact(inner)).for_each(|(y, w)| *y = dot(x, w));
    });
    y
}

/// `y[t, i] += Σ_o g[t, o]·w[o, i]`.
fn apply_transposed(y: &mut [f32], g: &[f32], w: &[f32], inner: usize) {
    let outs = w.len() / inner;
    y.par_chunks_exact_mut(inner).zip(g.par_chunks_exact(outs)).for_each(|(y, g)| {
        for (g, w) in g.iter().zip(w.chunks_exact(inner)).filter(|(g, _)| **g != 0.0) {
            y.iter_mut().zip(w).for_each(|(y, w)| *y += g * w);
        }
    });
}

struct Pass<'a> {
    m: &'a Folded,
    t: usize,
    out: FloatTrace,
}

impl Pass<'_> {
    fn put(&mut self, name: &str, l: usize, data: &[f32]) {
        self.out.put(name, self.m.layers.len(), l, data.to_vec());
    }

    fn get(&self, name: &str, l: usize) -> &[f32] {
        &self.out.tensors[name][l]
    }

    fn norm(&mut self, name: &str, l: usize, h: &[f32]) -> Vec<f32> {
        let (width, eps) = (self.m.shape.width, self.m.shape.norm_eps as f32);
        let inv: Vec<f32> = h.chunks_exact(width).map(|h| 1.0 / (dot(h, h) / width as f32 + eps).sqrt()).collect();
        let n: Vec<f32> = h.chunks_exact(width).zip(&inv).flat_map(|(h, f)| h.iter().map(move |h| h * f)).collect();
        self.put(&format!("{name}.inv"), l, &inv);
        self.put(name, l, &n);
        n
    }

    fn site(&mut self, l: usize, site: Site, x: &[f32]) -> Vec<f32> {
        let inner = self.m.shape.site_dims(site).1;
        let mut y = apply(x, &self.m.layers[l][site as usize], inner);
        if let Some((a, b)) = self.m.lora.get(&(l, site)) {
            let u = apply(x, a, inner);
            y.iter_mut().zip(apply(&u, b, self.m.rank)).for_each(|(y, z)| *y += z);
            self.put(&format!("u{}", site.name()), l, &u);
        }
        y
    }

    /// Gradient at a site's input from that at its output, added to `y`.
    fn site_back(&mut self, l: usize, site: Site, g: &[f32], y: &mut [f32]) {
        let inner = self.m.shape.site_dims(site).1;
        apply_transposed(y, g, &self.m.layers[l][site as usize], inner);
        if let Some((a, b)) = self.m.lora.get(&(l, site)) {
            let mut e = vec![0.0; self.t * self.m.rank];
            apply_transposed(&mut e, g, b, self.m.rank);
            apply_transposed(y, &e, a, inner);
            self.put(&format!("e{}", site.name()), l, &e);
        }
    }

    fn rotate(&self, x: &[f32], inverse: bool) -> Vec<f32> {
        let (dim, pairs) = (self.m.shape.head_dim, self.m.shape.head_dim / 2);
        let row = x.len() / self.t;
        let mut y = x.to_vec();
        for (t, y) in y.chunks_exact_mut(row).enumerate() {
            for y in y.chunks_exact_mut(dim) {
                for p in 0..pairs {
                    let angle = t as f64 * self.m.shape.rope_theta.powf(-2.0 * p as f64 / dim as f64);
                    let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                    let sin = if inverse { -sin } else { sin };
                    (y[p], y[pairs + p]) = (y[p] * cos - y[pairs + p] * sin, y[pairs + p] * cos + y[p] * sin);
                }
            }
        }
        y
    }

    fn head(&self, x: &[f32], heads: usize, h: usize, t: usize) -> std::ops::Range<usize> {
        debug_assert_eq!(x.len(), self.t * heads * self.m.shape.head_dim);
        let dim = self.m.shape.head_dim;
        (t * heads + h) * dim..(t * heads + h + 1) * dim
    }

    fn attention(&mut self, l: usize, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let (heads, kv, t_len) = (self.m.shape.heads, self.m.shape.kv_heads, self.t);
        let mut scores = Vec::with_capacity(heads * t_len * t_len / 2);
        let mut probs = vec![0.0; heads * t_len * t_len];
        let mut o = vec![0.0; q.len()];
        for h in 0..heads {
            let g = h * kv / heads;
            for t in 0..t_len {
                let q = &q[self.head(q, heads, h, t)];
                let z: Vec<f32> = (0..=t).map(|u| dot(q, &k[self.head(k, kv, g, u)])).collect();
                let max = z.iter().copied().fold(f32::MIN, f32::max);
                let sum: f32 = z.iter().map(|z| (z - max).exp()).sum();
                let range = self.head(&o, heads, h, t);
                for (u, z) in z.iter().enumerate() {
                    let p = (z - max).exp() / sum;
                    probs[(h * t_len + t) * t_len + u] = p;
                    let v = &v[self.head(v, kv, g, u)];
                    o[range.clone()].iter_mut().zip(v).for_each(|(o, v)| *o += p * v);
                }
                scores.extend(z);
            }
        }
        self.put("att", l, &scores);
        self.put("p", l, &probs);
        o
    }

    fn forward_layer(&mut self, l: usize, hin: &[f32]) -> Vec<f32> {
        self.put("hin", l, hin);
        let n1 = self.norm("n1", l, hin);
        let (q, k, v) = (self.site(l, Site::Q, &n1), self.site(l, Site::K, &n1), self.site(l, Site::V, &n1));
        let (qr, kr) = (self.rotate(&q, false), self.rotate(&k, false));
        let o = self.attention(l, &qr, &kr, &v);
        let mut m = self.site(l, Site::O, &o);
        m.iter_mut().zip(hin).for_each(|(m, h)| *m += h);
        let n2 = self.norm("n2", l, &m);
        let (gate, up) = (self.site(l, Site::Gate, &n2), self.site(l, Site::Up, &n2));
        let sigmoid = |z: f32| 1.0 / (1.0 + (-z).exp());
        let silu: Vec<f32> = gate.iter().map(|&z| z * sigmoid(z)).collect();
        let act: Vec<f32> = silu.iter().zip(&up).map(|(a, b)| a * b).collect();
        let mut hout = self.site(l, Site::Down, &act);
        hout.iter_mut().zip(&m).for_each(|(h, m)| *h += m);
        for (name, data) in [
            ("q", &q),
            ("k", &k),
            ("v", &v),
            ("qr", &qr),
            ("kr", &kr),
            ("o", &o),
            ("m", &m),
            ("gate", &gate),
            ("up", &up),
            ("silu", &silu),
            ("act", &act),
            ("hout", &hout),
        ] {
            self.put(name, l, data);
        }
        hout
    }

    fn norm_back(&mut self, name: &str, l: usize, dn: &[f32], lead: &[f32]) -> Vec<f32> {
        let width = self.m.shape.width;
        let n = self.get(name, l);
        let rows = dn.chunks_exact(width).zip(n.chunks_exact(width));
        let v: Vec<f32> = rows
            .flat_map(|(dn, n)| {
                let mean = dot(dn, n) / width as f32;
                dn.iter().zip(n).map(move |(d, n)| d - n * mean)
            })
            .collect();
        let inv = self.get(&format!("{name}.inv"), l).to_vec();
        let scaled = v.chunks_exact(width).zip(&inv).flat_map(|(v, f)| v.iter().map(move |v| v * f));
        let out = scaled.zip(lead).map(|(x, g)| x + g).collect();
        self.put(&format!("{name}.dn"), l, dn);
        self.put(&format!("{name}.v"), l, &v);
        out
    }

    fn attention_back(&mut self, l: usize, grad_o: &[f32]) -> [Vec<f32>; 3] {
        let (heads, kv, n) = (self.m.shape.heads, self.m.shape.kv_heads, self.t);
        let (qr, kr, v, p) = (self.get("qr", l), self.get("kr", l), self.get("v", l), self.get("p", l));
        let (mut dq, mut dk, mut dv) = (vec![0.0; qr.len()], vec![0.0; kr.len()], vec![0.0; v.len()]);
        let (mut all_dp, mut all_ds) = (Vec::new(), Vec::new());
        let axpy = |y: &mut [f32], a: f32, x: &[f32]| y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
        for h in 0..heads {
            let g = h * kv / heads;
            for t in 0..n {
                let at = self.head(qr, heads, h, t);
                let (p, go) = (&p[(h * n + t) * n..(h * n + t) * n + t + 1], &grad_o[at.clone()]);
                let dp: Vec<f32> = (0..n).map(|u| dot(go, &v[self.head(v, kv, g, u)])).collect();
                let mean = dot(p, &dp[..=t]);
                for u in 0..=t {
                    let (ds, key) = (p[u] * (dp[u] - mean), self.head(kr, kv, g, u));
                    axpy(&mut dq[at.clone()], ds, &kr[key.clone()]);
                    axpy(&mut dk[key.clone()], ds, &qr[at.clone()]);
                    axpy(&mut dv[key], p[u], go);
                    all_ds.push(ds);
                }
                all_dp.extend(dp);
            }
        }
        let out = [self.rotate(&dq, true), self.rotate(&dk, true), dv.clone()];
        for (name, data) in [("dp", &all_dp), ("ds", &all_ds), ("dqr", &dq), ("dkr", &dk), ("dq", &out[0]), ("dk", &out[1]), ("dv", &dv)] {
            self.put(name, l, data);
        }
        out
    }

    fn backward_layer(&mut self, l: usize, gout: &[f32]) -> Vec<f32> {
        let (t, s) = (self.t, self.m.shape.clone());
        self.put("gout", l, gout);
        let mut dact = vec![0.0; t * s.ff];
        self.site_back(l, Site::Down, gout, &mut dact);
        let times = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f32>>();
        let (dup, dgw) = (times(&dact, self.get("silu", l)), times(&dact, self.get("up", l)));
        let slope = |&z: &f32| {
            let y = 1.0 / (1.0 + (-z).exp());
            y * (1.0 + z * (1.0 - y))
        };
        let dgate = times(&dgw, &self.get("gate", l).iter().map(slope).collect::<Vec<_>>());
        let mut dn = vec![0.0; t * s.width];
        self.site_back(l, Site::Gate, &dgate, &mut dn);
        self.site_back(l, Site::Up, &dup, &mut dn);
        let gm = self.norm_back("n2", l, &dn, gout);
        let mut grad_o = vec![0.0; t * s.heads * s.head_dim];
        self.site_back(l, Site::O, &gm, &mut grad_o);
        let [dq, dk, dv] = self.attention_back(l, &grad_o);
        let mut dn = vec![0.0; t * s.width];
        self.site_back(l, Site::Q, &dq, &mut dn);
        self.site_back(l, Site::K, &dk, &mut dn);
        self.site_back(l, Site::V, &dv, &mut dn);
        let gin = self.norm_back("n1", l, &dn, &gm);
        let named = [("dact", &dact), ("dup", &dup), ("dgw", &dgw), ("dgate", &dgate), ("gm", &gm), ("do", &grad_o), ("gin", &gin)];
        for (name, data) in named {
            self.put(name, l, data);
        }
        gin
    }
}

/// `q - e_t` of a row of logits: `q` is the softmax over every token but the target.
fn loss_gradient(z: &[f32], target: usize, out: &mut [f32]) {
    let others = || z.iter().enumerate().filter(|(v, _)| *v != target);
    let max = others().map(|(_, &z)| z).fold(f32::MIN, f32::max);
    let sum: f32 = others().map(|(_, z)| (z - max).exp()).sum();
    out.iter_mut().zip(z).for_each(|(d, z)| *d = (z - max).exp() / sum);
    out[target] = -1.0;
}

/// Runs the float model; with `prompt_len` also the gradient of `-Σ log p(tokens[t])` over `t ≥ prompt_len`, each token's part brought to the
/// integer model's length where it enters the residual stream.
pub fn run(model: &Folded, tokens: &[u32], prompt_len: Option<usize>) -> FloatTrace {
    let (width, vocab, layers) = (model.shape.width, model.shape.vocab, model.layers.len());
    let mut pass = Pass { m: model, t: tokens.len(), out: FloatTrace::default() };
    let mut h: Vec<f32> = tokens.iter().flat_map(|&id| &model.embed[id as usize * width..(id as usize + 1) * width]).copied().collect();
    for l in 0..layers {
        h = pass.forward_layer(l, &h);
    }
    let nf = pass.norm("nf", 0, &h);
    pass.out.logits = apply(&nf, &model.head, width);
    if let Some(first) = prompt_len.filter(|&p| p >= 1 && p < tokens.len()) {
        let mut dz = vec![0.0; tokens.len() * vocab];
        for s in first - 1..tokens.len() - 1 {
            let row = s * vocab..(s + 1) * vocab;
            loss_gradient(&pass.out.logits[row.clone()], tokens[s + 1] as usize, &mut dz[row]);
        }
        let mut dn = vec![0.0; tokens.len() * width];
        apply_transposed(&mut dn, &dz, &model.head, width);
        let zero = vec![0.0; dn.len()];
        pass.norm_back("nf", 0, &dn, &zero);
        let mut g = pass.get("nf.v", 0).to_vec();
        for row in g.chunks_exact_mut(width) {
            let length = dot(row, row).sqrt();
            row.iter_mut().filter(|_| length > 0.0).for_each(|x| *x *= GRADIENT_LENGTH / length);
        }
        for l in (0..layers).rev() {
            g = pass.backward_layer(l, &g);
        }
    }
    pass.out
}
