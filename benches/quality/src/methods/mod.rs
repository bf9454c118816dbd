//! Methods of attribution behind one trait: a score for every sample, query by query.

mod gradients;
pub mod integer;
mod lexical;
mod second_order;
pub mod sketched;

use crate::Failure;
use crate::gradient::{Gradient, Groups, Seed, of_samples};
use crate::stage::{Query, Stage};
use model_runtime::train::SplitMix64;
use sketched::{Sketch, Sketched};

/// A method, made for one stage.
pub trait Method {
    /// A score for every sample; larger is more influential.
    fn scores(&self, query: &Query, number: usize) -> Result<Vec<f64>, Failure>;

    /// What is paid: by default what exceeds half the best score, for every method alike.
    fn relevance(&self, scores: &[f64]) -> Vec<f64> {
        let floor = scores.iter().copied().fold(0.0, f64::max) / 2.0;
        scores.iter().map(|s| (s - floor).max(0.0)).collect()
    }

    /// Prompt and answer that are scored; only integer methods have an answer of their own.
    fn tokens(&self, query: &Query) -> Result<Vec<u32>, Failure> {
        Ok(query.tokens.clone())
    }
}

/// The methods, in the order of the tables.
pub const NAMES: [&str; 15] = [
    "r-integer",
    "r",
    "r-64",
    "r-mlp-32",
    "r-unprojected",
    "bm25",
    "hidden-cosine",
    "gradient-dot",
    "gradient-cosine",
    "datainf",
    "trackstar",
    "ekfac",
    "r-kronecker",
    "random",
    "oracle",
];

/// Gradients that several methods share.
pub struct Shared {
    groups: Groups,
    loss: Vec<Gradient>,
    unit: Vec<Gradient>,
}

impl Shared {
    /// Computes every sample's gradients, of the loss and of score R.
    pub fn new(stage: &Stage) -> Result<Self, Failure> {
        let groups = Groups::of(stage);
        Ok(Self { loss: of_samples(stage, &groups, Seed::Loss)?, unit: of_samples(stage, &groups, Seed::Unit)?, groups })
    }
}

/// The sketch of a named method: an index' default, and what it was weighed against.
pub fn sketch_named(name: &str) -> Result<Sketch, Failure> {
    match name {
        "r" => "r:o,gate,up:32",
        "r-64" => "r:o,gate,up:64",
        "r-mlp-32" => "r:gate,up,down:32",
        "r-unprojected" => "r:o,gate,up:0",
        other => other,
    }
    .parse()
}

/// Makes a method by name.
pub fn method<'a>(name: &str, stage: &'a Stage, shared: &'a Shared) -> Result<Box<dyn Method + 'a>, Failure> {
    Ok(match name {
        "r-integer" => Box::new(integer::Integer::new(stage)?),
        "r" | "r-64" | "r-mlp-32" | "r-unprojected" => Box::new(Sketched::new(stage, shared, sketch_named(name)?)),
        written if written.starts_with("r:") => Box::new(Sketched::new(stage, shared, written.parse()?)),
        "bm25" => Box::new(lexical::Bm25::new(stage)),
        "hidden-cosine" => Box::new(lexical::Hidden::new(stage)?),
        "gradient-dot" => Box::new(gradients::Plain::new(stage, shared, false)),
        "gradient-cosine" => Box::new(gradients::Plain::new(stage, shared, true)),
        "datainf" => Box::new(second_order::DataInf::new(stage, shared)),
        "trackstar" => Box::new(second_order::TrackStar::new(stage, shared)),
        "ekfac" => Box::new(second_order::EkFac::new(stage, shared, Seed::Loss)?),
        "r-kronecker" => Box::new(second_order::EkFac::new(stage, shared, Seed::Unit)?),
        "random" => Box::new(Random { samples: stage.samples.len() }),
        "oracle" => Box::new(Oracle { stage }),
        _ => return Err(format!("method `{name}`: expected one of {}, or r:SITES:ROWS[:SEED][:unit]", NAMES.join(", ")).into()),
    })
}

/// Uniform scores.
struct Random {
    samples: usize,
}

impl Method for Random {
    fn scores(&self, _: &Query, number: usize) -> Result<Vec<f64>, Failure> {
        let mut rng = SplitMix64::new(number as u64);
        Ok((0..self.samples).map(|_| rng.unit()).collect())
    }
}

/// One for the samples that state the fact.
struct Oracle<'a> {
    stage: &'a Stage,
}

impl Method for Oracle<'_> {
    fn scores(&self, _: &Query, number: usize) -> Result<Vec<f64>, Failure> {
        let stating = &self.stage.bank.questions[number].samples;
        Ok((0..self.stage.samples.len()).map(|i| if stating.contains(&i) { 1.0 } else { 0.0 }).collect())
    }
}
