//! The circuit's cells, while they are laid out: values, fixed values, copies.
//!
//! Main columns and chains have separate row counters. Whatever a method below writes is a function of its arguments' *places* and of
//! constants, except advice values: the layout never depends on a value.

use super::gates::{COEFFICIENT, CONSTANTS, EXTRA, FIXED, FULL, INPUT, LANES, LAST, MAIN, MODE, PARTIAL, RATIO, convolution, middle_ratio, product};
use super::rounds::{Rounds, external, fifth, internal};
use super::shape::{P, Shape, field, power};
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::Field;
use num_bigint::BigUint;
use std::collections::HashMap;
use std::sync::Arc;

/// A cell of the main columns (`0..5`) or of the running column (`5`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Column.
    pub column: u8,
    /// Row.
    pub row: u32,
}

/// The running column's number.
pub const RUNNING: u8 = MAIN as u8;

/// Five cells in a row of operations on extension elements.
pub type Five = [Cell; 5];

/// The cells laid out so far.
#[derive(Clone)]
pub struct Grid {
    /// Limb widths.
    pub shape: Shape,
    /// Main columns.
    pub main: [Vec<Fr>; MAIN],
    /// Running column.
    pub running: Vec<Fr>,
    /// Limb column.
    pub limb: Vec<Fr>,
    /// Fixed columns: as long as the main columns, but the ratio as long as the running column.
    pub fixed: [Vec<Fr>; FIXED],
    /// Cells that must be equal.
    pub copies: Vec<(Cell, Cell)>,
    /// The public inputs' cells.
    pub public: Vec<Cell>,
    constants: HashMap<Fr, Cell>,
    one: Option<Cell>,
    /// The last row, if no constraint is selected in it, and how many of its first cells nothing occupies.
    tail: Option<(u32, usize)>,
    spare: Vec<Cell>,
    rounds: Arc<Rounds>,
}

impl Grid {
    /// An empty grid.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            main: Default::default(),
            running: Vec::new(),
            limb: Vec::new(),
            fixed: Default::default(),
            copies: Vec::new(),
            public: Vec::new(),
            constants: HashMap::new(),
            one: None,
            tail: None,
            spare: Vec::new(),
            rounds: Arc::new(Rounds::default()),
        }
    }

    /// Rows of the main columns so far.
    pub fn rows(&self) -> usize {
        self.main[0].len()
    }

    /// Rows of the chains so far.
    pub fn limbs(&self) -> usize {
        self.limb.len()
    }

    /// A cell's value.
    pub fn value(&self, cell: Cell) -> Fr {
        match cell.column {
            RUNNING => self.running[cell.row as usize],
            column => self.main[usize::from(column)][cell.row as usize],
        }
    }

    /// Makes the first rows those of the public inputs: a sum of one term, less the input, is zero. Before anything else.
    pub fn reserve_public(&mut self, count: usize) {
        let rows: Vec<u32> = (0..=count).map(|_| self.row()).collect();
        let zero = self.constant(Fr::ZERO);
        for row in &rows[..count] {
            self.fix_extra(*row, 3, [Fr::ZERO; 3]);
            self.copy(row + 1, 4, zero);
        }
    }

    /// The next public input.
    pub fn publish(&mut self, cell: Cell) {
        self.copy(self.public.len() as u32, 3, cell);
        self.public.push(cell);
    }

    /// Requires two cells to be equal.
    pub fn equal(&mut self, a: Cell, b: Cell) {
        if a != b {
            self.copies.push((a, b));
        }
    }

    fn row(&mut self) -> u32 {
        self.main.iter_mut().for_each(|c| c.push(Fr::ZERO));
        self.fixed[..RATIO].iter_mut().for_each(|c| c.push(Fr::ZERO));
        self.tail = None;
        self.rows() as u32 - 1
    }

    fn set(&mut self, row: u32, column: usize, value: Fr) -> Cell {
        self.main[column][row as usize] = value;
        Cell { column: column as u8, row }
    }

    fn copy(&mut self, row: u32, column: usize, from: Cell) {
        let value = self.value(from);
        let to = self.set(row, column, value);
        self.equal(from, to);
    }

    fn fix(&mut self, row: u32, mode: u64, f: [Fr; 3]) {
        self.fixed[MODE][row as usize] = Fr::from(mode);
        (0..3).for_each(|i| self.fixed[COEFFICIENT + i][row as usize] = f[i]);
    }

    /// A cell that nothing constrains yet.
    pub fn free(&mut self, value: Fr) -> Cell {
        if self.spare.is_empty() {
            let row = self.row();
            self.spare = (0..MAIN as u8).rev().map(|column| Cell { column, row }).collect();
        }
        let cell = self.spare.pop().unwrap_or_else(|| unreachable!("a row has cells"));
        self.set(cell.row, usize::from(cell.column), value)
    }

    /// A cell that holds a constant: by mode 3 the first one, then multiples of it by mode 2.
    pub fn constant(&mut self, value: Fr) -> Cell {
        if let Some(&cell) = self.constants.get(&value) {
            return cell;
        }
        let one = self.one();
        if let Some(&cell) = self.constants.get(&value) {
            return cell;
        }
        let cell = self.scalar([None, None, Some(one), None], [Fr::ONE, value, Fr::ZERO]);
        self.constants.insert(value, cell);
        cell
    }

    fn one(&mut self) -> Cell {
        if let Some(one) = self.one {
            return one;
        }
        let rows = [self.row(), self.row(), self.row(), self.row()];
        self.fix(rows[0], 3, [Fr::ZERO; 3]);
        self.fix(rows[1], 3, [Fr::ONE, Fr::ZERO, Fr::ZERO]);
        let zero = self.set(rows[2], 0, Fr::ZERO);
        let ones: Vec<Cell> = (0..MAIN).map(|i| self.set(rows[3], i, Fr::ONE)).collect();
        self.constants.insert(Fr::ZERO, zero);
        self.constants.insert(Fr::ONE, ones[0]);
        self.one = Some(ones[0]);
        ones[0]
    }

    /// `w4 = (w0·(w1 - w2) + f1·w2 + f2·w3)/f0`. Absent cells are zero, by a copy wherever they play a part.
    pub fn scalar(&mut self, w: [Option<Cell>; 4], f: [Fr; 3]) -> Cell {
        self.one();
        let zero = self.constants.get(&Fr::ZERO).copied();
        let plays = [true, w[0].is_some(), w[0].is_some() || f[1] != Fr::ZERO, f[2] != Fr::ZERO];
        let row = self.row();
        for column in (0..4).filter(|&c| plays[c]) {
            if let Some(cell) = w[column].or(zero) {
                self.copy(row, column, cell);
            }
        }
        self.fix(row, 2, f);
        let at = |c: usize| self.main[c][row as usize];
        let right = at(0) * (at(1) - at(2)) + f[1] * at(2) + f[2] * at(3);
        self.set(row, 4, right * invert(f[0]))
    }

    /// The first row of an operation whose constraints take nothing but `cells` from it.
    fn first_row(&mut self, cells: Option<Five>) -> u32 {
        match (self.tail.map(|t| t.0), cells) {
            (Some(tail), None) => tail,
            (Some(tail), Some(cells)) if (0..5).all(|i| cells[i] == Cell { column: i as u8, row: tail }) => tail,
            (_, cells) => {
                let row = self.row();
                if let Some(cells) = cells {
                    (0..5).for_each(|i| self.copy(row, i, cells[i]));
                }
                row
            }
        }
    }

    /// The last row, if nothing is selected in it and its first `count` cells are free; else a new one.
    fn row_with(&mut self, count: usize) -> u32 {
        match self.tail {
            Some((tail, free)) if free >= count => tail,
            _ => self.row(),
        }
    }

    fn fix_extra(&mut self, row: u32, extra: u64, f: [Fr; 3]) {
        self.fix(row, 0, f);
        self.fixed[EXTRA][row as usize] = Fr::from(extra);
    }

    /// `Σ digits_i·2^(31·i) + constant`, at most eight digits; `None` is zero.
    pub fn pack(&mut self, digits: &[Option<Cell>], constant: Fr) -> Cell {
        let zero = self.constant(Fr::ZERO);
        let blocks: Vec<&[Option<Cell>]> = digits.chunks(4).collect();
        let mut sum: Option<Cell> = None;
        for (i, block) in blocks.iter().enumerate().rev() {
            let row = match sum {
                None => self.row_with(4),
                Some(cell) => cell.row,
            };
            (0..4).for_each(|c| self.copy(row, c, block.get(c).copied().flatten().unwrap_or(zero)));
            let carried = Fr::from(u64::from(sum.is_some()));
            let offset = if i == 0 { constant } else { Fr::ZERO };
            self.fix_extra(row, 1, [offset, carried, Fr::ZERO]);
            let w = self.at(row);
            let value = w[0] + w[1] * power(31) + w[2] * power(62) + w[3] * power(93) + carried * w[4] * power(124) + offset;
            let next = self.row();
            sum = Some(self.set(next, 4, value));
            self.tail = Some((next, 4));
        }
        sum.unwrap_or_else(|| unreachable!("something is packed"))
    }

    /// `Σ a_i·(b_i, c_i)`.
    pub fn inner_products(&mut self, terms: &[[Cell; 3]]) -> [Cell; 2] {
        let mut row = self.row_with(3);
        let mut out = None;
        for cells in terms {
            (0..3).for_each(|c| self.copy(row, c, cells[c]));
            let carried = Fr::from(u64::from(out.is_some()));
            self.fix_extra(row, 2, [Fr::ZERO, carried, Fr::ZERO]);
            let w = self.at(row);
            row = self.row();
            out = Some([self.set(row, 3, w[0] * w[1] + carried * w[3]), self.set(row, 4, w[0] * w[2] + carried * w[4])]);
            self.tail = Some((row, 3));
        }
        out.unwrap_or_else(|| unreachable!("products have factors"))
    }

    /// `Σ k_i·cell_i`, three or four terms a row.
    pub fn sum(&mut self, terms: &[(Cell, Fr)]) -> Cell {
        let zero = self.constant(Fr::ZERO);
        let mut rest = terms.to_vec();
        let unit = rest.iter().position(|t| t.1 == Fr::ONE);
        let mut sum = unit.map_or(zero, |i| rest.swap_remove(i).0);
        for block in rest.chunks(3) {
            let row = self.row_with(4);
            self.copy(row, 3, sum);
            let mut f = [Fr::ZERO; 3];
            for (c, (cell, k)) in block.iter().enumerate() {
                self.copy(row, c, *cell);
                f[c] = *k;
            }
            self.fix_extra(row, 3, f);
            let w = self.at(row);
            let next = self.row();
            sum = self.set(next, 4, f[0] * w[0] + f[1] * w[1] + f[2] * w[2] + w[3]);
            self.tail = Some((next, 4));
        }
        sum
    }

    fn next_row(&mut self, cells: Five) -> u32 {
        let row = self.row();
        (0..5).for_each(|i| self.copy(row, i, cells[i]));
        row
    }

    fn at(&self, row: u32) -> [Fr; 5] {
        std::array::from_fn(|i| self.main[i][row as usize])
    }

    fn last_row(&mut self, values: [Fr; 5]) -> Five {
        let row = self.row();
        let cells = std::array::from_fn(|i| self.set(row, i, values[i]));
        self.tail = Some((row, 0));
        cells
    }

    /// `(a·b + f2·sum + f0)/f1` in the quintic extension, `f0` added to every coefficient.
    pub fn extension(&mut self, sum: Option<Five>, a: Five, b: Five, mut f: [Fr; 3]) -> Five {
        if sum.is_none() {
            f[2] = Fr::ZERO;
        }
        let first = self.first_row(sum);
        self.fix(first, 1, f);
        let (a, b) = (self.next_row(a), self.next_row(b));
        let (s, p, scale) = (self.at(first), product(convolution(&self.at(a), &self.at(b))), invert(f[1]));
        self.last_row(std::array::from_fn(|i| (p[i] + f[2] * s[i] + f[0]) * scale))
    }

    /// `f1·x + f2·y + f0` in each column.
    pub fn vector(&mut self, x: Five, y: Option<Five>, mut f: [Fr; 3]) -> Five {
        if y.is_none() {
            f[2] = Fr::ZERO;
        }
        let first = self.first_row(Some(x));
        self.fix(first, 3, f);
        let second = match y {
            Some(y) => self.next_row(y),
            None => self.row(),
        };
        let (x, y) = (self.at(first), self.at(second));
        self.last_row(std::array::from_fn(|i| f[1] * x[i] + f[2] * y[i] + f[0]))
    }

    /// A row that begins with the state, and the constants of the state that follows.
    fn state_row(&mut self, state: &[Fr; 3], constants: [Fr; 3]) -> u32 {
        let row = self.row();
        for (column, value) in LANES.into_iter().zip(*state) {
            self.set(row, column, value);
        }
        self.fix(row, 0, constants);
        row
    }

    /// Rows of full rounds: the state's and the next constants, and those after the last.
    fn full_rounds(&mut self, state: &mut [Fr; 3], constants: &[[Fr; 3]], after: [Fr; 3]) -> u32 {
        let first = self.rows() as u32;
        for next in constants.iter().skip(1).chain([&after]) {
            let row = self.state_row(state, *next);
            self.fixed[FULL][row as usize] = Fr::ONE;
            let round = external(state.map(fifth));
            *state = std::array::from_fn(|i| round[i] + next[i]);
        }
        first
    }

    /// Rows of the S-box' inputs, five a row, after a row with the state.
    fn partial_rounds(&mut self, state: &mut [Fr; 3], rounds: &Rounds) {
        let row = self.state_row(state, [Fr::ZERO; 3]);
        let count = rounds.partial.len();
        debug_assert_eq!((count - 1) % MAIN, 0);
        let mut inputs = vec![];
        for i in 0..count {
            inputs.push(state[0]);
            *state = internal(*state);
            state[0] += rounds.partial.get(i + 1).copied().unwrap_or(Fr::ZERO);
        }
        let rows: Vec<u32> = (0..(count - 1) / MAIN).map(|_| self.row()).collect();
        for (previous, (row, block)) in std::iter::once(row).chain(rows.clone()).zip(rows.iter().zip(0..)) {
            self.fixed[PARTIAL][previous as usize] = Fr::ONE;
            for (c, &column) in CONSTANTS.iter().enumerate() {
                let at = 1 + MAIN * block + c;
                self.fixed[column][previous as usize] = rounds.step(at);
                self.set(*row, c, inputs[at]);
            }
        }
        let last = self.rows() - 1;
        self.fixed[LAST][last] = Fr::ONE;
    }

    /// The Poseidon2 permutation.
    pub fn permute(&mut self, input: [Cell; 3]) -> [Cell; 3] {
        let rounds = self.rounds.clone();
        let added = |state: [Fr; 3], constants: [Fr; 3]| std::array::from_fn(|i| state[i] + constants[i]);
        let mut state = added(external(input.map(|c| self.value(c))), rounds.initial[0]);
        let first = self.full_rounds(&mut state, &rounds.initial, [rounds.partial[0], Fr::ZERO, Fr::ZERO]);
        self.fixed[FULL][first as usize] = Fr::from(2);
        [0, 0, 1].iter().enumerate().for_each(|(i, next)| self.copy(first + next, INPUT[i], input[i]));
        self.partial_rounds(&mut state, &rounds);
        state = added(state, rounds.terminal[0]);
        self.full_rounds(&mut state, &rounds.terminal, [Fr::ZERO; 3]);
        let row = self.row();
        let out = std::array::from_fn(|i| self.set(row, LANES[i], state[i]));
        self.tail = Some((row, 0));
        out
    }

    fn chain(&mut self, limbs: &[(Fr, Fr)]) -> Vec<Cell> {
        let start = self.limb.len();
        let mut m = Fr::ZERO;
        let mut sums: Vec<Fr> = limbs
            .iter()
            .rev()
            .map(|(limb, ratio)| {
                m = *limb + *ratio * m;
                m
            })
            .collect();
        sums.reverse();
        self.running.extend(sums);
        self.limb.extend(limbs.iter().map(|l| l.0));
        self.fixed[RATIO].extend(limbs.iter().map(|l| l.1));
        (start..start + limbs.len()).map(|row| Cell { column: RUNNING, row: row as u32 }).collect()
    }

    /// Digits in base `2^b`, the last one with all that is left: more than `2^t` if the number isn't in range.
    fn word(&self, x: &BigUint, n: usize) -> Vec<(Fr, Fr)> {
        let b = self.shape.limb();
        let mask = (BigUint::from(1u8) << b) - 1u8;
        let digits = (0..n - 1).map(|i| (field(&((x >> (b * i)) & &mask)), self.shape.radix()));
        digits.chain([(field(&(x >> (b * (n - 1)))), Fr::ZERO)]).collect()
    }

    /// A cell that holds a number below `2^(b·(n-1) + t)`.
    pub fn range(&mut self, x: &BigUint, n: usize) -> Cell {
        let limbs = self.word(x, n);
        self.chain(&limbs)[0]
    }

    /// A cell that holds a canonical representative: a number below `p`.
    pub fn canonical(&mut self, x: &BigUint) -> Cell {
        let (shape, b) = (self.shape, self.shape.limb());
        let (last, middle, rest) = shape.canonical_parts(x);
        let n = shape.word_limbs() - 1;
        let mask = (BigUint::from(1u8) << b) - 1u8;
        // All that is left goes into the greatest of these: too much for it if the number isn't canonical.
        let digit = |i: usize| if i + 1 < n { (&rest >> (b * i)) & &mask } else { &rest >> (b * i) };
        let digits = (0..n).map(|i| (field(&digit(i)), shape.radix()));
        let limbs: Vec<(Fr, Fr)> = digits.chain([(shape.middle(middle).1, middle_ratio()), (Fr::from(last), Fr::ZERO)]).collect();
        self.chain(&limbs)[0]
    }

    /// Cells that hold `(p·q + r)/(p·2^(b·(n-1)))` and `r`, for `q < 2^(b·n)` and `r < 2^31`.
    pub fn reduction(&mut self, q: &BigUint, r: &BigUint, n: usize) -> (Cell, Cell) {
        let b = self.shape.limb();
        let mask = (BigUint::from(1u8) << b) - 1u8;
        let shrink = invert(power(b));
        let mut limbs: Vec<(Fr, Fr)> = (0..n).rev().map(|i| (field(&((q >> (b * i)) & &mask)), shrink)).collect();
        limbs[n - 1].1 = invert(Fr::from(P));
        limbs.extend(self.word(r, self.shape.word_limbs()));
        let cells = self.chain(&limbs);
        (cells[0], cells[n])
    }
}

/// The inverse; zero at zero, which no caller gives.
pub fn invert(x: Fr) -> Fr {
    if x == Fr::ONE { x } else { x.invert().unwrap_or(Fr::ZERO) }
}
