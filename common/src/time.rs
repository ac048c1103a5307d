//! Time as it travels: integer milliseconds since the Unix epoch, UTC.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment by somebody's wall clock, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This host's wall clock. It may jump; measure durations with a monotonic clock.
    pub fn now() -> Self {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Self(-i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// Milliseconds from `earlier` to here, 0 if `earlier` is later.
    pub fn millis_since(self, earlier: UnixMillis) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// As [`Self::millis_since`], as a `Duration`.
    pub fn since(self, earlier: UnixMillis) -> Duration {
        Duration::from_millis(self.millis_since(earlier))
    }

    /// This moment moved by `duration` into the past.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Milliseconds between the two, whichever is later.
    pub fn distance(self, other: UnixMillis) -> u64 {
        self.0.abs_diff(other.0)
    }
}

/// RFC 3339 in UTC with milliseconds, `2026-11-21T04:45:06.123Z`; a moment outside the years -9999 to 9999 is shown as its
/// number.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl UnixMillis {
    /// Date and time of day in this system's time zone, `2026-11-21 05:45:06`, for people.
    pub fn local(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => timestamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            Err(_) => self.to_string(),
        }
    }
}

/// A duration for people, its two largest units: `4m 3s`, `2h 0m`, `350ms`.
pub fn for_people(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = duration.as_secs();
    match s {
        0 => format!("{ms}ms"),
        1..=9 => format!("{}.{}s", s, duration.subsec_millis() / 100),
        10..=59 => format!("{s}s"),
        60..=3599 => format!("{}m {}s", s / 60, s % 60),
        3600..=86_399 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_rfc_3339() {
        assert_eq!(UnixMillis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMillis(951_827_696_789).to_string(), "2000-02-29T12:34:56.789Z");
        assert_eq!(UnixMillis(1_795_236_306_001).to_string(), "2026-11-21T04:45:06.001Z");
        assert_eq!(UnixMillis(i64::MAX).to_string(), "9223372036854775807 ms");
        assert_eq!(UnixMillis(-1).to_string(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn an_earlier_moment_is_not_a_negative_duration() {
        assert_eq!(UnixMillis(5).millis_since(UnixMillis(9)), 0);
        assert_eq!(UnixMillis(i64::MIN).millis_since(UnixMillis(i64::MAX)), 0);
        assert_eq!(UnixMillis(9).millis_since(UnixMillis(5)), 4);
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown: Vec<_> = [350, 1500, 59_000, 243_000, 7_200_000, 90_000_000]
            .into_iter()
            .map(|ms| for_people(Duration::from_millis(ms)))
            .collect();
        assert_eq!(shown, ["350ms", "1.5s", "59s", "4m 3s", "2h 0m", "1d 1h"]);
    }
}
