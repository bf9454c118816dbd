//! The operations that need more than combinations: products, bits, packing, splitting, assertions.

use super::gates::{convolution, product};
use super::grid::{Cell, invert};
use super::linear::{Id, Interval, Linear, Var};
use super::lower::{Lower, merged};
use super::shape::{P, field, integer, power};
use crate::outer::program::{Ext, Op, SPLIT_LIMBS, Small, Wide};
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::Field;
use num_bigint::{BigInt, BigUint};

/// Terms of an inner product whose coefficients are added before they are reduced.
const INNER_PRODUCT: usize = 64;

/// What happens to a product's coefficients `x` when exactly one addition uses each of them, and with which five variables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fusion {
    /// `other + x`.
    Plus,
    /// `other - x`.
    Minus,
    /// `x - other`.
    Less,
}

impl std::ops::Add for Interval {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.plus(&other)
    }
}

impl std::ops::Sub for Interval {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.plus(&other.negated())
    }
}

impl std::ops::Mul for Interval {
    type Output = Self;
    /// Of nonnegative factors.
    fn mul(self, other: Self) -> Self {
        Self { low: self.low * other.low, high: self.high * other.high }
    }
}

impl Lower<'_> {
    fn reach(&self, id: Id) -> Interval {
        Interval { low: BigInt::ZERO, high: self.vars[id as usize].max.clone().into() }
    }

    pub(super) fn multiply(&mut self, a: Small, b: Small) {
        let mut factors = [self.operand(a), self.operand(b)];
        while &self.vars[factors[0] as usize].max * &self.vars[factors[1] as usize].max >= self.shape().limit() >> 3 {
            let larger = usize::from(self.vars[factors[0] as usize].max < self.vars[factors[1] as usize].max);
            factors[larger] = self.reduced_one(&Linear::var(factors[larger]));
        }
        let [x, y] = factors.map(|id| self.vars[id as usize].clone());
        let max = &x.max * &y.max;
        let out = self.shape().reduction_factor(&max);
        let scale = out * invert(x.factor * y.factor);
        let cell = self.grid.scalar([Some(x.cell), Some(y.cell), None, None], [scale, Fr::ZERO, Fr::ZERO]);
        let id = self.var(cell, out, max);
        self.small.push(Linear::var(id));
    }

    /// A variable below `2^31` whose cell is the integer.
    fn plain(&mut self, x: &Linear) -> Id {
        let id = self.reduced_one(x);
        debug_assert_eq!(self.vars[id as usize].factor, Fr::ONE);
        id
    }

    /// Extension elements are packed, three coefficients and two as the digits of a scalar, so that a term is one row for all five. The sums'
    /// digits are the coefficients' integers: both are below `2^width`, and three digits below the scalar field's order.
    pub(super) fn inner_product(&mut self, weights: &[Ext], elements: &[Small]) {
        assert_eq!(weights.len(), elements.len(), "an inner product has as many of either");
        let terms: Vec<([Id; 5], Id)> = weights
            .iter()
            .zip(elements)
            .map(|(w, x)| {
                let w = w.map(|r| self.word_of(r));
                (w, self.word_of(*x))
            })
            .collect();
        let word: BigUint = (BigUint::from(1u8) << 31) - 1u8;
        let mut sums: [Vec<Id>; 5] = Default::default();
        for block in terms.chunks(INNER_PRODUCT) {
            let max = word.pow(2) * BigUint::from(block.len());
            let (limbs, width) = self.shape().digit(&max);
            assert!(3 * width < 254, "three digits fit a scalar");
            let cells: Vec<[Cell; 3]> = block
                .iter()
                .map(|(w, x)| {
                    let [low, high] = self.digits(w, width);
                    [self.vars[*x as usize].cell, low, high]
                })
                .collect();
            let totals = self.grid.inner_products(&cells);
            let value = |s: &Self, id: Id| integer(&s.grid.value(s.vars[id as usize].cell));
            let coefficients: [BigUint; 5] = std::array::from_fn(|i| block.iter().map(|(w, x)| value(self, w[i]) * value(self, *x)).sum());
            let digits: Vec<[(Cell, Fr); 2]> = coefficients
                .iter()
                .enumerate()
                .map(|(i, c)| {
                    let (q, r) = self.hints.reduce(c);
                    self.satisfied(q.bits() as usize <= self.shape().limb() * (limbs - 1) + self.shape().top() && r.bits() <= 31);
                    let (q, r) = (self.grid.range(&q, limbs), self.grid.range(&r, self.shape().word_limbs()));
                    let id = self.word(r);
                    sums[i].push(id);
                    let weight = power(width * (i % 3));
                    [(q, weight * Fr::from(P)), (r, weight)]
                })
                .collect();
            for (digits, total) in digits.chunks(3).zip(totals) {
                let sum = self.sum(&digits.concat());
                self.equal(sum, total);
            }
        }
        for ids in sums {
            let total = ids.iter().fold(Linear::default(), |sum, &id| sum.plus(&BigInt::from(1), &Linear::var(id)));
            self.small.push(total);
        }
    }

    fn word_of(&mut self, r: Small) -> Id {
        let x = self.small(r).clone();
        let id = self.plain(&x);
        self.small[r.0 as usize] = Linear::var(id);
        id
    }

    /// The first three coefficients and the other two as digits.
    fn digits(&mut self, element: &[Id; 5], width: usize) -> [Cell; 2] {
        if let Some(&cells) = self.packed.get(&(*element, width)) {
            return cells;
        }
        let term = |s: &Self, i: usize| (s.vars[element[i] as usize].cell, power(width * (i % 3)));
        let (low, high) = ([0, 1, 2].map(|i| term(self, i)), [3, 4].map(|i| term(self, i)));
        let cells = [self.sum(&low), self.sum(&high)];
        self.packed.insert((*element, width), cells);
        cells
    }

    fn largest(&self, ids: &[Id; 5]) -> BigUint {
        ids.iter().map(|&id| self.vars[id as usize].max.clone()).max().unwrap_or_default()
    }

    fn products(&self, a: &[Id; 5], b: &[Id; 5]) -> [Interval; 5] {
        product(convolution(&a.map(|id| self.reach(id)), &b.map(|id| self.reach(id))))
    }

    /// The additions that alone use the next five registers, and their other operands.
    fn fusion(&self) -> Option<(Fusion, [usize; 5], [Id; 5])> {
        let first = self.small.len();
        let mut found: Option<Fusion> = None;
        let (mut at, mut others) = ([0; 5], [0; 5]);
        for lane in 0..5 {
            let (own, uses) = (Small((first + lane) as u32), self.uses.get(first + lane)?);
            let (kind, other) = match self.program.ops.get(uses.last)? {
                _ if uses.all != 1 => return None,
                Op::Add(a, b) => (Fusion::Plus, if *a == own { *b } else { *a }),
                Op::Sub(a, b) if *b == own => (Fusion::Minus, *a),
                Op::Sub(_, b) => (Fusion::Less, *b),
                _ => return None,
            };
            let other = self.small.get(other.0 as usize)?.as_var()?;
            if found.is_some_and(|f| f != kind) || (lane > 0 && self.vars[other as usize].factor != self.vars[others[0] as usize].factor) {
                return None;
            }
            (found, at[lane], others[lane]) = (Some(kind), uses.last, other);
        }
        found.map(|kind| (kind, at, others))
    }

    pub(super) fn extension(&mut self, mut a: [Id; 5], mut b: [Id; 5]) {
        while self.products(&a, &b).iter().any(|i| i.magnitude() >= self.shape().limit() >> 3) {
            let larger = if self.largest(&a) >= self.largest(&b) { &mut a } else { &mut b };
            let five = larger.map(Linear::var);
            *larger = self.reduced(&five);
        }
        let products = self.products(&a, &b);
        let fused = self.fusion().and_then(|(kind, at, others)| {
            let sums: [Interval; 5] = std::array::from_fn(|i| match (kind, self.reach(others[i]), products[i].clone()) {
                (Fusion::Plus, o, x) => o + x,
                (Fusion::Minus, o, x) => o - x,
                (Fusion::Less, o, x) => x - o,
            });
            sums.iter().all(|i| i.magnitude() < self.shape().limit() >> 3).then_some((kind, at, others, sums))
        });
        match fused {
            Some((kind, at, others, sums)) => {
                let ids = self.sum_of_products(a, b, Some((kind, others)), sums);
                self.small.extend(std::iter::repeat_n(merged(), 5));
                at.iter().zip(ids).for_each(|(at, id)| drop(self.done.insert(*at, Linear::var(id))));
            }
            None => {
                let ids = self.sum_of_products(a, b, None, products);
                self.small.extend(ids.map(Linear::var));
            }
        }
    }

    fn sum_of_products(&mut self, a: [Id; 5], b: [Id; 5], other: Option<(Fusion, [Id; 5])>, intervals: [Interval; 5]) -> [Id; 5] {
        let offset = intervals.iter().map(Interval::offset).max().unwrap_or_default();
        let max = intervals.each_ref().map(|i| i.max(&offset));
        let out = self.shape().reduction_factor(max.iter().max().unwrap_or(&BigUint::ZERO));
        let factor = |s: &Self, id: Id| s.vars[id as usize].factor;
        let shrink = invert(factor(self, a[0]) * factor(self, b[0]));
        let sign = |negative: bool| if negative { -Fr::ONE } else { Fr::ONE };
        let (product, sum) = match other {
            None | Some((Fusion::Plus, _)) => (sign(false), sign(false)),
            Some((Fusion::Minus, _)) => (sign(true), sign(false)),
            Some((Fusion::Less, _)) => (sign(false), sign(true)),
        };
        // out·c = product·Fa·Fb·(a·b) + sum·Fs·s + offset, divided by product·Fa·Fb, whose sign is its own inverse.
        let scale = product * shrink;
        let f2 = other.map_or(Fr::ZERO, |(_, ids)| sum * factor(self, ids[0]) * scale);
        let f = [field(&offset) * scale, out * scale, f2];
        let cell = |s: &Self, id: Id| s.vars[id as usize].cell;
        let (left, right) = (a.map(|id| cell(self, id)), b.map(|id| cell(self, id)));
        let cells = self.grid.extension(other.map(|(_, ids)| ids.map(|id| cell(self, id))), left, right, f);
        std::array::from_fn(|i| self.var(cells[i], out, max[i].clone()))
    }

    /// Requires `cell`, an integer, to be below `2^(b·(n-1) + t)` where `n` limbs hold `max`.
    fn check_range(&mut self, cell: Cell, max: &BigUint) {
        let (shape, value) = (self.shape(), integer(&self.grid.value(cell)));
        let n = shape.range_limbs(max);
        let start = self.grid.range(&value, n);
        self.equal(start, cell);
        self.satisfied(value.bits() as usize <= shape.limb() * (n - 1) + shape.top());
    }

    pub(super) fn assert_zero(&mut self, x: &Linear) {
        let interval = x.interval(&self.vars);
        let offset = interval.offset();
        let quotient = interval.max(&offset) / P;
        let shape = self.shape();
        if shape.limb() * (shape.range_limbs(&quotient) - 1) + shape.top() + 31 > 252 {
            let id = self.reduced_one(x);
            return self.assert_zero(&Linear::var(id));
        }
        // A cell times p is the integer; that the cell itself is a small integer makes it a multiple of p.
        let id = self.gathered_one(x, Fr::from(P));
        let cell = self.vars[id as usize].cell;
        self.check_range(cell, &quotient);
    }

    /// Requires `limit - x` to be a 31-bit number.
    fn check_at_most(&mut self, x: Cell, limit: &BigUint) {
        let one = self.grid.constant(Fr::ONE);
        let rest = self.sum(&[(one, field(limit)), (x, -Fr::ONE)]);
        self.check_range(rest, &((BigUint::from(1u8) << 31) - 1u8));
    }

    /// A variable that holds the canonical representative, at most `limit`.
    fn canonical(&mut self, x: &Linear, limit: &BigUint) -> Id {
        let own = x.as_var().filter(|&id| self.vars[id as usize].factor == Fr::ONE && self.vars[id as usize].max.bits() <= 31);
        let id = match own.filter(|&id| self.words[id as usize]) {
            Some(id) => id,
            None if x.terms.is_empty() => self.gathered_one(x, Fr::ONE),
            None => {
                // A value whose bound is short but may reach p is reduced as well.
                let interval = x.interval(&self.vars);
                let factor = self.shape().reduction_factor(&interval.max(&interval.offset()));
                let id = self.gathered_one(x, factor);
                self.remainder(id)
            }
        };
        if self.vars[id as usize].max > *limit {
            let cell = self.vars[id as usize].cell;
            self.check_at_most(cell, limit);
            self.vars[id as usize].max = limit.clone();
        }
        id
    }

    fn bit_cell(&mut self, bit: bool) -> Cell {
        let cell = self.grid.free(Fr::from(u64::from(bit)));
        let square = self.grid.scalar([Some(cell), Some(cell), None, None], [Fr::ONE, Fr::ZERO, Fr::ZERO]);
        self.equal(square, cell);
        cell
    }

    pub(super) fn bits(&mut self, x: Small, count: u32) {
        assert!(count <= 31, "a representative has 31 bits");
        let x_linear = self.small(x).clone();
        let id = self.canonical(&x_linear, &BigUint::from(P - 2));
        self.small[x.0 as usize] = Linear::var(id);
        let cell = self.vars[id as usize].cell;
        let value = integer(&self.grid.value(cell));
        let mut terms = Vec::new();
        for i in 0..count {
            let bit = self.hints.bit(&value, i);
            let cell = self.bit_cell(bit);
            terms.push((cell, power(i as usize)));
            let id = self.var(cell, Fr::ONE, BigUint::from(1u8));
            self.small.push(Linear::var(id));
        }
        if count < 31 {
            let rest = self.grid.range(&(value >> count), self.shape().word_limbs());
            terms.push((rest, power(count as usize)));
        }
        let sum = self.sum(&terms);
        self.equal(sum, cell);
    }

    pub(super) fn pack(&mut self, list: &[Small], shift: bool) {
        assert!(list.len() <= 8, "eight numbers of 31 bits fit a scalar");
        let (mut digits, mut constant) = (Vec::new(), Fr::ZERO);
        for (i, r) in list.iter().enumerate() {
            let weight = power(31 * i);
            let x = self.small(*r).clone();
            constant += weight * Fr::from(u64::from(shift));
            digits.push(match Self::known(&x) {
                Some(value) => {
                    constant += weight * field(&value);
                    None
                }
                None => {
                    let id = self.canonical(&x, &BigUint::from(P - 1));
                    self.small[r.0 as usize] = Linear::var(id);
                    Some(self.vars[id as usize].cell)
                }
            });
        }
        let cell = self.grid.pack(&digits, constant);
        self.wide.push(cell);
    }

    pub(super) fn split(&mut self, x: Wide) {
        let x = self.wide(x);
        let (limbs, rest) = self.hints.split(&integer(&self.grid.value(x)));
        let mut terms = Vec::new();
        let mut radix = Fr::ONE;
        for limb in limbs.iter().take(SPLIT_LIMBS) {
            let id = self.representative(limb);
            terms.push((self.vars[id as usize].cell, radix));
            radix *= Fr::from(P);
            self.small.push(Linear::var(id));
        }
        // The rest is below ⌊r/p^7⌋, so that the sum is below r.
        let order = integer(&-Fr::ONE) + 1u8;
        let limit = order / BigUint::from(P).pow(SPLIT_LIMBS as u32) - 1u8;
        let n = self.shape().range_limbs(&limit);
        self.satisfied(rest <= limit);
        let cell = self.grid.range(&rest, n);
        let one = self.grid.constant(Fr::ONE);
        let above = self.sum(&[(one, field(&limit)), (cell, -Fr::ONE)]);
        self.check_range(above, &limit);
        terms.push((cell, radix));
        let sum = self.sum(&terms);
        self.equal(sum, x);
    }

    /// A cell that holds zero or one; the register is congruent to it.
    pub(super) fn boolean(&mut self, r: Small) -> Cell {
        let x = self.small(r).clone();
        let bounded = |s: &Self, id: Id| s.vars[id as usize].max <= BigUint::from(1u8);
        let interval = x.interval(&self.vars);
        if x.terms.is_empty() || interval.max(&interval.offset()) <= BigUint::from(1u8) {
            let id = self.gathered_one(&x, Fr::ONE);
            if bounded(self, id) {
                self.small[r.0 as usize] = Linear::var(id);
                return self.vars[id as usize].cell;
            }
        }
        let bit = self.residue(&x) == BigUint::from(1u8);
        let cell = self.bit_cell(bit);
        let id = self.var(cell, Fr::ONE, BigUint::from(1u8));
        self.assert_zero(&x.plus(&BigInt::from(-1), &Linear::var(id)));
        self.small[r.0 as usize] = Linear::var(id);
        cell
    }

    /// The value modulo `p` under the present assignment.
    fn residue(&self, x: &Linear) -> BigUint {
        let p = BigInt::from(P);
        let integer = x.terms.iter().fold(x.constant.clone(), |acc, (id, k)| {
            let Var { cell, factor, .. } = &self.vars[*id as usize];
            acc + k * BigInt::from(integer(&(self.grid.value(*cell) * factor)))
        });
        (((integer % &p) + &p) % &p).to_biguint().unwrap_or_default()
    }

    /// What a register holds; nothing where its only user absorbed it.
    #[cfg(test)]
    pub(super) fn residue_of(&self, r: Small) -> Option<BigUint> {
        let x = self.small(r);
        (*x != merged()).then(|| self.residue(x))
    }
}
