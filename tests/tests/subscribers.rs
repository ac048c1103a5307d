//! Mail for people who subscribed: asked before they are told, and gone with one click (RFC 8058). Real daemons, Exim, a
//! browser.

use common::secret::Secret;
use common::subscription::{Purpose, TokenKey};
use common::time::UnixMillis;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::browser::{Browser, Look};
use tests::exim::{Exim, Mail};
use tests::http::{self, Response};
use tests::servers::free_port;
use tests::{Plugin, Suite, wait_at_most, wait_for};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const QUIET: &str = "default_rules = false\n";
const NO_MACHINE: &str = "machine.enabled = false\n";
/// Where the mails say that the page is.
const PAGE: &str = "https://cairn.lab.test";
const ANN: &str = "ann@lab.test";
const OPS: &str = "ops@lab.test";
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// A suite with mail and a page.
struct Site {
    suite: Suite,
    exim: Exim,
    port: u16,
    plugin: Plugin,
}

impl Site {
    fn running() -> Self {
        Self::on(Suite::running(NO_MACHINE, QUIET), "", "")
    }

    /// With cmaild and cwebd; `publishers` is the line that names them, if it is not the one of the suite.
    fn on(mut suite: Suite, publishers: &str, cmaild: &str) -> Self {
        let (exim, port) = (Exim::start(), free_port());
        fs::write(suite.path("etc/secret"), format!("{SECRET}\n")).expect("written");
        let mailing = format!(
            "{publishers}from = 'Cairn <cairn@lab.test>'\npage = '{PAGE}/'\nsubscription_secret_file = 'secret'\n{cmaild}\
             [smtp]\nhost = 'localhost'\nport = {}\nca_file = '{}'\nuser = 'mon'\npassword_file = '{}'\ntimeout = '5s'\n\
             [[recipient]]\nname = 'ops'\nto = '{OPS}'\nseverity = 'WARN'\n",
            exim.port,
            exim.pki.ca_pem.display(),
            exim.password_file(Exim::PASSWORD).display()
        );
        suite.configure("cmaild", &mailing);
        let web = "hosts = ['cairn.lab.test']\nsubscription_secret_file = 'secret'\n";
        suite.configure("cwebd", &format!("{publishers}listen = '127.0.0.1:{port}'\n{web}"));
        suite.start("cmaild");
        suite.start("cwebd");
        wait_for("cmaild answers", || suite.ask("cmaild.sock", r#"{"query":"health"}"#));
        wait_for("the page is served", || http::connect(port).ok());
        let plugin = Plugin::connect(&suite);
        Self { suite, exim, port, plugin }
    }

    /// Something breaks, and whoever is always told is.
    #[track_caller]
    fn breaks(&mut self, unit: &str) {
        self.plugin.state("down", unit, UnixMillis::now().0);
        self.mail(OPS, &format!("drill:{unit} DOWN"));
    }

    #[track_caller]
    fn subscribe(&self, name: &str) {
        let output = self.suite.cctl(&["subscriber", "add", name, "--via", "mail", "--author", "bob"]);
        assert!(output.status.success(), "{output:?}");
    }

    #[track_caller]
    fn mail(&self, to: &str, subject: &str) -> Mail {
        let mut mails = || self.mails_to(to).into_iter().find(|mail| mail.header("Subject").contains(subject));
        wait_for(&format!("a mail to {to}: {subject}"), &mut mails)
    }

    fn mails_to(&self, to: &str) -> Vec<Mail> {
        self.exim.mails().into_iter().filter(|mail| mail.delivered_to == to).collect()
    }

    /// How somebody stands, as a person sees it: `pending`, `confirmed` or nothing.
    fn standing(&self, name: &str) -> String {
        let output = self.suite.cctl(&["subscriber", "list"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let row = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        row.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }

    /// By the name that mails have for the page.
    fn ask(&self, method: &str, link: &str, body: &str) -> Response {
        let path = link.strip_prefix(PAGE).unwrap_or(link);
        let headers = [("Host", "cairn.lab.test"), ("Content-Type", "application/x-www-form-urlencoded")];
        let response = http::request(self.port, method, path, &headers, body.as_bytes()).expect("an answer");
        assert!(response.header("content-security-policy").contains("default-src 'none'"), "{response:?}");
        assert_eq!(response.header("set-cookie"), "", "{response:?}");
        response
    }

    /// The link in the question that somebody got.
    #[track_caller]
    fn question(&self, name: &str) -> String {
        let mail = self.mail(name, "Do you want alerts from Cairn");
        let (_, link) = mail.body.split_once("Confirm: ").expect("a link");
        link.split_whitespace().next().expect("a link").to_owned()
    }

    /// Subscribed, asked, and agreed.
    #[track_caller]
    fn agreed(&self, name: &str) {
        self.subscribe(name);
        let link = self.question(name);
        assert_eq!(self.ask("POST", &link, "").status, 200);
        self.is_told(name);
    }

    /// Waits until cmaild takes somebody for a recipient.
    #[track_caller]
    fn is_told(&self, name: &str) {
        let test = json!({ "query": "test", "who": name }).to_string();
        wait_for("they are a recipient", || self.suite.ask("cmaild.sock", &test));
        self.mail(name, "TEST");
    }
}

/// A key in `path`, and the record that publishes it.
fn dkim(path: &Path) -> String {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().expect("openssl runs");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let file = path.to_str().expect("text");
    openssl(&["genpkey", "-out", file, "-algorithm", "ed25519"]);
    let public = openssl(&["pkey", "-in", file, "-pubout", "-outform", "DER"]);
    let mut key = Command::new("base64").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    key.stdin.take().expect("its input").write_all(&public[public.len() - 32..]).expect("it reads");
    let key = key.wait_with_output().expect("it ends").stdout;
    format!("v=DKIM1; k=ed25519; p={}", String::from_utf8_lossy(&key).trim())
}

#[test]
fn somebody_is_told_from_their_click_on_until_they_unsubscribe_with_another() {
    let daemons = Suite::running(NO_MACHINE, QUIET);
    let record = dkim(&daemons.path("etc/dkim.pem"));
    let mut site = Site::on(daemons, "", "dkim = { selector = 'cairn', key_file = 'dkim.pem' }\n");
    site.subscribe(ANN);
    let link = site.question(ANN);
    let question = site.mail(ANN, "Do you want alerts");
    assert!(question.body.starts_with("bob subscribed ann@lab.test to * from WARN.\n"), "{}", question.body);
    assert_eq!((question.header("List-Unsubscribe"), site.standing(ANN)), ("", "pending".to_owned()));
    // Who has not agreed hears of nothing, not even of a test.
    site.breaks("one");
    let test = site.suite.cctl(&["test-notify", ANN]);
    assert!(!test.status.success(), "{test:?}");

    // To look at the link, as programs do that search mails, changes nothing.
    for method in ["GET", "HEAD", "GET"] {
        let page = site.ask(method, &link, "");
        assert_eq!(page.status, 200);
        assert_eq!(page.text().contains("<button>Yes, send alerts</button>"), method == "GET", "{}", page.text());
    }
    assert_eq!((site.standing(ANN), site.mails_to(ANN).len()), ("pending".to_owned(), 1));
    let agreed = site.ask("POST", &link, "");
    assert!(agreed.status == 200 && agreed.text().contains(ANN), "{}", agreed.text());
    assert_eq!(site.standing(ANN), "confirmed");
    // What is open is told now; and over a kill, what follows.
    let down = site.mail(ANN, "drill:one DOWN");
    site.suite.kill("cmaild");
    site.plugin.state("up", "one", UnixMillis::now().0);
    site.suite.wait_for_event("up", "drill:one");
    site.suite.start("cmaild");
    let up = site.mail(ANN, "drill:one UP");
    assert_eq!(up.header("In-Reply-To"), down.header("Message-ID"));
    site.breaks("two");
    let mail = site.mail(ANN, "drill:two DOWN");
    let leave = mail.header("List-Unsubscribe").trim_matches(['<', '>']).to_owned();
    assert!(leave.starts_with(&format!("{PAGE}/unsubscribe?t=")), "{leave}");
    assert_eq!(mail.header("List-Unsubscribe-Post"), ONE_CLICK);
    assert!(mail.body.contains(&leave) && mail.html.contains(&format!("<a href=\"{leave}\">Unsubscribe</a>")));
    let signed = mail.header("DKIM-Signature").to_owned();
    assert!(signed.contains(":list-unsubscribe:list-unsubscribe-post;"), "{signed}");
    let sent = mail.raw.replace("\r\n", "\n").replace('\n', "\r\n");
    assert_eq!(Mail::signature(&sent, &record), "good cairn._domainkey.lab.test.", "{sent}");
    assert!(Mail::signature(&sent.replace("/unsubscribe?t=", "/elsewhere?t="), &record).starts_with("bad"));
    // Nobody else's mail has any of it.
    assert!(site.mails_to(OPS).iter().all(|mail| !mail.raw.to_lowercase().contains("list-unsubscribe: ")));

    // A mail program unsubscribes, and again, since it did not hear the answer.
    assert_eq!(site.ask("GET", &leave, "").status, 200);
    assert_eq!(site.standing(ANN), "confirmed");
    for _ in 0..2 {
        let done = site.ask("POST", &leave, ONE_CLICK);
        assert!(done.status == 200 && done.text().contains("No more alerts go to"), "{}", done.text());
    }
    assert_eq!(site.standing(ANN), "");
    let before = site.mails_to(ANN).len();
    site.breaks("three");
    // Nor are they asked again on the same day, whoever subscribes them.
    site.subscribe(ANN);
    site.subscribe("cid@lab.test");
    site.question("cid@lab.test");
    site.breaks("four");
    assert_eq!(site.mails_to(ANN).len(), before, "{:#?}", site.mails_to(ANN));
    // The link of before is still good, for it was asked for.
    assert_eq!(site.ask("POST", &link, "").status, 200);
    site.mail(ANN, "problems on 1 host");
    let events: Vec<Value> = site.suite.events().into_iter().filter(|event| event["kind"] == "order").collect();
    let given: Vec<String> =
        events.iter().map(|event| format!("{} {}", event["data"]["order"], event["data"]["author"])).collect();
    let wanted = [
        r#""subscriber-add" "bob""#,
        r#""subscriber-confirm" "web:ann@lab.test""#,
        r#""subscriber-remove" "web:ann@lab.test""#,
        r#""subscriber-add" "bob""#,
        r#""subscriber-add" "bob""#,
        r#""subscriber-confirm" "web:ann@lab.test""#,
    ];
    assert_eq!(given, wanted);
    // Who they are is nothing for the page and the channels.
    assert_eq!(events[1]["text"], "web:a…@lab.test confirmed the subscription of a…@lab.test by mail");
    let texts: Vec<String> = events.iter().map(|event| event["text"].to_string()).collect();
    assert!(!texts.concat().contains("ann"), "{texts:?}");
}

#[test]
fn a_link_that_is_not_ours_or_too_old_does_nothing_and_says_nothing() {
    let mut site = Site::running();
    let key = TokenKey::new(&Secret::new(SECRET).expect("a line"));
    let other = TokenKey::new(&Secret::new(&SECRET.replace('0', "x")).expect("a line"));
    site.subscribe(ANN);
    let good = key.token(Purpose::Confirm, ANN, None);
    let forged = [
        format!("/subscribe?t={}", other.token(Purpose::Confirm, ANN, None)),
        format!("/subscribe?t={}", key.token(Purpose::Unsubscribe, ANN, None)),
        format!("/subscribe?t={}", &good[..good.len() - 1]),
        format!("/subscribe?t={good}A"),
        format!("/unsubscribe?t={good}"),
        "/subscribe?t=".to_owned(),
        "/subscribe?x=1&t=%3Cscript%3E".to_owned(),
        "/subscribe".to_owned(),
        "/unsubscribe".to_owned(),
    ];
    let expired =
        format!("/subscribe?t={}", key.token(Purpose::Confirm, ANN, Some(UnixMillis(UnixMillis::now().0 - 1))));
    let mut said = Vec::new();
    for method in ["GET", "POST"] {
        for link in &forged {
            let response = site.ask(method, link, ONE_CLICK);
            assert_eq!(response.status, 400, "{method} {link}");
            said.push(response.text());
        }
        let response = site.ask(method, &expired, "");
        assert!(response.status == 410 && response.text().contains("no longer good"), "{}", response.text());
        assert!(!response.text().contains(ANN));
    }
    said.dedup();
    assert!(said.len() == 1 && !said[0].contains(ANN), "one answer whatever there is: {said:?}");
    assert!(site.suite.counter("cwebd", "http.forged_link") >= 18);
    assert_eq!(site.standing(ANN), "pending");

    // Of an address that nobody subscribed, ours does as little.
    let nobody = key.token(Purpose::Confirm, "nobody@lab.test", None);
    assert_eq!(site.ask("POST", &format!("/subscribe?t={nobody}"), "").status, 410);
    let nobody = key.token(Purpose::Unsubscribe, "nobody@lab.test", None);
    assert_eq!(site.ask("POST", &format!("/unsubscribe?t={nobody}"), ONE_CLICK).status, 200);
    assert_eq!(site.standing("nobody@lab.test"), "");

    // What is no click: another form, another page's form, and far too much of it.
    let leave = format!("/unsubscribe?t={}", key.token(Purpose::Unsubscribe, ANN, None));
    for body in ["", "List-Unsubscribe", "x=y"] {
        assert_eq!(site.ask("POST", &leave, body).status, 400, "{body}");
    }
    assert_eq!(site.ask("POST", &leave, &"x".repeat(100_000)).status, 413);
    let foreign = [("Origin", "https://evil.example")];
    assert_eq!(http::post(site.port, &format!("/subscribe?t={good}"), &foreign, "").status, 403);
    assert_eq!(site.standing(ANN), "pending");

    // cprocessd is away: nothing is lost in silence, and the button is there again.
    site.suite.kill("cprocessd");
    for (link, body) in [(format!("/subscribe?t={good}"), ""), (leave.clone(), ONE_CLICK)] {
        let later = site.ask("POST", &link, body);
        assert_eq!((later.status, later.header("retry-after")), (503, "30"), "{}", later.text());
        assert!(later.text().contains("<button>") && later.text().contains("try again"), "{}", later.text());
    }
    site.suite.start("cprocessd");
    site.suite.wait_for_host();
    // A mail program in a browser, by its own page and as a form of the other kind.
    let multipart = "--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n";
    let headers = [("Origin", "https://webmail.example"), ("Content-Type", "multipart/form-data; boundary=x")];
    let done = http::request(site.port, "POST", &leave, &headers, multipart.as_bytes()).expect("an answer");
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(site.standing(ANN), "");

    // Who asks without end waits, others do not; and without a secret nothing of this is there.
    let refused =
        wait_for("too many", || Some(site.ask("POST", &leave, ONE_CLICK)).filter(|answer| answer.status == 429));
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|secs| secs <= 3), "{refused:?}");
    assert_eq!(site.ask("GET", &leave, "").status, 200);
    let orders = site.suite.events().iter().filter(|event| event["kind"] == "order").count();
    assert_eq!(orders, 2, "what was undone already is no event");
    site.suite.configure("cwebd", &format!("listen = '127.0.0.1:{}'\nhosts = ['cairn.lab.test']\n", site.port));
    site.suite.daemon("cwebd").signal(nix::sys::signal::Signal::SIGHUP);
    wait_for("it is gone", || (site.ask("GET", &leave, "").status == 404).then_some(()));
    assert_eq!(site.ask("POST", &leave, ONE_CLICK).status, 404);
}

#[test]
fn of_two_cprocessds_either_subscribes_and_both_forget() {
    let mut first = Suite::new(NO_MACHINE, QUIET);
    let mut second = Suite::new("", "");
    let (here, there) = (first.path("run/stream"), second.path("run/stream"));
    first.configure("cprocessd", &format!("{QUIET}peers = ['{}']\n", there.display()));
    let feed = first.path("run/feed");
    second.configure("cprocessd", &format!("{QUIET}feeds = ['{}']\npeers = ['{}']\n", feed.display(), here.display()));
    first.start("ccollectd");
    first.start("cprocessd");
    second.start("cprocessd");
    first.wait_for_host();
    second.wait_for_host();
    let publishers = format!("publishers = ['{}', '{}']\n", here.display(), there.display());
    let mut site = Site::on(first, &publishers, "");
    let confirmed = |suite: &Suite| {
        let rows = suite.query(r#"{"query":"subscriber-list"}"#)?;
        Some(rows.as_array()?.iter().filter(|row| !row["confirmed"].is_null()).count())
    };
    let agreed = second.cctl(&["subscriber", "add", ANN, "--via", "mail"]);
    assert!(agreed.status.success(), "{agreed:?}");
    let link = site.question(ANN);
    assert_eq!(site.ask("POST", &link, "").status, 200);
    for suite in [&site.suite, &second] {
        wait_for("both know that they agreed", || confirmed(suite).filter(|count| *count == 1));
    }
    site.is_told(ANN);
    site.breaks("one");
    site.mail(ANN, "drill:one DOWN");
    // One of them is away when they leave, and hears of it later.
    second.kill("cprocessd");
    let leave = site.mail(ANN, "drill:one DOWN").header("List-Unsubscribe").trim_matches(['<', '>']).to_owned();
    assert_eq!(site.ask("POST", &leave, ONE_CLICK).status, 200);
    second.start("cprocessd");
    second.wait_for_host();
    wait_for("the other has heard of it", || confirmed(&second).filter(|count| *count == 0));
    let before = site.mails_to(ANN).len();
    site.breaks("two");
    second.wait_for_event("down", "drill:two");
    site.breaks("three");
    let subjects: Vec<String> = site.mails_to(ANN).iter().map(|mail| mail.header("Subject").to_owned()).collect();
    assert_eq!(subjects.len(), before, "{subjects:?}");
    let count = |what: &str| subjects.iter().filter(|subject| subject.contains(what)).count();
    assert_eq!((count("Do you want alerts"), count("drill:one DOWN")), (1, 1), "{subjects:?}");
}

#[test]
fn a_question_that_was_not_sent_yet_survives_a_kill_and_comes_once() {
    let mut site = Site::running();
    site.exim.kill();
    site.subscribe(ANN);
    let waits = |site: &Site| {
        let rows = site.suite.ask("cmaild.sock", r#"{"query":"ledger"}"#)?;
        let waiting = rows.as_array()?.iter().filter(|row| row["who"] == ANN && row["state"] != "sent").count();
        (waiting == 1).then_some(())
    };
    wait_for("the question waits", || waits(&site));
    site.suite.kill("cmaild");
    // While it is away, so is the only one who could say that Ann is subscribed.
    site.suite.kill("cprocessd");
    site.suite.start("cmaild");
    wait_for("the question still waits", || waits(&site));
    site.exim.restart();
    site.question(ANN);
    site.suite.start("cprocessd");
    site.suite.wait_for_host();
    // A name that is no address is said once, and keeps nobody else from being told.
    site.subscribe("everybody");
    site.agreed("dan@lab.test");
    assert!(site.suite.log("cmaild").contains("everybody is subscribed, but cannot be told"));
    assert_eq!(site.mails_to(ANN).len(), 1);
}

#[test]
fn a_person_agrees_and_leaves_in_a_browser() {
    let site = Site::running();
    site.subscribe(ANN);
    let link = site.question(ANN);
    let mut browser = Browser::open(&format!("http://127.0.0.1:{}", site.port));
    assert_eq!(browser.goto(link.strip_prefix(PAGE).expect("ours")), 200);
    browser.wait("document.body.innerText.includes('Shall alerts go to ann@lab.test?')");
    for (name, look) in
        [("subscribe-light", Look::LIGHT), ("subscribe-dark", Look::DARK), ("subscribe-phone", Look::PHONE)]
    {
        browser.look(look);
        browser.wait("document.documentElement.scrollWidth <= innerWidth");
        browser.screenshot(name);
    }
    browser.click("button");
    browser.wait("document.body.innerText.includes('from now on')");
    site.is_told(ANN);
    let leave = site.mail(ANN, "TEST").header("List-Unsubscribe").trim_matches(['<', '>']).to_owned();
    browser.goto(leave.strip_prefix(PAGE).expect("ours"));
    browser.click("button");
    browser.wait("document.body.innerText.includes('No more alerts go to ann@lab.test.')");
    browser.screenshot("unsubscribed");
    wait_at_most(Duration::from_secs(5), "it is so", || site.standing(ANN).is_empty().then_some(()));
    browser.goto("/unsubscribe?t=nonsense");
    browser.wait("document.body.innerText.includes('Copy all of it from the mail')");
    browser.complains_of(&["status of 400"]);
}
