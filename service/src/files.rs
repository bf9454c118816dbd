//! Files by their content: named by their hash, whole or not there.

use crate::database::hex;
use std::path::PathBuf;
use steps::error::{Failure, While};
use steps::store::write_file;

/// A directory of files.
pub struct Files(PathBuf);

impl Files {
    /// In a directory, which is made when something is put there.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(&name[..2.min(name.len())]).join(name)
    }

    /// Keeps bytes; returns their name.
    ///
    /// # Errors
    ///
    /// When they can't be written.
    pub fn put(&self, bytes: &[u8]) -> Result<String, Failure> {
        let name = hex(blake3::hash(bytes).as_bytes());
        let path = self.path(&name);
        if !path.exists() {
            write_file(&path, bytes)?;
        }
        Ok(name)
    }

    /// Reads what was put under a name.
    ///
    /// # Errors
    ///
    /// When it isn't there, or isn't what was put there.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let path = self.path(name);
        let bytes = std::fs::read(&path).during_path("reading", &path)?;
        if hex(blake3::hash(&bytes).as_bytes()) != name {
            return Err(Failure::input(format!("{} isn't what was stored there", path.display())));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path().join("files"));
        let name = files.put(b"a proof").unwrap();
        assert_eq!((files.put(b"a proof").unwrap(), files.get(&name).unwrap()), (name.clone(), b"a proof".to_vec()));
        std::fs::write(files.path(&name), b"another").unwrap();
        assert!(files.get(&name).is_err());
    }
}
