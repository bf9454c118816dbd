//! The two hash profiles: the same protocol over two hash functions.

use crate::merkle::Trees;
use circuits::ir::{EF, F};
use circuits::poseidon2;
use circuits::statement::pin::keccak_pin;
use circuits::statement::{Digest, Profile};
use p3_bn254::Bn254;
use p3_challenger::fs::TranscriptField;
use p3_challenger::{
    CanObserve, CanSample, CanSampleBits, CanSampleUniformBits, DuplexChallenger, FieldChallenger, GrindingChallenger, MultiField32Challenger,
    ResamplingError,
};
use p3_commit::Mmcs;
use p3_dft::Radix2DFTSmallBatch;
use p3_field::{BasedVectorSpace, ExtensionField, Field, PrimeCharacteristicRing, PrimeField32};
use p3_koala_bear::{Poseidon2KoalaBear, default_koalabear_poseidon2_16, default_koalabear_poseidon2_24};
use p3_matrix::dense::DenseMatrix;
use p3_merkle_tree::MerkleTreeMmcs;
use p3_symmetric::{Hash, MerkleCap, PaddingFreeSponge, TruncatedPermutation};
use p3_whir::domain::WhirDomain;

/// Everything a profile chooses, over the values that a host computes with: field elements, or their recordings.
pub trait HashProfile: Clone + Send + Sync + 'static {
    /// Its name in statements.
    const PROFILE: Profile;
    /// Largest grinding per round: what a fraction of a second's hashing gives.
    const GRINDING_BITS: usize;
    /// KoalaBear.
    type Base: Field + TranscriptField + Ord;
    /// The quintic extension.
    type Ext: ExtensionField<Self::Base>;
    /// A digest, as the transcript absorbs it.
    type Seed;
    /// Evaluation domain of openings.
    type Domain: WhirDomain<Self::Base, Self::Ext>;
    /// Transcript.
    type Challenger: FieldChallenger<Self::Base>
        + GrindingChallenger<Witness = Self::Base>
        + CanSampleUniformBits<Self::Base>
        + CanObserve<<Self::Mmcs as Mmcs<Self::Base>>::Commitment>
        + Clone
        + Send
        + Sync;
    /// Merkle trees.
    type Mmcs: Mmcs<Self::Base, Commitment: Send + Sync, MultiProof: Send + Sync> + Send + Sync;

    /// A transcript that has absorbed a digest.
    fn challenger(seed: &Self::Seed) -> Self::Challenger;
    /// A digest that the relation fixes.
    fn constant(digest: Digest) -> Self::Seed;
    /// The pin of a root and its polynomial's value at the root's point ([`crate::pin`]).
    fn pin(parameters: &Self::Seed, root: &<Self::Mmcs as Mmcs<Self::Base>>::Commitment, value: Self::Ext) -> Self::Seed;
    /// Whether two digests are equal.
    fn same(a: &Self::Seed, b: &Self::Seed) -> bool;
    /// The Merkle tree scheme.
    fn mmcs() -> Self::Mmcs;
    /// The evaluation domain, for transforms up to the given log size.
    fn domain(log: usize) -> Self::Domain;
    /// `Σ weights_i·elements_i`.
    fn inner_product(weights: &[Self::Ext], elements: &[Self::Base]) -> Self::Ext {
        weights.iter().zip(elements).map(|(&w, &x)| w * x).sum()
    }
}

/// A profile that computes: on field elements.
pub trait NativeProfile:
    HashProfile<
        Base = F,
        Ext = EF,
        Seed = Digest,
        Domain = Radix2DFTSmallBatch<F>,
        Mmcs: Mmcs<F, Commitment: PartialEq, ProverData<DenseMatrix<F>>: Send + Sync>,
    >
{
    /// A root as 32 bytes.
    fn digest(root: &<Self::Mmcs as Mmcs<F>>::Commitment) -> Digest;
    /// The root with these bytes; `None` if they aren't canonical.
    fn root(digest: &Digest) -> Option<<Self::Mmcs as Mmcs<F>>::Commitment>;
}

/// A digest as field elements, two bytes each.
fn digest_elements(bytes: &[u8; 32]) -> Vec<F> {
    bytes.chunks(2).map(|pair| pair.iter().fold(F::ZERO, |acc, &b| acc * F::from_u32(256) + F::from_u8(b))).collect()
}

/// Canonical representatives of an element's coefficients.
fn coefficients(value: EF) -> [u32; 5] {
    let coefficients: &[F] = value.as_basis_coefficients_slice();
    std::array::from_fn(|i| coefficients[i].as_canonical_u32())
}

/// Poseidon2 over KoalaBear.
#[derive(Clone, Copy, Debug)]
pub struct Native;

type Permutation16 = Poseidon2KoalaBear<16>;
type Permutation24 = Poseidon2KoalaBear<24>;
type Packed = <F as Field>::Packing;

impl HashProfile for Native {
    const PROFILE: Profile = Profile::Native;
    const GRINDING_BITS: usize = 17;
    type Base = F;
    type Ext = EF;
    type Seed = Digest;
    type Domain = Radix2DFTSmallBatch<F>;
    type Challenger = DuplexChallenger<F, Permutation16, 16, 8>;
    type Mmcs = MerkleTreeMmcs<Packed, Packed, PaddingFreeSponge<Permutation24, 24, 16, 8>, TruncatedPermutation<Permutation16, 2, 8, 16>, 2, 8>;

    fn challenger(seed: &Digest) -> Self::Challenger {
        let mut challenger = DuplexChallenger::new(default_koalabear_poseidon2_16());
        challenger.observe_slice(&digest_elements(&seed.0));
        challenger
    }

    fn constant(digest: Digest) -> Digest {
        digest
    }

    fn pin(parameters: &Digest, root: &<Self::Mmcs as Mmcs<F>>::Commitment, value: EF) -> Digest {
        keccak_pin(parameters, &Self::digest(root), &coefficients(value))
    }

    fn same(a: &Digest, b: &Digest) -> bool {
        a == b
    }

    fn domain(log: usize) -> Self::Domain {
        Radix2DFTSmallBatch::new(1 << log)
    }

    fn mmcs() -> Self::Mmcs {
        let leaves = PaddingFreeSponge::new(default_koalabear_poseidon2_24());
        MerkleTreeMmcs::new(leaves, TruncatedPermutation::new(default_koalabear_poseidon2_16()), 0)
    }
}

impl NativeProfile for Native {
    fn digest(root: &<Self::Mmcs as Mmcs<F>>::Commitment) -> Digest {
        let mut out = [0; 32];
        let words = root.roots().iter().flatten();
        out.chunks_mut(4).zip(words).for_each(|(bytes, w)| bytes.copy_from_slice(&w.as_canonical_u32().to_be_bytes()));
        Digest(out)
    }

    fn root(digest: &Digest) -> Option<<Self::Mmcs as Mmcs<F>>::Commitment> {
        let mut words = [F::ZERO; 8];
        for (word, bytes) in words.iter_mut().zip(digest.0.chunks(4)) {
            let value = u32::from_be_bytes(bytes.try_into().ok()?);
            *word = (value < F::ORDER_U32).then(|| F::from_u32(value))?;
        }
        Some(MerkleCap::new(vec![words]))
    }
}

/// Poseidon2 over BN254's scalar field.
#[derive(Clone, Copy, Debug)]
pub struct Evm;

type Permutation3 = poseidon2::Permutation;

impl HashProfile for Evm {
    const PROFILE: Profile = Profile::Evm;
    const GRINDING_BITS: usize = 16;
    type Base = F;
    type Ext = EF;
    type Seed = Digest;
    type Domain = Radix2DFTSmallBatch<F>;
    type Challenger = EvmChallenger;
    type Mmcs = Trees;

    fn challenger(seed: &Digest) -> Self::Challenger {
        let inner = MultiField32Challenger::new(poseidon2::permutation());
        let mut challenger = EvmChallenger(inner.unwrap_or_else(|_| unreachable!("KoalaBear is smaller than BN254")));
        challenger.observe(MerkleCap::new(vec![[seed.word()]]));
        challenger
    }

    fn constant(digest: Digest) -> Digest {
        digest
    }

    /// The hash of parameters, root and value, its coefficients packed to one scalar: a scalar itself.
    fn pin(parameters: &Digest, root: &<Self::Mmcs as Mmcs<F>>::Commitment, value: EF) -> Digest {
        let value = poseidon2::pack(&coefficients(value).map(u64::from));
        Digest::of_word(poseidon2::hash(&[parameters.word(), Self::digest(root).word(), value]))
    }

    fn same(a: &Digest, b: &Digest) -> bool {
        a == b
    }

    fn domain(log: usize) -> Self::Domain {
        Radix2DFTSmallBatch::new(1 << log)
    }

    fn mmcs() -> Self::Mmcs {
        Trees::default()
    }
}

impl NativeProfile for Evm {
    fn digest(root: &<Self::Mmcs as Mmcs<F>>::Commitment) -> Digest {
        root.roots().first().map(|[word]| Digest::of_word(*word)).unwrap_or_default()
    }

    fn root(digest: &Digest) -> Option<<Self::Mmcs as Mmcs<F>>::Commitment> {
        let word = digest.word();
        (Digest::of_word(word) == *digest).then(|| MerkleCap::new(vec![[word]]))
    }
}

/// The transcript of [`Evm`]: Plonky3's multi-field sponge, plus unbiased sampling of query indices.
#[derive(Clone, Debug)]
pub struct EvmChallenger(MultiField32Challenger<F, Bn254, Permutation3, 3, 2>);

impl CanObserve<F> for EvmChallenger {
    fn observe(&mut self, value: F) {
        self.0.observe(value);
    }
}

impl CanObserve<MerkleCap<F, [Bn254; 1]>> for EvmChallenger {
    fn observe(&mut self, value: MerkleCap<F, [Bn254; 1]>) {
        value.into_roots().into_iter().for_each(|root| self.0.observe(Hash::<F, Bn254, 1>::from(root)));
    }
}

impl<A: BasedVectorSpace<F>> CanSample<A> for EvmChallenger {
    fn sample(&mut self) -> A {
        self.0.sample()
    }
}

impl CanSampleBits<usize> for EvmChallenger {
    fn sample_bits(&mut self, bits: usize) -> usize {
        self.0.sample_bits(bits)
    }
}

impl FieldChallenger<F> for EvmChallenger {}

impl GrindingChallenger for EvmChallenger {
    type Witness = F;

    fn grind(&mut self, bits: usize) -> F {
        self.0.grind(bits)
    }

    fn check_witness(&mut self, bits: usize, witness: F) -> bool {
        self.0.check_witness(bits, witness)
    }
}

impl CanSampleUniformBits<F> for EvmChallenger {
    /// KoalaBear's order is `127·2^24 + 1`: leaving out the largest element makes the low 24 bits uniform.
    fn sample_uniform_bits<const RESAMPLE: bool>(&mut self, bits: usize) -> Result<usize, ResamplingError> {
        debug_assert!(bits <= 24, "query domains have at most 2^24 points");
        loop {
            let value: F = self.0.sample();
            let value = value.as_canonical_u32();
            if value != F::ORDER_U32 - 1 {
                return Ok(value as usize & ((1 << bits) - 1));
            }
        }
    }
}
