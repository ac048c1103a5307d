//! Orders that people gave at other cprocessds, DESIGN §6: a silence given to one of two holds at both.
//!
//! Each order is an event that carries it whole, so a peer's stream is followed as any consumer follows it, and the engine
//! knows an order by its id whichever way it comes. A peer that was away is caught up from its journal. Where that no longer
//! reaches back, what holds at the peer now is asked for instead: its silences, the rules and the subscribers that were
//! ordered. What was taken back meanwhile cannot be told from what never was, and stays.

use common::counters::Counters;
use common::message::{
    AlarmRow, ErrorBody, ErrorCode, Event, EventId, Kind, Request, SilenceRow, SubscriberRow, decode,
};
use common::query::{AskError, ask_for};
use common::socket::Requester;
use common::subscriber::{Cursor, Delivery, MAX_STREAM_STATE_BYTES, Publication, Start, follow};
use common::time::UnixMillis;
use cprocessd::config::PEER_PREFIX;
use cprocessd::engine::Engine;
use cprocessd::engine::order::{Command, Order};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Deliveries of all peers that wait for us. Beyond it their journals keep them.
const WAITING: usize = 64;
/// How long a peer may take for a list.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two attempts to ask one that does not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long an order waits for what it is about, and how many may. Beyond it they are left out.
const POSTPONED_FOR: Duration = Duration::from_mins(1);
const MAX_POSTPONED: usize = 1000;

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
    let silences: Vec<SilenceRow> = list(questions, "silence-list").await?;
    let rules: Vec<AlarmRow> = list(questions, "alarm-list").await?;
    let subscribers: Vec<SubscriberRow> = list(questions, "subscriber-list").await?;
    let silences = silences.into_iter().filter_map(silence);
    let rules = rules.into_iter().filter_map(rule);
    Ok(silences.chain(rules).chain(subscribers.into_iter().flat_map(|row| subscriber(&row))).collect())
}

/// An older cprocessd that does not know the question has nothing of that kind.
async fn list<T: DeserializeOwned>(questions: &mut Requester, question: &str) -> Result<Vec<T>, AskError> {
    match ask_for(questions, &Request::query(question), ANSWER_TIMEOUT).await {
        Err(AskError::Refused(error)) if error.code == ErrorCode::UnknownRequest => Ok(Vec::new()),
        answer => answer,
    }
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

/// The order that added somebody, and where they have agreed the one that said so.
fn subscriber(row: &SubscriberRow) -> Vec<Order> {
    let of = format!("{} {} {} {}", row.name, row.via, row.author, row.since.0);
    let order = |name: &str, what: &str| Request {
        id: Some(learned_id(&of, what)),
        author: Some(row.author.clone()),
        name: Some(row.name.clone()),
        via: Some(row.via.clone()),
        ..Request::order(name)
    };
    let (severity, pattern) = (Some(row.severity), Some(row.pattern.clone()));
    let added = Request { severity, pattern, ..order("subscriber-add", "subscriber") };
    let agreed = row.confirmed.map(|_| order("subscriber-confirm", "agreed"));
    [Some(added), agreed].into_iter().flatten().filter_map(|request| checked(&request)).collect()
}

fn learned_id(of: &str, what: &str) -> String {
    EventId::of_origin(of, what).to_string()
}

/// Orders about something that is not here yet: the peer may have heard of an outage before us, most of all when we have just
/// been started. They are tried again until they fit.
#[derive(Debug, Default)]
pub(crate) struct Postponed(VecDeque<(Order, Instant)>);

impl Postponed {
    /// Keeps an order that came at `came` and was refused, if it may fit later.
    pub(crate) fn takes(&mut self, order: Order, refused: &ErrorBody, came: Instant) -> bool {
        let is_about_something =
            matches!(order.command, Command::Ack { .. } | Command::Unack { .. } | Command::Unsilence { .. });
        let may_fit = refused.code == ErrorCode::NotFound && is_about_something && came.elapsed() < POSTPONED_FOR;
        if may_fit && self.0.len() < MAX_POSTPONED {
            self.0.push_back((order, came));
            return true;
        }
        false
    }

    /// All of them, in the order they came.
    pub(crate) fn take(&mut self) -> VecDeque<(Order, Instant)> {
        std::mem::take(&mut self.0)
    }
}

/// What need not, or must not, be carried out here: another daemon's configuration, and what is so already.
pub(crate) fn is_only_for_its_own(order: &Order, engine: &Engine) -> bool {
    match &order.command {
        Command::Reload => true,
        Command::RuleAdd { name, rule } => {
            let has = |row: &AlarmRow| row.author.is_some() && row.name == *name && row.rule == rule.trim();
            engine.alarm_list().iter().any(has)
        }
        Command::SubscriberAdd { name, via, severity, pattern } => {
            let has = |row: &SubscriberRow| {
                (&row.name, &row.via, row.severity) == (name, via, *severity) && row.pattern == pattern.as_str()
            };
            engine.subscriber_list().iter().any(has)
        }
        Command::SubscriberConfirm { name, via } => {
            let has = |row: &SubscriberRow| (&row.name, &row.via) == (name, via) && row.confirmed.is_some();
            engine.subscriber_list().iter().any(has)
        }
        Command::Forget { .. }
        | Command::Silence { .. }
        | Command::Unsilence { .. }
        | Command::Ack { .. }
        | Command::Unack { .. }
        | Command::RuleRemove { .. }
        | Command::SubscriberRemove { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::severity::Severity;

    fn later() -> UnixMillis {
        UnixMillis(UnixMillis::now().0 + 3_600_000)
    }

    fn silenced(pattern: &str, until: UnixMillis) -> SilenceRow {
        SilenceRow {
            id: "4711".into(),
            pattern: pattern.into(),
            until,
            since: UnixMillis(0),
            author: "anna".into(),
            reason: "new disks".into(),
            maintenance: true,
            open: 0,
        }
    }

    #[test]
    fn a_silence_is_learned_under_its_own_id_while_it_lasts() {
        let until = later();
        let order = silence(silenced("web*", until)).expect("an order");
        assert_eq!((order.id.as_str(), order.author.as_str()), ("4711", "anna"));
        let pattern = "web*".parse().expect("a pattern");
        assert_eq!(order.command, Command::Silence { pattern, until, reason: "new disks".into(), maintenance: true });
        assert_eq!(silence(silenced("web*", UnixMillis(5))), None, "it is over");
        assert_eq!(silence(silenced("no pattern:x", until)), None);
        assert_eq!(silence(SilenceRow { id: "x".repeat(5000), ..silenced("web*", until) }), None);
    }

    #[test]
    fn a_rule_and_a_subscriber_are_the_same_order_whenever_they_are_learned() {
        let row = || AlarmRow {
            name: "long".into(),
            rule: "*!mail.queue:*.length > 5 WARN".into(),
            severity: Severity::Warn,
            matches: 0,
            active: vec![],
            origin: "order".into(),
            author: Some("anna".into()),
            added: Some(UnixMillis(5)),
        };
        assert_eq!(rule(row()), rule(AlarmRow { matches: 7, ..row() }));
        assert_ne!(
            rule(row()).map(|order| order.id),
            rule(AlarmRow { added: Some(UnixMillis(6)), ..row() }).map(|o| o.id)
        );
        assert_eq!(rule(AlarmRow { author: None, added: None, ..row() }), None, "it is one of the file");
        let row = SubscriberRow {
            name: "anna".into(),
            via: "mail".into(),
            severity: Severity::Err,
            pattern: "*".into(),
            author: "anna".into(),
            since: UnixMillis(5),
            confirmed: None,
        };
        assert_eq!(subscriber(&row), subscriber(&row));
        let names =
            |row: &SubscriberRow| subscriber(row).into_iter().map(|order| order.command.name()).collect::<Vec<_>>();
        assert_eq!(names(&row), ["subscriber-add"]);
        let agreed = SubscriberRow { confirmed: Some(UnixMillis(6)), ..row.clone() };
        assert_eq!(names(&agreed), ["subscriber-add", "subscriber-confirm"]);
        assert_eq!(subscriber(&agreed), subscriber(&agreed));
    }

    #[test]
    fn an_acknowledgement_waits_for_its_incident_but_not_for_ever() {
        let order = |what: &str| {
            let fields = Request { id: Some("1".into()), author: Some("anna".into()), ..Request::order(what) };
            checked(&Request { pattern: Some("web1".into()), ..fields }).expect("an order")
        };
        let not_found = ErrorBody::new(ErrorCode::NotFound, "nothing is open");
        let mut postponed = Postponed::default();
        assert!(postponed.takes(order("ack"), &not_found, Instant::now()));
        assert!(!postponed.takes(order("ack"), &ErrorBody::new(ErrorCode::Failed, ""), Instant::now()));
        assert!(!postponed.takes(order("forget"), &not_found, Instant::now()));
        let long_ago = Instant::now().checked_sub(POSTPONED_FOR).expect("this machine runs for longer");
        assert!(!postponed.takes(order("ack"), &not_found, long_ago));
        assert_eq!(postponed.take().len(), 1);
    }

    #[test]
    fn what_is_no_order_is_none() {
        assert_eq!(order_of(b"\xc1"), None);
        assert_eq!(order_of(&[0x80]), None);
    }
}
