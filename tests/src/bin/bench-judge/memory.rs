//! What series take in memory, each with one rule that looks at it. All hosts have the same series, as hosts of one kind do.

use crate::Table;
use crate::feed::Fleet;
use crate::judge::{Disk, Judge};
use tests::table::{Target, row};

const RULE: &str = "[[alarm]]\nname = 'all'\nrule = 'h*!app.*:* > 1000000 WARN'\n";

pub(crate) fn measure(table: &Table) {
    fleet(table, &Fleet::new(50, 10), Target::Below(40.0), Target::None);
    fleet(table, &Fleet::new(10_000, 10), Target::None, Target::AtMost(120.0));
}

pub(crate) fn measure_huge(table: &Table) {
    for fleet in [Fleet::new(100_000, 10), Fleet::ungrouped(100_000)] {
        self::fleet(table, &fleet, Target::None, Target::AtMost(120.0));
    }
}

fn fleet(table: &Table, fleet: &Fleet, asked_rss: Target, asked_each: Target) {
    let (hosts, series) = (fleet.hosts, fleet.all_series());
    let [rss, peak, each] = table.medians(|| {
        let mut judge = Judge::start(RULE, Disk::Real);
        let empty = judge.memory("VmRSS:");
        fleet.round(&judge.feed);
        let date = fleet.round(&judge.feed);
        judge.settle();
        let (rss, peak) = (judge.memory("VmRSS:"), judge.memory("VmHWM:"));
        judge.has_all((0..hosts).step_by((hosts / 100).max(1)), fleet.series, date);
        [rss, peak, (rss - empty) * f64::from(1 << 20) / series as f64]
    });
    let what = format!("{series} series, {} in a sample", fleet.grouped);
    row(format!("{what}: RSS"), rss, "MiB", asked_rss);
    row(format!("{what}: peak RSS"), peak, "MiB", Target::None);
    row(format!("{what}: more than none"), each, "bytes / series", asked_each);
}
