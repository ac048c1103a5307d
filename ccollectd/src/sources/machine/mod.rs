//! The numbers of the machine itself: processors, memory, disks, network, pressure.
//!
//! Everything comes from text files of the kernel, parsed by the crate `procfs`; what the numbers
//! mean is decided here. Where the crate takes single lines (disks, mounts, pressure) it gets them,
//! because then a line that makes no sense costs only itself. A file that cannot be read, or that
//! the crate refuses, costs only its own part, and that is logged once.
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

use procfs::ProcError;

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

        let mut scheduler = system::Scheduler::default();
        pass.add(self.proc.parse("stat", |text| {
            let stat = cpu::parse(text)?;
            scheduler = system::Scheduler::from(&stat);
            Ok(self.cpu.advance(text, &stat))
        }));
        pass.add(self.proc.parse("loadavg", |text| system::load_average(text, scheduler.cores)));
        pass.add(self.proc.parse("uptime", system::uptime));
        pass.add(self.proc.count_processes().map(|total| system::processes(total, scheduler)));
        pass.add(self.proc.parse("meminfo", memory::readings));
        pass.add(self.proc.parse("diskstats", |text| Ok(self.io.advance(now, text))));
        pass.add(self.proc.parse("net/dev", |text| self.network.advance(now, text)));
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
    fn parse<T>(&self, file: &'static str, parse: impl FnOnce(&str) -> Result<T, Why>) -> Result<T, Fault> {
        let path = self.root.join(file);
        // Names of devices are bytes, and the crate refuses a file that is not text. Losing a
        // strange name is better than losing the file.
        fs::read(&path)
            .map_err(Why::from)
            .and_then(|bytes| parse(&String::from_utf8_lossy(&bytes)))
            .map_err(|why| Fault { what: path.display().to_string(), why })
    }

    /// The number of processes, which no file tells: `/proc/loadavg` counts threads.
    ///
    /// Without `procfs::process::all_processes`, which opens each process it lists: that takes five
    /// times as long, and with some hundred processes longer than all the rest of a reading.
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
    #[error("{}", in_one_line(.0))]
    Refused(#[from] ProcError),
    /// Where the kernel may lack the file by choice, `NotFound` and `Unsupported` are no fault.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
}

/// The crate begins a new line in its messages, which a log must not.
fn in_one_line(error: &ProcError) -> String {
    error.to_string().replace('\n', ": ")
}

impl Fault {
    fn is_absence(&self) -> bool {
        match &self.why {
            Why::Missing(_) | Why::Refused(_) => false,
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

/// A number that the kernel prints with two decimals and the crate rounds to an `f32`, as printed.
///
/// Without this, a load of 0.05 would be published as 0.05000000074505806.
fn hundredths(rounded: f32) -> f64 {
    (f64::from(rounded) * 100.0).round() / 100.0
}

/// Whether a number can be one of the kernel's; the crate also takes `nan`, `inf` and `-1`.
fn is_plausible(number: f64) -> bool {
    number.is_finite() && number >= 0.0
}

#[cfg(test)]
mod tests;
