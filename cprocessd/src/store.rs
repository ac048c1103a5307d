//! What the engine asked to keep, in tables beside the journal: one row a thing, its value in MessagePack, so that a field
//! can be added without a migration.

use crate::engine::{Draft, Key, Output, Saved, SavedCheck};
use common::address::{Address, CheckAddress};
use common::journal::Commit;
use common::message::{Epoch, Event, decode, encode, event_topic};
use common::severity::Severity;
use common::subscriber::Cursor;
use rusqlite::{Connection, Transaction, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The tables, one migration a version.
pub const MIGRATIONS: [&str; 1] = ["CREATE TABLE saved (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID;
    CREATE TABLE cursor (feed TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL) STRICT;
    CREATE TABLE nth (severity TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;"];

/// A value that is not a map, so that every row decodes the same way.
#[derive(Debug, Serialize, Deserialize)]
struct Plain<T> {
    value: T,
}

/// Everything that was kept. Rows that do not decode are counted, not fatal: the feed brings most of it again.
pub fn load(db: &Connection) -> rusqlite::Result<(Vec<Saved>, usize)> {
    let mut statement = db.prepare("SELECT kind, key, value FROM saved ORDER BY kind, key")?;
    let mut rows = statement.query([])?;
    let mut saved = Vec::new();
    let mut unreadable = 0;
    while let Some(row) = rows.next()? {
        let [kind, key, value] = [row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?];
        match read(kind.as_str()?, key.as_str()?, value.as_blob()?) {
            Some(row) => saved.push(row),
            None => unreadable += 1,
        }
    }
    Ok((saved, unreadable))
}

/// Gives each open incident the check that it is about, where a damaged database lost it: what was bad is bad until it is
/// observed again. Its recovery would else be taken for a first observation, and close nothing. The reverse mends itself:
/// a check that is bad and has no incident opens it with the next observation.
pub fn complete(saved: &mut Vec<Saved>) {
    let mut missing = BTreeMap::new();
    for row in &*saved {
        let Saved::Incident(Key { address: Address::Check(address), rule }, Some(incident)) = row else { continue };
        let up = match rule.as_str() {
            "check" => false,
            "silent" => true,
            _ => continue,
        };
        let check = SavedCheck {
            up,
            since: incident.since,
            interval_ms: 0,
            text: incident.text.clone(),
            bad_since: incident.since,
            bad_count: 1,
            last_blip: None,
            changes: Vec::new(),
            flapping: None,
            silent: (rule == "silent").then_some(incident.since),
            from: None,
            votes: Vec::new(),
            unjournaled: Vec::new(),
        };
        // Of a host's own incident the host is the state.
        if *address != CheckAddress::alive(address.host.clone()) {
            missing.insert(address.clone(), check);
        }
    }
    for row in &*saved {
        if let Saved::Check(address, _) = row {
            missing.remove(address);
        }
    }
    saved.extend(missing.into_iter().map(|(address, check)| Saved::Check(address, Some(check))));
}

fn read(kind: &str, key: &str, value: &[u8]) -> Option<Saved> {
    Some(match kind {
        "host" => Saved::Host(key.parse().ok()?, Some(decode(value).ok()?)),
        "check" => Saved::Check(key.parse().ok()?, Some(decode(value).ok()?)),
        "incident" => Saved::Incident(incident_key(key)?, Some(decode(value).ok()?)),
        "pending" => Saved::Pending(incident_key(key)?, Some(decode::<Plain<_>>(value).ok()?.value)),
        "origin" => {
            let (host, epoch) = key.split_once(' ')?;
            Saved::Origin(host.parse().ok()?, epoch.to_owned(), decode::<Plain<_>>(value).ok()?.value)
        }
        "order" => Saved::Order(key.to_owned(), Some(decode(value).ok()?)),
        "silence" => Saved::Silence(key.to_owned(), Some(decode(value).ok()?)),
        "maintenance" => Saved::Maintenance(key.to_owned(), Some(decode::<Plain<_>>(value).ok()?.value)),
        "rule" => Saved::Rule(key.to_owned(), Some(decode(value).ok()?)),
        "subscriber" => {
            let (via, name) = key.split_once('\n')?;
            let subscriber = Some(decode(value).ok()?);
            Saved::Subscriber { via: via.to_owned(), name: name.to_owned(), subscriber }
        }
        _ => return None,
    })
}

/// A rule's name may hold anything but control characters, and so may an address.
fn incident_key(text: &str) -> Option<Key> {
    let (rule, address) = text.split_once('\n')?;
    Some(Key { address: address.parse().ok()?, rule: rule.to_owned() })
}

fn incident_text(key: &Key) -> String {
    format!("{}\n{}", key.rule, key.address)
}

/// Keeps one thing, or removes it.
pub fn write(tx: &Transaction<'_>, saved: &Saved) -> rusqlite::Result<()> {
    let (kind, key, value) = match saved {
        Saved::Host(host, value) => ("host", host.to_string(), value.as_ref().map(encode)),
        Saved::Check(address, value) => ("check", address.to_string(), value.as_ref().map(encode)),
        Saved::Incident(key, value) => ("incident", incident_text(key), value.as_ref().map(encode)),
        Saved::Pending(key, value) => ("pending", incident_text(key), value.map(|value| encode(&Plain { value }))),
        Saved::Origin(host, epoch, value) => ("origin", format!("{host} {epoch}"), Some(encode(&Plain { value }))),
        Saved::Order(id, value) => ("order", id.clone(), value.as_ref().map(encode)),
        Saved::Silence(id, value) => ("silence", id.clone(), value.as_ref().map(encode)),
        Saved::Maintenance(name, value) => ("maintenance", name.clone(), value.map(|value| encode(&Plain { value }))),
        Saved::Rule(name, value) => ("rule", name.clone(), value.as_ref().map(encode)),
        Saved::Subscriber { via, name, subscriber } => {
            ("subscriber", format!("{via}\n{name}"), subscriber.as_ref().map(encode))
        }
    };
    match value {
        Some(value) => tx
            .prepare_cached("INSERT OR REPLACE INTO saved (kind, key, value) VALUES (?1, ?2, ?3)")?
            .execute(params![kind, key, value])?,
        None => tx.prepare_cached("DELETE FROM saved WHERE kind = ?1 AND key = ?2")?.execute(params![kind, key])?,
    };
    Ok(())
}

/// How far each feed was taken.
pub fn cursor(db: &Connection, feed: &str) -> rusqlite::Result<Option<Cursor>> {
    let mut statement = db.prepare("SELECT epoch, seq FROM cursor WHERE feed = ?1")?;
    let mut rows = statement.query([feed])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (epoch, seq): (String, u64) = (row.get(0)?, row.get(1)?);
    Ok(epoch.try_into().ok().map(|epoch| Cursor { epoch: Some(epoch), seq }))
}

/// Keeps how far a feed was taken.
pub fn write_cursor(tx: &Transaction<'_>, feed: &str, cursor: &Cursor) -> rusqlite::Result<()> {
    let Some(epoch) = &cursor.epoch else { return Ok(()) };
    tx.prepare_cached("INSERT OR REPLACE INTO cursor VALUES (?1, ?2, ?3)")?.execute(params![
        feed,
        epoch.as_str(),
        cursor.seq
    ])?;
    Ok(())
}

/// How many events each topic severity has had.
pub fn nth(db: &Connection) -> rusqlite::Result<BTreeMap<Severity, u64>> {
    let mut statement = db.prepare("SELECT severity, n FROM nth")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    let mut nth = BTreeMap::new();
    for row in rows {
        let (severity, n) = row?;
        if let Ok(severity) = severity.parse() {
            nth.insert(severity, n);
        }
    }
    Ok(nth)
}

/// Keeps how many events a topic severity has had.
pub fn write_nth(tx: &Transaction<'_>, severity: Severity, n: u64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO nth VALUES (?1, ?2)")?.execute(params![severity.as_str(), n])?;
    Ok(())
}

/// What belongs into one commit beside what the engine asked for: how far each feed was taken, and how many events each topic
/// severity has had.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// By the feed's name.
    pub cursors: BTreeMap<String, Cursor>,
    /// By topic severity.
    pub nth: BTreeMap<Severity, u64>,
}

/// Appends the events to the journal and keeps the state, in one transaction; returns the events as they will be published,
/// and counts them in `progress`.
pub fn record(
    commit: &mut Commit<'_>,
    epoch: &Epoch,
    outputs: &[Output],
    progress: &mut Progress,
) -> rusqlite::Result<Vec<Event>> {
    let mut events = Vec::new();
    // Of several states of one thing only the last is worth writing.
    let mut last: BTreeMap<String, &Saved> = BTreeMap::new();
    for output in outputs {
        match output {
            Output::Event(draft) => {
                let nth = progress.nth.entry(draft.top_severity).or_default();
                *nth += 1;
                let event = stamped(draft, epoch, commit.next_seq(), *nth);
                commit.append(event_topic(event.top_severity, &event.host), encode(&event))?;
                events.push(event);
            }
            Output::Save(saved) => {
                last.insert(saved.identity(), saved);
            }
            Output::Refused(_) | Output::Notice(_) | Output::Ordered(_) => {}
        }
    }
    for saved in last.into_values() {
        write(commit.state(), saved)?;
    }
    for (feed, cursor) in &progress.cursors {
        write_cursor(commit.state(), feed, cursor)?;
    }
    for (severity, nth) in &progress.nth {
        write_nth(commit.state(), *severity, *nth)?;
    }
    Ok(events)
}

/// The event as it is published, in its place of the journal.
pub fn stamped(draft: &Draft, epoch: &Epoch, seq: u64, nth: u64) -> Event {
    let draft = draft.clone();
    Event {
        epoch: epoch.clone(),
        seq,
        nth,
        id: draft.id,
        incident: draft.incident,
        kind: draft.kind,
        host: draft.address.host().clone(),
        service: draft.address.service().clone(),
        unit: draft.address.unit().clone(),
        address: draft.address,
        severity: draft.severity,
        top_severity: draft.top_severity,
        state: draft.state,
        since: draft.since,
        time: draft.time,
        text: draft.text,
        value: draft.value,
        rule: draft.rule,
        step: draft.step,
        duration_ms: draft.duration_ms,
        suppressed_by: draft.suppressed_by,
        data: draft.data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::order::{SavedRule, Subscriber};
    use crate::engine::{SavedCheck, Silence};
    use common::time::UnixMillis;

    #[test]
    fn what_is_written_reads_back_and_what_is_removed_is_gone() {
        let mut db = Connection::open_in_memory().expect("database");
        db.execute_batch(MIGRATIONS[0]).expect("tables");
        let check = SavedCheck {
            up: false,
            since: UnixMillis(1),
            interval_ms: 2,
            text: "t".into(),
            bad_since: UnixMillis(3),
            bad_count: 4,
            last_blip: None,
            changes: vec![UnixMillis(5)],
            flapping: None,
            silent: None,
            from: None,
            votes: Vec::new(),
            unjournaled: Vec::new(),
        };
        let pattern: common::address::Pattern = "w*!port:[ab]".parse().expect("pattern");
        let silence = Silence {
            pattern: pattern.clone(),
            until: UnixMillis(7),
            since: UnixMillis(6),
            author: "ann".into(),
            reason: "disks".into(),
            maintenance: true,
        };
        let rule = SavedRule { rule: "a > 5 WARN".into(), author: "ann".into(), added: UnixMillis(1) };
        let (author, since, confirmed) = ("bob".to_owned(), UnixMillis(2), Some(UnixMillis(3)));
        let subscriber = Subscriber { severity: Severity::Err, pattern, author, since, confirmed };
        let key = Key { address: "w!port:a b (c)".parse().expect("address"), rule: "disk full".into() };
        let rows = vec![
            Saved::Check("w!port:a\u{2003}b".parse().expect("address"), Some(check)),
            Saved::Origin("w".parse().expect("host"), "e1".into(), 7),
            Saved::Pending(key.clone(), Some(UnixMillis(5))),
            Saved::Silence("o 1".into(), Some(silence)),
            Saved::Maintenance("night \u{e9}".into(), Some(UnixMillis(6))),
            Saved::Rule("half full".into(), Some(rule)),
            Saved::Subscriber { via: "irc".into(), name: "#ops x".into(), subscriber: Some(subscriber) },
        ];
        let tx = db.transaction().expect("transaction");
        for row in &rows {
            write(&tx, row).expect("written");
        }
        tx.commit().expect("committed");
        let (read, unreadable) = load(&db).expect("loads");
        assert_eq!(unreadable, 0);
        assert!(rows.iter().all(|row| read.contains(row)), "{read:?}");

        let tx = db.transaction().expect("transaction");
        write(&tx, &Saved::Pending(key, None)).expect("removed");
        tx.commit().expect("committed");
        assert_eq!(load(&db).expect("loads").0.len(), 6);
    }

    /// An incident before anything was suppressed.
    #[derive(Serialize)]
    struct Earlier<'a> {
        id: &'a str,
        top_severity: Severity,
        since: UnixMillis,
        text: &'a str,
        value: Option<f64>,
    }

    #[test]
    fn what_an_earlier_cprocessd_kept_is_read() {
        let addresses = vec!["w!port:a".to_owned()];
        let Some(Saved::Order(_, Some(order))) = read("order", "o1", &encode(&Plain { value: &addresses })) else {
            panic!("no order")
        };
        assert_eq!((order.addresses, order.text.as_str(), order.n), (addresses, "", 0));
        let id = "6d2bd866-4c7d-561b-909a-1dc984f55b4e";
        let earlier = Earlier { id, top_severity: Severity::Err, since: UnixMillis(1), text: "refused", value: None };
        let Some(Saved::Incident(_, Some(incident))) = read("incident", "check\nw!port:a", &encode(&earlier)) else {
            panic!("no incident")
        };
        assert!(incident.suppressed_by.is_empty() && incident.ack.is_none() && incident.steps == 0);
        let (pattern, author, since) = ("*".parse().expect("pattern"), "bob".to_owned(), UnixMillis(2));
        let kept = Subscriber { severity: Severity::Err, pattern, author, since, confirmed: None };
        let mut fields = common::query::to_value(&kept);
        let rmpv::Value::Map(map) = &mut fields else { panic!("no map: {fields}") };
        map.retain(|(key, _)| key.as_str() != Some("confirmed"));
        let subscriber = Some(kept);
        let saved = Saved::Subscriber { via: "mail".into(), name: "a b".into(), subscriber };
        assert_eq!(read("subscriber", "mail\na b", &encode(&fields)), Some(saved));
    }

    #[test]
    fn what_is_open_keeps_a_check_to_close_it() {
        let text = |text: &str| text.parse::<Address>().expect("address");
        let incident = |address: &Address, rule: &str| {
            let id = common::message::IncidentId::new(address, rule, UnixMillis(7));
            let id = &id.to_string();
            let fields =
                Earlier { id, top_severity: Severity::Err, since: UnixMillis(7), text: "refused", value: None };
            read("incident", &format!("{rule}\n{address}"), &encode(&fields)).expect("an incident")
        };
        let lost = text("w!port:www");
        let alarm = text("w!machine.disk:/.free");
        let mut saved =
            vec![incident(&lost, "check"), incident(&alarm, "disk full"), incident(&text("w!alive:"), "check")];
        complete(&mut saved);
        let Some(Saved::Check(address, Some(check))) = saved.get(3) else { panic!("{saved:?}") };
        assert_eq!((Address::from(address.clone()), check.up, check.since), (lost, false, UnixMillis(7)));
        complete(&mut saved);
        assert_eq!(saved.len(), 4, "what is there is enough");
    }

    #[test]
    fn a_row_that_does_not_decode_is_counted_and_the_others_load() {
        let db = Connection::open_in_memory().expect("database");
        db.execute_batch(MIGRATIONS[0]).expect("tables");
        db.execute_batch("INSERT INTO saved VALUES ('host', 'w', x'ff'), ('eclipse', 'x', x'80')").expect("rows");
        assert_eq!(load(&db).expect("loads"), (vec![], 2));
    }
}
