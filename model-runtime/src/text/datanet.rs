//! Datanets: the samples an adapter is trained on, each with its contributor, from JSON lines, CSV or folders of text files.

use super::TextError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

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
    /// Loads a `.jsonl` or `.csv` file, or a folder whose subfolders are contributors and whose files are texts.
    pub fn load(path: &Path) -> Result<Self, TextError> {
        let datanet = if path.is_dir() {
            Self::from_folder(path)?
        } else {
            let read = || fs::read(path).map_err(|e| TextError::io(path, e));
            let name = path.display().to_string();
            match path.extension().and_then(|e| e.to_str()) {
                Some("jsonl") => Self::from_jsonl(&name, &read()?)?,
                Some("csv") => Self::from_csv(&name, &read()?)?,
                _ => return Err(TextError::UnknownDatanet { path: name }),
            }
        };
        if datanet.samples.is_empty() {
            return Err(TextError::EmptyDatanet { path: path.display().to_string() });
        }
        Ok(datanet)
    }

    /// Parses JSON lines `{"contributor": …, "text": …, …}`; blank lines are skipped. `name` is for errors.
    pub fn from_jsonl(name: &str, bytes: &[u8]) -> Result<Self, TextError> {
        let mut samples = Vec::new();
        for (number, line) in (1..).zip(bytes.split(|&b| b == b'\n')) {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let value: Value = serde_json::from_slice(line).map_err(|e| wrong(name, number, "a JSON object", e))?;
            let field = |key: &str| {
                let found = || wrong(name, number, &format!("a string `{key}`"), value.get(key).map_or("nothing".into(), Value::to_string));
                value.get(key).and_then(Value::as_str).ok_or_else(found)
            };
            samples.push(sample(name, number, field("contributor")?, field("text")?)?);
        }
        Ok(Self { samples })
    }

    /// Parses CSV with a header that has the columns `contributor` and `text`. `name` is for errors.
    pub fn from_csv(name: &str, bytes: &[u8]) -> Result<Self, TextError> {
        let mut reader = csv::Reader::from_reader(bytes);
        let broken = |e: csv::Error| wrong(name, e.position().map_or(1, csv::Position::line), "CSV in UTF-8", &e);
        let header = reader.headers().map_err(broken)?.clone();
        let column = |key: &str| {
            let found = || wrong(name, 1, &format!("a column `{key}`"), header.iter().collect::<Vec<_>>().join(", "));
            header.iter().position(|h| h == key).ok_or_else(found)
        };
        let (contributor, text) = (column("contributor")?, column("text")?);
        let mut samples = Vec::new();
        for record in reader.records() {
            let record = record.map_err(broken)?;
            let line = record.position().map_or(0, csv::Position::line);
            samples.push(sample(name, line, record.get(contributor).unwrap_or(""), record.get(text).unwrap_or(""))?);
        }
        Ok(Self { samples })
    }

    /// Reads a folder: subfolders are contributors, every file in them is a text; both in the order of their names.
    fn from_folder(dir: &Path) -> Result<Self, TextError> {
        let mut samples = Vec::new();
        for folder in entries(dir)?.into_iter().filter(|p| p.is_dir()) {
            let contributor = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for file in entries(&folder)?.into_iter().filter(|p| p.is_file()) {
                let text = fs::read_to_string(&file).map_err(|e| TextError::io(&file, e))?;
                samples.push(sample(&file.display().to_string(), 1, &contributor, text.trim_end())?);
            }
        }
        Ok(Self { samples })
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

    /// The datanet's digest: a BLAKE3 Merkle root over the samples in order.
    ///
    /// Leaf `H("poa datanet leaf", |contributor|, contributor, |text|, text)`, node `H("poa datanet node", left, right)`, an odd node moves up
    /// unchanged, and the root `H("poa datanet root", number of samples, top)`. Lengths are 8 bytes, little-endian.
    pub fn root(&self) -> [u8; 32] {
        let mut level: Vec<[u8; 32]> = self.samples.iter().map(leaf).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(parent).collect();
        }
        let count = (self.samples.len() as u64).to_le_bytes();
        tagged("poa datanet root", &[&count, level.first().map_or(&[][..], |top| top)])
    }
}

fn leaf(sample: &Sample) -> [u8; 32] {
    let len = |s: &str| (s.len() as u64).to_le_bytes();
    let (c, t) = (&sample.contributor, &sample.text);
    tagged("poa datanet leaf", &[&len(c), c.as_bytes(), &len(t), t.as_bytes()])
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

fn entries(dir: &Path) -> Result<Vec<PathBuf>, TextError> {
    let failed = |e| TextError::io(dir, e);
    let paths: Result<BTreeSet<PathBuf>, _> = fs::read_dir(dir).map_err(failed)?.map(|e| e.map(|e| e.path())).collect();
    Ok(paths.map_err(failed)?.into_iter().collect())
}

fn sample(path: &str, line: u64, contributor: &str, text: &str) -> Result<Sample, TextError> {
    for (field, value) in [("contributor", contributor), ("text", text)] {
        if value.trim().is_empty() {
            return Err(wrong(path, line, &format!("a `{field}` that isn't blank"), format!("{value:?}")));
        }
    }
    Ok(Sample { contributor: contributor.into(), text: text.into() })
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
    fn shared_datanets_load() {
        for name in ["awesome-prompts", "tinyshakespeare"] {
            let Some(path) = asset(&format!("datanets/{name}/samples.jsonl")) else { return };
            let datanet = Datanet::load(&path).unwrap();
            assert!(datanet.samples.len() > 100 && datanet.contributors().len() > 10);
        }
    }
}
