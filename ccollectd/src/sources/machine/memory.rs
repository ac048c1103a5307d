//! Memory and swap, from `/proc/meminfo` (`Documentation/filesystems/proc.rst`, meminfo).

use procfs::{FromRead, Meminfo};

use super::{Why, number, percentage};
use crate::sources::Reading;

/// The readings `physical` and `swap`.
///
/// `free` is what the kernel calls available: what programs could have without swapping. `cache`
/// includes the reclaimable part of the kernel's own, as in the program `free`.
pub(super) fn readings(meminfo: &str) -> Result<[Reading; 2], Why> {
    let memory = Meminfo::from_read(meminfo.as_bytes())?;
    let total = memory.mem_total;
    let cache = memory.cached.saturating_add(memory.s_reclaimable.unwrap_or(0));
    let reclaimable = memory.mem_free.saturating_add(memory.buffers).saturating_add(memory.cached);
    // Kernels before 3.14 do not say what is available; this is what people computed then.
    let free = memory.mem_available.unwrap_or(reclaimable).min(total);

    let mut physical = occupancy(total, free);
    physical.extend([("buffers", number(memory.buffers)), ("cache", number(cache))]);
    // A kernel without swap and a machine without swap look the same: a total of nothing.
    let swap = occupancy(memory.swap_total, memory.swap_free.min(memory.swap_total));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the kernel: what the test is about, and the rest of what the crate insists on.
    fn meminfo(lines: &str) -> String {
        const OTHERS: [&str; 15] = [
            "Buffers",
            "Cached",
            "SwapCached",
            "Active",
            "Inactive",
            "SwapTotal",
            "SwapFree",
            "Dirty",
            "Writeback",
            "Mapped",
            "Slab",
            "Committed_AS",
            "VmallocTotal",
            "VmallocUsed",
            "VmallocChunk",
        ];
        // The last line of a name counts, so those of the test come last.
        let others: String = OTHERS.map(|name| format!("{name}: 0 kB\n")).concat();
        others + lines
    }

    #[test]
    fn free_is_what_programs_could_still_have() {
        let text = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nBuffers: 50 kB\nCached: 200 kB\n\
                    SReclaimable: 30 kB\nSwapTotal: 200 kB\nSwapFree: 150 kB\nHugePages_Total: 3\n";
        let [physical, swap] = readings(&meminfo(text)).unwrap();
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
        let [_, swap] = readings(&meminfo("MemTotal: 1000 kB\nMemFree: 1 kB\n")).unwrap();
        assert_eq!(swap.values, [("total", 0.0), ("used", 0.0), ("free", 0.0), ("used_percentage", 0.0)]);
    }

    #[test]
    fn an_old_kernel_that_does_not_say_what_is_available_still_has_a_free() {
        let [physical, _] =
            readings(&meminfo("MemTotal: 100 kB\nMemFree: 10 kB\nBuffers: 20 kB\nCached: 30 kB\n")).unwrap();
        assert_eq!(physical.values[2], ("free", 60.0 * 1024.0));
    }

    #[test]
    fn a_file_without_a_total_is_refused() {
        for line in ["", "MemTotal: lots\n", "MemTotal: 99999999999999999999 kB\n"] {
            let text = meminfo(&format!("MemFree: 1 kB\n{line}"));
            assert!(readings(&text).is_err(), "{line}");
        }
    }
}
