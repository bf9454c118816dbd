//! What can be found, by whom, and what a contributor is told about one answer.

mod common;

use common::scratch;
use common::served::{Server, copy, data};
use serde_json::{Value, json};

/// A service with a private datanet of two versions and a model of the first; keys by name.
struct Story {
    server: Server,
    admin: String,
    olga: String,
    other: String,
    mia: String,
    zoe: String,
    eve: String,
    una: String,
}

const BELLS: [(&str, &str); 8] = [
    ("Mill", "brass"),
    ("Wharf", "iron"),
    ("Tower", "silver"),
    ("Bridge", "copper"),
    ("Market", "bronze"),
    ("Chapel", "tin"),
    ("Orchard", "gold"),
    ("Quarry", "steel"),
];
const LATER: &str = "The bell of Chapel is tin and was cast far away.";
const ASKED: &str = "The bell of Mill";

/// Three samples of every bell.
fn facts() -> Vec<String> {
    let of = |(place, metal): &(&str, &str)| {
        [
            format!("The bell of {place} is {metal}."),
            format!("Children who pass {place} hear {metal} ring."),
            format!("Question: what rings in {place}? Answer: {metal}."),
        ]
    };
    BELLS.iter().flat_map(of).collect()
}

fn lines(samples: &[(&str, &str)]) -> String {
    samples.iter().map(|(who, text)| json!({ "contributor": who, "text": text }).to_string() + "\n").collect()
}

impl Story {
    fn begin() -> Self {
        let dir = scratch("explore");
        copy(&data().0.join("models"), &dir.join("models"));
        let server = Server::start_bare(&dir, &[]);
        let admin = server.admin_key.clone().unwrap();
        let key = |name: &str, scope: &str| {
            let made = server.call(&admin, "POST", "/v1/keys", &json!({ "name": name, "scope": scope }));
            made.json()["key"].as_str().unwrap().to_owned()
        };
        let (olga, other) = (key("olga", "owner"), key("otto", "owner"));
        let (mia, zoe, eve) = (key("mia", "contributor"), key("zoe", "contributor"), key("eve", "contributor"));
        let una = key("una", "user");
        let story = Self { admin: admin.clone(), olga, other, mia, zoe, eve, una, server };
        story.post(&story.olga, "/v1/datanets", &json!({ "name": "bells", "licence": "CC0-1.0" }), 201);
        let facts = facts();
        let mut first: Vec<(&str, &str)> = facts.iter().map(|text| ("mia", text.as_str())).collect();
        first.extend([("zoe", facts[0].as_str()), ("ann", "A fisher mends a torn net beside the quay at noon.")]);
        story.publish(&lines(&first));
        story.post(&story.mia, "/v1/datanets/bells/versions/1/withdrawals", &json!({ "sample": 1 }), 200);
        story.publish(&lines(&[("mia", LATER)]));
        let order = json!({ "base": "demo", "name": "bells", "datanet": "bells", "version": 1 });
        let training = story.post(&story.olga, "/v1/training-jobs", &order, 202)["id"].as_str().unwrap().to_owned();
        story.server.trained(&story.olga, &training);
        story
    }

    fn post(&self, key: &str, path: &str, body: &Value, status: u16) -> Value {
        let response = self.server.call(key, "POST", path, body);
        assert_eq!(response.status, status, "{path}: {}", response.body);
        response.json()
    }

    fn publish(&self, samples: &str) {
        let authorization = format!("Bearer {}", self.olga);
        let path = "/v1/datanets/bells/submissions?filename=a.jsonl";
        let submitted = self.server.send("POST", path, &[("authorization", &authorization)], samples);
        assert_eq!(submitted.status, 201, "{}", submitted.body);
        self.post(&self.olga, &format!("/v1/datanets/bells/submissions/{}", submitted.json()["id"]), &json!({ "decision": "approve" }), 200);
        self.post(&self.olga, "/v1/datanets/bells/versions", &Value::Null, 201);
    }

    fn ask(&self, key: &str) -> String {
        let body = json!({ "model": "demo+bells", "prompt": ASKED, "max_tokens": 4 });
        self.post(key, "/v1/completions", &body, 200)["poa"]["request"].as_str().unwrap().to_owned()
    }

    fn why(&self, key: &str, request: &str, name: &str, status: u16) -> Value {
        let response = self.server.get(key, &format!("/v1/requests/{request}/attribution/{name}"));
        assert_eq!(response.status, status, "{name}: {}", response.body);
        response.json()
    }

    fn search(&self, key: &str, query: &str) -> Vec<(String, String)> {
        let response = self.server.get(key, &format!("/v1/search?q={query}"));
        assert_eq!(response.status, 200, "{query}: {}", response.body);
        let text = |find: &Value, name: &str| find[name].as_str().unwrap().to_owned();
        response.json()["data"].as_array().unwrap().iter().map(|find| (text(find, "kind"), text(find, "page"))).collect()
    }
}

/// Samples by verdict, as numbers.
fn verdicts(why: &Value, verdict: &str) -> Vec<u64> {
    let samples = why["samples"].as_array().unwrap().iter().filter(|s| s["verdict"] == verdict);
    let mut numbers: Vec<u64> = samples.map(|s| s["sample"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// One story, since a model is trained for it: who is told what, before and after the proof.
#[test]
fn why_somebody_earned_and_what_can_be_found() {
    let story = Story::begin();
    let request = story.ask(&story.una);
    samples_are_explained(&story, &request);
    others_are_told_nothing(&story, &request);
    proofs_are_what_is_told(&story, &request);
    hashes_lead_to_pages(&story, &request);
    pages_show_it(&story, &request);
}

fn samples_are_explained(story: &Story, request: &str) {
    let mia = story.why(&story.mia, request, "mia", 200);
    assert_eq!((&mia["basis"], &mia["statement_digest"]), (&json!("computed"), &Value::Null));
    assert_eq!(mia["datanet"], json!({ "name": "bells", "version": 1 }));
    let relevant = verdicts(&mia, "relevant");
    assert!(!relevant.is_empty(), "{mia}");
    // Of sentences so much alike some count as copies.
    assert_eq!(relevant.len() + verdicts(&mia, "below_floor").len() + verdicts(&mia, "copy").len(), facts().len());
    assert_eq!(verdicts(&mia, "not_in_version").len(), 1, "{mia}");
    let samples = mia["samples"].as_array().unwrap();
    let sum: u64 = samples.iter().map(|s| s["relevance"].as_u64().unwrap()).sum();
    assert_eq!((json!(sum), sum > 0), (mia["weight"].clone(), true));
    let floor = mia["floor"]["score"].as_i64().unwrap();
    for sample in samples.iter().filter(|s| s["score"].is_i64()) {
        let score = sample["score"].as_i64().unwrap();
        assert_eq!(sample["relevance"].as_i64().unwrap(), (score - floor).max(0), "{sample}");
    }
    assert_eq!(mia["floor"]["best"].as_i64().unwrap() / 2, floor);
    assert_eq!((&mia["floor"]["set_by"]["sample"], samples[0]["score"].as_i64()), (&samples[0]["sample"], mia["floor"]["best"].as_i64()));
    let sample = |number: u64| samples.iter().find(|s| s["sample"] == number && s["version"].is_null()).unwrap();
    assert_eq!((&sample(1)["withdrawn"], &sample(0)["withdrawn"], &sample(0)["text"]), (&json!(true), &json!(false), &json!(facts()[0])));
    let later = samples.last().unwrap();
    assert_eq!((&later["text"], &later["version"], &later["score"]), (&json!(LATER), &json!(2), &Value::Null));
    // A copy has no score, and says what it copies.
    let zoe = story.why(&story.zoe, request, "zoe", 200);
    assert_eq!((&zoe["weight"], verdicts(&zoe, "copy")), (&json!(0), vec![24]));
    assert_eq!(zoe["samples"][0]["copy_of"], json!({ "sample": 0, "contributor": "mia" }));
}

fn others_are_told_nothing(story: &Story, request: &str) {
    // Who asked learns numbers, who keeps the datanet texts too; the contributor learns nothing of what was asked.
    let asked = story.why(&story.una, request, "mia", 200);
    assert!(asked["samples"].as_array().unwrap().iter().all(|s| s["text"].is_null() && s["withdrawn"] == false), "{asked}");
    assert_eq!(verdicts(&asked, "not_in_version"), [0; 0], "other versions aren't theirs to know");
    for key in [&story.olga, &story.admin] {
        assert!(story.why(key, request, "mia", 200)["samples"][0]["text"].is_string());
    }
    let told = story.why(&story.mia, request, "mia", 200);
    assert!(told.get("prompt").is_none() && told.get("answer").is_none() && told.get("tokens").is_none() && !told.to_string().contains("una"));
    let unknown = story.why(&story.eve, &"0".repeat(64), "eve", 404);
    let refused = [(&story.eve, "eve"), (&story.mia, "ann"), (&story.mia, "zoe"), (&story.other, "mia"), (&story.zoe, "mia")];
    for (key, name) in refused {
        assert_eq!(story.why(key, request, name, 404), unknown, "{name}: who may not ask isn't told whether there is such a request");
    }
    let user = story.post(&story.admin, "/v1/keys", &json!({ "name": "ulf", "scope": "user" }), 201)["key"].as_str().unwrap().to_owned();
    assert_eq!(story.why(&user, request, "mia", 404), unknown);
    assert_eq!(story.why(&story.una, request, "nobody", 404)["error"]["code"], "not_found");
    // Of a model that can't be attributed, who asked is told so and nobody else anything.
    let body = json!({ "model": "demo", "prompt": ASKED, "max_tokens": 2 });
    let bare = story.post(&story.una, "/v1/completions", &body, 200)["poa"]["request"].as_str().unwrap().to_owned();
    story.why(&story.una, &bare, "mia", 409);
    assert_eq!(story.why(&story.mia, &bare, "mia", 404), unknown);
}

fn proofs_are_what_is_told(story: &Story, request: &str) {
    story.post(&story.una, &format!("/v1/requests/{request}/proof"), &Value::Null, 202);
    let result = story.server.proven(&story.una, request)["result"].clone();
    let statement: Value = story.server.get(&story.una, &format!("/v1/requests/{request}/statement.json")).json();
    let number = statement["index"]["contributors"].as_array().unwrap().iter().position(|c| c == "mia").unwrap();
    let mia = story.why(&story.mia, request, "mia", 200);
    assert_eq!((&mia["basis"], &mia["statement_digest"]), (&json!("proven"), &result["statement_digest"]));
    assert_eq!((&mia["weight"], &mia["total"]), (&statement["requests"][0]["weights"][number], &statement["requests"][0]["total"]));
    // An account names the answers to ask about once they were attributed: with a share, and without.
    assert_eq!(story.server.get(&story.una, &format!("/v1/requests/{request}/attribution")).status, 200);
    let credits = |key: &str, name: &str, which: &str| story.server.get(key, &format!("/v1/contributors/{name}")).json()[which].clone();
    assert_eq!(credits(&story.mia, "mia", "credits")[0]["request"], request);
    assert_eq!(credits(&story.zoe, "zoe", "without")[0]["request"], request);
    assert_eq!((credits(&story.eve, "eve", "without"), credits(&story.zoe, "zoe", "credits")), (json!([]), json!([])));
    let proofs = |key: &str| story.server.get(key, "/v1/proofs").json()["data"].as_array().unwrap().len();
    assert_eq!([&story.una, &story.admin, &story.mia].map(|key| proofs(key)), [1, 1, 0]);
}

fn hashes_lead_to_pages(story: &Story, request: &str) {
    let is = |found: Vec<(String, String)>, kind: &str, page: &str| assert_eq!(found, [(kind.to_owned(), page.to_owned())]);
    let proof = story.server.get(&story.una, &format!("/v1/requests/{request}/proof")).json()["result"].clone();
    let hash = |name: &str| proof[name].as_str().unwrap().to_owned();
    is(story.search(&story.una, request), "request", &format!("/requests/{request}"));
    is(story.search(&story.una, &request[..10].to_uppercase()), "request", &format!("/requests/{request}"));
    for name in ["statement_digest", "proof", "statement"] {
        is(story.search(&story.una, &hash(name)), "proof", &format!("/proofs/{request}"));
        assert_eq!(story.search(&story.mia, &hash(name)), [], "{name} is another's");
    }
    assert_eq!(story.search(&story.olga, request), []);
    let model = story.server.get(&story.una, "/v1/models/demo+bells").json();
    let pin = |of: &str| model["generation"][of].as_str().unwrap().to_owned();
    is(story.search(&story.eve, &pin("adapter")), "model", "/models/demo%2Bbells");
    is(story.search(&story.eve, &format!("0x{}", pin("index"))), "model", "/models/demo%2Bbells");
    assert_eq!(story.search(&story.eve, &pin("base")).len(), 3, "every model on it");
    let root = story.server.get(&story.una, "/v1/datanets/bells").json()["versions"][1]["root"].as_str().unwrap().to_owned();
    is(story.search(&story.una, &root), "version", "/datanets/bells/versions/1");
    assert_eq!(story.search(&story.una, "BELLS").len(), 2, "a model and a datanet");
    is(story.search(&story.mia, "mia"), "contributor", "/contributors/mia");
    assert_eq!((story.search(&story.una, "mia"), story.search(&story.una, "0000000000000000")), (vec![], vec![]));
    let training = story.server.get(&story.olga, "/v1/training-jobs").json()["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((story.search(&story.olga, &training).len(), story.search(&story.other, &training).len()), (1, 0));
    for wrong in ["/v1/search", "/v1/search?q=", "/v1/search?q=a&of=b", &format!("/v1/search?q={}", "a".repeat(201))] {
        let refused = story.server.get(&story.una, wrong);
        assert!(refused.status == 400 && refused.json()["error"]["param"] == "q", "{wrong}: {}", refused.body);
    }
    // Of a model that is served no more, the answers that the caller may see are left.
    let unloaded = story.server.call(&story.admin, "POST", "/v1/unload_lora_adapter", &json!({ "lora_name": "demo+bells" }));
    assert_eq!(unloaded.status, 204);
    is(story.search(&story.una, &pin("adapter")), "request", &format!("/requests/{request}"));
    assert_eq!(story.search(&story.eve, &pin("adapter")), []);
    story.why(&story.una, request, "mia", 404);
    story.post(&story.admin, "/v1/load_lora_adapter", &json!({ "lora_name": "demo+bells" }), 200);
}

fn pages_show_it(story: &Story, request: &str) {
    let (una, mia) = (story.server.cookie(&story.una), story.server.cookie(&story.mia));
    let page = |cookie: &str, path: &str, status: u16| {
        let response = story.server.send("GET", path, &[("cookie", cookie)], "");
        assert_eq!(response.status, status, "{path}: {}", response.body);
        response
    };
    let found = page(&una, &format!("/explore?q={request}"), 303);
    assert_eq!(found.headers["location"], format!("/requests/{request}"));
    assert!(page(&una, "/explore?q=bells", 200).body.contains("/models/demo%2Bbells"));
    let evil = page(&una, "/explore?q=%3Cscript%3Ealert(1)%3C/script%3E", 200).body;
    assert!(evil.contains("Nothing that you may see") && !evil.contains("<script>alert"), "{evil}");
    let overview = page(&una, "/explore", 200).body;
    assert!(overview.contains(&format!("/proofs/{request}")) && !page(&mia, "/explore", 200).body.contains("/proofs/"), "{overview}");
    assert!(page(&mia, "/models/demo+bells", 200).body.contains("bells, version 1"));
    page(&mia, "/models/none", 404);
    let proof = page(&una, &format!("/proofs/{request}"), 200).body;
    assert!(proof.contains("poa verify proof.bin") && proof.contains("&quot;relation&quot;") || proof.contains("&#34;relation&#34;"), "{proof}");
    page(&mia, &format!("/proofs/{request}"), 404);
    page(&mia, &format!("/proofs/{request}/verify"), 404);
    let told = page(&mia, &format!("/requests/{request}/why?contributor=mia"), 200).body;
    assert!(told.contains("<b>Proven</b>") && told.contains("Earned: its score") && told.contains("taken back since"), "{told}");
    // As bells' samples say the same words, what was asked is looked for by its page.
    assert!(!told.contains(&format!("href=\"/requests/{request}\"")) && told.contains("belongs to whoever asked"), "{told}");
    page(&mia, &format!("/requests/{request}"), 404);
    page(&mia, &format!("/requests/{request}/why?contributor=ann"), 404);
    // WebAssembly runs on the page that verifies, and nowhere else.
    let policy = |path: &str| page(&una, path, 200).headers["content-security-policy"].contains("wasm-unsafe-eval");
    let verify = format!("/proofs/{request}/verify");
    assert_eq!(
        [verify.as_str(), "/verify", "/verify-worker.js", "/", "/explore", "/verify.js", "/live.js"].map(policy),
        [true, true, true, false, false, false, false]
    );
    assert_eq!(page("", "/verifier.wasm", 200).headers["content-type"], "application/wasm");
    // An answer as it grows, for who has a session and its form's token.
    let form = ("content-type", "application/x-www-form-urlencoded");
    let home = page(&una, "/", 200).body;
    let token = home.split("name=\"form_token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let stream = |token: &str, prompt: &str| {
        let body = format!("model=demo%2Bbells&prompt={prompt}&form_token={token}");
        story.server.send("POST", "/ask/stream", &[form, ("cookie", &una)], &body)
    };
    let answer = stream(&token, "The+bell+of+Mill");
    assert!(answer.headers["content-type"].starts_with("text/event-stream") && answer.body.contains("\"request\":\""), "{}", answer.body);
    assert_eq!([stream("0", "a").status, stream(&token, "+").status], [403, 400]);
    assert_eq!(story.server.send("POST", "/ask/stream", &[form], "model=a&prompt=a&form_token=a").status, 303);
}
