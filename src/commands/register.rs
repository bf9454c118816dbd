//! `poa register`: a model on chain, so that answers of it can be paid for.

use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use chain::deploy::Deployment;
use chain::offer::offer;
use chain::{devnet, register};
use circuits::statement::Statement;
use serde_json::json;
use std::path::PathBuf;
use steps::error::Failure;
use steps::store::{create_parent, read_json, write_json};

/// Register the model of a statement: base, adapter, index, and the published datanet version they come from.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa register --statement statement.json --devnet\n  \
                        poa register --statement statement.json --datanet 1 --rpc-url https://node.example --private-key-file key")]
pub struct Args {
    /// A statement of the model; which request it is about doesn't matter.
    #[arg(long)]
    statement: PathBuf,
    /// The datanet; its version must be published. On a development node one is made if none is given.
    #[arg(long)]
    datanet: Option<u64>,
    /// Where to write what payers and verifiers should expect of the model (`poa escrow --expect`, `poa verify --expect`).
    #[arg(long)]
    expect_out: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let statement: Statement = read_json(&args.statement)?;
    let (_, index) = register::registrable(&statement)?;
    args.expect_out.iter().try_for_each(|path| create_parent(path))?;
    let d = Deployment::load(&args.deployment.deployment)?;
    let (mut node, account) = args.node.connect_with(&args.key, devnet::deployer)?;
    d.check(&mut node)?;
    let datanet = match args.datanet {
        Some(datanet) => datanet,
        None if args.node.devnet => {
            node.add_key(devnet::deployer());
            index.contributors.iter().for_each(|name| {
                node.add_key(devnet::contributor(name));
            });
            devnet::datanet(&mut node, &d, index, true)?
        }
        None => return Err(Failure::input("which datanet?").hint("give --datanet; `poa datanet create` starts one")),
    };
    let model = register::register(&mut node, account, &d.contracts, &statement, d.key_digest, datanet)?;
    let version = index.datanet_version;
    let expect = offer(&mut node, &d, model)?.expectations(statement.relation.digest(), &index.contributors);
    args.expect_out.iter().try_for_each(|path| write_json(path, &expect))?;
    if json {
        let contributors = index.contributors.len();
        println!(
            "{}",
            json!({ "model": model, "datanet": datanet, "version": version, "contributors": contributors, "owner": account, "expect": expect })
        );
    } else {
        println!("Model {model}, with version {version} of datanet {datanet} and {} contributors, by {account}", index.contributors.len());
        let written = |path: &PathBuf| println!("What payers should expect of it is in {}", path.display());
        args.expect_out.iter().for_each(written);
    }
    Ok(0)
}
