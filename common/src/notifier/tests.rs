//! What recipients hear, as timelines: times are seconds, and a line is one message.

use super::desk::{Desk, Who};
use super::store::Store;
use super::teller::{Input, Now, Output, SILENT_AFTER, Teller};
use super::{Composed, Letter, Mark, Outcome, Pace, Quiet, Scope, Selection, Story};
use crate::address::Address;
use crate::counters::Counters;
use crate::message::{Delivery, DownRow, Epoch, Event, EventId, IncidentId, Kind, LedgerRow, Request, State};
use crate::severity::Severity;
use crate::subscriber::Cursor;
use crate::time::UnixMillis;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The wall clock at the start.
const START: i64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_hours(24);

/// What the medium does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Medium {
    Accepts,
    /// Cannot be reached.
    Away,
    /// Accepts, but the answer is lost.
    Mute,
    /// Refuses for good.
    Refuses,
    /// Takes so many stories in a message.
    Small(usize),
    /// Likewise, but the answer is lost.
    SmallMute(usize),
}

/// A notifier with a medium of our own, and everything that was accepted.
struct Timeline {
    dir: tempfile::TempDir,
    desk: Option<Desk>,
    recipients: BTreeMap<String, Who>,
    publishers: Vec<String>,
    medium: Medium,
    at: Duration,
    started: Duration,
    compares: u32,
    told: Vec<String>,
    /// The ids of everything that was accepted, copies included.
    accepted: Vec<String>,
    /// And what these messages said, each once.
    stories: Vec<(String, Story)>,
}

impl Timeline {
    fn new(recipients: &[(&str, Severity)]) -> Self {
        let who = |severity| Who { lane: "lane".to_owned(), selection: Some(Selection::at_least(severity)) };
        let mut timeline = Self {
            // Where syncing costs nothing: a property lives through thousands of commits.
            dir: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("folder"),
            desk: None,
            recipients: recipients.iter().map(|(name, severity)| ((*name).to_owned(), who(*severity))).collect(),
            publishers: vec!["a".to_owned()],
            medium: Medium::Accepts,
            at: Duration::ZERO,
            started: Duration::ZERO,
            compares: 0,
            told: Vec::new(),
            accepted: Vec::new(),
            stories: Vec::new(),
        };
        timeline.start();
        // Nothing is open, and now everybody knows.
        timeline.apply(Input::Compared { open: Vec::new() });
        timeline
    }

    fn ops() -> Self {
        Self::new(&[("ops", Severity::Warn)])
    }

    fn start(&mut self) {
        self.started = self.at;
        let now = self.now();
        let store = Store::open(self.dir.path(), "cmaild").expect("store");
        let teller = Teller::new("cmaild", "mon".parse().expect("host"), &self.publishers, now);
        let (desk, _) = Desk::open(store, teller, &self.recipients, DAY, &Counters::default(), now).expect("desk");
        self.desk = Some(desk);
    }

    /// SIGKILL, and a new start.
    fn restart(mut self) -> Self {
        self.desk = None;
        self.start();
        self.settle()
    }

    /// Takes over the recipients, as a reload does.
    fn set_recipients(&mut self) {
        let (recipients, now) = (self.recipients.clone(), self.now());
        self.desk().set_recipients(&recipients, DAY, now);
        self.desk().commit(now).expect("commit");
    }

    /// Takes over the recipients, by a reload or by a restart.
    fn reload(mut self, reloads: bool) -> Self {
        if !reloads {
            self = self.restart();
        }
        self.set_recipients();
        self.settle()
    }

    /// The medium accepts a message, if there is one, and we do not live to hear of it.
    fn crash(&mut self) {
        let now = self.now();
        let (mut said, mut again) = (Vec::new(), false);
        let compose = |_: &str, letter: &Letter<'_>| {
            again = letter.again;
            said = letter.stories.to_vec();
            Composed { bytes: Vec::new(), told: letter.stories.len() }
        };
        if let Some(outgoing) = self.desk().next("lane", now, compose).expect("disk") {
            self.accept(&outgoing.recipient, outgoing.id.to_string(), said, again);
        }
    }

    fn now(&self) -> Now {
        let wall = START + i64::try_from(self.at.as_millis()).expect("a short timeline");
        Now { monotonic: self.at.saturating_sub(self.started), wall: UnixMillis(wall) }
    }

    fn desk(&mut self) -> &mut Desk {
        self.desk.as_mut().expect("it runs")
    }

    fn medium(mut self, medium: Medium) -> Self {
        self.medium = medium;
        self.settle()
    }

    fn apply(&mut self, input: Input) {
        let now = self.now();
        let compare = self.desk().apply(now, input);
        self.compares += u32::from(compare);
        self.desk().commit(now).expect("commit");
    }

    /// As the daemon does, twice a second.
    fn tick(&mut self) {
        self.apply(Input::Tick);
        let now = self.now();
        self.desk().give_up(now);
    }

    /// Time passes, with the publishers beating each second.
    fn until(mut self, secs: u64) -> Self {
        while self.at < Duration::from_secs(secs) {
            self.at += Duration::from_secs(1);
            for publisher in self.publishers.clone() {
                self.apply(Input::Beat { publisher });
            }
            self.tick();
            self = self.settle();
        }
        self
    }

    /// Time passes in silence.
    fn silent_until(mut self, secs: u64) -> Self {
        while self.at < Duration::from_secs(secs) {
            self.at += Duration::from_secs(1);
            self.tick();
            self = self.settle();
        }
        self
    }

    /// Everything that can be told now is.
    fn settle(mut self) -> Self {
        let now = self.now();
        loop {
            let medium = self.medium;
            let mut letters = Vec::new();
            let compose = |recipient: &str, letter: &Letter<'_>| {
                let fits = if let Medium::Small(fits) | Medium::SmallMute(fits) = medium { fits } else { usize::MAX };
                let told = letter.stories.len().min(fits);
                letters.push((line(recipient, letter, told), letter.stories[..told].to_vec(), letter.again));
                Composed { bytes: Vec::new(), told }
            };
            let Some(outgoing) = self.desk().next("lane", now, compose).expect("disk") else { break };
            let (line, stories, again) = letters.pop().expect("composed");
            let outcome = match self.medium {
                Medium::Accepts | Medium::Small(_) => Outcome::Sent("ok".to_owned()),
                Medium::Away => Outcome::unreachable("away"),
                Medium::Mute | Medium::SmallMute(_) => Outcome::Retry {
                    why: "no answer".to_owned(),
                    scope: Scope::Lane,
                    maybe_accepted: true,
                    after: None,
                },
                Medium::Refuses => Outcome::Never("no such mailbox".to_owned()),
            };
            if !matches!(self.medium, Medium::Away | Medium::Refuses) {
                self.accept(&outgoing.recipient, outgoing.id.to_string(), stories, again);
                self.told.push(format!("{}s {line}", self.at.as_secs()));
            }
            self.desk().done("lane", &outgoing.recipient, outgoing.id, outcome, now);
            self.desk().commit(now).expect("commit");
        }
        self
    }

    fn event(mut self, event: Event) -> Self {
        self.apply(Input::Event { publisher: "a".to_owned(), event: std::sync::Arc::new(event) });
        self
    }

    fn from(mut self, publisher: &str, event: Event) -> Self {
        self.apply(Input::Event { publisher: publisher.to_owned(), event: std::sync::Arc::new(event) });
        self.settle()
    }

    fn down(self, secs: u64, address: &str) -> Self {
        self.until(secs).event(down(secs, address, Severity::Err)).settle()
    }

    fn up(self, secs: u64, address: &str, since: u64) -> Self {
        self.until(secs).event(up(secs, address, since, Severity::Err)).settle()
    }

    fn snapshot(mut self, open: Vec<DownRow>) -> Self {
        self.apply(Input::Snapshot { publisher: "a".to_owned(), open });
        self.settle()
    }

    /// What the recipient reads. A message that is marked as sent again may repeat what they have read, and nothing else may.
    fn accept(&mut self, recipient: &str, id: String, stories: Vec<Story>, again: bool) {
        for story in stories {
            let had = |(who, read): &(String, Story)| who == recipient && read.event == story.event;
            if !(again && self.stories.iter().any(had)) {
                self.stories.push((recipient.to_owned(), story));
            }
        }
        self.accepted.push(id);
    }

    fn ledger(&mut self) -> Vec<LedgerRow> {
        self.desk().ledger(&Request { limit: Some(10_000), ..Request::default() }).expect("ledger")
    }

    /// Each row as `who address kind: state (result)`.
    fn rows(&mut self) -> Vec<String> {
        let row = |row: LedgerRow| format!("{} {} {}: {} ({})", row.who, row.address, row.kind, row.state, row.result);
        self.ledger().into_iter().map(row).collect()
    }

    #[track_caller]
    fn expect<const N: usize>(self, told: [&str; N]) -> Self {
        assert_eq!(self.told, told);
        self
    }
}

fn line(recipient: &str, letter: &Letter<'_>, told: usize) -> String {
    let stories: Vec<String> = letter.stories.iter().take(told).map(|story| say(story, letter.now)).collect();
    let again = if letter.again { "again " } else { "" };
    format!("{recipient}: {again}{}", stories.join("; "))
}

fn say(story: &Story, now: UnixMillis) -> String {
    let mut said = format!("{} {}", story.word(), story.event.address);
    if let Some(duration) = story.duration() {
        said.push_str(" after ");
        said.push_str(&crate::time::for_people(duration));
    }
    if story.mark == Mark::Passed {
        said += " passed";
    }
    if story.outages > 1 {
        let _ = write!(said, " x{}", story.outages);
    }
    if let Some(age) = story.age(now) {
        let _ = write!(said, " ({age})");
    }
    said
}

fn wall(secs: u64) -> UnixMillis {
    UnixMillis(START + i64::try_from(secs).expect("a short timeline") * 1000)
}

fn event(secs: u64, address: &str, kind: Kind, severity: Severity, since: u64) -> Event {
    let address: Address = address.parse().expect("address");
    let incident = IncidentId::new(&address, "check", wall(since));
    Event {
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
        severity,
        top_severity: severity,
        state: State::Down,
        since: wall(since),
        time: wall(secs),
        text: String::new(),
        value: None,
        rule: "check".to_owned(),
        step: None,
        duration_ms: None,
        suppressed_by: Vec::new(),
        data: None,
    }
}

fn down(secs: u64, address: &str, severity: Severity) -> Event {
    event(secs, address, Kind::Down, severity, secs)
}

fn up(secs: u64, address: &str, since: u64, top_severity: Severity) -> Event {
    Event {
        severity: Severity::Info,
        top_severity,
        state: State::Up,
        duration_ms: Some((secs - since) * 1000),
        ..event(secs, address, Kind::Up, Severity::Info, since)
    }
}

fn row(since: u64, address: &str) -> DownRow {
    let event = down(since, address, Severity::Err);
    DownRow {
        incident: event.incident,
        address: event.address,
        rule: event.rule,
        kind: None,
        severity: event.severity,
        since: event.since,
        text: String::new(),
        acked: false,
        silenced: false,
        unreachable: false,
        step: None,
        suppressed_by: Vec::new(),
    }
}

#[test]
fn an_outage_is_told_and_so_is_its_end() {
    Timeline::ops()
        .down(10, "web1!port:smtp")
        .up(25, "web1!port:smtp", 10)
        .expect(["10s ops: DOWN web1!port:smtp", "25s ops: UP web1!port:smtp after 15s"]);
}

#[test]
fn each_recipient_hears_what_it_selected_and_the_end_of_that_only() {
    Timeline::new(&[("err", Severity::Err), ("crit", Severity::Crit), ("info", Severity::Info)])
        .down(10, "web1!port:smtp")
        .up(20, "web1!port:smtp", 10)
        .expect([
            "10s err: DOWN web1!port:smtp",
            "10s info: DOWN web1!port:smtp",
            "20s err: UP web1!port:smtp after 10s",
            "20s info: UP web1!port:smtp after 10s",
        ]);
}

#[test]
fn nobody_hears_of_an_end_alone() {
    Timeline::ops().up(20, "web1!port:smtp", 10).expect([]);
}

#[test]
fn an_incident_that_gets_worse_reaches_those_who_wait_for_worse() {
    let worse = |secs| Event { top_severity: Severity::Crit, ..down(secs, "db1!disk:/", Severity::Crit) };
    Timeline::new(&[("crit", Severity::Crit), ("err", Severity::Err)])
        .down(10, "db1!disk:/")
        .until(20)
        .event(Event { since: wall(10), ..worse(20) })
        .settle()
        .until(30)
        .event(up(30, "db1!disk:/", 10, Severity::Crit))
        .settle()
        .expect([
            "10s err: DOWN db1!disk:/",
            "20s crit: DOWN db1!disk:/",
            "20s err: DOWN db1!disk:/",
            "30s crit: UP db1!disk:/ after 20s",
            "30s err: UP db1!disk:/ after 20s",
        ]);
}

#[test]
fn what_is_suppressed_is_told_when_it_is_revealed_and_its_end_to_those_who_were_told() {
    let silenced = |event: Event| Event { suppressed_by: vec!["silence:1".to_owned()], ..event };
    let hidden = |secs| silenced(down(secs, "web1!port:smtp", Severity::Err));
    Timeline::ops()
        .until(10)
        .event(hidden(10))
        .settle()
        .event(up(20, "web1!port:smtp", 10, Severity::Err))
        .until(30)
        .event(hidden(30))
        .until(40)
        .event(event(40, "web1!port:smtp", Kind::Revealed, Severity::Err, 30))
        .settle()
        .event(event(41, "web1!port:smtp", Kind::Revealed, Severity::Err, 30))
        .until(50)
        .event(silenced(up(50, "web1!port:smtp", 30, Severity::Err)))
        .event(silenced(event(51, "web1!port:smtp", Kind::Blip, Severity::Warn, 51)))
        .settle()
        .expect(["40s ops: OPEN web1!port:smtp", "50s ops: UP web1!port:smtp after 20s"]);
}

#[test]
fn each_step_of_a_long_outage_is_told_once_whoever_says_it() {
    let still = |secs, step| Event {
        id: EventId::new(down(10, "web1!port:smtp", Severity::Err).incident, Kind::Persistent, step),
        step: Some(step),
        ..event(secs, "web1!port:smtp", Kind::Persistent, Severity::Err, 10)
    };
    Timeline::ops()
        .down(10, "web1!port:smtp")
        .until(310)
        .event(still(310, 1))
        .settle()
        .from("b", still(311, 1))
        .restart()
        .from("b", still(312, 1))
        .until(3610)
        .event(still(3610, 2))
        .settle()
        .up(3620, "web1!port:smtp", 10)
        .expect([
            "10s ops: DOWN web1!port:smtp",
            "310s ops: STILL web1!port:smtp (5m 0s ago)",
            "3610s ops: STILL web1!port:smtp (1h 0m ago)",
            "3620s ops: UP web1!port:smtp after 1h 0m",
        ]);
}

#[test]
fn an_hour_without_the_medium_becomes_one_message_with_ages() {
    let mut timeline = Timeline::ops().down(10, "web1!port:smtp").medium(Medium::Away);
    for minute in 1..50 {
        let at = minute * 60;
        timeline = timeline.down(at, "db1!port:sql").up(at + 20, "db1!port:sql", at);
    }
    timeline
        .down(3000, "web2!port:www")
        .up(3100, "web1!port:smtp", 10)
        .until(3599)
        .medium(Medium::Accepts)
        .until(3661)
        .expect([
            "10s ops: DOWN web1!port:smtp",
            "3603s ops: DOWN web2!port:www (10m 3s ago); UP db1!port:sql after 20s passed x49 (10m 43s ago); \
             UP web1!port:smtp after 51m 30s (8m 23s ago)",
        ]);
}

#[test]
fn what_a_restart_finds_waiting_is_told_once() {
    Timeline::ops()
        .medium(Medium::Away)
        .down(10, "web1!port:smtp")
        .restart()
        .restart()
        .medium(Medium::Accepts)
        .until(80)
        .restart()
        .expect(["11s ops: DOWN web1!port:smtp"]);
}

#[test]
fn a_lost_outcome_is_sent_again_under_the_same_name_and_marked() {
    let mut timeline = Timeline::ops()
        .medium(Medium::Mute)
        .down(10, "web1!port:smtp")
        .medium(Medium::Accepts)
        .down(11, "web2!port:smtp")
        .restart()
        .until(20)
        .expect(["10s ops: DOWN web1!port:smtp", "11s ops: again DOWN web1!port:smtp", "11s ops: DOWN web2!port:smtp"]);
    assert_eq!(timeline.accepted[0], timeline.accepted[1]);
    assert_ne!(timeline.accepted[1], timeline.accepted[2]);
    assert_eq!(
        timeline.rows(),
        ["ops web1!port:smtp down: sent (outcome unknown, sent again; ok)", "ops web2!port:smtp down: sent (ok)",]
    );
    assert_eq!(timeline.ledger().iter().map(|row| (row.attempts, row.again)).collect::<Vec<_>>(), [(2, 1), (1, 0)]);
}

#[test]
fn a_crash_between_sending_and_recording_sends_again() {
    let mut timeline = Timeline::ops();
    let now = timeline.now();
    timeline.apply(Input::Event {
        publisher: "a".to_owned(),
        event: std::sync::Arc::new(down(0, "web1!port:smtp", Severity::Err)),
    });
    let compose = |_: &str, letter: &Letter<'_>| Composed { bytes: Vec::new(), told: letter.stories.len() };
    let first = timeline.desk().next("lane", now, compose).expect("disk").expect("a message");
    let timeline = timeline.restart().expect(["0s ops: again DOWN web1!port:smtp"]);
    assert_eq!(timeline.accepted, [first.id.to_string()]);
}

#[test]
fn what_is_refused_for_good_has_no_end() {
    let mut timeline = Timeline::ops()
        .medium(Medium::Refuses)
        .down(10, "web1!port:smtp")
        .medium(Medium::Accepts)
        .up(20, "web1!port:smtp", 10)
        .expect([]);
    assert_eq!(timeline.rows(), ["ops web1!port:smtp down: failed (no such mailbox)"]);
}

#[test]
fn an_end_that_waits_for_a_refused_beginning_is_dropped_and_the_next_outage_is_told() {
    let mut timeline = Timeline::ops()
        .medium(Medium::Mute)
        .down(10, "web1!port:smtp")
        .event(up(11, "web1!port:smtp", 10, Severity::Err))
        .medium(Medium::Refuses)
        .until(11)
        .medium(Medium::Accepts)
        .down(12, "web1!port:smtp")
        .expect(["10s ops: DOWN web1!port:smtp", "12s ops: DOWN web1!port:smtp"]);
    assert_eq!(timeline.rows()[1], "ops web1!port:smtp up: dropped (its beginning could not be told)");
}

#[test]
fn what_is_not_accepted_in_time_is_given_up_and_said_so() {
    let mut timeline = Timeline::ops().medium(Medium::Away).down(10, "web1!port:smtp").until(20);
    timeline.at += DAY;
    let now = timeline.now();
    timeline.desk().give_up(now);
    timeline.desk().commit(now).expect("commit");
    assert_eq!(timeline.rows(), ["ops web1!port:smtp down: failed (not accepted within 1d 0h)"]);
    timeline.medium(Medium::Accepts).expect([]);
}

#[test]
fn a_message_takes_what_fits_and_the_next_one_the_rest() {
    Timeline::ops()
        .medium(Medium::Small(2))
        .event(down(0, "a!b:1", Severity::Err))
        .event(down(0, "a!b:2", Severity::Crit))
        .event(down(0, "a!b:3", Severity::Warn))
        .settle()
        .until(5)
        .expect(["0s ops: DOWN a!b:2; DOWN a!b:1", "2s ops: DOWN a!b:3"]);
}

#[test]
fn what_follows_a_message_is_gathered_and_what_comes_alone_never_waits() {
    Timeline::ops()
        .down(10, "web1!port:smtp")
        // Alone again.
        .down(12, "web2!port:smtp")
        .down(13, "web3!port:smtp")
        .down(14, "web4!port:smtp")
        .until(20)
        .up(20, "web3!port:smtp", 13)
        .up(21, "web4!port:smtp", 14)
        .until(30)
        .expect([
            "10s ops: DOWN web1!port:smtp",
            "12s ops: DOWN web2!port:smtp",
            "16s ops: DOWN web3!port:smtp; DOWN web4!port:smtp",
            "20s ops: UP web3!port:smtp after 7.0s",
            "23s ops: UP web4!port:smtp after 7.0s",
        ]);
}

#[test]
fn a_storm_is_gathered_for_eight_seconds_at_most() {
    let storm = (1..=30).fold(Timeline::ops(), |timeline, n| timeline.down(n, &format!("web{n}!port:smtp")));
    let told = storm.until(40).told;
    let counts: Vec<(&str, usize)> =
        told.iter().map(|line| (line.split(' ').next().unwrap_or(""), line.matches("DOWN").count())).collect();
    assert_eq!(counts, [("1s", 1), ("10s", 8), ("18s", 8), ("26s", 8), ("32s", 5)]);
}

/// A recipient who would rather have few messages than early ones.
fn patient() -> Timeline {
    let mut timeline = Timeline::ops();
    let pace = Pace { after_storm: Duration::from_mins(5), ..Pace::default() };
    timeline.desk().set_paces(BTreeMap::from([("ops".to_owned(), pace)]), Vec::new());
    timeline
}

/// This many are down, or up again.
fn storm(mut timeline: Timeline, secs: u64, many: usize, since: Option<u64>) -> Timeline {
    timeline = timeline.until(secs);
    let now = timeline.now();
    for n in 0..many {
        let address = format!("web{n}!port:smtp");
        let event = match since {
            Some(since) => up(secs, &address, since, Severity::Err),
            None => down(secs, &address, Severity::Err),
        };
        let input = Input::Event { publisher: "a".to_owned(), event: Arc::new(event) };
        assert!(!timeline.desk().apply(now, input));
    }
    timeline.desk().commit(now).expect("commit");
    timeline.settle()
}

/// When each message came, and what it told.
fn counts(timeline: &Timeline) -> Vec<(&str, usize, usize)> {
    let words = |line: &str, word: &str| line.split([' ', ';']).filter(|other| *other == word).count();
    timeline
        .told
        .iter()
        .map(|line| (line.split(' ').next().unwrap_or(""), words(line, "DOWN"), words(line, "UP")))
        .collect()
}

#[test]
fn a_storm_is_three_messages_to_whoever_would_rather_have_few() {
    let first = patient().down(1, "db1!port:pg");
    let downs = storm(first, 2, 5000, None).until(30);
    let ups = storm(storm(downs, 60, 3000, Some(2)), 200, 1500, Some(2)).until(400);
    assert_eq!(counts(&ups), [("1s", 1, 0), ("4s", 5000, 0), ("304s", 0, 3000)]);
}

#[test]
fn what_is_worse_than_the_storm_does_not_wait_for_its_rest() {
    let told = storm(patient().down(1, "db1!port:pg"), 2, 200, None).down(100, "db2!port:pg").until(101);
    assert_eq!(counts(&told).len(), 2);
    let mut told = told.event(down(102, "db3!port:pg", Severity::Crit)).settle();
    assert_eq!(counts(&told).pop(), Some(("101s", 2, 0)));
    // Another one as bad is no news of that kind, and the ledger says what it waits for.
    told = told.event(down(110, "db4!port:pg", Severity::Crit)).until(111);
    assert!(
        told.rows()
            .pop()
            .expect("a row")
            .ends_with("down: waiting (waits for 3m 13s: what follows a storm is one message)")
    );
    let told = told.until(310);
    assert_eq!(counts(&told).pop(), Some(("304s", 1, 0)));
    // It is over: what comes alone does not wait.
    assert_eq!(counts(&told.down(400, "db5!port:pg")).pop(), Some(("400s", 1, 0)));
}

#[test]
fn what_waits_is_offered_whole() {
    let told = storm(Timeline::ops().down(1, "db1!port:pg"), 2, 9999, None).until(20);
    assert_eq!(counts(&told), [("1s", 1, 0), ("4s", 9999, 0)]);
}

/// The timelines begin on a Friday at 08:00 UTC.
fn quiet(from: &str, until: &str) -> Vec<Quiet> {
    let quiet = format!(r#"{{"from": "{from}", "until": "{until}", "zone": "UTC"}}"#);
    vec![serde_json::from_str(&quiet).expect("quiet hours")]
}

fn choosing(selection: Selection) -> Timeline {
    let mut timeline = Timeline::ops();
    timeline.recipients.get_mut("ops").expect("a recipient").selection = Some(selection);
    timeline.set_recipients();
    timeline.apply(Input::Compared { open: Vec::new() });
    timeline
}

#[test]
fn what_was_quiet_is_told_at_its_end_if_it_is_still_open() {
    let selection = Selection { quiet: quiet("08:01", "08:03"), ..Selection::at_least(Severity::Warn) };
    let mut timeline = choosing(selection)
        .down(50, "a!b:before")
        .down(70, "a!b:held")
        .up(75, "a!b:before", 50)
        .down(80, "a!b:over")
        .up(90, "a!b:over", 80)
        .until(100)
        .event(down(100, "a!b:crit", Severity::Crit))
        .event(event(100, "a!log:x", Kind::Log, Severity::Err, 100))
        .settle()
        .restart()
        .until(179);
    assert_eq!(timeline.told, ["50s ops: DOWN a!b:before", "100s ops: DOWN a!b:crit"]);
    let why = "quiet from 08:01 until 08:03, UTC";
    assert_eq!(
        timeline.rows(),
        [
            "ops a!b:before down: sent (ok)".to_owned(),
            format!("ops a!b:held down: waiting ({why})"),
            format!("ops a!b:before up: waiting ({why})"),
            format!("ops a!b:over down: dropped (over before it was told: {why})"),
            format!("ops a!b:over up: dropped (over before it was told: {why})"),
            "ops a!b:crit down: sent (ok)".to_owned(),
            format!("ops a!log:x log: waiting ({why})"),
        ]
    );
    timeline = timeline.until(190);
    let at_the_end =
        "180s ops: DOWN a!b:held (1m 50s ago); LOG a!log:x (1m 20s ago); UP a!b:before after 25s (1m 45s ago)";
    assert_eq!(timeline.told[2..], [at_the_end]);
}

/// A message takes its time, and the beginning that it tells of is not there to be dropped with its end.
#[test]
fn what_was_over_before_its_message_came_back_is_not_told_when_quiet_hours_end() {
    let mut timeline = choosing(Selection { quiet: quiet("08:01", "08:03"), ..Selection::at_least(Severity::Warn) });
    timeline = timeline.until(59);
    timeline.apply(Input::Event { publisher: "a".to_owned(), event: Arc::new(down(59, "a!b:c", Severity::Err)) });
    let compose = |_: &str, letter: &Letter<'_>| Composed { bytes: Vec::new(), told: letter.stories.len() };
    let now = timeline.now();
    let message = timeline.desk().next("lane", now, compose).expect("disk").expect("a message");
    let mut timeline = timeline.up(65, "a!b:c", 59);
    let now = timeline.now();
    timeline.desk().done("lane", "ops", message.id, Outcome::unreachable("away"), now);
    let mut timeline = timeline.until(200).expect([]);
    let why = "over before it was told: quiet from 08:01 until 08:03, UTC";
    assert_eq!(timeline.rows(), [format!("ops a!b:c down: dropped ({why})"), format!("ops a!b:c up: dropped ({why})")]);
}

#[test]
fn what_gets_worse_in_quiet_hours_is_told_and_so_is_its_end() {
    let selection = Selection { quiet: quiet("08:01", "12:00"), ..Selection::at_least(Severity::Warn) };
    choosing(selection)
        .down(70, "a!b:c")
        .until(80)
        .event(worse(80, "a!b:c", 70))
        .settle()
        .until(90)
        .event(up(90, "a!b:c", 70, Severity::Crit))
        .settle()
        .expect(["80s ops: DOWN a!b:c", "90s ops: UP a!b:c after 20s"]);
}

#[test]
fn quiet_hours_do_not_count_as_waiting() {
    let weekend = r#"{"from": "00:00", "until": "00:00", "days": ["sat", "sun"], "zone": "UTC"}"#;
    let quiet = vec![serde_json::from_str(weekend).expect("quiet hours")];
    let mut timeline = choosing(Selection { quiet, ..Selection::at_least(Severity::Warn) });
    let (saturday, monday) = (16 * 3600, 64 * 3600);
    timeline.at = Duration::from_secs(saturday);
    timeline = timeline.down(saturday + 100, "a!b:c");
    // Longer than a message is tried.
    while timeline.at < Duration::from_secs(monday - 60) {
        timeline.at += Duration::from_mins(1);
        let now = timeline.now();
        timeline.desk().give_up(now);
    }
    timeline.until(monday + 10).expect(["230400s ops: DOWN a!b:c (1d 23h ago)"]);
}

fn lasting(after: u64) -> Selection {
    let after = Some(Duration::from_secs(after));
    Selection { after, unless_acked: true, ..Selection::at_least(Severity::Warn) }
}

#[test]
fn what_lasts_is_told_after_a_look_at_what_is_open() {
    let mut timeline = choosing(lasting(60))
        .down(10, "a!b:lasts")
        .down(20, "a!b:over")
        .up(40, "a!b:over", 20)
        .event(event(45, "a!log:x", Kind::Log, Severity::Err, 45))
        .until(60)
        .restart()
        .until(69);
    let asked = timeline.compares;
    assert!(timeline.told.is_empty(), "{:?}", timeline.told);
    timeline = timeline.until(71);
    assert_eq!((timeline.told.len(), timeline.compares), (0, asked + 1));
    timeline.apply(Input::Compared { open: vec![row(10, "a!b:lasts")] });
    let timeline = timeline.settle().until(72).up(80, "a!b:lasts", 10);
    assert_eq!(timeline.told, ["71s ops: DOWN a!b:lasts (1m 1s ago)", "80s ops: UP a!b:lasts after 1m 10s"]);
}

#[test]
fn what_nobody_can_look_up_is_told_all_the_same() {
    choosing(lasting(60)).down(10, "a!b:c").until(110).expect(["100s ops: DOWN a!b:c (1m 30s ago)"]);
}

fn acked(since: u64, address: &str) -> DownRow {
    DownRow { acked: true, suppressed_by: vec!["ack:alice".to_owned()], ..row(since, address) }
}

#[test]
fn what_somebody_looks_after_is_not_escalated_until_they_no_longer_do() {
    let mut timeline = choosing(lasting(60)).down(10, "a!b:c").until(71);
    timeline.apply(Input::Compared { open: vec![acked(10, "a!b:c")] });
    timeline = timeline.settle().until(100);
    assert_eq!(timeline.rows(), ["ops a!b:c down: waiting (ack:alice)"]);
    let asked = timeline.compares;
    timeline = timeline.until(102);
    assert_eq!(timeline.compares, asked + 1, "it is looked at again after 30 s");
    // Its cprocessd owes it to nobody, since it was said when it began.
    timeline.apply(Input::Compared { open: vec![row(10, "a!b:c")] });
    timeline.settle().expect(["102s ops: DOWN a!b:c (1m 32s ago)"]);
}

#[test]
fn what_somebody_looks_after_and_is_over_is_not_told() {
    let mut timeline = choosing(lasting(60)).down(10, "a!b:c").until(71);
    timeline.apply(Input::Compared { open: vec![acked(10, "a!b:c")] });
    let mut timeline = timeline.up(80, "a!b:c", 10).until(200).expect([]);
    let why = "over before it was told: ack:alice";
    assert_eq!(timeline.rows(), [format!("ops a!b:c down: dropped ({why})"), format!("ops a!b:c up: dropped ({why})")]);
}

#[test]
fn what_somebody_looks_after_since_it_was_quiet_is_not_escalated_when_that_ends() {
    let mut timeline = choosing(Selection { quiet: quiet("08:00", "08:05"), ..lasting(60) }).down(10, "a!b:c");
    timeline.apply(Input::Compared { open: vec![row(10, "a!b:c")] });
    let mut timeline = timeline.until(80);
    timeline.apply(Input::Compared { open: vec![row(10, "a!b:c")] });
    let mut timeline = timeline.until(301).expect([]);
    timeline.apply(Input::Compared { open: vec![acked(10, "a!b:c")] });
    timeline.settle().until(330).expect([]);
}

#[test]
fn what_somebody_looks_after_since_we_were_away_is_not_escalated_when_we_are_back() {
    let mut timeline = choosing(lasting(60)).down(10, "a!b:c");
    timeline.at = Duration::from_secs(1000);
    let mut timeline = timeline.restart().until(1002).expect([]);
    timeline.apply(Input::Compared { open: vec![acked(10, "a!b:c")] });
    timeline.settle().until(1029).expect([]);
}

#[test]
fn only_what_is_no_worse_is_a_reminder() {
    let selection = Selection { reminders: false, ..Selection::at_least(Severity::Warn) };
    let step = |secs, step, severity| Event {
        kind: Kind::Persistent,
        step: Some(step),
        severity,
        top_severity: severity,
        since: wall(10),
        ..event(secs, "a!b:c", Kind::Persistent, severity, 10)
    };
    let mut timeline = choosing(selection)
        .down(10, "a!b:c")
        .until(20)
        .event(step(20, 1, Severity::Err))
        .until(30)
        .event(step(30, 2, Severity::Crit))
        .settle();
    assert_eq!(timeline.told, ["10s ops: DOWN a!b:c", "30s ops: STILL a!b:c"]);
    let request = Request { all: Some(true), limit: Some(100), ..Request::default() };
    let rows = timeline.desk().ledger(&request).expect("ledger");
    let skipped: Vec<&LedgerRow> = rows.iter().filter(|row| row.state == Delivery::Skipped).collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!((skipped[0].result.as_str(), skipped[0].kind), ("reminders = false", Kind::Persistent));
}

#[test]
fn kinds_are_those_of_beginnings_and_ends_follow() {
    let selection = Selection { kinds: vec![Kind::Down], ..Selection::at_least(Severity::Warn) };
    let alarm = Event { rule: "load".to_owned(), ..event(12, "a!load:x.1", Kind::Alarm, Severity::Err, 12) };
    let revealed = |rule: &str| Event {
        rule: rule.to_owned(),
        ..event(20, &format!("a!{rule}:c"), Kind::Revealed, Severity::Err, 5)
    };
    choosing(selection)
        .down(10, "a!b:c")
        .event(event(11, "a!log:x", Kind::Log, Severity::Err, 11))
        .event(alarm)
        .until(20)
        .event(revealed("check"))
        .event(revealed("load"))
        .settle()
        .up(30, "a!b:c", 10)
        .expect(["10s ops: DOWN a!b:c", "20s ops: OPEN a!check:c", "30s ops: UP a!b:c after 20s"]);
}

/// A rule that misses something says so as `absent`, and it is that also when it is said again or listed.
#[test]
fn what_is_missed_is_of_its_kind_however_it_is_heard_of() {
    let told_by = |kind: Kind| {
        let selection = Selection { kinds: vec![kind], ..Selection::at_least(Severity::Warn) };
        let said = |secs, kind, address: &str, value| Event {
            rule: "backup".to_owned(),
            value,
            step: (kind == Kind::Persistent).then_some(1),
            ..event(secs, address, kind, Severity::Err, 10)
        };
        let listed = |address: &str, kind| DownRow { kind: Some(kind), rule: "backup".to_owned(), ..row(10, address) };
        let timeline = choosing(selection)
            .event(said(10, Kind::Absent, "a!b:1", None))
            .event(said(20, Kind::Persistent, "a!b:2", None))
            .event(said(20, Kind::Revealed, "a!b:3", Some(7.0)))
            .settle();
        let timeline = timeline.snapshot(vec![listed("a!b:4", Kind::Absent), listed("a!b:5", Kind::Alarm)]).until(10);
        timeline.stories.iter().map(|(_, story)| story.event.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(told_by(Kind::Absent), ["a!b:1", "a!b:2", "a!b:4"]);
    assert_eq!(told_by(Kind::Alarm), ["a!b:3", "a!b:5"]);
}

#[test]
fn who_was_not_told_and_why_is_on_record_once() {
    let mut timeline = Timeline::new(&[("all", Severity::Info), ("crit", Severity::Crit)]);
    let silenced = Event { suppressed_by: vec!["silence:7".to_owned()], ..down(10, "a!b:silenced", Severity::Crit) };
    let low = down(10, "a!b:low", Severity::Warn);
    timeline =
        timeline.event(low.clone()).event(silenced).event(low).event(up(12, "a!b:low", 10, Severity::Warn)).settle();
    let request = Request { all: Some(true), limit: Some(100), ..Request::default() };
    let mut said = |request: &Request| -> Vec<String> {
        let rows = timeline.desk().ledger(request).expect("ledger");
        let skipped = rows.into_iter().filter(|row| row.state == Delivery::Skipped);
        skipped.map(|row| format!("{} {} {}: {}", row.who, row.address, row.kind, row.result)).collect()
    };
    assert_eq!(
        said(&request),
        [
            "crit a!b:low down: WARN is less than severity = CRIT",
            "all a!b:silenced down: silence:7",
            "crit a!b:silenced down: silence:7",
            "crit a!b:low up: its beginning was not told",
        ]
        .map(str::to_owned)
        .to_vec()
    );
    let one = Request { who: Some("all".to_owned()), ..request.clone() };
    assert_eq!(said(&one), ["all a!b:silenced down: silence:7"]);
    let incident = IncidentId::new(&"a!b:low".parse().expect("an address"), "check", wall(10)).to_string();
    assert_eq!(said(&Request { incident: Some(incident), ..request }).len(), 2);
}

#[test]
fn the_end_of_what_was_not_told_is_on_record_also_where_an_earlier_outage_was_told() {
    let mut timeline = Timeline::new(&[("crit", Severity::Crit)])
        .event(down(10, "a!b:c", Severity::Crit))
        .settle()
        .event(up(12, "a!b:c", 10, Severity::Crit))
        .settle()
        .down(20, "a!b:c")
        .up(30, "a!b:c", 20);
    let request = Request { all: Some(true), limit: Some(100), ..Request::default() };
    let rows = timeline.desk().ledger(&request).expect("ledger");
    let skipped: Vec<&str> =
        rows.iter().filter(|row| row.state == Delivery::Skipped).map(|row| row.result.as_str()).collect();
    assert_eq!(skipped, ["ERR is less than severity = CRIT", "its beginning was not told"]);
}

#[test]
fn what_is_listed_twice_is_open_whatever_the_clocks() {
    let nobody = Selection { except: vec!["*".parse().expect("a pattern")], ..Selection::at_least(Severity::Warn) };
    let mut timeline = Timeline::ops().event(down(7200, "x!y:", Severity::Err)).settle().until(5);
    timeline = timeline.event(up(7300, "x!y:", 7200, Severity::Err)).settle();
    for selection in [nobody, Selection::at_least(Severity::Info)] {
        timeline.recipients.get_mut("ops").expect("a recipient").selection = Some(selection);
        timeline.set_recipients();
    }
    for secs in [10, 320] {
        assert_eq!(timeline.told.len(), 2, "{:?}", timeline.told);
        timeline = timeline.until(secs);
        timeline.apply(Input::Compared { open: vec![row(3700, "x!y:")] });
        timeline = timeline.settle();
    }
    assert_eq!(timeline.told[2..], ["320s ops: DOWN x!y:"]);
}

#[test]
fn a_second_publisher_with_the_same_news_tells_nothing() {
    let mut timeline = Timeline::ops();
    timeline.publishers.push("b".to_owned());
    let timeline = timeline.restart();
    let log = |secs| event(secs, "web1!log:auth", Kind::Log, Severity::Err, secs);
    timeline
        .from("a", down(1, "x!y:", Severity::Err))
        .from("b", down(1, "x!y:", Severity::Err))
        .until(5)
        .from("a", up(5, "x!y:", 1, Severity::Err))
        // The other one lags: its beginning comes after the end.
        .from("b", down(1, "x!y:", Severity::Err))
        .from("b", up(5, "x!y:", 1, Severity::Err))
        .until(10)
        .from("a", log(10))
        .from("b", log(10))
        .expect(["0s ops: DOWN x!y:", "5s ops: UP x!y: after 4.0s", "10s ops: LOG web1!log:auth"]);
}

#[test]
fn a_clock_that_was_set_back_hides_no_outage() {
    Timeline::ops()
        .event(down(7200, "x!y:", Severity::Err))
        .event(up(7300, "x!y:", 7200, Severity::Err))
        .settle()
        .until(5)
        .event(down(3700, "x!y:", Severity::Err))
        .settle()
        .expect(["0s ops: UP x!y: after 1m 40s passed", "5s ops: DOWN x!y:"]);
}

#[test]
fn a_first_start_tells_what_is_open_in_one_message_and_no_history() {
    Timeline::ops()
        .until(600)
        .snapshot(vec![row(10, "web1!port:smtp"), row(20, "db1!port:sql")])
        .expect(["600s ops: DOWN web1!port:smtp (9m 50s ago); DOWN db1!port:sql (9m 40s ago)"]);
}

#[test]
fn a_snapshot_tells_only_the_difference_and_an_open_incident_that_is_gone_closes_after_two_comparisons() {
    let mut timeline = Timeline::ops()
        .down(10, "web1!port:smtp")
        .down(11, "web2!port:smtp")
        .snapshot(vec![row(11, "web2!port:smtp"), row(12, "web3!port:smtp")])
        .until(13);
    assert_eq!(timeline.compares, 1);
    timeline.apply(Input::Compared { open: vec![row(11, "web2!port:smtp"), row(12, "web3!port:smtp")] });
    let mut timeline = timeline.until(320);
    assert_eq!(timeline.compares, 2);
    timeline.apply(Input::Compared { open: vec![row(11, "web2!port:smtp"), row(12, "web3!port:smtp")] });
    timeline.settle().expect([
        "10s ops: DOWN web1!port:smtp",
        "13s ops: DOWN web2!port:smtp; DOWN web3!port:smtp",
        "320s ops: SOLVED web1!port:smtp after 5m 10s",
    ]);
}

#[test]
fn a_night_of_sleep_between_two_comparisons_closes_nothing() {
    let mut timeline = Timeline::ops().down(10, "web1!port:smtp").until(20);
    timeline.apply(Input::Compared { open: Vec::new() });
    timeline.at = Duration::from_mins(500);
    timeline.apply(Input::Compared { open: Vec::new() });
    let mut timeline = timeline.settle().until(30_200).expect(["10s ops: DOWN web1!port:smtp"]);
    timeline.apply(Input::Compared { open: vec![row(10, "web1!port:smtp")] });
    let mut timeline = timeline.settle().until(30_210);
    timeline.apply(Input::Compared { open: Vec::new() });
    let mut timeline = timeline.until(30_510);
    timeline.apply(Input::Compared { open: Vec::new() });
    timeline.settle().expect(["10s ops: DOWN web1!port:smtp", "30510s ops: SOLVED web1!port:smtp after 8h 28m"]);
}

#[test]
fn whoever_is_new_or_selects_more_hears_of_what_is_open_once() {
    let mut timeline = Timeline::new(&[("crit", Severity::Crit)]).down(10, "web1!port:smtp").until(20);
    let open = || vec![row(10, "web1!port:smtp"), DownRow { silenced: true, ..row(10, "web2!port:smtp") }];
    let who = |severity| Who { lane: "lane".to_owned(), selection: Some(Selection::at_least(severity)) };
    timeline.recipients.insert("crit".to_owned(), who(Severity::Err));
    timeline.recipients.insert("new".to_owned(), who(Severity::Warn));
    timeline.set_recipients();
    let mut timeline = timeline.until(21);
    assert_eq!(timeline.compares, 1);
    timeline.apply(Input::Compared { open: open() });
    // Also after a restart, nobody is new any more.
    let mut timeline = timeline.settle().restart().until(30);
    timeline.apply(Input::Compared { open: open() });
    timeline.up(40, "web1!port:smtp", 10).expect([
        "21s crit: DOWN web1!port:smtp",
        "21s new: DOWN web1!port:smtp",
        "40s crit: UP web1!port:smtp after 30s",
        "40s new: UP web1!port:smtp after 30s",
    ]);
}

#[test]
fn who_selects_less_for_a_while_hears_of_what_began_meanwhile() {
    let mut timeline = Timeline::new(&[("ops", Severity::Err)]);
    timeline.recipients.get_mut("ops").expect("a recipient").selection = Some(Selection::at_least(Severity::Crit));
    timeline.set_recipients();
    // Nobody has answered what is open for CRIT by then.
    timeline = timeline.down(3, "a!b:c");
    timeline.recipients.get_mut("ops").expect("a recipient").selection = Some(Selection::at_least(Severity::Err));
    timeline.set_recipients();
    let mut timeline = timeline.until(5).expect([]);
    timeline.apply(Input::Compared { open: vec![row(3, "a!b:c")] });
    timeline.apply(Input::Compared { open: vec![row(3, "a!b:c")] });
    timeline.settle().expect(["5s ops: DOWN a!b:c"]);
}

#[test]
fn an_answer_from_before_somebody_selected_more_does_not_say_what_is_open_for_them() {
    let mut timeline = Timeline::new(&[("ops", Severity::Crit)]);
    timeline.recipients.get_mut("ops").expect("a recipient").selection = Some(Selection::at_least(Severity::Err));
    timeline.set_recipients();
    let mut timeline = timeline.until(2);
    assert_eq!(timeline.compares, 1);
    // While that is under way something begins, and then it is selected.
    timeline = timeline.event(down(3, "a!b:c", Severity::Warn));
    timeline.recipients.get_mut("ops").expect("a recipient").selection = Some(Selection::at_least(Severity::Warn));
    timeline.set_recipients();
    timeline.apply(Input::Compared { open: Vec::new() });
    let mut timeline = timeline.settle().until(5).expect([]);
    assert_eq!(timeline.compares, 2);
    timeline.apply(Input::Compared { open: vec![row(3, "a!b:c")] });
    timeline.settle().until(400).expect(["5s ops: DOWN a!b:c"]);
}

#[test]
fn what_was_kept_back_from_whoever_is_new_or_had_lost_its_beginning_is_told_when_it_no_longer_is() {
    let mut timeline = Timeline::ops().until(20);
    let row = |since, silenced| DownRow { silenced, ..row(since, "web1!port:smtp") };
    let who = Who { lane: "lane".to_owned(), selection: Some(Selection::at_least(Severity::Warn)) };
    timeline.recipients = BTreeMap::from([("new".to_owned(), who)]);
    timeline.set_recipients();
    let mut timeline = timeline.until(21);
    timeline.apply(Input::Compared { open: vec![row(10, true)] });
    // Nothing is revealed at the end of the silence, since others knew of it before.
    let mut timeline = timeline.until(330);
    timeline.apply(Input::Compared { open: vec![row(10, false)] });
    let timeline = timeline.settle().up(340, "web1!port:smtp", 10);
    let mut timeline = timeline.snapshot(vec![row(350, true)]).until(660);
    timeline.apply(Input::Compared { open: vec![row(350, false)] });
    timeline.settle().expect([
        "330s new: DOWN web1!port:smtp (5m 20s ago)",
        "340s new: UP web1!port:smtp after 5m 30s",
        "660s new: DOWN web1!port:smtp (5m 10s ago)",
    ]);
}

#[test]
fn a_publisher_that_falls_silent_is_said_once_and_so_is_its_return() {
    let timeline = Timeline::new(&[("crit", Severity::Crit)]).until(5).silent_until(34).expect([]);
    let timeline = timeline.silent_until(50).expect(["35s crit: SILENT mon!cprocessd:a (30s ago)"]);
    // A restart meanwhile changes nothing.
    timeline
        .restart()
        .silent_until(90)
        .until(91)
        .until(200)
        .expect(["35s crit: SILENT mon!cprocessd:a (30s ago)", "91s crit: HEARD mon!cprocessd:a after 1m 26s"]);
}

#[test]
fn our_own_pause_is_nobodys_silence() {
    let mut timeline = Timeline::ops().until(5);
    timeline.at += Duration::from_hours(1);
    timeline.apply(Input::Tick);
    timeline.silent_until(3605 + SILENT_AFTER.as_secs() - 1).expect([]);
}

#[test]
fn a_test_reaches_whoever_was_named_whatever_they_select() {
    let mut timeline = Timeline::new(&[("crit", Severity::Crit), ("err", Severity::Err)]);
    timeline.apply(Input::Test { who: Some("crit".to_owned()) });
    timeline.apply(Input::Test { who: Some("crit".to_owned()) });
    timeline.settle().expect(["0s crit: TEST mon!cmaild:; TEST mon!cmaild:"]);
}

#[test]
fn what_a_medium_says_itself_is_told_once_to_whom_it_names_also_over_a_restart() {
    let digest = Arc::new(event(10, "mon!cmaild:", Kind::Log, Severity::Info, 10));
    let says = |who: &str| Input::Says { recipient: who.to_owned(), event: digest.clone() };
    let mut timeline = Timeline::new(&[("crit", Severity::Crit), ("err", Severity::Err)]);
    for who in ["crit", "crit", "gone"] {
        timeline.apply(says(who));
    }
    let mut timeline = timeline.settle().restart();
    timeline.apply(says("crit"));
    timeline.settle().expect(["0s crit: LOG mon!cmaild:"]);
}

#[test]
fn what_waits_for_somebody_who_is_gone_is_dropped() {
    let mut timeline = Timeline::ops().medium(Medium::Away).down(10, "web1!port:smtp");
    timeline.recipients.clear();
    let mut timeline = timeline.restart();
    let now = timeline.now();
    timeline.desk().commit(now).expect("commit");
    assert_eq!(timeline.rows(), ["ops web1!port:smtp down: dropped (there is no such recipient)"]);
}

#[test]
fn the_ledger_can_be_asked_by_recipient_incident_and_time() {
    let mut timeline = Timeline::new(&[("a", Severity::Warn), ("b", Severity::Warn)])
        .down(10, "web1!port:smtp")
        .down(20, "web2!port:smtp");
    let mut count = |request: Request| timeline.desk().ledger(&request).expect("ledger").len();
    assert_eq!(count(Request::default()), 4);
    assert_eq!(count(Request { who: Some("a".to_owned()), ..Request::default() }), 2);
    let incident = down(20, "web2!port:smtp", Severity::Err).incident.to_string();
    assert_eq!(count(Request { incident: Some(incident), ..Request::default() }), 2);
    assert_eq!(count(Request { since: Some(wall(15)), ..Request::default() }), 2);
    assert_eq!(count(Request { after: Some(3), ..Request::default() }), 1);
    assert_eq!(count(Request { limit: Some(3), ..Request::default() }), 3);
    let waiting = timeline.ledger().iter().filter(|row| row.state != Delivery::Sent).count();
    assert_eq!(waiting, 0);
}

#[test]
fn a_damaged_row_is_left_out() {
    let timeline = Timeline::ops().medium(Medium::Away).down(10, "web1!port:smtp").down(11, "web2!port:smtp");
    let path: PathBuf = timeline.dir.path().join("cmaild.db");
    let db = rusqlite::Connection::open(path).expect("open");
    db.execute("UPDATE item SET payload = x'00' WHERE id = 1", []).expect("damage");
    db.execute("UPDATE told SET address = 'nonsense' WHERE address LIKE 'web1%'", []).expect("damage");
    timeline.restart().medium(Medium::Accepts).until(80).expect(["12s ops: DOWN web2!port:smtp"]);
}

/// The same incident, worse.
fn worse(secs: u64, address: &str, since: u64) -> Event {
    Event { since: wall(since), ..event(secs, address, Kind::Down, Severity::Crit, since) }
}

#[test]
fn whoever_was_told_hears_the_end_although_its_getting_worse_was_refused() {
    let timeline = Timeline::ops().down(10, "db1!disk:/").medium(Medium::Refuses);
    let timeline = timeline.until(20).event(worse(20, "db1!disk:/", 10)).settle().medium(Medium::Accepts);
    timeline
        .restart()
        .up(30, "db1!disk:/", 10)
        .expect(["10s ops: DOWN db1!disk:/", "30s ops: UP db1!disk:/ after 20s"]);
}

#[test]
fn what_got_worse_and_ended_unheard_ends_for_whoever_was_told() {
    let mut timeline = Timeline::ops()
        .down(10, "db1!disk:/")
        .medium(Medium::Away)
        .until(20)
        .event(worse(20, "db1!disk:/", 10))
        .restart()
        .up(30, "db1!disk:/", 10)
        .medium(Medium::Accepts)
        .until(100);
    assert_eq!(timeline.told[1..], ["35s ops: UP db1!disk:/ after 20s"]);
    let (_, end) = timeline.stories.pop().expect("told");
    assert_eq!(end.mark, Mark::Ended);
    assert_eq!(end.told_in.map(|id| id.to_string()).as_ref(), timeline.accepted.first());
}

#[test]
fn getting_worse_stands_for_a_beginning_that_was_refused() {
    let mut timeline = Timeline::ops();
    let now = timeline.now();
    let compose = |_: &str, letter: &Letter<'_>| Composed { bytes: Vec::new(), told: letter.stories.len() };
    timeline = timeline.event(down(0, "db1!disk:/", Severity::Err));
    let refused = timeline.desk().next("lane", now, compose).expect("disk").expect("a message");
    timeline = timeline.event(worse(0, "db1!disk:/", 0));
    timeline.desk().done("lane", "ops", refused.id, Outcome::Never("no such mailbox".to_owned()), now);
    timeline.desk().commit(now).expect("commit");
    timeline.medium = Medium::Away;
    timeline
        .restart()
        .up(12, "db1!disk:/", 0)
        .medium(Medium::Accepts)
        .until(80)
        .expect(["15s ops: UP db1!disk:/ after 12s passed"]);
}

#[test]
fn what_was_dropped_with_its_recipient_has_no_end_when_they_come_back() {
    for reloads in [true, false] {
        let mut timeline = Timeline::ops().medium(Medium::Away).down(10, "web1!port:smtp");
        let ops = std::mem::take(&mut timeline.recipients);
        timeline = timeline.reload(reloads);
        timeline.recipients = ops;
        timeline = timeline.reload(reloads).medium(Medium::Accepts);
        timeline.up(20, "web1!port:smtp", 10).until(100).expect([]);
    }
}

#[test]
fn an_outcome_for_a_recipient_who_was_removed_meanwhile_is_not_that_of_a_later_message() {
    let mut timeline = Timeline::ops();
    let now = timeline.now();
    let compose = |_: &str, letter: &Letter<'_>| Composed { bytes: Vec::new(), told: letter.stories.len() };
    timeline
        .apply(Input::Event { publisher: "a".to_owned(), event: std::sync::Arc::new(down(0, "x!y:1", Severity::Err)) });
    let first = timeline.desk().next("lane", now, compose).expect("disk").expect("a message");
    let ops = std::mem::take(&mut timeline.recipients);
    timeline.set_recipients();
    timeline.recipients = ops;
    timeline.set_recipients();
    timeline
        .apply(Input::Event { publisher: "a".to_owned(), event: std::sync::Arc::new(down(0, "x!y:2", Severity::Err)) });
    let second = timeline.desk().next("lane", now, compose).expect("disk").expect("a message");
    timeline.desk().done("lane", "ops", first.id, Outcome::Sent("ok".to_owned()), now);
    timeline.desk().commit(now).expect("commit");
    assert_eq!(timeline.rows()[1], "ops x!y:2 down: sending ()");
    timeline.desk().done("lane", "ops", second.id, Outcome::unreachable("away"), now);
    timeline.until(2).expect(["1s ops: DOWN x!y:2"]);
}

#[test]
fn a_publisher_that_lags_neither_ends_nor_worsens_what_began_later() {
    let mut timeline = Timeline::ops();
    timeline.publishers.push("b".to_owned());
    timeline
        .restart()
        .from("a", down(1, "x!y:", Severity::Err))
        .from("b", down(1, "x!y:", Severity::Err))
        .until(5)
        .from("a", up(5, "x!y:", 1, Severity::Err))
        .until(8)
        .from("a", down(7, "x!y:", Severity::Err))
        .restart()
        .from("b", worse(3, "x!y:", 1))
        .from("b", up(5, "x!y:", 1, Severity::Err))
        .from("b", down(7, "x!y:", Severity::Err))
        .from("b", up(9, "x!y:", 7, Severity::Err))
        .from("a", up(9, "x!y:", 7, Severity::Err))
        .expect(["0s ops: DOWN x!y:", "5s ops: UP x!y: after 4.0s", "8s ops: DOWN x!y:", "8s ops: UP x!y: after 2.0s"]);
}

#[test]
fn a_publisher_that_missed_an_end_does_not_remind_of_what_it_takes_to_last() {
    let mut timeline = Timeline::ops();
    timeline.publishers.push("b".to_owned());
    let still = |secs, since| Event {
        step: Some(1),
        top_severity: Severity::Crit,
        ..event(secs, "x!y:", Kind::Persistent, Severity::Crit, since)
    };
    timeline
        .restart()
        .from("b", down(1, "x!y:", Severity::Err))
        .until(5)
        .from("a", up(5, "x!y:", 1, Severity::Err))
        .until(290)
        .from("a", down(290, "x!y:", Severity::Err))
        .until(301)
        .from("b", still(301, 1))
        .until(590)
        .from("a", still(590, 290))
        .expect([
            "0s ops: DOWN x!y:",
            "5s ops: UP x!y: after 4.0s",
            "290s ops: DOWN x!y:",
            "590s ops: STILL x!y: (5m 0s ago)",
        ]);
}

#[test]
fn a_publisher_that_lags_retires_nothing_that_began_later() {
    let mut timeline = Timeline::ops();
    timeline.publishers.push("b".to_owned());
    let retired = |secs| Event { kind: Kind::Retired, ..up(secs, "x!y:", 1, Severity::Err) };
    timeline
        .restart()
        .from("a", down(1, "x!y:", Severity::Err))
        .until(5)
        .from("a", retired(5))
        .until(7)
        .from("a", down(7, "x!y:", Severity::Err))
        .until(20)
        .from("b", down(1, "x!y:", Severity::Err))
        .from("b", retired(20))
        .from("b", down(7, "x!y:", Severity::Err))
        .until(30)
        .from("a", up(30, "x!y:", 7, Severity::Err))
        .expect([
            "0s ops: DOWN x!y:",
            "5s ops: RETIRED x!y: after 4.0s",
            "7s ops: DOWN x!y:",
            "30s ops: UP x!y: after 23s",
        ]);
}

#[test]
fn a_publisher_that_lags_behind_the_snapshot_of_another_ends_nothing() {
    let mut timeline = Timeline::ops();
    timeline.publishers.push("b".to_owned());
    timeline
        .restart()
        .until(8)
        .snapshot(vec![row(8, "x!y:")])
        .from("b", down(3, "x!y:", Severity::Err))
        .from("b", up(5, "x!y:", 3, Severity::Err))
        .from("b", down(8, "x!y:", Severity::Err))
        .expect(["8s ops: DOWN x!y:"]);
}

#[test]
fn a_disk_that_refuses_at_any_step_loses_nothing_and_doubles_nothing() {
    for refused in [
        "INSERT ON item",
        "INSERT ON told",
        "INSERT ON cursor",
        "UPDATE ON item WHEN new.state = 'sending'",
        "UPDATE ON item WHEN new.state = 'sent'",
    ] {
        let mut timeline = Timeline::ops().down(1, "x!y:1");
        timeline = timeline.until(5);
        let db = rusqlite::Connection::open(timeline.dir.path().join("cmaild.db")).expect("open");
        let trigger = format!("CREATE TRIGGER refuse BEFORE {refused} BEGIN SELECT RAISE(FAIL, 'full'); END");
        db.execute_batch(&trigger).expect("refuse");
        let (now, mut sent) = (timeline.now(), Vec::new());
        let events = [up(2, "x!y:1", 1, Severity::Err), down(5, "x!y:2", Severity::Err)];
        for (seq, event) in (1..).zip(events) {
            let input = Input::Event { publisher: "a".to_owned(), event: Arc::new(event) };
            assert!(!timeline.desk().apply(now, input));
            timeline.desk().read_to("a".to_owned(), Cursor { epoch: None, seq });
        }
        for attempt in 0..5 {
            if attempt == 3 {
                db.execute_batch("DROP TRIGGER refuse").expect("again");
            }
            // As the shell does it: nothing goes while the disk refuses.
            if timeline.desk().commit(now).is_err() {
                continue;
            }
            let compose = |recipient: &str, letter: &Letter<'_>| {
                sent.push(line(recipient, letter, letter.stories.len()));
                Composed { bytes: Vec::new(), told: letter.stories.len() }
            };
            match timeline.desk().next("lane", now, compose) {
                Ok(Some(out)) => timeline.desk().done("lane", "ops", out.id, Outcome::Sent("ok".to_owned()), now),
                Ok(None) => {}
                Err(_) => drop(sent.pop()),
            }
        }
        assert_eq!(sent, ["ops: DOWN x!y:2; UP x!y:1 after 1.0s"], "{refused}");
        let mut timeline = timeline.restart().until(80);
        assert_eq!(timeline.told.len(), 1, "{refused}");
        assert!(timeline.ledger().iter().all(|row| row.state == Delivery::Sent && row.again == 0), "{refused}");
    }
}

#[test]
fn two_snapshots_in_a_row_close_nothing_before_its_time() {
    let mut timeline = Timeline::ops().down(10, "web1!port:smtp");
    for secs in [20, 30, 40] {
        timeline = timeline.until(secs).snapshot(Vec::new()).until(secs + 1);
        timeline.apply(Input::Compared { open: Vec::new() });
        timeline = timeline.settle();
    }
    assert_eq!(timeline.compares, 3);
    let mut timeline = timeline.until(350).expect(["10s ops: DOWN web1!port:smtp"]);
    timeline.apply(Input::Compared { open: Vec::new() });
    timeline.settle().expect(["10s ops: DOWN web1!port:smtp", "350s ops: SOLVED web1!port:smtp after 5m 40s"]);
}

#[test]
fn a_message_that_takes_less_when_it_is_sent_again_keeps_its_name() {
    let mut timeline = Timeline::ops().medium(Medium::Away);
    for unit in 1..=3 {
        timeline = timeline.event(down(0, &format!("a!b:{unit}"), Severity::Err));
    }
    let timeline = timeline.medium(Medium::Mute).expect(["0s ops: DOWN a!b:1; DOWN a!b:2; DOWN a!b:3"]);
    let timeline = timeline.medium(Medium::SmallMute(2)).until(5).restart().medium(Medium::Small(2)).until(80);
    assert!(timeline.told[1..].iter().all(|line| line.contains("again")), "{:?}", timeline.told);
    let (first, rest) = (timeline.accepted[0].clone(), timeline.accepted.last().expect("told").clone());
    let firsts = timeline.accepted.len() - 1;
    assert!(firsts > 2 && timeline.accepted[..firsts].iter().all(|id| *id == first), "{:?}", timeline.accepted);
    assert_ne!(first, rest);
    assert!(timeline.told[firsts].contains("again DOWN a!b:3"), "{:?}", timeline.told);
}

#[test]
fn a_silence_ends_with_the_publisher_that_is_no_longer_followed() {
    let mut timeline = Timeline::ops();
    timeline.publishers.push("b".to_owned());
    let mut timeline = timeline.restart();
    for _ in 0..40 {
        timeline.at += Duration::from_secs(1);
        timeline.apply(Input::Beat { publisher: "a".to_owned() });
        timeline.apply(Input::Tick);
        timeline = timeline.settle();
    }
    timeline.publishers.pop();
    timeline
        .restart()
        .until(60)
        .expect(["30s ops: SILENT mon!cprocessd:b (30s ago)", "41s ops: HEARD mon!cprocessd:b after 41s"]);
}

#[test]
fn too_many_events_give_up_the_oldest_beginnings_and_no_end_of_what_was_told() {
    let mut timeline = Timeline::ops().down(1, "x!y:").medium(Medium::Away);
    timeline = timeline.event(up(2, "x!y:", 1, Severity::Err)).event(down(3, "x!y:", Severity::Err));
    let now = timeline.now();
    for n in 0..10_000 {
        let event = Event {
            id: EventId::new(down(4, "x!l:", Severity::Err).incident, Kind::Log, n),
            ..event(4, "x!l:", Kind::Log, Severity::Err, 4)
        };
        assert!(
            !timeline.desk().apply(now, Input::Event { publisher: "a".to_owned(), event: std::sync::Arc::new(event) })
        );
    }
    timeline.desk().commit(now).expect("commit");
    timeline.desk().commit(now).expect("commit");
    let request = Request { after: Some(1), limit: Some(1000), ..Request::default() };
    let states: Vec<Delivery> = timeline.desk().ledger(&request).expect("ledger").iter().map(|row| row.state).collect();
    assert_eq!(states[..3], [Delivery::Waiting, Delivery::Failed, Delivery::Failed]);
    // Many at once, so that this is rare.
    assert_eq!(states.iter().filter(|state| **state == Delivery::Failed).count(), 500);
    let timeline = timeline.event(up(5, "x!y:", 3, Severity::Err)).medium(Medium::Accepts).until(70);
    let ends: Vec<&Story> =
        timeline.stories.iter().map(|(_, story)| story).filter(|story| story.mark != Mark::Once).collect();
    assert_eq!(
        ends.iter().map(|story| (story.mark, story.event.since)).collect::<Vec<_>>(),
        [(Mark::Began, wall(1)), (Mark::Ended, wall(1)),]
    );
}

#[test]
fn more_that_is_open_than_is_kept_loses_the_ends_of_the_least_severe_and_no_beginning() {
    let now = |secs| Now { monotonic: Duration::from_secs(secs), wall: wall(secs) };
    let mut teller = Teller::new("cmaild", "mon".parse().expect("a host"), &["a".to_owned()], now(0));
    teller.set_recipients([("ops".to_owned(), Selection::at_least(Severity::Debug))].into());
    let mut say = |event: Event| {
        let input = Input::Event { publisher: "a".to_owned(), event: std::sync::Arc::new(event) };
        teller.apply(now(1), input)
    };
    let is_told = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Tell { .. }));
    assert!(is_told(&say(down(1, "x!y:worst", Severity::Crit))));
    let mut forgotten = 0;
    for n in 0..60_000 {
        let outputs = say(down(1, &format!("x!y:{n}"), Severity::Warn));
        assert!(is_told(&outputs), "{n}");
        forgotten += outputs.iter().filter(|output| matches!(output, Output::Forget { .. })).count();
    }
    assert_eq!(forgotten, 15_000);
    assert!(is_told(&say(up(2, "x!y:worst", 1, Severity::Crit))));
    assert!(is_told(&say(up(2, "x!y:59999", 1, Severity::Warn))));
}

/// What can happen in a random history.
#[derive(Clone, Debug)]
enum Step {
    /// The state of one of a few checks changes.
    Toggle(usize),
    Log(usize),
    Medium(Medium),
    Wait(u64),
    Restart,
    /// SIGKILL after the medium has accepted, before we know.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let medium = prop_oneof![
        3 => Just(Medium::Accepts), 2 => Just(Medium::Away), 1 => Just(Medium::Mute), 1 => (1_usize..4).prop_map(Medium::Small),
    ];
    prop_oneof![
        8 => (0_usize..5).prop_map(Step::Toggle),
        1 => (0_usize..5).prop_map(Step::Log),
        3 => medium.prop_map(Step::Medium),
        4 => (1_u64..40).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

/// The checks of random histories. The first is CRIT when it is down, the others ERR.
const CHECKS: [&str; 5] = ["a!port:1", "a!port:2", "b!port:1", "b!port:2", "c!port:1"];

/// A random history, and after it a medium that works and time to tell everything.
fn live_through(steps: &[Step]) -> (Timeline, Vec<Vec<u64>>, [Option<u64>; 5]) {
    let mut timeline = Timeline::new(&[("crit", Severity::Crit), ("err", Severity::Err)]);
    let mut open: [Option<u64>; 5] = [None; 5];
    let mut outages: Vec<Vec<u64>> = vec![Vec::new(); 5];
    let mut at = 0;
    for step in steps {
        match step {
            Step::Toggle(check) => {
                at += 1;
                let severity = if *check == 0 { Severity::Crit } else { Severity::Err };
                let event = match open[*check].take() {
                    Some(since) => up(at, CHECKS[*check], since, severity),
                    None => {
                        open[*check] = Some(at);
                        outages[*check].push(at);
                        down(at, CHECKS[*check], severity)
                    }
                };
                timeline = timeline.until(at).event(event);
                // Events often come together.
                if at % 3 == 0 {
                    timeline = timeline.settle();
                }
            }
            Step::Log(check) => {
                timeline = timeline.event(event(at, CHECKS[*check], Kind::Log, Severity::Warn, at));
            }
            Step::Medium(medium) => timeline.medium = *medium,
            Step::Wait(secs) => {
                at += secs;
                timeline = timeline.until(at);
            }
            Step::Restart => timeline = timeline.restart(),
            Step::Crash => {
                timeline.crash();
                timeline = timeline.restart();
            }
        }
    }
    timeline.medium = Medium::Accepts;
    (timeline.until(at + 200), outages, open)
}

proptest! {
    /// DESIGN §7.5 for a medium that refuses nothing for good: whoever was told of a beginning is told of the end, nobody of an
    /// end alone, each outage is named once, and at rest what is told as open is what is open.
    #[test]
    fn at_rest_each_recipient_knows_what_is_open(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut timeline, outages, open) = live_through(&steps);
        for (recipient, checks) in [("crit", &CHECKS[..1]), ("err", &CHECKS[..])] {
            let mut told_open: BTreeMap<String, u32> = BTreeMap::new();
            let mut named: BTreeMap<String, usize> = BTreeMap::new();
            for (_, story) in timeline.stories.iter().filter(|(who, story)| who == recipient && story.mark != Mark::Once) {
                let address = story.event.address.to_string();
                let outages = usize::try_from(story.outages).expect("few");
                match story.mark {
                    Mark::Began => {
                        told_open.insert(address.clone(), 1);
                        *named.entry(address).or_default() += outages;
                    }
                    Mark::Ended => {
                        prop_assert!(told_open.remove(&address).is_some(), "an end alone: {address}");
                        *named.entry(address).or_default() += outages - 1;
                    }
                    Mark::Passed => {
                        prop_assert!(!told_open.contains_key(&address), "{address} passed although it was told as open");
                        *named.entry(address).or_default() += outages;
                    }
                    Mark::Once => {}
                }
            }
            for (check, address) in CHECKS.iter().enumerate() {
                let selected = checks.contains(address);
                let expected = if selected { outages[check].len() } else { 0 };
                prop_assert_eq!(named.get(*address).copied().unwrap_or(0), expected, "{} named to {}", address, recipient);
                prop_assert_eq!(told_open.contains_key(*address), selected && open[check].is_some());
            }
        }
        for row in timeline.ledger() {
            prop_assert_eq!(row.state, Delivery::Sent);
        }
    }
}

/// What can happen in a history of everything that goes wrong.
#[derive(Clone, Debug)]
enum Trouble {
    Toggle(usize),
    /// What is open gets worse.
    Worsen(usize),
    /// A publisher's journal is read on by so much.
    Read(usize, usize),
    Medium(Medium),
    Wait(u64),
    Restart,
    Crash,
    /// A recipient leaves the configuration, or comes back.
    Reload,
    /// The whole state of a publisher that was read to its end.
    Snapshot(usize),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let medium = prop_oneof![
        3 => Just(Medium::Accepts), 2 => Just(Medium::Away), 1 => Just(Medium::Mute), 1 => Just(Medium::Refuses),
        1 => (1_usize..4).prop_map(Medium::Small), 1 => (1_usize..3).prop_map(Medium::SmallMute),
    ];
    prop_oneof![
        8 => (0_usize..3).prop_map(Trouble::Toggle),
        2 => (0_usize..3).prop_map(Trouble::Worsen),
        8 => (0_usize..2, 1_usize..6).prop_map(|(publisher, events)| Trouble::Read(publisher, events)),
        4 => medium.prop_map(Trouble::Medium),
        2 => (1_u64..40).prop_map(Trouble::Wait),
        1 => Just(Trouble::Restart),
        1 => Just(Trouble::Crash),
        1 => Just(Trouble::Reload),
        1 => (0_usize..2).prop_map(Trouble::Snapshot),
    ]
}

/// A notifier with two publishers that say the same, each at its own pace.
struct Troubled {
    timeline: Timeline,
    journal: Vec<Event>,
    read: [usize; 2],
    open: BTreeMap<usize, (u64, Severity)>,
    /// Somebody who is no longer configured.
    gone: BTreeMap<String, Who>,
}

impl Troubled {
    fn at(&self) -> u64 {
        self.timeline.at.as_secs()
    }

    fn rows(&self) -> Vec<DownRow> {
        let row = |(check, (since, severity)): (&usize, &(u64, Severity))| DownRow {
            severity: *severity,
            ..row(*since, CHECKS[*check])
        };
        self.open.iter().map(row).collect()
    }

    fn read(&mut self, publisher: usize, events: usize) {
        let from = self.read[publisher];
        self.read[publisher] = self.journal.len().min(from.saturating_add(events));
        for at in from..self.read[publisher] {
            let event = self.journal[at].clone();
            let publisher = self.timeline.publishers[publisher].clone();
            self.timeline.apply(Input::Event { publisher, event: Arc::new(event) });
        }
    }

    fn live(mut self, step: &Trouble) -> Self {
        match step {
            Trouble::Toggle(check) => {
                let next = self.at() + 1;
                self.timeline = self.timeline.until(next);
                let at = self.at();
                self.journal.push(match self.open.remove(check) {
                    Some((since, severity)) => up(at, CHECKS[*check], since, severity),
                    None => {
                        self.open.insert(*check, (at, Severity::Err));
                        down(at, CHECKS[*check], Severity::Err)
                    }
                });
            }
            Trouble::Worsen(check) => {
                if let Some((since, severity)) = self.open.get_mut(check).filter(|open| open.1 < Severity::Crit) {
                    *severity = Severity::Crit;
                    self.journal.push(worse(self.timeline.at.as_secs(), CHECKS[*check], *since));
                }
            }
            Trouble::Read(publisher, events) => {
                self.read(*publisher, *events);
                self.timeline = self.timeline.settle();
            }
            Trouble::Medium(medium) => self.timeline.medium = *medium,
            Trouble::Wait(secs) => {
                let until = self.at() + secs;
                self.timeline = self.timeline.until(until);
            }
            Trouble::Restart => self.timeline = self.timeline.restart(),
            Trouble::Crash => {
                self.timeline.crash();
                self.timeline = self.timeline.restart();
            }
            Trouble::Reload => {
                if self.gone.is_empty() {
                    self.gone.extend(self.timeline.recipients.remove_entry("err"));
                } else {
                    self.timeline.recipients.append(&mut self.gone);
                }
                self.timeline = self.timeline.reload(true);
            }
            Trouble::Snapshot(publisher) => {
                self.read[*publisher] = self.journal.len();
                let (publisher, open) = (self.timeline.publishers[*publisher].clone(), self.rows());
                self.timeline.apply(Input::Snapshot { publisher, open });
            }
        }
        self
    }

    /// Everything is read, the medium works, everybody is there, and what is open has been compared for long enough.
    fn rest(mut self) -> Timeline {
        self.timeline.recipients.append(&mut self.gone);
        self.timeline.medium = Medium::Accepts;
        self.timeline = self.timeline.reload(true);
        for publisher in 0..2 {
            self.read(publisher, usize::MAX);
        }
        for _ in 0..3 {
            let until = self.at() + 301;
            self.timeline = self.timeline.until(until);
            let open = self.rows();
            self.timeline.apply(Input::Compared { open });
        }
        self.timeline.settle()
    }
}

proptest! {
    /// DESIGN §7.5 with refusals, lagging publishers, lost journals, and a recipient who comes and goes: nobody is told of an end
    /// alone, and what nothing failed for is told once and is known at rest.
    #[test]
    fn whatever_goes_wrong_nobody_hears_an_end_alone(steps in proptest::collection::vec(trouble(), 1..60)) {
        let mut timeline = Timeline::new(&[("crit", Severity::Crit), ("err", Severity::Err)]);
        timeline.publishers.push("b".to_owned());
        let timeline = timeline.restart();
        let start = Troubled { timeline, journal: Vec::new(), read: [0; 2], open: BTreeMap::new(), gone: BTreeMap::new() };
        let troubled = steps.iter().fold(start, Troubled::live);
        let open = troubled.open.clone();
        let reloaded = steps.iter().any(|step| matches!(step, Trouble::Reload));
        let mut timeline = troubled.rest();
        let ledger = timeline.ledger();
        for (recipient, minimum) in [("crit", Severity::Crit), ("err", Severity::Err)] {
            for (check, address) in CHECKS.iter().enumerate().take(3) {
                let of = |row: &&LedgerRow| row.who == recipient && row.address.to_string() == *address;
                let flawless = ledger.iter().filter(of).all(|row| row.state == Delivery::Sent);
                let mut known: Option<(UnixMillis, Severity)> = None;
                for (_, story) in timeline.stories.iter().filter(|(who, story)| who == recipient && story.event.address.to_string() == *address) {
                    match story.mark {
                        Mark::Began => {
                            // A story of several outages is as bad as the worst of them, which may get as bad again.
                            let said = (story.event.since, story.event.severity);
                            let news = known.is_none_or(|known| known < said);
                            prop_assert!(news || !flawless, "{} is told of {} twice: {:?}", recipient, address, timeline.told);
                            known = Some(said);
                        }
                        Mark::Ended => prop_assert!(known.take().is_some(), "{} hears only the end of {}: {:?}", recipient, address, timeline.told),
                        Mark::Passed => prop_assert!(known.is_none() || !flawless, "{} passed for {}: {:?}", address, recipient, timeline.told),
                        Mark::Once => {}
                    }
                }
                // Where the end of what they were told was lost with a journal and the check is down again, it is still open for them.
                let wrong = match (known, open.get(&check)) {
                    (Some(_), None) => true,
                    (None, Some((_, severity))) => *severity >= minimum && !(reloaded && recipient == "err"),
                    (None, None) | (Some(_), Some(_)) => false,
                };
                prop_assert!(!wrong || !flawless, "{} knows {:?} of {} at rest: {:?}", recipient, known, address, timeline.told);
            }
        }
        prop_assert!(ledger.iter().all(|row| !matches!(row.state, Delivery::Waiting | Delivery::Sending)));
    }
}
