//! The journaled subscriber: follows a journaled publisher without losing an entry and without taking one twice. Used by
//! cprocessd for the feed and by everything that follows the stream.
//!
//! [`Follower`] decides, and touches no socket: it holds the cursor, says for each message whether it is next, old, or proof
//! of a gap, and what to ask: on a start, a gap or a beat that is ahead `events {after}` before it goes on, and a snapshot
//! where the journal no longer has what it needs. [`follow`] is the shell around it: sockets, retries, the log. The
//! simulator drives the same follower without them.

use crate::counters::Counters;
use crate::message::{Beat, Epoch, ErrorBody, ErrorCode, EventsPage, Health, Request, decode, decode_batch};
use crate::notifier::one_line;
use crate::query::{Answered, AskError, ask_for, ask_without};
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
        state: Answered,
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

/// Where a message stands in the publisher's journal, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An entry of the journal.
    Entry {
        /// Of this journal.
        epoch: Epoch,
        /// In this place.
        seq: u64,
    },
    /// A state that builds on all entries up to this one.
    Repeated {
        /// The newest of them.
        head_seq: u64,
    },
    /// A sign of life, which tells how far the journal has got.
    Beat {
        /// Of this journal.
        epoch: Epoch,
        /// Its newest entry.
        head_seq: u64,
    },
    /// It has nothing to do with the journal.
    Live,
}

/// What a follower needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The next message of the stream, whenever it comes.
    Message,
    /// The answer to `events`.
    Events {
        /// After this entry, of this journal if it is known.
        after: Cursor,
    },
    /// The answer to `snapshot`.
    Snapshot,
    /// The answer to `health`: epoch and head of the journal.
    Health,
}

/// What is to be handed on, with messages of whatever form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<M> {
    /// As [`Delivery::Snapshot`]; the state is that which was just given.
    Snapshot {
        /// Where the state stands.
        cursor: Cursor,
    },
    /// As [`Delivery::Lost`].
    Lost {
        /// The one before the next.
        cursor: Cursor,
    },
    /// As [`Delivery::Entry`].
    Entry {
        /// Its place.
        cursor: Cursor,
        /// The entry.
        message: M,
    },
    /// As [`Delivery::Live`] or [`Delivery::Beat`].
    Live {
        /// The message.
        message: M,
    },
    /// A repeated state that waited while entries after it were asked for: it would turn back the state. Another follows.
    Overtaken,
    /// The publisher has another journal than before.
    NewJournal {
        /// Its name.
        epoch: Epoch,
    },
}

/// An answer that cannot be right. The question is to be asked again, a little later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// A place in the journal that none can have.
    #[error("a place in its journal beyond {MAX_SEQ}")]
    Impossible,
    /// A publisher that has more but does not give it is broken, not slow.
    #[error("no event, although there are more")]
    Stuck,
}

/// Decides what of a stream is next, old, or proof of a gap, and what to ask to close it. Pure: it is told the time, messages
/// and answers, in whichever form the messages are.
#[derive(Debug)]
pub struct Follower<M> {
    cursor: Cursor,
    want: Want,
    /// Where the journal no longer has what comes next, go on with the oldest entry there is.
    oldest_if_gone: bool,
    /// The entries that were asked for do not go on from ours: then the place of the oldest, once the journal is known.
    oldest: Option<u64>,
    /// What showed the gap, until that is closed.
    held: Option<(Place, M)>,
    /// When a new journal was last asked about.
    anew_at: Option<Duration>,
}

impl<M> Follower<M> {
    /// Nothing was taken yet, or all before `start`.
    pub fn new(start: Start) -> Self {
        let nothing = Cursor { epoch: None, seq: 0 };
        let (cursor, want, oldest_if_gone) = match start {
            Start::After(cursor) => (cursor.clone(), Want::Events { after: cursor }, false),
            Start::AfterOrOldest(cursor) => (cursor.clone(), Want::Events { after: cursor }, true),
            Start::Snapshot => (nothing, Want::Snapshot, false),
            Start::Now => (nothing, Want::Health, true),
        };
        Self { cursor, want, oldest_if_gone, oldest: None, held: None, anew_at: None }
    }

    /// What it needs to go on.
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// The last entry that was handed on, or is covered by what was.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// A message of the stream came, at `now` of any clock that does not jump. Only while [`Want::Message`] is wanted: the
    /// others wait.
    pub fn message(&mut self, now: Duration, place: Place, message: M) -> Option<Step<M>> {
        let (epoch, head) = match &place {
            Place::Entry { epoch, seq } if self.is_next(epoch, *seq) => {
                self.cursor = Cursor { epoch: Some(epoch.clone()), seq: *seq };
                return Some(Step::Entry { cursor: self.cursor.clone(), message });
            }
            Place::Entry { epoch, seq } => (Some(epoch), *seq),
            Place::Beat { epoch, head_seq } => (Some(epoch), *head_seq),
            Place::Repeated { head_seq } => (None, *head_seq),
            Place::Live => return Some(Step::Live { message }),
        };
        if let Some(epoch) = epoch
            && self.cursor.epoch.as_ref().is_some_and(|ours| ours != epoch)
        {
            // A publisher that invents journals is not asked all the time. Nothing is lost: a beat says the same again.
            if self.anew_at.is_none_or(|at| now.saturating_sub(at) >= NEW_JOURNAL_PAUSE) {
                self.anew_at = Some(now);
                let epoch = epoch.clone();
                self.ask(place, message);
                return Some(Step::NewJournal { epoch });
            }
            return matches!(place, Place::Beat { .. }).then_some(Step::Live { message });
        }
        if head > self.cursor.seq {
            self.ask(place, message);
            return None;
        }
        self.hand_on(&place, message)
    }

    /// What builds on entries that are all here now.
    fn hand_on(&self, place: &Place, message: M) -> Option<Step<M>> {
        match place {
            // It was among the entries, or is old.
            Place::Entry { .. } => None,
            Place::Repeated { head_seq } if *head_seq < self.cursor.seq => Some(Step::Overtaken),
            Place::Repeated { .. } | Place::Beat { .. } | Place::Live => Some(Step::Live { message }),
        }
    }

    fn is_next(&self, epoch: &Epoch, seq: u64) -> bool {
        self.cursor.epoch.as_ref().is_none_or(|ours| ours == epoch) && seq == self.cursor.seq + 1
    }

    /// The entry itself comes with the answer.
    fn ask(&mut self, place: Place, message: M) {
        self.held = (!matches!(place, Place::Entry { .. })).then_some((place, message));
        self.want = Want::Events { after: self.cursor.clone() };
    }

    fn caught_up(&mut self, steps: &mut Vec<Step<M>>) {
        self.want = Want::Message;
        if let Some((place, message)) = self.held.take() {
            steps.extend(self.hand_on(&place, message));
        }
    }

    /// The answer to `events`: the journal has got to `head_seq`, and these are entries after our cursor.
    pub fn events(
        &mut self,
        epoch: &Epoch,
        head_seq: u64,
        entries: impl IntoIterator<Item = (u64, M)>,
        steps: &mut Vec<Step<M>>,
    ) -> Result<(), BadAnswer> {
        if head_seq > MAX_SEQ {
            return Err(BadAnswer::Impossible);
        }
        let before = self.cursor.seq;
        for (seq, message) in entries {
            if self.is_next(epoch, seq) {
                self.cursor = Cursor { epoch: Some(epoch.clone()), seq };
                steps.push(Step::Entry { cursor: self.cursor.clone(), message });
            }
        }
        self.cursor.epoch = Some(epoch.clone());
        self.want = Want::Events { after: self.cursor.clone() };
        if self.cursor.seq >= head_seq {
            self.caught_up(steps);
        } else if self.cursor.seq == before {
            return Err(BadAnswer::Stuck);
        }
        Ok(())
    }

    /// The answer to `events`: what follows our cursor is not there, the oldest entry is `first_seq`.
    pub fn gone(&mut self, first_seq: Option<u64>) {
        if self.oldest_if_gone {
            self.oldest = Some(first_seq.unwrap_or(1).saturating_sub(1));
            self.want = Want::Health;
        } else {
            self.want = Want::Snapshot;
        }
    }

    /// The answer to `health`.
    pub fn health(&mut self, epoch: Option<Epoch>, head_seq: u64, steps: &mut Vec<Step<M>>) {
        match self.oldest.take() {
            Some(seq) => {
                self.cursor = Cursor { epoch, seq };
                steps.push(Step::Lost { cursor: self.cursor.clone() });
                self.want = Want::Events { after: self.cursor.clone() };
            }
            None => {
                self.cursor = Cursor { epoch, seq: head_seq };
                self.caught_up(steps);
            }
        }
    }

    /// The answer to `snapshot` stands at this place.
    pub fn snapshot(&mut self, epoch: Epoch, seq: u64, steps: &mut Vec<Step<M>>) -> Result<(), BadAnswer> {
        if seq > MAX_SEQ {
            return Err(BadAnswer::Impossible);
        }
        self.cursor = Cursor { epoch: Some(epoch), seq };
        steps.push(Step::Snapshot { cursor: self.cursor.clone() });
        self.caught_up(steps);
        Ok(())
    }
}

/// Where a message says that it stands.
#[derive(Debug, Deserialize)]
struct Named {
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
        follower: Follower::new(start),
        started: Instant::now(),
        counters,
        deliveries,
        quiet: false,
        patience: FIRST_ANSWER_TIMEOUT,
        anew_said: None,
        gone_said: None,
    };
    // A closed receiver ends everything below; that is the only way out of it.
    let _ = shell.run(&socket).await;
    Ok(())
}

/// A message, as far as it was read.
enum Message {
    Beat(Beat),
    Other { topic: Bytes, payload: Bytes },
}

struct Shell {
    name: String,
    questions: Requester,
    unwanted: &'static [&'static str],
    follower: Follower<Message>,
    started: Instant,
    counters: Counters,
    deliveries: mpsc::Sender<Delivery>,
    /// The publisher does not answer, and that has been said.
    quiet: bool,
    /// How long the next answer may take.
    patience: Duration,
    /// When a new journal was last logged.
    anew_said: Option<Instant>,
    /// When it was last logged that entries are gone.
    gone_said: Option<Instant>,
}

/// The receiver of deliveries is gone.
struct Closed;

impl Shell {
    async fn run(&mut self, socket: &Subscriber) -> Result<(), Closed> {
        loop {
            match self.follower.want().clone() {
                Want::Message => self.receive(socket).await?,
                Want::Events { after } => self.ask_events(after).await?,
                Want::Snapshot => self.ask_snapshot().await?,
                Want::Health => self.ask_health().await?,
            }
        }
    }

    async fn receive(&mut self, socket: &Subscriber) -> Result<(), Closed> {
        let (mut topic, mut payload) = tokio::select! {
            message = socket.recv() => match message {
                Ok(message) => message,
                Err(error) => {
                    tracing::error!("{error}");
                    return Err(Closed);
                }
            },
            () = self.deliveries.closed() => return Err(Closed),
        };
        // Samples are never journaled: no need to look inside, and those that wait behind are taken along.
        while topic.starts_with(b"value.") {
            self.deliver(Delivery::Live { topic, payload }).await?;
            match socket.try_recv() {
                Some(next) => (topic, payload) = next,
                None => return Ok(()),
            }
        }
        match placed(topic.clone(), payload) {
            Some((place, message)) => match self.follower.message(self.started.elapsed(), place, message) {
                Some(step) => self.take(step).await,
                None => Ok(()),
            },
            None => {
                self.undecodable(&String::from_utf8_lossy(&topic));
                Ok(())
            }
        }
    }

    async fn take(&mut self, step: Step<Message>) -> Result<(), Closed> {
        match step {
            Step::Entry { cursor, message: Message::Other { topic, payload } } => {
                self.deliver(Delivery::Entry { cursor, topic, payload }).await
            }
            Step::Live { message: Message::Other { topic, payload } } => {
                self.deliver(Delivery::Live { topic, payload }).await
            }
            Step::Live { message: Message::Beat(beat) } => self.deliver(Delivery::Beat(beat)).await,
            Step::Lost { cursor } => self.deliver(Delivery::Lost { cursor }).await,
            Step::Overtaken => {
                self.counters.count(&self.name, "overtaken");
                Ok(())
            }
            Step::NewJournal { epoch } => {
                if self.anew_said.is_none_or(|at| at.elapsed() >= SAY_NEW_JOURNAL_EVERY) {
                    tracing::warn!("{} has a new journal, {epoch}", self.name);
                    self.anew_said = Some(Instant::now());
                }
                self.counters.count(&self.name, "new_journal");
                Ok(())
            }
            // A beat is no entry, and a snapshot is handed on with its state.
            Step::Entry { message: Message::Beat(_), .. } | Step::Snapshot { .. } => Ok(()),
        }
    }

    async fn ask_events(&mut self, after: Cursor) -> Result<(), Closed> {
        let request =
            Request { after: Some(after.seq), epoch: after.epoch.map(String::from), ..Request::query("events") };
        let page = match self.ask_once::<EventsPage<Value>>(&request).await {
            Ok(page) => page,
            Err(AskError::Refused(error)) if error.code == ErrorCode::Gone => {
                self.say_gone(&error);
                self.follower.gone(error.first_seq);
                return Ok(());
            }
            Err(error) => return self.wait_out(&error).await,
        };
        let mut entries = Vec::new();
        for event in page.events {
            let Some((topic, seq)) = topic_and_seq(&event) else {
                self.undecodable("events");
                continue;
            };
            let mut payload = Vec::new();
            rmpv::encode::write_value(&mut payload, &event).expect("a value is written into memory");
            entries.push((seq, Message::Other { topic: Bytes::from(topic), payload: Bytes::from(payload) }));
        }
        let mut steps = Vec::new();
        let taken = self.follower.events(&page.epoch, page.head_seq, entries, &mut steps);
        for step in steps {
            self.take(step).await?;
        }
        match taken {
            Ok(()) => Ok(()),
            Err(error) => self.wait_out(&AskError::BadAnswer(error.to_string())).await,
        }
    }

    /// What we need is no longer there: entries that were never delivered will not be.
    fn say_gone(&mut self, error: &ErrorBody) {
        self.counters.count(&self.name, "gone");
        if self.gone_said.is_none_or(|at| at.elapsed() >= SAY_NEW_JOURNAL_EVERY) {
            let instead = if self.follower.oldest_if_gone { "the oldest there is" } else { "its state as a whole" };
            let error = one_line(&error.to_string(), LOGGED_CHARS);
            tracing::warn!("{} no longer has all that was not read yet, so {instead} is taken: {error}", self.name);
            self.gone_said = Some(Instant::now());
        }
    }

    async fn ask_snapshot(&mut self) -> Result<(), Closed> {
        #[derive(Deserialize)]
        struct Position {
            epoch: Epoch,
            seq: u64,
        }
        let state = match self.ask_state().await {
            Ok(state) => state,
            Err(error) => return self.wait_out(&error).await,
        };
        let mut steps = Vec::new();
        let taken = state
            .read::<Position>()
            .map_err(|error| error.to_string())
            .and_then(|at| self.follower.snapshot(at.epoch, at.seq, &mut steps).map_err(|error| error.to_string()));
        match taken {
            Ok(()) => self.deliver(Delivery::Snapshot { cursor: self.follower.cursor().clone(), state }).await?,
            Err(error) => return self.wait_out(&AskError::BadAnswer(error)).await,
        }
        for step in steps {
            self.take(step).await?;
        }
        Ok(())
    }

    async fn ask_health(&mut self) -> Result<(), Closed> {
        let health: Health = match self.ask_once(&Request::query("health")).await {
            Ok(health) => health,
            Err(error) => return self.wait_out(&error).await,
        };
        let mut steps = Vec::new();
        self.follower.health(health.epoch, health.head_seq, &mut steps);
        for step in steps {
            self.take(step).await?;
        }
        Ok(())
    }

    async fn ask_once<T: serde::de::DeserializeOwned>(&mut self, request: &Request) -> Result<T, AskError> {
        let answer = ask_for(&mut self.questions, request, self.patience).await;
        self.answered(answer)
    }

    async fn ask_state(&mut self) -> Result<Answered, AskError> {
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

/// A message and where it stands; none if it is no message, or stands where none can.
fn placed(topic: Bytes, payload: Bytes) -> Option<(Place, Message)> {
    if topic.starts_with(b"beat.") {
        let beat = decode::<Beat>(&payload).ok().filter(|beat| beat.head_seq <= MAX_SEQ)?;
        let place = Place::Beat { epoch: beat.epoch.clone(), head_seq: beat.head_seq };
        return Some((place, Message::Beat(beat)));
    }
    let names = decode_batch::<Named>(&payload).ok()?;
    if names.iter().any(|named| named.seq.max(named.head_seq) > Some(MAX_SEQ)) {
        return None;
    }
    let place = match names.as_slice() {
        [Named { epoch: Some(epoch), seq: Some(seq), .. }] => Place::Entry { epoch: epoch.clone(), seq: *seq },
        names => match names.iter().filter_map(|named| named.head_seq).max() {
            Some(head_seq) => Place::Repeated { head_seq },
            None => Place::Live,
        },
    };
    Some((place, Message::Other { topic, payload }))
}

/// What `events` adds to each entry, and the entry's own place.
fn topic_and_seq(event: &Value) -> Option<(String, u64)> {
    let fields = event.as_map()?;
    let field = |name: &str| fields.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    Some((field("topic")?.as_str()?.to_owned(), field("seq")?.as_u64()?))
}
