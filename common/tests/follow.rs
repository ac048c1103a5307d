//! A journaled subscriber follows a real publisher over real sockets: through restarts, gaps, a lost journal.

use common::counters::Counters;
use common::journal::{Journal, Retention};
use common::message::{Beat, encode};
use common::publisher::JournaledPublisher;
use common::query::{Answer, Pager, parse, write};
use common::socket::Responder;
use common::startup;
use common::subscriber::{Cursor, Delivery, Publication, Start, follow};
use common::time::UnixMillis;
use rmpv::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(20);

/// A publisher with its question socket in a task of its own.
struct Server {
    commands: mpsc::Sender<Command>,
    task: tokio::task::JoinHandle<()>,
}

enum Command {
    /// Journal this many entries.
    Append(u64, oneshot::Sender<()>),
    /// Publish how long the journal is.
    Beat,
    /// Publish a message without a place in the journal, that builds on all of it.
    Live,
    /// The same, that was under way since the journal had this many entries.
    LiveOf(u64),
}

fn publication(dir: &Path) -> Publication {
    Publication {
        publisher: dir.join("feed"),
        questions: dir.join("feed-query"),
        prefixes: vec!["t."],
        unwanted: &[],
        max_answer_bytes: 1 << 20,
    }
}

impl Server {
    async fn start(dir: &Path, database: &str, retention: u64) -> Self {
        let counters = Counters::default();
        let path: PathBuf = dir.join(database);
        let journal = Journal::open(&path, Retention { entries: retention, ..Retention::default() }, "test", &[])
            .expect("journal");
        let mut publisher = JournaledPublisher::bind(&dir.join("feed"), journal, &counters).await.expect("publisher");
        let questions = Responder::bind(&dir.join("feed-query"), &counters).await.expect("questions");
        let (commands, mut inbox) = mpsc::channel(10);
        let task = tokio::spawn(async move {
            let mut pager = Pager::default();
            loop {
                tokio::select! {
                    command = inbox.recv() => match command {
                        Some(Command::Append(n, done)) => {
                            append(&mut publisher, n);
                            let _ = done.send(());
                        }
                        Some(Command::Beat) => beat(&publisher),
                        Some(Command::Live) => live(&publisher, publisher.journal().head()),
                        Some(Command::LiveOf(head)) => live(&publisher, head),
                        None => break,
                    },
                    question = questions.recv() => {
                        let (route, frame) = question.expect("a question");
                        let (format, request) = parse(frame.as_deref());
                        let request = request.expect("a request");
                        let journal = publisher.journal();
                        let answer = match request.query.as_deref() {
                            Some("events") => publisher.events(&request),
                            Some("health") => Ok(Answer::whole(&startup::health("t", Some(journal.epoch()), journal.head(), Instant::now(), &counters))),
                            _ => Ok(Answer::Whole(Value::Map(vec![
                                ("epoch".into(), journal.epoch().as_str().into()),
                                ("seq".into(), journal.head().into()),
                            ]))),
                        };
                        let reply = pager.first(Instant::now(), answer);
                        questions.reply(route, write(format, &reply)).await;
                    }
                }
            }
            publisher.close().await;
            questions.close().await;
        });
        Self { commands, task }
    }

    async fn append(&self, n: u64) {
        let (done, appended) = oneshot::channel();
        self.commands.send(Command::Append(n, done)).await.expect("the server runs");
        appended.await.expect("appended");
    }

    async fn send(&self, command: Command) {
        self.commands.send(command).await.expect("the server runs");
    }

    async fn stop(self) {
        drop(self.commands);
        self.task.await.expect("stopped");
    }
}

fn append(publisher: &mut JournaledPublisher, n: u64) {
    let epoch = publisher.journal().epoch().clone();
    let commit = publisher.commit(|commit| {
        for _ in 0..n {
            let entry =
                Value::Map(vec![("epoch".into(), epoch.as_str().into()), ("seq".into(), commit.next_seq().into())]);
            commit.append("t.x!".into(), encode(&entry))?;
        }
        Ok(())
    });
    commit.expect("committed");
}

fn beat(publisher: &JournaledPublisher) {
    let journal = publisher.journal();
    publisher.beat(&Beat {
        time: UnixMillis::now(),
        epoch: journal.epoch().clone(),
        head_seq: journal.head(),
        host: None,
        nth: None,
    });
}

fn live(publisher: &JournaledPublisher, head: u64) {
    let head = Value::Map(vec![("head_seq".into(), head.into())]);
    publisher.publish("t.x!", encode(&head));
}

fn start(dir: &Path, start: Start) -> mpsc::Receiver<Delivery> {
    let (sender, deliveries) = mpsc::channel(10);
    tokio::spawn(follow(publication(dir), start, Counters::default(), sender));
    deliveries
}

/// Beats until something other than a beat arrives: a subscriber connects when it does.
async fn next(server: &Server, deliveries: &mut mpsc::Receiver<Delivery>) -> Delivery {
    let deadline = Instant::now() + PATIENCE;
    loop {
        server.send(Command::Beat).await;
        match tokio::time::timeout(Duration::from_millis(100), deliveries.recv()).await {
            Ok(Some(Delivery::Beat(_))) | Err(_) => assert!(Instant::now() < deadline, "nothing arrives"),
            Ok(Some(delivery)) => return delivery,
            Ok(None) => panic!("the follower ended"),
        }
    }
}

async fn seqs(server: &Server, deliveries: &mut mpsc::Receiver<Delivery>, n: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < n {
        match next(server, deliveries).await {
            Delivery::Entry { cursor, .. } => seqs.push(cursor.seq),
            other => panic!("no entry but {other:?}"),
        }
    }
    seqs
}

fn from(seq: u64) -> Start {
    Start::After(Cursor { epoch: None, seq })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_asked_for_before_what_comes_now() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Server::start(dir.path(), "j.db", 1000).await;
    server.append(5).await;
    let mut deliveries = start(dir.path(), from(2));
    assert_eq!(seqs(&server, &mut deliveries, 3).await, [3, 4, 5]);
    server.append(2).await;
    assert_eq!(seqs(&server, &mut deliveries, 2).await, [6, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_may_restart_and_nothing_is_lost_or_repeated() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Server::start(dir.path(), "j.db", 1000).await;
    let mut deliveries = start(dir.path(), from(0));
    server.append(2).await;
    assert_eq!(seqs(&server, &mut deliveries, 2).await, [1, 2]);
    server.stop().await;
    let server = Server::start(dir.path(), "j.db", 1000).await;
    // Some of it before the subscriber is back, some after.
    server.append(3).await;
    assert_eq!(seqs(&server, &mut deliveries, 3).await, [3, 4, 5]);
    server.append(1).await;
    assert_eq!(seqs(&server, &mut deliveries, 1).await, [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_journal_brings_a_snapshot_and_never_an_old_number() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Server::start(dir.path(), "j.db", 1000).await;
    server.append(3).await;
    let mut deliveries = start(dir.path(), from(0));
    assert_eq!(seqs(&server, &mut deliveries, 3).await, [1, 2, 3]);
    server.stop().await;
    let server = Server::start(dir.path(), "other.db", 1000).await;
    server.append(4).await;
    match next(&server, &mut deliveries).await {
        Delivery::Snapshot { cursor, .. } => assert_eq!(cursor.seq, 4),
        other => panic!("no snapshot but {other:?}"),
    }
    server.append(1).await;
    assert_eq!(seqs(&server, &mut deliveries, 1).await, [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_dropped_is_said_to_be_lost_to_who_wants_the_rest() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Server::start(dir.path(), "j.db", 10).await;
    // What one commit wrote is dropped at once.
    for _ in 0..20 {
        server.append(100).await;
    }
    server.append(1).await;
    let mut deliveries = start(dir.path(), Start::AfterOrOldest(Cursor { epoch: None, seq: 5 }));
    match next(&server, &mut deliveries).await {
        Delivery::Lost { cursor } => assert_eq!(cursor.seq, 1900),
        other => panic!("nothing lost but {other:?}"),
    }
    assert_eq!(seqs(&server, &mut deliveries, 2).await, [1901, 1902]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_now_gets_what_comes_next() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Server::start(dir.path(), "j.db", 1000).await;
    server.append(3).await;
    let mut deliveries = start(dir.path(), Start::Now);
    // Its first beat proves that it is there.
    let deadline = Instant::now() + PATIENCE;
    while !matches!(
        tokio::time::timeout(Duration::from_millis(100), deliveries.recv()).await,
        Ok(Some(Delivery::Beat(_)))
    ) {
        assert!(Instant::now() < deadline, "no beat arrives");
        server.send(Command::Beat).await;
    }
    server.append(1).await;
    assert_eq!(seqs(&server, &mut deliveries, 1).await, [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_message_waits_for_the_entries_it_builds_on() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Server::start(dir.path(), "j.db", 1000).await;
    let mut deliveries = start(dir.path(), from(0));
    server.append(1).await;
    assert_eq!(seqs(&server, &mut deliveries, 1).await, [1]);
    server.append(2).await;
    server.send(Command::Live).await;
    assert_eq!(seqs(&server, &mut deliveries, 2).await, [2, 3]);
    assert!(matches!(next(&server, &mut deliveries).await, Delivery::Live { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_message_that_an_entry_has_overtaken_is_left_out() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Server::start(dir.path(), "j.db", 1000).await;
    let mut deliveries = start(dir.path(), from(0));
    server.append(3).await;
    assert_eq!(seqs(&server, &mut deliveries, 3).await, [1, 2, 3]);
    // What was queued behind a gap while the follower asked for the entries.
    server.send(Command::LiveOf(2)).await;
    server.append(1).await;
    assert_eq!(seqs(&server, &mut deliveries, 1).await, [4]);
}
