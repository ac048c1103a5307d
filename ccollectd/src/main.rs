//! ccollectd observes its own host and publishes what it sees as one feed.
//!
//! It never judges: it says what is up and down and what is news, and leaves to cprocessd what of it is an alert.

mod config;
mod daemon;
mod feed;
mod inbox;
mod keeper;
mod questions;
mod scheduler;
mod sources;
mod store;

use crate::config::Config;
use crate::daemon::Daemon;
use crate::inbox::{Inbox, Wake};
use common::counters::Counters;
use common::startup::{self, Asked, DaemonArgs, Fatal};
use common::traffic::Traffic;
use std::path::PathBuf;
use std::process::ExitCode;

/// Observes this host and publishes what it sees as one feed
#[derive(Debug, clap::Parser)]
#[command(name = "ccollectd", version)]
struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
}

fn main() -> ExitCode {
    let args: Args = startup::parse_args();
    startup::init(args.daemon.verbose);
    startup::exit_code(run(&args.daemon))
}

fn run(args: &DaemonArgs) -> Result<(), Fatal> {
    let path = args.config_path("ccollectd");
    let config = Config::load(&path)?;
    if args.check_config {
        return Ok(());
    }
    startup::block_on(observe(path, config, Traffic::new(args.print)))
}

/// The whole life of the daemon. Whatever can go wrong at start goes wrong before `notify_ready`.
async fn observe(path: PathBuf, config: Config, traffic: Traffic) -> Result<(), Fatal> {
    let counters = Counters::default();
    // Sockets first: a second daemon on the same folders is refused before it touches the journal.
    let mut inbox = Inbox::bind(&config.fixed, &counters).await?;
    let mut daemon = Daemon::start(path, config, inbox.observer(), counters, traffic).await?;
    startup::notify_ready();

    loop {
        match inbox.next().await? {
            Wake::Input(batch) => daemon.take_in(batch),
            Wake::Tick(batch) => daemon.tick(batch),
            Wake::Second => daemon.beat(),
            Wake::Question(question) => {
                let answer = daemon.answer(&question);
                inbox.reply(question, answer).await;
            }
            Wake::Signal(Asked::Reload) => daemon.reload(),
            Wake::Signal(Asked::Stop) => break,
        }
        daemon.check_sound()?;
    }

    startup::notify_stopping();
    let last = inbox.close().await;
    daemon.stop(last).await;
    Ok(())
}
