//! Straight-line programs over two kinds of values: KoalaBear elements ("small") and BN254 scalars ("wide").
//!
//! A program is the inner verifier's run on one proof, with every branch resolved: its shape depends on the relation only. Running it
//! on a proof yields a value per register; the outer circuit constrains those values, operation by operation. Operations are recorded
//! with their values, constants are folded and equal operations are recorded once.

use crate::ir::F;
use p3_bn254::Bn254;

/// A register holding a KoalaBear element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Small(pub u32);

/// A register holding a BN254 scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wide(pub u32);

/// An element of the quintic extension, coefficient by coefficient, lowest degree first.
pub type Ext = [Small; 5];

/// Limbs that [`Op::Split`] takes from a scalar.
pub const SPLIT_LIMBS: usize = 7;

/// One operation. Each says which registers it fills; they are numbered in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// One small: an element that the prover chooses, by its canonical representative.
    Input,
    /// One small: a constant.
    Constant(u32),
    /// One small: the sum.
    Add(Small, Small),
    /// One small: the difference.
    Sub(Small, Small),
    /// One small: a multiple by a constant.
    Scale(Small, u32),
    /// One small: the product.
    Mul(Small, Small),
    /// Five smalls: the product in the quintic extension.
    ExtMul(Ext, Ext),
    /// Five smalls: the product of an extension element and a base element.
    ExtScale(Ext, Small),
    /// Five smalls: the sum of products of extension elements and base elements, as many of either.
    InnerProduct(Vec<Ext>, Vec<Small>),
    /// `bits` smalls: the lowest bits, least significant first, of the canonical representative, which must not be `p - 1`.
    Bits(Small, u32),
    /// One wide: `Σ (x_i + shift)·2^(31·i)` of at most eight representatives. An input's representative is the integer the prover chose; any
    /// other value's is the canonical one.
    Pack(Vec<Small>, bool),
    /// One wide: a scalar that the prover chooses.
    WideInput,
    /// One wide: a constant, little-endian limbs of its canonical representative.
    WideConstant([u64; 4]),
    /// One wide: the sum.
    WideAdd(Wide, Wide),
    /// One wide: the product.
    WideMul(Wide, Wide),
    /// Three wides: the Poseidon2 permutation.
    Permute([Wide; 3]),
    /// [`SPLIT_LIMBS`] smalls: the lowest limbs, canonical, of the canonical representative in base `p`, least significant first.
    Split(Wide),
    /// One wide: the second if the small is zero, the third if it is one. The small is known to be a bit.
    Select(Small, Wide, Wide),
    /// Nothing: the small is zero modulo the order.
    AssertZero(Small),
    /// Nothing: the small is zero or one.
    AssertBit(Small),
    /// Nothing: the wides are equal.
    AssertEqual(Wide, Wide),
    /// Nothing: the wide is the next public input.
    Public(Wide),
}

impl Op {
    /// How many small and wide registers it fills.
    pub fn outputs(&self) -> (u32, u32) {
        match self {
            Op::Input | Op::Constant(_) | Op::Add(..) | Op::Sub(..) | Op::Scale(..) | Op::Mul(..) => (1, 0),
            Op::ExtMul(..) | Op::ExtScale(..) | Op::InnerProduct(..) => (5, 0),
            Op::Bits(_, bits) => (*bits, 0),
            Op::Split(_) => (SPLIT_LIMBS as u32, 0),
            Op::Pack(..) | Op::WideInput | Op::WideConstant(_) | Op::WideAdd(..) | Op::WideMul(..) | Op::Select(..) => (0, 1),
            Op::Permute(_) => (0, 3),
            Op::AssertZero(_) | Op::AssertBit(_) | Op::AssertEqual(..) | Op::Public(_) => (0, 0),
        }
    }
}

/// The operations, with the names of the parts they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Operations in order.
    pub ops: Vec<Op>,
    /// `(first operation, name)` of each part, ascending.
    pub parts: Vec<(usize, &'static str)>,
}

/// A value for every register.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Smalls, by number.
    pub small: Vec<F>,
    /// Wides, by number.
    pub wide: Vec<Bn254>,
}
