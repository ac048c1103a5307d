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
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The socket's name, in the folder and in the counters.
pub(crate) const SOCKET: &str = "plugins";
/// Longer texts are cut. In bytes, since each unit's last one is kept.
const MAX_TEXT_BYTES: usize = 1024;
/// Numbers in one report; the rest is left out.
const MAX_VALUES: usize = 1000;
/// What an attachment may weigh in memory, where each of its values takes [`NODE_BYTES`].
const MAX_DATA_BYTES: usize = 64 << 10;
/// What a value takes beside its text.
const NODE_BYTES: usize = 40;
/// What reports that wait to be handled may weigh all together. Beyond it messages wait in the socket.
const MAX_WAITING_BYTES: usize = 2 << 20;
/// More than any report weighs.
const MAX_REPORT_BYTES: usize = 256 << 10;
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

impl Report {
    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        let said = match &self.said {
            Said::Value { values, .. } => values.0.len() * 2 * NODE_BYTES,
            Said::Up { text } | Said::Down { text } | Said::Blip { text } => text.len(),
            Said::Event { text, data, .. } => text.len() + data.as_ref().map_or(0, value_bytes),
        };
        size_of::<Self>() + self.unit.as_str().len() + said
    }
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

/// A report on its way to whoever handles it.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// What was said.
    pub(crate) report: Report,
    _room: OwnedSemaphorePermit,
}

/// Room for reports that wait, by what they weigh: their number alone says little about the memory they take.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_WAITING_BYTES)))
    }
}

impl Room {
    /// Whether more may be waiting in the socket.
    pub(crate) fn is_scarce(&self) -> bool {
        self.0.available_permits() < MAX_REPORT_BYTES
    }

    async fn take(&self, report: Report) -> Waiting {
        let bytes = u32::try_from(report.bytes().min(MAX_REPORT_BYTES)).unwrap_or(u32::MAX);
        let room = self.0.clone().acquire_many_owned(bytes).await.expect("nobody closes it");
        Waiting { report, _room: room }
    }
}

/// Takes in messages until the socket fails or nobody wants reports any more. While reports wait to be handled, messages
/// wait in the socket, and behind that at their senders.
pub(crate) async fn receive(socket: Puller, counters: Counters, room: Room, reports: mpsc::Sender<Waiting>) {
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
                if reports.send(room.take(report).await).await.is_err() {
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
            let surplus = values.0.len().saturating_sub(MAX_VALUES);
            values.0.truncate(MAX_VALUES);
            let doubled = drop_doubled(&mut values);
            for (reason, n) in [("not_finite", dropped), ("too_many_values", surplus), ("doubled_values", doubled)] {
                if n > 0 {
                    mended.push((reason, u64::try_from(n).unwrap_or(u64::MAX)));
                }
            }
            Said::Value { resource: resource_type, values }
        }
        PluginReport::Up { text } => Said::Up { text: cut(text) },
        PluginReport::Down { text } => Said::Down { text: cut(text) },
        PluginReport::Blip { text } => Said::Blip { text: cut(text) },
        PluginReport::Event { severity, text, data } => {
            let fault = data.as_ref().and_then(|data| {
                if !is_within_depth(data, MAX_DATA_DEPTH) {
                    Some("data_too_deep")
                } else if value_bytes(data) > MAX_DATA_BYTES {
                    Some("data_too_large")
                } else {
                    None
                }
            });
            mended.extend(fault.map(|fault| (fault, 1)));
            Said::Event { severity, text: cut(text), data: data.filter(|_| fault.is_none()) }
        }
    };
    Ok((Report { service, unit, time, ttl, said }, mended))
}

fn checked_time(time: &Value, now: UnixMillis) -> Option<UnixMillis> {
    time.as_i64().map(UnixMillis).filter(|time| time.distance(now) <= MAX_TIME_OFF_MS)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text.shrink_to_fit();
    text
}

/// Removes all but the last number of each name, and says how many it removed.
fn drop_doubled(values: &mut Values) -> usize {
    let before = values.0.len();
    let mut seen = HashSet::new();
    values.0.reverse();
    values.0.retain(|(name, _)| seen.insert(name.clone()));
    values.0.reverse();
    before - values.0.len()
}

/// About what a value takes in memory. Recursion is safe: the decoder has a largest depth.
pub(crate) fn value_bytes(value: &Value) -> usize {
    let inside = match value {
        Value::Array(items) => items.iter().map(value_bytes).sum(),
        Value::Map(fields) => fields.iter().map(|(key, value)| value_bytes(key) + value_bytes(value)).sum(),
        Value::String(text) => text.as_bytes().len(),
        Value::Binary(bytes) | Value::Ext(_, bytes) => bytes.len(),
        Value::Nil | Value::Boolean(_) | Value::Integer(_) | Value::F32(_) | Value::F64(_) => 0,
    };
    NODE_BYTES + inside
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
        assert_eq!(report.said, Said::Up { text: "ü".repeat(512) });
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
    fn an_attachment_that_weighs_too_much_is_left_out() {
        let event = |items: usize| {
            let data = vec![1; items];
            let message = serde_json::json!({"service": "a", "msg_type": "event", "severity": "ERR", "data": data});
            let (report, mended) = report(&message);
            assert!(report.bytes() <= MAX_REPORT_BYTES);
            mended
        };
        assert_eq!(event(MAX_DATA_BYTES / NODE_BYTES - 1), []);
        assert_eq!(event(MAX_DATA_BYTES / NODE_BYTES + 1), [("data_too_large", 1)]);
    }

    #[test]
    fn of_many_numbers_the_first_are_taken_and_of_equal_names_the_last() {
        let values: serde_json::Map<_, _> = (0..1500).map(|n| (format!("n{n:04}"), n.into())).collect();
        let message = serde_json::json!({"service": "a", "msg_type": "value", "resource_type": "r", "values": values});
        let (report, mended) = report(&message);
        assert_eq!(mended, [("too_many_values", 500)]);
        assert!(report.bytes() <= MAX_REPORT_BYTES);
        let Said::Value { values, .. } = report.said else { panic!("no values") };
        assert_eq!((values.0.len(), values.0[999].0.as_str()), (1000, "n0999"));

        let bytes =
            b"\x84\xa7service\xa1a\xa8msg_type\xa5value\xadresource_type\xa1r\xa6values\x83\xa1x\x01\xa1y\x02\xa1x\x03";
        let (report, mended) = read(&[Bytes::from_static(bytes)], NOW).expect("a report");
        assert_eq!(mended, [("doubled_values", 1)]);
        let Said::Value { values, .. } = report.said else { panic!("no values") };
        assert_eq!(
            values.0.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>(),
            [("y", 2.0), ("x", 3.0)]
        );
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
