//! The relation: every tensor, constraint and lookup of one proof, built from the semantics' parameters.
//!
//! Sections follow `docs/semantics.md`: `forward`, `backward`, `attribution`; `gadget` holds requantisation, norms and softmax rows.

mod attribution;
mod backward;
mod forward;
mod gadget;

use crate::ir::{Axis, AxisDef, Constraint, F, Factor, Group, Index, Lookup, Source, Sum, TableId, TensorDef, TensorId, Term, int};
use crate::public::Public;
use crate::table::TableKind;
use model_runtime::int::index::{MAX_ROWS, MAX_SKETCH};
use model_runtime::semantics::{Dims, Op, ROPE_BITS, Semantics, SketchShape};
use model_runtime::shape::Site;
use p3_field::PrimeCharacteristicRing;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What is proven beyond the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The answer is the model's.
    Forward,
    /// The answer, its gradient, the scores and the contributors' weights.
    Attribution,
}

/// Whether a proof also shows that the long-lived commitments' entries are in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightRanges {
    /// In this proof.
    Proven,
    /// By registration proofs of their pins ([`crate::registration`]): who verifies must have accepted those.
    Registered,
    /// Assumed (benchmarks of very large shapes only); part of the relation's digest and shown by every command.
    AssumedInsecure,
}

/// A long-lived commitment that a relation speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The base model.
    Base,
    /// The adapter.
    Adapter,
    /// The index.
    Index,
}

impl Part {
    /// All, in the order of their commitments.
    pub const ALL: [Self; 3] = [Self::Base, Self::Adapter, Self::Index];

    /// Its commitment.
    pub fn group(self) -> Group {
        match self {
            Self::Base => Group::Base,
            Self::Adapter => Group::Adapter,
            Self::Index => Group::Index,
        }
    }
}

/// What a relation is for. Statements of answers are of requests only; the others are registrations' ([`crate::registration`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Answers and, in their scope, what bears on them.
    Requests,
    /// A long-lived commitment is well-formed: ranges, zeros; an index' rows have their length, its contributors are the stated ones, and rows
    /// that don't earn are zero.
    Form(Part),
    /// Each request is a sample, and its sketch is a row of the index.
    Rows,
}

/// Who vouches for the lookup tables' contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableMode {
    /// The verifier evaluates every table itself.
    Evaluated,
    /// Tables are committed like tensors: for the outer circuit, which knows the right commitment.
    Committed,
}

/// Everything that determines a relation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelationParams {
    /// The integer semantics.
    pub semantics: Semantics,
    /// Scope.
    pub scope: Scope,
    /// Range proofs of the long-lived commitments.
    pub weight_ranges: WeightRanges,
    /// Lookup tables.
    pub tables: TableMode,
    /// Padded tokens of a request.
    pub tokens: usize,
    /// Padded answer slots of a request.
    pub slots: usize,
    /// Padded number of requests.
    pub requests: usize,
    /// True rows of the index (0 for [`Scope::Forward`]).
    pub rows: usize,
    /// Number of contributors (0 for [`Scope::Forward`]).
    pub contributors: usize,
}

/// Why no relation can be built.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RelationError {
    /// The semantics lack an entry.
    #[error("the semantics have no {kind} for `{name}`; re-import the model, adapter and index with this version")]
    Missing {
        /// `operation`, `exponent`, `constant` or `width`.
        kind: &'static str,
        /// The entry's name.
        name: String,
    },
    /// An operation's identity could wrap around the field.
    #[error(
        "operation `{name}` needs values up to {bound}, the field allows less than 2130706433: for so many tokens or so wide a layer the model must be imported again, with a smaller --context"
    )]
    Wraps {
        /// The operation.
        name: String,
        /// Its largest value.
        bound: i128,
    },
    /// A parameter is outside what the protocol supports.
    #[error("{what} is {found}, expected {expected}")]
    Parameter {
        /// The parameter.
        what: String,
        /// What was found.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
}

/// The axes of `docs/semantics.md`, as indices into [`Relation::axes`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Axes {
    pub b: Axis,
    pub l: Axis,
    pub t: Axis,
    pub u: Axis,
    pub d: Axis,
    pub g: Axis,
    pub j: Axis,
    pub z: Axis,
    pub p: Axis,
    pub f: Axis,
    pub r: Axis,
    pub v: Axis,
    pub s: Axis,
    pub a: Axis,
    pub k: Axis,
    pub i: Axis,
    pub c: Axis,
}

/// A sum by key: over `free`, `Σ value/(α - tag - β·request - β²·contributor)` equals the same sum over the published weights.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// Free axes: request and index row.
    pub free: Vec<Axis>,
    /// What is summed.
    pub value: Sum,
    /// The key: request number, contributor.
    pub key: [Sum; 2],
    /// Axes of the published weights: request, contributor.
    pub published: [Axis; 2],
}

/// A complete relation.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Its parameters.
    pub params: RelationParams,
    /// What it is for.
    pub purpose: Purpose,
    /// Axes.
    pub axes: Vec<AxisDef>,
    /// Committed tensors.
    pub tensors: Vec<TensorDef>,
    /// Tables with their multiplicity tensors.
    pub tables: Vec<(TableKind, TensorId)>,
    /// Each table's committed columns, those without a closed form; empty where the verifier evaluates tables.
    pub table_columns: Vec<Vec<TensorId>>,
    /// Lookups.
    pub lookups: Vec<Lookup>,
    /// Weighted sum of relevance by contributor.
    pub aggregation: Option<Aggregation>,
    /// Constraints.
    pub constraints: Vec<Constraint>,
}

impl Relation {
    /// Builds the relation.
    ///
    /// # Errors
    ///
    /// When the parameters are incomplete or outside what the protocol supports.
    pub fn new(params: &RelationParams) -> Result<Self, RelationError> {
        Self::of(params, Purpose::Requests)
    }

    /// Builds the relation of a purpose; rows of an index are of [`Scope::Attribution`].
    ///
    /// # Errors
    ///
    /// As [`Relation::new`].
    pub fn of(params: &RelationParams, purpose: Purpose) -> Result<Self, RelationError> {
        check(params)?;
        let mut builder = Builder::new(params, purpose);
        match purpose {
            Purpose::Form(Part::Base) => builder.base()?,
            Purpose::Form(Part::Adapter) => builder.adapter()?,
            Purpose::Form(Part::Index) => builder.index_form()?,
            Purpose::Requests | Purpose::Rows => {
                builder.base()?;
                builder.adapter()?;
                builder.forward()?;
                if params.scope == Scope::Attribution {
                    builder.backward()?;
                    builder.attribution()?;
                }
            }
        }
        let relation = builder.finish();
        relation.check_sizes()?;
        Ok(relation)
    }

    /// Refuses tensors that nobody could commit before parameters for them are computed.
    fn check_sizes(&self) -> Result<(), RelationError> {
        let too_large = self.tensors.iter().find(|t| self.log(&t.axes) > MAX_TENSOR_LOG);
        too_large.map_or(Ok(()), |t| {
            let found = format!("2^{} values", self.log(&t.axes));
            Err(RelationError::Parameter { what: format!("size of `{}`", t.name), found, expected: "at most 2^34 values" })
        })
    }

    /// Log size of a list of axes.
    pub fn log(&self, axes: &[Axis]) -> usize {
        axes.iter().map(|a| self.axes[a.0].log).sum()
    }

    /// Log sizes, axis by axis.
    pub fn logs(&self, axes: &[Axis]) -> Vec<usize> {
        axes.iter().map(|a| self.axes[a.0].log).collect()
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<TensorId> {
        self.tensors.iter().position(|t| t.name == name).map(TensorId)
    }

    /// The padded sizes of one trace.
    pub fn dims(&self) -> Dims {
        Dims::new(&self.params.semantics, self.params.tokens, self.params.slots)
    }
}

// `MAX_ROWS` relevances of `RELEVANCE_BITS` stay within 2^30: no weight leaves the field, none is ambiguous.
const _: () = assert!(MAX_ROWS << attribution::RELEVANCE_BITS <= 1 << 30);

/// Most requests of a proof, padding included.
pub const MAX_REQUESTS: usize = 1 << 10;

/// Largest tensor, in variables.
const MAX_TENSOR_LOG: usize = 34;

fn check(params: &RelationParams) -> Result<(), RelationError> {
    let padded = |x: usize| x.max(1).checked_next_power_of_two().unwrap_or(0);
    let limits = [
        ("tokens", params.tokens, 1 << 14),
        ("answer slots", params.slots, 1 << 14),
        ("requests", params.requests, MAX_REQUESTS),
        ("index rows", padded(params.rows), 1 << 20),
        ("contributors", padded(params.contributors), 1 << 16),
    ];
    for (what, value, limit) in limits {
        if !value.is_power_of_two() || value > limit {
            return Err(RelationError::Parameter { what: what.into(), found: value.to_string(), expected: "a supported power of two" });
        }
    }
    check_shape(params)?;
    if params.rows > MAX_ROWS {
        return Err(RelationError::Parameter {
            what: "index rows".into(),
            found: params.rows.to_string(),
            expected: "at most 131072: no sum of relevances may reach 2^30",
        });
    }
    if params.scope == Scope::Forward && (params.rows != 0 || params.contributors != 0) {
        let found = format!("{} rows, {} contributors", params.rows, params.contributors);
        return Err(RelationError::Parameter { what: "index".into(), found, expected: "no rows and no contributors without attribution" });
    }
    if params.scope == Scope::Attribution
        && (params.rows == 0 || params.contributors == 0 || params.semantics.lora.is_none() || params.semantics.sketch.is_none())
    {
        return Err(RelationError::Parameter {
            what: "attribution".into(),
            found: "no adapter or an empty index".into(),
            expected: "an adapter and an index with at least one row",
        });
    }
    Ok(())
}

/// Sizes far beyond any model that could be proven are refused before anything is computed from them.
fn check_shape(params: &RelationParams) -> Result<(), RelationError> {
    let s = &params.semantics.shape;
    let refuse = |what: &str, found: String, expected| Err(RelationError::Parameter { what: what.into(), found, expected });
    let sizes = [
        (s.layers, 1 << 10),
        (s.width, 1 << 14),
        (s.heads, 1 << 8),
        (s.kv_heads, 1 << 8),
        (s.head_dim, 1 << 10),
        (s.ff, 1 << 16),
        (s.vocab, 1 << 17),
    ];
    if sizes.iter().any(|&(x, most)| x == 0 || x > most) || !s.heads.is_multiple_of(s.kv_heads.max(1)) || !s.head_dim.is_multiple_of(2) {
        return refuse(
            "architecture",
            format!("{s:?}"),
            "positive sizes up to 1024 layers, width 16384, 256 heads of 1024 channels, feed-forward 65536, vocabulary 131072; kv_heads dividing heads; an even head size",
        );
    }
    if ![s.rope_theta, s.norm_eps].iter().all(|x| x.is_finite() && *x > 0.0) {
        return refuse("architecture", format!("{s:?}"), "finite, positive rope_theta and norm_eps");
    }
    if let Some(lora) = &params.semantics.lora {
        let ordered = lora.sites.windows(2).all(|w| w[0] < w[1]);
        if !(1..=1 << 10).contains(&lora.rank) || lora.sites.is_empty() || !ordered {
            return refuse("LoRA", format!("{lora:?}"), "rank 1 to 1024 and at least one site, each once, in order");
        }
    }
    if let Some(sketch) = &params.semantics.sketch {
        check_sketch(params, sketch)?;
    }
    if params.semantics.ops.values().flat_map(|op| &op.coefs).any(|c| c.unsigned_abs() > 1 << 30) {
        return refuse("coefficients", "one beyond 2^30".into(), "at most 2^30");
    }
    Ok(())
}

fn check_sketch(params: &RelationParams, sketch: &SketchShape) -> Result<(), RelationError> {
    let refuse = |expected| Err(RelationError::Parameter { what: "sketch".into(), found: format!("{sketch:?}"), expected });
    let power = |k: usize| k.is_power_of_two() && k <= 1 << 10;
    if !power(sketch.rows) || !sketch.ranks.is_none_or(power) {
        return refuse("rows and ranks that are powers of two up to 1024");
    }
    let sites = params.semantics.sites();
    if sketch.sites.is_empty() || sketch.sites.windows(2).any(|w| w[0] >= w[1]) || !sketch.sites.iter().all(|s| sites.contains(s)) {
        return refuse("at least one of the adapter's sites, each once, in order");
    }
    let len = params.semantics.sketch_len();
    if len > MAX_SKETCH {
        return refuse("at most 16384 entries");
    }
    Ok(())
}

/// Builds a relation section by section.
struct Builder<'a> {
    params: &'a RelationParams,
    purpose: Purpose,
    sem: &'a Semantics,
    x: Axes,
    out: Relation,
    /// Largest absolute value that the constraints allow, per tensor, once it is known.
    max: Vec<Option<i64>>,
}

impl<'a> Builder<'a> {
    fn new(params: &'a RelationParams, purpose: Purpose) -> Self {
        let d = Dims::new(&params.semantics, params.tokens, params.slots);
        let mut axes = Vec::new();
        let mut axis = |name, padded: usize, size: usize| {
            axes.push(AxisDef { name, log: padded.trailing_zeros() as usize, size });
            Axis(axes.len() - 1)
        };
        let (sem, s) = (&params.semantics, &params.semantics.shape);
        let rank = sem.lora.as_ref().map_or(1, |l| l.rank);
        let (rows, contributors) = (params.rows.max(1), params.contributors.max(1).next_power_of_two());
        let x = Axes {
            b: axis("b", params.requests, params.requests),
            l: axis("l", d.l, s.layers),
            t: axis("t", d.t, d.t),
            u: axis("u", d.t, d.t),
            d: axis("d", d.d, s.width),
            g: axis("g", d.g, s.kv_heads),
            j: axis("j", d.j, s.heads / s.kv_heads),
            z: axis("z", 2, 2),
            p: axis("p", d.p, s.head_dim / 2),
            f: axis("f", d.f, s.ff),
            r: axis("r", d.r, rank),
            v: axis("v", d.v, s.vocab),
            s: axis("s", d.s, d.s),
            a: axis("a", d.a, d.a),
            k: axis("k", d.k, sem.sketch.as_ref().and_then(|x| x.ranks).unwrap_or(rank)),
            i: axis("i", rows.next_power_of_two(), rows),
            c: axis("c", contributors, contributors),
        };
        let out = Relation {
            params: params.clone(),
            purpose,
            axes,
            tensors: vec![],
            tables: vec![],
            table_columns: vec![],
            lookups: vec![],
            aggregation: None,
            constraints: vec![],
        };
        Self { params, purpose, sem, x, out, max: vec![] }
    }

    fn finish(self) -> Relation {
        self.out
    }

    fn op(&self, name: &str) -> Result<&'a Op, RelationError> {
        let op = self.sem.ops.get(name).ok_or_else(|| missing("operation", name))?;
        if !(1..=16).contains(&op.shift) || !(2..=16).contains(&op.bits) {
            return Err(RelationError::Parameter {
                what: format!("operation `{name}`"),
                found: format!("shift {}, {} bits", op.shift, op.bits),
                expected: "shift 1 to 16, 2 to 16 bits",
            });
        }
        Ok(op)
    }

    fn coef(&self, name: &str, i: usize) -> Result<i64, RelationError> {
        self.op(name)?.coefs.get(i).copied().ok_or_else(|| missing("coefficient", name))
    }

    fn constant(&self, name: &str) -> Result<i64, RelationError> {
        self.sem.consts.get(name).copied().ok_or_else(|| missing("constant", name))
    }

    fn exponent(&self, name: &str) -> Result<i32, RelationError> {
        let k = self.sem.exps.get(name).copied().ok_or_else(|| missing("exponent", name))?;
        match (-64..=64).contains(&k) {
            true => Ok(k),
            false => Err(RelationError::Parameter { what: format!("exponent of `{name}`"), found: k.to_string(), expected: "-64 to 64" }),
        }
    }

    fn tensor(&mut self, name: &str, group: Group, axes: &[Axis]) -> TensorId {
        self.out.tensors.push(TensorDef { name: name.to_owned(), group, axes: axes.to_vec() });
        self.max.push(None);
        TensorId(self.out.tensors.len() - 1)
    }

    /// A trace tensor with the request axis in front.
    fn trace(&mut self, name: &str, axes: &[Axis]) -> TensorId {
        let axes: Vec<Axis> = std::iter::once(self.x.b).chain(axes.iter().copied()).collect();
        self.tensor(name, Group::Trace, &axes)
    }

    fn id(&self, name: &str) -> TensorId {
        self.out.tensor(name).unwrap_or_else(|| unreachable!("tensor `{name}` is declared before it is read"))
    }

    /// A factor reading a declared tensor by its own axes.
    fn read(&self, name: &str) -> Factor {
        let id = self.id(name);
        let index = self.out.tensors[id.0].axes.iter().map(|&a| Index::Var(a)).collect();
        Factor { source: Source::Tensor(id), index }
    }

    /// The same with some axes renamed.
    fn read_as(&self, name: &str, renamed: &[(Axis, Index)]) -> Factor {
        let mut factor = self.read(name);
        for index in &mut factor.index {
            if let Some((_, to)) = index.axis().and_then(|a| renamed.iter().find(|(from, _)| *from == a)) {
                *index = *to;
            }
        }
        factor
    }

    /// Records the largest absolute value the constraints leave a tensor.
    fn bounded(&mut self, name: &str, max: i64) {
        let id = self.id(name);
        self.max[id.0] = Some(max);
    }

    /// Largest absolute value of a sum, from the ranges of its tensors and the true sizes of its summed axes.
    fn bound(&self, free: &[Axis], terms: &[(i64, &Term)]) -> Result<i128, RelationError> {
        let mut total = 0i128;
        for (coef, term) in terms {
            let mut bound = i128::from(coef.unsigned_abs());
            for factor in &term.factors {
                bound = bound.saturating_mul(self.factor_bound(factor)?);
            }
            for axis in term.axes().into_iter().filter(|a| !free.contains(a)) {
                bound = bound.saturating_mul(self.out.axes[axis.0].size as i128);
            }
            total = total.saturating_add(bound);
        }
        Ok(total)
    }

    fn factor_bound(&self, factor: &Factor) -> Result<i128, RelationError> {
        match factor.source {
            Source::Tensor(id) => self.max[id.0].map(i128::from).ok_or_else(|| missing("proven range", &self.out.tensors[id.0].name)),
            Source::Public(Public::Cos | Public::SinForward | Public::SinInverse) => Ok(1 << ROPE_BITS),
            Source::Public(_) => Ok(1),
        }
    }

    fn constrain(&mut self, name: &str, sum: Sum) {
        self.out.constraints.push(Constraint { name: name.to_owned(), sum });
    }

    fn table(&mut self, kind: TableKind) -> TableId {
        if let Some(i) = self.out.tables.iter().position(|(k, _)| *k == kind) {
            return TableId(i);
        }
        let name = format!("mult.{kind:?}");
        self.out.axes.push(AxisDef { name: "row", log: kind.log(), size: 1 << kind.log() });
        let axis = Axis(self.out.axes.len() - 1);
        let mult = self.tensor(&name, Group::Trace, &[axis]);
        if self.params.tables == TableMode::Committed {
            let columns = kind.dense_columns().into_iter().map(|k| self.tensor(&format!("table.{kind:?}.{k}"), Group::Tables, &[axis])).collect();
            self.out.table_columns.push(columns);
        }
        self.out.tables.push((kind, mult));
        TableId(self.out.tables.len() - 1)
    }

    fn look_up(&mut self, name: &str, kind: TableKind, free: &[Axis], tuple: Vec<Vec<Term>>) {
        self.look_up_where(name, kind, free, None, tuple);
    }

    fn look_up_where(&mut self, name: &str, kind: TableKind, free: &[Axis], numerator: Option<Vec<Term>>, tuple: Vec<Vec<Term>>) {
        let table = self.table(kind);
        let sum = |terms| Sum { free: free.to_vec(), terms };
        self.out.lookups.push(Lookup {
            name: name.to_owned(),
            table,
            numerator: numerator.map(sum),
            tuple: tuple.into_iter().map(sum).collect(),
            free: free.to_vec(),
        });
    }

    /// `x` in `[0, 2^bits)` for a declared tensor.
    fn range(&mut self, name: &str, bits: u32) {
        let factor = self.read(name);
        let free: Vec<Axis> = self.out.tensors[self.id(name).0].axes.clone();
        self.look_up(&format!("{name} in range"), TableKind::Range(bits), &free, vec![vec![product([factor])]]);
        self.bounded(name, (1 << bits) - 1);
    }

    /// `x` in `[-2^(bits-1), 2^(bits-1))` for a declared tensor.
    fn signed_range(&mut self, name: &str, bits: u32) {
        let free: Vec<Axis> = self.out.tensors[self.id(name).0].axes.clone();
        let terms = vec![product([self.read(name)]), constant(1 << (bits - 1))];
        self.look_up(&format!("{name} in range"), TableKind::Range(bits), &free, vec![terms]);
        self.bounded(name, 1 << (bits - 1));
    }

    /// Declares the base model, with range checks.
    fn base(&mut self) -> Result<(), RelationError> {
        let Axes { l, d, g, j, z, p, f, v, .. } = self.x;
        self.weight("embed", Group::Base, &[v, d])?;
        self.weight("head", Group::Base, &[v, d])?;
        for site in Site::ALL {
            let (output, input) = self.site_axes(site);
            let axes: Vec<Axis> = [vec![l], output, input].concat();
            self.weight(&format!("w{}", site.name()), Group::Base, &axes)?;
        }
        debug_assert_eq!(self.site_axes(Site::Q).0, [g, j, z, p]);
        debug_assert_eq!(self.site_axes(Site::Up).0, [f]);
        Ok(())
    }

    /// Declares the adapter, with range checks.
    fn adapter(&mut self) -> Result<(), RelationError> {
        let Axes { l, r, .. } = self.x;
        for &site in self.sem.sites() {
            let (output, input) = self.site_axes(site);
            self.weight(&format!("a{}", site.name()), Group::Adapter, &[vec![l, r], input].concat())?;
            self.weight(&format!("b{}", site.name()), Group::Adapter, &[vec![l], output, vec![r]].concat())?;
        }
        Ok(())
    }

    /// A long-lived tensor, its range check and its zeros past the axes' true sizes.
    fn weight(&mut self, name: &str, group: Group, axes: &[Axis]) -> Result<(), RelationError> {
        let bits = self.sem.weight_bits.get(name).copied().ok_or_else(|| missing("width", name))?;
        self.weight_of_bits(name, bits, group, axes)
    }

    /// The same with the width given.
    fn weight_of_bits(&mut self, name: &str, bits: u32, group: Group, axes: &[Axis]) -> Result<(), RelationError> {
        if !(2..=16).contains(&bits) {
            return Err(RelationError::Parameter { what: format!("width of `{name}`"), found: bits.to_string(), expected: "2 to 16 bits" });
        }
        self.tensor(name, group, axes);
        if self.params.weight_ranges == WeightRanges::Proven {
            self.signed_range(name, bits);
        }
        self.bounded(name, 1 << (bits - 1));
        if self.params.weight_ranges == WeightRanges::Registered {
            return Ok(());
        }
        for &axis in axes {
            let AxisDef { log, size, .. } = self.out.axes[axis.0];
            if size < 1 << log {
                self.zero_padding(name, axes, axis);
            }
        }
        Ok(())
    }

    /// Entries past an axis' true size are zero.
    fn zero_padding(&mut self, name: &str, axes: &[Axis], axis: Axis) {
        let mask = public(Public::Below(self.out.axes[axis.0].size), &[axis]);
        let terms = vec![product([self.read(name)]), product([self.read(name), mask]).times(-F::ONE)];
        let label = format!("{name} is zero in the padding of {}", self.out.axes[axis.0].name);
        self.constrain(&label, Sum { free: axes.to_vec(), terms });
    }

    /// Output and input axes of a site's matrix.
    fn site_axes(&self, site: Site) -> (Vec<Axis>, Vec<Axis>) {
        let Axes { d, g, j, z, p, f, .. } = self.x;
        match site {
            Site::Q => (vec![g, j, z, p], vec![d]),
            Site::K | Site::V => (vec![g, z, p], vec![d]),
            Site::O => (vec![d], vec![g, j, z, p]),
            Site::Gate | Site::Up => (vec![f], vec![d]),
            Site::Down => (vec![d], vec![f]),
        }
    }
}

fn missing(kind: &'static str, name: &str) -> RelationError {
    RelationError::Missing { kind, name: name.to_owned() }
}

/// `Π factors`.
fn product<const N: usize>(factors: [Factor; N]) -> Term {
    Term { coef: F::ONE, factors: factors.into(), couplings: vec![] }
}

/// A constant.
fn constant(x: i64) -> Term {
    Term { coef: int(x), factors: vec![], couplings: vec![] }
}

/// A public factor.
fn public(public: Public, index: &[Axis]) -> Factor {
    Factor { source: Source::Public(public), index: index.iter().map(|&a| Index::Var(a)).collect() }
}
