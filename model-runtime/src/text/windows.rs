//! Texts longer than the training window: cut, and what that leaves out; or split into windows that each fit.

/// What cutting samples to a window leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Samples that are cut.
    pub samples: usize,
    /// Samples in all.
    pub of: usize,
    /// Tokens that are left out.
    pub left_out: usize,
    /// Tokens in all.
    pub tokens: usize,
}

impl Cut {
    /// From the samples' whole lengths in tokens.
    pub fn of(lengths: &[usize], max_tokens: usize) -> Self {
        let mut cut = Self { of: lengths.len(), tokens: lengths.iter().sum(), ..Self::default() };
        for over in lengths.iter().map(|len| len.saturating_sub(max_tokens)).filter(|&over| over > 0) {
            cut.samples += 1;
            cut.left_out += over;
        }
        cut
    }

    /// The share of all tokens that is left out, 0 to 1.
    pub fn share(&self) -> f64 {
        self.left_out as f64 / self.tokens.max(1) as f64
    }
}

/// Splits a text into windows that fit, each as long as may be, between words; a word that doesn't fit is split between characters, and a
/// character that doesn't fit is a window all the same. Together the windows are the text without the space between them.
///
/// `fits` is asked for a text from a window's start to the end of one of its words; what fits should do so without its last words, too.
pub fn split<E>(text: &str, fits: impl Fn(&str) -> Result<bool, E>) -> Result<Vec<&str>, E> {
    let mut windows = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let ends = longest(&word_ends(rest), |end| fits(&rest[..end]))?;
        let end = match ends {
            Some(end) => end,
            None => {
                let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let characters: Vec<usize> = rest[..word].char_indices().map(|(at, c)| at + c.len_utf8()).collect();
                longest(&characters, |end| fits(&rest[..end]))?.or(characters.first().copied()).unwrap_or(rest.len())
            }
        };
        windows.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    Ok(windows)
}

/// Where words end.
fn word_ends(text: &str) -> Vec<usize> {
    let mut ends: Vec<usize> = text.split_whitespace().map(|word| word.as_ptr() as usize - text.as_ptr() as usize + word.len()).collect();
    ends.dedup();
    ends
}

/// The last end that fits: looked for in doubling steps, then by halving, so that no text much longer than a window is asked for.
fn longest<E>(ends: &[usize], fits: impl Fn(usize) -> Result<bool, E>) -> Result<Option<usize>, E> {
    // `fit` ends fit, `over` don't.
    let (mut fit, mut over, mut step) = (0, ends.len() + 1, 1);
    while over - fit > 1 {
        let tried = if over > ends.len() { (fit + step).min(ends.len()) } else { (fit + over) / 2 };
        if fits(ends[tried - 1])? {
            fit = tried;
            step *= 2;
        } else {
            over = tried;
        }
    }
    Ok(fit.checked_sub(1).map(|last| ends[last]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn by_length(text: &str, most: usize) -> Vec<&str> {
        split(text, |t| Ok::<_, Infallible>(t.chars().count() <= most)).unwrap_or_default()
    }

    #[test]
    fn what_is_cut_is_counted() {
        let cut = Cut::of(&[10, 64, 65, 100], 64);
        assert_eq!(cut, Cut { samples: 2, of: 4, left_out: 37, tokens: 239 });
        assert!((cut.share() - 37.0 / 239.0).abs() < 1e-12 && Cut::of(&[], 64).share() == 0.0);
    }

    #[test]
    fn windows_end_between_words() {
        assert_eq!(by_length("one two  three\nfour", 8), ["one two", "three", "four"]);
        assert_eq!(by_length("a wonderful day", 5), ["a", "wonde", "rful", "day"]);
        assert_eq!(by_length("øøø", 0), ["ø", "ø", "ø"]);
        assert!(by_length(" \n", 5).is_empty());
    }

    proptest! {
        /// No word is lost, every window fits, and none could take the next word.
        #[test]
        fn windows_are_the_text(text in "[a-cø \n]{0,200}", most in 1usize..40) {
            let windows = by_length(&text, most);
            let letters = |t: &str| t.split_whitespace().collect::<String>();
            prop_assert_eq!(letters(&windows.concat()), letters(&text));
            for window in &windows {
                prop_assert!(window.chars().count() <= most && !window.trim().is_empty());
            }
            let whole: Vec<&str> = text.split_whitespace().filter(|w| w.chars().count() <= most).collect();
            if whole.len() == text.split_whitespace().count() {
                let words: Vec<&str> = windows.iter().flat_map(|w| w.split_whitespace()).collect();
                prop_assert_eq!(words, whole);
            }
        }
    }
}
