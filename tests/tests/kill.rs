//! SIGKILL at random moments while faults come and go: nothing is lost, nothing is told twice.
//!
//! `tests/run` does 20 kills of each, `tests/long` 200 (`CAIRN_KILLS`). A failure prints the seed of its moments, which
//! `CAIRN_SEED` repeats.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::{Moments, PATIENCE, Plugin, Process, Suite, Target, wait_at_most, wait_for};

fn kills() -> u32 {
    std::env::var("CAIRN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

fn unix_ms() -> i64 {
    common::time::UnixMillis::now().0
}

/// What was done to each unit, in order: its state and when.
type History = BTreeMap<String, Vec<(String, i64)>>;

/// Faults that come and go, each on an address of its own, until `stop`.
fn inject(plugin: &mut Plugin, stop: &AtomicBool, moments: &mut Moments) -> History {
    let mut history = History::new();
    let mut fault = 0;
    // Unit by unit it was up, goes down, comes back.
    while !stop.load(Ordering::Relaxed) {
        fault += 1;
        let unit = format!("fault{fault}");
        for state in ["up", "down", "up"] {
            let time = unix_ms();
            plugin.state(state, &unit, time);
            history.entry(unit.clone()).or_default().push((state.to_owned(), time));
            moments.pause(1, 15);
        }
    }
    history
}

/// The changes of `drill:` units as a subscriber knows them: state and date, in the order it got them.
fn told(events: &[Value]) -> History {
    let mut history = History::new();
    for event in events.iter().filter(|event| event["service"] == "drill") {
        let state = event["kind"].as_str().expect("kind").to_owned();
        // A beginning is dated by `since`, an end by its own time.
        let date = if state == "down" { &event["since"] } else { &event["time"] };
        history
            .entry(event["unit"].as_str().expect("unit").to_owned())
            .or_default()
            .push((state, date.as_i64().expect("ms")));
    }
    history
}

#[track_caller]
fn assert_consecutive(events: &[Value]) {
    for (i, pair) in events.windows(2).enumerate() {
        let seq = |event: &Value| event["seq"].as_u64().expect("seq");
        assert_eq!(seq(&pair[1]), seq(&pair[0]) + 1, "after event {i}: {} {}", pair[0], pair[1]);
    }
    let mut ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().expect("id")).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an event came twice");
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // The last line may be in the middle of being written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

fn watch(suite: &Suite, file: &Path) -> Process {
    let mut command = suite.cctl_command(&["watch", "--from", "1", "--to", file.to_str().expect("utf-8")]);
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Runs `disturb` while faults are injected, and then compares what the subscriber wrote with what was done.
fn every_fault_arrives(disturb: impl FnOnce(&mut Suite, &mut Moments, &mut Process, &Path)) {
    let mut suite = Suite::running("", "default_rules = false\n");
    let file = suite.path("events.jsonl");
    let mut watcher = watch(&suite, &file);
    let stop = AtomicBool::new(false);
    let mut moments = Moments::from_environment();
    let mut plugin = Plugin::connect(&suite);
    let mut injector_moments = moments.fork();
    let history = std::thread::scope(|scope| {
        let injector = scope.spawn(|| inject(&mut plugin, &stop, &mut injector_moments));
        disturb(&mut suite, &mut moments, &mut watcher, &file);
        stop.store(true, Ordering::Relaxed);
        injector.join().expect("injected")
    });
    let faults = history.len();
    let last = history
        .keys()
        .max_by_key(|unit| unit.len() * 1_000_000 + unit[5..].parse::<usize>().expect("number"))
        .expect("a fault")
        .clone();
    wait_for("the last fault is told", || (told(&lines(&file)).get(&last)?.len() == 3).then_some(()));
    let events = lines(&file);
    assert_consecutive(&events);
    let got = told(&events);
    assert_eq!(got.len(), faults);
    for (unit, done) in &history {
        assert_eq!(&got[unit], done, "{unit}");
    }
    assert!(faults >= 20, "only {faults} faults");
    eprintln!("{faults} faults, {} events, none lost, none twice", events.len());
}

#[test]
fn killing_cprocessd_loses_no_fault_and_tells_none_twice() {
    every_fault_arrives(|suite, moments, _, _| {
        for _ in 0..kills() {
            moments.pause(10, 400);
            suite.kill("cprocessd");
            moments.pause(1, 100);
            suite.start("cprocessd");
            // Some are killed while they start, most while they work.
            if moments.below(4) > 0 {
                wait_for("cprocessd answers", || suite.query(r#"{"query":"server-list"}"#));
            }
        }
        wait_for("cprocessd answers", || suite.query(r#"{"query":"server-list"}"#));
    });
}

#[test]
fn killing_the_subscriber_loses_no_event_and_takes_none_twice() {
    every_fault_arrives(|suite, moments, watcher, file| {
        for _ in 0..kills() {
            moments.pause(10, 400);
            watcher.kill();
            moments.pause(1, 100);
            *watcher = watch(suite, file);
        }
    });
}

#[test]
fn killing_ccollectd_loses_no_fault_that_outlasts_it_and_nothing_it_had_journaled() {
    let mut targets: Vec<Target> = (0..5).map(|_| Target::new()).collect();
    let ports: Vec<String> = targets
        .iter()
        .enumerate()
        .map(|(i, target)| {
            format!(
                "[[port]]\nname = \"t{i}\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\nattempts = 1\n",
                target.port
            )
        })
        .collect();
    // Each outage is to be told by itself.
    let judging = "default_rules = false\n[judging]\nhost_down_after = \"60s\"\nflap_changes = 100\n";
    let mut suite = Suite::running(&ports.concat(), judging);
    wait_for("all ports are up", || (suite.query(r#"{"query":"service-list"}"#)?.as_array()?.len() == 5).then_some(()));
    let mut moments = Moments::from_environment();
    let mut plugin = Plugin::connect(&suite);
    let stop = AtomicBool::new(false);
    let mut injector_moments = moments.fork();
    let mut outages: BTreeMap<String, u32> = BTreeMap::new();
    let pushed = std::thread::scope(|scope| {
        let injector = scope.spawn(|| inject(&mut plugin, &stop, &mut injector_moments));
        for round in 0..kills() {
            let i = round as usize % targets.len();
            moments.pause(1, 300);
            targets[i].down();
            *outages.entry(format!("t{i}")).or_default() += 1;
            moments.pause(1, 300);
            suite.kill("ccollectd");
            moments.pause(1, 100);
            suite.start("ccollectd");
            // It outlasts the restart: the port is seen down before it comes back.
            let seen = Instant::now();
            wait_at_most(PATIENCE, "the port is seen down", || port_state(&suite, i, "down"));
            assert!(seen.elapsed() < PATIENCE);
            targets[i].up();
            wait_for("the port is seen up", || port_state(&suite, i, "up"));
        }
        stop.store(true, Ordering::Relaxed);
        injector.join().expect("injected")
    });
    // What it had read is in its journal; the rest lay in its socket when it died.
    let journaled = wait_for("what was journaled was judged", || {
        let changes = drill_changes(&suite.journal("feed-query"));
        let last = changes.values().flatten().count();
        (told(&suite.events()).values().flatten().count() == last).then_some(changes)
    });
    let events = suite.events();
    assert_consecutive(&events);
    assert_eq!(told(&events), journaled);
    for (unit, changes) in &journaled {
        // In order, and with the dates they were pushed with.
        let mut done = pushed[unit].iter();
        assert!(
            changes.iter().all(|change| done.any(|other| other == change)),
            "{unit}: {changes:?} of {:?}",
            pushed[unit]
        );
    }
    for (unit, outages) in outages {
        let count = |kind: &str| {
            events
                .iter()
                .filter(|e| {
                    e["kind"] == kind && e["service"] == "port" && e["unit"] == unit.as_str() && e["rule"] == "check"
                })
                .count()
        };
        assert_eq!((count("down"), count("up")), (outages as usize, outages as usize), "{unit}");
    }
    let (all, kept) = (pushed.values().flatten().count(), journaled.values().flatten().count());
    eprintln!("{kept} of {all} reports were journaled and told; {} lay unread in the socket at a kill", all - kept);
}

fn port_state(suite: &Suite, i: usize, state: &str) -> Option<()> {
    let rows = suite.query(r#"{"query":"service-list"}"#)?;
    let row = rows.as_array()?.iter().find(|row| row["unit"] == format!("t{i}").as_str())?.clone();
    (row["state"] == state).then_some(())
}

/// The changes in ccollectd's journal, as [`told`] shows those of cprocessd.
fn drill_changes(journal: &[Value]) -> History {
    let mut history = History::new();
    for check in journal.iter().filter(|entry| entry["service"] == "drill") {
        let state = if check["up"] == true { "up" } else { "down" };
        history
            .entry(check["unit"].as_str().expect("unit").to_owned())
            .or_default()
            .push((state.to_owned(), check["changed"].as_i64().expect("ms")));
    }
    history
}

#[test]
fn an_outage_keeps_its_first_date_through_kills_of_everything() {
    let mut target = Target::new();
    let port = format!(
        "[[port]]\nname = \"www\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\nattempts = 1\n",
        target.port
    );
    let mut suite = Suite::running(&port, "default_rules = false\n");
    wait_for("the port is up", || (suite.query(r#"{"query":"service-list"}"#)?[0]["state"] == "up").then_some(()));
    target.down();
    let down = suite.wait_for_event("down", "port:www");
    for daemon in ["ccollectd", "cprocessd", "ccollectd"] {
        suite.kill(daemon);
        suite.start(daemon);
        wait_for("the incident is still open", || {
            let rows = suite.query(r#"{"query":"down-list"}"#)?;
            (rows[0]["since"] == down["since"] && rows[0]["incident"] == down["incident"]).then_some(())
        });
    }
    target.up();
    let outage = wait_for("the outage is over", || {
        let events = suite.events().into_iter();
        let outage: Vec<Value> = events.filter(|e| e["address"] == down["address"] && e["rule"] == "check").collect();
        (outage.last()?["kind"] == "up").then_some(outage)
    });
    assert_eq!(outage.len(), 2, "{outage:?}");
    assert_eq!((&outage[1]["since"], &outage[1]["incident"]), (&down["since"], &down["incident"]));
}

#[test]
fn nobody_is_blamed_while_cprocessd_stands_still() {
    let stopped =
        Duration::from_secs(std::env::var("CAIRN_STOPPED_SECS").ok().and_then(|n| n.parse().ok()).unwrap_or(15));
    let mut suite = Suite::running("", "default_rules = false\n[judging]\nhost_down_after = \"3s\"\n");
    suite.daemon("cprocessd").signal(nix::sys::signal::Signal::SIGSTOP);
    // Not a wait for a condition: the pause itself is what is tested, and it is five times what would make a host down.
    std::thread::sleep(stopped);
    suite.daemon("cprocessd").signal(nix::sys::signal::Signal::SIGCONT);
    let health = wait_for("cprocessd noticed its pause", || {
        let health = suite.ask("cprocessd.sock", r#"{"query":"health"}"#)?;
        health["counters"]["engine.pauses"].as_u64().map(|_| health)
    });
    // Long enough for a host to be called down if it were to be.
    let uptime = health["uptime_secs"].as_u64().expect("secs");
    wait_for("five seconds later", || {
        (suite.ask("cprocessd.sock", r#"{"query":"health"}"#)?["uptime_secs"].as_u64()? > uptime + 5).then_some(())
    });
    let blamed: Vec<Value> = suite.events().into_iter().filter(|event| event["kind"] == "down").collect();
    assert!(blamed.is_empty(), "{blamed:?}");
}
