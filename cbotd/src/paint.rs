//! What a line looks like: its label in colour, and others' words so that they stay words.

use common::severity::Severity;
use common::text::turns_direction;

/// How something looks. Never the only sign: a word says it too.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// Bold and red.
    Alarming,
    /// Red.
    Bad,
    /// Orange.
    Doubtful,
    /// Green.
    Good,
    Plain,
}

impl Look {
    /// Of what is as bad as this.
    pub(crate) fn of(severity: Severity) -> Self {
        match severity {
            Severity::Crit => Look::Alarming,
            Severity::Err => Look::Bad,
            Severity::Warn => Look::Doubtful,
            Severity::Info | Severity::Debug => Look::Plain,
        }
    }
}

/// `[ DOWN ] `, in its colour if there are colours.
pub(crate) fn label(colour: bool, word: &str, look: Look) -> String {
    // Two digits, or a digit that follows would belong to the colour; ^O ends colour and bold.
    let begin = match look {
        _ if !colour => return format!("[ {word} ] "),
        Look::Plain => return format!("[ {word} ] "),
        Look::Alarming => "\x02\x0304",
        Look::Bad => "\x0304",
        Look::Doubtful => "\x0307",
        Look::Good => "\x0303",
    };
    format!("{begin}[ {word} ]\x0f ")
}

pub(crate) fn bold(colour: bool, text: &str) -> String {
    if colour { format!("\x02{text}\x0f") } else { text.to_owned() }
}

/// Without the marks that turn the direction of writing.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !turns_direction(*c)).collect()
}

/// At most so many bytes, never half a character, and a mark where something is missing.
pub(crate) fn cut(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// As many entries in each line as fit, each line with the same beginning.
pub(crate) fn pack(begin: &str, entries: impl Iterator<Item = String>, width: usize) -> Vec<String> {
    pack_on(begin, begin, entries, width)
}

/// The same, with a beginning of their own for the lines after the first.
pub(crate) fn pack_on(begin: &str, further: &str, entries: impl Iterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for entry in entries {
        match lines.last_mut() {
            Some(line) if line.len() + ", ".len() + entry.len() <= width => {
                line.push_str(", ");
                line.push_str(&entry);
            }
            Some(_) => lines.push(format!("{further}{entry}")),
            None => lines.push(format!("{begin}{entry}")),
        }
    }
    lines
}
