//! Tokenizers and datanets.
