//! `poa verify`: is a proof valid?

use crate::error::{Failure, While};
use crate::show;
use crate::store::read_json;
use circuits::relation::WeightRanges;
use circuits::statement::{Statement, Tokens};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;
use verifier::proof::MAX_PROOF_BYTES;

/// Verify a proof against its statement. Exit status: 0 valid, 1 not valid (with the reason), 2 unusable input.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  poa verify proof.bin --statement statement.json")]
pub struct Args {
    /// The proof.
    proof: PathBuf,
    /// The statement.
    #[arg(long)]
    statement: PathBuf,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let statement: Statement = read_json(&args.statement)?;
    let length = std::fs::metadata(&args.proof).during_path("reading", &args.proof)?.len();
    if length > MAX_PROOF_BYTES as u64 {
        return Err(Failure::input(format!("{} has {length} bytes, at most {MAX_PROOF_BYTES} are read", args.proof.display())));
    }
    let bytes = std::fs::read(&args.proof).during_path("reading", &args.proof)?;
    let start = Instant::now();
    let result = verifier::verify_bytes(&statement, &bytes);
    let seconds = start.elapsed().as_secs_f64();
    let (valid, reason, bits) = match &result {
        Ok(verified) => (true, None, Some(verified.security_bits)),
        Err(e) => (false, Some(e.to_string()), None),
    };
    if json {
        println!("{}", json!({ "valid": valid, "reason": reason, "seconds": seconds, "security_bits": bits, "statement": statement.digest() }));
    } else if let Some(bits) = bits {
        println!("valid: {bits:.1} bits of proven security, checked in {:.0} ms", 1000.0 * seconds);
        print_statement(&statement);
    } else {
        println!("NOT VALID: {}", reason.unwrap_or_default());
    }
    Ok(u8::from(!valid))
}

fn print_statement(statement: &Statement) {
    println!("  statement {}", statement.digest());
    println!("  model     {}", statement.base);
    if let Some(adapter) = &statement.adapter {
        println!("  adapter   {adapter}");
    }
    if statement.relation.weight_ranges == WeightRanges::AssumedInsecure {
        println!("  NOT A FULL PROOF: the weights' ranges are assumed");
    }
    for request in &statement.requests {
        let tokens = match &request.tokens {
            Tokens::Public { tokens, prompt_len } => format!("{prompt_len} prompt and {} answer tokens", tokens.len() - prompt_len),
            Tokens::Digest(digest) => format!("tokens hidden behind {digest}"),
        };
        println!("  request   {}: {tokens}", request.id);
        if let Some(index) = &statement.index {
            show::print_shares(&show::shares(&request.weights, &index.contributors));
        }
    }
}
