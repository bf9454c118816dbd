//! Datanets: the samples an adapter is trained on, each with its contributor, from JSON lines, CSV or folders of text files.
//!
//! Nothing is lost in silence: every file gives samples, is counted in the [`Notes`], or is an error with its name and line.

mod folder;
mod lines;
mod names;
mod notes;
mod table;

use super::TextError;
use super::duplicates::{Canonical, NEAR, SHINGLE, canonical, words};
use names::MARK;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::path::Path;

pub use names::lookalikes;
pub use notes::{Notes, Skipped, Why};

/// One text of one contributor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sample {
    /// Who contributed it.
    pub contributor: String,
    /// The text; never blank.
    pub text: String,
}

/// Samples in their file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datanet {
    /// The samples.
    pub samples: Vec<Sample>,
}

impl Datanet {
    /// Loads a `.jsonl` or `.csv` file, or a folder whose subfolders are contributors and whose files are texts. Names are in NFC without
    /// surrounding space, texts and names without U+FEFF. The notes say what was left out or changed.
    pub fn read(path: &Path) -> Result<(Self, Notes), TextError> {
        let name = path.display().to_string();
        let mut reader = Reader::default();
        if path.is_dir() {
            folder::read(path, &mut reader)?;
        } else {
            let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
            let parse = match extension.as_deref() {
                Some("jsonl") => lines::read,
                Some("csv") => table::read,
                _ => return Err(TextError::UnknownDatanet { path: name }),
            };
            parse(&name, &fs::read(path).map_err(|e| TextError::io(path, e))?, &mut reader)?;
            reader.notes.files = 1;
        }
        let Reader { samples, notes } = reader;
        if samples.is_empty() {
            let notes = notes.lines().into_iter().map(|line| format!("; {line}")).collect();
            return Err(TextError::EmptyDatanet { path: name, notes });
        }
        Ok((Self { samples }, notes))
    }

    /// [`Datanet::read`] for callers that have nobody to tell.
    pub fn load(path: &Path) -> Result<Self, TextError> {
        Ok(Self::read(path)?.0)
    }

    /// Parses JSON lines `{"contributor": …, "text": …, …}`; blank lines are skipped. `name` is for errors.
    pub fn from_jsonl(name: &str, bytes: &[u8]) -> Result<Self, TextError> {
        let mut reader = Reader::default();
        lines::read(name, bytes, &mut reader)?;
        Ok(Self { samples: reader.samples })
    }

    /// Parses CSV with a header that has the columns `contributor` and `text`. `name` is for errors.
    pub fn from_csv(name: &str, bytes: &[u8]) -> Result<Self, TextError> {
        let mut reader = Reader::default();
        table::read(name, bytes, &mut reader)?;
        Ok(Self { samples: reader.samples })
    }

    /// Writes JSON lines that [`Datanet::from_jsonl`] reads back.
    pub fn to_jsonl(&self) -> String {
        let line = |s: &Sample| serde_json::json!({ "contributor": s.contributor, "text": s.text }).to_string() + "\n";
        self.samples.iter().map(line).collect()
    }

    /// Contributors in order of first appearance.
    pub fn contributors(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.samples.iter().map(|s| s.contributor.as_str()).filter(|c| seen.insert(*c)).collect()
    }

    /// For each sample whether an earlier one's words are near its own ([`super::duplicates`]).
    pub fn canonical(&self) -> Vec<Canonical> {
        canonical(&words(self.samples.iter().map(|s| s.text.as_str())))
    }

    /// The datanet's digest: a BLAKE3 Merkle root over the samples in order, each with the bit that says whether it is canonical.
    ///
    /// Leaf `H("poa datanet leaf 2", |contributor|, contributor, |text|, text, bit)`, node `H("poa datanet node", left, right)`, an odd node moves
    /// up unchanged, and the root `H("poa datanet root 2", number of samples, top, rule)`, the rule of copies as four numbers: words in a shingle,
    /// the share's two terms, and 1 for words. Lengths and numbers are 8 bytes, little-endian, the bit is a byte.
    pub fn root(&self) -> [u8; 32] {
        let bits = self.canonical();
        let mut level: Vec<[u8; 32]> = self.samples.iter().zip(&bits).map(|(sample, bit)| leaf(sample, bit.is_first())).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(parent).collect();
        }
        let count = (self.samples.len() as u64).to_le_bytes();
        let rule: Vec<u8> = [SHINGLE, NEAR.0, NEAR.1, 1].iter().flat_map(|&x| (x as u64).to_le_bytes()).collect();
        tagged("poa datanet root 2", &[&count, level.first().map_or(&[][..], |top| top), &rule])
    }
}

fn leaf(sample: &Sample, canonical: bool) -> [u8; 32] {
    let len = |s: &str| (s.len() as u64).to_le_bytes();
    let (c, t) = (&sample.contributor, &sample.text);
    tagged("poa datanet leaf 2", &[&len(c), c.as_bytes(), &len(t), t.as_bytes(), &[canonical.into()]])
}

fn parent(children: &[[u8; 32]]) -> [u8; 32] {
    match children {
        [left, right] => tagged("poa datanet node", &[left, right]),
        [single] => *single,
        _ => [0; 32],
    }
}

/// BLAKE3 in key-derivation mode: one domain a purpose.
fn tagged(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Samples as they are read, and what is to be said of them.
#[derive(Default)]
struct Reader {
    samples: Vec<Sample>,
    notes: Notes,
}

impl Reader {
    /// A text without the byte order mark at its start.
    fn without_mark<'a>(&mut self, text: &'a str) -> &'a str {
        let rest = text.trim_start_matches(MARK);
        self.notes.marks += (text.len() - rest.len()) / MARK.len_utf8();
        rest
    }

    /// Takes a sample in.
    fn sample(&mut self, path: &str, line: u64, contributor: &str, text: &str) -> Result<(), TextError> {
        let (name, clean) = (names::normalised(contributor), text.replace(MARK, ""));
        for (field, value, given) in [("contributor", &name, contributor), ("text", &clean, text)] {
            if value.trim().is_empty() {
                return Err(wrong(path, line, &format!("a `{field}` that isn't blank"), format!("{given:?}")));
            }
        }
        self.notes.marks += text.matches(MARK).count() + contributor.matches(MARK).count();
        if name != contributor {
            self.notes.renamed.insert(contributor.to_owned(), name.clone());
        }
        self.samples.push(Sample { contributor: name, text: clean });
        Ok(())
    }
}

/// Bytes as text; the error has the line of the first byte that isn't.
fn utf8<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a str, TextError> {
    std::str::from_utf8(bytes).map_err(|e| {
        let before = &bytes[..e.valid_up_to()];
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count() as u64;
        let found = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16; save it as UTF-8".to_owned(),
            _ => format!("byte 0x{:02x}", bytes[e.valid_up_to()]),
        };
        wrong(path, line, "UTF-8", found)
    })
}

fn wrong(path: &str, line: u64, expected: &str, found: impl ToString) -> TextError {
    TextError::Sample { path: path.into(), line, expected: expected.into(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::asset;
    use proptest::prelude::*;

    fn line_of(result: Result<Datanet, TextError>) -> u64 {
        match result {
            Err(TextError::Sample { line, .. }) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn jsonl_errors_have_lines() {
        let parse = |text: &str| Datanet::from_jsonl("t", text.as_bytes());
        let good = "{\"contributor\":\"a\",\"text\":\"b\",\"more\":1}\n";
        assert_eq!(parse(&format!("{good}\n{good}")).unwrap().samples.len(), 2);
        for bad in ["{\"contributor\":\"a\"}", "{\"contributor\":\"a\",\"text\":\" \"}", "{\"contributor\":1,\"text\":\"b\"}", "nonsense", "[]"] {
            assert_eq!(line_of(parse(&format!("{good}\n{bad}\n"))), 3, "{bad}");
        }
    }

    #[test]
    fn csv_and_its_errors() {
        let parse = |text: &str| Datanet::from_csv("t", text.as_bytes());
        let datanet = parse("text,id,contributor\n\"one, \"\"two\"\"\nthree\",1,b\nfour,2,a\nfive,3,b\n").unwrap();
        assert_eq!(datanet.samples[0].text, "one, \"two\"\nthree");
        assert_eq!(datanet.contributors(), ["b", "a"]);
        assert_eq!(line_of(parse("text,who\na,b\n")), 1);
        assert_eq!(line_of(parse("text,contributor\na,b\n ,b\n")), 3);
        assert_eq!(line_of(parse("text,contributor\na,b\nc\n")), 3);
    }

    #[test]
    fn folders_and_unknown_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Datanet::load(dir.path()), Err(TextError::EmptyDatanet { .. })));
        for (folder, file, text) in [("zoe", "2.txt", "second\n"), ("zoe", "1.txt", "first"), ("ann", "x.md", "third")] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join(file), text).unwrap();
        }
        let datanet = Datanet::load(dir.path()).unwrap();
        let found: Vec<_> = datanet.samples.iter().map(|s| (s.contributor.as_str(), s.text.as_str())).collect();
        assert_eq!(found, [("ann", "third"), ("zoe", "first"), ("zoe", "second")]);
        fs::write(dir.path().join("ann/y.md"), " ").unwrap();
        assert!(matches!(Datanet::load(dir.path()), Err(TextError::Sample { .. })));
        assert!(matches!(Datanet::load(&dir.path().join("d.xml")), Err(TextError::UnknownDatanet { .. })));
        assert!(matches!(Datanet::load(&dir.path().join("d.csv")), Err(TextError::Io { .. })));
    }

    proptest! {
        #[test]
        fn jsonl_round_trips_and_the_root_binds(texts in prop::collection::vec("[a-z\"\\n]{1,6}x", 1..9), at in any::<prop::sample::Index>()) {
            let samples = texts.iter().enumerate().map(|(i, t)| Sample { contributor: format!("c{}", i % 3), text: t.clone() });
            let datanet = Datanet { samples: samples.collect() };
            prop_assert_eq!(&Datanet::from_jsonl("t", datanet.to_jsonl().as_bytes()).unwrap(), &datanet);
            let changes: [fn(&mut Sample); 2] = [|s| s.text.push('!'), |s| s.contributor.push('!')];
            for change in changes {
                let mut other = datanet.clone();
                change(&mut other.samples[at.index(texts.len())]);
                prop_assert_ne!(other.root(), datanet.root());
            }
            let mut longer = datanet.clone();
            longer.samples.push(datanet.samples[texts.len() - 1].clone());
            prop_assert_ne!(longer.root(), datanet.root());
        }
    }

    #[test]
    fn marks_spaces_and_repeated_fields() {
        let jsonl = |text: &str| Datanet::from_jsonl("t", text.as_bytes());
        let datanet =
            jsonl("\u{feff}{\"contributor\":\" Zoe\u{301}\",\"text\":\"\u{feff}one\"}\r\n\u{feff}{\"contributor\":\"Zo\u{e9}\",\"text\":\" two\"}")
                .unwrap();
        assert_eq!(datanet.contributors(), ["Zo\u{e9}"]);
        assert_eq!(datanet.samples.iter().map(|s| s.text.as_str()).collect::<Vec<_>>(), ["one", " two"]);
        let twice = jsonl("{\"contributor\":\"a\",\"text\":\"b\",\"contributor\":\"c\"}").unwrap_err().to_string();
        assert!(twice.contains("line 1") && twice.contains("duplicate field `contributor`"), "{twice}");
        assert!(jsonl("[\"a\",\"b\"]").is_err() && jsonl("{\"contributor\":\"\u{feff} \",\"text\":\"b\"}").is_err());

        let csv = |text: &str| Datanet::from_csv("t", text.as_bytes());
        let datanet = csv("\u{feff}contributor , text, id\nann, \"one, two\", 1\n ann ,  three ,2\n").unwrap();
        assert_eq!((datanet.contributors(), datanet.samples[0].text.as_str()), (vec!["ann"], "one, two"));
        assert_eq!(line_of(csv("contributor,text\na,b\nann,\"one\nbob,two\n")), 3);
        assert_eq!(line_of(csv("text,contributor,text\na,b,c\n")), 1);
        assert_eq!(line_of(Datanet::from_csv("t", b"contributor,text\na,b\na,\xff\n")), 3);
    }

    #[test]
    fn extensions_in_capitals_are_known() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("a.JSONL", "{\"contributor\":\"a\",\"text\":\"b\"}"), ("a.Csv", "contributor,text\na,b\n")] {
            fs::write(dir.path().join(name), content).unwrap();
            assert_eq!(Datanet::read(&dir.path().join(name)).unwrap().1.files, 1);
        }
    }

    proptest! {
        /// Every line is a sample, is blank, or is the error's.
        #[test]
        fn every_line_is_accounted_for(kinds in prop::collection::vec(0usize..24, 0..20)) {
            let line = |kind: &usize| match kind { 0 => "{\"contributor\":\"a\"}", 1 => "text", 2..6 => " \r", _ => "{\"contributor\":\"a\",\"text\":\"b\"}\r" };
            let text: Vec<&str> = kinds.iter().map(line).collect();
            let blank = kinds.iter().filter(|k| (2..6).contains(*k)).count();
            match Datanet::from_jsonl("t", text.join("\n").as_bytes()) {
                Ok(datanet) => prop_assert_eq!(datanet.samples.len() + blank, kinds.len()),
                Err(TextError::Sample { line, .. }) => prop_assert_eq!(kinds.iter().position(|&k| k < 2), Some(line as usize - 1)),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn shared_datanets_load() {
        for name in ["awesome-prompts", "tinyshakespeare"] {
            let Some(path) = asset(&format!("datanets/{name}/samples.jsonl")) else { return };
            let datanet = Datanet::load(&path).unwrap();
            assert!(datanet.samples.len() > 100 && datanet.contributors().len() > 10);
        }
    }
}
