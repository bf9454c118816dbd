//! Datanets as they really come, by the binary: what is skipped, cut, split and copied is said, and train, index and audit agree on it.

mod common;

use common::{check_unusable, poa, read_json, scratch, text};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Readable output: standard output and standard error.
fn readable(args: &[&str]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_poa")).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn a_check_shows_what_is_skipped_alike_and_copied() {
    let dir = scratch("check");
    let fact = "The lamp of the northern light is tended by Ottar since spring.";
    for (path, text) in [
        ("mill/1.txt", fact),
        ("mill/old/2.txt", "Every morning the miller counts his sacks twice."),
        ("Mill/1.txt", &format!("They say: {fact}")),
        ("ghost/1.txt", fact),
        ("ghost/.DS_Store", "x"),
        (".ipynb_checkpoints/a.txt", fact),
        ("README.md", "about"),
    ] {
        write(&dir, path, text);
    }
    let report = poa(["datanet", "check", &text(&dir)]).success();
    assert_eq!((&report["samples"], &report["contributors"], &report["files"]), (&json!(4), &json!(3), &json!(4)));
    assert_eq!(report["skipped"].as_array().unwrap().iter().map(|s| s["files"].as_u64().unwrap()).sum::<u64>(), 3);
    assert_eq!(report["lookalikes"], json!([["Mill", "mill"]]));
    assert_eq!((&report["copies"]["identical"], &report["copies"]["near"]), (&json!(1), &json!(1)));
    assert_eq!(report["copies"]["clusters"][0]["contributor"], "Mill", "{report}");
    assert_eq!((&report["unit"], &report["lengths"]["shortest"], &report["cut"]), (&json!("words"), &json!(8), &Value::Null));

    let (shown, _) = readable(&["datanet", "check", &text(&dir)]);
    for part in ["skipped 2 files, hidden", ".ipynb_checkpoints", "README.md", "look alike: \"Mill\", \"mill\"", "2 of 4 samples copy", "was first"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn files_are_read_or_refused_by_line() {
    let dir = scratch("files");
    write(
        &dir,
        "marked.JSONL",
        "\u{feff}{\"contributor\":\" ann\",\"text\":\"one\"}\r\n\u{feff}{\"contributor\":\"ann\",\"text\":\"\u{feff}two\"}\n",
    );
    let report = poa(["datanet", "check", &text(dir.join("marked.JSONL"))]).success();
    assert_eq!((&report["samples"], &report["contributors"], &report["marks_removed"]), (&json!(2), &json!(1), &json!(3)));
    assert_eq!(report["renamed"], json!({ " ann": "ann" }));
    write(&dir, "open.csv", "contributor, text\nann, \"one\nbob, two\n");
    check_unusable(&poa(["datanet", "check", &text(dir.join("open.csv"))]), "open.csv, line 2: expected the quote opened here to be closed");
    write(&dir, "twice.jsonl", "{\"contributor\":\"ann\",\"contributor\":\"bob\",\"text\":\"one\"}\n");
    check_unusable(&poa(["datanet", "check", &text(dir.join("twice.jsonl"))]), "duplicate field `contributor`");
}

/// The demo's base and a small datanet: short samples, one long one, a copy under another name.
fn prepared(dir: &Path) -> (String, String) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    let model = text(dir.join("m"));
    poa(["import", &text(demo.join("base")), "--out", &model]).success();
    let samples = fs::read_to_string(demo.join("datanet.jsonl")).unwrap();
    let mut lines: Vec<String> = samples.lines().step_by(7).take(32).map(str::to_owned).collect();
    let field = |line: &str, key: &str| serde_json::from_str::<Value>(line).unwrap()[key].as_str().unwrap().to_owned();
    let long: Vec<String> = samples.lines().skip(3).step_by(50).map(|l| field(l, "text")).collect();
    lines.push(json!({ "contributor": "long", "text": long.join(" ") }).to_string());
    lines.push(json!({ "contributor": "ghost", "text": field(&lines[0], "text") }).to_string());
    let datanet = dir.join("datanet.jsonl");
    fs::write(&datanet, lines.join("\n")).unwrap();
    (model, text(datanet))
}

#[test]
fn train_index_and_audit_agree_on_windows_and_say_what_they_leave_out() {
    let dir = scratch("windows");
    let (model, datanet) = prepared(&dir);
    let path = |name: &str| text(dir.join(name));
    let train = |out: &str, windows: &[&str]| {
        let args =
            ["train", "--model", &model, "--datanet", &datanet, "--rank", "4", "--epochs", "6", "--learning-rate", "0.01", "--max-tokens", "24"];
        poa(args.iter().copied().chain(windows.iter().copied()).chain(["--out", out]))
    };
    let index = |adapter: &str, out: &str, more: &[&str]| {
        let args = ["index", "--model", &model, "--adapter", adapter, "--datanet", &datanet, "--out", out];
        poa(args.iter().copied().chain(more.iter().copied()))
    };

    let cut = train(&path("cut"), &[]);
    assert!(cut.stderr.contains("1 of 34 samples are cut after 24 tokens: "), "{}", cut.stderr);
    let report = cut.success();
    assert!(report["cut_samples"] == 1 && report["cut_share"].as_f64().is_some_and(|share| share > 0.0 && share < 0.5), "{report}");
    let indexed = index(&path("cut"), &path("i-cut"), &[]);
    for part in [
        "1 of 34 samples are cut after 24 tokens",
        "warning: 1 of 34 samples copy earlier ones and don't earn: 1 identical",
        "copied by \"ghost\" (1)",
    ] {
        assert!(indexed.stderr.contains(part), "{part}: {}", indexed.stderr);
    }
    assert_eq!(indexed.success()["identical_copies"], 1);
    let other = index(&path("cut"), &path("i-other"), &["--max-tokens", "20"]);
    assert!(other.stderr.contains("it scores another text"), "{}", other.stderr);

    let split = train(&path("split"), &["--windows", "split"]);
    assert!(split.stderr.contains("split: 34 samples are ") && !split.stderr.contains("are cut"), "{}", split.stderr);
    let rows = split.success()["samples"].as_u64().unwrap();
    assert!(rows > 35, "{rows}");
    let report = index(&path("split"), &path("i-split"), &["--noise-floor", "16383"]).success();
    assert_eq!((report["samples"].as_u64(), report["contributors"].as_u64()), (Some(rows), cut_contributors(&dir)));
    nothing_relevant_is_said_and_audited(&dir, &model, &datanet);
}

fn cut_contributors(dir: &Path) -> Option<u64> {
    read_json(&dir.join("i-cut/index.json"))["contributors"].as_array().map(|c| c.len() as u64)
}

/// Under the highest noise floor nothing is relevant, `attribute` and `verify` say so, and an audit replays the split index.
fn nothing_relevant_is_said_and_audited(dir: &Path, model: &str, datanet: &str) {
    let [adapter, index, run] = ["split", "i-split", "run"].map(|name| text(dir.join(name)));
    let [proof, statement] = ["proof.bin", "statement.json"].map(|name| PathBuf::from(dir).join(name)).map(text);
    poa(["infer", "--model", model, "--adapter", &adapter, "--prompt", "The keeper of", "--max-new-tokens", "2", "--out", &run]).success();
    assert_eq!(poa(["attribute", &run, "--index", &index]).success()["nothing_relevant"], true);
    let said = "No sample passed the noise floor";
    let (shown, _) = readable(&["attribute", &run, "--index", &index]);
    assert!(shown.contains(said) && !shown.contains("(rounding)"), "{shown}");

    poa(["prove", &run, "--index", &index, "--out", &proof]).success();
    let (shown, _) = readable(&["verify", &proof, "--statement", &statement]);
    assert!(shown.contains(said) && !shown.contains("(rounding)"), "{shown}");
    // A floor that pays nobody is the maker's choice; the auditor has to be told of it.
    let args = ["audit", &run, "--model", model, "--adapter", &adapter, "--index", &index, "--datanet", datanet, "--statement", &statement];
    let output = Command::new(env!("CARGO_BIN_EXE_poa")).args(args).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && shown.contains("DIFFERS (index)") && shown.contains("theta"), "{output:?}");
    let audit = poa(args.into_iter().chain(["--noise-floor", "16383"])).success();
    assert_eq!((&audit["agrees"], audit["choices"]["noise_floor"].as_u64()), (&true.into(), Some(16383)));
}
