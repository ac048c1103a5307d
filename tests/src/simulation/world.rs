//! The watched world: what is really up and down, and the ccollectds that observe it, as PROTOCOL §4 says they do.
//!
//! A ccollectd is killed and restarted with what its disk has, like every other daemon. A host behind another keeps what it
//! journaled until that one has it in its own journal.

use super::plan::{FEED_HOSTS, HOSTS, NUMBERS, THINGS};
use common::address::{Address, CheckAddress, HostName, ValueAddress};
use common::message::{Alive, Beat, Check, Epoch, FeedSnapshot, FeedSnapshotHost, LogEvent, Origin, Sample, Values};
use common::severity::Severity;
use common::subscriber::Place;
use common::time::UnixMillis;
use std::collections::VecDeque;
use std::rc::Rc;

/// A disk refuses for at most this long. What is discovered is forgotten after a minute here, and after a day outside: what was
/// told of it live, and forgotten, would be told again under its old id once the journal can be written.
const DISK_FAILS_MS: u64 = 50_000;

/// Second 0 of every history.
pub const ORIGIN: i64 = 1_800_000_000_000;

/// The date when so many milliseconds of a history have passed, for a clock that is off by `offset`.
pub fn wall(at: u64, offset: i64) -> UnixMillis {
    UnixMillis(ORIGIN + i64::try_from(at).expect("a short history") + offset)
}

/// A message of a feed.
#[derive(Clone, Debug)]
pub enum FeedMessage {
    Beat(Beat),
    Alive(Alive),
    Check(Check),
    Log(LogEvent),
    Sample(Sample),
}

impl FeedMessage {
    /// Where it stands in the feed's journal.
    pub fn place(&self) -> Place {
        let (epoch, seq) = match self {
            FeedMessage::Beat(beat) => return Place::Beat { epoch: beat.epoch.clone(), head_seq: beat.head_seq },
            FeedMessage::Check(Check { head_seq: Some(head_seq), .. }) => {
                return Place::Repeated { head_seq: *head_seq };
            }
            FeedMessage::Check(Check { epoch, seq, .. })
            | FeedMessage::Log(LogEvent { epoch, seq, .. })
            | FeedMessage::Alive(Alive { epoch, seq, .. }) => (epoch, seq),
            FeedMessage::Sample(_) => return Place::Live,
        };
        match (epoch, seq) {
            (Some(epoch), Some(seq)) => Place::Entry { epoch: epoch.clone(), seq: *seq },
            _ => Place::Live,
        }
    }
}

/// A check in the world, and what its ccollectd makes of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the world that changes by itself")]
pub struct Thing {
    pub address: CheckAddress,
    pub interval_ms: u64,
    /// Not a plugin's.
    pub is_configured: bool,
    /// It is in the configuration, or the plugin lives.
    pub listed: bool,
    /// Whether it works.
    pub up: bool,
    /// Whether its source reports it.
    pub reports: bool,
    /// The next look needs a second attempt.
    blip: bool,
    /// Each of so many looks finds another state.
    pub flaps: u32,
    /// It has changed so often that its last state may not have been told when it fell silent.
    pub has_flapped: bool,
    next_look: u64,
    /// What ccollectd knows: the state, since when, and when it last looked.
    kept: Option<Kept>,
    /// What its disk knows.
    row: Option<(bool, UnixMillis)>,
}

#[derive(Clone, Debug)]
struct Kept {
    up: bool,
    changed: UnixMillis,
    time: UnixMillis,
}

/// A number in the world.
#[derive(Debug)]
pub struct Number {
    pub address: ValueAddress,
    /// Fine, between clear and limit, beyond the limit.
    pub zone: usize,
    value: [f64; 3],
    next_sample: u64,
}

/// A host and its ccollectd.
#[derive(Debug)]
pub struct Host {
    pub name: HostName,
    /// The feed by which it is seen.
    pub feed: usize,
    pub owns_feed: bool,
    pub running: bool,
    /// How far its clock is off.
    pub clock: i64,
    pub things: Vec<Thing>,
    pub numbers: Vec<Number>,
    /// Since when it refuses.
    disk_failed: Option<u64>,
    inventory: u32,
    journaled_inventory: Option<u32>,
    epoch: Epoch,
    seq: u64,
    /// What waits for a place in a journal.
    waiting: VecDeque<FeedMessage>,
    /// It was ever heard by the ccollectd that has the feed.
    pub known: bool,
}

/// A journal and the socket over it.
#[derive(Debug)]
pub struct Feed {
    pub epoch: Epoch,
    epochs: u32,
    /// The entry in place `first` comes first.
    pub first: u64,
    pub journal: VecDeque<Rc<FeedMessage>>,
    retention: usize,
}

impl Feed {
    pub fn new(feed: usize, retention: usize) -> Self {
        Self { epoch: epoch(&format!("f{feed}e1")), epochs: 1, first: 1, journal: VecDeque::new(), retention }
    }

    pub fn head(&self) -> u64 {
        self.first - 1 + self.journal.len() as u64
    }

    fn append(&mut self, message: FeedMessage) -> Rc<FeedMessage> {
        let (epoch, seq) = (Some(self.epoch.clone()), Some(self.head() + 1));
        let message = Rc::new(match message {
            FeedMessage::Check(check) => FeedMessage::Check(Check { epoch, seq, head_seq: None, ..check }),
            FeedMessage::Log(log) => FeedMessage::Log(LogEvent { epoch, seq, ..log }),
            FeedMessage::Alive(alive) => FeedMessage::Alive(Alive { epoch, seq, ..alive }),
            other => other,
        });
        self.journal.push_back(message.clone());
        while self.journal.len() > self.retention {
            self.journal.pop_front();
            self.first += 1;
        }
        message
    }
}

/// An epoch of this name.
pub fn epoch(name: &str) -> Epoch {
    Epoch::try_from(name.to_owned()).expect("an epoch")
}

impl Host {
    pub fn new(host: usize, feed: usize, offset_ms: u64) -> Self {
        let name: HostName = HOSTS[host].parse().expect("a host");
        let things = THINGS.iter().enumerate().map(|(i, (unit, interval_ms, is_configured))| Thing {
            address: format!("{name}!{unit}").parse().expect("an address"),
            interval_ms: *interval_ms,
            is_configured: *is_configured,
            // One backup is enough.
            listed: i != 4 || host == 0,
            up: true,
            reports: true,
            blip: false,
            flaps: 0,
            has_flapped: false,
            next_look: offset_ms,
            kept: None,
            row: None,
        });
        let numbers = NUMBERS.iter().map(|(unit, value)| {
            let Ok(Address::Value(address)) = format!("{name}!{unit}").parse() else { panic!("{unit} is no number") };
            Number { address, zone: 0, value: *value, next_sample: offset_ms }
        });
        Self {
            feed,
            owns_feed: FEED_HOSTS.contains(&host),
            running: true,
            clock: 0,
            things: things.collect(),
            numbers: numbers.collect(),
            disk_failed: None,
            inventory: 0,
            journaled_inventory: None,
            epoch: epoch(&format!("{name}-e1")),
            seq: 0,
            waiting: VecDeque::new(),
            known: true,
            name,
        }
    }

    fn via(&self) -> Vec<HostName> {
        if self.owns_feed { Vec::new() } else { vec![HOSTS[FEED_HOSTS[self.feed]].parse().expect("a host")] }
    }

    pub fn inventory(&self) -> Vec<CheckAddress> {
        let configured = self.things.iter().filter(|thing| thing.is_configured && thing.listed);
        configured.map(|thing| thing.address.clone()).collect()
    }

    fn alive(&self, at: u64) -> Alive {
        Alive {
            host: self.name.clone(),
            time: wall(at, self.clock),
            via: self.via(),
            inventory: format!("i{}", self.inventory),
            addresses: None,
            goodbye: false,
            epoch: None,
            seq: None,
            origin: None,
        }
    }

    fn origin(&mut self) -> Origin {
        self.seq += 1;
        Origin { host: self.name.clone(), epoch: self.epoch.clone(), seq: self.seq }
    }

    fn check(&self, thing: usize, retries: u32) -> Check {
        let Thing { address, interval_ms, kept, .. } = &self.things[thing];
        let Kept { up, changed, time } = kept.clone().expect("it was looked at");
        Check {
            host: address.host.clone(),
            from: address.host.clone(),
            service: address.service.clone(),
            unit: address.unit.clone(),
            time,
            interval_ms: *interval_ms,
            up,
            retries,
            text: if up { "fine".into() } else { "refused".into() },
            changed,
            backfill: false,
            head_seq: None,
            epoch: None,
            seq: None,
            origin: None,
        }
    }

    /// What its ccollectd observes now: states that are no news into `live`, news into `waiting`.
    fn look(&mut self, at: u64, live: &mut Vec<FeedMessage>) {
        let time = wall(at, self.clock);
        if self.journaled_inventory != Some(self.inventory) {
            self.journaled_inventory = Some(self.inventory);
            let origin = Some(self.origin());
            let watched = Alive { addresses: Some(self.inventory()), origin, ..self.alive(at) };
            self.waiting.push_back(FeedMessage::Alive(watched));
        }
        for i in 0..self.things.len() {
            let thing = &mut self.things[i];
            if !thing.listed || at < thing.next_look {
                continue;
            }
            thing.next_look = at + thing.interval_ms;
            // ccollectd says for a silent plugin what that said last; a configured check that hangs is not looked at.
            let looks = thing.reports;
            if looks && thing.flaps > 0 {
                thing.flaps -= 1;
                thing.up = !thing.up;
            }
            if !looks && (thing.is_configured || thing.kept.is_none()) {
                continue;
            }
            let retries = u32::from(looks && thing.up && std::mem::take(&mut thing.blip));
            let before = thing.kept.clone().or(thing.row.map(|(up, changed)| Kept { up, changed, time: changed }));
            let up = if looks { thing.up } else { before.as_ref().is_none_or(|kept| kept.up) };
            let changed = before.as_ref().filter(|kept| kept.up == up).map_or(time, |kept| kept.changed);
            thing.kept = Some(Kept { up, changed, time });
            if before.is_none_or(|kept| kept.up != up) || retries > 0 {
                let origin = Some(self.origin());
                let check = Check { origin, ..self.check(i, retries) };
                self.waiting.push_back(FeedMessage::Check(check));
            } else {
                live.push(FeedMessage::Check(self.check(i, 0)));
            }
        }
        for number in &mut self.numbers {
            if at >= number.next_sample {
                number.next_sample = at + 5000;
                let ValueAddress { host, service, resource, unit, attribute } = number.address.clone();
                live.push(FeedMessage::Sample(Sample {
                    from: host.clone(),
                    host,
                    service,
                    time,
                    interval_ms: 5000,
                    resource,
                    unit,
                    values: Values(vec![(attribute, number.value[number.zone])]),
                    backfill: false,
                }));
            }
        }
    }

    /// Its disk has these now.
    fn written(&mut self) {
        for thing in &mut self.things {
            thing.row = thing.kept.as_ref().map(|kept| (kept.up, kept.changed));
        }
    }

    /// Something happened on it.
    pub fn log(&mut self, at: u64, n: u64) -> String {
        let text = format!("log {n}");
        let origin = Some(self.origin());
        self.waiting.push_back(FeedMessage::Log(LogEvent {
            host: self.name.clone(),
            from: self.name.clone(),
            service: "app".parse().expect("a name"),
            unit: "log".parse().expect("a unit"),
            time: wall(at, self.clock),
            severity: Severity::Err,
            text: text.clone(),
            data: None,
            epoch: None,
            seq: None,
            origin,
        }));
        text
    }

    pub fn blips(&mut self, thing: usize) {
        self.things[thing].blip = true;
    }

    pub fn set_listed(&mut self, thing: usize, listed: bool) {
        let thing = &mut self.things[thing];
        if thing.is_configured && thing.listed != listed {
            thing.listed = listed;
            thing.reports = true;
            if !listed {
                (thing.kept, thing.row) = (None, None);
            }
            self.inventory += 1;
        }
    }

    /// Its process is gone, and with it what no disk has.
    pub fn dies(&mut self) {
        self.running = false;
        for thing in &mut self.things {
            thing.kept = None;
        }
        if self.owns_feed {
            // The inventory is saved with its entry.
            if self
                .waiting
                .iter()
                .any(|message| matches!(message, FeedMessage::Alive(Alive { addresses: Some(_), .. })))
            {
                self.journaled_inventory = None;
            }
            self.waiting.clear();
        }
    }

    pub fn starts(&mut self, at: u64) {
        self.running = true;
        for thing in &mut self.things {
            thing.next_look = thing.next_look.max(at);
        }
    }

    /// Its state is gone.
    pub fn forgets(&mut self, feed: Option<&mut Feed>) {
        self.waiting.clear();
        self.journaled_inventory = None;
        let n: u32 = self.epoch.as_str().rsplit('e').next().and_then(|n| n.parse().ok()).unwrap_or(0) + 1;
        self.epoch = epoch(&format!("{}-e{n}", self.name));
        self.seq = 0;
        for thing in &mut self.things {
            (thing.kept, thing.row) = (None, None);
        }
        if let Some(feed) = feed {
            feed.epochs += 1;
            let name = feed.epoch.as_str().split('e').next().unwrap_or_default().to_owned();
            feed.epoch = epoch(&format!("{name}e{}", feed.epochs));
            feed.first = 1;
            feed.journal.clear();
        }
    }

    pub fn disk_works(&self) -> bool {
        self.disk_failed.is_none()
    }

    pub fn set_disk(&mut self, at: u64, works: bool) {
        self.disk_failed = if works { None } else { self.disk_failed.or(Some(at)) };
    }

    /// The last state that its ccollectd reported, or would.
    pub fn reported_up(&self, thing: usize) -> Option<bool> {
        let thing = &self.things[thing];
        thing.kept.as_ref().map(|kept| kept.up).or(thing.row.map(|(up, _)| up))
    }
}

/// One second of a feed: what is published, in order. `hosts` are all there are.
pub fn tick(at: u64, feed_at: usize, feed: &mut Feed, hosts: &mut [Host]) -> Vec<Rc<FeedMessage>> {
    let mut published = Vec::new();
    let own_runs = hosts.iter().any(|host| host.feed == feed_at && host.owns_feed && host.running);
    for host in hosts.iter_mut() {
        host.disk_failed = host.disk_failed.filter(|failed| at.saturating_sub(*failed) < DISK_FAILS_MS);
    }
    let disk_works = hosts.iter().any(|host| host.feed == feed_at && host.owns_feed && host.disk_works());
    for host in hosts.iter_mut().filter(|host| host.feed == feed_at && host.running) {
        let mut live = Vec::new();
        host.look(at, &mut live);
        if !host.owns_feed {
            // Its own disk is well.
            host.written();
        }
        if !own_runs {
            continue;
        }
        if disk_works {
            while let Some(message) = host.waiting.pop_front() {
                published.push(feed.append(message));
            }
            host.written();
        } else if host.owns_feed {
            // People must hear of it even if no disk remembers it.
            let news = host.waiting.iter().filter_map(|message| match message {
                FeedMessage::Check(check) => Some(check),
                _ => None,
            });
            let due: Vec<Check> = news.filter(|check| check.time == wall(at, host.clock)).cloned().collect();
            live.extend(due.into_iter().map(|check| FeedMessage::Check(Check { origin: None, ..check })));
        }
        let head_seq = Some(feed.head());
        published.extend(live.into_iter().map(|message| {
            Rc::new(match message {
                FeedMessage::Check(check) => FeedMessage::Check(Check { head_seq, ..check }),
                other => other,
            })
        }));
        published.push(Rc::new(FeedMessage::Alive(host.alive(at))));
    }
    if own_runs {
        let own = hosts.iter().find(|host| host.feed == feed_at && host.owns_feed).expect("it runs");
        let (time, epoch, host) = (wall(at, own.clock), feed.epoch.clone(), Some(own.name.clone()));
        published.push(Rc::new(FeedMessage::Beat(Beat { time, epoch, head_seq: feed.head(), host, nth: None })));
    }
    published
}

/// The last words of a ccollectd.
pub fn goodbye(at: u64, host: usize, feed: &mut Feed, hosts: &mut [Host]) -> Vec<Rc<FeedMessage>> {
    let own_runs = hosts.iter().any(|other| other.feed == hosts[host].feed && other.owns_feed && other.running);
    let host = &mut hosts[host];
    let origin = Some(host.origin());
    let said = Alive { goodbye: true, origin, ..host.alive(at) };
    if host.owns_feed && !host.disk_works() {
        return vec![Rc::new(FeedMessage::Alive(Alive { origin: None, ..said }))];
    }
    host.waiting.push_back(FeedMessage::Alive(said));
    host.written();
    if own_runs { host.waiting.drain(..).map(|message| feed.append(message)).collect() } else { Vec::new() }
}

/// The answer to `snapshot`.
pub fn snapshot(feed_at: usize, feed: &Feed, hosts: &[Host]) -> FeedSnapshot {
    let behind = || hosts.iter().filter(|host| host.feed == feed_at && host.known);
    let rows = behind().map(|host| FeedSnapshotHost {
        host: host.name.clone(),
        via: host.via(),
        inventory: host.inventory(),
        hash: format!("i{}", host.inventory),
    });
    let checks = behind().flat_map(|host| {
        let kept = (0..host.things.len()).filter(|thing| host.things[*thing].kept.is_some());
        kept.map(|thing| host.check(thing, 0))
    });
    FeedSnapshot { epoch: feed.epoch.clone(), seq: feed.head(), hosts: rows.collect(), checks: checks.collect() }
}
