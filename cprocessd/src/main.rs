//! cprocessd decides what is up, what is down and what people hear about.

mod answers;
mod daemon;
mod peers;

use clap::Parser;
use common::startup::{self, DaemonArgs, Fatal};
use cprocessd::config::Config;
use daemon::Daemon;
use std::process::ExitCode;

/// Judges what ccollectd observes: up or down, alarms, severity, incidents
#[derive(Debug, Parser)]
#[command(name = "cprocessd", version)]
struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
}

fn main() -> ExitCode {
    let args: Args = startup::parse_args();
    startup::init(args.daemon.verbose);
    startup::exit_code(run(&args.daemon))
}

/// Whatever can go wrong at start goes wrong before `notify_ready`.
fn run(args: &DaemonArgs) -> Result<(), Fatal> {
    let path = args.config_path("cprocessd");
    let config = Config::load(&path)?;
    if args.check_config {
        return startup::say_fine(&path);
    }
    startup::block_on(async {
        let mut daemon = Daemon::start(config, path, args.print).await?;
        startup::notify_ready();
        daemon.run().await?;
        daemon.stop().await;
        Ok(())
    })
}
