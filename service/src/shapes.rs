//! Shapes of JSON that routes read or put together by hand, for the API's description.

// Nothing is made of them: they say what is in the description, which a test compares with what is answered.
#![allow(dead_code)]

use crate::catalog::Generation;
use crate::datanets::{Datanet, Submission, Version};
use crate::jobs::Job;
use crate::keys::Scope;
use crate::requests::Request;
use crate::trainings::{Settings, Training};
use crate::uploads::Report;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a caller is told when it doesn't work.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

/// OpenAI's error, with a hint.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorDetail {
    /// What happened.
    message: String,
    /// `invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error` or `server_error`.
    r#type: String,
    /// Which parameter is to blame.
    #[schema(required = true)]
    param: Option<String>,
    /// A word for programs.
    code: String,
    /// What to do.
    #[schema(required = true)]
    hint: Option<String>,
}

/// A list.
#[derive(Serialize, ToSchema)]
pub struct List<T> {
    /// `list`.
    object: String,
    /// What is in it.
    data: Vec<T>,
}

/// A model that answers.
#[derive(Serialize, ToSchema)]
pub struct Model {
    /// `base` or `base+adapter`.
    id: String,
    /// `model`.
    object: String,
    created: i64,
    owned_by: String,
    generation: Generation,
    /// Most tokens of prompt and answer.
    context: usize,
    /// What it takes in memory beside its base.
    bytes: u64,
}

/// A prompt to go on with. Parameters of OpenAI's that aren't named here are refused unless they say what is done anyway.
#[derive(Deserialize, ToSchema)]
pub struct CompletionCall {
    /// `base` or `base+adapter`.
    model: String,
    prompt: String,
    #[serde(flatten)]
    rest: CallRest,
}

/// A chat to answer. Parameters of OpenAI's that aren't named here are refused unless they say what is done anyway.
#[derive(Deserialize, ToSchema)]
pub struct ChatCall {
    /// `base` or `base+adapter`.
    model: String,
    #[schema(min_items = 1)]
    messages: Vec<ChatMessage>,
    /// As `max_tokens`.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u64>,
    #[serde(flatten)]
    rest: CallRest,
}

/// What both have.
#[derive(Deserialize, ToSchema)]
pub struct CallRest {
    /// Most tokens of the answer.
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    /// Up to four texts that end the answer.
    stop: Option<Stop>,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// 0: answers are greedy, so that they can be proven.
    #[schema(minimum = 0, maximum = 0)]
    temperature: Option<f64>,
}

/// One text or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Stop {
    One(String),
    Several(Vec<String>),
}

/// What a stream has beside the answer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether it ends with counts.
    include_usage: Option<bool>,
}

/// A message of a chat.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    role: ChatRole,
    content: Content,
}

/// Who says it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
}

/// A text, or its parts.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a text.
#[derive(Deserialize, ToSchema)]
pub struct Part {
    r#type: PartType,
    text: String,
}

/// Only texts are read.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartType {
    Text,
}

/// Tokens of an answer.
#[derive(Serialize, ToSchema)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokens,
}

/// Tokens of a prompt.
#[derive(Serialize, ToSchema)]
pub struct PromptTokens {
    /// How many needn't be read, since an earlier prompt of this key's began with them.
    cached_tokens: usize,
}

/// What to ask for attribution and proof with, and which commitments answered.
#[derive(Serialize, ToSchema)]
pub struct Ours {
    /// The request's id.
    request: String,
    generation: Generation,
}

/// A completion.
#[derive(Serialize, ToSchema)]
pub struct Completion {
    id: String,
    object: String,
    created: i64,
    model: String,
    choices: Vec<TextChoice>,
    usage: Usage,
    poa: Ours,
}

/// Its text.
#[derive(Serialize, ToSchema)]
pub struct TextChoice {
    index: u32,
    text: String,
    #[schema(value_type = Option<Value>)]
    logprobs: (),
    /// `stop` or `length`.
    finish_reason: String,
}

/// A chat's answer.
#[derive(Serialize, ToSchema)]
pub struct ChatCompletion {
    id: String,
    object: String,
    created: i64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
    poa: Ours,
}

/// Its message.
#[derive(Serialize, ToSchema)]
pub struct ChatChoice {
    index: u32,
    message: ChatAnswer,
    #[schema(value_type = Option<Value>)]
    logprobs: (),
    /// `stop` or `length`.
    finish_reason: String,
}

/// What is said.
#[derive(Serialize, ToSchema)]
pub struct ChatAnswer {
    /// `assistant`.
    role: String,
    content: String,
    refusal: Option<String>,
}

/// An answered request with its proof, if one was asked for.
#[derive(Serialize, ToSchema)]
pub struct KeptRequest {
    #[serde(flatten)]
    request: Request,
    proof: Option<Job>,
}

/// A proof that is made or being made.
#[derive(Serialize, ToSchema)]
pub struct ProofJob {
    #[serde(flatten)]
    job: Job,
    /// Where proof and statement are, once it's done.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<String>>,
}

/// Shares of a model's answers, in basis points; what isn't named stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPolicy {
    /// Proven.
    #[schema(maximum = 10_000)]
    proof_bps: Option<u32>,
    /// Paid for.
    #[schema(maximum = 10_000)]
    settlement_bps: Option<u32>,
}

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// A contributor's is the name that their samples are under.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `user` if not said.
    scope: Option<Scope>,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
pub struct MadeKey {
    /// The key itself, shown this once.
    key: String,
    name: String,
    scope: Scope,
}

/// A model of vLLM's calls.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraName {
    /// `base+adapter`.
    lora_name: String,
}

/// An endpoint to be told.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// With http or https.
    #[schema(min_length = 1, max_length = 2048)]
    url: String,
    /// All if not said.
    #[schema(min_items = 1)]
    events: Option<Vec<String>>,
}

/// A datanet to begin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDatanet {
    /// Lower-case letters, digits, and `-`, `_` or `.` between them.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// An SPDX expression.
    licence: String,
    /// Whether everyone with a key may read its texts.
    public: Option<bool>,
}

/// A datanet with what is in it.
#[derive(Serialize, ToSchema)]
pub struct WholeDatanet {
    #[serde(flatten)]
    datanet: Datanet,
    /// The owner's key's name.
    owner: String,
    versions: Vec<Version>,
    /// As far as the caller may see them.
    submissions: Vec<Submission>,
    models: Vec<TrainedModel>,
}

/// A model that was trained on a datanet.
#[derive(Serialize, ToSchema)]
pub struct TrainedModel {
    model: String,
    version: i64,
}

/// What becomes of a submission.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    decision: Verdict,
    /// Why, where it is rejected.
    #[schema(min_length = 1, max_length = 500)]
    reason: Option<String>,
}

/// One or the other.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Approve,
    Reject,
}

/// A submission, or what would be said of one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Submitted {
    Kept(Box<Submission>),
    Preview(Box<Report>),
}

/// A sample of a version.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleNumber {
    /// Its number, from 0.
    sample: u64,
}

/// A contributor's text.
#[derive(Serialize, ToSchema)]
#[schema(as = DatanetSample)]
pub struct Sample {
    contributor: String,
    text: String,
}

/// What is to be trained.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTraining {
    /// On which base.
    base: String,
    /// What the adapter will be called.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    datanet: String,
    version: i64,
    settings: Option<Settings>,
    /// Only the estimate.
    dry_run: Option<bool>,
}

/// What a training will take.
#[derive(Serialize, ToSchema)]
#[schema(as = TrainingEstimate)]
pub struct Estimate {
    seconds: Seconds,
    memory_bytes: u64,
}

/// On this machine as it is now.
#[derive(Serialize, ToSchema)]
pub struct Seconds {
    least: f64,
    most: f64,
}

/// An estimate alone.
#[derive(Serialize, ToSchema)]
pub struct Estimated {
    estimate: Estimate,
}

/// A training with its epochs.
#[derive(Serialize, ToSchema)]
pub struct WholeTraining {
    #[serde(flatten)]
    training: Training,
    /// `base+name`.
    model: String,
    epochs: Vec<Epoch>,
}

/// A training that was just ordered.
#[derive(Serialize, ToSchema)]
pub struct OrderedTraining {
    #[serde(flatten)]
    training: WholeTraining,
    estimate: Estimate,
}

/// A pass over the samples.
#[derive(Serialize, ToSchema)]
#[schema(as = TrainingEpoch)]
pub struct Epoch {
    /// `choosing` or `last`.
    phase: String,
    epoch: u64,
    /// Mean loss.
    trained: Option<f64>,
    /// Of held-out samples.
    held_out: Option<f64>,
}
