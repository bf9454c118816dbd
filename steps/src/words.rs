//! Which words carry a score. For reading: the score is proven, its division among words isn't.
//!
//! `model_runtime::int::words` divides a score among tokens and says what a token's part is; here tokens become words and parts shares.

use crate::error::{Failure, While};
use crate::shares::earning;
use crate::store::IndexDir;
use model_runtime::int::words::{Divider, Division};
use model_runtime::int::{Attribution, Runtime, Trace};
use model_runtime::text::Tokenizer;
use model_runtime::text::words::{Word, words};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// A word and its share of a score. Shares of a text's words sum to one but for rounding; some may be negative.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordShare {
    /// The word; empty for tokens without a text (the beginning of a sequence).
    pub text: String,
    /// Its share.
    pub share: f64,
}

/// The words behind an attribution.
#[derive(Debug, Default)]
pub struct Because {
    /// Of samples, by row, in the order of their texts.
    pub samples: BTreeMap<usize, Vec<WordShare>>,
    /// Of the prompt: shares of what all samples that earn are relevant for.
    pub prompt: Vec<WordShare>,
    /// Of the answer, likewise.
    pub answer: Vec<WordShare>,
}

impl Because {
    /// The words behind the scores of the `most` best samples that earn; nothing where none does.
    pub fn of(
        runtime: &Runtime,
        tokenizer: &Tokenizer,
        index: &IndexDir,
        trace: &Trace,
        attribution: &Attribution,
        most: usize,
    ) -> Result<Self, Failure> {
        let rows = earning(attribution, index, most);
        if rows.is_empty() {
            return Ok(Self::default());
        }
        let divider = Divider::new(runtime, &index.index).during("dividing scores among words")?;
        let mut because = Self::default();
        for row in rows {
            let failed = || format!("dividing the score of row {row} among words");
            let mut tokens = tokenizer.encode_sample(&index.info.rows[row].text, index.info.max_tokens).during(failed())?;
            tokenizer.without_end(&mut tokens, 2);
            let division = divider.sample(row, &tokens, &trace.tensors).during(failed())?;
            because.samples.insert(row, shares(tokenizer, &tokens, 0..tokens.len(), &division, f64::from(attribution.scores[row])));
        }
        let division = divider.exchange(&trace.tokens, trace.prompt_len, &attribution.rel).during("dividing scores among the answer's words")?;
        let weighed = |(&rel, &score): (&i64, &i32)| rel as f64 * f64::from(score);
        let mean = attribution.rel.iter().zip(&attribution.scores).map(weighed).sum::<f64>() / attribution.rel.iter().sum::<i64>() as f64;
        let part = |range: Range<usize>| shares(tokenizer, &trace.tokens, range, &division, mean);
        (because.prompt, because.answer) = (part(0..trace.prompt_len), part(trace.prompt_len..trace.tokens.len()));
        Ok(because)
    }
}

/// Shares of the words of `tokens[range]`.
fn shares(tokenizer: &Tokenizer, tokens: &[u32], range: Range<usize>, division: &Division, score: f64) -> Vec<WordShare> {
    let parts = &division.of_tokens()[range.clone()];
    let share = |Word { tokens, text }: Word| {
        let share = parts[tokens].iter().sum::<f64>() / score;
        WordShare { text, share: (share * 1e4).round() / 1e4 }
    };
    words(tokenizer, &tokens[range]).into_iter().map(share).collect()
}
