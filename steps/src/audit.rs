//! Everything is replayed, bit for bit, and the first difference named.

use crate::compare;
use crate::error::{Failure, While};
use crate::index::{self, Indexing};
use crate::progress::Observer;
use crate::run;
use crate::store::{AdapterDir, IndexDir, ModelDir, RunInfo};
use crate::texts::{self, Prepared, Window, Windows};
use circuits::ir::Group;
use circuits::registration::{Known, RULES};
use circuits::relation::Relation;
use circuits::statement::{Digest, IndexStatement, Profile, Statement, TokenOpening, Tokens};
use model_runtime::semantics::{Dims, Semantics};
use model_runtime::tensor::TensorMap;
use prover::commit::digest_of;
use serde_json::{Value, json};
use std::path::Path;
use verifier::profile::{Evm, Native};
use verifier::proof::Proof;

/// The first difference found, if any.
type Difference = Result<Option<String>, Failure>;

/// An index and the datanet that it claims to be of.
pub struct Indexed {
    index: IndexDir,
    /// Cut or split as the index says.
    datanet: Prepared,
    /// Samples of the whole datanet, windows where they are split.
    samples: usize,
    /// As the auditor was told, not as the index says.
    noise_floor: Option<i64>,
    beacon: Option<Digest>,
}

impl Indexed {
    /// Reads an index and its datanet, cut or split as the index says; `noise_floor` and `beacon` are what the auditor expects.
    ///
    /// # Errors
    ///
    /// When one can't be read.
    pub fn load(
        index: &Path,
        path: &Path,
        model: &ModelDir,
        (noise_floor, beacon): (Option<i64>, Option<Digest>),
        on: &dyn Observer,
    ) -> Result<Self, Failure> {
        let index = IndexDir::load(index)?;
        let windows = if index.info.sample_of_row.is_empty() { Windows::Cut } else { Windows::Split };
        let window = Window { max_tokens: index.info.max_tokens, windows };
        let mut datanet = texts::prepare(texts::read(path, None, on)?, &model.tokenizer, window, on)?;
        let (rows, samples) = (index.info.rows.len(), datanet.datanet.samples.len());
        if rows < samples {
            on.note(format!("the index is of the datanet's first {rows} samples; {} has {samples}", path.display()));
        }
        datanet.datanet.samples.truncate(rows);
        datanet.sample_of_row.truncate(rows);
        Ok(Self { index, datanet, samples, noise_floor, beacon })
    }

    /// What the index' maker has chosen, and the replay has followed.
    pub fn choices(&self) -> Value {
        let (info, semantics) = (&self.index.info, &self.index.index.semantics);
        json!({
            "samples": self.samples,
            "rows": info.rows.len(),
            "max_tokens": info.max_tokens,
            "windows": if info.sample_of_row.is_empty() { "cut" } else { "split" },
            "sketch": semantics.sketch,
            "noise_floor": semantics.consts.get("theta"),
            "beacon": info.beacon,
        })
    }
}

/// What is replayed and compared.
pub struct Audit {
    /// The model.
    pub model: ModelDir,
    /// The adapter, where the statement names one.
    pub adapter: Option<AdapterDir>,
    /// The index and its datanet, where the statement claims attribution.
    pub indexed: Option<Indexed>,
    /// The run.
    pub run: RunInfo,
    /// Its trace as stored.
    pub stored: TensorMap,
    /// The statement.
    pub statement: Statement,
    /// Which of its requests the run is.
    pub request: usize,
    /// What opens hidden tokens.
    pub opening: Option<TokenOpening>,
}

/// Where something differs, and what.
pub type Found = (&'static str, String);

fn differs(what: impl Into<String>) -> Difference {
    Ok(Some(what.into()))
}

impl Audit {
    /// Replays everything, up to the first difference.
    ///
    /// # Errors
    ///
    /// When something can't be replayed at all.
    pub fn replay(&self, on: &dyn Observer) -> Result<Option<Found>, Failure> {
        type Step<'a> = (&'static str, &'a dyn Fn() -> Difference);
        let steps: [Step<'_>; 5] = [
            ("statement", &|| self.statement()),
            ("commitments", &|| self.commitments()),
            ("trace", &|| self.trace()),
            ("weights", &|| self.weights()),
            ("index", &|| self.index(on)),
        ];
        for (name, step) in steps {
            if !on.goes_on() {
                return Err(Failure::stopped());
            }
            on.note(format!("replaying: {name} …"));
            if let Some(what) = step()? {
                return Ok(Some((name, what)));
            }
        }
        Ok(None)
    }

    /// Semantics of the statement's scope.
    fn semantics(&self) -> &Semantics {
        match &self.indexed {
            Some(indexed) => &indexed.index.index.semantics,
            None => run::semantics(&self.model, self.adapter.as_ref()),
        }
    }

    /// Padded sizes of the stored trace.
    fn dims(&self) -> Dims {
        let semantics = run::semantics(&self.model, self.adapter.as_ref());
        run::common_dims(semantics, run::span_of(semantics), std::slice::from_ref(&self.run))
    }

    /// The statement speaks of this run, under these parameters, of this index.
    fn statement(&self) -> Difference {
        // The index is replayed here, so whatever registration the statement relies on, its ranges are seen.
        let named = self.statement.registration.zip(self.statement.index.clone());
        let replayed = named.map(|(registration, index)| Known { rules: RULES, registration, index, beacon: None, datanet_compared: true });
        if let Err(e) = self.statement.check_given(replayed.as_slice()) {
            return differs(e.to_string());
        }
        if let Some(what) = compare::parameters(self.semantics(), &self.statement.relation.semantics) {
            return differs(format!("the statement's semantics, {what}"));
        }
        if let (Some(indexed), Some(stated)) = (&self.indexed, &self.statement.index)
            && let Some(what) = self.provenance(&indexed.index, stated)
        {
            return Ok(Some(what));
        }
        self.request()
    }

    /// Rows, datanet and contributors' names of the stated index.
    fn provenance(&self, index: &IndexDir, stated: &IndexStatement) -> Option<String> {
        let info = &index.info;
        let facts = [
            ("number of index rows", self.statement.relation.rows.to_string(), info.rows.len().to_string()),
            ("datanet root", stated.datanet_root.to_string(), info.datanet_root.to_string()),
            ("datanet version", stated.datanet_version.to_string(), info.datanet_version.to_string()),
            ("number of contributors", stated.contributors.len().to_string(), info.contributors.len().to_string()),
        ];
        let fact = facts.into_iter().find(|(_, said, own)| said != own);
        let name = || info.contributors.iter().zip(&stated.contributors).position(|(own, said)| own != said);
        fact.map(|(what, said, own)| format!("the {what} is {own} in the index, {said} in the statement")).or_else(|| {
            name().map(|i| format!("contributor {i} is `{}` in the index, `{}` in the statement", info.contributors[i], stated.contributors[i]))
        })
    }

    /// The stated id and tokens are the run's, and the run's texts are its tokens'.
    fn request(&self) -> Difference {
        let (run, stated) = (&self.run, &self.statement.requests[self.request]);
        if stated.id != run.request_id {
            return differs(format!("the request id is {} in the run, {} in the statement", run.request_id, stated.id));
        }
        let (tokens, prompt_len) = match (&stated.tokens, &self.opening) {
            (Tokens::Public { tokens, prompt_len }, _) => (tokens, *prompt_len),
            (Tokens::Digests(digests), Some(opening)) => match self.statement.open(digests, opening) {
                Ok(_) => (&opening.tokens, opening.prompt_len),
                Err(e) => return differs(format!("the proof doesn't open the statement's digests: {e}")),
            },
            (Tokens::Digests(_), None) => (&run.tokens, run.prompt_len),
        };
        if tokens != &run.tokens || prompt_len != run.prompt_len {
            return differs("the statement's tokens are not the run's");
        }
        let Some((prompt, answer)) = run.tokens.split_at_checked(run.prompt_len) else {
            return differs("the run's prompt is longer than its tokens");
        };
        if self.model.tokenizer.encode(&run.prompt).ok().as_deref() != Some(prompt) {
            return differs("the run's prompt is not its tokens'");
        }
        if self.model.tokenizer.answer(answer) != run.answer {
            return differs("the run's answer is not its tokens'");
        }
        Ok(None)
    }

    /// The statement's commitments are those of model, adapter and index.
    fn commitments(&self) -> Difference {
        let relation = Relation::new(&self.statement.relation).during("building the relation")?;
        let digest = |group: Group, tensors: &TensorMap| {
            match self.statement.profile {
                Profile::Native => digest_of::<Native>(&relation, group, tensors),
                Profile::Evm => digest_of::<Evm>(&relation, group, tensors),
            }
            .during("committing")
        };
        let index = self.indexed.as_ref().map(|i| i.index.committed());
        let all = [
            ("base model", Group::Base, Some(&self.model.int.tensors), Some(self.statement.base)),
            ("adapter", Group::Adapter, self.adapter.as_ref().map(|a| &a.int.tensors), self.statement.adapter),
            ("index", Group::Index, index.as_ref(), self.statement.index.as_ref().map(|i| i.commitment)),
        ];
        for (what, group, tensors, stated) in all {
            if let (Some(tensors), Some(stated)) = (tensors, stated) {
                let own = digest(group, tensors)?;
                if own != stated {
                    return differs(format!("the {what}'s commitment is {own}, the statement says {stated}"));
                }
            }
        }
        Ok(None)
    }

    /// The stored trace is what the model computes for the tokens.
    fn trace(&self) -> Difference {
        let semantics = run::semantics(&self.model, self.adapter.as_ref());
        let runtime = run::runtime(semantics, &self.model, self.adapter.as_ref())?;
        match run::trace_run(&runtime, &self.run, self.dims()) {
            Ok(replayed) => Ok(compare::tensors(&replayed.tensors, &self.stored)),
            Err(failure) => differs(failure.message),
        }
    }

    /// The stated weights are what the scores give.
    fn weights(&self) -> Difference {
        let Some(Indexed { index, .. }) = &self.indexed else { return Ok(None) };
        let runtime = run::runtime(&index.index.semantics, &self.model, self.adapter.as_ref())?;
        let mut trace = run::trace_run(&runtime, &self.run, self.dims())?;
        let attribution = run::attribute(index, &mut trace)?;
        let stated = &self.statement.requests[self.request].weights;
        let wrong = index.info.contributors.iter().zip(0u32..).zip(stated).find_map(|((c, i), said)| {
            let own = attribution.weights.get(&i).copied().unwrap_or(0);
            (own != *said).then(|| format!("the weight of {c} is {own}, the statement says {said}"))
        });
        Ok(wrong)
    }

    /// The index is what sketching the datanet gives.
    fn index(&self, on: &dyn Observer) -> Difference {
        let Some(Indexed { index, datanet, noise_floor, beacon, .. }) = &self.indexed else { return Ok(None) };
        let Some(adapter) = &self.adapter else { return differs("there is an index but no adapter") };
        let (info, Prepared { datanet, sample_of_row, .. }) = (&index.info, datanet);
        let root = Digest(datanet.root());
        if root != info.datanet_root {
            return differs(format!("the datanet's root is {root}, the index says {}", info.datanet_root));
        }
        if *beacon != info.beacon {
            let named = |beacon: &Option<Digest>| beacon.map_or_else(|| "no beacon".to_owned(), |b| format!("beacon {b}"));
            let (found, expected) = (named(&info.beacon), named(beacon));
            return differs(format!("the index's projection is drawn with {found}, expected {expected} (--beacon says which it should be)"));
        }
        let how = Indexing {
            options: info.options.clone(),
            max_tokens: info.max_tokens,
            noise_floor: *noise_floor,
            beacon: *beacon,
            paths: (&info.model, &info.adapter),
        };
        let again = index::index(&self.model, adapter, datanet, how, on)?;
        if let Some(what) = compare::parameters(&again.index.semantics, &index.index.semantics) {
            return differs(format!("the index's semantics, {what}"));
        }
        if let Some(i) = again.info.rows.iter().zip(&info.rows).position(|(a, b)| a != b) {
            return differs(format!("the index's row {i} is not the datanet's sample"));
        }
        if *sample_of_row != info.sample_of_row {
            return differs("the index's rows are not the windows of the datanet's samples");
        }
        if again.info.contributors != info.contributors {
            return differs("the index's contributors are not the datanet's");
        }
        Ok(compare::tensors(&again.committed(), &index.committed()))
    }
}

/// The request's token opening, out of the proof.
///
/// # Errors
///
/// When the proof can't be read.
pub fn opening(path: &Path, profile: Profile, request: usize) -> Result<Option<TokenOpening>, Failure> {
    let bytes = std::fs::read(path).during_path("reading", path)?;
    let mut tokens = match profile {
        Profile::Native => Proof::<Native>::from_bytes(&bytes).map(|p| p.tokens),
        Profile::Evm => Proof::<Evm>::from_bytes(&bytes).map(|p| p.tokens),
    }
    .during_path("reading", path)?;
    Ok(if request < tokens.len() { tokens.swap_remove(request) } else { None })
}
