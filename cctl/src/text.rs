//! Text for a terminal: what comes from outside cannot move the cursor or change the title of the window, columns
//! align, and colour is never the only sign.

use common::message::State;
use common::severity::Severity;
use common::text::turns_direction;
use common::time::UnixMillis;
use std::fmt::Write;

/// Whether to colour, and the moment that durations are shown for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ink {
    /// Escape sequences may be written.
    pub(crate) colour: bool,
    /// The present.
    pub(crate) now: UnixMillis,
}

/// A colour, by what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tint {
    /// As the terminal has it.
    Plain,
    /// It works.
    Good,
    /// Nobody can tell, or look at it some time.
    Doubtful,
    /// It does not work.
    Bad,
    /// Wake somebody.
    Worst,
    /// Less important than the rest.
    Faint,
    /// The head of a table.
    Strong,
}

impl Tint {
    /// The parameters of the sequence "select graphic rendition" (ECMA-48, 8.3.117).
    const fn code(self) -> &'static str {
        match self {
            Tint::Plain => "",
            Tint::Good => "32",
            Tint::Doubtful => "33",
            Tint::Bad => "31",
            Tint::Worst => "1;31",
            Tint::Faint => "2",
            Tint::Strong => "1",
        }
    }
}

impl From<Severity> for Tint {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Debug => Tint::Faint,
            Severity::Info => Tint::Good,
            Severity::Warn => Tint::Doubtful,
            Severity::Err => Tint::Bad,
            Severity::Crit => Tint::Worst,
        }
    }
}

impl From<State> for Tint {
    fn from(state: State) -> Self {
        match state {
            State::Up | State::Resolved => Tint::Good,
            State::Down | State::Open => Tint::Bad,
            State::Unknown => Tint::Doubtful,
        }
    }
}

impl Ink {
    /// The text in that colour, if there are colours.
    pub(crate) fn paint(self, tint: Tint, text: &str) -> String {
        match tint.code() {
            code if self.colour && !code.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// How long ago, for people.
    pub(crate) fn age(self, since: UnixMillis) -> String {
        common::time::for_people(self.now.since(since))
    }
}

/// Text from outside with every character escaped that a terminal might obey: control characters, the C1 ones of ISO
/// 6429 too, and those that turn the direction of the line around.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{2028}' | '\u{2029}' => shown.extend(c.escape_unicode()),
            c if turns_direction(c) => shown.extend(c.escape_unicode()),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// One line of JSON. Same value, but the control characters that JSON lets stand are escaped as well: JSON is printed
/// to terminals, too.
pub(crate) fn json_line(value: &serde_json::Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' => write!(line, "\\u{:04x}", u32::from(c)).expect("a string takes any text"),
            c => line.push(c),
        }
    }
    line.push('\n');
    line
}

/// `1 host`, `2 hosts`.
pub(crate) fn counted(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// Bytes for people, one digit after the point.
pub(crate) fn bytes_for_people(bytes: u64) -> String {
    let (unit, name) = if bytes < 1 << 20 { (1 << 10, "KiB") } else { (1 << 20, "MiB") };
    let tenths = bytes.saturating_mul(10) / unit;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// One field of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tint: Tint,
    right: bool,
}

impl Cell {
    /// Text of ours or from outside; it is escaped here.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: escape(text.as_ref()), tint: Tint::Plain, right: false }
    }

    /// A number, aligned to the right.
    pub(crate) fn right(text: impl AsRef<str>) -> Self {
        Self { right: true, ..Self::new(text) }
    }

    /// In this colour.
    pub(crate) fn tinted(self, tint: impl Into<Tint>) -> Self {
        Self { tint: tint.into(), ..self }
    }
}

/// Rows under a head, in columns as wide as their widest field.
#[derive(Clone, Debug)]
pub(crate) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    /// No rows yet.
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [Cell; N]) {
        self.rows.push(cells);
    }

    /// The lines, each with its end. Columns in which no row has anything are left out.
    pub(crate) fn render(&self, ink: Ink) -> String {
        let width_of = |column: usize| self.rows.iter().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
        let columns: Vec<(usize, usize)> = (0..N)
            .map(|column| (column, width_of(column)))
            .filter(|(_, width)| *width > 0)
            .map(|(column, width)| (column, width.max(self.head[column].len())))
            .collect();
        let mut text = String::new();
        let head = self.head.map(|word| Cell::new(word).tinted(Tint::Strong));
        for (at, row) in std::iter::once(&head).chain(&self.rows).enumerate() {
            let mut line = String::new();
            for &(column, width) in &columns {
                let cell = &row[column];
                // A head stands over its numbers.
                let right = if at == 0 { self.rows.iter().any(|row| row[column].right) } else { cell.right };
                let padding = " ".repeat(width - cell.text.chars().count());
                let painted = ink.paint(cell.tint, &cell.text);
                let (before, after) = if right { (padding, painted) } else { (painted, padding) };
                line.extend([before.as_str(), after.as_str(), "  "]);
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Ink = Ink { colour: false, now: UnixMillis(0) };
    const COLOURED: Ink = Ink { colour: true, now: UnixMillis(0) };

    #[test]
    fn columns_align_by_characters_and_numbers_to_the_right() {
        let mut table = Table::new(["HOST", "EMPTY", "CHECKS", "TEXT"]);
        table.row([Cell::new("übermäßig"), Cell::new(""), Cell::right("7"), Cell::new("a")]);
        table.row([Cell::new("web1"), Cell::new(""), Cell::right("1234567"), Cell::new("")]);
        assert_eq!(
            table.render(PLAIN),
            "HOST        CHECKS  TEXT\n\
             übermäßig        7  a\n\
             web1       1234567\n"
        );
    }

    #[test]
    fn colour_changes_no_width_and_no_word() {
        let mut table = Table::new(["STATE", "TEXT"]);
        table.row([Cell::new("down").tinted(State::Down), Cell::new("x")]);
        assert_eq!(table.render(COLOURED), "\x1b[1mSTATE\x1b[0m  \x1b[1mTEXT\x1b[0m\n\x1b[31mdown\x1b[0m   x\n");
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_as_an_order() {
        assert_eq!(escape("\x1b]0;owned\x07 \u{9b}31m\r\n\t"), "\\u{1b}]0;owned\\u{7} \\u{9b}31m\\r\\n\\t");
        assert_eq!(escape("a\u{202e}b\u{2066}\u{7f}"), "a\\u{202e}b\\u{2066}\\u{7f}");
        assert_eq!(escape("Grüße, 漢字 \\ '\""), "Grüße, 漢字 \\ '\"");
    }

    #[test]
    fn json_keeps_its_value_and_loses_its_control_characters() {
        let value = serde_json::json!({"text": "\u{9b}31m\u{7f}\x1bü"});
        let line = json_line(&value);
        assert!(line.ends_with('\n') && !line.trim_end().chars().any(char::is_control), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).expect("JSON"), value);
    }
}
