//! What a verifier expects of a proof: that it is of the model they mean. A valid proof says only that the model its statement names gave the answer.

use crate::offer::Expected;
use circuits::statement::{Digest, Profile, Statement};
use steps::error::Failure;

/// How a statement compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// What was expected and is so.
    pub compared: Vec<&'static str>,
    /// What was expected and no proof of this kind shows.
    pub left: Vec<&'static str>,
    /// The first difference.
    pub difference: Option<String>,
}

/// Compares a statement, and the verifying key of an outer proof, with what is expected.
///
/// # Errors
///
/// When pins of different hashes would be compared.
pub fn compare(expected: &Expected, statement: &Statement, key: Option<Digest>) -> Result<Pins, Failure> {
    let pinned = [expected.base, expected.adapter, expected.index, expected.index_digest];
    if statement.profile == Profile::Native && pinned.iter().any(Option::is_some) {
        let message =
            "base, adapter and index are expected as contracts hold them, which a proof of the native profile can't show: its pins are others";
        return Err(Failure::input(message).hint("prove with --profile evm, or expect the relation only"));
    }
    if key.is_some() && *expected != Expected::default() && expected.key_digest.is_none() {
        let message = "something is expected of an outer proof, but no key_digest: what such a proof shows, its key says";
        return Err(Failure::input(message).hint("expect the key's digest too: in the file, or with --key-digest"));
    }
    let mut pins = Pins::default();
    let index = statement.index.as_ref();
    let fields = [
        ("relation", expected.relation, Some(statement.relation.digest())),
        ("base", expected.base, Some(statement.base)),
        ("adapter", expected.adapter, statement.adapter),
        ("index", expected.index, index.map(|i| i.commitment)),
        ("index_digest", expected.index_digest, index.map(|i| i.digest().truncated())),
    ];
    for (name, expected, found) in fields {
        if let Some(expected) = expected {
            pins.hold(name, &expected.to_string(), found.map(|d| d.to_string()));
        }
    }
    match (expected.key_digest, key) {
        (Some(expected), Some(key)) => pins.hold("key_digest", &expected.to_string(), Some(key.to_string())),
        (Some(_), None) => pins.left.push("key_digest"),
        (None, _) => {}
    }
    if let Some(contributors) = &expected.contributors {
        let names: Vec<&String> = contributors.iter().map(|c| &c.name).collect();
        let found = index.map(|i| i.contributors.iter().collect::<Vec<_>>());
        pins.hold("contributors", &format!("{names:?}"), found.map(|names| format!("{names:?}")));
    }
    pins.left.extend(expected.verifier.map(|_| "verifier"));
    pins.left.extend(expected.split.map(|_| "split"));
    Ok(pins)
}

impl Pins {
    fn hold(&mut self, name: &'static str, expected: &str, found: Option<String>) {
        match found {
            Some(found) if found == expected => self.compared.push(name),
            found if self.difference.is_none() => {
                let found = found.unwrap_or_else(|| "absent".into());
                self.difference = Some(format!("another model than expected: its {name} is {found}, expected {expected}"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{small, statement};
    use crate::offer::Contributor;
    use alloy::primitives::Address;

    fn whole(statement: &Statement, key: Digest) -> Expected {
        let index = statement.index.as_ref().unwrap();
        let contributors = index.contributors.iter().map(|name| Contributor { name: name.clone(), account: Address::ZERO }).collect();
        Expected {
            relation: Some(statement.relation.digest()),
            base: Some(statement.base),
            adapter: statement.adapter,
            index: Some(index.commitment),
            index_digest: Some(index.digest().truncated()),
            key_digest: Some(key),
            contributors: Some(contributors),
            ..Expected::default()
        }
    }

    #[test]
    fn every_field_is_compared_and_named() {
        let (statement, key) = (statement(3, small(1)), small(40));
        let expected = whole(&statement, key);
        let pins = compare(&expected, &statement, Some(key)).unwrap();
        assert_eq!((pins.compared.len(), pins.left.len(), pins.difference), (7, 0, None));
        type Change = (&'static str, fn(&mut Expected));
        let changes: [Change; 7] = [
            ("relation", |e| e.relation = Some(small(99))),
            ("base", |e| e.base = Some(small(99))),
            ("adapter", |e| e.adapter = Some(small(99))),
            ("index", |e| e.index = Some(small(99))),
            ("index_digest", |e| e.index_digest = Some(small(99))),
            ("key_digest", |e| e.key_digest = Some(small(99))),
            ("contributors", |e| e.contributors.as_mut().unwrap()[0].name = "mallory".into()),
        ];
        for (name, change) in changes {
            let mut other = expected.clone();
            change(&mut other);
            let difference = compare(&other, &statement, Some(key)).unwrap().difference.unwrap();
            assert!(difference.contains(&format!("its {name} is")), "{difference}");
        }
    }

    #[test]
    fn what_a_proof_does_not_show_is_said() {
        let statement = statement(2, small(1));
        let none = compare(&Expected::default(), &statement, None).unwrap();
        assert_eq!(none, Pins::default());
        let pins = compare(&whole(&statement, small(40)), &statement, None).unwrap();
        assert_eq!(pins.left, ["key_digest"]);
        let native = Statement { profile: Profile::Native, ..statement.clone() };
        assert!(compare(&whole(&statement, small(40)), &native, None).is_err());
        // Which relation an outer proof is of, its key alone says.
        let unkeyed = Expected { key_digest: None, ..whole(&statement, small(40)) };
        let failure = compare(&unkeyed, &statement, Some(small(40))).unwrap_err();
        assert!(failure.message.contains("no key_digest"), "{failure:?}");
        let relation = Expected { relation: Some(statement.relation.digest()), ..Expected::default() };
        assert_eq!(compare(&relation, &native, None).unwrap().compared, ["relation"]);
    }
}
