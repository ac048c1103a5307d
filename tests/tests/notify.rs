//! What reaches people, counted where they read it: in the mailbox behind Exim, in the channel on InspIRCd, at the SMSC
//! behind Kannel.
//!
//! `tests/run` kills each notifier and its server 5 times, `tests/long` 50 times (`CAIRN_NOTIFIER_KILLS`). A failure prints
//! the seed of its moments, which `CAIRN_SEED` repeats.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::browser::Browser;
use tests::exim::Exim;
use tests::irc::{Observer, Server};
use tests::kannel::{self, Kannel};
use tests::servers::free_port;
use tests::{Moments, Plugin, Suite, Target, wait_at_most, wait_for};

/// Faults in a drill, at least.
const FAULTS: u32 = 500;
/// All of a drill must have been told by then.
const TOLD_WITHIN: Duration = Duration::from_mins(3);

fn kills() -> u32 {
    std::env::var("CAIRN_NOTIFIER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// A message as its reader has it.
struct Received {
    /// The Message-ID, where the medium has one.
    id: Option<String>,
    /// It says of itself that it may be a copy.
    again: bool,
    text: String,
}

/// A medium: the server, and what can be read behind it.
trait Reader {
    /// The notifier's name.
    const DAEMON: &'static str;

    /// Its configuration, with one recipient who takes everything from ERR on.
    fn configuration(&self, dir: &Path) -> String;

    fn received(&self) -> Vec<Received>;

    /// SIGKILL to the server, and a new start after `pause`.
    fn restart_server(&mut self, pause: &mut dyn FnMut());
}

struct Mailbox(Exim);

impl Reader for Mailbox {
    const DAEMON: &'static str = "cmaild";

    fn configuration(&self, _: &Path) -> String {
        mail_configuration(&self.0)
    }

    fn received(&self) -> Vec<Received> {
        let read = |mail: tests::exim::Mail| Received {
            id: Some(mail.header("Message-ID").to_owned()),
            again: !mail.header("X-Cairn-Resent").is_empty(),
            text: mail.body,
        };
        self.0.mails().into_iter().map(read).collect()
    }

    fn restart_server(&mut self, pause: &mut dyn FnMut()) {
        self.0.kill();
        pause();
        self.0.restart();
    }
}

struct Channel {
    server: Server,
    observer: Observer,
    /// What was read before the server was last killed.
    before: Vec<String>,
}

impl Channel {
    fn new() -> Self {
        let server = Server::patient_inspircd();
        let observer = Observer::join(server.port, "reader", &[("#err", "")]);
        Self { server, observer, before: Vec::new() }
    }

    fn lines(&self) -> Vec<String> {
        self.observer.lines("#err").into_iter().map(|line| line.text).collect()
    }
}

impl Reader for Channel {
    const DAEMON: &'static str = "cbotd";

    fn configuration(&self, _: &Path) -> String {
        irc_configuration(&self.server, "[[network.channel]]\nname = '#err'\nseverity = 'ERR'\n")
    }

    fn received(&self) -> Vec<Received> {
        let read = |text: String| Received { id: None, again: text.contains("(again?)"), text };
        self.before.iter().cloned().chain(self.lines()).map(read).collect()
    }

    fn restart_server(&mut self, pause: &mut dyn FnMut()) {
        self.server.kill();
        // What was under way to the reader arrives all the same.
        wait_for("the reader is disconnected", || self.observer.is_gone().then_some(()));
        self.before.extend(self.lines());
        pause();
        self.server.start();
        self.observer = Observer::join(self.server.port, "reader", &[("#err", "")]);
    }
}

struct Telephone(Kannel);

impl Reader for Telephone {
    const DAEMON: &'static str = "csmsd";

    fn configuration(&self, dir: &Path) -> String {
        sms_configuration(&self.0, dir).replace("severity = 'CRIT'", "severity = 'ERR'")
    }

    fn received(&self) -> Vec<Received> {
        let read = |text: kannel::Text| Received { id: None, again: text.body.starts_with("(again"), text: text.body };
        self.0.texts().into_iter().map(read).collect()
    }

    fn restart_server(&mut self, pause: &mut dyn FnMut()) {
        self.0.kill_smsbox();
        pause();
        self.0.restart_smsbox();
    }
}

fn secret(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, format!("{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
    path
}

fn mail_configuration(exim: &Exim) -> String {
    format!(
        "[smtp]\nhost = 'localhost'\nport = {}\nca_file = '{}'\nuser = 'mon'\npassword_file = '{}'\ntimeout = '5s'\n\
         [[recipient]]\nname = 'ops'\nto = 'ops@lab.test'\nseverity = 'ERR'\n",
        exim.port,
        exim.pki.ca_pem.display(),
        exim.password_file(Exim::PASSWORD).display()
    )
}

/// A server of our own may be told as much as we like.
fn irc_configuration(server: &Server, channels: &str) -> String {
    format!(
        "[[network]]\nname = 'lab'\nserver = '127.0.0.1'\nport = {}\ntls = false\nline_interval = '50ms'\nburst = 20\n\
         {channels}",
        server.port
    )
}

fn sms_configuration(kannel: &Kannel, dir: &Path) -> String {
    format!(
        "[[provider]]\nname = 'main'\npreset = 'kannel'\nurl = '{}'\naccount = '{}'\nfrom = '2001'\ntoken_file = '{}'\n\
         [[recipient]]\nname = 'on duty'\nto = '+4912345678'\nseverity = 'CRIT'\npace = []\n",
        kannel.url(),
        kannel::USER,
        secret(dir.join("etc/kannel.password"), kannel::PASSWORD).display()
    )
}

fn ledger(suite: &Suite, daemon: &str) -> Vec<Value> {
    let rows = wait_for("the ledger", || suite.ask(&format!("{daemon}.sock"), r#"{"query":"ledger","limit":10000}"#));
    rows.as_array().cloned().expect("rows")
}

/// Faults that come and go, each on an address of its own, until `stop` and at least [`FAULTS`]. Returns how many.
fn inject(plugin: &mut Plugin, stop: &AtomicBool, moments: &mut Moments) -> u32 {
    let mut fault = 0;
    while fault < FAULTS || !stop.load(Ordering::Relaxed) {
        for state in ["up", "down", "up"] {
            plugin.state(state, &unit(fault), common::time::UnixMillis::now().0);
            // Slower in a longer drill, since ccollectd takes 5000 units.
            moments.pause(1, u64::from(kills().max(12)));
        }
        fault += 1;
    }
    fault
}

/// No name of a fault is the beginning of another.
fn unit(fault: u32) -> String {
    format!("fault{fault:05}")
}

/// Each fault arrives, alone or named in a summary, as does its end; copies are at most one per kill and marked.
fn every_fault_is_read<R: Reader>(mut reader: R) {
    let mut suite = Suite::running("", "default_rules = false\n");
    suite.configure(R::DAEMON, &reader.configuration(&suite.path("")));
    suite.start(R::DAEMON);
    let socket = format!("{}.sock", R::DAEMON);
    let answers = |suite: &Suite| {
        wait_for("the notifier answers", || suite.ask(&socket, r#"{"query":"health"}"#));
    };
    answers(&suite);
    let stop = AtomicBool::new(false);
    let mut moments = Moments::from_environment();
    let mut plugin = Plugin::connect(&suite);
    let mut injector_moments = moments.fork();
    let faults = std::thread::scope(|scope| {
        let injector = scope.spawn(|| inject(&mut plugin, &stop, &mut injector_moments));
        for _ in 0..kills() {
            moments.pause(50, 800);
            suite.kill(R::DAEMON);
            moments.pause(1, 200);
            suite.start(R::DAEMON);
            // Some are killed while they start, most while they work.
            if moments.below(4) > 0 {
                answers(&suite);
            }
            moments.pause(50, 800);
            let pause = 1 + moments.below(500);
            reader.restart_server(&mut || std::thread::sleep(Duration::from_millis(pause)));
        }
        stop.store(true, Ordering::Relaxed);
        injector.join().expect("injected")
    });
    let last = unit(faults - 1);
    wait_for("the last fault is over", || {
        suite.events().iter().any(|event| event["kind"] == "up" && event["unit"] == last.as_str()).then_some(())
    });
    let head = suite.events().len();
    assert!(head >= 3 * faults as usize, "only {head} events");
    wait_at_most(TOLD_WITHIN, "everything is told", || {
        let rows = ledger(&suite, R::DAEMON);
        let of_last = rows.iter().filter(|row| row["address"].as_str().is_some_and(|text| text.ends_with(&last)));
        (of_last.count() == 2 && rows.iter().all(|row| row["state"] == "sent")).then_some(())
    });

    let rows = ledger(&suite, R::DAEMON);
    // A server may take its time between accepting and delivering.
    let received = wait_at_most(TOLD_WITHIN, "everything is read", || {
        let received = reader.received();
        let is_read = |row: &Value| {
            let (message, address) = (row["message"].as_str().expect("text"), row["address"].as_str().expect("text"));
            received.iter().any(|read| match &read.id {
                Some(id) => id.contains(message),
                None => read.text.contains(address),
            })
        };
        rows.iter().all(is_read).then_some(received)
    });
    let mut resent: Vec<&str> = Vec::new();
    let mut resent_units: Vec<String> = Vec::new();
    for row in rows.iter().filter(|row| row["again"].as_u64().expect("a number") > 0) {
        assert!(row["result"].as_str().expect("text").contains("outcome unknown, sent again"), "{row}");
        resent.push(row["message"].as_str().expect("a message"));
        let address = row["address"].as_str().expect("an address");
        resent_units.push(address.rsplit(':').next().expect("a unit").to_owned());
    }
    resent.sort_unstable();
    resent.dedup();
    // One connection: one message is under way at a kill of either side.
    assert!(resent.len() <= 2 * kills() as usize, "{} messages were sent again", resent.len());

    let mut copies = 0;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for id in received.iter().filter_map(|message| message.id.as_deref()) {
        *seen.entry(id).or_default() += 1;
        copies += u32::from(seen[id] > 1);
    }
    assert!(copies <= 2 * kills(), "{copies} copies");
    for fault in 0..faults {
        let unit = unit(fault);
        let naming: Vec<&Received> = received.iter().filter(|message| message.text.contains(&unit)).collect();
        assert!(!naming.is_empty(), "{unit} was not told");
        // A beginning and an end, or both in one; more only where the ledger says so. What has one Message-ID is one message,
        // whoever doubled it: Exim delivers once more what it was delivering when it was killed.
        let ids: BTreeSet<&str> = naming.iter().filter_map(|message| message.id.as_deref()).collect();
        let times = if ids.is_empty() { naming.len() } else { ids.len() };
        assert!(times <= 2 || resent_units.contains(&unit), "{unit} was told {times} times");
    }
    let marked = received.iter().filter(|message| message.again).count();
    eprintln!(
        "{}: {faults} faults in {} messages through {} kills of each side; {} sent again, {marked} marked, {copies} copies \
         under one Message-ID",
        R::DAEMON,
        received.len(),
        kills(),
        resent.len()
    );
}

#[test]
fn every_fault_is_mailed_through_kills_of_cmaild_and_exim() {
    every_fault_is_read(Mailbox(Exim::start()));
}

#[test]
fn every_fault_is_said_through_kills_of_cbotd_and_inspircd() {
    every_fault_is_read(Channel::new());
}

#[test]
fn every_fault_is_texted_through_kills_of_csmsd_and_kannel() {
    every_fault_is_read(Telephone(Kannel::start()));
}

#[test]
fn one_fault_reaches_people_by_every_medium_and_its_end_reaches_those_who_were_told() {
    let mut target = Target::new();
    let (exim, server, kannel) = (Exim::start(), Server::patient_inspircd(), Kannel::start());
    let observer = Observer::join(server.port, "reader", &[("#info", ""), ("#err", ""), ("#crit", "")]);
    let port = format!(
        "[[port]]\nname = \"www\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\nattempts = 1\n",
        target.port
    );
    let mut suite = Suite::running(&port, "default_rules = false\n[judging]\nhost_down_after = '3s'\n");
    let channels = "[[network.channel]]\nname = '#info'\nseverity = 'INFO'\n\
                    [[network.channel]]\nname = '#err'\nseverity = 'ERR'\n\
                    [[network.channel]]\nname = '#crit'\nseverity = 'CRIT'\n";
    suite.configure("cmaild", &mail_configuration(&exim));
    suite.configure("cbotd", &irc_configuration(&server, channels));
    suite.configure("csmsd", &sms_configuration(&kannel, &suite.path("")));
    let page = free_port();
    suite.configure("cwebd", &format!("listen = '127.0.0.1:{page}'\n"));
    for daemon in ["cmaild", "cbotd", "csmsd", "cwebd"] {
        suite.start(daemon);
        wait_for("it answers", || suite.ask(&format!("{daemon}.sock"), r#"{"query":"health"}"#));
    }
    wait_for("the port is up", || (suite.query(r#"{"query":"service-list"}"#)?[0]["state"] == "up").then_some(()));

    // The way is tried out first, as an operator would.
    let tested = suite.cctl(&["test-notify"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    for channel in ["#info", "#err", "#crit"] {
        observer.wait_for(channel, "TEST");
    }
    wait_for("a test mail", || exim.mails().iter().any(|mail| mail.body.contains("TEST")).then_some(()));
    kannel.wait_for_text("TEST");
    let only = suite.cctl_json(&["test-notify", "--who", "lab/#err"]);
    assert_eq!(only.as_array().map(Vec::len), Some(1), "{only}");
    assert_eq!(suite.cctl(&["test-notify", "--who", "nobody"]).status.code(), Some(1));

    let mut browser = Browser::open(&format!("http://127.0.0.1:{page}"));
    browser.goto("/");
    browser.wait("document.title === 'All is well · Cairn'");
    browser.eval("window.isThePageOfBefore = true");

    // A listener dies: ERR.
    target.down();
    browser.wait("document.querySelector('[data-incident]').innerText.includes('testhost!port:www')");
    observer.wait_for("#err", "port:www");
    observer.wait_for("#info", "port:www");
    let subjects = || exim.mails().iter().map(|mail| mail.header("Subject").to_owned()).collect::<Vec<_>>();
    wait_for("the mail", || subjects().iter().any(|subject| subject.contains("port:www DOWN")).then_some(()));
    target.up();
    browser.wait("!document.querySelector('[data-incident]') && window.isThePageOfBefore");
    observer.wait_for("#err", "UP");
    wait_for("its end", || subjects().iter().any(|subject| subject.contains("port:www UP")).then_some(()));

    // The host dies: CRIT.
    suite.kill("ccollectd");
    observer.wait_for("#crit", "alive");
    kannel.wait_for_text("CRIT DOWN testhost!alive:");
    suite.start("ccollectd");
    kannel.wait_for_text("UP testhost!alive:");
    observer.wait_for("#crit", "UP");
    wait_for("all of it is told", || {
        let waiting = |daemon: &&str| suite.counter(daemon, "outbox.waiting") > 0;
        (!["cmaild", "cbotd", "csmsd"].iter().any(waiting)).then_some(())
    });
    // Who was not told of the port was not told of its end either.
    assert!(!observer.lines("#crit").iter().any(|line| line.text.contains("port:www")));
    assert!(!kannel.texts().iter().any(|text| text.body.contains("port:www")));
    let ledger = suite.cctl_json(&["ledger", "--who", "lab/#crit"]);
    let kinds: Vec<&str> = ledger.as_array().expect("rows").iter().filter_map(|row| row["kind"].as_str()).collect();
    assert_eq!(kinds, ["log", "down", "up"], "{ledger}");
}
