//! The circuit's cells, while they are laid out: values, fixed values, copies.
//!
//! Main columns and chains have separate row counters. Whatever a method below writes is a function of its arguments' *places* and of
//! constants, except advice values: the layout never depends on a value.

use super::gates::{COEFFICIENT, FIXED, FULL, MAIN, MODE, PARTIAL, RATIO, convolution, product};
use super::shape::{P, Shape, field, power};
use crate::poseidon2;
use halo2_axiom::halo2curves::bn256::Fr;
use halo2_axiom::halo2curves::ff::Field;
use num_bigint::BigUint;
use std::collections::HashMap;

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

#[derive(Clone)]
struct Rounds {
    initial: Vec<[Fr; 3]>,
    partial: Vec<Fr>,
    terminal: Vec<[Fr; 3]>,
}

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
    /// Fixed columns: the first six as long as the main columns, the ratio as long as the running column.
    pub fixed: [Vec<Fr>; FIXED],
    /// Cells that must be equal.
    pub copies: Vec<(Cell, Cell)>,
    /// The public inputs' cells.
    pub public: Vec<Cell>,
    constants: HashMap<Fr, Cell>,
    one: Option<Cell>,
    /// The last row, if no constraint is selected in it.
    tail: Option<u32>,
    spare: Vec<Cell>,
    rounds: Rounds,
}

impl Grid {
    /// An empty grid.
    pub fn new(shape: Shape) -> Self {
        let c = poseidon2::constants();
        let wide = |x| field(&p3_field::PrimeField::as_canonical_biguint(&x));
        let lanes = |list: Vec<[p3_bn254::Bn254; 3]>| list.into_iter().map(|l| l.map(wide)).collect();
        let rounds = Rounds { initial: lanes(c.initial), partial: c.partial.into_iter().map(wide).collect(), terminal: lanes(c.terminal) };
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
            rounds,
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

    fn first_row(&mut self, cells: Option<Five>) -> u32 {
        match (self.tail, cells) {
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
        self.tail = Some(row);
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

    /// The Poseidon2 permutation.
    pub fn permute(&mut self, input: [Cell; 3]) -> [Cell; 3] {
        let input_values = input.map(|c| self.value(c));
        let mut state = external(input_values);
        let initial = self.rounds.initial.clone();
        let first = self.full_rounds(&mut state, &initial, None);
        (0..2).for_each(|i| self.copy(first, 3 + i, input[i]));
        self.copy(first + 1, 3, input[2]);
        let (lane, others) = self.partial_rounds(&mut state);
        let terminal = self.rounds.terminal.clone();
        self.full_rounds(&mut state, &terminal, Some([lane, others[0], others[1]]));
        let row = self.row();
        let out = std::array::from_fn(|i| self.set(row, i, state[i]));
        self.tail = Some(row);
        out
    }

    /// Rows of full rounds; the state after the last is left to the next row. Without copies the first row takes the external layer of
    /// its input.
    fn full_rounds(&mut self, state: &mut [Fr; 3], constants: &[[Fr; 3]], from: Option<[Cell; 3]>) -> u32 {
        let first = self.rows() as u32;
        for c in constants {
            let row = self.row();
            for (i, &value) in state.iter().enumerate() {
                self.set(row, i, value);
            }
            self.fix(row, u64::from(from.is_none() && row == first), *c);
            self.fixed[FULL][row as usize] = Fr::ONE;
            *state = external(std::array::from_fn(|i| fifth(state[i] + c[i])));
        }
        if let Some(from) = from {
            (0..3).for_each(|i| self.copy(first, i, from[i]));
        }
        first
    }

    /// Rows of three partial rounds; the last row's third round is idle, and a row after it holds lanes 1 and 2.
    fn partial_rounds(&mut self, state: &mut [Fr; 3]) -> (Cell, [Cell; 2]) {
        let constants = self.rounds.partial.clone();
        let mut lane = None;
        for group in constants.chunks(3) {
            let row = self.row();
            let c: [Fr; 3] = std::array::from_fn(|i| group.get(i).copied().unwrap_or(Fr::ZERO));
            self.fix(row, u64::from(group.len() == 2), c);
            self.fixed[PARTIAL][row as usize] = Fr::ONE;
            for (i, &value) in state.iter().enumerate() {
                self.set(row, i, value);
            }
            *state = internal(*state, c[0]);
            self.set(row, 3, state[0]);
            *state = internal(*state, c[1]);
            lane = Some(self.set(row, 4, state[0]));
            if group.len() == 3 {
                *state = internal(*state, c[2]);
            }
        }
        debug_assert_eq!(constants.len() % 3, 2);
        let row = self.row();
        self.set(row, 0, internal(*state, Fr::ZERO)[0]);
        let others = [self.set(row, 1, state[1]), self.set(row, 2, state[2])];
        (lane.unwrap_or_else(|| unreachable!("there are partial rounds")), others)
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

fn fifth(x: Fr) -> Fr {
    x.square().square() * x
}

fn external(x: [Fr; 3]) -> [Fr; 3] {
    let sum = x[0] + x[1] + x[2];
    x.map(|x| x + sum)
}

fn internal(x: [Fr; 3], constant: Fr) -> [Fr; 3] {
    let s = fifth(x[0] + constant);
    let sum = s + x[1] + x[2];
    [s + sum, x[1] + sum, x[2].double() + sum]
}
