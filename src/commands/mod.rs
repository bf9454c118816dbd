//! The command line: one file a subcommand.

mod attribute;
mod audit;
mod bench;
mod demo;
mod import;
mod index;
mod infer;
mod prove;
mod srs;
mod train;
mod verify;
mod wrap;

use crate::error::Failure;
use clap::{Parser, Subcommand};

/// Prove, verify and replay the attribution of a model's answers to the contributors of its training data.
#[derive(Parser)]
#[command(name = "poa", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// Print one JSON object on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Import(import::Args),
    Train(train::Args),
    Index(index::Args),
    Infer(infer::Args),
    Attribute(attribute::Args),
    Prove(prove::Args),
    Verify(verify::Args),
    Audit(audit::Args),
    Bench(bench::Args),
    Srs(srs::Args),
    Wrap(wrap::Args),
}

/// Runs a command; returns its exit status.
pub fn run(cli: Cli) -> Result<u8, Failure> {
    let json = cli.json;
    match cli.command {
        Command::Demo(args) => demo::run(args, json),
        Command::Import(args) => import::run(args, json),
        Command::Train(args) => train::run(args, json),
        Command::Index(args) => index::run(args, json),
        Command::Infer(args) => infer::run(args, json),
        Command::Attribute(args) => attribute::run(args, json),
        Command::Prove(args) => prove::run(args, json),
        Command::Verify(args) => verify::run(args, json),
        Command::Audit(args) => audit::run(args, json),
        Command::Bench(args) => bench::run(args, json),
        Command::Srs(args) => srs::run(args, json),
        Command::Wrap(args) => wrap::run(args, json),
    }
}
