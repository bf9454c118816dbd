//! One payment: escrow, settle, collect, withdraw.

use crate::abi::{AttributionSettlement, IAttributionSettlement, OpenToken};
use crate::deploy::Deployment;
use crate::{Call, Chain, ChainError, Found, Search, event, evm, read, write};
use alloy::primitives::aliases::U40;
use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use alloy::sol_types::{SolCall, SolEvent, SolValue};
use circuits::statement::Digest;
use steps::error::Failure;
use steps::evm_proof::{EvmProof, INPUT_NAMES, digest, word};

pub use IAttributionSettlement::Terms;

/// What fees are paid in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asset {
    /// Ether.
    Ether,
    /// The OPEN token.
    Open,
}

impl Asset {
    /// As they're written.
    pub const NAMES: [&str; 2] = ["ether", "open"];

    /// By name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Ether, Self::Open].into_iter().zip(Self::NAMES).find_map(|(asset, own)| (own == name).then_some(asset))
    }

    fn code(self) -> u8 {
        self as u8
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is none.
    None,
    /// Paid for, not proven.
    Escrowed,
    /// Proven and paid out.
    Settled,
    /// Paid back.
    Refunded,
}

impl Status {
    /// By its code in the contract.
    pub fn of(code: u8) -> Self {
        [Self::None, Self::Escrowed, Self::Settled, Self::Refunded].get(usize::from(code)).copied().unwrap_or(Self::None)
    }
}

/// Which exchange is paid for, and who may settle it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Salted digest of the prompt; zero accepts any exchange with the model.
    pub prompt: Digest,
    /// Salted digest of prompt and answer; zero accepts any answer.
    pub tokens: Digest,
    /// The only account that may settle; zero for anyone.
    pub settler: Address,
}

/// What a payer offers.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The model that must answer.
    pub model: u64,
    /// What the fee is paid in.
    pub asset: Asset,
    /// The fee.
    pub amount: u128,
    /// Last second in which a proof is accepted.
    pub deadline: u64,
    /// For what, by whom.
    pub conditions: Conditions,
}

/// What a chain offers for a model now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The current split.
    pub split: u32,
    /// The verifier approved for the model's key.
    pub verifier: Address,
    /// Digest of that key.
    pub key_digest: Digest,
}

/// Terms of a request: what the payer offers, under what the chain offers.
pub fn terms(order: &Order, service: &Service) -> Terms {
    let Conditions { prompt, tokens, settler } = order.conditions;
    Terms {
        modelId: order.model,
        splitId: service.split,
        asset: order.asset.code(),
        amount: order.amount,
        deadline: U40::saturating_from(order.deadline),
        promptDigest: word(&prompt),
        tokenDigest: word(&tokens),
        settler,
        verifier: service.verifier,
        verifierKey: B256::from(service.key_digest.0),
    }
}

/// The id that a request gets: `keccak256(abi.encode(chain, settlement, payer, nonce, terms))` without its three highest bits.
pub fn request_id(chain_id: u64, settlement: Address, payer: Address, nonce: u64, terms: &Terms) -> Digest {
    let encoded = (U256::from(chain_id), settlement, payer, U256::from(nonce), terms.clone()).abi_encode_params();
    Digest(keccak256(encoded).0).truncated()
}

/// An escrowed request.
#[derive(Clone, Debug)]
pub struct Escrow {
    /// What the proof must name.
    pub request_id: Digest,
    /// The transaction.
    pub transaction: B256,
    /// Its gas.
    pub gas_used: u64,
}

/// Escrows a fee; in OPEN, approves it first.
pub fn escrow(chain: &mut impl Chain, payer: Address, d: &Deployment, terms: Terms) -> Result<Escrow, ChainError> {
    let c = &d.contracts;
    let amount = U256::from(terms.amount);
    let ether = terms.asset == Asset::Ether.code();
    if !ether {
        write(chain, payer, c.open, U256::ZERO, &OpenToken::approveCall { spender: c.settlement, value: amount })?;
    }
    let value = if ether { amount } else { U256::ZERO };
    let receipt = write(chain, payer, c.settlement, value, &AttributionSettlement::escrowCall { terms })?;
    let escrowed: AttributionSettlement::Escrowed = event(&receipt, c.settlement)?;
    Ok(Escrow { request_id: Digest(escrowed.requestId.0), transaction: receipt.transaction, gas_used: receipt.gas_used })
}

/// What one contributor gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payout {
    /// Their name.
    pub contributor: String,
    /// Their account.
    pub account: Address,
    /// In wei, or OPEN's smallest unit.
    pub amount: U256,
}

/// A settled request.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The request.
    pub request_id: Digest,
    /// The transaction that settled it.
    pub transaction: B256,
    /// Whether it had been settled, by this very claim, before.
    pub already: bool,
    /// Gas of the transaction.
    pub gas_used: u64,
    /// Gas of the verification in it.
    pub verify_gas: u64,
    /// The fee.
    pub amount: U256,
    /// What it is paid in.
    pub asset: Asset,
    /// What each contributor gets.
    pub payouts: Vec<Payout>,
}

/// Settles a request, or finds that this very claim has been settled. `gas` limits the transaction.
pub fn settle(
    chain: &mut impl Chain,
    from: Address,
    d: &Deployment,
    proof: &EvmProof,
    names: &[String],
    gas: Option<u64>,
) -> Result<Settlement, Failure> {
    d.check(chain)?;
    check_key(d, proof)?;
    let settlement = d.contracts.settlement;
    let id = proof.request_id();
    let request = read(chain, settlement, &AttributionSettlement::requestCall { requestId: id })?;
    let (transaction, gas_used, already) = match Status::of(request.status) {
        Status::None => {
            let message = format!("request {} isn't escrowed on chain {}", Digest(id.0), d.chain_id);
            return Err(Failure::input(message).hint("`poa escrow` prints the request id to prove with"));
        }
        Status::Refunded => return Err(Failure::input(format!("request {} has been refunded", Digest(id.0)))),
        Status::Settled => settled_before(chain, d, proof)?,
        Status::Escrowed => {
            check_inputs(chain, settlement, proof)?;
            settle_now(chain, from, d, proof, gas)?
        }
    };
    let verify_gas = evm::verify_gas(chain, request.verifier, &proof.inputs(), &proof.proof.0)?;
    let weights = weights(proof);
    let preview = read(chain, settlement, &AttributionSettlement::previewCall { requestId: id, weights })?;
    let payouts = names.iter().zip(preview.contributors.iter().zip(&preview.amounts));
    let payouts = payouts.map(|(name, (account, amount))| Payout { contributor: name.clone(), account: *account, amount: *amount }).collect();
    let asset = if request.asset == Asset::Ether.code() { Asset::Ether } else { Asset::Open };
    let amount = U256::from(request.amount);
    Ok(Settlement { request_id: Digest(id.0), transaction, already, gas_used, verify_gas, amount, asset, payouts })
}

fn weights(proof: &EvmProof) -> Vec<U256> {
    proof.weights.iter().map(|&w| U256::from(w)).collect()
}

/// The public inputs that the chain doesn't know by itself.
fn digests(proof: &EvmProof) -> IAttributionSettlement::Digests {
    let [statement, _, _, _, _, _, prompt, tokens, ..] = proof.inputs();
    IAttributionSettlement::Digests { statement, prompt, tokens }
}

fn check_key(d: &Deployment, proof: &EvmProof) -> Result<(), Failure> {
    if proof.key_digest == d.key_digest {
        return Ok(());
    }
    let message = format!("the proof is of key {}, the contracts verify key {}", proof.key_digest, d.key_digest);
    Err(Failure::invalid(message).hint("wrap the proof with the key that was deployed"))
}

/// What the contract will verify the proof against, compared here: says which part is wrong, which a failing proof doesn't.
fn check_inputs(chain: &mut impl Chain, settlement: Address, proof: &EvmProof) -> Result<(), Failure> {
    let inputs = proof.inputs();
    let call = AttributionSettlement::publicInputsCall { requestId: proof.request_id(), digests: digests(proof), weights: weights(proof) };
    let expected = read(chain, settlement, &call)?;
    let different = expected.iter().zip(&inputs).zip(INPUT_NAMES).find(|((e, f), _)| e != f);
    different.map_or(Ok(()), |((expected, found), name)| {
        let message = format!("the proof is of another {name} than the request's model: {}, expected {}", digest(*found), digest(*expected));
        Err(Failure::invalid(message).hint("prove with the registered model, adapter and index, or register this one and escrow for it"))
    })
}

fn settle_now(chain: &mut impl Chain, from: Address, d: &Deployment, proof: &EvmProof, gas: Option<u64>) -> Result<(B256, u64, bool), Failure> {
    let data = AttributionSettlement::settleCall {
        requestId: proof.request_id(),
        digests: digests(proof),
        weights: weights(proof),
        proof: Bytes::from(proof.proof.0.clone()),
    };
    let call = Call { from, to: Some(d.contracts.settlement), data: data.abi_encode().into(), gas, ..Call::default() };
    chain.call(&call)?;
    match chain.send(call) {
        Ok(receipt) => Ok((receipt.transaction, receipt.gas_used, false)),
        // Someone else may have been faster, or an earlier transaction of ours got through after all.
        Err(error) => settled_before(chain, d, proof).map_err(|_| error.into()),
    }
}

/// The settlement's event.
pub fn settled_event(chain: &mut impl Chain, d: &Deployment, id: B256) -> Result<Option<(AttributionSettlement::Settled, Found)>, ChainError> {
    let event = AttributionSettlement::Settled::SIGNATURE_HASH;
    let search = Search { address: d.contracts.settlement, event, first: Some(id), from: d.block, to: None };
    let found = chain.logs(&search)?.pop();
    Ok(found.and_then(|f| Some((AttributionSettlement::Settled::decode_log(&f.log).ok()?.data, f))))
}

/// The transaction that settled this very claim.
fn settled_before(chain: &mut impl Chain, d: &Deployment, proof: &EvmProof) -> Result<(B256, u64, bool), Failure> {
    let id = proof.request_id();
    let Some((event, found)) = settled_event(chain, d, id)? else {
        return Err(Failure::input(format!("request {} is settled, but the node doesn't have the event", Digest(id.0))));
    };
    // Proof bytes are malleable and identify nothing: the claim is what counts.
    if event.publicInputs != proof.inputs() || event.weights != weights(proof) {
        return Err(Failure::invalid(format!("request {} has been settled by another proof, in transaction {}", Digest(id.0), found.transaction)));
    }
    let gas = chain.receipt(found.transaction)?.map_or(0, |r| r.gas_used);
    Ok((found.transaction, gas, true))
}

/// Contributions that are collected in one transaction.
const BATCH: usize = 64;

/// Credits all contributors with what they haven't collected; returns how many.
pub fn collect(chain: &mut impl Chain, from: Address, d: &Deployment, proof: &EvmProof) -> Result<usize, ChainError> {
    let settlement = d.contracts.settlement;
    let (id, weights) = (proof.request_id(), weights(proof));
    let mut open = vec![];
    for (index, _) in weights.iter().enumerate().filter(|(_, w)| !w.is_zero()) {
        let index = U256::from(index);
        if !read(chain, settlement, &AttributionSettlement::collectedCall { requestId: id, index })? {
            let call = AttributionSettlement::weightPathCall { requestId: id, weights: weights.clone(), index };
            let found = read(chain, settlement, &call)?;
            open.push(IAttributionSettlement::Collection { requestId: id, index, weights: found.group, path: found.path });
        }
    }
    for batch in open.chunks(BATCH) {
        write(chain, from, settlement, U256::ZERO, &AttributionSettlement::collectCall { collections: batch.to_vec() })?;
    }
    Ok(open.len())
}

/// After the deadline, credits a fee to its payer.
pub fn refund(chain: &mut impl Chain, from: Address, d: &Deployment, id: Digest) -> Result<(), ChainError> {
    let call = AttributionSettlement::refundCall { requestId: B256::from(id.0) };
    write(chain, from, d.contracts.settlement, U256::ZERO, &call).map(|_| ())
}

/// What an account can withdraw.
pub fn claimable(chain: &mut impl Chain, account: Address, d: &Deployment, asset: Asset) -> Result<U256, ChainError> {
    read(chain, d.contracts.settlement, &AttributionSettlement::claimableCall { asset: asset.code(), account })
}

/// Sends an account everything it is credited with.
pub fn withdraw(chain: &mut impl Chain, account: Address, d: &Deployment, asset: Asset, to: Address) -> Result<U256, ChainError> {
    let call = AttributionSettlement::withdrawCall { asset: asset.code(), to };
    let receipt = write(chain, account, d.contracts.settlement, U256::ZERO, &call)?;
    Ok(event::<AttributionSettlement::Withdrawn>(&receipt, d.contracts.settlement)?.amount)
}
