//! What the keeper remembers across a restart, in tables beside the journal: a change and its journal entry are saved in
//! one transaction, so that after a crash at any point they agree.
//!
//! Rows are kept without their host: the state belongs to this machine, whatever it is called.

use crate::keeper::{PluginRow, Row};
use crate::sources::plugins::MAX_TTL;
use common::address::{Name, Unit};
use common::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::time::Duration;

/// Whose tables these are, in the schema.
pub(crate) const WHAT: &str = "ccollectd";

/// One migration a version.
pub(crate) const MIGRATIONS: [&str; 1] = ["CREATE TABLE checks (
        service TEXT NOT NULL,
        unit TEXT NOT NULL,
        up INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        time INTEGER NOT NULL,
        text TEXT NOT NULL,
        interval_ms INTEGER NOT NULL,
        is_plugin INTEGER NOT NULL,
        reported INTEGER,
        ttl_ms INTEGER,
        heard INTEGER NOT NULL,
        PRIMARY KEY (service, unit)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE inventory (hash TEXT NOT NULL) STRICT;"];

/// No check is published less often, so that arithmetic with what the file says cannot overflow.
const MAX_INTERVAL: Duration = Duration::from_hours(24);

/// All saved rows. One that makes no sense any more is skipped: the check is then seen for the first time.
pub(crate) fn load_rows(db: &Connection) -> rusqlite::Result<Vec<Row>> {
    let mut statement = db.prepare(
        "SELECT service, unit, up, changed, time, text, interval_ms, is_plugin, reported, ttl_ms, heard FROM checks",
    )?;
    let mut rows = statement.query([])?;
    let mut loaded = Vec::new();
    while let Some(row) = rows.next()? {
        let (service, unit): (String, String) = (row.get(0)?, row.get(1)?);
        let (Ok(service), Ok(unit)) = (service.parse::<Name>(), unit.parse::<Unit>()) else {
            tracing::warn!("a saved check has no valid address and is skipped: {service:?}, {unit:?}");
            continue;
        };
        let interval = Duration::from_millis(row.get::<_, i64>(6)?.try_into().unwrap_or(0));
        let ttl = row.get::<_, Option<i64>>(9)?.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        let is_plugin: bool = row.get(7)?;
        let plugin = PluginRow {
            reported: row.get(8)?,
            ttl: ttl.filter(|ttl| *ttl <= MAX_TTL),
            heard: UnixMillis(row.get(10)?),
        };
        loaded.push(Row {
            service,
            unit,
            up: row.get(2)?,
            changed: UnixMillis(row.get(3)?),
            time: UnixMillis(row.get(4)?),
            text: row.get(5)?,
            interval: interval.min(MAX_INTERVAL),
            plugin: is_plugin.then_some(plugin),
        });
    }
    Ok(loaded)
}

/// The hash of the inventory that was journaled last.
pub(crate) fn load_inventory(db: &Connection) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT hash FROM inventory", [], |row| row.get(0)).optional()
}

/// Saves or replaces a row.
pub(crate) fn save_row(tx: &Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let plugin = row.plugin.as_ref();
    tx.prepare_cached("INSERT OR REPLACE INTO checks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?.execute(
        params![
            row.service.as_str(),
            row.unit.as_str(),
            row.up,
            row.changed.0,
            row.time.0,
            row.text,
            ms(row.interval),
            plugin.is_some(),
            plugin.and_then(|plugin| plugin.reported),
            plugin.and_then(|plugin| plugin.ttl).map(ms),
            plugin.map_or(row.time, |plugin| plugin.heard).0,
        ],
    )?;
    Ok(())
}

/// Removes a row, if there is one.
pub(crate) fn drop_row(tx: &Transaction<'_>, service: &Name, unit: &Unit) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM checks WHERE service = ?1 AND unit = ?2")?
        .execute(params![service.as_str(), unit.as_str()])?;
    Ok(())
}

/// Replaces the hash of the inventory that was journaled last.
pub(crate) fn save_inventory(tx: &Transaction<'_>, hash: &str) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM inventory", [])?;
    tx.execute("INSERT INTO inventory VALUES (?1)", [hash])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let db = Connection::open_in_memory().expect("a database");
        MIGRATIONS.iter().try_for_each(|migration| db.execute_batch(migration)).expect("tables");
        db
    }

    fn row(unit: &str, plugin: Option<PluginRow>) -> Row {
        Row {
            service: "app".parse().expect("a name"),
            unit: unit.parse().expect("a unit"),
            up: false,
            changed: UnixMillis(-5),
            time: UnixMillis(7),
            text: "refused".to_owned(),
            interval: Duration::from_millis(1500),
            plugin,
        }
    }

    #[test]
    fn rows_come_back_as_they_were_saved_and_the_last_one_counts() {
        let mut db = database();
        let silent = PluginRow { reported: None, ttl: None, heard: UnixMillis(1) };
        let known = PluginRow { reported: Some(true), ttl: Some(Duration::from_secs(9)), heard: UnixMillis(2) };
        let rows = vec![row("", None), row("a", Some(silent.clone())), row("b", Some(known))];
        let tx = db.transaction().expect("a transaction");
        save_row(&tx, &row("b", Some(silent))).expect("saved");
        save_row(&tx, &row("c", None)).expect("saved");
        rows.iter().try_for_each(|row| save_row(&tx, row)).expect("saved");
        drop_row(&tx, &"app".parse().expect("a name"), &"c".parse().expect("a unit")).expect("dropped");
        tx.commit().expect("committed");
        assert_eq!(load_rows(&db).expect("rows"), rows);
    }

    #[test]
    fn the_inventory_is_one() {
        let mut db = database();
        assert_eq!(load_inventory(&db).expect("none"), None);
        let tx = db.transaction().expect("a transaction");
        save_inventory(&tx, "1").and_then(|()| save_inventory(&tx, "2")).expect("saved");
        tx.commit().expect("committed");
        assert_eq!(load_inventory(&db).expect("one"), Some("2".to_owned()));
    }

    #[test]
    fn a_row_that_a_person_has_spoiled_is_skipped_or_bounded() {
        let db = database();
        let insert = |unit: &str, interval: i64, ttl: i64| {
            db.execute(
                "INSERT INTO checks VALUES ('app', ?1, 1, 0, 0, '', ?2, 1, NULL, ?3, 0)",
                params![unit, interval, ttl],
            )
            .expect("inserted");
        };
        insert("a\nb", 1000, 1000);
        insert("c", i64::MAX, i64::MAX);
        insert("d", -1, -1);
        let rows = load_rows(&db).expect("rows");
        let bounds: Vec<_> =
            rows.iter().map(|row| (row.interval, row.plugin.as_ref().and_then(|plugin| plugin.ttl))).collect();
        assert_eq!(bounds, [(MAX_INTERVAL, None), (Duration::ZERO, None)]);
    }
}
