//! llama2.c tokenizers (`tok*.bin`): an `i32` (longest token), then per token an `f32` score, an `i32` length and the bytes.
//!
//! Ids 0, 1, 2 are unknown, BOS and EOS; id `3 + b` is the byte `b` when token 3 is spelled `<0x00>`.

use super::pieces::{Algorithm, Pieces};
use std::collections::HashMap;

/// Tokens at most (far above any vocabulary).
const MAX_TOKENS: usize = 1 << 20;

/// Parses the file; the error says what is wrong.
pub(super) fn parse(bytes: &[u8]) -> Result<Pieces, String> {
    let tokens = read_tokens(bytes)?;
    if tokens.len() < 4 {
        return Err(format!("expected at least 4 tokens, found {}", tokens.len()));
    }
    let byte_ids = |first: usize| (0..256).all(|b| tokens.get(first + b).is_some_and(|t| t.1 == byte_name(b))).then(|| (3..259).collect());
    let bytes = byte_ids(3);
    let first = if bytes.is_some() { 259 } else { 3 };
    let mut ids = HashMap::new();
    for (id, (_, token)) in tokens.iter().enumerate().skip(first) {
        // The first of equal spellings, as a search in a sorted table would find any.
        if let Ok(piece) = std::str::from_utf8(token) {
            ids.entry(piece.to_string()).or_insert(id as u32);
        }
    }
    let scores = tokens.iter().map(|t| t.0).collect();
    let decode = |(id, (_, token)): (usize, (f32, Vec<u8>))| match id {
        0..3 => Vec::new(),
        _ if id < first => vec![(id - 3) as u8],
        _ => token,
    };
    let decoded = tokens.into_iter().enumerate().map(decode).collect();
    Ok(Pieces { decoded, scores, ids, bytes, unknown: 0, algorithm: Algorithm::Bpe })
}

fn byte_name(byte: usize) -> Vec<u8> {
    format!("<0x{byte:02X}>").into_bytes()
}

fn read_tokens(bytes: &[u8]) -> Result<Vec<(f32, Vec<u8>)>, String> {
    let (_, mut rest) = bytes.split_first_chunk::<4>().ok_or("expected a 4-byte header")?;
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let number = tokens.len();
        let cut = || format!("token {number}: the file ends inside it");
        let (score, tail) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (len, tail) = tail.split_first_chunk::<4>().ok_or_else(cut)?;
        let len = usize::try_from(i32::from_le_bytes(*len)).map_err(|_| format!("token {number}: negative length"))?;
        let (token, tail) = tail.split_at_checked(len).ok_or_else(cut)?;
        let score = f32::from_le_bytes(*score);
        if !score.is_finite() || number >= MAX_TOKENS {
            return Err(format!("token {number}: expected a finite score and at most {MAX_TOKENS} tokens, found score {score}"));
        }
        tokens.push((score, token.to_vec()));
        rest = tail;
    }
    Ok(tokens)
}
