//! What bears on an answer, as JSON: computed once, then kept.

use crate::catalog::Served;
use crate::database::Database;
use crate::error::ApiError;
use crate::requests::{self, Request};
use serde::{Deserialize, Serialize};
use serde_json::json;
use steps::error::Failure;
use steps::run;
use steps::shares::{attribution_shares, ranked};
use steps::words::{Because, WordShare};
use utoipa::ToSchema;

/// Samples that are told.
const SAMPLES: usize = 10;
/// Samples whose words are told.
const WORDS: usize = 3;

/// What bears on an answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Attributed {
    /// The samples with the largest scores.
    pub samples: Vec<Sample>,
    /// Contributors' shares, largest first; none where nothing earns.
    pub weights: Vec<Share>,
    /// Shares of the answer's words in what is relevant.
    pub answer_words: Vec<Word>,
}

/// A sample.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Its number in the datanet.
    pub sample: usize,
    /// Whose it is.
    pub contributor: String,
    /// The proven score; 14,400 is a sample on itself.
    pub score: i32,
    /// What of it is paid for.
    pub relevance: i64,
    /// Its text, for those who may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The words that carry its score: for reading, not proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

/// A word and its share of a score.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Its share.
    pub share: f64,
}

/// A contributor's share.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// Who.
    pub contributor: String,
    /// Basis points.
    pub bps: u32,
}

impl Attributed {
    /// Without the samples' texts and words.
    pub fn without_texts(mut self) -> Self {
        for sample in &mut self.samples {
            (sample.text, sample.words) = (None, vec![]);
        }
        self
    }
}

fn words(shares: &[WordShare]) -> Vec<Word> {
    shares.iter().map(|w| Word { text: w.text.clone(), share: w.share }).collect()
}

fn compute(served: &Served, request: &Request) -> Result<Attributed, ApiError> {
    let Some(index) = served.index() else {
        return Err(ApiError::conflict(format!("{} has no index: nothing can be attributed", served.id)));
    };
    let info = request.run(served)?;
    let of = || -> Result<_, Failure> {
        let mut trace = run::trace_alone(served.runtime(), &info)?;
        let attribution = run::attribute(index, &mut trace)?;
        let because = Because::of(served.runtime(), &served.model().tokenizer, index, &trace, &attribution, WORDS)?;
        Ok((attribution, because))
    };
    let (attribution, because) = of()?;
    let rows = &index.info.rows;
    let sample = |(i, score): (usize, i32)| Sample {
        sample: index.info.sample_of_row.get(i).copied().unwrap_or(i),
        contributor: rows[i].contributor.clone(),
        score,
        relevance: attribution.rel[i],
        text: Some(rows[i].text.clone()),
        words: because.samples.get(&i).map(|shares| words(shares)).unwrap_or_default(),
    };
    let shares = attribution_shares(&attribution, index).into_iter().filter(|(_, bps)| *bps > 0);
    Ok(Attributed {
        samples: ranked(&attribution.scores, rows).into_iter().take(SAMPLES).map(sample).collect(),
        weights: shares.map(|(contributor, bps)| Share { contributor, bps }).collect(),
        answer_words: words(&because.answer),
    })
}

/// What bears on a request's answer.
///
/// # Errors
///
/// When the model has no index, or is another by now.
pub fn of(database: &Database, served: &Served, request: &Request) -> Result<Attributed, ApiError> {
    if let Some(kept) = request.attribution.clone().and_then(|value| serde_json::from_value(value).ok()) {
        return Ok(kept);
    }
    let attributed = compute(served, request)?;
    requests::keep_attribution(database, &request.id, &json!(attributed))?;
    Ok(attributed)
}
