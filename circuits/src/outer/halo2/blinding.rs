//! That the quotient's pieces are masked: see "Zero knowledge" in `docs/outer.md`.
//!
//! halo2 commits to the quotient's pieces without blinds of their own. Three blinded polynomials mask them: the lookup's permuted table `S'`
//! and the permutation's two products, `z_0` and `z_1`. With all others fixed they enter the constraints linearly, but for one square of `z_1` that
//! counts only where it is shown. The map from their random rows to everything that a proof shows of them and of the quotient is computed here from
//! the arguments' definitions, and has full rank.

use super::BLINDING_ROWS;
use super::gates::{DEGREE, MAIN};
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::{Field, PrimeField};

const LOG: u32 = 5;
const ROWS: usize = 1 << LOG;
/// The rows that constraints reach.
const USABLE: usize = ROWS - BLINDING_ROWS;
/// Columns in the permutation's first product: the degree less two.
const FIRST: usize = DEGREE - 2;
/// Columns in the second: the other main columns and the running sums.
const SECOND: usize = MAIN + 1 - FIRST;

/// Coefficients, lowest first.
type Poly = Vec<Fr>;

fn omega() -> Fr {
    Fr::ROOT_OF_UNITY.pow_vartime([1 << (Fr::S - LOG)])
}

/// The polynomial with these values on the domain.
fn interpolate(values: &[Fr]) -> Poly {
    let inverse = omega().invert().unwrap();
    let scale = Fr::from(ROWS as u64).invert().unwrap();
    let coefficient = |i: usize| {
        let step = inverse.pow_vartime([i as u64]);
        values.iter().rev().fold(Fr::ZERO, |acc, v| acc * step + v) * scale
    };
    (0..ROWS).map(coefficient).collect()
}

fn at(p: &Poly, x: Fr) -> Fr {
    p.iter().rev().fold(Fr::ZERO, |acc, c| acc * x + c)
}

fn times(a: &Poly, b: &Poly) -> Poly {
    let mut out = vec![Fr::ZERO; a.len() + b.len() - 1];
    for (i, x) in a.iter().enumerate() {
        b.iter().enumerate().for_each(|(j, y)| out[i + j] += *x * y);
    }
    out
}

fn plus(a: &Poly, k: Fr, b: &Poly) -> Poly {
    let get = |p: &Poly, i: usize| p.get(i).copied().unwrap_or(Fr::ZERO);
    (0..a.len().max(b.len())).map(|i| get(a, i) + k * get(b, i)).collect()
}

/// `p(ω^k·X)`.
fn rotated(p: &Poly, k: i64) -> Poly {
    let step = omega().pow_vartime([k.rem_euclid(ROWS as i64) as u64]);
    p.iter().scan(Fr::ONE, |power, c| Some(*c * std::mem::replace(power, *power * step))).collect()
}

/// The quotient by `X^n - 1`.
fn quotient(mut p: Poly) -> Poly {
    let mut out = vec![Fr::ZERO; p.len().saturating_sub(ROWS)];
    for i in (ROWS..p.len()).rev() {
        let c = std::mem::take(&mut p[i]);
        out[i - ROWS] = c;
        p[i - ROWS] += c;
    }
    assert!(p.iter().all(|c| *c == Fr::ZERO), "what random rows add to the constraints vanishes on the domain");
    out
}

fn basis(row: usize) -> Poly {
    interpolate(&std::array::from_fn::<_, ROWS, _>(|i| if i == row { Fr::ONE } else { Fr::ZERO }))
}

fn rank(mut rows: Vec<Vec<Fr>>) -> usize {
    let mut rank = 0;
    for column in 0..rows[0].len() {
        let Some(pivot) = (rank..rows.len()).find(|&r| rows[r][column] != Fr::ZERO) else { continue };
        rows.swap(rank, pivot);
        let inverse = rows[rank][column].invert().unwrap();
        for r in rank + 1..rows.len() {
            let k = rows[r][column] * inverse;
            let (above, below) = rows.split_at_mut(r);
            below[0].iter_mut().zip(&above[rank]).for_each(|(x, p)| *x -= k * p);
        }
        rank += 1;
    }
    rank
}

/// Scalars without pattern.
struct Scalars(Fr);

impl Scalars {
    fn next(&mut self) -> Fr {
        self.0 = self.0.square() * self.0 + Fr::MULTIPLICATIVE_GENERATOR;
        self.0
    }
}

/// What the usable rows of all other polynomials hold.
#[derive(Clone, Copy, Debug)]
enum Witness {
    Zeros,
    Ones,
    Random,
}

#[test]
fn random_rows_mask_the_quotients_pieces() {
    for (seed, witness) in [Witness::Zeros, Witness::Ones, Witness::Random].into_iter().enumerate() {
        let mut random = Scalars(Fr::from(seed as u64 + 11));
        (0..16).for_each(|_| {
            random.next();
        });
        let mut column = |usable: usize| {
            let value = |i: usize| match witness {
                Witness::Zeros if i < usable => Fr::ZERO,
                Witness::Ones if i < usable => Fr::ONE,
                _ => random.next(),
            };
            interpolate(&(0..ROWS).map(value).collect::<Vec<Fr>>())
        };
        let input = column(USABLE);
        let lookup = column(USABLE + 1);
        let second = column(USABLE + 1);
        let columns: Vec<Poly> = (0..FIRST + SECOND).map(|_| column(USABLE)).collect();
        let sigmas: Vec<Poly> = (0..FIRST + SECOND).map(|_| column(ROWS)).collect();
        let [y, beta, gamma, x, tau] = std::array::from_fn(|_| random.next());
        let active = interpolate(&std::array::from_fn::<_, ROWS, _>(|i| Fr::from(u64::from(i < USABLE))));
        let first = basis(0);

        let factor = |c: usize, shift: &Poly| plus(&plus(&columns[c], beta, shift), gamma, &vec![Fr::ONE]);
        let product =
            |range: std::ops::Range<usize>, shift: &dyn Fn(usize) -> Poly| range.map(|c| factor(c, &shift(c))).reduce(|a, b| times(&a, &b)).unwrap();
        let permuted = |c: usize| sigmas[c].clone();
        let identity = |c: usize| vec![Fr::ZERO, Fr::DELTA.pow_vartime([c as u64])];

        // Each random row: what the proof shows of its polynomial, and what it adds to the quotient. Powers of y stand for any places of
        // the constraints among the others.
        let power = |i: u64| y.pow_vartime([i]);
        let mut map: Vec<Vec<Fr>> = vec![];
        for row in USABLE..ROWS {
            let s = basis(row);
            let mut added = times(&times(&active, &rotated(&lookup, 1)), &times(&plus(&input, beta, &vec![Fr::ONE]), &s));
            added = plus(&added, -power(1), &times(&first, &s));
            added = plus(&added, -power(2), &times(&active, &times(&plus(&input, -Fr::ONE, &rotated(&input, -1)), &s)));
            map.push(shown([at(&s, tau), at(&s, x)].to_vec(), vec![Fr::ZERO; 7], quotient(added), tau));
        }
        let last = -(BLINDING_ROWS as i64);
        for (chunk, columns) in [0..FIRST, FIRST..FIRST + SECOND].into_iter().enumerate() {
            let (permuted, identity) = (product(columns.clone(), &permuted), product(columns, &identity));
            for row in USABLE + 1..ROWS {
                let z = basis(row);
                let mut added = times(&active, &plus(&times(&rotated(&z, 1), &permuted), -Fr::ONE, &times(&z, &identity)));
                added.iter_mut().for_each(|c| *c *= power(3 + chunk as u64));
                let points = [tau, x, omega() * x, omega().pow_vartime([(ROWS as i64 + last) as u64]) * x].map(|p| at(&z, p));
                let mut values = [Fr::ZERO; 7];
                if chunk == 0 {
                    added = plus(&added, -power(1), &times(&first, &z));
                    added = plus(&added, -power(2), &times(&first, &rotated(&z, last)));
                    values[..4].copy_from_slice(&points);
                } else {
                    added = plus(&added, power(2), &times(&first, &z));
                    // The linear part of l_last·(z² - z).
                    let slope = plus(&plus(&second, Fr::ONE, &second), -Fr::ONE, &vec![Fr::ONE]);
                    added = plus(&added, power(5), &times(&basis(USABLE), &times(&slope, &z)));
                    values[4..].copy_from_slice(&points[..3]);
                }
                map.push(shown(vec![Fr::ZERO; 2], values.to_vec(), quotient(added), tau));
            }
        }
        let outputs = 2 + 4 + 3 + DEGREE - 1;
        assert_eq!(map.len(), 3 * BLINDING_ROWS - 2);
        assert_eq!(map[0].len(), outputs);
        // S' alone covers its own two values and two pieces; the rest is linear in the products once z_1(τ) is given.
        assert_eq!(rank(map[..BLINDING_ROWS].to_vec()), 4, "{witness:?}");
        assert_eq!(rank(map), outputs, "{witness:?}");
    }
}

/// Values of `S'`, of the products, and of the quotient's pieces where they are committed.
fn shown(table: Vec<Fr>, products: Vec<Fr>, quotient: Poly, tau: Fr) -> Vec<Fr> {
    let mut pieces: Vec<Fr> = quotient.chunks(ROWS).map(|piece| at(&piece.to_vec(), tau)).collect();
    assert!(pieces.len() < DEGREE);
    pieces.resize(DEGREE - 1, Fr::ZERO);
    [table, products, pieces].concat()
}
