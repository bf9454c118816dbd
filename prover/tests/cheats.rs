//! Cheating provers, one a test: the debug checker names the violated constraint, and no proof of the cheat verifies.
//!
//! Every cheat is consistent where it can be: what follows the overwritten tensor is recomputed.

mod common;

use circuits::ir::Group;
use circuits::statement::{Clause, Digest, StatementError, Tokens};
use circuits::witness::Witness;
use common::cheat::{Outcome, attempt, behind_honest_roots, refused, trace_cheat, violated};
use common::recompute::{derive, quotients, recompute_after, values};
use common::{Full, full, full_with, public_request};
use model_runtime::int::Trace;
use model_runtime::int::gadgets::softmax_row;
use model_runtime::shape::Site;
use model_runtime::tables::{exp_table, recip_table};
use prover::commit::Committed;
use prover::prove::{Inputs, Silent, Stages, prove};
use std::sync::OnceLock;
use verifier::profile::Native;
use verifier::{Proof, VerifyError};

const SITES: [Site; 3] = [Site::Q, Site::Gate, Site::Down];

struct Fixture {
    full: Full,
    honest: Witness,
    fixed: Vec<Committed<Native>>,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let full = full(2, 1, &SITES);
        let honest = full.witness();
        let fixed = full.commit(&honest);
        Fixture { full, honest, fixed }
    })
}

impl Fixture {
    fn trace(&self, cheat: &Witness, expected: &str) {
        trace_cheat(&self.full, &self.honest, &self.fixed, cheat, expected);
    }

    /// A cheat in a long-lived group: refused behind the honest roots and under roots of its own.
    fn long_lived(&self, cheat: &Witness, expected: &str) {
        assert_eq!(violated(&self.full.relation, cheat).as_deref(), Some(expected));
        let hidden = behind_honest_roots(&self.full, &self.fixed, cheat);
        let statement = self.full.statement(cheat, &self.fixed);
        refused(&self.full, &self.honest, cheat, &statement, &hidden);
        let open = self.full.commit(cheat);
        let statement = self.full.statement(cheat, &open);
        assert_eq!(refused(&self.full, &self.honest, cheat, &statement, &open), VerifyError::Constraints);
    }

    fn proof(&self) -> Proof<Native> {
        let statement = self.full.statement(&self.honest, &self.fixed);
        let inputs = Inputs { statement: &statement, relation: &self.full.relation, tokens: vec![None], fixed: self.fixed.iter().collect() };
        prove(inputs, self.honest.clone(), &mut Stages::new(&mut Silent)).unwrap()
    }
}

#[test]
fn another_token() {
    let f = fixture();
    let runtime = f.full.runtime(&f.full.model.tensors);
    let mut tokens = vec![1];
    tokens.extend(runtime.generate(&[1], 4, None).unwrap());
    let last = tokens.last_mut().unwrap();
    *last = (*last + 1) % 30;
    // A sample needn't be greedy: the trace is honest but for the choice of its last token.
    let trace: Trace = f.full.trace(&runtime, &tokens, 1);
    let cheat = f.full.witness_of(&f.full.model.tensors, &f.full.index_tensors, &[trace]);
    f.trace(&cheat, "the chosen token has the largest logit");
}

#[test]
fn another_token_in_the_statement() {
    let f = fixture();
    let proof = f.proof();
    let mut statement = f.full.statement(&f.honest, &f.fixed);
    verifier::verify(&statement, &proof).unwrap();
    if let Tokens::Public { tokens, .. } = &mut statement.requests[0].tokens {
        let last = tokens.last_mut().unwrap();
        *last = (*last + 1) % 30;
    }
    assert!(verifier::verify(&statement, &proof).is_err());
}

#[test]
fn another_weight() {
    let f = fixture();
    let mut base = f.full.model.tensors.clone();
    let weight = &mut base.get_mut("wdown").unwrap().data[0];
    *weight += if *weight > 0 { -200 } else { 200 };
    let runtime = f.full.runtime(&base);
    let prompt = [1, 5, 9];
    let tokens = [prompt.to_vec(), runtime.generate(&prompt, 3, None).unwrap()].concat();
    let trace = f.full.trace(&runtime, &tokens, 3);
    let cheat = f.full.witness_of(&base, &f.full.index_tensors, &[trace]);
    // An honest run of another model: everything holds but the commitment.
    assert_eq!(violated(&f.full.relation, &cheat), None);
    let hidden = behind_honest_roots(&f.full, &f.fixed, &cheat);
    let statement = f.full.statement(&cheat, &f.fixed);
    let error = refused(&f.full, &f.honest, &cheat, &statement, &hidden);
    assert!(matches!(error, VerifyError::Opening { group: Group::Base, .. }), "{error}");
}

#[test]
fn larger_remainder() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    let relation = &f.full.relation;
    let row = values(relation, &mut cheat, "rel").iter().position(|&x| x > 1).unwrap();
    values(relation, &mut cheat, "rel")[row] -= 1;
    values(relation, &mut cheat, "score.r")[row] += 1 << relation.params.semantics.ops["score"].shift;
    f.trace(&cheat, "score.r in range");
}

#[test]
fn softmax_shifted_by_a_wrong_maximum() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    let relation = &f.full.relation;
    // The first token attends to itself only: its probability is the same whatever the maximum.
    values(relation, &mut cheat, "att.max")[0] += 1;
    let weight = exp_table(relation.params.semantics.exps["att.exp_bits"])[1];
    values(relation, &mut cheat, "att.w")[0] = weight;
    values(relation, &mut cheat, "att.flag")[0] = 0;
    let row = softmax_row(weight.into(), &recip_table());
    let parts = [("e", row.e), ("man", row.man), ("rem", row.rem), ("big", i32::from(row.man >= 1 << 15)), ("p2", 1 << row.e)];
    let factor = [("g", row.g), ("frem", row.frem), ("f0", row.f & 0xfff), ("f1", row.f >> 12)];
    for (part, value) in parts.into_iter().chain(factor) {
        values(relation, &mut cheat, &format!("att.{part}"))[0] = value;
    }
    assert!(derive(relation, &mut cheat, "p"));
    assert_eq!(values(relation, &mut cheat, "p"), values(relation, &mut f.honest.clone(), "p"));
    f.trace(&cheat, "attention maximum is attained");
}

#[test]
fn saturated_value_unsaturated() {
    // Few bits for the conditioned sketch, so that it saturates.
    let full = full_with(2, 1, &SITES, |sem| sem.ops.get_mut("mqq").unwrap().bits = 3);
    let honest = full.witness();
    assert_eq!(violated(&full.relation, &honest), None);
    let fixed = full.commit(&honest);
    let mut cheat = honest.clone();
    let unsaturated = quotients(&full.relation, &honest, "mqq");
    let conditioned = values(&full.relation, &mut cheat, "mqq");
    let at = (0..conditioned.len()).find(|&i| unsaturated[i] != i64::from(conditioned[i])).expect("something saturates");
    conditioned[at] = unsaturated[at] as i32;
    derive(&full.relation, &mut cheat, "rel");
    trace_cheat(&full, &honest, &fixed, &cheat, "mqq saturates");
}

#[test]
fn gradient_of_another_loss() {
    let f = fixture();
    let (relation, mut cheat) = (&f.full.relation, f.honest.clone());
    let tokens = &mut cheat.ctx.requests[0].tokens;
    let last = tokens.last_mut().unwrap();
    *last = (*last + 1) % 30;
    derive(relation, &mut cheat, "dz");
    cheat.ctx = f.honest.ctx.clone();
    recompute_after(relation, &mut cheat, "dz", |_, _| {});
    let weights = |w: &Witness| w.contributor_weights(relation);
    assert_ne!(weights(&cheat), weights(&f.honest));
    f.trace(&cheat, "the loss gradient is scaled");
}

/// A slot's gradient weighed differently, everything after it recomputed.
#[test]
fn gradient_with_another_fine_scale() {
    let f = fixture();
    let (relation, mut cheat) = (&f.full.relation, f.honest.clone());
    let fine = values(relation, &mut cheat, "boost.fine");
    fine[0] = if fine[0] == 4096 { 2048 } else { 4096 };
    recompute_after(relation, &mut cheat, "boost.fine", |_, _| {});
    assert_ne!(cheat.contributor_weights(relation), f.honest.contributor_weights(relation));
    f.trace(&cheat, "gradient scale");
}

#[test]
fn nothing_changes_when_an_honest_witness_is_recomputed() {
    let f = fixture();
    let mut again = f.honest.clone();
    recompute_after(&f.full.relation, &mut again, "pr.r", |_, _| {});
    for (i, tensor) in f.full.relation.tensors.iter().enumerate() {
        assert!(again.tensors[i] == f.honest.tensors[i], "{}", tensor.name);
    }
}

/// Recomputes scores and relevance after an edit of the index.
fn rescored(f: &Fixture, mut cheat: Witness) -> Witness {
    for site in SITES {
        derive(&f.full.relation, &mut cheat, &format!("mq{}", site.name()));
    }
    derive(&f.full.relation, &mut cheat, "rel");
    cheat
}

#[test]
fn one_samples_sketch_doubled() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    let sketches = values(&f.full.relation, &mut cheat, "Gq");
    let row = sketches.len() / f.full.index.rows.next_power_of_two();
    sketches[..row].iter_mut().for_each(|x| *x *= 2);
    f.long_lived(&rescored(f, cheat), "Hq is the Gram matrix");
}

#[test]
fn another_preconditioner() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    values(&f.full.relation, &mut cheat, "Mgate").iter_mut().for_each(|x| *x /= 2);
    f.long_lived(&rescored(f, cheat), "Mgate inverts Hgate");
}

#[test]
fn score_with_the_other_sign() {
    let f = fixture();
    let relation = &f.full.relation;
    let scores = quotients(relation, &f.honest, "rel");
    let row = scores.iter().position(|&s| s < 0).unwrap();
    let mut cheat = f.honest.clone();
    values(relation, &mut cheat, "rel")[row] = -scores[row] as i32;
    f.trace(&cheat, "scores above the noise floor");
}

#[test]
fn weight_moved_to_another_contributor() {
    let f = fixture();
    let relation = &f.full.relation;
    let honest = f.full.statement(&f.honest, &f.fixed);
    // In the statement alone …
    let mut statement = honest.clone();
    let from = statement.requests[0].weights.iter().position(|&w| w > 0).unwrap();
    let to = (from + 1) % common::CONTRIBUTORS;
    let moved = statement.requests[0].weights[from];
    statement.requests[0].weights[from] = 0;
    statement.requests[0].weights[to] += moved;
    assert!(verifier::verify(&statement, &f.proof()).is_err());
    let mut own = f.honest.clone();
    let lookups = own.count(relation).unwrap();
    assert!(matches!(attempt(&f.full, &statement, &f.fixed, own, lookups), Outcome::NoProof));
    // … with relevance to match …
    let mut cheat = f.honest.clone();
    let rel = values(relation, &mut cheat, "rel");
    let rows: Vec<usize> = (0..f.full.index.rows).filter(|i| i % common::CONTRIBUTORS == from).collect();
    rows.iter().for_each(|&i| rel[i] = 0);
    rel[to] += moved as i32;
    assert_eq!(f.full.statement(&cheat, &f.fixed).requests, statement.requests);
    f.trace(&cheat, "scores above the noise floor");
    // … or with other authors in the index, behind its root.
    let mut cheat = f.honest.clone();
    let authors = values(relation, &mut cheat, "contributor");
    rows.iter().for_each(|&i| authors[i] = to as i32);
    assert_eq!(violated(relation, &cheat), None);
    let hidden = behind_honest_roots(&f.full, &f.fixed, &cheat);
    let error = refused(&f.full, &f.honest, &cheat, &statement, &hidden);
    assert!(matches!(error, VerifyError::Opening { group: Group::Index, .. }), "{error}");
}

#[test]
fn gradient_on_a_padded_token() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    recompute_after(&f.full.relation, &mut cheat, "ghf.r", |relation, witness| {
        let last = values(relation, witness, "gout").len() - 1;
        // The last layer's last token, in a true channel.
        values(relation, witness, "gout")[last - 8] = 77;
    });
    f.trace(&cheat, "layer gradients are chained");
}

#[test]
fn relevance_of_a_padded_row() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    *values(&f.full.relation, &mut cheat, "rel").last_mut().unwrap() = 5;
    f.trace(&cheat, "scores above the noise floor");
}

#[test]
fn weight_in_the_padding() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    // Nothing reads the last padded token's embedding.
    let embed = values(&f.full.relation, &mut cheat, "embed");
    let at = embed.len() - 16;
    embed[at] = 1;
    f.long_lived(&cheat, "embed is zero in the padding of v");
}

#[test]
fn second_layers_input_is_not_the_firsts_output() {
    let f = fixture();
    let relation = &f.full.relation;
    let trace = &f.full.traces[0];
    // Another model that gives the same answer and differs in its first layer only.
    let other = (0..200)
        .find_map(|i| {
            let mut base = f.full.model.tensors.clone();
            base.get_mut("wdown").unwrap().data[i] += 3;
            let runtime = f.full.runtime(&base);
            let answer = runtime.generate(&trace.tokens[..3], 3, None).ok()?;
            let run = (answer == trace.tokens[3..]).then(|| f.full.trace(&runtime, &trace.tokens, 3))?;
            (run.tensors["hout"].data != trace.tensors["hout"].data).then_some(run)
        })
        .unwrap();
    assert_eq!(public_request(&other), public_request(trace));
    let mut cheat = f.full.witness_of(&f.full.model.tensors, &f.full.index_tensors, &[other]);
    let layers = common::recompute::id(relation, "hin").0;
    for i in layers..relation.tensors.len() {
        let axes = &relation.tensors[i].axes;
        if axes.get(1).is_some_and(|a| relation.axes[a.0].name == "l") {
            let first = cheat.tensors[i].len() / 2;
            cheat.tensors[i][..first].copy_from_slice(&f.honest.tensors[i][..first]);
        }
    }
    recompute_after(relation, &mut cheat, "pr.r", |_, _| {});
    f.trace(&cheat, "layers are chained");
}

#[test]
fn index_of_another_adapter() {
    let f = fixture();
    let mut statement = f.full.statement(&f.honest, &f.fixed);
    let proof = f.proof();
    statement.index.as_mut().unwrap().adapter = Digest([1; 32]);
    let error = verifier::verify(&statement, &proof).unwrap_err();
    assert!(matches!(error, VerifyError::Statement(StatementError::Clause { clause: Clause::IndexModel, .. })), "{error}");
}
