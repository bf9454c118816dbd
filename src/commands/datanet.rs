//! `poa datanet`: datanets on chain. Contributors act for themselves: who contributes is who will be paid.

use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use crate::chain::deploy::Deployment;
use crate::chain::devnet;
use crate::chain::register::{self, LICENCE};
use crate::error::Failure;
use crate::store::read_json;
use circuits::statement::{Digest, Statement};
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Check a datanet; create one on chain, contribute to it, publish a version.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa datanet check prompts.jsonl\n  poa datanet create recipes --rpc-url http://127.0.0.1:8545 --private-key-file owner\n  \
                        poa datanet contribute --datanet 1 --name ada --root 0123… --rpc-url http://127.0.0.1:8545 --private-key-file ada\n  \
                        poa datanet publish --datanet 1 --statement statement.json --rpc-url http://127.0.0.1:8545 --private-key-file owner"
)]
pub struct Args {
    #[command(subcommand)]
    command: Either,
}

#[derive(Subcommand)]
enum Either {
    Check(super::datanet_check::Args),
    #[command(flatten)]
    OnChain(Command),
}

#[derive(Subcommand)]
enum Command {
    /// Start a datanet that the key's account owns.
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Offer samples; the key's account will be paid for them.
    Contribute {
        /// The datanet.
        #[arg(long)]
        datanet: u64,
        /// The contributor's name, as the datanet's files have it.
        #[arg(long)]
        name: String,
        /// Root of the samples, 64 hexadecimal digits.
        #[arg(long)]
        root: Digest,
        #[command(flatten)]
        common: Common,
    },
    /// Approve the contributions of an index's contributors and publish the version that its statement names.
    Publish {
        /// The datanet.
        #[arg(long)]
        datanet: u64,
        /// A statement with the index.
        #[arg(long)]
        statement: PathBuf,
        /// The right contribution where several accounts use one name.
        #[arg(long)]
        contribution: Vec<u64>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Licence of the samples.
    #[arg(long, default_value = LICENCE)]
    licence: String,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let command = match args.command {
        Either::Check(check) => return super::datanet_check::run(check, json),
        Either::OnChain(command) => command,
    };
    let common = match &command {
        Command::Create { common, .. } | Command::Contribute { common, .. } | Command::Publish { common, .. } => common,
    };
    let d = Deployment::load(&common.deployment.deployment)?;
    let known = || match &command {
        Command::Contribute { name, .. } => devnet::contributor(name),
        _ => devnet::deployer(),
    };
    let (mut node, account) = common.node.connect_with(&common.key, known)?;
    d.check(&mut node)?;
    let c = &d.contracts;
    let (what, value): (&str, Value) = match &command {
        Command::Create { name, .. } => ("datanet", register::create_datanet(&mut node, account, c, name)?.into()),
        Command::Contribute { datanet, name, root, .. } => {
            ("contribution", register::contribute(&mut node, account, c, *datanet, name, *root, &common.licence)?.into())
        }
        Command::Publish { datanet, statement, contribution, .. } => {
            let statement: Statement = read_json(statement)?;
            let index = statement.index.ok_or_else(|| Failure::input("the statement has no index"))?;
            let publication = register::Publication { datanet: *datanet, index: &index, licence: &common.licence, chosen: contribution };
            ("version", register::publish(&mut node, account, &d, &publication)?.into())
        }
    };
    if json {
        println!("{}", json!({ what: value, "account": account }));
    } else {
        println!("{what} {value}, by {account}");
    }
    Ok(0)
}
