//! What block devices do, from `/proc/diskstats` (`Documentation/admin-guide/iostats.rst`).

use std::collections::HashSet;
use std::time::Instant;

use procfs::DiskStat;

use super::rates::Rates;
use crate::sources::Reading;

/// The kernel counts in units of 512 bytes, whatever the sectors of the device.
const SECTOR_BYTES: u64 = 512;

/// Bytes read, bytes written, reads, writes, milliseconds in which something was under way.
type Counters = [u64; 5];

/// The counters of every device at the last reading.
#[derive(Debug, Default)]
pub(super) struct Io {
    rates: Rates<5>,
}

impl Io {
    /// Takes `/proc/diskstats`; returns the rates of whole devices that ever did something.
    ///
    /// Partitions only repeat their disk; loop and RAM disks repeat another device or nothing.
    pub(super) fn advance(&mut self, now: Instant, diskstats: &str) -> Vec<Reading> {
        let all: Vec<(String, Counters)> = diskstats.lines().filter_map(parse_line).collect();
        let names: HashSet<String> = all.iter().map(|(name, _)| name.clone()).collect();
        let whole: Vec<(String, Counters)> =
            all.into_iter().filter(|(name, _)| !is_memory_or_loop(name) && !is_partition(name, &names)).collect();
        let idle: HashSet<String> = whole
            .iter()
            .filter(|(_, [_, _, reads, writes, _])| *reads == 0 && *writes == 0)
            .map(|(name, _)| name.clone())
            .collect();
        // The idle ones are remembered too, so that their first bytes have a rate.
        let rates = self.rates.advance(now, whole);
        rates.into_iter().filter(|(name, _)| !idle.contains(name)).map(reading).collect()
    }
}

fn reading((name, [read_bytes, write_bytes, reads, writes, busy_ms]): (String, [f64; 5])) -> Reading {
    let values = vec![
        ("read_bytes_per_s", read_bytes),
        ("write_bytes_per_s", write_bytes),
        ("read_ops_per_s", reads),
        ("write_ops_per_s", writes),
        // Milliseconds per second; the device's clock and ours differ by a tick, hence the limit.
        ("busy_percentage", (busy_ms / 10.0).min(100.0)),
    ];
    Reading::new("io", &name, values)
}

/// The name and counters of a device.
///
/// Line by line, because `DiskStats` refuses the whole file for one line that makes no sense.
fn parse_line(line: &str) -> Option<(String, Counters)> {
    let disk = DiskStat::from_line(line).ok()?;
    let counters = [
        disk.sectors_read.checked_mul(SECTOR_BYTES)?,
        disk.sectors_written.checked_mul(SECTOR_BYTES)?,
        disk.reads,
        disk.writes,
        disk.time_in_progress,
    ];
    Some((disk.name, counters))
}

fn is_memory_or_loop(name: &str) -> bool {
    let numbered =
        |prefix| name.strip_prefix(prefix).is_some_and(|rest: &str| rest.starts_with(|c: char| c.is_ascii_digit()));
    numbered("loop") || numbered("ram")
}

/// Whether a name is that of another device in the list plus a number, as in `sda1` or `nvme0n1p2`.
///
/// A disk whose name ends in a digit has a `p` before the number, so that `dm-10` is no part of
/// `dm-1`. A disk that is not in the list has no partitions: the only device of a virtual machine
/// may well be called `xvda1`.
fn is_partition(name: &str, names: &HashSet<String>) -> bool {
    let ends_in_digit = |text: &str| text.ends_with(|c: char| c.is_ascii_digit());
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return false;
    }
    names.contains(stem) || stem.strip_suffix('p').is_some_and(|disk| ends_in_digit(disk) && names.contains(disk))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use procfs::{DiskStats, FromRead};

    use super::*;

    /// The captured devices at two instants, 10 s apart.
    fn captured() -> Vec<Reading> {
        let start = Instant::now();
        let mut io = Io::default();
        assert_eq!(io.advance(start, include_str!("../testdata/diskstats.1")), []);
        io.advance(start + Duration::from_secs(10), include_str!("../testdata/diskstats.2"))
    }

    #[test]
    fn only_whole_devices_that_did_something_are_told() {
        let units: Vec<String> = captured().into_iter().map(|reading| reading.unit).collect();
        assert_eq!(units, ["nvme0n1", "sda", "md0", "dm-1", "dm-10", "cciss/c0d0", "xvda1"]);
    }

    #[test]
    fn sectors_become_bytes_and_milliseconds_become_percent() {
        let nvme = captured().remove(0);
        assert_eq!(
            nvme.values,
            [
                ("read_bytes_per_s", 512.0 * 200.0),
                ("write_bytes_per_s", 512.0 * 1000.0),
                ("read_ops_per_s", 10.0),
                ("write_ops_per_s", 50.0),
                ("busy_percentage", 25.0),
            ]
        );
    }

    #[test]
    fn the_first_bytes_of_a_device_have_a_rate() {
        let start = Instant::now();
        let mut io = Io::default();
        io.advance(start, "8 0 sda 0 0 0 0 0 0 0 0 0 0 0\n");
        let readings = io.advance(start + Duration::from_secs(1), "8 0 sda 1 0 8 1 0 0 0 0 0 1 1\n");
        assert_eq!(readings[0].values[0], ("read_bytes_per_s", 4096.0));
    }

    #[test]
    fn a_device_is_never_busier_than_always() {
        let start = Instant::now();
        let mut io = Io::default();
        io.advance(start, "8 0 sda 1 0 8 1 0 0 0 0 0 1 1\n");
        let readings = io.advance(start + Duration::from_secs(1), "8 0 sda 2 0 8 1 0 0 0 0 0 1009 1\n");
        assert_eq!(readings[0].values[4], ("busy_percentage", 100.0));
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        for line in ["", "8", "8 0", "8 0 sda", "8 1 sda1 1 2 3 4", "8 0 sda 1 0 99999999999999999999 1 0 0 0 0 0 1 1"]
        {
            assert_eq!(parse_line(line), None, "{line}");
        }
        assert_eq!(parse_line(&format!("8 0 sda 1 0 {} 1 0 0 0 0 0 1 1", u64::MAX)), None);
    }

    /// Why the lines are separated here.
    #[test]
    fn the_crate_refuses_all_devices_for_the_sake_of_one() {
        let text = "8 0 sda 1 0 8 1 0 0 0 0 0 1 1\n8 1 sda1 1 2 3 4\n";
        assert!(DiskStats::from_read(text.as_bytes()).is_err());
        assert_eq!(text.lines().filter_map(parse_line).count(), 1);
    }
}
