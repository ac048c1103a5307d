//! Open incidents, and the events that are said about them.

use common::address::Address;
use common::message::{EventId, IncidentId, Kind, State};
use common::severity::Severity;
use common::time::UnixMillis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

    pub(super) fn contains(&self, address: &Address, rule: &str) -> bool {
        self.0.contains_key(&Key { address: address.clone(), rule: rule.to_owned() })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Incident)> {
        self.0.iter()
    }

    /// Those of one address, under whichever rule.
    pub(super) fn at(&self, address: &Address) -> impl Iterator<Item = (&Key, &Incident)> {
        let first = Key { address: address.clone(), rule: String::new() };
        self.0.range(first..).take_while(move |(key, _)| key.address == *address)
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
        let id = IncidentId::new(&key.address, &key.rule, since);
        let incident = Incident { id, top_severity: severity, since, text: seen.text.clone(), value: seen.value };
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

/// An incident is opened and closed by one event each, so the ordinal within the incident is 1.
fn draft(
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
        step: None,
        duration_ms,
        suppressed_by: Vec::new(),
        data: None,
    }
}

/// An event that neither opens nor closes anything, and is an incident of its own only so far as its id goes.
pub(super) fn passing(key: &Key, kind: Kind, severity: Severity, seen: Seen) -> Draft {
    let incident = Incident {
        id: IncidentId::new(&key.address, &key.rule, seen.time),
        top_severity: severity,
        since: seen.time,
        text: String::new(),
        value: None,
    };
    draft(key, &incident, kind, severity, None, seen)
}
