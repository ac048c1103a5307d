//! The page: what HTTP promises, what it withstands, and what a person sees in a real browser.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use tests::browser::{Browser, Look};
use tests::http::{self, Events, get, post};
use tests::{MAX_RSS_BYTES, Plugin, Process, Suite, Target, binaries, wait_for};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A suite with a page.
struct Site {
    suite: Suite,
    port: u16,
}

impl Site {
    /// The page alone: nobody publishes.
    fn alone(cwebd: &str) -> Self {
        Self::on(Suite::new("", ""), cwebd)
    }

    /// ccollectd, cprocessd, cwebd; the page is live.
    fn running(ccollectd: &str, cprocessd: &str, cwebd: &str) -> Self {
        let site = Self::on(Suite::running(ccollectd, cprocessd), cwebd);
        site.wait_until_live();
        site
    }

    fn on(suite: Suite, cwebd: &str) -> Self {
        let port = free_port();
        let mut site = Self { suite, port };
        site.configure(cwebd);
        site.suite.start("cwebd");
        wait_for("the page is served", || http::connect(port).ok());
        site
    }

    fn configure(&self, cwebd: &str) {
        let (run, state) = (self.suite.path("run"), self.suite.path("state/cwebd"));
        let listen =
            if cwebd.contains("listen = ") { String::new() } else { format!("listen = '127.0.0.1:{}'\n", self.port) };
        let text = format!("run_dir = '{}'\nstate_dir = '{}'\n{listen}{cwebd}", run.display(), state.display());
        fs::write(self.suite.path("etc/cwebd.toml"), text).expect("written");
    }

    fn wait_until_live(&self) {
        wait_for("the page is live", || (get(self.port, "/healthz", &[]).status == 200).then_some(()));
        wait_for("the host is on the page", || self.board()["hosts"].get(0).cloned());
    }

    /// What the page shows.
    #[track_caller]
    fn board(&self) -> Value {
        get(self.port, "/api/state", &[]).json()["board"].clone()
    }

    fn browser(&self) -> Browser {
        Browser::open(&format!("http://127.0.0.1:{}", self.port))
    }

    #[track_caller]
    fn wait_for_counter(&self, name: &str) {
        wait_for(&format!("{name} is counted"), || (self.suite.counter("cwebd", name) > 0).then_some(()));
    }

    #[track_caller]
    fn stays_small(&mut self) {
        let peak = self.suite.daemon("cwebd").memory("VmHWM:");
        assert!(peak < MAX_RSS_BYTES, "cwebd took {} MiB", peak >> 20);
    }
}

/// Writes the hash of a password beside the configuration, and returns the line that names it.
fn password(suite: &Suite, password: &str) -> String {
    let mut command = Command::new(binaries().join("cwebd"));
    command.arg("--hash-password").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    std::io::Write::write_all(child.stdin.as_mut().expect("piped"), format!("{password}\n").as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    let path = suite.path("etc/cwebd.password");
    fs::write(&path, output.stdout).expect("written");
    format!("password_file = '{}'\n", path.display())
}

const SAW: &str = "document.body.innerText.includes";

/// Other machines: more ccollectds on this one, each with a name, a feed and what it watches.
fn neighbours(suite: &mut Suite, machines: &[(&str, String)]) -> String {
    let mut feeds = vec![suite.path("run/feed")];
    for (name, text) in machines {
        let daemon = format!("ccollectd-{name}");
        let (run, state) = (suite.path(&format!("run-{name}")), suite.path(&format!("state/{daemon}")));
        let config =
            format!("host = '{name}'\nrun_dir = '{}'\nstate_dir = '{}'\n{text}", run.display(), state.display());
        fs::write(suite.path(&format!("etc/{daemon}.toml")), config).expect("written");
        let command = suite.command_by(Command::new(binaries().join("ccollectd")), &daemon);
        suite.start_by(command, &daemon);
        feeds.push(run.join("feed"));
    }
    let feeds: Vec<String> = feeds.iter().map(|feed| format!("'{}'", feed.display())).collect();
    format!("feeds = [{}]\n", feeds.join(", "))
}

fn port_check(name: &str, target: &Target) -> String {
    format!("[[port]]\nname = '{name}'\naddress = '127.0.0.1:{}'\ninterval = '200ms'\nattempts = 1\n", target.port)
}

#[test]
fn the_page_follows_without_reload_and_says_at_once_when_it_is_stale() {
    let mut target = Target::new();
    let quick = "confirm = 1\n";
    let mut site =
        Site::running(&port_check("www", &target), &format!("default_rules = false\n[judging]\n{quick}"), "");
    let mut browser = site.browser();
    assert_eq!(browser.goto("/"), 200);
    browser.wait("document.title === 'All is well · Cairn'");
    browser.wait(&format!("{SAW}('Nothing is wrong. 1 host is watched.')"));
    browser.wait("document.querySelector('[data-host=testhost]').ariaLabel.match(/^testhost: up, load [0-9]+ %$/)");
    browser.eval("window.isThePageOfBefore = true");
    for (name, look) in [("well-light", Look::LIGHT), ("well-dark", Look::DARK), ("well-phone", Look::PHONE)] {
        browser.look(look);
        browser.screenshot(name);
    }
    browser.look(Look::LIGHT);

    target.down();
    browser.wait("document.querySelector('[data-host=testhost][data-mark=alarm]')");
    browser.wait(&format!("document.title === '1 problem · Cairn' && {SAW}('testhost!port:www')"));
    browser.wait("document.querySelector('[data-incident] .for').innerText === '2s'");
    browser.wait("document.querySelector('link[rel=icon]').href.includes('/assets/bad-')");
    // What a click shows.
    browser.click("[data-host=testhost]");
    browser.wait("document.querySelector('.panel canvas') && location.hash === '#host=testhost'");
    browser.wait("document.querySelectorAll('.panel [data-incident]').length === 1");
    for (name, look) in [("trouble-light", Look::LIGHT), ("trouble-dark", Look::DARK), ("trouble-phone", Look::PHONE)] {
        browser.look(look);
        browser.wait("document.documentElement.scrollWidth <= innerWidth");
        browser.screenshot(name);
    }
    browser.look(Look::LIGHT);
    browser.press("Escape");
    browser.wait("!document.querySelector('.panel')");

    target.up();
    browser.wait("document.querySelector('[data-host=testhost][data-mark=up]')");
    browser.wait(&format!("document.title === 'All is well · Cairn' && {SAW}('Nothing is wrong.')"));
    browser.wait("document.querySelector('[data-event] .for').innerText.startsWith('after ')");
    browser.complains_of(&[]);

    // The filter, and where it is kept.
    browser.type_into("input[type=search]", "DOWN www");
    browser.wait("document.querySelectorAll('[data-event]').length === 1");
    browser.type_into("input[type=search]", "nonsense");
    browser.wait(&format!("{SAW}('events has “nonsense” in it') && location.hash === '#filter=nonsense'"));
    browser.type_into("input[type=search]", "");

    // cprocessd stops, and the page says so before long; it is back, and so is the page.
    let stopped = common::time::UnixMillis::now();
    site.suite.daemon("cprocessd").signal(Signal::SIGSTOP);
    let said = browser.wait("document.querySelector('[data-freshness=stale]')");
    assert!((2000..5500).contains(&(said - stopped.0)), "stale after {} ms", said - stopped.0);
    browser.wait(&format!("{SAW}('Nothing is heard from cprocessd') && document.title.startsWith('stale: ')"));
    browser.wait(&format!("!{SAW}('Nothing is wrong')"));
    assert_eq!(get(site.port, "/healthz", &[]).status, 503);
    browser.screenshot("stale");
    site.suite.daemon("cprocessd").signal(Signal::SIGCONT);
    browser.wait("document.querySelector('[data-freshness=live]')");
    site.suite.kill("cprocessd");
    browser.wait("document.querySelector('[data-freshness=stale]')");
    // What happens meanwhile is there afterwards.
    target.down();
    site.suite.start("cprocessd");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait("document.querySelector('[data-host=testhost][data-mark=alarm]')");
    browser.complains_of(&[]);

    // cwebd itself goes and comes.
    site.suite.kill("cwebd");
    browser.wait("document.querySelector('[data-freshness=offline]')");
    browser.screenshot("offline");
    target.up();
    site.suite.start("cwebd");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait("document.querySelector('[data-host=testhost][data-mark=up]')");
    assert_eq!(browser.eval("window.isThePageOfBefore"), true, "it was never loaded again");
    // The browser's own words about the connection; nothing else.
    browser.complains_of(&["net::ERR_"]);
    site.stays_small();
}

#[test]
fn hostile_texts_are_texts() {
    let mut site = Site::running("", "default_rules = false\n", "");
    let mut browser = site.browser();
    browser.goto("/#filter=%3Cimg%20src=x%20onerror=alert(1)%3E&host=%3Cscript%3E");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait(&format!("{SAW}('No host of this name is watched.') && {SAW}('<script>')"));
    browser.type_into("input[type=search]", "");
    let mut plugin = Plugin::connect(&site.suite);
    let units = [
        "<img src=x onerror=\"window.hit=1;fetch('http://evil.test/')\">",
        "</script><script>window.hit=1</script>",
        "{@html 1}\u{202e}\u{2028}",
        "javascript:window.hit=1",
        &"w".repeat(200),
    ];
    for unit in units {
        plugin.push(&json!({ "service": "drill", "msg_type": "down", "unit": unit, "text": unit }));
    }
    browser.wait(&format!("document.querySelectorAll('[data-incident]').length === {}", units.len()));
    browser.wait(&format!("{SAW}('<img src=x onerror=') && {SAW}('</script><script>')"));
    browser.look(Look::PHONE);
    browser.wait("document.documentElement.scrollWidth <= innerWidth");
    browser.screenshot("hostile-phone");
    assert_eq!(browser.eval("document.querySelectorAll('img, body script').length"), 0);
    assert_eq!(browser.eval("window.hit ?? 0"), 0);
    browser.complains_of(&[]);
    site.stays_small();
}

#[test]
fn without_a_publisher_the_page_loads_and_says_so() {
    let mut site = Site::alone("");
    let mut browser = site.browser();
    browser.goto("/");
    browser.wait("document.querySelector('[data-freshness=stale]')");
    browser.wait(&format!("{SAW}('No host has reported yet.') && {SAW}('Nothing is heard from cprocessd')"));
    browser.screenshot("empty");
    assert_eq!(get(site.port, "/healthz", &[]).status, 503);
    site.suite.start("ccollectd");
    site.suite.start("cprocessd");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait("document.querySelector('[data-host=testhost][data-mark=up]')");
    browser.complains_of(&[]);
    assert_eq!(get(site.port, "/healthz", &[]).status, 200);
    // Asked to stop, it does not wait for the browser that follows.
    let asked = std::time::Instant::now();
    assert_eq!(site.suite.daemon("cwebd").terminate(), 0);
    assert!(asked.elapsed() < std::time::Duration::from_secs(4), "it took {:?}", asked.elapsed());
}

/// Makes the picture in the README: `cargo test -p tests --test web -- --ignored picture`.
#[test]
#[ignore = "makes deploy/page.png, for a person to look at"]
fn picture() {
    let mut suite = Suite::new("", "");
    suite.host = "monitor".to_owned();
    suite.configure("ccollectd", "");
    let (mut www, imap, mut postgres, ssh) = (Target::new(), Target::new(), Target::new(), Target::new());
    let machines = [
        ("web1", port_check("www (443)", &www)),
        ("web2", port_check("www (443)", &ssh)),
        ("web3", port_check("www (443)", &ssh)),
        ("db1", port_check("PostgreSQL (5432)", &postgres)),
        ("db2", port_check("PostgreSQL (5432)", &ssh)),
        ("mail", port_check("imap (993)", &imap)),
        ("ns1", port_check("ssh (22)", &ssh)),
        ("ns2", port_check("ssh (22)", &ssh)),
        ("build1", port_check("ssh (22)", &ssh)),
        ("build2", port_check("ssh (22)", &ssh)),
        ("backup", port_check("ssh (22)", &ssh)),
    ];
    let feeds = neighbours(&mut suite, &machines);
    let rule = "[[alarm]]\nname = 'memory in use'\nrule = 'build1!machine.memory:physical.used_percentage > 1% WARN'\n";
    suite.configure("cprocessd", &format!("{feeds}default_rules = false\n{rule}"));
    suite.start("ccollectd");
    suite.start("cprocessd");
    let mut site = Site::on(suite, "");
    wait_for("twelve hosts", || (site.board()["hosts"].as_array()?.len() == 12).then_some(()));
    let mut browser = site.browser();
    browser.goto("/");
    browser.wait(&format!("{SAW}('build1!machine')"));
    postgres.down();
    browser.wait(&format!("{SAW}('db1!port')"));
    postgres.up();
    browser.wait(&format!("!document.querySelector('[data-host=db1][data-mark=alarm]')"));
    site.suite.kill("ccollectd-ns2");
    browser.wait("document.querySelector('[data-host=ns2][data-mark=down]')");
    www.down();
    browser.wait("document.querySelector('[data-host=web1][data-mark=alarm]')");
    for (name, look) in [("light", Look::LIGHT), ("dark", Look::DARK), ("phone", Look::PHONE)] {
        browser.look(look);
        browser.screenshot(&format!("picture-{name}"));
    }
    browser.look(Look::LIGHT);
    browser.click("[data-host=web1]");
    std::thread::sleep(std::time::Duration::from_secs(60));
    browser.screenshot("picture");
    browser.complains_of(&[]);
}
