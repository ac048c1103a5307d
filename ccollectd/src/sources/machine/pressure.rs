//! How long work waited for a resource, from `/proc/pressure` (`Documentation/accounting/psi.rst`).

use procfs::parse_pressure_record;

use super::{Missing, Why, hundredths, is_plausible};
use crate::sources::Reading;

/// The files under `/proc` and the units they are published as.
pub(super) const FILES: [(&str, &str); 3] =
    [("pressure/cpu", "cpu"), ("pressure/memory", "memory"), ("pressure/io", "io")];

/// The percentage of the last ten seconds in which some, and in which all, work was held up.
pub(super) fn reading(unit: &str, pressure: &str) -> Result<[Reading; 1], Why> {
    let some = average(pressure, "some").ok_or(Missing("line for some"))?;
    let mut values = vec![("some_10s", some)];
    // Before Linux 5.13 the file for the processors has no such line.
    values.extend(average(pressure, "full").map(|full| ("full_10s", full)));
    Ok([Reading::new("pressure", unit, values)])
}

/// The average of ten seconds in a line like
/// `some avg10=0.00 avg60=0.00 avg300=0.15 total=14033906`.
///
/// Line by line, because `CpuPressure` refuses a file without `full`. Only a line with a space
/// behind the kind may reach the crate: a shorter one makes it panic.
fn average(pressure: &str, kind: &str) -> Option<f64> {
    let is_wanted = |line: &&str| line.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '));
    let line = pressure.lines().find(is_wanted)?;
    let average = hundredths(parse_pressure_record(line).ok()?.avg10);
    is_plausible(average).then_some(average)
}

#[cfg(test)]
mod tests {
    use procfs::{CpuPressure, FromRead};

    use super::*;

    #[test]
    fn both_averages_are_those_of_ten_seconds() {
        let text = "some avg10=1.50 avg60=9.00 avg300=9.00 total=1\nfull avg10=0.25 avg60=9.00 avg300=9.00 total=1\n";
        let [reading] = reading("io", text).unwrap();
        assert_eq!((reading.unit.as_str(), reading.values), ("io", vec![("some_10s", 1.5), ("full_10s", 0.25)]));
    }

    #[test]
    fn an_old_kernel_has_no_full_for_the_processors() {
        let text = "some avg10=1.50 avg60=9.00 avg300=9.00 total=1\n";
        let [reading] = reading("cpu", text).unwrap();
        assert_eq!(reading.values, [("some_10s", 1.5)]);
        // The day this fails, the crate can have the whole file.
        assert!(CpuPressure::from_read(text.as_bytes()).is_err());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        for text in [
            "",
            "some",
            "some avg10=",
            "some avg10=1",
            "some avg10=nan avg60=9.00 avg300=9.00 total=1",
            "some avg10=-1 avg60=9.00 avg300=9.00 total=1",
            "full avg10=1 avg60=9.00 avg300=9.00 total=1",
        ] {
            assert!(reading("cpu", text).is_err(), "{text}");
        }
    }
}
