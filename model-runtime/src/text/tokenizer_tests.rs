//! Tokenizers: round trips on real files, storage, refusals.

use super::*;
use crate::import::{ImportOptions, load_llama2c};
use crate::test_support::asset;
use crate::train::float_greedy;
use proptest::prelude::*;

const TEXT: &str = "Once upon a time, there was a cat.";

/// A llama2.c tokenizer with the 256 bytes and a few merges.
fn llama2c_bytes() -> Vec<u8> {
    let mut tokens: Vec<(f32, Vec<u8>)> = [&b"<unk>"[..], b"\n<s>\n", b"\n</s>\n"].map(|t| (0.0, t.to_vec())).to_vec();
    tokens.extend((0..256).map(|b| (0.0, format!("<0x{b:02X}>").into_bytes())));
    tokens.extend([(-1.0, "ab"), (-2.0, " ab"), (-9.0, "a"), (-9.0, "b"), (-9.0, " "), (-9.0, "c")].map(|(s, t)| (s, t.into())));
    let entry = |(score, token): &(f32, Vec<u8>)| [&score.to_le_bytes()[..], &(token.len() as i32).to_le_bytes(), token].concat();
    [8i32.to_le_bytes().to_vec()].into_iter().chain(tokens.iter().map(entry)).collect::<Vec<_>>().concat()
}

fn llama2c() -> Tokenizer {
    Tokenizer::build(llama2c_bytes(), Tag { kind: TokenizerKind::Llama2c, bos: 1, eos: 2 }).unwrap()
}

#[test]
fn llama2c_merges_and_falls_back_to_bytes() {
    let tokenizer = llama2c();
    assert_eq!(tokenizer.encode("ab ab").unwrap(), [1, 260, 260]);
    assert_eq!(tokenizer.encode("aé").unwrap(), [1, 263, 261, 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(tokenizer.encode("").unwrap(), [1]);
    assert_eq!(tokenizer.encode_sample("ab ab", 9).unwrap(), [1, 260, 260, 2]);
    assert_eq!(tokenizer.encode_sample("ab ab", 2).unwrap(), [1, 260]);
    assert_eq!(tokenizer.decode(&[260, 99999]), " ab");
}

proptest! {
    #[test]
    fn llama2c_round_trips(text in "\\PC{0,20}") {
        let tokenizer = llama2c();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in [TokenizerKind::HuggingFace, TokenizerKind::SentencePiece, TokenizerKind::Llama2c] {
            let _ = Tokenizer::build(bytes.clone(), Tag { kind, bos: 1, eos: 2 });
        }
        let _ = Tokenizer::from_bytes(&bytes);
    }
}

fn check_storage(tokenizer: &Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    for back in [Tokenizer::load(dir.path()).unwrap(), Tokenizer::from_bytes(&tokenizer.to_bytes()).unwrap()] {
        assert_eq!(back.tag, tokenizer.tag);
        assert_eq!(back.encode(TEXT).unwrap(), tokenizer.encode(TEXT).unwrap());
    }
}

#[test]
fn storage_keeps_everything() {
    check_storage(&llama2c());
}

#[test]
fn wrong_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::load(dir.path()), Err(TextError::NoTokenizer { .. })));
    assert!(matches!(Tokenizer::load(&dir.path().join("a.txt")), Err(TextError::NoTokenizer { .. })));
    assert!(matches!(Tokenizer::load(&dir.path().join("a.json")), Err(TextError::Io { .. })));
    let bytes = llama2c_bytes();
    let tag = Tag { kind: TokenizerKind::Llama2c, bos: 1, eos: 2 };
    assert!(matches!(Tokenizer::build(bytes[..bytes.len() - 1].to_vec(), tag), Err(TextError::Tokenizer { .. })));
    assert!(matches!(Tokenizer::build(bytes, Tag { eos: 9999, ..tag }), Err(TextError::Tokenizer { .. })));
}

#[test]
fn tinystories_tokenizer() {
    let Some(dir) = asset("models/tinystories-656k") else { return };
    let tokenizer = Tokenizer::load(&dir).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size(), tokenizer.kind()), (1, 2, 2048, TokenizerKind::HuggingFace));
    let ids = tokenizer.encode(TEXT).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == 1).count(), 1);
    assert_eq!(tokenizer.decode(&ids), TEXT);
    let spelled = tokenizer.encode("<|end_story|>").unwrap();
    assert!(!spelled.contains(&2), "a text must not spell EOS: {spelled:?}");
    let answer = tokenizer.encode("The end. <|end_story|>").unwrap();
    assert_eq!(tokenizer.answer(&answer), "The end.");
    check_storage(&tokenizer);
}

#[test]
fn babyllama_tokenizer_and_story() {
    let Some(dir) = asset("models/babyllama-105") else { return };
    let tokenizer = Tokenizer::load(&dir).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size(), tokenizer.kind()), (1, 2, 105, TokenizerKind::SentencePiece));
    let ids = tokenizer.encode(TEXT).unwrap();
    assert_eq!(ids.len(), 2 + TEXT.len());
    assert_eq!(tokenizer.decode(&ids), TEXT);
    check_storage(&tokenizer);
    let model = load_llama2c(&dir.join("model5000.bin"), &ImportOptions::default()).unwrap();
    let prompt = tokenizer.encode("Once upon a time").unwrap();
    let story = tokenizer.decode(&float_greedy(&model, None, &prompt, 50, tokenizer.eos()).unwrap());
    eprintln!("{story}");
    assert!(story.starts_with(", there was a "), "{story}");
}
