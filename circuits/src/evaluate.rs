//! Evaluates sums on a witness: the values that lookups look up, and the debug checker.

use crate::ir::{Axis, Coupling, F, Factor, Index, Source, Sum, TensorId, Term};
use crate::public::PublicContext;
use crate::relation::Relation;
use p3_field::{PrimeCharacteristicRing, PrimeField32};
use rayon::prelude::*;
use std::borrow::Cow;

/// Reads a tensor's values (row-major over its axes).
pub trait Values: Sync {
    /// The tensor's values.
    fn values(&self, tensor: TensorId) -> &[i32];
}

/// The centred representative of a field element.
pub fn centred(x: F) -> i64 {
    let x = i64::from(x.as_canonical_u32());
    let p = i64::from(F::ORDER_U32);
    if x > p / 2 { x - p } else { x }
}

/// Offsets into a factor's data for every position of `axes`, row-major.
fn offsets(relation: &Relation, factor: &Factor, axes: &[Axis]) -> Vec<usize> {
    let logs = factor_logs(relation, factor);
    let mut stride: usize = logs.iter().map(|l| 1usize << l).product();
    let strides: Vec<usize> = logs
        .iter()
        .map(|l| {
            stride >>= l;
            stride
        })
        .collect();
    let mut table = vec![0usize];
    for &axis in axes {
        let steps: Vec<usize> = (0..1usize << relation.axes[axis.0].log)
            .map(|x| {
                let step = |(index, stride): (&Index, &usize)| match index {
                    Index::Var(a) if *a == axis => x * stride,
                    Index::Flip(a) if *a == axis => (1 - x) * stride,
                    _ => 0,
                };
                factor.index.iter().zip(&strides).map(step).sum()
            })
            .collect();
        table = table.iter().flat_map(|&base| steps.iter().map(move |s| base + s)).collect();
    }
    let fixed: usize = factor.index.iter().zip(&strides).map(|(i, s)| if let Index::At(c) = i { c * s } else { 0 }).sum();
    table.iter_mut().for_each(|x| *x += fixed);
    table
}

/// Log sizes of a factor's axes.
pub fn factor_logs(relation: &Relation, factor: &Factor) -> Vec<usize> {
    match factor.source {
        Source::Tensor(id) => relation.logs(&relation.tensors[id.0].axes),
        Source::Public(_) => factor.index.iter().map(|i| i.axis().map_or(0, |a| relation.axes[a.0].log)).collect(),
    }
}

/// Offsets into the result for every position of `axes`; `None` where a coupling leads outside.
fn target_offsets(relation: &Relation, free: &[Axis], term: &Term, axes: &[Axis]) -> Vec<Option<usize>> {
    let mut table = vec![Some(0usize)];
    for &axis in axes {
        let size = 1usize << relation.axes[axis.0].log;
        let stride: usize = free.iter().rev().take_while(|a| **a != axis).map(|a| 1usize << relation.axes[a.0].log).product();
        let place = |x: usize| match term.coupling(axis) {
            None => Some(x * stride),
            Some(Coupling::Next) => (x + 1 < size).then_some((x + 1) * stride),
            Some(Coupling::Previous) => x.checked_sub(1).map(|x| x * stride),
            Some(Coupling::Only(c)) => (x == c).then_some(x * stride),
        };
        table = table.iter().flat_map(|&base| (0..size).map(move |x| Some(base? + place(x)?))).collect();
    }
    table
}

/// A factor's integers.
fn data<'a>(relation: &Relation, ctx: &PublicContext, values: &'a dyn Values, factor: &Factor) -> Cow<'a, [i32]> {
    match factor.source {
        Source::Tensor(id) => Cow::Borrowed(values.values(id)),
        Source::Public(public) => {
            let dense = public.dense(ctx, &factor_logs(relation, factor)).unwrap_or_default();
            Cow::Owned(dense.into_iter().map(|x| centred(x) as i32).collect())
        }
    }
}

/// `Σ a·b` without overflow.
fn dot(a: &[i32], b: &[i32], small: bool) -> i128 {
    if small {
        i128::from(a.iter().zip(b).map(|(&x, &y)| x.wrapping_mul(y)).fold(0i32, i32::wrapping_add))
    } else {
        a.iter().zip(b).map(|(&x, &y)| i128::from(i64::from(x) * i64::from(y))).sum()
    }
}

fn largest(x: &[i32]) -> u64 {
    x.par_iter().map(|v| u64::from(v.unsigned_abs())).max().unwrap_or(0)
}

fn reduce(x: i128) -> F {
    F::from_u32(x.rem_euclid(i128::from(F::ORDER_U32)) as u32)
}

/// The sum's value at every position of its free axes, row-major.
pub fn evaluate(relation: &Relation, ctx: &PublicContext, values: &dyn Values, sum: &Sum) -> Vec<F> {
    let mut out = vec![F::ZERO; 1 << relation.log(&sum.free)];
    for term in &sum.terms {
        add_term(relation, ctx, values, &sum.free, term, &mut out);
    }
    out
}

/// Adds a constant or a tensor read by the free axes themselves; whether the term is one of these.
fn add_direct(values: &dyn Values, free: &[Axis], term: &Term, out: &mut [F]) -> bool {
    let reads_free = |index: &[Index]| index.iter().copied().eq(free.iter().copied().map(Index::Var));
    match term.factors.as_slice() {
        _ if !term.couplings.is_empty() => return false,
        [] => out.par_iter_mut().for_each(|x| *x += term.coef),
        [Factor { source: Source::Tensor(id), index }] if reads_free(index) => {
            out.par_iter_mut().zip(values.values(*id)).for_each(|(out, &x)| *out += term.coef * F::from_i32(x));
        }
        _ => return false,
    }
    true
}

fn add_term(relation: &Relation, ctx: &PublicContext, values: &dyn Values, free: &[Axis], term: &Term, out: &mut [F]) {
    if add_direct(values, free, term, out) {
        return;
    }
    let one = [1i32];
    let unit = Factor { source: Source::Public(crate::public::Public::Below(1)), index: vec![] };
    let data: Vec<Cow<[i32]>> = term.factors.iter().map(|f| data(relation, ctx, values, f)).collect();
    let (a, da): (&Factor, &[i32]) = term.factors.first().map_or((&unit, &one), |f| (f, &data[0]));
    let (b, db): (&Factor, &[i32]) = term.factors.get(1).map_or((&unit, &one), |f| (f, &data[1]));
    debug_assert!(term.factors.len() <= 2, "a term has at most two factors");
    let reads = |f: &Factor, axis: Axis| f.index.iter().any(|i| i.axis() == Some(axis));
    let axes = |p: &dyn Fn(Axis) -> bool| free.iter().copied().filter(|x| p(*x)).collect::<Vec<_>>();
    let outer = axes(&|x| reads(a, x) == reads(b, x));
    let (only_a, only_b) = (axes(&|x| reads(a, x) && !reads(b, x)), axes(&|x| !reads(a, x) && reads(b, x)));
    let summed: Vec<Axis> = term.axes().into_iter().filter(|x| !free.contains(x)).collect();
    let k = 1usize << relation.log(&summed);
    let pack = |f: &Factor, d: &[i32], own: &[Axis]| -> Vec<i32> {
        let order = [&outer, own, &summed].concat();
        offsets(relation, f, &order).into_iter().map(|o| d[o]).collect()
    };
    let (pa, pb) = (pack(a, da, &only_a), pack(b, db, &only_b));
    let small = largest(&pa).saturating_mul(largest(&pb)).saturating_mul(k as u64) < 1 << 31;
    let (na, nb) = (1usize << relation.log(&only_a), 1usize << relation.log(&only_b));
    let place = |axes: &[Axis]| target_offsets(relation, free, term, axes);
    let (po, pla, plb) = (place(&outer), place(&only_a), place(&only_b));
    let rows: Vec<(usize, usize)> = (0..po.len()).flat_map(|o| (0..na).map(move |x| (o, x))).collect();
    let cell = |o: usize, x: usize, y: usize| dot(&pa[(o * na + x) * k..][..k], &pb[(o * nb + y) * k..][..k], small);
    let computed: Vec<Vec<F>> = rows.par_iter().map(|&(o, x)| (0..nb).map(|y| term.coef * reduce(cell(o, x, y))).collect()).collect();
    for ((o, x), row) in rows.into_iter().zip(computed) {
        let Some(base) = po[o].and_then(|p| Some(p + pla[x]?)) else { continue };
        for (y, value) in row.into_iter().enumerate() {
            if let Some(offset) = plb[y] {
                out[base + offset] += value;
            }
        }
    }
}
