//! A development chain: well-known keys, everything set up for one model, and a whole settlement in this process.
//!
//! The keys are public. They are used on chains with the id of development nodes only.

use crate::deploy::{Deployment, RawVerifier, Settings, deploy, settlement_address, verifier_address};
use crate::evm::Evm;
use crate::register::{LICENCE, Publication, contribute, create_datanet, payees, publish, register};
use crate::request::{self, Asset, Conditions, Order, Service, Settlement, Terms};
use crate::{Call, Chain, ChainError};
use alloy::primitives::{Address, B256, U256, b256, keccak256};
use alloy::signers::local::PrivateKeySigner;
use circuits::statement::{Digest, IndexStatement, Statement, keccak};
use steps::error::Failure;
use steps::evm_proof::{EvmProof, only_request, prompt_digest, token_digest};

/// Id of development chains.
pub const CHAIN_ID: u64 = 31_337;
/// Where development nodes listen.
pub const URL: &str = "http://127.0.0.1:8545";
/// Time of an in-process chain's first block.
pub const START: u64 = 1_800_000_000;
/// One ether.
pub const ETHER: u128 = 1_000_000_000_000_000_000;
/// What a contributor gets to pay for gas with, on nodes where it costs something.
const GAS_MONEY: u128 = ETHER / 10;
/// Requests of a development chain may be settled for a day.
const WINDOW: u64 = 86_400;
/// The first model, under the first split.
const MODEL: u64 = 1;
const SPLIT: u32 = 1;

/// First and second account of anvil's and hardhat's well-known mnemonic.
const DEPLOYER: B256 = b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
const PAYER: B256 = b256!("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");

fn signer(key: &B256) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(key).expect("a key below the order")
}

/// Deploys; owns datanet and model; holds all OPEN and gets the platform's share, which is for trials only.
pub fn deployer() -> PrivateKeySigner {
    signer(&DEPLOYER)
}

/// Pays for answers.
pub fn payer() -> PrivateKeySigner {
    signer(&PAYER)
}

/// A contributor's account, derived from their name: anyone can act for it.
pub fn contributor(name: &str) -> PrivateKeySigner {
    let mut key = keccak256(format!("poa/devnet/contributor/{name}"));
    // Below the curve's order, and not zero.
    key.0[0] &= 0x7f;
    key.0[31] |= 1;
    signer(&key)
}

/// Terms of the payment on a fresh in-process chain.
fn terms(conditions: Conditions, key_digest: Digest) -> Terms {
    let order = Order { model: MODEL, asset: Asset::Ether, amount: ETHER, deadline: START + WINDOW, conditions };
    request::terms(&order, &Service { split: SPLIT, verifier: verifier_address(deployer().address(), 0), key_digest })
}

/// The request id that [`settle_in_process`] gives with a verifier of this key: what to prove with.
pub fn request_id(conditions: Conditions, key_digest: Digest) -> Digest {
    let settlement = settlement_address(deployer().address(), 0);
    request::request_id(CHAIN_ID, settlement, payer().address(), 0, &terms(conditions, key_digest))
}

/// A datanet with every contributor of an index, and its version published.
pub fn datanet(chain: &mut impl Chain, d: &Deployment, index: &IndexStatement, gas_money: bool) -> Result<u64, Failure> {
    let (owner, c) = (deployer().address(), &d.contracts);
    let datanet = create_datanet(chain, owner, c, "demo")?;
    for name in &index.contributors {
        let account = contributor(name).address();
        if gas_money && chain.balance(account)?.is_zero() {
            chain.send(Call { from: owner, to: Some(account), value: U256::from(GAS_MONEY), ..Call::default() })?;
        }
        let root = keccak(&[&index.datanet_root.0[..], name.as_bytes()].concat());
        contribute(chain, account, c, datanet, name, root, LICENCE)?;
    }
    let publication = Publication { datanet, index, licence: LICENCE, chosen: &[] };
    let payees = payees(chain, d, &publication)?;
    publish(chain, owner, d, &publication, &payees)?;
    Ok(datanet)
}

/// Deploys, registers the statement's model, escrows one ether with the statement's request id, settles, collects, and withdraws for every
/// contributor. The payouts are what their balances have grown by.
pub fn settle_in_process(statement: &Statement, proof: &EvmProof, raw: &RawVerifier) -> Result<Settlement, Failure> {
    let mut chain = Evm::new(CHAIN_ID, START);
    chain.give(payer().address(), U256::from(2 * ETHER));
    settle_on(&mut chain, statement, proof, raw, false)
}

/// Everything up to the payment: contracts, datanet, model, and one ether escrowed with the statement's request id.
pub fn prepare(chain: &mut impl Chain, statement: &Statement, raw: &RawVerifier, gas_money: bool) -> Result<Deployment, Failure> {
    let index = statement.index.as_ref().ok_or_else(|| Failure::input("the statement claims no attribution"))?;
    let (owner, payer) = (deployer().address(), payer().address());
    let terms = terms_of(statement, raw.key_digest)?;
    let d = deploy(chain, owner, raw, &Settings::for_trials(owner))?;
    let datanet = datanet(chain, &d, index, gas_money)?;
    register(chain, owner, &d.contracts, statement, raw.key_digest, datanet)?;
    let escrow = request::escrow(chain, payer, &d, terms)?;
    if escrow.request_id != only_request(statement)?.id {
        return Err(
            Failure::input(format!("the chain gave request id {}, not the statement's", escrow.request_id)).hint("use a fresh development chain")
        );
    }
    Ok(d)
}

/// [`settle_in_process`] on any fresh development chain.
pub fn settle_on(chain: &mut impl Chain, statement: &Statement, proof: &EvmProof, raw: &RawVerifier, gas_money: bool) -> Result<Settlement, Failure> {
    proof.check(statement)?;
    let d = prepare(chain, statement, raw, gas_money)?;
    let owner = deployer().address();
    let names = statement.index.as_ref().map(|i| i.contributors.as_slice()).unwrap_or_default();
    let mut settlement = request::settle(chain, owner, &d, proof, names, None)?;
    request::collect(chain, owner, &d, proof)?;
    for payout in &mut settlement.payouts {
        payout.amount = pay_out(chain, payout.account, &d)?;
    }
    Ok(settlement)
}

/// Withdraws what an account is credited with.
fn pay_out(chain: &mut impl Chain, account: Address, d: &Deployment) -> Result<U256, ChainError> {
    if request::claimable(chain, account, d, Asset::Ether)?.is_zero() {
        return Ok(U256::ZERO);
    }
    request::withdraw(chain, account, d, Asset::Ether, account)
}

/// The terms under which the statement's request id is given: for its exchange, its prompt, or any.
fn terms_of(statement: &Statement, key_digest: Digest) -> Result<Terms, Failure> {
    let (request, capacity) = (only_request(statement)?, statement.relation.tokens);
    let prompt = Conditions { prompt: prompt_digest(request, capacity), ..Conditions::default() };
    let exchange = Conditions { tokens: token_digest(request, capacity), ..prompt };
    let matching = [exchange, prompt, Conditions::default()].into_iter().find(|c| request_id(*c, key_digest) == request.id);
    let message = || Failure::input(format!("the statement's request id {} isn't one that a fresh development chain gives", request.id));
    matching.map(|conditions| terms(conditions, key_digest)).ok_or_else(message)
}
