//! Follows one publisher and asks it what its stream does not say.
//!
//! Incidents and most of what happens to hosts arrive as events, at once. What no event tells (the hosts behind a
//! ccollectd that fell silent become unknown together, a silence ends) is asked for every few seconds. An answer that
//! an event has overtaken is thrown away: it may be older than the event.

use common::counters::Counters;
use common::message::decode_batch;
use common::message::{DownRow, ErrorCode, Event, EventsPage, Request, Sample, ServerRow, StreamSnapshot};
use common::notifier::one_line;
use common::query::{AskError, ask_for};
use common::socket::{Requester, name_of};
use common::subscriber::{Cursor, Delivery, MAX_STREAM_STATE_BYTES, Publication, Start, follow};
use common::traffic::Traffic;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::board::MAX_EVENTS;

/// Deliveries that wait for us. Beyond it the socket keeps them, and drops what is lossy.
const WAITING: usize = 64;
/// How often hosts and incidents are asked for.
const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Of what a publisher says, in our log.
const LOGGED_CHARS: usize = 200;

/// What a publisher said.
#[derive(Debug)]
pub(crate) enum Said {
    /// The whole state.
    Snapshot(StreamSnapshot),
    /// What happened before we listened.
    History(Vec<Event>),
    /// Hosts and incidents as they are.
    Refresh(Vec<ServerRow>, Vec<DownRow>),
    /// Something happened.
    Event(Box<Event>),
    /// Numbers.
    Samples(Vec<Sample>),
    /// It lives.
    Beat,
}

/// What came of a question.
enum Answer {
    History(Result<EventsPage<Event>, AskError>),
    Refresh { entries_before: u64, rows: Result<(Vec<ServerRow>, Vec<DownRow>), AskError> },
}

type Question = Pin<Box<dyn Future<Output = (Requester, Answer)> + Send>>;

/// The question socket beside a stream.
pub(crate) fn question_socket(stream: &Path) -> PathBuf {
    stream.with_file_name("query")
}

/// Follows the publisher for ever, and tells `out` with its number. Everything it cannot understand is counted.
pub(crate) fn start(side: usize, stream: &Path, counters: &Counters, print: bool, out: mpsc::Sender<(usize, Said)>) {
    let publication = Publication {
        publisher: stream.to_owned(),
        questions: question_socket(stream),
        prefixes: vec!["value.", "event."],
        unwanted: &["checks"],
        max_answer_bytes: MAX_STREAM_STATE_BYTES,
    };
    let (deliveries_in, deliveries) = mpsc::channel(WAITING);
    let followed = counters.clone();
    tokio::spawn(async move {
        if let Err(error) = follow(publication, Start::Snapshot, followed, deliveries_in).await {
            panic!("cannot follow a stream: {error}");
        }
    });
    let source = Source {
        side,
        name: name_of(stream),
        requester: Some(Requester::new(&question_socket(stream)).at_most(MAX_STREAM_STATE_BYTES)),
        entries: 0,
        counters: counters.clone(),
        traffic: Traffic::new(print),
        out,
    };
    tokio::spawn(source.run(deliveries));
}

struct Source {
    side: usize,
    name: String,
    /// Absent while a question is under way.
    requester: Option<Requester>,
    /// Events so far.
    entries: u64,
    counters: Counters,
    traffic: Traffic,
    out: mpsc::Sender<(usize, Said)>,
}

/// The daemon stops.
struct Closed;

impl Source {
    async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        let mut question: Option<Question> = None;
        let mut history_from: Option<Cursor> = None;
        let mut refresh = tokio::time::interval(REFRESH_EVERY);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut following = false;
        loop {
            let told = tokio::select! {
                Some(delivery) = deliveries.recv() => {
                    if let Delivery::Snapshot { cursor, .. } = &delivery {
                        following = true;
                        history_from = Some(cursor.clone());
                    }
                    self.delivery(delivery).await
                }
                (requester, answer) = async { question.as_mut().expect("checked").await }, if question.is_some() => {
                    question = None;
                    self.requester = Some(requester);
                    self.answer(answer).await
                }
                _ = refresh.tick(), if following && self.requester.is_some() => {
                    question = self.requester.take().map(|requester| ask_refresh(requester, self.entries));
                    Ok(())
                }
            };
            if let (Some(cursor), true) = (&history_from, self.requester.is_some()) {
                question = self.requester.take().map(|requester| ask_history(requester, cursor));
                history_from = None;
            }
            if told.is_err() {
                return;
            }
        }
    }

    async fn delivery(&mut self, delivery: Delivery) -> Result<(), Closed> {
        match delivery {
            Delivery::Snapshot { state, .. } => match state.read() {
                Ok(snapshot) => self.tell(Said::Snapshot(snapshot)).await,
                Err(error) => self.undecodable("snapshot", &error.to_string()),
            },
            Delivery::Entry { topic, payload, .. } => {
                self.traffic.print("in", &topic, &payload);
                self.entries += 1;
                match Event::read(&payload) {
                    Ok(event) => self.tell(Said::Event(Box::new(event))).await,
                    Err(error) => self.undecodable(&String::from_utf8_lossy(&topic), &error.to_string()),
                }
            }
            Delivery::Live { topic, payload } => {
                self.traffic.print("in", &topic, &payload);
                match decode_batch::<Sample>(&payload) {
                    Ok(samples) => self.tell(Said::Samples(samples)).await,
                    Err(error) => self.undecodable(&String::from_utf8_lossy(&topic), &error.to_string()),
                }
            }
            Delivery::Beat(_) => self.tell(Said::Beat).await,
            // Only who starts after an entry is told so; we start with a snapshot.
            Delivery::Lost { .. } => Ok(()),
        }
    }

    async fn answer(&mut self, answer: Answer) -> Result<(), Closed> {
        match answer {
            Answer::History(Ok(page)) => self.tell(Said::History(page.events)).await,
            Answer::Refresh { entries_before, rows: Ok((hosts, incidents)) } => {
                if entries_before != self.entries {
                    self.counters.count(&self.name, "overtaken");
                    return Ok(());
                }
                self.tell(Said::Refresh(hosts, incidents)).await
            }
            Answer::History(Err(error)) | Answer::Refresh { rows: Err(error), .. } => {
                self.counters.count(&self.name, "unanswered");
                tracing::debug!("{}: {error}", self.name);
                Ok(())
            }
        }
    }

    async fn tell(&self, said: Said) -> Result<(), Closed> {
        self.out.send((self.side, said)).await.map_err(|_| Closed)
    }

    #[expect(clippy::unnecessary_wraps, reason = "an arm beside others that can find the daemon stopped")]
    fn undecodable(&self, what: &str, why: &str) -> Result<(), Closed> {
        if self.counters.count(&self.name, "undecodable") {
            let (what, why) = (one_line(what, LOGGED_CHARS), one_line(why, LOGGED_CHARS));
            tracing::warn!("{} sent what is no message under {what:?}: {why}; more of this is only counted", self.name);
        }
        Ok(())
    }
}

/// The last events before the cursor.
fn ask_history(mut requester: Requester, cursor: &Cursor) -> Question {
    let limit = MAX_EVENTS as u64;
    let request = Request {
        after: Some(cursor.seq.saturating_sub(limit)),
        epoch: cursor.epoch.clone().map(String::from),
        limit: Some(limit),
        ..Request::query("events")
    };
    Box::pin(async move {
        let mut answer = ask_for::<EventsPage<Event>>(&mut requester, &request, ANSWER_TIMEOUT).await;
        // The journal keeps less than we show.
        if let Err(AskError::Refused(error)) = &answer
            && error.code == ErrorCode::Gone
        {
            let after = error.first_seq.map(|first| first.saturating_sub(1));
            answer = ask_for(&mut requester, &Request { after, ..request }, ANSWER_TIMEOUT).await;
        }
        (requester, Answer::History(answer))
    })
}

fn ask_refresh(mut requester: Requester, entries_before: u64) -> Question {
    Box::pin(async move {
        let rows = async {
            let hosts = ask_for(&mut requester, &Request::query("server-list"), ANSWER_TIMEOUT).await?;
            let incidents = ask_for(&mut requester, &Request::query("down-list"), ANSWER_TIMEOUT).await?;
            Ok((hosts, incidents))
        };
        let rows = rows.await;
        (requester, Answer::Refresh { entries_before, rows })
    })
}
