//! What the configuration says about judging, resolved per address: the most specific pattern wins.

use super::dependency::Dependencies;
use super::ladder::Ladder;
use super::rule::Rule;
use super::window::Window;
use common::address::{Address, CheckAddress, Pattern};
use common::message::Kind;
use common::severity::Severity;
use std::time::Duration;

/// All that judging depends on beside its input.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where events about cprocessd itself are said.
    pub own: CheckAddress,
    /// The alarm rules; no two of one name.
    pub rules: Vec<Rule>,
    /// For every address, unless a pattern says otherwise.
    pub defaults: Tuning,
    /// What patterns set otherwise.
    pub tunings: Vec<(Pattern, PartialTuning)>,
    /// What is worse, or less bad, than usual.
    pub classes: Vec<Class>,
    /// What is said again about an outage that lasts.
    pub ladder: Ladder,
    /// What cannot be reached because of what.
    pub dependencies: Dependencies,
    /// When what is not told; no two of one name.
    pub windows: Vec<Window>,
    /// Checks and numbers of one host beyond this are refused.
    pub max_addresses_per_host: usize,
}

/// The times and counts of DESIGN §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Bad observations that make a down.
    pub confirm: u32,
    /// A host without a sign of life for this long is down.
    pub host_down_after: Duration,
    /// After a goodbye, this long.
    pub stop_grace: Duration,
    /// After a blip, further ones are not told until the check was clean for this long.
    pub blip_quiet: Duration,
    /// What nobody configured is forgotten after this long in silence.
    pub forget_discovered_after: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            confirm: 1,
            host_down_after: Duration::from_secs(10),
            stop_grace: Duration::from_mins(5),
            blip_quiet: Duration::from_mins(10),
            forget_discovered_after: Duration::from_hours(24),
        }
    }
}

/// The part of a [`Tuning`] that a pattern sets; the fields are documented there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are documented in Tuning")]
pub struct PartialTuning {
    pub confirm: Option<u32>,
    pub host_down_after: Option<Duration>,
    pub stop_grace: Option<Duration>,
    pub blip_quiet: Option<Duration>,
    pub forget_discovered_after: Option<Duration>,
}

/// A person's own idea of how bad something is.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Of what.
    pub pattern: Pattern,
    /// Only events of this kind; any that opens trouble if absent.
    pub kind: Option<Kind>,
    /// How bad it is.
    pub severity: Severity,
}

impl Settings {
    /// The defaults, without any rule. `own` is where events about cprocessd itself are said.
    pub fn new(own: CheckAddress) -> Self {
        Self {
            own,
            rules: Vec::new(),
            defaults: Tuning::default(),
            tunings: Vec::new(),
            classes: Vec::new(),
            ladder: Ladder::default(),
            dependencies: Dependencies::default(),
            windows: Vec::new(),
            max_addresses_per_host: 20_000,
        }
    }

    /// The tuning of one check: each value from the most specific pattern that sets it.
    pub fn tuning(&self, address: &CheckAddress) -> Tuning {
        let mut matching: Vec<_> = self.tunings.iter().filter(|(pattern, _)| pattern.matches_check(address)).collect();
        matching.sort_by_key(|(pattern, _)| pattern.specificity());
        let mut tuning = self.defaults;
        for (_, partial) in matching {
            tuning.confirm = partial.confirm.unwrap_or(tuning.confirm);
            tuning.host_down_after = partial.host_down_after.unwrap_or(tuning.host_down_after);
            tuning.stop_grace = partial.stop_grace.unwrap_or(tuning.stop_grace);
            tuning.blip_quiet = partial.blip_quiet.unwrap_or(tuning.blip_quiet);
            tuning.forget_discovered_after = partial.forget_discovered_after.unwrap_or(tuning.forget_discovered_after);
        }
        tuning
    }

    /// How bad an event of this kind is at this address: `default`, unless a class says otherwise. One that names the
    /// kind goes before one that does not, then the more specific pattern.
    pub fn classify(&self, kind: Kind, address: &Address, default: Severity) -> Severity {
        let opens = matches!(kind, Kind::Down | Kind::Alarm | Kind::Absent | Kind::Blip);
        self.classes
            .iter()
            .filter(|class| class.kind.map_or(opens, |wanted| wanted == kind) && class.pattern.matches(address))
            .max_by_key(|class| (class.kind.is_some(), class.pattern.specificity()))
            .map_or(default, |class| class.severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    fn check(text: &str) -> CheckAddress {
        text.parse().expect("an address")
    }

    fn plain() -> Settings {
        Settings::new(check("monitor!cprocessd:"))
    }

    #[test]
    fn the_most_specific_pattern_wins_value_by_value() {
        let confirm = |n| PartialTuning { confirm: Some(n), ..PartialTuning::default() };
        let settings = Settings {
            tunings: vec![
                (pattern("web1!port"), confirm(3)),
                (pattern("*"), PartialTuning { blip_quiet: Some(Duration::ZERO), ..confirm(2) }),
            ],
            ..plain()
        };
        let tuning = settings.tuning(&check("web1!port:www"));
        assert_eq!((tuning.confirm, tuning.blip_quiet), (3, Duration::ZERO));
        assert_eq!(settings.tuning(&check("web2!port:www")).confirm, 2);
    }

    #[test]
    fn a_class_changes_what_opens_trouble_but_not_the_recovery() {
        let settings = Settings {
            classes: vec![Class { pattern: pattern("db*"), kind: None, severity: Severity::Crit }],
            ..plain()
        };
        let address = check("db1!port:sql").into();
        assert_eq!(settings.classify(Kind::Down, &address, Severity::Err), Severity::Crit);
        assert_eq!(settings.classify(Kind::Up, &address, Severity::Info), Severity::Info);
        assert_eq!(settings.classify(Kind::Down, &check("web1!port:www").into(), Severity::Err), Severity::Err);
    }
}
