//! Folders: each subfolder is a contributor, each file in it, at any depth, a text.

use super::{Reader, Skipped, Why, utf8};
use crate::text::TextError;
use std::fs;
use std::path::{Path, PathBuf};
use unicode_normalization::UnicodeNormalization;

/// Deepest nesting; beyond it a folder probably links to itself.
const MAX_DEPTH: usize = 32;

/// Names, in lower case, that systems and archivers give to files and folders of their own.
const SYSTEM: [&str; 9] =
    ["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "$recycle.bin", "system volume information", "lost+found"];

pub(super) fn read(dir: &Path, reader: &mut Reader) -> Result<(), TextError> {
    for (path, name) in entries(dir)? {
        if let Some(why) = left_out(&name) {
            skip(&path, why, reader);
        } else if kind(&path)? == Kind::File {
            skip(&path, Why::Nobodys, reader);
        } else {
            let before = reader.samples.len();
            texts(&path, &name, 1, reader)?;
            if reader.samples.len() == before {
                reader.notes.empty.push(path.display().to_string());
            }
        }
    }
    Ok(())
}

/// All files below a contributor's folder.
fn texts(dir: &Path, contributor: &str, depth: usize, reader: &mut Reader) -> Result<(), TextError> {
    if depth > MAX_DEPTH {
        return Err(entry(dir, &format!("folders nested at most {MAX_DEPTH} deep"), "more; does one link to itself?"));
    }
    for (path, name) in entries(dir)? {
        if let Some(why) = left_out(&name) {
            skip(&path, why, reader);
        } else if kind(&path)? == Kind::Folder {
            texts(&path, contributor, depth + 1, reader)?;
        } else {
            let shown = path.display().to_string();
            let bytes = fs::read(&path).map_err(|e| TextError::io(&path, e))?;
            reader.notes.files += 1;
            reader.sample(&shown, 1, contributor, utf8(&shown, &bytes)?.trim_end())?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// What an entry, or what it links to, is.
fn kind(path: &Path) -> Result<Kind, TextError> {
    let kind = fs::metadata(path).map_err(|e| TextError::io(path, e))?.file_type();
    match (kind.is_dir(), kind.is_file()) {
        (true, _) => Ok(Kind::Folder),
        (_, true) => Ok(Kind::File),
        _ => Err(entry(path, "a file or a folder", "a device, pipe or socket")),
    }
}

fn left_out(name: &str) -> Option<Why> {
    let lower = name.to_lowercase();
    if name.starts_with('.') {
        Some(Why::Hidden)
    } else if SYSTEM.contains(&&*lower) || name.starts_with("~$") || name.ends_with('~') {
        Some(Why::System)
    } else {
        None
    }
}

fn skip(path: &Path, why: Why, reader: &mut Reader) {
    reader.notes.skipped.push(Skipped { path: path.display().to_string(), why, files: files_below(path, 0) });
}

/// Files of a skipped entry; links count as files, what can't be looked into as one.
fn files_below(path: &Path, depth: usize) -> usize {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    match fs::read_dir(path) {
        Ok(inside) if is_folder && depth < MAX_DEPTH => inside.flatten().map(|e| files_below(&e.path(), depth + 1)).sum(),
        _ => 1,
    }
}

/// A folder's entries by name. Names are compared in NFC, so that the order is the same on every system.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, String)>, TextError> {
    let failed = |e| TextError::io(dir, e);
    let named = |item: std::io::Result<fs::DirEntry>| {
        let path = item.map_err(failed)?.path();
        match path.file_name().and_then(|n| n.to_str()).map(str::to_owned) {
            Some(name) => Ok((path, name)),
            None => Err(entry(&path, "a name in UTF-8", "other bytes")),
        }
    };
    let mut all = fs::read_dir(dir).map_err(failed)?.map(named).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_cached_key(|(path, name)| (name.nfc().collect::<String>(), path.clone()));
    Ok(all)
}

fn entry(path: &Path, expected: &str, found: &str) -> TextError {
    TextError::Entry { path: path.display().to_string(), expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use super::super::Datanet;
    use super::*;
    use proptest::prelude::*;

    fn write(dir: &Path, path: &str, text: &[u8]) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn hidden_and_system_files_are_skipped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        for path in
            [".ipynb_checkpoints/a.txt", ".ipynb_checkpoints/deep/b.txt", "ann/.DS_Store", "ann/Thumbs.db", "__MACOSX/ann/1.txt", "ann/1.txt~"]
        {
            write(dir.path(), path, b"\xff\xfe\x00");
        }
        write(dir.path(), "README.md", b"about");
        write(dir.path(), "ann/1.txt", b"text");
        fs::create_dir(dir.path().join("bob")).unwrap();
        let (datanet, notes) = Datanet::read(dir.path()).unwrap();
        assert_eq!((datanet.contributors(), datanet.samples.len()), (vec!["ann"], 1));
        let of = |why| notes.skipped.iter().filter(|s| s.why == why).map(|s| s.files).sum::<usize>();
        assert_eq!((of(Why::Hidden), of(Why::System), of(Why::Nobodys)), (3, 3, 1));
        assert!(notes.empty.len() == 1 && notes.empty[0].ends_with("bob"));
        let said = notes.lines();
        assert!(
            said[0].starts_with("skipped 3 files, hidden: ") && said[0].contains(".ipynb_checkpoints") && said[0].contains(".DS_Store"),
            "{said:?}"
        );
        assert!(said[2].contains("README.md") && said[3].starts_with("no text in"), "{said:?}");
    }

    #[test]
    fn nested_files_are_their_contributors() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [("ann/b/2.txt", "second"), ("ann/a.txt", "first"), ("ann/b/c/d/3.txt", "third"), ("bob/x/y.txt", "fourth")] {
            write(dir.path(), path, text.as_bytes());
        }
        let (datanet, _) = Datanet::read(dir.path()).unwrap();
        let found: Vec<_> = datanet.samples.iter().map(|s| (s.contributor.as_str(), s.text.as_str())).collect();
        assert_eq!(found, [("ann", "first"), ("ann", "second"), ("ann", "third"), ("bob", "fourth")]);
    }

    #[test]
    fn a_folder_without_contributors_says_what_it_skipped() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "1.txt", b"text");
        let error = Datanet::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("1.txt") && error.contains("in no contributor's folder"), "{error}");
    }

    #[test]
    fn two_spellings_of_a_folder_are_one_contributor() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [("Zoe\u{301}/1.txt", "one"), ("Zo\u{e9}/2.txt", "\u{feff}two"), (" mill/1.txt", "three"), ("mill/2.txt", "four")] {
            write(dir.path(), path, text.as_bytes());
        }
        let (datanet, notes) = Datanet::read(dir.path()).unwrap();
        assert_eq!(datanet.contributors(), ["mill", "Zo\u{e9}"]);
        assert_eq!(datanet.samples.iter().filter(|s| s.text.contains('\u{feff}')).count(), 0);
        assert_eq!((notes.marks, notes.renamed.len()), (1, 2));
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        let refused = |make: fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "ann/1.txt", b"text");
            make(dir.path());
            Datanet::read(dir.path()).unwrap_err().to_string()
        };
        assert!(refused(|d| symlink(d.join("ann"), d.join("ann/loop")).unwrap()).contains("ann/loop"));
        assert!(refused(|d| symlink(d.join("gone"), d.join("ann/2.txt")).unwrap()).contains("ann/2.txt"));
        let name = std::ffi::OsStr::from_bytes(b"an\xff");
        assert!(refused(|d| fs::create_dir(d.join(std::ffi::OsStr::from_bytes(b"an\xff"))).unwrap()).contains("a name in UTF-8"), "{name:?}");
        assert!(refused(|d| write(d, "ann/2.txt", b"one\ntw\xffo")).contains("2.txt, line 2: expected UTF-8"));
        assert!(refused(|d| write(d, "ann/2.txt", b"\xff\xfea\x00")).contains("UTF-16"));
        let socket = |d: &Path| drop(std::os::unix::net::UnixListener::bind(d.join("ann/s")).unwrap());
        assert!(refused(socket).contains("a device, pipe or socket"));
    }

    const NAMES: [&str; 8] = ["ann", "bob", ".git", "Thumbs.db", "x.txt", "y.md", "__MACOSX", ".DS_Store"];

    proptest! {
        /// Every file is a sample, is counted as skipped, or is an error's subject.
        #[test]
        fn every_file_is_accounted_for(
            tree in prop::collection::vec((prop::collection::vec(0usize..8, 1..5), prop::bool::weighted(0.05)), 1..24)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut written = std::collections::BTreeSet::new();
            for (names, blank) in tree {
                let path: PathBuf = names.iter().map(|&n| NAMES[n]).collect();
                let full = dir.path().join(&path);
                let fits = fs::create_dir_all(full.parent().unwrap()).is_ok() && !full.is_dir();
                if fits && fs::write(&full, if blank { " " } else { "text" }).is_ok() {
                    written.insert(path);
                }
            }
            match Datanet::read(dir.path()) {
                Ok((datanet, notes)) => prop_assert_eq!(datanet.samples.len() + notes.skipped_files(), written.len()),
                Err(TextError::EmptyDatanet { .. }) => {}
                Err(error) => prop_assert!(written.iter().any(|p| error.to_string().contains(&p.display().to_string())), "{}", error),
            }
        }
    }
}
