//! What rules cost: those that match, those that do not, and how little hosts matter.

use crate::Table;
use crate::feed::{ATTRIBUTES, Fleet};
use crate::judge::{Disk, Judge};
use crate::throughput::flat_out;
use std::fmt::Write;
use tests::table::{Target, row};

const VALUES: usize = 5_000_000;

/// A thousand rules for hosts of a hundred series, of which one looks at each series: a tenth of the hosts, one number.
pub(crate) fn one_of_a_thousand() -> String {
    let mut rules = String::new();
    for digit in 0..10 {
        for thing in 0..10 {
            for attribute in ATTRIBUTES {
                let pattern = format!("h*{digit}!app.pool{thing}:*.{attribute}");
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

/// One rule that looks at every series.
fn one(condition: &str) -> String {
    format!("[[alarm]]\nname = 'one'\nrule = '{condition} WARN'\n")
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
    row("no rules, 5000 series: CPU", none, "µs / value", Target::None);
    let each = cost(&all_match(1), &small);
    row("1 rule for each: more than none", each - none, "µs / (value, rule)", Target::AtMost(0.05));
    let ten = cost(&all_match(10), &small);
    row("10 rules for each: more than none, per rule", (ten - none) / 10.0, "µs / (value, rule)", Target::AtMost(0.05));
    for (what, condition) in [
        ("with for", "h*!app.*:* > 1000000 for 5m"),
        ("of a rate", "rate(h*!app.*:*) > 1000000"),
        ("with a prediction", "h*!app.*:* > 1000000 within 24h"),
        ("with its alarm open", "h*!app.*:* > -1"),
    ] {
        let more = cost(&one(condition), &small) - none;
        row(format!("1 rule {what} for each: more than none"), more, "µs / (value, rule)", Target::AtMost(0.05));
    }
    let thousand = cost(&none_matches(1000), &small);
    row("1000 rules for none: more than none", thousand - none, "µs / value", Target::AtMost(0.01));
    for (hosts, things) in [(50, 100), (5000, 1)] {
        let fleet = Fleet::new(hosts, things);
        let what = format!("{} series of {hosts} hosts, {} in a message: CPU", fleet.all_series(), fleet.series);
        row(what, cost("", &fleet), "µs / value", Target::None);
    }
}
