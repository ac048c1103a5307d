//! What the engine knows, as rows for those who ask.

use super::Engine;
use super::alarm::{Phase, worst};
use super::incident::{Incident, Key};
use super::rule::Condition;
use common::address::{Address, HostName, Pattern};
use common::message::{AlarmRow, AlarmState, DownRow, ServerRow, ServerStatus, ServiceRow, ValueRow};

impl Engine {
    /// `server-list`.
    pub(crate) fn server_list(&self) -> Vec<ServerRow> {
        self.hosts.keys().filter_map(|host| self.server(host)).collect()
    }

    fn server(&self, name: &HostName) -> Option<ServerRow> {
        let host = self.hosts.get(name)?;
        let open: Vec<_> = self.open_at(name).map(|(_, incident)| incident.top_severity).collect();
        Some(ServerRow {
            host: name.clone(),
            state: host.state,
            since: host.since,
            last_seen: host.last_seen,
            severity: worst(open.iter().copied()),
            checks: self.checks.keys().filter(|address| address.host == *name).count() as u64,
            open: open.len() as u64,
        })
    }

    fn open_at<'a>(&'a self, name: &'a HostName) -> impl Iterator<Item = (&'a Key, &'a Incident)> {
        self.incidents.iter().filter(move |(key, _)| key.address.host() == name)
    }

    /// `server-status`, unless the host is unknown.
    pub(crate) fn server_status(&self, name: &HostName) -> Option<ServerStatus> {
        Some(ServerStatus {
            server: self.server(name)?,
            services: self.service_list(Some(name)),
            incidents: self.open_at(name).map(down_row).collect(),
            values: self.values(|host| host == name, |_| true),
        })
    }

    /// `service-list`, of one host or of all.
    pub(crate) fn service_list(&self, name: Option<&HostName>) -> Vec<ServiceRow> {
        self.checks
            .iter()
            .filter(|(address, _)| name.is_none_or(|name| address.host == *name))
            .map(|(address, check)| ServiceRow {
                host: address.host.clone(),
                service: address.service.clone(),
                unit: address.unit.clone(),
                state: check.state(),
                since: check.state_since(),
                text: check.text.clone(),
            })
            .collect()
    }

    /// `down-list`: the open incidents, worst first, then oldest first.
    pub(crate) fn down_list(&self) -> Vec<DownRow> {
        let mut rows: Vec<_> = self.incidents.iter().map(down_row).collect();
        rows.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.since.cmp(&b.since)));
        rows
    }

    /// `last-value`.
    pub(crate) fn last_value(&self, pattern: &Pattern) -> Vec<ValueRow> {
        self.values(|host| pattern.matches_host(host), |address| pattern.matches(address))
    }

    fn values(&self, host: impl Fn(&HostName) -> bool, wanted: impl Fn(&Address) -> bool) -> Vec<ValueRow> {
        let mut rows = Vec::new();
        for (key, group) in self.groups.iter().filter(|(key, _)| host(&key.host)) {
            let (Some(time), stale) = (group.time, self.is_stale(group)) else { continue };
            for number in &group.numbers {
                let address = key.address(&number.attribute);
                if wanted(&address) {
                    rows.push(ValueRow { address, value: number.value, time, stale });
                }
            }
        }
        rows.sort_by(|a, b| a.address.cmp(&b.address));
        rows
    }

    /// `alarm-list`.
    pub(crate) fn alarm_list(&self) -> Vec<AlarmRow> {
        let mut rows: Vec<_> = self
            .settings
            .rules
            .iter()
            .map(|rule| AlarmRow {
                name: rule.name.clone(),
                rule: rule.text.clone(),
                severity: rule.severity,
                matches: 0,
                active: Vec::new(),
            })
            .collect();
        for (key, group) in &self.groups {
            for number in &group.numbers {
                for watch in &number.watches {
                    let row = &mut rows[watch.rule];
                    row.matches += 1;
                    if let Phase::Pending(since) = watch.phase {
                        let address = key.address(&number.attribute);
                        row.active.push(AlarmState { address, open: false, since, value: Some(number.value) });
                    }
                }
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
    }
}
