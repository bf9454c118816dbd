//! Sumcheck rounds of the batched sum of products.
//!
//! Source: Lund, Fortnow, Karloff, Nisan; batching of terms with fewer variables by idle rounds, in which a term's polynomial is constant.

use crate::packed::{PackedEF, WIDTH, add, fold, lanes, sum_lanes};
use crate::terms::TermTables;
use circuits::ir::{EF, F};
use p3_challenger::FieldChallenger;
use p3_field::{Field, PackedFieldExtension, PrimeCharacteristicRing};
use rayon::prelude::*;
use verifier::transcript;

/// Positions a task handles.
const CHUNK: usize = 1 << 9;

/// A term's factors over the variables that aren't bound.
enum Tables {
    /// Values side by side; at least two of each.
    Packed(Vec<Vec<PackedEF>>),
    /// As many as no longer fill packed elements.
    Scalar(Vec<Vec<EF>>),
}

impl Tables {
    fn new(tables: Vec<Vec<EF>>) -> Self {
        if tables.first().is_none_or(|table| table.len() < 2 * WIDTH) {
            return Self::Scalar(tables);
        }
        let pack = |table: Vec<EF>| table.par_chunks_exact(WIDTH).with_min_len(CHUNK).map(PackedEF::from_ext_slice).collect();
        Self::Packed(tables.into_iter().map(pack).collect())
    }

    /// `Σ Π tables`.
    fn total(&self) -> EF {
        match self {
            Self::Packed(tables) => sum_lanes(total(tables)),
            Self::Scalar(tables) => total(tables),
        }
    }

    /// `Σ Π tables` at 0, 2 and 3 of the first variable.
    fn message(&self) -> [EF; 3] {
        match self {
            Self::Packed(tables) => product_round(tables).map(sum_lanes),
            Self::Scalar(tables) => product_round(tables),
        }
    }

    fn bind(&mut self, r: EF) {
        match self {
            Self::Packed(tables) => {
                tables.iter_mut().for_each(|table| fold(table, r.into()));
                if tables.first().is_some_and(|table| table.len() == 1) {
                    *self = Self::Scalar(tables.drain(..).map(|table| lanes(table).collect()).collect());
                }
            }
            Self::Scalar(tables) => tables.iter_mut().for_each(|table| fold(table, r)),
        }
    }
}

fn product_round<A: PrimeCharacteristicRing + Copy + Send + Sync>(tables: &[Vec<A>]) -> [A; 3] {
    let half = tables.first().map_or(0, |t| t.len() / 2);
    let cell = |j: usize| {
        let mut at = [A::ONE; 3];
        for (i, table) in tables.iter().enumerate() {
            let (low, high) = (table[j], table[j + half]);
            let step = high - low;
            let two = high + step;
            let values = [low, two, two + step];
            at = if i == 0 { values } else { std::array::from_fn(|k| at[k] * values[k]) };
        }
        at
    };
    (0..half).into_par_iter().with_min_len(CHUNK).map(cell).reduce(|| [A::ZERO; 3], add)
}

fn total<A: PrimeCharacteristicRing + Copy + Send + Sync>(tables: &[Vec<A>]) -> A {
    let len = tables.first().map_or(0, Vec::len);
    (0..len).into_par_iter().with_min_len(CHUNK).map(|j| tables.iter().map(|t| t[j]).product::<A>()).sum()
}

/// A term in the sumcheck.
struct State {
    weight: EF,
    tables: Tables,
    log: usize,
    /// Its sum, for the rounds in which it waits.
    total: EF,
}

impl State {
    fn new(TermTables { weight, tables, log }: TermTables, rounds: usize) -> Self {
        let tables = Tables::new(tables);
        let total = match log {
            0 => weight,
            _ if log < rounds => weight * tables.total(),
            // It never waits.
            _ => EF::ZERO,
        };
        Self { weight, tables, log, total }
    }
}

/// Runs the batched sumcheck; returns the rounds' messages and the point.
pub fn prove_sums<Ch: FieldChallenger<F>>(terms: Vec<TermTables>, rounds: usize, challenger: &mut Ch) -> (Vec<[EF; 3]>, Vec<EF>) {
    let half = EF::TWO.inverse();
    let mut terms: Vec<State> = terms.into_par_iter().map(|term| State::new(term, rounds)).collect();
    let mut lift = half;
    let (mut messages, mut point) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let part = |term: &State| {
            if term.log < rounds - round {
                return [term.total * lift; 3];
            }
            let scale = term.weight * half.exp_u64((rounds - term.log) as u64);
            term.tables.message().map(|x| x * scale)
        };
        let message = terms.par_iter().map(part).reduce(|| [EF::ZERO; 3], add);
        let r = transcript::round(challenger, &message);
        terms.par_iter_mut().filter(|term| term.log >= rounds - round).for_each(|term| term.tables.bind(r));
        lift *= half;
        messages.push(message);
        point.push(r);
    }
    (messages, point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::tests::elements;
    use p3_field::BasedVectorSpace;
    use verifier::profile::{HashProfile, Native};

    /// Terms of every size, with one to three factors: each message has the sum of the one before, and the last is the factors' values.
    #[test]
    fn the_last_claim_is_the_products_of_the_factors_values() {
        let rounds = WIDTH.trailing_zeros() as usize + 3;
        let mut next = elements(3);
        let mut extension = || EF::from_basis_coefficients_fn(|_| next());
        let mut terms = vec![TermTables { weight: extension(), tables: vec![], log: 0 }];
        for log in 1..=rounds {
            for factors in 1..=3 {
                let tables = (0..factors).map(|_| (0..1 << log).map(|_| extension()).collect()).collect();
                terms.push(TermTables { weight: extension(), tables, log });
            }
        }
        let dense = |t: &TermTables| if t.log == 0 { t.weight } else { t.weight * total(&t.tables) };
        let mut claim: EF = terms.iter().map(dense).sum();
        let own: Vec<_> = terms.iter().map(|t| (t.weight, t.tables.clone(), t.log)).collect();
        let (messages, point) = prove_sums(terms, rounds, &mut Native::challenger(&Default::default()));
        let six = EF::from_u32(6);
        for ([at0, at2, at3], &r) in messages.into_iter().zip(&point) {
            let at1 = claim - at0;
            let others = |skip: u32| (0..4).filter(|&x| x != skip).map(|x| r - EF::from_u32(x)).product::<EF>();
            claim = (at1 * others(1) - at2 * others(2)) * EF::TWO.inverse() + (at3 * others(3) - at0 * others(0)) * six.inverse();
        }
        let value = |table: &Vec<EF>, log: usize| -> EF {
            let eq = circuits::public::eq_table(&point[rounds - log..]);
            eq.iter().zip(table).map(|(&e, &x)| e * x).sum()
        };
        let last = own.iter().map(|(weight, tables, log)| {
            let product: EF = tables.iter().map(|table| value(table, *log)).product();
            *weight * product * EF::TWO.inverse().exp_u64((rounds - log) as u64)
        });
        assert_eq!(claim, last.sum());
    }
}
