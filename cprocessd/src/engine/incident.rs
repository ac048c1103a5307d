//! Open incidents, and the events that are said about them.

use super::suppression::{Ack, Cause, Owed};
use common::address::{Address, CheckAddress, HostName, Name, Unit, ValueAddress};
use common::database::Aside;
use common::message::{EventId, IncidentId, Kind, State};
use common::severity::Severity;
use common::time::UnixMillis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The rule name of what is up or down.
pub(super) const CHECK: &str = "check";
/// The rule name of a configured check that is not reported.
pub(super) const SILENT: &str = "silent";
/// The rule name of what was found up when it was first seen.
pub(super) const INITIAL: &str = "initial";
/// The rule name of a check that changes too often.
pub(super) const FLAPPING: &str = "flapping";
/// The rule name of a clock that differs from ours.
pub(super) const CLOCK: &str = "clock";
/// Rule names that the engine uses itself.
pub const RESERVED: [&str; 9] = [CHECK, SILENT, INITIAL, FLAPPING, CLOCK, "blip", "log", "alive", "order"];

/// What an incident is about: at most one is open per key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The check or number.
    pub address: Address,
    /// The rule's name, or one of [`RESERVED`].
    pub rule: String,
}

/// An open incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Of key and `since`.
    pub id: IncidentId,
    /// The worst it has been.
    pub top_severity: Severity,
    /// The time of its first bad observation.
    pub since: UnixMillis,
    /// What was seen when it opened.
    pub text: String,
    /// The number that crossed the limit.
    pub value: Option<f64>,
    /// Steps of the ladder that it has reached.
    #[serde(default)]
    pub steps: u32,
    /// Why it is not told.
    #[serde(default)]
    pub suppressed_by: BTreeSet<Cause>,
    /// When the last of what it depends on recovered, by its observer's clock; it has not been observed since.
    #[serde(default)]
    pub recovered: Option<UnixMillis>,
    /// What was not told of it.
    #[serde(default)]
    pub owed: Owed,
    /// How often it was `revealed`.
    #[serde(default)]
    pub revealed: u32,
    /// Somebody looks after it.
    #[serde(default)]
    pub ack: Option<Ack>,
}

impl Incident {
    fn new(key: &Key, severity: Severity, since: UnixMillis, text: String, value: Option<f64>) -> Self {
        Self {
            id: IncidentId::new(&key.address, &key.rule, since),
            top_severity: severity,
            since,
            text,
            value,
            steps: 0,
            suppressed_by: BTreeSet::new(),
            recovered: None,
            owed: Owed::Nothing,
            revealed: 0,
            ack: None,
        }
    }

    /// The kind of its first event: what is missed has no number that crossed a limit.
    pub(super) fn began_as(&self, key: &Key) -> Kind {
        match key.rule.as_str() {
            CHECK => Kind::Down,
            SILENT => Kind::Absent,
            _ if self.value.is_none() => Kind::Absent,
            _ => Kind::Alarm,
        }
    }
}

/// An event before it has a place in the journal. The fields are those of [`common::message::Event`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are documented where they are a contract")]
pub struct Draft {
    pub id: EventId,
    pub incident: IncidentId,
    pub kind: Kind,
    pub address: Address,
    pub severity: Severity,
    pub top_severity: Severity,
    pub state: State,
    pub since: UnixMillis,
    pub time: UnixMillis,
    pub text: String,
    pub value: Option<f64>,
    pub rule: String,
    pub step: Option<u32>,
    pub duration_ms: Option<u64>,
    pub suppressed_by: Vec<String>,
    pub data: Option<rmpv::Value>,
}

impl Draft {
    /// What people are told of a database that was set aside: cprocessd speaks of itself at `own`.
    pub fn of_damage(own: &CheckAddress, aside: &Aside, now: UnixMillis) -> Self {
        let key = Key { address: own.clone().into(), rule: "log".to_owned() };
        let text = format!("cprocessd has a new journal: {aside}");
        passing(&key, Kind::Log, Severity::Err, Seen { time: now, text, value: None, state: State::Unknown })
    }
}

/// What was seen, at the moment an incident opens or closes.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) time: UnixMillis,
    pub(super) text: String,
    pub(super) value: Option<f64>,
    pub(super) state: State,
}

/// Every open incident, in the order of addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Incidents(BTreeMap<Key, Incident>);

impl Incidents {
    pub(super) fn restore(&mut self, key: Key, incident: Incident) {
        self.0.insert(key, incident);
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Incident> {
        self.0.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Incident> {
        self.0.get_mut(key)
    }

    pub(super) fn contains(&self, address: &Address, rule: &str) -> bool {
        self.0.contains_key(&Key { address: address.clone(), rule: rule.to_owned() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Incident)> {
        self.0.iter()
    }

    /// Those of one address, under whichever rule.
    pub(super) fn at(&self, address: &Address) -> impl Iterator<Item = (&Key, &Incident)> {
        let first = Key { address: address.clone(), rule: String::new() };
        self.0.range(first..).take_while(move |(key, _)| key.address == *address)
    }

    /// Those of one host, in the order of addresses.
    pub(super) fn of_host<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = (&'a Key, &'a Incident)> {
        let from = |address| self.0.range(Key { address, rule: String::new() }..);
        let [checks, values] = first_of(host);
        from(checks)
            .take_while(move |(key, _)| matches!(&key.address, Address::Check(check) if check.host == *host))
            .chain(from(values).take_while(move |(key, _)| key.address.host() == host))
    }

    /// Opens an incident. One that is open under this key stays as it is, and there is nothing to say.
    pub(super) fn open(
        &mut self,
        key: Key,
        kind: Kind,
        severity: Severity,
        since: UnixMillis,
        seen: Seen,
    ) -> Option<Draft> {
        if self.0.contains_key(&key) {
            return None;
        }
        let incident = Incident::new(&key, severity, since, seen.text.clone(), seen.value);
        let draft = draft(&key, &incident, kind, severity, None, seen);
        self.0.insert(key, incident);
        Some(draft)
    }

    /// Closes an incident, if it is open.
    pub(super) fn close(&mut self, key: &Key, kind: Kind, severity: Severity, seen: Seen) -> Option<Draft> {
        let incident = self.0.remove(key)?;
        let duration = seen.time.millis_since(incident.since);
        Some(draft(key, &incident, kind, severity, Some(duration), seen))
    }
}

/// What is down while this is open, so that something may depend on it.
pub(super) fn node(key: &Key) -> Option<CheckAddress> {
    match &key.address {
        Address::Check(check) if key.rule == CHECK => Some(check.clone()),
        Address::Check(_) | Address::Value(_) => None,
    }
}

/// Where the checks of a host begin, and where its numbers do: addresses are in the order of kinds, then of hosts.
pub(super) fn first_of(host: &HostName) -> [Address; 2] {
    // The least of the characters that a name may hold.
    let least = || Name::try_from("-").expect("a name");
    let (host, unit) = (host.clone(), Unit::default());
    let value = ValueAddress {
        host: host.clone(),
        service: least(),
        resource: least(),
        unit: unit.clone(),
        attribute: least(),
    };
    [Address::Check(CheckAddress { host, service: least(), unit }), Address::Value(value)]
}

/// An incident is opened and closed by one event each, so the ordinal within the incident is 1.
pub(super) fn draft(
    key: &Key,
    incident: &Incident,
    kind: Kind,
    severity: Severity,
    duration_ms: Option<u64>,
    seen: Seen,
) -> Draft {
    Draft {
        id: EventId::new(incident.id, kind, 1),
        incident: incident.id,
        kind,
        address: key.address.clone(),
        severity,
        top_severity: incident.top_severity.max(severity),
        state: seen.state,
        since: incident.since,
        time: seen.time,
        text: seen.text,
        value: seen.value,
        rule: key.rule.clone(),
        step: (incident.steps > 0).then_some(incident.steps),
        duration_ms,
        suppressed_by: Vec::new(),
        data: None,
    }
}

/// An event that neither opens nor closes anything, and is an incident of its own only so far as its id goes.
pub(super) fn passing(key: &Key, kind: Kind, severity: Severity, seen: Seen) -> Draft {
    let incident = Incident::new(key, severity, seen.time, String::new(), None);
    draft(key, &incident, kind, severity, None, seen)
}
