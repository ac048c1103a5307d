//! Local time as people write it: zones, days of the week, times of day.

use jiff::Timestamp;
use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use std::fmt;
use std::str::FromStr;

use crate::time::UnixMillis;

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A time zone, by its IANA name; the system's own has none.
#[derive(Clone, PartialEq)]
pub struct Zone {
    name: Option<String>,
    zone: TimeZone,
}

impl Zone {
    /// The system's own.
    pub fn system() -> Self {
        Self { name: None, zone: TimeZone::system() }
    }

    /// Its IANA name, unless it is the system's own.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.zone
    }

    /// What a clock on the wall shows there at this moment; none beyond the year 9999.
    pub fn local(&self, moment: UnixMillis) -> Option<DateTime> {
        Timestamp::from_millisecond(moment.0).ok().map(|moment| self.zone.to_datetime(moment))
    }
}

/// By its name: its rules are pages long.
impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name).finish()
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match TimeZone::get(name) {
            Ok(zone) => Ok(Self { name: Some(name.to_owned()), zone }),
            Err(_) => {
                Err(format!("zone is {name:?}, but must be a time zone that this system knows, as Europe/Berlin"))
            }
        }
    }
}

/// `mon` to `sun`, as `key` holds it.
pub fn weekday(key: &str, text: &str) -> Result<Weekday, String> {
    let found = WEEKDAYS.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, day)| day).ok_or_else(|| format!("{key} holds {text:?}, but may hold only mon to sun"))
}

/// As it is written.
pub fn weekday_name(day: Weekday) -> &'static str {
    WEEKDAYS.iter().find(|(_, known)| *known == day).map_or("?", |(name, _)| name)
}

/// A time of day, `23:00`, as `key` holds it.
pub fn time_of_day(key: &str, text: &str) -> Result<Time, String> {
    Time::strptime("%H:%M", text).map_err(|_| format!("{key} is {text:?}, but must be a time of day as 23:00"))
}
