//! `poa`: zero-knowledge proofs of attribution, from the command line.
//!
//! Results go to standard output, progress to standard error. Exit status: 0 done or valid, 1 not valid, 2 unusable input.

#[macro_use]
mod terminal;

mod allocator;
mod commands;
mod demo_settlement;
mod meter;
mod show;

use clap::Parser;
use commands::Cli;
use std::process::ExitCode;
use steps::error::Kind;
use terminal::line;

/// The exit status of programs that a closed pipe ends.
const CLOSED_PIPE: i32 = 128 + 13;

/// `poa … | head` ends without a word when nobody reads on.
fn end_quietly_on_closed_pipes() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_closed = |message: &str| message.starts_with("failed printing to std") && message.contains("Broken pipe");
        if panic.payload().downcast_ref::<String>().is_some_and(|m| is_closed(m)) {
            std::process::exit(CLOSED_PIPE);
        }
        report(panic);
    }));
}

/// 0 is success.
fn status(kind: Kind) -> u8 {
    match kind {
        Kind::Invalid => 1,
        Kind::Input => 2,
        Kind::Stopped => 130,
    }
}

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    end_quietly_on_closed_pipes();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            if !usage.use_stderr() {
                usage.exit();
            }
            // It quotes arguments, which need not be text.
            let text = usage.render().to_string();
            if std::env::args_os().any(|a| a == "--json") {
                println!("{}", serde_json::json!({ "error": text.trim().trim_start_matches("error: "), "hint": null }));
            }
            eprintln!("{}", text.trim_end());
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    let json = cli.json;
    match commands::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            if json {
                println!("{}", serde_json::json!({ "error": failure.message, "hint": failure.hint }));
            }
            eprintln!("error: {}", line(&failure.message));
            failure.hint.iter().for_each(|hint| eprintln!("  try: {}", line(hint)));
            ExitCode::from(status(failure.kind))
        }
    }
}
