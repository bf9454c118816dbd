//! The forward pass: the answer is the model's greedy continuation.

use super::gadget::{Bound, Scaled};
use super::{Axes, Builder, Purpose, RelationError, Scope, constant, product, public};
use crate::ir::{Axis, Coupling, F, Factor, Index, Sum, Term, int};
use crate::public::Public;
use crate::table::{TableKind, exp_is_strict};
use model_runtime::semantics::{OUT_PROB_BITS, PROB_BITS, RECIP_BITS, RESIDUAL_BITS};
use model_runtime::shape::Site;
use model_runtime::tables::EXP_ONE;
use p3_field::PrimeCharacteristicRing;

/// `e·f ≤ S·f ≤ 2^28·(1 + 2^-14) + S/2` with `S < 2^16` where the exponent is 0: a softmax weight times its row's factor.
const PRODUCT_MAX: i64 = (1 << RECIP_BITS) + (1 << 16);

impl Builder<'_> {
    /// Everything from the tokens to the output probabilities.
    pub(super) fn forward(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, d, .. } = self.x;
        self.trace("hin", &[l, t, d]);
        self.bounded("hin", 1 << (RESIDUAL_BITS - 1));
        self.norm("n1", "hin", &[b, l, t])?;
        self.attention_inputs()?;
        self.attention_weights()?;
        self.attention_output()?;
        self.norm("n2", "m", &[b, l, t])?;
        self.feed_forward()?;
        self.layer_inputs();
        self.output()
    }

    /// `hin[0]` is the embedding, `hin[l+1]` is `hout[l]`.
    fn layer_inputs(&mut self) {
        let Axes { b, l, t, v, d, .. } = self.x;
        let embedding = product([public(Public::Token, &[b, t, v]), self.read("embed")]).coupled(l, Coupling::Only(0));
        let previous = product([self.read("hout")]).coupled(l, Coupling::Next);
        let input = product([self.read("hin")]);
        self.equal("layers are chained", &[b, l, t, d], vec![embedding, previous], input);
    }

    /// `W x` and, if the site carries LoRA, `coef·B (A x)`; declares `u`. `rows` are the free axes before the output's.
    pub(super) fn linear(&mut self, site: Site, op: &str, input: &str, first: usize) -> Result<Vec<Scaled>, RelationError> {
        let name = site.name();
        let weight = product([self.read(&format!("w{name}")), self.read(input)]);
        let mut terms = vec![(self.coef(op, first)?, weight)];
        if self.sem.sites().contains(&site) {
            let Axes { b, l, t, r, .. } = self.x;
            let down = product([self.read(&format!("a{name}")), self.read(input)]);
            let u = format!("u{name}");
            self.requantise_term(&u, &[b, l, t, r], down)?;
            let up = product([self.read(&format!("b{name}")), self.read(&u)]);
            terms.push((self.coef(op, first + 1)?, up));
        }
        Ok(terms)
    }

    fn attention_inputs(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, g, j, z, p, .. } = self.x;
        for (site, free) in [(Site::Q, vec![b, l, t, g, j, z, p]), (Site::K, vec![b, l, t, g, z, p]), (Site::V, vec![b, l, t, g, z, p])] {
            let acc = self.linear(site, site.name(), "n1.n", 0)?;
            self.requantise(site.name(), &free, acc)?;
            if site != Site::V {
                let name = format!("{}r", site.name());
                let rotated = self.rotate(site.name(), self.coef(&name, 0)?, Public::SinForward);
                self.requantise(&name, &free, rotated)?;
            }
        }
        Ok(())
    }

    /// `x·cos + flip(x)·sin` with the signed sine table.
    pub(super) fn rotate(&self, x: &str, coef: i64, sine: Public) -> Vec<Scaled> {
        let Axes { t, z, p, .. } = self.x;
        vec![
            (coef, product([self.read(x), public(Public::Cos, &[t, p])])),
            (coef, product([self.read_as(x, &[(z, Index::Flip(z))]), public(sine, &[t, z, p])])),
        ]
    }

    /// A key-side tensor, read with the key axis instead of the token axis.
    pub(super) fn read_keys(&self, name: &str) -> Factor {
        self.read_as(name, &[(self.x.t, Index::Var(self.x.u))])
    }

    fn attention_weights(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, u, g, j, .. } = self.x;
        let rows = [b, l, g, j, t];
        let cells = [b, l, g, j, t, u];
        for name in ["att.w", "att.flag"] {
            self.trace(name, &cells[1..]);
        }
        self.trace("att.max", &rows[1..]);
        let acc = vec![(self.coef("att", 0)?, product([self.read("qr"), self.read_keys("kr")]))];
        // A score is an integer because the maximum is one and the gap is one; hence the wider range.
        let score = self.quotient_within("att", "att", &cells, acc, Bound::Widths, 3 << 15)?;
        self.signed_range("att.max", 16);
        let causal = || vec![product([public(Public::Causal, &[t, u])])];
        let (weight, flag) = (self.read("att.w"), self.read("att.flag"));
        let tuple = vec![below_max(self.read("att.max"), score), vec![product([weight.clone()])], vec![product([flag.clone()])]];
        self.look_up_where("attention weights", TableKind::Exp(self.exponent("att.exp_bits")?), &cells, Some(causal()), tuple);
        for (name, factor) in [("attention is causal", &weight), ("attention flags are causal", &flag)] {
            let terms = vec![product([factor.clone()]), product([factor.clone(), public(Public::Causal, &[t, u])]).times(-F::ONE)];
            self.constrain(name, Sum { free: cells.to_vec(), terms });
        }
        // The maximum is attained: at least one flag a row.
        let attained = vec![product([flag]), constant(-1)];
        self.look_up("attention maximum is attained", TableKind::Range(14), &rows, vec![attained]);
        self.softmax_row("att", &rows, weight)?;
        self.expect_shift("p", RECIP_BITS - PROB_BITS)?;
        let acc = self.times_factor("att", || self.read("att.w"));
        self.requantise_unsigned("p", &cells, acc, Bound::Argued(PRODUCT_MAX))?;
        // (e·f + 2^15) >> 16 of a product up to PRODUCT_MAX: tighter than the range check.
        self.bounded("p", (PRODUCT_MAX >> (RECIP_BITS - PROB_BITS)) + 1);
        Ok(())
    }

    /// Probabilities have a fixed point that later bounds rely on.
    fn expect_shift(&self, op: &str, shift: u32) -> Result<(), RelationError> {
        match self.op(op)?.shift == shift && self.coef(op, 0)? == 1 {
            true => Ok(()),
            false => Err(RelationError::Parameter {
                what: format!("operation `{op}`"),
                found: format!("{:?}", self.op(op)?),
                expected: "the probabilities' shift and coefficient 1",
            }),
        }
    }

    fn attention_output(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, d, g, j, z, p, .. } = self.x;
        let coef = self.coef("o", 0)?;
        let acc = vec![(coef, product([self.read("p"), self.read_keys("v")]))];
        // Σ_u p ≤ 2^12·(1 + 2^-13) + T/2.
        let bound = (((1 << 12) + 1 + self.params.tokens as i64 / 2) << (self.op("v")?.bits - 1)).saturating_mul(coef.saturating_abs());
        self.requantise_bounded("o", &[b, l, t, g, j, z, p], acc, Bound::Argued(bound))?;
        let acc = self.residual("m", "hin", Site::O, "o")?;
        self.requantise("m", &[b, l, t, d], acc)
    }

    /// `2^s·stream + W x (+ LoRA)`.
    fn residual(&mut self, op: &str, stream: &str, site: Site, input: &str) -> Result<Vec<Scaled>, RelationError> {
        let skip = (self.skip_coef(op)?, product([self.read(stream)]));
        let mut terms = self.linear(site, op, input, 1)?;
        terms.push(skip);
        Ok(terms)
    }

    /// `2^s`, the residual stream's coefficient; the semantics must say the same.
    pub(super) fn skip_coef(&self, op: &str) -> Result<i64, RelationError> {
        let (stated, expected) = (self.coef(op, 0)?, 1i64 << self.op(op)?.shift);
        if stated != expected {
            return Err(RelationError::Parameter {
                what: format!("coefficient of the stream in `{op}`"),
                found: stated.to_string(),
                expected: "2^shift",
            });
        }
        Ok(stated)
    }

    fn feed_forward(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, f, d, .. } = self.x;
        let free = [b, l, t, f];
        for name in ["silu", "dsilu"] {
            self.trace(name, &free[1..]);
        }
        let acc = self.linear(Site::Gate, "gate", "n2.n", 0)?;
        let gate = self.quotient("gate", "gate", &free, acc, Bound::Widths)?;
        self.bounded("silu", 1 << 11);
        self.bounded("dsilu", 1 << 11);
        let kind = TableKind::Silu(self.exponent("gate")?, self.exponent("silu")?, self.exponent("dsilu")?);
        let tuple = vec![gate, vec![product([self.read("silu")])], vec![product([self.read("dsilu")])]];
        self.look_up("gate activation", kind, &free, tuple);
        let acc = self.linear(Site::Up, "up", "n2.n", 0)?;
        self.requantise("up", &free, acc)?;
        let gated = product([self.read("silu"), self.read("up")]);
        self.requantise_term("act", &free, gated)?;
        let acc = self.residual("hout", "m", Site::Down, "act")?;
        self.requantise("hout", &[b, l, t, d], acc)
    }

    /// Whether the answer is the model's greedy one: a request's is, a sample's need not be.
    fn is_greedy(&self) -> bool {
        self.purpose == Purpose::Requests
    }

    /// Selected positions, final norm, logits, greedy choice, probabilities.
    fn output(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, d, s, v, .. } = self.x;
        let last = (1 << self.out.axes[l.0].log) - 1;
        self.trace("hf", &[s, d]);
        self.bounded("hf", 1 << (RESIDUAL_BITS - 1));
        let selected = product([public(Public::Select, &[b, s, t]), self.read_as("hout", &[(l, Index::At(last))])]);
        let hf = product([self.read("hf")]);
        self.equal("answer positions are selected", &[b, s, d], vec![selected], hf);
        self.norm("nf", "hf", &[b, s])?;
        self.logits(&[b, s, v], &[b, s])
    }

    /// The best of the tokens other than the target, and where a gradient follows their softmax. Of requests the target is greedy: every other
    /// token's logit is at most its own.
    fn logits(&mut self, cells: &[Axis], rows: &[Axis]) -> Result<(), RelationError> {
        let Axes { b, s, v, .. } = self.x;
        self.trace("out.max", &rows[1..]);
        if self.is_greedy() {
            self.trace("out.margin", &rows[1..]);
            self.trace("out.tie", &rows[1..]);
        }
        self.trace("out.w", &cells[1..]);
        self.trace("out.flag", &cells[1..]);
        self.signed_range("out.max", 16);
        if self.is_greedy() {
            self.range("out.margin", 16);
            self.range("out.tie", 1);
        }
        let acc = vec![(self.coef("out", 0)?, product([self.read("head"), self.read("nf.n")]))];
        let logit = self.quotient_within("out", "out", cells, acc, Bound::Widths, 3 << 15)?;
        let exponent = self.exponent("out.exp_bits")?;
        if !exp_is_strict(exponent) {
            return Err(RelationError::Parameter {
                what: "exponent of `out.exp_bits`".into(),
                found: exponent.to_string(),
                expected: "one at which EXP(1) < EXP(0)",
            });
        }
        let (target, live) = (|| public(Public::Target, &[b, s, v]), || public(Public::Live, &[b, s, v]));
        let (weight, flag) = (self.read("out.w"), self.read("out.flag"));
        let gap = below_max(self.read("out.max"), logit);
        let dead = vec![product([weight.clone()]), product([weight.clone(), live()]).times(-F::ONE), product([weight.clone(), target()])];
        let attained = vec![product([live(), flag.clone()]), product([public(Public::LiveSlot, &[b, s])]).times(-F::ONE)];
        if self.is_greedy() {
            // At the target the row must be that of gap zero: its logit is exactly `max + margin`.
            let gap = [gap, vec![product([self.read("out.margin"), target()])]].concat();
            let tuple = vec![
                gap,
                vec![product([weight.clone()]), product([target()]).times(int(EXP_ONE.into()))],
                vec![product([flag.clone()]), product([target()])],
            ];
            self.look_up_where("output weights", TableKind::Exp(exponent), cells, Some(vec![product([live()])]), tuple);
            self.constrain("dead outputs and the target have no weight", Sum { free: cells.to_vec(), terms: dead });
            // The maximum of the others is attained in every live slot …
            self.look_up("output maximum is attained", TableKind::Range(16), rows, vec![attained]);
            // … and the target is above it, or equal if no lower token attains it.
            let below = product([public(Public::BelowTarget, &[b, s, v]), flag]).times(-F::ONE);
            let tied = vec![product([self.read("out.tie")]).times(int(1 << 16)), below];
            self.look_up("ties are told", TableKind::Range(16), rows, vec![tied]);
            let strict = vec![product([self.read("out.margin")]), product([self.read("out.tie")]).times(-F::ONE)];
            self.look_up("ties go to the lowest token", TableKind::Range(16), rows, vec![strict]);
        } else {
            // Nothing is asked of the target, whose logit nobody reads.
            let others = vec![product([live()]), product([target()]).times(-F::ONE)];
            let tuple = vec![gap, vec![product([weight.clone()])], vec![product([flag.clone()])]];
            self.look_up_where("output weights", TableKind::Exp(exponent), cells, Some(others), tuple);
            self.constrain("dead outputs and the target have no weight", Sum { free: cells.to_vec(), terms: dead });
            let attained = [attained, vec![product([target(), flag]).times(-F::ONE)]].concat();
            self.look_up("output maximum is attained", TableKind::Range(16), rows, vec![attained]);
        }
        if self.params.scope == Scope::Forward {
            return Ok(());
        }
        self.softmax_row("out", rows, weight)?;
        self.expect_shift("pr", RECIP_BITS - OUT_PROB_BITS)?;
        let acc = self.times_factor("out", || self.read("out.w"));
        self.requantise_unsigned("pr", cells, acc, Bound::Argued(PRODUCT_MAX))
    }
}

/// `max - score`.
fn below_max(max: Factor, score: Vec<Term>) -> Vec<Term> {
    let mut terms: Vec<Term> = score.into_iter().map(|t| t.times(-F::ONE)).collect();
    terms.push(product([max]));
    terms
}
