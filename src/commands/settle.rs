//! `poa settle`: a proof releases a fee.

use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use super::srs::INSECURE;
use crate::meter::say;
use crate::terminal::line;
use alloy::primitives::U256;
use alloy::primitives::utils::format_ether;
use chain::deploy::Deployment;
use chain::devnet;
use chain::request::{Asset, Payout, Settlement, collect, settle};
use circuits::statement::Statement;
use serde_json::{Value, json};
use std::path::PathBuf;
use steps::error::Failure;
use steps::evm_proof::EvmProof;
use steps::store::read_json;

/// Settle a request with its proof: simulates first, waits for the receipt, prints gas and payouts. Safe to run again.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa settle evm-proof.json --statement statement.json --devnet\n  \
                        poa settle evm-proof.json --statement statement.json --rpc-url https://node.example --private-key-file key --collect")]
pub struct Args {
    /// The proof, as `poa wrap` writes it.
    proof: PathBuf,
    /// Its statement.
    #[arg(long)]
    statement: PathBuf,
    /// Gas limit of the transaction (default: what it needs).
    #[arg(long)]
    gas_limit: Option<u64>,
    /// Also credit the contributors, so that they only have to withdraw.
    #[arg(long)]
    collect: bool,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
}

/// Payouts as JSON; amounts are decimal strings, in the smallest unit.
pub fn payouts_json(payouts: &[Payout]) -> Value {
    payouts.iter().map(|p| json!({ "contributor": p.contributor, "account": p.account, "amount": p.amount.to_string() })).collect()
}

/// A settlement as JSON.
pub fn settlement_json(s: &Settlement) -> Value {
    json!({
        "request_id": s.request_id,
        "transaction": s.transaction,
        "already_settled": s.already,
        "gas_used": s.gas_used,
        "verify_gas": s.verify_gas,
        "amount": s.amount.to_string(),
        "payouts": payouts_json(&s.payouts),
    })
}

/// Prints gas and payouts.
pub fn print_settlement(s: &Settlement) {
    let unit = if s.asset == Asset::Ether { "ether" } else { "OPEN" };
    println!("  gas {}, of which verification {}", s.gas_used, s.verify_gas);
    println!("\nPayouts of {} {unit}", format_ether(s.amount));
    let mut list: Vec<&Payout> = s.payouts.iter().filter(|p| p.amount > U256::ZERO).collect();
    list.sort_by_key(|p| (std::cmp::Reverse(p.amount), p.contributor.clone()));
    list.iter().for_each(|p| println!("  {:<20} {:>24} {unit}  {}", line(&p.contributor), format_ether(p.amount), p.account));
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let statement: Statement = read_json(&args.statement)?;
    let proof = EvmProof::load(&args.proof)?;
    proof.check(&statement)?;
    let names = statement.index.as_ref().map(|i| i.contributors.clone()).unwrap_or_default();
    let d = Deployment::load(&args.deployment.deployment)?;
    let (mut node, account) = args.node.connect_with(&args.key, devnet::deployer)?;
    let settlement = settle(&mut node, account, &d, &proof, &names, args.gas_limit)?;
    let collected = if args.collect { collect(&mut node, account, &d, &proof)? } else { 0 };
    if proof.srs.insecure {
        say(INSECURE);
    }
    if json {
        let mut value = settlement_json(&settlement);
        value["collected"] = json!(collected);
        println!("{value}");
    } else {
        let how = if settlement.already { "had been settled by this very claim" } else { "settled" };
        println!("Request {} {how}, in transaction {}", settlement.request_id, settlement.transaction);
        print_settlement(&settlement);
        if collected > 0 {
            println!("Credited {collected} contributors; they get it with `poa withdraw`");
        }
    }
    Ok(0)
}
