//! What the rules make of numbers, and of the silence of numbers and checks.

use super::incident::{Incidents, Key, Seen};
use super::numbers::{Judged, Reading};
use super::rule::{Condition, Limits, Operator, Rule};
use super::{Engine, Saved};
use common::address::{Address, CheckAddress, ValueAddress};
use common::message::{Kind, State};
use common::time::{UnixMillis, for_people};
use std::time::Duration;

/// The stages of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Fine,
    /// Beyond the limit, but not for long enough.
    Pending(UnixMillis),
    Open,
}

/// An `absent` rule's view of one check.
#[derive(Clone, Copy, Debug)]
pub(super) struct AbsenceWatch {
    pub(super) rule: usize,
    lasting: Duration,
    pub(super) open: bool,
}

/// An `absent` rule that names one address: it may be broken before that address was ever seen.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    rule: usize,
    address: Address,
    lasting: Duration,
    from: Duration,
}

pub(super) fn expected(rules: &[Rule], from: Duration) -> Vec<Expected> {
    let absent = rules.iter().enumerate().filter_map(|(rule, r)| match r.condition {
        Condition::Absent { lasting } => Some(Expected { rule, address: r.pattern.literal()?, lasting, from }),
        _ => None,
    });
    absent.collect()
}

pub(super) fn absence_watches(rules: &[Rule], address: &CheckAddress, incidents: &Incidents) -> Vec<AbsenceWatch> {
    let watches = rules.iter().enumerate().filter_map(|(rule, r)| match r.condition {
        Condition::Absent { lasting } if r.pattern.matches_check(address) => {
            Some(AbsenceWatch { rule, lasting, open: incidents.contains(&address.clone().into(), &r.name) })
        }
        _ => None,
    });
    watches.collect()
}

/// What a number did to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Pending(UnixMillis),
    NoLonger,
    Opened { since: UnixMillis },
    Solved,
}

/// The next phase of a rule's view of a number, and what is to be done about it.
pub(super) fn judge(phase: Phase, condition: &Condition, time: UnixMillis, reading: Reading) -> Option<(Phase, Turn)> {
    let Some(Limits { operator, limit, clear, lasting }) = condition.limits() else {
        // Heard of, so not absent.
        return (phase == Phase::Open).then_some((Phase::Fine, Turn::Solved));
    };
    let beyond = operator.holds(reading.sure, limit);
    match phase {
        Phase::Fine if beyond && lasting.is_zero() => Some((Phase::Open, Turn::Opened { since: time })),
        Phase::Fine if beyond => Some((Phase::Pending(time), Turn::Pending(time))),
        Phase::Pending(since) if beyond && time.since(since) >= lasting => Some((Phase::Open, Turn::Opened { since })),
        // Its clock was put back: what has passed is not known, so the wait begins anew.
        Phase::Pending(since) if beyond && time < since => Some((Phase::Pending(time), Turn::Pending(time))),
        Phase::Pending(_) if !beyond => Some((Phase::Fine, Turn::NoLonger)),
        Phase::Open if !operator.holds(reading.likely, clear) => Some((Phase::Fine, Turn::Solved)),
        Phase::Fine | Phase::Pending(_) | Phase::Open => None,
    }
}

impl Engine {
    /// Does what follows from what was judged.
    pub(super) fn turn(&mut self, address: Address, time: UnixMillis, judged: &Judged) {
        let Rule { name, condition, severity, .. } = self.settings.rules[judged.rule].clone();
        let key = Key { address, rule: name };
        match judged.turn {
            Turn::Pending(since) => self.save_pending(key, Some(since)),
            Turn::NoLonger => self.save_pending(key, None),
            Turn::Opened { since } => {
                self.save_pending(key.clone(), None);
                let text = beyond_text(&condition, judged);
                let seen = Seen { time, text, value: Some(shown(&condition, judged)), state: State::Open };
                self.open(key, Kind::Alarm, severity, since, seen);
            }
            Turn::Solved => {
                let text = solved_text(&condition, judged);
                let seen = Seen { time, text, value: Some(shown(&condition, judged)), state: State::Resolved };
                self.close(&key, Kind::Solved, seen);
            }
        }
    }

    pub(super) fn save_pending(&mut self, key: Key, since: Option<UnixMillis>) {
        let before = match since {
            Some(since) => self.pending.insert(key.clone(), since),
            None => self.pending.remove(&key),
        };
        if before != since {
            self.save(Saved::Pending(key, since));
        }
    }

    /// A check was heard of: its `absent` rules are content.
    pub(super) fn end_absence(&mut self, address: &CheckAddress, seen: &Seen) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        let mut over = Vec::new();
        for watch in entry.watches.iter_mut().filter(|watch| watch.open) {
            watch.open = false;
            over.push(watch.rule);
        }
        for rule in over {
            let key = Key { address: address.clone().into(), rule: self.settings.rules[rule].name.clone() };
            let seen = Seen { text: "reported again".to_owned(), state: State::Resolved, ..seen.clone() };
            self.close(&key, Kind::Solved, seen);
        }
    }

    /// An address was seen for the first time: a rule that named it otherwise, without its comment, is content.
    pub(super) fn end_expectation(&mut self, address: &Address, seen: &Seen) {
        let met = |rule: &Rule| match rule.condition {
            Condition::Absent { .. } if rule.pattern.matches(address) => {
                let expected = rule.pattern.literal().filter(|expected| expected != address)?;
                Some(Key { address: expected, rule: rule.name.clone() })
            }
            _ => None,
        };
        let met: Vec<_> = self.settings.rules.iter().filter_map(met).collect();
        for key in met {
            let seen = Seen { text: "reported".to_owned(), state: State::Resolved, ..seen.clone() };
            self.close(&key, Kind::Solved, seen);
        }
    }

    pub(super) fn scan_check_absence(&mut self) {
        let attention = self.attention;
        let mut absent = Vec::new();
        for (address, entry) in &mut self.checks {
            let silence = attention.saturating_sub(entry.heard_at);
            for watch in entry.watches.iter_mut().filter(|watch| !watch.open && silence > watch.lasting) {
                watch.open = true;
                absent.push((watch.rule, Address::from(address.clone()), watch.lasting));
            }
        }
        for (rule, address, lasting) in absent {
            self.absent(rule, address, lasting);
        }
    }

    /// What a rule expects by name and was never seen.
    pub(super) fn scan_expected(&mut self) {
        let overdue = |e: &Expected| self.attention.saturating_sub(e.from) > e.lasting;
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.expected).into_iter().partition(overdue);
        self.expected = waiting;
        for Expected { rule, address, lasting, .. } in due {
            // As the rule would match it: with a comment that the rule leaves out, or under a unit with a dot.
            let pattern = &self.settings.rules[rule].pattern;
            let has_number = |address: &ValueAddress| {
                let mut groups = self.numbers.of_host(&address.host);
                groups.any(|group| group.numbers().any(|(attribute, _)| group.matches(pattern, attribute)))
            };
            let seen = match &address {
                Address::Check(_) => self.checks.keys().any(|check| pattern.matches_check(check)),
                Address::Value(address) => has_number(address),
            };
            if !seen {
                self.absent(rule, address, lasting);
            }
        }
    }

    pub(super) fn absent(&mut self, rule: usize, address: Address, lasting: Duration) {
        let Rule { name, severity, .. } = &self.settings.rules[rule];
        let (key, severity) = (Key { address, rule: name.clone() }, *severity);
        let seen = Seen {
            time: self.wall,
            text: format!("not heard of for {}", for_people(lasting)),
            value: None,
            state: State::Open,
        };
        self.open(key, Kind::Absent, severity, self.wall.minus(lasting), seen);
    }
}

/// The number that crossed the limit: the rate, or the number itself.
fn shown(condition: &Condition, judged: &Judged) -> f64 {
    match condition {
        Condition::Rate { .. } => judged.reading.sure,
        Condition::Beyond { .. } | Condition::Within { .. } | Condition::Absent { .. } => judged.value,
    }
}

fn beyond_text(condition: &Condition, judged: &Judged) -> String {
    let Some(Limits { operator, limit, .. }) = condition.limits() else { return String::new() };
    let comparison = format!("{operator} {}", short(limit));
    let Some(outlook) = judged.reading.outlook else {
        let unit = if matches!(condition, Condition::Rate { .. }) { " per second" } else { "" };
        return format!("{}{unit} {comparison}", short(shown(condition, judged)));
    };
    // As it is said of a percentage.
    let full = operator == Operator::GreaterOrEqual && limit.to_bits() == 100.0_f64.to_bits();
    let event = if full { "full".to_owned() } else { comparison };
    match outlook.until {
        Some(until) if !until.is_zero() => {
            format!("{event} in about {} at {}", for_people(until), pace(outlook.slope, until))
        }
        Some(_) | None => format!("{event} already, at {}", short(judged.value)),
    }
}

fn solved_text(condition: &Condition, judged: &Judged) -> String {
    match condition {
        Condition::Beyond { .. } => format!("back at {}", short(judged.value)),
        Condition::Rate { .. } => format!("back at {} per second", short(judged.reading.likely)),
        Condition::Within { within, .. } => {
            let until = judged.reading.outlook.map_or(0.0, |outlook| outlook.slope);
            format!(
                "at {} and {}, no longer expected within {}",
                short(judged.value),
                pace(until, *within),
                for_people(*within)
            )
        }
        Condition::Absent { .. } => "reported again".to_owned(),
    }
}

/// A change over such a time, in the unit that people would take for it: `0.9 per hour`.
fn pace(per_second: f64, over: Duration) -> String {
    const HOUR: u64 = 3600;
    const LONG: u64 = 48 * HOUR;
    let (seconds, unit) = match over.as_secs() {
        0..HOUR => (60.0, "minute"),
        HOUR..LONG => (3600.0, "hour"),
        _ => (86_400.0, "day"),
    };
    format!("{} per {unit}", short(per_second * seconds))
}

/// A number for people: three digits after the point at most.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
