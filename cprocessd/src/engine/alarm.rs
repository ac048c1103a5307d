//! Last values, and the rules that look at them.
//!
//! Numbers come in groups: all attributes of one thing in one sample. Which rules look at a number is found out once, when
//! the number is first seen, so a value costs nothing for the rules that do not match it.

use super::incident::{Incidents, Key, Seen};
use super::rule::{Condition, Rule};
use super::{Engine, MISSED_INTERVALS, SETTLE, Saved};
use common::address::{Address, CheckAddress, HostName, Name, Pattern, Unit, ValueAddress};
use common::message::{Kind, Sample, State};
use common::time::{UnixMillis, for_people};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a sample is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupKey {
    pub(super) host: HostName,
    service: Name,
    resource: Name,
    unit: Unit,
}

impl GroupKey {
    fn of(sample: &Sample) -> Self {
        Self {
            host: sample.host.clone(),
            service: sample.service.clone(),
            resource: sample.resource.clone(),
            unit: sample.unit.clone(),
        }
    }

    pub(super) fn of_address(address: &ValueAddress) -> Self {
        let ValueAddress { host, service, resource, unit, .. } = address.clone();
        Self { host, service, resource, unit }
    }

    pub(super) fn address(&self, attribute: &Name) -> Address {
        Address::Value(ValueAddress {
            host: self.host.clone(),
            service: self.service.clone(),
            resource: self.resource.clone(),
            unit: self.unit.clone(),
            attribute: attribute.clone(),
        })
    }

    /// Whether the pattern's host and service could match; cheap, and exact enough to look closer.
    pub(super) fn matches(&self, pattern: &Pattern) -> bool {
        pattern.matches_host(&self.host)
    }

    fn matches_number(&self, pattern: &Pattern, attribute: &Name) -> bool {
        pattern.matches_value(&self.host, &self.service, &self.resource, &self.unit, attribute)
    }
}

/// The last sample of one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The observer's time of the sample; absent before the first one, while the numbers have no value.
    pub(super) time: Option<UnixMillis>,
    pub(super) interval_ms: u64,
    /// On the clock of attention.
    heard_at: Duration,
    pub(super) numbers: Vec<Number>,
}

/// One number and the rules that look at it.
#[derive(Clone, Debug)]
pub(super) struct Number {
    pub(super) attribute: Name,
    pub(super) value: f64,
    pub(super) watches: Vec<Watch>,
}

/// A rule's view of one number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Its place in the settings.
    pub(super) rule: usize,
    pub(super) phase: Phase,
}

/// The stages of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Fine,
    /// Beyond the limit, but not for long enough.
    Pending(UnixMillis),
    Open,
}

/// An `absent` rule's view of one check.
#[derive(Clone, Copy, Debug)]
pub(super) struct AbsenceWatch {
    pub(super) rule: usize,
    pub(super) lasting: Duration,
    pub(super) open: bool,
}

/// An `absent` rule that names one address: it may be broken before that address was ever seen.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    rule: usize,
    address: Address,
    lasting: Duration,
    from: Duration,
}

pub(super) fn expected(rules: &[Rule], from: Duration) -> Vec<Expected> {
    let absent = rules.iter().enumerate().filter_map(|(rule, r)| match r.condition {
        Condition::Absent { lasting } => Some(Expected { rule, address: r.pattern.literal()?, lasting, from }),
        Condition::Beyond { .. } => None,
    });
    absent.collect()
}

pub(super) fn absence_watches(rules: &[Rule], address: &CheckAddress, incidents: &Incidents) -> Vec<AbsenceWatch> {
    let watches = rules.iter().enumerate().filter_map(|(rule, r)| match r.condition {
        Condition::Absent { lasting } if r.pattern.matches_check(address) => {
            Some(AbsenceWatch { rule, lasting, open: incidents.contains(&address.clone().into(), &r.name) })
        }
        _ => None,
    });
    watches.collect()
}

impl Group {
    /// Finds out anew which rules look at which number.
    pub(super) fn resolve(
        &mut self,
        key: &GroupKey,
        rules: &[Rule],
        incidents: &Incidents,
        pending: &BTreeMap<Key, UnixMillis>,
    ) {
        for number in &mut self.numbers {
            number.watches = watches(key, &number.attribute, rules, incidents, pending);
        }
    }
}

fn watches(
    key: &GroupKey,
    attribute: &Name,
    rules: &[Rule],
    incidents: &Incidents,
    pending: &BTreeMap<Key, UnixMillis>,
) -> Vec<Watch> {
    let looking = rules.iter().enumerate().filter(|(_, rule)| key.matches_number(&rule.pattern, attribute));
    looking
        .map(|(rule, r)| {
            let alarm = Key { address: key.address(attribute), rule: r.name.clone() };
            let phase = match (incidents.get(&alarm), pending.get(&alarm)) {
                (Some(_), _) => Phase::Open,
                (None, Some(since)) => Phase::Pending(*since),
                (None, None) => Phase::Fine,
            };
            Watch { rule, phase }
        })
        .collect()
}

/// What a number did to a rule.
#[derive(Clone, Copy)]
enum Turn {
    Pending(UnixMillis),
    NoLonger,
    Opened { since: UnixMillis },
    Solved,
}

/// The next phase of a watch, and what is to be done about it.
fn judge(phase: Phase, condition: Condition, time: UnixMillis, value: f64) -> Option<(Phase, Turn)> {
    let Condition::Beyond { operator, limit, clear, lasting } = condition else {
        // Heard of, so not absent.
        return (phase == Phase::Open).then_some((Phase::Fine, Turn::Solved));
    };
    let beyond = operator.holds(value, limit);
    match phase {
        Phase::Fine if beyond && lasting.is_zero() => Some((Phase::Open, Turn::Opened { since: time })),
        Phase::Fine if beyond => Some((Phase::Pending(time), Turn::Pending(time))),
        Phase::Pending(since) if beyond && time.since(since) >= lasting => Some((Phase::Open, Turn::Opened { since })),
        // Its clock was put back: what has passed is not known, so the wait begins anew.
        Phase::Pending(since) if beyond && time < since => Some((Phase::Pending(time), Turn::Pending(time))),
        Phase::Pending(_) if !beyond => Some((Phase::Fine, Turn::NoLonger)),
        Phase::Open if !operator.holds(value, clear) => Some((Phase::Fine, Turn::Solved)),
        Phase::Fine | Phase::Pending(_) | Phase::Open => None,
    }
}

impl Engine {
    pub(super) fn sample(&mut self, mut sample: Sample) {
        if sample.backfill {
            return;
        }
        if sample.values.drop_non_finite() > 0 {
            self.outputs.push(super::Output::Refused("not_finite"));
        }
        let key = GroupKey::of(&sample);
        let known = self.groups.get(&key).map_or(&[][..], |group| &group.numbers);
        // Samples of one thing hold the same attributes in the same order.
        let is_known = |i: usize, attribute: &Name| {
            known.get(i).is_some_and(|number| number.attribute == *attribute)
                || known.iter().any(|number| number.attribute == *attribute)
        };
        let new = sample.values.0.iter().enumerate().filter(|(i, (attribute, _))| !is_known(*i, attribute)).count();
        let mut room = if new == 0 { 0 } else { self.admit(&key.host, new) };
        // Of what is refused nothing is kept, not even that it was there.
        if room == 0 && !self.groups.contains_key(&key) {
            return;
        }
        let attention = self.attention;
        let Self { groups, settings, incidents, pending, .. } = self;
        let group = groups.entry(key.clone()).or_default();
        group.time = Some(sample.time);
        group.interval_ms = sample.interval_ms;
        group.heard_at = attention;
        let (mut turns, mut new) = (Vec::new(), Vec::new());
        for (i, (attribute, value)) in sample.values.0.into_iter().enumerate() {
            let at = match group.numbers.get(i) {
                Some(number) if number.attribute == attribute => Some(i),
                _ => group.numbers.iter().position(|number| number.attribute == attribute),
            };
            let at = match at {
                Some(at) => at,
                None if room == 0 => continue,
                None => {
                    room -= 1;
                    let watches = watches(&key, &attribute, &settings.rules, incidents, pending);
                    new.push(attribute.clone());
                    group.numbers.push(Number { attribute, value, watches });
                    group.numbers.len() - 1
                }
            };
            let number = &mut group.numbers[at];
            number.value = value;
            for watch in &mut number.watches {
                if let Some((phase, turn)) =
                    judge(watch.phase, settings.rules[watch.rule].condition, sample.time, value)
                {
                    watch.phase = phase;
                    turns.push((watch.rule, number.attribute.clone(), value, turn));
                }
            }
        }
        // An attribute named twice was counted twice.
        self.release(&key.host, room);
        let seen = Seen { time: sample.time, text: String::new(), value: None, state: State::Resolved };
        for attribute in new {
            self.end_expectation(&key.address(&attribute), &seen);
        }
        for (rule, attribute, value, turn) in turns {
            self.turn(rule, key.address(&attribute), sample.time, value, turn);
        }
        if self.awaits_observations() {
            self.observed_group(&key, sample.time);
        }
    }

    fn observed_group(&mut self, key: &GroupKey, time: UnixMillis) {
        let numbers = self.groups.get(key).map_or(&[][..], |group| &group.numbers);
        let addresses: Vec<_> = numbers.iter().map(|number| key.address(&number.attribute)).collect();
        for address in addresses {
            self.observed(&address, time);
        }
    }

    /// How often this number is read.
    pub(super) fn interval_of(&self, address: &ValueAddress) -> u64 {
        self.groups.get(&GroupKey::of_address(address)).map_or(0, |group| group.interval_ms)
    }

    /// After a restart: numbers with something open or pending are expected, so that it is retired if they do not come.
    pub(super) fn await_numbers(&mut self) {
        let keys = self.incidents.iter().map(|(key, _)| key).chain(self.pending.keys());
        let addresses: BTreeSet<_> = keys.map(|key| key.address.clone()).collect();
        for address in addresses {
            let Address::Value(ValueAddress { host, service, resource, unit, attribute }) = address else { continue };
            self.touch_host(&host);
            if let Some(host) = self.hosts.get_mut(&host) {
                host.addresses += 1;
            }
            let key = GroupKey { host, service, resource, unit };
            let watches = watches(&key, &attribute, &self.settings.rules, &self.incidents, &self.pending);
            let group = self.groups.entry(key).or_default();
            group.heard_at = SETTLE;
            group.numbers.push(Number { attribute, value: 0.0, watches });
        }
    }

    fn turn(&mut self, rule: usize, address: Address, time: UnixMillis, value: f64, turn: Turn) {
        let Rule { name, condition, severity, .. } = self.settings.rules[rule].clone();
        let key = Key { address, rule: name };
        let comparison = |clear: bool| match condition {
            Condition::Beyond { operator, limit, .. } if !clear => {
                format!("{} {operator} {}", short(value), short(limit))
            }
            Condition::Beyond { .. } => format!("back at {}", short(value)),
            Condition::Absent { .. } => "reported again".to_owned(),
        };
        match turn {
            Turn::Pending(since) => self.save_pending(key, Some(since)),
            Turn::NoLonger => self.save_pending(key, None),
            Turn::Opened { since } => {
                self.save_pending(key.clone(), None);
                let seen = Seen { time, text: comparison(false), value: Some(value), state: State::Open };
                self.open(key, Kind::Alarm, severity, since, seen);
            }
            Turn::Solved => {
                let seen = Seen { time, text: comparison(true), value: Some(value), state: State::Resolved };
                self.close(&key, Kind::Solved, seen);
            }
        }
    }

    fn save_pending(&mut self, key: Key, since: Option<UnixMillis>) {
        let before = match since {
            Some(since) => self.pending.insert(key.clone(), since),
            None => self.pending.remove(&key),
        };
        if before != since {
            self.save(Saved::Pending(key, since));
        }
    }

    /// A check was heard of: its `absent` rules are content.
    pub(super) fn end_absence(&mut self, address: &CheckAddress, seen: &Seen) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        let mut over = Vec::new();
        for watch in entry.watches.iter_mut().filter(|watch| watch.open) {
            watch.open = false;
            over.push(watch.rule);
        }
        for rule in over {
            let key = Key { address: address.clone().into(), rule: self.settings.rules[rule].name.clone() };
            let seen = Seen { text: "reported again".to_owned(), state: State::Resolved, ..seen.clone() };
            self.close(&key, Kind::Solved, seen);
        }
    }

    /// An address was seen for the first time: a rule that named it otherwise, without its comment, is content.
    pub(super) fn end_expectation(&mut self, address: &Address, seen: &Seen) {
        let met = |rule: &Rule| match rule.condition {
            Condition::Absent { .. } if rule.pattern.matches(address) => {
                let expected = rule.pattern.literal().filter(|expected| expected != address)?;
                Some(Key { address: expected, rule: rule.name.clone() })
            }
            Condition::Absent { .. } | Condition::Beyond { .. } => None,
        };
        let met: Vec<_> = self.settings.rules.iter().filter_map(met).collect();
        for key in met {
            let seen = Seen { text: "reported".to_owned(), state: State::Resolved, ..seen.clone() };
            self.close(&key, Kind::Solved, seen);
        }
    }

    /// Numbers that are not heard of: some are missed, those nobody asked for are forgotten.
    pub(super) fn scan_numbers(&mut self) {
        let attention = self.attention;
        let Self { groups, settings, .. } = self;
        let mut absent = Vec::new();
        let mut forgotten = Vec::new();
        let forget_after = settings.defaults.forget_discovered_after;
        for (key, group) in groups.iter_mut() {
            let silence = attention.saturating_sub(group.heard_at);
            if silence <= Duration::from_secs(1) {
                continue;
            }
            let would_miss = |watch: &Watch| matches!(settings.rules[watch.rule].condition, Condition::Absent { .. });
            // What a rule would miss is not forgotten.
            if silence > forget_after && !group.numbers.iter().flat_map(|number| &number.watches).any(would_miss) {
                forgotten.push(key.clone());
                continue;
            }
            for number in &mut group.numbers {
                for watch in number.watches.iter_mut().filter(|watch| watch.phase != Phase::Open) {
                    if let Condition::Absent { lasting } = settings.rules[watch.rule].condition
                        && silence > lasting
                    {
                        watch.phase = Phase::Open;
                        absent.push((watch.rule, key.address(&number.attribute), lasting));
                    }
                }
            }
        }
        for (rule, address, lasting) in absent {
            self.absent(rule, address, lasting);
        }
        for key in forgotten {
            self.drop_group(&key, &format!("not reported for {}", for_people(forget_after)));
        }
        self.scan_expected();
    }

    /// What a rule expects by name and was never seen.
    fn scan_expected(&mut self) {
        let overdue = |e: &Expected| self.attention.saturating_sub(e.from) > e.lasting;
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.expected).into_iter().partition(overdue);
        self.expected = waiting;
        for Expected { rule, address, lasting, .. } in due {
            // As the rule would match it: with a comment that the rule leaves out, or under a unit with a dot.
            let pattern = &self.settings.rules[rule].pattern;
            let has_number = |(key, group): (&GroupKey, &Group)| {
                group.numbers.iter().any(|number| key.matches_number(pattern, &number.attribute))
            };
            let seen = match &address {
                Address::Check(_) => self.checks.keys().any(|check| pattern.matches_check(check)),
                Address::Value(_) => self.groups.iter().any(has_number),
            };
            if !seen {
                self.absent(rule, address, lasting);
            }
        }
    }

    pub(super) fn absent(&mut self, rule: usize, address: Address, lasting: Duration) {
        let Rule { name, severity, .. } = &self.settings.rules[rule];
        let (key, severity) = (Key { address, rule: name.clone() }, *severity);
        let seen = Seen {
            time: self.wall,
            text: format!("not heard of for {}", for_people(lasting)),
            value: None,
            state: State::Open,
        };
        self.open(key, Kind::Absent, severity, self.wall.minus(lasting), seen);
    }

    /// Forgets the numbers of a group that match; returns their addresses.
    pub(super) fn forget_numbers(&mut self, key: &GroupKey, pattern: &Pattern, why: &str) -> Vec<String> {
        let Some(group) = self.groups.get_mut(key) else { return Vec::new() };
        let matching = |number: &Number| key.matches_number(pattern, &number.attribute);
        let gone: Vec<Address> =
            group.numbers.iter().filter(|n| matching(n)).map(|number| key.address(&number.attribute)).collect();
        group.numbers.retain(|number| !matching(number));
        if group.numbers.is_empty() {
            self.groups.remove(key);
        }
        self.release(&key.host, gone.len());
        for address in &gone {
            self.retire_number(address, why);
        }
        gone.iter().map(ToString::to_string).collect()
    }

    fn drop_group(&mut self, key: &GroupKey, why: &str) {
        if let Some(group) = self.groups.remove(key) {
            self.release(&key.host, group.numbers.len());
            for number in group.numbers {
                self.retire_number(&key.address(&number.attribute), why);
            }
        }
    }

    fn retire_number(&mut self, address: &Address, why: &str) {
        self.retire_incidents_at(address, why);
        let pending: Vec<_> = self.pending.keys().filter(|key| key.address == *address).cloned().collect();
        for key in pending {
            self.save_pending(key, None);
        }
    }

    /// Whether the next sample of this group should have come by now.
    pub(super) fn is_stale(&self, group: &Group) -> bool {
        let allowed = Duration::from_millis(group.interval_ms) * MISSED_INTERVALS;
        group.interval_ms > 0 && self.attention.saturating_sub(group.heard_at) > allowed
    }
}

/// A number for people: three digits after the point at most.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
