//! Planning of the backward pass (continues [`super::plan`]).

use super::bounds::{Knob, Term, align, field_bound, fitting_exponent, least_shift};
use super::plan::{Planner, Quotient, Request, SPREAD, Stop};
use super::unit::{MIN_LENGTH_LOG, UnitLength};
use crate::semantics::{OUT_PROB_BITS, Op, PROB_BITS, ROPE_BITS, Rounding};
use crate::shape::Site;

fn pow2(bits: u32) -> f64 {
    f64::from(bits).exp2()
}

fn gradient(name: &str) -> Option<Knob> {
    Some(Knob::Gradient(name.to_owned()))
}

impl Planner<'_> {
    pub(crate) fn backward(&mut self) -> Result<(), Stop> {
        self.output()?;
        self.feed_forward_back()?;
        self.attention_back()
    }

    /// `RQc` of `terms` into the gradient tensor `name`, calibrated by the range of `range`.
    fn gradient_op(&mut self, name: &str, terms: Vec<Term>, target: i32) -> Result<(), Stop> {
        let (bits, rounding, quotient) = (self.gradient_bits(name), Rounding::Clamp, Quotient::Cheap);
        self.solve(Request { name, terms, target, bits, rounding, quotient })
    }

    /// `Σ_out w·g` for weight `name` and a gradient of the given exponent, width key and width.
    fn transposed(&self, name: &str, g: &str, key: &str) -> Term {
        let (stats, exp) = (&self.stats[name], self.exp(name));
        let peak = pow2(self.gradient_bits(key) - 1);
        let outs = stats.outs as f64;
        let free = self.fixed.as_ref().is_none_or(|f| !f.bits.contains_key(name));
        // Gradients give way first; weights only once gradients are down to 10 bits.
        let knob = match self.gradient_bits(key) > 10 || !free {
            true => gradient(key),
            false => Some(Knob::Weight(name.to_owned())),
        };
        Term {
            exp: exp + self.exp(g),
            field: outs * peak * pow2(self.weight_bits(name) - 1),
            actual: (stats.col_l1 * f64::from(exp).exp2() + 0.5 * outs) * peak,
            knob,
        }
    }

    fn output(&mut self) -> Result<(), Stop> {
        let stats = self.stats["head"];
        // Σ_v |q - e_t| of a slot: two, and the roundings of all probabilities.
        let mass = pow2(OUT_PROB_BITS + 1) + self.shape.vocab as f64 / 2.0 + 8.0;
        let unit = f64::from(self.exp("head")).exp2();
        let term = Term {
            exp: self.exp("head") + OUT_PROB_BITS as i32,
            field: mass * pow2(self.weight_bits("head") - 1),
            actual: mass * (stats.max * unit + 0.5),
            knob: Some(Knob::Weight("head".to_owned())),
        };
        let target = self.gradient_target("nf.dn", self.gradient_bits("nf.dn"));
        self.gradient_op("nf.dn", vec![term], target)?;
        self.norm_back("nf", None)?;
        self.gradient_unit();
        Ok(())
    }

    /// The length of token gradients and the unit of the residual stream's gradient, the same in all layers: `gout = 2^lift·ghf` in the last.
    fn gradient_unit(&mut self) {
        let bits = self.gradient_bits("G");
        let target = ["gout", "gm"].iter().map(|n| self.gradient_target(n, bits)).min().unwrap_or(0).min(bits as i32 - 1);
        let length = target.clamp(MIN_LENGTH_LOG as i32, UnitLength::of(self.shape.width).log() as i32);
        let lift = (target - length).max(0);
        self.sem.consts.insert("ghf.length".to_owned(), length.into());
        self.sem.consts.insert("ghf.lift".to_owned(), lift.into());
        self.sem.exps.insert("ghf".to_owned(), length);
        for name in ["gout", "gin", "gm"] {
            self.sem.exps.insert(name.to_owned(), length + lift);
        }
    }

    /// `X.dot`, `X.v` and, after the final norm's, the operation that joins it to the residual stream's gradient.
    fn norm_back(&mut self, norm: &str, join: Option<&str>) -> Result<(), Stop> {
        let (dn, dot, v) = (format!("{norm}.dn"), format!("{norm}.dot"), format!("{norm}.v"));
        let width = self.shape.width as f64;
        let peak = pow2(self.gradient_bits(&dn) - 1);
        let sum = width.sqrt() * peak * self.norm_length(norm);
        let term = Term { exp: self.exp(&dn) + self.exp(norm), field: sum, actual: sum, knob: gradient(&dn) };
        // Widths other than powers of two need room for the numerator of C/M.
        let guard = if self.shape.width.is_power_of_two() { 0 } else { 3 };
        let term = Term { actual: term.actual * pow2(guard), ..term };
        let (rounding, quotient, target) = (Rounding::Exact, Quotient::Proven, i32::MAX);
        self.solve(Request { name: &dot, terms: vec![term], target, bits: 16, rounding, quotient })?;
        self.projection(norm, sum, peak)?;
        join.map_or(Ok(()), |join| self.join(norm, join, &v))
    }

    /// `X.v = RQc(C·dn - M·n·dot)` with `C/M = Dn·2^(2U-s)`, rounded in `M` when `Dn` isn't a power of two.
    fn projection(&mut self, norm: &str, sum: f64, peak: f64) -> Result<(), Stop> {
        let (dn, dot, v) = (format!("{norm}.dn"), format!("{norm}.dot"), format!("{norm}.v"));
        let shift = self.sem.ops[&dot].shift;
        let ratio = self.shape.width as f64 * f64::from(2 * self.exp(norm) - shift as i32).exp2();
        let largest_dot = (sum / pow2(shift) + 1.0).min(32768.0);
        let mut c = ratio.max(1.0);
        let mut m = (1.0 / ratio).max(1.0);
        if !self.shape.width.is_power_of_two() {
            c = 1.0;
            while c / ratio < 24.0 && (c / ratio) * 2.0 * 2048.0 * largest_dot < pow2(28) && c * peak < pow2(28) {
                c *= 2.0;
            }
            m = (c / ratio).round().max(1.0);
        }
        let terms = [
            Term { exp: 0, field: peak, actual: peak, knob: gradient(&dn) },
            Term { exp: 0, field: 2048.0 * largest_dot, actual: 2048.0 * largest_dot, knob: gradient(&dn) },
        ];
        let bits = self.gradient_bits(&v);
        let sum_exp = self.exp(&dn) + c.log2() as i32;
        let target = self.gradient_target(&v, bits).min(self.v_cap(norm));
        let shift = (sum_exp - target).clamp(1, 15) as u32;
        let (op, max) = (Op { shift, bits, rounding: Rounding::Clamp, coefs: vec![c as i64, m as i64] }, c * peak + m * terms[1].field);
        if least_shift(max, 16) > shift {
            self.calibrated.push(v.clone());
        }
        self.finish(&v, op, &terms, max)?;
        self.sem.exps.insert(v, sum_exp - shift as i32);
        Ok(())
    }

    /// The largest exponent of `X.v` for which joining it to the stream's gradient stays a shift by 14.
    fn v_cap(&self, norm: &str) -> i32 {
        match norm {
            "nf" => i32::MAX,
            _ => self.exp("gout") + 14 - self.exp(&format!("{norm}.fb")),
        }
    }

    fn factor_term(&self, norm: &str, v: &str) -> Term {
        let product = pow2(self.gradient_bits(v) - 1) * 32768.0;
        Term { exp: self.exp(v) + self.exp(&format!("{norm}.fb")), field: product, actual: product, knob: gradient(v) }
    }

    fn join(&mut self, norm: &str, name: &str, v: &str) -> Result<(), Stop> {
        let (term, bits) = (self.factor_term(norm, v), self.gradient_bits("G"));
        let lift = (self.exp("gout") + 1 - term.exp).max(0);
        let shift = (term.exp + lift - self.exp("gout")) as u32;
        let coefs = vec![1i64 << shift, 1 << lift];
        let max_acc = pow2(shift + bits - 1) + term.field * f64::from(lift).exp2();
        if least_shift(max_acc, 16) > shift {
            self.calibrated.push(name.to_owned());
        }
        let stream = Term { exp: 0, field: pow2(bits - 1), actual: pow2(bits - 1), knob: None };
        self.finish(name, Op { shift, bits, rounding: Rounding::Clamp, coefs }, &[stream, term], max_acc)
    }

    /// Plans `eS`, capped so that its way back through `A` doesn't need a finer unit than `common`.
    fn low_rank(&mut self, site: Site, g: &str, key: &str, common: i32) -> Result<Option<Term>, Stop> {
        if !self.has(site) {
            return Ok(None);
        }
        let (a, b, e) = (format!("a{}", site.name()), format!("b{}", site.name()), format!("e{}", site.name()));
        let term = self.transposed(&b, g, key);
        let target = self.gradient_target(&e, self.gradient_bits(&e)).min(common - self.exp(&a));
        self.gradient_op(&e, vec![term], target)?;
        Ok(Some(self.transposed(&a, &e, &e)))
    }

    /// Plans a sum of several transposed projections `(site, gradient)` into `name`; base terms first, then LoRA terms.
    fn gather(&mut self, name: &str, parts: &[(Site, &str, &str)]) -> Result<(), Stop> {
        let base: Vec<Term> = parts.iter().map(|(site, g, key)| self.transposed(&format!("w{}", site.name()), g, key)).collect();
        let common = base.iter().map(|t| t.exp).max().unwrap_or(0);
        let mut terms = base.clone();
        let mut present = vec![true; parts.len()];
        for (site, g, key) in parts {
            let lora = self.low_rank(*site, g, key, common)?;
            present.push(lora.is_some());
            terms.extend(lora);
        }
        let target = self.gradient_target(name, self.gradient_bits(name));
        self.gradient_op(name, terms, target)?;
        if let Some(op) = self.sem.ops.get_mut(name) {
            let mut coefs = std::mem::take(&mut op.coefs).into_iter();
            op.coefs = present.iter().map(|&p| if p { coefs.next().unwrap_or(0) } else { 0 }).collect();
        }
        Ok(())
    }

    fn elementwise(&mut self, name: &str, from: &str, by: &str, cap: i32) -> Result<(), Stop> {
        let product = pow2(self.gradient_bits(from) - 1) * 2048.0;
        let term = Term { exp: self.exp(from) + self.exp(by), field: product, actual: product, knob: gradient(from) };
        let target = self.gradient_target(name, self.gradient_bits(name)).min(cap);
        self.gradient_op(name, vec![term], target)
    }

    /// For gradients summed through their weights: exponents at which no term is more than `SPREAD` bits finer than the coarsest.
    fn caps(&self, parts: &[(&str, &str)]) -> Vec<i32> {
        let target = |g: &str| self.gradient_target(g, self.gradient_bits(g));
        let common = parts.iter().map(|(w, g)| self.exp(w) + target(g)).min().unwrap_or(0) + SPREAD;
        parts.iter().map(|(w, g)| target(g).min(common - self.exp(w))).collect()
    }

    fn feed_forward_back(&mut self) -> Result<(), Stop> {
        self.gather("dact", &[(Site::Down, "gout", "G")])?;
        let caps = self.caps(&[("wgate", "dgate"), ("wup", "dup")]);
        self.elementwise("dup", "dact", "silu", caps[1])?;
        self.elementwise("dgw", "dact", "up", i32::MAX - 1)?;
        self.elementwise("dgate", "dgw", "dsilu", caps[0])?;
        self.gather("n2.dn", &[(Site::Gate, "dgate", "dgate"), (Site::Up, "dup", "dup")])?;
        self.norm_back("n2", Some("gm"))
    }

    fn attention_back(&mut self) -> Result<(), Stop> {
        self.gather("do", &[(Site::O, "gm", "G")])?;
        // A relation's tokens are padded, and it knows rotated queries and keys, and probabilities, by their widths.
        let (context, group) = (self.shape.context.next_power_of_two() as f64, (self.shape.heads / self.shape.kv_heads) as f64);
        let peak = |p: &Self, name: &str| pow2(p.gradient_bits(name) - 1);
        let channels = self.shape.head_dim as f64;
        let sum = channels * peak(self, "do") * 2048.0;
        let term = Term { exp: self.exp("do") + self.exp("v"), field: sum, actual: sum, knob: gradient("do") };
        let target = self.gradient_target("dp", self.gradient_bits("dp"));
        self.gradient_op("dp", vec![term], target)?;
        self.score_gradient(context)?;
        let caps = self.caps(&[("wq", "dq"), ("wk", "dk"), ("wv", "dv")]);
        let tokens = context * group;
        let sums = [
            ("dv", "do", PROB_BITS as i32, tokens, (4096.0, 4098.0), caps[2]),
            ("dqr", "ds", self.exp("kr"), context, (2898.0, self.largest("kr")), caps[0]),
            ("dkr", "ds", self.exp("qr"), tokens, (2898.0, self.largest("qr")), caps[1]),
        ];
        for (name, from, exp, count, (actual, by_width), cap) in sums {
            let sum = |factor: f64| count * factor * peak(self, from);
            let term = Term { exp: self.exp(from) + exp, field: sum(by_width), actual: sum(actual), knob: gradient(from) };
            let target = self.gradient_target(name, self.gradient_bits(name)).min(cap);
            self.gradient_op(name, vec![term], target)?;
        }
        for (name, from) in [("dq", "dqr"), ("dk", "dkr")] {
            let bits = self.gradient_bits(name).min(self.gradient_bits(from));
            let term = Term { exp: 0, field: peak(self, from) * 8193.0 * 2.0, actual: 0.0, knob: gradient(from) };
            let max = term.field;
            self.finish(name, Op { shift: ROPE_BITS, bits, rounding: Rounding::Clamp, coefs: vec![1] }, &[term], max)?;
            let exp = self.exp(from);
            self.sem.exps.insert(name.to_owned(), exp);
        }
        self.gather("n1.dn", &[(Site::Q, "dq", "dq"), (Site::K, "dk", "dk"), (Site::V, "dv", "dv")])?;
        self.norm_back("n1", Some("gin"))
    }

    /// The largest value that an operation's width allows.
    fn largest(&self, name: &str) -> f64 {
        self.sem.ops.get(name).map_or(0.0, |op| pow2(op.bits - 1))
    }

    fn score_gradient(&mut self, context: f64) -> Result<(), Stop> {
        let peak = pow2(self.gradient_bits("dp") - 1);
        let sum = (4096.0 + context) * peak;
        let term = Term { exp: PROB_BITS as i32 + self.exp("dp"), field: sum, actual: sum, knob: gradient("dp") };
        let (rounding, quotient, target) = (Rounding::Exact, Quotient::Proven, i32::MAX);
        self.solve(Request { name: "att.dot", terms: vec![term], target, bits: 16, rounding, quotient })?;
        let (coefs, sum_exp) = align(&[self.exp("dp"), self.exp("att.dot")], 0);
        let max = 4096.0 * (coefs[0] as f64 * peak + coefs[1] as f64 * 32768.0);
        let bits = self.gradient_bits("ds");
        // Scores' gradients have the heaviest tail and their largest values carry the gradient: saturation would cost more than rounding.
        let target = fitting_exponent(self.ranges.extreme("ds"), bits, 0.9);
        let shift = (sum_exp + PROB_BITS as i32 - target).max(1) as u32;
        let op = Op { shift, bits, rounding: Rounding::Clamp, coefs };
        debug_assert!(field_bound(&op, false, max).0 > 0.0);
        if least_shift(max, 16) > shift {
            self.calibrated.push("ds".to_owned());
        }
        let knob = Term { exp: 0, field: 4096.0 * peak, actual: 0.0, knob: gradient("dp") };
        self.finish("ds", op, &[knob], max)?;
        self.sem.exps.insert("ds".to_owned(), sum_exp + PROB_BITS as i32 - shift as i32);
        Ok(())
    }
}
