//! What a notifier keeps: how far each stream was read, what each recipient was told, and the outbox, which is the ledger.

use crate::database::{self, Aside, DatabaseError};
use crate::message::{Delivery, Epoch, ErrorBody, ErrorCode, Event, EventId, LedgerRow, Request, decode, encode};
use crate::notifier::MessageId;
use crate::notifier::outbox::{Age, Change, Item};
use crate::notifier::pace::{Counted, LONGEST_WINDOW, Sent};
use crate::notifier::subscribers::{Standing, Subscriber};
use crate::notifier::teller::{Key, Now, Role, Told};
use crate::severity::Severity;
use crate::subscriber::Cursor;
use crate::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, named_params, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// One migration a version.
const MIGRATIONS: [&str; 5] = [
    "
    CREATE TABLE outbox (id TEXT NOT NULL) STRICT;
    CREATE TABLE cursor (publisher TEXT PRIMARY KEY, epoch TEXT, seq INTEGER NOT NULL) STRICT;
    CREATE TABLE recipient (name TEXT PRIMARY KEY, selection TEXT NOT NULL) STRICT;
    CREATE TABLE told (
        recipient TEXT NOT NULL, address TEXT NOT NULL, rule TEXT NOT NULL,
        incident TEXT NOT NULL, open INTEGER NOT NULL, since INTEGER NOT NULL, severity TEXT NOT NULL,
        closed_by TEXT, message TEXT,
        PRIMARY KEY (recipient, address, rule)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE item (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        recipient TEXT NOT NULL, lane TEXT NOT NULL, role TEXT NOT NULL,
        event TEXT NOT NULL, incident TEXT NOT NULL, payload BLOB NOT NULL,
        queued INTEGER NOT NULL, state TEXT NOT NULL, changed INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, again INTEGER NOT NULL DEFAULT 0,
        message TEXT, result TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX unfinished ON item (id) WHERE state IN ('waiting', 'sending');
    CREATE INDEX item_event ON item (recipient, event);
    CREATE INDEX item_incident ON item (incident);
",
    "
    ALTER TABLE told ADD COLUMN step INTEGER NOT NULL DEFAULT 0;
",
    "
    CREATE TABLE skipped (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        event TEXT NOT NULL UNIQUE, incident TEXT NOT NULL, payload BLOB NOT NULL, at INTEGER NOT NULL, whys TEXT NOT NULL
    ) STRICT;
    CREATE INDEX skipped_incident ON skipped (incident);
",
    // Each attempt that counts for a bucket or a cap. `cost` is in millionths; while it is under way, `done` is 0.
    "
    CREATE TABLE sent (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL, message TEXT NOT NULL, at INTEGER NOT NULL,
        cost INTEGER NOT NULL, last INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX sent_at ON sent (at);
    CREATE INDEX item_message ON item (message);
    CREATE INDEX sent_under_way ON sent (message) WHERE done = 0;
",
    "
    CREATE TABLE subscriber (
        name TEXT PRIMARY KEY, severity TEXT NOT NULL, pattern TEXT NOT NULL, author TEXT NOT NULL, since INTEGER NOT NULL,
        standing TEXT NOT NULL, removed INTEGER, removed_by TEXT, asked INTEGER
    ) STRICT;
",
];
/// Finished items are kept for this long,
const KEPT: Duration = Duration::from_hours(90 * 24);
/// and at most so many.
const MAX_KEPT: i64 = 500_000;
/// And events that somebody was not told of.
const MAX_SKIPPED: i64 = 100_000;
/// Of a result, with all that became known later.
const MAX_RESULT_CHARS: i64 = 2000;
/// `ledger` without a limit.
const DEFAULT_LIMIT: u64 = 100;
/// And at most.
const MAX_LIMIT: u64 = 10_000;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Write {
    /// A new item.
    Tell { recipient: String, lane: String, role: Role, event: Arc<Event> },
    /// What a recipient knows.
    Save { recipient: String, key: Key, told: Told },
    /// Somebody is not told of this, each with the reason.
    Skip { event: Arc<Event>, whys: Vec<(String, String)> },
    /// What no recipient needs to know any more.
    Forget { recipient: String, key: Key },
    /// With which selection somebody has heard of all that is open; without one, that they are gone.
    Selects { recipient: String, selection: Option<String> },
    /// How far a stream was read.
    Cursor { publisher: String, cursor: Cursor },
    /// These items are in a message that is sent now.
    Sending { items: Vec<i64>, message: MessageId, again: bool },
    /// What became of an item.
    Change(Change),
    /// Everybody is told that the database was set aside.
    ToldOfDamage,
    /// What counts for a bucket or a cap.
    Count(Count),
    /// What became known of a message after it was accepted.
    Note { message: MessageId, words: String },
    /// What is known of a subscriber; without it, nothing needs to be.
    Subscriber { name: String, subscriber: Option<Subscriber> },
}

/// What is to be written of messages that count for a bucket or a cap.
#[derive(Debug)]
pub(crate) enum Count {
    /// A message goes to somebody who is told at a pace.
    Sending { account: String, message: MessageId, cost: u64, last: bool },
    /// Its outcome.
    Done { message: MessageId, counted: Counted },
    /// What was under way when we stopped may have been accepted until now, and nothing was sent later than now.
    Started,
    /// The wall clock jumped by so many milliseconds, and what was sent before that did not become older or younger.
    ClockMoved { by: i64 },
}

/// An item that was written, for the outbox.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) recipient: String,
    pub(crate) item: Item,
}

/// What was there when we started.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) cursors: BTreeMap<String, Cursor>,
    pub(crate) selections: Vec<(String, String)>,
    pub(crate) told: Vec<(String, Key, Told)>,
    pub(crate) waiting: Vec<Written>,
    /// Sent, but nobody knows with what outcome: those of one message together.
    pub(crate) unknown: Vec<(String, Vec<Item>)>,
    /// What counts for buckets and caps, by account, in the order of time.
    pub(crate) sent: Vec<(String, Sent)>,
    /// Rows that we cannot read.
    pub(crate) unreadable: u64,
    /// Earlier databases that were damaged, and of which nobody was told.
    pub(crate) untold: Vec<Aside>,
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    path: PathBuf,
    id: Uuid,
}

impl Store {
    /// Opens or creates the database of `daemon` in `dir`.
    pub fn open(dir: &Path, daemon: &str) -> Result<Self, DatabaseError> {
        let path = dir.join(format!("{daemon}.db"));
        let db = database::open(&path, &[("notifier", &MIGRATIONS)])?;
        let sqlite = |source| DatabaseError::Sqlite { path: path.clone(), source };
        let saved: Option<String> =
            db.query_row("SELECT id FROM outbox", [], |row| row.get(0)).optional().map_err(sqlite)?;
        let id = match saved.and_then(|text| Uuid::try_parse(&text).ok()) {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4();
                db.execute("INSERT INTO outbox VALUES (?1)", [id.to_string()]).map_err(sqlite)?;
                id
            }
        };
        Ok(Self { db, path, id })
    }

    /// An empty one that lasts as long as it is held, named by `id`.
    pub fn in_memory(id: Uuid) -> Result<Self, DatabaseError> {
        let path = PathBuf::from(":memory:");
        let db = database::in_memory(&[("notifier", &MIGRATIONS)])?;
        db.execute("INSERT INTO outbox VALUES (?1)", [id.to_string()])
            .map_err(|source| DatabaseError::Sqlite { path: path.clone(), source })?;
        Ok(Self { db, path, id })
    }

    /// The name of this outbox.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// All that matters after a restart.
    pub(crate) fn load(&self, now: Now) -> Result<Saved, DatabaseError> {
        let load = || {
            let mut saved = Saved { untold: database::untold(&self.db)?, ..Saved::default() };
            let mut statement = self.db.prepare("SELECT publisher, epoch, seq FROM cursor")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let epoch: Option<String> = row.get(1)?;
                let cursor = Cursor { epoch: epoch.and_then(|text| text.try_into().ok()), seq: row.get(2)? };
                saved.cursors.insert(row.get(0)?, cursor);
            }
            let mut statement = self.db.prepare("SELECT name, selection FROM recipient")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            saved.selections = rows.collect::<rusqlite::Result<_>>()?;
            let mut statement = self.db.prepare("SELECT * FROM told")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                match told(row) {
                    Some(told) => saved.told.push(told),
                    None => saved.unreadable += 1,
                }
            }
            let mut statement = self.db.prepare(
                "SELECT account, message, min(CASE done WHEN 0 THEN ?1 ELSE at END, ?1) AS at, cost, last FROM sent
                 WHERE at > ?2 OR done = 0 ORDER BY 3, id",
            )?;
            let mut rows = statement.query([now.wall.0, now.wall.minus(LONGEST_WINDOW).0])?;
            while let Some(row) = rows.next()? {
                match sent(row, now) {
                    Some(sent) => saved.sent.push(sent),
                    None => saved.unreadable += 1,
                }
            }
            let mut statement = self.db.prepare(
                "SELECT id, recipient, role, payload, queued, state, message FROM item
                 WHERE state IN ('waiting', 'sending') ORDER BY id",
            )?;
            let mut rows = statement.query([])?;
            let mut unknown: BTreeMap<(String, String), Vec<Item>> = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let Some(written) = unfinished(row, now) else {
                    saved.unreadable += 1;
                    continue;
                };
                let message: Option<String> = row.get("message")?;
                match (row.get::<_, String>("state")?.as_str(), message) {
                    ("sending", Some(message)) => {
                        unknown.entry((written.recipient, message)).or_default().push(written.item);
                    }
                    _ => saved.waiting.push(written),
                }
            }
            saved.unknown = unknown.into_iter().map(|((recipient, _), items)| (recipient, items)).collect();
            saved.unknown.sort_by_key(|(_, items)| items[0].id);
            Ok(saved)
        };
        load().map_err(|source| self.error(source))
    }

    /// What was known of subscribers, and how many rows cannot be read.
    pub(crate) fn subscribers(&self) -> Result<(BTreeMap<String, Subscriber>, u64), DatabaseError> {
        let read = || {
            let mut statement = self.db.prepare("SELECT * FROM subscriber")?;
            let mut rows = statement.query([])?;
            let (mut subscribers, mut unreadable) = (BTreeMap::new(), 0);
            while let Some(row) = rows.next()? {
                match subscriber(row) {
                    Some((name, subscriber)) => drop(subscribers.insert(name, subscriber)),
                    None => unreadable += 1,
                }
            }
            Ok((subscribers, unreadable))
        };
        read().map_err(|source| self.error(source))
    }

    /// Writes all of it or nothing, and makes it last. Returns the items that are new.
    pub(crate) fn commit(&mut self, writes: &[Write], now: Now) -> Result<Vec<Written>, DatabaseError> {
        let mut commit = || {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut written = Vec::new();
            for write in writes {
                written.extend(perform(&tx, write, now)?);
            }
            tx.commit()?;
            Ok(written)
        };
        commit().map_err(|source| DatabaseError::Sqlite { path: self.path.clone(), source })
    }

    /// Drops what is old from the ledger.
    pub(crate) fn clean(&self, now: UnixMillis) -> Result<(), DatabaseError> {
        let clean = || {
            let finished = "state NOT IN ('waiting', 'sending')";
            self.db.execute(&format!("DELETE FROM item WHERE {finished} AND changed < ?1"), [now.minus(KEPT).0])?;
            self.db.execute(
                &format!("DELETE FROM item WHERE {finished} AND id <= (SELECT max(id) FROM item) - ?1"),
                [MAX_KEPT],
            )?;
            self.db.execute(
                "DELETE FROM skipped WHERE at < ?1 OR id <= (SELECT max(id) FROM skipped) - ?2",
                [now.minus(KEPT).0, MAX_SKIPPED],
            )?;
            self.db.execute("DELETE FROM sent WHERE at < ?1 AND done = 1", [now.minus(LONGEST_WINDOW).0])
        };
        clean().map(drop).map_err(|source| self.error(source))
    }

    /// The newest item, 0 before the first.
    pub(crate) fn newest(&self) -> Result<u64, DatabaseError> {
        self.db
            .query_row("SELECT ifnull(max(id), 0) FROM item", [], |row| row.get(0))
            .map_err(|source| self.error(source))
    }

    /// The answer to `ledger {who?, incident?, since?, after?, limit?, all?}`: the newest that match, in the order of selection;
    /// with `after` the oldest after that item, and without it with `all` also what was never selected.
    pub(crate) fn ledger(&self, request: &Request) -> Result<Vec<LedgerRow>, ErrorBody> {
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
        let order = if request.after.is_some() { "ASC" } else { "DESC" };
        let read = || {
            // Words of their own for an incident, or its index would not serve: few rows of very many.
            let incident = if request.incident.is_some() { "incident = :incident" } else { ":incident IS NULL" };
            let mut statement = self.db.prepare_cached(&format!(
                "SELECT * FROM item WHERE (:who IS NULL OR recipient = :who) AND {incident}
                 AND queued >= :since AND id > :after ORDER BY id {order} LIMIT :limit"
            ))?;
            let mut rows = statement.query(named_params! {
                ":who": request.who, ":incident": request.incident, ":since": request.since.map_or(i64::MIN, |since| since.0),
                ":after": request.after.unwrap_or(0).min(i64::MAX as u64), ":limit": limit,
            })?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.extend(ledger_row(row)?);
            }
            Ok(found)
        };
        let failed = |source| ErrorBody::new(ErrorCode::Failed, self.error(source).to_string());
        let mut found: Vec<LedgerRow> = read().map_err(failed)?;
        if request.all == Some(true) && request.after.is_none() {
            found.extend(self.skipped(request, limit).map_err(failed)?);
            found.sort_by_key(|row| (row.queued, row.item));
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            found.drain(..found.len().saturating_sub(most));
        } else {
            found.sort_by_key(|row| row.item);
        }
        Ok(found)
    }

    /// The newest that somebody was not told of, and why.
    fn skipped(&self, request: &Request, limit: u64) -> rusqlite::Result<Vec<LedgerRow>> {
        let incident = if request.incident.is_some() { "incident = :incident" } else { ":incident IS NULL" };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT payload, at, whys FROM skipped WHERE {incident} AND at >= :since ORDER BY id DESC"
        ))?;
        let mut rows = statement.query(named_params! {
            ":incident": request.incident, ":since": request.since.map_or(i64::MIN, |since| since.0),
        })?;
        // Of each event, the newest first.
        let mut found: Vec<Vec<LedgerRow>> = Vec::new();
        let mut count = 0;
        while count < limit
            && let Some(row) = rows.next()?
        {
            // As with items, only a damaged file has one that cannot be read.
            let Ok(event) = decode::<Event>(&row.get::<_, Vec<u8>>("payload")?) else { continue };
            let at = UnixMillis(row.get("at")?);
            let whys: Vec<(String, String)> = serde_json::from_str(&row.get::<_, String>("whys")?).unwrap_or_default();
            let wanted = whys.into_iter().filter(|(who, _)| request.who.as_ref().is_none_or(|wanted| wanted == who));
            let rows = wanted.map(|(who, result)| LedgerRow {
                item: 0,
                who,
                via: String::new(),
                queued: at,
                kind: event.kind,
                address: event.address.clone(),
                severity: event.severity,
                incident: event.incident,
                event: event.id,
                text: event.text.clone(),
                state: Delivery::Skipped,
                changed: at,
                attempts: 0,
                again: 0,
                message: None,
                result,
            });
            found.push(rows.collect());
            count += found.last().map_or(0, Vec::len) as u64;
        }
        Ok(found.into_iter().rev().flatten().collect())
    }

    fn error(&self, source: rusqlite::Error) -> DatabaseError {
        DatabaseError::Sqlite { path: self.path.clone(), source }
    }
}

fn perform(tx: &Transaction<'_>, write: &Write, now: Now) -> rusqlite::Result<Option<Written>> {
    let wall = now.wall.0;
    match write {
        Write::Tell { recipient, lane, role, event } => {
            let id = event.id.to_string();
            // Told-state recognises copies of beginnings and ends; the rest is recognised by its id.
            if *role == Role::Once {
                let had = tx
                    .prepare_cached("SELECT 1 FROM item WHERE recipient = ?1 AND event = ?2")?
                    .exists(params![recipient, id])?;
                if had {
                    return Ok(None);
                }
            }
            tx.prepare_cached(
                "INSERT INTO item (recipient, lane, role, event, incident, payload, queued, state, changed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'waiting', ?7)",
            )?
            .execute(params![
                recipient,
                lane,
                role_word(*role),
                id,
                event.incident.to_string(),
                encode(&**event),
                wall
            ])?;
            let (age_at, lasts_since) = (Age::at(now.monotonic), event.since.min(now.wall));
            let item = Item { id: tx.last_insert_rowid(), role: *role, event: event.clone(), age_at, lasts_since };
            return Ok(Some(Written { recipient: recipient.clone(), item }));
        }
        Write::Save { recipient, key, told } => {
            tx.prepare_cached("INSERT OR REPLACE INTO told VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
                .execute(params![
                    recipient,
                    key.address.to_string(),
                    key.rule,
                    told.incident.to_string(),
                    told.open,
                    told.since.0,
                    told.severity.as_str(),
                    told.closed_by,
                    told.message.map(|message| message.to_string()),
                    told.step,
                ])?;
        }
        Write::Skip { event, whys } => {
            // A copy, of another publisher or after a restart, says nothing new.
            tx.prepare_cached(
                "INSERT OR IGNORE INTO skipped (event, incident, payload, at, whys) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                event.id.to_string(),
                event.incident.to_string(),
                encode(&**event),
                wall,
                serde_json::to_string(whys).expect("texts are written into memory"),
            ])?;
        }
        Write::Forget { recipient, key } => {
            tx.prepare_cached("DELETE FROM told WHERE recipient = ?1 AND address = ?2 AND rule = ?3")?
                .execute(params![recipient, key.address.to_string(), key.rule])?;
        }
        Write::Selects { recipient, selection: Some(selection) } => {
            tx.prepare_cached("INSERT OR REPLACE INTO recipient VALUES (?1, ?2)")?.execute([recipient, selection])?;
        }
        Write::Selects { recipient, selection: None } => {
            tx.prepare_cached("DELETE FROM recipient WHERE name = ?1")?.execute([recipient])?;
        }
        Write::Cursor { publisher, cursor } => {
            tx.prepare_cached("INSERT OR REPLACE INTO cursor VALUES (?1, ?2, ?3)")?.execute(params![
                publisher,
                cursor.epoch.as_ref().map(Epoch::as_str),
                cursor.seq
            ])?;
        }
        Write::Sending { items, message, again } => {
            let mut statement = tx.prepare_cached(
                "UPDATE item SET state = 'sending', changed = ?2, message = ?3, attempts = attempts + 1, again = again + ?4
                 WHERE id = ?1",
            )?;
            for item in items {
                statement.execute(params![item, wall, message.to_string(), again])?;
            }
        }
        Write::ToldOfDamage => database::forget_untold(tx)?,
        Write::Note { message, words } => {
            tx.prepare_cached(
                "UPDATE item SET result = substr(result || '; ' || ?2, 1, ?3) WHERE message = ?1 AND state = 'sent'",
            )?
            .execute(params![message.to_string(), words, MAX_RESULT_CHARS])?;
        }
        Write::Subscriber { name, subscriber } => perform_subscriber(tx, name, subscriber.as_ref())?,
        Write::Count(count) => perform_count(tx, count, wall)?,
        Write::Change(change) => record(tx, change, wall)?,
    }
    Ok(None)
}

fn perform_subscriber(tx: &Transaction<'_>, name: &str, subscriber: Option<&Subscriber>) -> rusqlite::Result<()> {
    let Some(Subscriber { severity, pattern, author, since, standing, removed, asked }) = subscriber else {
        tx.prepare_cached("DELETE FROM subscriber WHERE name = ?1")?.execute([name])?;
        return Ok(());
    };
    tx.prepare_cached("INSERT OR REPLACE INTO subscriber VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(
        params![
            name,
            severity.as_str(),
            pattern.as_str(),
            author,
            since.0,
            standing.as_str(),
            removed.map(|(removed, _)| removed.0),
            removed.map(|(_, by)| by.to_string()),
            asked.map(|asked| asked.0),
        ],
    )?;
    Ok(())
}

/// What became of an item.
fn record(tx: &Transaction<'_>, change: &Change, wall: i64) -> rusqlite::Result<()> {
    let set_state = |item: i64, state: &str, result: &str| {
        tx.prepare_cached("UPDATE item SET state = ?2, changed = ?3, result = ?4 WHERE id = ?1")?
            .execute(params![item, state, wall, result])
    };
    match change {
        Change::Sent { item, words } => set_state(*item, "sent", words)?,
        Change::Waits { item, why } | Change::Held { item, why } => set_state(*item, "waiting", why)?,
        Change::Unknown { item, why } => set_state(*item, "sending", &format!("outcome unknown: {why}"))?,
        Change::Failed { item, why } => set_state(*item, "failed", why)?,
        Change::Dropped { item, why } => set_state(*item, "dropped", why)?,
        Change::Begins { item } => tx
            .prepare_cached("UPDATE item SET role = ?2 WHERE id = ?1")?
            .execute(params![item, role_word(Role::Begin)])?,
        // The told-state is written by itself.
        Change::Untold { .. } => 0,
    };
    Ok(())
}

fn perform_count(tx: &Transaction<'_>, count: &Count, wall: i64) -> rusqlite::Result<()> {
    match count {
        Count::Sending { account, message, cost, last } => {
            tx.prepare_cached("INSERT INTO sent (account, message, at, cost, last) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![account, message.to_string(), wall, i64::try_from(*cost).unwrap_or(i64::MAX), last])?;
        }
        Count::Done { message, counted: Counted::Cost(cost) } => {
            tx.prepare_cached("UPDATE sent SET done = 1, at = ?2, cost = ?3 WHERE message = ?1 AND done = 0")?
                .execute(params![message.to_string(), wall, i64::try_from(*cost).unwrap_or(i64::MAX)])?;
        }
        Count::Done { message, counted: Counted::Not } => {
            tx.prepare_cached("DELETE FROM sent WHERE message = ?1 AND done = 0")?.execute([message.to_string()])?;
        }
        Count::Started => {
            tx.execute("UPDATE sent SET done = 1, at = ?1 WHERE done = 0 OR at > ?1", [wall])?;
        }
        Count::ClockMoved { by } => {
            tx.execute(
                "UPDATE sent SET at = at + ?1 WHERE at > ?2",
                [*by, UnixMillis(wall.saturating_sub(*by)).minus(LONGEST_WINDOW).0],
            )?;
        }
    }
    Ok(())
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Begin => "begin",
        Role::Worse => "worse",
        Role::End => "end",
        Role::Once => "once",
    }
}

fn told(row: &Row<'_>) -> Option<(String, Key, Told)> {
    let text = |column: &str| row.get::<_, String>(column).ok();
    let key = Key { address: text("address")?.parse().ok()?, rule: text("rule")? };
    let told = Told {
        incident: text("incident")?.try_into().ok()?,
        open: row.get("open").ok()?,
        since: UnixMillis(row.get("since").ok()?),
        severity: text("severity")?.parse::<Severity>().ok()?,
        step: row.get("step").ok()?,
        closed_by: row.get("closed_by").ok()?,
        message: row.get::<_, Option<String>>("message").ok()?.as_deref().and_then(MessageId::parse),
    };
    Some((text("recipient")?, key, told))
}

fn subscriber(row: &Row<'_>) -> Option<(String, Subscriber)> {
    let text = |column: &str| row.get::<_, String>(column).ok();
    let time = |column: &str| row.get::<_, Option<i64>>(column).ok().map(|time| time.map(UnixMillis));
    let removed_by: Option<EventId> = text("removed_by").and_then(|id| id.try_into().ok());
    let subscriber = Subscriber {
        severity: text("severity")?.parse().ok()?,
        pattern: text("pattern")?.parse().ok()?,
        author: text("author")?,
        since: time("since")??,
        standing: Standing::parse(&text("standing")?)?,
        removed: time("removed")?.zip(removed_by),
        asked: time("asked")?,
    };
    Some((text("name")?, subscriber))
}

fn sent(row: &Row<'_>, now: Now) -> Option<(String, Sent)> {
    let sent = Sent {
        message: MessageId::parse(&row.get::<_, String>("message").ok()?)?,
        at: age_at(UnixMillis(row.get("at").ok()?), now),
        cost: u64::try_from(row.get::<_, i64>("cost").ok()?).ok()?,
        last: row.get("last").ok()?,
    };
    Some((row.get("account").ok()?, sent))
}

/// A moment of the wall clock on ours; one to come is now.
fn age_at(at: UnixMillis, now: Now) -> Age {
    let age = i64::try_from(now.wall.millis_since(at)).unwrap_or(i64::MAX);
    Age(Age::at(now.monotonic).0.saturating_sub(age))
}

fn unfinished(row: &Row<'_>, now: Now) -> Option<Written> {
    let role = match row.get::<_, String>("role").ok()?.as_str() {
        "begin" => Role::Begin,
        "worse" => Role::Worse,
        "end" => Role::End,
        _ => Role::Once,
    };
    let event: Event = decode(&row.get::<_, Vec<u8>>("payload").ok()?).ok()?;
    let queued = UnixMillis(row.get("queued").ok()?);
    let (age_at, lasts_since) = (age_at(queued, now), event.since.min(queued));
    let item = Item { id: row.get("id").ok()?, role, event: Arc::new(event), age_at, lasts_since };
    Some(Written { recipient: row.get("recipient").ok()?, item })
}

/// A row whose event cannot be read, which only a damaged file has, is left out.
fn ledger_row(row: &Row<'_>) -> rusqlite::Result<Option<LedgerRow>> {
    let Ok(event) = decode::<Event>(&row.get::<_, Vec<u8>>("payload")?) else { return Ok(None) };
    let state = match row.get::<_, String>("state")?.as_str() {
        "waiting" => Delivery::Waiting,
        "sending" => Delivery::Sending,
        "sent" => Delivery::Sent,
        "failed" => Delivery::Failed,
        "dropped" => Delivery::Dropped,
        _ => Delivery::Other,
    };
    Ok(Some(LedgerRow {
        item: row.get("id")?,
        who: row.get("recipient")?,
        via: row.get("lane")?,
        queued: UnixMillis(row.get("queued")?),
        kind: event.kind,
        address: event.address,
        severity: event.severity,
        incident: event.incident,
        event: event.id,
        text: event.text,
        state,
        changed: UnixMillis(row.get("changed")?),
        attempts: row.get("attempts")?,
        again: row.get("again")?,
        message: row.get("message")?,
        result: row.get("result")?,
    }))
}
