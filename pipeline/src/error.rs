//! One error type for everything that a component may fail with, classified by what the runtime should do.

use std::fmt;
use std::time::Duration;

/// What the runtime does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The dependency is away. Retried without end, at the policy's longest delay: an outage must hold the
    /// stream back, never empty it into the dead letters.
    Unavailable,
    /// This attempt failed and the next may not (deadlock, throttling). Retried as the policy says, then
    /// dead-lettered.
    Transient,
    /// This input can never succeed. Dead-lettered at once.
    Rejected,
    /// Nothing useful can follow. The topology stops.
    Fatal,
}

impl ErrorKind {
    /// The name used in logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Transient => "transient",
            Self::Rejected => "rejected",
            Self::Fatal => "fatal",
        }
    }
}

/// An error with its kind, a lowercase message and the cause chain.
pub struct Error {
    kind: ErrorKind,
    message: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    retry_after: Option<Duration>,
}

/// The result of everything that a component does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None, retry_after: None }
    }

    /// The dependency is away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// This attempt failed and the next may not.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Transient, message)
    }

    /// This input can never succeed.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rejected, message)
    }

    /// Nothing useful can follow.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fatal, message)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same error from somebody who said when to come again: a retry waits for so long at least.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// How long a retry waits at least.
    #[must_use]
    pub fn least_wait(&self) -> Duration {
        self.retry_after.unwrap_or_default()
    }

    /// What the runtime does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message and its causes in one line, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = self.cause.as_deref().map(|c| c as &dyn std::error::Error);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.chain(), self.kind.as_str())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|c| c as &(dyn std::error::Error + 'static))
    }
}
