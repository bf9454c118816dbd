//! A real node, over HTTP.
//!
//! Transactions are signed here, with the nonce that follows the newest block, and only while nothing of the account is under way: a command
//! that is run again can't pay twice, and none replaces what another one sent. What a transaction may cost is capped, whatever the node says
//! about fees. URLs may hold secrets: only their host is ever shown.

use crate::ranges::{self, Query};
use crate::transport::{Place, Transport, WayError};
use crate::{Call, Chain, ChainError, Found, Keep, Receipt, Search, Signed};
use alloy::eips::eip2718::Encodable2718;
use alloy::network::{Ethereum, EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::utils::{format_ether, format_units};
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::providers::utils::{Eip1559Estimation, Eip1559Estimator};
use alloy::providers::{Provider, RootProvider};
use alloy::rpc::client::RpcClient;
use alloy::rpc::json_rpc::ErrorPayload;
use alloy::rpc::types::{BlockNumberOrTag, Filter, TransactionReceipt, TransactionRequest};
use alloy::signers::local::PrivateKeySigner;
use alloy::transports::{RpcError, TransportError};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use steps::progress::{Observer, Unwatched};
use tokio::runtime::{Builder, Runtime};

/// Between two looks for a receipt.
const POLL: Duration = Duration::from_millis(200);
/// How long a receipt may lag behind the account's nonce.
const LAG: Duration = Duration::from_secs(5);
/// Most bytes of logs that one question may gather.
const LOG_BYTES: usize = 256 << 20;
/// What a transaction's gas may cost unless said otherwise, in wei: a tenth of an ether.
pub const MAX_FEE: u128 = 100_000_000_000_000_000;

/// What a transaction may cost.
#[derive(Clone, Copy, Debug)]
pub struct FeeLimits {
    /// Most wei for its gas.
    pub most: u128,
    /// Tip in wei per gas; none for what recent blocks paid.
    pub tip: Option<u128>,
}

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
    place: Place,
    chain_id: u64,
    keys: BTreeMap<Address, PrivateKeySigner>,
    wait: Duration,
    fees: FeeLimits,
    /// The newest transactions that were seen in blocks, and their nonces: one node behind an address may lag behind another.
    seen: BTreeMap<Address, (u64, B256)>,
    /// Most blocks that the node takes in one question about logs, as far as it has said.
    span: Cell<u64>,
}

impl Node {
    /// Connects; waits up to `wait` for transactions, and for a node that asks to slow down.
    pub fn connect(url: &str, wait: Duration) -> Result<Self, ChainError> {
        Self::connect_observed(url, wait, Arc::new(Unwatched))
    }

    /// The same; `on` is told when the node makes this process wait.
    pub fn connect_observed(url: &str, wait: Duration, on: Arc<dyn Observer>) -> Result<Self, ChainError> {
        let refused = |problem: String| ChainError::Refused { problem };
        let place = Place::parse(url).map_err(|problem| ChainError::Url { problem })?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| refused(e.to_string()))?;
        let transport = Transport::new(place.clone(), wait, on).map_err(refused)?;
        let provider = RootProvider::new(RpcClient::new(transport, false));
        let fees = FeeLimits { most: MAX_FEE, tip: None };
        let mut node =
            Self { runtime, provider, place, chain_id: 0, keys: BTreeMap::new(), wait, fees, seen: BTreeMap::new(), span: Cell::new(u64::MAX) };
        node.chain_id = node.ask(node.provider.get_chain_id())?;
        Ok(node)
    }

    /// Limits what transactions may cost.
    pub fn limit_fees(&mut self, fees: FeeLimits) {
        self.fees = fees;
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
        match self.block_at(BlockNumberOrTag::Number(number))? {
            Some(other) if other.number != number => {
                Err(ChainError::Answer { what: "a block", problem: format!("it has number {}, not {number}", other.number) })
            }
            block => Ok(block),
        }
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
        self.runtime.block_on(request.into_future()).map_err(|e| self.explain(&e))
    }

    fn explain(&self, error: &TransportError) -> ChainError {
        let place = self.place.name().to_owned();
        match error {
            RpcError::ErrorResp(payload) => self.explain_refusal(payload),
            RpcError::Transport(kind) => match kind.as_custom().and_then(|e| e.downcast_ref::<WayError>()) {
                Some(WayError::Throttled { .. }) => ChainError::Throttled { place, problem: error.to_string() },
                Some(WayError::TooLong) => ChainError::TooLong { place, problem: error.to_string() },
                Some(WayError::Status { status: 300..500, .. }) => ChainError::Refused { problem: error.to_string() },
                _ => ChainError::Unreachable { place, problem: self.place.quoted(&error.to_string()) },
            },
            RpcError::DeserError { err, .. } => ChainError::Answer { what: "a request", problem: self.place.quoted(&err.to_string()) },
            other => ChainError::Answer { what: "a request", problem: self.place.quoted(&other.to_string()) },
        }
    }

    fn explain_refusal(&self, payload: &ErrorPayload) -> ChainError {
        let problem = self.place.quoted(&payload.message);
        let words = problem.to_lowercase();
        let lacks = ["header not found", "block not found", "unknown block", "beyond current head", "beyond head", "after last block"];
        match payload.as_revert_data() {
            Some(data) => ChainError::Reverted { data: data.to_vec() },
            None if words.contains("revert") => ChainError::Reverted { data: vec![] },
            None if lacks.iter().any(|w| words.contains(w)) => ChainError::Behind { problem },
            None => ChainError::Refused { problem },
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

    /// The account's next nonce, if nothing of it is under way.
    fn free_nonce(&self, account: Address) -> Result<u64, ChainError> {
        let mut nonce = self.ask(self.provider.get_transaction_count(account))?;
        if let Some((seen, transaction)) = self.seen.get(&account).filter(|(seen, _)| nonce <= *seen) {
            // The node lags, unless that transaction was reorganised away.
            if self.receipt_of(*transaction)?.is_some() {
                nonce = seen.saturating_add(1);
            }
        }
        // Not every node knows what is under way.
        let with_pending = self.ask(self.provider.get_transaction_count(account).pending()).unwrap_or(nonce);
        match with_pending.saturating_sub(nonce) {
            0 => Ok(nonce),
            more => Err(ChainError::Nonce { account, nonce, problem: format!("{more} not in a block yet") }),
        }
    }

    /// Most to pay per gas, and the tip in it. The base fee may double before the transaction is in a block, within the limit.
    fn fees(&self, gas: u64) -> Result<(u128, u128), ChainError> {
        let head = self.ask(self.provider.get_block_by_number(BlockNumberOrTag::Latest))?;
        let base = head.and_then(|b| b.header.base_fee_per_gas).ok_or(ChainError::NoBaseFee { chain: self.chain_id })?;
        let tip = match self.fees.tip {
            Some(tip) => tip,
            None => self.ask(self.provider.estimate_eip1559_fees_with(Eip1559Estimator::new(tip_alone)))?.max_priority_fee_per_gas,
        };
        let price = u128::from(base).saturating_add(tip);
        let most = self.fees.most / u128::from(gas.max(1));
        if price > most {
            let needed = shortest(format_ether(U256::from(price) * U256::from(gas)));
            let price = shortest(format_units(U256::from(price), "gwei").unwrap_or_default());
            return Err(ChainError::Fee { needed, gas, price, most: shortest(format_ether(U256::from(self.fees.most))) });
        }
        Ok((price.saturating_add(u128::from(base)).min(most), tip))
    }

    /// Signs with the account's key.
    fn sign(&self, call: &Call, nonce: u64) -> Result<Signed, ChainError> {
        let key = self.keys.get(&call.from).ok_or(ChainError::NoKey { account: call.from })?;
        let gas = match call.gas {
            Some(gas) => gas,
            // What is needed may grow a little until the transaction is in a block.
            None => {
                let estimate = self.ask(self.provider.estimate_gas(self.request(call)).block(BlockNumberOrTag::Latest.into()))?;
                (estimate / 5).saturating_mul(6)
            }
        };
        let (most, tip) = self.fees(gas)?;
        let request = self
            .request(call)
            .with_nonce(nonce)
            .with_chain_id(self.chain_id)
            .with_gas_limit(gas)
            .with_max_fee_per_gas(most)
            .with_max_priority_fee_per_gas(tip);
        let wallet = EthereumWallet::from(key.clone());
        let signed = self.runtime.block_on(request.build(&wallet)).map_err(|e| ChainError::Refused { problem: format!("signing: {e}") })?;
        Ok(Signed { transaction: *signed.tx_hash(), nonce, gas, bytes: signed.encoded_2718().into() })
    }

    /// Hands a transaction to the node.
    fn broadcast(&self, signed: &Signed, account: Address) -> Result<(), ChainError> {
        let Err(error) = self.ask(self.provider.send_raw_transaction(&signed.bytes)) else { return Ok(()) };
        // A node that went away may have taken it: whether it did shows in the receipt.
        if matches!(error, ChainError::Unreachable { .. }) {
            return Ok(());
        }
        ChainError::of_sending(error, account, signed.nonce, self.chain_id).map_or(Ok(()), Err)
    }

    /// Waits for the receipt of a transaction that was sent, and says what came of it.
    fn conclude(&self, call: &Call, signed: &Signed) -> Result<Receipt, ChainError> {
        let receipt = self.wait_for(signed.transaction, self.wait)?;
        if receipt.status() { Ok(converted(&receipt)) } else { Err(self.post_mortem(call, &receipt, signed.gas)) }
    }

    fn receipt_of(&self, transaction: B256) -> Result<Option<TransactionReceipt>, ChainError> {
        let receipt = self.ask(self.provider.get_transaction_receipt(transaction))?;
        match receipt {
            Some(other) if other.transaction_hash != transaction => {
                Err(ChainError::Answer { what: "a receipt", problem: format!("it is of transaction {}, not {transaction}", other.transaction_hash) })
            }
            receipt => Ok(receipt),
        }
    }

    fn wait_for(&self, transaction: B256, wait: Duration) -> Result<TransactionReceipt, ChainError> {
        let start = Instant::now();
        let mut problem = String::new();
        while start.elapsed() < wait {
            match self.receipt_of(transaction) {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) => problem.clear(),
                Err(e) => problem = format!(": {e}"),
            }
            std::thread::sleep(POLL);
        }
        Err(ChainError::Unconfirmed { transaction, seconds: wait.as_secs(), problem })
    }

    /// Logs, oldest first: in as many pieces as the node wants, down to single blocks.
    pub(super) fn logs_of(&self, query: &Query<'_>) -> Result<Vec<Found>, ChainError> {
        let (mut next, mut span, mut bytes) = (query.from, self.span.get(), 0);
        let mut all = vec![];
        while next <= query.to {
            let last = query.to.min(next.saturating_add(span - 1));
            let piece = Query { from: next, to: last, ..query.clone() };
            match self.logs_between(&piece) {
                Ok(found) => all.extend(found),
                Err(error) if error.is_too_much() && last > next => {
                    let (narrower, proposed) = ranges::narrower(&error.to_string(), (last - next).saturating_add(1));
                    span = narrower;
                    if proposed {
                        self.span.set(narrower);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            bytes += all.iter().rev().take_while(|f: &&Found| f.block >= next).map(|f| f.log.data.data.len()).sum::<usize>();
            if bytes > LOG_BYTES {
                let problem = format!("logs of blocks {} to {last} hold more than {LOG_BYTES} bytes", query.from);
                return Err(ChainError::TooLong { place: self.place.name().to_owned(), problem });
            }
            let Some(after) = last.checked_add(1) else { break };
            next = after;
        }
        Ok(all)
    }

    fn logs_between(&self, query: &Query<'_>) -> Result<Vec<Found>, ChainError> {
        let filter = Filter::new().address(query.address).event_signature(query.events.to_vec()).from_block(query.from).to_block(query.to);
        let filter = match query.first {
            Some(first) => filter.topic1(first),
            None => filter,
        };
        ranges::checked(self.ask(self.provider.get_logs(&filter))?, query)
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

/// A decimal number without trailing zeros.
fn shortest(number: String) -> String {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.').to_owned() } else { number }
}

/// The tip that recent blocks paid: the median of those that aren't zero. The base fee is read elsewhere.
fn tip_alone(_: u128, rewards: &[Vec<u128>]) -> Eip1559Estimation {
    let mut paid: Vec<u128> = rewards.iter().filter_map(|r| r.first().copied()).filter(|r| *r > 0).collect();
    paid.sort_unstable();
    let tip = paid.get(paid.len() / 2).copied().unwrap_or(1);
    Eip1559Estimation { max_fee_per_gas: tip, max_priority_fee_per_gas: tip }
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
        self.send_kept(call, &mut |_| Ok(()))
    }

    fn send_kept(&mut self, call: Call, keep: &mut Keep<'_>) -> Result<Receipt, ChainError> {
        let nonce = self.free_nonce(call.from)?;
        let signed = self.sign(&call, nonce)?;
        keep(&signed)?;
        self.broadcast(&signed, call.from)?;
        let outcome = self.conclude(&call, &signed);
        if !matches!(outcome, Err(ChainError::Unconfirmed { .. })) {
            self.seen.insert(call.from, (signed.nonce, signed.transaction));
        }
        outcome
    }

    fn resume(&mut self, call: Call, kept: &Signed) -> Result<Receipt, ChainError> {
        let is_in_a_block = self.receipt_of(kept.transaction)?.is_some();
        if !is_in_a_block && self.nonce(call.from)? <= kept.nonce {
            self.broadcast(kept, call.from)?;
        } else if !is_in_a_block {
            // Its nonce is used: by itself, if the receipt only lags.
            let problem = format!("transaction {} isn't the one that used it", kept.transaction);
            let used = |_| ChainError::Nonce { account: call.from, nonce: kept.nonce, problem };
            self.wait_for(kept.transaction, LAG.min(self.wait)).map_err(used)?;
        }
        let outcome = self.conclude(&call, kept);
        if outcome.is_ok() {
            self.seen.insert(call.from, (kept.nonce, kept.transaction));
        }
        outcome
    }

    fn logs(&mut self, search: &Search) -> Result<Vec<Found>, ChainError> {
        let to = search.to.map_or_else(|| self.head().map(|b| b.number), Ok)?;
        self.logs_of(&Query { address: search.address, events: &[search.event], first: search.first, from: search.from, to })
    }

    fn receipt(&mut self, transaction: B256) -> Result<Option<Receipt>, ChainError> {
        Ok(self.receipt_of(transaction)?.as_ref().map(converted))
    }
}
