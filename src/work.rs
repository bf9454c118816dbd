//! The steps commands are made of: import, train, index, infer, attribute, prove, verify.

use crate::error::{Failure, While};
use crate::kept::Shelves;
use crate::meter::{self, Meter, Spinner, say};
use crate::store::{AdapterDir, IndexDir, IndexInfo, ModelDir, Row, RunInfo};
use circuits::ir::Group;
use circuits::layout::Layout;
use circuits::public::PublicRequest;
use circuits::relation::{Relation, RelationParams, Scope, TableMode, WeightRanges};
use circuits::statement::{Digest, IndexStatement, PROTOCOL_VERSION, Profile, RequestStatement, Statement, TokenOpening, Tokens, keccak};
use circuits::witness::{Fixed, Witness};
use model_runtime::int::attribute::{Attribution, attribute as attribute_run};
use model_runtime::int::fidelity::{Fidelity, fidelity};
use model_runtime::int::index::{Index, IndexOptions, build_index};
use model_runtime::int::sketch::sketch;
use model_runtime::int::trace::{Keep, Span};
use model_runtime::int::{Headroom, Mode, Runtime, Trace, quantise_base_with};
use model_runtime::semantics::{Dims, Seed, Semantics};
use model_runtime::shape::FloatModel;
use model_runtime::tensor::{Tensor, TensorMap};
use model_runtime::text::duplicates::{Canonical, canonical_rows};
use model_runtime::text::{Datanet, Tokenizer};
use model_runtime::train::{SplitMix64, float_logits};
use prover::commit::{Committed, encoded_bytes, stack, values_of};
use prover::prove::{Inputs, Stage, Stages, prove as prove_statement};
use serde::Serialize;
use std::path::Path;
use verifier::plan::Plan;
use verifier::profile::{Native, NativeProfile};
use verifier::verify::check_parameters;

/// Sequences the float model writes for calibration, and as many again to measure fidelity on.
const SELF_WRITTEN: usize = 12;

/// Lets the float model write text (temperature 1, seeded): what it is likely to see.
pub fn self_written(model: &FloatModel, tokenizer: &Tokenizer, count: usize, length: usize) -> Result<Vec<Vec<u32>>, Failure> {
    let mut rng = SplitMix64::new(0x706f_6131);
    let vocab = model.shape.vocab;
    let bar = meter::bar(count as u64, "calibration text");
    let mut write_one = || -> Result<Vec<u32>, Failure> {
        let mut tokens = vec![tokenizer.bos()];
        while tokens.len() < length {
            let logits = float_logits(model, None, &tokens).during("running the float model")?;
            let last = &logits[logits.len() - vocab..];
            tokens.push(draw(last, rng.unit()));
        }
        bar.inc(1);
        Ok(tokens)
    };
    (0..count).map(|_| write_one()).collect()
}

/// The token at `at` of the softmax distribution's cumulative sum.
fn draw(logits: &[f32], at: f64) -> u32 {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> = logits.iter().map(|z| f64::from(z - max).exp()).collect();
    let mut left = at * weights.iter().sum::<f64>();
    let found = weights.iter().position(|w| {
        left -= w;
        left <= 0.0
    });
    found.unwrap_or(logits.len() - 1) as u32
}

/// An imported model and how faithful its integers are.
pub struct Imported {
    /// The model.
    pub model: ModelDir,
    /// Measured on text that wasn't used for calibration.
    pub fidelity: Fidelity,
}

/// [`import_with`] the headroom that costs no exactness.
pub fn import(float: FloatModel, tokenizer: Tokenizer, texts: Option<Vec<Vec<u32>>>) -> Result<Imported, Failure> {
    import_with(float, tokenizer, texts, Headroom::Auto)
}

/// Quantises a float model. `texts` calibrate it and measure fidelity (alternately); without them it writes its own.
pub fn import_with(float: FloatModel, tokenizer: Tokenizer, texts: Option<Vec<Vec<u32>>>, headroom: Headroom) -> Result<Imported, Failure> {
    let tokenizer = tokenizer.for_vocabulary(float.shape.vocab).during("the tokenizer")?;
    let length = float.shape.context.min(64);
    let texts = match texts {
        Some(texts) => texts,
        None => self_written(&float, &tokenizer, 2 * SELF_WRITTEN, length)?,
    };
    let pick = |parity: usize| texts.iter().skip(parity).step_by(2).filter(|t| t.len() > 1).take(64).cloned().collect::<Vec<_>>();
    let (calibration, held_out) = (pick(0), pick(1));
    let held_out = if held_out.is_empty() { calibration.clone() } else { held_out };
    let int = quantise_base_with(&float, &calibration, headroom).during("quantising")?;
    let runtime = Runtime::new(int.semantics.clone(), &int.tensors, None).during("loading the integer model")?;
    let reference = |tokens: &[u32]| float_logits(&float, None, tokens).unwrap_or_default();
    let fidelity = fidelity(&runtime, &held_out[..held_out.len().min(SELF_WRITTEN)], reference).during("measuring fidelity")?;
    Ok(Imported { model: ModelDir { int, float, tokenizer }, fidelity })
}

/// How faithful a model with its adapter is, on some of the samples it is for.
pub fn adapted_fidelity(model: &ModelDir, adapter: &AdapterDir, samples: &[Vec<u32>]) -> Result<Fidelity, Failure> {
    let runtime = runtime(&adapter.int.semantics, model, Some(adapter))?;
    let few: Vec<Vec<u32>> = samples.iter().step_by(samples.len().div_ceil(2 * SELF_WRITTEN).max(1)).cloned().collect();
    let reference = |tokens: &[u32]| float_logits(&model.float, Some(&adapter.float), tokens).unwrap_or_default();
    fidelity(&runtime, &few, reference).during("measuring fidelity")
}

/// The samples' tokens, BOS first, EOS last, cut.
pub fn sample_tokens(tokenizer: &Tokenizer, datanet: &Datanet, max_tokens: usize) -> Result<Vec<Vec<u32>>, Failure> {
    let encode = |(i, s): (usize, &model_runtime::text::Sample)| {
        tokenizer.encode_sample(&s.text, max_tokens).during(format!("sample {} of {}", i + 1, s.contributor))
    };
    datanet.samples.iter().enumerate().map(encode).collect()
}

/// How an index is made.
#[derive(Clone, Debug)]
pub struct Indexing<'a> {
    /// What is sketched; its seed is that of the datanet and the beacon.
    pub options: IndexOptions,
    /// Samples are cut after this many tokens.
    pub max_tokens: usize,
    /// Scores up to this count as noise, if not up to what the projection's chance gives.
    pub noise_floor: Option<i64>,
    /// A value that nobody knew when the datanet closed.
    pub beacon: Option<Digest>,
    /// Where model and adapter are.
    pub paths: (&'a Path, &'a Path),
}

/// Makes an index of a datanet.
pub fn index(model: &ModelDir, adapter: &AdapterDir, datanet: &Datanet, how: Indexing<'_>) -> Result<IndexDir, Failure> {
    let mut tokens = sample_tokens(&model.tokenizer, datanet, how.max_tokens)?;
    let bar = meter::bar(2 * tokens.len() as u64, "sketching");
    let progress = |done: usize, _: usize| bar.set_position(done as u64);
    // A copy of an earlier sample is a zero row: it neither earns nor moves the floor.
    let earns: Vec<bool> = canonical_rows(datanet.canonical(), &tokens).into_iter().map(Canonical::is_first).collect();
    tokens.iter_mut().for_each(|t| model.tokenizer.without_end(t, 2));
    let root = datanet.root();
    let options = IndexOptions { seed: Seed::of(&root, how.beacon.as_ref().map(|b| &b.0)), ..how.options };
    let mut index = build_index(&model.int, &adapter.int, &tokens, &earns, &options, &progress).during("indexing")?;
    bar.finish_and_clear();
    if let Some(theta) = how.noise_floor {
        index.semantics.consts.insert("theta".into(), theta);
    }
    check_provable(&index, datanet.contributors().len())?;
    let rows = datanet.samples.iter().map(|s| Row { contributor: s.contributor.clone(), text: s.text.clone() }).collect();
    let info = IndexInfo {
        rows,
        contributors: datanet.contributors().into_iter().map(str::to_owned).collect(),
        datanet_root: Digest(root),
        datanet_version: 1,
        beacon: how.beacon,
        max_tokens: how.max_tokens,
        options,
        sample_of_row: vec![],
        model: how.paths.0.to_owned(),
        adapter: how.paths.1.to_owned(),
        made_with: fingerprint(model, Some(adapter)),
    };
    Ok(IndexDir { index, info })
}

/// Refuses what no proof could be made of, for an exchange of any length, before anything is written.
fn check_provable(index: &Index, contributors: usize) -> Result<(), Failure> {
    let tokens = index.semantics.shape.context.next_power_of_two();
    let params = RelationParams {
        semantics: index.semantics.clone(),
        scope: Scope::Attribution,
        weight_ranges: WeightRanges::Proven,
        tables: TableMode::Evaluated,
        tokens,
        slots: tokens,
        requests: 1,
        rows: index.rows,
        contributors,
    };
    Relation::new(&params).map(|_| ()).during("checking that answers can be proven with this index")
}

/// The integer model, ready to run.
pub fn runtime(semantics: &Semantics, model: &ModelDir, adapter: Option<&AdapterDir>) -> Result<Runtime, Failure> {
    Runtime::new(semantics.clone(), &model.int.tensors, adapter.map(|a| &a.int.tensors)).during("loading the integer model")
}

/// Semantics of a model with or without its adapter.
pub fn semantics<'a>(model: &'a ModelDir, adapter: Option<&'a AdapterDir>) -> &'a Semantics {
    adapter.map_or(&model.int.semantics, |a| &a.int.semantics)
}

/// Tells apart models and adapters, so that a run or an index isn't used with others than it was made with. Nothing is proven about it.
pub fn fingerprint(model: &ModelDir, adapter: Option<&AdapterDir>) -> Digest {
    let tensors = model.int.tensors.iter().chain(adapter.iter().flat_map(|a| &a.int.tensors));
    let of_tensor = |(name, tensor): (&String, &Tensor)| {
        let data: Vec<u8> = tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        [keccak(name.as_bytes()).0, keccak(&data).0].concat()
    };
    let mut parts: Vec<u8> = tensors.flat_map(of_tensor).collect();
    parts.extend(serde_json::to_vec(semantics(model, adapter)).unwrap_or_default());
    keccak(&parts)
}

/// Answers a prompt. Paths are stored in the run.
pub fn infer(
    model: &ModelDir,
    adapter: Option<&AdapterDir>,
    prompt: &str,
    max_new: usize,
    request_id: Digest,
    paths: (&Path, Option<&Path>),
) -> Result<RunInfo, Failure> {
    let runtime = runtime(semantics(model, adapter), model, adapter)?;
    let prompt_tokens = model.tokenizer.encode(prompt).during("reading the prompt")?;
    let context = model.int.semantics.shape.context;
    if prompt_tokens.len() >= context {
        let message = format!("no room for an answer: the prompt has {} tokens, the context {context}", prompt_tokens.len());
        return Err(Failure::input(message).hint("shorten the prompt, or import the model with a larger --context"));
    }
    let mut answer = runtime.generate(&prompt_tokens, max_new, model.tokenizer.stops().iter().copied()).during("answering")?;
    model.tokenizer.without_end(&mut answer, 1);
    if answer.is_empty() {
        return Err(Failure::input("the model's answer is empty").hint("try another prompt"));
    }
    let mut tokens = prompt_tokens.clone();
    tokens.extend(&answer);
    Ok(RunInfo {
        prompt: prompt.to_owned(),
        answer: model.tokenizer.answer(&answer),
        prompt_len: prompt_tokens.len(),
        tokens,
        request_id,
        prompt_salt: None,
        model: paths.0.to_owned(),
        adapter: paths.1.map(Path::to_owned),
        made_with: fingerprint(model, adapter),
    })
}

/// A random request id.
pub fn random_id() -> Result<Digest, Failure> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| Failure::input(format!("no randomness: {e}")))?;
    Ok(Digest(bytes).truncated())
}

/// What slots span: with an adapter runs are traced for attribution.
pub fn span_of(semantics: &Semantics) -> Span {
    if semantics.lora.is_some() { Span::Exchange } else { Span::Answer }
}

/// Padded sizes that fit all runs.
pub fn common_dims(semantics: &Semantics, span: Span, runs: &[RunInfo]) -> Dims {
    let tokens = runs.iter().map(|r| r.tokens.len()).max().unwrap_or(1).max(8);
    let slots = runs.iter().map(|r| r.tokens.len() - 1 - span.first(r.prompt_len)).max().unwrap_or(1);
    Dims::new(semantics, tokens, slots)
}

/// Executes tokens with every tensor kept.
pub fn trace(runtime: &Runtime, tokens: &[u32], prompt_len: usize, span: Span, dims: Dims) -> Result<Trace, Failure> {
    runtime.run(tokens, prompt_len, dims, Mode::Greedy, Keep::All, span).during("executing the run")
}

/// Executes a run as its semantics suggest.
pub fn trace_run(runtime: &Runtime, run: &RunInfo, dims: Dims) -> Result<Trace, Failure> {
    trace(runtime, &run.tokens, run.prompt_len, span_of(runtime.semantics()), dims)
}

/// [`trace_run`] at its own sizes.
pub fn trace_alone(runtime: &Runtime, run: &RunInfo) -> Result<Trace, Failure> {
    let semantics = runtime.semantics();
    trace_run(runtime, run, common_dims(semantics, span_of(semantics), std::slice::from_ref(run)))
}

/// Attributes a traced run; adds its tensors to the trace.
pub fn attribute(index: &IndexDir, trace: &mut Trace) -> Result<Attribution, Failure> {
    let sketch = sketch(&index.index.semantics, trace).during("sketching the answer")?;
    let attribution = attribute_run(&index.index, &sketch, &index.contributor_of_rows(), None).during("scoring")?;
    trace.tensors.extend(sketch);
    trace.tensors.extend(attribution.tensors.clone());
    Ok(attribution)
}

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
    /// Traced requests with their ids.
    pub requests: Vec<(Trace, Digest)>,
    /// Whether the statement shows digests instead of tokens.
    pub private_tokens: bool,
    /// Salts of the prompts' digests, a payer's or random ones; for hidden tokens.
    pub prompt_salts: Vec<Option<Digest>>,
    /// Where commitments are kept.
    pub shelves: Shelves<'a>,
}

/// Commits an imported model, a trained adapter or an index, and keeps the commitment for the proofs to come.
pub fn commit(group: Group, semantics: &Semantics, index: Option<&IndexDir>, tensors: &TensorMap, shelves: Shelves<'_>) -> Result<Digest, Failure> {
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
    warn_if_too_large("the commitment", encoded_bytes::<Native>(group, layout.log));
    Ok(shelves.commit::<Native>(&relation, group, layout, values)?.digest())
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

/// Proves a job.
pub fn prove<C: NativeProfile>(job: Job<'_>) -> Result<Proven, Failure> {
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
    warn_if_too_large("this proof", prover::prove::memory::<C>(&relation));
    let mut spinner = Spinner::new();
    let mut stages = Stages::new(&mut spinner);
    let witness = stages.run("assemble", || assemble(&job, &relation))?;
    let fixed = stages.run("commit model", || commit_fixed::<C>(&relation, &witness, job.shelves))?;
    let openings = openings(&job)?;
    let statement = statement::<C>(&job, &relation, &witness, &fixed, &openings);
    match job.weight_ranges {
        WeightRanges::Proven => statement.check(),
        WeightRanges::AssumedInsecure => statement.check_benchmark(),
    }
    .during("the statement to prove")?;
    let inputs = Inputs { statement: &statement, relation: &relation, tokens: openings, fixed: fixed.iter().collect() };
    let proof = prove_statement(inputs, witness, &mut stages).during("proving")?;
    let bytes = proof.to_bytes();
    let (lookups, committed_elements) = prover::prove::size(&relation);
    let stages = stages.list;
    let (seconds, cpu_seconds) = meter.read();
    let figures = ProofFigures {
        seconds,
        cpu_seconds,
        peak_rss_mb: meter::peak_rss_mb(),
        committed_elements,
        lookups,
        proof_bytes: bytes.len(),
        security_bits,
        stages,
    };
    Ok(Proven { statement, bytes, figures })
}

/// Says when something may need more memory than there is.
fn warn_if_too_large(what: &str, bytes: usize) {
    let needed = bytes as f64 / f64::from(1 << 30);
    if let Some(available) = meter::available_gb().filter(|&available| needed > available) {
        say(format!(
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

fn commit_fixed<C: NativeProfile>(relation: &Relation, witness: &Witness, shelves: Shelves<'_>) -> Result<Vec<Committed<C>>, Failure> {
    let groups = [Group::Base, Group::Adapter, Group::Index, Group::Tables];
    groups
        .into_iter()
        .filter_map(|g| Some((g, Layout::of(relation, g)?)))
        .map(|(g, layout)| {
            let values = stack(&layout, |id| &witness.tensors[id.0]);
            shelves.commit(relation, g, layout, values)
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
        requests: requests.collect(),
        index,
    }
}
