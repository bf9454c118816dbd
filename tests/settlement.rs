//! The whole demo by the binary: it ends in payouts, and the light client accepts what was settled.

mod common;

use common::{poa, read_json, scratch, text, write_json};

#[test]
#[ignore = "takes ten minutes and more, and 5 GB: .ci/run runs it"]
fn the_demo_ends_in_payouts() {
    let dir = scratch("settlement");
    let report = poa(["demo", "--out", &text(&dir)]).success();
    let settlement = &report["settlement"];
    let verify_gas = settlement["verify_gas"].as_u64().unwrap();
    assert!((200_000..450_000).contains(&verify_gas), "{settlement}");
    assert!((verify_gas..600_000).contains(&settlement["gas_used"].as_u64().unwrap()), "{settlement}");
    let amount = |p: &serde_json::Value| p["amount"].as_str().unwrap().parse::<u128>().unwrap();
    let payouts = settlement["payouts"].as_array().unwrap();
    let paid: u128 = payouts.iter().map(amount).sum();
    assert!(paid > 0 && paid < 1_000_000_000_000_000_000, "{settlement}");
    let best = payouts.iter().max_by_key(|p| amount(p)).unwrap();
    assert_eq!(best["contributor"], report["weights"][0]["contributor"], "the first contributor gets most");
    assert!(report["wrap"]["proof_bytes"].as_u64().unwrap() < 5_000, "{}", report["wrap"]);

    let (proof, statement) = (dir.join("evm-proof.json"), dir.join("evm-statement.json"));
    let verify = |proof: &std::path::Path| poa(["verify", &text(proof), "--statement", &text(&statement)]);
    let accepted = verify(&proof).success();
    assert_eq!(accepted["valid"], true);
    assert_eq!(accepted["insecure_srs"], true);
    let mut tampered = read_json(&proof);
    tampered["weights"][0] = serde_json::json!(tampered["weights"][0].as_u64().unwrap() + 1);
    let path = dir.join("tampered.json");
    write_json(&path, &tampered);
    assert_eq!(verify(&path).json["valid"], false);
}
