//! `poa escrow`: pay for an answer before it is proven.

use super::choice;
use super::node_args::{DeploymentArgs, KeyArgs, NodeArgs};
use crate::meter::say;
use alloy::primitives::Address;
use alloy::primitives::utils::parse_ether;
use chain::deploy::Deployment;
use chain::offer::{Expected, Offer, offer};
use chain::request::{Asset, Conditions, Order, escrow, terms};
use chain::{Chain, devnet};
use circuits::statement::{Digest, Statement};
use model_runtime::text::Tokenizer;
use serde_json::json;
use std::path::PathBuf;
use steps::error::{Failure, While};
use steps::prompt::Prompt;
use steps::store::read_json;

/// Escrow a fee for one answer of a model; prints the request id that the answer must be proven with. Running it again pays again.
///
/// The fee is for a prompt: its salted digest goes on chain, and a file with salt and prompt, for the provider, is written beside.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa escrow --model 1 --amount 0.05 --prompt \"Who keeps the light?\" --tokenizer m/ --statement statement.json \\\n    \
                        --expect model.json --rpc-url https://node.example --private-key-file key\n  \
                        poa escrow --model 1 --amount 0.05 --any-exchange --devnet\n  \
                        poa infer --request-id <printed id> …   # then prove with the prompt's salt, wrap, settle"
)]
pub struct Args {
    /// The model.
    #[arg(long)]
    model: u64,
    /// The fee, in ether or OPEN.
    #[arg(long)]
    amount: String,
    /// What it is paid in.
    #[arg(long, default_value = "ether", value_parser = choice(Asset::NAMES, Asset::named))]
    asset: Asset,
    /// Hours until the fee can be had back.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Instead of hours, the moment, in seconds since 1970. The request id depends on it.
    #[arg(long, conflicts_with = "hours")]
    deadline: Option<u64>,
    #[command(flatten)]
    prompt: PromptArgs,
    /// Digest of prompt and answer that must be proven, where the answer is known (default: any answer).
    #[arg(long, conflicts_with = "any_exchange")]
    token_digest: Option<Digest>,
    /// The only account that may settle (default: anyone).
    #[arg(long)]
    settler: Option<Address>,
    /// What the model must be: digests and accounts, as `poa register --expect-out` writes them. Nothing is paid if one differs.
    #[arg(long)]
    expect: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    deployment: DeploymentArgs,
}

/// Which prompt is paid for.
#[derive(clap::Args)]
struct PromptArgs {
    /// The prompt, as text.
    #[arg(long, requires = "tokenizer", conflicts_with_all = ["prompt_tokens", "prompt_digest", "any_exchange"])]
    prompt: Option<String>,
    /// Imported model whose tokenizer reads the prompt.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// The prompt, as token ids with commas between.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["prompt_digest", "any_exchange"])]
    prompt_tokens: Option<Vec<u32>>,
    /// The prompt's salted digest, made elsewhere.
    #[arg(long, conflicts_with = "any_exchange")]
    prompt_digest: Option<Digest>,
    /// Accept any exchange with the model: anyone may choose a prompt that pays whom they like, and settle with it.
    #[arg(long)]
    any_exchange: bool,
    /// A statement of the model: says how many tokens its relation has room for.
    #[arg(long)]
    statement: Option<PathBuf>,
    /// Instead of a statement: how many tokens the model's relation has room for.
    #[arg(long, conflicts_with = "statement")]
    capacity: Option<usize>,
    /// Where salt and prompt go (default: `prompt-DIGEST.json`).
    #[arg(long)]
    prompt_out: Option<PathBuf>,
}

impl PromptArgs {
    /// The prompt under a fresh salt, where it is given itself.
    fn salted(&self, statement: Option<&Statement>) -> Result<Option<Prompt>, Failure> {
        let (tokens, text) = match (&self.prompt, &self.prompt_tokens, &self.tokenizer) {
            (Some(text), _, Some(directory)) => {
                let tokenizer = Tokenizer::load(directory).during_path("reading", directory)?;
                (tokenizer.encode(text).during("reading the prompt")?, Some(text.clone()))
            }
            (_, Some(tokens), _) => (tokens.clone(), None),
            _ => return Ok(None),
        };
        let Some(capacity) = statement.map(|s| s.relation.tokens).or(self.capacity) else {
            let failure = Failure::input("how many tokens has the model's relation room for? The prompt's digest depends on it");
            return Err(failure.hint("give --statement, with any statement of the model, or --capacity"));
        };
        let vocab = statement.map_or(u32::MAX as usize, |s| s.relation.semantics.shape.vocab);
        if let Some(token) = tokens.iter().find(|t| **t as usize >= vocab) {
            let message = format!("token {token} of the prompt isn't in the model's vocabulary of {vocab}");
            return Err(Failure::input(message).hint("give the tokens that the model's own tokenizer makes of the prompt"));
        }
        Prompt::new(tokens, capacity, text).map(Some)
    }
}

impl Args {
    /// What is paid for, and the prompt's file if there is one to write.
    fn conditions(&self, statement: Option<&Statement>) -> Result<(Conditions, Option<Prompt>), Failure> {
        let salted = self.prompt.salted(statement)?;
        let prompt = salted.as_ref().map(|p| p.digest).or(self.prompt.prompt_digest);
        if prompt.is_none() && self.token_digest.is_none() && !self.prompt.any_exchange {
            let failure = Failure::input("for which prompt? Without one, anyone may settle with an exchange of their own choosing");
            return Err(
                failure.hint("give --prompt with --tokenizer, --prompt-tokens or --prompt-digest; or --any-exchange, if that is what you want")
            );
        }
        if let Some(zero) = [prompt, self.token_digest].into_iter().flatten().find(|d| *d == Digest::default()) {
            return Err(Failure::input(format!("digest {zero} would accept any exchange")).hint("give --any-exchange, if that is what you want"));
        }
        let (tokens, settler) = (self.token_digest.unwrap_or_default(), self.settler.unwrap_or_default());
        Ok((Conditions { prompt: prompt.unwrap_or_default(), tokens, settler }, salted))
    }

    /// Shows what is bound and compares it with what is expected.
    fn examine(&self, offer: &Offer, statement: Option<&Statement>) -> Result<usize, Failure> {
        say("This escrow binds:");
        offer.lines().iter().for_each(say);
        let expected: Option<Expected> = self.expect.as_ref().map(|path| read_json(path)).transpose()?;
        let relation = expected.as_ref().and_then(|e| e.relation);
        if let Some((relation, own)) = relation.zip(statement.map(|s| s.relation.digest())).filter(|(relation, own)| relation != own) {
            return Err(Failure::invalid(format!("the statement's relation is {own}, {relation} is expected")));
        }
        if let Some(statement) = statement.filter(|s| s.base != offer.base || s.index.as_ref().map(|i| i.commitment) != Some(offer.index)) {
            let message = format!("the statement is of base {}, not of model {}", statement.base, offer.model);
            return Err(Failure::invalid(message).hint("give a statement of this model, or --capacity"));
        }
        let compared = expected.map_or(Ok(0), |e| offer.check(&e))?;
        match compared {
            0 => say("NOTHING WAS COMPARED: with --expect, a model, verifier or account that isn't the one you know costs nothing"),
            n => say(format!("As expected: {n} of 8 things compared")),
        }
        Ok(compared)
    }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let amount = parse_ether(&args.amount).during(format!("--amount {}", args.amount))?;
    let amount = u128::try_from(amount).during(format!("--amount {}", args.amount))?;
    let statement: Option<Statement> = args.prompt.statement.as_ref().map(|path| read_json(path)).transpose()?;
    let (conditions, salted) = args.conditions(statement.as_ref())?;
    let d = Deployment::load(&args.deployment.deployment)?;
    let (mut node, account) = args.node.connect_with(&args.key, devnet::payer)?;
    d.check(&mut node)?;
    let offer = offer(&mut node, &d, args.model)?;
    let compared = args.examine(&offer, statement.as_ref())?;
    let (_, now) = node.newest()?;
    let deadline = args.deadline.unwrap_or_else(|| now.saturating_add(args.hours.saturating_mul(3600)));
    // Before the payment: without the salt nobody could prove what was paid for.
    let prompt_file = salted.as_ref().map(|p| args.prompt.prompt_out.clone().unwrap_or_else(|| p.default_path()));
    salted.iter().zip(&prompt_file).try_for_each(|(prompt, path)| prompt.save(path))?;
    let order = Order { model: args.model, asset: args.asset, amount, deadline, conditions };
    let made = escrow(&mut node, account, &d, terms(&order, &offer.service))?;
    if json {
        println!(
            "{}",
            json!({
                "request_id": made.request_id,
                "transaction": made.transaction,
                "payer": account,
                "amount": amount.to_string(),
                "deadline": deadline,
                "prompt_digest": conditions.prompt,
                "token_digest": conditions.tokens,
                "prompt_file": prompt_file,
                "settler": args.settler,
                "verifier": offer.service.verifier,
                "key_digest": offer.service.key_digest,
                "compared": compared,
                "gas_used": made.gas_used,
            })
        );
    } else {
        println!("{}", made.request_id);
        say(format!("Escrowed by {account}, in transaction {}. Prove the answer with this request id:", made.transaction));
        let salt = salted.as_ref().map(|_| " --private-tokens --prompt-salt <salt>").unwrap_or_default();
        say(format!("  poa prove --profile evm --request-id {}{salt} …", made.request_id));
        prompt_file.iter().for_each(|path| say(format!("The provider needs the salt and prompt in {}; nobody else does", path.display())));
    }
    Ok(0)
}
