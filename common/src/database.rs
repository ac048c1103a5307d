//! SQLite as every daemon uses it: WAL with `synchronous=FULL`, so that a commit survives a power cut, and schemas that carry
//! a version each, migrate forward and refuse a newer one.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::path::{Path, PathBuf};

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

/// Opens or creates the database at `path` and brings its tables to what we know.
///
/// `schemas` are groups of tables, each with its name and migrations: SQL that leads from one version to the next, the
/// first from nothing.
pub fn open(path: &Path, schemas: &[(&str, &[&str])]) -> Result<Connection, DatabaseError> {
    let sqlite = |source| DatabaseError::Sqlite { path: path.to_owned(), source };
    // One that was never finished is no error: whoever is killed in its first moment leaves such a file.
    if path.metadata().is_ok_and(|file| file.len() == 0) {
        tracing::warn!("database {} is empty, so all begins anew", path.display());
    }
    let mut db = Connection::open(path).map_err(sqlite)?;
    // Before anything is written.
    if let Some(found) = foreign(&db, schemas).map_err(sqlite)? {
        return Err(DatabaseError::Foreign { path: path.to_owned(), found });
    }
    configure(&db).map_err(sqlite)?;
    let tx = db.transaction().map_err(sqlite)?;
    tx.execute_batch("CREATE TABLE IF NOT EXISTS schema (what TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT")
        .map_err(sqlite)?;
    for (what, migrations) in schemas {
        migrate(&tx, path, what, migrations)?;
    }
    tx.commit().map_err(sqlite)?;
    Ok(db)
}

/// What is in it that is not ours.
fn foreign(db: &Connection, schemas: &[(&str, &[&str])]) -> rusqlite::Result<Option<String>> {
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

/// Brings the tables of `what` to the last of `migrations`; refuses tables that are newer.
fn migrate(tx: &Transaction<'_>, path: &Path, what: &str, migrations: &[&str]) -> Result<(), DatabaseError> {
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
    for migration in migrations.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute_batch(migration).map_err(sqlite)?;
    }
    tx.execute("INSERT OR REPLACE INTO schema VALUES (?1, ?2)", params![what, known]).map_err(sqlite)?;
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
