//! The machine as a whole: load average, uptime, number of processes.
//!
//! From `/proc/loadavg`, `/proc/uptime` and the lines `procs_` of `/proc/stat`
//! (`Documentation/filesystems/proc.rst`, 1.7 and 1.8).

use procfs::{FromRead, KernelStats, LoadAverage, Uptime};

use super::{Missing, Why, hundredths, is_plausible, number};
use crate::sources::Reading;

/// What `/proc/stat` says beside the ticks; nothing where it cannot be read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheduler {
    /// The processors that are switched on.
    pub(super) cores: u32,
    /// Threads that run or could run.
    running: Option<u32>,
    /// Threads that wait for a device.
    blocked: Option<u32>,
}

impl From<&KernelStats> for Scheduler {
    fn from(stat: &KernelStats) -> Self {
        Self {
            cores: u32::try_from(stat.cpu_time.len()).unwrap_or(u32::MAX),
            running: stat.procs_running,
            blocked: stat.procs_blocked,
        }
    }
}

/// The load average, plain and by processor; only plain where the number of processors is not
/// known.
pub(super) fn load_average(loadavg: &str, cores: u32) -> Result<[Reading; 1], Why> {
    let load = LoadAverage::from_read(loadavg.as_bytes())?;
    let averages = [load.one, load.five, load.fifteen].map(hundredths);
    if !averages.into_iter().all(is_plausible) {
        return Err(Missing("three averages").into());
    }
    let [one, five, fifteen] = averages;
    let mut values = vec![("1m", one), ("5m", five), ("15m", fifteen)];
    if cores > 0 {
        let cores = f64::from(cores);
        values.extend([("1m_per_core", one / cores), ("5m_per_core", five / cores), ("15m_per_core", fifteen / cores)]);
    }
    Ok([Reading::new("load_average", "", values)])
}

/// Seconds since the kernel started.
pub(super) fn uptime(uptime: &str) -> Result<[Reading; 1], Why> {
    let seconds = Uptime::from_read(uptime.as_bytes())?.uptime;
    if !is_plausible(seconds) {
        return Err(Missing("number of seconds").into());
    }
    Ok([Reading::new("uptime", "", vec![("uptime", seconds)])])
}

/// The number of processes, and how many threads run or wait for a device.
///
/// Threads, because the kernel counts no other way: one process with eight busy threads makes eight
/// running.
pub(super) fn processes(total: usize, scheduler: Scheduler) -> [Reading; 1] {
    let mut values = vec![("total", number(total as u64))];
    values.extend(scheduler.running.map(|running| ("running", f64::from(running))));
    values.extend(scheduler.blocked.map(|blocked| ("blocked", f64::from(blocked))));
    [Reading::new("processes", "", values)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::machine::cpu;

    #[test]
    fn the_load_is_also_told_by_processor() {
        let [reading] = load_average("3.00 2.00 1.00 2/345 6789\n", 4).unwrap();
        assert_eq!(
            reading.values,
            [
                ("1m", 3.0),
                ("5m", 2.0),
                ("15m", 1.0),
                ("1m_per_core", 0.75),
                ("5m_per_core", 0.5),
                ("15m_per_core", 0.25),
            ]
        );
    }

    #[test]
    fn a_load_is_published_as_it_is_printed() {
        let text = "0.05 0.10 12345.67 2/345 6789\n";
        let [reading] = load_average(text, 0).unwrap();
        assert_eq!(reading.values, [("1m", 0.05), ("5m", 0.1), ("15m", 12345.67)]);
    }

    #[test]
    fn an_unknown_number_of_processors_divides_nothing() {
        let [reading] = load_average("3.00 2.00 1.00 2/345 6789\n", 0).unwrap();
        assert_eq!(reading.values, [("1m", 3.0), ("5m", 2.0), ("15m", 1.0)]);
    }

    #[test]
    fn the_scheduler_counts_processors_and_threads() {
        let text = "cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nctxt 1\nbtime 1\nprocesses 1\n\
                    procs_running 5\nprocs_blocked 2\n";
        let scheduler = Scheduler::from(&cpu::parse(text).unwrap());
        assert_eq!(scheduler, Scheduler { cores: 2, running: Some(5), blocked: Some(2) });
        let [reading] = processes(81, scheduler);
        assert_eq!(reading.values, [("total", 81.0), ("running", 5.0), ("blocked", 2.0)]);
    }

    #[test]
    fn texts_that_make_no_sense_are_refused() {
        for text in ["", "1.0 2.0", "inf 1 2 3/4 5", "-1 1 1 3/4 5", "a b c 3/4 5"] {
            assert!(load_average(text, 1).is_err(), "{text}");
        }
        assert!(uptime("").is_err());
        assert!(uptime("NaN 1").is_err());
    }
}
