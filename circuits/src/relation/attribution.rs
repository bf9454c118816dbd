//! Sketches, index rows, scores, relevance and contributors' weights.

use super::gadget::{Bound, UnitPart};
use super::{Aggregation, Axes, Builder, Purpose, RelationError, WeightRanges, constant, product, public};
use crate::ir::{Axis, F, Group, Index, Sum, Term, int};
use crate::public::Public;
use crate::table::TableKind;
use model_runtime::int::index::SCORE_BITS;
use model_runtime::int::sketch::{site_activation, site_gradient, sketch_length};
use model_runtime::shape::Site;
use model_runtime::tables::Side;
use p3_field::PrimeCharacteristicRing;

/// Relevances are below `2^13`: no score exceeds `(T + δ)/2^shift < 2^14`, and relevance begins at half the best.
pub(super) const RELEVANCE_BITS: u32 = SCORE_BITS - 1;

impl Builder<'_> {
    /// Everything from the sites' gradients to the contributors' weights.
    pub(super) fn attribution(&mut self) -> Result<(), RelationError> {
        let Axes { b, i, .. } = self.x;
        self.tensor("contributor", Group::Index, &[i]);
        for &site in self.sem.sketched() {
            self.sketch(site)?;
        }
        self.query()?;
        self.index_rows()?;
        if self.purpose == Purpose::Rows {
            self.sketches_are_rows();
            return Ok(());
        }
        self.scores()?;
        self.best()?;
        self.relevance();
        self.aggregate(&[b, i]);
        Ok(())
    }

    fn sketch(&mut self, site: Site) -> Result<(), RelationError> {
        let Axes { b, l, t, r, a, k, .. } = self.x;
        let name = site.name();
        let outputs = self.site_axes(site).0;
        let axes: Vec<Axis> = std::iter::once(a).chain(outputs).collect();
        let projected = product([public(Public::Projection(site, Side::Output), &axes), self.read(site_gradient(site))]);
        let pd = format!("pd{name}");
        self.requantise_term(&pd, &[b, l, t, a], projected)?;
        let activation = if self.sem.sketch.as_ref().is_some_and(|x| x.ranks.is_some()) {
            let ru = site_activation(self.sem, site);
            let projected = product([public(Public::Projection(site, Side::Rank), &[k, r]), self.read(&format!("u{name}"))]);
            self.requantise_term(&ru, &[b, l, t, k], projected)?;
            self.read(&ru)
        } else {
            self.read_as(&format!("u{name}"), &[(r, Index::Var(k))])
        };
        let outer = product([self.read(&pd), activation]);
        self.requantise_term(&format!("sk{name}"), &[b, l, a, k], outer)
    }

    /// The query's sketch, brought to the length of index rows.
    fn query(&mut self) -> Result<(), RelationError> {
        let Axes { b, l, a, k, .. } = self.x;
        let names: Vec<(String, String)> = self.sem.sketched().iter().map(|s| (format!("sk{}", s.name()), format!("qs{}", s.name()))).collect();
        let entries = [l, a, k];
        let parts: Vec<UnitPart<'_>> = names.iter().map(|(input, output)| UnitPart { input, output, entries: &entries }).collect();
        self.unit("qs", &[b], &parts, sketch_length(self.sem))
    }

    /// Every row of the index has the length, or is zero.
    fn index_rows(&mut self) -> Result<(), RelationError> {
        let Axes { i, l, a, k, .. } = self.x;
        let unit = sketch_length(self.sem);
        let registered = self.params.weight_ranges == WeightRanges::Registered;
        self.tensor("G.live", Group::Index, &[i]);
        if !registered {
            self.range("G.live", 1);
        }
        let mut squares = vec![product([self.read("G.live")]).times(int(unit.slack() - unit.target()))];
        for &site in self.sem.sketched() {
            let name = format!("G{}", site.name());
            self.weight_of_bits(&name, unit.log() + 1, Group::Index, &[i, l, a, k])?;
            if registered {
                continue;
            }
            let all = [i, l, a, k];
            let dead = vec![product([self.read(&name)]), product([self.read(&name), self.read("G.live")]).times(-F::ONE)];
            self.constrain(&format!("{name} is zero in rows that don't earn"), Sum { free: all.to_vec(), terms: dead });
            squares.push(product([self.read(&name), self.read(&name)]));
        }
        if !registered {
            self.look_up("index rows have their length", TableKind::Range(unit.slack_log()), &[i], vec![squares]);
        }
        Ok(())
    }

    /// The index by itself: its rows have their length or are zero, they are zero where they don't earn, and contributors are the stated ones.
    pub(super) fn index_form(&mut self) -> Result<(), RelationError> {
        let Axes { i, l, a, k, .. } = self.x;
        self.tensor("contributor", Group::Index, &[i]);
        let stated = product([public(Public::Contributor, &[i])]);
        let contributor = product([self.read("contributor")]);
        self.equal("contributors are the stated ones", &[i], vec![stated], contributor);
        self.index_rows()?;
        for &site in self.sem.sketched() {
            let name = format!("G{}", site.name());
            let row = product([self.read(&name), public(Public::Earns, &[i])]);
            let whole = product([self.read(&name)]);
            self.equal(&format!("{name} is zero in rows that nobody proves"), &[i, l, a, k], vec![row], whole);
        }
        Ok(())
    }

    /// Each request's sketch, at its length, is its row.
    fn sketches_are_rows(&mut self) {
        let Axes { b, i, l, a, k, .. } = self.x;
        for &site in self.sem.sketched() {
            let row = product([public(Public::Row, &[b, i]), self.read(&format!("G{}", site.name()))]);
            let sketch = product([self.read(&format!("qs{}", site.name()))]);
            self.equal(&format!("G{} is the samples' sketch", site.name()), &[b, l, a, k], vec![row], sketch);
        }
    }

    /// `score = RQ(Σ G·qs)`: both have lengths within `T ± δ`, so scores are below `2^14` (Cauchy-Schwarz).
    fn scores(&mut self) -> Result<(), RelationError> {
        let Axes { b, i, .. } = self.x;
        let unit = sketch_length(self.sem);
        let op = self.op("score")?;
        if op.shift != (2 * unit.log() - SCORE_BITS).max(1) || op.coefs != [1] {
            let found = format!("{op:?}");
            return Err(RelationError::Parameter {
                what: "operation `score`".into(),
                found,
                expected: "the shift of the sketch's length, coefficient 1",
            });
        }
        let term = |b: &Self, site: &Site| (1, product([b.read(&format!("G{}", site.name())), b.read(&format!("qs{}", site.name()))]));
        let acc = self.sem.sketched().iter().map(|site| term(self, site)).collect();
        self.trace("score", &[i]);
        let quotient = self.quotient("score", "score", &[b, i], acc, Bound::Widths)?;
        let score = product([self.read("score")]);
        self.equal("score is rounded", &[b, i], quotient, score);
        self.signed_range("score", 16);
        Ok(())
    }

    /// `m = max(2θ, max score)`: nothing exceeds it, and something attains it.
    fn best(&mut self) -> Result<(), RelationError> {
        let Axes { b, i, .. } = self.x;
        let theta = self.constant("theta")?;
        if !(0..1 << SCORE_BITS).contains(&theta) {
            return Err(RelationError::Parameter { what: "noise floor theta".into(), found: theta.to_string(), expected: "0 to 16383" });
        }
        for name in ["best", "best.half", "best.odd", "best.floor"] {
            self.trace(name, &[]);
        }
        self.trace("best.top", &[i]);
        self.range("best.half", 15);
        self.range("best.odd", 1);
        let halves = vec![product([self.read("best.half")]).times(int(2)), product([self.read("best.odd")])];
        let best = product([self.read("best")]);
        self.equal("the best score is halved", &[b], halves, best.clone());
        let below = vec![best.clone(), product([self.read("score")]).times(-F::ONE)];
        self.look_up("no score exceeds the best", TableKind::Range(16), &[b, i], vec![below]);
        self.look_up("the best isn't below the floor", TableKind::Range(16), &[b], vec![vec![best, constant(-2 * theta)]]);
        // What is marked attains it, and the marks add up to one, so something is marked.
        let marked = vec![product([self.read("best.top"), self.read("best")]), product([self.read("best.top"), self.read("score")]).times(-F::ONE)];
        self.constrain("marked rows attain the best", Sum { free: vec![b, i], terms: marked });
        let floor = vec![product([self.read("best.floor"), self.read("best")]), product([self.read("best.floor")]).times(int(-2 * theta))];
        self.constrain("a marked floor attains the best", Sum { free: vec![b], terms: floor });
        let one = vec![product([self.read("best.top")]), product([self.read("best.floor")]), constant(-1)];
        self.constrain("the best is attained", Sum { free: vec![b], terms: one });
        Ok(())
    }

    /// `rel = max(0, score - ⌊m/2⌋)`.
    fn relevance(&mut self) {
        let Axes { b, i, .. } = self.x;
        self.trace("rel", &[i]);
        self.bounded("rel", 1 << 15);
        let above = vec![product([self.read("score")]), product([self.read("best.half")]).times(-F::ONE)];
        let relevance = product([self.read("rel")]);
        self.look_up("scores above half the best", TableKind::Relu, &[b, i], vec![above, vec![relevance]]);
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
