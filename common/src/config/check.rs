//! The checks between a raw struct and the checked type that several daemons need. Their errors are phrases for
//! [`ConfigError::in_file`](super::ConfigError::in_file).

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Refuses what is out of its bounds: a number, or a [`HumanDuration`](super::HumanDuration).
pub fn check_range<T: Copy + PartialOrd + Display>(
    key: &str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<(), String> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(format!("{key} is {value}, but must be {} to {}", bounds.start(), bounds.end()))
}

/// Refuses a name that is empty, has more than `most` bytes, or would break the line of a log.
pub fn check_name(key: &str, name: &str, most: usize) -> Result<(), String> {
    if name.is_empty() || name.len() > most || name.chars().any(char::is_control) {
        return Err(format!("{key} is {name:?}, but must be 1 to {most} bytes without control characters"));
    }
    Ok(())
}

/// Refuses a name that was given before.
pub fn check_unique<'a>(key: &str, names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(format!("{key} {name:?} stands twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HumanDuration;
    use std::time::Duration;

    #[test]
    fn what_is_out_of_bounds_is_said_with_them() {
        assert_eq!(check_range("burst", 1, 1..=100), Ok(()));
        assert_eq!(check_range("burst", 100, 1..=100), Ok(()));
        assert_eq!(check_range("burst", 0, 1..=100), Err("burst is 0, but must be 1 to 100".to_owned()));
        let secs = |secs| HumanDuration(Duration::from_secs(secs));
        let said = check_range("timeout", secs(90), secs(1)..=secs(60));
        assert_eq!(said, Err("timeout is 1m30s, but must be 1s to 1m".to_owned()));
    }

    #[test]
    fn a_name_is_short_and_on_one_line() {
        assert_eq!(check_name("name", "ops", 3), Ok(()));
        for name in ["", "open", "a\n"] {
            let said = check_name("name", name, 3);
            assert_eq!(said, Err(format!("name is {name:?}, but must be 1 to 3 bytes without control characters")));
        }
        assert_eq!(check_unique("name", ["a", "b"]), Ok(()));
        assert_eq!(check_unique("name", ["a", "b", "a"]), Err("name \"a\" stands twice".to_owned()));
    }
}
