//! What the engine knows, as rows for those who ask.

use super::Engine;
use super::check::{CheckEntry, first_of};
use super::host::Host;
use super::incident::{Incident, Key};
use super::rule::{Condition, RuleOrigin};
use common::address::{Address, CheckAddress, HostName, Pattern};
use common::message::{AlarmRow, AlarmState, DownRow, ServerRow, ServerStatus, ServiceRow, ValueRow};
use common::severity::Severity;
use std::collections::HashMap;

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
        severity: incident.top_severity,
        since: incident.since,
        text: incident.text.clone(),
        acked: false,
        silenced: false,
        unreachable: false,
        step: None,
        suppressed_by: Vec::new(),
    }
}
