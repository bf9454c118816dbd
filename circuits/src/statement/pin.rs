//! Pins: what a long-lived commitment is called, in statements, registries, contracts and files.
//!
//! `pin = H(parameters, root, y)`, where `y` is the committed polynomial's value at a multilinear point that is hashed from parameters and root.
//! A root alone may lie within the decoding radius of several polynomials; a pin names one of them (`docs/protocol.md`, section 4; "list
//! polynomial commitments", ePrint 2022/1216, section 4.2). Parameters are everything that the committed values take their meaning from. The
//! point and the hash are a profile's, in `verifier::pin`.

use super::{Digest, Encoder, Profile};
use crate::ir::Group;
use crate::layout::{Layout, Slot};
use crate::relation::Relation;
use model_runtime::semantics::{Op, SketchShape};
use model_runtime::shape::{LoraShape, ModelShape, Site};
use serde::Serialize;
use std::collections::BTreeMap;

/// How a group's polynomial is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Encoding {
    /// Hash of the tree.
    pub profile: Profile,
    /// Variables of the polynomial.
    pub variables: usize,
    /// Base-two logarithm of the inverse rate.
    pub log_inv_rate: usize,
    /// Variables that the first fold binds: a leaf holds two to this many elements.
    pub fold: usize,
    /// Base-two logarithm of the evaluation domain's size, a subgroup of KoalaBear's units.
    pub domain: usize,
}

/// What [`parameters`] hashes.
#[derive(Serialize)]
struct Parameters<'a> {
    group: &'static str,
    encoding: Encoding,
    tensors: Vec<Tensor<'a>>,
    shape: &'a ModelShape,
    lora: Option<&'a LoraShape>,
    sketch: Option<&'a SketchShape>,
    rows: Option<usize>,
    contributors: Option<usize>,
    exps: BTreeMap<&'a str, i32>,
    weight_bits: BTreeMap<&'a str, u32>,
    ops: BTreeMap<&'a str, &'a Op>,
    consts: BTreeMap<&'a str, i64>,
}

/// A tensor's place.
#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    offset: usize,
    /// Names and log sizes of the axes, outermost first.
    axes: Vec<(&'static str, usize)>,
    /// Variables and their fixed bits, where the slot holds a part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'a [Option<bool>]>,
}

/// Digest of everything that gives a long-lived commitment its meaning, below `2^253`: how it is encoded, where its tensors lie, the architecture,
/// and the entries of the semantics that are settled when it is made. It doesn't depend on what comes later: an adapter, an index, a request's size.
pub fn parameters(relation: &Relation, group: Group, layout: &Layout, encoding: Encoding) -> Digest {
    let (params, sem) = (&relation.params, &relation.params.semantics);
    let indexed = group == Group::Index;
    let parameters = Parameters {
        group: group.name(),
        encoding,
        tensors: layout.slots.iter().map(|slot| tensor(relation, slot)).collect(),
        shape: &sem.shape,
        lora: sem.lora.as_ref().filter(|_| group != Group::Base),
        sketch: sem.sketch.as_ref().filter(|_| indexed),
        rows: indexed.then_some(params.rows),
        contributors: indexed.then_some(params.contributors),
        exps: settled(&sem.exps, group).map(|(name, &k)| (name, k)).collect(),
        weight_bits: settled(&sem.weight_bits, group).map(|(name, &bits)| (name, bits)).collect(),
        ops: settled(&sem.ops, group).collect(),
        consts: settled(&sem.consts, group).map(|(name, &x)| (name, x)).collect(),
    };
    let mut e = Encoder::new("poa/pin/1");
    // As in `RelationParams::digest`: one encoding of each value.
    e.bytes(&serde_json::to_vec(&parameters).unwrap_or_default());
    e.finish().truncated()
}

/// `keccak(parameters, root, y)`, `y` coefficient by coefficient: the `native` profile's pin.
pub fn keccak_pin(parameters: &Digest, root: &Digest, value: &[u32; 5]) -> Digest {
    let mut e = Encoder::new("poa/pin");
    e.bytes(&parameters.0);
    e.bytes(&root.0);
    value.iter().for_each(|&x| e.number(x.into()));
    e.finish()
}

fn tensor<'a>(relation: &'a Relation, slot: &'a Slot) -> Tensor<'a> {
    let def = &relation.tensors[slot.tensor.0];
    let axis = |a: &crate::ir::Axis| (relation.axes[a.0].name, relation.axes[a.0].log);
    let part = (!slot.is_whole()).then_some(slot.variables.as_slice());
    Tensor { name: &def.name, offset: slot.offset, axes: def.axes.iter().map(axis).collect(), part }
}

fn settled<T>(entries: &BTreeMap<String, T>, group: Group) -> impl Iterator<Item = (&str, &T)> {
    entries.iter().filter(move |(name, _)| settled_with(name) == group).map(|(name, x)| (name.as_str(), x))
}

/// The group whose making settles an entry of the semantics: importing the units and widths of the weights, training those of the adapted
/// model's run, forward and backward, indexing those of sketches and scores.
fn settled_with(name: &str) -> Group {
    let of_a_site = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| Site::ALL.iter().any(|s| s.name() == rest));
    match name {
        "embed" | "head" => Group::Base,
        "score" | "theta" => Group::Index,
        _ if of_a_site("w") => Group::Base,
        _ if ["G", "pd", "ru", "sk"].into_iter().any(of_a_site) => Group::Index,
        _ => Group::Adapter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_belong_to_what_settles_them() {
        for (group, names) in [
            (Group::Base, vec!["embed", "head", "wq", "wdown"]),
            (Group::Adapter, vec!["aq", "bdown", "q", "hin", "n1.eps", "att.exp_bits", "gin", "ghf.length", "up", "uq"]),
            (Group::Index, vec!["Gq", "pddown", "ruup", "skgate", "score", "theta"]),
        ] {
            assert!(names.iter().all(|name| settled_with(name) == group), "{group:?}");
        }
    }
}
