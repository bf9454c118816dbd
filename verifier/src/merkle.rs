//! The Merkle trees of the `evm` profile: Plonky3's, whose openings also carry the nodes of one level near the root.
//!
//! The outer circuit hashes that level to the root once for all queries and selects, by an index' highest bits, the node where a query's
//! path ends. A selection costs less than the levels it replaces.

use circuits::ir::F;
use circuits::poseidon2::{self, Permutation};
use p3_bn254::Bn254;
use p3_commit::{BatchOpening, BatchOpeningRef, Mmcs};
use p3_matrix::{Dimensions, Matrix};
use p3_merkle_tree::{MerkleTreeMmcs, PrunedMerklePaths};
use p3_symmetric::{MultiField32PaddingFreeSponge, PseudoCompressionFunction, TruncatedPermutation};
use serde::{Deserialize, Serialize};

/// Depth of the level that openings carry, in trees that are deep enough.
const TOP: usize = 4;

type Sponge = MultiField32PaddingFreeSponge<F, Bn254, Permutation, 3, 2, 1>;
type Compression = TruncatedPermutation<Permutation, 2, 1, 3>;
type Inner = MerkleTreeMmcs<F, Bn254, Sponge, Compression, 2, 1>;

/// The Merkle tree scheme.
#[derive(Clone, Debug)]
pub struct Trees(Inner);

/// Paths of several queries, and the nodes at [`top_depth`], from the left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paths {
    /// Siblings, each once.
    pub siblings: PrunedMerklePaths<Bn254, 1>,
    /// The nodes.
    pub top: Vec<[Bn254; 1]>,
}

/// A Merkle opening doesn't lead to its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongOpening;

/// Depth of the level that an opening carries, in a tree of `2^depth` leaves.
pub fn top_depth(depth: usize) -> usize {
    depth.min(TOP)
}

/// Depth of a tree over matrices of these dimensions.
pub fn depth(dimensions: &[Dimensions]) -> usize {
    dimensions.iter().map(|d| d.height).max().unwrap_or(1).max(1).ilog2() as usize
}

/// The root above a level's nodes.
pub fn root_of<T: Copy>(nodes: &[T], compress: impl Fn(T, T) -> T) -> Option<T> {
    let mut level = nodes.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| compress(pair[0], *pair.last().unwrap_or(&pair[0]))).collect();
    }
    level.first().copied()
}

impl Default for Trees {
    fn default() -> Self {
        let leaves = Sponge::new(poseidon2::permutation());
        let leaves = leaves.unwrap_or_else(|_| unreachable!("KoalaBear is smaller than BN254"));
        Self(MerkleTreeMmcs::new(leaves, Compression::new(poseidon2::permutation()), 0))
    }
}

impl Trees {
    /// Every query's siblings, from the leaf upwards.
    ///
    /// # Errors
    ///
    /// When the paths don't fit the queries.
    pub fn restore(
        &self,
        dimensions: &[Dimensions],
        indices: &[usize],
        rows: &[Vec<Vec<F>>],
        paths: &Paths,
    ) -> Result<Vec<Vec<Bn254>>, WrongOpening> {
        let restored = self.0.restore_and_recompute_paths(dimensions, indices, rows, &paths.siblings).map_err(|_| WrongOpening)?;
        let restored: Vec<Vec<Bn254>> = restored.into_iter().map(|path| path.siblings.into_iter().map(|[s]| s).collect()).collect();
        // Above the carried level the siblings say again what the nodes say.
        let depth = depth(dimensions);
        let compression = Compression::new(poseidon2::permutation());
        let mut level: Vec<Bn254> = paths.top.iter().map(|[node]| *node).collect();
        for height in depth - top_depth(depth)..depth {
            let agree = |(path, &index): (&Vec<Bn254>, &usize)| path.get(height).is_some_and(|s| level.get((index >> height) ^ 1) == Some(s));
            if !restored.iter().zip(indices).all(agree) {
                return Err(WrongOpening);
            }
            level = level.chunks_exact(2).map(|pair| compression.compress([[pair[0]], [pair[1]]])[0]).collect();
        }
        Ok(restored)
    }
}

impl Mmcs<F> for Trees {
    type ProverData<M> = <Inner as Mmcs<F>>::ProverData<M>;
    type Commitment = <Inner as Mmcs<F>>::Commitment;
    type Proof = <Inner as Mmcs<F>>::Proof;
    type MultiProof = Paths;
    type Error = WrongOpening;

    fn commit<M: Matrix<F>>(&self, inputs: Vec<M>) -> (Self::Commitment, Self::ProverData<M>) {
        self.0.commit(inputs)
    }

    fn open_batch<M: Matrix<F>>(&self, index: usize, data: &Self::ProverData<M>) -> BatchOpening<F, Self> {
        let BatchOpening { opened_values, opening_proof } = self.0.open_batch(index, data);
        BatchOpening { opened_values, opening_proof }
    }

    fn get_matrices<'a, M: Matrix<F>>(&self, data: &'a Self::ProverData<M>) -> Vec<&'a M> {
        self.0.get_matrices(data)
    }

    fn verify_batch(
        &self,
        commit: &Self::Commitment,
        dimensions: &[Dimensions],
        index: usize,
        opening: BatchOpeningRef<'_, F, Self>,
    ) -> Result<(), WrongOpening> {
        let opening = BatchOpeningRef::new(opening.opened_values, opening.opening_proof);
        self.0.verify_batch(commit, dimensions, index, opening).map_err(|_| WrongOpening)
    }

    fn open_multi_batch<M: Matrix<F>>(&self, indices: &[usize], data: &Self::ProverData<M>) -> (Vec<Vec<Vec<F>>>, Paths) {
        let (rows, siblings) = self.0.open_multi_batch(indices, data);
        let depth = self.get_max_height(data).ilog2() as usize;
        let below = depth - top_depth(depth);
        // A node is its neighbour's sibling.
        let node = |i: usize| self.0.open_batch((i ^ 1) << below, data).opening_proof.get(below).copied();
        // The only node of a tree of one leaf has no neighbour: there is no level to carry.
        let carried = if depth == 0 { 0 } else { 1 << top_depth(depth) };
        let top = (0..carried).filter_map(node).collect();
        (rows, Paths { siblings, top })
    }

    fn verify_multi_batch<R: AsRef<[F]> + PartialEq>(
        &self,
        commit: &Self::Commitment,
        dimensions: &[Dimensions],
        indices: &[usize],
        rows: &[Vec<R>],
        proof: &Paths,
    ) -> Result<(), WrongOpening> {
        let depth = depth(dimensions);
        let compression = Compression::new(poseidon2::permutation());
        let carried = if depth == 0 { 0 } else { 1 << top_depth(depth) };
        // The number first: what is hashed is bounded by it.
        if proof.top.len() != carried {
            return Err(WrongOpening);
        }
        if depth > 0 && root_of(&proof.top, |l, r| compression.compress([l, r])).is_none_or(|root| commit.roots() != [root]) {
            return Err(WrongOpening);
        }
        self.0.verify_multi_batch(commit, dimensions, indices, rows, &proof.siblings).map_err(|_| WrongOpening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p3_field::PrimeCharacteristicRing;
    use p3_matrix::dense::RowMajorMatrix;

    /// Trees of every small depth: honest openings verify; without a node, with one more, with two exchanged or one changed they don't.
    #[test]
    fn the_carried_level_is_checked() {
        let trees = Trees::default();
        for depth in 0..6 {
            let (height, width) = (1usize << depth, 3);
            let values = (0..height * width).map(|i| F::from_usize(i * i + 1)).collect();
            let (root, data) = trees.commit_matrix(RowMajorMatrix::new(values, width));
            let (dimensions, indices) = ([Dimensions { height, width }], [height - 1, 0, height / 2]);
            let (rows, paths) = trees.open_multi_batch(&indices, &data);
            let verifies = |paths: &Paths| trees.verify_multi_batch(&root, &dimensions, &indices, &rows, paths).is_ok();
            assert!(verifies(&paths) && trees.restore(&dimensions, &indices, &rows, &paths).is_ok(), "depth {depth}");
            let changes: [fn(&mut Vec<[Bn254; 1]>); 4] = [
                |top| top.truncate(top.len().saturating_sub(1)),
                |top| top.push([Bn254::ONE]),
                |top| top.reverse(),
                |top| top.iter_mut().take(1).for_each(|n| n[0] += Bn254::ONE),
            ];
            for (i, change) in changes.iter().enumerate() {
                let mut changed = paths.clone();
                change(&mut changed.top);
                assert!(changed.top == paths.top || !verifies(&changed), "depth {depth}, change {i}");
            }
            for sibling in 0..paths.siblings.sibling_hashes.len() {
                let mut changed = paths.clone();
                changed.siblings.sibling_hashes[sibling][0] += Bn254::ONE;
                assert!(!verifies(&changed), "depth {depth}, sibling {sibling}");
            }
        }
    }

    /// Siblings above the carried level say again what its nodes say: the recording host, which reads no further than that level, refuses others too.
    #[test]
    fn upper_siblings_agree_with_the_carried_level() {
        let trees = Trees::default();
        let (height, width) = (1usize << 6, 3);
        let values = (0..height * width).map(|i| F::from_usize(i * 5 + 2)).collect();
        let (_, data) = trees.commit_matrix(RowMajorMatrix::new(values, width));
        let dimensions = [Dimensions { height, width }];
        let (rows, paths) = trees.open_multi_batch(&[9], &data);
        assert_eq!(paths.siblings.sibling_hashes.len(), 6);
        for sibling in 0..6 {
            let mut changed = paths.clone();
            changed.siblings.sibling_hashes[sibling][0] += Bn254::ONE;
            // The lower two are checked by hashing, where the leaf's path is recorded.
            assert_eq!(trees.restore(&dimensions, &[9], &rows, &changed).is_ok(), sibling < 2, "sibling {sibling}");
        }
    }
}
