//! Questions and orders on both sides: one frame in, one out, in MessagePack or, if the first byte is `{`, in JSON.

use crate::message::{DecodeError, ErrorBody, ErrorCode, Reply, Request, decode, encode};
use crate::socket::{Requester, SocketError};
use base64::Engine;
use rmpv::Value;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Items on one page of a long answer.
pub const PAGE_ITEMS: usize = 1000;
/// And bytes, unless a single item has more: a client that never reads keeps a page in our memory.
const PAGE_BYTES: usize = 256 << 10;
/// Of an answer that somebody else gives: more than the largest has, and an end to one that has none.
const MAX_PAGES: usize = 10_000;
/// How long the pages of an answer stay the same.
const PINNED_FOR: Duration = Duration::from_secs(30);
/// Long answers pinned at once; the oldest makes way.
const MAX_PINNED: usize = 16;
/// And their bytes; the newest stays whatever it weighs.
const MAX_PINNED_BYTES: usize = 4 << 20;

/// How a client writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The daemons' own.
    MessagePack,
    /// For people and shells.
    Json,
}

/// Rows as they will be sent: as values they would take ten times the memory while they wait to be asked for.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Rows {
    /// Encodes them all.
    pub fn of<T: serde::Serialize>(rows: &[T]) -> Self {
        let mut all = Self::default();
        for row in rows {
            all.bytes.extend(encode(row));
            all.ends.push(all.bytes.len());
        }
        all
    }

    fn push(&mut self, row: &Value) {
        put(&mut self.bytes, row);
        self.ends.push(self.bytes.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn start(&self, row: usize) -> usize {
        row.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

/// What a daemon answers, before it is cut into pages.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Short enough for one page.
    Whole(Value),
    /// Rows.
    List(Rows),
    /// A map with a few plain fields and several long lists, of which each page holds a part.
    Lists {
        /// On every page.
        plain: Vec<(&'static str, Value)>,
        /// Cut into pages, one after the other.
        lists: Vec<(&'static str, Rows)>,
    },
}

impl Answer {
    /// Any message as a whole answer.
    pub fn whole<T: serde::Serialize>(message: &T) -> Self {
        Self::Whole(to_value(message))
    }

    /// Messages as rows.
    pub fn list<T: serde::Serialize>(rows: &[T]) -> Self {
        Self::List(Rows::of(rows))
    }

    /// What its rows weigh.
    fn bytes(&self) -> usize {
        match self {
            Self::Whole(_) => 0,
            Self::List(rows) => rows.bytes.len(),
            Self::Lists { lists, .. } => lists.iter().map(|(_, rows)| rows.bytes.len()).sum(),
        }
    }
}

/// A reply that lacks only the client's format.
#[derive(Clone, Debug, PartialEq)]
pub enum Ready {
    /// An answer, or one page of it.
    Page {
        /// In MessagePack.
        data: Vec<u8>,
        /// What to ask for the next page with, if there is one.
        next: Option<String>,
    },
    /// There is none.
    Refused(ErrorBody),
}

/// A message as a value with named fields.
pub fn to_value<T: serde::Serialize>(message: &T) -> Value {
    // Not `rmpv::ext::to_value`, which makes arrays of our structs.
    rmpv::decode::read_value(&mut encode(message).as_slice()).expect("what we encode is MessagePack")
}

/// A value as the message it should be.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, rmp_serde::decode::Error> {
    // Not `rmpv::ext::from_value`, which takes no text for an enum.
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a value is written into memory");
    rmp_serde::from_slice(&bytes)
}

/// What a client sent, and how to answer it. `None` is a question of no or several frames.
pub fn parse(frame: Option<&[u8]>) -> (Format, Result<Request, ErrorBody>) {
    let undecodable = |why: String| ErrorBody::new(ErrorCode::Undecodable, why);
    match frame {
        None => (Format::MessagePack, Err(undecodable("a request is exactly one frame".into()))),
        Some(json) if json.first() == Some(&b'{') => {
            let request =
                serde_json::from_slice(json).map_err(|error| undecodable(format!("not a JSON request: {error}")));
            (Format::Json, request)
        }
        Some(bytes) => {
            let request = decode(bytes).map_err(|error| undecodable(format!("not a MessagePack request: {error}")));
            (Format::MessagePack, request)
        }
    }
}

/// Cuts answers into pages and keeps the rest of each for [`PINNED_FOR`], so that the pages of one answer come from one
/// state.
#[derive(Debug, Default)]
pub struct Pager {
    pinned: VecDeque<Pinned>,
    issued: u64,
}

#[derive(Debug)]
struct Pinned {
    token: u64,
    until: Instant,
    answer: Answer,
}

impl Pager {
    /// The reply to a request that was just answered: its first page.
    pub fn first(&mut self, now: Instant, result: Result<Answer, ErrorBody>) -> Ready {
        match result {
            Ok(answer) => self.page(now, answer),
            Err(error) => Ready::Refused(error),
        }
    }

    /// The reply to a request for the page `token`.
    pub fn next(&mut self, now: Instant, token: &str) -> Ready {
        self.pinned.retain(|pinned| pinned.until > now);
        let wanted =
            token.split_once('.').and_then(|(token, offset)| Some((token.parse().ok()?, offset.parse().ok()?)));
        let found = wanted.and_then(|(token, offset): (u64, usize)| {
            let pinned = self.pinned.iter().find(|pinned| pinned.token == token)?;
            Some(cut(&pinned.answer, token, offset))
        });
        found.unwrap_or_else(|| {
            Ready::Refused(ErrorBody::new(ErrorCode::PageExpired, "this page has expired, ask from the start"))
        })
    }

    fn page(&mut self, now: Instant, answer: Answer) -> Ready {
        self.issued += 1;
        let reply = cut(&answer, self.issued, 0);
        if matches!(&reply, Ready::Page { next: Some(_), .. }) {
            self.pinned.retain(|pinned| pinned.until > now);
            self.pinned.truncate(MAX_PINNED - 1);
            self.pinned.push_front(Pinned { token: self.issued, until: now + PINNED_FOR, answer });
            while self.pinned.len() > 1
                && self.pinned.iter().map(|pinned| pinned.answer.bytes()).sum::<usize>() > MAX_PINNED_BYTES
            {
                self.pinned.pop_back();
            }
        }
        reply
    }
}

/// The page of `answer` that begins with its item number `offset`, counted through all its lists.
fn cut(answer: &Answer, token: u64, offset: usize) -> Ready {
    let mut data = Vec::new();
    let mut room = Room { skip: offset, taken: 0, bytes: PAGE_BYTES, is_full: false };
    let items = match answer {
        Answer::Whole(value) => {
            put(&mut data, value);
            0
        }
        Answer::List(rows) => {
            room.fill(&mut data, rows);
            rows.len()
        }
        Answer::Lists { plain, lists } => {
            put_length(&mut data, 0xdf, plain.len() + lists.len());
            for (name, value) in plain {
                put(&mut data, &(*name).into());
                put(&mut data, value);
            }
            for (name, rows) in lists {
                put(&mut data, &(*name).into());
                room.fill(&mut data, rows);
            }
            lists.iter().map(|(_, rows)| rows.len()).sum()
        }
    };
    let end = offset.saturating_add(room.taken);
    let next = (end < items).then(|| format!("{token}.{end}"));
    Ready::Page { data, next }
}

/// What still fits into a page.
struct Room {
    /// Rows that were on the pages before.
    skip: usize,
    /// Rows on this page.
    taken: usize,
    bytes: usize,
    is_full: bool,
}

impl Room {
    /// Writes a list of as many of the rows as fit. The first row of a page always fits.
    fn fill(&mut self, data: &mut Vec<u8>, rows: &Rows) {
        let from = self.skip.min(rows.len());
        self.skip -= from;
        let mut to = from;
        while to < rows.len() {
            let bytes = rows.ends[to] - rows.start(to);
            if bytes > self.bytes && self.taken > 0 {
                // No smaller one of a later list may overtake it.
                self.is_full = true;
            }
            if self.is_full || self.taken == PAGE_ITEMS {
                break;
            }
            self.bytes = self.bytes.saturating_sub(bytes);
            self.taken += 1;
            to += 1;
        }
        put_length(data, 0xdd, to - from);
        data.extend(&rows.bytes[rows.start(from)..rows.start(to)]);
    }
}

/// The head of a map (`0xdf`) or an array (`0xdd`) with a length of 32 bits.
fn put_length(data: &mut Vec<u8>, kind: u8, length: usize) {
    data.push(kind);
    data.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put(data: &mut Vec<u8>, value: &Value) {
    rmpv::encode::write_value(data, value).expect("a value is written into memory");
}

/// A reply in the client's own format.
pub fn write(format: Format, reply: &Ready) -> Vec<u8> {
    let bytes = match reply {
        // As `Reply` would be, without reading what is written already.
        Ready::Page { data, next } => {
            let mut bytes = vec![if next.is_some() { 0x83 } else { 0x82 }];
            bytes.extend(b"\xa2ok\xc3\xa4data");
            bytes.extend(data);
            if let Some(next) = next {
                bytes.extend(b"\xa4next");
                put(&mut bytes, &next.as_str().into());
            }
            bytes
        }
        Ready::Refused(error) => encode(&Reply { ok: false, data: None, next: None, error: Some(error.clone()) }),
    };
    match format {
        Format::MessagePack => bytes,
        Format::Json => {
            let value = rmpv::decode::read_value(&mut bytes.as_slice()).expect("what we encode is MessagePack");
            let mut text = to_json(value).to_string().into_bytes();
            text.push(b'\n');
            text
        }
    }
}

/// A value as JSON. What JSON cannot say: bytes become base64, a number that is none becomes null, a key that is no text
/// becomes its text, an extension type becomes null.
pub fn to_json(value: Value) -> serde_json::Value {
    match value {
        Value::Nil | Value::Ext(..) => serde_json::Value::Null,
        Value::Boolean(b) => b.into(),
        Value::Integer(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into(),
            (None, n) => n.into(),
        },
        Value::F32(n) => f64::from(n).into(),
        Value::F64(n) => n.into(),
        Value::String(text) => match text.into_str() {
            Some(text) => text.into(),
            None => serde_json::Value::Null,
        },
        Value::Binary(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        Value::Array(items) => items.into_iter().map(to_json).collect(),
        Value::Map(fields) => serde_json::Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| {
                    let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                    (key, to_json(value))
                })
                .collect(),
        ),
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The daemon cannot be reached.
    #[error(transparent)]
    Unreachable(#[from] SocketError),
    /// The daemon answers that it will not.
    #[error("{0}")]
    Refused(ErrorBody),
    /// What came back is no reply of this protocol.
    #[error("the answer is not understood: {0}")]
    BadAnswer(String),
}

/// A whole answer of somebody else as it was written: as a value it would take several times the memory.
#[derive(Clone, Debug)]
pub struct Answered(Vec<u8>);

impl Answered {
    /// The answer as `T`.
    ///
    /// # Errors
    /// It is none.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, rmp_serde::decode::Error> {
        rmp_serde::from_slice(&self.0)
    }

    /// The answer in MessagePack.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Asks, follows the pages and returns the whole answer. `timeout` is for each page.
pub async fn ask(requester: &mut Requester, request: &Request, timeout: Duration) -> Result<Value, AskError> {
    ask_for(requester, request, timeout).await
}

/// As [`ask`], read as `T`.
pub async fn ask_for<T: DeserializeOwned>(
    requester: &mut Requester,
    request: &Request,
    timeout: Duration,
) -> Result<T, AskError> {
    let answer = ask_without(requester, request, timeout, &[]).await?;
    answer.read().map_err(|error| AskError::BadAnswer(error.to_string()))
}

/// As [`ask`], not read yet, and the lists of these names are left empty, whatever is in them.
pub async fn ask_without(
    requester: &mut Requester,
    request: &Request,
    timeout: Duration,
    unwanted: &[&str],
) -> Result<Answered, AskError> {
    let mut request = request.clone();
    let mut joined: Option<Pages> = None;
    let mut taken = 0;
    for _ in 0..MAX_PAGES {
        let bytes = requester.ask(encode(&request), timeout).await?;
        let bad = |error: DecodeError| AskError::BadAnswer(error.to_string());
        let too_large = || {
            let most = requester.max_answer_bytes() >> 20;
            AskError::BadAnswer(format!("an answer that takes more than {most} MiB of memory"))
        };
        // Before it takes it: a byte may become thirty.
        let Footprint(page_bytes) = decode(&bytes).map_err(bad)?;
        if taken + page_bytes > requester.max_answer_bytes() {
            return Err(too_large());
        }
        let reply: Reply = decode(&bytes).map_err(bad)?;
        drop(bytes);
        if let Some(error) = reply.error {
            return Err(AskError::Refused(error));
        }
        let mut page = reply.data.ok_or_else(|| AskError::BadAnswer("neither data nor error".into()))?;
        if let Value::Map(fields) = &mut page {
            let lists = fields.iter_mut().filter(|(key, _)| key.as_str().is_some_and(|key| unwanted.contains(&key)));
            lists.for_each(|(_, list)| *list = Value::Array(Vec::new()));
        }
        taken += memory(&page);
        let all = match joined.take() {
            None => Pages::begin(page),
            Some(mut before) => {
                before.add(page);
                before
            }
        };
        let Some(next) = reply.next else { return Ok(all.end()) };
        request.page = Some(next);
        joined = Some(all);
    }
    Err(AskError::BadAnswer(format!("an answer of more than {MAX_PAGES} pages")))
}

/// The pages of one answer: lists are appended, also those in a map, and of all else the first page counts.
enum Pages {
    List(Rows),
    Map(Vec<(Value, Pages)>),
    Plain(Value),
}

impl Pages {
    fn begin(page: Value) -> Self {
        match page {
            Value::Map(fields) => {
                Self::Map(fields.into_iter().map(|(key, value)| (key, Self::list_or_plain(value))).collect())
            }
            other => Self::list_or_plain(other),
        }
    }

    fn list_or_plain(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::List(Rows::of(&items)),
            other => Self::Plain(other),
        }
    }

    fn add(&mut self, page: Value) {
        match (self, page) {
            (Self::List(rows), Value::Array(items)) => items.iter().for_each(|item| rows.push(item)),
            (Self::Map(fields), Value::Map(more)) => {
                for (key, value) in more {
                    if let Some((_, before)) = fields.iter_mut().find(|(name, _)| *name == key) {
                        before.add(value);
                    }
                }
            }
            _ => {}
        }
    }

    fn end(self) -> Answered {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        Answered(bytes)
    }

    fn write(self, bytes: &mut Vec<u8>) {
        match self {
            Self::List(rows) => {
                put_length(bytes, 0xdd, rows.len());
                bytes.extend(rows.bytes);
            }
            Self::Map(fields) => {
                put_length(bytes, 0xdf, fields.len());
                for (key, value) in fields {
                    put(bytes, &key);
                    value.write(bytes);
                }
            }
            Self::Plain(value) => put(bytes, &value),
        }
    }
}

/// What an allocation takes beside what was asked for, about.
const ALLOCATION_BYTES: usize = 24;

/// What a value takes, about.
fn memory(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => ALLOCATION_BYTES + text.as_bytes().len(),
            Value::Binary(bytes) | Value::Ext(_, bytes) => ALLOCATION_BYTES + bytes.len(),
            Value::Array(items) => ALLOCATION_BYTES + items.iter().map(memory).sum::<usize>(),
            Value::Map(fields) => {
                ALLOCATION_BYTES + fields.iter().map(|(key, value)| memory(key) + memory(value)).sum::<usize>()
            }
            Value::Nil | Value::Boolean(_) | Value::Integer(_) | Value::F32(_) | Value::F64(_) => 0,
        }
}

/// What a message takes as a [`Value`], found out without making one.
struct Footprint(usize);

impl Footprint {
    const OF_ONE: usize = size_of::<Value>();
}

impl<'de> Deserialize<'de> for Footprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Measure)
    }
}

struct Measure;

impl<'de> Visitor<'de> for Measure {
    type Value = Footprint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Footprint, E> {
        Ok(Footprint(Footprint::OF_ONE))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Footprint, E> {
        Ok(Footprint(Footprint::OF_ONE))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Footprint, E> {
        Ok(Footprint(Footprint::OF_ONE))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Footprint, E> {
        Ok(Footprint(Footprint::OF_ONE))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Footprint, E> {
        Ok(Footprint(Footprint::OF_ONE))
    }

    fn visit_str<E>(self, text: &str) -> Result<Footprint, E> {
        Ok(Footprint(Footprint::OF_ONE + ALLOCATION_BYTES + text.len()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Footprint, E> {
        Ok(Footprint(Footprint::OF_ONE + ALLOCATION_BYTES + bytes.len()))
    }

    /// An extension: its type and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Footprint, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Footprint, A::Error> {
        let mut sum = Footprint::OF_ONE + ALLOCATION_BYTES;
        while let Some(Footprint(item)) = items.next_element()? {
            sum += item;
        }
        Ok(Footprint(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Footprint, A::Error> {
        let mut sum = Footprint::OF_ONE + ALLOCATION_BYTES;
        while let Some((Footprint(key), Footprint(value))) = fields.next_entry()? {
            sum += key + value;
        }
        Ok(Footprint(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<Value> {
        (0..n).map(Value::from).collect()
    }

    fn rows(n: usize) -> Rows {
        Rows::of(&(0..n).collect::<Vec<_>>())
    }

    /// As a client reads it.
    fn read(ready: &Ready) -> Reply {
        decode(&write(Format::MessagePack, ready)).expect("a reply")
    }

    fn pages(answer: Answer) -> Vec<Value> {
        let now = Instant::now();
        let mut pager = Pager::default();
        let mut reply = read(&pager.first(now, Ok(answer)));
        let mut all = Vec::new();
        loop {
            all.push(reply.data.expect("data"));
            match reply.next {
                Some(token) => reply = read(&pager.next(now, &token)),
                None => return all,
            }
        }
    }

    #[test]
    fn what_a_message_takes_is_known_before_it_takes_it() {
        let row = || Value::Map(vec![("name".into(), "www".into()), ("n".into(), 7.into()), ("x".into(), Value::Nil)]);
        let reply = Value::Map(vec![
            ("ok".into(), true.into()),
            ("data".into(), Value::Array((0..100).map(|_| row()).collect())),
            ("bytes".into(), Value::Binary(vec![0; 1000])),
            ("number".into(), 1.5.into()),
            ("less".into(), (-1).into()),
        ]);
        let Footprint(bytes) = decode(&encode(&reply)).expect("a map");
        assert_eq!(bytes, memory(&reply));
        let extension = Value::Map(vec![("data".into(), Value::Ext(1, vec![0; 100]))]);
        let Footprint(bytes) = decode(&encode(&extension)).expect("a map");
        assert!(bytes >= memory(&extension), "{bytes}");
    }

    #[test]
    fn pages_join_to_the_whole_answer() {
        let whole = |pages: Vec<Value>| -> Value {
            let mut pages = pages.into_iter();
            let mut all = Pages::begin(pages.next().expect("a page"));
            pages.for_each(|page| all.add(page));
            all.end().read().expect("an answer")
        };
        assert_eq!(whole(pages(Answer::List(rows(2500)))), Value::Array(values(2500)));
        assert_eq!(whole(pages(Answer::Whole("text".into()))), Value::from("text"));
        let lists = Answer::Lists {
            plain: vec![("seq", 7.into())],
            lists: vec![("a", rows(1500)), ("b", rows(10)), ("c", rows(1200))],
        };
        let all = pages(lists);
        assert_eq!(all.len(), 3);
        let whole = whole(all);
        assert_eq!(whole["a"], Value::Array(values(1500)));
        assert_eq!(whole["b"], Value::Array(values(10)));
        assert_eq!(whole["c"], Value::Array(values(1200)));
        assert_eq!(whole["seq"], Value::from(7));
    }

    #[test]
    fn exactly_one_page_has_no_next() {
        assert_eq!(pages(Answer::List(rows(PAGE_ITEMS))).len(), 1);
        assert_eq!(pages(Answer::List(Rows::default())).len(), 1);
    }

    #[test]
    fn a_page_expires_and_strange_tokens_are_refused() {
        let now = Instant::now();
        let mut pager = Pager::default();
        let token = read(&pager.first(now, Ok(Answer::List(rows(1001))))).next.expect("a second page");
        assert!(read(&pager.next(now + PINNED_FOR / 2, &token)).ok);
        for token in [token.as_str(), "", ".", "1", "9.0", "18446744073709551616.1", "x.y"] {
            let reply = read(&pager.next(now + PINNED_FOR, token));
            assert_eq!(reply.error.map(|error| error.code), Some(ErrorCode::PageExpired), "{token:?}");
        }
    }

    #[test]
    fn pinned_answers_are_bounded() {
        let now = Instant::now();
        let mut pager = Pager::default();
        for _ in 0..100 {
            pager.first(now, Ok(Answer::List(rows(1001))));
        }
        assert_eq!(pager.pinned.len(), MAX_PINNED);
        let large = Rows::of(&vec!["x".repeat(1000); 2000]);
        for _ in 0..MAX_PINNED {
            pager.first(now, Ok(Answer::List(large.clone())));
        }
        assert_eq!(pager.pinned.len(), MAX_PINNED_BYTES / large.bytes.len());
        let larger_than_all = Rows::of(&vec!["x".repeat(1000); 10_000]);
        assert!(read(&pager.first(now, Ok(Answer::List(larger_than_all)))).next.is_some());
        assert_eq!(pager.pinned.len(), 1);
    }

    #[test]
    fn a_page_is_bounded_in_bytes_too() {
        let text = |kib: usize| Value::from("x".repeat(kib << 10));
        let answer = Answer::Lists {
            plain: vec![],
            lists: vec![("a", Rows::of(&[text(200), text(100), text(1000)])), ("b", Rows::of(&[text(1)]))],
        };
        let lengths = pages(answer).into_iter().map(|page| {
            let length = |name: &str| page[name].as_array().map_or(0, Vec::len);
            (length("a"), length("b"))
        });
        // Each large row has a page of its own, and none overtakes another.
        assert_eq!(lengths.collect::<Vec<_>>(), [(1, 0), (1, 0), (1, 0), (0, 1)]);
    }

    #[test]
    fn a_request_may_be_json_or_messagepack_and_anything_else_is_an_error_in_kind() {
        let (format, request) = parse(Some(br#"{"query": "health", "unknown": [1]}"#));
        assert_eq!((format, request), (Format::Json, Ok(Request::query("health"))));
        let (format, request) = parse(Some(&encode(&Request::query("health"))));
        assert_eq!((format, request), (Format::MessagePack, Ok(Request::query("health"))));
        for bad in [&b"{"[..], b"{\"query\": 5}", b"{\"after\": -1}", b"\xff", b"", b"\x81\xa5query\x05"] {
            let (_, request) = parse(Some(bad));
            assert_eq!(request.expect_err("no request").code, ErrorCode::Undecodable);
        }
    }

    #[test]
    fn a_request_has_these_bytes() {
        assert_eq!(encode(&Request::query("health")), b"\x81\xa5query\xa6health");
        let events = Request { after: Some(300), limit: Some(10), ..Request::query("events") };
        assert_eq!(encode(&events), b"\x83\xa5query\xa6events\xa5after\xcd\x01\x2c\xa5limit\x0a");
    }

    #[test]
    fn a_reply_has_these_bytes() {
        let page = |next| Ready::Page { data: vec![1], next };
        assert_eq!(write(Format::MessagePack, &page(None)), b"\x82\xa2ok\xc3\xa4data\x01");
        let more = write(Format::MessagePack, &page(Some("1.2".to_owned())));
        assert_eq!(more, b"\x83\xa2ok\xc3\xa4data\x01\xa4next\xa31.2");
        let gone = ErrorBody { first_seq: Some(4), ..ErrorBody::new(ErrorCode::Gone, "no") };
        assert_eq!(
            write(Format::MessagePack, &Ready::Refused(gone)),
            b"\x82\xa2ok\xc2\xa5error\x83\xa4code\xa4gone\xa7message\xa2no\xa9first_seq\x04"
        );
    }

    #[test]
    fn answers_have_named_fields_in_both_formats() {
        let row = crate::message::Ordered { addresses: vec!["w!port:x".to_owned()], ..Default::default() };
        let reply = Pager::default().first(Instant::now(), Ok(Answer::whole(&row)));
        let json = String::from_utf8(write(Format::Json, &reply)).expect("text");
        assert_eq!(json, "{\"data\":{\"addresses\":[\"w!port:x\"],\"unreached\":[]},\"ok\":true}\n");
        let bytes = write(Format::MessagePack, &reply);
        assert_eq!(bytes, b"\x82\xa2ok\xc3\xa4data\x82\xa9addresses\x91\xa8w!port:x\xa9unreached\x90");
    }

    #[test]
    fn a_message_read_back_from_its_value_is_the_same() {
        let state = crate::message::State::Up;
        assert_eq!(to_value(&state), Value::from("up"));
        assert_eq!(from_value::<crate::message::State>(&to_value(&state)).expect("a state"), state);
        assert!(from_value::<crate::message::State>(&Value::from(7)).is_err());
    }

    #[test]
    fn json_says_what_it_can() {
        let value = Value::Map(vec![
            ("n".into(), Value::from(u64::MAX)),
            ("nan".into(), Value::F64(f64::NAN)),
            ("bytes".into(), Value::Binary(vec![1, 2])),
            (1.into(), Value::Ext(1, vec![0])),
        ]);
        assert_eq!(to_json(value).to_string(), r#"{"1":null,"bytes":"AQI=","n":18446744073709551615,"nan":null}"#);
    }
}
