//! The language relations are written in: tensors, sums of products over axes, constraints and lookups.
//!
//! A [`Sum`] with free axes `x` is the function `x ↦ Σ_terms coef · Σ_y Π factors(x, y)`. A constraint says that a sum is zero
//! everywhere; a lookup says that a tuple of sums is a row of a table wherever its numerator isn't zero. Prover, verifier, cost
//! counter and debug checker all interpret these values and nothing else.
//!
//! Multilinear form: at a point `τ` of the free axes, `Sum(τ) = Σ_terms coef · Σ_y Π_axes weight(τ, y) · Π factors(y)`, where the
//! weight of a free axis is `eq` unless the term couples it differently (Thaler, "Proofs, Arguments, and Zero-Knowledge", section 4.4).

use crate::public::Public;
use p3_field::{Field, PrimeCharacteristicRing};

/// The base field.
pub type F = p3_koala_bear::KoalaBear;
/// The challenge field: the quintic extension, about 155 bits.
pub type EF = p3_field::extension::QuinticTrinomialExtensionField<F>;

/// An axis: an index into [`Relation::axes`](crate::relation::Relation::axes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Axis(pub usize);

/// An axis' name and size.
#[derive(Clone, Debug)]
pub struct AxisDef {
    /// Name as in `docs/semantics.md`.
    pub name: &'static str,
    /// Base-two logarithm of the padded size.
    pub log: usize,
    /// Size without the padding where weights are zero, the padded size for axes that have none.
    pub size: usize,
}

/// Which commitment a tensor lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// The base model.
    Base,
    /// The LoRA adapter.
    Adapter,
    /// The attribution index.
    Index,
    /// Lookup tables, where the verifier doesn't evaluate them itself.
    Tables,
    /// The trace of the requests.
    Trace,
}

impl Group {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Group::Base => "base model",
            Group::Adapter => "adapter",
            Group::Index => "index",
            Group::Tables => "tables",
            Group::Trace => "trace",
        }
    }

    /// Whether its commitment outlives a proof, so that statements name it by its pin ([`crate::statement::pin`]).
    pub fn is_pinned(self) -> bool {
        matches!(self, Group::Base | Group::Adapter | Group::Index)
    }

    /// All groups in canonical order.
    pub const ALL: [Group; 5] = [Group::Base, Group::Adapter, Group::Index, Group::Tables, Group::Trace];
}

/// A committed tensor: an index into [`Relation::tensors`](crate::relation::Relation::tensors).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub usize);

/// A committed tensor's name, commitment and axes (row-major).
#[derive(Clone, Debug)]
pub struct TensorDef {
    /// Name as in `docs/semantics.md`.
    pub name: String,
    /// The commitment it lives in.
    pub group: Group,
    /// Axes, outermost first.
    pub axes: Vec<Axis>,
}

/// How one axis of a factor is indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Index {
    /// By the axis variable.
    Var(Axis),
    /// By the complement `1 - x` of a one-bit axis variable.
    Flip(Axis),
    /// At a fixed position.
    At(usize),
}

impl Index {
    /// The axis variable, if there is one.
    pub fn axis(self) -> Option<Axis> {
        match self {
            Index::Var(a) | Index::Flip(a) => Some(a),
            Index::At(_) => None,
        }
    }
}

/// What a factor reads.
#[derive(Clone, Debug)]
pub enum Source {
    /// A committed tensor.
    Tensor(TensorId),
    /// Public structure, evaluated by the verifier itself.
    Public(Public),
}

/// One factor of a product.
#[derive(Clone, Debug)]
pub struct Factor {
    /// What it reads.
    pub source: Source,
    /// An index for each of its axes.
    pub index: Vec<Index>,
}

/// How a term's position on a free axis relates to the sum's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// Position `x` contributes to `x + 1`.
    Next,
    /// Position `x` contributes to `x - 1`.
    Previous,
    /// The term, which doesn't depend on the axis, contributes to one position only.
    Only(usize),
}

/// `coef · Σ Π factors`; axes of factors that are not free are summed over.
#[derive(Clone, Debug)]
pub struct Term {
    /// Coefficient.
    pub coef: F,
    /// Factors; none for a constant.
    pub factors: Vec<Factor>,
    /// Free axes coupled otherwise than by equality.
    pub couplings: Vec<(Axis, Coupling)>,
}

impl Term {
    /// The coupling of a free axis, `None` for equality.
    pub fn coupling(&self, axis: Axis) -> Option<Coupling> {
        self.couplings.iter().find(|(a, _)| *a == axis).map(|(_, c)| *c)
    }

    /// Scales the coefficient.
    pub fn times(mut self, k: F) -> Self {
        self.coef *= k;
        self
    }

    /// Couples a free axis.
    pub fn coupled(mut self, axis: Axis, coupling: Coupling) -> Self {
        self.couplings.push((axis, coupling));
        self
    }

    /// Number of factors that read `axis`.
    pub fn uses(&self, axis: Axis) -> usize {
        self.factors.iter().filter(|f| f.index.iter().any(|i| i.axis() == Some(axis))).count()
    }

    /// Every axis its factors read, ascending.
    pub fn axes(&self) -> Vec<Axis> {
        let mut axes: Vec<Axis> = self.factors.iter().flat_map(|f| f.index.iter().filter_map(|i| i.axis())).collect();
        axes.sort_unstable();
        axes.dedup();
        axes
    }

    /// The axes that need sumcheck rounds at a point of `free`: summed ones, coupled ones, and those that several factors share.
    /// The others (read by one factor, coupled by equality) are bound to the point beforehand.
    pub fn round_axes(&self, free: &[Axis]) -> Vec<Axis> {
        let bound = |a: &Axis| free.contains(a) && self.coupling(*a).is_none() && self.uses(*a) == 1;
        self.axes().into_iter().filter(|a| !bound(a)).collect()
    }
}

/// A sum of terms over free axes.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Free axes, outermost first.
    pub free: Vec<Axis>,
    /// Terms.
    pub terms: Vec<Term>,
}

/// A sum that is zero at every position of its free axes.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// Name, shown when it fails.
    pub name: String,
    /// The sum.
    pub sum: Sum,
}

/// A lookup table: an index into [`Relation::tables`](crate::relation::Relation::tables).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId(pub usize);

/// `Σ numerator/(α - tag - Σ_k β^(k+1)·tuple_k)`: the tuple is a row of the table wherever the numerator isn't zero.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Name, shown when it fails.
    pub name: String,
    /// The table.
    pub table: TableId,
    /// Multiplicity of each position: one, or a sum.
    pub numerator: Option<Sum>,
    /// The looked-up row.
    pub tuple: Vec<Sum>,
    /// Free axes of the tuple.
    pub free: Vec<Axis>,
}

/// A small signed integer as a field element.
pub fn int(x: i64) -> F {
    F::from_i64(x)
}

/// `2^-s` in the field.
pub fn inverse_power_of_two(s: u32) -> F {
    F::from_u64(1 << s).inverse()
}
