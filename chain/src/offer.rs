//! What an escrow binds: read from the chain before paying, shown, and compared with what the payer expects.
//!
//! The expectations are a file that `poa register --expect-out` writes. The relation isn't on chain: the verifying key stands for it.

use crate::abi::{AttributionSettlement, AttributionVerifier, DatanetRegistry, ModelRegistry};
use crate::deploy::Deployment;
use crate::request::Service;
use crate::{Chain, ChainError, read};
use alloy::primitives::{Address, B256, keccak256};
use circuits::statement::Digest;
use serde::{Deserialize, Serialize};
use steps::error::Failure;
use steps::evm_proof::digest;

/// A contributor and who is paid for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contributor {
    /// The name.
    pub name: String,
    /// The account.
    pub account: Address,
}

/// Who gets which part of a fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The platform's basis points; it gets what rounding leaves, too.
    pub platform_bps: u16,
    /// The model owner's.
    pub model_owner_bps: u16,
    /// The stakers'.
    pub stakers_bps: u16,
    /// The contributors', divided by weight.
    pub contributors_bps: u16,
    /// The platform's account.
    pub platform: Address,
    /// The staking pool.
    pub stakers: Address,
}

/// What a payer expects, as far as given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Digest of the relation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation: Option<Digest>,
    /// Commitment of the base model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    /// Commitment of the adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Digest>,
    /// Commitment of the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// Digest of the index's statement, without its three highest bits, as contracts hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_digest: Option<Digest>,
    /// Digest of the verifying key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_digest: Option<Digest>,
    /// The verifier's contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifier: Option<Address>,
    /// The split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// The contributors, in the order of their weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contributors: Option<Vec<Contributor>>,
}

/// What an escrow for a model binds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The model.
    pub model: u64,
    /// Commitment of the base model.
    pub base: Digest,
    /// Commitment of the adapter.
    pub adapter: Digest,
    /// Commitment of the index.
    pub index: Digest,
    /// Digest of the index's statement, without its three highest bits.
    pub index_digest: Digest,
    /// Who gets the model owner's share.
    pub payee: Address,
    /// The datanet and its version.
    pub datanet: (u64, u64),
    /// Split, verifier and key.
    pub service: Service,
    /// The split's shares.
    pub split: Split,
    /// Contributors' accounts, in the order of their weights.
    pub accounts: Vec<Address>,
    /// Chain of the contributors' names.
    pub names: B256,
}

/// Reads what an escrow for a model binds.
pub fn offer(chain: &mut impl Chain, d: &Deployment, model: u64) -> Result<Offer, ChainError> {
    let c = &d.contracts;
    let entry = read(chain, c.models, &ModelRegistry::modelCall { modelId: model })?;
    let serving = read(chain, c.models, &ModelRegistry::serviceOfCall { modelId: model })?;
    let key = read(chain, serving.verifier, &AttributionVerifier::keyDigestCall {})?;
    let number = read(chain, c.settlement, &AttributionSettlement::currentSplitCall {})?;
    let split = read(chain, c.settlement, &AttributionSettlement::splitCall { splitId: number })?;
    let accounts = read(chain, c.models, &ModelRegistry::contributorsOfCall { modelId: model })?;
    let call = DatanetRegistry::versionCall { datanetId: entry.datanetId, number: entry.datanetVersion };
    let version = read(chain, c.datanets, &call)?;
    Ok(Offer {
        model,
        base: Digest(entry.base.0),
        adapter: Digest(entry.adapter.0),
        index: Digest(entry.index.0),
        index_digest: digest(entry.indexDigest),
        payee: serving.payee,
        datanet: (entry.datanetId, entry.datanetVersion),
        service: Service { split: number, verifier: serving.verifier, key_digest: Digest(key.0) },
        split: Split {
            platform_bps: split.platformBps,
            model_owner_bps: split.modelOwnerBps,
            stakers_bps: split.stakersBps,
            contributors_bps: split.contributorsBps,
            platform: split.platform,
            stakers: split.stakers,
        },
        accounts,
        names: version.namesDigest,
    })
}

/// What the registry keeps of a list of names: `d_0 = 0, d_{i+1} = keccak256(d_i, keccak256(name_i))`.
fn names_digest(contributors: &[Contributor]) -> B256 {
    let chain = |d: B256, c: &Contributor| keccak256([d.0, keccak256(&c.name).0].concat());
    contributors.iter().fold(B256::ZERO, chain)
}

fn same<T: PartialEq + std::fmt::Display>(name: &str, expected: Option<T>, found: &T) -> Result<usize, Failure> {
    match expected {
        None => Ok(0),
        Some(expected) if expected == *found => Ok(1),
        Some(expected) => Err(Failure::invalid(format!("the model's {name} on chain is {found}, {expected} is expected"))),
    }
}

impl Offer {
    /// The same as expectations, for [`Expected`]'s file. `names` are the contributors', in order.
    pub fn expectations(&self, relation: Digest, names: &[String]) -> Expected {
        let contributor = |(name, account): (&String, &Address)| Contributor { name: name.clone(), account: *account };
        Expected {
            relation: Some(relation),
            base: Some(self.base),
            adapter: Some(self.adapter),
            index: Some(self.index),
            index_digest: Some(self.index_digest),
            key_digest: Some(self.service.key_digest),
            verifier: Some(self.service.verifier),
            split: Some(self.split),
            contributors: Some(names.iter().zip(&self.accounts).map(contributor).collect()),
        }
    }

    /// Compares with what is expected; returns how many things were.
    ///
    /// # Errors
    ///
    /// Names the first that differs.
    pub fn check(&self, expected: &Expected) -> Result<usize, Failure> {
        let model = [expected.relation, expected.base, expected.adapter, expected.index, expected.index_digest];
        if model.iter().any(Option::is_some) && expected.key_digest.is_none() {
            let message = "what a model's proofs show, its verifying key says, and key_digest isn't expected";
            return Err(Failure::input(message).hint("add key_digest to the file of --expect"));
        }
        let e = expected;
        let digests = [
            ("base", e.base, self.base),
            ("adapter", e.adapter, self.adapter),
            ("index", e.index, self.index),
            ("index_digest", e.index_digest, self.index_digest),
            ("key_digest", e.key_digest, self.service.key_digest),
        ];
        let mut compared = 0;
        for (name, expected, found) in digests {
            compared += same(name, expected, &found)?;
        }
        compared += same("verifier", e.verifier, &self.service.verifier)?;
        compared += self.check_split(e.split)?;
        Ok(compared + self.check_contributors(e.contributors.as_deref())?)
    }

    fn check_split(&self, expected: Option<Split>) -> Result<usize, Failure> {
        match expected {
            None => Ok(0),
            Some(split) if split == self.split => Ok(1),
            Some(split) => Err(Failure::invalid(format!("the split on chain is {:?}, {split:?} is expected", self.split))),
        }
    }

    fn check_contributors(&self, expected: Option<&[Contributor]>) -> Result<usize, Failure> {
        let Some(expected) = expected else { return Ok(0) };
        if expected.len() != self.accounts.len() {
            let message = format!("the model has {} contributors on chain, {} are expected", self.accounts.len(), expected.len());
            return Err(Failure::invalid(message));
        }
        if let Some((contributor, found)) = expected.iter().zip(&self.accounts).find(|(c, found)| c.account != **found) {
            let message = format!("contributor {:?} is paid at {found}, {} is expected", contributor.name, contributor.account);
            return Err(Failure::invalid(message));
        }
        if names_digest(expected) != self.names {
            return Err(Failure::invalid("the contributors' names on chain, or their order, are others than expected"));
        }
        Ok(1)
    }

    /// What is bound, line by line.
    pub fn lines(&self) -> Vec<String> {
        let Split { platform_bps, model_owner_bps, stakers_bps, contributors_bps, platform, stakers } = self.split;
        let percent = |bps: u16| f64::from(bps) / 100.0;
        let mut lines = vec![
            format!("model {}, of version {} of datanet {}", self.model, self.datanet.1, self.datanet.0),
            format!("  base          {}", self.base),
            format!("  adapter       {}", self.adapter),
            format!("  index         {}", self.index),
            format!("  index_digest  {}", self.index_digest),
            format!("  key_digest    {}", self.service.key_digest),
            format!("  verifier      {}", self.service.verifier),
            format!("split {}", self.service.split),
            format!("  {:>6.2} % platform, and what rounding leaves: {platform}", percent(platform_bps)),
            format!("  {:>6.2} % model owner: {}", percent(model_owner_bps), self.payee),
            format!("  {:>6.2} % stakers: {stakers}", percent(stakers_bps)),
            format!("  {:>6.2} % contributors, by the weights that are proven:", percent(contributors_bps)),
        ];
        lines.extend(self.accounts.iter().take(SHOWN).enumerate().map(|(i, account)| format!("      {i:>4}  {account}")));
        let more = self.accounts.len().saturating_sub(SHOWN);
        lines.extend((more > 0).then(|| format!("      and {more} more")));
        lines
    }
}

/// Contributors that are listed.
const SHOWN: usize = 32;
