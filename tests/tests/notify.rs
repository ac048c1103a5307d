//! What reaches people, counted where they read it: in the mailbox behind Exim, in the channel on InspIRCd, at the SMSC
//! behind Kannel.
//!
//! `tests/run` kills each notifier 5 times while its server flaps, `tests/long` 50 times (`CAIRN_NOTIFIER_KILLS`). A failure
//! prints the seed of its moments, which `CAIRN_SEED` repeats.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::browser::Browser;
use tests::exim::Exim;
use tests::irc::{Gate, Observer, Server};
use tests::kannel::{self, Kannel};
use tests::servers::free_port;
use tests::tally::{self, Told};
use tests::{Moments, Plugin, Suite, Target, wait_at_most, wait_for};

/// Faults in a drill, at least. Each is a beginning and an end.
const FAULTS: u32 = 500;
/// So many at once to begin with; what follows comes in waves of at most so many.
const STORM: u32 = 300;
const WAVE: u64 = 60;
/// All of a drill must have been told by then.
const TOLD_WITHIN: Duration = Duration::from_mins(3);

fn kills() -> u32 {
    std::env::var("CAIRN_NOTIFIER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// A medium: the server, and what can be read behind it.
trait Reader: Send {
    /// The notifier's name.
    const DAEMON: &'static str;

    /// Its configuration, with one recipient who takes everything from ERR on.
    fn configuration(&self, dir: &Path) -> String;

    fn received(&self) -> Vec<Told>;

    /// SIGKILL to the server, and a new start after `pause`.
    fn restart_server(&mut self, pause: &mut dyn FnMut());
}

struct Mailbox(Exim);

impl Reader for Mailbox {
    const DAEMON: &'static str = "cmaild";

    fn configuration(&self, _: &Path) -> String {
        mail_configuration(&self.0)
    }

    fn received(&self) -> Vec<Told> {
        // What Exim was delivering when it was killed it delivers once more. It took that once, and named it then.
        let mut taken = BTreeSet::new();
        let once = |mail: &tests::exim::Mail| {
            let received = mail.header("Received");
            let name = received.split(" id ").nth(1).and_then(|rest| rest.split_whitespace().next());
            taken.insert(name.unwrap_or_else(|| panic!("no name of Exim's in {received:?}")).to_owned())
        };
        self.0.mails().into_iter().filter(once).map(|mail| Told::by_mail(&mail)).collect()
    }

    fn restart_server(&mut self, pause: &mut dyn FnMut()) {
        self.0.kill();
        pause();
        self.0.restart();
    }
}

struct Channel {
    server: Server,
    gate: Gate,
    observer: Observer,
    /// What was read before the server was last killed.
    before: Vec<String>,
}

impl Channel {
    fn new() -> Self {
        let server = Server::patient_inspircd();
        let observer = Observer::join(server.port, "reader", &[("#err", "")]);
        Self { gate: Gate::to(server.port), server, observer, before: Vec::new() }
    }

    fn lines(&self) -> Vec<String> {
        self.observer.lines("#err").into_iter().map(|line| line.text).collect()
    }
}

impl Reader for Channel {
    const DAEMON: &'static str = "cbotd";

    fn configuration(&self, _: &Path) -> String {
        irc_configuration(self.gate.port, "[[network.channel]]\nname = '#err'\nseverity = 'ERR'\ncolour = false\n")
    }

    fn received(&self) -> Vec<Told> {
        Told::by_lines(&[self.before.clone(), self.lines()].concat())
    }

    fn restart_server(&mut self, pause: &mut dyn FnMut()) {
        self.gate.set_open(false);
        self.server.kill();
        // What was under way to the reader arrives all the same.
        wait_for("the reader is disconnected", || self.observer.is_gone().then_some(()));
        self.before.extend(self.lines());
        pause();
        self.server.start();
        self.observer = Observer::join(self.server.port, "reader", &[("#err", "")]);
        self.gate.set_open(true);
    }
}

struct Telephone(Kannel);

impl Reader for Telephone {
    const DAEMON: &'static str = "csmsd";

    fn configuration(&self, dir: &Path) -> String {
        let everything = sms_configuration(&self.0, dir).replace("severity = 'CRIT'", "severity = 'ERR'");
        // Few enough that a storm is counted, and enough that the drill ends.
        everything.replace("pace = []", "pace = ['1/1s']")
    }

    fn received(&self) -> Vec<Told> {
        self.0.texts().iter().map(Told::by_text).collect()
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

/// A server of our own may be told more than others, but not so fast that nothing is ever under way.
fn irc_configuration(port: u16, channels: &str) -> String {
    format!(
        "[[network]]\nname = 'lab'\nserver = '127.0.0.1'\nport = {port}\ntls = false\nline_interval = '200ms'\n\
         {channels}"
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

/// The rows of a notifier's ledger about faults, all of them.
fn ledger(suite: &Suite, daemon: &str) -> Vec<Value> {
    let mut rows = suite.ledger(daemon);
    rows.retain(|row| row["address"].as_str().is_some_and(|address| address.contains("!drill:fault")));
    rows
}

/// Faults that come and go, each on an address of its own, until `stop` and at least [`FAULTS`]. Returns how many.
fn inject(plugin: &mut Plugin, stop: &AtomicBool, moments: &mut Moments) -> u32 {
    let mut fault = 0;
    let mut wave = STORM;
    while fault < FAULTS || !stop.load(Ordering::Relaxed) {
        if wave == 0 {
            // What was gathered is told now and then.
            moments.pause(100, 2500);
            wave = 1 + u32::try_from(moments.below(WAVE)).expect("few");
        }
        wave -= 1;
        for state in ["up", "down", "up"] {
            plugin.state(state, &unit(fault), common::time::UnixMillis::now().0);
            moments.pause(1, 4);
        }
        fault += 1;
    }
    fault
}

/// No name of a fault is the beginning of another.
fn unit(fault: u32) -> String {
    format!("fault{fault:05}")
}

/// Waits a while for a message that is under way: the worst moment for a kill.
fn is_sending(suite: &Suite, socket: &str) {
    // What is gathered in a storm goes within 8 s.
    let patience = Instant::now() + Duration::from_secs(9);
    let sending = |rows: &Value| rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["state"] == "sending"));
    while Instant::now() < patience {
        if suite.ask(socket, r#"{"query":"ledger","limit":500}"#).is_some_and(|rows| sending(&rows)) {
            return;
        }
    }
}

/// In a storm of faults, while the server comes and goes and the notifier is killed, each fault and each end arrives, by name or in
/// a count; copies are at most one per kill and connection, and marked.
fn every_fault_is_read<R: Reader>(mut reader: R) {
    let mut suite = Suite::running("[plugins]\nmax_units = 100000\n", "default_rules = false\n");
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
    let (mut of_faults, mut of_the_server) = (moments.fork(), moments.fork());
    let (faults, flaps) = std::thread::scope(|scope| {
        let injector = scope.spawn(|| inject(&mut plugin, &stop, &mut of_faults));
        let flapper = scope.spawn(|| {
            let mut flaps = 0;
            while !stop.load(Ordering::Relaxed) {
                of_the_server.pause(500, 5000);
                let away = 1 + of_the_server.below(700);
                reader.restart_server(&mut || std::thread::sleep(Duration::from_millis(away)));
                flaps += 1;
            }
            flaps
        });
        for _ in 0..kills() {
            moments.pause(200, 2500);
            if moments.below(2) > 0 {
                is_sending(&suite, &socket);
            }
            suite.kill(R::DAEMON);
            moments.pause(1, 200);
            suite.start(R::DAEMON);
            // Some are killed while they start, most while they work.
            if moments.below(4) > 0 {
                answers(&suite);
            }
        }
        stop.store(true, Ordering::Relaxed);
        (injector.join().expect("injected"), flapper.join().expect("it flapped"))
    });
    let last = unit(faults - 1);
    wait_at_most(TOLD_WITHIN, "the notifier has all of it", || {
        let newest = suite.ask(&socket, r#"{"query":"ledger","limit":1}"#)?;
        let address = newest[0]["address"].as_str()?.to_owned();
        (address.ends_with(&last) && newest[0]["kind"] == "up").then_some(())
    });
    // What follows a storm by mail waits for minutes, but not over a start.
    suite.kill(R::DAEMON);
    suite.start(R::DAEMON);
    answers(&suite);
    wait_at_most(TOLD_WITHIN, "everything is told", || (suite.counter(R::DAEMON, "outbox.waiting") == 0).then_some(()));

    let rows = ledger(&suite, R::DAEMON);
    assert_eq!(rows.len(), 2 * faults as usize);
    assert!(rows.iter().all(|row| row["state"] == "sent"), "{:?}", rows.iter().find(|row| row["state"] != "sent"));
    let sent = tally::sent(&rows);
    // A server may take its time between accepting and delivering.
    let (received, copies) = wait_at_most(TOLD_WITHIN, "everything is read", || {
        let received = reader.received();
        let copies = tally::copies(&sent, &received).unwrap_or_else(|told| panic!("nobody has sent {told:?}"));
        copies.iter().all(|copies| copies.whole > 0).then_some((received, copies))
    });
    let disturbed = kills() as usize + 1 + flaps;
    let extra: usize = copies.iter().map(|copies| copies.most - 1).sum();
    let resent = sent.iter().filter(|sent| sent.again).count();
    // One connection: one message is under way at a kill of either side.
    assert!(extra <= disturbed && resent <= disturbed, "{extra} copies, {resent} sent again, {disturbed} disturbances");
    for (sent, copies) in sent.iter().zip(&copies) {
        assert!(copies.most == 1 || sent.again, "{} copies of {sent:?}", copies.most);
    }
    for row in rows.iter().filter(|row| row["again"].as_u64().expect("a number") > 0) {
        assert!(row["result"].as_str().expect("text").contains("outcome unknown, sent again"), "{row}");
    }
    // Without its marked copies, nothing has come twice.
    let unmarked: Vec<Told> = received.iter().filter(|told| !told.again).cloned().collect();
    let originals = tally::copies(&sent, &unmarked).expect("they were sent");
    assert!(originals.iter().all(|copies| copies.most <= 1), "a copy is not marked");
    let stories: usize = received.iter().map(|told| told.stories).sum();
    let by_name: usize = received.iter().map(|told| told.names.len()).sum();
    eprintln!(
        "{}: {faults} faults in {} messages, {by_name} of {stories} stories by name, through {} kills and {flaps} flaps of the \
         server; {resent} sent again, {} marked, {extra} copies",
        R::DAEMON,
        sent.len(),
        kills() + 1,
        received.len() - unmarked.len()
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
    suite.configure("cbotd", &irc_configuration(server.port, channels));
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
