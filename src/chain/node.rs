//! A real node, over HTTP.
//!
//! Transactions are signed here, with the nonce that follows the newest block: while one is under way, the next would replace it, so that a
//! command that is run again can't pay twice. URLs may hold secrets: only their host is ever shown.

use super::{Call, Chain, ChainError, Found, Receipt, Search};
use alloy::eips::eip2718::Encodable2718;
use alloy::network::{Ethereum, EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::providers::{Provider, RootProvider};
use alloy::rpc::types::{BlockNumberOrTag, Filter, Log, TransactionReceipt, TransactionRequest};
use alloy::signers::local::PrivateKeySigner;
use alloy::transports::TransportError;
use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(30);
/// Between two looks for a receipt.
const POLL: Duration = Duration::from_millis(200);

/// Every node takes a range of so many blocks.
const SHORT_RANGE: u64 = 100;

/// A block's place on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its time.
    pub time: u64,
}

/// A node and the keys to act with.
pub struct Node {
    runtime: Runtime,
    provider: RootProvider<Ethereum>,
    urls: [String; 2],
    place: String,
    chain_id: u64,
    keys: BTreeMap<Address, PrivateKeySigner>,
    wait: Duration,
}

impl Node {
    /// Connects; waits up to `wait` for transactions.
    pub fn connect(url: &str, wait: Duration) -> Result<Self, ChainError> {
        let parsed: alloy::transports::http::reqwest::Url =
            url.parse().map_err(|e| ChainError::Refused { problem: format!("--rpc-url isn't a URL: {e}") })?;
        let host = parsed.host_str().unwrap_or("?");
        let place = parsed.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| ChainError::Refused { problem: e.to_string() })?;
        let provider = RootProvider::new_http(parsed.clone());
        let mut bare = parsed.clone();
        // Only URLs that can't have a host refuse; those have no credentials.
        let _ = bare.set_username("").and_then(|()| bare.set_password(None));
        let urls = [parsed.to_string(), bare.to_string()];
        let mut node = Self { runtime, provider, urls, place, chain_id: 0, keys: BTreeMap::new(), wait };
        node.chain_id = node.ask(node.provider.get_chain_id())?;
        Ok(node)
    }

    /// Lets this process act for an account.
    pub fn add_key(&mut self, key: PrivateKeySigner) -> Address {
        let address = key.address();
        self.keys.insert(address, key);
        address
    }

    /// The newest block.
    pub fn head(&self) -> Result<BlockId, ChainError> {
        self.block_at(BlockNumberOrTag::Latest)?.ok_or(ChainError::Answer { what: "the newest block", problem: "there is none".into() })
    }

    /// A block; none if the chain isn't that long.
    pub fn block(&self, number: u64) -> Result<Option<BlockId>, ChainError> {
        self.block_at(BlockNumberOrTag::Number(number))
    }

    fn block_at(&self, tag: BlockNumberOrTag) -> Result<Option<BlockId>, ChainError> {
        let block = self.ask(self.provider.get_block_by_number(tag))?;
        Ok(block.map(|b| BlockId { number: b.header.number, hash: b.header.hash, time: b.header.timestamp }))
    }

    /// A method of development nodes.
    #[cfg(test)]
    pub fn development(&self, method: &'static str, parameters: serde_json::Value) -> Result<serde_json::Value, ChainError> {
        self.ask(self.provider.raw_request(method.into(), parameters))
    }

    fn ask<T>(&self, request: impl IntoFuture<Output = Result<T, TransportError>>) -> Result<T, ChainError> {
        let future = request.into_future();
        match self.runtime.block_on(async { tokio::time::timeout(REQUEST, future).await }) {
            Ok(answer) => answer.map_err(|e| self.explain(&e)),
            Err(_) => Err(self.unreachable(format!("no answer within {} s", REQUEST.as_secs()))),
        }
    }

    fn unreachable(&self, problem: String) -> ChainError {
        ChainError::Unreachable { place: self.place.clone(), problem }
    }

    fn explain(&self, error: &TransportError) -> ChainError {
        let Some(payload) = error.as_error_resp() else {
            // Errors quote the URL without its credentials, which leaves its path.
            let text = self.urls.iter().fold(error.to_string(), |text, url| text.replace(url, &self.place));
            return self.unreachable(text);
        };
        match payload.as_revert_data() {
            Some(data) => ChainError::Reverted { data: data.to_vec() },
            None if payload.message.contains("revert") => ChainError::Reverted { data: vec![] },
            None => ChainError::Refused { problem: payload.message.to_string() },
        }
    }

    fn request(&self, call: &Call) -> TransactionRequest {
        let request = TransactionRequest::default().with_from(call.from).with_value(call.value).with_input(call.data.clone());
        let request = match call.to {
            Some(to) => request.with_to(to),
            None => request.into_create(),
        };
        match call.gas {
            Some(gas) => request.with_gas_limit(gas),
            None => request,
        }
    }

    /// Signs; returns the hash and what to send.
    fn sign(&self, call: &Call, nonce: u64) -> Result<(B256, Vec<u8>, u64), ChainError> {
        let key = self.keys.get(&call.from).ok_or(ChainError::NoKey { account: call.from })?;
        let gas = match call.gas {
            Some(gas) => gas,
            // What is needed may grow a little until the transaction is in a block.
            None => self.ask(self.provider.estimate_gas(self.request(call)).block(BlockNumberOrTag::Latest.into()))? / 5 * 6,
        };
        let fees = self.ask(self.provider.estimate_eip1559_fees())?;
        let request = self
            .request(call)
            .with_nonce(nonce)
            .with_chain_id(self.chain_id)
            .with_gas_limit(gas)
            .with_max_fee_per_gas(fees.max_fee_per_gas)
            .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas);
        let wallet = EthereumWallet::from(key.clone());
        let signed = self.runtime.block_on(request.build(&wallet)).map_err(|e| ChainError::Refused { problem: format!("signing: {e}") })?;
        Ok((*signed.tx_hash(), signed.encoded_2718(), gas))
    }

    /// What a node says about a transaction it doesn't take.
    fn not_taken(error: ChainError, call: &Call, nonce: u64) -> Option<ChainError> {
        let ChainError::Refused { problem } = error else { return Some(error) };
        let says = |words: &[&str]| words.iter().any(|w| problem.to_lowercase().contains(w));
        let account = call.from;
        if says(&["already known", "already imported"]) {
            return None;
        }
        Some(if says(&["nonce", "replacement", "underpriced"]) {
            ChainError::Nonce { account, nonce, problem }
        } else if says(&["insufficient funds", "insufficient balance"]) {
            ChainError::Funds { account, problem }
        } else {
            ChainError::Refused { problem }
        })
    }

    fn wait_for(&self, transaction: B256) -> Result<TransactionReceipt, ChainError> {
        let start = Instant::now();
        let mut problem = String::new();
        while start.elapsed() < self.wait {
            match self.ask(self.provider.get_transaction_receipt(transaction)) {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) => problem.clear(),
                Err(e) => problem = format!(": {e}"),
            }
            std::thread::sleep(POLL);
        }
        Err(ChainError::Unconfirmed { transaction, seconds: self.wait.as_secs(), problem })
    }

    /// Nodes limit the range of blocks, each in its own way: what is refused is asked for in halves.
    fn logs_between(&self, search: &Search, from: u64, to: u64) -> Result<Vec<Found>, ChainError> {
        let filter = Filter::new().address(search.address).event_signature(search.event).from_block(from).to_block(to);
        let filter = match search.first {
            Some(first) => filter.topic1(first),
            None => filter,
        };
        match self.ask(self.provider.get_logs(&filter)) {
            Ok(logs) => Ok(logs.into_iter().filter_map(found).collect()),
            Err(ChainError::Refused { .. }) if to.saturating_sub(from) > SHORT_RANGE => {
                let middle = from + (to - from) / 2;
                let mut logs = self.logs_between(search, from, middle)?;
                logs.extend(self.logs_between(search, middle + 1, to)?);
                Ok(logs)
            }
            Err(error) => Err(error),
        }
    }

    /// Why an included transaction had no effect: the same call again, on the block before.
    fn post_mortem(&self, call: &Call, receipt: &TransactionReceipt, gas: u64) -> ChainError {
        let transaction = receipt.transaction_hash;
        if receipt.gas_used >= gas {
            return ChainError::OutOfGas { transaction, gas };
        }
        let block = receipt.block_number.unwrap_or_default();
        let request = self.request(&Call { gas: Some(gas), ..call.clone() });
        let data = match self.ask(self.provider.call(request).block(block.into())) {
            Err(ChainError::Reverted { data }) => data,
            _ => vec![],
        };
        ChainError::NoEffect { transaction, block, data }
    }
}

fn converted(receipt: &TransactionReceipt) -> Receipt {
    Receipt {
        transaction: receipt.transaction_hash,
        block: receipt.block_number.unwrap_or_default(),
        gas_used: receipt.gas_used,
        created: receipt.contract_address,
        logs: receipt.inner.logs().iter().map(|log| log.inner.clone()).collect(),
    }
}

/// A log of a block; those of pending transactions have none.
fn found(log: Log) -> Option<Found> {
    Some(Found { transaction: log.transaction_hash?, block: log.block_number?, log: log.inner })
}

impl Chain for Node {
    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    fn newest(&mut self) -> Result<(u64, u64), ChainError> {
        self.head().map(|b| (b.number, b.time))
    }

    fn code(&mut self, account: Address) -> Result<Bytes, ChainError> {
        self.ask(self.provider.get_code_at(account))
    }

    fn nonce(&mut self, account: Address) -> Result<u64, ChainError> {
        self.ask(self.provider.get_transaction_count(account))
    }

    fn balance(&mut self, account: Address) -> Result<U256, ChainError> {
        self.ask(self.provider.get_balance(account))
    }

    fn call(&mut self, call: &Call) -> Result<Bytes, ChainError> {
        self.ask(self.provider.call(self.request(call)).block(BlockNumberOrTag::Latest.into()))
    }

    fn send(&mut self, call: Call) -> Result<Receipt, ChainError> {
        let nonce = self.nonce(call.from)?;
        let (transaction, bytes, gas) = self.sign(&call, nonce)?;
        if let Err(error) = self.ask(self.provider.send_raw_transaction(&bytes)).map(|_| ()) {
            // A node that went away may have taken it: whether it did shows in the receipt.
            let sent = error.is_transient();
            if let Some(error) = Self::not_taken(error, &call, nonce).filter(|_| !sent) {
                return Err(error);
            }
        }
        let receipt = self.wait_for(transaction)?;
        if receipt.status() { Ok(converted(&receipt)) } else { Err(self.post_mortem(&call, &receipt, gas)) }
    }

    fn logs(&mut self, search: &Search) -> Result<Vec<Found>, ChainError> {
        let last = search.to.map_or_else(|| self.head().map(|b| b.number), Ok)?;
        self.logs_between(search, search.from, last)
    }

    fn receipt(&mut self, transaction: B256) -> Result<Option<Receipt>, ChainError> {
        Ok(self.ask(self.provider.get_transaction_receipt(transaction))?.as_ref().map(converted))
    }
}
