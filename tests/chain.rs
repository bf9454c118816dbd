//! From deployment to payout by the commands, against anvil. Skipped, loudly, where npm hasn't installed it.

mod common;
#[path = "../chain/src/fixture.rs"]
mod fixture;

use alloy::primitives::{U256, keccak256};
use alloy::sol_types::SolValue;
use circuits::statement::{Digest, Statement, TokenOpening, Tokens, prompt_digest};
use common::{Ran, scratch};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const KEY: Digest = Digest([0x17; 32]);
const ORDER: &str = "0x30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001";

/// A directory with the verifier's artifact, and a node.
struct Bench {
    directory: PathBuf,
    url: String,
    _anvil: Option<fixture::Anvil>,
}

impl Bench {
    fn new(name: &str, url: Option<String>) -> Option<Self> {
        let directory = scratch(name);
        let anvil = if url.is_none() { Some(fixture::anvil(&[])?) } else { None };
        let url = url.or_else(|| anvil.as_ref().map(|a| a.url.clone()))?;
        write(&directory.join("raw.json"), &json!({ "abi": [], "bytecode": format!("0x{}", alloy::hex::encode(fixture::RAW)) }));
        let bench = Self { directory, url, _anvil: anvil };
        bench.prove(fixture::small(1), 1);
        Some(bench)
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Writes statement and proof with a request id; the mock verifier takes the one that begins with 1.
    fn prove(&self, id: Digest, first: u8) {
        let statement = fixture::statement(3, id);
        write(&self.directory.join("statement.json"), &json!(statement));
        write(&self.directory.join("evm-proof.json"), &proof(&statement, first));
    }

    fn poa(&self, command: &str, more: &[&str]) -> Ran {
        let (deployment, proof, statement) = (self.path("deployment.json"), self.path("evm-proof.json"), self.path("statement.json"));
        let mut args: Vec<&str> = command.split(' ').collect();
        match args[0] {
            "deploy" => args.extend(["--out", &deployment, "--proof", &proof]),
            "settle" => args.extend([proof.as_str(), "--statement", &statement, "--deployment", &deployment]),
            "register" => args.extend(["--statement", &statement, "--deployment", &deployment]),
            _ => args.extend(["--deployment", &deployment]),
        }
        let raw = self.path("raw.json");
        if args[0] == "deploy" {
            args.extend(["--verifier", &raw]);
        }
        args.extend(["--devnet", "--rpc-url", &self.url]);
        args.extend(more);
        common::poa(args)
    }

    fn deployed(name: &str) -> Option<Self> {
        let bench = Self::new(name, None)?;
        bench.poa("deploy", &["--insecure-srs"]).success();
        bench.poa("register", &[]).success();
        Some(bench)
    }

    fn escrow(&self) -> Digest {
        id_of(&self.poa("escrow", &["--model", "1", "--amount", "0.5", "--any-exchange"]).success())
    }
}

fn id_of(escrowed: &Value) -> Digest {
    escrowed["request_id"].as_str().unwrap().parse().unwrap()
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
}

/// A proof file, its public inputs computed as contracts/README.md says.
fn proof(statement: &Statement, first: u8) -> Value {
    let request = &statement.requests[0];
    let index = statement.index.as_ref().unwrap();
    let Tokens::Public { tokens, prompt_len } = &request.tokens else { panic!("public tokens") };
    let prompt = prompt_digest([0; 32], &tokens[..*prompt_len], fixture::TOKENS);
    let tokens = TokenOpening::public(tokens, *prompt_len).digests(fixture::TOKENS).exchange;
    let named = [statement.digest(), statement.base, index.adapter, index.commitment, index.digest().truncated(), request.id, prompt, tokens];
    let order: U256 = ORDER.parse().unwrap();
    let weights: Vec<U256> = request.weights.iter().map(|&w| U256::from(w)).collect();
    let [a, b, c, d, e, f, g, h] = named.map(|d| U256::from_be_bytes(d.0));
    let z = U256::from_be_bytes(keccak256((a, b, c, d, e, f, g, h, weights.clone()).abi_encode_params()).0) % order;
    let y = weights.iter().rev().fold(U256::ZERO, |y, w| y.mul_mod(z, order).add_mod(*w, order));
    let inputs: Vec<Digest> = named.into_iter().chain([z, y].map(|w| Digest(w.to_be_bytes()))).collect();
    let mut bytes = vec![0xab; fixture::PROOF_BYTES];
    bytes[0] = first;
    if first == 1 {
        fixture::seal(&inputs, &mut bytes);
    }
    json!({
        "format": "poa-evm-proof/2",
        "key_digest": KEY,
        "proof_bytes": fixture::PROOF_BYTES,
        "srs": { "digest": fixture::small(1), "insecure": true },
        "public_inputs": inputs,
        "weights": request.weights,
        "proof": alloy::hex::encode(bytes),
    })
}

fn fails(ran: &Ran, status: i32, text: &str) {
    let error = ran.json["error"].as_str().unwrap_or_default();
    assert!(ran.status == status && error.contains(text), "expected {status} {text:?}: {ran:?}");
    assert!(ran.json["hint"].is_string(), "{ran:?}");
}

fn fails_without_hint(ran: &Ran, status: i32, text: &str) {
    let error = ran.json["error"].as_str().unwrap_or_default();
    assert!(ran.status == status && error.contains(text), "expected {status} {text:?}: {ran:?}");
}

#[test]
fn from_deployment_to_payout() {
    let Some(bench) = Bench::new("chain-payout", None) else { return };
    fails(&bench.poa("deploy", &[]), 2, "reference string is insecure");
    let deployment = bench.poa("deploy", &["--insecure-srs"]).success();
    assert_eq!(deployment["chain_id"], 31_337);
    let registered = bench.poa("register", &[]).success();
    assert_eq!((&registered["model"], &registered["contributors"]), (&json!(1), &json!(3)));
    let id = bench.escrow();
    // The proof is of another request; then it doesn't verify; then it does.
    fails(&bench.poa("settle", &[]), 2, "isn't escrowed");
    bench.prove(id, 2);
    fails(&bench.poa("settle", &[]), 1, "InvalidProof");
    bench.prove(id, 1);
    fails(&bench.poa("settle", &["--gas-limit", "300000"]), 2, "too little gas");
    let settled = bench.poa("settle", &["--collect"]).success();
    assert!(settled["gas_used"].as_u64().unwrap() > settled["verify_gas"].as_u64().unwrap(), "{settled}");
    assert_eq!((&settled["already_settled"], &settled["collected"]), (&json!(false), &json!(2)));
    let again = bench.poa("settle", &["--collect"]).success();
    assert_eq!((&again["already_settled"], &again["collected"]), (&json!(true), &json!(0)));
    assert_eq!((&again["transaction"], &again["gas_used"]), (&settled["transaction"], &settled["gas_used"]));
    // Seven tenths of half an ether, one part in four and three in four.
    for (payout, expected) in settled["payouts"].as_array().unwrap().iter().zip(["87500000000000000", "0", "262500000000000000"]) {
        assert_eq!(payout["amount"], expected);
        let name = payout["contributor"].as_str().unwrap();
        let withdrawn = bench.poa("withdraw", &["--contributor", name]);
        if expected == "0" {
            continue;
        }
        assert_eq!(withdrawn.success()["amount"], expected);
        assert_eq!(bench.poa("withdraw", &["--contributor", name]).success()["amount"], "0");
    }
}

#[test]
fn fees_are_refunded_after_their_deadline_only() {
    let Some(bench) = Bench::deployed("chain-refund") else { return };
    let id = bench.escrow().to_string();
    fails(&bench.poa("withdraw", &["--refund", &id]), 2, "DeadlineNotPassed");
}

#[test]
fn keys_come_from_files_and_stay_hidden() {
    let Some(bench) = Bench::deployed("chain-keys") else { return };
    let id = bench.escrow();
    bench.prove(id, 1);
    let file = bench.path("key");
    std::fs::write(&file, "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690dxx").unwrap();
    let refused = bench.poa("settle", &["--private-key-file", &file]);
    assert!(refused.status == 2 && refused.json["error"].as_str().unwrap().contains("isn't a private key"), "{refused:?}");
    assert!(!format!("{refused:?}").contains("59c6995e"));
    std::fs::write(&file, "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d\n").unwrap();
    let settled = bench.poa("settle", &["--private-key-file", &file]);
    assert!(!format!("{settled:?}").contains("59c6995e"));
    settled.success();
}

#[test]
fn datanets_can_be_made_step_by_step() {
    let Some(bench) = Bench::new("chain-datanet", None) else { return };
    bench.poa("deploy", &["--insecure-srs"]).success();
    let root = fixture::small(9).to_string();
    assert_eq!(bench.poa("datanet create recipes", &[]).success()["datanet"], 1);
    let statement = bench.path("statement.json");
    let publish = ["--datanet", "1", "--statement", &statement];
    fails(&bench.poa("datanet publish", &publish), 2, "nobody has contributed as \"contributor-0\"");
    // A development contributor's key needs ether: the deployer acts for everyone here.
    let deployer = bench.path("deployer");
    std::fs::write(&deployer, "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap();
    for name in ["contributor-0", "contributor-1", "contributor-2"] {
        let contribute = ["--datanet", "1", "--name", name, "--root", &root, "--private-key-file", &deployer];
        bench.poa("datanet contribute", &contribute).success();
    }
    // Nobody is paid for having come first without a word.
    let asked = bench.poa("datanet publish", &publish);
    fails(&asked, 2, "not confirmed");
    assert!(asked.stderr.contains("\"contributor-2\"") && asked.stderr.contains("came first"), "{}", asked.stderr);
    let chosen = [&publish[..], &["--contribution", "1", "--contribution", "2"]].concat();
    let asked = bench.poa("datanet publish", &chosen);
    assert!(asked.status == 2 && asked.stderr.contains("1 of 3 accounts"), "{asked:?}");
    let confirmed = [&publish[..], &["--yes"]].concat();
    assert_eq!(bench.poa("datanet publish", &confirmed).success()["version"], 1);
    assert_eq!(bench.poa("datanet publish", &publish).success()["version"], 1);
    assert_eq!(bench.poa("register", &["--datanet", "1"]).success()["model"], 1);
    // Another account contributes under a name; the owner says that it is the right one.
    let payer = bench.path("payer");
    std::fs::write(&payer, "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d").unwrap();
    let contribute = ["--datanet", "1", "--name", "contributor-0", "--root", &root, "--private-key-file", &payer];
    assert_eq!(bench.poa("datanet contribute", &contribute).success()["contribution"], 4);
    let correct = ["--datanet", "1", "--contribution", "4"];
    fails(&bench.poa("datanet correct", &correct), 2, "not confirmed");
    assert_eq!(bench.poa("datanet correct", &[&correct[..], &["--yes"]].concat()).success()["contribution"], 4);
    fails(&bench.poa("datanet correct", &[&correct[..], &["--yes"]].concat()), 2, "nothing to correct");
    fails(&bench.poa("datanet correct", &["--datanet", "1", "--contribution", "77", "--yes"]), 2, "has no contribution 77");
}

#[test]
fn a_payer_binds_the_prompt_and_sees_what_else() {
    let Some(bench) = Bench::new("chain-prompt", None) else { return };
    bench.poa("deploy", &["--insecure-srs"]).success();
    let expect = bench.path("expect.json");
    let registered = bench.poa("register", &["--expect-out", &expect]).success();
    assert_eq!(common::read_json(Path::new(&expect)), registered["expect"]);
    let plain = ["--model", "1", "--amount", "0.5"];
    let with = |more: &[&str]| bench.poa("escrow", &[&plain[..], more].concat());
    // No prompt, or one without the room that its digest depends on.
    fails(&with(&[]), 2, "for which prompt?");
    fails(&with(&["--prompt-tokens", "1,2"]), 2, "has the model's relation room for");
    fails(&with(&["--prompt-digest", &Digest::default().to_string()]), 2, "would accept any exchange");
    let statement = bench.path("statement.json");
    fails(&with(&["--prompt-tokens", "1,99", "--statement", &statement]), 2, "isn't in the model's vocabulary");
    // What is expected is compared before anything is paid.
    let mut other = registered["expect"].clone();
    other["contributors"][1]["account"] = json!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
    let wrong = bench.path("wrong.json");
    write(Path::new(&wrong), &other);
    fails_without_hint(&with(&["--any-exchange", "--expect", &wrong]), 1, "\"contributor-1\" is paid at");
    other["surprise"] = json!(1);
    write(Path::new(&wrong), &other);
    fails_without_hint(&with(&["--any-exchange", "--expect", &wrong]), 2, "surprise");
    assert!(with(&["--any-exchange"]).stderr.contains("NOTHING WAS COMPARED"));
    // Bound to a prompt, by its tokens; the salt is in a file.
    let file = bench.path("prompt.json");
    let bound = with(&["--prompt-tokens", "1,2", "--statement", &statement, "--prompt-out", &file, "--expect", &expect]);
    assert!(bound.stderr.contains("8 of 8 things") && bound.stderr.contains(&registered["expect"]["key_digest"].as_str().unwrap().to_owned()));
    let bound = bound.success();
    let kept = common::read_json(Path::new(&file));
    assert_eq!((&kept["digest"], &kept["tokens"], &kept["capacity"]), (&bound["prompt_digest"], &json!([1, 2]), &json!(fixture::TOKENS)));
    let salt: Digest = kept["salt"].as_str().unwrap().parse().unwrap();
    assert_eq!(kept["digest"], json!(prompt_digest(salt.0, &[1, 2], fixture::TOKENS)));
    // The proof is of the same tokens, with another salt: not what was paid for.
    bench.prove(id_of(&bound), 1);
    fails(&bench.poa("settle", &[]), 2, "PromptDigestMismatch");
    // A digest made elsewhere, which the proof has.
    let own = prompt_digest([0; 32], &[1, 2], fixture::TOKENS).to_string();
    let bound = with(&["--prompt-digest", &own, "--settler", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"]).success();
    assert_eq!((&bound["prompt_digest"], &bound["prompt_file"]), (&json!(own), &Value::Null));
    bench.prove(id_of(&bound), 1);
    fails(&bench.poa("settle", &[]), 2, "NotSettler");
    let key = bench.path("payer");
    std::fs::write(&key, "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d").unwrap();
    bench.poa("settle", &["--private-key-file", &key]).success();
}

#[test]
fn deployers_keep_no_power_by_default() {
    let Some(bench) = Bench::new("chain-powers", None) else { return };
    let trial = bench.poa("deploy", &["--insecure-srs"]);
    assert!(trial.stderr.contains("THE DEPLOYER HOLDS ALL VOTES") && trial.stderr.contains("THE DEPLOYER GETS THE PLATFORM'S SHARE"), "{trial:?}");
    let holder = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    let raw = bench.path("raw.json");
    let (proof, out) = (bench.path("evm-proof.json"), bench.path("other.json"));
    let key = bench.path("key");
    std::fs::write(&key, "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap();
    let args =
        ["deploy", "--verifier", &raw, "--proof", &proof, "--out", &out, "--insecure-srs", "--rpc-url", &bench.url, "--private-key-file", &key];
    let missing = common::poa(args);
    assert!(missing.status == 2 && missing.json["error"].as_str().unwrap().contains("--holder"), "{missing:?}");
    let deployed = common::poa(args.iter().chain(&["--holder", holder]));
    assert!(deployed.stderr.contains("the deployer has none") && deployed.stderr.contains("goes to the timelock"), "{deployed:?}");
    deployed.success();
}

#[test]
fn missing_nodes_and_contracts_are_named() {
    let nowhere = Bench::new("chain-nowhere", Some("http://127.0.0.1:1/secret-token".into())).unwrap();
    let refused = nowhere.poa("deploy", &["--insecure-srs"]);
    fails(&refused, 2, "doesn't answer");
    assert!(!format!("{refused:?}").contains("secret-token"));
    let Some(bench) = Bench::deployed("chain-elsewhere") else { return };
    let Some(other) = fixture::anvil(&[]) else { return };
    let moved = Bench { url: other.url.clone(), directory: bench.directory.clone(), _anvil: Some(other) };
    fails(&moved.poa("settle", &[]), 2, "has no contract at");
    let Some(mainnet) = fixture::anvil(&["--chain-id", "1"]) else { return };
    let moved = Bench { url: mainnet.url.clone(), directory: bench.directory.clone(), _anvil: Some(mainnet) };
    fails(&moved.poa("settle", &[]), 2, "keys that everyone knows");
}
