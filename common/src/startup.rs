//! What every daemon's `main` shares: the command line, the log, signals, the service manager, exit codes.

use crate::address::HostName;
use crate::config::ConfigError;
use crate::counters::Counters;
use crate::database::DatabaseError;
use crate::message::{Epoch, Health};
use crate::socket::SocketError;
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The command line said something we do not know (sysexits.h: EX_USAGE).
pub const EXIT_USAGE: u8 = 64;
/// The configuration is wrong (sysexits.h: EX_CONFIG). systemd does not restart after this.
pub const EXIT_CONFIG: u8 = 78;

/// The command line of every daemon.
#[derive(Clone, Debug, clap::Args)]
pub struct DaemonArgs {
    /// Configuration file; drop-ins beside it in NAME.d/*.toml are added
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and exit
    #[arg(long)]
    pub check_config: bool,
    /// Print all traffic to the terminal
    #[arg(long)]
    pub print: bool,
    /// Log more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl DaemonArgs {
    /// The configuration file, by default `/etc/cairn/NAME.toml`.
    pub fn config_path(&self, name: &str) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(format!("/etc/cairn/{name}.toml")))
    }
}

/// Says why a reload changes nothing: a line for each mistake.
pub fn stays_configured(error: &ConfigError) {
    for mistake in error.lines() {
        tracing::error!("the configuration stays as it was: {mistake}");
    }
}

/// Why a daemon ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A person must mend the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The journal or the state cannot be opened or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Parses the command line; on a mistake the process ends with [`EXIT_USAGE`].
pub fn parse_args<T: Parser>() -> T {
    T::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { i32::from(EXIT_USAGE) } else { 0 })
    })
}

/// What `--check-config` says where nothing is wrong.
pub fn say_fine(config: &Path) -> Result<(), Fatal> {
    // Whoever does not read it has the exit code.
    let _ = writeln!(std::io::stdout(), "{}: fine", config.display());
    Ok(())
}

/// Says what went wrong and turns it into the exit code of DESIGN §9.
pub fn exit_code(result: Result<(), Fatal>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match &error {
                Fatal::Config(mistakes) => mistakes.lines().for_each(|line| tracing::error!("{line}")),
                other => tracing::error!("{other}"),
            }
            if let Fatal::Database(error) = &error {
                // A row that cannot be read would end the next start as well.
                error.mark_damage();
            }
            match error {
                Fatal::Config(_) => ExitCode::from(EXIT_CONFIG),
                Fatal::Socket(_) | Fatal::Database(_) | Fatal::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Starts the log on standard error and makes any panic end the process: a daemon that lost one of its tasks would look
/// alive and be deaf, while the service manager restarts one that is gone.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::INFO,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // The system journal has its own clock.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    // Sockets and databases are for the daemon's user and group.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o007));
}

/// Runs a daemon on a runtime of two workers: sockets are served while the main task judges or waits for the disk.
pub fn block_on<F: Future<Output = Result<(), Fatal>>>(daemon: F) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Fatal::Other(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(daemon);
    // A source that hangs in the kernel must not keep the process.
    runtime.shutdown_background();
    result
}

/// The signals a daemon obeys.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Drain and exit.
    Stop,
    /// Read the configuration again.
    Reload,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP.
    pub fn new() -> Result<Self, Fatal> {
        let take = |kind| signal(kind).map_err(|error| Fatal::Other(format!("cannot take over signals: {error}")));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// The next signal. Safe to cancel.
    pub async fn recv(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// Tells the service manager that everything which can go wrong at start has gone well (sd_notify(3)).
pub fn notify_ready() {
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells the service manager that the main loop turns. Once a second.
pub fn notify_watchdog() {
    notify(&[sd_notify::NotifyState::Watchdog]);
}

/// Tells the service manager that we are on our way out.
pub fn notify_stopping() {
    notify(&[sd_notify::NotifyState::Stopping]);
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("the service manager was not told: {error}");
    }
}

/// What `health` says of any daemon.
pub fn health(daemon: &str, epoch: Option<&Epoch>, head_seq: u64, started: Instant, counters: &Counters) -> Health {
    Health {
        daemon: daemon.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: epoch.cloned(),
        head_seq,
        rss_bytes: memory("VmRSS:"),
        peak_rss_bytes: memory("VmHWM:"),
        uptime_secs: started.elapsed().as_secs(),
        databases: Vec::new(),
        counters: counters.snapshot(),
    }
}

/// This system's host name (gethostname(2)), the default for `host` in a configuration.
pub fn system_host() -> Result<HostName, Fatal> {
    let name =
        nix::unistd::gethostname().map_err(|error| Fatal::Other(format!("cannot read the host name: {error}")))?;
    let name = name.to_string_lossy();
    HostName::try_from(&*name).map_err(|error| Fatal::Other(format!("{error}; set host in the configuration")))
}

/// The `host` of a configuration, or else the system's.
pub fn host_or_system(given: Option<HostName>) -> Result<HostName, Fatal> {
    given.map_or_else(system_host, Ok)
}

/// A line of /proc/self/status in bytes (proc_pid_status(5) gives kB), 0 where it cannot be read.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
