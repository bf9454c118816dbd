//! Text: tokenizers (Hugging Face, SentencePiece, llama2.c) and datanets.

mod datanet;
pub mod duplicates;
mod llama2c;
mod pieces;
mod sentencepiece;
mod special;
mod tokenizer;
mod windows;
pub mod words;

pub use datanet::{Datanet, Notes, Sample, Skipped, Why, lookalikes};
pub use tokenizer::{Tokenizer, TokenizerKind};
pub use windows::{Cut, split};

use std::path::Path;

/// A tokenizer or datanet that can't be read, or a text that can't be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A directory without a tokenizer, or a file that isn't one.
    #[error("{path}: expected tokenizer.json, a SentencePiece `.model` or a llama2.c `tok*.bin`")]
    NoTokenizer {
        /// What was given.
        path: String,
    },
    /// Bytes that aren't a tokenizer of this kind.
    #[error("not a valid {kind} tokenizer: {reason}")]
    Tokenizer {
        /// The kind.
        kind: TokenizerKind,
        /// What is wrong.
        reason: String,
    },
    /// A special token that no file names.
    #[error("the tokenizer names no {which} token (looked in {looked_in})")]
    NoSpecial {
        /// BOS or EOS.
        which: &'static str,
        /// Files and token names tried.
        looked_in: String,
    },
    /// A git-lfs pointer where the file itself should be.
    #[error("{path}: a git-lfs pointer, not the file it stands for; fetch it with `git lfs pull`, or download the file itself")]
    LfsPointer {
        /// The file.
        path: String,
    },
    /// A setting that isn't followed.
    #[error("{file}: `{field}`: expected {expected}, found {found}")]
    Setting {
        /// The file.
        file: &'static str,
        /// The field.
        field: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A model's configuration that can't be read.
    #[error(transparent)]
    Model(#[from] crate::import::ImportError),
    /// A tokenizer that isn't the model's.
    #[error("the tokenizer has {size} tokens, the model {vocabulary}: its token {id}, `{token}`, is beyond them; give the model's own tokenizer")]
    Vocabulary {
        /// The tokenizer's tokens.
        size: usize,
        /// The model's.
        vocabulary: usize,
        /// The first that text may need.
        id: u32,
        /// Its spelling.
        token: String,
    },
    /// A text that spells a token which the model doesn't have.
    #[error("the text has the token `{token}` (id {id}), which is beyond the model's vocabulary of {vocabulary}: take it out")]
    Beyond {
        /// Its spelling.
        token: String,
        /// Its id.
        id: u32,
        /// The model's vocabulary.
        vocabulary: usize,
    },
    /// A text that the tokenizer refuses.
    #[error("the text can't be encoded: {reason}")]
    Encode {
        /// The tokenizer's reason.
        reason: String,
    },
    /// A datanet that is neither JSON lines, CSV nor a folder.
    #[error("{path}: expected a `.jsonl` file, a `.csv` file or a folder of text files (of a `.parquet` file `poa datanet convert` makes the first)")]
    UnknownDatanet {
        /// What was given.
        path: String,
    },
    /// A sample that can't be read.
    #[error("{path}, line {line}: expected {expected}, found {found}")]
    Sample {
        /// The file.
        path: String,
        /// Line, from 1.
        line: u64,
        /// What a sample needs.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A datanet without samples.
    #[error("{path}: expected at least one sample, found none{notes}")]
    EmptyDatanet {
        /// The file or folder.
        path: String,
        /// What reading left out, each remark after a semicolon.
        notes: String,
    },
    /// An entry of a folder that can't be read.
    #[error("{path}: expected {expected}, found {found}")]
    Entry {
        /// The entry.
        path: String,
        /// What can be read.
        expected: String,
        /// What there is.
        found: String,
    },
}

impl TextError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}
