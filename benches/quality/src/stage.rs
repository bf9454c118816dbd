//! A bank with the adapter trained on it: what every method sees.

use crate::Failure;
use crate::bank::{Bank, Question};
use model_runtime::import::{ImportOptions, load_model};
use model_runtime::shape::{FloatAdapter, FloatModel};
use model_runtime::text::Tokenizer;
use model_runtime::text::duplicates::{Canonical, canonical_rows};
use model_runtime::train::pass::{Pass, softmax};
use model_runtime::train::{HoldOut, LoraConfig, Net, best_epoch, held_out_curve, pack, train_lora};

/// A question as tokens.
#[derive(Clone, Debug)]
pub struct Query {
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Whether the answer starts with the word expected.
    pub answered: bool,
}

/// Tokens that hold a word.
const WORD_TOKENS: usize = 8;

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// What a query's answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// What the trained model says, as long as the bank's answers are.
    Generated,
    /// The word expected, whatever the model says.
    Expected,
}

/// Model, adapter and texts.
pub struct Stage {
    /// The bank.
    pub bank: Bank,
    /// The base model.
    pub model: FloatModel,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The adapter trained on all samples.
    pub adapter: FloatAdapter,
    /// How it was trained.
    pub config: LoraConfig,
    /// The samples' tokens.
    pub samples: Vec<Vec<u32>>,
    /// Which samples copy no earlier one.
    pub earns: Vec<bool>,
    /// What the queries' answers are.
    pub answers: Answers,
    /// One a question.
    pub queries: Vec<Query>,
}

impl Stage {
    /// Trains as `poa train` does, the number of epochs chosen by held-out samples unless it is given.
    pub fn new(bank: Bank, train_seed: u64, epochs: Option<usize>, answers: Answers) -> Result<Self, Failure> {
        let context = bank.base.context;
        let model = load_model(&bank.base.directory, &ImportOptions { context: Some(context) })?;
        let tokenizer = Tokenizer::load(&bank.base.directory)?;
        let samples = bank.datanet.samples.iter().map(|s| tokenizer.encode_sample(&s.text, context)).collect::<Result<Vec<_>, _>>()?;
        let earns = canonical_rows(bank.datanet.canonical(), &samples).into_iter().map(Canonical::is_first).collect();
        let mut config = LoraConfig::ordinary(context, train_seed);
        config.schedule.epochs = match epochs.or(bank.epochs) {
            Some(epochs) => epochs,
            None => best_epoch(&held_out_curve(&model, &samples, &config, &HoldOut::default(), |_| true)?),
        };
        let adapter = train_lora(&model, &samples, &config, |_| true)?;
        let mut stage = Self { bank, model, tokenizer, adapter, config, samples, earns, answers, queries: Vec::new() };
        stage.queries = stage.ask()?;
        Ok(stage)
    }

    fn ask(&self) -> Result<Vec<Query>, Failure> {
        let net = Net::new(&self.model, Some(&self.adapter))?;
        let ask = |question: &Question| {
            let mut tokens = self.tokenizer.encode(&question.prompt)?;
            let prompt_len = tokens.len();
            // The first word said, however many tokens it is.
            let said = self.tokenizer.decode(&net.greedy(&tokens, WORD_TOKENS, self.tokenizer.eos())?);
            let answered = said.split_whitespace().next().is_some_and(|word| bare(word) == bare(&question.answer));
            match self.answers {
                Answers::Generated => tokens.extend(net.greedy(&tokens, self.bank.answer_tokens, self.tokenizer.eos())?),
                Answers::Expected => tokens = self.tokenizer.encode(&format!("{} {}", question.prompt, question.answer))?,
            }
            Ok(Query { tokens, prompt_len, answered })
        };
        self.bank.questions.iter().map(ask).collect()
    }

    /// Contributors in order of first appearance, and each sample's.
    pub fn contributors(&self) -> (Vec<&str>, Vec<usize>) {
        let names = self.bank.datanet.contributors();
        let number = |s: &model_runtime::text::Sample| names.iter().position(|n| *n == s.contributor).unwrap_or(0);
        let rows = self.bank.datanet.samples.iter().map(number).collect();
        (names, rows)
    }

    /// `log p` of every query's expected answer under an adapter.
    pub fn log_probabilities(&self, adapter: &FloatAdapter) -> Result<Vec<f64>, Failure> {
        let pass = Pass::new(&self.model);
        let vocab = self.model.shape.vocab;
        let score = |question: &Question| {
            let prompt_len = self.tokenizer.encode(&question.prompt)?.len();
            let tokens = self.tokenizer.encode(&format!("{} {}", question.prompt, question.answer))?;
            let (batch, targets) = pack([&tokens[..]]);
            let mut logits = pass.logits(&pass.forward(Some(adapter), &batch)?);
            let rows = logits.chunks_exact_mut(vocab).zip(&targets).skip(prompt_len - 1);
            Ok(rows.map(|(z, &target)| f64::from(z[target as usize]) - f64::from(softmax(z))).sum())
        };
        self.bank.questions.iter().map(score).collect()
    }
}
