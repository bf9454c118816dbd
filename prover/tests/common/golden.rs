//! Snapshots in `tests/golden`.

use std::path::PathBuf;

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
