//! cbotd tells people on IRC.

use cbotd::config;
use clap::Parser;
use common::startup::{self, DaemonArgs};
use std::process::ExitCode;

/// Tells people on IRC what cprocessd judges worth telling
#[derive(Debug, Parser)]
#[command(name = "cbotd", version)]
struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
}

fn main() -> ExitCode {
    common::trust::install_ring();
    let args: Args = startup::parse_args();
    startup::init(args.daemon.verbose);
    startup::exit_code(common::notifier::run("cbotd", &args.daemon, config::load))
}
