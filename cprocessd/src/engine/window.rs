//! Maintenance windows: when they are, in the time zone of whoever wrote them down.
//!
//! Times of day are local, and twice a year a clock is put forward or back. A start in the hour that is left out is at the
//! first moment after it; a start in the hour that comes twice is at the first of both; the end of a single window in that hour
//! is at the second, so that the window is never shorter than what was written. `lasting` is time that passes: a window of four
//! hours has four hours in every night of the year, and ends at another time of day in two of them.

use common::address::Pattern;
use common::config::HumanDuration;
use common::time::UnixMillis;
use common::zone::{Zone, weekday, weekday_name};
use jiff::Span;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::AmbiguousOffset;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest that a repeated window may last.
pub const MAX_LASTING: Duration = Duration::from_hours(31 * 24);
/// How far ahead the next occurrences are looked for. Every day of a month comes several times within it.
const DAYS_AHEAD: i32 = 2 * 366;

const ORDINALS: [(&str, i8); 5] = [("first", 1), ("second", 2), ("third", 3), ("fourth", 4), ("last", -1)];

/// A time during which what matches is not told.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// No two have one name.
    pub name: String,
    /// What is not told.
    pub pattern: Pattern,
    /// When.
    pub when: When,
    /// Whose local time that is.
    pub zone: Zone,
}

/// The form of a window.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// One time, in local time.
    Once {
        /// Its first moment.
        from: DateTime,
        /// The first moment after it.
        until: DateTime,
    },
    /// On these days of each week.
    Weekly {
        /// The days on which it begins.
        days: Vec<Weekday>,
        /// At this time of day.
        at: Time,
        /// For so long.
        lasting: Duration,
    },
    /// On one day of each month.
    Monthly {
        /// The day on which it begins.
        day: MonthDay,
        /// At this time of day.
        at: Time,
        /// For so long.
        lasting: Duration,
    },
}

/// A day of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonthDay {
    /// By its number; a month that has no such day is left out.
    Number(i8),
    /// The last one.
    Last,
    /// A weekday, the first to fourth of the month, or its last, -1.
    Nth(i8, Weekday),
}

impl MonthDay {
    /// 1 to 31, or -1 for the last.
    pub fn from_number(number: i64) -> Result<Self, String> {
        match number {
            -1 => Ok(MonthDay::Last),
            1..=31 => Ok(MonthDay::Number(i8::try_from(number).expect("at most 31"))),
            _ => Err(format!("monthly is {number}, but must be 1 to 31, or -1 for the last day of the month")),
        }
    }

    fn is(self, date: Date) -> bool {
        match self {
            MonthDay::Number(number) => date.day() == number,
            MonthDay::Last => date == date.last_of_month(),
            MonthDay::Nth(nth, weekday) => date.nth_weekday_of_month(nth, weekday).is_ok_and(|found| found == date),
        }
    }
}

/// `first sun`, `last fri`.
impl FromStr for MonthDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "monthly is {text:?}, but must be a number or as \"first sun\": first, second, third, fourth or last, and mon to sun"
            )
        };
        let (ordinal, day) = text.split_once(' ').ok_or_else(wrong)?;
        let (_, nth) = ORDINALS.into_iter().find(|(name, _)| *name == ordinal).ok_or_else(wrong)?;
        Ok(MonthDay::Nth(nth, weekday("monthly", day).map_err(|_| wrong())?))
    }
}

/// A local date and time, `2026-12-24 22:00`.
pub fn date_time(key: &str, text: &str) -> Result<DateTime, String> {
    let spaced = text.replacen('T', " ", 1);
    let read =
        DateTime::strptime("%Y-%m-%d %H:%M", &spaced).or_else(|_| DateTime::strptime("%Y-%m-%d %H:%M:%S", &spaced));
    read.map_err(|_| format!("{key} is {text:?}, but must be a local date and time as 2026-12-24 22:00"))
}

/// As it is written.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |at: &Time| at.strftime("%H:%M").to_string();
        match &self.when {
            When::Once { from, until } => {
                write!(f, "from {} until {}", from.strftime("%Y-%m-%d %H:%M"), until.strftime("%Y-%m-%d %H:%M"))
            }
            When::Weekly { days, at, lasting } => {
                let days: Vec<_> = days.iter().copied().map(weekday_name).collect();
                write!(f, "weekly {} at {} for {}", days.join(", "), time(at), HumanDuration(*lasting))
            }
            When::Monthly { day, at, lasting } => {
                match day {
                    MonthDay::Number(number) => write!(f, "monthly on day {number}")?,
                    MonthDay::Last => f.write_str("monthly on the last day")?,
                    MonthDay::Nth(nth, day) => {
                        let ordinal = ORDINALS.iter().find(|(_, known)| known == nth).map_or("?", |(name, _)| name);
                        write!(f, "monthly on the {ordinal} {}", weekday_name(*day))?;
                    }
                }
                write!(f, " at {} for {}", time(at), HumanDuration(*lasting))
            }
        }?;
        self.zone.name().iter().try_for_each(|name| write!(f, ", {name}"))
    }
}

impl Window {
    /// Until when it lasts, if it is under way at this moment. Its last moment is the one before.
    pub fn active_at(&self, now: UnixMillis) -> Option<UnixMillis> {
        let under_way = |(from, until): &(UnixMillis, UnixMillis)| *from <= now && now < *until;
        let earliest = now.minus(self.lasting());
        self.occurrences(earliest, 1).filter(under_way).map(|(_, until)| until).max()
    }

    /// The first `n` occurrences that begin after this moment.
    pub fn next(&self, now: UnixMillis, n: usize) -> Vec<(UnixMillis, UnixMillis)> {
        self.occurrences(now, DAYS_AHEAD).filter(|(from, _)| *from > now).take(n).collect()
    }

    fn lasting(&self) -> Duration {
        match &self.when {
            When::Once { .. } => Duration::ZERO,
            When::Weekly { lasting, .. } | When::Monthly { lasting, .. } => *lasting,
        }
    }

    /// Those that begin on a local date between the one before this moment and so many after what `lasting` adds to it, in
    /// their order.
    fn occurrences(&self, from: UnixMillis, days: i32) -> Box<dyn Iterator<Item = (UnixMillis, UnixMillis)> + '_> {
        let (at, lasting) = match &self.when {
            When::Once { from, until } => {
                let from = self.moment(*from, Twice::First);
                let until = self.moment(*until, Twice::Second);
                return Box::new(from.zip(until).into_iter());
            }
            When::Weekly { at, lasting, .. } | When::Monthly { at, lasting, .. } => (*at, *lasting),
        };
        let Some(now) = self.zone.local(from) else { return Box::new(std::iter::empty()) };
        let today = now.date();
        // A day on either side for zones whose clocks do what they want.
        let days_of_one = i32::try_from(lasting.as_secs() / 86_400).unwrap_or(0) + 2;
        let day = move |n: i32| today.checked_add(Span::new().try_days(n).ok()?).ok();
        let dates = (-1..days + days_of_one).filter_map(day).filter(|date| self.begins_on(*date));
        Box::new(dates.filter_map(move |date| {
            let begin = self.moment(date.to_datetime(at), Twice::First)?;
            Some((begin, UnixMillis(begin.0.saturating_add(i64::try_from(lasting.as_millis()).ok()?))))
        }))
    }

    fn begins_on(&self, date: Date) -> bool {
        match &self.when {
            When::Once { .. } => false,
            When::Weekly { days, .. } => days.contains(&date.weekday()),
            When::Monthly { day, .. } => day.is(date),
        }
    }

    fn moment(&self, local: DateTime, twice: Twice) -> Option<UnixMillis> {
        let zone = self.zone.rules();
        let ambiguous = zone.to_ambiguous_timestamp(local);
        let moment = match (ambiguous.offset(), twice) {
            (AmbiguousOffset::Unambiguous { .. }, _) => ambiguous.compatible(),
            (AmbiguousOffset::Fold { .. }, Twice::First) => ambiguous.earlier(),
            (AmbiguousOffset::Fold { .. }, Twice::Second) => ambiguous.later(),
            (AmbiguousOffset::Gap { .. }, _) => {
                // Read by the clock of after, it is before the clock was put forward.
                let before = ambiguous.earlier().ok()?;
                let change = zone.following(before).next().map(|transition| transition.timestamp());
                return change.map(|change| UnixMillis(change.as_millisecond()));
            }
        };
        moment.ok().map(|moment| UnixMillis(moment.as_millisecond()))
    }
}

/// Which of the two moments that have one local time.
#[derive(Clone, Copy)]
enum Twice {
    First,
    Second,
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::zone::time_of_day;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn window(zone: &str, when: When) -> Window {
        let pattern = "*".parse().expect("a pattern");
        Window { name: "w".into(), pattern, when, zone: zone.parse().expect("a zone") }
    }

    fn weekly(zone: &str, days: &[&str], at: &str, hours: u64) -> Window {
        let days = days.iter().map(|day| weekday("weekly", day).expect("a day")).collect();
        let lasting = Duration::from_hours(hours);
        window(zone, When::Weekly { days, at: time_of_day("at", at).expect("a time"), lasting })
    }

    fn monthly(day: MonthDay) -> Window {
        let lasting = Duration::from_hours(1);
        window("Europe/Berlin", When::Monthly { day, at: time_of_day("at", "04:00").expect("a time"), lasting })
    }

    fn once(zone: &str, from: &str, until: &str) -> Window {
        let read = |text| date_time("from", text).expect("a date");
        window(zone, When::Once { from: read(from), until: read(until) })
    }

    fn utc(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().expect("a timestamp").as_millisecond())
    }

    /// The next occurrence after this moment, in UTC.
    fn next(window: &Window, after: &str) -> (String, String) {
        let (from, until) = window.next(utc(after), 1)[0];
        assert_eq!(window.active_at(from), Some(until));
        assert_eq!(window.active_at(UnixMillis(from.0 - 1)), None);
        assert_eq!(window.active_at(UnixMillis(until.0 - 1)), Some(until));
        assert_eq!(window.active_at(until), None);
        let short = |moment: UnixMillis| moment.to_string().replace(":00.000Z", "Z");
        (short(from), short(until))
    }

    #[track_caller]
    fn assert_next(window: &Window, after: &str, from: &str, until: &str) {
        assert_eq!(next(window, after), (from.to_owned(), until.to_owned()));
    }

    #[test]
    fn a_weekly_window_is_in_local_time_and_goes_across_midnight() {
        let nights = weekly("Europe/Berlin", &["sat", "sun"], "23:00", 4);
        // In winter an hour ahead of UTC, in summer two.
        assert_next(&nights, "2026-01-08T00:00Z", "2026-01-10T22:00Z", "2026-01-11T02:00Z");
        assert_next(&nights, "2026-01-10T22:00Z", "2026-01-11T22:00Z", "2026-01-12T02:00Z");
        assert_next(&nights, "2026-07-08T00:00Z", "2026-07-11T21:00Z", "2026-07-12T01:00Z");
    }

    #[test]
    fn berlin_loses_an_hour_in_march_and_has_one_twice_in_october() {
        // 02:00 to 03:00 is left out on 29 March, and comes twice on 25 October.
        let night = weekly("Europe/Berlin", &["sun"], "02:30", 1);
        assert_next(&night, "2026-03-28T12:00Z", "2026-03-29T01:00Z", "2026-03-29T02:00Z");
        assert_next(&night, "2026-10-24T12:00Z", "2026-10-25T00:30Z", "2026-10-25T01:30Z");
        // What lasts four hours does, whatever the clock on the wall says.
        let across = weekly("Europe/Berlin", &["sat"], "23:00", 4);
        assert_next(&across, "2026-03-28T12:00Z", "2026-03-28T22:00Z", "2026-03-29T02:00Z");
        assert_next(&across, "2026-10-24T12:00Z", "2026-10-24T21:00Z", "2026-10-25T01:00Z");
        // The very beginning of what is left out.
        assert_next(
            &weekly("Europe/Berlin", &["sun"], "02:00", 1),
            "2026-03-28T12:00Z",
            "2026-03-29T01:00Z",
            "2026-03-29T02:00Z",
        );
    }

    #[test]
    fn new_york_does_so_too_on_other_days() {
        let night = weekly("America/New_York", &["sun"], "02:30", 2);
        assert_next(&night, "2026-03-07T12:00Z", "2026-03-08T07:00Z", "2026-03-08T09:00Z");
        assert_next(
            &weekly("America/New_York", &["sun"], "01:30", 2),
            "2026-10-31T12:00Z",
            "2026-11-01T05:30Z",
            "2026-11-01T07:30Z",
        );
    }

    #[test]
    fn in_the_south_the_seasons_are_the_other_way_round() {
        // Santiago: forward at midnight of 6 September 2026, so that the day begins at 01:00; back at midnight of 5 April.
        let midnight = weekly("America/Santiago", &["sun"], "00:00", 2);
        assert_next(&midnight, "2026-09-05T12:00Z", "2026-09-06T04:00Z", "2026-09-06T06:00Z");
        assert_next(
            &weekly("America/Santiago", &["sat"], "23:30", 2),
            "2026-04-04T12:00Z",
            "2026-04-05T02:30Z",
            "2026-04-05T04:30Z",
        );
        // Sydney: forward on 4 October, back on 5 April.
        let night = weekly("Australia/Sydney", &["sun"], "02:30", 1);
        assert_next(&night, "2026-10-03T00:00Z", "2026-10-03T16:00Z", "2026-10-03T17:00Z");
        assert_next(&night, "2026-04-04T00:00Z", "2026-04-04T15:30Z", "2026-04-04T16:30Z");
    }

    #[test]
    fn on_lord_howe_it_is_half_an_hour() {
        // 02:00 becomes 02:30 on 4 October, and 02:00 becomes 01:30 on 5 April: eleven hours ahead of UTC, or ten and a half.
        let missing = weekly("Australia/Lord_Howe", &["sun"], "02:15", 1);
        assert_next(&missing, "2026-10-03T00:00Z", "2026-10-03T15:30Z", "2026-10-03T16:30Z");
        let doubled = weekly("Australia/Lord_Howe", &["sun"], "01:45", 1);
        assert_next(&doubled, "2026-04-04T00:00Z", "2026-04-04T14:45Z", "2026-04-04T15:45Z");
        let plain = weekly("Australia/Lord_Howe", &["sun"], "02:30", 1);
        assert_next(&plain, "2026-10-03T00:00Z", "2026-10-03T15:30Z", "2026-10-03T16:30Z");
    }

    #[test]
    fn a_single_window_covers_whatever_its_end_may_mean() {
        assert_next(
            &once("Europe/Berlin", "2026-10-25 01:00", "2026-10-25T02:30"),
            "2026-10-01T00:00Z",
            "2026-10-24T23:00Z",
            "2026-10-25T01:30Z",
        );
        assert_next(
            &once("Europe/Berlin", "2026-03-29 02:10", "2026-03-29 03:30"),
            "2026-03-01T00:00Z",
            "2026-03-29T01:00Z",
            "2026-03-29T01:30Z",
        );
        assert!(
            once("Europe/Berlin", "2026-03-29 02:10", "2026-03-29 03:30").next(utc("2026-03-29T01:00Z"), 5).is_empty()
        );
    }

    #[test]
    fn days_of_a_month_are_by_number_from_its_end_or_by_weekday() {
        let dates = |day: MonthDay| -> Vec<String> {
            let next = monthly(day).next(utc("2026-01-15T00:00Z"), 5);
            next.into_iter().map(|(from, _)| from.to_string()[..10].to_owned()).collect()
        };
        assert_eq!(dates(MonthDay::Number(1)), ["2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01", "2026-06-01"]);
        // A month without it is left out.
        assert_eq!(dates(MonthDay::Number(31)), ["2026-01-31", "2026-03-31", "2026-05-31", "2026-07-31", "2026-08-31"]);
        assert_eq!(dates(MonthDay::Last), ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]);
        let first_sunday = "first sun".parse().expect("a day");
        assert_eq!(dates(first_sunday), ["2026-02-01", "2026-03-01", "2026-04-05", "2026-05-03", "2026-06-07"]);
        let last_friday = "last fri".parse().expect("a day");
        assert_eq!(dates(last_friday), ["2026-01-30", "2026-02-27", "2026-03-27", "2026-04-24", "2026-05-29"]);
    }

    #[test]
    fn one_that_begins_before_the_last_has_ended_goes_on() {
        let daily = weekly("UTC", &["mon", "tue"], "00:00", 36);
        // Monday 5 January 2026.
        assert_eq!(daily.active_at(utc("2026-01-05T12:00Z")), Some(utc("2026-01-06T12:00Z")));
        assert_eq!(daily.active_at(utc("2026-01-06T06:00Z")), Some(utc("2026-01-07T12:00Z")));
        assert_eq!(daily.active_at(utc("2026-01-07T12:00Z")), None);
    }

    #[test]
    fn what_is_no_time_is_named() {
        assert!("Europe/Atlantis".parse::<Zone>().expect_err("no zone").contains("Europe/Atlantis"));
        assert!("fifth sun".parse::<MonthDay>().expect_err("no day").contains("\"fifth sun\""));
        assert!(MonthDay::from_number(32).is_err() && MonthDay::from_number(0).is_err());
        assert!(
            weekday("weekly", "Sunday").is_err()
                && time_of_day("at", "24:00").is_err()
                && time_of_day("at", "7").is_err()
        );
        assert!(date_time("from", "2026-02-30 10:00").is_err() && date_time("from", "2026-02-03 10:00+01:00").is_err());
    }

    #[test]
    fn a_window_reads_as_it_was_written() {
        let text = weekly("Europe/Berlin", &["sat", "sun"], "23:00", 4).to_string();
        assert_eq!(text, "weekly sat, sun at 23:00 for 4h, Europe/Berlin");
        assert_eq!(monthly(MonthDay::Last).to_string(), "monthly on the last day at 04:00 for 1h, Europe/Berlin");
    }

    proptest! {
        /// An occurrence is under way from its first moment to its last, and lasts as long as was written.
        #[test]
        fn occurrences_and_what_is_under_way_agree(
            zone in prop::sample::select(vec!["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia"]),
            days in prop::sample::subsequence(vec!["mon", "wed", "sat", "sun"], 1..4),
            (hour, minute, hours) in (0..24u8, 0..60u8, 1..20u64),
            now in 0..2_000_000_000_000i64,
        ) {
            let window = weekly(zone, &days, &format!("{hour:02}:{minute:02}"), hours);
            let next = window.next(UnixMillis(now), 3);
            prop_assert_eq!(next.len(), 3);
            prop_assert!(next.is_sorted());
            for (from, until) in next {
                prop_assert!(from.0 > now && until.since(from) == Duration::from_hours(hours));
                prop_assert!(window.active_at(from).is_some_and(|end| end >= until));
                prop_assert!(window.active_at(UnixMillis(until.0 - 1)).is_some());
            }
        }
    }
}
