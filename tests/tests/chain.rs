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
use tests::{PATIENCE, Plugin, Process, Suite, Target, binaries, repository, say_skipped, wait_at_most, wait_for};

/// Whoever runs nothing of its own on this machine.
const NOBODY: u32 = 65534;
const QUIET: &str = "default_rules = false\n";
const SERVICES: &str = r#"{"query":"service-list"}"#;

fn unix_ms() -> i64 {
    common::time::UnixMillis::now().0
}

fn is_root() -> bool {
    nix::unistd::getuid().is_root()
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

#[test]
fn memory_load_uptime_and_pressure_are_what_the_kernel_says() {
    let suite = Suite::running("machine.interval = \"500ms\"\n", QUIET);
    let value = |address: &str| last_value(&suite, address);
    let kib = |name: &str| field("/proc/meminfo", name) * 1024.0;
    wait_for("the memory is known", || value("machine.memory:physical.total"));

    let total = kib("MemTotal:");
    assert_eq!(value("machine.memory:physical.total"), Some(total));
    assert_eq!(value("machine.memory:swap.total"), Some(kib("SwapTotal:")));
    // Programs take and return memory all the time: a hundredth, at some moment.
    agree("memory free", total / 100.0, || Some((value("machine.memory:physical.free")?, kib("MemAvailable:"))));
    agree("memory used", total / 100.0, || {
        Some((value("machine.memory:physical.used")?, total - kib("MemAvailable:")))
    });
    agree("buffers", total / 100.0, || Some((value("machine.memory:physical.buffers")?, kib("Buffers:"))));

    // The kernel computes the averages every 5 s, so between two times they are equal.
    agree("load", 0.001, || Some((value("machine.load_average:.1m")?, field("/proc/loadavg", ""))));
    // A sample is up to an interval old when it is asked for, and the machine may be busy.
    agree("uptime", 2.0, || Some((value("machine.uptime:.uptime")?, field("/proc/uptime", ""))));
    let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let pids = || {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries.filter(|entry| is_pid(&entry.file_name().to_string_lossy())).count()
    };
    // cctl itself, and what else comes and goes.
    agree("processes", 5.0, || Some((value("machine.processes:.total")?, pids() as f64)));
    assert!(value("machine.processes:.running").is_some_and(|running| running >= 1.0), "whoever counts runs");

    for unit in ["cpu", "memory", "io"] {
        let file = format!("/proc/pressure/{unit}");
        // With psi=0 the file is there, and reading it fails.
        if fs::read_to_string(&file).is_err() {
            say_skipped(&format!("pressure of {unit}"), "this kernel does not tell");
            continue;
        }
        // Renewed every 2 s, so between two times equal.
        agree(&file, 0.001, || {
            Some((value(&format!("machine.pressure:{unit}.some_10s"))?, field(&file, "some avg10=")))
        });
    }
}

/// `df`'s numbers of one mount point, as our attributes name them; inodes only where there are any.
fn df(mount_point: &str) -> BTreeMap<&'static str, f64> {
    let columns = "--output=size,used,avail,itotal,iused,iavail";
    let text = output(Command::new("df").args(["-B1", columns, "--", mount_point]));
    let numbers = text.lines().nth(1).expect("a line").split_whitespace().map(|field| field.parse().ok());
    let names = ["total", "used", "free", "inodes_total", "inodes_used", "inodes_free"];
    let mut numbers: BTreeMap<_, _> =
        names.into_iter().zip(numbers).filter_map(|(name, number)| Some((name, number?))).collect();
    if numbers.get("inodes_total") == Some(&0.0) {
        numbers.retain(|name, _| !name.starts_with("inodes"));
    }
    numbers
}

#[test]
fn disks_are_what_df_says() {
    let suite = Suite::running("machine.interval = \"500ms\"\n", QUIET);
    let totals = wait_for("the root is known", || {
        let totals = last_values(&suite, "machine.disk:*.total");
        totals.contains_key("machine.disk:/.total").then_some(totals)
    });
    let mount_points: Vec<&str> =
        totals.keys().filter_map(|address| address.strip_prefix("machine.disk:")?.strip_suffix(".total")).collect();
    for mount_point in &mount_points {
        for (name, theirs) in df(mount_point) {
            let address = format!("machine.disk:{mount_point}.{name}");
            // Sizes stand still. Files come and go, here with every build that runs beside us: a hundredth or 16 MiB,
            // and a hundredth or a thousand inodes, whichever is less. What could be confused is the root's reserve,
            // since free is what programs can have; it is 5 % by default.
            let tolerance = match name {
                "total" | "inodes_total" => 0.0,
                "used" | "free" => (theirs / 100.0).clamp(8192.0, f64::from(16 << 20)),
                _ => (theirs / 100.0).clamp(10.0, 1000.0),
            };
            agree(&address, tolerance, || Some((last_value(&suite, &address)?, df(mount_point)[name])));
        }
        let values = last_values(&suite, &format!("machine.disk:{mount_point}.*"));
        let of = |name: &str| values[&format!("machine.disk:{mount_point}.{name}")].0;
        let percentage = 100.0 * of("used") / (of("used") + of("free"));
        assert!((of("used_percentage") - percentage).abs() < 0.001, "{values:?}");
    }
}

/// ccollectd with `--print`, so that no sample is missed: the numbers of a minute do not fit into the last one.
struct Printing {
    suite: Suite,
}

impl Printing {
    fn start() -> Self {
        let mut suite = Suite::new("machine.interval = \"500ms\"\n", QUIET);
        let printed = fs::File::create(suite.path("log/print.jsonl")).expect("a file");
        let mut command = suite.command("ccollectd");
        command.arg("--print").stdout(printed);
        suite.start_by(command, "ccollectd");
        suite.start("cprocessd");
        suite.wait_for_host();
        Self { suite }
    }

    /// Every sample of this thing that was observed after `after`, oldest first.
    fn samples(&self, resource: &str, unit: &str, after: i64) -> Vec<Value> {
        let text = fs::read_to_string(self.suite.path("log/print.jsonl")).expect("printed");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let values = lines.filter(|line| line["topic"] == format!("value.{}!", self.suite.host));
        let samples = values.flat_map(|line| match &line["message"] {
            Value::Array(batch) => batch.clone(),
            one => vec![one.clone()],
        });
        let is_it = |sample: &Value| {
            sample["resource"] == resource && sample["unit"] == unit && sample["time"].as_i64() > Some(after)
        };
        samples.filter(is_it).collect()
    }

    /// As [`Self::samples`], once there are so many.
    #[track_caller]
    fn wait_for_samples(&self, resource: &str, unit: &str, after: i64, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} samples of {resource}:{unit}"), || {
            Some(self.samples(resource, unit, after)).filter(|samples| samples.len() >= count)
        })
    }
}

fn number(sample: &Value, attribute: &str) -> f64 {
    sample["values"][attribute].as_f64().unwrap_or_else(|| panic!("no {attribute} in {sample}"))
}

/// Bytes received and sent on the loopback, by the kernel.
fn loopback_bytes() -> [f64; 2] {
    let text = fs::read_to_string("/proc/net/dev").expect("/proc/net/dev");
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).expect("a loopback");
    let fields: Vec<f64> = line.split_whitespace().map(|field| field.parse().expect("a number")).collect();
    [fields[0], fields[8]]
}

/// Sends so many bytes over 127.0.0.1, and returns when they have arrived.
fn flow(bytes: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let sender = std::thread::spawn(move || {
        TcpStream::connect(address).and_then(|mut stream| stream.write_all(&vec![0; bytes])).expect("sent");
    });
    let (mut stream, _) = listener.accept().expect("a connection");
    let arrived = std::io::copy(&mut stream, &mut std::io::sink()).expect("received");
    assert_eq!(arrived, bytes as u64);
    sender.join().expect("sent");
}

#[test]
fn network_rates_add_up_to_what_flowed() {
    const ROUND_BYTES: usize = 8 << 20;
    const ROUNDS: usize = 4;
    let printing = Printing::start();
    let first = printing.wait_for_samples("network", "lo", 0, 1);
    let begun = first.last().expect("a sample")["time"].as_i64().expect("ms");
    // Between the sample at `begun` and this reading others use the loopback, too; see the tolerance.
    let before = loopback_bytes();
    for round in 1..=ROUNDS {
        flow(ROUND_BYTES);
        // One round an interval, so that it is a flow and not one burst.
        let seen = printing.wait_for_samples("network", "lo", begun, round);
        let newest = seen.last().expect("a sample")["time"].as_i64().expect("ms");
        let (rate, time) = wait_for("last-value has caught up", || {
            let values = last_values(&printing.suite, "machine.network:lo.*");
            values.get("machine.network:lo.in_bytes_per_s").filter(|(_, time)| *time >= newest).copied()
        });
        let samples = printing.samples("network", "lo", time - 1);
        assert!((number(&samples[0], "in_bytes_per_s") - rate).abs() < 0.001, "{} is not {rate}", samples[0]);
    }
    let after = loopback_bytes();
    let ended = unix_ms();
    printing.wait_for_samples("network", "lo", ended, 1);
    let samples = printing.samples("network", "lo", begun);
    let flowed = (ROUND_BYTES * ROUNDS) as f64;
    for (direction, attribute) in ["in_bytes_per_s", "out_bytes_per_s"].into_iter().enumerate() {
        let mut then = begun;
        let mut sum = 0.0;
        for sample in &samples {
            let time = sample["time"].as_i64().expect("ms");
            sum += number(sample, attribute) * (time - then) as f64 / 1000.0;
            then = time;
            if time > ended {
                break;
            }
        }
        let kernel = after[direction] - before[direction];
        assert!(kernel >= flowed && kernel < 1.5 * flowed, "{kernel} flowed, of which {flowed} were ours");
        // A tenth: the date of a sample is taken a moment before the counters are read, and the tests beside us use the
        // loopback while the first and last interval run.
        assert!((sum - kernel).abs() < kernel / 10.0, "{attribute}: {sum} by our rates, {kernel} by the kernel");
    }
}

/// Ticks of one line of /proc/stat: user and nice, system with interrupts, stolen, all.
fn ticks(cpu: &str) -> [f64; 4] {
    let text = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{cpu} "))).expect("a processor");
    let t: Vec<f64> = line.split_whitespace().map(|field| field.parse().expect("ticks")).collect();
    [t[0] + t[1], t[2] + t[5] + t[6], t[7], t[..8].iter().sum()]
}

#[test]
fn a_spinning_process_is_seen_on_its_core() {
    let allowed = fs::read_to_string("/proc/self/status").expect("status");
    let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list");
    let core: String = allowed.trim().chars().take_while(char::is_ascii_digit).collect();
    let unit = format!("core{core}");
    let printing = Printing::start();
    // Bounded by the kernel as well, should we be killed.
    let mut spinning =
        Process::start(Command::new("taskset").args(["-c", &core, "sh", "-c", "ulimit -t 20; while :; do :; done"]));
    // It may have to share the core with whatever else runs here, but not with idleness; a fair share of many is
    // little, so only a quarter is asked of programs.
    let begun = wait_for("the core is busy", || {
        let samples = printing.samples("cpu", &unit, 0);
        let busy =
            samples.iter().find(|sample| number(sample, "load") > 90.0 && number(sample, "user") > 25.0)?.clone();
        busy["time"].as_i64()
    });
    let before = ticks(&format!("cpu{core}"));
    let samples = printing.wait_for_samples("cpu", &unit, begun, 5);
    let after = ticks(&format!("cpu{core}"));
    let runs = spinning.runs();
    spinning.kill();
    assert!(runs, "it span for less than was measured");

    let spent: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let mean =
        |attribute: &str| samples.iter().map(|sample| number(sample, attribute)).sum::<f64>() / samples.len() as f64;
    // Ours begin and end up to one of five intervals elsewhere.
    let load = 100.0 * (spent[0] + spent[1] + spent[2]) / spent[3];
    let user = 100.0 * spent[0] / spent[3];
    assert!((mean("load") - load).abs() < 15.0, "load {} by us, {load} by the kernel", mean("load"));
    assert!((mean("user") - user).abs() < 25.0, "user {} by us, {user} by the kernel", mean("user"));

    // What one core does is a part of what all do.
    let all = last_values(&printing.suite, "machine.cpu:*.load");
    let newest = all["machine.cpu:all.load"].1;
    let cores: Vec<f64> = all
        .iter()
        .filter(|(address, (_, time))| !address.starts_with("machine.cpu:all") && *time == newest)
        .map(|(_, (load, _))| *load)
        .collect();
    let mean_of_cores = cores.iter().sum::<f64>() / cores.len() as f64;
    // Cores may have counted a tick more or less in this half second.
    assert!((all["machine.cpu:all.load"].0 - mean_of_cores).abs() < 10.0, "{all:?}");
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

/// How long an outage lasted, in the words of `cctl watch`.
fn after(up: &Value) -> String {
    let lasted = Duration::from_millis(up["duration_ms"].as_u64().expect("an end has a duration"));
    format!("after {}", common::time::for_people(lasted))
}

#[test]
fn watch_shows_a_listener_go_and_come_back() {
    let mut target = Target::new();
    let suite = Suite::running(&port("www (test)", target.port, 200, 2), QUIET);
    let mut piped = Screen::start(&mut suite.cctl_command(&["watch", "--from", "1"]));
    // A terminal of its own; without the program, what a terminal would get.
    let mut terminal = if has("script") {
        let cctl =
            format!("{} --run {} watch --from 1", binaries().join("cctl").display(), suite.path("run").display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &cctl, "/dev/null"]);
        Screen::start(command.env_remove("NO_COLOR").env("TERM", "xterm").stdin(Stdio::null()))
    } else {
        Screen::start(&mut suite.cctl_command(&["watch", "--from", "1", "--color", "always"]))
    };
    let address = "testhost!port:www (test)";
    piped.wait_for_line(&["[ UP ]", "DEBUG", address, "connected in"]);
    terminal.wait_for_line(&["[ UP ]", "DEBUG", address]);

    let killed = unix_ms();
    target.down();
    let line = piped.wait_for_line(&["[ DOWN ]", "ERR", address, "connection refused"]);
    let down = suite.wait_for_event("down", "port:www");
    assert!((0..5000).contains(&(down["since"].as_i64().expect("ms") - killed)), "{down}");
    assert!(line.starts_with(&common::time::UnixMillis(down["time"].as_i64().expect("ms")).local()), "{line}");
    target.up();
    piped.wait_for_line(&["[ UP ]", "INFO", address, "after "]);
    let up = wait_for("the end", || {
        suite.events().into_iter().find(|e| e["incident"] == down["incident"] && e["kind"] == "up")
    });
    piped.wait_for_line(&["[ UP ]", "INFO", address, &after(&up), "connected in"]);
    terminal.wait_for_line(&["\x1b[31m[ DOWN ]", "\x1b[31mERR", address]);
    terminal.wait_for_line(&["\x1b[32m[ UP ]", address, &after(&up)]);
    assert!(!piped.lines().concat().contains('\x1b'), "a pipe gets no colours");
    // Whoever made the terminal ends its program with itself, and has an exit code of its own.
    terminal.process.terminate();
    assert_eq!(piped.process.terminate(), 0);
}

/// A real process whose command line no other has.
fn sleeper(seconds: &str) -> Process {
    Process::start(Command::new("sleep").arg(seconds).stdin(Stdio::null()))
}

#[test]
fn a_process_is_found_by_globs_and_counted() {
    let seconds = format!("77{}", std::process::id());
    let unit = format!("s?eep (*[s]leep {seconds})");
    let process = format!(
        "[[process]]\nname = \"s?eep\"\nargs = \"*[s]leep {seconds}\"\nmin = 1\nmax = 2\ninterval = \"200ms\"\n"
    );
    let mut suite = Suite::new(&process, QUIET);
    let mut first = sleeper(&seconds);
    // Not ours by one digit of the arguments.
    let _other = sleeper(&format!("{seconds}0"));
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    let screen = Screen::start(&mut suite.cctl_command(&["watch", "--from", "1"]));
    let address = format!("testhost!process:{unit}");
    screen.wait_for_line(&["[ UP ]", &address, "1 running"]);

    first.kill();
    screen.wait_for_line(&["[ DOWN ]", &address, "0 running, at least 1 wanted"]);
    let _second = sleeper(&seconds);
    screen.wait_for_line(&["[ UP ]", "INFO", &address, "after "]);

    let _third = sleeper(&seconds);
    let mut fourth = sleeper(&seconds);
    screen.wait_for_line(&["[ DOWN ]", &address, "3 running, at most 2 wanted"]);
    let count = format!("process.instances:{unit}.count");
    wait_for("the number follows", || {
        let counts = last_values(&suite, "process.instances:*.count");
        counts.get(&count).filter(|(count, _)| (*count - 3.0).abs() < 0.1).map(|_| ())
    });
    fourth.kill();
    wait_for_check(&suite, &unit, "up");
    let kinds: Vec<String> =
        told_since(&suite, 0).into_iter().filter(|(_, of)| *of == address).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["up", "down", "up", "down", "up"]);
}

#[test]
fn success_after_retries_is_a_blip() {
    let mut target = Target::new();
    let suite = Suite::running(&port("slow", target.port, 1000, 10), QUIET);
    wait_for_check(&suite, "slow", "up");
    let last_probe = || observed(&suite, "slow").and_then(|check| check["time"].as_i64());
    // Ten attempts, 100 ms apart, begin a second after the probe before. Nobody tells us of an attempt that failed, so
    // the listener comes back by the clock: in the middle of them. Where the machine stalls just then, it is tried
    // again.
    for _ in 0..10 {
        let head = head(&suite);
        let then = wait_for("a probe", last_probe);
        let begun = wait_for("the next probe", || last_probe().filter(|time| *time > then));
        target.down();
        wait_for("half of the attempts", || (unix_ms() >= begun + 1450).then_some(()));
        target.up();
        wait_for("an outcome", || last_probe().filter(|time| *time > begun));
        let told = wait_for("cprocessd has it", || {
            let told = told_since(&suite, head);
            let outcome = observed(&suite, "slow")?;
            (!told.is_empty() || outcome["retries"] == 0 && last_probe()? > begun + 2500).then_some(told)
        });
        let address = "testhost!port:slow".to_owned();
        if told.iter().any(|(kind, _)| kind == "blip") {
            assert_eq!(told, [("blip".to_owned(), address)]);
            let blip = suite.wait_for_event("blip", "port:slow");
            assert_eq!((&blip["severity"], &blip["state"]), (&json!("WARN"), &json!("up")));
            let text = blip["text"].as_str().expect("text");
            assert!(text.starts_with("up after ") && text.contains("failed attempt"), "{text}");
            return;
        }
        wait_for_check(&suite, "slow", "up");
    }
    panic!("in ten outages shorter than the attempts there was no blip");
}

/// A small file system of its own, until the end of the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Or why it cannot be had.
    fn mount(on: &Path) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can mount a tmpfs".to_owned());
        }
        fs::create_dir(on).expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=4m", "cairn-test"]).arg(on);
        let mounted = command.output().map_err(|error| format!("mount: {error}"))?;
        if !mounted.status.success() {
            return Err(text(&mounted.stderr).trim().to_owned());
        }
        let disk = Self(on.to_owned());
        // Which is where ccollectd looks.
        let name = on.display().to_string().replace(' ', "\\040");
        let mounts = fs::read_to_string("/proc/1/mountinfo");
        if mounts.is_ok_and(|mounts| !mounts.contains(&name)) {
            return Err("process 1 does not see our mounts: it has a namespace of its own".to_owned());
        }
        Ok(disk)
    }

    fn fill(&self, mebibytes: usize) {
        fs::write(self.0.join("filler"), vec![0; mebibytes << 20]).expect("written");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn an_alarm_on_a_filling_disk_is_solved_below_its_clear() {
    let mut suite = Suite::new("machine.interval = \"200ms\"\n", QUIET);
    let on = suite.path("small disk");
    let disk = match Tmpfs::mount(&on) {
        Ok(disk) => disk,
        Err(why) => return say_skipped("the alarm on a filling disk", &why),
    };
    let address = format!("machine.disk:{}.used_percentage", on.display());
    suite.configure(
        "cprocessd",
        &format!("{QUIET}[[alarm]]\nname = \"filling\"\nrule = \"*!{address} > 60% clear 30% ERR\"\n"),
    );
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    let used = |percentage: f64| {
        agree(&address, 1.0, || Some((last_value(&suite, &address)?, percentage)));
    };
    let told =
        || told_since(&suite, 0).into_iter().map(|(kind, _)| kind).filter(|kind| kind != "up").collect::<Vec<_>>();
    used(0.0);
    disk.fill(2);
    used(50.0);
    assert!(told().is_empty(), "not beyond the limit");
    assert_eq!(suite.cctl(&["alarm-list"]).status.code(), Some(0));

    disk.fill(3);
    let alarm = suite.wait_for_event("alarm", &address);
    assert_eq!((&alarm["severity"], &alarm["rule"]), (&json!("ERR"), &json!("filling")));
    assert_eq!((alarm["value"].as_f64(), &alarm["text"]), (Some(75.0), &json!("75 > 60")));
    // Between the two limits it stays as it is, however often it comes and goes.
    disk.fill(2);
    used(50.0);
    disk.fill(3);
    used(75.0);
    disk.fill(2);
    used(50.0);
    assert_eq!(told(), ["alarm"]);
    assert_eq!(suite.cctl(&["alarm-list"]).status.code(), Some(2));
    assert_eq!(suite.cctl_json(&["down-list"])[0]["incident"], alarm["incident"]);

    disk.fill(1);
    let solved = suite.wait_for_event("solved", &address);
    assert_eq!(solved["incident"], alarm["incident"]);
    assert!(solved["duration_ms"].as_u64() > Some(0));
    assert_eq!(told(), ["alarm", "solved"]);
    assert_eq!(suite.cctl(&["down-list"]).status.code(), Some(0));
}

#[test]
fn a_plugin_that_falls_silent_is_down_by_its_ttl() {
    let suite = Suite::running("machine.enabled = false\n", QUIET);
    let mut plugin = Plugin::connect(&suite);
    let heartbeat = json!({ "service": "backup", "msg_type": "value", "unit": "nightly", "resource_type": "run",
        "values": { "secs": 12.5 }, "ttl_ms": 1500 });
    plugin.push(&heartbeat);
    wait_for_check(&suite, "nightly", "up");
    assert_eq!(last_value(&suite, "backup.run:nightly.secs"), Some(12.5));
    let down = suite.wait_for_event("down", "backup:nightly");
    assert_eq!((&down["severity"], &down["text"]), (&json!("ERR"), &json!("no report for 1.5s")));
    let head = head(&suite);
    plugin.push(&heartbeat);
    let up = wait_for_event_since(&suite, head, "up", "backup:nightly");
    assert_eq!((&up["incident"], &up["text"]), (&down["incident"], &json!("reports again")));
}

#[test]
fn a_plugins_state_outlives_ccollectd() {
    let mut suite = Suite::running("machine.enabled = false\n", QUIET);
    let mut plugin = Plugin::connect(&suite);
    let since = unix_ms();
    plugin.state("down", "raid", since);
    plugin.state("up", "fan", since);
    suite.wait_for_event("down", "drill:raid");
    let fan = wait_for_check(&suite, "fan", "up");
    let head = head(&suite);
    suite.kill("ccollectd");
    suite.start("ccollectd");
    let raid = wait_for("ccollectd still has it", || observed(&suite, "raid"));
    assert_eq!((&raid["up"], &raid["changed"]), (&json!(false), &json!(since)));
    assert_eq!(
        check(&suite, "raid").map(|row| (row["state"].clone(), row["since"].clone())),
        Some((json!("down"), json!(since)))
    );
    assert_eq!(check(&suite, "fan"), Some(fan));
    assert_eq!(told_since(&suite, head), [], "nothing has changed");
    // A cprocessd that knows nothing hears of it, too.
    suite.kill("cprocessd");
    fs::remove_dir_all(suite.path("state/cprocessd")).expect("removed");
    suite.start("cprocessd");
    let down = suite.wait_for_event("down", "drill:raid");
    assert_eq!(down["since"], json!(since));
    plugin.state("up", "raid", unix_ms());
    let up = suite.wait_for_event("up", "drill:raid");
    assert_eq!(up["since"], json!(since));
}

#[test]
fn what_is_forgotten_comes_back_only_with_a_report() {
    let target = Target::new();
    let suite = Suite::running(&format!("machine.enabled = false\n{}", port("www", target.port, 200, 1)), QUIET);
    let mut plugin = Plugin::connect(&suite);
    let temperature = json!({ "service": "sensor", "msg_type": "value", "resource_type": "temp", "unit": "room",
        "values": { "celsius": 21.5 } });
    plugin.state("down", "old", unix_ms());
    plugin.state("up", "new", unix_ms());
    plugin.push(&temperature);
    suite.wait_for_event("down", "drill:old");
    wait_for("the number", || last_value(&suite, "sensor.temp:room.celsius"));

    let forgotten = suite.cctl_json(&["forget", "testhost!drill:old"]);
    assert_eq!((&forgotten["addresses"], &forgotten["unreached"]), (&json!(["testhost!drill:old"]), &json!([])));
    assert_eq!((check(&suite, "old"), observed(&suite, "old")), (None, None), "neither of them has it");
    assert!(check(&suite, "new").is_some() && observed(&suite, "new").is_some(), "only what matches");
    let retired = suite.wait_for_event("retired", "drill:old");
    assert!(retired["text"].as_str().is_some_and(|text| text.starts_with("forgotten by ")), "{retired}");
    suite.wait_for_event("order", "cprocessd:");
    suite.cctl_json(&["forget", "*!sensor"]);
    assert_eq!(last_value(&suite, "sensor.temp:room.celsius"), None);
    let output = suite.cctl(&["forget", "*!nothing"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "nothing matches, nothing was forgotten\n".into())
    );

    plugin.state("down", "old", unix_ms());
    plugin.push(&temperature);
    wait_for_check(&suite, "old", "down");
    wait_for("ccollectd has it again", || observed(&suite, "old"));
    wait_for("the number is back", || last_value(&suite, "sensor.temp:room.celsius"));
    // What is configured is reported again by the next probe.
    let head = head(&suite);
    suite.cctl_json(&["forget", "testhost!port"]);
    wait_for_event_since(&suite, head, "up", "port:www");
    wait_for_check(&suite, "www", "up");
}

/// A host that is down after three seconds, with a port that is up all the time.
fn mortal_host(target: &Target, stop_grace: &str) -> Suite {
    let suite = Suite::running(
        &format!("machine.enabled = false\n{}", port("www", target.port, 500, 1)),
        &format!("{QUIET}[judging]\nhost_down_after = \"3s\"\nstop_grace = \"{stop_grace}\"\n"),
    );
    wait_for_check(&suite, "www", "up");
    suite
}

#[test]
fn a_ccollectd_that_is_killed_is_one_critical_event() {
    let target = Target::new();
    let mut suite = mortal_host(&target, "5m");
    let head = head(&suite);
    let killed = unix_ms();
    suite.kill("ccollectd");
    let down = wait_for_event_since(&suite, head, "down", "testhost!alive:");
    assert_eq!(down["severity"], "CRIT");
    let after_ms = down["time"].as_i64().expect("ms") - killed;
    // It may have been silent for a second before; absence is looked for twice a second; and the machine may be busy.
    assert!((1500..6000).contains(&after_ms), "after {after_ms} ms");
    assert!(down["since"].as_i64().expect("ms") <= killed, "since its last sign of life: {down}");
    assert_eq!(check(&suite, "www").expect("known")["state"], "unknown");
    assert_eq!(suite.cctl_json(&["server-list"])[0]["state"], "down");
    assert_eq!(suite.cctl(&["server-list"]).status.code(), Some(2));
    cprocessd_runs_for(&suite, 3);
    assert_eq!(told_since(&suite, head), [("down".to_owned(), "testhost!alive:".to_owned())]);

    suite.start("ccollectd");
    let up = wait_for_event_since(&suite, head, "up", "testhost!alive:");
    assert_eq!((&up["incident"], &up["since"], &up["severity"]), (&down["incident"], &down["since"], &json!("INFO")));
    let lasted = up["time"].as_i64().expect("ms") - up["since"].as_i64().expect("ms");
    assert_eq!(up["duration_ms"], json!(lasted));
    wait_for_check(&suite, "www", "up");
    assert_eq!(told_since(&suite, head).len(), 2, "the port was up all the time");
    assert_eq!(suite.cctl(&["server-list"]).status.code(), Some(0));
}

#[test]
fn a_ccollectd_that_is_stopped_has_a_grace() {
    let target = Target::new();
    let mut suite = mortal_host(&target, "1m");
    let kinds = |suite: &Suite, head| told_since(suite, head).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    let begun = head(&suite);
    assert_eq!(suite.daemon("ccollectd").terminate(), 0);
    let stopped = wait_for_event_since(&suite, begun, "stopped", "testhost!alive:");
    assert_eq!(stopped["severity"], "INFO");
    // Twice what makes a host down that says nothing.
    cprocessd_runs_for(&suite, 6);
    assert_eq!(kinds(&suite, begun), ["stopped"]);
    suite.start("ccollectd");
    wait_for_event_since(&suite, begun, "started", "testhost!alive:");
    assert_eq!(kinds(&suite, begun), ["stopped", "started"]);

    // Whoever does not come back is down all the same, and since the goodbye.
    suite.configure("cprocessd", &format!("{QUIET}[judging]\nhost_down_after = \"3s\"\nstop_grace = \"2s\"\n"));
    suite.daemon("cprocessd").signal(Signal::SIGHUP);
    wait_for("cprocessd has read it", || suite.log("cprocessd").contains("configuration read again").then_some(()));
    let again = head(&suite);
    assert_eq!(suite.daemon("ccollectd").terminate(), 0);
    let stopped = wait_for_event_since(&suite, again, "stopped", "testhost!alive:");
    let down = wait_for_event_since(&suite, again, "down", "testhost!alive:");
    assert_eq!((&down["severity"], &down["since"]), (&json!("CRIT"), &stopped["time"]));
    assert_eq!(kinds(&suite, again), ["stopped", "down"]);
}

#[test]
fn sighup_adds_and_removes_what_is_watched_and_a_broken_file_changes_nothing() {
    let target = Target::new();
    let added = Target::new();
    let mut gone = Target::new();
    let ports = |names: &[(&str, u16)]| {
        let ports: String = names.iter().map(|(name, number)| port(name, *number, 200, 1)).collect();
        format!("machine.enabled = false\n{ports}")
    };
    let mut suite = Suite::running(&ports(&[("www", target.port), ("gone", gone.port)]), QUIET);
    gone.down();
    let down = suite.wait_for_event("down", "port:gone");
    assert_eq!(check(&suite, "added"), None);

    suite.configure("ccollectd", &ports(&[("www", target.port), ("gone", gone.port), ("added", added.port)]));
    suite.daemon("ccollectd").signal(Signal::SIGHUP);
    wait_for_check(&suite, "added", "up");

    suite.configure("ccollectd", &ports(&[("www", target.port), ("added", added.port)]));
    suite.daemon("ccollectd").signal(Signal::SIGHUP);
    let retired = suite.wait_for_event("retired", "port:gone");
    assert_eq!((&retired["incident"], &retired["text"]), (&down["incident"], &json!("no longer configured")));
    assert!(retired["duration_ms"].as_u64().is_some());
    assert_eq!((check(&suite, "gone"), suite.cctl_json(&["down-list"])), (None, json!([])));

    let snapshot = || suite.ask("feed-query", r#"{"query":"snapshot"}"#).map(|snapshot| snapshot["hosts"].clone());
    let watched = wait_for("a snapshot", snapshot);
    for (daemon, mistake) in [
        ("ccollectd", "[[port]]\nname = \"x\"\nadress = \"127.0.0.1:1\"\n"),
        ("cprocessd", "[[alarm]]\nname = \"x\"\nrule = \"*!a.b:c.d > lots WARN\"\n"),
    ] {
        suite.configure(daemon, &format!("{}{mistake}", if daemon == "ccollectd" { "" } else { QUIET }));
        let file = suite.path(&format!("etc/{daemon}.toml"));
        let line = fs::read_to_string(&file).expect("read").lines().count();
        let place = format!("{}:{line}: ", file.display());
        let check = suite.command(daemon).arg("--check-config").stderr(Stdio::piped()).output().expect("it runs");
        assert_eq!(check.status.code(), Some(78));
        assert!(text(&check.stderr).contains(&place), "{place} not in {}", text(&check.stderr));
        suite.daemon(daemon).signal(Signal::SIGHUP);
        wait_for("the mistake is logged", || {
            suite.log(daemon).lines().find(|line| line.contains(&place) && line.contains("as it was")).map(|_| ())
        });
        assert!(suite.daemon(daemon).runs());
    }
    assert_eq!(wait_for("a snapshot", || suite.ask("feed-query", r#"{"query":"snapshot"}"#))["hosts"], watched);
    let then = unix_ms();
    wait_for("the port is still probed", || (observed(&suite, "www")?["time"].as_i64()? > then).then_some(()));
    wait_for_check(&suite, "www", "up");
}

/// Exit code, output and errors of `cctl`.
fn cctl(suite: &Suite, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = suite.cctl(args);
    (status.code().expect("an exit code"), text(&stdout), text(&stderr))
}

#[test]
fn every_question_has_its_table_its_json_and_its_exit_code() {
    let mut target = Target::new();
    let suite = Suite::running(
        &format!("machine.enabled = false\n{}", port("www", target.port, 200, 1)),
        &format!("{QUIET}[[alarm]]\nname = \"warm\"\nrule = \"*!sensor.temp:*.celsius > 30 clear 25 WARN\"\n"),
    );
    let mut plugin = Plugin::connect(&suite);
    let mut celsius = |celsius: f64| {
        plugin.push(&json!({ "service": "sensor", "msg_type": "value", "resource_type": "temp", "unit": "room",
            "values": { "celsius": celsius } }));
    };
    celsius(21.5);
    wait_for("the number", || last_value(&suite, "sensor.temp:room.celsius"));
    wait_for_check(&suite, "www", "up");

    // Question, what its table shows, whether it says by its exit code that something is wrong.
    let value = "testhost!sensor.temp:room.celsius";
    let questions: [(&[&str], &[&str], bool); 12] = [
        (&["server-list"], &["HOST", "STATE", "testhost", " up "], true),
        (&["server-status", "testhost"], &["testhost is up since", "checks:", "testhost!port:www", value], true),
        (&["service-list"], &["CHECK", "STATE", "testhost!port:www"], true),
        (&["service-list", "testhost"], &["CHECK", "testhost!port:www"], true),
        (&["down-list"], &[], true),
        (&["alarm-list"], &["ALARM", "warm", "WARN", "*!sensor.temp:*.celsius > 30 clear 25 WARN"], true),
        (&["last-value", "*!sensor"], &["ADDRESS", "VALUE", value], false),
        (&["events"], &["[ UP ]", "DEBUG", "testhost!port:www"], false),
        (&["events", "--after", "0", "--limit", "1"], &["[ UP ]", "cctl events --after 1"], false),
        (&["snapshot"], &["journal ", "1 host, 1 check, ", "hosts:", "checks:", "open incidents:"], false),
        (&["health", "ccollectd"], &["ccollectd 0.", "MiB resident", "journal "], false),
        (&["health", "cprocessd"], &["cprocessd 0.", "MiB resident", "journal "], false),
    ];
    for is_wrong in [false, true] {
        if is_wrong {
            target.down();
            celsius(35.0);
            suite.wait_for_event("down", "port:www");
            suite.wait_for_event("alarm", value);
        }
        for (args, words, tells) in &questions {
            let expected = if is_wrong && *tells { 2 } else { 0 };
            let (code, table, errors) = cctl(&suite, args);
            assert_eq!((code, errors.as_str()), (expected, ""), "{args:?}: {table}");
            assert!(words.iter().all(|word| table.contains(word)), "{args:?}: {words:?} in\n{table}");
            let (code, json, errors) = cctl(&suite, &[&["--json"], *args].concat());
            assert_eq!((code, errors.as_str()), (expected, ""), "{args:?}: {json}");
            let json: Value = serde_json::from_str(&json).expect("one document");
            assert!(json.is_array() || json.is_object(), "{json}");
        }
    }
    let (_, table, _) = cctl(&suite, &["down-list"]);
    for words in [["ERR", "testhost!port:www", "connection refused"], ["WARN", value, "35 > 30"]] {
        let row = table.lines().find(|line| words.iter().all(|word| line.contains(word)));
        assert!(row.is_some(), "{words:?} in\n{table}");
    }
    let (_, table, _) = cctl(&suite, &["alarm-list"]);
    assert!(table.contains("1 open") && table.contains("over the limit:"), "{table}");
    assert_eq!(suite.cctl_json(&["health", "ccollectd"])["daemon"], "ccollectd");
}

#[test]
fn cctl_says_by_its_exit_code_why_there_is_no_answer() {
    let mut suite = Suite::running("machine.enabled = false\n", QUIET);
    for refused in [&["server-status", "nobody"][..], &["last-value", "*!nothing"]] {
        let (code, shown, errors) = cctl(&suite, refused);
        assert_eq!((code, shown.as_str()), (1, ""), "{refused:?}: {errors}");
        assert!(errors.starts_with("cctl: "), "{errors}");
    }
    for wrong in [&[][..], &["server-lost"], &["last-value"], &["watch", "--severity", "LOUD"], &["health", "../x"]] {
        assert_eq!(cctl(&suite, wrong).0, 64, "{wrong:?}");
    }
    for daemon in ["ccollectd", "cprocessd"] {
        let mut command = Command::new(binaries().join(daemon));
        assert_eq!(command.arg("--frobnicate").stderr(Stdio::null()).status().expect("it runs").code(), Some(64));
        let mut command = Command::new(binaries().join(daemon));
        let missing =
            command.arg("--config").arg(suite.path("nothing")).arg("--check-config").output().expect("it runs");
        assert_eq!(missing.status.code(), Some(78), "{}", text(&missing.stderr));
    }
    assert_eq!(cctl(&suite, &["health", "cmaild"]).0, 69);
    // The sockets of whoever was killed are still there.
    suite.kill("cprocessd");
    for unreachable in [&["server-list"][..], &["forget", "*"], &["watch"], &["events"]] {
        let (code, _, errors) = cctl(&suite, unreachable);
        assert_eq!(code, 69, "{unreachable:?}: {errors}");
        assert!(errors.contains("is cprocessd running"), "{errors}");
    }
    assert_eq!(cctl(&suite, &["health", "ccollectd"]).0, 0);
}

#[test]
fn watch_goes_on_where_it_was() {
    let suite = Suite::running("machine.enabled = false\n", QUIET);
    let mut plugin = Plugin::connect(&suite);
    let mut say = |n: usize| {
        let unit = format!("u{n}");
        plugin.state("down", &unit, unix_ms());
        suite.wait_for_event("down", &format!("drill:{unit}"));
    };
    (0..3).for_each(&mut say);
    let journal = suite.events();
    let from = journal[1]["seq"].to_string();
    let mut screen = Screen::start(&mut suite.cctl_command(&["watch", "--json", "--from", &from]));
    say(3);
    screen.wait_for_line(&["drill:u3"]);
    assert_eq!(screen.process.terminate(), 0);
    let shown: Vec<Value> =
        screen.lines().iter().map(|line| serde_json::from_str(line).expect("one event a line")).collect();
    let without_topic = |mut event: Value| {
        event.as_object_mut().expect("an event").remove("topic");
        event
    };
    let journal: Vec<Value> = suite.events().into_iter().map(without_topic).collect();
    assert_eq!(shown, journal[1..]);

    let file = suite.path("events.jsonl");
    let to = file.to_str().expect("text");
    let seqs = || {
        let lines = fs::read_to_string(&file).unwrap_or_default();
        let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let seq = |line: &str| serde_json::from_str::<Value>(line).expect("an event")["seq"].as_u64().expect("seq");
        whole.lines().map(seq).collect::<Vec<_>>()
    };
    for round in 4..7 {
        let mut command = suite.cctl_command(&["watch", "--from", "1", "--to", to]);
        let mut watching = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        say(round);
        let head = suite.events().len();
        wait_for("all are in the file", || (seqs().len() >= head).then_some(()));
        if round.is_multiple_of(2) {
            assert_eq!(watching.terminate(), 0);
        } else {
            watching.kill();
        }
    }
    let head = suite.events().len() as u64;
    assert_eq!(seqs(), (1..=head).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn completions_and_manual_pages_are_what_shells_and_man_take() {
    let suite = Suite::new("", "");
    for (shell, sign) in [("bash", "complete "), ("zsh", "#compdef cctl"), ("fish", "complete -c cctl")] {
        let (code, script, _) = cctl(&suite, &["completions", shell]);
        assert!(code == 0 && script.contains(sign) && script.contains("server-list"), "{shell}: {script}");
        let file = suite.path(shell);
        fs::write(&file, script).expect("written");
        if has(shell) {
            output(Command::new(shell).arg("-n").arg(&file));
        } else {
            say_skipped(&format!("completions by {shell} itself"), "it is not installed");
        }
    }
    let loaded = output(Command::new("bash").args(["-c", "source \"$0\" && complete -p cctl"]).arg(suite.path("bash")));
    assert!(loaded.contains("cctl"), "{loaded}");

    let pages = suite.path("man1");
    assert_eq!(cctl(&suite, &["man", pages.to_str().expect("text")]).0, 0);
    let can_render = has("groff");
    if !can_render {
        say_skipped("manual pages as groff shows them", "it is not installed");
    }
    let mut count = 0;
    for page in fs::read_dir(&pages).expect("pages").flatten() {
        count += 1;
        assert!(page.metadata().expect("a file").len() > 0, "{page:?}");
        if can_render {
            let rendered = Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(page.path()).output();
            let rendered = rendered.expect("groff runs");
            assert_eq!(text(&rendered.stderr), "", "{page:?}");
            assert!(text(&rendered.stdout).contains("cctl"), "{page:?}");
        }
    }
    assert!(count > 10, "one for each subcommand");
}

#[test]
fn the_examples_load_and_a_daemon_prints_its_traffic() {
    let deploy = repository().join("deploy");
    for daemon in ["ccollectd", "cprocessd"] {
        let example = deploy.join(format!("{daemon}.example.toml"));
        output(Command::new(binaries().join(daemon)).arg("--check-config").arg("--config").arg(example));
    }
    let suite = Suite::new("", "");
    let mut screens = Vec::new();
    for daemon in ["ccollectd", "cprocessd"] {
        output(suite.command(daemon).arg("--check-config"));
        let mut command = Command::new(binaries().join(daemon));
        command.arg("--print").arg("--config").arg(suite.path(&format!("etc/{daemon}.toml"))).stdin(Stdio::null());
        screens.push(Screen::start(&mut command));
    }
    suite.wait_for_host();
    let parsed = |line: String| serde_json::from_str::<Value>(&line).expect("one message a line");
    let out = parsed(screens[0].wait_for_line(&["\"way\":\"out\"", "value.testhost!"]));
    assert_eq!((&out["way"], &out["topic"]), (&json!("out"), &json!("value.testhost!")));
    let taken = parsed(screens[1].wait_for_line(&["\"way\":\"in\"", "alive.testhost!"]));
    assert_eq!((&taken["way"], &taken["message"]["host"]), (&json!("in"), &json!("testhost")));
    let event = parsed(screens[1].wait_for_line(&["\"way\":\"out\"", "event.DEBUG.testhost!"]));
    assert_eq!(event["message"]["kind"], "up");
    for mut screen in screens {
        assert_eq!(screen.process.terminate(), 0);
    }
}

/// Gives a folder and all that is in it to somebody.
fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("given");
    if path.is_dir() {
        fs::read_dir(path).expect("a folder").flatten().for_each(|entry| give(&entry.path(), uid));
    }
}

#[test]
fn everything_is_observed_without_privileges() {
    let target = Target::new();
    let seconds = format!("88{}", std::process::id());
    let process = format!("[[process]]\nname = \"sleep\"\nargs = \"sleep {seconds}\"\ninterval = \"200ms\"\n");
    let mut suite = Suite::new(&format!("{}{process}", port("www", target.port, 200, 1)), QUIET);
    let _somebody_elses = sleeper(&seconds);
    if is_root() {
        // The tree may lie where only root may look.
        for daemon in ["ccollectd", "cprocessd"] {
            fs::copy(binaries().join(daemon), suite.path(daemon)).expect("copied");
        }
        give(&suite.path(""), NOBODY);
        for daemon in ["ccollectd", "cprocessd"] {
            let mut program = Command::new("setpriv");
            let id = NOBODY.to_string();
            program.args([&format!("--reuid={id}"), &format!("--regid={id}"), "--clear-groups", "--"]);
            program.arg(suite.path(daemon));
            let command = suite.command_by(program, daemon);
            suite.start_by(command, daemon);
        }
    } else {
        suite.start("ccollectd");
        suite.start("cprocessd");
    }
    suite.wait_for_host();
    if is_root() {
        let pid = suite.daemon("ccollectd").pid();
        assert_eq!(fs::metadata(format!("/proc/{pid}")).expect("it runs").uid(), NOBODY);
    }
    wait_for_check(&suite, "www", "up");
    wait_for_check(&suite, &format!("sleep (sleep {seconds})"), "up");
    let mut plugin = Plugin::connect(&suite);
    plugin.state("up", "plugin", unix_ms());
    wait_for_check(&suite, "plugin", "up");
    let core_of = |address: &str| address.split_once(':').map(|(resource, _)| resource.to_owned());
    let mut wanted =
        vec!["cpu", "load_average", "uptime", "processes", "memory", "disk", "network", "process.instances"];
    if Path::new("/proc/pressure/cpu").exists() {
        wanted.push("pressure");
    }
    wait_for(&format!("numbers of {wanted:?}"), || {
        let seen: Vec<String> = last_values(&suite, "*").keys().filter_map(|address| core_of(address)).collect();
        let is_seen = |wanted: &&str| seen.iter().any(|seen| seen == wanted || *seen == format!("machine.{wanted}"));
        wanted.iter().all(is_seen).then_some(())
    });
    assert_eq!(suite.log("ccollectd").matches("cannot read").count(), 0, "{}", suite.log("ccollectd"));
}

/// `cctl demo` in a folder.
struct Demo {
    dir: PathBuf,
    screen: Screen,
}

impl Demo {
    fn command(dir: &Path) -> Command {
        let mut command = Command::new(binaries().join("cctl"));
        command.arg("demo").arg(dir).stdin(Stdio::null());
        command
    }

    /// The host is up in the time that a newcomer waits.
    fn start(dir: &Path) -> Self {
        let begun = unix_ms();
        let demo = Self { dir: dir.to_owned(), screen: Screen::start(&mut Self::command(dir)) };
        // Not what it knows from the time before.
        let is_up = || {
            let host = &demo.cctl_json(&["server-list"])?[0];
            (host["state"] == "up" && host["last_seen"].as_i64() >= Some(begun)).then_some(())
        };
        wait_at_most(Duration::from_secs(15), "the host is up", || demo.screen.line(&["is watched"]));
        assert_eq!(is_up(), Some(()), "said too early");
        demo
    }

    fn cctl_json(&self, args: &[&str]) -> Option<Value> {
        let mut command = Command::new(binaries().join("cctl"));
        let output =
            command.arg("--run").arg(self.dir.join("run")).arg("--json").args(args).output().expect("cctl runs");
        serde_json::from_slice(&output.stdout).ok()
    }

    fn epochs(&self) -> [Value; 2] {
        ["ccollectd", "cprocessd"].map(|daemon| self.cctl_json(&["health", daemon]).expect("it runs")["epoch"].clone())
    }

    fn pid(&self, daemon: &str) -> Option<u32> {
        fs::read_to_string(self.dir.join(format!("run/{daemon}.pid"))).ok()?.trim().parse().ok()
    }

    /// As Ctrl-C does; what has run is gone.
    #[track_caller]
    fn interrupt(mut self) {
        let pids = ["ccollectd", "cprocessd"].map(|daemon| self.pid(daemon).expect("it runs"));
        self.screen.process.signal(Signal::SIGINT);
        assert_eq!(self.screen.process.exit_code(), 0);
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} still runs");
        }
    }
}

#[test]
fn the_demo_starts_goes_on_and_leaves_nothing_behind() {
    let dir = tempfile::Builder::new().prefix("cairn").tempdir().expect("a temporary folder");
    let dir = dir.path().join("demo");
    let demo = Demo::start(&dir);
    let epochs = demo.epochs();

    let second = Demo::command(&dir).output().expect("cctl runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another cctl demo runs in this folder"), "{}", text(&second.stderr));

    for daemon in ["ccollectd", "cprocessd"] {
        let pid = demo.pid(daemon).expect("it runs");
        let killed = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(killed, Signal::SIGKILL).expect("it runs");
        wait_for("another one runs", || demo.pid(daemon).filter(|new| *new != pid));
        wait_for("it answers", || demo.cctl_json(&["health", daemon]));
    }
    wait_for("the host is up", || (demo.cctl_json(&["server-list"])?[0]["state"] == "up").then_some(()));
    assert_eq!(demo.epochs(), epochs);
    demo.interrupt();

    let demo = Demo::start(&dir);
    assert_eq!(demo.epochs(), epochs, "it goes on with its journals");
    let kinds = || -> Option<Vec<String>> {
        let page = demo.cctl_json(&["events", "--after", "0"])?;
        page["events"].as_array()?.iter().map(|event| Some(event["kind"].as_str()?.to_owned())).collect()
    };
    wait_for("the return is told", || kinds()?.ends_with(&["stopped".into(), "started".into()]).then_some(()));
    assert_eq!(kinds(), Some(vec!["up".into(), "stopped".into(), "started".into()]), "no kill lasted long enough");
    demo.interrupt();
}
