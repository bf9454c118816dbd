//! Contracts on a chain: deploy, register, escrow, settle, collect, watch.
//!
//! Everything is written once against [`Chain`], which has two implementations: [`node::Node`], a real node, and [`evm::Evm`], the EVM in
//! this process. The same calls in the same order have the same addresses, request ids and gas on both.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod abi;
pub mod bundled;
pub mod deploy;
pub mod devnet;
pub mod error;
pub mod evm;
pub mod expect;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hostile_watch;
pub mod journal;
pub mod judges;
pub mod node;
pub mod offer;
mod ranges;
#[cfg(test)]
mod recorded;
pub mod register;
pub mod rehearsal;
pub mod request;
#[cfg(test)]
mod served;
#[cfg(test)]
mod tests;
mod transport;
pub mod watch;

use alloy::primitives::{Address, B256, Bytes, Log, U256};
use alloy::sol_types::{SolCall, SolEvent};
pub use error::ChainError;
use serde::{Deserialize, Serialize};

/// A call or transaction.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Who calls.
    pub from: Address,
    /// Who is called; none to create a contract.
    pub to: Option<Address>,
    /// Ether sent along, in wei.
    pub value: U256,
    /// Calldata.
    pub data: Bytes,
    /// Gas limit; none for what it needs.
    pub gas: Option<u64>,
}

/// A transaction that was carried out.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// Its hash.
    pub transaction: B256,
    /// Its block.
    pub block: u64,
    /// Gas paid for.
    pub gas_used: u64,
    /// The contract it created.
    pub created: Option<Address>,
    /// What it logged.
    pub logs: Vec<Log>,
}

/// A log and where it is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The log.
    pub log: Log,
    /// Its transaction.
    pub transaction: B256,
    /// Its block.
    pub block: u64,
    /// Its place among the block's logs.
    pub index: u64,
}

impl Found {
    /// Where it is: block, then place in it.
    pub fn place(&self) -> (u64, u64) {
        (self.block, self.index)
    }
}

/// What is searched for in logs.
#[derive(Clone, Debug)]
pub struct Search {
    /// Who logged.
    pub address: Address,
    /// The event.
    pub event: B256,
    /// Its first indexed value; none for any.
    pub first: Option<B256>,
    /// First block.
    pub from: u64,
    /// Last block; none for the newest.
    pub to: Option<u64>,
}

/// A signed transaction, as it may be on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Its hash.
    pub transaction: B256,
    /// Its nonce.
    pub nonce: u64,
    /// Its gas limit.
    pub gas: u64,
    /// What is sent.
    pub bytes: Bytes,
}

/// Keeps a signed transaction before it is sent.
pub type Keep<'a> = dyn FnMut(&Signed) -> Result<(), ChainError> + 'a;

/// A chain with accounts that this process can act for.
pub trait Chain {
    /// Its id.
    fn chain_id(&self) -> u64;
    /// Number and time of the newest block.
    fn newest(&mut self) -> Result<(u64, u64), ChainError>;
    /// Code of a contract; empty if there is none.
    fn code(&mut self, account: Address) -> Result<Bytes, ChainError>;
    /// Transactions sent by an account.
    fn nonce(&mut self, account: Address) -> Result<u64, ChainError>;
    /// Ether of an account.
    fn balance(&mut self, account: Address) -> Result<U256, ChainError>;
    /// What a call would return; nothing changes.
    fn call(&mut self, call: &Call) -> Result<Bytes, ChainError>;
    /// Carries out a transaction and waits for it. One that reverts is an error.
    fn send(&mut self, call: Call) -> Result<Receipt, ChainError>;
    /// The same; the transaction is kept before anything leaves this process. A chain that ends with the process needs nothing kept.
    fn send_kept(&mut self, call: Call, _keep: &mut Keep<'_>) -> Result<Receipt, ChainError> {
        self.send(call)
    }
    /// Goes on with a transaction that was kept: sends the same again if it isn't in a block, never another one.
    fn resume(&mut self, call: Call, _kept: &Signed) -> Result<Receipt, ChainError> {
        self.send(call)
    }
    /// Finds logs, oldest first.
    fn logs(&mut self, search: &Search) -> Result<Vec<Found>, ChainError>;
    /// The receipt of a transaction.
    fn receipt(&mut self, transaction: B256) -> Result<Option<Receipt>, ChainError>;
}

/// Reads from a contract.
pub fn read<C: SolCall>(chain: &mut impl Chain, to: Address, call: &C) -> Result<C::Return, ChainError> {
    let answer = chain.call(&Call { to: Some(to), data: call.abi_encode().into(), ..Call::default() })?;
    C::abi_decode_returns(&answer).map_err(|e| ChainError::Answer { what: C::SIGNATURE, problem: e.to_string() })
}

/// Changes a contract.
pub fn write<C: SolCall>(chain: &mut impl Chain, from: Address, to: Address, value: U256, call: &C) -> Result<Receipt, ChainError> {
    chain.send(Call { from, to: Some(to), value, data: call.abi_encode().into(), gas: None })
}

/// The event that a transaction must have logged.
pub fn event<E: SolEvent>(receipt: &Receipt, address: Address) -> Result<E, ChainError> {
    let mut logs = receipt.logs.iter().filter(|log| log.address == address);
    logs.find_map(|log| E::decode_log(log).ok().map(|l| l.data)).ok_or(ChainError::Answer { what: E::SIGNATURE, problem: "not logged".into() })
}
