//! What judging costs: a real cprocessd on its own sockets, fed by a modelled ccollectd that costs next to nothing.
//!
//! `bench-judge [--runs N] [MEASUREMENT...]`, by default all, three runs each; `bench-judge --push RUN VALUES` is the load
//! alone, for `tests/python/contender.py`. It prints a table with what is asked of each figure, and fails for none of them: it
//! ends badly only where something was lost, since then nothing was measured. CPU is the daemon's, in nanoseconds from
//! the kernel's `schedstat`: what else the machine does delays it, but hardly counts in it. What it did is said by the load.
//! A number counts as judged when an event about a later one is on the stream; afterwards the last values are compared.

mod feed;
mod journal;
mod judge;
mod latency;
mod memory;
mod push;
mod questions;
mod rules;
mod start;
mod storm;
mod throughput;

use std::path::Path;
use tests::table;

/// Measures and prints.
type Measurement = fn(&Table);

/// The measurements by name.
const MEASUREMENTS: [(&str, Measurement); 10] = [
    ("throughput", throughput::measure),
    ("million", throughput::measure_million),
    ("rules", rules::measure),
    ("memory", memory::measure),
    ("huge", memory::measure_huge),
    ("latency", latency::measure),
    ("storm", storm::measure),
    ("questions", questions::measure),
    ("start", start::measure),
    ("journal", journal::measure),
];

/// How figures are taken.
pub(crate) struct Table {
    /// How often each figure is taken; the median is printed.
    pub(crate) runs: usize,
}

impl Table {
    /// The medians of several runs, one for each of the figures that a run gives.
    pub(crate) fn medians<const N: usize>(&self, mut run: impl FnMut() -> [f64; N]) -> [f64; N] {
        let runs: Vec<[f64; N]> = (0..self.runs).map(|_| run()).collect();
        std::array::from_fn(|i| median(runs.iter().map(|run| run[i]).collect()))
    }
}

fn main() {
    let mut runs = 3;
    let mut wanted: Vec<String> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--push" => {
                let run = arguments.next().expect("--push takes the folder of the sockets");
                let values = arguments.next().and_then(|n| n.parse().ok()).expect("and a number");
                return push::push(Path::new(&run), values);
            }
            "--runs" => runs = arguments.next().and_then(|n| n.parse().ok()).expect("--runs takes a number"),
            name => wanted.push(name.to_owned()),
        }
    }
    if let Some(unknown) = wanted.iter().find(|name| MEASUREMENTS.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        panic!("there is no measurement {unknown:?}, only {}", known.join(", "));
    }
    let table = Table { runs };
    table::head();
    for (name, measure) in MEASUREMENTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure(&table);
        }
    }
}

/// The value in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

/// The value that this share of them does not exceed.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1).expect("something was measured");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
    let at = (last as f64 * share).round() as usize;
    values[at]
}
