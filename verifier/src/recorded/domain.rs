//! The evaluation domain of recorded openings: the canonical two-adic subgroup, at recorded indices.

use super::base::Base;
use super::ext::Ext;
use super::hash::index_bits;
use p3_commit::Encoder;
use p3_field::{PrimeCharacteristicRing, TwoAdicField};
use p3_matrix::dense::RowMajorMatrix;
use p3_whir::domain::{WhirDomain, WhirQueryPoint};

/// The two-adic subgroup.
#[derive(Clone, Copy, Debug)]
pub struct Subgroup;

impl Encoder<Base> for Subgroup {
    fn encode_batch(&self, _: RowMajorMatrix<Base>, _: usize) -> RowMajorMatrix<Base> {
        unreachable!("only verifiers are recorded")
    }
}

impl WhirDomain<Base, Ext> for Subgroup {
    fn protocol_id(&self) -> &'static [u8] {
        b""
    }

    fn supports_security_assumption(&self, _: p3_security::SecurityAssumption) -> bool {
        true
    }

    fn max_log_domain_size(&self) -> usize {
        Base::TWO_ADICITY
    }

    fn encode_extension_batch_padded(&self, _: RowMajorMatrix<Ext>, _: usize) -> RowMajorMatrix<Ext> {
        unreachable!("only verifiers are recorded")
    }

    /// `generator^index`, bit by bit.
    fn query_point(&self, log_domain_size: usize, _: usize, index: usize) -> WhirQueryPoint<Base> {
        let bits = index_bits(index, log_domain_size);
        let power = |i: usize| Base::two_adic_generator(log_domain_size - i);
        let factor = |(i, bit): (usize, &Base)| Base::ONE + *bit * (power(i) - Base::ONE);
        WhirQueryPoint::Univariate(bits.iter().rev().enumerate().map(factor).product())
    }
}
