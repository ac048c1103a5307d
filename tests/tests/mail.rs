//! Mail end to end: faults of this host reach a mailbox behind Exim, through all the daemons.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use tests::exim::{Exim, Mail};
use tests::faulty_smtp::FaultySmtp;
use tests::pki::Pki;
use tests::servers::free_port;
use tests::{Plugin, Suite, Target, wait_at_most, wait_for};

/// Observed five times a second, and one failure is enough.
fn ports(targets: &[(&str, &Target)]) -> String {
    let port = |(name, target): &(&str, &Target)| {
        format!(
            "[[port]]\nname = \"{name}\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\nattempts = 1\n",
            target.port
        )
    };
    targets.iter().map(port).collect()
}

/// A check named `vip` is CRIT; nothing else is judged than what a test breaks.
const JUDGING: &str =
    "default_rules = false\n[[classify]]\npattern = \"*!port:vip*\"\nkind = \"down\"\nseverity = \"CRIT\"\n";

fn mailing(exim: &Exim, password: &str, ca: &std::path::Path, recipients: &str) -> String {
    format!(
        "from = 'Cairn <cairn@lab.test>'\n[smtp]\nhost = 'localhost'\nport = {}\nca_file = '{}'\nuser = 'mon'\n\
         password_file = '{}'\ntimeout = '5s'\n{recipients}",
        exim.port,
        ca.display(),
        exim.password_file(password).display()
    )
}

const OPS: &str = "[[recipient]]\nname = 'ops'\nto = 'ops@lab.test'\nseverity = 'WARN'\n";

/// All daemons run, and every check is up.
fn running(targets: &[(&str, &Target)], cmaild: &str) -> Suite {
    let mut suite = Suite::running(&ports(targets), JUDGING);
    suite.configure("cmaild", cmaild);
    suite.start("cmaild");
    wait_for("the checks are up", || {
        let rows = suite.query(r#"{"query":"service-list"}"#)?;
        let up = rows.as_array()?.iter().filter(|row| row["service"] == "port" && row["state"] == "up").count();
        (up == targets.len()).then_some(())
    });
    wait_for("cmaild answers", || suite.ask("cmaild.sock", r#"{"query":"health"}"#));
    suite
}

#[track_caller]
fn mail(exim: &Exim, to: &str, subject: &str) -> Mail {
    wait_for(&format!("a mail to {to}: {subject}"), || {
        exim.mails().into_iter().find(|mail| mail.delivered_to == to && mail.header("Subject").contains(subject))
    })
}

fn ledger(suite: &Suite) -> Vec<Value> {
    let rows = wait_for("the ledger", || suite.ask("cmaild.sock", r#"{"query":"ledger"}"#));
    rows.as_array().cloned().unwrap_or_default()
}

#[test]
fn a_fault_and_its_end_are_one_thread_and_reach_whom_they_concern() {
    let (mut www, mut vip) = (Target::new(), Target::new());
    let exim = Exim::start();
    let recipients = format!("{OPS}[[recipient]]\nname = 'boss'\nto = 'Boss <boss@lab.test>'\nseverity = 'CRIT'\n");
    let mut suite =
        running(&[("www", &www), ("vip", &vip)], &mailing(&exim, Exim::PASSWORD, &exim.pki.ca_pem, &recipients));

    www.down();
    let down = mail(&exim, "ops@lab.test", "[ERR] testhost!port:www");
    assert!(down.header("Subject").ends_with(" DOWN"), "{down:?}");
    assert_eq!(down.header("From").replace('"', ""), "Cairn <cairn@lab.test>");
    assert_eq!(down.header("Return-Path"), "<cairn@lab.test>");
    assert_eq!(down.header("Auto-Submitted"), "auto-generated");
    assert_eq!(down.header("List-Id"), "<alerts.cairn.testhost>");
    let event = suite.wait_for_event("down", "port:www");
    let root = format!("<{}@testhost>", event["incident"].as_str().expect("an incident"));
    assert_eq!(down.header("References"), root);
    assert!(down.body.contains("Since: "), "{}", down.body);

    www.up();
    let up = mail(&exim, "ops@lab.test", "UP after");
    assert_eq!(up.header("In-Reply-To"), down.header("Message-ID"));
    assert_eq!(up.header("References"), format!("{root} {}", down.header("Message-ID")));

    // A restart in between: the end is told by another process, in the same thread.
    vip.down();
    let down = mail(&exim, "boss@lab.test", "[CRIT] testhost!port:vip");
    mail(&exim, "ops@lab.test", "[CRIT] testhost!port:vip");
    suite.kill("cmaild");
    suite.start("cmaild");
    vip.up();
    let up = mail(&exim, "boss@lab.test", "UP after");
    assert_eq!(up.header("In-Reply-To"), down.header("Message-ID"));
    wait_for("everybody has heard all", || (exim.mails().len() == 6).then_some(()));
    assert!(
        exim.mails().iter().all(|mail| mail.delivered_to != "boss@lab.test" || mail.header("Subject").contains("vip"))
    );
    let ids: std::collections::BTreeSet<String> =
        exim.mails().iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert_eq!(ids.len(), 6, "no two mails share a Message-ID");
    assert_eq!(suite.daemon("cmaild").terminate(), 0);
}

#[test]
fn what_a_person_must_mend_loses_nothing() {
    let mut www = Target::new();
    let exim = Exim::start();
    let other = tempfile::tempdir().expect("folder");
    let other = Pki::new(&other.path().join("pki"));
    let mut suite = running(&[("www", &www)], &mailing(&exim, Exim::PASSWORD, &other.ca_pem, OPS));
    let said = |suite: &Suite, what: &str| {
        wait_for(what, || suite.log("cmaild").contains(what).then_some(()));
    };

    www.down();
    said(&suite, "invalid peer certificate");
    // Another mistake instead: now the password is wrong.
    suite.configure("cmaild", &mailing(&exim, "wrong", &exim.pki.ca_pem, OPS));
    suite.daemon("cmaild").signal(Signal::SIGHUP);
    said(&suite, "at AUTH: 535");
    // A file that is wrong itself changes nothing.
    suite.configure("cmaild", "nonsense = 1");
    suite.daemon("cmaild").signal(Signal::SIGHUP);
    said(&suite, "the configuration stays as it was");
    assert!(exim.mails().is_empty());
    suite.configure("cmaild", &mailing(&exim, Exim::PASSWORD, &exim.pki.ca_pem, OPS));
    suite.daemon("cmaild").signal(Signal::SIGHUP);
    mail(&exim, "ops@lab.test", "DOWN");
    www.up();
    mail(&exim, "ops@lab.test", "UP after");
    assert_eq!(exim.mails().len(), 2);
    assert!(!suite.log("cmaild").contains(Exim::PASSWORD), "the password is in the log");
    assert!(ledger(&suite).iter().all(|row| row["result"] != "failed"), "{:#?}", ledger(&suite));
}

#[test]
fn a_server_that_dies_is_told_through_when_it_is_back() {
    let (mut www, mut vip) = (Target::new(), Target::new());
    let mut exim = Exim::start();
    let suite = running(&[("www", &www), ("vip", &vip)], &mailing(&exim, Exim::PASSWORD, &exim.pki.ca_pem, OPS));
    www.down();
    let down = mail(&exim, "ops@lab.test", "port:www");
    exim.kill();
    // One ends, another begins, and none of it can be told.
    www.up();
    suite.wait_for_event("up", "port:www");
    vip.down();
    suite.wait_for_event("down", "port:vip");
    wait_for("it cannot be told", || suite.log("cmaild").contains("onnection refused").then_some(()));
    exim.restart();
    wait_for("both are told", || {
        let mails = exim.mails();
        let told = |what: &str| mails.iter().any(|mail| mail.body.contains(what));
        (told(" UP after") && told("[CRIT] testhost!port:vip")).then_some(())
    });
    // What Exim was delivering when it was killed it delivers once more.
    let beginnings = |headline: &str| {
        let mails = exim.mails().into_iter().filter(|mail| mail.body.contains(headline));
        mails.map(|mail| mail.header("Received").to_owned()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!((beginnings("port:www DOWN"), beginnings("port:vip DOWN")), (1, 1));
    let up = exim.mails().into_iter().find(|mail| mail.body.contains("port:www UP after")).expect("it was told");
    assert!([down.header("Message-ID"), ""].contains(&up.header("In-Reply-To")), "a reply, or in a summary: {up:?}");
}

#[test]
fn a_mail_that_was_under_way_when_cmaild_was_killed_goes_again_under_its_name_and_says_so() {
    let mut www = Target::new();
    let mut server = FaultySmtp::start(None);
    let smtp = format!("[smtp]\nhost = '127.0.0.1'\nport = {}\nsecurity = 'none'\n{OPS}", server.port);
    let mut suite = running(&[("www", &www)], &smtp);
    server.fail("end", "hang");
    www.down();
    wait_for("the server has it", || (server.mails().len() == 1).then_some(()));
    suite.kill("cmaild");
    server.mend();
    suite.start("cmaild");
    let mails = wait_for("it comes again", || Some(server.mails()).filter(|mails| mails.len() == 2));
    let [first, second] = [0, 1].map(|n: usize| Mail::parse(mails[n]["data"].as_str().expect("a mail")));
    assert_eq!(first.header("Message-ID"), second.header("Message-ID"));
    assert_eq!((first.header("X-Cairn-Resent"), second.header("X-Cairn-Resent")), ("", "outcome unknown, sent again"));
    assert!(second.body.contains("This mail may have reached you before"), "{}", second.body);
    // And its end follows, once.
    www.up();
    wait_for("the end", || Some(server.mails()).filter(|mails| mails.len() == 3));
    assert!(ledger(&suite).iter().any(|row| row.to_string().contains("unknown")), "{:#?}", ledger(&suite));
}

#[test]
fn hostile_words_of_a_plugin_make_no_header_and_no_recipient() {
    let www = Target::new();
    let exim = Exim::start();
    let suite = running(&[("www", &www)], &mailing(&exim, Exim::PASSWORD, &exim.pki.ca_pem, OPS));
    let mut plugin = Plugin::connect(&suite);
    let hostile = "x\r\nBcc: eve@lab.test\r\n\r\n.\r\nRCPT TO:<eve@lab.test>\r\n.\r\n\u{202e}=?utf-8?q?y?=";
    let event =
        |unit: &str| json!({ "service": "app", "msg_type": "event", "severity": "ERR", "unit": unit, "text": hostile });
    // With control characters it is no unit at all; without them it is a strange one.
    plugin.push(&event("a\r\nBcc: eve@lab.test"));
    plugin.push(&event("Bcc: eve@lab.test =?utf-8?q?=0d=0aBcc:_eve=40lab.test?="));
    let mail = mail(&exim, "ops@lab.test", "testhost!app:Bcc: eve@lab.test");
    assert_eq!(mail.all("Bcc").count(), 0);
    assert!(mail.body.contains("\n    Bcc: eve@lab.test\n"), "{}", mail.body);
    // Whoever else was mailed would be there before this one.
    plugin.push(&json!({ "service": "app", "msg_type": "event", "severity": "ERR", "unit": "last", "text": "" }));
    self::mail(&exim, "ops@lab.test", "testhost!app:last");
    assert!(exim.mails().iter().all(|mail| mail.delivered_to == "ops@lab.test"), "{:#?}", exim.mails());
    assert_eq!(exim.mails().len(), 2);
}

#[test]
fn without_configuration_mails_are_files() {
    let mut www = Target::new();
    let suite = running(&[("www", &www)], "");
    www.down();
    let outbox = suite.path("state/cmaild/outbox");
    let read = || -> Vec<Mail> {
        let Ok(files) = fs::read_dir(&outbox) else { return Vec::new() };
        let whole =
            files.map(|file| file.expect("listed").path()).filter(|file| file.extension().is_some_and(|e| e == "eml"));
        whole.map(|file| Mail::parse(&fs::read_to_string(file).expect("a mail"))).collect()
    };
    let mails = wait_for("a file", || Some(read()).filter(|mails| !mails.is_empty()));
    assert_eq!(mails[0].header("To"), "root@testhost");
    assert!(mails[0].header("Subject").contains("port:www"), "{mails:?}");
    // A test that a person asks for is marked as one.
    assert!(suite.ask("cmaild.sock", r#"{"query":"test"}"#).is_some());
    wait_for("the test", || read().into_iter().find(|mail| mail.header("Subject").contains("TEST")));
}

#[test]
fn an_attachment_is_a_file_of_its_mail() {
    let www = Target::new();
    let exim = Exim::start();
    let suite = running(&[("www", &www)], &mailing(&exim, Exim::PASSWORD, &exim.pki.ca_pem, OPS));
    let mut plugin = Plugin::connect(&suite);
    let event = |unit: &str, data: Option<Value>| {
        let mut event =
            json!({ "service": "app", "msg_type": "event", "severity": "ERR", "unit": unit, "text": "refused" });
        if let Some(data) = data {
            event["data"] = data;
        }
        event
    };
    let attached = |unit: &str| mail(&exim, "ops@lab.test", &format!("testhost!app:{unit}"));
    plugin.push(&event("shop \"/../x", Some(json!({ "order": 4711, "=_": ["\r\n--x\r\n", "ü"] }))));
    let found = attached("shop");
    let [(name, content)] = &found.files[..] else { panic!("one file in {found:?}") };
    assert_eq!(name, "testhost-app-shop-x.json");
    let content: Value = serde_json::from_slice(content).expect("JSON");
    assert_eq!(content, json!({ "order": 4711, "=_": ["\r\n--x\r\n", "ü"] }));
    // A foreign parser finds the same.
    let foreign = Mail::by_python(found.raw.as_bytes());
    let parts = foreign["parts"].as_array().expect("parts");
    let kinds: Vec<&str> = parts.iter().filter_map(|part| part["type"].as_str()).collect();
    assert_eq!(kinds, ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/json"]);
    assert_eq!((&parts[4]["filename"], &parts[4]["disposition"]), (&json!(name), &json!("attachment")));
    assert!(parts.iter().all(|part| part["defects"] == json!([])), "{foreign:#}");

    plugin.push(&event("words", Some(json!("a line\r\n.\r\nand another"))));
    assert_eq!(
        attached("words").files,
        [("testhost-app-words.txt".to_owned(), b"a line\r\n.\r\nand another".to_vec())]
    );
    plugin.push(&event("none", None));
    let none = attached("none");
    assert!(none.files.is_empty() && !none.body.contains("attachment"), "{none:?}");
}

#[test]
fn while_one_relay_is_dead_the_other_takes_the_mails() {
    let (mut www, mut vip) = (Target::new(), Target::new());
    let (mut exim, second) = (Exim::start(), FaultySmtp::start(None));
    let configuration = mailing(&exim, Exim::PASSWORD, &exim.pki.ca_pem, OPS).replace("[smtp]", "[[smtp]]")
        + &format!("[[smtp]]\nhost = '127.0.0.1'\nport = {}\nsecurity = 'none'\n", second.port);
    let suite = running(&[("www", &www), ("vip", &vip)], &configuration);
    www.down();
    mail(&exim, "ops@lab.test", "port:www");
    exim.kill();
    vip.down();
    wait_for("the second has the next", || (second.mails().len() == 1).then_some(()));
    www.up();
    wait_for("and the one after it", || (second.mails().len() == 2).then_some(()));
    exim.restart();
    assert_eq!(exim.mails().len(), 1);
    assert!(suite.log("cmaild").contains("a relay fails and is asked last"), "{}", suite.log("cmaild"));
    assert!(ledger(&suite).iter().all(|row| row["state"] == "sent"), "{:#?}", ledger(&suite));
}

#[test]
fn a_mail_that_a_relay_may_have_goes_to_the_next_under_its_name_and_says_so() {
    let mut www = Target::new();
    let (mut first, second) = (FaultySmtp::start(None), FaultySmtp::start(None));
    let relay =
        |server: &FaultySmtp| format!("[[smtp]]\nhost = '127.0.0.1'\nport = {}\nsecurity = 'none'\n", server.port);
    let suite = running(&[("www", &www)], &(relay(&first) + &relay(&second) + OPS));
    first.fail("end", "drop");
    www.down();
    let copy = wait_for("the second has it", || second.mails().pop());
    let original = first.mails().pop().expect("the first had it before");
    let [original, copy] = [original, copy].map(|mail| Mail::parse(mail["data"].as_str().expect("a mail")));
    assert_eq!(original.header("Message-ID"), copy.header("Message-ID"));
    assert_eq!((original.header("X-Cairn-Resent"), copy.header("X-Cairn-Resent")), ("", "outcome unknown, sent again"));
    wait_for("it is told", || {
        ledger(&suite).iter().any(|row| row["state"] == "sent" && row["again"] == 1).then_some(())
    });
    assert_eq!((first.mails().len(), second.mails().len()), (1, 1));
}

#[test]
fn a_digest_comes_once_also_over_restarts() {
    let www = Target::new();
    let exim = Exim::start();
    let now = common::time::UnixMillis::now().0;
    let (hour, minute) = (3_600_000, 60_000);
    // Due half an hour ago.
    let due = (now - hour / 2) / minute % (24 * 60);
    let digest = format!("digest = 'daily'\ndigest_at = '{:02}:{:02}'\ndigest_zone = 'UTC'\n", due / 60, due % 60);
    let boss = "[[recipient]]\nname = 'boss'\nto = 'boss@lab.test'\nonly = ['other*']\n";
    let recipients = format!("{OPS}{digest}{boss}{digest}");
    let mut suite = running(&[("www", &www)], "");
    suite.kill("cmaild");
    let mut plugin = Plugin::connect(&suite);
    plugin.state("down", "press", now - 3 * hour);
    suite.wait_for_event("down", "drill:press");
    plugin.state("up", "press", now - 3 * hour + 12 * minute);
    suite.wait_for_event("up", "drill:press");
    plugin.state("down", "saw", now - 2 * hour);
    suite.wait_for_event("down", "drill:saw");

    suite.configure("cmaild", &mailing(&exim, Exim::PASSWORD, &exim.pki.ca_pem, &recipients));
    suite.start("cmaild");
    let digest = mail(&exim, "ops@lab.test", "daily digest: 2 outages, 1 still open on testhost");
    let place = |text: &str| digest.body.find(text).unwrap_or_else(|| panic!("{text} in {}", digest.body));
    assert!(place("testhost!drill:saw") < place("testhost!drill:press"));
    place("99.166 % available, 1 outage, 12m 0s\n");
    place("1 outage, 1h ");
    assert!(digest.html.contains("99.166 % available"), "{}", digest.html);
    let nothing = mail(&exim, "boss@lab.test", "daily digest: no outage on testhost");
    assert!(nothing.body.contains("Nothing that you select was down"), "{}", nothing.body);

    // The next process gathers it again, and tells nobody.
    suite.kill("cmaild");
    suite.start("cmaild");
    let gathered = || suite.log("cmaild").matches("daily digest gathered for 2 recipients").count() == 2;
    wait_for("it is gathered again", || gathered().then_some(()));
    plugin.push(&json!({ "service": "app", "msg_type": "event", "severity": "ERR", "unit": "last", "text": "x" }));
    mail(&exim, "ops@lab.test", "testhost!app:last");
    let digests = exim.mails().iter().filter(|mail| mail.header("Subject").contains("digest")).count();
    assert_eq!(digests, 2);
    let rows = ledger(&suite);
    assert_eq!(rows.iter().filter(|row| row["text"].to_string().contains("digest")).count(), 2, "{rows:#?}");
}

#[test]
fn a_relay_that_is_away_is_a_check_that_the_other_media_tell() {
    let mut suite = Suite::running("", JUDGING);
    let away = format!("[smtp]\nhost = '127.0.0.1'\nport = {}\nsecurity = 'none'\n{OPS}", free_port());
    suite.configure("cmaild", &away);
    suite.configure("csmsd", "pace = []\n[[recipient]]\nname = 'duty'\nseverity = 'ERR'\n");
    suite.start("cmaild");
    suite.start("csmsd");
    let outbox = suite.path("state/csmsd/outbox");
    let texts = |wanted: &str| {
        let files = fs::read_dir(&outbox).ok()?.flatten();
        let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts.find(|text| text.contains(wanted) && text.contains("cmaild:smtp"))
    };
    wait_for("cmaild answers", || suite.ask("cmaild.sock", r#"{"query":"test","who":"ops"}"#));
    // It has to be away for half a minute.
    wait_at_most(Duration::from_mins(2), "a text tells it", || texts("DOWN"));
    let row = suite.cctl_json(&["down-list"])[0].clone();
    assert!(row["text"].as_str().is_some_and(|text| text.contains("refused")), "{row}");
    let incident = row["incident"].as_str().expect("an incident").to_owned();
    let explained = suite.cctl_json(&["explain", &incident]);
    let who = |daemon: &str| explained.as_array()?.iter().find(|row| row["daemon"] == daemon).cloned();
    assert_eq!(who("csmsd").expect("a row")["state"], "sent");
    assert_eq!(who("cmaild").expect("a row")["state"], "waiting");
    suite.configure("cmaild", OPS);
    suite.daemon("cmaild").signal(Signal::SIGHUP);
    wait_at_most(Duration::from_mins(2), "a text tells that it is over", || texts("UP"));
}
