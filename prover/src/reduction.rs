//! The claim reduction: evaluations of many tensors become one value of each committed polynomial.
//!
//! `Σ_i δ^i·v_i = Σ_g Σ_x P_g(x)·W_g(x)` with `W_g(x) = Σ_{i of g} δ^i·Σ_{slots of i} weight·eq((slot, τ_i's free coordinates), x)`,
//! by sumcheck; polynomials with fewer variables wait in idle rounds. Neither `P_g` nor `W_g` is held as a table over the extension field before variables are bound: `W_g` is made piece by
//! piece from the claims.

use crate::packed::{CHUNK_LOG, PackedEF, PackedF, WIDTH, add, fold, lanes, sum_lanes};
use circuits::ir::{EF, F};
use circuits::layout::Layout;
use circuits::public::{eq_at, eq_points, eq_table};
use p3_challenger::FieldChallenger;
use p3_field::{Field, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;
use verifier::plan::Claims;
use verifier::transcript;

/// Log length of pieces.
const PIECE_LOG: usize = CHUNK_LOG + WIDTH.trailing_zeros() as usize;
/// Tables over the extension field are held when at most two to this many values are left (two tables of 20 bytes a value): 0.7 GB.
pub const HELD_LOG: usize = 24;

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

    /// The weights with the first variables bound.
    fn weights(&self, bound: &[EF]) -> Weights {
        let left = self.log() - bound.len();
        Weights { parts: self.claims.iter().map(|claim| Part::new(claim, left, bound)).collect(), left }
    }

    /// The values with the first variables bound, from position `start` on.
    fn bound(&self, weights: &[EF], start: usize, out: &mut [PackedEF]) {
        let stride = self.values.len() / weights.len();
        out.fill(PackedEF::ZERO);
        for (m, &weight) in weights.iter().enumerate() {
            let weight = PackedEF::from(weight);
            let values = &self.values[m * stride + start..][..out.len() * WIDTH];
            out.iter_mut().zip(PackedF::pack_slice(values)).for_each(|(out, &x)| *out += weight * x);
        }
    }

    /// A round's polynomial at 0 and 2, from the committed values.
    fn message(&self, bound: &[EF]) -> [EF; 2] {
        let weights = self.weights(bound);
        let eq = eq_table(bound);
        let half = 1usize << (weights.left - 1);
        let len = half.min(1 << PIECE_LOG) / WIDTH;
        let piece = |c: usize| {
            let starts = [c * len * WIDTH, half + c * len * WIDTH];
            // Where no slot is, nothing is weighed.
            if starts.iter().all(|&start| weights.is_zero(start, len)) {
                return [PackedEF::ZERO; 2];
            }
            let [w0, w1] = starts.map(|start| weights.piece(start, len));
            if bound.is_empty() {
                let [q0, q1] = starts.map(|start| PackedF::pack_slice(&self.values[start..start + len * WIDTH]));
                product(q0, q1, &w0, &w1)
            } else {
                let [q0, q1] = starts.map(|start| {
                    let mut out = vec![PackedEF::ZERO; len];
                    self.bound(&eq, start, &mut out);
                    out
                });
                product(&q0, &q1, &w0, &w1)
            }
        };
        let sum = (0..half / (len * WIDTH)).into_par_iter().map(piece).reduce(|| [PackedEF::ZERO; 2], add);
        sum.map(sum_lanes)
    }

    /// Values and weights with the first variables bound.
    fn tables(&self, bound: &[EF]) -> Tables {
        let weights = self.weights(bound);
        let eq = eq_table(bound);
        let len = (1usize << weights.left) / WIDTH;
        let piece = len.min(1 << CHUNK_LOG);
        let (mut values, mut out) = (vec![PackedEF::ZERO; len], vec![PackedEF::ZERO; len]);
        values.par_chunks_mut(piece).zip(out.par_chunks_mut(piece)).enumerate().for_each(|(c, (values, out))| {
            self.bound(&eq, c * piece * WIDTH, values);
            out.copy_from_slice(&weights.piece(c * piece * WIDTH, piece));
        });
        Tables::Packed(values, out)
    }
}

/// Weights of a polynomial whose first variables are bound.
struct Weights {
    parts: Vec<Part>,
    /// Variables that aren't.
    left: usize,
}

/// `high[piece]·low[position]` in the region of one claim.
struct Part {
    start: usize,
    len: usize,
    high: Vec<EF>,
    low: Vec<EF>,
    packed: Vec<PackedEF>,
}

impl Part {
    fn new(claim: &Claim, left: usize, bound: &[EF]) -> Self {
        let Claim { coefficient, offset, point } = claim;
        // Bound variables are bits of the slot's number first, then coordinates of the point.
        let bits = bound.len().min(left + bound.len() - point.len());
        let (on_bits, on_point) = bound.split_at(bits);
        let (gone, point) = point.split_at(on_point.len());
        let slot = offset >> (left + bound.len() - bits);
        let coefficient = *coefficient * eq_at(on_bits, slot) * eq_points(gone, on_point);
        let (high, low) = point.split_at(point.len().saturating_sub(PIECE_LOG));
        let high = eq_table(high).into_iter().map(|x| coefficient * x).collect();
        let low = eq_table(low);
        let packed = if low.len() < WIDTH { vec![] } else { low.chunks_exact(WIDTH).map(PackedEF::from_ext_slice).collect() };
        Self { start: offset & ((1 << left) - 1), len: 1 << point.len(), high, low, packed }
    }
}

impl Weights {
    /// Parts with a weight from position `start` on.
    fn parts(&self, start: usize, len: usize) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(move |p| p.start < start + len * WIDTH && start < p.start + p.len)
    }

    /// Whether no weight is there.
    fn is_zero(&self, start: usize, len: usize) -> bool {
        self.parts(start, len).next().is_none()
    }

    /// Weights from position `start` on, a multiple of the length.
    fn piece(&self, start: usize, len: usize) -> Vec<PackedEF> {
        let mut out = vec![PackedEF::ZERO; len];
        let mut small: Vec<EF> = vec![];
        for part in self.parts(start, len) {
            let at = part.start.max(start);
            if part.packed.is_empty() {
                small.resize(len * WIDTH, EF::ZERO);
                small[at - start..].iter_mut().zip(&part.low).for_each(|(out, &low)| *out += part.high[0] * low);
            } else {
                // A region is as long as its low part, or a multiple of it; so is the piece.
                let high = PackedEF::from(part.high[(at - part.start) / part.low.len()]);
                let low = &part.packed[(at - part.start) % part.low.len() / WIDTH..];
                out[(at - start) / WIDTH..].iter_mut().zip(low).for_each(|(out, &low)| *out += high * low);
            }
        }
        out.iter_mut().zip(small.chunks_exact(WIDTH)).for_each(|(out, small)| *out += PackedEF::from_ext_slice(small));
        out
    }
}

/// `Σ q·w` at 0 and 2 of the variable that tells the sides apart.
fn product<Q: PrimeCharacteristicRing + Copy, W>(q0: &[Q], q1: &[Q], w0: &[W], w1: &[W]) -> [W; 2]
where
    W: PrimeCharacteristicRing + Copy + std::ops::Mul<Q, Output = W>,
{
    let mut out = [W::ZERO; 2];
    for ((&q0, &q1), (&w0, &w1)) in q0.iter().zip(q1).zip(w0.iter().zip(w1)) {
        out[0] += w0 * q0;
        out[1] += (w1 + w1 - w0) * (q1 + q1 - q0);
    }
    out
}

/// Values and weights of the variables that aren't bound.
enum Tables {
    Packed(Vec<PackedEF>, Vec<PackedEF>),
    Scalar(Vec<EF>, Vec<EF>),
}

impl Tables {
    fn message(&self) -> [EF; 2] {
        match self {
            Self::Packed(values, weights) => {
                let half = values.len() / 2;
                let ((q0, q1), (w0, w1)) = (values.split_at(half), weights.split_at(half));
                let range = (0..half).into_par_iter().step_by(1 << CHUNK_LOG);
                let piece = |at: usize| {
                    let range = at..half.min(at + (1 << CHUNK_LOG));
                    product(&q0[range.clone()], &q1[range.clone()], &w0[range.clone()], &w1[range])
                };
                range.map(piece).reduce(|| [PackedEF::ZERO; 2], add).map(sum_lanes)
            }
            Self::Scalar(values, weights) => {
                let half = values.len() / 2;
                product(&values[..half], &values[half..], &weights[..half], &weights[half..])
            }
        }
    }

    fn bind(&mut self, r: EF) {
        match self {
            Self::Packed(values, weights) => {
                [&mut *values, &mut *weights].into_iter().for_each(|table| fold(table, r.into()));
                if let ([values], [weights]) = (values.as_slice(), weights.as_slice()) {
                    *self = Self::Scalar(lanes([*values]).collect(), lanes([*weights]).collect());
                }
            }
            Self::Scalar(values, weights) => [values, weights].into_iter().for_each(|table| fold(table, r)),
        }
    }

    /// The polynomial's value, once every variable is bound.
    fn value(&self) -> EF {
        match self {
            Self::Packed(values, _) => values.first().map_or(EF::ZERO, |x| x.extract(0)),
            Self::Scalar(values, _) => values.first().copied().unwrap_or(EF::ZERO),
        }
    }
}

/// Runs the claim reduction; returns messages, point and each polynomial's value at its part of the point. Tables of up to `2^held_log` values
/// are held.
///
/// # Panics
///
/// With limits or polynomials below two packed elements.
pub fn prove<Ch: FieldChallenger<F>>(
    inputs: &[Reduction<'_>],
    rounds: usize,
    held_log: usize,
    challenger: &mut Ch,
) -> (Vec<[EF; 2]>, Vec<EF>, Vec<EF>) {
    let least = inputs.iter().map(Reduction::log).min().unwrap_or(held_log).min(held_log);
    assert!(1 << least >= 2 * WIDTH, "2^{least} values are too few");
    let half = EF::TWO.inverse();
    let mut states: Vec<Option<Tables>> = inputs.iter().map(|_| None).collect();
    let (mut messages, mut point) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let mut message = [EF::ZERO; 2];
        for (input, state) in inputs.iter().zip(&mut states) {
            let waits = rounds - input.log();
            let part = match round.checked_sub(waits) {
                None => [input.total * half.exp_u64(round as u64 + 1); 2],
                Some(own) => {
                    let bound = &point[waits..];
                    if state.is_none() && own > 0 && input.log() - own <= held_log {
                        *state = Some(input.tables(bound));
                    }
                    let part = state.as_ref().map_or_else(|| input.message(bound), Tables::message);
                    part.map(|x| x * half.exp_u64(waits as u64))
                }
            };
            message = add(message, part);
        }
        let r = transcript::round(challenger, &message);
        states.iter_mut().flatten().for_each(|tables| tables.bind(r));
        messages.push(message);
        point.push(r);
    }
    let values = states.iter().map(|s| s.as_ref().map_or(EF::ZERO, Tables::value)).collect();
    (messages, point, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::tests::elements;
    use p3_field::BasedVectorSpace;
    use verifier::profile::{HashProfile, Native};

    /// Claims on slots of every size: the whole polynomial, half of it, shorter than a piece, shorter than a packed element.
    fn reduction<'a>(values: &'a [F], log: usize, next: &mut impl FnMut() -> F) -> Reduction<'a> {
        let mut extension = || EF::from_basis_coefficients_fn(|_| next());
        let slots = [(log, 0), (log - 1, 1), (log - 1, 1), (log - 3, 5), (PIECE_LOG - 1, 3), (2, 9), (0, 7)];
        let claim = |(slot, number): (usize, usize)| Claim {
            coefficient: extension(),
            offset: number << slot,
            point: (0..slot).map(|_| extension()).collect(),
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
    fn the_last_claim_is_value_times_weight_whatever_is_held() {
        let mut next = elements(5);
        let logs = [PIECE_LOG + 4, PIECE_LOG + 2];
        let values = logs.map(|log| (0..1 << log).map(|_| next()).collect::<Vec<F>>());
        let inputs: Vec<Reduction> = values.iter().zip(logs).map(|(v, log)| reduction(v, log, &mut next)).collect();
        let proofs = [WIDTH.trailing_zeros() as usize + 1, PIECE_LOG, HELD_LOG]
            .map(|held| prove(&inputs, logs[0], held, &mut Native::challenger(&Default::default())));
        assert_eq!(proofs[0], proofs[2]);
        assert_eq!(proofs[1], proofs[2]);
        let [_, _, (messages, point, finals)] = proofs;
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
