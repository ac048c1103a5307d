//! The feed: what ccollectd publishes and cprocessd judges.

use crate::address::{CheckAddress, HostName, Name, Unit};
use crate::severity::Severity;
use crate::time::UnixMillis;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Names a journal. A publisher that starts with an empty journal takes a new one, so that a cursor from the old journal
/// is never taken for one into the new.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// An epoch nobody had before: 16 random hexadecimal digits.
    pub fn random() -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self(Arc::from(&id[..16]))
    }

    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Epoch {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.len() {
            1..=64 if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => Ok(Self(Arc::from(text))),
            _ => Err("an epoch is 1 to 64 letters, digits and hyphens"),
        }
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.0.as_ref().to_owned()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who journaled a message first. Immutable on its way: every hop and cprocessd drop an origin they have had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The host whose ccollectd journaled it.
    pub host: HostName,
    /// That ccollectd's journal.
    pub epoch: Epoch,
    /// The place in that journal.
    pub seq: u64,
}

/// A message's place in the journal of whoever sent it, given when it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The sender's journal.
    pub epoch: Epoch,
    /// Consecutive within the epoch, from 1.
    pub seq: u64,
}

/// The numbers of a sample, in the order they were given. Attribute names are few, so a list beats a map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(pub Vec<(Name, f64)>);

impl Values {
    /// Removes what is no number (NaN, infinities) and says how many there were.
    pub fn drop_non_finite(&mut self) -> usize {
        let before = self.0.len();
        self.0.retain(|(_, value)| value.is_finite());
        before - self.0.len()
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from attribute names to numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut values = Vec::with_capacity(map.size_hint().unwrap_or(0).min(64));
                while let Some(entry) = map.next_entry()? {
                    values.push(entry);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Numbers about one thing at one moment.
///
/// - **Path:** ccollectd to cprocessd (feed), and from there unchanged to anyone (stream).
/// - **Topic:** `value.<host>!`
/// - **When:** every interval of its source; for a plugin, when the plugin says so.
/// - **If lost:** the next one replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The host the numbers are about.
    pub host: HostName,
    /// The host that observed it, stamped by the receiving ccollectd.
    pub from: HostName,
    /// The service, `machine` for the host's own numbers.
    pub service: Name,
    /// When it was read, by the observer's clock.
    pub time: UnixMillis,
    /// The next one is due this much later; 0 where nobody knows (a plugin without `ttl_ms`).
    pub interval_ms: u64,
    /// The kind of thing: `disk`, `memory`.
    pub resource: Name,
    /// The thing: `/var`, `physical`.
    pub unit: Unit,
    /// Its numbers by attribute.
    pub values: Values,
    /// Replayed by whoever kept it, and old.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backfill: bool,
}

/// The state of one thing that is up or down.
///
/// - **Path:** ccollectd to cprocessd.
/// - **Topic:** `check.<host>!`
/// - **When:** every interval, without `seq`; and through the journal, with `seq`, when it changed, was seen for the first
///   time or needed retries.
/// - **If lost:** a repeated state is replaced by the next; a journaled one is asked for with `events {after}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The host it is about.
    pub host: HostName,
    /// The host that observed it.
    pub from: HostName,
    /// The service: `port`, `process` or a plugin's.
    pub service: Name,
    /// The thing: `www (443)`.
    pub unit: Unit,
    /// When it was observed, by the observer's clock.
    pub time: UnixMillis,
    /// The next observation is due this much later; 0 where nobody knows.
    pub interval_ms: u64,
    /// The state.
    pub up: bool,
    /// Attempts that failed before this outcome; on an `up` more than none is a blip.
    #[serde(default)]
    pub retries: u32,
    /// What was seen, for people: `connection refused`.
    #[serde(default)]
    pub text: String,
    /// When the state last changed, by the observer's clock. Dates the incident.
    pub changed: UnixMillis,
    /// Replayed by whoever kept it, and old.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backfill: bool,
    /// On a repeated state: the sender's journal had got this far, so who is behind asks before applying it,
    /// and who is ahead leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_seq: Option<u64>,
    /// The sender's journal. With `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The place in the sender's journal. Absent on a repeated state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Who journaled it first. With `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl Check {
    /// What it is about.
    pub fn address(&self) -> CheckAddress {
        CheckAddress { host: self.host.clone(), service: self.service.clone(), unit: self.unit.clone() }
    }
}

/// Something that happened once: a log line, a plugin's event.
///
/// - **Path:** ccollectd to cprocessd.
/// - **Topic:** `event.<host>!`
/// - **When:** once, after it is in the journal.
/// - **If lost:** the gap in `seq` shows it; `events {after}` returns it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEvent {
    /// The host it is about.
    pub host: HostName,
    /// The host that observed it.
    pub from: HostName,
    /// The service that said it.
    pub service: Name,
    /// The thing it is about.
    pub unit: Unit,
    /// When it happened, by the observer's clock.
    pub time: UnixMillis,
    /// As bad as the reporter thinks it is.
    pub severity: Severity,
    /// What happened, for people.
    #[serde(default)]
    pub text: String,
    /// Any value, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<rmpv::Value>,
    /// The sender's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The place in the sender's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Who journaled it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A host's ccollectd runs. With `addresses` it also says what it watches, with `goodbye` that it was asked to stop.
///
/// - **Path:** ccollectd to cprocessd.
/// - **Topic:** `alive.<host>!`
/// - **When:** each second per host; through the journal, with `seq`, when what is watched changes and on a goodbye.
/// - **If lost:** the next second brings another; a journaled one is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alive {
    /// The host that is alive.
    pub host: HostName,
    /// By its own clock.
    pub time: UnixMillis,
    /// The ccollectds between it and the sender; empty for the sender's own host.
    #[serde(default)]
    pub via: Vec<HostName>,
    /// Changes whenever the list of configured addresses does.
    pub inventory: String,
    /// Every configured address of the host. Only through the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<CheckAddress>>,
    /// It was asked to stop and is not to be blamed for its silence. Only through the journal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goodbye: bool,
    /// The sender's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The place in the sender's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Who journaled it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A publisher runs, and its journal is this long.
///
/// - **Path:** every journaled publisher (feed, stream) to all its subscribers.
/// - **Topic:** `beat.`
/// - **When:** each second.
/// - **If lost:** the next second brings another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// By the publisher's clock.
    pub time: UnixMillis,
    /// The publisher's journal.
    pub epoch: Epoch,
    /// The newest entry of its journal, 0 while it is empty.
    pub head_seq: u64,
    /// On a feed: the host whose ccollectd this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// On a stream: how many events each topic severity has had, so that a subscriber to some of them notices a loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<BTreeMap<Severity, u64>>,
}
