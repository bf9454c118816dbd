//! A deployment's journal: which transactions may have been sent, written before each is.
//!
//! A deployment that is broken off, at whatever point, goes on with the same transactions: what is in a block is left, what isn't is sent again
//! as it was signed. No contract is paid for twice. The file is replaced as a whole and removed when the deployment's own file is there.

use crate::{Chain, ChainError, Signed};
use alloy::primitives::{Address, B256, keccak256};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use steps::error::Failure;
use steps::store::{read_json, write_json};

/// Format of the file.
const FORMAT: &str = "poa-deploy-journal/1";

/// A transaction that may have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    /// `keccak256` of its calldata.
    data: B256,
    /// As it was signed.
    signed: Signed,
}

/// Where a deployment began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Start {
    chain_id: u64,
    deployer: Address,
    block: u64,
    nonce: u64,
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: String,
    start: Option<Start>,
    steps: Vec<Step>,
}

/// The journal of one deployment.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    record: Record,
}

impl Journal {
    /// Beside the deployment's file: that of a deployment that was broken off, else a new one.
    ///
    /// # Errors
    ///
    /// When there is a file that isn't a journal.
    pub fn beside(deployment: &Path) -> Result<Self, Failure> {
        let path = deployment.with_extension("journal.json");
        let record = if path.exists() { read_json(&path)? } else { Record { format: FORMAT.into(), start: None, steps: vec![] } };
        if record.format != FORMAT {
            return Err(Failure::input(format!("{} has format {}, expected {FORMAT}", path.display(), record.format)).hint("give another --out"));
        }
        Ok(Self { path, record })
    }

    /// Transactions of a deployment that was broken off.
    pub fn steps(&self) -> usize {
        self.record.steps.len()
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn foreign(&self, problem: &str) -> ChainError {
        let place = self.path.display();
        ChainError::Journal { problem: format!("{place} is the journal of a deployment that was broken off, and {problem}") }
    }

    /// The block before the first contract and the deployer's nonce for it: as they were when the deployment began.
    pub(super) fn start(&mut self, chain: &mut impl Chain, deployer: Address) -> Result<(u64, u64), ChainError> {
        let (chain_id, nonce) = (chain.chain_id(), chain.nonce(deployer)?);
        match self.record.start {
            None => {
                let (block, _) = chain.newest()?;
                self.record.start = Some(Start { chain_id, deployer, block, nonce });
                Ok((block, nonce))
            }
            Some(start) if start.chain_id != chain_id => Err(self.foreign(&format!("it is of chain {}, not {chain_id}", start.chain_id))),
            Some(start) if start.deployer != deployer => Err(self.foreign(&format!("its deployer is {}, not {deployer}", start.deployer))),
            Some(start) if nonce < start.nonce => Err(self.foreign("this chain is another one or behind: the deployer has sent less on it")),
            Some(start) => Ok((start.block, start.nonce)),
        }
    }

    fn place(&self, nonce: u64) -> usize {
        let first = self.record.start.map_or(0, |s| s.nonce);
        usize::try_from(nonce.saturating_sub(first)).unwrap_or(usize::MAX)
    }

    /// The transaction with a nonce, if it may have been sent.
    pub(super) fn kept(&self, nonce: u64, data: &[u8]) -> Result<Option<Signed>, ChainError> {
        match self.record.steps.get(self.place(nonce)) {
            None => Ok(None),
            Some(step) if step.data == keccak256(data) && step.signed.nonce == nonce => Ok(Some(step.signed.clone())),
            Some(_) => Err(self.foreign("it deploys something else: another verifier, other settings or another version of poa")),
        }
    }

    /// Why a kept transaction can't be finished any more, if another one has its nonce.
    pub(super) fn overtaken(&self, error: ChainError) -> ChainError {
        match error {
            ChainError::Nonce { nonce, .. } => {
                self.foreign(&format!("nonce {nonce}, which the contracts' addresses depend on, is gone: the deployer used it for something else"))
            }
            other => other,
        }
    }

    /// Keeps a transaction that is about to be sent: the next one, or the last one signed anew.
    pub(super) fn keep(&mut self, nonce: u64, data: &[u8], signed: &Signed) -> Result<(), ChainError> {
        let (place, count) = (self.place(nonce), self.record.steps.len());
        if signed.nonce != nonce || !(place..=place.saturating_add(1)).contains(&count) {
            let problem = format!("the deployment needs nonce {nonce}, the next one is {}: something else was sent from it", signed.nonce);
            return Err(ChainError::Nonce { account: self.record.start.map(|s| s.deployer).unwrap_or_default(), nonce, problem });
        }
        self.record.steps.truncate(place);
        self.record.steps.push(Step { data: keccak256(data), signed: signed.clone() });
        let written = write_json(&self.path, &self.record);
        written.map_err(|f| ChainError::Journal { problem: format!("{}; nothing was sent", f.message) })
    }

    /// Removes the file: the deployment has its own.
    pub fn close(self) {
        // One that stays says the same again.
        let _ = std::fs::remove_file(self.path);
    }
}
