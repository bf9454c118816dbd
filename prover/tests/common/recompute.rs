//! Recomputes what follows a changed tensor, so that a cheat contradicts one constraint only.
//!
//! Works from the relation itself: the quotient of a requantisation is its sum with the remainder left out.

use circuits::evaluate::{centred, evaluate};
use circuits::ir::{Sum, TensorId, int};
use circuits::relation::Relation;
use circuits::witness::Witness;

/// Index of a tensor.
pub fn id(relation: &Relation, name: &str) -> TensorId {
    relation.tensor(name).unwrap_or_else(|| panic!("no tensor `{name}`"))
}

/// A tensor's values.
pub fn values<'a>(relation: &Relation, witness: &'a mut Witness, name: &str) -> &'a mut Vec<i32> {
    &mut witness.tensors[id(relation, name).0]
}

fn sum_of<'a>(relation: &'a Relation, name: &str) -> Option<(&'a Sum, bool)> {
    let lookup =
        relation.lookups.iter().find(|l| l.name == format!("{name} saturates") || (name == "rel" && l.name == "scores above the noise floor"));
    let constraint = relation.constraints.iter().find(|c| c.name == format!("{name} is rounded"));
    lookup.map(|l| (&l.tuple[0], true)).or_else(|| constraint.map(|c| (&c.sum, false)))
}

/// `acc + 2^(s-1)` of a requantisation.
fn accumulate(relation: &Relation, witness: &mut Witness, name: &str, remainder: &str, sum: &Sum, shift: u32) -> Vec<i64> {
    values(relation, witness, name).fill(0);
    values(relation, witness, remainder).fill(0);
    let scale = int(1 << shift);
    evaluate(relation, &witness.ctx, witness, sum).into_iter().map(|q| centred(q * scale)).collect()
}

/// Recomputes one requantised, chained or selected tensor (and its remainder) from what precedes it.
pub fn derive(relation: &Relation, witness: &mut Witness, name: &str) -> bool {
    let chained = match name {
        "gout" => Some("layer gradients are chained"),
        "hin" => Some("layers are chained"),
        "hf" => Some("answer positions are selected"),
        "dz" => Some("the loss gradient is scaled"),
        _ => None,
    };
    if let Some(constraint) = chained.and_then(|c| relation.constraints.iter().find(|x| x.name == c)) {
        values(relation, witness, name).fill(0);
        let new: Vec<i32> = evaluate(relation, &witness.ctx, witness, &constraint.sum).into_iter().map(|x| centred(x) as i32).collect();
        *values(relation, witness, name) = new;
        return true;
    }
    let Some((sum, clamps)) = sum_of(relation, name) else { return false };
    let operation = match name {
        "rel" => "score",
        _ => name.strip_suffix(".n").unwrap_or(name),
    };
    let semantics = &relation.params.semantics;
    let op = &semantics.ops[operation];
    let remainder = format!("{operation}.r");
    let totals = accumulate(relation, witness, name, &remainder, sum, op.shift);
    let limit = 1i64 << (op.bits - 1);
    let finish = |z: i64| match name {
        "rel" => (z - semantics.consts["theta"]).max(0),
        _ if clamps => z.clamp(-limit, limit - 1),
        _ => z,
    };
    *values(relation, witness, &remainder) = totals.iter().map(|x| (x & ((1 << op.shift) - 1)) as i32).collect();
    *values(relation, witness, name) = totals.iter().map(|x| finish(x >> op.shift) as i32).collect();
    if name == "gin" {
        // Nothing reads the first layer's, and nobody computes it.
        let first = totals.len() / (1 << relation.log(&relation.tensors[id(relation, name).0].axes[1..2]));
        values(relation, witness, name)[..first].fill(0);
        values(relation, witness, &remainder)[..first].fill(0);
    }
    true
}

/// Recomputes everything declared after `first`, keeping an edit in place; as often as there are layers, since gradients go from layer to layer.
pub fn recompute_after(relation: &Relation, witness: &mut Witness, first: &str, edit: impl Fn(&Relation, &mut Witness)) {
    let start = id(relation, first).0 + 1;
    let layers = 1 << relation.axes.iter().find(|a| a.name == "l").map_or(0, |a| a.log);
    edit(relation, witness);
    for _ in 0..=layers {
        for tensor in start..relation.tensors.len() {
            if derive(relation, witness, &relation.tensors[tensor].name) {
                edit(relation, witness);
            }
        }
    }
}

/// The quotients of a saturating operation, before saturation.
pub fn quotients(relation: &Relation, witness: &Witness, name: &str) -> Vec<i64> {
    let (sum, _) = sum_of(relation, name).unwrap();
    evaluate(relation, &witness.ctx, witness, sum).into_iter().map(centred).collect()
}
