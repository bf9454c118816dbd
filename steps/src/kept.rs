//! Commitments kept on disk beside what they commit: made once, used by every later proof.

use crate::error::{Failure, While};
use crate::progress::Observer;
use circuits::ir::{F, Group};
use circuits::layout::Layout;
use circuits::relation::Relation;
use circuits::statement::Profile;
use prover::commit::Committed;
use prover::kept::{Keeping, KeptProfile};
use std::path::{Path, PathBuf};

/// Bytes from which on a kept commitment is worth a word.
const LARGE: u64 = 1 << 28;

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
    pub fn commit<C: KeptProfile>(
        &self,
        relation: &Relation,
        group: Group,
        layout: Layout,
        values: Vec<F>,
        on: &dyn Observer,
    ) -> Result<Committed<C>, Failure> {
        let Some(file) = self.file(group, C::PROFILE) else {
            return Ok(Committed::new(group, layout, values).during("committing")?.pinned(relation));
        };
        let (committed, keeping) = Committed::kept(group, layout, values, &file).during("committing")?;
        match keeping {
            Keeping::Written(bytes) if bytes >= LARGE => {
                let gigabytes = bytes as f64 / f64::from(1 << 30);
                on.note(format!(
                    "note: the commitment is kept in {} ({gigabytes:.1} GB), so that later proofs needn't make it again",
                    file.display()
                ));
            }
            Keeping::Failed(error) => {
                on.note(format!("note: {} can't be written ({error}); the commitment is made again next time", file.display()));
            }
            Keeping::Taken | Keeping::Written(_) => {}
        }
        Ok(committed.pinned(relation))
    }
}
