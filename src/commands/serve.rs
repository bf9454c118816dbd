//! `poa serve`: answers, attributions and proofs over HTTP.

use crate::meter::Terminal;
use serde_json::json;
use service::{Settings, Started, serve};
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
    /// Let everyone with a key read samples' texts (default: admins; with --demo everyone).
    #[arg(long)]
    show_samples: bool,
    /// Send webhooks to addresses of this machine and of private networks, too.
    #[arg(long)]
    private_webhooks: bool,
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
