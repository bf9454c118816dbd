//! What can be wrong with a model or adapter on disk.

use std::path::Path;

/// A model or adapter that can't be imported, or couldn't be written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A git-lfs pointer where the file itself should be.
    #[error("{path}: a git-lfs pointer, not the file it stands for; fetch it with `git lfs pull`, or download the file itself")]
    LfsPointer {
        /// The file.
        path: String,
    },
    /// Neither a directory nor a `.bin` file.
    #[error("{path}: expected a Hugging Face model directory or a llama2.c `.bin` file")]
    UnknownFormat {
        /// What was given.
        path: String,
    },
    /// A JSON file that doesn't parse.
    #[error("{path}: not valid JSON: {reason}")]
    Json {
        /// The file.
        path: String,
        /// The parser's reason.
        reason: String,
    },
    /// A configuration field with a value that can't be used.
    #[error("`{field}`: expected {expected}, found {found}")]
    Config {
        /// Name of the field.
        field: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A model or adapter that uses something this project doesn't execute.
    #[error("unsupported {feature}: expected {expected}, found {found}")]
    Unsupported {
        /// The feature's name.
        feature: String,
        /// What is supported.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A weights file that isn't in the safetensors format.
    #[error("{path}: not a valid safetensors file: {reason}")]
    Safetensors {
        /// The file.
        path: String,
        /// The parser's reason.
        reason: String,
    },
    /// A tensor that isn't there.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// Two shards that hold different values under one name.
    #[error("tensor `{name}` differs between {first} and {second}: expected one value; keep the shards of one checkpoint only")]
    ShardsDisagree {
        /// The tensor.
        name: String,
        /// The shard read first.
        first: String,
        /// The shard that disagrees.
        second: String,
    },
    /// A directory whose weights are in another format.
    #[error("{path}: expected weights in safetensors files, found {found}; save them again with `save_pretrained(..., safe_serialization=True)`")]
    OtherWeights {
        /// The directory.
        path: String,
        /// The file in the other format.
        found: String,
    },
    /// A tensor that a Llama model doesn't have.
    #[error("tensor `{name}` is unexpected: the supported architecture has no such tensor")]
    UnexpectedTensor {
        /// Its name.
        name: String,
    },
    /// A tensor with the wrong shape.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape the configuration asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor with an element type that isn't read.
    #[error("tensor `{name}`: expected F32, F16 or BF16, found {found}")]
    Dtype {
        /// Its name.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A NaN or an infinity among the weights.
    #[error("tensor `{name}`: element {index} is {value}, expected a finite number")]
    NotFinite {
        /// Its name.
        name: String,
        /// Row-major position.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A file of the wrong length.
    #[error("{path}: expected {expected} bytes for {what}, found {found}")]
    Length {
        /// The file.
        path: String,
        /// What the expectation is derived from.
        what: String,
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// An adapter that covers a site in some layers but not in all.
    #[error("adapter covers `{module}` but layer {layer} has no `{tensor}`")]
    PartialSite {
        /// The module.
        module: String,
        /// The layer without it.
        layer: usize,
        /// The missing tensor.
        tensor: String,
    },
    /// A tensor of a module that an adapter's configuration leaves out.
    #[error("tensor `{name}`: expected only modules that target_modules, exclude_modules and layers_to_transform of adapter_config.json select")]
    NotCovered {
        /// Its name.
        name: String,
    },
    /// A float tensor handed to a writer whose length isn't its shape's.
    #[error("`{name}`: expected {expected} values, found {found}")]
    Values {
        /// Which tensor.
        name: String,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
}

impl ImportError {
    /// Wraps a file-system error.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}
