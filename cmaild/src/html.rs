//! A mail as HTML, for a telephone first: one column, nothing to load, styles in the elements since many readers drop the
//! rest. It sets neither background nor the colour of text, so that light and dark are the reader's own; the colours that it
//! has stand out from both, and say nothing that the words do not.

use crate::compose::{Content, List};
use crate::entry::{Entry, Section};
use common::severity::Severity;
use common::text::html_escaped as escaped;
use std::fmt::Write;

/// Beside black and white alike.
const DIM: &str = "#767676";

/// The whole page.
pub(crate) fn write(content: &Content<'_>) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"supported-color-schemes\" content=\"light dark\">\n\
         <title>{}</title>\n</head>\n\
         <body style=\"margin:0;padding:12px;font-family:sans-serif;font-size:16px;line-height:1.4\">\n",
        escaped(content.subject)
    );
    for note in &content.notes {
        let _ = writeln!(html, "<p style=\"margin:0 0 12px\"><em>{}</em></p>", escaped(note));
    }
    match &content.summary {
        None => html.extend(content.entries.iter().map(block)),
        Some(summary) => {
            let _ = writeln!(html, "<p style=\"margin:0 0 12px\"><strong>{}</strong></p>", escaped(summary));
            if !content.common.is_empty() {
                let items = content.common.iter().map(|common| format!("<li>{}</li>\n", escaped(common)));
                let items: String = items.collect();
                let _ = writeln!(html, "<ul style=\"margin:0 0 12px;padding:0 0 0 20px\">\n{items}</ul>");
            }
            for (section, title) in Section::ALL {
                for (nth, entry) in content.entries.iter().filter(|entry| entry.section == section).enumerate() {
                    if nth == 0 {
                        let _ = writeln!(html, "<h2 style=\"margin:16px 0 8px;font-size:18px\">{title}</h2>");
                    }
                    html.push_str(&block(entry));
                }
            }
        }
    }
    for words in &content.words {
        let _ = writeln!(html, "<p style=\"margin:0 0 12px;overflow-wrap:anywhere\">{}</p>", escaped(words));
    }
    html.extend(content.lists.iter().map(list));
    if let Some(link) = &content.link {
        let (url, label) = (escaped(&link.url), link.label);
        let _ = writeln!(html, "<p style=\"margin:16px 0 0\"><a href=\"{url}\">{label}</a></p>");
    }
    let mut footer = escaped(&content.footer);
    if let Some(leave) = &content.leave {
        let _ = write!(footer, "<br>\n<a href=\"{}\">Unsubscribe</a>", escaped(leave));
    }
    let _ = write!(html, "<p style=\"margin:16px 0 0;color:{DIM};font-size:13px\">{footer}</p>\n</body>\n</html>\n");
    html
}

/// What is said by its name only, or in one line.
pub(crate) fn list(list: &List) -> String {
    let mut html = format!("<h2 style=\"margin:16px 0 8px;font-size:18px\">{}</h2>\n", escaped(&list.title));
    for (what, how) in &list.rows {
        let _ = writeln!(
            html,
            "<div style=\"margin:0 0 8px;overflow-wrap:anywhere;word-break:break-word\"><strong>{}</strong><br>\n{}</div>",
            escaped(what),
            escaped(how)
        );
    }
    html
}

/// One story.
pub(crate) fn block(entry: &Entry) -> String {
    let mut block = format!(
        "<div style=\"margin:0 0 16px;padding:0 0 0 10px;border-left:5px solid {}\">\n\
         <div><strong>{}</strong> <span style=\"color:{DIM}\">{}</span></div>\n\
         <div style=\"overflow-wrap:anywhere;word-break:break-word\"><strong>{}</strong></div>\n",
        colour(entry),
        escaped(&entry.what),
        entry.severity,
        escaped(&entry.address),
    );
    if !entry.lines.is_empty() {
        let lines: Vec<String> = entry.lines.iter().map(|line| escaped(line)).collect();
        let _ = writeln!(
            block,
            "<div style=\"margin:4px 0;overflow-wrap:anywhere;word-break:break-word\">{}</div>",
            lines.join("<br>\n")
        );
    }
    for (key, value) in &entry.facts {
        let _ = writeln!(block, "<div><span style=\"color:{DIM}\">{key}</span> {}</div>", escaped(value));
    }
    if let Some(link) = &entry.link {
        let _ = writeln!(block, "<div><a href=\"{}\">Show on the page</a></div>", escaped(link));
    }
    block.push_str("</div>\n");
    block
}

fn colour(entry: &Entry) -> &'static str {
    match (entry.section, entry.severity) {
        (Section::Over, _) => "#2e9e4f",
        (Section::Open | Section::Other, Severity::Crit) => "#d32f6f",
        (Section::Open | Section::Other, Severity::Err) => "#d9412c",
        (Section::Open | Section::Other, Severity::Warn) => "#c77700",
        (Section::Open | Section::Other, Severity::Info | Severity::Debug) => "#4f83c4",
    }
}
