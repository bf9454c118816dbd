//! Lagrange polynomials of the circuit's rows at a point: `L_i(x) = ω^i (x^n - 1) / (n (x - ω^i))`.

use crate::error::ProofError;
use ark_bn254::Fr;
use ark_ff::{Field, Zero, batch_inversion};

/// The rows of a circuit: powers of a root of unity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    omega: Fr,
    omega_inverse: Fr,
    count: u64,
}

impl Rows {
    pub(crate) fn new(omega: Fr, count: u64) -> Result<Self, ProofError> {
        Ok(Self { omega, omega_inverse: omega.inverse().ok_or(ProofError::Key)?, count })
    }

    /// `ω^i`.
    pub(crate) fn power(&self, i: i64) -> Fr {
        let base = if i < 0 { self.omega_inverse } else { self.omega };
        base.pow([i.unsigned_abs()])
    }

    /// `x^n - 1`.
    pub(crate) fn vanishing(&self, x: Fr) -> Fr {
        x.pow([self.count]) - Fr::ONE
    }

    /// The Lagrange polynomials of rows `first`, `first + 1`, … at `x`, which must not be a row.
    pub(crate) fn lagrange(&self, x: Fr, first: i64, count: usize) -> Result<Vec<Fr>, ProofError> {
        let powers: Vec<Fr> = std::iter::successors(Some(self.power(first)), |power| Some(*power * self.omega)).take(count).collect();
        let mut inverses: Vec<Fr> = powers.iter().map(|power| x - power).collect();
        if inverses.iter().any(Zero::is_zero) {
            return Err(ProofError::UnluckyChallenge);
        }
        batch_inversion(&mut inverses);
        let common = self.vanishing(x) * Fr::from(self.count).inverse().ok_or(ProofError::Key)?;
        Ok(powers.iter().zip(inverses).map(|(power, inverse)| common * power * inverse).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::root_of_unity;

    #[test]
    fn interpolates() {
        let rows = Rows::new(root_of_unity(3).unwrap(), 8).unwrap();
        let x = Fr::from(12345);
        let polynomial = |x: Fr| x.pow([7]) + Fr::from(3) * x - Fr::from(1);
        for first in [-9, -3, 0, 5] {
            let lagrange = rows.lagrange(x, first, 8).unwrap();
            let sum: Fr = lagrange.iter().zip(first..).map(|(l, i)| polynomial(rows.power(i)) * l).sum();
            assert_eq!(sum, polynomial(x));
        }
    }

    #[test]
    fn a_row_is_refused() {
        let rows = Rows::new(root_of_unity(3).unwrap(), 8).unwrap();
        assert_eq!(rows.lagrange(rows.power(2), 0, 8), Err(ProofError::UnluckyChallenge));
    }
}
