//! Requantisation, norms (forward and backward) and softmax rows.

use super::{Builder, RelationError, constant, product};
use crate::ir::{Axis, Factor, Sum, Term, int, inverse_power_of_two};
use crate::public::Public;
use crate::table::TableKind;
use model_runtime::int::unit::{REMAINDER_LIMB, UnitLength};
use model_runtime::semantics::{FIELD, RECIP_BITS, Rounding};
use p3_field::PrimeCharacteristicRing;

/// Which normaliser a row uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowFunction {
    /// `V = man·4^e + rem`, `g = κ/√man`.
    InverseSqrt(RsqrtParams),
    /// `S = man·2^e + rem`, `g = 2^28/man`.
    Reciprocal,
}

/// What a total's exponent counts powers of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Two,
    Four,
}

/// Parameters of the inverse square root's table: shift, true width, square shift.
type RsqrtParams = (u32, usize, u32);

/// How the largest accumulator is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// From the ranges of the factors and the lengths of the sums.
    Widths,
    /// From an argument in `docs/protocol.md` ("Bounds that widths don't give").
    Argued(i64),
}

/// The layers on which a saturating requantisation is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layers {
    /// Every one.
    All,
    /// Every one but the first.
    AfterFirst,
}

/// One tensor of the vectors that are brought to a length.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitPart<'n> {
    /// 16-bit integers.
    pub input: &'n str,
    /// The scaled tensor.
    pub output: &'n str,
    /// Its axes after the rows'.
    pub entries: &'n [Axis],
}

/// An integer multiple of a term.
pub(super) type Scaled = (i64, Term);

impl Builder<'_> {
    /// Refuses a quotient whose identity could wrap around the field: `acc + 2^(s-1) = z·2^s + r` with `|z| ≤ range`.
    pub(super) fn check_bound(&self, name: &str, shift: u32, acc: i128, range: i64) -> Result<(), RelationError> {
        let total = acc + (1 << (shift - 1)) + (i128::from(range) << shift) + (1 << shift);
        if total < i128::from(FIELD) {
            return Ok(());
        }
        Err(RelationError::Wraps { name: name.to_owned(), bound: total })
    }

    /// `(acc + 2^(s-1) - r) / 2^s` as terms, after declaring and range-checking the remainder `name.r`.
    ///
    /// `r` in `[0, 2^s)` and the bound make the quotient the rounded one as soon as it is shown to be an integer of at most 16 bits.
    pub(super) fn quotient(&mut self, name: &str, op: &str, free: &[Axis], acc: Vec<Scaled>, bound: Bound) -> Result<Vec<Term>, RelationError> {
        self.quotient_within(name, op, free, acc, bound, 1 << 15)
    }

    /// [`Self::quotient`] for a quotient known to lie within `±range`.
    pub(super) fn quotient_within(
        &mut self,
        name: &str,
        op: &str,
        free: &[Axis],
        acc: Vec<Scaled>,
        bound: Bound,
        range: i64,
    ) -> Result<Vec<Term>, RelationError> {
        let shift = self.op(op)?.shift;
        let largest = match bound {
            Bound::Widths => self.bound(free, &acc.iter().map(|(k, t)| (*k, t)).collect::<Vec<_>>())?,
            Bound::Argued(bound) => bound.into(),
        };
        self.check_bound(name, shift, largest, range)?;
        let remainder = format!("{name}.r");
        self.trace(&remainder, &free[1..]);
        self.range(&remainder, shift);
        let unit = inverse_power_of_two(shift);
        let mut terms: Vec<Term> = acc.into_iter().map(|(k, t)| t.times(int(k) * unit)).collect();
        terms.push(constant(1 << (shift - 1)).times(unit));
        terms.push(product([self.read(&remainder)]).times(-unit));
        Ok(terms)
    }

    /// Declares `name = RQ(acc)` over `free` (request axis first) with the parameters of its operation.
    pub(super) fn requantise(&mut self, name: &str, free: &[Axis], acc: Vec<Scaled>) -> Result<(), RelationError> {
        self.requantise_bounded(name, free, acc, Bound::Widths)
    }

    /// `name = RQ(coef·term)`.
    pub(super) fn requantise_term(&mut self, name: &str, free: &[Axis], term: Term) -> Result<(), RelationError> {
        let coef = self.coef(name, 0)?;
        self.requantise(name, free, vec![(coef, term)])
    }

    /// [`Self::requantise`] with an argued bound.
    pub(super) fn requantise_bounded(&mut self, name: &str, free: &[Axis], acc: Vec<Scaled>, bound: Bound) -> Result<(), RelationError> {
        self.requantise_where(name, free, acc, bound, Layers::All)
    }

    /// [`Self::requantise_bounded`] whose saturation is claimed on some layers only; an exact one has none to restrict.
    pub(super) fn requantise_where(
        &mut self,
        name: &str,
        free: &[Axis],
        acc: Vec<Scaled>,
        bound: Bound,
        layers: Layers,
    ) -> Result<(), RelationError> {
        self.trace(name, &free[1..]);
        let op = self.op(name)?;
        let range = if op.rounding == Rounding::Clamp { 1 << 15 } else { 1 << (op.bits - 1) };
        let quotient = self.quotient_within(name, name, free, acc, bound, range)?;
        let output = product([self.read(name)]);
        match op.rounding {
            Rounding::Clamp => {
                let numerator = (layers == Layers::AfterFirst).then(|| self.later_layers());
                self.look_up_where(&format!("{name} saturates"), TableKind::Clamp(op.bits), free, numerator, vec![quotient, vec![output]]);
                self.bounded(name, 1 << (op.bits - 1));
            }
            Rounding::Exact => {
                self.equal(&format!("{name} is rounded"), free, quotient, output);
                self.signed_range(name, op.bits);
            }
        }
        Ok(())
    }

    /// One on every layer but the first.
    fn later_layers(&self) -> Vec<Term> {
        let first = product([super::public(Public::Below(1), &[self.x.l])]);
        vec![constant(1), first.times(-crate::ir::F::ONE)]
    }

    /// An exact requantisation to `[0, 2^bits)`.
    pub(super) fn requantise_unsigned(&mut self, name: &str, free: &[Axis], acc: Vec<Scaled>, bound: Bound) -> Result<(), RelationError> {
        self.trace(name, &free[1..]);
        let bits = self.op(name)?.bits;
        let quotient = self.quotient_within(name, name, free, acc, bound, 1 << bits)?;
        let output = product([self.read(name)]);
        self.equal(&format!("{name} is rounded"), free, quotient, output);
        self.range(name, bits);
        Ok(())
    }

    /// `terms = output` everywhere.
    pub(super) fn equal(&mut self, name: &str, free: &[Axis], mut terms: Vec<Term>, output: Term) {
        terms.push(output.times(-crate::ir::F::ONE));
        self.constrain(name, Sum { free: free.to_vec(), terms });
    }

    /// Norm `x` of the tensor `h` over `rows` (request axis first) and the width axis.
    pub(super) fn norm(&mut self, x: &str, h: &str, rows: &[Axis]) -> Result<(), RelationError> {
        let sq_shift = u32::try_from(self.constant(&format!("{x}.sq_shift"))?).map_err(|_| super::missing("constant", x))?;
        let eps = self.constant(&format!("{x}.eps"))?;
        let output = format!("{x}.n");
        let (shift, exponent) = (self.op(x)?.shift, self.exponent(x)?);
        let kappa = u32::try_from(exponent + shift as i32).map_err(|_| super::missing("exponent", x))?;
        // The bounds on h·f and on Σ dn·n need the squares' total in 29 bits and a factor of 18 to 23 bits.
        let least = self.sem.shape.width.next_power_of_two().trailing_zeros();
        if !(least..=16).contains(&sq_shift) || !(18..=23).contains(&kappa) || !(1..1 << 27).contains(&eps) {
            return Err(RelationError::Parameter {
                what: format!("norm `{x}`"),
                found: format!("square shift {sq_shift}, factor 2^{kappa}, epsilon {eps}"),
                expected: "the width's logarithm to 16, 2^18 to 2^23, 1 to 2^27",
            });
        }
        let all: Vec<Axis> = rows.iter().copied().chain([self.x.d]).collect();
        let square = format!("{x}.sq");
        self.trace(&square, &all[1..]);
        self.bounded(&square, 1 << (28 - sq_shift));
        let pair = vec![vec![product([self.read(h)])], vec![product([self.read(&square)])]];
        self.look_up(&format!("{x} squares"), TableKind::Square(sq_shift), &all, pair);
        let total = vec![product([self.read(&square)]), constant(eps)];
        self.row_function(x, rows, total, RowFunction::InverseSqrt((kappa, self.sem.shape.width, sq_shift)))?;
        let acc = self.times_factor(x, || self.read(h));
        // The output and its remainder are `x.n` and `x.r`.
        self.trace(&output, &all[1..]);
        // |h|² ≤ (V + 1/2)·2^A and f ≤ 2^κ·√(D/(2^A·V))·(1 + 2^-13), so |h·f| ≤ 2^κ·√(3D/2)·(1 + 2^-13).
        let bound = (f64::from(1u32 << kappa) * (1.501 * self.sem.shape.width as f64).sqrt()).ceil() as i64;
        let quotient = self.quotient(x, x, &all, acc, Bound::Argued(bound))?;
        let bits = self.op(x)?.bits;
        let value = product([self.read(&output)]);
        self.look_up(&format!("{x}.n saturates"), TableKind::Clamp(bits), &all, vec![quotient, vec![value]]);
        self.bounded(&output, 1 << (bits - 1));
        Ok(())
    }

    /// `factor · f` with the row's factor `f = f1·2^12 + f0`.
    pub(super) fn times_factor(&self, row: &str, factor: impl Fn() -> Factor) -> Vec<Scaled> {
        vec![(1, product([factor(), self.read(&format!("{row}.f0"))])), (1 << 12, product([factor(), self.read(&format!("{row}.f1"))]))]
    }

    /// Softmax row `y` over `rows`: the factor `2^28 / Σ e`.
    pub(super) fn softmax_row(&mut self, y: &str, rows: &[Axis], weights: Factor) -> Result<(), RelationError> {
        const { assert!(RECIP_BITS == 28) };
        self.row_function(y, rows, vec![product([weights])], RowFunction::Reciprocal)
    }

    /// Declares `e, man, rem, big, p2 (p4), g, frem, f0, f1` for a row total.
    fn row_function(&mut self, x: &str, rows: &[Axis], total: Vec<Term>, function: RowFunction) -> Result<(), RelationError> {
        let name = |part: &str| format!("{x}.{part}");
        let (base, table, frem_bits) = match function {
            RowFunction::InverseSqrt((shift, width, sq_shift)) => (Base::Four, TableKind::Rsqrt(shift, width, sq_shift), 7),
            RowFunction::Reciprocal => (Base::Two, TableKind::Recip, 14),
        };
        self.normalise(x, rows, total, base);
        for part in ["g", "frem", "f0", "f1"] {
            self.trace(&name(part), &rows[1..]);
        }
        let tuple = ["man", "g", "big"].map(|part| vec![product([self.read(&name(part))])]).to_vec();
        self.look_up(&format!("{x} factor"), table, rows, tuple);
        self.below(&name("frem"), &name("p2"), rows, frem_bits);
        let shifted = self.times_factor(x, || self.read(&name("p2")));
        let mut shifted: Vec<Term> = shifted.into_iter().map(|(k, t)| t.times(int(k))).collect();
        shifted.push(product([self.read(&name("frem"))]));
        self.equal(&format!("{x} factor is shifted"), rows, shifted, product([self.read(&name("g"))]));
        self.range(&name("f0"), 12);
        self.range(&name("f1"), 12);
        // f·2^e stays below 2^24 + 2^26: without this, `g + p` would have a second shifted factor.
        let high = vec![product([self.read(&name("f1")), self.read(&name("p2"))])];
        self.look_up(&format!("{x} factor doesn't wrap"), TableKind::Range(12), rows, vec![high]);
        Ok(())
    }

    /// Declares `e, man, rem, big, p2 (p4)` with `total = man·base^e + rem`, `e` least such that `man < 2^16`; `big` is checked by the table that reads `man`.
    fn normalise(&mut self, x: &str, rows: &[Axis], total: Vec<Term>, base: Base) {
        let name = |part: &str| format!("{x}.{part}");
        for part in ["e", "man", "rem", "big", "p2"] {
            self.trace(&name(part), &rows[1..]);
        }
        let one = |b: &Self, part: &str| vec![product([b.read(&name(part))])];
        let (power, rem_bits) = match base {
            Base::Four => {
                self.trace(&name("p4"), &rows[1..]);
                let tuple = vec![one(self, "e"), one(self, "p2"), one(self, "p4")];
                self.look_up(&format!("{x} power of four"), TableKind::Power4, rows, tuple);
                ("p4", 14)
            }
            Base::Two => {
                let tuple = vec![one(self, "e"), one(self, "p2")];
                self.look_up(&format!("{x} power of two"), TableKind::Power2, rows, tuple);
                ("p2", 14)
            }
        };
        let split = vec![product([self.read(&name("man")), self.read(&name(power))]), product([self.read(&name("rem"))])];
        let split = split.into_iter().map(|t| t.times(-crate::ir::F::ONE)).chain(total).collect();
        self.constrain(&format!("{x} total is normalised"), Sum { free: rows.to_vec(), terms: split });
        let canonical = vec![product([self.read(&name("e"))]), product([self.read(&name("e")), self.read(&name("big"))]).times(-crate::ir::F::ONE)];
        self.constrain(&format!("{x} exponent is least"), Sum { free: rows.to_vec(), terms: canonical });
        self.below(&name("rem"), &name(power), rows, rem_bits);
    }

    /// `0 ≤ value < bound ≤ 2^bits`.
    fn below(&mut self, value: &str, bound: &str, rows: &[Axis], bits: u32) {
        self.range(value, bits);
        let gap = vec![product([self.read(bound)]), product([self.read(value)]).times(-crate::ir::F::ONE), constant(-1)];
        self.look_up(&format!("{value} below {bound}"), TableKind::Range(bits), rows, vec![gap]);
    }

    /// Backward of norm `x`: from `x.dn` to `x.v` over `rows`.
    pub(super) fn norm_backward(&mut self, x: &str, rows: &[Axis]) -> Result<(), RelationError> {
        let name = |part: &str| format!("{x}.{part}");
        let all: Vec<Axis> = rows.iter().copied().chain([self.x.d]).collect();
        let dot = product([self.read(&name("dn")), self.read(&name("n"))]);
        let coef = self.coef(&name("dot"), 0)?;
        let bound = self.dot_bound(x, rows)?.saturating_mul(coef.saturating_abs());
        self.requantise_bounded(&name("dot"), rows, vec![(coef, dot)], Bound::Argued(bound))?;
        // The range check leaves 16 bits; the sum's bound may leave fewer.
        let (shift, bits) = (self.op(&name("dot"))?.shift, self.op(&name("dot"))?.bits);
        self.bounded(&name("dot"), ((bound >> shift) + 1).min(1 << (bits - 1)));
        let (c, m) = (self.coef(&name("v"), 0)?, self.coef(&name("v"), 1)?);
        let acc = vec![(c, product([self.read(&name("dn"))])), (-m, product([self.read(&name("n")), self.read(&name("dot"))]))];
        self.requantise(&name("v"), &all, acc)
    }

    /// Cauchy-Schwarz: `|Σ dn·n| ≤ √D·max|dn| · √Σn²` with `Σn² ≤ D·(2^U·√(1 + D/(2·eps)) + 1)²`; the widths' bound where it is smaller.
    fn dot_bound(&self, x: &str, rows: &[Axis]) -> Result<i64, RelationError> {
        let dot = product([self.read(&format!("{x}.dn")), self.read(&format!("{x}.n"))]);
        let widths = self.bound(rows, &[(1, &dot)])?;
        let dn = f64::from(1u32 << (self.op(&format!("{x}.dn"))?.bits - 1));
        let (width, eps) = (self.sem.shape.width as f64, self.constant(&format!("{x}.eps"))? as f64);
        let unit = f64::from(1u32 << self.exponent(x)?.clamp(0, 15)) * (1.0 + width / (2.0 * eps)).sqrt() * 1.001;
        let argued = (width * dn * (unit + 1.0)).ceil() as i64;
        Ok(i64::try_from(widths).unwrap_or(i64::MAX).min(argued))
    }

    /// `fb = min(f >> F, 2^15 - 1)`: `f = fb·2^F + fr + over`, and `over = 0` unless `fb` is at its limit.
    pub(super) fn coarse_factor(&mut self, x: &str, rows: &[Axis]) -> Result<(), RelationError> {
        let name = |part: &str| format!("{x}.{part}");
        let shift = u32::try_from(self.constant(&name("fb_shift"))?).ok().filter(|s| (1..=14).contains(s));
        let shift = shift.ok_or_else(|| super::missing("constant", &name("fb_shift")))?;
        for (part, bits) in [("fb", 15), ("fr", shift), ("o0", 12), ("o1", 12)] {
            self.trace(&name(part), &rows[1..]);
            self.range(&name(part), bits);
        }
        let one = |b: &Self, part: &str, k: i64| product([b.read(&name(part))]).times(int(k));
        let terms = vec![
            one(self, "fb", 1 << shift),
            one(self, "fr", 1),
            one(self, "o0", 1),
            one(self, "o1", 1 << 12),
            one(self, "f0", -1),
            one(self, "f1", -(1 << 12)),
        ];
        self.constrain(&format!("{x} coarse factor"), Sum { free: rows.to_vec(), terms });
        let limit = -((1 << 15) - 1);
        let terms = vec![
            product([self.read(&name("o0")), self.read(&name("fb"))]),
            product([self.read(&name("o1")), self.read(&name("fb"))]).times(int(1 << 12)),
            one(self, "o0", limit),
            one(self, "o1", limit << 12),
        ];
        self.constrain(&format!("{x} coarse factor saturates"), Sum { free: rows.to_vec(), terms });
        Ok(())
    }

    /// Brings vectors to one length: `output = ⌊(input·f·2^e + offset)/2^s⌋` for each part over its axes, `Σ output²` within `T ± δ` over all parts,
    /// or every input is zero. Rows are the free axes in front (the request axis first); `x` names the witnesses.
    pub(super) fn unit(&mut self, x: &str, rows: &[Axis], parts: &[UnitPart<'_>], unit: UnitLength) -> Result<(), RelationError> {
        let name = |part: &str| format!("{x}.{part}");
        for part in ["e", "p2", "f", "g", "live"] {
            self.trace(&name(part), &rows[1..]);
        }
        let one = |b: &Self, part: &str| vec![product([b.read(&name(part))])];
        let tuple = vec![one(self, "e"), one(self, "p2")];
        self.look_up(&format!("{x} lift"), TableKind::Power2, rows, tuple);
        self.range(&name("f"), 15);
        self.range(&name("live"), 1);
        let scale = product([self.read(&name("f")), self.read(&name("p2"))]);
        let whole = product([self.read(&name("g"))]);
        self.equal(&format!("{x} scale"), rows, vec![scale], whole);
        let mut squares = vec![product([self.read(&name("live"))]).times(int(unit.slack() - unit.target()))];
        for part in parts {
            self.unit_part(x, rows, part, unit)?;
            squares.push(product([self.read(part.output), self.read(part.output)]));
        }
        self.look_up(&format!("{x} length"), TableKind::Range(unit.slack_log()), rows, vec![squares]);
        Ok(())
    }

    /// Lifted inputs have 16 bits and `f` has 15, so `|input·g| ≤ 2^30`; `2^s·|output| ≤ 2^29`: the identity holds over the integers.
    fn unit_part(&mut self, x: &str, rows: &[Axis], part: &UnitPart<'_>, unit: UnitLength) -> Result<(), RelationError> {
        let UnitPart { input, output, entries } = part;
        let all: Vec<Axis> = [rows, entries].concat();
        self.check_bound(output, unit.shift(), 1 << 30, 1 << unit.log())?;
        let lifted = vec![product([self.read(input), self.read(&format!("{x}.p2"))]), constant(1 << 15)];
        self.look_up(&format!("{output} lifted in range"), TableKind::Range(16), &all, vec![lifted]);
        let dead = vec![product([self.read(input)]), product([self.read(input), self.read(&format!("{x}.live"))]).times(-crate::ir::F::ONE)];
        self.constrain(&format!("{output} is zero only if its input is"), Sum { free: all.clone(), terms: dead });
        let limbs = [format!("{output}.r0"), format!("{output}.r1")];
        self.trace(output, &all[1..]);
        limbs.iter().for_each(|limb| {
            self.trace(limb, &all[1..]);
        });
        self.range(&limbs[0], REMAINDER_LIMB);
        self.range(&limbs[1], unit.shift() - REMAINDER_LIMB);
        self.signed_range(output, unit.log() + 1);
        let scaled = vec![
            product([self.read(input), self.read(&format!("{x}.g"))]),
            product([super::public(Public::Offset(unit.shift()), entries)]),
            product([self.read(&limbs[0])]).times(int(-1)),
            product([self.read(&limbs[1])]).times(int(-(1 << REMAINDER_LIMB))),
        ];
        let whole = product([self.read(output)]).times(int(1 << unit.shift()));
        self.equal(&format!("{output} is scaled"), &all, scaled, whole);
        Ok(())
    }
}
