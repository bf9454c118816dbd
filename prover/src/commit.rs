//! Committing a group's tensors, and opening the result.

use circuits::ir::{EF, F, Group};
use circuits::layout::Layout;
use circuits::statement::Digest;
use circuits::witness::Witness;
use model_runtime::tensor::TensorMap;
use p3_commit::MultilinearPcs;
use p3_field::PrimeCharacteristicRing;
use p3_matrix::dense::RowMajorMatrix;
use p3_multilinear_util::point::Point;
use p3_sumcheck::PrescribedPointPcs;
use p3_sumcheck::layout::{Layout as _, PrefixProver, Table};
use rayon::prelude::*;
use verifier::pcs::{self, Commitment, Opening, Pcs};
use verifier::profile::{HashProfile, NativeProfile};

use crate::ProveError;

/// Polynomials from this many variables on are encoded a second time when they are opened: their codeword and its tree would take most
/// of the memory until then.
pub const ENCODED_AGAIN_LOG: usize = 25;

/// What an opening needs beside the values.
type Encoded<C> = <Pcs<C> as MultilinearPcs<EF, <C as HashProfile>::Challenger>>::ProverData;

/// A committed polynomial, ready to be opened any number of times.
pub struct Committed<C: NativeProfile> {
    /// Which group it holds.
    pub group: Group,
    /// Where tensors lie in it.
    pub layout: Layout,
    /// Its values, shared with what is encoded.
    table: Table<F>,
    /// The root.
    pub root: Commitment<C>,
    pcs: Pcs<C>,
    /// Kept of polynomials that aren't encoded again.
    encoded: Option<Encoded<C>>,
}

/// A signed integer as a field element.
pub fn embed(x: i32) -> F {
    F::from_i32(x)
}

/// The stacked values of a layout; `values` gives each tensor's integers.
pub fn stack<'a>(layout: &Layout, values: impl Fn(circuits::ir::TensorId) -> &'a [i32]) -> Vec<F> {
    let mut out = vec![F::ZERO; 1 << layout.log];
    for slot in &layout.slots {
        let target = &mut out[slot.offset..][..1 << slot.log];
        target.par_iter_mut().zip(values(slot.tensor)).for_each(|(t, &x)| *t = embed(x));
    }
    out
}

impl<C: NativeProfile> Committed<C> {
    /// Commits a group of a witness.
    ///
    /// # Errors
    ///
    /// When there are no parameters for the group's size.
    pub fn of_witness(group: Group, layout: Layout, witness: &Witness) -> Result<Self, ProveError> {
        let values = stack(&layout, |id| &witness.tensors[id.0]);
        Self::new(group, layout, values)
    }

    /// Commits stacked values.
    ///
    /// # Errors
    ///
    /// When there are no parameters for this size.
    pub fn new(group: Group, layout: Layout, values: Vec<F>) -> Result<Self, ProveError> {
        let pcs = pcs::scheme::<C>(group, layout.log)?;
        let len = values.len();
        let table = Table::new(RowMajorMatrix::new(values, len));
        let (root, encoded) = encode::<C>(&pcs, group, &table)?;
        let encoded = (layout.log < ENCODED_AGAIN_LOG).then_some(encoded);
        Ok(Self { group, layout, table, root, pcs, encoded })
    }

    /// Its values.
    pub fn values(&self) -> &[F] {
        self.table.poly(0).into_slice()
    }

    /// The root's digest.
    pub fn digest(&self) -> Digest {
        C::digest(&self.root)
    }

    /// A tensor's values.
    pub fn tensor(&self, id: circuits::ir::TensorId) -> Option<&[F]> {
        self.layout.slot(id).and_then(|slot| self.values().get(slot.offset..slot.offset + (1 << slot.log)))
    }

    /// Opens it at a point.
    ///
    /// # Errors
    ///
    /// When the opening scheme refuses.
    pub fn open(&self, point: &[EF], challenger: &mut C::Challenger) -> Result<Opening<C>, ProveError> {
        let points = [Point::new(point.to_vec())];
        let encoded = self.encoded.clone().map_or_else(|| encode::<C>(&self.pcs, self.group, &self.table).map(|(_, encoded)| encoded), Ok)?;
        self.pcs.open_at(encoded, &pcs::protocol(point.len()), &points, challenger).map_err(|e| ProveError::Opening(e.to_string()))
    }
}

/// Bytes that encoding `2^log` values takes beside them: the opening scheme's copy, the codeword, its tree.
pub fn encoded_bytes<C: HashProfile>(group: Group, log: usize) -> usize {
    let (rate, fold) = pcs::rate_and_fold(C::PROFILE, group, log);
    let digest = size_of::<Digest>();
    size_of::<F>() * ((1 << log) + (1 << (log + rate))) + 2 * digest * (1 << (log + rate).saturating_sub(fold))
}

/// Encodes values and hashes the codeword.
fn encode<C: NativeProfile>(pcs: &Pcs<C>, group: Group, table: &Table<F>) -> Result<(Commitment<C>, Encoded<C>), ProveError> {
    let (_, fold) = pcs::rate_and_fold(C::PROFILE, group, table.num_variables());
    let witness = PrefixProver::<F, EF>::new_witness(vec![table.clone()], fold);
    // The transcript absorbs the root later, in the schedule's order.
    <Pcs<C> as MultilinearPcs<EF, C::Challenger>>::commit(pcs, witness, &mut C::challenger(&Digest::default()))
        .map_err(|e| ProveError::Opening(e.to_string()))
}

/// Digest of a group that is made from tensors by name, without a witness.
///
/// # Errors
///
/// When a tensor of the layout is missing or of another size.
pub fn digest_of<C: NativeProfile>(relation: &circuits::relation::Relation, group: Group, tensors: &TensorMap) -> Result<Digest, ProveError> {
    let layout = Layout::of(relation, group).ok_or(ProveError::NoGroup(group))?;
    for slot in &layout.slots {
        let name = &relation.tensors[slot.tensor.0].name;
        if tensors.get(name).is_none_or(|t| t.data.len() != 1 << slot.log) {
            return Err(ProveError::Tensor { name: name.clone(), expected: 1 << slot.log });
        }
    }
    let values = stack(&layout, |id| tensors.get(&relation.tensors[id.0].name).map_or(&[], |t| &t.data));
    Ok(Committed::<C>::new(group, layout, values)?.digest())
}
