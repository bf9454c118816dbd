//! What goes wrong on a chain, and what to do about it.

use crate::abi::{AttributionSettlement, AttributionVerifier, DatanetRegistry, ModelRegistry, OpenToken, StakingPool};
use alloy::primitives::{Address, B256, hex};
use alloy::sol_types::{SolError, SolInterface, decode_revert_reason};
use steps::error::Failure;
use steps::evm_proof::digest;
use thiserror::Error;

/// Why something on a chain didn't happen.
#[derive(Clone, Debug, Error)]
pub enum ChainError {
    /// A contract refused.
    #[error("the contract refuses: {}", explain(.data))]
    Reverted {
        /// What it returned.
        data: Vec<u8>,
    },
    /// A transaction was included and had no effect.
    #[error("transaction {transaction} was included in block {block} but had no effect: {}", explain(.data))]
    NoEffect {
        /// The transaction.
        transaction: B256,
        /// Its block.
        block: u64,
        /// What the contract returned when asked again.
        data: Vec<u8>,
    },
    /// A transaction used up its gas.
    #[error("transaction {transaction} ran out of gas: {gas} wasn't enough")]
    OutOfGas {
        /// The transaction.
        transaction: B256,
        /// Its limit.
        gas: u64,
    },
    /// No URL of a node.
    #[error("{problem}")]
    Url {
        /// Why.
        problem: String,
    },
    /// The node can't be reached.
    #[error("the node at {place} doesn't answer: {problem}")]
    Unreachable {
        /// Its host.
        place: String,
        /// What happened.
        problem: String,
    },
    /// The node asks to slow down, for longer than anyone waits.
    #[error("the node at {place} takes no more requests for now: {problem}")]
    Throttled {
        /// Its host.
        place: String,
        /// What it says.
        problem: String,
    },
    /// The node hasn't seen what another answer of it, or of a node behind the same address, was about.
    #[error("the node is behind: {problem}")]
    Behind {
        /// What it lacks.
        problem: String,
    },
    /// An answer that is too long to be read.
    #[error("the node at {place} answers with more than is read: {problem}")]
    TooLong {
        /// Its host.
        place: String,
        /// Of what.
        problem: String,
    },
    /// The node went away, or no block came, after a transaction was sent.
    #[error("transaction {transaction} was sent but isn't in a block after {seconds} s{problem}")]
    Unconfirmed {
        /// The transaction.
        transaction: B256,
        /// How long was waited.
        seconds: u64,
        /// The last thing the node said.
        problem: String,
    },
    /// Another transaction of the account has the same nonce.
    #[error("another transaction of {account} is under way with nonce {nonce}: {problem}")]
    Nonce {
        /// The account.
        account: Address,
        /// The nonce.
        nonce: u64,
        /// What the node says.
        problem: String,
    },
    /// The transaction would replace another one of the account.
    #[error("{account} has another transaction with nonce {nonce} under way, and replacing it would need a higher fee: {problem}")]
    Replacement {
        /// The account.
        account: Address,
        /// The nonce.
        nonce: u64,
        /// What the node says.
        problem: String,
    },
    /// The fee is too low for the node.
    #[error("the node takes no transaction for so low a fee: {problem}")]
    Underpriced {
        /// What the node says.
        problem: String,
    },
    /// The gas could cost more than anyone wants to pay.
    #[error("the transaction could cost {needed} ether in gas ({gas} gas at {price} gwei), more than --max-fee {most}")]
    Fee {
        /// What it could cost, in ether.
        needed: String,
        /// Its gas limit.
        gas: u64,
        /// Base fee and tip, in gwei.
        price: String,
        /// The most that may be paid, in ether.
        most: String,
    },
    /// The chain has no base fee.
    #[error("chain {chain} has no base fee (EIP-1559); transactions with a gas price aren't sent from here")]
    NoBaseFee {
        /// The chain.
        chain: u64,
    },
    /// A journal that doesn't fit, or can't be written.
    #[error("{problem}")]
    Journal {
        /// What is wrong.
        problem: String,
    },
    /// The account can't pay.
    #[error("{account} can't pay for the transaction: {problem}")]
    Funds {
        /// The account.
        account: Address,
        /// What the node says.
        problem: String,
    },
    /// There is no contract where one should be.
    #[error("chain {chain} has no contract at {address}, where {what} should be")]
    NoContract {
        /// The chain.
        chain: u64,
        /// The place.
        address: Address,
        /// What should be there.
        what: &'static str,
    },
    /// Another chain.
    #[error("the node is of chain {found}, the contracts are on chain {expected}")]
    Chain {
        /// The deployment's.
        expected: u64,
        /// The node's.
        found: u64,
    },
    /// No key for an account.
    #[error("no private key for {account}")]
    NoKey {
        /// The account.
        account: Address,
    },
    /// The node refuses.
    #[error("the node refuses: {problem}")]
    Refused {
        /// What it says.
        problem: String,
    },
    /// An answer makes no sense.
    #[error("unexpected answer for {what}: {problem}")]
    Answer {
        /// Of what.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl ChainError {
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { .. } => "check --rpc-url, then run the same command again: nothing is paid twice",
            Self::Unconfirmed { .. } => {
                "it may still get into a block: look it up first. Run again, deploy, settle and collect notice what got through; escrow pays again"
            }
            Self::Throttled { .. } => "wait, or give a node with room in --rpc-url, then run the same command again",
            Self::Behind { .. } => "wait until it has caught up, then run the same command again",
            Self::Nonce { .. } | Self::Replacement { .. } => {
                "nothing was replaced: wait until that one is in a block or cancel it in the wallet that sent it, then run the same command again"
            }
            Self::Underpriced { .. } => "give a higher --priority-fee, or wait until fees have fallen",
            Self::Fee { .. } => "wait until gas is cheaper, or raise --max-fee if the node is to be believed",
            Self::NoBaseFee { .. } => "give a node of a chain with the London upgrade or later",
            Self::Journal { .. } => "go on with the same key, node and options as before, or give another --out to deploy everything anew",
            Self::TooLong { .. } => "give another node in --rpc-url",
            Self::Funds { .. } => "send ether to the account, or use another key",
            Self::NoContract { .. } | Self::Chain { .. } => "give the --deployment file of this chain, or run `poa deploy` first",
            Self::NoKey { .. } => "give --private-key-file, or set POA_PRIVATE_KEY",
            Self::OutOfGas { .. } => "leave out --gas-limit, or raise it",
            Self::Reverted { data } | Self::NoEffect { data, .. } => return advice(data),
            Self::Url { .. } => "such as --rpc-url https://node.example or --rpc-url localhost:8545",
            Self::Refused { .. } | Self::Answer { .. } => return None,
        })
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Throttled { .. } | Self::Behind { .. })
    }

    /// Whether asking for less may help.
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::TooLong { .. })
    }

    /// What a node says about a transaction that it doesn't take; nothing if it has it already. Every client has its own words.
    pub fn of_sending(error: Self, account: Address, nonce: u64, chain: u64) -> Option<Self> {
        let Self::Refused { problem } = error else { return Some(error) };
        let words = problem.to_lowercase();
        let says = |list: &[&str]| list.iter().any(|w| words.contains(w));
        if says(&["already known", "alreadyknown", "already imported", "known transaction"]) {
            return None;
        }
        Some(if says(&["replace", "replacement"]) {
            Self::Replacement { account, nonce, problem }
        } else if says(&["type not supported", "unsupported transaction type", "eip-1559", "eip1559"]) {
            Self::NoBaseFee { chain }
        } else if says(&["underpriced", "fee too low", "feetoolow", "gas price too low", "below minimum", "less than block base fee", "tip cap"]) {
            Self::Underpriced { problem }
        } else if says(&["nonce"]) {
            Self::Nonce { account, nonce, problem }
        } else if says(&["insufficient funds", "insufficient balance", "insufficientfunds"]) {
            Self::Funds { account, problem }
        } else {
            Self::Refused { problem }
        })
    }

    /// Whether a contract said that the proof isn't valid.
    pub fn is_invalid_proof(&self) -> bool {
        let (Self::Reverted { data } | Self::NoEffect { data, .. }) = self else { return false };
        data.starts_with(&AttributionSettlement::InvalidProof::SELECTOR)
    }
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        let failure = if error.is_invalid_proof() { Failure::invalid(&error) } else { Failure::input(&error) };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Readable words for what a contract returned when it reverted.
pub fn explain(data: &[u8]) -> String {
    if data.is_empty() {
        return "no reason given (too little gas, or not the contract it should be)".into();
    }
    if let Ok(error) = AttributionSettlement::AttributionSettlementErrors::abi_decode(data) {
        return settlement_words(&error);
    }
    if let Ok(AttributionVerifier::AttributionVerifierErrors::InsufficientGas(e)) = AttributionVerifier::AttributionVerifierErrors::abi_decode(data) {
        return format!("too little gas: the verifier has {}, it may need {} (InsufficientGas)", e.available, e.required);
    }
    let others = [
        named::<AttributionVerifier::AttributionVerifierErrors>(data),
        named::<ModelRegistry::ModelRegistryErrors>(data),
        named::<DatanetRegistry::DatanetRegistryErrors>(data),
        named::<OpenToken::OpenTokenErrors>(data),
        named::<StakingPool::StakingPoolErrors>(data),
    ];
    // Other bytes would be read as text.
    let standard = [[0x08, 0xc3, 0x79, 0xa0], [0x4e, 0x48, 0x7b, 0x71]].iter().any(|selector| data.starts_with(selector));
    let other = others.into_iter().flatten().next().or_else(|| decode_revert_reason(data).filter(|_| standard));
    other.unwrap_or_else(|| format!("unknown error 0x{}", hex::encode(data)))
}

/// The error's name and arguments.
fn named<E: SolInterface + std::fmt::Debug>(data: &[u8]) -> Option<String> {
    let text = format!("{:?}", E::abi_decode(data).ok()?);
    // The variant's name stands before the error's own.
    let inner = text.split_once('(').map(|(_, rest)| rest.trim_end_matches(')').to_owned());
    Some(inner.unwrap_or(text))
}

fn status(value: u8) -> &'static str {
    ["unknown", "escrowed", "settled", "refunded"].get(usize::from(value)).copied().unwrap_or("in an unknown state")
}

fn settlement_words(error: &AttributionSettlement::AttributionSettlementErrors) -> String {
    use AttributionSettlement::AttributionSettlementErrors as E;
    match error {
        E::IsPaused(e) => format!("settlement is paused until {} (IsPaused)", e.until),
        E::UnexpectedStatus(e) => {
            format!("request {} is {}, not {} (UnexpectedStatus)", e.requestId, status(e.found), status(e.expected))
        }
        E::DeadlinePassed(e) => format!("the deadline of request {} was {} (DeadlinePassed)", e.requestId, e.deadline),
        E::DeadlineNotPassed(e) => format!("the deadline of request {} is {} (DeadlineNotPassed)", e.requestId, e.deadline),
        E::TokenDigestMismatch(e) => {
            format!("the payer asked for tokens with digest {}, the proof has {} (TokenDigestMismatch)", digest(e.expected), digest(e.found))
        }
        E::PromptDigestMismatch(e) => {
            format!("the payer asked for the prompt with digest {}, the proof has {} (PromptDigestMismatch)", digest(e.expected), digest(e.found))
        }
        E::NotSettler(e) => format!("only {} may settle request {}, not {} (NotSettler)", e.settler, e.requestId, e.caller),
        E::VerifierDiffers(e) => format!(
            "the chain offers verifier {} of key {}, the terms name {} of key {} (VerifierDiffers)",
            e.found, e.foundKey, e.expected, e.expectedKey
        ),
        E::WeightCount(e) => format!("the model has {} contributors, the proof {} weights (WeightCount)", e.expected, e.found),
        E::InvalidProof(e) => format!("the proof for request {} doesn't verify (InvalidProof)", e.requestId),
        E::EtherAmount(e) => format!("{} wei expected, {} sent (EtherAmount)", e.expected, e.found),
        E::DeadlineOutOfRange(e) => format!("the deadline is {}, it must lie between {} and {} (DeadlineOutOfRange)", e.found, e.earliest, e.latest),
        E::NothingToWithdraw(e) => format!("there is nothing to withdraw for {} (NothingToWithdraw)", e.account),
        E::StaleSplit(e) => format!("split {} isn't current any more, {} is (StaleSplit)", e.found, e.expected),
        other => {
            let text = format!("{other:?}");
            text.split_once('(').map_or(text.clone(), |(_, rest)| rest.trim_end_matches(')').to_owned())
        }
    }
}

fn advice(data: &[u8]) -> Option<&'static str> {
    use AttributionSettlement::AttributionSettlementErrors as E;
    if data.starts_with(&AttributionVerifier::InsufficientGas::SELECTOR) {
        return Some("leave out --gas-limit, or raise it");
    }
    Some(match E::abi_decode(data).ok()? {
        E::InvalidProof(_) => "make the proof with `poa wrap`, with the key that the model is registered with",
        E::IsPaused(_) => "wait, then run the same command again",
        E::UnexpectedStatus(_) => "escrow first: `poa escrow` prints the request id to prove with",
        E::DeadlinePassed(_) => "the payer can have the fee back (`poa withdraw --refund`) and escrow again",
        E::DeadlineNotPassed(_) => "until its deadline a proof can still release the fee: wait, then run the same command again",
        E::TokenDigestMismatch(_) => "prove the exchange that was paid for, with the same --private-tokens choice",
        E::PromptDigestMismatch(_) => "prove the prompt that was paid for, with the salt that the payer gives (`--prompt-salt`)",
        E::NotSettler(_) => "settle with the account that the payer named",
        E::VerifierDiffers(_) => "look at what the chain offers now: run the same command again, with --expect",
        E::StaleSplit(_) => "run the same command again",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::U256;
    use steps::error::Kind;

    #[test]
    fn refused_transactions_are_told_apart() {
        let of = |problem: &str| ChainError::of_sending(ChainError::Refused { problem: problem.into() }, Address::ZERO, 3, 1);
        assert!(of("already known").is_none());
        for problem in ["replacement transaction underpriced", "ReplacementNotAllowed", "could not replace existing tx"] {
            assert!(matches!(of(problem), Some(ChainError::Replacement { nonce: 3, .. })), "{problem}");
        }
        for problem in ["transaction underpriced: tip needed 1", "max fee per gas less than block base fee", "FeeTooLow, MaxFeePerGas too low"] {
            assert!(matches!(of(problem), Some(ChainError::Underpriced { .. })), "{problem}");
        }
        assert!(matches!(of("transaction type not supported"), Some(ChainError::NoBaseFee { chain: 1 })));
        assert!(matches!(of("nonce too low"), Some(ChainError::Nonce { .. })));
        assert!(matches!(of("insufficient funds for gas * price + value"), Some(ChainError::Funds { .. })));
        assert!(matches!(of("paused"), Some(ChainError::Refused { .. })));
    }

    #[test]
    fn reverts_are_explained() {
        let count = AttributionSettlement::WeightCount { expected: U256::from(4), found: U256::from(3) }.abi_encode();
        assert_eq!(explain(&count), "the model has 4 contributors, the proof 3 weights (WeightCount)");
        let gas = AttributionVerifier::InsufficientGas { available: U256::from(1), required: U256::from(2) }.abi_encode();
        assert!(explain(&gas).contains("it may need 2"), "{}", explain(&gas));
        let names = ModelRegistry::NoVerifier { keyDigest: B256::repeat_byte(7) }.abi_encode();
        assert!(explain(&names).starts_with("NoVerifier"), "{}", explain(&names));
        assert!(explain(&[]).contains("no reason"));
        assert_eq!(explain(&[1, 2, 3, 4]), "unknown error 0x01020304");
        let invalid = AttributionSettlement::InvalidProof { requestId: B256::ZERO }.abi_encode();
        assert_eq!(Failure::from(ChainError::Reverted { data: invalid }).kind, Kind::Invalid);
        assert_eq!(Failure::from(ChainError::Reverted { data: count }).kind, Kind::Input);
    }
}
