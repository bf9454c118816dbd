//! `poa datanet`: datanets on chain. Contributors act for themselves: who contributes is who will be paid.

use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use crate::meter::say;
use chain::deploy::Deployment;
use chain::devnet;
use chain::register::{self, Correction, LICENCE, Payee, Standing};
use circuits::statement::{Digest, Statement};
use clap::Subcommand;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use steps::error::{Failure, While};
use steps::store::read_json;

/// Check a datanet, convert one; create one on chain, contribute to it, publish a version, correct whose a name is.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa datanet check prompts.jsonl\n  poa datanet create recipes --rpc-url http://127.0.0.1:8545 --private-key-file owner\n  \
                        poa datanet contribute --datanet 1 --name ada --root 0123… --rpc-url http://127.0.0.1:8545 --private-key-file ada\n  \
                        poa datanet publish --datanet 1 --statement statement.json --rpc-url http://127.0.0.1:8545 --private-key-file owner"
)]
pub struct Args {
    #[command(subcommand)]
    command: Either,
}

#[derive(Subcommand)]
enum Either {
    Check(super::datanet_check::Args),
    Convert(super::datanet_convert::Args),
    #[command(flatten)]
    OnChain(Command),
}

#[derive(Subcommand)]
enum Command {
    /// Start a datanet that the key's account owns.
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Offer samples; the key's account will be paid for them.
    Contribute {
        /// The datanet.
        #[arg(long)]
        datanet: u64,
        /// The contributor's name, as the datanet's files have it.
        #[arg(long)]
        name: String,
        /// Root of the samples, 64 hexadecimal digits.
        #[arg(long)]
        root: Digest,
        #[command(flatten)]
        common: Common,
    },
    /// Approve the contributions of an index's contributors and publish the version that its statement names.
    Publish {
        /// The datanet.
        #[arg(long)]
        datanet: u64,
        /// A statement with the index.
        #[arg(long)]
        statement: PathBuf,
        /// The right contribution where several accounts use one name, or where one that merely came first would be paid.
        #[arg(long)]
        contribution: Vec<u64>,
        /// Pay accounts that merely came first under a name without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Give a name that the wrong account got to a contribution's account, for versions from now on.
    Correct {
        /// The datanet.
        #[arg(long)]
        datanet: u64,
        /// A contribution of the right account under the name.
        #[arg(long)]
        contribution: u64,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Licence of the samples.
    #[arg(long, default_value = LICENCE)]
    licence: String,
}

/// Shows who will be paid for each name, and asks if some account merely came first.
fn confirm_payees(payees: &[Payee], yes: bool) -> Result<(), Failure> {
    let standing = |s| match s {
        Standing::Approved => "approved before",
        Standing::Chosen => "named with --contribution",
        Standing::First => "NOT VERIFIED: came first",
    };
    for p in payees {
        say(format!("  {:<24} -> {}  contribution {}, {}", format!("{:?}", p.name), p.account, p.contribution, standing(p.standing)));
    }
    let first = payees.iter().filter(|p| p.standing == Standing::First).count();
    if first == 0 {
        return Ok(());
    }
    say(format!("{first} of {} accounts would be paid only because nobody else has contributed under the name", payees.len()));
    confirm(yes)
}

/// Asks on a terminal; elsewhere, `--yes` must be given.
fn confirm(yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let refused = || Failure::input("not confirmed").hint("check the accounts above, then give --yes; --contribution names the right ones");
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    say("Is that right? Type yes:");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).during("reading the answer")?;
    if answer.trim() == "yes" { Ok(()) } else { Err(refused()) }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let command = match args.command {
        Either::Check(check) => return super::datanet_check::run(check, json),
        Either::Convert(convert) => return super::datanet_convert::run(&convert, json),
        Either::OnChain(command) => command,
    };
    let common = match &command {
        Command::Create { common, .. } | Command::Contribute { common, .. } => common,
        Command::Publish { common, .. } | Command::Correct { common, .. } => common,
    };
    let d = Deployment::load(&common.deployment.deployment)?;
    let known = || match &command {
        Command::Contribute { name, .. } => devnet::contributor(name),
        _ => devnet::deployer(),
    };
    let (mut node, account) = common.node.connect_with(&common.key, known)?;
    d.check(&mut node)?;
    let c = &d.contracts;
    let (what, value): (&str, Value) = match &command {
        Command::Create { name, .. } => ("datanet", register::create_datanet(&mut node, account, c, name)?.into()),
        Command::Contribute { datanet, name, root, .. } => {
            ("contribution", register::contribute(&mut node, account, c, *datanet, name, *root, &common.licence)?.into())
        }
        Command::Publish { datanet, statement, contribution, yes, .. } => {
            let statement: Statement = read_json(statement)?;
            let index = statement.index.ok_or_else(|| Failure::input("the statement has no index"))?;
            let publication = register::Publication { datanet: *datanet, index: &index, licence: &common.licence, chosen: contribution };
            let payees = register::payees(&mut node, &d, &publication)?;
            confirm_payees(&payees, *yes)?;
            ("version", register::publish(&mut node, account, &d, &publication, &payees)?.into())
        }
        Command::Correct { datanet, contribution, yes, .. } => {
            let Correction { name, from, to } = register::correction(&mut node, &d, *datanet, *contribution)?;
            say(format!("{name:?} is {from}'s and will be {to}'s, from the next version on; published versions stay as they are"));
            confirm(*yes)?;
            register::correct(&mut node, account, c, *contribution)?;
            ("contribution", (*contribution).into())
        }
    };
    if json {
        println!("{}", json!({ what: value, "account": account }));
    } else {
        println!("{what} {value}, by {account}");
    }
    Ok(0)
}
