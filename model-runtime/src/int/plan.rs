//! Chooses every exponent, width and shift, given the float ranges and the weights' norms.
//!
//! Planning starts with the widest operands; an operation that breaks the field bound names the operand to narrow, and planning starts over.

use super::bounds::{Knob, Term, align, field_bound, fitting_exponent, least_shift};
use super::calibrate::Ranges;
use super::quantise::QuantiseError;
use crate::semantics::{ACT_BITS, OUT_PROB_BITS, Op, PROB_BITS, RESIDUAL_BITS, ROPE_BITS, Rounding, Semantics};
use crate::shape::{LoraShape, ModelShape, Site};
use std::collections::BTreeMap;

/// Norms of a float weight tensor `[layers, out, in]`, largest over layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightStats {
    pub max: f64,
    pub row_l1: f64,
    pub row_l2: f64,
    pub col_l1: f64,
    pub outs: usize,
    pub ins: usize,
}

impl WeightStats {
    /// Statistics over matrices `[out, ins]`.
    pub fn new<'a>(matrices: impl Iterator<Item = &'a [f32]>, ins: usize) -> Self {
        let mut s = Self { max: 1e-9, row_l1: 0.0, row_l2: 0.0, col_l1: 0.0, outs: 0, ins };
        for matrix in matrices {
            s.outs = matrix.len() / ins;
            let mut columns = vec![0f64; ins];
            for row in matrix.chunks_exact(ins) {
                let (mut l1, mut l2) = (0.0, 0.0);
                for (column, w) in columns.iter_mut().zip(row) {
                    let w = f64::from(w.abs());
                    s.max = s.max.max(w);
                    l1 += w;
                    l2 += w * w;
                    *column += w;
                }
                s.row_l1 = s.row_l1.max(l1);
                s.row_l2 = s.row_l2.max(l2.sqrt());
            }
            s.col_l1 = columns.into_iter().fold(s.col_l1, f64::max);
        }
        s
    }
}

/// Why a planning round stopped.
pub(crate) enum Stop {
    Narrow(Knob),
    Refuse(QuantiseError),
}

/// Exponents and widths of the base weights, when they are already fixed.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub exps: BTreeMap<String, i32>,
    pub bits: BTreeMap<String, u32>,
}

pub(crate) struct Planner<'a> {
    pub shape: &'a ModelShape,
    pub ranges: &'a Ranges,
    pub stats: BTreeMap<String, WeightStats>,
    pub lora: Option<LoraShape>,
    pub fixed: Option<Fixed>,
    /// Bits by which the residual stream is finer than its largest calibrated value allows (saturating the largest values), or, negative, coarser.
    pub stream_lift: i32,
    wbits: BTreeMap<String, u32>,
    gbits: BTreeMap<String, u32>,
    pub sem: Semantics,
    /// Operations whose quotient bound is calibrated, not proven for every input.
    pub calibrated: Vec<String>,
}

/// What the field bound leaves for a LoRA branch that comes later: rank 64 with 12-bit factors.
const LORA_RESERVE: f64 = (1u64 << 28) as f64;
/// Headroom of the quotient bound for that branch.
const LORA_HEADROOM: f64 = 1.5;
/// A proven quotient bound is used if it costs at most so many bits of precision.
const PROOF_COST: u32 = 1;
/// Calibrated output ranges are filled up to here.
const FILL: f64 = 0.9;
/// Attention scores whose proven bound would cost precision keep this factor above calibration.
const CALIBRATED_HEADROOM: f64 = 12.0;
const GRADIENT_BITS: u32 = 12;
const STREAM_GRADIENT_BITS: u32 = 14;
/// Largest difference of exponents that coefficients of one sum make up for.
pub(crate) const SPREAD: i32 = 2;

fn pow2(bits: u32) -> f64 {
    f64::from(bits).exp2()
}

/// How the shift of an operation is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotient {
    /// The proven bound decides alone.
    Proven,
    /// The proven bound if cheap, else the calibrated one.
    Cheap,
}

pub(crate) struct Request<'n> {
    pub name: &'n str,
    pub terms: Vec<Term>,
    pub target: i32,
    pub bits: u32,
    pub rounding: Rounding,
    pub quotient: Quotient,
}

impl<'a> Planner<'a> {
    pub fn new(shape: &'a ModelShape, ranges: &'a Ranges, stats: BTreeMap<String, WeightStats>) -> Self {
        let sem = Semantics {
            shape: shape.clone(),
            lora: None,
            sketch: None,
            exps: BTreeMap::new(),
            weight_bits: BTreeMap::new(),
            ops: BTreeMap::new(),
            consts: BTreeMap::new(),
        };
        let (wbits, gbits) = (BTreeMap::new(), BTreeMap::new());
        Self { shape, ranges, stats, lora: None, fixed: None, stream_lift: 0, wbits, gbits, sem, calibrated: Vec::new() }
    }

    /// Plans until every bound holds.
    pub fn plan(mut self) -> Result<(Semantics, Vec<String>), QuantiseError> {
        for _ in 0..400 {
            self.sem.exps.clear();
            self.sem.ops.clear();
            self.sem.consts.clear();
            self.sem.weight_bits.clear();
            self.sem.lora = self.lora.clone();
            self.calibrated.clear();
            match self.round() {
                Ok(()) => return Ok((self.sem, self.calibrated)),
                Err(Stop::Refuse(error)) => return Err(error),
                Err(Stop::Narrow(knob)) => self.narrow(&knob)?,
            }
        }
        Err(QuantiseError::Undecided)
    }

    fn narrow(&mut self, knob: &Knob) -> Result<(), QuantiseError> {
        let (map, name, from, least) = match knob {
            Knob::Weight(name) => (&mut self.wbits, name, ACT_BITS, 4),
            Knob::Gradient(name) => {
                let from = if name == "G" || name.ends_with(".v") { STREAM_GRADIENT_BITS } else { GRADIENT_BITS };
                (&mut self.gbits, name, from, 6)
            }
        };
        let bits = map.entry(name.clone()).or_insert(from);
        *bits -= 1;
        match *bits < least {
            true => Err(QuantiseError::TooNarrow { tensor: name.clone(), bits: *bits, least }),
            false => Ok(()),
        }
    }

    fn round(&mut self) -> Result<(), Stop> {
        self.weights();
        self.forward()?;
        self.backward()
    }

    pub(crate) fn exp(&self, name: &str) -> i32 {
        self.sem.exps.get(name).copied().unwrap_or(0)
    }

    fn set(&mut self, name: &str, exp: i32) {
        self.sem.exps.insert(name.to_owned(), exp);
    }

    pub(crate) fn weight_bits(&self, name: &str) -> u32 {
        let fixed = self.fixed.as_ref().and_then(|f| f.bits.get(name).copied());
        fixed.unwrap_or_else(|| self.wbits.get(name).copied().unwrap_or(ACT_BITS))
    }

    /// Width of a gradient tensor; the residual stream's gradients share the key `G`.
    pub(crate) fn gradient_bits(&self, name: &str) -> u32 {
        let wide = name == "G" || name.ends_with(".v");
        self.gbits.get(name).copied().unwrap_or(if wide { STREAM_GRADIENT_BITS } else { GRADIENT_BITS })
    }

    fn gradient_range(&self, name: &str) -> f64 {
        // Quotients keep a factor 4 above everything calibration saw; saturation begins at the quantile.
        let bits = self.gradient_bits(name);
        self.ranges.high(name).max(self.ranges.max(name) * pow2(bits - 1) * FILL / pow2(13))
    }

    pub(crate) fn gradient_target(&self, name: &str, bits: u32) -> i32 {
        fitting_exponent(self.gradient_range(name), bits, FILL)
    }

    pub(crate) fn has(&self, site: Site) -> bool {
        self.lora.as_ref().is_some_and(|l| l.sites.contains(&site))
    }

    fn weights(&mut self) {
        let names: Vec<String> = self.stats.keys().cloned().collect();
        for name in names {
            let bits = self.weight_bits(&name);
            let fixed = self.fixed.as_ref().and_then(|f| f.exps.get(&name).copied());
            let exp = fixed.unwrap_or_else(|| fitting_exponent(self.stats[&name].max, bits, 0.999).min(20));
            self.sem.weight_bits.insert(name.clone(), bits);
            self.set(&name, exp);
        }
        let stream = fitting_exponent(self.ranges.stream(), RESIDUAL_BITS, FILL) + self.stream_lift;
        let fixed = self.fixed.as_ref().and_then(|f| f.exps.get("embed").copied());
        let exp = fixed.unwrap_or(stream);
        self.sem.weight_bits.insert("embed".to_owned(), RESIDUAL_BITS);
        for name in ["embed", "hin", "m", "hout", "hf"] {
            self.set(name, exp);
        }
    }

    /// Solves one operation: aligns the terms, finds the shift, checks the field bound, records exponent and parameters.
    pub(crate) fn solve(&mut self, request: Request) -> Result<(), Stop> {
        let Request { name, terms, target, bits, rounding, quotient } = request;
        let exps: Vec<i32> = terms.iter().map(|t| t.exp).collect();
        let most = exps.iter().copied().max().unwrap_or(0);
        // A tensor that calibration never saw has no range to aim for: the proven bound alone decides.
        let aimless = target > most + 3;
        let lift = if aimless { 0 } else { (1 + target - most).max(0) as u32 };
        let (coefs, sum_exp) = align(&exps, lift);
        let total = |f: fn(&Term) -> f64| terms.iter().zip(&coefs).map(|(t, &c)| f(t) * c as f64).sum::<f64>();
        let z_bits = if rounding == Rounding::Clamp { 16 } else { bits };
        let proven = least_shift(total(|t| t.actual), z_bits);
        let wanted = if aimless { proven } else { (sum_exp - target).max(1) as u32 };
        let shift = match quotient {
            Quotient::Proven => wanted.max(proven),
            Quotient::Cheap if proven <= wanted + PROOF_COST => wanted.max(proven),
            Quotient::Cheap => {
                self.calibrated.push(name.to_owned());
                wanted
            }
        };
        // A clamped quotient of 16 bits shifted by 16 would wrap around the field: saturate earlier instead.
        let shift = if rounding == Rounding::Clamp { shift.min(15) } else { shift };
        let field = total(|t| t.field);
        self.finish(name, Op { shift, bits, rounding, coefs }, &terms, field)?;
        self.set(name, sum_exp - shift as i32);
        Ok(())
    }

    /// Records an operation after checking its shift and field bound.
    pub(crate) fn finish(&mut self, name: &str, op: Op, terms: &[Term], max_acc: f64) -> Result<(), Stop> {
        let unsigned = name == "p" || name == "pr";
        let (bound, limit) = field_bound(&op, unsigned, max_acc);
        if op.shift > 16 || bound >= limit {
            let least = op.coefs.iter().copied().min().unwrap_or(1);
            let spread = op.coefs.iter().any(|&c| c > least);
            let weight = |(t, c): &(&Term, &i64)| if spread && **c == least { f64::MAX } else { t.field * **c as f64 };
            let worst = terms.iter().zip(&op.coefs).filter(|(t, _)| t.knob.is_some()).max_by(|a, b| weight(a).total_cmp(&weight(b)));
            return Err(match worst.and_then(|(t, _)| t.knob.clone()) {
                Some(knob) => Stop::Narrow(knob),
                None => Stop::Refuse(QuantiseError::Bound { op: name.to_owned(), shift: op.shift, bound, limit }),
            });
        }
        self.sem.ops.insert(name.to_owned(), op);
        Ok(())
    }

    fn fixed_op(&mut self, name: &str, shift: u32, bits: u32, rounding: Rounding, max_acc: f64) -> Result<(), Stop> {
        self.finish(name, Op { shift, bits, rounding, coefs: vec![1] }, &[], max_acc)
    }

    /// Euclidean norm of any output of norm `name`, in integer units.
    pub(crate) fn norm_length(&self, name: &str) -> f64 {
        let width = self.shape.width as f64;
        let eps = self.sem.consts.get(&format!("{name}.eps")).copied().unwrap_or(1) as f64;
        let length = width.sqrt() * (f64::from(self.exp(name)).exp2() * (1.0 + width / (2.0 * eps)).sqrt() * 1.01 + 0.5);
        length.min(width.sqrt() * 2048.0)
    }

    fn norm(&mut self, name: &str) -> Result<(), Stop> {
        let width = self.shape.width as f64;
        let sq_shift = self.shape.width.next_power_of_two().trailing_zeros();
        let stream = f64::from(self.exp("hin"));
        let unit = ((2047.0 / self.ranges.max(name)).log2().floor() as i32).clamp(4, 8);
        let per_row = width / f64::from(sq_shift).exp2();
        let rms = stream.exp2() / self.ranges.max(&format!("{name}.inv"));
        let smallest = (rms * rms * per_row / 256.0).min(width / 2.0);
        let eps = (self.shape.norm_eps * (2.0 * stream).exp2() * per_row).round().max(smallest.floor()).max(1.0);
        let largest = |sn: u32| (f64::from(unit) + f64::from(sn)).exp2() * 1.25 * width.sqrt();
        let op = |shift| Op { shift, bits: ACT_BITS, rounding: Rounding::Clamp, coefs: vec![1] };
        let fits = |sn: &u32| {
            let (bound, limit) = field_bound(&op(*sn), false, largest(*sn));
            bound < limit && unit as u32 + sn <= 23
        };
        let shift = (1..=16).rev().find(fits).unwrap_or(1);
        let factor = (f64::from(unit) + f64::from(shift)).exp2() / rms.max(1e-3);
        let fb_shift = (1..16).find(|&s: &i32| factor / f64::from(s).exp2() < 32767.0).unwrap_or(15);
        for (field, value) in [("sq_shift", i64::from(sq_shift)), ("eps", eps as i64), ("fb_shift", i64::from(fb_shift))] {
            self.sem.consts.insert(format!("{name}.{field}"), value);
        }
        self.set(name, unit);
        self.set(&format!("{name}.fb"), unit + shift as i32 - self.exp("hin") - fb_shift);
        self.finish(name, op(shift), &[], largest(shift))
    }

    /// `Σ w·x` over the inputs of weight `name`; `length`: bound on the Euclidean norm of `x`.
    fn product(&self, name: &str, x_exp: i32, length: f64) -> Term {
        let (stats, exp) = (&self.stats[name], self.exp(name));
        let (bits, unit) = (self.weight_bits(name), f64::from(exp).exp2());
        let ins = stats.ins as f64;
        let l1 = (stats.row_l1 * unit + 0.5 * ins) * 2048.0;
        let l2 = (stats.row_l2 * unit + 0.5 * ins.sqrt()) * length;
        let free = self.fixed.as_ref().is_none_or(|f| !f.bits.contains_key(name));
        Term { exp: exp + x_exp, field: ins * 2048.0 * pow2(bits - 1), actual: l1.min(l2), knob: free.then(|| Knob::Weight(name.to_owned())) }
    }

    /// The LoRA branch's term of site `site`, after planning its `uS`.
    fn lora_term(&mut self, site: Site, x_exp: i32, length: f64) -> Result<Option<Term>, Stop> {
        if !self.has(site) {
            return Ok(None);
        }
        let (a, b, u) = (format!("a{}", site.name()), format!("b{}", site.name()), format!("u{}", site.name()));
        let term = self.product(&a, x_exp, length);
        // The branch's unit is at most `SPREAD` bits finer than the base's, less for every bit that the field bound takes from B.
        let base = self.exp(&format!("w{}", site.name())) + x_exp;
        let unit = base + SPREAD - (ACT_BITS - self.weight_bits(&b)) as i32;
        // Activations give way to a weak B, down to eight bits.
        let (wanted, least) = (fitting_exponent(self.stats[&b].max, 7, FILL), fitting_exponent(self.ranges.max(&u), 8, FILL));
        let target = fitting_exponent(self.ranges.max(&u), ACT_BITS, FILL).min((unit - wanted).max(least));
        self.activation(&u, vec![term], target, ACT_BITS)?;
        self.set(&b, self.exp(&b).min(unit - self.exp(&u)));
        Ok(Some(self.product(&b, self.exp(&u), f64::MAX)))
    }

    fn activation(&mut self, name: &str, terms: Vec<Term>, target: i32, bits: u32) -> Result<(), Stop> {
        let (rounding, quotient) = (Rounding::Clamp, Quotient::Cheap);
        self.solve(Request { name, terms, target, bits, rounding, quotient })
    }

    /// Terms of a site's projection; a missing branch leaves its reserve in the first.
    fn site_terms(&mut self, site: Site, x_exp: i32, length: f64) -> Result<Vec<Term>, Stop> {
        let mut term = self.product(&format!("w{}", site.name()), x_exp, length);
        Ok(match self.lora_term(site, x_exp, length)? {
            Some(lora) => vec![term, lora],
            None => {
                if self.fixed.is_none() {
                    term.field += LORA_RESERVE;
                    term.actual *= LORA_HEADROOM;
                }
                vec![term]
            }
        })
    }

    fn linear(&mut self, site: Site, norm: &str) -> Result<(), Stop> {
        let terms = self.site_terms(site, self.exp(norm), self.norm_length(norm))?;
        let name = site.name();
        if site == Site::Gate {
            let target = fitting_exponent(self.ranges.max("gate"), 16, FILL).min(12);
            let (rounding, quotient) = (Rounding::Exact, Quotient::Proven);
            self.solve(Request { name, terms, target, bits: 16, rounding, quotient })?;
        } else {
            let target = fitting_exponent(self.ranges.max(name), ACT_BITS, FILL);
            self.activation(name, terms, target, ACT_BITS)?;
        }
        self.pad_coefs(name, 2);
        Ok(())
    }

    /// Lists keep a position for a LoRA branch that isn't there.
    pub(crate) fn pad_coefs(&mut self, name: &str, count: usize) {
        if let Some(op) = self.sem.ops.get_mut(name) {
            op.coefs.resize(count, 0);
        }
    }

    /// A projection added to the residual stream; its exponent is the stream's.
    fn residual(&mut self, name: &str, site: Site, x: &str) -> Result<(), Stop> {
        let terms = self.site_terms(site, self.exp(x), f64::MAX)?;
        let stream = self.exp("hin");
        let exps: Vec<i32> = terms.iter().map(|t| t.exp).collect();
        let most = exps.iter().copied().max().unwrap_or(0);
        let lift = (stream + 1 - most).max(0) as u32;
        let (mut coefs, sum_exp) = align(&exps, lift);
        let shift = (sum_exp - stream) as u32;
        let max_acc = terms.iter().zip(&coefs).map(|(t, &c)| t.field * c as f64).sum::<f64>() + pow2(shift + RESIDUAL_BITS - 1);
        self.finish(name, Op { shift, bits: RESIDUAL_BITS, rounding: Rounding::Clamp, coefs: coefs.clone() }, &terms, max_acc)?;
        coefs.resize(2, 0);
        coefs.insert(0, 1 << shift);
        self.sem.ops.insert(name.to_owned(), Op { shift, bits: RESIDUAL_BITS, rounding: Rounding::Clamp, coefs });
        let actual: f64 = terms.iter().map(|t| t.actual).sum();
        if least_shift(actual, 16) > shift {
            self.calibrated.push(name.to_owned());
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<(), Stop> {
        for (from, to) in [("q", "qr"), ("k", "kr")] {
            self.fixed_op(to, ROPE_BITS, 13, Rounding::Exact, 2048.0 * 8193.0 * 2.0)?;
            self.set(to, self.exp(from));
        }
        // Rotation preserves lengths, so a rotated channel is at most √2·2^11 and rounding adds less than 2.
        let scores = self.shape.head_dim as f64 * 2898.0 * 2898.0;
        let length = self.shape.head_dim as f64 * 2050.0 * 2050.0;
        let term = Term { exp: self.exp("q") + self.exp("k"), field: scores, actual: length, knob: None };
        let target = fitting_exponent(self.ranges.max("att") * CALIBRATED_HEADROOM, 16, 1.0).min(11);
        let (rounding, quotient) = (Rounding::Exact, Quotient::Cheap);
        self.solve(Request { name: "att", terms: vec![term], target, bits: 16, rounding, quotient })?;
        self.set("att.exp_bits", self.exp("att"));
        self.fixed_op("p", 16, 13, Rounding::Exact, pow2(28) * (1.0 + pow2(14).recip()))?;
        self.set("p", PROB_BITS as i32);
        let sum = (4096.0 + self.shape.context as f64) * 2048.0;
        let term = Term { exp: PROB_BITS as i32 + self.exp("v"), field: sum, actual: sum, knob: None };
        // Keeps the shift of the projection back to the stream small.
        let cap = 13 + self.exp("hin") - self.exp("wo");
        let target = fitting_exponent(self.ranges.max("o"), ACT_BITS, FILL).min(cap);
        self.activation("o", vec![term], target, ACT_BITS)
    }

    fn forward(&mut self) -> Result<(), Stop> {
        self.norm("n1")?;
        for site in [Site::Q, Site::K, Site::V] {
            self.linear(site, "n1")?;
        }
        self.attention()?;
        self.residual("m", Site::O, "o")?;
        self.norm("n2")?;
        self.linear(Site::Gate, "n2")?;
        self.set("silu", fitting_exponent(self.ranges.max("silu"), ACT_BITS, FILL));
        self.set("dsilu", 10);
        self.linear(Site::Up, "n2")?;
        let square = 2048.0 * 2048.0;
        let term = Term { exp: self.exp("silu") + self.exp("up"), field: square, actual: square, knob: None };
        let cap = 13 + self.exp("hin") - self.exp("wdown");
        let target = fitting_exponent(self.ranges.max("act"), ACT_BITS, FILL).min(cap);
        self.activation("act", vec![term], target, ACT_BITS)?;
        self.residual("hout", Site::Down, "act")?;
        self.norm("nf")?;
        let term = self.product("head", self.exp("nf"), self.norm_length("nf"));
        let target = fitting_exponent(self.ranges.max("out"), 16, FILL).min(11);
        let (rounding, quotient) = (Rounding::Exact, Quotient::Proven);
        self.solve(Request { name: "out", terms: vec![term], target, bits: 16, rounding, quotient })?;
        self.set("out.exp_bits", self.exp("out"));
        self.set("pr", OUT_PROB_BITS as i32);
        self.fixed_op("pr", 14, 15, Rounding::Exact, pow2(28) * (1.0 + pow2(14).recip()))
    }
}
