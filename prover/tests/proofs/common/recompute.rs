//! Recomputes what follows a changed tensor, so that a cheat contradicts one constraint only.
//!
//! Works from the relation itself: the quotient of a requantisation is its sum with the remainder left out.

use circuits::evaluate::{centred, evaluate};
use circuits::ir::{Sum, TensorId, int};
use circuits::relation::Relation;
use circuits::witness::Witness;
use model_runtime::int::backward::gradient_length;
use model_runtime::int::sketch::sketch_length;
use model_runtime::int::unit::{UnitLength, UnitRow};

/// Index of a tensor.
pub fn id(relation: &Relation, name: &str) -> TensorId {
    relation.tensor(name).unwrap_or_else(|| panic!("no tensor `{name}`"))
}

/// A tensor's values.
pub fn values<'a>(relation: &Relation, witness: &'a mut Witness, name: &str) -> &'a mut Vec<i32> {
    &mut witness.tensors[id(relation, name).0]
}

fn sum_of<'a>(relation: &'a Relation, name: &str) -> Option<(&'a Sum, bool)> {
    let lookup = relation.lookups.iter().find(|l| l.name == format!("{name} saturates"));
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
        _ => None,
    };
    if let Some(constraint) = chained.and_then(|c| relation.constraints.iter().find(|x| x.name == c)) {
        values(relation, witness, name).fill(0);
        let new: Vec<i32> = evaluate(relation, &witness.ctx, witness, &constraint.sum).into_iter().map(|x| centred(x) as i32).collect();
        *values(relation, witness, name) = new;
        return true;
    }
    match name {
        "ghf.e" => return derive_unit(relation, witness, "ghf", &["nf.v"], gradient_length(&relation.params.semantics).unwrap()),
        "qs.e" => {
            let inputs: Vec<String> = relation.params.semantics.sketched().iter().map(|s| format!("sk{}", s.name())).collect();
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            return derive_unit(relation, witness, "qs", &inputs, sketch_length(&relation.params.semantics));
        }
        "best" => return derive_best(relation, witness),
        "rel" => return derive_relevance(relation, witness),
        _ => {}
    }
    let Some((sum, clamps)) = sum_of(relation, name) else { return false };
    let operation = name.strip_suffix(".n").unwrap_or(name);
    let semantics = &relation.params.semantics;
    let op = &semantics.ops[operation];
    let remainder = format!("{operation}.r");
    let totals = accumulate(relation, witness, name, &remainder, sum, op.shift);
    let limit = 1i64 << (op.bits - 1);
    let finish = |z: i64| match name {
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

/// The output of a vector's part that is brought to a length.
fn unit_output(input: &str) -> String {
    if input == "nf.v" { "ghf".to_owned() } else { input.replacen("sk", "qs", 1) }
}

/// Writes rows brought to a length into `x`'s tensors.
pub fn put_unit(relation: &Relation, witness: &mut Witness, x: &str, inputs: &[&str], rows: &[UnitRow]) {
    type Field = (&'static str, fn(&UnitRow) -> i32);
    let fields: [Field; 5] = [("e", |u| u.e), ("p2", |u| 1 << u.e), ("f", |u| u.f), ("g", |u| u.f << u.e), ("live", |u| i32::from(u.live))];
    for (part, get) in fields {
        *values(relation, witness, &format!("{x}.{part}")) = rows.iter().map(get).collect();
    }
    let part = rows[0].y.len() / inputs.len();
    for (i, input) in inputs.iter().enumerate() {
        let output = unit_output(input);
        let of = |get: fn(&UnitRow) -> &Vec<i32>| rows.iter().flat_map(|u| get(u)[i * part..(i + 1) * part].to_vec()).collect::<Vec<i32>>();
        *values(relation, witness, &output) = of(|u| &u.y);
        *values(relation, witness, &format!("{output}.r0")) = of(|u| &u.r).iter().map(|r| r & 0xffff).collect();
        *values(relation, witness, &format!("{output}.r1")) = of(|u| &u.r).iter().map(|r| r >> 16).collect();
    }
}

/// The rows of the vectors `inputs`, parts side by side, and the length of a part.
pub fn unit_inputs(relation: &Relation, witness: &mut Witness, x: &str, inputs: &[&str]) -> (Vec<Vec<i32>>, usize) {
    let count = values(relation, witness, &format!("{x}.e")).len();
    let parts: Vec<Vec<i32>> = inputs.iter().map(|input| values(relation, witness, input).clone()).collect();
    let part = parts[0].len() / count;
    ((0..count).map(|row| parts.iter().flat_map(|p| p[row * part..(row + 1) * part].to_vec()).collect()).collect(), part)
}

fn derive_unit(relation: &Relation, witness: &mut Witness, x: &str, inputs: &[&str], unit: UnitLength) -> bool {
    let (rows, part) = unit_inputs(relation, witness, x, inputs);
    let rows: Vec<UnitRow> = rows.iter().map(|row| unit.scale(row, part).unwrap()).collect();
    put_unit(relation, witness, x, inputs, &rows);
    true
}

/// `best` and what shows that it is attained, from the scores.
fn derive_best(relation: &Relation, witness: &mut Witness) -> bool {
    let theta = relation.params.semantics.consts["theta"] as i32;
    let requests = values(relation, witness, "best").len();
    let scores = values(relation, witness, "score").clone();
    let rows = scores.len() / requests;
    for (b, scores) in scores.chunks_exact(rows).enumerate() {
        let best = scores.iter().copied().max().unwrap().max(2 * theta);
        let top = scores.iter().position(|&s| s == best);
        for (part, value) in [("best", best), ("best.half", best / 2), ("best.odd", best % 2), ("best.floor", i32::from(top.is_none()))] {
            values(relation, witness, part)[b] = value;
        }
        let marks = &mut values(relation, witness, "best.top")[b * rows..(b + 1) * rows];
        marks.iter_mut().enumerate().for_each(|(i, mark)| *mark = i32::from(top == Some(i)));
    }
    true
}

fn derive_relevance(relation: &Relation, witness: &mut Witness) -> bool {
    let halves = values(relation, witness, "best.half").clone();
    let scores = values(relation, witness, "score").clone();
    let rows = scores.len() / halves.len();
    let rel = scores.iter().enumerate().map(|(i, s)| (s - halves[i / rows]).max(0)).collect();
    *values(relation, witness, "rel") = rel;
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
