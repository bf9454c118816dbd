//! What a step ends with when it doesn't succeed: what kind of failure, what happened, and what to do.

use std::fmt::Display;
use std::path::Path;

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The checked thing isn't valid.
    Invalid,
    /// Unusable input or environment.
    Input,
    /// It was told to stop.
    Stopped,
}

/// A failed step.
#[derive(Debug)]
pub struct Failure {
    /// Which kind.
    pub kind: Kind,
    /// What happened, where.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// Unusable input.
    pub fn input(message: impl Display) -> Self {
        Self { kind: Kind::Input, message: message.to_string(), hint: None }
    }

    /// Something that was checked and isn't valid.
    pub fn invalid(message: impl Display) -> Self {
        Self { kind: Kind::Invalid, message: message.to_string(), hint: None }
    }

    /// Told to stop.
    pub fn stopped() -> Self {
        Self { kind: Kind::Stopped, message: "stopped".into(), hint: None }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

/// Turns a library error into unusable input, saying what was being done.
pub trait While<T> {
    /// `what` reads like "importing model.bin".
    fn during(self, what: impl Display) -> Result<T, Failure>;

    /// The same of a file or directory, which is always named: `what` reads like "reading" or "importing".
    fn during_path(self, what: &str, path: &Path) -> Result<T, Failure>;
}

impl<T, E: Display> While<T> for Result<T, E> {
    fn during(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|e| Failure::input(format!("{what}: {e}")))
    }

    fn during_path(self, what: &str, path: &Path) -> Result<T, Failure> {
        let path = path.display();
        self.map_err(|e| {
            let e = e.to_string();
            let rest = e.strip_prefix(&format!("{path}: ")).unwrap_or(&e);
            Failure::input(format!("{what} {path}: {rest}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_always_named_and_only_once() {
        let message = |error: &str| Err::<(), _>(error).during_path("reading", Path::new("a")).unwrap_err().message;
        assert_eq!(message("no such file"), "reading a: no such file");
        assert_eq!(message("invalid data"), "reading a: invalid data");
        assert_eq!(message("a: no such file"), "reading a: no such file");
    }
}
