//! Decides what is up, what is down and what is worth saying.
//!
//! The engine reads no clock and touches no socket: it is told the time and what was observed, and answers with events to
//! journal and state to keep. That is what lets tests run weeks of outages in milliseconds.
//!
//! Two kinds of time: dates, windows and `for` run in the observer's time, which travels with the observation; absence runs
//! in ours, on a clock of *attention* that stands still while we were not looking, so that nobody is blamed for our own
//! pause. Deadlines fire only on [`Input::Idle`], which the shell sends when no input waits: what has arrived is never
//! overtaken by the suspicion that it has not.

mod agentless;
mod alarm;
mod check;
mod clock;
pub mod dependency;
mod due;
mod flapping;
mod host;
mod incident;
pub mod ladder;
mod numbers;
pub mod order;
mod paths;
pub mod rule;
pub mod settings;
mod suppression;
#[cfg(test)]
mod tests;
mod views;
mod votes;
pub mod window;

use check::CheckEntry;
use clock::{Clock, Clocks};
use common::address::{Address, CheckAddress, HostName};
use common::message::{
    Alive, Beat, Check, ErrorBody, FeedSnapshot, Kind, LogEvent, Ordered, Origin, Sample, Samples, State,
};
use common::severity::Severity;
use common::time::UnixMillis;
use due::Due;
use host::Host;
use incident::{CHECK, CLOCK, Incidents, SILENT, Seen};
pub use incident::{Draft, Incident, Key, RESERVED};
use numbers::Numbers;
use order::{Order, SavedOrder, SavedRule, Subscriber};
use paths::Quiet;
pub use paths::SavedPath;
use rule::Rule;
use serde::{Deserialize, Serialize};
use settings::{Settings, Tuning};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use suppression::Suppression;
pub use suppression::{Ack, Cause, Owed, Silence};
pub use votes::SavedVote;

/// We were not looking if nobody called us for this long.
const PAUSE: Duration = Duration::from_secs(2);
/// How often absence is looked for.
const SCAN_EVERY: Duration = Duration::from_millis(500);
/// So many hosts, or about so many checks or numbers, are found overdue at once. The shell commits them and answers who waits;
/// the rest has its turn right behind.
const OVERDUE_AT_ONCE: usize = 200;
/// After a start, absence is not judged for this long: two intervals of a second.
const SETTLE: Duration = Duration::from_secs(2);
/// Intervals without a report that make a value stale and a check unknown.
const MISSED_INTERVALS: u32 = 3;
/// What comes by a slower way was observed at most this long before what came by a faster one. What is older still is from a
/// clock that was put back.
const OVERTAKEN_AT_MOST_MS: u64 = 10_000;

/// The time, twice: `monotonic` for our own waiting, `wall` for dates.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the engine was made, or any other moment before.
    pub monotonic: Duration,
    /// The date.
    pub wall: UnixMillis,
}

fn shared(tunings: &mut Vec<Arc<Tuning>>, tuning: Tuning) -> Arc<Tuning> {
    if let Some(known) = tunings.iter().find(|known| ***known == tuning) {
        return known.clone();
    }
    tunings.push(Arc::new(tuning));
    tunings[tunings.len() - 1].clone()
}

/// Everything that can happen to the engine. `feed` names the feed it came by.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum Input {
    /// All that a feed knows.
    Snapshot { feed: String, snapshot: FeedSnapshot },
    /// Numbers.
    Sample(Sample),
    /// A check's state, new or repeated.
    Check(Check),
    /// Something that happened once.
    Log(LogEvent),
    /// A host's sign of life, or what it watches.
    Alive { feed: String, alive: Alive },
    /// A feed's sign of life.
    Beat { feed: String, beat: Beat },
    /// An entry of this feed's journal follows, perhaps an old one that we have missed.
    Entry { feed: String },
    /// A person's order, or the order of a person at a peer.
    Order(Order),
    /// No input waits, so what is overdue is overdue.
    Idle,
}

/// Everything the engine can ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Journal and publish this.
    Event(Draft),
    /// Keep this for the next start, in the same transaction as the events around it.
    Save(Saved),
    /// Something was refused; counted under this name.
    Refused(&'static str),
    /// Worth a warning in the log, for whoever runs this.
    Notice(String),
    /// The answer to an order: what was done, or why nothing was.
    Ordered(Result<Ordered, ErrorBody>),
}

/// State that survives a restart. `None` removes it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is named after what it is the state of")]
pub enum Saved {
    Host(HostName, Option<SavedHost>),
    Check(CheckAddress, Option<SavedCheck>),
    Incident(Key, Option<Incident>),
    Pending(Key, Option<UnixMillis>),
    Origin(HostName, String, u64),
    Order(String, Option<SavedOrder>),
    Silence(String, Option<Silence>),
    Maintenance(String, Option<UnixMillis>),
    Rule(String, Option<SavedRule>),
    Subscriber { via: String, name: String, subscriber: Option<Subscriber> },
}

impl Saved {
    /// What it is the state of, so that the later of two replaces the earlier.
    pub fn identity(&self) -> String {
        match self {
            Saved::Host(host, _) => format!("host {host}"),
            Saved::Check(address, _) => format!("check {address}"),
            Saved::Incident(Key { address, rule }, _) => format!("incident {rule}\n{address}"),
            Saved::Pending(Key { address, rule }, _) => format!("pending {rule}\n{address}"),
            Saved::Origin(host, epoch, _) => format!("origin {host} {epoch}"),
            Saved::Order(id, _) => format!("order {id}"),
            Saved::Silence(id, _) => format!("silence {id}"),
            Saved::Maintenance(name, _) => format!("maintenance {name}"),
            Saved::Rule(name, _) => format!("rule {name}"),
            Saved::Subscriber { via, name, .. } => format!("subscriber {via}\n{name}"),
        }
    }
}

/// A host as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are the fields of the host, and documented there")]
pub struct SavedHost {
    pub state: State,
    pub since: UnixMillis,
    pub last_seen: UnixMillis,
    pub last_alive: UnixMillis,
    pub heard: bool,
    pub feed: Option<String>,
    pub own: bool,
    pub goodbye: Option<UnixMillis>,
    pub inventory_hash: String,
    pub inventory: Vec<CheckAddress>,
    /// Absent in what was kept before there could be several.
    #[serde(default)]
    pub paths: Vec<SavedPath>,
}

/// A check as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are the fields of the check, and documented there")]
pub struct SavedCheck {
    pub up: bool,
    pub since: UnixMillis,
    pub interval_ms: u64,
    pub text: String,
    pub bad_since: UnixMillis,
    pub bad_count: u32,
    pub last_blip: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flapping: Option<SavedFlapping>,
    /// Since when it alone is not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<HostName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<SavedVote>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unjournaled: Vec<(HostName, UnixMillis)>,
}

/// A check that changes too often, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedFlapping {
    /// The first of the changes that were too many.
    pub since: UnixMillis,
    /// The last change, or when its observer's clock was put back.
    pub last: UnixMillis,
    /// All since the first.
    pub changes: u32,
    /// How bad the beginning was.
    pub top_severity: Severity,
    /// Why the beginning was not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_by: Vec<String>,
}

/// A feed, by when it last beat.
#[derive(Clone, Debug)]
struct Feed {
    /// The host whose ccollectd it is, once it has said so.
    own: Option<HostName>,
    heard_at: Duration,
    /// Its last silence.
    silence: Quiet,
    /// When an entry of its journal came.
    entry_at: Option<Duration>,
}

impl Feed {
    fn new(heard_at: Duration) -> Self {
        Self { own: None, heard_at, silence: Quiet::default(), entry_at: None }
    }
}

/// All that cprocessd knows.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    hosts: BTreeMap<HostName, Host>,
    checks: BTreeMap<CheckAddress, CheckEntry>,
    numbers: Numbers,
    /// The checks of other hosts that each observes.
    observations: HashMap<HostName, BTreeSet<CheckAddress>>,
    expected: Vec<alarm::Expected>,
    incidents: Incidents,
    clocks: Clocks,
    /// Hosts by when they may be overdue, and by when their checks may be.
    due_hosts: Due<HostName>,
    due_checks: Due<HostName>,
    /// Every tuning that an address has: few, and shared.
    tunings: Vec<Arc<Tuning>>,
    /// Numbers beyond a limit that has a `for` which has not passed.
    pending: BTreeMap<Key, UnixMillis>,
    feeds: HashMap<String, Feed>,
    /// Who is heard over each host, once somebody asked; forgotten when there are more.
    carried: Option<BTreeMap<HostName, BTreeSet<HostName>>>,
    origins: HashMap<(HostName, String), u64>,
    orders: VecDeque<(String, SavedOrder)>,
    suppression: Suppression,
    /// Rules by order, whether or not one of the file has their name.
    ordered_rules: BTreeMap<String, Rule>,
    subscribers: BTreeMap<(String, String), Subscriber>,
    /// How long we have been looking.
    attention: Duration,
    last_call: Option<Duration>,
    last_scan: Duration,
    wall: UnixMillis,
    outputs: Vec<Output>,
}

impl Engine {
    /// An engine that goes on from what an earlier one asked to keep.
    pub fn new(settings: Settings, feeds: &[String], mut saved: Vec<Saved>) -> Self {
        let mut engine = Self {
            expected: Vec::new(),
            settings,
            hosts: BTreeMap::new(),
            checks: BTreeMap::new(),
            numbers: Numbers::default(),
            observations: HashMap::new(),
            incidents: Incidents::default(),
            clocks: Clocks::default(),
            due_hosts: Due::default(),
            due_checks: Due::default(),
            tunings: Vec::new(),
            pending: BTreeMap::new(),
            feeds: feeds.iter().map(|feed| (feed.clone(), Feed::new(SETTLE))).collect(),
            carried: None,
            origins: HashMap::new(),
            orders: VecDeque::new(),
            suppression: Suppression::default(),
            ordered_rules: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            attention: Duration::ZERO,
            last_call: None,
            last_scan: Duration::ZERO,
            wall: UnixMillis(0),
            outputs: Vec::new(),
        };
        // Rules, then what is open under them, come before the checks and numbers that look for both. Of those there may be
        // millions, so they stay where they are.
        let mut take = |wanted: fn(&Saved) -> bool| saved.extract_if(.., |saved| wanted(saved)).collect::<Vec<_>>();
        let rules = take(|saved| matches!(saved, Saved::Rule(..)));
        let incidents = take(|saved| matches!(saved, Saved::Incident(..)));
        for rule in rules {
            engine.restore(rule);
        }
        engine.notice_shadowed_rules();
        engine.merge_ordered_rules();
        engine.expected = alarm::expected(&engine.settings.rules, SETTLE);
        for saved in incidents.into_iter().chain(saved) {
            engine.restore(saved);
        }
        engine.orders.make_contiguous().sort_by_key(|(_, answer)| answer.n);
        engine.count_checks();
        paths::own_feeds(&engine.hosts, &mut engine.feeds);
        engine.find_observers();
        engine.blind_checks_of_silent_hosts();
        engine.await_numbers();
        engine.restore_suppression();
        engine.look_at_everything(SETTLE);
        engine
    }

    fn restore(&mut self, saved: Saved) {
        match saved {
            Saved::Host(name, Some(host)) => {
                let tuning = self.tuning(&CheckAddress::alive(name.clone()));
                let told = self.incidents.contains(&CheckAddress::alive(name.clone()).into(), CLOCK);
                self.hosts.insert(name, Host::restored(host, Clock::restored(told), SETTLE, tuning));
            }
            Saved::Check(address, Some(check)) => {
                let tuning = self.tuning(&address);
                let watches = alarm::absence_watches(&self.settings.rules, &address, &self.incidents);
                let silent_since = self.incidents.get(&check::key(&address, SILENT)).map(|incident| incident.since);
                let open = self.incidents.get(&check::key(&address, CHECK)).is_some();
                self.checks.insert(address, CheckEntry::restored(check, open, silent_since, tuning, watches, SETTLE));
            }
            Saved::Incident(key, Some(incident)) => self.incidents.restore(key, incident),
            Saved::Pending(key, Some(since)) => {
                self.pending.insert(key, since);
            }
            Saved::Origin(host, epoch, seq) => {
                self.origins.insert((host, epoch), seq);
            }
            Saved::Order(id, Some(answer)) => self.orders.push_back((id, answer)),
            Saved::Silence(id, Some(silence)) => self.suppression.restore_silence(id, silence),
            Saved::Maintenance(name, Some(until)) => {
                self.suppression.windows.insert(name, until);
            }
            Saved::Rule(name, Some(rule)) => self.restore_rule(name, &rule),
            Saved::Subscriber { via, name, subscriber: Some(subscriber) } => {
                self.subscribers.insert((via, name), subscriber);
            }
            Saved::Host(_, None)
            | Saved::Check(_, None)
            | Saved::Incident(_, None)
            | Saved::Pending(_, None)
            | Saved::Order(_, None)
            | Saved::Silence(_, None)
            | Saved::Maintenance(_, None)
            | Saved::Rule(_, None)
            | Saved::Subscriber { subscriber: None, .. } => {}
        }
    }

    /// Other settings from now on. What is open under a rule that is gone, or looks elsewhere now, is closed.
    pub fn reconfigure(&mut self, now: Now, settings: Settings) -> Vec<Output> {
        self.look(now);
        self.settings = settings;
        self.notice_shadowed_rules();
        self.merge_ordered_rules();
        self.tunings.clear();
        let Self { checks, hosts, settings, tunings, .. } = self;
        for (name, host) in hosts {
            host.tuning = shared(tunings, settings.tuning(&CheckAddress::alive(name.clone())));
        }
        for (address, check) in checks {
            check.tuning = shared(tunings, settings.tuning(address));
        }
        self.rules_changed();
        self.compare_suppression();
        std::mem::take(&mut self.outputs)
    }

    /// What every check and number has to do with the rules is found out anew.
    fn rules_changed(&mut self) {
        self.retire_removed_rules();
        self.expected = alarm::expected(&self.settings.rules, self.attention);
        for (address, check) in &mut self.checks {
            check.watches = alarm::absence_watches(&self.settings.rules, address, &self.incidents);
        }
        self.look_at_everything(self.attention);
        self.resolve_numbers();
    }

    /// The tuning of an address, shared with all that have the same.
    fn tuning(&mut self, address: &CheckAddress) -> Arc<Tuning> {
        shared(&mut self.tunings, self.settings.tuning(address))
    }

    /// What follows from `input` at `now`.
    pub fn apply(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.look(now);
        match input {
            Input::Snapshot { feed, snapshot } => self.snapshot(&feed, snapshot),
            Input::Sample(sample) => self.samples(&Samples::from(&sample)),
            Input::Check(check) => {
                if self.is_new(check.origin.as_ref()) {
                    self.check(&check);
                }
            }
            Input::Log(log) => {
                if self.is_new(log.origin.as_ref()) {
                    self.log(log);
                }
            }
            Input::Alive { feed, alive } => {
                if self.is_new(alive.origin.as_ref()) {
                    self.alive(&feed, alive);
                }
            }
            Input::Beat { feed, beat } => self.beat(&feed, beat),
            Input::Entry { feed } => self.entry(&feed),
            Input::Order(order) => self.order(&order),
            Input::Idle => self.idle(),
        }
        std::mem::take(&mut self.outputs)
    }

    /// As [`Self::apply`] with each of these samples, which need not be taken out of their message.
    pub fn take(&mut self, now: Now, samples: &Samples<'_>) -> Vec<Output> {
        self.look(now);
        self.samples(samples);
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Idle`] is worth sending next, on the monotonic clock.
    pub fn next_deadline(&self) -> Duration {
        let until_scan = (self.last_scan + SCAN_EVERY).saturating_sub(self.attention);
        self.last_call.unwrap_or_default() + until_scan
    }

    /// Moves the clock of attention on, unless we were away.
    fn look(&mut self, now: Now) {
        self.wall = now.wall;
        let elapsed = self.last_call.map_or(Duration::ZERO, |last| now.monotonic.saturating_sub(last));
        if elapsed <= PAUSE {
            self.attention += elapsed;
        } else {
            self.outputs.push(Output::Refused("pauses"));
            self.suppression.settled_at = self.attention + SETTLE;
        }
        if self.last_call.replace(now.monotonic).is_none() {
            // Not when the engine is made, which does not know the date.
            self.retire_removed_rules();
        }
        self.begin_windows();
    }

    /// Whether a journaled message has not come by another way already. What was never journaled is always new.
    fn is_new(&mut self, origin: Option<&Origin>) -> bool {
        let Some(Origin { host, epoch, seq }) = origin else { return true };
        let key = (host.clone(), epoch.as_str().to_owned());
        if self.origins.get(&key).is_some_and(|had| had >= seq) {
            return false;
        }
        self.save(Saved::Origin(key.0.clone(), key.1.clone(), *seq));
        self.origins.insert(key, *seq);
        true
    }

    fn log(&mut self, log: LogEvent) {
        let address = CheckAddress { host: log.host, service: log.service, unit: log.unit };
        self.touch_host(&address.host);
        let key = Key { address: address.into(), rule: "log".to_owned() };
        let seen = Seen { time: log.time, text: log.text, value: None, state: State::Unknown };
        let severity = self.settings.classify(Kind::Log, &key.address, log.severity);
        let mut draft = incident::passing(&key, Kind::Log, severity, seen);
        if let Some(Origin { host, epoch, seq }) = log.origin {
            draft.id = common::message::EventId::of_origin(&format!("{host} {epoch} {seq}"), "log");
        }
        draft.data = log.data;
        draft.suppressed_by = self.passing_suppressed_by(Kind::Log, &key.address);
        self.outputs.push(Output::Event(draft));
    }

    /// Looks for what is overdue, not more often than it can matter.
    fn idle(&mut self) {
        if self.attention < self.last_scan + SCAN_EVERY {
            return;
        }
        // The checks of a host that is silent itself are not missed, so hosts come first.
        if self.scan_hosts() && self.scan_checks() && self.scan_numbers() {
            self.last_scan = self.attention;
            self.scan_clocks();
            self.scan_suppression();
        }
    }

    fn open(&mut self, key: Key, kind: Kind, default: Severity, since: UnixMillis, seen: Seen) {
        let severity = self.settings.classify(kind, &key.address, default);
        // What was found late has reached a step of the ladder with its first event.
        let (steps, at_least) = self.settings.ladder.reached(self.wall.since(since));
        let severity = at_least.map_or(severity, |at_least| at_least.max(severity));
        let time = seen.time;
        let Some(mut draft) = self.incidents.open(key.clone(), kind, severity, since, seen) else { return };
        if let Some(incident) = self.incidents.get_mut(&key) {
            incident.steps = steps;
        }
        draft.step = (steps > 0).then_some(steps);
        draft.suppressed_by = self.suppress_opening(&key);
        self.outputs.push(Output::Event(draft));
        let incident = self.incidents.get(&key).cloned();
        let node = incident::node(&key);
        self.save(Saved::Incident(key, incident));
        if let Some(node) = node {
            self.reach_changed(&node, time);
        }
    }

    fn close(&mut self, key: &Key, kind: Kind, seen: Seen) {
        let Some(incident) = self.incidents.get(key).cloned() else { return };
        let severity = self.settings.classify(kind, &key.address, Severity::Info);
        let time = seen.time;
        let Some(draft) = self.incidents.close(key, kind, severity, seen) else { return };
        self.end_suppression(key, &incident);
        self.save(Saved::Incident(key.clone(), None));
        self.outputs.push(Output::Event(draft));
        if let Some(node) = incident::node(key) {
            self.reach_changed(&node, time);
        }
    }

    /// Says something that neither opens nor closes anything.
    fn say(&mut self, key: &Key, kind: Kind, default: Severity, seen: Seen) {
        let severity = self.settings.classify(kind, &key.address, default);
        let mut draft = incident::passing(key, kind, severity, seen);
        draft.suppressed_by = self.passing_suppressed_by(kind, &key.address);
        self.outputs.push(Output::Event(draft));
    }

    /// Closes whatever is open at an address that is no longer watched.
    fn retire_incidents_at(&mut self, address: &Address, why: &str) {
        let keys: Vec<_> = self.incidents.at(address).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.retire(&key, why);
        }
    }

    fn retire(&mut self, key: &Key, why: &str) {
        let seen = Seen { time: self.wall, text: why.to_owned(), value: None, state: State::Resolved };
        self.close(key, Kind::Retired, seen);
    }

    /// What is open or pending under a rule that is no longer configured, or not for that address.
    fn retire_removed_rules(&mut self) {
        let rules = &self.settings.rules;
        let of = |key: &Key| rules.iter().find(|rule| rule.name == key.rule && rule.judges(&key.address));
        let is_open = |key: &Key| RESERVED.contains(&key.rule.as_str()) || of(key).is_some();
        let is_pending = |key: &Key| of(key).is_some_and(Rule::has_limit);
        let open: Vec<_> = self.incidents.iter().map(|(key, _)| key.clone()).filter(|key| !is_open(key)).collect();
        let pending: Vec<_> = self.pending.keys().filter(|key| !is_pending(key)).cloned().collect();
        for key in open {
            self.retire(&key, "its rule is no longer configured");
        }
        for key in pending {
            self.pending.remove(&key);
            self.save(Saved::Pending(key, None));
        }
    }

    fn save(&mut self, saved: Saved) {
        self.outputs.push(Output::Save(saved));
    }
}
