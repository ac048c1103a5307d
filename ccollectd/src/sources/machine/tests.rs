//! The machine as a whole, on two captures of one `/proc` that are 3.5 s apart (cut: `intr` of
//! `stat`).

use std::path::Path;
use std::time::Duration;

use super::*;

fn captured(which: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sources/testdata").join(which)
}

/// Both captures, read one after the other by the same machine.
fn both_readings() -> (Vec<Reading>, Vec<Reading>) {
    let start = Instant::now();
    let mut machine = Machine::with_proc(captured("proc.1"));
    let first = machine.read_kernel(start);
    machine.proc.root = captured("proc.2");
    let second = machine.read_kernel(start + Duration::from_millis(3500));
    assert_eq!(machine.faults.open, BTreeSet::new());
    (first, second)
}

fn things(readings: &[Reading]) -> Vec<String> {
    readings.iter().map(|reading| format!("{}:{}", reading.resource, reading.unit)).collect()
}

#[track_caller]
fn value(readings: &[Reading], resource: &str, unit: &str, name: &str) -> f64 {
    let reading = readings.iter().find(|reading| reading.resource == resource && reading.unit == unit);
    let values = &reading.unwrap_or_else(|| panic!("no {resource}:{unit} in {:?}", things(readings))).values;
    values.iter().find(|(attribute, _)| *attribute == name).expect("the reading has this number").1
}

#[track_caller]
fn expect_about(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 0.01, "{actual} is not about {expected}");
}

#[test]
fn rates_begin_with_the_second_reading() {
    let (first, second) = both_readings();
    let always = [
        "load_average:",
        "uptime:",
        "processes:",
        "memory:physical",
        "memory:swap",
        "pressure:cpu",
        "pressure:memory",
        "pressure:io",
    ];
    assert_eq!(things(&first), always);
    let with_rates = [
        "cpu:all",
        "cpu:core0",
        "cpu:core1",
        "load_average:",
        "uptime:",
        "processes:",
        "memory:physical",
        "memory:swap",
        "io:vda",
        "network:eth0",
        "network:ifb0",
        "network:ifb1",
        "network:lo",
        "pressure:cpu",
        "pressure:memory",
        "pressure:io",
    ];
    assert_eq!(things(&second), with_rates);
}

#[test]
fn the_numbers_of_a_busy_machine_are_right() {
    let (_, second) = both_readings();
    expect_about(value(&second, "cpu", "all", "load"), 100.0 * 673.0 / 696.0);
    expect_about(value(&second, "cpu", "all", "iowait"), 100.0 * 18.0 / 696.0);
    expect_about(value(&second, "io", "vda", "read_bytes_per_s"), 752_184.0 * 512.0 / 3.5);
    expect_about(value(&second, "io", "vda", "busy_percentage"), 432.0 / 35.0);
    expect_about(value(&second, "network", "lo", "in_bytes_per_s"), 50_432.0 / 3.5);
    expect_about(value(&second, "network", "eth0", "out_packets_per_s"), 0.0);
    expect_about(value(&second, "load_average", "", "5m_per_core"), 0.28);
    expect_about(value(&second, "uptime", "", "uptime"), 2400.92);
    expect_about(value(&second, "processes", "", "running"), 3.0);
}

#[test]
fn what_cannot_be_read_is_skipped_and_the_rest_goes_on() {
    let folder = tempfile_with(&[("uptime", "17.5 3\n"), ("stat", "intr 1 2 3\nprocs_running 4\n")]);
    let mut machine = Machine::with_proc(folder.path());
    let readings = machine.read_kernel(Instant::now());
    assert_eq!(things(&readings), ["uptime:", "processes:"]);
    let missing: Vec<String> = ["diskstats", "loadavg", "meminfo", "net/dev", "stat"]
        .map(|file| folder.path().join(file).display().to_string())
        .to_vec();
    assert_eq!(machine.faults.open.into_iter().collect::<Vec<_>>(), missing, "absent pressure is no fault");
}

#[test]
fn a_fault_is_news_when_it_begins_and_when_it_ends() {
    let fault = |what: &str| Fault { what: what.to_owned(), why: Why::Missing(Missing("line")) };
    let mut faults = Faults::default();
    let begun = BTreeMap::from([("a".to_owned(), "no usable line in it".to_owned())]);
    assert_eq!(faults.change(vec![fault("a")]), Change { begun, ended: vec![] });
    assert_eq!(faults.change(vec![fault("a")]), Change { begun: BTreeMap::new(), ended: vec![] });
    assert_eq!(faults.change(vec![]), Change { begun: BTreeMap::new(), ended: vec!["a".to_owned()] });
}

#[test]
fn any_bytes_at_all_are_survived() {
    let names = ["stat", "loadavg", "uptime", "meminfo", "diskstats", "net/dev", "pressure/cpu"];
    let start = Instant::now();
    let mut machine = Machine::with_proc("/nonexistent");
    // Every capture cut off at every length, and with every third byte turned into something else.
    let texts: Vec<Vec<u8>> = names.iter().map(|name| fs::read(captured("proc.2").join(name)).unwrap()).collect();
    let mut feed = |name: &str, bytes: &[u8], second: u64| {
        let text = String::from_utf8_lossy(bytes);
        let now = start + Duration::from_secs(second);
        match name {
            "stat" => drop(cpu::parse(&text).map(|stat| machine.cpu.advance(&text, &stat))),
            "loadavg" => drop(system::load_average(&text, 2)),
            "uptime" => drop(system::uptime(&text)),
            "meminfo" => drop(memory::readings(&text)),
            "diskstats" => drop(machine.io.advance(now, &text)),
            "net/dev" => drop(machine.network.advance(now, &text)),
            _ => drop(pressure::reading("cpu", &text)),
        }
    };
    for (name, text) in names.iter().zip(&texts) {
        for (second, length) in (0..text.len()).step_by(7).enumerate() {
            feed(name, &text[..length], second as u64);
        }
        for replacement in [b'0', b'-', b' ', b'\n', b':', 0xff] {
            for offset in 0..3 {
                let mut broken = text.clone();
                broken.iter_mut().skip(offset).step_by(3).for_each(|byte| *byte = replacement);
                feed(name, &broken, 1);
            }
        }
    }
}

#[test]
fn the_memory_of_this_machine_is_what_the_kernel_says() {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kilobytes: f64 = text.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let readings = Machine::new().read_kernel(Instant::now());
    expect_about(value(&readings, "memory", "physical", "total"), kilobytes * 1024.0);
    assert!(value(&readings, "processes", "", "total") >= 1.0);
}

fn tempfile_with(files: &[(&str, &str)]) -> TempFolder {
    let folder = TempFolder::new();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// A folder that goes with its owner.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ccollectd-machine-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
