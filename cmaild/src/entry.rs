//! What a mail says of one story: its parts in words, before they become text or HTML.

use crate::page;
use crate::plain;
use common::notifier::{Mark, Story};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use std::fmt::Write;

/// Characters of an event's text in a headline.
const HEADLINE_CHARS: usize = 200;
/// The rules of everything that is up or down and of what a log said, which say nothing to a reader.
const PLAIN_RULES: [&str; 2] = ["check", "log"];

/// Where in a summary a story stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Open,
    Over,
    Other,
}

impl Section {
    pub(crate) const ALL: [(Self, &str); 3] =
        [(Self::Open, "Still open"), (Self::Over, "Over"), (Self::Other, "Notices")];

    pub(crate) fn of(story: &Story) -> Self {
        match story.mark {
            Mark::Began => Section::Open,
            Mark::Ended | Mark::Passed => Section::Over,
            Mark::Once => Section::Other,
        }
    }
}

/// One story. All of it is harmless as text; nothing is escaped for HTML yet.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) section: Section,
    pub(crate) severity: Severity,
    /// `DOWN`, `UP after 3m 12s`, `ALARM (2 outages)`.
    pub(crate) what: String,
    /// Where: the address.
    pub(crate) address: String,
    /// `[ERR] web1!port:smtp (25) UP after 3m 12s`.
    pub(crate) headline: String,
    /// What was seen, a line each.
    pub(crate) lines: Vec<String>,
    /// The headline has all of that.
    pub(crate) is_said: bool,
    /// `Since`, `Value`, `Rule` and the like.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// To this address on the page.
    pub(crate) link: Option<String>,
}

impl Entry {
    pub(crate) fn of(story: &Story, text_chars: usize, now: UnixMillis, page: Option<&str>) -> Self {
        let event = &story.event;
        let headline = headline(story, plain::ADDRESS_CHARS);
        let is_said =
            story.mark == Mark::Once && event.text.chars().nth(HEADLINE_CHARS).is_none() && !event.text.contains('\n');
        Self {
            section: Section::of(story),
            severity: severity(story),
            what: what(story),
            address: plain::line(&event.address.to_string(), plain::ADDRESS_CHARS),
            headline,
            lines: plain::lines(&event.text, text_chars),
            is_said,
            facts: facts(story, now),
            link: page.filter(|_| !story.is_test()).map(|page| page::link(page, &event.address, story.happened())),
        }
    }
}

/// How bad the trouble is, or was: who filters by the subject gets the end with the beginning.
pub(crate) fn severity(story: &Story) -> Severity {
    match story.mark {
        Mark::Began | Mark::Passed | Mark::Ended => story.event.top_severity,
        Mark::Once => story.event.severity,
    }
}

/// `[ERR] web1!port:smtp (25) UP after 3m 12s`.
pub(crate) fn headline(story: &Story, address_chars: usize) -> String {
    let address = plain::line(&story.event.address.to_string(), address_chars);
    let mut headline = format!("[{}] {address} {}", severity(story), what(story));
    if story.mark == Mark::Once && !story.event.text.is_empty() {
        let _ = write!(headline, ": {}", plain::line(&story.event.text, HEADLINE_CHARS));
    }
    plain::line(&headline, address_chars + HEADLINE_CHARS)
}

fn what(story: &Story) -> String {
    let mut what = story.word().to_owned();
    if let (Mark::Ended | Mark::Passed, Some(duration)) = (story.mark, story.duration()) {
        let _ = write!(what, " after {}", for_people(duration));
    }
    if story.outages > 1 {
        let _ = write!(what, " ({} outages)", story.outages);
    }
    what
}

fn facts(story: &Story, now: UnixMillis) -> Vec<(&'static str, String)> {
    let event = &story.event;
    let age = story.age(now).map(|age| format!(", {age}")).unwrap_or_default();
    let mut facts = match story.mark {
        Mark::Began => vec![("Since", format!("{}{age}", when(event.since)))],
        Mark::Ended | Mark::Passed => {
            vec![("Began", when(event.since)), ("Ended", format!("{}{age}", when(event.time)))]
        }
        Mark::Once => vec![("At", format!("{}{age}", when(event.time)))],
    };
    if let Some(value) = event.value {
        facts.push(("Value", number(value)));
    }
    if !PLAIN_RULES.contains(&event.rule.as_str()) && !story.is_test() {
        facts.push(("Rule", plain::line(&event.rule, plain::ADDRESS_CHARS)));
    }
    facts
}

/// A number with at most three decimals.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Date and time of day with the zone of this machine.
fn when(time: UnixMillis) -> String {
    match jiff::Timestamp::from_millisecond(time.0) {
        Ok(timestamp) => timestamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([93.2, 5.0, 0.1 + 0.2, 1e12, -0.5].map(number), ["93.2", "5", "0.3", "1000000000000", "-0.5"]);
    }
}
