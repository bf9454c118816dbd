//! The schedule both sides follow: how lookups are laid out, which sums are checked with which weight, and which evaluations that takes.
//!
//! Everything here is a function of the relation, the statement and the challenges; prover and verifier share it.

use circuits::ir::{Axis, Constraint, Coupling, EF, F, Factor, Group, Index, Source, Sum, TensorId, Term};
use circuits::layout::Layout;
use circuits::public::{PublicView, eq_at, eq_points, eq_table, iota};
use circuits::relation::Relation;
use circuits::table::TableKind;
use p3_field::{Field, PrimeCharacteristicRing, PrimeField32};
use std::collections::BTreeMap;

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
    /// Each table's columns.
    columns: Vec<Vec<Vec<i64>>>,
    /// Sums reading each table's committed columns; `None` where the verifier evaluates tables.
    table_columns: Vec<Option<Vec<Sum>>>,
    /// Rounds of the batched sumcheck.
    pub sum_rounds: usize,
}

/// Challenges of the fraction table.
#[derive(Clone, Copy, Debug)]
pub struct LookupChallenges<E = EF> {
    /// Where denominators are evaluated; soundness error (leaves)/|EF|.
    pub alpha: E,
    /// Combines a tuple's columns; soundness error (columns·leaves)/|EF|.
    pub beta: E,
}

/// A sum with its weight in the batched sumcheck.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a, E = EF> {
    /// The sum.
    pub sum: &'a Sum,
    /// Its weight.
    pub weight: E,
}

/// Where a coordinate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinate {
    /// A coordinate of the fraction table's point.
    Rho(usize),
    /// A challenge of the batched sumcheck.
    Sigma(usize),
    /// One minus a coordinate of the fraction table's point.
    NotRho(usize),
    /// One minus a challenge of the batched sumcheck.
    NotSigma(usize),
    /// A bit.
    Bit(bool),
}

impl Coordinate {
    fn flip(self) -> Self {
        match self {
            Coordinate::Rho(i) => Coordinate::NotRho(i),
            Coordinate::Sigma(i) => Coordinate::NotSigma(i),
            Coordinate::NotRho(i) => Coordinate::Rho(i),
            Coordinate::NotSigma(i) => Coordinate::Sigma(i),
            Coordinate::Bit(b) => Coordinate::Bit(!b),
        }
    }
}

/// The two points that coordinates are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Points<'a, E = EF> {
    /// The fraction table's point.
    pub rho: &'a [E],
    /// The challenges of the batched sumcheck; none before it.
    pub sigma: &'a [E],
}

impl<E: Field> Points<'_, E> {
    fn at(&self, coordinate: Coordinate) -> E {
        match coordinate {
            Coordinate::Rho(i) => self.rho[i],
            Coordinate::Sigma(i) => self.sigma[i],
            Coordinate::NotRho(i) => E::ONE - self.rho[i],
            Coordinate::NotSigma(i) => E::ONE - self.sigma[i],
            Coordinate::Bit(b) => E::from_bool(b),
        }
    }

    fn all(&self, coordinates: &[Coordinate]) -> Vec<E> {
        coordinates.iter().map(|&c| self.at(c)).collect()
    }
}

/// An evaluation that somebody has to open.
#[derive(Clone, Debug)]
pub struct Claim<E = EF> {
    /// The tensor.
    pub tensor: TensorId,
    /// The point, coordinate by coordinate.
    pub point: Vec<E>,
    place: Vec<Coordinate>,
}

/// What the batched sumcheck has to add up to, given as terms with their weights.
pub struct Weighted<'a, E = EF> {
    /// The sums.
    pub items: Vec<Item<'a, E>>,
    /// What the verifier subtracts from the fraction table's claims: everything public.
    pub known: E,
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
        let columns = relation.tables.iter().map(|(kind, _)| kind.all_columns()).collect();
        let read_columns = |i: usize| relation.table_columns.get(i).map(|ids| ids.iter().map(|&id| read_all(relation, id)).collect());
        let table_columns = (0..relation.tables.len()).map(read_columns).collect();
        let mut plan = Self { relation, blocks, leaves_log, layouts, multiplicities, columns, table_columns, sum_rounds: 0 };
        plan.sum_rounds = plan.all_sums().flat_map(|s| s.terms.iter().map(|t| relation.log(&t.round_axes(&s.free)))).max().unwrap_or(0);
        plan
    }

    /// Every sum a proof checks.
    fn all_sums(&self) -> impl Iterator<Item = &Sum> {
        let lookups = self.relation.lookups.iter().flat_map(|l| l.tuple.iter().chain(&l.numerator));
        let aggregation = self.relation.aggregation.iter().flat_map(|a| a.key.iter().chain([&a.value]));
        let constraints = self.relation.constraints.iter().map(|Constraint { sum, .. }| sum);
        lookups.chain(aggregation).chain(&self.multiplicities).chain(self.table_columns.iter().flatten().flatten()).chain(constraints)
    }

    /// Number of sums in the batch, for the soundness calculator.
    pub fn sum_count(&self) -> usize {
        self.all_sums().count()
    }

    /// Degree of the fraction table's common denominator in `(α, β)`: a leaf with `k` columns has degree `max(1, k)`, padding none.
    pub fn lookup_degree(&self) -> usize {
        let columns = |kind: BlockKind| match kind {
            BlockKind::Lookup(i) => self.relation.lookups[i].tuple.len(),
            BlockKind::Table(i) => self.columns[i].len(),
            BlockKind::Values | BlockKind::Published => self.relation.aggregation.as_ref().map_or(0, |a| a.key.len()),
        };
        self.blocks.iter().map(|block| columns(block.kind).max(1) << block.log).sum()
    }

    /// Most evaluation claims that the batch leaves: one for each tensor that a term reads.
    pub fn most_claims(&self) -> usize {
        let is_tensor = |f: &&Factor| matches!(f.source, Source::Tensor(_));
        self.all_sums().flat_map(|sum| &sum.terms).map(|term| term.factors.iter().filter(is_tensor).count()).sum()
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
    ///
    /// `weights` are the published weights, request by request.
    pub fn weigh<E: Field>(&self, weights: &[Vec<E>], rho: &[E], challenges: LookupChallenges<E>, gamma: E) -> Weighted<'_, E> {
        let mut items = Vec::new();
        let (mut known, mut covered) = (E::ZERO, E::ZERO);
        // Tables of one size lie at the same coordinates.
        let mut equality: BTreeMap<usize, Vec<E>> = BTreeMap::new();
        for block in &self.blocks {
            let (high, low) = rho.split_at(rho.len() - block.log);
            let weight = eq_at(high, block.offset >> block.log);
            covered += weight;
            known += weight * (challenges.alpha - E::from_usize(self.tag(block.kind)));
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
                    let mut committed = self.table_columns[i].iter().flatten();
                    let mut power = weight;
                    for (k, column) in self.columns[i].iter().enumerate() {
                        power *= challenges.beta;
                        if let Some(value) = kind.closed_form(k, low) {
                            known -= power * value;
                        } else if let Some(sum) = committed.next() {
                            items.push(Item { sum, weight: -power });
                        } else {
                            let eq = equality.entry(block.log).or_insert_with(|| eq_table(low));
                            known -= power * eq.iter().zip(column).map(|(&e, &x)| e * E::from_i64(x)).sum::<E>();
                        }
                    }
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
                    known -= gamma * weight * self.published_weights(weights, low);
                }
            }
        }
        known += E::ONE - covered;
        let mut power = gamma;
        for constraint in &self.relation.constraints {
            power *= gamma;
            items.push(Item { sum: &constraint.sum, weight: power });
        }
        Weighted { items, known }
    }

    /// Request number and contributor at a point of the published weights.
    fn published_key<E: Field>(&self, point: &[E]) -> Vec<E> {
        let log = self.relation.aggregation.as_ref().map_or(0, |a| self.relation.axes[a.published[0].0].log);
        let (request, contributor) = point.split_at(log);
        vec![iota(request), iota(contributor)]
    }

    /// The published weights' multilinear extension; padded requests repeat the first.
    fn published_weights<E: Field>(&self, weights: &[Vec<E>], point: &[E]) -> E {
        let log = self.relation.aggregation.as_ref().map_or(0, |a| self.relation.axes[a.published[0].0].log);
        let (request, contributor) = point.split_at(log);
        let (request, contributor) = (eq_table(request), eq_table(contributor));
        let row = |weights: &[E]| -> E { contributor.iter().zip(weights).map(|(&e, &w)| e * w).sum() };
        let first = weights.first().map_or(E::ZERO, |w| row(w));
        let value = |b: usize| weights.get(b).map_or(first, |w| row(w));
        request.iter().enumerate().map(|(b, &e)| e * value(b)).sum()
    }

    /// The evaluation claims of the batched sumcheck, without repetitions, in a fixed order.
    pub fn claims<E: Field>(&self, items: &[Item<'_, E>], points: Points<'_, E>) -> Claims<E> {
        let mut claims = Claims::new(self.relation.tensors.len());
        for item in items {
            for term in &item.sum.terms {
                let at = Place::new(self.relation, &item.sum.free, term, points);
                for factor in &term.factors {
                    if let Source::Tensor(tensor) = factor.source {
                        claims.add(tensor, at.place(factor, self.relation).concat(), points);
                    }
                }
            }
        }
        claims
    }

    /// The batched sumcheck's final value, from the claimed evaluations. `None` if a claim is missing.
    pub fn final_value<E: Field>(
        &self,
        view: &PublicView<E>,
        items: &[Item<'_, E>],
        points: Points<'_, E>,
        claims: &Claims<E>,
        values: &[E],
    ) -> Option<E> {
        let mut total = E::ZERO;
        for item in items {
            for term in &item.sum.terms {
                let at = Place::new(self.relation, &item.sum.free, term, points);
                let coefficient = E::from_prime_subfield(E::PrimeSubfield::from_u32(term.coef.as_canonical_u32()));
                let mut value = item.weight * (coefficient * at.lift()) * at.weight(term);
                for factor in &term.factors {
                    let place = at.place(factor, self.relation);
                    value *= match factor.source {
                        Source::Tensor(tensor) => *values.get(claims.find(tensor, &place.concat())?)?,
                        Source::Public(public) => {
                            let coordinates: Vec<Vec<E>> = place.iter().map(|c| points.all(c)).collect();
                            let slices: Vec<&[E]> = coordinates.iter().map(Vec::as_slice).collect();
                            public.evaluate(view, &slices)?
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
fn columns<E: Field>(sums: &[Sum], weight: E, beta: E) -> Vec<Item<'_, E>> {
    let mut power = -weight;
    sums.iter()
        .map(|sum| {
            power *= beta;
            Item { sum, weight: power }
        })
        .collect()
}

/// `Σ_k β^(k+1)·column_k`.
fn combine<E: Field>(columns: Vec<E>, beta: E) -> E {
    columns.into_iter().rev().fold(E::ZERO, |acc, c| (acc + c) * beta)
}

/// A sum that reads a tensor by its own axes.
fn read_all(relation: &Relation, tensor: TensorId) -> Sum {
    let free = relation.tensors[tensor.0].axes.clone();
    let index = free.iter().map(|&a| Index::Var(a)).collect();
    let term = Term { coef: F::ONE, factors: vec![Factor { source: Source::Tensor(tensor), index }], couplings: vec![] };
    Sum { free, terms: vec![term] }
}

/// Where one term is evaluated: `tau` for axes bound beforehand, `rounds` for axes with rounds.
pub struct Place<'a, E = EF> {
    points: Points<'a, E>,
    /// Free axes with their slice of the fraction table's point.
    tau: Vec<(Axis, Vec<Coordinate>)>,
    /// Axes with rounds and their challenges.
    rounds: Vec<(Axis, Vec<Coordinate>)>,
    idle: usize,
}

impl<'a, E: Field> Place<'a, E> {
    /// Splits the points among a term's axes: its rounds are the last ones.
    pub fn new(relation: &Relation, free: &[Axis], term: &Term, points: Points<'a, E>) -> Self {
        let round_axes = term.round_axes(free);
        let idle = points.sigma.len().saturating_sub(relation.log(&round_axes));
        let rounds = split(relation, &round_axes, points.sigma.len(), Coordinate::Sigma);
        Self { points, tau: split(relation, free, points.rho.len(), Coordinate::Rho), rounds, idle }
    }

    /// The same before any round: only the axes bound to `rho`.
    pub fn before_rounds(relation: &Relation, free: &[Axis], rho: &'a [E]) -> Self {
        Self { points: Points { rho, sigma: &[] }, tau: split(relation, free, rho.len(), Coordinate::Rho), rounds: vec![], idle: 0 }
    }

    /// Free axes with their slice of the fraction table's point.
    pub fn bound(&self) -> impl Iterator<Item = (Axis, Vec<E>)> {
        self.tau.iter().map(|(axis, place)| (*axis, self.points.all(place)))
    }

    /// `2^-(idle rounds)`.
    fn lift(&self) -> E {
        half::<E>().exp_u64(self.idle as u64)
    }

    fn coordinate(&self, axis: Axis) -> &[Coordinate] {
        let found = self.rounds.iter().chain(&self.tau).find(|(a, _)| *a == axis);
        found.map_or(&[], |(_, place)| place)
    }

    /// Where a factor's point comes from, axis by axis.
    fn place(&self, factor: &Factor, relation: &Relation) -> Vec<Vec<Coordinate>> {
        let logs = circuits::evaluate::factor_logs(relation, factor);
        factor
            .index
            .iter()
            .zip(logs)
            .map(|(index, log)| match index {
                Index::Var(axis) => self.coordinate(*axis).to_vec(),
                Index::Flip(axis) => self.coordinate(*axis).iter().map(|x| x.flip()).collect(),
                Index::At(c) => (0..log).map(|i| Coordinate::Bit((c >> (log - 1 - i)) & 1 == 1)).collect(),
            })
            .collect()
    }

    /// The point of a factor, axis by axis.
    pub fn coordinates(&self, factor: &Factor, relation: &Relation) -> Vec<Vec<E>> {
        self.place(factor, relation).iter().map(|c| self.points.all(c)).collect()
    }

    /// The product of the couplings' weights.
    fn weight(&self, term: &Term) -> E {
        let mut weight = E::ONE;
        for (axis, tau) in self.bound() {
            let rounds = self.rounds.iter().find(|(a, _)| *a == axis).map(|(_, x)| self.points.all(x));
            weight *= match (term.coupling(axis), rounds) {
                (Some(Coupling::Only(c)), _) => eq_at(&tau, c),
                (Some(coupling), Some(x)) => shifted(&tau, &x, coupling),
                (None, Some(x)) => eq_points(&tau, &x),
                _ => E::ONE,
            };
        }
        weight
    }
}

/// `Σ_x eq(tau, x ± 1)·eq(sigma, x)`.
fn shifted<E: Field>(tau: &[E], sigma: &[E], coupling: Coupling) -> E {
    let (t, s) = (eq_table(tau), eq_table(sigma));
    match coupling {
        Coupling::Next => t.iter().skip(1).zip(&s).map(|(&a, &b)| a * b).sum(),
        _ => t.iter().zip(s.iter().skip(1)).map(|(&a, &b)| a * b).sum(),
    }
}

/// The last coordinates of a point of `len`, split among `axes` in order.
fn split(relation: &Relation, axes: &[Axis], len: usize, coordinate: fn(usize) -> Coordinate) -> Vec<(Axis, Vec<Coordinate>)> {
    let mut next = len.saturating_sub(relation.log(axes));
    axes.iter()
        .map(|&axis| {
            let log = relation.axes[axis.0].log;
            let place = (next..next + log).map(coordinate).collect();
            next += log;
            (axis, place)
        })
        .collect()
}

/// Evaluation claims without repetitions.
#[derive(Debug)]
pub struct Claims<E = EF> {
    /// The claims, in order of first appearance.
    pub list: Vec<Claim<E>>,
    by_tensor: Vec<Vec<usize>>,
}

impl<E: Field> Claims<E> {
    fn new(tensors: usize) -> Self {
        Self { list: vec![], by_tensor: vec![vec![]; tensors] }
    }

    fn find(&self, tensor: TensorId, place: &[Coordinate]) -> Option<usize> {
        self.by_tensor.get(tensor.0)?.iter().copied().find(|&i| self.list[i].place == place)
    }

    fn add(&mut self, tensor: TensorId, place: Vec<Coordinate>, points: Points<'_, E>) {
        if self.find(tensor, &place).is_none() {
            self.by_tensor[tensor.0].push(self.list.len());
            self.list.push(Claim { tensor, point: points.all(&place), place });
        }
    }

    /// The weight polynomial of a group at a point: `Σ_i δ^i·Σ_slots weight·eq((slot, free coordinates of point_i), x)` over the group's claims.
    pub fn weight_at(&self, layout: &Layout, delta: E, x: &[E]) -> E {
        let mut power = E::ONE;
        let mut total = E::ZERO;
        for claim in &self.list {
            for slot in layout.slots(claim.tensor) {
                let (high, low) = x.split_at(x.len() - slot.log);
                let (weight, free) = slot.claim(&claim.point);
                total += power * weight * eq_at(high, slot.offset >> slot.log) * eq_points(&free, low);
            }
            power *= delta;
        }
        total
    }
}

/// One half.
pub fn half<E: Field>() -> E {
    E::from_prime_subfield(E::PrimeSubfield::TWO.inverse())
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
        let (rho, sigma) = (point(plan.leaves_log, 1), point(plan.sum_rounds, 2));
        let claims = plan.claims(&items, Points { rho: &rho, sigma: &sigma });
        for claim in &claims.list {
            let slots: Vec<_> = plan.layouts.iter().flat_map(|(_, layout)| layout.slots(claim.tensor)).collect();
            assert_eq!(slots.len(), 1);
            assert_eq!(slots[0].log, claim.point.len());
        }
        assert!(claims.list.len() <= plan.most_claims(), "{} claims", claims.list.len());
    }

    /// No leaf's column is left out of the degree that the calculator takes for the lookup challenges.
    #[test]
    fn the_lookup_degree_counts_every_column() {
        let relation = relation();
        let lookups: usize = relation.lookups.iter().map(|l| relation.tables[l.table.0].0.all_columns().len() << relation.log(&l.free)).sum();
        let tables: usize = relation.tables.iter().map(|(kind, _)| kind.all_columns().iter().map(Vec::len).sum::<usize>()).sum();
        let aggregation: usize = relation.aggregation.iter().map(|a| (2 << relation.log(&a.free)) + (2 << relation.log(&a.published))).sum();
        assert_eq!(Plan::new(&relation).lookup_degree(), lookups + tables + aggregation);
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
