//! Sketches, preconditioner, scores, policy and contributors' weights.

use super::gadget::Bound;
use super::{Aggregation, Axes, Builder, Padding, RelationError, constant, product, public};
use crate::ir::{Axis, Group, Index, Sum, Term, int};
use crate::public::Public;
use crate::table::TableKind;
use model_runtime::int::sketch::site_gradient;
use model_runtime::shape::Site;

/// The preconditioner's residual is below the scale shifted right by this.
const RESIDUAL_SHARE_LOG: u32 = 3;

impl Builder<'_> {
    /// Everything from the sites' gradients to the contributors' weights.
    pub(super) fn attribution(&mut self) -> Result<(), RelationError> {
        let Axes { b, i, .. } = self.x;
        self.tensor("contributor", Group::Index, &[i]);
        let mut score = Vec::new();
        for (i, &site) in self.sem.sites().iter().enumerate() {
            self.sketch(site)?;
            self.index_tensors(site)?;
            self.preconditioner(site)?;
            score.push((self.coef("score", i)?, self.score_term(site)?));
        }
        let free = [b, i];
        let score = self.quotient("score", "score", &free, score, Bound::Widths)?;
        self.trace("rel", &[i]);
        let theta = self.constant("theta")?;
        if !(0..1 << 15).contains(&theta) {
            return Err(RelationError::Parameter { what: "noise floor theta".into(), found: theta.to_string(), expected: "0 to 32767" });
        }
        self.bounded("rel", 1 << 15);
        let relevance = product([self.read("rel")]);
        self.look_up("scores above the noise floor", TableKind::Relu(theta), &free, vec![score, vec![relevance]]);
        self.aggregate(&free);
        Ok(())
    }

    fn sketch(&mut self, site: Site) -> Result<(), RelationError> {
        let Axes { b, l, t, a, r, .. } = self.x;
        let name = site.name();
        let outputs = self.site_axes(site).0;
        let axes: Vec<Axis> = std::iter::once(a).chain(outputs).collect();
        let projected = product([public(Public::Projection(site), &axes), self.read(site_gradient(site))]);
        let pd = format!("pd{name}");
        self.requantise_term(&pd, &[b, l, t, a], projected)?;
        let outer = product([self.read(&pd), self.read(&format!("u{name}"))]);
        self.requantise_term(&format!("sk{name}"), &[b, l, a, r], outer)
    }

    fn index_tensors(&mut self, site: Site) -> Result<(), RelationError> {
        let Axes { l, a, r, a2, r2, i, .. } = self.x;
        let name = site.name();
        self.weight(&format!("G{name}"), Group::Index, &[i, l, a, r], Padding::Zero)?;
        // A preconditioner inverts `λ·I` in the padding; what it multiplies is zero there.
        self.weight(&format!("M{name}"), Group::Index, &[l, a, r, a2, r2], Padding::Free)?;
        let gram = format!("H{name}");
        let bits = self.op(&gram)?.bits;
        self.weight_of_bits(&gram, bits, Group::Index, &[l, a, r, a2, r2], Padding::Zero)
    }

    /// `H = RQ(GᵀG)` and `(H + λ)·M = c·I + residual`.
    fn preconditioner(&mut self, site: Site) -> Result<(), RelationError> {
        let Axes { l, a, r, a2, r2, a3, r3, .. } = self.x;
        let name = site.name();
        let (g, h, m) = (format!("G{name}"), format!("H{name}"), format!("M{name}"));
        let free = [l, a, r, a2, r2];
        let second = self.read_as(&g, &[(a, Index::Var(a2)), (r, Index::Var(r2))]);
        let gram = vec![product([self.read(&g), second])];
        self.gram_quotient(&h, &free, gram)?;
        let lambda = self.constant(&format!("lambda.{name}"))?;
        let scale = self.constant(&format!("m_scale.{name}"))?;
        if !(1..1 << 24).contains(&lambda) || !(1 << 8..=1 << 24).contains(&scale) || scale.count_ones() != 1 {
            return Err(RelationError::Parameter {
                what: format!("preconditioner of `{name}`"),
                found: format!("damping {lambda}, scale {scale}"),
                expected: "damping 1 to 2^24, scale a power of two from 2^8 to 2^24",
            });
        }
        // The residual stays within an eighth of the scale.
        let half = scale.min(1 << 18) >> RESIDUAL_SHARE_LOG;
        let (row, column) = ([(a2, Index::Var(a3)), (r2, Index::Var(r3))], [(a, Index::Var(a3)), (r, Index::Var(r3))]);
        let residual = vec![
            product([self.read_as(&h, &row), self.read_as(&m, &column)]),
            product([self.read(&m)]).times(int(lambda)),
            product([public(Public::Identity, &[a, r, a2, r2])]).times(int(-scale)),
            constant(half),
        ];
        let bound = self.bound(&free, &[(1, &residual[0]), (lambda, &residual[1]), (scale, &residual[2])])?;
        self.check_bound(&m, 1, bound, 1 << 16)?;
        self.look_up(&format!("{m} inverts {h}"), TableKind::Range((2 * half).trailing_zeros()), &free, vec![residual]);
        Ok(())
    }

    /// `h = RQe(acc)` for a tensor of the index, whose remainder lives there too.
    fn gram_quotient(&mut self, h: &str, free: &[Axis], acc: Vec<Term>) -> Result<(), RelationError> {
        let shift = self.op(h)?.shift;
        if self.coef(h, 0)? != 1 {
            return Err(RelationError::Parameter { what: format!("coefficient of `{h}`"), found: self.coef(h, 0)?.to_string(), expected: "1" });
        }
        self.check_bound(h, shift, self.bound(free, &[(1, &acc[0])])?, 1 << 15)?;
        let remainder = format!("{h}.r");
        self.tensor(&remainder, Group::Index, free);
        self.range(&remainder, shift);
        let mut terms = acc;
        terms.push(constant(1 << (shift - 1)));
        terms.push(product([self.read(&remainder)]).times(int(-1)));
        let output = product([self.read(h)]).times(int(1 << shift));
        self.equal(&format!("{h} is the Gram matrix"), free, terms, output);
        Ok(())
    }

    fn score_term(&mut self, site: Site) -> Result<Term, RelationError> {
        let Axes { b, l, a, r, a2, r2, .. } = self.x;
        let name = site.name();
        let sketch = self.read_as(&format!("sk{name}"), &[(a, Index::Var(a2)), (r, Index::Var(r2))]);
        let mq = format!("mq{name}");
        let conditioned = product([self.read(&format!("M{name}")), sketch]);
        self.requantise_term(&mq, &[b, l, a, r], conditioned)?;
        Ok(product([self.read(&format!("G{name}")), self.read(&mq)]))
    }

    /// Sums the relevance of true rows by (request, contributor); the public side holds the published weights.
    fn aggregate(&mut self, free: &[Axis]) {
        let Axes { b, i, c, .. } = self.x;
        let sum = |term: Term| Sum { free: free.to_vec(), terms: vec![term] };
        let real = public(Public::Below(self.params.rows), &[i]);
        self.out.aggregation = Some(Aggregation {
            free: free.to_vec(),
            value: sum(product([self.read("rel"), real])),
            key: [sum(product([public(Public::RequestNumber, &[b])])), sum(product([self.read("contributor")]))],
            published: [b, c],
        });
    }
}
