//! Writes the stories into one text: what is wrong, where, since when, in as few words as a telephone shows at a glance.

use crate::text::{Limit, plain};
use common::notifier::{Composed, Letter, Mark, Story};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// What stands before a text that another provider may have delivered already.
pub(crate) const PERHAPS_AGAIN: &str = "(again?) ";
/// Of one event's text. More is left to the mail and the page.
const MAX_TEXT_CHARS: usize = 300;
/// Of one event's text among others.
const MAX_TEXT_CHARS_OF_MANY: usize = 60;

/// A text on its way: what the frame keeps as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The worst that it tells of.
    pub(crate) severity: Severity,
    /// For media with a title.
    pub(crate) title: String,
    /// The text itself, complete without the title.
    pub(crate) text: String,
}

/// Writes as many stories as fit, with `reserve` characters of space for what may have to stand before them.
pub(crate) fn compose(letter: &Letter<'_>, limit: Limit, reserve: usize) -> (Message, usize) {
    let start = if letter.again { "(again) " } else { "" };
    let write = |stories: &[Story], texts: bool| {
        let text = format!("{start}{}", write_all(stories, letter.now, texts));
        if limit.segments.is_some() { plain(&text) } else { text }
    };
    let fits = |text: &String| limit.fits(text, reserve);
    let stories = letter.stories;
    let whole = write(stories, true);
    let (text, told) = if fits(&whole) {
        (whole, stories.len())
    } else {
        // Names alone from here on: many names serve better than one long text.
        let texts = (2..=stories.len()).map(|told| (write(&stories[..told], false), told));
        let most = texts.take_while(|(text, _)| fits(text)).last();
        most.unwrap_or_else(|| (limit.cut(&write(&stories[..1], true), reserve), 1))
    };
    let told_stories = &stories[..told];
    (Message { severity: worst(told_stories), title: title(told_stories), text }, told)
}

/// As the frame takes it.
pub(crate) fn composed(message: &Message, told: usize) -> Composed {
    Composed { bytes: serde_json::to_vec(message).expect("strings are JSON"), told }
}

fn worst(stories: &[Story]) -> Severity {
    stories.iter().map(Story::severity).max().expect("a letter has a story")
}

fn title(stories: &[Story]) -> String {
    match stories {
        [story] => format!("{} {} {}", story.severity(), story.word(), story.event.host),
        _ => format!("{} {}", stories.len(), group(stories)),
    }
}

/// The severity that all have, or that they differ.
fn group(stories: &[Story]) -> &'static str {
    match common_severity(stories) {
        Some(severity) => severity.as_str(),
        None => "events",
    }
}

fn common_severity(stories: &[Story]) -> Option<Severity> {
    let first = stories.first()?.severity();
    stories.iter().all(|story| story.severity() == first).then_some(first)
}

fn write_all(stories: &[Story], now: UnixMillis, texts: bool) -> String {
    if let [story] = stories {
        return format!("{} {}", story.severity(), write_one(story, now, Some(MAX_TEXT_CHARS)));
    }
    let named = common_severity(stories).is_none();
    let lines = stories.iter().map(|story| {
        let line = write_one(story, now, texts.then_some(MAX_TEXT_CHARS_OF_MANY));
        if named { format!("{} {line}", story.severity()) } else { line }
    });
    format!("{} {}: {}", stories.len(), group(stories), lines.collect::<Vec<_>>().join("; "))
}

/// `DOWN web1!port:smtp (25): refused 12m 3s ago`.
fn write_one(story: &Story, now: UnixMillis, text_chars: Option<usize>) -> String {
    let mut line = format!("{} {}", story.word(), story.event.address);
    if let Some(text) = text_chars.map(|most| story.line(most)).filter(|text| !text.trim().is_empty()) {
        line.push_str(": ");
        line.push_str(text.trim());
    }
    if story.outages > 1 {
        let _ = write!(line, " ({} times)", story.outages);
    }
    if let (Mark::Ended | Mark::Passed, Some(duration)) = (story.mark, story.duration()) {
        let _ = write!(line, " after {}", for_people(duration));
    }
    if let Some(age) = story.age(now) {
        line.push(' ');
        line.push_str(&age);
    }
    line
}
