//! The demo's last act: the answer's proof is wrapped, contracts are deployed on an EVM in this process, and the proof releases a payment.

use crate::commands::keys_directory;
use crate::meter::{Terminal, say};
use chain::deploy::RawVerifier;
use chain::request::{Conditions, Settlement};
use chain::{bundled, devnet};
use circuits::statement::{Digest, Statement};
use prover::srs::Srs;
use serde_json::{Value, json};
use std::path::Path;
use steps::error::{Failure, While};
use steps::outer::{self, WrapFigures, Wrapped};
use steps::prompt::Prompt;
use steps::prove::{Job, prove};
use steps::store::{write_file, write_json};
use verifier::profile::Evm;

/// Rows of the demo's circuit: `2^19`.
const K: u32 = 19;
/// What the demo's payer pays for: an answer to this prompt, whatever it is.
pub struct Paid {
    /// The prompt with its salt.
    pub prompt: Prompt,
    /// The request id that the demo's chain will give. It names the bundled contract's key, as the payment does: a new key is bundled first, and
    /// the proof that settles is made after.
    pub request_id: Digest,
}

impl Paid {
    /// A payment for a prompt to a model whose relation has room for so many tokens.
    pub fn new(tokens: Vec<u32>, capacity: usize, text: &str) -> Result<Self, Failure> {
        let prompt = Prompt::new(tokens, capacity, Some(text.to_owned()))?;
        let request_id = devnet::request_id(Conditions { prompt: prompt.digest, ..Conditions::default() }, bundled::key_digest());
        Ok(Self { prompt, request_id })
    }
}

/// What happened.
pub struct Settled {
    /// Cost of the outer proof.
    pub wrap: WrapFigures,
    /// Payment.
    pub settlement: Settlement,
}

/// Proves a job under the `evm` profile, wraps the proof and settles it. `out` keeps every file.
pub fn settle(job: Job<'_>, out: &Path) -> Result<Settled, Failure> {
    say("proving again with the hash that the outer circuit knows …");
    let proven = prove::<Evm>(job, &Terminal::new())?;
    let statement_path = out.join("evm-statement.json");
    write_file(&out.join("evm-inner.bin"), &proven.bytes)?;
    write_json(&statement_path, &proven.statement)?;
    say("wrapping it into a zero-knowledge proof (the first time takes minutes for the keys) …");
    let wrapped = wrap(&proven.statement, &proven.bytes, out)?;
    wrapped.proof.save(&out.join("evm-proof.json"))?;
    write_file(&out.join("outer.vk"), wrapped.key.encoding())?;
    write_file(&out.join("Verifier.sol"), wrapped.solidity.as_bytes())?;
    say("settling on an EVM in this process …");
    let settlement = devnet::settle_in_process(&proven.statement, &wrapped.proof, &raw_verifier(&wrapped, out)?)?;
    Ok(Settled { wrap: wrapped.figures, settlement })
}

fn wrap(statement: &Statement, bytes: &[u8], out: &Path) -> Result<Wrapped, Failure> {
    let directory = out.join("srs");
    let srs = match Srs::load(&directory, K, &mut |what| say(what)) {
        Ok(srs) => srs,
        Err(_) => {
            let srs = Srs::insecure(K).during("making an insecure reference string")?;
            srs.save(&directory).during_path("writing", &directory)?;
            srs
        }
    };
    outer::wrap(statement, bytes, &srs, &keys_directory(), &Terminal::new())
}

/// The bundled contract, if it is this key's.
fn raw_verifier(wrapped: &Wrapped, out: &Path) -> Result<RawVerifier, Failure> {
    if let Some(raw) = bundled::verifier(&wrapped.key)? {
        return Ok(raw);
    }
    let problem = format!("this relation's key is {}, the bundled verifier contract is for another", wrapped.proof.key_digest);
    let hint = format!(
        "its source is in {0}: compile it (npm run verifier in contracts/), then `poa deploy --verifier`; \
         or make it the bundled one: npm run demo -- {0} in contracts/",
        steps::store::absolute(out)?.display()
    );
    Err(Failure::input(problem).hint(hint))
}

impl Settled {
    /// For `--json`.
    pub fn json(&self) -> Value {
        let payout = |p: &chain::request::Payout| json!({ "contributor": p.contributor, "account": p.account, "amount": p.amount.to_string() });
        let payouts: Vec<Value> = self.settlement.payouts.iter().map(payout).collect();
        json!({ "gas_used": self.settlement.gas_used, "verify_gas": self.settlement.verify_gas, "payouts": payouts })
    }

    /// For people.
    pub fn print(&self) {
        let (w, s) = (&self.wrap, &self.settlement);
        println!(
            "\nOuter proof: {} bytes in {:.0} s ({:.0} s of it keys), 2^{} rows, INSECURE reference string (for trials)",
            w.proof_bytes, w.seconds, w.keygen_seconds, w.k
        );
        println!("Settled on the in-process EVM: {} gas, {} of it verification. Of 1 ETH escrowed, contributors withdrew:", s.gas_used, s.verify_gas);
        for payout in s.payouts.iter().filter(|p| !p.amount.is_zero()) {
            println!("  {:<24}{} wei", payout.contributor, payout.amount);
        }
    }
}
