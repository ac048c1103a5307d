//! Publishes what the keeper wants published, and makes last what must not be lost.
//!
//! All that one round of the main loop produced is committed at once, so that ten thousand reports a second do not mean
//! ten thousand writes to the disk; and it is committed in the same round, so that no change waits. A disk that fails
//! does not stop the feed: states are published without their place in the journal, and what should be in it waits in
//! memory.

use crate::keeper::{Keeper, Limits, Now, Output, Row};
use crate::store;
use common::address::{CheckAddress, HostName, Name, Unit};
use common::counters::Counters;
use common::journal::{Journal, JournalError, Retention};
use common::message::{Alive, Beat, Check, Epoch, ErrorBody, LogEvent, Origin, Request, Sample, decode_batch, encode};
use common::publisher::JournaledPublisher;
use common::query::{Answer, to_json};
use common::startup::Fatal;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// What waits for a disk that fails. Beyond it the oldest is dropped and counted: the newest says more about now.
const MAX_WAITING: usize = 10_000;
/// Between two attempts to write to a disk that failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// A batch is cut here: far below the largest message (4 MiB), also if it holds the largest sample (256 KiB).
const MAX_BATCH_BYTES: usize = 512 << 10;

/// The feed: its socket, its journal, and the state beside it.
pub(crate) struct Feed {
    publisher: JournaledPublisher,
    host: HostName,
    waiting: Waiting,
    /// Since when the disk fails, and when it is tried next.
    failing: Option<Failing>,
    counters: Counters,
    prints: bool,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    retry_at: Instant,
}

/// What is to be written with the next commit.
#[derive(Debug, Default)]
struct Waiting {
    /// At most [`MAX_WAITING`].
    entries: VecDeque<Entry>,
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
        prints: bool,
    ) -> Result<(Self, Keeper), Fatal> {
        let path = fixed.state_dir.join("feed.db");
        let retention = Retention { entries: fixed.journal_entries };
        let journal = Journal::open(&path, retention, store::WHAT, &store::MIGRATIONS)?;
        let keeper = restore(&journal, &path, fixed.host.clone(), limits)?;
        let publisher = JournaledPublisher::bind(&fixed.run_dir.join("feed"), journal, counters).await?;
        let feed = Self {
            publisher,
            host: fixed.host.clone(),
            waiting: Waiting::default(),
            failing: None,
            counters: counters.clone(),
            prints,
        };
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
                    if self.counters.count(crate::sources::plugins::SOCKET, reason) {
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
        self.print("beat.", &encode(&beat));
    }

    /// The last words: journals the goodbye with all that still waits, and sends what is queued.
    pub(crate) async fn close(mut self, now: Instant, goodbye: Alive) {
        self.wait(Entry::Alive(Box::new(goodbye)));
        if !self.write(now) {
            tracing::error!("{} entries are lost, since the disk fails", self.waiting.entries.len());
        }
        self.publisher.close().await;
    }

    fn wait(&mut self, entry: Entry) {
        self.waiting.entries.push_back(entry);
        if self.waiting.entries.len() > MAX_WAITING {
            self.waiting.entries.pop_front();
            self.counters.count("journal", "dropped");
        }
    }

    /// Writes what waits, and publishes it. True if it is written.
    fn write(&mut self, now: Instant) -> bool {
        let Self { publisher, waiting, host, prints, .. } = self;
        let epoch = publisher.journal().epoch().clone();
        let mut printed = Vec::new();
        let committed = publisher.commit(|commit| {
            for entry in &waiting.entries {
                let seq = commit.next_seq();
                let (topic, payload) = entry.stamped(host, &epoch, seq);
                if *prints {
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
            Ok(())
        });
        match committed {
            Ok(()) => {
                self.waiting = Waiting::default();
                if let Some(Failing { since, .. }) = self.failing.take() {
                    let lasted = common::time::for_people(now.saturating_duration_since(since));
                    tracing::info!("the journal can be written again after {lasted}");
                }
                for (topic, payload) in printed {
                    self.print(&topic, &payload);
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

    fn publish(&mut self, topic: &str, payload: Vec<u8>) {
        self.print(topic, &payload);
        self.publisher.publish(topic.to_owned(), payload);
    }

    /// One line of JSON for each message, with `--print`.
    fn print(&mut self, topic: &str, payload: &[u8]) {
        if !self.prints {
            return;
        }
        for message in decode_batch::<BTreeMap<String, rmpv::Value>>(payload).unwrap_or_default() {
            let fields = message.into_iter().map(|(key, value)| (key.into(), value)).collect();
            let line = to_json(rmpv::Value::Map(vec![
                ("topic".into(), topic.into()),
                ("payload".into(), rmpv::Value::Map(fields)),
            ]));
            // Whoever reads may have had enough; that is no reason to stop.
            if writeln!(std::io::stdout().lock(), "{line}").is_err() {
                self.prints = false;
                return;
            }
        }
    }
}

/// Reads what the last run saved.
fn restore(journal: &Journal, path: &Path, host: HostName, limits: Limits) -> Result<Keeper, JournalError> {
    let read = || {
        let rows = store::load_rows(journal.db())?;
        let inventory = store::load_inventory(journal.db())?;
        Ok(Keeper::restore(Now::read(), host, limits, rows, inventory))
    };
    read().map_err(|source| JournalError::Sqlite { path: path.to_owned(), source })
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
    let (address, text) = (check.address(), check.text.escape_debug());
    match (check.up, check.retries) {
        (true, 0) => tracing::info!("{address} is up: {text}"),
        (true, retries) => tracing::info!("{address} is up after {retries} failed: {text}"),
        (false, _) => tracing::info!("{address} is down: {text}"),
    }
}
