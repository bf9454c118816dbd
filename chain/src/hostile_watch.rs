//! Nodes that lie or lag to whoever watches settlements.

use crate::deploy::Deployment;
use crate::hostile::{connect, payment};
use crate::node::Node;
use crate::request;
use crate::served::{Reply, Served, Server, chain};
use crate::tests::{Fake, names, proof, raw, statement};
use crate::watch::{Judge, News, State, Verdict, Watch};
use crate::{Chain, ChainError, devnet};
use alloy::primitives::{B256, U256};
use alloy::sol_types::SolEvent;
use serde_json::{Value, json};

/// A chain on which a request of [`statement`] was escrowed and settled, then some more blocks.
fn settled_chain() -> crate::evm::Evm {
    let mut evm = chain();
    let statement = statement(3);
    let d = devnet::prepare(&mut evm, &statement, &raw(), false).unwrap();
    request::settle(&mut evm, devnet::deployer().address(), &d, &proof(&statement), &names(&statement), None).unwrap();
    more_blocks(&mut evm, 3);
    evm
}

fn more_blocks(evm: &mut crate::evm::Evm, count: usize) {
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
        let escrowed = crate::abi::AttributionSettlement::Escrowed::SIGNATURE_HASH;
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
    use crate::abi::AttributionSettlement::{Escrowed, Settled};
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
        let at = steps::evm_proof::INPUT_NAMES.iter().position(|n| *n == name).unwrap();
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
        let settled = logs.iter().find(|l| l["topics"][0] == json!(crate::abi::AttributionSettlement::Settled::SIGNATURE_HASH))?;
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
    let settled = crate::abi::AttributionSettlement::Settled::SIGNATURE_HASH;
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
    use crate::abi::AttributionSettlement::{Refunded, Settled};
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
