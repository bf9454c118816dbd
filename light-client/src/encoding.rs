//! The canonical encoding of a verifying key: one key, one byte string.
//!
//! The magic, then every field of [`KeyParts`] in order. Integers are 4 bytes big-endian (rotations in two's complement), phases, column
//! kinds and node tags one byte, scalars one word, points of G1 two words, points of G2 four; a list is its length and its items.

use crate::error::KeyError;
use crate::expression::Node;
use crate::key::{Column, ColumnKind, KeyParts, Lookup, MAX_COLUMNS, MAX_GATES, MAX_LOOKUP_COLUMNS, MAX_LOOKUPS, MAX_NODES, MAX_QUERIES, Query};
use crate::points;
use crate::word::{Word, scalar, scalar_word};
use ark_bn254::{Fr, G1Affine, G2Affine};

/// The first bytes of every key; the last is the version.
pub const MAGIC: [u8; 8] = *b"poa-key\x01";

impl KeyParts {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer(MAGIC.to_vec());
        [self.k, self.degree, self.blinding].into_iter().for_each(|n| to.integer(n));
        to.scalar(self.transcript_start);
        to.list(&self.inputs, |to, n| to.integer(*n));
        to.list(&self.advice_phases, |to, phase| to.byte(*phase));
        to.list(&self.challenge_phases, |to, phase| to.byte(*phase));
        to.list(&self.fixed, Writer::g1);
        to.list(&self.permutation, |to, (column, point)| {
            to.byte(column.kind as u8);
            to.integer(column.index);
            to.g1(point);
        });
        to.list(&self.advice_queries, Writer::query);
        to.list(&self.fixed_queries, Writer::query);
        to.list(&self.instance_queries, Writer::query);
        to.list(&self.nodes, Writer::node);
        to.list(&self.gates, |to, node| to.integer(*node));
        to.list(&self.lookups, |to, lookup| {
            to.list(&lookup.inputs, |to, node| to.integer(*node));
            to.list(&lookup.tables, |to, node| to.integer(*node));
        });
        to.g1(&self.g1);
        to.g2(&self.g2);
        to.g2(&self.s_g2);
        to.0
    }

    /// Reads the canonical encoding. Points are checked, what they're used for isn't: [`crate::OuterKey::new`] does that.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut from = Reader { bytes, at: 0 };
        if from.take::<8>("the magic")? != MAGIC {
            return Err(KeyError::Magic);
        }
        let parts = Self {
            k: from.integer("k")?,
            degree: from.integer("the degree")?,
            blinding: from.integer("the number of blinding rows")?,
            transcript_start: from.scalar("the transcript's start")?,
            inputs: from.list("instance columns", MAX_COLUMNS, |from| from.integer("an instance column"))?,
            advice_phases: from.list("advice columns", MAX_COLUMNS, |from| from.byte("an advice column's phase"))?,
            challenge_phases: from.list("challenges", MAX_COLUMNS, |from| from.byte("a challenge's phase"))?,
            fixed: from.list("fixed columns", MAX_COLUMNS, |from| from.g1("a fixed column's commitment"))?,
            permutation: from.list("permuted columns", MAX_COLUMNS, Reader::permuted)?,
            advice_queries: from.list("advice queries", MAX_QUERIES, Reader::query)?,
            fixed_queries: from.list("fixed queries", MAX_QUERIES, Reader::query)?,
            instance_queries: from.list("instance queries", MAX_QUERIES, Reader::query)?,
            nodes: from.list("nodes", MAX_NODES, Reader::node)?,
            gates: from.list("gates", MAX_GATES, |from| from.integer("a gate"))?,
            lookups: from.list("lookups", MAX_LOOKUPS, Reader::lookup)?,
            g1: from.g1("the generator of G1")?,
            g2: from.g2("the generator of G2")?,
            s_g2: from.g2("the secret's point")?,
        };
        match from.bytes.len() - from.at {
            0 => Ok(parts),
            count => Err(KeyError::Trailing { count }),
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    fn integer(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn scalar(&mut self, value: Fr) {
        self.0.extend(scalar_word(value));
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.integer(u32::try_from(items.len()).unwrap_or(u32::MAX));
        items.iter().for_each(|item| write(self, item));
    }

    fn g1(&mut self, point: &G1Affine) {
        self.0.extend(points::g1_words(point).concat());
    }

    fn g2(&mut self, point: &G2Affine) {
        self.0.extend(points::g2_words(point).concat());
    }

    fn query(&mut self, query: &Query) {
        self.integer(query.column);
        self.0.extend(query.rotation.to_be_bytes());
    }

    fn node(&mut self, node: &Node) {
        let (tag, operands, factor): (u8, &[u32], Option<Fr>) = match node {
            Node::Constant(value) => (0, &[], Some(*value)),
            Node::Fixed(q) => (1, &[*q], None),
            Node::Advice(q) => (2, &[*q], None),
            Node::Instance(q) => (3, &[*q], None),
            Node::Challenge(c) => (4, &[*c], None),
            Node::Negated(a) => (5, &[*a], None),
            Node::Sum(a, b) => (6, &[*a, *b], None),
            Node::Product(a, b) => (7, &[*a, *b], None),
            Node::Scaled(a, factor) => (8, &[*a], Some(*factor)),
        };
        self.byte(tag);
        operands.iter().for_each(|operand| self.integer(*operand));
        factor.into_iter().for_each(|factor| self.scalar(factor));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], KeyError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.first_chunk::<N>().ok_or(KeyError::Truncated { at: self.bytes.len(), what })?;
        self.at += N;
        Ok(*taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, KeyError> {
        self.take::<1>(what).map(|[byte]| byte)
    }

    fn integer(&mut self, what: &'static str) -> Result<u32, KeyError> {
        self.take(what).map(u32::from_be_bytes)
    }

    fn word(&mut self, what: &'static str) -> Result<Word, KeyError> {
        self.take(what)
    }

    fn scalar(&mut self, what: &'static str) -> Result<Fr, KeyError> {
        scalar(&self.word(what)?).ok_or(KeyError::NotCanonical { what })
    }

    /// Items are read one at a time, so a false length costs no more memory than the bytes that follow it.
    fn list<T>(&mut self, what: &'static str, most: usize, mut read: impl FnMut(&mut Self) -> Result<T, KeyError>) -> Result<Vec<T>, KeyError> {
        let length = self.integer(what)?;
        if length as usize > most {
            return Err(KeyError::Range { what, got: length.into(), least: 0, most: most as u64 });
        }
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn g1(&mut self, what: &'static str) -> Result<G1Affine, KeyError> {
        let (x, y) = (self.word(what)?, self.word(what)?);
        points::g1_or_infinity(&x, &y).ok_or(KeyError::Point { what })
    }

    fn g2(&mut self, what: &'static str) -> Result<G2Affine, KeyError> {
        let words = [self.word(what)?, self.word(what)?, self.word(what)?, self.word(what)?];
        points::g2(&words).ok_or(KeyError::Point { what })
    }

    fn permuted(&mut self) -> Result<(Column, G1Affine), KeyError> {
        let kind = match self.byte("a permuted column's kind")? {
            0 => ColumnKind::Advice,
            1 => ColumnKind::Fixed,
            2 => ColumnKind::Instance,
            got => return Err(KeyError::Variant { what: "a permuted column's kind", got }),
        };
        let column = Column { kind, index: self.integer("a permuted column")? };
        Ok((column, self.g1("a permutation's commitment")?))
    }

    fn query(&mut self) -> Result<Query, KeyError> {
        let column = self.integer("a query's column")?;
        Ok(Query { column, rotation: self.take("a query's rotation").map(i32::from_be_bytes)? })
    }

    fn lookup(&mut self) -> Result<Lookup, KeyError> {
        let inputs = self.list("a lookup's inputs", MAX_LOOKUP_COLUMNS, |from| from.integer("a lookup's input"))?;
        let tables = self.list("a lookup's tables", MAX_LOOKUP_COLUMNS, |from| from.integer("a lookup's table"))?;
        Ok(Lookup { inputs, tables })
    }

    fn node(&mut self) -> Result<Node, KeyError> {
        const WHAT: &str = "a node";
        Ok(match self.byte(WHAT)? {
            0 => Node::Constant(self.scalar(WHAT)?),
            1 => Node::Fixed(self.integer(WHAT)?),
            2 => Node::Advice(self.integer(WHAT)?),
            3 => Node::Instance(self.integer(WHAT)?),
            4 => Node::Challenge(self.integer(WHAT)?),
            5 => Node::Negated(self.integer(WHAT)?),
            6 => Node::Sum(self.integer(WHAT)?, self.integer(WHAT)?),
            7 => Node::Product(self.integer(WHAT)?, self.integer(WHAT)?),
            8 => Node::Scaled(self.integer(WHAT)?, self.scalar(WHAT)?),
            got => return Err(KeyError::Variant { what: WHAT, got }),
        })
    }
}
