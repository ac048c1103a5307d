//! A real cprocessd in folders of its own, and what the kernel says that it used.

use crate::feed::{Feed, name};
use common::counters::Counters;
use common::message::{Event, Request, ValueRow, decode, encode};
use common::query::{ask, from_value};
use common::socket::{MAX_ANSWER_BYTES, Requester};
use common::subscriber::{Delivery, Publication, Start, follow};
use common::time::UnixMillis;
use rmpv::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::{Process, binaries, wait_at_most, wait_for};

/// Nothing that is measured takes longer, on a machine that does something else too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// Where the state is: on the disk that temporary folders are on, or in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    Real,
    Memory,
}

/// A running cprocessd and the feed that it follows.
pub(crate) struct Judge {
    process: Process,
    pub(crate) feed: Feed,
    events: Receiver<Told>,
    folder: TempDir,
    state: TempDir,
    runtime: tokio::runtime::Runtime,
    probes: usize,
}

/// An event, and when it was here.
pub(crate) struct Told {
    pub(crate) event: Event,
    pub(crate) at: Instant,
}

impl Told {
    /// The unit, if it is about a number of [`Feed::probe`].
    pub(crate) fn of_probe(&self) -> Option<String> {
        let address = self.event.address.to_string();
        Some(address.strip_prefix("probe!app.probe:")?.strip_suffix(".level")?.to_owned())
    }
}

impl Judge {
    /// Starts it with these rules, and waits until it judges.
    pub(crate) fn start(rules: &str, disk: Disk) -> Self {
        let temporary = |prefix: &str| tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder");
        let folder = temporary("judge");
        let state = match disk {
            Disk::Real => temporary("state"),
            Disk::Memory => tempfile::Builder::new().prefix("state").tempdir_in("/dev/shm").expect("memory"),
        };
        let run = folder.path().join("run");
        fs::create_dir(&run).expect("folder");
        let probe = "[[alarm]]\nname = 'probe'\nrule = 'probe!app.probe:*.level > 0.5 WARN'\n";
        let text = format!(
            "host = 'bench'\nrun_dir = '{}'\nstate_dir = '{}'\ndefault_rules = false\n{rules}{probe}",
            run.display(),
            state.path().display()
        );
        fs::write(folder.path().join("cprocessd.toml"), text).expect("written");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let feed = Feed::open(&run, &runtime);
        let process = spawn(folder.path());
        wait_for("the stream is there", || run.join("stream").exists().then_some(()));
        let events = subscribe(&run);
        feed.wait_for_subscriber();
        let mut judge = Self { process, feed, events, folder, state, runtime, probes: 0 };
        judge.settle();
        judge
    }

    /// The folder of its sockets.
    pub(crate) fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Ends it and starts it on the same state, to which `between` may have added; returns how long the first answer took.
    pub(crate) fn restart(&mut self, between: impl FnOnce(&Path)) -> Duration {
        self.process.terminate();
        self.feed.forget_subscriber();
        between(&self.state.path().join("cprocessd.db"));
        let began = Instant::now();
        self.process = spawn(self.folder.path());
        let mut requester = Requester::new(&self.run().join("query"));
        let health = Request::query("health");
        wait_at_most(PATIENCE, "the first answer", || {
            self.runtime.block_on(ask(&mut requester, &health, Duration::from_millis(200))).ok()
        });
        began.elapsed()
    }

    /// Until all that was written has been judged: a number that crosses a limit comes out as an event.
    pub(crate) fn settle(&mut self) {
        let unit = format!("settle{}", self.probes);
        self.probes += 1;
        self.feed.probe(&unit, 1.0);
        self.told_of(&unit);
    }

    /// The event about a unit; those before it are dropped.
    pub(crate) fn told_of(&self, unit: &str) -> Told {
        loop {
            let told = self.next(PATIENCE).expect("it is told");
            if told.of_probe().as_deref() == Some(unit) {
                return told;
            }
        }
    }

    /// The next event, if one comes in time.
    pub(crate) fn next(&self, patience: Duration) -> Option<Told> {
        self.events.recv_timeout(patience).ok()
    }

    /// An answer of its question socket.
    pub(crate) fn ask(&self, request: &Request) -> Value {
        let mut requester = Requester::new(&self.run().join("query")).at_most(1 << 30);
        self.runtime.block_on(ask(&mut requester, request, PATIENCE)).expect("an answer")
    }

    /// Nothing was refused, and these hosts' numbers are all of this date, or later.
    pub(crate) fn has_all(&self, hosts: impl Iterator<Item = usize>, series: usize, date: UnixMillis) {
        let health = self.ask(&Request::query("health"));
        let counters = health.as_map().expect("a map").iter().find(|(key, _)| key.as_str() == Some("counters"));
        let refused: Vec<_> = counters
            .and_then(|(_, counters)| counters.as_map())
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.as_str().is_some_and(|name| !name.ends_with("pauses")))
            .collect();
        assert!(refused.is_empty(), "refused: {refused:?}");
        for host in hosts {
            let request = Request { pattern: Some(format!("{}!app", name(host))), ..Request::query("last-value") };
            let rows: Vec<ValueRow> = from_value(&self.ask(&request)).expect("rows");
            assert_eq!(rows.len(), series, "all numbers of host {host}");
            assert!(rows.iter().all(|row| row.time >= date), "a number of host {host} is lost");
        }
    }

    /// CPU seconds so far.
    pub(crate) fn cpu(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.pid())).expect("it runs");
        tasks.filter_map(|task| ran(&task.ok()?.path())).sum()
    }

    /// A line of its status in MiB.
    pub(crate) fn memory(&self, field: &str) -> f64 {
        self.process.memory(field) as f64 / f64::from(1 << 20)
    }
}

fn spawn(folder: &Path) -> Process {
    let binaries = std::env::var_os("CAIRN_BINARIES").map_or_else(binaries, PathBuf::from);
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("log");
    let mut command = Command::new(binaries.join("cprocessd"));
    command.arg("--config").arg(folder.join("cprocessd.toml"));
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
}

/// Events as they arrive with somebody who follows the stream, as the notifiers do: what a burst drops is asked for.
pub(crate) fn subscribe(run: &Path) -> Receiver<Told> {
    let publication = Publication {
        publisher: run.join("stream"),
        questions: run.join("query"),
        prefixes: vec!["event."],
        unwanted: &[],
        max_answer_bytes: MAX_ANSWER_BYTES,
    };
    let (sender, events) = mpsc::channel();
    let (heard, is_heard) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (out, mut deliveries) = tokio::sync::mpsc::channel(64);
            tokio::spawn(follow(publication, Start::Now, Counters::default(), out));
            while let Some(delivery) = deliveries.recv().await {
                let at = Instant::now();
                match delivery {
                    Delivery::Entry { payload, .. } => {
                        let event = decode(&payload).expect("an event");
                        if sender.send(Told { event, at }).is_err() {
                            return;
                        }
                    }
                    Delivery::Beat(_) => drop(heard.send(())),
                    Delivery::Snapshot { .. } | Delivery::Lost { .. } | Delivery::Live { .. } => {}
                }
            }
        });
    });
    is_heard.recv_timeout(PATIENCE).expect("a beat proves that the subscription is in force");
    events
}

/// CPU seconds of a task, by its schedstat, which counts nanoseconds.
fn ran(task: &Path) -> Option<f64> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse::<f64>().ok().map(|ns| ns / 1e9)
}

/// CPU seconds of this thread.
pub(crate) fn own_cpu() -> f64 {
    ran(Path::new("/proc/thread-self")).expect("schedstat")
}

/// A question and its answer.
pub(crate) struct Asked {
    /// When it was due: what is asked late since the answer before was late counts as having waited.
    pub(crate) at: Instant,
    answered: Instant,
}

impl Asked {
    /// Seconds until the answer.
    pub(crate) fn took(&self) -> f64 {
        self.answered.saturating_duration_since(self.at).as_secs_f64()
    }
}

/// Asks a question again and again on one connection until `stop`, every so often, or as fast as it is answered.
pub(crate) async fn asker(
    socket: PathBuf,
    question: impl Fn(usize) -> Request,
    every: Duration,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> Vec<Asked> {
    let mut requester = Requester::new(&socket);
    let (mut asked, mut due) = (Vec::new(), Instant::now());
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        if every.is_zero() {
            due = Instant::now();
        } else {
            tokio::time::sleep_until(due.into()).await;
        }
        requester.ask(encode(&question(asked.len())), PATIENCE).await.expect("an answer");
        asked.push(Asked { at: due, answered: Instant::now() });
        due += every;
    }
    asked
}
