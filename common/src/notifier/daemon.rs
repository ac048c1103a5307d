//! The shell.

use crate::config::ConfigError;
use crate::notifier::{Medium, Setup};
use crate::startup::{DaemonArgs, Fatal};
use std::path::Path;

/// Runs a notifier: the whole of its `main` after the command line.
pub fn run<M: Medium>(
    name: &'static str,
    args: &DaemonArgs,
    load: fn(&Path) -> Result<Setup<M>, ConfigError>,
) -> Result<(), Fatal> {
    let path = args.config_path(name);
    let _setup = load(&path)?;
    Ok(())
}
