//! Quiet hours: when a recipient is not to be disturbed by what is not bad enough.
//!
//! The clock on the wall decides, in the zone they name: quiet is while it shows a time from the first to the last. Where it
//! is put back, the hour that comes twice is quiet twice or not at all; where it is put forward, there is an hour less.

use crate::severity::Severity;
use crate::time::UnixMillis;
use crate::zone::{Zone, time_of_day, weekday, weekday_name};
use jiff::civil::{Time, Weekday};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// A stretch of each day, or of some.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// From this time of day,
    #[serde(deserialize_with = "from")]
    from: Time,
    /// until before this one; on the next day, if it is not later.
    #[serde(deserialize_with = "until")]
    until: Time,
    /// The days on which it begins; all of them if it is empty.
    #[serde(default, deserialize_with = "days")]
    days: Vec<Weekday>,
    /// Whose clock.
    #[serde(default = "Zone::system", deserialize_with = "zone")]
    zone: Zone,
    /// What is as bad as this is told all the same.
    #[serde(default = "default_except")]
    except: Severity,
}

fn default_except() -> Severity {
    Severity::Crit
}

/// Text is read right here, so that a mistake is reported with its line.
fn from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    time_of_day("from", &String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn until<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    time_of_day("until", &String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Weekday>, D::Error> {
    let days = Vec::<String>::deserialize(deserializer)?;
    days.iter().map(|day| weekday("days", day)).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zone, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl Quiet {
    /// What is as bad as this is told all the same.
    pub(crate) fn except(&self) -> Severity {
        self.except
    }

    /// Whether it is quiet at this moment.
    pub(crate) fn is_at(&self, now: UnixMillis) -> bool {
        let Some(local) = self.zone.local(now) else { return false };
        let (date, time) = (local.date(), local.time());
        let begins_on = |day: Weekday| self.days.is_empty() || self.days.contains(&day);
        if self.from < self.until {
            return begins_on(date.weekday()) && (self.from..self.until).contains(&time);
        }
        time >= self.from && begins_on(date.weekday())
            || time < self.until && date.yesterday().is_ok_and(|yesterday| begins_on(yesterday.weekday()))
    }
}

/// As a reason: `quiet from 22:00 until 07:00 on sat, sun, Europe/Berlin`.
impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quiet from {} until {}", self.from.strftime("%H:%M"), self.until.strftime("%H:%M"))?;
        if !self.days.is_empty() {
            let days: Vec<&str> = self.days.iter().copied().map(weekday_name).collect();
            write!(f, " on {}", days.join(", "))?;
        }
        self.zone.name().iter().try_for_each(|name| write!(f, ", {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn quiet(json: &str) -> Quiet {
        serde_json::from_str(json).expect("quiet hours")
    }

    fn is_at(quiet: &Quiet, utc: &str) -> bool {
        let moment: Timestamp = utc.parse().expect("a moment");
        quiet.is_at(UnixMillis(moment.as_millisecond()))
    }

    /// Each minute of these hours that is not as the one before.
    fn changes(quiet: &Quiet, from: &str, hours: i64) -> Vec<String> {
        let from: Timestamp = from.parse().expect("a moment");
        let at = |minute: i64| from.as_millisecond() + minute * 60_000;
        let changed = |minute: &i64| quiet.is_at(UnixMillis(at(*minute))) != quiet.is_at(UnixMillis(at(*minute - 1)));
        let text = |minute| Timestamp::from_millisecond(at(minute)).expect("a moment").strftime("%dT%H:%M").to_string();
        (1..=hours * 60).filter(changed).map(text).collect()
    }

    #[test]
    fn a_night_goes_across_midnight_and_belongs_to_the_day_on_which_it_begins() {
        let night = quiet(r#"{"from": "22:00", "until": "07:00", "days": ["fri"], "zone": "UTC"}"#);
        // 2026-11-20 is a Friday.
        assert_eq!(changes(&night, "2026-11-18T00:00:00Z", 7 * 24), ["20T22:00", "21T07:00"]);
        assert!(is_at(&night, "2026-11-20T22:00:00Z") && !is_at(&night, "2026-11-21T07:00:00Z"));
        assert_eq!(night.to_string(), "quiet from 22:00 until 07:00 on fri, UTC");
    }

    #[test]
    fn whole_days_have_one_and_the_same_beginning_and_end() {
        let weekend = quiet(r#"{"from": "00:00", "until": "00:00", "days": ["sat", "sun"], "zone": "UTC"}"#);
        assert_eq!(changes(&weekend, "2026-11-18T00:00:00Z", 7 * 24), ["21T00:00", "23T00:00"]);
        let noon = quiet(r#"{"from": "12:00", "until": "13:30", "zone": "UTC"}"#);
        assert_eq!(changes(&noon, "2026-11-18T00:00:00Z", 24), ["18T12:00", "18T13:30"]);
    }

    /// Europe/Berlin, America/New_York and Australia/Lord_Howe, whose clock moves by half an hour.
    #[test]
    fn the_clock_on_the_wall_decides_when_it_is_put_forward_and_back() {
        let night = |zone: &str| quiet(&format!(r#"{{"from": "22:00", "until": "07:00", "zone": "{zone}"}}"#));
        for (zone, from, expected) in [
            ("Europe/Berlin", "2026-03-28T12:00:00Z", ["28T21:00", "29T05:00"]),
            ("Europe/Berlin", "2026-10-24T12:00:00Z", ["24T20:00", "25T06:00"]),
            ("America/New_York", "2026-03-07T18:00:00Z", ["08T03:00", "08T11:00"]),
            ("America/New_York", "2026-10-31T18:00:00Z", ["01T02:00", "01T12:00"]),
            ("Australia/Lord_Howe", "2026-04-04T06:00:00Z", ["04T11:00", "04T20:30"]),
            ("Australia/Lord_Howe", "2026-10-03T06:00:00Z", ["03T11:30", "03T20:00"]),
        ] {
            assert_eq!(changes(&night(zone), from, 20), expected, "{zone} {from}");
        }
        // An end in the hour that comes twice.
        let early = quiet(r#"{"from": "22:00", "until": "02:30", "zone": "Europe/Berlin"}"#);
        let twice = ["24T20:00", "25T00:30", "25T01:00", "25T01:30"];
        assert_eq!(changes(&early, "2026-10-24T12:00:00Z", 20), twice);
        // And in the one that is left out.
        assert_eq!(changes(&early, "2026-03-28T12:00:00Z", 20), ["28T21:00", "29T01:00"]);
    }

    #[test]
    fn mistakes_are_named() {
        let said = |json: &str| serde_json::from_str::<Quiet>(json).expect_err("a mistake").to_string();
        for (json, complains) in [
            (r#"{"from": "22", "until": "07:00"}"#, "from is \"22\", but must be a time of day as 23:00"),
            (r#"{"from": "22:00", "until": "24:00"}"#, "until is \"24:00\""),
            (r#"{"from": "22:00"}"#, "missing field `until`"),
            (r#"{"from": "22:00", "until": "07:00", "days": ["Sunday"]}"#, "days holds \"Sunday\""),
            (r#"{"from": "22:00", "until": "07:00", "zone": "Europe/Atlantis"}"#, "zone is \"Europe/Atlantis\""),
            (r#"{"from": "22:00", "until": "07:00", "untill": 1}"#, "unknown field"),
        ] {
            assert!(said(json).contains(complains), "{json}: {}", said(json));
        }
    }
}
