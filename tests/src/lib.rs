//! Starts the real daemons in a folder of their own, and waits for what they should do.
//!
//! Nothing here sleeps and hopes: [`wait_for`] polls a condition until its deadline. The daemons are the binaries beside
//! this test's own, so `cargo build --workspace` comes first; `tests/run` does that.

pub mod browser;
pub mod exim;
pub mod faulty_smtp;
pub mod http;
pub mod irc;
pub mod kannel;
pub mod pki;
pub mod raw;
pub mod servers;
pub mod simulation;
pub mod table;
pub mod tally;

use common::query::{ask, to_json};
use common::socket::Requester;
use common::time::UnixMillis;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Long enough for a busy machine; a condition that holds is seen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A resident set that no daemon may exceed, DESIGN's bound for hostile input.
pub const MAX_RSS_BYTES: u64 = 64 << 20;

/// Polls until `condition` gives something.
///
/// Panics with `what` when [`PATIENCE`] ends.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, what, condition)
}

/// As [`wait_for`], with another deadline.
#[track_caller]
pub fn wait_at_most<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The folder of the built binaries.
pub fn binaries() -> PathBuf {
    let own = std::env::current_exe().expect("this test has a path");
    // target/PROFILE/deps/TEST, or target/PROFILE/BENCHMARK.
    let found = own.ancestors().skip(1).take(2).find(|folder| folder.join("cprocessd").exists());
    found
        .unwrap_or_else(|| panic!("run `cargo build --workspace` first: no cprocessd beside {}", own.display()))
        .to_owned()
}

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// The Python that `tests/run` gave pyzmq and msgpack.
pub fn python() -> PathBuf {
    let python = std::env::var_os("CAIRN_TEST_PYTHON")
        .map_or_else(|| repository().join("target/venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "no {}: tests/run installs it", python.display());
    python
}

/// Says that a part of a test is left out, past the capture that hides what passing tests print.
pub fn say_skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {what}: {why}");
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Its end: SIGKILL, and waited for.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its exit code, which must come in time.
    #[track_caller]
    pub fn terminate(&mut self) -> i32 {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.exit_code()
    }

    /// Its exit code, which must come in time.
    #[track_caller]
    pub fn exit_code(&mut self) -> i32 {
        let status = wait_for("the process ends", || self.child.try_wait().expect("waits"));
        status.code().unwrap_or(-1)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("waits").is_none()
    }

    /// What it reads.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("its input is piped")
    }

    /// It reads to the end.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// What it writes, once.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("its output is piped")
    }

    /// CPU seconds so far, those of threads that ended included.
    #[track_caller]
    pub fn cpu_secs(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        // utime and stime of proc_pid_stat(5), in ticks that are a hundredth of a second on every Linux of today.
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0).sum()
    }

    /// A line of /proc/PID/status in bytes.
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("kB") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The suite in a folder of its own: `etc`, `state`, `run`, `log`.
#[derive(Debug)]
pub struct Suite {
    dir: tempfile::TempDir,
    daemons: BTreeMap<String, Process>,
    /// The host name that ccollectd is given.
    pub host: String,
}

impl Suite {
    /// Configuration only; nothing runs yet. `ccollectd` and `cprocessd` are added to the configuration files.
    pub fn new(ccollectd: &str, cprocessd: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("cairn").tempdir().expect("a temporary folder");
        for folder in ["etc", "state", "run", "log"] {
            fs::create_dir(dir.path().join(folder)).expect("folder");
        }
        let suite = Self { dir, daemons: BTreeMap::new(), host: "testhost".into() };
        suite.configure("ccollectd", ccollectd);
        suite.configure("cprocessd", cprocessd);
        suite
    }

    /// Both daemons run and the host is up.
    pub fn running(ccollectd: &str, cprocessd: &str) -> Self {
        let mut suite = Self::new(ccollectd, cprocessd);
        suite.start("ccollectd");
        suite.start("cprocessd");
        suite.wait_for_host();
        suite
    }

    /// Waits until cprocessd says that the host is up.
    #[track_caller]
    pub fn wait_for_host(&self) {
        wait_for("the host is up", || {
            let rows = self.query(r#"{"query":"server-list"}"#)?;
            (rows[0]["state"] == "up").then_some(())
        });
    }

    /// A path in the suite's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a daemon's configuration. Keys before the first table are fine, since ours are written last.
    pub fn configure(&self, daemon: &str, text: &str) {
        let folder = self.dir.path();
        // cwebd never speaks of itself.
        let host = if daemon == "cwebd" { String::new() } else { format!("host = '{}'\n", self.host) };
        let base = format!(
            "{host}run_dir = '{}'\nstate_dir = '{}'\n{text}",
            folder.join("run").display(),
            folder.join("state").join(daemon).display()
        );
        fs::write(self.path(&format!("etc/{daemon}.toml")), base).expect("written");
    }

    /// The command that starts a daemon, its log going to `log/NAME.log`.
    pub fn command(&self, daemon: &str) -> Command {
        self.command_by(Command::new(binaries().join(daemon)), daemon)
    }

    /// As [`Self::command`], where `program` ends in what takes the daemon's arguments.
    pub fn command_by(&self, program: Command, daemon: &str) -> Command {
        let log =
            fs::File::options().create(true).append(true).open(self.path(&format!("log/{daemon}.log"))).expect("log");
        let mut command = program;
        command.arg("--config").arg(self.path(&format!("etc/{daemon}.toml")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts a daemon, without waiting for it.
    pub fn start(&mut self, daemon: &str) {
        let command = self.command(daemon);
        self.start_by(command, daemon);
    }

    /// Starts a daemon by this command, without waiting for it.
    pub fn start_by(&mut self, mut command: Command, daemon: &str) {
        self.daemons.insert(daemon.to_owned(), Process::start(&mut command));
    }

    /// A running daemon.
    pub fn daemon(&mut self, daemon: &str) -> &mut Process {
        self.daemons.get_mut(daemon).unwrap_or_else(|| panic!("{daemon} was not started"))
    }

    /// SIGKILL.
    pub fn kill(&mut self, daemon: &str) {
        self.daemon(daemon).kill();
    }

    /// What a daemon logged.
    pub fn log(&self, daemon: &str) -> String {
        fs::read_to_string(self.path(&format!("log/{daemon}.log"))).unwrap_or_default()
    }

    /// `cctl --run RUN ARGS`, finished.
    pub fn cctl(&self, args: &[&str]) -> Output {
        self.cctl_command(args).output().expect("cctl runs")
    }

    /// As [`Self::cctl`], not yet started.
    pub fn cctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binaries().join("cctl"));
        command.arg("--run").arg(self.path("run")).args(args).stdin(Stdio::null());
        command
    }

    /// What `cctl --json ARGS` prints.
    #[track_caller]
    pub fn cctl_json(&self, args: &[&str]) -> Value {
        let output = self.cctl(&[&["--json"], args].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("cctl {args:?}: {error} in {text:?}, and says {}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// The data of the answer of cprocessd's question socket, unless there is none.
    pub fn query(&self, json: &str) -> Option<Value> {
        self.ask("query", json)
    }

    /// The data of the answer of any question socket, all pages of it, unless there is none.
    pub fn ask(&self, socket: &str, json: &str) -> Option<Value> {
        let request = serde_json::from_str(json).expect("a request");
        let path = self.path("run").join(socket);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let answer =
            runtime.block_on(async { ask(&mut Requester::new(&path), &request, Duration::from_secs(2)).await });
        runtime.shutdown_background();
        answer.ok().map(to_json)
    }

    /// A counter of a daemon's `health`, 0 if it is not there.
    #[track_caller]
    pub fn counter(&self, daemon: &str, name: &str) -> u64 {
        let health = wait_for("health answers", || self.ask(&format!("{daemon}.sock"), r#"{"query":"health"}"#));
        health["counters"][name].as_u64().unwrap_or(0)
    }

    /// A notifier's ledger, all of it.
    #[track_caller]
    pub fn ledger(&self, notifier: &str) -> Vec<Value> {
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let after = rows.last().map_or(0, |row| row["item"].as_i64().expect("a number"));
            let question = format!(r#"{{"query":"ledger","after":{after},"limit":10000}}"#);
            let more = wait_for("the ledger", || self.ask(&format!("{notifier}.sock"), &question));
            match more.as_array() {
                Some(more) if !more.is_empty() => rows.extend(more.iter().cloned()),
                _ => return rows,
            }
        }
    }

    /// Every event of cprocessd's journal.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.journal("query")
    }

    /// Every entry of the journal behind a question socket.
    #[track_caller]
    pub fn journal(&self, socket: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event["seq"].as_u64().expect("seq"));
            let page = wait_for("events are answered", || {
                self.ask(socket, &format!(r#"{{"query":"events","after":{after}}}"#))
            });
            match page["events"].as_array() {
                Some(more) if !more.is_empty() => events.extend(more.iter().cloned()),
                _ => return events,
            }
        }
    }

    /// Waits for an event about an address that contains `address`, of this kind.
    #[track_caller]
    pub fn wait_for_event(&self, kind: &str, address: &str) -> Value {
        wait_for(&format!("{kind} of {address}"), || {
            self.events()
                .into_iter()
                .find(|e| e["kind"] == kind && e["address"].as_str().is_some_and(|a| a.contains(address)))
        })
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        for daemon in self.daemons.keys() {
            servers::print_tail_on_failure(daemon, || self.log(daemon));
        }
    }
}

/// A local program in Python that PUSHes reports to ccollectd, one JSON object a line of its input.
#[derive(Debug)]
pub struct Plugin {
    process: Process,
}

impl Plugin {
    /// Connects to the `plugins` socket, which need not be there yet.
    pub fn connect(suite: &Suite) -> Self {
        let script = repository().join("tests/python/push.py");
        let mut command = Command::new(python());
        command.arg(script).arg(suite.path("run/plugins")).stdin(Stdio::piped());
        Self { process: Process::start(&mut command) }
    }

    /// Pushes one report.
    pub fn push(&mut self, report: &Value) {
        writeln!(self.process.stdin(), "{report}").expect("the plugin runs");
        self.process.stdin().flush().expect("the plugin runs");
    }

    /// Reports a state of `drill:UNIT`.
    pub fn state(&mut self, state: &str, unit: &str, time_ms: i64) {
        self.push(&serde_json::json!({ "service": "drill", "msg_type": state, "unit": unit, "time": time_ms }));
    }
}

/// A TCP service that can be taken away and put back.
#[derive(Debug)]
pub struct Target {
    /// Its port on 127.0.0.1.
    pub port: u16,
    serving: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Target {
    /// Listens on a free port.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("address").port();
        let mut target = Self { port, serving: None };
        target.serve(listener);
        target
    }

    fn serve(&mut self, listener: TcpListener) {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Takes each connection off the queue, which would be full after a hundred probes.
        let thread = std::thread::spawn(move || {
            for _ in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        self.serving = Some((stop, thread));
    }

    /// Nobody listens any more; returns when it was so.
    pub fn down(&mut self) -> Instant {
        if let Some((stop, thread)) = self.serving.take() {
            stop.store(true, Ordering::SeqCst);
            // Wakes the thread, which then drops its listener.
            let _ = TcpStream::connect(("127.0.0.1", self.port));
            thread.join().expect("it served");
        }
        Instant::now()
    }

    /// Listens again on the same port.
    pub fn up(&mut self) {
        let port = self.port;
        let listener = wait_for("the port is free again", || TcpListener::bind(("127.0.0.1", port)).ok());
        self.serve(listener);
    }
}

impl Default for Target {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.down();
    }
}

/// Random moments that can be repeated (SplitMix64): `CAIRN_SEED` is printed, and taken if it is set.
#[derive(Debug)]
pub struct Moments(u64);

impl Moments {
    /// From `CAIRN_SEED`, or from the clock.
    pub fn from_environment() -> Self {
        let given = std::env::var("CAIRN_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || UnixMillis::now().0.unsigned_abs() ^ (u64::from(std::process::id()) << 40);
        let seed = given.unwrap_or_else(now);
        eprintln!("CAIRN_SEED={seed}");
        Self(seed)
    }

    /// Others, for another thread.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Waits for a random time: what is tested is the moment itself.
    pub fn pause(&mut self, least_ms: u64, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(least_ms + self.below(most_ms - least_ms)));
    }
}
