//! A proof for one statement never verifies for another: every field of the statement is changed in turn.

use crate::common;
use circuits::relation::WeightRanges;
use circuits::statement::{Clause, Statement, StatementError};
use common::mutate::{Proven, fixture, refused};
use rayon::prelude::*;
use serde_json::{Value, json};
use verifier::profile::Native;
use verifier::{Proof, VerifyError, verify, verify_bytes};

/// Names of enum variants, tried on every string.
const NAMES: [&str; 10] = ["native", "evm", "forward", "attribution", "proven", "assumed-insecure", "clamp", "exact", "q", "down"];

fn replacements(value: &Value) -> Vec<Value> {
    match value {
        Value::Number(n) => {
            let x = n.as_i64().unwrap_or(0);
            let mut all: Vec<Value> = [x + 1, x - 1, 0, 1, -x, x * 2, 3, 64, 1 << 20, 1 << 40, i64::MAX].map(|v| json!(v)).into();
            all.push(json!(u64::MAX));
            all.extend(n.as_f64().filter(|_| n.is_f64()).into_iter().flat_map(|f| [json!(f * 1.000_000_1), json!(-f), json!(1e300), json!(1e-300)]));
            all
        }
        Value::String(s) => {
            let other: String = s.chars().map(|c| if c == '0' { '1' } else { '0' }).collect();
            let last = format!("{}{}", &s[..s.len().saturating_sub(1)], if s.ends_with('7') { '8' } else { '7' });
            let mut all = vec![json!(other), json!(last), json!(format!("{s} ")), json!("")];
            all.extend(NAMES.map(|n| json!(n)));
            all
        }
        Value::Array(items) => {
            let mut shorter = items.clone();
            shorter.pop();
            let mut longer = items.clone();
            longer.extend(items.last().cloned());
            let mut reversed = items.clone();
            reversed.reverse();
            vec![json!(shorter), json!(longer), json!(reversed), json!([])]
        }
        Value::Object(_) | Value::Null | Value::Bool(_) => vec![Value::Null],
    }
}

/// Paths to every value inside.
fn paths(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| paths(v, &format!("{at}/{i}"), out)),
        Value::Object(map) => map.iter().for_each(|(k, v)| paths(v, &format!("{at}/{k}"), out)),
        _ => {}
    }
}

/// Statements with one value replaced, or one map entry missing or added.
fn mutants(original: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    paths(original, "", &mut all);
    let mut out = Vec::new();
    for path in all {
        let value = original.pointer(&path).unwrap();
        for new in replacements(value) {
            let mut mutant = original.clone();
            *mutant.pointer_mut(&path).unwrap() = new.clone();
            out.push((format!("{path} = {new}"), mutant));
        }
        if let Value::Object(map) = value {
            for key in map.keys() {
                let mut mutant = original.clone();
                mutant.pointer_mut(&path).unwrap().as_object_mut().unwrap().remove(key);
                out.push((format!("{path} without {key}"), mutant));
            }
            let mut mutant = original.clone();
            mutant.pointer_mut(&path).unwrap().as_object_mut().unwrap().insert("extra".into(), json!(1));
            out.push((format!("{path} with an entry more"), mutant));
        }
    }
    out
}

#[test]
fn every_field_of_the_statement_is_bound() {
    let Proven { statement, bytes } = fixture();
    let original = serde_json::to_value(statement).unwrap();
    assert_eq!(serde_json::from_value::<Statement>(original.clone()).unwrap(), *statement);
    let mutants = mutants(&original);
    let counted: Vec<bool> = mutants
        .par_iter()
        .map(|(what, value)| {
            let Ok(mutant) = serde_json::from_value::<Statement>(value.clone()) else { return false };
            if mutant == *statement {
                return false;
            }
            refused(what, || verify_bytes(&mutant, bytes).is_ok());
            assert_ne!(mutant.digest(), statement.digest(), "{what}");
            true
        })
        .collect();
    let refused = counted.iter().filter(|c| **c).count();
    eprintln!("{refused} other statements refused ({} mutants)", mutants.len());
    assert!(refused > 2000, "{refused}");
}

#[test]
fn numbers_that_arent_finite_are_refused() {
    let Proven { statement, bytes } = fixture();
    for x in [f64::NAN, f64::INFINITY, -0.0, -1.0] {
        let mut mutant = statement.clone();
        mutant.relation.semantics.shape.rope_theta = x;
        refused("rope_theta", || verify_bytes(&mutant, bytes).is_ok());
        assert!(mutant.check().is_err());
        let mut mutant = statement.clone();
        mutant.relation.semantics.shape.norm_eps = x;
        assert!(mutant.check().is_err());
    }
}

/// What the wire format's digests look like is fixed: 64 hexadecimal digits, no signs.
#[test]
fn digests_are_hexadecimal() {
    use circuits::statement::Digest;
    let digits = "+f".repeat(32);
    assert!(digits.parse::<Digest>().is_err());
    assert!("0".repeat(63).parse::<Digest>().is_err());
    assert!("0".repeat(64).parse::<Digest>().is_ok());
}

/// Parameters under which the argument would be unsound are no relation.
/// Makes a relation's parameters unsound.
type Change = fn(&mut circuits::relation::RelationParams);

#[test]
fn unsound_parameters_are_refused() {
    use circuits::relation::{Relation, Scope};
    use model_runtime::shape::Site;
    let params = &fixture().statement.relation;
    Relation::new(params).unwrap();
    let changes: [(&str, Change); 25] = [
        ("output weights that don't tell 0 from 1", |p| *p.semantics.exps.get_mut("out.exp_bits").unwrap() = 14),
        ("another fixed point of output probabilities", |p| p.semantics.ops.get_mut("pr").unwrap().shift -= 1),
        ("another fixed point of attention probabilities", |p| p.semantics.ops.get_mut("p").unwrap().shift -= 1),
        ("squares that wrap around", |p| *p.semantics.consts.get_mut("n1.sq_shift").unwrap() = 0),
        ("softmax totals that wrap around", |p| p.semantics.shape.vocab = 1 << 20),
        ("a coarser square than bounds are argued for", |p| *p.semantics.consts.get_mut("n1.sq_shift").unwrap() += 1),
        ("token gradients longer than the field allows", |p| *p.semantics.consts.get_mut("ghf.length").unwrap() = 13),
        ("token gradients without length", |p| *p.semantics.consts.get_mut("ghf.length").unwrap() = 1),
        ("a lift that wraps around", |p| *p.semantics.consts.get_mut("ghf.lift").unwrap() = 13),
        ("scores in another unit", |p| p.semantics.ops.get_mut("score").unwrap().shift -= 1),
        ("a floor above every score", |p| *p.semantics.consts.get_mut("theta").unwrap() = 1 << 14),
        ("a sketch of a site without an adapter", |p| p.semantics.sketch.as_mut().unwrap().sites = vec![Site::Gate]),
        ("a sketch too long for its squares", |p| p.semantics.sketch.as_mut().unwrap().rows = 1 << 10),
        ("weights that wrap around", |p| p.rows = (1 << 17) + 1),
        ("rows without end", |p| p.rows = usize::MAX),
        ("contributors without end", |p| p.contributors = usize::MAX),
        ("no sketch rows", |p| p.semantics.sketch.as_mut().unwrap().rows = 0),
        ("three sketch rows", |p| p.semantics.sketch.as_mut().unwrap().rows = 3),
        ("rank zero", |p| p.semantics.lora.as_mut().unwrap().rank = 0),
        ("rank without end", |p| p.semantics.lora.as_mut().unwrap().rank = usize::MAX),
        ("a site twice", |p| p.semantics.lora.as_mut().unwrap().sites = vec![Site::Q, Site::Q]),
        ("sites out of order", |p| p.semantics.lora.as_mut().unwrap().sites = vec![Site::Down, Site::Q]),
        ("an index without attribution", |p| p.scope = Scope::Forward),
        ("tensors that nobody can commit", |p| (p.tokens, p.requests, p.semantics.shape.layers) = (1 << 14, 1 << 10, 1 << 10)),
        ("operands that wrap around", |p| p.semantics.ops.get_mut("hout").unwrap().coefs = vec![1 << 40; 4]),
    ];
    for (what, change) in changes {
        let mut params = params.clone();
        change(&mut params);
        assert!(Relation::new(&params).is_err(), "{what}");
    }
}

/// However a proof is verified, a relation that assumes its weights' ranges is refused.
#[test]
fn assumed_ranges_are_refused() {
    let mut statement = fixture().statement.clone();
    statement.relation.weight_ranges = WeightRanges::AssumedInsecure;
    let proof = Proof::<Native>::from_bytes(&fixture().bytes).unwrap();
    let refused = |error: &StatementError| matches!(error, StatementError::Clause { clause: Clause::Ranges, .. });
    assert!(matches!(verify(&statement, &proof), Err(VerifyError::Statement(e)) if refused(&e)));
    assert!(matches!(verify_bytes(&statement, &fixture().bytes), Err(VerifyError::Statement(e)) if refused(&e)));
    // What outer verification and audits check: nothing of the proof is needed to refuse it.
    assert!(statement.check().is_err_and(|e| refused(&e)));
    statement.check_benchmark().unwrap();
}
