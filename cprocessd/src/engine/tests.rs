//! What the engine promises, as timelines: what happened, and what came of it.
//!
//! Between two happenings the time passes in half seconds: the live hosts give their sign of life and repeat their checks,
//! the engine is told when nothing waits. Weeks pass in milliseconds.

use super::settings::{Class, PartialTuning, Tuning};
use super::*;
use common::message::{Epoch, FeedSnapshotHost, Values};
use proptest::prelude::*;
use rule::Rule;
use std::collections::BTreeSet;

/// Second 0 of a timeline, so that dates are recognisable.
const ORIGIN: i64 = 1_000_000_000_000;
const FEED: &str = "/run/feed";

struct Timeline {
    engine: Engine,
    settings: Settings,
    now_ms: u64,
    live: BTreeSet<String>,
    beating: bool,
    /// The checks that their hosts repeat: address, up, changed.
    repeated: BTreeMap<String, (bool, i64)>,
    saved: Vec<Saved>,
    told: Vec<String>,
    drafts: Vec<Draft>,
    refused: Vec<&'static str>,
    seq: u64,
}

fn settings(rules: &[(&str, &str)]) -> Settings {
    Settings {
        own: "monitor!cprocessd:".parse().expect("address"),
        rules: rules
            .iter()
            .map(|(name, text)| Rule { name: (*name).into(), ..Rule::parse("", text).expect("rule") })
            .collect(),
        defaults: Tuning::default(),
        tunings: Vec::new(),
        classes: Vec::new(),
        max_addresses_per_host: 100,
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
        let engine = Engine::new(settings.clone(), &[FEED.to_owned()], Vec::new());
        Self {
            engine,
            settings,
            now_ms: 0,
            live: BTreeSet::new(),
            beating: true,
            repeated: BTreeMap::new(),
            saved: Vec::new(),
            told: Vec::new(),
            drafts: Vec::new(),
            refused: Vec::new(),
            seq: 0,
        }
    }

    fn apply(&mut self, input: Input) {
        let now = Now { monotonic: Duration::from_millis(self.now_ms), wall: wall(self.now_ms) };
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
                    self.told.push(format!("{at} {} {} {}{rule}{after}", draft.severity, draft.kind, draft.address));
                    self.drafts.push(draft);
                }
                Output::Save(saved) => {
                    self.saved.retain(|other| other.identity() != saved.identity());
                    self.saved.push(saved);
                }
                Output::Refused(reason) => self.refused.push(reason),
                Output::Forgotten(addresses) => self.told.push(format!("forgotten {}", addresses.join(" "))),
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
        for name in self.live.clone() {
            self.apply(Input::Alive { feed: FEED.into(), alive: self.alive_message(&name) });
        }
        for (address, (up, changed)) in self.repeated.clone() {
            let address: CheckAddress = address.parse().expect("address");
            if self.live.contains(address.host.as_str()) {
                self.apply(Input::Check(self.check_message(&address, up, changed, 0)));
            }
        }
    }

    fn alive_message(&self, name: &str) -> Alive {
        Alive {
            host: host(name),
            time: wall(self.now_ms),
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

    /// The host gives signs of life from now on.
    fn live(mut self, name: &str) -> Self {
        self.live.insert(name.into());
        self.apply(Input::Alive { feed: FEED.into(), alive: self.alive_message(name) });
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

    fn value(mut self, address: &str, value: f64) -> Self {
        let Address::Value(a) = address.parse().expect("address") else { panic!("{address} is no value") };
        let sample = Sample {
            host: a.host.clone(),
            from: a.host,
            service: a.service,
            time: wall(self.now_ms),
            interval_ms: 1000,
            resource: a.resource,
            unit: a.unit,
            values: Values(vec![(a.attribute, value)]),
            backfill: false,
        };
        self.apply(Input::Sample(sample));
        self
    }

    fn forget(mut self, pattern: &str, id: &str) -> Self {
        self.apply(Input::Forget { pattern: pattern.parse().expect("pattern"), id: id.into(), author: "ann".into() });
        self
    }

    /// The process dies and starts again at once with what was saved.
    fn restart(mut self) -> Self {
        self.engine = Engine::new(self.settings.clone(), &[FEED.to_owned()], self.saved.clone());
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

// Checks.

#[test]
fn the_first_sight_of_something_that_works_is_for_the_record_only() {
    up_and_running().at(3600).expect([]);
}

#[test]
fn the_first_sight_of_something_down_opens_an_incident() {
    Timeline::new()
        .live("web1")
        .at(1)
        .down("web1!port:www")
        .at(60)
        .expect(["0s DEBUG up web1!alive: [initial]", "1s ERR down web1!port:www"]);
}

#[test]
fn an_outage_is_told_once_and_its_end_with_its_length() {
    up_and_running()
        .at(10)
        .down("web1!port:www")
        .at(100)
        .up("web1!port:www")
        .at(200)
        .expect(["10s ERR down web1!port:www", "100s INFO up web1!port:www after 90s"]);
}

#[test]
fn the_topic_of_a_recovery_is_as_severe_as_its_outage_was() {
    let timeline = up_and_running().at(10).down("web1!port:www").at(20).up("web1!port:www");
    let (down, up) = (&timeline.drafts[2], &timeline.drafts[3]);
    assert_eq!((up.severity, up.top_severity), (Severity::Info, Severity::Err));
    assert_eq!((down.incident, down.since), (up.incident, up.since));
    assert_ne!(down.id, up.id);
}

#[test]
fn a_down_is_dated_by_its_observer() {
    let mut timeline = up_and_running().at(100);
    let mut message = timeline.check_message(&"web1!port:www".parse().expect("address"), false, wall(95_500).0, 0);
    message.time = wall(95_500);
    timeline.apply(Input::Check(message));
    timeline.expect(["95500ms ERR down web1!port:www"]);
}

#[test]
fn success_after_retries_is_one_blip_until_it_was_clean_for_ten_minutes() {
    up_and_running()
        .at(10)
        .retried("web1!port:www")
        .at(100)
        .retried("web1!port:www")
        .at(690)
        .retried("web1!port:www")
        .expect(["10s WARN blip web1!port:www [blip]"])
        .at(1290)
        .retried("web1!port:www")
        .expect(["1290s WARN blip web1!port:www [blip]"]);
}

#[test]
fn what_is_down_for_less_than_confirm_is_a_blip() {
    let three = PartialTuning { confirm: Some(3), ..PartialTuning::default() };
    let settings = Settings { tunings: vec![("web1!port".parse().expect("pattern"), three)], ..settings(&[]) };
    Timeline::with(settings)
        .live("web1")
        .up("web1!port:www")
        .expect(["0s DEBUG up web1!alive: [initial]", "0s DEBUG up web1!port:www [initial]"])
        .at(10)
        .down("web1!port:www")
        .at(11)
        .up("web1!port:www")
        .expect(["11s WARN blip web1!port:www [blip]"])
        .at(20)
        .down("web1!port:www")
        .at(30)
        .expect(["22s ERR down web1!port:www"])
        .up("web1!port:www")
        .expect(["30s INFO up web1!port:www after 10s"]);
}

#[test]
fn a_person_decides_how_bad_it_is() {
    let class = Class { pattern: "web*!port".parse().expect("pattern"), kind: None, severity: Severity::Crit };
    Timeline::with(Settings { classes: vec![class], ..settings(&[]) })
        .live("web1")
        .down("web1!port:www")
        .at(5)
        .up("web1!port:www")
        .expect([
            "0s DEBUG up web1!alive: [initial]",
            "0s CRIT down web1!port:www",
            "5s INFO up web1!port:www after 5s",
        ]);
}

#[test]
fn a_journaled_message_that_comes_twice_counts_once() {
    let mut timeline = up_and_running().at(10).down("web1!port:www");
    let old = Check {
        origin: Some(Origin { host: host("web1"), epoch: epoch(), seq: timeline.seq - 1 }),
        ..timeline.check_message(&"web1!port:www".parse().expect("address"), true, wall(0).0, 0)
    };
    timeline.apply(Input::Check(old));
    timeline.expect(["10s ERR down web1!port:www"]);
}

#[test]
fn a_configured_check_that_is_not_reported_is_unknown_and_said_so() {
    let timeline = up_and_running().watches("web1", &["web1!port:www"]).at(10).unreported("web1!port:www").at(60);
    assert_eq!(timeline.check_state("web1!port:www"), State::Unknown);
    timeline
        .expect(["13500ms WARN absent web1!port:www [silent]"])
        .up("web1!port:www")
        .expect(["60s INFO solved web1!port:www [silent] after 49s"]);
}

#[test]
fn a_configured_check_that_does_not_come_back_with_its_host_is_missed() {
    up_and_running()
        .watches("web1", &["web1!port:www"])
        .at(10)
        .unreported("web1!port:www")
        .silent("web1")
        .at(60)
        .live("web1")
        .at(120)
        .expect([
            "20500ms CRIT down web1!alive:",
            "60s INFO up web1!alive: after 50s",
            "63500ms WARN absent web1!port:www [silent]",
        ]);
}

#[test]
fn a_check_nobody_configured_is_forgotten_after_a_day_of_silence() {
    let timeline =
        up_and_running().down("web1!backup:db").expect(["0s ERR down web1!backup:db"]).unreported("web1!backup:db");
    let timeline = timeline.at(24 * 3600 - 10).expect([]);
    assert_eq!(timeline.check_state("web1!backup:db"), State::Unknown);
    let timeline = timeline.at(24 * 3600 + 10).expect(["86400500ms INFO retired web1!backup:db after 86400s"]);
    assert!(timeline.engine.service_list(None).iter().all(|row| row.unit.as_str() != "db"));
}

#[test]
fn a_check_that_leaves_the_configuration_is_retired_with_its_incident() {
    up_and_running()
        .watches("web1", &["web1!port:www"])
        .at(10)
        .down("web1!port:www")
        .at(20)
        .unreported("web1!port:www")
        .watches("web1", &[])
        .at(100)
        .expect(["10s ERR down web1!port:www", "20s INFO retired web1!port:www after 10s"]);
}

// Hosts.

#[test]
fn a_host_without_a_sign_of_life_is_down_with_one_event_and_its_checks_are_unknown() {
    let timeline = up_and_running()
        .up("web1!port:ssh")
        .expect(["0s DEBUG up web1!port:ssh [initial]"])
        .at(10)
        .silent("web1")
        .at(60);
    assert_eq!(timeline.state_of("web1"), State::Down);
    assert_eq!(timeline.check_state("web1!port:www"), State::Unknown);
    timeline
        .expect(["20500ms CRIT down web1!alive:"])
        .live("web1")
        .at(70)
        .expect(["60s INFO up web1!alive: after 50s"]);
}

#[test]
fn a_check_that_was_down_before_its_host_went_is_told_up_once_when_it_is() {
    up_and_running()
        .at(5)
        .down("web1!port:www")
        .at(10)
        .silent("web1")
        .at(60)
        .live("web1")
        .up("web1!port:www")
        .at(120)
        .expect([
            "5s ERR down web1!port:www",
            "20500ms CRIT down web1!alive:",
            "60s INFO up web1!alive: after 50s",
            "60s INFO up web1!port:www after 55s",
        ]);
}

#[test]
fn a_silent_feed_is_the_trouble_of_its_own_host_and_those_behind_it_are_unknown() {
    let timeline = up_and_running().live("db1").expect(["0s DEBUG up db1!alive: [initial]"]);
    let timeline = timeline.at(10).beats_stop().silent("web1").silent("db1").at(60);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    let mut timeline = timeline.expect(["20500ms CRIT down web1!alive:"]);
    timeline.beating = true;
    timeline.live("web1").live("db1").at(90).expect(["60s INFO up web1!alive: after 50s"]);
}

#[test]
fn a_host_behind_a_beating_feed_is_down_by_itself() {
    up_and_running()
        .live("db1")
        .expect(["0s DEBUG up db1!alive: [initial]"])
        .at(10)
        .silent("db1")
        .at(60)
        .expect(["20500ms CRIT down db1!alive:"]);
}

#[test]
fn a_goodbye_buys_five_minutes() {
    up_and_running()
        .at(10)
        .goodbye("web1")
        .at(200)
        .expect(["10s INFO stopped web1!alive:"])
        .live("web1")
        .expect(["200s INFO started web1!alive:"])
        .at(400)
        .expect([]);
}

#[test]
fn a_host_that_does_not_come_back_is_down_since_its_goodbye() {
    let timeline = up_and_running().at(10).goodbye("web1").at(1000);
    assert_eq!(timeline.drafts.last().expect("event").since, wall(10_000));
    timeline.expect(["10s INFO stopped web1!alive:", "310500ms CRIT down web1!alive:"]);
}

#[test]
fn nobody_is_blamed_for_our_pause() {
    let timeline = up_and_running().at(10).paused_until(70);
    timeline.at(71).expect([]).at(200).expect([]);
}

#[test]
fn nobody_is_blamed_for_our_restart() {
    up_and_running().at(10).paused_until(3600).restart().at(3700).expect([]);
}

#[test]
fn after_our_pause_a_host_that_stays_silent_is_still_found() {
    up_and_running().at(10).silent("web1").at(15).paused_until(75).at(90).expect(["81s CRIT down web1!alive:"]);
}

#[test]
fn a_host_that_a_snapshot_names_is_up_with_its_first_sign_of_life() {
    let mut timeline = Timeline::new();
    let row = FeedSnapshotHost { host: host("web1"), via: Vec::new(), inventory: Vec::new(), hash: String::new() };
    let snapshot = FeedSnapshot { epoch: epoch(), seq: 0, hosts: vec![row], checks: Vec::new() };
    timeline.apply(Input::Snapshot { feed: FEED.into(), snapshot });
    timeline.expect([]).live("web1").at(5).expect(["0s DEBUG up web1!alive: [initial]"]);
}

// Restart.

#[test]
fn an_outage_goes_on_across_a_restart_with_its_first_date() {
    up_and_running()
        .at(10)
        .down("web1!port:www")
        .expect(["10s ERR down web1!port:www"])
        .restart()
        .at(50)
        .restart()
        .at(100)
        .expect([])
        .up("web1!port:www")
        .expect(["100s INFO up web1!port:www after 90s"]);
}

#[test]
fn a_host_that_was_down_stays_down_across_a_restart_and_is_told_up_once() {
    up_and_running()
        .at(10)
        .silent("web1")
        .at(60)
        .expect(["20500ms CRIT down web1!alive:"])
        .restart()
        .at(120)
        .expect([])
        .live("web1")
        .at(130)
        .expect(["120s INFO up web1!alive: after 110s"]);
}

// Alarms.

const DISK: &str = "web1!machine.disk:/.used_percentage";

fn disk_rule(text: &str) -> Timeline {
    Timeline::with(settings(&[("disk", text)])).live("web1").expect(["0s DEBUG up web1!alive: [initial]"])
}

#[test]
fn an_alarm_opens_at_its_limit_and_is_solved_at_its_clear() {
    disk_rule("*!machine.disk:*.used_percentage > 90 clear 80 ERR")
        .value(DISK, 90.0)
        .at(1)
        .value(DISK, 91.0)
        .at(2)
        .value(DISK, 89.0)
        .at(3)
        .value(DISK, 92.0)
        .at(4)
        .value(DISK, 80.0)
        .expect([
            "1s ERR alarm web1!machine.disk:/.used_percentage [disk]",
            "4s INFO solved web1!machine.disk:/.used_percentage [disk] after 3s",
        ]);
}

#[test]
fn an_alarm_with_for_waits_in_the_observers_time() {
    disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR")
        .value(DISK, 95.0)
        .at(9)
        .value(DISK, 95.0)
        .expect([])
        .at(10)
        .value(DISK, 95.0)
        .expect(["10s ERR alarm web1!machine.disk:/.used_percentage [disk]"])
        .at(11)
        .value(DISK, 5.0)
        .expect(["11s INFO solved web1!machine.disk:/.used_percentage [disk] after 11s"]);
}

#[test]
fn a_number_that_recovers_in_time_raises_nothing() {
    disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR")
        .value(DISK, 95.0)
        .at(9)
        .value(DISK, 5.0)
        .at(10)
        .value(DISK, 95.0)
        .at(19)
        .value(DISK, 95.0)
        .expect([]);
}

#[test]
fn an_alarm_keeps_its_first_date_across_a_restart_pending_or_open() {
    disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR")
        .value(DISK, 95.0)
        .at(5)
        .restart()
        .at(10)
        .value(DISK, 95.0)
        .expect(["10s ERR alarm web1!machine.disk:/.used_percentage [disk]"])
        .restart()
        .value(DISK, 95.0)
        .at(20)
        .value(DISK, 1.0)
        .expect(["20s INFO solved web1!machine.disk:/.used_percentage [disk] after 20s"]);
}

#[test]
fn an_alarm_whose_rule_is_gone_is_retired() {
    let mut timeline = disk_rule("*!machine.disk:*.used_percentage > 90 ERR").value(DISK, 95.0);
    let now = Now { monotonic: Duration::ZERO, wall: wall(0) };
    let outputs = timeline.engine.reconfigure(now, settings(&[]));
    timeline.take(outputs);
    timeline.value(DISK, 99.0).expect([
        "0s ERR alarm web1!machine.disk:/.used_percentage [disk]",
        "0s INFO retired web1!machine.disk:/.used_percentage [disk] after 0s",
    ]);
}

#[test]
fn numbers_that_are_none_are_refused_and_the_last_value_stays() {
    let timeline = disk_rule("*!machine.disk:*.used_percentage > 90 ERR")
        .value(DISK, 5.0)
        .value(DISK, f64::NAN)
        .value(DISK, f64::INFINITY);
    assert_eq!(timeline.refused, ["not_finite", "not_finite"]);
    let rows = timeline.engine.last_value(&"*!machine.disk".parse().expect("pattern"));
    assert_eq!(rows.iter().map(|row| row.value).collect::<Vec<_>>(), [5.0]);
}

#[test]
fn a_value_is_stale_after_three_intervals() {
    let stale = |t: &Timeline| t.engine.last_value(&"*".parse().expect("pattern"))[0].stale;
    let timeline = Timeline::new().live("web1").value(DISK, 1.0).at(3);
    assert!(!stale(&timeline));
    assert!(stale(&timeline.at(4)));
}

#[test]
fn absence_of_a_number_or_a_check_is_an_alarm_of_its_own() {
    Timeline::with(settings(&[
        ("no backup", "*!backup absent for 1h ERR"),
        ("no disk", "*!machine.disk absent for 60s WARN"),
    ]))
    .live("web1")
    .expect(["0s DEBUG up web1!alive: [initial]"])
    .up("web1!backup:db")
    .expect(["0s DEBUG up web1!backup:db [initial]"])
    .value(DISK, 5.0)
    .unreported("web1!backup:db")
    .at(4000)
    .expect([
        "60500ms WARN absent web1!machine.disk:/.used_percentage [no disk]",
        "3600500ms ERR absent web1!backup:db [no backup]",
    ])
    .value(DISK, 5.0)
    .up("web1!backup:db")
    .expect([
        "4000s INFO solved web1!machine.disk:/.used_percentage [no disk] after 3999s",
        "4000s INFO solved web1!backup:db [no backup] after 3999s",
    ]);
}

#[test]
fn what_a_rule_expects_by_name_may_be_absent_from_the_start() {
    Timeline::with(settings(&[("no backup", "web1!backup:db absent for 1h ERR")]))
        .live("web1")
        .expect(["0s DEBUG up web1!alive: [initial]"])
        .at(4000)
        .expect(["3602500ms ERR absent web1!backup:db [no backup]"])
        .up("web1!backup:db")
        .expect([
            "4000s INFO solved web1!backup:db [no backup] after 3997s",
            "4000s DEBUG up web1!backup:db [initial]",
        ]);
}

#[test]
fn one_host_cannot_fill_our_memory() {
    let mut timeline = Timeline::new().live("web1");
    for i in 0..150 {
        timeline = timeline.value(&format!("web1!app.queue:q{i}.length"), 1.0).up(&format!("web1!app:q{i}"));
    }
    assert!(timeline.refused.iter().all(|reason| *reason == "too_many_addresses"));
    assert_eq!(timeline.refused.len(), 200);
    let rows =
        timeline.engine.last_value(&"*".parse().expect("pattern")).len() + timeline.engine.service_list(None).len();
    assert_eq!(rows, 100);
}

// People.

#[test]
fn what_a_person_forgets_is_closed_and_the_same_order_twice_is_one_order() {
    let timeline =
        up_and_running().down("web1!backup:db").unreported("web1!backup:db").at(10).forget("web1!backup", "o1");
    let timeline = timeline.expect([
        "0s ERR down web1!backup:db",
        "10s INFO retired web1!backup:db after 10s",
        "10s INFO order monitor!cprocessd: [order]",
        "forgotten web1!backup:db",
    ]);
    timeline.restart().forget("web1!backup", "o1").expect(["forgotten web1!backup:db"]);
}

#[test]
fn a_host_that_is_gone_for_good_can_be_forgotten() {
    let timeline = up_and_running().at(10).silent("web1").at(60).forget("web1", "o1");
    assert!(timeline.engine.server_list().is_empty() && timeline.engine.down_list().is_empty());
    assert!(timeline.restart().at(200).engine.server_list().is_empty());
}

// Promises that hold for every history.

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Up(u8),
    Down(u8),
    Retried(u8),
    Value(f64),
    Silent,
    Live,
    Goodbye,
    Restart,
    Pause,
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3u8).prop_map(Step::Up),
        (0..3u8).prop_map(Step::Down),
        (0..3u8).prop_map(Step::Retried),
        (0.0..100.0).prop_map(Step::Value),
        Just(Step::Silent),
        Just(Step::Live),
        Just(Step::Goodbye),
        Just(Step::Restart),
        Just(Step::Pause),
        (1..30u8).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

fn history(steps: &[Step], restarts: bool) -> Timeline {
    let mut timeline = Timeline::with(settings(&[("disk", "*!machine.disk > 50 for 5s clear 40 WARN")])).live("web1");
    for step in steps {
        // Two outages of one check within a millisecond would be one outage to every id.
        let secs = timeline.now_ms / 1000 + 1;
        timeline = timeline.at(secs);
        timeline = match step {
            Step::Up(n) => timeline.up(&format!("web1!port:p{n}")),
            Step::Down(n) => timeline.down(&format!("web1!port:p{n}")),
            Step::Retried(n) => timeline.retried(&format!("web1!port:p{n}")),
            Step::Value(value) => timeline.value(DISK, *value),
            Step::Silent => timeline.silent("web1"),
            Step::Live => timeline.live("web1"),
            Step::Goodbye => timeline.goodbye("web1"),
            Step::Restart if restarts => timeline.restart(),
            Step::Restart => timeline,
            Step::Pause => timeline.paused_until(secs + 60),
            Step::Wait(n) => timeline.at(secs + u64::from(*n)),
        };
    }
    timeline
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whoever heard of a beginning hears of the end, nobody hears of an end alone, and what is open is what was begun.
    #[test]
    fn beginnings_and_ends_alternate(steps in steps()) {
        let timeline = history(&steps, true);
        let mut open = BTreeMap::new();
        for draft in &timeline.drafts {
            let key = (draft.address.to_string(), draft.rule.clone());
            match draft.kind {
                Kind::Down | Kind::Alarm | Kind::Absent => {
                    prop_assert!(open.insert(key, draft.incident).is_none(), "opened twice: {draft:?}");
                }
                Kind::Solved | Kind::Retired => prop_assert_eq!(open.remove(&key), Some(draft.incident)),
                Kind::Up if draft.duration_ms.is_some() => prop_assert_eq!(open.remove(&key), Some(draft.incident)),
                _ => {}
            }
        }
        let listed: Vec<_> = timeline.engine.down_list().into_iter().map(|row| ((row.address.to_string(), row.rule), row.incident)).collect();
        prop_assert_eq!(open, listed.into_iter().collect::<BTreeMap<_, _>>());
    }

    /// No id is used twice, and equal input makes equal ids.
    #[test]
    fn ids_are_unique_and_reproducible(steps in steps()) {
        let (one, other) = (history(&steps, true), history(&steps, true));
        prop_assert_eq!(&one.drafts, &other.drafts);
        let mut ids = BTreeSet::new();
        for draft in &one.drafts {
            prop_assert!(ids.insert(draft.id), "{draft:?}");
        }
    }

    /// What a restart forgets is nothing that anyone is told of.
    #[test]
    fn a_restart_changes_no_incident_of_a_check(steps in steps()) {
        // Liveness, staleness and alarms depend on when we looked; what was observed up and down does not.
        let checks = |timeline: &Timeline| -> Vec<Draft> {
            let observed = |d: &&Draft| matches!(d.kind, Kind::Down | Kind::Up) && d.address.service().as_str() == "port";
            timeline.drafts.iter().filter(observed).cloned().collect()
        };
        prop_assert_eq!(checks(&history(&steps, true)), checks(&history(&steps, false)));
    }
}
