//! JSON lines: one object a line with the strings `contributor` and `text`; further fields may be there.

use super::{Reader, utf8, wrong};
use crate::text::TextError;
use serde::Deserialize;

/// A line's fields. A field that is there twice is an error, not a choice.
#[derive(Deserialize)]
struct Line {
    contributor: String,
    text: String,
}

pub(super) fn read(name: &str, bytes: &[u8], reader: &mut Reader) -> Result<(), TextError> {
    for (number, line) in (1..).zip(utf8(name, bytes)?.split('\n')) {
        // Files that were joined have a mark wherever one began.
        let line = reader.without_mark(line).trim();
        if line.is_empty() {
            continue;
        }
        let expected = "a JSON object with the strings `contributor` and `text`, each once";
        if !line.starts_with('{') {
            return Err(wrong(name, number, expected, line.chars().take(40).collect::<String>().escape_debug()));
        }
        let Line { contributor, text } = serde_json::from_str(line).map_err(|e| wrong(name, number, expected, e))?;
        reader.sample(name, number, &contributor, &text)?;
    }
    Ok(())
}
