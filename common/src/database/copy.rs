//! A copy of a database while its daemon writes it.

use super::{DatabaseError, IDENTITY, beside, repair::sync};
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Copies the database `from` to the new file `to`, as it is at one moment between two commits, and syncs it. A reader
/// does not hold up who writes, and `VACUUM INTO` leaves out free pages.
///
/// The copy has no name of its own: others hold places in the journal of `from`, and it goes on without the copy. When a
/// daemon opens the copy, it takes a new one, as any consumer then sees.
pub fn copy(from: &Path, to: &Path) -> Result<(), DatabaseError> {
    let files = |source| DatabaseError::Files { path: to.to_owned(), source };
    if to.exists() {
        return Err(files(io::ErrorKind::AlreadyExists.into()));
    }
    let part = beside(to, ".part");
    let read = || {
        let db = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.execute("VACUUM INTO ?1", [part.to_string_lossy()])
    };
    read().map_err(|source| DatabaseError::Sqlite { path: from.to_owned(), source })?;
    let rename = || {
        let db = Connection::open(&part)?;
        for table in IDENTITY {
            if db.table_exists(None, table)? {
                db.execute(&format!("DELETE FROM {table}"), [])?;
            }
        }
        db.close().map_err(|(_, error)| error)
    };
    rename().map_err(|source| DatabaseError::Sqlite { path: part.clone(), source })?;
    File::open(&part).and_then(|file| file.sync_all()).map_err(files)?;
    std::fs::rename(&part, to).and_then(|()| sync(to)).map_err(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{After, Journal, Retention};

    #[test]
    fn a_copy_has_everything_but_the_name() {
        let dir = tempfile::tempdir().expect("folder");
        let (from, to) = (dir.path().join("a.db"), dir.path().join("b.db"));
        let open = |path: &Path| {
            Journal::open(path, Retention::default(), "test", &["CREATE TABLE s (n INTEGER)"]).expect("journal")
        };
        let mut journal = open(&from);
        journal
            .commit(|commit| {
                commit.append("t".into(), vec![1])?;
                commit.state().execute("INSERT INTO s VALUES (7)", []).map(drop)
            })
            .expect("commit");
        copy(&from, &to).expect("copies");
        assert!(copy(&from, &to).is_err(), "never over another");
        let copied = open(&to);
        assert_ne!(copied.epoch(), journal.epoch());
        assert_eq!(copied.head(), 1);
        assert!(matches!(copied.after(None, 0, 9).expect("reads"), After::Entries(found) if found.len() == 1));
        assert_eq!(copied.db().query_row("SELECT n FROM s", [], |row| row.get::<_, i64>(0)).expect("state"), 7);
        assert!(matches!(copied.after(Some(journal.epoch().as_str()), 1, 9), Ok(After::Gone { .. })));
    }
}
