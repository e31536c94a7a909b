//! How a command fails: what is wrong, where, what to do; and the exit code.

use std::fmt;
use std::process::ExitCode;

/// A failed command. Exit codes are part of the interface: see `weir --help`.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What is wrong and where.
    pub message: String,
    /// What to do, if anything helps.
    pub hint: Option<String>,
    /// HTTP status, if the server refused.
    pub status: Option<u16>,
}

/// What commands return.
pub type Outcome = Result<ExitCode, Failure>;

/// Refused, failed, or not so.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// The control plane cannot be reached.
pub const UNREACHABLE: u8 = 3;
/// `wait` ran out of time.
pub const TIMED_OUT: u8 = 4;
/// `diff` found differences.
pub const DIFFERS: u8 = 5;

impl Failure {
    /// An ordinary failure.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { code: FAILED, message: message.into(), hint: None, status: None }
    }

    /// With another exit code.
    pub fn code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }

    /// With advice.
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  → {hint}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(error.to_string())
    }
}
