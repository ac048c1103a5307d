//! From a fault on this host to a line in a channel, through all of the chain. What the medium does with servers of all
//! kinds is in `cbotd/tests`.

use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use tests::irc::{KEYED, Line, Observer, Server};
use tests::{Moments, Plugin, Suite, Target, wait_at_most, wait_for};

/// One network and these channels, each with its least severity.
fn cbotd(server: &Server, channels: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[[network]]\nname = 'lab'\nserver = 'localhost'\nport = {}\ntls = false\nping_after = '5s'\nping_timeout = '5s'\n",
        server.port
    );
    for (name, severity) in channels {
        let _ = writeln!(text, "[[network.channel]]\nname = '{name}'\nseverity = '{severity}'");
        if *name == KEYED.0 {
            let _ = writeln!(text, "key = '{}'", KEYED.1);
        }
    }
    text
}

/// The chain, with cbotd in its channels.
fn running(server: &Server, ccollectd: &str, channels: &[(&str, &str)], observer: &Observer) -> Suite {
    let mut suite = Suite::running(ccollectd, "default_rules = false\n[judging]\nhost_down_after = '3s'\n");
    suite.configure("cbotd", &cbotd(server, channels));
    suite.start("cbotd");
    for (channel, _) in channels {
        observer.wait_for_any(&format!("cairn@127.0.0.1 JOIN {channel}"));
    }
    // Since when it follows the stream: what is before it is only told if it is still open.
    wait_for("cbotd answers", || suite.ask("cbotd.sock", r#"{"query":"health"}"#));
    suite
}

fn ago(seconds: i64) -> i64 {
    common::time::UnixMillis::now().0 - seconds * 1000
}

fn texts(lines: Vec<Line>) -> Vec<String> {
    lines.into_iter().map(|line| line.text).collect()
}

#[test]
fn a_fault_is_told_in_the_channels_that_want_it_and_so_is_its_end() {
    let server = Server::inspircd();
    let observer = Observer::join(server.port, "watcher", &[("#info", ""), ("#err", ""), ("#crit", "")]);
    let mut target = Target::new();
    let port = format!(
        "[[port]]\nname = \"www (http)\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\nattempts = 1\n",
        target.port
    );
    let channels = [("#info", "INFO"), ("#err", "ERR"), ("#crit", "CRIT")];
    let mut suite = running(&server, &port, &channels, &observer);
    wait_for("the port is up", || (suite.query(r#"{"query":"service-list"}"#)?[0]["state"] == "up").then_some(()));

    let died = target.down();
    for channel in ["#info", "#err"] {
        let line = observer.wait_for(channel, "DOWN");
        assert!(line.text.starts_with("\u{3}04[ DOWN ]\u{f} testhost!port:www (http): "), "{line:?}");
        eprintln!("a listener died, and {channel} knows it after {:?}", line.at - died);
    }
    target.up();
    for channel in ["#info", "#err"] {
        let line = observer.wait_for(channel, "[ UP ]");
        assert!(line.text.starts_with("\u{3}03[ UP ]\u{f} testhost!port:www (http) was down "), "{line:?}");
    }

    suite.kill("ccollectd");
    for channel in ["#info", "#err", "#crit"] {
        let line = observer.wait_for(channel, "CRIT testhost!alive: ");
        assert!(line.text.starts_with("\u{2}\u{3}04[ DOWN ]\u{f} "), "{line:?}");
    }
    suite.start("ccollectd");
    observer.wait_for("#crit", "[ UP ]");
    let crit = texts(observer.lines("#crit"));
    assert_eq!(crit.len(), 2, "{crit:#?}");
    let err = wait_for("#err has heard of it too", || {
        let err = texts(observer.lines("#err"));
        err.last().is_some_and(|line| line.contains("[ UP ]\u{f} testhost!alive:")).then_some(err)
    });
    assert_eq!(err.len(), 4, "{err:#?}");
}

#[test]
fn a_test_goes_the_way_that_everything_goes() {
    let server = Server::ngircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", ""), KEYED]);
    let suite = running(&server, "", &[("#ops", "CRIT"), (KEYED.0, "ERR")], &observer);
    let tested = suite.cctl(&["test-notify"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    for channel in ["#ops", KEYED.0] {
        observer.wait_for(channel, "[ TEST ] testhost!cbotd:");
    }
    let rows = suite.ask("cbotd.sock", r#"{"query":"ledger"}"#).expect("a ledger");
    let told: BTreeMap<&str, &str> = rows
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["who"].as_str().expect("who"), row["state"].as_str().expect("state")))
        .collect();
    assert_eq!(told, BTreeMap::from([("lab/#keyed", "sent"), ("lab/#ops", "sent")]));
}

#[test]
fn sixty_faults_at_once_are_all_named() {
    let server = Server::inspircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let suite = running(&server, "", &[("#ops", "ERR")], &observer);
    let mut plugin = Plugin::connect(&suite);
    for i in 0..60 {
        plugin.state("down", &format!("unit-{i}."), ago(0));
    }
    wait_at_most(tests::PATIENCE * 2, "all are named", || {
        let text = texts(observer.lines("#ops")).join("\n");
        (0..60).all(|i| text.contains(&format!("drill:unit-{i}."))).then_some(())
    });
    assert_eq!(observer.count("cairn@127.0.0.1 QUIT"), 0);
    // What they have in common is said once.
    observer.wait_for("#ops", "testhost (");
    assert!(observer.lines("#ops").len() < 20, "{:#?}", observer.lines("#ops"));
}

#[test]
fn what_happened_while_the_network_was_away_comes_in_one_message_with_its_age() {
    let mut server = Server::inspircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let suite = running(&server, "", &[("#ops", "ERR")], &observer);
    drop(observer);
    server.kill();
    let mut plugin = Plugin::connect(&suite);
    for i in 0..20 {
        plugin.state("down", &format!("unit-{i}."), ago(600));
    }
    for i in 0..5 {
        plugin.state("up", &format!("unit-{i}."), ago(300));
    }
    wait_for("all of it waits", || {
        let ups = suite.events().iter().filter(|event| event["kind"] == "up" && event["service"] == "drill").count();
        (suite.counter("cbotd", "outbox.waiting") >= 20 && ups == 5).then_some(())
    });
    server.start();
    let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let heading = observer.wait_for("#ops", "15 problems, 5 over in the last 10m ");
    observer.wait_for("#ops", "testhost (15): ");
    observer.wait_for("#ops", "drill:unit-19. (10m ");
    observer.wait_for("#ops", "drill:unit-4. (for 5m ");
    let lines = texts(observer.lines("#ops"));
    assert_eq!(lines[0], heading.text, "{lines:#?}");
    assert!(lines.len() <= 6, "{lines:#?}");
}

#[test]
fn text_from_outside_stays_in_its_line() {
    let server = Server::inspircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", ""), ("#other", "")]);
    let suite = running(&server, "", &[("#ops", "ERR"), ("#other", "CRIT")], &observer);
    let mut plugin = Plugin::connect(&suite);
    let hostile = "a\r\nPRIVMSG #other :b\r\nQUIT :c\u{0}\u{1}VERSION\u{1}\u{3}04";
    plugin.push(&json!({ "service": "drill", "msg_type": "event", "unit": "u\r\nPRIVMSG #other :x", "severity": "ERR", "text": hostile }));
    plugin.push(&json!({ "service": "drill", "msg_type": "event", "unit": "v", "severity": "ERR", "text": hostile }));
    let (unit, text) = (format!("\u{202e}x{}", "y".repeat(900)), format!("\u{2066}{}", "ü".repeat(500)));
    plugin.push(&json!({ "service": "drill", "msg_type": "event", "unit": unit, "severity": "ERR", "text": text }));
    let line = observer.wait_for("#ops", "drill:v");
    assert!(line.text.contains("PRIVMSG #other :b"), "{line:?}");
    plugin.push(&json!({ "service": "drill", "msg_type": "event", "unit": "w", "severity": "CRIT", "text": "end" }));
    observer.wait_for("#other", "drill:w");
    observer.wait_for("#ops", "yyyy");
    assert_eq!(observer.lines("#other").len(), 1, "{:#?}", observer.lines("#other"));
    assert_eq!(observer.count("cairn@127.0.0.1 QUIT"), 0);
    for line in observer.lines("#ops") {
        assert!(!line.text.contains(['\u{1}', '\r', '\u{202e}', '\u{2066}']), "{line:?}");
    }
}

#[test]
fn without_a_network_it_runs_and_tells_nobody() {
    let mut suite = Suite::new("", "");
    suite.configure("cbotd", "");
    suite.start("cbotd");
    wait_for("cbotd answers", || suite.ask("cbotd.sock", r#"{"query":"health"}"#));
    assert!(suite.log("cbotd").contains("nobody is configured"), "{}", suite.log("cbotd"));
    assert_eq!(suite.daemon("cbotd").terminate(), 0);
}

#[test]
fn a_new_channel_is_joined_when_the_configuration_is_read_again() {
    let server = Server::ngircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", ""), ("#new", "")]);
    let mut suite = running(&server, "", &[("#ops", "ERR")], &observer);
    suite.configure("cbotd", &cbotd(&server, &[("#ops", "ERR"), ("#new", "ERR")]));
    suite.daemon("cbotd").signal(Signal::SIGHUP);
    observer.wait_for_any("cairn@127.0.0.1 JOIN #new");
    assert!(suite.cctl(&["test-notify", "--who", "lab/#new"]).status.success());
    observer.wait_for("#new", "[ TEST ]");
}

#[test]
fn it_takes_leave_when_it_is_stopped() {
    for server in [Server::inspircd(), Server::ngircd()] {
        let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
        let mut suite = running(&server, "", &[("#ops", "ERR")], &observer);
        assert_eq!(suite.daemon("cbotd").terminate(), 0);
        observer.wait_for_any("cairn stops");
    }
}

/// Kills cbotd and the server at random moments while faults come. Each fault arrives, and at most one extra copy of it
/// for each kill.
#[test]
fn faults_arrive_whoever_is_killed_in_between() {
    const FAULTS: usize = 60;
    const KILLS: usize = 5;
    let mut moments = Moments::from_environment();
    let mut server = Server::inspircd();
    let mut observers = vec![Observer::join(server.port, "watcher", &[("#ops", "")])];
    let mut suite = running(&server, "", &[("#ops", "ERR")], &observers[0]);
    let mut plugin = Plugin::connect(&suite);
    for round in 0..KILLS {
        for i in 0..FAULTS / KILLS {
            plugin.state("down", &format!("unit-{}.", round * FAULTS / KILLS + i), ago(0));
            moments.pause(1, 100);
        }
        moments.pause(1, 3000);
        suite.kill("cbotd");
        suite.start("cbotd");
        if round % 2 == 1 {
            moments.pause(1, 3000);
            server.kill();
            server.start();
            observers.push(Observer::join(server.port, "watcher", &[("#ops", "")]));
        }
    }
    let said =
        |observers: &[Observer]| -> Vec<String> { observers.iter().flat_map(|o| texts(o.lines("#ops"))).collect() };
    wait_at_most(tests::PATIENCE * 3, "all are told", || {
        let text = said(&observers).join("\n");
        (0..FAULTS).all(|i| text.contains(&format!("drill:unit-{i}."))).then_some(())
    });
    wait_at_most(tests::PATIENCE * 2, "the ledger is settled", || {
        (suite.counter("cbotd", "outbox.waiting") == 0).then_some(())
    });
    let lines = said(&observers);
    for i in 0..FAULTS {
        let address = format!("drill:unit-{i}.");
        let copies: Vec<&String> = lines.iter().filter(|line| line.contains(&address)).collect();
        assert!(copies.len() <= 1 + KILLS + KILLS / 2, "{copies:#?}");
    }
    let rows = suite.ask("cbotd.sock", r#"{"query":"ledger","limit":10000}"#).expect("a ledger");
    let again: u64 = rows.as_array().expect("rows").iter().filter_map(|row| row["again"].as_u64()).sum();
    let extra = (0..FAULTS)
        .map(|i| lines.iter().filter(|line| line.contains(&format!("drill:unit-{i}."))).count() as u64 - 1)
        .sum::<u64>();
    assert!(extra <= again, "{extra} extra copies, but the ledger knows of {again}: {lines:#?}");
    eprintln!("{} lines, {extra} copies more than needed, {again} possible ones on record", lines.len());
}
