//! Local programs that report what only they know, in the form of the 2013 `stats-*` plugins.
//!
//! Anyone in the group may write to the socket, and old plugins have old bugs: whatever comes is made harmless here, and
//! what can be mended is mended and counted, so that behind this file a report can be trusted.

use bytes::Bytes;
use common::address::{Name, Unit};
use common::counters::Counters;
use common::message::{DecodeError, PluginMessage, PluginReport, Values, decode};
use common::severity::Severity;
use common::socket::{Puller, SocketError};
use common::time::UnixMillis;
use rmpv::Value;
use std::time::Duration;
use tokio::sync::mpsc;

/// The socket's name, in the folder and in the counters.
pub(crate) const SOCKET: &str = "plugins";
/// Longer texts are cut.
const MAX_TEXT_CHARS: usize = 1024;
/// A `time` further off than this is no time but a mistake.
const MAX_TIME_OFF_MS: u64 = 86_400_000;
/// The longest `ttl_ms`. A leap year's backup may be yearly.
pub(crate) const MAX_TTL: Duration = Duration::from_hours(366 * 24);
/// How deep an attachment may nest. On its way it is wrapped into answers, which have a largest depth of their own.
const MAX_DATA_DEPTH: usize = 16;
/// Services that are ours: a plugin cannot speak for them.
const RESERVED: [&str; 4] = ["machine", "port", "process", "alive"];

/// What a local program said, checked: its `time` is at most a day off, its `ttl` between 1 ms and [`MAX_TTL`], its
/// numbers are finite, its texts short, and its service is its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    /// The program's name for itself.
    pub(crate) service: Name,
    /// The thing it is about.
    pub(crate) unit: Unit,
    /// When, by its own word or else by our clock.
    pub(crate) time: UnixMillis,
    /// A unit not heard of for this long is down.
    pub(crate) ttl: Option<Duration>,
    /// What it said.
    pub(crate) said: Said,
}

/// What can be said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// Numbers.
    Value {
        /// The kind of thing.
        resource: Name,
        /// The numbers by attribute; empty if none of them was one.
        values: Values,
    },
    /// The unit works.
    Up {
        /// What was seen.
        text: String,
    },
    /// The unit does not work.
    Down {
        /// What was seen.
        text: String,
    },
    /// The unit needed a second attempt.
    Blip {
        /// What was seen.
        text: String,
    },
    /// Something happened once.
    Event {
        /// As bad as the program thinks it is.
        severity: Severity,
        /// What happened, for people.
        text: String,
        /// Any value, for programs.
        data: Option<Value>,
    },
}

/// Why a message is dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// A message of this protocol has one frame.
    #[error("{0} frames, but a plugin's message has one")]
    Frames(usize),
    /// No MessagePack, or not the fields it must have.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// It speaks for one of our own services.
    #[error("service is {0}, but that one is ccollectd's own")]
    Reserved(Name),
}

impl Refusal {
    /// The name in the counters.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Refusal::Frames(_) => "frames",
            Refusal::Undecodable(_) => "undecodable",
            Refusal::Reserved(_) => "reserved",
        }
    }
}

/// What was put right, and how often, by its name in the counters.
pub(crate) type Mended = Vec<(&'static str, u64)>;

/// Takes in messages until the socket fails or nobody wants reports any more. While reports wait to be handled, messages
/// wait in the socket, and behind that at their senders.
pub(crate) async fn receive(socket: Puller, counters: Counters, reports: mpsc::Sender<Report>) {
    loop {
        let frames = match socket.recv().await {
            Ok(frames) => frames,
            Err(error) => return say_failed(&error),
        };
        match read(&frames, UnixMillis::now()) {
            Ok((report, mended)) => {
                for (reason, n) in mended {
                    if counters.add(SOCKET, reason, n) {
                        let Report { service, unit, .. } = &report;
                        tracing::warn!("plugin {service}:{unit}: {reason}; more of this is only counted");
                    }
                }
                if reports.send(report).await.is_err() {
                    return;
                }
            }
            Err(refusal) => {
                if counters.count(SOCKET, refusal.reason()) {
                    tracing::warn!("a plugin's message was dropped: {refusal}; more of this is only counted");
                }
            }
        }
    }
}

fn say_failed(error: &SocketError) {
    tracing::error!("{error}");
}

/// One message as it came, made harmless.
pub(crate) fn read(frames: &[Bytes], now: UnixMillis) -> Result<(Report, Mended), Refusal> {
    let [frame] = frames else { return Err(Refusal::Frames(frames.len())) };
    let PluginMessage { service, unit, time, ttl_ms, report } = decode(frame)?;
    if RESERVED.contains(&service.as_str()) {
        return Err(Refusal::Reserved(service));
    }
    let mut mended = Mended::new();

    let time = match time {
        None => now,
        Some(time) => checked_time(&time, now).unwrap_or_else(|| {
            mended.push(("bad_time", 1));
            now
        }),
    };
    let ttl = ttl_ms.map(Duration::from_millis);
    if ttl.is_some_and(|ttl| ttl.is_zero() || ttl > MAX_TTL) {
        mended.push(("bad_ttl", 1));
    }
    let ttl = ttl.filter(|ttl| !ttl.is_zero() && *ttl <= MAX_TTL);

    let said = match report {
        PluginReport::Value { resource_type, mut values } => {
            let dropped = values.drop_non_finite();
            if dropped > 0 {
                mended.push(("not_finite", u64::try_from(dropped).unwrap_or(u64::MAX)));
            }
            Said::Value { resource: resource_type, values }
        }
        PluginReport::Up { text } => Said::Up { text: cut(text) },
        PluginReport::Down { text } => Said::Down { text: cut(text) },
        PluginReport::Blip { text } => Said::Blip { text: cut(text) },
        PluginReport::Event { severity, text, data } => {
            let is_too_deep = data.as_ref().is_some_and(|data| !is_within_depth(data, MAX_DATA_DEPTH));
            if is_too_deep {
                mended.push(("data_too_deep", 1));
            }
            Said::Event { severity, text: cut(text), data: data.filter(|_| !is_too_deep) }
        }
    };
    Ok((Report { service, unit, time, ttl, said }, mended))
}

fn checked_time(time: &Value, now: UnixMillis) -> Option<UnixMillis> {
    time.as_i64().map(UnixMillis).filter(|time| time.distance(now) <= MAX_TIME_OFF_MS)
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
        text.truncate(end);
    }
    text
}

/// Recursion is safe: the decoder has a largest depth.
fn is_within_depth(value: &Value, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_within_depth(item, below)),
        Value::Map(fields) => {
            fields.iter().all(|(key, value)| is_within_depth(key, below) && is_within_depth(value, below))
        }
        Value::Nil
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Binary(_)
        | Value::Ext(..) => true,
    }
}
