//! How busy the processors are, from `/proc/stat` (`Documentation/filesystems/proc.rst`, 1.7).

use std::collections::HashMap;
use std::iter;

use procfs::{CpuTime, FromReadSI, KernelStats, ProcResult, current_system_info};

use super::percentage;
use crate::sources::Reading;

/// How far a counter may go backwards and be taken as standing still: one second, in ticks.
///
/// The kernel documents that `iowait` can fall, and `idle` has been seen to do the same by a tick.
/// A larger fall means that the processor was taken away and brought back with new counters.
const JITTER_TICKS: u64 = 100;

/// Ticks since the start in user, nice, system, idle, iowait, irq, softirq, steal.
///
/// The guests' ticks, which follow in the file, are part of user and nice and would count twice.
type Ticks = [u64; 8];

/// The ticks of every processor at the last reading.
#[derive(Debug, Default)]
pub(super) struct Cpu {
    last: HashMap<String, Ticks>,
}

impl Cpu {
    /// Takes `/proc/stat`, as it is and parsed; returns what the ticks since the last time were
    /// spent on, in percent of each unit.
    ///
    /// The text is needed too, because the crate forgets the numbers of the cores: where `cpu1` is
    /// switched off, it calls `cpu2` the second one.
    pub(super) fn advance(&mut self, text: &str, stat: &KernelStats) -> Vec<Reading> {
        let cores = core_names(text).zip(&stat.cpu_time);
        let current: Vec<(String, Ticks)> =
            iter::once(("all".to_owned(), &stat.total)).chain(cores).map(|(unit, time)| (unit, ticks(time))).collect();
        let before = std::mem::replace(&mut self.last, current.iter().cloned().collect());
        let reading_of = |(unit, ticks): &(String, Ticks)| {
            let values = shares(before.get(unit)?, ticks)?;
            Some(Reading::new("cpu", unit, values))
        };
        current.iter().filter_map(reading_of).collect()
    }
}

/// Parses `/proc/stat`, which holds more than the ticks.
pub(super) fn parse(stat: &str) -> ProcResult<KernelStats> {
    KernelStats::from_read(stat.as_bytes(), current_system_info())
}

/// `core1` for each line like `cpu1 14677 0 2198 133765 261 0 32 24 0 0`, those lines that the crate
/// takes for cores.
fn core_names(stat: &str) -> impl Iterator<Item = String> {
    stat.lines()
        .filter_map(|line| line.strip_prefix("cpu")?.split(' ').next())
        .filter(|number| !number.is_empty())
        .map(|number| format!("core{number}"))
}

/// Old kernels count less; user to idle have always been there.
fn ticks(time: &CpuTime) -> Ticks {
    [
        time.user,
        time.nice,
        time.system,
        time.idle,
        time.iowait.unwrap_or(0),
        time.irq.unwrap_or(0),
        time.softirq.unwrap_or(0),
        time.steal.unwrap_or(0),
    ]
}

fn shares(before: &Ticks, after: &Ticks) -> Option<Vec<(&'static str, f64)>> {
    let mut spent = Ticks::default();
    for ((spent, before), after) in spent.iter_mut().zip(before).zip(after) {
        if before.saturating_sub(*after) > JITTER_TICKS {
            return None;
        }
        *spent = after.saturating_sub(*before);
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal] = spent;
    let (user, system) = (user.saturating_add(nice), system.saturating_add(irq).saturating_add(softirq));
    let busy = user.saturating_add(system).saturating_add(steal);
    let total = busy.saturating_add(idle).saturating_add(iowait);
    if total == 0 {
        return None;
    }
    Some(vec![
        ("load", percentage(busy, total)),
        ("user", percentage(user, total)),
        ("system", percentage(system, total)),
        ("iowait", percentage(iowait, total)),
        ("steal", percentage(steal, total)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the lines for the processors; the crate insists on three others.
    fn advance(cpu: &mut Cpu, lines: &str) -> Vec<Reading> {
        let text = format!("{lines}ctxt 1\nbtime 1\nprocesses 1\n");
        cpu.advance(&text, &parse(&text).unwrap())
    }

    fn load_between(before: &str, after: &str) -> Vec<(String, Vec<(&'static str, f64)>)> {
        let mut cpu = Cpu::default();
        assert_eq!(advance(&mut cpu, before), [], "nothing is known at the first reading");
        advance(&mut cpu, after).into_iter().map(|reading| (reading.unit, reading.values)).collect()
    }

    #[test]
    fn every_tick_is_counted_once() {
        // user 20, nice 10, system 10, idle 40, iowait 10, irq 2, softirq 3, steal 5; guest 20 is
        // part of user.
        let values = load_between("cpu  0 0 0 0 0 0 0 0 0 0\n", "cpu  20 10 10 40 10 2 3 5 20 0\n");
        let expected = vec![("load", 50.0), ("user", 30.0), ("system", 15.0), ("iowait", 10.0), ("steal", 5.0)];
        assert_eq!(values, [("all".to_owned(), expected)]);
    }

    #[test]
    fn each_core_is_measured_by_itself() {
        let before = "cpu  0 0 0 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\n";
        let after = "cpu  100 0 0 100\ncpu0 100 0 0 0\ncpu1 0 0 0 100\n";
        let loads: Vec<(String, f64)> =
            load_between(before, after).into_iter().map(|(unit, values)| (unit, values[0].1)).collect();
        let expected = [("all", 50.0), ("core0", 100.0), ("core1", 0.0)];
        assert_eq!(loads, expected.map(|(unit, load)| (unit.to_owned(), load)));
    }

    #[test]
    fn an_iowait_that_falls_a_little_does_not_cost_the_interval() {
        let values = load_between("cpu  0 0 0 0 50 0 0 0\n", "cpu  30 0 0 70 48 0 0 0\n");
        assert_eq!(values[0].1[0], ("load", 30.0));
        assert_eq!(values[0].1[3], ("iowait", 0.0));
    }

    #[test]
    fn a_core_that_comes_back_with_new_counters_skips_one_interval() {
        let before = "cpu  9000 0 0 9000\ncpu1 5000 0 0 5000\n";
        let after = "cpu  9050 0 0 9050\ncpu1 5050 0 0 10\n";
        let units: Vec<String> = load_between(before, after).into_iter().map(|(unit, _)| unit).collect();
        assert_eq!(units, ["all"]);
    }

    #[test]
    fn a_core_that_was_off_is_not_measured_across_the_gap() {
        let mut cpu = Cpu::default();
        advance(&mut cpu, "cpu  0 0 0 0\ncpu1 0 0 0 0\n");
        advance(&mut cpu, "cpu  0 0 0 10\n");
        let readings = advance(&mut cpu, "cpu  0 0 0 20\ncpu1 10 0 0 10\n");
        assert_eq!(readings.len(), 1);
    }

    /// Why the text is asked for the numbers of the cores.
    #[test]
    fn a_core_that_is_off_does_not_rename_those_behind_it() {
        let text = "cpu  0 0 0 0\ncpu0 1 0 0 0\ncpu2 3 0 0 0\nctxt 1\nbtime 1\nprocesses 1\n";
        assert_eq!(parse(text).unwrap().cpu_time[1].user, 3, "procfs counts");
        assert_eq!(core_names(text).collect::<Vec<_>>(), ["core0", "core2"]);
    }

    #[test]
    fn no_tick_between_two_readings_is_no_reading() {
        assert_eq!(load_between("cpu  1 2 3 4\n", "cpu  1 2 3 4\n"), []);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        for line in ["", "cpu", "cpu  1 2", "cpu  x 2 3 4", "cpu  1 2 3 99999999999999999999"] {
            let text = format!("{line}\nctxt 1\nbtime 1\nprocesses 1\n");
            assert!(parse(&text).is_err(), "{line}");
        }
    }

    #[test]
    fn no_number_is_too_large() {
        let huge = format!("cpu  {max} {max} {max} {max} {max} {max} {max} {max}\n", max = u64::MAX);
        let values = load_between("cpu  0 0 0 0 0 0 0 0\n", &huge);
        assert!(values[0].1.iter().all(|(_, percent)| (0.0..=100.0).contains(percent)), "{values:?}");
    }
}
