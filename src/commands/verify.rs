//! `poa verify`: is a proof valid?

use crate::error::{Failure, While};
use crate::evm_proof::{EvmProof, public_inputs};
use crate::outer::{self, key_path, keys_directory};
use crate::show;
use crate::store::read_json;
use crate::terminal::line;
use circuits::relation::WeightRanges;
use circuits::statement::{Digest, Statement, Tokens};
use light_client::OuterKey;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;
use verifier::proof::MAX_PROOF_BYTES;

/// Verify a proof, inner or outer, against its statement. Exit status: 0 valid, 1 not valid (with the reason), 2 unusable input.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa verify proof.bin --statement statement.json\n  poa verify evm-proof.json --statement statement.json")]
pub struct Args {
    /// The proof: an inner one, or an outer one as `poa wrap` writes it.
    proof: PathBuf,
    /// The statement.
    #[arg(long)]
    statement: PathBuf,
    /// Of an outer proof: the verifying key (default: from the directory of keys, by the digest that the proof names).
    #[arg(long)]
    key: Option<PathBuf>,
    /// Of an outer proof: refuse keys of another digest, such as the registry's.
    #[arg(long)]
    key_digest: Option<Digest>,
}

/// An outer proof stands for an inner one of at least this many bits, under BN254's pairing assumptions.
const OUTER_SECURITY_BITS: f64 = verifier::soundness::MIN_SECURITY_BITS;

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let statement: Statement = read_json(&args.statement)?;
    let length = std::fs::metadata(&args.proof).during_path("reading", &args.proof)?.len();
    if length > MAX_PROOF_BYTES as u64 {
        return Err(Failure::input(format!("{} has {length} bytes, at most {MAX_PROOF_BYTES} are read", args.proof.display())));
    }
    let bytes = std::fs::read(&args.proof).during_path("reading", &args.proof)?;
    if bytes.first() == Some(&b'{') {
        return run_outer(&args, &statement, json);
    }
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
        println!("NOT VALID: {}", line(&reason.unwrap_or_default()));
    }
    Ok(u8::from(!valid))
}

/// The light client: no inner proof, no witness.
fn run_outer(args: &Args, statement: &Statement, json: bool) -> Result<u8, Failure> {
    let proof: EvmProof = read_json(&args.proof)?;
    let path = args.key.clone().unwrap_or_else(|| key_path(&keys_directory(), &proof.key_digest.0));
    let hint = "give --key with the key that the model's registry names, or wrap a proof of this relation once here";
    let encoded = std::fs::read(&path).during_path("reading the verifying key", &path).map_err(|e| e.hint(hint))?;
    let key = OuterKey::decode(&encoded).during_path("reading the verifying key", &path)?;
    let digest = Digest(key.digest());
    if digest != proof.key_digest || args.key_digest.is_some_and(|wanted| wanted != digest) {
        let wanted = args.key_digest.unwrap_or(proof.key_digest);
        return Err(Failure::input(format!("the verifying key is {digest}, not {wanted}")).hint(hint));
    }
    let start = Instant::now();
    let result = statement
        .check()
        .map_err(|e| e.to_string())
        .and_then(|_| public_inputs(statement).map_err(|e| e.message))
        .and_then(|own| if own == proof.public_inputs { Ok(()) } else { Err("the proof is of another statement".to_owned()) })
        .and_then(|()| outer::verify(&key, &proof).map_err(|e| e.message));
    let seconds = start.elapsed().as_secs_f64();
    let (valid, reason) = (result.is_ok(), result.err());
    let bits = valid.then_some(OUTER_SECURITY_BITS);
    if json {
        let insecure = key.insecure();
        println!(
            "{}",
            json!({ "valid": valid, "reason": reason, "seconds": seconds, "security_bits": bits, "statement": statement.digest(), "key_digest": digest, "insecure_srs": insecure })
        );
    } else if valid {
        println!("valid: outer proof under key {digest}, checked in {:.1} ms", 1000.0 * seconds);
        if key.insecure() {
            println!("  INSECURE reference string: anyone can forge proofs over it; for trials only");
        }
        print_statement(statement);
    } else {
        println!("NOT VALID: {}", line(&reason.unwrap_or_default()));
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
