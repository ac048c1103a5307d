//! The machine as a whole: load average, uptime, number of processes.
//!
//! From `/proc/loadavg`, `/proc/uptime` and the lines `procs_` of `/proc/stat`
//! (`Documentation/filesystems/proc.rst`, 1.7 and 1.8).

use super::{Missing, decimal, number};
use crate::sources::Reading;

/// What `/proc/stat` says beside the ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheduler {
    /// The processors that are switched on.
    pub(super) cores: u32,
    /// Threads that run or could run.
    running: Option<u64>,
    /// Threads that wait for a device.
    blocked: Option<u64>,
}

impl Scheduler {
    pub(super) fn parse(stat: &str) -> Self {
        let mut scheduler = Self { cores: 0, running: None, blocked: None };
        for line in stat.lines() {
            match line.split_once(' ') {
                Some(("procs_running", count)) => scheduler.running = count.trim().parse().ok(),
                Some(("procs_blocked", count)) => scheduler.blocked = count.trim().parse().ok(),
                Some((label, _)) if is_core(label) => {
                    scheduler.cores = scheduler.cores.saturating_add(1);
                }
                Some(_) | None => (),
            }
        }
        scheduler
    }
}

fn is_core(label: &str) -> bool {
    label.strip_prefix("cpu").is_some_and(|digits| digits.parse::<u32>().is_ok())
}

/// The load average, plain and by processor; only plain where the number of processors is not
/// known.
pub(super) fn load_average(loadavg: &str, cores: u32) -> Result<[Reading; 1], Missing> {
    let averages: Vec<f64> = loadavg.split_ascii_whitespace().map_while(decimal).take(3).collect();
    let &[one, five, fifteen] = averages.as_slice() else {
        return Err(Missing("three averages"));
    };
    let mut values = vec![("1m", one), ("5m", five), ("15m", fifteen)];
    if cores > 0 {
        let cores = f64::from(cores);
        values.extend([("1m_per_core", one / cores), ("5m_per_core", five / cores), ("15m_per_core", fifteen / cores)]);
    }
    Ok([Reading::new("load_average", "", values)])
}

/// Seconds since the kernel started.
pub(super) fn uptime(uptime: &str) -> Result<[Reading; 1], Missing> {
    let seconds = uptime.split_ascii_whitespace().next().and_then(decimal).ok_or(Missing("number of seconds"))?;
    Ok([Reading::new("uptime", "", vec![("uptime", seconds)])])
}

/// The number of processes, and how many threads run or wait for a device.
///
/// Threads, because the kernel counts no other way: one process with eight busy threads makes eight
/// running.
pub(super) fn processes(total: usize, scheduler: Scheduler) -> [Reading; 1] {
    let mut values = vec![("total", number(total as u64))];
    values.extend(scheduler.running.map(|running| ("running", number(running))));
    values.extend(scheduler.blocked.map(|blocked| ("blocked", number(blocked))));
    [Reading::new("processes", "", values)]
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_unknown_number_of_processors_divides_nothing() {
        let [reading] = load_average("3.00 2.00 1.00 2/345 6789\n", 0).unwrap();
        assert_eq!(reading.values, [("1m", 3.0), ("5m", 2.0), ("15m", 1.0)]);
    }

    #[test]
    fn the_scheduler_counts_processors_and_threads() {
        let text = "cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nprocs_running 5\nprocs_blocked 2\n";
        let scheduler = Scheduler::parse(text);
        assert_eq!(scheduler, Scheduler { cores: 2, running: Some(5), blocked: Some(2) });
        let [reading] = processes(81, scheduler);
        assert_eq!(reading.values, [("total", 81.0), ("running", 5.0), ("blocked", 2.0)]);
    }

    #[test]
    fn texts_that_make_no_sense_are_refused() {
        for text in ["", "1.0 2.0", "inf 1 2", "-1 1 1", "a b c"] {
            assert!(load_average(text, 1).is_err(), "{text}");
        }
        assert!(uptime("").is_err());
        assert!(uptime("NaN 1").is_err());
        assert_eq!(Scheduler::parse("cpu\ncpux 1\nprocs_running many\n"), Scheduler::parse(""));
    }
}
