//! Which words carry a score. For reading: the score is proven, its division among words isn't.
//!
//! `model_runtime::int::words` divides a score among tokens and says what a token's part is; here tokens become words and parts shares.

use crate::error::{Failure, While};
use crate::show::{earning, shortened};
use crate::store::IndexDir;
use model_runtime::int::words::{Divider, Division};
use model_runtime::int::{Attribution, Runtime, Trace};
use model_runtime::text::Tokenizer;
use model_runtime::text::words::{Word, words};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// The least share that a readable line names, and how many words it names.
const LEAST_SHARE: f64 = 0.05;
const MOST_WORDS: usize = 4;

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

    /// A line that names the words of a row's sample which carry most of its score.
    pub fn line(&self, row: usize) -> Option<String> {
        self.samples.get(&row).map(|words| named(words.iter().map(|w| (w, ""))))
    }

    /// The same of prompt and answer together.
    pub fn exchange_line(&self) -> Option<String> {
        let both = self.prompt.iter().map(|w| (w, " (prompt)")).chain(self.answer.iter().map(|w| (w, " (answer)")));
        (!self.answer.is_empty()).then(|| named(both))
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

/// The largest shares; a word that occurs several times has one.
fn named<'a>(words: impl Iterator<Item = (&'a WordShare, &'a str)>) -> String {
    let mut sums: Vec<(&str, &str, f64)> = Vec::new();
    for (word, part) in words {
        match sums.iter_mut().find(|(text, of, _)| (*text, *of) == (&word.text, part)) {
            Some((.., share)) => *share += word.share,
            None => sums.push((&word.text, part, word.share)),
        }
    }
    sums.retain(|(.., share)| *share >= LEAST_SHARE);
    sums.sort_by(|a, b| b.2.total_cmp(&a.2));
    let name = |&(text, part, share): &(&str, &str, f64)| {
        let text = match text {
            "" => "(start)".to_owned(),
            mark if !mark.chars().any(char::is_alphanumeric) => format!("\"{}\"", shortened(mark, 30)),
            word => shortened(word, 30),
        };
        format!("{text}{part} {:.0} %", 100.0 * share)
    };
    if sums.is_empty() { "no word above the others".to_owned() } else { sums.iter().take(MOST_WORDS).map(name).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, share: f64) -> WordShare {
        WordShare { text: text.to_owned(), share }
    }

    #[test]
    fn the_largest_shares_are_named_and_nothing_in_them_acts_on_a_terminal() {
        let words = [
            word("", 0.06),
            word("Skarn", 0.2),
            word("of", 0.01),
            word("Ottar", 0.5),
            word("Skarn", 0.1),
            word("no\u{1b}[2A\n", 0.07),
            word(".", -0.2),
        ];
        let because = Because {
            samples: [(3, words.to_vec()), (4, vec![])].into(),
            prompt: vec![word("Skarn", 0.25)],
            answer: vec![word("Ottar", 0.45), word(".", 0.3)],
        };
        assert_eq!(because.line(3).as_deref(), Some("Ottar 50 %, Skarn 30 %, no\\u001b[2A 7 %, (start) 6 %"));
        assert_eq!(because.line(4).as_deref(), Some("no word above the others"));
        assert_eq!(because.line(5), None);
        assert_eq!(because.exchange_line().as_deref(), Some("Ottar (answer) 45 %, \".\" (answer) 30 %, Skarn (prompt) 25 %"));
        assert_eq!(Because::default().exchange_line(), None);
    }
}
