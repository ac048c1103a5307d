//! Where the numbers are kept: by host, in groups, with all that groups have in common kept once.
//!
//! A group is what one sample is about: a service's resource of one unit. Its attributes are its *shape*, the rules that look
//! at them its *plan*; both are shared by all groups alike, so a group itself is 48 bytes and 8 for each number. A host's
//! numbers lie together, since they come together and are asked for together.

use super::names::{Id, Keyed, Shared};
use super::trend::{Memory, Reading};
use crate::engine::alarm::{Phase, Turn, judge};
use crate::engine::rule::{Condition, Operator, Rule};
use crate::engine::{OVERDUE_AT_ONCE, OVERTAKEN_AT_MOST_MS};
use common::address::{Address, HostName, Name, Pattern, Unit, ValueAddress};
use common::message::SampleRef;
use common::time::UnixMillis;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::time::Duration;

/// Silence that is no silence yet, whatever a rule says.
const BRIEF_MS: u64 = 1000;
/// When nothing of a host can be overdue.
const NEVER_MS: u64 = u64::MAX;

/// Every number of every host.
#[derive(Debug, Default)]
pub(in crate::engine) struct Numbers {
    hosts: Shared<HostSeries>,
    units: Shared<Unit>,
    shapes: Shared<Shape>,
    plans: Shared<Plan>,
    hasher: DefaultHashBuilder,
    /// When each host is to be looked through for what is overdue, in milliseconds of attention.
    deadlines: BTreeSet<(u64, Id)>,
    /// Which rules match the host that was last asked for, as hosts come with all their numbers at once.
    matching: Option<(Id, Vec<bool>)>,
}

/// The place of a group. Valid until a group of its host is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct Place {
    host: Id,
    group: u32,
}

/// The numbers of one host.
#[derive(Debug)]
struct HostSeries {
    name: HostName,
    groups: Vec<Group>,
    /// By the hash of service, resource and unit.
    by_key: HashTable<u32>,
    values: Vec<f64>,
    /// Values that belong to no group any more.
    unused: usize,
    /// Its entry in the deadlines.
    deadline: u64,
}

/// The last sample of one thing.
#[derive(Debug)]
pub(in crate::engine) struct Group {
    unit: Id,
    shape: Id,
    plan: Id,
    /// Where its values begin in those of its host.
    first: u32,
    /// The observer's time of the sample.
    time: UnixMillis,
    /// In milliseconds of attention.
    pub(in crate::engine) heard_at: u64,
    /// What its rules remember; absent while all are fine and nothing is remembered.
    watches: Option<Box<Watches>>,
    /// As in the sample; 49 days at most.
    pub(in crate::engine) interval_ms: u32,
    /// Not before the first sample: what is open is known before its number is.
    has_value: bool,
}

#[derive(Clone, Debug)]
struct Watches(Vec<Watch>);

/// A rule's view of one number.
#[derive(Clone, Debug)]
struct Watch {
    phase: Phase,
    memory: Memory,
}

impl Watch {
    fn new(condition: &Condition) -> Self {
        Self { phase: Phase::Fine, memory: Memory::of(condition) }
    }
}

/// What kind of sample it is.
#[derive(Debug)]
struct Shape {
    service: Name,
    resource: Name,
    attributes: Box<[Name]>,
    /// The rules whose patterns cover the service and resource.
    candidates: Box<[u32]>,
}

impl Keyed for Shape {
    type Key<'a> = (&'a Name, &'a Name, &'a [Name]);

    fn key(&self) -> Self::Key<'_> {
        (&self.service, &self.resource, &self.attributes)
    }

    fn is(&self, key: &Self::Key<'_>) -> bool {
        self.key() == *key
    }
}

/// Which rules look at which number of a group.
#[derive(Debug)]
struct Plan {
    /// In the order of numbers, then of rules.
    looks: Box<[Look]>,
    /// The limits among them, in the form that is compared with every sample.
    limits: Box<[Limit]>,
    /// The shortest silence that a rule would miss it for.
    missed_after: Option<Duration>,
    /// A rule remembers former values, so each sample has to be looked at closely.
    remembers: bool,
}

/// A rule looks at a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Look {
    value: u32,
    rule: u32,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    bound: f64,
    value: u32,
    operator: Operator,
}

impl Plan {
    fn new(looks: Vec<Look>, rules: &[Rule]) -> Self {
        let condition = |look: &Look| &rules[look.rule as usize].condition;
        let limits = looks.iter().filter_map(|look| match *condition(look) {
            Condition::Beyond { operator, limit, .. } => Some(Limit { bound: limit, value: look.value, operator }),
            _ => None,
        });
        let missed_after = looks.iter().filter_map(|look| match *condition(look) {
            Condition::Absent { lasting } => Some(lasting),
            _ => None,
        });
        Self {
            limits: limits.collect(),
            missed_after: missed_after.min(),
            remembers: looks.iter().any(|look| condition(look).remembers()),
            looks: looks.into(),
        }
    }
}

impl Keyed for Plan {
    type Key<'a> = &'a [Look];

    fn key(&self) -> &[Look] {
        &self.looks
    }

    fn is(&self, key: &&[Look]) -> bool {
        *self.looks == **key
    }
}

impl Keyed for HostSeries {
    type Key<'a> = &'a str;

    fn key(&self) -> &str {
        self.name.as_str()
    }

    fn is(&self, key: &&str) -> bool {
        self.name.as_str() == *key
    }
}

/// A group with all that it shares.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct View<'a> {
    pub(in crate::engine) host: &'a HostName,
    pub(in crate::engine) group: &'a Group,
    unit: &'a Unit,
    shape: &'a Shape,
    plan: &'a Plan,
    values: &'a [f64],
}

impl<'a> View<'a> {
    /// The observer's time of the last sample; absent before the first.
    pub(in crate::engine) fn time(&self) -> Option<UnixMillis> {
        self.group.has_value.then_some(self.group.time)
    }

    pub(in crate::engine) fn numbers(self) -> impl Iterator<Item = (&'a Name, f64)> {
        self.shape.attributes.iter().zip(self.values.iter().copied())
    }

    pub(in crate::engine) fn matches(&self, pattern: &Pattern, attribute: &Name) -> bool {
        pattern.matches_value(self.host, &self.shape.service, &self.shape.resource, self.unit, attribute)
    }

    pub(in crate::engine) fn address(&self, attribute: &Name) -> Address {
        Address::Value(ValueAddress {
            host: self.host.clone(),
            service: self.shape.service.clone(),
            resource: self.shape.resource.clone(),
            unit: self.unit.clone(),
            attribute: attribute.clone(),
        })
    }

    /// Each rule that looks at one of its numbers, that number's attribute, and how it is.
    #[cfg(test)]
    pub(in crate::engine) fn phases(self) -> impl Iterator<Item = (usize, &'a Name, Phase)> {
        self.plan.looks.iter().enumerate().map(move |(at, look)| {
            (look.rule as usize, &self.shape.attributes[look.value as usize], self.group.phase(at))
        })
    }

    /// The last moment at which nothing of it is overdue, in milliseconds of attention. It is not forgotten for the time
    /// before `expected_since`, when its host could not be heard.
    fn due(&self, rules: &[Rule], forget_after: Duration, expected_since: u64) -> u64 {
        let heard_at = self.group.heard_at;
        let after = |since: u64, silence: Duration| since.saturating_add(millis(silence).max(BRIEF_MS));
        if self.plan.missed_after.is_none() {
            return after(heard_at.max(expected_since), forget_after);
        }
        // What a rule would miss is not forgotten.
        self.unmissed(rules).map(|(_, lasting)| after(heard_at, lasting)).min().unwrap_or(NEVER_MS)
    }

    /// The looks that would miss it and do not yet.
    fn unmissed<'r>(self, rules: &'r [Rule]) -> impl Iterator<Item = (usize, Duration)> + use<'a, 'r> {
        self.plan.looks.iter().enumerate().filter_map(move |(at, look)| match rules[look.rule as usize].condition {
            Condition::Absent { lasting } if self.group.phase(at) != Phase::Open => Some((at, lasting)),
            _ => None,
        })
    }
}

impl Group {
    fn phase(&self, look: usize) -> Phase {
        self.watches.as_ref().map_or(Phase::Fine, |watches| watches.0[look].phase)
    }

    /// Its own copy of each rule's view of it.
    fn watches(&mut self, plan: &Plan, rules: &[Rule]) -> &mut Vec<Watch> {
        let fresh =
            || Watches(plan.looks.iter().map(|look| Watch::new(&rules[look.rule as usize].condition)).collect());
        &mut self.watches.get_or_insert_with(|| Box::new(fresh())).0
    }

    /// Lets go of what is as if it had never been.
    fn tidy(&mut self, plan: &Plan) {
        let idle = |watches: &Watches| watches.0.iter().all(|watch| watch.phase == Phase::Fine);
        if !plan.remembers && self.watches.as_ref().is_some_and(|watches| idle(watches)) {
            self.watches = None;
        }
    }
}

/// What became of a number under a rule.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Judged {
    pub(in crate::engine) rule: usize,
    pub(in crate::engine) attribute: Name,
    pub(in crate::engine) value: f64,
    pub(in crate::engine) reading: Reading,
    pub(in crate::engine) turn: Turn,
}

/// A number that a rule misses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct Missed {
    pub(in crate::engine) address: Address,
    pub(in crate::engine) rule: usize,
    pub(in crate::engine) lasting: Duration,
}

/// What was found overdue.
#[derive(Debug, Default)]
pub(in crate::engine) struct Overdue {
    pub(in crate::engine) missed: Vec<Missed>,
    /// Groups that nobody has reported for too long. They are gone.
    pub(in crate::engine) forgotten: Vec<Vec<Address>>,
}

impl Numbers {
    /// The group of this sample.
    pub(in crate::engine) fn find(&self, sample: &SampleRef<'_>) -> Option<Place> {
        let SampleRef { host, service, resource, unit, .. } = *sample;
        self.find_key(GroupKey { host, service, resource, unit })
    }

    pub(in crate::engine) fn find_key(&self, key: GroupKey<'_>) -> Option<Place> {
        let GroupKey { host, service, resource, unit } = key;
        let host = self.hosts.find(&host)?;
        let series = self.hosts.get(host);
        let is = |group: &u32| {
            let group = &series.groups[*group as usize];
            let shape = self.shapes.get(group.shape);
            self.units.get(group.unit).as_str() == unit
                && shape.resource.as_str() == resource
                && shape.service.as_str() == service
        };
        let group = series.by_key.find(self.hasher.hash_one((service, resource, unit)), is)?;
        Some(Place { host, group: *group })
    }

    /// Whether a later sample of the same numbers has overtaken this one, which then says only that the group is reported. Of
    /// a group that comes in parts, each with a time of its own, no part overtakes another.
    pub(in crate::engine) fn overtaken(&mut self, place: Place, sample: &SampleRef<'_>, heard_at: u64) -> bool {
        let group = &mut self.hosts.get_mut(place.host).groups[place.group as usize];
        let overtaken = sample.time < group.time
            && group.has_value
            && sample.time.distance(group.time) <= OVERTAKEN_AT_MOST_MS
            && self.shapes.get(group.shape).attributes.len() == sample.values.len();
        if overtaken {
            group.heard_at = heard_at;
        }
        overtaken
    }

    /// Takes a sample that is as the one before, of which no rule says anything: nearly all are. False if it has to be looked
    /// at closely; what was taken by then does no harm.
    pub(in crate::engine) fn take(&mut self, place: Place, sample: &SampleRef<'_>, heard_at: u64) -> bool {
        let series = self.hosts.get_mut(place.host);
        let group = &mut series.groups[place.group as usize];
        let shape = self.shapes.get(group.shape);
        if shape.attributes.len() != sample.values.len() || group.watches.is_some() {
            return false;
        }
        let values = &mut series.values[group.first as usize..][..sample.values.len()];
        for ((slot, attribute), (name, value)) in values.iter_mut().zip(&shape.attributes).zip(sample.values) {
            if attribute.as_str() != *name || !value.is_finite() {
                return false;
            }
            *slot = *value;
        }
        let plan = self.plans.get(group.plan);
        let beyond = |limit: &Limit| limit.operator.holds(values[limit.value as usize], limit.bound);
        if plan.remembers || plan.limits.iter().any(beyond) {
            return false;
        }
        group.hear(sample, heard_at);
        true
    }

    /// Takes any sample of finite numbers, and says what follows. Numbers that are not known are left out.
    pub(in crate::engine) fn judge(
        &mut self,
        place: Place,
        sample: &SampleRef<'_>,
        numbers: &[(&str, f64)],
        heard_at: u64,
        rules: &[Rule],
    ) -> Vec<Judged> {
        let series = self.hosts.get_mut(place.host);
        let group = &mut series.groups[place.group as usize];
        let (shape, plan) = (self.shapes.get(group.shape), self.plans.get(group.plan));
        let values = &mut series.values[group.first as usize..][..shape.attributes.len()];
        let mut judged = Vec::new();
        let mut expected = 0;
        for (name, value) in numbers {
            let Some(at) = shape.position(name, expected) else { continue };
            expected = at + 1;
            values[at] = *value;
            let from = plan.looks.partition_point(|look| (look.value as usize) < at);
            for (look, watched) in (from..).zip(&plan.looks[from..]).take_while(|(_, look)| look.value as usize == at) {
                let condition = &rules[watched.rule as usize].condition;
                let phase = group.phase(look);
                let reading = if condition.remembers() {
                    group.watches(plan, rules)[look].memory.read(sample.time, *value, condition)
                } else {
                    Some(Reading::of(*value))
                };
                let Some(reading) = reading else { continue };
                if let Some((phase, turn)) = judge(phase, condition, sample.time, reading) {
                    group.watches(plan, rules)[look].phase = phase;
                    let attribute = shape.attributes[at].clone();
                    judged.push(Judged { rule: watched.rule as usize, attribute, value: *value, reading, turn });
                }
            }
        }
        group.hear(sample, heard_at);
        group.tidy(plan);
        judged
    }

    /// Of these numbers those that the group does not have; those that stand twice, twice.
    pub(in crate::engine) fn unknown<'n>(&self, place: Option<Place>, numbers: &[(&'n str, f64)]) -> Vec<&'n str> {
        let Some(place) = place else { return numbers.iter().map(|(name, _)| *name).collect() };
        let shape = self.shapes.get(self.hosts.get(place.host).groups[place.group as usize].shape);
        let mut expected = 0;
        let is_new = |(name, _): &&(&str, f64)| {
            let at = shape.position(name, expected);
            expected = at.map_or(expected, |at| at + 1);
            at.is_none()
        };
        numbers.iter().filter(is_new).map(|(name, _)| *name).collect()
    }

    /// A group without numbers yet. Panics on texts that are not what they should be.
    pub(in crate::engine) fn create(&mut self, key: GroupKey<'_>, heard_at: u64, rules: &[Rule]) -> Place {
        let checked = "its texts were checked when they were read";
        let host = match self.hosts.find(&key.host) {
            Some(host) => host,
            None => self.hosts.acquire(HostSeries::new(key.host.parse().expect(checked))),
        };
        let unit = match self.units.find(&key.unit) {
            Some(unit) => self.units.acquire_again(unit),
            None => self.units.acquire(key.unit.parse().expect(checked)),
        };
        let (service, resource) = (key.service.parse().expect(checked), key.resource.parse().expect(checked));
        let group = Group {
            unit,
            shape: self.acquire_shape(service, resource, Box::default(), rules),
            plan: self.plans.acquire(Plan::new(Vec::new(), rules)),
            first: 0,
            time: UnixMillis(0),
            heard_at,
            watches: None,
            interval_ms: 0,
            has_value: false,
        };
        let series = self.hosts.get_mut(host);
        make_room(&mut series.groups, 1);
        series.groups.push(group);
        let at = u32::try_from(series.groups.len() - 1).expect("memory ends before");
        let Self { hosts, units, shapes, hasher, .. } = self;
        let series = hosts.get_mut(host);
        let hash = |group: &u32| {
            let group = &series.groups[*group as usize];
            let shape = shapes.get(group.shape);
            hasher.hash_one((shape.service.as_str(), shape.resource.as_str(), units.get(group.unit).as_str()))
        };
        series.by_key.insert_unique(hash(&at), at, hash);
        Place { host, group: at }
    }

    fn acquire_shape(&mut self, service: Name, resource: Name, attributes: Box<[Name]>, rules: &[Rule]) -> Id {
        let shape = Shape { service, resource, attributes, candidates: Box::default() };
        match self.shapes.find(&shape.key()) {
            Some(id) => self.shapes.acquire_again(id),
            None => {
                let candidates = match *shape.attributes {
                    // Of a group that is only being made.
                    [] => Box::default(),
                    _ => candidates(&shape.service, &shape.resource, rules),
                };
                self.shapes.acquire(Shape { candidates, ..shape })
            }
        }
    }

    /// Gives the group more numbers, which are 0 until they are judged; `phase` says how each is under each rule so far.
    pub(in crate::engine) fn extend(
        &mut self,
        place: Place,
        added: &[&str],
        rules: &[Rule],
        phase: impl Fn(&View<'_>, &Name, usize) -> Phase,
    ) {
        let group = &self.hosts.get(place.host).groups[place.group as usize];
        let (old_shape, old_plan, unit) = (group.shape, group.plan, group.unit);
        let shape = self.shapes.get(old_shape);
        let known = shape.attributes.len();
        let added = added.iter().map(|name| Name::try_from(*name).expect("it was checked when it was read"));
        let attributes: Box<[Name]> = shape.attributes.iter().cloned().chain(added).collect();
        let count = attributes.len();
        let (service, resource) = (shape.service.clone(), shape.resource.clone());
        let shape = self.acquire_shape(service, resource, attributes, rules);
        let more = self.looks(place.host, shape, unit, known, rules);
        let looks: Vec<Look> = self.plans.get(old_plan).looks.iter().copied().chain(more).collect();
        let plan = self.plans.acquire(Plan::new(looks, rules));
        self.shapes.release(old_shape);
        self.plans.release(old_plan);

        let series = self.hosts.get_mut(place.host);
        series.grow(place.group as usize, known, count);
        let group = &mut series.groups[place.group as usize];
        (group.shape, group.plan) = (shape, plan);
        let plan = self.plans.get(plan);
        if let Some(watches) = &mut group.watches {
            let more = plan.looks[watches.0.len()..].iter();
            watches.0.extend(more.map(|look| Watch::new(&rules[look.rule as usize].condition)));
        }
        self.recall(place, known, rules, phase);
    }

    /// Sets how the numbers from this one on are under each rule.
    fn recall(&mut self, place: Place, first: usize, rules: &[Rule], phase: impl Fn(&View<'_>, &Name, usize) -> Phase) {
        let view = self.view(place);
        let looks = view.plan.looks.iter().enumerate().filter(|(_, look)| look.value as usize >= first);
        let recalled: Vec<_> = looks
            .map(|(at, look)| (at, phase(&view, &view.shape.attributes[look.value as usize], look.rule as usize)))
            .filter(|(_, phase)| *phase != Phase::Fine)
            .collect();
        let group = &mut self.hosts.get_mut(place.host).groups[place.group as usize];
        let plan = self.plans.get(group.plan);
        for (at, phase) in recalled {
            group.watches(plan, rules)[at].phase = phase;
        }
    }

    /// Which rules look at the numbers of such a group from `first` on.
    fn looks(&mut self, host: Id, shape: Id, unit: Id, first: usize, rules: &[Rule]) -> Vec<Look> {
        let matching = match self.matching.take() {
            Some((of, matching)) if of == host => matching,
            _ => {
                let name = &self.hosts.get(host).name;
                rules.iter().map(|rule| rule.pattern.matches_host(name)).collect()
            }
        };
        let (shape, unit) = (self.shapes.get(shape), self.units.get(unit));
        let mut looks = Vec::new();
        for rule in shape.candidates.iter().filter(|rule| matching[**rule as usize]) {
            let pattern = &rules[*rule as usize].pattern;
            for (value, attribute) in (0..).zip(&shape.attributes).skip(first) {
                if pattern.matches_number(unit, attribute) {
                    looks.push(Look { value, rule: *rule });
                }
            }
        }
        looks.sort_unstable_by_key(|look| (look.value, look.rule));
        self.matching = Some((host, matching));
        looks
    }

    /// Other rules from now on. `phase` says how each number is under each of them; what a rule remembers stays with it.
    pub(in crate::engine) fn resolve(
        &mut self,
        rules: &[Rule],
        forget_after: Duration,
        phase: impl Fn(&View<'_>, &Name, usize) -> Phase,
    ) {
        self.matching = None;
        for shape in self.shapes.iter_mut() {
            shape.candidates = candidates(&shape.service, &shape.resource, rules);
        }
        let old_plans = std::mem::take(&mut self.plans);
        for place in self.places() {
            let group = &self.hosts.get(place.host).groups[place.group as usize];
            let looks = self.looks(place.host, group.shape, group.unit, 0, rules);
            let plan = self.plans.acquire(Plan::new(looks, rules));
            let group = &mut self.hosts.get_mut(place.host).groups[place.group as usize];
            let (old_plan, old_watches) = (std::mem::replace(&mut group.plan, plan), group.watches.take());
            let plan = self.plans.get(plan);
            if let (true, Some(old_watches)) = (plan.remembers, old_watches) {
                let old: Vec<_> = old_plans.get(old_plan).looks.iter().zip(old_watches.0).collect();
                for (watch, look) in group.watches(plan, rules).iter_mut().zip(&plan.looks) {
                    let fits = |(old, remembered): &&(&Look, Watch)| {
                        old.value == look.value && remembered.memory.serves(&rules[look.rule as usize].condition)
                    };
                    if let Some((_, remembered)) = old.iter().find(fits) {
                        watch.memory = remembered.memory.clone();
                    }
                }
            }
            self.recall(place, 0, rules, &phase);
        }
        self.reschedule(rules, forget_after);
    }

    fn places(&self) -> Vec<Place> {
        let places = |(host, series, _): (Id, &HostSeries, u32)| {
            (0..).zip(&series.groups).map(move |(group, _)| Place { host, group }).collect::<Vec<_>>()
        };
        self.hosts.iter().flat_map(places).collect()
    }

    pub(in crate::engine) fn view(&self, place: Place) -> View<'_> {
        self.view_in(self.hosts.get(place.host), place.group as usize)
    }

    fn view_in<'a>(&'a self, series: &'a HostSeries, group: usize) -> View<'a> {
        let group = &series.groups[group];
        let shape = self.shapes.get(group.shape);
        View {
            host: &series.name,
            group,
            unit: self.units.get(group.unit),
            shape,
            plan: self.plans.get(group.plan),
            values: &series.values[group.first as usize..][..shape.attributes.len()],
        }
    }

    /// The groups of one host.
    pub(in crate::engine) fn of_host(&self, host: &HostName) -> impl Iterator<Item = View<'_>> {
        let series = self.hosts.find(&host.as_str()).map(|host| self.hosts.get(host));
        series.into_iter().flat_map(|series| (0..series.groups.len()).map(|group| self.view_in(series, group)))
    }

    /// The hosts that have numbers, in no order.
    pub(in crate::engine) fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.hosts.iter().map(|(_, series, _)| &series.name)
    }

    /// The group that a number is in, if there is one.
    pub(in crate::engine) fn view_of(&self, address: &ValueAddress) -> Option<View<'_>> {
        let ValueAddress { host, service, resource, unit, .. } = address;
        let (host, service, resource, unit) = (host.as_str(), service.as_str(), resource.as_str(), unit.as_str());
        Some(self.view(self.find_key(GroupKey { host, service, resource, unit })?))
    }

    /// The last value of one number, if there is one.
    pub(in crate::engine) fn value(&self, address: &ValueAddress) -> Option<f64> {
        let view = self.view_of(address)?;
        view.time()?;
        view.numbers().find(|(name, _)| **name == address.attribute).map(|(_, value)| value)
    }

    /// How many numbers each rule looks at.
    pub(in crate::engine) fn matches(&self, rules: usize) -> Vec<u64> {
        let mut matches = vec![0; rules];
        for (_, plan, groups) in self.plans.iter() {
            for look in &plan.looks {
                matches[look.rule as usize] += u64::from(groups);
            }
        }
        matches
    }

    /// Sees to it that the group is looked at when it is overdue.
    pub(in crate::engine) fn schedule(&mut self, place: Place, rules: &[Rule], forget_after: Duration) {
        let due = self.view(place).due(rules, forget_after, 0);
        if due < self.hosts.get(place.host).deadline {
            self.set_deadline(place.host, due);
        }
    }

    fn reschedule(&mut self, rules: &[Rule], forget_after: Duration) {
        let hosts: Vec<Id> = self.hosts.iter().map(|(host, ..)| host).collect();
        for host in hosts {
            self.set_deadline(host, self.next_due(host, rules, forget_after, 0));
        }
    }

    fn next_due(&self, host: Id, rules: &[Rule], forget_after: Duration, expected_since: u64) -> u64 {
        let series = self.hosts.get(host);
        let view = |group| self.view_in(series, group);
        let due = (0..series.groups.len()).map(|group| view(group).due(rules, forget_after, expected_since));
        due.min().unwrap_or(NEVER_MS)
    }

    fn set_deadline(&mut self, host: Id, due: u64) {
        let series = self.hosts.get_mut(host);
        let before = std::mem::replace(&mut series.deadline, due);
        self.deadlines.remove(&(before, host));
        if due < NEVER_MS {
            self.deadlines.insert((due, host));
        }
    }

    /// What has become overdue. Only the hosts that may have such are looked at. `expected_since` says since when a host can
    /// be heard: now, if it cannot.
    pub(in crate::engine) fn overdue(
        &mut self,
        now: u64,
        rules: &[Rule],
        forget_after: Duration,
        expected_since: impl Fn(&HostName) -> u64,
    ) -> Overdue {
        let mut overdue = Overdue::default();
        while overdue.missed.len() + overdue.forgotten.len() < OVERDUE_AT_ONCE
            && let Some((_, host)) = self.deadlines.first().copied().filter(|(due, _)| *due < now)
        {
            let expected_since = expected_since(&self.hosts.get(host).name);
            let mut forgotten = Vec::new();
            // From the end, so that a removal changes no place that is still to come.
            for group in (0..self.hosts.get(host).groups.len()).rev() {
                let view = self.view_in(self.hosts.get(host), group);
                if view.due(rules, forget_after, expected_since) >= now {
                    continue;
                }
                let place = Place { host, group: u32::try_from(group).expect("it is a place") };
                if view.plan.missed_after.is_none() {
                    forgotten.push(place);
                    continue;
                }
                let silence = now - view.group.heard_at;
                let missed: Vec<_> = view.unmissed(rules).filter(|(_, l)| silence > millis(*l).max(BRIEF_MS)).collect();
                for (look, lasting) in &missed {
                    let Look { value, rule } = view.plan.looks[*look];
                    let address = view.address(&view.shape.attributes[value as usize]);
                    overdue.missed.push(Missed { address, rule: rule as usize, lasting: *lasting });
                }
                let group = &mut self.hosts.get_mut(host).groups[group];
                let plan = self.plans.get(group.plan);
                for (look, _) in missed {
                    group.watches(plan, rules)[look].phase = Phase::Open;
                }
            }
            let due = self.next_due(host, rules, forget_after, expected_since);
            self.set_deadline(host, due.max(now));
            for place in forgotten {
                overdue.forgotten.push(self.remove(place));
            }
        }
        overdue.missed.sort();
        overdue.forgotten.sort();
        overdue
    }

    /// Whether nothing is left to be found overdue.
    pub(in crate::engine) fn is_done(&self, now: u64) -> bool {
        self.deadlines.first().is_none_or(|(due, _)| *due >= now)
    }

    /// Forgets a group; returns the addresses of its numbers.
    fn remove(&mut self, place: Place) -> Vec<Address> {
        let view = self.view(place);
        let addresses = view.numbers().map(|(attribute, _)| view.address(attribute)).collect();
        let hash = |view: View<'_>| {
            let View { shape, unit, .. } = view;
            self.hasher.hash_one((shape.service.as_str(), shape.resource.as_str(), unit.as_str()))
        };
        let series = self.hosts.get(place.host);
        let last = series.groups.len() - 1;
        let (own_hash, last_hash) = (hash(view), hash(self.view_in(series, last)));
        let count = view.values.len();
        let series = self.hosts.get_mut(place.host);
        let Ok(entry) = series.by_key.find_entry(own_hash, |at| *at == place.group) else {
            unreachable!("it is there")
        };
        entry.remove();
        let group = series.groups.swap_remove(place.group as usize);
        series.unused += count;
        if let Some(moved) = series.by_key.find_mut(last_hash, |at| *at as usize == last) {
            *moved = place.group;
        }
        self.units.release(group.unit);
        self.shapes.release(group.shape);
        self.plans.release(group.plan);
        self.settle(place.host);
        addresses
    }

    /// Gives back what a host no longer needs.
    fn settle(&mut self, host: Id) {
        let series = self.hosts.get(host);
        if series.groups.is_empty() {
            self.set_deadline(host, NEVER_MS);
            self.hosts.release(host);
            self.matching = None;
        } else if series.unused > series.values.len() / 2 {
            let counts = series.groups.iter().map(|group| self.shapes.get(group.shape).attributes.len());
            let counts: Vec<_> = counts.collect();
            self.hosts.get_mut(host).compact(&counts);
        }
    }

    /// Forgets the numbers that match; returns their addresses.
    pub(in crate::engine) fn forget(&mut self, pattern: &Pattern, rules: &[Rule]) -> Vec<Address> {
        let mut forgotten = Vec::new();
        let matching: Vec<_> =
            self.hosts.iter().filter(|(_, series, _)| pattern.matches_host(&series.name)).map(|(id, ..)| id).collect();
        for host in matching {
            for group in (0..self.hosts.get(host).groups.len()).rev() {
                let view = self.view_in(self.hosts.get(host), group);
                let kept: Vec<usize> =
                    (0..view.values.len()).filter(|at| !view.matches(pattern, &view.shape.attributes[*at])).collect();
                if kept.len() == view.values.len() {
                    continue;
                }
                let place = Place { host, group: u32::try_from(group).expect("it is a place") };
                if kept.is_empty() {
                    forgotten.extend(self.remove(place));
                } else {
                    forgotten.extend(self.shrink(place, &kept, rules));
                }
            }
        }
        forgotten
    }

    /// Only these of its numbers stay.
    fn shrink(&mut self, place: Place, kept: &[usize], rules: &[Rule]) -> Vec<Address> {
        let view = self.view(place);
        let (old_shape, old_plan) = (view.group.shape, view.group.plan);
        let gone = (0..view.values.len()).filter(|at| kept.binary_search(at).is_err());
        let gone: Vec<_> = gone.map(|at| view.address(&view.shape.attributes[at])).collect();
        let (service, resource) = (view.shape.service.clone(), view.shape.resource.clone());
        let attributes = kept.iter().map(|at| view.shape.attributes[*at].clone()).collect();
        let moved = |look: &Look| Some(u32::try_from(kept.binary_search(&(look.value as usize)).ok()?).expect("fewer"));
        let stays: Vec<bool> = view.plan.looks.iter().map(|look| moved(look).is_some()).collect();
        let looks = view.plan.looks.iter().filter_map(|look| Some(Look { value: moved(look)?, ..*look })).collect();
        let shape = self.acquire_shape(service, resource, attributes, rules);
        let plan = self.plans.acquire(Plan::new(looks, rules));
        self.shapes.release(old_shape);
        self.plans.release(old_plan);
        let series = self.hosts.get_mut(place.host);
        let group = &mut series.groups[place.group as usize];
        (group.shape, group.plan) = (shape, plan);
        if let Some(watches) = &mut group.watches {
            let mut stays = stays.into_iter();
            watches.0.retain(|_| stays.next().expect("one for each look"));
        }
        for (to, from) in kept.iter().enumerate() {
            series.values[group.first as usize + to] = series.values[group.first as usize + from];
        }
        series.unused += gone.len();
        self.settle(place.host);
        gone
    }
}

/// What names a group.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct GroupKey<'a> {
    pub(in crate::engine) host: &'a str,
    pub(in crate::engine) service: &'a str,
    pub(in crate::engine) resource: &'a str,
    pub(in crate::engine) unit: &'a str,
}

impl Group {
    fn hear(&mut self, sample: &SampleRef<'_>, heard_at: u64) {
        self.time = sample.time;
        self.interval_ms = u32::try_from(sample.interval_ms).unwrap_or(u32::MAX);
        self.heard_at = heard_at;
        self.has_value = true;
    }
}

impl Shape {
    /// Where an attribute is. Samples of one thing hold the same attributes in the same order, so it is looked for where it is
    /// expected first.
    fn position(&self, name: &str, expected: usize) -> Option<usize> {
        let is = |attribute: &Name| attribute.as_str() == name;
        let (before, behind) = self.attributes.split_at(expected.min(self.attributes.len()));
        behind.iter().position(is).map(|at| before.len() + at).or_else(|| before.iter().position(is))
    }
}

impl HostSeries {
    fn new(name: HostName) -> Self {
        Self { name, groups: Vec::new(), by_key: HashTable::new(), values: Vec::new(), unused: 0, deadline: NEVER_MS }
    }

    /// A group of `before` values gets `after`, the new ones 0. Only the last ones can grow where they are.
    fn grow(&mut self, group: usize, before: usize, after: usize) {
        let first = self.groups[group].first as usize;
        if before == 0 || first + before != self.values.len() {
            make_room(&mut self.values, after);
            self.groups[group].first = u32::try_from(self.values.len()).expect("memory ends before");
            self.values.extend_from_within(first..first + before);
            self.unused += before;
        } else {
            make_room(&mut self.values, after - before);
        }
        self.values.resize(self.values.len() + after - before, 0.0);
    }

    /// Moves the values of the groups together; `counts` says how many each has.
    fn compact(&mut self, counts: &[usize]) {
        let mut values = Vec::with_capacity(counts.iter().sum());
        for (group, count) in self.groups.iter_mut().zip(counts) {
            let first = group.first as usize;
            group.first = u32::try_from(values.len()).expect("there are fewer than before");
            values.extend_from_slice(&self.values[first..first + count]);
        }
        (self.values, self.unused) = (values, 0);
    }
}

/// Room for as many more, without doubling: most hosts stop growing early, and there are many.
fn make_room<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / 8));
    }
}

fn candidates(service: &Name, resource: &Name, rules: &[Rule]) -> Box<[u32]> {
    let covering = (0..).zip(rules).filter(|(_, rule)| rule.pattern.matches_resource(service, resource));
    covering.map(|(at, _)| at).collect()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
