//! Commitments kept on disk beside what they commit: made once, used by every later proof.

use crate::error::{Failure, While};
use crate::progress::Observer;
use circuits::ir::{F, Group};
use circuits::layout::Layout;
use circuits::relation::Relation;
use circuits::statement::Profile;
use model_runtime::import::write_atomic;
use prover::commit::Committed;
use std::path::{Path, PathBuf};
use verifier::profile::NativeProfile;

/// Directories of a job's long-lived parts; none for what is on no disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shelves<'a> {
    /// The model's, and the lookup tables'.
    pub model: Option<&'a Path>,
    /// The adapter's.
    pub adapter: Option<&'a Path>,
    /// The index'.
    pub index: Option<&'a Path>,
}

impl Shelves<'_> {
    /// The file that a group's commitment is kept in.
    pub fn file(&self, group: Group, profile: Profile) -> Option<PathBuf> {
        let (dir, name) = match group {
            Group::Base => (self.model, "base"),
            Group::Tables => (self.model, "tables"),
            Group::Adapter => (self.adapter, "adapter"),
            Group::Index => (self.index, "index"),
            Group::Trace => (None, "trace"),
        };
        let profile = match profile {
            Profile::Native => "native",
            Profile::Evm => "evm",
        };
        dir.map(|dir| dir.join(format!("{name}.{profile}.commitment")))
    }

    /// Commits values: takes what is kept of them, or commits them and keeps it.
    pub fn commit<C: NativeProfile>(
        &self,
        relation: &Relation,
        group: Group,
        layout: Layout,
        values: Vec<F>,
        on: &dyn Observer,
    ) -> Result<Committed<C>, Failure> {
        let committed = self.commit_unpinned(group, layout, values, on)?;
        Ok(committed.pinned(relation))
    }

    fn commit_unpinned<C: NativeProfile>(&self, group: Group, layout: Layout, values: Vec<F>, on: &dyn Observer) -> Result<Committed<C>, Failure> {
        let Some(file) = self.file(group, C::PROFILE) else {
            return Committed::new(group, layout, values).during("committing");
        };
        // A file that can't be read is like none: what is in it can be made again.
        let stored = std::fs::read(&file).unwrap_or_default();
        let (committed, taken) = Committed::stored_or_new(group, layout, values, &stored).during("committing")?;
        let bytes = if taken { None } else { committed.to_bytes().during("storing a commitment")? };
        if let Some(Err(error)) = bytes.map(|bytes| write_atomic(&file, &bytes)) {
            on.note(format!("note: {} can't be written ({error}); the commitment is made again next time", file.display()));
        }
        Ok(committed)
    }
}
