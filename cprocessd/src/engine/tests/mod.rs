//! What the engine promises, as timelines: what happened, and what came of it.
//!
//! Between two happenings the time passes in half seconds: the live hosts give their sign of life and repeat their checks,
//! the engine is told when nothing waits. Weeks pass in milliseconds.

use super::ladder::Ladder;
use super::settings::{Agree, Class, PartialTuning};
use super::*;
use common::message::{Epoch, FeedSnapshotHost, Request, Values};
use proptest::prelude::*;
use rule::Rule;
use std::collections::BTreeSet;

mod agentless;
mod alarms;
mod checks;
mod clocks;
mod hosts;
mod people;
mod promises;
mod restarts;
mod suppressed_histories;
mod suppression;
mod votes;

/// Second 0 of a timeline, so that dates are recognisable.
const ORIGIN: i64 = 1_000_000_000_000;
const FEED: &str = "/run/feed";
/// A second one, of host web2.
const OTHER_FEED: &str = "/run/other/feed";
/// A number that many tests use.
const DISK: &str = "web1!machine.disk:/.used_percentage";

struct Timeline {
    engine: Engine,
    settings: Settings,
    now_ms: u64,
    live: BTreeSet<String>,
    beating: bool,
    /// The second feed beats.
    other_beating: bool,
    /// The ways by which a host is heard, where they are not the usual one: feed, relays.
    paths: BTreeMap<String, Vec<(&'static str, Vec<HostName>)>>,
    /// How far the clock of a host is ahead, and how far ours is.
    ahead_ms: BTreeMap<String, i64>,
    own_ahead_ms: i64,
    /// The checks that their hosts repeat: address, up, changed.
    repeated: BTreeMap<String, (bool, i64)>,
    /// The same of checks by other hosts than their own: `FROM ADDRESS`.
    observations: BTreeMap<String, (bool, i64)>,
    saved: Vec<Saved>,
    told: Vec<String>,
    drafts: Vec<Draft>,
    refused: Vec<&'static str>,
    seq: u64,
}

fn settings(rules: &[(&str, &str)]) -> Settings {
    Settings {
        rules: rules
            .iter()
            .map(|(name, text)| Rule { name: (*name).into(), ..Rule::parse("", text).expect("rule") })
            .collect(),
        max_addresses_per_host: 100,
        // What lasts is the subject of tests of its own.
        ladder: Ladder::new(Vec::new()).expect("no steps"),
        ..Settings::new("monitor!cprocessd:".parse().expect("address"))
    }
}

fn host(name: &str) -> HostName {
    name.parse().expect("host")
}

fn wall(ms: u64) -> UnixMillis {
    UnixMillis(ORIGIN + i64::try_from(ms).expect("small"))
}

impl Timeline {
    fn new() -> Self {
        Self::with(settings(&[]))
    }

    fn with(settings: Settings) -> Self {
        let engine = Engine::new(settings.clone(), &[FEED.to_owned(), OTHER_FEED.to_owned()], Vec::new());
        Self {
            engine,
            settings,
            now_ms: 0,
            live: BTreeSet::new(),
            beating: true,
            other_beating: false,
            paths: BTreeMap::new(),
            ahead_ms: BTreeMap::new(),
            own_ahead_ms: 0,
            repeated: BTreeMap::new(),
            observations: BTreeMap::new(),
            saved: Vec::new(),
            told: Vec::new(),
            drafts: Vec::new(),
            refused: Vec::new(),
            seq: 0,
        }
    }

    fn apply(&mut self, input: Input) {
        let wall = UnixMillis(wall(self.now_ms).0 + self.own_ahead_ms);
        let now = Now { monotonic: Duration::from_millis(self.now_ms), wall };
        let outputs = self.engine.apply(now, input);
        self.take(outputs);
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Event(draft) => {
                    let at = draft.time.0 - ORIGIN;
                    let at = if at % 1000 == 0 { format!("{}s", at / 1000) } else { format!("{at}ms") };
                    let after = draft.duration_ms.map_or(String::new(), |ms| format!(" after {}s", ms / 1000));
                    let rule = if draft.rule == "check" { String::new() } else { format!(" [{}]", draft.rule) };
                    let step = draft.step.map_or(String::new(), |step| format!(" step {step}"));
                    let not_told: Vec<_> = draft.suppressed_by.iter().map(|cause| format!(" ({cause})")).collect();
                    let not_told = not_told.concat();
                    let Draft { severity, kind, address, .. } = &draft;
                    self.told.push(format!("{at} {severity} {kind} {address}{rule}{after}{step}{not_told}"));
                    self.drafts.push(draft);
                }
                Output::Save(saved) => {
                    self.saved.retain(|other| other.identity() != saved.identity());
                    self.saved.push(saved);
                }
                Output::Refused(reason) => self.refused.push(reason),
                Output::Notice(text) => self.told.push(format!("notice: {text}")),
                Output::Ordered(Ok(done)) => self.told.push(format!("ordered {}", done.addresses.join(" "))),
                Output::Ordered(Err(error)) => self.told.push(format!("not ordered: {error}")),
            }
        }
    }

    /// Lets the time pass, with signs of life.
    fn at(mut self, secs: u64) -> Self {
        while self.now_ms < secs * 1000 {
            self.now_ms += 500;
            if self.now_ms.is_multiple_of(1000) {
                self.signs_of_life();
            }
            self.apply(Input::Idle);
        }
        self
    }

    fn signs_of_life(&mut self) {
        if self.beating {
            let beat =
                Beat { time: wall(self.now_ms), epoch: epoch(), head_seq: 0, host: Some(host("web1")), nth: None };
            self.apply(Input::Beat { feed: FEED.into(), beat });
        }
        if self.other_beating {
            let beat =
                Beat { time: wall(self.now_ms), epoch: epoch(), head_seq: 0, host: Some(host("web2")), nth: None };
            self.apply(Input::Beat { feed: OTHER_FEED.into(), beat });
        }
        for name in self.live.clone() {
            self.sign_of_life(&name);
        }
        for (address, (up, changed)) in self.repeated.clone() {
            let address: CheckAddress = address.parse().expect("address");
            if self.live.contains(address.host.as_str()) && !self.open_paths_of(address.host.as_str()).is_empty() {
                self.apply(Input::Check(self.check_message(&address, up, changed, 0)));
            }
        }
        for (key, (up, changed)) in self.observations.clone() {
            let (from, address) = key.split_once(' ').expect("two");
            if self.live.contains(from) {
                let message = self.check_message(&address.parse().expect("address"), up, changed, 0);
                self.apply(Input::Check(Check { from: host(from), ..message }));
            }
        }
    }

    /// The observer stops observing it.
    fn unobserved(mut self, from: &str, address: &str) -> Self {
        self.observations.remove(&format!("{from} {address}"));
        self
    }

    /// By each of its ways that is not cut by a silent relay.
    fn sign_of_life(&mut self, name: &str) {
        for (feed, via) in self.open_paths_of(name) {
            self.apply(Input::Alive { feed: feed.into(), alive: Alive { via, ..self.alive_message(name) } });
        }
    }

    fn open_paths_of(&self, name: &str) -> Vec<(&'static str, Vec<HostName>)> {
        let Some(paths) = self.paths.get(name) else { return vec![(FEED, self.alive_message(name).via)] };
        let open = |(feed, via): &&(&'static str, Vec<HostName>)| {
            let beating = if *feed == FEED { self.beating } else { self.other_beating };
            beating && via.iter().all(|relay| self.live.contains(relay.as_str()))
        };
        paths.iter().filter(open).cloned().collect()
    }

    /// The ways by which it is heard from now on.
    fn behind(mut self, name: &str, paths: &[(&'static str, &[&str])]) -> Self {
        let paths = paths.iter().map(|(feed, via)| (*feed, via.iter().map(|relay| host(relay)).collect())).collect();
        self.paths.insert(name.into(), paths);
        self
    }

    fn alive_message(&self, name: &str) -> Alive {
        Alive {
            host: host(name),
            time: UnixMillis(wall(self.now_ms).0 + self.ahead_ms.get(name).copied().unwrap_or(0)),
            via: if name == "web1" { Vec::new() } else { vec![host("web1")] },
            inventory: String::new(),
            addresses: None,
            goodbye: false,
            epoch: None,
            seq: None,
            origin: None,
        }
    }

    fn check_message(&self, address: &CheckAddress, up: bool, changed: i64, retries: u32) -> Check {
        Check {
            host: address.host.clone(),
            from: address.host.clone(),
            service: address.service.clone(),
            unit: address.unit.clone(),
            time: wall(self.now_ms),
            interval_ms: 1000,
            up,
            retries,
            text: if up { "fine".into() } else { "refused".into() },
            changed: UnixMillis(changed),
            backfill: false,
            head_seq: None,
            epoch: None,
            seq: None,
            origin: None,
        }
    }

    /// The clock of a host is ahead by so much from now on.
    fn ahead(mut self, name: &str, ms: i64) -> Self {
        self.ahead_ms.insert(name.into(), ms);
        self
    }

    /// And ours.
    fn own_ahead(mut self, ms: i64) -> Self {
        self.own_ahead_ms = ms;
        self
    }

    /// The host gives signs of life from now on.
    fn live(mut self, name: &str) -> Self {
        self.live.insert(name.into());
        self.sign_of_life(name);
        self
    }

    /// And no longer.
    fn silent(mut self, name: &str) -> Self {
        self.live.remove(name);
        self
    }

    fn beats_stop(mut self) -> Self {
        self.beating = false;
        self
    }

    fn journaled(&mut self) -> Origin {
        self.seq += 1;
        Origin { host: host("web1"), epoch: epoch(), seq: self.seq }
    }

    fn watches(mut self, name: &str, addresses: &[&str]) -> Self {
        let origin = Some(self.journaled());
        let addresses = addresses.iter().map(|text| text.parse().expect("address")).collect();
        let alive = Alive { addresses: Some(addresses), seq: Some(self.seq), origin, ..self.alive_message(name) };
        self.apply(Input::Alive { feed: FEED.into(), alive });
        self
    }

    fn goodbye(mut self, name: &str) -> Self {
        let origin = Some(self.journaled());
        let alive = Alive { goodbye: true, seq: Some(self.seq), origin, ..self.alive_message(name) };
        self.apply(Input::Alive { feed: FEED.into(), alive });
        self.silent(name)
    }

    fn check(mut self, address: &str, up: bool, retries: u32) -> Self {
        let changed = match self.repeated.get(address) {
            Some((was, changed)) if *was == up => *changed,
            _ => wall(self.now_ms).0,
        };
        self.repeated.insert(address.into(), (up, changed));
        let origin = Some(self.journaled());
        let message = self.check_message(&address.parse().expect("address"), up, changed, retries);
        self.apply(Input::Check(Check { origin, ..message }));
        self
    }

    /// What one host observes of another, and repeats.
    fn observed(mut self, from: &str, address: &str, up: bool) -> Self {
        let key = format!("{from} {address}");
        let changed = match self.observations.get(&key) {
            Some((was, changed)) if *was == up => *changed,
            _ => wall(self.now_ms).0,
        };
        self.observations.insert(key, (up, changed));
        let message = self.check_message(&address.parse().expect("address"), up, changed, 0);
        self.apply(Input::Check(Check { from: host(from), ..message }));
        self
    }

    fn up(self, address: &str) -> Self {
        self.check(address, true, 0)
    }

    fn down(self, address: &str) -> Self {
        self.check(address, false, 0)
    }

    fn retried(self, address: &str) -> Self {
        self.check(address, true, 2)
    }

    /// Its host no longer reports it.
    fn unreported(mut self, address: &str) -> Self {
        self.repeated.remove(address);
        self
    }

    fn sample(&self, address: &str, value: f64) -> Sample {
        let Address::Value(a) = address.parse().expect("address") else { panic!("{address} is no value") };
        Sample {
            host: a.host.clone(),
            from: a.host,
            service: a.service,
            time: wall(self.now_ms),
            interval_ms: 1000,
            resource: a.resource,
            unit: a.unit,
            values: Values(vec![(a.attribute, value)]),
            backfill: false,
        }
    }

    fn value(mut self, address: &str, value: f64) -> Self {
        let sample = self.sample(address, value);
        self.apply(Input::Sample(sample));
        self
    }

    fn forget(self, pattern: &str, id: &str) -> Self {
        self.order(id, Request { pattern: Some(pattern.into()), ..Request::order("forget") })
    }

    /// What ann orders.
    fn order(mut self, id: &str, request: Request) -> Self {
        let request = Request { id: Some(id.into()), author: Some("ann".into()), ..request };
        match Order::read(&request, wall(self.now_ms)) {
            Ok(order) => self.apply(Input::Order(order)),
            Err(error) => self.told.push(format!("not read: {error}")),
        }
        self
    }

    /// The process dies and starts again at once with what was saved.
    fn restart(mut self) -> Self {
        self.engine = Engine::new(self.settings.clone(), &[FEED.to_owned(), OTHER_FEED.to_owned()], self.saved.clone());
        self
    }

    /// The configuration is read again.
    fn reload(mut self, settings: Settings) -> Self {
        let now = Now { monotonic: Duration::from_millis(self.now_ms), wall: wall(self.now_ms) };
        let outputs = self.engine.reconfigure(now, settings.clone());
        self.settings = settings;
        self.take(outputs);
        self
    }

    /// Nobody calls the engine, while the world goes on.
    fn paused_until(mut self, secs: u64) -> Self {
        self.now_ms = secs * 1000;
        self
    }

    #[track_caller]
    fn expect<const N: usize>(self, told: [&str; N]) -> Self {
        assert_eq!(self.told, told);
        Self { told: Vec::new(), ..self }
    }

    #[track_caller]
    fn state_of(&self, name: &str) -> State {
        self.engine.server_list().into_iter().find(|row| row.host == host(name)).expect("host").state
    }

    fn check_state(&self, address: &str) -> State {
        let address: CheckAddress = address.parse().expect("address");
        self.engine.checks.get(&address).expect("check").state()
    }
}

fn epoch() -> Epoch {
    Epoch::try_from("e1".to_owned()).expect("epoch")
}

fn up_and_running() -> Timeline {
    Timeline::new()
        .live("web1")
        .expect(["0s DEBUG up web1!alive: [initial]"])
        .up("web1!port:www")
        .expect(["0s DEBUG up web1!port:www [initial]"])
}
