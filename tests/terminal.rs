//! Text from outside on a terminal: nothing in it acts there, and nothing makes the command line panic.

#![cfg(unix)]

mod common;

use common::scratch;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Output};

fn poa<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_poa")).args(args).output().expect("the built binary starts")
}

/// Everything that was printed, after checking that none of it acts on a terminal.
fn printed(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].map(|bytes| std::str::from_utf8(bytes).expect("text").to_owned()).concat();
    let acts = |c: &char| (c.is_control() && *c != '\n') || matches!(*c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.chars().any(|c| acts(&c)), "{text:?}");
    text
}

#[test]
fn arguments_that_arent_text_are_errors() {
    let not_text = || OsString::from_vec(vec![b'x', 0xff]);
    for args in [
        vec!["--json".into(), not_text()],
        vec![not_text()],
        vec!["verify".into(), not_text(), "--statement".into(), not_text(), "--json".into()],
        vec!["infer".into(), "--prompt".into(), not_text()],
        vec!["infer".into(), "--request-id".into(), not_text(), "--json".into()],
    ] {
        let output = poa(&args);
        let text = printed(&output);
        assert!(output.status.code() == Some(2) && !text.contains("panicked"), "{args:?}: {text}");
        if args.iter().any(|a| a == "--json") {
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(json["error"].is_string(), "{json}");
        }
    }
}

#[test]
fn nothing_from_outside_acts_on_a_terminal() {
    let directory = scratch("terminal");
    let repaint = "\u{1b}[1A\u{1b}[2Kvalid\r\u{9b}2J\u{202e}";
    // In a path, in an argument, in a file's contents, in an URL.
    let missing = directory.join(format!("no{repaint}.json"));
    let file = directory.join("statement.json");
    std::fs::write(&file, serde_json::json!({ "version": 1, "profile": format!("{repaint}\nvalid: all") }).to_string()).unwrap();
    let (missing, file) = (missing.display().to_string(), file.display().to_string());
    for args in [
        vec!["verify", &missing, "--statement", &missing],
        vec!["verify", &file, "--statement", &file],
        vec!["verify", &file, "--statement", &file, "--json"],
        vec!["verify", repaint],
        vec!["watch", "--key", &file, "--rpc-url", repaint],
        vec!["escrow", "--model", repaint, "--json"],
    ] {
        let output = poa(&args);
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        // Nor does it begin a line of its own.
        assert!(!text.lines().any(|line| line.starts_with("valid")), "{text}");
        if args.contains(&"--json") {
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(json["error"].as_str().unwrap().contains('\u{9b}'), "the value is what it was: {json}");
        }
    }
}
