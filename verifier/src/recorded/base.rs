//! A KoalaBear element that records what is done with it.
//!
//! Comparisons record their outcome as an assertion, so whatever path the code takes, the program proves that it had to be taken. Orders and
//! hashes of recorded values don't exist: code that asks for one panics while recording, never while verifying.

use super::recorder;
use circuits::ir::F;
use circuits::outer::program::{Op, Small};
use p3_challenger::CanObserve;
use p3_challenger::fs::{TranscriptError, TranscriptField, TypeTag};
use p3_field::{Field, Packable, PrimeCharacteristicRing, PrimeField32, RawDataSerializable, TwoAdicField};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::{Product, Sum};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// A recorded KoalaBear element: its value, and where the program keeps it (nowhere for constants).
#[derive(Clone, Copy, Debug, Default)]
pub struct Base {
    value: F,
    register: Option<Small>,
}

impl Base {
    /// A constant.
    pub const fn constant(value: F) -> Self {
        Self { value, register: None }
    }

    /// A value of the program.
    pub fn recorded(value: F, register: Small) -> Self {
        Self { value, register: Some(register) }
    }

    /// A value that the prover chooses.
    pub fn input(value: F) -> Self {
        Self::recorded(value, recorder::small(Op::Input, value))
    }

    /// The value.
    pub fn value(self) -> F {
        self.value
    }

    /// Whether the program fixes it.
    pub fn is_constant(self) -> bool {
        self.register.is_none()
    }

    /// Where the program keeps it.
    pub fn register(self) -> Small {
        self.register.unwrap_or_else(|| recorder::small(Op::Constant(self.value.as_canonical_u32()), self.value))
    }

    /// Records that it is zero.
    pub fn assert_zero(self) {
        recorder::assert(Op::AssertZero(self.register()));
    }

    /// Records that it isn't zero.
    pub fn assert_nonzero(self) {
        let inverse = Self::input(self.value.try_inverse().unwrap_or(F::ZERO));
        (self * inverse - Self::ONE).assert_zero();
    }

    /// Its lowest bits, least significant first.
    pub fn bits(self, count: u32) -> Vec<Base> {
        let value = self.value.as_canonical_u32();
        let bits: Vec<F> = (0..count).map(|i| F::from_u32((value >> i) & 1)).collect();
        if self.is_constant() {
            return bits.into_iter().map(Base::constant).collect();
        }
        let registers = recorder::smalls(Op::Bits(self.register(), count), &bits);
        bits.iter().zip(registers).map(|(&bit, register)| Base::recorded(bit, register)).collect()
    }

    fn scaled(self, k: F) -> Self {
        match k.as_canonical_u32() {
            0 => Self::ZERO,
            1 => self,
            k => Self::recorded(self.value * F::from_u32(k), recorder::small(Op::Scale(self.register(), k), self.value * F::from_u32(k))),
        }
    }
}

impl Add for Base {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let value = self.value + other.value;
        match (self.register, other.register) {
            (None, None) => Self::constant(value),
            (None, _) if self.value == F::ZERO => other,
            (_, None) if other.value == F::ZERO => self,
            _ => {
                let (a, b) = (self.register(), other.register());
                Self::recorded(value, recorder::small(Op::Add(a.min(b), a.max(b)), value))
            }
        }
    }
}

impl Sub for Base {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        let value = self.value - other.value;
        match (self.register, other.register) {
            (None, None) => Self::constant(value),
            (_, None) if other.value == F::ZERO => self,
            (Some(a), Some(b)) if a == b => Self::ZERO,
            _ => Self::recorded(value, recorder::small(Op::Sub(self.register(), other.register()), value)),
        }
    }
}

impl Mul for Base {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let value = self.value * other.value;
        match (self.register, other.register) {
            (None, None) => Self::constant(value),
            (None, _) => other.scaled(self.value),
            (_, None) => self.scaled(other.value),
            (Some(a), Some(b)) => Self::recorded(value, recorder::small(Op::Mul(a.min(b), a.max(b)), value)),
        }
    }
}

impl Neg for Base {
    type Output = Self;
    fn neg(self) -> Self {
        if self.is_constant() { Self::constant(-self.value) } else { self.scaled(F::NEG_ONE) }
    }
}

impl Div for Base {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        Mul::mul(self, other.inverse())
    }
}

/// The assigning and folding forms of a recorded type's operators.
macro_rules! derived_operators {
    ($type:ty) => {
        impl AddAssign for $type {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl SubAssign for $type {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }
        impl MulAssign for $type {
            fn mul_assign(&mut self, other: Self) {
                *self = *self * other;
            }
        }
        impl DivAssign for $type {
            fn div_assign(&mut self, other: Self) {
                *self = *self / other;
            }
        }
        impl Sum for $type {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, |a, b| a + b)
            }
        }
        impl Product for $type {
            fn product<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ONE, |a, b| a * b)
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, _: &Self) -> Ordering {
                unreachable!("the order of recorded values isn't recorded")
            }
        }
        impl Hash for $type {
            fn hash<H: Hasher>(&self, _: &mut H) {
                unreachable!("the hash of recorded values isn't recorded")
            }
        }
        impl Packable for $type {}
    };
}
pub(super) use derived_operators;

derived_operators!(Base);

impl PartialEq for Base {
    fn eq(&self, other: &Self) -> bool {
        let difference = *self - *other;
        let equal = difference.value == F::ZERO;
        match (difference.is_constant(), equal) {
            (true, _) => {}
            (false, true) => difference.assert_zero(),
            (false, false) => drop(difference.inverse()),
        }
        equal
    }
}

impl PrimeCharacteristicRing for Base {
    type PrimeSubfield = F;

    const ZERO: Self = Self::constant(F::ZERO);
    const ONE: Self = Self::constant(F::ONE);
    const TWO: Self = Self::constant(F::TWO);
    const NEG_ONE: Self = Self::constant(F::NEG_ONE);

    fn from_prime_subfield(f: F) -> Self {
        Self::constant(f)
    }
}

impl Field for Base {
    type Packing = Self;

    const GENERATOR: Self = Self::constant(F::GENERATOR);

    fn try_inverse(&self) -> Option<Self> {
        let value = self.value.try_inverse()?;
        if self.is_constant() {
            return Some(Self::constant(value));
        }
        let inverse = Self::input(value);
        (*self * inverse - Self::ONE).assert_zero();
        Some(inverse)
    }

    fn order() -> num_bigint::BigUint {
        F::order()
    }
}

impl TwoAdicField for Base {
    const TWO_ADICITY: usize = F::TWO_ADICITY;

    fn two_adic_generator(bits: usize) -> Self {
        Self::constant(F::two_adic_generator(bits))
    }
}

impl RawDataSerializable for Base {
    const NUM_BYTES: usize = F::NUM_BYTES;

    fn into_bytes(self) -> impl IntoIterator<Item = u8> {
        self.value.into_bytes().into_iter().collect::<Vec<u8>>()
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Serialize for Base {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Base {
    /// What is read from a proof is an input.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        F::deserialize(deserializer).map(Self::input)
    }
}

/// Absorbs KoalaBear constants into a recording transcript.
struct Constants<'a, C>(&'a mut C);

impl<C: CanObserve<Base>> CanObserve<F> for Constants<'_, C> {
    fn observe(&mut self, value: F) {
        self.0.observe(Base::constant(value));
    }
}

impl TranscriptField for Base {
    fn algebra_tag(degree: usize, basis: [u8; 32]) -> TypeTag {
        F::algebra_tag(degree, basis)
    }

    fn observe_seed<C: CanObserve<Self>>(challenger: &mut C, bytes: &[u8]) {
        F::observe_seed(&mut Constants(challenger), bytes);
    }

    fn wire_len() -> usize {
        F::wire_len()
    }

    fn encode(value: &Self, out: &mut Vec<u8>) {
        F::encode(&value.value, out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, TranscriptError> {
        F::decode(bytes).map(Self::input)
    }
}
