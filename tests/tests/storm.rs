//! A storm of 10,000 events: 5,000 checks of 50 hosts go down, and later up, one of them CRIT. What people get
//! of it is counted where they read it: in the mailbox behind Exim, in the channel on InspIRCd, which disconnects who floods
//! it, and at the SMSC behind Kannel.
//!
//! `tests/run` looks until the channel has heard all; what then still waits has to be on record with its reason. `tests/long`
//! (`CAIRN_STORM_TO_THE_END`) stays until everybody was told of everything, which takes as long as a telephone's buckets and
//! a mail's patience.

use common::time::UnixMillis;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;
use tests::exim::Exim;
use tests::irc::{Observer, Server};
use tests::kannel::{self, Kannel};
use tests::tally::{Told, copies, sent};
use tests::{MAX_RSS_BYTES, Process, Suite, python, repository, wait_at_most, wait_for};

const HOSTS: usize = 50;
const UNITS: usize = 100;
const CORE: &str = "web00!drill:core";
const NOTIFIERS: [&str; 3] = ["cmaild", "cbotd", "csmsd"];
const DAEMONS: [&str; 4] = ["cprocessd", "cmaild", "cbotd", "csmsd"];
/// csmsd's own.
const BUCKETS: [(usize, i64); 4] = [(1, 60), (5, 15 * 60), (12, 3600), (20, 3 * 3600)];
/// Between csmsd's and the SMSC's moment of a text.
const ON_THE_WAY_MS: i64 = 1000;
/// No cprocessd holds back what goes up and down once, and CRIT is what a text is for.
const JUDGING: &str =
    "default_rules = false\n[[classify]]\npattern = '*!drill:core'\nkind = 'down'\nseverity = 'CRIT'\n";

/// `tests/python/storm.py`.
struct Fleet {
    process: Process,
    done: Lines<BufReader<ChildStdout>>,
}

impl Fleet {
    fn start(suite: &Suite) -> Self {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/python/storm.py")).arg(suite.path("run"));
        command.arg(HOSTS.to_string()).arg(UNITS.to_string());
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let done = BufReader::new(process.stdout()).lines();
        let mut fleet = Self { process, done };
        fleet.said("ready");
        fleet
    }

    #[track_caller]
    fn said(&mut self, expected: &str) {
        let said = self.done.next().expect("it runs").expect("text");
        assert_eq!(said, expected);
    }

    /// These units of all hosts change, so many checks a second.
    #[track_caller]
    fn change(&mut self, units: &str, state: &str, rate: u32) {
        writeln!(self.process.stdin(), "{units} {state} {rate}").expect("it reads");
        self.process.stdin().flush().expect("it reads");
        self.said("done");
    }
}

fn configurations(suite: &Suite, exim: &Exim, kannel: &Kannel, server: &Server) -> [String; 3] {
    let token = suite.path("etc/kannel.password");
    fs::write(&token, kannel::PASSWORD).expect("written");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("our file");
    [
        format!(
            "[smtp]\nhost = 'localhost'\nport = {}\nca_file = '{}'\nuser = 'mon'\npassword_file = '{}'\n\
             [[recipient]]\nname = 'ops'\nto = 'ops@lab.test'\nseverity = 'ERR'\n",
            exim.port,
            exim.pki.ca_pem.display(),
            exim.password_file(Exim::PASSWORD).display()
        ),
        // At the pace that is the default, since this server counts.
        format!(
            "[[network]]\nname = 'lab'\nserver = 'localhost'\nport = {}\ntls = false\n\
             [[network.channel]]\nname = '#ops'\nseverity = 'ERR'\ncolour = false\n",
            server.port
        ),
        format!(
            "[[provider]]\nname = 'main'\npreset = 'kannel'\nurl = '{}'\naccount = '{}'\nfrom = '2001'\ntoken_file = '{}'\n\
             [[recipient]]\nname = 'on duty'\nto = '+4912345678'\nseverity = 'ERR'\n",
            kannel.url(),
            kannel::USER,
            token.display()
        ),
    ]
}

#[test]
fn in_a_storm_the_worst_is_said_at_once_and_all_of_it_is_accounted_for() {
    let to_the_end = std::env::var_os("CAIRN_STORM_TO_THE_END").is_some();
    let (exim, kannel, server) = (Exim::start(), Kannel::start(), Server::inspircd());
    let observer = Observer::join(server.port, "reader", &[("#ops", "")]);
    let mut suite = Suite::new("", JUDGING);
    let mut fleet = Fleet::start(&suite);
    suite.start("cprocessd");
    for (daemon, configuration) in NOTIFIERS.into_iter().zip(configurations(&suite, &exim, &kannel, &server)) {
        suite.configure(daemon, &configuration);
        suite.start(daemon);
        wait_for("the notifier follows", || suite.log(daemon).contains("following").then_some(()));
    }
    observer.wait_for_any("cairn@127.0.0.1 JOIN #ops");
    wait_for("all checks are known", || {
        let rows = suite.query(r#"{"query":"service-list"}"#)?;
        (rows.as_array()?.iter().filter(|row| row["service"] == "drill").count() == HOSTS * UNITS).then_some(())
    });

    let before = DAEMONS.map(|daemon| suite.daemon(daemon).cpu_secs());
    // One after the other, so the worst comes amid the others, and so does its end.
    fleet.change("0-50", "down", 800);
    let happened = UnixMillis::now().0;
    fleet.change("core", "down", 1);
    fleet.change("50-100", "down", 800);
    let line = observer.wait_for("#ops", CORE);
    assert!(line.text.starts_with("[ DOWN ] CRIT"), "{line:?}");
    let said = UnixMillis::now().0 - i64::try_from(line.at.elapsed().as_millis()).expect("seconds");
    fleet.change("0-50", "up", 800);
    fleet.change("core", "up", 1);
    fleet.change("50-100", "up", 800);

    // Each notifier has all of it, and the channel has heard all.
    let events = 2 * HOSTS * UNITS;
    wait_at_most(Duration::from_mins(2), "the channel has heard all", || {
        let has_all = |daemon: &&str| {
            let newest = suite.ask(&format!("{daemon}.sock"), r#"{"query":"ledger","limit":1}"#);
            newest.and_then(|rows| rows[0]["item"].as_u64()).is_some_and(|item| item >= events as u64)
        };
        (NOTIFIERS.iter().all(has_all) && suite.counter("cbotd", "outbox.waiting") == 0).then_some(())
    });
    if to_the_end {
        wait_at_most(Duration::from_mins(10), "everybody has heard all", || {
            // Who is asked all the time would be busy with that.
            std::thread::sleep(Duration::from_secs(1));
            let waits = NOTIFIERS.iter().any(|daemon| suite.counter(daemon, "outbox.waiting") > 0);
            (!waits).then_some(())
        });
    }
    // Before they are asked for all that they have on record.
    let cpu = DAEMONS.map(|daemon| suite.daemon(daemon).cpu_secs());
    let rss = DAEMONS.map(|daemon| suite.daemon(daemon).memory("VmHWM:"));

    // In the channel.
    assert_eq!(observer.count("cairn@127.0.0.1 QUIT"), 0, "InspIRCd has disconnected it");
    assert_eq!(observer.count("cairn@127.0.0.1 JOIN #ops"), 1);
    let heard = suite.ledger("cbotd");
    let core = heard.iter().find(|row| row["address"] == CORE).expect("a row");
    let queued = core["queued"].as_i64().expect("ms");
    assert!(said - queued <= 10_000, "the worst was said after {} ms", said - queued);

    for daemon in NOTIFIERS {
        // Exim and Kannel take their time between accepting and delivering, and we a moment to write down what they accepted.
        let (rows, told, arrived) = wait_at_most(Duration::from_mins(1), "what was sent is there", || {
            let told = read(daemon, &exim, &observer, &kannel);
            let rows = suite.ledger(daemon);
            let arrived = copies(&sent(&rows), &told).ok()?;
            arrived.iter().all(|copies| copies.whole > 0).then_some((rows, told, arrived))
        });
        assert!(arrived.iter().all(|copies| copies.most == 1), "{daemon} told something twice");
        assert_eq!(rows.len(), events, "{daemon}");
        let messages = sent(&rows);
        let in_messages: usize = messages.iter().map(|message| message.events).sum();
        let waiting: Vec<&Value> = rows.iter().filter(|row| row["state"] != "sent").collect();
        for row in &waiting {
            let reason = row["result"].as_str().expect("text");
            assert!(row["state"] == "waiting" && reason.starts_with("waits for "), "{daemon}: {row}");
        }
        assert_eq!(in_messages + waiting.len(), events, "{daemon}");
        assert!(!to_the_end || waiting.is_empty(), "{daemon}: {waiting:?}");
        // What waits now is one message more.
        let most = messages.len() + usize::from(!waiting.is_empty());
        assert!(daemon != "cmaild" || most <= 3, "{most} mails");
        let [by_name, stories] =
            [told.iter().map(|told| told.names.len()).sum(), told.iter().map(|told| told.stories).sum::<usize>()];
        eprintln!(
            "{daemon}: {in_messages} events in {} messages at the server, {by_name} of {stories} stories by name; {} wait",
            messages.len(),
            waiting.len()
        );
    }
    let texted = suite.ledger("csmsd");
    let accepted = |message: &str| texted.iter().find(|row| row["message"] == message)?["changed"].as_i64();
    let texts: Vec<i64> = sent(&texted).iter().map(|sent| accepted(&sent.message).expect("ms")).collect();
    for (most, secs) in BUCKETS {
        for window in texts.windows(most + 1) {
            assert!(window[most] - window[0] >= secs * 1000 - ON_THE_WAY_MS, "{} texts in {texts:?}", most + 1);
        }
    }
    eprintln!(
        "the worst was in the channel {} ms after its event, {} ms after cbotd had it",
        said - happened,
        said - queued
    );
    for (i, daemon) in DAEMONS.into_iter().enumerate() {
        let (cpu, rss) = (cpu[i] - before[i], rss[i]);
        eprintln!("{daemon}: {cpu:.1} CPU s, peak RSS {:.1} MiB", rss as f64 / f64::from(1 << 20));
        assert!(daemon == "cprocessd" || rss < MAX_RSS_BYTES, "{daemon}: {rss} bytes");
    }
}

/// Everything that the readers of this notifier have.
fn read(daemon: &str, exim: &Exim, observer: &Observer, kannel: &Kannel) -> Vec<Told> {
    match daemon {
        "cmaild" => exim.mails().iter().map(Told::by_mail).collect(),
        "csmsd" => kannel.texts().iter().map(Told::by_text).collect(),
        _ => {
            let lines: Vec<String> = observer.lines("#ops").into_iter().map(|line| line.text).collect();
            Told::by_lines(&lines)
        }
    }
}
