//! Sumcheck rounds of the batched sum of products.
//!
//! Source: Lund, Fortnow, Karloff, Nisan; batching of terms with fewer variables by idle rounds, in which a term's polynomial is constant.

use crate::packed::{add, fold};
use crate::terms::TermTables;
use circuits::ir::{EF, F};
use p3_challenger::FieldChallenger;
use p3_field::{Field, PrimeCharacteristicRing};
use rayon::prelude::*;
use verifier::transcript;

/// Positions a task handles.
const CHUNK: usize = 1 << 11;

/// Sums `Π tables` at 0, 2 and 3 of the first variable.
fn product_round(tables: &[Vec<EF>]) -> [EF; 3] {
    let half = tables.first().map_or(0, |t| t.len() / 2);
    let cell = |j: usize| {
        let mut at = [EF::ONE; 3];
        for (i, table) in tables.iter().enumerate() {
            let (low, high) = (table[j], table[j + half]);
            let step = high - low;
            let two = high + step;
            let values = [low, two, two + step];
            at = if i == 0 { values } else { std::array::from_fn(|k| at[k] * values[k]) };
        }
        at
    };
    (0..half).into_par_iter().with_min_len(CHUNK).map(cell).reduce(|| [EF::ZERO; 3], add)
}

fn total(tables: &[Vec<EF>]) -> EF {
    let len = tables.first().map_or(0, Vec::len);
    (0..len).into_par_iter().with_min_len(CHUNK).map(|j| tables.iter().map(|t| t[j]).product::<EF>()).sum()
}

/// Runs the batched sumcheck; returns the rounds' messages and the point.
pub fn prove_sums<Ch: FieldChallenger<F>>(mut terms: Vec<TermTables>, rounds: usize, challenger: &mut Ch) -> (Vec<[EF; 3]>, Vec<EF>) {
    let half = EF::TWO.inverse();
    let totals: Vec<EF> = terms.par_iter().map(|t| if t.log == 0 { t.weight } else { t.weight * total(&t.tables) }).collect();
    let mut lift = half;
    let (mut messages, mut point) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let idle: EF = terms.iter().zip(&totals).filter(|(t, _)| t.log < rounds - round).map(|(_, &s)| s).sum();
        let mut message = [idle * lift; 3];
        let active = terms.iter().filter(|t| t.log >= rounds - round);
        for term in active {
            let scale = term.weight * half.exp_u64((rounds - term.log) as u64);
            message = add(message, product_round(&term.tables).map(|x| x * scale));
        }
        let r = transcript::round(challenger, &message);
        for term in terms.iter_mut().filter(|t| t.log >= rounds - round) {
            term.tables.iter_mut().for_each(|t| fold(t, r));
        }
        lift *= half;
        messages.push(message);
        point.push(r);
    }
    (messages, point)
}
