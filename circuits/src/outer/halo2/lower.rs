//! From a program to cells: which operation gets which cells, and when integers are reduced.
//!
//! Additive operations only combine [`Linear`]s. A product takes its operands' cells, materialised if they are combinations, and yields
//! an unreduced integer; operands are reduced before it where that is cheaper (a value used by several products) or where the product's
//! bound would reach [`Shape::limit`].

use super::grid::{Cell, Five, Grid, invert};
use super::linear::{Id, Interval, Linear, Var, centred};
use super::shape::{P, Shape, field, integer};
use crate::outer::program::{Op, Program, SPLIT_LIMBS, Small, Wide};
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::Field;
use num_bigint::{BigInt, BigUint};
use std::collections::HashMap;

/// Terms of a combination above which it is materialised.
const TERMS: usize = 8;

/// What the prover chooses besides the inputs. The defaults are honest; tests replace them.
pub trait Hints {
    /// Quotient and remainder by `p`.
    fn reduce(&self, x: &BigUint) -> (BigUint, BigUint) {
        (x / P, x % P)
    }

    /// A bit of a canonical representative.
    fn bit(&self, x: &BigUint, i: u32) -> bool {
        x.bit(u64::from(i))
    }

    /// Limbs in base `p`, and the rest.
    fn split(&self, x: &BigUint) -> (Vec<BigUint>, BigUint) {
        let mut rest = x.clone();
        let limbs = (0..SPLIT_LIMBS).map(|_| {
            let limb = &rest % P;
            rest = &rest / P;
            limb
        });
        (limbs.collect(), rest)
    }
}

/// The honest prover.
pub struct Honest;

impl Hints for Honest {}

/// Rows that an operation took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of the main columns.
    pub rows: usize,
    /// Of the chains.
    pub limbs: usize,
}

/// How often a small register is read, by what.
#[derive(Clone, Copy, Default)]
pub(super) struct Uses {
    pub(super) all: u32,
    products: u32,
    pub(super) last: usize,
}

fn uses(program: &Program) -> Vec<Uses> {
    let mut out: Vec<Uses> = Vec::new();
    for (at, op) in program.ops.iter().enumerate() {
        let (sums, products): (Vec<Small>, Vec<Small>) = match op {
            Op::Add(a, b) | Op::Sub(a, b) => (vec![*a, *b], vec![]),
            Op::Scale(a, _) | Op::Bits(a, _) | Op::Select(a, ..) | Op::AssertZero(a) | Op::AssertBit(a) => (vec![*a], vec![]),
            Op::Pack(list, _) => (list.clone(), vec![]),
            Op::Mul(a, b) => (vec![], vec![*a, *b]),
            Op::ExtMul(a, b) => (vec![], a.iter().chain(b).copied().collect()),
            Op::ExtScale(a, b) => (vec![], a.iter().chain([b]).copied().collect()),
            Op::InnerProduct(a, b) => (a.iter().flatten().chain(b).copied().collect(), vec![]),
            _ => (vec![], vec![]),
        };
        for (list, weight) in [(sums, 0), (products, 1)] {
            for r in list {
                let u = &mut out[r.0 as usize];
                *u = Uses { all: u.all + 1, products: u.products + weight, last: at };
            }
        }
        out.resize(out.len() + op.outputs().0 as usize, Uses::default());
    }
    out
}

/// The layout under construction.
pub struct Lower<'a> {
    pub(super) program: &'a Program,
    pub(super) hints: &'a dyn Hints,
    inputs: (std::slice::Iter<'a, u32>, std::slice::Iter<'a, Fr>),
    /// The cells.
    pub grid: Grid,
    pub(super) vars: Vec<Var>,
    /// Variables whose honest integers are below `p`, whatever their bound.
    pub(super) words: Vec<bool>,
    pub(super) small: Vec<Linear>,
    pub(super) wide: Vec<Cell>,
    pub(super) uses: Vec<Uses>,
    pub(super) done: HashMap<usize, Linear>,
    /// Extension elements as two cells, by [`Lower::inner_product`].
    pub(super) packed: HashMap<([Id; 5], usize), [Cell; 2]>,
    /// Cost of each operation.
    pub costs: Vec<Cost>,
    /// The first operation whose constraints the given inputs don't satisfy.
    pub unsatisfied: Option<usize>,
    pub(super) at: usize,
}

impl<'a> Lower<'a> {
    /// Lays out a program. Missing inputs are zero.
    pub fn run(program: &'a Program, shape: Shape, small: &'a [u32], wide: &'a [Fr], hints: &'a dyn Hints) -> Self {
        let mut out = Self {
            program,
            hints,
            inputs: (small.iter(), wide.iter()),
            grid: Grid::new(shape),
            vars: Vec::new(),
            words: Vec::new(),
            small: Vec::new(),
            wide: Vec::new(),
            uses: uses(program),
            done: HashMap::new(),
            packed: HashMap::new(),
            costs: Vec::new(),
            unsatisfied: None,
            at: 0,
        };
        out.grid.reserve_public(program.ops.iter().filter(|op| matches!(op, Op::Public(_))).count());
        for (at, op) in program.ops.iter().enumerate() {
            let before = Cost { rows: out.grid.rows(), limbs: out.grid.limbs() };
            out.at = at;
            out.op(op);
            out.costs.push(Cost { rows: out.grid.rows() - before.rows, limbs: out.grid.limbs() - before.limbs });
        }
        out
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Input => self.input(),
            Op::Constant(c) => self.small.push(Linear::constant(BigInt::from(u64::from(*c) % P))),
            Op::Add(..) | Op::Sub(..) | Op::Scale(..) => self.additive(),
            Op::Mul(a, b) => self.multiply(*a, *b),
            Op::ExtMul(a, b) => {
                let a = self.operands(*a);
                let b = self.operands(*b);
                self.extension(a, b);
            }
            Op::ExtScale(a, b) => {
                let a = self.operands(*a);
                let b = self.operand(*b);
                let zero = self.constant(&BigUint::ZERO, self.vars[b as usize].factor);
                self.extension(a, [b, zero, zero, zero, zero]);
            }
            Op::InnerProduct(a, b) => self.inner_product(a, b),
            Op::Bits(x, count) => self.bits(*x, *count),
            Op::Pack(list, shift) => self.pack(list, *shift),
            Op::WideInput => {
                let value = self.inputs.1.next().copied().unwrap_or(Fr::ZERO);
                let cell = self.grid.free(value);
                self.wide.push(cell);
            }
            Op::WideConstant(limbs) => {
                let cell = self.grid.constant(Fr::from_raw(*limbs));
                self.wide.push(cell);
            }
            Op::WideAdd(a, b) => {
                let cell = self.grid.scalar([None, None, Some(self.wide(*a)), Some(self.wide(*b))], [Fr::ONE; 3]);
                self.wide.push(cell);
            }
            Op::WideMul(a, b) => {
                let cell = self.grid.scalar([Some(self.wide(*a)), Some(self.wide(*b)), None, None], [Fr::ONE, Fr::ZERO, Fr::ZERO]);
                self.wide.push(cell);
            }
            Op::Permute(list) => {
                let out = self.grid.permute(list.map(|x| self.wide(x)));
                self.wide.extend(out);
            }
            Op::Split(x) => self.split(*x),
            Op::Select(bit, low, high) => {
                let bit = self.boolean(*bit);
                // bit·(high - low) + low
                let (low, high) = (self.wide(*low), self.wide(*high));
                let cell = self.grid.scalar([Some(bit), Some(high), Some(low), None], [Fr::ONE, Fr::ONE, Fr::ZERO]);
                self.wide.push(cell);
            }
            Op::AssertZero(x) => {
                let x = self.small(*x).clone();
                self.assert_zero(&x);
            }
            Op::AssertBit(x) => drop(self.boolean(*x)),
            Op::AssertEqual(a, b) => {
                let (a, b) = (self.wide(*a), self.wide(*b));
                self.equal(a, b);
            }
            Op::Public(x) => {
                let x = self.wide(*x);
                self.grid.publish(x);
            }
        }
    }

    pub(super) fn small(&self, r: Small) -> &Linear {
        &self.small[r.0 as usize]
    }

    pub(super) fn wide(&self, r: Wide) -> Cell {
        self.wide[r.0 as usize]
    }

    pub(super) fn shape(&self) -> Shape {
        self.grid.shape
    }

    pub(super) fn equal(&mut self, a: Cell, b: Cell) {
        self.satisfied(self.grid.value(a) == self.grid.value(b));
        self.grid.equal(a, b);
    }

    pub(super) fn satisfied(&mut self, holds: bool) {
        if !holds && self.unsatisfied.is_none() {
            self.unsatisfied = Some(self.at);
        }
    }

    pub(super) fn var(&mut self, cell: Cell, factor: Fr, max: BigUint) -> Id {
        assert!(max < self.shape().limit(), "every bound is below the limit");
        self.words.push(max < BigUint::from(P));
        self.vars.push(Var { cell, factor, max });
        self.vars.len() as Id - 1
    }

    /// A variable below `2^31` whose honest integer is below `p`.
    pub(super) fn word(&mut self, cell: Cell) -> Id {
        let id = self.var(cell, Fr::ONE, (BigUint::from(1u8) << 31) - 1u8);
        self.words[id as usize] = true;
        id
    }

    pub(super) fn constant(&mut self, value: &BigUint, factor: Fr) -> Id {
        let cell = self.grid.constant(field(value) * invert(factor));
        self.var(cell, factor, value.clone())
    }

    pub(super) fn interval(&self, x: &Linear) -> Interval {
        x.interval(&self.vars)
    }

    fn input(&mut self) {
        let value = BigUint::from(self.inputs.0.next().copied().unwrap_or(0));
        let id = self.representative(&value);
        self.small.push(Linear::var(id));
    }

    /// A variable that is a canonical representative.
    pub(super) fn representative(&mut self, value: &BigUint) -> Id {
        self.satisfied(*value < BigUint::from(P));
        let cell = self.grid.canonical(value);
        self.var(cell, Fr::ONE, BigUint::from(P - 1))
    }

    // Combinations.

    fn combination(&self, op: &Op) -> Option<Linear> {
        // A register that doesn't exist yet, or was merged into the sum that uses it, isn't available.
        let get = |r: &Small| self.small.get(r.0 as usize).filter(|x| **x != merged());
        Some(match op {
            Op::Add(a, b) => get(a)?.plus(&BigInt::from(1), get(b)?),
            Op::Sub(a, b) => get(a)?.plus(&BigInt::from(-1), get(b)?),
            Op::Scale(a, k) => Linear::default().plus(&centred(*k), get(a)?),
            _ => return None,
        })
    }

    fn large(&self, x: &Linear) -> bool {
        self.interval(x).magnitude() >= self.shape().limit() >> 3
    }

    fn additive(&mut self) {
        let program = self.program;
        if let Some(x) = self.done.remove(&self.at) {
            return self.small.push(x);
        }
        let op = &program.ops[self.at];
        // A multiple can leave the range of what can be reduced; a sum can't.
        if let Op::Scale(a, _) = op
            && self.combination(op).is_some_and(|x| self.large(&x))
        {
            let x = self.small(*a).clone();
            let id = self.reduced_one(&x);
            self.small[a.0 as usize] = Linear::var(id);
        }
        if let Some(x) = self.combination(op)
            && x.terms.len() <= TERMS
            && !self.large(&x)
        {
            return self.small.push(x);
        }
        // Five in a row are most likely an extension element's coefficients. A multiple that may be too large to be reduced with others waits
        // for its own turn.
        let limit = self.shape().limit() >> 2;
        let fits = |at: usize, x: &Linear| !matches!(program.ops[at], Op::Scale(..)) || self.interval(x).magnitude() < limit;
        let list: Vec<Linear> = (self.at..program.ops.len().min(self.at + 5))
            .map_while(|at| self.combination(&program.ops[at]).filter(|x| !self.done.contains_key(&at) && fits(at, x)))
            .collect();
        let Ok(five) = <[Linear; 5]>::try_from(list.clone()) else {
            let x = self.shortened(&list[0]);
            return self.small.push(x);
        };
        let ids = match five.iter().any(|x| self.large(x)) {
            true => self.reduced(&five),
            false => self.gathered(&five, Fr::ONE),
        };
        self.small.push(Linear::var(ids[0]));
        for (i, id) in ids.iter().enumerate().skip(1) {
            self.done.insert(self.at + i, Linear::var(*id));
        }
    }

    fn shortened(&mut self, x: &Linear) -> Linear {
        if self.large(x) {
            let id = self.reduced_one(x);
            return Linear::var(id);
        }
        Linear::var(self.gathered_one(x, Fr::ONE))
    }

    /// The canonical constant that a combination is.
    pub(super) fn known(x: &Linear) -> Option<BigUint> {
        let p = BigInt::from(P);
        x.terms.is_empty().then(|| (((&x.constant % &p) + &p) % &p).to_biguint().unwrap_or_default())
    }

    /// Terms over cells, divided by `factor`.
    fn scaled(&self, x: &Linear, factor: Fr) -> Vec<(Cell, Fr)> {
        let shrink = invert(factor);
        let term = |(id, k): &(Id, BigInt)| (self.vars[*id as usize].cell, signed(k) * self.vars[*id as usize].factor * shrink);
        x.terms.iter().map(term).collect()
    }

    pub(super) fn sum(&mut self, terms: &[(Cell, Fr)]) -> Cell {
        match *terms {
            [] => self.grid.constant(Fr::ZERO),
            [(a, j)] => self.grid.scalar([None, None, Some(a), None], [Fr::ONE, j, Fr::ZERO]),
            [(a, j), (b, k)] => self.grid.scalar([None, None, Some(a), Some(b)], [Fr::ONE, j, k]),
            _ => self.grid.sum(terms),
        }
    }

    /// A combination that needs no cell of its own.
    fn direct(&mut self, x: &Linear, factor: Fr) -> Option<Id> {
        if let Some(value) = Self::known(x) {
            return Some(self.constant(&value, factor));
        }
        x.as_var().filter(|&id| self.vars[id as usize].factor == factor)
    }

    /// A cell for a combination, plus a multiple of `p` that makes it nonnegative.
    pub(super) fn gathered_one(&mut self, x: &Linear, factor: Fr) -> Id {
        if let Some(id) = self.direct(x, factor) {
            return id;
        }
        let interval = self.interval(x);
        let offset = interval.offset();
        let mut terms = self.scaled(x, factor);
        let constant = signed(&(&x.constant + BigInt::from(offset.clone())));
        if constant != Fr::ZERO {
            let one = self.grid.constant(Fr::ONE);
            terms.push((one, constant * invert(factor)));
        }
        let cell = self.sum(&terms);
        self.var(cell, factor, interval.max(&offset))
    }

    /// Cells for five combinations, in rows of five where that takes fewer.
    fn gathered(&mut self, five: &[Linear; 5], factor: Fr) -> [Id; 5] {
        if five.iter().any(|x| x.terms.is_empty() || x.as_var().is_some_and(|id| self.vars[id as usize].factor == factor)) {
            return five.each_ref().map(|x| self.gathered_one(x, factor));
        }
        let columns = self.columns(five, factor);
        if self.scalar_rows(five) <= 2 * columns.len() {
            return five.each_ref().map(|x| self.gathered_one(x, factor));
        }
        let intervals = five.each_ref().map(|x| self.interval(x));
        let offset = intervals.iter().map(Interval::offset).max().unwrap_or_default();
        let shared = five.iter().all(|x| x.constant == five[0].constant);
        let constant = signed(&(BigInt::from(offset.clone()) + if shared { five[0].constant.clone() } else { BigInt::ZERO })) * invert(factor);
        let columns: Vec<(Fr, Five)> =
            columns.into_iter().map(|(k, cells)| (k, cells.map(|c| c.unwrap_or_else(|| self.grid.constant(Fr::ZERO))))).collect();
        let mut rest = columns.iter();
        let first = rest.next().unwrap_or_else(|| unreachable!("a combination with terms has columns"));
        let second = rest.next();
        let mut sum = self.grid.vector(first.1, second.map(|s| s.1), [constant, first.0, second.map_or(Fr::ZERO, |s| s.0)]);
        for (k, cells) in rest {
            sum = self.grid.vector(sum, Some(*cells), [Fr::ZERO, Fr::ONE, *k]);
        }
        std::array::from_fn(|i| self.var(sum[i], factor, intervals[i].max(&offset)))
    }

    fn scalar_rows(&self, five: &[Linear; 5]) -> usize {
        five.iter().map(|x| x.terms.len().max(2) - 1 + usize::from(self.interval(x).offset() + 1u8 > BigUint::from(1u8))).sum()
    }

    /// Five combinations as few multiples of five cells; unequal constants are cells too.
    fn columns(&mut self, five: &[Linear; 5], factor: Fr) -> Vec<(Fr, [Option<Cell>; 5])> {
        let mut out: Vec<(Fr, [Option<Cell>; 5])> = Vec::new();
        let shared = five.iter().all(|x| x.constant == five[0].constant);
        for (lane, x) in five.iter().enumerate() {
            let mut terms = self.scaled(x, factor);
            if !shared && x.constant != BigInt::ZERO {
                let cell = self.grid.constant(signed(&x.constant));
                terms.push((cell, invert(factor)));
            }
            for (cell, k) in terms {
                match out.iter_mut().find(|(j, cells)| *j == k && cells[lane].is_none()) {
                    Some((_, cells)) => cells[lane] = Some(cell),
                    None => out.push((k, std::array::from_fn(|i| (i == lane).then_some(cell)))),
                }
            }
        }
        out
    }

    // Reduction.

    pub(super) fn is_short(&self, x: &Linear) -> bool {
        x.terms.is_empty() || x.as_var().is_some_and(|id| self.vars[id as usize].max.bits() <= 31 && self.vars[id as usize].factor == Fr::ONE)
    }

    /// A variable below `2^31` that is congruent.
    pub(super) fn reduced_one(&mut self, x: &Linear) -> Id {
        if self.is_short(x) {
            return self.gathered_one(x, Fr::ONE);
        }
        let interval = self.interval(x);
        let factor = self.shape().reduction_factor(&interval.max(&interval.offset()));
        let id = self.gathered_one(x, factor);
        self.remainder(id)
    }

    pub(super) fn remainder(&mut self, id: Id) -> Id {
        let Var { cell, factor, max } = self.vars[id as usize].clone();
        let (q, r) = self.hints.reduce(&integer(&(self.grid.value(cell) * factor)));
        let n = self.shape().quotient_limbs(&max);
        debug_assert_eq!(factor, self.shape().reduction_factor(&max));
        let (start, r) = self.grid.reduction(&q, &r, n);
        self.equal(start, cell);
        self.word(r)
    }

    pub(super) fn reduced(&mut self, five: &[Linear; 5]) -> [Id; 5] {
        let intervals = five.each_ref().map(|x| self.interval(x));
        let factors = intervals.each_ref().map(|i| self.shape().reduction_factor(&i.max(&i.offset())));
        let same = factors.iter().all(|f| *f == factors[0]) && !five.iter().any(|x| self.is_short(x));
        if !same {
            return five.each_ref().map(|x| self.reduced_one(x));
        }
        let ids = self.gathered(five, factors[0]);
        // A shared offset can need more limbs than a lane's own.
        ids.map(|id| match self.shape().reduction_factor(&self.vars[id as usize].max) == factors[0] {
            true => self.remainder(id),
            false => self.reduced_one(&Linear::var(id)),
        })
    }

    // Products.

    fn excess(&self, x: &Linear) -> u64 {
        let interval = self.interval(x);
        interval.max(&interval.offset()).bits().saturating_sub(31)
    }

    /// Whether reducing a value once is cheaper than reducing its multiples further.
    fn worth_reducing(&self, excess: u64, products: u32) -> bool {
        excess > 3 && u64::from(products.saturating_sub(1)) * excess > 31
    }

    pub(super) fn operand(&mut self, r: Small) -> Id {
        let x = self.small(r).clone();
        let id = match (self.worth_reducing(self.excess(&x), self.uses[r.0 as usize].products), x.as_var()) {
            (true, _) => self.reduced_one(&x),
            (false, Some(id)) => id,
            (false, None) => self.gathered_one(&x, Fr::ONE),
        };
        self.small[r.0 as usize] = Linear::var(id);
        id
    }

    pub(super) fn operands(&mut self, r: [Small; 5]) -> [Id; 5] {
        let five = r.map(|r| self.small(r).clone());
        let excess = five.iter().map(|x| self.excess(x)).max().unwrap_or(0);
        let products = r.iter().map(|r| self.uses[r.0 as usize].products).max().unwrap_or(0);
        let vars: Vec<Id> = five.iter().filter_map(Linear::as_var).collect();
        let factor = vars.first().map_or(Fr::ONE, |&id| self.vars[id as usize].factor);
        let uniform = vars.iter().all(|&id| self.vars[id as usize].factor == factor);
        let simple = five.iter().all(|x| x.as_var().is_some() || x.terms.is_empty());
        let ids = match (self.worth_reducing(excess, products), simple && uniform) {
            (true, _) => self.reduced(&five),
            (false, true) => five.each_ref().map(|x| self.gathered_one(x, factor)),
            (false, false) => self.gathered(&five, Fr::ONE),
        };
        // Reduction leaves constants and short values as they were: all have factor one.
        for (r, id) in r.iter().zip(ids) {
            if !self.small(*r).terms.is_empty() {
                self.small[r.0 as usize] = Linear::var(id);
            }
        }
        ids
    }
}

/// What stands in a register that its only user has absorbed.
pub(super) fn merged() -> Linear {
    Linear::var(Id::MAX)
}

/// An integer modulo the scalar field's order.
pub fn signed(x: &BigInt) -> Fr {
    let magnitude = field(x.magnitude());
    if x.sign() == num_bigint::Sign::Minus { -magnitude } else { magnitude }
}
