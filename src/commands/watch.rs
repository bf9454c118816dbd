//! `poa watch`: the light client follows the chain.

use super::node_args::{DeploymentArgs, NodeArgs};
use crate::meter::say;
use crate::terminal::line;
use chain::ChainError;
use chain::deploy::Deployment;
use chain::judges;
use chain::node::Node;
use chain::watch::{Judge, News, State, Watch};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use steps::error::Failure;
use steps::store::{create_parent, read_json, write_json};

/// Verify every settlement on a chain, and report any that shouldn't have been accepted. Exit status with --once: 1 if there are any.
///
/// Where it stopped is kept in a file: it goes on from there, through reorganisations and restarts.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa watch --rpc-url https://node.example --key outer.key\n  poa watch --devnet --key outer.key --once --json")]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Verifying keys of the relations to accept.
    #[arg(long, required = true)]
    key: Vec<PathBuf>,
    /// What has been read.
    #[arg(long, default_value = "watch.json")]
    state: PathBuf,
    /// Stop at the newest block.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 5)]
    interval: u64,
    /// Read blocks only once this many follow.
    #[arg(long, default_value_t = 0)]
    confirmations: u64,
    /// With --once: attempts to reach the node.
    #[arg(long, default_value_t = 5)]
    attempts: u32,
}

/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pauses that double.
struct Backoff {
    pause: Duration,
    failed: u32,
}

impl Backoff {
    fn new() -> Self {
        Self { pause: Duration::from_millis(500), failed: 0 }
    }

    /// Waits after a failure; gives up on what won't get better, and after `most` failures in a row.
    fn wait(&mut self, error: ChainError, most: Option<u32>) -> Result<(), Failure> {
        self.failed += 1;
        if !error.is_transient() || most.is_some_and(|most| self.failed >= most) {
            return Err(error.into());
        }
        say(format!("{error}; trying again in {:.1} s", self.pause.as_secs_f64()));
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

fn connect(args: &Args, backoff: &mut Backoff) -> Result<Node, Failure> {
    loop {
        match args.node.connect_plain()? {
            Ok(node) => return Ok(node),
            Err(error) => backoff.wait(error, args.once.then_some(args.attempts))?,
        }
    }
}

fn load_state(args: &Args, d: &Deployment) -> Result<State, Failure> {
    if !args.state.exists() {
        return Ok(State::new(d));
    }
    let state: State = read_json(&args.state)?;
    if state.is_of(d) {
        Ok(state)
    } else {
        Err(Failure::input(format!("{} is of another deployment", args.state.display())).hint("give another --state"))
    }
}

fn news_json(news: &News) -> Value {
    let (kind, verdict) = match news {
        News::Settlement(v) => ("settlement", v),
        News::Withdrawn(v) => ("withdrawn", v),
    };
    let mut value = json!(verdict);
    value["event"] = json!(kind);
    value
}

fn print_news(news: &News) {
    match news {
        News::Settlement(v) if v.accepted => println!("block {:<8} request {} settled: proof verified", v.block, v.request_id),
        News::Settlement(v) => {
            let reason = line(v.reason.as_deref().unwrap_or(""));
            println!("block {:<8} request {} SETTLED, BUT NOT ACCEPTED: {reason} (transaction {})", v.block, v.request_id, v.transaction);
        }
        News::Withdrawn(v) => println!("block {:<8} request {} isn't settled any more: the chain was reorganised", v.block, v.request_id),
    }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let d = Deployment::load(&args.deployment.deployment)?;
    let judges: Vec<Box<dyn Judge>> = judges::load(&args.key)?;
    create_parent(&args.state)?;
    let mut state = load_state(&args, &d)?;
    let mut backoff = Backoff::new();
    let mut node = connect(&args, &mut backoff)?;
    d.check(&mut node)?;
    let mut watch = Watch::new(&mut node, &d, &judges);
    let mut all = vec![];
    loop {
        let before = state.next;
        match watch.step(&mut state, args.confirmations) {
            Ok((news, more)) => {
                backoff = Backoff::new();
                if state.next != before || !news.is_empty() || !args.state.exists() {
                    write_json(&args.state, &state)?;
                }
                for piece in &news {
                    match (json, args.once) {
                        (true, true) => all.push(news_json(piece)),
                        (true, false) => println!("{}", news_json(piece)),
                        (false, _) => print_news(piece),
                    }
                }
                match (more, args.once) {
                    (true, _) => {}
                    (false, true) => break,
                    (false, false) => std::thread::sleep(Duration::from_secs(args.interval)),
                }
            }
            Err(error) => backoff.wait(error, args.once.then_some(args.attempts))?,
        }
    }
    let (accepted, rejected) = state.totals();
    if json {
        println!("{}", json!({ "news": all, "accepted": accepted, "rejected": rejected, "next_block": state.next }));
    } else {
        println!("{accepted} settlements accepted, {rejected} not; read up to block {}", state.next.saturating_sub(1));
    }
    Ok(u8::from(rejected > 0))
}
