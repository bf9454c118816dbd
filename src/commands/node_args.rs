//! What commands that talk to a node have in common: which node, whose key, which contracts.

use crate::meter::Terminal;
use alloy::primitives::Address;
use alloy::primitives::utils::parse_units;
use alloy::signers::local::PrivateKeySigner;
use chain::devnet;
use chain::node::{FeeLimits, Node};
use chain::{Chain, ChainError};
use std::env::VarError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use steps::error::{Failure, While};

/// Environment variable with a private key.
const KEY_VARIABLE: &str = "POA_PRIVATE_KEY";

/// A node.
#[derive(clap::Args)]
pub struct NodeArgs {
    /// JSON-RPC URL of a node.
    #[arg(long)]
    pub rpc_url: Option<String>,
    /// A development node (anvil, hardhat) with its well-known keys; without --rpc-url on 127.0.0.1:8545.
    #[arg(long)]
    pub devnet: bool,
    /// Seconds to wait for a transaction, and for a node that asks to slow down.
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
    /// Most ether that one transaction's gas may cost.
    #[arg(long, default_value = "0.1", value_parser = wei_of_ether)]
    pub max_fee: u128,
    /// Tip in gwei per gas (default: what recent blocks paid).
    #[arg(long, value_parser = wei_of_gwei)]
    pub priority_fee: Option<u128>,
}

fn wei(text: &str, unit: &str) -> Result<u128, String> {
    let amount = parse_units(text, unit).map_err(|e| e.to_string())?;
    if amount.is_negative() { Err("it is negative".into()) } else { u128::try_from(amount.get_absolute()).map_err(|e| e.to_string()) }
}

/// An amount of ether, in wei.
pub fn wei_of_ether(text: &str) -> Result<u128, String> {
    wei(text, "ether")
}

fn wei_of_gwei(text: &str) -> Result<u128, String> {
    wei(text, "gwei")
}

/// A key to sign with. Keys are read from a file or from POA_PRIVATE_KEY, never from the command line, and never printed.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// File with a private key, 64 hexadecimal digits (default: the environment variable POA_PRIVATE_KEY).
    #[arg(long)]
    pub private_key_file: Option<PathBuf>,
}

/// The contracts.
#[derive(clap::Args)]
pub struct DeploymentArgs {
    /// Addresses, as `poa deploy` writes them.
    #[arg(long, default_value = "deployment.json")]
    pub deployment: PathBuf,
}

impl NodeArgs {
    /// Connects.
    pub fn connect(&self) -> Result<Node, Failure> {
        Ok(self.connect_plain()??)
    }

    /// Connects; the inner error is the node's.
    pub fn connect_plain(&self) -> Result<Result<Node, ChainError>, Failure> {
        let url = match (&self.rpc_url, self.devnet) {
            (Some(url), _) => url.as_str(),
            (None, true) => devnet::URL,
            (None, false) => return Err(Failure::input("which node?").hint("give --rpc-url, or --devnet for a development node")),
        };
        let mut node = match Node::connect_observed(url, Duration::from_secs(self.timeout), Arc::new(Terminal::new())) {
            Ok(node) => node,
            Err(error) => return Ok(Err(error)),
        };
        node.limit_fees(FeeLimits { most: self.max_fee, tip: self.priority_fee });
        if self.devnet && node.chain_id() != devnet::CHAIN_ID {
            let message =
                format!("--devnet uses keys that everyone knows: chain {} isn't a development chain ({})", node.chain_id(), devnet::CHAIN_ID);
            return Err(Failure::input(message).hint("leave out --devnet and give your own key"));
        }
        Ok(Ok(node))
    }

    /// Connects with a key; on development nodes `known` unless another is given.
    pub fn connect_with(&self, keys: &KeyArgs, known: impl FnOnce() -> PrivateKeySigner) -> Result<(Node, Address), Failure> {
        let given = keys.read()?;
        let mut node = self.connect()?;
        let key = match given {
            Some(key) => key,
            None if self.devnet => known(),
            None => return Err(no_key()),
        };
        let account = node.add_key(key);
        Ok((node, account))
    }
}

fn no_key() -> Failure {
    Failure::input("no private key to sign with").hint("give --private-key-file, or set POA_PRIVATE_KEY")
}

impl KeyArgs {
    /// The key that is given, if any.
    fn read(&self) -> Result<Option<PrivateKeySigner>, Failure> {
        let (place, text) = match &self.private_key_file {
            Some(path) => (path.display().to_string(), std::fs::read_to_string(path).during_path("reading", path)?),
            None => match std::env::var(KEY_VARIABLE) {
                Ok(text) => (KEY_VARIABLE.to_owned(), text),
                Err(VarError::NotPresent) => return Ok(None),
                Err(VarError::NotUnicode(_)) => (KEY_VARIABLE.to_owned(), String::new()),
            },
        };
        // The error is left out: it might quote the key.
        let key = text.trim().parse().map_err(|_| Failure::input(format!("{place} isn't a private key of 64 hexadecimal digits")))?;
        Ok(Some(key))
    }
}

/// A file must not be replaced: what it says can't be had again.
pub fn refuse_existing(path: &Path, what: &str) -> Result<(), Failure> {
    if path.exists() {
        return Err(
            Failure::input(format!("{} exists: it says where {what} are", path.display())).hint("give another --out, or delete that file first")
        );
    }
    Ok(())
}
