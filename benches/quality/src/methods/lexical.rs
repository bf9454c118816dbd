//! What needs no gradient: BM25 over words, and cosines of hidden states.

use super::Method;
use crate::Failure;
use crate::gradient::{dot, to_unit};
use crate::stage::{Query, Stage};
use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};
use model_runtime::train::pass::{Batch, Pass};

/// The model's own tokens as words.
pub(super) struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }
}

/// BM25 (crate `bm25`, `k1` 1.2, `b` 0.75) of prompt and answer against every sample.
pub(super) struct Bm25<'a> {
    stage: &'a Stage,
    embedder: Embedder<u32, Words>,
    scorer: Scorer<usize, u32>,
}

/// Token ids as words, begin and end left out.
fn words(stage: &Stage, tokens: &[u32]) -> String {
    let special = [stage.tokenizer.bos(), stage.tokenizer.eos()];
    tokens.iter().filter(|id| !special.contains(id)).map(|id| format!("{id} ")).collect()
}

impl<'a> Bm25<'a> {
    pub(super) fn new(stage: &'a Stage) -> Self {
        let texts: Vec<String> = stage.samples.iter().map(|tokens| words(stage, tokens)).collect();
        let corpus: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embedder: Embedder<u32, Words> = EmbedderBuilder::with_tokenizer_and_fit_to_corpus(Words, &corpus).build();
        let mut scorer = Scorer::new();
        corpus.iter().enumerate().for_each(|(i, text)| scorer.upsert(&i, embedder.embed(text)));
        Self { stage, embedder, scorer }
    }
}

impl Method for Bm25<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = self.embedder.embed(&words(self.stage, &query.tokens));
        Ok((0..self.stage.samples.len()).map(|i| f64::from(self.scorer.score(&i, &query).unwrap_or(0.0))).collect())
    }
}

/// Cosine of mean hidden states after the last layer.
pub(super) struct Hidden<'a> {
    stage: &'a Stage,
    rows: Vec<Vec<f32>>,
}

fn mean_state(stage: &Stage, tokens: &[u32]) -> Result<Vec<f32>, Failure> {
    let run = Pass::new(&stage.model).forward(Some(&stage.adapter), &Batch::new([tokens]))?;
    let mut mean = vec![0.0; stage.model.shape.width];
    run.last.normal.chunks_exact(mean.len()).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += x));
    to_unit(&mut mean);
    Ok(mean)
}

impl<'a> Hidden<'a> {
    pub(super) fn new(stage: &'a Stage) -> Result<Self, Failure> {
        let rows = stage.samples.iter().map(|tokens| mean_state(stage, tokens)).collect::<Result<_, _>>()?;
        Ok(Self { stage, rows })
    }
}

impl Method for Hidden<'_> {
    fn scores(&self, query: &Query, _: usize) -> Result<Vec<f64>, Failure> {
        let query = mean_state(self.stage, &query.tokens)?;
        Ok(self.rows.iter().map(|row| dot(row, &query)).collect())
    }
}
