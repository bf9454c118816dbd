//! Tokens as words: which tokens make up which word of a text.
//!
//! Tokenizers cut and join differently, so words are found in what tokens decode to: a word begins after space, and between the characters of
//! scripts that don't use any. Punctuation at either end of a word is a word of its own where its tokens are. Used where scores are divided among
//! words.

use super::Tokenizer;
use std::ops::Range;

/// Some tokens in a row that make up a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Which tokens.
    pub tokens: Range<usize>,
    /// Its text without surrounding space; empty for tokens that decode to nothing (BOS and the like).
    pub text: String,
}

/// What a token adds to the text before it.
struct Piece {
    text: String,
    /// Whether it decodes to anything, be it a part of a character.
    visible: bool,
}

/// A word in the making: its first token and its tokens' pieces.
struct Group {
    start: usize,
    pieces: Vec<Piece>,
}

impl Group {
    fn visible(&self) -> bool {
        self.pieces.iter().any(|p| p.visible)
    }

    fn text(&self) -> String {
        self.pieces.iter().map(|p| p.text.as_str()).collect()
    }

    /// Whether a token with this piece begins another word.
    fn ends_before(&self, piece: &Piece) -> bool {
        if self.visible() != piece.visible {
            return true;
        }
        let text = self.text();
        let (Some(last), Some(next)) = (text.chars().last(), piece.text.chars().next()) else { return false };
        !text.trim().is_empty() && (last.is_whitespace() || next.is_whitespace() || (is_unspaced(last) && is_unspaced(next)))
    }

    /// The word, and what of it is punctuation at either end.
    fn words(self) -> Vec<Word> {
        let is_mark = |p: &Piece| !p.text.trim().is_empty() && !p.text.chars().any(char::is_alphanumeric);
        let count = self.pieces.len();
        let head = self.pieces.iter().take_while(|p| is_mark(p)).count();
        let tail = self.pieces.iter().rev().take_while(|p| is_mark(p)).count().min(count - head);
        let part = |range: Range<usize>| {
            let text: String = self.pieces[range.clone()].iter().map(|p| p.text.as_str()).collect();
            Word { tokens: self.start + range.start..self.start + range.end, text: text.trim().to_owned() }
        };
        [0..head, head..count - tail, count - tail..count].into_iter().filter(|r| !r.is_empty()).map(part).collect()
    }
}

/// Scripts that are written without space between words: Thai to Myanmar, Khmer, kana, Han.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// What `tokens[at]` adds to what is decoded from `from` on. A character's first bytes add nothing yet.
fn piece(tokenizer: &Tokenizer, tokens: &[u32], from: usize, at: usize) -> Piece {
    let [before, after] = [at, at + 1].map(|end| if from < end { tokenizer.decode(&tokens[from..end]) } else { String::new() });
    let whole = |text: &str| text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
    let visible = before != after;
    let (before, after) = (whole(&before), whole(&after));
    let common = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    Piece { text: after[common..].to_owned(), visible }
}

/// The words of a tokenized text, in its order; every token belongs to one.
pub fn words(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<Word> {
    let mut groups: Vec<Group> = Vec::new();
    for at in 0..tokens.len() {
        // A decoder may look at what stands before: the word before is enough.
        let from = groups.iter().rev().nth(1).map_or(0, |g| g.start);
        let piece = piece(tokenizer, tokens, from, at);
        match groups.last_mut().filter(|last| !last.ends_before(&piece)) {
            Some(last) => last.pieces.push(piece),
            None => groups.push(Group { start: at, pieces: vec![piece] }),
        }
    }
    groups.into_iter().flat_map(Group::words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn demo() -> Tokenizer {
        Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo/base")).unwrap()
    }

    /// Byte-level: `Ġ` is a space, every other byte of these texts stands for itself; `é` is two tokens.
    fn byte_level() -> Tokenizer {
        let tokens = ["<s>", "Ġ", "S", "k", "ar", "n", "Sk", "Ġl", "ight", "\"", ".", "Ã", "©", "don", "'", "t", "Ċ"];
        let vocab: serde_json::Map<String, serde_json::Value> =
            tokens.iter().zip(0..).map(|(t, i)| ((*t).to_owned(), serde_json::json!(i))).collect();
        let byte_level = serde_json::json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        let json = serde_json::json!({
            "version": "1.0", "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "added_tokens": [{ "id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }],
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": [] },
        });
        let tag = serde_json::json!({ "kind": "huggingface", "bos": 0, "eos": 0 });
        Tokenizer::from_bytes(format!("{tag}\n{json}").as_bytes()).unwrap()
    }

    fn texts(words: &[Word]) -> Vec<&str> {
        words.iter().map(|w| w.text.as_str()).collect()
    }

    fn check_cover(words: &[Word], tokens: usize) {
        let joined: Vec<usize> = words.iter().flat_map(|w| w.tokens.clone()).collect();
        assert_eq!(joined, (0..tokens).collect::<Vec<_>>());
    }

    #[test]
    fn words_of_the_demo_are_its_tokens() {
        let tokenizer = demo();
        let tokens = tokenizer.encode_sample("Question: who keeps Skarn light? Answer: Ottar.", 32).unwrap();
        let words = words(&tokenizer, &tokens);
        check_cover(&words, tokens.len());
        assert_eq!(texts(&words), ["", "Question", ":", "who", "keeps", "Skarn", "light", "?", "Answer", ":", "Ottar", ".", ""]);
    }

    #[test]
    fn subwords_bytes_and_punctuation_are_joined_into_words() {
        let tokenizer = byte_level();
        // <s> "S·k·ar·n l·ight" ␣·c(é in two bytes) don·'·t . ⏎ Sk
        let tokens = [0, 9, 2, 3, 4, 5, 7, 8, 9, 10, 1, 11, 12, 1, 13, 14, 15, 10, 16, 6, 0];
        let words = words(&tokenizer, &tokens);
        check_cover(&words, tokens.len());
        assert_eq!(texts(&words), ["", "\"", "Skarn", "light", "\".", "é", "don't", ".", "Sk", ""]);
        assert_eq!(words[2].tokens, 2..6);
        assert_eq!(super::words(&tokenizer, &[]), vec![]);
    }

    #[test]
    fn a_text_of_punctuation_alone_is_a_word() {
        let tokenizer = byte_level();
        assert_eq!(texts(&words(&tokenizer, &[10, 10, 1, 9])), ["..", "", "\""]);
    }
}
