//! Nodes that lie, lag, limit or break off, and a client that doesn't lose money or settlements over it.

use crate::deploy::{Deployment, RawVerifier, Settings, deploy, deploy_kept};
use crate::journal::Journal;
use crate::node::{FeeLimits, Node};
use crate::rehearsal::rehearse;
use crate::served::{Reply, Served, Server, chain};
use crate::tests::{WAIT, proof, proof_with, raw, statement};
use crate::{Call, Chain, ChainError, Search, devnet};
use alloy::primitives::{Address, B256, U256};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use steps::error::Failure;

const SHORT: Duration = Duration::from_secs(2);

pub(super) fn connect(server: &Server) -> Node {
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

pub(super) fn payment() -> Call {
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
    let elsewhere = Server::new(|| crate::evm::Evm::new(1, 0));
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
