//! How cctl ends, and what it says then.

use std::io::{self, Write};
use std::process::ExitCode;

/// A daemon cannot be reached (sysexits.h: EX_UNAVAILABLE).
const EXIT_UNREACHABLE: u8 = 69;
/// As a shell shows a program that died of SIGPIPE.
const EXIT_BROKEN_PIPE: u8 = 141;

/// What an answer means for a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Fine,
    /// The answer is there, and something is down or an alarm is open.
    Trouble,
}

impl Outcome {
    /// Trouble if `trouble`.
    pub(crate) fn from_trouble(trouble: bool) -> Self {
        if trouble { Outcome::Trouble } else { Outcome::Fine }
    }
}

/// Why there is no answer. Each has its own exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The socket is missing, closed to us, or nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// Of the demo: a person must mend a configuration.
    #[error("{0}")]
    Config(String),
    /// Whoever read our output is gone. Nobody is left to be told.
    #[error("nobody reads our output")]
    BrokenPipe,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// A file or folder could not be used.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: &io::Error) -> Self {
        Failure::Other(format!("cannot {what} {}: {error}", path.display()))
    }
}

/// Of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Other(format!("cannot write to standard output: {error}")),
        }
    }
}

/// Says what went wrong, and turns it into the exit code of DESIGN §9.
pub(crate) fn exit_code(result: Result<Outcome, Failure>) -> ExitCode {
    let error = match result {
        Ok(Outcome::Fine) => return ExitCode::SUCCESS,
        Ok(Outcome::Trouble) => return ExitCode::from(2),
        Err(error) => error,
    };
    if !matches!(error, Failure::BrokenPipe) {
        notice(&error.to_string());
    }
    match error {
        Failure::Usage(_) => ExitCode::from(common::startup::EXIT_USAGE),
        Failure::Unreachable(_) => ExitCode::from(EXIT_UNREACHABLE),
        Failure::Config(_) => ExitCode::from(common::startup::EXIT_CONFIG),
        Failure::BrokenPipe => ExitCode::from(EXIT_BROKEN_PIPE),
        Failure::Other(_) => ExitCode::FAILURE,
    }
}

/// A line on standard error. What a daemon said may be in it, so it is escaped; if nobody reads it, that is no reason
/// to fail.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(io::stderr().lock(), "cctl: {}", crate::text::escape(text));
}
