//! `poa verify`: is a proof valid?

use super::keys_directory;
use crate::meter::Terminal;
use crate::show;
use crate::terminal::line;
use chain::expect::{Pins, compare};
use chain::offer::Expected;
use circuits::registration::{Known, RULES};
use circuits::statement::{Digest, Profile, Statement, Tokens};
use light_client::OuterKey;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;
use steps::error::{Failure, While};
use steps::evm_proof::EvmProof;
use steps::outer::{self, key_path};
use steps::registration::{AcceptedBefore, RegistrationDir};
use steps::store::read_json;
use verifier::proof::MAX_PROOF_BYTES;

/// Verify a proof, inner or outer, against its statement. Exit status: 0 valid, 1 not valid (with the reason), 2 unusable input.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  poa verify proof.bin --statement statement.json\n  poa verify evm-proof.json --statement statement.json --expect model.json"
)]
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
    /// Of an inner proof: a registration to verify first, as `poa registration prove` made it; proofs that rely on it need it.
    #[arg(long)]
    registration: Option<PathBuf>,
    /// Of an inner proof: registrations that were verified before, as `poa registration verify --accept` writes them.
    #[arg(long)]
    accepted: Option<PathBuf>,
    /// What the model should be, as `poa register --expect-out` writes it: digests of relation, base, adapter, index, index statement, verifying key.
    #[arg(long)]
    expect: Option<PathBuf>,
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
        for (given, name) in [(args.registration.is_some(), "--registration"), (args.accepted.is_some(), "--accepted")] {
            if given {
                let message = format!("{} is an outer proof, whose pins no registration names: {name} is of inner proofs", args.proof.display());
                return Err(Failure::input(message).hint(format!("leave out {name}")));
            }
        }
        return run_outer(&args, &statement, json);
    }
    for (given, name) in [(args.key.is_some(), "--key"), (args.key_digest.is_some(), "--key-digest")] {
        if given {
            let message = format!("{} is an inner proof, which no key verifies: {name} is of outer proofs", args.proof.display());
            return Err(Failure::input(message).hint(format!("leave out {name}, or give the proof that `poa wrap` wrote")));
        }
    }
    let mut known = args.accepted.as_ref().map(|file| AcceptedBefore::load(file)).transpose()?.unwrap_or_default().accepted;
    if let Some(dir) = &args.registration {
        match RegistrationDir::new(dir).verify(&Terminal::new()) {
            Ok((_, accepted)) if statement.index.as_ref() != Some(&accepted.known.index) => {
                let what = if statement.profile == Profile::Evm {
                    "of native pins, the statement of the evm profile's"
                } else {
                    "of another index than the statement's"
                };
                return show::not_valid(Failure::invalid(format!("the registration {} is {what}", dir.display())), json);
            }
            Ok((_, accepted)) => known.push(accepted.known),
            Err(failure) => return show::not_valid(failure, json),
        }
    }
    let start = Instant::now();
    let result = verifier::verify_given(&statement, &bytes, &known);
    let seconds = start.elapsed().as_secs_f64();
    let (bits, result) = (result.as_ref().ok().map(|v| v.security_bits), result.map(|_| ()).map_err(|e| e.to_string()));
    let head = format!("valid: {:.1} bits of proven security, checked in {:.0} ms", bits.unwrap_or_default(), 1000.0 * seconds);
    // The one that the statement names, or else any of its index; only those accepted by this version's rules say anything.
    let of_index = || known.iter().filter(|known| known.rules == RULES && statement.index.as_ref() == Some(&known.index));
    let registered = of_index().find(|known| statement.registration == Some(known.registration)).or_else(|| of_index().next()).cloned();
    let checked = Checked { result, seconds, bits, head, key: None, insecure_srs: None, registered };
    report(&args, &statement, checked, json)
}

/// What a verifier found.
struct Checked {
    result: Result<(), String>,
    seconds: f64,
    bits: Option<f64>,
    /// What is printed of a valid proof.
    head: String,
    /// Of an outer proof.
    key: Option<Digest>,
    insecure_srs: Option<bool>,
    /// The registration of the statement's index, if one was verified.
    registered: Option<Known>,
}

/// Compares with what is expected, and says what was found.
fn report(args: &Args, statement: &Statement, checked: Checked, json: bool) -> Result<u8, Failure> {
    let expected: Option<Expected> = args.expect.as_ref().map(|path| read_json(path)).transpose()?;
    let mut expected = expected.unwrap_or_default();
    if let Some(wanted) = args.key_digest {
        if let Some(other) = expected.key_digest.filter(|other| *other != wanted) {
            return Err(Failure::input(format!("--key-digest is {wanted}, the file of --expect has {other}")));
        }
        expected.key_digest = Some(wanted);
    }
    let pins = compare(&expected, statement, checked.key)?;
    let result = checked.result.and_then(|()| pins.difference.clone().map_or(Ok(()), Err));
    let (valid, reason) = (result.is_ok(), result.err());
    if json {
        let bits = checked.bits.filter(|_| valid && checked.insecure_srs != Some(true));
        let mut value =
            json!({ "valid": valid, "reason": reason, "seconds": checked.seconds, "security_bits": bits, "statement": statement.digest() });
        let index = statement.index.as_ref().map(|i| i.digest().truncated());
        value["relation"] = json!(statement.relation.digest());
        value["index_digest"] = json!(index);
        value["requests"] = show::digests_json(statement);
        let known = checked.registered.as_ref().filter(|_| valid);
        value["registration"] = json!(known.map(|known| known.registration));
        value["registration_beacon"] = json!(known.and_then(|known| known.beacon));
        value["datanet_compared"] = json!(known.map(|known| known.datanet_compared));
        value["pinned"] = json!(pins.compared);
        value["not_pinned"] = json!(pins.left);
        if let (Some(key), Some(insecure)) = (checked.key, checked.insecure_srs) {
            value["key_digest"] = json!(key);
            value["insecure_srs"] = json!(insecure);
        }
        println!("{value}");
    } else if valid {
        println!("{}", checked.head);
        if checked.insecure_srs == Some(true) {
            println!("  INSECURE reference string: anyone can forge proofs over it; for trials only");
        }
        print_statement(statement);
        if checked.key.is_none() && statement.index.is_some() {
            print_registration(checked.registered, statement.profile);
        }
        print_pins(&pins);
    } else {
        println!("NOT VALID: {}", line(&reason.unwrap_or_default()));
        if statement.registration.is_some() && args.registration.is_none() && args.accepted.is_none() {
            println!("  try: give the registration that it relies on with --registration, or --accepted");
        }
    }
    Ok(u8::from(!valid))
}

/// What the weights rest on.
fn print_registration(registered: Option<Known>, profile: Profile) {
    let Some(known) = registered else {
        println!("\nTHE INDEX IS TAKEN AS IT IS: nothing given here shows that its rows are the sketches of the datanet's samples.");
        if profile == Profile::Native {
            println!("Give --registration (`poa registration prove` makes one) or --accepted.");
        }
        return;
    };
    println!("\nThe index is registered: every row that earns is proven to be the sketch of its sample under this model and adapter.");
    println!("  registration {}", known.registration);
    match known.beacon {
        Some(beacon) => println!("  projection   drawn from the datanet's root and the beacon {beacon}"),
        None => println!("  projection   drawn from the datanet's root"),
    }
    match known.datanet_compared {
        true => println!("  samples      compared with the datanet's texts"),
        false => println!("  samples      NOT COMPARED with the datanet's texts here: `poa registration verify --datanet … --accept` does"),
    }
}

fn print_pins(pins: &Pins) {
    if pins.compared.is_empty() {
        println!("\nNOTHING WAS PINNED: this proof is valid for the model that its statement names, whatever model that is.");
        println!("Compare the digests above with those of the model that you mean, or give --expect (`poa register --expect-out` writes one).");
    } else {
        println!("\nAs expected: {}", pins.compared.join(", "));
    }
    if !pins.left.is_empty() {
        println!("Not compared, since a proof doesn't show it: {}", pins.left.join(", "));
    }
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
    let result = statement.check().map_err(|e| e.to_string()).and_then(|_| outer::verify(&key, &proof, statement).map_err(|e| e.message));
    let seconds = start.elapsed().as_secs_f64();
    let head = format!("valid: outer proof under key {digest}, checked in {:.1} ms", 1000.0 * seconds);
    let insecure_srs = Some(key.insecure());
    let checked = Checked { result, seconds, bits: Some(OUTER_SECURITY_BITS), head, key: Some(digest), insecure_srs, registered: None };
    report(args, statement, checked, json)
}

fn print_statement(statement: &Statement) {
    println!("  statement {}", statement.digest());
    println!("  relation  {}", statement.relation.digest());
    println!("  base      {}", statement.base);
    if let Some(adapter) = &statement.adapter {
        println!("  adapter   {adapter}");
    }
    if let Some(index) = &statement.index {
        println!("  index     {}", index.commitment);
        println!("  index statement {}", index.digest().truncated());
    }
    for request in &statement.requests {
        let digests = request.token_digests(statement.relation.tokens);
        let tokens = match &request.tokens {
            Tokens::Public { tokens, prompt_len } => format!("{prompt_len} prompt and {} answer tokens", tokens.len() - prompt_len),
            Tokens::Digests(_) => "hidden tokens".to_owned(),
        };
        println!("  request   {}: {tokens}", request.id);
        println!("    prompt digest {}", digests.prompt);
        println!("    token digest  {}", digests.exchange);
        if let Some(index) = &statement.index {
            show::print_weights(&request.weights, &index.contributors);
        }
    }
}
