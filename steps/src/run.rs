//! A prompt is answered, the run traced, and what bears on the answer scored.

use crate::error::{Failure, While};
use crate::store::{AdapterDir, IndexDir, ModelDir, RunInfo};
use circuits::statement::{Digest, keccak};
use model_runtime::int::attribute::{Attribution, attribute as attribute_run};
use model_runtime::int::sketch::sketch;
use model_runtime::int::trace::{Keep, Span};
use model_runtime::int::{Mode, Runtime, Trace};
use model_runtime::semantics::{Dims, Semantics};
use model_runtime::tensor::{Tensor, TensorMap};
use std::path::Path;

/// The integer model, ready to run.
pub fn runtime(semantics: &Semantics, model: &ModelDir, adapter: Option<&AdapterDir>) -> Result<Runtime, Failure> {
    Runtime::new(semantics.clone(), &model.int.tensors, adapter.map(|a| &a.int.tensors)).during("loading the integer model")
}

/// Semantics of a model with or without its adapter.
pub fn semantics<'a>(model: &'a ModelDir, adapter: Option<&'a AdapterDir>) -> &'a Semantics {
    adapter.map_or(&model.int.semantics, |a| &a.int.semantics)
}

/// A base's part of the fingerprints of models made with it.
pub struct BaseFingerprint(Vec<u8>);

fn tensor_digests(tensors: &TensorMap) -> Vec<u8> {
    let of_tensor = |(name, tensor): (&String, &Tensor)| {
        let data: Vec<u8> = tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        [keccak(name.as_bytes()).0, keccak(&data).0].concat()
    };
    tensors.iter().flat_map(of_tensor).collect()
}

impl BaseFingerprint {
    /// Of a base.
    pub fn of(model: &ModelDir) -> Self {
        Self(tensor_digests(&model.int.tensors))
    }

    /// Of the base with an adapter, or alone.
    pub fn with(&self, model: &ModelDir, adapter: Option<&AdapterDir>) -> Digest {
        let mut parts = self.0.clone();
        parts.extend(adapter.iter().flat_map(|a| tensor_digests(&a.int.tensors)));
        parts.extend(serde_json::to_vec(semantics(model, adapter)).unwrap_or_default());
        keccak(&parts)
    }
}

/// Tells apart models and adapters, so that a run or an index isn't used with others than it was made with. Nothing is proven about it.
pub fn fingerprint(model: &ModelDir, adapter: Option<&AdapterDir>) -> Digest {
    BaseFingerprint::of(model).with(model, adapter)
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

/// A run with everything it was made with.
pub struct Loaded {
    /// The run.
    pub info: RunInfo,
    /// Its trace, as stored.
    pub trace: Trace,
    /// Its model.
    pub model: ModelDir,
    /// Its adapter.
    pub adapter: Option<AdapterDir>,
}

impl Loaded {
    /// Loads a run, its model and its adapter.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        let info = RunInfo::load(dir)?;
        let moved = |f: Failure| f.hint("the run remembers where its model and adapter were; put them back or run `poa infer` again");
        let model = ModelDir::load(&info.model).map_err(moved)?;
        let adapter = info.adapter.as_ref().map(|a| AdapterDir::load(a, &model)).transpose().map_err(moved)?;
        if fingerprint(&model, adapter.as_ref()) != info.made_with {
            let message = format!("the model or adapter of {} has changed since the run was made", dir.display());
            return Err(Failure::input(message).hint("run `poa infer` again"));
        }
        let semantics = semantics(&model, adapter.as_ref());
        let dims = common_dims(semantics, span_of(semantics), std::slice::from_ref(&info));
        let trace = Trace { dims, tensors: RunInfo::trace(dir)?, tokens: info.tokens.clone(), prompt_len: info.prompt_len };
        Ok(Self { info, trace, model, adapter })
    }

    /// Refuses an index that was made with another model or adapter than the run.
    pub fn check_index(&self, index: &IndexDir) -> Result<(), Failure> {
        if self.info.adapter.is_none() {
            return Err(Failure::input("the run was made without an adapter, so nothing can be attributed")
                .hint("answer the prompt again with `poa infer --adapter DIR`"));
        }
        if index.info.made_with != self.info.made_with {
            let (model, adapter) = (index.info.model.display(), index.info.adapter.display());
            let message = format!("the index was made with another model or adapter than the run: with {model} and {adapter}, as they were then");
            return Err(
                Failure::input(message).hint("make the index again with `poa index`, or the run with `poa infer`, for the same model and adapter")
            );
        }
        Ok(())
    }
}
