//! A batched sumcheck's terms as tables: axes that only one factor reads are bound to the point beforehand (Thaler's matrix product).

use crate::packed::{PackedEF, PackedF, WIDTH, lanes, sum_lanes};
use circuits::evaluate::factor_logs;
use circuits::ir::{Axis, Coupling, EF, F, Factor, Index, Source, TensorId, Term};
use circuits::public::{PublicContext, eq_at, eq_table};
use circuits::relation::Relation;
use p3_field::{PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use p3_multilinear_util::point::Point;
use p3_multilinear_util::poly::Poly;
use rayon::prelude::*;
use std::borrow::Cow;
use verifier::plan::Place;

/// `weight · Σ_x Π tables(x)` over `log` variables.
pub struct TermTables {
    /// Everything that doesn't depend on the round variables.
    pub weight: EF,
    /// Factors (and the couplings' weight, if any), each of `2^log` values.
    pub tables: Vec<Vec<EF>>,
    /// Round variables.
    pub log: usize,
}

/// Where committed values come from.
pub trait Tensors: Sync {
    /// A tensor's values, padding included.
    fn tensor(&self, id: TensorId) -> Cow<'_, [F]>;

    /// A tensor's multilinear extension at a point.
    fn evaluate(&self, id: TensorId, point: &[EF]) -> EF;
}

/// Builds a term's tables for a sum with `free` axes at the fraction table's point.
pub fn build(relation: &Relation, ctx: &PublicContext, tensors: &dyn Tensors, free: &[Axis], term: &Term, rho: &[EF], weight: EF) -> TermTables {
    let place = Place::before_rounds(relation, free, rho);
    let round_axes = term.round_axes(free);
    let log = relation.log(&round_axes);
    let mut state = TermTables { weight: weight * term.coef, tables: vec![], log };
    for (axis, tau) in place.bound() {
        if let Some(Coupling::Only(c)) = term.coupling(axis) {
            state.weight *= eq_at(&tau, c);
        }
    }
    for factor in &term.factors {
        let values: Cow<[F]> = match factor.source {
            Source::Tensor(id) => tensors.tensor(id),
            Source::Public(public) => Cow::Owned(public.dense(ctx, &factor_logs(relation, factor)).unwrap_or_default()),
        };
        let table = bind(relation, factor, &values, &place, &round_axes);
        match table.as_slice() {
            [only] if log == 0 => state.weight *= *only,
            _ => state.tables.push(table),
        }
    }
    match coupling_table(relation, term, &place, &round_axes) {
        Some(table) if log > 0 => state.tables.push(table),
        Some(table) => state.weight *= table[0],
        None => {}
    }
    state
}

/// The product of the round axes' coupling weights; `None` if they are all one.
fn coupling_table(relation: &Relation, term: &Term, place: &Place<'_>, round_axes: &[Axis]) -> Option<Vec<EF>> {
    let bound: Vec<(Axis, Vec<EF>)> = place.bound().collect();
    let tau = |axis: &Axis| bound.iter().find(|(a, _)| a == axis).map(|(_, t)| t);
    round_axes.iter().find_map(tau)?;
    let mut table = vec![EF::ONE];
    for axis in round_axes {
        let size = 1usize << relation.axes[axis.0].log;
        let own = match (tau(axis), term.coupling(*axis)) {
            (None, _) => vec![EF::ONE; size],
            (Some(tau), None) => eq_table(tau),
            (Some(tau), Some(coupling)) => shifted_table(tau, coupling),
        };
        table = table.par_iter().flat_map_iter(|&a| own.iter().map(move |&b| a * b)).collect();
    }
    Some(table)
}

/// `x ↦ eq(tau, x ± 1)`, zero outside.
fn shifted_table(tau: &[EF], coupling: Coupling) -> Vec<EF> {
    let mut table = eq_table(tau);
    match coupling {
        Coupling::Next => {
            table.rotate_left(1);
            table.last_mut().into_iter().for_each(|x| *x = EF::ZERO);
        }
        _ => {
            table.rotate_right(1);
            table.first_mut().into_iter().for_each(|x| *x = EF::ZERO);
        }
    }
    table
}

/// A factor over the round axes, its other axes bound to the point.
fn bind(relation: &Relation, factor: &Factor, values: &[F], place: &Place<'_>, round_axes: &[Axis]) -> Vec<EF> {
    let logs = factor_logs(relation, factor);
    let coordinates = place.coordinates(factor, relation);
    let is_round = |index: &Index| index.axis().is_some_and(|a| round_axes.contains(&a));
    if !factor.index.iter().any(is_round) && round_axes.is_empty() {
        return vec![Poly::new(values).eval_base(&Point::new(coordinates.concat()))];
    }
    let mut stride: usize = logs.iter().map(|l| 1usize << l).product();
    let mut bound = vec![(0usize, EF::ONE)];
    let mut inner = vec![];
    let mut steps: Vec<Step> = vec![];
    for ((index, log), point) in factor.index.iter().zip(&logs).zip(&coordinates) {
        stride >>= log;
        match index {
            Index::Var(a) if round_axes.contains(a) => steps.push((*a, false, stride)),
            Index::Flip(a) if round_axes.contains(a) => steps.push((*a, true, stride)),
            Index::At(c) => bound.iter_mut().for_each(|(offset, _)| *offset += c * stride),
            // Of axes with one position several can be the innermost.
            _ if stride == 1 && *log > 0 && 1 << log >= WIDTH => inner = eq_table(point),
            _ => {
                let eq = eq_table(point);
                bound = bound.iter().flat_map(|&(o, w)| eq.iter().enumerate().map(move |(x, &e)| (o + x * stride, w * e))).collect();
            }
        }
    }
    let kept = |axes: &[Axis]| kept_offsets(relation, axes, &steps);
    if !inner.is_empty() {
        return dot_products(values, &kept(round_axes), &bound, &inner);
    }
    match round_axes.split_last() {
        // The innermost axis has rounds: its positions lie side by side.
        Some((axis, outer)) if steps.contains(&(*axis, false, 1)) && reads_once(&steps, *axis) && 1 << relation.axes[axis.0].log >= WIDTH => {
            sums_of_rows(values, &kept(outer), &bound, 1 << relation.axes[axis.0].log)
        }
        _ => {
            let cell = |&base: &usize| bound.iter().map(|&(offset, w)| w * values[base + offset]).sum();
            kept(round_axes).par_iter().map(cell).collect()
        }
    }
}

/// An axis with rounds, whether it is flipped, and how far its positions lie apart.
type Step = (Axis, bool, usize);

fn reads_once(steps: &[Step], axis: Axis) -> bool {
    steps.iter().filter(|(a, ..)| *a == axis).count() == 1
}

/// Bound positions, with their weights, that a task takes.
const BOUND: usize = 1 << 10;

/// `Σ_bound weight·Σ_j inner_j·value`, for every kept offset: the innermost axis is bound.
fn dot_products(values: &[F], kept: &[usize], bound: &[(usize, EF)], inner: &[EF]) -> Vec<EF> {
    let packed: Vec<PackedEF> = inner.chunks_exact(WIDTH).map(PackedEF::from_ext_slice).collect();
    let part = |base: usize, bound: &[(usize, EF)]| -> PackedEF {
        let one = |&(offset, weight): &(usize, EF)| {
            let row = PackedF::pack_slice(&values[base + offset..][..inner.len()]);
            PackedEF::from(weight) * packed.iter().zip(row).map(|(&e, &x)| e * x).sum::<PackedEF>()
        };
        bound.iter().map(one).sum()
    };
    let cell = |&base: &usize| bound.par_chunks(BOUND).map(|bound| sum_lanes(part(base, bound))).sum();
    kept.par_iter().map(cell).collect()
}

/// `Σ_bound weight·row`, for every kept offset: rows of `len` values are kept, the innermost axis.
fn sums_of_rows(values: &[F], kept: &[usize], bound: &[(usize, EF)], len: usize) -> Vec<EF> {
    let part = |base: usize, bound: &[(usize, EF)]| -> Vec<PackedEF> {
        let mut out = vec![PackedEF::ZERO; len / WIDTH];
        for &(offset, weight) in bound {
            let (row, weight) = (PackedF::pack_slice(&values[base + offset..][..len]), PackedEF::from(weight));
            out.iter_mut().zip(row).for_each(|(out, &x)| *out += weight * x);
        }
        out
    };
    let add = |mut a: Vec<PackedEF>, b: Vec<PackedEF>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let row = |&base: &usize| {
        let parts = bound.par_chunks(BOUND).map(|bound| part(base, bound));
        parts.reduce_with(add).into_iter().flat_map(lanes).collect::<Vec<EF>>()
    };
    kept.par_iter().map(row).flatten_iter().collect()
}

/// Offsets of every position of the round axes; an axis the factor doesn't read leaves the offset as it is.
fn kept_offsets(relation: &Relation, round_axes: &[Axis], steps: &[Step]) -> Vec<usize> {
    let mut kept = vec![0usize];
    for axis in round_axes {
        let size = 1usize << relation.axes[axis.0].log;
        let shift = |x: usize| {
            steps.iter().filter(|(a, ..)| a == axis).map(|&(_, flip, stride)| if flip { (size - 1 - x) * stride } else { x * stride }).sum::<usize>()
        };
        kept = kept.iter().flat_map(|&base| (0..size).map(move |x| base + shift(x))).collect();
    }
    kept
}
