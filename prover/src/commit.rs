//! Committing a group's tensors, pinning what outlives a proof, and opening the result.

use circuits::ir::{EF, F, Group};
use circuits::layout::Layout;
use circuits::relation::Relation;
use circuits::statement::{Digest, PROTOCOL_VERSION};
use circuits::witness::Witness;
use model_runtime::tensor::TensorMap;
use p3_commit::Mmcs;
use p3_field::{PrimeCharacteristicRing, PrimeField32};
use p3_matrix::dense::RowMajorMatrix;
use p3_matrix::{Dimensions, Matrix};
use p3_multilinear_util::point::Point;
use p3_multilinear_util::poly::Poly;
use p3_sumcheck::layout::{Layout as _, PrefixProver, Table};
use p3_whir::PcsProof;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use verifier::pcs::{self, Commitment, Opening, Pcs, Tree, encode, stacked};
use verifier::pin;
use verifier::profile::{HashProfile, NativeProfile};

use crate::ProveError;

/// Polynomials from this many variables on are encoded a second time when they are opened: their codeword and its tree would take most
/// of the memory until then.
pub const ENCODED_AGAIN_LOG: usize = 25;

/// Format of [`Committed::to_bytes`].
const FORMAT: u32 = 1;

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

/// A commitment on disk.
#[derive(Serialize, Deserialize)]
struct Stored<R, T> {
    format: u32,
    /// Digest of the values and of how they are committed.
    of: [u8; 32],
    root: R,
    tree: T,
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
        let pcs = pcs::scheme::<C>(group, layout.log)?;
        let table = table(values);
        let (root, _, tree) = encode::<C>(group, &table);
        let tree = (layout.log < ENCODED_AGAIN_LOG).then_some(tree);
        Ok(Self { group, layout, table, root, pcs, tree, pin: None })
    }

    /// The commitment as [`Committed::stored_or_new`] takes it; `None` for polynomials that are encoded again.
    ///
    /// # Errors
    ///
    /// When it can't be encoded.
    pub fn to_bytes(&self) -> Result<Option<Vec<u8>>, ProveError> {
        let encode = |tree: &Tree<C>| {
            let stored = Stored { format: FORMAT, of: fingerprint::<C>(self.group, self.values()), root: &self.root, tree };
            postcard::to_allocvec(&stored).map_err(|e| ProveError::Encoding(e.to_string()))
        };
        let sealed = |bytes: Vec<u8>| [blake3::hash(&bytes).as_bytes().as_slice(), &bytes].concat();
        Ok(self.tree.as_ref().map(encode).transpose()?.map(sealed))
    }

    /// Takes the commitment that [`Committed::to_bytes`] stored, or commits anew where that is damaged, of other values or of another form;
    /// whether it was taken.
    ///
    /// # Errors
    ///
    /// When there are no parameters for this size.
    pub fn stored_or_new(group: Group, layout: Layout, values: Vec<F>, stored: &[u8]) -> Result<(Self, bool), ProveError> {
        match stored_of::<C>(group, &values, stored) {
            Some(Stored { root, tree, .. }) => {
                let pcs = pcs::scheme::<C>(group, layout.log)?;
                Ok((Self { group, layout, table: table(values), root, pcs, tree: Some(tree), pin: None }, true))
            }
            None => Ok((Self::new(group, layout, values)?, false)),
        }
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
        let (mut layout, tree) = match &self.tree {
            Some(tree) => (PrefixProver::from_witness(stacked::<C>(self.group, &self.table)), tree.clone()),
            None => {
                let (_, layout, tree) = encode::<C>(self.group, &self.table);
                (layout, tree)
            }
        };
        let points: Vec<Point<EF>> =
            [point].into_iter().chain(self.pin.iter().map(|pin| pin.point.as_slice())).map(|p| Point::new(p.to_vec())).collect();
        let protocol = pcs::protocol(point.len(), points.len());
        let outside = (0..self.pcs.commitment_ood_samples()).map(|_| layout.add_virtual_eval(challenger)).collect();
        let openings = protocol.iter_openings().zip(&points);
        let evals = openings.map(|((table, batch), point)| layout.eval_at(table, batch, point, challenger)).collect();
        let whir = self.pcs.prove(outside, challenger, layout, tree, protocol.num_openings()).map_err(|e| ProveError::Opening(e.to_string()))?;
        Ok(PcsProof { whir, evals })
    }
}

/// What [`Committed::to_bytes`] stored of these values.
fn stored_of<C: NativeProfile>(group: Group, values: &[F], bytes: &[u8]) -> Option<Stored<Commitment<C>, Tree<C>>> {
    let (seal, content) = bytes.split_at_checked(32)?;
    if blake3::hash(content).as_bytes() != seal {
        return None;
    }
    let stored: Stored<Commitment<C>, Tree<C>> = postcard::from_bytes(content).ok()?;
    let is_own = stored.format == FORMAT && stored.of == fingerprint::<C>(group, values);
    (is_own && leads_to_root::<C>(group, values.len(), &stored)).then_some(stored)
}

/// Whether the codeword has its size and its first leaf leads to the root: it doesn't if the tree was made with another hash.
fn leads_to_root<C: NativeProfile>(group: Group, len: usize, stored: &Stored<Commitment<C>, Tree<C>>) -> bool {
    let (rate, fold) = pcs::rate_and_fold(C::PROFILE, group, len.trailing_zeros() as usize);
    let (trees, dimensions) = (C::mmcs(), [Dimensions { width: 1 << fold, height: (len << rate) >> fold }]);
    let fits = matches!(trees.get_matrices(&stored.tree).as_slice(), [codeword] if codeword.dimensions() == dimensions[0]);
    if !fits {
        return false;
    }
    let opening = trees.open_batch(0, &stored.tree);
    trees.verify_batch(&stored.root, &dimensions, 0, (&opening).into()).is_ok()
}

/// One polynomial.
fn table(values: Vec<F>) -> Table<F> {
    let len = values.len();
    Table::new(RowMajorMatrix::new(values, len))
}

/// What tells values and their encoding apart from others.
fn fingerprint<C: HashProfile>(group: Group, values: &[F]) -> [u8; 32] {
    let (rate, fold) = pcs::rate_and_fold(C::PROFILE, group, values.len().trailing_zeros() as usize);
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{PROTOCOL_VERSION} {:?} {group:?} {rate} {fold}\n", C::PROFILE).as_bytes());
    for chunk in values.chunks(1 << 12) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|x| x.as_canonical_u32().to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    *hasher.finalize().as_bytes()
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
    use p3_challenger::CanObserve;
    use verifier::profile::{Evm, Native};

    const LOG: usize = circuits::layout::MIN_LOG;

    fn layout() -> Layout {
        Layout { slots: vec![], log: LOG }
    }

    fn values(seed: u32) -> Vec<F> {
        (0..1 << LOG).map(|i: u32| F::from_u32(i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8)).collect()
    }

    fn transcript<C: NativeProfile>(root: &Commitment<C>) -> C::Challenger {
        let mut challenger = C::challenger(&Digest::default());
        challenger.observe(root.clone());
        challenger
    }

    /// A stored commitment has the same root, and opens.
    fn is_taken_up_again<C: NativeProfile>() {
        let fresh = Committed::<C>::new(Group::Base, layout(), values(1)).unwrap();
        let bytes = fresh.to_bytes().unwrap().unwrap();
        let (stored, taken) = Committed::<C>::stored_or_new(Group::Base, layout(), values(1), &bytes).unwrap();
        assert!(taken && stored.root == fresh.root);
        let point: Vec<EF> = (0..LOG as u32).map(|i| EF::from_u32(i * i + 5)).collect();
        let opening = stored.open(&point, &mut transcript::<C>(&stored.root)).unwrap();
        let value = Poly::new(stored.values()).eval_base(&Point::new(point.clone()));
        let pcs = pcs::scheme::<C>(Group::Base, LOG).unwrap();
        pcs::verify::<C>(&pcs, &fresh.root, &opening, &[(&point, value)], &mut transcript::<C>(&fresh.root)).unwrap();
        // With a root that isn't the tree's, or the tree of another polynomial's size: made anew, though all else agrees.
        let seal = |stored: Stored<Commitment<C>, Tree<C>>| {
            let bytes = postcard::to_allocvec(&stored).unwrap();
            [blake3::hash(&bytes).as_bytes().as_slice(), &bytes].concat()
        };
        let other = Committed::<C>::new(Group::Base, layout(), values(2)).unwrap();
        let (small_root, _, small_tree) = encode::<C>(Group::Base, &table(values(1)[..1 << (LOG - 1)].to_vec()));
        let of = fingerprint::<C>(Group::Base, fresh.values());
        let wrong = [(other.root.clone(), fresh.tree.clone().unwrap()), (small_root, small_tree)];
        for (root, tree) in wrong {
            let bytes = seal(Stored { format: FORMAT, of, root, tree });
            let (made, taken) = Committed::<C>::stored_or_new(Group::Base, layout(), values(1), &bytes).unwrap();
            assert!(!taken && made.root == fresh.root);
        }
        // Of other values, of another group, damaged or cut: made anew.
        let cases = [(Group::Base, values(2), bytes.clone()), (Group::Trace, values(1), bytes.clone())];
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 3] ^= 4;
        let broken = [damaged, bytes[..bytes.len() - 1].to_vec(), vec![], vec![0; 40]].map(|bytes| (Group::Base, values(1), bytes));
        for (group, values, bytes) in cases.into_iter().chain(broken) {
            let expected = Committed::<C>::new(group, layout(), values.clone()).unwrap();
            let (made, taken) = Committed::<C>::stored_or_new(group, layout(), values, &bytes).unwrap();
            assert!(!taken && made.root == expected.root);
        }
    }

    #[test]
    fn stored_commitments_are_taken_up_again() {
        is_taken_up_again::<Native>();
        is_taken_up_again::<Evm>();
    }

    #[test]
    fn openings_of_very_large_polynomials_ask_more_of_each_term() {
        for log in [LOG, 23, 24, 29] {
            let (bits, _) = pcs::security::<Native>(Group::Base, log).unwrap();
            assert!(bits >= if log < 24 { 102.0 } else { 103.0 }, "2^{log}: {bits} bits");
        }
    }
}
