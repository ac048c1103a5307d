//! The page: what HTTP promises, what it withstands, and what a person sees in a real browser.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::browser::{Browser, Look};
use tests::http::{self, Events, get, post};
use tests::servers::free_port;
use tests::{MAX_RSS_BYTES, Plugin, Process, Suite, Target, binaries, wait_at_most, wait_for};

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
        let web = Self::on(Suite::running(ccollectd, cprocessd), cwebd);
        web.wait_until_live();
        web
    }

    fn on(suite: Suite, cwebd: &str) -> Self {
        let port = free_port();
        let mut web = Self { suite, port };
        web.configure(cwebd);
        web.suite.start("cwebd");
        wait_for("the page is served", || http::connect(port).ok());
        web
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
        eprintln!("cwebd took at most {} MiB", peak >> 20);
        assert!(peak < MAX_RSS_BYTES, "cwebd took {} MiB", peak >> 20);
    }
}

/// Writes the hash of a password beside the configuration, and returns the line that names it.
fn password(suite: &Suite, password: &str) -> String {
    let mut command = Command::new(binaries().join("cwebd"));
    command.arg("--hash-password").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    writeln!(child.stdin.as_mut().expect("piped"), "{password}").expect("read");
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
    let mut web = Site::running(&port_check("www", &target), &format!("default_rules = false\n[judging]\n{quick}"), "");
    let mut browser = web.browser();
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

    // Where the link of a mail leads: the event stands out, and later the page says that it has it no longer.
    let events = web.suite.events();
    let down = events.iter().find(|event| event["kind"] == "down").expect("it was down");
    let at = down["time"].as_i64().expect("a time");
    browser.eval(&format!("location.hash = '#filter=testhost%21port%3Awww&at={at}'"));
    browser.wait(&format!("{SAW}('Marked is what happened within a minute of')"));
    let id = down["id"].as_str().expect("an id");
    browser.wait(&format!("document.querySelector('[data-event=\"{id}\"]').ariaCurrent === 'time'"));
    browser.screenshot("minute");
    browser.eval(&format!("location.hash = '#at={}'", at - 3_600_000));
    browser.wait(&format!("{SAW}('nothing is left among the last') && !document.querySelector('[aria-current]')"));
    browser.click(".then button");
    browser.wait("!document.querySelector('.then') && location.hash === ''");

    // cprocessd stops, and the page says so before long; it is back, and so is the page.
    let stopped = common::time::UnixMillis::now();
    web.suite.daemon("cprocessd").signal(Signal::SIGSTOP);
    let said = browser.wait("document.querySelector('[data-freshness=stale]')");
    assert!((2000..7000).contains(&(said - stopped.0)), "stale after {} ms", said - stopped.0);
    browser.wait(&format!("{SAW}('Nothing is heard from cprocessd') && document.title.startsWith('stale: ')"));
    browser.wait(&format!("!{SAW}('Nothing is wrong')"));
    assert_eq!(get(web.port, "/healthz", &[]).status, 503);
    browser.screenshot("stale");
    web.suite.daemon("cprocessd").signal(Signal::SIGCONT);
    browser.wait("document.querySelector('[data-freshness=live]')");
    web.suite.kill("cprocessd");
    browser.wait("document.querySelector('[data-freshness=stale]')");
    // What happens meanwhile is there afterwards.
    target.down();
    web.suite.start("cprocessd");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait("document.querySelector('[data-host=testhost][data-mark=alarm]')");
    browser.complains_of(&[]);

    // cwebd itself goes and comes.
    web.suite.kill("cwebd");
    browser.wait("document.querySelector('[data-freshness=offline]')");
    browser.screenshot("offline");
    target.up();
    web.suite.start("cwebd");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait("document.querySelector('[data-host=testhost][data-mark=up]')");
    assert_eq!(browser.eval("window.isThePageOfBefore"), true, "it was never loaded again");
    // The browser's own words about the connection; nothing else.
    browser.complains_of(&["net::ERR_"]);
    web.stays_small();
}

#[test]
fn hostile_texts_are_texts() {
    let mut web = Site::running("", "default_rules = false\n", "");
    let mut browser = web.browser();
    browser.goto("/#filter=%3Cimg%20src=x%20onerror=alert(1)%3E&host=%3Cscript%3E");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait(&format!("{SAW}('No host of this name is watched.') && {SAW}('<script>')"));
    browser.type_into("input[type=search]", "");
    let mut plugin = Plugin::connect(&web.suite);
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
    web.stays_small();
}

#[test]
fn without_a_publisher_the_page_loads_and_says_so() {
    let mut web = Site::alone("");
    let mut browser = web.browser();
    browser.goto("/");
    browser.wait("document.querySelector('[data-freshness=stale]')");
    browser.wait(&format!("{SAW}('No host has reported yet.') && {SAW}('Is it running?')"));
    browser.wait("document.title === 'No data yet · Cairn'");
    browser.screenshot("empty");
    assert_eq!(get(web.port, "/healthz", &[]).status, 503);
    web.suite.start("ccollectd");
    web.suite.start("cprocessd");
    browser.wait("document.querySelector('[data-freshness=live]')");
    browser.wait("document.querySelector('[data-host=testhost][data-mark=up]')");
    browser.complains_of(&[]);
    assert_eq!(get(web.port, "/healthz", &[]).status, 200);
    // Asked to stop, it does not wait for the browser that follows.
    let asked = std::time::Instant::now();
    assert_eq!(web.suite.daemon("cwebd").terminate(), 0);
    assert!(asked.elapsed() < Duration::from_secs(4), "it took {:?}", asked.elapsed());
}

/// What every answer must have.
#[track_caller]
fn is_armoured(response: &http::Response, path: &str) {
    let policy = response.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{path}: {policy:?}");
    assert!(!policy.contains("unsafe"), "{path}: {policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"), "{path}: {policy}");
    assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(response.header("referrer-policy"), "same-origin", "{path}");
    assert!(!response.header("cache-control").is_empty(), "{path}");
}

#[test]
fn every_answer_says_how_it_is_to_be_treated() {
    let web = Site::alone("");
    let index = get(web.port, "/", &[("Accept-Encoding", "identity")]).text();
    let script = index
        .split('"')
        .find(|part| part.starts_with("/assets/") && part.contains(".js"))
        .expect("the page is in the binary: cwebd/ui/build, then cargo build");
    assert!(!index.contains("style=") && !index.contains("<style") && !index.contains("<script>"), "{index}");
    let answers = [
        ("/", 200, "no-cache"),
        ("/favicon.svg", 200, "no-cache"),
        ("/plain.css", 200, "no-cache"),
        (script, 200, "public, max-age=31536000, immutable"),
        ("/api/state", 200, "no-store"),
        ("/healthz", 503, "no-store"),
        ("/login", 303, "no-store"),
        ("/logout", 405, "no-store"),
        ("/nothing", 404, "no-store"),
        ("/assets/", 404, "no-store"),
        ("/assets/../../etc/passwd", 404, "no-store"),
        ("/assets/%2e%2e/index.html", 404, "no-store"),
        ("/assets/..%2findex.html", 404, "no-store"),
        ("/../../../../etc/passwd", 404, "no-store"),
        ("//etc/passwd", 404, "no-store"),
        ("/assets/%00", 404, "no-store"),
        ("/assets/%ff", 400, "no-store"),
    ];
    for (path, status, cache) in answers {
        let response = get(web.port, path, &[]);
        assert_eq!((response.status, response.header("cache-control")), (status, cache), "{path}");
        is_armoured(&response, path);
    }
    let packed = get(web.port, script, &[("Accept-Encoding", "br, gzip")]);
    let whole = get(web.port, script, &[("Accept-Encoding", "br, gzip;q=0")]);
    assert_eq!((packed.header("content-encoding"), whole.header("content-encoding")), ("gzip", ""));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() * 2 < whole.body.len());
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let response = http::request(web.port, method, "/", &[], b"").expect("an answer");
        assert_eq!(response.status, 405, "{method}");
        is_armoured(&response, method);
    }
}

#[test]
fn what_is_no_request_of_ours_is_refused_and_counted() {
    let mut web = Site::alone("hosts = ['cairn.example.org']\n");
    // A foreign name that was made to resolve to 127.0.0.1.
    for host in ["evil.example", "localhost.evil.example", ""] {
        let response = get(web.port, "/api/state", &[("Host", host)]);
        assert_eq!(response.status, 421, "{host}");
        assert!(response.text().contains("add it to `hosts`"));
        is_armoured(&response, host);
    }
    web.wait_for_counter("http.unknown_host");
    for host in ["localhost:1", "127.0.0.1", "[::1]:8436", "Cairn.Example.ORG"] {
        assert_eq!(get(web.port, "/api/state", &[("Host", host)]).status, 200, "{host}");
    }
    // A form on another page.
    for origin in ["http://evil.example", "null", "http://localhost.evil.example", "file://"] {
        let response = post(web.port, "/logout", &[("Origin", origin)], "");
        assert_eq!(response.status, 403, "{origin}");
    }
    web.wait_for_counter("http.foreign_origin");
    assert_eq!(post(web.port, "/logout", &[("Origin", "http://localhost")], "").status, 303);

    let ten_megabytes = vec![b'x'; 10 << 20];
    for (method, path) in [("POST", "/login"), ("GET", "/api/state"), ("POST", "/nothing")] {
        let response = http::request(web.port, method, path, &[], &ten_megabytes).expect("an answer");
        assert_eq!(response.status, 413, "{method} {path}");
        is_armoured(&response, path);
    }
    web.wait_for_counter("http.too_large");
    // Headers without end, and what is no HTTP.
    for nonsense in [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![0xff; 100_000], b"\r\n".repeat(50_000)] {
        let mut stream = http::connect(web.port).expect("connects");
        let _ = stream.write_all(&nonsense);
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        let status = http::read(stream).map_or(0, |response| response.status);
        assert!(status == 0 || (400..500).contains(&status), "{status}");
    }
    web.wait_for_counter("http.malformed");
    assert_eq!(get(web.port, "/api/state", &[]).status, 200);
    web.stays_small();
}

#[test]
fn a_browser_that_never_reads_costs_nothing_that_grows() {
    let mut web = Site::running("", "default_rules = false\n", "");
    let mut deaf = Vec::new();
    for _ in 0..40 {
        let mut stream = http::connect(web.port).expect("connects");
        stream.write_all(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
        deaf.push(stream);
    }
    let mut good = Events::follow(web.port, "/api/live", &[]).expect("follows");
    let (first, state) = good.read().expect("the state");
    assert_eq!((first.as_str(), state["user"].as_str()), ("state", Some("local")));
    // More than their sockets hold: every event has a long text and goes to each of them.
    let mut plugin = Plugin::connect(&web.suite);
    let text = "x".repeat(500);
    let dropped = |web: &Site| web.suite.counter("cwebd", "http.unread");
    let mut n = 0;
    wait_at_most(Duration::from_mins(2), "they are disconnected", || {
        for _ in 0..200 {
            n += 1;
            let unit = format!("unit {}", n % 500);
            plugin.push(
                &json!({ "service": "drill", "msg_type": "event", "unit": unit, "severity": "INFO", "text": text }),
            );
        }
        // The one that reads is served all the while.
        loop {
            let (event, _) = good.read().expect("an event");
            if event == "beat" {
                break;
            }
        }
        (dropped(&web) >= 1).then_some(())
    });
    assert_eq!(get(web.port, "/healthz", &[]).status, 200);
    web.stays_small();
    drop(deaf);
}

#[test]
fn too_many_browsers_and_connections_leave_room_for_one_more() {
    let mut web = Site::running("", "default_rules = false\n", "");
    let mut followers = Vec::new();
    let refused = loop {
        match Events::follow(web.port, "/api/live", &[]) {
            Ok(follower) => followers.push(follower),
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("503"), "{refused}");
    assert_eq!(followers.len(), 256);
    web.wait_for_counter("live.too_many");
    // Others connect and say nothing, or begin and never end: each new one pushes out the oldest of them.
    let mut silent = Vec::new();
    for n in 0..1200 {
        let mut stream = http::connect(web.port).expect("connects");
        if n % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: local").expect("written");
        }
        silent.push(stream);
    }
    let response = get(web.port, "/api/state", &[]);
    assert_eq!(response.status, 200);
    web.wait_for_counter("http.too_many_connections");
    // And those that stay have a deadline.
    web.wait_for_counter("http.slow_headers");
    for follower in &mut followers[..3] {
        assert_eq!(follower.read().expect("the state").0, "state");
    }
    web.stays_small();
    drop(followers);
    wait_for("there is room again", || Events::follow(web.port, "/api/live", &[]).ok());
}

/// The cookie of a new session, if the password was right.
fn log_in(port: u16, password: &str) -> Result<String, u16> {
    let response = post(port, "/login", &[("Origin", "http://localhost")], &format!("password={password}"));
    if response.status != 303 {
        return Err(response.status);
    }
    let cookie = response.header("set-cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict;") && cookie.contains("Path=/"), "{cookie}");
    assert!(!cookie.contains("Secure"), "{cookie}");
    Ok(cookie.split(';').next().expect("a cookie").to_owned())
}

#[test]
fn a_password_shuts_out_who_does_not_know_it_and_guessing_is_slow() {
    let suite = Suite::running("", "default_rules = false\n");
    let secret = password(&suite, "correct horse");
    let mut web = Site::on(suite, &secret);
    wait_for("it is live", || (get(web.port, "/healthz", &[]).status == 200).then_some(()));
    for (path, status) in [("/", 303), ("/api/state", 401), ("/api/live", 401), ("/login", 200), ("/healthz", 200)] {
        let response = get(web.port, path, &[]);
        assert_eq!(response.status, status, "{path}");
        assert!(!response.text().contains("testhost"), "{path}");
        is_armoured(&response, path);
    }
    assert_eq!(get(web.port, "/api/state", &[("Cookie", "cairn_session=x")]).status, 401);
    let cookie = log_in(web.port, "correct+horse").expect("the password is right");
    let session = [("Cookie", cookie.as_str())];
    assert_eq!(get(web.port, "/api/state", &session).json()["user"], "operator");
    let mut follower = Events::follow(web.port, "/api/live", &session).expect("follows");
    assert_eq!(follower.read().expect("the state").0, "state");

    // Four tries are left of five, then only the one in ten seconds.
    let answers: Vec<u16> = (0..30).map(|n| log_in(web.port, &format!("guess{n}")).expect_err("wrong")).collect();
    let looked_at = answers.iter().filter(|status| **status == 401).count();
    assert!((4..=8).contains(&looked_at), "{answers:?}");
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
    assert_eq!(log_in(web.port, "correct+horse"), Err(429), "it is not even looked at");
    assert!(web.suite.counter("cwebd", "http.login_refused") >= 20);
    assert!(web.suite.counter("cwebd", "http.login_failed") >= 4);
    assert_eq!(get(web.port, "/api/state", &session).status, 200, "who is inside stays inside");
    assert!(follower.read().is_some());

    // A restart logs nobody out; the end of the session, and another password, do.
    assert_eq!(web.suite.daemon("cwebd").terminate(), 0);
    web.suite.start("cwebd");
    wait_for("the page is served", || http::connect(web.port).ok());
    assert_eq!(get(web.port, "/api/state", &session).status, 200);
    let other = log_in(web.port, "correct+horse").expect("the password is right");
    let logged_out = post(web.port, "/logout", &[("Cookie", other.as_str())], "");
    assert!(logged_out.status == 303 && logged_out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(get(web.port, "/api/state", &[("Cookie", other.as_str())]).status, 401);
    let mut follower = Events::follow(web.port, "/api/live", &session).expect("follows");
    password(&web.suite, "battery staple");
    web.suite.daemon("cwebd").signal(Signal::SIGHUP);
    wait_for("the session is over", || (get(web.port, "/api/state", &session).status == 401).then_some(()));
    while follower.read().is_some() {}

    // Everybody may look, and nobody sees a difference between a wrong cookie and none.
    web.configure(&format!("{secret}public = 'read-only'\n"));
    web.suite.daemon("cwebd").signal(Signal::SIGHUP);
    wait_for("the page is public", || (get(web.port, "/", &[]).status == 200).then_some(()));
    assert_eq!(get(web.port, "/api/state", &session).json()["user"], Value::Null);
    let log = web.suite.log("cwebd");
    assert!(!log.contains("correct") && !log.contains("guess") && !log.contains("argon2"), "{log}");
    web.stays_small();
}

#[test]
fn a_person_logs_in_and_out() {
    let suite = Suite::running("", "default_rules = false\n");
    let secret = password(&suite, "correct horse");
    let web = Site::on(suite, &secret);
    let mut browser = web.browser();
    browser.goto("/");
    browser.wait("location.pathname === '/login'");
    browser.screenshot("login");
    browser.type_into("#password", "wrong horse");
    browser.press("Enter");
    browser.wait(&format!("{SAW}('That is not the password.')"));
    browser.complains_of(&["401"]);
    browser.type_into("#password", "correct horse");
    browser.press("Enter");
    browser.wait("location.pathname === '/' && document.querySelector('[data-freshness=live]')");
    browser.wait("document.querySelector('[data-host=testhost]')");
    browser.click("form[action='/logout'] button");
    browser.wait("location.pathname === '/login'");
    browser.goto("/nothing");
    browser.wait(&format!("{SAW}('Not found')"));
    // The answer to /nothing is an error to the console too.
    browser.complains_of(&["404"]);
}

#[test]
fn it_does_not_listen_to_others_without_a_password() {
    let mut web = Site::alone("");
    assert_eq!(web.suite.daemon("cwebd").terminate(), 0);
    let port = free_port();
    web.configure(&format!("listen = '0.0.0.0:{port}'\npublic = 'read-only'\n"));
    let mut refused = Process::start(&mut web.suite.command("cwebd"));
    assert_eq!(refused.exit_code(), 78);
    let log = web.suite.log("cwebd");
    assert!(log.contains("must be a loopback address as long as there is no password_file"), "{log}");
    let secret = password(&web.suite, "correct horse");
    web.configure(&format!("listen = '0.0.0.0:{port}'\n{secret}"));
    web.suite.start("cwebd");
    wait_for("the page is served", || http::connect(port).ok());
    assert_eq!(get(port, "/", &[("Host", "any.example")]).header("location"), "/login");
    // A reload cannot take the password away.
    web.configure(&format!("listen = '0.0.0.0:{port}'\n"));
    web.suite.daemon("cwebd").signal(Signal::SIGHUP);
    wait_for("it says so", || web.suite.log("cwebd").contains("the configuration stays as it was").then_some(()));
    assert_eq!(get(port, "/api/state", &[]).status, 401);
    // Two of them on one address: the second says so.
    web.configure(&format!("listen = '0.0.0.0:{port}'\n{secret}"));
    let mut second = Process::start(&mut web.suite.command("cwebd"));
    assert_eq!(second.exit_code(), 1);
}

#[test]
fn a_thousand_hosts_are_one_page() {
    let mut web = Site::alone("");
    let mut fleet = Command::new(tests::python());
    fleet.arg(tests::repository().join("tests/python/fleet.py")).arg(web.suite.path("run")).arg("1000");
    let _fleet = Process::start(&mut fleet);
    wait_for("a thousand hosts", || (web.board()["hosts"].as_array()?.len() == 1000).then_some(()));
    let mut browser = web.browser();
    browser.goto("/");
    browser.wait("document.querySelectorAll('[data-host]').length === 1000");
    browser.wait("document.querySelector('[data-host=host0500] .load').innerText !== '–'");
    // Loads change and the tiles stay the ones they are.
    browser.eval("window.tile = document.querySelector('[data-host=host0500]'); window.load = tile.innerText");
    browser.wait("tile.innerText !== load && tile.isConnected");
    // The longest that the page did not draw in three seconds, in which every tile got three new loads.
    let pause = browser.eval(
        "new Promise((done) => { let last = performance.now(), longest = 0; const end = last + 3000;
            const frame = (now) => { longest = Math.max(longest, now - last); last = now;
                now < end ? requestAnimationFrame(frame) : done(longest) };
            requestAnimationFrame(frame) })",
    );
    assert!(pause.as_f64().expect("a number") < 2500.0, "the page stood still for {pause} ms");
    // A click far down brings what it is about into view.
    browser.click("[data-host=host0990]");
    browser.wait(
        "(() => { const box = document.querySelector('.panel')?.getBoundingClientRect();
            return box && box.top >= 0 && box.bottom <= innerHeight && document.querySelector('.panel canvas') })()",
    );
    browser.press("Escape");
    // The worst come first.
    assert_eq!(browser.eval("document.querySelector('[data-host]').dataset.mark"), "down");
    for (name, look) in
        [("thousand-light", Look::LIGHT), ("thousand-dark", Look::DARK), ("thousand-phone", Look::PHONE)]
    {
        browser.look(look);
        browser.wait("document.documentElement.scrollWidth <= innerWidth");
        browser.screenshot(name);
    }
    browser.complains_of(&[]);
    web.stays_small();
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
    let rule = "[[alarm]]\nname = 'disk filling'\nrule = 'build1!machine.disk:/.used_percentage > 50% WARN'\n";
    suite.configure("cprocessd", &format!("{feeds}default_rules = false\n{rule}"));
    suite.start("ccollectd");
    suite.start("cprocessd");
    let mut web = Site::on(suite, "");
    wait_for("twelve hosts", || (web.board()["hosts"].as_array()?.len() == 12).then_some(()));
    let mut browser = web.browser();
    browser.look(Look { height: 1080, ..Look::LIGHT });
    browser.goto("/");
    browser.wait(&format!("{SAW}('build1!machine')"));
    postgres.down();
    browser.wait("document.querySelector('[data-host=db1][data-mark=alarm]')");
    postgres.up();
    browser.wait("!document.querySelector('[data-host=db1][data-mark=alarm]')");
    web.suite.kill("ccollectd-ns2");
    browser.wait("document.querySelector('[data-host=ns2][data-mark=down]')");
    www.down();
    browser.wait("document.querySelector('[data-host=web1][data-mark=alarm]')");
    browser.click("[data-host=web1]");
    // Something for the chart to show.
    std::thread::sleep(Duration::from_mins(2));
    browser.picture(&tests::repository().join("deploy/page.png"));
    browser.complains_of(&[]);
}
