//! Runs a program on its inputs: what the operations mean, in one place without circuits. Tests compare the outer circuit with it.

use super::program::{Op, Program, SPLIT_LIMBS, Small, Values, Wide};
use crate::ir::{EF, F};
use crate::poseidon2::permutation;
use p3_bn254::Bn254;
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField, PrimeField32, split_pf_to_field_order_limbs};
use p3_symmetric::Permutation as _;
use thiserror::Error;

/// Why a program doesn't run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvaluateError {
    /// An operation reads a register that nothing has filled, or an input is missing.
    #[error("operation {0} reads what isn't there")]
    Missing(usize),
    /// An assertion doesn't hold.
    #[error("operation {0} asserts what isn't so")]
    Unsatisfied(usize),
}

/// The scalar with these little-endian limbs.
pub fn scalar(limbs: [u64; 4]) -> Bn254 {
    let radix = Bn254::from_u128(1 << 64);
    limbs.iter().rev().fold(Bn254::ZERO, |acc, &l| acc * radix + Bn254::from_u64(l))
}

/// The little-endian limbs of a scalar's canonical representative.
pub fn limbs(x: Bn254) -> [u64; 4] {
    let digits = x.as_canonical_biguint().to_u64_digits();
    std::array::from_fn(|i| digits.get(i).copied().unwrap_or(0))
}

struct Machine<'a> {
    small_inputs: std::slice::Iter<'a, F>,
    wide_inputs: std::slice::Iter<'a, Bn254>,
    values: Values,
    public: Vec<Bn254>,
}

impl Machine<'_> {
    fn small(&self, r: Small) -> Option<F> {
        self.values.small.get(r.0 as usize).copied()
    }

    fn wide(&self, r: Wide) -> Option<Bn254> {
        self.values.wide.get(r.0 as usize).copied()
    }

    fn ext(&self, r: &[Small; 5]) -> Option<EF> {
        let list = r.iter().map(|&x| self.small(x)).collect::<Option<Vec<_>>>()?;
        Some(EF::from_basis_coefficients_fn(|i| list[i]))
    }

    /// `None` where a register is missing; the flag tells whether assertions hold.
    fn step(&mut self, op: &Op) -> Option<bool> {
        let mut holds = true;
        match op {
            Op::Input => self.values.small.push(*self.small_inputs.next()?),
            Op::Constant(c) => self.values.small.push(F::from_u32(*c)),
            Op::Add(a, b) => self.values.small.push(self.small(*a)? + self.small(*b)?),
            Op::Sub(a, b) => self.values.small.push(self.small(*a)? - self.small(*b)?),
            Op::Scale(a, k) => self.values.small.push(self.small(*a)? * F::from_u32(*k)),
            Op::Mul(a, b) => self.values.small.push(self.small(*a)? * self.small(*b)?),
            Op::ExtMul(a, b) => {
                let product: EF = self.ext(a)? * self.ext(b)?;
                self.values.small.extend_from_slice(product.as_basis_coefficients_slice());
            }
            Op::ExtScale(a, b) => {
                let product: EF = self.ext(a)? * self.small(*b)?;
                self.values.small.extend_from_slice(product.as_basis_coefficients_slice());
            }
            Op::InnerProduct(weights, elements) => {
                holds = weights.len() == elements.len();
                let mut sum = EF::ZERO;
                for (w, x) in weights.iter().zip(elements) {
                    sum += self.ext(w)? * self.small(*x)?;
                }
                self.values.small.extend_from_slice(sum.as_basis_coefficients_slice());
            }
            Op::Bits(x, count) => {
                let x = self.small(*x)?;
                holds = x != F::NEG_ONE && *count <= 31;
                self.values.small.extend((0..*count).map(|i| F::from_u32((x.as_canonical_u32() >> i.min(31)) & 1)));
            }
            Op::Pack(list, shift) => {
                let digits = list.iter().map(|&x| self.small(x)).collect::<Option<Vec<_>>>()?;
                let digits: Vec<u64> = digits.iter().map(|x| u64::from(x.as_canonical_u32()) + u64::from(*shift)).collect();
                self.values.wide.push(crate::poseidon2::pack(&digits));
            }
            Op::WideInput => self.values.wide.push(*self.wide_inputs.next()?),
            Op::WideConstant(c) => self.values.wide.push(scalar(*c)),
            Op::WideAdd(a, b) => self.values.wide.push(self.wide(*a)? + self.wide(*b)?),
            Op::WideMul(a, b) => self.values.wide.push(self.wide(*a)? * self.wide(*b)?),
            Op::Permute([a, b, c]) => {
                let out = permutation().permute([self.wide(*a)?, self.wide(*b)?, self.wide(*c)?]);
                self.values.wide.extend(out);
            }
            Op::Split(x) => self.values.small.extend(split_pf_to_field_order_limbs::<Bn254, F>(self.wide(*x)?, SPLIT_LIMBS)),
            Op::Select(bit, low, high) => {
                let bit = self.small(*bit)?;
                holds = bit == F::ZERO || bit == F::ONE;
                self.values.wide.push(self.wide(if bit == F::ONE { *high } else { *low })?);
            }
            Op::AssertZero(x) => holds = self.small(*x)? == F::ZERO,
            Op::AssertBit(x) => holds = [F::ZERO, F::ONE].contains(&self.small(*x)?),
            Op::AssertEqual(a, b) => holds = self.wide(*a)? == self.wide(*b)?,
            Op::Public(x) => self.public.push(self.wide(*x)?),
        }
        Some(holds)
    }
}

impl Program {
    /// The values of all registers, and the public inputs.
    ///
    /// # Errors
    ///
    /// When a register or an input is missing, or an assertion doesn't hold.
    pub fn evaluate(&self, small: &[F], wide: &[Bn254]) -> Result<(Values, Vec<Bn254>), EvaluateError> {
        let mut machine = Machine { small_inputs: small.iter(), wide_inputs: wide.iter(), values: Values::default(), public: Vec::new() };
        for (i, op) in self.ops.iter().enumerate() {
            if !machine.step(op).ok_or(EvaluateError::Missing(i))? {
                return Err(EvaluateError::Unsatisfied(i));
            }
        }
        Ok((machine.values, machine.public))
    }
}
