//! Deployment: every contract, in the order of contracts/README.md, and the file that says where they are.
//!
//! Two constructors need an address before it exists; it follows from the deployer's nonce, so no deployer ever holds a role.

use crate::abi::{
    AttributionSettlement, AttributionVerifier, DatanetRegistry, ModelRegistry, OpenToken, PoaGovernor, StakingPool, Timelock, governor, settlement,
};
use crate::journal::Journal;
use crate::{Call, Chain, ChainError, Receipt};
use alloy::primitives::{Address, B256, Bytes, U256, uint};
use alloy::sol_types::SolConstructor;
use circuits::statement::Digest;
use serde::{Deserialize, Serialize};
use std::path::Path;
use steps::error::{Failure, While};
use steps::store::read_json;

/// Format of the deployment file.
pub const FORMAT: &str = "poa-deployment/1";
/// Gas that a generated verifier gets unless said otherwise.
pub const VERIFIER_GAS: u64 = 450_000;

/// A generated verifier: its code and whose proofs it takes.
#[derive(Clone, Debug)]
pub struct RawVerifier {
    /// Creation bytecode.
    pub code: Bytes,
    /// Digest of the verifying key.
    pub key_digest: Digest,
    /// Length of a proof.
    pub proof_bytes: usize,
    /// Whether the key is over a reference string whose secret is published.
    pub insecure_srs: bool,
    /// Gas it gets.
    pub gas_limit: u64,
}

/// A compiled contract, as `contracts/artifacts` has it.
#[derive(Deserialize)]
struct Artifact {
    bytecode: Bytes,
}

/// Creation bytecode of an artifact.
///
/// # Errors
///
/// When it can't be read or has none.
pub fn bytecode(artifact: &Path) -> Result<Bytes, Failure> {
    let read: Artifact = read_json(artifact)?;
    if read.bytecode.is_empty() {
        return Err(Failure::input(format!("{} has no bytecode", artifact.display())));
    }
    Ok(read.bytecode)
}

/// Where everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contracts {
    /// The OPEN token.
    pub open: Address,
    /// Decides after a delay.
    pub timelock: Address,
    /// Holders of OPEN decide.
    pub governor: Address,
    /// Datanets.
    pub datanets: Address,
    /// The generated verifier.
    pub raw_verifier: Address,
    /// Its front.
    pub verifier: Address,
    /// Models.
    pub models: Address,
    /// Escrow and payment.
    pub settlement: Address,
    /// The stakers' pool.
    pub stakers: Address,
}

/// The deployment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// [`FORMAT`].
    pub format: String,
    /// The chain.
    pub chain_id: u64,
    /// The block before the first contract.
    pub block: u64,
    /// Who deployed.
    pub deployer: Address,
    /// Digest of the verifying key.
    pub key_digest: Digest,
    /// Whether the key is over a reference string whose secret is published: anyone can forge proofs.
    pub insecure_srs: bool,
    /// Addresses.
    pub contracts: Contracts,
}

impl Deployment {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it can't be read or isn't one.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let read: Self = read_json(path).map_err(|f| f.hint("make one with `poa deploy`, or name it with --deployment"))?;
        if read.format == FORMAT { Ok(read) } else { Err(read.format).during(format!("{} isn't a {FORMAT} file but", path.display())) }
    }

    /// Whether the contracts are there.
    pub fn check(&self, chain: &mut impl Chain) -> Result<(), ChainError> {
        if chain.chain_id() != self.chain_id {
            return Err(ChainError::Chain { expected: self.chain_id, found: chain.chain_id() });
        }
        let c = &self.contracts;
        let needed =
            [(c.settlement, "the settlement"), (c.models, "the model registry"), (c.datanets, "the datanet registry"), (c.verifier, "the verifier")];
        for (address, what) in needed {
            if chain.code(address)?.is_empty() {
                return Err(ChainError::NoContract { chain: self.chain_id, address, what });
            }
        }
        Ok(())
    }
}

/// What deployers choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Gets the whole supply of OPEN.
    pub holder: Address,
    /// Gets the platform's share; none for governance itself, the timelock.
    pub platform: Option<Address>,
    /// Basis points of platform, model owner, stakers, contributors.
    pub shares: [u16; 4],
    /// Seconds a decision of governance waits.
    pub delay: u64,
    /// Seconds leaving stake waits.
    pub cooldown: u64,
}

impl Settings {
    /// A twentieth each to platform and stakers, a fifth to the model owner, the rest to contributors; the platform is governance, and
    /// whoever `holder` is has all the votes.
    pub fn standard(holder: Address) -> Self {
        Self { holder, platform: None, shares: [500, 2000, 500, 7000], delay: 2 * 86_400, cooldown: 7 * 86_400 }
    }

    /// One account holds all votes and gets the platform's share: for development chains.
    pub fn for_trials(account: Address) -> Self {
        Self { platform: Some(account), ..Self::standard(account) }
    }
}

/// OPEN, in its smallest unit.
const SUPPLY: U256 = uint!(1_000_000_000_000_000_000_000_000_000_U256);
const VOTING_DELAY: u64 = 86_400;
const VOTING_PERIOD: u32 = 7 * 86_400;
const QUORUM_PERCENT: u64 = 4;
/// Transactions of a deployment before the verifier's front and the settlement.
const BEFORE_VERIFIER: u64 = 5;
const BEFORE_SETTLEMENT: u64 = 7;

/// Address of the verifier's front that an account deploys with its next nonce being `nonce`.
pub fn verifier_address(deployer: Address, nonce: u64) -> Address {
    deployer.create(nonce + BEFORE_VERIFIER)
}

/// Address of the settlement that an account deploys with its next nonce being `nonce`.
pub fn settlement_address(deployer: Address, nonce: u64) -> Address {
    deployer.create(nonce + BEFORE_SETTLEMENT)
}

struct Deployer<'a, C> {
    chain: &'a mut C,
    from: Address,
    nonce: u64,
    journal: Option<&'a mut Journal>,
}

impl<C: Chain> Deployer<'_, C> {
    /// The address of the `n`th contract from now, the next being zero.
    fn ahead(&self, n: u64) -> Address {
        self.from.create(self.nonce + n)
    }

    fn create(&mut self, code: &Bytes, arguments: impl SolConstructor) -> Result<Address, ChainError> {
        let data = [code.as_ref(), &arguments.abi_encode()].concat();
        self.create_plain(data.into())
    }

    fn create_plain(&mut self, data: Bytes) -> Result<Address, ChainError> {
        let expected = self.ahead(0);
        let call = Call { from: self.from, data, ..Call::default() };
        if self.send(call, expected)?.created != Some(expected) {
            return Err(ChainError::Nonce {
                account: self.from,
                nonce: self.nonce,
                problem: "the contract has another address than expected".into(),
            });
        }
        self.nonce += 1;
        Ok(expected)
    }

    /// Sends a transaction unless the journal has it: that one is waited for.
    fn send(&mut self, call: Call, expected: Address) -> Result<Receipt, ChainError> {
        let Some(journal) = &mut self.journal else { return self.chain.send(call) };
        let Some(kept) = journal.kept(self.nonce, &call.data)? else {
            let data = call.data.clone();
            return self.chain.send_kept(call, &mut |signed| journal.keep(self.nonce, &data, signed));
        };
        // Its receipt may be long gone; nobody else can have created a contract here.
        if !self.chain.code(expected)?.is_empty() {
            return Ok(Receipt { created: Some(expected), ..Receipt::default() });
        }
        match self.chain.resume(call.clone(), &kept) {
            // The node doesn't have it. With the same nonce, at most one of the two gets into a block.
            Err(ChainError::Underpriced { .. }) => {
                let data = call.data.clone();
                self.chain.send_kept(call, &mut |signed| journal.keep(self.nonce, &data, signed))
            }
            outcome => outcome.map_err(|e| journal.overtaken(e)),
        }
    }
}

/// Deploys everything, in one go.
pub fn deploy(chain: &mut impl Chain, from: Address, raw: &RawVerifier, settings: &Settings) -> Result<Deployment, ChainError> {
    let (block, _) = chain.newest()?;
    let nonce = chain.nonce(from)?;
    deploy_from(Deployer { chain, from, nonce, journal: None }, block, raw, settings)
}

/// Deploys what the journal says isn't deployed yet.
pub fn deploy_kept(
    chain: &mut impl Chain,
    from: Address,
    raw: &RawVerifier,
    settings: &Settings,
    journal: &mut Journal,
) -> Result<Deployment, ChainError> {
    let (block, nonce) = journal.start(chain, from)?;
    deploy_from(Deployer { chain, from, nonce, journal: Some(journal) }, block, raw, settings)
}

fn deploy_from<C: Chain>(mut d: Deployer<'_, C>, block: u64, raw: &RawVerifier, settings: &Settings) -> Result<Deployment, ChainError> {
    let contracts = deploy_all(&mut d, raw, settings)?;
    let (chain_id, deployer) = (d.chain.chain_id(), d.from);
    let deployment =
        Deployment { format: FORMAT.into(), chain_id, block, deployer, key_digest: raw.key_digest, insecure_srs: raw.insecure_srs, contracts };
    deployment.check(d.chain)?;
    Ok(deployment)
}

fn deploy_all<C: Chain>(d: &mut Deployer<'_, C>, raw: &RawVerifier, s: &Settings) -> Result<Contracts, ChainError> {
    let open = d.create(&OpenToken::BYTECODE, OpenToken::constructorCall { holder: s.holder, supply: SUPPLY })?;
    let arguments = Timelock::constructorCall { delay: U256::from(s.delay), governor: d.ahead(1) };
    let timelock = d.create(&Timelock::BYTECODE, arguments)?;
    let settings = governor::PoaGovernor::Settings {
        votingDelay: VOTING_DELAY.try_into().unwrap_or_default(),
        votingPeriod: VOTING_PERIOD,
        proposalThreshold: SUPPLY / U256::from(1000),
        quorumPercent: U256::from(QUORUM_PERCENT),
    };
    let governor = d.create(&PoaGovernor::BYTECODE, PoaGovernor::constructorCall { token_: open, timelock_: timelock, s: settings })?;
    let datanets = d.create_plain(DatanetRegistry::BYTECODE.clone())?;
    let raw_verifier = d.create_plain(raw.code.clone())?;
    let arguments = AttributionVerifier::constructorCall {
        raw_: raw_verifier,
        keyDigest_: B256::from(raw.key_digest.0),
        proofLength_: U256::from(raw.proof_bytes),
        gasLimit_: U256::from(raw.gas_limit),
    };
    let verifier = d.create(&AttributionVerifier::BYTECODE, arguments)?;
    let arguments = ModelRegistry::constructorCall { datanets_: datanets, owner_: timelock, initial: vec![verifier] };
    let models = d.create(&ModelRegistry::BYTECODE, arguments)?;
    let [platform_bps, owner_bps, stakers_bps, contributors_bps] = s.shares;
    let split = settlement::IAttributionSettlement::Split {
        platformBps: platform_bps,
        modelOwnerBps: owner_bps,
        stakersBps: stakers_bps,
        contributorsBps: contributors_bps,
        platform: s.platform.unwrap_or(timelock),
        stakers: d.ahead(1),
    };
    let arguments = AttributionSettlement::constructorCall { open_: open, models_: models, split_: split, owner_: timelock };
    let settlement = d.create(&AttributionSettlement::BYTECODE, arguments)?;
    let arguments =
        StakingPool::constructorCall { open_: open, settlement_: settlement, fallbackAccount_: timelock, cooldown_: U256::from(s.cooldown) };
    let stakers = d.create(&StakingPool::BYTECODE, arguments)?;
    Ok(Contracts { open, timelock, governor, datanets, raw_verifier, verifier, models, settlement, stakers })
}
