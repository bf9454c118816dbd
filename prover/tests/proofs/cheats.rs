//! Cheating provers, one a test: the debug checker names the violated constraint, and no proof of the cheat verifies.
//!
//! Every cheat is consistent where it can be: what follows the overwritten tensor is recomputed.

use crate::common;
use circuits::ir::Group;
use circuits::statement::{Clause, Digest, StatementError, Tokens};
use circuits::witness::Witness;
use common::cheat::{Outcome, attempt, behind_honest_roots, refused, trace_cheat, violated};
use common::recompute::{derive, put_unit, quotients, recompute_after, unit_inputs, values};
use common::{Full, full, full_with, public_request};
use model_runtime::int::Trace;
use model_runtime::int::backward::gradient_length;
use model_runtime::int::gadgets::softmax_row;
use model_runtime::int::sketch::sketch_length;
use model_runtime::int::unit::UnitRow;
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

    /// Entries of a row of an index tensor.
    fn honest_row(&self, name: &str) -> usize {
        values(&self.full.relation, &mut self.honest.clone(), name).len() / self.full.index.rows.next_power_of_two()
    }

    fn proof(&self) -> Proof<Native> {
        let statement = self.full.statement(&self.honest, &self.fixed);
        let inputs = Inputs { claim: (&statement).into(), relation: &self.full.relation, tokens: vec![None], fixed: self.fixed.iter().collect() };
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
    f.trace(&cheat, "out.margin in range");
    // As if it were level with the best of the others.
    let mut level = cheat.clone();
    values(&f.full.relation, &mut level, "out.margin").iter_mut().for_each(|x| *x = (*x).max(0));
    values(&f.full.relation, &mut level, "out.tie").fill(0);
    f.trace(&level, "output weights");
}

/// A token that ties with a lower one isn't the greedy choice.
#[test]
fn a_tie_with_a_lower_token_denied() {
    let f = fixture();
    let relation = &f.full.relation;
    let mut cheat = f.honest.clone();
    let slot = f.honest.ctx.slots(&f.honest.ctx.requests[0]).find(|s| s.target > 0).unwrap();
    let width = values(relation, &mut cheat, "out.flag").len() / values(relation, &mut cheat, "out.tie").len();
    // A flag below the target claims a tie there; the prover denies it.
    values(relation, &mut cheat, "out.flag")[slot.number * width] = 1;
    values(relation, &mut cheat, "out.tie")[slot.number] = 0;
    f.trace(&cheat, "output weights");
    let ties = relation.lookups.iter().find(|l| l.name == "ties are told").unwrap();
    assert!(cheat.check_lookup(relation, ties).is_err());
    // Told, it takes a margin of at least one.
    values(relation, &mut cheat, "out.tie")[slot.number] = 1;
    values(relation, &mut cheat, "out.margin")[slot.number] = 0;
    assert!(cheat.check_lookup(relation, ties).is_ok());
    let strict = relation.lookups.iter().find(|l| l.name == "ties go to the lowest token").unwrap();
    assert!(cheat.check_lookup(relation, strict).is_err());
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
    let top = values(relation, &mut cheat, "best.top").iter().position(|&x| x == 1);
    let row = (0..f.full.index.rows).find(|&i| i != common::UNEARNED && Some(i) != top).unwrap();
    values(relation, &mut cheat, "score")[row] -= 1;
    values(relation, &mut cheat, "score.r")[row] += 1 << relation.params.semantics.ops["score"].shift;
    derive(relation, &mut cheat, "rel");
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
    // Few bits for a projected gradient, so that it saturates.
    let full = full_with(2, 1, &SITES, |sem| sem.ops.get_mut("pdq").unwrap().bits = 3);
    let honest = full.witness();
    assert_eq!(violated(&full.relation, &honest), None);
    let fixed = full.commit(&honest);
    let mut cheat = honest.clone();
    let unsaturated = quotients(&full.relation, &honest, "pdq");
    let projected = values(&full.relation, &mut cheat, "pdq");
    let at = (0..projected.len()).find(|&i| unsaturated[i] != i64::from(projected[i])).expect("something saturates");
    projected[at] = unsaturated[at] as i32;
    recompute_after(&full.relation, &mut cheat, "pdq.r", |_, _| {});
    trace_cheat(&full, &honest, &fixed, &cheat, "pdq saturates");
}

#[test]
fn gradient_of_another_loss() {
    let f = fixture();
    let (relation, mut cheat) = (&f.full.relation, f.honest.clone());
    let tokens = &mut cheat.ctx.requests[0].tokens;
    let last = tokens.last_mut().unwrap();
    *last = (*last + 1) % 30;
    recompute_after(relation, &mut cheat, "pr.r", |_, _| {});
    cheat.ctx = f.honest.ctx.clone();
    let weights = |w: &Witness| w.contributor_weights(relation);
    assert_ne!(weights(&cheat), weights(&f.honest));
    f.trace(&cheat, "nf.dn saturates");
}

/// The first live slot.
fn live_slot(f: &Fixture) -> usize {
    f.honest.ctx.slots(&f.honest.ctx.requests[0]).next().unwrap().number
}

/// One token's gradient weighs more than the others': its scale is honest arithmetic, its length isn't.
#[test]
fn a_tokens_gradient_made_longer() {
    let f = fixture();
    let (relation, mut cheat) = (&f.full.relation, f.honest.clone());
    let unit = gradient_length(&relation.params.semantics).unwrap();
    let (inputs, part) = unit_inputs(relation, &mut cheat, "ghf", &["nf.v"]);
    let mut rows: Vec<UnitRow> = inputs.iter().map(|x| unit.scale(x, part).unwrap()).collect();
    let (slot, shift) = (live_slot(f), unit.shift());
    let row = &mut rows[slot];
    row.f -= row.f / 4;
    for (k, x) in inputs[slot].iter().enumerate() {
        let sum = (i64::from(*x) << row.e) * i64::from(row.f) + unit.offset(k, part);
        (row.y[k], row.r[k]) = ((sum >> shift) as i32, (sum & ((1 << shift) - 1)) as i32);
    }
    put_unit(relation, &mut cheat, "ghf", &["nf.v"], &rows);
    recompute_after(relation, &mut cheat, "ghf.r1", |_, _| {});
    assert_ne!(cheat.contributor_weights(relation), f.honest.contributor_weights(relation));
    f.trace(&cheat, "ghf length");
}

/// One token's gradient left out.
#[test]
fn a_tokens_gradient_silenced() {
    let f = fixture();
    let (relation, mut cheat) = (&f.full.relation, f.honest.clone());
    let unit = gradient_length(&relation.params.semantics).unwrap();
    let (inputs, part) = unit_inputs(relation, &mut cheat, "ghf", &["nf.v"]);
    let mut rows: Vec<UnitRow> = inputs.iter().map(|x| unit.scale(x, part).unwrap()).collect();
    rows[live_slot(f)] = unit.scale(&vec![0; part], part).unwrap();
    put_unit(relation, &mut cheat, "ghf", &["nf.v"], &rows);
    recompute_after(relation, &mut cheat, "ghf.r1", |_, _| {});
    f.trace(&cheat, "ghf is zero only if its input is");
}

/// The query's sketch as a zero vector: nobody would be paid.
#[test]
fn a_querys_sketch_silenced() {
    let f = fixture();
    let (relation, mut cheat) = (&f.full.relation, f.honest.clone());
    let names: Vec<String> = SITES.iter().map(|s| format!("sk{}", s.name())).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let unit = sketch_length(&relation.params.semantics);
    let (inputs, part) = unit_inputs(relation, &mut cheat, "qs", &names);
    put_unit(relation, &mut cheat, "qs", &names, &[unit.scale(&vec![0; inputs[0].len()], part).unwrap()]);
    for name in ["score", "best", "rel"] {
        derive(relation, &mut cheat, name);
    }
    f.trace(&cheat, "qsq is zero only if its input is");
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
    for name in ["score", "best", "rel"] {
        derive(&f.full.relation, &mut cheat, name);
    }
    cheat
}

/// One row of every site's sketches.
fn edit_row(f: &Fixture, cheat: &mut Witness, row: usize, edit: impl Fn(&mut i32)) {
    for site in SITES {
        let sketches = values(&f.full.relation, cheat, &format!("G{}", site.name()));
        let len = sketches.len() / f.full.index.rows.next_power_of_two();
        sketches[row * len..(row + 1) * len].iter_mut().for_each(&edit);
    }
}

#[test]
fn one_samples_sketch_made_longer() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    edit_row(f, &mut cheat, 0, |x| *x += *x / 8);
    f.long_lived(&rescored(f, cheat), "index rows have their length");
}

#[test]
fn a_row_that_does_not_earn_has_content() {
    let f = fixture();
    let mut cheat = f.honest.clone();
    values(&f.full.relation, &mut cheat, "Gq")[common::UNEARNED * f.honest_row("Gq")] = 1;
    f.long_lived(&rescored(f, cheat), "Gq is zero in rows that don't earn");
    // As one that earns, it is too short.
    let mut cheat = f.honest.clone();
    values(&f.full.relation, &mut cheat, "G.live")[common::UNEARNED] = 1;
    f.long_lived(&rescored(f, cheat), "index rows have their length");
}

/// Relevance begins at half the best score: another best pays others.
#[test]
fn another_best_score() {
    let f = fixture();
    let relation = &f.full.relation;
    let with_best = |change: i32| {
        let mut cheat = f.honest.clone();
        let best = values(relation, &mut cheat, "best")[0] + change;
        values(relation, &mut cheat, "best")[0] = best;
        values(relation, &mut cheat, "best.half")[0] = best / 2;
        values(relation, &mut cheat, "best.odd")[0] = best % 2;
        derive(relation, &mut cheat, "rel");
        cheat
    };
    f.trace(&with_best(-40), "marked rows attain the best");
    f.trace(&with_best(40), "marked rows attain the best");
    // Nothing marked at all.
    let unmarked = |mut cheat: Witness| {
        values(relation, &mut cheat, "best.top").fill(0);
        cheat
    };
    f.trace(&unmarked(with_best(40)), "the best is attained");
    // Marked is another row whose score is that of the forged best: the true best exceeds it.
    let scores = values(relation, &mut f.honest.clone(), "score").clone();
    let best = values(relation, &mut f.honest.clone(), "best")[0];
    let (row, second) = scores.iter().copied().enumerate().filter(|&(_, s)| s < best).max_by_key(|&(_, s)| s).unwrap();
    let mut cheat = unmarked(with_best(second - best));
    values(relation, &mut cheat, "best.top")[row] = 1;
    f.trace(&cheat, "no score exceeds the best");
}

#[test]
fn score_with_the_other_sign() {
    let f = fixture();
    let relation = &f.full.relation;
    let mut cheat = f.honest.clone();
    let row = values(relation, &mut cheat, "score").iter().position(|&s| s < 0).unwrap();
    values(relation, &mut cheat, "score")[row] *= -1;
    for name in ["best", "rel"] {
        derive(relation, &mut cheat, name);
    }
    f.trace(&cheat, "score is rounded");
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
    f.trace(&cheat, "scores above half the best");
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
    recompute_after(&f.full.relation, &mut cheat, "ghf.r1", |relation, witness| {
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
    f.trace(&cheat, "scores above half the best");
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
