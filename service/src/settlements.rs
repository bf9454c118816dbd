//! A request's payment: escrowed, earned by a proof, credited to those whose samples the answer rests on.
//!
//! ```text
//!  key ──► contracts, model ──► offered ──► escrowed ──► proven ──► wrapped ──► settled ──► paid
//!  (once for a model and size)                 └──────────────── after the deadline ──────► refunded
//! ```
//!
//! A step that is done is a row, written after its files and never undone; whoever takes the job up goes on after the last one. Before anything is
//! paid, settled or credited the chain is asked whether it is already: a transaction may have been written and its row not.

use crate::database::{Database, now};
use crate::files::Files;
use crate::jobs::{self, Claim, Job};
use crate::keys::Caller;
use crate::ledger::{Account, Ledger};
use crate::making::Making;
use crate::requests;
use crate::server::Service;
use crate::webhooks;
use alloy::primitives::{Address, B256, U256};
use alloy::sol_types::SolEvent;
use chain::abi::AttributionSettlement;
use chain::deploy::{Deployment, RawVerifier, Settings as Deploying, deploy};
use chain::offer::offer;
use chain::register::{self, Publication, contribute, create_datanet, payees, publish};
use chain::request::{self, Asset, Conditions, Order, Status, terms};
use chain::{Chain, Found, Search, devnet, read};
use circuits::statement::{Digest, IndexStatement, Statement, keccak, prompt_digest};
use light_client::OuterKey;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use steps::error::{Failure, While};
use steps::evm_proof::{EvmProof, only_request, word};
use steps::progress::{Event, Observer};
use steps::run::random_id;
use utoipa::ToSchema;

/// The kind of job that settles a request.
pub const SETTLE: &str = "settle";

/// What is paid, and how it's divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fee {
    /// For an answer, in wei.
    pub amount: u128,
    /// Basis points of platform, model owner, stakers, contributors.
    pub shares: [u16; 4],
    /// Seconds in which it can be earned, once it's escrowed; then it goes back.
    pub window: u64,
}

/// The terms are fixed; from here on the fee may have been paid.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Offered {
    key_digest: Digest,
    insecure_srs: bool,
    slots: usize,
    chain_id: u64,
    contract: Address,
    model: u64,
    prompt_digest: Digest,
    amount: String,
    shares: [u16; 4],
}

/// The fee is on the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Escrowed {
    request_id: Digest,
    transaction: B256,
    block: u64,
    gas_used: u64,
    deadline: u64,
}

/// The inner proof of the chain's request is made, and was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Proven {
    statement: String,
    inner_proof: String,
    statement_digest: Digest,
}

/// The outer proof is made, and was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wrapped {
    outer_proof: String,
    key: String,
    proof_bytes: usize,
}

/// The chain took the proof.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settled {
    transaction: B256,
    gas_used: u64,
    verify_gas: u64,
}

/// All contributors are credited, or the payer is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ended {
    block: u64,
}

/// What a contributor was credited with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Payout {
    /// Who.
    pub contributor: String,
    /// Their account.
    pub account: String,
    /// In wei.
    pub amount: String,
}

/// A settlement as it's told.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Settlement {
    /// The request's id, which is the settlement's.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// `queued`, `escrowed`, `settled`, `paid`, `refunded`, `failed` or `cancelled`.
    pub state: &'static str,
    /// What is done, with what came of it.
    pub steps: BTreeMap<String, Value>,
    /// What contributors were credited with; nobody before the state is `paid`.
    pub payouts: Vec<Payout>,
    /// Where its files are, as far as they are made.
    pub files: Vec<String>,
    /// What is being done.
    pub job: Option<Job>,
}

/// Files of a settlement: their name, the step that makes them, what it calls them, their type.
pub const FILES: [(&str, &str, &str, &str); 4] = [
    ("outer-proof.json", "wrapped", "outer_proof", "application/json"),
    ("outer-statement.json", "proven", "statement", "application/json"),
    ("outer.vk", "wrapped", "key", "application/octet-stream"),
    ("inner-proof.bin", "proven", "inner_proof", "application/octet-stream"),
];

fn state(steps: &BTreeMap<String, Value>, job: Option<&Job>) -> &'static str {
    let done = |step: &str| steps.contains_key(step);
    match job.map(|job| job.state.as_str()) {
        _ if done("refunded") => "refunded",
        _ if done("paid") => "paid",
        _ if done("settled") => "settled",
        Some("failed") => "failed",
        Some("cancelled") => "cancelled",
        _ if done("escrowed") => "escrowed",
        _ => "queued",
    }
}

fn of_request(connection: &Connection, request: &str) -> rusqlite::Result<Option<Settlement>> {
    let query = "SELECT created FROM settlements WHERE request = ?1";
    let Some(created) = connection.query_row(query, [request], |r| r.get::<_, i64>(0)).optional()? else { return Ok(None) };
    let steps: Vec<(String, String)> = connection
        .prepare_cached("SELECT step, outcome FROM settlement_steps WHERE request = ?1")?
        .query_map([request], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let steps: BTreeMap<String, Value> = steps.into_iter().filter_map(|(step, text)| Some((step, serde_json::from_str(&text).ok()?))).collect();
    let payout = |r: &Row<'_>| Ok(Payout { contributor: r.get(0)?, account: r.get(1)?, amount: r.get(2)? });
    let payouts = connection
        .prepare_cached("SELECT contributor, account, amount FROM payouts WHERE request = ?1 ORDER BY length(amount) DESC, amount DESC, contributor")?
        .query_map([request], payout)?
        .collect::<Result<_, _>>()?;
    let job = jobs::find_in(connection, SETTLE, request)?;
    let made = FILES.iter().filter(|(_, step, ..)| steps.contains_key(*step));
    let files = made.map(|(name, ..)| format!("/v1/settlements/{request}/files/{name}")).collect();
    Ok(Some(Settlement { id: request.to_owned(), created, state: state(&steps, job.as_ref()), steps, payouts, files, job }))
}

/// A request's settlement.
pub fn find(database: &Database, request: &str) -> rusqlite::Result<Option<Settlement>> {
    database.read(|c| of_request(c, request))
}

/// Settlements that a caller may see, newest first.
pub fn newest(database: &Database, caller: Caller, most: usize) -> rusqlite::Result<Vec<Settlement>> {
    let query = "SELECT settlements.request, requests.key FROM settlements JOIN requests ON requests.id = settlements.request \
                 ORDER BY settlements.created DESC, settlements.rowid DESC";
    database.read(|c| {
        let all: Vec<(String, i64)> = c.prepare(query)?.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?;
        let seen = all.iter().filter(|(_, key)| caller.sees(*key)).take(most);
        seen.filter_map(|(request, _)| of_request(c, request).transpose()).collect()
    })
}

/// Has a request settled, as a part of something larger; asking twice is asking once.
pub fn enqueue_in(t: &Transaction<'_>, request: &str) -> rusqlite::Result<()> {
    t.execute("INSERT INTO settlements (request, created) VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![request, now()])?;
    jobs::enqueue_in(t, SETTLE, request).map(|_| ())
}

/// Cancels a settlement; whether it could be: once terms are fixed the fee may be paid.
pub fn cancel(database: &Database, request: &str) -> rusqlite::Result<bool> {
    let update = "UPDATE jobs SET state = 'cancelled', phase = NULL WHERE kind = ?1 AND subject = ?2 AND state IN ('queued', 'running') \
                  AND NOT EXISTS (SELECT 1 FROM settlement_steps WHERE request = ?2)";
    database.write(|t| {
        let cancelled = t.execute(update, [SETTLE, request])? > 0;
        let job = jobs::find_in(t, SETTLE, request)?.filter(|_| cancelled);
        job.iter().try_for_each(|job| webhooks::ended(t, job))?;
        Ok(cancelled)
    })
}

/// What every contributor was credited with, by request, newest first.
pub fn credited(database: &Database, contributor: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    let query = "SELECT request, amount FROM payouts WHERE contributor = ?1";
    database.read(|c| c.prepare(query)?.query_map([contributor], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
}

/// What takes long, apart from the chain's part.
pub trait Maker {
    /// The model, whatever it is called.
    fn model(&self) -> String;
    /// Size that the request's proof has: its padded slots.
    fn slots(&self) -> usize;
    /// Tokens that there is room for.
    fn capacity(&self) -> usize;
    /// The prompt.
    fn prompt(&self) -> &[u32];
    /// Proves the request under an id, its prompt under a salt, and verifies the proof.
    fn prove(&self, id: Digest, salt: Digest, on: &dyn Observer) -> Result<(Statement, Vec<u8>), Failure>;
    /// The key that wraps such a proof.
    fn key(&self, statement: &Statement, inner: &[u8], on: &dyn Observer) -> Result<OuterKey, Failure>;
    /// Wraps a proof, and verifies it.
    fn wrap(&self, statement: &Statement, inner: &[u8], on: &dyn Observer) -> Result<(EvmProof, OuterKey), Failure>;
    /// The contract that verifies a key's proofs; none without a proof to try it with, where it has to be tried.
    fn verifier(&self, key: &OuterKey, trial: Option<&EvmProof>) -> Result<Option<RawVerifier>, Failure>;
    /// Root and contributors of versions of the datanet before the model's, from the first.
    fn earlier_versions(&self) -> Result<Vec<(Digest, Vec<String>)>, Failure>;
    /// The licence of the datanet.
    fn licence(&self) -> Result<String, Failure>;
}

/// Everything that a settlement works with.
pub struct Desk<'a> {
    /// Where steps are kept.
    pub database: &'a Database,
    /// Where files are.
    pub files: &'a Files,
    /// The chain.
    pub ledger: &'a Ledger,
    /// The job.
    pub claim: &'a Claim,
    /// Who watches.
    pub on: &'a dyn Observer,
    /// What is paid.
    pub fee: Fee,
}

/// What a model's proofs of a size are wrapped with.
struct Keyed {
    statement: Statement,
    raw: RawVerifier,
}

impl Desk<'_> {
    fn request(&self) -> &str {
        &self.claim.subject
    }

    fn begin(&self, phase: &'static str) -> Result<(), Failure> {
        self.on.tell(Event::Begun(phase));
        if self.on.goes_on() { Ok(()) } else { Err(Failure::stopped()) }
    }

    fn done<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, Failure> {
        let query = "SELECT outcome FROM settlement_steps WHERE request = ?1 AND step = ?2";
        let text: Option<String> =
            self.database.read(|c| c.query_row(query, [self.request(), step], |r| r.get(0)).optional()).during("reading the settlement")?;
        text.map(|text| serde_json::from_str(&text)).transpose().during(format!("reading the settlement's step {step}"))
    }

    /// Keeps a step with what else belongs to it, if the job is still ours; what was done before isn't done again by later attempts.
    fn keep(&self, step: &str, outcome: &impl Serialize, more: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), Failure> {
        let outcome = serde_json::to_string(outcome).during("writing a step")?;
        let insert = "INSERT INTO settlement_steps (request, step, created, outcome) VALUES (?1, ?2, ?3, ?4)";
        let kept = self.database.write(|t| {
            let owned = jobs::is_owned(t, self.claim)?;
            if owned {
                t.execute(insert, params![self.request(), step, now(), outcome])?;
                t.execute("UPDATE jobs SET attempts = 1 WHERE id = ?1", [self.claim.id])?;
                more(t)?;
            }
            Ok(owned)
        });
        if kept.during(format!("keeping the step {step}"))? { Ok(()) } else { Err(Failure::stopped()) }
    }

    fn get_json<T: DeserializeOwned>(&self, file: &str) -> Result<T, Failure> {
        serde_json::from_slice(&self.files.get(file)?).during(format!("reading {file}"))
    }

    fn put_json(&self, value: &impl Serialize) -> Result<String, Failure> {
        self.files.put(&serde_json::to_vec_pretty(value).during("writing a file")?)
    }

    /// The key of the model's proofs of this size, and its verifier; found once, by a proof of this request that isn't settled with.
    fn keyed(&self, maker: &impl Maker) -> Result<Keyed, Failure> {
        let query = "SELECT statement, key, trial FROM outer_keys WHERE model = ?1 AND slots = ?2";
        let (model, slots) = (maker.model(), maker.slots() as i64);
        let row = |r: &Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<String>>(2)?));
        let found = self.database.read(|c| c.query_row(query, params![model, slots], row).optional()).during("reading keys")?;
        let (statement, key, trial): (Statement, OuterKey, Option<EvmProof>) = match found {
            Some((statement, key, trial)) => {
                let key = OuterKey::decode(&self.files.get(&key)?).during("reading the outer key")?;
                (self.get_json(&statement)?, key, trial.map(|file| self.get_json(&file)).transpose()?)
            }
            None => {
                self.begin("the model's key (once): proving")?;
                let id: Digest = self.request().parse().during("the request's id")?;
                let (statement, inner) = maker.prove(id, random_id()?, self.on)?;
                self.begin("the model's key (once): making it")?;
                let key = maker.key(&statement, &inner, self.on)?;
                // What has to be is tried before it's trusted with a fee.
                let trial = match maker.verifier(&key, None)? {
                    Some(_) => None,
                    None => {
                        self.begin("the model's key (once): wrapping a proof to try the verifier with")?;
                        Some(maker.wrap(&statement, &inner, self.on)?.0)
                    }
                };
                let (statement_file, key_file) = (self.put_json(&statement)?, self.files.put(key.encoding())?);
                let trial_file = trial.as_ref().map(|trial| self.put_json(trial)).transpose()?;
                let insert =
                    "INSERT INTO outer_keys (model, slots, key_digest, statement, key, trial) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
                let values = params![model, slots, Digest(key.digest()).to_string(), statement_file, key_file, trial_file];
                self.database.write(|t| t.execute(insert, values)).during("keeping the key")?;
                jobs::progressed(self.database, self.claim).during("keeping the key")?;
                (statement, key, trial)
            }
        };
        let raw = maker.verifier(&key, trial.as_ref())?.ok_or_else(|| Failure::input("the model's key has no verifier"))?;
        Ok(Keyed { statement, raw })
    }

    /// The contracts for a key: there, or deployed now, all of them or none.
    fn deployed(&self, raw: &RawVerifier) -> Result<Deployment, Failure> {
        let shares = json!(self.fee.shares).to_string();
        let query = "SELECT deployment FROM deployments WHERE key_digest = ?1 AND shares = ?2";
        let key = raw.key_digest.to_string();
        let found: Option<String> =
            self.database.read(|c| c.query_row(query, [&key, &shares], |r| r.get(0)).optional()).during("reading deployments")?;
        if let Some(text) = found {
            let deployment: Deployment = serde_json::from_str(&text).during("reading a deployment")?;
            self.ledger.read(self.database, |chain| Ok(deployment.check(chain)?))?;
            return Ok(deployment);
        }
        self.begin("deploying contracts (once)")?;
        let owner = devnet::deployer().address();
        let settings = Deploying { shares: self.fee.shares, ..Deploying::for_trials(owner) };
        let insert = "INSERT INTO deployments (key_digest, shares, deployment) VALUES (?1, ?2, ?3)";
        let keep = |t: &Transaction<'_>, d: &Deployment| t.execute(insert, params![key, shares, json!(d).to_string()]).map(|_| ());
        self.ledger.together(self.database, self.claim, |chain| Ok(deploy(chain, owner, raw, &settings)?), keep)
    }

    /// The model's number on the chain: there, or registered now with its datanet, all of it or nothing.
    fn registered(&self, maker: &impl Maker, keyed: &Keyed, d: &Deployment) -> Result<u64, Failure> {
        let (model, contract) = (maker.model(), d.contracts.settlement.to_string());
        let query = "SELECT number FROM registrations WHERE model = ?1 AND settlement = ?2";
        let found: Option<i64> =
            self.database.read(|c| c.query_row(query, [&model, &contract], |r| r.get(0)).optional()).during("reading registrations")?;
        if let Some(number) = found {
            return Ok(number as u64);
        }
        self.begin("registering the model (once)")?;
        let index = keyed.statement.index.as_ref().ok_or_else(|| Failure::input("the statement claims no attribution"))?;
        let mut versions: Vec<IndexStatement> = maker
            .earlier_versions()?
            .into_iter()
            .zip(1..)
            .map(|((datanet_root, contributors), datanet_version)| IndexStatement { datanet_root, datanet_version, contributors, ..index.clone() })
            .collect();
        versions.push(index.clone());
        let (owner, licence) = (devnet::deployer().address(), maker.licence()?);
        let work = |chain: &mut Account<'_>| -> Result<(u64, u64), Failure> {
            let datanet = create_datanet(chain, owner, &d.contracts, &model)?;
            let mut known: Vec<&str> = vec![];
            for version in &versions {
                for name in &version.contributors {
                    if !known.contains(&name.as_str()) {
                        known.push(name);
                        let root = keccak(&[&version.datanet_root.0[..], name.as_bytes()].concat());
                        contribute(chain, devnet::contributor(name).address(), &d.contracts, datanet, name, root, &licence)?;
                    }
                }
                let publication = Publication { datanet, index: version, licence: &licence, chosen: &[] };
                let payees = payees(chain, d, &publication)?;
                publish(chain, owner, d, &publication, &payees)?;
            }
            let number = register::register(chain, owner, &d.contracts, &keyed.statement, keyed.raw.key_digest, datanet)?;
            Ok((number, datanet))
        };
        let insert = "INSERT INTO registrations (model, settlement, number, datanet) VALUES (?1, ?2, ?3, ?4)";
        let keep = |t: &Transaction<'_>, (number, datanet): &(u64, u64)| {
            t.execute(insert, params![model, contract, *number as i64, *datanet as i64]).map(|_| ())
        };
        self.ledger.together(self.database, self.claim, work, keep).map(|(number, _)| number)
    }

    /// Fixes the terms, with a fresh salt of the prompt.
    fn offered(&self, maker: &impl Maker) -> Result<(Offered, Digest), Failure> {
        let query = "SELECT salt FROM settlements WHERE request = ?1";
        let salt = || -> Result<Digest, Failure> {
            let text: Option<String> = self.database.read(|c| c.query_row(query, [self.request()], |r| r.get(0))).during("reading the salt")?;
            text.unwrap_or_default().parse().during("reading the salt")
        };
        if let Some(offered) = self.done::<Offered>("offered")? {
            return Ok((offered, salt()?));
        }
        let keyed = self.keyed(maker)?;
        let d = self.deployed(&keyed.raw)?;
        let model = self.registered(maker, &keyed, &d)?;
        let salt = random_id()?;
        let offered = Offered {
            key_digest: keyed.raw.key_digest,
            insecure_srs: keyed.raw.insecure_srs,
            slots: maker.slots(),
            chain_id: d.chain_id,
            contract: d.contracts.settlement,
            model,
            prompt_digest: prompt_digest(salt.0, maker.prompt(), maker.capacity()),
            amount: self.fee.amount.to_string(),
            shares: self.fee.shares,
        };
        let update = "UPDATE settlements SET salt = ?2 WHERE request = ?1";
        self.keep("offered", &offered, |t| t.execute(update, [self.request(), &salt.to_string()]).map(|_| ()))?;
        Ok((offered, salt))
    }

    fn deployment(&self, offered: &Offered) -> Result<Deployment, Failure> {
        let query = "SELECT deployment FROM deployments WHERE key_digest = ?1 AND shares = ?2";
        let values = [offered.key_digest.to_string(), json!(offered.shares).to_string()];
        let text: String = self.database.read(|c| c.query_row(query, values, |r| r.get(0))).during("reading the deployment")?;
        serde_json::from_str(&text).during("reading the deployment")
    }

    /// The escrow with our prompt's digest, which no other has: there, or paid now.
    fn escrowed(&self, offered: &Offered, d: &Deployment) -> Result<Escrowed, Failure> {
        if let Some(escrowed) = self.done("escrowed")? {
            return Ok(escrowed);
        }
        self.begin("escrowing the fee")?;
        let payer = devnet::payer().address();
        let escrowed = self.ledger.work(self.database, self.claim, |chain| {
            if let Some(found) = found_escrow(chain, d, payer, offered.prompt_digest)? {
                return Ok(found);
            }
            let deadline = chain.newest()?.1.max(now() as u64).saturating_add(self.fee.window);
            let conditions = Conditions { prompt: offered.prompt_digest, ..Conditions::default() };
            let amount = offered.amount.parse().during("reading the fee")?;
            let order = Order { model: offered.model, asset: Asset::Ether, amount, deadline, conditions };
            let service = offer(chain, d, offered.model)?.service;
            request::escrow(chain, payer, d, terms(&order, &service))?;
            let found = found_escrow(chain, d, payer, offered.prompt_digest)?;
            found.ok_or_else(|| Failure::input("the fee was escrowed, and the chain doesn't show it"))
        })?;
        self.keep("escrowed", &escrowed, |_| Ok(()))?;
        Ok(escrowed)
    }

    fn proven(&self, maker: &impl Maker, escrowed: &Escrowed, salt: Digest) -> Result<Proven, Failure> {
        if let Some(proven) = self.done("proven")? {
            return Ok(proven);
        }
        self.begin("proving")?;
        let (statement, inner) = maker.prove(escrowed.request_id, salt, self.on)?;
        if only_request(&statement)?.id != escrowed.request_id {
            return Err(Failure::input("the proof is of another request than the chain's; this is a defect of poa"));
        }
        let statement_digest = statement.digest();
        let proven = Proven { inner_proof: self.files.put(&inner)?, statement: self.put_json(&statement)?, statement_digest };
        self.keep("proven", &proven, |_| Ok(()))?;
        Ok(proven)
    }

    fn wrapped(&self, maker: &impl Maker, statement: &Statement, proven: &Proven) -> Result<(Wrapped, EvmProof), Failure> {
        if let Some(wrapped) = self.done::<Wrapped>("wrapped")? {
            let proof: EvmProof = self.get_json(&wrapped.outer_proof)?;
            return Ok((wrapped, proof));
        }
        self.begin("wrapping")?;
        let (proof, key) = maker.wrap(statement, &self.files.get(&proven.inner_proof)?, self.on)?;
        proof.check(statement)?;
        let wrapped = Wrapped { outer_proof: self.put_json(&proof)?, key: self.files.put(key.encoding())?, proof_bytes: proof.proof_bytes };
        self.keep("wrapped", &wrapped, |_| Ok(()))?;
        Ok((wrapped, proof))
    }

    /// Whether the fee went back, or has to.
    fn refunded(&self, d: &Deployment, escrowed: &Escrowed) -> Result<Option<Ended>, Failure> {
        if let Some(ended) = self.done("refunded")? {
            return Ok(Some(ended));
        }
        let ended = self.ledger.work(self.database, self.claim, |chain| {
            let call = AttributionSettlement::requestCall { requestId: B256::from(escrowed.request_id.0) };
            let status = read(chain, d.contracts.settlement, &call)?.status;
            let late = chain.newest()?.1.max(now() as u64) > escrowed.deadline;
            match Status::of(status) {
                Status::Refunded => {}
                Status::Escrowed if late => request::refund(chain, devnet::payer().address(), d, escrowed.request_id)?,
                _ => return Ok(None),
            }
            Ok(Some(Ended { block: chain.newest()?.0 }))
        })?;
        if let Some(ended) = &ended {
            self.keep("refunded", ended, |_| Ok(()))?;
        }
        Ok(ended)
    }

    fn settled(&self, d: &Deployment, proof: &EvmProof, names: &[String]) -> Result<(), Failure> {
        if self.done::<Settled>("settled")?.is_none() {
            self.begin("settling")?;
            let from = devnet::deployer().address();
            let made = self.ledger.work(self.database, self.claim, |chain| request::settle(chain, from, d, proof, names, None))?;
            let settled = Settled { transaction: made.transaction, gas_used: made.gas_used, verify_gas: made.verify_gas };
            self.keep("settled", &settled, |_| Ok(()))?;
        }
        if self.done::<Ended>("paid")?.is_none() {
            self.begin("crediting contributors")?;
            let from = devnet::deployer().address();
            let (settlement, block) = self.ledger.work(self.database, self.claim, |chain| {
                request::collect(chain, from, d, proof)?;
                // Read again: it says what the chain paid, to whom.
                Ok((request::settle(chain, from, d, proof, names, None)?, chain.newest()?.0))
            })?;
            let insert = "INSERT INTO payouts (request, contributor, account, amount) VALUES (?1, ?2, ?3, ?4)";
            let paid = settlement.payouts.iter().filter(|p| p.amount > U256::ZERO);
            self.keep("paid", &Ended { block }, |t| {
                paid.into_iter().try_for_each(|p| {
                    let values = params![self.request(), p.contributor, p.account.to_string(), p.amount.to_string()];
                    t.execute(insert, values).map(|_| ())
                })
            })?;
        }
        Ok(())
    }

    /// Settles the request, from wherever it is.
    pub fn settle(&self, maker: &impl Maker) -> Result<Value, Failure> {
        let (offered, salt) = self.offered(maker)?;
        let d = self.deployment(&offered)?;
        let escrowed = self.escrowed(&offered, &d)?;
        if self.done::<Settled>("settled")?.is_none() && self.refunded(&d, &escrowed)?.is_some() {
            return Ok(json!({ "request_id": escrowed.request_id, "refunded": true }));
        }
        let proven = self.proven(maker, &escrowed, salt)?;
        let statement: Statement = self.get_json(&proven.statement)?;
        let (_, proof) = self.wrapped(maker, &statement, &proven)?;
        let names = statement.index.as_ref().map(|index| index.contributors.as_slice()).unwrap_or_default();
        self.settled(&d, &proof, names)?;
        Ok(json!({ "request_id": escrowed.request_id, "refunded": false }))
    }
}

/// The escrow for a prompt's digest, as the chain's logs have it.
fn found_escrow(chain: &mut impl Chain, d: &Deployment, payer: Address, prompt: Digest) -> Result<Option<Escrowed>, Failure> {
    let event = AttributionSettlement::Escrowed::SIGNATURE_HASH;
    let search = Search { address: d.contracts.settlement, event, first: None, from: d.block, to: None };
    let of_prompt = |found: &Found| {
        let log = AttributionSettlement::Escrowed::decode_log(&found.log).ok()?.data;
        (log.payer == payer && log.terms.promptDigest == word(&prompt)).then_some(log)
    };
    let Some((log, found)) = chain.logs(&search)?.into_iter().find_map(|found| Some((of_prompt(&found)?, found))) else { return Ok(None) };
    let gas_used = chain.receipt(found.transaction)?.map_or(0, |receipt| receipt.gas_used);
    Ok(Some(Escrowed {
        request_id: Digest(log.requestId.0),
        transaction: found.transaction,
        block: found.block,
        gas_used,
        deadline: log.terms.deadline.to::<u64>(),
    }))
}

/// Settles a request; a worker's job.
pub fn work(service: &Service, claim: &Claim, on: &dyn Observer) -> Result<Value, Failure> {
    let request = requests::any(&service.database, &claim.subject).during("reading the request")?;
    let request = request.ok_or_else(|| Failure::input("there is no such request"))?;
    let maker = Making::new(service, &request)?;
    let Service { database, files, ledger, fee, .. } = service;
    Desk { database, files, ledger, claim, on, fee: *fee }.settle(&maker)
}

#[cfg(test)]
#[path = "../../chain/src/fixture.rs"]
#[allow(dead_code, reason = "the chain's tests use more of it")]
mod fixture;

#[cfg(test)]
mod tests {
    use super::fixture::{RAW, TOKENS, seal, statement};
    use super::*;
    use crate::explore;
    use crate::keys::{self, Scope};
    use chain::Call;
    use circuits::statement::{TokenOpening, Tokens};
    use std::cell::Cell;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Duration;
    use steps::evm_proof::SrsMark;
    use steps::progress::Unwatched;

    const FEE: Fee = Fee { amount: 1_000_000, shares: [500, 2000, 500, 7000], window: 1000 };
    const KEY: &[u8] = include_bytes!("../../assets/demo/outer.vk");
    const TOKENS_ASKED: [u32; 4] = [1, 2, 3, 4];
    const CONTRIBUTORS: usize = 5;

    /// Everything but the chain's part at no cost: a verifier that takes sealed proofs.
    #[derive(Default)]
    struct Stub {
        proofs: Cell<usize>,
        wraps: Cell<usize>,
        refuses: bool,
    }

    impl Maker for Stub {
        fn model(&self) -> String {
            "stub".into()
        }

        fn slots(&self) -> usize {
            8
        }

        fn capacity(&self) -> usize {
            TOKENS
        }

        fn prompt(&self) -> &[u32] {
            &TOKENS_ASKED[..2]
        }

        fn prove(&self, id: Digest, salt: Digest, _: &dyn Observer) -> Result<(Statement, Vec<u8>), Failure> {
            self.proofs.set(self.proofs.get() + 1);
            let opening = TokenOpening { prompt_salt: salt.0, salt: random_id()?.0, tokens: TOKENS_ASKED.to_vec(), prompt_len: 2 };
            let mut statement = statement(CONTRIBUTORS, id);
            statement.requests[0].tokens = Tokens::Digests(opening.digests(TOKENS));
            Ok((statement, b"inner".to_vec()))
        }

        fn key(&self, _: &Statement, _: &[u8], _: &dyn Observer) -> Result<OuterKey, Failure> {
            OuterKey::decode(KEY).during("reading the key")
        }

        fn wrap(&self, statement: &Statement, _: &[u8], on: &dyn Observer) -> Result<(EvmProof, OuterKey), Failure> {
            self.wraps.set(self.wraps.get() + 1);
            let key = self.key(statement, &[], on)?;
            let mark = SrsMark { digest: Digest([1; 32]), insecure: true };
            let mut proof = EvmProof::new(statement, Digest(key.digest()), mark, vec![0xab; key.proof_bytes()])?;
            if !self.refuses {
                seal(&proof.public_inputs, &mut proof.proof.0);
            }
            Ok((proof, key))
        }

        fn verifier(&self, key: &OuterKey, _: Option<&EvmProof>) -> Result<Option<RawVerifier>, Failure> {
            let (key_digest, proof_bytes) = (Digest(key.digest()), key.proof_bytes());
            Ok(Some(RawVerifier { code: RAW.into(), key_digest, proof_bytes, insecure_srs: true, gas_limit: 450_000 }))
        }

        fn earlier_versions(&self) -> Result<Vec<(Digest, Vec<String>)>, Failure> {
            Ok(vec![])
        }

        fn licence(&self) -> Result<String, Failure> {
            Ok("MIT".into())
        }
    }

    struct Place {
        database: Database,
        files: Files,
        ledger: Ledger,
    }

    fn opened(directory: &Path) -> Place {
        let database = Database::open(&directory.join("poa.db")).unwrap();
        let ledger = Ledger::load(&database).unwrap();
        Place { database, files: Files::new(directory.join("files")), ledger }
    }

    /// Requests that wait to be settled.
    fn asked(database: &Database, count: usize) -> Vec<String> {
        keys::make(database, "one", Scope::User).unwrap();
        let insert = "INSERT INTO requests (id, key, created, model, generation, prompt, answer, tokens, prompt_len, finish_reason) \
                      VALUES (?1, 1, 0, 'stub', '{}', '', '', '[]', 0, 'stop')";
        let ids: Vec<String> = (0..count).map(|_| random_id().unwrap().to_string()).collect();
        database
            .write(|t| {
                ids.iter().try_for_each(|id| {
                    t.execute(insert, [id])?;
                    enqueue_in(t, id)
                })
            })
            .unwrap();
        ids
    }

    impl Place {
        fn attempt(&self, maker: &Stub) -> Option<Result<Value, Failure>> {
            let claim = jobs::claim(&self.database, SETTLE).unwrap()?;
            let desk = Desk { database: &self.database, files: &self.files, ledger: &self.ledger, claim: &claim, on: &Unwatched, fee: FEE };
            let done = desk.settle(maker);
            match &done {
                Ok(result) => assert!(jobs::finish(&self.database, &claim, result).unwrap()),
                Err(failure) => assert!(jobs::fail(&self.database, &claim, &failure.message).unwrap()),
            }
            Some(done)
        }

        fn number(&self, query: &str) -> i64 {
            self.database.read(|c| c.query_row(query, [], |r| r.get(0))).unwrap()
        }

        fn deployed(&self) -> Deployment {
            let text: String = self.database.read(|c| c.query_row("SELECT deployment FROM deployments", [], |r| r.get(0))).unwrap();
            serde_json::from_str(&text).unwrap()
        }

        /// Every request is paid once, nothing else was, and contributors have what the payouts say.
        fn check(&self, ids: &[String]) {
            let settlements: Vec<Settlement> = ids.iter().map(|id| find(&self.database, id).unwrap().unwrap()).collect();
            assert!(settlements.iter().all(|s| s.state == "paid"), "{settlements:?}");
            let mut of_chain: Vec<&str> = settlements.iter().map(|s| s.steps["escrowed"]["request_id"].as_str().unwrap()).collect();
            of_chain.sort_unstable();
            of_chain.dedup();
            assert_eq!(of_chain.len(), ids.len());
            let d = self.deployed();
            assert_eq!(["deployments", "registrations", "outer_keys"].map(|table| self.number(&format!("SELECT count(*) FROM {table}"))), [1, 1, 1]);
            self.ledger
                .read(&self.database, |chain| {
                    for event in [AttributionSettlement::Escrowed::SIGNATURE_HASH, AttributionSettlement::Settled::SIGNATURE_HASH] {
                        let search = Search { address: d.contracts.settlement, event, first: None, from: 0, to: None };
                        assert_eq!(chain.logs(&search)?.len(), ids.len(), "each once");
                    }
                    let held = chain.balance(d.contracts.settlement)?;
                    assert_eq!(held, U256::from(FEE.amount) * U256::from(ids.len()));
                    for i in 0..CONTRIBUTORS {
                        let name = format!("contributor-{i}");
                        let own = credited(&self.database, &name).unwrap();
                        let paid = own.values().map(|wei| wei.parse::<U256>().unwrap()).fold(U256::ZERO, |sum, wei| sum + wei);
                        let account = devnet::contributor(&name).address();
                        assert_eq!(request::claimable(chain, account, &d, Asset::Ether)?, paid, "{name}");
                        assert_eq!(paid.is_zero(), i % 3 == 1, "{name}");
                    }
                    Ok(())
                })
                .unwrap();
        }
    }

    #[test]
    fn a_request_is_paid_once() {
        let directory = tempfile::tempdir().unwrap();
        let place = opened(directory.path());
        let ids = asked(&place.database, 2);
        let maker = Stub::default();
        while let Some(done) = place.attempt(&maker) {
            done.unwrap();
        }
        place.check(&ids);
        assert_eq!((maker.proofs.get(), maker.wraps.get()), (3, 2), "one more, for the model's key");
        // Found by what names it, by whom it concerns; not by what it costs.
        let steps = find(&place.database, &ids[0]).unwrap().unwrap().steps;
        let found =
            |scope: Scope, key: i64, digits: &str| explore::settlements(&place.database, Caller { key, scope, call: None }, digits).unwrap().len();
        let digits = |step: &str, name: &str| steps[step][name].as_str().unwrap().trim_start_matches("0x")[..16].to_owned();
        let (id, transaction, key) = (digits("escrowed", "request_id"), digits("settled", "transaction"), digits("offered", "key_digest"));
        for (digits, count) in [(&id, 1), (&transaction, 1), (&digits("wrapped", "outer_proof"), 1), (&key, 2)] {
            assert_eq!([found(Scope::Admin, 7, digits), found(Scope::User, 1, digits), found(Scope::User, 2, digits)], [count, count, 0], "{digits}");
        }
        assert_eq!(found(Scope::Admin, 7, &FEE.amount.to_string()), 0);
        // Asked again, it is done; done again, nothing is paid.
        place.database.write(|t| t.execute("UPDATE jobs SET state = 'failed'", [])).unwrap();
        place.database.write(|t| ids.iter().try_for_each(|id| enqueue_in(t, id))).unwrap();
        while let Some(done) = place.attempt(&maker) {
            done.unwrap();
        }
        // Nor where the steps are lost, and only the chain knows; the salt tells which escrow it was.
        let forget =
            "DELETE FROM settlement_steps WHERE step IN ('escrowed', 'settled', 'paid'); DELETE FROM payouts; UPDATE jobs SET state = 'queued'";
        place.database.write(|t| t.execute_batch(forget)).unwrap();
        while let Some(done) = place.attempt(&maker) {
            done.unwrap();
        }
        place.check(&ids);
        assert_eq!((maker.proofs.get(), maker.wraps.get()), (3, 2));
        opened(directory.path()).check(&ids);
    }

    #[test]
    fn what_the_contract_refuses_is_not_paid_and_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let place = opened(directory.path());
        let ids = asked(&place.database, 1);
        assert!(cancel(&place.database, &ids[0]).unwrap(), "nothing is paid yet");
        assert_eq!(find(&place.database, &ids[0]).unwrap().unwrap().state, "cancelled");
        place.database.write(|t| enqueue_in(t, &ids[0])).unwrap();
        let refusing = Stub { refuses: true, ..Stub::default() };
        let refused = place.attempt(&refusing).unwrap().unwrap_err();
        assert!(refused.message.contains("InvalidProof"), "{refused:?}");
        let settlement = find(&place.database, &ids[0]).unwrap().unwrap();
        assert_eq!((settlement.state, settlement.payouts.len()), ("escrowed", 0));
        assert!(!cancel(&place.database, &ids[0]).unwrap(), "the fee is paid");
        // The deadline is the chain's: blocks are a second apart at least.
        let again = || place.database.write(|t| t.execute("UPDATE jobs SET not_before = 0", [])).unwrap();
        again();
        let claim = jobs::claim(&place.database, SETTLE).unwrap().unwrap();
        let wait = |chain: &mut Account<'_>| {
            let call = Call { from: devnet::payer().address(), to: Some(Address::repeat_byte(7)), ..Call::default() };
            (0..FEE.window + 1).try_for_each(|_| chain.send(call.clone()).map(|_| ())).map_err(Failure::from)
        };
        place.ledger.together(&place.database, &claim, wait, |_, ()| Ok(())).unwrap();
        jobs::release(&place.database, &claim).unwrap();
        assert_eq!(place.attempt(&refusing).unwrap().unwrap()["refunded"], true);
        let settlement = find(&place.database, &ids[0]).unwrap().unwrap();
        assert_eq!((settlement.state, settlement.payouts.len()), ("refunded", 0));
        let d = place.deployed();
        let back = place.ledger.read(&place.database, |chain| Ok(request::claimable(chain, devnet::payer().address(), &d, Asset::Ether)?)).unwrap();
        assert_eq!(back, U256::from(FEE.amount));
    }

    /// What [`killed_at_any_moment_every_request_is_paid_once`] kills.
    #[test]
    #[ignore = "a part of another test"]
    fn settles_until_it_is_killed() {
        let Some(directory) = std::env::var_os("POA_SETTLES_IN") else { return };
        let place = opened(Path::new(&directory));
        while let Some(done) = place.attempt(&Stub::default()) {
            done.unwrap();
        }
    }

    #[test]
    fn killed_at_any_moment_every_request_is_paid_once() {
        const REQUESTS: usize = 60;
        let directory = tempfile::tempdir().unwrap();
        let ids = asked(&opened(directory.path()).database, REQUESTS);
        let (mut kills, mut done, mut longest) = (0, 0, 10_000);
        loop {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "settlements::tests::settles_until_it_is_killed", "--ignored"])
                .env("POA_SETTLES_IN", directory.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut random = [0];
            getrandom::fill(&mut random).unwrap();
            std::thread::sleep(Duration::from_micros(longest * (1 + u64::from(random[0])) / 256));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            assert!(kills < 5000, "it never ends");
            // Time passes: the lease of whoever was killed is over.
            let place = opened(directory.path());
            place.database.write(|t| t.execute("UPDATE jobs SET lease = 0, attempts = 0", [])).unwrap();
            // As often as this machine lets something be done in between.
            let steps: i64 = place.database.read(|c| c.query_row("SELECT count(*) FROM settlement_steps", [], |r| r.get(0))).unwrap();
            longest = if steps > done { longest * 3 / 4 } else { longest * 5 / 4 }.clamp(2_000, 2_000_000);
            done = steps;
        }
        assert!(kills >= 50, "killed {kills} times only");
        eprintln!("killed {kills} times");
        opened(directory.path()).check(&ids);
    }
}
