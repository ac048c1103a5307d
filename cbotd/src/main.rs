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
    let args: Args = startup::parse_args();
    startup::init(args.daemon.verbose);
    // Before anything speaks TLS: with two providers in a tree, rustls refuses to choose one.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed already");
    }
    startup::exit_code(common::notifier::run("cbotd", &args.daemon, config::load))
}
