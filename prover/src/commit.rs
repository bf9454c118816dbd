//! Committing a group's tensors, pinning what outlives a proof, and opening the result.

use circuits::ir::{EF, F, Group};
use circuits::layout::Layout;
use circuits::relation::Relation;
use circuits::statement::Digest;
use circuits::witness::Witness;
use model_runtime::tensor::TensorMap;
use p3_commit::Mmcs;
use p3_field::PrimeCharacteristicRing;
use p3_matrix::dense::{DenseMatrix, RowMajorMatrix};
use p3_multilinear_util::point::Point;
use p3_multilinear_util::poly::Poly;
use p3_sumcheck::layout::{Layout as _, PrefixProver, Table};
use p3_whir::PcsProof;
use p3_whir::pcs::prover::WhirProver;
use rayon::prelude::*;
use std::path::Path;
use verifier::pcs::{self, Commitment, Opening, encode, stacked};
use verifier::pin;
use verifier::profile::{HashProfile, NativeProfile};

use crate::ProveError;
use crate::kept::{self, Keeping, KeptProfile};
use crate::trees::{self, Trees};

/// Polynomials from this many variables on that aren't kept in a file are encoded a second time when they are opened: their codeword and its
/// tree would take most of the memory until then.
pub const ENCODED_AGAIN_LOG: usize = 25;

/// The opening scheme, over trees that openings share.
type Pcs<C> = WhirProver<EF, F, <C as HashProfile>::Domain, Trees<<C as HashProfile>::Mmcs>, <C as HashProfile>::Challenger, PrefixProver<F, EF>>;
/// What an opening reads the codeword from.
type Tree<C> = trees::Tree<<C as HashProfile>::Mmcs, DenseMatrix<F>>;

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
    /// Of polynomials that aren't encoded again.
    tree: Option<Tree<C>>,
    /// Its pin, once it has one.
    pub pin: Option<Pin>,
}

/// A long-lived commitment's pin, and what it is the hash of beside parameters and root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The point, hashed from parameters and root.
    pub point: Vec<EF>,
    /// The polynomial's value there.
    pub value: EF,
    /// The pin.
    pub digest: Digest,
}

/// A signed integer as a field element.
pub fn embed(x: i32) -> F {
    F::from_i32(x)
}

/// The stacked values of a layout; `values` gives each tensor's integers, padding included.
pub fn stack<'a>(layout: &Layout, values: impl Fn(circuits::ir::TensorId) -> &'a [i32]) -> Vec<F> {
    let mut out = vec![F::ZERO; 1 << layout.log];
    for slot in &layout.slots {
        let (values, (starts, len)) = (values(slot.tensor), slot.runs());
        let runs = out[slot.offset..][..1 << slot.log].par_chunks_mut(len).zip(starts);
        runs.for_each(|(target, start)| target.par_iter_mut().zip(&values[start..start + len]).for_each(|(t, &x)| *t = embed(x)));
    }
    out
}

impl<C: NativeProfile> Committed<C> {
    /// Commits a group of a witness, and pins it if it outlives the proof.
    ///
    /// # Errors
    ///
    /// When the relation has nothing in the group, or there are no parameters for its size.
    pub fn of_witness(relation: &Relation, group: Group, witness: &Witness) -> Result<Self, ProveError> {
        let layout = Layout::of(relation, group).ok_or(ProveError::NoGroup(group))?;
        let values = stack(&layout, |id| &witness.tensors[id.0]);
        Ok(Self::new(group, layout, values)?.pinned(relation))
    }

    /// With its pin, if it is of a group that has one: one pass over the values.
    pub fn pinned(mut self, relation: &Relation) -> Self {
        if self.group.is_pinned() {
            let parameters = pin::parameters(C::PROFILE, relation, self.group, &self.layout);
            let point = pin::point::<C>(&parameters, &self.root, self.layout.log);
            let value = Poly::new(self.values()).eval_base(&Point::new(point.clone()));
            self.pin = Some(Pin { digest: C::pin(&parameters, &self.root, value), point, value });
        }
        self
    }

    /// Commits stacked values.
    ///
    /// # Errors
    ///
    /// When there are no parameters for this size.
    pub fn new(group: Group, layout: Layout, values: Vec<F>) -> Result<Self, ProveError> {
        let pcs = scheme::<C>(group, layout.log)?;
        let table = table(values);
        let (_, codeword) = encode::<C>(group, &table);
        let (root, tree) = Trees(C::mmcs()).commit_matrix(codeword);
        let tree = (layout.log < ENCODED_AGAIN_LOG).then_some(tree);
        Ok(Self { group, layout, table, root, pcs, tree, pin: None })
    }

    /// Takes the commitment of these values that a file holds; or commits them, and writes the file. Its codeword stays there: an opening reads
    /// the rows that it's asked for.
    ///
    /// # Errors
    ///
    /// When there are no parameters for this size.
    pub fn kept(group: Group, layout: Layout, values: Vec<F>, file: &Path) -> Result<(Self, Keeping), ProveError>
    where
        C: KeptProfile,
    {
        let pcs = scheme::<C>(group, layout.log)?;
        let table = table(values);
        let (kept, keeping) = kept::take_or_make::<C>(group, &table, file);
        let is_held = !matches!(keeping, Keeping::Failed(_)) || layout.log < ENCODED_AGAIN_LOG;
        let (root, tree) = (kept.root.clone(), is_held.then(|| trees::Tree::Kept(kept)));
        Ok((Self { group, layout, table, root, pcs, tree, pin: None }, keeping))
    }

    /// Its values.
    pub fn values(&self) -> &[F] {
        self.table.poly(0).into_slice()
    }

    /// What statements call it: its pin, or the digest of its root where it has none.
    pub fn digest(&self) -> Digest {
        self.pin.as_ref().map_or_else(|| C::digest(&self.root), |pin| pin.digest)
    }

    /// Opens it at a point, and at its pin's.
    ///
    /// # Errors
    ///
    /// When the opening scheme refuses.
    pub fn open(&self, point: &[EF], challenger: &mut C::Challenger) -> Result<Opening<C>, ProveError> {
        if let Some(tree) = &self.tree {
            let layout = PrefixProver::from_witness(stacked::<C>(self.group, &self.table));
            let mut transcript = challenger.clone();
            let opening = self.opened(layout, tree.clone(), point, &mut transcript)?;
            // Of a damaged file what was opened is worth nothing.
            if !tree.is_damaged() {
                *challenger = transcript;
                return Ok(opening);
            }
        }
        let (layout, codeword) = encode::<C>(self.group, &self.table);
        let (_, tree) = Trees(C::mmcs()).commit_matrix(codeword);
        self.opened(layout, tree, point, challenger)
    }

    fn opened(&self, mut layout: PrefixProver<F, EF>, tree: Tree<C>, point: &[EF], challenger: &mut C::Challenger) -> Result<Opening<C>, ProveError> {
        let points: Vec<Point<EF>> =
            [point].into_iter().chain(self.pin.iter().map(|pin| pin.point.as_slice())).map(|p| Point::new(p.to_vec())).collect();
        let protocol = pcs::protocol(point.len(), points.len());
        let outside = (0..self.pcs.commitment_ood_samples()).map(|_| layout.add_virtual_eval(challenger)).collect();
        let openings = protocol.iter_openings().zip(&points);
        let evals = openings.map(|((table, batch), point)| layout.eval_at(table, batch, point, challenger)).collect();
        let whir = self.pcs.prove(outside, challenger, layout, tree, protocol.num_openings()).map_err(|e| ProveError::Opening(e.to_string()))?;
        Ok(PcsProof { whir: trees::unwrapped(whir), evals })
    }
}

/// The opening scheme's prover.
fn scheme<C: NativeProfile>(group: Group, log: usize) -> Result<Pcs<C>, ProveError> {
    let config = pcs::scheme::<C>(group, log)?.clone();
    Ok(Pcs::<C>::new(config, C::domain(0), Trees(C::mmcs())))
}

/// One polynomial.
fn table(values: Vec<F>) -> Table<F> {
    let len = values.len();
    Table::new(RowMajorMatrix::new(values, len))
}

/// Bytes that encoding `2^log` values takes beside them: the opening scheme's copy, the codeword, its tree.
pub fn encoded_bytes<C: HashProfile>(group: Group, log: usize) -> usize {
    let (rate, fold) = pcs::rate_and_fold(C::PROFILE, group, log);
    let digest = size_of::<Digest>();
    size_of::<F>() * ((1 << log) + (1 << (log + rate))) + 2 * digest * (1 << (log + rate).saturating_sub(fold))
}

/// What statements call a group's commitment, made from tensors by name, without a witness.
///
/// # Errors
///
/// When a tensor of the layout is missing or of another size.
pub fn digest_of<C: NativeProfile>(relation: &Relation, group: Group, tensors: &TensorMap) -> Result<Digest, ProveError> {
    let (layout, values) = values_of(relation, group, tensors)?;
    Ok(Committed::<C>::new(group, layout, values)?.pinned(relation).digest())
}

/// A group's layout and its values, from tensors by name.
///
/// # Errors
///
/// When a tensor of the layout is missing or of another size.
pub fn values_of(relation: &Relation, group: Group, tensors: &TensorMap) -> Result<(Layout, Vec<F>), ProveError> {
    let layout = Layout::of(relation, group).ok_or(ProveError::NoGroup(group))?;
    for slot in &layout.slots {
        let (name, expected) = (&relation.tensors[slot.tensor.0].name, 1 << slot.variables.len());
        if tensors.get(name).is_none_or(|t| t.data.len() != expected) {
            return Err(ProveError::Tensor { name: name.clone(), expected });
        }
    }
    let values = stack(&layout, |id| tensors.get(&relation.tensors[id.0].name).map_or(&[], |t| &t.data));
    Ok((layout, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use verifier::profile::Native;

    const LOG: usize = circuits::layout::MIN_LOG;

    #[test]
    fn openings_of_very_large_polynomials_ask_more_of_each_term() {
        for log in [LOG, 23, 24, 29] {
            let (bits, _) = pcs::security::<Native>(Group::Base, log).unwrap();
            assert!(bits >= if log < 24 { 102.0 } else { 103.0 }, "2^{log}: {bits} bits");
        }
    }
}
