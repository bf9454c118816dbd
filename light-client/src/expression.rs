//! Polynomial constraints as data: one list of nodes, each referring to earlier ones only.
//!
//! Gates and lookup columns name nodes of the list. A shared node is stored and evaluated once; there is no recursion.

use crate::error::{KeyError, ProofError};
use ark_bn254::Fr;

/// One node of the list. Queries, challenges and other nodes are given by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A constant.
    Constant(Fr),
    /// The value of a fixed query.
    Fixed(u32),
    /// The value of an advice query.
    Advice(u32),
    /// The value of an instance query.
    Instance(u32),
    /// A challenge.
    Challenge(u32),
    /// Minus an earlier node.
    Negated(u32),
    /// The sum of two earlier nodes.
    Sum(u32, u32),
    /// The product of two earlier nodes.
    Product(u32, u32),
    /// An earlier node times a constant.
    Scaled(u32, Fr),
}

/// How many there are of each thing that a node can refer to.
#[derive(Clone, Copy, Debug)]
pub struct Available {
    /// Fixed queries.
    pub fixed: usize,
    /// Advice queries.
    pub advice: usize,
    /// Instance queries.
    pub instance: usize,
    /// Challenges.
    pub challenges: usize,
}

/// The values that queries and challenges have in a proof.
#[derive(Clone, Copy, Debug)]
pub struct Assigned<'a> {
    /// Of the fixed queries.
    pub fixed: &'a [Fr],
    /// Of the advice queries.
    pub advice: &'a [Fr],
    /// Of the instance queries.
    pub instance: &'a [Fr],
    /// Of the challenges.
    pub challenges: &'a [Fr],
}

fn within(index: u32, count: usize, what: &'static str) -> Result<(), KeyError> {
    let index = index as usize;
    if index < count { Ok(()) } else { Err(KeyError::Reference { what, index, count }) }
}

/// Checks all references; returns each node's degree.
pub fn degrees(nodes: &[Node], available: &Available) -> Result<Vec<u32>, KeyError> {
    let mut degrees: Vec<u32> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let earlier = |index: u32| {
            let count = degrees.len();
            degrees.get(index as usize).copied().ok_or(KeyError::Reference { what: "a node", index: index as usize, count })
        };
        let degree = match *node {
            Node::Constant(_) => 0,
            Node::Fixed(q) => within(q, available.fixed, "a fixed node").map(|()| 1)?,
            Node::Advice(q) => within(q, available.advice, "an advice node").map(|()| 1)?,
            Node::Instance(q) => within(q, available.instance, "an instance node").map(|()| 1)?,
            Node::Challenge(c) => within(c, available.challenges, "a challenge node").map(|()| 0)?,
            Node::Negated(a) | Node::Scaled(a, _) => earlier(a)?,
            Node::Sum(a, b) => earlier(a)?.max(earlier(b)?),
            Node::Product(a, b) => earlier(a)?.saturating_add(earlier(b)?),
        };
        degrees.push(degree);
    }
    Ok(degrees)
}

/// The value of every node.
pub fn evaluate(nodes: &[Node], assigned: &Assigned<'_>) -> Result<Vec<Fr>, ProofError> {
    let take = |values: &[Fr], index: u32| values.get(index as usize).copied().ok_or(ProofError::Key);
    let mut values: Vec<Fr> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let value = match *node {
            Node::Constant(value) => value,
            Node::Fixed(q) => take(assigned.fixed, q)?,
            Node::Advice(q) => take(assigned.advice, q)?,
            Node::Instance(q) => take(assigned.instance, q)?,
            Node::Challenge(c) => take(assigned.challenges, c)?,
            Node::Negated(a) => -take(&values, a)?,
            Node::Sum(a, b) => take(&values, a)? + take(&values, b)?,
            Node::Product(a, b) => take(&values, a)? * take(&values, b)?,
            Node::Scaled(a, factor) => take(&values, a)? * factor,
        };
        values.push(value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVAILABLE: Available = Available { fixed: 1, advice: 1, instance: 0, challenges: 1 };

    #[test]
    fn nodes_refer_backwards_only() {
        let nodes = [Node::Advice(0), Node::Product(0, 1)];
        assert_eq!(degrees(&nodes, &AVAILABLE), Err(KeyError::Reference { what: "a node", index: 1, count: 1 }));
        assert!(degrees(&[Node::Instance(0)], &AVAILABLE).is_err());
        assert!(degrees(&[Node::Negated(0)], &AVAILABLE).is_err());
    }

    #[test]
    fn degrees_add_and_never_wrap() {
        let mut nodes = vec![Node::Advice(0), Node::Challenge(0), Node::Sum(0, 1), Node::Product(2, 0), Node::Scaled(3, Fr::from(2))];
        assert_eq!(degrees(&nodes, &AVAILABLE), Ok(vec![1, 0, 1, 2, 2]));
        nodes.extend((4..60).map(|i| Node::Product(i, i)));
        assert_eq!(degrees(&nodes, &AVAILABLE).unwrap().last(), Some(&u32::MAX));
    }

    #[test]
    fn values_follow_the_nodes() {
        let nodes = [Node::Advice(0), Node::Fixed(0), Node::Sum(0, 1), Node::Product(2, 2), Node::Negated(3), Node::Scaled(4, Fr::from(3))];
        let assigned = Assigned { fixed: &[Fr::from(5)], advice: &[Fr::from(2)], instance: &[], challenges: &[] };
        assert_eq!(evaluate(&nodes, &assigned).unwrap().last(), Some(&-Fr::from(147)));
    }
}
