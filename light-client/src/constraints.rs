//! The constraints at the challenge: gates, copy constraints, lookups; folded, they're the quotient times the vanishing polynomial.
//!
//! Source: the halo2 book, "Proving system": permutation argument (products in chunks, blinded at the end) and lookup argument
//! (permuted input and table columns with one running product).

use crate::error::ProofError;
use crate::expression::{Assigned, evaluate};
use crate::key::{ColumnKind, Lookup, OuterKey};
use crate::lagrange::Rows;
use crate::word::coset_generator;
use ark_bn254::Fr;
use ark_ff::{Field, One, Zero};

/// Challenges up to the evaluation point.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    /// Those that expressions use.
    pub(crate) phases: Vec<Fr>,
    /// Combines a lookup's columns.
    pub(crate) theta: Fr,
    /// Combines a value with its place or its table.
    pub(crate) beta: Fr,
    /// Shifts a combined value.
    pub(crate) gamma: Fr,
    /// Combines the constraints. Soundness error: their number over the field's order.
    pub(crate) y: Fr,
    /// Where everything is evaluated. Soundness error: the numerator's degree over the field's order.
    pub(crate) x: Fr,
}

/// A permutation product's values: here, a row further, and on the last row (but for the last product).
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) here: Fr,
    pub(crate) next: Fr,
    pub(crate) last: Option<Fr>,
}

/// A lookup's values.
#[derive(Clone, Debug)]
pub(crate) struct LookupValues {
    pub(crate) product: Fr,
    pub(crate) product_next: Fr,
    pub(crate) input: Fr,
    pub(crate) input_previous: Fr,
    pub(crate) table: Fr,
}

/// All values at the challenge.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    pub(crate) instance: Vec<Fr>,
    pub(crate) advice: Vec<Fr>,
    pub(crate) fixed: Vec<Fr>,
    pub(crate) random: Fr,
    pub(crate) permutation: Vec<Fr>,
    pub(crate) products: Vec<Product>,
    pub(crate) lookups: Vec<LookupValues>,
}

/// Lagrange polynomials at the challenge.
struct Selectors {
    first: Fr,
    last: Fr,
    active: Fr,
}

impl Selectors {
    fn new(key: &OuterKey, rows: &Rows, x: Fr) -> Result<Self, ProofError> {
        let before = key.parts().last_rotation();
        // The last row, the blinding rows, and the first row, which follows them around the circle.
        let lagrange = rows.lagrange(x, before.into(), before.unsigned_abs() as usize + 1)?;
        let [last, blinding @ .., first] = lagrange.as_slice() else { return Err(ProofError::Key) };
        let (last, blinding) = (*last, blinding.iter().sum::<Fr>());
        Ok(Self { first: *first, last, active: Fr::one() - last - blinding })
    }
}

/// Powers of `y` from the last constraint back.
struct Folded {
    y: Fr,
    sum: Fr,
}

impl Folded {
    fn push(&mut self, constraint: Fr) {
        self.sum = self.sum * self.y + constraint;
    }
}

/// The constraints' combination at the challenge, over the vanishing polynomial: what the quotient must be.
pub(crate) fn quotient(key: &OuterKey, rows: &Rows, challenges: &Challenges, values: &Values) -> Result<Fr, ProofError> {
    let selectors = Selectors::new(key, rows, challenges.x)?;
    let assigned = Assigned { fixed: &values.fixed, advice: &values.advice, instance: &values.instance, challenges: &challenges.phases };
    let nodes = evaluate(&key.parts().nodes, &assigned)?;
    let mut folded = Folded { y: challenges.y, sum: Fr::zero() };
    for gate in &key.parts().gates {
        folded.push(*nodes.get(*gate as usize).ok_or(ProofError::Key)?);
    }
    permutation(key, challenges, values, &selectors, &mut folded)?;
    for (lookup, values) in key.parts().lookups.iter().zip(&values.lookups) {
        self::lookup(lookup, &nodes, challenges, values, &selectors, &mut folded)?;
    }
    let vanishing = rows.vanishing(challenges.x).inverse().ok_or(ProofError::UnluckyChallenge)?;
    Ok(folded.sum * vanishing)
}

/// The values of the permuted columns on their own rows.
fn permuted(key: &OuterKey, values: &Values) -> Result<Vec<Fr>, ProofError> {
    let value = |(kind, query): &(ColumnKind, usize)| {
        let list = match kind {
            ColumnKind::Advice => &values.advice,
            ColumnKind::Fixed => &values.fixed,
            ColumnKind::Instance => &values.instance,
        };
        list.get(*query).copied().ok_or(ProofError::Key)
    };
    key.permutation_queries().iter().map(value).collect()
}

/// The products start at one, hand over from chunk to chunk, end at zero or one, and take each row's step.
fn permutation(key: &OuterKey, challenges: &Challenges, values: &Values, at: &Selectors, folded: &mut Folded) -> Result<(), ProofError> {
    let products = &values.products;
    if let (Some(first), Some(last)) = (products.first(), products.last()) {
        folded.push(at.first * (Fr::one() - first.here));
        folded.push(at.last * (last.here.square() - last.here));
    }
    for (product, previous) in products.iter().skip(1).zip(products) {
        folded.push(at.first * (product.here - previous.last.ok_or(ProofError::Key)?));
    }
    let (beta, gamma) = (challenges.beta, challenges.gamma);
    let columns = permuted(key, values)?;
    let chunk = key.parts().chunk();
    let step = coset_generator();
    let mut place = beta * challenges.x;
    for (product, (columns, images)) in products.iter().zip(columns.chunks(chunk).zip(values.permutation.chunks(chunk))) {
        let left = columns.iter().zip(images).fold(product.next, |left, (value, image)| left * (*value + beta * image + gamma));
        let mut right = product.here;
        for value in columns {
            right *= *value + place + gamma;
            place *= step;
        }
        folded.push(at.active * (left - right));
    }
    Ok(())
}

/// The product starts at one, ends at zero or one and takes each row's step; the permuted columns agree row by row, or the input repeats.
fn lookup(lookup: &Lookup, nodes: &[Fr], challenges: &Challenges, v: &LookupValues, at: &Selectors, folded: &mut Folded) -> Result<(), ProofError> {
    let combined = |columns: &[u32]| {
        let add = |sum: Fr, column: &u32| nodes.get(*column as usize).map(|value| sum * challenges.theta + value);
        columns.iter().try_fold(Fr::zero(), add).ok_or(ProofError::Key)
    };
    let (beta, gamma) = (challenges.beta, challenges.gamma);
    let left = v.product_next * (v.input + beta) * (v.table + gamma);
    let right = v.product * (combined(&lookup.inputs)? + beta) * (combined(&lookup.tables)? + gamma);
    folded.push(at.first * (Fr::one() - v.product));
    folded.push(at.last * (v.product.square() - v.product));
    folded.push(at.active * (left - right));
    folded.push(at.first * (v.input - v.table));
    folded.push(at.active * (v.input - v.table) * (v.input - v.input_previous));
    Ok(())
}
