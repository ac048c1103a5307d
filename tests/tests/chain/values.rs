//! Values agree with what the system itself says.

use super::*;

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
