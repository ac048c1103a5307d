//! The journal: every message that must not be lost, in the order of its `seq`, in SQLite.
//!
//! An entry is committed before it is published, in one transaction with whatever state its daemon needs after a restart,
//! so that after a crash at any point journal and state agree. WAL with `synchronous=FULL`: a commit survives a power
//! cut. Many entries share one commit.

use crate::config::{HumanBytes, HumanDuration, check_range};
use crate::database::{self, DatabaseError};
use crate::message::Epoch;
use crate::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::cell::Cell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The journal's own tables, one migration a version. A daemon's state tables have their own.
///
/// A mark says of every so many entries when they were written, and how many bytes had been written before: retention
/// drops from mark to mark, and an entry costs nothing for it. What was there before there were marks counts as new.
const SCHEMA: [&str; 2] = [
    "CREATE TABLE journal (seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE TABLE epoch (epoch TEXT NOT NULL, head INTEGER NOT NULL) STRICT;",
    "CREATE TABLE mark (seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    INSERT INTO mark SELECT seq, unixepoch() * 1000, before FROM (
        SELECT seq, row_number() OVER (ORDER BY seq) AS nth,
            sum(length(topic) + length(payload)) OVER (ORDER BY seq) - length(topic) - length(payload) AS before
        FROM journal)
    WHERE nth % 1000 = 1;",
];
/// Retention drops a hundredth at a time,
const STEPS: u64 = 100;
/// but not less than this many entries or bytes, or what was written in less time,
const MIN_STEP_ENTRIES: u64 = 100;
const MIN_STEP_BYTES: u64 = 64 << 10;
const MIN_STEP: Duration = Duration::from_mins(1);
/// and in one commit at most about so many entries, so that no commit waits long for it.
const DROPPED_AT_ONCE: u64 = 10_000;
/// Free pages are given back if there are more than this, and more than a tenth of all; what retention frees is used
/// again soon.
const FREE_PAGES: i64 = 1000;
/// And so many in one commit: each costs moving another.
const GIVEN_BACK_AT_ONCE: i64 = 500;
/// An answer stops at this many bytes of payload: on its way it is a tree of values, which takes many times as much.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// And at this many entries.
const MAX_ANSWER_ENTRIES: u64 = 10_000;

/// How much is kept. What is beyond one of them is dropped, in steps of about a hundredth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// At most this many entries.
    pub entries: u64,
    /// Nothing older than this by this host's clock.
    pub age: Duration,
    /// At most this many bytes of topics and messages; on disk they take some tenth more.
    pub bytes: u64,
}

impl Default for Retention {
    /// A million entries are about 500 MB.
    fn default() -> Self {
        Self { entries: 1_000_000, age: Duration::from_hours(90 * 24), bytes: 1 << 30 }
    }
}

impl Retention {
    /// Checks `journal_entries`, `journal_age` and `journal_bytes` of a configuration, each with its default where it is not
    /// there. The error is a phrase that names the key.
    pub fn checked(
        entries: Option<u64>,
        age: Option<HumanDuration>,
        bytes: Option<HumanBytes>,
    ) -> Result<Self, String> {
        let default = Self::default();
        let (entries, age) = (entries.unwrap_or(default.entries), age.unwrap_or(HumanDuration(default.age)));
        let bytes = bytes.unwrap_or(HumanBytes(default.bytes));
        check_range("journal_entries", entries, 1..=1_000_000_000)?;
        let ages = HumanDuration(Duration::from_mins(10))..=HumanDuration(Duration::from_hours(3650 * 24));
        check_range("journal_age", age, ages)?;
        check_range("journal_bytes", bytes, HumanBytes(1 << 20)..=HumanBytes(1 << 40))?;
        Ok(Self { entries, age: age.0, bytes: bytes.0 })
    }
}

/// When the entries from `seq` on were written, and how many bytes had been written before them.
#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: u64,
    time: UnixMillis,
    bytes: u64,
}

impl Retention {
    /// Whether an entry is to be marked, as the next of `seq`, `time` and `bytes`.
    fn is_due(&self, last: &Mark, next: &Mark) -> bool {
        next.seq - last.seq >= (self.entries / STEPS).clamp(MIN_STEP_ENTRIES, DROPPED_AT_ONCE)
            || next.bytes - last.bytes >= (self.bytes / STEPS).max(MIN_STEP_BYTES)
            || next.time.distance(last.time) >= u64::try_from(self.step().as_millis()).unwrap_or(u64::MAX)
    }

    fn step(&self) -> Duration {
        (self.age / u32::try_from(STEPS).unwrap_or(1)).max(MIN_STEP)
    }

    /// The first entry that is kept of a journal with these marks, which would go on with `next`. In one commit not much
    /// more than [`DROPPED_AT_ONCE`].
    fn first_kept(&self, marks: &VecDeque<Mark>, next: &Mark, first: u64) -> u64 {
        // All that was written between a mark and the one behind it goes at once, when the newest of it may go.
        let may_go = |end: &Mark| {
            next.seq - end.seq >= self.entries
                || next.bytes - end.bytes >= self.bytes
                || next.time.millis_since(end.time) >= u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)
        };
        let ends = marks.iter().filter(|mark| mark.seq > first).chain(std::iter::once(next));
        let gone = ends.take_while(|end| may_go(end)).map(|end| end.seq);
        // Of what one large commit wrote between two marks, a part.
        let mut reached = first;
        for end in gone {
            if end > first + DROPPED_AT_ONCE {
                return if reached == first { first + DROPPED_AT_ONCE } else { reached };
            }
            reached = end;
        }
        reached
    }
}

/// One entry as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place, consecutive from 1.
    pub seq: u64,
    /// The topic it was published under.
    pub topic: String,
    /// The message.
    pub payload: Vec<u8>,
}

/// What `events {after}` has to say.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// The entries after it, as many as fit.
    Entries(Vec<Entry>),
    /// They are not there: dropped by retention, or never written.
    Gone {
        /// The oldest entry that is there.
        first_seq: u64,
    },
}

/// An open journal. One process writes it.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
    path: PathBuf,
    epoch: Epoch,
    head: u64,
    first: u64,
    retention: Retention,
    /// In the order of entries; the first is not behind the first entry. About [`STEPS`] for each bound.
    marks: VecDeque<Mark>,
    /// How many bytes of entries were ever written.
    bytes: u64,
    /// SQLite found something else than it had written.
    is_damaged: Cell<bool>,
}

/// A commit in progress: entries and the caller's state, all or nothing.
#[derive(Debug)]
pub struct Commit<'a> {
    tx: Transaction<'a>,
    head: u64,
    entries: Vec<Entry>,
}

impl Commit<'_> {
    /// The `seq` that the next entry will have.
    pub fn next_seq(&self) -> u64 {
        self.head + 1
    }

    /// Appends an entry under [`Self::next_seq`], which `payload` must already carry.
    pub fn append(&mut self, topic: String, payload: Vec<u8>) -> rusqlite::Result<()> {
        self.head += 1;
        self.tx
            .prepare_cached("INSERT INTO journal (seq, topic, payload) VALUES (?1, ?2, ?3)")?
            .execute(params![self.head, topic, payload])?;
        self.entries.push(Entry { seq: self.head, topic, payload });
        Ok(())
    }

    /// The transaction, for the state that belongs to these entries.
    pub fn state(&self) -> &Transaction<'_> {
        &self.tx
    }
}

impl Journal {
    /// Opens or creates the database at `path`. An empty one takes a new epoch.
    ///
    /// `what` and `migrations` are the caller's own tables: each migration is SQL that leads from one version to the
    /// next, the first from nothing.
    pub fn open(path: &Path, retention: Retention, what: &str, migrations: &[&str]) -> Result<Self, DatabaseError> {
        let sqlite = |source| DatabaseError::Sqlite { path: path.to_owned(), source };
        let mut db = database::open(path, &[("journal", &SCHEMA), (what, migrations)])?;
        let tx = db.transaction().map_err(sqlite)?;
        let saved: Option<String> =
            tx.query_row("SELECT epoch FROM epoch", [], |row| row.get(0)).optional().map_err(sqlite)?;
        let epoch = match saved.and_then(|text| Epoch::try_from(text).ok()) {
            Some(epoch) => epoch,
            None => {
                let epoch = Epoch::random();
                tx.execute("DELETE FROM epoch", []).map_err(sqlite)?;
                tx.execute("INSERT INTO epoch VALUES (?1, 0)", [epoch.as_str()]).map_err(sqlite)?;
                epoch
            }
        };
        let (first, head): (Option<u64>, u64) = tx
            .query_row("SELECT (SELECT min(seq) FROM journal), max(head, ifnull((SELECT max(seq) FROM journal), 0)) FROM epoch", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(sqlite)?;
        let first = first.unwrap_or(head + 1);
        let (marks, bytes) = read_marks(&tx).map_err(sqlite)?;
        tx.commit().map_err(sqlite)?;
        let is_damaged = Cell::new(false);
        Ok(Self { db, path: path.to_owned(), epoch, head, first, retention, marks, bytes, is_damaged })
    }

    /// The name of this journal.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The newest entry, 0 before the first.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The oldest entry that is there; one after the head if there is none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file was found damaged while it was used. Only another start helps, which sets it aside.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.get()
    }

    /// The database, for reading the caller's own tables.
    pub fn db(&self) -> &Connection {
        &self.db
    }

    /// Runs `write` in one transaction and makes it last, then returns the new entries, to be published now. On an error
    /// nothing has happened.
    pub fn commit(
        &mut self,
        write: impl FnOnce(&mut Commit<'_>) -> rusqlite::Result<()>,
    ) -> Result<Vec<Entry>, DatabaseError> {
        let committed = self.commit_at(UnixMillis::now(), write);
        committed.map_err(|source| self.failed(source))
    }

    fn commit_at(
        &mut self,
        now: UnixMillis,
        write: impl FnOnce(&mut Commit<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Vec<Entry>> {
        let tx = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut commit = Commit { tx, head: self.head, entries: Vec::new() };
        write(&mut commit)?;
        let Commit { tx, head, entries } = commit;
        let new = Mark { seq: self.head + 1, time: now, bytes: self.bytes };
        let is_marked = !entries.is_empty() && self.marks.back().is_none_or(|last| self.retention.is_due(last, &new));
        if is_marked {
            tx.prepare_cached("INSERT INTO mark VALUES (?1, ?2, ?3)")?.execute(params![new.seq, now.0, new.bytes])?;
        }
        let bytes =
            self.bytes + entries.iter().map(|entry| (entry.topic.len() + entry.payload.len()) as u64).sum::<u64>();
        let next = Mark { seq: head + 1, time: now, bytes };
        let first = self.retention.first_kept(&self.marks, &next, self.first);
        if first > self.first {
            tx.execute("DELETE FROM journal WHERE seq < ?1", [first])?;
            // The mark that the first entry is behind of stays.
            tx.execute("DELETE FROM mark WHERE seq < (SELECT max(seq) FROM mark WHERE seq <= ?1)", [first])?;
            // The head survives even if retention keeps nothing.
            tx.execute("UPDATE epoch SET head = ?1", [head])?;
            give_back(&tx)?;
        }
        tx.commit()?;
        if is_marked {
            self.marks.push_back(new);
        }
        while self.marks.get(1).is_some_and(|second| second.seq <= first) {
            self.marks.pop_front();
        }
        (self.head, self.first, self.bytes) = (head, first, bytes);
        Ok(entries)
    }

    fn failed(&self, source: rusqlite::Error) -> DatabaseError {
        let error = DatabaseError::Sqlite { path: self.path.clone(), source };
        if error.is_damage() && !self.is_damaged.replace(true) {
            error.mark_damage();
        }
        error
    }

    /// The entries after `seq` of `epoch`, at most `limit` and at most 256 KiB of payload, but at least one if there is one.
    pub fn after(&self, epoch: Option<&str>, seq: u64, limit: u64) -> Result<After, DatabaseError> {
        if epoch.is_some_and(|epoch| epoch != self.epoch.as_str()) || seq > self.head || seq + 1 < self.first {
            return Ok(After::Gone { first_seq: self.first });
        }
        let read = || {
            let mut bytes = 0;
            let mut entries = Vec::new();
            let mut statement = self
                .db
                .prepare_cached("SELECT seq, topic, payload FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut rows = statement.query(params![seq, limit.min(MAX_ANSWER_ENTRIES)])?;
            while let Some(row) = rows.next()? {
                let entry = Entry { seq: row.get(0)?, topic: row.get(1)?, payload: row.get(2)? };
                bytes += entry.payload.len();
                if bytes > MAX_ANSWER_BYTES && !entries.is_empty() {
                    break;
                }
                entries.push(entry);
            }
            Ok(After::Entries(entries))
        };
        read().map_err(|source| self.failed(source))
    }
}

/// The marks, and how many bytes were ever written.
fn read_marks(tx: &Transaction<'_>) -> rusqlite::Result<(VecDeque<Mark>, u64)> {
    let mut statement = tx.prepare("SELECT seq, time, bytes FROM mark ORDER BY seq")?;
    let rows = statement
        .query_map([], |row| Ok(Mark { seq: row.get(0)?, time: UnixMillis(row.get(1)?), bytes: row.get(2)? }))?;
    let marks = rows.collect::<rusqlite::Result<VecDeque<Mark>>>()?;
    let (seq, bytes) = marks.back().map_or((0, 0), |last| (last.seq, last.bytes));
    let since: u64 = tx.query_row(
        "SELECT ifnull(sum(length(topic) + length(payload)), 0) FROM journal WHERE seq >= ?1",
        [seq],
        |row| row.get(0),
    )?;
    Ok((marks, bytes + since))
}

/// Gives free pages back to the file system, where the file was made so that it can, and they are many.
fn give_back(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let number = |pragma: &str| tx.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (free, all) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
    if free > FREE_PAGES && free > all / 10 {
        tx.execute_batch(&format!("PRAGMA incremental_vacuum({GIVEN_BACK_AT_ONCE})"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, retention: Retention) -> Journal {
        Journal::open(&dir.join("j.db"), retention, "test", &["CREATE TABLE state (n INTEGER)"]).expect("journal")
    }

    fn append(journal: &mut Journal, n: u64) {
        journal
            .commit(|commit| (0..n).try_for_each(|i| commit.append("t".into(), i.to_be_bytes().to_vec())))
            .expect("commit");
    }

    fn seqs(after: &After) -> Vec<u64> {
        match after {
            After::Entries(entries) => entries.iter().map(|entry| entry.seq).collect(),
            After::Gone { .. } => panic!("gone"),
        }
    }

    #[test]
    fn entries_are_consecutive_across_a_restart_and_keep_their_epoch() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = open(dir.path(), Retention::default());
        append(&mut journal, 2);
        let epoch = journal.epoch().clone();
        drop(journal);
        let mut journal = open(dir.path(), Retention::default());
        assert_eq!((journal.epoch(), journal.head()), (&epoch, 2));
        append(&mut journal, 1);
        assert_eq!(seqs(&journal.after(Some(epoch.as_str()), 1, 10).expect("after")), [2, 3]);
    }

    #[test]
    fn a_failed_commit_leaves_no_trace() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = open(dir.path(), Retention::default());
        append(&mut journal, 1);
        let failed = journal.commit(|commit| {
            commit.append("t".into(), vec![1])?;
            commit.state().execute("INSERT INTO state VALUES (1)", [])?;
            Err(rusqlite::Error::InvalidQuery)
        });
        assert!(failed.is_err());
        append(&mut journal, 1);
        assert_eq!(seqs(&journal.after(None, 0, 10).expect("after")), [1, 2]);
        let rows: i64 = journal.db().query_row("SELECT count(*) FROM state", [], |row| row.get(0)).expect("count");
        assert_eq!(rows, 0);
    }

    #[test]
    fn a_cursor_of_another_journal_or_from_the_future_is_gone() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = open(dir.path(), Retention::default());
        append(&mut journal, 3);
        assert_eq!(journal.after(Some("elsewhere"), 1, 10).expect("after"), After::Gone { first_seq: 1 });
        assert_eq!(journal.after(None, 4, 10).expect("after"), After::Gone { first_seq: 1 });
        assert_eq!(journal.after(None, u64::MAX, 10).expect("after"), After::Gone { first_seq: 1 });
        assert_eq!(seqs(&journal.after(None, 3, 10).expect("after")), [0_u64; 0]);
    }

    #[test]
    fn retention_drops_the_oldest_and_says_gone() {
        let dir = tempfile::tempdir().expect("folder");
        let retention = Retention { entries: 1000, ..Retention::default() };
        let mut journal = open(dir.path(), retention);
        for _ in 0..30 {
            append(&mut journal, 100);
        }
        assert_eq!(journal.after(None, 0, 10).expect("after"), After::Gone { first_seq: journal.first() });
        // A step more than what was asked for, at most.
        assert!((1900..=2001).contains(&journal.first()), "{}", journal.first());
        assert_eq!(seqs(&journal.after(None, 2998, 10).expect("after")), [2999, 3000]);
        let first = journal.first();
        drop(journal);
        let mut journal = open(dir.path(), retention);
        assert_eq!((journal.first(), journal.head()), (first, 3000));
        // The bound was lowered: it goes in steps, and what was written last stays.
        append(&mut journal, 1);
        drop(journal);
        let mut journal = open(dir.path(), Retention { entries: 1, ..retention });
        append(&mut journal, 1);
        assert!(journal.first() > 2900, "{}", journal.first());
        assert_eq!(seqs(&journal.after(None, 3001, 10).expect("after")), [3002]);
    }

    #[test]
    fn retention_by_age_goes_by_when_it_was_written() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = open(dir.path(), Retention { age: Duration::from_hours(10), ..Retention::default() });
        let hour = |n: i64| UnixMillis(n * 3_600_000);
        for n in 0..40 {
            journal.commit_at(hour(n), |commit| commit.append("t".into(), vec![])).expect("commit");
        }
        // Written at hour 29 to 39, and the last of hour 28, which was 10 hours old when 29 had been marked.
        assert!((29..=31).contains(&journal.first()), "{}", journal.first());
        // A clock that was put back drops nothing and breaks nothing.
        let first = journal.first();
        journal.commit_at(hour(1), |commit| commit.append("t".into(), vec![])).expect("commit");
        assert_eq!(journal.first(), first);
    }

    #[test]
    fn retention_by_size_bounds_the_file() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = open(dir.path(), Retention { bytes: 4 << 20, ..Retention::default() });
        for _ in 0..40 {
            journal
                .commit(|commit| (0..500).try_for_each(|_| commit.append("t".into(), vec![7; 1000])))
                .expect("commit");
        }
        let kept = (journal.head() + 1 - journal.first()) * 1001;
        assert!((4 << 20..=(4 << 20) + (800 << 10)).contains(&kept), "{kept}");
        let file = dir.path().join("j.db").metadata().expect("there").len();
        assert!(file < 8 << 20, "{file}");
        // Given back when less is wanted.
        drop(journal);
        let mut journal = open(dir.path(), Retention { bytes: 1 << 10, ..Retention::default() });
        for _ in 0..20 {
            append(&mut journal, 1);
        }
        journal.db().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("copied");
        let file = dir.path().join("j.db").metadata().expect("there").len();
        assert!(file < 6 << 20, "{file}");
    }

    #[test]
    fn a_journal_without_marks_gets_them() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("j.db");
        let db = Connection::open(&path).expect("opens");
        db.execute_batch(
            "CREATE TABLE schema (what TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;
             INSERT INTO schema VALUES ('journal', 1), ('test', 1);
             CREATE TABLE state (n INTEGER)",
        )
        .expect("made");
        db.execute_batch(SCHEMA[0]).expect("made");
        db.execute_batch(
            "INSERT INTO epoch VALUES ('0192d2a0-5e3c-4c4f-8f6e-1f4f6a1d2b3c', 0);
             WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 2500)
             INSERT INTO journal SELECT seq, 't', x'0102' FROM n",
        )
        .expect("filled");
        drop(db);
        let journal = open(dir.path(), Retention::default());
        assert_eq!((journal.first(), journal.head(), journal.bytes), (1, 2500, 7500));
        assert_eq!(
            journal.marks.iter().map(|mark| (mark.seq, mark.bytes)).collect::<Vec<_>>(),
            [(1, 0), (1001, 3000), (2001, 6000)]
        );
    }
}
