//! A publisher that sends what no cprocessd would: notifiers and cwebd refuse and count it, none grows beyond
//! [`MAX_RSS_BYTES`], ends or fills its log, and what is still true afterwards is told and shown.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;
use tests::irc::{Observer, Server};
use tests::servers::free_port;
use tests::{MAX_RSS_BYTES, Process, Suite, http, python, repository, wait_at_most, wait_for};

/// Who follows a publisher.
const FOLLOWERS: [&str; 4] = ["cmaild", "cbotd", "csmsd", "cwebd"];
/// What was said is still to be worked off, on a busy machine.
const AFTERWARDS: Duration = Duration::from_mins(2);

/// `tests/python/publisher.py`, which begins a phase when it is told so.
struct Publisher {
    process: Process,
    ended: Lines<BufReader<ChildStdout>>,
}

impl Publisher {
    fn start(suite: &Suite) -> Self {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/python/publisher.py")).arg(suite.path("run"));
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let ended = BufReader::new(process.stdout()).lines();
        let mut publisher = Self { process, ended };
        publisher.has_ended("ready");
        publisher
    }

    #[track_caller]
    fn has_ended(&mut self, phase: &str) {
        let said = self.ended.next().expect("it runs").expect("text");
        assert_eq!(said, phase);
    }

    #[track_caller]
    fn does(&mut self, phase: &str) {
        writeln!(self.process.stdin(), "{phase}").expect("it reads");
        self.process.stdin().flush().expect("it reads");
        self.has_ended(phase);
    }
}

/// The followers, each with somebody to tell of everything.
struct Followers {
    suite: Suite,
    publisher: Publisher,
    reader: Observer,
    page: u16,
    _irc: Server,
}

impl Followers {
    fn begin() -> Self {
        let irc = Server::patient_inspircd();
        let reader = Observer::join(irc.port, "reader", &[("#ops", "")]);
        let mut suite = Suite::new("", "");
        let publisher = Publisher::start(&suite);
        let page = free_port();
        suite.configure("cmaild", "[[recipient]]\nname = 'ops'\nto = 'ops@lab.test'\nseverity = 'DEBUG'\n");
        suite.configure("csmsd", "[[recipient]]\nname = 'ops'\nseverity = 'DEBUG'\n");
        let network = format!("name = 'lab'\nserver = '127.0.0.1'\nport = {}\ntls = false\n", irc.port);
        let channel = "[[network.channel]]\nname = '#ops'\nseverity = 'DEBUG'\n";
        suite.configure("cbotd", &format!("[[network]]\n{network}line_interval = '100ms'\n{channel}"));
        suite.configure("cwebd", &format!("listen = '127.0.0.1:{page}'\n"));
        for daemon in FOLLOWERS {
            suite.start(daemon);
        }
        wait_for("the page is served", || http::connect(page).ok());
        wait_for("the page is live", || (http::get(page, "/healthz", &[]).status == 200).then_some(()));
        for daemon in FOLLOWERS {
            wait_for("it answers", || suite.ask(&format!("{daemon}.sock"), r#"{"query":"health"}"#));
        }
        Self { suite, publisher, reader, page, _irc: irc }
    }

    /// Something CRIT happens, and everybody has it.
    #[track_caller]
    fn have_what_is_true(&mut self) {
        self.publisher.does("good");
        let in_folder = |folder: &str| {
            let files = fs::read_dir(self.suite.path(folder)).ok()?.flatten();
            files
                .filter_map(|file| fs::read_to_string(file.path()).ok())
                .any(|text| text.contains("still true"))
                .then_some(())
        };
        wait_at_most(AFTERWARDS, "the page shows it", || {
            http::get(self.page, "/api/state", &[]).text().contains("still true").then_some(())
        });
        wait_at_most(AFTERWARDS, "a mail tells it", || in_folder("state/cmaild/outbox"));
        wait_at_most(AFTERWARDS, "a text tells it", || in_folder("state/csmsd/outbox"));
        wait_at_most(AFTERWARDS, "the channel has it", || {
            self.reader.lines("#ops").iter().any(|line| line.text.contains("still true")).then_some(())
        });
    }

    /// Nobody died, nobody grew, and nobody filled the log.
    #[track_caller]
    fn are_well(&mut self) {
        for daemon in FOLLOWERS {
            let process = self.suite.daemon(daemon);
            assert!(process.runs(), "{daemon} died");
            let peak = process.memory("VmHWM:");
            eprintln!("{daemon} at most {} MB", peak >> 20);
            assert!(peak < MAX_RSS_BYTES, "{daemon} grew to {} MB", peak >> 20);
            let log = self.suite.log(daemon);
            let warnings: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
            assert!(warnings.len() < 40, "{daemon} says too much: {warnings:#?}");
            assert!(log.lines().all(|line| line.len() < 1000), "{daemon} logs long lines");
            assert!(!log.contains('\u{1b}') && !log.contains("panicked"), "{daemon}'s log: {log}");
        }
    }

    #[track_caller]
    fn have_counted(&self, name: &str, at_least: u64) {
        for daemon in FOLLOWERS {
            let counted = self.suite.counter(daemon, name);
            assert!(counted >= at_least, "{daemon} has counted {counted} of {name}");
        }
    }
}

#[test]
fn messages_that_are_none_and_messages_that_lie() {
    let mut followers = Followers::begin();
    followers.publisher.does("garbage");
    followers.are_well();
    followers.publisher.does("lies");
    followers.publisher.does("texts");
    followers.have_what_is_true();
    followers.are_well();
    // Some of them are lost on their way, as PUB may.
    followers.have_counted("stream.undecodable", 600);
}

#[test]
fn answers_that_are_none() {
    let mut followers = Followers::begin();
    followers.publisher.does("snapshots");
    followers.have_what_is_true();
    followers.are_well();
    followers.have_counted("stream.unanswered", 5);
    followers.have_counted("stream.new_journal", 2);
}

#[test]
fn addresses_without_end() {
    let mut followers = Followers::begin();
    followers.publisher.does("flood");
    followers.have_what_is_true();
    followers.are_well();
    // The channel is slower than they come, so what it cannot name it counts, and what more than waits is given up.
    wait_at_most(AFTERWARDS, "all is told or given up", || {
        let [told, given_up] = ["outbox.sent", "outbox.failed"].map(|name| followers.suite.counter("cbotd", name));
        (told + given_up >= 10_000).then_some(())
    });
}
