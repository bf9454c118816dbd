//! Verifying keys of the light client.

use crate::chain::deploy::Deployment;
use crate::chain::watch::Judge;
use crate::error::Failure;
use std::path::PathBuf;

/// Reads keys to verify a deployment's settlements with.
pub fn load(paths: &[PathBuf], _deployment: &Deployment) -> Result<Vec<Box<dyn Judge>>, Failure> {
    match paths {
        [] => Ok(vec![]),
        [path, ..] => Err(Failure::input(format!("{}: keys can't be read yet", path.display()))),
    }
}
