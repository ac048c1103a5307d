//! The numbers of the machine itself: processors, memory, disks, network, pressure.
//!
//! Everything comes from text files of the kernel. They are parsed here and not by a crate, because
//! the parsers at hand refuse a whole file for one line they do not know, and a monitor that goes
//! blind after a kernel update is worse than one that lacks a number. A line that makes no sense
//! costs only itself; a file that cannot be read costs only its own part, and that is logged once.
//!
//! Reading and computing are apart: [`Proc`] reads, each part gets a text (and, for rates, the
//! instant at which it was read) and remembers the counters it needs. The file systems are asked by
//! [`Disks`] and not by [`Machine`], because that question alone can block.

mod cpu;
mod disk;
mod io;
mod memory;
mod network;
mod pressure;
mod rates;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Instant;

pub(crate) use disk::Disks;

use super::Reading;

/// Everything about the machine that can be read without waiting for a device.
#[derive(Debug)]
pub(crate) struct Machine {
    proc: Proc,
    cpu: cpu::Cpu,
    io: io::Io,
    network: network::Network,
    faults: Faults,
}

impl Machine {
    /// A machine of which nothing has been read yet: the first reading holds no rates.
    pub(crate) fn new() -> Self {
        Self::with_proc("/proc")
    }

    fn with_proc(root: impl Into<PathBuf>) -> Self {
        Self {
            proc: Proc { root: root.into() },
            cpu: cpu::Cpu::default(),
            io: io::Io::default(),
            network: network::Network::default(),
            faults: Faults::default(),
        }
    }

    /// Reads everything once; `now` is the instant of this reading and dates the rates.
    ///
    /// A fraction of a millisecond, and nothing in it waits for a device: an async task may call
    /// it.
    pub(crate) fn read_kernel(&mut self, now: Instant) -> Vec<Reading> {
        let mut pass = Pass::default();

        let mut scheduler = None;
        pass.add(self.proc.parse("stat", |text| {
            scheduler = Some(system::Scheduler::parse(text));
            self.cpu.advance(text)
        }));
        pass.add(self.proc.parse("loadavg", |text| {
            let cores = scheduler.map_or(0, |scheduler| scheduler.cores);
            system::load_average(text, cores)
        }));
        pass.add(self.proc.parse("uptime", system::uptime));
        if let Some(scheduler) = scheduler {
            pass.add(self.proc.count_processes().map(|total| system::processes(total, scheduler)));
        }
        pass.add(self.proc.parse("meminfo", memory::readings));
        pass.add(self.proc.parse("diskstats", |text| Ok(self.io.advance(now, text))));
        pass.add(self.proc.parse("net/dev", |text| Ok(self.network.advance(now, text))));
        for (file, unit) in pressure::FILES {
            // Pressure is a choice made when the kernel is built or started; its absence is no
            // news.
            pass.add_if_present(self.proc.parse(file, |text| pressure::reading(unit, text)));
        }

        self.faults.settle(pass.faults);
        pass.readings
    }
}

/// The folder in which the kernel shows itself, `/proc` except in tests.
#[derive(Debug)]
struct Proc {
    root: PathBuf,
}

impl Proc {
    fn parse<T>(&self, file: &'static str, parse: impl FnOnce(&str) -> Result<T, Missing>) -> Result<T, Fault> {
        let path = self.root.join(file);
        // Names of devices are bytes. Losing a strange one is better than losing the file.
        let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match text.map(|text| parse(&text)) {
            Ok(Ok(parsed)) => Ok(parsed),
            Ok(Err(missing)) => Err(Fault { what: path.display().to_string(), why: Why::Missing(missing) }),
            Err(source) => Err(Fault { what: path.display().to_string(), why: Why::Unreadable(source) }),
        }
    }

    /// The number of processes, which no file tells: `/proc/loadavg` counts threads.
    fn count_processes(&self) -> Result<usize, Fault> {
        let entries = fs::read_dir(&self.root)
            .map_err(|source| Fault { what: self.root.display().to_string(), why: Why::Unreadable(source) })?;
        let is_pid = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        Ok(entries.flatten().filter(|entry| is_pid(&entry.file_name())).count())
    }
}

/// What a file of the kernel was expected to hold and does not.
#[derive(Debug, thiserror::Error)]
#[error("no usable {0} in it")]
struct Missing(&'static str);

/// One thing that could not be read, and why.
#[derive(Debug)]
struct Fault {
    what: String,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{0}")]
    Missing(#[from] Missing),
    /// Where the kernel may lack the file by choice, `NotFound` and `Unsupported` are no fault.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
}

impl Fault {
    fn is_absence(&self) -> bool {
        match &self.why {
            Why::Missing(_) => false,
            // With `psi=0` the files are there and reading them says "operation not supported".
            Why::Unreadable(error) => {
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported)
            }
        }
    }
}

/// What came of reading every part once.
#[derive(Debug, Default)]
struct Pass {
    readings: Vec<Reading>,
    faults: Vec<Fault>,
}

impl Pass {
    fn add(&mut self, part: Result<impl IntoIterator<Item = Reading>, Fault>) {
        match part {
            Ok(readings) => self.readings.extend(readings),
            Err(fault) => self.faults.push(fault),
        }
    }

    fn add_if_present(&mut self, part: Result<impl IntoIterator<Item = Reading>, Fault>) {
        if !part.as_ref().is_err_and(Fault::is_absence) {
            self.add(part);
        }
    }
}

/// What could not be read last time, so that a change is logged and its repetition is not.
#[derive(Debug, Default)]
struct Faults {
    open: BTreeSet<String>,
}

/// How the faults of one pass differ from those of the pass before.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// What failed and the reason, by name.
    begun: BTreeMap<String, String>,
    ended: Vec<String>,
}

impl Faults {
    fn settle(&mut self, faults: Vec<Fault>) {
        let change = self.change(faults);
        for (what, why) in change.begun {
            tracing::warn!("cannot read {what}: {why}; going on without it");
        }
        for what in change.ended {
            tracing::info!("{what} no longer fails");
        }
    }

    fn change(&mut self, faults: Vec<Fault>) -> Change {
        let current: BTreeMap<String, String> =
            faults.into_iter().map(|fault| (fault.what, fault.why.to_string())).collect();
        let ended = self.open.iter().filter(|what| !current.contains_key(*what)).cloned().collect();
        let before = std::mem::replace(&mut self.open, current.keys().cloned().collect());
        let begun = current.into_iter().filter(|(what, _)| !before.contains(what)).collect();
        Change { begun, ended }
    }
}

/// A counter as the number that is published.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 petabytes, or 285 years of milliseconds")]
fn number(count: u64) -> f64 {
    count as f64
}

/// How much of the whole a part is, from 0 to 100; 0 of nothing.
fn percentage(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * number(part) / number(whole) }
}

/// A number of the kernel's texts that is neither negative nor infinite.
fn decimal(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

#[cfg(test)]
mod tests;
