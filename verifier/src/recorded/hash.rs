//! BN254 scalars, the transcript and the Merkle trees of the `evm` profile, recorded.

use super::base::Base;
use super::recorder;
use crate::merkle::{self, Paths, WrongOpening, root_of, top_depth};
use crate::profile::{Evm, HashProfile as _};
use circuits::ir::F;
use circuits::outer::program::{Op, SPLIT_LIMBS, Wide};
use circuits::poseidon2;
use p3_bn254::Bn254;
use p3_challenger::{CanObserve, CanSample, CanSampleBits, CanSampleUniformBits, FieldChallenger, GrindingChallenger, ResamplingError};
use p3_commit::{BatchOpening, BatchOpeningRef, Mmcs};
use p3_field::{
    BasedVectorSpace, PrimeCharacteristicRing, PrimeField, max_absorb_injective_limbs, max_shifted_absorb_injective_limbs,
    split_pf_to_field_order_limbs,
};
use p3_matrix::{Dimensions, Matrix};
use p3_symmetric::{MerkleCap, Permutation};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Lowest bits of a query's index hold its value, the others the number of its bits in the recording transcript.
const INDEX_BITS: u32 = 32;

/// A recorded BN254 scalar.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    value: Bn254,
    register: Option<Wide>,
}

impl Word {
    /// A constant.
    pub const fn constant(value: Bn254) -> Self {
        Self { value, register: None }
    }

    /// A value that the prover chooses.
    pub fn input(value: Bn254) -> Self {
        Self { value, register: Some(recorder::wide(Op::WideInput, value)) }
    }

    /// The value.
    pub fn value(self) -> Bn254 {
        self.value
    }

    /// Where the program keeps it.
    pub fn register(self) -> Wide {
        self.register.unwrap_or_else(|| recorder::wide(Op::WideConstant(limbs(self.value)), self.value))
    }

    fn new(op: Op, value: Bn254) -> Self {
        Self { value, register: Some(recorder::wide(op, value)) }
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        let value = self.value + other.value;
        match (self.register, other.register) {
            (None, None) => Self::constant(value),
            (None, _) if self.value == Bn254::ZERO => other,
            (_, None) if other.value == Bn254::ZERO => self,
            _ => Self::new(Op::WideAdd(self.register(), other.register()), value),
        }
    }

    /// The product.
    pub fn times(self, other: Self) -> Self {
        Self::new(Op::WideMul(self.register(), other.register()), self.value * other.value)
    }

    /// `Σ (x_i + shift)·2^(31·i)`.
    pub fn pack(elements: &[Base], shift: bool) -> Self {
        let (radix, shift_by) = (Bn254::from_u64(1 << 31), Bn254::from_bool(shift));
        let digit = |x: &Base| Bn254::from_u32(p3_field::PrimeField32::as_canonical_u32(&x.value())) + shift_by;
        let value = elements.iter().rev().fold(Bn254::ZERO, |acc, x| acc * radix + digit(x));
        if elements.iter().all(|x| x.is_constant()) {
            return Self::constant(value);
        }
        Self::new(Op::Pack(elements.iter().map(|x| x.register()).collect(), shift), value)
    }

    /// The lowest limbs in base `p`.
    fn split(self) -> Vec<Base> {
        let values = split_pf_to_field_order_limbs::<Bn254, F>(self.value, SPLIT_LIMBS);
        if self.register.is_none() {
            return values.into_iter().map(Base::constant).collect();
        }
        let registers = recorder::smalls(Op::Split(self.register()), &values);
        values.iter().zip(registers).map(|(&v, r)| Base::recorded(v, r)).collect()
    }

    /// `high` if the bit is one, else `low`.
    fn select(bit: Base, low: Self, high: Self) -> Self {
        let value = if bit.value() == F::ONE { high.value } else { low.value };
        if bit.is_constant() {
            return if bit.value() == F::ONE { high } else { low };
        }
        Self::new(Op::Select(bit.register(), low.register(), high.register()), value)
    }

    /// Records that two are equal; tells whether they are.
    pub fn assert_equal(self, other: Self) -> bool {
        if self.register.is_some() || other.register.is_some() {
            recorder::assert(Op::AssertEqual(self.register(), other.register()));
        }
        self.value == other.value
    }

    /// Records that it is the next public input.
    pub fn publish(self) {
        recorder::assert(Op::Public(self.register()));
    }
}

fn limbs(x: Bn254) -> [u64; 4] {
    let mut out = [0; 4];
    out.iter_mut().zip(x.as_canonical_biguint().iter_u64_digits()).for_each(|(o, d)| *o = d);
    out
}

/// The permutation.
pub fn permute(state: [Word; 3]) -> [Word; 3] {
    let values = poseidon2::permutation().permute(state.map(Word::value));
    if state.iter().all(|w| w.register.is_none()) {
        return values.map(Word::constant);
    }
    let registers = recorder::permutation(state.map(Word::register), values);
    std::array::from_fn(|i| Word { value: values[i], register: Some(registers[i]) })
}

/// The sponge over scalars that statements and token digests use: two at a time, the number of scalars in the last lane.
pub fn sponge(words: &[Word]) -> Word {
    let mut state = [Word::constant(Bn254::ZERO), Word::constant(Bn254::ZERO), Word::constant(Bn254::from_usize(words.len()))];
    for chunk in words.chunks(2) {
        state.iter_mut().zip(chunk).for_each(|(s, &w)| *s = s.plus(w));
        state = permute(state);
    }
    state[0]
}

/// A recorded Merkle root.
#[derive(Clone, Copy, Debug)]
pub struct Root(pub Word);

type NativeCap = MerkleCap<F, [Bn254; 1]>;

impl Serialize for Root {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NativeCap::new(vec![[self.0.value]]).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Root {
    /// What is read from a proof is an input.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NativeCap::deserialize(deserializer)?.roots() {
            [[word]] => Ok(Self(Word::input(*word))),
            _ => Err(serde::de::Error::custom("a Merkle root is one scalar")),
        }
    }
}

/// The recording transcript: Plonky3's multi-field sponge over [`Word`]s.
#[derive(Clone, Debug)]
pub struct Challenger {
    state: [Word; 3],
    absorbing: Vec<Base>,
    squeezed: Vec<Base>,
    /// Whether the state's rate is output that nobody squeezed yet.
    ready: bool,
}

impl Default for Challenger {
    fn default() -> Self {
        Self { state: [Word::constant(Bn254::ZERO); 3], absorbing: vec![], squeezed: vec![], ready: false }
    }
}

impl Challenger {
    fn absorb(&mut self, words: &[Word], tag: usize) {
        let zero = Word::constant(Bn254::ZERO);
        let lane = |i: usize| words.get(i).copied().unwrap_or(zero);
        self.state = permute([lane(0), lane(1), self.state[2].plus(Word::constant(Bn254::from_usize(tag)))]);
        self.ready = true;
        self.squeezed.clear();
    }

    fn flush(&mut self) {
        if !self.absorbing.is_empty() {
            let elements = std::mem::take(&mut self.absorbing);
            let words: Vec<Word> = elements.chunks(max_absorb_injective_limbs::<F, Bn254>()).map(|c| Word::pack(c, false)).collect();
            self.absorb(&words, elements.len());
        }
    }

    fn sample_base(&mut self) -> Base {
        self.flush();
        loop {
            if let Some(next) = self.squeezed.pop() {
                return next;
            }
            if !self.ready {
                self.state = permute(self.state);
            }
            self.squeezed = self.state[..2].iter().flat_map(|w| w.split()).collect();
            self.ready = false;
        }
    }
}

impl CanObserve<Base> for Challenger {
    fn observe(&mut self, value: Base) {
        self.squeezed.clear();
        self.ready = false;
        self.absorbing.push(value);
        if self.absorbing.len() == 2 * max_absorb_injective_limbs::<F, Bn254>() {
            self.flush();
        }
    }
}

impl CanObserve<Word> for Challenger {
    fn observe(&mut self, value: Word) {
        self.flush();
        self.absorb(&[value], 1);
    }
}

impl CanObserve<Root> for Challenger {
    fn observe(&mut self, value: Root) {
        self.observe(value.0);
    }
}

impl<A: BasedVectorSpace<Base>> CanSample<A> for Challenger {
    fn sample(&mut self) -> A {
        A::from_basis_coefficients_fn(|_| self.sample_base())
    }
}

impl CanSampleBits<usize> for Challenger {
    fn sample_bits(&mut self, _: usize) -> usize {
        unreachable!("sampled bits would leave the program: indices and grinding have their own methods")
    }
}

impl FieldChallenger<Base> for Challenger {}

impl GrindingChallenger for Challenger {
    type Witness = Base;

    fn grind(&mut self, _: usize) -> Base {
        unreachable!("only verifiers are recorded")
    }

    fn check_witness(&mut self, bits: usize, witness: Base) -> bool {
        if bits == 0 {
            return true;
        }
        self.observe(witness);
        let bits = self.sample_base().bits(bits as u32);
        // Every bit is compared: each comparison leaves its assertion.
        bits.iter().filter(|bit| **bit != Base::ZERO).count() == 0
    }
}

thread_local! {
    static INDICES: std::cell::RefCell<Vec<Vec<Base>>> = const { std::cell::RefCell::new(vec![]) };
}

/// The bits of an index, most significant first: those the transcript recorded, or constants.
pub fn index_bits(index: usize, count: usize) -> Vec<Base> {
    let number = index >> INDEX_BITS;
    let recorded = INDICES.with_borrow(|list| number.checked_sub(1).and_then(|i| list.get(i).cloned()));
    let bits = recorded.unwrap_or_else(|| (0..count).map(|i| Base::from_bool((index >> i) & 1 == 1)).collect());
    bits.into_iter().take(count).rev().collect()
}

/// An index without its recording.
fn plain_index(index: usize) -> usize {
    index & ((1 << INDEX_BITS) - 1)
}

impl CanSampleUniformBits<Base> for Challenger {
    /// The index, with the number of its recorded bits in its high half. The one element that the native transcript would draw again has
    /// no recording: its bits are refused.
    fn sample_uniform_bits<const RESAMPLE: bool>(&mut self, bits: usize) -> Result<usize, ResamplingError> {
        let recorded = self.sample_base().bits(bits as u32);
        let value = recorded.iter().rev().fold(0, |acc, b| 2 * acc + usize::from(b.value() == F::ONE));
        let number = INDICES.with_borrow_mut(|list| {
            list.push(recorded);
            list.len()
        });
        Ok(value | (number << INDEX_BITS))
    }
}

/// The recorded Merkle trees: every query's whole path, so that the program doesn't depend on which indices were drawn.
#[derive(Clone, Debug)]
pub struct Trees;

impl Trees {
    fn leaf(row: &[Base]) -> Word {
        let mut state = [Word::constant(Bn254::ZERO); 3];
        let per_word = max_shifted_absorb_injective_limbs::<F, Bn254>();
        for block in row.chunks(2 * per_word) {
            state.iter_mut().zip(block.chunks(per_word)).for_each(|(lane, chunk)| *lane = Word::pack(chunk, true));
            state = permute(state);
        }
        state[0]
    }

    /// The node that a leaf's path leads to; bits from the highest.
    fn node(leaf: Word, bits: &[Base], siblings: &[Bn254]) -> Word {
        bits.iter().rev().zip(siblings).fold(leaf, |node, (&bit, &sibling)| {
            let sibling = Word::input(sibling);
            Self::parent(Word::select(bit, node, sibling), Word::select(bit, sibling, node))
        })
    }

    fn parent(left: Word, right: Word) -> Word {
        permute([left, right, Word::constant(Bn254::ZERO)])[0]
    }

    /// The node at an index; bits from the highest.
    fn selected(nodes: &[Word], bits: &[Base]) -> Option<Word> {
        let mut nodes = nodes.to_vec();
        for &bit in bits {
            let (low, high) = nodes.split_at(nodes.len() / 2);
            nodes = low.iter().zip(high).map(|(&low, &high)| Word::select(bit, low, high)).collect();
        }
        nodes.first().copied()
    }
}

impl Mmcs<Base> for Trees {
    type ProverData<M> = ();
    type Commitment = Root;
    type Proof = ();
    type MultiProof = Paths;
    type Error = WrongOpening;

    fn commit<M: Matrix<Base>>(&self, _: Vec<M>) -> (Root, ()) {
        unreachable!("only verifiers are recorded")
    }

    fn open_batch<M: Matrix<Base>>(&self, _: usize, (): &()) -> BatchOpening<Base, Self> {
        unreachable!("only verifiers are recorded")
    }

    fn get_matrices<'a, M: Matrix<Base>>(&self, (): &'a ()) -> Vec<&'a M> {
        vec![]
    }

    fn verify_batch(&self, _: &Root, _: &[Dimensions], _: usize, _: BatchOpeningRef<'_, Base, Self>) -> Result<(), WrongOpening> {
        unreachable!("openings are checked together")
    }

    fn open_multi_batch<M: Matrix<Base>>(&self, _: &[usize], (): &()) -> (Vec<Vec<Vec<Base>>>, Self::MultiProof) {
        unreachable!("only verifiers are recorded")
    }

    fn verify_multi_batch<R: AsRef<[Base]> + PartialEq>(
        &self,
        commit: &Root,
        dimensions: &[Dimensions],
        indices: &[usize],
        opened_values: &[Vec<R>],
        proof: &Self::MultiProof,
    ) -> Result<(), WrongOpening> {
        let [dimension] = dimensions else { return Err(WrongOpening) };
        let depth = merkle::depth(dimensions);
        let top = top_depth(depth);
        let rows: Option<Vec<&[Base]>> = opened_values.iter().map(|o| o.first().map(AsRef::as_ref)).collect();
        let rows = rows.filter(|r| r.len() == indices.len() && r.iter().all(|row| row.len() == dimension.width)).ok_or(WrongOpening)?;
        let plain: Vec<usize> = indices.iter().map(|&i| plain_index(i)).collect();
        let values: Vec<Vec<Vec<F>>> = rows.iter().map(|row| vec![row.iter().map(|x| x.value()).collect()]).collect();
        let paths = Evm::mmcs().restore(dimensions, &plain, &values, proof)?;
        let nodes = match depth {
            0 if proof.top.is_empty() => vec![commit.0],
            0 => return Err(WrongOpening),
            _ => {
                let nodes: Vec<Word> = proof.top.iter().map(|[node]| Word::input(*node)).collect();
                let root = root_of(&nodes, Self::parent).filter(|_| nodes.len() == 1 << top).ok_or(WrongOpening)?;
                if !root.assert_equal(commit.0) {
                    return Err(WrongOpening);
                }
                nodes
            }
        };
        for ((row, &index), siblings) in rows.iter().zip(indices).zip(&paths) {
            let bits = index_bits(index, depth);
            if siblings.len() != depth || bits.len() != depth {
                return Err(WrongOpening);
            }
            let reached = Self::node(Self::leaf(row), &bits[top..], &siblings[..depth - top]);
            let expected = Self::selected(&nodes, &bits[..top]).ok_or(WrongOpening)?;
            if !reached.assert_equal(expected) {
                return Err(WrongOpening);
            }
        }
        Ok(())
    }
}
