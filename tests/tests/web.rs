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
        let listen = if cwebd.contains("listen = ") { String::new() } else { format!("listen = '127.0.0.1:{}'\n", self.port) };
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
        let config = format!("host = '{name}'\nrun_dir = '{}'\nstate_dir = '{}'\n{text}", run.display(), state.display());
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
