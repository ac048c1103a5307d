//! What series take in memory, each with one rule that looks at it.

use crate::Table;
use crate::feed::Fleet;
use crate::judge::{Disk, Judge};

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
        for _ in 0..2 {
            fleet.round(&judge.feed);
            judge.settle();
        }
        let rss = judge.memory("VmRSS:");
        [rss, judge.memory("VmHWM:"), (rss - empty) * f64::from(1 << 20) / series as f64]
    });
    table.row(format!("{series} series: RSS"), if hosts == 50 { "< 40" } else { "" }, rss, "MiB");
    table.row(format!("{series} series: peak RSS"), "", peak, "MiB");
    table.row(format!("{series} series: more than none"), asked, each, "bytes / series");
}
