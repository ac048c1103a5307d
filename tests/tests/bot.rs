//! What people say to cbotd, and what it says and does then: a real server with real accounts, real clients, and all of the
//! chain behind the bot.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::irc::{ACCOUNT, Observer, Server};
use tests::{Plugin, Suite, wait_for};

/// Who orders, as cprocessd is told.
const AUTHOR: &str = "irc:lab/keeper";

/// The chain with a check that is down and a number over its limit, and the bot in `#ops`.
fn running(server: &Server, pace: &str, watcher: &Observer) -> (Suite, Plugin) {
    let rule = "[[alarm]]\nname = 'queue long'\nrule = '*!mail.queue:*.length > 100 WARN'\n";
    let mut suite = Suite::running("machine.enabled = false\n", &format!("default_rules = false\n{rule}"));
    let text = format!(
        "[[network]]\nname = 'lab'\nserver = 'localhost'\nport = {}\ntls = false\n{pace}operators = ['{}']\n\
         [[network.channel]]\nname = '#ops'\nseverity = 'ERR'\ncolour = false\n",
        server.port, ACCOUNT.0
    );
    suite.configure("cbotd", &text);
    suite.start("cbotd");
    watcher.wait_for_any("cairn@127.0.0.1 JOIN #ops");
    wait_for("cbotd answers", || suite.ask("cbotd.sock", r#"{"query":"health"}"#));
    let mut plugin = Plugin::connect(&suite);
    let now = common::time::UnixMillis::now().0;
    plugin.push(&json!({ "service": "mail", "msg_type": "value", "resource_type": "queue", "unit": "out",
        "values": { "length": 250 }, "time": now }));
    plugin.state("down", "two words (x)", now);
    wait_for("both are open", || (rows(&suite, "down-list").len() == 2).then_some(()));
    (suite, plugin)
}

fn rows(suite: &Suite, question: &str) -> Vec<Value> {
    let answer = suite.query(&json!({"query": question}).to_string());
    answer.and_then(|rows| rows.as_array().cloned()).unwrap_or_default()
}

/// Somebody in `#ops`. Who asks more often than the bot bears is another one each time.
struct People<'a> {
    server: &'a Server,
    prefix: &'static str,
    is_operator: bool,
    current: Option<(Observer, String)>,
    said: usize,
    came: usize,
}

impl<'a> People<'a> {
    fn new(server: &'a Server, prefix: &'static str, is_operator: bool) -> Self {
        Self { server, prefix, is_operator, current: None, said: 0, came: 0 }
    }

    fn next(&mut self) -> &(Observer, String) {
        if self.said.is_multiple_of(5) {
            self.came += 1;
            let nick = format!("{}{}", self.prefix, self.came);
            self.current = None;
            let person = Observer::join(self.server.port, &nick, &[("#ops", "")]);
            if self.is_operator {
                person.log_in();
            }
            self.current = Some((person, nick));
        }
        self.said += 1;
        self.current.as_ref().expect("somebody")
    }

    /// Says a command in the channel, and waits until the bot has said this to them.
    #[track_caller]
    fn say(&mut self, command: &str, expected: &str) {
        let (person, nick) = self.next();
        person.say(&format!("PRIVMSG #ops :{command}"));
        let line = person.wait_for("#ops", &format!("{nick}: {expected}"));
        assert_eq!(line.nick, "cairn", "{line:?}");
    }

    /// Says it to the bot alone, which answers them alone.
    #[track_caller]
    fn whisper(&mut self, command: &str, expected: &str) {
        let (person, nick) = self.next();
        person.say(&format!("PRIVMSG cairn :{command}"));
        person.wait_for(nick, expected);
    }
}

#[test]
fn every_command_does_what_its_help_says() {
    const QUICK: &str = "line_interval = '200ms'\n";
    for server in [Server::patient_inspircd_with_services(), Server::patient_inspircd_with_account_tags()] {
        let watcher = Observer::join(server.port, "watcher", &[("#ops", "")]);
        let (suite, _plugin) = running(&server, QUICK, &watcher);
        let mut people = People::new(&server, "reader", false);
        people.say("!status", "1 host: 1 up; 2 open: 1 ERR, 1 WARN");
        people.whisper("!status testhost", "testhost is up for ");
        people.say("!down", "[ DOWN ] ERR testhost!drill:two words (x) for ");
        people.say("!down", "[ ALARM ] WARN testhost!mail.queue:out.length (queue long) for ");
        people.say("!last *!mail", "testhost!mail.queue:out.length = 250");
        people.say("!servers", "[ UP ] testhost (2 open, ERR)");
        people.say("!services testhost", "[ DOWN ] drill:two words (x) for ");
        people.whisper("!alarms", "[ ALARM ] WARN testhost!mail.queue:out.length = 250 for ");
        people.say("!rules", "queue long: *!mail.queue:*.length > 100 WARN");
        people.say("!explain testhost!drill:two words", "[ DOWN ] testhost!drill:two words (x) for ");
        people.say("!silences", "nothing is silenced");
        people.say("!help", "!status !down ");
        people.whisper("!help silence", "!silence PATTERN FOR REASON: ");
        people.say("!more", "there is no more");
        people.say("!services nowhere", "host nowhere is not known");
        people.say("!last a!!b", "pattern \"a!!b\"");
        people.whisper("!nonsense", "there is no command !nonsense");

        let mut keepers = People::new(&server, "keeper", true);
        keepers.say("!ack \"testhost!drill:two words (x)\" on it", &format!("{AUTHOR} "));
        let acked = || rows(&suite, "down-list").iter().any(|row| row["acked"] == true && row["rule"] == "check");
        assert!(acked());
        people.say("!down", "[ DOWN ] ERR testhost!drill:two words (x) for ");
        watcher.wait_for("#ops", &format!("(acked by {AUTHOR})"));
        keepers.whisper("!unack testhost", &format!("{AUTHOR} says that nobody looks after "));
        assert!(!acked());
        keepers.say("!silence testhost!mail 2h is drained by hand", &format!("{AUTHOR} silenced testhost!mail until "));
        let silences = rows(&suite, "silence-list");
        assert_eq!(silences.len(), 1);
        assert_eq!((&silences[0]["author"], &silences[0]["reason"]), (&json!(AUTHOR), &json!("is drained by hand")));
        people.say("!silences", "testhost!mail is silenced for another 1h 59m by irc:lab/keeper (1 open): is drained");
        keepers.say("!unsilence testhost!mail", &format!("{AUTHOR} ended the silence on testhost!mail"));
        assert!(rows(&suite, "silence-list").is_empty());
        // Several people with one account are one.
        let patience = Instant::now() + Duration::from_secs(8);
        wait_for("two more commands are borne", || (Instant::now() > patience).then_some(()));
        keepers.say("!addrule *!mail.queue:*.length > 200 ERR", &format!("{AUTHOR} added rule *!mail.queue:"));
        let rules =
            || rows(&suite, "alarm-list").into_iter().filter(|row| row["origin"] == "order").collect::<Vec<_>>();
        assert_eq!(rules()[0]["rule"], "*!mail.queue:*.length > 200 ERR");
        keepers.say("!delrule *!mail.queue:*.length > 200", &format!("{AUTHOR} removed rule *!mail.queue:"));
        assert!(rules().is_empty());
        assert_eq!(watcher.count("cairn@127.0.0.1 QUIT"), 0);
    }
}

#[test]
fn an_order_said_twice_is_carried_out_once() {
    let server = Server::inspircd_with_account_tags();
    let watcher = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let (suite, _plugin) = running(&server, "", &watcher);
    let mut keepers = People::new(&server, "keeper", true);
    keepers.say("!silence testhost 1h upgrade", &format!("{AUTHOR} silenced testhost until "));
    keepers.say("!silence testhost 1h upgrade", &format!("already done: {AUTHOR} silenced testhost until "));
    assert_eq!(suite.events().iter().filter(|event| event["kind"] == "silence").count(), 1);
    assert_eq!(rows(&suite, "silence-list").len(), 1);
    keepers.say("!addrule disk *!machine.disk:/.free !! 5g", "rule: ");
}

#[test]
fn an_impostor_with_the_right_nick_is_refused() {
    for server in [Server::inspircd_with_services(), Server::inspircd_with_account_tags()] {
        let watcher = Observer::join(server.port, "watcher", &[("#ops", "")]);
        let (suite, _plugin) = running(&server, "", &watcher);
        let impostor = Observer::join(server.port, ACCOUNT.0, &[("#ops", "")]);
        impostor.say("PRIVMSG #ops :!silence * 1h quiet now");
        impostor.wait_for("#ops", "keeper: orders are for accounts: log in to yours first");
        impostor.say("PRIVMSG cairn :!addrule *!mail.queue:*.length > 1 CRIT");
        impostor.wait_for(ACCOUNT.0, "orders are for accounts");
        // Somebody who is in none of the channels.
        let stranger = Observer::join(server.port, "stranger", &[("#other", "")]);
        stranger.say("PRIVMSG cairn :!down");
        wait_for("it is counted", || (suite.counter("cbotd", "irc.command_refused") >= 3).then_some(()));
        assert!(stranger.lines("stranger").iter().all(|line| line.nick != "cairn"), "{:?}", stranger.lines("stranger"));
        // The account is all that counts.
        impostor.log_in();
        impostor.say("PRIVMSG #ops :!silence testhost 1h a test");
        impostor.wait_for("#ops", &format!("keeper: {AUTHOR} silenced testhost until "));
        assert!(rows(&suite, "alarm-list").iter().all(|row| row["origin"] != "order"));
        assert_eq!(rows(&suite, "silence-list").len(), 1);
        assert_eq!(suite.events().iter().filter(|event| event["rule"] == "order").count(), 1);
    }
}

#[test]
fn a_network_without_accounts_answers_questions_and_takes_no_order() {
    let server = Server::ngircd();
    let watcher = Observer::join(server.port, "watcher", &[("#ops", "")]);
    let (mut suite, _plugin) = running(&server, "", &watcher);
    let mut people = People::new(&server, "reader", false);
    people.say("!status", "1 host: 1 up; 2 open: 1 ERR, 1 WARN");
    people.whisper("!silence testhost 1h upgrade", "orders are for accounts: log in to yours first");
    assert!(rows(&suite, "silence-list").is_empty());
    suite.kill("cprocessd");
    people.say("!down", "cprocessd cannot be reached: connection refused");
    assert!(suite.counter("cbotd", "irc.unanswered") > 0);
}

#[test]
fn a_flood_of_commands_is_absorbed_and_alerts_go_first() {
    let server = Server::inspircd();
    let watcher = Observer::join(server.port, "watcher", &[("#ops", "")]);
    // At the pace that is the default: the server disconnects who is faster than it likes.
    let (suite, mut plugin) = running(&server, "", &watcher);
    watcher.wait_for("#ops", "[ DOWN ] testhost!drill:two words (x)");
    let people: Vec<Observer> =
        (0..20).map(|i| Observer::join(server.port, &format!("flood{i}"), &[("#ops", "")])).collect();
    let mut raised = None;
    for round in 0..3 {
        for (i, person) in people.iter().enumerate() {
            for command in ["!down", "!help", "!rules"] {
                let target = if i % 2 == 0 { "#ops" } else { "cairn" };
                person.say(&format!("PRIVMSG {target} :{command}"));
            }
        }
        if round == 1 {
            plugin.state("down", "alert.", common::time::UnixMillis::now().0);
            raised = Some(Instant::now());
        }
        // Else the server would disconnect them: it bears one line in 2 s.
        let rested = Instant::now() + Duration::from_secs(7);
        wait_for("the next round", || (Instant::now() > rested).then_some(()));
    }
    let line = watcher.wait_for("#ops", "[ DOWN ] testhost!drill:alert.");
    let late = line.at.duration_since(raised.expect("it was raised"));
    wait_for("it is told", || (suite.counter("cbotd", "outbox.waiting") == 0).then_some(()));
    let dropped = suite.counter("cbotd", "irc.command_dropped");
    eprintln!("amid 180 commands, of which {dropped} were dropped, the alert came after {late:?}");
    assert!(late < Duration::from_secs(4), "{late:?}");
    assert!(dropped > 100, "{dropped}");
    assert!(people.iter().all(|person| !person.is_gone()));
    assert_eq!(watcher.count("cairn@127.0.0.1 QUIT"), 0);
}
