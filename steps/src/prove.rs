//! Runs become a statement and its proof.

use crate::cost::{Meter, available_gb, peak_rss_mb};
use crate::error::{Failure, While};
use crate::kept::Shelves;
use crate::progress::{Observer, Phases};
use crate::run::{self, Loaded, random_id};
use crate::store::IndexDir;
use circuits::ir::Group;
use circuits::layout::Layout;
use circuits::public::PublicRequest;
use circuits::registration::Known;
use circuits::relation::{Relation, RelationParams, Scope, TableMode, WeightRanges};
use circuits::statement::{Digest, IndexStatement, PROTOCOL_VERSION, Profile, RequestStatement, Statement, TokenOpening, Tokens};
use circuits::witness::{Fixed, Witness};
use model_runtime::int::Trace;
use model_runtime::int::trace::Span;
use model_runtime::semantics::Semantics;
use model_runtime::tensor::TensorMap;
use prover::ProveError;
use prover::commit::{Committed, encoded_bytes, stack, values_of};
use prover::kept::KeptProfile;
use prover::prove::{Inputs, Stage, Stages, Stopped, prove as prove_statement};
use serde::Serialize;
use std::path::Path;
use verifier::plan::Plan;
use verifier::profile::{Evm, Native, NativeProfile};
use verifier::verify::check_parameters;

/// What is to be proven.
#[derive(Clone)]
pub struct Job<'a> {
    /// The model.
    pub model: &'a TensorMap,
    /// The adapter.
    pub adapter: Option<&'a TensorMap>,
    /// The index, for attribution.
    pub index: Option<&'a IndexDir>,
    /// All parameters.
    pub semantics: &'a Semantics,
    /// Range proofs of the weights.
    pub weight_ranges: WeightRanges,
    /// The registration that they are left to, where they are.
    pub registration: Option<Known>,
    /// Traced requests with their ids.
    pub requests: Vec<(Trace, Digest)>,
    /// Whether the statement shows digests instead of tokens.
    pub private_tokens: bool,
    /// Salts of the prompts' digests, a payer's or random ones; for hidden tokens.
    pub prompt_salts: Vec<Option<Digest>>,
    /// Where commitments are kept.
    pub shelves: Shelves<'a>,
}

impl<'a> Job<'a> {
    /// A job of runs that have the same model and adapter, with an index and its directory for attribution; executes again what was traced
    /// otherwise.
    ///
    /// # Errors
    ///
    /// When runs differ in model or adapter, an index was made with others, or a run can't be executed.
    pub fn of_runs(runs: &'a [Loaded], index: Option<(&'a IndexDir, &'a Path)>, private_tokens: bool) -> Result<Self, Failure> {
        let Some(first) = runs.first() else { return Err(Failure::input("no run to prove")) };
        for run in runs {
            index.map_or(Ok(()), |(index, _)| run.check_index(index))?;
            if run.info.model != first.info.model || run.info.adapter != first.info.adapter {
                return Err(Failure::input("the runs are of different models or adapters").hint("prove them separately"));
            }
        }
        let semantics = index.map_or_else(|| run::semantics(&first.model, first.adapter.as_ref()), |(index, _)| &index.index.semantics);
        let infos: Vec<_> = runs.iter().map(|r| r.info.clone()).collect();
        let span = if index.is_some() { Span::Exchange } else { Span::Answer };
        let dims = run::common_dims(semantics, span, &infos);
        let runtime = run::runtime(semantics, &first.model, first.adapter.as_ref())?;
        let request = |loaded: &Loaded| {
            let stored = dims == loaded.trace.dims && span == run::span_of(run::semantics(&loaded.model, loaded.adapter.as_ref()));
            let mut trace = match stored {
                true => loaded.trace.clone(),
                false => run::trace(&runtime, &loaded.info.tokens, loaded.info.prompt_len, span, dims)?,
            };
            index.map(|(index, _)| run::attribute(index, &mut trace)).transpose()?;
            Ok((trace, loaded.info.request_id))
        };
        Ok(Self {
            model: &first.model.int.tensors,
            adapter: first.adapter.as_ref().map(|a| &a.int.tensors),
            index: index.map(|(index, _)| index),
            semantics,
            weight_ranges: WeightRanges::Proven,
            registration: None,
            requests: runs.iter().map(request).collect::<Result<_, Failure>>()?,
            private_tokens,
            prompt_salts: runs.iter().map(|run| run.info.prompt_salt).collect(),
            shelves: Shelves { model: Some(&first.info.model), adapter: first.info.adapter.as_deref(), index: index.map(|(_, dir)| dir) },
        })
    }
}

impl Job<'_> {
    /// Leaves the ranges of base, adapter and index to a registration.
    pub fn relying_on(self, registration: Known) -> Self {
        Self { weight_ranges: WeightRanges::Registered, registration: Some(registration), ..self }
    }
}

/// Commits an imported model, a trained adapter or an index, and keeps the commitment for the proofs to come.
pub fn commit(
    group: Group,
    semantics: &Semantics,
    index: Option<&IndexDir>,
    tensors: &TensorMap,
    shelves: Shelves<'_>,
    on: &dyn Observer,
) -> Result<Digest, Failure> {
    // The long-lived groups are the same for requests of every size.
    let params = RelationParams {
        semantics: semantics.clone(),
        scope: if index.is_some() { Scope::Attribution } else { Scope::Forward },
        weight_ranges: WeightRanges::Proven,
        tables: TableMode::Evaluated,
        tokens: 8,
        slots: 8,
        requests: 1,
        rows: index.map_or(0, |i| i.index.rows),
        contributors: index.map_or(0, |i| i.info.contributors.len()),
    };
    let relation = Relation::new(&params).during("building the relation")?;
    let (layout, values) = values_of(&relation, group, tensors).during("committing")?;
    warn_if_too_large("the commitment", encoded_bytes::<Native>(group, layout.log), on);
    Ok(shelves.commit::<Native>(&relation, group, layout, values, on)?.digest())
}

/// A proof and what it cost.
pub struct Proven {
    /// What it proves.
    pub statement: Statement,
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// Figures.
    pub figures: ProofFigures,
}

/// Figures of a proof.
#[derive(Clone, Debug, Serialize)]
pub struct ProofFigures {
    /// Wall seconds.
    pub seconds: f64,
    /// CPU seconds.
    pub cpu_seconds: f64,
    /// Peak memory of the process.
    pub peak_rss_mb: f64,
    /// Elements that carry data, in all commitments.
    pub committed_elements: usize,
    /// Looked-up positions.
    pub lookups: usize,
    /// Size of the encoding.
    pub proof_bytes: usize,
    /// Composed security.
    pub security_bits: f64,
    /// Phases.
    pub stages: Vec<Stage>,
}

/// Proves a job under a profile. Not generic: the prover is compiled here, once, and not in every crate that calls it.
///
/// # Errors
///
/// When the job can't be proven, or it was told to stop.
pub fn prove(profile: Profile, job: Job<'_>, on: &dyn Observer) -> Result<Proven, Failure> {
    match profile {
        Profile::Native => proven::<Native>(job, on),
        Profile::Evm => proven::<Evm>(job, on),
    }
}

fn proven<C: KeptProfile>(job: Job<'_>, on: &dyn Observer) -> Result<Proven, Failure> {
    let meter = Meter::start();
    let dims = job.requests.first().map(|(t, _)| t.dims).ok_or_else(|| Failure::input("no request to prove"))?;
    let scope = if job.index.is_some() { Scope::Attribution } else { Scope::Forward };
    let params = RelationParams {
        semantics: job.semantics.clone(),
        scope,
        weight_ranges: job.weight_ranges,
        tables: if C::PROFILE == Profile::Evm { TableMode::Committed } else { TableMode::Evaluated },
        tokens: dims.t,
        slots: dims.s,
        requests: job.requests.len().next_power_of_two(),
        rows: job.index.map_or(0, |i| i.index.rows),
        contributors: job.index.map_or(0, |i| i.info.contributors.len()),
    };
    let relation = Relation::new(&params).during("building the relation")?;
    // Before hours of work, not after.
    let security_bits = check_parameters::<C>(&Plan::new(&relation)).during("what is to be proven")?;
    warn_if_too_large("this proof", prover::prove::memory::<C>(&relation), on);
    let mut phases = Phases(on);
    let mut stages = Stages::new(&mut phases);
    let witness = stages.run("assemble", || assemble(&job, &relation)).map_err(stopped)??;
    let fixed = stages.run("commit model", || commit_fixed::<C>(&relation, &witness, job.shelves, on)).map_err(stopped)??;
    let openings = openings(&job)?;
    let statement = statement::<C>(&job, &relation, &witness, &fixed, &openings);
    match job.weight_ranges {
        WeightRanges::Proven | WeightRanges::Registered => statement.check_given(job.registration.as_slice()),
        WeightRanges::AssumedInsecure => statement.check_benchmark(),
    }
    .during("the statement to prove")?;
    let inputs = Inputs { claim: (&statement).into(), relation: &relation, tokens: openings, fixed: fixed.iter().collect() };
    let proof = prove_statement(inputs, witness, &mut stages).map_err(failed)?;
    let bytes = proof.to_bytes();
    let (lookups, committed_elements) = prover::prove::size(&relation);
    let stages = stages.list;
    let (seconds, cpu_seconds) = meter.read();
    let figures = ProofFigures {
        seconds,
        cpu_seconds,
        peak_rss_mb: peak_rss_mb(),
        committed_elements,
        lookups,
        proof_bytes: bytes.len(),
        security_bits,
        stages,
    };
    Ok(Proven { statement, bytes, figures })
}

fn stopped(_: Stopped) -> Failure {
    Failure::stopped()
}

fn failed(error: ProveError) -> Failure {
    match error {
        ProveError::Stopped(stop) => stopped(stop),
        error => Failure::input(format!("proving: {error}")),
    }
}

/// Says when something may need more memory than there is.
fn warn_if_too_large(what: &str, bytes: usize, on: &dyn Observer) {
    let needed = bytes as f64 / f64::from(1 << 30);
    if let Some(available) = available_gb().filter(|&available| needed > available) {
        on.note(format!(
            "warning: {what} may need {needed:.1} GB of memory beside what is in use, {available:.1} GB are available; the system may end it"
        ));
    }
}

fn assemble(job: &Job<'_>, relation: &Relation) -> Result<Witness, Failure> {
    let none = TensorMap::new();
    let index = job.index.map(IndexDir::committed).unwrap_or_default();
    let fixed = Fixed { base: job.model, adapter: job.adapter.unwrap_or(&none), index: &index };
    let traces: Vec<&TensorMap> = job.requests.iter().map(|(t, _)| &t.tensors).collect();
    let public = job.requests.iter().map(|(t, _)| PublicRequest { tokens: t.tokens.clone(), prompt_len: t.prompt_len }).collect();
    Witness::new(relation, fixed, &traces, public).during("assembling the witness")
}

fn commit_fixed<C: KeptProfile>(
    relation: &Relation,
    witness: &Witness,
    shelves: Shelves<'_>,
    on: &dyn Observer,
) -> Result<Vec<Committed<C>>, Failure> {
    let groups = [Group::Base, Group::Adapter, Group::Index, Group::Tables];
    groups
        .into_iter()
        .filter_map(|g| Some((g, Layout::of(relation, g)?)))
        .map(|(g, layout)| {
            let values = stack(&layout, |id| &witness.tensors[id.0]);
            shelves.commit(relation, g, layout, values, on)
        })
        .collect()
}

fn openings(job: &Job<'_>) -> Result<Vec<Option<TokenOpening>>, Failure> {
    let open = |(i, (trace, _)): (usize, &(Trace, Digest))| {
        Ok(if job.private_tokens {
            let prompt_salt = job.prompt_salts.get(i).copied().flatten().map_or_else(random_id, Ok)?.0;
            Some(TokenOpening { prompt_salt, salt: random_id()?.0, tokens: trace.tokens.clone(), prompt_len: trace.prompt_len })
        } else {
            None
        })
    };
    job.requests.iter().enumerate().map(open).collect()
}

fn statement<C: NativeProfile>(
    job: &Job<'_>,
    relation: &Relation,
    witness: &Witness,
    fixed: &[Committed<C>],
    openings: &[Option<TokenOpening>],
) -> Statement {
    let digest = |group: Group| fixed.iter().find(|c| c.group == group).map(Committed::digest);
    let base = digest(Group::Base).unwrap_or_default();
    let adapter = digest(Group::Adapter);
    let mut weights = witness.contributor_weights(relation);
    weights.resize(job.requests.len(), vec![]);
    let requests = job.requests.iter().zip(openings).zip(weights).map(|(((trace, id), opening), weights)| RequestStatement {
        id: *id,
        tokens: match opening {
            Some(opening) => Tokens::Digests(opening.digests(relation.params.tokens)),
            None => Tokens::Public { tokens: trace.tokens.clone(), prompt_len: trace.prompt_len },
        },
        total: weights.iter().sum(),
        weights,
    });
    let index = job.index.map(|index| IndexStatement {
        commitment: digest(Group::Index).unwrap_or_default(),
        base,
        adapter: adapter.unwrap_or_default(),
        datanet_root: index.info.datanet_root,
        datanet_version: index.info.datanet_version,
        contributors: index.info.contributors.clone(),
    });
    Statement {
        version: PROTOCOL_VERSION,
        profile: C::PROFILE,
        relation: relation.params.clone(),
        base,
        adapter,
        tables: digest(Group::Tables),
        registration: job.registration.as_ref().map(|known| known.registration),
        requests: requests.collect(),
        index,
    }
}
