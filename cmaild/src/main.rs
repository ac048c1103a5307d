//! cmaild tells people by mail.

use clap::Parser;
use cmaild::config;
use common::startup::{self, DaemonArgs};
use std::process::ExitCode;

/// Tells people by mail what cprocessd decided
#[derive(Debug, Parser)]
#[command(name = "cmaild", version)]
struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
}

fn main() -> ExitCode {
    common::trust::install_ring();
    let args: Args = startup::parse_args();
    startup::init(args.daemon.verbose);
    startup::exit_code(common::notifier::run("cmaild", &args.daemon, config::load))
}
