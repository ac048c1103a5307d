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
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The socket's name, in the folder and in the counters.
pub(crate) const SOCKET: &str = "plugins";
/// Longer texts are cut.
const MAX_TEXT_CHARS: usize = 1024;
/// A `time` further off than this is no time but a mistake.
const MAX_TIME_OFF_MS: u64 = 86_400_000;
/// The longest `ttl_ms`. A leap year's backup may be yearly.
pub(crate) const MAX_TTL: Duration = Duration::from_hours(366 * 24);
/// What decoded reports that wait to be handled may take together, since a small message can unpack to a large one. More
/// waits in the socket.
const MAX_WAITING_BYTES: usize = 16 << 20;
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

impl Report {
    /// About what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let said = match &self.said {
            // Names are at most 64 bytes, and a number has 8.
            Said::Value { values, .. } => values.0.len() * 128,
            Said::Up { text } | Said::Down { text } | Said::Blip { text } => text.len(),
            Said::Event { text, data, .. } => text.len() + data.as_ref().map_or(0, value_bytes),
        };
        size_of::<Self>() + self.unit.as_str().len() + said
    }
}

/// About what a value takes in memory.
pub(crate) fn value_bytes(value: &Value) -> usize {
    let inside = match value {
        Value::Array(items) => items.iter().map(value_bytes).sum(),
        Value::Map(fields) => fields.iter().map(|(key, value)| value_bytes(key) + value_bytes(value)).sum(),
        Value::String(text) => text.as_bytes().len(),
        Value::Binary(bytes) | Value::Ext(_, bytes) => bytes.len(),
        Value::Nil | Value::Boolean(_) | Value::Integer(_) | Value::F32(_) | Value::F64(_) => 0,
    };
    size_of::<Value>() + inside
}

/// A report on its way to the main loop, with the room that it takes there.
#[derive(Debug)]
pub(crate) struct Received {
    report: Report,
    room: OwnedSemaphorePermit,
}

impl Received {
    /// Makes room for others.
    pub(crate) fn take(self) -> Report {
        drop(self.room);
        self.report
    }
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
pub(crate) async fn receive(socket: Puller, counters: Counters, reports: mpsc::Sender<Received>) {
    let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES));
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
                let bytes = u32::try_from(report.bytes().min(MAX_WAITING_BYTES)).unwrap_or(u32::MAX);
                let Ok(room) = Arc::clone(&room).acquire_many_owned(bytes).await else { return };
                if reports.send(Received { report, room }).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_795_236_306_001);

    /// A message from what people would write as JSON.
    fn packed(json: &serde_json::Value) -> Bytes {
        Bytes::from(rmp_serde::to_vec(json).expect("JSON is MessagePack"))
    }

    fn report(json: &serde_json::Value) -> (Report, Mended) {
        read(&[packed(json)], NOW).expect("a report")
    }

    fn refused(frames: &[Bytes]) -> &'static str {
        read(frames, NOW).expect_err("must be refused").reason()
    }

    #[test]
    fn a_state_of_2013_is_a_report_of_now() {
        let (report, mended) =
            report(&serde_json::json!({"service": "nginx", "msg_type": "down", "unit": "all", "initial": true}));
        assert_eq!((report.service.as_str(), report.unit.as_str()), ("nginx", "all"));
        assert_eq!((report.time, report.ttl, report.said), (NOW, None, Said::Down { text: String::new() }));
        assert!(mended.is_empty());
    }

    #[test]
    fn a_time_is_taken_if_it_is_one() {
        let time = |time: serde_json::Value| {
            let (report, mended) = report(&serde_json::json!({"service": "a", "msg_type": "up", "time": time}));
            (report.time, mended)
        };
        let day = i64::try_from(MAX_TIME_OFF_MS).expect("a day");
        assert_eq!(time((NOW.0 - day).into()), (UnixMillis(NOW.0 - day), vec![]));
        assert_eq!(time((NOW.0 + day).into()), (UnixMillis(NOW.0 + day), vec![]));
        assert_eq!(time(serde_json::Value::Null), (NOW, vec![]));
        let seconds = serde_json::json!(NOW.0 / 1000);
        let float = serde_json::json!(1_795_236_306.5);
        for bad in
            [seconds, float, (NOW.0 - day - 1).into(), u64::MAX.into(), i64::MIN.into(), "now".into(), [1].into()]
        {
            assert_eq!(time(bad.clone()), (NOW, vec![("bad_time", 1)]), "{bad}");
        }
    }

    #[test]
    fn a_ttl_is_at_least_a_millisecond_and_at_most_a_year() {
        let ttl = |ms: u64| {
            let (report, mended) = report(&serde_json::json!({"service": "a", "msg_type": "up", "ttl_ms": ms}));
            (report.ttl, mended)
        };
        assert_eq!(ttl(1), (Some(Duration::from_millis(1)), vec![]));
        assert_eq!(ttl(366 * 86_400_000), (Some(MAX_TTL), vec![]));
        for bad in [0, 366 * 86_400_000 + 1, u64::MAX] {
            assert_eq!(ttl(bad), (None, vec![("bad_ttl", 1)]), "{bad}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let mut bytes = b"\x84\xa7service\xa1a\xa8msg_type\xa5value\xadresource_type\xa1r\xa6values\x83".to_vec();
        for (name, value) in [(b'x', f64::NAN), (b'y', 2.0), (b'z', f64::NEG_INFINITY)] {
            bytes.extend([0xa1, name, 0xcb]);
            bytes.extend(value.to_be_bytes());
        }
        let (report, mended) = read(&[Bytes::from(bytes)], NOW).expect("a report");
        assert_eq!(mended, [("not_finite", 2)]);
        let y = ("y".parse().expect("a name"), 2.0);
        let Said::Value { values, .. } = report.said else { panic!("{report:?}") };
        assert_eq!(values, Values(vec![y]));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let (report, _) = report(&serde_json::json!({"service": "a", "msg_type": "up", "text": "ü".repeat(5000)}));
        assert_eq!(report.said, Said::Up { text: "ü".repeat(1024) });
    }

    #[test]
    fn an_attachment_that_nests_too_deep_is_left_out() {
        let event = |depth: usize| {
            let data = (1..depth).fold(serde_json::json!(1), |inside, _| serde_json::json!([inside]));
            let message = serde_json::json!({"service": "a", "msg_type": "event", "severity": "ERR", "data": data});
            let (report, mended) = report(&message);
            let Said::Event { data, .. } = report.said else { panic!("{report:?}") };
            (data.is_some(), mended)
        };
        assert_eq!(event(MAX_DATA_DEPTH), (true, vec![]));
        assert_eq!(event(MAX_DATA_DEPTH + 1), (false, vec![("data_too_deep", 1)]));
    }

    #[test]
    fn a_small_message_that_unpacks_to_a_large_one_counts_as_large() {
        let data = vec![serde_json::Value::Null; 100_000];
        let (report, _) =
            report(&serde_json::json!({"service": "a", "msg_type": "event", "severity": "ERR", "data": data}));
        assert!(report.bytes() > 2_000_000, "{}", report.bytes());
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        let good = packed(&serde_json::json!({"service": "a", "msg_type": "up"}));
        assert_eq!(refused(&[]), "frames");
        assert_eq!(refused(&[good.clone(), good]), "frames");
        assert_eq!(refused(&[Bytes::new()]), "undecodable");
        assert_eq!(refused(&[Bytes::from_static(b"{\"service\": \"a\"}")]), "undecodable");
        for bad in [
            serde_json::json!({"service": "a"}),
            serde_json::json!({"service": "a b", "msg_type": "up"}),
            serde_json::json!({"service": "a", "msg_type": "sideways"}),
            serde_json::json!({"service": "a", "msg_type": "up", "unit": "a\nb"}),
            serde_json::json!({"service": "a", "msg_type": "up", "ttl_ms": -1}),
            serde_json::json!({"service": "a", "msg_type": "value", "resource_type": "r", "values": {"x": "1"}}),
            serde_json::json!({"service": "a", "msg_type": "event", "severity": "BAD"}),
            serde_json::json!(["service", "a"]),
        ] {
            assert_eq!(refused(&[packed(&bad)]), "undecodable", "{bad}");
        }
        for service in RESERVED {
            assert_eq!(refused(&[packed(&serde_json::json!({"service": service, "msg_type": "up"}))]), "reserved");
        }
    }

    /// A plugin's message as it should be, for the property test to spoil.
    fn valid() -> Vec<u8> {
        let event = serde_json::json!({
            "service": "a", "unit": "b", "msg_type": "event", "severity": "WARN", "text": "t", "data": {"k": [1, 2.5, null]},
            "time": NOW.0, "ttl_ms": 1000,
        });
        packed(&event).to_vec()
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[Bytes::from(bytes)], NOW);
        }

        #[test]
        fn no_spoiled_message_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
            let mut bytes = valid();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = read(&[Bytes::from(bytes.clone())], NOW);
            bytes.truncate(end.index(bytes.len()));
            let _ = read(&[Bytes::from(bytes)], NOW);
        }

        #[test]
        fn whatever_is_accepted_keeps_its_bounds(time in any::<i64>(), ttl in any::<u64>(), text in any::<String>()) {
            let message = serde_json::json!({"service": "a", "msg_type": "down", "time": time, "ttl_ms": ttl, "text": text});
            let (report, _) = read(&[packed(&message)], NOW).expect("a report");
            prop_assert!(report.time.distance(NOW) <= MAX_TIME_OFF_MS);
            prop_assert!(report.ttl.is_none_or(|ttl| !ttl.is_zero() && ttl <= MAX_TTL));
        }
    }
}
