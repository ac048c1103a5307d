//! A week of services that flap, in seconds: what a probe saw, what cprocessd said of it, and how many messages each recipient
//! got. The engine, the notifiers' desks and what each medium writes are the real ones; only time is not, and that
//! everything is accepted.
//!
//! `cargo test --workspace --test week -- --nocapture` prints the table.

use common::counters::Counters;
use common::message::{Alive, Beat, Check, DownRow, Epoch, Event};
use common::notifier::desk::{Composer, Desk, Input, Now, Store, Teller, Who};
use common::notifier::{Composed, Lane, Letter, Medium, MessageId, Outcome, Recipient, Setup};
use common::severity::Severity;
use common::time::UnixMillis;
use cprocessd::engine::settings::Settings;
use cprocessd::engine::{self, Engine, Output};
use cprocessd::store::stamped;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tests::simulation::rng::Rng;
use uuid::Uuid;

const START: i64 = 1_795_000_000_000;
const WEEK_SECS: u64 = 7 * 86_400;
/// A probe looks this often.
const PROBE_SECS: u64 = 10;
/// After the week, until everybody has heard all: a telephone's longest bucket, and the calm after flapping.
const REST_SECS: u64 = 4 * 3600;
const FEED: &str = "/run/cairn/feed";
/// csmsd's own buckets: texts, and seconds.
const BUCKETS: [(usize, u64); 4] = [(1, 60), (5, 900), (12, 3600), (20, 10_800)];

/// A service, and when it is up: the second of the week, and chance.
struct Service {
    name: &'static str,
    is_up: fn(u64, &mut Rng) -> bool,
}

const SERVICES: [Service; 6] = [
    Service { name: "down for 30 s, up for 30 s", is_up: |at, _| at / 30 % 2 == 0 },
    Service { name: "down for 3 min, up for 3 min", is_up: |at, _| at / 180 % 2 == 0 },
    Service { name: "10 bad minutes an hour", is_up: |at, _| at % 3600 >= 600 || at / 20 % 2 == 0 },
    Service { name: "one probe in ten fails", is_up: |_, chance| chance.below(10) > 0 },
    Service { name: "one probe in a hundred fails", is_up: |_, chance| chance.below(100) > 0 },
    Service { name: "down for an hour each night", is_up: |at, _| at % 86_400 >= 3600 },
];

fn wall(at_ms: u64) -> UnixMillis {
    UnixMillis(START + i64::try_from(at_ms).expect("a week"))
}

/// A medium's desk with one recipient. A message takes its time, and everything is accepted.
struct Office<M: Medium> {
    desk: Desk,
    lane: Lane<M>,
    /// How long a message is on its way, by its lines.
    takes_ms: fn(usize) -> u64,
    under_way: Option<(u64, MessageId)>,
    at_ms: u64,
    /// When each message was accepted.
    told: Vec<u64>,
}

/// The recipient's medium, as the frame has it.
struct Writer<'a, M: Medium>(&'a Lane<M>);

impl<M: Medium> Composer for Writer<'_, M> {
    fn compose(&mut self, _: &str, letter: &Letter<'_>) -> Composed {
        self.0.medium.compose(&self.0.recipients[0].address, letter)
    }
}

/// Any of them.
trait Told {
    fn event(&mut self, at_ms: u64, event: &Event);
    /// Until this moment, if there is anything to do. Asked what is open, the publisher says this.
    fn pass(&mut self, at_ms: u64, open: &dyn Fn() -> Vec<DownRow>);
    fn told(&self) -> &[u64];
    fn is_at_rest(&self) -> bool;
}

impl<M: Medium> Office<M> {
    fn open(setup: Setup<M>, takes_ms: fn(usize) -> u64) -> Self {
        let now = Self::now(0);
        let lane = setup.lanes.into_iter().next().expect("a lane");
        let Recipient { name, selection, address: _ } = &lane.recipients[0];
        let who = Who { lane: lane.name.clone(), selection: Some(selection.clone()) };
        let who = BTreeMap::from([(name.clone(), who)]);
        let teller = Teller::new("office", "mon".parse().expect("a host"), &["a".to_owned()], now);
        let store = Store::in_memory(Uuid::nil()).expect("memory");
        let (mut desk, _) =
            Desk::open(store, teller, &who, Duration::from_hours(24), &Counters::default(), now).expect("a desk");
        desk.set_paces(BTreeMap::from([(name.clone(), lane.medium.pace(&lane.recipients[0]))]), lane.medium.caps());
        let _ = desk.apply(now, Input::Compared { open: Vec::new() });
        desk.commit(now).expect("memory");
        Self { desk, lane, takes_ms, under_way: None, at_ms: 0, told: Vec::new() }
    }

    fn now(at_ms: u64) -> Now {
        Now { monotonic: Duration::from_millis(at_ms), wall: wall(at_ms) }
    }

    fn send(&mut self) {
        let now = Self::now(self.at_ms);
        if let Some((_, id)) = self.under_way.take_if(|(until, _)| *until <= self.at_ms) {
            let recipient = &self.lane.recipients[0].name;
            self.desk.done(&self.lane.name, recipient, id, Outcome::Sent("taken".to_owned()), now);
            self.desk.commit(now).expect("memory");
            self.told.push(self.at_ms);
        }
        if self.under_way.is_none()
            && let Some(outgoing) = self.desk.next(&self.lane.name, now, Writer(&self.lane)).expect("memory")
        {
            let lines = outgoing.bytes.split(|byte| *byte == b'\n').count();
            self.under_way = Some((self.at_ms + (self.takes_ms)(lines), outgoing.id));
        }
    }
}

impl<M: Medium> Told for Office<M> {
    fn event(&mut self, at_ms: u64, event: &Event) {
        self.at_ms = at_ms;
        let now = Self::now(at_ms);
        for input in [
            Input::Beat { publisher: "a".into() },
            Input::Event { publisher: "a".into(), event: Arc::new(event.clone()) },
        ] {
            let _ = self.desk.apply(now, input);
        }
        self.desk.commit(now).expect("memory");
        self.send();
    }

    fn pass(&mut self, at_ms: u64, open: &dyn Fn() -> Vec<DownRow>) {
        while self.at_ms < at_ms && self.desk.waiting() > 0 {
            self.at_ms += 500;
            let now = Self::now(self.at_ms);
            let _ = self.desk.apply(now, Input::Beat { publisher: "a".into() });
            if self.desk.apply(now, Input::Tick) {
                let _ = self.desk.apply(now, Input::Compared { open: open() });
            }
            self.desk.give_up(now);
            self.desk.commit(now).expect("memory");
            self.send();
        }
        self.at_ms = at_ms;
    }

    fn told(&self) -> &[u64] {
        &self.told
    }

    fn is_at_rest(&self) -> bool {
        self.desk.waiting() == 0 && self.desk.told_open().next().is_none()
    }
}

/// A mailbox, a channel and a telephone, which hear of everything from WARN on.
fn offices(dir: &Path) -> [Box<dyn Told>; 3] {
    let token = dir.join("token");
    fs::write(&token, "secret\n").expect("written");
    let write = |daemon: &str, text: &str| {
        let base = format!("host = 'mon'\nrun_dir = '{0}'\nstate_dir = '{0}'\n{text}", dir.display());
        let path = dir.join(format!("{daemon}.toml"));
        fs::write(&path, base).expect("written");
        path
    };
    let counters = Counters::default();
    let mail = write(
        "cmaild",
        "[smtp]\nhost = 'localhost'\nsecurity = 'none'\n[[recipient]]\nto = 'ops@lab.test'\nseverity = 'WARN'\n",
    );
    let irc = write(
        "cbotd",
        "[[network]]\nname = 'lab'\nserver = 'localhost'\ntls = false\n[[network.channel]]\nname = '#ops'\nseverity = 'WARN'\n",
    );
    let sms = write(
        "csmsd",
        "[[provider]]\nname = 'main'\npreset = 'kannel'\nurl = 'http://127.0.0.1:1'\naccount = 'cairn'\nfrom = '2001'\n\
         token_file = 'token'\n[[recipient]]\nto = '+4912345678'\nseverity = 'WARN'\n",
    );
    // Four lines at once, and then one in two seconds.
    let by_lines = |lines: usize| 100 + 2000 * u64::try_from(lines.saturating_sub(4)).expect("few");
    [
        Box::new(Office::open(cmaild::config::load(&mail, &counters).expect("a mailbox"), |_| 100)),
        Box::new(Office::open(cbotd::config::load(&irc, &counters).expect("a channel"), by_lines)),
        Box::new(Office::open(csmsd::config::load(&sms, &counters).expect("a telephone"), |_| 500)),
    ]
}

/// cprocessd, and the ccollectd that it hears.
struct Judge {
    engine: Engine,
    epoch: Epoch,
    seq: u64,
}

impl Judge {
    fn new() -> Self {
        let settings = Settings::new("mon!cprocessd:".parse().expect("an address"));
        Self { engine: Engine::new(settings, &[FEED.to_owned()], Vec::new()), epoch: Epoch::random(), seq: 0 }
    }

    fn apply(&mut self, at_ms: u64, input: engine::Input) -> Vec<Event> {
        let now = engine::Now { monotonic: Duration::from_millis(at_ms), wall: wall(at_ms) };
        let outputs = self.engine.apply(now, input);
        let drafts =
            outputs.iter().filter_map(|output| if let Output::Event(draft) = output { Some(draft) } else { None });
        let events = drafts.map(|draft| {
            self.seq += 1;
            stamped(draft, &self.epoch, self.seq, self.seq)
        });
        events.collect()
    }

    /// What a ccollectd says of itself now and then.
    fn lives(&mut self, at_ms: u64) -> Vec<Event> {
        let beat = Beat {
            time: wall(at_ms),
            epoch: self.epoch.clone(),
            head_seq: 0,
            host: Some("web1".parse().expect("a host")),
            nth: None,
        };
        let alive = Alive {
            host: "web1".parse().expect("a host"),
            time: wall(at_ms),
            via: Vec::new(),
            inventory: "1".to_owned(),
            addresses: None,
            goodbye: false,
            epoch: None,
            seq: None,
            origin: None,
        };
        let mut events = self.apply(at_ms, engine::Input::Beat { feed: FEED.to_owned(), beat });
        events.extend(self.apply(at_ms, engine::Input::Alive { feed: FEED.to_owned(), alive }));
        events
    }
}

/// One probe's outcome.
fn check(service: usize, at_ms: u64, up: bool, changed_ms: u64) -> Check {
    Check {
        host: "web1".parse().expect("a host"),
        from: "web1".parse().expect("a host"),
        service: "port".parse().expect("a name"),
        unit: format!("service{service}").parse().expect("a unit"),
        time: wall(at_ms),
        interval_ms: PROBE_SECS * 1000,
        up,
        retries: 0,
        text: if up { "connected in 0.2 ms" } else { "connection refused" }.to_owned(),
        changed: wall(changed_ms),
        backfill: false,
        head_seq: None,
        epoch: None,
        seq: None,
        origin: None,
    }
}

/// What came of a service.
struct Row {
    observations: usize,
    changes: usize,
    events: usize,
    offices: [Box<dyn Told>; 3],
}

/// A week of all services, and the rest of it.
fn live() -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut rows: Vec<Row> =
        SERVICES.iter().map(|_| Row { observations: 0, changes: 0, events: 0, offices: offices(dir.path()) }).collect();
    let mut judge = Judge::new();
    let mut chance = Rng::new(1);
    let mut states = [(true, 0); SERVICES.len()];
    for at in 0..WEEK_SECS + REST_SECS {
        let at_ms = at * 1000;
        let mut events = if at % 5 == 0 { judge.lives(at_ms) } else { Vec::new() };
        if at % PROBE_SECS == 0 {
            for (n, (service, row)) in SERVICES.iter().zip(&mut rows).enumerate() {
                let up = at >= WEEK_SECS || at == 0 || (service.is_up)(at, &mut chance);
                if up != states[n].0 {
                    states[n] = (up, at_ms);
                    row.changes += 1;
                }
                row.observations += usize::from(at < WEEK_SECS);
                events.extend(judge.apply(at_ms, engine::Input::Check(check(n, at_ms, up, states[n].1))));
            }
        }
        events.extend(judge.apply(at_ms, engine::Input::Idle));
        for event in &events {
            let of = |n: &usize| event.unit.as_str() == format!("service{n}");
            let Some(n) = (0..SERVICES.len()).find(of) else { continue };
            rows[n].events += usize::from(event.top_severity >= Severity::Warn);
            rows[n].offices.iter_mut().for_each(|office| office.event(at_ms, event));
        }
        let engine = &judge.engine;
        let offices = rows.iter_mut().flat_map(|row| &mut row.offices);
        offices.for_each(|office| office.pass(at_ms, &|| engine.down_list()));
    }
    rows
}

#[test]
fn a_week_of_flapping_is_few_messages_and_nothing_stays_untold() {
    common::trust::install_ring();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _within = runtime.enter();
    let rows = live();
    // What tells each change by itself sends as many messages as there are changes.
    eprintln!(
        "{:30} {:>12} {:>8} {:>7} {:>6} {:>8} {:>6}",
        "a week of a service that is", "observations", "changes", "events", "mails", "channel", "texts"
    );
    for (service, Row { observations, changes, events, offices }) in SERVICES.iter().zip(&rows) {
        let [mails, channel, texts] = [0, 1, 2].map(|n: usize| offices[n].told().len());
        eprintln!("{:30} {observations:>12} {changes:>8} {events:>7} {mails:>6} {channel:>8} {texts:>6}", service.name);
        for told in [mails, channel, texts] {
            assert!((1..=*events).contains(&told), "{}: {told} messages of {events} events", service.name);
        }
        assert!(offices.iter().all(|office| office.is_at_rest()), "{}: something is not told", service.name);
        for (most, secs) in BUCKETS {
            for texts in offices[2].told().windows(most + 1) {
                assert!(texts[most] - texts[0] >= secs * 1000, "{}: {} texts in {secs} s", service.name, most + 1);
            }
        }
    }
    let [by_halves, by_minutes, .., nightly] = &rows[..] else { panic!("six services") };
    // Flapping is told once and not change by change; what is slower is told as it is, but by telephone.
    assert!(by_halves.changes > 20_000 && by_halves.offices.iter().all(|office| office.told().len() < 100));
    assert!(by_minutes.offices[0].told().len() > 3000 && by_minutes.offices[2].told().len() <= 8 * 7 * 20 + 20);
    assert!(nightly.offices.iter().all(|office| (14..=28).contains(&office.told().len())));
}
