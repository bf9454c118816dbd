//! Every command on trained models that others made, with a real datanet, as a new user would try it.

mod common;

use common::{asset, check_invalid, check_proof_figures, check_unusable, check_weights, poa, read_json, scratch, text, write_json};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Samples used of the datanet.
const SAMPLES: &str = "64";

struct Real {
    dir: PathBuf,
    datanet: String,
    import: Value,
    train: Value,
    index: Value,
    attribute: Value,
    prove: Value,
}

impl Real {
    fn path(&self, name: &str) -> String {
        text(self.dir.join(name))
    }

    fn audit(&self, run: &str, statement: &str) -> common::Ran {
        let [run, statement, model, adapter, index] = [run, statement, "m", "a", "i"].map(|name| self.path(name));
        let args = ["audit", &run, "--model", &model, "--adapter", &adapter, "--index", &index, "--datanet", &self.datanet];
        poa(args.into_iter().chain(["--statement", &statement]))
    }
}

/// From import to one proof of two runs, once; absent without the shared assets.
fn real() -> Option<&'static Real> {
    static REAL: OnceLock<Option<Real>> = OnceLock::new();
    REAL.get_or_init(make).as_ref()
}

fn make() -> Option<Real> {
    let (source, datanet) = (text(asset("models/tinystories-656k")?), text(asset("datanets/awesome-prompts/samples.jsonl")?));
    let dir = scratch("real-model");
    let [m, a, i, run1, run2, proof] = ["m", "a", "i", "run1", "run2", "proof.bin"].map(|name| text(dir.join(name)));
    let import = poa(["import", &source, "--out", &m]).success();
    // Eight steps: a high rate, so that the adapter learns something.
    let options = ["--limit", SAMPLES, "--epochs", "1", "--rank", "8", "--learning-rate", "0.01"];
    let train = poa(["train", "--model", &m, "--datanet", &datanet, "--out", &a].into_iter().chain(options)).success();
    let args = ["index", "--model", &m, "--adapter", &a, "--datanet", &datanet, "--limit", SAMPLES, "--out", &i];
    let index = poa(args).success();
    for (prompt, run) in [("Once upon a time", &run1), ("I want you to act as", &run2)] {
        poa(["infer", "--model", &m, "--adapter", &a, "--prompt", prompt, "--max-new-tokens", "12", "--out", run]).success();
    }
    let attribute = poa(["attribute", &run1, "--index", &i]).success();
    let prove = poa(["prove", &run1, &run2, "--index", &i, "--out", &proof]).success();
    Some(Real { dir, datanet, import, train, index, attribute, prove })
}

fn check_fidelity(import: &Value, least_agreement: f64) {
    let number = |key: &str| import["fidelity"][key].as_f64().unwrap_or_else(|| panic!("fidelity.{key} is missing: {import}"));
    assert!(number("token_agreement") >= least_agreement, "{import}");
    assert!((number("perplexity_ratio") - 1.0).abs() <= 0.01, "{import}");
}

#[test]
fn integers_are_faithful_to_floats() {
    let Some(real) = real() else { return };
    check_fidelity(&real.import, 0.98);
}

#[test]
fn training_lowers_the_loss() {
    let Some(real) = real() else { return };
    let loss: Vec<f64> = real.train["loss"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert!(loss.last() < loss.first(), "{loss:?}");
}

#[test]
fn attributes_to_contributors() {
    let Some(real) = real() else { return };
    check_weights(&real.attribute["weights"]);
    let scores = real.attribute["scores"].as_array().unwrap();
    assert_eq!(scores.len(), 10);
    assert!(scores.is_sorted_by_key(|s| std::cmp::Reverse(s["score"].as_i64())), "{scores:?}");
}

#[test]
fn one_proof_for_two_runs() {
    let Some(real) = real() else { return };
    check_proof_figures(&real.prove);
    let (proof, statement) = (real.path("proof.bin"), real.path("statement.json"));
    assert_eq!(read_json(statement.as_ref())["requests"].as_array().map(Vec::len), Some(2));
    assert_eq!(poa(["verify", &proof, "--statement", &statement]).success()["valid"], true);
    let mut exchanged = read_json(statement.as_ref());
    exchanged["requests"].as_array_mut().unwrap().swap(0, 1);
    let path = real.path("statement-exchanged.json");
    write_json(path.as_ref(), &exchanged);
    check_invalid(&poa(["verify", &proof, "--statement", &path]));
}

/// What `import`, `train` and `index` commit is what proofs are of; a damaged file is noticed and made again.
#[test]
fn commitments_are_made_once_and_kept() {
    let Some(real) = real() else { return };
    let statement = read_json(real.path("statement.json").as_ref());
    assert_eq!(real.import["commitment"], statement["base"]);
    assert_eq!(real.train["commitment"], statement["adapter"]);
    assert_eq!(real.index["commitment"], statement["index"]["commitment"]);
    let [run, index, proof, file] = ["run1", "i", "again/proof.bin", "i/index.native.commitment"].map(|name| real.path(name));
    let written = |file: &str| std::fs::metadata(file).unwrap().modified().unwrap();
    let (kept, first) = (std::fs::read(&file).unwrap(), written(&file));
    poa(["prove", &run, "--index", &index, "--out", &proof]).success();
    assert_eq!(written(&file), first, "the index' commitment is taken, not made");
    // What is read at once is checked at once; the codeword's rows when they are opened.
    for (at, what) in [(kept.len() - 100, "is made again"), (kept.len() / 2, "may be as it was")] {
        let mut damaged = kept.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        poa(["prove", &run, "--index", &index, "--out", &proof]).success();
        assert!(what == "may be as it was" || std::fs::read(&file).unwrap() == kept, "the index' commitment {what}");
        assert_eq!(poa(["verify", &proof, "--statement", &real.path("again/statement.json")]).success()["valid"], true);
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let Some(real) = real() else { return };
    let mut verify = Command::new(env!("CARGO_BIN_EXE_poa"));
    verify.args(["verify", &real.path("proof.bin"), "--statement", &real.path("statement.json")]);
    let mut child = verify.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn both_runs_pass_the_audit() {
    let Some(real) = real() else { return };
    for run in ["run1", "run2"] {
        assert_eq!(real.audit(run, "statement.json").success()["agrees"], true);
    }
}

#[test]
fn a_run_without_adapter_is_proven_forward_only() {
    let Some(real) = real() else { return };
    let [m, i, run, proof, statement] = ["m", "i", "plain", "plain-proof/proof.bin", "plain-proof/statement.json"].map(|name| real.path(name));
    poa(["infer", "--model", &m, "--prompt", "Once upon a time", "--max-new-tokens", "4", "--out", &run]).success();
    check_proof_figures(&poa(["prove", &run, "--out", &proof]).success());
    assert_eq!(poa(["verify", &proof, "--statement", &statement]).success()["valid"], true);
    assert_eq!(poa(["audit", &run, "--model", &m, "--statement", &statement]).success()["agrees"], true);
    check_unusable(&poa(["attribute", &run, "--index", &i]), "without an adapter");
}

#[test]
fn parts_of_another_model_are_refused() {
    let Some(real) = real() else { return };
    let [m, a, run1, other_adapter, other_index, proof] = ["m", "a", "run1", "other-a", "other-i", "other.bin"].map(|name| real.path(name));
    let options = ["--limit", "16", "--epochs", "1", "--rank", "4", "--batch", "2", "--learning-rate", "0.01"];
    poa(["train", "--model", &m, "--datanet", &real.datanet, "--out", &other_adapter].into_iter().chain(options)).success();
    poa(["index", "--model", &m, "--adapter", &other_adapter, "--datanet", &real.datanet, "--limit", "16", "--out", &other_index]).success();
    check_unusable(&poa(["attribute", &run1, "--index", &other_index]), "another model or adapter");
    check_unusable(&poa(["prove", &run1, "--index", &other_index, "--out", &proof]), "another model or adapter");
    check_unusable(&poa(["infer", "--model", &a, "--prompt", "x", "--out", &run1]), "expected a model");
    check_unusable(&poa(["train", "--model", &m, "--datanet", &real.datanet, "--sites", "q,w", "--out", &a]), "`w`");
    check_unusable(&poa(["import", &real.datanet, "--out", &m]), "samples.jsonl");
}

#[test]
fn unusable_options_are_refused_before_any_work() {
    let Some(real) = real() else { return };
    let [m, a, i, run1, out] = ["m", "a", "i", "run1", "never"].map(|name| real.path(name));
    let index = |option: &str, value: &str| {
        poa(["index", "--model", &m, "--adapter", &a, "--datanet", &real.datanet, "--limit", "2", "--out", &out, option, value])
    };
    check_unusable(&index("--sketch-rows", "4096"), "up to 1024");
    check_unusable(&index("--sketch-size", "0"), "sketch size");
    check_unusable(&index("--sketch-sites", "gate,elbow"), "elbow");
    check_unusable(&index("--sketch-rows", "3"), "power of two");
    check_unusable(&index("--max-tokens", "1"), "--max-tokens is 1");
    check_unusable(&poa(["prove", &run1, &run1, "--index", &i, "--out", &out]), "same request id");
    check_unusable(&poa(["bench", "prove", "--shape", "vocab=0"]), "`vocab=0`");
    check_unusable(&poa(["bench", "prove", "--shape", "layers"]), "`layers`");
    check_unusable(&poa(["infer", "--model", &m, "--prompt", &"long ".repeat(400), "--out", &out]), "the context 128");
    check_unusable(&poa(["infer", "--model", &m, "--prompt", "x", "--out", &real.datanet]), "isn't a directory");
    check_unusable(&poa(["infer", "--model", &m, "--prompt", "x", "--out", &a]), "isn't a poa run directory");
    assert!(!real.dir.join("never").exists());
}

#[test]
fn a_datanet_that_is_not_text_is_refused_by_line() {
    let Some(real) = real() else { return };
    let (m, out) = (real.path("m"), real.path("never-a"));
    for (name, bytes) in [("bad.jsonl", &b"{\"contributor\":\"a\",\"text\":\"\xff\"}\n"[..]), ("bad.csv", b"contributor,text\na,\xff\n")] {
        std::fs::write(real.dir.join(name), bytes).unwrap();
        check_unusable(&poa(["train", "--model", &m, "--datanet", &real.path(name), "--out", &out]), "line");
    }
}

#[test]
fn a_llama2c_file_is_imported_with_its_tokenizer() {
    let (Some(model), Some(tokenizer)) = (asset("models/babyllama-105/model5000.bin"), asset("models/babyllama-105/tok105.model")) else { return };
    let out = scratch("babyllama");
    let import = poa(["import", &text(model), "--tokenizer", &text(tokenizer), "--out", &text(out.join("m"))]).success();
    check_fidelity(&import, 0.98);
    assert_eq!(import["shape"]["vocab"], json!(105));
}
