//! Hostile input at every socket and in every file: it is refused, counted and said once, no daemon grows beyond
//! [`MAX_RSS_BYTES`] or ends, and everything else goes on.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tests::raw::{GREETING, Raw, claim, command, message, ready, subscribe};
use tests::servers::{self, free_port};
use tests::{MAX_RSS_BYTES, Process, Suite, Target, python, repository, wait_for};

/// Every socket: its daemon, its name, and the type of socket that belongs there.
const SOCKETS: [(&str, &str, &str); 12] = [
    ("ccollectd", "plugins", "PUSH"),
    ("ccollectd", "feed", "SUB"),
    ("ccollectd", "feed-query", "DEALER"),
    ("ccollectd", "ccollectd.sock", "DEALER"),
    ("cprocessd", "stream", "SUB"),
    ("cprocessd", "query", "DEALER"),
    ("cprocessd", "control", "DEALER"),
    ("cprocessd", "cprocessd.sock", "DEALER"),
    ("cmaild", "cmaild.sock", "DEALER"),
    ("cbotd", "cbotd.sock", "DEALER"),
    ("csmsd", "csmsd.sock", "DEALER"),
    ("cwebd", "cwebd.sock", "DEALER"),
];

/// Those that others follow.
const PUBLISHERS: [&str; 2] = ["ccollectd", "cprocessd"];
/// All that may be under attack.
const DAEMONS: [&str; 6] = ["ccollectd", "cprocessd", "cmaild", "cbotd", "csmsd", "cwebd"];
/// Those that follow them.
const FOLLOWERS: [&str; 4] = ["cmaild", "cbotd", "csmsd", "cwebd"];
const HEALTH: &str = r#"{"query":"health"}"#;
/// How long a legitimate client waits, at most, whatever else happens; on a busy machine, in a debug build.
const PROMPTLY: Duration = Duration::from_secs(2);

/// The suite under attack.
struct Siege {
    suite: Suite,
    target: Target,
    /// Those that run, and by which process.
    daemons: Vec<(&'static str, u32)>,
}

impl Siege {
    fn begin(ccollectd: &str) -> Self {
        let target = Target::new();
        let port = format!(
            "{ccollectd}\n[[port]]\nname = \"www\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\nattempts = 1\n",
            target.port
        );
        let mut suite = Suite::running(&port, "default_rules = false\n");
        wait_for("the port is up", || (suite.query(r#"{"query":"service-list"}"#)?[0]["state"] == "up").then_some(()));
        let daemons = PUBLISHERS.map(|daemon| (daemon, suite.daemon(daemon).pid())).into();
        Self { suite, target, daemons }
    }

    /// With notifiers and cwebd.
    fn of_all() -> Self {
        let mut siege = Self::begin("");
        for daemon in FOLLOWERS {
            configure(&siege.suite, daemon);
            siege.suite.start(daemon);
            siege.daemons.push((daemon, siege.suite.daemon(daemon).pid()));
        }
        for daemon in FOLLOWERS {
            wait_for("it answers", || siege.suite.ask(&format!("{daemon}.sock"), HEALTH));
        }
        siege
    }

    /// A legitimate client asks each daemon once, and is answered promptly.
    #[track_caller]
    fn is_answered(&self) {
        let own = self.daemons.iter().map(|(daemon, _)| (format!("{daemon}.sock"), HEALTH));
        let others = [("query".to_owned(), r#"{"query":"server-list"}"#), ("feed-query".to_owned(), HEALTH)];
        for (socket, question) in others.into_iter().chain(own) {
            let asked = Instant::now();
            assert!(self.suite.ask(&socket, question).is_some(), "{socket} does not answer");
            assert!(asked.elapsed() < PROMPTLY, "{socket} answered after {:?}", asked.elapsed());
        }
    }

    /// What must hold at any time: questions are answered, an outage is told, the host is up, nobody died or grew.
    #[track_caller]
    fn goes_on(&mut self) {
        self.is_answered();
        let health = wait_for("health", || self.suite.ask("cprocessd.sock", r#"{"query":"health"}"#));
        let mut head = health["head_seq"].clone();
        for kind in ["down", "up"] {
            if kind == "down" {
                self.target.down();
            } else {
                self.target.up();
            }
            wait_for(&format!("the port is told {kind}"), || {
                let page = self.suite.query(&json!({"query": "events", "after": head}).to_string())?;
                let events = page["events"].as_array()?;
                let told = events.iter().find(|e| e["address"] == "testhost!port:www");
                head = told.or(events.last())?["seq"].clone();
                // Told once, and nothing else: no change that was not.
                told.inspect(|event| assert_eq!(event["kind"], kind, "{event}")).map(|_| ())
            });
        }
        let hosts = wait_for("hosts", || self.suite.query(r#"{"query":"server-list"}"#));
        assert_eq!(hosts[0]["state"], "up");
        self.is_well();
    }

    /// Nobody died, nobody grew, and nobody filled the log.
    #[track_caller]
    fn is_well(&mut self) {
        for &(daemon, pid) in &self.daemons {
            let process = self.suite.daemon(daemon);
            assert!(process.runs() && process.pid() == pid, "{daemon} died");
            let peak = process.memory("VmHWM:");
            eprintln!("{daemon} at most {} MB", peak >> 20);
            assert!(peak < MAX_RSS_BYTES, "{daemon} grew to {} MB", peak >> 20);
            let log = self.suite.log(daemon);
            let warnings: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
            assert!(warnings.len() < 40, "{daemon} says too much: {warnings:#?}");
            assert!(log.lines().all(|line| line.len() < 2000), "{daemon} logs long lines");
            assert!(!log.contains('\u{1b}') && !log.contains("panicked"), "{daemon}'s log: {log}");
        }
    }

    fn socket(&self, name: &str) -> std::path::PathBuf {
        self.suite.path("run").join(name)
    }

    #[track_caller]
    fn wait_for_counter(&self, daemon: &str, name: &str) -> u64 {
        wait_for(&format!("{daemon} counts {name}"), || Some(self.suite.counter(daemon, name)).filter(|n| *n > 0))
    }

    fn plugin(&self) -> Raw {
        Raw::handshake(&self.socket("plugins"), "PUSH").expect("handshake")
    }

    /// What is there to read when the attack is over. Printed by `--nocapture`, to see how near the bound it came.
    fn report(&mut self, what: &str) {
        for (daemon, _) in &self.daemons {
            let peak = self.suite.daemon(daemon).memory("VmHWM:");
            eprintln!("{what}: {daemon} at most {} MB", peak >> 20);
        }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.report(std::thread::current().name().unwrap_or_default());
        }
    }
}

/// Somebody to tell, where there need not be a server: a folder, or nobody.
fn configure(suite: &Suite, daemon: &str) {
    suite.configure(
        daemon,
        &match daemon {
            "cmaild" => "[[recipient]]\nname = 'ops'\nto = 'ops@lab.test'\n".to_owned(),
            "cwebd" => format!("listen = '127.0.0.1:{}'\n", free_port()),
            _ => String::new(),
        },
    );
}

fn pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("packs")
}

fn value_report(unit: &str, values: impl Into<Value>) -> Vec<u8> {
    let values = values.into();
    pack(&json!({"service": "flood", "msg_type": "value", "resource_type": "r", "unit": unit, "values": values}))
}

/// Bytes that mean nothing, and the same each time (SplitMix64).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        noise.extend((z ^ (z >> 27)).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// What no ZeroMQ library would say, by the moment at which it is said.
fn nonsense(socket_type: &str) -> BTreeMap<&'static str, Vec<u8>> {
    let greeting = |from: usize, bytes: &[u8]| {
        let mut greeting = GREETING;
        greeting[from..from + bytes.len()].copy_from_slice(bytes);
        greeting.to_vec()
    };
    let greeted = |more: Vec<u8>| [GREETING.to_vec(), more].concat();
    let met = |more: Vec<u8>| [GREETING.to_vec(), ready(socket_type), more].concat();
    let property = |name: &str, claimed: u32, value: &[u8]| {
        let head = [b"\x05READY", &[u8::try_from(name.len()).expect("short")][..], name.as_bytes()].concat();
        command(&[&head[..], &claimed.to_be_bytes(), value].concat())
    };
    BTreeMap::from([
        ("noise", noise(100_000)),
        ("zeros", vec![0; 100_000]),
        ("ones", vec![0xff; 100_000]),
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)),
        ("half a greeting", GREETING[..30].to_vec()),
        ("another protocol", greeting(0, b"SSH-2.0-OpenSSH")),
        ("version 1", greeting(10, &[1, 0])),
        ("version 9", [greeting(10, &[9, 9]), claim(1 << 40)].concat()),
        ("mechanism curve", [greeting(12, b"CURVE"), noise(1000)].concat()),
        ("mechanism nonsense", greeting(12, &[b'A'; 20])),
        ("a huge frame at once", greeted(claim(1 << 40))),
        ("a frame of all bytes", greeted(claim(u64::MAX))),
        ("a huge command at once", greeted([&[6][..], &(1u64 << 40).to_be_bytes()].concat())),
        ("noise for READY", greeted(noise(100_000))),
        ("a message for READY", greeted(message(&[b"x"]))),
        ("an empty command", greeted(vec![4, 0])),
        ("an odd command", greeted(command(b"\x07NOTHING"))),
        ("a property that is not there", greeted(property("Socket-Type", 1 << 31, b"x"))),
        ("a large property", greeted(property("X", 60_000, &vec![b'x'; 60_000]))),
        ("a type that is none", greeted(ready("NONSENSE"))),
        ("a type that does not fit", greeted(ready("REP"))),
        ("a long identity", greeted(property("Identity", 300, &[b'x'; 300]))),
        ("a huge frame later", met(claim(1 << 40))),
        ("a frame of all bytes later", met(claim(u64::MAX))),
        ("noise later", met(noise(100_000))),
        ("reserved flags", met([0xf8, 1, 0].repeat(1000))),
        ("a huge command later", met([&[6][..], &(1u64 << 40).to_be_bytes()].concat())),
        ("a message too large", met([claim(1 << 20), vec![b'x'; 1 << 20]].concat())),
        ("frames without end", met([1, 1, b'x'].repeat(200_000))),
        ("empty frames without end", met([1, 0].repeat(200_000))),
    ])
}

#[test]
fn nonsense_at_every_socket_before_and_after_the_greeting() {
    let mut siege = Siege::of_all();
    let mut all = Vec::new();
    for (_, socket, socket_type) in SOCKETS {
        for (what, bytes) in nonsense(socket_type) {
            let mut raw = Raw::connect(&siege.socket(socket)).expect("connects");
            // It may be dropped before it has said it all.
            let _ = raw.0.write_all(&bytes);
            all.push((socket, what, raw));
        }
        siege.is_answered();
    }
    for (socket, what, mut raw) in all {
        assert!(raw.is_dropped(), "{socket} keeps who says {what}");
    }
    for (daemon, socket, _) in SOCKETS {
        siege.wait_for_counter(daemon, &format!("{socket}.handshake_failed"));
        siege.wait_for_counter(daemon, &format!("{socket}.peer_dropped"));
    }
    siege.goes_on();
}

#[test]
fn a_thousand_connections_that_say_nothing() {
    let mut siege = Siege::of_all();
    for (daemon, socket, _) in SOCKETS {
        let silent: Vec<Raw> = (0..1000).map(|_| Raw::connect(&siege.socket(socket)).expect("connects")).collect();
        siege.is_answered();
        siege.wait_for_counter(daemon, &format!("{socket}.too_many_handshakes"));
        drop(silent);
    }
    siege.goes_on();
}

#[test]
fn a_thousand_peers_that_say_nothing_after_the_handshake() {
    let mut siege = Siege::of_all();
    let mut all = Vec::new();
    for (daemon, socket, socket_type) in SOCKETS {
        let peers = (0..1000).filter_map(|_| Raw::handshake(&siege.socket(socket), socket_type).ok());
        all.extend(peers);
        siege.is_answered();
        siege.wait_for_counter(daemon, &format!("{socket}.too_many_peers"));
    }
    assert!(all.len() > 10_500, "only {} of 12,000 got through", all.len());
    siege.goes_on();
}

#[test]
fn subscribers_that_never_read_or_never_stop_subscribing() {
    let mut siege = Siege::begin("");
    let mut subscribers = Vec::new();
    for socket in ["feed", "stream"] {
        for _ in 0..20 {
            let mut raw = Raw::handshake(&siege.socket(socket), "SUB").expect("handshake");
            raw.0.write_all(&subscribe(b"")).expect("subscribes");
            subscribers.push(raw);
        }
        let mut greedy = Raw::handshake(&siege.socket(socket), "SUB").expect("handshake");
        let prefixes: Vec<u8> =
            (0..20_000).flat_map(|i| subscribe(format!("{i}.{}", "x".repeat(200)).as_bytes())).collect();
        let _ = greedy.0.write_all(&[subscribe(&[b'x'; 900]), prefixes].concat());
        assert!(greedy.is_dropped(), "{socket} keeps who subscribes without end");
    }
    let mut plugin = siege.plugin();
    for i in 0..100_000 {
        plugin.send(&[&value_report(&format!("u{}", i % 100), json!({"x": i, "y": 1.5}))]).expect("sent");
    }
    siege.is_answered();
    siege.is_well();
    let many: serde_json::Map<String, Value> =
        (0..1000).map(|i| (format!("a_name_that_is_long_{i}"), i.into())).collect();
    let large = value_report("large", many);
    for _ in 0..500 {
        plugin.send(&[&large]).expect("sent");
    }
    siege.is_answered();
    siege.is_well();
    let event =
        json!({"service": "flood", "msg_type": "event", "severity": "ERR", "unit": "e", "data": "x".repeat(60_000)});
    let large = pack(&event);
    for _ in 0..500 {
        plugin.send(&[&large]).expect("sent");
    }
    siege.goes_on();
    for (daemon, socket) in [("ccollectd", "feed"), ("cprocessd", "stream")] {
        siege.wait_for_counter(daemon, &format!("{socket}.too_many_subscriptions"));
        siege.wait_for_counter(daemon, &format!("{socket}.subscription_refused"));
    }
}

#[test]
fn clients_that_never_read_their_answers() {
    let mut siege = Siege::begin("");
    let mut plugin = siege.plugin();
    for i in 0..1500 {
        let up = json!({"service": "flood", "msg_type": "up", "unit": format!("u{i}"), "text": "x".repeat(500)});
        plugin.send(&[&pack(&up)]).expect("sent");
    }
    wait_for("all are known", || {
        (siege.suite.query(r#"{"query":"service-list"}"#)?.as_array()?.len() > 1500).then_some(())
    });
    let mut clients = Vec::new();
    for (socket, question) in [
        ("query", r#"{"query":"service-list"}"#),
        ("query", r#"{"query":"snapshot"}"#),
        ("query", r#"{"query":"events","after":0}"#),
        ("feed-query", r#"{"query":"snapshot"}"#),
        ("feed-query", r#"{"query":"events","after":0}"#),
        ("cprocessd.sock", r#"{"query":"health"}"#),
        ("ccollectd.sock", r#"{"query":"health"}"#),
        ("control", r#"{"order":"nonsense"}"#),
    ] {
        for _ in 0..5 {
            let mut client = Raw::handshake(&siege.socket(socket), "DEALER").expect("handshake");
            client.send(&[b"", question.as_bytes()]).expect("asked");
            for _ in 0..50 {
                // Those it does not want to hear any more, it does not take.
                let _ = client.0.set_nonblocking(true);
                let _ = client.send(&[b"", question.as_bytes()]);
            }
            clients.push(client);
        }
        siege.is_answered();
        siege.is_well();
    }
    siege.wait_for_counter("cprocessd", "query.answers_unread");
    siege.wait_for_counter("ccollectd", "feed-query.answers_unread");
    siege.goes_on();
}

#[test]
fn a_plugin_that_invents_units_without_end() {
    let mut siege = Siege::begin("");
    let mut plugin = siege.plugin();
    // The longest unit and the longest text there can be.
    let tail = "u".repeat(1000);
    for i in 0..11_000 {
        let text = "ü".repeat(2000);
        let up = json!({"service": "flood", "msg_type": "up", "unit": format!("{i}{tail}"), "text": text});
        plugin.send(&[&pack(&up)]).expect("sent");
    }
    siege.wait_for_counter("ccollectd", "plugins.too_many_units");
    siege.is_answered();
    // Samples may be lost on their way, so as many as it takes.
    let mut plugin = siege.plugin();
    let mut unit = 0;
    while siege.suite.counter("cprocessd", "engine.too_many_addresses") == 0 {
        for _ in 0..1000 {
            unit += 1;
            plugin.send(&[&value_report(&format!("v{unit}"), json!({"x": unit}))]).expect("sent");
        }
        assert!(unit < 200_000, "addresses without end");
    }
    siege.goes_on();
}

/// Runs `tests/python/hostile.py`.
#[track_caller]
fn hostile(args: &[&str]) -> Value {
    let script = repository().join("tests/python/hostile.py");
    let output = Command::new(python()).arg(script).args(args).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn reports_of_wrong_types_times_numbers_and_texts() {
    let mut siege = Siege::begin("");
    let sent = hostile(&["plugins", siege.socket("plugins").to_str().expect("utf-8")]);
    assert!(sent["sent"].as_u64().expect("number") > 190);
    for reason in [
        "undecodable",
        "frames",
        "reserved",
        "bad_time",
        "bad_ttl",
        "not_finite",
        "too_many_values",
        "doubled_values",
        "data_too_large",
        "data_too_deep",
    ] {
        siege.wait_for_counter("ccollectd", &format!("plugins.{reason}"));
    }
    // The same, as a person would read it.
    let health = siege.suite.cctl(&["health", "ccollectd"]);
    let text = String::from_utf8_lossy(&health.stdout).into_owned();
    assert!(text.contains("plugins.undecodable") && text.contains("plugins.doubled_values"), "{text}");
    // What could be mended arrived, cut and harmless.
    let rows = wait_for("the mended are known", || {
        let rows = siege.suite.query(r#"{"query":"service-list"}"#)?;
        rows.as_array()?.iter().any(|row| row["unit"] == "escape").then_some(rows)
    });
    let text = rows.as_array().expect("rows").iter().find(|row| row["unit"] == "text").expect("row")["text"].clone();
    assert_eq!(text, "ü".repeat(512));
    let values = siege.suite.query(r#"{"query":"last-value","pattern":"*!hostile.r:u.*"}"#).expect("values");
    assert!(values.as_array().expect("rows").iter().all(|row| row["value"].is_f64()), "{values}");
    siege.goes_on();
}

#[test]
fn questions_that_are_none() {
    let mut siege = Siege::of_all();
    for (daemon, socket, socket_type) in SOCKETS {
        if socket_type != "DEALER" {
            continue;
        }
        let answers = hostile(&["ask", siege.socket(socket).to_str().expect("utf-8")]);
        let answers = answers.as_object().expect("answers");
        assert!(answers.len() > 240);
        // `query: health` twice is one question to JSON; nothing else is any.
        let ok: Vec<&String> = answers.iter().filter(|(_, code)| *code == "ok").map(|(name, _)| name).collect();
        // cprocessd vouches for the author of an order that it passes on to feed-query.
        let harmless = |name: &str| {
            matches!(name, "twice in json" | "a costly pattern")
                || (socket == "feed-query" && name.starts_with("an order"))
        };
        assert!(ok.iter().all(|name| harmless(name)), "{socket} answers {ok:?}");
        assert_eq!(answers["deep msgpack"], "undecodable");
        assert_eq!(answers["deep json"], "undecodable");
        assert_eq!(answers["many frames"], "undecodable");
        assert_eq!(answers["unknown"], "unknown-request");
        siege.wait_for_counter(daemon, &format!("{socket}.undecodable"));
        siege.is_answered();
    }
    siege.goes_on();
}

/// `DAEMON --config FILE --check-config` on a file of these bytes, with these drop-ins.
#[track_caller]
fn check(daemon: &str, bytes: &[u8], drop_ins: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.toml");
    fs::write(&path, bytes).expect("written");
    fs::create_dir(dir.path().join("x.d")).expect("folder");
    for (i, drop_in) in drop_ins.iter().enumerate() {
        fs::write(dir.path().join(format!("x.d/{i}.toml")), drop_in).expect("written");
    }
    let began = Instant::now();
    let output = run(daemon, &["--config", path.to_str().expect("utf-8"), "--check-config"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{daemon} took {:?}", began.elapsed());
    let said = String::from_utf8(output.stderr).expect("the log is UTF-8");
    assert!(said.lines().count() <= 1 && said.len() < 1000, "{said}");
    (output.status.code(), said.replace(&format!("{}/", dir.path().display()), ""))
}

fn run(daemon: &str, args: &[&str]) -> Output {
    Command::new(tests::binaries().join(daemon)).args(args).output().expect("it runs")
}

#[test]
fn configuration_files_that_are_none() {
    let repeated = |text: &str, n: usize| text.repeat(n).into_bytes();
    for daemon in DAEMONS {
        // A key for a text, and one for a number or what is written like one.
        let (text, number) = match daemon {
            "ccollectd" | "cprocessd" => ("host", "journal_entries"),
            "cwebd" => ("public", "session_lifetime"),
            _ => ("host", "give_up_after"),
        };
        let with = |lines: &str| lines.replace("TEXT", text).replace("NUMBER", number);
        let refused = |what: &str, bytes: &[u8], drop_ins: &[&str], must_say: &str| {
            let must_say = with(must_say);
            let (code, said) = check(daemon, bytes, drop_ins);
            assert_eq!(code, Some(78), "{daemon}, {what}: {said}");
            assert!(said.contains(&must_say), "{daemon}, {what}: {said}");
        };
        refused("a key twice", with("TEXT = 'a'\n\nTEXT = 'b'\n").as_bytes(), &[], "x.toml:3: duplicate key TEXT");
        refused("a table twice", b"[a]\n[a]\n", &[], "x.toml:2: ");
        refused(
            "an unknown key",
            with("TEXTT = 'a'\n").as_bytes(),
            &[],
            "x.toml:1: unknown key TEXTT, did you mean TEXT?",
        );
        refused("a wrong type", with("\nTEXT = 5\n").as_bytes(), &[], "x.toml:2: TEXT is 5, but must be");
        refused("a table for text", with("[TEXT]\n").as_bytes(), &[], "x.toml:1: TEXT is a table");
        refused("text for a number", with("NUMBER = 'x'\n").as_bytes(), &[], "x.toml:1: NUMBER is \"x\"");
        refused("less than none", with("NUMBER = -1\n").as_bytes(), &[], "x.toml:1: NUMBER is -1");
        refused("nan", with("NUMBER = nan\n").as_bytes(), &[], "x.toml:1: NUMBER is nan");
        refused("128 bits", with("NUMBER = 99999999999999999999999\n").as_bytes(), &[], "x.toml:1: NUMBER is 9");
        refused("a date", with("NUMBER = 2026-01-01\n").as_bytes(), &[], "x.toml:1: NUMBER is \"2026");
        refused("NUL", with("TEXT = 'a\0b'\n").as_bytes(), &[], "x.toml:1: ");
        refused("NUL alone", &[0; 1000], &[], "x.toml:1: ");
        refused("invalid UTF-8", b"# a\nrun_dir = '\xff'\n", &[], "x.toml:2: is not UTF-8 text");
        refused("control characters", with("TEXT = \"\\u001b[2J\"\n").as_bytes(), &[], "x.toml:1: TEXT");
        refused("brackets", &repeated("[", 100_000), &[], "x.toml:1: is nested deeper than 64 levels");
        refused("brackets in a value", &[b"a = ".to_vec(), repeated("[", 100_000)].concat(), &[], "deeper than 64");
        refused("braces", &[b"a = ".to_vec(), repeated("{a=", 100_000)].concat(), &[], "deeper than 64");
        refused("dots", &[repeated("a.", 100_000), b"a = 1".to_vec()].concat(), &[], "deeper than 64");
        refused("a long key", &[repeated("k", 500_000), b" = 1".to_vec()].concat(), &[], "unknown key");
        refused("no value", with("TEXT =\n").as_bytes(), &[], "x.toml:1: missing value");
        refused("2 MiB", &repeated("# comment\n", 210_000), &[], "x.toml: is larger than 1 MiB");
        refused("noise", &noise(5000), &[], "x.toml:1: ");
        let other = with("run_dir = '/b'\n[TEXT]\n");
        refused(
            "a drop-in with another type",
            with("TEXT = 'none'\n").as_bytes(),
            &["run_dir = '/a'\n", &other],
            "x.d/1.toml:2: TEXT is a table",
        );
        refused(
            "an unknown key in a drop-in",
            with("TEXT = 'none'\n").as_bytes(),
            &["\n\nxyz = 1\n"],
            "x.d/0.toml:3: unknown key xyz",
        );
        refused("a drop-in that is none", with("TEXT = 'none'\n").as_bytes(), &["]"], "x.d/0.toml:1: ");
        let (code, said) = check(daemon, with("TEXT = 'none'\n").as_bytes(), &[&with("TEXT = 'none'\n"), ""]);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        for missing in ["/nonexistent/x.toml", "/", "/dev/zero"] {
            assert_eq!(run(daemon, &["--check-config", "--config", missing]).status.code(), Some(78), "{missing}");
        }
    }
    let port = "[[port]]\nname = 'a'\naddress = '127.0.0.1:1'\n";
    let (code, said) = check("ccollectd", port.as_bytes(), &[port]);
    assert_eq!(code, Some(78), "{said}");
    let alarm = "[[alarm]]\nname = 'a'\nrule = '*!a.b:c.d > 5 WARN'\n";
    let (code, said) = check("cprocessd", alarm.as_bytes(), &[alarm]);
    assert_eq!(code, Some(78), "{said}");
}

#[test]
fn a_bad_file_on_sighup_changes_nothing() {
    let mut siege = Siege::of_all();
    for daemon in DAEMONS {
        let path = siege.suite.path(&format!("etc/{daemon}.toml"));
        let good = fs::read_to_string(&path).expect("read");
        for bad in [&b"]"[..], b"hosst = 1\n", &vec![b'['; 100_000], b"\xff", &vec![b'#'; 2 << 20]] {
            let said = siege.suite.log(daemon).matches("stays as it was").count();
            fs::write(&path, bad).expect("written");
            siege.suite.daemon(daemon).signal(Signal::SIGHUP);
            wait_for("it says so", || {
                (siege.suite.log(daemon).matches("stays as it was").count() > said).then_some(())
            });
        }
        fs::write(&path, good).expect("written");
    }
    // Five refusals each are said; they are five changes.
    siege.goes_on();
}

#[test]
fn command_lines_that_are_none() {
    for daemon in DAEMONS.into_iter().chain(["cctl"]) {
        for args in [&["--nonsense"][..], &["--config"], &["--confi", "x"], &["\u{1b}[2J"], &["--print=yes"]] {
            let output = run(daemon, args);
            assert_eq!(output.status.code(), Some(64), "{daemon} {args:?}");
            assert!(!output.stderr.is_empty(), "{daemon} {args:?}");
        }
    }
}

#[test]
fn a_second_daemon_is_told_that_the_sockets_are_in_use() {
    let mut siege = Siege::of_all();
    for daemon in DAEMONS {
        let before = siege.suite.log(daemon).len();
        let mut second = Process::start(&mut siege.suite.command(daemon));
        assert_eq!(second.exit_code(), 1);
        let said = siege.suite.log(daemon).split_off(before);
        assert!(said.contains("is in use by another process"), "{said}");
    }
    siege.goes_on();
}

/// A suite whose daemons have run and stopped, so that their databases are there.
fn stopped() -> Suite {
    let mut suite = Suite::running("", "default_rules = false\n");
    for daemon in FOLLOWERS {
        configure(&suite, daemon);
        suite.start(daemon);
    }
    for daemon in FOLLOWERS {
        wait_for("it answers", || suite.ask(&format!("{daemon}.sock"), HEALTH));
    }
    for daemon in DAEMONS {
        assert_eq!(suite.daemon(daemon).terminate(), 0);
    }
    suite
}

const DATABASES: [(&str, &str); 6] = [
    ("ccollectd", "feed.db"),
    ("cprocessd", "cprocessd.db"),
    ("cmaild", "cmaild.db"),
    ("cbotd", "cbotd.db"),
    ("csmsd", "csmsd.db"),
    ("cwebd", "cwebd.db"),
];

/// Starts a daemon that must refuse to, and returns its last words.
#[track_caller]
fn refuses_to_start(suite: &Suite, daemon: &str) -> String {
    refuses_to_start_by(suite, suite.command(daemon), daemon)
}

#[track_caller]
fn refuses_to_start_by(suite: &Suite, mut command: Command, daemon: &str) -> String {
    let before = suite.log(daemon).len();
    let mut process = Process::start(&mut command);
    let code = process.exit_code();
    let said = suite.log(daemon).split_off(before);
    assert_eq!(code, 1, "{said}");
    said
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    let suite = stopped();
    for (daemon, file) in DATABASES {
        let path = suite.path(&format!("state/{daemon}/{file}"));
        let db = rusqlite::Connection::open(&path).expect("opens");
        db.execute("UPDATE schema SET version = 99", []).expect("changes");
        drop(db);
        let before = fs::read(&path).expect("read");
        let said = refuses_to_start(&suite, daemon);
        assert!(said.contains("has schema 99") && said.contains(file), "{said}");
        assert_eq!(fs::read(&path).expect("read"), before);
    }
}

#[test]
fn a_database_of_somebody_else_is_refused_and_left_as_it_is() {
    let suite = stopped();
    let files = DATABASES.map(|(daemon, file)| suite.path(&format!("state/{daemon}/{file}")));
    let of_others = [1, 0, 0, 5, 1, 2].map(|other: usize| fs::read(&files[other]).expect("read"));
    for (((daemon, file), path), theirs) in DATABASES.into_iter().zip(&files).zip(of_others) {
        clear_wal(path);
        fs::write(path, &theirs).expect("written");
        // Notifiers keep the same tables: that one has another's is for nobody to see.
        let said = refuses_to_start(&suite, daemon);
        assert!(said.contains("which is not of this daemon") && said.contains(file), "{said}");
        assert_eq!(fs::read(path).expect("read"), theirs);
    }
}

#[test]
fn a_database_that_cannot_be_written_is_named() {
    let suite = stopped();
    for (daemon, file) in DATABASES {
        let (folder, path) = (suite.path(&format!("state/{daemon}")), suite.path(&format!("state/{daemon}/{file}")));
        clear_wal(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("our file");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).expect("our folder");
        let mut command = if servers::is_root() {
            // Without what lets root write everywhere.
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-dac_override,-dac_read_search", "--"]).arg(tests::binaries().join(daemon));
            command
        } else {
            Command::new(tests::binaries().join(daemon))
        };
        command = suite.command_by(command, daemon);
        let said = refuses_to_start_by(&suite, command, daemon);
        assert!(said.contains(file) && said.contains("readonly database"), "{said}");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our folder");
    }
}

#[test]
fn a_damaged_database_is_set_aside_and_said_and_the_daemon_goes_on() {
    let mut suite = stopped();
    for (daemon, file) in DATABASES {
        let path = suite.path(&format!("state/{daemon}/{file}"));
        let good = fs::read(&path).expect("read");
        let half = good[..good.len() / 2].to_vec();
        let mut holes = good.clone();
        holes[100..].fill(0);
        for (what, bad) in [("nothing", Vec::new()), ("noise", noise(50_000)), ("half of it", half), ("holes", holes)] {
            clear_wal(&path);
            fs::write(&path, &bad).expect("written");
            let before = suite.log(daemon).len();
            suite.start(daemon);
            wait_for("it answers", || suite.ask(&format!("{daemon}.sock"), HEALTH));
            let said = suite.log(daemon).split_off(before);
            let lines: Vec<&str> = said.lines().filter(|line| line.contains("the database was damaged")).collect();
            let [line] = lines.as_slice() else { panic!("{what}: {said}") };
            assert!(line.contains(file) && line.contains("ERROR"), "{what}: {line}");
            let kept = line.split("is kept as ").nth(1).and_then(|rest| rest.split(';').next()).expect("its new name");
            assert_eq!(fs::read(kept).expect("kept"), bad, "{what}");
            assert_eq!(suite.daemon(daemon).terminate(), 0);
        }
    }
    for daemon in DAEMONS {
        suite.start(daemon);
    }
    suite.wait_for_host();
}

fn clear_wal(path: &Path) {
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", path.display()));
    }
}
