//! An index becomes a registered one: every row that earns is proven to be its sample's sketch, chunk by chunk, in a directory that a crash leaves usable.

use crate::error::{Failure, While};
use crate::kept::Shelves;
use crate::progress::Observer;
use crate::run::{fingerprint, runtime};
use crate::store::{AdapterDir, IndexDir, ModelDir, Row, begin_dir, check_header, read_json, write_file, write_json};
use crate::texts::{self, Window, Windows, sample_tokens};
use circuits::ir::Group;
use circuits::layout::Layout;
use circuits::public::PublicContext;
use circuits::registration::{Known, Registration, RegistrationError, Sample, padded};
use circuits::relation::{MAX_REQUESTS, Part, Relation};
use circuits::statement::{Digest, PROTOCOL_VERSION, Profile};
use circuits::witness::{Fixed, Witness};
use model_runtime::int::Mode;
use model_runtime::int::Trace;
use model_runtime::int::sketch::Sketcher;
use model_runtime::int::trace::{Keep, Span};
use model_runtime::semantics::Dims;
use model_runtime::tensor::TensorMap;
use model_runtime::text::duplicates::{Canonical, canonical_rows};
use model_runtime::text::{Datanet, Sample as Text, Tokenizer};
use prover::ProveError;
use prover::commit::{Committed, values_of};
use prover::prove::{Claim, Inputs, Progress, Stage, Stages, prove, size};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use verifier::profile::Native;
use verifier::proof::MAX_PROOF_BYTES;
use verifier::registration::{Accepted, Piece, verify_form, verify_rows};

/// Variables of a chunk's trace, unless one sample alone has more: larger chunks prove a row a little faster and take more memory.
pub const CHUNK_LOG: usize = 24;

/// What is proven, and in which chunks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// What is registered.
    pub registration: Registration,
    /// Rows that are proven together.
    pub chunks: Vec<Vec<usize>>,
}

/// A registration's directory.
#[derive(Clone, Debug)]
pub struct RegistrationDir(PathBuf);

impl RegistrationDir {
    /// In a directory of its own.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// Where an index' registration is unless it is put elsewhere.
    pub fn of_index(index: &Path) -> Self {
        Self(index.join("registration"))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn stated(&self) -> PathBuf {
        self.0.join("registration.json")
    }

    fn file(&self, piece: Piece) -> PathBuf {
        self.0.join(match piece {
            Piece::Form(Part::Base) => "form-base.proof".to_owned(),
            Piece::Form(Part::Adapter) => "form-adapter.proof".to_owned(),
            Piece::Form(Part::Index) => "form-index.proof".to_owned(),
            Piece::Rows(chunk) => format!("rows-{chunk:05}.proof"),
        })
    }

    /// What it says is registered.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn load(&self) -> Result<Registered, Failure> {
        check_header(&self.0, "registration")?;
        let older = |failure: Failure| failure.hint("a registration that another version made is made again with `poa registration prove`");
        let registered: Registered = read_json(&self.stated()).map_err(older)?;
        registered.registration.check().map_err(|e| Failure::invalid(format!("the registration {}: {e}", self.0.display())))?;
        Ok(registered)
    }

    /// Verifies it, with all its proofs.
    ///
    /// # Errors
    ///
    /// When a proof is missing or doesn't hold: not valid.
    pub fn verify(&self, on: &dyn Observer) -> Result<(Registered, Accepted), Failure> {
        let registered = self.load()?;
        let accepted = self.verify_proofs(&registered, on)?;
        Ok((registered, accepted))
    }

    /// Verifies all proofs of what it says is registered.
    ///
    /// # Errors
    ///
    /// As [`RegistrationDir::verify`].
    pub fn verify_proofs(&self, registered: &Registered, on: &dyn Observer) -> Result<Accepted, Failure> {
        let mut trouble = None;
        let mut proof = |piece: Piece| match read_proof(&self.file(piece)) {
            Ok(bytes) => bytes,
            Err(failure) => {
                trouble.get_or_insert(failure);
                vec![]
            }
        };
        let mut seen = |done, total| on.steps("verifying", done, total);
        let accepted = verifier::registration::verify(&registered.registration, &registered.chunks, &mut proof, &mut seen);
        if let Some(failure) = trouble {
            return Err(failure);
        }
        accepted.map_err(|e| Failure::invalid(format!("the registration {}: {e}", self.0.display())))
    }
}

/// A proof's bytes; a missing one is refused as such when it is verified.
fn read_proof(path: &Path) -> Result<Vec<u8>, Failure> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() > MAX_PROOF_BYTES as u64 => {
            Err(Failure::input(format!("{} has {} bytes, at most {MAX_PROOF_BYTES} are read", path.display(), found.len())))
        }
        Ok(_) => std::fs::read(path).during_path("reading", path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Failure::invalid(format!("the registration has no {}", path.display()))
            .hint("make it whole: `poa registration prove` goes on where it stopped")),
        Err(e) => Err(e).during_path("reading", path),
    }
}

/// The samples of a datanet, as an index of it reads them. Contributors have the numbers of `names`.
///
/// # Errors
///
/// When a text has no tokens, or a contributor no number.
pub fn samples(datanet: &Datanet, tokenizer: &Tokenizer, max_tokens: usize, names: &[String]) -> Result<Vec<Sample>, Failure> {
    let mut tokens = sample_tokens(tokenizer, datanet, max_tokens)?;
    let earns: Vec<bool> = canonical_rows(datanet.canonical(), &tokens).into_iter().map(Canonical::is_first).collect();
    tokens.iter_mut().for_each(|t| tokenizer.without_end(t, 2));
    let number = |text: &Text| {
        let found = names.iter().position(|name| *name == text.contributor);
        found.map(|n| n as u32).ok_or_else(|| Failure::input(format!("{:?} isn't among the index' contributors", text.contributor)))
    };
    let rows = tokens.into_iter().zip(&datanet.samples).zip(earns);
    rows.map(|((tokens, text), earns)| Ok(Sample { tokens, contributor: number(text)?, earns })).collect()
}

/// The datanet that an index says it is of.
fn datanet_of(index: &IndexDir) -> Result<Datanet, Failure> {
    let text = |row: &Row| Text { contributor: row.contributor.clone(), text: row.text.clone() };
    let datanet = Datanet { samples: index.info.rows.iter().map(text).collect() };
    match Digest(datanet.root()) == index.info.datanet_root {
        true => Ok(datanet),
        false => {
            Err(Failure::invalid("the texts of the index' rows aren't those of its datanet's root").hint("make the index again with `poa index`"))
        }
    }
}

/// The first difference between what is registered and a datanet, cut or split as the index' was.
///
/// # Errors
///
/// When the datanet can't be read as samples.
pub fn differs_from_datanet(registered: &Registered, datanet: Datanet, tokenizer: &Tokenizer, on: &dyn Observer) -> Result<Option<String>, Failure> {
    let registration = &registered.registration;
    let datanet = texts::prepare(datanet, tokenizer, window(registration), on)?.datanet;
    let (rows, found) = (registration.samples.len(), datanet.samples.len());
    if found < rows {
        return Ok(Some(format!("the registration has {rows} rows, the datanet {found} samples")));
    }
    if found > rows {
        return Ok(Some(format!(
            "the registration has {rows} rows, the datanet {found} samples: those after them are left out (--limit {rows} compares with the first)"
        )));
    }
    if Digest(datanet.root()) != registration.datanet_root {
        return Ok(Some("the registration is of a datanet with another root".into()));
    }
    if let Some(stranger) = datanet.samples.iter().find(|text| !registration.contributors.contains(&text.contributor)) {
        return Ok(Some(format!("{:?} isn't among the registered contributors", stranger.contributor)));
    }
    let own = samples(&datanet, tokenizer, registration.max_tokens, &registration.contributors)?;
    let differs = own.iter().zip(&registration.samples).position(|(own, registered)| own != registered);
    Ok(differs.map(|row| format!("row {row} was registered with other tokens, another contributor, or as earning where it doesn't")))
}

/// How a registration's samples are read.
fn window(registration: &Registration) -> Window {
    Window { max_tokens: registration.max_tokens, windows: if registration.split { Windows::Split } else { Windows::Cut } }
}

/// The rows that a text would have: one, or one a window.
///
/// # Errors
///
/// When it has no tokens.
pub fn rows_of_text(registered: &Registered, tokenizer: &Tokenizer, text: &str, on: &dyn Observer) -> Result<Vec<Vec<u32>>, Failure> {
    let one = Datanet { samples: vec![Text { contributor: "text".into(), text: text.to_owned() }] };
    let registration = &registered.registration;
    let datanet = texts::prepare(one, tokenizer, window(registration), on)?.datanet;
    let mut rows = sample_tokens(tokenizer, &datanet, registration.max_tokens)?;
    rows.iter_mut().for_each(|tokens| tokenizer.without_end(tokens, 2));
    Ok(rows)
}

/// Registrations that somebody has verified before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedBefore {
    /// Each with its index.
    pub accepted: Vec<Known>,
}

impl AcceptedBefore {
    /// Reads a file of accepted registrations.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn load(file: &Path) -> Result<Self, Failure> {
        read_json(file).map_err(|f| f.hint("`poa registration verify --accept` writes such a file; one of another version is made again"))
    }

    /// Adds one to a file, which need not be there yet. That its datanet was compared once stays true of a registration.
    ///
    /// # Errors
    ///
    /// When the file can't be read or written.
    pub fn add(file: &Path, mut one: Known) -> Result<(), Failure> {
        let mut list = if file.exists() { Self::load(file)? } else { Self::default() };
        one.datanet_compared |= list.accepted.iter().any(|k| (k.rules, k.registration) == (one.rules, one.registration) && k.datanet_compared);
        list.accepted.retain(|known| known.registration != one.registration);
        list.accepted.push(one);
        write_json(file, &list)
    }
}

/// Which rows are proven together: rows of like length, as many as keep a trace within `2^log` elements.
///
/// # Errors
///
/// When a sample can't be proven at all.
pub fn chunks(registration: &Registration, log: usize) -> Result<Vec<Vec<usize>>, RegistrationError> {
    let class = |row: usize| padded(&registration.samples[row]);
    let mut rows: Vec<usize> = (0..registration.samples.len()).filter(|&row| registration.samples[row].earns).collect();
    rows.sort_by_key(|&row| (class(row), row));
    let mut chunks = vec![];
    for rows in rows.chunk_by(|&a, &b| class(a) == class(b)) {
        let fits = |count: usize| -> Result<bool, RegistrationError> {
            let relation = registration.rows(&rows[..count.min(rows.len())])?;
            Ok(Layout::of(&relation, Group::Trace).is_some_and(|layout| layout.log <= log))
        };
        let mut most = 1;
        while most < rows.len() && 2 * most <= MAX_REQUESTS && fits(2 * most)? {
            most *= 2;
        }
        let mut left = rows;
        while !left.is_empty() {
            let padded = left.len().next_power_of_two();
            // Padding costs what rows cost: a quarter of it is cheaper than another proof.
            let take = if left.len() >= most {
                most
            } else if 4 * left.len() >= 3 * padded {
                left.len()
            } else {
                padded / 2
            };
            let (now, later) = left.split_at(take);
            chunks.push(now.to_vec());
            left = later;
        }
    }
    Ok(chunks)
}

/// Asked between the phases of a proof; they themselves are too many to be told.
struct Quiet<'a>(&'a dyn Observer);

impl Progress for Quiet<'_> {
    fn begin(&mut self, _: &'static str) {}
    fn end(&mut self, _: &Stage) {}
    fn goes_on(&self) -> bool {
        self.0.goes_on()
    }
}

/// An index with what it was made with.
pub struct Source<'a> {
    /// The model.
    pub model: &'a ModelDir,
    /// The adapter.
    pub adapter: &'a AdapterDir,
    /// The index.
    pub index: &'a IndexDir,
    /// Where commitments are kept.
    pub shelves: Shelves<'a>,
}

/// Everything a registration's proofs are made from.
struct Registrar<'a> {
    source: &'a Source<'a>,
    index: TensorMap,
    registered: Registered,
    digest: Digest,
    fixed: [Committed<Native>; 3],
    dir: &'a RegistrationDir,
}

/// Proves an index' registration into a directory, and goes on where an earlier call stopped: proofs that hold are kept.
///
/// # Errors
///
/// When model, adapter and index don't belong together, a row isn't its sample's sketch, or it is told to stop.
pub fn register(source: &Source<'_>, dir: &RegistrationDir, chunk_log: usize, on: &dyn Observer) -> Result<(Registered, Digest), Failure> {
    if fingerprint(source.model, Some(source.adapter)) != source.index.info.made_with {
        let failure = Failure::input("the index was made with another model or adapter");
        return Err(failure.hint("give those it was made with, or make it again with `poa index`"));
    }
    let registrar = Registrar::new(source, dir, chunk_log, on)?;
    registrar.write_stated()?;
    let total = registrar.work()?;
    let rows: usize = registrar.registered.chunks.iter().map(Vec::len).sum();
    on.note(format!(
        "registering {} rows, of which {rows} earn, in {} proofs; about {}",
        registrar.registered.registration.samples.len(),
        registrar.registered.chunks.len() + Part::ALL.len(),
        minutes(total as f64 * CPU_SECONDS_A_POSITION / rayon::current_num_threads() as f64)
    ));
    Part::ALL.iter().try_for_each(|&part| registrar.form(part, on))?;
    let mut done = 0;
    for chunk in 0..registrar.registered.chunks.len() {
        done += registrar.rows(chunk, on)?;
        on.steps("proving rows", done, rows);
    }
    Ok((registrar.registered, registrar.digest))
}

/// CPU seconds of proving one looked-up position: `poa registration prove` of the demo's index, 2 cores with AVX-512. An estimate's only.
const CPU_SECONDS_A_POSITION: f64 = 0.7e-6;

fn minutes(seconds: f64) -> String {
    if seconds < 90.0 { format!("{seconds:.0} seconds") } else { format!("{:.0} minutes", seconds / 60.0) }
}

impl<'a> Registrar<'a> {
    fn new(source: &'a Source<'a>, dir: &'a RegistrationDir, chunk_log: usize, on: &dyn Observer) -> Result<Self, Failure> {
        let (index, info) = (source.index.committed(), &source.index.info);
        let mut registration = Registration {
            version: PROTOCOL_VERSION,
            profile: Profile::Native,
            semantics: source.index.index.semantics.clone(),
            base: Digest::default(),
            adapter: Digest::default(),
            index: Digest::default(),
            datanet_root: info.datanet_root,
            datanet_version: info.datanet_version,
            beacon: info.beacon,
            contributors: info.contributors.clone(),
            max_tokens: info.max_tokens,
            split: !info.sample_of_row.is_empty(),
            samples: samples(&datanet_of(source.index)?, &source.model.tokenizer, info.max_tokens, &info.contributors)?,
        };
        registration.check().during("what is to be registered")?;
        let commit = |part: Part, tensors: &TensorMap| -> Result<Committed<Native>, Failure> {
            let relation = registration.form(part).during("building the relation")?;
            let (layout, values) = values_of(&relation, part.group(), tensors).during("committing")?;
            source.shelves.commit(&relation, part.group(), layout, values, on)
        };
        let fixed =
            [commit(Part::Base, &source.model.int.tensors)?, commit(Part::Adapter, &source.adapter.int.tensors)?, commit(Part::Index, &index)?];
        [registration.base, registration.adapter, registration.index] = [0, 1, 2].map(|i| fixed[i].digest());
        let chunks = chunks(&registration, chunk_log).during("what is to be registered")?;
        let digest = registration.digest();
        let registered = Registered { registration, chunks };
        Ok(Self { source, index, registered, digest, fixed, dir })
    }

    /// Says what is registered, unless the directory says the same already; a registration of something else is left alone.
    fn write_stated(&self) -> Result<(), Failure> {
        begin_dir(self.dir.path(), "registration")?;
        if !self.dir.stated().exists() {
            return write_json(&self.dir.stated(), &self.registered);
        }
        let found = self.dir.load().map_err(|f| f.hint("remove the directory, or give another --out"))?;
        if found == self.registered {
            return Ok(());
        }
        let failure = match found.registration == self.registered.registration {
            true => Failure::input(format!("{} proves the same rows in other chunks", self.dir.path().display()))
                .hint("give the --chunk-log that it was begun with, or another --out"),
            false => {
                let what = "of another index, or its commitments were made with other parameters";
                Failure::input(format!("{} is a registration {what}", self.dir.path().display())).hint("remove it, or give another --out")
            }
        };
        Err(failure)
    }

    /// Positions that are looked up in all proofs.
    fn work(&self) -> Result<usize, Failure> {
        let of = |relation: Relation| size(&relation).0;
        let forms = Part::ALL.iter().map(|&part| self.registered.registration.form(part).map(of));
        let rows = self.registered.chunks.iter().map(|rows| self.registered.registration.rows(rows).map(of));
        forms.chain(rows).sum::<Result<usize, _>>().during("what is to be registered")
    }

    fn fixed(&self, relation: &Relation) -> Vec<&Committed<Native>> {
        self.fixed.iter().filter(|c| Layout::of(relation, c.group).is_some()).collect()
    }

    fn tensors(&self) -> Fixed<'_> {
        Fixed { base: &self.source.model.int.tensors, adapter: &self.source.adapter.int.tensors, index: &self.index }
    }

    fn prove(&self, relation: &Relation, ctx: PublicContext, traces: &[&TensorMap], seed: Digest, on: &dyn Observer) -> Result<Vec<u8>, Failure> {
        let mut witness = Witness::new(relation, self.tensors(), traces, vec![]).during("assembling the witness")?;
        witness.ctx = ctx;
        let inputs = Inputs { claim: Claim { seed, weights: vec![] }, relation, tokens: vec![], fixed: self.fixed(relation) };
        let proof = prove(inputs, witness, &mut Stages::new(&mut Quiet(on))).map_err(|error| match error {
            ProveError::Stopped(_) => Failure::stopped(),
            error => Failure::input(format!("proving: {error}")),
        })?;
        Ok(proof.to_bytes())
    }

    /// Proves that a part is well-formed, unless that is proven.
    fn form(&self, part: Part, on: &dyn Observer) -> Result<(), Failure> {
        let (registration, file) = (&self.registered.registration, self.dir.file(Piece::Form(part)));
        let holds = |bytes: &[u8]| verify_form(registration, &self.digest, part, bytes);
        if read_proof(&file).is_ok_and(|bytes| holds(&bytes).is_ok()) {
            return Ok(());
        }
        let relation = registration.form(part).during("building the relation")?;
        let bytes = self.prove(&relation, registration.form_context(&relation), &[], registration.form_seed(&self.digest, part), on)?;
        holds(&bytes).map_err(Failure::invalid)?;
        write_file(&file, &bytes)
    }

    /// Proves a chunk, unless it is proven; returns its number of rows.
    fn rows(&self, chunk: usize, on: &dyn Observer) -> Result<usize, Failure> {
        let (registration, rows, file) = (&self.registered.registration, &self.registered.chunks[chunk], self.dir.file(Piece::Rows(chunk)));
        let holds = |bytes: &[u8]| verify_rows(registration, &self.digest, rows, bytes);
        if read_proof(&file).is_ok_and(|bytes| holds(&bytes).is_ok()) {
            return Ok(rows.len());
        }
        let relation = registration.rows(rows).during("building the relation")?;
        let traces = self.traces(rows, relation.dims())?;
        let traces: Vec<&TensorMap> = traces.iter().map(|t| &t.tensors).collect();
        let (ctx, seed) = (registration.rows_context(&relation, rows), registration.rows_seed(&self.digest, rows));
        let bytes = self.prove(&relation, ctx, &traces, seed, on)?;
        holds(&bytes).map_err(Failure::invalid)?;
        write_file(&file, &bytes)?;
        Ok(rows.len())
    }

    /// Runs the samples of some rows, and compares their sketches with the index.
    fn traces(&self, rows: &[usize], dims: Dims) -> Result<Vec<Trace>, Failure> {
        let semantics = &self.source.index.index.semantics;
        let runtime = runtime(semantics, self.source.model, Some(self.source.adapter))?;
        let sketcher = Sketcher::new(semantics).during("sketching")?;
        let trace = |&row: &usize| -> Result<Trace, Failure> {
            let tokens = &self.registered.registration.samples[row].tokens;
            let mut trace =
                runtime.run(tokens, 1, dims, Mode::Sample, Keep::All, Span::Exchange).during(format!("executing the sample of row {row}"))?;
            let sketch = sketcher.sketch(semantics, &trace).during(format!("sketching the sample of row {row}"))?;
            for site in semantics.sketched().iter().map(|s| s.name()) {
                let own = sketch.get(&format!("qs{site}")).map(|t| t.data.as_slice()).unwrap_or_default();
                let stored = self.index.get(&format!("G{site}")).and_then(|t| t.data.chunks_exact(own.len().max(1)).nth(row));
                if stored != Some(own) {
                    let failure = Failure::invalid(format!("row {row} of the index isn't the sketch of its sample"));
                    return Err(failure.hint("make the index again with `poa index`"));
                }
            }
            trace.tensors.extend(sketch);
            Ok(trace)
        };
        rows.par_iter().map(trace).collect()
    }
}
