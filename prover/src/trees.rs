//! A profile's Merkle trees as the prover holds them: shared by openings instead of copied, and with rows that may lie in a file.

use crate::codeword::Codeword;
use circuits::ir::{EF, F};
use p3_commit::{BatchOpening, BatchOpeningRef, Mmcs};
use p3_matrix::{Dimensions, Matrix};
use p3_whir::{WhirProof, WhirRoundProof};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A profile's trees; commitments, openings and what verifies them are its own.
#[derive(Clone, Debug)]
pub struct Trees<M>(pub M);

/// What a tree is opened from.
pub enum Tree<M: Mmcs<F>, X> {
    /// All of it is in memory.
    Held(Arc<M::ProverData<X>>),
    /// Its codeword is one that may be kept in a file.
    Kept(Arc<Kept<M>>),
}

/// A tree over a codeword that may be kept in a file.
pub struct Kept<M: Mmcs<F>> {
    /// The root.
    pub root: M::Commitment,
    /// The tree.
    pub tree: M::ProverData<Codeword>,
    file: Option<PathBuf>,
    is_damaged: AtomicBool,
}

impl<M: Mmcs<F>> Kept<M> {
    /// A tree with its root, and the file that its codeword is read from.
    pub fn new(root: M::Commitment, tree: M::ProverData<Codeword>, file: Option<PathBuf>) -> Self {
        Self { root, tree, file, is_damaged: AtomicBool::new(false) }
    }
}

impl<M: Mmcs<F>, X> Tree<M, X> {
    /// Whether rows were opened that don't lead to the root. The file that they are from is removed then: the next proof makes it again.
    pub fn is_damaged(&self) -> bool {
        let Self::Kept(kept) = self else { return false };
        let is_damaged = kept.is_damaged.load(Ordering::Acquire);
        if let Some(file) = kept.file.as_ref().filter(|_| is_damaged) {
            // It may be gone already.
            let _ = std::fs::remove_file(file);
        }
        is_damaged
    }
}

impl<M: Mmcs<F>, X> Clone for Tree<M, X> {
    fn clone(&self) -> Self {
        match self {
            Self::Held(tree) => Self::Held(Arc::clone(tree)),
            Self::Kept(tree) => Self::Kept(Arc::clone(tree)),
        }
    }
}

impl<M: Mmcs<F>> Mmcs<F> for Trees<M> {
    type ProverData<X> = Tree<M, X>;
    type Commitment = M::Commitment;
    type Proof = M::Proof;
    type MultiProof = M::MultiProof;
    type Error = M::Error;

    fn commit<X: Matrix<F>>(&self, inputs: Vec<X>) -> (Self::Commitment, Self::ProverData<X>) {
        let (root, tree) = self.0.commit(inputs);
        (root, Tree::Held(Arc::new(tree)))
    }

    fn open_batch<X: Matrix<F>>(&self, index: usize, tree: &Tree<M, X>) -> BatchOpening<F, Self> {
        let (values, proof) = match tree {
            Tree::Held(tree) => self.0.open_batch(index, tree).unpack(),
            Tree::Kept(kept) => self.0.open_batch(index, &kept.tree).unpack(),
        };
        BatchOpening::new(values, proof)
    }

    /// None of a kept tree, whose codeword is of another type; nothing in an opening asks for them.
    fn get_matrices<'a, X: Matrix<F>>(&self, tree: &'a Tree<M, X>) -> Vec<&'a X> {
        match tree {
            Tree::Held(tree) => self.0.get_matrices(tree),
            Tree::Kept(_) => vec![],
        }
    }

    fn verify_batch(
        &self,
        root: &Self::Commitment,
        dimensions: &[Dimensions],
        index: usize,
        opening: BatchOpeningRef<'_, F, Self>,
    ) -> Result<(), Self::Error> {
        self.0.verify_batch(root, dimensions, index, BatchOpeningRef::new(opening.opened_values, opening.opening_proof))
    }

    /// What comes from a file is checked before it is used: disks fail, and somebody may have written to it.
    fn open_multi_batch<X: Matrix<F>>(&self, indices: &[usize], tree: &Tree<M, X>) -> (Vec<Vec<Vec<F>>>, Self::MultiProof) {
        match tree {
            Tree::Held(tree) => self.0.open_multi_batch(indices, tree),
            Tree::Kept(kept) => {
                let dimensions: Vec<Dimensions> = self.0.get_matrices(&kept.tree).iter().map(|m| m.dimensions()).collect();
                let (rows, paths) = self.0.open_multi_batch(indices, &kept.tree);
                if self.0.verify_multi_batch(&kept.root, &dimensions, indices, &rows, &paths).is_err() {
                    kept.is_damaged.store(true, Ordering::Release);
                }
                (rows, paths)
            }
        }
    }

    fn verify_multi_batch<R: AsRef<[F]> + PartialEq>(
        &self,
        root: &Self::Commitment,
        dimensions: &[Dimensions],
        indices: &[usize],
        rows: &[Vec<R>],
        proof: &Self::MultiProof,
    ) -> Result<(), Self::Error> {
        self.0.verify_multi_batch(root, dimensions, indices, rows, proof)
    }
}

/// A proof over a profile's trees: the same values.
pub fn unwrapped<M: Mmcs<F>>(proof: WhirProof<F, EF, Trees<M>>) -> WhirProof<F, EF, M> {
    let round = |round: WhirRoundProof<F, EF, Trees<M>>| WhirRoundProof {
        commitment: round.commitment,
        ood_answers: round.ood_answers,
        pow_witness: round.pow_witness,
        openings: round.openings,
        sumcheck: round.sumcheck,
    };
    WhirProof {
        initial_ood_answers: proof.initial_ood_answers,
        initial_sumcheck: proof.initial_sumcheck,
        rounds: proof.rounds.into_iter().map(round).collect(),
        final_poly: proof.final_poly,
        final_pow_witness: proof.final_pow_witness,
        final_openings: proof.final_openings,
        final_sumcheck: proof.final_sumcheck,
    }
}
