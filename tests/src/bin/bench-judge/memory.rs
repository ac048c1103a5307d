//! What series take in memory, each with one rule that looks at it. All hosts have the same series, as hosts of one kind do.

use crate::feed::Fleet;
use crate::judge::{Disk, Judge};
use crate::{Table, row};

const RULE: &str = "[[alarm]]\nname = 'all'\nrule = 'h*!app.*:* > 1000000 WARN'\n";

pub(crate) fn measure(table: &Table) {
    fleet(table, 50, "");
    fleet(table, 10_000, "<= 120");
}

pub(crate) fn measure_huge(table: &Table) {
    fleet(table, 100_000, "<= 120");
}

fn fleet(table: &Table, hosts: usize, asked: &str) {
    let fleet = Fleet::new(hosts, 10);
    let series = fleet.all_series();
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
    row(format!("{series} series: RSS"), if hosts == 50 { "< 40" } else { "" }, rss, "MiB");
    row(format!("{series} series: peak RSS"), "", peak, "MiB");
    row(format!("{series} series: more than none"), asked, each, "bytes / series");
}
