//! From a fault to the line on a person's terminal: 20 TCP listeners die at random moments, each probed once a second.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tests::{Moments, PATIENCE, Suite, Target, wait_for};

const FAULTS: usize = 20;

/// A line as it appeared: the event, when by each clock.
struct Line {
    event: Value,
    at: Instant,
    at_ms: i64,
}

fn main() {
    let targets: Vec<Target> = (0..FAULTS).map(|_| Target::new()).collect();
    let port = |(i, target): (usize, &Target)| {
        format!("[[port]]\nname = \"t{i}\"\naddress = \"127.0.0.1:{}\"\ninterval = \"1s\"\nattempts = 1\n", target.port)
    };
    let ports: Vec<String> = targets.iter().enumerate().map(port).collect();
    let mut suite = Suite::running(&ports.concat(), "");
    wait_for("all ports are up", || {
        (suite.query(r#"{"query":"service-list"}"#)?.as_array()?.len() == FAULTS).then_some(())
    });

    let mut watch = suite.cctl_command(&["--json", "watch"]).stdout(Stdio::piped()).spawn().expect("cctl watch");
    let output = watch.stdout.take().expect("piped");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let (at, at_ms) = (Instant::now(), common::time::UnixMillis::now().0);
            if let Ok(event) = serde_json::from_str(&line) {
                let _ = sender.send(Line { event, at, at_ms });
            }
        }
    });
    // Its first line proves that it listens.
    let mut probe = tests::Plugin::connect(&suite);
    let mut n = 0;
    wait_for("cctl watch listens", || {
        n += 1;
        probe.state("up", &format!("probe{n}"), common::time::UnixMillis::now().0);
        lines.recv_timeout(Duration::from_millis(200)).ok()
    });

    let before = cpu(&mut suite);
    let began = Instant::now();
    let mut moments = Moments::from_environment();
    let mut killed = BTreeMap::new();
    for (i, mut target) in targets.into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(200 + moments.below(1000)));
        killed.insert(format!("t{i}"), target.down());
    }
    let mut from_fault = Vec::new();
    let mut from_observation = Vec::new();
    while from_fault.len() < FAULTS {
        let line = lines.recv_timeout(PATIENCE).expect("every fault is told");
        let unit = line.event["unit"].as_str().unwrap_or_default();
        if let (Some(at), true) = (killed.get(unit), line.event["kind"] == "down") {
            from_fault.push(line.at.duration_since(*at).as_secs_f64());
            from_observation.push((line.at_ms - line.event["time"].as_i64().expect("ms")) as f64);
        }
    }
    let elapsed = began.elapsed().as_secs_f64();
    let after = cpu(&mut suite);
    let _ = watch.kill();
    let _ = watch.wait();

    println!("{FAULTS} faults, one-second probes      min   median      max");
    println!("fault -> printed line, s      {}", row(&mut from_fault, 2));
    println!("observation -> line, ms       {}", row(&mut from_observation, 0));
    for (daemon, used) in after {
        let used = (used - before[&daemon]) / elapsed * 60.0;
        let rss = suite.daemon(&daemon).memory("VmHWM:") as f64 / f64::from(1 << 20);
        println!("{daemon:10} CPU {used:.2} s/min, peak RSS {rss:.1} MB");
    }
}

fn row(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let median = f64::midpoint(values[(FAULTS - 1) / 2], values[FAULTS / 2]);
    format!("{:8.digits$} {median:8.digits$} {:8.digits$}", values[0], values[FAULTS - 1])
}

/// CPU seconds so far, from the nanoseconds of /proc/PID/task/TID/schedstat: the ticks of /proc/PID/stat are too coarse.
fn cpu(suite: &mut Suite) -> BTreeMap<String, f64> {
    ["ccollectd", "cprocessd"]
        .into_iter()
        .map(|daemon| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", suite.daemon(daemon).pid())).expect("it runs");
            let nanos: f64 = tasks
                .flatten()
                .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
                .filter_map(|text| text.split_whitespace().next()?.parse::<f64>().ok())
                .sum();
            (daemon.to_owned(), nanos / 1e9)
        })
        .collect()
}
