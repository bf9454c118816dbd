//! Contributors' names: one spelling a name, and names that look alike.
//!
//! A name is normalised to NFC (Unicode Standard Annex 15) without surrounding space, so that two ways of typing one name are one contributor.
//! Names that differ and still look alike (case, invisible characters, letters of another script: the skeletons of Unicode Technical Standard
//! 39) stay apart: whether they are one contributor is for a person to say.

use std::collections::BTreeMap;
use unicode_normalization::UnicodeNormalization;
use unicode_security::skeleton;

/// The byte order mark, which some programs write at the start of every file.
pub(super) const MARK: char = '\u{feff}';

/// A name without byte order marks and surrounding space, in NFC.
pub fn normalised(name: &str) -> String {
    name.replace(MARK, "").trim().nfc().collect()
}

/// What a name looks like: two names of one look are easily taken for each other.
fn look(name: &str) -> String {
    let plain: String = skeleton(name).collect();
    let folded = plain.to_lowercase();
    let again: String = skeleton(&folded).collect();
    again.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Groups of different names that look alike, in the order of their first members.
pub fn lookalikes<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut groups: BTreeMap<String, Vec<(usize, &'a str)>> = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        let group = groups.entry(look(name)).or_default();
        if group.iter().all(|(_, other)| other != name) {
            group.push((at, name));
        }
    }
    let mut alike: Vec<Vec<(usize, &'a str)>> = groups.into_values().filter(|g| g.len() > 1).collect();
    alike.sort_unstable();
    alike.into_iter().map(|group| group.into_iter().map(|(_, name)| name).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_are_one_name() {
        let composed = "Zo\u{e9}";
        for spelling in ["Zoe\u{301}", " Zo\u{e9}", "\u{feff}Zo\u{e9}\u{a0}", "Zoe\u{301}\t"] {
            assert_eq!(normalised(spelling), composed, "{spelling:?}");
        }
        assert_eq!(normalised("mill house"), "mill house");
    }

    #[test]
    fn names_that_look_alike_are_found() {
        let cyrillic = "mi\u{217c}l";
        let names = ["mill", "anna", "Mill", "mi\u{200b}ll", cyrillic, "\u{430}nna", "poet-1", "poet-l", "ed  x", "ed x", "miller"];
        let groups = lookalikes(&names);
        assert_eq!(
            groups,
            [vec!["mill", "Mill", "mi\u{200b}ll", cyrillic], vec!["anna", "\u{430}nna"], vec!["poet-1", "poet-l"], vec!["ed  x", "ed x"]]
        );
        assert!(lookalikes(&["mill", "mill", "hill", "contributor-1", "contributor-2"]).is_empty());
    }
}
