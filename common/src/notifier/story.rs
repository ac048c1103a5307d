//! What a message says of one thing, and the words that all media share.

use crate::message::{Event, IncidentId, Kind};
use crate::severity::Severity;
use crate::time::{UnixMillis, for_people};
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

/// From this age on, a message says how old its news is. Less is the ordinary way of a message.
const WORTH_SAYING: Duration = Duration::from_secs(30);

/// One message to one recipient. It stays the same however often the message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub(crate) Uuid);

impl MessageId {
    /// UUIDv5 of the recipient and the outbox items that it tells: `RECIPIENT ITEM ITEM ...`.
    pub fn new(outbox: Uuid, recipient: &str, items: &[i64]) -> Self {
        let mut name = recipient.to_owned();
        for item in items {
            name.push(' ');
            name.push_str(&item.to_string());
        }
        Self(Uuid::new_v5(&outbox, name.as_bytes()))
    }

    /// A message id that was written down.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What a story is to its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Trouble that is open, and news to them.
    Began,
    /// The end of what they were told of.
    Ended,
    /// Trouble that began and ended before they could be told: one story, with its duration.
    Passed,
    /// What neither begins nor ends anything.
    Once,
}

impl Mark {
    /// How bad a story is that `event` says and that has been as bad as `worst`.
    pub(crate) fn severity(self, event: &Event, worst: Severity) -> Severity {
        match self {
            Mark::Began | Mark::Passed => worst,
            Mark::Ended | Mark::Once => event.severity,
        }
    }

    /// When the news of a story happened that `event` says.
    pub(crate) fn happened(self, event: &Event) -> UnixMillis {
        match self {
            Mark::Began => event.since,
            Mark::Ended | Mark::Passed | Mark::Once => event.time,
        }
    }
}

/// What there is to say of one address under one rule, or one event that stands alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// What it is to this recipient.
    pub mark: Mark,
    /// The event that says it: for [`Mark::Passed`] the last end.
    pub event: Event,
    /// How many outages of this key are told in this story: 1, or more if it came and went while the message waited.
    pub outages: u32,
    /// The message in which this recipient was told of the beginning; only with [`Mark::Ended`]. Threads mails.
    pub told_in: Option<MessageId>,
}

impl Story {
    /// The incident, which threads what belongs together.
    pub fn incident(&self) -> IncidentId {
        self.event.incident
    }

    /// The worst of it.
    pub fn severity(&self) -> Severity {
        self.mark.severity(&self.event, self.event.top_severity)
    }

    /// Asks whether they want to be told: nothing has happened.
    pub fn is_question(&self) -> bool {
        self.event.rule == crate::notifier::SUBSCRIPTION_RULE
    }

    /// One word for people, as the 2013 bot had it: `DOWN`, `UP`, `ALARM`, `SOLVED`, ...
    pub fn word(&self) -> &'static str {
        if self.is_test() {
            return "TEST";
        }
        match (self.mark, self.event.kind) {
            (Mark::Began, Kind::Watchdog) => "SILENT",
            (Mark::Ended | Mark::Passed, Kind::Watchdog) => "HEARD",
            (_, Kind::Down) => "DOWN",
            (_, Kind::Up) => "UP",
            (_, Kind::Blip) => "BLIP",
            (_, Kind::Alarm) => "ALARM",
            (_, Kind::Solved) => "SOLVED",
            (_, Kind::Absent) => "ABSENT",
            (_, Kind::Retired) => "RETIRED",
            (_, Kind::Log) => "LOG",
            (_, Kind::Started) => "STARTED",
            (_, Kind::Stopped) => "STOPPED",
            (_, Kind::Flapping) => "FLAPPING",
            (_, Kind::Persistent) => "STILL",
            (_, Kind::Revealed) => "OPEN",
            (_, Kind::Ack) => "ACK",
            (_, Kind::Silence) => "SILENCE",
            (_, Kind::Order) => "ORDER",
            (_, Kind::Watchdog | Kind::Other) => "EVENT",
        }
    }

    /// Somebody tries the path out: `cctl test-notify`.
    pub fn is_test(&self) -> bool {
        self.event.rule == crate::notifier::TEST_RULE
    }

    /// How long the trouble lasted, once it is over.
    pub fn duration(&self) -> Option<Duration> {
        self.event.duration_ms.map(Duration::from_millis)
    }

    /// When the news happened: the beginning of what is open, the end of what is over.
    pub fn happened(&self) -> UnixMillis {
        self.mark.happened(&self.event)
    }

    /// How old the news is, if that is worth saying: `12m 3s ago`.
    pub fn age(&self, now: UnixMillis) -> Option<String> {
        let age = now.since(self.happened());
        (age >= WORTH_SAYING).then(|| format!("{} ago", for_people(age)))
    }

    /// The text without what could break out of a line: control characters become spaces, and at most `max_chars` are
    /// kept. For media of one line.
    pub fn line(&self, max_chars: usize) -> String {
        one_line(&self.event.text, max_chars)
    }
}

/// `text` on one line of at most `max_chars` characters: control characters, line and paragraph separators become spaces.
pub fn one_line(text: &str, max_chars: usize) -> String {
    let printable = |c: char| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c };
    let mut line: String = text.chars().take(max_chars).map(printable).collect();
    if text.chars().nth(max_chars).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_broken_out_of() {
        assert_eq!(one_line("a\r\nQUIT :b\0c\u{2028}d", 100), "a  QUIT :b c d");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("abcd", 4), "abcd");
    }

    #[test]
    fn a_message_keeps_its_id() {
        let outbox = Uuid::nil();
        assert_eq!(MessageId::new(outbox, "ops", &[1, 2]), MessageId::new(outbox, "ops", &[1, 2]));
        assert_ne!(MessageId::new(outbox, "ops", &[1, 2]), MessageId::new(outbox, "ops", &[12]));
        assert_ne!(MessageId::new(outbox, "ops", &[1]), MessageId::new(Uuid::max(), "ops", &[1]));
    }
}
