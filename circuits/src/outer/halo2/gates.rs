//! Columns and constraints.
//!
//! Five main columns `w0…w4`, a running column `m` and a limb column `l`. Fixed: selectors `full`, `partial`, `mode`; coefficients
//! `f0, f1, f2`; the chains' `ratio`; the range table. All constraints have degree at most [`DEGREE`]. With `'` for the next row:
//!
//! | rows | constraint |
//! |---|---|
//! | full | `w' = M_E·(w + f)⁵`, lanes 0-2; with `mode = 1` also `w = M_E·(w3, w4, w3')` |
//! | partial | three partial rounds: `w3`, `w4` and `w0'` are the first lane after one, two and three; with `mode = 1` lanes 1 and 2 of the next row are those after *two* |
//! | mode 1 | `f1·w''' = w'·w'' + f2·w + f0` in the quintic extension |
//! | mode 2 | `f0·w4 = w0·(w1 - w2) + f1·w2 + f2·w3` |
//! | mode 3 | `w'' = f1·w + f2·w' + f0`, all five columns |
//! | all | `m = l + ratio·m'` and `(tag(ratio), l)` is in the table; `tag` is zero at `ratio = 0` and one at the other ratios |
//!
//! The table's second column holds its numbers plus one, so that it is nonzero in every usable row and zero in the blinding rows: it is the
//! chains' selector. Every other constraint is selected by columns that are zero there.

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
    /// `full`, `partial`, `mode`, `f0`, `f1`, `f2`, `ratio`.
    pub fixed: [Column<Fixed>; FIXED],
    /// The range table: width's tag and number plus one.
    pub table: [Column<Fixed>; 2],
    /// Public inputs.
    pub instance: Column<Instance>,
}

/// Fixed columns besides the table.
pub const FIXED: usize = 7;
/// Index of `full`.
pub const FULL: usize = 0;
/// Index of `partial`.
pub const PARTIAL: usize = 1;
/// Index of `mode`.
pub const MODE: usize = 2;
/// Index of `f0`.
pub const COEFFICIENT: usize = 3;
/// Index of `ratio`.
pub const RATIO: usize = 6;

type E = Expression<Fr>;

fn constant(x: u64) -> E {
    E::Constant(Fr::from(x))
}

fn fifth(x: E) -> E {
    let square = x.clone() * x.clone();
    square.clone() * square * x
}

fn external(x: [E; 3]) -> [E; 3] {
    let sum = x[0].clone() + x[1].clone() + x[2].clone();
    x.map(|x| x + sum.clone())
}

/// The other lanes after a partial round, given them before it and the first lane after it: `(x + 2a + b, x + a + 3b)` where the
/// S-box' output `x` is `(first - a - b)/2`.
fn lanes(first: E, [a, b]: [E; 2]) -> [E; 2] {
    let half = Fr::from(2).invert().unwrap_or(Fr::ZERO);
    let x = (first - a.clone() - b.clone()) * half;
    [x.clone() + a.clone() * Fr::from(2) + b.clone(), x + a + b * Fr::from(3)]
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

/// `mode = value`, as a polynomial that is zero at the other modes and not at it.
fn mode_is(mode: &E, value: u64) -> E {
    let at = Fr::from(value);
    (0..4).filter(|&v| v != value).fold(constant(1), |acc, v| {
        let scale = (at - Fr::from(v)).invert().unwrap_or(Fr::ZERO);
        acc * ((mode.clone() - constant(v)) * scale)
    })
}

impl Config {
    /// Declares columns and constraints.
    pub fn new(cs: &mut ConstraintSystem<Fr>, shape: Shape) -> Self {
        cs.set_minimum_degree(DEGREE);
        let main: [Column<Advice>; MAIN] = std::array::from_fn(|_| cs.advice_column());
        let (running, limb, instance) = (cs.advice_column(), cs.advice_column(), cs.instance_column());
        main.iter().for_each(|&c| cs.enable_equality(c));
        cs.enable_equality(running);
        cs.enable_equality(instance);
        let fixed: [Column<Fixed>; FIXED] = std::array::from_fn(|_| cs.fixed_column());
        let table = [cs.fixed_column(), cs.fixed_column()];
        let config = Self { main, running, limb, fixed, table, instance };
        config.hashing(cs);
        config.arithmetic(cs);
        config.chains(cs, shape);
        config
    }

    fn hashing(&self, cs: &mut ConstraintSystem<Fr>) {
        cs.create_gate("full", |cells| {
            let w: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::cur()));
            let next: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::next()));
            let f: [E; FIXED] = self.fixed.map(|c| cells.query_fixed(c, Rotation::cur()));
            let (selector, first) = (f[FULL].clone(), f[FULL].clone() * f[MODE].clone());
            let round = external(std::array::from_fn(|i| fifth(w[i].clone() + f[COEFFICIENT + i].clone())));
            let input = external([w[3].clone(), w[4].clone(), next[3].clone()]);
            let mut out: Vec<E> = (0..3).map(|i| selector.clone() * (round[i].clone() - next[i].clone())).collect();
            out.extend((0..3).map(|i| first.clone() * (input[i].clone() - w[i].clone())));
            out
        });
        cs.create_gate("partial", |cells| {
            let w: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::cur()));
            let next: [E; 5] = self.main.map(|c| cells.query_advice(c, Rotation::next()));
            let f: [E; FIXED] = self.fixed.map(|c| cells.query_fixed(c, Rotation::cur()));
            let (selector, two) = (f[PARTIAL].clone(), f[MODE].clone());
            let steps = [w[0].clone(), w[3].clone(), w[4].clone(), next[0].clone()];
            let mut others = vec![[w[1].clone(), w[2].clone()]];
            let mut out = Vec::new();
            for (i, step) in steps.windows(2).enumerate() {
                let [a, b] = others[i].clone();
                out.push(
                    selector.clone() * (fifth(step[0].clone() + f[COEFFICIENT + i].clone()) * Fr::from(2) + a.clone() + b.clone() - step[1].clone()),
                );
                others.push(lanes(step[1].clone(), [a, b]));
            }
            for i in 0..2 {
                let (second, third) = (others[2][i].clone(), others[3][i].clone());
                out.push(selector.clone() * (third.clone() + two.clone() * (second - third) - next[1 + i].clone()));
            }
            out
        });
    }

    fn arithmetic(&self, cs: &mut ConstraintSystem<Fr>) {
        cs.create_gate("arithmetic", |cells| {
            let rows: [[E; 5]; 4] = [0, 1, 2, 3].map(|r| self.main.map(|c| cells.query_advice(c, Rotation(r))));
            let f: [E; FIXED] = self.fixed.map(|c| cells.query_fixed(c, Rotation::cur()));
            let [f0, f1, f2] = std::array::from_fn(|i| f[COEFFICIENT + i].clone());
            let free = constant(1) - f[FULL].clone() - f[PARTIAL].clone();
            let [ext, scalar, vector] = [1, 2, 3].map(|v| mode_is(&f[MODE], v) * free.clone());
            let products = product(convolution(&rows[1], &rows[2]));
            let mut out: Vec<E> = (0..5)
                .map(|i| {
                    let right = products[i].clone() + f2.clone() * rows[0][i].clone() + f0.clone();
                    ext.clone() * (right - f1.clone() * rows[3][i].clone())
                })
                .collect();
            let [w0, w1, w2, w3, w4] = rows[0].clone();
            out.push(scalar * (w0 * (w1 - w2.clone()) + f1.clone() * w2 + f2.clone() * w3 - f0.clone() * w4));
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
            let [tag, number] = self.table.map(|c| cells.query_fixed(c, Rotation::cur()));
            let inverses = [power(shape.limb()), Fr::from(P), power(shape.limb()).invert().unwrap_or(Fr::ZERO)];
            let vanish = inverses.iter().fold(constant(1), |acc, &i| acc * (constant(1) - ratio.clone() * i));
            vec![(constant(1) - vanish, tag), (limb + constant(1), number)]
        });
    }
}
