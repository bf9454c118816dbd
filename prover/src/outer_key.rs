//! From a halo2 verifying key to the light client's description of it.

use halo2_axiom::halo2curves::bn256::{Bn256, Fq, Fr, G1Affine, G2Affine};
use halo2_axiom::halo2curves::ff::PrimeField;
use halo2_axiom::halo2curves::group::prime::PrimeCurveAffine;
use halo2_axiom::plonk::{Any, Challenge, ConstraintSystem, Expression, VerifyingKey};
use halo2_axiom::poly::Rotation;
use halo2_axiom::poly::commitment::ParamsProver;
use halo2_axiom::poly::kzg::commitment::ParamsKZG;
use light_client::expression::Node;
use light_client::key::{Column, ColumnKind, Lookup, Query};
use light_client::word::Word;
use light_client::{KeyError, KeyParts, OuterKey, points, word};
use std::cell::RefCell;
use std::collections::HashMap;
use thiserror::Error;

/// Why a key can't be described.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExportError {
    /// The numbers of public inputs don't match the instance columns.
    #[error("{got} instance columns are given a length, the circuit has {expected}")]
    Instances {
        /// How many lengths came.
        got: usize,
        /// How many columns there are.
        expected: usize,
    },
    /// The key was made for another number of rows.
    #[error("the key has 2^{key} rows, the parameters 2^{params}")]
    Rows {
        /// The key's.
        key: u32,
        /// The parameters'.
        params: u32,
    },
    /// A virtual selector or an unlisted query is left in an expression.
    #[error("an expression refers to {0} that the key doesn't list")]
    Unlisted(&'static str),
    /// The light client refuses the key. A degree that is too high means that halo2 clamped it: call `set_minimum_degree`.
    #[error("the light client refuses the key: {0}")]
    Key(#[from] KeyError),
}

/// A field element as an EVM word.
pub fn word_of<F: PrimeField<Repr = [u8; 32]>>(value: &F) -> Word {
    let mut word = value.to_repr();
    word.reverse();
    word
}

/// The words of a point, both zero at infinity.
fn coordinates(point: &G1Affine) -> [Word; 2] {
    if bool::from(point.is_identity()) { [[0; 32]; 2] } else { [word_of::<Fq>(&point.x), word_of::<Fq>(&point.y)] }
}

fn scalar(value: &Fr) -> Result<ark_bn254::Fr, KeyError> {
    word::scalar(&word_of(value)).ok_or(KeyError::NotCanonical { what: "a constant" })
}

fn g1(what: &'static str, point: &G1Affine) -> Result<ark_bn254::G1Affine, KeyError> {
    let [x, y] = coordinates(point);
    points::g1_or_infinity(&x, &y).ok_or(KeyError::Point { what })
}

fn g2(what: &'static str, point: &G2Affine) -> Result<ark_bn254::G2Affine, KeyError> {
    let words = [&point.x.c0, &point.x.c1, &point.y.c0, &point.y.c1].map(word_of::<Fq>);
    points::g2(&words).ok_or(KeyError::Point { what })
}

/// Numbers of queries, by column and rotation.
type Numbers = HashMap<(usize, i32), u32>;

/// Collects expressions as nodes, each distinct one once.
struct Builder {
    fixed: Numbers,
    advice: Numbers,
    instance: Numbers,
    nodes: RefCell<(Vec<Node>, HashMap<Node, u32>)>,
}

impl Builder {
    fn new(cs: &ConstraintSystem<Fr>) -> Self {
        let numbers = |queries: &mut dyn Iterator<Item = (usize, Rotation)>| {
            queries.enumerate().map(|(number, (column, rotation))| ((column, rotation.0), number as u32)).collect()
        };
        Self {
            fixed: numbers(&mut cs.fixed_queries().iter().map(|(c, r)| (c.index(), *r))),
            advice: numbers(&mut cs.advice_queries().iter().map(|(c, r)| (c.index(), *r))),
            instance: numbers(&mut cs.instance_queries().iter().map(|(c, r)| (c.index(), *r))),
            nodes: RefCell::default(),
        }
    }

    fn node(&self, node: Node) -> Result<u32, ExportError> {
        let (nodes, known) = &mut *self.nodes.borrow_mut();
        Ok(*known.entry(node).or_insert_with(|| {
            nodes.push(node);
            nodes.len() as u32 - 1
        }))
    }

    fn query(&self, numbers: &Numbers, column: usize, rotation: Rotation, make: fn(u32) -> Node) -> Result<u32, ExportError> {
        let number = numbers.get(&(column, rotation.0)).ok_or(ExportError::Unlisted("a query"))?;
        self.node(make(*number))
    }

    /// The node of an expression.
    fn add(&self, expression: &Expression<Fr>) -> Result<u32, ExportError> {
        expression.evaluate::<Result<u32, ExportError>>(
            &|value| self.node(Node::Constant(scalar(&value)?)),
            &|_| Err(ExportError::Unlisted("a selector")),
            &|q| self.query(&self.fixed, q.column_index(), q.rotation(), Node::Fixed),
            &|q| self.query(&self.advice, q.column_index(), q.rotation(), Node::Advice),
            &|q| self.query(&self.instance, q.column_index(), q.rotation(), Node::Instance),
            &|challenge: Challenge| self.node(Node::Challenge(challenge.index() as u32)),
            &|a| self.node(Node::Negated(a?)),
            &|a, b| self.node(Node::Sum(a?, b?)),
            &|a, b| self.node(Node::Product(a?, b?)),
            &|a, factor| self.node(Node::Scaled(a?, scalar(&factor)?)),
        )
    }

    fn add_all(&self, expressions: &[Expression<Fr>]) -> Result<Vec<u32>, ExportError> {
        expressions.iter().map(|expression| self.add(expression)).collect()
    }
}

fn queries(list: &mut dyn Iterator<Item = (usize, Rotation)>) -> Vec<Query> {
    list.map(|(column, rotation)| Query { column: column as u32, rotation: rotation.0 }).collect()
}

fn permutation(vk: &VerifyingKey<G1Affine>) -> Result<Vec<(Column, ark_bn254::G1Affine)>, ExportError> {
    let column = |column: &halo2_axiom::plonk::Column<Any>| {
        let kind = match column.column_type() {
            Any::Advice(_) => ColumnKind::Advice,
            Any::Fixed => ColumnKind::Fixed,
            Any::Instance => ColumnKind::Instance,
        };
        Column { kind, index: column.index() as u32 }
    };
    let columns = vk.cs().permutation().get_columns();
    let commitments = vk.permutation().commitments();
    columns.iter().zip(commitments).map(|(c, point)| Ok((column(c), g1("a permutation's commitment", point)?))).collect()
}

/// Describes a verifying key; `inputs` are the numbers of public inputs of the instance columns.
///
/// Fails on keys that halo2 itself would make useless: one whose degree was clamped below that of its constraints.
pub fn outer_key(params: &ParamsKZG<Bn256>, vk: &VerifyingKey<G1Affine>, inputs: &[usize]) -> Result<OuterKey, ExportError> {
    use halo2_axiom::poly::commitment::Params;
    let cs = vk.cs();
    if inputs.len() != cs.num_instance_columns() {
        return Err(ExportError::Instances { got: inputs.len(), expected: cs.num_instance_columns() });
    }
    if vk.get_domain().k() != params.k() {
        return Err(ExportError::Rows { key: vk.get_domain().k(), params: params.k() });
    }
    let builder = Builder::new(cs);
    let gates = cs.gates().iter().map(|gate| builder.add_all(gate.polynomials())).collect::<Result<Vec<_>, _>>()?.concat();
    let lookup = |inputs, tables| Ok(Lookup { inputs: builder.add_all(inputs)?, tables: builder.add_all(tables)? });
    let lookups = cs.lookups().iter().map(|l| lookup(l.input_expressions(), l.table_expressions())).collect::<Result<_, ExportError>>()?;
    let parts = KeyParts {
        k: params.k(),
        // The degree that the key was made with; `cs.degree()` would read the environment again.
        degree: vk.get_domain().get_quotient_poly_degree() as u32 + 1,
        blinding: cs.blinding_factors() as u32,
        transcript_start: scalar(&vk.transcript_repr())?,
        inputs: inputs.iter().map(|n| *n as u32).collect(),
        advice_phases: cs.advice_column_phase(),
        challenge_phases: cs.challenge_phase(),
        fixed: vk.fixed_commitments().iter().map(|point| g1("a fixed column's commitment", point)).collect::<Result<_, _>>()?,
        permutation: permutation(vk)?,
        advice_queries: queries(&mut cs.advice_queries().iter().map(|(c, r)| (c.index(), *r))),
        fixed_queries: queries(&mut cs.fixed_queries().iter().map(|(c, r)| (c.index(), *r))),
        instance_queries: queries(&mut cs.instance_queries().iter().map(|(c, r)| (c.index(), *r))),
        nodes: builder.nodes.into_inner().0,
        gates,
        lookups,
        g1: g1("the generator of G1", &params.get_g()[0])?,
        g2: g2("the generator of G2", &params.g2())?,
        s_g2: g2("the secret's point", &params.s_g2())?,
    };
    Ok(OuterKey::new(parts)?)
}
