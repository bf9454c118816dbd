//! Why a key or a proof is refused.

use thiserror::Error;

/// Why a key isn't usable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The bytes end early.
    #[error("the key ends at byte {at}, in the middle of {what}")]
    Truncated {
        /// Where.
        at: usize,
        /// What was being read.
        what: &'static str,
    },
    /// Bytes follow the key.
    #[error("{count} bytes follow the key")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// The first bytes aren't a key's, or are of another version.
    #[error("not an outer verifying key of version 1")]
    Magic,
    /// A number is out of its range.
    #[error("{what} is {got}, expected {least} to {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its value.
        got: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// A byte has no meaning where it stands.
    #[error("{what} has no variant {got}")]
    Variant {
        /// Of what.
        what: &'static str,
        /// The byte.
        got: u8,
    },
    /// A field element isn't below its field's order.
    #[error("{what} isn't below the field's order")]
    NotCanonical {
        /// Which.
        what: &'static str,
    },
    /// A point isn't on its curve or not in the group.
    #[error("{what} isn't a point of the group")]
    Point {
        /// Which.
        what: &'static str,
    },
    /// Something refers to a thing that doesn't exist.
    #[error("{what} refers to number {index}, there are {count}")]
    Reference {
        /// What refers.
        what: &'static str,
        /// To which.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The same query is listed twice.
    #[error("{what} lists the same query twice")]
    Duplicate {
        /// Which list.
        what: &'static str,
    },
    /// A constraint's degree exceeds the key's.
    #[error("{what} {index} has degree {got}, the key allows {most}")]
    Degree {
        /// Gate or lookup.
        what: &'static str,
        /// Which.
        index: usize,
        /// Its degree.
        got: u32,
        /// The key's.
        most: u32,
    },
    /// The rows don't suffice for the blinding factors and public inputs.
    #[error("{rows} rows are too few: {needed} are needed")]
    Rows {
        /// How many there are.
        rows: u64,
        /// How many are needed.
        needed: u64,
    },
    /// A column takes part in copy constraints but isn't queried on the current row.
    #[error("column {index} of the permutation isn't queried on its own row")]
    NotQueried {
        /// Which.
        index: usize,
    },
}

/// Why a proof isn't accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The number of public inputs.
    #[error("{got} public inputs, expected {expected}")]
    Inputs {
        /// How many came.
        got: usize,
        /// How many the circuit has.
        expected: usize,
    },
    /// A public input isn't below the field's order.
    #[error("public input {index} isn't below the field's order")]
    Input {
        /// Which.
        index: usize,
    },
    /// The proof's length.
    #[error("the proof has {got} bytes, expected {expected}")]
    Length {
        /// How many came.
        got: usize,
        /// How many a proof of this circuit has.
        expected: usize,
    },
    /// A scalar isn't below the field's order.
    #[error("the scalar at byte {at} of the proof isn't below the field's order")]
    Scalar {
        /// Where.
        at: usize,
    },
    /// A point isn't on the curve, not canonical, or at infinity.
    #[error("the point at byte {at} of the proof isn't a finite point of the curve in canonical form")]
    Point {
        /// Where.
        at: usize,
    },
    /// A challenge hit one of a handful of excluded values; an honest prover proves again.
    #[error("a challenge has an excluded value: prove again")]
    UnluckyChallenge,
    /// The pairing equation doesn't hold.
    #[error("the proof doesn't verify: the pairing equation doesn't hold")]
    Pairing,
    /// The key contradicts itself; [`crate::OuterKey`] excludes this.
    #[error("the verifying key contradicts itself")]
    Key,
}
