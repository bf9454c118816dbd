//! `poa withdraw`: everything an account is credited with.

use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use crate::chain::deploy::Deployment;
use crate::chain::devnet;
use crate::chain::request::{Asset, claimable, withdraw};
use crate::error::Failure;
use alloy::primitives::{Address, U256};
use serde_json::json;

/// Withdraw what the key's account is credited with. Contributors are credited by `poa settle --collect`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa withdraw --rpc-url https://node.example --private-key-file key\n  poa withdraw --devnet --contributor ada")]
pub struct Args {
    /// What to withdraw.
    #[arg(long, value_enum, default_value = "ether")]
    asset: Asset,
    /// Where it goes (default: the account itself).
    #[arg(long)]
    to: Option<Address>,
    /// On a development node: act for this contributor.
    #[arg(long, requires = "devnet")]
    contributor: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let d = Deployment::load(&args.deployment.deployment)?;
    let known = || args.contributor.as_deref().map_or_else(devnet::deployer, devnet::contributor);
    let (mut node, account) = args.node.connect_with(&args.key, known)?;
    d.check(&mut node)?;
    let credit = claimable(&mut node, account, &d, args.asset)?;
    let amount = if credit.is_zero() { U256::ZERO } else { withdraw(&mut node, account, &d, args.asset, args.to.unwrap_or(account))? };
    if json {
        println!("{}", json!({ "account": account, "amount": amount.to_string() }));
    } else {
        println!("{} withdrawn by {account}", alloy::primitives::utils::format_ether(amount));
    }
    Ok(0)
}
