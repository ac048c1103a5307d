//! Orders and trials as people give them: real daemons, `control`, `cctl` and two cprocessds that share what was ordered.

use common::query::{AskError, ask, to_json};
use common::socket::Requester;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::servers::is_root;
use tests::{Plugin, Process, Suite, Target, say_skipped, wait_for};

const QUIET: &str = "default_rules = false\n";
const NO_MACHINE: &str = "machine.enabled = false\n";

fn unix_ms() -> i64 {
    common::time::UnixMillis::now().0
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What cprocessd answers to an order: the data, or code and message of the error.
#[track_caller]
fn order(suite: &Suite, order: &Value) -> Result<Value, (String, String)> {
    let request = serde_json::from_value(order.clone()).expect("a request");
    let path = suite.path("run/control");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let answer = runtime.block_on(async { ask(&mut Requester::new(&path), &request, Duration::from_secs(10)).await });
    match answer {
        Ok(data) => Ok(to_json(data)),
        Err(AskError::Refused(error)) => {
            let code = serde_json::to_value(error.code).expect("a word");
            Err((code.as_str().expect("a word").to_owned(), error.message))
        }
        Err(error) => panic!("no answer to {order}: {error}"),
    }
}

/// An order that is carried out.
#[track_caller]
fn done(suite: &Suite, what: &Value) -> Value {
    order(suite, what).unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

/// The events of the order `id`: its own, one at most.
fn events_of(suite: &Suite, id: &str) -> Vec<Value> {
    suite.events().into_iter().filter(|event| event["data"]["id"] == id).collect()
}

fn rows(suite: &Suite, question: &str) -> Vec<Value> {
    let answer = suite.query(&json!({"query": question}).to_string());
    answer.and_then(|rows| rows.as_array().cloned()).unwrap_or_default()
}

fn cctl(suite: &Suite, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = suite.cctl(args);
    (status.code().expect("an exit code"), text(&stdout), text(&stderr))
}

/// A running suite with one plugin, and the plugin.
fn with_plugin(cprocessd: &str) -> (Suite, Plugin) {
    let suite = Suite::running(NO_MACHINE, &format!("{QUIET}{cprocessd}"));
    let plugin = Plugin::connect(&suite);
    (suite, plugin)
}

fn number(plugin: &mut Plugin, length: f64) {
    plugin.push(&json!({ "service": "mail", "msg_type": "value", "resource_type": "queue", "unit": "out",
        "values": { "length": length }, "time": unix_ms() }));
}

#[test]
fn an_order_given_twice_is_carried_out_once_and_answered_alike() {
    let (mut suite, mut plugin) = with_plugin("");
    plugin.state("down", "old", unix_ms());
    suite.wait_for_event("down", "drill:old");
    let forget = json!({"order": "forget", "id": "one", "author": "anna", "pattern": "*!drill:old"});
    let first = done(&suite, &forget);
    assert_eq!(first["addresses"], json!(["testhost!drill:old"]));
    assert_eq!(done(&suite, &forget), first);
    suite.daemon("cprocessd").kill();
    suite.start("cprocessd");
    suite.wait_for_host();
    assert_eq!(done(&suite, &forget), first);
    let events = events_of(&suite, "one");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["data"], forget);
    // Also when it could not be given any more.
    let until = unix_ms() + 1500;
    let silence = json!({"order": "silence", "id": "two", "author": "anna", "pattern": "web1", "until": until});
    let first = done(&suite, &silence);
    wait_for("the silence is over", || rows(&suite, "silence-list").is_empty().then_some(()));
    assert!(unix_ms() >= until);
    assert_eq!(done(&suite, &silence), first);
    assert_eq!(rows(&suite, "silence-list"), Vec::<Value>::new());
}

#[test]
fn the_id_of_another_order_is_a_mistake() {
    let suite = Suite::running("", "");
    done(
        &suite,
        &json!({"order": "silence", "pattern": "*!drill", "until": unix_ms() + 60_000, "id": "one", "author": "ann"}),
    );
    let other = order(&suite, &json!({"order": "reload", "id": "one", "author": "ann"}));
    let (code, message) = other.expect_err("refused");
    assert_eq!((code.as_str(), message.as_str()), ("bad-argument", "id \"one\" is that of another order, silence"));
}

#[test]
fn a_bad_order_says_what_is_wrong_with_it_and_changes_nothing() {
    let (suite, mut plugin) = with_plugin("");
    plugin.state("down", "raid", unix_ms());
    suite.wait_for_event("down", "drill:raid");
    let (head, later) = (suite.events().len(), unix_ms() + 3_600_000);
    let long = "x".repeat(5000);
    let given = |mut order: Value| {
        let fields = order.as_object_mut().expect("a map");
        for (field, value) in [("id", "bad"), ("author", "anna")] {
            fields.entry(field).or_insert(json!(value));
        }
        order
    };
    // The order, the code, what its message says.
    let cases = [
        (json!({"order": "eclipse"}), "unknown-request", "no order \"eclipse\" here, only forget, silence"),
        (json!({"query": "down-list"}), "unknown-request", "an order has a field order"),
        (json!({"order": "forget", "pattern": "*", "id": ""}), "bad-argument", "needs id, 1 to 200 bytes"),
        (json!({"order": "forget", "pattern": "*", "id": long}), "bad-argument", "needs id, 1 to 200 bytes"),
        (json!({"order": "forget", "pattern": "*", "author": "a\u{1b}b"}), "bad-argument", "needs author"),
        (json!({"order": "forget"}), "bad-argument", "forget needs a pattern"),
        (json!({"order": "forget", "pattern": "no pattern:x"}), "bad-argument", ""),
        (json!({"order": "forget", "pattern": long}), "bad-argument", ""),
        (json!({"order": "silence", "until": later}), "bad-argument", "silence needs a pattern"),
        (json!({"order": "silence", "pattern": "*"}), "bad-argument", "silence needs until"),
        (json!({"order": "silence", "pattern": "*", "until": 5}), "bad-argument", "must be in the future"),
        (
            json!({"order": "silence", "pattern": "*", "until": later + 400 * 86_400_000_i64}),
            "bad-argument",
            "at most a year away",
        ),
        (json!({"order": "silence", "pattern": "*", "until": later, "reason": long}), "bad-argument", "reason"),
        (json!({"order": "maintenance", "pattern": "*"}), "bad-argument", "maintenance needs until"),
        (json!({"order": "unsilence"}), "bad-argument", "unsilence needs silence"),
        (json!({"order": "unsilence", "silence": "nobody's"}), "not-found", ""),
        (json!({"order": "ack"}), "bad-argument", "either incident or pattern"),
        (json!({"order": "ack", "incident": "x"}), "bad-argument", "the id of an incident"),
        (
            json!({"order": "ack", "incident": "01234567-89ab-cdef-0123-456789abcdef"}),
            "not-found",
            "01234567-89ab-cdef-0123-456789abcdef",
        ),
        (json!({"order": "unack"}), "bad-argument", "either incident or pattern"),
        (json!({"order": "rule-add", "rule": "a!b.c:d.e > 5 WARN"}), "bad-argument", "rule-add needs name"),
        (json!({"order": "rule-add", "name": "check", "rule": "* > 5 WARN"}), "bad-argument", "uses itself"),
        (json!({"order": "rule-add", "name": "x"}), "bad-argument", "rule-add needs rule"),
        (json!({"order": "rule-add", "name": "x", "rule": "* > five WARN"}), "bad-argument", "five"),
        (json!({"order": "rule-add", "name": "x", "rule": long}), "bad-argument", "needs rule, 1 to 3000 bytes"),
        (json!({"order": "rule-remove"}), "bad-argument", "rule-remove needs name"),
        (json!({"order": "rule-remove", "name": "nobody's"}), "not-found", "nobody's"),
        (
            json!({"order": "subscriber-add", "name": "anna", "severity": "WARN", "pattern": "*"}),
            "bad-argument",
            "subscriber-add needs via",
        ),
        (
            json!({"order": "subscriber-add", "name": "anna", "via": "mail", "pattern": "*"}),
            "bad-argument",
            "subscriber-add needs severity",
        ),
        (json!({"order": "subscriber-confirm", "name": "nobody", "via": "mail"}), "not-found", "nobody"),
        (json!({"order": "subscriber-remove", "name": "nobody", "via": "mail"}), "not-found", "nobody"),
    ];
    for (bad, code, says) in cases {
        let bad = given(bad);
        let (refused, message) = order(&suite, &bad).expect_err("refused");
        assert!(refused == code && message.contains(says), "{bad}: {refused}: {message}");
        assert!(message.len() < 400, "{message}");
    }
    // Of wrong types.
    for bad in [
        r#"{"order": "silence", "until": "tomorrow", "id": "a", "author": "b", "pattern": "*"}"#,
        r#"{"order": 5, "id": "a", "author": "b"}"#,
        r#"{"order": "forget", "id": {}, "author": "b", "pattern": "*"}"#,
        r#"{"order": "subscriber-add", "severity": "LOUD", "id": "a", "author": "b"}"#,
    ] {
        let reply = raw(&suite, bad);
        assert_eq!((&reply["ok"], &reply["error"]["code"]), (&json!(false), &json!("undecodable")), "{reply}");
    }
    assert_eq!(suite.events().len(), head, "nothing was said");
    for question in ["silence-list", "subscriber-list", "alarm-list"] {
        assert_eq!(rows(&suite, question), Vec::<Value>::new(), "{question}");
    }
    assert_eq!(rows(&suite, "down-list").len(), 1);
}

/// The reply to these very bytes.
#[track_caller]
fn raw(suite: &Suite, question: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let path = suite.path("run/control");
    let asked = async { Requester::new(&path).ask(question.as_bytes().to_vec(), Duration::from_secs(10)).await };
    serde_json::from_slice(&runtime.block_on(asked).expect("an answer")).expect("JSON")
}

/// The events about an address that ends in `unit`, in order, without the orders themselves.
fn told_of(suite: &Suite, unit: &str) -> Vec<Value> {
    let ends = |event: &Value| event["address"].as_str().is_some_and(|address| address.ends_with(unit));
    suite.events().into_iter().filter(ends).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().expect("a kind")).collect()
}

#[test]
fn a_silence_keeps_what_happens_from_being_told_and_then_it_is_revealed() {
    let (suite, mut plugin) = with_plugin("");
    let (code, shown, errors) =
        cctl(&suite, &["silence", "*!drill", "--for", "1h", "--reason", "new disks", "--author", "anna", "--id", "s1"]);
    assert!(code == 0 && shown.contains("anna") && shown.contains("*!drill"), "{shown}{errors}");
    let since = unix_ms();
    plugin.state("down", "raid", since);
    plugin.state("down", "fan", since);
    plugin.state("up", "fan", unix_ms());
    wait_for("both have been down", || {
        (told_of(&suite, "fan").len() == 2 && told_of(&suite, "raid").len() == 1).then_some(())
    });
    for unit in ["raid", "fan"] {
        assert_eq!(told_of(&suite, unit)[0]["suppressed_by"], json!(["silence:s1"]), "{unit}");
    }
    // An end is for whoever was told of the beginning, so it has no reason not to be told.
    assert_eq!(told_of(&suite, "fan")[1].get("suppressed_by"), None);
    let down = rows(&suite, "down-list");
    assert_eq!((&down[0]["silenced"], &down[0]["suppressed_by"]), (&json!(true), &json!(["silence:s1"])));
    let silence = &rows(&suite, "silence-list")[0];
    assert_eq!((&silence["id"], &silence["open"], &silence["reason"]), (&json!("s1"), &json!(1), &json!("new disks")));
    let (_, shown, _) = cctl(&suite, &["silence-list"]);
    assert!(shown.contains("*!drill") && shown.contains("new disks") && shown.contains("s1"), "{shown}");
    let (code, shown, _) = cctl(&suite, &["explain", "testhost!drill:raid"]);
    assert!(code == 2 && shown.contains("is down since") && shown.contains("silence:s1"), "{shown}");

    // It ends before its time.
    assert_eq!(cctl(&suite, &["unsilence", "s1"]).0, 0);
    let revealed = suite.wait_for_event("revealed", "drill:raid");
    assert_eq!((&revealed["since"], revealed.get("suppressed_by")), (&json!(since), None));
    assert_eq!(revealed["incident"], down[0]["incident"]);
    assert_eq!(kinds(&told_of(&suite, "fan")), ["down", "up"], "what is over is not revealed");
    assert_eq!(rows(&suite, "silence-list"), Vec::<Value>::new());
    assert_eq!(cctl(&suite, &["unsilence", "s1"]).0, 1, "there is none any more");

    // And another by itself.
    assert_eq!(cctl(&suite, &["maintenance", "*!drill:psu", "--for", "2s", "--reason", "move", "--id", "m1"]).0, 0);
    plugin.state("down", "psu", unix_ms());
    let down = suite.wait_for_event("down", "drill:psu");
    assert_eq!(down["suppressed_by"].as_array().map(Vec::len), Some(1), "{down}");
    let revealed = suite.wait_for_event("revealed", "drill:psu");
    assert_eq!(revealed["incident"], down["incident"]);
    plugin.state("up", "psu", unix_ms());
    suite.wait_for_event("up", "drill:psu");
    assert_eq!(kinds(&told_of(&suite, "psu")), ["down", "revealed", "up"]);
}

#[test]
fn an_incident_is_acknowledged_by_its_id_or_by_a_pattern() {
    let (suite, mut plugin) = with_plugin("");
    for unit in ["raid", "fan"] {
        plugin.state("down", unit, unix_ms());
    }
    let raid = suite.wait_for_event("down", "drill:raid");
    suite.wait_for_event("down", "drill:fan");
    let incident = raid["incident"].as_str().expect("an id").to_owned();
    let acked = |unit: &str| {
        let row = rows(&suite, "down-list").into_iter().find(|row| row["address"] == format!("testhost!drill:{unit}"));
        row.expect("it is open")["acked"] == true
    };
    let (code, shown, _) = cctl(&suite, &["ack", &incident, "--author", "anna", "--reason", "on my way"]);
    assert!(code == 0 && shown.contains("testhost!drill:raid"), "{shown}");
    assert!(acked("raid") && !acked("fan"));
    let event = suite.wait_for_event("ack", "");
    assert_eq!((&event["data"]["incident"], &event["data"]["author"]), (&json!(incident), &json!("anna")));
    let (_, shown, _) = cctl(&suite, &["down-list"]);
    assert!(shown.lines().any(|line| line.contains("drill:raid") && line.contains("acked")), "{shown}");
    assert_eq!(cctl(&suite, &["unack", &incident]).0, 0);
    assert!(!acked("raid"));
    assert_eq!(cctl(&suite, &["ack", "*!drill", "--for", "1h"]).0, 0);
    assert!(acked("raid") && acked("fan"));
    let (code, shown, errors) = cctl(&suite, &["ack", "*!nothing"]);
    assert!(code == 1 && shown.is_empty() && errors.contains("nothing is open"), "{errors}");
}

#[test]
fn a_rule_that_was_ordered_fires_until_it_is_removed() {
    let (suite, mut plugin) = with_plugin("[[alarm]]\nname = \"deep\"\nrule = \"*!mail.queue:*.depth > 1 WARN\"\n");
    number(&mut plugin, 7.0);
    wait_for("the number", || rows(&suite, "alarm-list").first().map(|_| ()));
    let add = |name: &str, rule: &str| cctl(&suite, &["rule", "add", name, rule, "--author", "anna"]);
    assert_eq!(add("long", "*!mail.queue:*.length > 5 ERR").0, 0);
    number(&mut plugin, 8.0);
    let alarm = suite.wait_for_event("alarm", "mail.queue:out.length");
    assert_eq!((&alarm["rule"], &alarm["severity"]), (&json!("long"), &json!("ERR")));
    let (_, shown, _) = cctl(&suite, &["rule", "list"]);
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).map(str::to_owned).expect("a row");
    assert!(line("long").contains("an order") && line("long").contains("anna"), "{shown}");
    assert!(line("deep").contains("the file"), "{shown}");
    let (code, shown, _) = cctl(&suite, &["explain", "testhost!mail.queue:out.length"]);
    assert!(code == 2 && shown.contains("long") && shown.contains("open") && shown.contains("last seen: 8"), "{shown}");
    // Those of the file are changed there.
    for refused in [add("deep", "* > 5 WARN"), cctl(&suite, &["rule", "remove", "deep"])] {
        assert!(refused.0 == 1 && refused.2.contains("in the configuration"), "{refused:?}");
    }
    assert_eq!(cctl(&suite, &["rule", "remove", "long"]).0, 0);
    let retired = suite.wait_for_event("retired", "mail.queue:out.length");
    assert_eq!(retired["incident"], alarm["incident"]);
    assert_eq!(rows(&suite, "alarm-list").len(), 1);
}

#[test]
fn what_was_ordered_survives_a_kill() {
    let (mut suite, mut plugin) = with_plugin("");
    plugin.state("down", "raid", unix_ms());
    suite.wait_for_event("down", "drill:raid");
    for args in [
        &["silence", "*!drill:fan", "--for", "1h", "--reason", "x"][..],
        &["maintenance", "db*", "--for", "1h", "--reason", "y"],
        &["ack", "*!drill:raid", "--for", "1h"],
        &["rule", "add", "long", "*!mail.queue:*.length > 5 ERR"],
        &["subscriber", "add", "anna", "web*", "--via", "mail", "--severity", "ERR"],
        &["subscriber", "confirm", "anna", "--via", "mail"],
        &["subscriber", "add", "bo", "--via", "mail"],
        &["subscriber", "remove", "bo", "--via", "mail"],
    ] {
        let (code, _, errors) = cctl(&suite, args);
        assert_eq!(code, 0, "{args:?}: {errors}");
    }
    let lists = |suite: &Suite| {
        ["silence-list", "subscriber-list", "alarm-list", "down-list"].map(|question| rows(suite, question))
    };
    let before = lists(&suite);
    assert_eq!(before.each_ref().map(Vec::len), [2, 1, 1, 1], "{before:?}");
    let head = suite.events().len();
    suite.kill("cprocessd");
    suite.start("cprocessd");
    suite.wait_for_host();
    assert_eq!(lists(&suite), before);
    assert_eq!(suite.events().len(), head, "nothing was said again");
    plugin.state("down", "fan", unix_ms());
    let down = suite.wait_for_event("down", "drill:fan");
    assert_eq!(down["suppressed_by"].as_array().map(Vec::len), Some(1), "{down}");
}

/// A small file system of its own, until the end of the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Or why it cannot be had.
    fn mount(on: PathBuf) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can mount a tmpfs".to_owned());
        }
        fs::create_dir_all(&on).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "cairn-test"]).arg(&on).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(on)),
            Ok(output) => Err(text(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    /// To the last byte.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).expect("a file");
        while std::io::Write::write_all(&mut filler, &[0; 512]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn an_order_that_the_disk_does_not_take_is_refused_and_carried_out_once_when_it_is_repeated() {
    let mut suite = Suite::new(NO_MACHINE, QUIET);
    let disk = match Tmpfs::mount(suite.path("state/cprocessd")) {
        Ok(disk) => disk,
        Err(why) => return say_skipped("orders on a full disk", &why),
    };
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    disk.fill();
    let silence =
        |n: usize| json!({"order": "forget", "id": format!("order {n}"), "author": "anna", "pattern": "*!nothing"});
    // What SQLite has room for in files that are there already is taken.
    let mut n = 0;
    let (code, message) = wait_for("the disk refuses", || {
        n += 1;
        order(&suite, &silence(n)).err()
    });
    assert!(code == "failed" && message.contains("give it again with its id"), "{code}: {message}");
    assert_eq!(order(&suite, &silence(n)).expect_err("still full").0, "failed");
    let (exit, _, errors) = cctl(&suite, &["forget", "*!nothing"]);
    assert!(exit == 1 && errors.contains("give it again with --id "), "{errors}");
    disk.make_room();
    wait_for("the disk takes it", || order(&suite, &silence(n)).ok());
    let first = done(&suite, &silence(n));
    suite.kill("cprocessd");
    suite.start("cprocessd");
    suite.wait_for_host();
    assert_eq!(done(&suite, &silence(n)), first);
    for n in 1..=n {
        assert_eq!(events_of(&suite, &format!("order {n}")).len(), 1, "{n}");
    }
}

#[test]
fn reload_is_an_order_and_a_bad_file_changes_nothing() {
    let (suite, mut plugin) = with_plugin("");
    let rule = "[[alarm]]\nname = \"long\"\nrule = \"*!mail.queue:*.length > 5 WARN\"\n";
    suite.configure("cprocessd", &format!("{QUIET}{rule}"));
    let (code, shown, _) = cctl(&suite, &["reload", "--author", "anna"]);
    assert!(code == 0 && shown.contains("anna"), "{code} {shown}");
    number(&mut plugin, 7.0);
    suite.wait_for_event("alarm", "mail.queue:out.length");

    suite.configure("cprocessd", &format!("{QUIET}{}", rule.replace('5', "five")));
    let head = suite.events().len();
    let (code, shown, errors) = cctl(&suite, &["reload"]);
    assert_eq!((code, shown.as_str()), (1, ""));
    assert!(errors.contains("the configuration stays as it was") && errors.contains("five"), "{errors}");
    assert!(!errors.contains("--id"), "it was not carried out: {errors}");
    assert_eq!(suite.events().len(), head);
    assert_eq!(rows(&suite, "alarm-list").len(), 1);
    // The same order again, when the file is good, is carried out; and then not again.
    let reload = json!({"order": "reload", "id": "again", "author": "anna"});
    assert_eq!(order(&suite, &reload).expect_err("bad").0, "failed");
    suite.configure("cprocessd", QUIET);
    done(&suite, &reload);
    assert_eq!(rows(&suite, "alarm-list").len(), 0);
    suite.configure("cprocessd", &format!("{QUIET}{rule}"));
    done(&suite, &reload);
    assert_eq!(rows(&suite, "alarm-list").len(), 0);
    assert_eq!(events_of(&suite, "again").len(), 1);
}

#[test]
fn a_recorded_feed_raises_again_what_was_raised() {
    let mut target = Target::new();
    let ports = format!(
        "{NO_MACHINE}[[port]]\nname = \"www\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\nattempts = 1\n",
        target.port
    );
    let rule = "[[alarm]]\nname = \"long\"\nrule = \"*!mail.queue:*.length > 5 WARN\"\n";
    let suite = Suite::running(&ports, &format!("{QUIET}{rule}"));
    suite.wait_for_event("up", "port:www");
    let mut plugin = Plugin::connect(&suite);
    let tape = suite.path("tape");
    let file = tape.to_str().expect("text");
    let mut recorder = Process::start(suite.cctl_command(&["record", file]).stdout(Stdio::piped()));
    // As far as it has got, the tape can be played.
    let played = |args: &[&str]| {
        let Output { stdout, .. } = suite.cctl(&[&["--json", "replay", file], args].concat());
        serde_json::from_slice::<Value>(&stdout).unwrap_or_default()
    };
    wait_for("the recording has begun", || (played(&[])["messages"].as_u64() > Some(2)).then_some(()));
    target.down();
    let down = suite.wait_for_event("down", "port:www");
    number(&mut plugin, 7.0);
    let alarm = suite.wait_for_event("alarm", "mail.queue");
    target.up();
    let up = wait_for("it is up again", || {
        suite.events().into_iter().find(|event| event["kind"] == "up" && event["incident"] == down["incident"])
    });
    let config = suite.path("etc/cprocessd.toml");
    let with_config = ["--config", config.to_str().expect("text")];
    // The same engine, the same configuration: the same incidents, by their ids.
    let trial = wait_for("the tape has it all", || {
        let trial = played(&with_config);
        (trial["incidents"][0]["duration_ms"].is_u64() && trial["incidents"][1].is_object()).then_some(trial)
    });
    let incidents = trial["incidents"].as_array().expect("rows");
    assert_eq!(incidents.len(), 2, "{incidents:?}");
    for (shown, live) in incidents.iter().zip([&down, &alarm]) {
        for field in ["incident", "address", "rule", "severity", "since", "text"] {
            assert_eq!(shown[field], live[field], "{field}");
        }
    }
    assert_eq!(incidents[0]["duration_ms"], up["duration_ms"]);
    assert_eq!(incidents[1]["duration_ms"], Value::Null);
    // Another rule alone; and one that looks at nothing.
    let trial = played(&["--rule", "*!mail.queue:*.length > 6 CRIT", "--rule", "*!mail.queue:*.depth > 6 CRIT"]);
    assert_eq!(trial["incidents"].as_array().map(Vec::len), Some(1), "{trial}");
    assert_eq!(trial["incidents"][0]["severity"], "CRIT");
    assert_eq!((&trial["rules"][1]["matches"], &trial["rules"][1]["raised"]), (&json!(0), &json!(0)));
    let (code, shown, _) = cctl(&suite, &["replay", file, "--rule", "*!mail.queue:*.length > 6 CRIT"]);
    assert!(code == 0 && shown.contains("still open") && shown.contains("7 > 6"), "{shown}");

    recorder.signal(Signal::SIGINT);
    assert_eq!(recorder.exit_code(), 0);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut recorder.stdout(), &mut said).expect("text");
    assert!(said.starts_with("recorded ") && said.contains(" messages in "), "{said}");
    // A recording is not written over.
    let (code, _, errors) = cctl(&suite, &["record", file]);
    assert!(code == 1 && errors.contains("File exists"), "{errors}");
    // Torn at the end, it is read up to there; damaged, it says where and ends with 1.
    let whole = fs::read(&tape).expect("read");
    fs::write(&tape, &whole[..whole.len() - 3]).expect("written");
    let (code, shown, errors) = cctl(&suite, &[&["replay", file], &with_config[..]].concat());
    assert!(code == 0 && shown.contains("port:www") && errors.contains("were a torn record"), "{shown}{errors}");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x40;
    fs::write(&tape, damaged).expect("written");
    let (code, shown, errors) = cctl(&suite, &[&["replay", file], &with_config[..]].concat());
    assert!(code == 1 && shown.contains("by rule:") && errors.contains("damaged at byte"), "{shown}{errors}");
    fs::write(&tape, "my notes").expect("written");
    let (code, _, errors) = cctl(&suite, &["replay", file]);
    assert!(code == 1 && errors.contains("is no recording"), "{errors}");
    assert_eq!(cctl(&suite, &["replay", file, "--rule", "x > 1"]).0, 64);
    assert_eq!(cctl(&suite, &["replay", file, "--rule", "x > 1 WARN", "--config", "nowhere.toml"]).0, 78);
    assert_eq!(cctl(&suite, &["record", "--feed", "/nowhere/feed", file]).0, 69);
    let short = suite.path("short");
    let (code, shown, _) = cctl(&suite, &["record", "--for", "1s", short.to_str().expect("text"), "--json"]);
    assert!(code == 0 && shown.contains("\"records\":"), "{shown}");
}

/// Two cprocessds on one feed, each the other's peer.
fn peers() -> (Suite, Suite) {
    let mut first = Suite::new(NO_MACHINE, QUIET);
    let feed = first.path("run/feed");
    let mut second = Suite::new("", "");
    for (own, other, feeds) in
        [(&first, &second, String::new()), (&second, &first, format!("feeds = ['{}']\n", feed.display()))]
    {
        let stream = other.path("run/stream");
        own.configure("cprocessd", &format!("{QUIET}{feeds}peers = ['{}']\n", stream.display()));
    }
    first.start("ccollectd");
    first.start("cprocessd");
    second.start("cprocessd");
    first.wait_for_host();
    second.wait_for_host();
    (first, second)
}

#[test]
fn what_is_ordered_at_one_of_two_holds_at_both() {
    let (first, mut second) = peers();
    let mut plugin = Plugin::connect(&first);
    for unit in ["a", "b", "c"] {
        plugin.state("down", unit, unix_ms());
        first.wait_for_event("down", &format!("drill:{unit}"));
        second.wait_for_event("down", &format!("drill:{unit}"));
    }
    let forget = |id: &str, unit: &str| json!({"order": "forget", "id": id, "author": "anna", "pattern": format!("*!drill:{unit}")});
    let arrived =
        |suite: &Suite, id: &str| wait_for(&format!("order {id}"), || events_of(suite, id).into_iter().next());
    done(&first, &forget("one", "a"));
    let (here, there) = (arrived(&first, "one"), arrived(&second, "one"));
    for field in ["id", "kind", "data"] {
        assert_eq!(here[field], there[field], "{field}");
    }
    // Given again, at either of them, nothing is said again.
    done(&second, &forget("one", "a"));
    done(&first, &forget("one", "a"));
    // While the other is dead.
    second.kill("cprocessd");
    done(&first, &forget("two", "b"));
    second.start("cprocessd");
    second.wait_for_host();
    arrived(&second, "two");
    // And the other way round.
    done(&second, &forget("three", "c"));
    arrived(&first, "three");
    // Not only forgetting: each of these holds at both.
    plugin.state("down", "d", unix_ms());
    let incident = first.wait_for_event("down", "drill:d")["incident"].clone();
    second.kill("cprocessd");
    let later = unix_ms() + 3_600_000;
    let orders = [
        json!({"order": "silence", "id": "s", "pattern": "*!drill:e", "until": later, "reason": "x"}),
        json!({"order": "ack", "id": "k", "incident": incident}),
        json!({"order": "rule-add", "id": "r", "name": "long", "rule": "*!mail.queue:*.length > 5 ERR"}),
        json!({"order": "subscriber-add", "id": "u", "name": "anna", "via": "mail", "severity": "ERR", "pattern": "*"}),
    ];
    for mut order in orders {
        order["author"] = json!("anna");
        done(&first, &order);
    }
    second.start("cprocessd");
    second.wait_for_host();
    for id in ["s", "k", "r", "u"] {
        assert_eq!(arrived(&second, id)["id"], arrived(&first, id)["id"]);
    }
    number(&mut plugin, 7.0);
    plugin.state("down", "e", unix_ms());
    for suite in [&first, &second] {
        assert_eq!(suite.wait_for_event("down", "drill:e")["suppressed_by"], json!(["silence:s"]));
        assert_eq!(suite.wait_for_event("alarm", "mail.queue")["rule"], "long");
        assert_eq!(rows(suite, "subscriber-list").len(), 1);
        let acked = rows(suite, "down-list").into_iter().find(|row| row["incident"] == incident).expect("open");
        assert_eq!(acked["acked"], true);
    }
    // One that knows nothing any more asks what holds at the other.
    second.kill("cprocessd");
    fs::remove_dir_all(second.path("state/cprocessd")).expect("removed");
    second.start("cprocessd");
    second.wait_for_host();
    wait_for("it has learned what holds", || {
        let lists = ["silence-list", "alarm-list", "subscriber-list"].map(|question| rows(&second, question).len());
        (lists == [1, 1, 1]).then_some(())
    });
    assert_eq!(rows(&second, "silence-list")[0]["id"], "s");
    assert_eq!(events_of(&first, "r").len(), 1);
    let rules = first.events().into_iter().filter(|event| event["data"]["order"] == "rule-add").count();
    assert_eq!(rules, 1, "what was learned does not come back");
    for id in ["s", "r", "u"] {
        assert_eq!(events_of(&first, id).len(), 1, "{id}");
    }
    for suite in [&first] {
        let units: Vec<Value> = rows(suite, "service-list").iter().map(|row| row["unit"].clone()).collect();
        assert_eq!(units, ["d", "e"]);
        for id in ["one", "two", "three"] {
            assert_eq!(events_of(suite, id).len(), 1, "{id}");
        }
    }
}
