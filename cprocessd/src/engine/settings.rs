//! What the configuration says about judging, resolved per address: the most specific pattern wins.

use super::dependency::Dependencies;
use super::ladder::Ladder;
use super::rule::Rule;
use super::window::Window;
use common::address::{Address, CheckAddress, Pattern};
use common::message::Kind;
use common::severity::Severity;
use serde::Deserialize;
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
    /// More changes than this within `flap_window` are flapping.
    pub flap_changes: usize,
    /// In the observer's time.
    pub flap_window: Duration,
    /// Flapping is over when nothing has changed for this long, in the observer's time.
    pub flap_calm: Duration,
    /// How many of several observers make a check down.
    pub agree: Agree,
    /// A host whose clock differs from ours by more than this is told of.
    pub clock_skew: Duration,
}

/// How many of the observers of one check must see it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Agree {
    /// One is enough.
    Any,
    /// More than half.
    Majority,
    /// All.
    All,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            confirm: 1,
            host_down_after: Duration::from_secs(10),
            stop_grace: Duration::from_mins(5),
            blip_quiet: Duration::from_mins(10),
            forget_discovered_after: Duration::from_hours(24),
            flap_changes: 5,
            flap_window: Duration::from_mins(10),
            flap_calm: Duration::from_mins(5),
            agree: Agree::Any,
            clock_skew: Duration::from_secs(30),
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
    pub flap_changes: Option<usize>,
    pub flap_window: Option<Duration>,
    pub flap_calm: Option<Duration>,
    pub agree: Option<Agree>,
    pub clock_skew: Option<Duration>,
}

impl Tuning {
    /// With what `partial` sets set.
    #[must_use]
    pub fn with(self, partial: PartialTuning) -> Self {
        Self {
            confirm: partial.confirm.unwrap_or(self.confirm),
            host_down_after: partial.host_down_after.unwrap_or(self.host_down_after),
            stop_grace: partial.stop_grace.unwrap_or(self.stop_grace),
            blip_quiet: partial.blip_quiet.unwrap_or(self.blip_quiet),
            forget_discovered_after: partial.forget_discovered_after.unwrap_or(self.forget_discovered_after),
            flap_changes: partial.flap_changes.unwrap_or(self.flap_changes),
            flap_window: partial.flap_window.unwrap_or(self.flap_window),
            flap_calm: partial.flap_calm.unwrap_or(self.flap_calm),
            agree: partial.agree.unwrap_or(self.agree),
            clock_skew: partial.clock_skew.unwrap_or(self.clock_skew),
        }
    }
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
        matching.into_iter().fold(self.defaults, |tuning, (_, partial)| tuning.with(*partial))
    }

    /// How bad an event of this kind is at this address: `default`, unless a class says otherwise. One that names the
    /// kind goes before one that does not, then the more specific pattern.
    pub fn classify(&self, kind: Kind, address: &Address, default: Severity) -> Severity {
        let opens = matches!(kind, Kind::Down | Kind::Alarm | Kind::Absent | Kind::Blip | Kind::Flapping);
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
