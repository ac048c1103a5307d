//! Every question, its exit code, and the stream as a file.

use super::*;

/// Exit code, output and errors of `cctl`.
fn cctl(suite: &Suite, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = suite.cctl(args);
    (status.code().expect("an exit code"), text(&stdout), text(&stderr))
}

#[test]
fn every_question_has_its_table_its_json_and_its_exit_code() {
    let mut target = Target::new();
    let suite = Suite::running(
        &format!("machine.enabled = false\n{}", port("www", target.port, 200, 1)),
        &format!("{QUIET}[[alarm]]\nname = \"warm\"\nrule = \"*!sensor.temp:*.celsius > 30 clear 25 WARN\"\n"),
    );
    let mut plugin = Plugin::connect(&suite);
    let mut celsius = |celsius: f64| {
        plugin.push(&json!({ "service": "sensor", "msg_type": "value", "resource_type": "temp", "unit": "room",
            "values": { "celsius": celsius } }));
    };
    celsius(21.5);
    wait_for("the number", || last_value(&suite, "sensor.temp:room.celsius"));
    wait_for_check(&suite, "www", "up");

    // Question, what its table shows, whether it says by its exit code that something is wrong.
    let value = "testhost!sensor.temp:room.celsius";
    let questions: [(&[&str], &[&str], bool); 12] = [
        (&["server-list"], &["HOST", "STATE", "testhost", " up "], true),
        (&["server-status", "testhost"], &["testhost is up since", "checks:", "testhost!port:www", value], true),
        (&["service-list"], &["CHECK", "STATE", "testhost!port:www"], true),
        (&["service-list", "testhost"], &["CHECK", "testhost!port:www"], true),
        (&["down-list"], &[], true),
        (&["alarm-list"], &["ALARM", "warm", "WARN", "*!sensor.temp:*.celsius > 30 clear 25 WARN"], true),
        (&["last-value", "*!sensor"], &["ADDRESS", "VALUE", value], false),
        (&["events"], &["[ UP ]", "DEBUG", "testhost!port:www"], false),
        (&["events", "--after", "0", "--limit", "1"], &["[ UP ]", "cctl events --after 1"], false),
        (&["snapshot"], &["journal ", "1 host, 1 check, ", "hosts:", "checks:", "open incidents:"], false),
        (&["health", "ccollectd"], &["ccollectd 0.", "MiB resident", "journal "], false),
        (&["health", "cprocessd"], &["cprocessd 0.", "MiB resident", "journal "], false),
    ];
    for is_wrong in [false, true] {
        if is_wrong {
            target.down();
            celsius(35.0);
            suite.wait_for_event("down", "port:www");
            suite.wait_for_event("alarm", value);
        }
        for (args, words, tells) in &questions {
            let expected = if is_wrong && *tells { 2 } else { 0 };
            let (code, table, errors) = cctl(&suite, args);
            assert_eq!((code, errors.as_str()), (expected, ""), "{args:?}: {table}");
            assert!(words.iter().all(|word| table.contains(word)), "{args:?}: {words:?} in\n{table}");
            let (code, json, errors) = cctl(&suite, &[&["--json"], *args].concat());
            assert_eq!((code, errors.as_str()), (expected, ""), "{args:?}: {json}");
            let json: Value = serde_json::from_str(&json).expect("one document");
            assert!(json.is_array() || json.is_object(), "{json}");
        }
    }
    let (_, table, _) = cctl(&suite, &["down-list"]);
    for words in [["ERR", "testhost!port:www", "connection refused"], ["WARN", value, "35 > 30"]] {
        let row = table.lines().find(|line| words.iter().all(|word| line.contains(word)));
        assert!(row.is_some(), "{words:?} in\n{table}");
    }
    let (_, table, _) = cctl(&suite, &["alarm-list"]);
    assert!(table.contains("1 open") && table.contains("over the limit:"), "{table}");
    assert_eq!(suite.cctl_json(&["health", "ccollectd"])["daemon"], "ccollectd");
}

#[test]
fn cctl_says_by_its_exit_code_why_there_is_no_answer() {
    let mut suite = Suite::running("machine.enabled = false\n", QUIET);
    for refused in [&["server-status", "nobody"][..], &["last-value", "*!nothing"]] {
        let (code, shown, errors) = cctl(&suite, refused);
        assert_eq!((code, shown.as_str()), (1, ""), "{refused:?}: {errors}");
        assert!(errors.starts_with("cctl: "), "{errors}");
    }
    for wrong in [&[][..], &["server-lost"], &["last-value"], &["watch", "--severity", "LOUD"], &["health", "../x"]] {
        assert_eq!(cctl(&suite, wrong).0, 64, "{wrong:?}");
    }
    for daemon in ["ccollectd", "cprocessd"] {
        let mut command = Command::new(binaries().join(daemon));
        assert_eq!(command.arg("--frobnicate").stderr(Stdio::null()).status().expect("it runs").code(), Some(64));
        let mut command = Command::new(binaries().join(daemon));
        let missing =
            command.arg("--config").arg(suite.path("nothing")).arg("--check-config").output().expect("it runs");
        assert_eq!(missing.status.code(), Some(78), "{}", text(&missing.stderr));
    }
    assert_eq!(cctl(&suite, &["health", "cmaild"]).0, 69);
    // The sockets of whoever was killed are still there.
    suite.kill("cprocessd");
    for unreachable in [&["server-list"][..], &["forget", "*"], &["watch"], &["events"]] {
        let (code, _, errors) = cctl(&suite, unreachable);
        assert_eq!(code, 69, "{unreachable:?}: {errors}");
        assert!(errors.contains("is cprocessd running"), "{errors}");
    }
    assert_eq!(cctl(&suite, &["health", "ccollectd"]).0, 0);
}

#[test]
fn watch_goes_on_where_it_was() {
    let suite = Suite::running("machine.enabled = false\n", QUIET);
    let mut plugin = Plugin::connect(&suite);
    let mut say = |n: usize| {
        let unit = format!("u{n}");
        plugin.state("down", &unit, unix_ms());
        suite.wait_for_event("down", &format!("drill:{unit}"));
    };
    (0..3).for_each(&mut say);
    let journal = suite.events();
    let from = journal[1]["seq"].to_string();
    let mut screen = Screen::start(&mut suite.cctl_command(&["watch", "--json", "--from", &from]));
    say(3);
    screen.wait_for_line(&["drill:u3"]);
    assert_eq!(screen.process.terminate(), 0);
    let shown: Vec<Value> =
        screen.lines().iter().map(|line| serde_json::from_str(line).expect("one event a line")).collect();
    let without_topic = |mut event: Value| {
        event.as_object_mut().expect("an event").remove("topic");
        event
    };
    let journal: Vec<Value> = suite.events().into_iter().map(without_topic).collect();
    assert_eq!(shown, journal[1..]);

    let file = suite.path("events.jsonl");
    let to = file.to_str().expect("text");
    let seqs = || {
        let lines = fs::read_to_string(&file).unwrap_or_default();
        let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let seq = |line: &str| serde_json::from_str::<Value>(line).expect("an event")["seq"].as_u64().expect("seq");
        whole.lines().map(seq).collect::<Vec<_>>()
    };
    for round in 4..7 {
        let mut command = suite.cctl_command(&["watch", "--from", "1", "--to", to]);
        let mut watching = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        say(round);
        let head = suite.events().len();
        wait_for("all are in the file", || (seqs().len() >= head).then_some(()));
        if round.is_multiple_of(2) {
            assert_eq!(watching.terminate(), 0);
        } else {
            watching.kill();
        }
    }
    let head = suite.events().len() as u64;
    assert_eq!(seqs(), (1..=head).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn completions_and_manual_pages_are_what_shells_and_man_take() {
    let suite = Suite::new("", "");
    for (shell, sign) in [("bash", "complete "), ("zsh", "#compdef cctl"), ("fish", "complete -c cctl")] {
        let (code, script, _) = cctl(&suite, &["completions", shell]);
        assert!(code == 0 && script.contains(sign) && script.contains("server-list"), "{shell}: {script}");
        let file = suite.path(shell);
        fs::write(&file, script).expect("written");
        if has(shell) {
            output(Command::new(shell).arg("-n").arg(&file));
        } else {
            say_skipped(&format!("completions by {shell} itself"), "it is not installed");
        }
    }
    let loaded = output(Command::new("bash").args(["-c", "source \"$0\" && complete -p cctl"]).arg(suite.path("bash")));
    assert!(loaded.contains("cctl"), "{loaded}");

    let pages = suite.path("man1");
    assert_eq!(cctl(&suite, &["man", pages.to_str().expect("text")]).0, 0);
    let can_render = has("groff");
    if !can_render {
        say_skipped("manual pages as groff shows them", "it is not installed");
    }
    let mut count = 0;
    for page in fs::read_dir(&pages).expect("pages").flatten() {
        count += 1;
        assert!(page.metadata().expect("a file").len() > 0, "{page:?}");
        if can_render {
            let rendered = Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(page.path()).output();
            let rendered = rendered.expect("groff runs");
            assert_eq!(text(&rendered.stderr), "", "{page:?}");
            assert!(text(&rendered.stdout).contains("cctl"), "{page:?}");
        }
    }
    assert!(count > 10, "one for each subcommand");
}

#[test]
fn the_examples_load_and_a_daemon_prints_its_traffic() {
    let deploy = repository().join("deploy");
    for daemon in ["ccollectd", "cprocessd"] {
        let example = deploy.join(format!("{daemon}.example.toml"));
        output(Command::new(binaries().join(daemon)).arg("--check-config").arg("--config").arg(example));
    }
    let suite = Suite::new("", "");
    let mut screens = Vec::new();
    for daemon in ["ccollectd", "cprocessd"] {
        output(suite.command(daemon).arg("--check-config"));
        let mut command = Command::new(binaries().join(daemon));
        command.arg("--print").arg("--config").arg(suite.path(&format!("etc/{daemon}.toml"))).stdin(Stdio::null());
        screens.push(Screen::start(&mut command));
    }
    suite.wait_for_host();
    let parsed = |line: String| serde_json::from_str::<Value>(&line).expect("one message a line");
    let out = parsed(screens[0].wait_for_line(&["\"way\":\"out\"", "value.testhost!"]));
    assert_eq!((&out["way"], &out["topic"]), (&json!("out"), &json!("value.testhost!")));
    let taken = parsed(screens[1].wait_for_line(&["\"way\":\"in\"", "alive.testhost!"]));
    assert_eq!((&taken["way"], &taken["message"]["host"]), (&json!("in"), &json!("testhost")));
    let event = parsed(screens[1].wait_for_line(&["\"way\":\"out\"", "event.DEBUG.testhost!"]));
    assert_eq!(event["message"]["kind"], "up");
    for mut screen in screens {
        assert_eq!(screen.process.terminate(), 0);
    }
}
