//! CSV (RFC 4180) with a header that has the columns `contributor` and `text`.
//!
//! Space around a delimiter isn't part of a quoted field, nor is space after one part of any field: `ann, "one, two"` has two fields. A quote
//! that doesn't enclose its whole field is an error: read leniently, it would swallow the samples after it.

use super::{Reader, utf8, wrong};
use crate::text::TextError;

pub(super) fn read(name: &str, bytes: &[u8], reader: &mut Reader) -> Result<(), TextError> {
    let tidy = tidied(reader.without_mark(utf8(name, bytes)?)).map_err(|fault| wrong(name, fault.line, fault.expected, fault.found))?;
    let mut rows = csv::Reader::from_reader(tidy.as_bytes());
    let broken = |e: csv::Error| wrong(name, e.position().map_or(1, csv::Position::line), "CSV with one field a column", &e);
    let header = rows.headers().map_err(broken)?.clone();
    let column = |key: &str| {
        let mut found = header.iter().enumerate().filter(|(_, h)| h.trim() == key);
        match (found.next(), found.next()) {
            (Some((at, _)), None) => Ok(at),
            _ => Err(wrong(name, 1, &format!("one column `{key}`"), header.iter().collect::<Vec<_>>().join(", "))),
        }
    };
    let (contributor, text) = (column("contributor")?, column("text")?);
    for record in rows.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        reader.sample(name, line, record.get(contributor).unwrap_or(""), record.get(text).unwrap_or(""))?;
    }
    Ok(())
}

/// A quote that isn't CSV.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: u64,
    expected: &'static str,
    found: String,
}

#[derive(Clone, Copy)]
enum Place {
    /// Before a field's first character.
    Start,
    /// In a field without quotes.
    Bare,
    /// In a quoted field.
    Quoted,
    /// After a quote in a quoted field: the first of two, or the last of the field.
    Quote,
    /// After a quoted field and space.
    Closed,
}

/// The same table without stray space, after a look at every quote.
fn tidied(text: &str) -> Result<String, Fault> {
    let (mut line, mut opened, mut place) = (1, 1, Place::Start);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let next = match (place, c) {
            (Place::Quoted, '"') => Place::Quote,
            (Place::Quoted, _) | (Place::Quote, '"') => Place::Quoted,
            (_, ',' | '\n' | '\r') => Place::Start,
            (Place::Start, '"') => Place::Quoted,
            (Place::Start, ' ' | '\t') => Place::Start,
            (Place::Quote | Place::Closed, ' ' | '\t') => Place::Closed,
            (Place::Start, _) => Place::Bare,
            (Place::Bare, '"') => {
                let expected = "a field with a quote in it to be quoted, and the quote doubled";
                return Err(Fault { line, expected, found: "a quote in a field without quotes".into() });
            }
            (Place::Bare, _) => Place::Bare,
            (Place::Quote | Place::Closed, _) => {
                let expected = "the field quoted here to end with its closing quote (a quote in it is doubled)";
                return Err(Fault { line: opened, expected, found: format!("{c:?} after a quote in line {line}") });
            }
        };
        if matches!((place, next), (Place::Start, Place::Quoted)) {
            opened = line;
        }
        let stray = matches!((next, c), (Place::Start | Place::Closed, ' ' | '\t'));
        if !stray {
            out.push(c);
        }
        line += u64::from(c == '\n');
        place = next;
    }
    match place {
        Place::Quoted => Err(Fault { line: opened, expected: "the quote opened here to be closed", found: "the end of the file".into() }),
        _ => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stray_space_goes_and_texts_keep_theirs() {
        let tidy = |text: &str| tidied(text).unwrap();
        assert_eq!(tidy("a, \"b, \"\"c\"\" \" ,d e \n x"), "a,\"b, \"\"c\"\" \",d e \nx");
        assert_eq!(tidy("a,\"one\r\n two\"\r\n"), "a,\"one\r\n two\"\r\n");
    }

    #[test]
    fn malformed_quotes_are_named_by_the_line_that_opens_them() {
        let line = |text: &str| tidied(text).unwrap_err().line;
        assert_eq!(line("a,b\nc,\"never closed\nd,e\n"), 2);
        assert_eq!(line("a,b\nc,\"closed\" late\n"), 2);
        assert_eq!(line("a,b\nc,\"one\nd,\"two\"\n"), 2);
        assert_eq!(line("a,b\nc,5\" disc\n"), 2);
        assert_eq!(line("a,\"b\" \"c\"\n"), 1);
    }

    proptest! {
        /// What a writer quotes is read back, with stray space before it; no table of odd quotes gives a field over a line that isn't quoted.
        #[test]
        fn written_fields_come_back(fields in prop::collection::vec("[a,\" \n]{0,6}", 1..6)) {
            let written: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            let tidy = tidied(&written.join(" ,  ")).unwrap();
            let mut rows = csv::ReaderBuilder::new().has_headers(false).from_reader(tidy.as_bytes());
            let read: Vec<String> = rows.records().next().unwrap().unwrap().iter().map(str::to_owned).collect();
            prop_assert_eq!(read, fields);
        }
    }
}
