//! What makes a statement acceptable with its proof: one list of clauses, and what each host does about each.
//!
//! A published proof is checked without the statement: by the outer circuit, by a contract and by the light client. Whatever the native
//! verifier requires is therefore required there as well, or there is a reason why it need not be. Each clause says which
//! ([`Clause::counterpart`]); `docs/protocol.md`, section 15, is this list as a table, and `prover/tests/proofs/clauses.rs` tries statements that break one clause each.

use super::{IndexStatement, PROTOCOL_VERSION, Profile, RequestStatement, Statement, StatementError, Tokens, WEIGHT_BOUND};
use crate::relation::{Scope, TableMode, WeightRanges};

/// A condition of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clause {
    /// The statement is of this program's protocol version.
    Version,
    /// A relation can be built from the parameters.
    Relation,
    /// The ranges of base, adapter and index are proven: by the proof itself, or natively by a registration.
    Ranges,
    /// A registration is named where ranges are left to one, and only there; the verifier has accepted it, and it is of the statement's index.
    Registration,
    /// There are as many requests as the relation has room for.
    Requests,
    /// No two requests have one id.
    DistinctIds,
    /// In the `evm` profile, ids are below 2^253.
    IdBits,
    /// Lookup tables are committed in the `evm` profile, and only there.
    Tables,
    /// An adapter is committed where the relation has one.
    Adapter,
    /// There is an index where attribution is claimed.
    Index,
    /// The index was made with the statement's base and adapter.
    IndexModel,
    /// No contributor is named twice.
    Names,
    /// There are as many contributors as in the relation.
    Contributors,
    /// There are as many weights as contributors.
    WeightCount,
    /// Weights are below [`WEIGHT_BOUND`].
    WeightBound,
    /// Weights add up to the total, which is below [`WEIGHT_BOUND`] too.
    Total,
    /// There are a prompt and an answer.
    Parts,
    /// The tokens fit the relation.
    Capacity,
    /// The predicted tokens fit the relation's slots.
    Slots,
    /// Every token is in the vocabulary.
    Vocabulary,
    /// Digests are opened by the inner proof, and nothing else is.
    Openings,
    /// The opened prompt has the stated digest.
    PromptDigest,
    /// The opened exchange has the stated digest.
    ExchangeDigest,
    /// The proof is of the statement's hash profile.
    Profile,
    /// Roots are canonical.
    Roots,
    /// Pins are those of the roots and values that the proof opens.
    Pins,
    /// The parameters give 100 bits and no multiplicity wraps around.
    Security,
    /// The committed lookup tables are the relation's.
    TableContents,
    /// The argument: lookups, constraints, claims, openings.
    Argument,
}

/// What a host does about a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counterpart {
    /// It refuses what breaks it.
    Checks(&'static str),
    /// It need not.
    Needless(&'static str),
}

/// A host of published proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The outer circuit, with the code that makes its keys.
    Circuit,
    /// The settlement contracts.
    Contract,
    /// The light client, with what its caller holds the proof against.
    LightClient,
}

use Counterpart::{Checks, Needless};

/// Fixed when a key is made.
const KEY: &str = "the key";
/// Not in the proof.
const PINNED: Counterpart = Needless("pins the key");

impl Clause {
    /// All, in the order in which they are checked.
    pub const ALL: [Self; 29] = [
        Self::Version,
        Self::Relation,
        Self::Ranges,
        Self::Registration,
        Self::Requests,
        Self::DistinctIds,
        Self::IdBits,
        Self::Tables,
        Self::Adapter,
        Self::Index,
        Self::IndexModel,
        Self::Names,
        Self::Contributors,
        Self::WeightCount,
        Self::WeightBound,
        Self::Total,
        Self::Parts,
        Self::Capacity,
        Self::Slots,
        Self::Vocabulary,
        Self::Openings,
        Self::PromptDigest,
        Self::ExchangeDigest,
        Self::Profile,
        Self::Roots,
        Self::Pins,
        Self::Security,
        Self::TableContents,
        Self::Argument,
    ];

    /// Those that a statement can be held against by itself, once it has a relation.
    pub(super) const OF_STATEMENTS: std::ops::Range<usize> = 2..20;

    /// A few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "protocol version",
            Self::Relation => "relation is one",
            Self::Ranges => "ranges proven",
            Self::Registration => "registration accepted",
            Self::Requests => "number of requests",
            Self::DistinctIds => "distinct ids",
            Self::IdBits => "ids below 2^253",
            Self::Tables => "tables committed or not",
            Self::Adapter => "adapter there or not",
            Self::Index => "index there or not",
            Self::IndexModel => "index of this model",
            Self::Names => "distinct names",
            Self::Contributors => "number of contributors",
            Self::WeightCount => "number of weights",
            Self::WeightBound => "weights at most 2^30",
            Self::Total => "total at most 2^30",
            Self::Parts => "prompt and answer",
            Self::Capacity => "tokens fit",
            Self::Slots => "predicted tokens fit",
            Self::Vocabulary => "tokens in the vocabulary",
            Self::Openings => "openings there or not",
            Self::PromptDigest => "prompt digest opens",
            Self::ExchangeDigest => "token digest opens",
            Self::Profile => "hash profile",
            Self::Roots => "canonical roots",
            Self::Pins => "pins",
            Self::Security => "100 bits",
            Self::TableContents => "tables' contents",
            Self::Argument => "the argument",
        }
    }

    /// What a host does about it.
    pub fn counterpart(self, host: Host) -> Counterpart {
        let [circuit, contract, light_client] = self.counterparts();
        match host {
            Host::Circuit => circuit,
            Host::Contract => contract,
            Host::LightClient => light_client,
        }
    }

    fn counterparts(self) -> [Counterpart; 3] {
        match self {
            Self::Version | Self::Relation | Self::Ranges | Self::Tables | Self::Adapter | Self::Index | Self::Profile | Self::Security => {
                [Checks(KEY), PINNED, PINNED]
            }
            Self::Registration => [Needless("proves ranges itself"), PINNED, PINNED],
            Self::Requests => [Checks(KEY), Needless("one a settlement"), PINNED],
            Self::DistinctIds => [Needless("one request"), Checks("settles an id once"), Needless("one request")],
            Self::IdBits => [Needless("a scalar"), Checks("inputs below r"), Checks("inputs below r")],
            Self::IndexModel => [Needless("a public input"), Checks("computes index digest"), Checks("index digest expected")],
            Self::Names => [Needless("a public input"), Checks("datanet registry"), Checks("index digest expected")],
            Self::Contributors => [Needless("a public input"), Checks("datanet registry"), Checks("number expected")],
            Self::WeightCount => [Needless("has its own number"), Checks("one each"), Checks("number expected")],
            Self::WeightBound => [Checks("canonical, and the sums"), Checks("bound"), Checks("bound")],
            Self::Total => [Needless("the sums' bound"), Checks("adds up, bound"), Checks("adds up, bound")],
            Self::Parts | Self::Capacity | Self::Slots | Self::Vocabulary => [Checks("token bits"), Needless("circuit"), Needless("circuit")],
            Self::Openings => [Needless("always opens both"), Needless("circuit"), Needless("circuit")],
            Self::PromptDigest => [Checks("hashes secret tokens"), Checks("the terms' digest"), Checks("input expected")],
            Self::ExchangeDigest => [Checks("hashes secret tokens"), Checks("the terms' digest"), Checks("input expected")],
            Self::Roots => [Needless("scalars"), Needless("circuit"), Needless("circuit")],
            Self::Pins => [Checks("recomputes them"), Checks("inputs below r"), Checks("inputs below r")],
            Self::TableContents => [Checks("root recomputed for the key"), PINNED, PINNED],
            Self::Argument => [Checks("the program"), Checks("the outer proof"), Checks("the outer proof")],
        }
    }

    /// The clauses as rows of a Markdown table.
    pub fn table() -> String {
        let cell = |c: Counterpart| match c {
            Checks(how) => format!("**{how}**"),
            Needless(why) => why.to_owned(),
        };
        let row = |clause: &Self| {
            let [circuit, contract, light] = clause.counterparts().map(cell);
            format!("| {} | {circuit} | {contract} | {light} |\n", clause.name())
        };
        let head = "| clause | circuit | contract | light client |\n|---|---|---|---|\n";
        [head.to_owned(), Self::ALL.iter().map(row).collect()].concat()
    }

    fn broken<T>(self, problem: impl Into<String>) -> Result<T, StatementError> {
        Err(StatementError::Clause { clause: self, problem: problem.into() })
    }

    fn require(self, holds: bool, problem: impl FnOnce() -> String) -> Result<(), StatementError> {
        if holds { Ok(()) } else { self.broken(problem()) }
    }

    /// Holds a statement against this clause. What can't be seen in a statement holds.
    pub(super) fn check(self, s: &Statement) -> Result<(), StatementError> {
        let evm = s.profile == Profile::Evm;
        let attribution = s.relation.scope == Scope::Attribution;
        match self {
            Self::Version if s.version != PROTOCOL_VERSION => Err(StatementError::Version { found: s.version }),
            Self::Ranges => match s.relation.weight_ranges {
                WeightRanges::Proven => Ok(()),
                WeightRanges::Registered => {
                    self.require(!evm && attribution, || "only a native proof with attribution leaves ranges to a registration".into())
                }
                WeightRanges::AssumedInsecure => {
                    self.broken("this is no full proof: it assumes the ranges of weights, adapter and index instead of proving them")
                }
            },
            Self::Registration => self.require(s.registration.is_some() == (s.relation.weight_ranges == WeightRanges::Registered), || {
                "a registration is named where ranges are left to one, and only there".into()
            }),
            Self::Requests => {
                let fits = !s.requests.is_empty() && s.requests.len().checked_next_power_of_two() == Some(s.relation.requests);
                self.require(fits, || format!("{} requests given, the relation has room for {}", s.requests.len(), s.relation.requests))
            }
            Self::DistinctIds => self.require(all_distinct(s.requests.iter().map(|r| r.id)), || "two requests have the same id".into()),
            Self::IdBits => self.require(!evm || s.requests.iter().all(|r| r.id.truncated() == r.id), || {
                "an id has one of its three highest bits set, which the evm profile can't tell apart".into()
            }),
            Self::Tables => {
                let committed = s.relation.tables == TableMode::Committed;
                let agrees = committed == evm && s.tables.is_some() == committed;
                self.require(agrees, || "lookup tables are committed in the evm profile, and only there".into())
            }
            Self::Adapter => self.require(s.adapter.is_some() == s.relation.semantics.lora.is_some(), || {
                "the adapter's commitment and the relation's LoRA shape must both be there or both be absent".into()
            }),
            Self::Index => self.require(s.index.is_some() == attribution, || match attribution {
                true => "attribution is claimed without an index".into(),
                false => "there is an index, but attribution isn't claimed".into(),
            }),
            Self::IndexModel | Self::Names | Self::Contributors => s.index.as_ref().map_or(Ok(()), |index| self.check_index(s, index)),
            Self::WeightCount | Self::WeightBound | Self::Total => s.requests.iter().try_for_each(|r| self.check_weights(s, r)),
            Self::Parts | Self::Capacity | Self::Slots | Self::Vocabulary => s.requests.iter().try_for_each(|r| match &r.tokens {
                Tokens::Public { tokens, prompt_len } => self.check_tokens(s, tokens, *prompt_len),
                Tokens::Digests(_) => Ok(()),
            }),
            _ => Ok(()),
        }
    }

    fn check_index(self, s: &Statement, index: &IndexStatement) -> Result<(), StatementError> {
        let (found, expected) = (index.contributors.len(), s.relation.contributors);
        match self {
            Self::IndexModel => {
                self.require(Some(index.adapter) == s.adapter && index.base == s.base, || "the index was made with another model or adapter".into())
            }
            Self::Names => self.require(all_distinct(index.contributors.iter()), || "a contributor is named twice".into()),
            _ => self.require(found == expected, || format!("the index has {found} contributors, the relation {expected}")),
        }
    }

    fn check_weights(self, s: &Statement, request: &RequestStatement) -> Result<(), StatementError> {
        let expected = if s.relation.scope == Scope::Attribution { s.relation.contributors } else { 0 };
        let weights = &request.weights;
        match self {
            Self::WeightCount => self.require(weights.len() == expected, || format!("{} weights given, expected {expected}", weights.len())),
            Self::WeightBound => match weights.iter().position(|&w| w >= WEIGHT_BOUND) {
                Some(j) => self.broken(format!("weight {j} is {}, weights are below {WEIGHT_BOUND}", weights[j])),
                None => Ok(()),
            },
            _ => {
                let total = weights.iter().try_fold(0u64, |sum, &w| sum.checked_add(w));
                let holds = total == Some(request.total) && request.total < WEIGHT_BOUND;
                self.require(holds, || format!("the weights don't add up to the total, {}, or it isn't below {WEIGHT_BOUND}", request.total))
            }
        }
    }

    /// Holds a request's tokens against this clause.
    pub(super) fn check_tokens(self, s: &Statement, tokens: &[u32], prompt_len: usize) -> Result<(), StatementError> {
        let (count, relation) = (tokens.len(), &s.relation);
        let predicted = count.saturating_sub(if relation.scope == Scope::Attribution { 1 } else { prompt_len });
        match self {
            Self::Parts => self.require(0 < prompt_len && prompt_len < count, || {
                format!("{count} tokens of which {prompt_len} are the prompt; there must be both a prompt and an answer")
            }),
            Self::Capacity => self.require(count <= relation.tokens, || format!("{count} tokens, at most {} fit", relation.tokens)),
            Self::Slots => self.require(predicted <= relation.slots, || format!("{predicted} predicted tokens, at most {} fit", relation.slots)),
            Self::Vocabulary => {
                let vocab = relation.semantics.shape.vocab;
                match tokens.iter().find(|&&t| t as usize >= vocab) {
                    Some(token) => self.broken(format!("token {token} is outside the vocabulary of {vocab}")),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn all_distinct<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut list: Vec<T> = items.collect();
    list.sort_unstable();
    list.windows(2).all(|w| w[0] != w[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(document.contains(&Clause::table()), "docs/protocol.md, section 15, should have:\n{}", Clause::table());
    }

    #[test]
    fn every_clause_is_listed_once() {
        assert!(Clause::ALL.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(Clause::ALL[Clause::OF_STATEMENTS].first(), Some(&Clause::Ranges));
        assert_eq!(Clause::ALL[Clause::OF_STATEMENTS].last(), Some(&Clause::Vocabulary));
        assert_eq!(Clause::ALL.last(), Some(&Clause::Argument));
        assert!(Clause::table().lines().all(|line| line.chars().count() <= 120));
    }
}
