//! What reading a datanet left out or changed, to be said aloud.

use std::collections::BTreeMap;
use std::fmt;

/// Why a file isn't a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its name, or that of a folder it lies in, begins with a dot.
    Hidden,
    /// An operating system, an editor or an archiver made it.
    System,
    /// It lies beside the contributors' folders and is nobody's.
    Nobodys,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Hidden => "hidden",
            Self::System => "made by the system",
            Self::Nobodys => "in no contributor's folder",
        })
    }
}

/// A file that was left out, or a folder with all its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is.
    pub path: String,
    /// Why.
    pub why: Why,
    /// How many files that is: 1, or a folder's.
    pub files: usize,
}

/// What reading a datanet left out or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Files that were read.
    pub files: usize,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// Contributors' folders without a text.
    pub empty: Vec<String>,
    /// Byte order marks (U+FEFF) that were removed.
    pub marks: usize,
    /// Names that were spelt otherwise: spelling and name.
    pub renamed: BTreeMap<String, String>,
}

/// How many are named before "and others".
const NAMED: usize = 5;

impl Notes {
    /// Files left out.
    pub fn skipped_files(&self) -> usize {
        self.skipped.iter().map(|s| s.files).sum()
    }

    /// One sentence a kind of remark; none where there is nothing to say. What comes from files is quoted, its control characters escaped.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for why in [Why::Hidden, Why::System, Why::Nobodys] {
            let of_kind: Vec<&Skipped> = self.skipped.iter().filter(|s| s.why == why).collect();
            if !of_kind.is_empty() {
                let files: usize = of_kind.iter().map(|s| s.files).sum();
                lines.push(format!("skipped {files} file{}, {why}: {}", plural(files), named(of_kind.iter().map(|s| &s.path))));
            }
        }
        if !self.empty.is_empty() {
            lines.push(format!("no text in {}", named(self.empty.iter())));
        }
        if self.marks > 0 {
            lines.push(format!("removed {} byte order mark{} (U+FEFF)", self.marks, plural(self.marks)));
        }
        if !self.renamed.is_empty() {
            let pairs = self.renamed.iter().map(|(from, to)| format!("{from:?} as {to:?}"));
            lines.push(format!("contributors' names are read without surrounding space, in NFC: {}", shortened(pairs)));
        }
        lines
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn named<'a>(paths: impl Iterator<Item = &'a String>) -> String {
    shortened(paths.map(|p| format!("{p:?}")))
}

/// The first few, and how many more there are.
fn shortened(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(NAMED);
    let list = all[..all.len() - more].join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}
