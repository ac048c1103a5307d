//! A host goes, says goodbye, comes back, is configured anew.

use super::*;

/// A host that is down after three seconds, with a port that is up all the time.
fn mortal_host(target: &Target, stop_grace: &str) -> Suite {
    let suite = Suite::running(
        &format!("machine.enabled = false\n{}", port("www", target.port, 500, 1)),
        &format!("{QUIET}[judging]\nhost_down_after = \"3s\"\nstop_grace = \"{stop_grace}\"\n"),
    );
    wait_for_check(&suite, "www", "up");
    suite
}

#[test]
fn a_ccollectd_that_is_killed_is_one_critical_event() {
    let target = Target::new();
    let mut suite = mortal_host(&target, "5m");
    let head = head(&suite);
    let killed = unix_ms();
    suite.kill("ccollectd");
    let down = wait_for_event_since(&suite, head, "down", "testhost!alive:");
    assert_eq!(down["severity"], "CRIT");
    let after_ms = down["time"].as_i64().expect("ms") - killed;
    // It may have been silent for a second before; absence is looked for twice a second; and the machine may be busy.
    assert!((1500..6000).contains(&after_ms), "after {after_ms} ms");
    assert!(down["since"].as_i64().expect("ms") <= killed, "since its last sign of life: {down}");
    assert_eq!(check(&suite, "www").expect("known")["state"], "unknown");
    assert_eq!(suite.cctl_json(&["server-list"])[0]["state"], "down");
    assert_eq!(suite.cctl(&["server-list"]).status.code(), Some(2));
    cprocessd_runs_for(&suite, 3);
    assert_eq!(told_since(&suite, head), [("down".to_owned(), "testhost!alive:".to_owned())]);

    suite.start("ccollectd");
    let up = wait_for_event_since(&suite, head, "up", "testhost!alive:");
    assert_eq!((&up["incident"], &up["since"], &up["severity"]), (&down["incident"], &down["since"], &json!("INFO")));
    let lasted = up["time"].as_i64().expect("ms") - up["since"].as_i64().expect("ms");
    assert_eq!(up["duration_ms"], json!(lasted));
    wait_for_check(&suite, "www", "up");
    assert_eq!(told_since(&suite, head).len(), 2, "the port was up all the time");
    assert_eq!(suite.cctl(&["server-list"]).status.code(), Some(0));
}

#[test]
fn a_ccollectd_that_is_stopped_has_a_grace() {
    let target = Target::new();
    let mut suite = mortal_host(&target, "1m");
    let kinds = |suite: &Suite, head| told_since(suite, head).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    let begun = head(&suite);
    assert_eq!(suite.daemon("ccollectd").terminate(), 0);
    let stopped = wait_for_event_since(&suite, begun, "stopped", "testhost!alive:");
    assert_eq!(stopped["severity"], "INFO");
    // Twice what makes a host down that says nothing.
    cprocessd_runs_for(&suite, 6);
    assert_eq!(kinds(&suite, begun), ["stopped"]);
    suite.start("ccollectd");
    wait_for_event_since(&suite, begun, "started", "testhost!alive:");
    assert_eq!(kinds(&suite, begun), ["stopped", "started"]);

    // Whoever does not come back is down all the same, and since the goodbye.
    suite.configure("cprocessd", &format!("{QUIET}[judging]\nhost_down_after = \"3s\"\nstop_grace = \"2s\"\n"));
    suite.daemon("cprocessd").signal(Signal::SIGHUP);
    wait_for("cprocessd has read it", || suite.log("cprocessd").contains("configuration read again").then_some(()));
    let again = head(&suite);
    assert_eq!(suite.daemon("ccollectd").terminate(), 0);
    let stopped = wait_for_event_since(&suite, again, "stopped", "testhost!alive:");
    let down = wait_for_event_since(&suite, again, "down", "testhost!alive:");
    assert_eq!((&down["severity"], &down["since"]), (&json!("CRIT"), &stopped["time"]));
    assert_eq!(kinds(&suite, again), ["stopped", "down"]);
}

#[test]
fn sighup_adds_and_removes_what_is_watched_and_a_broken_file_changes_nothing() {
    let target = Target::new();
    let added = Target::new();
    let mut gone = Target::new();
    let ports = |names: &[(&str, u16)]| {
        let ports: String = names.iter().map(|(name, number)| port(name, *number, 200, 1)).collect();
        format!("machine.enabled = false\n{ports}")
    };
    let mut suite = Suite::running(&ports(&[("www", target.port), ("gone", gone.port)]), QUIET);
    gone.down();
    let down = suite.wait_for_event("down", "port:gone");
    assert_eq!(check(&suite, "added"), None);

    suite.configure("ccollectd", &ports(&[("www", target.port), ("gone", gone.port), ("added", added.port)]));
    suite.daemon("ccollectd").signal(Signal::SIGHUP);
    wait_for_check(&suite, "added", "up");

    suite.configure("ccollectd", &ports(&[("www", target.port), ("added", added.port)]));
    suite.daemon("ccollectd").signal(Signal::SIGHUP);
    let retired = suite.wait_for_event("retired", "port:gone");
    assert_eq!((&retired["incident"], &retired["text"]), (&down["incident"], &json!("no longer configured")));
    assert!(retired["duration_ms"].as_u64().is_some());
    assert_eq!((check(&suite, "gone"), suite.cctl_json(&["down-list"])), (None, json!([])));

    let snapshot = || suite.ask("feed-query", r#"{"query":"snapshot"}"#).map(|snapshot| snapshot["hosts"].clone());
    let watched = wait_for("a snapshot", snapshot);
    for (daemon, mistake) in [
        ("ccollectd", "[[port]]\nname = \"x\"\nadress = \"127.0.0.1:1\"\n"),
        ("cprocessd", "[[alarm]]\nname = \"x\"\nrule = \"*!a.b:c.d > lots WARN\"\n"),
    ] {
        suite.configure(daemon, &format!("{}{mistake}", if daemon == "ccollectd" { "" } else { QUIET }));
        let file = suite.path(&format!("etc/{daemon}.toml"));
        let line = fs::read_to_string(&file).expect("read").lines().count();
        let place = format!("{}:{line}: ", file.display());
        let check = suite.command(daemon).arg("--check-config").stderr(Stdio::piped()).output().expect("it runs");
        assert_eq!(check.status.code(), Some(78));
        assert!(text(&check.stderr).contains(&place), "{place} not in {}", text(&check.stderr));
        suite.daemon(daemon).signal(Signal::SIGHUP);
        wait_for("the mistake is logged", || {
            suite.log(daemon).lines().find(|line| line.contains(&place) && line.contains("as it was")).map(|_| ())
        });
        assert!(suite.daemon(daemon).runs());
    }
    assert_eq!(wait_for("a snapshot", || suite.ask("feed-query", r#"{"query":"snapshot"}"#))["hosts"], watched);
    let then = unix_ms();
    wait_for("the port is still probed", || (observed(&suite, "www")?["time"].as_i64()? > then).then_some(()));
    wait_for_check(&suite, "www", "up");
}
