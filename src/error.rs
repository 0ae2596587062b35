//! The one error type: what happened, what to do about it (`hint`), and the process exit code it maps to.

use std::fmt::Display;

/// Result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by the exit code a script sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Command line or configuration (exit code 2).
    Config,
    /// Data set or picture files (3).
    Data,
    /// Adapter, driver, memory (4).
    Device,
    /// A run: training, checkpoints, run folders (5).
    Training,
    /// Stopped by the user (130).
    Interrupted,
}

impl ErrorKind {
    /// Process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Config => 2,
            ErrorKind::Data => 3,
            ErrorKind::Device => 4,
            ErrorKind::Training => 5,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// An error with its cause and, where there is something to do, a hint.
///
/// `Display` prints the message alone; the binary prints the chain of causes and `hint: ...` on a line of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message that says what happened and what was expected.
    pub fn new(kind: ErrorKind, message: impl Display) -> Self {
        Error { kind, message: message.to_string(), hint: None, source: None }
    }

    /// Shorthand for [`ErrorKind::Config`].
    pub fn config(message: impl Display) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Shorthand for [`ErrorKind::Data`].
    pub fn data(message: impl Display) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Shorthand for [`ErrorKind::Device`].
    pub fn device(message: impl Display) -> Self {
        Self::new(ErrorKind::Device, message)
    }

    /// Shorthand for [`ErrorKind::Training`].
    pub fn training(message: impl Display) -> Self {
        Self::new(ErrorKind::Training, message)
    }

    /// Adds what the user can do about it.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Adds the error that caused this one.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind, which decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the user can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let kinds =
            [ErrorKind::Config, ErrorKind::Data, ErrorKind::Device, ErrorKind::Training, ErrorKind::Interrupted];
        assert_eq!(kinds.map(ErrorKind::exit_code), [2, 3, 4, 5, 130]);
    }

    #[test]
    fn the_cause_and_the_hint_survive() {
        let e = Error::data("cannot read x").hint("check the path").caused_by(std::io::Error::other("disk"));
        assert_eq!(e.to_string(), "cannot read x");
        assert_eq!(e.hint_text(), Some("check the path"));
        assert_eq!(std::error::Error::source(&e).unwrap().to_string(), "disk");
    }
}
