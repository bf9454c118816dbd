use super::*;
use crate::packed::tests::elements;
use p3_field::{BasedVectorSpace, PackedValue};
use p3_multi_stark::fractional_gkr::{Fraction, LeafNumerator, prove_fractional_gkr};
use p3_multilinear_util::poly::{Poly, PolyMaybePacked};
use verifier::profile::{HashProfile, Native};

/// Leaves that add up to zero.
struct Fixed {
    n: Vec<F>,
    d: Vec<EF>,
}

impl Fixed {
    /// Each fraction occurs twice, once with either sign.
    fn balanced(log: usize) -> Self {
        let mut next = elements(1);
        let half: Vec<(F, EF)> = (0..1 << (log - 1)).map(|_| (next(), EF::from_basis_coefficients_fn(|_| next()))).collect();
        let other = half.iter().rev().map(|&(n, d)| (-n, d));
        let (n, d) = half.iter().copied().chain(other).unzip();
        Self { n, d }
    }
}

impl Leaves for Fixed {
    fn log(&self) -> usize {
        self.n.len().trailing_zeros() as usize
    }

    fn read(&self, start: usize, numerators: &mut [PackedF], denominators: &mut [PackedEF]) {
        for (k, (n, d)) in numerators.iter_mut().zip(denominators).enumerate() {
            let at = start + k * WIDTH;
            *n = *PackedF::from_slice(&self.n[at..at + WIDTH]);
            *d = PackedEF::from_ext_slice(&self.d[at..at + WIDTH]);
        }
    }
}

#[test]
fn proofs_are_plonky3s_whatever_is_held() {
    let least = WIDTH.trailing_zeros() as usize + 1;
    for log in [least + 1, least + 2, 12, 15] {
        let leaves = Fixed::balanced(log);
        let (numerators, denominators) = (Poly::new(leaves.n.clone()), PolyMaybePacked::Scalar(Poly::new(leaves.d.clone())));
        let seed = Default::default();
        let fraction = Fraction { n: LeafNumerator::Base(&numerators), d: &denominators };
        let expected = prove_fractional_gkr(fraction, &mut Native::challenger(&seed));
        let tight = Limits { stored_log: least, bound_log: least };
        let some = Limits { stored_log: log.saturating_sub(3).max(least), bound_log: log.saturating_sub(4).max(least) };
        for limits in [tight, some, Limits::default()] {
            let found = prove(&leaves, limits, &mut Native::challenger(&seed)).unwrap();
            assert_eq!(found, expected, "2^{log} leaves within {limits:?}");
        }
    }
}

#[test]
fn unbalanced_and_undefined_sums_are_refused() {
    let mut leaves = Fixed::balanced(10);
    leaves.n[3] += F::ONE;
    let attempt = |leaves: &Fixed| prove(leaves, Limits::default(), &mut Native::challenger(&Default::default())).map(|_| ());
    assert_eq!(attempt(&leaves), Err(ProveError::Unbalanced));
    leaves.d[3] = EF::ZERO;
    assert_eq!(attempt(&leaves), Err(ProveError::UnluckyChallenge));
}
