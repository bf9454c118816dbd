//! Follows settlements on a chain and verifies each one without trusting the chain's contracts.
//!
//! The state remembers blocks it has read up to, by hash. Before reading on, the newest of them that is still on the chain is found; what was
//! read after it was reorganised away and is read again. A range of blocks counts as read only if its last block is the same before and after.

use super::abi::{AttributionSettlement, IModelRegistry, ModelRegistry};
use super::deploy::Deployment;
use super::node::Node;
use super::{Chain, ChainError, Found, Search, read};
use crate::evm_proof::{INPUT_NAMES, INPUTS, bind_weights, digest};
use alloy::primitives::{Address, B256, U256};
use alloy::sol_types::SolEvent;
use circuits::statement::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format of the state file.
pub const FORMAT: &str = "poa-watch/1";
/// Blocks asked about at once.
const CHUNK: u64 = 2_000;
/// Blocks remembered by hash.
const REMEMBERED: usize = 256;

/// Verifies outer proofs of one key.
pub trait Judge {
    /// Digest of the key.
    fn key_digest(&self) -> Digest;
    /// Whether the proof proves what these inputs and weights say; if not, why.
    fn judge(&self, inputs: &[U256; INPUTS], weights: &[U256], proof: &[u8]) -> Result<(), String>;
}

/// A block that was read up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

/// A settlement and what this client thinks of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The request.
    pub request_id: Digest,
    /// The model.
    pub model: u64,
    /// Its block.
    pub block: u64,
    /// Its transaction.
    pub transaction: B256,
    /// Whether this client accepts it.
    pub accepted: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What is remembered between runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`].
    pub format: String,
    /// The chain.
    pub chain_id: u64,
    /// The settlement contract.
    pub settlement: Address,
    /// The first block not read.
    pub next: u64,
    /// Blocks read up to, oldest first.
    pub blocks: Vec<Seen>,
    /// Settlements on the chain as it was read.
    pub settlements: Vec<Verdict>,
}

impl State {
    /// Nothing read yet.
    pub fn new(d: &Deployment) -> Self {
        let (chain_id, settlement) = (d.chain_id, d.contracts.settlement);
        Self { format: FORMAT.into(), chain_id, settlement, next: d.block, blocks: vec![], settlements: vec![] }
    }

    /// Whether it is of this deployment.
    pub fn is_of(&self, d: &Deployment) -> bool {
        self.format == FORMAT && self.chain_id == d.chain_id && self.settlement == d.contracts.settlement
    }

    fn remember(&mut self, block: Seen) {
        self.blocks.push(block);
        let surplus = self.blocks.len().saturating_sub(REMEMBERED);
        self.blocks.drain(..surplus);
        self.next = block.number + 1;
    }
}

/// What a look at the chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A settlement, verified.
    Settlement(Verdict),
    /// A settlement that was reported and isn't on the chain any more.
    Withdrawn(Verdict),
}

/// A node's settlements, and who judges them.
pub struct Watch<'a> {
    node: &'a mut Node,
    deployment: &'a Deployment,
    judges: &'a [Box<dyn Judge>],
    models: BTreeMap<u64, IModelRegistry::Model>,
}

impl<'a> Watch<'a> {
    /// Over a deployment.
    pub fn new(node: &'a mut Node, deployment: &'a Deployment, judges: &'a [Box<dyn Judge>]) -> Self {
        Self { node, deployment, judges, models: BTreeMap::new() }
    }

    /// Reads up to the newest block but `confirmations`; at most [`CHUNK`] blocks. Says whether more are there.
    pub fn step(&mut self, state: &mut State, confirmations: u64) -> Result<(Vec<News>, bool), ChainError> {
        let mut news = self.rewind(state)?;
        let last = self.node.head()?.number.saturating_sub(confirmations);
        let to = last.min(state.next + CHUNK - 1);
        if to < state.next {
            return Ok((news, false));
        }
        let Some(before) = self.node.block(to)? else { return Ok((news, true)) };
        let event = AttributionSettlement::Settled::SIGNATURE_HASH;
        let search = Search { address: state.settlement, event, first: None, from: state.next, to: Some(to) };
        let found = self.node.logs(&search)?;
        let verdicts = found.iter().map(|f| self.verdict(f)).collect::<Result<Vec<_>, _>>()?;
        if self.node.block(to)? != Some(before) {
            return Ok((news, true));
        }
        state.settlements.extend(verdicts.iter().cloned());
        state.remember(Seen { number: to, hash: before.hash });
        news.extend(verdicts.into_iter().map(News::Settlement));
        Ok((news, to < last))
    }

    /// Forgets what was read after the newest remembered block that is still on the chain.
    fn rewind(&mut self, state: &mut State) -> Result<Vec<News>, ChainError> {
        let before = state.blocks.len();
        while let Some(block) = state.blocks.last() {
            if self.node.block(block.number)?.is_some_and(|b| b.hash == block.hash) {
                break;
            }
            state.blocks.pop();
        }
        if state.blocks.len() == before {
            return Ok(vec![]);
        }
        state.next = state.blocks.last().map_or(self.deployment.block, |b| b.number + 1);
        self.models.clear();
        let (kept, gone) = std::mem::take(&mut state.settlements).into_iter().partition(|s| s.block < state.next);
        state.settlements = kept;
        let gone: Vec<Verdict> = gone;
        Ok(gone.into_iter().map(News::Withdrawn).collect())
    }

    fn verdict(&mut self, found: &Found) -> Result<Verdict, ChainError> {
        let (block, transaction) = (found.block, found.transaction);
        let settled = match AttributionSettlement::Settled::decode_log(&found.log) {
            Ok(log) => log.data,
            Err(e) => {
                let id = found.log.topics().get(1).copied().unwrap_or_default();
                let reason = Some(format!("the event can't be read: {e}"));
                return Ok(Verdict { request_id: Digest(id.0), model: 0, block, transaction, accepted: false, reason });
            }
        };
        let model = self.model(settled.modelId)?;
        let reason = examine(&settled, &model, self.judges).err();
        let request_id = Digest(settled.requestId.0);
        Ok(Verdict { request_id, model: settled.modelId, block, transaction, accepted: reason.is_none(), reason })
    }

    /// A registered model; its entry never changes.
    fn model(&mut self, id: u64) -> Result<IModelRegistry::Model, ChainError> {
        if let Some(model) = self.models.get(&id) {
            return Ok(model.clone());
        }
        let model = read(self.node, self.deployment.contracts.models, &ModelRegistry::modelCall { modelId: id })?;
        self.models.insert(id, model.clone());
        Ok(model)
    }
}

/// Whether a settlement is what a light client accepts: about this request and the registered model, with its weights bound, and proven.
///
/// # Errors
///
/// Says why not.
pub fn examine(settled: &AttributionSettlement::Settled, model: &IModelRegistry::Model, judges: &[Box<dyn Judge>]) -> Result<(), String> {
    let inputs = &settled.publicInputs;
    let word = |b: &B256| U256::from_be_bytes(b.0);
    let [_, _, _, _, _, _, _, _, z, y] = *inputs;
    let weights = settled.weights.iter().map(|w| u64::try_from(*w)).collect::<Result<Vec<u64>, _>>();
    let weights = weights.ok().filter(|w| w.iter().all(|w| *w < crate::evm_proof::WEIGHT_BOUND)).ok_or("a weight is out of range")?;
    if weights.len() != model.contributors as usize {
        return Err(format!("{} weights, the model has {} contributors", weights.len(), model.contributors));
    }
    let [a, b, c, d, e, f, g, h, ..] = *inputs;
    let bound = bind_weights(&[a, b, c, d, e, f, g, h], &weights);
    let expected =
        [a, word(&model.base), word(&model.adapter), word(&model.index), model.indexDigest, word(&settled.requestId), g, h, bound.0, bound.1];
    let found = [a, b, c, d, e, f, g, h, z, y];
    if let Some(((expected, found), name)) = expected.iter().zip(&found).zip(INPUT_NAMES).find(|((e, f), _)| e != f) {
        return Err(format!("its {name} is {}, expected {}", digest(*found), digest(*expected)));
    }
    let key = Digest(model.keyDigest.0);
    let judge = judges.iter().find(|j| j.key_digest() == key).ok_or_else(|| format!("the model's key is {key}, which this client doesn't have"))?;
    judge.judge(inputs, &settled.weights, &settled.proof)
}
