//! SQLite as every daemon uses it: WAL with `synchronous=FULL`, so that a commit survives a power cut, and schemas that carry
//! a version each, migrate forward and refuse a newer one.
//!
//! A disk may give back something else than was written. Nothing is then mended in place and nothing begins silently
//! anew: the damaged file keeps its bytes under another name, what can still be read of it goes into a new one, and a row
//! in that says so until people have been told.
//!
//! A new file is made complete under another name before it gets its own, so that one that is empty or has no tables was
//! damaged. Reading all of a large one at each start would take seconds: it is read through if it is small or was not
//! closed properly, and otherwise damage is found when it is met ([`DatabaseError::is_damage`]); a mark beside the file
//! then has the next start set it aside.

mod copy;
mod repair;
mod wal;

pub use copy::copy;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// A group of tables: its name, and its migrations.
pub type Schema<'a> = (&'a str, &'a [&'a str]);

/// Tables with the name by which others know a database and hold places in it.
const IDENTITY: [&str; 2] = ["epoch", "outbox"];
/// Reading through so much takes some 50 ms.
const ALWAYS_CHECKED_BYTES: u64 = 32 << 20;
/// What the mark of a database that was found damaged while it was used has behind the name; it holds the reason.
const FOUND_DAMAGED: &str = ".damaged";

/// Why a database cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite's own words.
    #[error("database {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: rusqlite::Error,
    },
    /// Read through, and not sound.
    #[error("database {path} is damaged: {found}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong.
        found: String,
    },
    /// It cannot be set aside, or its successor cannot be made.
    #[error("database {path} cannot be made anew: {source}")]
    Files {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Somebody else's: a copy of another daemon's, or no database of ours at all.
    #[error("database {path} has {found}, which is not of this daemon: move it aside, or correct state_dir")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A newer version wrote it; going back could lose what it added.
    #[error(
        "database {path} has schema {found} of {what}, but this version knows only up to {known}: install the newer version again"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Whose tables.
        what: String,
        /// Their version.
        found: i64,
        /// Ours.
        known: i64,
    },
}

impl DatabaseError {
    /// Whether the file holds something else than was written into it. Nothing but a new one helps.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => is_damage(source),
            Self::Damaged { .. } => true,
            Self::Files { .. } | Self::Foreign { .. } | Self::Newer { .. } => false,
        }
    }

    /// Has the next [`open`] set the file aside, if it is damaged. Damage in a part that is seldom read would else be
    /// met again and again.
    pub fn mark_damage(&self) {
        let (Self::Sqlite { path, .. } | Self::Damaged { path, .. }) = self else { return };
        if self.is_damage()
            && let Err(error) = std::fs::write(beside(path, FOUND_DAMAGED), self.cause())
        {
            tracing::warn!("the damage of {} cannot be marked: {error}", path.display());
        }
    }

    /// What is wrong, without the name of the file.
    fn cause(&self) -> String {
        match self {
            Self::Sqlite { source, .. } => source.to_string(),
            Self::Damaged { found, .. } => found.clone(),
            other => other.to_string(),
        }
    }
}

/// Whether SQLite found something else than was written.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Opens or creates the database at `path` and brings its tables to what we know. A damaged one is set aside, and what can
/// still be read of it is in the new one, with an [`Aside`] that says so.
///
/// `schemas` are groups of tables, each with its name and migrations: SQL that leads from one version to the next, the
/// first from nothing.
pub fn open(path: &Path, schemas: &[Schema<'_>]) -> Result<Connection, DatabaseError> {
    let left_open = beside(path, "-wal").metadata().is_ok_and(|log| log.len() > 0);
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !left_open => repair::create(path, schemas)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            repair::rebuild(path, schemas, "it is gone, and its log is still there")?;
        }
        _ => {
            if let Some(why) = damage_of_files(path) {
                repair::rebuild(path, schemas, &why)?;
            }
        }
    }
    match open_sound(path, schemas, left_open) {
        Err(error) if error.is_damage() => {
            repair::rebuild(path, schemas, &error.cause())?;
            open_sound(path, schemas, false)
        }
        opened => opened,
    }
}

/// What is wrong with the files, seen before SQLite touches them.
fn damage_of_files(path: &Path) -> Option<String> {
    if path.metadata().is_ok_and(|file| file.len() == 0) {
        // Ours are whole before they get their name.
        return Some("it is empty".to_owned());
    }
    if let Ok(why) = std::fs::read_to_string(beside(path, FOUND_DAMAGED)) {
        return Some(format!("found while it was used: {why}"));
    }
    let torn = wal::is_torn(&beside(path, "-wal"), &beside(path, "-shm"));
    torn.then(|| "the last commits in its log are damaged or cut off".to_owned())
}

fn open_sound(path: &Path, schemas: &[Schema<'_>], left_open: bool) -> Result<Connection, DatabaseError> {
    let sqlite = |source| DatabaseError::Sqlite { path: path.to_owned(), source };
    let mut db = Connection::open(path).map_err(sqlite)?;
    // Before anything is written.
    if let Some(found) = foreign(&db, schemas).map_err(sqlite)? {
        return Err(DatabaseError::Foreign { path: path.to_owned(), found });
    }
    if !db.table_exists(None, "schema").map_err(sqlite)? {
        return Err(DatabaseError::Damaged { path: path.to_owned(), found: "it has no tables".to_owned() });
    }
    let is_small = path.metadata().is_ok_and(|file| file.len() <= ALWAYS_CHECKED_BYTES);
    if left_open || is_small {
        let said: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
        if said != "ok" {
            return Err(DatabaseError::Damaged { path: path.to_owned(), found: said.trim().replace('\n', ": ") });
        }
    }
    configure(&db).map_err(sqlite)?;
    let tx = db.transaction().map_err(sqlite)?;
    make_tables(&tx, path, schemas, |_, migrations| migrations.len())?;
    tx.commit().map_err(sqlite)?;
    Ok(db)
}

/// The tables that every database has, and those of `schemas` up to the version that `until` gives for each.
fn make_tables(
    tx: &Transaction<'_>,
    path: &Path,
    schemas: &[Schema<'_>],
    until: impl Fn(&str, &[&str]) -> usize,
) -> Result<(), DatabaseError> {
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema (what TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS aside (file TEXT NOT NULL, why TEXT NOT NULL, rows INTEGER NOT NULL,
             is_whole INTEGER NOT NULL) STRICT;",
    )
    .map_err(|source| DatabaseError::Sqlite { path: path.to_owned(), source })?;
    for (what, migrations) in schemas {
        migrate(tx, path, what, migrations, until(what, migrations))?;
    }
    Ok(())
}

/// A damaged database that was set aside, and that nobody has been told of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it is now.
    pub file: String,
    /// What was wrong with it.
    pub why: String,
    /// How many rows could be read and were taken over.
    pub rows: u64,
    /// Whether these are all that belong to the state.
    pub is_whole: bool,
}

/// For a log line, and for people.
impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, why, rows, is_whole } = self;
        let rest = if *is_whole { "all of the state" } else { "the rest of the state is lost" };
        write!(f, "the database was damaged ({why}) and is kept as {file}; {rows} rows were taken over, {rest}")
    }
}

/// What was set aside and is still to be told.
pub fn untold(db: &Connection) -> rusqlite::Result<Vec<Aside>> {
    let mut statement = db.prepare("SELECT file, why, rows, is_whole FROM aside")?;
    let rows = statement.query_map([], |row| {
        Ok(Aside { file: row.get(0)?, why: row.get(1)?, rows: row.get(2)?, is_whole: row.get(3)? })
    })?;
    rows.collect()
}

/// All that was set aside has been told, with this transaction.
pub fn forget_untold(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM aside", []).map(drop)
}

/// The name of what lies beside a database.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What is in it that is not ours.
fn foreign(db: &Connection, schemas: &[Schema<'_>]) -> rusqlite::Result<Option<String>> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    let is_ours = "SELECT 1 FROM sqlite_schema WHERE name = 'schema' AND sql LIKE '%what TEXT%'";
    if !db.prepare(is_ours)?.exists([])? {
        let table = db.query_row("SELECT name FROM sqlite_schema LIMIT 1", [], |row| row.get::<_, String>(0));
        return Ok(table.optional()?.map(|table| format!("a table {table}")));
    }
    let mut statement = db.prepare("SELECT what FROM schema")?;
    let found = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let other = found.into_iter().find(|what| schemas.iter().all(|(ours, _)| ours != what));
    Ok(other.map(|what| format!("the tables of {what}")))
}

/// What every database of ours is opened with.
fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // 2 MiB of pages: the tail of the journal is what is read, and small hosts are short of memory.
    db.pragma_update(None, "cache_size", -2048)?;
    Ok(())
}

/// Brings the tables of `what` to the version `until` of `migrations`; refuses tables that are newer.
fn migrate(
    tx: &Transaction<'_>,
    path: &Path,
    what: &str,
    migrations: &[&str],
    until: usize,
) -> Result<(), DatabaseError> {
    let sqlite = |source| DatabaseError::Sqlite { path: path.to_owned(), source };
    let found: i64 = tx
        .query_row("SELECT version FROM schema WHERE what = ?1", [what], |row| row.get(0))
        .optional()
        .map_err(sqlite)?
        .unwrap_or(0);
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(DatabaseError::Newer { path: path.to_owned(), what: what.to_owned(), found, known });
    }
    for migration in migrations.iter().take(until).skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute_batch(migration).map_err(sqlite)?;
    }
    let reached = i64::try_from(until).unwrap_or(i64::MAX).max(found);
    if reached != found {
        tx.execute("INSERT OR REPLACE INTO schema VALUES (?1, ?2)", params![what, reached]).map_err(sqlite)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("j.db");
        drop(open(&path, &[("other", &["CREATE TABLE a (n INTEGER)"])]).expect("theirs"));
        let error = open(&path, &[("test", &["CREATE TABLE b (n INTEGER)"])]).expect_err("theirs");
        assert!(error.to_string().contains("has the tables of other, which is not of this daemon"), "{error}");
        let path = dir.path().join("k.db");
        Connection::open(&path).and_then(|db| db.execute("CREATE TABLE a (n INTEGER)", [])).expect("theirs");
        let before = std::fs::read(&path).expect("read");
        let error = open(&path, &[("test", &["CREATE TABLE b (n INTEGER)"])]).expect_err("theirs");
        assert!(error.to_string().contains("has a table a, which is not of this daemon"), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), before);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("j.db");
        let both = ["CREATE TABLE a (n INTEGER)", "CREATE TABLE b (n INTEGER)"];
        drop(open(&path, &[("test", &both)]).expect("newer"));
        let error = open(&path, &[("test", &both[..1])]).expect_err("older");
        assert!(error.to_string().contains("schema 2 of test, but this version knows only up to 1"), "{error}");
    }
}
