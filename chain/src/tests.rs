//! The same flow on the EVM in process and on anvil, and what goes wrong on the way.

use crate::deploy::{Deployment, RawVerifier};
use crate::devnet;
use crate::evm::Evm;
use crate::node::Node;
use crate::offer::{Contributor, Expected, offer};
use crate::register::{self, LICENCE, Publication, Standing, contribute, payees};
use crate::request::{self, Asset, Conditions, Order, terms};
use crate::watch::{Judge, News, State, Verdict, Watch, examine};
use crate::{Chain, ChainError, fixture};
use alloy::primitives::U256;
use circuits::statement::{Digest, IndexStatement, Profile, RequestStatement, Statement, Tokens};
use fixture::{Anvil, PROOF_BYTES, RAW, anvil, small};
use serde_json::json;
use std::time::Duration;
use steps::error::{Failure, Kind};
use steps::evm_proof::{EvmProof, INPUTS, SrsMark, prompt_digest, token_digest, word};

const KEY: Digest = Digest([0x17; 32]);

pub(super) fn raw() -> RawVerifier {
    RawVerifier { code: RAW.into(), key_digest: KEY, proof_bytes: PROOF_BYTES, insecure_srs: true, gas_limit: 450_000 }
}

/// With the request id that a fresh chain gives for its tokens.
pub(super) fn statement(contributors: usize) -> Statement {
    let mut statement = fixture::statement(contributors, Digest::default());
    let request = &mut statement.requests[0];
    request.id = devnet::request_id(conditions(request), KEY);
    statement
}

/// A payment for this very exchange.
fn conditions(request: &RequestStatement) -> Conditions {
    let [prompt, tokens] = [prompt_digest, token_digest].map(|digest| digest(request, fixture::TOKENS));
    Conditions { prompt, tokens, ..Conditions::default() }
}

pub(super) fn proof_with(statement: &Statement, first: u8) -> EvmProof {
    let mut bytes = vec![0xab; PROOF_BYTES];
    bytes[0] = first;
    let mut proof = EvmProof::new(statement, KEY, SrsMark { digest: small(1), insecure: true }, bytes).unwrap();
    if first == 1 {
        fixture::seal(&proof.public_inputs, &mut proof.proof.0);
    }
    proof
}

pub(super) fn proof(statement: &Statement) -> EvmProof {
    proof_with(statement, 1)
}

pub(super) fn names(statement: &Statement) -> Vec<String> {
    statement.index.as_ref().unwrap().contributors.clone()
}

// ---------------------------------------------------------------------------------------------------------------- in process

#[test]
fn a_settlement_in_process_pays_everyone() {
    let statement = statement(16);
    let settled = devnet::settle_in_process(&statement, &proof(&statement), &raw()).unwrap();
    let request = &statement.requests[0];
    let pot = U256::from(devnet::ETHER) * U256::from(7) / U256::from(10);
    for (payout, weight) in settled.payouts.iter().zip(&request.weights) {
        assert_eq!(payout.amount, pot * U256::from(*weight) / U256::from(request.total), "{}", payout.contributor);
        assert_eq!(payout.account, devnet::contributor(&payout.contributor).address());
    }
    assert_eq!(settled.payouts.len(), 16);
    assert_eq!(settled.request_id, request.id);
    assert!(!settled.already);
    // The front's own cost: with a verifier that costs nothing, little is left.
    assert!((3_000..40_000).contains(&settled.verify_gas), "{}", settled.verify_gas);
    assert!((100_000..250_000).contains(&settled.gas_used), "{}", settled.gas_used);
}

#[test]
fn the_request_id_is_known_before() {
    let mut open = statement(3);
    assert_ne!(open.requests[0].id, devnet::request_id(Conditions::default(), KEY));
    let prompt = Conditions { tokens: Digest::default(), ..conditions(&open.requests[0]) };
    for conditions in [Conditions::default(), prompt] {
        assert_ne!(devnet::request_id(conditions, KEY), devnet::request_id(conditions, small(1)), "it names the key");
        open.requests[0].id = devnet::request_id(conditions, KEY);
        devnet::settle_in_process(&open, &proof(&open), &raw()).unwrap();
    }
    open.requests[0].id = small(1);
    let refused = devnet::settle_in_process(&open, &proof(&open), &raw()).unwrap_err();
    assert!(refused.message.contains("request id"), "{}", refused.message);
}

fn prepared(statement: &Statement) -> (Evm, Deployment) {
    let mut chain = Evm::new(devnet::CHAIN_ID, devnet::START);
    chain.give(devnet::payer().address(), U256::from(2 * devnet::ETHER));
    let d = devnet::prepare(&mut chain, statement, &raw(), false).unwrap();
    (chain, d)
}

fn settle(chain: &mut impl Chain, d: &Deployment, statement: &Statement, proof: &EvmProof) -> Result<request::Settlement, Failure> {
    request::settle(chain, devnet::deployer().address(), d, proof, &names(statement), None)
}

#[test]
fn bad_claims_are_told_apart() {
    let statement = statement(4);
    let (mut chain, d) = prepared(&statement);
    let mut refused = |proof: &EvmProof, kind: Kind, text: &str| {
        let failure = settle(&mut chain, &d, &statement, proof).unwrap_err();
        assert_eq!((failure.kind, failure.message.contains(text)), (kind, true), "{text}: {failure:?}");
    };
    refused(&proof_with(&statement, 2), Kind::Invalid, "doesn't verify (InvalidProof)");
    refused(&EvmProof { key_digest: small(1), ..proof(&statement) }, Kind::Invalid, "contracts verify key");
    let mut longer = proof(&statement);
    longer.proof.0.push(0);
    refused(&longer, Kind::Invalid, "InvalidProof");
    let mut other = proof(&statement);
    other.public_inputs[5] = small(1);
    refused(&other, Kind::Input, "isn't escrowed");
    type Change = (&'static str, fn(&mut Statement));
    let changes: [Change; 3] = [
        ("another base model", |s| s.base = small(100)),
        ("another index statement digest", |s| s.index.as_mut().unwrap().contributors[0] = "mallory".into()),
        ("WeightCount", |s| {
            let last = s.requests[0].weights.pop().unwrap();
            s.requests[0].total -= last;
        }),
    ];
    for (text, change) in changes {
        let mut changed = statement.clone();
        change(&mut changed);
        refused(&proof(&changed), if text == "WeightCount" { Kind::Input } else { Kind::Invalid }, text);
    }
    let mut tokens = statement.clone();
    let Tokens::Public { tokens: all, .. } = &mut tokens.requests[0].tokens else { unreachable!() };
    all[0] += 1;
    refused(&proof(&tokens), Kind::Input, "PromptDigestMismatch");
    let Tokens::Public { tokens: all, .. } = &mut tokens.requests[0].tokens else { unreachable!() };
    all[0] -= 1;
    all[3] += 1;
    refused(&proof(&tokens), Kind::Input, "TokenDigestMismatch");
}

/// A contributor answers a prompt of their own choosing with the payer's model, proves it, and settles first.
#[test]
fn an_exchange_of_ones_own_choosing_settles_nothing() {
    let statement = statement(4);
    let (mut chain, d) = prepared(&statement);
    let mut chosen = statement.clone();
    chosen.requests[0].tokens = Tokens::Public { tokens: vec![9, 9, 9], prompt_len: 1 };
    let refused = settle(&mut chain, &d, &chosen, &proof(&chosen)).unwrap_err();
    assert!(refused.message.contains("another prompt") || refused.message.contains("PromptDigestMismatch"), "{refused:?}");
    settle(&mut chain, &d, &statement, &proof(&statement)).unwrap();
}

#[test]
fn a_named_settler_is_the_only_one() {
    let mut statement = statement(2);
    let (mut chain, d) = prepared(&statement);
    let settler = devnet::contributor("provider").address();
    let (_, now) = chain.newest().unwrap();
    let conditions = Conditions { settler, ..conditions(&statement.requests[0]) };
    let order = Order { model: 1, asset: Asset::Open, amount: 1000, deadline: now + 86_400, conditions };
    let service = offer(&mut chain, &d, 1).unwrap().service;
    let escrow = request::escrow(&mut chain, devnet::deployer().address(), &d, terms(&order, &service)).unwrap();
    statement.requests[0].id = escrow.request_id;
    let refused = settle(&mut chain, &d, &statement, &proof(&statement)).unwrap_err();
    assert!(refused.message.contains("NotSettler"), "{refused:?}");
    let settled = request::settle(&mut chain, settler, &d, &proof(&statement), &names(&statement), None).unwrap();
    assert_eq!(settled.request_id, escrow.request_id);
}

/// What governance approves between a look at the chain and the payment binds nobody.
#[test]
fn terms_name_the_verifier() {
    let statement = statement(2);
    let (mut chain, d) = prepared(&statement);
    let service = offer(&mut chain, &d, 1).unwrap().service;
    assert_eq!((service.verifier, service.key_digest), (d.contracts.verifier, KEY));
    let (_, now) = chain.newest().unwrap();
    let order = Order { model: 1, asset: Asset::Open, amount: 1, deadline: now + 86_400, conditions: Conditions::default() };
    for other in [request::Service { key_digest: small(1), ..service }, request::Service { verifier: d.contracts.models, ..service }] {
        let refused = request::escrow(&mut chain, devnet::deployer().address(), &d, terms(&order, &other)).unwrap_err();
        assert!(refused.to_string().contains("VerifierDiffers"), "{refused}");
    }
}

#[test]
fn what_an_escrow_binds_is_compared() {
    let statement = statement(3);
    let (mut chain, d) = prepared(&statement);
    let found = offer(&mut chain, &d, 1).unwrap();
    let whole = found.expectations(statement.relation.digest(), &names(&statement));
    assert_eq!(found.check(&whole).unwrap(), 8);
    assert_eq!(found.check(&Expected::default()).unwrap(), 0);
    let read: Expected = serde_json::from_value(serde_json::to_value(&whole).unwrap()).unwrap();
    assert_eq!(read, whole);
    let unknown = json!({ "base": small(3), "colour": "green" });
    assert!(serde_json::from_value::<Expected>(unknown).unwrap_err().to_string().contains("colour"));
    type Change = (&'static str, fn(&mut Expected));
    let mallory = || Contributor { name: "mallory".into(), account: devnet::payer().address() };
    let changes: [Change; 8] = [
        ("base", |e| e.base = Some(small(100))),
        ("adapter", |e| e.adapter = Some(small(100))),
        ("index", |e| e.index = Some(small(100))),
        ("index_digest", |e| e.index_digest = Some(small(100))),
        ("key_digest", |e| e.key_digest = Some(small(100))),
        ("verifier", |e| e.verifier = Some(devnet::payer().address())),
        ("split", |e| e.split.as_mut().unwrap().contributors_bps -= 1),
        ("key_digest isn't expected", |e| e.key_digest = None),
    ];
    for (text, change) in changes {
        let mut other = whole.clone();
        change(&mut other);
        let refused = found.check(&other).unwrap_err();
        assert!(refused.message.contains(text), "{text}: {refused:?}");
    }
    let with = |change: &dyn Fn(&mut Vec<Contributor>)| {
        let mut contributors = whole.contributors.clone().unwrap();
        change(&mut contributors);
        found.check(&Expected { contributors: Some(contributors), ..Expected::default() }).unwrap_err().message
    };
    assert!(with(&|c| c[1] = mallory()).contains("is paid at"));
    assert!(with(&|c| c[1].name = "mallory".into()).contains("names"));
    assert!(with(&|c| c.truncate(2)).contains("3 contributors on chain"));
}

#[test]
fn names_are_whose_the_owner_says() {
    let statement = statement(2);
    let (mut chain, d) = prepared(&statement);
    let (owner, c) = (devnet::deployer().address(), d.contracts);
    let index = IndexStatement { datanet_version: 2, ..statement.index.clone().unwrap() };
    let publication = Publication { datanet: 1, index: &index, licence: LICENCE, chosen: &[] };
    let standing = |chain: &mut Evm, chosen: &[u64]| {
        let payees = payees(chain, &d, &Publication { chosen, ..publication })?;
        Ok::<_, Failure>(payees.iter().map(|p| (p.contribution, p.standing)).collect::<Vec<_>>())
    };
    assert_eq!(standing(&mut chain, &[]).unwrap(), [(1, Standing::Approved), (2, Standing::Approved)]);
    // The account of the first name turns out to be the wrong one.
    let right = devnet::contributor("the right one").address();
    let wrong = devnet::contributor("contributor-0").address();
    let id = contribute(&mut chain, right, &c, 1, "contributor-0", small(9), LICENCE).unwrap();
    assert_eq!(standing(&mut chain, &[]).unwrap()[0], (1, Standing::Approved), "offering isn't enough");
    assert!(standing(&mut chain, &[id]).unwrap_err().hint.unwrap().contains("datanet correct"));
    let correction = register::correction(&mut chain, &d, 1, id).unwrap();
    assert_eq!((correction.from, correction.to), (wrong, right));
    register::correct(&mut chain, owner, &c, id).unwrap();
    assert!(register::correction(&mut chain, &d, 1, id).unwrap_err().message.contains("nothing to correct"));
    assert_eq!(standing(&mut chain, &[]).unwrap(), [(id, Standing::Approved), (2, Standing::Approved)]);
    let payees = payees(&mut chain, &d, &publication).unwrap();
    assert_eq!(register::publish(&mut chain, owner, &d, &publication, &payees).unwrap(), 2);
    // The model is of version 1, which pays whom it paid.
    assert_eq!(offer(&mut chain, &d, 1).unwrap().accounts[0], wrong);
    // A name that nobody holds goes to whoever came first, unless the owner says otherwise.
    let index = IndexStatement { datanet_version: 3, contributors: vec!["new".into()], ..index.clone() };
    let first = contribute(&mut chain, wrong, &c, 1, "new", small(9), LICENCE).unwrap();
    let publication = Publication { index: &index, ..publication };
    let found = register::payees(&mut chain, &d, &publication).unwrap();
    assert_eq!((found[0].contribution, found[0].standing, found[0].account), (first, Standing::First, wrong));
    let chosen = [contribute(&mut chain, right, &c, 1, "new", small(9), LICENCE).unwrap()];
    assert!(register::payees(&mut chain, &d, &publication).unwrap_err().message.contains("several accounts"));
    let found = register::payees(&mut chain, &d, &Publication { chosen: &chosen, ..publication }).unwrap();
    assert_eq!((found[0].standing, found[0].account), (Standing::Chosen, right));
}

#[test]
fn nothing_is_paid_twice() {
    let statement = statement(4);
    let (mut chain, d) = prepared(&statement);
    let first = settle(&mut chain, &d, &statement, &proof(&statement)).unwrap();
    let second = settle(&mut chain, &d, &statement, &proof(&statement)).unwrap();
    assert!(second.already && !first.already);
    assert_eq!((second.transaction, second.gas_used, &second.payouts), (first.transaction, first.gas_used, &first.payouts));
    let mut other = statement.clone();
    other.requests[0].weights[0] += 1;
    other.requests[0].total += 1;
    let refused = settle(&mut chain, &d, &statement, &proof(&other)).unwrap_err();
    assert!(refused.kind == Kind::Invalid && refused.message.contains("by another proof"), "{refused:?}");
    assert_eq!(request::collect(&mut chain, devnet::deployer().address(), &d, &proof(&statement)).unwrap(), 3);
    assert_eq!(request::collect(&mut chain, devnet::deployer().address(), &d, &proof(&statement)).unwrap(), 0);
}

#[test]
fn chains_without_the_contracts_are_recognised() {
    let statement = statement(2);
    let (_, d) = prepared(&statement);
    for (id, text) in [(1, "chain 1"), (devnet::CHAIN_ID, "no contract at")] {
        let refused = settle(&mut Evm::new(id, devnet::START), &d, &statement, &proof(&statement)).unwrap_err();
        assert!(refused.kind == Kind::Input && refused.message.contains(text), "{refused:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------- anvil

fn connect(anvil: &Anvil, statement: &Statement, wait: Duration) -> Node {
    let mut node = Node::connect(&anvil.url, wait).unwrap();
    node.add_key(devnet::deployer());
    node.add_key(devnet::payer());
    names(statement).iter().for_each(|name| {
        node.add_key(devnet::contributor(name));
    });
    node
}

pub(super) const WAIT: Duration = Duration::from_secs(20);

#[test]
fn anvil_and_the_evm_in_process_agree() {
    let Some(anvil) = anvil(&[]) else { return };
    let statement = statement(16);
    let here = devnet::settle_in_process(&statement, &proof(&statement), &raw()).unwrap();
    let mut node = connect(&anvil, &statement, WAIT);
    let there = devnet::settle_on(&mut node, &statement, &proof(&statement), &raw(), true).unwrap();
    assert_eq!((here.gas_used, here.verify_gas), (there.gas_used, there.verify_gas));
    assert_eq!(here.payouts, there.payouts);
    assert_eq!(here.request_id, there.request_id);
}

/// Accepts proofs that begin with 1 and aren't to be refused.
pub(super) struct Fake(pub bool);

impl Judge for Fake {
    fn key_digest(&self) -> Digest {
        KEY
    }

    fn judge(&self, _: &[U256; INPUTS], _: &[U256], proof: &[u8]) -> Result<(), String> {
        if self.0 && proof[0] == 1 { Ok(()) } else { Err("the pairing equation doesn't hold".into()) }
    }
}

fn judges(accepting: bool) -> Vec<Box<dyn Judge>> {
    vec![Box::new(Fake(accepting))]
}

fn news(node: &mut Node, d: &Deployment, state: &mut State, judges: &[Box<dyn Judge>]) -> Vec<News> {
    let mut all = vec![];
    let mut watch = Watch::new(node, d, judges);
    loop {
        let (news, more) = watch.step(state, 0).unwrap();
        all.extend(news);
        if !more {
            return all;
        }
    }
}

fn verdicts(news: &[News]) -> Vec<(bool, &Verdict)> {
    news.iter()
        .map(|n| match n {
            News::Settlement(v) => (true, v),
            News::Withdrawn(v) => (false, v),
        })
        .collect()
}

#[test]
fn watching_survives_reorganisations_and_restarts() {
    let Some(anvil) = anvil(&[]) else { return };
    let statement = statement(3);
    let mut node = connect(&anvil, &statement, WAIT);
    let d = devnet::prepare(&mut node, &statement, &raw(), true).unwrap();
    let accepting = judges(true);
    let mut state = State::new(&d);
    assert_eq!(news(&mut node, &d, &mut state, &accepting), []);
    settle(&mut node, &d, &statement, &proof(&statement)).unwrap();
    let first = news(&mut node, &d, &mut state, &accepting);
    assert!(matches!(verdicts(&first).as_slice(), [(true, v)] if v.accepted && v.request_id == statement.requests[0].id), "{first:?}");
    // A restart reads on from its file.
    let mut state: State = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
    assert!(state.is_of(&d));
    assert_eq!(news(&mut node, &d, &mut state, &accepting), []);
    // The settlement's block is replaced by an empty one.
    node.development("anvil_reorg", json!([1, []])).unwrap();
    node.development("evm_mine", json!([])).unwrap();
    let second = news(&mut node, &d, &mut state, &accepting);
    assert!(matches!(verdicts(&second).as_slice(), [(false, v)] if v.request_id == statement.requests[0].id), "{second:?}");
    assert_eq!(state.settlements, []);
    // The same command again settles it again, on the new branch.
    let settled = settle(&mut node, &d, &statement, &proof(&statement)).unwrap();
    let third = news(&mut node, &d, &mut state, &accepting);
    assert!(matches!(verdicts(&third).as_slice(), [(true, v)] if v.accepted && v.transaction == settled.transaction), "{third:?}");
    // A client with another opinion.
    for (judges, text) in [(judges(false), "pairing"), (vec![], "doesn't have")] {
        let refused = news(&mut node, &d, &mut State::new(&d), &judges);
        assert!(matches!(verdicts(&refused).as_slice(), [(true, v)] if v.reason.as_ref().is_some_and(|r| r.contains(text))), "{refused:?}");
    }
}

#[test]
fn settlements_are_examined() {
    let statement = statement(3);
    let (mut chain, d) = prepared(&statement);
    settle(&mut chain, &d, &statement, &proof(&statement)).unwrap();
    let id = proof(&statement).request_id();
    let (event, _) = request::settled_event(&mut chain, &d, id).unwrap().unwrap();
    let model = crate::read(&mut chain, d.contracts.models, &crate::abi::ModelRegistry::modelCall { modelId: 1 }).unwrap();
    let judges = judges(true);
    examine(&event, &model, &judges).unwrap();
    for i in 1..INPUTS {
        let mut changed = event.clone();
        changed.publicInputs[i] += U256::from(1);
        let reason = examine(&changed, &model, &judges).unwrap_err();
        // Whatever an input binds shows in it or, for the digests of prompt and tokens, in the challenge.
        let at = if [6, 7].contains(&i) { 8 } else { i };
        assert!(reason.contains(steps::evm_proof::INPUT_NAMES[at]), "{i}: {reason}");
    }
    let mut changed = event.clone();
    changed.weights[0] += U256::from(1);
    assert!(examine(&changed, &model, &judges).is_err());
    changed.weights[0] = event.weights[0] + U256::from((1u64 << 31) - (1 << 24) + 1);
    assert!(examine(&changed, &model, &judges).unwrap_err().contains("out of range"));
    changed.weights.pop();
    changed.weights[0] = U256::ZERO;
    assert!(examine(&changed, &model, &judges).unwrap_err().contains("2 weights"));
}

#[test]
fn a_transaction_that_isnt_included_can_be_sent_again() {
    let Some(anvil) = anvil(&[]) else { return };
    let statement = statement(2);
    let mut node = connect(&anvil, &statement, WAIT);
    let d = devnet::prepare(&mut node, &statement, &raw(), true).unwrap();
    node.development("evm_setAutomine", json!([false])).unwrap();
    let mut hasty = connect(&anvil, &statement, Duration::from_secs(1));
    let sent = settle(&mut hasty, &d, &statement, &proof(&statement)).unwrap_err();
    assert!(sent.message.contains("isn't in a block after 1 s"), "{sent:?}");
    // The same again, before and after its block: one settlement.
    let again = settle(&mut hasty, &d, &statement, &proof(&statement)).unwrap_err();
    assert!(again.message.contains("isn't in a block") || again.message.contains("under way with nonce"), "{again:?}");
    node.development("evm_mine", json!([])).unwrap();
    assert!(settle(&mut node, &d, &statement, &proof(&statement)).unwrap().already);
}

#[test]
fn nodes_and_gas_can_be_missing() {
    let Some(anvil) = anvil(&[]) else { return };
    let statement = statement(2);
    let mut node = connect(&anvil, &statement, WAIT);
    let d = devnet::prepare(&mut node, &statement, &raw(), true).unwrap();
    let deployer = devnet::deployer().address();
    let limited = request::settle(&mut node, deployer, &d, &proof(&statement), &names(&statement), Some(300_000)).unwrap_err();
    assert!(limited.message.contains("InsufficientGas"), "{limited:?}");
    let stranger = devnet::contributor("nobody").address();
    let keyless = request::settle(&mut node, stranger, &d, &proof(&statement), &names(&statement), None).unwrap_err();
    assert!(keyless.message.contains("no private key"), "{keyless:?}");
    let poor = node.add_key(devnet::contributor("nobody"));
    let refused = request::settle(&mut node, poor, &d, &proof(&statement), &names(&statement), None).unwrap_err();
    assert!(refused.message.to_lowercase().contains("pay for") || refused.message.contains("funds"), "{refused:?}");
    drop(anvil);
    let gone = settle(&mut node, &d, &statement, &proof(&statement)).unwrap_err();
    assert!(gone.message.contains("doesn't answer") && gone.hint.is_some(), "{gone:?}");
    assert!(
        matches!(Node::connect("http://user:secret@127.0.0.1:1/token", WAIT), Err(e @ ChainError::Unreachable { .. }) if !e.to_string().contains("secret") && !e.to_string().contains("token"))
    );
}

#[test]
fn other_profiles_models_are_not_registered() {
    let mut native = statement(2);
    let (mut chain, d) = prepared(&native);
    native.profile = Profile::Native;
    let refused = register::register(&mut chain, devnet::deployer().address(), &d.contracts, &native, KEY, 1).unwrap_err();
    assert!(refused.message.contains("native profile"), "{refused:?}");
}

#[test]
fn what_nobody_proves_is_refunded() {
    let Some(anvil) = anvil(&[]) else { return };
    let statement = statement(2);
    let mut node = connect(&anvil, &statement, WAIT);
    let d = devnet::prepare(&mut node, &statement, &raw(), true).unwrap();
    let (payer, id) = (devnet::payer().address(), statement.requests[0].id);
    let early = Failure::from(request::refund(&mut node, payer, &d, id).unwrap_err());
    assert!(early.message.contains("DeadlineNotPassed"), "{early:?}");
    node.development("evm_increaseTime", json!([2 * 86_400])).unwrap();
    node.development("evm_mine", json!([])).unwrap();
    request::refund(&mut node, payer, &d, id).unwrap();
    assert_eq!(request::claimable(&mut node, payer, &d, Asset::Ether).unwrap(), U256::from(devnet::ETHER));
    let late = settle(&mut node, &d, &statement, &proof(&statement)).unwrap_err();
    assert!(late.message.contains("has been refunded"), "{late:?}");
}

#[test]
fn open_pays_too() {
    let statement = statement(2);
    let (mut chain, d) = prepared(&statement);
    let (_, now) = chain.newest().unwrap();
    let owner = devnet::deployer().address();
    let order = Order { model: 1, asset: Asset::Open, amount: 1000, deadline: now + 86_400, conditions: Conditions::default() };
    let service = offer(&mut chain, &d, 1).unwrap().service;
    let escrow = request::escrow(&mut chain, owner, &d, terms(&order, &service)).unwrap();
    let mut paid = statement.clone();
    paid.requests[0].id = escrow.request_id;
    let settled = settle(&mut chain, &d, &paid, &proof(&paid)).unwrap();
    assert_eq!((settled.asset, settled.amount), (Asset::Open, U256::from(1000)));
    assert_eq!(settled.payouts.iter().map(|p| p.amount).sum::<U256>(), U256::from(700));
    assert_eq!(word(&escrow.request_id) >> 253, U256::ZERO);
}
