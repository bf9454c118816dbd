//! Columns and constraints.
//!
//! Five main columns `w0…w4`, a running column `m` and a limb column `l`. Fixed: selectors `full`, `partial`, `last`, `mode`, `extra`;
//! coefficients `f0, f1, f2`; the chains' `ratio`; the range table. All constraints have degree at most [`DEGREE`]. With `'` for the next row:
//!
//! | rows | constraint |
//! |---|---|
//! | full | `s' = M_E·s⁵ + f` for the state `s = (w4, w0, w1)`; with `full = 2` also `s = M_E·(w2, w3, w2') + c`, `c` the first round's constants |
//! | partial | five cells and the next row's five are successive inputs of the S-box, by [`recurrence`], with constants `f0, f1, f2, mode, extra`; after a full row, corrected by [`start`] |
//! | last | `s'` is the state after the partial rounds, by [`end`], plus the next round's constants |
//! | mode 1 | `f1·w''' = w'·w'' + f2·w + f0` in the quintic extension |
//! | mode 2 | `f0·w4 = w0·(w1 - w2) + f1·w2 + f2·w3` |
//! | mode 3 | `w'' = f1·w + f2·w' + f0`, all five columns |
//! | extra 1 | `w4' = w0 + 2³¹·w1 + 2⁶²·w2 + 2⁹³·w3 + 2¹²⁴·f1·w4 + f0` |
//! | extra 2 | `w3' = w0·w1 + f1·w3` and `w4' = w0·w2 + f1·w4` |
//! | extra 3 | `w4' = f0·w0 + f1·w1 + f2·w2 + w3 - i`, `i` the public input of that row, zero in all rows but the first |
//! | all | `m = l + ratio·m'` and `(tag(ratio), l)` is in the table; `tag` is zero at `ratio = 0`, one at the chains' other ratios, something else at [`middle_ratio`] |
//!
//! Modes and extras count in rows that aren't partial.
//!
//! The table's second column holds its numbers plus one, so that it is nonzero in every usable row and zero in the blinding rows: it is the
//! chains' selector. Every other constraint is selected by columns that are zero there.

use super::rounds::{Rounds, end, external, fifth, recurrence, start};
use super::shape::{P, Shape, power};
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::Field;
use halo2_axiom::plonk::{Advice, Column, ConstraintSystem, Expression, Fixed, Instance};
use halo2_axiom::poly::Rotation;

/// Degree of the constraint system.
pub const DEGREE: usize = 6;
/// Main columns.
pub const MAIN: usize = 5;
/// Advice columns: the main ones, the chains' and the looked-up one.
pub const ADVICE: usize = MAIN + 2;

/// The columns.
#[derive(Clone, Debug)]
pub struct Config {
    /// Main columns.
    pub main: [Column<Advice>; MAIN],
    /// Running sums.
    pub running: Column<Advice>,
    /// Limbs; the only column without copies.
    pub limb: Column<Advice>,
    /// `full`, `partial`, `last`, `mode`, `extra`, `f0`, `f1`, `f2`, `ratio`.
    pub fixed: [Column<Fixed>; FIXED],
    /// The range table: width's tag and number plus one.
    pub table: [Column<Fixed>; 2],
    /// Public inputs.
    pub instance: Column<Instance>,
}

/// Fixed columns besides the table.
pub const FIXED: usize = 9;
/// Index of `full`.
pub const FULL: usize = 0;
/// Index of `partial`.
pub const PARTIAL: usize = 1;
/// Index of `last`.
pub const LAST: usize = 2;
/// Index of `mode`.
pub const MODE: usize = 3;
/// Index of `extra`.
pub const EXTRA: usize = 4;
/// Index of `f0`.
pub const COEFFICIENT: usize = 5;
/// Index of `ratio`.
pub const RATIO: usize = 8;
/// Indices of the constants of a partial row.
pub const CONSTANTS: [usize; MAIN] = [COEFFICIENT, COEFFICIENT + 1, COEFFICIENT + 2, MODE, EXTRA];

/// Columns of the state's lanes in full rows and after them.
pub const LANES: [usize; 3] = [4, 0, 1];
/// Columns of the permutation's input: the first two in its first row, the third in the next.
pub const INPUT: [usize; 3] = [2, 3, 2];

type E = Expression<Fr>;

fn constant(x: u64) -> E {
    E::Constant(Fr::from(x))
}

/// The coefficients of a product in the quintic extension, `X⁵ = 1 - X²`.
pub fn product<T: Clone + std::ops::Add<Output = T> + std::ops::Sub<Output = T>>(d: [T; 9]) -> [T; 5] {
    let d = |i: usize| d[i].clone();
    [d(0) + d(5) - d(8), d(1) + d(6), d(2) + d(7) + d(8) - d(5), d(3) + d(8) - d(6), d(4) - d(7)]
}

/// The coefficients of a product of polynomials.
pub fn convolution<T: Clone + std::ops::Add<Output = T> + std::ops::Mul<Output = T>>(a: &[T; 5], b: &[T; 5]) -> [T; 9] {
    std::array::from_fn(|n| {
        let terms = (n.saturating_sub(4)..=n.min(4)).map(|i| a[i].clone() * b[n - i].clone());
        terms.reduce(|x, y| x + y).unwrap_or_else(|| unreachable!("every coefficient has a term"))
    })
}

/// A polynomial that is zero at the others of `0..4` and not at `value`. What it is there doesn't matter: constraints are equal to zero.
fn mode_is(mode: &E, value: u64) -> E {
    (0..4).filter(|&v| v != value).map(|v| mode.clone() - constant(v)).reduce(|a, b| a * b).unwrap_or_else(|| constant(1))
}

/// The ratio in the row of a canonical number's middle limb: its last limb counts half of what the middle ones do.
pub fn middle_ratio() -> Fr {
    Fr::from(2).invert().unwrap_or(Fr::ZERO)
}

/// Which range a limb is of, by its row's ratio: a polynomial of degree three.
fn tag<T: Clone + std::ops::Sub<Output = T> + std::ops::Mul<Output = T> + std::ops::Mul<Fr, Output = T>>(shape: Shape, ratio: &T, one: T) -> T {
    let inverses = [power(shape.limb()), Fr::from(P), power(shape.limb()).invert().unwrap_or(Fr::ZERO)];
    one.clone() - inverses.iter().fold(one.clone(), |acc, &i| acc * (one.clone() - ratio.clone() * i))
}

/// The tag of the middle limbs.
pub fn middle_tag(shape: Shape) -> Fr {
    tag(shape, &middle_ratio(), Fr::ONE)
}

impl Config {
    /// Declares columns and constraints.
    pub fn new(cs: &mut ConstraintSystem<Fr>, shape: Shape) -> Self {
        cs.set_minimum_degree(DEGREE);
        let main: [Column<Advice>; MAIN] = std::array::from_fn(|_| cs.advice_column());
        let (running, limb, instance) = (cs.advice_column(), cs.advice_column(), cs.instance_column());
        main.iter().for_each(|&c| cs.enable_equality(c));
        cs.enable_equality(running);
        let fixed: [Column<Fixed>; FIXED] = std::array::from_fn(|_| cs.fixed_column());
        let table = [cs.fixed_column(), cs.fixed_column()];
        let config = Self { main, running, limb, fixed, table, instance };
        config.hashing(cs);
        config.arithmetic(cs);
        config.chains(cs, shape);
        config
    }

    fn hashing(&self, cs: &mut ConstraintSystem<Fr>) {
        let rounds = Rounds::default();
        cs.create_gate("full", |cells| {
            let w: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::cur()));
            let next: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::next()));
            let f: [E; FIXED] = self.fixed.map(|c| cells.query_fixed(c, Rotation::cur()));
            let (selector, first) = (f[FULL].clone(), f[FULL].clone() * (f[FULL].clone() - constant(1)));
            let round = external(LANES.map(|c| fifth(w[c].clone())));
            let input = external([w[INPUT[0]].clone(), w[INPUT[1]].clone(), next[INPUT[2]].clone()]);
            let mut out: Vec<E> =
                (0..3).map(|i| selector.clone() * (round[i].clone() + f[COEFFICIENT + i].clone() - next[LANES[i]].clone())).collect();
            out.extend((0..3).map(|i| first.clone() * (input[i].clone() + E::Constant(rounds.initial[0][i]) - w[LANES[i]].clone())));
            out
        });
        cs.create_gate("partial", |cells| {
            let w: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::cur()));
            let next: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::next()));
            let selector = cells.query_fixed(self.fixed[PARTIAL], Rotation::cur());
            let first = selector.clone() * cells.query_fixed(self.fixed[FULL], Rotation::prev());
            let constants = CONSTANTS.map(|i| cells.query_fixed(self.fixed[i], Rotation::cur()));
            let inputs: Vec<E> = w.iter().chain(&next).cloned().collect();
            let mut out: Vec<E> = inputs
                .windows(4)
                .skip(2)
                .zip(constants)
                .map(|(g, d)| selector.clone() * (recurrence(std::array::from_fn(|i| g[i].clone())) + d - g[3].clone()))
                .collect();
            let corrections = start(LANES.map(|c| w[c].clone()));
            out.iter_mut().zip(corrections).for_each(|(constraint, correction)| *constraint = constraint.clone() + first.clone() * correction);
            out.extend([2, 3].map(|c: usize| first.clone() * w[c].clone()));
            out
        });
        cs.create_gate("last", |cells| {
            let inputs: [E; 3] = [2, 3, 4].map(|c: usize| cells.query_advice(self.main[c], Rotation::cur()));
            let selector = cells.query_fixed(self.fixed[LAST], Rotation::cur());
            let next = LANES.map(|c| cells.query_advice(self.main[c], Rotation::next()));
            end(&rounds, inputs, next, E::Constant).map(|difference| selector.clone() * difference).to_vec()
        });
    }

    fn arithmetic(&self, cs: &mut ConstraintSystem<Fr>) {
        cs.create_gate("arithmetic", |cells| {
            let public = cells.query_instance(self.instance, Rotation::cur());
            let rows: [[E; 5]; 4] = [0, 1, 2, 3].map(|r| self.main.map(|c| cells.query_advice(c, Rotation(r))));
            let f: [E; FIXED] = self.fixed.map(|c| cells.query_fixed(c, Rotation::cur()));
            let [f0, f1, f2] = std::array::from_fn(|i| f[COEFFICIENT + i].clone());
            let free = constant(1) - f[PARTIAL].clone();
            let [ext, scalar, vector] = [1, 2, 3].map(|v| mode_is(&f[MODE], v) * free.clone());
            let [pack, inner, sum] = [1, 2, 3].map(|v| mode_is(&f[EXTRA], v) * free.clone());
            let products = product(convolution(&rows[1], &rows[2]));
            let mut out: Vec<E> = (0..5)
                .map(|i| {
                    let right = products[i].clone() + f2.clone() * rows[0][i].clone() + f0.clone();
                    ext.clone() * (right - f1.clone() * rows[3][i].clone())
                })
                .collect();
            let [w0, w1, w2, w3, w4] = rows[0].clone();
            let next = |i: usize| rows[1][i].clone();
            let linear = f1.clone() * w2.clone() + f2.clone() * w3.clone();
            out.push(scalar * (w0.clone() * (w1.clone() - w2.clone()) + linear - f0.clone() * w4.clone()));
            let digits = w0.clone() + w1.clone() * power(31) + w2.clone() * power(62) + w3.clone() * power(93);
            out.push(pack * (digits + f1.clone() * w4.clone() * power(124) + f0.clone() - next(4)));
            out.push(inner.clone() * (w0.clone() * w1.clone() + f1.clone() * w3.clone() - next(3)));
            out.push(inner * (w0.clone() * w2.clone() + f1.clone() * w4 - next(4)));
            out.push(sum * (f0.clone() * w0 + f1.clone() * w1 + f2.clone() * w2 + w3 - public - next(4)));
            out.extend((0..5).map(|i| {
                let right = f1.clone() * rows[0][i].clone() + f2.clone() * rows[1][i].clone() + f0.clone();
                vector.clone() * (right - rows[2][i].clone())
            }));
            out
        });
    }

    fn chains(&self, cs: &mut ConstraintSystem<Fr>, shape: Shape) {
        cs.create_gate("chain", |cells| {
            let [m, next] = [0, 1].map(|r| cells.query_advice(self.running, Rotation(r)));
            let limb = cells.query_advice(self.limb, Rotation::cur());
            let ratio = cells.query_fixed(self.fixed[RATIO], Rotation::cur());
            let usable = cells.query_fixed(self.table[1], Rotation::cur());
            vec![usable * (limb + ratio * next - m)]
        });
        cs.lookup_any("range", |cells| {
            let limb = cells.query_advice(self.limb, Rotation::cur());
            let ratio = cells.query_fixed(self.fixed[RATIO], Rotation::cur());
            let [own, number] = self.table.map(|c| cells.query_fixed(c, Rotation::cur()));
            vec![(tag(shape, &ratio, constant(1)), own), (limb + constant(1), number)]
        });
    }
}
