//! The medium against real servers, without the frame: what a configuration makes of InspIRCd, atheme and ngircd, and of
//! servers that are none.

use cbotd::{Channel, Network, config};
use common::counters::Counters;
use common::message::{Epoch, Event, EventId, IncidentId, Kind, State};
use common::notifier::{Letter, Mark, Medium, MessageId, Outcome, Scope, Story};
use common::severity::Severity;
use common::time::UnixMillis;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::irc::{ACCOUNT, KEYED, Observer, Server};
use tests::pki::Pki;
use tests::servers::free_port;
use tests::wait_for;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const OPS: &str = "[[network.channel]]\nname = '#ops'\n";

/// One network, made from a file as the daemon makes it.
struct Bot {
    counters: Counters,
    network: Network,
    channels: Vec<Channel>,
    runtime: Runtime,
    _dir: TempDir,
}

impl Bot {
    /// `network` are keys of `[[network]]`, `channels` its tables.
    fn new(port: u16, network: &str, channels: &str) -> Self {
        Self::trusting(None, port, network, channels)
    }

    /// As above, by TLS if there is an authority to trust.
    fn trusting(authority: Option<&Path>, port: u16, network: &str, channels: &str) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        for (file, password) in [("password", ACCOUNT.1), ("wrong", "wrong")] {
            std::fs::write(dir.path().join(file), format!("{password}\n")).expect("written");
        }
        let tls = authority.map_or("tls = false".to_owned(), |file| format!("ca_file = '{}'", file.display()));
        let text = format!(
            "host = 'lab'\n[[network]]\nname = 'lab'\nserver = 'localhost'\nport = {port}\n{tls}\n{network}\n{channels}"
        );
        let path = dir.path().join("cbotd.toml");
        let counters = Counters::default();
        std::fs::write(&path, text).expect("written");
        let setup = config::load(&path, &counters).unwrap_or_else(|error| panic!("{error}"));
        let lane = setup.lanes.into_iter().next().expect("a lane");
        let channels = lane.recipients.into_iter().map(|recipient| recipient.address).collect();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        Self { counters, network: lane.medium, channels, runtime, _dir: dir }
    }

    #[track_caller]
    fn ready(&self) {
        assert!(self.is_ready_within(Duration::from_secs(30)), "not ready");
    }

    fn is_ready_within(&self, patience: Duration) -> bool {
        self.runtime.block_on(async { timeout(patience, self.network.ready()).await.is_ok() })
    }

    fn send(&self, channel: usize, text: &str) -> Outcome {
        let id = MessageId::parse("7f9c2ba4-e88f-427d-b616-93d8f0a1c1de").expect("id");
        self.runtime.block_on(self.network.send(&self.channels[channel], id, text.as_bytes()))
    }

    #[track_caller]
    fn tells(&self, channel: usize, text: &str) {
        let outcome = self.send(channel, text);
        assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
    }

    /// Sends these stories as one message, and answers how many it told.
    #[track_caller]
    fn tells_stories(&self, stories: &[Story]) -> usize {
        let id = MessageId::parse("7f9c2ba4-e88f-427d-b616-93d8f0a1c1df").expect("id");
        let letter = Letter { id, recipient: "lab/#ops", stories, again: false, now: UnixMillis::now() };
        let composed = self.network.compose(&self.channels[0], &letter);
        self.tells(0, std::str::from_utf8(&composed.bytes).expect("text"));
        composed.told
    }
}

/// A retry: its reason, its scope, and whether it may have been accepted.
#[track_caller]
fn retry(outcome: Outcome) -> (String, Scope, bool) {
    match outcome {
        Outcome::Retry { why, scope, maybe_accepted, .. } => (why, scope, maybe_accepted),
        Outcome::Sent(_) | Outcome::Never(_) => panic!("{outcome:?}"),
    }
}

fn down(unit: &str, text: &str) -> Story {
    let address: common::address::Address = format!("web1!port:{unit}").parse().expect("address");
    let (now, kind) = (UnixMillis::now(), Kind::Down);
    let incident = IncidentId::new(&address, "check", now);
    let event = Event {
        epoch: Epoch::random(),
        seq: 1,
        nth: 1,
        id: EventId::new(incident, kind, 1),
        incident,
        kind,
        host: "web1".parse().expect("host"),
        service: "port".parse().expect("name"),
        unit: unit.parse().expect("unit"),
        address,
        severity: Severity::Err,
        top_severity: Severity::Err,
        state: State::Down,
        since: now,
        time: now,
        text: text.to_owned(),
        value: None,
        rule: "check".to_owned(),
        step: None,
        suppressed_by: Vec::new(),
        duration_ms: None,
        data: None,
    };
    Story { mark: Mark::Began, event, outages: 1, told_in: None }
}

#[test]
fn lines_arrive_in_channels_with_and_without_a_key() {
    for server in [Server::inspircd(), Server::ngircd()] {
        let observer = Observer::join(server.port, "watcher", &[("#ops", ""), KEYED]);
        server.set_key(&observer);
        let keyed = format!("{OPS}[[network.channel]]\nname = '{}'\nkey = '{}'\n", KEYED.0, KEYED.1);
        let bot = Bot::new(server.port, "", &keyed);
        bot.ready();
        bot.tells(0, "\u{3}04[ DOWN ]\u{f} web1!port:a: ü");
        bot.tells(1, "one\ntwo");
        assert_eq!(observer.wait_for("#ops", "DOWN").text, "\u{3}04[ DOWN ]\u{f} web1!port:a: ü");
        observer.wait_for(KEYED.0, "two");
        let lines: Vec<String> = observer.lines(KEYED.0).into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["one", "two"]);
        assert!(observer.lines("#ops").iter().all(|line| line.nick == "cairn"));
    }
}

#[test]
fn a_wrong_key_holds_up_its_own_channel_only() {
    for server in [Server::inspircd(), Server::ngircd()] {
        let observer = Observer::join(server.port, "watcher", &[("#ops", ""), KEYED]);
        server.set_key(&observer);
        let keyed = format!("[[network.channel]]\nname = '{}'\nkey = 'wrong'\n{OPS}", KEYED.0);
        let bot = Bot::new(server.port, "", &keyed);
        bot.ready();
        let (why, scope, maybe_accepted) = retry(bot.send(0, "lost"));
        assert!(why.starts_with("not in #keyed: 475 "), "{why}");
        assert_eq!((scope, maybe_accepted), (Scope::Recipient, false));
        bot.tells(1, "found");
        observer.wait_for("#ops", "found");
    }
}

#[test]
fn sasl_logs_in_and_a_wrong_password_is_what_the_configuration_says() {
    let server = Server::inspircd_with_services();
    let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let account = |nick: &str| {
        let answered = || observer.count(&format!(" 318 watcher {nick} "));
        let before = answered();
        observer.say(&format!("WHOIS {nick} {nick}"));
        wait_for("WHOIS is answered", || (answered() > before).then_some(()));
        observer.count(&format!(" 330 watcher {nick} {}", ACCOUNT.0)) > 0
    };
    let sasl = |file: &str, more: &str| format!("sasl = {{ user = '{}', password_file = '{file}'{more} }}", ACCOUNT.0);

    let bot = Bot::new(server.port, &format!("nick = 'good'\n{}", sasl("password", ", required = true")), OPS);
    bot.ready();
    bot.tells(0, "logged in");
    observer.wait_for("#ops", "logged in");
    assert!(account("good"));

    let bot = Bot::new(server.port, &format!("nick = 'bad'\n{}", sasl("wrong", "")), OPS);
    bot.ready();
    bot.tells(0, "all the same");
    assert_eq!(observer.wait_for("#ops", "all the same").nick, "bad");
    assert!(!account("bad"));

    let bot = Bot::new(server.port, &format!("nick = 'worse'\n{}", sasl("wrong", ", required = true")), OPS);
    assert!(!bot.is_ready_within(Duration::from_secs(4)));
    assert_eq!(observer.count("worse!"), 0);

    let bot = Bot::new(server.port, &format!("nick = '{}'\nnickserv_password_file = 'password'", ACCOUNT.0), OPS);
    bot.ready();
    wait_for("NickServ knows us", || {
        // Who asks more often than this is taken for a flood.
        std::thread::sleep(Duration::from_millis(300));
        account(ACCOUNT.0).then_some(())
    });
}

#[test]
fn a_certificate_that_the_services_know_logs_in() {
    let server = Server::inspircd_with_services();
    let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let own = tempfile::tempdir().expect("folder");
    let own = Pki::new(own.path());
    let sasl = format!(
        "sasl = {{ cert_file = '{}', key_file = '{}', required = true }}",
        own.cert.display(),
        own.key.display()
    );
    // Not known yet.
    let bot = Bot::trusting(Some(&server.pki.ca_pem), server.tls_port, &sasl, OPS);
    assert!(!bot.is_ready_within(Duration::from_secs(4)));
    observer.log_in();
    observer.say(&format!("PRIVMSG NickServ :CERT ADD {}", own.fingerprint()));
    observer.wait_for_any("fingerprint");
    bot.ready();
    bot.tells(0, "by certificate");
    observer.wait_for("#ops", "by certificate");
    observer.say("WHOIS cairn");
    observer.wait_for_any(&format!(" 330 watcher cairn {}", ACCOUNT.0));
}

#[test]
fn a_server_without_sasl_is_gone_on_with() {
    let server = Server::ngircd();
    let bot = Bot::new(server.port, "sasl = { user = 'x', password_file = 'password' }", OPS);
    bot.ready();
    bot.tells(0, "here");
}

#[test]
fn tls_is_verified_against_a_private_authority() {
    let stranger = tempfile::tempdir().expect("folder");
    let stranger = Pki::new(stranger.path());
    for server in [Server::inspircd(), Server::ngircd()] {
        let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
        let bot = Bot::trusting(Some(&server.pki.ca_pem), server.tls_port, "", OPS);
        bot.ready();
        bot.tells(0, "by TLS");
        observer.wait_for("#ops", "by TLS");

        let bot = Bot::trusting(Some(&stranger.ca_pem), server.tls_port, "nick = 'other'", OPS);
        assert!(!bot.is_ready_within(Duration::from_secs(3)));
        let why = wait_for("the certificate is refused", || {
            let (why, scope, maybe_accepted) = retry(bot.send(0, "never"));
            assert_eq!((scope, maybe_accepted), (Scope::Lane, false));
            why.contains("TLS").then_some(why)
        });
        assert!(why.contains("invalid peer certificate"), "{why}");

        // Plaintext where TLS is spoken, and the other way round.
        let bot = Bot::trusting(Some(&server.pki.ca_pem), server.port, "", OPS);
        assert!(!bot.is_ready_within(Duration::from_secs(3)));
    }
}

#[test]
fn a_nick_that_is_taken_or_too_long_has_alternates_and_comes_back() {
    for server in [Server::inspircd(), Server::ngircd()] {
        let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
        let holder = Observer::join(server.port, "cairn", &[("#ops", "")]);
        let bot = Bot::new(server.port, "", OPS);
        bot.ready();
        bot.tells(0, "another name");
        assert_eq!(observer.wait_for("#ops", "another name").nick, "cairn_");
        // It sees the holder go.
        drop(holder);
        observer.wait_for_any(" NICK cairn");
        bot.tells(0, "the right name");
        assert_eq!(observer.wait_for("#ops", "the right name").nick, "cairn");
    }
    let server = Server::ngircd();
    let observer = Observer::join(server.port, "monitorin", &[("#ops", "")]);
    let bot = Bot::new(server.port, "nick = 'monitoring1'", OPS);
    bot.ready();
    bot.tells(0, "cut");
    assert_eq!(observer.wait_for("#ops", "cut").nick.len(), 9);
}

#[test]
fn sixty_stories_at_once_are_all_named_and_the_server_does_not_kill_us() {
    for server in [Server::inspircd(), Server::ngircd()] {
        let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
        let bot = Bot::new(server.port, "", OPS);
        bot.ready();
        let stories: Vec<Story> = (0..60).map(|i| down(&format!("unit-{i}."), "connection refused")).collect();
        assert_eq!(bot.tells_stories(&stories), 60);
        observer.wait_for("#ops", "port:unit-59.");
        let said: Vec<String> = observer.lines("#ops").into_iter().map(|line| line.text).collect();
        let text = said.join("\n");
        assert!(said[0].contains("60 problems"), "{text}");
        // What they have in common is said once.
        assert!(said[1].starts_with("\u{3}04[ DOWN ]\u{f} ERR web1 (60): port:unit-0., "), "{text}");
        assert!((0..60).all(|i| text.contains(&format!("port:unit-{i}."))), "{text}");
        // Then five, a line each.
        assert_eq!(bot.tells_stories(&stories[..5]), 5);
        observer.wait_for("#ops", "web1!port:unit-4.: connection refused");
        assert_eq!(observer.count("@127.0.0.1 QUIT"), 0);
    }
}

#[test]
fn inspircd_does_kill_who_floods_it() {
    let server = Server::inspircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let bot = Bot::new(server.port, "line_interval = '0s'\nburst = 100", OPS);
    bot.ready();
    let (_, scope, maybe_accepted) = retry(bot.send(0, &["flood"; 60].join("\n")));
    assert_eq!((scope, maybe_accepted), (Scope::Lane, true));
    observer.wait_for_any("QUIT");
}

#[test]
fn nothing_from_outside_breaks_out_of_its_line() {
    let server = Server::inspircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", ""), ("#other", "")]);
    let bot = Bot::new(server.port, "", &format!("{OPS}[[network.channel]]\nname = '#other'\n"));
    bot.ready();
    let text = "a\r\nPRIVMSG #other :b\nQUIT :c\0d\u{1}ACTION e\u{1}\u{3}04,05f";
    bot.tells_stories(&[down("x\u{2028}PRIVMSG #other :b", text)]);
    let line =
        observer.wait_for("#ops", "web1!port:x PRIVMSG #other :b: a  PRIVMSG #other :b QUIT :c d ACTION e  04,05f");
    assert!(!line.text.contains('\u{1}'));
    assert!(matches!(bot.send(0, "a\rQUIT :b"), Outcome::Never(_)));
    assert!(matches!(bot.send(0, &"x".repeat(600)), Outcome::Never(_)));
    assert_eq!(bot.counters.snapshot()["irc.not_one_line"], 2);
    bot.tells(1, "still here");
    observer.wait_for("#other", "still here");
    assert_eq!(observer.lines("#other").len(), 1);
}

#[test]
fn a_server_that_dies_is_connected_to_again_when_it_is_back() {
    for mut server in [Server::inspircd(), Server::ngircd()] {
        let bot = Bot::new(server.port, "", OPS);
        bot.ready();
        bot.tells(0, "before");
        server.kill();
        wait_for("it is noticed", || (!bot.is_ready_within(Duration::from_millis(50))).then_some(()));
        let (why, scope, maybe_accepted) = retry(bot.send(0, "meanwhile"));
        assert_eq!((scope, maybe_accepted), (Scope::Lane, false), "{why}");
        server.start();
        let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
        bot.ready();
        bot.tells(0, "after");
        observer.wait_for("#ops", "after");
    }
}

#[test]
fn a_server_that_hangs_is_noticed_by_its_silence() {
    let mut server = Server::inspircd();
    let bot = Bot::new(server.port, "ping_after = '1s'\nping_timeout = '2s'", OPS);
    bot.ready();
    server.process().signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let (why, scope, maybe_accepted) = retry(bot.send(0, "into the void"));
    assert!(why.contains("nothing heard for"), "{why}");
    assert_eq!((scope, maybe_accepted), (Scope::Lane, true));
    assert!(begun.elapsed() < Duration::from_secs(10));
    server.process().signal(Signal::SIGCONT);
    bot.ready();
    bot.tells(0, "back");
}

#[test]
fn whoever_is_kicked_comes_back_and_tells_it_then() {
    let server = Server::inspircd();
    let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let bot = Bot::new(server.port, "", OPS);
    bot.ready();
    observer.say("KICK #ops cairn :out");
    observer.wait_for_any("KICK #ops cairn");
    // What it says before it has heard of the kick is refused.
    wait_for("it is told", || matches!(bot.send(0, "here again"), Outcome::Sent(_)).then_some(()));
    observer.wait_for("#ops", "here again");
}

#[test]
fn a_moderated_channel_refuses_and_nothing_counts_as_told() {
    for server in [Server::inspircd(), Server::ngircd()] {
        let observer = Observer::join(server.port, "watcher", &[("#ops", "")]);
        observer.say("MODE #ops +m");
        observer.wait_for_any("MODE #ops +m");
        let bot = Bot::new(server.port, "", OPS);
        bot.ready();
        let (why, scope, maybe_accepted) = retry(bot.send(0, "one\ntwo"));
        assert!(why.contains("took 0 of 2 lines: 404"), "{why}");
        assert_eq!((scope, maybe_accepted), (Scope::Recipient, false));
    }
}

/// Accepts one connection, and gives it away.
fn impostor() -> (u16, std::thread::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("address").port();
    (port, std::thread::spawn(move || listener.accept().expect("a connection").0))
}

#[test]
fn a_server_that_says_nothing_keeps_nobody_waiting_for_ever() {
    let (port, silent) = impostor();
    let bot = Bot::new(port, "ping_after = '1s'\nping_timeout = '1s'", OPS);
    assert!(!bot.is_ready_within(Duration::from_secs(1)));
    let _stream = silent.join().expect("accepted");
    let begun = Instant::now();
    let (why, scope, maybe_accepted) = retry(bot.send(0, "hello"));
    assert!(begun.elapsed() < Duration::from_secs(10), "{why}");
    assert_eq!((scope, maybe_accepted), (Scope::Lane, false), "{why}");

    let nobody = free_port();
    let bot = Bot::new(nobody, "", OPS);
    assert!(!bot.is_ready_within(Duration::from_secs(1)));
    assert!(retry(bot.send(0, "hello")).0.contains("Connection refused"));
}

#[test]
fn a_server_that_sends_without_end_is_left() {
    for (what, counted, bytes) in [
        ("a line", "irc.line_too_long", vec![b'x'; 100_000]),
        ("lines", "irc.flood", b"NOTICE * :spam\r\n".repeat(20_000)),
    ] {
        let (port, hostile) = impostor();
        let bot = Bot::new(port, "", OPS);
        assert!(!bot.is_ready_within(Duration::from_millis(500)));
        let mut stream = hostile.join().expect("accepted");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        // It may be left before it has said it all.
        let _ = stream.write_all(&bytes);
        let mut rest = Vec::new();
        let left = stream.read_to_end(&mut rest);
        let is_left = left.as_ref().map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |_| true);
        assert!(is_left, "still there after {what}: {left:?}");
        assert_eq!(bot.counters.snapshot(), [(counted.to_owned(), 1)].into());
    }
}
