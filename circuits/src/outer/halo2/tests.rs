//! The circuit against [`Program::evaluate`], and against provers that lie.

use super::lower::{Hints, Honest, Lower};
use super::shape::{P, Shape, integer};
use super::*;
use crate::outer::program::{Ext, Small, Wide};
use grid::Cell;
use halo2_axiom::dev::MockProver;
use num_bigint::BigUint;
use p3_field::PrimeCharacteristicRing;
use proptest::prelude::*;
use std::collections::HashMap;

const K: u32 = 11;

/// Appends operations and tells the registers they fill.
#[derive(Default)]
struct Writer {
    program: Program,
    small: u32,
    wide: u32,
}

impl Writer {
    fn push(&mut self, op: Op) -> (Small, Wide) {
        let first = (Small(self.small), Wide(self.wide));
        let (s, w) = op.outputs();
        (self.small, self.wide) = (self.small + s, self.wide + w);
        self.program.ops.push(op);
        first
    }

    fn small(&mut self, op: Op) -> Small {
        self.push(op).0
    }

    fn wide(&mut self, op: Op) -> Wide {
        self.push(op).1
    }

    fn ext(&mut self, op: Op) -> Ext {
        let Small(first) = self.push(op).0;
        std::array::from_fn(|i| Small(first + i as u32))
    }

    fn inputs(&mut self) -> Ext {
        std::array::from_fn(|_| self.small(Op::Input))
    }

    fn lanes(&mut self, op: impl Fn(Small, Small) -> Op, a: Ext, b: Ext) -> Ext {
        std::array::from_fn(|i| self.small(op(a[i], b[i])))
    }
}

struct Case {
    program: Program,
    small: Vec<u32>,
    wide: Vec<Bn254>,
}

impl Case {
    fn new(writer: Writer, seed: u64) -> Self {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        };
        let count = |f: &dyn Fn(&Op) -> bool| writer.program.ops.iter().filter(|o| f(o)).count();
        let small = (0..count(&|o| *o == Op::Input)).map(|_| (next() % P) as u32).collect();
        let mut scalar = || (0..9).fold(Bn254::ZERO, |acc, _| acc * Bn254::from_u64(1 << 31) + Bn254::from_u64(next()));
        let wide = (0..count(&|o| *o == Op::WideInput)).map(|_| scalar()).collect();
        Self { program: writer.program, small, wide }
    }

    fn evaluated(&self) -> Result<(Values, Vec<Bn254>), crate::outer::evaluate::EvaluateError> {
        let small: Vec<F> = self.small.iter().map(|&x| F::from_u32(x)).collect();
        self.program.evaluate(&small, &self.wide)
    }

    fn laid_out(&self, hints: &dyn Hints) -> (OuterCircuit, Option<usize>) {
        let wide: Vec<Fr> = self.wide.iter().map(|&x| to_fr(x)).collect();
        OuterCircuit::laid_out(&self.program, K, &self.small, &wide, hints).unwrap()
    }

    fn accepts(&self, hints: &dyn Hints) -> bool {
        let (circuit, unsatisfied) = self.laid_out(hints);
        let accepted = satisfied(&circuit, circuit.public());
        assert_eq!(accepted, unsatisfied.is_none());
        accepted
    }
}

fn satisfied(circuit: &OuterCircuit, public: Vec<Fr>) -> bool {
    MockProver::run(K, circuit, vec![public]).unwrap().verify().is_ok()
}

/// Every operation, and every way in which the layout treats it.
fn everything() -> Writer {
    let mut w = Writer::default();
    let (a, b, c) = (w.inputs(), w.inputs(), w.inputs());
    let seven = w.small(Op::Constant(7));
    let ab = w.ext(Op::ExtMul(a, b));
    let abc = w.lanes(Op::Add, ab, c);
    let ca = w.ext(Op::ExtMul(c, a));
    let difference = w.lanes(Op::Sub, abc, ca);
    let bb = w.ext(Op::ExtMul(b, b));
    let other = w.lanes(Op::Sub, bb, difference);
    let inner = w.ext(Op::InnerProduct(vec![a, abc, bb, b], vec![c[0], ca[2], c[1], seven]));
    let other = w.lanes(Op::Sub, other, inner);
    let again = w.ext(Op::InnerProduct(vec![abc, inner], vec![c[2], inner[4]]));
    let other = w.lanes(Op::Add, other, again);
    let square = w.ext(Op::ExtMul(other, other));
    let quartic = w.ext(Op::ExtMul(square, square));
    let mut deep = quartic;
    for _ in 0..6 {
        deep = w.ext(Op::ExtMul(deep, a));
    }
    let scaled = w.ext(Op::ExtScale(deep, seven));
    let by_input = w.ext(Op::ExtScale(scaled, c[0]));
    let sum = w.lanes(Op::Add, by_input, quartic);
    let sum = w.lanes(Op::Sub, sum, square);
    let first = w.small(Op::Scale(sum[0], 2130706432));
    let second = w.small(Op::Scale(sum[1], 12345));
    let product = w.small(Op::Mul(first, second));
    let bits: Vec<Small> = {
        let Small(first) = w.small(Op::Bits(product, 9));
        (first..first + 9).map(Small).collect()
    };
    let all = w.small(Op::Bits(a[0], 31));
    let not = {
        let one = w.small(Op::Constant(1));
        w.small(Op::Sub(one, bits[2]))
    };
    let seven_again = w.small(Op::Add(product, seven));
    let packed = w.wide(Op::Pack(vec![a[0], product, seven, bits[0], seven_again, b[3], all, c[4]], true));
    let unshifted = w.wide(Op::Pack(vec![a[1], a[2], product], false));
    let (x, y) = (w.wide(Op::WideInput), w.wide(Op::WideInput));
    let constant = w.wide(Op::WideConstant([1, 2, 3, 4]));
    let total = w.wide(Op::WideAdd(packed, x));
    let wide_product = w.wide(Op::WideMul(total, y));
    let Wide(p) = w.wide(Op::Permute([wide_product, unshifted, constant]));
    let chosen = w.wide(Op::Select(bits[1], Wide(p), x));
    let chosen = w.wide(Op::Select(not, chosen, y));
    let Small(limb) = w.small(Op::Split(chosen));
    let limbs: Ext = std::array::from_fn(|i| Small(limb + i as u32));
    let last = w.ext(Op::ExtMul(limbs, sum));
    let repacked = w.wide(Op::Pack(last.to_vec(), false));
    let Wide(q) = w.wide(Op::Permute([Wide(p + 1), repacked, Wide(p + 2)]));
    let zero = w.lanes(Op::Sub, last, last);
    let again = w.ext(Op::ExtMul(sum, limbs));
    let zeros = w.lanes(Op::Sub, again, last);
    w.push(Op::AssertZero(zero[0]));
    zeros.iter().for_each(|z| {
        w.push(Op::AssertZero(*z));
    });
    w.push(Op::AssertBit(bits[3]));
    let bit_square = w.small(Op::Mul(bits[4], bits[4]));
    let bit_again = w.small(Op::Sub(bit_square, zeros[1]));
    w.push(Op::AssertBit(bit_again));
    let picked = w.wide(Op::Select(bit_again, Wide(q), x));
    let sum_xy = w.wide(Op::WideAdd(x, y));
    let sum_yx = w.wide(Op::WideAdd(y, x));
    w.push(Op::AssertEqual(sum_xy, sum_yx));
    w.push(Op::Public(picked));
    w.push(Op::Public(Wide(q + 1)));
    w
}

#[test]
fn degree_is_as_declared() {
    let mut cs = ConstraintSystem::<Fr>::default();
    Config::new(&mut cs, Shape { k: K });
    let gates = cs.gates().iter().flat_map(|g| g.polynomials()).map(|p| p.degree()).max().unwrap();
    assert_eq!(gates, gates::DEGREE);
    assert_eq!(cs.degree(), gates::DEGREE);
}

#[test]
fn an_honest_run_is_accepted() {
    for seed in 0..4 {
        let case = Case::new(everything(), seed);
        let (_, public) = case.evaluated().unwrap();
        let (circuit, unsatisfied) = case.laid_out(&Honest);
        assert_eq!(unsatisfied, None);
        assert_eq!(circuit.public(), public.iter().map(|&x| to_fr(x)).collect::<Vec<_>>());
        MockProver::run(K, &circuit, vec![circuit.public()]).unwrap().assert_satisfied();
        println!("{:?} {:#?}", circuit.size(), circuit.by_kind(&case.program));
    }
}

#[test]
fn the_layout_does_not_depend_on_values() {
    let program = everything().program;
    let circuits = [Case::new(everything(), 1).laid_out(&Honest).0, OuterCircuit::without_values(&program, K).unwrap()];
    assert_eq!(circuits[0].grid.fixed, circuits[1].grid.fixed);
    assert_eq!(circuits[0].grid.copies, circuits[1].grid.copies);
    assert_eq!(circuits[0].grid.public, circuits[1].grid.public);
}

/// Cells that copies make one.
fn classes(grid: &Grid) -> Vec<Vec<Cell>> {
    let mut of: HashMap<Cell, usize> = HashMap::new();
    let mut list: Vec<Vec<Cell>> = Vec::new();
    for (a, b) in &grid.copies {
        let ids = [a, b].map(|c| {
            *of.entry(*c).or_insert_with(|| {
                list.push(vec![*c]);
                list.len() - 1
            })
        });
        if ids[0] != ids[1] {
            let moved = std::mem::take(&mut list[ids[1]]);
            of.extend(moved.iter().map(|c| (*c, ids[0])));
            list[ids[0]].extend(moved);
        }
    }
    let single = |column: u8, values: &Vec<Fr>| {
        let cells = values.iter().enumerate().filter(|(_, v)| **v != Fr::ZERO).map(move |(row, _)| Cell { column, row: row as u32 });
        cells.filter(|c| !of.contains_key(c)).map(|c| vec![c]).collect::<Vec<_>>()
    };
    let mut out: Vec<Vec<Cell>> = grid.main.iter().enumerate().flat_map(|(c, v)| single(c as u8, v)).collect();
    out.extend(single(RUNNING, &grid.running));
    out.extend(single(RUNNING + 1, &grid.limb));
    out.extend(list.into_iter().filter(|l| !l.is_empty()));
    out
}

/// Overwriting any cell, with all its copies, breaks a constraint: no cell is left free.
#[test]
fn every_cell_is_constrained() {
    let case = Case::new(everything(), 5);
    let (circuit, _) = case.laid_out(&Honest);
    let all = classes(&circuit.grid);
    let step = 7;
    for class in all.iter().step_by(step) {
        let mut grid = (*circuit.grid).clone();
        for cell in class {
            let row = cell.row as usize;
            let value = match cell.column {
                RUNNING => &mut grid.running[row],
                c if c > RUNNING => &mut grid.limb[row],
                c => &mut grid.main[usize::from(c)][row],
            };
            *value += Fr::ONE;
        }
        // The public inputs follow, so that they alone don't give it away.
        let changed = OuterCircuit { grid: Arc::new(grid), ..circuit.clone() };
        assert!(!satisfied(&changed, changed.public()), "{class:?} of {}", all.len());
    }
}

/// The cells before the first S-box input count in the recurrence: nothing but zero is accepted there, however consistent what follows is.
#[test]
fn partial_rounds_begin_with_nothing() {
    use super::gates::{LANES, PARTIAL};
    use super::rounds::{Rounds, external, fifth, internal, recurrence, start};
    let mut w = Writer::default();
    let (x, y) = (w.wide(Op::WideInput), w.wide(Op::WideInput));
    let Wide(p) = w.wide(Op::Permute([x, y, x]));
    w.push(Op::Public(Wide(p)));
    let (circuit, _) = Case::new(w, 2).laid_out(&Honest);
    let rounds = Rounds::default();
    let count = rounds.partial.len();
    for (column, value) in [(2, Fr::ZERO), (2, Fr::ONE), (3, Fr::ONE)] {
        let mut grid = (*circuit.grid).clone();
        let first = (0..grid.rows()).find(|&r| grid.fixed[PARTIAL][r] == Fr::ONE).unwrap();
        grid.main[column][first] = value;
        let lanes = LANES.map(|c| grid.main[c][first]);
        let mut g = vec![grid.main[2][first], grid.main[3][first], lanes[0]];
        for i in 1..count {
            let correction = start(lanes).get(i - 1).copied().unwrap_or(Fr::ZERO);
            let next = recurrence(g[g.len() - 3..].to_vec().try_into().unwrap()) + rounds.step(i) + correction;
            g.push(next);
            grid.main[(i - 1) % 5][first + 1 + (i - 1) / 5] = next;
        }
        // The state whose last three inputs these are: lanes from two inputs, as in `end`.
        let (u, v) = ([g[count] - rounds.partial[count - 2], g[count + 1] - rounds.partial[count - 1]], |x: Fr| fifth(x).double());
        let before = u[1] - v(g[count]);
        let after = recurrence(g[count - 1..].to_vec().try_into().unwrap()) + (rounds.partial[count - 2] - rounds.partial[count - 1]) * Fr::from(5);
        let other = after - v(g[count + 1]) - v(g[count]) - before * Fr::from(3);
        let state = internal([g[count], before - other, other]);
        let state = internal([state[0] + rounds.partial[count - 1], state[1], state[2]]);
        let mut s: [Fr; 3] = std::array::from_fn(|i| state[i] + rounds.terminal[0][i]);
        let row = first + 1 + (count - 1) / 5;
        for r in 0..=rounds.terminal.len() {
            LANES.into_iter().zip(s).for_each(|(c, v)| grid.main[c][row + r] = v);
            let next = rounds.terminal.get(r + 1).copied().unwrap_or([Fr::ZERO; 3]);
            let out = external(s.map(fifth));
            s = std::array::from_fn(|i| out[i] + next[i]);
        }
        let output = grid.public[0];
        grid.main[3][0] = grid.value(output);
        let changed = OuterCircuit { grid: Arc::new(grid), ..circuit.clone() };
        let honest = value == Fr::ZERO;
        assert_eq!(changed.public() == circuit.public(), honest);
        assert_eq!(satisfied(&changed, changed.public()), honest, "w{column}");
    }
}

#[test]
fn public_inputs_are_bound() {
    let case = Case::new(everything(), 6);
    let (circuit, _) = case.laid_out(&Honest);
    for i in 0..circuit.public().len() {
        let mut public = circuit.public();
        public[i] += Fr::ONE;
        assert!(!satisfied(&circuit, public));
    }
}

/// Applies a closure to what the honest prover would say.
struct Lies<R, B, S> {
    reduce: R,
    bit: B,
    split: S,
}

impl<R, B, S> Hints for Lies<R, B, S>
where
    R: Fn(BigUint, BigUint) -> (BigUint, BigUint),
    B: Fn(&BigUint, u32) -> bool,
    S: Fn(&BigUint, Vec<BigUint>, BigUint) -> (Vec<BigUint>, BigUint),
{
    fn reduce(&self, x: &BigUint) -> (BigUint, BigUint) {
        let (q, r) = Honest.reduce(x);
        (self.reduce)(q, r)
    }

    fn bit(&self, x: &BigUint, i: u32) -> bool {
        (self.bit)(x, i)
    }

    fn split(&self, x: &BigUint) -> (Vec<BigUint>, BigUint) {
        let (limbs, rest) = Honest.split(x);
        (self.split)(x, limbs, rest)
    }
}

fn truth(x: &BigUint, i: u32) -> bool {
    Honest.bit(x, i)
}

/// A program that multiplies, and uses the product's bits, or packs it; with a product below `2^31 - p`.
fn small_product(op: fn(Small) -> Op) -> Case {
    let mut w = Writer::default();
    let (a, b) = (w.small(Op::Input), w.small(Op::Input));
    let product = w.small(Op::Mul(a, b));
    w.push(op(product));
    Case { small: vec![1_000, 16_000], ..Case::new(w, 0) }
}

#[test]
fn canonical_representatives_are_enforced() {
    let shifted = |q: BigUint, r: BigUint| (q - 1u8, r + P);
    for op in [|x| Op::Bits(x, 5), |x| Op::Pack(vec![x], false)] {
        // 46341² = 2147488281 = p + 16781848
        let case = Case { small: vec![46341, 46341], ..small_product(op) };
        assert!(case.accepts(&Honest));
        assert!(!case.accepts(&Lies { reduce: shifted, bit: truth, split: |_: &_, l, r| (l, r) }));
    }
    // p - 1 has no bits.
    let case = Case { small: vec![1, P as u32 - 1], ..small_product(|x| Op::Bits(x, 5)) };
    assert!(!case.accepts(&Honest));
    let case = Case { small: vec![1, P as u32 - 1], ..small_product(|x| Op::Pack(vec![x], false)) };
    assert!(case.accepts(&Honest));
}

#[test]
fn inputs_are_canonical() {
    let mut w = Writer::default();
    let x = w.small(Op::Input);
    let packed = w.wide(Op::Pack(vec![x], false));
    w.push(Op::Public(packed));
    let case = |x: u32| Case { program: w.program.clone(), small: vec![x], wide: vec![] };
    let shape = Shape { k: K };
    let step = 1u32 << (31 - shape.top());
    let edges =
        [0, 1, step - 1, step, step + 1, shape.last_weight() as u32 - 1, shape.last_weight() as u32, P as u32 - step, P as u32 - 2, P as u32 - 1];
    for x in edges {
        assert!(case(x).accepts(&Honest), "{x}");
    }
    // A number plus p is the same element and another number: what a weight is published as.
    for x in [P as u32, P as u32 + 5, (1 << 31) - 1, 1 << 31, u32::MAX] {
        assert!(!case(x).accepts(&Honest), "{x}");
    }
}

/// Canonical numbers' limbs, of circuits of every size: they add up, every number below `p` has some, and no sum reaches `p`.
#[test]
fn limbs_of_canonical_numbers_reach_all_and_nothing_else() {
    for k in 8..=22 {
        let shape = Shape { k };
        let rows = (1usize << shape.limb()) + (1 << shape.top()) + shape.middles();
        assert!(rows <= (1 << k) - BLINDING_ROWS, "2^{k} rows hold the table");
        let low = (1u64 << (31 - shape.top())) - 1;
        let counted: Vec<u64> = (0..shape.middles()).map(|i| shape.middle(i).0).collect();
        assert!(counted.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= low + 1), "no gap at 2^{k}");
        let greatest = low + counted[counted.len() - 1];
        assert!(shape.last_weight() <= greatest + 1);
        assert_eq!(greatest + shape.last_weight() * ((1 << shape.top()) - 1), P - 1);
        let tag = gates::middle_tag(shape);
        assert!(tag != Fr::ZERO && tag != Fr::ONE);
        let edges = counted.iter().flat_map(|&c| [c, c + low]).chain((0..200).map(|i| i * (P / 200))).filter(|x| *x < P);
        for x in edges.chain([0, P - 1, P - 2]).flat_map(|x| [x.saturating_sub(1), x]) {
            let (last, middle, rest) = shape.canonical_parts(&BigUint::from(x));
            assert!(last < 1 << shape.top() && rest <= BigUint::from(low), "{x} at 2^{k}");
            assert_eq!(rest + shape.middle(middle).0 + shape.last_weight() * last, BigUint::from(x));
        }
        for x in [P, P + 1, (1 << 31) - 1, 1 << 40] {
            assert!(shape.canonical_parts(&BigUint::from(x)).2 > BigUint::from(low), "{x} at 2^{k}");
        }
    }
}

#[test]
fn wrong_hints_are_rejected() {
    let case = Case::new(everything(), 8);
    let keep = |_: &BigUint, l: Vec<BigUint>, r: BigUint| (l, r);
    let same = |q: BigUint, r: BigUint| (q, r);
    assert!(!case.accepts(&Lies { reduce: |q: BigUint, r: BigUint| (q, r + 1u8), bit: truth, split: keep }));
    assert!(!case.accepts(&Lies { reduce: |q: BigUint, r: BigUint| (q + 1u8, r), bit: truth, split: keep }));
    for flipped in [0, 4, 8] {
        assert!(!case.accepts(&Lies { reduce: same, bit: move |x: &BigUint, i: u32| truth(x, i) ^ (i == flipped), split: keep }));
    }
    // Limbs that aren't canonical: take p from the next.
    let carried = |_: &BigUint, mut l: Vec<BigUint>, r: BigUint| {
        l[0] += P;
        l[1] -= 1u8;
        (l, r)
    };
    assert!(!case.accepts(&Lies { reduce: same, bit: truth, split: carried }));
    // Limbs of another representative: the scalar plus r.
    let wrapped = |x: &BigUint, _: Vec<BigUint>, _: BigUint| Honest.split(&(x + integer(&-Fr::ONE) + 1u8));
    assert!(!case.accepts(&Lies { reduce: same, bit: truth, split: wrapped }));
    let from_rest = |_: &BigUint, mut l: Vec<BigUint>, r: BigUint| {
        l[6] += P;
        (l, r - 1u8)
    };
    assert!(!case.accepts(&Lies { reduce: same, bit: truth, split: from_rest }));
}

#[test]
fn false_assertions_are_rejected() {
    let check = |small: Vec<u32>, build: &dyn Fn(&mut Writer)| {
        let mut w = Writer::default();
        build(&mut w);
        let case = Case { small, ..Case::new(w, 3) };
        let evaluated = case.evaluated().is_ok();
        assert_eq!(case.accepts(&Honest), evaluated);
        evaluated
    };
    let zero = |w: &mut Writer| {
        let (a, b) = (w.small(Op::Input), w.small(Op::Input));
        let d = w.small(Op::Sub(a, b));
        w.push(Op::AssertZero(d));
    };
    assert!(check(vec![5, 5], &zero) && !check(vec![5, 6], &zero) && !check(vec![6, 5], &zero));
    assert!(check(vec![P as u32 - 1, P as u32 - 1], &zero) && !check(vec![0, P as u32 - 1], &zero));
    let bit = |w: &mut Writer| {
        let a = w.small(Op::Input);
        w.push(Op::AssertBit(a));
    };
    assert!(check(vec![0], &bit) && check(vec![1], &bit) && !check(vec![2], &bit) && !check(vec![P as u32 - 1], &bit));
    let constant = |w: &mut Writer| {
        let a = w.small(Op::Constant(3));
        w.push(Op::AssertZero(a));
    };
    assert!(!check(vec![], &constant));
    let equal = |w: &mut Writer| {
        let (x, y) = (w.wide(Op::WideInput), w.wide(Op::WideInput));
        w.push(Op::AssertEqual(x, y));
    };
    assert!(!check(vec![], &equal));
    let select = |w: &mut Writer| {
        let bit = w.small(Op::Input);
        let (x, y) = (w.wide(Op::WideInput), w.wide(Op::WideInput));
        w.push(Op::Select(bit, x, y));
    };
    assert!(check(vec![1], &select) && check(vec![0], &select) && !check(vec![2], &select));
}

/// Inputs at the ends of their ranges, through the longest unreduced chain.
#[test]
fn bounds_hold_at_their_extremes() {
    for extreme in [0, P as u32 - 1] {
        let mut case = Case::new(everything(), 9);
        case.small.iter_mut().for_each(|x| *x = extreme);
        // `p - 1` has no bits; all else holds.
        case.program.ops.iter_mut().filter(|op| matches!(op, Op::Bits(..))).for_each(|op| {
            if let Op::Bits(x, n) = op {
                *op = Op::Bits(if *n == 31 { Small(15) } else { *x }, *n);
            }
        });
        assert!(case.accepts(&Honest), "{extreme}");
    }
}

fn random_program(choices: &[(u8, u16, u16, u32)]) -> Writer {
    let mut w = Writer::default();
    let mut exts = vec![w.inputs(), w.inputs()];
    let mut wides = vec![w.wide(Op::WideInput), w.wide(Op::WideInput)];
    let mut bits: Vec<Small> = Vec::new();
    for &(kind, i, j, k) in choices {
        let (a, b) = (exts[usize::from(i) % exts.len()], exts[usize::from(j) % exts.len()]);
        let (x, y) = (wides[usize::from(i) % wides.len()], wides[usize::from(j) % wides.len()]);
        match kind % 16 {
            0..=2 => exts.push(w.ext(Op::ExtMul(a, b))),
            3 => exts.push(w.lanes(Op::Add, a, b)),
            4 => exts.push(w.lanes(Op::Sub, a, b)),
            5 => exts.push(std::array::from_fn(|l| w.small(Op::Scale(a[l], k % P as u32)))),
            6 => exts.push(w.ext(Op::ExtScale(a, b[0]))),
            7 => {
                let product = w.small(Op::Mul(a[1], b[2]));
                let constant = w.small(Op::Constant(k % P as u32));
                let sum = w.small(Op::Add(product, constant));
                exts.push([a[0], sum, b[1], constant, a[4]]);
            }
            8 => {
                let Small(first) = w.small(Op::Bits(a[3], k % 32));
                bits.extend((first..first + k % 32).map(Small));
            }
            9 => wides.push(w.wide(Op::Pack(a.iter().chain(&b[..3]).copied().collect(), k % 2 == 1))),
            10 => wides.push(w.wide(if k % 2 == 1 { Op::WideAdd(x, y) } else { Op::WideMul(x, y) })),
            11 => {
                let Wide(first) = w.wide(Op::Permute([x, y, x]));
                wides.extend((first..first + 3).map(Wide));
            }
            13 => exts.push(w.ext(Op::InnerProduct(exts.clone(), exts.iter().map(|e| e[usize::from(j) % 5]).collect()))),
            14 => {
                // A run of additions with a large multiple of a product in it.
                let product = w.small(Op::Mul(a[0], b[0]));
                let sums: [Small; 4] = std::array::from_fn(|l| w.small(Op::Add(a[l], b[l + 1])));
                let multiple = w.small(Op::Scale(product, k % P as u32));
                exts.push([sums[0], sums[1], sums[2], sums[3], multiple]);
            }
            12 => {
                let Small(first) = w.small(Op::Split(x));
                exts.push(std::array::from_fn(|l| Small(first + l as u32 + 1)));
            }
            _ => {
                if let Some(&bit) = bits.get(usize::from(j) % bits.len().max(1)) {
                    wides.push(w.wide(Op::Select(bit, x, y)));
                }
            }
        }
    }
    wides.iter().rev().take(3).for_each(|x| {
        w.push(Op::Public(*x));
    });
    w
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Registers hold what the program says, and the constraints agree.
    #[test]
    fn random_programs_agree(choices in prop::collection::vec(any::<(u8, u16, u16, u32)>(), 1..40), seed in any::<u64>()) {
        let case = Case::new(random_program(&choices), seed);
        let (values, public) = case.evaluated().unwrap();
        let wide: Vec<Fr> = case.wide.iter().map(|&x| to_fr(x)).collect();
        let lower = Lower::run(&case.program, Shape { k: K }, &case.small, &wide, &Honest);
        prop_assert_eq!(lower.unsatisfied, None);
        for (i, value) in values.small.iter().enumerate() {
            if let Some(found) = lower.residue_of(Small(i as u32)) {
                prop_assert_eq!(found, BigUint::from(value.as_canonical_u32()), "small {}", i);
            }
        }
        for (i, value) in values.wide.iter().enumerate() {
            prop_assert_eq!(lower.grid.value(lower.wide[i]), to_fr(*value), "wide {}", i);
        }
        if lower.grid.rows().max(lower.grid.limbs()) + 16 < 1 << K {
            let (circuit, _) = case.laid_out(&Honest);
            prop_assert!(satisfied(&circuit, public.iter().map(|&x| to_fr(x)).collect()));
        }
    }
}
