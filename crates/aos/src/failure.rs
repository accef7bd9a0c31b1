//! How a command says that it failed: what failed, why, what to do, and an exit code for scripts.

use std::error::Error;
use std::fmt;

/// Exit codes. Scripts rely on them: they are listed in `docs/operations.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failed = 1,
    /// Not signed in, or not allowed.
    NotAllowed = 3,
    /// What was named does not exist.
    NotFound = 4,
    /// The other side cannot be reached or is not the one that was expected.
    NotReachable = 5,
    /// The other side refused: a rule, a conflict, a wrong field.
    Refused = 6,
    /// An update did not become what was asked for.
    NotAsDesired = 7,
}

/// A command's failure, for people.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: Vec<String>,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// What failed, such as `cannot read a.txt`.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: Vec::new(),
            hint: None,
            exit: Exit::Failed,
        }
    }

    /// What failed, and the chain of causes.
    pub fn because(what: impl Into<String>, cause: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(what);
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text.
            if !failure.why.last().is_some_and(|last| last.contains(&text)) {
                failure.why.push(text);
            }
            next = cause.source();
        }
        failure
    }

    /// Adds a cause.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        let why = why.into();
        if !why.is_empty() {
            self.why.push(why);
        }
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The exit code of the program.
    pub fn code(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for why in &self.why {
            write!(f, "\n  why: {why}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  do:  {hint}")?;
        }
        Ok(())
    }
}

/// Turns any error into a [`Failure`] by saying what was tried.
pub trait OrFail<T> {
    /// `what` as in [`Failure::new`].
    fn or_fail<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> OrFail<T> for Result<T, E> {
    fn or_fail<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, Failure> {
        self.map_err(|error| Failure::because(what(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_why_and_what_to_do() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let failure = Failure::because("cannot read cloud.toml", &cause)
            .hint("sign in with `aos login`")
            .exit(Exit::NotAllowed);
        assert_eq!(
            failure.to_string(),
            "error: cannot read cloud.toml\n  why: no such file\n  do:  sign in with `aos login`"
        );
        assert_eq!(failure.code() as u8, 3);
    }
}
