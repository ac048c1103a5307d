//! A new database, empty or with what can be read of a damaged one.

use super::{Aside, DatabaseError, IDENTITY, Schema, beside, make_tables};
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params, params_from_iter};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A journal is left behind with its name: a place in it means nothing in another.
const OF_THE_JOURNAL: [&str; 2] = ["journal", "mark"];
/// They say how far the rest of the state has come, which is no longer true if some of it is missing: without them a daemon
/// takes everything anew.
const ONLY_WITH_ALL: [&str; 3] = ["cursor", "nth", "recipient"];
/// What belongs to a database.
const PARTS: [&str; 3] = ["-wal", "-shm", ""];
/// Names to try for what is set aside in one second.
const MAX_TRIES: u32 = 100;

/// Makes the database `path`, which is not there.
pub(super) fn create(path: &Path, schemas: &[Schema<'_>]) -> Result<(), DatabaseError> {
    let new = beside(path, ".new");
    begin(path, &new)?;
    let sqlite = |source| DatabaseError::Sqlite { path: new.clone(), source };
    let mut db = open_new(&new).map_err(sqlite)?;
    let tx = db.transaction().map_err(sqlite)?;
    make_tables(&tx, &new, schemas, |_, migrations| migrations.len())?;
    tx.commit().map_err(sqlite)?;
    db.close().map_err(|(_, error)| sqlite(error))?;
    let files = |source| DatabaseError::Files { path: path.to_owned(), source };
    fs::rename(&new, path).and_then(|()| sync(path)).map_err(files)
}

/// Sets the damaged database `path` aside and makes a new one of what can be read.
///
/// A crash at any point leaves the damaged one where it was, or the new one complete: it is linked to its new name, and
/// replaced in one step.
pub(super) fn rebuild(path: &Path, schemas: &[Schema<'_>], why: &str) -> Result<(), DatabaseError> {
    let files = |source| DatabaseError::Files { path: path.to_owned(), source };
    let new = beside(path, ".new");
    begin(path, &new)?;
    let kept = free_name(path).map_err(files)?;
    let sqlite = |source| DatabaseError::Sqlite { path: new.clone(), source };
    let mut db = open_new(&new).map_err(sqlite)?;
    let tx = db.transaction().map_err(sqlite)?;
    let old = open_damaged(path).ok();
    let version = |what: &str| old.as_ref().and_then(|old| version(old, what));
    // A newer one is refused here as well, and stays where it is.
    for (what, migrations) in schemas {
        if let Some(found) = version(what)
            && usize::try_from(found).is_ok_and(|found| found > migrations.len())
        {
            let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
            return Err(DatabaseError::Newer { path: path.to_owned(), what: (*what).to_owned(), found, known });
        }
    }
    // Rows fit the tables of their own version, and go on from there as they would have done where they were.
    let until = |what: &str, migrations: &[&str]| {
        version(what).and_then(|found| usize::try_from(found).ok()).unwrap_or(migrations.len())
    };
    make_tables(&tx, &new, schemas, until)?;
    let (rows, is_whole) = take_over(old.as_ref(), &tx).map_err(sqlite)?;
    make_tables(&tx, &new, schemas, |_, migrations| migrations.len())?;
    let aside = Aside { file: kept.display().to_string(), why: why.to_owned(), rows, is_whole };
    tx.execute("INSERT INTO aside VALUES (?1, ?2, ?3, ?4)", params![aside.file, aside.why, aside.rows, aside.is_whole])
        .map_err(sqlite)?;
    tx.commit().map_err(sqlite)?;
    db.close().map_err(|(_, error)| sqlite(error))?;
    drop(old);
    keep(path, &kept).map_err(files)?;
    // The new one must not get the log of the old.
    for end in ["-wal", "-shm"] {
        remove(&beside(path, end)).map_err(files)?;
    }
    fs::rename(&new, path).and_then(|()| sync(path)).map_err(files)?;
    remove(&beside(path, super::FOUND_DAMAGED)).map_err(files)?;
    tracing::error!("{}: {aside}", path.display());
    Ok(())
}

/// Clears away what a crash left of an earlier attempt.
fn begin(path: &Path, new: &Path) -> Result<(), DatabaseError> {
    for end in ["", "-journal", "-wal", "-shm"] {
        remove(&beside(new, end)).map_err(|source| DatabaseError::Files { path: path.to_owned(), source })?;
    }
    Ok(())
}

fn open_new(new: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(new)?;
    // Only before the first table: what retention frees can then be given back.
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(db)
}

/// A name for what is set aside, with its date.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    let date = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let names = (1..=MAX_TRIES).map(|n| match n {
        1 => beside(path, &format!(".corrupt-{date}")),
        n => beside(path, &format!(".corrupt-{date}-{n}")),
    });
    let is_free = |name: &PathBuf| PARTS.iter().all(|part| !beside(name, part).exists());
    names.into_iter().find(is_free).ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

/// Links the files to that name, the database last: its name says that all are there. A link never replaces anything.
fn keep(path: &Path, kept: &Path) -> io::Result<()> {
    for part in PARTS {
        // Our own reading leaves an empty log.
        if part == "-wal" && beside(path, part).metadata().is_ok_and(|log| log.len() == 0) {
            continue;
        }
        match fs::hard_link(beside(path, part), beside(kept, part)) {
            // There need not be a log, or it is all there is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            linked => linked?,
        }
    }
    sync(kept)
}

/// Opens it without changing a byte of it.
fn open_damaged(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(db)
}

fn version(old: &Connection, what: &str) -> Option<i64> {
    let version = old.query_row("SELECT version FROM schema WHERE what = ?1", [what], |row| row.get(0)).optional();
    version.ok().flatten()
}

/// Copies what can be read into the tables that are there. Returns how many rows, and whether nothing is missing.
fn take_over(old: Option<&Connection>, tx: &Transaction<'_>) -> rusqlite::Result<(u64, bool)> {
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let tables = tx.prepare(names)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let is = |names: &[&str], table: &String| names.contains(&table.as_str());
    let (last, first): (Vec<_>, Vec<_>) = tables
        .into_iter()
        .filter(|table| !is(&IDENTITY, table) && !is(&OF_THE_JOURNAL, table) && table != "schema")
        .partition(|table| is(&ONLY_WITH_ALL, table));
    let Some(old) = old else { return Ok((0, false)) };
    let (mut rows, mut is_whole) = (0, true);
    for table in first {
        let copied = copy_table(old, tx, &table)?;
        rows += copied.rows;
        is_whole &= copied.is_whole;
    }
    for table in last {
        if is_whole {
            rows += copy_table(old, tx, &table)?.rows;
        }
    }
    Ok((rows, is_whole))
}

struct Copied {
    rows: u64,
    is_whole: bool,
}

/// Copies a table from its beginning to the first damage, and from its end back to the last.
fn copy_table(old: &Connection, tx: &Transaction<'_>, table: &str) -> rusqlite::Result<Copied> {
    let mut statement = tx.prepare("SELECT name, pk FROM pragma_table_info(?1)")?;
    let columns = statement
        .query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let names = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let mut key: Vec<_> = columns.iter().filter(|(_, place)| *place > 0).collect();
    key.sort_by_key(|(_, place)| *place);
    let places = vec!["?"; columns.len()].join(", ");
    let mut insert = tx.prepare(&format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})"))?;
    let mut copied = Copied { rows: 0, is_whole: true };
    for direction in ["ASC", "DESC"] {
        let order = key.iter().map(|(name, _)| format!("{name} {direction}")).collect::<Vec<_>>().join(", ");
        let order = if order.is_empty() { format!("rowid {direction}") } else { order };
        let select = format!("SELECT {names} FROM {table} ORDER BY {order}");
        let mut rows_of = || -> rusqlite::Result<()> {
            let mut statement = old.prepare(&select)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let values =
                    (0..columns.len()).map(|at| row.get::<_, Value>(at)).collect::<rusqlite::Result<Vec<_>>>()?;
                // What does not fit the table was no row of ours.
                match insert.execute(params_from_iter(values)) {
                    Ok(inserted) => copied.rows += inserted as u64,
                    Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                        copied.is_whole = false;
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        match rows_of() {
            Ok(()) => break,
            Err(error) if is_of_our_disk(&error) => return Err(error),
            Err(_) => copied.is_whole = false,
        }
    }
    Ok(copied)
}

/// Errors of the new database, which another attempt may not have.
fn is_of_our_disk(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull))
}

/// Makes the name of `path` last.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Aside, beside, open, untold};
    use rusqlite::Connection;
    use std::fs;
    use std::path::{Path, PathBuf};

    const TABLES: [(&str, &[&str]); 1] = [(
        "test",
        &[
            "CREATE TABLE saved (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID;
             CREATE TABLE cursor (feed TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
             CREATE TABLE outbox (id TEXT NOT NULL) STRICT;",
            "ALTER TABLE cursor ADD COLUMN more INTEGER NOT NULL DEFAULT 5",
        ],
    )];

    /// A database of `rows` rows, closed properly.
    fn made(dir: &Path, rows: u32) -> PathBuf {
        let path = dir.join("x.db");
        let mut db = open(&path, &TABLES).expect("opens");
        let tx = db.transaction().expect("begins");
        for n in 0..rows {
            tx.execute("INSERT INTO saved VALUES ('check', ?1, zeroblob(300))", [format!("{n:06}")]).expect("written");
        }
        tx.execute_batch("INSERT INTO cursor VALUES ('f', 7, 8); INSERT INTO outbox VALUES ('me')").expect("written");
        tx.commit().expect("committed");
        path
    }

    fn count(db: &Connection, table: &str) -> u32 {
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("counted")
    }

    fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = fs::read(path).expect("read");
        change(&mut bytes);
        fs::write(path, &bytes).expect("written");
        bytes
    }

    #[track_caller]
    fn opened(path: &Path) -> (Connection, Aside) {
        let db = open(path, &TABLES).expect("opens");
        let [aside]: [Aside; 1] = untold(&db).expect("read").try_into().expect("one was set aside");
        (db, aside)
    }

    #[test]
    fn a_sound_one_is_opened_as_it_is() {
        let dir = tempfile::tempdir().expect("folder");
        let path = made(dir.path(), 10);
        for _ in 0..2 {
            let db = open(&path, &TABLES).expect("opens");
            assert_eq!((count(&db, "saved"), untold(&db).expect("read").len()), (10, 0));
        }
    }

    #[test]
    fn of_one_garbled_in_the_middle_both_ends_are_taken_over() {
        let dir = tempfile::tempdir().expect("folder");
        let path = made(dir.path(), 5000);
        let bad = damage(&path, |bytes| {
            let middle = bytes.len() / 2 / 4096 * 4096;
            bytes[middle..middle + 3 * 4096].fill(0xa5);
        });
        let (db, aside) = opened(&path);
        assert!((4000..4999).contains(&count(&db, "saved")), "{}", count(&db, "saved"));
        assert_eq!((count(&db, "cursor"), count(&db, "outbox")), (0, 0), "nobody goes on from what is not all there");
        assert!(!aside.is_whole && aside.file.contains("x.db.corrupt-"), "{aside}");
        assert_eq!(fs::read(&aside.file).expect("kept"), bad);
        drop(db);
        // Until it is told, it is said at each start; nothing is set aside again.
        assert_eq!(opened(&path).1, aside);
        assert_eq!(kept(dir.path()).len(), 1);
    }

    fn kept(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.contains(".corrupt-") && !name.ends_with("-shm")).collect()
    }

    #[test]
    fn what_is_empty_cut_noise_or_without_tables_is_kept_and_begun_anew() {
        let dir = tempfile::tempdir().expect("folder");
        let changes: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes.clear(),
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| *bytes = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            |bytes| bytes[100..].fill(0),
        ];
        for (change, n) in changes.into_iter().zip(1..) {
            let path = made(dir.path(), 2000);
            let bad = damage(&path, change);
            let (db, aside) = opened(&path);
            assert!(!aside.is_whole, "{aside}");
            assert_eq!(count(&db, "cursor"), 0);
            assert_eq!(fs::read(&aside.file).expect("kept"), bad);
            assert_eq!(kept(dir.path()).len(), n, "in the same second too");
            drop(db);
            fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn a_torn_log_gives_the_state_before_it_under_a_new_name() {
        let dir = tempfile::tempdir().expect("folder");
        let path = made(dir.path(), 10);
        let db = open(&path, &TABLES).expect("opens");
        for n in 0..20 {
            db.execute("INSERT INTO saved VALUES ('host', ?1, x'00')", [n.to_string()]).expect("written");
        }
        // What a crash leaves, in a folder of its own.
        let left = dir.path().join("left");
        fs::create_dir(&left).expect("made");
        for end in ["", "-wal", "-shm"] {
            fs::copy(beside(&path, end), beside(&left.join("x.db"), end)).expect("copied");
        }
        let path = left.join("x.db");
        damage(&beside(&path, "-wal"), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        let (db, aside) = opened(&path);
        assert!((11..29).contains(&count(&db, "saved")), "{}", count(&db, "saved"));
        assert!(aside.is_whole && aside.why.contains("log"), "{aside}");
        assert_eq!((count(&db, "cursor"), count(&db, "outbox")), (1, 0));
        assert_eq!(kept(&left).len(), 2, "the log is kept too");
    }

    #[test]
    fn a_log_without_its_database_is_kept() {
        let dir = tempfile::tempdir().expect("folder");
        let path = made(dir.path(), 1);
        fs::remove_file(&path).expect("removed");
        fs::write(beside(&path, "-wal"), [1; 5000]).expect("written");
        let (_, aside) = opened(&path);
        assert_eq!(fs::read(format!("{}-wal", aside.file)).expect("kept"), [1; 5000]);
    }

    #[test]
    fn what_was_met_while_running_is_set_aside_by_the_next_start() {
        let dir = tempfile::tempdir().expect("folder");
        let path = made(dir.path(), 5);
        let error = super::super::DatabaseError::Damaged { path: path.clone(), found: "a test".into() };
        error.mark_damage();
        let (db, aside) = opened(&path);
        assert_eq!((aside.rows, aside.is_whole), (6, true));
        assert!(aside.why.contains("a test"), "{aside}");
        drop(db);
        assert_eq!(opened(&path).1, aside, "once");
    }

    #[test]
    fn an_older_version_is_taken_over_and_a_newer_one_is_left_where_it_is() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("x.db");
        let older = [("test", &TABLES[0].1[..1])];
        let db = open(&path, &older).expect("opens");
        db.execute_batch("INSERT INTO cursor VALUES ('f', 7)").expect("written");
        drop(db);
        fs::write(beside(&path, ".damaged"), "a test").expect("marked");
        let (db, _) = opened(&path);
        let row = db.query_row("SELECT seq, more FROM cursor", [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(row.expect("there"), (7, 5));
        drop(db);
        fs::write(beside(&path, ".damaged"), "a test").expect("marked");
        let before = fs::read(&path).expect("read");
        let error = open(&path, &older).expect_err("is newer");
        assert!(error.to_string().contains("schema 2 of test, but this version knows only up to 1"), "{error}");
        assert_eq!((fs::read(&path).expect("read"), kept(dir.path()).len()), (before, 1));
    }
}
