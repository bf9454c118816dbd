//! `poa serve`: answers, attributions and proofs over HTTP.

use super::node_args::wei_of_ether;
use crate::meter::Terminal;
use serde_json::json;
use service::{Batches, Fee, MOST_TOGETHER, Settings, Started, serve};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steps::error::Failure;

/// Serve models over HTTP: OpenAI's API, attribution, proofs in the background, and pages. Ends with SIGINT or SIGTERM.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa serve --data ./poa-data --demo\n  poa serve --data ./poa-data --listen 127.0.0.1:8080 --json")]
pub struct Args {
    /// Where models, the database and proofs are.
    #[arg(long, default_value = "poa-data")]
    data: PathBuf,
    /// Address to listen on; other machines reach it only if it isn't a loopback address.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Make and serve the bundled model, adapter and index.
    #[arg(long)]
    demo: bool,
    /// MiB that adapters may take in memory; others are read when they are asked for.
    #[arg(long, default_value_t = 1024)]
    adapter_memory: u64,
    /// MiB that prompts and answers which were read may take in memory, for each base; a prompt that begins like one is read from where they differ.
    #[arg(long, default_value_t = 64)]
    prefix_memory: usize,
    /// Requests of one key to one model that are proven together, at most: each costs less so. Their statement shows them all.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MOST_TOGETHER as u64))]
    prove_together: u64,
    /// Seconds that a request waits for others to be proven with.
    #[arg(long, default_value_t = 10, requires = "prove_together", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    prove_after: u32,
    /// What is paid for an answer that is settled, in ether. It is paid by a development account on a chain in this process.
    #[arg(long, default_value = "0.001", value_parser = wei_of_ether)]
    fee: u128,
    /// Its division in basis points: platform, model's owner, stakers, contributors.
    #[arg(long, default_value = "500,2000,500,7000", value_parser = shares)]
    shares: [u16; 4],
    /// Hours in which a proof can earn it; then it goes back.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=2159))]
    fee_hours: u64,
    /// Where keys of outer proofs are kept (default: keys in the data directory).
    #[arg(long)]
    keys: Option<PathBuf>,
    /// Directory of their reference string (poa srs; default: one for trials, whose secret is published).
    #[arg(long)]
    srs: Option<PathBuf>,
    /// Let everyone with a key read samples' texts (default: admins; with --demo everyone).
    #[arg(long)]
    show_samples: bool,
    /// Send webhooks to addresses of this machine and of private networks, too.
    #[arg(long)]
    private_webhooks: bool,
}

/// Four parts of a fee.
fn shares(text: &str) -> Result<[u16; 4], String> {
    let parts: Vec<u16> = text.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|e| format!("expected four numbers: {e}"))?;
    let sum: u32 = parts.iter().map(|part| u32::from(*part)).sum();
    let shares: [u16; 4] = parts.try_into().map_err(|_| "expected four numbers".to_owned())?;
    if sum == 10_000 { Ok(shares) } else { Err(format!("they are {sum} basis points together, expected 10000")) }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let demo = args.demo.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo"));
    let settings = Settings {
        data: args.data,
        listen: args.listen,
        demo,
        show_samples: args.show_samples,
        adapter_memory: args.adapter_memory << 20,
        prefix_memory: args.prefix_memory << 20,
        private_webhooks: args.private_webhooks,
        batches: Batches { requests: args.prove_together as usize, seconds: args.prove_after },
        fee: Fee { amount: args.fee, shares: args.shares, window: 3600 * args.fee_hours },
        keys: args.keys,
        srs: args.srs,
    };
    let started = |started: &Started| {
        if json {
            let mut line = json!({ "address": started.address.to_string() });
            started.admin_key.iter().for_each(|key| line["admin_key"] = json!(key));
            println!("{line}");
            return;
        }
        println!("Listening on http://{}", started.address);
        if !started.address.ip().is_loopback() {
            println!("  reachable from other machines, unencrypted: put a TLS proxy before it");
        }
        if let Some(key) = &started.admin_key {
            println!("  the admin's key, shown this once: {key}");
        }
    };
    serve(&settings, Arc::new(Terminal::new()), started)?;
    Ok(0)
}
