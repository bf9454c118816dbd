//! `poa escrow`: pay for an answer before it is proven.

use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use crate::chain::deploy::Deployment;
use crate::chain::request::{Asset, current_split, escrow, terms};
use crate::chain::{Chain, devnet};
use crate::error::{Failure, While};
use alloy::primitives::utils::parse_ether;
use circuits::statement::Digest;
use serde_json::json;

/// Escrow a fee for one answer of a model; prints the request id that the answer must be proven with. Running it again pays again.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  poa escrow --model 1 --amount 0.05 --devnet\n  poa infer --request-id <printed id> …   # then prove, wrap, settle"
)]
pub struct Args {
    /// The model.
    #[arg(long)]
    model: u64,
    /// The fee, in ether or OPEN.
    #[arg(long)]
    amount: String,
    /// What it is paid in.
    #[arg(long, value_enum, default_value = "ether")]
    asset: Asset,
    /// Hours until the fee can be had back.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Instead of hours, the moment, in seconds since 1970. The request id depends on it.
    #[arg(long, conflicts_with = "hours")]
    deadline: Option<u64>,
    /// Digest of the tokens that must be proven (default: any exchange with the model).
    #[arg(long)]
    token_digest: Option<Digest>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let amount = parse_ether(&args.amount).during(format!("--amount {}", args.amount))?;
    let amount = u128::try_from(amount).during(format!("--amount {}", args.amount))?;
    let d = Deployment::load(&args.deployment.deployment)?;
    let (mut node, account) = args.node.connect_with(&args.key, devnet::payer)?;
    d.check(&mut node)?;
    let split = current_split(&mut node, &d)?;
    let (_, now) = node.newest()?;
    let deadline = args.deadline.unwrap_or_else(|| now.saturating_add(args.hours.saturating_mul(3600)));
    let made = escrow(&mut node, account, &d, terms(args.model, split, args.asset, amount, deadline, args.token_digest.unwrap_or_default()))?;
    if json {
        println!(
            "{}",
            json!({ "request_id": made.request_id, "transaction": made.transaction, "payer": account, "amount": amount.to_string(), "deadline": deadline, "gas_used": made.gas_used })
        );
    } else {
        println!("{}", made.request_id);
        eprintln!("Escrowed by {account}, in transaction {}. Prove the answer with this request id:", made.transaction);
        eprintln!("  poa infer --request-id {} …", made.request_id);
    }
    Ok(0)
}
