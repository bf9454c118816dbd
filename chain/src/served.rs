//! A JSON-RPC server on the loopback, for tests: an honest node over the EVM in process, and whatever a test makes of it.

use crate::evm::Evm;
use crate::{Call, Chain, ChainError, Receipt, Search, devnet};
use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a node answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A result.
    Result(Value),
    /// An error object.
    Error(Value),
    /// A whole HTTP answer: status line and headers, body.
    Http(&'static str, String),
    /// Bytes without end.
    Endless,
    /// Nothing: the connection is closed.
    Gone,
}

impl Reply {
    /// An error with a code and words.
    pub fn error(code: i64, message: &str) -> Self {
        Self::Error(json!({ "code": code, "message": message }))
    }
}

/// Looks at a request before the honest node does; what it returns is the answer.
pub type Twist = Box<dyn FnMut(&mut Served, &str, &Value) -> Option<Reply> + Send>;

/// The honest node.
pub struct Served {
    /// Its chain.
    pub evm: Evm,
    /// Blocks from this one on have hashes of another branch.
    pub fork: u64,
    mined: BTreeMap<B256, (Receipt, Address)>,
}

impl Served {
    fn head(&mut self) -> u64 {
        self.evm.newest().map_or(0, |(number, _)| number)
    }

    /// A block's hash.
    fn hash(&self, number: u64) -> B256 {
        keccak256([number, u64::from(number >= self.fork && self.fork > 0)].map(u64::to_be_bytes).concat())
    }

    fn block(&mut self, tag: &Value) -> Value {
        let (head, time) = self.evm.newest().unwrap();
        let number = tag.as_str().and_then(|t| t.strip_prefix("0x")).map_or(head, |hex| u64::from_str_radix(hex, 16).unwrap());
        if number > head {
            return Value::Null;
        }
        let zero = B256::ZERO;
        json!({
            "number": hex(number), "hash": self.hash(number), "parentHash": zero, "sha3Uncles": zero, "miner": Address::ZERO, "stateRoot": zero,
            "transactionsRoot": zero, "receiptsRoot": zero, "logsBloom": format!("0x{}", "00".repeat(256)), "difficulty": "0x0",
            "gasLimit": "0x1c9c380", "gasUsed": "0x0", "timestamp": hex(time), "extraData": "0x", "mixHash": zero, "nonce": "0x0000000000000000",
            "baseFeePerGas": "0x3b9aca00", "size": "0x1", "transactions": [], "uncles": []
        })
    }

    /// Logs as JSON, of all events that a filter names.
    pub fn logs(&mut self, filter: &Value) -> Vec<Value> {
        let number = |name: &str| u64::from_str_radix(filter[name].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        let address: Address = serde_json::from_value(list(&filter["address"])[0].clone()).unwrap();
        let first: Option<B256> = serde_json::from_value(list(&filter["topics"][1])[0].clone()).unwrap();
        let (from, to) = (number("fromBlock"), Some(number("toBlock")));
        let mut all = vec![];
        for event in list(&filter["topics"][0]) {
            let event: B256 = serde_json::from_value(event).unwrap();
            all.extend(self.evm.logs(&Search { address, event, first, from, to }).unwrap());
        }
        all.sort_by_key(crate::Found::place);
        let place = |f: &crate::Found| {
            json!({
                "address": f.log.address, "topics": f.log.topics(), "data": f.log.data.data, "blockNumber": hex(f.block),
                "blockHash": self.hash(f.block), "transactionHash": f.transaction, "transactionIndex": "0x0", "logIndex": hex(f.index), "removed": false
            })
        };
        all.iter().map(place).collect()
    }

    fn send(&mut self, raw: &Value) -> Reply {
        let bytes: Bytes = serde_json::from_value(raw.clone()).unwrap();
        let transaction = TxEnvelope::decode_2718(&mut bytes.as_ref()).unwrap();
        let from = transaction.signature().recover_address_from_prehash(&transaction.signature_hash()).unwrap();
        let hash = *transaction.tx_hash();
        if self.mined.contains_key(&hash) {
            return Reply::error(-32000, "already known");
        }
        if transaction.nonce() != self.evm.nonce(from).unwrap() {
            return Reply::error(-32000, "nonce too low");
        }
        let (value, data, gas) = (transaction.value(), transaction.input().clone(), Some(transaction.gas_limit()));
        match self.evm.send(Call { from, to: transaction.to(), value, data, gas }) {
            Ok(receipt) => {
                self.mined.insert(hash, (receipt, from));
                Reply::Result(json!(hash))
            }
            Err(error) => Reply::error(-32000, &error.to_string()),
        }
    }

    fn receipt(&self, hash: &Value) -> Value {
        let hash: B256 = serde_json::from_value(hash.clone()).unwrap();
        let Some((receipt, from)) = self.mined.get(&hash) else { return Value::Null };
        let number = hex(receipt.block);
        let logs = receipt.logs.iter().enumerate().map(|(i, log)| {
            json!({
                "address": log.address, "topics": log.topics(), "data": log.data.data, "blockNumber": number, "blockHash": self.hash(receipt.block),
                "transactionHash": hash, "transactionIndex": "0x0", "logIndex": hex(i as u64), "removed": false
            })
        });
        json!({
            "type": "0x2", "status": "0x1", "cumulativeGasUsed": hex(receipt.gas_used), "gasUsed": hex(receipt.gas_used), "effectiveGasPrice": "0x1",
            "logsBloom": format!("0x{}", "00".repeat(256)), "logs": logs.collect::<Vec<_>>(), "transactionHash": hash, "transactionIndex": "0x0",
            "blockHash": self.hash(receipt.block), "blockNumber": number, "from": from, "to": null, "contractAddress": receipt.created
        })
    }

    fn call(&mut self, request: &Value) -> Result<Bytes, ChainError> {
        let data: Bytes = serde_json::from_value(request.get("input").or(request.get("data")).cloned().unwrap_or(json!("0x"))).unwrap();
        let from = request.get("from").map_or(Address::ZERO, |a| serde_json::from_value(a.clone()).unwrap());
        let to = request.get("to").and_then(|a| serde_json::from_value(a.clone()).unwrap());
        let value: U256 = request.get("value").map_or(U256::ZERO, |v| serde_json::from_value(v.clone()).unwrap());
        self.evm.call(&Call { from, to, value, data, gas: None })
    }

    /// What an honest node answers.
    pub fn honest(&mut self, method: &str, parameters: &Value) -> Reply {
        let account = || serde_json::from_value::<Address>(parameters[0].clone()).unwrap();
        Reply::Result(match method {
            "eth_chainId" => json!(hex(self.evm.chain_id())),
            "eth_blockNumber" => json!(hex(self.head())),
            "eth_getBlockByNumber" => self.block(&parameters[0]),
            "eth_getTransactionCount" => json!(hex(self.evm.nonce(account()).unwrap())),
            "eth_getBalance" => json!(self.evm.balance(account()).unwrap()),
            "eth_getCode" => json!(self.evm.code(account()).unwrap()),
            "eth_getLogs" => json!(self.logs(&parameters[0])),
            "eth_estimateGas" => json!(hex(8_000_000)),
            "eth_feeHistory" => {
                json!({ "baseFeePerGas": ["0x3b9aca00", "0x3b9aca00"], "gasUsedRatio": [0.5], "oldestBlock": "0x0", "reward": [["0x5"]] })
            }
            "eth_getTransactionReceipt" => self.receipt(&parameters[0]),
            "eth_sendRawTransaction" => return self.send(&parameters[0]),
            "eth_call" => match self.call(&parameters[0]) {
                Ok(bytes) => json!(bytes),
                Err(ChainError::Reverted { data }) => {
                    return Reply::Error(json!({ "code": 3, "message": "execution reverted", "data": Bytes::from(data) }));
                }
                Err(error) => return Reply::error(-32000, &error.to_string()),
            },
            _ => return Reply::error(-32601, "the method does not exist"),
        })
    }
}

fn hex(number: u64) -> String {
    format!("0x{number:x}")
}

/// Done to the node before it answers the next request.
type Act = Box<dyn FnOnce(&mut Served) + Send>;

/// What a test and the server's thread share; the EVM stays in that thread.
#[derive(Default)]
struct Shared {
    /// Methods that were asked, oldest first.
    asked: Vec<String>,
    acts: Vec<Act>,
    twist: Option<Twist>,
}

/// A server that goes on until the test's process ends.
pub struct Server {
    /// Where it listens.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

/// A development chain with money for the payer.
pub fn chain() -> Evm {
    let mut evm = Evm::new(devnet::CHAIN_ID, devnet::START);
    evm.give(devnet::payer().address(), U256::from(10 * devnet::ETHER));
    evm
}

impl Server {
    /// An honest node over a chain.
    pub fn new(chain: impl FnOnce() -> Evm + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let theirs = shared.clone();
        std::thread::spawn(move || {
            let mut node = Served { evm: chain(), fork: 0, mined: BTreeMap::new() };
            for stream in listener.incoming().flatten() {
                // A client that goes away is no failure of the server's.
                let _ = serve(stream, &mut node, &theirs);
            }
        });
        Self { url, shared }
    }

    /// From now on a test's own answers come first.
    pub fn twist(&self, twist: impl FnMut(&mut Served, &str, &Value) -> Option<Reply> + Send + 'static) {
        self.shared.lock().unwrap().twist = Some(Box::new(twist));
    }

    /// Only honest answers from now on.
    pub fn honest(&self) {
        self.shared.lock().unwrap().twist = None;
    }

    /// Does something to the node, before its next answer.
    pub fn act(&self, act: impl FnOnce(&mut Served) + Send + 'static) {
        self.shared.lock().unwrap().acts.push(Box::new(act));
    }

    /// How often a method was asked.
    pub fn count(&self, method: &str) -> usize {
        self.shared.lock().unwrap().asked.iter().filter(|m| *m == method).count()
    }
}

fn serve(mut stream: TcpStream, node: &mut Served, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request: Value = serde_json::from_slice(&body)?;
    let (method, parameters) = (request["method"].as_str().unwrap_or_default(), &request["params"]);
    let twisted = {
        let mut shared = shared.lock().unwrap();
        shared.asked.push(method.to_owned());
        std::mem::take(&mut shared.acts).into_iter().for_each(|act| act(node));
        shared.twist.as_mut().and_then(|twist| twist(node, method, parameters))
    };
    let reply = twisted.unwrap_or_else(|| node.honest(method, parameters));
    let answer = |part: &str, value: Value| json!({ "jsonrpc": "2.0", "id": request["id"], part: value }).to_string();
    let (head, body) = match reply {
        Reply::Result(value) => ("200 OK", answer("result", value)),
        Reply::Error(value) => ("200 OK", answer("error", value)),
        Reply::Http(head, body) => (head, body),
        Reply::Gone => return Ok(()),
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 1 << 16])?;
            }
        }
    };
    write!(stream, "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
