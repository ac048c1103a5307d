//! The chain as its users see it: ccollectd observes this very machine, cprocessd judges, cctl shows. What it says is
//! compared with what the system itself says, and what it tells with what was done.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::servers::{NOBODY, is_root, unprivileged};
use tests::{PATIENCE, Plugin, Process, Suite, Target, binaries, repository, say_skipped, wait_at_most, wait_for};

mod cctl;
mod faults;
mod hosts;
mod values;
mod whole;

const QUIET: &str = "default_rules = false\n";
const SERVICES: &str = r#"{"query":"service-list"}"#;

fn unix_ms() -> i64 {
    common::time::UnixMillis::now().0
}

/// Whether a program is on this machine.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a program of the system prints.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn port(name: &str, port: u16, interval_ms: u64, attempts: u32) -> String {
    format!(
        "[[port]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\ninterval = \"{interval_ms}ms\"\nattempts = \
         {attempts}\n"
    )
}

/// The row of a check in `service-list`.
fn check(suite: &Suite, unit: &str) -> Option<Value> {
    suite.query(SERVICES)?.as_array()?.iter().find(|row| row["unit"] == unit).cloned()
}

#[track_caller]
fn wait_for_check(suite: &Suite, unit: &str, state: &str) -> Value {
    wait_for(&format!("{unit} is {state}"), || check(suite, unit).filter(|row| row["state"] == state))
}

/// The check as ccollectd knows it.
fn observed(suite: &Suite, unit: &str) -> Option<Value> {
    let snapshot = suite.ask("feed-query", r#"{"query":"snapshot"}"#)?;
    snapshot["checks"].as_array()?.iter().find(|check| check["unit"] == unit).cloned()
}

/// How many events there are, to look only at the later ones.
#[track_caller]
fn head(suite: &Suite) -> usize {
    suite.events().len()
}

/// Kind and address of the events after the first `head`.
#[track_caller]
fn told_since(suite: &Suite, head: usize) -> Vec<(String, String)> {
    let word = |event: &Value, field: &str| event[field].as_str().expect("text").to_owned();
    suite.events().iter().skip(head).map(|event| (word(event, "kind"), word(event, "address"))).collect()
}

/// The first event of this kind about an address that contains `address`, after the first `head`.
#[track_caller]
fn wait_for_event_since(suite: &Suite, head: usize, kind: &str, address: &str) -> Value {
    wait_for(&format!("{kind} of {address}"), || {
        let is_it =
            |event: &Value| event["kind"] == kind && event["address"].as_str().is_some_and(|a| a.contains(address));
        suite.events().into_iter().skip(head).find(is_it)
    })
}

/// Returns when cprocessd has run for so long from now: for what must not happen meanwhile.
#[track_caller]
fn cprocessd_runs_for(suite: &Suite, secs: u64) {
    let uptime = || suite.ask("cprocessd.sock", r#"{"query":"health"}"#)?["uptime_secs"].as_u64();
    let start = wait_for("cprocessd answers", uptime);
    wait_for("cprocessd runs on", || (uptime()? > start + secs).then_some(()));
}

/// Number and observation time of every last value that matches, by what follows the host in its address.
fn last_values(suite: &Suite, pattern: &str) -> BTreeMap<String, (f64, i64)> {
    let rows = suite.cctl_json(&["last-value", &format!("{}!{pattern}", suite.host)]);
    let row = |row: &Value| {
        let address = row["address"].as_str().expect("an address");
        let (_, rest) = address.split_once('!').expect("a host");
        (rest.to_owned(), (row["value"].as_f64().expect("a number"), row["time"].as_i64().expect("ms")))
    };
    rows.as_array().expect("rows").iter().map(row).collect()
}

fn last_value(suite: &Suite, address: &str) -> Option<f64> {
    last_values(suite, address).get(address).map(|(value, _)| *value)
}

/// Polls until both numbers are read at a moment at which they agree.
#[track_caller]
fn agree(what: &str, tolerance: f64, mut ours_and_theirs: impl FnMut() -> Option<(f64, f64)>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ours_and_theirs() {
            Some((ours, theirs)) if (ours - theirs).abs() <= tolerance => return,
            seen => assert!(Instant::now() < deadline, "{what}: {seen:?} do not agree to {tolerance}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first number of a line that begins with `name`.
fn field(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).expect(file);
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name)).expect(name);
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// What a running program has printed so far.
struct Screen {
    process: Process,
    shown: Arc<Mutex<String>>,
}

impl Screen {
    fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut pipe = process.stdout();
        let shown = Arc::new(Mutex::new(String::new()));
        let showing = shown.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut chunk) {
                *showing.lock().expect("nobody panics with it") += &text(&chunk[..read]);
            }
        });
        Self { process, shown }
    }

    fn lines(&self) -> Vec<String> {
        self.shown.lock().expect("nobody panics with it").lines().map(str::to_owned).collect()
    }

    /// The first line with all these words.
    #[track_caller]
    fn wait_for_line(&self, words: &[&str]) -> String {
        wait_for(&format!("a line with {words:?}"), || self.line(words))
    }

    fn line(&self, words: &[&str]) -> Option<String> {
        self.lines().into_iter().find(|line| words.iter().all(|word| line.contains(word)))
    }
}

/// A real process whose command line no other has.
fn sleeper(seconds: &str) -> Process {
    Process::start(Command::new("sleep").arg(seconds).stdin(Stdio::null()))
}
