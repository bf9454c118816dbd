//! `poa deploy`: the contracts onto a chain.

use super::node_args::{KeyArgs, NodeArgs, refuse_existing};
use crate::chain::deploy::{RawVerifier, Settings, VERIFIER_GAS, deploy};
use crate::chain::devnet;
use crate::error::Failure;
use crate::evm_proof::EvmProof;
use crate::meter::say;
use crate::store::{create_parent, write_json};
use alloy::primitives::Address;
use serde_json::json;
use std::path::PathBuf;

/// Deploy verifier, registries, settlement, token and governance; addresses go to a file.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa deploy --devnet --verifier raw.json --proof evm-proof.json --insecure-srs\n  \
                        poa deploy --rpc-url https://node.example --private-key-file key --verifier raw.json --proof evm-proof.json")]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The generated verifier's artifact.
    #[arg(long)]
    verifier: PathBuf,
    /// A proof of the same key: says its digest, length and reference string.
    #[arg(long)]
    proof: PathBuf,
    /// Where the addresses go.
    #[arg(long, default_value = "deployment.json")]
    out: PathBuf,
    /// Gas that the generated verifier gets.
    #[arg(long, default_value_t = VERIFIER_GAS)]
    verifier_gas: u64,
    /// Deploy even though anyone can forge proofs over the key's reference string. For trials only.
    #[arg(long)]
    insecure_srs: bool,
    /// Account of the platform (default: the deployer).
    #[arg(long)]
    platform: Option<Address>,
    /// Account that gets the supply of OPEN (default: the deployer).
    #[arg(long)]
    holder: Option<Address>,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let proof = EvmProof::load(&args.proof)?;
    if proof.srs.insecure && !args.insecure_srs {
        let message = "the key's reference string is insecure: its secret is published, anyone could forge proofs and take escrowed fees";
        return Err(Failure::input(message).hint("make the key over a ceremony's (`poa srs import`), or give --insecure-srs for trials"));
    }
    let raw = RawVerifier::load(&args.verifier, &proof, args.verifier_gas)?;
    if !args.node.devnet {
        refuse_existing(&args.out, "deployed contracts")?;
    }
    create_parent(&args.out)?;
    let (mut node, account) = args.node.connect_with(&args.key, devnet::deployer)?;
    let standard = Settings::standard(account);
    let settings = Settings { platform: args.platform.unwrap_or(account), holder: args.holder.unwrap_or(account), ..standard };
    let deployment = deploy(&mut node, account, &raw, &settings)?;
    write_json(&args.out, &deployment)?;
    if json {
        println!("{}", json!(deployment));
    } else {
        let c = &deployment.contracts;
        println!("Deployed on chain {}; addresses in {}", deployment.chain_id, args.out.display());
        let list = [("settlement", c.settlement), ("models", c.models), ("datanets", c.datanets), ("verifier", c.verifier), ("OPEN", c.open)];
        list.iter().for_each(|(name, address)| println!("  {name:<12} {address}"));
        println!("  {:<12} {}", "key", deployment.key_digest);
    }
    if deployment.srs.insecure {
        say("INSECURE REFERENCE STRING: anyone can forge proofs that these contracts accept. For trials only.");
    }
    Ok(0)
}
