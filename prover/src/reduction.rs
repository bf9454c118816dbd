//! The claim reduction: evaluations of many tensors become one value of each committed polynomial.
//!
//! `Σ_i δ^i·v_i = Σ_g Σ_x P_g(x)·W_g(x)` with `W_g(x) = Σ_{i of g} δ^i·Σ_{slots of i} weight·eq((slot, τ_i's free coordinates), x)`,
//! by sumcheck; polynomials with fewer variables wait in idle rounds.
//!
//! Neither `P_g` nor `W_g` is ever a table over the extension field. A position is a row and a column, `2^COLUMNS_LOG` columns. Claims' points are made of the
//! same few challenges, and their last coordinates, which weigh columns, are mostly the same: `W_g(row, column) = Σ_k w_k(row)·c_k(column)` with few `k`.
//! One pass over the values gives `q_k(row) = Σ_column P_g(row, column)·c_k(column)`; the rounds that bind the row's variables are those of `Σ_k Σ_row q_k·w_k`,
//! on tables so much shorter. A second pass binds them in `P_g`, and what is left has `2^COLUMNS_LOG` times a packed element's values.

use crate::packed::{CHUNK_LOG, PackedEF, PackedF, WIDTH, add, fold, lanes, sum_lanes};
use circuits::ir::{EF, F};
use circuits::layout::{Layout, MIN_LOG};
use circuits::public::eq_table;
use p3_challenger::FieldChallenger;
use p3_field::{BasedVectorSpace, Field, PackedFieldExtension, PackedFieldPow2, PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use verifier::plan::Claims;
use verifier::transcript;

/// Log number of a row's columns. More make tables of rows shorter, and fewer claims agree on how they weigh columns.
const COLUMNS_LOG: usize = 6;
const COLUMNS: usize = 1 << COLUMNS_LOG;
/// Packed elements of a row.
const STEPS: usize = COLUMNS / WIDTH;
/// Log number of values that are left when rows no longer fill packed elements.
const LEFT_LOG: usize = COLUMNS_LOG + WIDTH.trailing_zeros() as usize;
/// The extension's degree.
const DEGREE: usize = <EF as BasedVectorSpace<F>>::DIMENSION;

const _: () = assert!(STEPS > 0 && LEFT_LOG < MIN_LOG);

/// One committed polynomial in the claim reduction.
pub struct Reduction<'a> {
    values: &'a [F],
    claims: Vec<Claim>,
    /// `Σ_x P(x)·W(x)`.
    total: EF,
}

/// A claim on one slot: its part of the weights is `coefficient·eq((slot, point), x)`.
struct Claim {
    coefficient: EF,
    /// First position of the tensor's slot.
    offset: usize,
    point: Vec<EF>,
}

impl<'a> Reduction<'a> {
    /// The claims, with the values they claim, on the polynomial of a layout.
    pub fn new(values: &'a [F], layout: &Layout, claims: &Claims, evaluations: &[EF], delta: EF) -> Self {
        let mut out = Self { values, claims: vec![], total: EF::ZERO };
        for ((claim, &evaluation), coefficient) in claims.list.iter().zip(evaluations).zip(delta.powers()) {
            let before = out.claims.len();
            out.claims.extend(layout.slots(claim.tensor).map(|slot| {
                let (weight, point) = slot.claim(&claim.point);
                Claim { coefficient: coefficient * weight, offset: slot.offset, point }
            }));
            if out.claims.len() > before {
                out.total += coefficient * evaluation;
            }
        }
        out
    }

    fn log(&self) -> usize {
        self.values.len().trailing_zeros() as usize
    }

    /// The claims by how they weigh columns: the weights, and those of rows.
    fn weights(&self) -> Vec<(Vec<EF>, Blocks)> {
        let mut number: HashMap<Vec<EF>, usize> = HashMap::new();
        let mut out: Vec<(Vec<EF>, Blocks)> = vec![];
        for Claim { coefficient, offset, point } in &self.claims {
            let (rows, columns) = point.split_at(point.len().saturating_sub(COLUMNS_LOG));
            // A slot shorter than a row has some of its columns.
            let mut weights = vec![EF::ZERO; COLUMNS];
            weights[offset % COLUMNS..][..1 << columns.len()].copy_from_slice(&eq_table(columns));
            let k = *number.entry(weights.clone()).or_insert(out.len());
            if k == out.len() {
                out.push((weights, Blocks::default()));
            }
            out[k].1.add(offset / COLUMNS, eq_table(rows).into_iter().map(|x| *coefficient * x).collect());
        }
        out
    }

    /// `q_k(row)`, row by row, for each way of weighing columns.
    fn row_sums(&self, weights: &[Vec<EF>]) -> Vec<Vec<PackedEF>> {
        let columns: Vec<[[PackedF; STEPS]; DEGREE]> = weights.iter().map(|w| coefficients(w)).collect();
        let rows = self.values.len() / COLUMNS / WIDTH;
        let mut out = vec![vec![PackedEF::ZERO; rows]; weights.len()];
        let mut pieces: Vec<Vec<&mut [PackedEF]>> = (0..rows.div_ceil(1 << CHUNK_LOG)).map(|_| vec![]).collect();
        for sums in &mut out {
            pieces.iter_mut().zip(sums.chunks_mut(1 << CHUNK_LOG)).for_each(|(piece, sums)| piece.push(sums));
        }
        let values = PackedF::pack_slice(self.values).par_chunks((STEPS * WIDTH) << CHUNK_LOG);
        pieces.into_par_iter().zip(values).for_each(|(mut piece, values)| {
            for (at, rows) in values.chunks_exact(STEPS * WIDTH).enumerate() {
                piece.iter_mut().zip(&columns).for_each(|(sums, columns)| sums[at] = weighed(rows, columns));
            }
        });
        out
    }

    /// The values with the first variables bound.
    fn bound(&self, bound: &[EF]) -> Vec<EF> {
        let len = self.values.len() >> bound.len();
        let eq = eq_table(bound);
        let piece = |(values, eq): (&[F], &[EF])| {
            let mut out = vec![PackedEF::ZERO; len / WIDTH];
            for (values, &eq) in PackedF::pack_slice(values).chunks_exact(len / WIDTH).zip(eq) {
                let eq = PackedEF::from(eq);
                out.iter_mut().zip(values).for_each(|(out, &x)| *out += eq * x);
            }
            out
        };
        let sum = |mut a: Vec<PackedEF>, b: Vec<PackedEF>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        };
        let pieces = self.values.par_chunks(len << CHUNK_LOG).zip(eq.par_chunks(1 << CHUNK_LOG));
        lanes(pieces.map(piece).reduce(|| vec![PackedEF::ZERO; len / WIDTH], sum)).collect()
    }
}

/// Weights of columns, coefficient by coefficient.
fn coefficients(weights: &[EF]) -> [[PackedF; STEPS]; DEGREE] {
    std::array::from_fn(|d| {
        std::array::from_fn(|step| {
            PackedF::from_fn(|lane| {
                let coefficients: &[F] = weights[step * WIDTH + lane].as_basis_coefficients_slice();
                coefficients[d]
            })
        })
    })
}

/// As many rows' sums as fit side by side.
fn weighed(rows: &[PackedF], columns: &[[PackedF; STEPS]; DEGREE]) -> PackedEF {
    let (rows, _) = rows.as_chunks::<STEPS>();
    PackedEF::from_basis_coefficients_fn(|d| {
        let mut sums: [PackedF; WIDTH] = std::array::from_fn(|row| PackedF::dot_product(&rows[row], &columns[d]));
        // Each step adds neighbouring lanes, and puts twice as many rows side by side.
        let (mut block, mut left) = (1, WIDTH);
        while block < WIDTH {
            for i in 0..left / 2 {
                let (even, odd) = sums[2 * i].interleave(sums[2 * i + 1], block);
                sums[i] = even + odd;
            }
            (block, left) = (2 * block, left / 2);
        }
        sums[0]
    })
}

/// Weights of rows: zero but for some blocks, each of a power of two's length and as aligned.
#[derive(Default)]
struct Blocks(BTreeMap<(usize, usize), Vec<PackedEF>>);

impl Blocks {
    /// Adds weights from a row on.
    fn add(&mut self, row: usize, weights: Vec<EF>) {
        let first = row % WIDTH;
        let packed: Vec<PackedEF> = if weights.len() < WIDTH {
            let lane = |lane: usize| lane.checked_sub(first).and_then(|i| weights.get(i)).copied().unwrap_or(EF::ZERO);
            vec![PackedEF::from_ext_slice(&(0..WIDTH).map(lane).collect::<Vec<_>>())]
        } else {
            weights.chunks_exact(WIDTH).map(PackedEF::from_ext_slice).collect()
        };
        let block = self.0.entry((row / WIDTH, packed.len())).or_insert_with(|| vec![PackedEF::ZERO; packed.len()]);
        block.iter_mut().zip(packed).for_each(|(a, b)| *a += b);
    }

    /// `Σ_row q·w` at 0 and 2 of the first variable.
    fn message(&self, sums: &[PackedEF]) -> [PackedEF; 2] {
        let (q0, q1) = sums.split_at(sums.len() / 2);
        let block = |(&(start, _), weights): (&(usize, usize), &Vec<PackedEF>)| {
            if weights.len() == sums.len() {
                let (w0, w1) = weights.split_at(q0.len());
                return par_sum(q0.len(), |range| product(&q0[range.clone()], &q1[range.clone()], &w0[range.clone()], &w1[range]));
            }
            // In one half; the other has no weight.
            let (is_high, start) = (start >= q0.len(), start % q0.len());
            let len = weights.len();
            let (q0, q1) = (&q0[start..start + len], &q1[start..start + len]);
            let none = vec![PackedEF::ZERO; len.min(1 << CHUNK_LOG)];
            par_sum(len, |range| {
                let (q0, q1, w, none) = (&q0[range.clone()], &q1[range.clone()], &weights[range.clone()], &none[..range.len()]);
                if is_high { product(q0, q1, none, w) } else { product(q0, q1, w, none) }
            })
        };
        self.0.iter().map(block).fold([PackedEF::ZERO; 2], add)
    }

    /// Binds the first variable of `rows` packed rows.
    fn bind(self, rows: usize, r: EF) -> Self {
        let mut out = Self::default();
        for ((start, len), mut weights) in self.0 {
            if len == rows {
                fold(&mut weights, r.into());
            } else {
                let factor = PackedEF::from(if start >= rows / 2 { r } else { EF::ONE - r });
                weights.par_iter_mut().with_min_len(1 << CHUNK_LOG).for_each(|w| *w *= factor);
            }
            // Blocks that lay in both halves may lie on each other now.
            let key = (start % (rows / 2), weights.len());
            match out.0.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(weights)),
                Entry::Occupied(mut entry) => entry.get_mut().iter_mut().zip(weights).for_each(|(a, b)| *a += b),
            }
        }
        out
    }
}

/// Sums over ranges of a chunk's length.
fn par_sum(len: usize, f: impl Fn(Range<usize>) -> [PackedEF; 2] + Sync) -> [PackedEF; 2] {
    let starts = (0..len).into_par_iter().step_by(1 << CHUNK_LOG);
    starts.map(|at| f(at..len.min(at + (1 << CHUNK_LOG)))).reduce(|| [PackedEF::ZERO; 2], add)
}

/// `Σ q·w` at 0 and 2 of the variable that tells the sides apart.
fn product<A: PrimeCharacteristicRing + Copy>(q0: &[A], q1: &[A], w0: &[A], w1: &[A]) -> [A; 2] {
    let mut out = [A::ZERO; 2];
    for ((&q0, &q1), (&w0, &w1)) in q0.iter().zip(q1).zip(w0.iter().zip(w1)) {
        out[0] += w0 * q0;
        out[1] += (w1 + w1 - w0) * (q1 + q1 - q0);
    }
    out
}

/// A way of weighing columns.
struct Weighed {
    columns: Vec<EF>,
    rows: Blocks,
    /// `q_k`.
    sums: Vec<PackedEF>,
}

/// What is left of a polynomial and its weights.
enum State {
    /// Some variables of its rows.
    Rows(Vec<Weighed>),
    /// So few that values and weights are tables.
    Tables(Vec<EF>, Vec<EF>),
}

impl State {
    /// With no variable bound.
    fn new(input: &Reduction<'_>) -> Self {
        let (columns, rows): (Vec<_>, Vec<_>) = input.weights().into_iter().unzip();
        let sums = input.row_sums(&columns);
        Self::Rows(columns.into_iter().zip(rows).zip(sums).map(|((columns, rows), sums)| Weighed { columns, rows, sums }).collect())
    }

    /// Tables, once no more variables are left than make tables short.
    fn shortened(self, input: &Reduction<'_>, bound: &[EF]) -> Self {
        match self {
            Self::Rows(ways) if input.log() - bound.len() <= LEFT_LOG => {
                let mut weights = vec![EF::ZERO; COLUMNS * WIDTH];
                for way in ways {
                    let rows: PackedEF = way.rows.0.into_values().flatten().sum();
                    for (weights, row) in weights.chunks_exact_mut(COLUMNS).zip(lanes([rows])) {
                        weights.iter_mut().zip(&way.columns).for_each(|(w, &column)| *w += row * column);
                    }
                }
                Self::Tables(input.bound(bound), weights)
            }
            state => state,
        }
    }

    fn message(&self) -> [EF; 2] {
        match self {
            Self::Rows(ways) => ways.iter().map(|way| way.rows.message(&way.sums)).fold([PackedEF::ZERO; 2], add).map(sum_lanes),
            Self::Tables(values, weights) => {
                let half = values.len() / 2;
                product(&values[..half], &values[half..], &weights[..half], &weights[half..])
            }
        }
    }

    fn bind(self, r: EF) -> Self {
        match self {
            Self::Rows(ways) => {
                let bind = |Weighed { columns, rows, mut sums }| {
                    let rows = rows.bind(sums.len(), r);
                    fold(&mut sums, r.into());
                    Weighed { columns, rows, sums }
                };
                Self::Rows(ways.into_iter().map(bind).collect())
            }
            Self::Tables(mut values, mut weights) => {
                [&mut values, &mut weights].into_iter().for_each(|table| fold(table, r));
                Self::Tables(values, weights)
            }
        }
    }

    /// The polynomial's value, once every variable is bound.
    fn value(&self) -> EF {
        match self {
            Self::Tables(values, _) => values.first().copied().unwrap_or(EF::ZERO),
            Self::Rows(_) => EF::ZERO,
        }
    }
}

/// Runs the claim reduction; returns messages, point and each polynomial's value at its part of the point.
///
/// # Panics
///
/// With polynomials of fewer variables than are committed ([`MIN_LOG`]).
pub fn prove<Ch: FieldChallenger<F>>(inputs: &[Reduction<'_>], rounds: usize, challenger: &mut Ch) -> (Vec<[EF; 2]>, Vec<EF>, Vec<EF>) {
    assert!(inputs.iter().all(|input| input.log() >= MIN_LOG), "a polynomial has fewer than {MIN_LOG} variables");
    let half = EF::TWO.inverse();
    let mut states: Vec<Option<State>> = inputs.iter().map(|_| None).collect();
    let (mut messages, mut point) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let mut message = [EF::ZERO; 2];
        for (input, state) in inputs.iter().zip(&mut states) {
            let waits = rounds - input.log();
            let part = if round < waits {
                [input.total * half.exp_u64(round as u64 + 1); 2]
            } else {
                let now = state.take().unwrap_or_else(|| State::new(input)).shortened(input, &point[waits..]);
                state.insert(now).message().map(|x| x * half.exp_u64(waits as u64))
            };
            message = add(message, part);
        }
        let r = transcript::round(challenger, &message);
        states.iter_mut().for_each(|state| *state = state.take().map(|state| state.bind(r)));
        messages.push(message);
        point.push(r);
    }
    let values = states.iter().map(|s| s.as_ref().map_or(EF::ZERO, State::value)).collect();
    (messages, point, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::tests::elements;
    use verifier::profile::{HashProfile, Native};

    /// Claims on slots of every size: the whole polynomial, half of it twice with one way of weighing columns, shorter than what is side by side,
    /// a row, shorter than a row.
    fn reduction<'a>(values: &'a [F], log: usize, next: &mut impl FnMut() -> F) -> Reduction<'a> {
        let mut extension = || EF::from_basis_coefficients_fn(|_| next());
        let common: Vec<EF> = (0..log).map(|_| extension()).collect();
        let slots = [(log, 0), (log - 1, 1), (log - 1, 0), (log - 3, 5), (COLUMNS_LOG + 1, 3), (COLUMNS_LOG, 5), (2, 9), (0, 7)];
        let claim = |(slot, number): (usize, usize)| {
            let mut point: Vec<EF> = (0..slot).map(|_| extension()).collect();
            if slot == log - 1 {
                let columns = log - COLUMNS_LOG;
                point[slot - COLUMNS_LOG..].copy_from_slice(&common[columns..]);
            }
            Claim { coefficient: extension(), offset: number << slot, point }
        };
        let mut out = Reduction { values, claims: slots.map(claim).into(), total: EF::ZERO };
        out.total = out.dense().iter().zip(values).map(|(&w, &q)| w * q).sum();
        out
    }

    impl Reduction<'_> {
        /// The weights, all at once.
        fn dense(&self) -> Vec<EF> {
            let mut out = vec![EF::ZERO; self.values.len()];
            for claim in &self.claims {
                let eq = eq_table(&claim.point);
                out[claim.offset..].iter_mut().zip(eq).for_each(|(out, eq)| *out += claim.coefficient * eq);
            }
            out
        }
    }

    #[test]
    fn the_last_claim_is_value_times_weight() {
        let mut next = elements(5);
        let logs = [MIN_LOG + 2, MIN_LOG];
        let values = logs.map(|log| (0..1 << log).map(|_| next()).collect::<Vec<F>>());
        let inputs: Vec<Reduction> = values.iter().zip(logs).map(|(v, log)| reduction(v, log, &mut next)).collect();
        assert_eq!(inputs[0].weights().len(), inputs[0].claims.len() - 1);
        let (messages, point, finals) = prove(&inputs, logs[0], &mut Native::challenger(&Default::default()));
        let mut claim: EF = inputs.iter().map(|i| i.total).sum();
        for ([at0, at2], &r) in messages.into_iter().zip(&point) {
            let at1 = claim - at0;
            claim = at0 + r * (at1 - at0) + r * (r - EF::ONE) * (at2 - at1 - at1 + at0).halve();
        }
        let last = inputs.iter().zip(&finals).zip(logs).map(|((input, &value), log)| {
            let eq = eq_table(&point[point.len() - log..]);
            assert_eq!(value, eq.iter().zip(input.values).map(|(&e, &q)| e * q).sum());
            let weight: EF = eq.iter().zip(input.dense()).map(|(&e, w)| e * w).sum();
            value * weight * EF::TWO.inverse().exp_u64((logs[0] - log) as u64)
        });
        assert_eq!(claim, last.sum());
    }
}
