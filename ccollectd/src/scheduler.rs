//! Looks at each thing when it is time, and turns what the sources see into messages.
//!
//! Every port has a task of its own, so that one which hangs delays no other; its probes come one after another, so they
//! never overlap. What can block in the kernel runs on threads of its own and is skipped while the last round has not
//! come back.

use crate::config::{Port, Process, Sources};
use crate::keeper::Observed;
use crate::sources::Reading;
use crate::sources::machine::{Disks, Machine};
use crate::sources::port;
use crate::sources::process::{self, ProcessRule};
use common::address::{HostName, Name, Unit};
use common::message::{Sample, Values};
use common::time::{UnixMillis, for_people};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// The longest wait before a failed attempt is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A round of reading disks that takes longer than this is worth a line in the log.
const HUNG_AFTER: Duration = Duration::from_secs(10);

/// What the sources see.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// Numbers that were read together.
    Numbers(Vec<Sample>),
    /// The state of a configured check.
    State(Observed),
}

/// Runs the sources.
#[derive(Debug)]
pub(crate) struct Scheduler {
    host: HostName,
    observations: mpsc::Sender<Observation>,
    running: JoinSet<()>,
    /// Held while disks are read, across a reload too, so that a disk which hangs holds one thread and no more.
    disks: Arc<Mutex<Disks>>,
}

impl Scheduler {
    /// Runs nothing yet.
    pub(crate) fn new(host: HostName, observations: mpsc::Sender<Observation>) -> Self {
        Self { host, observations, running: JoinSet::new(), disks: Arc::default() }
    }

    /// Looks at these things from now on, and at no others.
    ///
    /// First looks are spread over the interval, so that no moment has all the work of it.
    pub(crate) fn run(&mut self, sources: &Sources) {
        self.stop();
        if let Some(every) = sources.machine {
            self.running.spawn(watch_kernel(self.host.clone(), every, self.observations.clone()));
            let disks = Arc::clone(&self.disks);
            self.running.spawn(watch_disks(self.host.clone(), every, disks, self.observations.clone()));
        }
        let share = u32::try_from(sources.ports.len().max(1)).unwrap_or(u32::MAX);
        for (nth, port) in (0_u32..).zip(&sources.ports) {
            let delay = port.interval / share * nth;
            self.running.spawn(watch_port(port.clone(), delay, self.observations.clone()));
        }
        let mut by_interval: BTreeMap<Duration, Vec<Process>> = BTreeMap::new();
        for process in &sources.processes {
            by_interval.entry(process.interval).or_default().push(process.clone());
        }
        for (every, processes) in by_interval {
            self.running.spawn(watch_processes(self.host.clone(), every, processes, self.observations.clone()));
        }
    }

    /// Looks at nothing any more.
    pub(crate) fn stop(&mut self) {
        self.running.abort_all();
        self.running.detach_all();
    }
}

/// Ticks at a fixed rate; a tick that is missed is skipped.
fn ticks(every: Duration, delay: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + delay, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn watch_kernel(host: HostName, every: Duration, observations: mpsc::Sender<Observation>) {
    let mut machine = Machine::new();
    let mut ticks = ticks(every, Duration::ZERO);
    loop {
        ticks.tick().await;
        let samples = samples(&host, UnixMillis::now(), every, machine.read_kernel(Instant::now()));
        if observations.send(Observation::Numbers(samples)).await.is_err() {
            return;
        }
    }
}

async fn watch_disks(
    host: HostName,
    every: Duration,
    disks: Arc<Mutex<Disks>>,
    observations: mpsc::Sender<Observation>,
) {
    let mut ticks = ticks(every, Duration::ZERO);
    let mut last_begun = Instant::now();
    let mut is_hung = false;
    loop {
        ticks.tick().await;
        let Ok(mut disks) = Arc::clone(&disks).try_lock_owned() else {
            if !is_hung && last_begun.elapsed() > HUNG_AFTER {
                is_hung = true;
                tracing::warn!("a disk has not answered for {}; no numbers of disks", for_people(HUNG_AFTER));
            }
            continue;
        };
        if std::mem::take(&mut is_hung) {
            tracing::info!("all disks answer again after {}", for_people(last_begun.elapsed()));
        }
        last_begun = Instant::now();
        let (host, observations) = (host.clone(), observations.clone());
        // Not waited for: the lock tells whether it has come back.
        drop(tokio::task::spawn_blocking(move || {
            let samples = samples(&host, UnixMillis::now(), every, disks.read_disks());
            // Fails only when the daemon ends.
            let _ = observations.blocking_send(Observation::Numbers(samples));
        }));
    }
}

async fn watch_port(port: Port, delay: Duration, observations: mpsc::Sender<Observation>) {
    let mut ticks = ticks(port.interval, delay);
    let pause = RETRY_PAUSE.min(port.interval / 10);
    // A target that does not answer takes its time: the next outcome may be due later than the next probe.
    let due = port.interval.max((port.timeout + pause) * port.attempts);
    loop {
        ticks.tick().await;
        let result = port::probe(&port.address, port.attempts, port.timeout, pause).await;
        let observed = Observed {
            service: Sources::port(),
            unit: port.unit.clone(),
            time: UnixMillis::now(),
            interval: due,
            up: result.up,
            retries: result.retries,
            text: result.text,
        };
        if observations.send(Observation::State(observed)).await.is_err() {
            return;
        }
    }
}

async fn watch_processes(
    host: HostName,
    every: Duration,
    processes: Vec<Process>,
    observations: mpsc::Sender<Observation>,
) {
    let rules: Arc<Vec<ProcessRule>> = Arc::new(processes.iter().map(rule).collect());
    let mut ticks = ticks(every, Duration::ZERO);
    let mut fails = false;
    loop {
        ticks.tick().await;
        let counting = Arc::clone(&rules);
        let counted = match tokio::task::spawn_blocking(move || process::count(&counting)).await {
            Ok(Ok(counted)) => counted,
            Ok(Err(error)) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::warn!("processes cannot be counted, will retry: {error}");
                }
                continue;
            }
            // The runtime ends.
            Err(_) => return,
        };
        if std::mem::take(&mut fails) {
            tracing::info!("processes can be counted again");
        }
        let time = UnixMillis::now();
        let mut numbers = Vec::new();
        for ((process, rule), counted) in processes.iter().zip(rules.iter()).zip(counted) {
            let verdict = rule.judge(&counted);
            numbers.push(Sample {
                host: host.clone(),
                from: host.clone(),
                service: Sources::process(),
                time,
                interval_ms: millis(every),
                resource: name("instances"),
                unit: process.unit.clone(),
                values: Values(vec![(name("count"), f64::from(counted.running))]),
                backfill: false,
            });
            let observed = Observed {
                service: Sources::process(),
                unit: process.unit.clone(),
                time,
                interval: every,
                up: verdict.up,
                retries: 0,
                text: verdict.text,
            };
            if observations.send(Observation::State(observed)).await.is_err() {
                return;
            }
        }
        if observations.send(Observation::Numbers(numbers)).await.is_err() {
            return;
        }
    }
}

fn rule(process: &Process) -> ProcessRule {
    let (name, args) = (process.name.clone(), process.args.clone());
    ProcessRule {
        name: Box::new(move |text| name.matches(text)),
        args: args.map(|args| -> process::Matcher { Box::new(move |text| args.matches(text)) }),
        min: process.min,
        max: process.max,
    }
}

/// Readings as messages. What is no number is left out, and a reading without any number with it.
fn samples(host: &HostName, time: UnixMillis, every: Duration, readings: Vec<Reading>) -> Vec<Sample> {
    let sample = |reading: Reading| {
        let mut values =
            Values(reading.values.into_iter().map(|(attribute, value)| (name(attribute), value)).collect());
        values.drop_non_finite();
        // A mount point may be longer than any unit.
        let unit: Unit = reading.unit.parse().ok()?;
        (!values.0.is_empty()).then(|| Sample {
            host: host.clone(),
            from: host.clone(),
            service: name("machine"),
            time,
            interval_ms: millis(every),
            resource: name(reading.resource),
            unit,
            values,
            backfill: false,
        })
    };
    readings.into_iter().filter_map(sample).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn name(word: &str) -> Name {
    word.parse().expect("the sources name things by words")
}
