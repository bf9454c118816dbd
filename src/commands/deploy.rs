//! `poa deploy`: the contracts onto a chain.

use super::node_args::{KeyArgs, NodeArgs, refuse_existing};
use super::srs::INSECURE;
use crate::meter::say;
use alloy::primitives::Address;
use chain::deploy::{RawVerifier, Settings, VERIFIER_GAS, bytecode, deploy_kept};
use chain::journal::Journal;
use chain::judges;
use chain::rehearsal::rehearse;
use chain::{bundled, devnet};
use circuits::statement::Digest;
use serde_json::json;
use std::path::PathBuf;
use steps::error::Failure;
use steps::evm_proof::EvmProof;
use steps::store::{create_parent, write_json};

/// Deploy verifier, registries, settlement, token and governance; addresses go to a file. Broken off, the same command goes on where it stopped.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa deploy --devnet --key outer.vk --proof evm-proof.json --insecure-srs\n  \
                        poa deploy --rpc-url https://node.example --private-key-file key --verifier raw.json --proof evm-proof.json --key outer.vk --holder 0x…")]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    account: KeyArgs,
    /// The generated verifier's artifact (default: the bundled contract with the literals of --key, where its shape is the key's).
    #[arg(long, required_unless_present = "key")]
    verifier: Option<PathBuf>,
    /// A proof made with its key: says the key's digest, the proof's length, and whether the reference string is insecure. The verifier must
    /// accept it and refuse it tampered with, in this process, before anything is sent.
    #[arg(long)]
    proof: PathBuf,
    /// The verifying key that the proof must be of.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Where the addresses go.
    #[arg(long, default_value = "deployment.json")]
    out: PathBuf,
    /// Gas that the generated verifier gets.
    #[arg(long, default_value_t = VERIFIER_GAS)]
    verifier_gas: u64,
    /// Deploy even though anyone can forge proofs over the key's reference string. For trials only.
    #[arg(long)]
    insecure_srs: bool,
    /// Account that gets the platform's share (default: the timelock, so governance; on a development node the deployer).
    #[arg(long)]
    platform: Option<Address>,
    /// Account that gets the supply of OPEN, and with it all votes (default: none but on a development node, the deployer).
    #[arg(long, required_unless_present = "devnet")]
    holder: Option<Address>,
}

impl Args {
    fn settings(&self, deployer: Address) -> Settings {
        let trials = Settings::for_trials(deployer);
        let holder = self.holder.unwrap_or(trials.holder);
        let platform = self.platform.or(if self.node.devnet { trials.platform } else { None });
        Settings { platform, ..Settings::standard(holder) }
    }
}

/// Who can decide what, and who gets the platform's share, in words.
fn powers(deployer: Address, s: &Settings) -> Vec<String> {
    let mut lines = vec![];
    if s.holder == deployer {
        let changes = "new requests' split and verifiers, and pauses";
        lines.push(format!("THE DEPLOYER HOLDS ALL VOTES: {deployer} alone decides about {changes}, until it gives OPEN away"));
    } else {
        lines.push(format!("All OPEN, so all votes, are with {}; the deployer has none", s.holder));
    }
    lines.push(match s.platform {
        Some(platform) if platform == deployer => format!("THE DEPLOYER GETS THE PLATFORM'S SHARE: {deployer}"),
        Some(platform) => format!("The platform's share goes to {platform}"),
        None => "The platform's share goes to the timelock: holders of OPEN decide about it".into(),
    });
    lines
}

fn raw_verifier(args: &Args) -> Result<(RawVerifier, EvmProof), Failure> {
    let proof = EvmProof::load(&args.proof)?;
    let (key_digest, proof_bytes, mut insecure_srs) = (proof.key_digest, proof.proof_bytes, proof.srs.insecure);
    let mut bundled = None;
    if let Some(path) = &args.key {
        let key = judges::read(path)?;
        if (Digest(key.digest()), key.proof_bytes()) != (key_digest, proof_bytes) {
            let message = format!("{} is of key {key_digest}, {} is key {}", args.proof.display(), path.display(), Digest(key.digest()));
            return Err(Failure::input(message).hint("give a proof made with this key"));
        }
        insecure_srs |= key.insecure();
        bundled = bundled::verifier(&key)?.map(|raw| raw.code);
    }
    let code = match &args.verifier {
        Some(path) => bytecode(path)?,
        None => bundled.ok_or_else(|| {
            let message = "the bundled verifier contract is for keys of another shape (more rows)";
            Failure::input(message)
                .hint("compile this key's (`poa wrap --solidity`, then `npm run verifier` in contracts/), and give it with --verifier")
        })?,
    };
    let raw = RawVerifier { code, key_digest, proof_bytes, insecure_srs, gas_limit: args.verifier_gas };
    Ok((raw, proof))
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let (raw, proof) = raw_verifier(&args)?;
    if raw.insecure_srs && !args.insecure_srs {
        let message = "the key's reference string is insecure: its secret is published, anyone could forge proofs and take escrowed fees";
        return Err(Failure::input(message).hint("make the key over a ceremony's (`poa srs import`), or give --insecure-srs for trials"));
    }
    if !args.node.devnet {
        refuse_existing(&args.out, "deployed contracts")?;
    }
    create_parent(&args.out)?;
    rehearse(&raw, &proof)?;
    let (mut node, account) = args.node.connect_with(&args.account, devnet::deployer)?;
    let settings = args.settings(account);
    let mut journal = Journal::beside(&args.out)?;
    if journal.steps() > 0 {
        say(format!("going on with the deployment in {}, after {} transactions", journal.path().display(), journal.steps()));
    }
    let deployment = deploy_kept(&mut node, account, &raw, &settings, &mut journal)?;
    write_json(&args.out, &deployment)?;
    journal.close();
    if json {
        println!("{}", json!(deployment));
    } else {
        let c = &deployment.contracts;
        println!("Deployed on chain {}; addresses in {}", deployment.chain_id, args.out.display());
        let list = [("settlement", c.settlement), ("models", c.models), ("datanets", c.datanets), ("verifier", c.verifier), ("OPEN", c.open)];
        list.iter().for_each(|(name, address)| println!("  {name:<12} {address}"));
        println!("  {:<12} {}", "key", deployment.key_digest);
    }
    powers(account, &settings).iter().for_each(say);
    if deployment.insecure_srs {
        say(INSECURE);
    }
    Ok(0)
}
