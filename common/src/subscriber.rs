//! The journaled subscriber: follows a journaled publisher without losing an entry and without taking one twice. Used by
//! cprocessd for the feed and by everything that follows the stream.
//!
//! [`Follower`] decides, and touches no socket: it holds the cursor and says for each message whether it is next, old, or
//! proof of a gap. [`follow`] is the shell around it: on a start, a gap or a beat that is ahead it asks `events {after}`
//! before it goes on, and takes a snapshot where the journal no longer has what it needs.

use crate::counters::Counters;
use crate::message::{Beat, Epoch, ErrorBody, ErrorCode, EventsPage, Health, Request, decode, decode_batch};
use crate::notifier::one_line;
use crate::query::{AskError, ask_for, ask_without, from_value};
use crate::socket::{Requester, SocketError, Subscriber, name_of};
use bytes::Bytes;
use rmpv::Value;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long an answer may take before the question is asked again: short at first, since a question that went to a
/// publisher which has just died is never answered, and its successor may be there already.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// And at most, for a publisher that is slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two attempts to reach a publisher that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A publisher that invents journals is asked about them this often, and it is logged this often. Nothing is lost: a beat says
/// the same again.
const NEW_JOURNAL_PAUSE: Duration = Duration::from_millis(200);
const SAY_NEW_JOURNAL_EVERY: Duration = Duration::from_mins(1);
/// Beyond this no journal comes, and no database could keep it.
const MAX_SEQ: u64 = i64::MAX as u64;
/// What the state of a stream may take in memory for who wants its hosts and open incidents: 20,000 of them.
pub const MAX_STREAM_STATE_BYTES: usize = 24 << 20;
/// Of what a publisher says, in our log.
const LOGGED_CHARS: usize = 200;

/// How far a subscriber has come. It keeps this on disk together with what it made of the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The publisher's journal; absent if only the number is known.
    pub epoch: Option<Epoch>,
    /// The last entry that was taken.
    pub seq: u64,
}

/// Where to begin, and what to do when the journal cannot go on from there.
#[derive(Clone, Debug)]
pub enum Start {
    /// After this entry; a snapshot if it is gone.
    After(Cursor),
    /// With a snapshot.
    Snapshot,
    /// After this entry; with the oldest entry there is if it is gone.
    AfterOrOldest(Cursor),
    /// With the next entry.
    Now,
}

/// What a follower hands on, in order.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The whole state of the publisher, up to the cursor. Replaces all that was delivered before.
    Snapshot {
        /// Where the state stands.
        cursor: Cursor,
        /// The answer to `snapshot`.
        state: Value,
    },
    /// Entries are lost for good; the next one delivered is the oldest there is.
    Lost {
        /// The one before it.
        cursor: Cursor,
    },
    /// The next entry of the journal.
    Entry {
        /// Its place.
        cursor: Cursor,
        /// What it was published under.
        topic: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// A message that has no place in the journal.
    Live {
        /// What it was published under.
        topic: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// The publisher lives.
    Beat(Beat),
}

/// What a message is to a follower.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Take it.
    Next,
    /// Had it.
    Old,
    /// Something before it is missing: ask.
    Gap,
    /// It belongs to another journal: begin anew.
    Anew,
}

/// The cursor, and what follows from it.
#[derive(Debug)]
struct Follower {
    cursor: Cursor,
}

impl Follower {
    /// An entry of the journal arrived.
    fn entry(&mut self, epoch: &Epoch, seq: u64) -> Verdict {
        match self.position(epoch, seq) {
            Verdict::Gap if seq == self.cursor.seq + 1 => {
                self.cursor = Cursor { epoch: Some(epoch.clone()), seq };
                Verdict::Next
            }
            verdict => verdict,
        }
    }

    /// Someone mentioned that the journal has got to `head`.
    fn position(&self, epoch: &Epoch, head: u64) -> Verdict {
        match &self.cursor.epoch {
            Some(ours) if ours != epoch => Verdict::Anew,
            _ if head > self.cursor.seq => Verdict::Gap,
            _ => Verdict::Old,
        }
    }
}

/// What a follower needs to know of any message.
#[derive(Debug, Deserialize)]
struct Place {
    #[serde(default)]
    epoch: Option<Epoch>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    head_seq: Option<u64>,
}

/// Whom to follow.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The PUB socket.
    pub publisher: PathBuf,
    /// The question socket over the same journal.
    pub questions: PathBuf,
    /// Topics to take beside `beat.`. Must include all that is journaled, since a filtered entry would look like a gap.
    pub prefixes: Vec<&'static str>,
    /// Lists of its snapshot that are not wanted, and left empty.
    pub unwanted: &'static [&'static str],
    /// What its answers may take in memory.
    pub max_answer_bytes: usize,
}

/// Follows until the receiver is dropped. Errors only where a socket cannot be made at all; a publisher that is away, or
/// answers nonsense, is retried for ever.
pub async fn follow(
    publication: Publication,
    start: Start,
    counters: Counters,
    deliveries: mpsc::Sender<Delivery>,
) -> Result<(), SocketError> {
    let mut prefixes = publication.prefixes.clone();
    prefixes.push("beat.");
    let socket = Subscriber::connect(&publication.publisher, &prefixes).await?;
    let mut shell = Shell {
        name: name_of(&publication.publisher),
        questions: Requester::new(&publication.questions).at_most(publication.max_answer_bytes),
        unwanted: publication.unwanted,
        follower: Follower { cursor: Cursor { epoch: None, seq: 0 } },
        oldest_if_gone: matches!(start, Start::AfterOrOldest(_) | Start::Now),
        counters,
        deliveries,
        quiet: false,
        patience: FIRST_ANSWER_TIMEOUT,
        anew_at: None,
        anew_said: None,
        gone_said: None,
    };
    // A closed receiver ends everything below; that is the only way out of it.
    let _ = shell.run(&socket, start).await;
    Ok(())
}

struct Shell {
    name: String,
    questions: Requester,
    unwanted: &'static [&'static str],
    follower: Follower,
    oldest_if_gone: bool,
    counters: Counters,
    deliveries: mpsc::Sender<Delivery>,
    /// The publisher does not answer, and that has been said.
    quiet: bool,
    /// How long the next answer may take.
    patience: Duration,
    /// When a new journal was last asked about, and when it was last logged.
    anew_at: Option<Instant>,
    anew_said: Option<Instant>,
    /// When it was last logged that entries are gone.
    gone_said: Option<Instant>,
}

/// The receiver of deliveries is gone.
struct Closed;

impl Shell {
    async fn run(&mut self, socket: &Subscriber, start: Start) -> Result<(), Closed> {
        match start {
            Start::After(cursor) | Start::AfterOrOldest(cursor) => {
                self.follower.cursor = cursor;
                self.catch_up().await?;
            }
            Start::Snapshot => self.snapshot().await?,
            Start::Now => {
                let health: Health = self.insist(Request::query("health")).await?;
                self.follower.cursor = Cursor { epoch: health.epoch, seq: health.head_seq };
            }
        }
        loop {
            let (topic, payload) = tokio::select! {
                message = socket.recv() => match message {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::error!("{error}");
                        return Err(Closed);
                    }
                },
                () = self.deliveries.closed() => return Err(Closed),
            };
            if topic.starts_with(b"beat.") {
                self.beat(&payload).await?;
            } else if topic.starts_with(b"value.") {
                // Samples are never journaled: no need to look inside.
                self.deliver(Delivery::Live { topic, payload }).await?;
            } else {
                self.message(topic, payload).await?;
            }
        }
    }

    async fn beat(&mut self, payload: &[u8]) -> Result<(), Closed> {
        let beat = match decode::<Beat>(payload) {
            Ok(beat) if beat.head_seq <= MAX_SEQ => beat,
            Ok(_) | Err(_) => {
                self.undecodable("beat.");
                return Ok(());
            }
        };
        match self.follower.position(&beat.epoch, beat.head_seq) {
            Verdict::Gap => self.catch_up().await?,
            Verdict::Anew => self.begin_anew(&beat.epoch).await?,
            Verdict::Next | Verdict::Old => {}
        }
        self.deliver(Delivery::Beat(beat)).await
    }

    async fn message(&mut self, topic: Bytes, payload: Bytes) -> Result<(), Closed> {
        let places = match decode_batch::<Place>(&payload) {
            Ok(places) if places.iter().all(|place| place.seq.max(place.head_seq) <= Some(MAX_SEQ)) => places,
            Ok(_) | Err(_) => {
                self.undecodable(&String::from_utf8_lossy(&topic));
                return Ok(());
            }
        };
        match places.as_slice() {
            [Place { epoch: Some(epoch), seq: Some(seq), .. }] => match self.follower.entry(epoch, *seq) {
                Verdict::Next => {
                    self.deliver(Delivery::Entry { cursor: self.follower.cursor.clone(), topic, payload }).await
                }
                Verdict::Old => Ok(()),
                // The answer brings this one too.
                Verdict::Gap => self.catch_up().await,
                Verdict::Anew => self.begin_anew(&epoch.clone()).await,
            },
            places => {
                if let Some(head) = places.iter().filter_map(|place| place.head_seq).max() {
                    if head > self.follower.cursor.seq {
                        self.catch_up().await?;
                    }
                    if head < self.follower.cursor.seq {
                        // It waited while we asked for what came after it, and would turn back the state. Another follows.
                        self.counters.count(&self.name, "overtaken");
                        return Ok(());
                    }
                }
                self.deliver(Delivery::Live { topic, payload }).await
            }
        }
    }

    /// Asks for what is missing until there is nothing more.
    async fn catch_up(&mut self) -> Result<(), Closed> {
        loop {
            let cursor = self.follower.cursor.clone();
            let request =
                Request { after: Some(cursor.seq), epoch: cursor.epoch.map(String::from), ..Request::query("events") };
            let page = match self.ask_once::<EventsPage<Value>>(&request).await {
                Ok(page) if page.head_seq <= MAX_SEQ => page,
                Ok(_) => {
                    self.wait_out(&impossible()).await?;
                    continue;
                }
                Err(AskError::Refused(error)) if error.code == ErrorCode::Gone => {
                    self.say_gone(&error);
                    if !self.oldest_if_gone {
                        return self.snapshot().await;
                    }
                    let health: Health = self.insist(Request::query("health")).await?;
                    let seq = error.first_seq.unwrap_or(1).saturating_sub(1);
                    self.follower.cursor = Cursor { epoch: health.epoch, seq };
                    self.deliver(Delivery::Lost { cursor: self.follower.cursor.clone() }).await?;
                    continue;
                }
                Err(error) => {
                    self.wait_out(&error).await?;
                    continue;
                }
            };
            let mut taken = false;
            for event in page.events {
                let Some((topic, seq)) = topic_and_seq(&event) else {
                    self.undecodable("events");
                    continue;
                };
                if self.follower.entry(&page.epoch, seq) == Verdict::Next {
                    let mut payload = Vec::new();
                    rmpv::encode::write_value(&mut payload, &event).expect("a value is written into memory");
                    let cursor = self.follower.cursor.clone();
                    self.deliver(Delivery::Entry { cursor, topic: Bytes::from(topic), payload: Bytes::from(payload) })
                        .await?;
                    taken = true;
                }
            }
            self.follower.cursor.epoch = Some(page.epoch);
            if self.follower.cursor.seq >= page.head_seq {
                return Ok(());
            }
            if !taken {
                // A publisher that has more but does not give it is broken, not slow.
                self.wait_out(&AskError::BadAnswer("no event, although there are more".into())).await?;
            }
        }
    }

    /// What we need is no longer there: entries that were never delivered will not be.
    fn say_gone(&mut self, error: &ErrorBody) {
        self.counters.count(&self.name, "gone");
        if self.gone_said.is_none_or(|at| at.elapsed() >= SAY_NEW_JOURNAL_EVERY) {
            let instead = if self.oldest_if_gone { "the oldest there is" } else { "its state as a whole" };
            let error = one_line(&error.to_string(), LOGGED_CHARS);
            tracing::warn!("{} no longer has all that was not read yet, so {instead} is taken: {error}", self.name);
            self.gone_said = Some(Instant::now());
        }
    }

    async fn begin_anew(&mut self, epoch: &Epoch) -> Result<(), Closed> {
        if self.anew_at.is_some_and(|at| at.elapsed() < NEW_JOURNAL_PAUSE) {
            return Ok(());
        }
        if self.anew_said.is_none_or(|at| at.elapsed() >= SAY_NEW_JOURNAL_EVERY) {
            tracing::warn!("{} has a new journal, {epoch}", self.name);
            self.anew_said = Some(Instant::now());
        }
        self.counters.count(&self.name, "new_journal");
        self.anew_at = Some(Instant::now());
        self.catch_up().await
    }

    async fn snapshot(&mut self) -> Result<(), Closed> {
        #[derive(Deserialize)]
        struct Position {
            epoch: Epoch,
            seq: u64,
        }
        loop {
            let state = match self.ask_state().await {
                Ok(state) => state,
                Err(error) => {
                    self.wait_out(&error).await?;
                    continue;
                }
            };
            match from_value::<Position>(&state) {
                Ok(Position { seq, .. }) if seq > MAX_SEQ => self.wait_out(&impossible()).await?,
                Ok(Position { epoch, seq }) => {
                    let cursor = Cursor { epoch: Some(epoch), seq };
                    self.follower.cursor = cursor.clone();
                    return self.deliver(Delivery::Snapshot { cursor, state }).await;
                }
                Err(error) => self.wait_out(&AskError::BadAnswer(error.to_string())).await?,
            }
        }
    }

    async fn ask_once<T: serde::de::DeserializeOwned>(&mut self, request: &Request) -> Result<T, AskError> {
        let answer = ask_for(&mut self.questions, request, self.patience).await;
        self.answered(answer)
    }

    async fn ask_state(&mut self) -> Result<Value, AskError> {
        let request = Request::query("snapshot");
        let answer = ask_without(&mut self.questions, &request, self.patience, self.unwanted).await;
        self.answered(answer)
    }

    fn answered<T>(&mut self, answer: Result<T, AskError>) -> Result<T, AskError> {
        match &answer {
            // It may only be slow.
            Err(AskError::Unreachable(_)) => self.patience = (self.patience * 2).min(ANSWER_TIMEOUT),
            Ok(_) | Err(_) => self.patience = FIRST_ANSWER_TIMEOUT,
        }
        if answer.is_ok() && std::mem::take(&mut self.quiet) {
            tracing::info!("{} answers again", self.questions.path().display());
        }
        answer
    }

    /// Asks until there is an answer.
    async fn insist<T: serde::de::DeserializeOwned>(&mut self, request: Request) -> Result<T, Closed> {
        loop {
            match self.ask_once(&request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    /// Says once that there is no answer, and waits a little.
    async fn wait_out(&mut self, error: &AskError) -> Result<(), Closed> {
        self.counters.count(&self.name, "unanswered");
        if !std::mem::replace(&mut self.quiet, true) {
            let error = one_line(&error.to_string(), LOGGED_CHARS);
            tracing::warn!("cannot follow {}, will retry: {error}", self.name);
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => Ok(()),
            () = self.deliveries.closed() => Err(Closed),
        }
    }

    fn undecodable(&self, what: &str) {
        if self.counters.count(&self.name, "undecodable") {
            let what = one_line(what, LOGGED_CHARS);
            tracing::warn!("{} sent what is no message under {what:?}; more of this is only counted", self.name);
        }
    }

    async fn deliver(&self, delivery: Delivery) -> Result<(), Closed> {
        self.deliveries.send(delivery).await.map_err(|_| Closed)
    }
}

fn impossible() -> AskError {
    AskError::BadAnswer(format!("a place in its journal beyond {MAX_SEQ}"))
}

/// What `events` adds to each entry, and the entry's own place.
fn topic_and_seq(event: &Value) -> Option<(String, u64)> {
    let fields = event.as_map()?;
    let field = |name: &str| fields.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    Some((field("topic")?.as_str()?.to_owned(), field("seq")?.as_u64()?))
}
