//! What is open and yet not told: silences, maintenance, what cannot be reached, acknowledgements; and the ladder, which
//! tells of it again.
//!
//! Suppression delays telling, it never drops it. Each open incident keeps what suppresses it, and remembers what its
//! recipients were not told meanwhile; when the last suppressor ends, that is made good by `revealed`. Incidents are indexed by
//! what suppresses them and by when something about them is due, so that time passing costs nothing while nothing is due.
//! What begins takes effect at once. What ends waits for [`Idle`](super::Input::Idle), as everything that makes us speak
//! without an observation: an end that has arrived must not be overtaken by a `revealed`.

use super::incident::{self, CHECK, Incident, Key, SILENT, Seen};
use super::order::{done, not_found, quoted, refused};
use super::{Engine, MISSED_INTERVALS, Output, SETTLE, Saved};
use common::address::{Address, CheckAddress, HostName, Pattern};
use common::message::{ErrorBody, EventId, IncidentId, Kind, Ordered, State};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Silences at once. More are refused: each opening incident is compared with all of them.
const MAX_SILENCES: usize = 1000;
/// What depended on something that has recovered has at least this long to be observed anew.
const MIN_LINGER: Duration = Duration::from_secs(10);

/// A step of something that flaps waits for so long before it is looked at again.
const FLAPPING_LATER: Duration = Duration::from_secs(10);

/// Why something open is not told. On the wire `CAUSE:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cause {
    /// A silence, by the id of its order.
    Silence(String),
    /// A maintenance window of the configuration, by its name.
    Maintenance(String),
    /// This is down, and what it is about depends on it.
    Unreachable(CheckAddress),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Silence(id) => write!(f, "silence:{id}"),
            Cause::Maintenance(name) => write!(f, "maintenance:{name}"),
            Cause::Unreachable(address) => write!(f, "unreachable:{address}"),
        }
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.to_string()
    }
}

impl TryFrom<String> for Cause {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("silence", id)) => Ok(Cause::Silence(id.to_owned())),
            Some(("maintenance", name)) => Ok(Cause::Maintenance(name.to_owned())),
            Some(("unreachable", address)) => address
                .parse()
                .map(Cause::Unreachable)
                .map_err(|error: common::address::AddressError| error.to_string()),
            _ => Err(format!("{text:?} is no cause")),
        }
    }
}

/// What was not told of an open incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owed {
    /// All was told.
    #[default]
    Nothing,
    /// That it has lasted so long.
    Step,
    /// That it is open at all.
    Opening,
}

/// Somebody looks after an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// The id of the order.
    pub order: String,
    /// Who.
    pub author: String,
    /// Until then; without it as long as the incident is open.
    #[serde(default)]
    pub until: Option<UnixMillis>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// An order not to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// What is not told.
    pub pattern: Pattern,
    /// It ends by itself.
    pub until: UnixMillis,
    /// When it was ordered.
    pub since: UnixMillis,
    /// By whom.
    pub author: String,
    /// Why, for people.
    pub reason: String,
    /// Ordered as maintenance.
    pub maintenance: bool,
}

impl Silence {
    fn word(&self) -> &'static str {
        if self.maintenance { "maintenance" } else { "silence" }
    }
}

/// What suppresses, what it suppresses, and when something of it is due.
#[derive(Clone, Debug)]
pub(super) struct Suppression {
    pub(super) silences: BTreeMap<String, Silence>,
    silences_due: BTreeSet<(UnixMillis, String)>,
    /// The windows that are under way, until when.
    pub(super) windows: BTreeMap<String, UnixMillis>,
    /// When the next of them begins, and when that was found out.
    windows_due: UnixMillis,
    windows_read: UnixMillis,
    /// The clock was put back: one may not be under way after all.
    windows_doubtful: bool,
    suppressed: BTreeMap<Cause, BTreeSet<Key>>,
    acks_due: BTreeSet<(UnixMillis, Key)>,
    steps_due: BTreeSet<(UnixMillis, Key)>,
    /// What they depended on has recovered; on the clock of attention until when they have to be observed anew.
    lingering: BTreeMap<Key, Duration>,
    lingering_due: BTreeSet<(Duration, Key)>,
    /// How many of them each host has: what is observed is looked for only there.
    lingering_at: BTreeMap<HostName, usize>,
    /// After we were away, on the clock of attention: what ended meanwhile has as long to arrive as what is absent.
    pub(super) settled_at: Duration,
    /// What was kept by an earlier cprocessd, under an earlier configuration, has been compared with ours.
    compared: bool,
}

impl Default for Suppression {
    fn default() -> Self {
        Self {
            silences: BTreeMap::new(),
            silences_due: BTreeSet::new(),
            windows: BTreeMap::new(),
            windows_due: UnixMillis(i64::MIN),
            windows_read: UnixMillis(i64::MIN),
            windows_doubtful: false,
            suppressed: BTreeMap::new(),
            acks_due: BTreeSet::new(),
            steps_due: BTreeSet::new(),
            lingering: BTreeMap::new(),
            lingering_due: BTreeSet::new(),
            lingering_at: BTreeMap::new(),
            settled_at: SETTLE,
            compared: false,
        }
    }
}

impl Suppression {
    pub(super) fn restore_silence(&mut self, id: String, silence: Silence) {
        self.silences_due.insert((silence.until, id.clone()));
        self.silences.insert(id, silence);
    }

    /// How many open incidents this suppresses.
    pub(super) fn count(&self, cause: &Cause) -> usize {
        self.suppressed.get(cause).map_or(0, BTreeSet::len)
    }

    fn index(&mut self, key: &Key, causes: &BTreeSet<Cause>) {
        for cause in causes {
            self.suppressed.entry(cause.clone()).or_default().insert(key.clone());
        }
    }

    fn unindex<'a>(&mut self, key: &Key, causes: impl IntoIterator<Item = &'a Cause>) {
        for cause in causes {
            if let Some(keys) = self.suppressed.get_mut(cause) {
                keys.remove(key);
                if keys.is_empty() {
                    self.suppressed.remove(cause);
                }
            }
        }
    }

    fn linger(&mut self, key: &Key, until: Duration) {
        self.stop_lingering(key);
        self.lingering.insert(key.clone(), until);
        self.lingering_due.insert((until, key.clone()));
        *self.lingering_at.entry(key.address.host().clone()).or_default() += 1;
    }

    fn stop_lingering(&mut self, key: &Key) {
        let Some(until) = self.lingering.remove(key) else { return };
        self.lingering_due.remove(&(until, key.clone()));
        if let Some(count) = self.lingering_at.get_mut(key.address.host()) {
            *count -= 1;
            if *count == 0 {
                self.lingering_at.remove(key.address.host());
            }
        }
    }
}

/// As its events have it. An acknowledgement does not keep the first telling back, so it is no [`Cause`].
pub(super) fn suppressed_by(incident: &Incident) -> Vec<String> {
    let ack = incident.ack.iter().map(|ack| format!("ack:{}", ack.author));
    incident.suppressed_by.iter().map(ToString::to_string).chain(ack).collect()
}

/// What its address is while it is open.
fn state_of(key: &Key) -> State {
    match key.rule.as_str() {
        CHECK => State::Down,
        SILENT => State::Unknown,
        _ => State::Open,
    }
}

/// What it is about, for a text that stands beside the host: `port www is down`.
fn subject(key: &Key) -> String {
    match &key.address {
        Address::Check(check) if *check == CheckAddress::alive(check.host.clone()) => check.host.to_string(),
        Address::Check(check) => format!("{} {}", check.service, check.unit).trim_end().to_owned(),
        Address::Value(value) => {
            format!("{}.{}:{}.{}", value.service, value.resource, value.unit, value.attribute)
        }
    }
}

impl Engine {
    /// What suppresses whatever opens at this address now.
    pub(super) fn causes(&self, address: &Address) -> BTreeSet<Cause> {
        let mut causes = self.ordered_causes(address);
        causes.extend(self.roots(address).into_iter().map(Cause::Unreachable));
        causes
    }

    /// The same, as far as people say so.
    fn ordered_causes(&self, address: &Address) -> BTreeSet<Cause> {
        let Suppression { silences, windows, .. } = &self.suppression;
        let matching = silences.iter().filter(|(_, silence)| silence.pattern.matches(address));
        let mut causes: BTreeSet<_> = matching.map(|(id, _)| Cause::Silence(id.clone())).collect();
        let windows = self.settings.windows.iter().filter(|window| windows.contains_key(&window.name));
        let matching = windows.filter(|window| window.pattern.matches(address));
        causes.extend(matching.map(|window| Cause::Maintenance(window.name.clone())));
        causes
    }

    /// What is down and makes this unreachable: what it depends on, and who bars all ways of its host. Of a chain only the
    /// end.
    fn roots(&self, address: &Address) -> BTreeSet<CheckAddress> {
        self.down_ahead_of(address).iter().flat_map(|node| self.ends_behind(node, address)).collect()
    }

    fn down_ahead_of(&self, address: &Address) -> BTreeSet<CheckAddress> {
        let mut ahead = self.settings.dependencies.roots(address, |node| self.is_down(node));
        ahead.extend(self.barred_by(address.host()));
        ahead
    }

    /// Where the chain from `node` ends. Nowhere if it leads back to `start`: of what hides each other all is told.
    fn ends_behind(&self, node: &CheckAddress, start: &Address) -> BTreeSet<CheckAddress> {
        let (mut ends, mut seen, mut waiting) = (BTreeSet::new(), BTreeSet::new(), vec![node.clone()]);
        while let Some(node) = waiting.pop() {
            let address = Address::from(node.clone());
            if address == *start {
                return BTreeSet::new();
            }
            if !seen.insert(node.clone()) {
                continue;
            }
            let ahead = self.down_ahead_of(&address);
            if ahead.is_empty() {
                ends.insert(node);
            }
            waiting.extend(ahead);
        }
        if ends.is_empty() {
            ends.insert(node.clone());
        }
        ends
    }

    pub(super) fn is_down(&self, node: &CheckAddress) -> bool {
        self.incidents.contains(&node.clone().into(), CHECK)
    }

    /// Why an event that opens nothing is not told. What happened at the far side of something that is down is no less true,
    /// but that it did not answer is.
    pub(super) fn passing_suppressed_by(&self, kind: Kind, address: &Address) -> Vec<String> {
        let causes = match kind {
            Kind::Blip | Kind::Flapping => self.causes(address),
            _ => self.ordered_causes(address),
        };
        causes.iter().map(ToString::to_string).collect()
    }

    /// An incident that is about to be opened: what suppresses it, and how far up the ladder it is already.
    pub(super) fn suppress_opening(&mut self, key: &Key) -> Vec<String> {
        let causes = self.causes(&key.address);
        let Some(incident) = self.incidents.get_mut(key) else { return Vec::new() };
        incident.suppressed_by.clone_from(&causes);
        incident.owed = if causes.is_empty() { Owed::Nothing } else { Owed::Opening };
        self.suppression.index(key, &causes);
        self.await_step(key);
        causes.iter().map(ToString::to_string).collect()
    }

    /// An incident is no longer open.
    pub(super) fn end_suppression(&mut self, key: &Key, incident: &Incident) {
        self.suppression.unindex(key, &incident.suppressed_by);
        self.suppression.stop_lingering(key);
        if let Some(until) = incident.ack.as_ref().and_then(|ack| ack.until) {
            self.suppression.acks_due.remove(&(until, key.clone()));
        }
        if let Some(due) = self.step_due(incident) {
            self.suppression.steps_due.remove(&(due, key.clone()));
        }
    }

    /// After a restart: the indexes of what is open.
    pub(super) fn restore_suppression(&mut self) {
        let open: Vec<_> = self.incidents.iter().map(|(key, incident)| (key.clone(), incident.clone())).collect();
        for (key, incident) in open {
            self.suppression.index(&key, &incident.suppressed_by);
            if let Some(until) = incident.ack.as_ref().and_then(|ack| ack.until) {
                self.suppression.acks_due.insert((until, key.clone()));
            }
            self.await_step(&key);
            if incident.recovered.is_some() {
                self.linger(&key);
            }
        }
    }

    /// Other settings: what was open may depend on other things, and windows may be others.
    pub(super) fn compare_suppression(&mut self) {
        self.suppression.compared = true;
        let Suppression { windows, windows_due, steps_due, .. } = &mut self.suppression;
        let configured = |name: &String| self.settings.windows.iter().any(|window| window.name == *name);
        for (_, until) in windows.iter_mut().filter(|(name, _)| !configured(name)) {
            *until = UnixMillis(i64::MIN);
        }
        *windows_due = UnixMillis(i64::MIN);
        steps_due.clear();
        self.suppression.windows_doubtful = true;
        self.begin_windows();
        self.end_windows();
        let keys: Vec<_> = self.incidents.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.await_step(&key);
            self.refresh_reach(&key, self.wall);
            let now = self.ordered_causes(&key.address);
            let Some(incident) = self.incidents.get(&key) else { continue };
            let unreachable = |cause: &&Cause| matches!(cause, Cause::Unreachable(_));
            let had: BTreeSet<_> = incident.suppressed_by.iter().filter(|cause| !unreachable(cause)).cloned().collect();
            for cause in now.difference(&had) {
                self.suppress(&key, cause.clone());
            }
            for cause in had.difference(&now) {
                let ended = self.ended(cause);
                self.unsuppress(&key, cause, &ended);
            }
        }
    }

    /// Begins to suppress what is open and matches.
    fn suppress_matching(&mut self, cause: &Cause, pattern: &Pattern) -> Vec<String> {
        let matching = self.incidents.iter().filter(|(key, _)| pattern.matches(&key.address));
        let keys: Vec<_> = matching.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.suppress(key, cause.clone());
        }
        keys.into_iter().map(|key| key.address.to_string()).collect()
    }

    fn suppress(&mut self, key: &Key, cause: Cause) {
        let Some(incident) = self.incidents.get_mut(key) else { return };
        if incident.suppressed_by.insert(cause.clone()) {
            self.suppression.suppressed.entry(cause).or_default().insert(key.clone());
            self.save_incident(key);
        }
    }

    fn unsuppress(&mut self, key: &Key, cause: &Cause, ended: &str) {
        let Some(incident) = self.incidents.get_mut(key) else { return };
        if incident.suppressed_by.remove(cause) {
            self.suppression.unindex(key, [cause]);
            self.save_incident(key);
            self.settle(key, ended);
        }
    }

    /// A cause is no more, wherever it suppressed something.
    fn end_cause(&mut self, cause: &Cause, ended: &str) {
        let keys = self.suppression.suppressed.get(cause).cloned().unwrap_or_default();
        for key in keys {
            self.unsuppress(&key, cause, ended);
        }
    }

    fn ended(&self, cause: &Cause) -> String {
        match cause {
            Cause::Silence(id) => match self.suppression.silences.get(id) {
                Some(silence) => format!("{} by {} ended", silence.word(), silence.author),
                None => "silence ended".to_owned(),
            },
            Cause::Maintenance(name) => format!("maintenance {name} ended"),
            Cause::Unreachable(address) if *address == CheckAddress::alive(address.host.clone()) => {
                format!("{} can be reached again", address.host)
            }
            Cause::Unreachable(address) => format!("{address} is up again"),
        }
    }

    /// Makes good what was not told, if nothing keeps it back any more.
    fn settle(&mut self, key: &Key, ended: &str) {
        let Some(incident) = self.incidents.get_mut(key) else { return };
        let due = match incident.owed {
            Owed::Nothing => false,
            Owed::Step => incident.ack.is_none(),
            Owed::Opening => true,
        };
        if !due || !incident.suppressed_by.is_empty() {
            return;
        }
        incident.owed = Owed::Nothing;
        incident.revealed += 1;
        let incident = incident.clone();
        self.save_incident(key);
        let age = for_people(self.wall.since(incident.since));
        let mut text = format!("{ended}; {} is {} for {age}", subject(key), state_of(key));
        if !incident.text.is_empty() {
            text = format!("{text}: {}", incident.text);
        }
        let seen = Seen { time: self.wall, text, value: incident.value, state: state_of(key) };
        let severity = self.settings.classify(Kind::Revealed, &key.address, incident.top_severity);
        let mut draft = incident::draft(key, &incident, Kind::Revealed, severity, None, seen);
        draft.id = EventId::new(incident.id, Kind::Revealed, incident.revealed);
        self.outputs.push(Output::Event(draft));
    }

    fn save_incident(&mut self, key: &Key) {
        let incident = self.incidents.get(key).cloned();
        self.save(Saved::Incident(key.clone(), incident));
    }

    /// Everything of this file whose time has come.
    pub(super) fn scan_suppression(&mut self) {
        if self.attention < self.suppression.settled_at {
            return;
        }
        if !self.suppression.compared {
            self.compare_suppression();
        }
        // In the order in which they were due, also where a start delays them; at one moment a step comes before an end, so
        // that what is revealed says how far it has come.
        while let Some(due) = self.next_end() {
            self.climb(due);
            self.end_silences(due);
            self.end_acks(due);
        }
        self.climb(self.wall);
        self.end_windows();
        while let Some((until, key)) = self.suppression.lingering_due.first().cloned()
            && until <= self.attention
        {
            self.end_linger(&key);
        }
    }
}

/// Silences.
impl Engine {
    /// When the first silence or acknowledgement that is over by now ended.
    fn next_end(&self) -> Option<UnixMillis> {
        let silence = self.suppression.silences_due.first().map(|(until, _)| *until);
        let ack = self.suppression.acks_due.first().map(|(until, _)| *until);
        silence.into_iter().chain(ack).min().filter(|until| *until <= self.wall)
    }

    pub(super) fn silence(&mut self, id: &str, silence: Silence) -> Result<Ordered, ErrorBody> {
        if self.suppression.silences.len() >= MAX_SILENCES {
            return Err(refused(format!("there are {MAX_SILENCES} silences already; let one end first")));
        }
        let Silence { pattern, until, author, reason, .. } = &silence;
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let did = if silence.maintenance { "began maintenance of" } else { "silenced" };
        let text = format!("{author} {did} {pattern} until {until}{why}");
        let pattern = pattern.clone();
        self.save(Saved::Silence(id.to_owned(), Some(silence.clone())));
        self.suppression.restore_silence(id.to_owned(), silence);
        let addresses = self.suppress_matching(&Cause::Silence(id.to_owned()), &pattern);
        Ok(Ordered { text, addresses, unreached: Vec::new() })
    }

    pub(super) fn unsilence(&mut self, id: &str, author: &str) -> Result<Ordered, ErrorBody> {
        let Some(silence) = self.drop_silence(id) else {
            return Err(not_found(format!("there is no silence {:?}", quoted(id))));
        };
        let ended = format!("{} by {} ended", silence.word(), silence.author);
        self.end_cause(&Cause::Silence(id.to_owned()), &ended);
        let (word, pattern) = (silence.word(), &silence.pattern);
        Ok(done(format!("{author} ended the {word} on {pattern} by {}", silence.author)))
    }

    fn drop_silence(&mut self, id: &str) -> Option<Silence> {
        let silence = self.suppression.silences.remove(id)?;
        self.suppression.silences_due.remove(&(silence.until, id.to_owned()));
        self.save(Saved::Silence(id.to_owned(), None));
        Some(silence)
    }

    fn end_silences(&mut self, by: UnixMillis) {
        while let Some((until, id)) = self.suppression.silences_due.first().cloned()
            && until <= by
        {
            self.suppression.silences_due.pop_first();
            let Some(silence) = self.drop_silence(&id) else { continue };
            let (word, pattern, author) = (silence.word(), &silence.pattern, &silence.author);
            let key = Key { address: self.settings.own.clone().into(), rule: "order".to_owned() };
            let text = format!("{word} on {pattern} by {author} is over");
            let seen = Seen { time: until, text, value: None, state: State::Resolved };
            let mut draft = incident::passing(&key, Kind::Silence, Severity::Info, seen);
            draft.id = EventId::of_origin(&id, "over");
            self.outputs.push(Output::Event(draft));
            self.end_cause(&Cause::Silence(id), &format!("{word} by {author} ended"));
        }
    }
}

/// Maintenance windows.
impl Engine {
    /// Those whose time has come. Cheap while none has.
    pub(super) fn begin_windows(&mut self) {
        let wall = self.wall;
        let Suppression { windows_due, windows_read, windows_doubtful, .. } = &mut self.suppression;
        if wall < *windows_due && wall >= *windows_read {
            return;
        }
        *windows_doubtful |= wall < *windows_read;
        *windows_read = wall;
        let next =
            self.settings.windows.iter().filter_map(|window| window.next(wall, 1).first().map(|(from, _)| *from));
        *windows_due = next.min().unwrap_or(UnixMillis(i64::MAX));
        let active = self
            .settings
            .windows
            .iter()
            .filter_map(|window| Some((window.name.clone(), window.pattern.clone(), window.active_at(wall)?)));
        let active: Vec<_> = active.collect();
        for (name, pattern, until) in active {
            let before = self.suppression.windows.insert(name.clone(), until);
            if before != Some(until) {
                self.save(Saved::Maintenance(name.clone(), Some(until)));
            }
            if before.is_none() {
                self.suppress_matching(&Cause::Maintenance(name), &pattern);
            }
        }
    }

    fn end_windows(&mut self) {
        let wall = self.wall;
        let doubtful = std::mem::take(&mut self.suppression.windows_doubtful);
        let over = self.suppression.windows.iter().filter(|(_, until)| doubtful || **until <= wall);
        let over: Vec<_> = over.map(|(name, _)| name.clone()).collect();
        for name in over {
            let window = self.settings.windows.iter().find(|window| window.name == name);
            // One may begin before the one before it has ended.
            if let Some(until) = window.and_then(|window| window.active_at(wall)) {
                if self.suppression.windows.insert(name.clone(), until) != Some(until) {
                    self.save(Saved::Maintenance(name, Some(until)));
                }
                continue;
            }
            self.suppression.windows.remove(&name);
            self.save(Saved::Maintenance(name.clone(), None));
            let cause = Cause::Maintenance(name);
            let ended = self.ended(&cause);
            self.end_cause(&cause, &ended);
        }
    }
}

/// What cannot be reached.
impl Engine {
    /// Something went down or came up, at this moment of its observer: what depends on it is looked at anew.
    pub(super) fn reach_changed(&mut self, node: &CheckAddress, at: UnixMillis) {
        let mut keys = self.depending_on(node);
        if *node == CheckAddress::alive(node.host.clone()) {
            for host in self.carried_by(&node.host).into_iter().chain([node.host.clone()]) {
                keys.extend(self.behind(&host));
            }
        }
        for key in keys {
            self.refresh_reach(&key, at);
        }
    }

    /// A host is heard, or no longer, or by other ways, which is neither up nor down.
    pub(super) fn reach_of_host_changed(&mut self, host: &HostName, at: UnixMillis) {
        for key in self.behind(host) {
            self.refresh_reach(&key, at);
        }
    }

    /// What is open at a host, and what depends on that.
    fn behind(&self, host: &HostName) -> BTreeSet<Key> {
        let own: Vec<_> = self.incidents.of_host(host).map(|(key, _)| key.clone()).collect();
        let nodes = own.iter().filter_map(incident::node);
        nodes.flat_map(|node| self.depending_on(&node)).chain(own.iter().cloned()).collect()
    }

    /// What is open and depends on this by a pattern.
    fn depending_on(&self, node: &CheckAddress) -> BTreeSet<Key> {
        let dependencies = &self.settings.dependencies;
        if !dependencies.leads_to(node) {
            return BTreeSet::new();
        }
        let open = self.incidents.iter().map(|(key, _)| key);
        open.filter(|key| dependencies.concerns(node, &key.address)).cloned().collect()
    }

    fn refresh_reach(&mut self, key: &Key, at: UnixMillis) {
        let roots: BTreeSet<_> = self.roots(&key.address).into_iter().map(Cause::Unreachable).collect();
        let Some(incident) = self.incidents.get_mut(key) else { return };
        let unreachable = |cause: &&Cause| matches!(cause, Cause::Unreachable(_));
        let had: BTreeSet<_> = incident.suppressed_by.iter().filter(unreachable).cloned().collect();
        if roots.is_empty() {
            // It may have recovered as well, and not have been observed since.
            if !had.is_empty() && incident.recovered.is_none() {
                incident.recovered = Some(at);
                self.linger(key);
                self.save_incident(key);
            }
            return;
        }
        let lingered = incident.recovered.take().is_some();
        if had == roots && !lingered {
            return;
        }
        incident.suppressed_by.retain(|cause| !had.contains(cause));
        incident.suppressed_by.extend(roots.iter().cloned());
        self.suppression.unindex(key, &had);
        self.suppression.index(key, &roots);
        self.suppression.stop_lingering(key);
        self.save_incident(key);
    }

    fn linger(&mut self, key: &Key) {
        let interval = Duration::from_millis(self.interval_ms(&key.address));
        // Who is not heard yet, though the way is open, has to be heard first or found silent.
        let away = self.hosts.get(key.address.host()).filter(|host| host.is_away());
        let unheard = away.map_or(Duration::ZERO, |host| host.tuning.host_down_after);
        let until = self.attention + unheard + (interval * MISSED_INTERVALS).max(MIN_LINGER);
        self.suppression.linger(key, until);
    }

    fn end_linger(&mut self, key: &Key) {
        self.suppression.stop_lingering(key);
        let Some(incident) = self.incidents.get_mut(key) else { return };
        incident.recovered = None;
        let over: Vec<_> =
            incident.suppressed_by.extract_if(.., |cause| matches!(cause, Cause::Unreachable(_))).collect();
        self.suppression.unindex(key, &over);
        self.save_incident(key);
        let ended = over.first().map(|cause| self.ended(cause)).unwrap_or_default();
        self.settle(key, &ended);
    }

    /// Whether anything of this host waits to be [`observed`](Self::observed).
    pub(super) fn awaits_observations(&self, host: &HostName) -> bool {
        self.awaits_any_observation() && self.suppression.lingering_at.contains_key(host)
    }

    /// Whether anything at all waits for that: nearly never.
    pub(super) fn awaits_any_observation(&self) -> bool {
        !self.suppression.lingering_at.is_empty()
    }

    /// What is still open at this address after it was observed at this time is so although what it depends on has recovered.
    pub(super) fn observed(&mut self, address: &Address, time: UnixMillis) {
        let lingering = |key: &&Key| self.suppression.lingering.contains_key(*key);
        let open = self.incidents.at(address).filter(|(key, _)| lingering(key));
        let observed = open.filter(|(_, incident)| incident.recovered.is_none_or(|recovered| time >= recovered));
        let keys: Vec<_> = observed.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.end_linger(&key);
        }
    }

    fn interval_ms(&self, address: &Address) -> u64 {
        match address {
            Address::Check(check) => self.checks.get(check).map_or(0, |entry| entry.interval_ms),
            Address::Value(value) => self.interval_of(value),
        }
    }
}

/// Acknowledgements.
impl Engine {
    pub(super) fn ack(&mut self, keys: Vec<Key>, ack: &Ack) -> Ordered {
        for key in &keys {
            let Some(incident) = self.incidents.get_mut(key) else { continue };
            if let Some(until) = incident.ack.replace(ack.clone()).and_then(|before| before.until) {
                self.suppression.acks_due.remove(&(until, key.clone()));
            }
            if let Some(until) = ack.until {
                self.suppression.acks_due.insert((until, key.clone()));
            }
            self.save_incident(key);
        }
        let until = ack.until.map_or(String::new(), |until| format!(" until {until}"));
        let why = if ack.reason.is_empty() { String::new() } else { format!(": {}", ack.reason) };
        let text = format!("{} looks after {}{until}{why}", ack.author, listed(&keys));
        Ordered { text, addresses: addresses(keys), unreached: Vec::new() }
    }

    pub(super) fn unack(&mut self, keys: Vec<Key>, author: &str) -> Result<Ordered, ErrorBody> {
        let acked = |key: &Key| self.incidents.get(key).is_some_and(|incident| incident.ack.is_some());
        let keys: Vec<_> = keys.into_iter().filter(acked).collect();
        if keys.is_empty() {
            return Err(not_found("nobody looks after that"));
        }
        for key in &keys {
            self.end_ack(key);
        }
        let text = format!("{author} says that nobody looks after {} any more", listed(&keys));
        Ok(Ordered { text, addresses: addresses(keys), unreached: Vec::new() })
    }

    fn end_ack(&mut self, key: &Key) -> Option<Ack> {
        let ack = self.incidents.get_mut(key)?.ack.take()?;
        if let Some(until) = ack.until {
            self.suppression.acks_due.remove(&(until, key.clone()));
        }
        self.save_incident(key);
        self.settle(key, &format!("acknowledgement by {} ended", ack.author));
        Some(ack)
    }

    fn end_acks(&mut self, by: UnixMillis) {
        while let Some((until, key)) = self.suppression.acks_due.first().cloned()
            && until <= by
        {
            self.suppression.acks_due.remove(&(until, key.clone()));
            let Some(incident) = self.incidents.get(&key).cloned() else { continue };
            let Some(ack) = &incident.ack else { continue };
            let text = format!("nobody looks after {} any more: the time {} took is over", key.address, ack.author);
            let seen = Seen { time: until, text, value: None, state: state_of(&key) };
            let mut draft = incident::draft(&key, &incident, Kind::Ack, Severity::Info, None, seen);
            draft.id = EventId::of_origin(&format!("{} {}", ack.order, incident.id), "over");
            draft.suppressed_by = incident.suppressed_by.iter().map(ToString::to_string).collect();
            self.outputs.push(Output::Event(draft));
            self.end_ack(&key);
        }
    }

    /// What is open at matching addresses, or the one incident.
    pub(super) fn open_matching(&self, pattern: &Pattern) -> Vec<Key> {
        let open = self.incidents.iter().map(|(key, _)| key);
        open.filter(|key| pattern.matches(&key.address)).cloned().collect()
    }

    pub(super) fn open_incident(&self, id: IncidentId) -> Vec<Key> {
        self.incidents.iter().filter(|(_, incident)| incident.id == id).map(|(key, _)| key.clone()).collect()
    }
}

fn addresses(keys: Vec<Key>) -> Vec<String> {
    keys.into_iter().map(|key| key.address.to_string()).collect()
}

/// For a text: the address if there is but one.
fn listed(keys: &[Key]) -> String {
    match keys {
        [key] => key.address.to_string(),
        keys => format!("{} incidents", keys.len()),
    }
}

/// The ladder.
impl Engine {
    /// When the incident reaches its next step.
    fn step_due(&self, incident: &Incident) -> Option<UnixMillis> {
        let age = self.settings.ladder.age_at(incident.steps.checked_add(1)?)?;
        Some(UnixMillis(incident.since.0.saturating_add(i64::try_from(age.as_millis()).ok()?)))
    }

    fn await_step(&mut self, key: &Key) {
        if let Some(due) = self.incidents.get(key).and_then(|incident| self.step_due(incident)) {
            self.suppression.steps_due.insert((due, key.clone()));
        }
    }

    fn is_flapping(&self, key: &Key) -> bool {
        match incident::node(key) {
            Some(check) => self.checks.get(&check).is_some_and(|entry| entry.flaps.is_flapping()),
            None => false,
        }
    }

    /// Says what had lasted so long by then. Of several steps at once only the last: nobody was there to say the others.
    fn climb(&mut self, by: UnixMillis) {
        while let Some((due, key)) = self.suppression.steps_due.first().cloned()
            && due <= by
        {
            self.suppression.steps_due.pop_first();
            // Whether it is still down is not known before it is calm.
            if self.is_flapping(&key) {
                let later = self.wall.0.saturating_add(i64::try_from(FLAPPING_LATER.as_millis()).unwrap_or(i64::MAX));
                self.suppression.steps_due.insert((UnixMillis(later), key));
                continue;
            }
            let Some(incident) = self.incidents.get_mut(&key) else { continue };
            let (steps, at_least) = self.settings.ladder.reached(self.wall.since(incident.since));
            if steps > incident.steps {
                incident.steps = steps;
                let severity = at_least.map_or(incident.top_severity, |severity| severity.max(incident.top_severity));
                let severity = self.settings.classify(Kind::Persistent, &key.address, severity);
                incident.top_severity = incident.top_severity.max(severity);
                let suppressed_by = suppressed_by(incident);
                if !suppressed_by.is_empty() {
                    incident.owed = incident.owed.max(Owed::Step);
                }
                let incident = incident.clone();
                self.save_incident(&key);
                let age = for_people(self.settings.ladder.age_at(steps).unwrap_or_default());
                let text = format!("still {} after {age}: {}", state_of(&key), incident.text);
                let seen = Seen { time: self.wall, text, value: incident.value, state: state_of(&key) };
                let mut draft = incident::draft(&key, &incident, Kind::Persistent, severity, None, seen);
                draft.id = EventId::new(incident.id, Kind::Persistent, steps);
                draft.suppressed_by = suppressed_by;
                self.outputs.push(Output::Event(draft));
            }
            self.await_step(&key);
        }
    }
}
