//! The command line: one file a subcommand.

mod attribute;
mod audit;
mod bench;
mod datanet;
mod datanet_check;
mod demo;
mod deploy;
mod escrow;
mod import;
mod index;
mod infer;
pub mod keys;
mod node_args;
mod prove;
mod register;
mod settle;
mod srs;
mod train;
mod verify;
mod watch;
mod withdraw;
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
    Deploy(deploy::Args),
    Datanet(datanet::Args),
    Register(register::Args),
    Escrow(escrow::Args),
    Settle(settle::Args),
    Withdraw(withdraw::Args),
    Watch(watch::Args),
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
        Command::Deploy(args) => deploy::run(args, json),
        Command::Datanet(args) => datanet::run(args, json),
        Command::Register(args) => register::run(args, json),
        Command::Escrow(args) => escrow::run(args, json),
        Command::Settle(args) => settle::run(args, json),
        Command::Withdraw(args) => withdraw::run(args, json),
        Command::Watch(args) => watch::run(args, json),
        Command::Srs(args) => srs::run(args, json),
        Command::Wrap(args) => wrap::run(args, json),
    }
}
