//! Questions, orders and their answers: one frame in, one out.

use crate::address::{Address, CheckAddress, HostName, Name, Unit};
use crate::message::{Check, Epoch, EventId, IncidentId, Kind, State};
use crate::severity::Severity;
use crate::time::UnixMillis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// A question (`query`) or an order (`order`) with its arguments. Fields it does not know are ignored.
///
/// - **Path:** any client (REQ, DEALER) to a daemon's question socket.
/// - **If lost:** ask again; questions change nothing, and an order carries an id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The question's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The order's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Which host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// `events`: those after this `seq`. `ledger`: those after this `item`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// `events`: the journal that `after` belongs to; another is answered with `gone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// `events`, `ledger`: at most this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `ledger`, `test`: which recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// `ledger`: which incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// `ledger`: what was selected at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    /// `ledger`: also what was never selected, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// The page to go on with, from the `next` of the previous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// `silence`, `ack`, `maintenance`: until then. The first and the last need an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
    /// `silence`, `ack`, `maintenance`: why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `unsilence`: the id of the order that began the silence or maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<String>,
    /// `rule-add`, `rule-remove`: the rule's name. `subscriber-add`, `subscriber-confirm`,
    /// `subscriber-remove`: who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `rule-add`: the rule, as in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `subscriber-add`, `subscriber-confirm`, `subscriber-remove`: by which medium, as `mail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// `subscriber-add`: told of what has been at least this bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// An order's id: the same order twice is carried out once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who gives the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

impl Request {
    /// A question without arguments.
    pub fn query(name: &str) -> Self {
        Self { query: Some(name.to_owned()), ..Self::default() }
    }

    /// An order without arguments.
    pub fn order(name: &str) -> Self {
        Self { order: Some(name.to_owned()), ..Self::default() }
    }
}

/// The answer to any request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether `data` or `error` follows.
    pub ok: bool,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<rmpv::Value>,
    /// There is more: ask again with `page` set to this, within 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// With `gone`: the oldest event that is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
}

impl ErrorBody {
    /// An error of this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), first_seq: None }
    }
}

/// What kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The bytes are no request.
    Undecodable,
    /// No such question or order here.
    UnknownRequest,
    /// An argument is missing or wrong.
    BadArgument,
    /// What was asked for is not there.
    NotFound,
    /// The journal no longer has it, or never had: take a snapshot.
    Gone,
    /// The page expired, or never was.
    PageExpired,
    /// The daemon could not do it.
    Failed,
    /// A code of a newer daemon.
    #[serde(other)]
    Other,
}

/// A row of `server-list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerRow {
    /// The host.
    pub host: HostName,
    /// Up, down or unknown.
    pub state: State,
    /// Since when.
    pub since: UnixMillis,
    /// When its ccollectd was last heard, by our clock.
    pub last_seen: UnixMillis,
    /// The worst of its open incidents.
    pub severity: Option<Severity>,
    /// How many checks it has.
    pub checks: u64,
    /// How many open incidents it has.
    pub open: u64,
}

/// The answer to `server-status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The host, as in `server-list`.
    pub server: ServerRow,
    /// Its checks.
    pub services: Vec<ServiceRow>,
    /// Its open incidents.
    pub incidents: Vec<DownRow>,
    /// Its last values.
    pub values: Vec<ValueRow>,
}

/// A row of `service-list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The host.
    pub host: HostName,
    /// The service.
    pub service: Name,
    /// The unit.
    pub unit: Unit,
    /// Up, down or unknown.
    pub state: State,
    /// Since when.
    pub since: UnixMillis,
    /// What was last seen.
    pub text: String,
}

/// A row of `down-list`: an open incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownRow {
    /// The incident.
    pub incident: IncidentId,
    /// What it is about.
    pub address: Address,
    /// The rule that opened it; `check` for a thing that is down.
    pub rule: String,
    /// What it began with: `down`, `alarm` or `absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The worst it has been.
    pub severity: Severity,
    /// Since when.
    pub since: UnixMillis,
    /// What was seen.
    pub text: String,
    /// Somebody has said that they look after it.
    pub acked: bool,
    /// It is not told for now, by a silence or a maintenance window.
    pub silenced: bool,
    /// What it depends on is down.
    pub unreachable: bool,
    /// As in the event: how many steps of the ladder it has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// As in the event: why it is not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_by: Vec<String>,
}

/// A row of `last-value`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueRow {
    /// The number's address.
    pub address: Address,
    /// The number.
    pub value: f64,
    /// When it was read.
    pub time: UnixMillis,
    /// The next ones are missing.
    pub stale: bool,
}

/// A row of `alarm-list`: a rule and what it looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmRow {
    /// The rule's name.
    pub name: String,
    /// The rule as written.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// How many numbers it looks at.
    pub matches: u64,
    /// Those over the limit, open or not yet for long enough.
    pub active: Vec<AlarmState>,
    /// Where it comes from: `file`, `default` or `order`.
    #[serde(default)]
    pub origin: String,
    /// Who ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// When it was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<UnixMillis>,
}

/// One number over its rule's limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmState {
    /// The number's address.
    pub address: Address,
    /// Its incident is open; false while `for` has not passed.
    pub open: bool,
    /// Since when it is over the limit.
    pub since: UnixMillis,
    /// The last number, absent where the number itself is.
    pub value: Option<f64>,
}

/// The answer to `events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventsPage<T> {
    /// The journal.
    pub epoch: Epoch,
    /// Its newest entry.
    pub head_seq: u64,
    /// Consecutive, in the order of `seq`.
    pub events: Vec<T>,
}

/// The answer of a stream's `snapshot`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamSnapshot {
    /// The journal.
    pub epoch: Epoch,
    /// The state includes every event up to this one.
    pub seq: u64,
    /// Every host.
    pub hosts: Vec<ServerRow>,
    /// Every check.
    pub checks: Vec<ServiceRow>,
    /// Every open incident.
    pub incidents: Vec<DownRow>,
}

/// The answer of a feed's `snapshot`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedSnapshot {
    /// The journal.
    pub epoch: Epoch,
    /// The state includes every message up to this one.
    pub seq: u64,
    /// Every host behind this feed.
    pub hosts: Vec<FeedSnapshotHost>,
    /// Every check as it is now.
    pub checks: Vec<Check>,
}

/// A host behind a feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedSnapshotHost {
    /// The host.
    pub host: HostName,
    /// The ccollectds between it and the answering one.
    pub via: Vec<HostName>,
    /// Every configured address.
    pub inventory: Vec<CheckAddress>,
    /// The hash that `alive` carries.
    pub hash: String,
}

/// The answer to an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ordered {
    /// What was done, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What it concerns: the addresses that were forgotten, acknowledged or silenced while something is open there.
    pub addresses: Vec<String>,
    /// Feeds whose ccollectd could not be told: what it still reports comes back.
    #[serde(default)]
    pub unreached: Vec<String>,
}

/// A row of `silence-list`: what is not told for now by order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SilenceRow {
    /// The id of the order that began it; `unsilence` takes it.
    pub id: String,
    /// What is not told.
    pub pattern: String,
    /// It ends by itself.
    pub until: UnixMillis,
    /// Since when.
    pub since: UnixMillis,
    /// Who ordered it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// It was ordered as maintenance.
    pub maintenance: bool,
    /// How many open incidents it keeps from being told.
    pub open: u64,
}

/// A row of `maintenance-list`: a window of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaintenanceRow {
    /// Its name.
    pub name: String,
    /// What is not told while it lasts.
    pub pattern: String,
    /// When it is, as written.
    pub when: String,
    /// It lasts until then, if it is under way.
    pub active_until: Option<UnixMillis>,
    /// The next five occurrences that have not begun, first and last moment.
    pub next: Vec<(UnixMillis, UnixMillis)>,
}

/// A row of `subscriber-list`: who is to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriberRow {
    /// Who: an address of the medium.
    pub name: String,
    /// The medium.
    pub via: String,
    /// Told of what has been at least this bad.
    pub severity: Severity,
    /// Told of what matches.
    pub pattern: String,
    /// Who ordered it.
    pub author: String,
    /// When.
    pub since: UnixMillis,
    /// When they agreed. Until then they are asked to, and told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<UnixMillis>,
}

/// The answer to `explain`: all that bears on one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The address as it is known.
    pub address: Address,
    /// Of a check: up, down or unknown. Of a number: open if a rule is broken, else resolved.
    pub state: State,
    /// Since when.
    pub since: Option<UnixMillis>,
    /// Why, in words, one sentence each.
    pub why: Vec<String>,
    /// What was last seen: a check's text, a number.
    pub last: Option<String>,
    /// Its open incidents.
    pub incidents: Vec<DownRow>,
    /// The rules that look at it, and how each stands.
    pub rules: Vec<RuleView>,
    /// What suppresses it now, as in `suppressed_by`.
    pub suppressed_by: Vec<String>,
    /// What it depends on, and how that is.
    pub depends_on: Vec<(Address, State)>,
}

/// How a rule sees one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// The rule's name.
    pub name: String,
    /// As written.
    pub rule: String,
    /// `fine`, `pending` or `open`.
    pub phase: String,
    /// Since when, unless it is fine.
    pub since: Option<UnixMillis>,
}

/// A row of `ledger`: one event for one recipient, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Its number in this ledger, in the order of selection; 0 of what was never selected.
    pub item: i64,
    /// The recipient.
    pub who: String,
    /// The lane: `smtp`, an IRC network, `sms`; empty of what was never selected.
    pub via: String,
    /// When it was selected, or not, by our clock.
    pub queued: UnixMillis,
    /// What the event says.
    pub kind: Kind,
    /// What it is about.
    pub address: Address,
    /// How bad the event is.
    pub severity: Severity,
    /// Its incident.
    pub incident: IncidentId,
    /// The event.
    pub event: EventId,
    /// The event's text.
    pub text: String,
    /// What has become of it.
    pub state: Delivery,
    /// Since when.
    pub changed: UnixMillis,
    /// How often it was sent.
    pub attempts: u64,
    /// How often of these after an attempt of which nobody knows whether it was accepted: so many copies there may be.
    pub again: u64,
    /// The message that tells it, or is to tell it.
    pub message: Option<String>,
    /// The medium's words, or why it waits, failed or was dropped.
    pub result: String,
}

/// What becomes of what was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// For its turn, or for another attempt.
    Waiting,
    /// Under way, or its outcome is not known and it will be sent again.
    Sending,
    /// The medium has accepted it.
    Sent,
    /// It was given up, or refused for good.
    Failed,
    /// Telling it would make no sense any more.
    Dropped,
    /// It was never selected for this recipient.
    Skipped,
    /// A state of a newer daemon.
    #[serde(other)]
    Other,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Delivery::Waiting => "waiting",
            Delivery::Sending => "sending",
            Delivery::Sent => "sent",
            Delivery::Failed => "failed",
            Delivery::Dropped => "dropped",
            Delivery::Skipped => "skipped",
            Delivery::Other => "other",
        })
    }
}

/// The answer to `health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Its name.
    pub daemon: String,
    /// Its version.
    pub version: String,
    /// Its journal.
    pub epoch: Option<Epoch>,
    /// Its journal's newest entry.
    pub head_seq: u64,
    /// Its resident memory in bytes.
    pub rss_bytes: u64,
    /// The largest its resident memory has been, in bytes.
    pub peak_rss_bytes: u64,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Its databases: paths on its own host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// What it refused, dropped or lost, by `SOCKET.REASON`.
    pub counters: BTreeMap<String, u64>,
}

impl Health {
    /// With what the daemon keeps in the file `database`.
    #[must_use]
    pub fn kept_in(mut self, database: &Path) -> Self {
        let database = std::path::absolute(database).unwrap_or_else(|_| database.to_owned());
        self.databases.push(database.display().to_string());
        self
    }
}
