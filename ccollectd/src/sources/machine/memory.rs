//! Memory and swap, from `/proc/meminfo` (`Documentation/filesystems/proc.rst`, meminfo).

use std::collections::HashMap;

use super::{Missing, number, percentage};
use crate::sources::Reading;

/// The readings `physical` and `swap`.
///
/// `free` is what the kernel calls available: what programs could have without swapping. `cache`
/// includes the reclaimable part of the kernel's own, as in the program `free`.
pub(super) fn readings(meminfo: &str) -> Result<[Reading; 2], Missing> {
    let bytes: HashMap<&str, u64> = meminfo.lines().filter_map(parse_line).collect();
    let of = |name: &str| bytes.get(name).copied().unwrap_or(0);

    let total = *bytes.get("MemTotal").ok_or(Missing("MemTotal"))?;
    let cache = of("Cached").saturating_add(of("SReclaimable"));
    let reclaimable = of("MemFree").saturating_add(of("Buffers")).saturating_add(of("Cached"));
    // Kernels before 3.14 do not say what is available; this is what people computed then.
    let free = bytes.get("MemAvailable").copied().unwrap_or(reclaimable).min(total);

    let mut physical = occupancy(total, free);
    physical.extend([("buffers", number(of("Buffers"))), ("cache", number(cache))]);
    // A kernel without swap and a machine without swap look the same: a total of nothing.
    let swap = occupancy(of("SwapTotal"), of("SwapFree").min(of("SwapTotal")));
    Ok([Reading::new("memory", "physical", physical), Reading::new("memory", "swap", swap)])
}

fn occupancy(total: u64, free: u64) -> Vec<(&'static str, f64)> {
    let used = total.saturating_sub(free);
    vec![
        ("total", number(total)),
        ("used", number(used)),
        ("free", number(free)),
        ("used_percentage", percentage(used, total)),
    ]
}

/// The name and the bytes of a line like `MemTotal:       24684084 kB`.
fn parse_line(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(':')?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some((name, kilobytes.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_is_what_programs_could_still_have() {
        let text = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nBuffers: 50 kB\nCached: 200 kB\n\
                    SReclaimable: 30 kB\nSwapTotal: 200 kB\nSwapFree: 150 kB\nHugePages_Total: 3\n";
        let [physical, swap] = readings(text).unwrap();
        let kb = |count: f64| count * 1024.0;
        assert_eq!(
            physical.values,
            [
                ("total", kb(1000.0)),
                ("used", kb(600.0)),
                ("free", kb(400.0)),
                ("used_percentage", 60.0),
                ("buffers", kb(50.0)),
                ("cache", kb(230.0)),
            ]
        );
        let expected = [("total", kb(200.0)), ("used", kb(50.0)), ("free", kb(150.0)), ("used_percentage", 25.0)];
        assert_eq!(swap.values, expected);
    }

    #[test]
    fn a_machine_without_swap_uses_none_of_it() {
        let [_, swap] = readings("MemTotal: 1000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n").unwrap();
        assert_eq!(swap.values, [("total", 0.0), ("used", 0.0), ("free", 0.0), ("used_percentage", 0.0)]);
    }

    #[test]
    fn an_old_kernel_that_does_not_say_what_is_available_still_has_a_free() {
        let [physical, _] = readings("MemTotal: 100 kB\nMemFree: 10 kB\nBuffers: 20 kB\nCached: 30 kB\n").unwrap();
        assert_eq!(physical.values[2], ("free", 60.0 * 1024.0));
    }

    #[test]
    fn a_file_without_a_total_is_refused() {
        assert!(readings("").is_err());
        assert!(readings("MemTotal: lots\nMemTotal: 99999999999999999999 kB\n").is_err());
    }
}
