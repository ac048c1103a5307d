//! Which events a recipient is to hear of, and when.

use crate::address::{Address, Pattern};
use crate::config::{HumanDuration, check_range};
use crate::message::{Event, Kind};
use crate::notifier::quiet::Quiet;
use crate::severity::Severity;
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::time::Duration;

/// The bounds of `after`.
const AFTER: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(7 * 24));
/// Stretches of quiet of one recipient.
const MAX_QUIET: usize = 20;
/// What `kinds` may hold: what begins something, or stands alone.
const KINDS: [Kind; 11] = [
    Kind::Down,
    Kind::Up,
    Kind::Alarm,
    Kind::Absent,
    Kind::Blip,
    Kind::Flapping,
    Kind::Log,
    Kind::Started,
    Kind::Stopped,
    Kind::Ack,
    Kind::Order,
];

/// The choice of one recipient, channel or telephone.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// At least as bad as this. Compared with the worst an incident has been, so who hears of its beginning hears of its
    /// end.
    pub minimum: Severity,
    /// Only addresses that one of these matches; all of them if it is empty.
    pub only: Vec<Pattern>,
    /// But none that one of these matches.
    pub except: Vec<Pattern>,
    /// Only what begins with one of these, or is one; all of them if it is empty. Ends follow their beginnings.
    pub kinds: Vec<Kind>,
    /// Whether what is told to be open is told again after each step of the ladder that makes it no worse.
    pub reminders: bool,
    /// When what is not bad enough waits.
    pub quiet: Vec<Quiet>,
    /// Only what has been open for so long.
    pub after: Option<Duration>,
    /// And then only if nobody looks after it.
    pub unless_acked: bool,
}

/// Why somebody does not want an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unwanted<'a> {
    Less { top_severity: Severity, minimum: Severity },
    NotOnly,
    Except(&'a Pattern),
    Kind(Kind),
    Shorter(Duration),
}

impl fmt::Display for Unwanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Less { top_severity, minimum } => write!(f, "{top_severity} is less than severity = {minimum}"),
            Self::NotOnly => f.write_str("no pattern of only matches it"),
            Self::Except(pattern) => write!(f, "except holds {pattern}"),
            Self::Kind(kind) => write!(f, "kinds does not hold {kind}"),
            Self::Shorter(after) => write!(f, "only what lasts for {} is told", HumanDuration(*after)),
        }
    }
}

impl Selection {
    /// Everything that is at least as bad as `minimum`.
    pub fn at_least(minimum: Severity) -> Self {
        Self {
            minimum,
            only: Vec::new(),
            except: Vec::new(),
            kinds: Vec::new(),
            reminders: true,
            quiet: Vec::new(),
            after: None,
            unless_acked: false,
        }
    }

    /// Whether an event of this worst severity and address is selected.
    pub fn wants(&self, top_severity: Severity, address: &Address) -> bool {
        self.refuses_place(top_severity, address).is_none()
    }

    /// Why this event, which begins something or stands alone, is not selected.
    pub(crate) fn refuses(&self, event: &Event) -> Option<Unwanted<'_>> {
        let begins = !matches!(super::teller::Role::of(event), super::teller::Role::Once);
        let kind = match event.kind {
            Kind::Persistent | Kind::Revealed | Kind::Solved | Kind::Retired => {
                kind_of_rule(&event.rule, event.value.is_some())
            }
            kind => kind,
        };
        let selects_kind = self.kinds.is_empty() || self.kinds.contains(&kind) || kind == Kind::Watchdog;
        match self.after {
            Some(after) if !begins => Some(Unwanted::Shorter(after)),
            _ if !selects_kind => Some(Unwanted::Kind(kind)),
            _ => self.refuses_place(event.top_severity, &event.address),
        }
    }

    fn refuses_place(&self, top_severity: Severity, address: &Address) -> Option<Unwanted<'_>> {
        if top_severity < self.minimum {
            return Some(Unwanted::Less { top_severity, minimum: self.minimum });
        }
        if !self.only.is_empty() && !self.only.iter().any(|pattern| pattern.matches(address)) {
            return Some(Unwanted::NotOnly);
        }
        self.except.iter().find(|pattern| pattern.matches(address)).map(Unwanted::Except)
    }
}

/// What an incident of this rule began with. What is missed has no number that crossed a limit.
pub(crate) fn kind_of_rule(rule: &str, has_value: bool) -> Kind {
    match rule {
        "check" => Kind::Down,
        "silent" => Kind::Absent,
        _ if has_value => Kind::Alarm,
        _ => Kind::Absent,
    }
}

/// The keys with which each notifier lets a recipient or a channel choose. A daemon's own table has them under these names.
#[derive(Debug, Default)]
pub struct RawSelection {
    /// `severity`, by default the medium's own.
    pub severity: Option<Severity>,
    /// `only`, by default everything.
    pub only: Vec<Pattern>,
    /// `except`, by default nothing.
    pub except: Vec<Pattern>,
    /// `kinds`, by default all.
    pub kinds: Vec<Selectable>,
    /// `reminders`, by default true.
    pub reminders: Option<bool>,
    /// `quiet`, by default never.
    pub quiet: Vec<Quiet>,
    /// `after`, by default at once.
    pub after: Option<HumanDuration>,
    /// `unless`, by default whatever happens.
    pub unless: Option<Unless>,
}

impl RawSelection {
    /// Fills in what is missing, and checks. The error is a phrase that names the key.
    pub fn checked(self, severity: Severity) -> Result<Selection, String> {
        if let Some(after) = self.after {
            check_range("after", after, HumanDuration(AFTER.0)..=HumanDuration(AFTER.1))?;
        }
        if self.unless.is_some() && self.after.is_none() {
            return Err("unless is given, but has a meaning only with after".to_owned());
        }
        if self.quiet.len() > MAX_QUIET {
            return Err(format!("quiet holds {} stretches, but may hold at most {MAX_QUIET}", self.quiet.len()));
        }
        Ok(Selection {
            minimum: self.severity.unwrap_or(severity),
            only: self.only,
            except: self.except,
            kinds: self.kinds.into_iter().map(|Selectable(kind)| kind).collect(),
            reminders: self.reminders.unwrap_or(true),
            quiet: self.quiet,
            after: self.after.map(|HumanDuration(after)| after),
            unless_acked: self.unless.is_some(),
        })
    }
}

/// A kind that `kinds` may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selectable(Kind);

impl<'de> Deserialize<'de> for Selectable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = KINDS.into_iter().find(|kind| kind.to_string() == text);
        known.map(Self).ok_or_else(|| {
            let may: Vec<String> = KINDS.iter().map(ToString::to_string).collect();
            let wrong = format!("kinds holds {text:?}, but may hold only {}", may.join(", "));
            serde::de::Error::custom(format!("{wrong}; the end of what was told is always told"))
        })
    }
}

/// What keeps from being told what has lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unless {
    /// Somebody looks after it.
    Acked,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("pattern")
    }

    fn address(text: &str) -> Address {
        text.parse().expect("address")
    }

    #[test]
    fn severity_then_inclusion_then_exclusion() {
        let selection = Selection {
            only: vec![pattern("web*")],
            except: vec![pattern("*!port:test*")],
            ..Selection::at_least(Severity::Warn)
        };
        assert!(selection.wants(Severity::Err, &address("web1!port:smtp")));
        assert!(!selection.wants(Severity::Info, &address("web1!port:smtp")));
        assert!(!selection.wants(Severity::Crit, &address("db1!port:smtp")));
        assert!(!selection.wants(Severity::Crit, &address("web1!port:test 1")));
        assert!(Selection::at_least(Severity::Debug).wants(Severity::Debug, &address("x!y:z")));
    }

    #[test]
    fn a_refusal_names_the_key() {
        let selection = Selection {
            only: vec![pattern("web*")],
            except: vec![pattern("*!port:test*")],
            ..Selection::at_least(Severity::Warn)
        };
        let refused = |severity, place| selection.refuses_place(severity, &address(place)).map(|why| why.to_string());
        let less = refused(Severity::Info, "web1!port:smtp");
        assert_eq!(less.as_deref(), Some("INFO is less than severity = WARN"));
        assert_eq!(refused(Severity::Err, "db1!port:smtp").as_deref(), Some("no pattern of only matches it"));
        assert_eq!(refused(Severity::Err, "web1!port:test 1").as_deref(), Some("except holds *!port:test*"));
        assert_eq!(refused(Severity::Err, "web1!port:smtp"), None);
    }

    #[test]
    fn mistakes_are_named() {
        let checked = |raw: RawSelection| raw.checked(Severity::Warn);
        let alone = checked(RawSelection { unless: Some(Unless::Acked), ..RawSelection::default() });
        assert_eq!(alone, Err("unless is given, but has a meaning only with after".to_owned()));
        for (secs, fine) in [(59, false), (60, true), (604_800, true), (604_801, false)] {
            let after = Some(HumanDuration(Duration::from_secs(secs)));
            let said = checked(RawSelection { after, ..RawSelection::default() });
            assert_eq!(said.is_ok(), fine, "{secs}: {said:?}");
        }
        let said = serde_json::from_str::<Selectable>("\"solved\"").expect_err("an end").to_string();
        assert!(said.starts_with("kinds holds \"solved\", but may hold only down, up, alarm"), "{said}");
        assert_eq!(serde_json::from_str::<Selectable>("\"log\"").expect("a kind"), Selectable(Kind::Log));
    }
}
