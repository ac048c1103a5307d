//! What the engine knows, as rows for those who ask.

use super::Engine;
use super::check::{CheckEntry, first_of};
use super::host::Host;
use super::incident::{CHECK, Incident, Key};
use super::numbers::View;
use super::order::Subscriber;
use super::rule::{Condition, Rule, RuleOrigin};
use super::suppression::{Cause, Silence, suppressed_by};
use super::window::Window;
use common::address::{Address, CheckAddress, HostName, Pattern};
use common::message::{
    AlarmRow, AlarmState, DownRow, Explanation, MaintenanceRow, RuleView, ServerRow, ServerStatus, ServiceRow,
    SilenceRow, State, SubscriberRow, ValueRow,
};
use common::severity::Severity;
use common::time::UnixMillis;
use std::collections::{BTreeSet, HashMap};

/// Of a maintenance window so many occurrences are shown that are still to come.
const SHOWN_OCCURRENCES: usize = 5;

impl Engine {
    /// Whether anything was ever heard of this host.
    pub fn knows(&self, name: &HostName) -> bool {
        self.hosts.contains_key(name)
    }

    /// `server-list`.
    pub fn server_list(&self) -> Vec<ServerRow> {
        let mut open: HashMap<&HostName, (u64, Severity)> = HashMap::new();
        for (key, incident) in self.incidents.iter() {
            let (count, worst) = open.entry(key.address.host()).or_insert((0, incident.top_severity));
            *count += 1;
            *worst = incident.top_severity.max(*worst);
        }
        let mut checks: HashMap<&HostName, u64> = HashMap::new();
        for address in self.checks.keys() {
            *checks.entry(&address.host).or_default() += 1;
        }
        let rows = self.hosts.iter().map(|(name, host)| {
            server_row(name, host, checks.get(name).copied().unwrap_or(0), open.get(name).copied())
        });
        rows.collect()
    }

    fn checks_of<'a>(&'a self, name: &'a HostName) -> impl Iterator<Item = (&'a CheckAddress, &'a CheckEntry)> {
        self.checks.range(first_of(name)..).take_while(move |(address, _)| address.host == *name)
    }

    fn open_at<'a>(&'a self, name: &'a HostName) -> impl Iterator<Item = (&'a Key, &'a Incident)> {
        self.incidents.of_host(name)
    }

    /// `server-status`, unless the host is unknown.
    pub fn server_status(&self, name: &HostName) -> Option<ServerStatus> {
        let host = self.hosts.get(name)?;
        let incidents: Vec<_> = self.open_at(name).map(down_row).collect();
        let services: Vec<_> = self.checks_of(name).map(service_row).collect();
        let worst = incidents.iter().map(|row| row.severity).max();
        Some(ServerStatus {
            server: server_row(name, host, services.len() as u64, worst.map(|worst| (incidents.len() as u64, worst))),
            services,
            incidents,
            values: self.values([name].into_iter(), None),
        })
    }

    /// `service-list`, of one host or of all.
    pub fn service_list(&self, name: Option<&HostName>) -> Vec<ServiceRow> {
        match name {
            Some(name) => self.checks_of(name).map(service_row).collect(),
            None => self.checks.iter().map(service_row).collect(),
        }
    }

    /// `down-list`: the open incidents, worst first, then oldest first.
    pub fn down_list(&self) -> Vec<DownRow> {
        let mut rows: Vec<_> = self.incidents.iter().map(down_row).collect();
        rows.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.since.cmp(&b.since)));
        rows
    }

    /// `last-value`.
    pub fn last_value(&self, pattern: &Pattern) -> Vec<ValueRow> {
        self.values(self.numbers.hosts().filter(|host| pattern.matches_host(host)), Some(pattern))
    }

    fn values<'a>(&self, hosts: impl Iterator<Item = &'a HostName>, pattern: Option<&Pattern>) -> Vec<ValueRow> {
        let mut rows = Vec::new();
        for group in hosts.flat_map(|host| self.numbers.of_host(host)) {
            let (Some(time), stale) = (group.time(), self.is_stale(&group)) else { continue };
            for (attribute, value) in group.numbers() {
                if pattern.is_none_or(|pattern| group.matches(pattern, attribute)) {
                    rows.push(ValueRow { address: group.address(attribute), value, time, stale });
                }
            }
        }
        rows.sort_by(|a, b| a.address.cmp(&b.address));
        rows
    }

    /// `silence-list`: what ends first comes first.
    pub fn silence_list(&self) -> Vec<SilenceRow> {
        let mut rows: Vec<_> = self
            .suppression
            .silences
            .iter()
            .map(|(id, silence)| SilenceRow {
                id: id.clone(),
                pattern: silence.pattern.to_string(),
                until: silence.until,
                since: silence.since,
                author: silence.author.clone(),
                reason: silence.reason.clone(),
                maintenance: silence.maintenance,
                open: self.suppression.count(&Cause::Silence(id.clone())) as u64,
            })
            .collect();
        rows.sort_by(|a, b| a.until.cmp(&b.until).then(a.id.cmp(&b.id)));
        rows
    }

    /// `maintenance-list`, as of the last call.
    pub fn maintenance_list(&self) -> Vec<MaintenanceRow> {
        let row = |window: &Window| MaintenanceRow {
            name: window.name.clone(),
            pattern: window.pattern.to_string(),
            when: window.to_string(),
            active_until: self.suppression.windows.get(&window.name).copied(),
            next: window.next(self.wall, SHOWN_OCCURRENCES),
        };
        self.settings.windows.iter().map(row).collect()
    }

    /// `subscriber-list`.
    pub fn subscriber_list(&self) -> Vec<SubscriberRow> {
        let row = |((via, name), subscriber): (&(String, String), &Subscriber)| SubscriberRow {
            name: name.clone(),
            via: via.clone(),
            severity: subscriber.severity,
            pattern: subscriber.pattern.to_string(),
            author: subscriber.author.clone(),
            since: subscriber.since,
            confirmed: subscriber.confirmed,
        };
        self.subscribers.iter().map(row).collect()
    }

    /// `explain`: all that bears on one address, unless nothing is known of it. One with a comment is also found without.
    pub fn explain(&self, asked: &Address) -> Option<Explanation> {
        let address = self.known_as(asked)?;
        let (state, since, last) = self.last_seen(&address);
        let incidents: Vec<_> = self.incidents.at(&address).map(down_row).collect();
        let causes = self.causes(&address);
        let mut why = Vec::new();
        for (key, incident) in self.incidents.at(&address) {
            let severity = incident.top_severity;
            why.push(match key.rule.as_str() {
                CHECK => format!("it is down ({severity}) since {}: {}", incident.since, incident.text),
                rule => format!("{rule:?} is open ({severity}) since {}: {}", incident.since, incident.text),
            });
            why.extend(incident.ack.as_ref().map(|ack| format!("{} looks after it", ack.author)));
            if incident.recovered.is_some() {
                why.push("what it depends on has recovered, and it has not been observed since".to_owned());
            }
        }
        if state == State::Unknown && incidents.is_empty() {
            why.push("nobody reports it now".to_owned());
        }
        why.extend(causes.iter().map(|cause| self.in_words(cause)));
        let of_incidents = incidents.iter().flat_map(|row| row.suppressed_by.iter().cloned());
        let untold: BTreeSet<_> = causes.iter().map(ToString::to_string).chain(of_incidents).collect();
        let mut dependencies = self.settings.dependencies.direct(&address);
        if Address::from(CheckAddress::alive(address.host().clone())) == address {
            let carriers = self.carried_only_by(address.host()).into_iter();
            dependencies.extend(carriers.filter(|on| !dependencies.contains(on)).collect::<Vec<_>>());
        }
        Some(Explanation {
            state,
            since,
            why,
            last,
            incidents,
            rules: self.rule_views(&address),
            suppressed_by: untold.into_iter().collect(),
            depends_on: dependencies.into_iter().map(|on| (on.clone().into(), self.state_of_check(&on))).collect(),
            address,
        })
    }

    /// The address as we have it.
    fn known_as(&self, asked: &Address) -> Option<Address> {
        let is_known = |address: &Address| match address {
            Address::Check(check) => {
                self.checks.contains_key(check) || (is_alive(check) && self.hosts.contains_key(&check.host))
            }
            Address::Value(value) => {
                let mut attributes = self.numbers.view_of(value).into_iter().flat_map(View::numbers);
                attributes.any(|(attribute, _)| *attribute == value.attribute)
            }
        };
        if is_known(asked) || self.incidents.at(asked).next().is_some() {
            return Some(asked.clone());
        }
        let pattern = Pattern::exact(asked);
        let check = self.checks_of(asked.host()).map(|(address, _)| address).find(|check| pattern.matches_check(check));
        check
            .map(|check| check.clone().into())
            .or_else(|| self.last_value(&pattern).first().map(|row| row.address.clone()))
    }

    /// State, since when, and what was last seen there.
    fn last_seen(&self, address: &Address) -> (State, Option<UnixMillis>, Option<String>) {
        match address {
            Address::Check(check) => match (self.checks.get(check), self.hosts.get(&check.host)) {
                (Some(entry), _) => (entry.state(), Some(entry.state_since()), Some(entry.text.clone())),
                (None, Some(host)) if is_alive(check) => (host.state, Some(host.since), None),
                (None, _) => (State::Unknown, None, None),
            },
            Address::Value(value) => {
                let since = self.incidents.at(address).map(|(_, incident)| incident.since).min();
                let state = if since.is_some() { State::Open } else { State::Resolved };
                (state, since, self.numbers.value(value).map(|number| number.to_string()))
            }
        }
    }

    fn state_of_check(&self, check: &CheckAddress) -> State {
        self.last_seen(&check.clone().into()).0
    }

    fn in_words(&self, cause: &Cause) -> String {
        match cause {
            Cause::Silence(id) => match self.suppression.silences.get(id) {
                Some(Silence { author, pattern, until, maintenance, .. }) => {
                    let what = if *maintenance { "has under maintenance" } else { "silenced" };
                    format!("{author} {what} {pattern} until {until}")
                }
                None => cause.to_string(),
            },
            Cause::Maintenance(name) => format!("maintenance {name} is under way"),
            Cause::Unreachable(root) => format!("it cannot be reached while {root} is down"),
        }
    }

    fn rule_views(&self, address: &Address) -> Vec<RuleView> {
        let view = |rule: &Rule| {
            let key = Key { address: address.clone(), rule: rule.name.clone() };
            let (phase, since) = match (self.incidents.get(&key), self.pending.get(&key)) {
                (Some(incident), _) => ("open", Some(incident.since)),
                (None, Some(since)) => ("pending", Some(*since)),
                (None, None) => ("fine", None),
            };
            RuleView { name: rule.name.clone(), rule: rule.text.clone(), phase: phase.to_owned(), since }
        };
        self.settings.rules.iter().filter(|rule| rule.judges(address)).map(view).collect()
    }

    /// `alarm-list`.
    pub fn alarm_list(&self) -> Vec<AlarmRow> {
        let mut rows: Vec<_> = self
            .settings
            .rules
            .iter()
            .map(|rule| AlarmRow {
                origin: match rule.origin {
                    RuleOrigin::File => "file",
                    RuleOrigin::Default => "default",
                    RuleOrigin::Order { .. } => "order",
                }
                .to_owned(),
                author: match &rule.origin {
                    RuleOrigin::Order { author, .. } => Some(author.clone()),
                    RuleOrigin::File | RuleOrigin::Default => None,
                },
                added: match rule.origin {
                    RuleOrigin::Order { added, .. } => Some(added),
                    RuleOrigin::File | RuleOrigin::Default => None,
                },
                name: rule.name.clone(),
                rule: rule.text.clone(),
                severity: rule.severity,
                matches: 0,
                active: Vec::new(),
            })
            .collect();
        for (row, matches) in rows.iter_mut().zip(self.numbers.matches(self.settings.rules.len())) {
            row.matches = matches;
        }
        for (Key { address, rule }, since) in &self.pending {
            let Address::Value(number) = address else { continue };
            if let Some(row) = rows.iter_mut().find(|row| row.name == *rule) {
                let value = self.numbers.value(number);
                row.active.push(AlarmState { address: address.clone(), open: false, since: *since, value });
            }
        }
        for check in self.checks.values() {
            let absences = self.settings.rules.iter().enumerate();
            for (rule, _) in absences.filter(|(_, rule)| matches!(rule.condition, Condition::Absent { .. })) {
                rows[rule].matches += u64::from(check.is_watched_by(rule));
            }
        }
        for (key, incident) in self.incidents.iter() {
            if let Some(row) = rows.iter_mut().find(|row| row.name == key.rule) {
                let (address, since, value) = (key.address.clone(), incident.since, incident.value);
                row.active.push(AlarmState { address, open: true, since, value });
            }
        }
        for row in &mut rows {
            row.active.sort_by(|a, b| a.address.cmp(&b.address));
        }
        rows
    }
}

/// A host's own incident.
fn is_alive(check: &CheckAddress) -> bool {
    *check == CheckAddress::alive(check.host.clone())
}

/// `open` is how many incidents there are, and the worst.
fn server_row(name: &HostName, host: &Host, checks: u64, open: Option<(u64, Severity)>) -> ServerRow {
    ServerRow {
        host: name.clone(),
        state: host.state,
        since: host.since,
        last_seen: host.last_seen,
        severity: open.map(|(_, worst)| worst),
        checks,
        open: open.map_or(0, |(count, _)| count),
    }
}

fn service_row((address, check): (&CheckAddress, &CheckEntry)) -> ServiceRow {
    ServiceRow {
        host: address.host.clone(),
        service: address.service.clone(),
        unit: address.unit.clone(),
        state: check.state(),
        since: check.state_since(),
        text: check.text.clone(),
    }
}

fn down_row((key, incident): (&Key, &Incident)) -> DownRow {
    DownRow {
        incident: incident.id,
        address: key.address.clone(),
        rule: key.rule.clone(),
        kind: Some(incident.began_as(key)),
        severity: incident.top_severity,
        since: incident.since,
        text: incident.text.clone(),
        acked: incident.ack.is_some(),
        silenced: incident.suppressed_by.iter().any(|cause| !matches!(cause, Cause::Unreachable(_))),
        unreachable: incident.suppressed_by.iter().any(|cause| matches!(cause, Cause::Unreachable(_))),
        step: (incident.steps > 0).then_some(incident.steps),
        suppressed_by: suppressed_by(incident),
    }
}
