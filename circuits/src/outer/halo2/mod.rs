//! The halo2 circuit of a [`Program`]: satisfiable exactly by runs of the program whose assertions hold.
//!
//! # Soundness of lazy reduction
//!
//! Scalars are integers modulo `r`, the order of BN254's scalar field; KoalaBear elements are integers of which only the class modulo `p`
//! matters. Every cell that stands for a small value carries a bound ([`linear::Var`]) that constraints enforce:
//!
//! - An input and a split's limb are canonical: sums of looked-up limbs that reach every number below `p` and no other ([`shape`]).
//! - A remainder is `Σ limb_i·2^(b·i)` with looked-up limbs: an integer below `2^31`, exactly.
//! - Combinations and products are computed by gates in the scalar field on cells whose integers are known to lie in intervals; the
//!   interval of the result follows. A multiple of `p` added as a constant keeps it nonnegative. All intervals stay below
//!   [`shape::Shape::limit`]` < 2^252 < r`, so the field's equation is the integers' equation.
//! - A reduction constrains `c = p·q + r` with `q < 2^(b·n)`, `r < 2^31` looked up: both sides are below `2^253 < r`, so it holds over the
//!   integers and `r ≡ c mod p`. The remainder need not be canonical.
//! - `x ≡ 0 mod p`: a cell holds `x/p mod r` and is shown to be an integer `q` with `p·q < 2^253`; then `x = p·q`.
//! - An inner product's coefficients are digits of two scalars: sums of products of 31-bit numbers, below `2^width`. Quotients and remainders
//!   in range give digits below `2^width` as well, so equal scalars have equal digits.
//! - A computed value's canonical representative is a remainder `x` for which `limit - x` is a 31-bit number too. Whatever is packed, split or
//!   taken apart into bits is canonical: no class has two integers that a hash could tell apart.
//! - A bit is a cell with `b² = b`. A split's limbs are canonical and its rest is below `⌊r/p^7⌋`, so the sum is below `r`: the canonical
//!   representative's limbs. (An honest scalar fails this with probability below `2^-36`.)
//!
//! Nothing of the layout depends on values: [`lower::Lower`] reads values only to fill advice cells.

#[cfg(test)]
mod blinding;
pub mod gates;
pub mod grid;
pub mod linear;
pub mod lower;
mod operations;
pub mod rounds;
pub mod shape;
#[cfg(test)]
mod tests;

use super::program::{Op, Program, Values};
use crate::ir::F;
use gates::{Config, FIXED, MAIN, RATIO};
use grid::{Cell, Grid, RUNNING};
use halo2_axiom::circuit::{Cell as Halo2Cell, Layouter, Region, SimpleFloorPlanner, Value};
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::Field;
use halo2_axiom::plonk::{Circuit, ConstraintSystem, Error as PlonkError};
use lower::{Cost, Hints, Honest, Lower};
use p3_bn254::Bn254;
use p3_field::{PrimeField, PrimeField32};
use shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// Rows at the end that hold blinding values: [`ConstraintSystem::blinding_factors`] and one more.
pub const BLINDING_ROWS: usize = 7;

/// Why there is no circuit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OuterError {
    /// The program needs more rows.
    #[error("the program takes {rows} rows and {limbs} limbs, but 2^{k} rows leave {usable}")]
    TooLarge {
        /// Rows of the main columns.
        rows: usize,
        /// Rows of the chains.
        limbs: usize,
        /// Logarithm of the circuit's rows.
        k: u32,
        /// Rows available.
        usable: usize,
    },
    /// The logarithm of the rows is out of range.
    #[error("2^{0} rows: between 2^8 and 2^22 are possible")]
    Size(u32),
    /// The values don't satisfy an operation.
    #[error("operation {at} ({op}) isn't satisfied by these values")]
    Unsatisfied {
        /// Its index.
        at: usize,
        /// What it is.
        op: String,
    },
    /// The values aren't of this program.
    #[error("the program fills {expected} registers, the values are {found}")]
    Values {
        /// Registers.
        expected: usize,
        /// Values.
        found: usize,
    },
}

/// A scalar in halo2's representation.
pub fn to_fr(x: Bn254) -> Fr {
    shape::field(&x.as_canonical_biguint())
}

/// A program laid out, with or without values.
#[derive(Clone)]
pub struct OuterCircuit {
    shape: Shape,
    grid: Arc<Grid>,
    costs: Arc<Vec<Cost>>,
}

/// The inputs among the values of a program's registers, in order.
///
/// # Errors
///
/// When there are more or fewer values than registers.
pub fn inputs(program: &Program, values: &Values) -> Result<(Vec<u32>, Vec<Bn254>), OuterError> {
    let (mut small, mut wide, mut next) = (Vec::new(), Vec::new(), (0usize, 0usize));
    for op in &program.ops {
        match op {
            Op::Input => small.extend(values.small.get(next.0).map(F::as_canonical_u32)),
            Op::WideInput => wide.extend(values.wide.get(next.1).copied()),
            _ => {}
        }
        let (s, w) = op.outputs();
        next = (next.0 + s as usize, next.1 + w as usize);
    }
    let (expected, found) = (next.0 + next.1, values.small.len() + values.wide.len());
    if values.small.len() != next.0 || values.wide.len() != next.1 {
        return Err(OuterError::Values { expected, found });
    }
    Ok((small, wide))
}

impl OuterCircuit {
    /// The circuit for keys: no values.
    ///
    /// # Errors
    ///
    /// When `2^k` rows don't hold the program.
    pub fn without_values(program: &Program, k: u32) -> Result<Self, OuterError> {
        Self::laid_out(program, k, &[], &[], &Honest).map(|c| c.0)
    }

    /// The circuit for a proof. Only the inputs' values are used; all others follow.
    ///
    /// # Errors
    ///
    /// As [`Self::without_values`], and when the values don't satisfy the program.
    pub fn new(program: &Program, values: &Values, k: u32) -> Result<Self, OuterError> {
        let (small, wide) = inputs(program, values)?;
        Self::of_inputs(program, &small, &wide, k)
    }

    /// The circuit for given integers and scalars as inputs, in the program's order: what a prover of their own would choose.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn of_inputs(program: &Program, small: &[u32], wide: &[Bn254], k: u32) -> Result<Self, OuterError> {
        let wide: Vec<Fr> = wide.iter().map(|&x| to_fr(x)).collect();
        let (circuit, unsatisfied) = Self::laid_out(program, k, small, &wide, &Honest)?;
        match unsatisfied {
            None => Ok(circuit),
            Some(at) => Err(OuterError::Unsatisfied { at, op: format!("{:?}", program.ops[at]) }),
        }
    }

    /// The circuit with whatever the hints say, and the first operation that isn't satisfied.
    fn laid_out(program: &Program, k: u32, small: &[u32], wide: &[Fr], hints: &dyn Hints) -> Result<(Self, Option<usize>), OuterError> {
        if !(8..=22).contains(&k) {
            return Err(OuterError::Size(k));
        }
        let shape = Shape { k };
        let Lower { grid, costs, unsatisfied, .. } = Lower::run(program, shape, small, wide, hints);
        let usable = (1usize << k) - BLINDING_ROWS;
        let (rows, limbs) = (grid.rows(), grid.limbs());
        // The last rows' constraints reach one and three rows further; neither is selected there.
        if rows.max(limbs) + 3 > usable {
            return Err(OuterError::TooLarge { rows, limbs, k, usable });
        }
        Ok((Self { shape, grid: Arc::new(grid), costs: Arc::new(costs) }, unsatisfied))
    }

    /// The public inputs.
    pub fn public(&self) -> Vec<Fr> {
        self.grid.public.iter().map(|&c| self.grid.value(c)).collect()
    }

    /// Rows of the main columns and of the chains.
    pub fn size(&self) -> Cost {
        Cost { rows: self.grid.rows(), limbs: self.grid.limbs() }
    }

    /// The size, by kind of operation: how many, and their rows.
    pub fn by_kind(&self, program: &Program) -> BTreeMap<String, (usize, Cost)> {
        let mut out: BTreeMap<String, (usize, Cost)> = BTreeMap::new();
        for (op, cost) in program.ops.iter().zip(self.costs.iter()) {
            let name = format!("{op:?}");
            let entry = out.entry(name.split(['(', ' ']).next().unwrap_or_default().to_owned()).or_default();
            *entry = (entry.0 + 1, Cost { rows: entry.1.rows + cost.rows, limbs: entry.1.limbs + cost.limbs });
        }
        out
    }

    /// The size, by part of the program.
    pub fn by_part(&self, program: &Program) -> Vec<(&'static str, Cost)> {
        let ends = program.parts.iter().skip(1).map(|p| p.0).chain([program.ops.len()]);
        let sum = |range: std::ops::Range<usize>| {
            self.costs[range].iter().fold(Cost::default(), |a, c| Cost { rows: a.rows + c.rows, limbs: a.limbs + c.limbs })
        };
        program.parts.iter().zip(ends).map(|((start, name), end)| (*name, sum(*start..end))).collect()
    }

    /// The advice columns, `2^k` values each, zero beyond the rows used: what `create_proof_from_advice` takes.
    pub fn advice(&self) -> Vec<Vec<Fr>> {
        let padded = |column: &Vec<Fr>| {
            let mut column = column.clone();
            column.resize(1 << self.shape.k, Fr::ZERO);
            column
        };
        self.grid.main.iter().chain([&self.grid.running, &self.grid.limb]).map(padded).collect()
    }

    fn assign(&self, config: &Config, region: &mut Region<'_, Fr>) {
        let grid = &self.grid;
        for (column, values) in config.fixed.iter().zip(&grid.fixed) {
            for (row, &v) in values.iter().enumerate() {
                region.assign_fixed(*column, row, v);
            }
        }
        let mut cells: Vec<Vec<Halo2Cell>> = Vec::new();
        for (column, values) in config.main.iter().chain([&config.running]).zip(grid.main.iter().chain([&grid.running])) {
            let assigned = values.iter().enumerate().map(|(row, &v)| region.assign_advice(*column, row, Value::known(v)).cell());
            cells.push(assigned.collect());
        }
        for (row, &v) in grid.limb.iter().enumerate() {
            region.assign_advice(config.limb, row, Value::known(v));
        }
        let cell = |c: &Cell| cells[usize::from(c.column)][c.row as usize];
        grid.copies.iter().for_each(|(a, b)| region.constrain_equal(cell(a), cell(b)));
    }

    /// Numbers below `2^b` with tag one, numbers below `2^t` with tag zero, middle limbs; all plus one, and one in every usable row left.
    fn assign_table(&self, config: &Config, region: &mut Region<'_, Fr>) {
        let (wide, narrow, middles) = (1usize << self.shape.limb(), 1usize << self.shape.top(), self.shape.middles());
        let middle_tag = gates::middle_tag(self.shape);
        for row in 0..(1 << self.shape.k) - BLINDING_ROWS {
            let (tag, number) = match row {
                r if r < wide => (Fr::ONE, Fr::from(r as u64)),
                r if r < wide + narrow => (Fr::ZERO, Fr::from((r - wide) as u64)),
                r if r < wide + narrow + middles => (middle_tag, self.shape.middle(r - wide - narrow).1),
                _ => (Fr::ZERO, Fr::ZERO),
            };
            region.assign_fixed(config.table[0], row, tag);
            region.assign_fixed(config.table[1], row, number + Fr::ONE);
        }
    }
}

impl Circuit<Fr> for OuterCircuit {
    type Config = Config;
    type FloorPlanner = SimpleFloorPlanner;
    type Params = Shape;

    fn params(&self) -> Shape {
        self.shape
    }

    fn without_witnesses(&self) -> Self {
        self.clone()
    }

    fn configure_with_params(cs: &mut ConstraintSystem<Fr>, shape: Shape) -> Config {
        let config = Config::new(cs, shape);
        assert_eq!(cs.blinding_factors() + 1, BLINDING_ROWS, "the table fills exactly the usable rows");
        config
    }

    fn configure(_: &mut ConstraintSystem<Fr>) -> Config {
        unreachable!("the circuit has parameters")
    }

    fn synthesize(&self, config: Config, mut layouter: impl Layouter<Fr>) -> Result<(), PlonkError> {
        layouter.assign_region(
            || "program",
            |mut region| {
                self.assign_table(&config, &mut region);
                self.assign(&config, &mut region);
                Ok(())
            },
        )
    }
}

const _: () = assert!(MAIN == RUNNING as usize && RATIO == FIXED - 1);
