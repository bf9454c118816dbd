//! The backward pass: the gradient of the answer's loss at every LoRA site's output.

use super::gadget::{Bound, Layers, Scaled, UnitPart};
use super::{Axes, Builder, RelationError, product, public};
use crate::ir::{Coupling, Factor, Index, int};
use crate::public::Public;
use model_runtime::int::backward::gradient_length;
use model_runtime::semantics::OUT_PROB_BITS;
use model_runtime::shape::Site;

impl Builder<'_> {
    /// Everything from the output probabilities to `gin`.
    pub(super) fn backward(&mut self) -> Result<(), RelationError> {
        let Axes { l, t, d, .. } = self.x;
        self.output_gradient()?;
        self.trace("gout", &[l, t, d]);
        // Equal to `ghf` or to another layer's `gin`.
        let length = gradient_length(self.sem).map_err(|_| super::missing("constant within bounds", "ghf.length"))?.log();
        let bits = (length + self.lift()?).max(self.op("gin")?.bits - 1);
        self.bounded("gout", 1 << bits);
        self.feed_forward_gradient()?;
        self.norm_step("n2", "gm", "gout", Layers::All)?;
        self.attention_gradient()?;
        self.attention_input_gradient()?;
        // Nothing reads the first layer's.
        self.norm_step("n1", "gin", "gm", Layers::AfterFirst)?;
        self.layer_gradients()
    }

    /// `pr - 2^14·target`, through the head and the final norm, each slot's part brought to one length.
    fn output_gradient(&mut self) -> Result<(), RelationError> {
        let Axes { b, s, v, d, .. } = self.x;
        let coef = self.coef("nf.dn", 0)?;
        let target = public(Public::Target, &[b, s, v]);
        let acc = vec![
            (coef, product([self.read("head"), self.read("pr")])),
            (coef.saturating_mul(-(1 << OUT_PROB_BITS)), product([self.read("head"), target])),
        ];
        // Σ_v |q - e_t| of a slot: two, and the roundings of all probabilities.
        let head = self.sem.weight_bits.get("head").copied().ok_or_else(|| super::missing("width", "head"))?;
        let mass = (1 << (OUT_PROB_BITS + 1)) + self.sem.shape.vocab as i64 / 2 + 8;
        let bound = (mass << (head - 1)).saturating_mul(coef.saturating_abs());
        self.requantise_bounded("nf.dn", &[b, s, d], acc, Bound::Argued(bound))?;
        self.norm_backward("nf", &[b, s])?;
        let unit = gradient_length(self.sem).map_err(|_| super::missing("constant within bounds", "ghf.length"))?;
        self.unit("ghf", &[b, s], &[UnitPart { input: "nf.v", output: "ghf", entries: &[d] }], unit)
    }

    /// `gout[l] = gin[l+1]`; the last layer's is `2^lift·ghf` at the answer's positions.
    fn layer_gradients(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, d, s, .. } = self.x;
        let last = (1 << self.out.axes[l.0].log) - 1;
        let scattered = product([public(Public::Select, &[b, s, t]), self.read("ghf")]).coupled(l, Coupling::Only(last));
        let scattered = scattered.times(int(1 << self.lift()?));
        let next = product([self.read("gin")]).coupled(l, Coupling::Previous);
        let gradient = product([self.read("gout")]);
        self.equal("layer gradients are chained", &[b, l, t, d], vec![scattered, next], gradient);
        Ok(())
    }

    fn lift(&self) -> Result<u32, RelationError> {
        let lift = u32::try_from(self.constant("ghf.lift")?).ok().filter(|lift| *lift <= 12);
        lift.ok_or_else(|| super::missing("constant of at most 12", "ghf.lift"))
    }

    /// Norm backward of `x` and the residual: `y = 2^s·stream + v·fb`.
    fn norm_step(&mut self, x: &str, y: &str, stream: &str, layers: Layers) -> Result<(), RelationError> {
        let Axes { b, l, t, d, .. } = self.x;
        self.norm_backward(x, &[b, l, t])?;
        self.coarse_factor(x, &[b, l, t])?;
        let acc = vec![
            (self.skip_coef(y)?, product([self.read(stream)])),
            (self.coef(y, 1)?, product([self.read(&format!("{x}.v")), self.read(&format!("{x}.fb"))])),
        ];
        self.requantise_where(y, &[b, l, t, d], acc, Bound::Widths, layers)
    }

    /// `Wᵀ dy` and, if the site carries LoRA, `coef·Aᵀ (Bᵀ dy)`; declares `e`. Coefficients `first` (W) and `lora` of `op`.
    fn transposed(&mut self, site: Site, op: &str, dy: &str, first: usize, lora: usize) -> Result<Vec<Scaled>, RelationError> {
        let name = site.name();
        let mut terms = vec![(self.coef(op, first)?, product([self.read(&format!("w{name}")), self.read(dy)]))];
        if self.sem.sites().contains(&site) {
            let Axes { b, l, t, r, .. } = self.x;
            let e = format!("e{name}");
            let down = product([self.read(&format!("b{name}")), self.read(dy)]);
            self.requantise_term(&e, &[b, l, t, r], down)?;
            terms.push((self.coef(op, lora)?, product([self.read(&format!("a{name}")), self.read(&e)])));
        }
        Ok(terms)
    }

    fn feed_forward_gradient(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, f, d, .. } = self.x;
        let free = [b, l, t, f];
        let acc = self.transposed(Site::Down, "dact", "gout", 0, 1)?;
        self.requantise("dact", &free, acc)?;
        for (name, x, y) in [("dup", "dact", "silu"), ("dgw", "dact", "up"), ("dgate", "dgw", "dsilu")] {
            let gated = product([self.read(x), self.read(y)]);
            self.requantise_term(name, &free, gated)?;
        }
        let mut acc = self.transposed(Site::Gate, "n2.dn", "dgate", 0, 2)?;
        acc.extend(self.transposed(Site::Up, "n2.dn", "dup", 1, 3)?);
        self.requantise("n2.dn", &[b, l, t, d], acc)
    }

    fn attention_gradient(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, u, g, j, z, p, .. } = self.x;
        let (rows, cells) = ([b, l, g, j, t], [b, l, g, j, t, u]);
        let acc = self.transposed(Site::O, "do", "gm", 0, 1)?;
        self.requantise("do", &[b, l, t, g, j, z, p], acc)?;
        let inner = product([self.read("do"), self.read_keys("v")]);
        self.requantise_term("dp", &cells, inner)?;
        let coef = self.coef("att.dot", 0)?;
        let acc = vec![(coef, product([self.read("p"), self.read("dp")]))];
        // Σ_u p ≤ 2^12·(1 + 2^-13) + T/2.
        let bound = (((1 << 12) + 1 + self.params.tokens as i64 / 2) << (self.op("dp")?.bits - 1)).saturating_mul(coef.saturating_abs());
        self.requantise_bounded("att.dot", &rows, acc, Bound::Argued(bound))?;
        let (c0, c1) = (self.coef("ds", 0)?, self.coef("ds", 1)?);
        let acc = vec![(c0, product([self.read("p"), self.read("dp")])), (-c1, product([self.read("p"), self.read("att.dot")]))];
        self.requantise("ds", &cells, acc)
    }

    /// A query-side sum read as a key-side tensor: the key axis plays the token axis and the other way round.
    fn by_key(&self, name: &str) -> Factor {
        let Axes { t, u, .. } = self.x;
        self.read_as(name, &[(t, Index::Var(u)), (u, Index::Var(t))])
    }

    fn attention_input_gradient(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, t, g, j, z, p, d, .. } = self.x;
        let (query, key) = ([b, l, t, g, j, z, p], [b, l, t, g, z, p]);
        let outer = product([self.by_key("p"), self.by_key("do")]);
        self.requantise_term("dv", &key, outer)?;
        let outer = product([self.read("ds"), self.read_keys("kr")]);
        self.requantise_term("dqr", &query, outer)?;
        let outer = product([self.by_key("ds"), self.by_key("qr")]);
        self.requantise_term("dkr", &key, outer)?;
        for (name, from, free) in [("dq", "dqr", &query[..]), ("dk", "dkr", &key[..])] {
            let acc = self.rotate(from, self.coef(name, 0)?, Public::SinInverse);
            self.requantise(name, free, acc)?;
        }
        let mut acc = Vec::new();
        for (i, (site, dy)) in [(Site::Q, "dq"), (Site::K, "dk"), (Site::V, "dv")].into_iter().enumerate() {
            acc.extend(self.transposed(site, "n1.dn", dy, i, 3 + i)?);
        }
        self.requantise("n1.dn", &[b, l, t, d], acc)
    }
}
