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
    let mut db = Connection::open(path).map_err(sqlite)?;
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

/// What every database of ours is opened with.
fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
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
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("j.db");
        let both = ["CREATE TABLE a (n INTEGER)", "CREATE TABLE b (n INTEGER)"];
        drop(open(&path, &[("test", &both)]).expect("newer"));
        let error = open(&path, &[("test", &both[..1])]).expect_err("older");
        assert!(error.to_string().contains("schema 2 of test, but this version knows only up to 1"), "{error}");
    }
}
