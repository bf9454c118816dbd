//! Uploaded samples: read by their file's name, and reported on, before anything is kept.

use crate::error::ApiError;
use model_runtime::text::duplicates::{Canonical, words};
use model_runtime::text::{Datanet, Notes, Sample};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use steps::error::Failure;
use steps::texts::remarks;
use utoipa::ToSchema;

/// Most bytes that an archive may unpack to.
const UNPACKED: u64 = 256 << 20;
/// Most files of an archive.
const FILES: usize = 100_000;
/// MiB of memory that the reader of a Parquet file may take, and how long.
const CONVERTER_MEMORY: u64 = 4096;
const CONVERTER_TIME: Duration = Duration::from_secs(60);
/// Most samples of an upload.
pub const SAMPLES: usize = 50_000;
/// Most folders that a file of an archive lies in, and most bytes of its name.
const DEPTH: usize = 16;
const PATH: usize = 512;
/// Copies that are told.
const TOLD: usize = 20;
/// Characters of a sample that are shown in a report.
const SHOWN: usize = 200;
/// Characters of a sample that its language is judged by.
const JUDGED: usize = 1000;
/// Samples that a report shows.
const PREVIEW: usize = 5;

/// What was uploaded.
#[derive(Debug)]
pub struct Upload {
    /// Its samples.
    pub datanet: Datanet,
    /// What is to be said of it.
    pub report: Report,
}

/// What is to be said of an upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Samples.
    pub samples: usize,
    /// Samples of each contributor.
    pub contributors: BTreeMap<String, usize>,
    /// Words of a sample: the fewest, as many as half of them have at most, the most.
    pub words: [usize; 3],
    /// Samples of each language, by its English name; `unsure` where a text is too short or too mixed to tell.
    #[serde(default)]
    pub languages: BTreeMap<String, usize>,
    /// What was left out or changed, and names that look alike.
    pub remarks: Vec<String>,
    /// Samples that copy earlier ones, and don't earn: how many.
    pub copies: usize,
    /// The first of them.
    pub copied: Vec<Copied>,
    /// Its first samples.
    #[schema(value_type = Vec<crate::shapes::Sample>)]
    pub preview: Vec<Sample>,
}

/// A sample that copies an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Copied {
    /// Its number in the upload.
    pub sample: usize,
    /// Its text, shortened.
    pub text: String,
    /// Who was first.
    pub first: String,
    /// Whether all shingles are the same.
    pub identical: bool,
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN { text.to_owned() } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::parameter("file", message)
}

/// Reads what was uploaded under a file's name; `own` is the only contributor whose samples may be in it, where there is one, and whose the lines of
/// a text are.
///
/// # Errors
///
/// Says which line or file is wrong.
pub fn read(name: &str, bytes: &[u8], own: Option<&str>) -> Result<(Datanet, Notes), ApiError> {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).unwrap_or_default();
    let directory = tempfile::tempdir().map_err(|e| wrong(format!("{name}: no room to read it: {e}")))?;
    let place = match extension.as_str() {
        "jsonl" | "csv" => {
            let place = directory.path().join(format!("upload.{extension}"));
            fs::write(&place, bytes).map_err(|e| wrong(format!("{name}: no room to read it: {e}")))?;
            place
        }
        "zip" => unpack(name, bytes, directory.path())?,
        "parquet" => {
            fs::write(directory.path().join("upload.parquet"), bytes).map_err(|e| wrong(format!("{name}: no room to read it: {e}")))?;
            convert(name, &directory.path().join("upload.parquet"), &directory.path().join("upload.jsonl"))?
        }
        "txt" => return lines(name, bytes, own),
        _ => {
            let error = wrong(format!("{name}: samples come as .jsonl, .csv or .parquet with `contributor` and `text`, as .txt or as .zip"));
            return Err(ApiError { hint: Some("a .zip holds a folder for each contributor with a text file for each sample".into()), ..error });
        }
    };
    let prefix = format!("{}/", place.display());
    // What is told is of the uploaded file, not of where it was put to be read.
    let told = |text: String| text.replace(&prefix, "").replace(&place.display().to_string(), name);
    let (datanet, mut notes) = Datanet::read(&place).map_err(|e| wrong(told(e.to_string())))?;
    notes.skipped.iter_mut().for_each(|skipped| skipped.path = told(skipped.path.clone()));
    notes.empty.iter_mut().for_each(|folder| *folder = told(folder.clone()));
    let other = datanet.samples.iter().position(|s| own.is_some_and(|own| s.contributor != own));
    if let (Some(at), Some(own)) = (other, own) {
        let message = format!("{name}: sample {at} is {:?}'s, this key's samples are {own:?}'s", datanet.samples[at].contributor);
        return Err(wrong(message));
    }
    Ok((datanet, notes))
}

/// Reads a Parquet file in a process of its own, this program's `datanet convert`: its reader isn't made for hostile files, and mustn't take the service with
/// it.
fn convert(name: &str, from: &Path, to: &Path) -> Result<PathBuf, ApiError> {
    let broken = |what: String| ApiError::from(Failure::input(format!("{name}: the reader of Parquet files can't be started: {what}")));
    let program = std::env::current_exe().map_err(|e| broken(e.to_string()))?;
    // Its own, too: nobody ends it where the service is killed meanwhile.
    let limits = [("--limit-memory", CONVERTER_MEMORY), ("--limit-output", UNPACKED >> 20), ("--limit-seconds", CONVERTER_TIME.as_secs())];
    let mut command = Command::new(program);
    command.args(["datanet", "convert", "--json", "--out"]).arg(to).arg(from);
    for (name, most) in limits {
        command.arg(name).arg(most.to_string());
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|e| broken(e.to_string()))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| broken(e.to_string()))? {
            Some(status) => break status,
            None if start.elapsed() < CONVERTER_TIME => std::thread::sleep(Duration::from_millis(20)),
            None => {
                // It may end by itself meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return Err(wrong(format!("{name}: reading it takes more than {} seconds", CONVERTER_TIME.as_secs())));
            }
        }
    };
    if status.success() {
        return Ok(to.to_owned());
    }
    let mut said = String::new();
    child.stdout.take().into_iter().for_each(|out| drop(out.take(4096).read_to_string(&mut said)));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    let Some(problem) = said["error"].as_str() else {
        return Err(wrong(format!("{name}: it can't be read: its reader gave up, or took more than it may")));
    };
    let error = wrong(problem.replace(&from.display().to_string(), name));
    Err(ApiError { hint: said["hint"].as_str().map(str::to_owned), ..error })
}

/// Each line a sample of whoever uploads.
fn lines(name: &str, bytes: &[u8], own: Option<&str>) -> Result<(Datanet, Notes), ApiError> {
    let own = own.ok_or_else(|| wrong(format!("{name}: a text's lines are samples of the contributor who uploads them, and this key is none's")))?;
    let text = std::str::from_utf8(bytes).map_err(|e| wrong(format!("{name}: byte {} isn't UTF-8", e.valid_up_to())))?;
    let jsonl: String = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::json!({ "contributor": own, "text": line.trim() }).to_string() + "\n")
        .collect();
    let datanet = Datanet::from_jsonl(name, jsonl.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    if datanet.samples.is_empty() {
        return Err(wrong(format!("{name}: there is no text in it")));
    }
    Ok((datanet, Notes { files: 1, ..Notes::default() }))
}

/// Unpacks an archive of files and folders, nothing of it elsewhere than in `into`; returns the folder of contributors.
fn unpack(name: &str, bytes: &[u8], into: &Path) -> Result<PathBuf, ApiError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| wrong(format!("{name}: not a zip archive: {e}")))?;
    if archive.len() > FILES {
        return Err(wrong(format!("{name}: {} files, at most {FILES} are read", archive.len())));
    }
    let mut left = UNPACKED;
    for i in 0..archive.len() {
        let mut file = archive.by_index(i).map_err(|e| wrong(format!("{name}: file {i}: {e}")))?;
        let inner = file.name().to_owned();
        let path = file.enclosed_name().filter(|_| !file.is_symlink());
        let path = path.ok_or_else(|| wrong(format!("{name}: {inner:?} isn't a file inside the archive")))?;
        if path.components().count() > DEPTH || inner.len() > PATH {
            return Err(wrong(format!("{name}: {:?} lies too deep", shortened(&inner))));
        }
        let to = into.join(&path);
        let failed = |e: std::io::Error| wrong(format!("{name}: {inner:?}: {e}"));
        // Folders come with what is in them.
        if file.is_dir() {
            continue;
        }
        to.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        // What an archive says of its files' sizes isn't believed.
        let mut content = Vec::new();
        (&mut file).take(left + 1).read_to_end(&mut content).map_err(failed)?;
        left = left.checked_sub(content.len() as u64).ok_or_else(|| wrong(format!("{name}: more than {} MiB unpacked", UNPACKED >> 20)))?;
        fs::write(&to, content).map_err(failed)?;
    }
    Ok(only_folder(into))
}

/// Where an archive holds one folder of folders, that one.
fn only_folder(path: &Path) -> PathBuf {
    let entries = |path: &Path| -> Vec<PathBuf> { fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect() };
    match &entries(path)[..] {
        [only] if only.is_dir() && entries(only).iter().any(|inner| inner.is_dir()) => only.clone(),
        _ => path.to_owned(),
    }
}

/// Samples of each language, as far as their first characters tell.
fn languages(samples: &[Sample]) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for sample in samples {
        let head: String = sample.text.chars().take(JUDGED).collect();
        let language = whatlang::detect(&head).filter(whatlang::Info::is_reliable).map_or("unsure", |info| info.lang().eng_name());
        *out.entry(language.to_owned()).or_default() += 1;
    }
    out
}

/// What is to be said of samples, beside those that came before them.
pub fn report(datanet: &Datanet, notes: &Notes, before: &Datanet) -> Report {
    let mut contributors = BTreeMap::new();
    for sample in &datanet.samples {
        *contributors.entry(sample.contributor.clone()).or_default() += 1;
    }
    let together = Datanet { samples: before.samples.iter().chain(&datanet.samples).cloned().collect() };
    let copied: Vec<Copied> = together.canonical()[before.samples.len()..]
        .iter()
        .zip(&datanet.samples)
        .enumerate()
        .filter_map(|(sample, (verdict, own))| match *verdict {
            Canonical::First => None,
            Canonical::Copy { of, identical } => {
                Some(Copied { sample, text: shortened(&own.text), first: together.samples[of].contributor.clone(), identical })
            }
        })
        .collect();
    // The first and the last number of a text stand for its ends.
    let mut lengths: Vec<usize> = words(datanet.samples.iter().map(|s| s.text.as_str())).iter().map(|w| w.len().saturating_sub(2)).collect();
    lengths.sort_unstable();
    let at = |i: usize| lengths.get(i).copied().unwrap_or(0);
    let preview = |s: &Sample| Sample { contributor: s.contributor.clone(), text: shortened(&s.text) };
    Report {
        samples: datanet.samples.len(),
        contributors,
        languages: languages(&datanet.samples),
        words: [at(0), at(lengths.len().saturating_sub(1) / 2), at(lengths.len().saturating_sub(1))],
        // Not of who else is there: others' names may be none of the uploader's business.
        remarks: remarks(notes, datanet),
        copies: copied.len(),
        copied: copied.into_iter().take(TOLD).collect(),
        preview: datanet.samples.iter().take(PREVIEW).map(preview).collect(),
    }
}

/// Reads an upload, and reports on it beside the samples that are there.
///
/// # Errors
///
/// Says which line or file is wrong.
pub fn upload(name: &str, bytes: &[u8], own: Option<&str>, before: &Datanet) -> Result<Upload, ApiError> {
    let (datanet, notes) = read(name, bytes, own)?;
    if datanet.samples.len() > SAMPLES {
        return Err(wrong(format!("{name}: {} samples, at most {SAMPLES} are taken in at once", datanet.samples.len())));
    }
    let report = report(&datanet, &notes, before);
    Ok(Upload { datanet, report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn names(datanet: &Datanet) -> Vec<(&str, &str)> {
        datanet.samples.iter().map(|s| (s.contributor.as_str(), s.text.as_str())).collect()
    }

    #[test]
    fn every_form_of_samples_is_read() {
        let jsonl = b"{\"contributor\":\"ann\",\"text\":\"one\"}\n";
        assert_eq!(names(&read("a.JSONL", jsonl, None).unwrap().0), [("ann", "one")]);
        assert_eq!(names(&read("a.csv", b"contributor,text\nann,one\n", Some("ann")).unwrap().0), [("ann", "one")]);
        assert_eq!(names(&read("a.txt", b"one\n\n two \n", Some("zoe")).unwrap().0), [("zoe", "one"), ("zoe", "two")]);
        for root in ["", "datanet/"] {
            let archive = zipped(&[(&format!("{root}zoe/1.txt"), "two"), (&format!("{root}ann/1.txt"), "one")]);
            assert_eq!(names(&read("a.zip", &archive, None).unwrap().0), [("ann", "one"), ("zoe", "two")]);
        }
    }

    #[test]
    fn what_is_wrong_is_said_of_the_uploaded_file() {
        let refused = |name: &str, bytes: &[u8], own: Option<&str>| read(name, bytes, own).unwrap_err().message;
        let good = "{\"contributor\":\"ann\",\"text\":\"one\"}\n";
        let message = refused("mine.jsonl", format!("{good}nonsense\n").as_bytes(), None);
        assert!(message.contains("mine.jsonl") && message.contains("line 2") && !message.contains("upload."), "{message}");
        let message = refused("mine.zip", &zipped(&[("ann/1.txt", "one"), ("ann/2.txt", " ")]), None);
        assert!(message.contains("2.txt") && !message.contains("/tmp"), "{message}");
        assert!(refused("a.jsonl", good.as_bytes(), Some("zoe")).contains("sample 0 is \"ann\"'s"));
        assert!(refused("a.txt", b"one", None).contains("none's"));
        assert!(refused("a.txt", b"\xff", Some("a")).contains("byte 0"));
        assert!(refused("a.txt", b" \n", Some("a")).contains("no text"));
        assert!(refused("a.exe", b"", None).contains(".zip"));
        assert!(refused("a.zip", b"PK", None).contains("not a zip archive"));
    }

    /// Neither a path that leads out of the archive nor a small file that unpacks to a huge one does harm.
    #[test]
    fn hostile_archives_are_refused() {
        let deep = zipped(&[(&format!("{}1.txt", "a/".repeat(20)), "one")]);
        assert!(read("a.zip", &deep, None).unwrap_err().message.contains("too deep"));
        let outside = zipped(&[("../../ann/1.txt", "one")]);
        assert!(read("a.zip", &outside, None).unwrap_err().message.contains("isn't a file inside"));
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file("ann/1.txt", SimpleFileOptions::default()).unwrap();
        let zeros = vec![b'0'; 1 << 20];
        (0..=UNPACKED >> 20).for_each(|_| writer.write_all(&zeros).unwrap());
        let bomb = writer.finish().unwrap().into_inner();
        assert!(bomb.len() < 1 << 20);
        assert!(read("a.zip", &bomb, None).unwrap_err().message.contains("256 MiB"));
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink("ann/1.txt", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        assert!(read("a.zip", &writer.finish().unwrap().into_inner(), None).is_err());
    }

    #[test]
    fn languages_are_told_where_they_can_be() {
        let texts = [
            "The keeper of the lighthouse climbs up every evening to light the lamp for the ships that come in from the sea.",
            "Der Leuchtturmwärter steigt jeden Abend hinauf und zündet die Lampe für die Schiffe an, die vom Meer hereinkommen.",
            "灯台守は毎晩、海から来る船のためにランプを灯しに登ります。",
            "ok 42",
        ];
        let samples: Vec<Sample> = texts.map(|text| Sample { contributor: "ann".into(), text: text.into() }).into();
        let expected = ["English", "German", "Japanese", "unsure"].map(|name| (name.to_owned(), 1));
        assert_eq!(languages(&samples), BTreeMap::from(expected));
    }

    #[test]
    fn copies_of_what_is_there_are_told_with_who_was_first() {
        let of = |contributor: &str, text: &str| Sample { contributor: contributor.into(), text: text.into() };
        let before = Datanet { samples: vec![of("ann", "the keeper of Skarn light is Ottar")] };
        let datanet = Datanet { samples: vec![of("zoe", "The keeper of Skarn light is Ottar!"), of("zoe", "Saphor was found by Fenella in autumn")] };
        let report = report(&datanet, &Notes::default(), &before);
        assert_eq!((report.samples, report.copies, report.words), (2, 1, [7, 7, 7]));
        assert_eq!((report.copied[0].sample, report.copied[0].first.as_str(), report.copied[0].identical), (0, "ann", true));
    }
}
