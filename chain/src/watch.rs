//! Follows settlements on a chain and verifies each one without trusting the chain's contracts.
//!
//! The state remembers blocks it has read up to, by hash. Before reading on, the newest of them that is still on the chain is found; what was
//! read after it was reorganised away and is read again. A range of blocks counts as read only if its last block is the same before and after.
//!
//! Behind one address there may be several nodes, and the one that is asked for logs may be behind the one that named the newest block; it
//! answers with too few logs, and doesn't say so. So every look reads the last `AGAIN` blocks again, and requests that were escrowed and not
//! seen settled are looked up in the contract, a few at a time.
//!
//! What is remembered is bounded: settlements that are too old to be reorganised away are only counted.

use crate::abi::{AttributionSettlement, IModelRegistry, ModelRegistry};
use crate::deploy::Deployment;
use crate::node::Node;
use crate::ranges::Query;
use crate::request::{Status, request_id};
use crate::{ChainError, Found, read};
use alloy::primitives::{Address, B256, U256};
use alloy::sol_types::SolEvent;
use circuits::statement::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use steps::evm_proof::{INPUT_NAMES, INPUTS, bind_weights, digest};

/// Format of the state file.
pub const FORMAT: &str = "poa-watch/1";
/// Blocks asked about at once.
const CHUNK: u64 = 2_000;
/// Blocks remembered by hash.
const REMEMBERED: usize = 256;
/// Blocks that are read again at every look.
const AGAIN: u64 = 256;
/// Settlements and open requests that are remembered, at most.
const MOST: usize = 4_096;
/// Most characters of a reason.
const REASON: usize = 500;
/// Open requests that are looked up at every look.
const LOOK_UPS: usize = 4;
/// Blocks and looks after which a settlement that the contract tells of is reported although no event does.
const PATIENCE: (u64, u32) = (64, 8);
/// Attempts to find what a settlement was paid with, and the pause between them.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

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
    /// Its place among the block's logs.
    #[serde(default)]
    pub index: u64,
    /// Whether this client accepts it.
    pub accepted: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// A request that was paid for: what its settlement must be about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escrow {
    /// The request.
    pub request_id: Digest,
    /// The model.
    pub model: u64,
    /// The verifier that it named.
    pub verifier: Address,
    /// Digest of the verifying key that was paid for.
    pub key: Digest,
    /// Digest of the prompt that was paid for; zero for any.
    pub prompt: Digest,
    /// Digest of the tokens that were paid for; zero for any.
    pub tokens: Digest,
    /// Its block.
    pub block: u64,
    /// The block in which it was settled or refunded.
    pub closed: Option<u64>,
    /// That the contract says that it is settled, and no event does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<Silence>,
}

/// A settlement without its event: the contract's doing, or a node's whose logs are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The block up to which was read when it was first noticed.
    pub since: u64,
    /// How often it was.
    pub looks: u32,
    /// The block up to which was read when it was reported.
    pub reported: Option<u64>,
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
    /// The newest settlements on the chain as it was read.
    pub settlements: Vec<Verdict>,
    /// The newest requests that may still be settled.
    #[serde(default)]
    pub escrows: Vec<Escrow>,
    /// Settlements before this block are only counted.
    #[serde(default)]
    pub counted_to: u64,
    /// Counted settlements that were accepted.
    #[serde(default)]
    pub accepted: u64,
    /// Counted settlements that weren't.
    #[serde(default)]
    pub rejected: u64,
}

impl State {
    /// Nothing read yet.
    pub fn new(d: &Deployment) -> Self {
        let (chain_id, settlement) = (d.chain_id, d.contracts.settlement);
        Self {
            format: FORMAT.into(),
            chain_id,
            settlement,
            next: d.block,
            blocks: vec![],
            settlements: vec![],
            escrows: vec![],
            counted_to: 0,
            accepted: 0,
            rejected: 0,
        }
    }

    /// Whether it is of this deployment.
    pub fn is_of(&self, d: &Deployment) -> bool {
        self.format == FORMAT && self.chain_id == d.chain_id && self.settlement == d.contracts.settlement
    }

    /// Settlements accepted and not, in all.
    pub fn totals(&self) -> (u64, u64) {
        let accepted = self.settlements.iter().filter(|s| s.accepted).count() as u64;
        (self.accepted + accepted, self.rejected + self.settlements.len() as u64 - accepted)
    }

    fn remember(&mut self, block: Seen) {
        if self.blocks.last() != Some(&block) {
            self.blocks.push(block);
        }
        let surplus = self.blocks.len().saturating_sub(REMEMBERED);
        self.blocks.drain(..surplus);
        self.next = block.number.saturating_add(1);
        self.forget();
    }

    /// Counts settlements that no reorganisation reaches any more, and those beyond what is remembered.
    fn forget(&mut self) {
        let oldest = self.blocks.first().map_or(0, |b| b.number).min(self.next.saturating_sub(AGAIN));
        self.settlements.sort_by_key(|s| s.block);
        let surplus = self.settlements.len().saturating_sub(MOST);
        // A block is counted as a whole, or what is read again would count twice.
        let crowded = surplus.checked_sub(1).map_or(0, |last| self.settlements[last].block + 1);
        self.counted_to = self.counted_to.max(oldest).max(crowded);
        let (counted, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.settlements).into_iter().partition(|s| s.block < self.counted_to);
        self.settlements = kept;
        let accepted = counted.iter().filter(|s| s.accepted).count() as u64;
        self.accepted += accepted;
        self.rejected += counted.len() as u64 - accepted;
        let counted_to = self.counted_to;
        self.escrows.retain(|e| e.closed.is_none_or(|block| block >= counted_to));
        self.escrows.sort_by_key(|e| e.block);
        let surplus = self.escrows.len().saturating_sub(MOST);
        self.escrows.drain(..surplus);
    }

    /// Forgets what was read of a block and later ones; returns settlements that are gone with them.
    fn rewind_to(&mut self, next: u64, d: &Deployment) -> Vec<Verdict> {
        if next < self.counted_to {
            // Which of the counted ones are gone can't be told: everything is read again.
            let gone = std::mem::take(&mut self.settlements);
            *self = Self::new(d);
            return gone;
        }
        self.next = next;
        self.escrows.retain(|e| e.block < next);
        for escrow in &mut self.escrows {
            escrow.closed = escrow.closed.filter(|block| *block < next);
            // A report that is withdrawn is made again.
            escrow.silence = escrow.silence.filter(|s| s.reported.is_some_and(|block| block < next));
        }
        let (kept, gone) = std::mem::take(&mut self.settlements).into_iter().partition(|s| s.block < next);
        self.settlements = kept;
        gone
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
    looked_up: usize,
}

/// The events that are read: what was paid for, and what became of it.
const EVENTS: [B256; 3] = [
    AttributionSettlement::Escrowed::SIGNATURE_HASH,
    AttributionSettlement::Settled::SIGNATURE_HASH,
    AttributionSettlement::Refunded::SIGNATURE_HASH,
];

impl<'a> Watch<'a> {
    /// Over a deployment.
    pub fn new(node: &'a mut Node, deployment: &'a Deployment, judges: &'a [Box<dyn Judge>]) -> Self {
        Self { node, deployment, judges, models: BTreeMap::new(), looked_up: 0 }
    }

    /// Reads up to the newest block but `confirmations`; at most `CHUNK` new blocks. Says whether more are there.
    pub fn step(&mut self, state: &mut State, confirmations: u64) -> Result<(Vec<News>, bool), ChainError> {
        let mut news = self.rewind(state)?;
        let last = self.node.head()?.number.saturating_sub(confirmations);
        let to = last.min(state.next.saturating_add(CHUNK - 1));
        if to < state.next.saturating_sub(1) {
            return Ok((news, false));
        }
        let from = state.next.saturating_sub(AGAIN).max(state.counted_to).max(self.deployment.block);
        let Some(before) = self.node.block(to)? else { return Err(behind(to)) };
        let found = self.node.logs_of(&Query { address: state.settlement, events: &EVENTS, first: None, from, to })?;
        let mut read = state.clone();
        let mut verdicts = self.take(&mut read, &found)?;
        verdicts.extend(self.overlooked(&mut read, to)?);
        if self.node.block(to)? != Some(before) {
            return Ok((news, true));
        }
        read.remember(Seen { number: to, hash: before.hash });
        *state = read;
        news.extend(verdicts.into_iter().map(News::Settlement));
        Ok((news, to < last))
    }

    /// Forgets what was read after the newest remembered block that is still on the chain.
    fn rewind(&mut self, state: &mut State) -> Result<Vec<News>, ChainError> {
        let mut kept = state.blocks.len();
        let mut lacks = None;
        while let Some(block) = kept.checked_sub(1).map(|i| state.blocks[i]) {
            match self.node.block(block.number)? {
                Some(found) if found.hash == block.hash => break,
                // A block with another hash replaced it; one that is missing may only be behind.
                Some(_) => lacks = None,
                None => lacks = lacks.or(Some(block.number)),
            }
            kept -= 1;
        }
        if let Some(number) = lacks {
            return Err(behind(number));
        }
        if kept == state.blocks.len() {
            return Ok(vec![]);
        }
        state.blocks.truncate(kept);
        self.models.clear();
        let next = state.blocks.last().map_or(self.deployment.block, |b| b.number + 1);
        Ok(state.rewind_to(next, self.deployment).into_iter().map(News::Withdrawn).collect())
    }

    /// Takes logs in, oldest first; returns verdicts about settlements that are new.
    fn take(&mut self, state: &mut State, found: &[Found]) -> Result<Vec<Verdict>, ChainError> {
        let mut known: BTreeSet<_> = state.settlements.iter().map(|v| (v.request_id.0, v.block, v.index)).collect();
        let mut verdicts = vec![];
        for log in found {
            let id = Digest(log.log.topics().get(1).copied().unwrap_or_default().0);
            match log.log.topics().first() {
                Some(event) if *event == AttributionSettlement::Escrowed::SIGNATURE_HASH => {
                    if let Some(escrow) = self.escrow(log).filter(|e| state.escrows.iter().all(|known| known.request_id != e.request_id)) {
                        state.escrows.push(escrow);
                    }
                }
                Some(event) if *event == AttributionSettlement::Refunded::SIGNATURE_HASH => close(state, id, log.block),
                _ if !known.insert((id.0, log.block, log.index)) => {}
                _ => {
                    let verdict = self.verdict(state, log)?;
                    close(state, id, log.block);
                    state.settlements.push(verdict.clone());
                    verdicts.push(verdict);
                }
            }
        }
        Ok(verdicts)
    }

    /// A request that was paid for; none if its id isn't that of its terms.
    fn escrow(&self, found: &Found) -> Option<Escrow> {
        let log = AttributionSettlement::Escrowed::decode_log(&found.log).ok()?.data;
        let (d, nonce) = (self.deployment, u64::try_from(log.nonce).ok()?);
        let request_id = request_id(d.chain_id, d.contracts.settlement, log.payer, nonce, &log.terms);
        if request_id.0 != log.requestId.0 || (log.terms.modelId, log.terms.verifier) != (log.modelId, log.verifier) {
            return None;
        }
        let [prompt, tokens] = [log.terms.promptDigest, log.terms.tokenDigest].map(digest);
        let key = Digest(log.terms.verifierKey.0);
        Some(Escrow { request_id, model: log.modelId, verifier: log.verifier, key, prompt, tokens, block: found.block, closed: None, silence: None })
    }

    /// The request that a settlement is of, if it isn't remembered: as the node has it.
    fn find_escrow(&self, id: Digest, settled: &Found) -> Result<Option<Escrow>, ChainError> {
        let (to, before) = (settled.block, |log: &&Found| log.place() < settled.place());
        let (address, first) = (self.deployment.contracts.settlement, Some(B256::from(id.0)));
        let query = Query { address, events: &EVENTS, first, from: self.deployment.block, to };
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                // The node that answers may be behind the one that had the settlement.
                std::thread::sleep(PAUSE);
            }
            let logs = self.node.logs_of(&query)?;
            if let Some(mut escrow) = logs.iter().filter(before).find_map(|log| self.escrow(log)) {
                // Settled or refunded before, though it isn't remembered any more.
                let ends = |log: &&Found| log.log.topics().first().is_some_and(|event| EVENTS[1..].contains(event));
                escrow.closed = logs.iter().filter(before).find(ends).map(|log| log.block);
                return Ok(Some(escrow));
            }
        }
        Ok(None)
    }

    /// Settlements that the contract knows of and whose events weren't seen: looks a few open requests up, others every time. A contract that pays
    /// and says nothing is reported after [`PATIENCE`]: till then the node that has the logs may be behind.
    fn overlooked(&mut self, state: &mut State, to: u64) -> Result<Vec<Verdict>, ChainError> {
        let start = self.looked_up.wrapping_add(usize::try_from(state.next).unwrap_or_default());
        let open: Vec<Escrow> = state.escrows.iter().filter(|e| e.closed.is_none()).cloned().collect();
        let (mut found, mut silent) = (vec![], vec![]);
        for i in 0..open.len().min(LOOK_UPS) {
            let escrow = &open[start.wrapping_add(i) % open.len()];
            let (settlement, id) = (self.deployment.contracts.settlement, B256::from(escrow.request_id.0));
            let request = read(self.node, settlement, &AttributionSettlement::requestCall { requestId: id })?;
            if Status::of(request.status) == Status::Settled {
                // The contract was asked as it is now: the event may be in a block that isn't read yet.
                let head = self.node.head()?.number.max(to);
                let logs = self.node.logs_of(&Query { address: settlement, events: &EVENTS[1..2], first: Some(id), from: escrow.block, to: head })?;
                silent.extend(logs.is_empty().then_some(escrow.request_id));
                found.extend(logs.into_iter().filter(|log| log.block <= to));
            }
        }
        self.looked_up = self.looked_up.wrapping_add(LOOK_UPS);
        let mut verdicts = self.take(state, &found)?;
        verdicts.extend(silent.into_iter().filter_map(|id| unexplained(state, id, to)));
        Ok(verdicts)
    }

    fn verdict(&mut self, state: &State, found: &Found) -> Result<Verdict, ChainError> {
        let (block, transaction, index) = (found.block, found.transaction, found.index);
        let rejected = |request_id, model, reason: String| {
            let reason = Some(reason.chars().take(REASON).collect());
            Verdict { request_id, model, block, transaction, index, accepted: false, reason }
        };
        let settled = match AttributionSettlement::Settled::decode_log(&found.log) {
            Ok(log) => log.data,
            Err(e) => {
                let id = found.log.topics().get(1).copied().unwrap_or_default();
                return Ok(rejected(Digest(id.0), 0, format!("the event can't be read: {e}")));
            }
        };
        let (id, model) = (Digest(settled.requestId.0), settled.modelId);
        let escrow = match state.escrows.iter().find(|e| e.request_id == id) {
            Some(escrow) => Some(escrow.clone()),
            None => self.find_escrow(id, found)?,
        };
        let nothing = || "nothing was escrowed for this request before, under terms that its id is of".to_owned();
        let outcome = escrow.ok_or_else(nothing).and_then(|escrow| compare(&settled, &escrow).map(|()| escrow.key));
        let outcome = match outcome.map(|key| (key, self.model(model))) {
            Err(reason) => Err(reason),
            Ok((key, Ok(registered))) if key.0 != registered.keyDigest.0 => {
                Err(format!("the model's key is {}, {key} was paid for", Digest(registered.keyDigest.0)))
            }
            Ok((_, Ok(registered))) => examine(&settled, &registered, self.judges),
            Ok((_, Err(ChainError::Reverted { .. }))) => Err(format!("model {model} isn't registered")),
            Ok((_, Err(error))) => return Err(error),
        };
        Ok(match outcome {
            Ok(()) => Verdict { request_id: id, model, block, transaction, index, accepted: true, reason: None },
            Err(reason) => rejected(id, model, reason),
        })
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

fn behind(block: u64) -> ChainError {
    ChainError::Behind { problem: format!("it doesn't have block {block}, which another answer was about") }
}

/// What is to be said of a request that the contract calls settled without an event; nothing while it may still come.
fn unexplained(state: &mut State, id: Digest, to: u64) -> Option<Verdict> {
    let escrow = state.escrows.iter_mut().find(|e| e.request_id == id)?;
    let silence = escrow.silence.get_or_insert(Silence { since: to, looks: 0, reported: None });
    silence.looks = silence.looks.saturating_add(1);
    if silence.reported.is_some() || to < silence.since.saturating_add(PATIENCE.0) || silence.looks < PATIENCE.1 {
        return None;
    }
    silence.reported = Some(to);
    let reason = format!("the contract says that it is settled, and {} blocks later no event says how: nothing shows what was paid for", PATIENCE.0);
    let (model, transaction) = (escrow.model, B256::ZERO);
    let verdict = Verdict { request_id: id, model, block: to, transaction, index: 0, accepted: false, reason: Some(reason) };
    state.settlements.push(verdict.clone());
    Some(verdict)
}

fn close(state: &mut State, id: Digest, block: u64) {
    state.escrows.iter_mut().filter(|e| e.request_id == id).for_each(|e| e.closed = e.closed.or(Some(block)));
}

/// Whether a settlement is of what was paid for.
///
/// # Errors
///
/// Says what differs.
pub fn compare(settled: &AttributionSettlement::Settled, escrow: &Escrow) -> Result<(), String> {
    if escrow.closed.is_some() {
        return Err("the request had been settled or refunded before".into());
    }
    if (settled.modelId, settled.verifier) != (escrow.model, escrow.verifier) {
        let (model, verifier) = (settled.modelId, settled.verifier);
        return Err(format!("it is of model {model} by verifier {verifier}; model {} and verifier {} were paid for", escrow.model, escrow.verifier));
    }
    let bound = [("prompt digest", escrow.prompt), ("token digest", escrow.tokens)];
    for (name, expected) in bound.into_iter().filter(|(_, d)| *d != Digest::default()) {
        let found = settled.publicInputs.iter().zip(INPUT_NAMES).find(|(_, n)| *n == name).map(|(input, _)| digest(*input));
        if found != Some(expected) {
            return Err(format!("its {name} is {}, {expected} was paid for", found.unwrap_or_default()));
        }
    }
    Ok(())
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
    let weights = weights.ok().filter(|w| w.iter().all(|w| *w < steps::evm_proof::WEIGHT_BOUND)).ok_or("a weight is out of range")?;
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
