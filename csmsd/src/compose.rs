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
        // `web1!alive:` has its colon already.
        line.push_str(if line.ends_with(':') { " " } else { ": " });
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

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::{Event, Kind};
    use common::notifier::MessageId;

    const NOW: UnixMillis = UnixMillis(1_795_236_306_000);

    fn story(mark: Mark, kind: Kind, severity: Severity, address: &str, text: &str, ago_secs: u64) -> Story {
        let time = NOW.minus(std::time::Duration::from_secs(ago_secs));
        let (host, unit) = address.split_once("!port:").expect("a port");
        let event = serde_json::json!({
            "epoch": "e", "seq": 1, "nth": 1,
            "id": "00000000-0000-0000-0000-000000000000", "incident": "00000000-0000-0000-0000-000000000000",
            "kind": kind, "address": address, "host": host, "service": "port", "unit": unit,
            "severity": severity, "top_severity": "CRIT", "state": "down",
            "since": time, "time": time, "text": text, "rule": "check",
        });
        let mut event: Event = serde_json::from_value(event).expect("an event");
        if mark == Mark::Ended {
            event.duration_ms = Some(723_000);
        }
        Story { mark, event, outages: 1, told_in: None }
    }

    fn down(address: &str, text: &str, ago_secs: u64) -> Story {
        story(Mark::Began, Kind::Down, Severity::Crit, address, text, ago_secs)
    }

    fn written(stories: &[Story], again: bool, segments: usize) -> (String, usize) {
        let id = MessageId::parse("00000000-0000-0000-0000-000000000001").expect("an id");
        let letter = Letter { id, recipient: "ops", stories, again, now: NOW };
        let limit = Limit { segments: Some(segments), chars: None };
        let (message, told) = compose(&letter, limit, 0);
        assert!(limit.fits(&message.text, 0), "{}", message.text);
        (message.text, told)
    }

    #[test]
    fn one_story_says_what_where_and_since_when() {
        let one = down("web1!port:smtp (25)", "refused", 723);
        assert_eq!(
            written(std::slice::from_ref(&one), false, 3).0,
            "CRIT DOWN web1!port:smtp (25): refused 12m 3s ago"
        );
        assert_eq!(written(&[one], true, 3).0, "(again) CRIT DOWN web1!port:smtp (25): refused 12m 3s ago");
        let up = story(Mark::Ended, Kind::Up, Severity::Info, "web1!port:smtp", "", 2);
        assert_eq!(written(&[up], false, 3).0, "INFO UP web1!port:smtp after 12m 3s");
        let mut often = down("web1!port:smtp", "“gone” –\r\nfor…", 0);
        often.outages = 3;
        assert_eq!(written(&[often], false, 3).0, "CRIT DOWN web1!port:smtp: \"gone\" -  for... (3 times)");
    }

    #[test]
    fn a_test_says_so() {
        let mut test = down("m!port:x", "", 0);
        test.event.rule = common::notifier::TEST_RULE.to_owned();
        assert_eq!(written(&[test], false, 3).0, "CRIT TEST m!port:x");
    }

    #[test]
    fn several_are_counted_and_named() {
        let stories = [down("web1!port:a", "refused", 5), down("db1!port:b", "timeout", 65)];
        let expected = "2 CRIT: DOWN web1!port:a: refused; DOWN db1!port:b: timeout 1m 5s ago";
        assert_eq!(written(&stories, false, 3), (expected.to_owned(), 2));
        let [one, two] = stories;
        let mixed = [one, two, story(Mark::Ended, Kind::Up, Severity::Info, "x!port:c", "", 0)];
        let (text, _) = written(&mixed, false, 3);
        assert!(text.starts_with("3 events: CRIT DOWN web1!port:a: refused; "), "{text}");
        assert!(text.ends_with("; INFO UP x!port:c after 12m 3s"), "{text}");
    }

    #[test]
    fn what_does_not_fit_waits_for_the_next_text() {
        let stories: Vec<Story> = (0..500)
            .map(|n| down(&format!("web{n}!port:smtp (25)"), "connection refused by the other side", 0))
            .collect();
        let (text, told) = written(&stories, false, 3);
        assert!((10..30).contains(&told), "{told}");
        assert!(text.starts_with(&format!("{told} CRIT: DOWN web0!port:smtp (25); DOWN web1!")), "{text}");
        // What the frame does next: the same letter again, with no more stories than fit.
        assert_eq!(written(&stories[..told], false, 3).1, told);
        assert_eq!(written(&stories[..3], false, 1).1, 3);
    }

    #[test]
    fn a_long_story_is_cut_and_still_told() {
        let long = down(&format!("web1!port:{}", "x".repeat(250)), &"я".repeat(5000), 0);
        for segments in 1..=8 {
            let (text, told) = written(&[long.clone(), long.clone()], false, segments);
            assert!(told >= 1 && text.contains("web1!port:xxx"), "{text}");
        }
    }

    #[test]
    fn a_push_has_a_title_and_keeps_its_dashes() {
        let id = MessageId::parse("00000000-0000-0000-0000-000000000001").expect("an id");
        let stories = [down("web1!port:a", "gone – really", 0)];
        let letter = Letter { id, recipient: "ops", stories: &stories, again: false, now: NOW };
        let (message, _) = compose(&letter, Limit { segments: None, chars: Some(1024) }, 0);
        assert_eq!(message.title, "CRIT DOWN web1");
        assert_eq!(message.text, "CRIT DOWN web1!port:a: gone – really");
        assert_eq!(message.severity, Severity::Crit);
    }
}
