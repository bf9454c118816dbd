//! The real proof of `contracts/test/vectors/proof-demo.json`, settled on the EVM in process and on anvil, and judged by the light client.
//!
//! It was made for the request id of a fresh development chain, so it settles there without being proven again.

use crate::deploy::{RawVerifier, VERIFIER_GAS, bytecode};
use crate::evm::Evm;
use crate::judges;
use crate::node::Node;
use crate::rehearsal::rehearse;
use crate::request::{self, Conditions, Settlement};
use crate::watch::examine;
use crate::{Chain, devnet, fixture, read};
use alloy::primitives::{B256, Bytes, U256};
use circuits::statement::{Digest, IndexStatement, Statement, TokenDigests, Tokens};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use steps::evm_proof::{EvmProof, FORMAT, Hex, SrsMark};
use steps::store::read_json;

/// Most gas of a settlement with up to 16 contributors, verification included.
const GAS_TARGET: u64 = 600_000;

#[derive(Deserialize)]
struct Vector {
    raw_verifier_artifact: String,
    key_digest: B256,
    gas_limit: u64,
    index: VectorIndex,
    public_inputs: [B256; 10],
    weights: Vec<u64>,
    proof: Bytes,
}

#[derive(Deserialize)]
struct VectorIndex {
    commitment: B256,
    base: B256,
    adapter: B256,
    datanet_root: B256,
    datanet_version: u64,
    contributors: Vec<String>,
}

fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A proof with what has to be on chain for it.
struct Recorded {
    statement: Statement,
    proof: EvmProof,
    raw: RawVerifier,
}

fn recorded() -> Recorded {
    let vector: Vector = read_json(&in_tree("contracts/test/vectors/proof-demo.json")).unwrap();
    let code = bytecode(&in_tree("contracts").join(&vector.raw_verifier_artifact)).unwrap();
    let (key_digest, proof_bytes) = (Digest(vector.key_digest.0), vector.proof.len());
    let raw = RawVerifier { code, key_digest, proof_bytes, insecure_srs: true, gas_limit: vector.gas_limit };
    let proof = EvmProof {
        format: FORMAT.into(),
        key_digest,
        proof_bytes,
        srs: SrsMark { digest: Digest::default(), insecure: true },
        public_inputs: vector.public_inputs.map(|word| Digest(word.0)),
        weights: vector.weights,
        proof: Hex(vector.proof.to_vec()),
    };
    let statement = statement(vector.index, &proof);
    Recorded { statement, proof, raw }
}

/// As much of the proof's statement as the chain is told: the model, and who contributed.
fn statement(index: VectorIndex, proof: &EvmProof) -> Statement {
    let mut statement = fixture::statement(index.contributors.len(), proof.public_inputs[5]);
    let [commitment, base, adapter, datanet_root] = [index.commitment, index.base, index.adapter, index.datanet_root].map(|word| Digest(word.0));
    let (datanet_version, contributors) = (index.datanet_version, index.contributors);
    (statement.base, statement.adapter) = (base, Some(adapter));
    let [prompt, exchange] = [proof.public_inputs[6], proof.public_inputs[7]];
    statement.requests[0].tokens = Tokens::Digests(TokenDigests { prompt, exchange });
    statement.index = Some(IndexStatement { commitment, base, adapter, datanet_root, datanet_version, contributors });
    statement
}

/// Contracts, model and payment, then the proof, on a fresh chain.
fn settle(chain: &mut impl Chain, r: &Recorded, gas_money: bool) -> Settlement {
    let owner = devnet::deployer().address();
    let d = devnet::prepare(chain, &r.statement, &r.raw, gas_money).unwrap();
    let names = &r.statement.index.as_ref().unwrap().contributors;
    let settled = request::settle(chain, owner, &d, &r.proof, names, None).unwrap();
    let (event, _) = request::settled_event(chain, &d, r.proof.request_id()).unwrap().unwrap();
    let model = read(chain, d.contracts.models, &crate::abi::ModelRegistry::modelCall { modelId: event.modelId }).unwrap();
    examine(&event, &model, &judges::load(&[in_tree("assets/demo/outer.vk")]).unwrap()).unwrap();
    request::collect(chain, owner, &d, &r.proof).unwrap();
    for payout in &settled.payouts {
        assert_eq!(request::claimable(chain, payout.account, &d, settled.asset).unwrap(), payout.amount, "{}", payout.contributor);
    }
    settled
}

fn settle_in_process(r: &Recorded) -> Settlement {
    let mut chain = Evm::new(devnet::CHAIN_ID, devnet::START);
    chain.give(devnet::payer().address(), U256::from(2 * devnet::ETHER));
    settle(&mut chain, r, false)
}

#[test]
fn the_first_settlement_of_a_chain_stays_within_the_target() {
    let r = recorded();
    assert_eq!(r.raw.gas_limit, VERIFIER_GAS);
    let paid = Conditions { prompt: r.proof.public_inputs[6], ..Conditions::default() };
    assert_eq!(r.proof.public_inputs[5], devnet::request_id(paid, r.raw.key_digest), "recorded by `poa demo`");
    let settled = settle_in_process(&r);
    println!("{} gas, {} of it verification", settled.gas_used, settled.verify_gas);
    assert!((200_000..VERIFIER_GAS).contains(&settled.verify_gas), "{}", settled.verify_gas);
    assert!((settled.verify_gas..GAS_TARGET).contains(&settled.gas_used), "{}", settled.gas_used);
    let (pot, total) = (U256::from(devnet::ETHER) * U256::from(7) / U256::from(10), r.proof.weights.iter().sum::<u64>());
    for (payout, weight) in settled.payouts.iter().zip(&r.proof.weights) {
        assert_eq!(payout.amount, pot * U256::from(*weight) / U256::from(total), "{}", payout.contributor);
    }
}

#[test]
fn the_generated_verifier_passes_its_rehearsal() {
    let r = recorded();
    rehearse(&r.raw, &r.proof).unwrap();
    // With too little gas it refuses every proof.
    let starved = RawVerifier { gas_limit: 100_000, ..r.raw };
    assert!(rehearse(&starved, &r.proof).unwrap_err().message.contains("--verifier-gas"));
}

#[test]
fn anvil_and_the_evm_in_process_agree_on_it() {
    let Some(anvil) = fixture::anvil(&[]) else { return };
    let r = recorded();
    let here = settle_in_process(&r);
    let mut node = Node::connect(&anvil.url, Duration::from_secs(20)).unwrap();
    node.add_key(devnet::deployer());
    node.add_key(devnet::payer());
    r.statement.index.iter().flat_map(|i| &i.contributors).for_each(|name| {
        node.add_key(devnet::contributor(name));
    });
    let there = settle(&mut node, &r, true);
    assert_eq!((here.gas_used, here.verify_gas), (there.gas_used, there.verify_gas));
    assert_eq!((here.payouts, here.request_id), (there.payouts, there.request_id));
}
