//! Small registers, lazily: integer combinations of cells whose integers are bounded.
//!
//! A [`Var`] is a cell `c` that stands for the integer `v = factor·c mod r`, and constraints guarantee `0 ≤ v ≤ max` where `max` is
//! below [`Shape::limit`](super::shape::Shape::limit), so below the scalar field's order. A [`Linear`] is an integer combination of such
//! integers; what a register holds is its class modulo `p`. Bounds follow by interval arithmetic over the integers.

use super::grid::Cell;
use super::shape::P;
use halo2_axiom::halo2curves::bn256::Fr;
use num_bigint::{BigInt, BigUint, Sign};

/// A bounded integer.
#[derive(Clone, Debug)]
pub struct Var {
    /// Where it is.
    pub cell: Cell,
    /// The integer is this times the cell.
    pub factor: Fr,
    /// The largest it can be.
    pub max: BigUint,
}

/// A variable's number.
pub type Id = u32;

/// An integer combination of variables, and a constant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linear {
    /// Variables, ascending, with nonzero coefficients.
    pub terms: Vec<(Id, BigInt)>,
    /// Constant.
    pub constant: BigInt,
}

/// The integers that a combination can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Least.
    pub low: BigInt,
    /// Greatest.
    pub high: BigInt,
}

impl Interval {
    /// The least multiple of `p` that makes it nonnegative when added.
    pub fn offset(&self) -> BigUint {
        let p = BigUint::from(P);
        let below = (-&self.low).to_biguint().unwrap_or_default();
        (below + &p - 1u8) / &p * p
    }

    /// The greatest integer after adding `offset`.
    pub fn max(&self, offset: &BigUint) -> BigUint {
        (&self.high + BigInt::from(offset.clone())).to_biguint().unwrap_or_default()
    }

    /// The greatest magnitude.
    pub fn magnitude(&self) -> BigUint {
        self.low.magnitude().max(self.high.magnitude()).clone()
    }

    /// Of the sum.
    pub fn plus(&self, other: &Self) -> Self {
        Self { low: &self.low + &other.low, high: &self.high + &other.high }
    }

    /// Of the negative.
    pub fn negated(&self) -> Self {
        Self { low: -&self.high, high: -&self.low }
    }
}

impl Linear {
    /// A constant.
    pub fn constant(c: BigInt) -> Self {
        Self { terms: Vec::new(), constant: c }
    }

    /// A variable.
    pub fn var(id: Id) -> Self {
        Self { terms: vec![(id, BigInt::from(1))], constant: BigInt::ZERO }
    }

    /// The variable that it is.
    pub fn as_var(&self) -> Option<Id> {
        match self.terms.as_slice() {
            [(id, k)] if self.constant.sign() == Sign::NoSign && *k == BigInt::from(1) => Some(*id),
            _ => None,
        }
    }

    /// `self + k·other`.
    pub fn plus(&self, k: &BigInt, other: &Self) -> Self {
        let mut terms = Vec::with_capacity(self.terms.len() + other.terms.len());
        let (mut a, mut b) = (self.terms.iter().peekable(), other.terms.iter().peekable());
        loop {
            let term = match (a.peek(), b.peek()) {
                (Some((i, x)), Some((j, y))) if i == j => {
                    let sum = x + k * y;
                    let id = *i;
                    a.next();
                    b.next();
                    (id, sum)
                }
                (Some((i, _)), Some((j, _))) if i > j => b.next().map(|(j, y)| (*j, k * y)).unwrap_or_default(),
                (Some(_), _) => a.next().cloned().unwrap_or_default(),
                (None, Some(_)) => b.next().map(|(j, y)| (*j, k * y)).unwrap_or_default(),
                (None, None) => break,
            };
            if term.1.sign() != Sign::NoSign {
                terms.push(term);
            }
        }
        Self { terms, constant: &self.constant + k * &other.constant }
    }

    /// The integers it can be.
    pub fn interval(&self, vars: &[Var]) -> Interval {
        let mut out = Interval { low: self.constant.clone(), high: self.constant.clone() };
        for (id, k) in &self.terms {
            let reach = k * BigInt::from(vars[*id as usize].max.clone());
            match k.sign() {
                Sign::Minus => out.low += reach,
                _ => out.high += reach,
            }
        }
        out
    }
}

/// A multiple's coefficient, of least magnitude modulo `p`.
pub fn centred(k: u32) -> BigInt {
    let k = i64::from(k) % P as i64;
    BigInt::from(if k > P as i64 / 2 { k - P as i64 } else { k })
}
