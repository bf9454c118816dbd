//! The index statement's digest, on a vector that `contracts/` reads too: Rust and Solidity hash the same bytes.

use circuits::statement::{Digest, IndexStatement};
use serde_json::Value;

fn digest(vector: &Value, key: &str) -> Digest {
    let text = vector[key].as_str().expect("a string");
    text.strip_prefix("0x").expect("a 0x prefix").parse().expect("a digest")
}

#[test]
fn digest_equals_the_contracts_vector() {
    let vector: Value = serde_json::from_str(include_str!("../../contracts/test/vectors/index-statement.json")).expect("JSON");
    let names = vector["contributors"].as_array().expect("a list");
    let index = IndexStatement {
        commitment: digest(&vector, "commitment"),
        base: digest(&vector, "base"),
        adapter: digest(&vector, "adapter"),
        datanet_root: digest(&vector, "datanet_root"),
        datanet_version: vector["datanet_version"].as_u64().expect("a number"),
        contributors: names.iter().map(|n| n.as_str().expect("a name").to_owned()).collect(),
    };
    assert_eq!(index.digest(), digest(&vector, "digest"));
}
