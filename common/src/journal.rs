//! The journal: every message that must not be lost, in the order of its `seq`, in SQLite.
//!
//! An entry is committed before it is published, in one transaction with whatever state its daemon needs after a restart,
//! so that after a crash at any point journal and state agree. WAL with `synchronous=FULL`: a commit survives a power
//! cut. Many entries share one commit.

use crate::database::{self, DatabaseError};
use crate::message::Epoch;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::path::{Path, PathBuf};

/// The journal's own tables, one migration a version. A daemon's state tables have their own.
const SCHEMA: [&str; 1] =
    ["CREATE TABLE journal (seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE TABLE epoch (epoch TEXT NOT NULL, head INTEGER NOT NULL) STRICT;"];
/// An answer stops at this many bytes of payload: on its way it is a tree of values, which takes many times as much.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// And at this many entries.
const MAX_ANSWER_ENTRIES: u64 = 10_000;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// At most this many entries.
    pub entries: u64,
}

impl Default for Retention {
    /// A million entries are about 500 MB.
    fn default() -> Self {
        Self { entries: 1_000_000 }
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
        tx.commit().map_err(sqlite)?;
        Ok(Self { db, path: path.to_owned(), epoch, head, first: first.unwrap_or(head + 1), retention })
    }

    /// The name of this journal.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The newest entry, 0 before the first.
    pub fn head(&self) -> u64 {
        self.head
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
        let Self { db, path, head, first, retention, .. } = self;
        let commit_all = || {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut commit = Commit { tx, head: *head, entries: Vec::new() };
            write(&mut commit)?;
            let Commit { tx, head: new_head, entries } = commit;
            // Deleting in steps keeps the cost of retention out of most commits.
            let kept = new_head + 1 - *first;
            let mut new_first = *first;
            if kept > retention.entries + retention.entries / 100 + 1000 {
                new_first = new_head + 1 - retention.entries;
                tx.execute("DELETE FROM journal WHERE seq < ?1", [new_first])?;
                // The head survives even if retention keeps nothing.
                tx.execute("UPDATE epoch SET head = ?1", [new_head])?;
            }
            tx.commit()?;
            (*head, *first) = (new_head, new_first);
            Ok(entries)
        };
        commit_all().map_err(|source| DatabaseError::Sqlite { path: path.clone(), source })
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
        read().map_err(|source| DatabaseError::Sqlite { path: self.path.clone(), source })
    }
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
        let mut journal = open(dir.path(), Retention { entries: 10 });
        append(&mut journal, 2000);
        append(&mut journal, 1);
        assert_eq!(journal.after(None, 0, 10).expect("after"), After::Gone { first_seq: 1991 });
        assert_eq!(seqs(&journal.after(None, 1999, 10).expect("after")), [2000, 2001]);
        drop(journal);
        assert_eq!(open(dir.path(), Retention { entries: 10 }).head(), 2001);
    }
}
