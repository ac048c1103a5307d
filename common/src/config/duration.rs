//! Durations as people write them: `10s`, `1m30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units, the largest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];
const MAX_MILLIS: u64 = 10 * 365 * UNITS[0].1;

const FORM: &str = r#"a duration such as "10s", "500ms" or "1m30s""#;
const UNIT: &str = r#"a duration with its unit, such as "10s""#;
const ORDER: &str = r#"a duration with each unit once and the largest first, such as "1m30s""#;
const BOUND: &str = "at most 10 years (3650d)";

/// A duration that a person writes and reads, such as `10s`, `500ms` or `1m30s`.
///
/// Integers with the units `d`, `h`, `m`, `s` and `ms`, the largest first, each at most once, without
/// spaces. A bare number is refused: whether it meant seconds is a guess. What was read is at most 10
/// years; [`fmt::Display`] writes the same form and drops what is less than a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// Text that is no [`HumanDuration`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("duration is {text:?}, but must be {must_be}")]
pub struct DurationError {
    text: String,
    must_be: &'static str,
}

impl FromStr for HumanDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let millis = parse_millis(text).map_err(|must_be| DurationError { text: text.to_owned(), must_be })?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

/// The error is what the text must be.
fn parse_millis(text: &str) -> Result<u64, &'static str> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (digits, behind) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, behind) = split_while(behind, |c| c.is_ascii_alphabetic());
        if digits.is_empty() || !(unit.is_empty() || UNITS.iter().any(|(name, _)| *name == unit)) {
            return Err(FORM);
        }
        if unit.is_empty() {
            // "10" lacks its unit; "1.5s" and "10 s" are of another form.
            return Err(if behind.is_empty() { UNIT } else { FORM });
        }
        // The iterator has passed the units before: each can only be smaller than the last.
        let (_, unit_millis) = units.find(|(name, _)| *name == unit).ok_or(ORDER)?;
        total = digits
            .parse::<u64>()
            .ok()
            .and_then(|amount| amount.checked_mul(*unit_millis)?.checked_add(total))
            .filter(|total| *total <= MAX_MILLIS)
            .ok_or(BOUND)?;
        rest = behind;
    }
    if text.is_empty() { Err(FORM) } else { Ok(total) }
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit_millis) in UNITS {
            let unit_millis = u128::from(unit_millis);
            if rest >= unit_millis {
                write!(f, "{}{name}", rest / unit_millis)?;
                rest %= unit_millis;
            }
        }
        Ok(())
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FromText;

        impl Visitor<'_> for FromText {
            type Value = HumanDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Whoever writes no text most likely wrote a bare number.
                f.write_str(UNIT)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                text.parse().map_err(|error: DurationError| E::invalid_value(Unexpected::Str(text), &error.must_be))
            }
        }

        deserializer.deserialize_str(FromText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn millis(text: &str, expected: u64) {
        assert_eq!(text.parse(), Ok(HumanDuration(Duration::from_millis(expected))), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, must_be: &str) {
        let error = text.parse::<HumanDuration>().expect_err(text);
        assert_eq!(error.to_string(), format!("duration is {text:?}, but must be {must_be}"));
    }

    #[test]
    fn every_unit_is_read() {
        millis("500ms", 500);
        millis("10s", 10_000);
        millis("5m", 300_000);
        millis("2h", 7_200_000);
        millis("1d", 86_400_000);
        millis("0s", 0);
        millis("1m30s", 90_000);
        millis("1d2h3m4s5ms", 93_784_005);
        millis("90m", 5_400_000);
    }

    #[test]
    fn what_has_another_form_is_refused() {
        for text in ["", " ", "s", "-1s", "+1s", "1.5s", "10 s", " 10s", "10s ", "10S", "1w", "10sec", "1s,", "١s"] {
            refused(text, FORM);
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_a_hint() {
        refused("10", UNIT);
        refused("1m30", UNIT);
    }

    #[test]
    fn units_come_once_and_the_largest_first() {
        refused("30s1m", ORDER);
        refused("1s1s", ORDER);
    }

    #[test]
    fn ten_years_is_the_bound() {
        millis("3650d", 315_360_000_000);
        refused("3650d1ms", BOUND);
        refused("99999999999999999999s", BOUND);
        refused("18446744073709551615d", BOUND);
    }

    #[test]
    fn less_than_a_millisecond_is_not_shown() {
        assert_eq!(HumanDuration(Duration::from_micros(1_999)).to_string(), "1ms");
        assert_eq!(HumanDuration(Duration::from_micros(999)).to_string(), "0s");
        assert_eq!(HumanDuration(Duration::MAX).to_string(), "213503982334601d7h15s999ms");
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in 0..=MAX_MILLIS) {
            let duration = HumanDuration(Duration::from_millis(millis));
            proptest::prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[0-9smhd. ]{0,30}|.*") {
            drop(text.parse::<HumanDuration>());
        }
    }
}
