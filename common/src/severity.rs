//! How bad an alert is. Not to be confused with the level of a log line.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Ordered from least to worst, so that `>=` is "at least as bad as".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Worth a line in the record, told to nobody by default.
    Debug,
    /// Good news and bookkeeping: a recovery, a start.
    Info,
    /// Look at it when there is time.
    Warn,
    /// Something does not work.
    Err,
    /// Wake somebody.
    Crit,
}

impl Severity {
    /// All of them, from least to worst.
    pub const ALL: [Severity; 5] = [Severity::Debug, Severity::Info, Severity::Warn, Severity::Err, Severity::Crit];

    /// The word on the wire and in topics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Warn => "WARN",
            Severity::Err => "ERR",
            Severity::Crit => "CRIT",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no severity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no severity, expected DEBUG, INFO, WARN, ERR or CRIT")]
pub struct UnknownSeverity(pub String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    /// Case does not matter: people type `err`.
    fn from_str(word: &str) -> Result<Self, UnknownSeverity> {
        Severity::ALL
            .into_iter()
            .find(|severity| severity.as_str().eq_ignore_ascii_case(word))
            .ok_or_else(|| UnknownSeverity(word.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_severity_reads_back_from_its_word() {
        for severity in Severity::ALL {
            assert_eq!(severity.to_string().parse(), Ok(severity));
            assert_eq!(severity.as_str().to_lowercase().parse(), Ok(severity));
        }
        assert!("ERROR".parse::<Severity>().is_err());
    }

    #[test]
    fn worse_is_greater() {
        assert!(Severity::Crit > Severity::Err && Severity::Err > Severity::Warn);
    }
}
