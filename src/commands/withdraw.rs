//! `poa withdraw`: everything an account is credited with.

use super::choice;
use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use alloy::primitives::{Address, U256};
use chain::deploy::Deployment;
use chain::devnet;
use chain::request::{Asset, claimable, refund, withdraw};
use circuits::statement::Digest;
use serde_json::json;
use steps::error::Failure;

/// Withdraw what the key's account is credited with. Contributors are credited by `poa settle --collect`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa withdraw --rpc-url https://node.example --private-key-file key\n  poa withdraw --devnet --contributor ada\n  \
                        poa withdraw --rpc-url https://node.example --private-key-file key --refund 0123…   # a fee that no proof released in time"
)]
pub struct Args {
    /// What to withdraw.
    #[arg(long, default_value = "ether", value_parser = choice(Asset::NAMES, Asset::named))]
    asset: Asset,
    /// Where it goes (default: the account itself).
    #[arg(long)]
    to: Option<Address>,
    /// On a development node: act for this contributor.
    #[arg(long, requires = "devnet")]
    contributor: Option<String>,
    /// First take back the fee of this request, whose deadline has passed; its payer is credited.
    #[arg(long, conflicts_with = "contributor")]
    refund: Option<Digest>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let d = Deployment::load(&args.deployment.deployment)?;
    let known = || match (&args.contributor, args.refund) {
        (Some(name), _) => devnet::contributor(name),
        (None, Some(_)) => devnet::payer(),
        (None, None) => devnet::deployer(),
    };
    let (mut node, account) = args.node.connect_with(&args.key, known)?;
    d.check(&mut node)?;
    if let Some(id) = args.refund {
        refund(&mut node, account, &d, id)?;
    }
    let credit = claimable(&mut node, account, &d, args.asset)?;
    let amount = if credit.is_zero() { U256::ZERO } else { withdraw(&mut node, account, &d, args.asset, args.to.unwrap_or(account))? };
    if json {
        println!("{}", json!({ "account": account, "amount": amount.to_string() }));
    } else {
        println!("{} withdrawn by {account}", alloy::primitives::utils::format_ether(amount));
    }
    Ok(0)
}
