//! Float model to integer model.

use super::calibrate::Ranges;
use super::engine::{RunError, Runtime};
use super::plan::{Planner, WeightStats};
use super::reference::Folded;
use crate::semantics::{Dims, RESIDUAL_BITS, Semantics};
use crate::shape::{FloatModel, ModelShape, Site};
use crate::tensor::{Tensor, TensorMap};
use std::collections::BTreeMap;
use thiserror::Error;

/// Why a model or an adapter can't be made exact.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum QuantiseError {
    /// An operation's sum doesn't fit the field.
    #[error("operation `{op}` (shift {shift}): its bound {bound:.0} must stay below {limit:.0} and its shift at most 16")]
    Bound {
        /// Output tensor of the operation.
        op: String,
        /// Its shift.
        shift: u32,
        /// Left-hand side of the field bound.
        bound: f64,
        /// The field's order.
        limit: f64,
    },
    /// A tensor would need so few bits that the result would be useless.
    #[error("tensor `{tensor}`: the bounds leave {bits} bits, at least {least} are needed")]
    TooNarrow {
        /// The tensor.
        tensor: String,
        /// What is left.
        bits: u32,
        /// Least useful width.
        least: u32,
    },
    /// Planning didn't converge.
    #[error("no choice of widths satisfies all bounds")]
    Undecided,
    /// A float tensor has the wrong length.
    #[error("float tensor `{tensor}`: expected {expected} values, found {found}")]
    Length {
        /// The tensor.
        tensor: String,
        /// Values by the shape.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// A float tensor has a value that isn't finite.
    #[error("float tensor `{tensor}` has a value that isn't finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// A residual stream that outgrows the base's unit.
    #[error(
        "the adapter makes the residual stream {growth:.1} times as large as the base model has room for: import the base again with {bits} more \
         bits of --headroom (`poa import --headroom`), or train less (fewer --epochs, a lower --learning-rate)"
    )]
    Stream {
        /// Largest value over the largest that fits.
        growth: f64,
        /// Bits that are missing.
        bits: u32,
    },
    /// A sample on which the quantised model leaves its ranges.
    #[error("sample {sample}: {source}")]
    Sample {
        /// Its number, from 0.
        sample: usize,
        /// What happened.
        source: RunError,
    },
    /// The quantised model couldn't be prepared.
    #[error(transparent)]
    Run(#[from] RunError),
    /// No usable calibration sequence, or a token outside the vocabulary.
    #[error("calibration: {reason}")]
    Calibration {
        /// What is wrong.
        reason: String,
    },
    /// A shape that the semantics doesn't cover.
    #[error("shape: {reason}")]
    Shape {
        /// What is wrong.
        reason: String,
    },
}

/// A base model in integers.
#[derive(Clone, Debug, PartialEq)]
pub struct IntModel {
    /// Parameters of every operation.
    pub semantics: Semantics,
    /// `embed`, `head`, `wq` … `wdown`, padded.
    pub tensors: TensorMap,
    /// Operations whose quotient range is calibrated, not proven for every input; a run that leaves it is refused by name.
    pub calibrated: Vec<String>,
}

fn check(tensor: &str, data: &[f32], expected: usize) -> Result<(), QuantiseError> {
    if data.len() != expected {
        return Err(QuantiseError::Length { tensor: tensor.to_owned(), expected, found: data.len() });
    }
    match data.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(QuantiseError::NotFinite { tensor: tensor.to_owned() }),
    }
}

fn check_shape(s: &ModelShape) -> Result<(), QuantiseError> {
    let refuse = |reason: &str| Err(QuantiseError::Shape { reason: reason.to_owned() });
    let sizes = [s.layers, s.width, s.heads, s.kv_heads, s.head_dim, s.ff, s.vocab, s.context];
    if sizes.contains(&0) {
        return refuse("every size must be at least 1");
    }
    if !s.heads.is_multiple_of(s.kv_heads) {
        return refuse("kv_heads must divide heads");
    }
    if !s.head_dim.is_multiple_of(2) {
        return refuse("head_dim must be even");
    }
    Ok(())
}

/// Checks every float tensor against the shape.
pub(crate) fn check_model(model: &FloatModel) -> Result<(), QuantiseError> {
    let s = &model.shape;
    check_shape(s)?;
    check("embed", &model.embed, s.vocab * s.width)?;
    check("final_norm", &model.final_norm, s.width)?;
    model.head.as_ref().map_or(Ok(()), |head| check("head", head, s.vocab * s.width))?;
    if model.layers.len() != s.layers {
        let reason = format!("expected {} layers, found {}", s.layers, model.layers.len());
        return Err(QuantiseError::Shape { reason });
    }
    for (l, layer) in model.layers.iter().enumerate() {
        check(&format!("layer {l} attn_norm"), &layer.attn_norm, s.width)?;
        check(&format!("layer {l} ffn_norm"), &layer.ffn_norm, s.width)?;
        for site in Site::ALL {
            let (out, ins) = s.site_dims(site);
            check(&format!("layer {l} {}", site.name()), &layer.linear[site as usize], out * ins)?;
        }
    }
    Ok(())
}

/// Checks calibration sequences.
pub(crate) fn check_calibration(shape: &ModelShape, calibration: &[Vec<u32>]) -> Result<(), QuantiseError> {
    let refuse = |reason: String| Err(QuantiseError::Calibration { reason });
    if !calibration.iter().any(|t| t.len() >= 2) {
        return refuse("expected at least one sequence of two tokens".to_owned());
    }
    if let Some(long) = calibration.iter().find(|t| t.len() > shape.context) {
        return refuse(format!("expected at most {} tokens, found {}", shape.context, long.len()));
    }
    match calibration.iter().flatten().find(|&&id| id as usize >= shape.vocab) {
        Some(id) => refuse(format!("token {id} is outside the vocabulary of {}", shape.vocab)),
        None => Ok(()),
    }
}

/// Norms of all base matrices.
pub(crate) fn base_stats(model: &Folded) -> BTreeMap<String, WeightStats> {
    let mut stats = BTreeMap::new();
    for site in Site::ALL {
        let matrices = model.layers.iter().map(|layer| &layer[site as usize][..]);
        stats.insert(format!("w{}", site.name()), WeightStats::new(matrices, model.shape.site_dims(site).1));
    }
    stats.insert("head".to_owned(), WeightStats::new(std::iter::once(&model.head[..]), model.shape.width));
    stats
}

/// Where true index `i` of a flattened axis goes once padded.
fn padded_index(shape: &ModelShape, d: &Dims, axis: Axis, i: usize) -> usize {
    let half = shape.head_dim / 2;
    let channel = |c: usize| c / half * d.p + c % half;
    let (head, c) = (i / shape.head_dim, i % shape.head_dim);
    match axis {
        Axis::Plain => i,
        Axis::KvHeads => head * d.c + channel(c),
        Axis::Heads => {
            let group = shape.heads / shape.kv_heads;
            (head / group * d.j + head % group) * d.c + channel(c)
        }
    }
}

/// How an axis is flattened.
#[derive(Clone, Copy)]
pub(crate) enum Axis {
    /// One axis.
    Plain,
    /// `(g, c)`.
    KvHeads,
    /// `(g, j, c)`.
    Heads,
}

/// How a site's `(out, in)` axes are flattened.
pub(crate) fn site_axis_kinds(site: Site) -> (Axis, Axis) {
    match site {
        Site::Q => (Axis::Heads, Axis::Plain),
        Site::K | Site::V => (Axis::KvHeads, Axis::Plain),
        Site::O => (Axis::Plain, Axis::Heads),
        Site::Gate | Site::Up | Site::Down => (Axis::Plain, Axis::Plain),
    }
}

/// Rounds, saturates and pads matrices `[layers][out, in]` into `dims` (layer axis first unless `matrices` has no layers).
pub(crate) fn place(
    shape: &ModelShape,
    d: &Dims,
    dims: &[usize],
    matrices: &[(usize, &[f32])],
    (outs, ins): ((Axis, usize), (Axis, usize)),
    padded_ins: usize,
    (exp, bits): (i32, u32),
) -> Tensor {
    let mut tensor = Tensor::zeros(dims);
    let per_layer = if matrices.len() == 1 && dims.len() == 2 { tensor.data.len() } else { tensor.data.len() / d.l };
    let (unit, limit) = (f64::from(exp).exp2(), f64::from(bits - 1).exp2());
    let columns: Vec<usize> = (0..ins.1).map(|i| padded_index(shape, d, ins.0, i)).collect();
    for (l, matrix) in matrices {
        let layer = &mut tensor.data[l * per_layer..(l + 1) * per_layer];
        for (o, row) in matrix.chunks_exact(ins.1).enumerate().take(outs.1) {
            let at = padded_index(shape, d, outs.0, o) * padded_ins;
            for (w, column) in row.iter().zip(&columns) {
                layer[at + column] = (f64::from(*w) * unit).round().clamp(-limit, limit - 1.0) as i32;
            }
        }
    }
    tensor
}

fn base_tensors(model: &Folded, sem: &Semantics) -> TensorMap {
    let (shape, d) = (&model.shape, Dims::new(sem, 1, 1));
    let unit = |name: &str| (sem.exps[name], sem.weight_bits[name]);
    let mut tensors = TensorMap::new();
    for (name, data) in [("embed", &model.embed), ("head", &model.head)] {
        let axes = ((Axis::Plain, shape.vocab), (Axis::Plain, shape.width));
        tensors.insert(name.to_owned(), place(shape, &d, &[d.v, d.d], &[(0, data)], axes, d.d, unit(name)));
    }
    for site in Site::ALL {
        let name = format!("w{}", site.name());
        let (out_kind, in_kind) = site_axis_kinds(site);
        let (outs, ins) = shape.site_dims(site);
        let matrices: Vec<(usize, &[f32])> = model.layers.iter().enumerate().map(|(l, layer)| (l, &layer[site as usize][..])).collect();
        let dims = super::engine::weight_dims(&d, &name).unwrap_or_default();
        let padded_ins = super::engine::site_lens(&d, site).1;
        let tensor = place(shape, &d, &dims, &matrices, ((out_kind, outs), (in_kind, ins)), padded_ins, unit(&name));
        tensors.insert(name, tensor);
    }
    tensors
}

/// Quotients of the residual stream keep this factor above everything calibration saw.
const STREAM_HEADROOM: f64 = 1.25;
/// A finer stream must leave at most this share of the squared logit error: an adapter that comes later may need the range it gives up.
const LIFT_GAIN: f64 = 0.5;
/// Most bits of headroom that are left unasked.
const MOST_HEADROOM: u32 = 2;
/// Calibration sequences on which candidate exponents are compared.
const COMPARED: usize = 4;

/// What the residual stream leaves above its largest calibrated value, for adapters that make it grow and for texts unlike the calibration's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headroom {
    /// The bits that the logits don't miss, at most two; none, or saturation of the very largest values, where every bit counts.
    #[default]
    Auto,
    /// So many bits.
    Bits(u32),
}

/// Float logits of the first calibration sequences, with which candidate exponents are compared.
struct Compared<'a>(Vec<(&'a [u32], Vec<f32>)>);

impl<'a> Compared<'a> {
    fn new(folded: &Folded, calibration: &'a [Vec<u32>]) -> Self {
        let logits = |tokens: &'a Vec<u32>| (&tokens[..], super::reference::run(folded, tokens, None).logits);
        Self(calibration.iter().filter(|t| !t.is_empty()).take(COMPARED).map(logits).collect())
    }

    /// Mean squared logit error; infinite if a run leaves its ranges.
    fn error(&self, model: &IntModel) -> f64 {
        let Ok(runtime) = Runtime::new(model.semantics.clone(), &model.tensors, None) else { return f64::INFINITY };
        let unit = f64::from(-model.semantics.exps["out.exp_bits"]).exp2();
        let (mut sum, mut count) = (0.0, 0usize);
        for (tokens, theirs) in &self.0 {
            let Ok(ours) = runtime.logits(tokens) else { return f64::INFINITY };
            sum += ours.iter().zip(theirs).map(|(&y, &x)| (f64::from(y) * unit - f64::from(x)).powi(2)).sum::<f64>();
            count += ours.len();
        }
        sum / count.max(1) as f64
    }
}

/// Quantises a base model. `calibration`: token sequences (BOS included) of at most `context` tokens.
pub fn quantise_base(model: &FloatModel, calibration: &[Vec<u32>]) -> Result<IntModel, QuantiseError> {
    quantise_base_with(model, calibration, Headroom::Auto)
}

/// [`quantise_base`] with the residual stream's headroom.
///
/// Of the automatic candidates the coarsest stream is taken from which one bit more doesn't halve the squared logit error. The finest saturates
/// the very largest values (typically the first token's).
pub fn quantise_base_with(model: &FloatModel, calibration: &[Vec<u32>], headroom: Headroom) -> Result<IntModel, QuantiseError> {
    check_model(model)?;
    check_calibration(&model.shape, calibration)?;
    let folded = Folded::new(model, None);
    let mut ranges = Ranges::measure(&folded, calibration);
    ranges.include("hin", &folded.embed);
    if let Headroom::Bits(bits) = headroom {
        return plan_base(&folded, &ranges, -(bits.min(RESIDUAL_BITS) as i32));
    }
    let compared = Compared::new(&folded, calibration);
    let plan = |lift: i32| plan_base(&folded, &ranges, lift).map(|model| (compared.error(&model), model));
    let mut chosen = plan(-(MOST_HEADROOM as i32));
    for lift in 1 - MOST_HEADROOM as i32..=1 {
        if lift == 1 && !finer_fits(&ranges, &plan_base(&folded, &ranges, 0)?) {
            break;
        }
        let finer = plan(lift);
        match (&chosen, &finer) {
            (Ok((coarse, _)), Ok((fine, _))) if *fine >= LIFT_GAIN * coarse => break,
            (Ok(_), Err(_)) => break,
            _ => chosen = finer,
        }
    }
    chosen.map(|(_, model)| model)
}

/// Whether quotients stay in their range when the stream is one bit finer than `model`'s.
fn finer_fits(ranges: &Ranges, model: &IntModel) -> bool {
    f64::from(model.semantics.exps["hin"] + 1).exp2() * ranges.stream() * STREAM_HEADROOM < 32768.0
}

/// [`quantise_base`] without the comparison of candidate exponents.
pub(crate) fn quantise_plain(model: &FloatModel, calibration: &[Vec<u32>]) -> Result<IntModel, QuantiseError> {
    check_model(model)?;
    check_calibration(&model.shape, calibration)?;
    let folded = Folded::new(model, None);
    let mut ranges = Ranges::measure(&folded, calibration);
    ranges.include("hin", &folded.embed);
    plan_base(&folded, &ranges, 0)
}

fn plan_base(folded: &Folded, ranges: &Ranges, stream_lift: i32) -> Result<IntModel, QuantiseError> {
    let mut planner = Planner::new(&folded.shape, ranges, base_stats(folded));
    planner.stream_lift = stream_lift;
    let (semantics, calibrated) = planner.plan()?;
    let tensors = base_tensors(folded, &semantics);
    Ok(IntModel { semantics, tensors, calibrated })
}
