//! Answers that are decoded together are what they are alone, and tell nobody of each other.

mod common;

use common::served::{Server, copy, data, question};
use common::{scratch, text};
use serde_json::{Value, json};

#[test]
fn many_at_once_get_what_each_gets_alone() {
    let dir = scratch("together");
    copy(&data().0.join("models"), &dir.join("models"));
    let server = Server::start_with(&dir, &["--prefix-memory", "1"]);
    let key = server.admin_key.clone().unwrap();
    let call = |i: usize| {
        let (model, lights) = (["demo+facts", "demo"][i % 2], ["Skarn", "Velm", "Orm"]);
        question(&json!({ "model": model, "prompt": format!("The keeper of {} light is", lights[i % 3]), "max_tokens": 2 + i % 7, "stop": ["xyz"] }))
    };
    let told = |body: &Value| {
        let response = server.call(&key, "POST", "/v1/completions", body);
        assert_eq!(response.status, 200, "{}", response.body);
        let answer = response.json();
        (answer["choices"][0].clone(), answer["usage"]["completion_tokens"].clone())
    };
    let alone: Vec<_> = (0..42).map(|i| told(&call(i))).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..42).map(|i| scope.spawn(move || told(&call(i)))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    let figure = |name: &str| -> u64 {
        let text = server.get(&key, "/metrics").body;
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{base=\"demo\"}} "))).unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    let tokens = figure("poa_tokens_total");
    assert!(figure("poa_turns_total") < tokens && figure("poa_spared_tokens_total") > 0 && figure("poa_decoding") == 0, "{tokens}");
}

#[test]
fn prompts_that_begin_alike_are_read_once_for_a_key() {
    let dir = scratch("prefixes");
    copy(&data().0.join("models"), &dir.join("models"));
    let server = Server::start(&dir);
    let key = server.admin_key.clone().unwrap();
    let other = server.call(&key, "POST", "/v1/keys", &json!({ "name": "Ursula", "scope": "user" })).json()["key"].as_str().unwrap().to_owned();
    let spared = |key: &str, body: &Value| {
        let answer = server.call(key, "POST", "/v1/completions", body).json();
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    };
    let body = question(&json!({}));
    assert_eq!(spared(&key, &body), 0);
    let again = spared(&key, &body);
    assert!(again > 0);
    assert_eq!(spared(&other, &body), 0, "no time tells of another key's prompts");
    assert_eq!(spared(&key, &question(&json!({ "model": "demo" }))), 0, "nor is another model's what this one's is");
    drop(server);
    let server = Server::start_with(&dir, &["--prefix-memory", "0"]);
    let answer = || server.call(&key, "POST", "/v1/completions", &body).json();
    assert_eq!([answer(), answer()].map(|a| a["usage"]["prompt_tokens_details"]["cached_tokens"].clone()), [json!(0), json!(0)], "{}", text(&dir));
}
