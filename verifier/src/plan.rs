//! The schedule both sides follow: how lookups are laid out, which sums are checked with which weight, and which evaluations that takes.
//!
//! Everything here is a function of the relation, the statement and the challenges; prover and verifier share it.

use circuits::ir::{Axis, Constraint, Coupling, EF, F, Factor, Group, Index, Source, Sum, TensorId, Term};
use circuits::layout::Layout;
use circuits::public::{PublicContext, eq_at, eq_points, eq_table, iota};
use circuits::relation::Relation;
use circuits::statement::Statement;
use circuits::table::TableKind;
use p3_field::{Field, PrimeCharacteristicRing};

/// Highest degree of the batched sumcheck's round polynomials: a weight and two factors.
pub const SUM_DEGREE: usize = 3;

/// What a block of the fraction table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockKind {
    /// The rows a lookup reads.
    Lookup(usize),
    /// A table's rows with minus their multiplicities.
    Table(usize),
    /// The aggregated values.
    Values,
    /// The published weights, negated.
    Published,
}

/// An aligned block of the fraction table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it holds.
    pub kind: BlockKind,
    /// Log size.
    pub log: usize,
    /// First leaf; a multiple of `2^log`.
    pub offset: usize,
}

/// The parts of a proof's schedule that don't depend on challenges.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The relation.
    pub relation: &'a Relation,
    /// Blocks of the fraction table.
    pub blocks: Vec<Block>,
    /// Variables of the fraction table.
    pub leaves_log: usize,
    /// Layout of each committed group.
    pub layouts: Vec<(Group, Layout)>,
    /// A sum reading each table's multiplicities.
    multiplicities: Vec<Sum>,
    /// Rounds of the batched sumcheck.
    pub sum_rounds: usize,
}

/// Challenges of the fraction table.
#[derive(Clone, Copy, Debug)]
pub struct LookupChallenges {
    /// Where denominators are evaluated; soundness error (leaves)/|EF|.
    pub alpha: EF,
    /// Combines a tuple's columns; soundness error (columns·leaves)/|EF|.
    pub beta: EF,
}

/// A sum with its weight in the batched sumcheck.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The sum.
    pub sum: &'a Sum,
    /// Its weight.
    pub weight: EF,
}

/// An evaluation that somebody has to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The tensor.
    pub tensor: TensorId,
    /// The point, coordinate by coordinate.
    pub point: Vec<EF>,
}

/// What the batched sumcheck has to add up to, given as terms with their weights.
pub struct Weighted<'a> {
    /// The sums.
    pub items: Vec<Item<'a>>,
    /// What the verifier subtracts from the fraction table's claims: everything public.
    pub known: EF,
}

impl<'a> Plan<'a> {
    /// The schedule of a relation.
    pub fn new(relation: &'a Relation) -> Self {
        let lookups = relation.lookups.iter().enumerate().map(|(i, l)| (BlockKind::Lookup(i), relation.log(&l.free)));
        let tables = relation.tables.iter().enumerate().map(|(i, (kind, _))| (BlockKind::Table(i), kind.log()));
        let aggregation = relation
            .aggregation
            .iter()
            .flat_map(|a| [(BlockKind::Values, relation.log(&a.free)), (BlockKind::Published, relation.log(&a.published))]);
        let mut sizes: Vec<_> = lookups.chain(tables).chain(aggregation).collect();
        sizes.sort_by_key(|&(kind, log)| (std::cmp::Reverse(log), kind));
        let mut offset = 0;
        let mut place = |(kind, log): (BlockKind, usize)| {
            let block = Block { kind, log, offset };
            offset += 1usize << log;
            block
        };
        let blocks: Vec<Block> = sizes.into_iter().map(&mut place).collect();
        // Constraints are evaluated at the end of the fraction table's point, so it is at least as long as their axes.
        let longest = relation.constraints.iter().map(|c| relation.log(&c.sum.free)).max().unwrap_or(0);
        let leaves_log = (offset.next_power_of_two().trailing_zeros() as usize).max(longest).max(1);
        let layouts = Group::ALL.into_iter().filter_map(|g| Some((g, Layout::of(relation, g)?))).collect();
        let multiplicities: Vec<Sum> = relation.tables.iter().map(|(_, mult)| read_all(relation, *mult)).collect();
        let mut plan = Self { relation, blocks, leaves_log, layouts, multiplicities, sum_rounds: 0 };
        plan.sum_rounds = plan.all_sums().flat_map(|s| s.terms.iter().map(|t| relation.log(&t.round_axes(&s.free)))).max().unwrap_or(0);
        plan
    }

    /// Every sum a proof checks.
    fn all_sums(&self) -> impl Iterator<Item = &Sum> {
        let lookups = self.relation.lookups.iter().flat_map(|l| l.tuple.iter().chain(&l.numerator));
        let aggregation = self.relation.aggregation.iter().flat_map(|a| a.key.iter().chain([&a.value]));
        let constraints = self.relation.constraints.iter().map(|Constraint { sum, .. }| sum);
        lookups.chain(aggregation).chain(&self.multiplicities).chain(constraints)
    }

    /// Number of sums in the batch, for the soundness calculator.
    pub fn sum_count(&self) -> usize {
        self.all_sums().count()
    }

    /// The tag that keeps tables apart.
    pub fn tag(&self, kind: BlockKind) -> usize {
        match kind {
            BlockKind::Lookup(i) => self.relation.lookups[i].table.0 + 1,
            BlockKind::Table(i) => i + 1,
            BlockKind::Values | BlockKind::Published => self.relation.tables.len() + 1,
        }
    }

    /// Weights of all sums at the fraction table's point `rho`, and the public remainder: the claims
    /// `denominator + γ·numerator` equal `known` plus the weighted sums, and the constraints add zeros.
    pub fn weigh(&self, statement: &Statement, rho: &[EF], challenges: LookupChallenges, gamma: EF) -> Weighted<'_> {
        let mut items = Vec::new();
        let (mut known, mut covered) = (EF::ZERO, EF::ZERO);
        let mut tables: Option<Vec<EF>> = None;
        for block in &self.blocks {
            let (high, low) = rho.split_at(rho.len() - block.log);
            let weight = eq_at(high, block.offset >> block.log);
            covered += weight;
            known += weight * (challenges.alpha - EF::from_usize(self.tag(block.kind)));
            match block.kind {
                BlockKind::Lookup(i) => {
                    let lookup = &self.relation.lookups[i];
                    items.extend(columns(&lookup.tuple, weight, challenges.beta));
                    match &lookup.numerator {
                        Some(sum) => items.push(Item { sum, weight: gamma * weight }),
                        None => known += gamma * weight,
                    }
                }
                BlockKind::Table(i) => {
                    let kind: &TableKind = &self.relation.tables[i].0;
                    let eq = match (block.log, &mut tables) {
                        (16, cached) => cached.get_or_insert_with(|| eq_table(low)).clone(),
                        _ => eq_table(low),
                    };
                    known -= weight * combine(kind.evaluate(low, &eq), challenges.beta);
                    items.push(Item { sum: &self.multiplicities[i], weight: -gamma * weight });
                }
                BlockKind::Values => {
                    if let Some(aggregation) = &self.relation.aggregation {
                        items.extend(columns(&aggregation.key, weight, challenges.beta));
                        items.push(Item { sum: &aggregation.value, weight: gamma * weight });
                    }
                }
                BlockKind::Published => {
                    known -= weight * combine(self.published_key(low), challenges.beta);
                    known -= gamma * weight * self.published_weights(statement, low);
                }
            }
        }
        known += EF::ONE - covered;
        let mut power = gamma;
        for constraint in &self.relation.constraints {
            power *= gamma;
            items.push(Item { sum: &constraint.sum, weight: power });
        }
        Weighted { items, known }
    }

    /// Request number and contributor at a point of the published weights.
    fn published_key(&self, point: &[EF]) -> Vec<EF> {
        let log = self.relation.aggregation.as_ref().map_or(0, |a| self.relation.axes[a.published[0].0].log);
        let (request, contributor) = point.split_at(log);
        vec![iota(request), iota(contributor)]
    }

    /// The published weights' multilinear extension; padded requests repeat the first.
    fn published_weights(&self, statement: &Statement, point: &[EF]) -> EF {
        let log = self.relation.aggregation.as_ref().map_or(0, |a| self.relation.axes[a.published[0].0].log);
        let (request, contributor) = point.split_at(log);
        let (request, contributor) = (eq_table(request), eq_table(contributor));
        let row = |weights: &[u64]| -> EF { contributor.iter().zip(weights).map(|(&e, &w)| e * F::from_u64(w)).sum() };
        let first = statement.requests.first().map_or(EF::ZERO, |r| row(&r.weights));
        let value = |b: usize| statement.requests.get(b).map_or(first, |r| row(&r.weights));
        request.iter().enumerate().map(|(b, &e)| e * value(b)).sum()
    }

    /// The evaluation claims of the batched sumcheck, without repetitions, in a fixed order.
    pub fn claims(&self, items: &[Item<'_>], rho: &[EF], sigma: &[EF]) -> Claims {
        let mut claims = Claims::new(self.relation.tensors.len());
        for item in items {
            for term in &item.sum.terms {
                let at = Place::new(self.relation, &item.sum.free, term, rho, sigma);
                for factor in &term.factors {
                    if let Source::Tensor(tensor) = factor.source {
                        claims.add(tensor, at.point(factor, self.relation));
                    }
                }
            }
        }
        claims
    }

    /// The batched sumcheck's final value, from the claimed evaluations. `None` if a claim is missing.
    pub fn final_value(&self, ctx: &PublicContext, items: &[Item<'_>], rho: &[EF], sigma: &[EF], claims: &Claims, values: &[EF]) -> Option<EF> {
        let mut total = EF::ZERO;
        for item in items {
            for term in &item.sum.terms {
                let at = Place::new(self.relation, &item.sum.free, term, rho, sigma);
                let mut value = item.weight * term.coef * at.weight(term) * at.lift;
                for factor in &term.factors {
                    value *= match factor.source {
                        Source::Tensor(tensor) => *values.get(claims.find(tensor, &at.point(factor, self.relation))?)?,
                        Source::Public(public) => {
                            let coordinates = at.coordinates(factor, self.relation);
                            let slices: Vec<&[EF]> = coordinates.iter().map(Vec::as_slice).collect();
                            public.evaluate(ctx, &slices)?
                        }
                    };
                }
                total += value;
            }
        }
        Some(total)
    }
}

/// `-weight·β^(k+1)` for each column.
fn columns(sums: &[Sum], weight: EF, beta: EF) -> Vec<Item<'_>> {
    let mut power = -weight;
    sums.iter()
        .map(|sum| {
            power *= beta;
            Item { sum, weight: power }
        })
        .collect()
}

/// `Σ_k β^(k+1)·column_k`.
fn combine(columns: Vec<EF>, beta: EF) -> EF {
    columns.into_iter().rev().fold(EF::ZERO, |acc, c| (acc + c) * beta)
}

/// A sum that reads a tensor by its own axes.
fn read_all(relation: &Relation, tensor: TensorId) -> Sum {
    let free = relation.tensors[tensor.0].axes.clone();
    let index = free.iter().map(|&a| Index::Var(a)).collect();
    let term = Term { coef: F::ONE, factors: vec![Factor { source: Source::Tensor(tensor), index }], couplings: vec![] };
    Sum { free, terms: vec![term] }
}

/// Where one term is evaluated: `tau` for axes bound beforehand, `sigma` for axes with rounds.
pub struct Place {
    /// Free axes with their slice of the fraction table's point.
    pub tau: Vec<(Axis, Vec<EF>)>,
    /// Axes with rounds and their challenges.
    pub rounds: Vec<(Axis, Vec<EF>)>,
    /// `2^-(idle rounds)`.
    pub lift: EF,
}

impl Place {
    /// Splits the points among a term's axes: its rounds are the last ones.
    pub fn new(relation: &Relation, free: &[Axis], term: &Term, rho: &[EF], sigma: &[EF]) -> Self {
        let tau = split(relation, free, rho);
        let round_axes = term.round_axes(free);
        let idle = sigma.len().saturating_sub(relation.log(&round_axes));
        let rounds = split(relation, &round_axes, sigma);
        Self { tau, rounds, lift: half().exp_u64(idle as u64) }
    }

    /// The same before any round: only the axes bound to `rho`.
    pub fn before_rounds(relation: &Relation, free: &[Axis], rho: &[EF]) -> Self {
        Self { tau: split(relation, free, rho), rounds: vec![], lift: EF::ONE }
    }

    fn coordinate(&self, axis: Axis) -> &[EF] {
        let of = |list: &'_ [(Axis, Vec<EF>)]| list.iter().position(|(a, _)| *a == axis);
        match (of(&self.rounds), of(&self.tau)) {
            (Some(i), _) => &self.rounds[i].1,
            (None, Some(i)) => &self.tau[i].1,
            (None, None) => &[],
        }
    }

    /// The point of a factor, axis by axis.
    pub fn coordinates(&self, factor: &Factor, relation: &Relation) -> Vec<Vec<EF>> {
        let logs = circuits::evaluate::factor_logs(relation, factor);
        factor
            .index
            .iter()
            .zip(logs)
            .map(|(index, log)| match index {
                Index::Var(axis) => self.coordinate(*axis).to_vec(),
                Index::Flip(axis) => self.coordinate(*axis).iter().map(|&x| EF::ONE - x).collect(),
                Index::At(c) => (0..log).map(|i| EF::from_bool((c >> (log - 1 - i)) & 1 == 1)).collect(),
            })
            .collect()
    }

    /// The point of a factor.
    pub fn point(&self, factor: &Factor, relation: &Relation) -> Vec<EF> {
        self.coordinates(factor, relation).concat()
    }

    /// The product of the couplings' weights.
    pub fn weight(&self, term: &Term) -> EF {
        let mut weight = EF::ONE;
        for (axis, tau) in &self.tau {
            let rounds = self.rounds.iter().find(|(a, _)| a == axis).map(|(_, x)| x);
            weight *= match (term.coupling(*axis), rounds) {
                (Some(Coupling::Only(c)), _) => eq_at(tau, c),
                (Some(coupling), Some(x)) => shifted(tau, x, coupling),
                (None, Some(x)) => eq_points(tau, x),
                _ => EF::ONE,
            };
        }
        weight
    }
}

/// `Σ_x eq(tau, x ± 1)·eq(sigma, x)`.
fn shifted(tau: &[EF], sigma: &[EF], coupling: Coupling) -> EF {
    let (t, s) = (eq_table(tau), eq_table(sigma));
    match coupling {
        Coupling::Next => t.iter().skip(1).zip(&s).map(|(&a, &b)| a * b).sum(),
        _ => t.iter().zip(s.iter().skip(1)).map(|(&a, &b)| a * b).sum(),
    }
}

/// The last coordinates of `point`, split among `axes` in order.
fn split(relation: &Relation, axes: &[Axis], point: &[EF]) -> Vec<(Axis, Vec<EF>)> {
    let mut rest = &point[point.len() - relation.log(axes)..];
    axes.iter()
        .map(|&axis| {
            let (head, tail) = rest.split_at(relation.axes[axis.0].log);
            rest = tail;
            (axis, head.to_vec())
        })
        .collect()
}

/// Evaluation claims without repetitions.
#[derive(Debug, Default)]
pub struct Claims {
    /// The claims, in order of first appearance.
    pub list: Vec<Claim>,
    by_tensor: Vec<Vec<usize>>,
}

impl Claims {
    fn new(tensors: usize) -> Self {
        Self { list: vec![], by_tensor: vec![vec![]; tensors] }
    }

    fn find(&self, tensor: TensorId, point: &[EF]) -> Option<usize> {
        self.by_tensor.get(tensor.0)?.iter().copied().find(|&i| self.list[i].point == point)
    }

    fn add(&mut self, tensor: TensorId, point: Vec<EF>) {
        if self.find(tensor, &point).is_none() {
            self.by_tensor[tensor.0].push(self.list.len());
            self.list.push(Claim { tensor, point });
        }
    }

    /// The weight polynomial of a group at a point: `Σ_i δ^i·eq((slot, point_i), x)` over the group's claims.
    pub fn weight_at(&self, layout: &Layout, delta: EF, x: &[EF]) -> EF {
        let mut power = EF::ONE;
        let mut total = EF::ZERO;
        for claim in &self.list {
            if let Some(slot) = layout.slot(claim.tensor) {
                let (high, low) = x.split_at(x.len() - slot.log);
                total += power * eq_at(high, slot.offset >> slot.log) * eq_points(&claim.point, low);
            }
            power *= delta;
        }
        total
    }
}

/// A digest as field elements, two bytes each.
pub fn digest_elements(bytes: &[u8; 32]) -> Vec<F> {
    bytes.chunks(2).map(|pair| pair.iter().fold(F::ZERO, |acc, &b| acc * F::from_u32(256) + F::from_u8(b))).collect()
}

/// One half.
pub fn half() -> EF {
    EF::TWO.inverse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::relation;

    fn point(n: usize, seed: u64) -> Vec<EF> {
        (0..n as u64).map(|i| EF::from_u64(seed.wrapping_mul(0x9E37_79B9) + i * 7919 + 3).square()).collect()
    }

    #[test]
    fn blocks_are_aligned_and_apart() {
        let relation = relation();
        let plan = Plan::new(&relation);
        let mut next = 0;
        for block in &plan.blocks {
            assert_eq!(block.offset, next);
            assert_eq!(block.offset % (1 << block.log), 0);
            next += 1 << block.log;
        }
        assert!(next <= 1 << plan.leaves_log);
        assert_eq!(plan.blocks.len(), relation.lookups.len() + relation.tables.len());
    }

    /// Nobody's claim is left without a commitment that answers for it, and the calculator counts them all.
    #[test]
    fn every_claim_is_opened_by_exactly_one_commitment() {
        let relation = relation();
        let plan = Plan::new(&relation);
        let sums: Vec<&Sum> = plan.all_sums().collect();
        let items: Vec<Item<'_>> = sums.into_iter().map(|sum| Item { sum, weight: EF::ONE }).collect();
        let claims = plan.claims(&items, &point(plan.leaves_log, 1), &point(plan.sum_rounds, 2));
        for claim in &claims.list {
            let slots: Vec<_> = plan.layouts.iter().filter_map(|(_, layout)| layout.slot(claim.tensor)).collect();
            assert_eq!(slots.len(), 1);
            assert_eq!(slots[0].log, claim.point.len());
        }
        assert!(claims.list.len() <= 8 * relation.tensors.len(), "{} claims", claims.list.len());
    }

    #[test]
    fn tuples_are_as_long_as_their_tables() {
        let relation = relation();
        for lookup in &relation.lookups {
            assert_eq!(lookup.tuple.len(), relation.tables[lookup.table.0].0.all_columns().len(), "{}", lookup.name);
        }
    }

    #[test]
    fn a_shift_moves_the_equality_table() {
        let (tau, sigma) = (point(3, 5), point(3, 6));
        let (t, s) = (eq_table(&tau), eq_table(&sigma));
        let next: EF = (0..7).map(|x| t[x + 1] * s[x]).sum();
        let previous: EF = (1..8).map(|x| t[x - 1] * s[x]).sum();
        assert_eq!(shifted(&tau, &sigma, Coupling::Next), next);
        assert_eq!(shifted(&tau, &sigma, Coupling::Previous), previous);
    }
}
