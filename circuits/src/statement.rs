//! The public statement: what a proof convinces its reader of. One type, one canonical encoding, one hash.

mod clause;
pub mod pin;
mod tokens;

pub use clause::{Clause, Counterpart, Host};
pub use tokens::{TokenDigests, TokenOpening, Tokens, exchange_digest, prompt_digest};

use crate::ir::Group;
use crate::poseidon2;
use crate::public::PublicRequest;
use crate::registration::{Known, RULES};
use crate::relation::{Relation, RelationError, RelationParams};
use p3_bn254::Bn254;
use p3_field::{PrimeCharacteristicRing, PrimeField};
use serde::{Deserialize, Serialize};
use sha3::{Digest as _, Keccak256};
use thiserror::Error;

/// Version of protocol and proof format; part of every digest.
pub const PROTOCOL_VERSION: u32 = 3;

/// Weights are below this, in every host: at most `2^30`, which no sum of relevances exceeds (the relation's limit on rows), and below KoalaBear's
/// order, so that an element has one weight. `light_client::settlement` and the contracts have the same bound.
pub const WEIGHT_BOUND: u64 = (1 << 30) + 1;

/// A 32-byte digest or Merkle root, hexadecimal in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let mut out = [0; 32];
        let expected = || "expected 64 hexadecimal digits".to_owned();
        if s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(expected());
        }
        for (byte, pair) in out.iter_mut().zip(s.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| expected())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| expected())?;
        }
        Ok(Self(out))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Digest {
    /// The bytes, big-endian, as a scalar (modulo its order).
    pub fn word(&self) -> Bn254 {
        let byte = Bn254::from_u64(256);
        self.0.iter().fold(Bn254::ZERO, |acc, &b| acc * byte + Bn254::from_u8(b))
    }

    /// A scalar, big-endian.
    pub fn of_word(word: Bn254) -> Self {
        let mut out = [0; 32];
        let bytes = word.as_canonical_biguint().to_bytes_be();
        out.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(o, b)| *o = *b);
        Self(out)
    }

    /// The same without its three highest bits: a canonical scalar.
    pub fn truncated(mut self) -> Self {
        self.0[0] &= 0x1f;
        self
    }
}

/// Keccak-256.
pub fn keccak(bytes: &[u8]) -> Digest {
    Digest(Keccak256::digest(bytes).into())
}

/// Which hash the inner proof uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Poseidon2 over KoalaBear: fast; for light clients and auditors.
    Native,
    /// Poseidon2 over BN254's scalar field: for the outer proof.
    Evm,
}

/// One request's part of the statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatement {
    /// Ties the proof to one payment.
    pub id: Digest,
    /// Prompt and answer.
    pub tokens: Tokens,
    /// Weight of each contributor, in the order of [`IndexStatement::contributors`]; empty without attribution.
    pub weights: Vec<u64>,
    /// Sum of the weights.
    pub total: u64,
}

impl RequestStatement {
    /// Digests of the tokens; of public ones, with salts of zero.
    pub fn token_digests(&self, capacity: usize) -> TokenDigests {
        match &self.tokens {
            Tokens::Public { tokens, prompt_len } => TokenOpening::public(tokens, *prompt_len).digests(capacity),
            Tokens::Digests(digests) => *digests,
        }
    }

    /// Shares in basis points, `⌊10000·w/total⌋`; what rounding leaves is dust.
    pub fn basis_points(&self) -> Vec<u32> {
        let total = u128::from(self.total.max(1));
        self.weights.iter().map(|&w| u32::try_from(u128::from(w) * 10_000 / total).unwrap_or(u32::MAX)).collect()
    }
}

/// The attribution index and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStatement {
    /// Its [`pin`].
    pub commitment: Digest,
    /// Pin of the base model it was made with.
    pub base: Digest,
    /// Pin of the adapter it was made with.
    pub adapter: Digest,
    /// Root of the datanet.
    pub datanet_root: Digest,
    /// Version of the datanet.
    pub datanet_version: u64,
    /// Contributors, in the order of their numbers.
    pub contributors: Vec<String>,
}

/// The public statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// Hash profile of the inner proof.
    pub profile: Profile,
    /// Architecture, quantisation, policy and sizes.
    pub relation: RelationParams,
    /// [Pin](pin) of the base model.
    pub base: Digest,
    /// Pin of the adapter; absent without one.
    pub adapter: Option<Digest>,
    /// The index; absent without attribution.
    pub index: Option<IndexStatement>,
    /// Root of the lookup tables; absent where the verifier evaluates them.
    pub tables: Option<Digest>,
    /// Digest of the [registration](crate::registration) that the weights' ranges are left to; absent where the proof shows them itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Digest>,
    /// Requests.
    pub requests: Vec<RequestStatement>,
}

/// Why a statement is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StatementError {
    /// Another protocol version.
    #[error("the statement is of protocol version {found}, this program checks version {PROTOCOL_VERSION}")]
    Version {
        /// The statement's version.
        found: u32,
    },
    /// The relation can't be built.
    #[error("the statement's relation: {0}")]
    Relation(#[from] RelationError),
    /// A clause doesn't hold.
    #[error("the statement isn't acceptable ({}): {problem}", clause.name())]
    Clause {
        /// Which.
        clause: Clause,
        /// What is wrong.
        problem: String,
    },
}

impl Statement {
    /// What stands for a group that is committed beforehand: a pin, of the lookup tables the root.
    pub fn commitment(&self, group: Group) -> Option<Digest> {
        match group {
            Group::Base => Some(self.base),
            Group::Adapter => self.adapter,
            Group::Index => self.index.as_ref().map(|i| i.commitment),
            Group::Tables => self.tables,
            Group::Trace => None,
        }
    }

    /// The digest that the proof's transcript absorbs.
    pub fn digest(&self) -> Digest {
        match self.profile {
            Profile::Native => self.keccak_digest(),
            Profile::Evm => Digest::of_word(poseidon2::hash(&self.words())),
        }
    }

    /// The scalars whose Poseidon2 hash is the `evm` profile's digest: the relation's digest, the pins and the tables' root (zero for none), the index's
    /// digest, the number of requests, and of each its id, its prompt's and its exchange's digest and its weights, eight to a scalar.
    pub fn words(&self) -> Vec<Bn254> {
        let commitment = |g: Group| self.commitment(g).unwrap_or_default().word();
        let mut words = vec![self.relation.digest().truncated().word()];
        words.extend([Group::Base, Group::Adapter, Group::Index, Group::Tables].map(commitment));
        words.push(self.index.as_ref().map(|i| i.digest().truncated()).unwrap_or_default().word());
        words.push(Bn254::from_usize(self.requests.len()));
        for request in &self.requests {
            let TokenDigests { prompt, exchange } = request.token_digests(self.relation.tokens);
            words.extend([request.id.truncated().word(), prompt.word(), exchange.word()]);
            words.extend(request.weights.chunks(8).map(poseidon2::pack));
        }
        words
    }

    /// Hash of the canonical encoding: every field, length-prefixed, numbers as eight big-endian bytes.
    fn keccak_digest(&self) -> Digest {
        let mut e = Encoder::new("poa/statement");
        e.number(self.version.into());
        e.number(u64::from(self.profile == Profile::Evm));
        e.bytes(&self.relation.digest().0);
        // The relation says whether there is one.
        self.registration.iter().for_each(|d| e.bytes(&d.0));
        e.bytes(&self.base.0);
        e.optional(self.adapter.as_ref().map(|d| d.0.as_slice()));
        e.optional(self.index.as_ref().map(IndexStatement::digest).as_ref().map(|d| d.0.as_slice()));
        e.optional(self.tables.as_ref().map(|d| d.0.as_slice()));
        e.number(self.requests.len() as u64);
        for request in &self.requests {
            request.encode(&mut e);
        }
        e.finish()
    }

    /// Checks every clause that is about the statement alone, and returns its relation.
    ///
    /// # Errors
    ///
    /// Names the first clause that doesn't hold.
    pub fn check(&self) -> Result<Relation, StatementError> {
        self.check_given(&[])
    }

    /// [`Self::check`] for a verifier that has accepted some registrations.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn check_given(&self, known: &[Known]) -> Result<Relation, StatementError> {
        let relation = self.check_except(None)?;
        let Some(named) = self.registration else { return Ok(relation) };
        let accepted: Vec<&Known> = known.iter().filter(|k| k.registration == named).collect();
        let current: Vec<&&Known> = accepted.iter().filter(|k| k.rules == RULES).collect();
        let problem = if accepted.is_empty() {
            format!("it relies on the registration {named}, which this verifier hasn't accepted")
        } else if current.is_empty() {
            format!("the registration {named} was accepted by the rules of another version: verify it again")
        } else if current.iter().any(|k| self.index.as_ref() == Some(&k.index)) {
            return Ok(relation);
        } else {
            format!("the registration {named} is of another index")
        };
        refuse(Clause::Registration, problem)
    }

    /// [`Self::check`], also of statements whose relation assumes the weights' ranges: for benchmarks only.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn check_benchmark(&self) -> Result<Relation, StatementError> {
        if let Some(named) = self.registration {
            return refuse(Clause::Registration, format!("a benchmark's statement relies on the registration {named}"));
        }
        self.check_except(Some(Clause::Ranges))
    }

    /// Checks one clause, as far as it is about the statement alone.
    ///
    /// # Errors
    ///
    /// When it doesn't hold.
    pub fn check_clause(&self, clause: Clause) -> Result<(), StatementError> {
        clause.check(self)
    }

    fn check_except(&self, left_out: Option<Clause>) -> Result<Relation, StatementError> {
        Clause::Version.check(self)?;
        let relation = Relation::new(&self.relation)?;
        Clause::ALL[Clause::OF_STATEMENTS].iter().filter(|&&c| Some(c) != left_out).try_for_each(|c| c.check(self))?;
        Ok(relation)
    }

    /// The tokens of every request, opening digests with `openings` (one per request, `None` for public tokens).
    ///
    /// # Errors
    ///
    /// When an opening is missing, superfluous or of other digests, or its tokens don't fit the relation.
    pub fn public_requests(&self, openings: &[Option<TokenOpening>]) -> Result<Vec<PublicRequest>, StatementError> {
        if openings.len() != self.requests.len() {
            return refuse(Clause::Openings, "the proof opens another number of requests");
        }
        let open = |(request, opening): (&RequestStatement, &Option<TokenOpening>)| match (&request.tokens, opening) {
            (Tokens::Public { tokens, prompt_len }, None) => Ok(PublicRequest { tokens: tokens.clone(), prompt_len: *prompt_len }),
            (Tokens::Digests(digests), Some(opening)) => self.open(digests, opening),
            (Tokens::Public { .. }, Some(_)) => refuse(Clause::Openings, "the proof opens tokens that are public"),
            (Tokens::Digests(_), None) => refuse(Clause::Openings, "the proof doesn't open the digests of the tokens"),
        };
        self.requests.iter().zip(openings).map(open).collect()
    }

    /// Opens the digests of a request's tokens. Lengths are checked before anything is hashed.
    ///
    /// # Errors
    ///
    /// When the tokens don't fit the relation, or have other digests.
    pub fn open(&self, digests: &TokenDigests, opening: &TokenOpening) -> Result<PublicRequest, StatementError> {
        let clauses = [Clause::Parts, Clause::Capacity, Clause::Slots, Clause::Vocabulary];
        clauses.iter().try_for_each(|c| c.check_tokens(self, &opening.tokens, opening.prompt_len))?;
        let found = opening.digests(self.relation.tokens);
        if found.prompt != digests.prompt {
            return refuse(Clause::PromptDigest, format!("the opened prompt has the digest {}, not {}", found.prompt, digests.prompt));
        }
        if found.exchange != digests.exchange {
            return refuse(Clause::ExchangeDigest, format!("the opened tokens have the digest {}, not {}", found.exchange, digests.exchange));
        }
        Ok(PublicRequest { tokens: opening.tokens.clone(), prompt_len: opening.prompt_len })
    }
}

fn refuse<T>(clause: Clause, problem: impl Into<String>) -> Result<T, StatementError> {
    Err(StatementError::Clause { clause, problem: problem.into() })
}

impl RelationParams {
    /// Digest of everything that determines the relation.
    pub fn digest(&self) -> Digest {
        let mut e = Encoder::new("poa/relation");
        e.number(PROTOCOL_VERSION.into());
        // serde_json writes struct fields in declaration order, maps in key order and floats by their shortest exact form.
        e.bytes(&serde_json::to_vec(self).unwrap_or_default());
        e.finish()
    }
}

impl IndexStatement {
    /// Digest of the index and its provenance.
    pub fn digest(&self) -> Digest {
        let mut e = Encoder::new("poa/index");
        [self.commitment, self.base, self.adapter, self.datanet_root].iter().for_each(|d| e.bytes(&d.0));
        e.number(self.datanet_version);
        e.number(self.contributors.len() as u64);
        self.contributors.iter().for_each(|c| e.bytes(c.as_bytes()));
        e.finish()
    }
}

impl RequestStatement {
    fn encode(&self, e: &mut Encoder) {
        e.bytes(&self.id.0);
        match &self.tokens {
            Tokens::Public { tokens, prompt_len } => {
                e.number(0);
                e.number(*prompt_len as u64);
                e.tokens(tokens);
            }
            Tokens::Digests(digests) => {
                e.number(1);
                e.bytes(&digests.prompt.0);
                e.bytes(&digests.exchange.0);
            }
        }
        e.number(self.weights.len() as u64);
        self.weights.iter().for_each(|&w| e.number(w));
        e.number(self.total);
    }
}

/// Length-prefixed canonical encoding.
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn new(domain: &str) -> Self {
        let mut e = Self(Vec::new());
        e.bytes(domain.as_bytes());
        e
    }

    pub(crate) fn number(&mut self, x: u64) {
        self.0.extend_from_slice(&x.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, x: &[u8]) {
        self.number(x.len() as u64);
        self.0.extend_from_slice(x);
    }

    pub(crate) fn optional(&mut self, x: Option<&[u8]>) {
        self.number(x.is_some().into());
        x.into_iter().for_each(|x| self.bytes(x));
    }

    fn tokens(&mut self, tokens: &[u32]) {
        self.number(tokens.len() as u64);
        tokens.iter().for_each(|&t| self.number(t.into()));
    }

    pub(crate) fn finish(self) -> Digest {
        keccak(&self.0)
    }
}
