//! CPU for each value, and values a second, flat out.

use crate::Table;
use crate::feed::Fleet;
use crate::judge::{Disk, Judge, own_cpu};
use crate::rules::one_of_a_thousand;
use std::time::Instant;
use tests::table::{Target, row};

/// What one flat-out run gives.
pub(crate) struct Flat {
    /// CPU seconds of cprocessd for a million values.
    pub(crate) cpu: f64,
    pub(crate) per_s: f64,
    /// Cores that cprocessd and the generator used.
    pub(crate) cores: f64,
    pub(crate) generator: f64,
}

/// Sends at least `values` of a fleet that is known already.
pub(crate) fn flat_out(judge: &mut Judge, fleet: &Fleet, values: usize) -> Flat {
    let rounds = values.div_ceil(fleet.all_series());
    let (cpu, own, began) = (judge.cpu(), own_cpu(), Instant::now());
    let mut date = None;
    for _ in 0..rounds {
        date = Some(fleet.round(&judge.feed));
    }
    judge.settle();
    let (cpu, own, took) = (judge.cpu() - cpu, own_cpu() - own, began.elapsed().as_secs_f64());
    // Of many hosts a part, since each is a question.
    let every = (fleet.hosts / 100).max(1);
    judge.has_all((0..fleet.hosts).step_by(every), fleet.series, date.expect("a round"));
    let sent = (rounds * fleet.all_series()) as f64;
    Flat { cpu: cpu / sent * 1e6, per_s: sent / took, cores: cpu / took, generator: own / took }
}

pub(crate) fn measure(table: &Table) {
    fleet(table, &Fleet::new(50, 10), 5_000_000, Target::AtMost(0.5), Target::None);
    fleet(table, &Fleet::ungrouped(50), 5_000_000, Target::AtMost(0.5), Target::None);
    let scattered = Fleet::scattered(50);
    let [cpu] = table.medians(|| {
        let mut judge = Judge::start(&one_of_a_thousand(), Disk::Real);
        scattered.round(&judge.feed);
        judge.settle();
        [flat_out(&mut judge, &scattered, 2_000_000).cpu]
    });
    row("the same, but ten of each thing: CPU", cpu, "s / million values", Target::AtMost(0.5));
}

pub(crate) fn measure_million(table: &Table) {
    fleet(table, &Fleet::new(10_000, 10), 10_000_000, Target::None, Target::AtLeast(1_000_000.0));
    fleet(table, &Fleet::ungrouped(10_000), 10_000_000, Target::None, Target::AtLeast(1_000_000.0));
}

fn fleet(table: &Table, fleet: &Fleet, values: usize, asked_cpu: Target, asked_rate: Target) {
    let series = fleet.all_series();
    let mut judge = Judge::start(&one_of_a_thousand(), Disk::Real);
    let (cpu, began) = (judge.cpu(), Instant::now());
    fleet.round(&judge.feed);
    judge.settle();
    let first = (judge.cpu() - cpu) / series as f64 * 1e6;
    let took = began.elapsed().as_secs_f64();
    let [cpu, per_s, cores, generator] = table.medians(|| {
        let flat = flat_out(&mut judge, fleet, values);
        [flat.cpu, flat.per_s, flat.cores, flat.generator]
    });
    let what = format!("{series} series, {} in a sample, 1000 rules, one matches each", fleet.grouped);
    row(format!("{what}: CPU"), cpu, "s / million values", asked_cpu);
    row(format!("{what}: flat out"), per_s, "values / s", asked_rate);
    row(format!("{what}: cprocessd"), cores, "cores", Target::None);
    row(format!("{what}: generator"), generator, "cores", Target::None);
    row(format!("{what}: first sight, CPU"), first, "µs / series", Target::None);
    row(format!("{what}: first sight"), took, "s", Target::None);
}
