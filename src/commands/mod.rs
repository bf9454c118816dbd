//! The command line: one file a subcommand.

mod attribute;
mod audit;
mod backup;
mod bench;
mod datanet;
mod datanet_check;
mod datanet_convert;
mod demo;
mod deploy;
mod escrow;
mod import;
mod index;
mod infer;
pub mod node_args;
mod prove;
mod register;
mod registration;
mod serve;
mod settle;
mod srs;
mod train;
mod verify;
mod watch;
mod window_args;
mod withdraw;
mod wrap;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use steps::error::Failure;

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
    Registration(registration::Args),
    Escrow(escrow::Args),
    Settle(settle::Args),
    Withdraw(withdraw::Args),
    Serve(serve::Args),
    Backup(backup::Args),
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
        Command::Registration(args) => registration::run(args, json),
        Command::Escrow(args) => escrow::run(args, json),
        Command::Settle(args) => settle::run(args, json),
        Command::Withdraw(args) => withdraw::run(args, json),
        Command::Serve(args) => serve::run(args, json),
        Command::Backup(args) => backup::run(args, json),
        Command::Watch(args) => watch::run(args, json),
        Command::Srs(args) => srs::run(args, json),
        Command::Wrap(args) => wrap::run(args, json),
    }
}

/// An option of a library's type, by one of its names.
fn choice<T: Clone + Send + Sync + 'static, const N: usize>(
    names: [&'static str; N],
    named: fn(&str) -> Option<T>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(move |name| named(&name).ok_or("not one of the values"))
}

/// Where keys are kept: `$POA_KEYS`, else the user's cache directory.
pub fn keys_directory() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    variable("POA_KEYS").or_else(|| cache().map(|dir| dir.join("poa").join("keys"))).unwrap_or_else(|| "poa-keys".into())
}
