//! What a digest says: outages, availability and the noisiest rules of a day or a week, for one recipient.
//!
//! **Where it comes from.** cprocessd's journal, asked when the digest is due, and not events gathered as they come. The
//! journal is on disk already, in order and without holes, whatever was killed meanwhile, so nothing of a digest is kept
//! here: it cannot be half counted, or counted twice over a crash. What is on disk here is that it was told: it is an item
//! of the outbox like any event, under an id that only its period and its rule give, so that it is told once. The cost is
//! reading a day of the journal again, and a digest that knows no more than the journal keeps.
//!
//! An outage is known by its end, which says since when it was, or by the list of what is still open; so those that began
//! long before the period count too, and only with the part that is in it. Copies, of two cprocessds or of two answers,
//! have one incident.

use crate::compose::List;
use crate::plain;
use crate::schedule::Period;
use common::address::{Address, CheckAddress, HostName, Name, Unit};
use common::message::{DownRow, Epoch, Event, EventId, IncidentId, Kind, State};
use common::notifier::{Selection, Story};
use common::query::{from_value, to_value};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// The rule name of a digest.
pub(crate) const DIGEST_RULE: &str = "digest";
/// The rule of what is up or down.
const CHECK_RULE: &str = "check";
/// Rows of each list. Nobody reads on.
const MAX_ROWS: usize = 15;
/// Incidents and events that are counted, in all digests of one period together: so many are some ten megabytes,
const MAX_COUNTED: usize = 20_000;
/// but at least so many in each. A storm of more says enough with these.
const LEAST_COUNTED: usize = 500;
/// Of an address that is kept with its digest.
const ADDRESS_CHARS: usize = 300;

/// A digest, as it is kept until it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Digest {
    period: Period,
    /// Of what is up or down, in the period.
    outages: u64,
    /// Of these, still open at its end.
    open: u64,
    /// The worst first: those with the least availability.
    checks: Vec<Trouble>,
    /// How many others had an outage.
    more_checks: u64,
    /// What a rule had open, the longest first.
    alarms: Vec<Trouble>,
    more_alarms: u64,
    /// The noisiest first.
    rules: Vec<Noise>,
    /// What is missing, for people.
    missing: Option<String>,
}

/// The trouble of one address under one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Trouble {
    address: String,
    rule: String,
    times: u64,
    /// In the period, together and at most.
    total_ms: u64,
    longest_ms: u64,
    open: bool,
    severity: Severity,
}

/// How often a rule spoke up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Noise {
    rule: String,
    times: u64,
    /// The address that it was about most often, and how often.
    loudest: String,
    of_it: u64,
}

/// One incident, as far as it was in the period.
#[derive(Clone, Debug)]
struct Seen {
    address: Address,
    rule: String,
    severity: Severity,
    /// Within the period.
    millis: u64,
    open: bool,
}

/// Gathers what happened.
#[derive(Debug)]
pub(crate) struct Fold {
    period: Period,
    selection: Selection,
    incidents: BTreeMap<IncidentId, Seen>,
    /// Beginnings and single events, by rule and address.
    noise: BTreeMap<String, BTreeMap<Address, BTreeSet<EventId>>>,
    noises: usize,
    /// Of the incidents, and of the noises.
    most: usize,
    is_full: bool,
}

impl Fold {
    /// One of `folds` that are filled together.
    pub(crate) fn new(period: Period, selection: Selection, folds: usize) -> Self {
        Self {
            period,
            selection,
            incidents: BTreeMap::new(),
            noise: BTreeMap::new(),
            noises: 0,
            most: (MAX_COUNTED / folds.max(1)).max(LEAST_COUNTED),
            is_full: false,
        }
    }

    /// What is open at a publisher. Before its events, of which one may be the end.
    pub(crate) fn open(&mut self, row: &DownRow) {
        if self.selection.wants(row.severity, &row.address) {
            self.incident(row.incident, &row.address, &row.rule, row.severity, (row.since, None));
        }
    }

    /// An event, at whatever time.
    pub(crate) fn event(&mut self, event: &Event) {
        if !self.selection.wants(event.top_severity, &event.address) {
            return;
        }
        match event.kind {
            Kind::Up | Kind::Solved | Kind::Retired if event.duration_ms.is_some() => {
                let times = (event.since, Some(event.time));
                self.incident(event.incident, &event.address, &event.rule, event.top_severity, times);
            }
            Kind::Down | Kind::Alarm | Kind::Absent | Kind::Blip | Kind::Flapping | Kind::Log
                if (self.period.from..self.period.to).contains(&event.time) =>
            {
                self.heard(event);
            }
            _ => {}
        }
    }

    fn heard(&mut self, event: &Event) {
        if self.noises >= self.most {
            self.is_full = true;
            return;
        }
        let addresses = self.noise.entry(event.rule.clone()).or_default();
        if addresses.entry(event.address.clone()).or_default().insert(event.id) {
            self.noises += 1;
        }
    }

    fn incident(
        &mut self,
        incident: IncidentId,
        address: &Address,
        rule: &str,
        severity: Severity,
        (since, end): (UnixMillis, Option<UnixMillis>),
    ) {
        let Period { from, to, .. } = self.period;
        // What was open when the period was over is so, whatever came later.
        let end = end.filter(|end| *end < to);
        let (begin, until) = (since.max(from), end.unwrap_or(to));
        if since >= to || until < from {
            // It may have been listed as open before its end was heard of.
            if until < from {
                self.incidents.remove(&incident);
            }
            return;
        }
        if self.incidents.len() >= self.most && !self.incidents.contains_key(&incident) {
            self.is_full = true;
            return;
        }
        let seen = Seen {
            address: address.clone(),
            rule: rule.to_owned(),
            severity,
            millis: until.millis_since(begin),
            open: end.is_none(),
        };
        match self.incidents.get_mut(&incident) {
            // An end knows more than a list; of two lists, or two ends, one is as good as the other.
            Some(known) if !known.open => {}
            Some(known) => *known = seen,
            None => drop(self.incidents.insert(incident, seen)),
        }
    }

    /// What there is to say.
    pub(crate) fn finish(self, missing: Option<String>) -> Digest {
        let mut troubles: BTreeMap<(Address, String), Trouble> = BTreeMap::new();
        let (mut outages, mut open) = (0, 0);
        for seen in self.incidents.into_values() {
            if seen.rule == CHECK_RULE {
                outages += 1;
                open += u64::from(seen.open);
            }
            let empty = || Trouble {
                address: plain::line(&seen.address.to_string(), ADDRESS_CHARS),
                rule: seen.rule.clone(),
                times: 0,
                total_ms: 0,
                longest_ms: 0,
                open: false,
                severity: seen.severity,
            };
            let trouble = troubles.entry((seen.address.clone(), seen.rule.clone())).or_insert_with(empty);
            trouble.times += 1;
            // Two of one key never overlap; two clocks may say so all the same.
            trouble.total_ms = (trouble.total_ms + seen.millis).min(self.period.millis());
            trouble.longest_ms = trouble.longest_ms.max(seen.millis);
            trouble.open |= seen.open;
            trouble.severity = trouble.severity.max(seen.severity);
        }
        let (mut checks, mut alarms): (Vec<Trouble>, Vec<Trouble>) =
            troubles.into_values().partition(|trouble| trouble.rule == CHECK_RULE);
        let cut = |troubles: &mut Vec<Trouble>| {
            troubles.sort_by_key(|trouble| Reverse((trouble.total_ms, trouble.severity, trouble.times)));
            let more = troubles.len().saturating_sub(MAX_ROWS);
            troubles.truncate(MAX_ROWS);
            more as u64
        };
        let (more_checks, more_alarms) = (cut(&mut checks), cut(&mut alarms));
        let mut rules: Vec<Noise> = self.noise.into_iter().map(|(rule, addresses)| noise(&rule, &addresses)).collect();
        rules.sort_by_key(|noise| Reverse(noise.times));
        rules.truncate(MAX_ROWS);
        let full = self.is_full.then(|| format!("only the first {} incidents and events are counted", self.most));
        let missing: Vec<String> = missing.into_iter().chain(full).collect();
        let missing = (!missing.is_empty()).then(|| missing.join("; "));
        Digest { period: self.period, outages, open, checks, more_checks, alarms, more_alarms, rules, missing }
    }
}

fn noise(rule: &str, addresses: &BTreeMap<Address, BTreeSet<EventId>>) -> Noise {
    let loudest = addresses.iter().max_by_key(|(_, events)| events.len());
    Noise {
        rule: plain::line(rule, ADDRESS_CHARS),
        times: addresses.values().map(|events| events.len() as u64).sum(),
        loudest: loudest.map(|(address, _)| plain::line(&address.to_string(), ADDRESS_CHARS)).unwrap_or_default(),
        of_it: loudest.map_or(0, |(_, events)| events.len() as u64),
    }
}

impl Digest {
    /// As an event of our own, to be told like any other: `host` is ours. Its id depends on the period and nothing else, so
    /// that nobody is told the same one twice.
    pub(crate) fn event(&self, host: &HostName, now: UnixMillis) -> Event {
        let service = Name::try_from("cmaild").expect("a daemon's name is a name");
        let address =
            Address::from(CheckAddress { host: host.clone(), service: service.clone(), unit: Unit::default() });
        let rule = format!("{DIGEST_RULE} {}", self.period.every);
        let incident = IncidentId::new(&address, &rule, self.period.to);
        Event {
            epoch: Epoch::random(),
            seq: 0,
            nth: 0,
            id: EventId::new(incident, Kind::Log, 1),
            incident,
            kind: Kind::Log,
            address,
            host: host.clone(),
            service,
            unit: Unit::default(),
            severity: Severity::Info,
            top_severity: Severity::Info,
            state: State::Unknown,
            since: self.period.to,
            time: now,
            text: self.headline(),
            value: None,
            rule: DIGEST_RULE.to_owned(),
            step: None,
            duration_ms: None,
            suppressed_by: Vec::new(),
            data: Some(to_value(self)),
        }
    }

    /// The digest that a story is. An event of the stream has a place in a journal, and no attachment here.
    pub(crate) fn of(story: &Story) -> Option<Self> {
        let event = &story.event;
        if event.seq != 0 || event.rule != DIGEST_RULE {
            return None;
        }
        from_value(event.data.as_ref()?).ok()
    }

    /// `daily digest: 3 outages, 1 still open`.
    pub(crate) fn headline(&self) -> String {
        let every = self.period.every;
        match (self.outages, self.open, self.alarms.len() as u64 + self.more_alarms) {
            (0, _, 0) => format!("{every} digest: no outage"),
            (0, _, 1) => format!("{every} digest: no outage, 1 alarm"),
            (0, _, alarms) => format!("{every} digest: no outage, {alarms} alarms"),
            (1, 0, _) => format!("{every} digest: 1 outage"),
            (1, ..) => format!("{every} digest: 1 outage, still open"),
            (outages, 0, _) => format!("{every} digest: {outages} outages"),
            (outages, open, _) => format!("{every} digest: {outages} outages, {open} still open"),
        }
    }

    /// `2026-11-20 07:00 to 2026-11-21 07:00, Europe/Berlin`, in the zone of whoever reads it.
    pub(crate) fn span(&self, zone: &jiff::tz::TimeZone) -> String {
        let local = |moment: UnixMillis| match jiff::Timestamp::from_millisecond(moment.0) {
            Ok(moment) => moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
            Err(_) => moment.to_string(),
        };
        let name = zone.iana_name().map(|name| format!(", {name}")).unwrap_or_default();
        format!("{} to {}{name}", local(self.period.from), local(self.period.to))
    }

    /// `daily`.
    pub(crate) fn every(&self) -> &'static str {
        self.period.every.as_str()
    }

    pub(crate) fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    pub(crate) fn lists(&self) -> Vec<List> {
        let availability = |trouble: &Trouble| {
            let mut said = format!("{} available, ", self.availability(trouble));
            said.push_str(&counted(trouble, "outage"));
            (trouble.address.clone(), said)
        };
        let alarm = |trouble: &Trouble| {
            let rule = plain::line(&trouble.rule, ADDRESS_CHARS);
            (trouble.address.clone(), format!("{rule}: {}", counted(trouble, "time")))
        };
        let noise = |noise: &Noise| {
            let mut said = format!("{} times", noise.times);
            if noise.times == 1 {
                "once".clone_into(&mut said);
            }
            if noise.of_it == noise.times {
                let _ = write!(said, ", {}", noise.loudest);
            } else {
                let _ = write!(said, ", {} of them {}", noise.of_it, noise.loudest);
            }
            (noise.rule.clone(), said)
        };
        let others = |more: u64| if more > 0 { vec![(format!("and {more} more"), String::new())] } else { Vec::new() };
        let list = |title: &str, rows: Vec<(String, String)>, more: u64| List {
            title: title.to_owned(),
            rows: rows.into_iter().chain(others(more)).collect(),
        };
        let lists = [
            list("Outages", self.checks.iter().map(availability).collect(), self.more_checks),
            list("Alarms", self.alarms.iter().map(alarm).collect(), self.more_alarms),
            list("Noisiest rules", self.rules.iter().map(noise).collect(), 0),
        ];
        lists.into_iter().filter(|list| !list.rows.is_empty()).collect()
    }

    /// Rounded down: what failed is never 100 %.
    fn availability(&self, trouble: &Trouble) -> String {
        let period = self.period.millis();
        let up = u128::from(period.saturating_sub(trouble.total_ms));
        let shares = up * 100_000 / u128::from(period);
        format!("{}.{:03} %", shares / 1000, shares % 1000)
    }
}

/// `2 outages, 10m 2s in all, at most 8m 0s, still open`.
fn counted(trouble: &Trouble, what: &str) -> String {
    let of = |ms: u64| for_people(Duration::from_millis(ms));
    let mut said = match trouble.times {
        1 => format!("1 {what}, {}", of(trouble.total_ms)),
        times => format!("{times} {what}s, {} in all, at most {}", of(trouble.total_ms), of(trouble.longest_ms)),
    };
    if trouble.open {
        said.push_str(", still open");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Every;
    use serde_json::json;

    const HOUR: i64 = 3_600_000;
    const MINUTE: i64 = 60_000;

    /// From hour 0 to hour 24.
    fn day() -> Period {
        Period { every: Every::Day, from: UnixMillis(0), to: UnixMillis(24 * HOUR) }
    }

    fn fold() -> Fold {
        Fold::new(day(), Selection::at_least(Severity::Warn), 1)
    }

    /// An event of the incident `n`.
    fn event(n: u32, kind: &str, address: &str, rule: &str, since: i64, time: i64) -> Event {
        let address: Address = address.parse().expect("an address");
        let ends = ["up", "solved", "retired"].contains(&kind);
        serde_json::from_value(json!({
            "epoch": "e", "seq": 1, "nth": 1, "id": format!("00000000-0000-4000-8001-{:012}", n * 10 + u32::from(ends)),
            "incident": format!("00000000-0000-4000-8002-{n:012}"), "kind": kind, "address": address.to_string(),
            "host": address.host(), "service": address.service(), "unit": address.unit(),
            "severity": if ends { "INFO" } else { "ERR" }, "top_severity": "ERR", "state": "down",
            "since": since, "time": time, "text": "x", "rule": rule,
            "duration_ms": ends.then_some(time - since),
        }))
        .expect("an event")
    }

    fn row(n: u32, address: &str, rule: &str, since: i64) -> DownRow {
        serde_json::from_value(json!({
            "incident": format!("00000000-0000-4000-8002-{n:012}"), "address": address, "rule": rule, "severity": "ERR",
            "since": since, "text": "x", "acked": false, "silenced": false, "unreachable": false,
        }))
        .expect("a row")
    }

    fn said(digest: &Digest) -> Vec<String> {
        let lists = digest.lists();
        let rows = lists
            .iter()
            .flat_map(|list| list.rows.iter().map(move |(what, how)| format!("{}: {what}: {how}", list.title)));
        std::iter::once(digest.headline()).chain(rows).collect()
    }

    #[test]
    fn an_outage_counts_with_the_part_that_is_in_the_period() {
        let mut fold = fold();
        for (n, since, end) in [
            (1, -HOUR, -MINUTE),                     // Before.
            (2, -HOUR, 6 * MINUTE),                  // Into it.
            (3, 2 * HOUR, 2 * HOUR + 6 * MINUTE),    // In it.
            (4, 23 * HOUR + 48 * MINUTE, 25 * HOUR), // Out of it.
            (5, 24 * HOUR, 25 * HOUR),               // After.
        ] {
            fold.event(&event(n, "up", "web1!port:www", "check", since, end));
        }
        // Open all the time, and open since after it.
        fold.open(&row(6, "web2!port:www", "check", -HOUR));
        fold.open(&row(7, "web3!port:www", "check", 24 * HOUR));
        assert_eq!(
            said(&fold.finish(None)),
            [
                "daily digest: 4 outages, 2 still open",
                "Outages: web2!port:www: 0.000 % available, 1 outage, 1d 0h, still open",
                "Outages: web1!port:www: 98.333 % available, 3 outages, 24m 0s in all, at most 12m 0s, still open",
            ]
        );
    }

    #[test]
    fn copies_and_answers_that_overtake_each_other_count_once() {
        let mut fold = fold();
        // The list was asked first; then it ended, and two cprocessds say so.
        fold.open(&row(1, "web1!port:www", "check", HOUR));
        fold.open(&row(1, "web1!port:www", "check", HOUR));
        let end = event(1, "up", "web1!port:www", "check", HOUR, HOUR + 36 * MINUTE);
        fold.event(&end);
        fold.event(&end);
        fold.open(&row(1, "web1!port:www", "check", HOUR));
        let begin = event(1, "down", "web1!port:www", "check", HOUR, HOUR);
        fold.event(&begin);
        fold.event(&begin);
        assert_eq!(
            said(&fold.finish(None)),
            [
                "daily digest: 1 outage",
                "Outages: web1!port:www: 97.500 % available, 1 outage, 36m 0s",
                "Noisiest rules: check: once, web1!port:www",
            ]
        );
    }

    #[test]
    fn alarms_are_apart_and_rules_are_sorted_by_noise() {
        let mut fold = fold();
        for n in 0..3 {
            let at = i64::from(n) * HOUR;
            let unit = if n == 0 { "/" } else { "/var" };
            let address = format!("web1!machine.disk:{unit}.used_percentage");
            fold.event(&event(n, "alarm", &address, "disk full", at, at));
            fold.event(&event(n, "solved", &address, "disk full", at, at + 30 * MINUTE));
        }
        fold.event(&event(10, "blip", "web1!port:www", "blip", HOUR, HOUR));
        // Another day's.
        fold.event(&event(11, "blip", "web1!port:www", "blip", 25 * HOUR, 25 * HOUR));
        assert_eq!(
            said(&fold.finish(None)),
            [
                "daily digest: no outage, 2 alarms",
                "Alarms: web1!machine.disk:/var.used_percentage: disk full: 2 times, 1h 0m in all, at most 30m 0s",
                "Alarms: web1!machine.disk:/.used_percentage: disk full: 1 time, 30m 0s",
                "Noisiest rules: disk full: 3 times, 2 of them web1!machine.disk:/var.used_percentage",
                "Noisiest rules: blip: once, web1!port:www",
            ]
        );
    }

    #[test]
    fn what_somebody_does_not_select_is_not_in_their_digest() {
        let mut fold = Fold::new(
            day(),
            Selection { only: vec!["db*".parse().expect("a pattern")], ..Selection::at_least(Severity::Crit) },
            1,
        );
        fold.event(&event(1, "up", "web1!port:www", "check", HOUR, 2 * HOUR));
        fold.open(&row(2, "db1!port:sql", "check", HOUR));
        assert_eq!(said(&fold.finish(None)), ["daily digest: no outage"]);
    }

    #[test]
    fn a_storm_is_bounded_and_says_so() {
        let mut fold = fold();
        for n in 0..30_000 {
            fold.event(&event(n, "up", &format!("web{}!port:www", n % 100), "check", HOUR, HOUR + 1));
        }
        let digest = fold.finish(Some("mon2 did not answer".to_owned()));
        assert_eq!(digest.outages, 20_000);
        assert_eq!((digest.checks.len(), digest.more_checks), (15, 85));
        assert!(
            digest.missing().is_some_and(|missing| missing.starts_with("mon2 did not answer; only the first 20000"))
        );
        assert!(to_value(&digest).to_string().len() < 20_000);
    }

    #[test]
    fn it_comes_back_from_the_outbox_as_it_was() {
        let mut fold = fold();
        fold.event(&event(1, "up", "web1!port:www", "check", HOUR, 2 * HOUR));
        let digest = fold.finish(None);
        let host: HostName = "mon1".try_into().expect("a host");
        let event = digest.event(&host, UnixMillis(24 * HOUR));
        let later = digest.event(&host, UnixMillis(25 * HOUR));
        assert_eq!(event.id, later.id);
        let story = Story { mark: common::notifier::Mark::Once, event, outages: 1, told_in: None };
        assert_eq!(Digest::of(&story), Some(digest));
        let mut other = story.clone();
        other.event.seq = 7;
        assert_eq!(Digest::of(&other), None);
    }
}
