//! Answered requests as they are kept.

use crate::answers::Answer;
use crate::catalog::{Generation, Served};
use crate::database::{Database, now};
use crate::error::ApiError;
use crate::idempotency::made;
use crate::keys::Caller;
use crate::policies;
use circuits::statement::Digest;
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::{Value, json};
use steps::run::random_id;
use steps::store::RunInfo;
use utoipa::ToSchema;

/// An answered request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Request {
    /// Its id, which its proof is tied to.
    pub id: String,
    /// Whose it is.
    #[serde(skip)]
    pub key: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// The model's name.
    pub model: String,
    /// What the model was.
    pub generation: Option<Generation>,
    /// The prompt.
    pub prompt: String,
    /// The answer.
    pub answer: String,
    /// Tokens of both.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// Scores and weights, once they were asked for.
    #[serde(skip)]
    pub attribution: Option<Value>,
}

fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    let text = |name: &str| row.get::<_, String>(name);
    let json = |name: &str| row.get::<_, Option<String>>(name);
    Ok(Request {
        id: text("id")?,
        key: row.get("key")?,
        created: row.get("created")?,
        model: text("model")?,
        generation: serde_json::from_str(&text("generation")?).ok(),
        prompt: text("prompt")?,
        answer: text("answer")?,
        tokens: serde_json::from_str(&text("tokens")?).unwrap_or_default(),
        prompt_len: row.get::<_, i64>("prompt_len")? as usize,
        finish_reason: text("finish_reason")?,
        attribution: json("attribution")?.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

/// Keeps an answer under a new id.
pub fn keep(database: &Database, caller: Caller, served: &Served, prompt: &str, answer: &Answer) -> Result<String, ApiError> {
    let id = random_id()?.to_string();
    let insert = "INSERT INTO requests (id, key, created, model, generation, prompt, answer, tokens, prompt_len, finish_reason) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let (generation, tokens) = (json!(served.generation).to_string(), json!(answer.tokens).to_string());
    let finish = answer.finish.name();
    let values = params![id, caller.key, now(), served.id, generation, prompt, answer.text, tokens, answer.prompt_len as i64, finish];
    database.write(|t| {
        t.execute(insert, values)?;
        policies::apply(t, &id, &served.id, served.index().is_some())?;
        made(t, caller, &format!("/v1/requests/{id}"))
    })?;
    Ok(id)
}

/// A request that a caller may see.
pub fn find(database: &Database, caller: Caller, id: &str) -> Result<Request, ApiError> {
    let found = database.read(|c| c.query_row("SELECT * FROM requests WHERE id = ?1", [id], request).optional())?;
    found.filter(|r| caller.sees(r.key)).ok_or_else(|| ApiError::not_found("request"))
}

/// Any request; for the worker.
pub fn any(database: &Database, id: &str) -> rusqlite::Result<Option<Request>> {
    database.read(|c| c.query_row("SELECT * FROM requests WHERE id = ?1", [id], request).optional())
}

/// A caller's newest requests.
pub fn newest(database: &Database, caller: Caller, most: usize) -> rusqlite::Result<Vec<Request>> {
    database.read(|c| {
        let mut query = c.prepare("SELECT * FROM requests WHERE key = ?1 ORDER BY created DESC, rowid DESC LIMIT ?2")?;
        query.query_map(params![caller.key, most as i64], request)?.collect()
    })
}

/// Keeps what was found to bear on an answer.
pub fn keep_attribution(database: &Database, id: &str, attribution: &Value) -> rusqlite::Result<()> {
    let update = "UPDATE requests SET attribution = ?2 WHERE id = ?1";
    database.write(|t| t.execute(update, params![id, attribution.to_string()])).map(|_| ())
}

impl Request {
    /// The run that it is, on the model that answered.
    ///
    /// # Errors
    ///
    /// When the model of that name is another by now.
    pub fn run(&self, served: &Served) -> Result<RunInfo, ApiError> {
        if self.generation.as_ref() != Some(&served.generation) {
            return Err(ApiError::conflict(format!("{} is another model now than the one that answered", self.model)));
        }
        let id: Digest = self.id.parse().map_err(|_| ApiError::not_found("request"))?;
        let (model, adapter) = served.paths();
        let answer = self.tokens.get(self.prompt_len..).unwrap_or_default();
        Ok(RunInfo {
            prompt: self.prompt.clone(),
            answer: served.model().tokenizer.answer(answer),
            tokens: self.tokens.clone(),
            prompt_len: self.prompt_len,
            request_id: id,
            prompt_salt: None,
            model: model.to_owned(),
            adapter: adapter.map(ToOwned::to_owned),
            made_with: served.fingerprint(),
        })
    }
}
