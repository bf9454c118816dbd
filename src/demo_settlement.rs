//! The demo's last act: the answer's proof is wrapped, contracts are deployed on an EVM in this process, and the proof releases a payment.

use crate::commands::keys_directory;
use crate::meter::{Terminal, say};
use chain::deploy::RawVerifier;
use chain::request::{Conditions, Settlement};
use chain::{bundled, devnet};
use circuits::statement::{Digest, Profile};
use prover::srs::Srs;
use serde_json::{Value, json};
use std::path::Path;
use steps::error::{Failure, While};
use steps::outer::{self, WrapFigures, Wrapped};
use steps::prompt::Prompt;
use steps::prove::{Job, prove};
use steps::store::{write_file, write_json};

/// Rows of the demo's circuit: `2^19`.
const K: u32 = 19;
/// What the demo's payer pays for: an answer to this prompt, whatever it is.
pub struct Paid {
    /// The prompt with its salt.
    pub prompt: Prompt,
    /// The request id that the demo's chain gives if the answer's key is the bundled one.
    pub request_id: Digest,
}

impl Paid {
    /// A payment for a prompt to a model whose relation has room for so many tokens.
    pub fn new(tokens: Vec<u32>, capacity: usize, text: &str) -> Result<Self, Failure> {
        let prompt = Prompt::new(tokens, capacity, Some(text.to_owned()))?;
        let paid = Self { prompt, request_id: Digest::default() };
        let request_id = paid.request_id(bundled::key_digest());
        Ok(Self { request_id, ..paid })
    }

    /// The request id that the demo's chain gives for a payment that names this key.
    fn request_id(&self, key: Digest) -> Digest {
        devnet::request_id(Conditions { prompt: self.prompt.digest, ..Conditions::default() }, key)
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
pub fn settle(job: Job<'_>, paid: &Paid, out: &Path) -> Result<Settled, Failure> {
    say("proving again with the hash that the outer circuit knows …");
    let srs = reference_string(out)?;
    let mut proven = prove(Profile::Evm, job.clone(), &Terminal::new())?;
    // Another processor trains another adapter, whose key is another one: the payment names it, so the proof that settles is made for it.
    let (key, _) = outer::key(&proven.statement, &proven.bytes, &srs, &keys_directory(), &Terminal::new())?;
    let request_id = paid.request_id(Digest(key.digest()));
    if request_id != paid.request_id {
        say("proving once more: this adapter has another key than the bundled one, and the payment names it …");
        let requests = job.requests.into_iter().map(|(trace, _)| (trace, request_id)).collect();
        proven = prove(Profile::Evm, Job { requests, ..job }, &Terminal::new())?;
    }
    let statement_path = out.join("evm-statement.json");
    write_file(&out.join("evm-inner.bin"), &proven.bytes)?;
    write_json(&statement_path, &proven.statement)?;
    say("wrapping it into a zero-knowledge proof (the first time takes minutes for the keys) …");
    let wrapped = outer::wrap(&proven.statement, &proven.bytes, &srs, &keys_directory(), &Terminal::new())?;
    wrapped.proof.save(&out.join("evm-proof.json"))?;
    write_file(&out.join("outer.vk"), wrapped.key.encoding())?;
    write_file(&out.join("Verifier.sol"), wrapped.solidity.as_bytes())?;
    write_file(&out.join("VerifierTemplate.sol"), bundled::template(&wrapped.solidity, &wrapped.key).as_bytes())?;
    say("settling on an EVM in this process …");
    let settlement = devnet::settle_in_process(&proven.statement, &wrapped.proof, &raw_verifier(&wrapped, out)?)?;
    Ok(Settled { wrap: wrapped.figures, settlement })
}

/// A reference string whose secret is published: for trials.
fn reference_string(out: &Path) -> Result<Srs, Failure> {
    let directory = out.join("srs");
    match Srs::load(&directory, K, &mut |what| say(what)) {
        Ok(srs) => Ok(srs),
        Err(_) => {
            let srs = Srs::insecure(K).during("making an insecure reference string")?;
            srs.save(&directory).during_path("writing", &directory)?;
            Ok(srs)
        }
    }
}

/// The bundled contract with this key's literals.
fn raw_verifier(wrapped: &Wrapped, out: &Path) -> Result<RawVerifier, Failure> {
    if let Some(raw) = bundled::verifier(&wrapped.key)? {
        return Ok(raw);
    }
    let problem = format!("this relation's key is {}, and the bundled verifier contract is for keys of another shape", wrapped.proof.key_digest);
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
