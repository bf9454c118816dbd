//! The demo from end to end by the binary: its JSON, its proof under tampering, its audit.

mod common;

use circuits::statement::{Statement, prompt_digest};
use common::{check_invalid, check_proof_figures, check_unusable, check_weights, copy_dir, flip, poa, read_json, scratch, text, write_json};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

struct Demo {
    dir: PathBuf,
    report: Value,
    /// Registrations that were verified.
    accepted: String,
}

/// One demo, training included, for all tests of this file.
fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let dir = scratch("demo");
        let report = poa(["demo", "--no-settlement", "--queries", "--out", &text(&dir)]).success();
        let accepted = text(dir.join("accepted.json"));
        poa(["registration", "verify", &text(dir.join("index/registration")), "--accept", &accepted]).success();
        Demo { dir, report, accepted }
    })
}

fn verify(proof: &Path, statement: &Path) -> common::Ran {
    poa(["verify", &text(proof), "--statement", &text(statement), "--accepted", &demo().accepted])
}

fn audit(run: &Path, statement: &Path) -> common::Ran {
    let dir = &demo().dir;
    let datanet = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/datanet.jsonl");
    let [model, adapter, index] = ["model", "adapter", "index"].map(|d| text(dir.join(d)));
    let (run, datanet, statement) = (text(run), text(datanet), text(statement));
    poa(["audit", &run, "--model", &model, "--adapter", &adapter, "--index", &index, "--datanet", &datanet, "--statement", &statement])
}

/// The demo's statement, changed, in a file.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut statement = read_json(&demo().dir.join("statement.json"));
    let before = statement.clone();
    change(&mut statement);
    assert_ne!(statement, before, "{name} changes nothing");
    let path = demo().dir.join(format!("statement-{name}.json"));
    write_json(&path, &statement);
    path
}

fn increment(value: &mut Value) {
    *value = json!(value.as_u64().unwrap() + 1);
}

#[test]
fn reports_answer_weights_and_proof() {
    let report = &demo().report;
    assert!(report["answer"].as_str().is_some_and(|a| !a.is_empty()), "{report}");
    check_weights(&report["weights"]);
    check_proof_figures(&report["proof"]);
    assert_eq!(report["verified"], true);
}

/// Of the held-out queries that are answered, at least nine in ten pay the contributor of the fact most and put a sample that states it first;
/// three quarters of all relevance are on such samples. In as many, the word that carries most of the best sample's score is the fact's.
#[test]
fn the_right_contributor_comes_first() {
    let queries = &demo().report["queries"];
    let count = |key: &str| queries[key].as_u64().unwrap_or(0);
    assert!(count("total") >= 40, "{queries}");
    assert!(10 * count("answered") >= 8 * count("total"), "{queries}");
    for measure in ["contributor_first", "sample_first", "word_first"] {
        assert!(10 * count(measure) >= 9 * count("answered"), "{queries}");
    }
    assert!(queries["relevance_share"].as_f64().is_some_and(|share| share >= 0.75), "{queries}");
    assert_eq!(demo().report["weights"][0]["contributor"], "jonas", "the default prompt asks for one of their facts");
}

#[test]
fn its_proof_verifies() {
    let dir = &demo().dir;
    let report = verify(&dir.join("proof.bin"), &dir.join("statement.json")).success();
    assert_eq!((&report["valid"], &report["reason"]), (&json!(true), &Value::Null));
    assert!(report["seconds"].as_f64().is_some_and(|s| s > 0.0) && report["security_bits"].as_f64().is_some_and(|b| b >= 100.0), "{report}");
}

/// A proof is valid for whatever model its statement names: which one that is has to be compared.
#[test]
fn verify_pins_what_it_is_told_to() {
    let dir = &demo().dir;
    let (proof, statement) = (text(dir.join("proof.bin")), dir.join("statement.json"));
    let args = ["verify", &proof, "--statement", &text(&statement), "--accepted", &demo().accepted];
    let expecting = |value: &Value| {
        let path = dir.join("expect.json");
        write_json(&path, value);
        poa(args.into_iter().chain(["--expect", &text(path)]))
    };
    let plain = poa(args).success();
    assert_eq!((&plain["pinned"], plain["index_digest"].is_string()), (&json!([]), true));
    let own = expecting(&json!({ "relation": plain["relation"] })).success();
    assert_eq!((&own["valid"], &own["pinned"]), (&json!(true), &json!(["relation"])));
    let other = expecting(&json!({ "relation": "07".repeat(32) }));
    check_invalid(&other);
    assert!(other.json["reason"].as_str().is_some_and(|r| r.contains("its relation is")), "{other:?}");
    check_unusable(&expecting(&json!({ "relatoin": plain["relation"] })), "relatoin");
    check_unusable(&expecting(&json!({ "base": "07".repeat(32) })), "native profile");
    let keys = [["--key", "outer.vk"], ["--key-digest", &"07".repeat(32)]];
    keys.iter().for_each(|key| check_unusable(&poa(args.iter().chain(key)), key[0]));
    let words = std::process::Command::new(env!("CARGO_BIN_EXE_poa")).args(args).output().unwrap();
    assert!(String::from_utf8_lossy(&words.stdout).contains("NOTHING WAS PINNED"));
}

#[test]
fn an_altered_statement_does_not_verify() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 8] = [
        ("token", |s| increment(&mut s["requests"][0]["tokens"]["public"]["tokens"][1])),
        ("prompt", |s| increment(&mut s["requests"][0]["tokens"]["public"]["prompt_len"])),
        ("id", |s| s["requests"][0]["id"] = json!("00".repeat(32))),
        ("weight", |s| s["requests"][0]["weights"].as_array_mut().unwrap().rotate_left(1)),
        ("total", |s| increment(&mut s["requests"][0]["total"])),
        ("name", |s| s["index"]["contributors"][0] = json!("somebody-else")),
        ("version", |s| increment(&mut s["index"]["datanet_version"])),
        ("floor", |s| increment(&mut s["relation"]["semantics"]["consts"]["theta"])),
    ];
    let proof = demo().dir.join("proof.bin");
    for (name, change) in changes {
        check_invalid(&verify(&proof, &changed(name, change)));
    }
}

#[test]
fn a_damaged_proof_does_not_verify() {
    let dir = &demo().dir;
    let honest = fs::read(dir.join("proof.bin")).unwrap();
    let mut flipped = honest.clone();
    flipped[honest.len() / 2] ^= 1;
    let cases: [(&str, &[u8]); 5] =
        [("garbage", b"not a proof"), ("empty", b""), ("header", &honest[..5]), ("short", &honest[..honest.len() - 1]), ("flipped", &flipped)];
    for (name, bytes) in cases {
        let path = dir.join(format!("proof-{name}.bin"));
        fs::write(&path, bytes).unwrap();
        check_invalid(&verify(&path, &dir.join("statement.json")));
    }
}

#[test]
fn unusable_input_is_named() {
    let dir = &demo().dir;
    let (proof, statement) = (dir.join("proof.bin"), dir.join("statement.json"));
    check_unusable(&verify(&dir.join("absent.bin"), &statement), "absent.bin");
    check_unusable(&verify(&proof, &dir.join("absent.json")), "absent.json");
    check_unusable(&verify(&proof, &proof), "proof.bin");
    check_unusable(&poa(["verify", &text(&proof)]), "--statement");
    check_unusable(&audit(&dir.join("model"), &statement), "expected a run");
    check_unusable(&poa(["attribute", &text(dir.join("run")), "--index", &text(dir.join("adapter"))]), "expected a index");
}

/// The demo's answer rests on an index that is proven, and says so; without the registration it isn't valid, and a liar's isn't accepted.
#[test]
fn its_index_is_proven() {
    let dir = &demo().dir;
    let (proof, statement, registration) = (text(dir.join("proof.bin")), text(dir.join("statement.json")), dir.join("index/registration"));
    let shown = &demo().report["registration"];
    assert_eq!((&shown["rows"], &shown["earning"]), (&json!(240), &json!(240)));
    let args = ["verify", &proof, "--statement", &statement];
    let missing = poa(args);
    check_invalid(&missing);
    assert!(missing.json["reason"].as_str().is_some_and(|r| r.contains(shown["registration"].as_str().unwrap())), "{missing:?}");
    let with = poa(args.into_iter().chain(["--registration", &text(&registration)])).success();
    assert_eq!(&with["registration"], &shown["registration"]);

    let datanet = text(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/datanet.jsonl"));
    let model = text(dir.join("model"));
    let verify = |dir: &Path| poa(["registration", "verify", &text(dir), "--datanet", &datanet, "--model", &model]);
    assert_eq!(verify(&registration).success()["datanet_compared"], true);
    // A datanet with a sample more, or a beacon that somebody else names, isn't the registered one's.
    let longer = dir.join("longer.jsonl");
    let texts = fs::read_to_string(&datanet).unwrap();
    fs::write(&longer, format!("{texts}{}\n", json!({ "contributor": "zoe", "text": "One more." }))).unwrap();
    let longer = text(longer);
    let args = ["registration", "verify", &text(&registration), "--model", &model, "--datanet", &longer];
    check_invalid(&poa(args));
    poa(args.into_iter().chain(["--limit", "240"])).success();
    check_invalid(&poa(["registration", "verify", &text(&registration), "--beacon", &"07".repeat(32)]));
    // A liar says that row 17 is another contributor's, of another text, or that it doesn't earn; or leaves out a proof.
    type Lie = fn(&mut Value);
    let lies: [(&str, Lie); 4] = [
        ("contributor", |r| increment(&mut r["registration"]["samples"][17]["contributor"])),
        ("text", |r| increment(&mut r["registration"]["samples"][17]["tokens"][1])),
        ("earns", |r| r["registration"]["samples"][17]["earns"] = json!(false)),
        ("window", |r| increment(&mut r["registration"]["max_tokens"])),
    ];
    for (name, lie) in lies {
        let copy = dir.join(format!("registration-{name}"));
        copy_dir(&registration, &copy);
        let mut stated = read_json(&copy.join("registration.json"));
        lie(&mut stated);
        write_json(&copy.join("registration.json"), &stated);
        let refused = verify(&copy);
        check_invalid(&refused);
        assert!(refused.json["reason"].as_str().is_some_and(|r| r.contains("index isn't shown to be well-formed")), "{refused:?}");
    }
    let copy = dir.join("registration-incomplete");
    copy_dir(&registration, &copy);
    fs::remove_file(copy.join("rows-00001.proof")).unwrap();
    let refused = verify(&copy);
    check_invalid(&refused);
    assert!(refused.json["reason"].as_str().is_some_and(|r| r.contains("rows-00001.proof")), "{refused:?}");
    // What is missing is made again, and nothing else.
    let kept = fs::metadata(copy.join("rows-00000.proof")).unwrap().modified().unwrap();
    poa(["registration", "prove", &text(dir.join("index")), "--out", &text(&copy)]).success();
    assert_eq!(fs::metadata(copy.join("rows-00000.proof")).unwrap().modified().unwrap(), kept);
    verify(&copy).success();
}

/// Who changes one row of an index gets no registration of it, and its answers aren't those of the honest one.
#[test]
fn a_changed_row_is_named() {
    let dir = &demo().dir;
    let index = dir.join("index-changed");
    fs::create_dir_all(&index).unwrap();
    for file in ["poa.json", "index.json", "semantics.json", "tensors.safetensors"] {
        fs::copy(dir.join("index").join(file), index.join(file)).unwrap();
    }
    // Row 17 begins at its number times layers, sketch rows and ranks.
    let semantics = read_json(&index.join("semantics.json"));
    let size = |path: [&str; 2]| semantics[path[0]][path[1]].as_u64().unwrap().next_power_of_two();
    let row = size(["shape", "layers"]) * size(["sketch", "rows"]) * size(["lora", "rank"]);
    flip(&index.join("tensors.safetensors"), "Gup", 17 * row as usize + 5);
    let refused = poa(["registration", "prove", &text(&index)]);
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.json["error"].as_str().is_some_and(|e| e.contains("row 17 of the index")), "{refused:?}");
    let (proof, statement) = (text(dir.join("changed/proof.bin")), text(dir.join("changed/statement.json")));
    poa(["prove", &text(dir.join("run")), "--index", &text(&index), "--out", &proof]).success();
    let honest = text(dir.join("index/registration"));
    let refused = poa(["verify", &proof, "--statement", &statement, "--registration", &honest]);
    check_invalid(&refused);
    assert!(refused.json["reason"].as_str().is_some_and(|r| r.contains("of another index")), "{refused:?}");
}

/// A contributor sees that a sample is in the index, anybody that a text isn't; neither can be shown of the other.
#[test]
fn samples_are_members_and_other_texts_absent() {
    let dir = &demo().dir;
    let registration = text(dir.join("index/registration"));
    let [member, absent] = ["member.json", "absent.json"].map(|name| text(dir.join(name)));
    poa(["registration", "member", &registration, "--row", "17", "--out", &member]).success();
    assert!(fs::metadata(&member).unwrap().len() < 4096);
    check_unusable(&poa(["registration", "member", &registration, "--row", "240", "--out", &member]), "no row 240");
    let model = text(dir.join("model"));
    let show = |what: &str| poa(["registration", "absent", &registration, "--text", what, "--model", &model, "--out", &absent]);
    let datanet = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/datanet.jsonl")).unwrap();
    let sample: Value = serde_json::from_str(datanet.lines().nth(17).unwrap()).unwrap();
    check_invalid(&show(sample["text"].as_str().unwrap()));
    show("The keeper of Skarn light is nobody.").success();
    assert!(fs::metadata(&absent).unwrap().len() < 4096);
    let check = |proof: &str, of: &str| poa(["registration", "check", proof, "--registration", of]);
    for (proof, text) in [(&member, sample["text"].as_str().unwrap()), (&absent, "The keeper of Skarn light is nobody.")] {
        assert_eq!(check(proof, &registration).success()["valid"], true);
        check_invalid(&check(proof, &"07".repeat(32)));
        let about = |text: &str| poa(["registration", "check", proof, "--registration", &registration, "--text", text, "--model", &model]);
        assert_eq!(about(text).success()["text_compared"], true);
        check_invalid(&about("The keeper of the Skarn light is nobody."));
    }
    let mut lie = read_json(Path::new(&member));
    increment(&mut lie["member"]["sample"]["contributor"]);
    write_json(&dir.join("lie.json"), &lie);
    check_invalid(&check(&text(dir.join("lie.json")), &registration));
}

#[test]
fn an_audit_agrees() {
    let dir = &demo().dir;
    let report = audit(&dir.join("run"), &dir.join("statement.json")).success();
    assert_eq!(report["agrees"], true, "{report}");
}

/// Expects a difference in `step` that mentions `what`.
fn check_difference(ran: &common::Ran, step: &str, what: &str) {
    assert_eq!(ran.status, 1, "{ran:?}");
    assert_eq!((&ran.json["agrees"], &ran.json["step"]), (&json!(false), &json!(step)), "{ran:?}");
    assert!(ran.json["difference"].as_str().is_some_and(|d| d.contains(what)), "{ran:?}");
}

#[test]
fn an_audit_names_a_flipped_value_of_the_trace() {
    let dir = &demo().dir;
    let run = dir.join("run-flipped");
    copy_dir(&dir.join("run"), &run);
    flip(&run.join("trace.safetensors"), "q", 3);
    check_difference(&audit(&run, &dir.join("statement.json")), "trace", "tensor `q` at [0, 0, 0, 0, 3]");
}

#[test]
fn an_audit_names_what_a_statement_changes() {
    type Change = fn(&mut Value);
    let changes: [(&str, &str, &str, Change); 6] = [
        ("audit-name", "statement", "contributor 0", |s| s["index"]["contributors"][0] = json!("somebody-else")),
        ("audit-version", "statement", "datanet version", |s| increment(&mut s["index"]["datanet_version"])),
        ("audit-root", "statement", "datanet root", |s| s["index"]["datanet_root"] = json!("00".repeat(32))),
        ("audit-floor", "statement", "consts.theta", |s| increment(&mut s["relation"]["semantics"]["consts"]["theta"])),
        ("audit-base", "commitments", "base model", |s| {
            s["base"] = json!("00".repeat(32));
            s["index"]["base"] = json!("00".repeat(32));
        }),
        ("audit-weight", "weights", "the weight of", |s| {
            increment(&mut s["requests"][0]["weights"][0]);
            increment(&mut s["requests"][0]["total"]);
        }),
    ];
    for (name, step, what, change) in changes {
        check_difference(&audit(&demo().dir.join("run"), &changed(name, change)), step, what);
    }
}

#[test]
fn attribute_gives_the_demos_weights() {
    let dir = &demo().dir;
    let report = poa(["attribute", &text(dir.join("run")), "--index", &text(dir.join("index")), "--top", "3"]).success();
    assert_eq!(report["weights"], demo().report["weights"]);
    let scores = report["scores"].as_array().unwrap();
    assert_eq!(scores.len(), 3);
    assert!(scores.iter().all(|s| s["sample"].is_u64() && s["contributor"].is_string() && s["score"].is_i64()), "{report}");
}

/// The words of a report and their shares, after checking that these sum to one but for rounding.
fn word_shares(words: &Value, score: f64) -> Vec<(String, f64)> {
    let pair = |w: &Value| (w["text"].as_str().unwrap().to_owned(), w["share"].as_f64().unwrap());
    let pairs: Vec<(String, f64)> = words.as_array().unwrap_or_else(|| panic!("no words: {words}")).iter().map(pair).collect();
    let sum: f64 = pairs.iter().map(|(_, share)| share).sum();
    // Within 2^-7 of the largest score, as `Division::total` says, and shares have four digits.
    assert!((sum - 1.0).abs() <= 128.0 / score + 1e-4 * pairs.len() as f64, "sum {sum} of {words}");
    pairs
}

fn largest(words: &[(String, f64)]) -> &str {
    words.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("", |(text, _)| text)
}

#[test]
fn attribute_shows_the_words_that_carry_the_scores() {
    let dir = &demo().dir;
    let (run, index) = (text(dir.join("run")), text(dir.join("index")));
    let report = poa(["attribute", &run, "--index", &index]).success();
    let scores = report["scores"].as_array().unwrap();
    assert_eq!((&report["prompt_words"], &report["answer_words"]), (&demo().report["prompt_words"], &demo().report["answer_words"]));
    for sample in &scores[..3] {
        let words = word_shares(&sample["words"], sample["score"].as_f64().unwrap());
        let shown: String = words.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(shown, sample["text"].as_str().unwrap().replace(' ', ""), "every word of the text is there");
        assert!(["Skarn", "Ottar"].contains(&largest(&words)), "the fact carries the score: {sample}");
    }
    assert!(scores[3..].iter().all(|s| s.get("words").is_none()), "only three are divided: {report}");
    let both: Vec<Value> = ["prompt_words", "answer_words"].iter().flat_map(|key| report[key].as_array().unwrap().clone()).collect();
    assert!(["Skarn", "Ottar"].contains(&largest(&word_shares(&json!(both), scores[0]["score"].as_f64().unwrap()))), "{report}");
    assert_eq!(read_json(&dir.join("run/attribution.json"))["scores"][0], scores[0]);

    let without = poa(["attribute", &run, "--index", &index, "--words", "0"]).success();
    assert_eq!((&without["scores"][0].get("words"), &without["answer_words"]), (&None, &json!([])));
    let readable = std::process::Command::new(env!("CARGO_BIN_EXE_poa")).args(["attribute", &run, "--index", &index]).output().unwrap();
    let readable = String::from_utf8(readable.stdout).unwrap();
    let lines: Vec<&str> = readable.lines().filter(|line| line.contains("because of: ")).collect();
    assert!(lines.len() == 3 && lines.iter().all(|line| line.contains("Skarn") || line.contains("Ottar")), "{readable}");
}

#[test]
fn hidden_tokens_are_proven_and_audited() {
    let dir = &demo().dir;
    let (run, index) = (text(dir.join("run")), text(dir.join("index")));
    let (proof, statement) = (dir.join("private/proof.bin"), dir.join("private/statement.json"));
    // A payer's salt needs hidden tokens; with it the prompt's digest is the one that the payer knows.
    let salt = "07".repeat(32);
    let salted = ["prove", &run, "--index", &index, "--prompt-salt", &salt, "--out", &text(&proof)];
    check_unusable(&poa(salted), "public tokens");
    let proven = poa(salted.into_iter().chain(["--private-tokens"])).success();
    check_proof_figures(&proven);
    let stated: Statement = serde_json::from_value(read_json(&statement)).unwrap();
    let run_info = read_json(&dir.join("run/run.json"));
    let tokens: Vec<u32> = serde_json::from_value(run_info["tokens"].clone()).unwrap();
    let prompt = &tokens[..run_info["prompt_len"].as_u64().unwrap() as usize];
    let expected = json!(prompt_digest([7; 32], prompt, stated.relation.tokens));
    assert_eq!(read_json(&statement)["requests"][0]["tokens"]["digests"]["prompt"], expected);
    assert_eq!(proven["requests"][0]["prompt_digest"], expected);
    assert_eq!(verify(&proof, &statement).success()["requests"], proven["requests"]);
    assert_eq!(verify(&proof, &statement).success()["valid"], true);
    check_difference_free_with_proof(&statement, &proof);
    // The other proof, of public tokens, opens nothing.
    check_invalid(&verify(&dir.join("proof.bin"), &statement));
}

fn check_difference_free_with_proof(statement: &Path, proof: &Path) {
    let dir = &demo().dir;
    let datanet = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/datanet.jsonl");
    let [run, model, adapter, index] = ["run", "model", "adapter", "index"].map(|d| text(dir.join(d)));
    let (datanet, statement, proof) = (text(datanet), text(statement), text(proof));
    let args = ["audit", &run, "--model", &model, "--adapter", &adapter, "--index", &index, "--datanet", &datanet, "--statement", &statement];
    assert_eq!(poa(args.into_iter().chain(["--proof", &proof])).success()["agrees"], true);
}
