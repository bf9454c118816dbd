//! Reading files as they come from a download: a git-lfs pointer in a file's place is named.

use super::ImportError;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// How a git-lfs pointer begins (`https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md`).
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether the bytes stand for a file that git-lfs hasn't fetched.
pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS)
}

/// A file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let bytes = fs::read(path).map_err(|e| ImportError::io(path, e))?;
    if is_lfs_pointer(&bytes) { Err(ImportError::LfsPointer { path: path.display().to_string() }) } else { Ok(bytes) }
}

/// Reads and parses a JSON file.
pub(super) fn read_json(path: &Path) -> Result<Value, ImportError> {
    serde_json::from_slice(&read(path)?).map_err(|e| ImportError::Json { path: path.display().to_string(), reason: e.to_string() })
}

/// Reads a JSON file if there is one.
pub(super) fn read_optional_json(path: &Path) -> Result<Option<Value>, ImportError> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}
