//! An index registered by the service: proofs of answers rely on it, and whoever verifies them needs it.

mod common;

use common::served::{Server, fresh, question};
use common::{poa, text};
use serde_json::{Value, json};

#[test]
fn proofs_rely_on_a_registered_index() {
    let (dir, server, key) = fresh("registered");
    let post = |path: &str, body: &Value| server.call(&key, "POST", path, body);
    let sample = |i: usize| {
        let contributor = if i.is_multiple_of(2) { "mia" } else { "jonas" };
        format!(
            "{}\n",
            json!({ "contributor": contributor, "text": format!("{} keeps the light of {}.", ["Ada", "Bo", "Cleo"][i % 3], ["Skarn", "Velm"][i % 2]) })
        )
    };
    let few: String = (0..6).map(sample).collect();
    assert_eq!(post("/v1/datanets", &json!({ "name": "few", "licence": "MIT" })).status, 201);
    let submitted = server.send("POST", "/v1/datanets/few/submissions?filename=few.jsonl", &[("authorization", &format!("Bearer {key}"))], &few);
    assert_eq!(submitted.status, 201, "{}", submitted.body);
    let submission = format!("/v1/datanets/few/submissions/{}", submitted.json()["id"]);
    assert_eq!(post(&submission, &json!({ "decision": "approve" })).status, 200);
    assert_eq!(post("/v1/datanets/few/versions", &Value::Null).status, 201);
    let order = json!({ "base": "demo", "name": "few", "datanet": "few", "version": 1, "settings": { "epochs": 1, "rank": 4 } });
    let training = post("/v1/training-jobs", &order).json();
    server.trained(&key, training["id"].as_str().unwrap());

    let path = "/v1/models/demo+few/registration";
    assert_eq!((server.get(&key, path).status, post("/v1/models/demo/registration", &Value::Null).status), (404, 409), "a base has no index");
    let user = post("/v1/keys", &json!({ "name": "Ursula", "scope": "user" })).json()["key"].as_str().unwrap().to_owned();
    assert_eq!(server.call(&user, "POST", path, &Value::Null).status, 403);
    assert_eq!(post(path, &Value::Null).status, 202);
    assert_eq!(server.get(&key, "/v1/models/demo+few/registration.zip").status, 409, "it isn't proven yet");
    let job = Server::ended(|| server.get(&key, path).json());
    assert_eq!((&job["result"]["rows"], &job["result"]["generation"]["index"].is_string()), (&json!(6), &true), "{job}");
    assert!(job["result"]["security_bits"].as_f64().unwrap() >= 100.0, "{job}");
    assert_eq!(server.get(&user, "/v1/models/demo+few/registration.zip").status, 200, "with --demo everyone reads samples");

    let answer = post("/v1/completions", &question(&json!({ "model": "demo+few" }))).json();
    let request = answer["poa"]["request"].as_str().unwrap();
    assert_eq!(post(&format!("/v1/requests/{request}/proof"), &Value::Null).status, 202);
    let proof = server.proven(&key, request);
    assert_eq!(proof["result"]["registration"], job["result"]["registration"]);
    let file = |which: &str| {
        let name = proof["result"][which].as_str().unwrap();
        text(dir.join("files").join(&name[..2]).join(name))
    };
    let registration = text(dir.join("models/demo/adapters/few/index/registration"));
    let verify = |more: &[&str]| poa([&["verify", &file("proof"), "--statement", &file("statement")], more].concat());
    let alone = verify(&[]);
    assert!(alone.status == 1 && alone.json["reason"].as_str().unwrap_or_default().contains("registration"), "{}", alone.json);
    let valid = verify(&["--registration", &registration]).success();
    assert_eq!((&valid["valid"], &valid["registration"]), (&json!(true), &job["result"]["registration"]));
}
