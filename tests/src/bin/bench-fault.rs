//! From a fault to everybody who hears of it: TCP listeners die one after the other, each probed once a second, and what
//! tells of them is real: a terminal, Chromium, InspIRCd, Exim, Kannel.
//!
//! A medium's part is what passes between the observation (the event's `time`) and the moment it has the fault; what passes
//! before is the probe's interval, which the moment of death decides. All moments are of this machine's clock, in
//! milliseconds. What a medium has is taken where it arrives, save for mail and text: there it is `changed` of the ledger's
//! row, written as the server's answer came; that they are all in the mailbox and on the telephone is looked up at the end.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use common::time::UnixMillis;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tests::browser::Browser;
use tests::exim::Exim;
use tests::irc::{Observer, Server};
use tests::kannel::{self, Kannel};
use tests::servers::free_port;
use tests::{Moments, PATIENCE, Process, Suite, Target, http, wait_for};

const FAULTS: usize = 20;
const DAEMONS: [&str; 6] = ["ccollectd", "cprocessd", "cmaild", "cbotd", "csmsd", "cwebd"];
const CHANNEL: &str = "#ops";

/// Each fault is worth a text.
const CRITICAL: &str = "[[classify]]\npattern = '*!port'\nkind = 'down'\nseverity = 'CRIT'\n";

/// Notes in the page, by incident, when it first drew the frame that shows it.
const NOTE_INCIDENTS: &str = "window.drawn = {}; new MutationObserver(() => requestAnimationFrame(() => {
    for (const row of document.querySelectorAll('[data-incident]')) drawn[row.dataset.incident] ??= Date.now()
})).observe(document.body, { childList: true, subtree: true }); true";

/// A line of `cctl watch` as it appeared.
struct Line {
    event: Value,
    at: i64,
}

/// A fault that the terminal shows.
struct Fault {
    died: i64,
    observed: i64,
    event: String,
    incident: String,
    /// When it was there, by medium.
    told: BTreeMap<&'static str, i64>,
}

fn main() {
    let mut targets: Vec<Target> = (0..FAULTS).map(|_| Target::new()).collect();
    let exim = Exim::start();
    let kannel = Kannel::start();
    let server = Server::patient_inspircd();
    let observer = Observer::join(server.port, "reader", &[(CHANNEL, "")]);
    let page = free_port();
    let mut suite = running(&targets, &exim, &kannel, &server, page);
    observer.wait_for_any(&format!("JOIN {CHANNEL}"));
    let mut browser = Browser::open(&format!("http://127.0.0.1:{page}"));
    browser.goto("/");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.eval(NOTE_INCIDENTS);
    let (_watch, lines) = watch(&suite);

    let load = load();
    let before = DAEMONS.map(|daemon| suite.daemon(daemon).cpu_secs());
    let began = Instant::now();
    let mut moments = Moments::from_environment();
    let mut faults = Vec::new();
    for (i, target) in targets.iter_mut().enumerate() {
        // Where in the probe's second it falls is what this draws.
        moments.pause(200, 1200);
        target.down();
        let died = UnixMillis::now().0;
        let line = line(&lines, &format!("t{i}"));
        let heard = observer.wait_for(CHANNEL, &format!("!port:t{i}:"));
        let heard_at = UnixMillis::now().0 - i64::try_from(heard.at.elapsed().as_millis()).expect("seconds");
        let text = |field: &str| line.event[field].as_str().expect("a text").to_owned();
        faults.push(Fault {
            died,
            observed: line.event["time"].as_i64().expect("ms"),
            event: text("id"),
            incident: text("incident"),
            told: BTreeMap::from([("a line of cctl watch", line.at), ("a line in the channel", heard_at)]),
        });
    }
    let elapsed = began.elapsed().as_secs_f64();
    let after = DAEMONS.map(|daemon| suite.daemon(daemon).cpu_secs());

    for fault in &mut faults {
        let drawn = format!("drawn['{}']", fault.incident);
        browser.wait(&drawn);
        fault.told.insert("a row on the page", browser.eval(&drawn).as_i64().expect("ms"));
        fault.told.insert("a mail Exim accepted", accepted(&suite, "cmaild", &fault.event));
        fault.told.insert("a text Kannel accepted", accepted(&suite, "csmsd", &fault.event));
    }
    wait_for("all mails are in the mailbox", || (exim.mails().len() >= FAULTS).then_some(()));
    wait_for("all texts are on the telephone", || (kannel.texts().len() >= FAULTS).then_some(()));
    browser.complains_of(&[]);

    println!("{FAULTS} faults, one after the other, one-second probes; load {load} before, {} after", self::load());
    println!("                           fault -> it, ms    observed -> it, ms   the interval's");
    println!("                           median  maximum      median  maximum          share");
    for medium in faults[0].told.keys() {
        let from = |begin: fn(&Fault) -> i64| faults.iter().map(|fault| fault.told[medium] - begin(fault)).collect();
        let (all, own): (Vec<i64>, Vec<i64>) = (from(|fault| fault.died), from(|fault| fault.observed));
        let share = 100.0 - 100.0 * own.iter().sum::<i64>() as f64 / all.iter().sum::<i64>() as f64;
        println!("{medium:24} {}    {} {share:13.0} %", row(all), row(own));
    }
    for (daemon, (before, after)) in DAEMONS.into_iter().zip(before.into_iter().zip(after)) {
        let rss = suite.daemon(daemon).memory("VmHWM:") as f64 / f64::from(1 << 20);
        println!("{daemon:10} CPU {:.2} s/min, peak RSS {rss:.1} MiB", (after - before) / elapsed * 60.0);
    }
}

/// All daemons, every listener up, and every notifier in its place.
fn running(targets: &[Target], exim: &Exim, kannel: &Kannel, server: &Server, page: u16) -> Suite {
    let port = |(i, target): (usize, &Target)| {
        format!("[[port]]\nname = 't{i}'\naddress = '127.0.0.1:{}'\ninterval = '1s'\nattempts = 1\n", target.port)
    };
    let ports: String = targets.iter().enumerate().map(port).collect();
    let mut suite = Suite::running(&ports, CRITICAL);
    wait_for("all ports are up", || {
        (suite.query(r#"{"query":"service-list"}"#)?.as_array()?.len() == FAULTS).then_some(())
    });
    let token = suite.path("etc/kannel.password");
    fs::write(&token, kannel::PASSWORD).expect("written");
    fs::set_permissions(&token, Permissions::from_mode(0o600)).expect("our file");
    let configurations = [
        (
            "cmaild",
            format!(
                "[smtp]\nhost = 'localhost'\nport = {}\nca_file = '{}'\nuser = 'mon'\npassword_file = '{}'\n\
                 [[recipient]]\nto = 'ops@lab.test'\nseverity = 'CRIT'\n",
                exim.port,
                exim.pki.ca_pem.display(),
                exim.password_file(Exim::PASSWORD).display()
            ),
        ),
        (
            "cbotd",
            // As the example says for a server of one's own.
            format!(
                "[[network]]\nname = 'lab'\nserver = 'localhost'\nport = {}\nca_file = '{}'\nline_interval = '100ms'\n\
                 burst = 20\n[[network.channel]]\nname = '{CHANNEL}'\nseverity = 'ERR'\n",
                server.tls_port,
                server.pki.ca_pem.display()
            ),
        ),
        (
            "csmsd",
            format!(
                "[[provider]]\nname = 'main'\npreset = 'kannel'\nurl = '{}'\naccount = '{}'\nfrom = '2001'\n\
                 token_file = '{}'\n[[recipient]]\nname = 'on duty'\nto = '+4912345678'\npace = []\n",
                kannel.url(),
                kannel::USER,
                token.display()
            ),
        ),
        ("cwebd", format!("listen = '127.0.0.1:{page}'\n")),
    ];
    for (daemon, text) in configurations {
        suite.configure(daemon, &text);
        suite.start(daemon);
        match daemon {
            "cwebd" => wait_for("the page is live", || {
                http::connect(page).ok()?;
                (http::get(page, "/healthz", &[]).status == 200).then_some(())
            }),
            notifier => wait_for("the notifier follows", || suite.log(notifier).contains("following").then_some(())),
        }
    }
    suite
}

/// `cctl watch`, and its lines since it listens.
fn watch(suite: &Suite) -> (Process, Receiver<Line>) {
    let mut watch = Process::start(suite.cctl_command(&["--json", "watch"]).stdout(Stdio::piped()));
    let output = watch.stdout();
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let at = UnixMillis::now().0;
            if let Ok(event) = serde_json::from_str(&line) {
                let _ = sender.send(Line { event, at });
            }
        }
    });
    // Its first line proves that it listens.
    let mut probe = tests::Plugin::connect(suite);
    let mut n = 0;
    wait_for("cctl watch listens", || {
        n += 1;
        probe.state("up", &format!("probe{n}"), UnixMillis::now().0);
        lines.recv_timeout(Duration::from_millis(200)).ok()
    });
    (watch, lines)
}

/// The line that says that this unit is down.
fn line(lines: &Receiver<Line>, unit: &str) -> Line {
    loop {
        let line = lines.recv_timeout(PATIENCE).expect("every fault is told");
        if line.event["unit"] == unit && line.event["kind"] == "down" {
            return line;
        }
    }
}

/// When the medium of this daemon accepted the message about an event.
fn accepted(suite: &Suite, daemon: &str, event: &str) -> i64 {
    wait_for("the medium has it", || {
        let rows = suite.ask(&format!("{daemon}.sock"), r#"{"query":"ledger"}"#)?;
        let row = rows.as_array()?.iter().find(|row| row["event"] == event && row["state"] == "sent")?;
        row["changed"].as_i64()
    })
}

fn row(mut values: Vec<i64>) -> String {
    values.sort_unstable();
    let median = i64::midpoint(values[(FAULTS - 1) / 2], values[FAULTS / 2]);
    format!("{median:8} {:8}", values[FAULTS - 1])
}

/// Processes that ran or waited for a core, over the last minute: a busy machine tells slower.
fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").expect("/proc");
    load.split_whitespace().next().unwrap_or_default().to_owned()
}
