//! When somebody gets a digest: at a time of day of their own zone, each day or on one day of each week.
//!
//! A digest covers the time since the one before, so where a clock is put forward or back a day has 23 hours or 25 and
//! nothing is left out or counted twice. A time of day that a night leaves out is an hour later in that night; of one that
//! comes twice it is the first.

use common::time::UnixMillis;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    /// Each day.
    Day,
    /// Each week.
    Week,
}

impl Every {
    /// As a person writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Every::Day => "daily",
            Every::Week => "weekly",
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When somebody gets a digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// How often.
    pub every: Every,
    /// Of a weekly one, the day.
    pub day: Weekday,
    /// The time of day.
    pub at: Time,
    /// Whose time of day.
    pub zone: TimeZone,
}

/// What a digest covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Period {
    /// How often there is one.
    pub every: Every,
    /// Its first moment.
    pub from: UnixMillis,
    /// The first moment after it: the digest is due.
    pub to: UnixMillis,
}

impl Period {
    /// How long it is, in milliseconds; at least 1.
    pub(crate) fn millis(&self) -> u64 {
        self.to.millis_since(self.from).max(1)
    }

    /// It is worth telling: half a period later the next is nearer.
    pub(crate) fn is_news(&self, now: UnixMillis) -> bool {
        now.millis_since(self.to) < self.millis() / 2
    }
}

impl Schedule {
    /// The last period that is over by `now`; none where the calendar ends.
    pub(crate) fn last(&self, now: UnixMillis) -> Option<Period> {
        let local = Timestamp::from_millisecond(now.0).ok()?.to_zoned(self.zone.clone());
        let mut date = match self.every {
            Every::Day => local.date(),
            Every::Week => {
                let back = self.day.until(local.date().weekday());
                local.date().checked_sub(Span::new().days(back)).ok()?
            }
        };
        if self.moment(date)? > now {
            date = self.before(date)?;
        }
        Some(Period { every: self.every, from: self.moment(self.before(date)?)?, to: self.moment(date)? })
    }

    fn before(&self, date: Date) -> Option<Date> {
        let days = match self.every {
            Every::Day => 1,
            Every::Week => 7,
        };
        date.checked_sub(Span::new().days(days)).ok()
    }

    fn moment(&self, date: Date) -> Option<UnixMillis> {
        let zoned = self.zone.to_ambiguous_zoned(date.to_datetime(self.at)).compatible().ok()?;
        Some(UnixMillis(zoned.timestamp().as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(every: Every, day: Weekday, at: &str, zone: &str) -> Schedule {
        Schedule { every, day, at: at.parse().expect("a time"), zone: TimeZone::get(zone).expect("a zone") }
    }

    fn moment(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().expect("a moment").as_millisecond())
    }

    /// The period that is over at `now`, in UTC.
    fn last(schedule: &Schedule, now: &str) -> [String; 2] {
        let period = schedule.last(moment(now)).expect("there is a last one");
        [period.from, period.to].map(|moment| moment.to_string().replace(":00.000Z", ""))
    }

    #[test]
    fn a_daily_digest_is_due_at_its_time_of_day() {
        let daily = schedule(Every::Day, Weekday::Monday, "07:00", "Europe/Berlin");
        assert_eq!(last(&daily, "2026-11-21T05:59:59Z"), ["2026-11-19T06:00", "2026-11-20T06:00"]);
        assert_eq!(last(&daily, "2026-11-21T06:00:00Z"), ["2026-11-20T06:00", "2026-11-21T06:00"]);
        assert_eq!(last(&daily, "2026-11-22T05:59:59Z"), ["2026-11-20T06:00", "2026-11-21T06:00"]);
    }

    #[test]
    fn a_weekly_digest_is_due_on_its_day() {
        let weekly = schedule(Every::Week, Weekday::Monday, "08:30", "America/New_York");
        // A Sunday, and the Monday after it.
        assert_eq!(last(&weekly, "2026-11-22T20:00:00Z"), ["2026-11-09T13:30", "2026-11-16T13:30"]);
        assert_eq!(last(&weekly, "2026-11-23T13:29:59Z"), ["2026-11-09T13:30", "2026-11-16T13:30"]);
        assert_eq!(last(&weekly, "2026-11-23T13:30:00Z"), ["2026-11-16T13:30", "2026-11-23T13:30"]);
    }

    #[test]
    fn where_a_clock_is_moved_the_periods_still_touch() {
        for (zone, at, days) in [
            // Both changes of three zones; the hour that is left out or comes twice, and one that is neither.
            ("Europe/Berlin", "02:30", ["2026-03-29", "2026-10-25"]),
            ("Europe/Berlin", "07:00", ["2026-03-29", "2026-10-25"]),
            ("America/New_York", "02:30", ["2026-03-08", "2026-11-01"]),
            ("America/New_York", "01:30", ["2026-03-08", "2026-11-01"]),
            ("Australia/Lord_Howe", "02:00", ["2026-10-04", "2026-04-05"]),
        ] {
            let daily = schedule(Every::Day, Weekday::Monday, at, zone);
            for day in days {
                let middle = moment(&format!("{day}T00:00:00Z"));
                let mut periods: Vec<Period> = Vec::new();
                // Each quarter of an hour of four days around it.
                for quarter in -192..=192 {
                    let now = UnixMillis(middle.0 + quarter * 900_000);
                    let period = daily.last(now).expect("there is one");
                    assert!(period.to <= now, "{zone} {at} {day}");
                    if periods.last() != Some(&period) {
                        periods.push(period);
                    }
                }
                assert!(periods.windows(2).all(|pair| pair[0].to == pair[1].from), "{zone} {at} {day}: {periods:?}");
                let hours: Vec<u64> = periods.iter().map(|period| period.millis() / 1_800_000).collect();
                assert!(hours.iter().all(|halves| (46..=50).contains(halves)), "{zone} {at} {day}: {hours:?}");
                assert!(hours.iter().any(|halves| *halves != 48), "{zone} {at} {day}: {hours:?}");
            }
        }
    }

    #[test]
    fn half_a_period_late_it_is_no_news() {
        let daily = schedule(Every::Day, Weekday::Monday, "07:00", "UTC");
        let period = daily.last(moment("2026-11-21T10:00:00Z")).expect("a period");
        assert!(period.is_news(moment("2026-11-21T18:59:59Z")));
        assert!(!period.is_news(moment("2026-11-21T19:00:00Z")));
    }

    #[test]
    fn where_the_calendar_ends_there_is_none() {
        let daily = schedule(Every::Day, Weekday::Monday, "07:00", "UTC");
        for now in [i64::MIN, i64::MAX] {
            assert_eq!(daily.last(UnixMillis(now)), None);
        }
    }
}
