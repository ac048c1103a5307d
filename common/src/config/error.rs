//! What is wrong with a configuration, in one line for the operator.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// Longer quotations from a file are cut: the line number shows the rest.
const MAX_QUOTED_CHARS: usize = 60;

/// Why a configuration cannot be used: at least one mistake, in the order of files and lines.
///
/// There is one kind only, because callers do one thing: say it, then exit with 78 at the start, or keep the
/// configuration they have on SIGHUP. Each mistake is a single line whatever the files hold. Shown as a whole it is the
/// first of them, and how many more there are.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.summary())]
pub struct ConfigError {
    mistakes: Vec<Said>,
}

/// One mistake, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    file: PathBuf,
    /// Counted from 1; none where the file as a whole is meant.
    line: Option<usize>,
    text: String,
}

impl ConfigError {
    /// A mistake in the file as a whole, such as two settings that contradict each other.
    ///
    /// For the checks between the raw struct and the checked type; `text` names the key, as in
    /// `smtp.port is 99999, but must be at most 65535`, and [`load_checked`](super::load_checked) finds its line.
    pub fn in_file(file: &Path, text: impl fmt::Display) -> Self {
        Self::of(vec![Said { file: file.to_owned(), line: None, text: text.to_string() }])
    }

    pub(super) fn on_line(file: &Path, line: usize, text: impl fmt::Display) -> Self {
        Self::of(vec![Said { file: file.to_owned(), line: Some(line), text: text.to_string() }])
    }

    /// All of them. There must be one.
    pub(super) fn of(mistakes: Vec<Said>) -> Self {
        debug_assert!(!mistakes.is_empty(), "an error has a mistake");
        Self { mistakes }
    }

    pub(super) fn into_mistakes(self) -> Vec<Said> {
        self.mistakes
    }

    /// The words of one mistake in `file` that has no line.
    pub(super) fn without_line(&self, file: &Path) -> Option<&str> {
        match self.mistakes.as_slice() {
            [one] if one.line.is_none() && one.file == file => Some(&one.text),
            _ => None,
        }
    }

    /// Each mistake as a line for people.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.mistakes.iter().map(|said| OneLine(&said.full_text()).to_string())
    }

    fn summary(&self) -> String {
        let first = self.lines().next().unwrap_or_default();
        match self.mistakes.len() - 1 {
            0 => first,
            1 => format!("{first}; and 1 more mistake, which --check-config shows"),
            more => format!("{first}; and {more} more mistakes, which --check-config shows"),
        }
    }
}

impl Said {
    /// By its file's place among `files`, then its line; what is about a whole file comes before its lines.
    pub(super) fn order(&self, files: &[PathBuf]) -> (usize, Option<usize>) {
        (files.iter().position(|file| *file == self.file).unwrap_or(files.len()), self.line)
    }

    fn full_text(&self) -> String {
        let file = self.file.display();
        match self.line {
            Some(line) => format!("{file}:{line}: {}", self.text),
            None => format!("{file}: {}", self.text),
        }
    }
}

/// Control characters in file names, keys and values must not break or colour the line of a log.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// Text from a file in quotes, cut to a readable length.
pub(super) fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(MAX_QUOTED_CHARS).collect();
    let rest = if chars.next().is_some() { "..." } else { "" };
    format!("{head:?}{rest}")
}

/// A key as it may be written in TOML.
pub(super) fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= MAX_QUOTED_CHARS && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// The known key that was most likely meant by `name`, if one is plausible.
pub(super) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    if name.len() > MAX_QUOTED_CHARS {
        return None;
    }
    let folded = |text: &str| text.to_lowercase().replace('-', "_");
    let name = folded(name);
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &folded(candidate)), *candidate))
        .filter(|(distance, candidate)| {
            let is_beginning = name.len() >= 3 && candidate.starts_with(&name);
            // One slip in three letters: `intervall` is `interval`, but `up` is not `ip`.
            is_beginning || distance * 3 <= name.len().max(candidate.len())
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
