//! Nodes that lie, lag, limit or break off, and a client that doesn't lose money or settlements over it.

use super::deploy::{Deployment, RawVerifier, Settings, deploy, deploy_kept};
use super::journal::Journal;
use super::node::{FeeLimits, Node};
use super::rehearsal::rehearse;
use super::request;
use super::served::{Reply, Served, Server, chain};
use super::tests::{Fake, WAIT, names, proof, proof_with, raw, statement};
use super::watch::{Judge, News, State, Verdict, Watch};
use super::{Call, Chain, ChainError, Search, devnet};
use crate::error::Failure;
use alloy::primitives::{Address, B256, U256};
use alloy::sol_types::SolEvent;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(2);

fn connect(server: &Server) -> Node {
    let mut node = Node::connect(&server.url, WAIT).unwrap();
    node.add_key(devnet::deployer());
    node.add_key(devnet::payer());
    node
}

fn refused<T: std::fmt::Debug>(result: Result<T, ChainError>, words: &str) -> ChainError {
    let error = result.unwrap_err();
    assert!(error.to_string().contains(words), "expected {words:?}: {error}");
    error
}

fn payment() -> Call {
    Call { from: devnet::payer().address(), to: Some(Address::repeat_byte(7)), value: U256::from(1), gas: Some(30_000), ..Call::default() }
}

// ---------------------------------------------------------------------------------------------------------------- the connection

#[test]
fn local_addresses_need_no_protocol_and_websockets_are_refused() {
    let server = Server::new(chain);
    let port = server.url.rsplit(':').next().unwrap();
    assert_eq!(Node::connect(&format!("127.0.0.1:{port}"), SHORT).unwrap().chain_id(), devnet::CHAIN_ID);
    let websocket = Node::connect(&server.url.replace("http", "ws"), SHORT).map(|_| ()).unwrap_err();
    assert!(Failure::from(websocket).message.contains("WebSocket (ws://)"));
}

#[test]
fn an_answer_without_end_is_not_read() {
    let server = Server::new(chain);
    let mut node = connect(&server);
    server.twist(|_, _, _| Some(Reply::Endless));
    refused(node.newest(), "longer than 16777216 bytes");
    server.twist(|_, _, _| Some(Reply::error(-32000, &"x".repeat(1 << 20))));
    assert!(node.newest().unwrap_err().to_string().len() < 1000);
    server.twist(|_, _, _| Some(Reply::Http("307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/", String::new())));
    refused(node.newest(), "it redirects");
}

#[test]
fn slowing_down_is_waiting_but_not_for_ever() {
    let server = Server::new(chain);
    let mut node = Node::connect(&server.url, SHORT).unwrap();
    for answer in [
        Reply::Http("429 Too Many Requests\r\nretry-after: 1", "slow down".into()),
        Reply::Http("429 Too Many Requests", String::new()),
        Reply::error(-32005, "project rate exceeded"),
    ] {
        let mut times = 1;
        let start = Instant::now();
        let asked = answer.clone();
        server.twist(move |_, _, _| {
            times -= 1;
            (times >= 0).then(|| asked.clone())
        });
        node.newest().unwrap();
        assert!(start.elapsed() > Duration::from_millis(400), "{answer:?}");
    }
    server.twist(|_, _, _| Some(Reply::Http("429 Too Many Requests", String::new())));
    let start = Instant::now();
    let error = refused(node.newest(), "takes no more requests for now");
    assert!(error.is_transient() && start.elapsed() < SHORT * 2);
    server.twist(|_, _, _| Some(Reply::Http("429 Too Many Requests\r\nretry-after: 86400", String::new())));
    refused(node.newest(), "86400 s from now");
}

// ---------------------------------------------------------------------------------------------------------------- logs

fn found(node: &mut Node, to: u64) -> Result<Vec<u64>, ChainError> {
    let search = Search { address: Address::repeat_byte(9), event: B256::repeat_byte(1), first: None, from: 0, to: Some(to) };
    Ok(node.logs(&search)?.into_iter().map(|f| f.block).collect())
}

fn log(block: u64) -> Value {
    json!({
        "address": Address::repeat_byte(9), "topics": [B256::repeat_byte(1)], "data": "0x", "blockNumber": format!("0x{block:x}"),
        "blockHash": B256::repeat_byte(3), "transactionHash": B256::repeat_byte(4), "transactionIndex": "0x0", "logIndex": "0x0", "removed": false
    })
}

fn range(parameters: &Value) -> (u64, u64) {
    let number = |name: &str| u64::from_str_radix(&parameters[0][name].as_str().unwrap()[2..], 16).unwrap();
    (number("fromBlock"), number("toBlock"))
}

/// A node with a log in every tenth block that takes ranges of `most` blocks and otherwise says `words`.
fn limited(server: &Server, most: u64, answer: fn(u64, u64) -> Reply) {
    server.twist(move |_, method, parameters| {
        let (from, to) = if method == "eth_getLogs" { range(parameters) } else { return None };
        let logs = (from..=to).filter(|b| b % 10 == 0).map(log).collect::<Vec<_>>();
        Some(if to - from < most { Reply::Result(json!(logs)) } else { answer(from, to) })
    });
}

#[test]
fn logs_come_in_ranges_that_the_node_takes() {
    let server = Server::new(chain);
    let all: Vec<u64> = (0..=200).filter(|b| b % 10 == 0).collect();
    type Answer = (u64, fn(u64, u64) -> Reply, usize);
    let answers: [Answer; 5] = [
        (1, |_, _| Reply::error(-32602, "no"), 250),
        (7, |_, _| Reply::error(-32005, "query returned more than 10 results"), 120),
        (25, |_, _| Reply::error(-32600, "eth_getLogs is limited to a 25 block range"), 10),
        (50, |from, _| Reply::error(-32000, &format!("this block range should work: [{from:#x}, {:#x}]", from + 49)), 6),
        (30, |_, _| Reply::Http("413 Payload Too Large", "response too large".into()), 30),
    ];
    for (most, answer, requests) in answers {
        let mut node = connect(&server);
        let before = server.count("eth_getLogs");
        limited(&server, most, answer);
        assert_eq!(found(&mut node, 200).unwrap(), all, "{most}");
        let asked = server.count("eth_getLogs") - before;
        assert!(asked <= requests, "{asked} requests for ranges of {most}");
        // What a node has said once is remembered.
        if most == 25 || most == 50 {
            let before = server.count("eth_getLogs");
            found(&mut node, 200).unwrap();
            assert_eq!(server.count("eth_getLogs") - before, 201usize.div_ceil(most as usize));
        }
    }
    let mut node = connect(&server);
    limited(&server, 0, |_, _| Reply::error(-32602, "never"));
    refused(found(&mut node, 200), "the node refuses: never");
}

#[test]
fn logs_that_were_not_asked_for_are_refused() {
    let server = Server::new(chain);
    let mut node = connect(&server);
    let changes: [(&str, Value, &str); 4] = [
        ("address", json!(Address::ZERO), "asked for those of"),
        ("blockNumber", json!("0xffff"), "a log of block 65535"),
        ("topics", json!([B256::ZERO]), "another event"),
        ("data", json!("0x01"), "two different logs"),
    ];
    for (field, value, words) in changes {
        let mut changed = log(5);
        changed[field] = value;
        server.twist(move |_, method, _| (method == "eth_getLogs").then(|| Reply::Result(json!([log(5), changed]))));
        refused(found(&mut node, 200), words);
    }
    let mut removed = log(5);
    removed["removed"] = json!(true);
    server.twist(move |_, method, _| (method == "eth_getLogs").then(|| Reply::Result(json!([removed, log(7), log(7), log(6)]))));
    assert_eq!(found(&mut node, 200).unwrap(), [6, 7]);
}

// ---------------------------------------------------------------------------------------------------------------- transactions

#[test]
fn a_node_cannot_make_gas_cost_what_it_likes() {
    let server = Server::new(chain);
    let mut node = connect(&server);
    let greedy = |_: &mut Served, method: &str, _: &Value| {
        let history = json!({ "baseFeePerGas": ["0x1"], "gasUsedRatio": [0.5], "oldestBlock": "0x0", "reward": [["0xffffffffffffffffffff"]] });
        (method == "eth_feeHistory").then_some(Reply::Result(history))
    };
    server.twist(greedy);
    let error = refused(node.send(payment()), "more than --max-fee 0.1");
    assert!(Failure::from(error).hint.unwrap().contains("--max-fee"));
    assert_eq!(server.count("eth_sendRawTransaction"), 0);
    // A tip of one's own, and gas that nobody could pay for.
    node.limit_fees(FeeLimits { most: 10_u128.pow(15), tip: Some(1) });
    node.send(payment()).unwrap();
    server.twist(|_, method, _| (method == "eth_estimateGas").then(|| Reply::Result(json!("0xffffffffffffffff"))));
    refused(node.send(Call { gas: None, ..payment() }), "more than --max-fee 0.001");
    // Within the limit, but not twice the base fee.
    node.limit_fees(FeeLimits { most: 40_000 * 1_000_000_000, tip: Some(1) });
    server.honest();
    node.send(payment()).unwrap();
}

#[test]
fn transactions_that_arent_taken_have_messages_of_their_own() {
    let server = Server::new(chain);
    let mut node = connect(&server);
    let answers = [
        ("replacement transaction underpriced", "replacing it would need a higher fee", "nothing was replaced"),
        ("transaction underpriced: gas tip cap 1, minimum needed 30", "takes no transaction for so low a fee", "--priority-fee"),
        ("transaction type not supported", "has no base fee (EIP-1559)", "London"),
        ("insufficient funds for gas * price + value", "can't pay", "send ether"),
    ];
    for (says, words, hint) in answers {
        server.twist(move |_, method, _| (method == "eth_sendRawTransaction").then(|| Reply::error(-32000, says)));
        let failure = Failure::from(refused(node.send(payment()), words));
        assert!(failure.hint.as_deref().unwrap_or("").contains(hint), "{failure:?}");
    }
    server.twist(|node, method, parameters| {
        let Reply::Result(mut block) = node.honest(method, parameters) else { return None };
        block.as_object_mut()?.remove("baseFeePerGas")?;
        Some(Reply::Result(block))
    });
    refused(node.send(payment()), "has no base fee (EIP-1559)");
}

#[test]
fn what_is_under_way_is_not_replaced() {
    let server = Server::new(chain);
    let mut node = connect(&server);
    server.twist(|_, method, parameters| (method == "eth_getTransactionCount" && parameters[1] == "pending").then(|| Reply::Result(json!("0x2"))));
    let error = refused(node.send(payment()), "is under way with nonce 0: 2 not in a block yet");
    assert!(Failure::from(error).hint.unwrap().contains("nothing was replaced"));
    assert_eq!(server.count("eth_sendRawTransaction"), 0);
}

#[test]
fn a_nonce_that_lags_is_not_used_twice() {
    let server = Server::new(chain);
    let mut node = connect(&server);
    server.twist(|_, method, _| (method == "eth_getTransactionCount").then(|| Reply::Result(json!("0x0"))));
    node.send(payment()).unwrap();
    node.send(payment()).unwrap();
    server.honest();
    assert_eq!(node.nonce(devnet::payer().address()).unwrap(), 2);
}

// ---------------------------------------------------------------------------------------------------------------- deploying

fn settings() -> Settings {
    Settings::standard(devnet::deployer().address())
}

fn deploy_at(server: &Server, out: &Path, raw: &RawVerifier) -> Result<Deployment, ChainError> {
    let mut node = Node::connect(&server.url, Duration::from_millis(500)).unwrap();
    let from = node.add_key(devnet::deployer());
    let mut journal = Journal::beside(out).unwrap();
    deploy_kept(&mut node, from, raw, &settings(), &mut journal)
}

#[test]
fn a_deployment_goes_on_where_it_broke_off() {
    let expected = deploy(&mut chain(), devnet::deployer().address(), &raw(), &settings()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for taken in [false, true] {
        let server = Server::new(chain);
        let out = directory.path().join(format!("{taken}.json"));
        let mut attempts = 0;
        let deployment = loop {
            attempts += 1;
            // Every attempt gets one transaction further: the next one is lost, or taken without an answer, and then the node is gone.
            let (mut sent, mut gone) = (0, false);
            server.twist(move |node, method, parameters| {
                if method == "eth_sendRawTransaction" && !gone {
                    sent += 1;
                    gone = sent > 1;
                    if gone && taken {
                        node.honest(method, parameters);
                    }
                }
                gone.then_some(Reply::Gone)
            });
            match deploy_at(&server, &out, &raw()) {
                Ok(deployment) => break deployment,
                Err(error) => assert!(matches!(error, ChainError::Unconfirmed { .. } | ChainError::Unreachable { .. }), "{error}"),
            }
            server.honest();
            let journal = Journal::beside(&out).unwrap();
            assert!(journal.steps() > 0 && journal.steps() < 12, "{}", journal.steps());
            // Another verifier isn't deployed half-way into this one's place.
            if attempts == 6 {
                let other = RawVerifier { code: [&raw().code[..], &[0]].concat().into(), ..raw() };
                refused(deploy_at(&server, &out, &other), "it deploys something else");
            }
        };
        assert_eq!(deployment.contracts, expected.contracts);
        let mut node = connect(&server);
        assert_eq!(node.nonce(devnet::deployer().address()).unwrap(), 9, "every contract was paid for once");
        assert!(attempts > 4, "{attempts}");
        assert_eq!(deploy_at(&server, &out, &raw()).unwrap().contracts, expected.contracts);
        assert_eq!(node.nonce(devnet::deployer().address()).unwrap(), 9);
        Journal::beside(&out).unwrap().close();
        assert_eq!(Journal::beside(&out).unwrap().steps(), 0);
    }
}

#[test]
fn a_deployment_notices_what_else_its_key_has_sent() {
    let server = Server::new(chain);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("deployment.json");
    server.twist(|_, method, _| (method == "eth_sendRawTransaction").then_some(Reply::Gone));
    deploy_at(&server, &out, &raw()).unwrap_err();
    server.honest();
    server.act(|node| {
        node.evm.send(Call { from: devnet::deployer().address(), value: U256::ZERO, ..payment() }).unwrap();
    });
    refused(deploy_at(&server, &out, &raw()), "used it for something else");
    let elsewhere = Server::new(|| super::evm::Evm::new(1, 0));
    refused(deploy_at(&elsewhere, &out, &raw()), "it is of chain 31337, not 1");
}

#[test]
fn a_deployment_for_too_low_a_fee_can_go_on_for_a_higher_one() {
    let server = Server::new(chain);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("deployment.json");
    let mut sent = 0;
    server.twist(move |_, method, _| {
        sent += u64::from(method == "eth_sendRawTransaction");
        (sent == 3).then(|| Reply::error(-32000, "transaction underpriced"))
    });
    refused(deploy_at(&server, &out, &raw()), "so low a fee");
    // The one that was kept is refused once more, and signed anew.
    let mut refusals = 0;
    server.twist(move |_, method, _| {
        refusals += u64::from(method == "eth_sendRawTransaction");
        (method == "eth_sendRawTransaction" && refusals == 1).then(|| Reply::error(-32000, "transaction underpriced"))
    });
    deploy_at(&server, &out, &raw()).unwrap();
    assert_eq!(connect(&server).nonce(devnet::deployer().address()).unwrap(), 9);
}

#[test]
fn verifiers_are_tried_before_they_are_deployed() {
    let good = proof(&statement(3));
    rehearse(&raw(), &good).unwrap();
    // Creation code of a contract that does nothing, and of one that always fails.
    let accepting = RawVerifier { code: vec![0x60, 0x01, 0x5f, 0xf3].into(), ..raw() };
    let refusing = RawVerifier { code: vec![0x60, 0xfe, 0x5f, 0x53, 0x60, 0x01, 0x5f, 0xf3].into(), ..raw() };
    for (verifier, words) in [(accepting, "accepts a tampered proof"), (refusing, "refuses a good proof")] {
        let failure = rehearse(&verifier, &good).unwrap_err();
        assert!(failure.message.contains(words), "{failure:?}");
    }
    assert!(rehearse(&raw(), &proof_with(&statement(3), 2)).is_err());
    let other = RawVerifier { key_digest: Default::default(), ..raw() };
    assert!(rehearse(&other, &good).unwrap_err().message.contains("the proof is of key"));
}

// ---------------------------------------------------------------------------------------------------------------- watching

/// A chain on which a request of [`statement`] was escrowed and settled, then some more blocks.
fn settled_chain() -> super::evm::Evm {
    let mut evm = chain();
    let statement = statement(3);
    let d = devnet::prepare(&mut evm, &statement, &raw(), false).unwrap();
    request::settle(&mut evm, devnet::deployer().address(), &d, &proof(&statement), &names(&statement), None).unwrap();
    more_blocks(&mut evm, 3);
    evm
}

fn more_blocks(evm: &mut super::evm::Evm, count: usize) {
    (0..count).for_each(|_| {
        evm.send(payment()).unwrap();
    });
}

fn deployed() -> Deployment {
    devnet::prepare(&mut chain(), &statement(3), &raw(), false).unwrap()
}

struct Watched {
    server: Server,
    node: Node,
    d: Deployment,
    state: State,
    judges: Vec<Box<dyn Judge>>,
}

impl Watched {
    fn new() -> Self {
        let server = Server::new(settled_chain);
        let (node, d) = (connect(&server), deployed());
        let state = State::new(&d);
        Self { server, node, d, state, judges: vec![Box::new(Fake(true))] }
    }

    fn look(&mut self) -> Result<Vec<News>, ChainError> {
        Ok(Watch::new(&mut self.node, &self.d, &self.judges).step(&mut self.state, 0)?.0)
    }

    /// The only settlement of a look.
    fn verdict(&mut self) -> Verdict {
        match self.look().unwrap().as_slice() {
            [News::Settlement(verdict)] => verdict.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn logs_that_lag_behind_the_head_are_not_missed() {
    let mut w = Watched::new();
    w.server.twist(|_, method, _| (method == "eth_getLogs").then(|| Reply::Result(json!([]))));
    assert_eq!(w.look().unwrap(), []);
    assert!(w.state.next > 10);
    w.server.honest();
    assert!(w.verdict().accepted);
    // Once.
    assert_eq!(w.look().unwrap(), []);
    assert_eq!(w.state.totals(), (1, 0));
}

#[test]
fn logs_that_lag_behind_for_long_are_found_through_the_contract() {
    let mut w = Watched::new();
    // The escrow is seen, the settlement isn't, and then a thousand blocks follow.
    w.server.twist(|node, method, parameters| {
        let escrowed = super::abi::AttributionSettlement::Escrowed::SIGNATURE_HASH;
        let logs = if method == "eth_getLogs" { node.logs(&parameters[0]) } else { return None };
        Some(Reply::Result(json!(logs.into_iter().filter(|l| l["topics"][0] == json!(escrowed)).collect::<Vec<_>>())))
    });
    assert_eq!(w.look().unwrap(), []);
    w.server.act(|node| more_blocks(&mut node.evm, 1000));
    assert_eq!(w.look().unwrap(), []);
    w.server.honest();
    assert!(w.verdict().accepted);
    assert_eq!(w.look().unwrap(), []);
    assert_eq!(w.state.totals(), (1, 0));
}

#[test]
fn a_node_that_is_behind_is_no_reorganisation() {
    let mut w = Watched::new();
    w.verdict();
    let newest = w.state.next - 1;
    w.server.twist(move |_, method, parameters| {
        (method == "eth_getBlockByNumber" && parameters[0] == format!("0x{newest:x}")).then_some(Reply::Result(Value::Null))
    });
    let error = w.look().unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("behind"), "{error}");
    w.server.twist(|_, method, _| (method == "eth_getLogs").then(|| Reply::error(-32000, "block range extends beyond current head block")));
    assert!(w.look().unwrap_err().is_transient());
    w.server.honest();
    assert_eq!(w.look().unwrap(), []);
    // Another branch is one.
    w.server.act(|node| node.fork = 1);
    let news = w.look().unwrap();
    assert!(matches!(news.as_slice(), [News::Withdrawn(_), News::Settlement(v)] if v.accepted), "{news:?}");
    assert_eq!(w.state.totals(), (1, 0));
}

/// Whether the settlement is accepted by one whose node changes logs of an event.
fn with_changed_logs(event: B256, change: impl Fn(&mut Vec<Value>) + Send + 'static) -> Verdict {
    let mut w = Watched::new();
    w.server.twist(move |node, method, parameters| {
        let logs = if method == "eth_getLogs" { node.logs(&parameters[0]) } else { return None };
        let (mut of_event, mut logs): (Vec<Value>, Vec<Value>) = logs.into_iter().partition(|l| l["topics"][0] == json!(event));
        if !of_event.is_empty() {
            change(&mut of_event);
        }
        logs.extend(of_event);
        Some(Reply::Result(json!(logs)))
    });
    w.verdict()
}

/// Flips the lowest bit of a word of a log's data.
fn flip(log: &mut Value, word: usize) {
    let mut data = log["data"].as_str().unwrap().to_owned();
    let at = 2 + 64 * word + 63;
    let digit = u8::from_str_radix(&data[at..=at], 16).unwrap() ^ 1;
    data.replace_range(at..=at, &format!("{digit:x}"));
    log["data"] = json!(data);
}

#[test]
fn settlements_are_compared_with_what_was_paid_for() {
    use super::abi::AttributionSettlement::{Escrowed, Settled};
    let rejected = |verdict: Verdict, words: &str| {
        let reason = verdict.reason.unwrap_or_default();
        assert!(!verdict.accepted && reason.contains(words), "expected {words:?}: {reason}");
    };
    assert!(with_changed_logs(Escrowed::SIGNATURE_HASH, |_| ()).accepted);
    rejected(with_changed_logs(Escrowed::SIGNATURE_HASH, Vec::clear), "nothing was escrowed");
    // The nonce and any of the terms are in the request's id, and the verifier is among them.
    for word in 0..12 {
        rejected(with_changed_logs(Escrowed::SIGNATURE_HASH, move |logs| flip(&mut logs[0], word)), "nothing was escrowed");
    }
    rejected(with_changed_logs(Settled::SIGNATURE_HASH, |logs| logs[0]["topics"][2] = json!(B256::with_last_byte(2))), "it is of model 2");
    for name in ["prompt digest", "token digest"] {
        let at = crate::evm_proof::INPUT_NAMES.iter().position(|n| *n == name).unwrap();
        rejected(with_changed_logs(Settled::SIGNATURE_HASH, move |logs| flip(&mut logs[0], at)), &format!("its {name} is"));
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut w = Watched::new();
    let seen = w.verdict();
    // A node that invents settlements.
    w.server.twist(|node, method, parameters| {
        let logs = if method == "eth_getLogs" { node.logs(&parameters[0]) } else { return None };
        let settled = logs.iter().find(|l| l["topics"][0] == json!(super::abi::AttributionSettlement::Settled::SIGNATURE_HASH))?;
        let copies = (0..10_000u64).map(|i| {
            let mut copy = settled.clone();
            (copy["data"], copy["logIndex"]) = (json!("0x"), json!(format!("0x{:x}", i + 100)));
            copy["topics"][1] = json!(B256::from(U256::from(i)));
            copy
        });
        let copies: Vec<Value> = copies.collect();
        Some(Reply::Result(json!([logs, copies].concat())))
    });
    assert_eq!(w.look().unwrap().len(), 10_000);
    let size = serde_json::to_vec(&w.state).unwrap().len();
    assert!(size < 4 << 20, "{size} bytes");
    assert_eq!(w.state.totals(), (1, 10_000));
    assert_eq!(w.look().unwrap(), []);
    assert_eq!(w.state.totals(), (1, 10_000), "nothing is counted twice");
    // What was only counted is read again when it may be gone.
    w.server.honest();
    w.server.act(move |node| node.fork = seen.block);
    let news = w.look().unwrap();
    assert!(matches!(news.last(), Some(News::Settlement(v)) if v.request_id == seen.request_id), "{news:?}");
    assert_eq!(w.state.totals(), (1, 0));
}

/// The settlement's logs without those of one event.
fn logs_without(node: &mut Served, filter: &Value, event: B256) -> Reply {
    Reply::Result(json!(node.logs(filter).into_iter().filter(|l| l["topics"][0] != json!(event)).collect::<Vec<_>>()))
}

#[test]
fn a_contract_that_settles_in_silence_is_found_out() {
    let mut w = Watched::new();
    let settled = super::abi::AttributionSettlement::Settled::SIGNATURE_HASH;
    w.server.twist(move |node, method, parameters| (method == "eth_getLogs").then(|| logs_without(node, &parameters[0], settled)));
    assert_eq!(w.look().unwrap(), []);
    w.server.act(|node| more_blocks(&mut node.evm, 30));
    assert_eq!(w.look().unwrap(), [], "the logs may lag");
    w.server.act(|node| more_blocks(&mut node.evm, 40));
    (2..7).for_each(|look| assert_eq!(w.look().unwrap(), [], "look {look}"));
    let verdict = w.verdict();
    let reason = verdict.reason.unwrap();
    assert!(!verdict.accepted && reason.contains("no event says how"), "{reason}");
    assert_eq!(w.look().unwrap(), [], "it is said once");
    assert_eq!(w.state.totals(), (0, 1));
    // A report of a block that is gone is made again.
    let last = w.state.next - 1;
    w.server.act(move |node| node.fork = last);
    assert!(matches!(w.look().unwrap().as_slice(), [News::Withdrawn(_)]));
    w.server.act(|node| more_blocks(&mut node.evm, 70));
    (1..7).for_each(|look| assert_eq!(w.look().unwrap(), [], "look {look}"));
    assert!(!w.verdict().accepted);
    // Logs that come after all are judged as ever.
    w.server.honest();
    assert!(w.verdict().accepted);
}

/// Settlements in blocks that aren't read yet are no silence, however many looks and blocks that takes.
#[test]
fn what_is_settled_after_the_blocks_read_is_not_silent() {
    let server = Server::new(|| {
        let (mut evm, statement) = (chain(), statement(3));
        let d = devnet::prepare(&mut evm, &statement, &raw(), false).unwrap();
        more_blocks(&mut evm, 200);
        request::settle(&mut evm, devnet::deployer().address(), &d, &proof(&statement), &names(&statement), None).unwrap();
        evm
    });
    let mut w = Watched { node: connect(&server), server, ..Watched::new() };
    for look in 0..20 {
        let news = Watch::new(&mut w.node, &w.d, &w.judges).step(&mut w.state, 150).unwrap().0;
        match news.as_slice() {
            [] => w.server.act(|node| more_blocks(&mut node.evm, 10)),
            [News::Settlement(verdict)] => return assert!(verdict.accepted && look > 10, "{look}: {verdict:?}"),
            other => panic!("{look}: {other:?}"),
        }
    }
    panic!("not seen");
}

#[test]
fn the_key_that_was_paid_for_is_the_models() {
    let mut w = Watched::new();
    let models = w.d.contracts.models;
    // The registry's entry has another key than the terms, and than any honest registry under these terms.
    let key = hex_of(raw().key_digest.0);
    w.server.twist(move |node, method, parameters| {
        if method != "eth_call" || parameters[0]["to"] != json!(models) {
            return None;
        }
        let Reply::Result(Value::String(answer)) = node.honest(method, parameters) else { return None };
        assert!(answer.contains(&key), "{answer}");
        Some(Reply::Result(json!(answer.replace(&key, &"18".repeat(32)))))
    });
    let verdict = w.verdict();
    let reason = verdict.reason.unwrap();
    assert!(!verdict.accepted && reason.contains("the model's key is") && reason.contains("was paid for"), "{reason}");
}

fn hex_of(bytes: [u8; 32]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What ended before what is remembered has ended all the same.
#[test]
fn a_request_that_ended_long_ago_is_not_settled_again() {
    use super::abi::AttributionSettlement::{Refunded, Settled};
    for ended_by in [Settled::SIGNATURE_HASH, Refunded::SIGNATURE_HASH] {
        let mut w = Watched::new();
        let first = w.verdict();
        (w.state.escrows, w.state.settlements, w.state.counted_to) = (vec![], vec![], first.block + 1);
        // The node tells of a second settlement, two blocks after the request was settled or refunded.
        w.server.twist(move |node, method, parameters| {
            let filter = if method == "eth_getLogs" { &parameters[0] } else { return None };
            let mut whole = filter.clone();
            whole["fromBlock"] = json!("0x0");
            let mut logs = node.logs(&whole);
            let mut second = logs.iter().find(|l| l["topics"][0] == json!(Settled::SIGNATURE_HASH))?.clone();
            second["blockNumber"] = json!(format!("0x{:x}", first.block + 2));
            second["logIndex"] = json!("0x63");
            for log in logs.iter_mut().filter(|l| l["topics"][0] == json!(Settled::SIGNATURE_HASH)) {
                log["topics"][0] = json!(ended_by);
            }
            logs.push(second);
            let number = |value: &Value| u64::from_str_radix(&value.as_str().unwrap()[2..], 16).unwrap();
            let (from, to) = (number(&filter["fromBlock"]), number(&filter["toBlock"]));
            logs.retain(|l| (from..=to).contains(&number(&l["blockNumber"])));
            Some(Reply::Result(json!(logs)))
        });
        let again = w.verdict();
        let reason = again.reason.unwrap();
        assert!(again.block == first.block + 2 && reason.contains("had been settled or refunded before"), "{reason}");
    }
}
