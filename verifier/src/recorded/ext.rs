//! An element of the quintic extension that records what is done with it.

use super::base::{Base, derived_operators};
use super::recorder;
use circuits::ir::{EF, F};
use circuits::outer::program::Op;
use p3_field::{
    Algebra, AlgebraIdentity, BasedVectorSpace, ExtensionField, Field, Packable, PackedFieldExtension, Powers, PrimeCharacteristicRing,
    RawDataSerializable,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::{Product, Sum};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// Terms from which an inner product is recorded as such.
const INNER_PRODUCT: usize = 4;

/// A recorded element of the quintic extension, coefficient by coefficient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ext([Base; 5]);

impl Ext {
    const fn constant_base(x: F) -> Self {
        let zero = Base::constant(F::ZERO);
        Self([Base::constant(x), zero, zero, zero, zero])
    }

    /// The value.
    pub fn value(self) -> EF {
        EF::from_basis_coefficients_fn(|i| self.0[i].value())
    }

    /// `Σ weights_i·elements_i`, as one operation where it has enough terms to be cheaper.
    pub fn inner_product(weights: &[Self], elements: &[Base]) -> Self {
        debug_assert_eq!(weights.len(), elements.len());
        let plain = || weights.iter().zip(elements).map(|(&w, &x)| w * x).sum::<Self>();
        if weights.len() < INNER_PRODUCT || weights.iter().all(|w| w.is_constant()) {
            return plain();
        }
        let value: EF = weights.iter().zip(elements).map(|(w, x)| w.value() * x.value()).sum();
        let op = Op::InnerProduct(weights.iter().map(|w| w.0.map(Base::register)).collect(), elements.iter().map(|x| x.register()).collect());
        let values = coefficients(value);
        let registers = recorder::ext(op, values);
        Self(std::array::from_fn(|i| Base::recorded(values[i], registers[i])))
    }

    /// Records that it is zero.
    pub fn assert_zero(self) {
        self.0.iter().filter(|c| !c.is_constant()).for_each(|c| c.assert_zero());
    }

    fn is_constant(self) -> bool {
        self.0.iter().all(|c| c.is_constant())
    }

    /// The base element it is, if the program fixes its other coefficients to zero.
    fn base(self) -> Option<Base> {
        self.0[1..].iter().all(|c| c.is_constant() && c.value() == F::ZERO).then_some(self.0[0])
    }

    fn scaled(self, k: Base) -> Self {
        if k.is_constant() || self.0.iter().any(|c| c.is_constant()) {
            return Self(self.0.map(|c| c * k));
        }
        let values = self.0.map(|c| c.value() * k.value());
        let registers = recorder::ext(Op::ExtScale(self.0.map(Base::register), k.register()), values);
        Self(std::array::from_fn(|i| Base::recorded(values[i], registers[i])))
    }
}

fn coefficients(x: EF) -> [F; 5] {
    let slice = x.as_basis_coefficients_slice();
    std::array::from_fn(|i| slice[i])
}

impl From<Base> for Ext {
    fn from(x: Base) -> Self {
        Self([x, Base::ZERO, Base::ZERO, Base::ZERO, Base::ZERO])
    }
}

impl Add for Ext {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl Sub for Ext {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
}

impl Mul for Ext {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        match (self.base(), other.base()) {
            (Some(k), _) => return other.scaled(k),
            (_, Some(k)) => return self.scaled(k),
            _ => {}
        }
        let values = coefficients(self.value() * other.value());
        if self.is_constant() && other.is_constant() {
            return Self(values.map(Base::constant));
        }
        let (a, b) = (self.0.map(Base::register), other.0.map(Base::register));
        let registers = recorder::ext(Op::ExtMul(a.min(b), a.max(b)), values);
        Self(std::array::from_fn(|i| Base::recorded(values[i], registers[i])))
    }
}

impl Neg for Ext {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.map(Neg::neg))
    }
}

impl Div for Ext {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        Mul::mul(self, other.inverse())
    }
}

derived_operators!(Ext);

impl Add<Base> for Ext {
    type Output = Self;
    fn add(mut self, other: Base) -> Self {
        self.0[0] += other;
        self
    }
}

impl Sub<Base> for Ext {
    type Output = Self;
    fn sub(mut self, other: Base) -> Self {
        self.0[0] -= other;
        self
    }
}

impl Mul<Base> for Ext {
    type Output = Self;
    fn mul(self, other: Base) -> Self {
        self.scaled(other)
    }
}

impl AddAssign<Base> for Ext {
    fn add_assign(&mut self, other: Base) {
        *self = *self + other;
    }
}

impl SubAssign<Base> for Ext {
    fn sub_assign(&mut self, other: Base) {
        *self = *self - other;
    }
}

impl MulAssign<Base> for Ext {
    fn mul_assign(&mut self, other: Base) {
        *self = *self * other;
    }
}

impl Algebra<Base> for Ext {}

impl PartialEq for Ext {
    fn eq(&self, other: &Self) -> bool {
        let difference = *self - *other;
        let equal = difference.value() == EF::ZERO;
        match (difference.is_constant(), equal) {
            (true, _) => {}
            (false, true) => difference.assert_zero(),
            (false, false) => drop(difference.inverse()),
        }
        equal
    }
}

impl PrimeCharacteristicRing for Ext {
    type PrimeSubfield = F;

    const ZERO: Self = Self::constant_base(F::ZERO);
    const ONE: Self = Self::constant_base(F::ONE);
    const TWO: Self = Self::constant_base(F::TWO);
    const NEG_ONE: Self = Self::constant_base(F::NEG_ONE);

    fn from_prime_subfield(f: F) -> Self {
        Self::constant_base(f)
    }
}

impl Field for Ext {
    type Packing = Self;

    const GENERATOR: Self = Self::constant_base(F::GENERATOR);

    fn try_inverse(&self) -> Option<Self> {
        let value = coefficients(self.value().try_inverse()?);
        if self.is_constant() {
            return Some(Self(value.map(Base::constant)));
        }
        let inverse = Self(value.map(Base::input));
        (*self * inverse - Self::ONE).assert_zero();
        Some(inverse)
    }

    fn order() -> num_bigint::BigUint {
        EF::order()
    }
}

impl BasedVectorSpace<Base> for Ext {
    const DIMENSION: usize = 5;

    fn as_basis_coefficients_slice(&self) -> &[Base] {
        &self.0
    }

    fn from_basis_coefficients_fn<Fn: FnMut(usize) -> Base>(f: Fn) -> Self {
        Self(std::array::from_fn(f))
    }

    fn from_basis_coefficients_iter<I: ExactSizeIterator<Item = Base>>(iter: I) -> Option<Self> {
        let list: Vec<Base> = iter.collect();
        list.try_into().ok().map(Self)
    }
}

impl AlgebraIdentity<Base> for Ext {
    fn algebra_id() -> Vec<u8> {
        <EF as AlgebraIdentity<F>>::algebra_id()
    }
}

impl ExtensionField<Base> for Ext {
    type ExtensionPacking = Self;

    fn is_in_basefield(&self) -> bool {
        self.0[1..].iter().all(Base::is_zero)
    }

    fn as_base(&self) -> Option<Base> {
        <Self as ExtensionField<Base>>::is_in_basefield(self).then_some(self.0[0])
    }
}

impl PackedFieldExtension<Base, Ext> for Ext {
    fn packed_ext_powers(base: Ext) -> Powers<Self> {
        base.powers()
    }
}

impl RawDataSerializable for Ext {
    const NUM_BYTES: usize = 5 * Base::NUM_BYTES;

    fn into_bytes(self) -> impl IntoIterator<Item = u8> {
        self.0.into_iter().flat_map(Base::into_bytes).collect::<Vec<u8>>()
    }
}

impl fmt::Display for Ext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl Serialize for Ext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ext {
    /// What is read from a proof is an input.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        EF::deserialize(deserializer).map(|x| Self(coefficients(x).map(Base::input)))
    }
}
