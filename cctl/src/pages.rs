//! Completions and manual pages, made from the command line's own definition.

use crate::args::Args;
use crate::failure::{Failure, Outcome};
use crate::out::Out;
use clap::CommandFactory;
use std::path::Path;

/// The completions, for the shell to read.
pub(crate) fn completions(out: &Out, shell: clap_complete::Shell) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "cctl", &mut script);
    out.write(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Fine)
}

/// The manual page; with a folder, one for each subcommand, too.
pub(crate) fn man(out: &Out, dir: Option<&Path>) -> Result<Outcome, Failure> {
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, &error))?;
            clap_mangen::generate_to(Args::command(), dir).map_err(|error| Failure::file("write into", dir, &error))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut page)?;
            out.write(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Outcome::Fine)
}
