//! Datanets and models: what has to be on chain before anyone can pay for an answer.

use crate::abi::{DatanetRegistry, IModelRegistry, ModelRegistry};
use crate::deploy::{Contracts, Deployment};
use crate::{Chain, ChainError, Search, event, read, write};
use alloy::primitives::{Address, B256, U256, keccak256};
use alloy::sol_types::SolEvent;
use circuits::statement::{Digest, IndexStatement, Profile, Statement};
use steps::error::Failure;

/// Contributions that go into one transaction.
const BATCH: usize = 100;
/// Licence of a version unless said otherwise.
pub const LICENCE: &str = "CC-BY-4.0";

const PENDING: u8 = 1;
const APPROVED: u8 = 2;

/// Starts a datanet that `owner` owns.
pub fn create_datanet(chain: &mut impl Chain, owner: Address, c: &Contracts, name: &str) -> Result<u64, ChainError> {
    let receipt = write(chain, owner, c.datanets, U256::ZERO, &DatanetRegistry::createCall { name: name.into() })?;
    Ok(event::<DatanetRegistry::DatanetCreated>(&receipt, c.datanets)?.datanetId)
}

/// Offers samples; `contributor` is who will be paid.
pub fn contribute(
    chain: &mut impl Chain,
    contributor: Address,
    c: &Contracts,
    datanet: u64,
    name: &str,
    root: Digest,
    licence: &str,
) -> Result<u64, ChainError> {
    let call = DatanetRegistry::contributeCall { datanetId: datanet, root: B256::from(root.0), licence: licence.into(), name: name.into() };
    let receipt = write(chain, contributor, c.datanets, U256::ZERO, &call)?;
    Ok(event::<DatanetRegistry::Contributed>(&receipt, c.datanets)?.contributionId)
}

/// A contribution that isn't rejected.
#[derive(Clone, Debug)]
struct Offer {
    id: u64,
    name: String,
    account: Address,
    status: u8,
}

/// Why a name's account is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The datanet's owner approved it before.
    Approved,
    /// It was named with this publication.
    Chosen,
    /// It is the only one that offers samples under the name: whoever came first.
    First,
}

/// Who is paid for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payee {
    /// The name.
    pub name: String,
    /// The account.
    pub account: Address,
    /// Its contribution.
    pub contribution: u64,
    /// Why.
    pub standing: Standing,
}

fn offers(chain: &mut impl Chain, c: &Contracts, from: u64, datanet: u64) -> Result<Vec<Offer>, ChainError> {
    let event = DatanetRegistry::Contributed::SIGNATURE_HASH;
    let first = Some(B256::from(U256::from(datanet)));
    let mut offers = vec![];
    for found in chain.logs(&Search { address: c.datanets, event, first, from, to: None })? {
        let Ok(logged) = DatanetRegistry::Contributed::decode_log(&found.log) else { continue };
        let contribution = read(chain, c.datanets, &DatanetRegistry::contributionCall { contributionId: logged.contributionId })?;
        if [PENDING, APPROVED].contains(&contribution.status) {
            let (id, account, status) = (logged.contributionId, logged.contributor, contribution.status);
            offers.push(Offer { id, name: logged.data.name, account, status });
        }
    }
    Ok(offers)
}

/// The contribution that stands for a name: its holder's, the chosen one, or the only account's that offers it. `holder` is zero for none.
fn offer_for(offers: &[Offer], name: &str, chosen: &[u64], holder: Address) -> Result<Payee, Failure> {
    let payee = |o: &Offer, standing| Payee { name: o.name.clone(), account: o.account, contribution: o.id, standing };
    let of_name: Vec<&Offer> = offers.iter().filter(|o| o.name == name).collect();
    let chosen = of_name.iter().find(|o| chosen.contains(&o.id));
    if let Some(chosen) = chosen.filter(|o| !holder.is_zero() && o.account != holder) {
        let message = format!("{name:?} is {holder}'s in this datanet; contribution {} is {}'s", chosen.id, chosen.account);
        return Err(Failure::input(message).hint(format!("if that is wrong, `poa datanet correct --contribution {}` first", chosen.id)));
    }
    if let Some(held) = of_name.iter().find(|o| o.account == holder && o.status == APPROVED) {
        return Ok(payee(held, Standing::Approved));
    }
    if let Some(offer) = chosen {
        return Ok(payee(offer, Standing::Chosen));
    }
    match of_name.as_slice() {
        [] => Err(Failure::input(format!("nobody has contributed as {name:?}"))
            .hint("`poa datanet contribute --name` does, from the contributor's account")),
        [first, rest @ ..] if rest.iter().all(|o| o.account == first.account) => Ok(payee(first, Standing::First)),
        several => {
            let ids: Vec<String> = several.iter().map(|o| format!("{} by {}", o.id, o.account)).collect();
            Err(Failure::input(format!("several accounts contribute as {name:?}: {}", ids.join(", "))).hint("name the right one with --contribution"))
        }
    }
}

/// A version to publish.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The datanet.
    pub datanet: u64,
    /// The index that is made of it.
    pub index: &'a IndexStatement,
    /// Licence of the samples.
    pub licence: &'a str,
    /// The right contributions where several accounts use one name.
    pub chosen: &'a [u64],
}

/// Whom the next version will pay, in the index's order; empty if the version is there already, with these contributors.
pub fn payees(chain: &mut impl Chain, d: &Deployment, publication: &Publication<'_>) -> Result<Vec<Payee>, Failure> {
    let c = &d.contracts;
    let Publication { datanet, index, chosen, .. } = *publication;
    let known = read(chain, c.datanets, &DatanetRegistry::datanetCall { datanetId: datanet })?;
    if known.versions >= index.datanet_version {
        check_version(chain, c, datanet, index)?;
        return Ok(vec![]);
    }
    if known.versions + 1 != index.datanet_version {
        let message = format!("the index is of version {} of the datanet, the next one to publish is {}", index.datanet_version, known.versions + 1);
        return Err(Failure::input(message).hint("make the index with --datanet-version"));
    }
    let offers = offers(chain, c, d.block, datanet)?;
    let mut payees = vec![];
    for name in &index.contributors {
        let holder = holder(chain, c, datanet, name)?;
        payees.push(offer_for(&offers, name, chosen, holder)?);
    }
    Ok(payees)
}

/// Who holds a name in a datanet; zero if nobody.
fn holder(chain: &mut impl Chain, c: &Contracts, datanet: u64, name: &str) -> Result<Address, ChainError> {
    read(chain, c.datanets, &DatanetRegistry::nameHolderCall { datanetId: datanet, nameHash: keccak256(name) })
}

/// Publishes the version that an index' statement names, for these payees. A version that is there already is left as it is.
pub fn publish(chain: &mut impl Chain, owner: Address, d: &Deployment, publication: &Publication<'_>, payees: &[Payee]) -> Result<u64, Failure> {
    let c = &d.contracts;
    let Publication { datanet, index, licence, .. } = *publication;
    if payees.is_empty() {
        return Ok(index.datanet_version);
    }
    for payee in payees {
        let contribution = read(chain, c.datanets, &DatanetRegistry::contributionCall { contributionId: payee.contribution })?;
        if contribution.status == PENDING {
            write(chain, owner, c.datanets, U256::ZERO, &DatanetRegistry::approveCall { contributionId: payee.contribution })?;
        }
    }
    let ids: Vec<u64> = payees.iter().map(|p| p.contribution).collect();
    let split = ids.len().saturating_sub(1) / BATCH * BATCH;
    let (drafted, last) = ids.split_at(split);
    for batch in drafted.chunks(BATCH) {
        write(chain, owner, c.datanets, U256::ZERO, &DatanetRegistry::draftCall { datanetId: datanet, contributionIds: batch.to_vec() })?;
    }
    let root = B256::from(index.datanet_root.0);
    let call = DatanetRegistry::publishCall { datanetId: datanet, root, licence: licence.into(), contributionIds: last.to_vec() };
    let receipt = write(chain, owner, c.datanets, U256::ZERO, &call)?;
    Ok(event::<DatanetRegistry::Published>(&receipt, c.datanets)?.version)
}

/// A name that is to be another account's from the next version on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The name.
    pub name: String,
    /// Who holds it.
    pub from: Address,
    /// Whose it will be.
    pub to: Address,
}

/// What correcting the account of a contribution's name would change.
pub fn correction(chain: &mut impl Chain, d: &Deployment, datanet: u64, contribution: u64) -> Result<Correction, Failure> {
    let offers = offers(chain, &d.contracts, d.block, datanet)?;
    let Some(offer) = offers.into_iter().find(|o| o.id == contribution) else {
        let message = format!("datanet {datanet} has no contribution {contribution} that isn't rejected");
        return Err(Failure::input(message).hint("the right account contributes under the name first: `poa datanet contribute`"));
    };
    let from = holder(chain, &d.contracts, datanet, &offer.name)?;
    if from.is_zero() || from == offer.account {
        let whose = if from.is_zero() { "nobody's yet".into() } else { format!("{from}'s already") };
        let message = format!("there is nothing to correct: {:?} is {whose}", offer.name);
        return Err(Failure::input(message).hint("`poa datanet publish --contribution` says whose a name is that nobody holds"));
    }
    Ok(Correction { name: offer.name, from, to: offer.account })
}

/// Gives a contribution's name to its account, for later versions.
pub fn correct(chain: &mut impl Chain, owner: Address, c: &Contracts, contribution: u64) -> Result<(), ChainError> {
    write(chain, owner, c.datanets, U256::ZERO, &DatanetRegistry::correctCall { contributionId: contribution }).map(|_| ())
}

fn check_version(chain: &mut impl Chain, c: &Contracts, datanet: u64, index: &IndexStatement) -> Result<(), Failure> {
    let call = DatanetRegistry::versionCall { datanetId: datanet, number: index.datanet_version };
    let version = read(chain, c.datanets, &call)?;
    let names = read(chain, c.datanets, &DatanetRegistry::namesDigestCall { names: index.contributors.clone() })?;
    if version.root.0 != index.datanet_root.0 || version.namesDigest != names {
        let message = format!("version {} of datanet {datanet} is published with another root or other contributors", index.datanet_version);
        return Err(Failure::input(message).hint("publish a new version and make the index with --datanet-version"));
    }
    Ok(())
}

/// Adapter and index of a statement whose model can be registered.
pub fn registrable(statement: &Statement) -> Result<(&Digest, &IndexStatement), Failure> {
    if statement.profile != Profile::Evm {
        return Err(Failure::input("the statement is of the native profile, whose commitments contracts don't know").hint("prove with --profile evm"));
    }
    let message = "the statement claims no attribution: there is no model to register";
    statement.adapter.as_ref().zip(statement.index.as_ref()).ok_or_else(|| Failure::input(message).hint("prove with an adapter and --index"))
}

/// Registers the model of a statement; `owner` gets the model owner's share.
pub fn register(
    chain: &mut impl Chain,
    owner: Address,
    c: &Contracts,
    statement: &Statement,
    key_digest: Digest,
    datanet: u64,
) -> Result<u64, Failure> {
    let (adapter, index) = registrable(statement)?;
    check_version(chain, c, datanet, index)?;
    let registration = IModelRegistry::Registration {
        base: B256::from(statement.base.0),
        adapter: B256::from(adapter.0),
        index: B256::from(index.commitment.0),
        keyDigest: B256::from(key_digest.0),
        datanetId: datanet,
        datanetVersion: index.datanet_version,
        payee: owner,
    };
    let call = ModelRegistry::registerCall { r: registration, names: index.contributors.clone() };
    let receipt = write(chain, owner, c.models, U256::ZERO, &call)?;
    Ok(event::<ModelRegistry::ModelRegistered>(&receipt, c.models)?.modelId)
}
