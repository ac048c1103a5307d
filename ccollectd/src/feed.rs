//! Publishes what the keeper wants published, and makes last what must not be lost.
//!
//! All that one round of the main loop produced is committed at once, so that ten thousand reports a second do not mean
//! ten thousand writes to the disk; and it is committed in the same round, so that no change waits. A disk that fails
//! does not stop the feed: states are published without their place in the journal, and what should be in it waits in
//! memory.

use crate::keeper::{Keeper, Limits, Now, Output, Row};
use crate::sources::plugins::{self, value_bytes};
use crate::store;
use common::address::{CheckAddress, HostName, Name, Unit};
use common::counters::Counters;
use common::database::{self, Aside, DatabaseError};
use common::journal::Journal;
use common::message::{Alive, Beat, Check, Epoch, ErrorBody, LogEvent, Origin, Request, Sample, encode};
use common::publisher::JournaledPublisher;
use common::query::Answer;
use common::severity::Severity;
use common::startup::Fatal;
use common::time::UnixMillis;
use common::traffic::Traffic;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

/// What waits for a disk that fails. Beyond it the oldest is dropped and counted: the newest says more about now.
const MAX_WAITING: usize = 10_000;
/// The same in bytes of memory, since an event may carry a large attachment.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// Of a text, this much is logged.
const LOGGED_CHARS: usize = 200;
/// Between two attempts to write to a disk that failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// A batch is cut here. Subscribers keep messages in queues that count them, so none is much larger than the largest sample
/// (1000 numbers, 80 KiB).
const MAX_BATCH_BYTES: usize = 64 << 10;

/// The feed: its socket, its journal, and the state beside it.
pub(crate) struct Feed {
    publisher: JournaledPublisher,
    host: HostName,
    waiting: Waiting,
    /// What waits says that the database was set aside.
    tells_of_damage: bool,
    /// Since when the disk fails, and when it is tried next.
    failing: Option<Failing>,
    counters: Counters,
    traffic: Traffic,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    retry_at: Instant,
}

/// What is to be written with the next commit.
#[derive(Debug, Default)]
struct Waiting {
    /// At most [`MAX_WAITING`] and [`MAX_WAITING_BYTES`].
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The newest row of each check, or that it has none any more. No more than there are checks.
    rows: BTreeMap<(Name, Unit), Option<Row>>,
    inventory: Option<String>,
}

/// What gets a place in the journal.
#[derive(Clone, Debug)]
enum Entry {
    Check(Box<Check>),
    Event(Box<LogEvent>),
    Alive(Box<Alive>),
}

impl Feed {
    /// Opens the journal in `state_dir`, and publishes it on `feed` in `run_dir`. Restores the keeper from it.
    pub(crate) async fn open(
        fixed: &crate::config::Fixed,
        limits: Limits,
        counters: &Counters,
        traffic: Traffic,
    ) -> Result<(Self, Keeper), Fatal> {
        let path = fixed.state_dir.join("feed.db");
        let journal = Journal::open(&path, fixed.retention, store::WHAT, &store::MIGRATIONS)?;
        let untold =
            database::untold(journal.db()).map_err(|source| DatabaseError::Sqlite { path: path.clone(), source })?;
        let keeper = restore(&journal, &path, fixed.host.clone(), limits)?;
        let publisher = JournaledPublisher::bind(&fixed.run_dir.join("feed"), journal, counters).await?;
        let mut feed = Self {
            publisher,
            host: fixed.host.clone(),
            waiting: Waiting::default(),
            tells_of_damage: !untold.is_empty(),
            failing: None,
            counters: counters.clone(),
            traffic,
        };
        for aside in untold {
            feed.wait(Entry::Event(Box::new(of_damage(&fixed.host, &aside))));
        }
        Ok((feed, keeper))
    }

    /// The journal's name.
    pub(crate) fn epoch(&self) -> &Epoch {
        self.publisher.journal().epoch()
    }

    /// The newest entry of the journal.
    pub(crate) fn head(&self) -> u64 {
        self.publisher.journal().head()
    }

    /// An error if the journal was found damaged: only the next start helps, which sets it aside.
    pub(crate) fn check_sound(&self) -> Result<(), Fatal> {
        self.publisher.check_sound()
    }

    /// The answer to `events`.
    pub(crate) fn events(&self, request: &Request) -> Result<Answer, ErrorBody> {
        self.publisher.events(request)
    }

    /// Does what the keeper wants done: journals, then publishes.
    pub(crate) fn carry_out(&mut self, now: Instant, outputs: Vec<Output>) {
        let mut samples = Vec::new();
        // The last state of each address only: an earlier one, sent after a later one that went through the journal,
        // would turn it back.
        let mut states = BTreeMap::new();
        let mut news = Vec::new();
        for output in outputs {
            match output {
                Output::Number(sample) => samples.push(*sample),
                Output::Repeated(check) => {
                    states.insert(check.address(), *check);
                }
                Output::Changed(check, row) => {
                    say_changed(&check);
                    let address = check.address();
                    states.remove(&address);
                    news.push((address, check.clone()));
                    self.waiting.save(*row);
                    self.wait(Entry::Check(check));
                }
                Output::Happened(event) => self.wait(Entry::Event(event)),
                Output::Watched(alive) => {
                    self.waiting.inventory = Some(alive.inventory.clone());
                    self.wait(Entry::Alive(Box::new(alive)));
                }
                Output::Saved(row) => self.waiting.save(*row),
                Output::Dropped(CheckAddress { service, unit, .. }) => {
                    self.waiting.rows.insert((service, unit), None);
                }
                Output::Refused(reason) => {
                    if self.counters.count(plugins::SOCKET, reason) {
                        tracing::warn!("a plugin's report was refused: {reason}; more of this is only counted");
                    }
                }
            }
        }
        let is_due = self.failing.is_none_or(|failing| failing.retry_at <= now);
        let is_written = self.waiting.is_empty() || (is_due && self.write(now));
        if !is_written {
            // People must hear of it even if no disk remembers it.
            for (address, check) in news {
                states.entry(address).or_insert(*check);
            }
        }
        self.publish_states(states.into_values());
        self.publish_samples(samples);
    }

    /// Publishes numbers, in as few messages as fit.
    pub(crate) fn publish_samples(&mut self, samples: Vec<Sample>) {
        let topic = format!("value.{}!", self.host);
        self.publish_batches(&topic, samples, |sample| {
            // Names are at most 64 bytes, and a number has 9.
            let text = sample.host.as_str().len() * 2 + sample.unit.as_str().len();
            text + 400 + sample.values.0.len() * 80
        });
    }

    /// Publishes states without a place in the journal.
    fn publish_states(&mut self, checks: impl Iterator<Item = Check>) {
        let head = self.head();
        let checks = checks.map(|check| Check { head_seq: Some(head), ..check }).collect();
        let topic = format!("check.{}!", self.host);
        self.publish_batches(&topic, checks, |check: &Check| {
            check.host.as_str().len() * 2 + check.unit.as_str().len() + check.text.len() + 400
        });
    }

    fn publish_batches<T: serde::Serialize>(&mut self, topic: &str, messages: Vec<T>, bytes: impl Fn(&T) -> usize) {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for message in messages {
            let message_bytes = bytes(&message);
            if !batch.is_empty() && batch_bytes + message_bytes > MAX_BATCH_BYTES {
                self.publish(topic, encode(&batch));
                batch.clear();
                batch_bytes = 0;
            }
            batch_bytes += message_bytes;
            batch.push(message);
        }
        match batch.as_slice() {
            [] => {}
            [one] => self.publish(topic, encode(one)),
            several => self.publish(topic, encode(&several)),
        }
    }

    /// Says that we live, once a second, and tries a failed disk again.
    pub(crate) fn beat(&mut self, now: Now, alive: &Alive) {
        if !self.waiting.is_empty() {
            self.write(now.monotonic);
        }
        self.publish(&format!("alive.{}!", self.host), encode(alive));
        let beat = Beat {
            time: now.wall,
            epoch: self.epoch().clone(),
            head_seq: self.head(),
            host: Some(self.host.clone()),
            nth: None,
        };
        self.publisher.beat(&beat);
        self.traffic.print("out", b"beat.", &encode(&beat));
    }

    /// The last words: journals the goodbye with all that still waits, and sends what is queued.
    pub(crate) async fn close(mut self, now: Instant, goodbye: Alive) {
        self.wait(Entry::Alive(Box::new(goodbye.clone())));
        if !self.write(now) {
            tracing::error!("{} entries are lost, since the disk fails", self.waiting.entries.len());
            self.publish(&format!("alive.{}!", self.host), encode(&goodbye));
        }
        self.publisher.close().await;
    }

    fn wait(&mut self, entry: Entry) {
        let waiting = &mut self.waiting;
        waiting.bytes += entry.bytes();
        waiting.entries.push_back(entry);
        while (waiting.entries.len() > MAX_WAITING || waiting.bytes > MAX_WAITING_BYTES)
            && let Some(oldest) = waiting.entries.pop_front()
        {
            waiting.bytes -= oldest.bytes();
            self.counters.count("journal", "dropped");
        }
    }

    /// Writes what waits, and publishes it. True if it is written.
    fn write(&mut self, now: Instant) -> bool {
        let Self { publisher, waiting, host, traffic, tells_of_damage, .. } = self;
        let epoch = publisher.journal().epoch().clone();
        let mut printed = Vec::new();
        let committed = publisher.commit(|commit| {
            for entry in &waiting.entries {
                let seq = commit.next_seq();
                let (topic, payload) = entry.stamped(host, &epoch, seq);
                if traffic.is_on() {
                    printed.push((topic.clone(), payload.clone()));
                }
                commit.append(topic, payload)?;
            }
            for ((service, unit), row) in &waiting.rows {
                match row {
                    Some(row) => store::save_row(commit.state(), row)?,
                    None => store::drop_row(commit.state(), service, unit)?,
                }
            }
            if let Some(hash) = &waiting.inventory {
                store::save_inventory(commit.state(), hash)?;
            }
            if *tells_of_damage { database::forget_untold(commit.state()) } else { Ok(()) }
        });
        match committed {
            Ok(()) => {
                self.waiting = Waiting::default();
                self.tells_of_damage = false;
                for (topic, payload) in printed {
                    self.traffic.print("out", topic.as_bytes(), &payload);
                }
                if let Some(Failing { since, .. }) = self.failing.take() {
                    let lasted = common::time::for_people(now.saturating_duration_since(since));
                    tracing::info!("the journal can be written again after {lasted}");
                }
                true
            }
            Err(error) => {
                self.counters.count("journal", "failed");
                if self.failing.is_none() {
                    tracing::error!("nothing can be journaled, will retry each second: {error}");
                }
                let since = self.failing.map_or(now, |failing| failing.since);
                self.failing = Some(Failing { since, retry_at: now + RETRY_EVERY });
                false
            }
        }
    }

    fn publish(&self, topic: &str, payload: Vec<u8>) {
        self.traffic.print("out", topic.as_bytes(), &payload);
        self.publisher.publish(topic.to_owned(), payload);
    }
}

/// What people are told of a database that was set aside.
fn of_damage(host: &HostName, aside: &Aside) -> LogEvent {
    LogEvent {
        host: host.clone(),
        from: host.clone(),
        service: Name::try_from("ccollectd").expect("a name"),
        unit: Unit::default(),
        time: UnixMillis::now(),
        severity: Severity::Err,
        text: format!("ccollectd has a new journal: {aside}"),
        data: None,
        epoch: None,
        seq: None,
        origin: None,
    }
}

/// Reads what the last run saved.
fn restore(journal: &Journal, path: &Path, host: HostName, limits: Limits) -> Result<Keeper, DatabaseError> {
    let read = || {
        let rows = store::load_rows(journal.db())?;
        let inventory = store::load_inventory(journal.db())?;
        Ok(Keeper::restore(Now::read(), host, limits, rows, inventory))
    };
    read().map_err(|source| DatabaseError::Sqlite { path: path.to_owned(), source })
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rows.is_empty() && self.inventory.is_none()
    }

    fn save(&mut self, row: Row) {
        self.rows.insert((row.service.clone(), row.unit.clone()), Some(row));
    }
}

impl Entry {
    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        match self {
            Entry::Check(check) => size_of::<Check>() + check.text.len(),
            Entry::Event(event) => {
                size_of::<LogEvent>() + event.text.len() + event.data.as_ref().map_or(0, value_bytes)
            }
            Entry::Alive(alive) => {
                size_of::<Alive>() + alive.addresses.as_ref().map_or(0, Vec::len) * size_of::<CheckAddress>()
            }
        }
    }

    /// Its topic, and its bytes with the place it gets.
    fn stamped(&self, host: &HostName, epoch: &Epoch, seq: u64) -> (String, Vec<u8>) {
        let origin = Some(Origin { host: host.clone(), epoch: epoch.clone(), seq });
        let (epoch, seq) = (Some(epoch.clone()), Some(seq));
        match self.clone() {
            Entry::Check(check) => (format!("check.{host}!"), encode(&Check { epoch, seq, origin, ..*check })),
            Entry::Event(event) => (format!("event.{host}!"), encode(&LogEvent { epoch, seq, origin, ..*event })),
            Entry::Alive(alive) => (format!("alive.{host}!"), encode(&Alive { epoch, seq, origin, ..*alive })),
        }
    }
}

fn say_changed(check: &Check) {
    let text: String = check.text.chars().take(LOGGED_CHARS).flat_map(char::escape_debug).collect();
    let address = check.address();
    match (check.up, check.retries) {
        (true, 0) => tracing::info!("{address} is up: {text}"),
        (true, retries) => tracing::info!("{address} is up after {retries} failed: {text}"),
        (false, _) => tracing::info!("{address} is down: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fixed;
    use crate::keeper::{Input, Observed};
    use common::journal::After;
    use common::message::decode;
    use common::socket::Subscriber;

    struct Rig {
        _dir: tempfile::TempDir,
        feed: Feed,
        keeper: Keeper,
        subscriber: Subscriber,
        counters: Counters,
    }

    impl Rig {
        /// A feed that watches `h!port:www`, and somebody who follows it.
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let fixed = Fixed {
                host: "h".parse().expect("a host"),
                run_dir: dir.path().to_owned(),
                state_dir: dir.path().to_owned(),
                retention: common::journal::Retention { entries: 100, ..common::journal::Retention::default() },
                takes_plugins: false,
            };
            let counters = Counters::default();
            let limits = Limits { forget_after: None, max_units: 1 };
            let (feed, keeper) = Feed::open(&fixed, limits, &counters, Traffic::new(false)).await.expect("a feed");
            let subscriber =
                Subscriber::connect(&dir.path().join("feed"), &["check.", "beat."]).await.expect("connected");
            let mut rig = Self { _dir: dir, feed, keeper, subscriber, counters };
            let www = vec!["h!port:www".parse().expect("an address")];
            rig.keeper.apply(Now::read(), Input::Configured(www));
            rig.until_connected().await;
            rig
        }

        async fn until_connected(&mut self) {
            let alive = self.keeper.alive(Now::read());
            for _ in 0..500 {
                self.feed.beat(Now::read(), &alive);
                let wait = tokio::time::timeout(Duration::from_millis(20), self.subscriber.recv());
                if wait.await.is_ok() {
                    return;
                }
            }
            panic!("no beat arrived");
        }

        fn observed(&mut self, states: &[bool]) -> Vec<Output> {
            let observed = |up: bool| Observed {
                service: "port".parse().expect("a name"),
                unit: "www".parse().expect("a unit"),
                time: UnixMillis(0),
                interval: Duration::from_secs(1),
                up,
                retries: 0,
                text: String::new(),
            };
            states.iter().flat_map(|&up| self.keeper.apply(Now::read(), Input::Observed(observed(up)))).collect()
        }

        /// The next message about a check: its state, its `seq` and the `head_seq` it gives.
        async fn next(&self) -> (bool, Option<u64>, Option<u64>) {
            loop {
                let wait = tokio::time::timeout(Duration::from_secs(10), self.subscriber.recv());
                let (topic, payload) = wait.await.expect("in time").expect("a message");
                if topic.starts_with(b"check.h!") {
                    let check: Check = decode(&payload).expect("a check");
                    return (check.up, check.seq, check.head_seq);
                }
            }
        }

        /// No more can be written than is.
        fn fill_disk(&self, is_full: bool) {
            let db = self.feed.publisher.journal().db();
            let pages: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("a number");
            let most = if is_full { pages } else { 1_000_000 };
            db.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).expect("set");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_state_is_not_turned_back_by_an_older_one_of_the_same_batch() {
        let mut rig = Rig::new().await;
        let outputs = rig.observed(&[true, true, false, false, true]);
        rig.feed.carry_out(Instant::now(), outputs);
        assert_eq!(rig.next().await, (true, Some(1), None));
        assert_eq!(rig.next().await, (false, Some(2), None));
        assert_eq!(rig.next().await, (true, Some(3), None));
        let outputs = rig.observed(&[true]);
        rig.feed.carry_out(Instant::now(), outputs);
        assert_eq!(rig.next().await, (true, None, Some(3)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_delays_the_journal_and_not_the_news() {
        let mut rig = Rig::new().await;
        let outputs = rig.observed(&[true]);
        rig.feed.carry_out(Instant::now(), outputs);
        assert_eq!(rig.next().await, (true, Some(1), None));

        rig.fill_disk(true);
        // The pages there are have room for a few entries.
        let mut last = 1;
        let mut up = true;
        while rig.feed.failing.is_none() {
            up = !up;
            let mut outputs = rig.observed(&[up]);
            for output in &mut outputs {
                if let Output::Changed(check, _) = output {
                    check.text = "x".repeat(1000);
                }
            }
            rig.feed.carry_out(Instant::now(), outputs);
            let next = rig.next().await;
            assert_eq!(next.0, up);
            last = next.1.unwrap_or(last);
        }
        assert_eq!(rig.feed.head(), last);
        assert_eq!(rig.counters.snapshot()["journal.failed"], 1);

        // Not tried again before its time.
        let outputs = rig.observed(&[!up]);
        rig.feed.carry_out(Instant::now(), outputs);
        assert_eq!(rig.next().await, (!up, None, Some(last)));
        assert_eq!(rig.counters.snapshot()["journal.failed"], 1);

        rig.fill_disk(false);
        let alive = rig.keeper.alive(Now::read());
        rig.feed.beat(Now::read(), &alive);
        assert_eq!(rig.next().await, (up, Some(last + 1), None));
        assert_eq!(rig.next().await, (!up, Some(last + 2), None));
        assert!(rig.feed.waiting.is_empty() && rig.feed.failing.is_none());
        let rows = store::load_rows(rig.feed.publisher.journal().db()).expect("rows");
        assert_eq!(rows.iter().map(|row| row.up).collect::<Vec<_>>(), [!up]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_for_the_disk_is_bounded() {
        let mut rig = Rig::new().await;
        let goodbye = rig.keeper.alive(Now::read());
        for _ in 0..MAX_WAITING + 5 {
            rig.feed.wait(Entry::Alive(Box::new(goodbye.clone())));
        }
        assert_eq!(rig.feed.waiting.entries.len(), MAX_WAITING);
        assert_eq!(rig.counters.snapshot()["journal.dropped"], 5);

        let event = |bytes: usize| LogEvent {
            host: goodbye.host.clone(),
            from: goodbye.host.clone(),
            service: "app".parse().expect("a name"),
            unit: "".parse().expect("a unit"),
            time: UnixMillis(0),
            severity: common::severity::Severity::Info,
            text: String::new(),
            data: Some(rmpv::Value::Binary(vec![0; bytes])),
            epoch: None,
            seq: None,
            origin: None,
        };
        for _ in 0..10 {
            rig.feed.wait(Entry::Event(Box::new(event(MAX_WAITING_BYTES / 4))));
        }
        assert_eq!(rig.feed.waiting.entries.len(), 3);
        assert_eq!(rig.feed.waiting.bytes, rig.feed.waiting.entries.iter().map(Entry::bytes).sum::<usize>());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_carry_their_place_and_their_origin() {
        let mut rig = Rig::new().await;
        let outputs = rig.observed(&[true]);
        rig.feed.carry_out(Instant::now(), outputs);
        let After::Entries(entries) = rig.feed.publisher.journal().after(None, 0, 10).expect("read") else {
            panic!("gone")
        };
        let check: Check = decode(&entries[0].payload).expect("a check");
        let epoch = rig.feed.epoch().clone();
        assert_eq!((check.seq, check.epoch), (Some(1), Some(epoch.clone())));
        assert_eq!(check.origin, Some(Origin { host: "h".parse().expect("a host"), epoch, seq: 1 }));
    }
}
