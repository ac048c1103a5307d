//! Last values, and the rules that look at them.
//!
//! Nearly every sample is as the one before, and no rule has anything to say of it: it is found, written and compared without
//! a copy of its texts. Which rules look at a number is found out once, when the number is first seen, so a value costs
//! nothing for the rules that do not match it. What is overdue is found by the hosts' deadlines, never by walking all.

mod names;
mod series;
mod trend;

use super::alarm::Phase;
use super::incident::{Incidents, Key, Seen, first_of};
use super::rule::Rule;
use super::{Engine, MISSED_INTERVALS, Output, SETTLE};
use common::address::{Address, HostName, Name, Pattern, ValueAddress};
use common::message::{SampleRef, Samples, State};
use common::time::{UnixMillis, for_people};
use series::{GroupKey, millis};
pub(super) use series::{Judged, Missed, Numbers, View};
use std::collections::{BTreeMap, BTreeSet};
pub(super) use trend::Reading;

impl Engine {
    pub(super) fn samples(&mut self, samples: &Samples<'_>) {
        let heard_at = millis(self.attention);
        for sample in samples.iter().filter(|sample| !sample.backfill) {
            let place = self.numbers.find(&sample);
            if place.is_some_and(|place| self.numbers.overtaken(place, &sample, heard_at)) {
                continue;
            }
            if !place.is_some_and(|place| self.numbers.take(place, &sample, heard_at)) {
                self.look_closely(&sample, heard_at);
            }
            if self.awaits_any_observation() {
                self.observed_numbers(&sample);
            }
        }
    }

    fn observed_numbers(&mut self, sample: &SampleRef<'_>) {
        let Some(place) = self.numbers.find(sample) else { return };
        let view = self.numbers.view(place);
        if !self.awaits_observations(view.host) {
            return;
        }
        let addresses: Vec<_> = view.numbers().map(|(attribute, _)| view.address(attribute)).collect();
        for address in addresses {
            self.observed(&address, sample.time);
        }
    }

    /// How often this number is read.
    pub(super) fn interval_of(&self, address: &ValueAddress) -> u64 {
        self.numbers.view_of(address).map_or(0, |view| view.group.interval_ms.into())
    }

    /// A sample that is new in some way, or of which a rule says something.
    fn look_closely(&mut self, sample: &SampleRef<'_>, heard_at: u64) {
        let numbers: Vec<_> = sample.values.iter().copied().filter(|(_, value)| value.is_finite()).collect();
        if numbers.len() < sample.values.len() {
            self.outputs.push(Output::Refused("not_finite"));
        }
        let known = self.numbers.find(sample);
        let mut new = self.numbers.unknown(known, &numbers);
        let host = HostName::try_from(sample.host).expect("it was checked when it was read");
        let room = if new.is_empty() { 0 } else { self.admit(&host, new.len()) };
        // Of what is refused nothing is kept, not even that it was there.
        if room == 0 && known.is_none() {
            return;
        }
        let asked = new.len().min(room);
        let mut had = BTreeSet::new();
        new.retain(|name| had.insert(*name));
        new.truncate(room);
        // An attribute named twice was counted twice.
        self.release(&host, asked - new.len());

        let Self { numbers: all, settings, incidents, pending, .. } = self;
        let key = GroupKey { host: sample.host, service: sample.service, resource: sample.resource, unit: sample.unit };
        let place = known.unwrap_or_else(|| all.create(key, heard_at, &settings.rules));
        if !new.is_empty() {
            let phases = phases(&settings.rules, incidents, pending);
            all.extend(place, &new, &settings.rules, phases_of_host(&host, incidents, pending, phases));
        }
        let judged = all.judge(place, sample, &numbers, heard_at, &settings.rules);
        all.schedule(place, &settings.rules, settings.defaults.forget_discovered_after);

        let view = all.view(place);
        let address = |name: &str| {
            let (attribute, _) = view.numbers().find(|(attribute, _)| attribute.as_str() == name)?;
            Some(view.address(attribute))
        };
        let new: Vec<Address> = new.into_iter().filter_map(address).collect();
        let turns: Vec<_> = judged.into_iter().map(|judged| (view.address(&judged.attribute), judged)).collect();
        let seen = Seen { time: sample.time, text: String::new(), value: None, state: State::Resolved };
        for address in new {
            self.end_expectation(&address, &seen);
        }
        for (address, judged) in turns {
            self.turn(address, sample.time, &judged);
        }
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
            let Self { numbers, settings, incidents, pending, .. } = self;
            let key = GroupKey {
                host: host.as_str(),
                service: service.as_str(),
                resource: resource.as_str(),
                unit: unit.as_str(),
            };
            let place = numbers.find_key(key).unwrap_or_else(|| numbers.create(key, millis(SETTLE), &settings.rules));
            numbers.extend(place, &[attribute.as_str()], &settings.rules, phases(&settings.rules, incidents, pending));
            numbers.schedule(place, &settings.rules, settings.defaults.forget_discovered_after);
        }
    }

    /// Finds out anew which rules look at which number.
    pub(super) fn resolve_numbers(&mut self) {
        let Self { numbers, settings, incidents, pending, .. } = self;
        let phases = phases(&settings.rules, incidents, pending);
        numbers.resolve(&settings.rules, settings.defaults.forget_discovered_after, phases);
    }

    /// Numbers that are not heard of: some are missed, those nobody asked for are forgotten. False if there may be
    /// more of them.
    pub(super) fn scan_numbers(&mut self) -> bool {
        let Self { numbers, settings, hosts, attention, .. } = self;
        let forget_after = settings.defaults.forget_discovered_after;
        // A host that is away keeps its numbers: another cprocessd may hear it.
        let expected_since =
            |name: &HostName| hosts.get(name).map_or(0, |host| millis(host.expected_since(*attention)));
        let overdue = numbers.overdue(millis(*attention), &settings.rules, forget_after, expected_since);
        for Missed { address, rule, lasting } in overdue.missed {
            self.absent(rule, address, lasting);
        }
        for addresses in overdue.forgotten {
            self.retire_numbers(&addresses, &format!("not reported for {}", for_people(forget_after)));
        }
        self.scan_expected();
        self.numbers.is_done(millis(self.attention))
    }

    /// Forgets the numbers that match; returns their addresses.
    pub(super) fn forget_numbers(&mut self, pattern: &Pattern, why: &str) -> Vec<String> {
        let mut gone = self.numbers.forget(pattern, &self.settings.rules);
        gone.sort();
        self.retire_numbers(&gone, why);
        gone.iter().map(ToString::to_string).collect()
    }

    fn retire_numbers(&mut self, gone: &[Address], why: &str) {
        for address in gone {
            self.release(address.host(), 1);
            self.retire_incidents_at(address, why);
            let first = Key { address: address.clone(), rule: String::new() };
            let pending = self.pending.range(first..).take_while(|(key, _)| key.address == *address);
            let pending: Vec<_> = pending.map(|(key, _)| key.clone()).collect();
            for key in pending {
                self.save_pending(key, None);
            }
        }
    }

    /// Whether the next sample of this group should have come by now.
    pub(super) fn is_stale(&self, view: &View<'_>) -> bool {
        let interval_ms = u64::from(view.group.interval_ms);
        interval_ms > 0
            && millis(self.attention).saturating_sub(view.group.heard_at) > interval_ms * u64::from(MISSED_INTERVALS)
    }
}

/// How a number is under a rule, by what is open and pending.
fn phases(
    rules: &[Rule],
    incidents: &Incidents,
    pending: &BTreeMap<Key, UnixMillis>,
) -> impl Fn(&View<'_>, &Name, usize) -> Phase {
    move |view, attribute, rule| {
        if incidents.is_empty() && pending.is_empty() {
            return Phase::Fine;
        }
        let alarm = Key { address: view.address(attribute), rule: rules[rule].name.clone() };
        match (incidents.get(&alarm), pending.get(&alarm)) {
            (Some(_), _) => Phase::Open,
            (None, Some(since)) => Phase::Pending(*since),
            (None, None) => Phase::Fine,
        }
    }
}

/// The same for the numbers of one host: of most nothing is open or pending, which is found out once.
fn phases_of_host(
    host: &HostName,
    incidents: &Incidents,
    pending: &BTreeMap<Key, UnixMillis>,
    phases: impl Fn(&View<'_>, &Name, usize) -> Phase,
) -> impl Fn(&View<'_>, &Name, usize) -> Phase {
    let [_, first] = first_of(host);
    let first = Key { address: first, rule: String::new() };
    let any = pending.range(first..).next().is_some_and(|(key, _)| key.address.host() == host)
        || incidents.of_host(host).next().is_some();
    move |view, attribute, rule| if any { phases(view, attribute, rule) } else { Phase::Fine }
}
