//! Completions and manual pages, made from the command line's own definition.

use crate::args::Args;
use crate::failure::{Failure, Outcome};
use crate::out::put;
use clap::CommandFactory;
use std::path::Path;

/// The completions, for the shell to read.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "cctl", &mut script);
    put(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Fine)
}

/// The manual page; with a folder, one for each subcommand, too.
pub(crate) fn man(dir: Option<&Path>) -> Result<Outcome, Failure> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page)?;
        put(&String::from_utf8_lossy(&page))?;
        return Ok(Outcome::Fine);
    };

    std::fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, &error))?;
    clap_mangen::generate_to(Args::command(), dir).map_err(|error| Failure::file("write into", dir, &error))?;
    Ok(Outcome::Fine)
}
