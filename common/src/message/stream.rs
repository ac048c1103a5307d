//! The stream: what cprocessd says.

use crate::address::{Address, HostName, Name, Unit};
use crate::message::{DecodeError, Epoch, decode};
use crate::severity::Severity;
use crate::time::UnixMillis;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// The space our ids live in: UUIDv5 of `cairn` in RFC 9562's URL namespace. Part of the contract: two cprocessds with
/// equal input make equal ids.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, b"cairn")
}

/// One trouble, from opening to resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IncidentId(Uuid);

impl IncidentId {
    /// UUIDv5 of the incident's key and the time of its first bad observation: `ADDRESS RULE MILLIS`.
    pub fn new(address: &Address, rule: &str, first_bad: UnixMillis) -> Self {
        Self(Uuid::new_v5(&namespace(), format!("{address} {rule} {}", first_bad.0).as_bytes()))
    }
}

/// One event. Equal ids are copies of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(Uuid);

impl EventId {
    /// UUIDv5 of incident, kind and the ordinal of that kind in the incident, from 1: `INCIDENT KIND ORDINAL`.
    pub fn new(incident: IncidentId, kind: Kind, ordinal: u32) -> Self {
        Self(Uuid::new_v5(&namespace(), format!("{incident} {kind} {ordinal}").as_bytes()))
    }

    /// For an event that belongs to no incident: UUIDv5 of its origin and rule, `ORIGIN RULE`.
    pub fn of_origin(origin: &str, rule: &str) -> Self {
        Self(Uuid::new_v5(&namespace(), format!("{origin} {rule}").as_bytes()))
    }
}

macro_rules! uuid_as_text {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = uuid::Error;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Uuid::try_parse(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    )*};
}
uuid_as_text!(IncidentId EventId);

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A check or a host went down.
    Down,
    /// It is up again, or was found up for the first time.
    Up,
    /// It needed retries, or was down too shortly to count.
    Blip,
    /// A number crossed its rule's limit.
    Alarm,
    /// An alarm, or an absence, is over.
    Solved,
    /// Something expected is not heard of.
    Absent,
    /// Its trouble is closed because nobody watches it any more.
    Retired,
    /// An event of a log or a plugin.
    Log,
    /// A ccollectd runs again after a goodbye.
    Started,
    /// A ccollectd said goodbye.
    Stopped,
    /// A notifier does not hear its cprocessd any more, or hears it again. Said by the notifier itself.
    Watchdog,
    /// It changes too often to tell each change; or it is calm again.
    Flapping,
    /// It is still open after a step of the ladder.
    Persistent,
    /// It was open while it was not told, and now it is.
    Revealed,
    /// Somebody looks after it, or no longer does.
    Ack,
    /// Something is not told for a while, or told again.
    Silence,
    /// A person's order was carried out.
    Order,
    /// A kind of a newer cprocessd.
    #[serde(other)]
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Down => "down",
            Kind::Up => "up",
            Kind::Blip => "blip",
            Kind::Alarm => "alarm",
            Kind::Solved => "solved",
            Kind::Absent => "absent",
            Kind::Retired => "retired",
            Kind::Log => "log",
            Kind::Started => "started",
            Kind::Stopped => "stopped",
            Kind::Watchdog => "watchdog",
            Kind::Flapping => "flapping",
            Kind::Persistent => "persistent",
            Kind::Revealed => "revealed",
            Kind::Ack => "ack",
            Kind::Silence => "silence",
            Kind::Order => "order",
            Kind::Other => "other",
        })
    }
}

/// The state of a host or check, or of an alarm's incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// Nobody can tell.
    Unknown,
    /// An alarm's limit is crossed.
    Open,
    /// It no longer is.
    Resolved,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Up => "up",
            State::Down => "down",
            State::Unknown => "unknown",
            State::Open => "open",
            State::Resolved => "resolved",
        })
    }
}

/// Something worth saying about one address: it went down, came back, crossed a limit.
///
/// - **Path:** cprocessd to cmaild, cbotd, csmsd, cwebd, cctl and any foreign subscriber.
/// - **Topic:** `event.<SEVERITY>.<host>!`, the severity being `top_severity`. The closing mark matters: subscriptions
///   match by prefix, and without it a subscriber to `web1` would also receive `web10`.
/// - **When:** once, after it is in the journal, in the order of `seq`.
/// - **If lost:** the gap in `seq` shows it, or in `nth` to who takes only some severities; `events {after}` on the query
///   socket returns it.
/// - **Compatibility:** receivers ignore fields they do not know. A field may be added; its name is never given a second
///   meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The sender's journal.
    pub epoch: Epoch,
    /// Position in the journal of the sender. Consecutive, never reused within one `epoch`.
    pub seq: u64,
    /// The count of this event within its topic severity, from 1.
    pub nth: u64,
    /// The same for every cprocessd that saw the same observation, so that copies can be dropped.
    pub id: EventId,
    /// The trouble it belongs to. Threads mails and rows.
    pub incident: IncidentId,
    /// What it says.
    pub kind: Kind,
    /// What it is about.
    pub address: Address,
    /// The host of `address`.
    pub host: HostName,
    /// The service of `address`.
    pub service: Name,
    /// The unit of `address`.
    pub unit: Unit,
    /// How bad this event is: a recovery is INFO.
    pub severity: Severity,
    /// The worst its incident has been: a recovery from CRIT is CRIT here.
    pub top_severity: Severity,
    /// The state of the address from now on.
    pub state: State,
    /// When the trouble began by the observer's clock, not when this message was sent.
    pub since: UnixMillis,
    /// When this was observed, by the observer's clock.
    pub time: UnixMillis,
    /// For people.
    pub text: String,
    /// The number that crossed the limit, or came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The rule that says so; `check` for up and down.
    pub rule: String,
    /// How many steps of the ladder of persistent outages its incident has reached; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// How long the trouble lasted, once it is over. Absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Why it is not to be told, `CAUSE:NAME` each: `silence:ID`, `maintenance:NAME`, `unreachable:ADDRESS`, `ack:AUTHOR`. Absent
    /// where nothing speaks against telling it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_by: Vec<String>,
    /// The attachment of a log event; the whole order of an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<rmpv::Value>,
}

/// With an attachment of 64 KiB, and address, unit and text as long as may be.
const MAX_EVENT_BYTES: usize = 128 << 10;
/// Of a text, this is kept: what ccollectd takes.
const MAX_TEXT_BYTES: usize = 1 << 10;
/// No rule's name is longer: cprocessd takes 100 bytes.
pub(crate) const MAX_RULE_BYTES: usize = 200;

impl Event {
    /// Reads an event for who tells or shows it, and keeps many: without its attachment, and only the beginning of a text
    /// that is too long. One that is larger than any, or whose address is not that of its host, service and unit, is no
    /// event.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(DecodeError::TooLarge { bytes: bytes.len(), most: MAX_EVENT_BYTES });
        }
        let event: Self = decode(bytes)?;
        let address = &event.address;
        if (address.host(), address.service(), address.unit()) != (&event.host, &event.service, &event.unit) {
            return Err(DecodeError::Contradiction("the address is not that of host, service and unit"));
        }
        if event.rule.len() > MAX_RULE_BYTES {
            return Err(DecodeError::TooLarge { bytes: event.rule.len(), most: MAX_RULE_BYTES });
        }
        Ok(Self { text: kept(&event.text).to_owned(), data: None, ..event })
    }
}

/// As much of a text as is kept.
pub(crate) fn kept(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

/// The topic of an event of this severity and host.
pub fn event_topic(top_severity: Severity, host: &HostName) -> String {
    format!("event.{top_severity}.{host}!")
}
