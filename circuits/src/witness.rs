//! A complete witness: every committed tensor's values, the looked-up rows, and the debug checker that names the first violation.

use crate::evaluate::{Values, centred, evaluate};
use crate::ir::{Axis, Constraint, F, Group, Lookup, Source, TensorId};
use crate::public::{PublicContext, PublicRequest};
use crate::relation::Relation;
use crate::table::TableKind;
use model_runtime::tables::EXP_ONE;
use model_runtime::tensor::TensorMap;
use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use thiserror::Error;

/// Positions of a lookup that one task counts.
const POSITIONS: usize = 1 << 18;

/// Why a witness is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WitnessError {
    /// A tensor is absent.
    #[error("the {group:?} data have no tensor `{name}`")]
    Missing {
        /// Its group.
        group: Group,
        /// Its name.
        name: String,
    },
    /// A tensor has another size.
    #[error("tensor `{name}` has {found} values, the relation expects {expected}")]
    Size {
        /// Its name.
        name: String,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// A constraint or a lookup doesn't hold.
    #[error("`{name}` doesn't hold at {position} (value {value})")]
    Violated {
        /// The constraint's or lookup's name.
        name: String,
        /// Position along each free axis.
        position: String,
        /// The offending value.
        value: i64,
    },
}

/// The values a lookup reads, position by position.
#[derive(Clone, Debug)]
pub struct LookupValues {
    /// Numerators; `None` for all ones.
    pub numerator: Option<Vec<F>>,
    /// Columns of the tuple.
    pub tuple: Vec<Vec<F>>,
}

/// Every committed tensor of a relation.
#[derive(Clone, Debug)]
pub struct Witness {
    /// Values by tensor id.
    pub tensors: Vec<Vec<i32>>,
    /// The public side.
    pub ctx: PublicContext,
}

impl Values for Witness {
    fn values(&self, tensor: TensorId) -> &[i32] {
        &self.tensors[tensor.0]
    }
}

/// Tensors a relation takes from the long-lived commitments.
#[derive(Clone, Copy)]
pub struct Fixed<'a> {
    /// Base model.
    pub base: &'a TensorMap,
    /// Adapter.
    pub adapter: &'a TensorMap,
    /// Index, with `contributor`.
    pub index: &'a TensorMap,
}

/// The values of a committed table column.
pub fn table_column(relation: &Relation, id: TensorId) -> Option<Vec<i32>> {
    let find = |(table, ids): (usize, &Vec<TensorId>)| ids.iter().position(|&t| t == id).map(|column| (table, column));
    let (table, column) = relation.table_columns.iter().enumerate().find_map(find)?;
    let kind = &relation.tables.get(table)?.0;
    let values = kind.all_columns().into_iter().nth(*kind.dense_columns().get(column)?)?;
    // Table entries are below 2^31: `TableKind` makes them from 32-bit values and products that the relation bounds.
    Some(values.into_iter().map(|x| x as i32).collect())
}

impl Witness {
    /// Assembles a witness; requests past the last repeat the first. Multiplicities are computed by [`Witness::count`].
    ///
    /// # Errors
    ///
    /// When a tensor is missing or has the wrong size.
    pub fn new(relation: &Relation, fixed: Fixed, traces: &[&TensorMap], requests: Vec<PublicRequest>) -> Result<Self, WitnessError> {
        let tables: Vec<TensorId> = relation.tables.iter().map(|(_, m)| *m).collect();
        let mut tensors = Vec::with_capacity(relation.tensors.len());
        for (i, def) in relation.tensors.iter().enumerate() {
            let expected = 1usize << relation.log(&def.axes);
            let values = match def.group {
                _ if tables.contains(&TensorId(i)) => vec![0; expected],
                Group::Base => fetch(fixed.base, def.group, &def.name)?.to_vec(),
                Group::Adapter => fetch(fixed.adapter, def.group, &def.name)?.to_vec(),
                Group::Index => fetch(fixed.index, def.group, &def.name)?.to_vec(),
                Group::Tables => table_column(relation, TensorId(i)).unwrap_or_default(),
                Group::Trace => stack_requests(relation, traces, &def.name)?,
            };
            if values.len() != expected {
                return Err(WitnessError::Size { name: def.name.clone(), expected, found: values.len() });
            }
            tensors.push(values);
        }
        let ctx = PublicContext::new(&relation.params, requests);
        Ok(Self { tensors, ctx })
    }

    /// Looks everything up and sets the multiplicities.
    ///
    /// # Errors
    ///
    /// Names the first lookup that finds no row.
    pub fn count(&mut self, relation: &Relation) -> Result<Vec<LookupValues>, WitnessError> {
        let values: Vec<LookupValues> = relation.lookups.iter().map(|l| self.lookup_values(relation, l)).collect();
        let columns: Vec<Vec<Vec<i64>>> = relation.tables.iter().map(|(kind, _)| kind.columns()).collect();
        for (lookup, values) in relation.lookups.iter().zip(&values) {
            let (kind, mult) = &relation.tables[lookup.table.0];
            let counts = self.counts(relation, lookup, values, kind, &columns[lookup.table.0])?;
            self.tensors[mult.0].iter_mut().zip(counts).for_each(|(m, count)| *m += count);
        }
        Ok(values)
    }

    /// Frees these groups' tensors, but for multiplicities and what the aggregation reads: nothing else of them is looked at once lookups are
    /// counted and the trace is committed.
    pub fn free(&mut self, relation: &Relation, groups: &[Group]) {
        let mut read: Vec<TensorId> = relation.tables.iter().map(|(_, multiplicities)| *multiplicities).collect();
        let sums = relation.aggregation.iter().flat_map(|a| std::iter::once(&a.value).chain(&a.key));
        let factors = sums.flat_map(|sum| &sum.terms).flat_map(|term| &term.factors);
        read.extend(factors.filter_map(|factor| if let Source::Tensor(id) = factor.source { Some(id) } else { None }));
        for (id, def) in relation.tensors.iter().enumerate() {
            if groups.contains(&def.group) && !read.contains(&TensorId(id)) {
                self.tensors[id] = vec![];
            }
        }
    }

    /// [`Witness::count`] for a cheating prover: positions without a row are passed over.
    pub fn count_leniently(&mut self, relation: &Relation) -> Vec<LookupValues> {
        let values: Vec<LookupValues> = relation.lookups.iter().map(|l| self.lookup_values(relation, l)).collect();
        for (lookup, values) in relation.lookups.iter().zip(&values) {
            let (kind, mult) = &relation.tables[lookup.table.0];
            for i in 0..values.tuple[0].len() {
                let counted = values.numerator.as_ref().is_none_or(|n| n[i] != F::ZERO);
                if let Some(row) = kind.row(centred(values.tuple[0][i])).filter(|_| counted) {
                    self.tensors[mult.0][row] += 1;
                }
            }
        }
        values
    }

    /// What a lookup reads.
    pub fn lookup_values(&self, relation: &Relation, lookup: &Lookup) -> LookupValues {
        let numerator = lookup.numerator.as_ref().map(|n| evaluate(relation, &self.ctx, self, n));
        let tuple = lookup.tuple.iter().map(|s| evaluate(relation, &self.ctx, self, s)).collect();
        LookupValues { numerator, tuple }
    }

    /// How often a lookup reads each row of its table.
    fn counts(
        &self,
        relation: &Relation,
        lookup: &Lookup,
        values: &LookupValues,
        kind: &TableKind,
        columns: &[Vec<i64>],
    ) -> Result<Vec<i32>, WitnessError> {
        let find = |i: usize| {
            let first = centred(values.tuple[0][i]);
            let row = kind.row(first).filter(|&row| values.tuple[1..].iter().zip(columns).all(|(t, c)| centred(t[i]) == c[row]));
            row.ok_or_else(|| violated(relation, &lookup.name, &lookup.free, i, first))
        };
        let is_read = |i: usize| values.numerator.as_ref().is_none_or(|n| n[i] != F::ZERO);
        let none = vec![0i32; 1 << kind.log()];
        let len = values.tuple[0].len();
        let count = |start: usize| {
            (start..len.min(start + POSITIONS)).filter(|&i| is_read(i)).try_fold(none.clone(), |mut counts, i| {
                counts[find(i)?] += 1;
                Ok(counts)
            })
        };
        let add = |mut a: Vec<i32>, b: Vec<i32>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            Ok(a)
        };
        (0..len).into_par_iter().step_by(POSITIONS).map(count).try_reduce(|| none.clone(), add)
    }

    /// Checks every constraint and lookup on the integers.
    ///
    /// # Errors
    ///
    /// Names the first violation and where it is.
    pub fn check(&self, relation: &Relation) -> Result<(), WitnessError> {
        relation.constraints.iter().try_for_each(|c| self.check_constraint(relation, c))?;
        self.clone().count(relation).map(|_| ())
    }

    /// Checks one constraint.
    ///
    /// # Errors
    ///
    /// Names it and where it fails.
    pub fn check_constraint(&self, relation: &Relation, constraint: &Constraint) -> Result<(), WitnessError> {
        let values = evaluate(relation, &self.ctx, self, &constraint.sum);
        match values.iter().position(|v| *v != F::ZERO) {
            Some(i) => Err(violated(relation, &constraint.name, &constraint.sum.free, i, centred(values[i]))),
            None => Ok(()),
        }
    }

    /// Checks one lookup.
    ///
    /// # Errors
    ///
    /// Names it and where it finds no row.
    pub fn check_lookup(&self, relation: &Relation, lookup: &Lookup) -> Result<(), WitnessError> {
        let kind = &relation.tables[lookup.table.0].0;
        self.counts(relation, lookup, &self.lookup_values(relation, lookup), kind, &kind.columns()).map(|_| ())
    }

    /// Weight of each contributor in each real request.
    pub fn contributor_weights(&self, relation: &Relation) -> Vec<Vec<u64>> {
        let Some(aggregation) = &relation.aggregation else { return vec![] };
        let value = evaluate(relation, &self.ctx, self, &aggregation.value);
        let contributor = evaluate(relation, &self.ctx, self, &aggregation.key[1]);
        let rows = 1usize << relation.axes[aggregation.free[1].0].log;
        let mut weights = vec![vec![0u64; relation.params.contributors]; self.ctx.requests.len()];
        for (b, weights) in weights.iter_mut().enumerate() {
            for i in b * rows..(b + 1) * rows {
                let slot = usize::try_from(centred(contributor[i])).ok().and_then(|c| weights.get_mut(c));
                if let (Some(slot), Ok(value)) = (slot, u64::try_from(centred(value[i]))) {
                    *slot += value;
                }
            }
        }
        weights
    }
}

fn violated(relation: &Relation, name: &str, free: &[Axis], index: usize, value: i64) -> WitnessError {
    let mut rest = index;
    let mut position: Vec<String> = free
        .iter()
        .rev()
        .map(|a| {
            let axis = &relation.axes[a.0];
            let x = rest & ((1 << axis.log) - 1);
            rest >>= axis.log;
            format!("{}={x}", axis.name)
        })
        .collect();
    position.reverse();
    WitnessError::Violated { name: name.to_owned(), position: position.join(" "), value }
}

fn fetch<'a>(map: &'a TensorMap, group: Group, name: &str) -> Result<&'a [i32], WitnessError> {
    map.get(name).map(|t| t.data.as_slice()).ok_or_else(|| WitnessError::Missing { group, name: name.to_owned() })
}

/// The same tensor of every request; `out.flag` is derived from the weights.
fn stack_requests(relation: &Relation, traces: &[&TensorMap], name: &str) -> Result<Vec<i32>, WitnessError> {
    let mut out = Vec::new();
    for b in 0..relation.params.requests {
        let Some(trace) = traces.get(b).or(traces.first()) else { continue };
        if name == "out.flag" {
            let weights = fetch(trace, Group::Trace, "out.w")?;
            out.extend(weights.iter().map(|&w| i32::from(w == EXP_ONE)));
        } else {
            out.extend_from_slice(fetch(trace, Group::Trace, name)?);
        }
    }
    Ok(out)
}
