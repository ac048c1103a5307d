//! Buckets and caps: alone as timelines in seconds, and in a desk that lives through storms, crashes and clocks that are set.

use super::*;
use crate::address::Address;
use crate::counters::Counters;
use crate::message::{Delivery, Epoch, Event, EventId, IncidentId, Kind, LedgerRow, Request, State};
use crate::notifier::desk::{Composer, Desk, Input, Now, Store, Teller, Who};
use crate::notifier::{Composed, Letter, Mark, Outcome, Scope, Selection, Story};
use crate::severity::Severity;
use crate::time::UnixMillis;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::sync::Arc;
use uuid::Uuid;

fn tiers(texts: &[&str]) -> Vec<Tier> {
    texts.iter().map(|text| text.parse().expect("a bucket")).collect()
}

fn pace(account: &str, texts: &[&str], dearest: u64) -> Pace {
    Pace { account: account.to_owned(), tiers: tiers(texts), dearest, ..Pace::default() }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn id(n: u128) -> MessageId {
    MessageId(Uuid::from_u128(n))
}

/// A pacer of some recipients, and what they were sent, as lines.
struct Book {
    pacer: Pacer,
    sent: u128,
}

impl Book {
    fn new(recipients: &[(&str, Pace)], caps: &[Cap]) -> Self {
        let mut pacer = Pacer::default();
        pacer.set(recipients.iter().map(|(name, pace)| ((*name).to_owned(), pace.clone())).collect(), caps.to_vec());
        Self { pacer, sent: 0 }
    }

    /// Sends if that is allowed, for this price. Otherwise says until when it waits.
    fn send(&mut self, at: u64, recipient: &str, cost: u64) -> String {
        let last = match self.pacer.verdict(recipient, secs(at)) {
            Verdict::Go => false,
            Verdict::Last => true,
            Verdict::Wait { until, bound } => {
                return format!("until {}s: {}", until.monotonic().as_secs(), bound.reason());
            }
        };
        self.sent += 1;
        self.pacer.begin(recipient, id(self.sent), cost, last, secs(at));
        self.pacer.done(id(self.sent), true, secs(at));
        if last { "last" } else { "sent" }.to_owned()
    }
}

#[test]
fn a_bucket_holds_in_every_window() {
    let mut book = Book::new(&[("ops", pace("ops", &["1/1m", "3/5m"], 0))], &[]);
    let said: Vec<String> = [0, 59, 60, 119, 200, 260, 299, 300, 359, 360]
        .map(|at| format!("{at} {}", book.send(at, "ops", 0)))
        .into_iter()
        .filter(|said| said.ends_with("sent"))
        .collect();
    // A bucket that is refilled would let two more through at 300.
    assert_eq!(said, ["0 sent", "60 sent", "200 sent", "300 sent", "360 sent"]);
    assert_eq!(book.send(361, "ops", 0), "until 500s: no more than 3 in 5m to this recipient");
}

#[test]
fn nobody_else_waits_and_whoever_is_not_bound_never_does() {
    let bound = pace("ops", &["1/1m"], 0);
    let same = pace("ops", &["1/1m"], 0);
    let mut book = Book::new(&[("ops", bound), ("boss", same), ("log", pace("log", &[], 0))], &[]);
    assert_eq!(book.send(0, "ops", 0), "sent");
    // The same telephone under another name.
    assert_eq!(book.send(1, "boss", 0), "until 60s: no more than 1 in 1m to this recipient");
    assert_eq!([book.send(1, "log", 0), book.send(1, "log", 0), book.send(1, "nobody", 0)], ["sent", "sent", "sent"]);
}

#[test]
fn what_was_not_accepted_does_not_count_and_what_may_have_been_does() {
    let mut book = Book::new(&[("ops", pace("ops", &["1/1m"], 0))], &[]);
    book.pacer.begin("ops", id(1), 0, false, secs(0));
    assert!(matches!(book.pacer.verdict("ops", secs(30)), Verdict::Wait { until, .. } if until == Age::at(secs(90))));
    assert_eq!(book.pacer.done(id(1), false, secs(31)), Some(Counted::Not));
    assert_eq!(book.pacer.verdict("ops", secs(31)), Verdict::Go);
    book.pacer.begin("ops", id(1), 0, false, secs(40));
    // It counts from its outcome on: before that it may not have been there yet.
    assert_eq!(book.pacer.done(id(1), true, secs(55)), Some(Counted::Cost(0)));
    assert!(matches!(book.pacer.verdict("ops", secs(114)), Verdict::Wait { until, .. } if until == Age::at(secs(115))));
    assert_eq!(book.pacer.verdict("ops", secs(115)), Verdict::Go);
    assert_eq!(book.pacer.done(id(7), true, secs(115)), None);
}

#[test]
fn the_last_message_before_a_cap_says_so_to_everybody() {
    let caps = [Cap { cost: 100, window: secs(1000) }];
    let mut book = Book::new(&[("a", pace("a", &[], 10)), ("b", pace("b", &[], 10))], &caps);
    let said: Vec<String> = (0..9).map(|at| book.send(at, "a", 10)).collect();
    // 20 are kept back for the last messages to both.
    let wait = |until: u64| format!("until {until}s: the cap of 0.00 in 16m40s is reached");
    assert_eq!(said, ["sent", "sent", "sent", "sent", "sent", "sent", "sent", "sent", "last"].map(str::to_owned));
    assert_eq!(book.send(9, "a", 10), wait(1003));
    assert_eq!(book.send(10, "b", 10), "last");
    assert_eq!(book.send(11, "b", 10), wait(1004));
    // Not for each one that the window leaves behind, but once a quarter is free again.
    assert_eq!(book.send(1003, "a", 10), wait(1004));
    assert_eq!([book.send(1004, "a", 10), book.send(1005, "b", 10)], ["sent", "sent"]);
}

#[test]
fn what_costs_nothing_is_under_no_cap() {
    let caps = [Cap { cost: 20, window: secs(1000) }];
    let mut book = Book::new(&[("a", pace("a", &[], 10)), ("push", pace("push", &[], 0))], &caps);
    assert_eq!([book.send(0, "a", 10), book.send(1, "a", 10)], ["sent", "last"]);
    assert!(book.send(2, "a", 10).starts_with("until"));
    assert_eq!(book.send(3, "push", 0), "sent");
}

#[test]
fn a_message_that_cost_less_leaves_more() {
    let caps = [Cap { cost: 40, window: secs(1000) }];
    let mut book = Book::new(&[("a", pace("a", &[], 10))], &caps);
    for n in 0..21 {
        assert_eq!(book.pacer.verdict("a", secs(n)), Verdict::Go, "{n}");
        book.pacer.begin("a", id(n.into()), 10, false, secs(n));
        book.pacer.paid(id(n.into()), u64::from(n % 10 == 0) * 10);
        book.pacer.done(id(n.into()), true, secs(n));
    }
    assert_eq!(book.pacer.verdict("a", secs(21)), Verdict::Last);
}

#[test]
fn buckets_are_written_as_a_number_in_a_time() {
    assert_eq!("5/15m".parse(), Ok(Tier { messages: 5, window: secs(900) }));
    for text in ["", "5", "0/1m", "5/0s", "1001/1m", "5/32d", "-1/1m", "5/15", "5 / 15m"] {
        let said = text.parse::<Tier>().expect_err(text);
        assert!(said.contains("must be 1 to 1000 messages in 1s to 31d"), "{said}");
    }
    assert_eq!([money(5_000_000), money(1_234_567), money(4_999), money(0)], ["5.00", "1.23", "0.00", "0.00"]);
}

/// The wall clock at the start.
const START: i64 = 1_800_000_000_000;
const CHECKS: [&str; 4] = ["a!port:1", "a!port:2", "b!port:1", "b!port:2"];
/// A message takes less than this, and is accepted somewhere in between.
const TAKES_MS: u64 = 4000;
const DEAREST: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Medium {
    Accepts,
    Away,
    /// Accepts, and the answer is lost.
    Mute,
    Refuses,
}

/// A desk with recipients at a pace, and what their telephone received.
struct Desks {
    desk: Option<Desk>,
    store: Option<Store>,
    paces: BTreeMap<String, Pace>,
    caps: Vec<Cap>,
    /// Real time, in milliseconds.
    at: u64,
    started: u64,
    /// How far the wall clock is off.
    clock: i64,
    medium: Medium,
    seq: u64,
    /// When what arrived, by telephone, and for how much.
    arrived: Vec<(String, u64, u64)>,
    told: Vec<(String, Story)>,
    open: BTreeMap<usize, u64>,
}

/// Composes everything that waits into one message.
struct Writer {
    seq: u64,
    stories: Vec<Story>,
    again: bool,
    last: bool,
}

impl Composer for &mut Writer {
    fn compose(&mut self, _: &str, letter: &Letter<'_>) -> Composed {
        (self.stories, self.again) = (letter.stories.to_vec(), letter.again);
        Composed { bytes: Vec::new(), told: letter.stories.len() }
    }

    fn compose_last(&mut self, recipient: &str, letter: &Letter<'_>, waiting: usize) -> Composed {
        assert_eq!(waiting, letter.stories.len());
        self.last = true;
        self.compose(recipient, letter)
    }

    fn cost(&mut self, _: &str, _: &[u8]) -> u64 {
        self.seq % DEAREST + 1
    }
}

impl Desks {
    fn new(paces: &[(&str, Pace)], caps: &[Cap]) -> Self {
        let paces = paces.iter().map(|(name, pace)| ((*name).to_owned(), pace.clone())).collect();
        let mut desks = Self {
            desk: None,
            store: Some(Store::in_memory(Uuid::from_u128(1)).expect("memory")),
            paces,
            caps: caps.to_vec(),
            at: 0,
            started: 0,
            clock: START,
            medium: Medium::Accepts,
            seq: 0,
            arrived: Vec::new(),
            told: Vec::new(),
            open: BTreeMap::new(),
        };
        desks.start();
        desks
    }

    fn now(&self) -> Now {
        let wall = UnixMillis(self.clock + i64::try_from(self.at).expect("short"));
        Now { monotonic: Duration::from_millis(self.at - self.started), wall }
    }

    fn start(&mut self) {
        self.started = self.at;
        let (store, now) = (self.store.take().expect("it is closed"), self.now());
        let teller = Teller::new("csmsd", "mon".parse().expect("a host"), &["a".to_owned()], now);
        let who = Who { lane: "lane".to_owned(), selection: Some(Selection::at_least(Severity::Debug)) };
        let who = self.paces.keys().map(|name| (name.clone(), who.clone())).collect();
        let give_up = Duration::from_hours(24);
        let (mut desk, _) = Desk::open(store, teller, &who, give_up, &Counters::default(), now).expect("a desk");
        desk.set_paces(self.paces.clone(), self.caps.clone());
        desk.commit(now).expect("memory");
        self.desk = Some(desk);
    }

    fn restart(&mut self, down_ms: u64) {
        self.store = self.desk.take().map(Desk::into_store);
        self.at += down_ms;
        self.start();
    }

    fn desk(&mut self) -> &mut Desk {
        self.desk.as_mut().expect("it runs")
    }

    fn toggle(&mut self, check: usize) {
        let address: Address = CHECKS[check].parse().expect("an address");
        let now = self.now();
        // Dates of events are the publisher's, whose clock is right.
        let at = |ms: u64| UnixMillis(START + i64::try_from(ms).expect("short"));
        let since = self.open.remove(&check);
        let incident = IncidentId::new(&address, "check", at(since.unwrap_or(self.at)));
        let (kind, state) = if since.is_some() { (Kind::Up, State::Up) } else { (Kind::Down, State::Down) };
        let event = Event {
            epoch: Epoch::random(),
            seq: 0,
            nth: 0,
            id: EventId::new(incident, kind, 1),
            incident,
            kind,
            host: address.host().clone(),
            service: address.service().clone(),
            unit: address.unit().clone(),
            address,
            severity: Severity::Err,
            top_severity: Severity::Err,
            state,
            since: at(since.unwrap_or(self.at)),
            time: at(self.at),
            text: String::new(),
            value: None,
            rule: "check".to_owned(),
            step: None,
            duration_ms: since.map(|since| self.at - since),
            suppressed_by: Vec::new(),
            data: None,
        };
        if since.is_none() {
            self.open.insert(check, self.at);
        }
        let _ = self.desk().apply(now, Input::Event { publisher: "a".to_owned(), event: Arc::new(event) });
        self.desk().commit(now).expect("memory");
    }

    /// Sends one message if one can go. `dies`: before its outcome is known.
    fn send(&mut self, dies: bool) -> bool {
        self.seq += 1;
        let mut writer = Writer { seq: self.seq, stories: Vec::new(), again: false, last: false };
        let now = self.now();
        let Some(outgoing) = self.desk().next("lane", now, &mut writer).expect("memory") else { return false };
        let cost = (&mut writer).cost("", &[]);
        // Each another time, so that two that are sent apart may arrive closer.
        let (before, behind) = (self.seq * 7919 % (TAKES_MS / 2), self.seq * 6101 % (TAKES_MS / 2));
        self.at += before;
        if matches!(self.medium, Medium::Accepts | Medium::Mute) {
            let account = self.paces[&outgoing.recipient].account.clone();
            self.arrived.push((account, self.at, cost));
            for story in writer.stories {
                let had = |(who, told): &(String, Story)| *who == outgoing.recipient && told.event == story.event;
                if !(writer.again && self.told.iter().any(had)) {
                    self.told.push((outgoing.recipient.clone(), story));
                }
            }
        }
        self.at += behind;
        if dies {
            self.restart(0);
            return true;
        }
        let retry = |maybe_accepted| Outcome::Retry {
            why: "no answer".to_owned(),
            scope: Scope::Lane,
            maybe_accepted,
            after: None,
        };
        let outcome = match self.medium {
            Medium::Accepts => Outcome::Sent("ok".to_owned()),
            Medium::Away => retry(false),
            Medium::Mute => retry(true),
            Medium::Refuses => Outcome::Never("no such number".to_owned()),
        };
        let now = self.now();
        self.desk().done("lane", &outgoing.recipient, outgoing.id, outcome, now);
        self.desk().commit(now).expect("memory");
        true
    }

    /// Time passes, and whatever can go goes.
    fn pass(&mut self, ms: u64) {
        let until = self.at + ms;
        while self.send(false) {}
        while self.at < until {
            self.at += 500.max(ms / 60);
            let now = self.now();
            let _ = self.desk().apply(now, Input::Beat { publisher: "a".to_owned() });
            let _ = self.desk().apply(now, Input::Tick);
            self.desk().commit(now).expect("memory");
            self.desk().give_up(now);
            while self.send(false) {}
        }
    }

    fn ledger(&mut self) -> Vec<LedgerRow> {
        self.desk().ledger(&Request { limit: Some(10_000), ..Request::default() }).expect("a ledger")
    }
}

#[test]
fn a_storm_is_a_text_a_minute_and_what_waits_says_why() {
    let mut desks = Desks::new(&[("ops", pace("ops", &["1/1m", "2/5m"], 0))], &[]);
    for check in [0, 1, 2, 0, 3] {
        desks.toggle(check);
        desks.pass(1000);
    }
    let rows = desks.ledger();
    assert_eq!(rows[0].state, Delivery::Sent);
    assert!(rows[1..].iter().all(|row| row.state == Delivery::Waiting), "{rows:?}");
    assert!(rows[1].result.ends_with("s: no more than 1 in 1m to this recipient"), "{}", rows[1].result);
    desks.pass(60_000);
    assert_eq!(desks.arrived.len(), 2);
    // The end of what was told, and what is open now, in one text.
    let marks: Vec<Mark> = desks.told.iter().map(|(_, story)| story.mark).collect();
    assert_eq!(marks, [Mark::Began, Mark::Began, Mark::Began, Mark::Began, Mark::Ended]);
    desks.toggle(0);
    desks.pass(70_000);
    let reason = desks.ledger().pop().expect("a row").result;
    assert!(
        reason.starts_with("waits for 2m") && reason.ends_with("no more than 2 in 5m to this recipient"),
        "{reason}"
    );
}

#[test]
fn a_restart_and_a_clock_that_is_set_open_no_bucket_and_close_none_for_long() {
    let hour = 3_600_000;
    for (before, behind) in [(0, 0), (hour, 0), (-hour, 0), (0, -hour), (400 * 24 * hour, 0), (-400 * 24 * hour, 0)] {
        let mut desks = Desks::new(&[("ops", pace("ops", &["1/10m"], 0))], &[]);
        desks.toggle(0);
        desks.pass(1000);
        assert_eq!(desks.arrived.len(), 1);
        desks.clock += before;
        desks.pass(1000);
        desks.clock += behind;
        desks.restart(5000);
        desks.toggle(1);
        desks.pass(580_000);
        assert_eq!(desks.arrived.len(), 1, "opened by {before} {behind}");
        // A clock that was set back while nobody looked may begin the window anew, and no more.
        desks.pass(if behind == 0 { 20_000 } else { 600_000 });
        assert_eq!(desks.arrived.len(), 2, "closed by {before} {behind}");
    }
}

#[test]
fn what_cannot_be_told_in_time_for_a_cap_fails_for_that_reason() {
    let caps = [Cap { cost: 20_000_000, window: secs(10 * 86_400) }];
    let mut desks = Desks::new(&[("ops", pace("ops", &[], 10_000_000))], &caps);
    // The real ones cost next to nothing, so it is said to have spent nearly all.
    let now = desks.now();
    let account = "ops".to_owned();
    let sent = Sent { message: id(1), at: Age::at(now.monotonic), cost: 9_000_000, last: false };
    desks.desk().outbox.pacer.restore(account, sent);
    desks.toggle(0);
    desks.pass(1000);
    assert_eq!(desks.arrived.len(), 1, "the last one");
    desks.toggle(0);
    desks.pass(25 * 3_600_000);
    let row = desks.ledger().pop().expect("a row");
    assert_eq!(row.state, Delivery::Failed);
    assert_eq!(row.result, "could not be told within 1d 0h: the cap of 20.00 in 10d is reached");
}

#[test]
fn a_week_of_a_flapping_service_is_no_more_than_the_buckets() {
    let usual = ["1/1m", "5/15m", "12/1h", "20/3h"];
    let mut desks = Desks::new(&[("ops", pace("ops", &usual, 0)), ("log", pace("log", &[], 0))], &[]);
    let mut events = 0;
    // Twice a minute, whatever cprocessd would hold back of it.
    while desks.at < 7 * 86_400_000 {
        desks.toggle(0);
        desks.pass(30_000);
        events += 1;
    }
    desks.pass(4 * 3_600_000);
    let count = |account: &str| desks.arrived.iter().filter(|(who, ..)| who == account).count();
    eprintln!("{events} events: {} texts in buckets, {} without", count("ops"), count("log"));
    assert!((1000..=8 * 7 * 20 + 20).contains(&count("ops")), "{}", count("ops"));
    assert!(count("log") > 10_000, "{}", count("log"));
    assert_eq!(desks.desk().waiting(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Toggle(usize),
    Storm(usize),
    Wait(u64),
    Medium(Medium),
    Restart(u64),
    /// Killed between a message and its outcome.
    Crash,
    Clock(i64),
    /// The clock was set back while we did not run.
    Back(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let medium = prop_oneof![
        4 => Just(Medium::Accepts), 1 => Just(Medium::Away), 1 => Just(Medium::Mute), 1 => Just(Medium::Refuses),
    ];
    prop_oneof![
        8 => (0_usize..4).prop_map(Step::Toggle),
        2 => (1_usize..20).prop_map(Step::Storm),
        6 => (1_u64..120_000).prop_map(Step::Wait),
        2 => medium.prop_map(Step::Medium),
        1 => (0_u64..100_000).prop_map(Step::Restart),
        1 => Just(Step::Crash),
        1 => (-10_000_000_i64..10_000_000).prop_map(Step::Clock),
        1 => (0_u64..1_000_000).prop_map(Step::Back),
    ]
}

/// The most that lies in any window of this length: of `amount` of what arrived.
fn most_in_any(window: Duration, arrived: &[(u64, u64)], amount: impl Fn(u64) -> u64) -> u64 {
    let window = u64::try_from(window.as_millis()).expect("short");
    let from = |begin: u64| {
        let inside = arrived.iter().filter(move |(at, _)| (begin..begin + window).contains(at));
        inside.map(|(_, cost)| amount(*cost)).sum::<u64>()
    };
    arrived.iter().map(|(at, _)| from(*at)).max().unwrap_or(0)
}

proptest! {
    /// Never more than a bucket or a cap in any window, through crashes and clocks that are set; and at rest everything is
    /// told or on record: whoever was told of a beginning is told of its end, nobody of an end alone.
    #[test]
    fn no_window_holds_more_and_nothing_is_lost(steps in proptest::collection::vec(step(), 1..80)) {
        let texts = ["1/20s", "3/2m", "6/10m"];
        // The same telephone twice, and another one.
        let paces = [
            ("ops", pace("ops", &texts, DEAREST)), ("boss", pace("ops", &texts, DEAREST)), ("duty", pace("duty", &texts, DEAREST)),
        ];
        let caps = [Cap { cost: 60, window: secs(900) }, Cap { cost: 100, window: secs(3600) }];
        let mut desks = Desks::new(&paces, &caps);
        for step in &steps {
            match step {
                Step::Toggle(check) => desks.toggle(*check),
                Step::Storm(count) => (0..*count).for_each(|n| { desks.toggle(n % 4); desks.pass(500); }),
                Step::Wait(ms) => desks.pass(*ms),
                Step::Medium(medium) => desks.medium = *medium,
                Step::Restart(ms) => desks.restart(*ms),
                Step::Crash => { desks.send(true); }
                Step::Clock(ms) => { desks.clock += ms; desks.pass(500); }
                Step::Back(ms) => { desks.clock -= i64::try_from(*ms).expect("short"); desks.restart(1000); }
            }
        }
        desks.medium = Medium::Accepts;
        // Past all windows, more than once: the caps give way only slowly.
        desks.pass(3 * 3_600_000);
        for account in ["ops", "duty"] {
            let of: Vec<(u64, u64)> = desks.arrived.iter().filter(|(who, ..)| who == account).map(|(_, at, cost)| (*at, *cost)).collect();
            for Tier { messages, window } in tiers(&texts) {
                let most = most_in_any(window, &of, |_| 1);
                prop_assert!(most <= messages as u64, "{} in {:?} to {}", most, window, account);
            }
        }
        let all: Vec<(u64, u64)> = desks.arrived.iter().map(|(_, at, cost)| (*at, *cost)).collect();
        for Cap { cost, window } in caps {
            let most = most_in_any(window, &all, |cost| cost);
            prop_assert!(most <= cost, "{} spent in {:?}", most, window);
        }
        let rows = desks.ledger();
        let states: Vec<_> = rows.iter().filter(|row| !matches!(row.state, Delivery::Sent | Delivery::Failed | Delivery::Dropped)).collect();
        prop_assert!(states.is_empty(), "{:?}", states);
        for name in ["ops", "boss", "duty"] {
            for (check, address) in CHECKS.iter().enumerate() {
                let of = |row: &&LedgerRow| row.who == name && row.address.to_string() == *address;
                let flawless = rows.iter().filter(of).all(|row| row.state == Delivery::Sent);
                let mut known = false;
                for (_, story) in desks.told.iter().filter(|(who, story)| who == name && story.event.address.to_string() == *address) {
                    match story.mark {
                        Mark::Began => known = true,
                        Mark::Ended => prop_assert!(std::mem::take(&mut known), "{} hears only the end of {}", name, address),
                        Mark::Passed | Mark::Once => {}
                    }
                }
                prop_assert!(!flawless || known == desks.open.contains_key(&check), "{} knows {} of {}", name, known, address);
            }
        }
        prop_assert_eq!(desks.desk().waiting(), 0);
    }
}
