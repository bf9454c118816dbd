//! A model made ready to run: narrowed weights in both orientations, tables, resolved constants.

use super::batch::Desk;
use super::gadgets::{NormParams, requantise};
use super::gemm::Mat16;
use super::trace::Store;
use crate::semantics::{Dims, Op, Semantics};
use crate::shape::Site;
use crate::tables;
use crate::tensor::{Tensor, TensorMap};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use thiserror::Error;

/// Why a run failed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RunError {
    /// The model or adapter lacks a tensor.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has other sizes than the semantics says.
    #[error("tensor `{name}`: expected sizes {expected:?}, found {found:?}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// Padded sizes by the semantics.
        expected: Vec<usize>,
        /// Sizes found.
        found: Vec<usize>,
    },
    /// A weight doesn't fit its declared width.
    #[error("tensor `{name}`: value {value} doesn't fit {bits} bits")]
    WeightRange {
        /// The tensor.
        name: String,
        /// The value.
        value: i32,
        /// Declared width.
        bits: u32,
    },
    /// The semantics lacks an operation or constant.
    #[error("the semantics has no entry `{name}`")]
    MissingEntry {
        /// The operation, exponent or constant.
        name: String,
    },
    /// A value left the range that the relation can express.
    #[error(
        "operation `{op}`{}: value {value} is outside [{low}, {high}], beyond what calibration saw: import the base with more bits of --headroom, or \
         with --calibration on texts like this one, and train the adapter on it again",
        of_layer(*.layer)
    )]
    Range {
        /// Output tensor of the operation.
        op: String,
        /// Layer, if it has one.
        layer: Option<usize>,
        /// The offending value.
        value: i32,
        /// Smallest value allowed.
        low: i32,
        /// Largest value allowed.
        high: i32,
    },
    /// A vector can't be brought to its length.
    #[error("`{what}`: no scale brings its sum of squares to {target} (nearest: {found}); its entries are too few and too equal")]
    Length {
        /// Which vector.
        what: String,
        /// The sum of squares wanted.
        target: i64,
        /// The nearest one reached.
        found: i64,
    },
    /// An adapter of another base.
    #[error("the adapter was made for a base with other sizes or widths")]
    OtherBase,
    /// The answer isn't what greedy decoding gives.
    #[error("answer token {slot}: expected the greedy token {expected}, found {found}")]
    NotGreedy {
        /// Answer slot.
        slot: usize,
        /// Greedy token.
        expected: u32,
        /// Token in the trace.
        found: u32,
    },
    /// A token id outside the vocabulary.
    #[error("token {index}: id {id} is outside the vocabulary of {vocab}")]
    BadToken {
        /// Position.
        index: usize,
        /// Id found.
        id: u32,
        /// Vocabulary size.
        vocab: usize,
    },
    /// Lengths that don't fit each other.
    #[error("{what}: expected {expected}, found {found}")]
    BadLength {
        /// Which length.
        what: &'static str,
        /// What is required.
        expected: String,
        /// What was given.
        found: usize,
    },
}

/// A layer as part of a sentence.
fn of_layer(layer: Option<usize>) -> String {
    layer.map_or_else(String::new, |l| format!(" of layer {l}"))
}

/// A LoRA pair in both orientations.
#[derive(Clone, Debug)]
pub(crate) struct Lora {
    pub a: Mat16,
    pub a_t: Mat16,
    pub b: Mat16,
    pub b_t: Mat16,
}

/// One linear layer of one transformer layer. The base's matrices are shared with its other adapters.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// `[out, in]`.
    pub w: Arc<Mat16>,
    /// `[in, out]`.
    pub w_t: Arc<Mat16>,
    pub lora: Option<Lora>,
}

/// A model (with or without adapter) ready to run.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub(crate) sem: Semantics,
    pub(crate) layers: Vec<Vec<Linear>>,
    pub(crate) embed: Arc<Vec<i32>>,
    pub(crate) head: Arc<Mat16>,
    pub(crate) head_t: Arc<Mat16>,
    /// n1, n2, nf.
    pub(crate) norms: [NormParams; 3],
    pub(crate) exp_att: Arc<Vec<i32>>,
    pub(crate) exp_out: Arc<Vec<i32>>,
    pub(crate) silu: Arc<Vec<i32>>,
    pub(crate) dsilu: Arc<Vec<i32>>,
    pub(crate) recip: Arc<Vec<i32>>,
    pub(crate) cos: Arc<Vec<i32>>,
    pub(crate) sin: Arc<Vec<i32>>,
    pub(crate) positions: usize,
    shelf: Arc<Shelf>,
}

/// Tables in use by a base and its adapters: these seldom need others than the base does.
#[derive(Debug, Default)]
struct Shelf(Mutex<BTreeMap<Which, Weak<Vec<i32>>>>);

/// A table by what it depends on beside the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Exp(i32),
    Silu(i32, i32),
    Dsilu(i32, i32),
    Rsqrt(u32, u32),
    Recip,
    Cos,
    Sin,
}

impl Shelf {
    fn get(&self, which: Which, make: impl FnOnce() -> Vec<i32>) -> Arc<Vec<i32>> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&which).and_then(Weak::upgrade) {
            return table;
        }
        tables.retain(|_, table| table.strong_count() > 0);
        let table = Arc::new(make());
        tables.insert(which, Arc::downgrade(&table));
        table
    }
}

pub(crate) fn exponent(sem: &Semantics, name: &str) -> Result<i32, RunError> {
    sem.exps.get(name).copied().ok_or_else(|| RunError::MissingEntry { name: name.to_owned() })
}

pub(crate) fn operation<'a>(sem: &'a Semantics, name: &str) -> Result<&'a Op, RunError> {
    sem.ops.get(name).ok_or_else(|| RunError::MissingEntry { name: name.to_owned() })
}

pub(crate) fn constant(sem: &Semantics, name: &str) -> Result<i64, RunError> {
    sem.consts.get(name).copied().ok_or_else(|| RunError::MissingEntry { name: name.to_owned() })
}

/// Padded sizes of a base or adapter tensor by its name (`wq`, `ao`, `bdown`, `embed`, `head`).
pub fn weight_dims(d: &Dims, name: &str) -> Option<Vec<usize>> {
    if name == "embed" || name == "head" {
        return Some(vec![d.v, d.d]);
    }
    let site = Site::ALL.into_iter().find(|s| s.name() == name.get(1..).unwrap_or(""))?;
    let (out, input) = site_axes(d, site);
    let axes = match name.as_bytes()[0] {
        b'w' => [vec![d.l], out, input],
        b'a' => [vec![d.l], vec![d.r], input],
        b'b' => [vec![d.l], out, vec![d.r]],
        _ => return None,
    };
    Some(axes.concat())
}

/// Padded `(out, in)` axes of a site.
pub fn site_axes(d: &Dims, site: Site) -> (Vec<usize>, Vec<usize>) {
    match site {
        Site::Q => (vec![d.g, d.j, d.c], vec![d.d]),
        Site::K | Site::V => (vec![d.g, d.c], vec![d.d]),
        Site::O => (vec![d.d], vec![d.g, d.j, d.c]),
        Site::Gate | Site::Up => (vec![d.f], vec![d.d]),
        Site::Down => (vec![d.d], vec![d.f]),
    }
}

/// Padded `(out, in)` lengths of a site.
pub fn site_lens(d: &Dims, site: Site) -> (usize, usize) {
    let (out, input) = site_axes(d, site);
    (out.iter().product(), input.iter().product())
}

fn fetch<'a>(sem: &Semantics, d: &Dims, map: &'a TensorMap, name: &str) -> Result<&'a Tensor, RunError> {
    let tensor = map.get(name).ok_or_else(|| RunError::MissingTensor { name: name.to_owned() })?;
    let expected = weight_dims(d, name).unwrap_or_default();
    if tensor.dims != expected || tensor.data.len() != expected.iter().product::<usize>() {
        return Err(RunError::WrongShape { name: name.to_owned(), expected, found: tensor.dims.clone() });
    }
    let bits = *sem.weight_bits.get(name).ok_or_else(|| RunError::MissingEntry { name: format!("weight_bits.{name}") })?;
    let limit = 1i64 << (bits.clamp(1, 16) - 1);
    match tensor.data.iter().find(|&&x| i64::from(x) < -limit || i64::from(x) >= limit) {
        Some(&value) => Err(RunError::WeightRange { name: name.to_owned(), value, bits }),
        None => Ok(tensor),
    }
}

fn layer_matrix(tensor: &Tensor, l: usize, rows: usize, cols: usize) -> Mat16 {
    Mat16::new(rows, cols, &tensor.data[l * rows * cols..(l + 1) * rows * cols])
}

fn norm_params(sem: &Semantics, shelf: &Shelf, name: &str) -> Result<NormParams, RunError> {
    let get = |field: &str| constant(sem, &format!("{name}.{field}"));
    let sq_shift = get("sq_shift")? as u32;
    let unit = exponent(sem, name)?;
    let shift = (unit + operation(sem, name)?.shift as i32) as u32;
    Ok(NormParams {
        sq_shift,
        eps: get("eps")? as i32,
        fb_shift: get("fb_shift")? as u32,
        table: shelf.get(Which::Rsqrt(shift, sq_shift), || tables::rsqrt_table(shift, sem.shape.width, sq_shift)),
    })
}

/// A base's weights by layer and site, each in both orientations.
struct BaseWeights {
    layers: Vec<Vec<[Arc<Mat16>; 2]>>,
    embed: Arc<Vec<i32>>,
    head: [Arc<Mat16>; 2],
}

impl BaseWeights {
    fn new(sem: &Semantics, base: &TensorMap) -> Result<Self, RunError> {
        let d = Dims::new(sem, 1, 1);
        let both = |w: Mat16| [w.transposed(), w].map(Arc::new);
        let mut layers: Vec<Vec<_>> = (0..sem.shape.layers).map(|_| Vec::with_capacity(7)).collect();
        for site in Site::ALL {
            let (out, input) = site_lens(&d, site);
            let w = fetch(sem, &d, base, &format!("w{}", site.name()))?;
            layers.iter_mut().enumerate().for_each(|(l, layer)| layer.push(both(layer_matrix(w, l, out, input))));
        }
        let embed = Arc::new(fetch(sem, &d, base, "embed")?.data.clone());
        Ok(Self { layers, embed, head: both(Mat16::new(d.v, d.d, &fetch(sem, &d, base, "head")?.data)) })
    }
}

impl Runtime {
    /// Checks and prepares the weights. `adapter` is required iff the semantics has one.
    pub fn new(sem: Semantics, base: &TensorMap, adapter: Option<&TensorMap>) -> Result<Self, RunError> {
        let weights = BaseWeights::new(&sem, base)?;
        Self::with_weights(sem, weights, adapter, Arc::default())
    }

    /// The same base with an adapter, sharing the base's weights and tables.
    pub fn adapted(&self, sem: Semantics, adapter: &TensorMap) -> Result<Self, RunError> {
        let widths = |sem: &Semantics| -> Vec<Option<u32>> {
            let names = Site::ALL.iter().map(|site| format!("w{}", site.name())).chain(["embed".into(), "head".into()]);
            names.map(|name| sem.weight_bits.get(&name).copied()).collect()
        };
        if sem.shape != self.sem.shape || widths(&sem) != widths(&self.sem) {
            return Err(RunError::OtherBase);
        }
        let pair = |linear: &Linear| [linear.w_t.clone(), linear.w.clone()];
        let layers = self.layers.iter().map(|layer| layer.iter().map(pair).collect()).collect();
        let weights = BaseWeights { layers, embed: self.embed.clone(), head: [self.head_t.clone(), self.head.clone()] };
        Self::with_weights(sem, weights, Some(adapter), self.shelf.clone())
    }

    fn with_weights(sem: Semantics, base: BaseWeights, adapter: Option<&TensorMap>, shelf: Arc<Shelf>) -> Result<Self, RunError> {
        let d = Dims::new(&sem, 1, 1);
        let none = TensorMap::new();
        let adapter = adapter.unwrap_or(&none);
        let bare = |[w_t, w]: [Arc<Mat16>; 2]| Linear { w, w_t, lora: None };
        let mut layers: Vec<Vec<Linear>> = base.layers.into_iter().map(|layer| layer.into_iter().map(bare).collect()).collect();
        for &site in sem.sites() {
            let (out, input) = site_lens(&d, site);
            let name = site.name();
            let (a, b) = (fetch(&sem, &d, adapter, &format!("a{name}"))?, fetch(&sem, &d, adapter, &format!("b{name}"))?);
            for (l, layer) in layers.iter_mut().enumerate() {
                let (a, b) = (layer_matrix(a, l, d.r, input), layer_matrix(b, l, out, d.r));
                layer[site as usize].lora = Some(Lora { a_t: a.transposed(), b_t: b.transposed(), a, b });
            }
        }
        let (gate, silu, dsilu) = (exponent(&sem, "gate")?, exponent(&sem, "silu")?, exponent(&sem, "dsilu")?);
        let exp = |name| exponent(&sem, name).map(|k| shelf.get(Which::Exp(k), || tables::exp_table(k)));
        let positions = sem.shape.context.next_power_of_two();
        let rope = || tables::rope_tables(sem.shape.rope_theta, sem.shape.head_dim, positions, d.p);
        let [head_t, head] = base.head;
        Ok(Self {
            norms: [norm_params(&sem, &shelf, "n1")?, norm_params(&sem, &shelf, "n2")?, norm_params(&sem, &shelf, "nf")?],
            exp_att: exp("att.exp_bits")?,
            exp_out: exp("out.exp_bits")?,
            silu: shelf.get(Which::Silu(gate, silu), || tables::silu_tables(gate, silu, dsilu).0),
            dsilu: shelf.get(Which::Dsilu(gate, dsilu), || tables::silu_tables(gate, silu, dsilu).1),
            recip: shelf.get(Which::Recip, tables::recip_table),
            cos: shelf.get(Which::Cos, || rope().0),
            sin: shelf.get(Which::Sin, || rope().1),
            head_t,
            layers,
            embed: base.embed,
            head,
            positions,
            sem,
            shelf,
        })
    }

    /// The semantics it runs.
    pub fn semantics(&self) -> &Semantics {
        &self.sem
    }
}

/// A run in progress: the model, the trace's sizes and the store.
pub(crate) struct Run<'a> {
    pub rt: &'a Runtime,
    pub d: Dims,
    pub store: Store,
    /// Where products with the base's matrices are asked for, in a turn with others.
    pub desk: Option<&'a Desk>,
}

impl<'a> Run<'a> {
    /// The named operation.
    pub fn op(&self, name: &str) -> Result<&'a Op, RunError> {
        operation(&self.rt.sem, name)
    }

    /// Coefficient `i` of the named operation.
    pub fn coef(&self, name: &str, i: usize) -> Result<i64, RunError> {
        let coefs = &self.op(name)?.coefs;
        coefs.get(i).copied().ok_or_else(|| RunError::MissingEntry { name: format!("ops.{name}.coefs[{i}]") })
    }

    /// Requantises by the operation `name`, keeps the remainders, returns the outputs without keeping them.
    pub fn rq_hidden(&mut self, name: &str, remainder: &str, l: Option<usize>, dims: &[usize], mut acc: Vec<i32>) -> Result<Vec<i32>, RunError> {
        let unsigned = name == "p" || name == "pr";
        let out = requantise(&mut acc, self.op(name)?, unsigned).map_err(|bad| RunError::Range {
            op: name.to_owned(),
            layer: l,
            value: bad.value,
            low: bad.low,
            high: bad.high,
        })?;
        self.keep(&format!("{remainder}.r"), l, dims, &acc);
        Ok(out)
    }

    /// Requantises by the operation `name`; keeps outputs and remainders.
    pub fn rq(&mut self, name: &str, l: Option<usize>, dims: &[usize], acc: Vec<i32>) -> Result<Vec<i32>, RunError> {
        let out = self.rq_hidden(name, name, l, dims, acc)?;
        self.keep(name, l, dims, &out);
        Ok(out)
    }

    /// Keeps a tensor (of layer `l` if it has layers).
    pub fn keep(&mut self, name: &str, l: Option<usize>, dims: &[usize], data: &[i32]) {
        match l {
            Some(l) => self.store.layer(name, l, dims, data),
            None => self.store.whole(name, dims, data),
        }
    }
}
