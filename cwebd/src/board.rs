//! What the page shows, kept up to date by what the publishers say.
//!
//! The board is pure: it is told what came and when, and says what a browser that knew the state before has to be told
//! ([`Board::take_delta`]). Each publisher has a side of its own, and what is shown is the worst of all sides, so that
//! two cprocessds which watch the same hosts, or share them, look like one. It keeps a few numbers per host and no
//! history but the last events; each list has a bound, and what is beyond it is counted and not shown.

use common::address::{Address, HostName};
use common::message::{DownRow, Event, EventId, IncidentId, Kind, Sample, ServerRow, State, StreamSnapshot};
use common::severity::Severity;
use common::time::UnixMillis;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Recent events that are kept; the oldest makes way.
pub(crate) const MAX_EVENTS: usize = 200;
/// Hosts of one publisher; who comes later is not shown.
const MAX_HOSTS: usize = 5000;
/// Open incidents of one publisher; what comes later is only counted.
const MAX_INCIDENTS: usize = 2000;
/// Of a text, this many characters are kept.
const MAX_TEXT_CHARS: usize = 1000;
/// A number that was not renewed for three of its intervals says nothing, but never sooner than this.
const LEAST_VALID: Duration = Duration::from_secs(5);
/// No beat for so long: the publisher is silent. Beats come each second.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(3);

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Board {
    sides: Vec<Side>,
    numbers: BTreeMap<HostName, Numbers>,
    /// Oldest first.
    events: VecDeque<EventRow>,
    changed: Changed,
}

/// What one publisher says.
#[derive(Debug)]
struct Side {
    name: String,
    last_beat: Option<Duration>,
    hosts: BTreeMap<HostName, (State, UnixMillis)>,
    incidents: BTreeMap<IncidentId, DownRow>,
    /// Open incidents beyond [`MAX_INCIDENTS`].
    more_incidents: usize,
}

/// What a browser has to be told.
#[derive(Debug, Default)]
struct Changed {
    hosts: BTreeSet<HostName>,
    loads: BTreeSet<HostName>,
    incidents: BTreeSet<IncidentId>,
    events: VecDeque<EventRow>,
    /// So much that the whole state is shorter to say.
    all: bool,
}

/// The numbers of one host that are shown, each with the moment until which it says something.
#[derive(Debug, Default)]
struct Numbers {
    cpu: Option<Measured>,
    memory: Option<Measured>,
    disk: Option<(String, Measured)>,
    load_per_core: Option<Measured>,
    /// What the browsers have.
    told: LoadRow,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    value: f64,
    valid_until: Duration,
}

/// A machine as the page gets it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct HostRow {
    pub(crate) host: HostName,
    pub(crate) state: State,
    pub(crate) since: UnixMillis,
    /// The worst of its open incidents.
    pub(crate) severity: Option<Severity>,
    /// How many there are.
    pub(crate) open: usize,
    pub(crate) load: LoadRow,
}

/// How busy a machine is, percent from 0 to 100, each absent where nobody measured it lately.
///
/// `mean` is the arithmetic mean of those of the three that are there: the time all processors were busy
/// (`machine.cpu:all.load`), the physical memory in use (`machine.memory:physical.used_percentage`), and the fullest
/// disk (the greatest `machine.disk:*.used_percentage`). `load_per_core` is `machine.load_average:.1m_per_core`, which
/// has no upper end and is no part of the mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct LoadRow {
    pub(crate) mean: Option<f64>,
    pub(crate) cpu: Option<f64>,
    pub(crate) memory: Option<f64>,
    pub(crate) disk: Option<f64>,
    /// Where the fullest disk is mounted.
    pub(crate) mount: Option<String>,
    pub(crate) load_per_core: Option<f64>,
}

/// An open incident as the page gets it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct IncidentRow {
    pub(crate) incident: IncidentId,
    pub(crate) address: Address,
    pub(crate) host: HostName,
    pub(crate) rule: String,
    pub(crate) severity: Severity,
    pub(crate) since: UnixMillis,
    pub(crate) text: String,
    pub(crate) acked: bool,
    pub(crate) silenced: bool,
    pub(crate) unreachable: bool,
}

/// An event as the page gets it: without its attachment, which may be large.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EventRow {
    pub(crate) id: EventId,
    pub(crate) kind: Kind,
    pub(crate) address: Address,
    pub(crate) severity: Severity,
    pub(crate) time: UnixMillis,
    pub(crate) text: String,
    pub(crate) rule: String,
    pub(crate) duration_ms: Option<u64>,
}

/// A publisher as the page gets it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PublisherRow {
    pub(crate) name: String,
    /// Since its newest beat; absent if there was none.
    pub(crate) age_ms: Option<u64>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct StateRow {
    pub(crate) now: UnixMillis,
    pub(crate) version: &'static str,
    pub(crate) publishers: Vec<PublisherRow>,
    pub(crate) hosts: Vec<HostRow>,
    pub(crate) incidents: Vec<IncidentRow>,
    /// Incidents that are open but too many to show.
    pub(crate) more_incidents: usize,
    /// Newest first.
    pub(crate) events: Vec<EventRow>,
}

/// What changed since the delta before.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct DeltaRow {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hosts: Vec<HostRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone: Vec<HostName>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) loads: BTreeMap<HostName, LoadRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) opened: Vec<IncidentRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) closed: Vec<IncidentId>,
    pub(crate) more_incidents: usize,
    /// Newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<EventRow>,
}

/// What a browser has to be told.
#[derive(Debug, PartialEq)]
pub(crate) enum Delta {
    /// Nothing.
    None,
    /// This.
    Some(Box<DeltaRow>),
    /// Everything anew.
    All,
}

impl Board {
    /// An empty board that will hear of these publishers.
    pub(crate) fn new(publishers: impl IntoIterator<Item = String>) -> Self {
        let side = |name| Side {
            name,
            last_beat: None,
            hosts: BTreeMap::new(),
            incidents: BTreeMap::new(),
            more_incidents: 0,
        };
        Self {
            sides: publishers.into_iter().map(side).collect(),
            numbers: BTreeMap::new(),
            events: VecDeque::new(),
            changed: Changed::default(),
        }
    }

    /// The whole state of a publisher replaces what was known of it.
    pub(crate) fn snapshot(&mut self, side: usize, snapshot: StreamSnapshot) {
        self.refresh(side, snapshot.hosts, snapshot.incidents);
        self.changed.all = true;
    }

    /// What a publisher answered to `server-list` and `down-list`: what no event tells, such as a host that became
    /// unknown because its ccollectd fell silent.
    pub(crate) fn refresh(&mut self, side: usize, hosts: Vec<ServerRow>, incidents: Vec<DownRow>) {
        let side = &mut self.sides[side];
        let hosts: BTreeMap<_, _> =
            hosts.into_iter().take(MAX_HOSTS).map(|row| (row.host, (row.state, row.since))).collect();
        self.changed.hosts.extend(differing(&side.hosts, &hosts));
        side.hosts = hosts;
        side.more_incidents = incidents.len().saturating_sub(MAX_INCIDENTS);
        let incidents: BTreeMap<_, _> =
            incidents.into_iter().take(MAX_INCIDENTS).map(|row| (row.incident, clamped_row(row))).collect();
        for id in differing(&side.incidents, &incidents) {
            let row = incidents.get(&id).or(side.incidents.get(&id));
            self.changed.hosts.extend(row.map(|row| row.address.host().clone()));
            self.changed.incidents.insert(id);
        }
        side.incidents = incidents;
        let sides = &self.sides;
        self.numbers.retain(|host, _| sides.iter().any(|side| side.hosts.contains_key(host)));
    }

    /// Events from before we listened.
    pub(crate) fn history(&mut self, events: Vec<Event>) {
        let known: BTreeSet<EventId> = self.events.iter().map(|row| row.id).collect();
        self.events.extend(events.into_iter().map(event_row).filter(|row| !known.contains(&row.id)));
        // Of several publishers, each brings its own.
        self.events.make_contiguous().sort_by_key(|row| row.time);
        let surplus = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..surplus);
        self.changed.all = true;
    }

    /// Something happened.
    pub(crate) fn event(&mut self, side: usize, event: Event) {
        let side = &mut self.sides[side];
        match event.kind {
            Kind::Down | Kind::Alarm | Kind::Absent | Kind::Persistent | Kind::Revealed => {
                if side.incidents.len() < MAX_INCIDENTS || side.incidents.contains_key(&event.incident) {
                    side.incidents.insert(event.incident, opened_by(&event));
                } else {
                    side.more_incidents += 1;
                }
                self.changed.incidents.insert(event.incident);
            }
            Kind::Up | Kind::Solved | Kind::Retired => {
                if side.incidents.remove(&event.incident).is_some() {
                    self.changed.incidents.insert(event.incident);
                } else {
                    side.more_incidents = side.more_incidents.saturating_sub(1);
                }
            }
            // What is acknowledged or silenced shows with the next answer to `down-list`.
            Kind::Blip
            | Kind::Log
            | Kind::Started
            | Kind::Stopped
            | Kind::Flapping
            | Kind::Watchdog
            | Kind::Ack
            | Kind::Silence
            | Kind::Order
            | Kind::Other => {}
        }
        if event.address == Address::alive(event.host.clone()) {
            let state = match event.kind {
                Kind::Up | Kind::Started => Some((State::Up, event.time)),
                Kind::Down => Some((State::Down, event.since)),
                Kind::Stopped => Some((State::Unknown, event.time)),
                // The host is forgotten: the next answer to `server-list` leaves it out.
                Kind::Retired
                | Kind::Blip
                | Kind::Alarm
                | Kind::Solved
                | Kind::Absent
                | Kind::Log
                | Kind::Flapping
                | Kind::Persistent
                | Kind::Revealed
                | Kind::Watchdog
                | Kind::Ack
                | Kind::Silence
                | Kind::Order
                | Kind::Other => None,
            };
            if let Some(state) = state
                && (side.hosts.len() < MAX_HOSTS || side.hosts.contains_key(&event.host))
            {
                side.hosts.insert(event.host.clone(), state);
            }
        }
        self.changed.hosts.insert(event.host.clone());
        // A second publisher says the same again.
        if !self.events.iter().any(|row| row.id == event.id) {
            let row = event_row(event);
            for list in [&mut self.events, &mut self.changed.events] {
                list.push_back(row.clone());
                if list.len() > MAX_EVENTS {
                    list.pop_front();
                }
            }
        }
    }

    /// Numbers of a host. `now` is on the clock of all other calls.
    pub(crate) fn sample(&mut self, now: Duration, sample: &Sample) {
        if sample.service.as_str() != "machine" || sample.backfill {
            return;
        }
        let wanted = match (sample.resource.as_str(), sample.unit.as_str()) {
            ("cpu", "all") => "load",
            ("memory", "physical") | ("disk", _) => "used_percentage",
            ("load_average", "") => "1m_per_core",
            _ => return,
        };
        let Some(&(_, value)) = sample.values.0.iter().find(|(name, _)| name.as_str() == wanted) else { return };
        if !value.is_finite() || !self.sides.iter().any(|side| side.hosts.contains_key(&sample.host)) {
            return;
        }
        let valid = LEAST_VALID.max(Duration::from_millis(sample.interval_ms.min(86_400_000) * 3));
        let measured = Measured { value, valid_until: now + valid };
        let numbers = self.numbers.entry(sample.host.clone()).or_default();
        match sample.resource.as_str() {
            "cpu" => numbers.cpu = Some(measured),
            "memory" => numbers.memory = Some(measured),
            "load_average" => numbers.load_per_core = Some(measured),
            _ => {
                let fullest = numbers.disk.as_ref().is_none_or(|(mount, fullest)| {
                    mount == sample.unit.as_str() || value > fullest.value || now > fullest.valid_until
                });
                if fullest {
                    numbers.disk = Some((clamped(sample.unit.as_str()), measured));
                }
            }
        }
        self.changed.loads.insert(sample.host.clone());
    }

    /// A publisher lives.
    pub(crate) fn beat(&mut self, now: Duration, side: usize) {
        self.sides[side].last_beat = Some(now);
    }

    /// Time passes: numbers that nobody renews go.
    pub(crate) fn tick(&mut self, now: Duration) {
        for (host, numbers) in &mut self.numbers {
            let old = |measured: &Measured| now > measured.valid_until;
            let mut gone = numbers.disk.take_if(|(_, disk)| old(disk)).is_some();
            for number in [&mut numbers.cpu, &mut numbers.memory, &mut numbers.load_per_core] {
                gone |= number.take_if(|number| old(number)).is_some();
            }
            if gone {
                self.changed.loads.insert(host.clone());
            }
        }
    }

    /// The publishers, and how long ago each was heard.
    pub(crate) fn publishers(&self, now: Duration) -> Vec<PublisherRow> {
        let age = |beat: Duration| u64::try_from(now.saturating_sub(beat).as_millis()).unwrap_or(u64::MAX);
        self.sides
            .iter()
            .map(|side| PublisherRow { name: side.name.clone(), age_ms: side.last_beat.map(age) })
            .collect()
    }

    /// Whether some publisher was heard lately.
    pub(crate) fn is_live(&self, now: Duration) -> bool {
        self.sides.iter().any(|side| side.last_beat.is_some_and(|beat| now.saturating_sub(beat) < SILENT_AFTER))
    }

    /// Everything that is shown.
    pub(crate) fn state(&self, now: Duration, wall: UnixMillis) -> StateRow {
        let incidents = self.incidents();
        let hosts: BTreeSet<&HostName> = self.sides.iter().flat_map(|side| side.hosts.keys()).collect();
        let open = open_by_host(incidents.values());
        StateRow {
            now: wall,
            version: env!("CARGO_PKG_VERSION"),
            publishers: self.publishers(now),
            hosts: hosts.into_iter().filter_map(|host| self.host_row(host, &open)).collect(),
            more_incidents: self.more_incidents(),
            incidents: incidents.into_values().collect(),
            events: self.events.iter().rev().cloned().collect(),
        }
    }

    /// What changed since the last call but for loads, which wait for [`Self::take_loads`] unless they come along.
    pub(crate) fn take_delta(&mut self) -> Delta {
        let Changed { hosts, incidents: changed, events, all, .. } = &mut self.changed;
        if std::mem::take(all) {
            self.changed = Changed::default();
            return Delta::All;
        }
        if hosts.is_empty() && changed.is_empty() && events.is_empty() {
            return Delta::None;
        }
        let (hosts, changed, events) = (std::mem::take(hosts), std::mem::take(changed), std::mem::take(events));
        let mut incidents = self.incidents();
        let open = open_by_host(incidents.values());
        let mut delta = DeltaRow { more_incidents: self.more_incidents(), ..DeltaRow::default() };
        for host in hosts {
            match self.host_row(&host, &open) {
                Some(row) => delta.hosts.push(row),
                None => delta.gone.push(host),
            }
        }
        for id in changed {
            match incidents.remove(&id) {
                Some(row) => delta.opened.push(row),
                None => delta.closed.push(id),
            }
        }
        delta.events = events.into_iter().rev().collect();
        Delta::Some(Box::new(delta))
    }

    /// The loads that changed since the last call.
    pub(crate) fn take_loads(&mut self) -> Delta {
        let mut loads = BTreeMap::new();
        for host in std::mem::take(&mut self.changed.loads) {
            let row = self.load_row(&host);
            // Most memory and most disks stay as they are for long.
            if let Some(numbers) = self.numbers.get_mut(&host)
                && numbers.told != row
            {
                numbers.told.clone_from(&row);
                loads.insert(host, row);
            }
        }
        if loads.is_empty() {
            return Delta::None;
        }
        Delta::Some(Box::new(DeltaRow { loads, more_incidents: self.more_incidents(), ..DeltaRow::default() }))
    }

    fn more_incidents(&self) -> usize {
        self.sides.iter().map(|side| side.more_incidents).max().unwrap_or(0)
    }

    /// What is open on any side, each as the side says it that takes it worst.
    fn incidents(&self) -> BTreeMap<IncidentId, IncidentRow> {
        let mut all: BTreeMap<IncidentId, IncidentRow> = BTreeMap::new();
        for (id, row) in self.sides.iter().flat_map(|side| &side.incidents) {
            if all.get(id).is_none_or(|other| row.severity > other.severity) {
                all.insert(*id, incident_row(row));
            }
        }
        all
    }

    fn host_row(&self, host: &HostName, open: &HashMap<HostName, (usize, Severity)>) -> Option<HostRow> {
        let states = self.sides.iter().filter_map(|side| side.hosts.get(host));
        let &(state, since) = states.max_by_key(|(state, _)| badness(*state))?;
        let open = open.get(host);
        Some(HostRow {
            host: host.clone(),
            state,
            since,
            severity: open.map(|(_, worst)| *worst),
            open: open.map_or(0, |(count, _)| *count),
            load: self.load_row(host),
        })
    }

    fn load_row(&self, host: &HostName) -> LoadRow {
        let Some(numbers) = self.numbers.get(host) else { return LoadRow::default() };
        let value = |measured: Option<Measured>| measured.map(|measured| measured.value);
        let (cpu, memory) = (value(numbers.cpu), value(numbers.memory));
        let disk = numbers.disk.as_ref().map(|(_, measured)| measured.value);
        let present: Vec<f64> =
            [cpu, memory, disk].into_iter().flatten().map(|value| value.clamp(0.0, 100.0)).collect();
        let mean = (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64);
        LoadRow {
            mean: mean.map(tenths),
            cpu: cpu.map(tenths),
            memory: memory.map(tenths),
            disk: disk.map(tenths),
            mount: numbers.disk.as_ref().map(|(mount, _)| mount.clone()),
            load_per_core: value(numbers.load_per_core).map(|value| (value * 100.0).round() / 100.0),
        }
    }
}

/// Which keys are in one map only, or have another value there.
fn differing<K: Ord + Clone, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Vec<K> {
    let new = after.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key);
    let gone = before.keys().filter(|key| !after.contains_key(key));
    new.chain(gone).cloned().collect()
}

fn open_by_host<'a>(incidents: impl Iterator<Item = &'a IncidentRow>) -> HashMap<HostName, (usize, Severity)> {
    let mut open: HashMap<HostName, (usize, Severity)> = HashMap::new();
    for row in incidents {
        let (count, worst) = open.entry(row.host.clone()).or_insert((0, row.severity));
        *count += 1;
        *worst = row.severity.max(*worst);
    }
    open
}

/// More for what a person should rather see.
fn badness(state: State) -> u8 {
    match state {
        State::Up | State::Resolved => 0,
        State::Unknown => 1,
        State::Down | State::Open => 2,
    }
}

/// Enough for a bar and a number, and short in JSON.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn clamped(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

fn clamped_row(row: DownRow) -> DownRow {
    DownRow { text: clamped(&row.text), rule: clamped(&row.rule), ..row }
}

/// The row that `down-list` will have for it.
fn opened_by(event: &Event) -> DownRow {
    let by = |causes: &[&str]| {
        let is = |by: &String| causes.iter().any(|cause| by.split(':').next() == Some(*cause));
        event.suppressed_by.iter().any(is)
    };
    DownRow {
        incident: event.incident,
        address: event.address.clone(),
        rule: event.rule.clone(),
        kind: Some(event.kind).filter(|kind| matches!(kind, Kind::Down | Kind::Alarm | Kind::Absent)),
        severity: event.top_severity,
        since: event.since,
        text: clamped(&event.text),
        acked: by(&["ack"]),
        silenced: by(&["silence", "maintenance"]),
        unreachable: by(&["unreachable"]),
        step: event.step,
        suppressed_by: event.suppressed_by.clone(),
    }
}

fn incident_row(row: &DownRow) -> IncidentRow {
    IncidentRow {
        incident: row.incident,
        address: row.address.clone(),
        host: row.address.host().clone(),
        rule: row.rule.clone(),
        severity: row.severity,
        since: row.since,
        text: row.text.clone(),
        acked: row.acked,
        silenced: row.silenced,
        unreachable: row.unreachable,
    }
}

fn event_row(event: Event) -> EventRow {
    EventRow {
        id: event.id,
        kind: event.kind,
        address: event.address,
        severity: event.severity,
        time: event.time,
        text: clamped(&event.text),
        rule: clamped(&event.rule),
        duration_ms: event.duration_ms,
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
