//! Float adapter to integer adapter.
//!
//! The base weights stay as they are; every other exponent and shift is planned again for the model with its adapter.

use super::calibrate::Ranges;
use super::engine::{Runtime, exponent, site_lens, weight_dims};
use super::plan::{Fixed, Planner, WeightStats};
use super::quantise::{Axis, IntModel, QuantiseError, base_stats, check_calibration, check_model, place, site_axis_kinds};
use super::reference::{Folded, FoldedPair};
use crate::semantics::{Dims, RESIDUAL_BITS, Semantics};
use crate::shape::{FloatAdapter, FloatModel, ModelShape, Site};
use crate::tensor::TensorMap;
use rayon::prelude::*;

/// An adapter in integers.
#[derive(Clone, Debug, PartialEq)]
pub struct IntAdapter {
    /// Full parameters of the model with this adapter.
    pub semantics: Semantics,
    /// `aS`, `bS` for every covered site, padded.
    pub tensors: TensorMap,
    /// Operations whose quotient range is calibrated, not proven for every input.
    pub calibrated: Vec<String>,
}

fn check_adapter(shape: &ModelShape, adapter: &FloatAdapter) -> Result<(), QuantiseError> {
    let refuse = |reason: String| Err(QuantiseError::Shape { reason });
    let (rank, sites) = (adapter.shape.rank, &adapter.shape.sites);
    if rank == 0 || sites.is_empty() || !sites.windows(2).all(|w| w[0] < w[1]) {
        return refuse("an adapter needs a rank of at least 1 and distinct sites in canonical order".to_owned());
    }
    let expected = shape.layers * sites.len();
    let covered = |&(l, site): &(usize, Site)| l < shape.layers && sites.contains(&site);
    if adapter.pairs.len() != expected || !adapter.pairs.keys().all(covered) {
        return refuse(format!("expected a LoRA pair for each of {expected} layers and sites, found {}", adapter.pairs.len()));
    }
    for (&(l, site), (a, b)) in &adapter.pairs {
        let (out, ins) = shape.site_dims(site);
        for (matrix, data, expected) in [("A", a, rank * ins), ("B", b, out * rank)] {
            let tensor = format!("layer {l} {} {matrix}", site.name());
            if data.len() != expected {
                return Err(QuantiseError::Length { tensor, expected, found: data.len() });
            }
            if !data.iter().all(|x| x.is_finite()) {
                return Err(QuantiseError::NotFinite { tensor });
            }
        }
    }
    Ok(())
}

fn adapter_tensors(folded: &Folded, sem: &Semantics) -> TensorMap {
    let (shape, d, rank) = (&folded.shape, Dims::new(sem, 1, 1), folded.rank);
    let mut tensors = TensorMap::new();
    for &site in sem.sites() {
        let (out_kind, in_kind) = site_axis_kinds(site);
        let (outs, ins) = shape.site_dims(site);
        let pairs = || folded.lora.iter().filter(move |((_, s), _)| *s == site).map(|((l, _), pair)| (*l, pair));
        let low = (Axis::Plain, rank);
        let pick = |second: bool| -> Vec<(usize, &[f32])> {
            pairs().map(|(l, (a, b)): (usize, &FoldedPair)| (l, if second { &b[..] } else { &a[..] })).collect()
        };
        let (a, b) = (format!("a{}", site.name()), format!("b{}", site.name()));
        let unit = |name: &str| (sem.exps[name], sem.weight_bits[name]);
        let dims = |name: &str| weight_dims(&d, name).unwrap_or_default();
        let padded_ins = site_lens(&d, site).1;
        let a_tensor = place(shape, &d, &dims(&a), &pick(false), (low, (in_kind, ins)), padded_ins, unit(&a));
        let b_tensor = place(shape, &d, &dims(&b), &pick(true), ((out_kind, outs), low), d.r, unit(&b));
        tensors.insert(a, a_tensor);
        tensors.insert(b, b_tensor);
    }
    tensors
}

/// Refuses an adapter whose residual stream can't be written in the base's unit.
fn check_stream(model: &IntModel, ranges: &Ranges) -> Result<(), QuantiseError> {
    let largest = f64::from(exponent(&model.semantics, "embed")?).exp2() * ranges.stream();
    let growth = largest / f64::from(RESIDUAL_BITS - 1).exp2();
    match largest < 32767.0 {
        true => Ok(()),
        false => Err(QuantiseError::Stream { growth, bits: growth.log2().ceil() as u32 }),
    }
}

/// Runs every sequence; the first that leaves its ranges is named.
pub(super) fn check_runs(model: &IntModel, adapter: &IntAdapter, sequences: &[Vec<u32>]) -> Result<(), QuantiseError> {
    let runtime = Runtime::new(adapter.semantics.clone(), &model.tensors, Some(&adapter.tensors))?;
    let failed = |(sample, tokens): (usize, &Vec<u32>)| {
        let result = if tokens.is_empty() { Ok(Vec::new()) } else { runtime.logits(tokens) };
        result.err().map(|source| QuantiseError::Sample { sample, source })
    };
    sequences.par_iter().enumerate().find_map_first(failed).map_or(Ok(()), Err)
}

/// Quantises an adapter of a quantised model; `float` is the model that `model` was made from.
///
/// `calibration` are the sequences that the model with its adapter must run: a datanet's samples, all of them. One that doesn't fit is an error.
pub fn quantise_adapter(model: &IntModel, float: &FloatModel, adapter: &FloatAdapter, calibration: &[Vec<u32>]) -> Result<IntAdapter, QuantiseError> {
    check_model(float)?;
    if float.shape != model.semantics.shape {
        return Err(QuantiseError::Shape { reason: "the float model's shape differs from the integer model's".to_owned() });
    }
    check_adapter(&float.shape, adapter)?;
    check_calibration(&float.shape, calibration)?;
    let folded = Folded::new(float, Some(adapter));
    let mut ranges = Ranges::measure(&folded, calibration);
    ranges.include("hin", &folded.embed);
    check_stream(model, &ranges)?;
    let mut stats = base_stats(&folded);
    for &site in &adapter.shape.sites {
        let pairs = || folded.lora.iter().filter(move |((_, s), _)| *s == site).map(|(_, pair)| pair);
        let a = WeightStats::new(pairs().map(|(a, _)| &a[..]), float.shape.site_dims(site).1);
        let b = WeightStats::new(pairs().map(|(_, b)| &b[..]), folded.rank);
        stats.insert(format!("a{}", site.name()), a);
        stats.insert(format!("b{}", site.name()), b);
    }
    let exps = model.semantics.weight_bits.keys().map(|name| (name.clone(), model.semantics.exps[name])).collect();
    let mut planner = Planner::new(&float.shape, &ranges, stats);
    planner.lora = Some(adapter.shape.clone());
    planner.fixed = Some(Fixed { exps, bits: model.semantics.weight_bits.clone() });
    let (semantics, calibrated) = planner.plan()?;
    let tensors = adapter_tensors(&folded, &semantics);
    let adapter = IntAdapter { semantics, tensors, calibrated };
    check_runs(model, &adapter, calibration)?;
    Ok(adapter)
}
