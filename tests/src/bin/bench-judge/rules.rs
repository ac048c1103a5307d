//! What rules cost: those that match, those that do not, and how little hosts matter.

use crate::feed::{ATTRIBUTES, Fleet};
use crate::judge::{Disk, Judge};
use crate::throughput::flat_out;
use crate::{Table, row};
use std::fmt::Write;

const VALUES: usize = 5_000_000;

/// A thousand rules for hosts of a hundred series, of which one looks at each series: a tenth of the hosts, one number.
pub(crate) fn one_of_a_thousand() -> String {
    let mut rules = String::new();
    for digit in 0..10 {
        for thing in 0..10 {
            for attribute in ATTRIBUTES {
                let pattern = format!("h*{digit}!app.pool{thing}:/data/{thing}.{attribute}");
                rule(&mut rules, &format!("{attribute} {thing} {digit}"), &pattern);
            }
        }
    }
    rules
}

/// Rules that look at every series.
fn all_match(n: usize) -> String {
    let mut rules = String::new();
    for i in 0..n {
        rule(&mut rules, &format!("rule {i}"), "h*!app.*:*");
    }
    rules
}

/// Rules of which each could match, but for the attribute.
fn none_matches(n: usize) -> String {
    let mut rules = String::new();
    for i in 0..n {
        rule(&mut rules, &format!("rule {i}"), &format!("h*!app.pool*:*.none{i}"));
    }
    rules
}

fn rule(rules: &mut String, name: &str, pattern: &str) {
    writeln!(rules, "[[alarm]]\nname = '{name}'\nrule = '{pattern} > 1000000 WARN'").expect("into memory");
}

pub(crate) fn measure(table: &Table) {
    let cost = |rules: &str, fleet: &Fleet| {
        let [cpu] = table.medians(|| {
            let mut judge = Judge::start(rules, Disk::Real);
            fleet.round(&judge.feed);
            judge.settle();
            [flat_out(&mut judge, fleet, VALUES).cpu]
        });
        cpu
    };
    let small = Fleet::new(50, 10);
    let none = cost("", &small);
    row("no rules, 5000 series: CPU", "", none, "µs / value");
    let one = cost(&all_match(1), &small);
    row("1 rule for each: more than none", "<= 0.05", one - none, "µs / value");
    let ten = cost(&all_match(10), &small);
    row("10 rules for each: more than none, per rule", "<= 0.05", (ten - none) / 10.0, "µs / (value, rule)");
    let thousand = cost(&none_matches(1000), &small);
    row("1000 rules for none: more than none", "0", thousand - none, "µs / value");
    for (hosts, things) in [(50, 100), (5000, 1)] {
        let fleet = Fleet::new(hosts, things);
        let what = format!("{} series of {hosts} hosts, {} in a message: CPU", fleet.all_series(), fleet.series);
        row(what, "", cost("", &fleet), "µs / value");
    }
}
