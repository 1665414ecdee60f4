//! What ends lockctl without success, and how it is told.

use std::error::Error as StdError;
use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use lock_core::ErrorKind;

use crate::exit;

/// Why lockctl stops: one line, the causes behind it, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with an exit code and one line for people.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds an error and all that caused it.
    pub(crate) fn caused_by(mut self, error: &dyn StdError) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.causes.push(one_line(&cause.to_string()));
            next = cause.source();
        }
        self
    }

    /// The exit code.
    #[cfg(test)]
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Tells it on stderr and ends with its code.
    pub(crate) fn report(&self) -> ExitCode {
        // Nobody is left to be told when stderr is closed.
        let _ = write!(std::io::stderr().lock(), "{self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lockctl: {}", one_line(&self.message))?;
        for cause in &self.causes {
            writeln!(f, "  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<lock_core::Error> for Failure {
    fn from(error: lock_core::Error) -> Self {
        let mut failure = Self::new(exit::of_error(error.kind()), error.to_string());
        if let Some(source) = error.source() {
            failure = failure.caused_by(source);
        }
        failure.hint = hint(error.kind()).map(str::to_owned);
        failure
    }
}

/// A line of its own for people, for messages that came from files and servers.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the error itself cannot know: the options and commands of lockctl.
fn hint(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ModeConflict => {
            "`lockctl show KEY` tells the mode in use; use the same one, or another key"
        }
        ErrorKind::Unavailable | ErrorKind::PermissionDenied => {
            "`lockctl check` tells which backend is used and tries it"
        }
        ErrorKind::Indeterminate => "`lockctl show KEY` tells whether the lock is still held",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use lock_core::Error;

    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes_below() {
        let source = std::io::Error::other("no route\nto host");
        let error = Error::new(ErrorKind::Unavailable, "redis did not answer").with_source(source);
        let failure = Failure::from(error);
        let told = failure.to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[0],
            "lockctl: the backend is unavailable: redis did not answer"
        );
        assert_eq!(lines[1], "  caused by: no route; to host");
        assert!(lines[2].starts_with("  hint: "));
        assert_eq!(failure.code(), exit::UNAVAILABLE);
    }
}
