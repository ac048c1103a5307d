//! A mail as plain text: short lines, which do not wrap on a telephone.

use crate::compose::{Content, List};
use crate::entry::{Entry, Section};
use std::fmt::Write;

/// The whole text.
pub(crate) fn write(content: &Content<'_>) -> String {
    let mut text = String::new();
    for note in &content.notes {
        let _ = writeln!(text, "{note}");
    }
    if !content.notes.is_empty() {
        text.push('\n');
    }
    match &content.summary {
        None => text.extend(content.entries.iter().map(block)),
        Some(summary) => {
            let _ = writeln!(text, "{summary}");
            for common in &content.common {
                let _ = writeln!(text, "- {common}");
            }
            for (section, title) in Section::ALL {
                for (nth, entry) in content.entries.iter().filter(|entry| entry.section == section).enumerate() {
                    if nth == 0 {
                        let _ = write!(text, "\n{}\n", title.to_uppercase());
                    }
                    let _ = write!(text, "\n{}", block(entry));
                }
            }
        }
    }
    for words in &content.words {
        let _ = write!(text, "{words}\n\n");
    }
    text.extend(content.lists.iter().map(list));
    if let Some(link) = &content.link {
        let _ = writeln!(text, "\n{}: {}", link.name, link.url);
    }
    let _ = write!(text, "\n-- \n{}\n", content.footer);
    if let Some(leave) = &content.leave {
        let _ = writeln!(text, "Unsubscribe: {leave}");
    }
    text
}

/// What is said by its name only, or in one line.
pub(crate) fn list(list: &List) -> String {
    let mut text = format!("\n{}\n", list.title.to_uppercase());
    for (what, how) in &list.rows {
        let _ = writeln!(text, "\n{what}");
        if !how.is_empty() {
            let _ = writeln!(text, "    {how}");
        }
    }
    text
}

/// One story. Others' words are indented: they cannot pose as a line of ours.
pub(crate) fn block(entry: &Entry) -> String {
    let mut block = format!("{}\n", entry.headline);
    for line in entry.lines.iter().filter(|_| !entry.is_said) {
        let _ = writeln!(block, "    {line}");
    }
    for (key, value) in &entry.facts {
        let _ = writeln!(block, "{key}: {value}");
    }
    if let Some(link) = &entry.link {
        let _ = writeln!(block, "Page: {link}");
    }
    block
}
