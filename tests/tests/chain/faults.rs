//! Checks, alarms and plugins: a fault, its line on the terminal, its end.

use super::*;

/// How long an outage lasted, in the words of `cctl watch`.
fn after(up: &Value) -> String {
    let lasted = Duration::from_millis(up["duration_ms"].as_u64().expect("an end has a duration"));
    format!("after {}", common::time::for_people(lasted))
}

#[test]
fn watch_shows_a_listener_go_and_come_back() {
    let mut target = Target::new();
    let suite = Suite::running(&port("www (test)", target.port, 200, 2), QUIET);
    let mut piped = Screen::start(&mut suite.cctl_command(&["watch", "--from", "1"]));
    // A terminal of its own; without the program, what a terminal would get.
    let mut terminal = if has("script") {
        let cctl =
            format!("{} --run {} watch --from 1", binaries().join("cctl").display(), suite.path("run").display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &cctl, "/dev/null"]);
        Screen::start(command.env_remove("NO_COLOR").env("TERM", "xterm").stdin(Stdio::null()))
    } else {
        Screen::start(&mut suite.cctl_command(&["watch", "--from", "1", "--color", "always"]))
    };
    let address = "testhost!port:www (test)";
    piped.wait_for_line(&["[ UP ]", "DEBUG", address, "connected in"]);
    terminal.wait_for_line(&["[ UP ]", "DEBUG", address]);

    let killed = unix_ms();
    target.down();
    let line = piped.wait_for_line(&["[ DOWN ]", "ERR", address, "connection refused"]);
    let down = suite.wait_for_event("down", "port:www");
    assert!((0..5000).contains(&(down["since"].as_i64().expect("ms") - killed)), "{down}");
    assert!(line.starts_with(&common::time::UnixMillis(down["time"].as_i64().expect("ms")).local()), "{line}");
    target.up();
    piped.wait_for_line(&["[ UP ]", "INFO", address, "after "]);
    let up = wait_for("the end", || {
        suite.events().into_iter().find(|e| e["incident"] == down["incident"] && e["kind"] == "up")
    });
    piped.wait_for_line(&["[ UP ]", "INFO", address, &after(&up), "connected in"]);
    terminal.wait_for_line(&["\x1b[31m[ DOWN ]", "\x1b[31mERR", address]);
    terminal.wait_for_line(&["\x1b[32m[ UP ]", address, &after(&up)]);
    assert!(!piped.lines().concat().contains('\x1b'), "a pipe gets no colours");
    // Whoever made the terminal ends its program with itself, and has an exit code of its own.
    terminal.process.terminate();
    assert_eq!(piped.process.terminate(), 0);
}

#[test]
fn a_process_is_found_by_globs_and_counted() {
    let seconds = format!("77{}", std::process::id());
    let unit = format!("s?eep (*[s]leep {seconds})");
    let process = format!(
        "[[process]]\nname = \"s?eep\"\nargs = \"*[s]leep {seconds}\"\nmin = 1\nmax = 2\ninterval = \"200ms\"\n"
    );
    let mut suite = Suite::new(&process, QUIET);
    let mut first = sleeper(&seconds);
    // Not ours by one digit of the arguments.
    let _other = sleeper(&format!("{seconds}0"));
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    let screen = Screen::start(&mut suite.cctl_command(&["watch", "--from", "1"]));
    let address = format!("testhost!process:{unit}");
    screen.wait_for_line(&["[ UP ]", &address, "1 running"]);

    first.kill();
    screen.wait_for_line(&["[ DOWN ]", &address, "0 running, at least 1 wanted"]);
    let _second = sleeper(&seconds);
    screen.wait_for_line(&["[ UP ]", "INFO", &address, "after "]);

    let _third = sleeper(&seconds);
    let mut fourth = sleeper(&seconds);
    screen.wait_for_line(&["[ DOWN ]", &address, "3 running, at most 2 wanted"]);
    let count = format!("process.instances:{unit}.count");
    wait_for("the number follows", || {
        let counts = last_values(&suite, "process.instances:*.count");
        counts.get(&count).filter(|(count, _)| (*count - 3.0).abs() < 0.1).map(|_| ())
    });
    fourth.kill();
    wait_for_check(&suite, &unit, "up");
    let kinds: Vec<String> =
        told_since(&suite, 0).into_iter().filter(|(_, of)| *of == address).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["up", "down", "up", "down", "up"]);
}

#[test]
fn success_after_retries_is_a_blip() {
    let mut target = Target::new();
    let suite = Suite::running(&port("slow", target.port, 1000, 10), QUIET);
    wait_for_check(&suite, "slow", "up");
    let last_probe = || observed(&suite, "slow").and_then(|check| check["time"].as_i64());
    // Ten attempts, 100 ms apart, begin a second after the probe before. Nobody tells us of an attempt that failed, so
    // the listener comes back by the clock: in the middle of them. Where the machine stalls just then, it is tried
    // again.
    for _ in 0..10 {
        let head = head(&suite);
        let then = wait_for("a probe", last_probe);
        let begun = wait_for("the next probe", || last_probe().filter(|time| *time > then));
        target.down();
        wait_for("half of the attempts", || (unix_ms() >= begun + 1450).then_some(()));
        target.up();
        wait_for("an outcome", || last_probe().filter(|time| *time > begun));
        let told = wait_for("cprocessd has it", || {
            let told = told_since(&suite, head);
            let outcome = observed(&suite, "slow")?;
            (!told.is_empty() || outcome["retries"] == 0 && last_probe()? > begun + 2500).then_some(told)
        });
        let address = "testhost!port:slow".to_owned();
        if told.iter().any(|(kind, _)| kind == "blip") {
            assert_eq!(told, [("blip".to_owned(), address)]);
            let blip = suite.wait_for_event("blip", "port:slow");
            assert_eq!((&blip["severity"], &blip["state"]), (&json!("WARN"), &json!("up")));
            let text = blip["text"].as_str().expect("text");
            assert!(text.starts_with("up after ") && text.contains("failed attempt"), "{text}");
            return;
        }
        wait_for_check(&suite, "slow", "up");
    }
    panic!("in ten outages shorter than the attempts there was no blip");
}

/// A small file system of its own, until the end of the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Or why it cannot be had.
    fn mount(on: &Path) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can mount a tmpfs".to_owned());
        }
        fs::create_dir(on).expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=4m", "cairn-test"]).arg(on);
        let mounted = command.output().map_err(|error| format!("mount: {error}"))?;
        if !mounted.status.success() {
            return Err(text(&mounted.stderr).trim().to_owned());
        }
        let disk = Self(on.to_owned());
        // Which is where ccollectd looks.
        let name = on.display().to_string().replace(' ', "\\040");
        let mounts = fs::read_to_string("/proc/1/mountinfo");
        if mounts.is_ok_and(|mounts| !mounts.contains(&name)) {
            return Err("process 1 does not see our mounts: it has a namespace of its own".to_owned());
        }
        Ok(disk)
    }

    fn fill(&self, mebibytes: usize) {
        fs::write(self.0.join("filler"), vec![0; mebibytes << 20]).expect("written");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn an_alarm_on_a_filling_disk_is_solved_below_its_clear() {
    let mut suite = Suite::new("machine.interval = \"200ms\"\n", QUIET);
    let on = suite.path("small disk");
    let disk = match Tmpfs::mount(&on) {
        Ok(disk) => disk,
        Err(why) => return say_skipped("the alarm on a filling disk", &why),
    };
    let address = format!("machine.disk:{}.used_percentage", on.display());
    suite.configure(
        "cprocessd",
        &format!("{QUIET}[[alarm]]\nname = \"filling\"\nrule = \"*!{address} > 60% clear 30% ERR\"\n"),
    );
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    let used = |percentage: f64| {
        agree(&address, 1.0, || Some((last_value(&suite, &address)?, percentage)));
    };
    let told =
        || told_since(&suite, 0).into_iter().map(|(kind, _)| kind).filter(|kind| kind != "up").collect::<Vec<_>>();
    used(0.0);
    disk.fill(2);
    used(50.0);
    assert!(told().is_empty(), "not beyond the limit");
    assert_eq!(suite.cctl(&["alarm-list"]).status.code(), Some(0));

    disk.fill(3);
    let alarm = suite.wait_for_event("alarm", &address);
    assert_eq!((&alarm["severity"], &alarm["rule"]), (&json!("ERR"), &json!("filling")));
    assert_eq!((alarm["value"].as_f64(), &alarm["text"]), (Some(75.0), &json!("75 > 60")));
    // Between the two limits it stays as it is, however often it comes and goes.
    disk.fill(2);
    used(50.0);
    disk.fill(3);
    used(75.0);
    disk.fill(2);
    used(50.0);
    assert_eq!(told(), ["alarm"]);
    assert_eq!(suite.cctl(&["alarm-list"]).status.code(), Some(2));
    assert_eq!(suite.cctl_json(&["down-list"])[0]["incident"], alarm["incident"]);

    disk.fill(1);
    let solved = suite.wait_for_event("solved", &address);
    assert_eq!(solved["incident"], alarm["incident"]);
    assert!(solved["duration_ms"].as_u64() > Some(0));
    assert_eq!(told(), ["alarm", "solved"]);
    assert_eq!(suite.cctl(&["down-list"]).status.code(), Some(0));
}

#[test]
fn a_plugin_that_falls_silent_is_down_by_its_ttl() {
    let suite = Suite::running("machine.enabled = false\n", QUIET);
    let mut plugin = Plugin::connect(&suite);
    let heartbeat = json!({ "service": "backup", "msg_type": "value", "unit": "nightly", "resource_type": "run",
        "values": { "secs": 12.5 }, "ttl_ms": 1500 });
    plugin.push(&heartbeat);
    wait_for_check(&suite, "nightly", "up");
    assert_eq!(last_value(&suite, "backup.run:nightly.secs"), Some(12.5));
    let down = suite.wait_for_event("down", "backup:nightly");
    assert_eq!((&down["severity"], &down["text"]), (&json!("ERR"), &json!("no report for 1.5s")));
    let head = head(&suite);
    plugin.push(&heartbeat);
    let up = wait_for_event_since(&suite, head, "up", "backup:nightly");
    assert_eq!((&up["incident"], &up["text"]), (&down["incident"], &json!("reports again")));
}

#[test]
fn a_plugins_state_outlives_ccollectd() {
    let mut suite = Suite::running("machine.enabled = false\n", QUIET);
    let mut plugin = Plugin::connect(&suite);
    let since = unix_ms();
    plugin.state("down", "raid", since);
    plugin.state("up", "fan", since);
    suite.wait_for_event("down", "drill:raid");
    let fan = wait_for_check(&suite, "fan", "up");
    let head = head(&suite);
    suite.kill("ccollectd");
    suite.start("ccollectd");
    let raid = wait_for("ccollectd still has it", || observed(&suite, "raid"));
    assert_eq!((&raid["up"], &raid["changed"]), (&json!(false), &json!(since)));
    assert_eq!(
        check(&suite, "raid").map(|row| (row["state"].clone(), row["since"].clone())),
        Some((json!("down"), json!(since)))
    );
    assert_eq!(check(&suite, "fan"), Some(fan));
    assert_eq!(told_since(&suite, head), [], "nothing has changed");
    // A cprocessd that knows nothing hears of it, too.
    suite.kill("cprocessd");
    fs::remove_dir_all(suite.path("state/cprocessd")).expect("removed");
    suite.start("cprocessd");
    let down = suite.wait_for_event("down", "drill:raid");
    assert_eq!(down["since"], json!(since));
    plugin.state("up", "raid", unix_ms());
    let up = suite.wait_for_event("up", "drill:raid");
    assert_eq!(up["since"], json!(since));
}

#[test]
fn what_is_forgotten_comes_back_only_with_a_report() {
    let target = Target::new();
    let suite = Suite::running(&format!("machine.enabled = false\n{}", port("www", target.port, 200, 1)), QUIET);
    let mut plugin = Plugin::connect(&suite);
    let temperature = json!({ "service": "sensor", "msg_type": "value", "resource_type": "temp", "unit": "room",
        "values": { "celsius": 21.5 } });
    plugin.state("down", "old", unix_ms());
    plugin.state("up", "new", unix_ms());
    plugin.push(&temperature);
    suite.wait_for_event("down", "drill:old");
    wait_for("the number", || last_value(&suite, "sensor.temp:room.celsius"));

    let forgotten = suite.cctl_json(&["forget", "testhost!drill:old"]);
    assert_eq!((&forgotten["addresses"], &forgotten["unreached"]), (&json!(["testhost!drill:old"]), &json!([])));
    assert_eq!((check(&suite, "old"), observed(&suite, "old")), (None, None), "neither of them has it");
    assert!(check(&suite, "new").is_some() && observed(&suite, "new").is_some(), "only what matches");
    let retired = suite.wait_for_event("retired", "drill:old");
    assert!(retired["text"].as_str().is_some_and(|text| text.starts_with("forgotten by ")), "{retired}");
    suite.wait_for_event("order", "cprocessd:");
    suite.cctl_json(&["forget", "*!sensor"]);
    assert_eq!(last_value(&suite, "sensor.temp:room.celsius"), None);
    let output = suite.cctl(&["forget", "*!nothing"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).ends_with("let forget *!nothing: 0 addresses\n"), "{}", text(&output.stdout));

    plugin.state("down", "old", unix_ms());
    plugin.push(&temperature);
    wait_for_check(&suite, "old", "down");
    wait_for("ccollectd has it again", || observed(&suite, "old"));
    wait_for("the number is back", || last_value(&suite, "sensor.temp:room.celsius"));
    // What is configured is reported again by the next probe.
    let head = head(&suite);
    suite.cctl_json(&["forget", "testhost!port"]);
    wait_for_event_since(&suite, head, "up", "port:www");
    wait_for_check(&suite, "www", "up");
}
