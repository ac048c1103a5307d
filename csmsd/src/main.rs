//! csmsd tells people by short message and push.

use clap::Parser;
use common::startup::{self, DaemonArgs};
use std::process::ExitCode;

/// Tells people by SMS and push what cprocessd says
#[derive(Debug, Parser)]
#[command(name = "csmsd", version)]
struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
}

fn main() -> ExitCode {
    common::trust::install_ring();
    let args: Args = startup::parse_args();
    startup::init(args.daemon.verbose);
    startup::exit_code(common::notifier::run("csmsd", &args.daemon, csmsd::config::load))
}
