//! cwebd shows what happens, live, in a browser. It is never in the path of an alert.

mod board;
mod bucket;
mod config;
mod daemon;
mod live;
mod page;
mod password;
mod routes;
mod server;
mod session;
mod source;
mod subscription;

use clap::Parser;
use common::startup::{self, DaemonArgs, Fatal};
use config::Config;
use daemon::Daemon;
use password::Password;
use std::io::Write as _;
use std::process::ExitCode;

/// Shows hosts, open incidents and events on a web page
#[derive(Debug, Parser)]
#[command(name = "cwebd", version)]
struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Read a password, one line, and print its hash for `password_file`: systemd-ask-password | cwebd --hash-password
    #[arg(long)]
    hash_password: bool,
}

fn main() -> ExitCode {
    let args: Args = startup::parse_args();
    startup::init(args.daemon.verbose);
    startup::exit_code(if args.hash_password { hash_password() } else { run(&args.daemon) })
}

/// Whatever can go wrong at start goes wrong before `notify_ready`.
fn run(args: &DaemonArgs) -> Result<(), Fatal> {
    let path = args.config_path("cwebd");
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

fn hash_password() -> Result<(), Fatal> {
    let mut line = String::new();
    let io = |error: std::io::Error| Fatal::Other(format!("cannot read a password: {error}"));
    std::io::stdin().read_line(&mut line).map_err(io)?;
    let hash = Password::hash(line.trim_end_matches(['\r', '\n'])).map_err(Fatal::Other)?;
    writeln!(std::io::stdout(), "{hash}").map_err(io)
}
