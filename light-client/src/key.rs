//! The verifying key of an outer circuit, as data: columns, queries, constraints, commitments and the SRS's points.

use crate::error::KeyError;
use crate::expression::{Available, Node, degrees};
use crate::word::{TWO_ADICITY, Word, keccak, root_of_unity};
use ark_bn254::{Bn254, Fr, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ec::pairing::Pairing;

/// Most columns of a kind.
pub const MAX_COLUMNS: usize = 1 << 10;
/// Most queries of a kind.
pub const MAX_QUERIES: usize = 1 << 11;
/// Most nodes.
pub const MAX_NODES: usize = 1 << 18;
/// Most constraints.
pub const MAX_GATES: usize = 1 << 14;
/// Most lookup arguments.
pub const MAX_LOOKUPS: usize = 64;
/// Most columns of a lookup argument.
pub const MAX_LOOKUP_COLUMNS: usize = 64;
/// Most public inputs, all columns together.
pub const MAX_INPUTS: usize = 1 << 12;
/// Highest degree of a constraint.
pub const MAX_DEGREE: u32 = 64;
/// Phases in which advice is committed.
pub const PHASES: u8 = 3;
/// Most blinding rows.
pub const MAX_BLINDING: u32 = 1 << 10;
/// Farthest rotation.
pub const MAX_ROTATION: i32 = 1 << 16;

/// `[s]₂` of the reference string that `poa srs insecure` makes, as words: real parts first, x before y.
pub const INSECURE_POINT: [&str; 4] = [
    "009473559055b68073c2c0b21cc567ef000c0f4c3efcbf749fdf53755d06f03d",
    "08a51a3a3e6dd0c60968cfcf53e8d3d95d4377ed6b92ed6e2562bb326df298ff",
    "1451c9f02531d9b25c5a21b42bab5f35a7c0f9028117959d1ff326736eb340c6",
    "23f9d5858a1957789e0cd7e31c1b326704c0393a1c2a00e80398a17bea658717",
];

/// Kinds of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// The prover's.
    Advice,
    /// The circuit's.
    Fixed,
    /// Public inputs.
    Instance,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its kind.
    pub kind: ColumnKind,
    /// Its number among those of its kind.
    pub index: u32,
}

/// A column's value some rows further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The column's number; its kind is that of the list.
    pub column: u32,
    /// Rows further (or back).
    pub rotation: i32,
}

/// A lookup argument: the inputs' row is one of the tables' rows. Columns are nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// What is looked up.
    pub inputs: Vec<u32>,
    /// Where.
    pub tables: Vec<u32>,
}

/// Everything a key says; [`OuterKey::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyParts {
    /// The circuit has `2^k` rows.
    pub k: u32,
    /// Degree of the constraint system: the quotient has one piece less, a permutation product covers two columns less.
    pub degree: u32,
    /// Rows at the end that hold blinding factors, one more being the last.
    pub blinding: u32,
    /// What the transcript starts with: halo2's digest of the key.
    pub transcript_start: Fr,
    /// Public inputs of each instance column.
    pub inputs: Vec<u32>,
    /// The phase of each advice column.
    pub advice_phases: Vec<u8>,
    /// The phase after which each challenge is drawn.
    pub challenge_phases: Vec<u8>,
    /// Commitments of the fixed columns.
    pub fixed: Vec<G1Affine>,
    /// Columns with copy constraints and the commitments of their permutations.
    pub permutation: Vec<(Column, G1Affine)>,
    /// Advice queries, in the order of their values in a proof.
    pub advice_queries: Vec<Query>,
    /// Fixed queries, in the order of their values in a proof.
    pub fixed_queries: Vec<Query>,
    /// Instance queries.
    pub instance_queries: Vec<Query>,
    /// The nodes of all expressions.
    pub nodes: Vec<Node>,
    /// Nodes that vanish on every row.
    pub gates: Vec<u32>,
    /// Lookup arguments.
    pub lookups: Vec<Lookup>,
    /// The SRS: the generator of G1.
    pub g1: G1Affine,
    /// The SRS: the generator of G2.
    pub g2: G2Affine,
    /// The SRS: the secret times the generator of G2.
    pub s_g2: G2Affine,
}

/// A checked verifying key, ready for use.
#[derive(Clone, Debug)]
pub struct OuterKey {
    parts: KeyParts,
    omega: Fr,
    permutation_queries: Vec<(ColumnKind, usize)>,
    pairing: [<Bn254 as Pairing>::G2Prepared; 2],
    digest: Word,
    encoding: Vec<u8>,
}

impl PartialEq for OuterKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for OuterKey {}

fn range(what: &'static str, got: u64, least: u64, most: u64) -> Result<(), KeyError> {
    if (least..=most).contains(&got) { Ok(()) } else { Err(KeyError::Range { what, got, least, most }) }
}

fn length<T>(what: &'static str, list: &[T], most: usize) -> Result<(), KeyError> {
    range(what, list.len() as u64, 0, most as u64)
}

impl KeyParts {
    /// Rows.
    pub fn rows(&self) -> u64 {
        1 << self.k.min(TWO_ADICITY)
    }

    /// The last usable row, counted from the end.
    pub(crate) fn last_rotation(&self) -> i32 {
        -(self.blinding.min(MAX_BLINDING) as i32 + 1)
    }

    /// Columns that one permutation product covers.
    pub(crate) fn chunk(&self) -> usize {
        self.degree.saturating_sub(2).max(1) as usize
    }

    /// Permutation products.
    pub(crate) fn products(&self) -> usize {
        self.permutation.len().div_ceil(self.chunk())
    }

    /// Pieces of the quotient.
    pub(crate) fn pieces(&self) -> usize {
        self.degree.saturating_sub(1) as usize
    }

    fn check_sizes(&self) -> Result<(), KeyError> {
        range("k", self.k.into(), 1, TWO_ADICITY.into())?;
        range("the degree", self.degree.into(), 3, MAX_DEGREE.into())?;
        range("the number of blinding rows", self.blinding.into(), 1, MAX_BLINDING.into())?;
        length("the number of instance columns", &self.inputs, MAX_COLUMNS)?;
        length("the number of advice columns", &self.advice_phases, MAX_COLUMNS)?;
        length("the number of challenges", &self.challenge_phases, MAX_COLUMNS)?;
        length("the number of fixed columns", &self.fixed, MAX_COLUMNS)?;
        length("the number of permuted columns", &self.permutation, MAX_COLUMNS)?;
        length("the number of nodes", &self.nodes, MAX_NODES)?;
        length("the number of gates", &self.gates, MAX_GATES)?;
        length("the number of lookups", &self.lookups, MAX_LOOKUPS)?;
        let inputs = self.inputs.iter().map(|n| u64::from(*n)).sum();
        range("the number of public inputs", inputs, 0, MAX_INPUTS as u64)?;
        let longest = self.inputs.iter().copied().max().unwrap_or(0);
        let needed = u64::from(self.blinding) + 3 + u64::from(longest);
        if needed > self.rows() { Err(KeyError::Rows { rows: self.rows(), needed }) } else { Ok(()) }
    }

    fn check_phases(&self) -> Result<(), KeyError> {
        let last = self.advice_phases.iter().copied().max().unwrap_or(0);
        range("an advice column's phase", last.into(), 0, u64::from(PHASES - 1))?;
        self.challenge_phases.iter().try_for_each(|phase| range("a challenge's phase", (*phase).into(), 0, last.into()))
    }

    fn check_queries(&self, what: &'static str, queries: &[Query], columns: usize) -> Result<(), KeyError> {
        length(what, queries, MAX_QUERIES)?;
        let farthest = (MAX_ROTATION as u64).min(self.rows() / 2 - 1);
        for (i, query) in queries.iter().enumerate() {
            let index = query.column as usize;
            if index >= columns {
                return Err(KeyError::Reference { what, index, count: columns });
            }
            range("a rotation's distance", query.rotation.unsigned_abs().into(), 0, farthest)?;
            if queries.iter().take(i).any(|earlier| earlier == query) {
                return Err(KeyError::Duplicate { what });
            }
        }
        Ok(())
    }

    fn check_constraints(&self) -> Result<(), KeyError> {
        let available = Available {
            fixed: self.fixed_queries.len(),
            advice: self.advice_queries.len(),
            instance: self.instance_queries.len(),
            challenges: self.challenge_phases.len(),
        };
        let degrees = degrees(&self.nodes, &available)?;
        let degree = |what, node: &u32| {
            let index = *node as usize;
            degrees.get(index).copied().ok_or(KeyError::Reference { what, index, count: degrees.len() })
        };
        let bounded = |what, index, got| if got <= self.degree { Ok(()) } else { Err(KeyError::Degree { what, index, got, most: self.degree }) };
        for (i, gate) in self.gates.iter().enumerate() {
            bounded("gate", i, degree("a gate", gate)?)?;
        }
        for (i, lookup) in self.lookups.iter().enumerate() {
            range("the number of a lookup's tables", lookup.tables.len() as u64, 1, MAX_LOOKUP_COLUMNS as u64)?;
            range("the number of a lookup's inputs", lookup.inputs.len() as u64, lookup.tables.len() as u64, lookup.tables.len() as u64)?;
            let highest = |nodes: &[u32]| nodes.iter().try_fold(1, |most: u32, node| degree("a lookup", node).map(|d| d.max(most)));
            let total = highest(&lookup.inputs)?.saturating_add(highest(&lookup.tables)?).saturating_add(2);
            bounded("lookup", i, total)?;
        }
        Ok(())
    }

    fn check_points(&self) -> Result<(), KeyError> {
        let on_curve = |point: &G1Affine| point.is_on_curve();
        let fixed = self.fixed.iter().all(on_curve);
        let permutation = self.permutation.iter().all(|(_, point)| on_curve(point));
        let finite = |point: &G2Affine| !point.is_zero() && point.is_on_curve() && point.is_in_correct_subgroup_assuming_on_curve();
        let fail = |what| Err(KeyError::Point { what });
        match () {
            () if !fixed => fail("a fixed column's commitment"),
            () if !permutation => fail("a permutation's commitment"),
            () if self.g1.is_zero() || !on_curve(&self.g1) => fail("the generator of G1"),
            () if !finite(&self.g2) => fail("the generator of G2"),
            () if !finite(&self.s_g2) => fail("the secret's point"),
            () => Ok(()),
        }
    }

    /// For each permuted column, the number of its query on its own row.
    fn permutation_queries(&self) -> Result<Vec<(ColumnKind, usize)>, KeyError> {
        let find = |(position, (column, _)): (usize, &(Column, G1Affine))| {
            let queries = match column.kind {
                ColumnKind::Advice => &self.advice_queries,
                ColumnKind::Fixed => &self.fixed_queries,
                ColumnKind::Instance => &self.instance_queries,
            };
            let own = Query { column: column.index, rotation: 0 };
            let index = queries.iter().position(|query| *query == own).ok_or(KeyError::NotQueried { index: position })?;
            Ok((column.kind, index))
        };
        self.permutation.iter().enumerate().map(find).collect()
    }

    fn check(&self) -> Result<(), KeyError> {
        self.check_sizes()?;
        self.check_phases()?;
        self.check_queries("the advice queries", &self.advice_queries, self.advice_phases.len())?;
        self.check_queries("the fixed queries", &self.fixed_queries, self.fixed.len())?;
        self.check_queries("the instance queries", &self.instance_queries, self.inputs.len())?;
        self.check_constraints()?;
        self.check_points()
    }
}

impl OuterKey {
    /// Checks the parts of a key: sizes, references, degrees, points.
    pub fn new(parts: KeyParts) -> Result<Self, KeyError> {
        parts.check()?;
        let permutation_queries = parts.permutation_queries()?;
        let omega = root_of_unity(parts.k).ok_or(KeyError::Range { what: "k", got: parts.k.into(), least: 1, most: TWO_ADICITY.into() })?;
        let pairing = [parts.s_g2.into(), (-parts.g2).into()];
        let encoding = parts.encode();
        let digest = keccak(&encoding);
        Ok(Self { parts, omega, permutation_queries, pairing, digest, encoding })
    }

    /// Reads the canonical encoding, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::new(KeyParts::decode(bytes)?)
    }

    /// The canonical encoding.
    pub fn encoding(&self) -> &[u8] {
        &self.encoding
    }

    /// Keccak-256 of the canonical encoding: names the circuit and its SRS.
    pub fn digest(&self) -> Word {
        self.digest
    }

    /// What the key says.
    pub fn parts(&self) -> &KeyParts {
        &self.parts
    }

    /// Is the reference string the one whose secret is published? Then anyone can forge proofs.
    pub fn insecure(&self) -> bool {
        let hexadecimal = |word: Word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        crate::points::g2_words(&self.parts.s_g2).map(hexadecimal) == INSECURE_POINT
    }

    /// Public inputs, all columns together.
    pub fn inputs(&self) -> usize {
        self.parts.inputs.iter().map(|n| *n as usize).sum()
    }

    /// Bytes of every proof: 64 a point, 32 a scalar.
    pub fn proof_bytes(&self) -> usize {
        let parts = &self.parts;
        let (products, lookups) = (parts.products(), parts.lookups.len());
        // Advice, permuted lookups, products, lookup products, the random polynomial, the quotient, two of the opening.
        let points = parts.advice_phases.len() + 3 * lookups + products + 1 + parts.pieces() + 2;
        let evaluations = parts.advice_queries.len() + parts.fixed_queries.len() + 1 + parts.permutation.len();
        let scalars = evaluations + (3 * products).saturating_sub(1) + 5 * lookups;
        64 * points + 32 * scalars
    }

    pub(crate) fn omega(&self) -> Fr {
        self.omega
    }

    pub(crate) fn permutation_queries(&self) -> &[(ColumnKind, usize)] {
        &self.permutation_queries
    }

    /// The secret's point and minus the generator of G2, prepared.
    pub(crate) fn pairing(&self) -> &[<Bn254 as Pairing>::G2Prepared; 2] {
        &self.pairing
    }
}
