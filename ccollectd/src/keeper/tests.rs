//! Timelines: what happened at which second, and what came of it.

use super::*;
use common::message::Values;
use common::severity::Severity;

/// The wall clock at second 0.
const EPOCH: i64 = 1_795_236_000_000;

struct Timeline {
    keeper: Keeper,
    limits: Limits,
    zero: Instant,
    outcome: Vec<String>,
    rows: BTreeMap<(Name, Unit), Row>,
    inventory: Option<String>,
}

impl Timeline {
    fn new() -> Self {
        Self::with(Limits { forget_after: None, max_units: 10 })
    }

    fn with(limits: Limits) -> Self {
        let zero = Instant::now();
        let now = Now { monotonic: zero, wall: UnixMillis(EPOCH) };
        Self {
            keeper: Keeper::restore(now, host(), limits.clone(), Vec::new(), None),
            limits,
            zero,
            outcome: Vec::new(),
            rows: BTreeMap::new(),
            inventory: None,
        }
    }

    fn now(&self, ms: u64) -> Now {
        Now { monotonic: self.zero + Duration::from_millis(ms), wall: wall(ms) }
    }

    fn input(mut self, ms: u64, input: Input) -> Self {
        let now = self.now(ms);
        for output in self.keeper.apply(now, input) {
            self.outcome.push(format!("{} {}", secs(now.wall), told(&output)));
            self.remember(&output);
        }
        self
    }

    fn remember(&mut self, output: &Output) {
        match output {
            Output::Changed(_, row) | Output::Saved(row) => {
                self.rows.insert((row.service.clone(), row.unit.clone()), (**row).clone());
            }
            Output::Dropped(address) => {
                self.rows.remove(&(address.service.clone(), address.unit.clone()));
            }
            Output::Watched(alive) => self.inventory = Some(alive.inventory.clone()),
            Output::Number(_) | Output::Repeated(_) | Output::Happened(_) | Output::Refused(_) => {}
        }
    }

    fn configured(self, at: u64, names: &[&str]) -> Self {
        let addresses =
            names.iter().map(|name| CheckAddress { host: host(), service: word("port"), unit: unit(name) }).collect();
        self.input(at * 1000, Input::Configured(addresses))
    }

    fn observed(self, at: u64, name: &str, up: bool, retries: u32) -> Self {
        self.input(
            at * 1000,
            Input::Observed(Observed {
                service: word("port"),
                unit: unit(name),
                time: wall(at * 1000),
                interval: Duration::from_secs(1),
                up,
                retries,
                text: String::new(),
            }),
        )
    }

    fn up(self, at: u64, name: &str) -> Self {
        self.observed(at, name, true, 0)
    }

    fn down(self, at: u64, name: &str) -> Self {
        self.observed(at, name, false, 1)
    }

    /// A plugin's report about `app:UNIT`.
    fn says(self, at: u64, unit_name: &str, ttl: Option<u64>, said: Said) -> Self {
        self.input(
            at * 1000,
            Input::Reported(Report {
                service: word("app"),
                unit: unit(unit_name),
                time: wall(at * 1000),
                ttl: ttl.map(Duration::from_secs),
                said,
            }),
        )
    }

    /// Ticks five times a second.
    fn ticks(mut self, from: u64, to: u64) -> Self {
        for nth in from * 5..=to * 5 {
            self = self.input(nth * 200, Input::Tick);
        }
        self
    }

    /// The process ends and begins again; only what was saved is left.
    fn restart(mut self, at: u64) -> Self {
        let rows = self.rows.values().cloned().collect();
        self.keeper = Keeper::restore(self.now(at * 1000), host(), self.limits.clone(), rows, self.inventory.clone());
        self
    }

    /// What happened so far is not what the test is about.
    fn skip(mut self) -> Self {
        self.outcome.clear();
        self
    }

    #[track_caller]
    fn expect<const N: usize>(mut self, expected: [&str; N]) -> Self {
        assert_eq!(self.outcome, expected);
        self.outcome.clear();
        self
    }
}

fn host() -> HostName {
    "h".parse().expect("a host")
}

fn word(text: &str) -> Name {
    text.parse().expect("a name")
}

fn unit(text: &str) -> Unit {
    text.parse().expect("a unit")
}

fn wall(ms: u64) -> UnixMillis {
    UnixMillis(EPOCH + i64::try_from(ms).expect("a short test"))
}

fn secs(time: UnixMillis) -> String {
    let ms = time.0 - EPOCH;
    if ms % 1000 == 0 { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

fn state(check: &Check) -> String {
    let word = if check.up { "up" } else { "down" };
    let retries = if check.retries > 0 { format!(" retries {}", check.retries) } else { String::new() };
    let text = if check.text.is_empty() { String::new() } else { format!(", {}", check.text) };
    format!("{}:{} {word} since {}{retries}{text}", check.service, check.unit, secs(check.changed))
}

fn told(output: &Output) -> String {
    match output {
        Output::Number(sample) => format!("number {}.{}:{}", sample.service, sample.resource, sample.unit),
        Output::Repeated(check) => format!("repeat {}", state(check)),
        Output::Changed(check, row) => {
            assert_eq!((check.up, check.changed), (row.up, row.changed), "the row is the state");
            format!("journal {}", state(check))
        }
        Output::Happened(event) => format!("journal event {}:{} {}", event.service, event.unit, event.text),
        Output::Watched(alive) => format!("journal {} watched", alive.addresses.as_ref().map_or(0, Vec::len)),
        Output::Saved(row) => format!("save {}:{}", row.service, row.unit),
        Output::Dropped(address) => format!("drop {}:{}", address.service, address.unit),
        Output::Refused(reason) => format!("refuse {reason}"),
    }
}

fn is_up() -> Said {
    Said::Up { text: String::new() }
}

fn is_down() -> Said {
    Said::Down { text: String::new() }
}

fn blip() -> Said {
    Said::Blip { text: String::new() }
}

fn value() -> Said {
    Said::Value { resource: word("jobs"), values: Values(vec![(word("done"), 1.0)]) }
}

fn event() -> Said {
    Said::Event { severity: Severity::Warn, text: "hm".to_owned(), data: None }
}

#[test]
fn the_first_observation_is_news_and_its_repetition_is_not() {
    Timeline::new().configured(0, &["www"]).skip().up(1, "www").up(2, "www").up(3, "www").expect([
        "1s journal port:www up since 1s",
        "2s repeat port:www up since 1s",
        "3s repeat port:www up since 1s",
    ]);
}

#[test]
fn a_change_is_news_and_dates_the_state() {
    Timeline::new().configured(0, &["www"]).up(1, "www").skip().down(2, "www").down(3, "www").up(9, "www").expect([
        "2s journal port:www down since 2s retries 1",
        "3s repeat port:www down since 2s retries 1",
        "9s journal port:www up since 9s",
    ]);
}

#[test]
fn an_attempt_that_failed_before_one_that_did_not_is_news_but_no_change() {
    Timeline::new()
        .configured(0, &["www"])
        .up(1, "www")
        .skip()
        .observed(2, "www", true, 1)
        .up(3, "www")
        .expect(["2s journal port:www up since 1s retries 1", "3s repeat port:www up since 1s"]);
}

#[test]
fn an_outage_goes_on_across_a_restart_with_its_first_date() {
    Timeline::new()
        .configured(0, &["www", "irc"])
        .down(1, "www")
        .up(1, "irc")
        .restart(50)
        .skip()
        .configured(50, &["www", "irc"])
        .down(51, "www")
        .down(51, "irc")
        .expect(["51s repeat port:www down since 1s retries 1", "51s journal port:irc down since 51s retries 1"]);
}

#[test]
fn the_inventory_is_journaled_when_it_changes_and_only_then() {
    Timeline::new()
        .configured(0, &["www", "irc"])
        .configured(1, &["irc", "www"])
        .restart(2)
        .configured(2, &["www", "irc"])
        .configured(3, &["www"])
        .expect(["0s journal 2 watched", "3s journal 1 watched"]);
    Timeline::new().configured(0, &[]).expect(["0s journal 0 watched"]);
}

#[test]
fn a_check_that_is_no_longer_configured_is_dropped_and_a_late_probe_of_it_ignored() {
    Timeline::new()
        .configured(0, &["www", "irc"])
        .up(1, "www")
        .skip()
        .configured(2, &["irc"])
        .up(3, "www")
        .expect(["2s drop port:www", "2s journal 1 watched"]);
}

#[test]
fn a_saved_check_that_is_not_configured_after_a_restart_is_dropped() {
    Timeline::new()
        .configured(0, &["www"])
        .up(1, "www")
        .says(1, "a", None, is_up())
        .restart(2)
        .skip()
        .configured(2, &[])
        .expect(["2s drop port:www", "2s journal 0 watched"]);
}

#[test]
fn a_plugins_state_is_repeated_for_it() {
    Timeline::new().says(0, "a", None, is_down()).ticks(0, 21).expect([
        "0s journal app:a down since 0s",
        "10s repeat app:a down since 0s",
        "20s repeat app:a down since 0s",
    ]);
}

#[test]
fn a_plugins_state_is_repeated_across_a_restart() {
    Timeline::new()
        .says(0, "a", None, is_down())
        .says(0, "b", None, is_up())
        .skip()
        .restart(100)
        .ticks(100, 111)
        .expect(["105s repeat app:a down since 0s", "110s repeat app:b up since 0s"]);
}

#[test]
fn a_state_that_a_plugin_repeats_is_no_change() {
    Timeline::new().says(0, "a", None, is_up()).says(5, "a", None, is_up()).ticks(5, 16).expect([
        "0s journal app:a up since 0s",
        "5s repeat app:a up since 0s",
        "15s repeat app:a up since 0s",
    ]);
}

#[test]
fn a_blip_is_news_about_the_known_state() {
    Timeline::new().says(0, "a", None, blip()).says(1, "a", None, is_down()).says(2, "a", None, blip()).expect([
        "0s journal app:a up since 0s retries 1",
        "1s journal app:a down since 1s",
        "2s journal app:a down since 1s retries 1",
    ]);
}

#[test]
fn a_unit_that_is_not_heard_of_is_down_since_it_was_due() {
    Timeline::new()
        .says(0, "backup", Some(5), is_up())
        .ticks(0, 4)
        .skip()
        .input(5100, Input::Tick)
        .ticks(6, 9)
        .expect(["5100ms journal app:backup down since 5s, no report for 5.0s"]);
}

#[test]
fn a_unit_that_is_heard_of_in_time_stays_up() {
    Timeline::new()
        .says(0, "a", Some(3), is_up())
        .ticks(0, 2)
        .says(2, "a", None, value())
        .ticks(3, 4)
        .skip()
        .ticks(5, 6)
        .expect(["5s journal app:a down since 5s, no report for 3.0s"]);
}

#[test]
fn numbers_with_a_ttl_make_a_check() {
    Timeline::new()
        .says(0, "a", Some(20), value())
        .says(3, "a", Some(20), value())
        .ticks(3, 23)
        .says(24, "a", Some(20), value())
        .expect([
            "0s number app.jobs:a",
            "0s journal app:a up since 0s",
            "3s number app.jobs:a",
            "10s repeat app:a up since 0s",
            "20s repeat app:a up since 0s",
            "23s journal app:a down since 23s, no report for 20s",
            "24s number app.jobs:a",
            "24s journal app:a up since 24s, reports again",
        ]);
}

#[test]
fn numbers_and_events_without_a_ttl_make_none() {
    Timeline::new()
        .says(0, "a", None, value())
        .says(1, "a", None, event())
        .ticks(1, 30)
        .expect(["0s number app.jobs:a", "1s journal event app:a hm"]);
}

#[test]
fn an_event_with_a_ttl_is_a_heartbeat() {
    Timeline::new().says(0, "a", Some(2), event()).ticks(0, 2).expect([
        "0s journal event app:a hm",
        "0s journal app:a up since 0s",
        "2s journal app:a down since 2s, no report for 2.0s",
    ]);
}

#[test]
fn a_number_does_not_say_that_what_was_reported_down_is_up() {
    Timeline::new()
        .says(0, "a", Some(5), is_down())
        .says(1, "a", Some(5), value())
        .ticks(1, 6)
        .skip()
        .says(7, "a", Some(5), value())
        .ticks(7, 12)
        .expect([
            "7s number app.jobs:a",
            "11s repeat app:a down since 0s, reports again",
            "12s repeat app:a down since 0s, no report for 5.0s",
        ]);
}

#[test]
fn a_full_ttl_is_granted_after_a_restart() {
    Timeline::new()
        .says(0, "a", Some(5), is_up())
        .restart(100)
        .skip()
        .ticks(100, 104)
        .expect([])
        .ticks(105, 105)
        .expect(["105s journal app:a down since 105s, no report for 5.0s"]);
}

#[test]
fn an_overdue_unit_stays_down_across_a_restart_until_it_is_heard_of() {
    Timeline::new()
        .says(0, "a", Some(5), is_up())
        .ticks(0, 6)
        .restart(10)
        .skip()
        .ticks(10, 17)
        .says(18, "a", None, is_up())
        .expect(["15s repeat app:a down since 5s, no report for 5.0s", "18s journal app:a up since 18s"]);
}

#[test]
fn nobody_is_blamed_for_a_pause_of_ours() {
    Timeline::new()
        .says(0, "a", Some(5), is_up())
        .ticks(0, 4)
        .skip()
        // Suspended from 4 s to 60 s: one second was left.
        .input(60_000, Input::Tick)
        .input(60_800, Input::Tick)
        .expect(["60s repeat app:a up since 0s"])
        .input(61_000, Input::Tick)
        .expect(["61s journal app:a down since 61s, no report for 5.0s"]);
}

#[test]
fn a_short_ttl_is_repeated_each_second_at_most() {
    let report = |ms| {
        Input::Reported(Report {
            service: word("app"),
            unit: unit("a"),
            time: wall(ms),
            ttl: Some(Duration::from_millis(50)),
            said: is_up(),
        })
    };
    let timeline = Timeline::new().input(0, report(0)).input(40, Input::Tick).skip();
    let interval = timeline.keeper.checks().next().expect("a check").interval_ms;
    assert_eq!(interval, 1000);
    timeline.input(60, Input::Tick).expect(["60ms journal app:a down since 50ms, no report for 50ms"]);
}

#[test]
fn a_new_ttl_is_saved_and_replaces_the_old_one() {
    Timeline::new()
        .says(0, "a", Some(60), is_up())
        .skip()
        .says(1, "a", Some(3), is_up())
        .expect(["1s save app:a", "1s repeat app:a up since 0s"])
        .restart(2)
        .ticks(2, 5)
        .expect(["5s journal app:a down since 5s, no report for 3.0s"]);
}

#[test]
fn a_unit_is_forgotten_after_its_silence_where_that_is_configured() {
    let limits = Limits { forget_after: Some(Duration::from_secs(25)), max_units: 1 };
    Timeline::with(limits).says(0, "a", None, is_down()).ticks(0, 26).says(27, "b", None, is_up()).expect([
        "0s journal app:a down since 0s",
        "10s repeat app:a down since 0s",
        "20s repeat app:a down since 0s",
        "25s drop app:a",
        "27s journal app:b up since 27s",
    ]);
}

#[test]
fn silence_before_a_restart_counts_but_leaves_time_to_report() {
    let limits = Limits { forget_after: Some(Duration::from_hours(1)), max_units: 10 };
    let long_after_the_restart = |at: u64| {
        Timeline::with(limits.clone())
            .says(0, "a", None, is_down())
            .restart(5000)
            .input(at * 1000, Input::Tick)
            .keeper
            .checks()
            .count()
    };
    assert_eq!(long_after_the_restart(5001), 1);
    assert_eq!(long_after_the_restart(5599), 1);
    assert_eq!(long_after_the_restart(5600), 0);
}

#[test]
fn when_a_unit_was_heard_is_saved_now_and_then() {
    let limits = Limits { forget_after: Some(Duration::from_hours(1)), max_units: 10 };
    let mut timeline = Timeline::with(limits);
    for minute in 0..=2 {
        timeline = timeline.says(minute * 61, "a", None, is_up()).ticks(minute * 61, minute * 61 + 1);
    }
    timeline.expect([
        "0s journal app:a up since 0s",
        "61s repeat app:a up since 0s",
        "61s save app:a",
        "122s repeat app:a up since 0s",
        "122s save app:a",
    ]);
}

#[test]
fn forgetting_lasts_until_the_next_observation() {
    let pattern = |text: &str| Input::Forget(text.parse().expect("a pattern"));
    Timeline::new()
        .configured(0, &["www"])
        .up(1, "www")
        .says(1, "a", None, is_up())
        .says(1, "b", None, is_up())
        .skip()
        .input(2000, pattern("*!app:a"))
        .input(2000, pattern("other!*"))
        .input(3000, pattern("h!port"))
        .up(4, "www")
        .says(4, "a", None, is_up())
        .expect([
            "2s drop app:a",
            "3s drop port:www",
            "4s journal port:www up since 4s",
            "4s journal app:a up since 4s",
        ]);
}

#[test]
fn units_beyond_the_limit_are_refused_and_those_known_stay_known() {
    let limits = Limits { forget_after: None, max_units: 1 };
    Timeline::with(limits)
        .says(0, "a", None, is_up())
        .says(1, "b", None, is_down())
        .says(2, "b", Some(1), value())
        .says(3, "a", None, is_down())
        .expect([
            "0s journal app:a up since 0s",
            "1s refuse too_many_units",
            "2s number app.jobs:b",
            "2s refuse too_many_units",
            "3s journal app:a down since 3s",
        ]);
}

#[test]
fn a_snapshot_shows_each_state_once_and_no_retries() {
    let timeline = Timeline::new().configured(0, &["www"]).observed(1, "www", true, 1).says(2, "a", None, blip());
    let states: Vec<_> = timeline.keeper.checks().map(|check| state(&check)).collect();
    assert_eq!(states, ["app:a up since 2s", "port:www up since 1s"]);
    let host = timeline.keeper.snapshot_host();
    assert_eq!(host.inventory.len(), 1);
    assert_eq!(host.hash, timeline.keeper.alive(timeline.now(3000)).inventory);
}

#[test]
fn the_hash_is_the_same_on_every_machine() {
    let www: CheckAddress = "web1!port:www".parse().expect("an address");
    let irc: CheckAddress = "web1!port:irc".parse().expect("an address");
    assert_eq!(hash(&BTreeSet::from([www.clone(), irc.clone()])), "f42c07a42bce528a");
    assert_ne!(hash(&BTreeSet::from([www])), hash(&BTreeSet::from([irc])));
}
