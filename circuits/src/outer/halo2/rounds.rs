//! Poseidon2's rounds as the circuit sees them.
//!
//! Cells hold values with the next round's constant added: what the S-box takes. Between partial rounds only the first lane has cells, and
//! the others are eliminated: with lanes `(u, a, b)` before round `i`, the S-box' input `g_i = u_i + c_i`, `x_i = g_i⁵` and `v_i = a_i + b_i`, a round is
//! `u_{i+1} = 2·x_i + v_i`, `v_{i+1} = 2·x_i + 3·v_i + b_i`, `b_{i+1} = x_i + v_i + 2·b_i`. So `v_{i+2} = 5·v_{i+1} - 5·v_i + 2·x_{i+1} - 3·x_i` and, with
//! `v_i = u_{i+1} - 2·x_i`, [`recurrence`]. `u_{i+1}` and `u_{i+2}` determine `a_i` and `b_i` and are determined by them, so nothing is lost at
//! the ends: [`start`], [`end`].

use super::shape::field;
use crate::poseidon2;
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::Field;
use std::ops::{Add, Mul, Sub};

/// What rounds are computed on: scalars, or expressions.
pub trait Value: Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Mul<Fr, Output = Self> {}

impl<T: Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Mul<Fr, Output = Self>> Value for T {}

/// Round constants of BN254's permutation of width three.
#[derive(Clone)]
pub struct Rounds {
    /// Of the full rounds at the beginning.
    pub initial: Vec<[Fr; 3]>,
    /// Of the partial rounds.
    pub partial: Vec<Fr>,
    /// Of the full rounds at the end.
    pub terminal: Vec<[Fr; 3]>,
}

impl Default for Rounds {
    fn default() -> Self {
        let c = poseidon2::constants();
        let wide = |x| field(&p3_field::PrimeField::as_canonical_biguint(&x));
        let lanes = |list: Vec<[p3_bn254::Bn254; 3]>| list.into_iter().map(|l| l.map(wide)).collect();
        Self { initial: lanes(c.initial), partial: c.partial.into_iter().map(wide).collect(), terminal: lanes(c.terminal) }
    }
}

impl Rounds {
    /// The constant `d` with which [`recurrence`] determines `g_i`, `i > 0`.
    pub fn step(&self, i: usize) -> Fr {
        // `g_0` and what is before it has no part in `start`'s constants.
        let earlier = |n: usize| if i > n { self.partial[i - n] } else { Fr::ZERO };
        self.partial[i] + (earlier(2) - earlier(1)) * Fr::from(5)
    }
}

/// `x⁵`.
pub fn fifth<T: Value>(x: T) -> T {
    let square = x.clone() * x.clone();
    square.clone() * square * x
}

/// The external layer.
pub fn external<T: Value>(x: [T; 3]) -> [T; 3] {
    let sum = x[0].clone() + x[1].clone() + x[2].clone();
    x.map(|x| x + sum.clone())
}

fn times<T: Value>(x: &T, k: u64) -> T {
    x.clone() * Fr::from(k)
}

/// `g_{i+3} - d`, from `g_i, g_{i+1}, g_{i+2}`.
pub fn recurrence<T: Value>(g: [T; 3]) -> T {
    let linear = times(&g[2], 5) - times(&g[1], 5);
    let [x, y, z] = g.map(fifth);
    linear + times(&z, 2) - times(&y, 8) + times(&x, 7)
}

/// Added to the [`recurrence`] for `g_1` and `g_2` where two zeros stand before `g_0`; `a`, `b` are the other lanes before round 0. For
/// `u_1 = 2·x_0 + a + b` and `u_2 = 2·x_1 + u_1 + 2·a + 3·b`, since `-8·x_0` is `-4·(u_1 - a - b)`.
pub fn start<T: Value>([g, a, b]: [T; 3]) -> [T; 2] {
    [a.clone() + b.clone() - times(&g, 5), times(&g, 5) - times(&a, 2) - b]
}

/// Zero where `next` is the state after the last round, with the next constants, given the last three inputs of the S-box.
pub fn end<T: Value>(rounds: &Rounds, g: [T; 3], next: [T; 3], constant: impl Fn(Fr) -> T) -> [T; 3] {
    let c = &rounds.partial[rounds.partial.len() - 2..];
    let t = rounds.terminal[0];
    let [y, z] = [&g[1], &g[2]].map(|x| fifth(x.clone()));
    // The first lane's constants are added once, everywhere.
    let last = recurrence(g.clone()) + constant((c[0] - c[1]) * Fr::from(5) + t[0]) - next[0].clone();
    // `v` two rounds before the end, then one; `b` likewise.
    let v = g[2].clone() - constant(c[1]) - times(&y, 2);
    let v_next = next[0].clone() - constant(t[0]) - times(&z, 2);
    let b_next = times(&v_next, 2) - times(&y, 3) - times(&v, 5);
    [
        last,
        z.clone() + times(&v_next, 2) - b_next.clone() + constant(t[1]) - next[1].clone(),
        z + v_next + times(&b_next, 2) + constant(t[2]) - next[2].clone(),
    ]
}

/// A partial round, on the state with its round's constant added; the result has none.
pub fn internal<T: Value>([g, a, b]: [T; 3]) -> [T; 3] {
    let x = fifth(g);
    let sum = x.clone() + a.clone() + b.clone();
    [x + sum.clone(), a + sum.clone(), times(&b, 2) + sum]
}
