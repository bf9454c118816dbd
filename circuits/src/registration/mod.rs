//! Registrations: what is proven once of commitments that outlive requests.
//!
//! An index' registration says: base, adapter and index are well-formed ([`Purpose::Form`]), and every row that earns is the sketch of its sample
//! under that base and adapter ([`Purpose::Rows`], in chunks). Samples are its datanet's, in order, with their contributors: their leaves' root
//! names them. `docs/registration.md` has the argument.

mod leaves;

pub use leaves::{Absent, Leaves, Member};

use crate::public::{PublicContext, PublicRequest, Registered};
use crate::relation::{Part, Purpose, Relation, RelationError, RelationParams, Scope, TableMode, WeightRanges};
use crate::statement::{Digest, Encoder, IndexStatement, PROTOCOL_VERSION, Profile, keccak};
use model_runtime::semantics::{Seed, Semantics};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// Fewest padded tokens of a chunk's samples.
const MIN_TOKENS: usize = 8;

/// A sample: what a row of the index is the sketch of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its tokens, the first of which is given and not predicted.
    pub tokens: Vec<u32>,
    /// Number of its contributor.
    pub contributor: u32,
    /// Whether its row earns: it's no copy of an earlier sample, and somebody proves it.
    pub earns: bool,
}

/// What is registered of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// Hash profile of pins and proofs: [`Profile::Native`], so far.
    pub profile: Profile,
    /// The index' semantics.
    pub semantics: Semantics,
    /// Pin of the base model.
    pub base: Digest,
    /// Pin of the adapter.
    pub adapter: Digest,
    /// Pin of the index.
    pub index: Digest,
    /// Root of the datanet's texts.
    pub datanet_root: Digest,
    /// Version of the datanet.
    pub datanet_version: u64,
    /// What the projection's seed was drawn from besides the datanet's root.
    pub beacon: Option<Digest>,
    /// Contributors, in the order of their numbers.
    pub contributors: Vec<String>,
    /// Most tokens of a sample …
    pub max_tokens: usize,
    /// … and whether longer ones are split, or cut.
    pub split: bool,
    /// The datanet's samples, row by row.
    pub samples: Vec<Sample>,
}

/// Version of what a registration is checked for: one that was accepted by other rules is verified again.
pub const RULES: u32 = 2;

/// A registration whose proofs somebody has verified, as far as statements of answers need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// [`RULES`] that it was verified by.
    pub rules: u32,
    /// The registration's digest.
    pub registration: Digest,
    /// The index, with the pins of what it was made with.
    pub index: IndexStatement,
    /// What the projection's seed was drawn from besides the datanet's root.
    pub beacon: Option<Digest>,
    /// Whether the samples were compared with the datanet's texts.
    pub datanet_compared: bool,
}

/// Why a registration is refused before any proof is looked at.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RegistrationError {
    /// Another protocol version.
    #[error("the registration is of protocol version {found}, this program checks version {PROTOCOL_VERSION}")]
    Version {
        /// The registration's version.
        found: u32,
    },
    /// No registrations of that profile yet.
    #[error("the registration is of the evm profile, of which there are none yet")]
    Profile,
    /// No relation can be built.
    #[error("the registration's relation: {0}")]
    Relation(#[from] RelationError),
    /// A sample can't be what it says.
    #[error("row {row}: {problem}")]
    Sample {
        /// Its row.
        row: usize,
        /// What is wrong.
        problem: String,
    },
    /// Contributors contradict each other.
    #[error("a contributor is named twice")]
    Names,
    /// Samples can't be so short.
    #[error("samples are cut after {found} tokens, expected at least 2")]
    MaxTokens {
        /// Where they are cut.
        found: usize,
    },
    /// The projection was chosen.
    #[error("the projection's seed isn't the one of the datanet's root{}", if *beacon { " and the beacon" } else { "" })]
    Seed {
        /// Whether there is a beacon.
        beacon: bool,
    },
    /// A chunk isn't one.
    #[error("a chunk of {count} rows from row {first:?}: {problem}")]
    Chunk {
        /// Its number of rows.
        count: usize,
        /// Its first row.
        first: Option<usize>,
        /// What is wrong.
        problem: &'static str,
    },
    /// Rows that earn without a proof.
    #[error("no chunk proves row {row}, which earns")]
    Unproven {
        /// The first such row.
        row: usize,
    },
}

impl Registration {
    /// What can be seen without a proof: versions, names, samples that could be run.
    ///
    /// # Errors
    ///
    /// Names the first that doesn't hold.
    pub fn check(&self) -> Result<(), RegistrationError> {
        if self.version != PROTOCOL_VERSION {
            return Err(RegistrationError::Version { found: self.version });
        }
        if self.profile != Profile::Native {
            return Err(RegistrationError::Profile);
        }
        // The relation's limits on rows, contributors and sizes, before anything is done for each.
        self.form(Part::Base)?;
        if self.max_tokens < 2 {
            return Err(RegistrationError::MaxTokens { found: self.max_tokens });
        }
        let mut names: Vec<&String> = self.contributors.iter().collect();
        names.sort_unstable();
        if names.windows(2).any(|w| w[0] == w[1]) {
            return Err(RegistrationError::Names);
        }
        let drawn = Seed::of(&self.datanet_root.0, self.beacon.as_ref().map(|b| &b.0));
        if self.semantics.projection_seed() != drawn {
            return Err(RegistrationError::Seed { beacon: self.beacon.is_some() });
        }
        let mut seen: BTreeMap<&[u32], usize> = BTreeMap::new();
        self.samples.iter().enumerate().try_for_each(|(row, sample)| {
            let earlier = if sample.earns { seen.insert(&sample.tokens, row) } else { None };
            let problem = self.sample_problem(sample).or_else(|| Some(format!("the same tokens as row {}, which earns", earlier?)));
            problem.map_or(Ok(()), |problem| Err(RegistrationError::Sample { row, problem }))
        })
    }

    fn sample_problem(&self, sample: &Sample) -> Option<String> {
        let Sample { tokens, contributor, .. } = sample;
        let shape = &self.semantics.shape;
        let most = shape.context.min(self.max_tokens);
        if !(2..=most).contains(&tokens.len()) {
            return Some(format!("{} tokens, expected 2 to {most}", tokens.len()));
        }
        if let Some(token) = tokens.iter().find(|&&t| t as usize >= shape.vocab) {
            return Some(format!("token {token} is outside the vocabulary of {}", shape.vocab));
        }
        let named = self.contributors.len();
        (*contributor as usize >= named).then(|| format!("its contributor has the number {contributor}, of {named}"))
    }

    /// Leaves of all samples, after [`Registration::check`], which bounds the work and the tokens.
    pub fn leaves(&self) -> Leaves {
        Leaves::new(&self.samples)
    }

    /// Digest of everything registered; of samples, their leaves' two roots.
    pub fn digest(&self) -> Digest {
        let leaves = self.leaves();
        let mut e = Encoder::new("poa/registration");
        e.number(self.version.into());
        e.number(u64::from(self.profile == Profile::Evm));
        // As in `RelationParams::digest`: one encoding of each value.
        e.bytes(&keccak(&serde_json::to_vec(&self.semantics).unwrap_or_default()).0);
        [self.base, self.adapter, self.index, self.datanet_root].iter().for_each(|d| e.bytes(&d.0));
        e.number(self.datanet_version);
        e.optional(self.beacon.as_ref().map(|d| d.0.as_slice()));
        e.number(self.contributors.len() as u64);
        self.contributors.iter().for_each(|c| e.bytes(c.as_bytes()));
        e.number(self.max_tokens as u64);
        e.number(self.split.into());
        e.number(self.samples.len() as u64);
        [leaves.root(), leaves.sorted_root()].iter().for_each(|d| e.bytes(&d.0));
        e.finish()
    }

    /// The index as statements of requests name it.
    pub fn index_statement(&self) -> IndexStatement {
        IndexStatement {
            commitment: self.index,
            base: self.base,
            adapter: self.adapter,
            datanet_root: self.datanet_root,
            datanet_version: self.datanet_version,
            contributors: self.contributors.clone(),
        }
    }

    /// A part's pin.
    pub fn pin(&self, part: Part) -> Digest {
        match part {
            Part::Base => self.base,
            Part::Adapter => self.adapter,
            Part::Index => self.index,
        }
    }

    /// The relation that says a part is well-formed.
    ///
    /// # Errors
    ///
    /// When it can't be built.
    pub fn form(&self, part: Part) -> Result<Relation, RegistrationError> {
        let params = RelationParams { weight_ranges: WeightRanges::Proven, ..self.params(1, 1, 1) };
        Ok(Relation::of(&params, Purpose::Form(part))?)
    }

    /// What a part's proof of form is bound to. The pin covers what the relation depends on; of an index, who its rows belong to and which earn is
    /// the registration's, whose `digest` is given.
    pub fn form_seed(&self, digest: &Digest, part: Part) -> Digest {
        form_seed(part, self.profile, &self.pin(part), (part == Part::Index).then_some(*digest))
    }

    /// The public side of a part's form.
    pub fn form_context(&self, relation: &Relation) -> PublicContext {
        let registered = Registered {
            row_of_request: vec![],
            earns: self.samples.iter().map(|s| s.earns).collect(),
            contributors: self.samples.iter().map(|s| s.contributor).collect(),
        };
        PublicContext::new(&relation.params, vec![]).registering(registered)
    }

    /// The relation that says some rows are their samples' sketches.
    ///
    /// # Errors
    ///
    /// When the rows are no chunk, or the relation can't be built.
    pub fn rows(&self, rows: &[usize]) -> Result<Relation, RegistrationError> {
        let refuse = |problem| Err(RegistrationError::Chunk { count: rows.len(), first: rows.first().copied(), problem });
        if rows.is_empty() || !rows.windows(2).all(|w| w[0] < w[1]) {
            return refuse("rows are numbered once each, in order");
        }
        let samples: Option<Vec<&Sample>> = rows.iter().map(|&row| self.samples.get(row)).collect();
        let Some(samples) = samples else { return refuse("there is no such row") };
        if samples.iter().any(|s| !s.earns) {
            return refuse("a row that doesn't earn has no sketch");
        }
        let sizes = samples.iter().map(|s| padded(s)).fold((1, 1), |(t, s), (tokens, slots)| (t.max(tokens), s.max(slots)));
        let params = self.params(sizes.0, sizes.1, rows.len());
        Ok(Relation::of(&params, Purpose::Rows)?)
    }

    /// What a chunk's proof is bound to.
    pub fn rows_seed(&self, digest: &Digest, rows: &[usize]) -> Digest {
        let mut e = Encoder::new("poa/rows");
        e.bytes(&digest.0);
        e.number(rows.len() as u64);
        rows.iter().for_each(|&row| e.number(row as u64));
        e.finish()
    }

    /// The public side of a chunk.
    pub fn rows_context(&self, relation: &Relation, rows: &[usize]) -> PublicContext {
        let sample = |&row: &usize| self.samples.get(row).map(|s| PublicRequest { tokens: s.tokens.clone(), prompt_len: 1 });
        let requests = rows.iter().filter_map(sample).collect();
        PublicContext::new(&relation.params, requests).registering(Registered { row_of_request: rows.to_vec(), ..Registered::default() })
    }

    /// Every row that earns is in a chunk, and in one only.
    ///
    /// # Errors
    ///
    /// Names the first that isn't.
    pub fn check_cover(&self, chunks: &[Vec<usize>]) -> Result<(), RegistrationError> {
        let mut proven = vec![false; self.samples.len()];
        for rows in chunks {
            for &row in rows {
                let refuse = |problem| Err(RegistrationError::Chunk { count: rows.len(), first: rows.first().copied(), problem });
                match proven.get_mut(row) {
                    None => return refuse("there is no such row"),
                    Some(true) => return refuse("one of them is listed twice"),
                    Some(seen) => *seen = true,
                }
            }
        }
        let unproven = self.samples.iter().zip(&proven).position(|(s, &proven)| s.earns && !proven);
        unproven.map_or(Ok(()), |row| Err(RegistrationError::Unproven { row }))
    }

    /// Parameters with padded sizes.
    fn params(&self, tokens: usize, slots: usize, requests: usize) -> RelationParams {
        RelationParams {
            semantics: self.semantics.clone(),
            scope: Scope::Attribution,
            weight_ranges: WeightRanges::Registered,
            tables: TableMode::Evaluated,
            tokens: tokens.next_power_of_two(),
            slots: slots.next_power_of_two(),
            requests: requests.next_power_of_two(),
            rows: self.samples.len(),
            contributors: self.contributors.len(),
        }
    }
}

/// Padded tokens and slots of a sample: rows of one size are proven together.
pub fn padded(sample: &Sample) -> (usize, usize) {
    let len = sample.tokens.len().max(2);
    (len.max(MIN_TOKENS).next_power_of_two(), (len - 1).next_power_of_two())
}

/// What a proof of form is bound to: the pin covers layout, widths and shapes, all that the relation depends on; `registration` covers the rest of
/// an index'.
pub fn form_seed(part: Part, profile: Profile, pin: &Digest, registration: Option<Digest>) -> Digest {
    let mut e = Encoder::new("poa/form");
    e.number(PROTOCOL_VERSION.into());
    e.number(u64::from(profile == Profile::Evm));
    e.bytes(part.group().name().as_bytes());
    e.bytes(&pin.0);
    e.optional(registration.as_ref().map(|d| d.0.as_slice()));
    e.finish()
}
