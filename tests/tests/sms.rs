//! From a fault to the text on the telephone, through a real gateway (Kannel) to its SMSC.

use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::kannel::{self, Kannel, Text};
use tests::pki::Pki;
use tests::servers::free_port;
use tests::{Plugin, Process, Suite, wait_at_most, wait_for};

const NUMBER: &str = "+4912345678";
/// What `drill` reports is worth a text.
const DRILLS: &str = "[[classify]]\npattern = '*!drill'\nkind = 'down'\nseverity = 'CRIT'\n\
                      [judging]\nhost_down_after = '3s'\n";

/// A provider of csmsd that is this gateway.
fn provider(suite: &Suite, name: &str, url: &str, password: &str) -> String {
    let file = suite.path(&format!("etc/{name}.password"));
    fs::write(&file, format!("{password}\n")).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our file");
    let file = file.display();
    format!(
        "[[provider]]\nname = '{name}'\npreset = 'kannel'\nurl = '{url}'\naccount = '{}'\nfrom = '2001'\n\
         token_file = '{file}'\n",
        kannel::USER
    )
}

/// All three daemons, csmsd with these providers and one telephone, which takes as many texts as there are.
fn suite(providers: impl FnOnce(&Suite) -> String) -> Suite {
    paced_suite(providers, "[]")
}

/// Likewise, with buckets.
fn paced_suite(providers: impl FnOnce(&Suite) -> String, pace: &str) -> Suite {
    let mut suite = Suite::running("", DRILLS);
    let providers = providers(&suite);
    let recipient = format!("[[recipient]]\nname = 'on duty'\nto = '{NUMBER}'\npace = {pace}\n");
    suite.configure("csmsd", &format!("{providers}{recipient}"));
    // All that it logs: the libraries below it must not show what it hides.
    let mut command = suite.command("csmsd");
    command.arg("-vv");
    suite.start_by(command, "csmsd");
    wait_for("csmsd answers", || suite.ask("csmsd.sock", r#"{"query":"health"}"#));
    // It tells what happens from here on, and what is open by then; nothing is.
    wait_for("csmsd follows", || suite.log("csmsd").contains("following").then_some(()));
    suite
}

fn with_kannel() -> (Kannel, Suite) {
    let kannel = Kannel::start();
    let suite = suite(|suite| provider(suite, "main", &kannel.url(), kannel::PASSWORD));
    (kannel, suite)
}

/// `drill:UNIT` was up, and is down.
fn fails(plugin: &mut Plugin, unit: &str) {
    plugin.state("up", unit, common::time::UnixMillis::now().0);
    plugin.state("down", unit, common::time::UnixMillis::now().0);
}

/// The result of the newest row of the ledger, once it says that it was sent.
#[track_caller]
fn sent(suite: &Suite, address: &str) -> String {
    wait_for("the ledger says sent", || {
        let rows = suite.ask("csmsd.sock", r#"{"query":"ledger"}"#)?;
        let row = rows
            .as_array()?
            .iter()
            .find(|row| row["address"].as_str().is_some_and(|text| text.contains(address)) && row["state"] == "sent")?;
        Some(row["result"].as_str()?.to_owned())
    })
}

#[test]
fn a_dead_host_is_a_text_and_so_is_its_recovery_but_a_mere_error_is_none() {
    let kannel = Kannel::start();
    let mut suite = Suite::running("", "[judging]\nhost_down_after = '3s'\n");
    let providers = provider(&suite, "main", &kannel.url(), kannel::PASSWORD);
    suite.configure("csmsd", &format!("{providers}[[recipient]]\nname = 'on duty'\nto = '{NUMBER}'\npace = []\n"));
    suite.start("csmsd");
    let mut plugin = Plugin::connect(&suite);
    fails(&mut plugin, "printer");
    let error = suite.wait_for_event("down", "drill:printer");
    assert_eq!(error["severity"], "ERR");

    suite.kill("ccollectd");
    let text = kannel.wait_for_text("alive");
    assert!(text.body.starts_with("CRIT DOWN testhost!alive:"), "{text:?}");
    assert_eq!((text.to.as_str(), text.segments), (NUMBER, 1));
    assert!(sent(&suite, "alive").starts_with("main took it for +4912…78"), "{}", sent(&suite, "alive"));

    suite.start("ccollectd");
    let text = kannel.wait_for_text("INFO UP testhost!alive:");
    assert!(text.body.contains(" after "), "{text:?}");
    assert!(!kannel.texts().iter().any(|text| text.body.contains("printer")), "{:?}", kannel.texts());
    assert_eq!(suite.daemon("csmsd").terminate(), 0);
    // Neither the number nor the password is anywhere but where it belongs.
    for secret in [kannel::PASSWORD, NUMBER] {
        assert!(!suite.log("csmsd").contains(secret), "{}", suite.log("csmsd"));
        let database = fs::read(suite.path("state/csmsd/csmsd.db")).expect("the outbox");
        assert!(!String::from_utf8_lossy(&database).contains(secret), "{secret} is in the outbox");
    }
}

#[test]
fn a_text_arrives_whole_in_any_alphabet() {
    let (kannel, suite) = with_kannel();
    let mut plugin = Plugin::connect(&suite);
    let mut event = |unit: &str, text: &str| {
        plugin.push(&json!({ "service": "note", "msg_type": "event", "unit": unit, "severity": "CRIT", "text": text }));
        kannel.wait_for_text(&format!("note:{unit}"))
    };
    let text = event("umlauts", "Größe von /ümläüt: 95 % {€} [~]^|\\ – “voll”…");
    let expected = "CRIT LOG testhost!note:umlauts: Größe von /ümläüt: 95 % {€} [~]^|\\ - \"voll\"...";
    assert_eq!(text, Text { to: NUMBER.into(), body: expected.into(), segments: 1 });

    let text = event("cyrillic", "сервер недоступен 😀");
    assert_eq!(text.body, "CRIT LOG testhost!note:cyrillic: сервер недоступен 😀");
    assert_eq!(text.segments, 1);

    let long = format!("{} end", "0123456789 ".repeat(24));
    let text = event("long", &long);
    assert_eq!(text.body, format!("CRIT LOG testhost!note:long: {long}"));
    assert_eq!(text.segments, 2);

    let text = event("wide", &"я".repeat(290));
    assert!(text.body.starts_with("CRIT LOG testhost!note:wide: яяяя") && text.body.ends_with("я..."), "{text:?}");
    assert_eq!((text.segments, text.body.encode_utf16().count()), (3, 3 * 67));

    let text = event("nasty&to=+1", "\u{202e}a%00&to=%2B999\r\n\0\u{1b}\u{2066}<b>");
    assert_eq!((text.to.as_str(), text.body.ends_with("a%00&to=%2B999    <b>")), (NUMBER, true), "{text:?}");
    assert!(!text.body.contains(['\u{202e}', '\u{2066}']) && !text.body.contains(char::is_control), "{text:?}");
}

#[test]
fn a_wrong_password_loses_nothing_and_is_mended_by_a_reload() {
    let kannel = Kannel::start();
    let mut suite = suite(|suite| provider(suite, "main", &kannel.url(), "wr0ng-password"));
    let mut plugin = Plugin::connect(&suite);
    fails(&mut plugin, "web");
    wait_for("csmsd says what is wrong", || {
        suite.log("csmsd").contains("main refuses us: 403 Authorization failed").then_some(())
    });
    assert_eq!(kannel.texts(), []);
    fs::write(suite.path("etc/main.password"), kannel::PASSWORD).expect("written");
    suite.daemon("csmsd").signal(Signal::SIGHUP);
    assert!(kannel.wait_for_text("drill:web").body.starts_with("CRIT DOWN"));
    sent(&suite, "drill:web");
    for secret in [kannel::PASSWORD, "wr0ng-password", NUMBER] {
        assert!(!suite.log("csmsd").contains(secret), "{}", suite.log("csmsd"));
    }
}

#[test]
fn what_happens_while_the_gateway_is_dead_comes_when_it_is_back() {
    let (mut kannel, suite) = with_kannel();
    let mut plugin = Plugin::connect(&suite);
    kannel.kill_smsbox();
    fails(&mut plugin, "one");
    wait_for("csmsd says so", || suite.log("csmsd").contains("main is away: cannot connect").then_some(()));
    fails(&mut plugin, "two");
    suite.wait_for_event("down", "drill:two");
    kannel.restart_smsbox();
    kannel.wait_for_text("drill:one");
    kannel.wait_for_text("drill:two");
    for unit in ["one", "two"] {
        sent(&suite, &format!("drill:{unit}"));
        let copies = kannel.texts().iter().filter(|text| text.body.contains(&format!("drill:{unit}"))).count();
        assert_eq!(copies, 1, "{:?}", kannel.texts());
    }
    // The gateway keeps what it accepted while its SMSC is away.
    kannel.kill_fakesmsc();
    fails(&mut plugin, "three");
    sent(&suite, "drill:three");
    kannel.restart_fakesmsc();
    kannel.wait_for_text("drill:three");
}

#[test]
fn the_second_provider_takes_what_the_first_cannot() {
    let kannel = Kannel::start();
    let nobody = free_port();
    let suite = suite(|suite| {
        provider(suite, "main", &format!("http://127.0.0.1:{nobody}"), "x1y2z3")
            + &provider(suite, "backup", &kannel.url(), kannel::PASSWORD)
    });
    let mut plugin = Plugin::connect(&suite);
    fails(&mut plugin, "web");
    // Nothing was said to the first, so it is no copy of anything.
    assert!(kannel.wait_for_text("drill:web").body.starts_with("CRIT DOWN"));
    let words = sent(&suite, "drill:web");
    assert!(words.starts_with("backup took it for +4912…78 after main is away: cannot connect"), "{words}");
}

#[test]
fn without_any_configuration_texts_are_files() {
    let mut suite = Suite::running("", DRILLS);
    suite.configure("csmsd", "");
    suite.start("csmsd");
    wait_for("csmsd answers", || suite.ask("csmsd.sock", r#"{"query":"health"}"#));
    let mut plugin = Plugin::connect(&suite);
    fails(&mut plugin, "web");
    let file = wait_for("a file", || fs::read_dir(suite.path("state/csmsd/outbox")).ok()?.flatten().next());
    let text = wait_for("it is whole", || fs::read_to_string(file.path()).ok().filter(|text| !text.is_empty()));
    assert!(text.starts_with("To: operator\n\nCRIT DOWN testhost!drill:web"), "{text}");
}

#[test]
fn a_provider_has_to_prove_who_it_is() {
    let mut suite = Suite::running("", DRILLS);
    let pki = Pki::new(&suite.path("pki"));
    let port = free_port();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")]);
    server.arg("-cert").arg(&pki.cert).arg("-key").arg(&pki.key);
    let _server = Process::start(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("it listens", || TcpStream::connect(("127.0.0.1", port)).ok());

    // It answers every GET with 200. Its certificate is for localhost and 127.0.0.1, by an authority of its own.
    let request = "[provider.request]\nmethod='GET'\nquery={text='{text}'}\naccepted={status=[200]}\n";
    let ca = format!("ca_file='{}'\n", pki.ca_pem.display());
    let of = |name: &str, host: &str, ca: &str| {
        format!(
            "[[provider]]\nname='{name}'\nurl='https://{host}:{port}'\n{ca}{request}\
             [[recipient]]\nname='{name}'\nto='{NUMBER}'\nproviders=['{name}']\npace=[]\n"
        )
    };
    let config = of("known", "localhost", &ca) + &of("unknown", "localhost", "") + &of("other", "127.0.0.2", &ca);
    suite.configure("csmsd", &config);
    suite.start("csmsd");
    wait_for("csmsd follows", || suite.ask("csmsd.sock", r#"{"query":"health"}"#));
    let mut plugin = Plugin::connect(&suite);
    fails(&mut plugin, "web");
    assert!(sent(&suite, "drill:web").starts_with("known took it"));
    for (name, why) in [("unknown", "UnknownIssuer"), ("other", "")] {
        let said = wait_for("it is not trusted", || {
            let log = suite.log("csmsd");
            let line = log.lines().find(|line| line.contains(&format!("provider {name} fails: cannot connect")))?;
            Some(line.to_owned())
        });
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_token_may_be_a_credential_of_the_service_manager() {
    let suite = Suite::new("", "");
    let provider = "[[provider]]\nname='push'\npreset='ntfy'\ntoken_file='ntfy'\n";
    suite.configure("csmsd", &format!("{provider}[[recipient]]\nto='ops'\n"));
    let check = |credentials: Option<&str>| {
        let mut command = suite.command("csmsd");
        command.arg("--check-config").env_remove("CREDENTIALS_DIRECTORY");
        command.envs(credentials.map(|folder| ("CREDENTIALS_DIRECTORY", suite.path(folder))));
        Process::start(&mut command).exit_code()
    };
    let beside = format!("token_file: {} does not exist", suite.path("etc/ntfy").display());
    for none in [None, Some("log")] {
        assert_eq!(check(none), 78);
        assert_eq!(suite.log("csmsd").lines().last().map(|line| line.contains(&beside)), Some(true));
    }
    fs::write(suite.path("state/ntfy"), "tk_1\n").expect("written");
    assert_eq!(check(None), 78);
    assert_eq!(check(Some("state")), 0);
    fs::write(suite.path("etc/ntfy"), "tk_1\n").expect("written");
    assert_eq!(check(None), 0);
    // The credential is the one that is taken.
    fs::write(suite.path("state/ntfy"), "tk_1\ntk_2\n").expect("written");
    assert_eq!(check(Some("state")), 78);
}

/// When each text was there, as Kannel's SMSC has it.
struct Arrivals {
    watcher: Option<thread::JoinHandle<Vec<Instant>>>,
    is_over: Arc<AtomicBool>,
}

impl Arrivals {
    fn watch(kannel: &Arc<Kannel>) -> Self {
        let (kannel, is_over) = (kannel.clone(), Arc::new(AtomicBool::new(false)));
        let until = is_over.clone();
        let watcher = thread::spawn(move || {
            let mut arrivals = Vec::new();
            loop {
                let ends = until.load(Ordering::Relaxed);
                arrivals.resize(kannel.texts().len(), Instant::now());
                if ends {
                    return arrivals;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { watcher: Some(watcher), is_over }
    }

    fn end(mut self) -> Vec<Instant> {
        self.is_over.store(true, Ordering::Relaxed);
        self.watcher.take().expect("it ends once").join().expect("it does not panic")
    }
}

#[test]
fn in_a_storm_a_telephone_gets_no_more_than_its_buckets_and_all_of_it_is_told() {
    /// Between csmsd's and the SMSC's moment of a text.
    const ON_THE_WAY: Duration = Duration::from_millis(700);
    const BUCKETS: [(usize, u64); 3] = [(1, 3), (3, 15), (5, 40)];
    const UNITS: usize = 60;
    let kannel = Arc::new(Kannel::start());
    let provider = |suite: &Suite| provider(suite, "main", &kannel.url(), kannel::PASSWORD);
    let mut suite = paced_suite(provider, "['1/3s', '3/15s', '5/40s']");
    let arrivals = Arrivals::watch(&kannel);
    let mut plugin = Plugin::connect(&suite);
    for unit in 0..UNITS {
        fails(&mut plugin, &format!("unit{unit}"));
        suite.wait_for_event("down", &format!("drill:unit{unit}"));
        // Twice it dies while it waits for a bucket.
        if unit == UNITS / 3 || unit == UNITS / 2 {
            suite.kill("csmsd");
            suite.start("csmsd");
        }
    }
    for unit in 0..UNITS {
        plugin.state("up", &format!("unit{unit}"), common::time::UnixMillis::now().0);
    }
    // The first of them may go at once, and no other.
    let waits = wait_for("the ledger says why it waits", || {
        let rows = suite.ask("csmsd.sock", r#"{"query":"ledger","limit":1000}"#)?;
        let row = rows.as_array()?.iter().find(|row| row["state"] == "waiting")?;
        row["result"].as_str().filter(|result| result.starts_with("waits for ")).map(str::to_owned)
    });
    assert!(waits.ends_with(" to this recipient"), "{waits}");
    suite.wait_for_event("up", &format!("drill:unit{}", UNITS - 1));
    let rows = wait_at_most(Duration::from_mins(4), "all of it is told", || {
        let rows = suite.ask("csmsd.sock", r#"{"query":"ledger","limit":1000}"#)?;
        let rows = rows.as_array()?.clone();
        (rows.len() >= 2 * UNITS && rows.iter().all(|row| row["state"] == "sent")).then_some(rows)
    });
    let arrived = arrivals.end();
    eprintln!("{} events in {} texts", rows.len(), arrived.len());
    for (messages, secs) in BUCKETS {
        let window = Duration::from_secs(secs).saturating_sub(ON_THE_WAY);
        for texts in arrived.windows(messages + 1) {
            let took = texts[messages].duration_since(texts[0]);
            assert!(took >= window, "{} texts within {took:?}: {arrived:?}", messages + 1);
        }
    }
    let texts = kannel.texts();
    assert!(texts[0].body.starts_with("CRIT DOWN testhost!drill:unit0"), "{texts:?}");
    assert!(texts.iter().all(|text| text.segments <= 3), "{texts:?}");
    assert!(arrived.len() < 20, "{texts:?}");
}

#[test]
fn the_budget_ends_with_a_text_that_says_so_and_is_remembered_by_the_next_start() {
    let kannel = Kannel::start();
    let mut suite = suite(|suite| {
        let provider = provider(suite, "main", &kannel.url(), kannel::PASSWORD);
        // A text is 3 short messages at most, and a cap twice that.
        format!("[budget]\nper_day = 0.6\n{provider}price = 0.1\n")
    });
    let mut plugin = Plugin::connect(&suite);
    let mut texts = Vec::new();
    for unit in 0.. {
        fails(&mut plugin, &format!("unit{unit}"));
        let text = kannel.wait_for_text(&format!("drill:unit{unit}"));
        assert_eq!(text.segments, 1, "{text:?}");
        texts.push(text.body.clone());
        if text.body.contains("TEXTS PAUSE") {
            break;
        }
    }
    let last = texts.last().expect("a text");
    assert!(last.ends_with(" TEXTS PAUSE, cost cap reached: the next by mail"), "{texts:?}");
    // Of 0.6, 0.3 is kept back for the last one, and as much for each before it is sent.
    assert_eq!(texts.len(), 2, "{texts:?}");
    fails(&mut plugin, "late");
    let waits = |suite: &Suite| {
        wait_for("the ledger says why it waits", || {
            let rows = suite.ask("csmsd.sock", r#"{"query":"ledger"}"#)?;
            let row = rows.as_array()?.iter().find(|row| row["state"] == "waiting")?;
            row["result"].as_str().filter(|result| result.starts_with("waits for ")).map(str::to_owned)
        })
    };
    let reason = waits(&suite);
    assert!(reason.ends_with("the cap of 0.60 in 1d is reached"), "{reason}");
    assert_eq!(suite.counter("csmsd", "outbox.paused"), 1);
    suite.kill("csmsd");
    suite.start("csmsd");
    wait_for("csmsd answers", || suite.ask("csmsd.sock", r#"{"query":"health"}"#));
    assert!(waits(&suite).ends_with("the cap of 0.60 in 1d is reached"));
    assert_eq!(kannel.texts().len(), 2, "{:?}", kannel.texts());
}

/// Counts the requests for a URL.
fn switch() -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/ping/s3cret-heart", listener.local_addr().expect("an address"));
    let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            seen.lock().expect("no panic").push(String::from_utf8_lossy(&request[..length]).into_owned());
            // Who hangs up early has asked all the same.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK");
        }
    });
    (url, requests)
}

#[test]
fn the_heartbeat_url_is_called_while_cprocessd_beats_and_silence_says_that_it_does_not() {
    let (url, requests) = switch();
    let mut suite = Suite::running("", DRILLS);
    fs::write(suite.path("etc/heart.url"), format!("{url}\n")).expect("written");
    suite.configure("csmsd", "[heartbeat]\nurl_file = 'heart.url'\nevery = '10s'\nmethod = 'POST'\n");
    suite.start("csmsd");
    let called = || requests.lock().expect("no panic").len();
    wait_for("it is called", || (called() >= 1).then_some(()));
    assert!(requests.lock().expect("no panic")[0].starts_with("POST /ping/s3cret-heart HTTP/1.1\r\n"));
    wait_for("and again", || (called() >= 2).then_some(()));

    suite.kill("cprocessd");
    wait_for("it says so", || suite.log("csmsd").contains("a publisher does not beat").then_some(()));
    let (before, since) = (called(), Instant::now());
    while since.elapsed() < Duration::from_secs(12) {
        assert_eq!(called(), before, "nobody beats");
        thread::sleep(Duration::from_millis(100));
    }
    suite.start("cprocessd");
    wait_for("it is called again", || (called() > before).then_some(()));
    assert_eq!(suite.counter("csmsd", "heartbeat.failed"), 0);
    assert!(suite.counter("csmsd", "heartbeat.called") >= 2);
    assert!(!suite.log("csmsd").contains("s3cret"), "{}", suite.log("csmsd"));
}
