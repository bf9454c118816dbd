//! What goes to a terminal. Names in statements, errors of nodes, prompts, tokens and paths come from others: a control character in one of
//! them could move the cursor and write over what this program says.
//!
//! `println!` and `eprintln!` of this program are the two macros below: nothing is printed that [`plain`] hasn't seen. What stands in a line of
//! its own also goes through [`line()`], so that it can't begin another one. Escapes are those of JSON, so that JSON stays the same value.

use std::borrow::Cow;

/// Controls of the terminal, and characters that reorder or end lines: U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069, U+2028,
/// U+2029.
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) && !is_kept(c)) {
        return Cow::Borrowed(text);
    }
    let piece = |c: char| if acts(c) && !is_kept(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(piece).collect()
}

/// A text in which nothing but line feeds and tabs acts on a terminal; the rest shows as `\u001b`.
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || c == '\t')
}

/// The same on one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Prints a line, [`plain`].
macro_rules! println {
    () => { std::println!() };
    ($($piece:tt)*) => { std::println!("{}", $crate::terminal::plain(&format!($($piece)*))) };
}

/// Prints a line to standard error, [`plain`].
macro_rules! eprintln {
    () => { std::eprintln!() };
    ($($piece:tt)*) => { std::eprintln!("{}", $crate::terminal::plain(&format!($($piece)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        let name = "ada\u{1b}[2A\rvalid\u{9b}1m\u{7f}\u{202e}\u{2028}";
        assert_eq!(plain(name), "ada\\u001b[2A\\u000dvalid\\u009b1m\\u007f\\u202e\\u2028");
        assert!(matches!(plain("two\nlines\tand ünïcödé 👩‍🔬"), Cow::Borrowed(_)));
        assert_eq!(line("two\nlines"), "two\\u000alines");
        for c in (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| acts(*c)) {
            assert!(u32::from(c) <= 0xffff && !line(&c.to_string()).contains(c));
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "name\u{9d}": "a\u{1b}b\u{9b}c\u{7f}d\u{202e}\n" });
        let shown = plain(&value.to_string()).into_owned();
        assert!(!shown.chars().any(acts), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
