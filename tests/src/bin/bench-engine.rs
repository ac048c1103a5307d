//! Times the inside of cprocessd without a socket: reading a value, taking it, looking at it for a rule, and what a series
//! takes in memory. Prints a table; medians of several runs, in CPU time, so that a busy machine disturbs them little.
//! `bench-engine [SERIES]`, 10,000,000 for the memory if not said.

use common::message::{Sample, Samples, Values, encode};
use common::time::UnixMillis;
use cprocessd::engine::rule::Rule;
use cprocessd::engine::settings::Settings;
use cprocessd::engine::{Engine, Now};
use std::time::Duration;
use tests::table::{self, Target};

/// As many numbers as a host has, and how they are grouped.
const GROUPS_PER_HOST: usize = 20;
const ATTRIBUTES: [&str; 5] = ["total", "used", "free", "used_percentage", "inodes_used_percentage"];
const PER_HOST: usize = GROUPS_PER_HOST * ATTRIBUTES.len();
const RUNS: usize = 7;
/// Values of one run at least, so that it lasts.
const VALUES_PER_RUN: usize = 2_000_000;

fn main() {
    table::head();
    // First, while nothing was ever given back that could be used again.
    memory(5_000);
    memory(std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000_000));
    row("reading a value, 100 a message", decoding(PER_HOST), "ns");
    row("reading a value, one a message", decoding(1), "ns");
    for series in [5_000, 100_000, 1_000_000] {
        let batches = batches(series / PER_HOST);
        let plain = taking(&batches, &[]);
        row(&format!("taking a value, {series} series, no rules"), plain, "ns");
        let with = taking(&batches, &each_by_one("> 1t"));
        row("  the same with 1,000 rules, one for each series: more", with - plain, "ns");
        let others = taking(&batches, &none());
        row("  with 1,000 rules of other hosts and services: more", others - plain, "ns");
    }
    let small = batches(5_000 / PER_HOST);
    let plain = taking(&small, &[]);
    let four: Vec<Rule> = (0..4).flat_map(|n| rules(&format!("{n}"), "> 1t")).collect();
    row("a (series, rule), four for each of 5,000 series", (taking(&small, &four) - plain) / 4.0, "ns");
    row("a rate(), 5,000 series", taking(&small, &rate()) - plain, "ns");
    row("a prediction, 5,000 series", taking(&small, &each_by_one("> 1t within 24h")) - plain, "ns");
}

fn row(what: &str, figure: f64, unit: &str) {
    table::row(what, figure, unit, Target::None);
}

/// One message a host, as a ccollectd sends it each second.
fn batches(hosts: usize) -> Vec<Vec<u8>> {
    (0..hosts).map(|host| batch(host, GROUPS_PER_HOST, &ATTRIBUTES)).collect()
}

fn batch(host: usize, groups: usize, attributes: &[&str]) -> Vec<u8> {
    let parsed = "it is one";
    let samples: Vec<_> = (0..groups)
        .map(|group| Sample {
            host: format!("host-{host:06}").parse().expect(parsed),
            from: format!("host-{host:06}").parse().expect(parsed),
            service: "machine".parse().expect(parsed),
            time: UnixMillis(1_795_236_306_001),
            interval_ms: 1000,
            resource: "disk".parse().expect(parsed),
            unit: format!("/srv/{group:02}").parse().expect(parsed),
            values: Values(attributes.iter().map(|name| (name.parse().expect(parsed), 42.5 + group as f64)).collect()),
            backfill: false,
        })
        .collect();
    encode(&samples)
}

/// 1,000 rules of which one looks at each series.
fn each_by_one(condition: &str) -> Vec<Rule> {
    rules("", condition)
}

fn rules(name: &str, condition: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (digit, group) in (0..10).flat_map(|digit| (0..GROUPS_PER_HOST).map(move |group| (digit, group))) {
        for attribute in ATTRIBUTES {
            let text = format!("*{digit}!machine.disk:/srv/{group:02}.{attribute} {condition} WARN");
            rules.push(Rule::parse(&format!("{name} {digit} {group} {attribute}"), &text).expect("a rule"));
        }
    }
    rules
}

fn rate() -> Vec<Rule> {
    vec![Rule::parse("rate", "rate(*!machine.disk) > 1t WARN").expect("a rule")]
}

/// 1,000 rules that look elsewhere.
fn none() -> Vec<Rule> {
    let text = |n| match n % 2 {
        0 => format!("other-{n}!machine.disk > 1 WARN"),
        _ => format!("*!service{n} > 1 WARN"),
    };
    (0..1000).map(|n| Rule::parse(&format!("{n}"), &text(n)).expect("a rule")).collect()
}

fn engine(rules: &[Rule]) -> Engine {
    let own = "monitor!cprocessd:".parse().expect("an address");
    Engine::new(Settings { rules: rules.to_vec(), ..Settings::new(own) }, &[], Vec::new())
}

fn now(beat: &mut u64) -> Now {
    *beat += 1;
    Now { monotonic: Duration::from_micros(*beat), wall: UnixMillis(1_795_236_306_001) }
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    figures.sort_by(f64::total_cmp);
    figures[RUNS / 2]
}

fn decoding(values: usize) -> f64 {
    let batch = batch(1, values.div_ceil(ATTRIBUTES.len()), &ATTRIBUTES[..ATTRIBUTES.len().min(values)]);
    let rounds = VALUES_PER_RUN / values;
    median(|| {
        let began = cpu_nanos();
        let read: usize = (0..rounds)
            .map(|_| {
                Samples::decode(std::hint::black_box(&batch))
                    .expect("a batch")
                    .iter()
                    .map(|s| s.values.len())
                    .sum::<usize>()
            })
            .sum();
        assert_eq!(read, values * rounds);
        (cpu_nanos() - began) as f64 / read as f64
    })
}

/// Nanoseconds for each value, without reading it.
fn taking(batches: &[Vec<u8>], rules: &[Rule]) -> f64 {
    let mut engine = engine(rules);
    let decoded: Vec<_> = batches.iter().map(|batch| Samples::decode(batch).expect("a batch")).collect();
    let mut beat = 0;
    for samples in &decoded {
        engine.take(now(&mut beat), samples);
    }
    let rounds = VALUES_PER_RUN.div_ceil(batches.len() * PER_HOST);
    median(|| {
        let began = cpu_nanos();
        for samples in (0..rounds).flat_map(|_| &decoded) {
            engine.take(now(&mut beat), samples);
        }
        (cpu_nanos() - began) as f64 / (rounds * batches.len() * PER_HOST) as f64
    })
}

/// What the numbers take in memory, with one rule for each.
fn memory(series: usize) {
    let (before, rules) = (resident_bytes(), each_by_one("> 1t"));
    let mut engine = engine(&rules);
    let mut beat = 0;
    let mut took = 0;
    // Measured over many, as the clock is coarse.
    let hosts: Vec<usize> = (0..series / PER_HOST).collect();
    for hosts in hosts.chunks(1000) {
        let batches: Vec<_> = hosts.iter().map(|host| batch(*host, GROUPS_PER_HOST, &ATTRIBUTES)).collect();
        let began = cpu_nanos();
        for batch in &batches {
            engine.take(now(&mut beat), &Samples::decode(batch).expect("a batch"));
        }
        took += cpu_nanos() - began;
    }
    let bytes = resident_bytes().saturating_sub(before) as f64;
    row(&format!("memory of a series, {series} series, a rule for each"), bytes / series as f64, "bytes");
    row("  making one, sample included", took as f64 / series as f64, "ns");
}

/// What this process has run on a CPU.
fn cpu_nanos() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first of its numbers")
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second of its numbers");
    pages * 4096
}
