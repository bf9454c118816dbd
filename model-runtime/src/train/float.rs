//! The float Llama forward pass in candle: RMS norms, rotate-half rotary embeddings, grouped-query attention, SwiGLU, LoRA branches.
//!
//! It is generic over constants and variables, so it serves training of adapters, training of base models and the float reference.

use super::{TrainError, parameter};
use crate::shape::{FloatAdapter, FloatModel, ModelShape, Site};
use candle_core::{D, Device, Result as CandleResult, Tensor, Var};
use candle_nn::ops::{log_softmax, softmax};
use std::collections::BTreeMap;

/// A LoRA branch: `A [rank, in]`, `B [out, rank]`.
pub(crate) type Branch = (Tensor, Tensor);

/// One layer's tensors.
pub(crate) struct NetLayer {
    pub(crate) attn_norm: Tensor,
    pub(crate) ffn_norm: Tensor,
    pub(crate) linear: [Tensor; 7],
    pub(crate) lora: [Option<Branch>; 7],
}

/// A model as candle tensors, any of which may be a variable.
pub struct Net {
    pub(crate) shape: ModelShape,
    pub(crate) embed: Tensor,
    pub(crate) layers: Vec<NetLayer>,
    pub(crate) final_norm: Tensor,
    pub(crate) head: Option<Tensor>,
    pub(crate) scale: f64,
}

/// What depends on the number of tokens only.
struct Positions {
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
}

/// A constant tensor on the CPU.
pub(crate) fn constant(values: &[f32], shape: &[usize]) -> CandleResult<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)
}

impl Net {
    /// A model and possibly an adapter, all constants.
    pub fn new(model: &FloatModel, adapter: Option<&FloatAdapter>) -> CandleResult<Self> {
        let make = |values: &[f32], shape: &[usize]| constant(values, shape);
        let mut net = Self::from_model(model, make)?;
        if let Some(adapter) = adapter {
            net.attach(adapter, make)?;
        }
        Ok(net)
    }

    /// A model whose tensors `make` makes.
    pub(crate) fn from_model(model: &FloatModel, mut make: impl FnMut(&[f32], &[usize]) -> CandleResult<Tensor>) -> CandleResult<Self> {
        let s = &model.shape;
        let mut layers = Vec::with_capacity(s.layers);
        for layer in &model.layers {
            let mut linear = Vec::with_capacity(7);
            for site in Site::ALL {
                let (rows, columns) = s.site_dims(site);
                linear.push(make(&layer.linear[site as usize], &[rows, columns])?);
            }
            let linear = linear.try_into().map_err(|_| candle_core::Error::Msg("seven linear layers".into()))?;
            let (attn_norm, ffn_norm) = (make(&layer.attn_norm, &[s.width])?, make(&layer.ffn_norm, &[s.width])?);
            layers.push(NetLayer { attn_norm, ffn_norm, linear, lora: Default::default() });
        }
        let table = [s.vocab, s.width];
        Ok(Self {
            embed: make(&model.embed, &table)?,
            layers,
            final_norm: make(&model.final_norm, &[s.width])?,
            head: model.head.as_ref().map(|h| make(h, &table)).transpose()?,
            scale: 0.0,
            shape: s.clone(),
        })
    }

    /// Adds an adapter's branches, whose tensors `make` makes (A then B, layer by layer, in canonical order of sites).
    pub(crate) fn attach(&mut self, adapter: &FloatAdapter, mut make: impl FnMut(&[f32], &[usize]) -> CandleResult<Tensor>) -> CandleResult<()> {
        self.scale = f64::from(adapter.scale);
        for (&(layer, site), (a, b)) in &adapter.pairs {
            let (rows, columns) = self.shape.site_dims(site);
            let branch = (make(a, &[adapter.shape.rank, columns])?, make(b, &[rows, adapter.shape.rank])?);
            let missing = || candle_core::Error::Msg(format!("the adapter has a layer {layer}, the model does not"));
            self.layers.get_mut(layer).ok_or_else(missing)?.lora[site as usize] = Some(branch);
        }
        Ok(())
    }

    /// `[batch, tokens]` ids to `[batch, tokens, width]`, after the final norm.
    pub fn hidden(&self, ids: &Tensor) -> CandleResult<Tensor> {
        self.final_norm(&self.stream(ids)?)
    }

    /// `[batch, tokens]` ids to the residual stream after the last layer, `[batch, tokens, width]`.
    pub(crate) fn stream(&self, ids: &Tensor) -> CandleResult<Tensor> {
        let (batch, tokens) = ids.dims2()?;
        let positions = Positions::new(&self.shape, tokens)?;
        let mut h = self.embed.index_select(&ids.flatten_all()?, 0)?.reshape((batch, tokens, self.shape.width))?;
        for layer in &self.layers {
            let n1 = self.norm(&h, &layer.attn_norm)?;
            h = (&h + self.attention(layer, &n1, &positions)?)?;
            let n2 = self.norm(&h, &layer.ffn_norm)?;
            h = (&h + self.feed_forward(layer, &n2)?)?;
        }
        Ok(h)
    }

    /// `[n, width]` from [`Net::hidden`] to logits `[n, vocab]`.
    pub fn logits(&self, hidden: &Tensor) -> CandleResult<Tensor> {
        hidden.matmul(&self.head.as_ref().unwrap_or(&self.embed).t()?)
    }

    pub(crate) fn final_norm(&self, stream: &Tensor) -> CandleResult<Tensor> {
        self.norm(stream, &self.final_norm)
    }

    fn norm(&self, x: &Tensor, gain: &Tensor) -> CandleResult<Tensor> {
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        x.broadcast_div(&(variance + self.shape.norm_eps)?.sqrt()?)?.broadcast_mul(gain)
    }

    /// `x [batch, tokens, in]` through a site's matrix and its branch.
    fn site(&self, layer: &NetLayer, site: Site, x: &Tensor) -> CandleResult<Tensor> {
        let (batch, tokens, columns) = x.dims3()?;
        let flat = x.reshape((batch * tokens, columns))?;
        let mut y = flat.matmul(&layer.linear[site as usize].t()?)?;
        if let Some((a, b)) = &layer.lora[site as usize] {
            y = (y + (flat.matmul(&a.t()?)?.matmul(&b.t()?)? * self.scale)?)?;
        }
        y.reshape((batch, tokens, ()))
    }

    fn attention(&self, layer: &NetLayer, x: &Tensor, positions: &Positions) -> CandleResult<Tensor> {
        let s = &self.shape;
        let (batch, tokens, _) = x.dims3()?;
        let heads = |site, n: usize| self.site(layer, site, x)?.reshape((batch, tokens, n, s.head_dim))?.transpose(1, 2)?.contiguous();
        let q = positions.rotate(&heads(Site::Q, s.heads)?)?;
        let k = positions.rotate(&heads(Site::K, s.kv_heads)?)?;
        let v = heads(Site::V, s.kv_heads)?;
        // Queries of one group, stacked: [batch, kv heads, group · tokens, head dim].
        let group = s.heads / s.kv_heads;
        let q = q.reshape((batch, s.kv_heads, group * tokens, s.head_dim))?;
        let scores = (q.matmul(&k.t()?)? * (1.0 / (s.head_dim as f64).sqrt()))?;
        let scores = scores.reshape((batch, s.heads, tokens, tokens))?.broadcast_add(&positions.mask)?;
        let p = softmax(&scores, D::Minus1)?.reshape((batch, s.kv_heads, group * tokens, tokens))?;
        let o = p.matmul(&v)?.reshape((batch, s.heads, tokens, s.head_dim))?;
        self.site(layer, Site::O, &o.transpose(1, 2)?.reshape((batch, tokens, s.heads * s.head_dim))?)
    }

    fn feed_forward(&self, layer: &NetLayer, x: &Tensor) -> CandleResult<Tensor> {
        let gate = self.site(layer, Site::Gate, x)?.silu()?;
        self.site(layer, Site::Down, &(gate * self.site(layer, Site::Up, x)?)?)
    }
}

impl Positions {
    fn new(shape: &ModelShape, tokens: usize) -> CandleResult<Self> {
        let half = shape.head_dim / 2;
        let frequency = |p: usize| libm::pow(shape.rope_theta, -2.0 * p as f64 / shape.head_dim as f64);
        let angles: Vec<f64> = (0..tokens * half).map(|i| (i / half) as f64 * frequency(i % half)).collect();
        let table = |f: fn(f64) -> f64| constant(&angles.iter().map(|&a| f(a) as f32).collect::<Vec<_>>(), &[tokens, half]);
        let mask = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
        let mask = constant(&(0..tokens * tokens).map(mask).collect::<Vec<_>>(), &[tokens, tokens])?;
        Ok(Self { cos: table(libm::cos)?, sin: table(libm::sin)?, mask })
    }

    /// Rotates channels `(p, p + head_dim/2)` of `[batch, heads, tokens, head_dim]`.
    fn rotate(&self, x: &Tensor) -> CandleResult<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let first = (a.broadcast_mul(&self.cos)? - b.broadcast_mul(&self.sin)?)?;
        let second = (b.broadcast_mul(&self.cos)? + a.broadcast_mul(&self.sin)?)?;
        Tensor::cat(&[first, second], D::Minus1)
    }
}

/// Refuses sequences the model can't run on.
pub(crate) fn check_tokens(shape: &ModelShape, tokens: &[u32]) -> Result<(), TrainError> {
    if tokens.is_empty() || tokens.len() > shape.context {
        return Err(parameter("tokens", format!("1 to {} tokens", shape.context), tokens.len()));
    }
    match tokens.iter().enumerate().find(|(_, id)| **id as usize >= shape.vocab) {
        Some((position, &id)) => Err(TrainError::Token { position, vocab: shape.vocab, id }),
        None => Ok(()),
    }
}

fn run(net: &Net, tokens: &[u32]) -> Result<Tensor, TrainError> {
    check_tokens(&net.shape, tokens)?;
    let hidden = net.hidden(&Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?)?.squeeze(0)?;
    Ok(net.logits(&hidden)?)
}

/// The float reference: logits `[tokens, vocab]`, row-major.
pub fn float_logits(model: &FloatModel, adapter: Option<&FloatAdapter>, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
    Ok(run(&Net::new(model, adapter)?, tokens)?.flatten_all()?.to_vec1()?)
}

impl Net {
    /// Continues `prompt` greedily (ties to the lowest id) until `eos` (included), `limit` tokens or a full context; returns the answer.
    pub fn greedy(&self, prompt: &[u32], limit: usize, eos: u32) -> Result<Vec<u32>, TrainError> {
        let mut tokens = prompt.to_vec();
        while tokens.len() < self.shape.context && tokens.len() < prompt.len() + limit && tokens.last() != Some(&eos) {
            let logits = run(self, &tokens)?;
            let last: Vec<f32> = logits.get(tokens.len() - 1)?.to_vec1()?;
            let best = last.iter().enumerate().fold(0, |best, (i, v)| if *v > last[best] { i } else { best });
            tokens.push(best as u32);
        }
        Ok(tokens.split_off(prompt.len()))
    }
}

/// [`Net::greedy`] for a model and possibly an adapter.
pub fn float_greedy(model: &FloatModel, adapter: Option<&FloatAdapter>, prompt: &[u32], limit: usize, eos: u32) -> Result<Vec<u32>, TrainError> {
    Net::new(model, adapter)?.greedy(prompt, limit, eos)
}

/// The gradient of `-Σ_{i ≥ max(prompt_len, 1)} log p(tokens[i] | tokens[..i])` with respect to every `B [out, rank]`, row-major.
pub fn float_lora_gradients(
    model: &FloatModel,
    adapter: &FloatAdapter,
    tokens: &[u32],
    prompt_len: usize,
) -> Result<BTreeMap<(usize, Site), Vec<f32>>, TrainError> {
    let first = prompt_len.max(1);
    if first >= tokens.len() {
        return Err(parameter("prompt_len", format!("less than {} tokens", tokens.len()), prompt_len));
    }
    let mut net = Net::new(model, None)?;
    let mut variables = Vec::new();
    net.attach(adapter, |values, shape| {
        let variable = Var::from_tensor(&constant(values, shape)?)?;
        variables.push(variable.clone());
        Ok(variable.as_tensor().clone())
    })?;
    let logits = run(&net, tokens)?.narrow(0, first - 1, tokens.len() - first)?;
    let targets = Tensor::new(&tokens[first..], &Device::Cpu)?.unsqueeze(1)?;
    let loss = log_softmax(&logits, D::Minus1)?.gather(&targets, 1)?.sum_all()?.neg()?;
    let gradients = loss.backward()?;
    let mut found = BTreeMap::new();
    // Every second variable is a B.
    for (key, b) in adapter.pairs.keys().zip(variables.iter().skip(1).step_by(2)) {
        let missing = || candle_core::Error::Msg(format!("no gradient for {key:?}"));
        found.insert(*key, gradients.get(b.as_tensor()).ok_or_else(missing)?.flatten_all()?.to_vec1()?);
    }
    Ok(found)
}

#[cfg(test)]
#[path = "float_tests.rs"]
mod tests;
