//! Snapshots in `tests/golden`.

use circuits::relation::Relation;
use prover::prove::size;
use std::path::PathBuf;
use verifier::plan::Plan;

/// Compares with the snapshot of that name; `POA_BLESS=1` rewrites it.
pub fn check(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("POA_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{name} changed; POA_BLESS=1 rewrites it");
}

/// How large a relation is.
pub fn counts(relation: &Relation) -> String {
    let plan = Plan::new(relation);
    let (lookups, committed) = size(relation);
    [
        ("tensors", relation.tensors.len()),
        ("constraints", relation.constraints.len()),
        ("lookups", relation.lookups.len()),
        ("tables", relation.tables.len()),
        ("leaves_log", plan.leaves_log),
        ("sum_rounds", plan.sum_rounds),
        ("committed_elements", committed),
        ("looked_up_positions", lookups),
    ]
    .map(|(name, n)| format!("{name} {n}\n"))
    .concat()
}
