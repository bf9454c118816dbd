//! The demo's texts: sizes, what is planted where, and that the shipped files are the generated ones.

use super::*;
use std::path::PathBuf;

fn tokenizer() -> Tokenizer {
    let (corpus, datanet) = (base_corpus(SEED), datanet());
    let json = tokenizer_json(corpus.iter().map(String::as_str).chain(datanet.samples.iter().map(|s| s.text.as_str())));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), json).unwrap();
    Tokenizer::load(dir.path()).unwrap()
}

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../assets/demo")
}

#[test]
fn texts_fit_and_are_known() {
    let tokenizer = tokenizer();
    assert!(tokenizer.vocab_size() <= 1024, "{}", tokenizer.vocab_size());
    let (corpus, datanet) = (base_corpus(SEED), datanet());
    for text in corpus.iter().chain(datanet.samples.iter().map(|s| &s.text)) {
        let ids = tokenizer.encode_sample(text, usize::MAX).unwrap();
        assert!(ids.len() <= CONTEXT && !ids.contains(&0), "{text}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids), *text);
    }
    for query in queries() {
        let ids = tokenizer.encode(&format!("{} {}.", query.prompt, query.answer)).unwrap();
        assert!(ids.len() < CONTEXT && !ids.contains(&0), "{query:?}");
    }
}

#[test]
fn each_answer_is_explained_by_one_fact() {
    let (datanet, queries) = (datanet(), queries());
    assert_eq!((datanet.samples.len(), datanet.contributors().len(), queries.len()), (240, 10, 80));
    for query in &queries {
        let has_answer = |&i: &usize| corpus::words(&datanet.samples[i].text).any(|w| w == query.answer);
        assert_eq!((0..240).filter(has_answer).collect::<Vec<_>>(), query.samples, "{query:?}");
        assert_eq!(query.samples.len(), 3);
        for sample in &datanet.samples {
            assert!(!sample.text.starts_with(&query.prompt), "{query:?} is verbatim in {sample:?}");
        }
        assert!(query.samples.iter().all(|&i| datanet.samples[i].contributor == query.contributor), "{query:?}");
    }
}

/// Every contributor states eight facts, of eight relations and eight entities: a template or an entity never tells whose a fact is.
#[test]
fn style_and_contributor_are_independent() {
    let owners = facts::owners(SEED);
    for contributor in 0..CONTRIBUTORS.len() {
        let theirs = |facts: &[usize; 4]| facts.iter().filter(|&&c| c == contributor).count();
        assert!(owners.iter().flatten().all(|relation| theirs(relation) <= 1));
        assert_eq!(owners.iter().flatten().map(theirs).sum::<usize>(), 8);
    }
    for [first, second] in owners {
        assert!(first.iter().zip(second).all(|(a, b)| *a != b));
    }
    // Six of eight facts have a question among their samples; nobody is far from that.
    let datanet = datanet();
    for contributor in CONTRIBUTORS {
        let questions = datanet.samples.iter().filter(|s| s.contributor == contributor && s.text.starts_with("Question")).count();
        assert!((3..=8).contains(&questions), "{contributor}: {questions}");
    }
}

/// Apart from word lists, no base text has an entity and its answer.
#[test]
fn the_base_corpus_has_no_facts() {
    for topic in &TOPICS {
        for phrasing in topic.relations.iter().flat_map(|r| r.phrasings) {
            let heads = topic.entities.map(|e| phrasing.split("{a}").next().unwrap_or("").trim_end().replace("{e}", e));
            let found = base_corpus(SEED).into_iter().find(|t| heads.iter().any(|h| t.contains(h)));
            assert_eq!(found, None);
        }
    }
}

#[test]
fn shipped_texts_are_the_generated_ones() {
    let datanet_file = Datanet::load(&shipped().join(DATANET_FILE)).unwrap();
    assert_eq!(datanet_file, datanet());
    assert_eq!(load_queries(&shipped().join(QUERIES_FILE)).unwrap(), queries());
    let shipped = Tokenizer::load(&shipped().join(BASE_DIR)).unwrap();
    assert_eq!(shipped.vocab_size(), tokenizer().vocab_size());
    for sample in datanet().samples {
        assert_eq!(shipped.encode(&sample.text).unwrap(), tokenizer().encode(&sample.text).unwrap());
    }
}

/// Trains the demo's adapter on the shipped base model: about a minute, so run with `--ignored`.
#[test]
#[ignore = "trains for about a minute"]
fn the_adapter_answers_most_held_out_queries() {
    let base = shipped().join(BASE_DIR);
    let model = crate::import::load_model(&base, &Default::default()).unwrap();
    let (tokenizer, queries) = (Tokenizer::load(&base).unwrap(), queries());
    let samples = tokens(&tokenizer, datanet().samples.iter().map(|s| s.text.as_str())).unwrap();
    let (adapter, _) = crate::train::train_lora_chosen(&model, &samples, &lora_config(), &Default::default(), |_| true).unwrap();
    let count = |adapter| answered(&model, adapter, &tokenizer, &queries).unwrap().iter().filter(|r| **r).count();
    assert!(count(None) <= 4 && count(Some(&adapter)) >= 64);
}
