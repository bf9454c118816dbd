//! The service as a program and a browser without scripts use it: over HTTP, restarted and killed.

mod common;

use common::served::{PROMPT, Server, copy, data, fresh, question};
use common::{poa, scratch, text};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn answers_have_openais_shapes() {
    let (_, server, key) = fresh("serve-shapes");
    let models = server.get(&key, "/v1/models").json();
    let names: Vec<&str> = models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["demo", "demo+facts"]);
    let whole = server.call(&key, "POST", "/v1/completions", &question(&json!({}))).json();
    let choice = &whole["choices"][0];
    assert!(choice["text"].as_str().unwrap().starts_with("Ottar"), "{whole}");
    assert_eq!((&choice["finish_reason"], &whole["object"]), (&json!("stop"), &json!("text_completion")));
    assert_eq!(whole["usage"]["total_tokens"].as_u64(), Some(whole["usage"]["prompt_tokens"].as_u64().unwrap() + 2));
    assert_eq!(whole["poa"]["generation"]["base"], models["data"][0]["generation"]["base"]);
    // The same, cut: by a count, and by a text that isn't part of the answer.
    let short = server.call(&key, "POST", "/v1/completions", &question(&json!({ "max_tokens": 1 }))).json();
    assert_eq!((&short["choices"][0]["text"], &short["choices"][0]["finish_reason"]), (&json!("Ottar"), &json!("length")));
    let stopped = server.call(&key, "POST", "/v1/completions", &question(&json!({ "stop": ["ar"] }))).json();
    assert_eq!((&stopped["choices"][0]["text"], &stopped["choices"][0]["finish_reason"]), (&json!("Ott"), &json!("stop")));
    // As a stream: the pieces are the whole.
    let streamed = server.call(&key, "POST", "/v1/completions", &question(&json!({ "stream": true, "stream_options": { "include_usage": true } })));
    assert!(streamed.headers["content-type"].starts_with("text/event-stream"));
    let events: Vec<&str> = streamed.body.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let events: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    let pieces: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(json!(pieces), choice["text"]);
    // The same prompt is read already.
    let mut counts = events.last().unwrap()["usage"].clone();
    assert!(counts["prompt_tokens_details"].take()["cached_tokens"].as_u64().unwrap() > 0);
    assert_eq!(counts, {
        let mut first = whole["usage"].clone();
        first["prompt_tokens_details"].take();
        first
    });
    // As a chat.
    let chat = json!({ "model": "demo+facts", "messages": [{ "role": "user", "content": PROMPT }], "max_tokens": 4 });
    let chat = server.call(&key, "POST", "/v1/chat/completions", &chat).json();
    assert_eq!((&chat["choices"][0]["message"]["content"], &chat["object"]), (&choice["text"], &json!("chat.completion")));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let (_, server, key) = fresh("serve-refusals");
    let refused = |body: &Value| {
        let response = server.call(&key, "POST", "/v1/completions", body);
        (response.status, response.json()["error"]["param"].clone(), response.json()["error"]["message"].as_str().unwrap().to_owned())
    };
    for (name, value) in [("temperature", json!(0.7)), ("logprobs", json!(1)), ("n", json!(2)), ("tools", json!([1])), ("max_tokens", json!(0))] {
        let (status, param, message) = refused(&question(&json!({ name: value })));
        assert_eq!((status, param), (400, json!(name)), "{message}");
    }
    let (status, _, message) = refused(&question(&json!({ "prompt": "the light of the market ".repeat(20) })));
    assert!(status == 400 && message.contains("context is 32"), "{message}");
    let (status, param, _) = refused(&question(&json!({ "model": "other" })));
    assert_eq!((status, param), (404, json!("model")));
    for (method, path, expected) in [("GET", "/v1/nothing", 404), ("GET", "/v1/requests/00", 404), ("DELETE", "/v1/models", 405)] {
        assert_eq!(server.call(&key, method, path, &Value::Null).status, expected, "{method} {path}");
    }
    assert_eq!(server.send("POST", "/v1/completions", &[("authorization", &format!("Bearer {key}"))], "{\"model\":").status, 400);
    assert_eq!(server.send("POST", "/v1/completions", &[("authorization", &format!("Bearer {key}"))], &"x".repeat(2 << 20)).status, 413);
}

#[test]
fn only_keys_let_in_and_only_to_what_is_theirs() {
    let (_, server, admin) = fresh("serve-keys");
    assert_eq!(server.send("GET", "/v1/models", &[], "").status, 401);
    assert_eq!(server.get("poa_wrong", "/v1/models").status, 401);
    assert_eq!(server.send("GET", "/healthz", &[], "").body, "ok\n");
    let make = |key: &str, name: &str| server.call(key, "POST", "/v1/keys", &json!({ "name": name }));
    let [one, two] = ["one", "two"].map(|name| make(&admin, name).json()["key"].as_str().unwrap().to_owned());
    assert_eq!(make(&one, "three").status, 403);
    let answer = server.call(&one, "POST", "/v1/completions", &question(&json!({}))).json();
    let path = format!("/v1/requests/{}", answer["poa"]["request"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/attribution"), format!("{path}/proof")] {
        assert_eq!(server.get(&two, &path).status, 404, "{path}");
    }
    assert_eq!(server.call(&two, "POST", &format!("{path}/proof"), &Value::Null).status, 404);
    assert_eq!([&one, &admin].map(|key| server.get(key, &path).status), [200, 200]);
    let keys = server.get(&admin, "/v1/keys").json();
    let id = keys["data"].as_array().unwrap().iter().find(|k| k["name"] == "one").unwrap()["id"].clone();
    assert_eq!(server.call(&admin, "DELETE", &format!("/v1/keys/{id}"), &Value::Null).status, 204);
    assert_eq!(server.get(&one, &path).status, 401);
}

#[test]
fn an_answers_samples_contributors_and_proof() {
    let (dir, server, key) = fresh("serve-proof");
    let answer = server.call(&key, "POST", "/v1/completions", &question(&json!({}))).json();
    let path = format!("/v1/requests/{}", answer["poa"]["request"].as_str().unwrap());
    let attribution = server.get(&key, &format!("{path}/attribution")).json();
    assert_eq!(attribution["weights"][0]["contributor"], "jonas");
    assert!(attribution["samples"][0]["text"].as_str().unwrap().contains("Skarn"), "{attribution}");
    // The bare model has nobody to credit.
    let bare = server.call(&key, "POST", "/v1/completions", &question(&json!({ "model": "demo" }))).json();
    let refused = server.get(&key, &format!("/v1/requests/{}/attribution", bare["poa"]["request"].as_str().unwrap()));
    assert!(refused.status == 409 && refused.body.contains("no index"), "{}", refused.body);
    assert_eq!(server.get(&key, &format!("{path}/proof")).status, 404);
    let queued = server.call(&key, "POST", &format!("{path}/proof"), &Value::Null);
    assert_eq!(queued.status, 202);
    assert_eq!(server.call(&key, "POST", &format!("{path}/proof"), &Value::Null).json()["id"], queued.json()["id"], "asking twice is asking once");
    let job = server.proven(&key, answer["poa"]["request"].as_str().unwrap());
    // The files are what the job names; the proof is binary, so it's read where it lies.
    let file = |which: &str| {
        let name = job["result"][which].as_str().unwrap();
        dir.join("files").join(&name[..2]).join(name)
    };
    let statement: Value = serde_json::from_str(&server.get(&key, &format!("{path}/statement.json")).body).unwrap();
    assert_eq!(statement["requests"][0]["id"], answer["poa"]["request"]);
    let verified = poa(["verify", &text(file("proof")), "--statement", &text(file("statement"))]).success();
    assert_eq!(verified["valid"], true);
}

/// Requests of one key to one model wait for each other, and have one proof then; nobody else's are in it.
#[test]
fn requests_are_proven_together() {
    let (dir, server, admin) = fresh("serve-batch");
    server.kill();
    let server = Server::start_with(&dir, &["--prove-together", "3", "--prove-after", "3600"]);
    let other = server.call(&admin, "POST", "/v1/keys", &json!({ "name": "other" })).json()["key"].as_str().unwrap().to_owned();
    let asked = |key: &str, more: Value| {
        let answer = server.call(key, "POST", "/v1/completions", &question(&more)).json();
        let request = answer["poa"]["request"].as_str().unwrap().to_owned();
        assert_eq!(server.call(key, "POST", &format!("/v1/requests/{request}/proof"), &Value::Null).status, 202);
        request
    };
    let state = |key: &str, request: &str| server.get(key, &format!("/v1/requests/{request}/proof")).json()["state"].clone();
    let alone = asked(&other, json!({}));
    let mut requests = vec![asked(&admin, json!({})), asked(&admin, json!({ "prompt": "The keeper of Velm light is" }))];
    let bare = asked(&admin, json!({ "model": "demo" }));
    std::thread::sleep(Duration::from_secs(2));
    assert!(requests.iter().chain([&bare]).all(|request| state(&admin, request) == "queued") && state(&other, &alone) == "queued");
    requests.push(asked(&admin, json!({ "max_tokens": 1 })));
    let jobs: Vec<Value> = requests.iter().map(|request| server.proven(&admin, request)).collect();
    assert!(jobs.iter().all(|job| job["result"] == jobs[0]["result"] && job["result"]["requests"] == json!(requests)), "{jobs:?}");
    let file = |which: &str| {
        let name = jobs[0]["result"][which].as_str().unwrap();
        dir.join("files").join(&name[..2]).join(name)
    };
    let statement: Value = serde_json::from_slice(&std::fs::read(file("statement")).unwrap()).unwrap();
    let stated: Vec<&Value> = statement["requests"].as_array().unwrap().iter().map(|request| &request["id"]).collect();
    assert_eq!(json!(stated), json!(requests));
    assert_eq!(poa(["verify", &text(file("proof")), "--statement", &text(file("statement"))]).success()["valid"], true);
    // Each has it, with its own shares; what waits for others waits on.
    for request in &requests {
        assert_eq!(server.get(&admin, &format!("/v1/requests/{request}/statement.json")).body, std::fs::read_to_string(file("statement")).unwrap());
        assert_eq!(server.get(&admin, &format!("/v1/requests/{request}/attribution/jonas")).json()["basis"], "proven");
    }
    assert!(state(&admin, &bare) == "queued" && state(&other, &alone) == "queued");
}

/// Whenever the process ends, what was asked for is done once, in the end.
#[test]
fn proofs_outlive_killed_servers() {
    let (dir, mut server, key) = fresh("serve-killed");
    let ask = |server: &Server| {
        let answer = server.call(&key, "POST", "/v1/completions", &question(&json!({}))).json();
        answer["poa"]["request"].as_str().unwrap().to_owned()
    };
    let requests: Vec<String> = (0..2).map(|_| ask(&server)).collect();
    for request in &requests {
        assert_eq!(server.call(&key, "POST", &format!("/v1/requests/{request}/proof"), &Value::Null).status, 202);
    }
    for milliseconds in [150, 700, 1500] {
        std::thread::sleep(Duration::from_millis(milliseconds));
        server.kill();
        server = Server::start(&dir);
        assert_eq!(server.admin_key, None, "the key is shown once");
    }
    for request in &requests {
        let job = server.proven(&key, request);
        assert!(job["attempts"].as_u64().unwrap() <= 5 && job["problem"].is_null(), "{job}");
    }
    // Told to end, it ends well, whoever still holds a connection.
    let mut half = TcpStream::connect(&server.address).unwrap();
    half.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").unwrap();
    let status = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_served_is_named_at_the_start() {
    let refused = |name: &str, directory: &str| {
        let dir = scratch(name);
        std::fs::create_dir_all(dir.join(directory)).unwrap();
        let ran = poa(["serve", "--listen", "127.0.0.1:0", "--data", &text(&dir)]);
        assert_eq!(ran.status, 2, "{ran:?}");
        ran.json["error"].as_str().unwrap().to_owned()
    };
    let broken = refused("serve-broken", "models/stories/model");
    assert!(broken.contains("stories") && broken.contains("no poa model directory"), "{broken}");
    assert!(refused("serve-plus", "models/a+b/model").contains("`+` joins"));
}

#[test]
fn pages_work_without_a_script() {
    let (_, server, key) = fresh("serve-pages");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let outside = server.send("GET", "/", &[], "");
    assert_eq!((outside.status, outside.headers["location"].as_str()), (303, "/sign-in"));
    assert_eq!(server.send("POST", "/sign-in", &[form], "key=poa_wrong").status, 401);
    let inside = server.send("POST", "/sign-in", &[form], &format!("key={key}"));
    let cookie = inside.headers["set-cookie"].split(';').next().unwrap().to_owned();
    assert!(inside.headers["set-cookie"].contains("HttpOnly") && inside.headers["set-cookie"].contains("SameSite=Strict"));
    let home = server.send("GET", "/", &[("cookie", &cookie)], "");
    assert!(
        home.headers["content-security-policy"].starts_with("default-src 'none'")
            && home.headers["content-security-policy"].contains("script-src 'self';")
    );
    assert_eq!(home.body.matches("<script").count(), home.body.matches("<script type=\"module\" src=\"/").count(), "scripts are the service's own");
    let token = home.body.split("name=\"form_token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let prompt = "prompt=The+keeper+of+Skarn+light+is&model=demo%2Bfacts";
    assert_eq!(server.send("POST", "/ask", &[form, ("cookie", &cookie)], &format!("{prompt}&form_token=0")).status, 403);
    let elsewhere = ("sec-fetch-site", "cross-site");
    assert_eq!(server.send("POST", "/sign-in", &[form, elsewhere], &format!("key={key}")).status, 403);
    let asked = server.send("POST", "/ask", &[form, ("cookie", &cookie)], &format!("{prompt}&form_token={token}"));
    assert_eq!(asked.status, 303, "{}", asked.body);
    let page = server.send("GET", &asked.headers["location"], &[("cookie", &cookie)], "");
    assert!(page.body.contains("Ottar") && page.body.contains("jonas") && page.body.contains("Prove it"), "{}", page.body);
    let proving = server.send("POST", &format!("{}/proof", asked.headers["location"]), &[form, ("cookie", &cookie)], &format!("form_token={token}"));
    assert_eq!(proving.status, 303);
    server.proven(&key, asked.headers["location"].rsplit('/').next().unwrap());
    let page = server.send("GET", &asked.headers["location"], &[("cookie", &cookie)], "");
    assert!(page.body.contains("Proven") && page.body.contains("poa verify"), "{}", page.body);
    let out = server.send("POST", "/sign-out", &[form, ("cookie", &cookie)], &format!("form_token={token}"));
    assert_eq!((out.status, server.send("GET", "/", &[("cookie", &cookie)], "").status), (303, 303));
}

/// What a contributor may do and what an owner, and what is wrong with an upload, by its line.
#[test]
fn samples_become_versions() {
    let (_, server, admin) = fresh("serve-datanets");
    let key = |name: &str, scope: &str| {
        let made = server.call(&admin, "POST", "/v1/keys", &json!({ "name": name, "scope": scope }));
        made.json()["key"].as_str().unwrap().to_owned()
    };
    let (owner, mia, user) = (key("olga", "owner"), key("mia", "contributor"), key("una", "user"));
    let begin = |key: &str, licence: &str| server.call(key, "POST", "/v1/datanets", &json!({ "name": "bells", "licence": licence }));
    assert_eq!(
        (begin(&mia, "MIT").status, begin(&owner, "none").status, begin(&owner, "MIT").status, begin(&owner, "MIT").status),
        (403, 400, 201, 409)
    );
    let upload = |key: &str, query: &str, body: &str| {
        server.send("POST", &format!("/v1/datanets/bells/submissions?{query}"), &[("authorization", &format!("Bearer {key}"))], body)
    };
    let sample = |who: &str, text: &str| json!({ "contributor": who, "text": text }).to_string() + "\n";
    let own = sample("mia", "The bell of Mill is brass.") + &sample("mia", "Skarn light has no bell.");
    assert_eq!(upload(&user, "filename=a.jsonl", &own).status, 403);
    assert_eq!(upload(&mia, "filename=a.jsonl", &sample("ann", "x")).status, 400);
    assert_eq!(upload(&mia, "filename=a.jsonl&mode=x", &own).status, 400);
    let wrong = upload(&mia, "filename=a.jsonl", &(own.clone() + "{}\n"));
    assert!(wrong.status == 400 && wrong.body.contains("line 3"), "{}", wrong.body);
    let preview = upload(&mia, "filename=a.jsonl&preview=true", &own).json();
    assert_eq!((&preview["samples"], &preview["copies"]), (&json!(2), &json!(0)));
    let submitted = upload(&mia, "filename=a.jsonl", &own);
    assert_eq!(submitted.status, 201);
    let copied = upload(&owner, "filename=b.csv&preview=true", "contributor,text\nzoe,the bell of mill is brass\n").json();
    assert_eq!((&copied["copies"], &copied["copied"][0]["first"]), (&json!(1), &json!("mia")));
    let decide =
        |key: &str, body: Value| server.call(key, "POST", &format!("/v1/datanets/bells/submissions/{}", submitted.json()["id"]), &body).status;
    assert_eq!(decide(&mia, json!({ "decision": "approve" })), 403);
    assert_eq!(decide(&owner, json!({ "decision": "reject" })), 400);
    assert_eq!((decide(&owner, json!({ "decision": "approve" })), decide(&owner, json!({ "decision": "approve" }))), (200, 409));
    let publish = |key: &str| server.call(key, "POST", "/v1/datanets/bells/versions", &Value::Null);
    assert_eq!((publish(&mia).status, publish(&owner).status, publish(&owner).status), (403, 201, 409));
    assert_eq!(server.get(&owner, "/v1/datanets/bells/versions/1").body, own);
    assert_eq!([&mia, &user].map(|key| server.get(key, "/v1/datanets/bells/versions/1").status), [403, 403]);
    let withdraw = |key: &str| server.call(key, "POST", "/v1/datanets/bells/versions/1/withdrawals", &json!({ "sample": 1 })).status;
    assert_eq!((withdraw(&user), withdraw(&mia)), (403, 200));
    let second = publish(&owner).json();
    assert_eq!((&second["version"], &second["samples"]), (&json!(2), &json!(1)));
    assert_eq!(server.get(&owner, "/v1/datanets/bells/versions/1").body, own, "a version never changes");
    let account = server.get(&mia, "/v1/contributors/mia").json();
    let until: Vec<&Value> = account["contributions"].as_array().unwrap().iter().map(|c| &c["until"]).collect();
    assert_eq!(until, [&Value::Null, &json!(1)], "{account}");
    assert_eq!([&user, &admin].map(|key| server.get(key, "/v1/contributors/mia").status), [403, 200]);
}

/// Killed again and again, cancelled and resumed, a training comes to the very model of one that wasn't disturbed.
#[test]
fn trainings_outlive_killed_servers() {
    const EPOCHS: usize = 20;
    let (dir, mut server, key) = fresh("serve-training");
    let order = |name: &str| json!({ "base": "demo", "name": name, "datanet": "facts", "version": 1, "settings": { "epochs": EPOCHS, "rank": 4 } });
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut body = order("calm");
        change(&mut body);
        server.call(&key, "POST", "/v1/training-jobs", &body).status
    };
    let wrong: [&dyn Fn(&mut Value); 7] = [
        &|o| o["settings"]["batch"] = json!(100_000),
        &|o| o["base"] = json!("other"),
        &|o| o["name"] = json!("facts"),
        &|o| o["name"] = json!("../x"),
        &|o| o["settings"]["rank"] = json!(0),
        &|o| o["settings"]["speed"] = json!(1),
        &|o| o["settings"]["learning_rate"] = json!(-1),
    ];
    assert!(wrong.iter().all(|change| refused(change) == 400));
    assert_eq!(refused(&|o| o["version"] = json!(2)), 404);
    let mut dry = order("calm");
    dry["dry_run"] = json!(true);
    let estimate = server.call(&key, "POST", "/v1/training-jobs", &dry).json()["estimate"].clone();
    assert!(estimate["seconds"]["most"].as_f64().unwrap() > 0.0 && estimate["memory_bytes"].as_u64().unwrap() > 0, "{estimate}");
    let start = |server: &Server, name: &str| {
        let started = server.call(&key, "POST", "/v1/training-jobs", &order(name));
        assert_eq!(started.status, 202, "{}", started.body);
        started.json()["id"].as_str().unwrap().to_owned()
    };
    let calm = start(&server, "calm");
    assert_eq!(server.call(&key, "POST", "/v1/training-jobs", &order("calm")).status, 400, "the name is taken");
    let calm = server.trained(&key, &calm);
    let troubled = start(&server, "troubled");
    let path = format!("/v1/training-jobs/{troubled}");
    // In the middle of it, after an epoch more than last time.
    let in_the_middle = |server: &Server, epochs: usize| loop {
        let training = server.get(&key, &path).json();
        let made = training["epochs"].as_array().unwrap().len();
        assert!(made < EPOCHS && ["queued", "running"].contains(&training["job"]["state"].as_str().unwrap()), "{training}");
        if made >= epochs {
            break made;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut made = 0;
    for _ in 0..3 {
        made = in_the_middle(&server, made + 1);
        server.kill();
        server = Server::start(&dir);
    }
    in_the_middle(&server, made + 1);
    assert_eq!(server.call(&key, "DELETE", &path, &Value::Null).json()["job"]["state"], "cancelled");
    assert_eq!(server.call(&key, "POST", &format!("{path}/resume"), &Value::Null).status, 202);
    let troubled = server.trained(&key, &troubled);
    assert_eq!(troubled["result"]["generation"], calm["result"]["generation"]);
    assert_eq!(server.get(&key, &path).json()["epochs"].as_array().unwrap().len(), EPOCHS);
    assert_eq!(server.call(&key, "POST", &format!("{path}/resume"), &Value::Null).status, 409);
    // It answers, and what its answers rest on is found.
    let answer = server.call(&key, "POST", "/v1/completions", &question(&json!({ "model": "demo+troubled" }))).json();
    let attribution = server.get(&key, &format!("/v1/requests/{}/attribution", answer["poa"]["request"].as_str().unwrap()));
    assert!(attribution.status == 200 && attribution.json()["samples"].as_array().unwrap().len() > 3, "{}", attribution.body);
    assert!(!dir.join("trainings").join(path.rsplit('/').next().unwrap()).exists(), "nothing is left lying about");
}

/// With room for one adapter, any is read when it's asked for, and answers as it does alone; another under its name is refused.
#[test]
fn adapters_are_read_when_they_are_asked_for() {
    let dir = scratch("serve-adapters");
    let adapters = dir.join("models/demo/adapters");
    copy(&data().0.join("models"), &dir.join("models"));
    copy(&adapters.join("facts"), &adapters.join("twin"));
    copy(&adapters.join("facts"), &adapters.join("bare"));
    std::fs::remove_dir_all(adapters.join("bare/index")).unwrap();
    let server = Server::start_with(&dir, &["--adapter-memory", "0"]);
    let key = server.admin_key.clone().unwrap();
    let figure = |name: &str| -> u64 {
        let text = server.get(&key, "/metrics").body;
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    let ask = |model: &str| server.call(&key, "POST", "/v1/completions", &question(&json!({ "model": model })));
    let answers: Vec<String> =
        ["demo+facts", "demo+twin", "demo+facts", "demo+bare"].map(|model| ask(model).json()["choices"][0]["text"].to_string()).into();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!((figure("poa_adapters_in_memory"), figure("poa_models")), (1, 4));
    let before = figure("poa_adapter_reads_total");
    assert_eq!((ask("demo+bare").status, figure("poa_adapter_reads_total")), (200, before), "what is in memory isn't read again");
    let named = |path: &str, name: &str| server.call(&key, "POST", path, &json!({ "lora_name": name })).status;
    assert_eq!((named("/v1/unload_lora_adapter", "demo+bare"), ask("demo+bare").status), (204, 404));
    assert_eq!((named("/v1/load_lora_adapter", "demo+bare"), ask("demo+bare").status), (200, 200));
    assert_eq!(
        (named("/v1/load_lora_adapter", "demo+../facts"), named("/v1/load_lora_adapter", "demo"), named("/v1/unload_lora_adapter", "demo+none")),
        (400, 400, 404)
    );
    // Other files under a listed name: refused until they are loaded.
    std::fs::remove_dir_all(adapters.join("twin/index")).unwrap();
    let refused = ask("demo+twin");
    assert!(refused.status == 409 && refused.body.contains("load it anew"), "{}", refused.body);
    assert_eq!((named("/v1/load_lora_adapter", "demo+twin"), ask("demo+twin").status), (200, 200));
}

/// A copy taken while the service works has all that it names, and serves in its place.
#[test]
fn a_backup_serves_in_its_place() {
    let (dir, server, key) = fresh("serve-backup");
    let answer = server.call(&key, "POST", "/v1/completions", &question(&json!({}))).json();
    let request = answer["poa"]["request"].as_str().unwrap();
    assert_eq!(server.call(&key, "POST", &format!("/v1/requests/{request}/proof"), &Value::Null).status, 202);
    server.proven(&key, request);
    let order = json!({ "base": "demo", "name": "later", "datanet": "facts", "version": 1, "settings": { "epochs": 12, "rank": 4 } });
    let training = server.call(&key, "POST", "/v1/training-jobs", &order).json()["id"].as_str().unwrap().to_owned();
    while server.get(&key, &format!("/v1/training-jobs/{training}")).json()["epochs"].as_array().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let out = dir.with_file_name("serve-backup-copy");
    let _ = std::fs::remove_dir_all(&out);
    let copied = poa(["backup", "--data", &text(&dir), "--out", &text(&out)]).success();
    assert_eq!((&copied["files"], &copied["models"], &copied["trainings"]), (&json!(3), &json!(2), &json!(1)), "{copied}");
    let again = poa(["backup", "--data", &text(&dir), "--out", &text(&out)]);
    assert!(again.status == 2 && again.json["error"].as_str().unwrap().contains("exists"), "{again:?}");
    let nothing = poa(["backup", "--data", &text(dir.join("models")), "--out", &text(dir.join("copy"))]);
    assert!(nothing.status == 2 && nothing.json["error"].as_str().unwrap().contains("poa.db"), "{nothing:?}");
    // A file that isn't what it was isn't copied as if it were.
    let proof = server.get(&key, &format!("/v1/requests/{request}/proof")).json()["result"]["proof"].as_str().unwrap().to_owned();
    server.kill();
    let damaged = dir.join("files").join(&proof[..2]).join(&proof);
    std::fs::write(&damaged, b"another").unwrap();
    let broken = poa(["backup", "--data", &text(&dir), "--out", &text(dir.join("copy"))]);
    assert!(broken.status == 2 && !dir.join("copy").exists(), "{broken:?}");
    std::fs::remove_dir_all(&dir).unwrap();
    let server = Server::start(&out);
    assert_eq!(server.admin_key, None, "keys are in it");
    let kept = server.get(&key, &format!("/v1/requests/{request}/proof")).json();
    assert_eq!((&kept["state"], &kept["result"]["proof"]), (&json!("done"), &json!(proof)));
    assert_eq!(server.get(&key, &format!("/v1/requests/{request}/statement.json")).status, 200);
    server.trained(&key, &training);
    assert_eq!(server.call(&key, "POST", "/v1/completions", &question(&json!({ "model": "demo+later" }))).status, 200);
}

/// An answer is asked for, proven, paid: killed in the middle of each, and by nobody twice. What the chain took is checked with the files alone.
#[test]
#[ignore = "takes ten minutes and 5 GB"]
fn an_answer_is_paid_for() {
    let (dir, mut server, key) = fresh("serve-settlement");
    let answer = server.call(&key, "POST", "/v1/completions", &question(&json!({}))).json();
    let id = answer["poa"]["request"].as_str().unwrap().to_owned();
    let path = format!("/v1/requests/{id}");
    let (mut killed, start) = (vec![], Instant::now());
    assert_eq!(server.call(&key, "POST", &format!("{path}/settlement"), &Value::Null).status, 202);
    let settlement = loop {
        let settlement = server.get(&key, &format!("{path}/settlement")).json();
        let phase = settlement["job"]["phase"].as_str().unwrap_or_default().to_owned();
        assert!(["queued", "running", "done"].contains(&settlement["job"]["state"].as_str().unwrap()), "{settlement}");
        if settlement["state"] == "paid" && settlement["job"]["state"] == "done" {
            break settlement;
        }
        // Once while the key is made, once after the fee is escrowed, once while the proof is wrapped.
        let stage = if settlement["steps"]["proven"].is_object() { 2 } else { usize::from(settlement["steps"]["escrowed"].is_object()) };
        if !phase.is_empty() && !killed.contains(&stage) {
            std::thread::sleep(Duration::from_secs(2));
            let states = server.get(&key, &path).json();
            let expected = [("proving", "queued"), ("proving", "escrowed"), ("wrapping", "escrowed")][stage];
            assert_eq!((&states["execution"]["state"], &states["settlement"]["state"]), (&json!(expected.0), &json!(expected.1)), "{states}");
            assert_eq!(server.call(&key, "DELETE", &format!("{path}/settlement"), &Value::Null).status == 409, stage > 0);
            if stage == 0 {
                assert_eq!(server.call(&key, "POST", &format!("{path}/settlement"), &Value::Null).status, 202, "cancelled, and asked for again");
            }
            killed.push(stage);
            server.kill();
            server = Server::start(&dir);
        }
        assert!(start.elapsed() < Duration::from_secs(3600), "{settlement}");
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!(killed, [0, 1, 2]);
    // What the contract took, a browser is given to verify.
    let page = server.page(&key, &format!("/requests/{id}/settlement/verify"));
    assert!(page.status == 200 && page.body.contains(settlement["steps"]["escrowed"]["request_id"].as_str().unwrap()), "{}", page.body);
    let states = server.get(&key, &path).json();
    assert_eq!([&states["fulfilment"], &states["execution"], &states["settlement"]].map(|s| s["state"].clone()), ["answered", "wrapped", "paid"]);
    let gas = settlement["steps"]["settled"]["gas_used"].as_u64().unwrap();
    assert!((400_000..600_000).contains(&gas), "{settlement}");
    // Seven tenths of the fee, but for what rounding leaves.
    let amount = |p: &Value| p["amount"].as_str().unwrap().parse::<u128>().unwrap();
    let payouts = settlement["payouts"].as_array().unwrap();
    let paid: u128 = payouts.iter().map(amount).sum();
    assert!((699_999_999_999_900..=700_000_000_000_000).contains(&paid), "{settlement}");
    let attribution = server.get(&key, &format!("{path}/attribution")).json();
    assert_eq!(attribution["weights"][0]["contributor"], payouts[0]["contributor"], "the first contributor gets most");
    let account = server.get(&key, &format!("/v1/contributors/{}", payouts[0]["contributor"].as_str().unwrap())).json();
    assert_eq!(account["credits"][0]["paid"], payouts[0]["amount"], "{account}");
    // Asked for again, it is what it is.
    assert_eq!(server.call(&key, "POST", &format!("{path}/settlement"), &Value::Null).status, 200);
    assert_eq!(server.get(&key, "/v1/settlements").json()["data"][0]["payouts"], settlement["payouts"]);
    let file = |step: &str, name: &str| {
        let hash = settlement["steps"][step][name].as_str().unwrap();
        dir.join("files").join(&hash[..2]).join(hash)
    };
    let (proof, statement, vk) = (file("wrapped", "outer_proof"), file("proven", "statement"), file("wrapped", "key"));
    let verified = poa(["verify", &text(&proof), "--statement", &text(&statement), "--key", &text(&vk)]).success();
    assert_eq!((&verified["valid"], &verified["insecure_srs"]), (&json!(true), &json!(true)), "{verified}");
    let published: Value = serde_json::from_str(&server.get(&key, settlement["files"].as_array().unwrap()[1].as_str().unwrap()).body).unwrap();
    assert!(published["requests"][0]["tokens"].get("public").is_none() && !published.to_string().contains("Skarn"), "{published}");
    // Who has the chain's request id, or the key, finds the payment.
    for digits in [&settlement["steps"]["escrowed"]["request_id"], &settlement["steps"]["offered"]["key_digest"]] {
        let found = server.get(&key, &format!("/v1/search?q={}", &digits.as_str().unwrap()[..12])).json();
        assert!(found["data"].as_array().unwrap().iter().any(|find| find["kind"] == "settlement"), "{found}");
    }
    // A second answer needs no key, contracts or registration; a policy asks for it.
    let policy = |model: &str, body: Value| server.call(&key, "PUT", &format!("/v1/policies/{model}"), &body).status;
    assert_eq!(policy("demo+facts", json!({ "settlement_bps": 10_000 })), 200);
    let second = server.call(&key, "POST", "/v1/completions", &question(&json!({}))).json();
    let second = second["poa"]["request"].as_str().unwrap();
    assert_ne!(server.get(&key, &format!("/v1/requests/{second}/settlement")).json()["state"], "none");
}

/// Who may have what settled, what policies are, and what is refused.
#[test]
fn settlements_and_policies_are_refused_by_name() {
    let (_, server, admin) = fresh("serve-policies");
    let made = |name: &str| server.call(&admin, "POST", "/v1/keys", &json!({ "name": name })).json()["key"].as_str().unwrap().to_owned();
    let (one, two) = (made("one"), made("two"));
    let ask = |model: &str| {
        let answer = server.call(&one, "POST", "/v1/completions", &question(&json!({ "model": model }))).json();
        answer["poa"]["request"].as_str().unwrap().to_owned()
    };
    let policy = |key: &str, model: &str, body: Value| {
        let response = server.call(key, "PUT", &format!("/v1/policies/{model}"), &body);
        (response.status, response.json()["error"]["param"].clone())
    };
    assert_eq!(policy(&one, "demo+facts", json!({ "proof_bps": 1 })).0, 403);
    assert_eq!(policy(&admin, "other", json!({ "proof_bps": 1 })).0, 404);
    for (model, name, value) in [
        ("demo+facts", "proof_bps", json!(10_001)),
        ("demo+facts", "share", json!(1)),
        ("demo", "settlement_bps", json!(1)),
        ("demo", "proof_bps", json!(-1)),
    ] {
        assert_eq!(policy(&admin, model, json!({ name: value })), (400, json!(name)));
    }
    let bare = ask("demo");
    let settle = |key: &str, id: &str| server.call(key, "POST", &format!("/v1/requests/{id}/settlement"), &Value::Null);
    let refused = settle(&one, &bare);
    assert!(refused.status == 409 && refused.body.contains("nobody to pay"), "{}", refused.body);
    let answered = ask("demo+facts");
    let path = format!("/v1/requests/{answered}");
    let states = server.get(&one, &path).json();
    let names = ["fulfilment", "execution", "settlement"].map(|name| states[name]["state"].as_str().unwrap().to_owned());
    assert_eq!(names, ["answered", "none", "none"]);
    assert_eq!([settle(&two, &answered).status, server.get(&one, &format!("{path}/settlement")).status], [404, 404]);
    let unknown = server.call(&one, "POST", &format!("{path}/settlement"), &json!({ "amount": 1 }));
    assert_eq!((unknown.status, &unknown.json()["error"]["param"]), (400, &json!("amount")));
    assert_eq!(settle(&one, &answered).status, 202);
    for path in [format!("{path}/settlement"), format!("/v1/settlements/{answered}"), format!("/v1/settlements/{answered}/files/outer-proof.json")] {
        assert_eq!(server.get(&two, &path).status, 404, "{path}");
    }
    assert_eq!(server.get(&one, &format!("/v1/settlements/{answered}/files/outer-proof.json")).status, 409, "it isn't made yet");
    assert_eq!(server.page(&one, &format!("/requests/{answered}/settlement/verify")).status, 409);
    assert_eq!(server.get(&two, "/v1/settlements").json()["data"], json!([]));
    assert_eq!(server.get(&admin, "/v1/settlements").json()["data"][0]["id"], json!(answered));
    let cancelled = server.call(&one, "DELETE", &format!("{path}/settlement"), &Value::Null);
    assert_eq!((cancelled.status, cancelled.json()["state"].clone()), (200, json!("cancelled")), "nothing is paid while the key is made");
    assert_eq!(server.call(&one, "DELETE", &format!("{path}/settlement"), &Value::Null).status, 409);
    // Every answer, from now on; a policy outlives the service.
    assert_eq!(policy(&admin, "demo+facts", json!({ "proof_bps": 10_000 })).0, 200);
    assert_eq!(server.get(&admin, "/v1/policies/demo+facts").json(), json!({ "model": "demo+facts", "proof_bps": 10_000, "settlement_bps": 0 }));
    let proven = ask("demo+facts");
    server.proven(&one, &proven);
    assert_eq!(server.get(&one, &format!("/v1/requests/{proven}")).json()["execution"]["state"], "proven");
    assert_eq!(server.get(&one, &format!("/v1/requests/{proven}/settlement")).status, 404);
}
