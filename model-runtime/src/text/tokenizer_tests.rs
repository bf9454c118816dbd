//! Tokenizers: round trips on real files, storage, refusals.

use super::*;
use crate::import::{ImportOptions, load_llama2c};
use crate::test_support::{asset, base64, fixture};
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
    Tokenizer::build(llama2c_bytes(), Tag::new(TokenizerKind::Llama2c, 1, 2)).unwrap()
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
            let _ = Tokenizer::build(bytes.clone(), Tag::new(kind, 1, 2));
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
    let tag = Tag::new(TokenizerKind::Llama2c, 1, 2);
    assert!(matches!(Tokenizer::build(bytes[..bytes.len() - 1].to_vec(), tag.clone()), Err(TextError::Tokenizer { .. })));
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
    assert!(spelled.contains(&2), "as the reference reads it: {spelled:?}");
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

/// What `tests/fixtures/tokenizers/make.py` wrote.
#[derive(serde::Deserialize)]
struct Fixture {
    kind: String,
    files: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

impl Fixture {
    fn read(name: &str) -> Self {
        serde_json::from_slice(&fs::read(fixture(&format!("tokenizers/{name}.json"))).unwrap()).unwrap()
    }

    /// The files as a model's directory has them, after `change`.
    fn directory(&self, change: impl Fn(&str, String) -> String) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in &self.files {
            let bytes = if name.ends_with(".json") { change(name, content.clone()).into_bytes() } else { base64(content) };
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }
}

/// Every kind of tokenizer gives the reference libraries' ids.
#[test]
fn ids_are_the_reference_libraries() {
    let names = ["byte_level_chat", "byte_level_no_bos", "metaspace_legacy", "metaspace_added", "metaspace_no_bos", "unigram_bos", "word_level"];
    let more = ["sentencepiece_llama", "sentencepiece_bpe_unknown", "sentencepiece_unigram", "sentencepiece_unigram_bytes", "llama2c"];
    for name in names.into_iter().chain(more) {
        let fixture = Fixture::read(name);
        let dir = fixture.directory(|_, text| text);
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(serde_json::to_value(tokenizer.kind()).unwrap(), fixture.kind);
        let stored = Tokenizer::from_bytes(&tokenizer.to_bytes()).unwrap();
        for Case { text, ids } in &fixture.cases {
            assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(&stored.encode(text).unwrap(), ids, "{name}, stored: {text:?}");
        }
    }
}

/// The directory of a fixture with one field of `tokenizer_config.json` set.
fn load_with(name: &str, field: &str, value: serde_json::Value) -> Result<Tokenizer, TextError> {
    let set = |file: &str, text: String| {
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        if file == "tokenizer_config.json" {
            json[field] = value.clone();
        }
        json.to_string()
    };
    Tokenizer::load(Fixture::read(name).directory(set).path())
}

#[test]
fn every_end_of_an_answer_counts() {
    let dir = Fixture::read("byte_level_chat").directory(|_, text| text);
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.stops()), (0, 3, &[1, 3][..]), "<|im_end|> ends samples, either ends an answer");
    check_storage(&tokenizer);
    fs::write(dir.path().join("generation_config.json"), r#"{ "eos_token_id": 1 }"#).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.stops()), (1, &[1][..]), "a sample ends with what ends an answer");
    let from_text = Tokenizer::load(&dir.path().join("tokenizer.json")).unwrap().for_model(dir.path(), 1000).unwrap();
    assert_eq!(from_text.stops(), [1]);
    let llama2c = llama2c().for_model(Path::new("model.bin"), 265).unwrap();
    assert_eq!((llama2c.eos(), llama2c.stops()), (2, &[2, 1][..]), "run.c stops at BOS");
}

#[test]
fn settings_are_followed_or_named() {
    let split = load_with("metaspace_added", "split_special_tokens", true.into()).unwrap();
    assert!(!split.encode("a<|im_end|>").unwrap().contains(&482));
    let bos = |value: bool| load_with("byte_level_no_bos", "add_bos_token", value.into()).unwrap().encode("a").unwrap().len();
    assert_eq!((bos(true), bos(false)), (2, 1));
    let refused = |name, field, value: serde_json::Value| match load_with(name, field, value) {
        Err(TextError::Setting { field, .. }) => field,
        other => panic!("{field}: {other:?}"),
    };
    assert_eq!(refused("metaspace_added", "add_eos_token", true.into()), "add_eos_token");
    assert_eq!(refused("metaspace_added", "add_bos_token", "yes".into()), "add_bos_token");
    assert_eq!(refused("byte_level_chat", "add_prefix_space", true.into()), "add_prefix_space");
    let moved = serde_json::json!({ "7": { "content": "<|im_start|>", "special": true } });
    assert_eq!(refused("byte_level_chat", "added_tokens_decoder", moved), "added_tokens_decoder.7");
    // SentencePiece models stand beside a tokenizer_config.json too.
    let dir = Fixture::read("sentencepiece_llama").directory(|_, text| text);
    fs::write(dir.path().join("tokenizer_config.json"), r#"{ "add_bos_token": false }"#).unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().encode("").unwrap(), [0u32; 0]);
}

#[test]
fn a_post_processor_that_ends_texts_is_refused() {
    let behind = |file: &str, text: String| {
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        if file == "tokenizer.json" {
            let single = json["post_processor"]["single"].as_array_mut().unwrap();
            single.reverse();
        }
        json.to_string()
    };
    match Tokenizer::load(Fixture::read("metaspace_legacy").directory(behind).path()) {
        Err(TextError::Tokenizer { reason, .. }) => assert!(reason.contains("post_processor"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn added_tokens_may_lie_beyond_the_vocabulary() {
    let load = || Tokenizer::load(Fixture::read("metaspace_added").directory(|_, text| text).path()).unwrap();
    assert_eq!(load().vocab_size(), 483);
    let tokenizer = load().for_model(Path::new("."), 480).unwrap();
    check_storage(&tokenizer);
    match tokenizer.encode("a<pad>") {
        Err(TextError::Beyond { token, id, vocabulary }) => assert_eq!((&token[..], id, vocabulary), ("<pad>", 480, 480)),
        other => panic!("{other:?}"),
    }
    match load().for_vocabulary(479) {
        Err(TextError::Vocabulary { size, vocabulary, id, .. }) => assert_eq!((size, vocabulary, id), (483, 479, 479)),
        other => panic!("{other:?}"),
    }
    assert!(llama2c().for_vocabulary(100).is_err() && llama2c().for_vocabulary(300).is_ok());
}

#[test]
fn a_pointer_is_named() {
    let dir = Fixture::read("metaspace_added").directory(|_, text| text);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let bytes = fs::read(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name), "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
        assert!(matches!(Tokenizer::load(dir.path()), Err(TextError::LfsPointer { .. })));
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::rename(dir.path().join("tokenizer.json"), dir.path().join("TOKENIZER.JSON")).unwrap();
    assert!(Tokenizer::load(dir.path()).is_ok());
}

/// A SentencePiece model with a setting that its library would follow.
#[test]
fn sentencepiece_settings_are_followed_or_refused() {
    let plain = base64(&Fixture::read("sentencepiece_llama").files["tokenizer.model"]);
    let with = |field: &[u8]| sentencepiece::Model::parse(&[&plain, field].concat());
    assert!(with(&[]).is_ok());
    let suffix = with(&[0x12, 5, 0x18, 2, 0xc0, 1, 1]).err().unwrap();
    let unescaped = with(&[0x1a, 2, 0x28, 0]).err().unwrap();
    assert!(suffix.contains("treat_whitespace_as_suffix") && unescaped.contains("escape_whitespaces"));
    let no_bytes = with(&[0x12, 2, 0x18, 2]).unwrap();
    assert_eq!(no_bytes.encode("\u{1f9ff}").last(), Some(&0), "without byte_fallback a strange character is unknown");
}
