//! The public statement: what a proof convinces its reader of. One type, one canonical encoding, one hash.

use crate::ir::Group;
use crate::poseidon2;
use crate::public::PublicRequest;
use crate::relation::{Relation, RelationError, RelationParams, Scope, TableMode};
use p3_bn254::Bn254;
use p3_field::{PrimeCharacteristicRing, PrimeField};
use serde::{Deserialize, Serialize};
use sha3::{Digest as _, Keccak256};
use thiserror::Error;

/// Version of protocol and proof format; part of every digest.
pub const PROTOCOL_VERSION: u32 = 1;

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

/// Tokens in the clear, or a digest of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// Prompt and answer.
    Public {
        /// Token ids, prompt first.
        tokens: Vec<u32>,
        /// Tokens of the prompt.
        prompt_len: usize,
    },
    /// [`TokenOpening::digest`]; the inner proof carries the opening.
    Digest(Digest),
}

/// The opening of a token digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOpening {
    /// Random salt.
    pub salt: [u8; 32],
    /// Token ids, prompt first.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
}

impl TokenOpening {
    /// The digest it opens: the Poseidon2 hash of the salt (modulo the order), the lengths of exchange and prompt, and the token ids, eight
    /// to a scalar, padded with zeros to `capacity`.
    pub fn digest(&self, capacity: usize) -> Digest {
        let mut padded: Vec<u64> = self.tokens.iter().map(|&t| t.into()).collect();
        padded.resize(capacity.max(self.tokens.len()), 0);
        let mut words = vec![Digest(self.salt).word(), Bn254::from_usize(self.tokens.len()), Bn254::from_usize(self.prompt_len)];
        words.extend(padded.chunks(8).map(poseidon2::pack));
        Digest::of_word(poseidon2::hash(&words))
    }
}

/// The digest of a prompt: the Poseidon2 hash of the salt (modulo the order), the prompt's length, and its token ids, eight to a scalar,
/// padded with zeros to `capacity`.
pub fn prompt_digest(salt: [u8; 32], prompt: &[u32], capacity: usize) -> Digest {
    let mut padded: Vec<u64> = prompt.iter().map(|&t| t.into()).collect();
    padded.resize(capacity.max(prompt.len()), 0);
    let mut words = vec![Digest(salt).word(), Bn254::from_usize(prompt.len())];
    words.extend(padded.chunks(8).map(poseidon2::pack));
    Digest::of_word(poseidon2::hash(&words))
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
    /// Shares in basis points, `⌊10000·w/total⌋`; what rounding leaves is dust.
    pub fn basis_points(&self) -> Vec<u32> {
        let total = u128::from(self.total.max(1));
        self.weights.iter().map(|&w| u32::try_from(u128::from(w) * 10_000 / total).unwrap_or(u32::MAX)).collect()
    }
}

/// The attribution index and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStatement {
    /// Commitment to its tensors.
    pub commitment: Digest,
    /// Commitment of the base model it was made with.
    pub base: Digest,
    /// Commitment of the adapter it was made with.
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
    /// Commitment to the base model.
    pub base: Digest,
    /// Commitment to the adapter; absent without one.
    pub adapter: Option<Digest>,
    /// The index; absent without attribution.
    pub index: Option<IndexStatement>,
    /// Commitment to the lookup tables; absent where the verifier evaluates them.
    pub tables: Option<Digest>,
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
    /// A part contradicts another.
    #[error("the statement's {part}: {problem}")]
    Inconsistent {
        /// Which part.
        part: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn inconsistent(part: &str, problem: impl Into<String>) -> StatementError {
    StatementError::Inconsistent { part: part.to_owned(), problem: problem.into() }
}

impl Statement {
    /// The long-lived commitment of a group.
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

    /// The scalars whose Poseidon2 hash is the `evm` profile's digest: the relation's digest, the commitments (zero for none), the index's
    /// digest, the number of requests, and of each its id, its token digest and its weights, eight to a scalar.
    pub fn words(&self) -> Vec<Bn254> {
        let commitment = |g: Group| self.commitment(g).unwrap_or_default().word();
        let mut words = vec![self.relation.digest().truncated().word()];
        words.extend([Group::Base, Group::Adapter, Group::Index, Group::Tables].map(commitment));
        words.push(self.index.as_ref().map(|i| i.digest().truncated()).unwrap_or_default().word());
        words.push(Bn254::from_usize(self.requests.len()));
        for request in &self.requests {
            let tokens = match &request.tokens {
                Tokens::Public { tokens, prompt_len } => {
                    TokenOpening { salt: [0; 32], tokens: tokens.clone(), prompt_len: *prompt_len }.digest(self.relation.tokens)
                }
                Tokens::Digest(digest) => *digest,
            };
            words.extend([request.id.truncated().word(), tokens.word()]);
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

    /// Checks the statement's own consistency and returns its relation.
    ///
    /// # Errors
    ///
    /// Names the part that is wrong.
    pub fn check(&self) -> Result<Relation, StatementError> {
        if self.version != PROTOCOL_VERSION {
            return Err(StatementError::Version { found: self.version });
        }
        let relation = Relation::new(&self.relation)?;
        if self.requests.is_empty() || self.requests.len().checked_next_power_of_two() != Some(self.relation.requests) {
            return Err(inconsistent("requests", format!("{} given, the relation has room for {}", self.requests.len(), self.relation.requests)));
        }
        let mut ids: Vec<_> = self.requests.iter().map(|r| r.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|w| w[0] == w[1]) {
            return Err(inconsistent("requests", "two have the same id"));
        }
        let committed = self.relation.tables == TableMode::Committed;
        if committed != (self.profile == Profile::Evm) || self.tables.is_some() != committed {
            return Err(inconsistent("tables", "they are committed in the evm profile, and only there"));
        }
        if self.profile == Profile::Evm && self.requests.iter().any(|r| r.id.truncated() != r.id) {
            return Err(inconsistent("requests", "an id has one of its three highest bits set, which the evm profile can't tell apart"));
        }
        if self.adapter.is_some() != self.relation.semantics.lora.is_some() {
            return Err(inconsistent("adapter", "its commitment and the relation's LoRA shape must both be there or both be absent"));
        }
        self.check_index()?;
        self.requests.iter().try_for_each(|r| self.check_request(r))?;
        Ok(relation)
    }

    fn check_index(&self) -> Result<(), StatementError> {
        let attribution = self.relation.scope == Scope::Attribution;
        match &self.index {
            None if attribution => Err(inconsistent("index", "attribution is claimed without one")),
            Some(_) if !attribution => Err(inconsistent("index", "there is one, but attribution isn't claimed")),
            Some(index) if Some(index.adapter) != self.adapter || index.base != self.base => {
                Err(inconsistent("index", "it was made with another model or adapter"))
            }
            Some(index) if has_duplicates(&index.contributors) => Err(inconsistent("index", "a contributor is named twice")),
            Some(index) if index.contributors.len() != self.relation.contributors => {
                let problem = format!("{} contributors, the relation has {}", index.contributors.len(), self.relation.contributors);
                Err(inconsistent("index", problem))
            }
            _ => Ok(()),
        }
    }

    fn check_request(&self, request: &RequestStatement) -> Result<(), StatementError> {
        let expected = if self.relation.scope == Scope::Attribution { self.relation.contributors } else { 0 };
        if request.weights.len() != expected {
            return Err(inconsistent("weights", format!("{} given, expected {expected}", request.weights.len())));
        }
        // The relation's limit on rows keeps sums of relevances below 2^30, so the field element is the sum.
        let total = request.weights.iter().try_fold(0u64, |sum, &w| sum.checked_add(w));
        if request.weights.iter().any(|&w| w >= MAX_WEIGHT) || total != Some(request.total) {
            return Err(inconsistent("weights", "out of range, or they don't add up to the total"));
        }
        match &request.tokens {
            Tokens::Public { tokens, prompt_len } => self.check_tokens(tokens, *prompt_len),
            Tokens::Digest(_) => Ok(()),
        }
    }

    fn check_tokens(&self, tokens: &[u32], prompt_len: usize) -> Result<(), StatementError> {
        let whole = self.relation.scope == Scope::Attribution;
        let slots = tokens.len().saturating_sub(if whole { 1 } else { prompt_len });
        if prompt_len == 0 || prompt_len >= tokens.len() || tokens.len() > self.relation.tokens || slots > self.relation.slots {
            let problem = format!(
                "{} tokens of which {prompt_len} are the prompt; there must be both a prompt and an answer, at most {} tokens and {} predicted ones",
                tokens.len(),
                self.relation.tokens,
                self.relation.slots
            );
            return Err(inconsistent("tokens", problem));
        }
        if tokens.iter().any(|&t| t as usize >= self.relation.semantics.shape.vocab) {
            return Err(inconsistent("tokens", "one is outside the vocabulary"));
        }
        Ok(())
    }

    /// The tokens of every request, opening digests with `openings` (one per request, `None` for public tokens).
    ///
    /// # Errors
    ///
    /// When an opening is missing, superfluous or of another digest, or its tokens don't fit the relation.
    pub fn public_requests(&self, openings: &[Option<TokenOpening>]) -> Result<Vec<PublicRequest>, StatementError> {
        if openings.len() != self.requests.len() {
            return Err(inconsistent("tokens", "the proof opens another number of requests"));
        }
        let open = |(request, opening): (&RequestStatement, &Option<TokenOpening>)| match (&request.tokens, opening) {
            (Tokens::Public { tokens, prompt_len }, None) => Ok(PublicRequest { tokens: tokens.clone(), prompt_len: *prompt_len }),
            (Tokens::Digest(digest), Some(opening)) if opening.digest(self.relation.tokens) == *digest => {
                self.check_tokens(&opening.tokens, opening.prompt_len)?;
                Ok(PublicRequest { tokens: opening.tokens.clone(), prompt_len: opening.prompt_len })
            }
            _ => Err(inconsistent("tokens", "the proof doesn't open their digest")),
        };
        self.requests.iter().zip(openings).map(open).collect()
    }
}

fn has_duplicates(names: &[String]) -> bool {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_unstable();
    names.windows(2).any(|w| w[0] == w[1])
}

/// Weights are below this: field elements that no sum of relevances can wrap around.
pub const MAX_WEIGHT: u64 = (1 << 30) + 1;

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
            Tokens::Digest(digest) => {
                e.number(1);
                e.bytes(&digest.0);
            }
        }
        e.number(self.weights.len() as u64);
        self.weights.iter().for_each(|&w| e.number(w));
        e.number(self.total);
    }
}

/// Length-prefixed canonical encoding.
struct Encoder(Vec<u8>);

impl Encoder {
    fn new(domain: &str) -> Self {
        let mut e = Self(Vec::new());
        e.bytes(domain.as_bytes());
        e
    }

    fn number(&mut self, x: u64) {
        self.0.extend_from_slice(&x.to_be_bytes());
    }

    fn bytes(&mut self, x: &[u8]) {
        self.number(x.len() as u64);
        self.0.extend_from_slice(x);
    }

    fn optional(&mut self, x: Option<&[u8]>) {
        self.number(x.is_some().into());
        x.into_iter().for_each(|x| self.bytes(x));
    }

    fn tokens(&mut self, tokens: &[u32]) {
        self.number(tokens.len() as u64);
        tokens.iter().for_each(|&t| self.number(t.into()));
    }

    fn finish(self) -> Digest {
        keccak(&self.0)
    }
}
