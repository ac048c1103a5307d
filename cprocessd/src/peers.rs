//! Orders that people gave at other cprocessds, DESIGN §6: a silence given to one of two holds at both.
//!
//! Each order is an event that carries it whole, so a peer's stream is followed as any consumer follows it, and the engine
//! knows an order by its id whichever way it comes. A peer that was away is caught up from its journal. Where that no longer
//! reaches back, what holds at the peer now is asked for instead: its silences, the rules and the subscribers that were
//! ordered. What was taken back meanwhile cannot be told from what never was, and stays.

use common::counters::Counters;
use common::message::{AlarmRow, Event, EventId, Kind, Request, SilenceRow, SubscriberRow, decode};
use common::query::{AskError, ask_for};
use common::socket::Requester;
use common::subscriber::{Cursor, Delivery, MAX_STREAM_STATE_BYTES, Publication, Start, follow};
use common::time::UnixMillis;
use cprocessd::config::PEER_PREFIX;
use cprocessd::engine::Engine;
use cprocessd::engine::order::{Command, Order};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Deliveries of all peers that wait for us. Beyond it their journals keep them.
const WAITING: usize = 64;
/// How long a peer may take for a list.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two attempts to ask one that does not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Orders of a peer, up to a place in its journal.
pub(crate) struct FromPeer {
    /// [`name`] of the peer.
    pub(crate) peer: String,
    /// How far its journal was read.
    pub(crate) cursor: Cursor,
    /// What was ordered there, in order.
    pub(crate) orders: Vec<Order>,
}

/// What a peer's cursor is kept under. A feed is kept under its path, and none may begin so.
pub(crate) fn name(peer: &Path) -> String {
    format!("{PEER_PREFIX}{}", peer.display())
}

/// One task a peer, all into one inbox.
pub(crate) fn follow_all(
    peers: &[PathBuf],
    cursors: &BTreeMap<String, Cursor>,
    counters: &Counters,
) -> mpsc::Receiver<FromPeer> {
    let (inbox, orders) = mpsc::channel(WAITING);
    for peer in peers {
        let name = name(peer);
        let start = cursors.get(&name).map_or(Start::Snapshot, |cursor| Start::After(cursor.clone()));
        let publication = Publication {
            publisher: peer.clone(),
            questions: peer.with_file_name("query"),
            prefixes: vec!["event."],
            // Only its place in the journal is wanted.
            unwanted: &["hosts", "checks", "incidents"],
            max_answer_bytes: MAX_STREAM_STATE_BYTES,
        };
        let questions = Requester::new(&publication.questions).at_most(MAX_STREAM_STATE_BYTES);
        let (out, followed) = mpsc::channel(16);
        let counters = counters.clone();
        tokio::spawn(async move {
            if let Err(error) = follow(publication, start, counters, out).await {
                panic!("cannot follow a peer: {error}");
            }
        });
        tokio::spawn(hand_on(name, questions, followed, inbox.clone()));
    }
    orders
}

/// Until nobody listens any more.
async fn hand_on(
    peer: String,
    mut questions: Requester,
    mut followed: mpsc::Receiver<Delivery>,
    inbox: mpsc::Sender<FromPeer>,
) {
    while let Some(delivery) = followed.recv().await {
        let (cursor, orders) = match delivery {
            Delivery::Entry { cursor, payload, .. } => (cursor, order_of(&payload).into_iter().collect()),
            Delivery::Snapshot { cursor, .. } => (cursor, learn(&peer, &mut questions).await),
            // Whoever begins with a snapshot is never told of a loss.
            Delivery::Live { .. } | Delivery::Beat(_) | Delivery::Lost { .. } => continue,
        };
        if inbox.send(FromPeer { peer: peer.clone(), cursor, orders }).await.is_err() {
            return;
        }
    }
}

/// The order that an event was. Most are not.
fn order_of(payload: &[u8]) -> Option<Order> {
    let event: Event = decode(payload).ok()?;
    match event.kind {
        Kind::Order | Kind::Silence | Kind::Ack => Order::from_event(&event),
        _ => None,
    }
}

/// What holds at the peer by order, as the orders that make it so. Asked until it answers; meanwhile its events wait.
async fn learn(peer: &str, questions: &mut Requester) -> Vec<Order> {
    let mut said = false;
    loop {
        match ask_lists(questions).await {
            Ok(orders) => {
                tracing::info!("{} orders hold at {peer}", orders.len());
                return orders;
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!("{peer} does not say which orders hold there, will retry: {error}");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn ask_lists(questions: &mut Requester) -> Result<Vec<Order>, AskError> {
    let silences: Vec<SilenceRow> = ask_for(questions, &Request::query("silence-list"), ANSWER_TIMEOUT).await?;
    let rules: Vec<AlarmRow> = ask_for(questions, &Request::query("alarm-list"), ANSWER_TIMEOUT).await?;
    let subscribers: Vec<SubscriberRow> =
        ask_for(questions, &Request::query("subscriber-list"), ANSWER_TIMEOUT).await?;
    let silences = silences.into_iter().filter_map(silence);
    let rules = rules.into_iter().filter_map(rule);
    Ok(silences.chain(rules).chain(subscribers.into_iter().filter_map(subscriber)).collect())
}

/// The order behind a row, if there is one that may still be given.
fn checked(request: &Request) -> Option<Order> {
    Order::read(request, UnixMillis::now()).ok()
}

/// Under its own id.
fn silence(row: SilenceRow) -> Option<Order> {
    checked(&Request {
        id: Some(row.id),
        author: Some(row.author),
        pattern: Some(row.pattern),
        until: Some(row.until),
        reason: Some(row.reason),
        ..Request::order(if row.maintenance { "maintenance" } else { "silence" })
    })
}

/// A rule that was ordered. Lists do not have the id of the order, so it gets one that is the same whenever it is learned.
fn rule(row: AlarmRow) -> Option<Order> {
    let (author, added) = (row.author?, row.added?);
    checked(&Request {
        id: Some(learned_id(&format!("{} {author} {}", row.name, added.0), "rule")),
        author: Some(author),
        name: Some(row.name),
        rule: Some(row.rule),
        ..Request::order("rule-add")
    })
}

fn subscriber(row: SubscriberRow) -> Option<Order> {
    checked(&Request {
        id: Some(learned_id(&format!("{} {} {} {}", row.name, row.via, row.author, row.since.0), "subscriber")),
        author: Some(row.author),
        name: Some(row.name),
        via: Some(row.via),
        severity: Some(row.severity),
        pattern: Some(row.pattern),
        ..Request::order("subscriber-add")
    })
}

fn learned_id(of: &str, what: &str) -> String {
    EventId::of_origin(of, what).to_string()
}

/// What need not, or must not, be carried out here: another daemon's configuration, and what is so already.
pub(crate) fn is_only_for_its_own(order: &Order, engine: &Engine) -> bool {
    match &order.command {
        Command::Reload => true,
        Command::RuleAdd { name, rule } => {
            let has = |row: &AlarmRow| row.author.is_some() && row.name == *name && row.rule == rule.trim();
            engine.alarm_list().iter().any(has)
        }
        _ => false,
    }
}
