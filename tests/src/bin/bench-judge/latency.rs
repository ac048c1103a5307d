//! From a number on the feed's socket to its event on the stream's, while others come in.

use crate::feed::{Fleet, Pace, probe};
use crate::judge::{Disk, Judge, PATIENCE};
use crate::rules::one_of_a_thousand;
use crate::{Table, quantile};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tests::table::{Target, row};

const VALUES_PER_S: usize = 200_000;
const ALARMS: usize = 1000;
/// Between two of them, not in step with anything.
const EVERY: Duration = Duration::from_micros(10_700);

pub(crate) fn measure(table: &Table) {
    for (disk, state) in [(Disk::Real, "state on disk"), (Disk::Memory, "state in memory")] {
        let [p50, p99, worst, cpu] = table.medians(|| run(disk));
        let what = format!("number to event under 200000 values/s, {state}");
        row(format!("{what}: p50"), p50 * 1e3, "ms", Target::None);
        row(format!("{what}: p99"), p99 * 1e3, "ms", Target::Below(10.0));
        row(format!("{what}: worst"), worst * 1e3, "ms", Target::None);
        row(format!("{what}: cprocessd"), cpu, "cores", Target::None);
    }
}

fn run(disk: Disk) -> [f64; 4] {
    let fleet = Fleet::new(50, 10);
    let mut judge = Judge::start(&one_of_a_thousand(), disk);
    for alarm in 0..ALARMS {
        judge.feed.probe(&format!("alarm{alarm}"), 0.0);
    }
    fleet.round(&judge.feed);
    judge.settle();
    let mut pace = Pace::new(&fleet, VALUES_PER_S);
    let (cpu, began) = (judge.cpu(), Instant::now());
    let mut sent: HashMap<String, Instant> = HashMap::new();
    for alarm in 0..ALARMS {
        let due = began + EVERY * u32::try_from(alarm).expect("few");
        while Instant::now() < due {
            pace.step(&judge.feed);
        }
        let unit = format!("alarm{alarm}");
        let message = probe(&unit, 1.0);
        sent.insert(unit, Instant::now());
        judge.feed.write(&message);
    }
    let (cpu, elapsed) = (judge.cpu() - cpu, began.elapsed().as_secs_f64());
    let mut took = Vec::new();
    while took.len() < ALARMS {
        let told = judge.next(PATIENCE).expect("every alarm is told");
        if let Some(sent) = told.of_probe().and_then(|unit| sent.remove(&unit)) {
            took.push(told.at.saturating_duration_since(sent).as_secs_f64());
        }
    }
    assert!(pace.sent as f64 > 0.95 * VALUES_PER_S as f64 * elapsed, "only {} values in {elapsed} s", pace.sent);
    [quantile(&mut took, 0.5), quantile(&mut took, 0.99), quantile(&mut took, 1.0), cpu / elapsed]
}
