//! Connections as timelines: what the server says at which second, and what we do then.

use super::*;
use common::message::Ordered;
use common::secret::Secret;

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("one line")
}

fn plain(password: &str) -> Mechanism {
    Mechanism::Plain { user: "bot".to_owned(), password: secret(password) }
}

/// A network with the channels `#ops` and `#calm`, the second with a key; `with` names what else it has.
pub(crate) fn options(with: &str) -> Options {
    let commands = with.contains("commands");
    let channel = |name: &str, key| Channel { name: name.to_owned(), key, colour: false, notice: false, commands };
    let sasl = |required| Some(Sasl { mechanism: plain("hush"), required });
    Options {
        name: "lab".to_owned(),
        server: "irc.lab.test".to_owned(),
        port: 6667,
        trust: None,
        nick: if with.contains("long nick") { "monitoring1".to_owned() } else { "cairn".to_owned() },
        user: "cairn".to_owned(),
        realname: "Cairn monitoring".to_owned(),
        password: with.contains("password").then(|| secret("open sesame")),
        sasl: if with.contains("required") {
            sasl(true)
        } else if with.contains("sasl") {
            sasl(false)
        } else {
            None
        },
        nickserv: with.contains("nickserv").then(|| secret("identity")),
        line_interval: Duration::from_secs(2),
        burst: 4,
        ping_after: Duration::from_mins(1),
        ping_timeout: Duration::from_secs(30),
        channels: if with.contains("channels") {
            vec![channel("#ops", None), channel("#calm", Some(secret("sekrit")))]
        } else {
            vec![channel("#ops", None)]
        },
        operators: if with.contains("operators") { vec!["alice".to_owned()] } else { Vec::new() },
    }
}

/// What happens, second by second, and what comes of it.
struct Timeline {
    session: Session,
    start: Instant,
    /// `SECOND what`, since the last `expect`.
    seen: Vec<String>,
    /// What was handed out and not answered.
    asked: Vec<Asked>,
    now: u64,
}

impl Timeline {
    fn begin(with: &str) -> Self {
        let start = Instant::now();
        let session = Session::new(Arc::new(options(with)), start);
        let mut timeline = Self { session, start, seen: Vec::new(), asked: Vec::new(), now: 0 };
        timeline.collect();
        timeline
    }

    /// Registered at 0 and in its channels.
    fn registered(with: &str) -> Self {
        let mut timeline = Self::begin(with);
        timeline.says(0, ":srv 001 cairn :hi").says(0, ":srv 422 cairn :no MOTD");
        for channel in timeline.session.options.channels.clone() {
            timeline.says(0, &format!(":cairn!u@h JOIN {}", channel.name));
        }
        timeline.until(30);
        timeline.seen.clear();
        timeline
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    /// Lets time pass from deadline to deadline.
    fn until(&mut self, second: u64) -> &mut Self {
        for _ in 0..10_000 {
            let due = self.session.next_deadline(self.at(self.now));
            if due > self.at(second) || self.is_closed() {
                self.now = second;
                return self;
            }
            self.now = self.now.max(due.duration_since(self.start).as_secs());
            let now = self.at(self.now).max(due);
            self.session.tick(now);
            self.collect();
        }
        panic!("a deadline that does not pass");
    }

    fn is_closed(&self) -> bool {
        self.seen.iter().any(|seen| seen.contains(" close "))
    }

    /// The server says a line.
    fn says(&mut self, second: u64, line: &str) -> &mut Self {
        self.until(second);
        self.session.hear(self.at(second), line);
        self.collect();
        self
    }

    /// Lines for a channel are to be sent.
    fn sends(&mut self, second: u64, channel: &str, lines: &[&str]) -> &mut Self {
        self.until(second);
        let to = Channel { name: channel.to_owned(), key: None, colour: false, notice: false, commands: false };
        let id = MessageId::parse("00000000-0000-0000-0000-000000000000").expect("id");
        self.session.send(self.at(second), &to, id, lines.iter().map(|line| (*line).to_owned()).collect());
        self.collect();
        self
    }

    /// cprocessd answers the oldest question with so many lines.
    fn answers(&mut self, second: u64, lines: usize) -> &mut Self {
        self.until(second);
        let asked = self.asked.remove(0);
        let addresses = (1..lines).map(|i| format!("{i}{}", "x".repeat(150))).collect();
        let answer = Answer::Ordered(Ordered { text: "done".to_owned(), addresses, ..Ordered::default() });
        self.session.answer(self.at(second), UnixMillis(0), &asked, &answer);
        self.until(second)
    }

    fn collect(&mut self) {
        for output in self.session.outputs() {
            let what = match output {
                Output::Send(line) => format!("> {line}"),
                Output::Done(Outcome::Sent(_)) => "sent".to_owned(),
                Output::Done(Outcome::Retry { why, scope, maybe_accepted, .. }) => {
                    format!("retry {scope:?}{}: {why}", if maybe_accepted { ", maybe accepted" } else { "" })
                }
                Output::Done(Outcome::Never(why)) => format!("never: {why}"),
                Output::Close(why) => format!("close {why}"),
                Output::Refused(reason) => format!("refused {reason}"),
                Output::Say(level, text) => format!("{level} {text}"),
                Output::Ask(asked) => {
                    let what = match &asked.request {
                        Requested::Question(question) => format!("{question:?}"),
                        Requested::Order { order, account } => format!("{order:?} by {account}"),
                    };
                    self.asked.push(*asked);
                    format!("ask {what}")
                }
            };
            self.seen.push(format!("{} {what}", self.now));
        }
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.seen, expected);
        self.seen.clear();
        self
    }
}

const PING_1: &str = "PING :cairn-00000000-0000-0000-0000-000000000000-1";
const PONG_1: &str = ":srv PONG srv :cairn-00000000-0000-0000-0000-000000000000-1";

#[test]
fn registers_and_joins_with_keys() {
    let mut timeline = Timeline::begin("channels password");
    timeline.expect(&["0 > PASS :open sesame", "0 > NICK cairn", "0 > USER cairn 0 * :Cairn monitoring"]);
    timeline.says(1, ":srv NOTICE * :*** Looking up your hostname...").says(1, "PING :123").expect(&["1 > PONG :123"]);
    timeline.says(2, ":srv 001 cairn :Welcome").expect(&[]);
    timeline.says(2, ":srv 376 cairn :End of MOTD").expect(&["2 > JOIN #ops", "2 > JOIN #calm sekrit"]);
    assert!(!timeline.session.is_ready(timeline.at(2)));
    timeline.says(3, ":cairn!c@h JOIN :#ops").says(3, ":cairn!c@h JOIN #CALM");
    timeline.expect(&["3 INFO in #ops", "3 INFO in #calm"]);
    assert!(timeline.session.is_ready(timeline.at(3)));
}

#[test]
fn a_missing_motd_is_not_waited_for_for_long() {
    let mut timeline = Timeline::begin("");
    timeline.seen.clear();
    timeline.says(1, ":srv 001 cairn :Welcome").until(6).expect(&["6 > JOIN #ops"]);
    assert!(!timeline.session.is_ready(timeline.at(15)));
    assert!(timeline.session.is_ready(timeline.at(16)));
}

#[test]
fn a_server_that_never_registers_us_is_left() {
    let mut timeline = Timeline::begin("");
    timeline.seen.clear();
    timeline.says(20, ":srv 464 cairn :Password incorrect").until(100);
    timeline.expect(&["40 close not registered within 40 s after 464 Password incorrect"]);
}

#[test]
fn a_message_before_registration_waits_for_it_or_for_the_end() {
    let mut timeline = Timeline::begin("");
    timeline.sends(0, "#ops", &["1"]).says(5, ":srv NOTICE * :wait");
    timeline.seen.clear();
    timeline.until(39).expect(&[]);
    timeline.until(41).expect(&["40 close not registered within 40 s"]);
    timeline.session.lost("late");
    timeline.collect();
    timeline.expect(&["41 retry Lane: the connection to lab was lost: late"]);
}

#[test]
fn logs_in_by_sasl() {
    let mut timeline = Timeline::begin("sasl nickserv");
    timeline.expect(&["0 > CAP LS 302", "0 > NICK cairn", "0 > USER cairn 0 * :Cairn monitoring"]);
    timeline.says(1, ":srv CAP * LS * :multi-prefix sasl=PLAIN,EXTERNAL").expect(&[]);
    timeline.says(1, ":srv CAP * LS :server-time").expect(&["1 > CAP REQ :sasl"]);
    timeline.says(1, ":srv CAP cairn ACK :sasl").expect(&["1 > AUTHENTICATE PLAIN"]);
    timeline.says(1, "AUTHENTICATE +").expect(&["1 > AUTHENTICATE AGJvdABodXNo"]);
    timeline.says(1, ":srv 900 cairn cairn!c@h bot :You are now logged in as bot").expect(&[]);
    timeline.says(1, ":srv 903 cairn :SASL authentication successful").expect(&["1 > CAP END"]);
    timeline.says(2, ":srv 001 cairn :hi").says(2, ":srv 422 cairn :none").expect(&["2 > JOIN #ops"]);
}

#[test]
fn a_long_password_goes_in_pieces() {
    let long = Options { sasl: Some(Sasl { mechanism: plain(&"x".repeat(295)), required: true }), ..options("") };
    let mut session = Session::new(Arc::new(long), Instant::now());
    session.stage = Stage::Authenticating;
    session.outputs();
    session.hear(session.began, "AUTHENTICATE +");
    let sent = session.outputs();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(matches!(&sent[0], Output::Send(line) if line.len() == "AUTHENTICATE ".len() + 400));
    assert_eq!(sent[1], Output::Send("AUTHENTICATE +".to_owned()));
}

#[test]
fn a_wrong_password_is_said_and_gone_on_without() {
    let mut timeline = Timeline::begin("sasl");
    timeline.says(1, ":srv CAP * LS :sasl").says(1, ":srv CAP * ACK :sasl").says(1, "AUTHENTICATE +");
    timeline.seen.clear();
    timeline.says(2, ":srv 904 cairn :SASL authentication failed");
    timeline
        .expect(&["2 WARN SASL as bot failed (904: SASL authentication failed); going on without it", "2 > CAP END"]);
    timeline.says(2, ":srv 904 cairn :SASL authentication failed").expect(&[]);
}

#[test]
fn a_wrong_password_ends_it_where_the_account_is_required() {
    let mut timeline = Timeline::begin("required");
    timeline.says(1, ":srv CAP * LS :sasl").says(1, ":srv CAP * ACK :sasl");
    timeline.seen.clear();
    timeline.says(2, ":srv 904 cairn :no");
    timeline.expect(&["2 close SASL as bot failed (904: no), and sasl_required is set"]);
}

#[test]
fn nickserv_is_told_where_there_is_no_sasl() {
    for no_sasl in [":srv CAP * LS :multi-prefix", ":srv CAP * LS :", ":srv 421 * CAP :Unknown command"] {
        let mut timeline = Timeline::begin("required nickserv");
        timeline.seen.clear();
        timeline.says(1, no_sasl);
        timeline.expect(&["1 WARN the server has no SASL; going on without it", "1 > CAP END"]);
        timeline.says(2, ":srv 001 cairn :hi").says(2, ":srv 422 cairn :none");
        timeline.expect(&["2 > PRIVMSG NickServ :IDENTIFY identity", "2 > JOIN #ops"]);
    }
}

#[test]
fn a_taken_nick_has_alternates_and_is_regained() {
    let mut timeline = Timeline::begin("");
    timeline.seen.clear();
    timeline.says(1, ":srv 433 * cairn :Nickname is already in use.");
    timeline.says(1, ":srv 437 * cairn_ :Nick temporarily unavailable");
    timeline.expect(&[
        "1 INFO nick cairn refused (433 Nickname is already in use.), trying cairn_",
        "1 > NICK cairn_",
        "1 INFO nick cairn_ refused (437 Nick temporarily unavailable), trying cairn2",
        "1 > NICK cairn2",
    ]);
    timeline.says(2, ":srv 001 cairn2 :hi").says(2, ":srv 376 cairn2 :end").says(2, ":cairn2!u@h JOIN #ops");
    timeline.seen.clear();
    for second in (40..182).step_by(40) {
        timeline.says(second, ":srv NOTICE cairn2 :still here");
    }
    timeline.until(182).expect(&["182 > NICK cairn"]);
    timeline.says(182, ":srv 433 cairn2 cairn :in use").expect(&[]);
    timeline.says(190, ":cairn!x@h QUIT :bye").expect(&["190 > NICK cairn"]);
    timeline.says(190, ":cairn2!u@h NICK :cairn").expect(&["190 INFO nick is cairn now"]);
    timeline.until(245).expect(&[]);
    assert_eq!(timeline.session.nick(), "cairn");
}

#[test]
fn a_nick_that_is_too_long_is_cut() {
    let mut timeline = Timeline::begin("long nick");
    timeline.seen.clear();
    timeline.says(1, ":srv 432 * monitoring1 :Nickname too long").says(1, ":srv 433 * monitorin :taken");
    timeline.expect(&[
        "1 INFO nick monitoring1 refused (432 Nickname too long), trying monitorin",
        "1 > NICK monitorin",
        "1 INFO nick monitorin refused (433 taken), trying monitori_",
        "1 > NICK monitori_",
    ]);
}

#[test]
fn a_network_without_a_free_nick_is_left() {
    let mut timeline = Timeline::begin("");
    for _ in 0..21 {
        timeline.says(1, ":srv 433 * x :taken");
    }
    assert_eq!(timeline.seen.last().map(|s| &**s), Some("1 close no nick was free, the last refused with 433 taken"));
}

#[test]
fn a_message_is_accepted_when_its_pong_is_there() {
    let mut timeline = Timeline::registered("");
    timeline.sends(30, "#ops", &["PRIVMSG #ops :a", "PRIVMSG #ops :b"]);
    timeline.expect(&["30 > PRIVMSG #ops :a", "30 > PRIVMSG #ops :b", &format!("30 > {PING_1}")]);
    timeline.says(31, ":srv PONG srv :another").expect(&[]);
    timeline.says(31, PONG_1).expect(&["31 sent"]);
    timeline.says(31, PONG_1).expect(&[]);
}

#[test]
fn lines_go_no_faster_than_the_server_bears() {
    let mut timeline = Timeline::registered("");
    timeline.sends(30, "#ops", &["1", "2", "3", "4", "5", "6"]).until(34);
    timeline.expect(&["30 > 1", "30 > 2", "30 > 3", "30 > 4", "32 > 5", "34 > 6", &format!("34 > {PING_1}")]);
}

#[test]
fn a_refused_line_ends_the_message_and_the_pong_tells_what_was_taken() {
    let mut timeline = Timeline::registered("");
    timeline.sends(30, "#ops", &["1", "2", "3", "4", "5", "6"]);
    timeline.seen.clear();
    timeline.says(31, ":srv 404 cairn #ops :Cannot send to channel (+m)").expect(&[&format!("31 > {PING_1}")]);
    for _ in 0..3 {
        timeline.says(31, ":srv 404 cairn #ops :Cannot send to channel (+m)");
    }
    timeline.says(32, PONG_1).expect(&["32 retry Recipient: #ops took 0 of 6 lines: 404 Cannot send to channel (+m)"]);

    let mut timeline = Timeline::registered("");
    timeline.sends(30, "#ops", &["1", "2"]);
    timeline.seen.clear();
    timeline.says(31, ":srv 404 cairn #ops :no").says(31, PONG_1);
    timeline.expect(&["31 retry Recipient, maybe accepted: #ops took 1 of 2 lines: 404 no"]);
}

#[test]
fn a_lost_connection_says_whether_anything_was_written() {
    let mut timeline = Timeline::registered("");
    timeline.sends(30, "#ops", &["1"]);
    timeline.seen.clear();
    timeline.session.lost("reset");
    timeline.collect();
    timeline.expect(&["30 retry Lane, maybe accepted: the connection to lab was lost: reset"]);

    let mut timeline = Timeline::registered("");
    timeline.says(30, ":srv KICK #ops cairn :out").sends(30, "#ops", &["1"]);
    timeline.seen.clear();
    timeline.session.lost("reset");
    timeline.collect();
    timeline.expect(&["30 retry Lane: the connection to lab was lost: reset"]);
}

#[test]
fn a_pong_that_does_not_come_ends_the_connection() {
    let mut timeline = Timeline::registered("");
    timeline.sends(30, "#ops", &["1"]).says(40, ":srv NOTICE cairn :busy");
    timeline.seen.clear();
    timeline.until(60).expect(&["50 close no PONG within 20 s after a message"]);
}

#[test]
fn whoever_cannot_join_tries_again_ever_more_rarely_and_says_it_once() {
    let mut timeline = Timeline::begin("");
    timeline.says(0, ":srv 001 cairn :hi").says(0, ":srv 422 cairn :none");
    timeline.seen.clear();
    let refuse = ":srv 475 cairn #ops :Cannot join channel (+k)";
    timeline.says(0, refuse).expect(&["0 WARN not in #ops: 475 Cannot join channel (+k); trying again"]);
    assert!(timeline.session.is_ready(timeline.at(0)));
    timeline.until(5).expect(&["5 > JOIN #ops"]);
    timeline.says(5, refuse).until(15).expect(&["15 > JOIN #ops"]);
    timeline.sends(15, "#ops", &["1"]);
    timeline.says(15, refuse).until(30);
    timeline.expect(&["30 retry Recipient: not in #ops: 475 Cannot join channel (+k)"]);
    timeline.says(31, ":op!o@h INVITE cairn :#ops").expect(&["31 > JOIN #ops"]);
    timeline.says(31, ":cairn!u@h JOIN #ops").expect(&["31 INFO in #ops again"]);
}

#[test]
fn a_join_without_an_answer_is_tried_again() {
    let mut timeline = Timeline::begin("");
    timeline.says(0, ":srv 001 cairn :hi").says(0, ":srv 422 cairn :none");
    timeline.seen.clear();
    timeline.until(25);
    timeline.expect(&["20 WARN not in #ops: no answer to JOIN; trying again", "25 > JOIN #ops"]);
}

#[test]
fn whoever_is_kicked_comes_back_and_waits_with_the_message() {
    let mut timeline = Timeline::registered("");
    timeline.says(30, ":op!o@h KICK #ops cairn :too\u{1} loud");
    timeline.expect(&["30 WARN not in #ops: kicked by op: too  loud; trying again"]);
    timeline.sends(31, "#ops", &["1"]).until(35).expect(&["35 > JOIN #ops"]);
    timeline.says(36, ":cairn!u@h JOIN #ops");
    timeline.expect(&["36 INFO in #ops again", "36 > 1", &format!("36 > {PING_1}")]);
    timeline.says(36, PONG_1).expect(&["36 sent"]);
}

#[test]
fn a_kick_amid_a_message_leaves_it_half_told() {
    let mut timeline = Timeline::registered("");
    timeline.sends(30, "#ops", &["1", "2", "3", "4", "5", "6"]).says(31, ":op!o@h KICK #ops cairn :out");
    timeline.says(31, PONG_1);
    let last = timeline.seen.last().map(String::as_str);
    assert_eq!(last, Some("31 retry Recipient, maybe accepted: #ops took 4 of 6 lines: put out of it"));
}

#[test]
fn a_silent_server_is_asked_and_then_left() {
    let mut timeline = Timeline::registered("");
    timeline.until(60).expect(&["60 > PING :cairn-alive"]);
    timeline.says(61, ":srv PONG srv :cairn-alive").until(121).expect(&["121 > PING :cairn-alive"]);
    timeline.until(200).expect(&["151 close nothing heard for 90 s"]);
}

#[test]
fn what_is_no_irc_is_passed_over() {
    let mut timeline = Timeline::registered("channels");
    for line in [
        ":srv 353",
        ":srv 353 cairn = #ops",
        ":srv 353 cairn = #ops :@ , * !",
        ":srv 330 cairn",
        ":srv 311 cairn cairn",
        ":srv 318",
        "@account :a!b@c PRIVMSG",
        "@account= PRIVMSG #ops",
        ":a!b@c PRIVMSG #ops :",
        ":!@ PRIVMSG #ops :!down",
        ":a,*!b@c PRIVMSG #ops :!down",
        "CAP * ACK",
        "CAP * DEL :",
        ":",
        "@",
        "@a",
        ": ",
        "::",
        " ",
        "  :",
        "@a :b",
        "\u{fffd}",
        "001",
        ":srv 001",
        "MODE",
        "MODE #ops +\u{fffd}",
        ":x KICK",
        ":x KICK #ops",
        "CAP",
        "CAP LS",
        "CAP * LS",
        "NICK",
        ":cairn!u@h NICK :",
        "PING",
        "PONG",
        "AUTHENTICATE +",
        ":srv 005 cairn NICKLEN=x",
        "JOIN",
        "000 a b",
        "99999999999 x",
        ":srv 433",
        ":srv 404 cairn #ops",
        ":srv 475",
        "\0",
        ":cairn!u@h JOIN",
        ":srv 376",
        ":srv 904",
        ":srv CAP x NAK",
        "INVITE",
        ":a!b@c INVITE cairn #nowhere",
    ] {
        timeline.says(30, line);
    }
    timeline.expect(&[]);
    timeline.sends(30, "#ops", &["1"]).says(30, PONG_1);
    assert_eq!(timeline.seen.last().map(String::as_str), Some("30 sent"));
}

#[test]
fn noise_of_any_form_breaks_nothing() {
    let words = [
        ":",
        "@",
        "CAP",
        "LS",
        "*",
        "001",
        "433",
        "376",
        "#ops",
        "cairn",
        " ",
        "\r",
        "JOIN",
        "KICK",
        "MODE",
        "+k",
        ":x!y@z",
        "NICK",
        "ü",
        "\u{1}",
        "PING",
        "=",
        ";",
        "-o",
        "b",
        "PONG",
        "AUTHENTICATE",
        "+",
        "INVITE",
        "QUIT",
        "005",
        "NICKLEN=3",
        "PRIVMSG",
        "!down",
        "!silence a 1h b",
        "!more",
        "\"",
        "@account=alice",
        "account-tag",
        "ACK",
        "353",
        "311",
        "330",
        "318",
        "366",
        "PART",
    ];
    let mut state: u64 = 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits")
    };
    for _ in 0..300 {
        let mut timeline = Timeline::begin("channels sasl commands operators");
        for _ in 0..60 {
            let mut line = String::new();
            for _ in 0..random() % 8 {
                line.push_str(words[random() % words.len()]);
                line.push_str(if random() % 4 == 0 { "" } else { " " });
            }
            timeline.says(1, &line);
            if timeline.is_closed() {
                break;
            }
        }
        timeline.until(300);
    }
}

#[test]
fn a_server_that_floods_us_is_left() {
    let mut timeline = Timeline::registered("");
    for _ in 0..=FLOOD_LINES {
        timeline.session.hear(timeline.at(30), ":x!y@z PRIVMSG #ops :spam");
    }
    timeline.collect();
    timeline.expect(&["30 refused flood", "30 close more than 10000 lines in 10 s"]);
}

#[test]
fn a_message_of_the_most_lines_ends_within_a_minute_whatever_happens() {
    for (secs, lines) in [(0, [12, 8, 12]), (1, [12, 7, 12]), (2, [12, 3, 6]), (4, [6, 3, 6]), (10, [2, 2, 2])] {
        let options = Options { line_interval: Duration::from_secs(secs), ..options("") };
        assert_eq!([options.max_lines(), options.summary_lines(), options.last_summary_lines()], lines, "{secs} s");
        let waiting = options.line_interval * u32::try_from(options.max_lines()).expect("few");
        assert!(WAIT_FOR_CHANNEL + waiting + PONG_WITHIN <= Duration::from_mins(1));
    }
}

// Commands.

/// In `#ops`, with alice, bob and mallory, on a network that vouches for accounts with each line.
fn with_people(with: &str) -> Timeline {
    let mut timeline = Timeline::begin(with);
    timeline.says(0, ":srv CAP * LS :account-tag message-tags").says(0, ":srv CAP * ACK :account-tag");
    here(timeline)
}

/// As above, on a network that has no such tags.
fn without_tags(with: &str) -> Timeline {
    let mut timeline = Timeline::begin(with);
    timeline.says(0, ":srv CAP * LS :multi-prefix");
    here(timeline)
}

fn here(mut timeline: Timeline) -> Timeline {
    timeline.says(0, ":srv 001 cairn :hi").says(0, ":srv 422 cairn :no MOTD").says(0, ":cairn!u@h JOIN #ops");
    timeline.says(0, ":srv 353 cairn = #ops :cairn @alice +bob").says(0, ":srv 366 cairn #ops :End of /NAMES list.");
    timeline.says(1, ":mallory!m@evil JOIN #ops");
    timeline.until(30);
    timeline.seen.clear();
    timeline
}

const ALICE: &str = "@account=alice;+typing=done :alice!a@home PRIVMSG";

/// What is said to be done when a token was used up is not of interest here.
fn without_pings(seen: &[String]) -> Vec<&str> {
    seen.iter().map(String::as_str).filter(|line| !line.contains("> PING")).collect()
}

#[test]
fn capabilities_are_asked_for_where_commands_are_taken() {
    let mut timeline = Timeline::begin("commands");
    timeline.expect(&["0 > CAP LS 302", "0 > NICK cairn", "0 > USER cairn 0 * :Cairn monitoring"]);
    timeline.says(1, ":srv CAP * LS * :account-tag sasl").expect(&[]);
    timeline.says(1, ":srv CAP * LS :account-tag message-tags echo-message");
    timeline.expect(&["1 > CAP REQ :account-tag", "1 > CAP REQ :message-tags", "1 > CAP END"]);
    timeline.says(1, ":srv CAP * NAK :message-tags").expect(&[]);

    let mut old = Timeline::begin("commands");
    old.seen.clear();
    old.says(1, ":srv 421 * CAP :Unknown command").says(1, ":srv 001 cairn :hi").says(1, ":srv 422 cairn :none");
    old.expect(&["1 > JOIN #ops"]);

    let mut both = Timeline::begin("commands sasl");
    both.seen.clear();
    both.says(1, ":srv CAP * LS :account-tag sasl=PLAIN").expect(&["1 > CAP REQ :account-tag", "1 > CAP REQ :sasl"]);
    both.says(1, ":srv CAP * ACK :account-tag").expect(&[]);
    both.says(1, ":srv CAP * ACK :sasl").expect(&["1 > AUTHENTICATE PLAIN"]);
}

#[test]
fn whoever_is_in_a_channel_may_ask_there_or_alone() {
    let mut timeline = with_people("commands");
    timeline.says(30, ":bob!b@home PRIVMSG #ops :!down").expect(&["30 ask Down"]);
    timeline.answers(30, 1).expect(&["30 > PRIVMSG #ops :bob: done", "30 > PING :cairn-said-1"]);
    timeline.says(40, ":mallory!m@evil PRIVMSG cairn :!status").expect(&["40 ask Status"]);
    timeline.answers(40, 1).expect(&["40 > NOTICE mallory :done"]);
}

#[test]
fn whoever_is_not_there_is_told_nothing() {
    let mut timeline = with_people("commands");
    timeline.says(30, ":eve!e@far PRIVMSG cairn :!down").expect(&["30 refused command_refused"]);
    timeline.says(30, ":eve!e@far PRIVMSG #ops :!down").expect(&["30 refused command_refused"]);
    timeline.says(31, ":mallory!m@evil PART #ops").says(31, ":mallory!m@evil PRIVMSG cairn :!down");
    timeline.expect(&["31 refused command_refused"]);
    timeline
        .says(32, ":bob!b@home NICK :robert")
        .says(32, ":robert!b@home PRIVMSG cairn :!down")
        .expect(&["32 ask Down"]);
    timeline.says(33, ":bob!x@far PRIVMSG cairn :!down").expect(&["33 refused command_refused"]);
    timeline.says(34, ":alice!a@home QUIT :bye").says(34, ":alice!x@far PRIVMSG cairn :!down");
    timeline.expect(&["34 refused command_refused"]);
    // Who has left in between is told nothing, and neither is who has the nick then.
    timeline.says(35, ":robert!b@home QUIT :bye").answers(35, 1).expect(&[]);
}

#[test]
fn chatter_notices_bots_and_servers_are_no_commands() {
    let mut timeline = with_people("commands");
    for line in [
        ":bob!b@home PRIVMSG #ops :is it !down?",
        ":bob!b@home NOTICE #ops :!down",
        ":bob!b@home PRIVMSG #ops :!weather",
        ":bob!b@home PRIVMSG #other :!down",
        ":bob!b@home PRIVMSG @#ops :!down",
        "@bot :bob!b@home PRIVMSG #ops :!down",
        "@draft/bot= :bob!b@home PRIVMSG cairn :!down",
        ":cairn!u@h PRIVMSG #ops :!down",
        ":srv.test PRIVMSG cairn :!down",
        ":bob PRIVMSG #ops :!down",
        "PRIVMSG #ops :!down",
        ":bob!b@home PRIVMSG cairn :hello",
    ] {
        timeline.says(30, line);
    }
    timeline.expect(&[]);
    timeline.says(31, ":bob!b@home PRIVMSG cairn :!weather");
    timeline.expect(&["31 > NOTICE bob :there is no command !weather; !help lists those there are"]);
    let mut silent = with_people("");
    silent.says(30, ":bob!b@home PRIVMSG #ops :!down").says(30, ":bob!b@home PRIVMSG cairn :!down").expect(&[]);
}

#[test]
fn an_order_is_taken_from_the_account_that_the_network_vouches_for() {
    let mut timeline = with_people("commands operators");
    timeline.says(30, &format!("{ALICE} #ops :!delrule disk"));
    timeline.expect(&["30 ask DelRule { name: \"disk\" } by alice"]);
    // In whatever case, and under whatever nick.
    timeline.says(31, "@account=ALICE :mallory!m@evil PRIVMSG cairn :!delrule disk");
    timeline.expect(&["31 ask DelRule { name: \"disk\" } by alice"]);
}

#[test]
fn an_impostor_with_the_right_nick_is_refused() {
    let mut timeline = with_people("commands operators");
    timeline.says(30, ":alice!a@evil PRIVMSG #ops :!delrule disk");
    let refused = timeline.seen.join("; ");
    assert!(refused.contains("refused command_refused"), "{refused}");
    assert!(refused.contains("30 WARN an order of alice!a@evil (no account) is refused"), "{refused}");
    assert!(refused.contains("> PRIVMSG #ops :alice: orders are for accounts: log in to yours first"), "{refused}");
    timeline.seen.clear();
    // Nor does a tag of the client's own, nor another account.
    timeline.says(40, "@+account=alice :alice!a@evil PRIVMSG #ops :!delrule disk");
    timeline.says(50, "@account=mallory :alice!a@evil PRIVMSG #ops :!delrule disk").until(60);
    let refused = timeline.seen.join("; ");
    assert!(refused.contains("(account mallory) is refused"), "{refused}");
    assert!(refused.contains("account mallory may not give orders here"), "{refused}");
    assert!(!refused.contains("ask "), "{refused}");
}

#[test]
fn a_tag_is_no_word_of_a_network_that_did_not_promise_it() {
    let mut timeline = without_tags("commands operators");
    timeline.says(30, "@account=alice :mallory!m@evil PRIVMSG #ops :!delrule disk").expect(&["30 > WHOIS mallory"]);
    let mut given_up = with_people("commands operators");
    given_up.says(30, ":srv CAP cairn DEL :account-tag").says(30, &format!("{ALICE} #ops :!delrule disk"));
    given_up.expect(&["30 > WHOIS alice"]);
}

#[test]
fn whois_tells_the_account_anew_for_each_order() {
    let mut timeline = without_tags("commands operators");
    let order = ":alice!a@home PRIVMSG #ops :!delrule disk";
    let whois = |timeline: &mut Timeline, second: u64, lines: &[&str]| {
        for line in lines {
            timeline.says(second, line);
        }
    };
    let user = ":srv 311 cairn alice a home * :Alice";
    let account = ":srv 330 cairn alice Alice :is logged in as";
    let end = ":srv 318 cairn alice :End of /WHOIS list.";
    timeline.says(30, order).expect(&["30 > WHOIS alice"]);
    timeline.says(30, order).expect(&["30 refused command_dropped"]);
    whois(&mut timeline, 31, &[user, account, end]);
    timeline.expect(&["31 ask DelRule { name: \"disk\" } by alice"]);
    // Logged out since.
    timeline.says(40, order).expect(&["40 > WHOIS alice"]);
    whois(&mut timeline, 41, &[user, end]);
    assert!(timeline.seen.join("; ").contains("(no account) is refused"), "{:?}", timeline.seen);
    timeline.until(50).seen.clear();
    // Somebody else has the nick by now.
    timeline.says(50, order).expect(&["50 > WHOIS alice"]);
    whois(&mut timeline, 51, &[":srv 311 cairn alice a elsewhere * :Alice", account, end]);
    assert!(timeline.seen.join("; ").contains("(no account) is refused"), "{:?}", timeline.seen);
    timeline.until(60).seen.clear();
    timeline.says(60, order).says(60, ":alice!a@home NICK :mallory2").says(60, ":zoe!z@home NICK :alice");
    whois(&mut timeline, 61, &[user, account, end]);
    timeline.expect(&["60 > WHOIS alice"]);
}

#[test]
fn a_network_that_does_not_answer_whois_gets_no_order_done() {
    let mut timeline = without_tags("commands operators");
    timeline.says(30, ":alice!a@home PRIVMSG cairn :!delrule disk").expect(&["30 > WHOIS alice"]);
    timeline.until(55);
    timeline.expect(&["50 > NOTICE alice :the network does not say whose account you use; nothing was done"]);
    timeline.says(56, ":srv 330 cairn alice alice :is logged in as").says(56, ":srv 318 cairn alice :End");
    timeline.expect(&[]);
}

#[test]
fn without_operators_nobody_orders() {
    let mut timeline = with_people("commands");
    timeline.says(30, &format!("{ALICE} cairn :!delrule disk"));
    timeline.expect(&["30 > NOTICE alice :orders are not taken here: no operators are configured"]);
}

#[test]
fn a_mistake_is_explained() {
    let mut timeline = with_people("commands");
    timeline.says(30, ":bob!b@home PRIVMSG #ops :!services").until(30);
    assert_eq!(without_pings(&timeline.seen), ["30 > PRIVMSG #ops :bob: !services HOST"]);
}

#[test]
fn a_long_answer_has_more() {
    let mut timeline = with_people("commands");
    // Nine lines: two addresses fit into one.
    timeline.says(30, ":bob!b@home PRIVMSG cairn :!down").answers(30, 17).until(40);
    let lines = timeline.seen.join("\n");
    assert!(lines.contains("> NOTICE bob :6 more: !more"), "{lines}");
    assert_eq!(timeline.seen.len(), 1 + 4, "{lines}");
    timeline.seen.clear();
    timeline.says(50, ":bob!b@home PRIVMSG #ops :!more").until(60);
    assert_eq!(without_pings(&timeline.seen), ["50 > PRIVMSG #ops :bob: there is no more"]);
    timeline.seen.clear();
    timeline.says(60, ":bob!b@home PRIVMSG cairn :!more").until(70);
    assert!(timeline.seen.join("\n").contains("> NOTICE bob :3 more: !more"), "{:?}", timeline.seen);
    timeline.seen.clear();
    timeline.says(80, ":bob!b@home PRIVMSG cairn :!more").says(85, ":bob!b@home PRIVMSG cairn :!more").until(90);
    assert_eq!(timeline.seen.len(), 4, "{:?}", timeline.seen);
    assert!(timeline.seen[3].contains("there is no more"), "{:?}", timeline.seen);
}

#[test]
fn who_asks_too_much_is_told_so_once() {
    let mut timeline = with_people("commands");
    for _ in 0..500 {
        timeline.says(30, ":mallory!m@evil PRIVMSG #ops :!help");
    }
    let dropped = timeline.seen.iter().filter(|line| line.contains("command_dropped")).count();
    assert_eq!(dropped, 495);
    timeline.until(60);
    let said = without_pings(&timeline.seen);
    let told = said.iter().filter(|line| line.contains("too many commands")).count();
    assert_eq!((told, said.iter().filter(|line| line.contains(" > ")).count()), (1, 6));
    // Another nick is no other person, and another person is not held up.
    timeline.seen.clear();
    timeline.says(60, ":mallory!m@evil NICK :m2");
    for _ in 0..10 {
        timeline.says(60, ":m2!m@evil PRIVMSG #ops :!help");
    }
    assert_eq!(timeline.seen.iter().filter(|line| line.contains("command_dropped")).count(), 5);
    timeline.says(70, ":bob!b@home PRIVMSG #ops :!down").until(70);
    assert!(timeline.seen.iter().any(|line| line == "70 ask Down"));
}

#[test]
fn a_flood_of_many_grows_nothing_and_holds_up_no_alert() {
    let mut timeline = with_people("commands operators");
    for person in 0..400 {
        timeline.session.hear(timeline.at(30), &format!(":p{person}!u@h{person} JOIN #ops"));
    }
    for round in 0..3 {
        for person in 0..400 {
            for target in ["#ops", "cairn"] {
                let line = format!(":p{person}!u@h{person} PRIVMSG {target} :!{}", ["help", "down", "more"][round]);
                timeline.session.hear(timeline.at(30), &line);
            }
        }
    }
    timeline.collect();
    assert!(timeline.asked.len() <= 4);
    timeline.seen.clear();
    timeline.sends(31, "#ops", &["a", "b"]).until(31);
    let at_once: Vec<&str> = timeline.seen.iter().filter_map(|line| line.strip_prefix("31 > ")).collect();
    assert!(at_once.contains(&"a"), "{at_once:?}");
    timeline.says(40, ":srv NOTICE cairn :busy");
    let ping = timeline.seen.iter().find_map(|line| line.split_once("PING :cairn-0")).expect("a PING").1.to_owned();
    // Nothing else is said before it is accepted.
    let after: Vec<&String> = timeline.seen.iter().skip_while(|line| !line.ends_with("> a")).collect();
    assert!(
        after.iter().all(|line| line.ends_with("> a") || line.ends_with("> b") || line.contains("> PING")),
        "{after:?}"
    );
    timeline.says(41, &format!(":srv PONG srv :cairn-0{ping}"));
    assert!(timeline.seen.iter().any(|line| line == "41 sent"), "{:?}", timeline.seen);
    timeline.until(200);
    // What waited was bounded.
    let said = timeline.seen.iter().filter(|line| line.contains("PRIVMSG") || line.contains("NOTICE")).count();
    assert!(said <= 24, "{said}");
}

#[test]
fn answers_keep_the_pace() {
    let mut timeline = with_people("commands");
    for _ in 0..5 {
        timeline.says(30, ":bob!b@home PRIVMSG cairn :!help");
    }
    timeline.until(60);
    let moments: Vec<&str> = timeline.seen.iter().map(|line| line.split_once(' ').expect("a second").0).collect();
    assert_eq!(moments, ["30", "30", "32", "34", "36"]);
}

#[test]
fn what_is_refused_of_an_answer_is_not_held_against_a_message() {
    let mut timeline = with_people("commands");
    timeline.says(30, ":bob!b@home PRIVMSG #ops :!help").sends(30, "#ops", &["1"]);
    timeline.seen.clear();
    timeline.says(31, ":srv 404 cairn #ops :Cannot send to channel").says(31, ":srv PONG srv :cairn-said-1");
    timeline.says(31, &PONG_1.replace("-1", "-2")).expect(&["31 sent"]);
    // And the other way round.
    timeline
        .says(40, ":bob!b@home PRIVMSG #ops :!help")
        .sends(40, "#ops", &["1"])
        .says(41, ":srv PONG srv :cairn-said-3");
    timeline.says(41, ":srv 404 cairn #ops :no").says(41, &PONG_1.replace("-1", "-4"));
    let last = timeline.seen.last().map(String::as_str);
    assert_eq!(last, Some("41 retry Recipient: #ops took 0 of 1 lines: 404 no"));
}

#[test]
fn answers_to_a_channel_that_we_are_not_in_are_forgotten() {
    let mut timeline = with_people("commands");
    timeline.says(30, ":bob!b@home PRIVMSG #ops :!down").says(30, ":op!o@h KICK #ops cairn :out");
    timeline.seen.clear();
    timeline.answers(31, 2).says(35, ":srv PING :x").until(36);
    assert!(timeline.seen.iter().all(|line| !line.contains("PRIVMSG")), "{:?}", timeline.seen);
}
