//! The EVM in this process: no node, no keys, gas is free. And the meter of a verification's gas, for any chain.
//!
//! The same transactions at the same times come to the same state: whoever keeps them has the chain ([`Evm::carry_out`], [`Evm::state_digest`]).

use crate::abi::AttributionVerifier;
use crate::{Call, Chain, ChainError, Found, Receipt, Search, read};
use alloy::primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy::sol_types::SolCall;
use revm::context::result::{EVMError, ExecutionResult, HaltReason, Output};
use revm::context::{CfgEnv, TxEnv};
use revm::database::in_memory_db::DbAccount;
use revm::database::{CacheDB, EmptyDB};
use revm::handler::{MainnetContext, MainnetEvm};
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, Bytecode};
use revm::{Context, Database, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext};
use steps::evm_proof::INPUTS;

/// Gas limit of transactions that name none: the most that a transaction may have since the Osaka upgrade is 2^24.
const GAS_LIMIT: u64 = 16_000_000;
/// Blocks are this many seconds apart.
const BLOCK_TIME: u64 = 1;
/// Rules of the blocks: the newest ones, and for the meter those before calldata had a price floor, which has no part in a call's gas.
const RULES: SpecId = SpecId::OSAKA;
const METER_RULES: SpecId = SpecId::CANCUN;

/// A chain in memory. Every transaction is a block.
pub struct Evm {
    database: CacheDB<EmptyDB>,
    chain_id: u64,
    rules: SpecId,
    /// Number and time of the newest block.
    newest: (u64, u64),
    receipts: Vec<Receipt>,
}

impl Evm {
    /// An empty chain at block zero.
    pub fn new(chain_id: u64, time: u64) -> Self {
        Self::with_rules(chain_id, time, RULES)
    }

    fn with_rules(chain_id: u64, time: u64, rules: SpecId) -> Self {
        Self { database: CacheDB::default(), chain_id, rules, newest: (0, time), receipts: vec![] }
    }

    /// What executes, in a block of that number and time.
    fn machine(&mut self, (number, time): (u64, u64)) -> MainnetEvm<MainnetContext<&mut CacheDB<EmptyDB>>> {
        let context = Context::mainnet().with_db(&mut self.database).with_cfg(CfgEnv::new_with_spec(self.rules));
        let context = context.modify_cfg_chained(|c| c.chain_id = self.chain_id).modify_block_chained(|b| {
            b.number = U256::from(number);
            b.timestamp = U256::from(time);
            b.basefee = 0;
        });
        context.build_mainnet()
    }

    /// Gives an account ether.
    pub fn give(&mut self, account: Address, wei: U256) {
        let mut info = self.info(account);
        info.balance += wei;
        self.database.insert_account_info(account, info);
    }

    /// Puts code at an address.
    fn place(&mut self, address: Address, code: Bytes) {
        self.database.insert_account_info(address, AccountInfo::from_bytecode(Bytecode::new_raw(code)));
    }

    /// The earliest time of the next block.
    pub fn next_time(&self) -> u64 {
        self.newest.1 + BLOCK_TIME
    }

    /// Carries out a transaction in a block of that time. The outer error: nothing has happened, not even a block; the inner one: what happened
    /// had no effect but on the sender's nonce and the time.
    pub fn carry_out(&mut self, call: &Call, time: u64) -> Result<Result<Receipt, ChainError>, ChainError> {
        if time <= self.newest.1 {
            return Err(ChainError::Refused { problem: format!("a block of time {time} can't follow one of time {}", self.newest.1) });
        }
        let environment = self.transaction(call);
        let block = self.receipts.len() as u64 + 1;
        let transaction = keccak256(block.to_be_bytes());
        let result = self.machine((block, time)).transact_commit(environment).map_err(refused)?;
        self.newest = (block, time);
        Ok(outcome(result, transaction).map(|(gas_used, _, created, logs)| {
            let receipt = Receipt { transaction, block, gas_used, created, logs };
            self.receipts.push(receipt.clone());
            receipt
        }))
    }

    /// A digest of every account that there is: balance, nonce, code and storage.
    pub fn state_digest(&self) -> B256 {
        let of_account = |(address, account): (&Address, &DbAccount)| {
            let info = account.info().filter(|info| !info.is_empty())?;
            let mut slots: Vec<(U256, U256)> = account.storage.iter().map(|(k, v)| (*k, *v)).filter(|(_, v)| !v.is_zero()).collect();
            slots.sort_unstable();
            let slots: Vec<u8> = slots.iter().flat_map(|(k, v)| [k.to_be_bytes::<32>(), v.to_be_bytes::<32>()].concat()).collect();
            let parts: [&[u8]; 5] =
                [&address[..], &info.balance.to_be_bytes::<32>(), &info.nonce.to_be_bytes(), &info.code_hash[..], &keccak256(slots)[..]];
            Some(parts.concat())
        };
        let mut accounts: Vec<Vec<u8>> = self.database.cache.accounts.iter().filter_map(of_account).collect();
        accounts.sort_unstable();
        keccak256(accounts.concat())
    }

    fn info(&mut self, account: Address) -> AccountInfo {
        self.database.basic(account).ok().flatten().unwrap_or_default()
    }

    fn transaction(&mut self, call: &Call) -> TxEnv {
        TxEnv::builder()
            .caller(call.from)
            .kind(call.to.map_or(TxKind::Create, TxKind::Call))
            .value(call.value)
            .data(call.data.clone())
            .gas_limit(call.gas.unwrap_or(GAS_LIMIT))
            .gas_price(0)
            .nonce(self.info(call.from).nonce)
            .chain_id(Some(self.chain_id()))
            .build_fill()
    }
}

fn refused<E: std::fmt::Display>(error: EVMError<E>) -> ChainError {
    ChainError::Refused { problem: error.to_string() }
}

/// What a transaction returned, or why it had no effect.
fn outcome(result: ExecutionResult, transaction: B256) -> Result<(u64, Bytes, Option<Address>, Vec<alloy::primitives::Log>), ChainError> {
    let used = result.tx_gas_used();
    match result {
        ExecutionResult::Success { output: Output::Call(data), logs, .. } => Ok((used, data, None, logs)),
        ExecutionResult::Success { output: Output::Create(data, created), logs, .. } => Ok((used, data, created, logs)),
        ExecutionResult::Revert { output, .. } => Err(ChainError::Reverted { data: output.to_vec() }),
        ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => Err(ChainError::OutOfGas { transaction, gas: used }),
        ExecutionResult::Halt { reason, .. } => Err(ChainError::Refused { problem: format!("the contract halted: {reason:?}") }),
    }
}

impl Chain for Evm {
    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    fn newest(&mut self) -> Result<(u64, u64), ChainError> {
        Ok(self.newest)
    }

    fn code(&mut self, account: Address) -> Result<Bytes, ChainError> {
        let hash = self.info(account).code_hash;
        Ok(self.database.code_by_hash(hash).map(|c| c.original_bytes()).unwrap_or_default())
    }

    fn nonce(&mut self, account: Address) -> Result<u64, ChainError> {
        Ok(self.info(account).nonce)
    }

    fn balance(&mut self, account: Address) -> Result<U256, ChainError> {
        Ok(self.info(account).balance)
    }

    fn call(&mut self, call: &Call) -> Result<Bytes, ChainError> {
        let transaction = self.transaction(call);
        let result = self.machine(self.newest).transact(transaction).map_err(refused)?.result;
        Ok(outcome(result, B256::ZERO)?.1)
    }

    fn send(&mut self, call: Call) -> Result<Receipt, ChainError> {
        let time = self.next_time();
        self.carry_out(&call, time)?
    }

    fn logs(&mut self, search: &Search) -> Result<Vec<Found>, ChainError> {
        let in_range = |r: &&Receipt| r.block >= search.from && search.to.is_none_or(|to| r.block <= to);
        let wanted = |log: &alloy::primitives::Log| {
            let topics = log.topics();
            log.address == search.address && topics.first() == Some(&search.event) && search.first.is_none_or(|f| topics.get(1) == Some(&f))
        };
        let of_receipt = |r: &Receipt| {
            let (transaction, block) = (r.transaction, r.block);
            let found = move |(log, index): (&alloy::primitives::Log, u64)| Found { log: log.clone(), transaction, block, index };
            r.logs.iter().zip(0..).filter(|(log, _)| wanted(log)).map(found).collect::<Vec<_>>()
        };
        Ok(self.receipts.iter().filter(in_range).flat_map(of_receipt).collect())
    }

    fn receipt(&mut self, transaction: B256) -> Result<Option<Receipt>, ChainError> {
        Ok(self.receipts.iter().find(|r| r.transaction == transaction).cloned())
    }
}

/// Gas of the call from the settlement into the verifier, measured by running the chain's own code here: needs no tracing of the node.
pub fn verify_gas(chain: &mut impl Chain, verifier: Address, inputs: &[U256; INPUTS], proof: &[u8]) -> Result<u64, ChainError> {
    let raw = read(chain, verifier, &AttributionVerifier::rawCall {})?;
    let mut meter = Evm::with_rules(chain.chain_id(), 0, METER_RULES);
    for address in [verifier, raw] {
        let code = chain.code(address)?;
        meter.place(address, code);
    }
    let data = AttributionVerifier::verifyCall { publicInputs: *inputs, proof: proof.to_vec().into() }.abi_encode();
    let intrinsic = 21_000 + data.iter().map(|b| if *b == 0 { 4 } else { 16 }).sum::<u64>();
    let environment = meter.transaction(&Call { to: Some(verifier), data: data.into(), ..Call::default() });
    let result = meter.machine((0, 0)).transact(environment).map_err(refused)?.result;
    Ok(outcome(result, B256::ZERO)?.0 - intrinsic)
}
