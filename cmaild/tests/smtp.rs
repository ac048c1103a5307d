//! The medium against servers: a faulty one that fails at each stage of the dialogue, and Exim.

use cmaild::config;
use cmaild::medium::{Mailer, To};
use common::counters::Counters;
use common::message::Event;
use common::notifier::{Lane, Letter, Mark, Medium, MessageId, Outcome, Scope, Story};
use common::time::UnixMillis;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tests::exim::{Exim, Mail};
use tests::faulty_smtp::FaultySmtp;
use tests::pki::Pki;
use tests::wait_for;

/// The bound that the tests configure, and what a send may take: twice that, a farewell, and a busy machine.
const TIMEOUT: Duration = Duration::from_secs(4);
const BOUND: Duration = Duration::from_secs(12);

/// A medium as it is configured, and a runtime to drive it.
struct Sender {
    lane: Lane<Mailer>,
    counters: Counters,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Sender {
    /// `smtp` are the lines of `[smtp]` without those about the time limit; `password` becomes a file.
    fn new(smtp: &str, password: &str, to: &str) -> Self {
        common::trust::install_ring();
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("password"), format!("{password}\n")).expect("file");
        let user = if password.is_empty() {
            String::new()
        } else {
            format!("user = 'mon'\npassword_file = '{}'\n", dir.path().join("password").display())
        };
        Self::of(dir, &format!("[smtp]\n{smtp}\n{user}timeout = '{}ms'\n", TIMEOUT.as_millis()), to)
    }

    /// Several relays, in this order.
    fn relays(relays: &[String]) -> Self {
        common::trust::install_ring();
        let of = |relay: &String| format!("[[smtp]]\n{relay}\ntimeout = '{}ms'\n", TIMEOUT.as_millis());
        let tables: Vec<String> = relays.iter().map(of).collect();
        Self::of(tempfile::tempdir().expect("folder"), &tables.concat(), "'ops@lab.test'")
    }

    fn of(dir: tempfile::TempDir, smtp: &str, to: &str) -> Self {
        let text = format!(
            "host = 'testhost'\nrun_dir = '{}'\nfrom = 'Cairn <cairn@lab.test>'\npage = 'https://cairn.lab.test'\n{smtp}\
             [[recipient]]\nname = 'ops'\nto = {to}\n",
            dir.path().display()
        );
        let path = dir.path().join("cmaild.toml");
        fs::write(&path, text).expect("file");
        let counters = Counters::default();
        let setup = config::load(&path, &counters).unwrap_or_else(|error| panic!("{error}"));
        let lane = setup.lanes.into_iter().next().expect("a lane");
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        Self { lane, counters, runtime, _dir: dir }
    }

    fn faulty(server: &FaultySmtp, pki: Option<&Pki>, to: &str) -> Self {
        match pki {
            Some(pki) => {
                let smtp = format!("host = 'localhost'\nport = {}\nca_file = '{}'", server.port, pki.ca_pem.display());
                Self::new(&smtp, Exim::PASSWORD, to)
            }
            None => Self::new(&format!("host = '127.0.0.1'\nport = {}\nsecurity = 'none'", server.port), "", to),
        }
    }

    fn faulty_tls(server: &FaultySmtp, pki: &Pki) -> Self {
        let (port, ca) = (server.port, pki.ca_pem.display());
        let smtp = format!("host = 'localhost'\nport = {port}\nsecurity = 'tls'\nca_file = '{ca}'");
        Self::new(&smtp, Exim::PASSWORD, "'ops@lab.test'")
    }

    fn exim(exim: &Exim, ca: &Path, password: &str, to: &str) -> Self {
        Self::new(&format!("host = 'localhost'\nport = {}\nca_file = '{}'", exim.port, ca.display()), password, to)
    }

    fn to(&self) -> &To {
        &self.lane.recipients[0].address
    }

    /// Composes and sends, within [`BOUND`].
    #[track_caller]
    fn send(&self, id: MessageId, stories: &[Story], again: bool) -> Outcome {
        let letter = Letter { id, recipient: "ops", stories, again, now: UnixMillis::now() };
        self.send_bytes(id, &self.lane.medium.compose(self.to(), &letter).bytes)
    }

    #[track_caller]
    fn send_bytes(&self, id: MessageId, bytes: &[u8]) -> Outcome {
        let began = Instant::now();
        let outcome = self.runtime.block_on(self.lane.medium.send(self.to(), id, bytes));
        assert!(began.elapsed() < BOUND, "{outcome:?} took {:?}", began.elapsed());
        outcome
    }
}

/// As the table writes them: `sent`, `never`, or what it holds up, with a `?` where it may have been accepted.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Sent(_) => "sent",
        Outcome::Never(_) => "never",
        Outcome::Retry { scope: Scope::Lane, maybe_accepted: false, .. } => "lane",
        Outcome::Retry { scope: Scope::Lane, maybe_accepted: true, .. } => "lane?",
        Outcome::Retry { scope: Scope::Recipient, maybe_accepted: false, .. } => "recipient",
        Outcome::Retry { scope: Scope::Recipient, maybe_accepted: true, .. } => "recipient?",
    }
}

fn id(n: u32) -> MessageId {
    MessageId::parse(&format!("00000000-0000-4000-8000-{n:012}")).expect("an id")
}

fn story(mark: Mark, kind: &str, address: &str, text: &str) -> Story {
    let (host, rest) = address.split_once('!').expect("a host");
    let (service, unit) = rest.split_once(':').expect("a service");
    let event: Event = serde_json::from_value(json!({
        "epoch": "00000000-0000-4000-8000-0000000000ee", "seq": 1, "nth": 1,
        "id": "00000000-0000-4000-8000-0000000000e1", "incident": "00000000-0000-4000-8000-0000000000c1",
        "kind": kind, "address": address, "host": host, "service": service, "unit": unit,
        "severity": "ERR", "top_severity": "ERR", "state": "down",
        "since": 1_795_236_306_000_i64, "time": 1_795_236_306_000_i64, "text": text, "rule": "check",
    }))
    .expect("an event");
    Story { mark, event, outages: 1, told_in: None }
}

fn down() -> Vec<Story> {
    vec![story(Mark::Began, "down", "web1!port:smtp (25)", "connection refused")]
}

#[test]
fn each_fault_at_each_stage_ends_in_time_with_the_right_outcome_and_is_made_good() {
    let dir = tempfile::tempdir().expect("folder");
    let pki = Pki::new(&dir.path().join("pki"));
    let table = [
        // hang, dropped, 421, 451, 554, slow.
        ("banner", ["lane", "lane", "lane", "lane", "lane", "sent"]),
        ("ehlo", ["lane", "lane", "lane", "lane", "lane", "sent"]),
        ("starttls", ["lane", "lane", "lane", "lane", "lane", "sent"]),
        ("auth", ["lane", "lane", "lane", "lane", "lane", "sent"]),
        ("mail", ["lane", "lane", "lane", "lane", "lane", "sent"]),
        ("rcpt", ["lane", "lane", "lane", "recipient", "never", "sent"]),
        ("data", ["lane", "lane", "lane", "recipient", "never", "sent"]),
        ("end", ["lane?", "lane?", "lane", "recipient", "never", "sent"]),
    ];
    std::thread::scope(|scope| {
        for (stage, expected) in table {
            let pki = &pki;
            scope.spawn(move || each_fault_at(stage, expected, pki));
        }
    });
}

fn each_fault_at(stage: &str, expected: [&str; 6], pki: &Pki) {
    let mut server = FaultySmtp::start(Some(pki));
    let faults = ["hang", "drop", "421 closing", "451 later", "554 never", "slow"];
    for (n, (fault, expected)) in (1..).zip(faults.into_iter().zip(expected)) {
        // A medium of its own for each, or the first stages would be passed on a kept connection.
        let sender = Sender::faulty(&server, Some(pki), "'ops@lab.test'");
        server.fail(stage, fault);
        let outcome = sender.send(id(n), &down(), false);
        assert_eq!(word(&outcome), expected, "{fault} at {stage}: {outcome:?}");
        server.mend();
        if expected != "sent" && expected != "never" {
            let outcome = sender.send(id(n), &down(), expected == "lane?");
            assert_eq!(word(&outcome), "sent", "after {fault} at {stage}: {outcome:?}");
        }
        // Its answer comes after what it said before.
        server.mend();
        let is_copy = |mail: &&serde_json::Value| mail["data"].to_string().contains(&id(n).to_string());
        let due = match expected {
            "never" => 0,
            "lane?" => 2,
            _ => 1,
        };
        assert_eq!(server.mails().iter().filter(is_copy).count(), due, "copies after {fault} at {stage}");
    }
}

#[test]
fn on_a_kept_connection_the_later_stages_fail_alike() {
    let dir = tempfile::tempdir().expect("folder");
    let pki = Pki::new(&dir.path().join("pki"));
    let mut server = FaultySmtp::start(Some(&pki));
    let sender = Sender::faulty(&server, Some(&pki), "'ops@lab.test'");
    for (stage, fault, expected) in [
        ("mail", "drop", "lane"),
        ("rcpt", "451 later", "recipient"),
        ("end", "drop", "lane?"),
        ("end", "hang", "lane?"),
    ] {
        assert_eq!(word(&sender.send(id(1), &down(), false)), "sent");
        server.fail(stage, fault);
        let outcome = sender.send(id(2), &down(), false);
        assert_eq!(word(&outcome), expected, "{fault} at {stage}: {outcome:?}");
        server.mend();
    }
}

#[test]
fn a_reply_without_an_end_is_cut_off() {
    let dir = tempfile::tempdir().expect("folder");
    let pki = Pki::new(&dir.path().join("pki"));
    let mut server = FaultySmtp::start(Some(&pki));
    for stage in ["banner", "ehlo", "auth", "rcpt"] {
        let sender = Sender::faulty(&server, Some(&pki), "'ops@lab.test'");
        server.fail(stage, "endless");
        let Outcome::Retry { why, scope: Scope::Lane, maybe_accepted: false, .. } = sender.send(id(1), &down(), false)
        else {
            panic!("not taken for a broken server");
        };
        assert!(why.contains("the reply is longer than 262144 bytes"), "{stage}: {why}");
        assert!(sender.counters.snapshot()["smtp.answer_too_long"] >= 1, "{stage}");
        server.mend();
        assert_eq!(word(&sender.send(id(1), &down(), false)), "sent");
    }
}

#[test]
fn nobody_on_the_way_can_answer_for_the_server_behind_starttls() {
    let dir = tempfile::tempdir().expect("folder");
    let pki = Pki::new(&dir.path().join("pki"));
    let mut server = FaultySmtp::start(Some(&pki));
    let sender = Sender::faulty(&server, Some(&pki), "'ops@lab.test'");
    server.fail(
        "starttls",
        "220 go on\r\n250-mx.lab.test\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n250 ok",
    );
    let outcome = sender.send(id(1), &down(), false);
    assert_eq!(word(&outcome), "lane", "{outcome:?}");
    assert!(format!("{outcome:?}").contains("something follows the reply to STARTTLS"), "{outcome:?}");
    assert_eq!(sender.counters.snapshot(), [("smtp.after_starttls".to_owned(), 1)].into());
}

#[test]
fn where_tls_comes_first_faults_are_the_same() {
    let dir = tempfile::tempdir().expect("folder");
    let pki = Pki::new(&dir.path().join("pki"));
    let mut server = FaultySmtp::start_tls(&pki);
    for (stage, fault, expected) in [
        ("banner", "hang", "lane"),
        ("banner", "endless", "lane"),
        ("ehlo", "drop", "lane"),
        ("auth", "535 wrong", "lane"),
        ("rcpt", "endless", "lane"),
        ("rcpt", "451 later", "recipient"),
        ("end", "drop", "lane?"),
    ] {
        let sender = Sender::faulty_tls(&server, &pki);
        server.fail(stage, fault);
        let outcome = sender.send(id(1), &down(), false);
        assert_eq!(word(&outcome), expected, "{fault} at {stage}: {outcome:?}");
        assert_eq!(fault == "endless", format!("{outcome:?}").contains("longer than 262144 bytes"), "{outcome:?}");
        server.mend();
        assert_eq!(word(&sender.send(id(1), &down(), false)), "sent");
    }
    // What speaks no TLS at all.
    let plain = FaultySmtp::start(None);
    let outcome = Sender::faulty_tls(&plain, &pki).send(id(1), &down(), false);
    assert_eq!(word(&outcome), "lane", "{outcome:?}");
}

#[test]
fn a_server_that_stops_reading_before_the_final_dot_has_accepted_nothing() {
    let mut server = FaultySmtp::start(None);
    let sender = Sender::faulty(&server, None, "'ops@lab.test'");
    server.fail("text", "hang");
    // More than the buffers of a connection hold.
    let long = "Subject: long\r\n\r\n".to_owned() + &"0123456789\r\n".repeat(4 << 20);
    let outcome = sender.send_bytes(id(1), long.as_bytes());
    assert_eq!(word(&outcome), "lane", "{outcome:?}");
    server.mend();
    assert_eq!(word(&sender.send(id(1), &down(), false)), "sent");
    server.mend();
    assert_eq!(server.mails().len(), 1);
}

#[test]
fn without_the_server_or_its_starttls_nothing_is_sent_and_nothing_lost() {
    let server = FaultySmtp::start(None);
    // Offers no STARTTLS: there is no falling back to plaintext.
    let sender = Sender::new(&format!("host = '127.0.0.1'\nport = {}", server.port), "", "'ops@lab.test'");
    let outcome = sender.send(id(1), &down(), false);
    assert_eq!(word(&outcome), "lane", "{outcome:?}");
    assert!(format!("{outcome:?}").contains("STARTTLS is not supported"), "{outcome:?}");
    assert!(server.mails().is_empty());
    drop(server);
    let outcome = sender.send(id(1), &down(), false);
    assert_eq!(word(&outcome), "lane", "{outcome:?}");
    assert!(format!("{outcome:?}").contains("refused"), "{outcome:?}");
}

#[test]
fn exim_takes_mails_by_starttls_and_by_tls_and_refuses_as_it_should() {
    let mut exim = Exim::start();
    let ca = exim.pki.ca_pem.clone();
    let sender = Sender::exim(&exim, &ca, Exim::PASSWORD, "'Operators <ops@lab.test>'");
    let outcome = sender.send(id(1), &down(), false);
    assert_eq!(word(&outcome), "sent", "{outcome:?}");
    let implicit =
        format!("host = 'localhost'\nport = {}\nsecurity = 'tls'\nca_file = '{}'", exim.tls_port, ca.display());
    let implicit = Sender::new(&implicit, Exim::PASSWORD, "'ops@lab.test'");
    let mut end = down();
    end[0].mark = Mark::Ended;
    end[0].event.kind = common::message::Kind::Up;
    end[0].event.duration_ms = Some(192_000);
    end[0].told_in = Some(id(1));
    assert_eq!(word(&implicit.send(id(2), &end, false)), "sent");

    let mails = wait_for("both mails are delivered", || Some(exim.mails()).filter(|mails| mails.len() == 2));
    let find = |subject: &str| -> &Mail {
        mails.iter().find(|mail| mail.header("Subject") == subject).unwrap_or_else(|| panic!("{subject} in {mails:#?}"))
    };
    let root = "<00000000-0000-4000-8000-0000000000c1@testhost>";
    let first = find("[ERR] web1!port:smtp (25) DOWN");
    assert_eq!(first.header("Message-ID"), format!("<{}@testhost>", id(1)));
    assert_eq!(first.header("References"), root);
    assert_eq!(first.header("To"), "Operators <ops@lab.test>");
    assert_eq!(first.header("Auto-Submitted"), "auto-generated");
    assert_eq!(first.header("List-Id"), "<alerts.cairn.testhost>");
    assert!(first.body.contains("    connection refused\n"), "{}", first.body);
    let second = find("[ERR] web1!port:smtp (25) UP after 3m 12s");
    assert_eq!(second.header("In-Reply-To"), first.header("Message-ID"));
    assert_eq!(second.header("References"), format!("{root} {}", first.header("Message-ID")));

    // Refusals, by address.
    for (to, expected) in [("busy@lab.test", "recipient"), ("nouser@lab.test", "never")] {
        let outcome = Sender::exim(&exim, &ca, Exim::PASSWORD, &format!("'{to}'")).send(id(3), &down(), false);
        assert_eq!(word(&outcome), expected, "{outcome:?}");
    }
    // A password that is wrong, and an authority that did not sign: a person mends them, the mail waits.
    let outcome = Sender::exim(&exim, &ca, "wrong", "'ops@lab.test'").send(id(4), &down(), false);
    assert_eq!(word(&outcome), "lane", "{outcome:?}");
    assert!(format!("{outcome:?}").contains("at AUTH: 535"), "{outcome:?}");
    let other = tempfile::tempdir().expect("folder");
    let other = Pki::new(&other.path().join("pki")).ca_pem;
    for ca in [Some(&other), None] {
        let ca = ca.map_or_else(String::new, |ca| format!("\nca_file = '{}'", ca.display()));
        let smtp = format!("host = 'localhost'\nport = {}{ca}", exim.port);
        let outcome = Sender::new(&smtp, Exim::PASSWORD, "'ops@lab.test'").send(id(5), &down(), false);
        assert_eq!(word(&outcome), "lane", "{outcome:?}");
        assert!(format!("{outcome:?}").contains("invalid peer certificate"), "{outcome:?}");
    }

    // The kept connection dies with the server, and is replaced when that is back.
    exim.kill();
    assert_eq!(word(&sender.send(id(6), &down(), false)), "lane");
    exim.restart();
    let outcome = sender.send(id(6), &down(), false);
    assert_eq!(word(&outcome), "sent", "{outcome:?}");
    exim.restart();
    let outcome = sender.send(id(7), &down(), false);
    assert_eq!(word(&outcome), "sent", "a dead kept connection costs nothing: {outcome:?}");
    wait_for("all are delivered", || (exim.mails().len() == 4).then_some(()));
}

#[test]
fn hostile_words_make_no_header_and_no_recipient() {
    let exim = Exim::start();
    let sender = Sender::exim(&exim, &exim.pki.ca_pem, Exim::PASSWORD, "'ops@lab.test'");
    let hostile = "x\r\nBcc: eve@lab.test\r\n\r\n.\r\nMAIL FROM:<eve@lab.test>\r\n\u{202e}\u{0}=?utf-8?q?x?=\u{2028}";
    let mut stories = vec![story(Mark::Once, "log", "web1!log:app", hostile)];
    stories[0].event.rule = hostile.into();
    stories[0].event.unit =
        "Bcc: eve@lab.test =?utf-8?q?=0d=0aBcc:_eve=40lab.test?= \u{202e}".try_into().expect("unit");
    stories[0].event.address = format!("web1!log:{}", stories[0].event.unit).parse().expect("address");
    assert_eq!(word(&sender.send(id(1), &stories, true)), "sent");
    let mails = wait_for("it is delivered", || Some(exim.mails()).filter(|mails| !mails.is_empty()));
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].delivered_to, "ops@lab.test");
    assert_eq!(mails[0].all("Bcc").count(), 0);
    assert_eq!(mails[0].all("Message-ID").count(), 1);
    assert!(mails[0].header("Subject").starts_with("[ERR] web1!log:Bcc: eve@lab.test = ?utf-8"), "{:?}", mails[0]);
    assert!(mails[0].body.contains("\n    Bcc: eve@lab.test\n"), "{}", mails[0].body);
    assert!(!mails[0].body.contains('\u{202e}') && !mails[0].header("Subject").contains('\u{202e}'));
    assert_eq!(mails[0].header("X-Cairn-Resent"), "outcome unknown, sent again");
}

/// Texts that would begin a header, a part, an element, an attribute or an encoded word, if they could.
const HOSTILE: &str = "</div><script>alert(1)</script><img src=x onerror=alert(1)>\" onclick=\"x\r\n--=_00000000-0000-4000-\
                       8000-000000000001_alternative\r\nContent-Type: text/html\r\n\r\n<b>&amp;\u{202e}\u{0}=?utf-8?q?x?=\r\n.\r\n";

#[test]
fn a_foreign_parser_finds_the_parts_and_no_markup_but_ours() {
    let mut server = FaultySmtp::start(None);
    let sender = Sender::faulty(&server, None, "'ops@lab.test'");
    let mut stories: Vec<Story> = ["a\"><b>", "=?utf-8?q?x?=", "ü --=_x"]
        .map(|unit| {
            let mut story = story(Mark::Once, "log", "web1!log:app", HOSTILE);
            story.event.unit = unit.try_into().expect("a unit");
            story.event.address = format!("web1!log:{unit}").parse().expect("an address");
            story.event.rule = HOSTILE.into();
            story
        })
        .into();
    stories.push(story(Mark::Began, "down", "web1!port:smtp (25)", "connection refused"));
    for stories in [&stories[..], &stories[..1], &stories[3..]] {
        let letter = Letter { id: id(1), recipient: "ops", stories, again: true, now: UnixMillis::now() };
        let bytes = sender.lane.medium.compose(sender.to(), &letter).bytes;
        assert_eq!(word(&sender.send_bytes(id(1), &bytes)), "sent");
        server.mend();
        let mail = server.mails().pop().expect("it was sent");
        let raw = mail["data"].as_str().expect("a mail");
        let found = Mail::by_python(raw.as_bytes());
        assert_eq!(found["defects"], json!([]), "{found:#}");
        let parts = found["parts"].as_array().expect("parts");
        assert!(parts.iter().all(|part| part["defects"] == json!([])), "{found:#}");
        let kinds: Vec<&str> = parts.iter().filter_map(|part| part["type"].as_str()).collect();
        let mut expected = vec!["multipart/alternative", "text/plain", "text/html"];
        if stories.len() != 1 || stories[0].mark == Mark::Once {
            expected.insert(0, "multipart/mixed");
            // No journal to ask: that is said once for each event that may have an attachment.
            expected.extend(stories.iter().filter(|story| story.mark == Mark::Once).map(|_| "text/plain"));
        }
        assert_eq!(kinds, expected);
        let html = parts.iter().find(|part| part["type"] == "text/html").expect("HTML");
        for element in html["elements"].as_array().expect("elements") {
            let tag = element[0].as_str().expect("a name");
            assert!(
                ["html", "head", "meta", "title", "body", "p", "em", "strong", "h2", "div", "span", "br", "a"]
                    .contains(&tag),
                "{element}"
            );
            let attributes = element[1].as_object().expect("attributes").keys();
            assert!(
                attributes
                    .clone()
                    .all(|name| ["lang", "charset", "name", "content", "style", "href"].contains(&name.as_str())),
                "{element}"
            );
        }
        // What was hostile is there to read.
        let shown = html["shown"].as_str().expect("a text");
        let mine = stories[0].mark == Mark::Once;
        assert_eq!(shown.contains("<script>alert(1)</script>"), mine, "{shown}");
        for text in [
            shown,
            parts.iter().find(|part| part["type"] == "text/plain").expect("text")["text"].as_str().expect("text"),
        ] {
            assert!(!text.contains('\u{202e}') && !text.contains('\u{0}'), "{text}");
            assert!(text.contains("This mail may have reached you before"), "{text}");
        }
        let names: Vec<&str> =
            found["headers"].as_array().expect("headers").iter().filter_map(|h| h[0].as_str()).collect();
        assert_eq!(names.iter().filter(|name| **name == "Content-Type").count(), 1, "{names:?}");
        assert!(!names.contains(&"Bcc"), "{names:?}");
    }
}

#[test]
fn the_first_relay_that_can_takes_a_mail() {
    let dir = tempfile::tempdir().expect("folder");
    let pki = Pki::new(&dir.path().join("pki"));
    let (mut first, mut second) = (FaultySmtp::start(None), FaultySmtp::start(Some(&pki)));
    let plain = |server: &FaultySmtp| format!("host = '127.0.0.1'\nport = {}\nsecurity = 'none'", server.port);
    let verified = |server: &FaultySmtp, password: &str| {
        format!(
            "host = 'localhost'\nport = {}\nca_file = '{}'\nuser = 'mon'\npassword_file = '{password}'",
            server.port,
            pki.ca_pem.display()
        )
    };
    fs::write(dir.path().join("good"), Exim::PASSWORD).expect("file");
    fs::write(dir.path().join("wrong"), "wrong").expect("file");
    let password = |name: &str| dir.path().join(name).display().to_string();
    let relays = [plain(&first), verified(&second, &password("good"))];
    let both = || Sender::relays(&relays);
    let had = |server: &FaultySmtp, n: u32| {
        let ours = |mail: &serde_json::Value| mail["data"].to_string().contains(&id(n).to_string());
        server.mails().iter().filter(|mail| ours(mail)).count()
    };

    // While all is well the first has it.
    let sender = both();
    assert_eq!(word(&sender.send(id(1), &down(), false)), "sent");
    // A fault of the relay itself: the next takes it, at once, and the first is asked last from then on.
    for (n, (stage, fault)) in (10..).zip([
        ("banner", "drop"),
        ("banner", "hang"),
        ("ehlo", "554 go away"),
        ("mail", "550 5.7.1 sender rejected"),
        ("rcpt", "550 5.7.1 relaying denied"),
        ("rcpt", "451 greylisted"),
        ("rcpt", "drop"),
        ("data", "421 closing"),
        ("end", "554 5.7.1 looks like spam"),
        ("end", "452 disk full"),
    ]) {
        let sender = both();
        first.fail(stage, fault);
        let outcome = sender.send(id(n), &down(), false);
        assert_eq!(word(&outcome), "sent", "{fault} at {stage}: {outcome:?}");
        assert!(
            format!("{outcome:?}").contains(&format!("by localhost port {} after 127.0.0.1", second.port)),
            "{outcome:?}"
        );
        first.mend();
        second.mend();
        assert_eq!((had(&first, n), had(&second, n)), (0, 1), "{fault} at {stage}");
    }
    // Who said no to one mail is asked first for the next; who failed is not.
    let sender = both();
    first.fail("rcpt", "451 greylisted");
    assert_eq!(word(&sender.send(id(30), &down(), false)), "sent");
    first.mend();
    assert_eq!(word(&sender.send(id(31), &down(), false)), "sent");
    first.fail("banner", "drop");
    let sender = both();
    assert_eq!(word(&sender.send(id(32), &down(), false)), "sent");
    first.mend();
    assert_eq!(word(&sender.send(id(33), &down(), false)), "sent");
    second.mend();
    assert_eq!([30, 31, 32, 33].map(|n| (had(&first, n), had(&second, n))), [(0, 1), (1, 0), (0, 1), (0, 1)]);

    // What is about the mail itself is final, and nobody else is asked.
    let sender = both();
    first.fail("rcpt", "550 5.1.1 no such mailbox");
    assert_eq!(word(&sender.send(id(40), &down(), false)), "never");
    // What may have been accepted goes to nobody else unmarked; marked it goes to the one that works.
    for (n, fault) in [(41, "drop"), (42, "hang")] {
        let sender = both();
        first.fail("end", fault);
        assert_eq!(word(&sender.send(id(n), &down(), false)), "recipient?");
        assert_eq!(word(&sender.send(id(n), &down(), true)), "sent");
        first.mend();
        second.mend();
        assert_eq!((had(&first, n), had(&second, n)), (1, 1), "{fault}");
        let copy = second.mails().pop().expect("a mail");
        assert!(copy["data"].to_string().contains("X-Cairn-Resent"), "{copy}");
    }
    assert_eq!((had(&first, 40), had(&second, 40)), (0, 0));

    // A relay that does not let us in leads to the next.
    let sender = Sender::relays(&[verified(&second, &password("wrong")), plain(&first)]);
    let outcome = sender.send(id(50), &down(), false);
    assert_eq!(word(&outcome), "sent", "{outcome:?}");
    assert!(format!("{outcome:?}").contains("at AUTH: 535"), "{outcome:?}");
    // With nobody there the mail waits, and all of them are named.
    let (first_port, second_port) = (first.port, second.port);
    let sender = both();
    drop((first, second));
    let outcome = sender.send(id(51), &down(), false);
    assert_eq!(word(&outcome), "lane", "{outcome:?}");
    for port in [first_port, second_port] {
        assert!(format!("{outcome:?}").contains(&port.to_string()), "{outcome:?}");
    }
}

/// A key as `openssl genpkey` makes it, and the record that its owner publishes.
fn key(dir: &Path, algorithm: &[&str]) -> (String, String) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let name = format!("{}.pem", algorithm[0]);
    openssl(&[&["genpkey", "-out", &name, "-algorithm"][..], algorithm].concat());
    let public = openssl(&["pkey", "-in", &name, "-pubout", "-outform", "DER"]);
    let (kind, public) = match algorithm[0] {
        "RSA" => ("rsa", &public[..]),
        // RFC 8463 §4.2: the key itself.
        _ => ("ed25519", &public[public.len() - 32..]),
    };
    let published = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, public);
    (dir.join(name).display().to_string(), format!("v=DKIM1; k={kind}; p={published}"))
}

#[test]
fn a_foreign_verifier_finds_the_signature_good_and_that_of_a_changed_mail_bad() {
    let dir = tempfile::tempdir().expect("folder");
    for algorithm in [&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..], &["ed25519"]] {
        let (file, record) = key(dir.path(), algorithm);
        let mut server = FaultySmtp::start(None);
        let smtp = format!(
            "[dkim]\nselector = 'cairn'\nkey_file = '{file}'\n[smtp]\nhost = '127.0.0.1'\nport = {}\nsecurity = 'none'\n",
            server.port
        );
        common::trust::install_ring();
        let sender = Sender::of(tempfile::tempdir().expect("folder"), &smtp, "'ops@lab.test'");
        let mut hostile = vec![story(Mark::Once, "log", "web1!log:app", HOSTILE)];
        hostile[0].event.text.push_str("  two  spaces \t\n\n\n");
        let mut end = down();
        end[0].told_in = Some(id(1));
        end[0].mark = Mark::Ended;
        for (n, stories) in (1..).zip([down(), hostile, end]) {
            assert_eq!(word(&sender.send(id(n), &stories, n == 3)), "sent");
            server.mend();
            let mail = server.mails().pop().expect("it was sent");
            let mail = mail["data"].as_str().expect("a mail");
            assert!(mail.lines().take_while(|line| !line.is_empty()).all(|line| line.len() < 300), "{mail}");
            assert_eq!(Mail::signature(mail, &record), "good cairn._domainkey.lab.test.", "{algorithm:?} {mail}");
            for (what, changed) in [
                ("web1", mail.replace("web1", "web2")),
                ("Subject", mail.replacen("Subject:", "Subject: all is well\r\nSubject:", 1)),
                ("To", mail.replace("To: ops", "To: eve")),
                ("body", format!("{mail}more\r\n")),
            ] {
                assert!(Mail::signature(&changed, &record).starts_with("bad"), "{algorithm:?} {what}");
            }
        }
    }
}
